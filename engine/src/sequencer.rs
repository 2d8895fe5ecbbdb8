//! The sequencer: the only place where order is made.
//!
//! It numbers rows as they come, and hands batches and rule changes to the workers in one order. Numbers are reserved in the buffer
//! before they are used, so that no number is used twice, whatever happens to the box.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidegate_core::{Ack, Batch, Rows, Seqs};
use tokio::sync::mpsc;

use crate::rulebook::Placed;
use crate::rules_dir::RulesHandle;
use crate::schemas::SchemaStore;
use crate::status::{Status, StreamStatus};
use crate::worker::Change;

/// What a worker takes from the sequence.
pub enum Entry {
    /// Rows of an input stream.
    Batch {
        /// the stream
        stream: Arc<str>,
        /// its rows, numbered
        rows: Rows,
        /// held until everything that follows from the rows is durable
        ack: Ack,
    },
    /// The rules change.
    Change(Change),
}

/// Gives numbers to rows.
#[derive(Debug)]
pub struct Numbers {
    next: u64,
}

impl Numbers {
    /// Numbers from `first` on.
    #[must_use]
    pub fn from(first: u64) -> Self {
        Self { next: first }
    }

    /// The number of the next row.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Numbers the rows of `batch`.
    pub fn number(&mut self, batch: RecordBatch) -> Rows {
        let first = self.next;
        self.next += batch.num_rows() as u64;
        Rows { batch, seqs: Seqs::Run { first } }
    }
}

/// The sequencer of a running box.
pub struct Sequencer {
    /// gives numbers
    pub numbers: Numbers,
    /// Called with the next number before it is used; reserves more in time.
    pub reserve: Box<dyn FnMut(u64) + Send + Sync>,
    /// one queue a worker
    pub workers: Vec<mpsc::Sender<Entry>>,
    /// compiles rules anew when columns widen
    pub rules: RulesHandle,
    /// keeps inferred columns
    pub schemas: SchemaStore,
    /// counts rows
    pub status: Arc<Status>,
}

impl Sequencer {
    /// Runs until every source has gone.
    pub async fn run(mut self, mut batches: mpsc::Receiver<Batch>, mut changes: mpsc::Receiver<Placed>) {
        let mut streams: HashMap<Arc<str>, (SchemaRef, Arc<StreamStatus>)> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                Some(change) = changes.recv() => self.change(change).await,
                batch = batches.recv() => {
                    let Some(Batch { stream, rows, marks: _, ack }) = batch else { break };
                    let schema = rows.schema();
                    let status = match streams.get(&stream) {
                        Some((known, status)) if Arc::ptr_eq(known, &schema) => status,
                        _ => {
                            self.columns_seen(&stream, &schema, &mut changes).await;
                            let status = self.status.streams.of(&stream);
                            &streams.entry(Arc::clone(&stream)).insert_entry((schema, status)).into_mut().1
                        }
                    };
                    status.note(&rows);
                    (self.reserve)(self.numbers.next());
                    let rows = self.numbers.number(rows);
                    self.send(stream, rows, ack).await;
                }
            }
        }
        tracing::debug!(next = self.numbers.next(), "all sources have gone");
    }

    async fn change(&self, (worker, change): Placed) {
        if let Some(worker) = self.workers.get(worker) {
            // A worker is gone only when the box is going down.
            drop(worker.send(Entry::Change(change)).await);
        }
    }

    async fn send(&self, stream: Arc<str>, rows: Rows, ack: Ack) {
        let Some((last, others)) = self.workers.split_last() else { return };
        for worker in others {
            let entry = Entry::Batch { stream: Arc::clone(&stream), rows: rows.clone(), ack: ack.clone() };
            refuse_unless_sent(worker.send(entry).await);
        }
        refuse_unless_sent(last.send(Entry::Batch { stream, rows, ack }).await);
    }

    /// Takes note of columns that are new, and lets no row with them pass before the rules have been compiled for them.
    async fn columns_seen(&mut self, stream: &str, schema: &SchemaRef, changes: &mut mpsc::Receiver<Placed>) {
        if !self.schemas.widened(stream, schema) {
            return;
        }
        tracing::info!(stream, columns = schema.fields().len(), "the columns of the stream are known now, or have widened");
        let mut reply = self.rules.columns_changed(stream, schema).await;
        // The rules thread may be waiting for us to take changes that it made before; they come first.
        let compiled = loop {
            tokio::select! {
                biased;
                Some(change) = changes.recv() => self.change(change).await,
                compiled = &mut reply => break compiled.unwrap_or_default(),
            }
        };
        while let Ok(change) = changes.try_recv() {
            self.change(change).await;
        }
        for change in compiled {
            self.change(change).await;
        }
    }
}

fn refuse_unless_sent(sent: Result<(), mpsc::error::SendError<Entry>>) {
    if let Err(mpsc::error::SendError(Entry::Batch { ack, .. })) = sent {
        ack.refuse();
    }
}
