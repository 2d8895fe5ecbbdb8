//! The journal, entry by entry, as it came.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use rusqlite::{OptionalExtension, params};
use tidegate_core::{Rows, Seqs};

use super::Inspector;
use crate::buffer::{BufferError, block, signed};
use crate::time::Readings;

/// Entries that are read at a time, and how many packed bytes of rows.
const ENTRIES: usize = 1_024;
const BYTES: usize = 4 << 20;

/// Entries of the journal between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// the first entry
    pub first: u64,
    /// the last one
    pub last: u64,
    /// packed bytes of the rows in them
    pub bytes: u64,
    /// whether there are none before it that were wanted, because the journal does not go back so far
    pub is_cut: bool,
}

/// An entry, as far as it has rows.
#[derive(Debug, Clone)]
pub struct JournaledEntry {
    /// its number
    pub id: u64,
    /// the sequence's time
    pub now_ns: i64,
    /// what the wall clock showed, nanoseconds since 1970
    pub wall_ns: i64,
    /// packed bytes of the rows
    pub bytes: u64,
    /// what came with it
    pub came: JournaledRows,
}

/// What came with an entry.
#[derive(Debug, Clone)]
pub enum JournaledRows {
    /// rows of a stream
    Rows(Arc<str>, Rows),
    /// rows of a stream that are not wanted, and how many
    Unwanted(Arc<str>, u64),
    /// no rows: time, a change of the rules, news of a line
    None,
    /// rows that do not decode, and why
    Unreadable(Arc<str>, String),
}

impl Inspector {
    /// The entries that came from `since_ns` on and before `until_ns`, by the wall clock, corrected where it
    /// was wrong. `None`: there are none.
    ///
    /// # Errors
    /// When the file cannot be read, or its layout has no journal.
    pub fn stretch(
        &self,
        since_ns: Option<i64>,
        until_ns: Option<i64>,
    ) -> Result<Option<Stretch>, BufferError> {
        if !self.has("journal").map_err(|error| self.sql(error))? {
            return Err(BufferError::NoJournal { path: self.path.clone(), layout: self.layout });
        }
        let work = || -> rusqlite::Result<Option<Stretch>> {
            let readings = self.readings()?;
            let ends = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM journal";
            let (oldest, newest): (i64, i64) =
                self.conn.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let first = since_ns.map_or(Ok(oldest), |since| self.from(oldest, newest, since, &readings))?;
            let end = newest.saturating_add(1);
            let end = until_ns.map_or(Ok(end), |until| self.from(oldest, newest, until, &readings))?;
            if first >= end {
                return Ok(None);
            }
            // Where there is a hole, it begins behind that.
            let there = "SELECT coalesce(min(id), ?1) FROM journal WHERE id >= ?1";
            let first: i64 = self.conn.query_row(there, [first], |row| row.get(0))?;
            let bytes = "SELECT coalesce(sum(length(data)), 0) FROM journal WHERE id >= ?1 AND id < ?2";
            let bytes = self.conn.query_row(bytes, [first, end], |row| row.get(0))?;
            let is_cut = since_ns.is_some() && first == oldest && oldest > 1;
            Ok(Some(Stretch { first: unsigned(first), last: unsigned(end - 1), bytes, is_cut }))
        };
        work().map_err(|error| self.sql(error))
    }

    /// The first entry, of those from `low` to `last`, that came at `wall_ns` or later.
    fn from(&self, low: i64, last: i64, wall_ns: i64, readings: &Readings) -> rusqlite::Result<i64> {
        let next = format!(
            "SELECT id, {}, wall_ns FROM journal WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT 1",
            self.now_ns()
        );
        let mut next = self.conn.prepare(&next)?;
        let (mut low, mut high) = (low, last.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let found = next.query_row([middle, high - 1], |row| {
                let (id, now_ns, shown_ns) = (row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?);
                Ok((id, readings.wall_of(now_ns).map_or(shown_ns, |wall| wall.wall_ns)))
            });
            match found.optional()? {
                Some((id, came)) if came < wall_ns => low = id + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The next entries behind `after`, up to `last`; none: there are no more. Rows of streams that are not
    /// `wanted` are not looked at.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn entries(
        &self,
        after: u64,
        last: u64,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<JournaledEntry>, BufferError> {
        // Entries of older layouts have only wall time.
        let select = format!(
            "SELECT id, stream, first_seq, data, coalesce(nullif({}, 0), wall_ns), wall_ns, edit = '', rows \
            FROM journal WHERE id > ?1 AND id <= ?2 ORDER BY id",
            self.now_ns()
        );
        let work = || -> rusqlite::Result<Vec<JournaledEntry>> {
            let mut select = self.conn.prepare_cached(&select)?;
            let mut found = select.query(params![signed(after), signed(last)])?;
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while entries.len() < ENTRIES && bytes < BYTES {
                let Some(row) = found.next()? else { break };
                let (stream, is_no_edit): (String, bool) = (row.get(1)?, row.get(6)?);
                let data = row.get_ref(3)?.as_blob().unwrap_or_default();
                bytes += data.len();
                let came = if stream.is_empty() || !is_no_edit {
                    JournaledRows::None
                } else if !wanted(&stream) {
                    JournaledRows::Unwanted(stream.into(), row.get(7)?)
                } else {
                    match block::decode_batch(data) {
                        Ok(batch) => {
                            let rows = Rows { batch, seqs: Seqs::Run { first: row.get(2)? } };
                            JournaledRows::Rows(stream.into(), rows)
                        }
                        Err(error) => JournaledRows::Unreadable(stream.into(), error.to_string()),
                    }
                };
                entries.push(JournaledEntry {
                    id: row.get(0)?,
                    now_ns: row.get(4)?,
                    wall_ns: row.get(5)?,
                    bytes: data.len() as u64,
                    came,
                });
            }
            Ok(entries)
        };
        work().map_err(|error| self.sql(error))
    }

    /// The columns of the newest rows of `stream` in the journal. `None`: there are none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest_columns(&self, stream: &str) -> Result<Option<SchemaRef>, BufferError> {
        let newest = "SELECT data FROM journal WHERE stream = ?1 ORDER BY id DESC LIMIT 1";
        let data: Option<Vec<u8>> = self
            .conn
            .query_row(newest, [stream], |row| row.get(0))
            .optional()
            .map_err(|error| self.sql(error))?;
        Ok(data.and_then(|data| Some(block::decode_batch(&data).ok()?.schema())))
    }
}

fn unsigned(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(0)
}
