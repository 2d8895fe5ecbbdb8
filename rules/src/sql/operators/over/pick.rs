//! Functions that give the value of another row: `lag`, `first_value`, `last_value`, `nth_value`; and
//! `changed`, which compares with one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Scalar, make_comparator};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{SortOptions, and, is_not_null};
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use datafusion_common::{Result, ScalarValue};
use datafusion_physical_expr::PhysicalExpr;

use super::frame::{Back, Frame, Frames, Kept};
use super::{Call, Rows, first_argument};

/// Which row.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sql) enum Which {
    /// so many rows before the current one, or else this value
    Lag(usize, Option<ScalarValue>),
    First(Frame),
    Last(Frame),
    /// counted from 1
    Nth(Frame, usize),
    /// the last reading before, to compare with
    Changed,
}

impl Which {
    fn frame(&self) -> Frame {
        match self {
            Self::First(frame) | Self::Last(frame) | Self::Nth(frame, _) => *frame,
            Self::Lag(..) | Self::Changed => Frame::RUNNING,
        }
    }
}

#[derive(Debug)]
pub(in crate::sql) struct Pick {
    fingerprint: String,
    argument: [Arc<dyn PhysicalExpr>; 1],
    which: Which,
    /// rows without a value are of no account
    ignore_nulls: bool,
    frames: Frames,
}

impl Pick {
    /// `argument` gives values of type `data_type`.
    pub(in crate::sql) fn new(
        fingerprint: String,
        argument: Arc<dyn PhysicalExpr>,
        data_type: DataType,
        which: Which,
        ignore_nulls: bool,
    ) -> Self {
        let ignore_nulls = ignore_nulls || which == Which::Changed;
        Self { fingerprint, argument: [argument], which, ignore_nulls, frames: Frames::new(vec![data_type]) }
    }

    /// The row that is given for row `row` of the log, which has come at `now`.
    fn pick(&mut self, key: usize, now: i64, row: u32, has_value: bool) -> Result<Option<u32>> {
        let Some(key) = self.frames.keys.get_mut(key) else { return Ok(None) };
        let new =
            (has_value || !self.ignore_nulls).then_some(Kept { at: now, row, counts: true, number: 0.0 });
        if let Which::Lag(..) | Which::Changed = self.which {
            let back = if let Which::Lag(back, _) = self.which { back } else { 1 };
            if back == 0 {
                return Ok(new.map(|new| new.row));
            }
            let picked =
                key.rows.len().checked_sub(back).and_then(|place| key.rows.get(place)).map(|kept| kept.row);
            key.rows.extend(new);
            while key.rows.len() > back {
                key.rows.pop_front();
            }
            return Ok(picked);
        }
        let frame = self.which.frame();
        key.advance(frame, now, new, &mut |_, _| Ok(()))?;
        if frame.start == Back::Unbounded {
            // The frame only grows: rows that no later row asks for can go.
            let (most, last) = match self.which {
                Which::Nth(_, n) => (n, false),
                Which::Last(_) => (1, true),
                _ => (1, false),
            };
            while key.entered > most {
                key.entered -= 1;
                if last {
                    key.rows.pop_front()
                } else {
                    key.rows.remove(key.entered)
                };
            }
        }
        let place = match self.which {
            Which::Last(_) => key.entered.checked_sub(1),
            Which::Nth(_, n) => n.checked_sub(1),
            _ => Some(0),
        };
        Ok(place
            .filter(|place| *place < key.entered)
            .and_then(|place| key.rows.get(place))
            .map(|kept| kept.row))
    }
}

impl Call for Pick {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.argument
    }

    fn update(&mut self, rows: &Rows<'_>, arguments: &[ArrayRef]) -> Result<ArrayRef> {
        let mut values = Arc::clone(first_argument(arguments)?);
        if self.which == Which::Changed {
            values = readings(values);
        }
        self.frames.grow(rows.keys);
        let first = self.frames.log.push(vec![Arc::clone(&values)], values.len())?;
        let nulls = values.logical_nulls();
        let mut picked = Vec::with_capacity(values.len());
        for ((at, key), (row, now)) in rows.places.iter().enumerate().zip((first..).zip(rows.times)) {
            let has_value = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at));
            picked.push(self.pick(*key, *now, row, has_value)?);
        }
        let others = self.frames.log.gather(0, &picked)?;
        self.frames.pack()?;
        match &self.which {
            Which::Changed => Ok(Arc::new(and(&differ(&values, &others)?, &is_not_null(&values)?)?)),
            Which::Lag(_, Some(default)) => {
                let found = BooleanArray::from_iter(picked.iter().map(|row| Some(row.is_some())));
                Ok(zip(&found, &others, &Scalar::new(default.to_array()?))?)
            }
            _ => Ok(others),
        }
    }

    fn keep(&mut self, places: &[usize]) -> Result<()> {
        self.frames.keep(places)
    }

    fn measure(&self) -> usize {
        self.frames.bytes()
    }

    fn seal(&mut self) -> Result<Vec<(&'static str, RecordBatch)>> {
        Ok(vec![("rows", self.frames.seal()?)])
    }

    fn restore(&mut self, _part: &str, batch: &RecordBatch) -> Result<bool> {
        self.frames.restore(batch, &mut |_, _, _, _| Ok(()))
    }
}

/// Where `values` and `others` differ; null is a value like any other.
fn differ(values: &ArrayRef, others: &ArrayRef) -> Result<BooleanArray> {
    if !values.data_type().is_nested() {
        return Ok(distinct(values, others)?);
    }
    let compare = make_comparator(values, others, SortOptions::default())?;
    Ok((0..values.len()).map(|row| Some(compare(row, row).is_ne())).collect())
}

/// `values` with null where there is no reading: a number that is not finite. A zero has no sign.
fn readings(values: ArrayRef) -> ArrayRef {
    match values.as_primitive_opt::<Float64Type>() {
        Some(numbers) => Arc::new(Float64Array::from_iter(
            numbers.iter().map(|number| number.filter(|number| number.is_finite()).map(|n| n + 0.0)),
        )),
        None => values,
    }
}
