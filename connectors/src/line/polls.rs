//! What is asked again and again on one line: when, of which device, and what the log has about it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::parking::{ParkConfig, Parking, Turn};
use super::schedule::Schedule;
use crate::status::{Counter, LineStatus};

/// When the log has another reason why a device cannot be read for the first time, and how often at last: each
/// time it waits twice as long.
const SAY_AFTER: Duration = Duration::from_secs(10);
const SAY_EVERY: Duration = Duration::from_hours(1);

/// Why nothing is read of a device that is left alone.
pub(crate) const LEFT_ALONE: &str = "the device did not answer and is left alone for a while (`park`)";

/// Values of one stream that are asked for at once.
#[derive(Debug)]
pub(crate) struct Poll<K> {
    /// its place among the streams
    pub(crate) stream: usize,
    /// the stream's
    pub(crate) name: Arc<str>,
    pub(crate) device: K,
    pub(crate) every: Duration,
}

/// An outage of a poll.
#[derive(Debug, Clone)]
struct Said {
    fault: String,
    at: Instant,
    /// how long another fault is not said
    pause: Duration,
}

impl Said {
    fn new(fault: &str, at: Instant) -> Self {
        Self { fault: fault.to_owned(), at, pause: SAY_AFTER }
    }

    /// Whether another fault is to be said now.
    fn is_news(&self, fault: &str, now: Instant) -> bool {
        // That a device is left alone follows from what was said of it.
        fault != self.fault && fault != LEFT_ALONE && self.at + self.pause <= now
    }
}

/// The polls of one line, by their places.
#[derive(Debug)]
pub(crate) struct Polls<K> {
    polls: Vec<Poll<K>>,
    /// what the log has about each
    said: Vec<Option<Said>>,
    schedule: Schedule,
    pub(crate) parking: Parking<K>,
    overruns: Arc<Counter>,
}

impl<K: Ord + Display + Clone> Polls<K> {
    /// For the line of this name.
    pub(crate) fn new(line: &str, polls: Vec<Poll<K>>, park: ParkConfig, status: &Arc<LineStatus>) -> Self {
        Self {
            said: vec![None; polls.len()],
            schedule: Schedule::new(line, polls.iter().map(|poll| poll.every)),
            polls,
            parking: Parking::new(park, Arc::clone(status)),
            overruns: status.counter("overruns"),
        }
    }

    /// Asking begins now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.schedule.begin(now);
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.schedule.next_due()
    }

    /// The one that has been due for longest.
    pub(crate) fn due(&self, now: Instant) -> Option<usize> {
        self.schedule.due(now)
    }

    /// When it was, or is, due.
    pub(crate) fn due_since(&self, place: usize) -> Option<Instant> {
        self.schedule.due_since(place)
    }

    /// Whose place among the streams it has.
    pub(crate) fn stream(&self, place: usize) -> Option<usize> {
        self.polls.get(place).map(|poll| poll.stream)
    }

    /// Whether its device is to be asked.
    pub(crate) fn turn(&self, place: usize, now: Instant) -> Turn {
        self.polls.get(place).map_or(Turn::Leave, |poll| self.parking.turn(&poll.device, now))
    }

    /// Its device has answered, or not at all.
    pub(crate) fn settle(&mut self, place: usize, answered: bool, now: Instant) {
        if let Some(poll) = self.polls.get(place) {
            self.parking.settle(poll.device.clone(), answered, now);
        }
    }

    /// It is over, or begun where several may be under way, and due again at the next moment of its rhythm.
    pub(crate) fn done(&mut self, place: usize, now: Instant) {
        self.overruns.add(self.schedule.done(place, now).into());
    }

    /// It was due while the line was down, when nothing could be asked and nothing was too slow.
    pub(crate) fn passed_by(&mut self, place: usize, now: Instant) {
        self.schedule.done(place, now);
    }

    /// It was due while the one before was under way.
    pub(crate) fn overrun(&self) {
        self.overruns.add(1);
    }

    /// Says what is new: why not all values were read, or that they are read again.
    pub(crate) fn say(&mut self, place: usize, fault: Option<&str>, now: Instant) {
        let (Some(poll), Some(said)) = (self.polls.get(place), self.said.get_mut(place)) else { return };
        let Poll { name: stream, device, .. } = poll;
        match (fault, &said) {
            (None, None) => return,
            (Some(fault), Some(said)) if !said.is_news(fault, now) => return,
            (Some(fault), _) => warn!(%stream, %device, fault, "values could not be read and are null"),
            (None, Some(_)) => info!(%stream, %device, "all values are read again"),
        }
        let pause = said.as_ref().map_or(SAY_AFTER, |said| SAY_EVERY.min(2 * said.pause));
        *said = fault.map(|fault| Said { pause, ..Said::new(fault, now) });
    }

    /// What the line suffers from is said of the line, and not of its devices.
    pub(crate) fn said_of_the_line(&mut self, place: usize, fault: &str, now: Instant) {
        if let Some(said) = self.said.get_mut(place) {
            let pause = said.as_ref().map_or(SAY_AFTER, |said| said.pause);
            *said = Some(Said { pause, ..Said::new(fault, now) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_of_a_device_is_said_once_and_then_rarely() {
        let start = Instant::now();
        let mut said = Said::new("no answer within 300ms", start);
        let at = |s| start + Duration::from_secs(s);
        assert!(!said.is_news(LEFT_ALONE, at(60)) && !said.is_news("no answer within 300ms", at(60)));
        assert!(!said.is_news("no answer, though bytes came", at(9)));
        assert!(said.is_news("no answer, though bytes came", at(10)));
        said.pause = SAY_EVERY;
        assert!(!said.is_news("no answer, though bytes came", at(3_599)));
    }

    #[test]
    fn what_is_due_while_the_line_is_down_is_no_overrun() {
        let status = Arc::<LineStatus>::default();
        let every = Duration::from_millis(100);
        let poll = Poll { stream: 0, name: "s".into(), device: 1, every };
        let mut polls = Polls::new("line", vec![poll], ParkConfig::default(), &status);
        let start = Instant::now();
        polls.begin(start);
        polls.passed_by(0, start + Duration::from_secs(60));
        assert_eq!(status.count("overruns"), 0);
        polls.done(0, start + Duration::from_secs(70));
        assert!(status.count("overruns") > 90);
    }
}
