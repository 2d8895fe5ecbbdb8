//! An output: columns that are points of a device.

use std::time::Duration;

use arrow::array::RecordBatch;

use super::config::ReadBack;
use super::points::{Point, Value, nearest_point};
use super::polls::Unit;
use super::write::{Write, writes};
use crate::Takes;
use crate::line::writes::Encode;

/// What an output asks of a unit.
pub(super) struct Job {
    pub(super) unit: Unit,
    pub(super) timeout: Duration,
    pub(super) what: What,
}

pub(super) enum What {
    Write {
        read_back: ReadBack,
        writes: Vec<Write>,
    },
    /// these points as they are now
    Read(Vec<Point>),
}

/// Where an output writes.
pub(super) struct Points {
    pub(super) points: Vec<Point>,
    pub(super) unit: Unit,
    pub(super) timeout: Duration,
    pub(super) read_back: ReadBack,
}

impl Points {
    fn find(&self, output: &str, name: &str) -> Result<&Point, String> {
        self.points
            .iter()
            .find(|point| &*point.name == name)
            .ok_or_else(|| format!("output {output} has no `{name}`; {}", nearest_point(name, &self.points)))
    }

    fn job(&self, what: What) -> Job {
        Job { unit: self.unit, timeout: self.timeout, what }
    }
}

impl Encode for Points {
    type Write = Job;

    fn takes(&self) -> Takes {
        Takes::Newest
    }

    /// What is written for a row: the columns that have a value.
    fn encode(&self, output: &str, rows: &RecordBatch, row: usize) -> Result<Option<Job>, String> {
        let mut values = Vec::with_capacity(rows.num_columns());
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let point = self.find(output, field.name())?;
            match Value::read(column.as_ref(), row) {
                Some(Value::Null) => {}
                Some(value) => values.push((point, point.encode(&value)?)),
                None => return Err(format!("{point} cannot be written from {}", column.data_type())),
            }
        }
        if values.is_empty() {
            return Ok(None);
        }
        let what = What::Write { read_back: self.read_back, writes: writes(values) };
        Ok(Some(self.job(what)))
    }

    fn ask(&self, output: &str, columns: &[String]) -> Result<Job, String> {
        let points = columns.iter().map(|name| self.find(output, name).cloned());
        Ok(self.job(What::Read(points.collect::<Result<_, _>>()?)))
    }
}
