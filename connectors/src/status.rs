//! What a connection did, as counters that anybody may read at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The counters of one connection. They only grow, and belong to the process, not to the session.
#[derive(Debug, Default)]
pub struct LineStatus {
    /// whether the line is up
    pub connected: AtomicBool,
    /// messages taken in
    pub messages: AtomicU64,
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
}

impl LineStatus {
    /// Whether the line is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
