//! An output: columns that are points of a device.

use std::time::Duration;

use arrow::array::RecordBatch;

use super::config::ReadBack;
use super::points::{Point, Value, nearest_point};
use super::write::{Write, writes};
use crate::Takes;
use crate::line::writes::Encode;

/// What an output asks of a unit.
pub(super) struct PointWrite {
    pub(super) unit: u8,
    pub(super) timeout: Duration,
    pub(super) read_back: ReadBack,
    pub(super) writes: Vec<Write>,
}

/// Where an output writes.
pub(super) struct Points {
    pub(super) points: Vec<Point>,
    pub(super) unit: u8,
    pub(super) timeout: Duration,
    pub(super) read_back: ReadBack,
}

impl Encode for Points {
    type Write = PointWrite;

    fn takes(&self) -> Takes {
        Takes::Newest
    }

    /// What is written for a row: the columns that have a value.
    fn encode(&self, output: &str, rows: &RecordBatch, row: usize) -> Result<Option<PointWrite>, String> {
        let mut values = Vec::with_capacity(rows.num_columns());
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let Some(point) = self.points.iter().find(|point| &*point.name == field.name()) else {
                let help = nearest_point(field.name(), &self.points);
                return Err(format!("output {output} has no `{}`; {help}", field.name()));
            };
            match Value::read(column.as_ref(), row) {
                Some(Value::Null) => {}
                Some(value) => values.push((point, point.encode(&value)?)),
                None => return Err(format!("{point} cannot be written from {}", column.data_type())),
            }
        }
        if values.is_empty() {
            return Ok(None);
        }
        let Self { unit, timeout, read_back, .. } = *self;
        Ok(Some(PointWrite { unit, timeout, read_back, writes: writes(values) }))
    }
}
