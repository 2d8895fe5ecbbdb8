//! The task of an output: hands what waits to the sink, and tells what became of it.
//!
//! A row that cannot be delivered now is not delivered later: an actuator must not move on a cause that has
//! gone.

use std::sync::Arc;

use tidegate_connectors::{By, Cause, Delivery, DeliveryError, Sink, Takes, Writes};
use tidegate_core::Sampler;

use super::queue::OutputQueue;
use super::waiting::{Handed, Waiting};
use crate::tap::Passed;
use crate::time::SequenceTime;

/// Delivers what waits for one output.
pub struct OutputTask {
    queue: Arc<OutputQueue>,
    sink: Box<dyn Sink>,
    takes: Takes,
    time: Arc<SequenceTime>,
    failures: Sampler,
}

/// What makes an output act.
enum Event {
    /// Something waits, and the sink is free.
    Writes(Handed),
    /// Nothing waits, and nothing comes any more.
    End,
}

impl OutputTask {
    /// From `queue` to `sink`, which goes by the sequence's `time`.
    #[must_use]
    pub fn new(queue: Arc<OutputQueue>, sink: Box<dyn Sink>, time: Arc<SequenceTime>) -> Self {
        let takes = sink.takes();
        if takes == Takes::Newest {
            queue.take_newest();
        }
        Self { queue, sink, takes, time, failures: Sampler::default() }
    }

    /// Delivers rows until the queue is closed and empty.
    pub async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Writes(handed) => {
                    let now = self.time.now();
                    let writes = Writes { rows: &handed.batch, causes: &handed.causes, now };
                    let delivery = self.sink.deliver(writes).await;
                    self.delivered(&handed, &delivery);
                }
                Event::End => return,
            }
        }
    }

    async fn next(&mut self) -> Event {
        self.queue.pop(self.takes).await.map_or(Event::End, Event::Writes)
    }

    /// The far side has answered.
    fn delivered(&mut self, Handed { batch, parts, causes }: &Handed, delivery: &Delivery) {
        self.queue.answered();
        self.log(causes, delivery);
        let status = &self.queue.status;
        status.written.add(delivery.written as u64);
        status.failed.add(delivery.failures.len() as u64);
        self.note_failing(batch.num_rows(), delivery);
        status.last.note(batch, "");
        self.show(parts, delivery);
        let Some((_, error)) = delivery.failures.first() else { return };
        status.last_error.note(error.to_string());
        let Some(count) = self.failures.count(delivery.failures.len() as u64) else { return };
        let advice = match error {
            DeliveryError::Transient(_) => "they are not written later",
            DeliveryError::Unknown(_) => "they may have been written all the same: look at the device",
            DeliveryError::Permanent(_) => "correct the rule or the output",
        };
        tracing::error!(output = %self.queue.name, rows = count, %error, advice, "rows could not be written");
    }

    /// What became of each write, for whoever wants to know.
    fn log(&self, causes: &[Cause], delivery: &Delivery) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let mut failures = delivery.failures.iter().peekable();
        for (row, Cause { by, seq, ordinal, .. }) in causes.iter().enumerate() {
            let failure = failures.next_if(|(failed, _)| *failed == row).map(|(_, error)| error.to_string());
            let (output, outcome) = (&self.queue.name, failure.as_deref().unwrap_or("written"));
            tracing::debug!(%output, %by, seq, ordinal, outcome, "write");
        }
    }

    /// Notes how many of the newest rows were not written.
    fn note_failing(&self, rows: usize, delivery: &Delivery) {
        let failed = delivery.failures.iter().rev().map(|(row, _)| *row);
        let newest = failed.zip((0..rows).rev()).take_while(|(failed, row)| failed == row).count();
        let before = if newest == rows { self.queue.status.failing.get() } else { 0 };
        self.queue.status.failing.set(before + newest as u64);
    }

    /// Shows whoever listens what became of the rows of a delivery.
    fn show(&self, parts: &[Waiting], delivery: &Delivery) {
        let mut first = 0;
        for Waiting { by, rows, .. } in parts {
            self.queue.status.tap.show(|| {
                let mut outcomes = vec![None; rows.len()];
                for (row, error) in &delivery.failures {
                    if let Some(outcome) = row.checked_sub(first).and_then(|row| outcomes.get_mut(row)) {
                        *outcome = Some(Arc::from(error.to_string()));
                    }
                }
                Passed {
                    rows: rows.clone(),
                    wall_ns: self.time.when().wall_ns,
                    rule: match by {
                        By::Rule { name, .. } => Some((Arc::clone(name), None)),
                    },
                    target: None,
                    failures: Some(outcomes.into()),
                }
            });
            first += rows.len();
        }
    }
}
