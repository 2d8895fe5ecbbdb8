//! `tidegate replay`: recordings run through the same decoders, numbers, rule book and worker as a box's,
//! with no connection and no clock but the recording's own.
//!
//! * [`lines`]: a file, line by line; [`rows`] (with [`csv_rows`]): recorded rows ([`fault`]: or why not);
//!   [`messages`]: recorded messages, decoded as a box decodes them; [`recording`]: one or the other; [`chunk`]:
//!   what both give.
//! * [`recorded`]: all rows at once.
//! * [`results`]: what rules wrote; [`causes`]: what led to it; [`tally`]: what was read.
//!
//! Several inputs are merged by time; within one input, rows stay in the order of the file. At the end the
//! windows that are still open close. The same input gives the same bytes.

mod causes;
mod chunk;
mod csv_rows;
mod fault;
mod lines;
mod messages;
pub mod recorded;
mod recording;
mod results;
mod rows;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampNanosecondType};
use futures::FutureExt;
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{Diagnostic, Rows, TS};
use tidegate_rules::{Indexed, When};

use crate::catalog::catalog;
use crate::config::Config;
use crate::rules::book::RuleBook;
use crate::rules::directory::RulesDir;
use crate::rules::router::{self, Routed};
use crate::rules::tables::TableFiles;
use crate::rules::worker::Worker;
use crate::sequence::change::Change;
use crate::sequencer::numbers::Numbers;
use crate::status::Status;
use crate::system;
use causes::Causes;
use chunk::Chunk;
use messages::RecordedMessages;
use recording::{Recording, Source};
use results::Results;
use rows::RecordedRows;

/// Ticks between two rows of a recording; more would be made when its times jump by years.
const MOST_TICKS: u32 = 1_000_000;

/// What is replayed.
pub struct Request<'a> {
    /// the box's configuration: its streams, outputs and rules
    pub config: &'a Config,
    /// the recordings
    pub inputs: &'a [Input],
    /// where results go; `-`: standard output
    pub output: &'a Path,
    /// told how far it is, for each few rows
    pub progress: &'a dyn Fn(Progress),
}

/// A recording; `-` is standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Rows of a stream.
    Rows {
        /// the stream's name
        stream: String,
        /// JSON Lines or CSV
        file: PathBuf,
    },
    /// Messages, with their payloads as they came.
    Messages {
        /// the connection that they came by; `None`: any
        connection: Option<String>,
        /// what `mosquitto_sub` prints
        file: PathBuf,
    },
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// rows that the rules have seen
    pub rows: u64,
    /// bytes of the recordings that have been read
    pub bytes: u64,
    /// bytes of all recordings; `None`: nobody knows, since one of them is a pipe
    pub total: Option<u64>,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Configuration, rules or recordings are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Diagnostic>),
    /// A result could not be written.
    #[error("cannot write the results: {0}")]
    Output(#[from] io::Error),
    /// Rules failed on the way; the results are without the rest of theirs.
    #[error("stopped before the end: {}", .0.join("; "))]
    Stopped(Vec<String>),
}

impl From<Diagnostic> for ReplayError {
    fn from(wrong: Diagnostic) -> Self {
        Self::Refused(vec![wrong])
    }
}

/// Replays recordings.
///
/// # Errors
/// When a rule or a recording is wrong, or the results cannot be written.
pub fn replay(request: &Request<'_>) -> Result<(), ReplayError> {
    let mut recordings = open(request.config, request.inputs).map_err(ReplayError::Refused)?;
    let inferred = columns(&mut recordings)?;
    let status = Arc::new(Status::default());
    let known = |stream: &str| inferred.get(stream).cloned();
    let book = RuleBook::new(catalog(request.config, &known), 1, Arc::clone(&status)).quiet();
    let mut tables = TableFiles::new(request.config);
    let (book, changes) = RulesDir::load(&request.config.rules.dir, &mut tables, book)?;
    let mut wrong: Vec<Diagnostic> = tables.wrong().cloned().collect();
    wrong.extend(book.wrong());
    if !wrong.is_empty() {
        return Err(ReplayError::Refused(wrong));
    }
    for (rule, streams) in book.waiting() {
        tracing::warn!(
            rule,
            streams = streams.join(", "),
            "the rule reads streams whose columns are not known, because there is no recording of them; it \
            is left out"
        );
    }
    let mut run = Run::new(&status, Results::to(request.output)?);
    run.load(changes.into_iter().map(|(_, change)| change).collect(), &book);
    let mut rows = 0;
    while let Some(chunk) = next(&mut recordings)? {
        rows += chunk.rows.num_rows() as u64;
        run.feed(&chunk)?;
        (request.progress)(progress(&recordings, rows));
    }
    let results = run.end()?;
    recordings.iter().for_each(Recording::summarise);
    summarise_rules(&status, &results);
    let stopped = status.rules.all().into_iter().filter_map(|(rule, counted)| {
        let (_, reason) = counted.stopped.get()?;
        Some(format!("rule `{rule}`, since {reason}"))
    });
    let stopped: Vec<String> = stopped.collect();
    if stopped.is_empty() { Ok(()) } else { Err(ReplayError::Stopped(stopped)) }
}

fn progress(recordings: &[Recording], rows: u64) -> Progress {
    let bytes = recordings.iter().map(|recording| recording.reading().bytes()).sum();
    Progress { rows, bytes, total: recordings.iter().map(|recording| recording.reading().total).sum() }
}

/// Says what each rule did, and what it could not do.
fn summarise_rules(status: &Status, results: &Results) {
    for (rule, counted) in status.rules.all() {
        let (written, targets) = results.count(&rule);
        let (late, left_out, forgotten) =
            (counted.late.get(), counted.left_out.get(), counted.forgotten.get());
        let shadow = counted.rows.get().saturating_sub(written);
        if counted.stopped.is_some() {
            tracing::error!(
                rule,
                rows = written,
                targets,
                "was stopped before the end: what it would have written of the rest is missing"
            );
        }
        if late + left_out + forgotten > 0 {
            tracing::warn!(
                rule,
                rows = written,
                targets,
                shadow,
                late,
                left_out,
                forgotten,
                "wrote, and something is missing"
            );
        } else {
            tracing::info!(rule, rows = written, targets, shadow, "wrote");
        }
    }
    summarise_left_out(status);
}

/// The last that is said, so that nobody takes results for whole that are not.
fn summarise_left_out(status: &Status) {
    let mut rules = status.rules.all();
    rules.retain(|(_, counted)| counted.left_out.get() > 0);
    let left_out: u64 = rules.iter().map(|(_, counted)| counted.left_out.get()).sum();
    let Some((_, first)) = rules.first() else { return };
    let why = first.last_error.get().map_or_else(String::new, |(_, why)| why);
    let names = rules.iter().map(|(rule, _)| rule.as_str()).collect::<Vec<_>>().join(", ");
    tracing::warn!(
        left_out,
        rules = names,
        "rows could not be evaluated, and the results are without them; the newest of the first rule: {why}"
    );
}

fn open(config: &Config, inputs: &[Input]) -> Result<Vec<Recording>, Vec<Diagnostic>> {
    let mut recordings = Vec::with_capacity(inputs.len());
    let mut wrong = Vec::new();
    let mut standard_inputs = 0;
    for input in inputs {
        let (Input::Rows { file, .. } | Input::Messages { file, .. }) = input;
        standard_inputs += u32::from(lines::is_standard_input(file));
        if standard_inputs > 1 {
            wrong.push(Diagnostic::new("-", "standard input can be only one of the recordings"));
            break;
        }
        match open_one(input, config) {
            Ok(source) => recordings.push(Recording::new(source)),
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    if wrong.is_empty() { Ok(recordings) } else { Err(wrong) }
}

fn open_one(input: &Input, config: &Config) -> Result<Source, Diagnostic> {
    let unknown = |file: &Path, what: &str, name: &str, known: &[&str]| {
        let message = format!("there is no {what} `{name}` in the configuration");
        Err(Diagnostic::new(file.display().to_string(), message).help(did_you_mean(name, known)))
    };
    match input {
        Input::Rows { stream, file } => {
            if let Some(own) = system::stream(stream) {
                return Ok(Source::Rows(Box::new(RecordedRows::open(stream, file, Some(own.schema()))?)));
            }
            let Some(configured) = config.streams.get(stream) else {
                return unknown(
                    file,
                    "stream",
                    stream,
                    &config.streams.keys().map(String::as_str).collect::<Vec<_>>(),
                );
            };
            Ok(Source::Rows(Box::new(RecordedRows::open(stream, file, configured.schema().as_ref())?)))
        }
        Input::Messages { connection, file } => {
            let known: Vec<&str> = config.connections.keys().map(String::as_str).collect();
            if let Some(name) = connection.as_deref().filter(|name| !known.contains(name)) {
                return unknown(file, "connection", name, &known);
            }
            Ok(Source::Messages(Box::new(RecordedMessages::open(connection.as_deref(), file, config)?)))
        }
    }
}

/// The columns of the streams that are fed.
fn columns(recordings: &mut [Recording]) -> Result<BTreeMap<String, SchemaRef>, Diagnostic> {
    let mut known: BTreeMap<String, SchemaRef> = BTreeMap::new();
    for (stream, schema) in recordings.iter_mut().flat_map(Recording::schemas) {
        if known.insert(stream.clone(), Arc::clone(&schema)).is_some_and(|before| before != schema) {
            let why = format!("the recordings of `{stream}` have different columns");
            return Err(
                Diagnostic::new(&*stream, why).help(format!("declare `fields` in [streams.{stream}]"))
            );
        }
    }
    Ok(known)
}

/// Takes rows from the recording whose next row is earliest (the first of them, when several are), up to
/// where another one's turn comes.
fn next(recordings: &mut [Recording]) -> Result<Option<Chunk>, Diagnostic> {
    let mut heads: Vec<(i64, usize)> = Vec::with_capacity(recordings.len());
    for (index, recording) in recordings.iter_mut().enumerate() {
        if let Some(at) = recording.head()? {
            heads.push((at, index));
        }
    }
    heads.sort_unstable();
    let Some((_, index)) = heads.first().copied() else { return Ok(None) };
    let until = heads.get(1).copied();
    let Some(recording) = recordings.get_mut(index) else { return Ok(None) };
    Ok(recording.take_while(|at| until.is_none_or(|(other, other_index)| (at, index) < (other, other_index))))
}

/// Runs rules on what is fed to it.
///
/// A rule that minds when rows come gets them one by one, with the ticks that it wants before each. Calling a
/// rule costs microseconds however many rows it is handed, so all others get them together.
struct Run {
    one_by_one: Worker,
    together: Worker,
    numbers: Numbers,
    /// the sequence's time: the greatest time of a row so far
    now: i64,
    results: Results,
}

impl Run {
    fn new(status: &Arc<Status>, results: Results) -> Self {
        let [one_by_one, together] = [(); 2].map(|()| Worker::new(Arc::clone(status)));
        Self { one_by_one, together, numbers: Numbers::from(0), now: i64::MIN, results }
    }

    /// Loads rules and tables. Rules that feed each other stay together.
    fn load(&mut self, changes: Vec<Change>, book: &RuleBook) {
        let minds_time = |change: &Change| match change {
            Change::Load(load) if load.rule.indexed().is_none_or(Indexed::minds_time) => {
                Some(book.family(&load.version.name))
            }
            _ => None,
        };
        let one_by_one: BTreeSet<Arc<str>> = changes.iter().filter_map(minds_time).flatten().collect();
        // Neither has another worker to wait for.
        let take = |worker: &mut Worker, change| {
            let _ = worker.on_change(change).now_or_never();
        };
        for change in changes {
            match change {
                Change::Table(table, rows) => {
                    take(&mut self.one_by_one, Change::Table(Arc::clone(&table), rows.clone()));
                    take(&mut self.together, Change::Table(table, rows));
                }
                Change::Load(load) if !one_by_one.contains(&load.version.name) => {
                    take(&mut self.together, Change::Load(load))
                }
                other => take(&mut self.one_by_one, other),
            }
        }
    }

    /// Feeds rows. It does not matter how the recording was cut.
    fn feed(&mut self, chunk: &Chunk) -> Result<(), ReplayError> {
        let mut causes = Causes::new(chunk);
        let mut written = Vec::new();
        let mut row = 0;
        while let Some(left) = chunk.origins.get(row..).filter(|left| !left.is_empty()) {
            if self.one_by_one.is_empty() {
                self.now = left.iter().map(|origin| origin.at).fold(self.now, i64::max);
            } else {
                self.tick_until(left.first().map_or(self.now, |origin| origin.at), &mut written, &mut causes);
                self.now = left.first().map_or(self.now, |origin| self.now.max(origin.at));
            }
            let count = left.iter().take_while(|origin| origin.at <= self.now).count();
            causes.rows(self.numbers.next(), row);
            let part = self.numbers.number(chunk.rows.slice(row, count));
            written.extend(self.one_by_one.on_batch(&chunk.stream, &part, self.when()));
            row += count;
        }
        let rows = Rows { batch: chunk.rows.clone(), seqs: causes.numbers(row) };
        written.extend(self.together.on_batch(&chunk.stream, &rows, self.when()));
        Ok(self.results.write(router::in_order(written), &causes)?)
    }

    fn tick_until(&mut self, now: i64, written: &mut Vec<Routed>, causes: &mut Causes<'_>) {
        let mut ticks = 0;
        while let Some(at) = self.one_by_one.wakes_at().filter(|at| *at < now) {
            if ticks == MOST_TICKS {
                tracing::warn!(ticks, "the times of the recording jump so far that rules miss ticks there");
                break;
            }
            ticks += 1;
            self.now = self.now.max(at);
            let seq = self.numbers.tick();
            causes.tick(seq, self.now);
            written.extend(self.one_by_one.on_tick(seq, self.when()));
        }
    }

    /// Rows do not say what the wall clock showed, but for when they came: that is what it shows.
    fn when(&self) -> When {
        When::at(self.now)
    }

    fn end(mut self) -> Result<Results, ReplayError> {
        let (seq, when) = (self.numbers.next(), self.when());
        let mut written = self.one_by_one.on_end(seq, when);
        written.extend(self.together.on_end(seq, when));
        self.results.write(written, &Causes::end(self.now))?;
        self.results.finish()?;
        Ok(self.results)
    }
}

/// RFC 3339
fn written(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(ns.into()).map_or_else(|_| String::new(), |time| time.to_string())
}

/// The event times of `rows`; every row has one.
fn times(rows: &RecordBatch) -> &[i64] {
    let column =
        rows.column_by_name(TS).filter(|column| matches!(column.data_type(), DataType::Timestamp(..)));
    column
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>())
        .map_or(&[], |times| times.values())
}

#[cfg(test)]
mod tests;
