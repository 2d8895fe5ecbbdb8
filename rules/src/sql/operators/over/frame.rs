//! Frames: which rows before a row a function looks at, and the rows that are kept for that.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};
use datafusion_common::{DataFusionError, Result};

use super::super::row_log::RowLog;
use crate::sql::operators::at_rest::rows_of;

/// How far back a frame reaches from the current row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) enum Back {
    /// to the first row of the key
    Unbounded,
    /// to so many rows before
    Rows(usize),
    /// to rows whose time is so many nanoseconds before
    Time(i64),
}

/// `BETWEEN start PRECEDING AND end PRECEDING`; `CURRENT ROW` is `Rows(0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) struct Frame {
    pub start: Back,
    pub end: Back,
}

impl Frame {
    /// From the first row to the current one.
    pub(in crate::sql) const RUNNING: Self = Self { start: Back::Unbounded, end: Back::Rows(0) };
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_time = [self.start, self.end].iter().any(|back| matches!(back, Back::Time(_)));
        write!(f, "{} BETWEEN {} AND {}", if in_time { "RANGE" } else { "ROWS" }, self.start, self.end)
    }
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbounded => f.write_str("UNBOUNDED PRECEDING"),
            Self::Rows(0) => f.write_str("CURRENT ROW"),
            Self::Rows(rows) => write!(f, "{rows} PRECEDING"),
            Self::Time(ns) => write!(f, "{ns}ns PRECEDING"),
        }
    }
}

/// A row that a frame holds, or will.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub at: i64,
    /// its number in the log
    pub row: u32,
    /// whether FILTER lets it through
    pub counts: bool,
    /// its value, where numbers are added up
    pub number: f64,
}

/// A row comes into a frame, or leaves it.
pub(super) enum Move {
    Enters,
    Leaves,
}

/// The frame of one key: its rows, of which the first `entered` are in the frame and the rest will be.
#[derive(Debug, Default)]
pub(super) struct KeyFrame {
    pub rows: VecDeque<Kept>,
    pub entered: usize,
}

impl KeyFrame {
    /// The key's time is `now`; `new` has come, unless it is of no account. Tells `moves` who enters and who
    /// leaves.
    pub(super) fn advance(
        &mut self,
        frame: Frame,
        now: i64,
        new: Option<Kept>,
        moves: &mut dyn FnMut(Move, Kept) -> Result<()>,
    ) -> Result<()> {
        self.rows.extend(new);
        let len = self.rows.len();
        while let Some(next) = self.rows.get(self.entered).copied() {
            let enters = match frame.end {
                Back::Unbounded => false,
                Back::Rows(back) => len - 1 - self.entered >= back,
                Back::Time(back) => now.saturating_sub(next.at) >= back,
            };
            if !enters {
                break;
            }
            moves(Move::Enters, next)?;
            self.entered += 1;
        }
        while let Some(first) = self.rows.front().copied() {
            let leaves = match frame.start {
                Back::Unbounded => false,
                Back::Rows(back) => self.rows.len() > back.saturating_add(1),
                Back::Time(back) => now.saturating_sub(first.at) > back,
            };
            if !leaves {
                break;
            }
            self.rows.pop_front();
            if self.entered > 0 {
                self.entered -= 1;
                moves(Move::Leaves, first)?;
            }
        }
        Ok(())
    }
}

/// The frames of all keys, and the rows in them.
#[derive(Debug)]
pub(super) struct Frames {
    pub log: RowLog,
    pub keys: Vec<KeyFrame>,
}

impl Frames {
    /// Frames over rows with columns of these types.
    pub(super) fn new(types: Vec<DataType>) -> Self {
        Self { log: RowLog::new(types), keys: Vec::new() }
    }

    /// Makes room for `keys` keys.
    pub(super) fn grow(&mut self, keys: usize) {
        if keys > self.keys.len() {
            self.keys.resize_with(keys, KeyFrame::default);
        }
    }

    /// Drops rows that no frame holds, when they are many.
    pub(super) fn pack(&mut self) -> Result<()> {
        if self.log.wants_packing() {
            let needed = self.keys.iter_mut().flat_map(|key| key.rows.iter_mut().map(|kept| &mut kept.row));
            self.log.pack(needed, false)?;
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, keys: &[usize]) -> Result<()> {
        let all = self.keys.len();
        let kept = keys.iter().map(|key| self.keys.get_mut(*key).map(std::mem::take).unwrap_or_default());
        self.keys = kept.collect();
        if self.keys.len() == all {
            return Ok(());
        }
        self.log
            .pack(self.keys.iter_mut().flat_map(|key| key.rows.iter_mut().map(|kept| &mut kept.row)), true)
    }

    pub(super) fn bytes(&self) -> usize {
        let rows: usize = self.keys.iter().map(|key| key.rows.capacity() * size_of::<Kept>()).sum();
        self.log.bytes() + rows + self.keys.capacity() * size_of::<KeyFrame>()
    }

    fn schema(&self) -> Arc<Schema> {
        let fixed = [
            ("key", DataType::UInt32),
            ("at", DataType::Int64),
            ("counts", DataType::Boolean),
            ("inside", DataType::Boolean),
        ];
        let mut fields: Vec<Field> =
            fixed.into_iter().map(|(name, data_type)| Field::new(name, data_type, false)).collect();
        fields.extend(
            (0..)
                .zip(self.log.types())
                .map(|(n, data_type): (usize, _)| Field::new(format!("{n}"), data_type.clone(), true)),
        );
        Arc::new(Schema::new(fields))
    }

    /// The rows that are kept, key by key.
    pub(super) fn seal(&self) -> Result<RecordBatch> {
        let (mut keys, mut at, mut counts, mut inside, mut rows) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (number, key) in (0_u32..).zip(&self.keys) {
            for (place, kept) in key.rows.iter().enumerate() {
                keys.push(number);
                at.push(kept.at);
                counts.push(kept.counts);
                inside.push(place < key.entered);
                rows.push(Some(kept.row));
            }
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(keys)),
            Arc::new(Int64Array::from(at)),
            Arc::new(BooleanArray::from(counts)),
            Arc::new(BooleanArray::from(inside)),
        ];
        columns.extend(self.log.gather_all(&rows)?);
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }

    /// Takes sealed rows over, unless they have other columns; `taken` is told of each, and whether it is in
    /// its frame.
    pub(super) fn restore(
        &mut self,
        batch: &RecordBatch,
        taken: &mut dyn FnMut(usize, &mut Kept, bool, &RowLog) -> Result<()>,
    ) -> Result<bool> {
        let wrong =
            || DataFusionError::Internal("the rows of a frame were not sealed as they should be".into());
        let Some(batch) = rows_of(batch, &self.schema()) else { return Ok(false) };
        let column = |n: usize| batch.columns().get(n).ok_or_else(wrong);
        let keys = column(0)?.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
        let at = column(1)?.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let (counts, inside) =
            (column(2)?.as_boolean_opt().ok_or_else(wrong)?, column(3)?.as_boolean_opt().ok_or_else(wrong)?);
        let first = self.log.push(batch.columns().iter().skip(4).cloned().collect(), batch.num_rows())?;
        for (place, row) in (0..batch.num_rows()).zip(first..) {
            let key = keys.value(place) as usize;
            let mut kept = Kept { at: at.value(place), row, counts: counts.value(place), number: 0.0 };
            taken(key, &mut kept, inside.value(place), &self.log)?;
            self.grow(key + 1);
            if let Some(frame) = self.keys.get_mut(key) {
                frame.rows.push_back(kept);
                frame.entered += usize::from(inside.value(place));
            }
        }
        Ok(true)
    }
}
