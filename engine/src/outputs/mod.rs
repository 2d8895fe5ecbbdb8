//! Outputs: what is to be written, on its way to the devices.
//!
//! [`waiting`] is a write with its cause, [`queue`] is where it waits, and [`delivery`] takes it to the sink
//! and tells what became of it: a queue and a task an output.

pub mod delivery;
pub mod queue;
pub mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_connectors::Sink;

use crate::config::Config;
use crate::status::Status;
use crate::time::SequenceTime;
use delivery::OutputTask;
use queue::OutputQueue;
use waiting::Waiting;

/// The outputs of a box, by name. Cheap to clone.
#[derive(Clone)]
pub struct Outputs {
    queues: Arc<BTreeMap<Arc<str>, Arc<OutputQueue>>>,
    time: Arc<SequenceTime>,
}

impl Outputs {
    /// Those that are configured; `time` is the sequence's.
    #[must_use]
    pub fn from_config(config: &Config, status: &Status, time: Arc<SequenceTime>) -> Self {
        let queues = config.outputs.iter().map(|(name, output)| {
            let status = status.outputs.of(name);
            let queue = OutputQueue::new(name, output.queue.get(), output.when_full, status);
            (Arc::from(name.as_str()), Arc::new(queue))
        });
        Self { queues: Arc::new(queues.collect()), time }
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

#[cfg(test)]
mod tests;
