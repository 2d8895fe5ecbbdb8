//! The journal being run again.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidegate_core::Rows;
use tidegate_rules::{Listened, When};
use tokio::sync::mpsc;

use super::stored::StoredEdit;
use crate::buffer::{Buffer, BufferError, Content, States, unpack};
use crate::outputs::contract::Contracts;
use crate::rules::book::RuleBook;
use crate::sequence::edit::{Edit, Placed};
use crate::sequence::entry::{Entry, Origin};
use crate::sequence::loads::Loads;
use crate::sequence::verdict::Verdict;

/// Hands what was to the rule book and the workers.
pub(super) struct Again<'a> {
    pub book: &'a mut RuleBook,
    pub workers: &'a [mpsc::Sender<Entry>],
    loads: &'a Arc<Loads>,
    pub buffer: Buffer,
    /// of each stream, as its last rows had them
    columns: HashMap<Arc<str>, SchemaRef>,
    /// when the entry at hand came
    pub when: When,
    pub entries: u64,
    pub rows: u64,
}

impl<'a> Again<'a> {
    pub(super) fn new(
        book: &'a mut RuleBook,
        (workers, loads): (&'a [mpsc::Sender<Entry>], &'a Arc<Loads>),
        buffer: Buffer,
    ) -> Self {
        Self { book, workers, loads, buffer, columns: HashMap::new(), when: When::at(0), entries: 0, rows: 0 }
    }

    /// Makes a change again. Returns what came of it: a rule whose source is lost is gone, and a table stays
    /// as it was.
    pub(super) async fn edit(&mut self, stored: StoredEdit) -> Result<Vec<Edit>, BufferError> {
        let edits = match (stored.load(&self.buffer).await?, stored) {
            (Some(edit), _) => vec![edit],
            (None, StoredEdit::Put { name, inherits, .. }) => {
                tracing::error!(
                    rule = name,
                    "the source that the rule had is lost; the rule starts anew when its file is read"
                );
                [inherits, name].map(|name| Edit::Remove { name }).into()
            }
            (None, StoredEdit::Refuse { verdict: Verdict { rule, .. }, .. }) => {
                tracing::error!(
                    rule,
                    "the source of the version that went on is lost; the rule starts anew when its file is read"
                );
                vec![Edit::Remove { name: rule }]
            }
            (None, StoredEdit::Table { name, .. } | StoredEdit::Remove { name }) => {
                say_lost(&name, "it is gone, or damaged");
                Vec::new()
            }
            (None, StoredEdit::Stop(_)) => Vec::new(),
        };
        for edit in &edits {
            let changes = match edit {
                Edit::Table { name, content } => self.table(name, content),
                edit => self.book.edit(edit).changes,
            };
            self.place(changes).await;
        }
        Ok(edits)
    }

    /// What stopped rules, of all that is run again: they are stopped before they go past it.
    pub(super) async fn verdicts(&self, stored: &[String]) {
        let verdicts = stored.iter().filter_map(|edit| match serde_json::from_str(edit) {
            Ok(StoredEdit::Stop(verdict) | StoredEdit::Refuse { verdict, .. }) => Some(verdict),
            // What else it may be is run again in its turn, and said there if it cannot be read.
            _ => None,
        });
        let verdicts: Arc<[Verdict]> = verdicts.collect();
        if !verdicts.is_empty() {
            for worker in 0..self.workers.len() {
                self.send(worker, Entry::Verdicts(Arc::clone(&verdicts))).await;
            }
        }
    }

    fn table(&mut self, name: &str, content: &Content) -> Vec<Placed> {
        match unpack(content.bytes()) {
            Ok(rows) => self.book.set_table(&Arc::from(name), rows),
            Err(error) => {
                say_lost(name, &error.to_string());
                Vec::new()
            }
        }
    }

    pub(super) async fn restore(&self, states: States) {
        for (rule, state) in states {
            let worker = if *rule == *Contracts::STORED_AS {
                Some(Contracts::WORKER)
            } else {
                self.book.worker_of(&rule)
            };
            match worker {
                Some(worker) => self.send(worker, Entry::Restore { rule, state }).await,
                None => {
                    tracing::warn!(rule = %rule, "the rule cannot be loaded any more; its state is dropped")
                }
            }
        }
    }

    pub(super) async fn rows(&mut self, stream: &Arc<str>, rows: Rows) {
        self.rows += rows.len() as u64;
        let schema = rows.batch.schema();
        if self.columns.get(stream).is_none_or(|known| *known != schema) {
            self.columns(stream, &schema).await;
            self.columns.insert(Arc::clone(stream), schema);
        }
        for worker in 0..self.workers.len() {
            let (stream, rows) = (Arc::clone(stream), rows.clone());
            self.send(worker, Entry::Batch { stream, rows, when: self.when, origin: Origin::Journal }).await;
        }
    }

    pub(super) async fn tick(&self, seq: u64) {
        for worker in 0..self.workers.len() {
            self.send(worker, Entry::Tick { seq, when: self.when, origin: Origin::Journal }).await;
        }
    }

    pub(super) async fn listened(&self, seq: u64, streams: &[String], listened: Listened) {
        let streams: Arc<[Arc<str>]> = streams.iter().map(|stream| Arc::from(stream.as_str())).collect();
        for worker in 0..self.workers.len() {
            let (streams, when, origin) = (Arc::clone(&streams), self.when, Origin::Journal);
            self.send(worker, Entry::Listened { seq, streams, listened, when, origin }).await;
        }
    }

    /// Has the rules compiled for these columns, if they are not.
    pub(super) async fn columns(&mut self, stream: &str, schema: &SchemaRef) {
        if self.book.columns(stream) != Some(schema) {
            let changes = self.book.columns_changed(stream, schema);
            self.place(changes).await;
        }
    }

    async fn place(&self, changes: Vec<Placed>) {
        for (worker, change) in changes {
            self.send(worker, Entry::Change(change.among(self.loads))).await;
        }
    }

    async fn send(&self, worker: usize, entry: Entry) {
        if let Some(worker) = self.workers.get(worker) {
            // A worker is gone only when the box is going down.
            drop(worker.send(entry).await);
        }
    }
}

fn say_lost(table: &str, reason: &str) {
    tracing::error!(
        table,
        reason,
        "what the table held cannot be read any more; rules do without it until its file is read"
    );
}
