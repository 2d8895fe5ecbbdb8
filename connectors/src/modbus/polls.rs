//! What is polled, when, and what becomes of it: everything about the streams of a connection but the line.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Clock;
use tokio::time::Instant;
use tokio_modbus::{Request, Response};
use tracing::warn;

use super::fault::Fault;
use super::plan::{self, Read};
use super::points::{Point, Raw, Table, Value};
use crate::line::handover::HandOver;
use crate::line::parking::ParkConfig;
use crate::line::polls;
use crate::quality::Quality;
use crate::rows::Rows;
use crate::status::{Intake, LineStatus};

/// A device on the line, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit(pub(super) u8);

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit {}", self.0)
    }
}

/// One device, and one map of it.
pub(super) struct Poll {
    /// its place among the streams
    pub(super) stream: usize,
    /// what the column `device` says, if there is one
    pub(super) device: Option<Value>,
    pub(super) unit: Unit,
    pub(super) timeout: Duration,
    pub(super) every: Duration,
    pub(super) points: Arc<[Point]>,
    pub(super) reads: Vec<Read>,
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
        match fault.tells_alive() {
            Some(true) => self.alive = Some(true),
            Some(false) => self.alive = self.alive.or(Some(false)),
            None => {}
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
        if self.faults.is_empty() {
            Quality::Good
        } else if self.values.iter().all(|value| *value == Value::Null) {
            Quality::Bad
        } else {
            Quality::Uncertain
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

/// The streams of one connection.
pub(super) struct Polls {
    polls: Vec<Poll>,
    intakes: Vec<Arc<Intake>>,
    pub(super) asking: polls::Polls<Unit>,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
    pub(super) rows: HandOver<Rows>,
}

impl Polls {
    /// `line`: its name. `intakes`: by the places of the streams.
    pub(super) fn new(
        line: &str,
        polls: Vec<Poll>,
        streams: Vec<(Rows, Arc<Intake>)>,
        park: ParkConfig,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Self {
        let (rows, intakes): (Vec<Rows>, _) = streams.into_iter().unzip();
        let asking = polls.iter().map(|poll| polls::Poll {
            stream: poll.stream,
            name: rows.get(poll.stream).map_or_else(Arc::default, |rows| Arc::clone(rows.stream())),
            device: poll.unit,
            every: poll.every,
        });
        Self {
            asking: polls::Polls::new(line, asking.collect(), park, &status),
            polls,
            intakes,
            clock,
            rows: HandOver::new(rows, Arc::clone(&status)),
            status,
        }
    }

    /// Polling begins now.
    pub(super) fn begin(&mut self, inlet: crate::Inlet, now: Instant) {
        self.rows.open(inlet);
        self.asking.begin(now);
    }

    /// When the next poll is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.asking.next_due().filter(|_| self.rows.is_open())
    }

    /// The poll that has been due for longest.
    pub(super) fn due(&self, now: Instant) -> Option<usize> {
        self.asking.due(now).filter(|_| self.rows.is_open())
    }

    pub(super) fn poll(&self, index: usize) -> Option<&Poll> {
        self.polls.get(index)
    }

    /// Takes the values out of an answer.
    pub(super) fn decode(&mut self, index: usize, read: &Read, raw: Raw<'_>, reading: &mut Reading) {
        let Some(poll) = self.polls.get(index) else { return };
        reading.answers += 1;
        reading.alive = Some(true);
        for (place, offset) in &read.points {
            let Some(point) = poll.points.get(*place) else { continue };
            match point.decode_at(raw, *offset) {
                Ok(value) => {
                    if let Some(place) = reading.values.get_mut(*place) {
                        *place = value;
                    }
                }
                Err(why) => {
                    reading.failed(format!("{point}: {why}"));
                    self.status.wrong_type.add(1);
                    if let Some(intake) = self.intakes.get(poll.stream) {
                        intake.misfits.add(1);
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
            unit = poll.unit.0,
            asked = %read.span,
            "the device refuses a part of what is asked for at once: from now on its points are read one by \
            one; correct the one that does not exist, or lower `max_registers` or `gap`"
        );
        poll.reads.splice(at..=at, each);
    }

    /// A poll is over: makes a row of it, and says when the next one is due.
    pub(super) fn finish(&mut self, index: usize, reading: &Reading, now: Instant) {
        self.tell(index, reading, now);
        self.asking.done(index, now);
    }

    fn tell(&mut self, index: usize, reading: &Reading, now: Instant) {
        let Some(poll) = self.polls.get(index) else { return };
        let fault = reading.fault();
        self.asking.say(index, fault.as_deref(), now);
        if reading.has_answers() || self.rows.stream(poll.stream).is_some_and(|rows| rows.tell_quality()) {
            let ts = self.clock.wall_ns();
            self.rows.add(poll.stream, |rows| {
                let values = poll.device.iter().chain(&reading.values);
                rows.append(ts, values, reading.quality(), fault.as_deref());
            });
        }
    }

    /// The polls that are due while nobody can be asked.
    pub(super) fn pass_by(&mut self, reason: &str, now: Instant) {
        while let Some(index) = self.due(now) {
            let Some(poll) = self.polls.get(index) else { return };
            let mut reading = Reading::new(poll);
            reading.failed(reason.to_owned());
            self.asking.said_of_the_line(index, reason, now);
            self.tell(index, &reading, now);
            self.asking.passed_by(index, now);
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
