//! Windowed aggregates, kept as panes of DataFusion `GroupsAccumulator` state.
//!
//! The watermark is the greatest event time seen so far minus the lateness, row by row; a window closes when the watermark reaches its
//! end; a row is late for a window that has closed. All of it is computed for a whole batch at once, and yet gives the same rows as a
//! batch a row would: a window takes all rows of the batch that come before the row that closes it, in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, partition, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;
use tidegate_core::{TS, schema::ts_field};

use super::names::WINDOW_START;
use super::pipeline::{Chunk, evaluate_all};
use crate::rule::SealedState;

/// How far the box's clock may be set back without windows taking note: time services do that, and rows may be late by as much.
const STEP_NS: i64 = 1_000_000_000;

/// Where a column of GROUP BY comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum GroupColumn {
    Start,
    End,
    /// the key with this index
    Key(usize),
}

/// One aggregate of a statement: `avg(temperature) FILTER (WHERE ..)`.
#[derive(Debug)]
pub(super) struct AggregateCall {
    function: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    argument_types: Vec<DataType>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// what it computes; state with the same text fits
    fingerprint: String,
}

impl AggregateCall {
    /// `input` is the schema that the arguments are evaluated on.
    pub(super) fn new(
        function: Arc<AggregateFunctionExpr>,
        filter: Option<Arc<dyn PhysicalExpr>>,
        fingerprint: String,
        input: &Schema,
    ) -> Result<Self> {
        let arguments = function.expressions();
        let argument_types = arguments.iter().map(|argument| argument.data_type(input)).collect::<Result<_>>()?;
        Ok(Self { function, arguments, argument_types, filter, fingerprint })
    }

    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.function.groups_accumulator_supported() {
            return self.function.create_groups_accumulator();
        }
        let function = Arc::clone(&self.function);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
    }

    /// The names of the state columns at rest, with their types.
    fn state_fields(&self) -> Result<Vec<Field>> {
        let fields = self.function.state_fields()?;
        Ok(fields
            .iter()
            .enumerate()
            .map(|(i, field)| Field::new(format!("{}#{i}", self.fingerprint), field.data_type().clone(), true))
            .collect())
    }
}

/// The operator.
pub(super) struct WindowAggregate {
    fingerprint: String,
    size_ns: i64,
    lateness_ns: i64,
    /// whether `ts` is the time of arrival
    by_arrival: bool,
    columns: Vec<GroupColumn>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    key_schema: SchemaRef,
    calls: Vec<AggregateCall>,
    /// of the rows of a closed window: group columns, then aggregates
    schema: SchemaRef,
    watermark: i64,
    /// by start
    open: BTreeMap<i64, Pane>,
    /// group index of each row of the rows at hand; kept to allocate once
    groups: Vec<usize>,
}

impl std::fmt::Debug for WindowAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WindowAggregate").field("fingerprint", &self.fingerprint).field("open", &self.open.len()).finish_non_exhaustive()
    }
}

/// One open window.
struct Pane {
    /// `None` when there are no keys: then there is one group
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl Pane {
    fn len(&self) -> usize {
        self.keys.as_ref().map_or(1, |keys| keys.len())
    }

    /// Writes the group index of each of `rows` rows to `groups`.
    fn intern(&mut self, keys: &[ArrayRef], rows: usize, groups: &mut Vec<usize>) -> Result<()> {
        match &mut self.keys {
            Some(values) => values.intern(keys, groups),
            None => {
                groups.clear();
                groups.resize(rows, 0);
                Ok(())
            }
        }
    }

    fn key_columns(&mut self) -> Result<Vec<ArrayRef>> {
        self.keys.as_mut().map_or_else(|| Ok(Vec::new()), |keys| keys.emit(EmitTo::All))
    }
}

/// Rows whose expressions have been evaluated, ready to be added up.
pub(super) struct Prepared {
    /// for each row, its index in the batch that came in
    origin: Vec<u32>,
    starts: Vec<i64>,
    keys: Vec<ArrayRef>,
    arguments: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
}

impl WindowAggregate {
    pub(super) fn new(
        fingerprint: String,
        size_ns: i64,
        lateness_ns: i64,
        columns: Vec<GroupColumn>,
        keys: Vec<(Arc<dyn PhysicalExpr>, Field)>,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Self {
        let (keys, key_fields): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        Self {
            fingerprint,
            size_ns,
            lateness_ns,
            by_arrival: false,
            columns,
            keys,
            key_schema: Arc::new(Schema::new(key_fields)),
            calls,
            schema,
            watermark: i64::MIN,
            open: BTreeMap::new(),
            groups: Vec::new(),
        }
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The stream's `ts` is the time of arrival: it goes back only when the box's clock is set back.
    pub(super) fn goes_by_arrival(&mut self) {
        self.by_arrival = true;
    }

    /// The rows before which the box's clock was set back. Waiting for the old time to come again would take years.
    pub(super) fn set_back(&self, batch: &RecordBatch) -> Result<Vec<usize>> {
        if !self.by_arrival {
            return Ok(Vec::new());
        }
        let mut newest = if self.watermark == i64::MIN { i64::MIN } else { self.watermark.saturating_add(self.lateness_ns) };
        let mut rows = Vec::new();
        for (row, ts) in times(batch)?.iter().enumerate() {
            if *ts < newest.saturating_sub(STEP_NS) {
                rows.push(row);
                newest = *ts;
            }
            newest = newest.max(*ts);
        }
        Ok(rows)
    }

    /// Closes every window; time begins anew.
    pub(super) fn start_anew(&mut self) -> Result<Vec<RecordBatch>> {
        let closed = self.close_all();
        self.watermark = i64::MIN;
        closed
    }

    /// The watermark after each row of `batch`, which has the columns of the stream.
    pub(super) fn watermarks(&self, batch: &RecordBatch) -> Result<Vec<i64>> {
        let mut watermark = self.watermark;
        Ok(times(batch)?
            .iter()
            .map(|ts| {
                watermark = watermark.max(ts.saturating_sub(self.lateness_ns));
                watermark
            })
            .collect())
    }

    /// Evaluates keys and arguments; changes nothing. `offset` is the index of the chunk's first original row in the batch.
    pub(super) fn prepare(&self, chunk: Chunk, offset: usize) -> Result<Prepared> {
        let rows = chunk.batch.num_rows();
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        if rows == 0 {
            return Ok(Prepared { origin: Vec::new(), starts: Vec::new(), keys: Vec::new(), arguments: Vec::new(), filters: Vec::new() });
        }
        let origin = match chunk.origin {
            Some(origin) => origin.into_iter().map(|row| row + offset).collect(),
            None => (offset..).take(rows).collect(),
        };
        let Some(starts) = chunk.starts else {
            return Err(DataFusionError::Internal("rows without a window reached an aggregate".into()));
        };
        let arguments = self.calls.iter().map(|call| evaluate_all(&call.arguments, &chunk.batch)).collect::<Result<_>>()?;
        let filters = self.calls.iter().map(|call| match &call.filter {
            None => Ok(None),
            Some(expr) => {
                let value = expr.evaluate(&chunk.batch)?.into_array(rows)?;
                value.as_boolean_opt().cloned().map(Some).ok_or_else(|| DataFusionError::Plan("FILTER is not a condition".into()))
            }
        });
        Ok(Prepared { origin, starts, keys: evaluate_all(&self.keys, &chunk.batch)?, arguments, filters: filters.collect::<Result<_>>()? })
    }

    /// Adds rows to their windows. Returns how many were late.
    pub(super) fn absorb(&mut self, rows: Prepared, watermarks: &[i64]) -> Result<u64> {
        let is_late = |start: i64, origin: u32| {
            let end = start.saturating_add(self.size_ns);
            watermarks.get(origin as usize).is_some_and(|watermark| *watermark >= end)
        };
        let Some(first) = rows.starts.first().copied() else { return Ok(0) };
        let simple = rows.starts.iter().zip(&rows.origin).all(|(start, origin)| *start == first && !is_late(*start, *origin));
        if simple {
            self.add(first, &rows)?;
            return Ok(0);
        }
        let mut late = 0;
        let mut by_start: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, (start, origin)) in (0_u32..).zip(rows.starts.iter().zip(&rows.origin)) {
            if is_late(*start, *origin) { late += 1 } else { by_start.entry(*start).or_default().push(row) }
        }
        for (start, indices) in by_start {
            self.add(start, &rows.take(indices)?)?;
        }
        Ok(late)
    }

    fn add(&mut self, start: i64, rows: &Prepared) -> Result<()> {
        let mut groups = std::mem::take(&mut self.groups);
        let pane = self.pane(start)?;
        pane.intern(&rows.keys, rows.starts.len(), &mut groups)?;
        let total = pane.len();
        for ((accumulator, arguments), filter) in pane.accumulators.iter_mut().zip(&rows.arguments).zip(&rows.filters) {
            accumulator.update_batch(arguments, &groups, filter.as_ref(), total)?;
        }
        self.groups = groups;
        Ok(())
    }

    fn pane(&mut self, start: i64) -> Result<&mut Pane> {
        let pane = match self.open.entry(start) {
            std::collections::btree_map::Entry::Occupied(entry) => return Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => entry,
        };
        let keys = if self.keys.is_empty() { None } else { Some(new_group_values(Arc::clone(&self.key_schema), &GroupOrdering::None)?) };
        let accumulators = self.calls.iter().map(AggregateCall::accumulator).collect::<Result<_>>()?;
        Ok(pane.insert(Pane { keys, accumulators }))
    }

    /// Closes the windows that the last of `watermarks` has reached. Returns their rows with the index of the row that closed each.
    pub(super) fn close(&mut self, watermarks: &[i64]) -> Result<Vec<(usize, RecordBatch)>> {
        let Some(last) = watermarks.last() else { return Ok(Vec::new()) };
        self.watermark = *last;
        let mut closed = Vec::new();
        while let Some(entry) = self.open.first_entry() {
            let start = *entry.key();
            let end = start.saturating_add(self.size_ns);
            if end > self.watermark {
                break;
            }
            let row = watermarks.partition_point(|watermark| *watermark < end);
            let pane = entry.remove();
            closed.push((row, self.rows_of(start, pane)?));
        }
        Ok(closed)
    }

    /// Closes every window.
    pub(super) fn close_all(&mut self) -> Result<Vec<RecordBatch>> {
        self.watermark = i64::MAX;
        let open = std::mem::take(&mut self.open);
        open.into_iter().map(|(start, pane)| self.rows_of(start, pane)).collect()
    }

    fn rows_of(&self, start: i64, mut pane: Pane) -> Result<RecordBatch> {
        let rows = pane.len();
        let keys = pane.key_columns()?;
        let constant = |ns: i64| Arc::new(TimestampNanosecondArray::from(vec![ns; rows]).with_timezone("UTC")) as ArrayRef;
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for column in &self.columns {
            columns.push(match column {
                GroupColumn::Start => constant(start),
                GroupColumn::End => constant(start.saturating_add(self.size_ns)),
                GroupColumn::Key(key) => {
                    keys.get(*key).cloned().ok_or_else(|| DataFusionError::Internal("a group column is missing".into()))?
                }
            });
        }
        for accumulator in &mut pane.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn state_schema(&self) -> Result<SchemaRef> {
        let mut fields = vec![Field::new(WINDOW_START, ts_field().data_type().clone(), false)];
        fields.extend(self.key_schema.fields().iter().map(|field| field.as_ref().clone()));
        for call in &self.calls {
            fields.extend(call.state_fields()?);
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Takes the state out: for each open window and group its keys and the state of each aggregate.
    pub(super) fn seal(&mut self) -> Result<SealedState> {
        let schema = self.state_schema()?;
        let mut batches = Vec::with_capacity(self.open.len());
        for (start, mut pane) in std::mem::take(&mut self.open) {
            let rows = pane.len();
            let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampNanosecondArray::from(vec![start; rows]).with_timezone("UTC"))];
            columns.extend(pane.key_columns()?);
            for accumulator in &mut pane.accumulators {
                columns.extend(accumulator.state(EmitTo::All)?);
            }
            batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
        }
        let batch = if batches.is_empty() { None } else { Some(concat_batches(&schema, &batches)?) };
        Ok(SealedState { fingerprint: self.fingerprint.clone(), watermark: self.watermark, batch })
    }

    /// Takes over sealed state with the same fingerprint. An aggregate that was not computed before starts empty in the open windows,
    /// which is added to `misfits`.
    pub(super) fn restore(&mut self, sealed: SealedState, misfits: &mut Vec<String>) -> Result<()> {
        self.watermark = self.watermark.max(sealed.watermark);
        let Some(batch) = sealed.batch else { return Ok(()) };
        let states: Vec<Option<Vec<ArrayRef>>> = self.calls.iter().map(|call| call.find_state(&batch)).collect::<Result<_>>()?;
        for (call, _) in self.calls.iter().zip(&states).filter(|(_, state)| state.is_none()) {
            misfits.push(format!("`{}` is new and starts empty in the windows that are open now", call.fingerprint));
        }
        let keys: Vec<ArrayRef> = batch.columns().iter().skip(1).take(self.keys.len()).cloned().collect();
        let starts = batch.columns().first().cloned().ok_or_else(|| DataFusionError::Internal("sealed state without windows".into()))?;
        let start_values = starts.as_primitive::<TimestampNanosecondType>().clone();
        let argument_types: Vec<Vec<DataType>> = self.calls.iter().map(|call| call.argument_types.clone()).collect();
        let mut groups = Vec::new();
        for range in partition(&[starts])?.ranges() {
            let (offset, len) = (range.start, range.len());
            let slice = |columns: &[ArrayRef]| columns.iter().map(|column| column.slice(offset, len)).collect::<Vec<_>>();
            let pane = self.pane(start_values.value(offset))?;
            pane.intern(&slice(&keys), len, &mut groups)?;
            let total = pane.len();
            for ((accumulator, state), types) in pane.accumulators.iter_mut().zip(&states).zip(&argument_types) {
                match state {
                    Some(state) => accumulator.merge_batch(&slice(state), &groups, total)?,
                    // No row counts, but the accumulator learns which groups there are.
                    None => {
                        let nulls: Vec<ArrayRef> = types.iter().map(|t| new_null_array(t, len)).collect();
                        accumulator.update_batch(&nulls, &groups, Some(&BooleanArray::from(vec![false; len])), total)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The event times of `batch`, which has the columns of the stream.
fn times(batch: &RecordBatch) -> Result<&[i64]> {
    let column = batch.column_by_name(TS).and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    column.map(|times| &**times.values()).ok_or_else(|| DataFusionError::Internal("the stream has no `ts`".into()))
}

impl AggregateCall {
    fn find_state(&self, batch: &RecordBatch) -> Result<Option<Vec<ArrayRef>>> {
        let fields = self.state_fields()?;
        Ok(fields
            .iter()
            .map(|field| batch.column_by_name(field.name()).filter(|column| column.data_type() == field.data_type()).cloned())
            .collect())
    }
}

impl Prepared {
    fn take(&self, rows: Vec<u32>) -> Result<Self> {
        let at = |values: &[u32]| rows.iter().filter_map(|row| values.get(*row as usize).copied()).collect();
        let starts = rows.iter().filter_map(|row| self.starts.get(*row as usize).copied()).collect();
        let origin = at(&self.origin);
        let indices = UInt32Array::from(rows);
        let pick = |column: &ArrayRef| Ok(take(column, &indices, None)?);
        let filters = self.filters.iter().map(|filter| match filter {
            None => Ok(None),
            Some(mask) => Ok(take(mask, &indices, None)?.as_boolean_opt().cloned()),
        });
        Ok(Self {
            origin,
            starts,
            keys: self.keys.iter().map(pick).collect::<Result<_>>()?,
            arguments: self.arguments.iter().map(|columns| columns.iter().map(pick).collect()).collect::<Result<_>>()?,
            filters: filters.collect::<Result<_>>()?,
        })
    }
}
