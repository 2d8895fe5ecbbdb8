//! Publishing: what sinks and the uplink do with a connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::client::{Expiry, Notice, Outgoing, unsent};
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
        let Some(session) = *self.session.borrow() else {
            return Err(down(&self.connection, &self.status));
        };
        // A broker closes the connection for it, or never answers (MQTT 5.0, section 3.2.2.3.4).
        if qos > session.max_qos {
            return Err(DeliveryError::Transient(format!(
                "the broker of connection {} takes QoS 0 only: let it take QoS 1, or set qos = 0",
                self.connection
            )));
        }
        let message = Outgoing { topic: topic.to_owned(), payload, qos, retain, expiry: self.expiry };
        let size = message.size(self.version);
        if size > session.max_packet as usize {
            return Err(DeliveryError::Permanent(format!(
                "the message to {topic} makes a packet of {size} bytes; connection {} takes at most {} (the \
                smaller of max_packet and the broker's own limit)",
                self.connection, session.max_packet
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
