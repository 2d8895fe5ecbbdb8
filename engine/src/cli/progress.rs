//! A line on the terminal that says how far something is. It is written over and over, and gives way to log
//! lines.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::replay::Progress;

/// Often enough to look alive.
const EVERY: Duration = Duration::from_millis(250);
/// Back to the first column, and nothing behind it.
const CLEAR: &[u8] = b"\r\x1b[K";

/// Whether the terminal's last line is one of ours: a process has one terminal.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Standard error for log lines: they take the place of what is shown.
pub(super) fn stderr() -> impl Write {
    let mut stderr = io::stderr();
    if SHOWN.swap(false, Ordering::Relaxed) {
        // A closed standard error must not end anything.
        let _ = stderr.write_all(CLEAR);
    }
    stderr
}

/// Shows how far a replay or a back-test is; nothing remains of it at its end.
pub(super) struct ProgressLine {
    what: &'static str,
    begun: Instant,
    shown: Cell<Instant>,
}

impl ProgressLine {
    pub(super) fn new(what: &'static str) -> Self {
        let now = Instant::now();
        Self { what, begun: now, shown: Cell::new(now) }
    }

    pub(super) fn show(&self, progress: Progress) {
        if self.shown.get().elapsed() < EVERY {
            return;
        }
        self.shown.set(Instant::now());
        let text = format!("{}: {}", self.what, describe(progress, self.begun.elapsed()));
        let mut stderr = stderr();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        SHOWN.store(true, Ordering::Relaxed);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        drop(stderr());
    }
}

fn describe(Progress { rows, bytes, total }: Progress, taken: Duration) -> String {
    let rate = u128::from(rows) * 1_000 / taken.as_millis().max(1);
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{rows} rows, {rate}/s, {} MiB read", bytes >> 20);
    };
    let done = bytes.min(total);
    let percent = u128::from(done) * 100 / u128::from(total);
    let left = taken.as_secs_f64() / (done.max(1) as f64) * ((total - done) as f64);
    let bar: String = (0..20).map(|at| if at * 5 < percent { '#' } else { '.' }).collect();
    format!("[{bar}] {percent:>3} % of {} MiB, {rows} rows, {rate}/s, {left:.0} s left", total >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_much_is_done_and_how_long_the_rest_will_take() {
        let progress = Progress { rows: 1_000, bytes: 25 << 20, total: Some(100 << 20) };
        let text = describe(progress, Duration::from_secs(10));
        assert_eq!(text, "[#####...............]  25 % of 100 MiB, 1000 rows, 100/s, 30 s left");
        let text = describe(Progress { total: None, ..progress }, Duration::from_secs(10));
        assert_eq!(text, "1000 rows, 100/s, 25 MiB read");
    }
}
