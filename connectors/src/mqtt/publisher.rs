//! Publishing: what sinks and the uplink do with a connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::client::{Expiry, Notice, Outgoing, Refused, Requests, unsent};
use super::config::{Qos, Version};
use crate::DeliveryError;
use crate::status::LineStatus;

/// An open session with the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Counts the connections of this process; what was sent in an earlier one is settled.
    pub generation: u64,
    /// Whether the broker remembered the session.
    pub present: bool,
    /// The largest packet, in bytes, that both sides take.
    pub max_packet: u32,
    /// The highest QoS that the broker takes.
    pub max_qos: Qos,
}

/// Publishes on a connection. Clones share it, and its source runs until the last one is gone.
#[derive(Clone)]
pub struct Publisher {
    pub(super) connection: Arc<str>,
    pub(super) version: Version,
    pub(super) requests: mpsc::Sender<PublishRequest>,
    pub(super) session: watch::Receiver<Option<Session>>,
    pub(super) status: Arc<LineStatus>,
    /// After how long the broker drops what is published by this one; 3.1.1 knows nothing of that.
    pub(super) expiry: Option<Expiry>,
}

/// A message on its way from a publisher to the client.
pub(super) struct PublishRequest {
    pub(super) message: Outgoing,
    pub(super) generation: u64,
    pub(super) taken: oneshot::Sender<Result<Notice, DeliveryError>>,
}

/// Messages of all publishers together that wait for the client.
const QUEUED: usize = 1_024;

/// What publishers want to send, at the connection's end.
pub(super) struct Outbox {
    requests: mpsc::Receiver<PublishRequest>,
    /// one that the client's queue had no room for
    waiting: Option<PublishRequest>,
    gone: bool,
}

impl Outbox {
    /// The connection's end, and that of the publishers.
    pub(super) fn new() -> (Self, mpsc::Sender<PublishRequest>) {
        let (sender, requests) = mpsc::channel(QUEUED);
        (Self { requests, waiting: None, gone: false }, sender)
    }

    /// Whether there are no publishers any more.
    pub(super) fn is_closed(&self) -> bool {
        self.gone
    }

    /// Whether [`Outbox::changed`] can tell of anything.
    pub(super) fn can_change(&self) -> bool {
        self.waiting.is_none() && !self.gone
    }

    /// Resolves when there is something to send, or the publishers are gone. Safe to cancel.
    pub(super) async fn changed(&mut self) {
        match self.requests.recv().await {
            Some(request) => self.waiting = Some(request),
            None => self.gone = true,
        }
    }

    fn next(&mut self) -> Option<PublishRequest> {
        self.waiting.take().or_else(|| self.requests.try_recv().ok())
    }

    /// Hands on to the client of connection `generation` as much as it takes.
    pub(super) fn send(&mut self, client: &Requests, generation: u64) {
        while let Some(PublishRequest { message, generation: meant, taken }) = self.next() {
            if meant != generation {
                let _ = taken.send(Err(unsent()));
                continue;
            }
            let answer = match client.publish(message) {
                Ok(notice) => Ok(notice),
                Err(Refused::Error(error)) => Err(error),
                Err(Refused::Full(message)) => {
                    self.waiting = Some(PublishRequest { message, generation, taken });
                    return;
                }
            };
            // Whoever does not wait for the confirmation does not need one.
            let _ = taken.send(answer);
        }
    }

    /// Answers while the line is down: nothing is kept to be sent late.
    pub(super) fn turn_down(&mut self, connection: &str, status: &LineStatus) {
        while let Some(request) = self.next() {
            let _ = request.taken.send(Err(down(connection, status)));
        }
    }
}

/// Resolves when the broker has confirmed a message (QoS 1) or it was written (QoS 0), and with an error when
/// that will not happen any more. A broker that stops answering is given up after two `keep_alive`.
pub struct Confirmation(BoxFuture<'static, Result<(), DeliveryError>>);

impl Future for Confirmation {
    type Output = Result<(), DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(context)
    }
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmation(..)")
    }
}

impl Publisher {
    /// The open session; `None` while the line is down. Nothing is kept for later while it is down.
    #[must_use]
    pub fn session(&self) -> watch::Receiver<Option<Session>> {
        self.session.clone()
    }

    /// How often the broker has closed the connection after it had accepted it; counted before
    /// [`Self::session`] says so.
    #[must_use]
    pub fn hang_ups(&self) -> u64 {
        self.status.hang_ups.get()
    }

    /// Hands a message to the connection, and waits only while its queue is full.
    ///
    /// # Errors `Transient` while the line is down, or if the broker takes no such QoS; `Permanent` if the
    /// message is larger than the limit.
    pub async fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        retain: bool,
    ) -> Result<Confirmation, DeliveryError> {
        let expiry = self.expiry;
        self.send(Outgoing { topic: topic.to_owned(), payload, qos, retain, expiry, correlation: None }).await
    }

    /// The same for a message with all that MQTT can say of it.
    pub(super) async fn send(&self, message: Outgoing) -> Result<Confirmation, DeliveryError> {
        let Some(session) = *self.session.borrow() else {
            return Err(down(&self.connection, &self.status));
        };
        // A broker closes the connection for it, or never answers (MQTT 5.0, section 3.2.2.3.4).
        if message.qos > session.max_qos {
            return Err(DeliveryError::Transient(format!(
                "the broker of connection {} takes QoS 0 only: let it take QoS 1, or set qos = 0",
                self.connection
            )));
        }
        let size = message.size(self.version);
        if size > session.max_packet as usize {
            return Err(DeliveryError::Permanent(format!(
                "the message to {} makes a packet of {size} bytes; connection {} takes at most {} (the smaller \
                of max_packet and the broker's own limit)",
                message.topic, self.connection, session.max_packet
            )));
        }
        let (taken, notice) = oneshot::channel();
        let request = PublishRequest { message, generation: session.generation, taken };
        self.requests.send(request).await.map_err(|_| closed(&self.connection))?;
        Ok(Confirmation(
            async move {
                match notice.await {
                    Ok(Ok(notice)) => notice.wait().await,
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(unsent()),
                }
            }
            .boxed(),
        ))
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publisher({})", self.connection)
    }
}

pub(super) fn down(connection: &str, status: &LineStatus) -> DeliveryError {
    let reason = status.trouble().map(|reason| format!(": {reason}")).unwrap_or_default();
    DeliveryError::Transient(format!("connection {connection} is down{reason}"))
}

fn closed(connection: &str) -> DeliveryError {
    DeliveryError::Transient(format!("connection {connection} has ended"))
}
