//! Rows of one stream that wait for the engine.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampNanosecondBuilder,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use tidegate_core::schema::{ts_field, ts_type};
use tidegate_core::{Ack, Batch, FieldType};

use super::config::StreamConfig;
use super::points::{Point, Value};
use crate::quality::Quality;

/// The builders of a stream's columns.
pub(super) struct Rows {
    stream: Arc<str>,
    schema: SchemaRef,
    ts: TimestampNanosecondBuilder,
    device: Option<StringBuilder>,
    columns: Vec<Column>,
    /// `quality` and `fault`
    verdict: Option<(StringBuilder, StringBuilder)>,
    count: usize,
}

enum Column {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
}

impl Column {
    fn new(point: &Point) -> Self {
        match point.field_type() {
            FieldType::Bool => Self::Bool(BooleanBuilder::new()),
            FieldType::Int64 => Self::Int(Int64Builder::new()),
            FieldType::Float64 => Self::Float(Float64Builder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    fn append(&mut self, value: Option<&Value>) {
        match (self, value) {
            (Self::Bool(column), Some(Value::Bool(value))) => column.append_value(*value),
            (Self::Int(column), Some(Value::Int(value))) => column.append_value(*value),
            (Self::Float(column), Some(Value::Float(value))) => column.append_value(*value),
            (Self::Text(column), Some(Value::Text(value))) => column.append_value(value),
            (Self::Bool(column), _) => column.append_null(),
            (Self::Int(column), _) => column.append_null(),
            (Self::Float(column), _) => column.append_null(),
            (Self::Text(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(column) => Arc::new(column.finish()),
            Self::Int(column) => Arc::new(column.finish()),
            Self::Float(column) => Arc::new(column.finish()),
            Self::Text(column) => Arc::new(column.finish()),
        }
    }
}

impl Rows {
    pub(super) fn new(stream: &str, config: &StreamConfig, points: &[Point]) -> Self {
        let fields = config.columns().into_iter();
        let fields = fields.map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
        let schema = Arc::new(Schema::new(std::iter::once(ts_field()).chain(fields).collect::<Vec<_>>()));
        Self {
            stream: stream.into(),
            schema,
            ts: TimestampNanosecondBuilder::new().with_data_type(ts_type()),
            device: config.has_device().then(StringBuilder::new),
            columns: points.iter().map(Column::new).collect(),
            verdict: config.quality.then(|| (StringBuilder::new(), StringBuilder::new())),
            count: 0,
        }
    }

    /// Whether a poll without any answer is a row.
    pub(super) fn tell_quality(&self) -> bool {
        self.verdict.is_some()
    }

    pub(super) fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a row; values that are not there are null.
    pub(super) fn append(
        &mut self,
        ts: i64,
        device: Option<&str>,
        values: &[Value],
        quality: Quality,
        fault: Option<&str>,
    ) {
        self.ts.append_value(ts);
        if let Some(column) = &mut self.device {
            column.append_option(device);
        }
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.append(values.get(index));
        }
        if let Some((qualities, faults)) = &mut self.verdict {
            qualities.append_value(quality.as_str());
            faults.append_option(fault);
        }
        self.count += 1;
    }

    /// Takes the rows.
    pub(super) fn finish(&mut self) -> Option<Batch> {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.ts.finish())];
        arrays.extend(self.device.as_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
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
