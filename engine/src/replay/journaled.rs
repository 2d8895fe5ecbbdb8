//! What a box has kept of its streams, in the order in which it came, and when it came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tidegate_core::{Diagnostic, Rows};

use super::Journal;
use super::chunk::{BATCH, Chunk, Origin};
use super::lines::Reading;
use super::tally::Tally;
use crate::buffer::BufferError;
use crate::buffer::inspect::{Inspector, JournaledEntry, JournaledRows, Stretch};
use crate::config::{Config, Stream};
use crate::sequencer::schemas::SchemaStore;
use crate::system;
use crate::system::control::{self, ControlEvent, ControlKind};

/// Holes that are told one by one.
const MOST_GAPS: usize = 20;

/// Reads a stretch of the journal.
pub(super) struct JournaledStreams {
    inspector: Inspector,
    file: String,
    /// columns by stream, of those of the configuration
    columns: BTreeMap<Arc<str>, SchemaRef>,
    /// streams whose rows are read; `None`: all
    wanted: Option<BTreeSet<Arc<str>>>,
    tallies: BTreeMap<Arc<str>, Tally>,
    after: u64,
    last: u64,
    /// entries that were read and not taken yet, the next one last
    entries: Vec<JournaledEntry>,
    /// when the newest entry that was read came
    came: Option<i64>,
    pub found: Found,
    pub reading: Reading,
}

/// What a stretch of the journal has, and what it lacks.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// whether the journal does not go back as far as was asked
    pub is_cut: bool,
    /// when the first and the last entry came, nanoseconds since 1970
    pub times: Option<(i64, i64)>,
    pub rows: BTreeMap<String, u64>,
    /// holes: between which times, and how many entries
    pub gaps: Vec<(i64, i64, u64)>,
    /// entries that are not there in all
    pub missing: u64,
    /// entries whose rows cannot be read
    pub unreadable: u64,
    /// how often the box was started
    pub starts: u64,
    /// rows of streams that are not in the configuration
    pub unknown: BTreeMap<String, u64>,
}

impl JournaledStreams {
    pub(super) fn open(journal: &Journal, config: &Config) -> Result<Self, Diagnostic> {
        let file = journal.buffer.display().to_string();
        let wrong = |error: BufferError| Diagnostic::new(&*file, error.to_string());
        let inspector = Inspector::open(&journal.buffer).map_err(wrong)?;
        let Some(stretch) = inspector.stretch(journal.since, journal.until).map_err(wrong)? else {
            let is_all = journal.since.is_none() && journal.until.is_none();
            let what = if is_all { "nothing is journaled" } else { "nothing was journaled in that time" };
            return Err(Diagnostic::new(&*file, format!("{what} in this buffer")).help(
                "write `journal = true` in a stream to have its rows kept; `tidegate buffer stats` says what \
                there is, and of when"
                    .to_owned(),
            ));
        };
        let schemas = SchemaStore::look(config);
        let mut columns = BTreeMap::new();
        let inputs = config.streams.iter().filter_map(|(name, stream)| match stream {
            Stream::Input(_) => Some((name.as_str(), stream.schema())),
            Stream::Derived { .. } => None,
        });
        let own = system::STREAMS.iter().map(|own| (own.name, Some(Arc::clone(own.schema()))));
        for (name, declared) in inputs.chain(own) {
            let known = match declared.or_else(|| schemas.get(name).cloned()) {
                Some(known) => Some(known),
                None => inspector.newest_columns(name).map_err(wrong)?,
            };
            columns.extend(known.map(|known| (Arc::from(name), known)));
        }
        let Stretch { first, last, bytes, is_cut } = stretch;
        Ok(Self {
            inspector,
            file,
            columns,
            wanted: None,
            tallies: BTreeMap::new(),
            after: first.saturating_sub(1),
            last,
            entries: Vec::new(),
            came: None,
            found: Found { is_cut, ..Found::default() },
            reading: Reading::in_pieces(bytes),
        })
    }

    /// Reads rows of these streams only.
    pub(super) fn only(&mut self, streams: BTreeSet<Arc<str>>) {
        self.wanted = Some(streams);
    }

    pub(super) fn schemas(&self) -> BTreeMap<String, SchemaRef> {
        self.columns.iter().map(|(name, columns)| (name.to_string(), Arc::clone(columns))).collect()
    }

    /// The next rows of one stream; those of entries that follow each other go together.
    pub(super) fn read(&mut self) -> Result<Option<Chunk>, Diagnostic> {
        let mut waiting: Option<Waiting> = None;
        while let Some(entry) = self.next()? {
            if let Some(whole) = &waiting
                && (whole.rows >= BATCH || !whole.goes_on_with(&entry))
            {
                self.entries.push(entry);
                break;
            }
            self.note(&entry);
            let JournaledEntry { now_ns, wall_ns, came, .. } = entry;
            let JournaledRows::Rows(stream, rows) = came else { continue };
            let Some(columns) = self.columns.get(&stream) else {
                *self.found.unknown.entry(stream.to_string()).or_default() += rows.len() as u64;
                continue;
            };
            let batch = with_columns(&rows.batch, columns)
                .map_err(|error| Diagnostic::new(&*self.file, format!("rows of `{stream}`: {error}")))?;
            let whole = waiting.get_or_insert_with(|| Waiting::new(stream));
            whole.add(&Rows { batch, ..rows }, now_ns, wall_ns);
        }
        let Some(Waiting { stream, batches, origins, .. }) = waiting else { return Ok(None) };
        let Some(columns) = self.columns.get(&stream) else { return Ok(None) };
        let rows = concat_batches(columns, &batches)
            .map_err(|error| Diagnostic::new(&*self.file, format!("rows of `{stream}`: {error}")))?;
        let tally =
            self.tallies.entry(Arc::clone(&stream)).or_insert_with(|| Tally::new(&stream, &self.file));
        tally.rows += rows.num_rows() as u64;
        // A row is found by the number that it had in the sequence.
        Ok(Some(Chunk { file: stream, ..Chunk::new(tally, rows, origins) }))
    }

    fn next(&mut self) -> Result<Option<JournaledEntry>, Diagnostic> {
        if self.entries.is_empty() {
            let is_wanted = |stream: &str| self.wanted.as_ref().is_none_or(|wanted| wanted.contains(stream));
            self.entries = self
                .inspector
                .entries(self.after, self.last, &is_wanted)
                .map_err(|error| Diagnostic::new(&*self.file, error.to_string()))?;
            self.entries.reverse();
        }
        Ok(self.entries.pop())
    }

    /// Takes note of what there is, and of what is not.
    fn note(&mut self, entry: &JournaledEntry) {
        let found = &mut self.found;
        let missing = entry.id.saturating_sub(self.after + 1);
        self.after = entry.id;
        if missing > 0 {
            found.missing += missing;
            if found.gaps.len() < MOST_GAPS {
                found.gaps.push((self.came.unwrap_or(entry.wall_ns), entry.wall_ns, missing));
            }
        }
        self.came = Some(entry.wall_ns);
        let first = found.times.map_or(entry.wall_ns, |(first, _)| first);
        found.times = Some((first, entry.wall_ns));
        self.reading.add(entry.bytes);
        match &entry.came {
            JournaledRows::Rows(stream, rows) => {
                *found.rows.entry(stream.to_string()).or_default() += rows.len() as u64;
                if **stream == *control::NAME {
                    let events = ControlEvent::read(&rows.batch);
                    let starts = events.iter().filter(|event| event.event == ControlKind::Start);
                    found.starts += starts.count() as u64;
                }
            }
            JournaledRows::Unwanted(stream, rows) => {
                *found.rows.entry(stream.to_string()).or_default() += rows;
            }
            JournaledRows::Unreadable(stream, why) => {
                found.unreadable += 1;
                tracing::error!(entry = entry.id, %stream, why, "rows cannot be read and are left out");
            }
            JournaledRows::None => {}
        }
    }

    /// Says what was read.
    pub(super) fn summarise(&self) {
        self.tallies.values().for_each(Tally::summarise);
        let Found { missing, unreadable, unknown, .. } = &self.found;
        let unknown = unknown.iter().map(|(stream, rows)| format!("{stream} {rows}"));
        let unknown = unknown.collect::<Vec<_>>().join(", ");
        if missing + unreadable > 0 || !unknown.is_empty() {
            tracing::warn!(
                file = self.file,
                missing,
                unreadable,
                not_configured = unknown,
                "the journal is not whole: entries are missing or cannot be read, or are of streams that are \
                not in the configuration"
            );
        }
    }
}

/// Rows of one stream that stand next to each other.
struct Waiting {
    stream: Arc<str>,
    batches: Vec<RecordBatch>,
    origins: Vec<Origin>,
    rows: usize,
}

impl Waiting {
    fn new(stream: Arc<str>) -> Self {
        Self { stream, batches: Vec::new(), origins: Vec::new(), rows: 0 }
    }

    /// Whether rows of `entry`, if it has any, are of the same stream.
    fn goes_on_with(&self, entry: &JournaledEntry) -> bool {
        !matches!(&entry.came, JournaledRows::Rows(stream, _) if *stream != self.stream)
    }

    fn add(&mut self, rows: &Rows, at: i64, wall_ns: i64) {
        self.batches.push(rows.batch.clone());
        self.rows += rows.len();
        self.origins.extend((0..rows.len()).map(|row| Origin { at, wall_ns, line: rows.seqs.get(row) }));
    }
}

/// The rows with the columns that the stream has by now: new ones are null, and what has another type is
/// converted, or null.
fn with_columns(rows: &RecordBatch, columns: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if rows.schema_ref() == columns {
        return Ok(rows.clone());
    }
    let options = CastOptions::default();
    let arrays = columns.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast_with_options(column, field.data_type(), &options),
    });
    RecordBatch::try_new(Arc::clone(columns), arrays.collect::<Result<_, _>>()?)
}
