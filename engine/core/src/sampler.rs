//! Says something once, and then at most every ten seconds how often it happened.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(10);

/// Counts events that come in floods, for the log.
#[derive(Debug, Default)]
pub struct Sampler {
    said: Option<Instant>,
    unsaid: u64,
}

impl Sampler {
    /// Counts `n` more. Returns how many there were since the last time it returned something, if it is time
    /// to say it.
    pub fn count(&mut self, n: u64) -> Option<u64> {
        self.unsaid += n;
        if self.said.is_some_and(|said| said.elapsed() < PAUSE) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}
