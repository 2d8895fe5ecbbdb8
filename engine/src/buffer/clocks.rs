//! What is known of the box's clocks: table `clocks` has a [`Reading`] a row. Rows and entries carry only the
//! sequence's time; a reading says what wall time that was, and one that comes later in the same boot can say
//! that it was wrong. So nothing that is stored has to be rewritten when the clock is set right.

use rusqlite::{Connection, params};

use super::changes::Step;
use super::decisions;
use crate::time::{Reading, Readings};

/// All readings.
pub(super) fn read(conn: &Connection) -> rusqlite::Result<Readings> {
    let mut select = conn.prepare(
        "SELECT now_ns, boot, monotonic_ns, wall_ns, synchronised FROM clocks ORDER BY now_ns, id",
    )?;
    let readings = select.query_map([], |row| {
        Ok(Reading {
            now_ns: row.get(0)?,
            boot: row.get::<_, String>(1)?.into(),
            monotonic_ns: row.get(2)?,
            wall_ns: row.get(3)?,
            synchronised: row.get(4)?,
        })
    })?;
    readings.collect::<rusqlite::Result<_>>().map(Readings)
}

impl Step<'_> {
    pub(super) fn reading(&self, reading: &Reading) -> rusqlite::Result<()> {
        let insert = "INSERT INTO clocks (now_ns, boot, monotonic_ns, wall_ns, synchronised) VALUES (?1, \
            ?2, ?3, ?4, ?5)";
        let Reading { now_ns, boot, monotonic_ns, wall_ns, synchronised } = reading;
        self.tx.execute(insert, params![now_ns, &**boot, monotonic_ns, wall_ns, synchronised])?;
        // The next start goes on behind it.
        self.tx.execute("UPDATE meta SET now_ns = ?1", [self.now_ns]).map(drop)
    }

    /// Deletes readings of boots of which nothing is left, but for the newest one that was right: it says how
    /// long the machine was off.
    pub(super) fn forget_readings(&self) -> rusqlite::Result<()> {
        let oldest = format!(
            "SELECT min(coalesce((SELECT now_ns FROM journal ORDER BY id LIMIT 1), ?1), coalesce((SELECT \
            now_ns FROM block ORDER BY id LIMIT 1), ?1), coalesce({}, ?1))",
            decisions::OLDEST_NS
        );
        let oldest: i64 = self.tx.query_row(&oldest, [self.now_ns], |row| row.get(0))?;
        self.tx.execute(
            "DELETE FROM clocks WHERE id <> (SELECT max(id) FROM clocks) AND id IS NOT (SELECT max(id) FROM \
            clocks WHERE synchronised)
             AND boot NOT IN (SELECT boot FROM clocks WHERE now_ns >= (SELECT coalesce(max(now_ns), 0) FROM \
            clocks WHERE now_ns <= ?1))",
            [oldest],
        )?;
        Ok(())
    }
}
