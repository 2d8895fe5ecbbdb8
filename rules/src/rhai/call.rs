//! What a script does while it is called: it writes rows, sets timers and says something. Nothing of it counts
//! before the call has gone well, but for what it says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rule::{LogLevel, LogLine};

use super::write::{Outlets, Written};

/// More rows than this from one row: the script has gone astray.
const MOST_WRITES: usize = 1_000;
/// More bytes of texts and the like from one row: likewise.
const MOST_BYTES: usize = 1 << 20;
/// More timers set by one row: likewise.
const MOST_TIMERS: usize = 1_000;
/// How many lines a call of the rule may say.
const MOST_LINES: usize = 100;
/// How long such a line is at most.
pub(super) const LINE: usize = 1_000;

/// A timer, set or cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TimerChange {
    /// to be due so many nanoseconds from now
    After(String, i64),
    Cancel(String),
}

/// What a script is called for, and what it has done so far.
#[derive(Debug)]
pub(super) struct Call {
    /// the number of the row or tick at hand
    pub seq: u64,
    /// the event time of the row at hand; `None`: there is no row
    pub ts: Option<i64>,
    /// what the wall clock showed
    pub wall_ns: i64,
    /// where it may write
    pub outlets: Outlets,
    /// what it has written
    pub written: Vec<Written>,
    /// bytes of texts and the like in it
    bytes: usize,
    /// the timers that it has changed
    pub timers: Vec<TimerChange>,
    /// how many rows it is handed
    pub rows: usize,
    log: Vec<LogLine>,
    unsaid: u64,
}

/// The call at hand, for the functions that scripts call.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Mutex<Call>>);

impl Calls {
    pub(super) fn new(outlets: Outlets) -> Self {
        Self(Arc::new(Mutex::new(Call {
            seq: 0,
            ts: None,
            wall_ns: 0,
            outlets,
            written: Vec::new(),
            bytes: 0,
            timers: Vec::new(),
            rows: 1,
            log: Vec::new(),
            unsaid: 0,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    /// It is about the row or tick `seq` now.
    pub(super) fn at(&mut self, seq: u64, ts: Option<i64>) {
        self.seq = seq;
        self.ts = ts;
    }

    /// The time that helpers reckon with: the row's, or else the box's.
    pub(super) fn time(&self) -> i64 {
        self.ts.unwrap_or(self.wall_ns)
    }

    pub(super) fn write(&mut self, written: Written) -> Result<(), String> {
        if self.written.len() >= MOST_WRITES.saturating_mul(self.rows) {
            return Err(format!("it has written {MOST_WRITES} rows for one row, and may write no more"));
        }
        let before = if self.written.is_empty() { 0 } else { self.bytes };
        self.bytes = before + written.bytes();
        if self.bytes > MOST_BYTES.saturating_mul(self.rows) {
            return Err(format!("it has written {MOST_BYTES} bytes for one row, and may write no more"));
        }
        self.written.push(written);
        Ok(())
    }

    pub(super) fn change_timer(&mut self, change: TimerChange) -> Result<(), String> {
        if self.timers.len() >= MOST_TIMERS.saturating_mul(self.rows) {
            return Err(format!("it has set {MOST_TIMERS} timers for one row, and may set no more"));
        }
        self.timers.push(change);
        Ok(())
    }

    pub(super) fn say(&mut self, level: LogLevel, text: String) {
        if self.log.len() < MOST_LINES {
            self.log.push(LogLine { level, text });
        } else {
            self.unsaid += 1;
        }
    }

    /// What it has said, with how much more it would have.
    pub(super) fn take_log(&mut self) -> Vec<LogLine> {
        let mut log = std::mem::take(&mut self.log);
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid > 0 {
            log.push(LogLine { level: LogLevel::Warn, text: format!("{unsaid} more lines were left out") });
        }
        log
    }
}
