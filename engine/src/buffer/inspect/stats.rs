//! What is in a buffer, in numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::Row;
use serde::Serialize;

use super::{Inspector, rows};
use crate::buffer::BufferError;
use crate::buffer::database::beside;
use crate::time::{Known, Readings, WallTime};

/// What is in a buffer. Times are nanoseconds since 1970, by the box's clock, and corrected where that is
/// known to have been wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// the file
    pub path: PathBuf,
    /// its layout
    pub layout: i64,
    /// size of the database
    pub file_bytes: u64,
    /// size of the write-ahead log beside it
    pub wal_bytes: u64,
    /// pages of the database that hold nothing
    pub free_bytes: u64,
    /// rows that wait for the uplink
    pub outbox: Outbox,
    /// rows that could not be delivered and were put aside, by rule and reason
    pub refused: Vec<Refused>,
    /// records of rows that were dropped, by rule and reason
    pub gaps: Vec<Gaps>,
    /// rows as they came in; none when the layout has no journal
    pub journal: Option<Journal>,
    /// kept state of rules; none when the layout has no snapshots
    pub snapshots: Option<Snapshots>,
    /// what was decided about outputs, by output; none when the layout has no decisions
    pub decisions: Option<Vec<Decided>>,
}

/// Rows that wait for the uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outbox {
    /// rows
    pub rows: u64,
    /// blocks that hold them
    pub blocks: u64,
    /// packed bytes of the blocks
    pub bytes: u64,
    /// the least row number
    pub oldest: Option<Moment>,
    /// the greatest row number
    pub newest: Option<Moment>,
    /// rows that were written while the clock was wrong, and whose times are corrected
    pub corrected_rows: u64,
    /// the same by rule
    pub rules: Vec<RuleRows>,
}

/// A row number, and when that row came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// the number
    pub seq: u64,
    /// unknown when an older program wrote it and the journal does not reach back so far
    pub wall_ns: Option<i64>,
}

/// Waiting rows of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RuleRows {
    /// the rule
    pub rule: String,
    /// rows
    pub rows: u64,
    /// blocks that hold them
    pub blocks: u64,
    /// packed bytes of the blocks
    pub bytes: u64,
    /// the least row number
    pub first_seq: u64,
    /// the greatest row number
    pub last_seq: u64,
}

/// Refused rows of a rule, for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// the rule
    pub rule: String,
    /// why they were refused
    pub reason: String,
    /// rows
    pub rows: u64,
    /// blocks that hold them
    pub blocks: u64,
    /// packed bytes of the blocks
    pub bytes: u64,
    /// when the last of them was refused
    pub wall_ns: i64,
}

/// Dropped rows of a rule, for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// the rule; `*` when nobody knows which
    pub rule: String,
    /// why they were dropped
    pub reason: String,
    /// records that the uplink has not confirmed
    pub records: u64,
    /// rows that are missing, as far as is known
    pub rows: u64,
    /// the first missing row's number
    pub first_seq: u64,
    /// the last missing row's number
    pub last_seq: u64,
    /// when the last of them was dropped
    pub wall_ns: i64,
}

/// Rows as they came in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Journal {
    /// entries, changes of the rules among them
    pub entries: u64,
    /// rows in them
    pub rows: u64,
    /// packed bytes, and those of what entries and snapshots name
    pub bytes: u64,
    /// changes of the rules
    pub edits: u64,
    /// rows that came while the clock was wrong, and whose times are corrected
    pub corrected_rows: u64,
    /// when the oldest entry was made
    pub oldest_ns: Option<i64>,
    /// when the newest entry was made
    pub newest_ns: Option<i64>,
    /// by stream
    pub streams: Vec<StreamRows>,
}

/// Journaled rows of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamRows {
    /// the stream
    pub stream: String,
    /// entries
    pub entries: u64,
    /// rows in them
    pub rows: u64,
    /// packed bytes
    pub bytes: u64,
    /// when the oldest entry was made
    pub oldest_ns: i64,
    /// when the newest entry was made
    pub newest_ns: i64,
}

/// Kept state of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Snapshots {
    /// how many there are
    pub count: u64,
    /// the journal entry that the newest one follows
    pub entry: Option<u64>,
    /// when the newest one was made
    pub wall_ns: Option<i64>,
    /// bytes of state in all of them
    pub bytes: u64,
    /// of the newest one, by rule
    pub rules: Vec<State>,
}

/// Kept state of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// the rule
    pub rule: String,
    /// parts that it consists of
    pub parts: u64,
    /// packed bytes
    pub bytes: u64,
}

/// Decisions about an output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// the output
    pub output: String,
    /// by what came of it: `sent`, `held`, `refused` and `answered`
    pub verdicts: BTreeMap<String, u64>,
    /// packed bytes
    pub bytes: u64,
    /// when the oldest was made
    pub oldest_ns: Option<i64>,
    /// when the newest was made
    pub newest_ns: Option<i64>,
}

impl Inspector {
    /// Counts what is there, as of one moment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stats(&self) -> Result<Stats, BufferError> {
        let work = || -> rusqlite::Result<Stats> {
            let _as_of_now = self.conn.unchecked_transaction()?;
            let number = |pragma| self.conn.query_row(pragma, [], |row| row.get::<_, u64>(0));
            let page = number("PRAGMA page_size")?;
            let readings = self.readings()?;
            let (has_journal, has_snapshots) =
                (self.has("journal")?, self.has("snapshot")? && self.has("state")?);
            Ok(Stats {
                path: self.path.clone(),
                layout: self.layout,
                file_bytes: size(&self.path),
                wal_bytes: size(&beside(&self.path, "-wal")),
                free_bytes: page * number("PRAGMA freelist_count")?,
                outbox: self.outbox(has_journal, &readings)?,
                refused: self.refused()?,
                gaps: self.gaps()?,
                journal: has_journal.then(|| self.journal(&readings)).transpose()?,
                snapshots: has_snapshots.then(|| self.snapshots()).transpose()?,
                decisions: self.has("decision")?.then(|| self.decided(&readings)).transpose()?,
            })
        };
        work().map_err(|error| self.sql(error))
    }

    fn outbox(&self, has_journal: bool, readings: &Readings) -> rusqlite::Result<Outbox> {
        let mut outbox = Outbox::default();
        // Row number and the sequence's time.
        let (mut oldest, mut newest) = (None::<(u64, i64)>, None::<(u64, i64)>);
        let mut rules: BTreeMap<String, RuleRows> = BTreeMap::new();
        self.each(
            &format!("SELECT rule, rows, length(data), first_seq, last_seq, {} FROM block", self.now_ns()),
            |row| {
                let (rule, rows, bytes, first_seq, last_seq): (String, u64, u64, u64, u64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                (outbox.rows, outbox.blocks, outbox.bytes) =
                    (outbox.rows + rows, outbox.blocks + 1, outbox.bytes + bytes);
                let of = rules.entry(rule).or_insert_with_key(|rule| RuleRows {
                    rule: rule.clone(),
                    first_seq,
                    ..RuleRows::default()
                });
                (of.rows, of.blocks, of.bytes) = (of.rows + rows, of.blocks + 1, of.bytes + bytes);
                (of.first_seq, of.last_seq) = (of.first_seq.min(first_seq), of.last_seq.max(last_seq));
                let now = row.get(5)?;
                outbox.corrected_rows += if is_corrected(readings.wall_of(now)) { rows } else { 0 };
                oldest = oldest.filter(|(seq, _)| *seq <= first_seq).or(Some((first_seq, now)));
                newest = newest.filter(|(seq, _)| *seq >= last_seq).or(Some((last_seq, now)));
                Ok(())
            },
        )?;
        let moment = |found: Option<(u64, i64)>| -> rusqlite::Result<_> {
            let Some((seq, now)) = found else { return Ok(None) };
            let written = readings.wall_of(now).map(|written| written.wall_ns);
            // The block may be newer than its oldest row.
            let came = if has_journal && !is_corrected(readings.wall_of(now)) {
                rows::entry_of(&self.conn, seq)?
            } else {
                None
            };
            Ok(Some(Moment { seq, wall_ns: came.map(|came| came.wall_ns).or(written) }))
        };
        (outbox.oldest, outbox.newest) = (moment(oldest)?, moment(newest)?);
        outbox.rules = rules.into_values().collect();
        Ok(outbox)
    }

    fn refused(&self) -> rusqlite::Result<Vec<Refused>> {
        let mut refused: BTreeMap<(String, String), Refused> = BTreeMap::new();
        self.each("SELECT rule, reason, rows, length(data), wall_ns FROM refused", |row| {
            let of = refused.entry((row.get(0)?, row.get(1)?)).or_insert_with_key(|(rule, reason)| Refused {
                rule: rule.clone(),
                reason: reason.clone(),
                ..Refused::default()
            });
            (of.rows, of.blocks, of.bytes) =
                (of.rows + row.get::<_, u64>(2)?, of.blocks + 1, of.bytes + row.get::<_, u64>(3)?);
            of.wall_ns = of.wall_ns.max(row.get(4)?);
            Ok(())
        })?;
        Ok(refused.into_values().collect())
    }

    fn gaps(&self) -> rusqlite::Result<Vec<Gaps>> {
        let mut gaps: BTreeMap<(String, String), Gaps> = BTreeMap::new();
        self.each("SELECT rule, reason, rows, first_seq, last_seq, wall_ns FROM gap", |row| {
            let first_seq = row.get(3)?;
            let of = gaps.entry((row.get(0)?, row.get(1)?)).or_insert_with_key(|(rule, reason)| Gaps {
                rule: rule.clone(),
                reason: reason.clone(),
                first_seq,
                ..Gaps::default()
            });
            (of.records, of.rows) = (of.records + 1, of.rows + row.get::<_, u64>(2)?);
            (of.first_seq, of.last_seq) = (of.first_seq.min(first_seq), of.last_seq.max(row.get(4)?));
            of.wall_ns = of.wall_ns.max(row.get(5)?);
            Ok(())
        })?;
        Ok(gaps.into_values().collect())
    }

    fn journal(&self, readings: &Readings) -> rusqlite::Result<Journal> {
        let mut journal = Journal::default();
        let mut streams: BTreeMap<String, StreamRows> = BTreeMap::new();
        let columns = format!(
            "stream, rows, length(data) + octet_length(edit) + length(marks), wall_ns, edit = '', {}",
            self.now_ns()
        );
        self.each(&format!("SELECT {columns} FROM journal"), |row| {
            let (rows, bytes, mut wall_ns): (u64, u64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
            if let Some(came) = readings.wall_of(row.get(5)?).filter(|came| is_corrected(Some(*came))) {
                wall_ns = came.wall_ns;
                journal.corrected_rows += rows;
            }
            (journal.entries, journal.rows, journal.bytes) =
                (journal.entries + 1, journal.rows + rows, journal.bytes + bytes);
            journal.oldest_ns = Some(journal.oldest_ns.map_or(wall_ns, |oldest| oldest.min(wall_ns)));
            journal.newest_ns = journal.newest_ns.max(Some(wall_ns));
            let stream: String = row.get(0)?;
            if stream.is_empty() {
                journal.edits += u64::from(!row.get::<_, bool>(4)?);
                return Ok(());
            }
            let of = streams.entry(stream).or_insert_with_key(|stream| StreamRows {
                stream: stream.clone(),
                oldest_ns: wall_ns,
                newest_ns: wall_ns,
                ..StreamRows::default()
            });
            (of.entries, of.rows, of.bytes) = (of.entries + 1, of.rows + rows, of.bytes + bytes);
            (of.oldest_ns, of.newest_ns) = (of.oldest_ns.min(wall_ns), of.newest_ns.max(wall_ns));
            Ok(())
        })?;
        if self.has("content")? {
            self.each("SELECT length(bytes) FROM content", |row| {
                journal.bytes += row.get::<_, u64>(0)?;
                Ok(())
            })?;
        }
        journal.streams = streams.into_values().collect();
        Ok(journal)
    }

    fn snapshots(&self) -> rusqlite::Result<Snapshots> {
        let mut snapshots = Snapshots::default();
        let mut newest = None;
        self.each("SELECT id, entry, wall_ns FROM snapshot ORDER BY id", |row| {
            snapshots.count += 1;
            newest = Some(row.get::<_, i64>(0)?);
            (snapshots.entry, snapshots.wall_ns) = (row.get(1)?, row.get(2)?);
            Ok(())
        })?;
        let mut rules: BTreeMap<String, State> = BTreeMap::new();
        self.each("SELECT snapshot, rule, length(data) FROM state", |row| {
            let bytes: u64 = row.get(2)?;
            snapshots.bytes += bytes;
            if Some(row.get(0)?) == newest {
                let of = rules
                    .entry(row.get(1)?)
                    .or_insert_with_key(|rule| State { rule: rule.clone(), ..State::default() });
                (of.parts, of.bytes) = (of.parts + 1, of.bytes + bytes);
            }
            Ok(())
        })?;
        snapshots.rules = rules.into_values().collect();
        Ok(snapshots)
    }

    fn decided(&self, readings: &Readings) -> rusqlite::Result<Vec<Decided>> {
        let mut groups: BTreeMap<u64, (String, String)> = BTreeMap::new();
        self.each("SELECT id, output, kind FROM decision_group", |row| {
            groups.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
            Ok(())
        })?;
        let mut outputs: BTreeMap<String, Decided> = BTreeMap::new();
        let mut note = |group: u64, bytes: u64, now_ns: Option<i64>| {
            let Some((output, kind)) = groups.get(&group) else { return };
            let of = outputs
                .entry(output.clone())
                .or_insert_with_key(|output| Decided { output: output.clone(), ..Decided::default() });
            of.bytes += bytes;
            let Some(now_ns) = now_ns else { return };
            *of.verdicts.entry(kind.clone()).or_default() += 1;
            let wall_ns = readings.wall_of(now_ns).map_or(now_ns, |time| time.wall_ns);
            of.oldest_ns = Some(of.oldest_ns.map_or(wall_ns, |oldest| oldest.min(wall_ns)));
            of.newest_ns = of.newest_ns.max(Some(wall_ns));
        };
        let size = "length(data) + octet_length(instance) + 24";
        self.each(&format!("SELECT id >> 40, {size}, now_ns FROM decision"), |row| {
            note(row.get(0)?, row.get(1)?, Some(row.get(2)?));
            Ok(())
        })?;
        self.each("SELECT id >> 40, length(data) FROM decision_basis", |row| {
            note(row.get(0)?, row.get(1)?, None);
            Ok(())
        })?;
        Ok(outputs.into_values().collect())
    }

    /// Calls `take` with each row. Sums are made here and not by GROUP BY, which would sort a copy of the
    /// table.
    fn each(
        &self,
        select: &str,
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut select = self.conn.prepare(select)?;
        let mut found = select.query([])?;
        while let Some(row) = found.next()? {
            take(row)?;
        }
        Ok(())
    }
}

fn is_corrected(time: Option<WallTime>) -> bool {
    time.is_some_and(|time| matches!(time.by, Known::Corrected { .. }))
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}
