//! What is polled, when, and what becomes of it: everything about the streams of a connection but the line.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tidegate_core::Clock;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_modbus::{Request, Response};
use tracing::{debug, error, info, warn};

use super::config::ParkConfig;
use super::fault::Fault;
use super::plan::{self, Read};
use super::points::{Point, Raw, Table, Value};
use super::rows::Rows;
use crate::quality::Quality;
use crate::status::{Intake, LineStatus};
use crate::{Inlet, LineNews};

/// Rows that wait for an engine that does not take them. Then rows are dropped, and counted.
const HELD_ROWS: usize = 8_192;

/// How often the log has another reason why a device cannot be read.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// One device, and one map of it.
pub(super) struct Poll {
    /// its place among the streams
    pub(super) stream: usize,
    pub(super) device: Option<Arc<str>>,
    pub(super) unit: u8,
    pub(super) timeout: Duration,
    pub(super) every: Duration,
    pub(super) points: Arc<[Point]>,
    pub(super) reads: Vec<Read>,
    /// when it is due
    pub(super) due: Instant,
    /// By how much the second poll is later than its rhythm, and with it all others: see [`lag`].
    pub(super) lag: Duration,
    /// what the log has about it, and since when
    pub(super) said: Option<(String, Instant)>,
}

impl Poll {
    /// Says what is new about a device.
    fn say(&mut self, stream: Option<&str>, fault: Option<&String>, now: Instant) {
        let (unit, device) = (self.unit, self.device.as_deref());
        match (fault, &self.said) {
            (None, None) => return,
            (Some(fault), Some((said, at))) if fault == said || now < *at + SAY_EVERY => return,
            (Some(fault), _) => warn!(stream, device, unit, fault, "values could not be read and are null"),
            (None, Some(_)) => info!(stream, device, unit, "all values are read again"),
        }
        self.said = fault.map(|fault| (fault.clone(), now));
    }
}

/// What has been read in one poll.
pub(super) struct Reading {
    values: Vec<Value>,
    answers: usize,
    faults: Vec<String>,
    alive: Option<bool>,
}

impl Reading {
    pub(super) fn new(poll: &Poll) -> Self {
        Self { values: vec![Value::Null; poll.points.len()], answers: 0, faults: Vec::new(), alive: None }
    }

    pub(super) fn failed(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// A request gave nothing.
    pub(super) fn refused(&mut self, read: &Read, fault: &Fault) {
        self.failed(format!("{}: {fault}", read.span));
        if fault.is_silence() {
            self.alive = self.alive.or(Some(false));
        } else if matches!(fault, Fault::Exception(_)) {
            self.alive = Some(true);
        } else if fault.ends_connection() && *fault != Fault::ClosedBefore {
            // One device must not take the line from the others again and again.
            self.alive = self.alive.or(Some(false));
        }
    }

    /// Whether the unit was heard of; none: nobody knows.
    pub(super) fn alive(&self) -> Option<bool> {
        self.alive
    }

    pub(super) fn has_answers(&self) -> bool {
        self.answers > 0
    }

    fn quality(&self) -> Quality {
        match (self.answers, self.faults.is_empty()) {
            (0, false) => Quality::Bad,
            (_, false) => Quality::Uncertain,
            (_, true) => Quality::Good,
        }
    }

    fn fault(&self) -> Option<String> {
        match self.faults.as_slice() {
            [] => None,
            [fault] => Some(fault.clone()),
            [fault, others @ ..] => Some(format!("{fault} (and {} more)", others.len())),
        }
    }
}

/// How many timeouts lie between two writes that try a unit which is left alone.
const TRY_EVERY: u32 = 4;

/// A stream of the connection.
pub(super) struct Stream {
    pub(super) rows: Rows,
    pub(super) intake: Arc<Intake>,
}

/// A device by its unit id.
#[derive(Debug, Default)]
struct Unit {
    /// polls without an answer, one after the other
    failures: u32,
    parked_until: Option<Instant>,
    /// when a write has tried it last while it is left alone
    tried: Option<Instant>,
}

/// Whether a unit is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// as often as is useful
    Ask,
    /// once, to see whether it is back
    Try,
    /// not yet
    Leave,
}

/// The streams of one connection.
pub(super) struct Polls {
    polls: Vec<Poll>,
    streams: Vec<Stream>,
    units: BTreeMap<u8, Unit>,
    park: ParkConfig,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
    inlet: Option<Inlet>,
    asked: watch::Receiver<i64>,
    held: usize,
    /// not told yet
    news: Option<LineNews>,
    /// whether the line was said to listen
    listens: bool,
    /// the newest time of the sequence for which it was said that it does
    heard: i64,
    heard_at: Instant,
}

impl Polls {
    pub(super) fn new(
        polls: Vec<Poll>,
        streams: Vec<Stream>,
        park: ParkConfig,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Self {
        let inlet = Inlet::nowhere();
        Self {
            polls,
            streams,
            units: BTreeMap::new(),
            park,
            clock,
            status,
            asked: inlet.asked,
            inlet: None,
            held: 0,
            news: None,
            listens: false,
            heard: i64::MIN,
            heard_at: Instant::now(),
        }
    }

    /// Polling begins now. Streams of one interval are spread over it, so that a line with many devices does
    /// not burst.
    pub(super) fn begin(&mut self, inlet: Inlet, now: Instant) {
        self.asked = inlet.asked.clone();
        self.inlet = Some(inlet);
        let phases = phases(&self.polls.iter().map(|poll| poll.every).collect::<Vec<_>>());
        for (poll, phase) in self.polls.iter_mut().zip(phases) {
            poll.due = now + phase;
        }
    }

    /// Nothing is polled any more.
    pub(super) fn end(&mut self) {
        self.hand_over();
        self.inlet = None;
        let dropped = std::mem::take(&mut self.held);
        crate::status::add(&self.status.dropped, dropped);
    }

    pub(super) fn is_open(&self) -> bool {
        self.inlet.is_some()
    }

    /// The engine's end, if something waits for room in it.
    pub(super) fn waiting(&self) -> Option<&Inlet> {
        self.inlet.as_ref().filter(|_| self.held > 0 || self.news.is_some())
    }

    pub(super) fn asked(&mut self) -> &mut watch::Receiver<i64> {
        &mut self.asked
    }

    /// When the next poll is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.inlet.as_ref()?;
        self.polls.iter().map(|poll| poll.due).min()
    }

    /// The poll that has been due for longest.
    pub(super) fn due(&self, now: Instant) -> Option<usize> {
        self.inlet.as_ref()?;
        let due = self.polls.iter().enumerate().filter(|(_, poll)| poll.due <= now);
        due.min_by_key(|(_, poll)| poll.due).map(|(index, _)| index)
    }

    pub(super) fn poll(&self, index: usize) -> Option<&Poll> {
        self.polls.get(index)
    }

    /// Whether the unit of a poll is to be asked.
    pub(super) fn turn(&self, unit: u8, now: Instant) -> Turn {
        match self.units.get(&unit).and_then(|unit| unit.parked_until) {
            None => Turn::Ask,
            Some(until) if until <= now => Turn::Try,
            Some(_) => Turn::Leave,
        }
    }

    /// Whether a write may take the line for the unit. One that is left alone is tried now and then, since a
    /// command matters more than a value, and not each time, since it would hold up the others.
    pub(super) fn may_write(&mut self, unit: u8, timeout: Duration, now: Instant) -> bool {
        let Some(state) = self.units.get_mut(&unit).filter(|state| state.parked_until.is_some()) else {
            return true;
        };
        let is_early = state.tried.is_some_and(|tried| now < tried + TRY_EVERY * timeout);
        if !is_early {
            state.tried = Some(now);
        }
        !is_early
    }

    /// Takes the values out of an answer.
    pub(super) fn decode(&mut self, index: usize, read: &Read, raw: Raw<'_>, reading: &mut Reading) {
        let Some(poll) = self.polls.get(index) else { return };
        reading.answers += 1;
        reading.alive = Some(true);
        for (place, offset) in &read.points {
            let Some(point) = poll.points.get(*place) else { continue };
            let part = raw.part(*offset, usize::from(point.count));
            let value = part.map_or_else(|| Err("the answer is too short".into()), |part| point.decode(part));
            match value {
                Ok(value) => {
                    if let Some(place) = reading.values.get_mut(*place) {
                        *place = value;
                    }
                }
                Err(why) => {
                    reading.failed(format!("{point}: {why}"));
                    self.status.wrong_type.add(1);
                    if let Some(stream) = self.streams.get(poll.stream) {
                        stream.intake.misfits.add(1);
                    }
                }
            }
        }
    }

    /// A device refuses a part of what was asked for at once: from now on each point is asked for by itself,
    /// so that one that does not exist costs no other.
    pub(super) fn take_apart(&mut self, index: usize, read: &Read) {
        let Some(poll) = self.polls.get_mut(index) else { return };
        let Some(at) = poll.reads.iter().position(|other| other.span == read.span) else { return };
        let each = plan::apart(read, &poll.points);
        warn!(
            unit = poll.unit,
            asked = %read.span,
            "the device refuses a part of what is asked for at once: from now on its points are read one by \
            one; correct the one that does not exist, or lower `max_registers` or `gap`"
        );
        poll.reads.splice(at..=at, each);
    }

    /// The unit of a poll has answered, or not at all.
    pub(super) fn settle_unit(&mut self, unit: u8, answered: bool, now: Instant) {
        let state = self.units.entry(unit).or_default();
        if answered {
            state.failures = 0;
            if state.parked_until.take().is_some() {
                info!(unit, "the unit answers again");
            }
        } else {
            state.failures = state.failures.saturating_add(1);
            if state.failures >= self.park.after.get() {
                if state.parked_until.replace(now + self.park.time.0).is_none() {
                    warn!(
                        unit,
                        polls = state.failures,
                        again_in = %self.park.time,
                        "the unit does not answer and is left alone, so that it does not hold up the others"
                    );
                } else {
                    debug!(unit, "the unit does not answer yet");
                }
            }
        }
        let parked = self.units.iter().filter(|(_, state)| state.parked_until.is_some());
        self.status.leaves_alone(parked.map(|(unit, _)| *unit).collect());
    }

    /// A poll is over: makes a row of it, and says when the next one is due.
    pub(super) fn finish(&mut self, index: usize, reading: &Reading, now: Instant) {
        let Some(poll) = self.polls.get_mut(index) else { return };
        let fault = reading.fault();
        let stream = self.streams.get(poll.stream).map(|stream| Arc::clone(stream.rows.stream()));
        poll.say(stream.as_deref(), fault.as_ref(), now);
        if let Some(stream) = self.streams.get_mut(poll.stream)
            && (reading.has_answers() || stream.rows.tell_quality())
        {
            if self.held < HELD_ROWS {
                let device = poll.device.as_deref();
                stream.rows.append(
                    self.clock.wall_ns(),
                    device,
                    &reading.values,
                    reading.quality(),
                    fault.as_deref(),
                );
                self.held += 1;
                self.status.rows.add(1);
            } else {
                if self.status.dropped.get() == 0 {
                    error!(
                        "the engine is behind and rows are dropped: lighten the rules, or poll less often"
                    );
                }
                self.status.dropped.add(1);
            }
        }
        self.put_off(index, now);
    }

    /// Says when a poll is due again: at the next moment of its own rhythm.
    fn put_off(&mut self, index: usize, now: Instant) {
        let Some(poll) = self.polls.get_mut(index) else { return };
        let missed = missed(poll.due, poll.every, now);
        poll.due += poll.every.saturating_mul(missed.saturating_add(1)) + std::mem::take(&mut poll.lag);
        self.status.overruns.add(u64::from(missed));
    }

    /// The polls that are due while nobody can be asked.
    pub(super) fn pass_by(&mut self, reason: &str, now: Instant) {
        while let Some(index) = self.due(now) {
            let Some(poll) = self.polls.get(index) else { return };
            let mut reading = Reading::new(poll);
            reading.failed(reason.to_owned());
            // What the line suffers from is said of the line.
            if let Some(poll) = self.polls.get_mut(index) {
                poll.said = Some((reason.to_owned(), now));
            }
            self.finish(index, &reading, now);
        }
    }

    /// The line is up, and what comes from now on is new.
    pub(super) fn begins(&mut self) {
        self.heard_at = Instant::now();
        if !std::mem::replace(&mut self.listens, true) {
            self.news = Some(LineNews::Begins);
        }
    }

    /// A device has answered what it was asked after the line was asked at `asked`.
    pub(super) fn heard(&mut self, asked: i64) {
        self.heard_at = Instant::now();
        if self.listens && asked > self.heard && self.news.is_none() {
            self.heard = asked;
            self.news = Some(LineNews::Heard { asked });
        }
    }

    /// The line is down.
    pub(super) fn ends(&mut self) {
        if std::mem::take(&mut self.listens) {
            self.news = Some(LineNews::Ends { heard: self.heard_at });
        }
    }

    /// Hands rows to the engine as long as it has room, and then the news of the line.
    pub(super) fn hand_over(&mut self) {
        let Some(inlet) = &self.inlet else { return };
        for stream in &mut self.streams {
            if stream.rows.is_empty() {
                continue;
            }
            let Ok(permit) = inlet.queue.try_reserve() else { return };
            if let Some(batch) = stream.rows.finish() {
                self.held = self.held.saturating_sub(batch.rows.num_rows());
                permit.send(crate::Intake::Rows(batch));
            }
        }
        if let Some(news) = self.news
            && let Ok(permit) = inlet.queue.try_reserve()
        {
            permit.send(inlet.news(news));
            self.news = None;
        }
    }
}

/// The request for a span.
pub(super) fn request(read: &Read) -> Request<'static> {
    let (address, count) = (read.span.address, read.span.count);
    match read.span.table {
        Table::Coil => Request::ReadCoils(address, count),
        Table::Discrete => Request::ReadDiscreteInputs(address, count),
        Table::Input => Request::ReadInputRegisters(address, count),
        Table::Holding => Request::ReadHoldingRegisters(address, count),
    }
}

/// What an answer to a read has in it.
pub(super) fn raw(response: &Response) -> Result<Raw<'_>, Fault> {
    match response {
        Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => Ok(Raw::Bits(bits)),
        Response::ReadHoldingRegisters(registers) | Response::ReadInputRegisters(registers) => {
            Ok(Raw::Registers(registers))
        }
        _ => Err(Fault::Garbled("it answers another question".into())),
    }
}

/// When each poll comes first: those of one interval are spread over it.
fn phases(intervals: &[Duration]) -> Vec<Duration> {
    let mut seen: BTreeMap<Duration, u32> = BTreeMap::new();
    intervals
        .iter()
        .map(|every| {
            let all = intervals.iter().filter(|other| *other == every).count();
            let before = seen.entry(*every).or_default();
            let phase = *every * *before / u32::try_from(all).unwrap_or(u32::MAX).max(1);
            *before += 1;
            phase
        })
        .collect()
}

/// How much later than others the line has its rhythm, by its name, so that many lines do not ask at the same
/// moment. The first value comes at once.
pub(super) fn lag(line: &str, every: Duration) -> Duration {
    let mut hasher = SipHasher13::new();
    hasher.write(line.as_bytes());
    let thousandths = u32::try_from(hasher.finish() % 1_000).unwrap_or_default();
    every.min(Duration::from_secs(1)) * thousandths / 1_000
}

/// How many times a poll was due again before it was over.
fn missed(due: Instant, every: Duration, now: Instant) -> u32 {
    let late = now.saturating_duration_since(due);
    u32::try_from(late.as_nanos() / every.as_nanos().max(1)).unwrap_or(u32::MAX)
}

/// Why nothing is read of a unit that is left alone.
pub(super) const LEFT_ALONE: &str = "the unit did not answer and is left alone for a while (`park`)";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn polls_of_one_interval_are_spread_over_it() {
        let ms = Duration::from_millis;
        let first = phases(&[ms(1_000), ms(1_000), ms(300), ms(1_000), ms(1_000)]);
        assert_eq!(first, [ms(0), ms(250), ms(0), ms(500), ms(750)]);
    }

    #[test]
    fn lines_of_one_interval_do_not_ask_at_the_same_moment() {
        let every = Duration::from_millis(100);
        let lags: BTreeSet<Duration> = (0..20).map(|n| lag(&format!("press_{n}"), every)).collect();
        assert!(lags.len() > 15 && lags.iter().all(|lag| *lag < every), "{lags:?}");
        assert!(lag("press_1", Duration::from_hours(1)) < Duration::from_secs(1));
    }

    #[test]
    fn a_poll_that_is_late_keeps_its_rhythm_and_what_it_missed_is_counted() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let second = Duration::from_secs(1);
        assert_eq!(missed(at(0), second, at(0)), 0);
        assert_eq!(missed(at(0), second, at(999)), 0);
        assert_eq!(missed(at(0), second, at(1_000)), 1);
        assert_eq!(missed(at(0), second, at(3_500)), 3);
    }
}
