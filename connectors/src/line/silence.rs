//! What comes by itself, and when it is stale: nothing came for too long, or the line went. That is said and
//! counted once, and over when something comes again.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Span;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::status::{Counter, LineStatus};

/// How long something has not come.
#[derive(Debug)]
pub(crate) struct Silence {
    stream: Arc<str>,
    /// in words, before how long it has been so
    what: String,
    /// none: it is stale only when the line is gone
    limit: Option<Duration>,
    since: Instant,
    is_stale: bool,
    counter: Arc<Counter>,
}

impl Silence {
    /// `what`: "nothing has come".
    pub(crate) fn new(stream: Arc<str>, what: String, limit: Option<Duration>, status: &LineStatus) -> Self {
        let (since, counter) = (Instant::now(), status.counter("stale"));
        Self { stream, what, limit, since, is_stale: false, counter }
    }

    /// The line is up: what has not come until now is not late.
    pub(crate) fn begins(&mut self, now: Instant) {
        self.since = now;
    }

    pub(crate) fn came(&mut self, now: Instant) {
        self.since = now;
        if std::mem::take(&mut self.is_stale) {
            info!(stream = %self.stream, "it comes again");
        }
    }

    /// When it becomes stale.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.limit.filter(|_| !self.is_stale).map(|limit| self.since + limit)
    }

    /// Why it is stale, when it has become so. `down`: that the line is gone, and why.
    pub(crate) fn becomes_stale(&mut self, now: Instant, down: Option<&str>) -> Option<String> {
        let is_late = self.due().is_some_and(|due| due <= now);
        if self.is_stale || !is_late && down.is_none() {
            return None;
        }
        self.is_stale = true;
        self.counter.add(1);
        // What the line suffers from is said of the line.
        if let Some(down) = down {
            return Some(down.to_owned());
        }
        let fault = format!("{} for {}", self.what, Span(self.limit.unwrap_or_default()));
        warn!(stream = %self.stream, fault, "it does not come any more");
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stale_once_until_something_comes_again() {
        let status = LineStatus::default();
        let limit = Duration::from_millis(50);
        let mut silence = Silence::new("scale".into(), "nothing has come".into(), Some(limit), &status);
        let start = Instant::now();
        silence.begins(start);
        assert_eq!(silence.becomes_stale(start, None), None);
        let late = start + limit;
        assert_eq!(silence.becomes_stale(late, None).as_deref(), Some("nothing has come for 50ms"));
        assert_eq!(silence.becomes_stale(late, Some("not connected")), None);
        silence.begins(late);
        assert_eq!((silence.becomes_stale(late + limit, None), silence.due()), (None, None));
        silence.came(late);
        assert_eq!(silence.becomes_stale(late, Some("not connected")).as_deref(), Some("not connected"));
        assert_eq!(status.count("stale"), 2);
    }

    #[test]
    fn without_a_limit_only_the_loss_of_the_line_makes_it_stale() {
        let mut silence = Silence::new("scale".into(), String::new(), None, &LineStatus::default());
        let later = Instant::now() + Duration::from_hours(1);
        assert_eq!((silence.due(), silence.becomes_stale(later, None)), (None, None));
        assert!(silence.becomes_stale(later, Some("not connected")).is_some());
    }
}
