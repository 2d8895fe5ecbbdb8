//! Whether the line listens: it is up, and what the broker had kept for the box is read. Only then it is
//! silence when nothing comes.
//!
//! MQTT has no mark behind the messages that a broker has queued. So the broker is asked for an answer when
//! nothing is unacknowledged: it takes packets in order, so that what it still had would come before the
//! answer. A line on which messages never stop has no such moment. There the queue counts as read after
//! [`READ_WITHIN`]: it is a queue, so that what comes is in order, and a stream that is behind others is not
//! behind time.
//!
//! A broker that hangs, or a line that loses packets, looks like a quiet one. So an answer that has taken
//! much longer than the line takes proves nothing: what was sent meanwhile may still be on its way, and it is
//! read first, as after a new connection.

use std::time::Duration;

use tokio::time::Instant;

use crate::LineNews;

/// How long the end of a queue, or of what is unacknowledged, is waited for on a line on which messages never
/// stop.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// How much later than it may be expected an answer may come, for a broker that is busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many times as long as the first answer of a connection another may take.
const ROUND_TRIPS: u32 = 3;

/// Of one connection after the other.
#[derive(Debug)]
pub(super) struct Listening {
    state: State,
    /// not told yet
    news: Option<LineNews>,
    /// the newest time of the sequence at which it was asked that needs no answer any more
    answered: i64,
    /// when the broker said anything last
    heard: Instant,
    /// since when it has not been possible to ask, and whether that is long
    held_up: Option<(Instant, bool)>,
    /// how long the first answer of this connection took
    round_trip: Duration,
    question: Option<Question>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    /// What the broker had kept may still come.
    Reading {
        since: Instant,
    },
    Listening,
}

/// A question to the broker that has no answer yet.
#[derive(Debug)]
struct Question {
    sent: Instant,
    /// the sequence's time at which it was asked for. `None`: nobody did, it is the end of the queue that is
    /// looked for
    asked: Option<i64>,
    /// whether messages have come since
    disturbed: bool,
}

impl Listening {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Down,
            news: None,
            answered: i64::MIN,
            heard: now,
            held_up: None,
            round_trip: Duration::ZERO,
            question: None,
        }
    }

    /// A connection is made, and the broker has answered its subscriptions. What it refuses is asked for
    /// again, and answered again: that begins nothing.
    pub(super) fn connected(&mut self, now: Instant) {
        if self.state != State::Down {
            return;
        }
        (self.state, self.heard, self.question) = (State::Reading { since: now }, now, None);
    }

    /// The broker has said something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// It was a message.
    pub(super) fn message(&mut self) {
        if let Some(question) = &mut self.question {
            question.disturbed = true;
        }
    }

    /// Whether the broker is to be asked now, when nothing else is to be read, `unacknowledged` messages
    /// wait, and the line was last asked at `asked`.
    pub(super) fn wants_to_ask(&self, unacknowledged: usize, asked: i64) -> bool {
        self.question.is_none()
            && match self.state {
                State::Down => false,
                State::Reading { .. } => unacknowledged == 0,
                // Behind what is not acknowledged more may wait.
                State::Listening => {
                    asked > self.answered
                        && (unacknowledged == 0 || self.held_up.is_some_and(|(_, long)| long))
                }
            }
    }

    /// The broker was asked.
    pub(super) fn asks(&mut self, asked: i64, now: Instant) {
        let asked = (self.state == State::Listening).then_some(asked);
        (self.question, self.held_up) = (Some(Question { sent: now, asked, disturbed: false }), None);
    }

    /// The broker has answered. `asked` is when the line was last asked, in the sequence's time.
    pub(super) fn answered(&mut self, asked: i64, now: Instant) {
        let Some(question) = self.question.take() else { return };
        let took = now.saturating_duration_since(question.sent);
        match (self.state, question.asked) {
            (State::Reading { .. }, _) if !question.disturbed => {
                self.round_trip = took;
                self.begin(asked);
            }
            (State::Listening, Some(at)) if took <= PATIENCE + ROUND_TRIPS * self.round_trip => {
                self.answered = at;
                self.news = Some(LineNews::Heard { asked: at });
            }
            (State::Listening, Some(_)) => self.state = State::Reading { since: now },
            _ => {}
        }
    }

    /// When it is not waited for any longer that messages stop.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            // A broker that leaves a question open may hang: then nothing is read.
            State::Reading { since } => self.question.is_none().then_some(since + READ_WITHIN),
            State::Listening => self.held_up.filter(|(_, long)| !long).map(|(since, _)| since + READ_WITHIN),
            State::Down => None,
        }
    }

    /// Looks at the time, and at when the line was last asked.
    pub(super) fn look(&mut self, asked: i64, now: Instant) {
        if self.state == State::Listening
            && self.question.is_none()
            && asked > self.answered
            && self.held_up.is_none()
        {
            self.held_up = Some((now, false));
        }
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.state {
            State::Reading { .. } => self.begin(asked),
            _ => self.held_up = self.held_up.map(|(since, _)| (since, true)),
        }
    }

    /// What was asked before is settled by that: no silence is older.
    fn begin(&mut self, asked: i64) {
        (self.state, self.answered, self.news) = (State::Listening, asked, Some(LineNews::Begins));
        self.held_up = None;
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self) {
        let before = std::mem::replace(&mut self.state, State::Down);
        (self.question, self.held_up) = (None, None);
        if before != State::Down {
            // Also while it is read anew, it was listened to before.
            self.news = Some(LineNews::Ends { heard: self.heard });
        }
    }

    /// What is to be told behind the rows that were read.
    pub(super) fn news(&self) -> Option<LineNews> {
        self.news
    }

    /// It was told.
    pub(super) fn told(&mut self) {
        self.news = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So long after the connection was made.
    struct Line {
        listening: Listening,
        began: Instant,
    }

    impl Line {
        fn new() -> Self {
            let began = Instant::now();
            let mut listening = Listening::new(began);
            assert!(!listening.wants_to_ask(0, 5), "there is no connection");
            listening.connected(began);
            Self { listening, began }
        }

        /// One that listens, whose answers take 20 ms.
        fn listening() -> Self {
            let mut line = Self::new();
            assert!(line.listening.wants_to_ask(0, i64::MIN));
            line.listening.asks(i64::MIN, line.at(0));
            line.listening.answered(i64::MIN, line.at(20));
            assert_eq!(line.news(), Some(LineNews::Begins));
            line
        }

        fn at(&self, ms: u64) -> Instant {
            self.began + Duration::from_millis(ms)
        }

        fn news(&mut self) -> Option<LineNews> {
            let news = self.listening.news();
            self.listening.told();
            news
        }
    }

    #[test]
    fn it_listens_when_an_answer_comes_with_no_message_before_it() {
        let mut line = Line::new();
        assert!(!line.listening.wants_to_ask(3, 5), "the broker may wait for acknowledgements");
        line.listening.asks(5, line.at(0));
        line.listening.message();
        line.listening.answered(5, line.at(1));
        assert_eq!(line.news(), None, "more may come");
        assert!(line.listening.wants_to_ask(0, 5));
        line.listening.asks(5, line.at(1));
        line.listening.answered(5, line.at(2));
        assert_eq!(line.news(), Some(LineNews::Begins));
        assert!(!line.listening.wants_to_ask(0, 5), "no silence is older than its beginning");
    }

    #[test]
    fn a_line_that_is_never_quiet_is_read_after_a_while() {
        let mut line = Line::new();
        line.listening.look(0, line.at(9_999));
        assert_eq!(line.news(), None);
        line.listening.asks(0, line.at(9_999));
        line.listening.message();
        line.listening.look(0, line.at(20_000));
        assert_eq!((line.news(), line.listening.deadline()), (None, None), "it may hang");
        line.listening.answered(0, line.at(20_000));
        line.listening.look(0, line.at(20_000));
        assert_eq!((line.news(), line.listening.deadline()), (Some(LineNews::Begins), None));
    }

    #[test]
    fn an_answer_that_comes_late_proves_nothing() {
        let mut line = Line::listening();
        line.listening.asks(100, line.at(1_000));
        assert!(!line.listening.wants_to_ask(0, 100), "it is asked once");
        line.listening.answered(100, line.at(1_900));
        assert_eq!(line.news(), Some(LineNews::Heard { asked: 100 }));
        line.listening.asks(200, line.at(2_000));
        line.listening.answered(200, line.at(22_000));
        assert_eq!(line.news(), None, "what was sent meanwhile may still come");
        assert!(line.listening.wants_to_ask(0, 200));
        line.listening.asks(200, line.at(22_000));
        line.listening.answered(200, line.at(22_020));
        assert_eq!(line.news(), Some(LineNews::Begins));
        assert!(!line.listening.wants_to_ask(0, 200));
    }

    #[test]
    fn what_is_not_acknowledged_is_waited_for_but_not_for_ever() {
        let mut line = Line::listening();
        line.listening.look(100, line.at(1_000));
        assert!(!line.listening.wants_to_ask(7, 100), "the broker may hold back what comes behind");
        assert!(line.listening.wants_to_ask(0, 100));
        line.listening.look(100, line.at(10_999));
        assert!(!line.listening.wants_to_ask(7, 100));
        line.listening.look(100, line.at(11_000));
        assert!(line.listening.wants_to_ask(7, 100) && line.listening.deadline().is_none());
    }

    #[test]
    fn a_slow_line_may_take_longer() {
        let mut line = Line::new();
        line.listening.asks(0, line.at(0));
        line.listening.answered(0, line.at(3_000));
        line.news();
        line.listening.asks(1, line.at(60_000));
        line.listening.answered(1, line.at(70_000));
        assert_eq!(line.news(), Some(LineNews::Heard { asked: 1 }));
    }

    #[test]
    fn a_lost_line_says_when_it_was_last_heard() {
        let mut line = Line::listening();
        line.listening.heard(line.at(3_000));
        line.listening.asks(1, line.at(4_000));
        line.listening.lost();
        assert_eq!(line.news(), Some(LineNews::Ends { heard: line.at(3_000) }));
        line.listening.lost();
        assert_eq!(line.news(), None, "an attempt that fails is no news");
        assert!(!line.listening.wants_to_ask(0, 2));
    }
}
