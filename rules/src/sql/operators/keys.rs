//! The keys that an operator knows, each with a number.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

use super::kept_rows::KeptRows;

/// Keys, numbered as they come.
pub(super) struct Keys {
    schema: SchemaRef,
    /// `None` when there are no columns: then there is one key
    numbered: Option<Box<dyn GroupValues>>,
    /// the same keys by their numbers; those of `numbered` can only be read all at once, and are gone then
    values: KeptRows,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("schema", &self.schema).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let mut keys = Self { values: KeptRows::new(Arc::clone(&schema)), schema, numbered: None };
        keys.clear()?;
        Ok(keys)
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        self.numbered =
            if self.schema.fields().is_empty() { None } else { Some(group_values(&self.schema)?) };
        self.values = KeptRows::new(Arc::clone(&self.schema));
        Ok(())
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(super) fn len(&self) -> usize {
        self.numbered.as_ref().map_or(1, |numbered| numbered.len())
    }

    pub(super) fn bytes(&self) -> usize {
        self.numbered.as_ref().map_or(0, |numbered| numbered.size() + self.values.bytes())
    }

    /// Writes the number of each of `rows` rows' key to `numbers`.
    pub(super) fn number(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        numbers: &mut Vec<usize>,
    ) -> Result<()> {
        let Some(numbered) = &mut self.numbered else {
            numbers.clear();
            numbers.resize(rows, 0);
            return Ok(());
        };
        let known = numbered.len();
        numbered.intern(columns, numbers)?;
        let new = numbered.len() - known;
        if new > 0 { self.remember(columns, numbers, known, new) } else { Ok(()) }
    }

    /// Makes the keys that have got the `new` numbers from `known` on readable.
    fn remember(&mut self, columns: &[ArrayRef], numbers: &[usize], known: usize, new: usize) -> Result<()> {
        let mut first: Vec<Option<u32>> = vec![None; new];
        for (row, number) in (0_u32..).zip(numbers) {
            if let Some(first) = number.checked_sub(known).and_then(|at| first.get_mut(at)) {
                first.get_or_insert(row);
            }
        }
        let first = UInt32Array::from(first);
        let columns: Vec<ArrayRef> =
            columns.iter().map(|column| take(column, &first, None)).collect::<Result<_, _>>()?;
        // As they are written is for DataFusion to say: 0.0 and -0.0 are one key.
        let mut alone = group_values(&self.schema)?;
        let mut places = Vec::with_capacity(new);
        alone.intern(&columns, &mut places)?;
        let places = UInt32Array::from_iter_values(
            places.into_iter().map(|place| u32::try_from(place).unwrap_or(u32::MAX)),
        );
        let values = alone
            .emit(EmitTo::All)?
            .iter()
            .map(|column| take(column, &places, None))
            .collect::<Result<_, _>>()?;
        self.values.push(RecordBatch::try_new(Arc::clone(&self.schema), values)?);
        Ok(())
    }

    /// The keys with these numbers.
    pub(super) fn columns(&mut self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        if self.numbered.is_none() {
            return Ok(Vec::new());
        }
        // DeliveryPolicy it where most of them are wanted.
        if numbers.len() > self.len() / 2 {
            self.values.join();
        }
        Ok(self.values.take(numbers.iter().copied())?.columns().to_vec())
    }

    /// Forgets all keys but those with the numbers `wanted`, and numbers these anew, in their order. Returns
    /// the new number of each; `u32::MAX`: it is gone.
    pub(super) fn keep_only(&mut self, wanted: impl IntoIterator<Item = u32>) -> Result<Vec<u32>> {
        const GONE: u32 = u32::MAX;
        let mut new = vec![GONE; self.len()];
        for number in wanted {
            if let Some(new) = new.get_mut(number as usize) {
                *new = 0;
            }
        }
        let kept: Vec<u32> =
            (0_u32..).zip(&new).filter(|(_, new)| **new != GONE).map(|(number, _)| number).collect();
        let columns = self.columns(&kept)?;
        self.clear()?;
        let mut numbers = Vec::new();
        self.number(&columns, kept.len(), &mut numbers)?;
        for (new, number) in new.iter_mut().filter(|new| **new != GONE).zip(numbers) {
            *new = u32::try_from(number).unwrap_or(GONE);
        }
        Ok(new)
    }
}

fn group_values(schema: &SchemaRef) -> Result<Box<dyn GroupValues>> {
    new_group_values(Arc::clone(schema), &GroupOrdering::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Float64Array, Int64Array};
    use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};

    fn keys(data_type: DataType) -> Keys {
        Keys::new(Arc::new(Schema::new(vec![Field::new("x", data_type, true)]))).unwrap()
    }

    fn number(keys: &mut Keys, values: impl IntoIterator<Item = i64>) -> Vec<usize> {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        let mut numbers = Vec::new();
        keys.number(&[Arc::clone(&column)], column.len(), &mut numbers).unwrap();
        numbers
    }

    fn values(keys: &mut Keys, numbers: &[u32]) -> Vec<i64> {
        keys.columns(numbers).unwrap()[0].as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn keys_can_be_read_by_their_numbers() {
        let mut keys = keys(DataType::Int64);
        assert_eq!(number(&mut keys, [7, 8, 7]), [0, 1, 0]);
        assert_eq!(number(&mut keys, [9, 7, 5, 9]), [2, 0, 3, 2]);
        assert_eq!(values(&mut keys, &[3, 0, 2]), [5, 7, 9]);
        assert_eq!(values(&mut keys, &[1, 1]), [8, 8]);
    }

    #[test]
    fn keys_are_numbered_anew_when_some_go() {
        let mut keys = keys(DataType::Int64);
        assert_eq!(number(&mut keys, 5..9), [0, 1, 2, 3]);
        assert_eq!(keys.keep_only([3, 1, 3]).unwrap(), [u32::MAX, 0, u32::MAX, 1]);
        assert_eq!(number(&mut keys, 6..9), [0, 2, 1]);
        assert_eq!(values(&mut keys, &[0, 1, 2]), [6, 8, 7]);
    }

    #[test]
    fn a_key_is_written_as_datafusion_writes_it_whoever_came_first() {
        let mut keys = keys(DataType::Float64);
        let column: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 0.0]));
        let mut numbers = Vec::new();
        keys.number(&[column], 2, &mut numbers).unwrap();
        assert_eq!(numbers, [0, 0]);
        assert!(keys.columns(&[0]).unwrap()[0].as_primitive::<Float64Type>().value(0).is_sign_positive());
    }
}
