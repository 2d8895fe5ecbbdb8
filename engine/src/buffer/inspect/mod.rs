//! Looks into a buffer from outside, with a connection of its own: beside the box that uses it, or into a
//! copied file.
//!
//! # Invariants
//! * The connection is read-only. Only [`purge`](purge::purge) writes, and it holds `PATH.lock`, so no box
//!   has the buffer open then.
//! * In WAL mode a reader and the writer never wait for each other, but the writer cannot start its log anew
//!   while we read. So rows are read a block a transaction. What one transaction has to see (the totals, the
//!   file as a whole) is read without the rows' bytes where that is possible.
//! * One block is in memory at a time, however large the file is.
//! * What cannot be read is named, and does not hide what can.

mod decisions;
mod journal;
mod purge;
mod rows;
mod stats;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::database::{VERSION, beside};
use super::{BufferError, clocks};
use crate::time::Readings;

pub use decisions::{Answer, Decisions};
pub use journal::{JournaledEntry, JournaledRows, Stretch};
pub use purge::{Purge, Purged, purge};
pub use rows::{Portion, Reader, Source};
pub use stats::{
    Decided, Gaps, Journal, Moment, Outbox, Refused, RuleRows, Snapshots, State, Stats, StreamRows,
};
pub use verify::{Checked, Problem, Verdict};

/// How long we wait while the box opens the file or repairs its log: nothing else locks readers out.
const BUSY: Duration = Duration::from_secs(5);
/// Tables of every layout, and those that came with layouts 2 to 6.
const TABLES: [&str; 4] = ["meta", "block", "refused", "gap"];
const TABLES_2: [&str; 4] = ["journal", "snapshot", "state", "progress"];
const TABLES_3: [&str; 1] = ["confirmed"];
const TABLES_4: [&str; 1] = ["clocks"];
const TABLES_5: [&str; 1] = ["content"];
const TABLES_6: [&str; 3] = ["decision", "decision_basis", "decision_group"];

/// A buffer that is looked at.
pub struct Inspector {
    conn: Connection,
    path: PathBuf,
    layout: i64,
}

impl Inspector {
    /// Opens the buffer at `path` for reading.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or it is not a buffer that this program knows.
    pub fn open(path: &Path) -> Result<Self, BufferError> {
        present(path)?;
        let (conn, layout) = match connect(path, path, OpenFlags::SQLITE_OPEN_READ_ONLY) {
            // Who may not write into the directory cannot make the files that go with the log. Without a log
            // they are not needed.
            Err(BufferError::Sql { error, .. })
                if cannot_make_files(&error) && !beside(path, "-wal").exists() =>
            {
                connect(
                    path,
                    &immutable(path),
                    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
                )?
            }
            other => other?,
        };
        Ok(Self { conn, path: path.to_owned(), layout })
    }

    /// The number of the layout that the file has.
    #[must_use]
    pub fn layout(&self) -> i64 {
        self.layout
    }

    /// The column of the sequence's time; 0 where the layout has none.
    fn now_ns(&self) -> &'static str {
        if self.layout >= 4 { "now_ns" } else { "0" }
    }

    /// What is known of the box's clocks.
    fn readings(&self) -> rusqlite::Result<Readings> {
        if self.has("clocks")? { clocks::read(&self.conn) } else { Ok(Readings::default()) }
    }

    /// Whether the file has this table.
    fn has(&self, table: &str) -> rusqlite::Result<bool> {
        let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        self.conn.query_row(count, [table], |row| Ok(row.get::<_, u64>(0)? > 0))
    }

    /// The rules or streams that `source` is one of.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn names(&self, source: &Source) -> Result<BTreeSet<String>, BufferError> {
        let (table, column, _) = source.place();
        let work = || {
            if !self.has(table)? {
                return Ok(BTreeSet::new());
            }
            // Not DISTINCT, which would sort a copy of every name.
            let mut select =
                self.conn.prepare(&format!("SELECT {column} FROM {table} WHERE {column} <> ''"))?;
            select.query_map([], |row| row.get(0))?.collect()
        };
        work().map_err(|error| self.sql(error))
    }

    fn sql(&self, error: rusqlite::Error) -> BufferError {
        sql(&self.path, error)
    }
}

fn sql(path: &Path, error: rusqlite::Error) -> BufferError {
    BufferError::Sql { path: path.to_owned(), error }
}

/// SQLite would say only that it cannot open the file.
fn present(path: &Path) -> Result<(), BufferError> {
    match path.metadata() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(BufferError::Absent(path.to_owned()))
        }
        Err(error) => Err(BufferError::Io { path: path.to_owned(), error }),
    }
}

/// Opens `name`, which stands for the file `path`, and returns its layout.
fn connect(path: &Path, name: &Path, flags: OpenFlags) -> Result<(Connection, i64), BufferError> {
    let conn = Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| sql(path, error))?;
    let read = || -> rusqlite::Result<(i64, Option<String>)> {
        conn.busy_timeout(BUSY)?;
        let version = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let table = conn
            .query_row("SELECT name FROM sqlite_schema LIMIT 1", params![], |row| row.get(0))
            .optional()?;
        Ok((version, table))
    };
    match read().map_err(|error| sql(path, error))? {
        (found, _) if found > VERSION => {
            Err(BufferError::Newer { path: path.to_owned(), found, ours: VERSION })
        }
        (..=0, Some(table)) => Err(BufferError::Foreign { path: path.to_owned(), table }),
        (..=0, None) => Err(BufferError::Absent(path.to_owned())),
        (layout, _) => Ok((conn, layout)),
    }
}

fn cannot_make_files(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
    )
}

/// The URI by which SQLite opens a file that nobody changes (<https://sqlite.org/uri.html>).
fn immutable(path: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for c in path.to_string_lossy().chars() {
        match c {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            other => uri.push(other),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}
