//! What waits to be written.

use arrow::array::{Array, RecordBatch};
use tidegate_connectors::{By, Cause};
use tidegate_core::Rows;

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
        }
    }

    pub(super) fn causes(&self) -> impl Iterator<Item = Cause> {
        self.ordinals.iter().enumerate().map(|(row, ordinal)| Cause {
            by: self.by.clone(),
            seq: self.rows.seqs.get(row),
            ordinal: *ordinal,
            at: self.at,
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
