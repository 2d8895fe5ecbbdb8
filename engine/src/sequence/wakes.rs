//! When rules want to be called although no row comes, what stopped them that was not in the sequence, and
//! which versions could not start: all that flows from the workers back to the sequencer.
//!
//! It is no loop of data: a worker leaves a time here and goes on, nobody waits for room, and what comes of
//! it is an entry of the sequence like any other, which the journal has. See
//! `docs/decisions/0015-time-is-an-entry.md`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::edit::Edit;
use super::loads::Loads;

/// No rule wants to be called.
const NEVER: i64 = i64::MAX;

/// By input stream: the sequence's time up to which somebody must have listened to it, for rules to take note
/// if no row has come.
pub type Silences = BTreeMap<Arc<str>, i64>;

/// What each worker has left.
#[derive(Debug)]
pub struct Wakes {
    workers: Vec<Wake>,
    /// that nobody has taken yet; a version of a rule leaves one at most
    verdicts: Mutex<Vec<Edit>>,
    loads: Arc<Loads>,
    moved: Notify,
}

/// What one worker has left.
#[derive(Debug)]
struct Wake {
    /// the sequence's time at which its rules want to be called
    at: AtomicI64,
    /// the ticks that it had taken by then
    ticks: AtomicU64,
    silences: Mutex<Arc<Silences>>,
}

/// A worker's end.
#[derive(Debug, Clone)]
pub struct Waker {
    wakes: Arc<Wakes>,
    worker: usize,
}

impl Wakes {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let wake =
            |_| Wake { at: AtomicI64::new(NEVER), ticks: AtomicU64::new(0), silences: Mutex::default() };
        let workers = (0..workers).map(wake).collect();
        Arc::new(Self { workers, verdicts: Mutex::default(), loads: Arc::default(), moved: Notify::new() })
    }

    /// The end of worker `worker`.
    #[must_use]
    pub fn waker(self: &Arc<Self>, worker: usize) -> Waker {
        Waker { wakes: Arc::clone(self), worker }
    }

    /// When the next tick is wanted, after `ticks` of them were made. A worker that has not taken the last
    /// one yet is not asked: what it left is from before.
    #[must_use]
    pub fn next(&self, ticks: u64) -> Option<i64> {
        let heard = self.workers.iter().filter(|wake| wake.ticks.load(Ordering::Acquire) >= ticks);
        heard.map(|wake| wake.at.load(Ordering::Acquire)).min().filter(|at| *at != NEVER)
    }

    /// The silences that the rules wait for, worker by worker.
    #[must_use]
    pub fn silences(&self) -> Vec<Arc<Silences>> {
        self.workers
            .iter()
            .map(|wake| Arc::clone(&wake.silences.lock().unwrap_or_else(PoisonError::into_inner)))
            .collect()
    }

    /// Takes what stopped rules, or was refused.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Edit> {
        std::mem::take(&mut *self.verdicts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is some of it.
    #[must_use]
    pub fn has_verdicts(&self) -> bool {
        !self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Versions that were sent to the workers.
    #[must_use]
    pub fn loads(&self) -> &Arc<Loads> {
        &self.loads
    }

    /// Resolves when a worker has left something new, also if that was before it was called.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }
}

impl Waker {
    /// The rules want to be called at `at`, after the worker has taken `ticks` ticks.
    pub fn leave(&self, at: Option<i64>, ticks: u64) {
        let Some(wake) = self.wakes.workers.get(self.worker) else { return };
        // In this order: who sees the tick sees what came of it.
        let before = wake.at.swap(at.unwrap_or(NEVER), Ordering::AcqRel);
        let heard = wake.ticks.swap(ticks, Ordering::AcqRel);
        if before != at.unwrap_or(NEVER) || heard != ticks {
            self.wakes.moved.notify_one();
        }
    }

    /// A rule was stopped, or a version refused.
    pub fn leave_verdict(&self, verdict: Edit) {
        self.wakes.verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
        self.wakes.moved.notify_one();
    }

    /// The rules wait for these silences from now on.
    pub fn leave_silences(&self, silences: Silences) {
        let Some(wake) = self.wakes.workers.get(self.worker) else { return };
        *wake.silences.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(silences);
        self.wakes.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use futures::FutureExt;

    #[test]
    fn the_earliest_counts_of_the_workers_that_have_taken_the_last_tick() {
        let wakes = Wakes::new(2);
        assert_eq!(wakes.next(0), None);
        let (first, second) = (wakes.waker(0), wakes.waker(1));
        first.leave(Some(20), 0);
        second.leave(Some(10), 0);
        assert_eq!(wakes.next(0), Some(10));
        // A tick is on its way: both may have left this before.
        assert_eq!(wakes.next(1), None);
        first.leave(Some(20), 1);
        assert_eq!(wakes.next(1), Some(20));
        second.leave(None, 1);
        assert_eq!(wakes.next(1), Some(20));
    }

    #[test]
    fn only_news_is_told() {
        let wakes = Wakes::new(1);
        let waker = wakes.waker(0);
        waker.leave(None, 0);
        assert!(wakes.moved().now_or_never().is_none(), "nothing is new");
        waker.leave(Some(5), 0);
        waker.leave(Some(5), 0);
        wakes.moved().now_or_never().unwrap();
        assert!(wakes.moved().now_or_never().is_none());
    }
}
