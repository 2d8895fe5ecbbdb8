//! Rows as scripts see them: views of an Arrow batch, from which a value is taken when it is asked for.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType,
};
use rhai::{Dynamic, EvalAltResult, Map};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{Rows as Numbered, Seqs, TS};

use super::value::shown;

/// The rows of one batch, their columns resolved.
#[derive(Debug)]
pub(super) struct View {
    /// which of the rule's streams it is of
    pub input: usize,
    schema: SchemaRef,
    columns: Vec<Column>,
    seqs: Seqs,
    rows: usize,
}

/// One column.
#[derive(Debug)]
enum Column {
    Bool(BooleanArray),
    Int(Int64Array),
    Float(Float64Array),
    Text(StringArray),
    Time(TimestampNanosecondArray),
    Bytes(BinaryArray),
    /// the batch has no such column, or one that has no values
    Missing,
    /// a type that scripts have no values for
    Other(DataType),
}

impl Column {
    fn new(array: &dyn Array) -> Self {
        match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Int64 => Self::Int(array.as_primitive::<Int64Type>().clone()),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Self::Time(array.as_primitive::<TimestampNanosecondType>().clone())
            }
            DataType::Binary => Self::Bytes(array.as_binary::<i32>().clone()),
            DataType::Null => Self::Missing,
            other => Self::Other(other.clone()),
        }
    }

    fn value(&self, row: usize) -> Result<Dynamic, &DataType> {
        Ok(match self {
            Self::Bool(values) if values.is_valid(row) => Dynamic::from_bool(values.value(row)),
            Self::Int(values) if values.is_valid(row) => Dynamic::from_int(values.value(row)),
            Self::Float(values) if values.is_valid(row) => Dynamic::from_float(values.value(row)),
            Self::Time(values) if values.is_valid(row) => Dynamic::from_int(values.value(row)),
            Self::Text(values) if values.is_valid(row) => values.value(row).into(),
            Self::Bytes(values) if values.is_valid(row) => Dynamic::from_blob(values.value(row).to_vec()),
            Self::Other(data_type) => return Err(data_type),
            _ => Dynamic::UNIT,
        })
    }
}

impl View {
    /// `rows` of the rule's stream `input`, whose columns are those of `schema`.
    pub(super) fn new(input: usize, schema: &SchemaRef, rows: &Numbered) -> Self {
        let batch = &rows.batch;
        let columns = schema.fields().iter().enumerate().map(|(at, field)| {
            // Nearly always they stand where they did when the rule was compiled.
            let is_there =
                batch.schema_ref().fields().get(at).is_some_and(|found| found.name() == field.name());
            let array = if is_there { batch.columns().get(at) } else { batch.column_by_name(field.name()) };
            array.map_or(Column::Missing, |array| Column::new(array))
        });
        Self {
            input,
            columns: columns.collect(),
            schema: Arc::clone(schema),
            seqs: rows.seqs.clone(),
            rows: batch.num_rows(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// The sequence number of a row.
    pub(super) fn seq(&self, row: usize) -> u64 {
        self.seqs.get(row)
    }

    /// The event time of a row.
    pub(super) fn ts(&self, row: usize) -> Option<i64> {
        let at = self.schema.index_of(TS).ok()?;
        match self.columns.get(at)? {
            Column::Time(times) if row < times.len() && times.is_valid(row) => Some(times.value(row)),
            _ => None,
        }
    }

    fn value(&self, row: usize, column: usize) -> Result<Dynamic, Box<EvalAltResult>> {
        let Some(found) = self.columns.get(column).filter(|_| row < self.rows) else {
            return Ok(Dynamic::UNIT);
        };
        found.value(row).map_err(|data_type| {
            let name = self.schema.fields().get(column).map_or("", |field| field.name());
            format!("column `{name}` is {data_type}, which a script cannot read").into()
        })
    }

    /// A row for an error: its columns, shortened.
    pub(super) fn describe(&self, row: usize) -> String {
        let column = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| {
            let value = self.value(row, at).unwrap_or(Dynamic::UNIT);
            format!("{}: {}", field.name(), shown(&value, 40))
        };
        let mut text = self.schema.fields().iter().enumerate().map(column).collect::<Vec<_>>().join(", ");
        if text.len() > 300 {
            let end = text.floor_char_boundary(300);
            text.truncate(end);
            text.push_str("..");
        }
        text
    }
}

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    view: Arc<View>,
    at: usize,
}

impl Row {
    pub(super) fn new(view: &Arc<View>, at: usize) -> Self {
        Self { view: Arc::clone(view), at }
    }

    /// The value of the column that stands at `places` of the streams' columns, by stream.
    pub(super) fn column(&self, name: &str, places: &[Option<usize>]) -> Result<Dynamic, Box<EvalAltResult>> {
        match places.get(self.view.input) {
            Some(Some(column)) => self.view.value(self.at, *column),
            _ => Err(unknown_column(name, &self.view.schema)),
        }
    }

    /// The value of a column whose name is computed.
    pub(super) fn named(&self, name: &str) -> Result<Dynamic, Box<EvalAltResult>> {
        match self.view.schema.index_of(name) {
            Ok(column) => self.view.value(self.at, column),
            Err(_) => Err(unknown_column(name, &self.view.schema)),
        }
    }

    /// A copy of all values.
    pub(super) fn to_map(&self) -> Result<Map, Box<EvalAltResult>> {
        let fields = self.view.schema.fields().iter().enumerate();
        fields.map(|(at, field)| Ok((field.name().as_str().into(), self.view.value(self.at, at)?))).collect()
    }
}

fn unknown_column(name: &str, schema: &Schema) -> Box<EvalAltResult> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let help = did_you_mean(name, &names).map_or_else(String::new, |help| format!("; {help}"));
    format!("the row has no column `{name}`{help}").into()
}

/// All rows of a batch.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub view: Arc<View>,
}

impl Rows {
    pub(super) fn get(&self, at: i64) -> Result<Row, Box<EvalAltResult>> {
        let len = self.view.len();
        match usize::try_from(at).ok().filter(|at| *at < len) {
            Some(at) => Ok(Row::new(&self.view, at)),
            None => Err(format!("there are {len} rows, numbered from 0, and no row {at}").into()),
        }
    }
}
