//! Rows that wait, and the keys that they wait for.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, filter, interleave_record_batch, take};
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

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

    /// The rows with these numbers.
    pub(super) fn take(&self, rows: impl IntoIterator<Item = u32>) -> Result<RecordBatch> {
        let mut starts = Vec::with_capacity(self.chunks.len());
        let mut next = 0;
        for chunk in &self.chunks {
            starts.push(next);
            next += chunk.num_rows();
        }
        let place = |row: u32| {
            let row = row as usize;
            let chunk = starts.partition_point(|start| *start <= row).saturating_sub(1);
            (chunk, row - starts.get(chunk).copied().unwrap_or(0))
        };
        let places: Vec<(usize, usize)> = rows.into_iter().map(place).collect();
        if self.chunks.is_empty() {
            return Ok(RecordBatch::new_empty(SchemaRef::clone(&self.schema)));
        }
        Ok(interleave_record_batch(&self.chunks.iter().collect::<Vec<_>>(), &places)?)
    }

    /// Whether it is time to call [`Self::keep_only`].
    pub(super) fn is_mostly_dropped(&self) -> bool {
        self.dropped > 0 && (self.dropped >= self.rows || (self.dropped * 2 > self.rows && self.rows >= 256))
    }

    /// Keeps the rows with the numbers `wanted`, all different, and numbers them anew.
    pub(super) fn keep_only(&mut self, wanted: &mut [&mut u32]) -> Result<()> {
        wanted.sort_unstable();
        let kept = self.take(wanted.iter().map(|row| **row))?;
        for (new, row) in (0_u32..).zip(wanted.iter_mut()) {
            **row = new;
        }
        (self.rows, self.dropped) = (kept.num_rows(), 0);
        self.chunks.clear();
        if kept.num_rows() > 0 {
            self.chunks.push(kept);
        }
        Ok(())
    }
}

/// Keys, numbered as they come.
pub(super) struct Keys {
    schema: SchemaRef,
    /// `None` when there are no columns: then there is one key
    values: Option<Box<dyn GroupValues>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("schema", &self.schema).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let mut keys = Self { schema, values: None };
        keys.clear()?;
        Ok(keys)
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        let some = !self.schema.fields().is_empty();
        self.values = if some { Some(new_group_values(SchemaRef::clone(&self.schema), &GroupOrdering::None)?) } else { None };
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.values.as_ref().map_or(1, |values| values.len())
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.as_ref().map_or(0, |values| values.size())
    }

    /// Writes the number of each of `rows` rows' key to `numbers`.
    pub(super) fn intern(&mut self, columns: &[ArrayRef], rows: usize, numbers: &mut Vec<usize>) -> Result<()> {
        match &mut self.values {
            Some(values) => values.intern(columns, numbers),
            None => {
                numbers.clear();
                numbers.resize(rows, 0);
                Ok(())
            }
        }
    }

    /// The keys with these numbers; all are forgotten.
    pub(super) fn columns(&mut self, numbers: &UInt64Array) -> Result<Vec<ArrayRef>> {
        let Some(values) = &mut self.values else { return Ok(Vec::new()) };
        Ok(values.emit(EmitTo::All)?.iter().map(|column| take(column, numbers, None)).collect::<Result<_, _>>()?)
    }

    /// Keeps the keys that `keep` says, and numbers them anew, in their order.
    pub(super) fn keep_only(&mut self, keep: &[bool]) -> Result<()> {
        let Some(values) = &mut self.values else { return Ok(()) };
        let mask = BooleanArray::from(keep.to_vec());
        let columns: Vec<ArrayRef> = values.emit(EmitTo::All)?.iter().map(|column| filter(column, &mask)).collect::<Result<_, _>>()?;
        self.clear()?;
        self.intern(&columns, mask.true_count(), &mut Vec::new())
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

    #[test]
    fn keys_are_numbered_anew_when_some_go() {
        let mut keys = Keys::new(batch(0..0).schema()).unwrap();
        let mut numbers = Vec::new();
        keys.intern(batch(5..9).columns(), 4, &mut numbers).unwrap();
        assert_eq!(numbers, [0, 1, 2, 3]);
        keys.keep_only(&[false, true, false, true]).unwrap();
        keys.intern(batch(6..9).columns(), 3, &mut numbers).unwrap();
        assert_eq!(numbers, [0, 2, 1]);
    }
}
