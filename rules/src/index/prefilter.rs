//! What a row must look like for a rule to make anything of it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::util::display::array_value_to_string;
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::schema::FieldType;

use super::column::{float_of, number_of_float};
use crate::expression::evaluate;

/// Conditions that a row must fulfil, all of them, for a rule to make anything of it. Not all that the rule
/// asks for: a row that fulfils them may be left out by the rule all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefilter {
    /// A term has one value.
    pub equal: Option<Equal>,
    /// A term is within bounds.
    pub band: Option<Band>,
}

/// What a condition looks at. Two are equal when they are of the same type and computed alike, whatever they
/// are called.
#[derive(Debug, Clone)]
pub struct Term {
    /// as people write it
    pub name: Arc<str>,
    /// of what type it is
    pub kind: FieldType,
    /// where it comes from
    pub source: Source,
}

/// Where a term comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// the column of the stream with this index
    Column(usize),
    /// it is computed of columns
    Computed(Arc<dyn PhysicalExpr>),
}

/// A term has this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equal {
    /// the term
    pub term: Term,
    /// the value
    pub value: Value,
}

/// A term is not less than `low` and not greater than `high`, as [`Value::Number`] orders them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band {
    /// the term
    pub term: Term,
    /// `i64::MIN`: there is no bound
    pub low: i64,
    /// `i64::MAX`: there is no bound
    pub high: i64,
}

/// A value that rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Anything but text, as a number of equal order: floats with one zero, and with one NaN above all
    /// others; times in nanoseconds.
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

impl Term {
    /// Whether it is computed.
    #[must_use]
    pub fn is_computed(&self) -> bool {
        matches!(self.source, Source::Computed(_))
    }

    /// Its values in `batch`; `None` when it is not there, or cannot be computed for all rows.
    pub(super) fn array(&self, batch: &RecordBatch) -> Option<ArrayRef> {
        match &self.source {
            Source::Column(index) => batch.columns().get(*index).cloned(),
            Source::Computed(expr) => evaluate(expr, batch).ok(),
        }
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match (&self.source, &other.source) {
                (Source::Column(own), Source::Column(other)) => own == other,
                (Source::Computed(own), Source::Computed(other)) => **own == **other,
                _ => false,
            }
    }
}

impl Eq for Term {}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.source {
            Source::Column(index) => index.hash(state),
            Source::Computed(expr) => expr.hash(state),
        }
    }
}

impl Prefilter {
    /// A term has this value.
    #[must_use]
    pub fn equal(term: Term, value: Value) -> Self {
        Self { equal: Some(Equal { term, value }), band: None }
    }

    /// A term is within these bounds.
    #[must_use]
    pub fn band(term: Term, low: i64, high: i64) -> Self {
        Self { equal: None, band: Some(Band { term, low, high }) }
    }

    /// How much the index can make of it; less is better. What has to be computed comes after every column,
    /// and then stands alone.
    #[must_use]
    pub fn cost(&self) -> u8 {
        let computed = |term: &Term| if term.is_computed() { 3 } else { 0 };
        match (&self.equal, &self.band) {
            (Some(equal), _) if equal.term.kind != FieldType::Bool => computed(&equal.term),
            (_, Some(band)) => 1 + computed(&band.term),
            (Some(equal), None) => 2 + computed(&equal.term),
            (None, None) => u8::MAX,
        }
    }

    fn is_computed(&self) -> bool {
        self.equal.as_ref().is_some_and(|equal| equal.term.is_computed())
            || self.band.as_ref().is_some_and(|band| band.term.is_computed())
    }

    /// A prefilter for rows that fulfil both, as far as there is a place for the conditions.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let of_one_term = || Some(self.band.as_ref()?.term == other.band.as_ref()?.term);
        if (self.is_computed() || other.is_computed()) && of_one_term() != Some(true) {
            return if self.cost() <= other.cost() { self.clone() } else { other.clone() };
        }
        let equal = match (&self.equal, &other.equal) {
            (Some(mine), Some(_)) if mine.term.kind != FieldType::Bool => Some(mine),
            (mine, theirs) => theirs.as_ref().or(mine.as_ref()),
        };
        let band = match (&self.band, &other.band) {
            (Some(mine), Some(theirs)) if mine.term == theirs.term => Some(Band {
                term: mine.term.clone(),
                low: mine.low.max(theirs.low),
                high: mine.high.min(theirs.high),
            }),
            (mine, theirs) => mine.as_ref().or(theirs.as_ref()).cloned(),
        };
        Self { equal: equal.cloned(), band }
    }
}

impl fmt::Display for Prefilter {
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
        let Self { term, value } = self;
        match value {
            Value::Number(number) if term.is_computed() && term.kind == FieldType::Bool => {
                if *number == 0 {
                    write!(f, "NOT ({})", term.name)
                } else {
                    f.write_str(&term.name)
                }
            }
            Value::Text(text) => write!(f, "{} = '{}'", term.name, text.replace('\'', "''")),
            Value::Number(number) => write!(f, "{} = {}", term.name, shown(term.kind, *number)),
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { term: Term { name, kind, .. }, low, high } = self;
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
        FieldType::Int64 | FieldType::Utf8 | FieldType::Bytes => number.to_string(),
    }
}
