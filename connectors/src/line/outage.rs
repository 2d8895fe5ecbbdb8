//! What the log says of a line that is lost and comes back: once for each reason, and not at every attempt.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

/// A time without a connection.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    now: Option<Outage>,
    connected_before: bool,
    /// the outage before that was said
    said: Option<Said>,
}

/// A line that is lost again and again for one reason.
#[derive(Debug)]
struct Said {
    reason: String,
    at: Instant,
    /// how long it is not said again
    pause: Duration,
}

/// After how long a line that was lost once more for the same reason is said; each time it waits twice as long.
const SAY_AFTER: Duration = Duration::from_secs(10);
const SAY_EVERY: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct Outage {
    since: Instant,
    attempts: u64,
    /// the last reason that was logged
    reason: String,
    /// whether nothing was said of it: it is one more of many
    is_quiet: bool,
}

impl Outages {
    /// The line is there. Whether it was there before and lost.
    pub(crate) fn connected(&mut self) -> bool {
        let again = std::mem::replace(&mut self.connected_before, true);
        match self.now.take() {
            Some(Outage { is_quiet: true, attempts, .. }) => debug!(attempts, "connected again"),
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
                    (outage.reason, outage.is_quiet) = (reason, false);
                }
            }
            None => {
                let now = Instant::now();
                let is_quiet = !self.is_news(&reason, now);
                if is_quiet {
                    debug!(reason, "not connected, once more");
                } else {
                    warn!(reason, "not connected; trying again until it works");
                }
                self.now = Some(Outage { since: now, attempts: 1, reason, is_quiet });
            }
        }
    }

    /// Whether an outage is to be said: one that is as the last one only now and then.
    fn is_news(&mut self, reason: &str, now: Instant) -> bool {
        let mut pause = SAY_AFTER;
        if let Some(said) = self.said.as_ref().filter(|said| said.reason == reason) {
            if now < said.at + said.pause {
                return false;
            }
            pause = SAY_EVERY.min(2 * said.pause);
        }
        self.said = Some(Said { reason: reason.to_owned(), at: now, pause });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_lost_again_and_again_for_one_reason_is_said_more_and_more_rarely() {
        let (mut outages, start) = (Outages::default(), Instant::now());
        let said: Vec<u64> =
            (0..100).filter(|s| outages.is_news("silent", start + Duration::from_secs(*s))).collect();
        assert_eq!(said, [0, 10, 30, 70]);
        assert!(outages.is_news("unplugged", start + Duration::from_secs(71)), "another reason is news");
        let late = start + Duration::from_secs(90);
        assert!(outages.is_news("unplugged", late));
    }
}
