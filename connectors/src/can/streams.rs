//! Which frames give which rows: everything about the streams of a connection but the bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use socketcan::{CanError, CanErrorFrame};
use tidegate_core::{Clock, Sampler};
use tokio::time::Instant;
use tracing::warn;

use super::bus::Received;
use super::database::Database;
use super::filter;
use super::frame::Frame;
use super::id::{Id, IdRange, J1939Id};
use super::message::{Format, Message};
use super::polls::{Answer, Asker, Polls, Question};
use super::reception::{Reception, has_source};
use super::signal::{self, Absent};
use super::transport::{Reassembly, TP_CM, TP_DT, Transferred};
use crate::hex::excerpt;
use crate::line::handover::HandOver;
use crate::line::parking::ParkConfig;
use crate::line::silence::Silence;
use crate::quality::Quality;
use crate::rows::{Rows, Value};
use crate::status::{Counter, Intake, LineStatus};

/// How many times its cycle a message may be late.
const LATE_CYCLES: u32 = 3;

/// A stream before it runs.
pub(super) struct Setup {
    pub(super) rows: Rows,
    pub(super) reception: Reception,
    pub(super) labels: bool,
    pub(super) stale_after: Option<Duration>,
    pub(super) intake: Arc<Intake>,
}

/// The streams of one connection.
pub(super) struct Streams {
    messages: Messages,
    database: Arc<Database>,
    frames: Vec<(Vec<IdRange>, usize)>,
    groups: Vec<Group>,
    errors: Vec<usize>,
    polls: Polls,
    clock: Arc<dyn Clock>,
    transport: Transport,
    out: Out,
}

/// Messages of J1939 that come in several frames.
struct Transport {
    reassembly: Reassembly,
    since: Instant,
    lost: Arc<Counter>,
    told: u64,
    sampler: Sampler,
}

/// Where rows go, and what is told of them.
struct Out {
    rows: HandOver<Rows>,
    intakes: Vec<Arc<Intake>>,
    misfits: Sampler,
    status: Arc<LineStatus>,
    /// the values of a row, kept for the next one
    values: Vec<Value>,
}

/// A parameter group as it comes.
struct Group {
    pgn: u32,
    source: Option<u8>,
    stream: usize,
}

/// Messages that some stream wants.
#[derive(Default)]
struct Messages {
    all: Vec<Wanted>,
    by_id: HashMap<Id, Vec<usize>>,
    by_pgn: HashMap<u32, Vec<usize>>,
}

/// A message that a stream wants.
struct Wanted {
    stream: usize,
    name: Arc<str>,
    message: Arc<Message>,
    /// which of its signals have a row each; none: they are the columns
    tall: Option<Vec<usize>>,
    labels: bool,
    source: Option<u8>,
    silence: Silence,
}

impl Streams {
    /// Those of a line; nodes are asked on `interface`.
    pub(super) fn new(
        line: &str,
        interface: &str,
        setups: Vec<Setup>,
        database: Arc<Database>,
        park: ParkConfig,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Self {
        let mut messages = Messages::default();
        let (mut rows, mut frames, mut groups, mut errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut intakes, mut asked) = (Vec::new(), Vec::new());
        for (stream, setup) in setups.into_iter().enumerate() {
            let name = Arc::clone(setup.rows.stream());
            let mut want = |message: Arc<Message>, tall, source| {
                let limit = setup.stale_after.or(message.cycle.map(|cycle| cycle * LATE_CYCLES));
                let what = format!("{} has not come", message.name);
                let silence = Silence::new(Arc::clone(&name), what, limit, &status);
                let (name, labels) = (Arc::clone(&name), setup.labels);
                messages.add(Wanted { stream, name, message, tall, labels, source, silence });
            };
            match setup.reception {
                Reception::Message { message, source } => want(message, None, source),
                Reception::Signals(chosen) => {
                    chosen.into_iter().for_each(|(message, signals)| want(message, Some(signals), None));
                }
                Reception::Frames(ranges) => frames.push((ranges, stream)),
                Reception::Group { pgn, source } => groups.push(Group { pgn, source, stream }),
                Reception::Errors => errors.push(stream),
                Reception::Asked(of) => {
                    let intake = Arc::clone(&setup.intake);
                    asked.push((Asker { stream, name, intake }, of));
                }
            }
            intakes.push(setup.intake);
            rows.push(setup.rows);
        }
        let polls = Polls::new(line, interface, asked, park, Arc::clone(&status));
        let out = Out {
            rows: HandOver::new(rows, Arc::clone(&status)),
            intakes,
            misfits: Sampler::default(),
            status,
            values: Vec::new(),
        };
        let transport = Transport {
            reassembly: Reassembly::default(),
            since: Instant::now(),
            lost: out.status.counter("transfers_lost"),
            told: 0,
            sampler: Sampler::default(),
        };
        Self { messages, database, frames, groups, errors, polls, clock, transport, out }
    }

    /// What the kernel has to let through, as id and mask, with the frames of outputs that are `sent`.
    pub(super) fn filters(&self, sent: &[Id]) -> Vec<(u32, u32)> {
        let ranges =
            self.frames.iter().flat_map(|(ranges, _)| ranges).map(|range| filter::Wanted::Ids(*range));
        let group = |pgn, source| filter::Wanted::Group { pgn, source };
        let groups = self.groups.iter().map(|of| group(of.pgn, of.source));
        let messages = self.messages.all.iter().map(|wanted| match wanted.group() {
            Some(id) => group(id.pgn, wanted.source),
            None => filter::Wanted::Ids(wanted.message.id.into()),
        });
        let sent = sent.iter().map(|id| filter::Wanted::Ids((*id).into()));
        let mut wanted: Vec<filter::Wanted> = ranges.chain(groups).chain(messages).chain(sent).collect();
        // Any group may come in parts.
        for part in 0..wanted.len() {
            if let Some(filter::Wanted::Group { source, .. }) = wanted.get(part).copied() {
                wanted.extend([group(TP_CM, source), group(TP_DT, source)]);
            }
        }
        filter::filters(&wanted).list.iter().map(|filter| (filter.id, filter.mask)).collect()
    }

    /// Whether error frames are wanted.
    pub(super) fn want_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn rows(&mut self) -> &mut HandOver<Rows> {
        &mut self.out.rows
    }

    pub(super) fn is_open(&self) -> bool {
        self.out.rows.is_open()
    }

    /// Reading begins.
    pub(super) fn open(&mut self, inlet: crate::Inlet) {
        self.polls.begin(Instant::now());
        self.out.rows.open(inlet);
    }

    /// The next question that is due.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Question> {
        if self.is_open() { self.polls.ask(self.clock.wall_ns(), now, &mut self.out.rows) } else { None }
    }

    /// Takes the values out of an answer.
    pub(super) fn take_answer(&mut self, answer: Answer) {
        self.polls.take(answer, self.clock.wall_ns(), Instant::now(), &mut self.out.rows);
    }

    /// The bus is there: what has not come until now is not late.
    pub(super) fn begins(&mut self) {
        let now = Instant::now();
        self.messages.all.iter_mut().for_each(|wanted| wanted.silence.begins(now));
        self.out.rows.begins();
    }

    /// A frame has come.
    pub(super) fn take(&mut self, received: &Received) {
        if !self.is_open() {
            return;
        }
        let at = if received.at == 0 { self.clock.wall_ns() } else { received.at };
        let Some(id) = received.frame.id() else { return self.take_error(at, &received.frame) };
        let has_it = |ranges: &[IdRange]| ranges.iter().any(|range| range.contains(id));
        for (_, stream) in self.frames.iter().filter(|(ranges, _)| has_it(ranges)) {
            let values = raw_values(id, &received.frame);
            self.out.rows.add(*stream, |rows| rows.append(at, &values, Quality::Good, None));
        }
        if let Frame::Data { data, .. } | Frame::Fd { data, .. } = &received.frame {
            self.take_data(at, id, data);
        }
    }

    fn take_data(&mut self, at: i64, id: Id, data: &[u8]) {
        let Self { messages, out, .. } = self;
        let of_id = messages.by_id.get(&id).map(Vec::as_slice).unwrap_or_default();
        for place in of_id {
            let Some(wanted) = messages.all.get_mut(*place) else { continue };
            wanted.take(at, None, data, out);
        }
        let wants_groups = !self.groups.is_empty() || !self.messages.by_pgn.is_empty();
        let Some(id) = J1939Id::parse(id).filter(|_| wants_groups) else { return };
        self.take_group(at, id, data);
        if let Some(transferred) = self.transport.take(id, data) {
            self.take_group(at, transferred.id, &transferred.data);
        }
    }

    /// A frame of J1939, or what its transport protocol has put together.
    fn take_group(&mut self, at: i64, id: J1939Id, data: &[u8]) {
        let Self { messages, database, groups, out, .. } = self;
        let is_from = |source: Option<u8>| source.is_none_or(|source| source == id.source);
        for group in groups.iter().filter(|group| group.pgn == id.pgn && is_from(group.source)) {
            let values = group_values(id, data);
            out.rows.add(group.stream, |rows| rows.append(at, &values, Quality::Good, None));
        }
        let of_group = messages.by_pgn.get(&id.pgn).map(Vec::as_slice).unwrap_or_default();
        let meant = database.by_pgn(id.pgn, id.source).map(|message| message.id);
        for place in of_group {
            let Some(wanted) = messages.all.get_mut(*place) else { continue };
            // Of several messages of the group the database knows which one is the source's.
            let is_meant = wanted.source.is_some() || meant == Some(wanted.message.id);
            if !is_from(wanted.source) || !is_meant {
                continue;
            }
            wanted.take(at, Some(id.source), data, out);
        }
    }

    fn take_error(&mut self, at: i64, frame: &Frame) {
        let Frame::Error { class, data } = frame else { return };
        for stream in &self.errors {
            let values = error_values(*class, data);
            self.out.rows.add(*stream, |rows| rows.append(at, &values, Quality::Good, None));
        }
    }

    /// When the next message is late, or the next question due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let late = self.messages.all.iter().filter_map(|wanted| wanted.silence.due());
        late.chain(self.polls.next_due()).min().filter(|_| self.is_open())
    }

    /// Tells which messages have become stale. `down`: that the bus is away, and why.
    pub(super) fn pass(&mut self, now: Instant, down: Option<&str>) {
        if !self.is_open() {
            return;
        }
        let Self { messages, polls, clock, out, .. } = self;
        if let Some(down) = down {
            polls.pass_by(down, clock.wall_ns(), now, &mut out.rows);
        }
        for wanted in &mut messages.all {
            let Wanted { stream, message, tall, silence, .. } = wanted;
            let Some(fault) = silence.becomes_stale(now, down) else { continue };
            if !out.rows.stream(*stream).is_some_and(|rows| rows.tell_quality()) {
                continue;
            }
            let ts = clock.wall_ns();
            out.rows.add(*stream, |rows| {
                let Some(signals) = tall else { return rows.append(ts, [], Quality::Stale, Some(&fault)) };
                for signal in signals.iter().filter_map(|place| message.signals.get(*place)) {
                    let values = tall_values(message, signal, Value::Null, None);
                    rows.append(ts, &values, Quality::Stale, Some(&fault));
                }
            });
        }
    }
}

impl Transport {
    fn take(&mut self, id: J1939Id, data: &[u8]) -> Option<Transferred> {
        let transferred = self.reassembly.take(id, data, self.since.elapsed());
        let losses = self.reassembly.losses();
        let new = losses.total() - std::mem::replace(&mut self.told, losses.total());
        if new > 0 {
            self.lost.add(new);
            if let Some(count) = self.sampler.count(new) {
                warn!(count, ?losses, "messages in several frames were not heard to their end");
            }
        }
        transferred
    }
}

impl Messages {
    fn add(&mut self, wanted: Wanted) {
        let place = self.all.len();
        match wanted.group() {
            Some(id) => self.by_pgn.entry(id.pgn).or_default().push(place),
            None => self.by_id.entry(wanted.message.id).or_default().push(place),
        }
        self.all.push(wanted);
    }
}

impl Wanted {
    /// What its id says, if it is a parameter group.
    fn group(&self) -> Option<J1939Id> {
        J1939Id::parse(self.message.id).filter(|_| self.message.format == Format::J1939)
    }

    fn take(&mut self, at: i64, source: Option<u8>, data: &[u8], out: &mut Out) {
        let Out { rows, intakes, misfits, status, values } = out;
        self.silence.came(Instant::now());
        let mut faults = Faults::default();
        let decoded = self.message.decode(data);
        values.clear();
        match &self.tall {
            None => {
                if has_source(&self.message, self.source) {
                    values.push(source.map_or(Value::Null, |source| Value::Int(source.into())));
                }
                for place in 0..self.message.signals.len() {
                    let value = decoded.value(place, self.labels);
                    let value = value.map_or_else(|absent| faults.note(place, absent), owned);
                    faults.has_values |= value != Value::Null;
                    let signal = self.message.signals.get(place);
                    // What has no label in a column of labels is its number.
                    let is_label = self.labels && signal.is_some_and(|of| !of.labels().is_empty());
                    values.push(if is_label { as_text(value) } else { value });
                }
                let (quality, fault) = faults.verdict(&self.message);
                rows.add(self.stream, |rows| rows.append(at, &*values, quality, fault.as_deref()));
            }
            Some(signals) => rows.add(self.stream, |rows| {
                for place in signals {
                    let Some(signal) = self.message.signals.get(*place) else { continue };
                    let mut own = Faults::default();
                    let value = match decoded.value(*place, false) {
                        Err(Absent::Multiplexed) => continue,
                        Ok(value) => number(value),
                        Err(absent) => own.note(*place, absent),
                    };
                    let label = decoded.raw(*place).ok().and_then(|raw| signal.label(raw));
                    let values = tall_values(&self.message, signal, value, label);
                    let (quality, fault) = own.verdict(&self.message);
                    rows.append(at, &values, quality, fault.as_deref());
                    faults.join(own);
                }
            }),
        }
        if faults.count == 0 {
            return;
        }
        status.wrong_type.add(faults.count);
        if let Some(intake) = intakes.get(self.stream) {
            intake.misfits.add(faults.count);
        }
        if let Some(count) = misfits.count(faults.count) {
            let (_, fault) = faults.verdict(&self.message);
            let (stream, frame, data) = (&self.name, &self.message.name, excerpt(data));
            warn!(%stream, %frame, count, fault, data, "values that could not be read are null");
        }
    }
}

/// What could not be read of a frame.
#[derive(Default)]
struct Faults {
    count: u64,
    first: Option<(usize, Absent)>,
    /// whether something else could be read
    has_values: bool,
}

impl Faults {
    fn note(&mut self, place: usize, absent: Absent) -> Value {
        // That a multiplexed signal is not in this frame is how it should be.
        if absent != Absent::Multiplexed {
            self.count += 1;
            self.first.get_or_insert((place, absent));
        }
        Value::Null
    }

    fn join(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.or(other.first);
    }

    fn verdict(&self, message: &Message) -> (Quality, Option<String>) {
        let Some((place, absent)) = self.first else { return (Quality::Good, None) };
        let name = message.signals.get(place).map_or("", |signal| &signal.name);
        let more = if self.count > 1 { format!(" (and {} more)", self.count - 1) } else { String::new() };
        let quality = if self.has_values { Quality::Uncertain } else { Quality::Bad };
        (quality, Some(format!("{name}: {absent}{more}")))
    }
}

fn owned(value: signal::Value<'_>) -> Value {
    match value {
        signal::Value::Bool(value) => Value::Bool(value),
        signal::Value::Int(value) => Value::Int(value),
        signal::Value::Float(value) => Value::Float(value),
        signal::Value::Text(value) => Value::Text(value.to_owned()),
    }
}

fn as_text(value: Value) -> Value {
    match value {
        Value::Null | Value::Text(_) => value,
        number => Value::Text(number.to_string()),
    }
}

/// Signals of all types in one column.
#[expect(clippy::cast_precision_loss, reason = "the column is a float64, as the manual says")]
fn number(value: signal::Value<'_>) -> Value {
    match value {
        signal::Value::Bool(value) => Value::Float(f64::from(u8::from(value))),
        signal::Value::Int(value) => Value::Float(value as f64),
        signal::Value::Float(value) => Value::Float(value),
        signal::Value::Text(_) => Value::Null,
    }
}

fn tall_values(message: &Message, signal: &signal::Signal, value: Value, label: Option<&str>) -> [Value; 5] {
    let text = |text: &str| if text.is_empty() { Value::Null } else { Value::Text(text.to_owned()) };
    [text(&message.name), text(&signal.name), value, text(label.unwrap_or_default()), text(&signal.unit)]
}

fn raw_values(id: Id, frame: &Frame) -> [Value; 6] {
    let (fd, remote, length, data): (_, _, _, &[u8]) = match frame {
        Frame::Data { data, .. } => (false, false, data.len(), data),
        Frame::Fd { data, .. } => (true, false, data.len(), data),
        Frame::Remote { length, .. } => (false, true, usize::from(*length), &[]),
        Frame::Error { data, .. } => (false, false, data.len(), data),
    };
    [
        Value::Int(id.number().into()),
        Value::Bool(id.is_extended()),
        Value::Bool(fd),
        Value::Bool(remote),
        Value::Int(i64::try_from(length).unwrap_or(i64::MAX)),
        Value::Bytes(data.to_vec()),
    ]
}

fn group_values(id: J1939Id, data: &[u8]) -> [Value; 5] {
    [
        Value::Int(id.pgn.into()),
        Value::Int(id.source.into()),
        id.destination.map_or(Value::Null, |destination| Value::Int(destination.into())),
        Value::Int(id.priority.into()),
        Value::Bytes(data.to_vec()),
    ]
}

/// The class of error frames that have counters in them.
const COUNTERS: u32 = 0x200;

fn error_values(class: u32, data: &[u8; 8]) -> [Value; 5] {
    let text = match CanErrorFrame::new_error(class, data) {
        Ok(frame) => CanError::from(frame).to_string(),
        Err(_) => "unknown".to_owned(),
    };
    let [.., tx, rx] = *data;
    let counter = |count: u8| if class & COUNTERS == 0 { Value::Null } else { Value::Int(count.into()) };
    [Value::Text(text), Value::Int(class.into()), counter(tx), counter(rx), Value::Bytes(data.to_vec())]
}
