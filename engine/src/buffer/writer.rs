//! The one thread that owns SQLite: takes what is queued, commits it as a group, releases the acks.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::sync::{mpsc, oneshot, watch};

use super::database::{Changes, Database, NewBlock};
use super::{OutboxRows, StoredBlock, block};
use crate::status::OutboxStatus;

/// Rows that one commit and one block take, so that memory and the write-ahead log stay small.
const GROUP_ROWS: usize = 65_536;
const BLOCK_ROWS: usize = 8_192;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Rows whose ack is refused unless they were committed, however they end.
pub(super) struct Held {
    rows: OutboxRows,
    committed: bool,
}

impl Held {
    pub(super) fn new(rows: OutboxRows) -> Self {
        Self { rows, committed: false }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.committed {
            self.rows.ack.refuse();
        }
    }
}

type Reply<T> = oneshot::Sender<Result<T, String>>;

/// What the writer is asked for, besides appends: these go on while appends have to wait.
pub(super) enum Request {
    Fetch { after: u64, until: u64, limit: usize, reply: Reply<Vec<StoredBlock>> },
    Confirm(Vec<u64>),
    Refuse(u64, String),
    Reserve(Reply<(u64, u64)>),
    Close,
}

pub(super) struct Writer {
    database: Database,
    appends: mpsc::Receiver<Held>,
    requests: mpsc::Receiver<Request>,
    committed: watch::Sender<u64>,
    status: Arc<OutboxStatus>,
    /// the group that is to be committed next: rows, and the blocks made of them
    held: Vec<Held>,
    changes: Changes,
    /// set while commits fail
    retry: Option<Duration>,
    full: bool,
    closing: bool,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        appends: mpsc::Receiver<Held>,
        requests: mpsc::Receiver<Request>,
        committed: watch::Sender<u64>,
        status: Arc<OutboxStatus>,
    ) -> Self {
        status.waiting.set(database.waiting);
        let (held, changes) = (Vec::new(), Changes::default());
        Self { database, appends, requests, committed, status, held, changes, retry: None, full: false, closing: false }
    }

    pub(super) async fn run(mut self) {
        while !self.closing {
            tokio::select! {
                biased;
                request = self.requests.recv() => self.answer(request.unwrap_or(Request::Close)),
                () = tokio::time::sleep(self.retry.unwrap_or_default()), if self.retry.is_some() => {}
                Some(first) = self.appends.recv(), if self.held.is_empty() && self.retry.is_none() => self.gather(Some(first)),
            }
            while let Ok(request) = self.requests.try_recv() {
                self.answer(request);
            }
            self.commit();
        }
        self.appends.close();
        loop {
            if self.held.is_empty() {
                self.gather(None);
            }
            if self.held.is_empty() {
                break;
            }
            self.commit();
            if !self.held.is_empty() {
                tracing::error!("the buffer closed before all rows could be written; they were not acknowledged");
                break;
            }
        }
        if let Err(error) = self.database.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the write-ahead log could not be folded in; the next start does it");
        }
    }

    fn answer(&mut self, request: Request) {
        // An asker that went away does not want the answer.
        match request {
            Request::Confirm(ids) => self.changes.confirmed.extend(ids),
            Request::Refuse(id, reason) => self.refuse(id, reason),
            Request::Reserve(reply) => drop(reply.send(self.database.reserve())),
            Request::Close => self.closing = true,
            Request::Fetch { after, until, limit, reply } => {
                let found = self.database.fetch(after, until, limit);
                let answer = found.map(|(good, bad)| {
                    bad.into_iter().for_each(|(id, reason)| self.refuse(id, reason));
                    good
                });
                drop(reply.send(answer.map_err(|error| error.to_string())));
            }
        }
    }

    fn refuse(&mut self, id: u64, reason: String) {
        tracing::error!(block = id, %reason, "a block cannot be delivered; it is kept in table `refused`");
        self.changes.refused.push((id, reason));
    }

    /// Takes what is queued, up to the limits, and packs it.
    fn gather(&mut self, first: Option<Held>) {
        let mut rows = 0;
        let mut next = first.or_else(|| self.appends.try_recv().ok());
        while let Some(held) = next {
            rows += held.rows.rows.len();
            self.held.push(held);
            next = if rows < GROUP_ROWS { self.appends.try_recv().ok() } else { None };
        }
        let mut open: Vec<(Arc<str>, Vec<RecordBatch>, usize)> = Vec::new();
        for held in &mut self.held {
            let OutboxRows { rule, rows, ordinals, ack } = &held.rows;
            let batch = match block::with_ids(rows, ordinals) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(%rule, %error, "rows do not fit their own schema and were refused");
                    ack.refuse();
                    continue;
                }
            };
            let mut offset = 0;
            while offset < batch.num_rows() {
                let last = open.iter_mut().rev().find(|(of, ..)| of == rule);
                let part = |room: usize| batch.slice(offset, room.min(batch.num_rows() - offset));
                offset += match last {
                    Some((_, parts, n)) if *n < BLOCK_ROWS && parts.first().is_some_and(|b| b.schema_ref() == batch.schema_ref()) => {
                        let part = part(BLOCK_ROWS - *n);
                        let len = part.num_rows();
                        *n += len;
                        parts.push(part);
                        len
                    }
                    _ => {
                        let part = part(BLOCK_ROWS);
                        let len = part.num_rows();
                        open.push((Arc::clone(rule), vec![part], len));
                        len
                    }
                };
            }
        }
        for (rule, parts, rows) in open {
            match block::encode(&parts).and_then(|data| Ok((block::seq_range(&parts)?, data))) {
                Ok(((first_seq, last_seq), data)) => {
                    self.changes.blocks.push(NewBlock { rule, first_seq, last_seq, rows: rows as u64, data });
                }
                Err(error) => {
                    tracing::error!(%rule, %error, "rows could not be packed and were refused");
                    self.held.iter().filter(|held| held.rows.rule == rule).for_each(|held| held.rows.ack.refuse());
                }
            }
        }
    }

    fn commit(&mut self) {
        let size = self.changes.blocks.iter().map(|block| block.data.len() as u64).sum();
        let mut later = Vec::new();
        let wait = self.database.must_wait(size);
        if wait {
            // Deletions go first: they are what makes room.
            later = std::mem::take(&mut self.changes.blocks);
            if !self.full {
                tracing::warn!("the buffer is full; new rows wait until the uplink has taken older ones");
            }
        }
        self.full = wait;
        if self.changes.blocks.is_empty() && self.changes.confirmed.is_empty() && self.changes.refused.is_empty() {
            if !wait {
                self.release();
            }
            self.changes.blocks = later;
            return;
        }
        match self.database.commit(&self.changes) {
            Ok(done) => {
                if self.retry.take().is_some() {
                    tracing::warn!("the buffer can be written again");
                }
                let rows: u64 = self.changes.blocks.iter().map(|block| block.rows).sum();
                self.status.committed.add(rows);
                self.status.waiting.set(self.database.waiting);
                self.status.dropped.add(done.dropped_rows);
                if done.dropped_rows > 0 {
                    tracing::warn!(rows = done.dropped_rows, "the buffer is full; the oldest rows were dropped");
                }
                self.changes = Changes { blocks: later, ..Changes::default() };
                // The forwarder hears of rows before their source does, so that they count as live at once.
                if let Some(id) = done.last_id {
                    self.committed.send_replace(id);
                }
                if !wait {
                    self.release();
                } else if !self.database.must_wait(size) {
                    return self.commit();
                }
            }
            Err(error) => {
                if self.retry.is_none() {
                    tracing::error!(%error, "the buffer cannot be written; rows are held and not acknowledged: free space or check the disk");
                }
                self.retry = Some(self.retry.map_or(FIRST_RETRY, |last| (last * 2).min(LAST_RETRY)));
                self.changes.blocks.append(&mut later);
            }
        }
    }

    fn release(&mut self) {
        self.held.iter_mut().for_each(|held| held.committed = true);
        self.held.clear();
    }
}
