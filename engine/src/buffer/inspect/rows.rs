//! Rows, read back one block at a time.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use tidegate_core::{Rows, Seqs};

use super::Inspector;
use crate::buffer::{BufferError, block};
use crate::time::{Readings, WallTime};

/// Which rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// rows that wait for the uplink, of one rule or of all
    Waiting(Option<String>),
    /// rows that could not be delivered and were put aside, of one rule or of all
    Refused(Option<String>),
    /// rows of a stream, as they came in
    Stream(String),
}

impl Source {
    /// Table, the column that names the rule or the stream, and the name that is wanted.
    pub(super) fn place(&self) -> (&'static str, &'static str, Option<&str>) {
        match self {
            Self::Waiting(rule) => ("block", "rule", rule.as_deref()),
            Self::Refused(rule) => ("refused", "rule", rule.as_deref()),
            Self::Stream(stream) => ("journal", "stream", Some(stream)),
        }
    }
}

/// Rows of one block of a rule, or of one entry of a stream.
#[derive(Debug, Clone)]
pub struct Portion {
    /// the rule or the stream
    pub name: Arc<str>,
    /// the rows
    pub rows: Rows,
    /// one a row; none when they are of a stream
    pub ordinals: Vec<u32>,
    /// when they were written, as far as that is known; none when they are of a stream
    pub written: Option<WallTime>,
    /// when they came, were written or were put aside, in nanoseconds since 1970, as far as that is known
    pub at_ns: Option<i64>,
}

impl Portion {
    fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let rows = rows.start.min(self.rows.len())..rows.end.min(self.rows.len());
        Self {
            name: Arc::clone(&self.name),
            rows: self.rows.slice(rows.start, rows.len()),
            ordinals: self.ordinals.get(rows).unwrap_or_default().to_vec(),
            written: self.written,
            at_ns: self.at_ns,
        }
    }
}

/// A block or an entry as it is in the file.
struct Stored {
    id: i64,
    name: String,
    first_seq: u64,
    data: Vec<u8>,
    now_ns: i64,
    wall_ns: Option<i64>,
}

/// Reads rows in the order in which they were written. What is written after it was made is not read.
pub struct Reader<'a> {
    inspector: &'a Inspector,
    source: Source,
    readings: Readings,
    after: i64,
    until: i64,
    /// rows to pass over
    skip: u64,
    /// rows that are wanted still
    left: u64,
    unreadable: u64,
}

impl<'a> Reader<'a> {
    /// Reads the oldest `limit` rows of `source`, or the newest.
    ///
    /// # Errors
    /// When the file cannot be read, or its layout has no rows of that kind.
    pub fn new(
        inspector: &'a Inspector,
        source: Source,
        limit: u64,
        newest: bool,
    ) -> Result<Self, BufferError> {
        let (table, column, name) = source.place();
        let sql = |error| inspector.sql(error);
        if !inspector.has(table).map_err(sql)? {
            return Err(BufferError::NoJournal { path: inspector.path.clone(), layout: inspector.layout });
        }
        let newest_id = format!("SELECT coalesce(max(id), 0) FROM {table}");
        let until = inspector.conn.query_row(&newest_id, [], |row| row.get(0)).map_err(sql)?;
        let readings = inspector.readings().map_err(sql)?;
        let mut reader = Self {
            inspector,
            source: source.clone(),
            readings,
            after: i64::MIN,
            until,
            skip: 0,
            left: limit,
            unreadable: 0,
        };
        if newest {
            let work = || -> rusqlite::Result<_> {
                let mut select = inspector.conn.prepare(&format!(
                    "SELECT id, rows FROM {table} WHERE id <= ?1 AND (?2 IS NULL OR \
                        {column} = ?2) ORDER BY id DESC"
                ))?;
                let mut found = select.query(params![until, name])?;
                let (mut first, mut rows) = (until, 0_u64);
                while rows < limit {
                    let Some(row) = found.next()? else { break };
                    first = row.get(0)?;
                    rows = rows.saturating_add(row.get(1)?);
                }
                Ok((first.saturating_sub(1), rows.saturating_sub(limit)))
            };
            (reader.after, reader.skip) = work().map_err(sql)?;
        }
        Ok(reader)
    }

    /// The next rows.
    ///
    /// # Errors
    /// When the file cannot be read. A block that does not decode is said, counted and passed over.
    pub fn read(&mut self) -> Result<Option<Portion>, BufferError> {
        while self.left > 0 {
            let Some(Stored { id, name, first_seq, data, now_ns, wall_ns }) = self.fetch()? else { break };
            self.after = id;
            let decoded = match &self.source {
                Source::Stream(_) => block::decode_batch(&data)
                    .map(|batch| (Rows { batch, seqs: Seqs::Run { first: first_seq } }, Vec::new())),
                _ => block::decode(&data),
            };
            let (rows, ordinals) = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.unreadable += 1;
                    let (table, ..) = self.source.place();
                    tracing::error!(table, id, name, %error, "rows cannot be read and are left out");
                    continue;
                }
            };
            let of_sequence = self.readings.wall_of(now_ns);
            let at_ns = of_sequence.map(|wall| wall.wall_ns).or(wall_ns);
            let written = of_sequence.filter(|_| matches!(self.source, Source::Waiting(_)));
            let whole = Portion { name: name.into(), rows, ordinals, written, at_ns };
            let skipped = whole.rows.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            let taken = (whole.rows.len() - skipped).min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            self.left -= taken as u64;
            if taken > 0 {
                return Ok(Some(whole.part(skipped..skipped + taken)));
            }
        }
        Ok(None)
    }

    /// How many blocks or entries could not be read so far.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn fetch(&self) -> Result<Option<Stored>, BufferError> {
        let (table, column, name) = self.source.place();
        // What is put aside has only the time at which it was.
        let now_ns = if table == "refused" { "0" } else { self.inspector.now_ns() };
        let wall_ns = if table == "block" { "NULL" } else { "wall_ns" };
        let select = format!(
            "SELECT id, {column}, first_seq, data, {now_ns}, {wall_ns} FROM {table}
             WHERE id > ?1 AND id <= ?2 AND (?3 IS NULL OR {column} = ?3) ORDER BY id LIMIT 1"
        );
        let work = || {
            let mut select = self.inspector.conn.prepare(&select)?;
            let values = params![self.after, self.until, name];
            select
                .query_row(values, |row| {
                    Ok(Stored {
                        id: row.get(0)?,
                        name: row.get(1)?,
                        first_seq: row.get(2)?,
                        data: row.get(3)?,
                        now_ns: row.get(4)?,
                        wall_ns: row.get(5)?,
                    })
                })
                .optional()
        };
        work().map_err(|error| self.inspector.sql(error))
    }
}

/// A journal entry with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Came {
    /// the number behind its last row
    pub(super) end: u64,
    /// when it came: nanoseconds since 1970, by the box's clock
    pub(super) wall_ns: i64,
}

/// The entry of row `seq`, if the journal has it.
pub(super) fn entry_of(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Came>> {
    let ends = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM journal";
    let (mut low, mut high): (i64, i64) = conn.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // Numbers rise with the ids, and there is no index on them.
    let entry = "SELECT id, first_seq, rows, wall_ns FROM journal WHERE id >= ?1 AND id <= ?2 AND rows > 0 \
        ORDER BY id LIMIT 1";
    let mut entry = conn.prepare(entry)?;
    while low <= high {
        let middle = low + (high - low) / 2;
        let read = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?, row.get::<_, u64>(2)?, row.get(3)?))
        };
        let Some((id, first, rows, wall_ns)) = entry.query_row([middle, high], read).optional()? else {
            high = middle - 1;
            continue;
        };
        if seq < first {
            high = middle - 1;
        } else if seq - first < rows {
            return Ok(Some(Came { end: first.saturating_add(rows), wall_ns }));
        } else {
            low = id + 1;
        }
    }
    Ok(None)
}
