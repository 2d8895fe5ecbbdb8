//! What the box was told from afar and what became of it, on disk before anybody is told. Whoever
//! brings commands is never the source of truth.
//!
//! A command, its record in the audit and the counters that make it new are written in one transaction. Whoever
//! cannot write that down does nothing.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;
use tidegate_trust::audit::{Chain, Record, Stored};
use tidegate_trust::command::{Command, CommandId};
use tidegate_trust::freshness::Freshness;
use tidegate_trust::gate::Admitted;
use tidegate_trust::op::Target;
use tidegate_trust::outcome::{Report, State};
use tidegate_trust::{Code, Digest, WallTime};

use crate::disk::Disk;

/// The file's name in the data directory.
pub const NAME: &str = "management.db";

/// Layout of this program; `user_version` in the file.
const VERSION: i64 = 1;

/// How long an id is known. At least as long as a command may be good.
const MEMORY_US: i64 = 400 * 24 * 3_600 * 1_000_000;
/// How many commands that have ended are known at most, so that nobody fills the disk.
const MOST_ENDED: i64 = 100_000;

const LAYOUT: &str = "
    CREATE TABLE command (id TEXT PRIMARY KEY, digest TEXT NOT NULL, target TEXT NOT NULL, ctr INTEGER,
        admitted TEXT NOT NULL, report TEXT NOT NULL, standing INTEGER NOT NULL, received_us INTEGER NOT NULL) \
    WITHOUT ROWID;
    CREATE INDEX command_standing ON command (standing, received_us);
    CREATE INDEX command_target ON command (target, ctr);
    CREATE TABLE audit (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL, hash TEXT NOT NULL);
    CREATE TABLE checkpoint (seq INTEGER PRIMARY KEY, envelope TEXT NOT NULL);
    CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// Why nothing was written down.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite failed.
    #[error("what was told from afar cannot be written down in {}: {error}", path.display())]
    Sql {
        /// the file
        path: PathBuf,
        /// why
        error: rusqlite::Error,
    },
    /// A newer program has made the file.
    #[error(
        "{} has layout {found}, and this program knows {VERSION}: use the program that is as new as the file",
        path.display()
    )]
    Newer {
        /// the file
        path: PathBuf,
        /// its layout
        found: i64,
    },
    /// Something in it is not what was written.
    #[error("{} is damaged: {what} cannot be read: {why}", path.display())]
    Damaged {
        /// the file
        path: PathBuf,
        /// what
        what: &'static str,
        /// why
        why: String,
    },
    /// A record cannot be put on the chain.
    #[error("the audit takes no more records: {0}")]
    Audit(String),
}

/// A command as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// what was asked for, and by whom
    pub admitted: Admitted,
    /// how far it is
    pub report: Report,
}

impl Kept {
    /// What it is about: of two commands about one thing, the one with the higher counter counts.
    #[must_use]
    pub fn target(&self) -> String {
        let Command { op, args, .. } = &self.admitted.command;
        let named = |what: &str, key: &str| {
            let name = args.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
            let instance = args.get("instance").and_then(serde_json::Value::as_str).unwrap_or_default();
            format!("{what} {name} {instance}").trim_end().to_owned()
        };
        match op.terms().target {
            Target::Rule => named("rule", "name"),
            Target::Output => named("output", "output"),
            Target::TheBox => op.name().split('.').next().unwrap_or_default().to_owned(),
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.report.state, State::Ended(_))
    }
}

/// How a command stands in the file.
const OPEN: i64 = 0;
const DONE: i64 = 1;
const FAILED: i64 = 2;

fn standing(state: State) -> i64 {
    match state {
        State::Init | State::Executing(_) => OPEN,
        State::Ended(Code::Ok) => DONE,
        State::Ended(_) => FAILED,
    }
}

/// What goes into one transaction.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    /// a command that is new, or has come further
    pub command: Option<&'a Kept>,
    /// what is known of counters and time from now on
    pub freshness: Option<&'a Freshness>,
}

/// The file.
pub struct Ledger {
    conn: Connection,
    path: PathBuf,
    chain: Chain,
}

impl Ledger {
    /// Opens the one in `dir`, or makes it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join(NAME);
        let sql = |error| LedgerError::Sql { path: path.clone(), error };
        let conn = disk.database(&path).map_err(sql)?;
        // What was answered has to outlast a power cut.
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").map_err(sql)?;
        let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql)?;
        if found > VERSION {
            return Err(LedgerError::Newer { path, found });
        }
        if found == 0 {
            conn.execute_batch(&format!("BEGIN IMMEDIATE; {LAYOUT} COMMIT;")).map_err(sql)?;
        }
        let mut ledger = Self { conn, path, chain: Chain::default() };
        if let Some(chain) = ledger.kept("chain")? {
            ledger.chain = chain;
        }
        Ok(ledger)
    }

    fn sql(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::Sql { path: self.path.clone(), error }
    }

    fn damaged(&self, what: &'static str, why: impl ToString) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), what, why: why.to_string() }
    }

    /// What is kept under a name.
    fn kept<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, LedgerError> {
        let sql = "SELECT value FROM kept WHERE name = ?1";
        let text: Option<String> =
            self.conn.query_row(sql, [name], |row| row.get(0)).optional().map_err(|error| self.sql(error))?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| self.damaged(name, error))).transpose()
    }

    /// What is known of counters and time; none: nothing was ever admitted.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn freshness(&self) -> Result<Option<Freshness>, LedgerError> {
        self.kept("freshness")
    }

    /// The command of this id.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn command(&self, id: &CommandId) -> Result<Option<Kept>, LedgerError> {
        let sql = "SELECT admitted, report FROM command WHERE id = ?1";
        let texts = self.conn.query_row(sql, [id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
        let texts: Option<(String, String)> = texts.optional().map_err(|error| self.sql(error))?;
        texts.map(|(admitted, report)| self.read(&admitted, &report)).transpose()
    }

    /// Those that have not ended, in the order in which they came.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open_commands(&self) -> Result<Vec<Kept>, LedgerError> {
        self.commands("standing = 0 ORDER BY received_us, id")
    }

    /// Those that ended last, newest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn ended_commands(&self, most: usize) -> Result<Vec<Kept>, LedgerError> {
        self.commands(&format!("standing > 0 ORDER BY received_us DESC LIMIT {most}"))
    }

    fn commands(&self, which: &str) -> Result<Vec<Kept>, LedgerError> {
        let sql = format!("SELECT admitted, report FROM command WHERE {which}");
        let mut found = self.conn.prepare(&sql).map_err(|error| self.sql(error))?;
        let rows = found.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        let rows = rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| self.sql(error))?;
        rows.iter().map(|(admitted, report)| self.read(admitted, report)).collect()
    }

    /// The newest counter of a command about this that went well.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest_counter(&self, target: &str) -> Result<Option<u64>, LedgerError> {
        let sql = "SELECT max(ctr) FROM command WHERE target = ?1 AND standing = 1";
        let newest: Option<i64> =
            self.conn.query_row(sql, [target], |row| row.get(0)).map_err(|error| self.sql(error))?;
        Ok(newest.and_then(|ctr| u64::try_from(ctr).ok()))
    }

    fn read(&self, admitted: &str, report: &str) -> Result<Kept, LedgerError> {
        let damaged = |error: serde_json::Error| self.damaged("a command", error);
        let admitted = serde_json::from_str(admitted).map_err(damaged)?;
        Ok(Kept { admitted, report: serde_json::from_str(report).map_err(damaged)? })
    }

    /// Writes all of it down, or nothing. Returns the number of the record in the audit, which the command's
    /// report has then.
    ///
    /// # Errors
    /// When the disk fails: nothing has happened then.
    pub fn write(&mut self, record: &Record, entry: Entry<'_>) -> Result<u64, LedgerError> {
        let mut chain = self.chain.clone();
        let stored = chain.append(record).map_err(LedgerError::Audit)?;
        let path = self.path.clone();
        let written = write(&mut self.conn, &stored, &chain, entry, record.wall);
        written.map_err(|error| LedgerError::Sql { path, error })?;
        self.chain = chain;
        Ok(stored.seq)
    }

    /// The records from `first` on, as many as `most`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn records(&self, first: u64, most: usize) -> Result<Vec<Stored>, LedgerError> {
        let sql = "SELECT seq, bytes, hash FROM audit WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
        let mut found = self.conn.prepare(sql).map_err(|error| self.sql(error))?;
        let rows = found.query_map(
            params![i64::try_from(first).unwrap_or(i64::MAX), i64::try_from(most).unwrap_or(i64::MAX)],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?)),
        );
        let rows = rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| self.sql(error))?;
        let stored = rows.into_iter().map(|(seq, bytes, hash)| {
            let hash = Digest::from_hex(&hash).map_err(|why| self.damaged("a record of the audit", why))?;
            Ok(Stored { seq: seq.unsigned_abs(), bytes, hash })
        });
        stored.collect()
    }
}

fn write(
    conn: &mut Connection,
    stored: &Stored,
    chain: &Chain,
    entry: Entry<'_>,
    wall: WallTime,
) -> rusqlite::Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT INTO audit (seq, bytes, hash) VALUES (?1, ?2, ?3)",
        params![signed(stored.seq), stored.bytes, stored.hash.hex()],
    )?;
    keep(&transaction, "chain", &json(chain)?)?;
    if let Some(freshness) = entry.freshness {
        keep(&transaction, "freshness", &json(freshness)?)?;
    }
    if let Some(command) = entry.command {
        let Kept { admitted, report } = command;
        transaction.execute(
            "INSERT INTO command (id, digest, target, ctr, admitted, report, standing, received_us)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
            ON CONFLICT (id) DO UPDATE SET report = excluded.report, standing = excluded.standing,
                admitted = excluded.admitted",
            params![
                report.id.as_str(),
                admitted.digest.hex(),
                command.target(),
                admitted.command.ctr.map(signed),
                json(admitted)?,
                json(report)?,
                standing(report.state),
                wall.micros(),
            ],
        )?;
        forget(&transaction, wall)?;
    }
    transaction.commit()
}

fn keep(transaction: &Transaction<'_>, name: &str, value: &str) -> rusqlite::Result<usize> {
    let sql = "INSERT INTO kept (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    transaction.execute(sql, [name, value])
}

/// Commands that ended long ago are forgotten: their counters protect.
fn forget(transaction: &Transaction<'_>, wall: WallTime) -> rusqlite::Result<()> {
    let oldest = wall.micros().saturating_sub(MEMORY_US);
    transaction.execute("DELETE FROM command WHERE standing > 0 AND received_us < ?1", [oldest])?;
    let sql = "DELETE FROM command WHERE id IN (SELECT id FROM command WHERE standing > 0
        ORDER BY received_us DESC LIMIT -1 OFFSET ?1)";
    transaction.execute(sql, [MOST_ENDED])?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
