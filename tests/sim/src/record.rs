//! What happened, in order: a hash that is equal for equal runs, and the lines themselves for a person.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Takes note of what happens. Clones write to the same record.
#[derive(Clone)]
pub struct Record(Arc<Mutex<Inner>>);

struct Inner {
    hash: u64,
    round: u64,
    began: Option<Instant>,
    wrong: Vec<String>,
    show: bool,
}

impl Record {
    /// An empty record; `show`: each line is printed, too.
    #[must_use]
    pub fn new(show: bool) -> Self {
        // FNV-1a: the run is no adversary.
        Self(Arc::new(Mutex::new(Inner {
            hash: 0xcbf2_9ce4_8422_2325,
            round: 0,
            began: None,
            wrong: Vec::new(),
            show,
        })))
    }

    /// A new round begins, on a new runtime.
    pub fn round(&self) {
        let mut inner = self.lock();
        inner.round += 1;
        inner.began = Some(Instant::now());
    }

    /// The round has ended, and with it its clock.
    pub fn round_ended(&self) {
        self.lock().began = None;
    }

    /// Notes that something happened.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.lock();
        let at = inner.began.map_or(0, |began| began.elapsed().as_millis());
        let line = format!("{}:{at} {what}", inner.round);
        for byte in line.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if inner.show {
            tracing::info!(target: "sim", "{line}");
        }
    }

    /// Notes that something happened that must not.
    pub fn wrong(&self, what: String) {
        self.note(format_args!("WRONG: {what}"));
        let mut inner = self.lock();
        if inner.wrong.len() < 20 {
            inner.wrong.push(what);
        }
    }

    /// What was wrong.
    #[must_use]
    pub fn all_wrong(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }

    /// The hash of all lines.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
