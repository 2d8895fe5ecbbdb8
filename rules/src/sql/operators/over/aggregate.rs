//! Aggregates over a frame: a row of it for every row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, UInt32Type};
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::Accumulator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::super::accumulate::arguments_of;
use super::super::row_log::RowLog;
use super::frame::{Back, Frame, Frames, Kept, Move};
use super::{Call, Rows};
use crate::sql::operators::at_rest::rows_of;

/// How a frame's result follows the rows that enter and leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// none leaves
    Grows,
    /// what leaves is taken off
    Retracts,
    /// it is added up again for each row: sums of floating-point numbers cannot be undone (a broken sensor's
    /// 1e30 would swallow all others for good), and some aggregates cannot be undone at all
    AddsUpAgain,
    /// the same for the sum (or mean) of numbers, which are at hand
    AddsUpNumbers { mean: bool },
}

/// `avg(temperature) FILTER (WHERE ..) OVER (.. ROWS BETWEEN ..)`
pub(in crate::sql) struct FrameAggregate {
    fingerprint: String,
    function: Arc<AggregateFunctionExpr>,
    /// the arguments, and behind them the condition of FILTER if there is one
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    has_filter: bool,
    frame: Frame,
    method: Method,
    /// rows that have to leave again, or cannot enter yet; `None`: there are none
    frames: Option<Frames>,
    /// by place
    accumulators: Vec<Option<Box<dyn Accumulator>>>,
}

impl std::fmt::Debug for FrameAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameAggregate")
            .field("fingerprint", &self.fingerprint)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl FrameAggregate {
    /// `input` is the schema that the arguments are evaluated on.
    pub(in crate::sql) fn new(
        fingerprint: String,
        function: Arc<AggregateFunctionExpr>,
        filter: Option<Arc<dyn PhysicalExpr>>,
        frame: Frame,
        input: &Schema,
    ) -> Result<Self> {
        let mut arguments = arguments_of(&function, input)?;
        let types = arguments.iter().map(|argument| argument.data_type(input)).collect::<Result<Vec<_>>>()?;
        let exact = !types.iter().any(DataType::is_floating)
            || matches!(function.fun().name(), "count" | "min" | "max");
        let retracts = || {
            function
                .create_sliding_accumulator()
                .is_ok_and(|accumulator| accumulator.supports_retract_batch())
        };
        let mean = function.fun().name() == "avg";
        let numbers = types == [DataType::Float64]
            && (mean || function.fun().name() == "sum")
            && !function.is_distinct();
        let method = match frame.start {
            Back::Unbounded => Method::Grows,
            _ if numbers => Method::AddsUpNumbers { mean },
            _ if exact && retracts() => Method::Retracts,
            _ => Method::AddsUpAgain,
        };
        let has_filter = filter.is_some();
        arguments.extend(filter);
        let frames = (frame != Frame::RUNNING).then(|| Frames::new(types));
        Ok(Self {
            fingerprint,
            function,
            arguments,
            has_filter,
            frame,
            method,
            frames,
            accumulators: Vec::new(),
        })
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        match self.method {
            Method::Retracts => self.function.create_sliding_accumulator(),
            _ => self.function.create_accumulator(),
        }
    }

    fn grow(&mut self, keys: usize) -> Result<()> {
        while self.accumulators.len() < keys {
            let accumulator = if matches!(self.method, Method::Grows | Method::Retracts) {
                Some(self.accumulator()?)
            } else {
                None
            };
            self.accumulators.push(accumulator);
        }
        if let Some(frames) = &mut self.frames {
            frames.grow(keys);
        }
        Ok(())
    }

    /// The result of each row when no row ever leaves or waits.
    fn run_on(
        &mut self,
        rows: &Rows<'_>,
        arguments: &[ArrayRef],
        passes: Option<&BooleanArray>,
    ) -> Result<Vec<ScalarValue>> {
        let mut results = Vec::with_capacity(rows.places.len());
        let mut one: Vec<ArrayRef> = Vec::with_capacity(arguments.len());
        for (row, key) in rows.places.iter().enumerate() {
            let accumulator = self.accumulators.get_mut(*key).and_then(Option::as_mut).ok_or_else(missing)?;
            if passes.is_none_or(|passes| passes.is_valid(row) && passes.value(row)) {
                one.clear();
                one.extend(arguments.iter().map(|argument| argument.slice(row, 1)));
                accumulator.update_batch(&one)?;
            }
            results.push(accumulator.evaluate()?);
        }
        Ok(results)
    }

    /// The result of each row when rows wait for their turn, or leave.
    fn slide(
        &mut self,
        rows: &Rows<'_>,
        arguments: &[ArrayRef],
        passes: Option<&BooleanArray>,
    ) -> Result<Vec<ScalarValue>> {
        let (frame, method) = (self.frame, self.method);
        let Some(frames) = &mut self.frames else { return Err(missing()) };
        let numbers = arguments.first().and_then(|values| values.as_primitive_opt::<Float64Type>());
        let numbers = numbers.filter(|_| matches!(method, Method::AddsUpNumbers { .. }));
        let first = frames.log.push(arguments.to_vec(), rows.places.len())?;
        let mut results = Vec::with_capacity(rows.places.len());
        for ((at, key), (row, now)) in rows.places.iter().enumerate().zip((first..).zip(rows.times)) {
            let passed = passes.is_none_or(|passes| passes.is_valid(at) && passes.value(at));
            let number = numbers.map_or(Some(0.0), |numbers| numbers.is_valid(at).then(|| numbers.value(at)));
            let new =
                Kept { at: *now, row, counts: passed && number.is_some(), number: number.unwrap_or(0.0) };
            let log = &frames.log;
            let key_frame = frames.keys.get_mut(*key).ok_or_else(missing)?;
            let accumulator = self.accumulators.get_mut(*key).ok_or_else(missing)?;
            key_frame.advance(
                frame,
                *now,
                Some(new),
                &mut |what, kept| match (accumulator.as_mut(), what) {
                    (Some(accumulator), Move::Enters) if kept.counts => {
                        accumulator.update_batch(&log.row(kept.row)?)
                    }
                    (Some(accumulator), Move::Leaves) if kept.counts => {
                        accumulator.retract_batch(&log.row(kept.row)?)
                    }
                    _ => Ok(()),
                },
            )?;
            if method == Method::Grows {
                // What has entered is in the accumulator for good.
                key_frame.rows.drain(..key_frame.entered);
                key_frame.entered = 0;
            }
            let inside = key_frame.rows.iter().take(key_frame.entered).filter(|kept| kept.counts);
            results.push(match (accumulator, method) {
                (Some(accumulator), _) => accumulator.evaluate()?,
                (None, Method::AddsUpNumbers { mean }) => {
                    let (count, sum) =
                        inside.fold((0_u32, 0.0), |(count, sum), kept| (count + 1, sum + kept.number));
                    ScalarValue::Float64((count > 0).then(|| if mean { sum / f64::from(count) } else { sum }))
                }
                (None, _) => {
                    let inside: Vec<Option<u32>> = inside.map(|kept| Some(kept.row)).collect();
                    let mut accumulator = self.function.create_accumulator()?;
                    if !inside.is_empty() {
                        accumulator.update_batch(&log.gather_all(&inside)?)?;
                    }
                    accumulator.evaluate()?
                }
            });
        }
        frames.pack()?;
        Ok(results)
    }

    fn state_schema(&self) -> Result<Schema> {
        let mut fields = vec![Field::new("key", DataType::UInt32, false)];
        for (number, field) in self.function.state_fields()?.iter().enumerate() {
            fields.push(Field::new(format!("state.{number}"), field.data_type().clone(), true));
        }
        Ok(Schema::new(fields))
    }

    /// What the accumulators hold.
    fn seal_accumulators(&mut self) -> Result<RecordBatch> {
        let mut columns: Vec<Vec<ScalarValue>> = Vec::new();
        for accumulator in &mut self.accumulators {
            let state = accumulator.as_mut().ok_or_else(missing)?.state()?;
            columns.resize_with(state.len(), Vec::new);
            columns.iter_mut().zip(state).for_each(|(column, value)| column.push(value));
        }
        let schema = Arc::new(self.state_schema()?);
        if columns.is_empty() {
            return Ok(RecordBatch::new_empty(schema));
        }
        let keys = u32::try_from(self.accumulators.len()).map_err(|_| missing())?;
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from_iter_values(0..keys))];
        for column in columns {
            arrays.push(ScalarValue::iter_to_array(column)?);
        }
        Ok(RecordBatch::try_new(schema, arrays)?)
    }

    fn restore_accumulators(&mut self, batch: &RecordBatch) -> Result<bool> {
        let Some(batch) = rows_of(batch, &Arc::new(self.state_schema()?)) else { return Ok(false) };
        let keys = batch
            .columns()
            .first()
            .and_then(|keys| keys.as_primitive_opt::<UInt32Type>())
            .ok_or_else(missing)?;
        for (row, key) in keys.values().iter().enumerate() {
            self.grow(*key as usize + 1)?;
            let state: Vec<ArrayRef> =
                batch.columns().iter().skip(1).map(|column| column.slice(row, 1)).collect();
            let accumulator =
                self.accumulators.get_mut(*key as usize).and_then(Option::as_mut).ok_or_else(missing)?;
            accumulator.merge_batch(&state)?;
        }
        Ok(true)
    }
}

impl Call for FrameAggregate {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.arguments
    }

    fn update(&mut self, rows: &Rows<'_>, arguments: &[ArrayRef]) -> Result<ArrayRef> {
        self.grow(rows.keys)?;
        let (arguments, passes) = match arguments.split_last() {
            Some((condition, arguments)) if self.has_filter => (arguments, condition.as_boolean_opt()),
            _ => (arguments, None),
        };
        let results = match self.frames {
            None => self.run_on(rows, arguments, passes)?,
            Some(_) => self.slide(rows, arguments, passes)?,
        };
        ScalarValue::iter_to_array(results)
    }

    fn keep(&mut self, places: &[usize]) -> Result<()> {
        let kept = places.iter().map(|place| self.accumulators.get_mut(*place).and_then(Option::take));
        self.accumulators = kept.collect();
        self.frames.as_mut().map_or(Ok(()), |frames| frames.keep(places))
    }

    fn measure(&self) -> usize {
        let accumulators =
            self.accumulators.iter().flatten().map(|accumulator| accumulator.size()).sum::<usize>();
        let slots = self.accumulators.capacity() * size_of::<Option<Box<dyn Accumulator>>>();
        accumulators + slots + self.frames.as_ref().map_or(0, Frames::bytes)
    }

    fn seal(&mut self) -> Result<Vec<(&'static str, RecordBatch)>> {
        let mut parts = Vec::new();
        if self.method == Method::Grows {
            parts.push(("sums", self.seal_accumulators()?));
        }
        if let Some(frames) = &mut self.frames {
            parts.push(("rows", frames.seal()?));
        }
        Ok(parts)
    }

    fn restore(&mut self, part: &str, batch: &RecordBatch) -> Result<bool> {
        if part == "sums" {
            return self.restore_accumulators(batch);
        }
        let Some(mut frames) = self.frames.take() else { return Err(missing()) };
        let numbers = matches!(self.method, Method::AddsUpNumbers { .. });
        let mut enter = |key: usize, kept: &mut Kept, inside: bool, log: &RowLog| {
            self.grow(key + 1)?;
            if numbers && kept.counts {
                let row = log.row(kept.row)?;
                let number = row
                    .first()
                    .and_then(|values| values.as_primitive_opt::<Float64Type>())
                    .ok_or_else(missing)?;
                kept.number = number.value(0);
            }
            match self.accumulators.get_mut(key).and_then(Option::as_mut) {
                Some(accumulator) if inside && kept.counts => accumulator.update_batch(&log.row(kept.row)?),
                _ => Ok(()),
            }
        };
        let restored = frames.restore(batch, &mut enter);
        self.frames = Some(frames);
        restored
    }
}

fn missing() -> DataFusionError {
    DataFusionError::Internal("the state of an aggregate is missing".into())
}
