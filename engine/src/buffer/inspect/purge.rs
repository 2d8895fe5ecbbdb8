//! Deletes what a person no longer wants: the one thing here that writes.

use std::fs::{File, TryLockError};
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;
use tidegate_core::Clock;
use tidegate_core::clock::SystemClock;

use super::{Inspector, sql};
use crate::buffer::changes::{Gone, Step};
use crate::buffer::database::{beside, prepare, read_meta};
use crate::buffer::decisions::Groups;
use crate::buffer::room::RuleSizes;
use crate::buffer::{BufferError, Uplinks, signed};
use crate::disk::SystemDisk;

/// Blocks that one transaction deletes, so that the write-ahead log stays small: the disk may be full.
const AT_ONCE: u32 = 256;

/// What is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// rows that could not be delivered and were put aside; the uplink is told by a gap record
    Refused,
    /// records of dropped rows that the uplink has not confirmed: nobody will be told of them
    Gaps,
    /// rows of this rule that wait; the uplink is told by a gap record
    Rule(String),
    /// all rows that wait; the uplink is told by a gap record for each rule
    AllWaiting,
}

impl Purge {
    /// Table, and the rule that is wanted.
    fn place(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Refused => ("refused", None),
            Self::Gaps => ("gap", None),
            Self::Rule(rule) => ("block", Some(rule)),
            Self::AllWaiting => ("block", None),
        }
    }

    /// Why the rows will be missing. Refused rows were lost by that already.
    fn reason(&self) -> &'static str {
        if *self == Self::Refused { "refused" } else { "purged" }
    }
}

/// What was deleted, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// blocks, or records of gaps
    pub entries: u64,
    /// rows in them, or rows whose loss they record
    pub rows: u64,
    /// packed bytes
    pub bytes: u64,
}

impl Inspector {
    /// What [`purge`] would delete.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn would_purge(&self, what: &Purge) -> Result<Purged, BufferError> {
        count(&self.conn, what).map_err(|error| self.sql(error))
    }
}

fn count(conn: &Connection, what: &Purge) -> rusqlite::Result<Purged> {
    let (table, rule) = what.place();
    let bytes = if table == "gap" { "0" } else { "coalesce(sum(length(data)), 0)" };
    let sums = format!(
        "SELECT count(*), coalesce(sum(rows), 0), {bytes} FROM {table} WHERE ?1 IS NULL OR rule = ?1"
    );
    conn.query_row(&sums, [rule], |row| {
        Ok(Purged { entries: row.get(0)?, rows: row.get(1)?, bytes: row.get(2)? })
    })
}

/// Deletes `what` from the buffer at `path`, and gives the space back.
///
/// # Errors
/// When a box has the buffer open, or the file cannot be read or written; then some of it may have been
/// deleted.
pub fn purge(path: &Path, what: &Purge) -> Result<Purged, BufferError> {
    // A file that is no buffer is not touched.
    drop(Inspector::open(path)?);
    let io = |error| BufferError::Io { path: beside(path, ".lock"), error };
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(beside(path, ".lock"))
        .map_err(io)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => BufferError::Running(path.to_owned()),
        TryLockError::Error(error) => io(error),
    })?;
    let mut conn = prepare(&SystemDisk, path)?;
    let mut work = || -> rusqlite::Result<Purged> {
        let purged = count(&conn, what)?;
        if *what == Purge::Gaps {
            conn.execute("DELETE FROM gap", [])?;
        } else {
            // What was there may have been sent, and must not change any more.
            let gaps_before = read_meta(&conn)?.0.last_gap;
            let mut after = i64::MIN;
            while let Some(last) = delete_some(&mut conn, what, after, gaps_before)? {
                after = last;
            }
        }
        // Each step gives back one page.
        let mut vacuum = conn.prepare("PRAGMA incremental_vacuum")?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        Ok(purged)
    };
    let purged = work().map_err(|error| sql(path, error))?;
    conn.close().map_err(|(_, error)| sql(path, error))?;
    drop(lock);
    Ok(purged)
}

/// Deletes the first blocks with `id > after`, with a gap record in their place. Returns the last one's id,
/// if there was any.
fn delete_some(
    conn: &mut Connection,
    what: &Purge,
    after: i64,
    gaps_before: u64,
) -> rusqlite::Result<Option<i64>> {
    let (table, rule) = what.place();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let ids: Vec<u64> = tx
        .prepare(&format!(
            "SELECT id FROM {table} WHERE id > ?1 AND (?2 IS NULL OR rule = ?2) ORDER BY id LIMIT {AT_ONCE}"
        ))?
        .query_map(params![after, rule], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let uplinks = Uplinks::noted(&tx)?;
    let totals = read_meta(&tx)?.0;
    let mut groups = Groups::default();
    let mut step = Step {
        tx: &tx,
        totals,
        uplinks: &uplinks,
        rule_sizes: RuleSizes::default(),
        groups: &mut groups,
        gaps_fetched: gaps_before,
        wall_ns: SystemClock.wall_ns(),
        now_ns: totals.now_ns,
    };
    let forget =
        "DELETE FROM refused WHERE id = ?1 RETURNING id, rule, first_seq, last_seq, rows, length(data)";
    for id in &ids {
        let gone = match what {
            Purge::Refused => Some((tx.query_row(forget, [signed(*id)], Gone::read)?, String::new())),
            _ => step.delete("id = ?1", *id)?,
        };
        if let Some((gone, missed_by)) = gone {
            step.gap(&gone.gap(what.reason()), &missed_by)?;
        }
    }
    step.totals.write(&tx)?;
    tx.commit()?;
    Ok(ids.last().map(|id| signed(*id)))
}
