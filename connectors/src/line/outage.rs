//! What the log says of a line that is lost and comes back: each reason once, and then more and more rarely,
//! and not at every attempt.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

/// A time without a connection.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    now: Option<Outage>,
    connected_before: bool,
    said: Option<Said>,
}

/// What was said, also of outages before this one.
#[derive(Debug)]
struct Said {
    reasons: Vec<String>,
    at: Instant,
    /// how long none of them is said again
    pause: Duration,
}

/// After how long a reason that was said before is said again; each time it waits twice as long.
const SAY_AFTER: Duration = Duration::from_secs(10);
const SAY_EVERY: Duration = Duration::from_hours(1);

/// Reasons that are said as soon as they come; in more there is something that changes each time.
const REASONS: usize = 8;

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
                if outage.reason == reason || !is_news(&mut self.said, &reason, Instant::now()) {
                    debug!(reason, attempts = outage.attempts, "still not connected");
                } else {
                    warn!(reason, attempts = outage.attempts, "still not connected, for another reason");
                    (outage.reason, outage.is_quiet) = (reason, false);
                }
            }
            None => {
                let now = Instant::now();
                let is_quiet = !is_news(&mut self.said, &reason, now);
                if is_quiet {
                    debug!(reason, "not connected, once more");
                } else {
                    warn!(reason, "not connected; trying again until it works");
                }
                self.now = Some(Outage { since: now, attempts: 1, reason, is_quiet });
            }
        }
    }
}

/// Whether a reason is to be said: one that was said before only now and then.
fn is_news(said: &mut Option<Said>, reason: &str, now: Instant) -> bool {
    let Some(said) = said else {
        *said = Some(Said { reasons: vec![reason.to_owned()], at: now, pause: SAY_AFTER });
        return true;
    };
    let is_new = said.reasons.len() < REASONS && !said.reasons.iter().any(|known| known == reason);
    if is_new {
        said.reasons.push(reason.to_owned());
        said.pause = SAY_AFTER;
    } else if now >= said.at + said.pause {
        said.pause = SAY_EVERY.min(2 * said.pause);
    } else {
        return false;
    }
    said.at = now;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a reason is said, in seconds, where there is one each second.
    fn said(seconds: u64, reason: impl Fn(u64) -> String) -> Vec<u64> {
        let (mut said, start) = (None, Instant::now());
        let is_news = |s: &u64| is_news(&mut said, &reason(*s), start + Duration::from_secs(*s));
        (0..seconds).filter(is_news).collect()
    }

    #[test]
    fn a_line_that_is_lost_again_and_again_for_one_reason_is_said_more_and_more_rarely() {
        assert_eq!(said(100, |_| "silent".into()), [0, 10, 30, 70]);
        let unplugged = |s| if s < 71 { "silent".into() } else { "unplugged".into() };
        assert_eq!(said(100, unplugged), [0, 10, 30, 70, 71, 81], "another reason is news");
    }

    #[test]
    fn reasons_that_take_turns_are_said_once_each_and_then_no_more_often_than_one() {
        let turns = |s| if s % 2 == 0 { "refused".into() } else { "silent".into() };
        assert_eq!(said(100, turns), [0, 1, 11, 31, 71]);
        assert_eq!(said(100, |s| format!("port {s}")), [0, 1, 2, 3, 4, 5, 6, 7, 17, 37, 77]);
    }
}
