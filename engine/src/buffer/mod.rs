//! What a box keeps on disk: the outbox, from which rows reach the uplink at least once, and the journal,
//! from which rules get their state back.
//!
//! # Layout
//! One SQLite database in WAL mode. Table `block` holds rows of one rule and one schema as a compressed Arrow
//! block each; `confirmed` says which uplinks have blocks that others wait for; `refused` holds blocks that
//! could not be read or that a far side will not take; `gap` says which rows were dropped. `journal`,
//! `snapshot`, `state` and `progress` are what a box runs again after a crash, see [`journal`]; `content` is
//! what these name, see [`content`]. `clocks` says
//! what wall time it was, see [`clocks`]. `decision` and what belongs to it say why outputs do what they do,
//! see [`decisions`]. `meta` holds the end of the reserved row numbers, the newest ids,
//! and how much is waiting. `PATH.lock` keeps other processes out and repeats the end of the row numbers.
//!
//! # Limits
//! `max_size` bounds the packed bytes in `block`; `queue` bounds the rows that wait in memory, see [`queue`],
//! and what is collected for the next commit is at most a group. `refused` keeps 16 MiB; `gap` one row a rule
//! and reason, and those that were sent and not confirmed. Row numbers end at 2^53.
//!
//! # Invariants
//! * One task, "buffer writer", on a thread of its own, owns the connection. It commits whatever is queued in
//!   one transaction, and waits for more only
//! * Commits are synced one by one (`synchronous = FULL`), or, where `sync_every` is set, at the latest after
//!   that time. The order of commits holds
//! * Rows of priority 8 and 9 do not wait behind rows for which there is no room, see [`group`].
//! * An [`Ack`] is released only after the commit of its rows, unless it need not be held and the disk
//!   refuses; rows that are dropped
//! * Block ids and row numbers never repeat. (After damage that leaves nothing to read when the buffer is
//!   opened, block ids do.)
//! * A failed commit is tried again at its deadline, never earlier; no rows are taken from the queue
//!   meanwhile, and of deliveries
//! * A damaged database is replaced while it runs: what can be read moves to the new one, what cannot leaves
//!   a gap of rule `*`.
//! * A block is deleted when every uplink that takes its rule's rows has confirmed it, see [`uplinks`].
//! * Who makes room for new rows is decided in [`room`]: neither the buffer nor a rule grows beyond its
//!   `max_size`, and what is dropped
//! * A block may be dropped while a forwarder has it in flight. That is harmless: it was sent, and its

mod block;
mod changes;
mod clocks;
mod content;
#[cfg(test)]
mod content_tests;
#[cfg(test)]
mod crash_tests;
mod database;
mod decisions;
#[cfg(test)]
mod decisions_tests;
mod group;
pub mod inspect;
mod journal;
#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod model_tests;
mod queue;
#[cfg(test)]
mod queue_tests;
mod room;
#[cfg(test)]
mod room_tests;
mod salvage;
#[cfg(test)]
mod salvage_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;
mod uplinks;
#[cfg(test)]
mod uplinks_tests;
mod writer;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ErrorCode;
use tidegate_core::{Ack, Clock, Rows};
use tidegate_rules::DeliveryPolicy;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config;
use crate::decision::Decision;
use crate::disk::Disk;
use crate::status::OutboxStatus;
use crate::time::{SequenceTime, WallTime};
pub(crate) use block::{decode_batch as unpack, encode as pack};
pub use content::Content;
use database::Database;
pub use decisions::VerdictKind;
pub use journal::{JournalEntry, JournalStep, Recovered, RecoveredSnapshot, Snapshot, SnapshotPart, States};
use queue::{Outlet, Queue};
pub use uplinks::{Outbox, Uplinks};
use writer::{Request, Writer};

/// Rows that a rule wrote to the uplink.
#[derive(Debug)]
pub struct OutboxRows {
    /// the rule
    pub rule: Arc<str>,
    /// what it wrote
    pub rows: Rows,
    /// the position of each row among those of its sequence number
    pub ordinals: Vec<u32>,
    /// what they are worth when there is no room, or a backlog
    pub delivery: DeliveryPolicy,
    /// the sequence's time at which they were written
    pub now_ns: i64,
    /// released when the rows are on disk
    pub ack: Ack,
}

/// Rows read back.
#[derive(Debug, Clone)]
pub struct StoredBlock {
    /// grows with each block
    pub id: u64,
    /// the rule
    pub rule: Arc<str>,
    /// what it wrote
    pub rows: Rows,
    /// one a row
    pub ordinals: Vec<u32>,
    /// when they were written, as far as that is known
    pub written: Option<WallTime>,
}

/// Rows of one rule that were dropped. The uplink sends it, so that the loss is visible in the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// grows with each gap
    pub id: u64,
    /// the rule; `*` when nobody knows which
    pub rule: Arc<str>,
    /// the first missing row's sequence number
    pub first_seq: u64,
    /// the last missing row's sequence number; some between the two may have been delivered
    pub last_seq: u64,
    /// how many are missing; 0 when nobody knows
    pub rows: u64,
    /// why, for a person
    pub reason: String,
    /// when the last of them was dropped: nanoseconds since 1970, by the box's clock
    pub wall_ns: i64,
}

/// Why the buffer cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// Too old a library was linked.
    #[error("SQLite {0} can corrupt its write-ahead log; build with 3.51.3 or newer")]
    OldSqlite(&'static str),
    /// Another process has it.
    #[error("the buffer {} is in use by another tidegate; stop that one, or give this one its own \
        `buffer.path`", .0.display())]
    InUse(PathBuf),
    /// There is no file, or nothing in it.
    #[error("there is no buffer {}: a box makes it when it first runs; name the file of another one with \
        `--buffer FILE`", .0.display())]
    Absent(PathBuf),
    /// A box has it open that must not.
    #[error(
        "the buffer {} is in use by a box that runs: stop the box first, and start it again afterwards",
        .0.display()
    )]
    Running(PathBuf),
    /// Its layout has no rows of streams.
    #[error("the buffer {} has layout {layout}, which keeps no rows of streams; the next start of a newer \
        tidegate begins with it", .path.display())]
    NoJournal {
        /// the database
        path: PathBuf,
        /// its layout
        layout: i64,
    },
    /// A newer program wrote it.
    #[error("the buffer {} has layout {found}, this program knows {ours}; run the newer tidegate, or move \
        the file away", .path.display())]
    Newer {
        /// the database
        path: PathBuf,
        /// its layout
        found: i64,
        /// the newest layout known here
        ours: i64,
    },
    /// It belongs to something else.
    #[error("{} is another program's database, with a table \"{table}\"; set `buffer.path` to a file of its \
        own", .path.display())]
    Foreign {
        /// the database
        path: PathBuf,
        /// a table that is in it
        table: String,
    },
    /// The file system refused.
    #[error("cannot use the buffer {}: {error}; {}", .path.display(), io_advice(.error))]
    Io {
        /// the database, or the file beside it
        path: PathBuf,
        /// why
        error: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot use the buffer {}: {error}; {}", .path.display(), sql_advice(.error))]
    Sql {
        /// the database
        path: PathBuf,
        /// why
        error: rusqlite::Error,
    },
    /// Somebody took it away under the running box.
    #[error("{} was deleted while the box uses it", .0.display())]
    Deleted(PathBuf),
    /// 2^53 rows, or two million starts.
    #[error("the buffer {} has given out all row numbers; deliver what is in it, then move it and the \
        `.lock` file away", .0.display())]
    NumbersUsedUp(PathBuf),
    /// The writer has ended.
    #[error("the buffer is closed")]
    Closed,
}

const FREE_SPACE: &str = "its file system is full: free some space, or set `buffer.path` to another one";
const ALLOW: &str = "check that the directory exists and that tidegate may write there";

fn io_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FREE_SPACE,
        _ => ALLOW,
    }
}

fn sql_advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => FREE_SPACE,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ALLOW,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has locked it: close that one"
        }
        _ => "check the disk",
    }
}

impl BufferError {
    /// Whether the file's content is wrong or gone, rather than something that passes.
    fn is_damage(&self) -> bool {
        use rusqlite::Error;
        if matches!(self, Self::Deleted(_)) {
            return true;
        }
        let Self::Sql { error, .. } = self else { return false };
        let corrupt =
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        // SQLite takes a page of random values for rows when only their types are wrong.
        corrupt
            || matches!(
                error,
                Error::InvalidColumnType(..)
                    | Error::IntegralValueOutOfRange(..)
                    | Error::FromSqlConversionFailure(..)
            )
    }
}

/// SQLite has only signed integers; what does not fit is a limit anyway.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A handle on the buffer. When the last one is dropped, the writer commits what is queued and ends.
#[derive(Debug, Clone)]
pub struct Buffer {
    appends: Arc<Queue>,
    requests: mpsc::Sender<Request>,
    committed: watch::Receiver<u64>,
    sequence: (u64, u64),
    time: Arc<SequenceTime>,
    recovered: Arc<Mutex<Recovered>>,
    status: Arc<OutboxStatus>,
}

impl Buffer {
    /// Opens or makes the database, for these uplinks. A damaged database is set aside as `PATH.corrupt-N`,
    /// and what can be read in it moves to a new one. The second is the writer, which has to be run: nothing
    /// happens without it. It waits for the disk, and should have a thread of its own.
    pub fn open(
        settings: &config::Buffer,
        uplinks: Uplinks,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        status: Arc<OutboxStatus>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), BufferError> {
        let mut database = Database::open(settings, uplinks, clock, disk)?;
        let sequence = database.reserve()?;
        let begin = |database: &mut Database| {
            database.follow_configuration().and_then(|rows| Ok((rows, database.recovered()?)))
        };
        let (unwanted, recovered) = match begin(&mut database) {
            Err(cause) if cause.is_damage() => {
                status.dropped.add(database.salvage(&cause)?);
                begin(&mut database)?
            }
            other => other?,
        };
        if unwanted > 0 {
            status.dropped.add(unwanted);
            tracing::error!(
                rows = unwanted,
                "rows were dropped: no uplink takes what their rules write, see `rules` in the uplinks' \
                tables"
            );
        }
        let time = database.time();
        let appends = Arc::new(Queue::new(settings.queue.get(), settings.when_full, Arc::clone(&status)));
        // A forwarder asks one thing at a time; the rest is room for the sequencer.
        let (requests, request_queue) = mpsc::channel(8);
        let (tell, committed) = watch::channel(database.totals().last_block);
        let writer = Writer::new(
            database,
            Outlet(Arc::clone(&appends)),
            request_queue,
            tell,
            Arc::clone(&status),
            settings.commit_every.0,
        );
        let recovered = Arc::new(Mutex::new(recovered));
        Ok((Self { appends, requests, committed, sequence, time, recovered, status }, writer.run()))
    }

    /// Queues rows, which are committed together. While the queue is full, rows of rules that `block` wait,
    /// and others make room. Once closed, refuses the acks.
    pub async fn append(&self, rows: Vec<OutboxRows>) -> Result<(), BufferError> {
        self.appends.rows(rows, false).await
    }

    /// Queues rows of the journal that is run again: they wait for room, whatever their rules say.
    pub async fn append_again(&self, rows: Vec<OutboxRows>) -> Result<(), BufferError> {
        self.appends.rows(rows, true).await
    }

    /// Queues a step of the sequence. Rows that a rule makes of it must be appended later, so that they are
    /// not on disk before it. While the queue is full, waits (`hold`) or breaks the journal off: then nothing
    /// is stored until there is a snapshot. Returns whether the step was taken; if not, its messages are
    /// acknowledged. Once closed, refuses the ack.
    pub async fn journal(&self, entry: JournalEntry, hold: bool) -> Result<bool, BufferError> {
        self.appends.step(entry, hold).await
    }

    /// Breaks the journal off.
    pub fn break_off(&self) {
        self.appends.break_off();
    }

    /// Resolves when the journal has broken off and could go on from a snapshot.
    pub async fn mendable(&self) {
        self.appends.mendable().await;
    }

    /// Announces a snapshot, before its parts. Returns whether there is room for it.
    pub fn snapshot(&self, snapshot: Snapshot) -> Result<bool, BufferError> {
        self.appends.snapshot(snapshot)
    }

    /// Adds a part to the snapshot that was announced last. The snapshot is committed with the last part,
    /// after all that was appended before.
    pub fn snapshot_part(&self, part: SnapshotPart) -> Result<(), BufferError> {
        self.appends.part(part)
    }

    /// Keeps what was decided about outputs; one of the same output and number is replaced. Waits for nobody:
    /// what there is no room for is dropped, and counted.
    pub fn decisions(&self, decisions: Vec<Decision>) {
        self.appends.decisions(decisions);
    }

    /// What there was to start from when the buffer was opened. It is handed out once.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        std::mem::take(&mut self.recovered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Some entries of the journal behind entry `after`, in order; none when there are no more.
    pub async fn read_journal(&self, after: u64) -> Result<Vec<JournalEntry>, BufferError> {
        self.ask(|reply| Request::ReadJournal(after, reply)).await?
    }

    /// What is named `hash` in the journal or in a snapshot; `None`: it is lost.
    pub async fn content(&self, hash: &str) -> Result<Option<Vec<u8>>, BufferError> {
        self.ask(|reply| Request::Content(hash.to_owned(), reply)).await?
    }

    /// Keeps what the journal names and an older program kept elsewhere. Returns when it is on disk.
    pub async fn adopt(&self, content: Content) -> Result<(), BufferError> {
        self.ask(|reply| Request::Adopt(content, reply)).await?
    }

    /// The row numbers `first .. end` reserved by this start.
    #[must_use]
    pub fn sequence_start(&self) -> (u64, u64) {
        self.sequence
    }

    /// The clock of the sequence, which goes on from the newest time in the buffer.
    #[must_use]
    pub fn time(&self) -> Arc<SequenceTime> {
        Arc::clone(&self.time)
    }

    /// Reserves the next row numbers, `first .. end`; ask when fewer than 2^31 are left.
    pub async fn reserve_more(&self) -> Result<(u64, u64), BufferError> {
        self.ask(Request::Reserve).await?
    }

    /// What waits for one of the uplinks that the buffer was opened for.
    #[must_use]
    pub fn outbox(&self, uplink: &str) -> Outbox {
        Outbox { buffer: self.clone(), uplink: uplink.into() }
    }

    /// Commits what is queued and ends the writer. What cannot be committed any more is refused. Returns when
    /// it has ended, whoever closed it.
    pub async fn close(&self) {
        // An error means that it has ended already.
        let _ = self.requests.send(Request::Close).await;
        // The writer lets go of this last, when the database is closed.
        let mut committed = self.committed.clone();
        while committed.changed().await.is_ok() {}
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, BufferError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| BufferError::Closed)?;
        answer.await.map_err(|_| BufferError::Closed)
    }
}
