//! The forwarder: from the outbox to an uplink. Each uplink has its own, with its own progress.
//!
//! A row leaves the outbox only when the far side has confirmed it. Every message carries the row's id, by
//! which the receiver drops a repeat. When the uplink comes up, what was sent and not confirmed goes again as
//! it was, in parcels of the same rows; all else that is on disk is backlog, and what is committed from then
//! on is live: live rows go first, the backlog follows at a bounded rate, rows of higher priority first, and
//! otherwise the order of the outbox is kept. While the uplink is down the forwarder holds nothing but what
//! was sent and not confirmed, which `in_flight` bounds, and the numbers of rows that were confirmed in
//! blocks that were not finished.
//!
//! [`lanes`] decides what goes next and knows no I/O; this file does what it says. [`Uplink`] is what a far
//! side has to offer.

mod lanes;
mod message;
mod suspects;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tidegate_connectors::DeliveryError;
use tidegate_connectors::uplink::{Parcel, Uplink};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::buffer::{BufferError, Outbox};
use crate::config;
use crate::status::UplinkStatus;
use lanes::{Lanes, Next};
use message::Messages;
pub(crate) use message::{Payloads, corrected};
use suspects::Suspects;

/// The pause after the far side could not take a row although the line is up, doubled up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const GAPS_AT_ONCE: usize = 16;

/// Sends an outbox by its uplink.
pub struct Forwarder<U> {
    outbox: Outbox,
    uplink: U,
    lanes: Lanes,
    messages: Messages,
    /// what was sent and not confirmed, by the order of sending
    sent: BTreeMap<u64, Sent>,
    /// what has to be sent as it is before anything else
    again: VecDeque<Sent>,
    suspects: Suspects,
    /// the number of the parcel that is sent next
    next: u64,
    /// how often gaps had been noted when they were last looked for
    gaps_seen: Option<u64>,
    status: Arc<UplinkStatus>,
}

/// A parcel with the rows that are in it: of which block, and where there.
#[derive(Debug, Clone)]
struct Sent {
    parcel: Parcel,
    rows: Vec<(u64, usize)>,
}

/// What became of a parcel, by its number.
type Settled = (u64, Result<(), DeliveryError>);

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
    pub fn new(
        outbox: Outbox,
        uplink: U,
        settings: &config::Uplink,
        name: &str,
        status: Arc<UplinkStatus>,
    ) -> Self {
        let lanes = Lanes::new(
            settings.in_flight.get(),
            uplink.batch(),
            settings.backlog_rate.map(std::num::NonZeroU32::get),
        );
        let (sent, again, messages) = (BTreeMap::new(), VecDeque::new(), Messages::new(name));
        let suspects = Suspects::default();
        Self { outbox, uplink, lanes, messages, sent, again, suspects, next: 0, gaps_seen: None, status }
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
            let (delivered, hang_ups) = (self.status.delivered.get(), self.uplink.hang_ups());
            let mut end = self.session(&mut generation, &stop).await;
            self.lanes.stop();
            if self.uplink.hang_ups() != hang_ups
                && let Err(error) = self.blame().await
            {
                end = Err(error);
            }
            let unconfirmed = std::mem::take(&mut self.sent);
            unconfirmed.into_values().rev().for_each(|sent| self.again.push_front(sent));
            // Rows come back when the line goes down, a moment before the line says so itself.
            if matches!(end, Ok(End::Busy(_)))
                && tokio::time::timeout(FIRST_PAUSE, generation.changed()).await.is_ok()
            {
                end = Ok(End::Line);
            }
            match end {
                Ok(End::Stop) | Err(BufferError::Closed) => break,
                Ok(End::Line) => {}
                Ok(End::Busy(reason)) => {
                    pause = if self.status.delivered.get() > delivered {
                        FIRST_PAUSE
                    } else {
                        (pause * 2).min(LONGEST_PAUSE)
                    };
                    tracing::warn!(
                        reason,
                        again_in = ?pause,
                        "the uplink does not take rows now; they stay in the outbox"
                    );
                    self.status.far_side.last_error.note(reason);
                    wait(pause, &stop).await;
                }
                Err(error) => {
                    tracing::error!(%error, again_in = ?LONGEST_PAUSE, "the outbox cannot be read");
                    wait(LONGEST_PAUSE, &stop).await;
                }
            }
        }
    }

    /// Forwards while the line stays up.
    async fn session(
        &mut self,
        generation: &mut watch::Receiver<Option<u64>>,
        stop: &CancellationToken,
    ) -> Result<End, BufferError> {
        let mut committed = self.outbox.committed();
        self.lanes.start(*committed.borrow_and_update(), Instant::now());
        generation.mark_unchanged();
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Settled>> = FuturesUnordered::new();
        loop {
            if let Some(end) = self.send_gaps().await? {
                return Ok(end);
            }
            let waits = self.suspects.one_by_one() && !in_flight.is_empty();
            if !waits && let Some(sent) = self.again.pop_front() {
                self.lanes.sent_again(sent.rows.len());
                match self.send(sent).await {
                    Ok(settles) => in_flight.push(settles),
                    Err(end) => return Ok(end),
                }
                continue;
            }
            if in_flight.is_empty() {
                self.suspects.cleared();
            }
            match if waits { Next::Wait { until: None } } else { self.lanes.next(Instant::now()) } {
                Next::Fetch { priority, after, until, limit } => {
                    let blocks = self.outbox.fetch_of(priority, after, until, limit).await?;
                    self.lanes.fetched(blocks);
                    continue;
                }
                Next::Send => match self.send_next().await {
                    Ok(settles) => {
                        in_flight.extend(settles);
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
                        changed = generation.changed() => {
                            return Ok(if changed.is_ok() { End::Line } else { End::Stop });
                        }
                        Some(settled) = in_flight.next() => {
                            if let Some(end) = self.settle(settled).await? { return Ok(end) }
                        }
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

    /// The far side has closed the line. A row at which it does so again and again is set aside.
    async fn blame(&mut self) -> Result<(), BufferError> {
        let under_way: Vec<_> = self.sent.values().filter_map(|sent| sent.rows.first().copied()).collect();
        if !self.suspects.hung_up(&under_way) {
            return Ok(());
        }
        let Some((&number, sent)) = self.sent.first_key_value() else { return Ok(()) };
        let (rule, bytes) = (&sent.parcel.rule, sent.parcel.messages.iter().map(Bytes::len).sum::<usize>());
        let reason = format!(
            "the far side closes the line whenever this row of rule {rule} comes ({bytes} bytes): it takes \
            no message as large, or not to this place"
        );
        self.settle((number, Err(DeliveryError::Permanent(reason)))).await.map(drop)
    }

    /// Sends the rows whose turn it is; none if they were sent before.
    async fn send_next(&mut self) -> Result<Option<BoxFuture<'static, Settled>>, End> {
        let taken = self.lanes.take();
        let Some(rule) = taken.first().map(|(block, _)| Arc::clone(&block.rule)) else { return Ok(None) };
        let messages = taken.iter().map(|(block, row)| self.messages.of(block, *row)).collect();
        let rows = taken.iter().map(|(block, row)| (block.id, *row)).collect();
        self.send(Sent { parcel: Parcel { rule, messages }, rows }).await.map(Some)
    }

    async fn send(&mut self, sent: Sent) -> Result<BoxFuture<'static, Settled>, End> {
        let number = self.next;
        self.next += 1;
        let parcel = sent.parcel.clone();
        self.sent.insert(number, sent);
        match self.uplink.send(parcel).await {
            Ok(confirmation) => Ok(Box::pin(async move { (number, confirmation.await) })),
            Err(DeliveryError::Transient(reason) | DeliveryError::Unknown(reason)) => Err(End::Busy(reason)),
            Err(error @ DeliveryError::Permanent(_)) => {
                Ok(Box::pin(std::future::ready((number, Err(error)))))
            }
        }
    }

    /// Tells the far side which rows were dropped, if there are any that it does not know of. This is rare,
    /// so that each gap is waited for.
    async fn send_gaps(&mut self) -> Result<Option<End>, BufferError> {
        let noted = self.outbox.gaps_noted();
        if self.gaps_seen == Some(noted) {
            return Ok(None);
        }
        loop {
            let gaps = self.outbox.fetch_gaps(GAPS_AT_ONCE).await?;
            if gaps.is_empty() {
                self.gaps_seen = Some(noted);
                return Ok(None);
            }
            for gap in gaps {
                let parcel =
                    Parcel { rule: Arc::clone(&gap.rule), messages: vec![self.messages.of_gap(&gap)] };
                let sent = match self.uplink.send(parcel).await {
                    Ok(confirmation) => confirmation.await,
                    Err(error) => Err(error),
                };
                match sent {
                    Err(DeliveryError::Transient(reason) | DeliveryError::Unknown(reason)) => {
                        return Ok(Some(End::Busy(reason)));
                    }
                    Err(DeliveryError::Permanent(reason)) => {
                        tracing::error!(
                            reason,
                            ?gap,
                            "the uplink does not take the record of a gap; it is dropped"
                        )
                    }
                    Ok(()) => {}
                }
                self.outbox.confirm_gaps(vec![gap.id]).await?;
            }
        }
    }

    async fn settle(&mut self, (number, outcome): Settled) -> Result<Option<End>, BufferError> {
        // A row that may have arrived is sent again: its id lets the far side drop the repeat.
        if let Err(DeliveryError::Transient(reason) | DeliveryError::Unknown(reason)) = outcome {
            return Ok(Some(End::Busy(reason)));
        }
        let Some(sent) = self.sent.remove(&number) else { return Ok(None) };
        match outcome {
            Ok(()) => {
                self.status.delivered.add(sent.rows.len() as u64);
                self.status.refusing.set(0);
            }
            // One row is to blame; the others shall not go with it.
            Err(_) if sent.rows.len() > 1 => {
                self.lanes.returned(sent.rows.len());
                self.again.extend(sent.one_by_one());
                return Ok(None);
            }
            Err(_) => {
                self.status.refused.add(sent.rows.len() as u64);
                self.status.refusing.add(sent.rows.len() as u64);
            }
        }
        let refused = outcome.err().map(|error| error.to_string());
        refused.iter().for_each(|reason| self.status.far_side.last_error.note(reason.clone()));
        let mut confirmed = Vec::new();
        for (block, row) in sent.rows {
            match self.lanes.settled(block, row, refused.clone()) {
                lanes::Settled::Open => {}
                lanes::Settled::Confirmed => confirmed.push(block),
                lanes::Settled::Refused(reason) => self.outbox.refuse(block, reason).await?,
            }
        }
        if !confirmed.is_empty() {
            self.outbox.confirm(confirmed).await?;
        }
        Ok(None)
    }
}

impl Sent {
    /// A parcel for each row.
    fn one_by_one(self) -> impl Iterator<Item = Self> {
        let rule = self.parcel.rule;
        let parts = self.parcel.messages.into_iter().zip(self.rows);
        parts.map(move |(message, row)| Self {
            parcel: Parcel { rule: Arc::clone(&rule), messages: vec![message] },
            rows: vec![row],
        })
    }
}

async fn wait(pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
