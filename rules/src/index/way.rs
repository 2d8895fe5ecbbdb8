//! What a row must look like for a rule to make anything of it.

use std::fmt;
use std::sync::Arc;

use arrow::array::TimestampNanosecondArray;
use arrow::util::display::array_value_to_string;
use tidegate_core::schema::FieldType;

use super::column::{float_of, number_of_float};

/// Conditions that a row must fulfil, all of them, for a rule to make anything of it. Not all that the rule asks for: a row that
/// fulfils them may be left out by the rule all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Way {
    /// A column has one value.
    pub equal: Option<Equal>,
    /// A column is within bounds.
    pub band: Option<Band>,
}

/// A column of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// where it is in a batch
    pub index: usize,
    /// what it is called
    pub name: Arc<str>,
    /// of what type it is
    pub kind: FieldType,
}

/// A column has this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equal {
    /// the column
    pub column: Column,
    /// the value
    pub value: Value,
}

/// A column is not less than `low` and not greater than `high`, as [`Value::Number`] orders them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band {
    /// the column
    pub column: Column,
    /// `i64::MIN`: there is no bound
    pub low: i64,
    /// `i64::MAX`: there is no bound
    pub high: i64,
}

/// A value that rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Anything but text, as a number of equal order: floats by IEEE 754's total order, but with one zero; times in nanoseconds.
    Number(i64),
    /// Text.
    Text(Arc<str>),
}

impl Value {
    /// A float; `None` when it is not a number.
    #[must_use]
    pub fn float(value: f64) -> Option<Self> {
        (!value.is_nan()).then(|| Self::Number(number_of_float(value)))
    }
}

impl Way {
    /// How much the index can make of it; less is better.
    #[must_use]
    pub fn cost(&self) -> u8 {
        match (&self.equal, &self.band) {
            (Some(equal), _) if equal.column.kind != FieldType::Bool => 0,
            (_, Some(_)) => 1,
            _ => 2,
        }
    }

    /// A way for rows that fulfil both, as far as there is a place for the conditions.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let equal = match (&self.equal, &other.equal) {
            (Some(mine), Some(_)) if mine.column.kind != FieldType::Bool => Some(mine),
            (mine, theirs) => theirs.as_ref().or(mine.as_ref()),
        };
        let band = match (&self.band, &other.band) {
            (Some(mine), Some(theirs)) if mine.column == theirs.column => {
                Some(Band { column: mine.column.clone(), low: mine.low.max(theirs.low), high: mine.high.min(theirs.high) })
            }
            (mine, theirs) => mine.as_ref().or(theirs.as_ref()).cloned(),
        };
        Self { equal: equal.cloned(), band }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.equal, &self.band) {
            (Some(equal), Some(band)) => write!(f, "{equal} and {band}"),
            (Some(equal), None) => equal.fmt(f),
            (None, Some(band)) => band.fmt(f),
            (None, None) => f.write_str("any row"),
        }
    }
}

impl fmt::Display for Equal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Text(text) => write!(f, "{} = '{}'", self.column.name, text.replace('\'', "''")),
            Value::Number(number) => write!(f, "{} = {}", self.column.name, shown(self.column.kind, *number)),
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column: Column { name, kind, .. }, low, high } = self;
        match (*low != i64::MIN, *high != i64::MAX) {
            (true, true) => write!(f, "{name} from {} to {}", shown(*kind, *low), shown(*kind, *high)),
            (true, false) => write!(f, "{name} from {} up", shown(*kind, *low)),
            (false, true) => write!(f, "{name} up to {}", shown(*kind, *high)),
            (false, false) => write!(f, "{name} is there"),
        }
    }
}

/// A [`Value::Number`] for people.
fn shown(kind: FieldType, number: i64) -> String {
    match kind {
        FieldType::Float64 => float_of(number).to_string(),
        FieldType::Bool => (number != 0).to_string(),
        FieldType::Timestamp => {
            let time = TimestampNanosecondArray::from(vec![number]).with_timezone("UTC");
            array_value_to_string(&time, 0).unwrap_or_else(|_| number.to_string())
        }
        FieldType::Int64 | FieldType::Utf8 => number.to_string(),
    }
}
