//! The keys of an OVER: which rows belong together, what time it is for each key, and which keys have been
//! forgotten.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::EmitTo;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

use super::super::{Chunk, Pass, an_eighth};
use crate::sql::operators::at_rest::rows_of;

/// What time it is for one key. It does not go back: a row that is earlier than one before it finds the clock
/// standing still.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now: i64,
    /// how much it is ahead of `ts`; `None` when the box's clock was set back, until the next row: then it
    /// goes on from where it was
    ahead: Option<i64>,
    /// the watermark at the key's last row; `i64::MIN`: there was none yet; `i64::MAX`: time has begun anew
    /// since
    seen: i64,
    /// how many rows had come when the key's last row had
    last: u64,
}

/// The keys.
pub(super) struct Keys {
    schema: SchemaRef,
    /// `None` when there is no PARTITION BY: then there is one key
    values: Option<Box<dyn GroupValues>>,
    /// where the state of each of `values` is. State is never reset: a key that comes again after it was
    /// forgotten gets a new place
    places: Vec<usize>,
    /// by place
    clocks: Vec<Clock>,
    ttl_ns: Option<i64>,
    /// the watermark at which somebody should look which keys are to be forgotten
    check_at: i64,
    /// rows so far
    arrived: u64,
    groups: Vec<usize>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("schema", &self.schema)
            .field("keys", &self.places.len())
            .finish_non_exhaustive()
    }
}

/// Where the state of each row's key is, and what time it is for it.
pub(super) struct Placed {
    pub places: Vec<usize>,
    pub times: Vec<i64>,
}

impl Keys {
    /// Keys of the columns `schema`; one that had no row for `ttl_ns` by the watermark is forgotten.
    pub(super) fn new(schema: SchemaRef, ttl_ns: Option<i64>) -> Result<Self> {
        let values = Self::values(&schema)?;
        Ok(Self {
            schema,
            values,
            places: Vec::new(),
            clocks: Vec::new(),
            ttl_ns,
            check_at: i64::MIN,
            arrived: 0,
            groups: Vec::new(),
        })
    }

    fn values(schema: &SchemaRef) -> Result<Option<Box<dyn GroupValues>>> {
        if schema.fields().is_empty() {
            Ok(None)
        } else {
            new_group_values(Arc::clone(schema), &GroupOrdering::None).map(Some)
        }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.clocks.len()
    }

    /// How many keys are known.
    pub(super) fn known(&self) -> usize {
        self.places.len()
    }

    pub(super) fn forgets(&self) -> bool {
        self.ttl_ns.is_some()
    }

    /// How much the clock of the key at `place` is ahead of `ts`; `None` after time has begun anew.
    pub(super) fn ahead(&self, place: usize) -> Option<i64> {
        self.clocks.get(place).and_then(|clock| clock.ahead)
    }

    pub(super) fn bytes(&self) -> usize {
        let values = self.values.as_ref().map_or(0, |values| values.size());
        values + self.places.capacity() * size_of::<usize>() + self.clocks.capacity() * size_of::<Clock>()
    }

    /// Finds the places of rows; `ts` are their times, if anybody asks for time.
    pub(super) fn place(
        &mut self,
        keys: &[ArrayRef],
        ts: Option<&[i64]>,
        chunk: &Chunk,
        pass: &Pass<'_>,
    ) -> Result<Placed> {
        let rows = chunk.len();
        let mut groups = std::mem::take(&mut self.groups);
        match &mut self.values {
            Some(values) => values.intern(keys, &mut groups)?,
            None => {
                groups.clear();
                groups.resize(rows, 0);
            }
        }
        let mut placed = Placed { places: Vec::with_capacity(rows), times: Vec::with_capacity(rows) };
        for (row, group) in groups.iter().enumerate() {
            self.arrived += 1;
            let ts = ts.and_then(|ts| ts.get(row).copied()).unwrap_or(0);
            let (before, after) = match self.ttl_ns {
                None => (i64::MIN, i64::MIN),
                Some(_) => (pass.before(chunk.cause(row)), pass.after(chunk.cause(row))),
            };
            let known = self.places.get(*group).copied();
            let known = known.and_then(|place| self.clocks.get_mut(place).map(|clock| (place, clock)));
            let place = match known.filter(|(_, clock)| !is_over(clock.seen, before, self.ttl_ns)) {
                Some((place, clock)) => {
                    let ahead = *clock.ahead.get_or_insert_with(|| clock.now.saturating_sub(ts));
                    clock.now = clock.now.max(ts.saturating_add(ahead));
                    clock.seen = if clock.seen == i64::MAX { after } else { clock.seen.max(after) };
                    clock.last = self.arrived;
                    placed.times.push(clock.now);
                    place
                }
                None => {
                    let place = self.clocks.len();
                    self.clocks.push(Clock { now: ts, ahead: Some(0), seen: after, last: self.arrived });
                    match self.places.get_mut(*group) {
                        Some(known) => *known = place,
                        None => self.places.push(place),
                    }
                    placed.times.push(ts);
                    place
                }
            };
            placed.places.push(place);
        }
        self.groups = groups;
        Ok(placed)
    }

    /// The box's clock was set back: clocks go on from where they are, with the next row.
    pub(super) fn start_anew(&mut self) {
        for clock in &mut self.clocks {
            clock.ahead = None;
            clock.seen = i64::MAX;
        }
        self.check_at = i64::MIN;
    }

    /// Whether it is time to forget: a key is remembered for at most twice as long as it must be.
    pub(super) fn wants_forgetting(&self, watermark: i64) -> bool {
        self.ttl_ns.is_some() && watermark >= self.check_at
    }

    /// Forgets keys. Returns the places of those that stay, in their order: that of place `n` in it becomes
    /// `n`.
    pub(super) fn forget(&mut self, watermark: i64) -> Result<Vec<usize>> {
        self.check_at = watermark.saturating_add(self.ttl_ns.unwrap_or(i64::MAX));
        for clock in self.clocks.iter_mut().filter(|clock| matches!(clock.seen, i64::MIN | i64::MAX)) {
            clock.seen = watermark;
        }
        let ttl_ns = self.ttl_ns;
        self.keep(&|clock| !is_over(clock.seen, watermark, ttl_ns))
    }

    /// Forgets the keys that have been silent longest. Returns the same.
    pub(super) fn shed(&mut self) -> Result<Vec<usize>> {
        let mut last: Vec<u64> =
            self.places.iter().filter_map(|place| self.clocks.get(*place)).map(|clock| clock.last).collect();
        last.sort_unstable();
        let until = last.get(an_eighth(last.len()).saturating_sub(1)).copied().unwrap_or(0);
        self.keep(&|clock| clock.last > until)
    }

    fn keep(&mut self, stays: &dyn Fn(&Clock) -> bool) -> Result<Vec<usize>> {
        let (columns, places) = self.columns(stays)?;
        if let (Some(values), false) = (&mut self.values, places.is_empty()) {
            values.intern(&columns, &mut self.groups)?;
        }
        self.clocks = places.iter().filter_map(|place| self.clocks.get(*place).copied()).collect();
        self.places = (0..places.len()).collect();
        Ok(places)
    }

    /// Takes the keys that stay out, those that have been silent longest first, and the places of their
    /// state.
    fn columns(&mut self, stays: &dyn Fn(&Clock) -> bool) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        let columns =
            self.values.as_mut().map_or_else(|| Ok(Vec::new()), |values| values.emit(EmitTo::All))?;
        self.values = Self::values(&self.schema)?;
        let clock = |place: &usize| self.clocks.get(*place).filter(|clock| stays(clock));
        let kept = (0_u64..)
            .zip(&self.places)
            .filter_map(|(group, place)| Some((clock(place)?.last, group, *place)));
        let mut kept: Vec<(u64, u64, usize)> = kept.collect();
        kept.sort_unstable();
        let groups = UInt64Array::from_iter_values(kept.iter().map(|(_, group, _)| *group));
        let columns = columns
            .iter()
            .map(|column| take(column, &groups, None).map_err(Into::into))
            .collect::<Result<_>>()?;
        Ok((columns, kept.into_iter().map(|(.., place)| place).collect()))
    }

    fn state_schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> =
            self.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend(
            ["now", "ahead", "seen"].map(|name| Field::new(format!("clock.{name}"), DataType::Int64, true)),
        );
        Arc::new(Schema::new(fields))
    }

    /// Takes all keys out, with their clocks; and the places of their state, in this order.
    pub(super) fn seal(&mut self) -> Result<(Option<RecordBatch>, Vec<usize>)> {
        let (mut columns, places) = self.columns(&|_| true)?;
        if places.is_empty() {
            return Ok((None, places));
        }
        let clocks: Vec<Clock> = places.iter().filter_map(|place| self.clocks.get(*place).copied()).collect();
        columns.push(Arc::new(Int64Array::from_iter_values(clocks.iter().map(|clock| clock.now))));
        columns.push(Arc::new(Int64Array::from_iter(clocks.iter().map(|clock| clock.ahead))));
        columns.push(Arc::new(Int64Array::from_iter_values(clocks.iter().map(|clock| clock.seen))));
        Ok((Some(RecordBatch::try_new(self.state_schema(), columns)?), places))
    }

    /// Takes sealed keys over, unless they have other columns: key `n` gets place `n`.
    pub(super) fn restore(&mut self, batch: &RecordBatch) -> Result<bool> {
        let wrong =
            || DataFusionError::Internal("the keys of an OVER were not sealed as they should be".into());
        let Some(batch) = rows_of(batch, &self.state_schema()) else { return Ok(false) };
        let keys = self.schema.fields().len();
        if let Some(values) = &mut self.values {
            let columns: Vec<ArrayRef> = batch.columns().iter().take(keys).cloned().collect();
            values.intern(&columns, &mut self.groups)?;
            if values.len() != batch.num_rows() {
                // As floats, whole numbers beyond 2^53 are not told apart.
                self.values = Self::values(&self.schema)?;
                return Ok(false);
            }
        }
        let clock = |n: usize| {
            batch
                .columns()
                .get(keys + n)
                .and_then(|column| column.as_primitive_opt::<Int64Type>())
                .ok_or_else(wrong)
        };
        let (now, ahead, seen) = (clock(0)?, clock(1)?, clock(2)?);
        self.clocks = (0..batch.num_rows())
            .zip(1..)
            .map(|(row, last)| {
                let ahead = ahead.is_valid(row).then(|| ahead.value(row));
                Clock { now: now.value(row), ahead, seen: seen.value(row), last }
            })
            .collect();
        self.arrived = batch.num_rows() as u64;
        self.places = (0..batch.num_rows()).collect();
        Ok(true)
    }
}

/// Whether a key that was seen last at the watermark `seen` is forgotten at `watermark`.
fn is_over(seen: i64, watermark: i64, ttl_ns: Option<i64>) -> bool {
    ttl_ns.is_some_and(|ttl| !matches!(seen, i64::MIN | i64::MAX) && watermark.saturating_sub(seen) > ttl)
}
