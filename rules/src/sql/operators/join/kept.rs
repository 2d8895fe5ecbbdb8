//! Rows that an operator keeps, each with a number that says when it came.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch, interleave, take};
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;

use super::batch_of;

/// Rows in the order in which they came. Few rows and many rows cost the same a row: they are kept in blocks,
/// and a block is merged into the one before it as soon as that is not much larger.
#[derive(Debug)]
pub(super) struct KeptRows {
    schema: SchemaRef,
    blocks: Vec<Block>,
    next: u64,
}

#[derive(Debug)]
struct Block {
    /// never decreasing
    ids: Vec<u64>,
    batch: RecordBatch,
    /// rows that are forgotten but not yet taken out
    forgotten: Vec<bool>,
    left: usize,
    bytes: usize,
}

impl Block {
    fn new(ids: Vec<u64>, batch: RecordBatch) -> Self {
        let bytes = batch.get_array_memory_size() + ids.len() * (size_of::<u64>() + size_of::<bool>());
        Self { left: ids.len(), forgotten: vec![false; ids.len()], ids, batch, bytes }
    }

    /// Without the rows that are forgotten.
    fn tidied(self) -> Result<Self> {
        if self.left == self.ids.len() {
            return Ok(self);
        }
        let keep = BooleanArray::from(self.forgotten.iter().map(|forgotten| !forgotten).collect::<Vec<_>>());
        let ids = self
            .ids
            .into_iter()
            .zip(self.forgotten)
            .filter(|(_, forgotten)| !forgotten)
            .map(|(id, _)| id)
            .collect();
        Ok(Self::new(ids, filter_record_batch(&self.batch, &keep)?))
    }
}

impl KeptRows {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, blocks: Vec::new(), next: 0 }
    }

    /// Keeps the rows of `batch`. Returns the number of the first of them; the others follow it.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<u64> {
        let first = self.next;
        self.next += batch.num_rows() as u64;
        if first == self.next {
            return Ok(first);
        }
        let mut block = Block::new((first..self.next).collect(), batch);
        while let Some(before) = self.blocks.pop_if(|before| before.left <= 2 * block.left) {
            let (before, last) = (before.tidied()?, block.tidied()?);
            let batch = concat_batches(&self.schema, [&before.batch, &last.batch])?;
            block = Block::new(before.ids.into_iter().chain(last.ids).collect(), batch);
        }
        self.blocks.push(block);
        Ok(first)
    }

    /// Frees the memory of all rows that are of no use any more.
    pub(super) fn tidy(&mut self) -> Result<()> {
        self.blocks =
            std::mem::take(&mut self.blocks).into_iter().map(Block::tidied).collect::<Result<_>>()?;
        Ok(())
    }

    /// The row with this number is of no use any more.
    pub(super) fn forget(&mut self, id: u64) -> Result<()> {
        let Some((at, row)) = self.find(id) else { return Ok(()) };
        let Some(block) = self.blocks.get_mut(at) else { return Ok(()) };
        let Some(forgotten) = block.forgotten.get_mut(row) else { return Ok(()) };
        if !std::mem::replace(forgotten, true) {
            block.left -= 1;
        }
        if block.left == 0 {
            self.blocks.remove(at);
        } else if block.left < block.ids.len() / 2 {
            let tidied = self.blocks.remove(at).tidied()?;
            self.blocks.insert(at, tidied);
        }
        Ok(())
    }

    fn find(&self, id: u64) -> Option<(usize, usize)> {
        let at = self.blocks.partition_point(|block| block.ids.last().is_none_or(|last| *last < id));
        Some((at, self.blocks.get(at)?.ids.binary_search(&id).ok()?))
    }

    /// The columns of the rows with these numbers; `None` gives nulls.
    pub(super) fn columns(&self, ids: impl Iterator<Item = Option<u64>>) -> Result<Vec<ArrayRef>> {
        let places: Vec<Option<(usize, usize)>> = ids.map(|id| id.and_then(|id| self.find(id))).collect();
        let of = |column: usize, field: &arrow::datatypes::Field| -> Result<ArrayRef> {
            if let [block] = self.blocks.as_slice() {
                let rows = places.iter().map(|place| place.and_then(|(_, row)| u32::try_from(row).ok()));
                return Ok(take(block.batch.column(column), &UInt32Array::from_iter(rows), None)?);
            }
            let null = new_null_array(field.data_type(), 1);
            let arrays: Vec<&dyn Array> = self
                .blocks
                .iter()
                .map(|block| block.batch.column(column).as_ref())
                .chain(std::iter::once(null.as_ref()))
                .collect();
            let places: Vec<(usize, usize)> =
                places.iter().map(|place| place.unwrap_or((self.blocks.len(), 0))).collect();
            Ok(interleave(&arrays, &places)?)
        };
        self.schema.fields().iter().enumerate().map(|(column, field)| of(column, field)).collect()
    }

    /// All rows with their numbers, in the order in which they came; nothing is kept afterwards.
    pub(super) fn take_all(&mut self) -> Result<(Vec<u64>, RecordBatch)> {
        let blocks =
            std::mem::take(&mut self.blocks).into_iter().map(Block::tidied).collect::<Result<Vec<_>>>()?;
        if blocks.is_empty() {
            return Ok((Vec::new(), RecordBatch::new_empty(Arc::clone(&self.schema))));
        }
        let batch = concat_batches(&self.schema, blocks.iter().map(|block| &block.batch))?;
        Ok((blocks.into_iter().flat_map(|block| block.ids).collect(), batch))
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes).sum()
    }
}

/// The rows of `left` and `right` with these numbers, side by side.
pub(super) fn side_by_side(
    schema: &SchemaRef,
    left: (&KeptRows, &[Option<u64>]),
    right: (&KeptRows, &[Option<u64>]),
) -> Result<RecordBatch> {
    let mut columns = left.0.columns(left.1.iter().copied())?;
    columns.extend(right.0.columns(right.1.iter().copied())?);
    batch_of(schema, columns, left.1.len())
}
