//! Acknowledgements of one connection, in the order in which the messages came (MQTT 5.0, section 4.6).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tidegate_core::{Ack, Outcome};
use tokio::sync::Notify;

const WAITING: u8 = 0;
const DONE: u8 = 1;
const REFUSED: u8 = 2;

/// What became of one batch.
#[derive(Debug, Default)]
pub(super) struct Fate(AtomicU8);

impl Fate {
    /// The guard that decides it.
    pub(super) fn guard(self: &Arc<Self>, decided: &Arc<Notify>) -> Ack {
        let (fate, decided) = (Arc::clone(self), Arc::clone(decided));
        Ack::new(move |outcome| {
            let outcome = match outcome {
                Outcome::Done => DONE,
                Outcome::Refused => REFUSED,
            };
            fate.0.store(outcome, Ordering::Release);
            decided.notify_one();
        })
    }

    /// Of rows that were dealt with before.
    pub(super) fn done() -> Self {
        Self(AtomicU8::new(DONE))
    }

    /// The batch will never leave this connector.
    pub(super) fn refuse(&self) {
        self.0.store(REFUSED, Ordering::Release);
    }

    /// Whether nobody knows yet.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == WAITING
    }

    /// Whether the rows have to come again.
    pub(super) fn is_refused(&self) -> bool {
        self.0.load(Ordering::Acquire) == REFUSED
    }
}

/// A message that the broker wants acknowledged.
struct Waiting {
    packet_id: u16,
    /// The batch that its rows are in; none if it had no rows.
    fate: Option<Arc<Fate>>,
    /// Further ones, when it belongs to several streams.
    others: Vec<Arc<Fate>>,
}

impl Waiting {
    fn outcome(&self) -> u8 {
        let fates = self.fate.iter().chain(&self.others).map(|fate| fate.0.load(Ordering::Acquire));
        fates.fold(DONE, |all, one| match (all, one) {
            (WAITING, _) | (_, WAITING) => WAITING,
            (REFUSED, _) | (_, REFUSED) => REFUSED,
            _ => DONE,
        })
    }
}

/// The messages of one connection that are not acknowledged yet. It ends with its connection: an
/// acknowledgement that belongs to an earlier one has nobody left to send it.
#[derive(Default)]
pub(super) struct Acks {
    waiting: VecDeque<Waiting>,
    /// Messages that will not be acknowledged; the broker sends them again on the next connection.
    refused: usize,
    /// Whether any was refused because there was no room for it.
    turned_away: bool,
}

impl Acks {
    /// Adds a message whose rows are in these batches.
    pub(super) fn push(&mut self, packet_id: u16, mut fates: impl Iterator<Item = Arc<Fate>>) {
        self.waiting.push_back(Waiting { packet_id, fate: fates.next(), others: fates.collect() });
    }

    /// Adds a message that was not taken: it will not be acknowledged on this connection.
    pub(super) fn refuse(&mut self, packet_id: u16) {
        self.turned_away = true;
        let fate = Arc::new(Fate::default());
        fate.refuse();
        self.push(packet_id, std::iter::once(fate));
    }

    /// Whether a message was turned away on this connection.
    pub(super) fn any_refused(&self) -> bool {
        self.turned_away
    }

    /// Sends what can be sent, oldest first, until `send` says that it cannot.
    pub(super) fn send(&mut self, mut send: impl FnMut(u16) -> bool) {
        while let Some(oldest) = self.waiting.front() {
            match oldest.outcome() {
                WAITING => return,
                DONE if !send(oldest.packet_id) => return,
                DONE => {}
                _ => self.refused += 1,
            }
            self.waiting.pop_front();
        }
    }

    /// Messages whose fate is open.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Messages that were refused, once nothing else is open: then only a new connection brings them again.
    pub(super) fn only_refused(&self) -> Option<usize> {
        (self.waiting.is_empty() && self.refused > 0).then_some(self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_keep_the_order_of_receipt() {
        let decided = Arc::new(Notify::new());
        let (first, second) = (Arc::new(Fate::default()), Arc::new(Fate::default()));
        let (first_guard, second_guard) = (first.guard(&decided), second.guard(&decided));
        let mut acks = Acks::default();
        acks.push(1, [Arc::clone(&first)].into_iter());
        acks.push(2, [Arc::clone(&second)].into_iter());
        acks.push(3, [first, second].into_iter());
        acks.push(4, std::iter::empty());

        let mut sent = Vec::new();
        drop(second_guard);
        acks.send(|id| {
            sent.push(id);
            true
        });
        assert_eq!(sent, [0_u16; 0]);
        drop(first_guard);
        acks.send(|id| {
            sent.push(id);
            sent.len() < 2
        });
        // The second attempt was turned down, so that it is made again.
        acks.send(|id| {
            sent.push(id);
            true
        });
        assert_eq!(sent, [1, 2, 2, 3, 4]);
        assert_eq!(acks.len(), 0);
    }

    #[test]
    fn a_refused_batch_is_not_acknowledged() {
        let decided = Arc::new(Notify::new());
        let fate = Arc::new(Fate::default());
        let guard = fate.guard(&decided);
        let mut acks = Acks::default();
        acks.push(1, [fate].into_iter());
        acks.push(2, std::iter::empty());
        guard.refuse();
        drop(guard);
        let mut sent = Vec::new();
        acks.send(|id| {
            sent.push(id);
            true
        });
        assert_eq!(sent, [2]);
        assert_eq!(acks.only_refused(), Some(1));
    }
}
