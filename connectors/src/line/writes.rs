//! Writes: what outputs ask of a line, from the row to its outcome.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_core::Span;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::debug;

use crate::status::{Counter, LineStatus};
use crate::{CANNOT_READ, Delivery, DeliveryError, Sink, Takes, Writes};

/// Writes of all outputs together that wait for the line.
const QUEUED: usize = 64;

/// How long after a rule has decided it a write may go out, if nothing is said: the plant has moved on since.
pub(crate) const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// A question moves nothing when it is late: whoever waits for the answer says for how long.
const PATIENT: Duration = Duration::from_hours(24);

/// For the key `write_within`.
pub(crate) fn default_write_within() -> Span {
    Span(WRITE_WITHIN)
}

/// Takes what has become of a write, or the row that was read.
#[derive(Debug)]
pub(crate) struct Answer(oneshot::Sender<Result<Option<RecordBatch>, DeliveryError>>);

impl Answer {
    pub(crate) fn send(self, outcome: Result<(), DeliveryError>) {
        // Whoever asked has given up if this fails.
        let _ = self.0.send(outcome.map(|()| None));
    }
}

/// What an output asks of the line, as the protocol carries it out.
#[derive(Debug)]
pub(crate) struct Write<W> {
    pub(crate) output: Arc<str>,
    pub(crate) what: W,
    /// it was decided so long before `until`
    pub(crate) within: Duration,
    /// from when on it is not sent any more
    pub(crate) until: Instant,
    /// what it has waited for, where that is known
    pub(crate) waited: Option<&'static str>,
    pub(crate) answer: Answer,
}

impl<W> Write<W> {
    /// When a rule has decided it.
    pub(crate) fn decided(&self) -> Instant {
        self.until.checked_sub(self.within).unwrap_or(self.until)
    }

    pub(crate) fn settle(self, outcome: Result<(), DeliveryError>) {
        if let Err(error) = &outcome {
            debug!(output = %self.output, %error, "write failed");
        }
        self.answer.send(outcome);
    }

    /// What was asked for is there.
    pub(crate) fn found(self, row: RecordBatch) {
        let _ = self.answer.0.send(Ok(Some(row)));
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.answer.0.is_closed()
    }
}

/// How rows of an output become writes.
pub(crate) trait Encode: Send + Sync {
    type Write: Send;

    fn takes(&self) -> Takes;

    /// The write of one row of an output; none: the row asks for nothing.
    ///
    /// # Errors
    /// What does not fit, in words for the user.
    fn encode(&self, output: &str, rows: &RecordBatch, row: usize) -> Result<Option<Self::Write>, String>;

    /// What asks the device for these columns.
    ///
    /// # Errors
    /// Why it cannot be asked, in words for the user.
    fn ask(&self, _output: &str, _columns: &[String]) -> Result<Self::Write, String> {
        Err(CANNOT_READ.into())
    }
}

/// Writes each row, one after the other.
///
/// While the line is down a row fails at once, and what waits for the line for too long is dropped: a write
/// that arrives late moves what should not move.
pub(crate) struct RowSink<E: Encode> {
    pub(crate) output: Arc<str>,
    pub(crate) encode: E,
    pub(crate) line: mpsc::Sender<Write<E::Write>>,
    /// how long after it was decided a write may go out
    pub(crate) within: Duration,
}

impl<E: Encode> RowSink<E> {
    /// Asks the line for something, and waits for its answer.
    async fn bring(
        &self,
        what: E::Write,
        within: Duration,
        until: Instant,
    ) -> Result<Option<RecordBatch>, DeliveryError> {
        let (answer, outcome) = oneshot::channel();
        let (output, answer) = (Arc::clone(&self.output), Answer(answer));
        let write = Write { output, what, within, until, waited: None, answer };
        self.line.send(write).await.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> DeliveryError {
    DeliveryError::Transient("the box is shutting down".into())
}

impl<E: Encode> Sink for RowSink<E> {
    fn takes(&self) -> Takes {
        self.encode.takes()
    }

    fn deliver<'a>(&'a mut self, writes: Writes<'a>) -> BoxFuture<'a, Delivery> {
        async move {
            let (rows, handed) = (writes.rows, Instant::now());
            let mut delivery = Delivery::default();
            for row in 0..rows.num_rows() {
                let outcome = match self.encode.encode(&self.output, rows, row) {
                    Ok(None) => Ok(()),
                    Ok(Some(write)) => {
                        let within = self.within.saturating_sub(writes.age(row));
                        let until = handed + writes.left(row).map_or(within, |left| left.min(within));
                        self.bring(write, self.within, until).await.map(drop)
                    }
                    Err(why) => Err(DeliveryError::Permanent(why)),
                };
                delivery.count(outcome);
            }
            delivery
        }
        .boxed()
    }

    fn read<'a>(&'a mut self, columns: &'a [String]) -> BoxFuture<'a, Result<RecordBatch, DeliveryError>> {
        async move {
            let question = self.encode.ask(&self.output, columns).map_err(DeliveryError::Permanent)?;
            let row = self.bring(question, PATIENT, Instant::now() + PATIENT).await?;
            row.ok_or_else(gone)
        }
        .boxed()
    }
}

/// Writes that wait for the line, in their order.
pub(crate) struct Waiting<W> {
    queue: mpsc::Receiver<Write<W>>,
    first: Option<Write<W>>,
    outputs_gone: bool,
    /// what has just held up the line
    busy: Option<&'static str>,
    late: Arc<Counter>,
}

impl<W> Waiting<W> {
    /// With the end that the outputs of the line have.
    pub(crate) fn new(status: &LineStatus) -> (mpsc::Sender<Write<W>>, Self) {
        let (outputs, queue) = mpsc::channel(QUEUED);
        let late = status.counter("late_writes");
        (outputs, Self { queue, first: None, outputs_gone: false, busy: None, late })
    }

    /// Resolves when a write has come while none waited, and when the last output is gone.
    pub(crate) async fn arrive(&mut self) {
        if self.first.is_some() || self.outputs_gone {
            return pending().await;
        }
        self.first = self.queue.recv().await;
        self.outputs_gone = self.first.is_none();
    }

    /// The next write, if one waits that is not late by now.
    pub(crate) fn next(&mut self) -> Option<Write<W>> {
        loop {
            let Some(mut write) = self.first.take().or_else(|| self.queue.try_recv().ok()) else {
                self.busy = None;
                return None;
            };
            if Instant::now() < write.until {
                return Some(write);
            }
            write.waited = write.waited.or(self.busy);
            self.drop_late(write);
        }
    }

    /// Counts a write that is not sent any more, and says so.
    pub(crate) fn drop_late(&self, write: Write<W>) {
        self.count_late();
        let because = write.waited.map_or_else(String::new, |waited| format!(": {waited}"));
        let why = format!(
            "it could not be sent within {} (`write_within`), and is not sent late{because}",
            Span(write.within)
        );
        write.settle(Err(DeliveryError::Transient(why)));
    }

    /// What has held up the line until now.
    pub(crate) fn held_up_by(&mut self, what: &'static str) {
        self.busy = Some(what);
    }

    /// A write was begun, and did not end in time.
    pub(crate) fn count_late(&self) {
        self.late.add(1);
    }

    /// It is the next one again, and has waited for this.
    pub(crate) fn put_back_because(&mut self, mut write: Write<W>, waited: &'static str) {
        write.waited = Some(waited);
        self.put_back(write);
    }

    /// It is the next one again.
    pub(crate) fn put_back(&mut self, write: Write<W>) {
        self.first = Some(write);
    }

    /// Whether a write is known to wait.
    pub(crate) fn any(&self) -> bool {
        self.first.is_some()
    }

    /// Whether no write will come any more.
    pub(crate) fn is_over(&self) -> bool {
        self.outputs_gone && self.first.is_none()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::{By, Cause};

    struct Number;

    impl Encode for Number {
        type Write = usize;

        fn takes(&self) -> Takes {
            Takes::All
        }

        fn encode(&self, _: &str, _: &RecordBatch, row: usize) -> Result<Option<usize>, String> {
            Ok(Some(row))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_decided_too_long_ago_is_not_sent_and_counted() {
        let status = LineStatus::default();
        let (line, mut waiting) = Waiting::new(&status);
        let within = Duration::from_secs(2);
        let mut sink = RowSink { output: "pump".into(), encode: Number, line, within };
        let delivering = tokio::spawn(async move {
            let column: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2]));
            let rows = RecordBatch::try_from_iter([("run", column)]).unwrap();
            // The first was decided 1.5 s before it was handed over, the others just now.
            let cause = |at| {
                let by = By::Rule { name: "r".into(), version: "v".into() };
                Cause { by, seq: 0, ordinal: 0, at, until: None, write: None }
            };
            let causes = [500_000_000, 2_000_000_000, 2_000_000_000].map(cause);
            sink.deliver(Writes { rows: &rows, causes: &causes, now: 2_000_000_000 }).await
        });
        waiting.arrive().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(waiting.next().is_none(), "it is 2.5 s old");
        waiting.arrive().await;
        let write = waiting.next().unwrap();
        assert_eq!((write.what, write.decided().elapsed()), (1, Duration::from_secs(1)));
        waiting.put_back(write);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(waiting.next().is_none(), "what was put back grows old, too");
        waiting.arrive().await;
        assert!(waiting.next().is_none(), "and so does what waits for others of its output");
        let delivery = delivering.await.unwrap();
        let why = "it could not be sent within 2s (`write_within`), and is not sent late";
        let failed = |row| (row, DeliveryError::Transient(why.into()));
        assert_eq!((delivery.written, delivery.failures), (0, [0, 1, 2].map(failed).to_vec()));
        assert_eq!(status.count("late_writes"), 3);
    }
}
