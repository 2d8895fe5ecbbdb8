//! Outputs: what is to be written, on its way to the devices.
//!
//! [`waiting`] is a write with its cause, [`queue`] is where it waits, and [`delivery`] takes it to the sink
//! and tells what became of it: a queue and a task an output.

pub mod contract;
pub mod delivery;
pub mod queue;
pub mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use tidegate_connectors::{By, Sink};
use tidegate_core::{FieldType, Rows, Seqs};

use crate::config::{Config, Value};
use crate::decision::{Origin, Outcome};
use crate::status::Status;
use crate::system::writes::{WriteReport, WriteReports};
use crate::time::SequenceTime;
use contract::{Order, What};
use delivery::OutputTask;
use queue::OutputQueue;
use waiting::{Ordered, Reading, Waiting};

/// The outputs of a box, by name. Cheap to clone.
#[derive(Clone)]
pub struct Outputs {
    queues: Arc<BTreeMap<Arc<str>, Arc<OutputQueue>>>,
    /// the columns of outputs that say which they take
    kinds: Arc<BTreeMap<Arc<str>, BTreeMap<String, FieldType>>>,
    reports: WriteReports,
    time: Arc<SequenceTime>,
}

impl Outputs {
    /// Those that are configured; `time` is the sequence's.
    #[must_use]
    pub fn from_config(
        config: &Config,
        status: &Status,
        time: Arc<SequenceTime>,
        reports: WriteReports,
    ) -> Self {
        let queues = config.outputs.iter().map(|(name, output)| {
            let status = status.outputs.of(name);
            let mut queue = OutputQueue::new(name, output.queue.get(), output.when_full, status);
            if output.contract.is_some() {
                queue = queue.reporting(reports.clone());
            }
            (Arc::from(name.as_str()), Arc::new(queue))
        });
        let kinds = config.outputs.iter().filter_map(|(name, output)| {
            Some((Arc::from(name.as_str()), output.config.columns()?.into_iter().collect()))
        });
        Self { queues: Arc::new(queues.collect()), kinds: Arc::new(kinds.collect()), reports, time }
    }

    /// What the contract of an output wants of it.
    pub async fn order(&self, order: Order) {
        let Order { output, instance, write, by, seq, at, until, gives_way, what } = order;
        let Some(queue) = self.queues.get(&output) else { return };
        let rule = if let Origin::Rule { rule, .. } = &by { Some(Arc::clone(rule)) } else { None };
        match what {
            What::Write { key, values } => {
                let batch = self.batch(&output, key.iter().chain(&values));
                let order = Some(Arc::new(Ordered { write, instance, until, values, rule, gives_way }));
                let rows = Rows { batch, seqs: Seqs::One { seq } };
                let ordinals = vec![if let Origin::Rule { ordinal, .. } = &by { *ordinal } else { 0 }];
                queue.push(Waiting { by: by.into(), rows, ordinals, at, is_replayed: false, order }).await;
            }
            What::Read { columns } => {
                let columns = columns.iter().map(ToString::to_string).collect();
                queue.ask(Reading { instance, write, columns });
            }
            What::Mismatch { values, reason } => {
                tracing::error!(%output, %instance, reason, "the device does not do what it was told: look at it");
                let (outcome, reason) = (Outcome::Mismatch, Some(reason));
                self.reports.report(WriteReport { output, instance, write, rule, outcome, reason, values });
            }
        }
    }

    /// One row of values, in the types that the output takes.
    fn batch<'a>(
        &self,
        output: &str,
        values: impl Iterator<Item = (&'a Arc<str>, &'a Value)>,
    ) -> RecordBatch {
        let kinds = self.kinds.get(output);
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = values
            .map(|(name, value)| {
                let kind = kinds.and_then(|kinds| kinds.get(&**name));
                let array = contract::array(value, kind.copied());
                (Field::new(&**name, array.data_type().clone(), true), array)
            })
            .unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let schema = Arc::new(Schema::new(fields));
        RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
            .unwrap_or_else(|_| RecordBatch::new_empty(schema))
    }

    /// Rows for the output called `name`, in the order of the sequence, and also those that are run again
    /// after a start; see [`OutputQueue::push`].
    pub async fn write(&self, name: &str, rows: Waiting) {
        if let Some(queue) = self.queues.get(name) {
            queue.push(rows).await;
        }
    }

    /// What delivers the rows of the output called `name`; none: there is no such output.
    #[must_use]
    pub fn task(&self, name: &str, sink: Box<dyn Sink>) -> Option<OutputTask> {
        let queue = self.queues.get(name)?;
        Some(OutputTask::new(Arc::clone(queue), sink, Arc::clone(&self.time)))
    }

    /// Takes no more rows; those that wait are still delivered.
    pub fn close(&self) {
        self.queues.values().for_each(|queue| queue.close());
    }
}

impl From<Origin> for By {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Rule { rule, version, .. } => Self::Rule { name: rule, version },
            Origin::Override { who, .. } => Self::Person { who },
            other => Self::Contract { because: other.to_string().into() },
        }
    }
}

#[cfg(test)]
mod tests;
