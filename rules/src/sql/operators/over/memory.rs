//! Functions that remember a number, a time or a flag of each key.
//!
//! A number that is null or not finite, and a condition that is null, is no reading: what is remembered stays
//! as it is, and the result is what follows from it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt64Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::{Call, Rows};

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::sql) enum Remember {
    /// (condition): it has become true
    Became,
    /// (value, tolerance): the value is farther from the one before than that
    ChangedBy,
    /// (value, distance): the last value that was farther from the one given before than that
    Deadband,
    /// (value): mean in which the newest has this share
    EwmaShare(f64),
    /// (value): mean in which what is older by this many nanoseconds has 1/e of the weight
    EwmaTime(i64),
    /// (value, low, high): on from `high` up, off from `low` down
    Hysteresis,
    /// (value): growth since the value before; one that is smaller than that has begun again from 0
    Increase,
    /// (value): growth per second; a value that is smaller than the one before has begun again from 0
    Rate,
    /// (): 1, 2, 3 ..
    RowNumber,
    /// (condition): seconds since it was true
    Since,
}

/// What is remembered of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Memo {
    /// whether there was a reading
    some: bool,
    on: bool,
    value: f64,
    at: i64,
}

#[derive(Debug)]
pub(in crate::sql) struct Memories {
    fingerprint: String,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    what: Remember,
    /// by place
    memos: Vec<Memo>,
}

impl Memories {
    pub(in crate::sql) fn new(
        fingerprint: String,
        arguments: Vec<Arc<dyn PhysicalExpr>>,
        what: Remember,
    ) -> Self {
        Self { fingerprint, arguments, what, memos: Vec::new() }
    }

    /// Calls `step` with the memo, the number and the time of each row.
    fn each<T>(
        &mut self,
        rows: &Rows<'_>,
        mut step: impl FnMut(&mut Memo, usize, i64) -> T,
    ) -> Result<Vec<T>> {
        let each = rows.places.iter().zip(rows.times).enumerate();
        each.map(|(row, (place, now))| {
            self.memos.get_mut(*place).map(|memo| step(memo, row, *now)).ok_or_else(missing)
        })
        .collect()
    }

    fn flags(
        &mut self,
        rows: &Rows<'_>,
        step: impl FnMut(&mut Memo, usize, i64) -> bool,
    ) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::from(self.each(rows, step)?), None)))
    }

    fn numbers(
        &mut self,
        rows: &Rows<'_>,
        step: impl FnMut(&mut Memo, usize, i64) -> Option<f64>,
    ) -> Result<ArrayRef> {
        Ok(Arc::new(Float64Array::from(self.each(rows, step)?)))
    }
}

impl Call for Memories {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.arguments
    }

    fn update(&mut self, rows: &Rows<'_>, arguments: &[ArrayRef]) -> Result<ArrayRef> {
        if rows.keys > self.memos.len() {
            self.memos.resize(rows.keys, Memo::default());
        }
        let number = |n: usize| {
            arguments.get(n).and_then(|column| column.as_primitive_opt::<Float64Type>()).ok_or_else(missing)
        };
        let condition = || arguments.first().and_then(|column| column.as_boolean_opt()).ok_or_else(missing);
        match self.what {
            Remember::Became => {
                let condition = condition()?;
                self.flags(rows, |memo, row, _| {
                    let Some(holds) = holds(condition, row) else { return false };
                    let held = std::mem::replace(&mut memo.on, holds);
                    holds && !held
                })
            }
            Remember::ChangedBy => {
                let (values, tolerances) = (number(0)?, number(1)?);
                self.flags(rows, |memo, row, _| {
                    let Some(value) = reading(values, row) else { return false };
                    let before = std::mem::replace(memo, Memo { some: true, value, ..*memo });
                    !before.some
                        || reading(tolerances, row)
                            .is_some_and(|tolerance| (value - before.value).abs() > tolerance)
                })
            }
            Remember::Deadband => {
                let (values, distances) = (number(0)?, number(1)?);
                self.numbers(rows, |memo, row, _| {
                    if let Some(value) = reading(values, row) {
                        let far = || {
                            reading(distances, row)
                                .is_some_and(|distance| (value - memo.value).abs() > distance)
                        };
                        if !memo.some || far() {
                            *memo = Memo { some: true, value, ..*memo };
                        }
                    }
                    memo.some.then_some(memo.value)
                })
            }
            Remember::EwmaShare(share) => {
                let values = number(0)?;
                self.numbers(rows, |memo, row, now| mean(memo, reading(values, row), now, |_| share))
            }
            Remember::EwmaTime(tau) => {
                let values = number(0)?;
                self.numbers(rows, |memo, row, now| {
                    mean(memo, reading(values, row), now, |passed| -(-(passed as f64) / tau as f64).exp_m1())
                })
            }
            Remember::Hysteresis => {
                let (values, low, high) = (number(0)?, number(1)?, number(2)?);
                self.flags(rows, |memo, row, _| {
                    if let Some(value) = reading(values, row) {
                        if reading(high, row).is_some_and(|high| value >= high) {
                            memo.on = true;
                        } else if reading(low, row).is_some_and(|low| value <= low) {
                            memo.on = false;
                        }
                    }
                    memo.on
                })
            }
            Remember::Increase => {
                let values = number(0)?;
                self.numbers(rows, |memo, row, _| {
                    let value = reading(values, row)?;
                    let before = std::mem::replace(memo, Memo { some: true, value, ..*memo });
                    before.some.then(|| grown(before.value, value))
                })
            }
            Remember::Rate => {
                let values = number(0)?;
                self.numbers(rows, |memo, row, now| {
                    let value = reading(values, row)?;
                    let passed = now.saturating_sub(memo.at);
                    if memo.some && passed <= 0 {
                        return None;
                    }
                    let before = std::mem::replace(memo, Memo { some: true, value, at: now, ..*memo });
                    before.some.then(|| grown(before.value, value) / seconds(passed))
                })
            }
            Remember::RowNumber => {
                let numbers = self.each(rows, |memo, _, _| {
                    memo.at = memo.at.saturating_add(1);
                    memo.at.unsigned_abs()
                })?;
                Ok(Arc::new(UInt64Array::from(numbers)))
            }
            Remember::Since => {
                let condition = condition()?;
                self.numbers(rows, |memo, row, now| {
                    if holds(condition, row) == Some(true) {
                        *memo = Memo { some: true, at: now, ..*memo };
                    }
                    memo.some.then(|| seconds(now.saturating_sub(memo.at)))
                })
            }
        }
    }

    fn keep(&mut self, places: &[usize]) -> Result<()> {
        self.memos = places.iter().map(|place| self.memos.get(*place).copied().unwrap_or_default()).collect();
        Ok(())
    }

    fn measure(&self) -> usize {
        self.memos.capacity() * size_of::<Memo>()
    }

    fn seal(&mut self) -> Result<Vec<(&'static str, RecordBatch)>> {
        let memos = &self.memos;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from_iter(memos.iter().map(|memo| Some(memo.some)))),
            Arc::new(BooleanArray::from_iter(memos.iter().map(|memo| Some(memo.on)))),
            Arc::new(Float64Array::from_iter_values(memos.iter().map(|memo| memo.value))),
            Arc::new(Int64Array::from_iter_values(memos.iter().map(|memo| memo.at))),
        ];
        Ok(vec![("memory", RecordBatch::try_new(Arc::new(memo_schema()), columns)?)])
    }

    fn restore(&mut self, _part: &str, batch: &RecordBatch) -> Result<bool> {
        let column = |n: usize| batch.columns().get(n).ok_or_else(missing);
        let some = column(0)?.as_boolean_opt().ok_or_else(missing)?;
        let on = column(1)?.as_boolean_opt().ok_or_else(missing)?;
        let value = column(2)?.as_primitive_opt::<Float64Type>().ok_or_else(missing)?;
        let at = column(3)?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let memo = |row| Memo {
            some: some.value(row),
            on: on.value(row),
            value: value.value(row),
            at: at.value(row),
        };
        self.memos = (0..batch.num_rows()).map(memo).collect();
        Ok(true)
    }
}

fn memo_schema() -> Schema {
    let fields = [
        ("some", DataType::Boolean),
        ("on", DataType::Boolean),
        ("value", DataType::Float64),
        ("at", DataType::Int64),
    ];
    Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, false)).to_vec())
}

/// The exponentially weighted mean when `value` has come; `share` gives its share after so many nanoseconds.
fn mean(memo: &mut Memo, value: Option<f64>, now: i64, share: impl FnOnce(i64) -> f64) -> Option<f64> {
    if let Some(value) = value {
        let share = if memo.some { share(now.saturating_sub(memo.at).max(0)) } else { 1.0 };
        let mean = memo.value * (1.0 - share) + value * share;
        *memo = Memo { some: true, value: mean, at: now, ..*memo };
    }
    memo.some.then_some(memo.value)
}

/// How much a counter has grown that showed `before` and shows `value`.
fn grown(before: f64, value: f64) -> f64 {
    if value < before { value } else { value - before }
}

fn reading(numbers: &Float64Array, row: usize) -> Option<f64> {
    numbers.is_valid(row).then(|| numbers.value(row)).filter(|number| number.is_finite())
}

fn holds(condition: &BooleanArray, row: usize) -> Option<bool> {
    condition.is_valid(row).then(|| condition.value(row))
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

fn missing() -> DataFusionError {
    DataFusionError::Internal("what a function remembers is missing".into())
}
