//! What a box runs again after a crash: the journal, snapshots of the rules' state, and how far each rule's
//! rows have got.
//!
//! An entry of the journal is a step of the sequence: rows of a journaled stream with their numbers, a tick,
//! what is known of silence, or a change of the rules. A snapshot is the state of all rules after one entry,
//! with the names of the rules' sources and the columns that were in force there; [`super::content`] is what
//! is named. `progress` says up to which row number the rows of a rule are in the outbox, or were: what a
//! rule writes again while the journal is run again is left out up to there.
//!
//! The two newest snapshots are kept, since the newest may turn out to be damaged, and with them every entry
//! that comes after the older one. What is older stays as long as `journal_age` and `journal_size` allow. The
//! newest [`KEPT_ENTRIES`] with rows always stay: their marks tell a connection which messages it need not
//! take again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use rusqlite::{Connection, OptionalExtension, params};
use tidegate_core::{Ack, Rows, Seqs};
use tidegate_rules::SealedState;

use super::changes::Step;
use super::content::Content;
use super::{block, signed};

/// Entries with rows that are kept however small the journal may be.
pub(super) const KEPT_ENTRIES: u64 = 1_024;
/// Marks that a connection is handed back for each stream: a far side's window, and two batches that were
/// committed and not acknowledged yet.
const MARKS: usize = 16_384;
/// What one reading unpacks, so that memory stays small however long the journal is.
const READ_BYTES: usize = 16 << 20;

/// A step of the sequence.
#[derive(Debug)]
pub struct JournalEntry {
    /// rises by one from entry to entry
    pub id: u64,
    /// the sequence's time; of entries of an older layout wall time, which may go back
    pub now_ns: i64,
    /// when it came, by the box's clock: nanoseconds since 1970
    pub wall_ns: i64,
    /// what it was
    pub step: JournalStep,
}

/// What can be a step of the sequence.
#[derive(Debug)]
pub enum JournalStep {
    /// Rows of a stream came.
    Rows {
        /// the stream
        stream: Arc<str>,
        /// the rows, numbered without gaps
        rows: Rows,
        /// of the messages that they came in, see [`tidegate_core::Batch::marks`]
        marks: Vec<u64>,
        /// released when the entry is on disk
        ack: Ack,
    },
    /// Time passed, and a rule wanted to know.
    Tick {
        /// its number
        seq: u64,
    },
    /// Streams were listened to, or are not any more.
    Listened {
        /// its number
        seq: u64,
        /// which, and when; JSON
        streams: String,
    },
    /// The rules or a reference table changed.
    Edit {
        /// how; JSON
        edit: String,
        /// what that names; read separately, see [`super::Buffer::content`]
        content: Option<Content>,
    },
}

/// The state of all rules after one entry, announced; a [`SnapshotPart`] of each worker follows.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// tells it from others of the same start
    pub number: u64,
    /// the last entry before it
    pub entry: u64,
    /// what else was in force; JSON
    pub manifest: String,
    /// all that it names
    pub contents: Vec<Content>,
    /// how many parts follow
    pub parts: usize,
    /// The journal has broken off before it, and goes on from here.
    pub mends: bool,
}

/// The state of one worker's rules.
#[derive(Debug, Default)]
pub struct SnapshotPart {
    /// the snapshot's number
    pub number: u64,
    /// by rule
    pub states: Vec<(Arc<str>, Vec<SealedState>)>,
}

/// What is known when a box starts.
#[derive(Debug, Default)]
pub struct Recovered {
    /// the newest snapshot that can be read
    pub snapshot: Option<RecoveredSnapshot>,
    /// the first and the last entry of the journal; 0 when there is none
    pub entries: (u64, u64),
    /// changes of the journal by which rules were stopped
    pub stops: Vec<String>,
    /// the number of the newest entry that there ever was, as far as that was noted
    pub newest: u64,
    /// by rule: up to which row number its rows are in the outbox, or were
    pub progress: HashMap<Arc<str>, u64>,
    /// by stream: marks of the newest messages, oldest first
    pub marks: HashMap<Arc<str>, Vec<u64>>,
    /// snapshots that could not be read
    pub damaged: Vec<String>,
    /// by output: the number of the newest decision that is on disk
    pub decisions: Arc<HashMap<Arc<str>, u64>>,
}

/// A snapshot that was read back.
#[derive(Debug)]
pub struct RecoveredSnapshot {
    /// the last entry before it
    pub entry: u64,
    /// what else was in force; JSON
    pub manifest: String,
    /// by rule
    pub states: States,
}

/// The state of rules at rest, by rule.
pub type States = BTreeMap<Arc<str>, Vec<SealedState>>;

/// Entries in order, and what is wrong with those that cannot be read.
pub(super) type Read = (Vec<JournalEntry>, Vec<(u64, String)>);

/// An entry, packed.
pub(super) struct NewEntry {
    id: u64,
    now_ns: i64,
    wall_ns: i64,
    stream: Arc<str>,
    first_seq: u64,
    rows: u64,
    marks: Vec<u8>,
    edit: String,
    content: Option<Content>,
    data: Vec<u8>,
}

impl NewEntry {
    pub(super) fn pack(entry: &JournalEntry) -> Result<Self, arrow::error::ArrowError> {
        let JournalEntry { id, now_ns, wall_ns, step } = entry;
        let empty = Self {
            id: *id,
            now_ns: *now_ns,
            wall_ns: *wall_ns,
            stream: Arc::from(""),
            first_seq: 0,
            rows: 0,
            marks: Vec::new(),
            edit: String::new(),
            content: None,
            data: Vec::new(),
        };
        Ok(match step {
            JournalStep::Rows { stream, rows, marks, .. } => Self {
                stream: Arc::clone(stream),
                first_seq: rows.seqs.get(0),
                rows: rows.len() as u64,
                marks: marks.iter().flat_map(|mark| mark.to_le_bytes()).collect(),
                data: block::encode(std::slice::from_ref(&rows.batch))?,
                ..empty
            },
            JournalStep::Tick { seq } => Self { first_seq: *seq, ..empty },
            // A program that does not know of it takes it for a tick, which it is, too.
            JournalStep::Listened { seq, streams } => {
                Self { first_seq: *seq, data: streams.clone().into_bytes(), ..empty }
            }
            JournalStep::Edit { edit, content } => {
                Self { edit: edit.clone(), content: content.clone(), ..empty }
            }
        })
    }

    fn size(&self) -> u64 {
        (self.data.len() + self.edit.len() + self.marks.len()) as u64
    }
}

/// A snapshot, packed.
pub(super) struct NewSnapshot {
    entry: u64,
    manifest: String,
    contents: Vec<Content>,
    /// rule, fingerprint, watermark, and the packed rows (none: empty)
    states: Vec<(Arc<str>, String, i64, Vec<u8>)>,
}

impl NewSnapshot {
    pub(super) fn pack(
        Snapshot { entry, manifest, contents, .. }: Snapshot,
        states: Vec<(Arc<str>, Vec<SealedState>)>,
    ) -> Result<Self, arrow::error::ArrowError> {
        let mut packed = Vec::new();
        for (rule, states) in states {
            for SealedState { fingerprint, watermark, batch } in states {
                let data = batch.map_or_else(|| Ok(Vec::new()), |batch| block::encode(&[batch]))?;
                packed.push((Arc::clone(&rule), fingerprint, watermark, data));
            }
        }
        Ok(Self { entry, manifest, contents, states: packed })
    }
}

/// How much of the journal is kept beyond what recovery needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) max_bytes: u64,
    pub(super) max_age_ns: i64,
}

impl Step<'_> {
    pub(super) fn journal(&mut self, entry: &NewEntry) -> rusqlite::Result<()> {
        let insert = "INSERT INTO journal (id, stream, first_seq, rows, wall_ns, marks, edit, data, now_ns) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let NewEntry { id, now_ns, wall_ns, stream, first_seq, rows, marks, edit, content, data } = entry;
        content.iter().try_for_each(|content| self.content_of_entry(content, *id))?;
        let values = params![
            signed(*id),
            &**stream,
            signed(*first_seq),
            signed(*rows),
            wall_ns,
            marks,
            edit,
            data,
            now_ns
        ];
        self.tx.prepare_cached(insert)?.execute(values)?;
        self.totals.last_entry = self.totals.last_entry.max(*id);
        self.totals.journal_bytes += entry.size();
        Ok(())
    }

    /// Notes that the rows of `rule` up to number `seq` are in the outbox.
    pub(super) fn progress(&self, rule: &str, seq: u64) -> rusqlite::Result<()> {
        let note = "INSERT INTO progress (rule, seq) VALUES (?1, ?2) ON CONFLICT (rule) DO UPDATE SET seq = \
            max(seq, excluded.seq)";
        self.tx.prepare_cached(note)?.execute(params![rule, signed(seq)]).map(drop)
    }

    /// Stores a snapshot, and deletes all but the one before it.
    pub(super) fn snapshot(&mut self, snapshot: &NewSnapshot) -> rusqlite::Result<()> {
        self.contents_of_snapshot(&snapshot.contents)?;
        let insert = "INSERT INTO snapshot (entry, wall_ns, manifest) VALUES (?1, ?2, ?3)";
        self.tx.execute(insert, params![signed(snapshot.entry), self.wall_ns, snapshot.manifest])?;
        let id = self.tx.last_insert_rowid();
        let mut insert = self.tx.prepare_cached(
            "INSERT INTO state (snapshot, rule, fingerprint, watermark, data) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (rule, fingerprint, watermark, data) in &snapshot.states {
            insert.execute(params![id, &**rule, fingerprint, watermark, data])?;
        }
        self.tx
            .execute("DELETE FROM snapshot WHERE id < (SELECT max(id) FROM snapshot WHERE id < ?1)", [id])?;
        self.tx.execute("DELETE FROM state WHERE snapshot NOT IN (SELECT id FROM snapshot)", [])?;
        Ok(())
    }

    /// Deletes entries that neither recovery nor `retention` wants any more, oldest first.
    pub(super) fn trim(&mut self, retention: Retention) -> rusqlite::Result<()> {
        // With one snapshot only, a damaged one would leave nothing to start from.
        let (oldest, count) =
            self.tx.query_row("SELECT coalesce(min(entry), 0), count(*) FROM snapshot", [], |row| {
                Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))
            })?;
        let first: u64 =
            self.tx.query_row("SELECT coalesce(min(id), 0) FROM journal", [], |row| row.get(0))?;
        if count < 2 || first > oldest.min(self.totals.last_entry.saturating_sub(KEPT_ENTRIES)) {
            return Ok(());
        }
        // Ticks have no marks, and do not push out those that have.
        let kept = "SELECT id FROM journal WHERE rows > 0 ORDER BY id DESC LIMIT 1 OFFSET ?1";
        let kept: Option<u64> =
            self.tx.prepare_cached(kept)?.query_row([KEPT_ENTRIES - 1], |row| row.get(0)).optional()?;
        let kept = kept.unwrap_or(0);
        // Not by wall time: when that is set, nothing grows older. Only of entries of older layouts nothing
        // else is known.
        let since = self.now_ns.saturating_sub(retention.max_age_ns);
        let mut delete = self.tx.prepare_cached(
            "DELETE FROM journal WHERE id = (SELECT id FROM journal WHERE id > ?1 AND id <= ?2 AND (rows = \
            0 OR id < ?3) ORDER BY id LIMIT 1)
             AND (?4 OR coalesce(nullif(now_ns, 0), wall_ns) < ?5)
             RETURNING id, length(data) + octet_length(edit) + length(marks), edit <> ''",
        )?;
        let (mut after, mut named) = (0, None);
        loop {
            let over = self.totals.journal_bytes > retention.max_bytes;
            let values = params![signed(after), signed(oldest), signed(kept), over, since];
            let gone: Option<(u64, u64, bool)> =
                delete.query_row(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
            let Some((id, size, is_edit)) = gone else { return Ok(()) };
            after = id;
            self.totals.journal_bytes = self.totals.journal_bytes.saturating_sub(size);
            if is_edit {
                if named.is_none() {
                    named = Some(self.named_by_snapshots()?);
                }
                named.iter().try_for_each(|named| self.forget_contents_of(id, named))?;
            }
        }
    }
}

/// What there is to start from.
pub(super) fn recovered(conn: &Connection) -> rusqlite::Result<Recovered> {
    let ends = "SELECT coalesce(min(journal.id), 0), coalesce(max(journal.id), 0), last_entry FROM meta \
        LEFT JOIN journal";
    let (entries, newest) = conn.query_row(ends, [], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    let mut found = Recovered { entries, newest, marks: marks(conn)?, ..Recovered::default() };
    let verdicts =
        "SELECT edit FROM journal WHERE edit LIKE '{\"stop\":%' OR edit LIKE '{\"refuse\":%' ORDER BY id";
    let mut stops = conn.prepare(verdicts)?;
    found.stops = stops.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut progress = conn.prepare("SELECT rule, seq FROM progress")?;
    let mut rows = progress.query([])?;
    while let Some(row) = rows.next()? {
        found.progress.insert(row.get::<_, String>(0)?.into(), row.get(1)?);
    }
    let mut snapshots = conn.prepare("SELECT id, entry, manifest FROM snapshot ORDER BY id DESC")?;
    let mut rows = snapshots.query([])?;
    while let Some(row) = rows.next()? {
        let (id, entry, manifest) = (row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?);
        match states(conn, id)? {
            Ok(states) => {
                found.snapshot = Some(RecoveredSnapshot { entry, manifest, states });
                break;
            }
            Err(reason) => found.damaged.push(reason),
        }
    }
    Ok(found)
}

fn states(conn: &Connection, snapshot: i64) -> rusqlite::Result<Result<States, String>> {
    let mut select =
        conn.prepare("SELECT rule, fingerprint, watermark, data FROM state WHERE snapshot = ?1 ORDER BY id")?;
    let mut rows = select.query([snapshot])?;
    let mut states = States::new();
    while let Some(row) = rows.next()? {
        let (rule, fingerprint, watermark) = (row.get::<_, String>(0)?, row.get(1)?, row.get(2)?);
        let batch = match row.get_ref(3)?.as_blob().unwrap_or_default() {
            [] => None,
            data => match block::decode_batch(data) {
                Ok(batch) => Some(batch),
                Err(error) => return Ok(Err(format!("the state of rule `{rule}` is damaged: {error}"))),
            },
        };
        states.entry(rule.into()).or_default().push(SealedState { fingerprint, watermark, batch });
    }
    Ok(Ok(states))
}

fn marks(conn: &Connection) -> rusqlite::Result<HashMap<Arc<str>, Vec<u64>>> {
    let mut select =
        conn.prepare("SELECT stream, marks FROM journal WHERE length(marks) > 0 ORDER BY id DESC LIMIT ?1")?;
    let mut rows = select.query([MARKS as u64])?;
    let mut found: HashMap<Arc<str>, Vec<u64>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let of_stream = found.entry(row.get::<_, String>(0)?.into()).or_default();
        let marks = row.get_ref(1)?.as_blob().unwrap_or_default().chunks_exact(8).rev();
        let room = MARKS.saturating_sub(of_stream.len());
        of_stream.extend(marks.take(room).filter_map(|mark| mark.try_into().ok().map(u64::from_le_bytes)));
    }
    // They were read from the newest back.
    found.values_mut().for_each(|marks| marks.reverse());
    Ok(found)
}

/// Some entries with `after < id`.
pub(super) fn read(conn: &Connection, after: u64) -> rusqlite::Result<Read> {
    let mut select = conn.prepare(
        "SELECT id, wall_ns, stream, first_seq, edit, data, coalesce(nullif(now_ns, 0), wall_ns) FROM \
        journal WHERE id > ?1 ORDER BY id",
    )?;
    let mut found = select.query([signed(after)])?;
    let (mut good, mut bad, mut bytes) = (Vec::new(), Vec::new(), 0);
    while bytes < READ_BYTES {
        let Some(row) = found.next()? else { break };
        let (id, now_ns, wall_ns) = (row.get(0)?, row.get(6)?, row.get(1)?);
        let (stream, edit): (String, String) = (row.get(2)?, row.get(4)?);
        if !edit.is_empty() {
            good.push(JournalEntry { id, now_ns, wall_ns, step: JournalStep::Edit { edit, content: None } });
            continue;
        }
        if stream.is_empty() {
            let (seq, data) = (row.get(3)?, row.get_ref(5)?.as_blob().unwrap_or_default());
            let step = match data {
                [] => JournalStep::Tick { seq },
                data => JournalStep::Listened { seq, streams: String::from_utf8_lossy(data).into_owned() },
            };
            good.push(JournalEntry { id, now_ns, wall_ns, step });
            continue;
        }
        match block::decode_batch(row.get_ref(5)?.as_blob().unwrap_or_default()) {
            Ok(batch) => {
                bytes += size(&batch);
                let rows = Rows { batch, seqs: Seqs::Run { first: row.get(3)? } };
                let step =
                    JournalStep::Rows { stream: stream.into(), rows, marks: Vec::new(), ack: Ack::none() };
                good.push(JournalEntry { id, now_ns, wall_ns, step });
            }
            Err(error) => bad.push((id, error.to_string())),
        }
    }
    Ok((good, bad))
}

fn size(batch: &RecordBatch) -> usize {
    batch.get_array_memory_size().max(1)
}
