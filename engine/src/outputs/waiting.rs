//! What waits to be written.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use tidegate_connectors::{By, Cause};
use tidegate_core::Rows;

use crate::config::Values;

/// Rows for an output that were asked for at one time.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// by whom
    pub by: By,
    /// the rows, with the numbers of those that they stem from
    pub rows: Rows,
    /// one a row
    pub ordinals: Vec<u32>,
    /// the sequence's time
    pub at: i64,
    /// Whether they are run again from the journal: an output may have to know them, and never writes them.
    pub is_replayed: bool,
    /// What the output's contract makes of it, if it has one: there is one row then.
    pub order: Option<Arc<Ordered>>,
}

/// What a contract wants of a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// the number of the write
    pub write: u64,
    /// which of what the output moves; empty where there is one
    pub instance: Arc<str>,
    /// after this time of the sequence it is not carried out any more
    pub until: Option<i64>,
    /// what is written
    pub values: Values,
    /// whose claim it is, if it is one
    pub rule: Option<Arc<str>>,
    /// Whether a newer one takes its place while it waits; otherwise each counts.
    pub gives_way: bool,
}

impl Waiting {
    /// Whether `newer` says all that it says anew.
    pub(super) fn gives_way_to(&self, newer: &Self) -> bool {
        let (Some(order), Some(newer)) = (&self.order, &newer.order) else { return false };
        order.gives_way
            && order.instance == newer.instance
            && order.values.keys().all(|column| newer.values.contains_key(column))
    }
}

/// What the output shall read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// which of what it moves
    pub instance: Arc<str>,
    /// the write that is looked for
    pub write: u64,
    /// the columns
    pub columns: Vec<String>,
}

/// What is next for the sink.
pub(super) enum Next {
    /// Writes.
    Write(Handed),
    /// Something to read.
    Read(Reading),
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn slice(&self, offset: usize, len: usize) -> Self {
        Self {
            by: self.by.clone(),
            rows: self.rows.slice(offset, len),
            ordinals: self.ordinals.iter().skip(offset).take(len).copied().collect(),
            at: self.at,
            is_replayed: self.is_replayed,
            order: self.order.clone(),
        }
    }

    pub(super) fn causes(&self) -> impl Iterator<Item = Cause> {
        self.ordinals.iter().enumerate().map(|(row, ordinal)| Cause {
            by: self.by.clone(),
            seq: self.rows.seqs.get(row),
            ordinal: *ordinal,
            at: self.at,
            until: self.order.as_ref().and_then(|order| order.until),
            write: self.order.as_ref().map(|order| order.write),
        })
    }

    /// The points that a row writes: the columns in which it has a value.
    pub(super) fn points(&self, row: usize) -> impl Iterator<Item = &str> {
        let batch = &self.rows.batch;
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        columns.filter(move |(_, column)| column.is_valid(row)).map(|(field, _)| field.name().as_str())
    }
}

/// What the sink is handed at once, and what it was put together from.
pub(super) struct Handed {
    pub(super) batch: RecordBatch,
    pub(super) parts: Vec<Waiting>,
    pub(super) causes: Vec<Cause>,
}
