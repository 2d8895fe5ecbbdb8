//! The forwarder: from the outbox to the uplink.
//!
//! A row leaves the outbox only when the far side has confirmed it. Every message carries the row's id, by which the receiver drops a
//! repeat. When the uplink comes up, all that is on disk is backlog, and what is committed from then on is live: live rows go first, the
//! backlog follows at a bounded rate, and within each the order of the outbox is kept. While the uplink is down the forwarder holds
//! nothing but the numbers of rows that were confirmed in blocks that were not finished.
//!
//! [`lanes`] decides what goes next and knows no I/O; this file does what it says.

mod lanes;
mod message;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tidegate_connectors::DeliveryError;
use tidegate_connectors::mqtt::Publisher;
use tidegate_connectors::mqtt::config::Qos;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::buffer::{Buffer, BufferError};
use crate::config;
use crate::status::OutboxStatus;
use lanes::{Lanes, Next};
use message::Messages;
pub(crate) use message::Payloads;

/// The pause after the far side could not take a row although the line is up, doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const GAPS_AT_ONCE: usize = 16;

/// Resolves when the far side has confirmed a message.
pub type Confirmation = BoxFuture<'static, Result<(), DeliveryError>>;

/// The far side.
pub trait Uplink: Send + 'static {
    /// Sends a message, and returns when it is on its way.
    fn send(&mut self, topic: String, payload: Bytes) -> BoxFuture<'_, Result<Confirmation, DeliveryError>>;

    /// Some number while the line is up, another one for each time it came up.
    fn generation(&self) -> watch::Receiver<Option<u64>>;
}

impl Uplink for Box<dyn Uplink> {
    fn send(&mut self, topic: String, payload: Bytes) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        (**self).send(topic, payload)
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        (**self).generation()
    }
}

/// MQTT with QoS 1.
pub struct MqttUplink {
    publisher: Publisher,
    generation: watch::Receiver<Option<u64>>,
}

impl MqttUplink {
    /// Sends by `publisher`. Its sessions are followed by a task that ends with the connection.
    pub fn new(publisher: Publisher) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let mut session = publisher.session();
        let (tell, generation) = watch::channel(None);
        let follow = async move {
            loop {
                let now = session.borrow_and_update().map(|session| session.generation);
                if tell.send(now).is_err() || session.changed().await.is_err() {
                    return;
                }
            }
        };
        (Self { publisher, generation }, follow)
    }
}

impl Uplink for MqttUplink {
    fn send(&mut self, topic: String, payload: Bytes) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        Box::pin(async move {
            let confirmation = self.publisher.publish(&topic, payload, Qos::AtLeastOnce, false).await?;
            Ok(Box::pin(confirmation) as Confirmation)
        })
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        self.generation.clone()
    }
}

/// Sends the outbox by one uplink.
pub struct Forwarder<U> {
    buffer: Buffer,
    uplink: U,
    lanes: Lanes,
    messages: Messages,
    /// rows that had been dropped when gaps were last looked for
    gaps_seen: Option<u64>,
    status: Arc<OutboxStatus>,
}

/// What became of one row.
type Settled = (u64, usize, Result<(), DeliveryError>);

/// Why a session's work ended.
enum End {
    /// The line is down, or was down in between.
    Line,
    /// The far side is up, but could not take a row now.
    Busy(String),
    /// The box stops.
    Stop,
}

impl<U: Uplink> Forwarder<U> {
    /// A forwarder for the box called `name`.
    #[must_use]
    pub fn new(buffer: Buffer, uplink: U, settings: &config::Uplink, name: &str, status: Arc<OutboxStatus>) -> Self {
        let lanes = Lanes::new(settings.in_flight.get(), settings.backlog_rate.map(std::num::NonZeroU32::get));
        let messages = Messages::new(name, &settings.topic);
        Self { buffer, uplink, lanes, messages, gaps_seen: None, status }
    }

    /// Forwards until `stop` is cancelled. What was not confirmed by then stays in the outbox.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut generation = self.uplink.generation();
        let mut pause = FIRST_PAUSE;
        loop {
            let up = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                up = generation.wait_for(Option::is_some) => up.is_ok(),
            };
            if !up {
                break;
            }
            self.status.connected.store(true, Ordering::Relaxed);
            let delivered = self.status.delivered.get();
            let mut end = self.session(&mut generation, &stop).await;
            self.lanes.forget_unconfirmed();
            // Rows come back when the line goes down, a moment before the line says so itself.
            if matches!(end, Ok(End::Busy(_))) && tokio::time::timeout(FIRST_PAUSE, generation.changed()).await.is_ok() {
                end = Ok(End::Line);
            }
            match end {
                Ok(End::Stop) | Err(BufferError::Closed) => break,
                Ok(End::Line) => {}
                Ok(End::Busy(reason)) => {
                    pause = if self.status.delivered.get() > delivered { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                    tracing::warn!(reason, again_in = ?pause, "the uplink does not take rows now; they stay in the outbox");
                    wait(pause, &stop).await;
                }
                Err(error) => {
                    tracing::error!(%error, again_in = ?LONGEST_PAUSE, "the outbox cannot be read");
                    wait(LONGEST_PAUSE, &stop).await;
                }
            }
            self.status.connected.store(generation.borrow().is_some(), Ordering::Relaxed);
        }
    }

    /// Forwards while the line stays up.
    async fn session(&mut self, generation: &mut watch::Receiver<Option<u64>>, stop: &CancellationToken) -> Result<End, BufferError> {
        let mut committed = self.buffer.committed();
        self.lanes.start(*committed.borrow_and_update(), Instant::now());
        generation.mark_unchanged();
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Settled>> = FuturesUnordered::new();
        loop {
            if let Some(end) = self.send_gaps().await? {
                return Ok(end);
            }
            match self.lanes.next(Instant::now()) {
                Next::Fetch { after, until, limit } => {
                    let blocks = self.buffer.fetch(after, until, limit).await?;
                    self.lanes.fetched(blocks);
                    continue;
                }
                Next::Send => match self.send_one().await {
                    Ok(settles) => {
                        in_flight.push(settles);
                        // As long as there is room, confirmations are only looked at now and then.
                        if !in_flight.len().is_multiple_of(64) {
                            continue;
                        }
                    }
                    Err(end) => return Ok(end),
                },
                Next::Wait { until } => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(End::Stop),
                        changed = generation.changed() => return Ok(if changed.is_ok() { End::Line } else { End::Stop }),
                        Some(settled) = in_flight.next() => if let Some(end) = self.settle(settled).await? { return Ok(end) },
                        new = committed.changed() => match new {
                            Ok(()) => self.lanes.committed(*committed.borrow_and_update()),
                            Err(_) => return Err(BufferError::Closed),
                        },
                        () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                    }
                }
            }
            while let Some(Some(settled)) = futures::FutureExt::now_or_never(in_flight.next()) {
                if let Some(end) = self.settle(settled).await? {
                    return Ok(end);
                }
            }
            if committed.has_changed().unwrap_or(false) {
                self.lanes.committed(*committed.borrow_and_update());
            }
            if stop.is_cancelled() {
                return Ok(End::Stop);
            }
            if generation.has_changed().unwrap_or(true) {
                return Ok(End::Line);
            }
        }
    }

    async fn send_one(&mut self) -> Result<BoxFuture<'static, Settled>, End> {
        let Some((block, row)) = self.lanes.take() else { return Err(End::Line) };
        let (topic, payload) = self.messages.of(&block, row);
        let id = block.id;
        match self.uplink.send(topic, payload).await {
            Ok(confirmation) => Ok(Box::pin(async move { (id, row, confirmation.await) })),
            Err(DeliveryError::Transient(reason)) => Err(End::Busy(reason)),
            Err(error @ DeliveryError::Permanent(_)) => Ok(Box::pin(std::future::ready((id, row, Err(error))))),
        }
    }

    /// Tells the far side which rows were dropped, if there are any that it does not know of. This is rare, so that each gap is waited for.
    async fn send_gaps(&mut self) -> Result<Option<End>, BufferError> {
        let dropped = self.status.dropped.get();
        if self.gaps_seen == Some(dropped) {
            return Ok(None);
        }
        loop {
            let gaps = self.buffer.fetch_gaps(GAPS_AT_ONCE).await?;
            if gaps.is_empty() {
                self.gaps_seen = Some(dropped);
                return Ok(None);
            }
            for gap in gaps {
                let (topic, payload) = self.messages.of_gap(&gap);
                let sent = match self.uplink.send(topic, payload).await {
                    Ok(confirmation) => confirmation.await,
                    Err(error) => Err(error),
                };
                match sent {
                    Err(DeliveryError::Transient(reason)) => return Ok(Some(End::Busy(reason))),
                    Err(DeliveryError::Permanent(reason)) => {
                        tracing::error!(reason, ?gap, "the uplink does not take the record of a gap; it is dropped")
                    }
                    Ok(()) => {}
                }
                self.buffer.confirm_gaps(vec![gap.id]).await?;
            }
        }
    }

    async fn settle(&mut self, (block, row, outcome): Settled) -> Result<Option<End>, BufferError> {
        let refused = match outcome {
            Ok(()) => {
                self.status.delivered.add(1);
                None
            }
            Err(DeliveryError::Transient(reason)) => return Ok(Some(End::Busy(reason))),
            Err(DeliveryError::Permanent(reason)) => Some(reason),
        };
        match self.lanes.settled(block, row, refused) {
            lanes::Settled::Open => {}
            lanes::Settled::Confirmed => self.buffer.confirm(vec![block]).await?,
            lanes::Settled::Refused(reason) => self.buffer.refuse(block, reason).await?,
        }
        Ok(None)
    }
}

async fn wait(pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
