//! `tidegate replay`: recorded rows run through the same numbers, rule book and worker as a box's, with no connection and no clock but
//! the rows' own.
//!
//! Several inputs are merged by `ts`; within one input, rows stay in the order of the file. At the end the windows that are still open
//! close. The same input gives the same bytes.

mod recording;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampNanosecondType};
use futures::FutureExt;
use tidegate_connectors::json::Encoder;
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{Diagnostic, TS};
use tidegate_rules::When;

use crate::catalog::catalog;
use crate::config::Config;
use crate::router::{self, Routed};
use crate::rulebook::RuleBook;
use crate::rules_dir::RulesDir;
use crate::sequencer::Numbers;
use crate::status::Status;
use crate::tables::TableFiles;
use crate::worker::Worker;
use recording::Recording;

/// Ticks between two rows of a recording; more would be made when its times jump by years.
const MOST_TICKS: u32 = 1_000_000;
/// Rows between two reports of progress.
const PROGRESS_ROWS: u64 = 100_000;

/// What is replayed.
pub struct Request<'a> {
    /// the box's configuration: its streams, outputs and rules
    pub config: &'a Config,
    /// stream and file of each recording
    pub inputs: &'a [(String, PathBuf)],
    /// where results go; `-`: standard output
    pub output: &'a Path,
    /// told now and then how many rows have been read
    pub progress: &'a dyn Fn(u64),
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
    let mut recordings = open(request)?;
    let status = Arc::new(Status::default());
    let mut inferred = BTreeMap::new();
    for recording in &recordings {
        inferred.insert(recording.stream.to_string(), recording.schema());
    }
    let book = RuleBook::new(catalog(request.config, &|stream| inferred.get(stream).cloned()), 1, Arc::clone(&status)).quiet();
    let mut tables = TableFiles::of(request.config);
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
            "the rule reads streams whose columns are not known, because there is no recording of them; it is left out"
        );
    }
    let (worker, out) = (Worker::new(status), writer(request.output)?);
    let mut run = Run { worker, numbers: Numbers::from(0), now: i64::MIN, out, encoders: Vec::new() };
    for (_, change) in changes {
        // There is no other worker to wait for.
        let _ = run.worker.on_change(change).now_or_never();
    }
    let mut told = 0;
    while let Some((stream, rows)) = next(&mut recordings)? {
        run.feed(&stream, rows)?;
        if run.numbers.next() >= told + PROGRESS_ROWS {
            told = run.numbers.next();
            (request.progress)(told);
        }
    }
    run.end()
}

fn open(request: &Request<'_>) -> Result<Vec<Recording>, ReplayError> {
    let mut recordings = Vec::with_capacity(request.inputs.len());
    let mut wrong = Vec::new();
    for (stream, path) in request.inputs {
        let file = path.display().to_string();
        let Some(configured) = request.config.streams.get(stream) else {
            let known: Vec<&str> = request.config.streams.keys().map(String::as_str).collect();
            wrong.push(
                Diagnostic::new(file, format!("there is no stream `{stream}` in the configuration")).help(did_you_mean(stream, &known)),
            );
            continue;
        };
        match Recording::open(stream, path, configured.schema().as_ref()) {
            Ok(recording) => recordings.push(recording),
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    if wrong.is_empty() { Ok(recordings) } else { Err(ReplayError::Refused(wrong)) }
}

fn writer(output: &Path) -> io::Result<Box<dyn Write>> {
    if output == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout().lock())));
    }
    Ok(Box::new(BufWriter::new(File::create(output)?)))
}

/// Takes rows from the recording whose next row is earliest (the first of them, when several are), up to where another one's turn comes.
fn next(recordings: &mut [Recording]) -> Result<Option<(Arc<str>, RecordBatch)>, Diagnostic> {
    let mut heads: Vec<(i64, usize)> = Vec::with_capacity(recordings.len());
    for (index, recording) in recordings.iter_mut().enumerate() {
        if let Some(ts) = recording.head()? {
            heads.push((ts, index));
        }
    }
    heads.sort_unstable();
    let Some((_, index)) = heads.first().copied() else { return Ok(None) };
    let until = heads.get(1).copied();
    let Some(recording) = recordings.get_mut(index) else { return Ok(None) };
    let rows = recording.take_while(|ts| until.is_none_or(|(other, other_index)| (ts, index) < (other, other_index)));
    Ok(rows.map(|rows| (Arc::clone(&recording.stream), rows)))
}

struct Run {
    worker: Worker,
    numbers: Numbers,
    /// the sequence's time: the greatest time of a row so far
    now: i64,
    out: Box<dyn Write>,
    encoders: Vec<(SchemaRef, Encoder)>,
}

impl Run {
    /// Feeds rows, each at its time, with the ticks that rules want before it. So it does not matter how the recording was cut.
    fn feed(&mut self, stream: &str, rows: RecordBatch) -> Result<(), ReplayError> {
        let times = times(&rows).to_vec();
        let mut left = times.as_slice();
        while let Some(ts) = left.first() {
            self.tick_until(*ts)?;
            self.now = self.now.max(*ts);
            let count = left.iter().take_while(|ts| **ts <= self.now).count();
            let part = self.numbers.number(rows.slice(times.len() - left.len(), count));
            let written = self.worker.on_batch(stream, &part, self.when());
            self.print(router::in_order(written))?;
            left = left.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn tick_until(&mut self, now: i64) -> Result<(), ReplayError> {
        let mut ticks = 0;
        while let Some(at) = self.worker.wakes_at().filter(|at| *at < now) {
            if ticks == MOST_TICKS {
                tracing::warn!(ticks, "the times of the recording jump so far that rules miss ticks there");
                break;
            }
            ticks += 1;
            self.now = self.now.max(at);
            let written = self.worker.on_tick(self.numbers.tick(), self.when());
            self.print(router::in_order(written))?;
        }
        Ok(())
    }

    /// The recording does not say when its rows came: their own time is all that there is.
    fn when(&self) -> When {
        When::at(self.now)
    }

    fn end(mut self) -> Result<(), ReplayError> {
        let written = self.worker.on_end(self.numbers.next(), self.when());
        self.print(written)?;
        Ok(self.out.flush()?)
    }

    fn print(&mut self, written: Vec<Routed>) -> Result<(), ReplayError> {
        let mut line = Vec::new();
        for routed in written {
            let schema = routed.rows.batch.schema();
            let at = match self.encoders.iter().position(|(known, _)| *known == schema) {
                Some(at) => at,
                None => {
                    self.encoders.push((Arc::clone(&schema), Encoder::new(&schema)));
                    self.encoders.len() - 1
                }
            };
            let Some((_, encoder)) = self.encoders.get(at) else { continue };
            let head = format!("{{\"target\":{},\"rule\":{},\"row\":", quoted(routed.target.name()), quoted(&routed.rule));
            for row in 0..routed.rows.len() {
                line.clear();
                line.extend_from_slice(head.as_bytes());
                encoder.encode_row(&routed.rows.batch, row, &mut line);
                line.extend_from_slice(b"}\n");
                self.out.write_all(&line)?;
            }
        }
        Ok(())
    }
}

fn quoted(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}

/// The event times of `rows`; every row has one.
fn times(rows: &RecordBatch) -> &[i64] {
    let column = rows.column_by_name(TS).filter(|column| matches!(column.data_type(), DataType::Timestamp(..)));
    column.and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>()).map_or(&[], |times| times.values())
}

#[cfg(test)]
mod tests;
