//! An output: columns that are points of a device.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::config::ReadBack;
use super::points::{Encoded, Point, Value, nearest_point};
use super::write::{Write, writes};
use crate::{Delivery, DeliveryError, Sink, Takes, Writes};

/// What an output asks the line to do.
pub(super) struct Command {
    pub(super) output: Arc<str>,
    pub(super) unit: u8,
    pub(super) timeout: Duration,
    pub(super) read_back: ReadBack,
    pub(super) writes: Vec<Write>,
    pub(super) answer: oneshot::Sender<Result<(), DeliveryError>>,
}

/// Writes each row, one after the other.
///
/// While the line is down a row fails at once, and nothing is kept: a command that arrives late moves an
/// output that should not move.
pub(super) struct PointSink {
    pub(super) output: Arc<str>,
    pub(super) points: Vec<Point>,
    pub(super) unit: u8,
    pub(super) timeout: Duration,
    pub(super) read_back: ReadBack,
    pub(super) line: mpsc::Sender<Command>,
}

impl Sink for PointSink {
    fn takes(&self) -> Takes {
        Takes::Newest
    }

    fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
        async move {
            let mut delivery = Delivery::default();
            for row in 0..rows.num_rows() {
                let outcome = match self.encode(rows, row) {
                    // A row without a value asks for nothing.
                    Ok(values) if values.is_empty() => Ok(()),
                    Ok(values) => self.write(writes(values)).await,
                    Err(why) => Err(DeliveryError::Permanent(why)),
                };
                delivery.count(outcome);
            }
            delivery
        }
        .boxed()
    }
}

impl PointSink {
    /// What is written for a row: the columns that have a value.
    fn encode(&self, rows: &RecordBatch, row: usize) -> Result<Vec<(&Point, Encoded)>, String> {
        let mut values = Vec::with_capacity(rows.num_columns());
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let Some(point) = self.points.iter().find(|point| &*point.name == field.name()) else {
                let help = nearest_point(field.name(), &self.points);
                return Err(format!("output {} has no `{}`; {help}", self.output, field.name()));
            };
            match Value::read(column.as_ref(), row) {
                Some(Value::Null) => {}
                Some(value) => values.push((point, point.encode(&value)?)),
                None => return Err(format!("{point} cannot be written from {}", column.data_type())),
            }
        }
        Ok(values)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), DeliveryError> {
        let (answer, outcome) = oneshot::channel();
        let command = Command {
            output: Arc::clone(&self.output),
            unit: self.unit,
            timeout: self.timeout,
            read_back: self.read_back,
            writes,
            answer,
        };
        let gone = || DeliveryError::Transient("the box is shutting down".into());
        self.line.send(command).await.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}
