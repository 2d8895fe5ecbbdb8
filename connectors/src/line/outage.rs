//! What the log says of a line that is lost and comes back: once for each reason, and not at every attempt.

use tokio::time::Instant;
use tracing::{debug, info, warn};

/// A time without a connection.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    now: Option<Outage>,
    connected_before: bool,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    attempts: u64,
    /// the last reason that was logged
    reason: String,
}

impl Outages {
    /// The line is there. Whether it was there before and lost.
    pub(crate) fn connected(&mut self) -> bool {
        let again = std::mem::replace(&mut self.connected_before, true);
        match self.now.take() {
            Some(Outage { since, attempts, .. }) => {
                info!(attempts, down_s = since.elapsed().as_secs(), "connected again");
            }
            None => info!("connected"),
        }
        again
    }

    /// The line was lost, or could not be made.
    pub(crate) fn lost(&mut self, reason: String) {
        match &mut self.now {
            Some(outage) => {
                outage.attempts += 1;
                if outage.reason == reason {
                    debug!(reason, attempts = outage.attempts, "still not connected");
                } else {
                    warn!(reason, attempts = outage.attempts, "still not connected, for another reason");
                    outage.reason = reason;
                }
            }
            None => {
                warn!(reason, "not connected; trying again until it works");
                self.now = Some(Outage { since: Instant::now(), attempts: 1, reason });
            }
        }
    }
}
