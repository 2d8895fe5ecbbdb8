//! Versions of rules on their way into force.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Versions that were sent to workers, and of which nobody knows yet whether they run: one may not be able to
/// start. A snapshot names what is in force, and waits for them.
#[derive(Debug, Default)]
pub struct Loads {
    undecided: AtomicUsize,
    decided: Notify,
}

impl Loads {
    /// One more.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Undecided {
        self.undecided.fetch_add(1, Ordering::AcqRel);
        Undecided(Arc::clone(self))
    }

    /// Whether each of them runs by now, or it was left why it does not.
    #[must_use]
    pub fn are_decided(&self) -> bool {
        self.undecided.load(Ordering::Acquire) == 0
    }

    /// Resolves when that is so. One at a time may wait for it.
    pub async fn decided(&self) {
        while !self.are_decided() {
            self.decided.notified().await;
        }
    }
}

/// Held until it is known.
#[derive(Debug)]
pub struct Undecided(Arc<Loads>);

impl Drop for Undecided {
    fn drop(&mut self) {
        self.0.undecided.fetch_sub(1, Ordering::AcqRel);
        self.0.decided.notify_one();
    }
}
