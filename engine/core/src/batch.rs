//! Rows on their way through the engine.

use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};

use crate::ack::Ack;

/// What a source hands to the sequencer: rows of one stream in arrival order.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The rows, with the stream's schema; `ts` is present and has no nulls.
    pub rows: RecordBatch,
    /// One mark for each message that its far side may send again (MQTT QoS 1) and whose rows are in the
    /// batch, in order of receipt. Opaque to all but the connection that made them: the journal keeps them
    /// with the rows, and hands the newest back when the box starts again, so that the connection knows a
    /// repeat. Empty where nothing is sent again.
    pub marks: Vec<u64>,
    /// Reports upstream when every effect of these rows is durable.
    pub ack: Ack,
}

/// Rows with the sequence number that each of them stems from.
///
/// The sequencer numbers rows, not batches: a batch of `n` rows takes `n` numbers. So identities do not
/// depend on where batches were cut.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The rows.
    pub batch: RecordBatch,
    /// One number for each row of `batch`, never decreasing.
    pub seqs: Seqs,
}

impl Rows {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.num_rows() == 0
    }

    /// Rows `offset .. offset + len`, without copying.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        Self { batch: self.batch.slice(offset, len), seqs: self.seqs.slice(offset, len) }
    }
}

/// The sequence numbers of some rows.
#[derive(Debug, Clone)]
pub enum Seqs {
    /// Row `i` has number `first + i`: rows just as they came.
    Run {
        /// The first row's number.
        first: u64,
    },
    /// All rows stem from one sequence entry: a window that closed.
    One {
        /// That entry's number.
        seq: u64,
    },
    /// A number for each row, from `offset` on.
    List {
        /// The numbers.
        seqs: Arc<[u64]>,
        /// Index of row 0 in `seqs`.
        offset: usize,
    },
}

impl Seqs {
    /// The numbers `seqs`, one a row.
    #[must_use]
    pub fn list(seqs: Vec<u64>) -> Self {
        Self::List { seqs: seqs.into(), offset: 0 }
    }

    /// The number of row `row`; rows past the end have the last number.
    #[must_use]
    pub fn get(&self, row: usize) -> u64 {
        match self {
            Self::Run { first } => first + row as u64,
            Self::One { seq } => *seq,
            Self::List { seqs, offset } => seqs.get(offset + row).or(seqs.last()).copied().unwrap_or(0),
        }
    }

    /// The numbers of the rows from `offset` on; `len` rows are looked at.
    #[must_use]
    pub fn slice(&self, offset: usize, _len: usize) -> Self {
        match self {
            Self::Run { first } => Self::Run { first: first + offset as u64 },
            Self::One { seq } => Self::One { seq: *seq },
            Self::List { seqs, offset: base } => Self::List { seqs: Arc::clone(seqs), offset: base + offset },
        }
    }

    /// The numbers of the rows for which `mask` is true (null counts as false).
    #[must_use]
    pub fn filter(&self, mask: &BooleanArray) -> Self {
        if let Self::One { seq } = self {
            return Self::One { seq: *seq };
        }
        let kept = mask.iter().enumerate().filter(|(_, keep)| *keep == Some(true));
        Self::list(kept.map(|(row, _)| self.get(row)).collect())
    }
}

/// The identity of a row that a rule wrote: the same input gives the same identity, so that a receiver can
/// drop a repeat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// The rule that wrote the row.
    pub rule: Arc<str>,
    /// Sequence number of the input row (or tick) that led to it.
    pub seq: u64,
    /// Position among the rows that this rule wrote for that number.
    pub ordinal: u32,
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.rule, self.seq, self.ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filtering_keeps_the_numbers_of_the_kept_rows() {
        let mask = BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]);
        let kept = Seqs::Run { first: 10 }.filter(&mask);
        assert_eq!((kept.get(0), kept.get(1)), (10, 13));
        let again = kept.slice(1, 1);
        assert_eq!(again.get(0), 13);
    }
}
