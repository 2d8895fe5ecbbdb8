//! What is asked again and again on one line: when, of which device, and what the log has about it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::parking::{ParkConfig, Parking, Turn};
use super::schedule::Schedule;
use crate::status::{Counter, LineStatus};

/// How often the log has another reason why a device cannot be read.
const SAY_EVERY: Duration = Duration::from_secs(10);

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

/// The polls of one line, by their places.
#[derive(Debug)]
pub(crate) struct Polls<K> {
    polls: Vec<Poll<K>>,
    /// what the log has about each, and since when
    said: Vec<Option<(String, Instant)>>,
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
            (Some(fault), Some((said, at))) if fault == said || now < *at + SAY_EVERY => return,
            (Some(fault), _) => warn!(%stream, %device, fault, "values could not be read and are null"),
            (None, Some(_)) => info!(%stream, %device, "all values are read again"),
        }
        *said = fault.map(|fault| (fault.to_owned(), now));
    }

    /// What the line suffers from is said of the line, and not of its devices.
    pub(crate) fn said_of_the_line(&mut self, place: usize, fault: &str, now: Instant) {
        if let Some(said) = self.said.get_mut(place) {
            *said = Some((fault.to_owned(), now));
        }
    }
}
