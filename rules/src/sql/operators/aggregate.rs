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
use tidegate_core::schema::ts_field;

use super::{Chunk, Held, Operator, Pass, each_evaluable, evaluate_all};
use crate::rule::SealedState;
use crate::sql::table_functions::WINDOW_START;

/// Where a column of GROUP BY comes from.
#[derive(Debug, Clone, Copy)]
pub(in crate::sql) enum GroupColumn {
    Start,
    End,
    /// the key with this index
    Key(usize),
}

/// One aggregate of a statement: `avg(temperature) FILTER (WHERE ..)`.
#[derive(Debug)]
pub(in crate::sql) struct AggregateCall {
    function: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    argument_types: Vec<DataType>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// what it computes; state with the same text fits
    fingerprint: String,
}

impl AggregateCall {
    /// `input` is the schema that the arguments are evaluated on.
    pub(in crate::sql) fn new(
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

/// What GROUP BY names.
pub(in crate::sql) struct Groups {
    pub columns: Vec<GroupColumn>,
    pub bound: Bound,
    pub keys: Vec<(Arc<dyn PhysicalExpr>, Field)>,
}

/// The bound of its window that a row tells.
#[derive(Debug)]
pub(in crate::sql) enum Bound {
    Start(Arc<dyn PhysicalExpr>),
    End(Arc<dyn PhysicalExpr>),
}

/// The operator.
pub(in crate::sql) struct WindowAggregate {
    input: Box<dyn Operator>,
    fingerprint: String,
    size_ns: i64,
    bound: Bound,
    /// how much its rows may be behind the watermark
    delay_ns: i64,
    columns: Vec<GroupColumn>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    key_schema: SchemaRef,
    calls: Vec<AggregateCall>,
    /// of the rows of a closed window: group columns, then aggregates
    schema: SchemaRef,
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
pub(in crate::sql) struct Prepared {
    /// for each row, the row of the pass that it is due to
    causes: Vec<u32>,
    starts: Vec<i64>,
    keys: Vec<ArrayRef>,
    arguments: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
}

impl WindowAggregate {
    /// `groups` are what GROUP BY names; `fingerprint` says what is kept.
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        fingerprint: String,
        size_ns: i64,
        groups: Groups,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Self {
        let Groups { columns, bound, keys } = groups;
        let (keys, key_fields): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        Self {
            delay_ns: input.delay_ns(),
            input,
            fingerprint,
            size_ns,
            bound,
            columns,
            keys,
            key_schema: Arc::new(Schema::new(key_fields)),
            calls,
            schema,
            open: BTreeMap::new(),
            groups: Vec::new(),
        }
    }

    /// Evaluates windows, keys and arguments; changes nothing.
    fn prepare(&self, chunk: &Chunk) -> Result<Prepared> {
        let rows = chunk.len();
        let (bound, back) = match &self.bound {
            Bound::Start(start) => (start, 0),
            Bound::End(end) => (end, self.size_ns),
        };
        let bounds = bound.evaluate(&chunk.batch)?.into_array(rows)?;
        let Some(bounds) = bounds.as_primitive_opt::<TimestampNanosecondType>() else {
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
        Ok(Prepared {
            causes: chunk.causes(),
            starts: bounds.values().iter().map(|bound| bound.saturating_sub(back)).collect(),
            keys: evaluate_all(&self.keys, &chunk.batch)?,
            arguments,
            filters: filters.collect::<Result<_>>()?,
        })
    }

    /// The watermark at which the window that starts at `start` closes.
    fn closes_at(&self, start: i64) -> i64 {
        start.saturating_add(self.size_ns).saturating_add(self.delay_ns)
    }

    /// Adds rows to their windows. Returns how many were late.
    fn absorb(&mut self, rows: Prepared, pass: &Pass<'_>) -> Result<u64> {
        let is_late = |start: i64, cause: u32| pass.before(cause) >= self.closes_at(start);
        let Some(first) = rows.starts.first().copied() else { return Ok(0) };
        let simple = rows.starts.iter().zip(&rows.causes).all(|(start, cause)| *start == first && !is_late(*start, *cause));
        if simple {
            self.add(first, &rows)?;
            return Ok(0);
        }
        let mut late = 0;
        let mut by_start: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, (start, cause)) in (0_u32..).zip(rows.starts.iter().zip(&rows.causes)) {
            if is_late(*start, *cause) { late += 1 } else { by_start.entry(*start).or_default().push(row) }
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

    /// Closes the windows that the watermark reaches.
    fn close(&mut self, pass: &Pass<'_>) -> Result<Chunk> {
        let mut closed = Vec::new();
        while let Some(start) = self.open.first_key_value().map(|(start, _)| *start) {
            let Some(row) = pass.reached(self.closes_at(start)) else { break };
            if let Some(pane) = self.open.remove(&start) {
                let batch = self.rows_of(start, pane)?;
                closed.push(Chunk { causes: Some(vec![row; batch.num_rows()]), batch });
            }
        }
        Chunk::concat(&self.schema, closed)
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

    /// Takes over sealed state with the same fingerprint. An aggregate that was not computed before starts empty in the open windows,
    /// which is added to `misfits`.
    fn take_over(&mut self, batch: &RecordBatch, misfits: &mut Vec<String>) -> Result<()> {
        let states: Vec<Option<Vec<ArrayRef>>> = self.calls.iter().map(|call| call.find_state(batch)).collect::<Result<_>>()?;
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

impl Operator for WindowAggregate {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        if !rows.is_empty() {
            let mut prepared = Vec::with_capacity(1);
            each_evaluable(&rows, pass.out, &mut |rows| {
                prepared.push(self.prepare(rows)?);
                Ok(())
            });
            for part in prepared {
                pass.out.late += self.absorb(part, pass)?;
            }
        }
        self.close(pass)
    }

    fn explain(&self) -> String {
        format!(
            "aggregate {}: {}",
            self.fingerprint,
            self.calls.iter().map(|call| call.fingerprint.as_str()).collect::<Vec<_>>().join(", ")
        )
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<i64> {
        self.open.first_key_value().map(|(start, _)| self.closes_at(*start))
    }

    fn held(&self) -> Held {
        let entries = self.open.values().map(Pane::len).sum();
        let bytes = self.open.values().map(|pane| {
            pane.keys.as_ref().map_or(0, |keys| keys.size()) + pane.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
        });
        Held { entries, bytes: bytes.sum() }
    }

    /// For each open window and group its keys and the state of each aggregate.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
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
        Ok(vec![SealedState { fingerprint: self.fingerprint.clone(), watermark: i64::MIN, batch }])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let Some(at) = state.iter().position(|sealed| sealed.fingerprint == self.fingerprint) else { return Ok(()) };
        match state.remove(at).batch {
            Some(batch) => self.take_over(&batch, misfits),
            None => Ok(()),
        }
    }
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
        let causes = at(&self.causes);
        let indices = UInt32Array::from(rows);
        let pick = |column: &ArrayRef| Ok(take(column, &indices, None)?);
        let filters = self.filters.iter().map(|filter| match filter {
            None => Ok(None),
            Some(mask) => Ok(take(mask, &indices, None)?.as_boolean_opt().cloned()),
        });
        Ok(Self {
            causes,
            starts,
            keys: self.keys.iter().map(pick).collect::<Result<_>>()?,
            arguments: self.arguments.iter().map(|columns| columns.iter().map(pick).collect()).collect::<Result<_>>()?,
            filters: filters.collect::<Result<_>>()?,
        })
    }
}
