//! The rows that a pattern may still need, under numbers that never change.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, interleave, take, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use crate::expression::evaluate;

/// Segments are joined until they have as many rows: below that, looking through many of them costs more than
/// a copy.
const SMALL: usize = 1_024;

/// Unneeded rows that are worth clearing away.
const CLUTTER: usize = 4_096;

/// Rows in order of arrival; the number of a row is how many came before it.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    /// in the order of their numbers
    segments: Vec<Segment>,
    next: u64,
    len: usize,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    /// the numbers of its rows; `None`: one after the other from `first` on
    ids: Option<Vec<u64>>,
    batch: RecordBatch,
}

impl Segment {
    fn place(&self, id: u64) -> Option<usize> {
        match &self.ids {
            Some(ids) => ids.binary_search(&id).ok(),
            None => usize::try_from(id.checked_sub(self.first)?)
                .ok()
                .filter(|place| *place < self.batch.num_rows()),
        }
    }

    fn ids(&self) -> Vec<u64> {
        match &self.ids {
            Some(ids) => ids.clone(),
            None => (self.first..).take(self.batch.num_rows()).collect(),
        }
    }
}

impl Rows {
    /// No rows. All columns of `schema` may be null.
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, segments: Vec::new(), next: 0, len: 0 }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds rows. Returns their numbers.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<Range<u64>> {
        let first = self.next;
        self.next += batch.num_rows() as u64;
        self.len += batch.num_rows();
        if batch.num_rows() > 0 {
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?;
            self.segments.push(Segment { first, ids: None, batch });
            self.join_small()?;
        }
        Ok(first..self.next)
    }

    /// Joins the newest segments, each time as many rows as have come since: a row is copied a few times at
    /// most.
    fn join_small(&mut self) -> Result<()> {
        while let [.., before, last] = self.segments.as_slice() {
            let (long, short) = (before.batch.num_rows(), last.batch.num_rows());
            if long > 2 * short || long + short > SMALL {
                break;
            }
            let follows =
                before.ids.is_none() && last.ids.is_none() && before.first + long as u64 == last.first;
            let ids = (!follows).then(|| [before.ids(), last.ids()].concat());
            let batch = concat_batches(&self.schema, [&before.batch, &last.batch])?;
            let joined = Segment { first: before.first, ids, batch };
            self.segments.truncate(self.segments.len() - 2);
            self.segments.push(joined);
        }
        Ok(())
    }

    fn find(&self, id: u64) -> Result<(usize, usize)> {
        let segment = self.segments.partition_point(|segment| segment.first <= id).checked_sub(1);
        let found = segment.and_then(|at| Some((at, self.segments.get(at)?.place(id)?)));
        found.ok_or_else(|| DataFusionError::Internal("a row of a pattern has been cleared away".into()))
    }

    /// Where `ids` lie one after the other, if they do.
    fn run(&self, ids: &[u64]) -> Option<(usize, Range<usize>)> {
        let (first, last) = (*ids.first()?, *ids.last()?);
        let (segment, from) = self.find(first).ok()?;
        let to = self.segments.get(segment)?.place(last)?;
        let together = to.checked_sub(from)? + 1 == ids.len() && ids.is_sorted_by(|id, next| id < next);
        together.then_some((segment, from..to + 1))
    }

    /// A column of the rows with these numbers.
    pub(super) fn column(&self, ids: &[u64], column: usize) -> Result<ArrayRef> {
        if let Some((segment, range)) = self.run(ids)
            && let Some(segment) = self.segments.get(segment)
        {
            return Ok(segment.batch.column(column).slice(range.start, range.len()));
        }
        let places = ids.iter().map(|id| self.find(*id)).collect::<Result<Vec<_>>>()?;
        let arrays: Vec<&dyn Array> =
            self.segments.iter().map(|segment| segment.batch.column(column).as_ref()).collect();
        Ok(interleave(&arrays, &places)?)
    }

    /// The rows with these numbers.
    pub(super) fn batch(&self, ids: &[u64]) -> Result<RecordBatch> {
        if ids.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let columns =
            (0..self.schema.fields().len()).map(|column| self.column(ids, column)).collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// `value`, which has the type `data_type`, at each of these rows; null where there is none.
    pub(super) fn values(
        &self,
        value: &Arc<dyn PhysicalExpr>,
        data_type: &DataType,
        ids: &[Option<u64>],
    ) -> Result<ArrayRef> {
        let there: Vec<u64> = ids.iter().flatten().copied().collect();
        if there.is_empty() {
            return Ok(new_null_array(data_type, ids.len()));
        }
        let values = match value.downcast_ref::<Column>() {
            Some(column) => self.column(&there, column.index())?,
            None => evaluate(value, &self.batch(&there)?)?,
        };
        if there.len() == ids.len() {
            return Ok(values);
        }
        let mut next = 0;
        let places = ids.iter().map(|id| {
            id.map(|_| {
                next += 1;
                next - 1
            })
        });
        Ok(take(&values, &UInt32Array::from_iter(places), None)?)
    }

    /// Whether clearing away is worth it, when so many rows are needed.
    pub(super) fn is_cluttered(&self, needed: usize) -> bool {
        self.len > 2 * needed + CLUTTER || (needed == 0 && self.len > 0)
    }

    /// Keeps the rows with these numbers, and no others.
    pub(super) fn keep(&mut self, mut ids: Vec<u64>) -> Result<()> {
        ids.sort_unstable();
        let mut rest = ids.as_slice();
        let mut kept = Vec::new();
        for (at, segment) in self.segments.iter().enumerate() {
            let end = self
                .segments
                .get(at + 1)
                .map_or(rest.len(), |after| rest.partition_point(|id| *id < after.first));
            let (mine, others) = rest.split_at(end);
            rest = others;
            let Some(first) = mine.first().copied() else { continue };
            let places: Vec<u32> =
                mine.iter().filter_map(|id| u32::try_from(segment.place(*id)?).ok()).collect();
            let batch = take_record_batch(&segment.batch, &UInt32Array::from(places))?;
            kept.push(Segment { first, ids: Some(mine.to_vec()), batch });
        }
        self.segments.clear();
        for segment in kept {
            self.segments.push(segment);
            self.join_small()?;
        }
        self.len = ids.len();
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| {
                segment.batch.get_array_memory_size() + segment.ids.as_ref().map_or(0, |ids| ids.len() * 8)
            })
            .sum()
    }
}
