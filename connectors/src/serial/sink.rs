//! An output: rows that become bytes.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::telegram::Telegram;
use crate::codec::Pattern;
use crate::{Delivery, DeliveryError, Sink, Writes};

/// What an output asks the line to do.
pub(super) struct Command {
    pub(super) output: Arc<str>,
    pub(super) bytes: Vec<u8>,
    /// the frame by which the device confirms it
    pub(super) answer: Option<Pattern>,
    pub(super) timeout: Duration,
    pub(super) outcome: oneshot::Sender<Result<(), DeliveryError>>,
}

/// Sends each row, one after the other.
///
/// While the line is down a row fails at once, and nothing is kept: a command that arrives late moves an
/// output that should not move.
pub(super) struct TelegramSink {
    pub(super) output: Arc<str>,
    pub(super) telegram: Telegram,
    pub(super) answer: Option<Pattern>,
    pub(super) timeout: Duration,
    pub(super) line: mpsc::Sender<Command>,
}

impl Sink for TelegramSink {
    fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
        async move {
            let mut delivery = Delivery::default();
            for row in 0..rows.num_rows() {
                let outcome = match self.telegram.render(rows, row) {
                    Ok(bytes) => self.send(bytes).await,
                    Err(why) => Err(DeliveryError::Permanent(why)),
                };
                delivery.count(outcome);
            }
            delivery
        }
        .boxed()
    }
}

impl TelegramSink {
    async fn send(&self, bytes: Vec<u8>) -> Result<(), DeliveryError> {
        let (outcome, answer) = oneshot::channel();
        let command = Command {
            output: Arc::clone(&self.output),
            bytes,
            answer: self.answer.clone(),
            timeout: self.timeout,
            outcome,
        };
        let gone = || DeliveryError::Transient("the box is shutting down".into());
        self.line.send(command).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}
