//! Rows that functions come back to: columns that grow at the end. A row keeps its number until the log is
//! packed.

use arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result};

/// Pieces up to this length are put together, so that rows that come one by one do not each cost an array for
/// long.
const PIECE: u32 = 4_096;

/// Rows that nobody needs any more before it is worth packing.
const SPARE: usize = 8_192;

#[derive(Debug)]
pub(in crate::sql) struct RowLog {
    types: Vec<DataType>,
    /// in the order of their rows
    pieces: Vec<Piece>,
    /// the number of the next row
    next: u32,
    /// how many rows there may be before somebody looks how many are needed
    check_at: usize,
}

#[derive(Debug)]
struct Piece {
    first: u32,
    rows: u32,
    columns: Vec<ArrayRef>,
}

impl RowLog {
    pub(super) fn new(types: Vec<DataType>) -> Self {
        Self { types, pieces: Vec::new(), next: 0, check_at: SPARE }
    }

    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Adds `rows` rows, and returns the number of the first.
    pub(super) fn push(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<u32> {
        let first = self.next;
        let rows = u32::try_from(rows).map_err(|_| full())?;
        self.next = first.checked_add(rows).ok_or_else(full)?;
        let mut last = Piece { first, rows, columns };
        // Neighbours of like length become one: a row is copied as often as its piece doubles.
        while let Some(before) = self
            .pieces
            .pop_if(|before| before.rows <= last.rows && before.rows.saturating_add(last.rows) <= PIECE)
        {
            let columns =
                before.columns.iter().zip(&last.columns).map(|(a, b)| concat(&[a, b]).map_err(Into::into));
            let columns = columns.collect::<Result<_>>()?;
            last = Piece { first: before.first, rows: before.rows + last.rows, columns };
        }
        self.pieces.push(last);
        Ok(first)
    }

    /// The piece that holds row `row`, and where in it.
    fn find(&self, row: u32) -> Option<(usize, usize)> {
        let at = self.pieces.partition_point(|piece| piece.first <= row).checked_sub(1)?;
        let piece = self.pieces.get(at)?;
        let within = row - piece.first;
        (within < piece.rows).then_some((at, within as usize))
    }

    /// One row, as columns of length 1.
    pub(super) fn row(&self, row: u32) -> Result<Vec<ArrayRef>> {
        let (piece, at) = self.find(row).ok_or_else(missing)?;
        let piece = self.pieces.get(piece).ok_or_else(missing)?;
        Ok(piece.columns.iter().map(|column| column.slice(at, 1)).collect())
    }

    /// The values of one column in these rows; null where there is no row.
    pub(super) fn gather(&self, column: usize, rows: &[Option<u32>]) -> Result<ArrayRef> {
        let data_type = self.types.get(column).ok_or_else(missing)?;
        if rows.is_empty() {
            return Ok(new_empty_array(data_type));
        }
        if let [piece] = self.pieces.as_slice() {
            let indices =
                UInt32Array::from_iter(rows.iter().map(|row| row.map(|row| row.saturating_sub(piece.first))));
            return Ok(take(piece.columns.get(column).ok_or_else(missing)?, &indices, None)?);
        }
        let nothing = new_null_array(data_type, 1);
        let mut arrays: Vec<&dyn Array> = vec![&*nothing];
        for piece in &self.pieces {
            arrays.push(&**piece.columns.get(column).ok_or_else(missing)?);
        }
        let places = rows.iter().map(|row| match row {
            None => Ok((0, 0)),
            Some(row) => self.find(*row).map(|(piece, at)| (piece + 1, at)).ok_or_else(missing),
        });
        Ok(interleave(&arrays, &places.collect::<Result<Vec<_>>>()?)?)
    }

    /// All columns in these rows.
    pub(super) fn gather_all(&self, rows: &[Option<u32>]) -> Result<Vec<ArrayRef>> {
        (0..self.types.len()).map(|column| self.gather(column, rows)).collect()
    }

    /// Whether it is time to look how many rows are needed.
    pub(super) fn wants_packing(&self) -> bool {
        self.next as usize >= self.check_at
    }

    /// Keeps the rows `needed`, if the others take more room than they; `renumber` is called with the new
    /// number of each, in order.
    pub(super) fn pack<'a>(&mut self, needed: impl Iterator<Item = &'a mut u32>, force: bool) -> Result<()> {
        let needed: Vec<&mut u32> = needed.collect();
        if force || needed.len() * 2 + SPARE <= self.next as usize {
            let rows: Vec<Option<u32>> = needed.iter().map(|row| Some(**row)).collect();
            let columns = self.gather_all(&rows)?;
            self.pieces.clear();
            self.next = 0;
            self.push(columns, rows.len())?;
            for (number, row) in (0..).zip(needed) {
                *row = number;
            }
            self.check_at = rows.len() * 2 + SPARE;
        } else {
            self.check_at = needed.len() * 2 + SPARE;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().flat_map(|piece| &piece.columns).map(|column| column.get_array_memory_size()).sum()
    }
}

fn missing() -> DataFusionError {
    DataFusionError::Internal("a row that is needed is not kept".into())
}

fn full() -> DataFusionError {
    DataFusionError::ResourcesExhausted("OVER keeps more rows than it can count; use a shorter frame".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn column(values: std::ops::Range<i64>) -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from_iter_values(values))]
    }

    #[test]
    fn rows_keep_their_numbers_while_pieces_grow_together() {
        let mut log = RowLog::new(vec![DataType::Int64]);
        for n in 0..100 {
            assert_eq!(log.push(column(n..n + 1), 1).unwrap(), u32::try_from(n).unwrap());
        }
        assert!(log.pieces.len() <= 8, "{}", log.pieces.len());
        let found = log.gather(0, &[Some(99), None, Some(0), Some(42)]).unwrap();
        assert_eq!(
            found.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
            [Some(99), None, Some(0), Some(42)]
        );
        assert_eq!(log.row(7).unwrap()[0].as_primitive::<Int64Type>().values(), &[7]);
        assert!(log.row(100).is_err());
    }

    #[test]
    fn what_is_not_needed_goes() {
        let mut log = RowLog::new(vec![DataType::Int64]);
        log.push(column(0..20_000), 20_000).unwrap();
        assert!(log.wants_packing());
        let mut needed = [5, 19_999];
        log.pack(needed.iter_mut(), false).unwrap();
        assert_eq!(needed, [0, 1]);
        assert_eq!(log.row(1).unwrap()[0].as_primitive::<Int64Type>().values(), &[19_999]);
        assert!(!log.wants_packing() && log.bytes() < 1_000);
    }
}
