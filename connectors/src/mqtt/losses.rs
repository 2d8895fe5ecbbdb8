//! What the log says of connections that are lost and made: once for each reason, and not at every attempt.

use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::client::{NO_PING, Plan, REFUSED};

/// A connection that lasts shorter has not mended what ended the one before.
const SHORT: Duration = Duration::from_secs(60);

/// Connections that end soon after they were made are told one by one up to this number, and then now and
/// then.
const ONE_BY_ONE: u64 = 3;

/// How often connections that come and go are told.
const NOW_AND_THEN: Duration = Duration::from_secs(600);

/// The connections of one line that were lost.
pub(super) struct Losses {
    host: String,
    port: u16,
    client_id: String,
    outage: Option<Outage>,
    /// connections one after the other that ended soon
    short: u64,
    /// when it was said that they do
    said: Option<Instant>,
}

/// A time without a connection.
struct Outage {
    since: Instant,
    attempts: u64,
    /// the last reason that was logged
    reason: String,
}

impl Losses {
    pub(super) fn new(plan: &Plan) -> Self {
        let (host, port, client_id) = (plan.host.clone(), plan.port, plan.client_id.clone());
        Self { host, port, client_id, outage: None, short: 0, said: None }
    }

    /// A connection is made.
    pub(super) fn connected(&mut self, session_present: bool) {
        let Some(outage) = self.outage.take() else { return info!(session_present, "connected") };
        let (attempts, down_s) = (outage.attempts, outage.since.elapsed().as_secs());
        if self.comes_and_goes() {
            return debug!(attempts, down_s, session_present, "connected again");
        }
        info!(attempts, down_s, session_present, "connected again");
    }

    /// A connection was lost after it had been up for so long, or could not be made.
    pub(super) fn lost(&mut self, reason: String, up: Option<Duration>) {
        // A line that falls silent, and a broker that is not there meanwhile, are outages: no client id is to
        // blame.
        let ended_soon = up.is_some_and(|up| up < SHORT) && reason != NO_PING;
        self.short = if ended_soon { self.short + 1 } else { 0 };
        let known = self.outage.as_ref().is_some_and(|outage| outage.reason == reason);
        if reason.starts_with(REFUSED) && !known {
            error!(
                reason,
                host = self.host,
                port = self.port,
                "not connected, and a person is needed; trying again until it works"
            );
        }
        match &mut self.outage {
            Some(outage) => {
                outage.attempts += 1;
                if known || reason.starts_with(REFUSED) {
                    debug!(reason, attempts = outage.attempts, "still not connected");
                } else {
                    warn!(reason, attempts = outage.attempts, "still not connected, for another reason");
                }
                outage.reason = reason;
            }
            None => {
                if self.comes_and_goes() {
                    self.say_that_it_comes_and_goes(&reason);
                } else if !reason.starts_with(REFUSED) {
                    warn!(
                        reason,
                        host = self.host,
                        port = self.port,
                        "not connected; trying again until it works"
                    );
                }
                self.outage = Some(Outage { since: Instant::now(), attempts: 1, reason });
            }
        }
    }

    fn comes_and_goes(&self) -> bool {
        self.short > ONE_BY_ONE
    }

    fn say_that_it_comes_and_goes(&mut self, reason: &str) {
        if self.said.is_some_and(|said| said.elapsed() < NOW_AND_THEN) {
            return debug!(reason, times = self.short, "lost again");
        }
        self.said = Some(Instant::now());
        warn!(
            reason,
            times = self.short,
            client_id = self.client_id,
            "the connection is lost soon after it was made, again and again: does another client use this \
            client_id (two boxes with one name), or is a message larger than the broker takes?"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses() -> Losses {
        Losses { host: "h".into(), port: 1883, client_id: "box".into(), outage: None, short: 0, said: None }
    }

    /// So many connections that are made and lost after a second.
    fn lose(losses: &mut Losses, times: u64, reason: &str) {
        for _ in 0..times {
            losses.connected(true);
            losses.lost(reason.to_owned(), Some(Duration::from_secs(1)));
        }
    }

    #[test]
    fn connections_that_are_closed_soon_come_and_go() {
        let mut losses = losses();
        lose(&mut losses, ONE_BY_ONE, "the broker closed the connection");
        assert!(!losses.comes_and_goes());
        lose(&mut losses, 1, "the broker closed the connection");
        assert!(losses.comes_and_goes());
    }

    #[test]
    fn a_line_that_falls_silent_and_a_broker_that_is_away_are_outages() {
        let mut silent = losses();
        lose(&mut silent, 2 * ONE_BY_ONE, NO_PING);
        assert!(!silent.comes_and_goes());
        let mut away = losses();
        for _ in 0..2 * ONE_BY_ONE {
            lose(&mut away, 1, "the broker closed the connection");
            away.lost("nobody listens".into(), None);
        }
        assert!(!away.comes_and_goes());
    }
}
