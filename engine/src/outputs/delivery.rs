//! The task of an output: hands what waits to the sink, and tells what became of it.
//!
//! A row that cannot be delivered now is not delivered later: an actuator must not move on a cause that has
//! gone.

use std::sync::Arc;

use tidegate_connectors::{By, Cause, Delivery, DeliveryError, Sink, Takes, Writes};
use tidegate_core::Sampler;

use super::contract::value;
use super::queue::OutputQueue;
use super::waiting::{Handed, Next, Reading, Waiting};
use crate::config::Values;
use crate::decision::Outcome;
use crate::system::writes::WriteReport;
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
    /// A contract wants to know what the device has.
    Read(Reading),
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
                Event::Read(reading) => self.read(reading).await,
                Event::End => return,
            }
        }
    }

    /// Asks the device what it has, and tells the contract.
    async fn read(&mut self, Reading { instance, write, columns }: Reading) {
        let (outcome, reason, values) = match self.sink.read(&columns).await {
            Ok(rows) => {
                let read =
                    rows.schema_ref().fields().iter().zip(rows.columns()).filter_map(|(field, column)| {
                        Some((Arc::from(field.name().as_str()), value(column, 0).ok()??))
                    });
                (Outcome::Read, None, read.collect())
            }
            Err(error) => (outcome(&error), Some(error.to_string()), Values::new()),
        };
        let (output, rule) = (Arc::clone(&self.queue.name), None);
        self.tell(WriteReport { output, instance, write, rule, outcome, reason, values });
    }

    fn tell(&self, report: WriteReport) {
        if let Some(reports) = &self.queue.reports {
            reports.report(report);
        }
    }

    /// Tells the contract what became of what it wanted.
    fn answer(&self, parts: &[Waiting], delivery: &Delivery) {
        let mut row = 0;
        for part in parts {
            if let Some(order) = &part.order {
                let failure =
                    delivery.failures.iter().find(|(failed, _)| *failed == row).map(|(_, error)| error);
                self.tell(WriteReport {
                    output: Arc::clone(&self.queue.name),
                    instance: Arc::clone(&order.instance),
                    write: order.write,
                    rule: order.rule.clone(),
                    outcome: failure.map_or(Outcome::Acknowledged, outcome),
                    reason: failure.map(ToString::to_string),
                    values: order.values.clone(),
                });
            }
            row += part.rows.len();
        }
    }

    async fn next(&mut self) -> Event {
        match self.queue.pop(self.takes).await {
            Some(Next::Write(handed)) => Event::Writes(handed),
            Some(Next::Read(reading)) => Event::Read(reading),
            None => Event::End,
        }
    }

    /// The far side has answered.
    fn delivered(&mut self, Handed { batch, parts, causes }: &Handed, delivery: &Delivery) {
        self.queue.answered();
        self.answer(parts, delivery);
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
                        By::Person { .. } | By::Contract { .. } => None,
                    },
                    target: None,
                    failures: Some(outcomes.into()),
                }
            });
            first += rows.len();
        }
    }
}

impl Drop for OutputTask {
    /// When it dies, nobody shall wait for room that nobody makes.
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// What became of a write that failed.
fn outcome(error: &DeliveryError) -> Outcome {
    match error {
        DeliveryError::Transient(_) => Outcome::Failed,
        DeliveryError::Unknown(_) => Outcome::Unknown,
        DeliveryError::Permanent(_) => Outcome::Refused,
    }
}
