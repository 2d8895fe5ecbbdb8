//! Rows that were read, on their way into the sequence.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::tally::Tally;

/// Rows that are decoded at a time; results do not depend on it.
pub(super) const BATCH: usize = 1_024;

/// Where a row comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// when it enters the sequence, nanoseconds since 1970
    pub at: i64,
    /// what the wall clock showed then
    pub wall_ns: i64,
    /// its line in the recording
    pub line: u64,
}

impl Origin {
    /// The wall clock shows the time at which it enters.
    pub(super) fn new(at: i64, line: u64) -> Self {
        Self { at, wall_ns: at, line }
    }
}

/// Rows of one stream that stand next to each other in a recording.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub stream: Arc<str>,
    pub file: Arc<str>,
    pub rows: RecordBatch,
    /// one a row
    pub origins: Vec<Origin>,
}

impl Chunk {
    pub(super) fn new(tally: &mut Tally, rows: RecordBatch, origins: Vec<Origin>) -> Self {
        tally.look_at(&rows);
        Self { stream: Arc::clone(&tally.stream), file: Arc::clone(&tally.file), rows, origins }
    }

    /// Splits the first `count` rows off.
    pub(super) fn split_to(&mut self, count: usize) -> Self {
        let rest = self.rows.num_rows().saturating_sub(count);
        let rows = self.rows.slice(0, self.rows.num_rows() - rest);
        self.rows = self.rows.slice(self.rows.num_rows() - rest, rest);
        let later = self.origins.split_off(count.min(self.origins.len()));
        let origins = std::mem::replace(&mut self.origins, later);
        Self { stream: Arc::clone(&self.stream), file: Arc::clone(&self.file), rows, origins }
    }
}
