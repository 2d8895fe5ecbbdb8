//! Which filters the broker has granted.
//!
//! A subscription exists when SUBACK says so (MQTT 5.0, section 3.8.4), filter by filter: a line may break
//! between the question and the answer, and then the broker has the session without the subscription. So each
//! connection begins with asking for all of them, which changes nothing where they are in force; what is
//! refused is asked for again after a pause, on the same connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::client::{Answer, Filter};
use super::config::{Qos, Retained};
use crate::line::backoff::Backoff;
use crate::status::LineStatus;

struct Subscription {
    filter: Filter,
    granted: bool,
    /// the refusal that was logged
    refusal: Option<String>,
    /// A lower QoS was granted, and that was logged.
    lowered: bool,
}

/// The filters of one connection.
pub(super) struct Subscriptions {
    all: Vec<Subscription>,
    /// The places of the filters in the SUBSCRIBE that is under way, and when it was sent.
    asked: Option<(Vec<usize>, Instant)>,
    /// When what was refused is asked for again.
    again: Option<Instant>,
    backoff: Backoff,
    status: Arc<LineStatus>,
}

impl Subscriptions {
    pub(super) fn new(backoff: Backoff, status: Arc<LineStatus>) -> Self {
        Self { all: Vec::new(), asked: None, again: None, backoff, status }
    }

    /// Adds what a stream needs. Streams that share a filter share its subscription, of which a broker keeps
    /// one.
    pub(super) fn add(&mut self, topic: &str, qos: Qos, retained: Retained) {
        if let Some(known) = self.all.iter_mut().find(|known| known.filter.topic == topic) {
            known.filter.qos = known.filter.qos.max(qos);
            known.filter.retained |= retained != Retained::Never;
            return;
        }
        let filter = Filter { topic: topic.to_owned(), qos, retained: retained != Retained::Never };
        self.all.push(Subscription { filter, granted: false, refusal: None, lowered: false });
    }

    /// A connection is made.
    pub(super) fn connected(&mut self) {
        self.all.iter_mut().for_each(|one| one.granted = false);
        (self.asked, self.again) = (None, None);
        self.count();
    }

    /// What has to be asked for now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<Filter>> {
        if self.asked.is_some() || self.again.is_some_and(|again| now < again) {
            return None;
        }
        let open: Vec<usize> =
            self.all.iter().enumerate().filter(|(_, one)| !one.granted).map(|(at, _)| at).collect();
        if open.is_empty() {
            return None;
        }
        let filters = open.iter().filter_map(|at| self.all.get(*at)).map(|one| one.filter.clone()).collect();
        (self.asked, self.again) = (Some((open, now)), None);
        Some(filters)
    }

    /// When something is due; the pause is over, or the broker has let `patience` pass without an answer.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        self.asked.as_ref().map(|(_, since)| *since + patience).or(self.again)
    }

    /// Whether the broker has left SUBSCRIBE without an answer for `patience`.
    pub(super) fn is_unanswered(&self, now: Instant, patience: Duration) -> bool {
        self.asked.as_ref().is_some_and(|(_, since)| now >= *since + patience)
    }

    /// The broker has answered, filter by filter.
    pub(super) fn answered(&mut self, answers: Vec<Answer>, now: Instant) {
        let Some((asked, _)) = self.asked.take() else { return };
        for (at, answer) in asked.into_iter().zip(answers) {
            let Some(one) = self.all.get_mut(at) else { continue };
            match answer {
                Answer::Granted(qos) => one.is_granted(qos),
                Answer::Refused(reason) => {
                    self.status.counter("subscriptions_refused").add(1);
                    one.is_refused(reason);
                }
            }
        }
        if self.all.iter().any(|one| !one.granted) {
            self.again = Some(now + self.backoff.pause());
        } else {
            self.backoff.succeeded();
        }
        self.count();
    }

    /// Whether all are granted.
    pub(super) fn are_granted(&self) -> bool {
        self.all.iter().all(|one| one.granted)
    }

    fn count(&self) {
        let granted = self.all.iter().filter(|one| one.granted).count();
        self.status.gauge("subscriptions").set(granted as u64);
    }
}

impl Subscription {
    fn is_granted(&mut self, qos: Qos) {
        self.granted = true;
        let filter = &self.filter.topic;
        if self.refusal.take().is_some() {
            info!(filter, "the broker grants the subscription now");
        }
        if qos >= self.filter.qos {
            self.lowered = false;
        } else if !std::mem::replace(&mut self.lowered, true) {
            warn!(
                filter,
                asked = self.filter.qos as u8,
                granted = qos as u8,
                "the broker grants a lower QoS: messages are lost when the line breaks or the box crashes; \
                let the broker grant QoS 1"
            );
        }
    }

    fn is_refused(&mut self, reason: String) {
        let filter = &self.filter.topic;
        if self.refusal.as_ref() == Some(&reason) {
            return debug!(filter, reason, "the broker still refuses the subscription");
        }
        error!(
            filter,
            reason,
            "the broker refused a subscription: its streams stay empty; it is asked for again until it is \
            granted"
        );
        self.refusal = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);
    const PATIENCE: Duration = Duration::from_secs(60);

    fn subscriptions() -> (Subscriptions, Arc<LineStatus>) {
        let status = Arc::new(LineStatus::default());
        let mut all = Subscriptions::new(Backoff::new(PAUSE, PAUSE), Arc::clone(&status));
        all.add("a/+", Qos::AtMostOnce, Retained::Never);
        all.add("b", Qos::AtLeastOnce, Retained::First);
        all.add("a/+", Qos::AtLeastOnce, Retained::Always);
        all.connected();
        (all, status)
    }

    fn topics(filters: Option<Vec<Filter>>) -> Vec<String> {
        filters.unwrap_or_default().into_iter().map(|filter| filter.topic).collect()
    }

    #[test]
    fn what_was_refused_is_asked_for_again_after_a_pause_and_nothing_else() {
        let ((mut all, status), now) = (subscriptions(), Instant::now());
        assert_eq!(topics(all.due(now)), ["a/+", "b"], "one filter once");
        assert_eq!(topics(all.due(now)), [""; 0], "one question at a time");
        all.answered(vec![Answer::Granted(Qos::AtLeastOnce), Answer::Refused("quota".into())], now);
        assert_eq!((status.count("subscriptions"), status.count("subscriptions_refused")), (1, 1));
        assert_eq!(topics(all.due(now)), [""; 0]);
        assert_eq!(all.deadline(PATIENCE), Some(now + PAUSE));
        assert_eq!(topics(all.due(now + PAUSE)), ["b"]);
        all.answered(vec![Answer::Granted(Qos::AtMostOnce)], now);
        assert_eq!(status.count("subscriptions"), 2);
        assert_eq!((topics(all.due(now + 2 * PAUSE)), all.deadline(PATIENCE)), (Vec::new(), None));
    }

    #[test]
    fn a_question_without_an_answer_counts_for_nothing() {
        let ((mut all, _), now) = (subscriptions(), Instant::now());
        assert_eq!(topics(all.due(now)), ["a/+", "b"]);
        assert_eq!(all.deadline(PATIENCE), Some(now + PATIENCE));
        assert!(!all.is_unanswered(now, PATIENCE) && all.is_unanswered(now + PATIENCE, PATIENCE));
        all.connected();
        assert_eq!(topics(all.due(now)), ["a/+", "b"]);
    }

    #[test]
    fn streams_that_share_a_filter_get_what_both_need() {
        let ((mut all, _), now) = (subscriptions(), Instant::now());
        let filters = all.due(now).unwrap();
        let shared = filters.iter().find(|filter| filter.topic == "a/+").unwrap();
        assert_eq!((shared.qos, shared.retained), (Qos::AtLeastOnce, true));
    }
}
