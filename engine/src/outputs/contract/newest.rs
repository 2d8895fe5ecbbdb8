//! The newest rows of streams: what interlocks look at, and how old it is what rules read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType};
use tidegate_connectors::codec::Encoder;
use tidegate_connectors::quality::{QUALITY, Quality};
use tidegate_core::FieldType;
use tidegate_core::schema::{TS, ts_type};

use crate::config::{Value, Values};
use crate::decision::Input;

/// Longest row that is kept with a decision.
const LONGEST_ROW: usize = 1024;

/// The age of what was kept: older than anything may be, and far from the ends of time.
const KEPT: i64 = i64::MAX / 4;

/// Most rows that are kept.
const MOST_ROWS: usize = 20_000;

/// The newest row of a stream, or of those of its rows that are about one instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// one row
    pub(super) row: RecordBatch,
    pub(super) seq: u64,
    /// in the sequence's time
    pub(super) arrived: i64,
    /// how old it was when it arrived, by its own time
    pub(super) age_then: i64,
}

impl Seen {
    /// How old it is.
    pub(super) fn age(&self, now: i64) -> i64 {
        now.saturating_sub(self.arrived).saturating_add(self.age_then)
    }

    /// When it will be `age` old.
    pub(super) fn is_as_old_at(&self, age: i64) -> i64 {
        self.arrived.saturating_sub(self.age_then).saturating_add(age)
    }

    /// Whether it was kept on its way, nobody knows for how long.
    pub(super) fn was_kept(&self) -> bool {
        self.age_then >= KEPT
    }

    /// What its stream says of how good it is, unless that is good.
    pub(super) fn quality(&self) -> Option<String> {
        let column = self.row.column_by_name(QUALITY)?.as_string_opt::<i32>()?;
        let quality = if column.is_valid(0) { column.value(0) } else { "unknown" };
        (quality != Quality::Good.as_str()).then(|| quality.to_owned())
    }

    /// For people.
    pub(super) fn input(&self, stream: &Arc<str>) -> Input {
        let mut text = Vec::new();
        Encoder::new(self.row.schema_ref()).encode_row(&self.row, 0, &mut text);
        let mut row = String::from_utf8_lossy(&text).into_owned();
        if row.len() > LONGEST_ROW {
            let end = (0..=LONGEST_ROW).rev().find(|at| row.is_char_boundary(*at)).unwrap_or(0);
            row.truncate(end);
            row.push_str("..");
        }
        Input { stream: Arc::clone(stream), seq: self.seq, row }
    }

    /// What is in one of its columns.
    pub(super) fn value(&self, column: &str) -> Option<Value> {
        value(self.row.column_by_name(column)?, 0).ok().flatten()
    }
}

/// The newest rows, by stream and instance; the instance is empty for streams that have none.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest(pub(super) BTreeMap<(Arc<str>, Arc<str>), Seen>);

impl Newest {
    /// The newest row of `stream` about `instance`. When there are very many, new ones are not taken note of:
    /// their interlocks stay as if nothing was heard.
    pub(super) fn see(&mut self, stream: &Arc<str>, instance: Arc<str>, seen: Seen) {
        let key = (Arc::clone(stream), instance);
        if self.0.len() < MOST_ROWS || self.0.contains_key(&key) {
            self.0.insert(key, seen);
        }
    }

    /// The newest row of `stream` for `instance`: one that is about it, or about all.
    pub(super) fn get(&self, stream: &Arc<str>, instance: &Arc<str>) -> Option<&Seen> {
        let of_instance = self.0.get(&(Arc::clone(stream), Arc::clone(instance)));
        of_instance.or_else(|| self.0.get(&(Arc::clone(stream), Arc::from(""))))
    }
}

/// How old rows are when they arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ages {
    /// streams whose `ts` is when they came
    pub by_arrival: BTreeSet<Arc<str>>,
    /// by stream, the column that says of a row that it was kept on its way
    pub kept: BTreeMap<Arc<str>, Arc<str>>,
}

impl Ages {
    /// The age of a row of `stream` that arrived at wall time `wall_ns`.
    pub(super) fn age(&self, stream: &str, rows: &RecordBatch, row: usize, wall_ns: i64) -> i64 {
        let kept = self.kept.get(stream).and_then(|column| rows.column_by_name(column)?.as_boolean_opt());
        if kept.is_some_and(|kept| kept.is_valid(row) && kept.value(row)) {
            return KEPT;
        }
        if self.by_arrival.contains(stream) { 0 } else { age_by_ts(rows, row, wall_ns) }
    }
}

/// How old a row was when it arrived at wall time `wall_ns`, by its `ts`.
fn age_by_ts(rows: &RecordBatch, row: usize, wall_ns: i64) -> i64 {
    let ts = rows.column_by_name(TS).filter(|column| *column.data_type() == ts_type());
    let ts = ts.and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    let ts = ts.filter(|column| column.is_valid(row)).map_or(wall_ns, |column| column.value(row));
    wall_ns.saturating_sub(ts).max(0)
}

/// What is in a column; none: NULL.
///
/// # Errors
/// When an output cannot be told such a thing.
pub fn value(column: &ArrayRef, row: usize) -> Result<Option<Value>, String> {
    if column.is_null(row) {
        return Ok(None);
    }
    let number = |number: f64| {
        if number.is_finite() {
            Ok(Some(Value::Float(number)))
        } else {
            Err(format!("is {number}, and no number"))
        }
    };
    match column.data_type() {
        DataType::Boolean => Ok(Some(Value::Bool(column.as_boolean().value(row)))),
        DataType::Float64 => number(column.as_primitive::<arrow::datatypes::Float64Type>().value(row)),
        DataType::Float32 => {
            number(f64::from(column.as_primitive::<arrow::datatypes::Float32Type>().value(row)))
        }
        DataType::Utf8 => Ok(Some(Value::Text(column.as_string::<i32>().value(row).into()))),
        DataType::Utf8View => Ok(Some(Value::Text(column.as_string_view().value(row).into()))),
        DataType::LargeUtf8 => Ok(Some(Value::Text(column.as_string::<i64>().value(row).into()))),
        kind if kind.is_integer() => {
            let one = arrow::compute::cast(&column.slice(row, 1), &DataType::Int64)
                .map_err(|error| error.to_string())?;
            let one = one.as_primitive::<Int64Type>();
            if one.is_valid(0) { Ok(Some(Value::Int(one.value(0)))) } else { Err("is too large".to_owned()) }
        }
        DataType::Decimal128(..) => {
            let one = arrow::compute::cast(&column.slice(row, 1), &DataType::Float64)
                .map_err(|error| error.to_string())?;
            number(one.as_primitive::<arrow::datatypes::Float64Type>().value(0))
        }
        other => Err(format!("is of type {other}, which no output can be told")),
    }
}

/// One value in a column of its own, of type `kind`, or as it is.
#[must_use]
pub fn array(value: &Value, kind: Option<FieldType>) -> ArrayRef {
    match kind.and_then(|kind| value.of_type(kind)).as_ref().unwrap_or(value) {
        Value::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
        Value::Int(value) => Arc::new(Int64Array::from(vec![*value])),
        Value::Float(value) => Arc::new(Float64Array::from(vec![*value])),
        Value::Text(value) => Arc::new(StringArray::from(vec![&**value])),
    }
}

/// How an instance is called that has the values of `key` in `columns`: `line=7`.
pub(super) fn instance_name(columns: &[Arc<str>], key: &Values) -> Arc<str> {
    let part = |column: &Arc<str>| match key.get(column) {
        Some(Value::Text(text)) => format!("{column}={text}"),
        Some(other) => format!("{column}={other}"),
        None => format!("{column}="),
    };
    columns.iter().map(part).collect::<Vec<_>>().join(",").into()
}

/// The values of the key columns in a row.
///
/// # Errors
/// When one of them is not there.
pub(super) fn key_of(columns: &[Arc<str>], rows: &RecordBatch, row: usize) -> Result<Values, String> {
    let mut key = Values::new();
    for column in columns {
        let found = rows.column_by_name(column).map(|array| value(array, row)).transpose();
        match found.map_err(|why| format!("`{column}` {why}"))?.flatten() {
            Some(value) => drop(key.insert(Arc::clone(column), value)),
            None => return Err(format!("`{column}` is NULL, which says which one is meant")),
        }
    }
    Ok(key)
}
