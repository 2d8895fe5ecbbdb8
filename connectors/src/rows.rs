//! Rows of values that were read one by one, and how good they are.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch,
    RecordBatchOptions, StringBuilder, TimestampNanosecondBuilder,
};
use arrow::datatypes::{Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampNanosecondType};
use tidegate_core::schema::{ts_field, ts_type};
use tidegate_core::{Ack, Batch, FieldType};

use crate::codec::is_null;
use crate::hex::Hex;
use crate::line::handover::Pending;
use crate::quality::{FAULT, QUALITY, Quality};

/// What was read, or shall be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// no value
    Null,
    /// of [`FieldType::Bool`]
    Bool(bool),
    /// of [`FieldType::Int64`], or a [`FieldType::Timestamp`]
    Int(i64),
    /// of [`FieldType::Float64`]
    Float(f64),
    /// of [`FieldType::Utf8`]
    Text(String),
    /// of [`FieldType::Bytes`]
    Bytes(Vec<u8>),
}

impl Value {
    /// The value of a cell. None: of a type that has no [`FieldType`].
    pub(crate) fn read(column: &dyn Array, row: usize) -> Option<Self> {
        if is_null(column, row) {
            return Some(Self::Null);
        }
        Some(match FieldType::from_arrow(column.data_type())? {
            FieldType::Bool => Self::Bool(column.as_boolean().value(row)),
            FieldType::Int64 => Self::Int(column.as_primitive::<Int64Type>().value(row)),
            FieldType::Timestamp => Self::Int(column.as_primitive::<TimestampNanosecondType>().value(row)),
            FieldType::Float64 => Self::Float(column.as_primitive::<Float64Type>().value(row)),
            FieldType::Utf8 => Self::Text(column.as_string::<i32>().value(row).to_owned()),
            FieldType::Bytes => Self::Bytes(column.as_binary::<i32>().value(row).to_vec()),
        })
    }

    /// For programs; bytes are hexadecimal digits.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(value) => value.clone().into(),
            Self::Bytes(_) => self.to_string().into(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => write!(f, "\"{value}\""),
            Self::Bytes(value) => write!(f, "{:x}", Hex(value)),
        }
    }
}

/// The builders of a stream's columns.
pub(crate) struct Rows {
    stream: Arc<str>,
    schema: SchemaRef,
    ts: TimestampNanosecondBuilder,
    columns: Vec<Column>,
    /// `quality` and `fault`
    verdict: Option<(StringBuilder, StringBuilder)>,
    count: usize,
}

/// `columns`, and behind them those that tell how good a row is.
pub(crate) fn with_quality(
    mut columns: Vec<(String, FieldType)>,
    has_quality: bool,
) -> Vec<(String, FieldType)> {
    if has_quality {
        columns.extend([QUALITY, FAULT].map(|name| (name.to_owned(), FieldType::Utf8)));
    }
    columns
}

enum Column {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Time(TimestampNanosecondBuilder),
    Bytes(BinaryBuilder),
}

impl Column {
    fn new(field_type: FieldType) -> Self {
        match field_type {
            FieldType::Bool => Self::Bool(BooleanBuilder::new()),
            FieldType::Int64 => Self::Int(Int64Builder::new()),
            FieldType::Float64 => Self::Float(Float64Builder::new()),
            FieldType::Utf8 => Self::Text(StringBuilder::new()),
            FieldType::Timestamp => Self::Time(TimestampNanosecondBuilder::new().with_data_type(ts_type())),
            FieldType::Bytes => Self::Bytes(BinaryBuilder::new()),
        }
    }

    /// A value of another type is null.
    fn append(&mut self, value: &Value) {
        match (self, value) {
            (Self::Bool(column), Value::Bool(value)) => column.append_value(*value),
            (Self::Int(column), Value::Int(value)) => column.append_value(*value),
            (Self::Float(column), Value::Float(value)) => column.append_value(*value),
            (Self::Text(column), Value::Text(value)) => column.append_value(value),
            (Self::Time(column), Value::Int(value)) => column.append_value(*value),
            (Self::Bytes(column), Value::Bytes(value)) => column.append_value(value),
            (Self::Bool(column), _) => column.append_null(),
            (Self::Int(column), _) => column.append_null(),
            (Self::Float(column), _) => column.append_null(),
            (Self::Text(column), _) => column.append_null(),
            (Self::Time(column), _) => column.append_null(),
            (Self::Bytes(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(column) => Arc::new(column.finish()),
            Self::Int(column) => Arc::new(column.finish()),
            Self::Float(column) => Arc::new(column.finish()),
            Self::Text(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::Bytes(column) => Arc::new(column.finish()),
        }
    }
}

/// One row of these columns, without a time.
pub(crate) fn row<'a>(
    cells: impl IntoIterator<Item = (&'a str, FieldType, &'a Value)>,
) -> Option<RecordBatch> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (name, field_type, value) in cells {
        let mut column = Column::new(field_type);
        column.append(value);
        fields.push(Field::new(name, field_type.data_type(), true));
        arrays.push(column.finish());
    }
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &one_row).ok()
}

impl Rows {
    /// For a stream with these columns between `ts` and, if it has them, `quality` and `fault`.
    pub(crate) fn new(stream: &str, columns: Vec<(String, FieldType)>, has_quality: bool) -> Self {
        let builders = columns.iter().map(|(_, field_type)| Column::new(*field_type)).collect();
        let fields = with_quality(columns, has_quality).into_iter();
        let fields = fields.map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
        let schema = Arc::new(Schema::new(std::iter::once(ts_field()).chain(fields).collect::<Vec<_>>()));
        Self {
            stream: stream.into(),
            schema,
            ts: TimestampNanosecondBuilder::new().with_data_type(ts_type()),
            columns: builders,
            verdict: has_quality.then(|| (StringBuilder::new(), StringBuilder::new())),
            count: 0,
        }
    }

    /// Whether nothing that was read is a row.
    pub(crate) fn tell_quality(&self) -> bool {
        self.verdict.is_some()
    }

    /// The stream's name.
    pub(crate) fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    /// Adds a row. `values`: of the columns, in their order; those that are not there are null.
    pub(crate) fn append<'a>(
        &mut self,
        ts: i64,
        values: impl IntoIterator<Item = &'a Value>,
        quality: Quality,
        fault: Option<&str>,
    ) {
        self.ts.append_value(ts);
        let mut values = values.into_iter();
        for column in &mut self.columns {
            column.append(values.next().unwrap_or(&Value::Null));
        }
        if let Some((qualities, faults)) = &mut self.verdict {
            qualities.append_value(quality.as_str());
            faults.append_option(fault);
        }
        self.count += 1;
    }
}

impl Pending for Rows {
    fn len(&self) -> usize {
        self.count
    }

    fn take(&mut self) -> Option<Batch> {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.ts.finish())];
        arrays.extend(self.columns.iter_mut().map(Column::finish));
        if let Some((qualities, faults)) = &mut self.verdict {
            arrays.push(Arc::new(qualities.finish()));
            arrays.push(Arc::new(faults.finish()));
        }
        self.count = 0;
        // Each column has as many values as there are rows, and its type is the schema's.
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), arrays).ok()?;
        Some(Batch { stream: Arc::clone(&self.stream), rows, marks: Vec::new(), ack: Ack::none() })
    }
}
