//! The outbox on disk: what was committed here reaches the uplink at least once.
//!
//! # Layout
//! One SQLite database in WAL mode with `synchronous = FULL`. Table `block` holds rows of one rule and one schema as a compressed
//! Arrow block each (see [`block`](self::block)); `refused` holds blocks that could not be read or that the far side will not take; `gap` says which rows
//! were dropped; `meta` holds the end of the reserved row numbers. `PATH.lock` keeps other processes out and repeats that end.
//!
//! # Limits
//! `max_size` bounds the compressed bytes in `block`; `queue` bounds the appends in memory. Row numbers end at 2^53.
//!
//! # Invariants
//! * One thread, "buffer writer", owns the connection. It commits whatever is queued in one transaction and never waits for more.
//! * An [`Ack`] is released only after the commit of its rows; rows that are dropped in any other way refuse it.
//! * Block ids and row numbers never repeat.
//! * A failed commit is tried again; nothing is taken from the queue meanwhile, so memory stays bounded.

mod block;
mod database;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tidegate_core::{Ack, Rows};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config;
use crate::status::OutboxStatus;
use database::Database;
use writer::{Held, Request, Writer};

/// Rows that a rule wrote to the uplink.
#[derive(Debug)]
pub struct OutboxRows {
    /// the rule
    pub rule: Arc<str>,
    /// what it wrote
    pub rows: Rows,
    /// the position of each row among those of its sequence number
    pub ordinals: Vec<u32>,
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
}

/// Why the buffer cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// Too old a library was linked.
    #[error("SQLite {0} can corrupt its write-ahead log; build with 3.51.3 or newer")]
    OldSqlite(&'static str),
    /// Another process has it.
    #[error("the buffer {} is in use by another tidegate; stop that one, or give this one its own `buffer.path`", .0.display())]
    InUse(PathBuf),
    /// A newer program wrote it.
    #[error("the buffer {} has layout {found}, this program knows {ours}; run the newer tidegate, or move the file away", .path.display())]
    Newer {
        /// the database
        path: PathBuf,
        /// its layout
        found: i64,
        /// the newest layout known here
        ours: i64,
    },
    /// The file system refused.
    #[error("cannot open the buffer {}: {error}; check that the directory exists and is writable", .path.display())]
    Io {
        /// the database
        path: PathBuf,
        /// why
        error: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot open the buffer {}: {error}; check the disk", .path.display())]
    Sql {
        /// the database
        path: PathBuf,
        /// why
        error: rusqlite::Error,
    },
    /// A request failed.
    #[error("the buffer could not do it: {0}")]
    Failed(String),
    /// The writer has ended.
    #[error("the buffer is closed")]
    Closed,
}

/// A handle on the buffer. When the last one is dropped, the writer commits what is queued and ends.
#[derive(Debug, Clone)]
pub struct Buffer {
    appends: mpsc::Sender<Held>,
    requests: mpsc::Sender<Request>,
    committed: watch::Receiver<u64>,
    sequence: (u64, u64),
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Buffer {
    /// Opens or makes the database and starts the writer. A corrupt database is set aside as `PATH.corrupt-N`.
    pub fn open(settings: &config::Buffer, status: Arc<OutboxStatus>) -> Result<Self, BufferError> {
        let mut database = Database::open(settings)?;
        let sequence = database.reserve().map_err(BufferError::Failed)?;
        let last = database.last_id().map_err(|error| BufferError::Sql { path: settings.path.clone(), error })?;
        let (appends, append_queue) = mpsc::channel(settings.queue.get());
        // The forwarder asks one thing at a time; the rest is room for the sequencer.
        let (requests, request_queue) = mpsc::channel(8);
        let (tell, committed) = watch::channel(last);
        let io = |error| BufferError::Io { path: settings.path.clone(), error };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(io)?;
        let writer = Writer::new(database, append_queue, request_queue, tell, status);
        let thread = std::thread::Builder::new().name("buffer writer".into()).spawn(move || runtime.block_on(writer.run())).map_err(io)?;
        Ok(Self { appends, requests, committed, sequence, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Queues rows; waits while the queue is full. For plain threads: panics inside an async task. Once closed, refuses the ack.
    pub fn append(&self, rows: OutboxRows) -> Result<(), BufferError> {
        self.appends.blocking_send(Held::new(rows)).map_err(|_| BufferError::Closed)
    }

    /// The row numbers `first .. end` reserved by this start.
    #[must_use]
    pub fn sequence_start(&self) -> (u64, u64) {
        self.sequence
    }

    /// Reserves the next row numbers, `first .. end`; ask when fewer than 2^31 are left.
    pub async fn reserve_more(&self) -> Result<(u64, u64), BufferError> {
        self.ask(Request::Reserve).await?.map_err(BufferError::Failed)
    }

    /// The newest committed block's id; changes with each commit.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.clone()
    }

    /// Up to `limit` blocks with `after < id <= until`, in order. Blocks that cannot be read are moved to `refused` and skipped.
    pub async fn fetch(&self, after: u64, until: u64, limit: usize) -> Result<Vec<StoredBlock>, BufferError> {
        self.ask(|reply| Request::Fetch { after, until, limit, reply }).await?.map_err(BufferError::Failed)
    }

    /// Deletes delivered blocks with the next commit.
    pub async fn confirm(&self, ids: Vec<u64>) -> Result<(), BufferError> {
        self.requests.send(Request::Confirm(ids)).await.map_err(|_| BufferError::Closed)
    }

    /// Moves a block that the far side will never take to `refused`, with the reason.
    pub async fn refuse(&self, id: u64, reason: String) -> Result<(), BufferError> {
        self.requests.send(Request::Refuse(id, reason)).await.map_err(|_| BufferError::Closed)
    }

    /// Commits what is queued and ends the writer. What cannot be committed any more is refused. Blocks; not for async tasks.
    pub fn close(&self) {
        // An error means that it has ended already.
        let _ = self.requests.blocking_send(Request::Close);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the buffer writer panicked; unacknowledged rows will be sent again by their sources");
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, BufferError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| BufferError::Closed)?;
        answer.await.map_err(|_| BufferError::Closed)
    }
}
