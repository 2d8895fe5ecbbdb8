//! Rows that wait.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;

/// Rows, numbered in order of arrival. Which of them are still wanted, their owner knows.
#[derive(Debug)]
pub(super) struct KeptRows {
    schema: SchemaRef,
    /// each more than half as long as the one before it at most, so that they are few
    chunks: Vec<RecordBatch>,
    rows: usize,
    dropped: usize,
}

impl KeptRows {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, chunks: Vec::new(), rows: 0, dropped: 0 }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds rows. Returns the number of the first.
    pub(super) fn push(&mut self, batch: RecordBatch) -> u32 {
        let first = u32::try_from(self.rows).unwrap_or(u32::MAX);
        self.rows += batch.num_rows();
        let mut last = batch;
        while let Some(before) = self.chunks.pop_if(|before| before.num_rows() < 2 * last.num_rows()) {
            match concat_batches(&self.schema, [&before, &last]) {
                Ok(both) => last = both,
                // Too long for one batch.
                Err(_) => {
                    self.chunks.push(before);
                    break;
                }
            }
        }
        self.chunks.push(last);
        first
    }

    /// So many rows are not wanted any more.
    pub(super) fn drop_rows(&mut self, rows: usize) {
        self.dropped += rows;
    }

    pub(super) fn live(&self) -> usize {
        self.rows.saturating_sub(self.dropped)
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// Puts all rows into one batch, unless they are too many for that.
    pub(super) fn join(&mut self) {
        if self.chunks.len() > 1
            && let Ok(all) = concat_batches(&self.schema, &self.chunks)
        {
            self.chunks = vec![all];
        }
    }

    /// The rows with these numbers.
    pub(super) fn take(&self, rows: impl IntoIterator<Item = u32>) -> Result<RecordBatch> {
        match self.chunks.as_slice() {
            [] => Ok(RecordBatch::new_empty(SchemaRef::clone(&self.schema))),
            [all] => {
                let rows: Vec<u32> = rows.into_iter().collect();
                let first = rows.first().copied().unwrap_or(0);
                let are_neighbours = (first..).zip(&rows).all(|(next, row)| next == *row);
                // A slice keeps all of the batch in memory, which must not be much more than itself.
                if are_neighbours && rows.len() * 2 > all.num_rows() {
                    return Ok(all.slice(first as usize, rows.len()));
                }
                Ok(take_record_batch(all, &UInt32Array::from(rows))?)
            }
            chunks => self.take_from(chunks, rows),
        }
    }

    fn take_from(&self, chunks: &[RecordBatch], rows: impl IntoIterator<Item = u32>) -> Result<RecordBatch> {
        let mut starts = Vec::with_capacity(chunks.len());
        let mut next = 0;
        for chunk in chunks {
            starts.push(next);
            next += chunk.num_rows();
        }
        let place = |row: u32| {
            let row = row as usize;
            let chunk = starts.partition_point(|start| *start <= row).saturating_sub(1);
            (chunk, row - starts.get(chunk).copied().unwrap_or(0))
        };
        let places: Vec<(usize, usize)> = rows.into_iter().map(place).collect();
        Ok(interleave_record_batch(&chunks.iter().collect::<Vec<_>>(), &places)?)
    }

    /// Whether it is time to call [`Self::keep_only`].
    pub(super) fn is_mostly_dropped(&self) -> bool {
        self.dropped > 0 && (self.dropped >= self.rows || (self.dropped * 2 > self.rows && self.rows >= 256))
    }

    /// How many rows are not wanted any more.
    pub(super) fn dropped(&self) -> usize {
        self.dropped
    }

    /// Keeps the rows with the numbers `wanted`, and numbers them anew.
    pub(super) fn keep_only(&mut self, wanted: &mut [&mut u32]) -> Result<()> {
        const GONE: u32 = u32::MAX;
        let mut new = vec![GONE; self.rows];
        for row in wanted.iter() {
            if let Some(new) = new.get_mut(**row as usize) {
                *new = 0;
            }
        }
        let mut kept = Vec::with_capacity(wanted.len());
        for (old, new) in (0_u32..).zip(&mut new).filter(|(_, new)| **new != GONE) {
            *new = u32::try_from(kept.len()).unwrap_or(GONE);
            kept.push(old);
        }
        for row in wanted.iter_mut() {
            **row = new.get(**row as usize).copied().unwrap_or(GONE);
        }
        let kept = self.take(kept)?;
        (self.rows, self.dropped) = (kept.num_rows(), 0);
        self.chunks.clear();
        if kept.num_rows() > 0 {
            self.chunks.push(kept);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use std::sync::Arc;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
    }

    fn values(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_are_found_by_their_numbers_wherever_they_lie() {
        let mut rows = KeptRows::new(batch(0..0).schema());
        let mut next = 0;
        for len in [1, 1, 1, 5, 300, 2, 1, 1] {
            assert_eq!(i64::from(rows.push(batch(next..next + len))), next);
            next += len;
        }
        assert!(rows.chunks.len() <= 4, "{}", rows.chunks.len());
        assert_eq!(values(&rows.take([311, 0, 7, 8, 7]).unwrap()), [311, 0, 7, 8, 7]);
        rows.drop_rows(310);
        assert!(rows.is_mostly_dropped());
        let (mut a, mut b) = (300, 2);
        rows.keep_only(&mut [&mut a, &mut b]).unwrap();
        assert_eq!((a, b, rows.live()), (1, 0, 2));
        assert_eq!(values(&rows.take([a, b]).unwrap()), [300, 2]);
        rows.drop_rows(2);
        rows.keep_only(&mut []).unwrap();
        assert_eq!((rows.live(), rows.bytes()), (0, 0));
    }
}
