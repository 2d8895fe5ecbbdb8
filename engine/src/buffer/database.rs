//! The SQLite file: opening, layout, and what the writer asks of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, ffi, params};
use tidegate_core::Clock;
use tidegate_rules::Priority;
use tokio::time::Instant;

use super::changes::{Changes, Done, NewBlock, Step, Totals};
use super::content::{self, Content};
use super::decisions::{self, Groups};
use super::journal::{self, Recovered, Retention};
use super::room::{Room, RuleSizes, of_priority};
use super::uplinks::Uplinks;
use super::{BufferError, Gap, StoredBlock, block, clocks, salvage, signed};
use crate::config;
use crate::disk::{Disk, LockFile};
use crate::time::{Readings, SequenceTime};

/// Layout of this program; `user_version` in the file.
pub(super) const VERSION: i64 = 6;
/// Older SQLite can corrupt the database when the write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;
/// How long one attempt waits for a person's `sqlite3`: the writer's other work waits with it.
const BUSY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });
/// What one fetch unpacks, so that memory stays small however many blocks are asked for.
const FETCH_BYTES: usize = 16 << 20;
/// Bytes of a page of a new database. A small commit writes some six pages whatever is in it, so that small
/// pages spare the disk; with still smaller ones large blocks would take long.
pub(super) const PAGE: u32 = 2_048;
/// Pages given back to the file system at a time: one mebibyte, so that the next commit does not wait for
/// long.
const VACUUM_PAGES: u32 = (1 << 20) / PAGE;
/// Free pages that are there to be used again: four mebibytes.
const FREE_PAGES: u32 = (4 << 20) / PAGE;
/// Pages in the write-ahead log after which it is folded into the database: four mebibytes. With 1 or 16 as
/// much is written.
const LOG_PAGES: u32 = (4 << 20) / PAGE;
/// The first layout, which [`UPGRADES`] make the newest. `meta` has one row. No `AUTOINCREMENT`: it would be
/// a second counter page to write with each commit.
const LAYOUT: &str = "
    CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, last_block \
    INTEGER NOT NULL,
        last_gap INTEGER NOT NULL, waiting INTEGER NOT NULL, bytes INTEGER NOT NULL);
    INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0);
    CREATE TABLE block (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq \
    INTEGER NOT NULL,
        rows INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE refused (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq \
    INTEGER NOT NULL,
        rows INTEGER NOT NULL, reason TEXT NOT NULL, wall_ns INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE gap (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq \
    INTEGER NOT NULL,
        rows INTEGER NOT NULL, reason TEXT NOT NULL, wall_ns INTEGER NOT NULL);";
/// From each layout to the next. Nothing is null, so that damage shows.
const UPGRADES: [&str; 5] = [JOURNAL, OUTBOX, TIME, CONTENT, DECISIONS];
/// The journal, snapshots of rule state, and how far each rule's rows have got. An entry without a stream is
/// a change of the rules.
const JOURNAL: &str = "
    ALTER TABLE meta ADD COLUMN last_entry INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE meta ADD COLUMN journal_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE journal (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, first_seq INTEGER NOT NULL, rows \
    INTEGER NOT NULL,
        wall_ns INTEGER NOT NULL, marks BLOB NOT NULL, edit TEXT NOT NULL, data BLOB NOT NULL);
    CREATE TABLE snapshot (id INTEGER PRIMARY KEY, entry INTEGER NOT NULL, wall_ns INTEGER NOT NULL, \
    manifest TEXT NOT NULL);
    CREATE TABLE state (id INTEGER PRIMARY KEY, snapshot INTEGER NOT NULL, rule TEXT NOT NULL, fingerprint \
    TEXT NOT NULL,
        watermark INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE progress (id INTEGER PRIMARY KEY, rule TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL);
    PRAGMA user_version = 2;";
/// Several uplinks: who has confirmed a block that others wait for; who is still to be told of a gap
/// (nothing: all that take the rule's rows); and which uplinks there were when the buffer was last opened.
/// What blocks are worth, with an index of those that are not as most.
const OUTBOX: &str = "
    CREATE TABLE confirmed (uplink TEXT NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (block, uplink)) \
    WITHOUT ROWID;
    ALTER TABLE gap ADD COLUMN uplinks TEXT NOT NULL DEFAULT '';
    ALTER TABLE meta ADD COLUMN uplinks TEXT NOT NULL DEFAULT '';
    ALTER TABLE block ADD COLUMN priority INTEGER NOT NULL DEFAULT 5;
    CREATE INDEX block_priority ON block (priority, id) WHERE priority <> 5;
    PRAGMA user_version = 3;";
/// The sequence's time, when blocks are not worth sending any more, and what is known of the clocks. 0:
/// written before there was a time; never.
const TIME: &str = "
    ALTER TABLE meta ADD COLUMN now_ns INTEGER NOT NULL DEFAULT 0;
    UPDATE meta SET now_ns = (SELECT coalesce(max(wall_ns), 0) FROM journal);
    ALTER TABLE journal ADD COLUMN now_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE block ADD COLUMN now_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE block ADD COLUMN expires_ns INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX block_expires ON block (expires_ns) WHERE expires_ns > 0;
    CREATE TABLE clocks (id INTEGER PRIMARY KEY, now_ns INTEGER NOT NULL, boot TEXT NOT NULL, monotonic_ns \
    INTEGER NOT NULL,
        wall_ns INTEGER NOT NULL, synchronised INTEGER NOT NULL);
    PRAGMA user_version = 4;";
/// What entries and snapshots name by its hash, each with the newest entry that does.
const CONTENT: &str = "
    CREATE TABLE content (id INTEGER PRIMARY KEY, hash TEXT NOT NULL, entry INTEGER NOT NULL, bytes BLOB NOT \
    NULL);
    CREATE INDEX content_hash ON content (hash);
    PRAGMA user_version = 5;";
/// Why outputs do what they do.
const DECISIONS: &str = "
    ALTER TABLE meta ADD COLUMN decision_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE decision_group (id INTEGER PRIMARY KEY, output TEXT NOT NULL, kind TEXT NOT NULL);
    CREATE TABLE decision_basis (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE decision (id INTEGER PRIMARY KEY, now_ns INTEGER NOT NULL, instance TEXT NOT NULL, data \
    BLOB NOT NULL);
    PRAGMA user_version = 6;";

/// Blocks that were found, and those that do not decode, with the reason.
pub(super) type Fetched = (Vec<StoredBlock>, Vec<(u64, String)>);

pub(super) struct Database {
    /// before `lock`, so that it is closed first
    conn: Connection,
    path: PathBuf,
    totals: Totals,
    uplinks: Uplinks,
    rule_sizes: RuleSizes,
    groups: Groups,
    room: Room,
    retention: Retention,
    /// row numbers that are reserved at a time
    numbers: u64,
    /// how long a commit may wait until the disk has it for certain; `None`: it does not wait
    sync_every: Option<Duration>,
    /// when the first commit was made that may still be lost in a power cut
    unsynced: Option<Instant>,
    /// gaps up to this id were handed out, or may have been
    gaps_fetched: u64,
    /// whether there has been a write-ahead log since it was opened
    has_log: bool,
    /// `conn` is a stand-in without tables, since replacing a damaged file was interrupted
    detached: bool,
    clock: Arc<dyn Clock>,
    time: Arc<SequenceTime>,
    readings: Readings,
    disk: Arc<dyn Disk>,
    lock: Box<dyn LockFile>,
}

/// `path` with `suffix` appended to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Database {
    pub(super) fn open(
        settings: &config::Buffer,
        uplinks: Uplinks,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, BufferError> {
        let path = settings.path.clone();
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(BufferError::OldSqlite(rusqlite::version()));
        }
        let io = |error| BufferError::Io { path: path.clone(), error };
        let mut lock = disk
            .lock(&beside(&path, ".lock"))
            .map_err(io)?
            .ok_or_else(|| BufferError::InUse(path.clone()))?;
        salvage::recover(&*disk, &path).map_err(io)?;
        let sql = |error| BufferError::Sql { path: path.clone(), error };
        let (conn, is_salvaged) = match prepare(&*disk, &path) {
            Err(cause) if cause.is_damage() => {
                let old = disk.database(&path).map_err(sql)?;
                salvage::salvage(&*disk, &path, old, None, clock.wall_ns(), &cause)?;
                (prepare(&*disk, &path)?, true)
            }
            other => (other?, false),
        };
        let (totals, sequence) = read_meta(&conn).map_err(sql)?;
        if sequence == 0 && !is_salvaged && noted_end(&mut *lock).map_err(io)? > 0 {
            tracing::error!(
                path = %path.display(),
                "the buffer was empty or gone, though there has been one: what waited in it for the cloud, \
                and the rules' state, is lost. If nobody has deleted it, check the disk, and restore a \
                backup"
            );
        }
        // What cannot be read is dealt with as damage when it is needed; time goes on without it.
        let readings = clocks::read(&conn).unwrap_or_default();
        let time = Arc::new(SequenceTime::start(Arc::clone(&clock), totals.now_ns, &readings));
        Ok(Self {
            conn,
            path,
            totals,
            uplinks,
            rule_sizes: RuleSizes::default(),
            groups: Groups::default(),
            room: Room {
                max_bytes: settings.max_size.0,
                reserve: settings.reserve.0,
                when_full: settings.when_full,
                ttl: settings.ttl,
            },
            retention: Retention {
                max_bytes: settings.journal_size.0,
                max_age_ns: i64::try_from(settings.journal_age.0.as_nanos()).unwrap_or(i64::MAX),
            },
            numbers: settings.numbers,
            sync_every: settings.sync_every.map(|every| every.0),
            unsynced: None,
            // An earlier process may have sent any of them.
            gaps_fetched: totals.last_gap,
            has_log: false,
            detached: false,
            clock,
            time,
            readings,
            disk,
            lock,
        })
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn time(&self) -> Arc<SequenceTime> {
        Arc::clone(&self.time)
    }

    /// Reserves row numbers and returns the first and the end. The end is kept in the lock file as well, so
    /// that numbers do not repeat when a damaged database is replaced.
    pub(super) fn reserve(&mut self) -> Result<(u64, u64), BufferError> {
        let io = |error| BufferError::Io { path: beside(&self.path, ".lock"), error };
        let noted = noted_end(&mut *self.lock).map_err(io)?;
        let (_, stored) = read_meta(&self.conn).map_err(|error| self.sql(error))?;
        let first = stored.max(noted);
        let end = first.checked_add(self.numbers).filter(|end| *end <= 1 << 53);
        let end = end.ok_or_else(|| BufferError::NumbersUsedUp(self.path.clone()))?;
        self.conn.execute("UPDATE meta SET sequence = ?1", [signed(end)]).map_err(|error| self.sql(error))?;
        // Fixed width: a torn write cannot leave a shorter, smaller number.
        self.lock.write(&format!("{end:020}\n")).map_err(io)?;
        Ok((first, end))
    }

    /// Whether new blocks have to wait, as far as that is known without looking.
    pub(super) fn must_wait(&self, blocks: &[NewBlock]) -> bool {
        self.room.must_wait(self.totals.bytes, &self.rule_sizes, blocks)
    }

    /// A deleted file can be written to, and is gone with the process: its rows would be acknowledged and
    /// lost.
    fn is_there(&mut self) -> Result<(), BufferError> {
        if !self.disk.exists(&self.path) {
            return Err(BufferError::Deleted(self.path.clone()));
        }
        // SQLite makes the log when it needs it first, and does not take it away before the database is
        // closed.
        let log = beside(&self.path, "-wal");
        let there = self.disk.exists(&log);
        if self.has_log && !there {
            return Err(BufferError::Deleted(log));
        }
        self.has_log = there;
        Ok(())
    }

    /// Carries out `changes` in one transaction. On an error nothing of it has happened.
    pub(super) fn commit(&mut self, changes: &Changes) -> Result<Done, BufferError> {
        self.is_there()?;
        let (room, retention) = (self.room, self.retention);
        let Some(every) = self.sync_every else {
            return self.step(|step| step.run(changes, room, retention));
        };
        let now = Instant::now();
        if self.unsynced.is_some_and(|since| since + every <= now) {
            let done = self.step(|step| step.run(changes, room, retention))?;
            self.unsynced = None;
            return Ok(done);
        }
        self.unsynced.get_or_insert(now);
        self.conn.execute_batch("PRAGMA synchronous = NORMAL").map_err(|error| self.sql(error))?;
        let done = self.step(|step| step.run(changes, room, retention));
        self.conn.execute_batch("PRAGMA synchronous = FULL").map_err(|error| self.sql(error))?;
        done
    }

    /// When what was committed has to be on the disk for certain, if it is not yet.
    pub(super) fn sync_due(&self) -> Option<Instant> {
        Some(self.unsynced? + self.sync_every?)
    }

    /// Has the disk keep for certain what was committed. That is what any commit with `synchronous = FULL`
    /// does for those before it.
    pub(super) fn sync(&mut self) -> Result<(), BufferError> {
        if self.unsynced.is_some() {
            self.is_there()?;
            // A transaction that changes nothing is none.
            let change = "UPDATE meta SET waiting = waiting + 1";
            self.step(|step| step.tx.execute(change, []).and_then(|_| step.totals.write(step.tx)))?;
            self.unsynced = None;
        }
        Ok(())
    }

    /// How long it takes until a block is not worth sending any more, if one ever is.
    pub(super) fn next_expiry(&self) -> Result<Option<Duration>, BufferError> {
        let least = "SELECT min(expires_ns) FROM block WHERE expires_ns > 0";
        let least = self
            .conn
            .prepare_cached(least)
            .and_then(|mut least| least.query_row([], |row| row.get::<_, Option<i64>>(0)));
        let left =
            least.map_err(|error| self.sql(error))?.map(|least| least.saturating_sub(self.time.now()).max(0));
        Ok(left.map(|left| Duration::from_nanos(left.unsigned_abs())))
    }

    /// Has the outbox follow the configuration of the uplinks. Returns how many rows were dropped.
    pub(super) fn follow_configuration(&mut self) -> Result<u64, BufferError> {
        self.step(|step| step.follow_configuration())
    }

    fn step<T>(&mut self, work: impl FnOnce(&mut Step<'_>) -> rusqlite::Result<T>) -> Result<T, BufferError> {
        let work = || -> rusqlite::Result<_> {
            let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let reading = self.time.compare();
            let (wall_ns, now_ns) = (self.clock.wall_ns(), self.time.now());
            let (totals, rule_sizes) = (Totals { now_ns, ..self.totals }, self.rule_sizes.clone());
            let mut step = Step {
                tx: &tx,
                totals,
                uplinks: &self.uplinks,
                rule_sizes,
                groups: &mut self.groups,
                gaps_fetched: self.gaps_fetched,
                wall_ns,
                now_ns,
            };
            reading.iter().try_for_each(|reading| step.reading(reading))?;
            let done = work(&mut step)?;
            let (totals, rule_sizes) = (step.totals, step.rule_sizes);
            tx.commit()?;
            Ok((done, totals, rule_sizes, reading))
        };
        let done = work();
        if done.is_err() {
            self.groups = Groups::default();
        }
        let (done, totals, rule_sizes, reading) = done.map_err(|error| self.sql(error))?;
        (self.totals, self.rule_sizes) = (totals, rule_sizes);
        if let Some(reading) = reading {
            self.readings.0.push(reading.clone());
            self.time.noted(reading);
        }
        Ok(done)
    }

    /// Up to `limit` blocks that `uplink` takes and has not confirmed, of one priority or of any, with
    /// `after < id <= until`, in order, but for those that `changes` is about to remove. At least one if
    /// there is one.
    pub(super) fn fetch(
        &self,
        uplink: &Arc<str>,
        (after, until): (u64, u64),
        priority: Option<Priority>,
        limit: usize,
        changes: &Changes,
    ) -> Result<Fetched, BufferError> {
        let work = || -> rusqlite::Result<_> {
            let select = "SELECT id, rule, data, now_ns FROM block WHERE id > ?1 AND id <= ?2
                AND NOT EXISTS (SELECT 1 FROM confirmed WHERE confirmed.block = block.id AND uplink = ?3)
                AND (?4 IS NULL OR rule IN (SELECT value FROM json_each(?4))) AND (expires_ns = 0 OR \
                expires_ns > ?5)";
            // The usual priority is not in the index: then the others are left out.
            let of_priority = match priority {
                None => String::new(),
                Some(priority) => format!(" AND {}", of_priority(priority)),
            };
            let mut select = self.conn.prepare(&format!("{select}{of_priority} ORDER BY id"))?;
            let mut found = select.query(params![
                signed(after),
                signed(until),
                &**uplink,
                self.uplinks.rules(uplink),
                self.time.now()
            ])?;
            let (mut good, mut bad, mut bytes) = (Vec::new(), Vec::new(), 0);
            while good.len() < limit && bytes < FETCH_BYTES {
                let Some(row) = found.next()? else { break };
                let id = row.get(0)?;
                if changes.removes(id, uplink) {
                    continue;
                }
                match block::decode(row.get_ref(2)?.as_blob().unwrap_or_default()) {
                    Ok((rows, ordinals)) => {
                        bytes += rows.batch.get_array_memory_size();
                        let written = self.readings.wall_of(row.get(3)?);
                        good.push(StoredBlock {
                            id,
                            rule: row.get::<_, String>(1)?.into(),
                            rows,
                            ordinals,
                            written,
                        });
                    }
                    Err(error) => bad.push((id, format!("damaged: {error}"))),
                }
            }
            Ok((good, bad))
        };
        work().map_err(|error| self.sql(error))
    }

    /// The oldest `limit` gaps that `uplink` has to be told of, but for those that `changes` is about to
    /// remove. From now on they do not grow any more.
    pub(super) fn fetch_gaps(
        &mut self,
        uplink: &Arc<str>,
        limit: usize,
        changes: &Changes,
    ) -> Result<Vec<Gap>, BufferError> {
        let work = || -> rusqlite::Result<_> {
            let columns =
                "SELECT id, rule, first_seq, last_seq, rows, reason, wall_ns, uplinks FROM gap ORDER BY id";
            let mut select = self.conn.prepare(columns)?;
            let mut found = select.query([])?;
            let mut gaps = Vec::new();
            while gaps.len() < limit {
                let Some(row) = found.next()? else { break };
                let gap = Gap {
                    id: row.get(0)?,
                    rule: row.get::<_, String>(1)?.into(),
                    first_seq: row.get(2)?,
                    last_seq: row.get(3)?,
                    rows: row.get(4)?,
                    reason: row.get(5)?,
                    wall_ns: row.get(6)?,
                };
                let confirmed = changes.confirmed_gaps.contains(&(gap.id, Arc::clone(uplink)));
                if !confirmed && self.uplinks.is_told(uplink, &gap.rule, &row.get::<_, String>(7)?) {
                    gaps.push(gap);
                }
            }
            Ok(gaps)
        };
        let gaps = work().map_err(|error| self.sql(error))?;
        self.gaps_fetched = gaps.last().map_or(self.gaps_fetched, |gap| gap.id.max(self.gaps_fetched));
        Ok(gaps)
    }

    /// The names of all uplinks.
    pub(super) fn uplinks(&self) -> &Uplinks {
        &self.uplinks
    }

    /// What there is to start from. Tables that cannot be read are dealt with as damage.
    pub(super) fn recovered(&self) -> Result<Recovered, BufferError> {
        let recovered = || {
            let decisions = Arc::new(decisions::newest(&self.conn)?);
            journal::recovered(&self.conn).map(|recovered| Recovered { decisions, ..recovered })
        };
        recovered().map_err(|error| self.sql(error))
    }

    /// Some entries of the journal behind `after`.
    pub(super) fn read_journal(&self, after: u64) -> Result<journal::Read, BufferError> {
        journal::read(&self.conn, after).map_err(|error| self.sql(error))
    }

    /// What is named `hash`, if it is there and whole. If it is not whole, it goes, and can be stored again.
    pub(super) fn content(&mut self, hash: &str) -> Result<Option<Vec<u8>>, BufferError> {
        let found = content::read(&self.conn, hash).map_err(|error| self.sql(error))?;
        if found.as_ref().is_some_and(|bytes| !content::is_named(hash, bytes)) {
            self.step(|step| step.remove_content(hash).and_then(|()| step.totals.write(step.tx)))?;
            return Ok(None);
        }
        Ok(found)
    }

    /// Keeps what entries name that are there already.
    pub(super) fn adopt(&mut self, content: &Content) -> Result<(), BufferError> {
        self.step(|step| {
            step.content_of_entry(content, step.totals.last_entry)?;
            step.totals.write(step.tx)
        })
    }

    /// Replaces the damaged file. Returns how many rows are lost.
    pub(super) fn salvage(&mut self, cause: &BufferError) -> Result<u64, BufferError> {
        let stand_in = Connection::open_in_memory().map_err(|error| self.sql(error))?;
        let old = std::mem::replace(&mut self.conn, stand_in);
        self.detached = true;
        let lost =
            salvage::salvage(&*self.disk, &self.path, old, Some(self.totals), self.clock.wall_ns(), cause);
        // Also when that failed: then the old file goes on, and the next error tries again.
        self.attach()?;
        lost
    }

    /// Opens the file again if it could not be opened after it was replaced.
    pub(super) fn attach(&mut self) -> Result<(), BufferError> {
        if self.detached {
            salvage::recover(&*self.disk, &self.path)
                .map_err(|error| BufferError::Io { path: self.path.clone(), error })?;
            self.conn = prepare(&*self.disk, &self.path)?;
            (self.totals, _) = read_meta(&self.conn).map_err(|error| self.sql(error))?;
            (self.rule_sizes, self.groups) = (RuleSizes::default(), Groups::default());
            (self.has_log, self.detached) = (false, false);
        }
        Ok(())
    }

    /// Gives some free pages back to the file system if there are many. Returns whether more are left.
    pub(super) fn shrink(&self) -> Result<bool, BufferError> {
        let work = || -> rusqlite::Result<_> {
            let count = |pragma| self.conn.query_row(pragma, [], |row| row.get::<_, u64>(0));
            let (free, all) = (count("PRAGMA freelist_count")?, count("PRAGMA page_count")?);
            if free <= u64::from(FREE_PAGES) || free <= all / 4 {
                return Ok(false);
            }
            let mut vacuum = self.conn.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            // Each step gives back one page.
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
            Ok(true)
        };
        work().map_err(|error| self.sql(error))
    }

    /// Folds the write-ahead log into the database.
    pub(super) fn checkpoint(&self) -> Result<(), BufferError> {
        self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").map_err(|error| self.sql(error))
    }

    fn sql(&self, error: rusqlite::Error) -> BufferError {
        BufferError::Sql { path: self.path.clone(), error }
    }
}

/// The totals, and the end of the reserved row numbers.
pub(super) fn read_meta(conn: &Connection) -> rusqlite::Result<(Totals, u64)> {
    conn.query_row(
        "SELECT last_block, last_gap, waiting, bytes, last_entry, journal_bytes, sequence, now_ns, \
        decision_bytes FROM meta",
        [],
        |row| {
            let totals = Totals {
                last_block: row.get(0)?,
                last_gap: row.get(1)?,
                waiting: row.get(2)?,
                bytes: row.get(3)?,
                last_entry: row.get(4)?,
                journal_bytes: row.get(5)?,
                now_ns: row.get(7)?,
                decision_bytes: row.get(8)?,
            };
            Ok((totals, row.get(6)?))
        },
    )
}

/// Makes the tables in an empty file.
pub(super) fn layout(conn: &mut Connection) -> rusqlite::Result<()> {
    // Before anything is written, or it has no effect.
    conn.execute_batch(&format!("PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL"))?;
    let tx = conn.transaction()?;
    tx.execute_batch(LAYOUT)?;
    UPGRADES.iter().try_for_each(|upgrade| tx.execute_batch(upgrade))?;
    tx.commit()
}

/// Brings layout `found` to the newest.
fn upgrade(conn: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let tx = conn.transaction()?;
    (1..)
        .zip(UPGRADES)
        .filter(|(layout, _)| *layout >= found)
        .try_for_each(|(_, upgrade)| tx.execute_batch(upgrade))?;
    tx.commit()
}

/// Has the database keep a write-ahead log. Returns the journal mode that it has then.
fn write_ahead(conn: &Connection) -> rusqlite::Result<String> {
    // The answer comes before the change is committed, which may fail: only who asks for a second row hears
    // of that.
    let mut change = conn.prepare("PRAGMA journal_mode = WAL")?;
    let mut answer = change.query([])?;
    while answer.next()?.is_some() {}
    conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))
}

/// The end of the row numbers that the lock file has; 0: none, or it cannot be understood.
fn noted_end(lock: &mut dyn LockFile) -> std::io::Result<u64> {
    Ok(lock.read()?.trim().parse().unwrap_or(0))
}

pub(super) fn prepare(disk: &dyn Disk, path: &Path) -> Result<Connection, BufferError> {
    let sql = |error| BufferError::Sql { path: path.to_owned(), error };
    let mut conn = disk.database(path).map_err(sql)?;
    let found = conn
        .busy_timeout(BUSY)
        .and_then(|()| conn.query_row("PRAGMA user_version", [], |row| row.get(0)))
        .map_err(sql)?;
    if found > VERSION {
        return Err(BufferError::Newer { path: path.to_owned(), found, ours: VERSION });
    }
    let table = |conn: &Connection| {
        conn.query_row("SELECT name FROM sqlite_schema LIMIT 1", [], |row| row.get(0)).optional()
    };
    if found == 0 {
        if let Some(table) = table(&conn).map_err(sql)? {
            return Err(BufferError::Foreign { path: path.to_owned(), table });
        }
        layout(&mut conn).map_err(sql)?;
    }
    if (1..VERSION).contains(&found) {
        upgrade(&mut conn, found).map_err(sql)?;
    }
    // When it cannot, SQLite says only which mode there still is. In that one a power cut may take back a
    // commit.
    let mode = write_ahead(&conn).map_err(sql)?;
    if mode != "wal" {
        let why = format!("it has no write-ahead log here, but journal mode `{mode}`");
        return Err(sql(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), Some(why))));
    }
    // Small cache, no mmap: memory is scarce, and an I/O error in a mapping kills the process.
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = {LOG_PAGES};
         PRAGMA journal_size_limit = 8388608; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA \
        cache_size = -2048;",
    ))
    .map_err(sql)?;
    // A full check reads the whole file, for minutes on a slow card: damage is dealt with when it is met. But
    // the tables have to be there.
    let tables = ["block", "refused", "gap"]
        .map(|table| format!("SELECT id, rule, first_seq, last_seq, rows FROM {table}"));
    let recovery = [
        "SELECT id, stream, first_seq, rows, wall_ns, marks, edit, data FROM journal",
        "SELECT id, entry, wall_ns, manifest FROM snapshot",
        "SELECT id, snapshot, rule, fingerprint, watermark, data FROM state",
        "SELECT id, rule, seq FROM progress",
        "SELECT block, uplink FROM confirmed",
        "SELECT uplinks FROM gap",
        "SELECT priority FROM block",
        "SELECT uplinks FROM meta",
        "SELECT now_ns FROM journal",
        "SELECT now_ns, expires_ns FROM block",
        "SELECT id, now_ns, boot, monotonic_ns, wall_ns, synchronised FROM clocks",
        "SELECT id, hash, entry, bytes FROM content",
        "SELECT id, output, kind FROM decision_group",
        "SELECT id, data FROM decision_basis",
        "SELECT id, now_ns, instance, data FROM decision",
    ];
    let mut tables = tables.iter().map(String::as_str).chain(recovery);
    let whole = read_meta(&conn).and_then(|_| tables.try_for_each(|select| conn.prepare(select).map(drop)));
    whole.map_err(|error| match error.sqlite_error_code() {
        None | Some(rusqlite::ErrorCode::Unknown) => {
            sql(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(error.to_string())))
        }
        Some(_) => sql(error),
    })?;
    Ok(conn)
}
