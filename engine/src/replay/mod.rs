//! `tidegate replay`: recordings run through the same decoders, numbers, rule book and worker as a box's,
//! with no connection and no clock but the recording's own.
//!
//! * [`lines`]: a file, line by line; [`rows`] (with [`csv_rows`]): recorded rows ([`fault`]: or why not);
//!   [`messages`]: recorded messages, decoded as a box decodes them; [`journaled`]: what a box has kept;
//!   [`recording`]: one of them; [`chunk`]: what all of them give.
//! * [`recorded`]: all rows at once.
//! * [`mod@run`]: rules and contracts at work; [`plant`]: what answers them.
//! * [`backtest`]: two versions of a rule beside each other.
//! * [`results`]: what came of it; [`causes`]: what led to it; [`tally`]: what was read.
//!
//! Several inputs are merged by time; within one input, rows stay in the order of the file. At the end the
//! windows that are still open close. The same input gives the same bytes.

pub mod backtest;
mod causes;
mod chunk;
mod csv_rows;
mod fault;
mod journaled;
mod lines;
mod messages;
mod plant;
pub mod recorded;
mod recording;
mod results;
mod rows;
mod run;
mod tally;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampNanosecondType};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{Diagnostic, TS};

use crate::catalog::catalog;
use crate::config::{Config, Stream};
use crate::outputs::contract::Contracts;
use crate::rules::book::RuleBook;
use crate::rules::directory::RulesDir;
use crate::rules::tables::TableFiles;
use crate::status::Status;
use crate::system::{self, writes};
use chunk::Chunk;
use journaled::JournaledStreams;
use messages::RecordedMessages;
use plant::Plant;
use recording::{Recording, Source};
pub use results::Decided;
use results::Results;
use rows::RecordedRows;
use run::Run;

/// What is replayed.
pub struct Request<'a> {
    /// the box's configuration: its streams, outputs and rules
    pub config: &'a Config,
    /// the recordings
    pub inputs: &'a [Input],
    /// where results go; `-`: standard output
    pub output: &'a Path,
    /// where decisions of contracts go; `None`: nowhere
    pub decisions: Option<&'a Path>,
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
    /// What a box has kept, of all its streams.
    Journal(Journal),
}

/// A stretch of the journal of a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// the box's buffer
    pub buffer: PathBuf,
    /// from when on, nanoseconds since 1970; `None`: from its beginning
    pub since: Option<i64>,
    /// until when; `None`: to its end
    pub until: Option<i64>,
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
    let catalog = catalog(request.config, &known);
    let contracts = Contracts::from_config(&plant::unseen(request.config), &catalog, &status);
    let book = RuleBook::new(catalog, 1, Arc::clone(&status)).quiet().governed_by(&contracts);
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
    for stream in contracts.touches() {
        let is_input = matches!(request.config.streams.get(&*stream), Some(Stream::Input(_)));
        if is_input && !inferred.contains_key(&*stream) {
            tracing::warn!(
                %stream,
                "contracts look at the stream, and there is no recording of it: interlocks over it trip, as \
                they do on a box that hears nothing"
            );
        }
    }
    let plant = if inferred.contains_key(writes::NAME) { Plant::recorded_beside() } else { Plant::ideal() };
    let mut results = Results::to(request.output, request.decisions)?;
    let mut run = Run::new(&status, contracts, plant);
    run.load(changes.into_iter().map(|(_, change)| change).collect(), &book);
    let mut rows = 0;
    while let Some(chunk) = next(&mut recordings)? {
        rows += chunk.rows.num_rows() as u64;
        results.write(&run.feed(&chunk))?;
        (request.progress)(progress(&recordings, rows));
    }
    results.write(&run.end())?;
    results.finish()?;
    recordings.iter().for_each(Recording::summarise);
    summarise_rules(&status, &results);
    summarise_outputs(&run, &results);
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

/// Says what outputs would have been sent, and what that rests on.
fn summarise_outputs(run: &Run, results: &Results) {
    for (output, Decided { sent, held, refused }) in &results.decided {
        tracing::info!(%output, sent, held, refused, "its contract would have sent, held back and refused");
    }
    let (as_recorded, assumed) = run.answered();
    if as_recorded + assumed > 0 {
        tracing::info!(
            as_recorded,
            assumed,
            "no device was there: writes were taken to be acknowledged, but for those of which a recording \
            of `{}` says what became of them; the plant did not feel them",
            writes::NAME
        );
    }
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
        if let Input::Rows { file, .. } | Input::Messages { file, .. } = input {
            standard_inputs += u32::from(lines::is_standard_input(file));
        }
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
        Input::Journal(journal) => Ok(Source::Journal(Box::new(JournaledStreams::open(journal, config)?))),
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
