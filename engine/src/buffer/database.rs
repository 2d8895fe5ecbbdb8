//! The SQLite file: opening, layout, and the statements that the writer runs.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::{BufferError, StoredBlock, block};
use crate::config::{self, WhenFull};

/// Layout of this program; `user_version` in the file.
const VERSION: i64 = 1;
/// Older SQLite can corrupt the database when the write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;
/// Row numbers that one start reserves; 2^53 / 2^32 leaves two million starts.
const RESERVE: u64 = 1 << 32;
const LAYOUT: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('sequence', 0);
    CREATE TABLE block (id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL, rows INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE refused (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, rows INTEGER NOT NULL, reason TEXT NOT NULL,
        wall_ns INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE gap (id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL, rows INTEGER NOT NULL, reason TEXT NOT NULL, wall_ns INTEGER NOT NULL);
    PRAGMA user_version = 1;";

/// A block that is ready to be inserted.
pub(super) struct NewBlock {
    pub(super) rule: std::sync::Arc<str>,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) rows: u64,
    pub(super) data: Vec<u8>,
}

/// What one transaction does.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) confirmed: Vec<u64>,
    pub(super) refused: Vec<(u64, String)>,
    pub(super) blocks: Vec<NewBlock>,
}

/// What a committed transaction did.
#[derive(Default)]
pub(super) struct Done {
    pub(super) last_id: Option<u64>,
    pub(super) dropped_rows: u64,
}

pub(super) struct Database {
    pub(super) conn: Connection,
    /// rows and bytes in `block`
    pub(super) waiting: u64,
    pub(super) bytes: u64,
    max_bytes: u64,
    when_full: WhenFull,
    lock: File,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn wall_ns() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Database {
    pub(super) fn open(settings: &config::Buffer) -> Result<Self, BufferError> {
        let path = &settings.path;
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(BufferError::OldSqlite(rusqlite::version()));
        }
        let io = |error| BufferError::Io { path: path.clone(), error };
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(beside(path, ".lock")).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BufferError::InUse(path.clone()),
            TryLockError::Error(error) => io(error),
        })?;
        let sql = |error| BufferError::Sql { path: path.clone(), error };
        let conn = match prepare(path) {
            Err(Failure::Sql(error)) if is_corrupt(&error) => {
                set_aside(path, &error).map_err(io)?;
                prepare(path)
            }
            other => other,
        }
        .map_err(|failure| match failure {
            Failure::Sql(error) => sql(error),
            Failure::Newer(found) => BufferError::Newer { path: path.clone(), found, ours: VERSION },
        })?;
        let (waiting, bytes) = conn
            .query_row("SELECT coalesce(sum(rows), 0), coalesce(sum(length(data)), 0) FROM block", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(sql)?;
        Ok(Self { conn, waiting, bytes, max_bytes: settings.max_size.0, when_full: settings.when_full, lock })
    }

    /// Reserves row numbers and returns the first and the end. The end is kept in the lock file as well, so that numbers do not
    /// repeat when a corrupt database is replaced.
    pub(super) fn reserve(&mut self) -> Result<(u64, u64), String> {
        let mut text = String::new();
        let noted: u64 = self
            .lock
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.lock.read_to_string(&mut text))
            .map(|_| text.trim().parse().unwrap_or(0))
            .map_err(|error| error.to_string())?;
        let stored: u64 =
            self.conn.query_row("SELECT value FROM meta WHERE key = 'sequence'", [], |row| row.get(0)).map_err(|e| e.to_string())?;
        let first = stored.max(noted);
        let end = first.checked_add(RESERVE).filter(|end| *end <= 1 << 53).ok_or("all row numbers are used up")?;
        self.conn.execute("UPDATE meta SET value = ?1 WHERE key = 'sequence'", [signed(end)]).map_err(|e| e.to_string())?;
        // Fixed width: a torn write cannot leave a shorter, smaller number.
        let note = |lock: &mut File| -> std::io::Result<()> {
            lock.seek(SeekFrom::Start(0))?;
            lock.write_all(format!("{end:020}\n").as_bytes())?;
            lock.sync_all()
        };
        note(&mut self.lock).map_err(|error| error.to_string())?;
        Ok((first, end))
    }

    /// Whether blocks of `size` bytes have to wait. An empty buffer takes anything, or a block larger than it would wait forever.
    pub(super) fn must_wait(&self, size: u64) -> bool {
        self.when_full == WhenFull::Block && size > 0 && self.bytes > 0 && self.bytes + size > self.max_bytes
    }

    /// Carries out `changes` in one transaction. On an error nothing of it has happened.
    pub(super) fn commit(&mut self, changes: &Changes) -> rusqlite::Result<Done> {
        let (mut waiting, mut bytes, mut done) = (self.waiting, self.bytes, Done::default());
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            for (id, reason) in &changes.refused {
                tx.execute(
                    "INSERT OR REPLACE INTO refused SELECT id, rule, rows, ?2, ?3, data FROM block WHERE id = ?1",
                    params![signed(*id), reason, wall_ns()],
                )?;
            }
            let mut delete = tx.prepare("DELETE FROM block WHERE id = ?1 RETURNING rows, length(data)")?;
            for id in changes.confirmed.iter().chain(changes.refused.iter().map(|(id, _)| id)) {
                let gone: Option<(u64, u64)> = delete.query_row([signed(*id)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                let (rows, size) = gone.unwrap_or_default();
                waiting = waiting.saturating_sub(rows);
                bytes = bytes.saturating_sub(size);
            }
            let size: u64 = changes.blocks.iter().map(|block| block.data.len() as u64).sum();
            while self.when_full == WhenFull::DropOldest && size > 0 && bytes > 0 && bytes + size > self.max_bytes {
                let oldest =
                    "DELETE FROM block WHERE id = (SELECT min(id) FROM block) RETURNING rule, first_seq, last_seq, rows, length(data)";
                let gone = tx.prepare(oldest)?.query_row([], |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, i64>(1)?,
                        row.get::<_, i64>(2)?,
                        row.get::<_, u64>(3)?,
                        row.get::<_, u64>(4)?,
                    ))
                });
                let Some((rule, first, last, rows, size)) = gone.optional()? else { break };
                tx.execute(
                    "INSERT INTO gap (rule, first_seq, last_seq, rows, reason, wall_ns) VALUES (?1, ?2, ?3, ?4, 'buffer full', ?5)",
                    params![rule, first, last, signed(rows), wall_ns()],
                )?;
                waiting = waiting.saturating_sub(rows);
                bytes = bytes.saturating_sub(size);
                done.dropped_rows += rows;
            }
            let mut insert = tx.prepare("INSERT INTO block (rule, first_seq, last_seq, rows, data) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for block in &changes.blocks {
                let id = insert.insert(params![
                    &*block.rule,
                    signed(block.first_seq),
                    signed(block.last_seq),
                    signed(block.rows),
                    block.data
                ])?;
                done.last_id = u64::try_from(id).ok();
                waiting += block.rows;
                bytes += block.data.len() as u64;
            }
        }
        tx.commit()?;
        (self.waiting, self.bytes) = (waiting, bytes);
        Ok(done)
    }

    /// The greatest block id ever given.
    pub(super) fn last_id(&self) -> rusqlite::Result<u64> {
        let seq = self.conn.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'block'", [], |row| row.get(0)).optional()?;
        Ok(seq.unwrap_or(0))
    }

    /// Up to `limit` blocks with `after < id <= until`, in order; and those that do not decode, with the reason.
    pub(super) fn fetch(&self, after: u64, until: u64, limit: usize) -> rusqlite::Result<(Vec<StoredBlock>, Vec<(u64, String)>)> {
        let mut select = self.conn.prepare("SELECT id, rule, data FROM block WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3")?;
        let mut rows = select.query(params![signed(after), signed(until), signed(limit as u64)])?;
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let (id, rule): (u64, String) = (row.get(0)?, row.get(1)?);
            match block::decode(row.get_ref(2)?.as_blob().unwrap_or_default()) {
                Ok((rows, ordinals)) => good.push(StoredBlock { id, rule: rule.into(), rows, ordinals }),
                Err(error) => bad.push((id, format!("damaged: {error}"))),
            }
        }
        Ok((good, bad))
    }
}

enum Failure {
    Sql(rusqlite::Error),
    Newer(i64),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn prepare(path: &Path) -> Result<Connection, Failure> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(Failure::Newer(found));
    }
    // Small cache, no mmap: memory is scarce, and an I/O error in a mapping kills the process.
    conn.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000;
         PRAGMA journal_size_limit = 8388608; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA cache_size = -2048;",
    )?;
    let check: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Failure::Sql(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(check))));
    }
    if found == 0 {
        let tx = conn.transaction()?;
        tx.execute_batch(LAYOUT)?;
        tx.commit()?;
    }
    Ok(conn)
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn set_aside(path: &Path, error: &rusqlite::Error) -> std::io::Result<()> {
    let mut number = 1;
    while beside(path, &format!(".corrupt-{number}")).exists() {
        number += 1;
    }
    let aside = beside(path, &format!(".corrupt-{number}"));
    for suffix in ["", "-wal", "-shm"] {
        let from = beside(path, suffix);
        if from.exists() {
            std::fs::rename(from, beside(&aside, suffix))?;
        }
    }
    tracing::error!(path = %path.display(), moved_to = %aside.display(), %error, "the buffer is corrupt; it was set aside and a new one started: keep the file, rows in it were not delivered");
    Ok(())
}
