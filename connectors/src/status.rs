//! What a connection did, as counters that anybody may read at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The counters of one connection. They only grow, and belong to the process, not to the session.
#[derive(Debug, Default)]
pub struct LineStatus {
    /// whether the line is up
    pub connected: AtomicBool,
    /// messages taken in
    pub messages: AtomicU64,
    /// messages among them that the broker repeated; they were known again, and their rows were not taken twice
    pub repeated: AtomicU64,
    /// rows made of them
    pub rows: AtomicU64,
    /// messages that could not be decoded, or are too large; they are lost
    pub malformed: AtomicU64,
    /// values that did not fit their column, and are null
    pub wrong_type: AtomicU64,
    /// messages and rows that were dropped because the engine did not take them in time (QoS 0), or belong to no stream
    pub dropped: AtomicU64,
    /// times that the line was opened again after it had been up
    pub reconnects: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl LineStatus {
    /// Whether the line is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Why the line is down, in words; none while it is up, or was never tried.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_up(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.connected.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_down(&self, trouble: Option<String>) {
        self.connected.store(false, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
