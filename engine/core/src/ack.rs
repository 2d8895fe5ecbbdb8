//! The acknowledgement guard.
//!
//! A source attaches one [`Ack`] to each batch. Everything that still has to make the batch's effects durable
//! holds a clone. When the last clone is dropped, the source learns the outcome: [`Outcome::Done`]
//! (acknowledge the messages upstream) or [`Outcome::Refused`] (do not: the far side will send them again).
//! No back channel through the engine is needed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every effect of the batch is durable; the messages may be acknowledged.
    Done,
    /// Somebody could not finish its part; the messages must not be acknowledged.
    Refused,
}

/// A share in a batch's acknowledgement; the last one dropped reports the outcome.
#[derive(Clone, Default)]
pub struct Ack(Option<Arc<Inner>>);

struct Inner {
    refused: AtomicBool,
    holds: AtomicBool,
    report: Option<Box<dyn FnOnce(Outcome) + Send + Sync>>,
}

impl Ack {
    /// A guard for rows that nobody waits for (QoS 0, polled values, replay).
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// A guard that calls `report` exactly once, on the thread that drops the last clone. `report` must not
    /// block.
    pub fn new(report: impl FnOnce(Outcome) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Inner {
            refused: AtomicBool::new(false),
            holds: AtomicBool::new(false),
            report: Some(Box::new(report)),
        })))
    }

    /// Whether anybody waits for this guard.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.0.is_some()
    }

    /// Has the batch wait for the disk, even one that refuses: without this, who finds the disk out of order
    /// lets go.
    pub fn hold(&self) {
        if let Some(inner) = &self.0 {
            inner.holds.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the batch waits for the disk in any case.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.holds.load(Ordering::Relaxed))
    }

    /// Marks the batch as refused: whatever the other holders do, it will not be acknowledged.
    pub fn refuse(&self) {
        if let Some(inner) = &self.0 {
            inner.refused.store(true, Ordering::Release);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A guard that unwinds with a panicking thread has not been dealt with.
        let refused = self.refused.load(Ordering::Acquire) || std::thread::panicking();
        if let Some(report) = self.report.take() {
            report(if refused { Outcome::Refused } else { Outcome::Done });
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_awaited() { "Ack(awaited)" } else { "Ack(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn recorder() -> (Ack, Arc<Mutex<Vec<Outcome>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let ack = Ack::new(move |outcome| {
            if let Ok(mut seen) = sink.lock() {
                seen.push(outcome);
            }
        });
        (ack, seen)
    }

    fn outcomes(seen: &Mutex<Vec<Outcome>>) -> Vec<Outcome> {
        seen.lock().map(|v| v.clone()).unwrap_or_default()
    }

    #[test]
    fn the_last_clone_reports_done_once() {
        let (ack, seen) = recorder();
        let other = ack.clone();
        drop(ack);
        assert_eq!(outcomes(&seen), []);
        drop(other);
        assert_eq!(outcomes(&seen), [Outcome::Done]);
    }

    #[test]
    fn one_refusal_refuses_the_whole() {
        let (ack, seen) = recorder();
        ack.clone().refuse();
        drop(ack);
        assert_eq!(outcomes(&seen), [Outcome::Refused]);
    }

    #[test]
    fn a_guard_lost_to_a_panic_is_refused() {
        let (ack, seen) = recorder();
        let handle = std::thread::spawn(move || {
            let _held = ack;
            std::panic::resume_unwind(Box::new("worker died"));
        });
        assert!(handle.join().is_err());
        assert_eq!(outcomes(&seen), [Outcome::Refused]);
    }
}
