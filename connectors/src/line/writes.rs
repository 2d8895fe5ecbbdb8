//! Writes: what outputs ask of a line, from the row to its outcome.

use std::future::pending;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::{Delivery, DeliveryError, Sink, Takes, Writes};

/// Writes of all outputs together that wait for the line.
const QUEUED: usize = 64;

/// Takes what has become of a write.
#[derive(Debug)]
pub(crate) struct Answer(oneshot::Sender<Result<(), DeliveryError>>);

impl Answer {
    pub(crate) fn send(self, outcome: Result<(), DeliveryError>) {
        // Whoever asked has given up if this fails.
        let _ = self.0.send(outcome);
    }
}

/// What an output asks of the line, as the protocol carries it out.
#[derive(Debug)]
pub(crate) struct Write<W> {
    pub(crate) output: Arc<str>,
    pub(crate) what: W,
    pub(crate) answer: Answer,
}

impl<W> Write<W> {
    pub(crate) fn settle(self, outcome: Result<(), DeliveryError>) {
        if let Err(error) = &outcome {
            debug!(output = %self.output, %error, "write failed");
        }
        self.answer.send(outcome);
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
}

/// Writes each row, one after the other.
///
/// While the line is down a row fails at once, and nothing is kept: a write that arrives late moves what
/// should not move.
pub(crate) struct RowSink<E: Encode> {
    pub(crate) output: Arc<str>,
    pub(crate) encode: E,
    pub(crate) line: mpsc::Sender<Write<E::Write>>,
}

impl<E: Encode> RowSink<E> {
    async fn write(&self, what: E::Write) -> Result<(), DeliveryError> {
        let (answer, outcome) = oneshot::channel();
        let write = Write { output: Arc::clone(&self.output), what, answer: Answer(answer) };
        let gone = || DeliveryError::Transient("the box is shutting down".into());
        self.line.send(write).await.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl<E: Encode> Sink for RowSink<E> {
    fn takes(&self) -> Takes {
        self.encode.takes()
    }

    fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
        async move {
            let mut delivery = Delivery::default();
            for row in 0..rows.num_rows() {
                let outcome = match self.encode.encode(&self.output, rows, row) {
                    Ok(None) => Ok(()),
                    Ok(Some(write)) => self.write(write).await,
                    Err(why) => Err(DeliveryError::Permanent(why)),
                };
                delivery.count(outcome);
            }
            delivery
        }
        .boxed()
    }
}

/// Writes that wait for the line, in their order.
pub(crate) struct Waiting<W> {
    queue: mpsc::Receiver<Write<W>>,
    first: Option<Write<W>>,
    outputs_gone: bool,
}

impl<W> Waiting<W> {
    /// With the end that the outputs of the line have.
    pub(crate) fn new() -> (mpsc::Sender<Write<W>>, Self) {
        let (outputs, queue) = mpsc::channel(QUEUED);
        (outputs, Self { queue, first: None, outputs_gone: false })
    }

    /// Resolves when a write has come while none waited, and when the last output is gone.
    pub(crate) async fn arrive(&mut self) {
        if self.first.is_some() || self.outputs_gone {
            return pending().await;
        }
        self.first = self.queue.recv().await;
        self.outputs_gone = self.first.is_none();
    }

    /// The next write, if one waits.
    pub(crate) fn next(&mut self) -> Option<Write<W>> {
        self.first.take().or_else(|| self.queue.try_recv().ok())
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
