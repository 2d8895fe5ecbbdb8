//! What outputs promise, whatever rules say: `docs/outputs.md` is what users are told of it.
//!
//! [`Contracts`] stands beside the rules of a worker, in the sequence: it takes the rows that rules write for
//! outputs with a contract, the rows of streams that interlocks look at, what became of writes, what people
//! want, and the time; and makes of them what is written ([`Order`]), and why ([`Decision`]). It is a
//! deterministic function of these, and does not depend on where batches were cut: within an entry of the
//! sequence all is taken in the order of its numbers, row by row.
//!
//! [`instance`] is one thing that an output moves, [`evaluate`] are the steps from what is wanted to what is
//! sent, [`newest`] are the rows that interlocks and ages are about, [`interlock`] are conditions,
//! [`mod@check`] is what is read back, and [`watch`] what is looked at though nobody has written;
//! [`governed`] brings them together for one output, and [`stored`] is what is kept over a restart.

mod check;
mod evaluate;
mod governed;
pub mod instance;
mod interlock;
mod newest;
mod stored;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use tidegate_core::{FieldType, Rows};

use tidegate_rules::Catalog;

use crate::config::{Config, Contract, ContractKind, Interlock, Stream, Value, Values};
use crate::decision::{Decision, Origin, Outcome};
use crate::status::{OutputStatus, Status};
use crate::system::control::{ControlEvent, ControlKind};
use crate::system::writes::WriteReport;
use crate::system::{connections, control, writes};
use governed::Governed;
use instance::{At, Instance};
use interlock::Interlocked;
pub use newest::{Ages, array, value};
use newest::{Newest, Seen, instance_name, key_of};

/// Something that an output shall do.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// the output
    pub output: Arc<str>,
    /// which of what it moves; empty where there is one
    pub instance: Arc<str>,
    /// the number of the write
    pub write: u64,
    /// whose will it is
    pub by: Origin,
    /// the entry, or the row, that led to it
    pub seq: u64,
    /// the sequence's time
    pub at: i64,
    /// after this time of the sequence it is not sent any more
    pub until: Option<i64>,
    /// whether a newer one takes its place while it waits; otherwise each counts
    pub gives_way: bool,
    /// what
    pub what: What,
}

/// What an output shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Write these, of which `key` says where.
    Write {
        /// the key columns
        key: Values,
        /// what is written
        values: Values,
    },
    /// Read these columns, and say what is there.
    Read {
        /// the columns
        columns: Vec<Arc<str>>,
    },
    /// Say that the device has something else than what was written.
    Differs {
        /// whether it never had what was written, or somebody else has written since
        outcome: Outcome,
        /// what it has
        values: Values,
        /// what is different, in words for people
        reason: String,
    },
    /// Say this of an override.
    Say {
        /// what
        event: ControlEvent,
    },
}

/// What came of an entry of the sequence.
#[derive(Debug, Default)]
pub struct Made {
    /// what outputs shall do, in this order
    pub orders: Vec<Order>,
    /// why
    pub decisions: Vec<Decision>,
}

/// What a rule that writes an output reads for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// the SHA-256 of its source
    pub version: Arc<str>,
    /// 1 is the strongest
    pub rank: u8,
    /// by output, the streams: those of connections, also where there are derived streams between
    pub inputs: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

/// A part of what waits to be taken in the order of numbers.
enum Part {
    Input { stream: Arc<str>, rows: Rows },
    Claims { output: Arc<str>, rule: Arc<str>, rows: Rows, ordinals: Vec<u32> },
}

impl Part {
    /// Whether the box says that it has started.
    fn is_start(&self) -> bool {
        let Self::Input { stream, rows } = self else { return false };
        **stream == *control::NAME
            && ControlEvent::read(&rows.batch).iter().any(|event| event.event == ControlKind::Start)
    }
}

/// The contracts of all outputs that have one.
#[derive(Default)]
pub struct Contracts {
    outputs: BTreeMap<Arc<str>, Governed>,
    /// streams whose rows have to be seen, whatever rules read
    watched: BTreeSet<Arc<str>>,
    writers: BTreeMap<Arc<str>, Writer>,
    newest: Newest,
    ages: Arc<Ages>,
    waiting: Vec<Part>,
    wakes: BTreeSet<(i64, Arc<str>, Arc<str>)>,
    /// the newest time that was seen
    now: i64,
    /// Whether the sequence has said that the box stops.
    is_stopped: bool,
}

/// An output that has a contract.
#[derive(Debug, Clone)]
pub struct Terms {
    /// its name
    pub output: Arc<str>,
    /// what it promises
    pub contract: Contract,
    /// the columns that it takes, with their types; `None`: any
    pub columns: Option<Vec<(String, FieldType)>>,
    /// those without which nothing can be written, as of a frame
    pub required: Vec<String>,
    /// the connection that it writes to
    pub connection: Arc<str>,
    /// where it is told what it does
    pub status: Arc<OutputStatus>,
}

impl Contracts {
    /// They are all on one worker, so that none waits for another: the first.
    pub const WORKER: usize = 0;

    /// Those of `terms`. `columns`: the streams that interlocks may look at, with their columns as far as they
    /// are known, and how old their rows are.
    #[must_use]
    pub fn new(terms: Vec<Terms>, columns: &BTreeMap<String, Option<SchemaRef>>, ages: Ages) -> Self {
        let ages = Arc::new(ages);
        let mut partners: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for Terms { output, contract, .. } in &terms {
            for other in &contract.never_with {
                partners.entry(Arc::clone(output)).or_default().insert(Arc::clone(other));
                partners.entry(Arc::clone(other)).or_default().insert(Arc::clone(output));
            }
        }
        let mut watched: BTreeSet<Arc<str>> =
            [writes::NAME, control::NAME, connections::NAME].map(Arc::from).into();
        let mut outputs = BTreeMap::new();
        for Terms { output, contract, columns: takes, required, connection, status } in terms {
            let new = |terms: &Interlock| Interlocked::new(&terms.when, columns.clone(), Arc::clone(&ages));
            let interlocks: Vec<Interlocked> = contract.interlocks.iter().map(new).collect();
            watched.extend(interlocks.iter().flat_map(Interlocked::streams));
            let from = contract.read_back.iter().flat_map(|read_back| read_back.from.values());
            watched.extend(from.map(|(stream, _)| Arc::clone(stream)));
            let mut instances = BTreeMap::new();
            if contract.key.is_empty() {
                instances.insert(Arc::from(""), Instance::new(Values::new(), interlocks.len()));
            }
            let takes: Option<BTreeMap<Arc<str>, FieldType>> =
                takes.map(|takes| takes.into_iter().map(|(name, kind)| (name.into(), kind)).collect());
            let whole = required.into_iter().map(Arc::from).filter(|column| !contract.key.contains(column));
            let rests = |(name, kind): (&Arc<str>, &FieldType)| {
                let off = [Value::Bool(false), Value::Int(0), Value::Float(0.0)];
                if contract.key.contains(name) {
                    return None;
                }
                Some((Arc::clone(name), off.into_iter().find_map(|off| off.of_type(*kind))?))
            };
            let at_rest = takes.iter().flatten().filter_map(rests).collect();
            let governed = Governed {
                name: Arc::clone(&output),
                whole: whole.collect(),
                contract: Arc::new(contract),
                at_rest,
                columns: takes,
                connection,
                partners: partners.remove(&output).unwrap_or_default().into_iter().collect(),
                interlocks,
                instances,
                line_is_up: true,
                writes: 0,
                decisions: 0,
                writers: BTreeMap::new(),
                refusals: BTreeMap::new(),
                status,
            };
            outputs.insert(output, governed);
        }
        Self { outputs, watched, ages, ..Self::default() }
    }

    /// Outputs and streams that decisions depend on: rules that touch them live on [`Contracts::WORKER`].
    #[must_use]
    pub fn touches(&self) -> BTreeSet<Arc<str>> {
        self.outputs.keys().chain(&self.watched).cloned().collect()
    }

    /// The outputs, each with whether its contract says who wins among rules of one rank.
    #[must_use]
    pub fn ties(&self) -> BTreeMap<Arc<str>, bool> {
        let is_decided = |contract: &Contract| contract.tie.is_some() || contract.kind == ContractKind::Event;
        self.outputs.iter().map(|(name, output)| (Arc::clone(name), is_decided(&output.contract))).collect()
    }

    /// Those of `config`, whose streams have the columns of `catalog`.
    #[must_use]
    pub fn from_config(config: &Config, catalog: &Catalog, status: &Status) -> Self {
        let terms = config.outputs.iter().filter_map(|(name, output)| {
            Some(Terms {
                output: Arc::from(name.as_str()),
                contract: output.contract.clone()?,
                columns: output.config.columns(),
                required: output.config.required_columns(),
                connection: output.config.connection().into(),
                status: status.outputs.of(name),
            })
        });
        let derived = catalog.derived.iter().map(|(name, schema)| (name.clone(), Some(Arc::clone(schema))));
        let columns =
            catalog.inputs.iter().map(|(name, schema)| (name.clone(), schema.clone())).chain(derived);
        let by_arrival = catalog.by_arrival.iter().map(|name| Arc::from(name.as_str())).collect();
        let kept = config.streams.iter().filter_map(|(name, stream)| {
            let Stream::Input(stream) = stream else { return None };
            Some((Arc::from(name.as_str()), Arc::from(stream.kept_column()?)))
        });
        let ages = Ages { by_arrival, kept: kept.collect() };
        Self::new(terms.collect(), &columns.collect(), ages)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Whether `output` has one.
    #[must_use]
    pub fn governs(&self, output: &str) -> bool {
        self.outputs.contains_key(output)
    }

    /// Whether rows of `stream` have to be seen.
    #[must_use]
    pub fn watches(&self, stream: &str) -> bool {
        !self.outputs.is_empty()
            && (self.watched.contains(stream)
                || self
                    .writers
                    .values()
                    .any(|writer| writer.inputs.values().any(|inputs| inputs.contains(stream))))
    }

    /// Rule `rule` runs, and writes outputs.
    pub fn rule_runs(&mut self, rule: &Arc<str>, writer: Writer) {
        let gone: Vec<Arc<str>> = self.writers.get(rule).map_or_else(Vec::new, |before| {
            before.inputs.keys().filter(|output| !writer.inputs.contains_key(*output)).cloned().collect()
        });
        for output in gone {
            self.release(rule, Some(&output), "its new version does not write the output any more");
        }
        for (output, governed) in &mut self.outputs {
            match writer.inputs.get(output) {
                Some(inputs) => {
                    drop(governed.writers.insert(Arc::clone(rule), inputs.iter().cloned().collect()))
                }
                None => drop(governed.writers.remove(rule)),
            }
        }
        self.writers.insert(Arc::clone(rule), writer);
    }

    /// Rule `rule` does not run any more: it claims nothing.
    pub fn rule_is_gone(&mut self, rule: &Arc<str>, because: &str) {
        self.release(rule, None, because);
        self.writers.remove(rule);
    }

    fn release(&mut self, rule: &Arc<str>, only: Option<&Arc<str>>, because: &str) {
        let now = self.now;
        let because = format!("rule {rule} {because}");
        for (output, governed) in &mut self.outputs {
            if only.is_some_and(|only| only != output) {
                continue;
            }
            for (name, instance) in &mut governed.instances {
                if instance.release(rule, now, &because) {
                    // What follows is decided at the next entry, which is a tick if nothing else comes.
                    if let Some(at) = instance.wakes_at.replace(i64::MIN) {
                        self.wakes.remove(&(at, Arc::clone(output), Arc::clone(name)));
                    }
                    self.wakes.insert((i64::MIN, Arc::clone(output), Arc::clone(name)));
                }
            }
        }
    }

    /// Rows of a stream, to be taken with the next [`Contracts::settle`].
    pub fn rows(&mut self, stream: &Arc<str>, rows: &Rows) {
        if self.watches(stream) {
            self.waiting.push(Part::Input { stream: Arc::clone(stream), rows: rows.clone() });
        }
    }

    /// Rows that `rule` wrote for `output`, to be taken with the next [`Contracts::settle`].
    pub fn claims(&mut self, output: &Arc<str>, rule: &Arc<str>, rows: Rows, ordinals: Vec<u32>) {
        let (output, rule) = (Arc::clone(output), Arc::clone(rule));
        self.waiting.push(Part::Claims { output, rule, rows, ordinals });
    }

    /// When something has to be done though nothing comes.
    #[must_use]
    pub fn wakes_at(&self) -> Option<i64> {
        self.wakes.first().map(|(at, ..)| *at)
    }

    /// Takes what has come with the entry `at`: first the time, then row by row.
    pub fn settle(&mut self, at: At) -> Made {
        let mut made = Made::default();
        if self.outputs.is_empty() {
            return made;
        }
        self.now = self.now.max(at.now);
        // At a start nothing is done any more that somebody wanted before it.
        if !self.waiting.iter().any(Part::is_start) {
            self.on_time(at, &mut made);
        }
        let parts = std::mem::take(&mut self.waiting);
        let mut order: Vec<(u64, u8, usize, usize)> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let (rows, rank) = match part {
                Part::Input { rows, .. } => (rows, 0),
                Part::Claims { rows, .. } => (rows, 1),
            };
            order.extend((0..rows.len()).map(|row| (rows.seqs.get(row), rank, index, row)));
        }
        order.sort_unstable();
        let mut next = 0;
        while let Some(&(seq, _, index, row)) = order.get(next) {
            let at = At { seq, ..at };
            match parts.get(index) {
                Some(Part::Input { stream, rows }) => {
                    // Rows that come one after the other are looked at together.
                    let follows = |(place, entry): (usize, &(u64, u8, usize, usize))| {
                        entry.2 == index && entry.3 == row + place
                    };
                    let rest = order.iter().skip(next).enumerate();
                    let len = rest.take_while(|entry| follows(*entry)).count();
                    self.on_rows(stream, &rows.slice(row, len), at, &mut made);
                    next += len;
                }
                Some(Part::Claims { output, rule, rows, ordinals }) => {
                    let ordinal = ordinals.get(row).copied().unwrap_or_default();
                    self.on_claim(output, rule, &rows.batch, row, ordinal, at, &mut made);
                    next += 1;
                }
                None => next += 1,
            }
        }
        made
    }

    /// A part of the box has failed: what stops in good order is told of that in the sequence.
    pub fn stop(&mut self, at: At) -> Made {
        let mut made = Made::default();
        if !self.is_stopped {
            self.outputs.values_mut().for_each(|governed| governed.stop(at, &mut made));
        }
        made
    }

    fn on_time(&mut self, at: At, made: &mut Made) {
        // Something that wants to be looked at again for the same time is looked at with the next entry.
        let later = self.wakes.split_off(&(at.now.saturating_add(1), Arc::from(""), Arc::from("")));
        let due = std::mem::replace(&mut self.wakes, later);
        for (_, output, instance) in due {
            self.look(&output, &instance, at, made);
        }
    }

    fn on_rows(&mut self, stream: &Arc<str>, rows: &Rows, at: At, made: &mut Made) {
        let is_own = matches!(&**stream, writes::NAME | control::NAME | connections::NAME);
        let ages = Arc::clone(&self.ages);
        let seen = |row: usize| Seen {
            row: rows.batch.slice(row, 1),
            seq: rows.seqs.get(row),
            arrived: at.now,
            age_then: ages.age(stream, &rows.batch, row, at.wall_ns),
        };
        let keyed: BTreeSet<Vec<Arc<str>>> =
            self.outputs.values().filter_map(|output| output.key_in(stream, &rows.batch)).collect();
        let looks: Vec<Arc<str>> = self
            .outputs
            .iter()
            .filter(|(_, output)| output.looks_at(stream))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        let Some(last) = rows.len().checked_sub(1) else { return };
        let shows =
            |output: &Arc<str>| self.outputs.get(output).is_some_and(|output| output.is_shown_in(stream));
        if keyed.is_empty() && !is_own && !looks.iter().any(shows) {
            // Together, since nothing else has come in between.
            self.judge(&looks, stream, rows, &seen, at, made);
            self.newest.0.insert((Arc::clone(stream), Arc::from("")), seen(last));
            return;
        }
        for row in 0..rows.len() {
            let (one, at) = (rows.slice(row, 1), At { seq: rows.seqs.get(row), ..at });
            if is_own {
                self.on_own_row(stream, &one.batch, at, made);
            }
            self.newest.0.insert((Arc::clone(stream), Arc::from("")), seen(row));
            for columns in &keyed {
                if let Ok(key) = key_of(columns, &rows.batch, row) {
                    self.newest.see(stream, instance_name(columns, &key), seen(row));
                }
            }
            self.judge(&looks, stream, &one, &|_| seen(row), at, made);
            self.show(&looks, stream, at, made);
        }
    }

    /// A row of a stream in which the box tells of itself.
    fn on_own_row(&mut self, stream: &str, row: &RecordBatch, at: At, made: &mut Made) {
        match stream {
            writes::NAME => {
                WriteReport::read(row).into_iter().for_each(|report| self.on_report(report, at, made));
            }
            control::NAME => {
                ControlEvent::read(row).into_iter().for_each(|event| self.on_event(event, at, made));
            }
            _ => self.on_connection(row, 0, at, made),
        }
    }

    /// Has interlocks of `outputs` look at rows of `stream`, and acts where they turn.
    fn judge(
        &mut self,
        outputs: &[Arc<str>],
        stream: &Arc<str>,
        rows: &Rows,
        seen: &dyn Fn(usize) -> Seen,
        at: At,
        made: &mut Made,
    ) {
        let mut judged = Vec::new();
        for output in outputs {
            let Some(governed) = self.outputs.get_mut(output) else { continue };
            let of_output = governed.judge(stream, rows, &self.newest, at);
            judged.extend(of_output.into_iter().map(|judged| (judged.seq, Arc::clone(output), judged)));
        }
        judged.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (seq, output, judged) in judged {
            let row = judged.row;
            let turned = self.outputs.get_mut(&output).and_then(|governed| governed.note(judged));
            let Some(instance) = turned else { continue };
            // What is decided now is shown with the row that led to it.
            self.newest.0.insert((Arc::clone(stream), Arc::from("")), seen(row));
            self.look(&output, &instance, At { seq, ..at }, made);
        }
    }

    /// Instances are looked at that wait for what `stream` shows, or that do not do any more what they did.
    fn show(&mut self, outputs: &[Arc<str>], stream: &Arc<str>, at: At, made: &mut Made) {
        for output in outputs {
            let Some(governed) = self.outputs.get_mut(output) else { continue };
            let mut concerned = governed.waiting_for(stream);
            concerned.extend(governed.notice(stream, &self.newest, at, made));
            concerned.iter().for_each(|instance| self.look(output, instance, at, made));
        }
    }

    #[allow(clippy::too_many_arguments)] // they are one row
    fn on_claim(
        &mut self,
        output: &Arc<str>,
        rule: &Arc<str>,
        rows: &RecordBatch,
        row: usize,
        ordinal: u32,
        at: At,
        made: &mut Made,
    ) {
        let Some(writer) = self.writers.get(rule) else { return };
        let Some(governed) = self.outputs.get_mut(output) else { return };
        let claimed = governed.claim(rule, writer, rows, row, ordinal, &self.newest, at, made);
        if let Some(instance) = claimed {
            self.look(output, &instance, at, made);
        }
    }

    /// Something became of a write.
    fn on_report(&mut self, report: WriteReport, at: At, made: &mut Made) {
        let (output, instance) = (Arc::clone(&report.output), Arc::clone(&report.instance));
        let Some(governed) = self.outputs.get_mut(&output) else { return };
        if governed.answered(report, at, made) {
            self.look(&output, &instance, at, made);
            self.look_at_partners(&output, &instance, at, made);
        }
    }

    /// A person, or the box itself, says something.
    fn on_event(&mut self, event: ControlEvent, at: At, made: &mut Made) {
        if event.event == ControlKind::Start {
            let is_known = event.off_known.unwrap_or(false);
            self.newest.0.clear();
            self.is_stopped = false;
            let mut all = Vec::new();
            for (output, governed) in &mut self.outputs {
                governed.count_on(event.values.get(output));
                let started = governed.start(at.now, is_known).into_iter();
                all.extend(started.map(|instance| (Arc::clone(output), instance)));
            }
            all.iter().for_each(|(output, instance)| self.look(output, instance, at, made));
            return;
        }
        if event.event == ControlKind::Stop {
            // An entry like all others: what it does to minimum times counts at the next start.
            self.is_stopped = true;
            self.outputs.values_mut().for_each(|governed| governed.stop(at, made));
            return;
        }
        let Some(output) = event.output.clone() else { return };
        let instance = Arc::clone(&event.instance);
        if self.outputs.get_mut(&output).is_some_and(|governed| governed.control(event, at)) {
            self.look(&output, &instance, at, made);
        }
    }

    fn on_connection(&mut self, rows: &RecordBatch, row: usize, at: At, made: &mut Made) {
        let Some(connection) = text(rows, "connection", row) else { return };
        let connected = rows.column_by_name("connected").and_then(|column| column.as_boolean_opt());
        let is_up = connected.is_some_and(|connected| connected.is_valid(row) && connected.value(row));
        let mut turned = Vec::new();
        for (output, governed) in
            self.outputs.iter_mut().filter(|(_, output)| *output.connection == *connection)
        {
            turned.extend(governed.line(is_up).into_iter().map(|instance| (Arc::clone(output), instance)));
        }
        for (output, instance) in turned {
            self.look(&output, &instance, at, made);
        }
    }

    /// Looks at an instance, and at those that it may not be on together with.
    fn look(&mut self, output: &Arc<str>, instance: &Arc<str>, at: At, made: &mut Made) {
        let mut next = vec![(Arc::clone(output), Arc::clone(instance))];
        // Each of a pair at most once on either side: the other one answers first.
        let mut left = 2 + 2 * self.outputs.len();
        while let Some((output, name)) = next.pop() {
            let partners = self.partners(&output, &name);
            let Some(governed) = self.outputs.get_mut(&output) else { continue };
            let Some(looked) = governed.look(&name, &partners, &self.newest, at, made) else { continue };
            let wakes = (looked.woke_at, looked.wakes_at);
            if let (Some(before), _) = wakes {
                self.wakes.remove(&(before, Arc::clone(&output), Arc::clone(&name)));
            }
            if let (_, Some(after)) = wakes {
                self.wakes.insert((after, Arc::clone(&output), Arc::clone(&name)));
            }
            left -= 1;
            if left == 0 {
                return;
            }
            for partner in partners {
                let is_asked = looked.asks_off.contains(&partner.output);
                let Some(other) = self.outputs.get_mut(&partner.output) else { continue };
                if is_asked {
                    other.meet(&name, &looked.key, &self.newest, at);
                }
                if other.ask_off(&name, &output, is_asked) {
                    next.push((Arc::clone(&partner.output), Arc::clone(&name)));
                }
            }
        }
    }

    fn look_at_partners(&mut self, output: &Arc<str>, instance: &Arc<str>, at: At, made: &mut Made) {
        let partners = self.outputs.get(output).map_or_else(Vec::new, |governed| governed.partners.clone());
        for partner in partners {
            self.look(&partner, instance, at, made);
        }
    }

    fn partners(&self, output: &str, instance: &Arc<str>) -> Vec<evaluate::Partner> {
        let Some(governed) = self.outputs.get(output) else { return Vec::new() };
        let partner = |name: &Arc<str>| evaluate::Partner {
            output: Arc::clone(name),
            off_since: self.outputs.get(name).and_then(|other| other.instances.get(instance)?.off_since()),
        };
        governed.partners.iter().map(partner).collect()
    }
}

/// What is in a text column.
fn text<'a>(rows: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let column = rows.column_by_name(column)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod frames_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;
