//! Rows are added up group by group, with DataFusion's `GroupsAccumulator`s.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

use super::evaluate_all;

/// One aggregate of a statement: `avg(temperature) FILTER (WHERE ..)`.
#[derive(Debug)]
pub(in crate::sql) struct AggregateCall {
    function: Arc<AggregateFunctionExpr>,
    /// of the function, then of its ORDER BY
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
        let mut arguments = function.expressions();
        arguments.extend(function.order_bys().iter().map(|order| Arc::clone(&order.expr)));
        let argument_types = arguments.iter().map(|argument| argument.data_type(input)).collect::<Result<_>>()?;
        Ok(Self { function, arguments, argument_types, filter, fingerprint })
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// For many groups.
    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.function.groups_accumulator_supported() {
            return self.function.create_groups_accumulator();
        }
        let function = Arc::clone(&self.function);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
    }

    /// For one group.
    pub(super) fn single(&self) -> Result<Box<dyn Accumulator>> {
        self.function.create_accumulator()
    }

    /// Whether the value of an accumulator for one group can be looked at without harm to it. That is promised for none, but these only
    /// compute it from a few numbers.
    pub(super) fn can_be_looked_at(&self) -> bool {
        const NUMBERS: [&str; 9] = ["count", "sum", "avg", "min", "max", "bool_and", "bool_or", "stddev", "var"];
        !self.function.is_distinct() && NUMBERS.contains(&self.function.fun().name())
    }

    /// The names of the state columns at rest, with their types.
    pub(super) fn state_fields(&self) -> Result<Vec<Field>> {
        let fields = self.function.state_fields()?;
        Ok(fields
            .iter()
            .enumerate()
            .map(|(i, field)| Field::new(format!("{}#{i}", self.fingerprint), field.data_type().clone(), true))
            .collect())
    }

    /// Its state columns in `batch`, if they are there.
    pub(super) fn find_state(&self, batch: &RecordBatch) -> Result<Option<Vec<ArrayRef>>> {
        let fields = self.state_fields()?;
        Ok(fields
            .iter()
            .map(|field| batch.column_by_name(field.name()).filter(|column| column.data_type() == field.data_type()).cloned())
            .collect())
    }
}

/// How rows are added up: by which keys, and to what.
pub(super) struct Adder {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    key_schema: SchemaRef,
    calls: Vec<AggregateCall>,
}

/// Rows whose expressions have been evaluated, ready to be added up.
pub(super) struct Addends {
    pub rows: usize,
    pub keys: Vec<ArrayRef>,
    pub arguments: Vec<Vec<ArrayRef>>,
    pub filters: Vec<Option<BooleanArray>>,
}

/// What has been added up so far.
pub(super) struct Sums {
    /// `None` when there are no keys: then there is one group
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl std::fmt::Debug for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sums").field("groups", &self.len()).finish_non_exhaustive()
    }
}

/// The same at rest: for each group its keys, and the state of each aggregate.
#[derive(Clone)]
pub(super) struct SumsAtRest {
    pub rows: usize,
    pub keys: Vec<ArrayRef>,
    pub states: Vec<Vec<ArrayRef>>,
    /// about how much memory they take
    pub bytes: usize,
}

impl Adder {
    pub(super) fn new(keys: Vec<(Arc<dyn PhysicalExpr>, Field)>, calls: Vec<AggregateCall>) -> Self {
        let (keys, key_fields): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        Self { keys, key_schema: Arc::new(Schema::new(key_fields)), calls }
    }

    /// With a key before the others, whose values the caller puts into [`Addends::keys`].
    pub(super) fn with_leading_key(mut self, field: Field) -> Self {
        let fields = std::iter::once(Arc::new(field)).chain(self.key_schema.fields().iter().cloned());
        self.key_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self
    }

    pub(super) fn calls(&self) -> &[AggregateCall] {
        &self.calls
    }

    pub(super) fn key_fields(&self) -> impl Iterator<Item = Field> {
        self.key_schema.fields().iter().map(|field| field.as_ref().clone())
    }

    /// What is computed, for people.
    pub(super) fn explain(&self) -> String {
        self.calls.iter().map(AggregateCall::fingerprint).collect::<Vec<_>>().join(", ")
    }

    /// Evaluates keys and arguments; changes nothing.
    pub(super) fn prepare(&self, batch: &RecordBatch) -> Result<Addends> {
        let rows = batch.num_rows();
        let arguments = self.calls.iter().map(|call| evaluate_all(&call.arguments, batch)).collect::<Result<_>>()?;
        let filters = self.calls.iter().map(|call| match &call.filter {
            None => Ok(None),
            Some(expr) => {
                let value = expr.evaluate(batch)?.into_array(rows)?;
                value.as_boolean_opt().cloned().map(Some).ok_or_else(|| DataFusionError::Plan("FILTER is not a condition".into()))
            }
        });
        Ok(Addends { rows, keys: evaluate_all(&self.keys, batch)?, arguments, filters: filters.collect::<Result<_>>()? })
    }

    /// Nothing yet.
    pub(super) fn empty(&self) -> Result<Sums> {
        let no_keys = self.key_schema.fields().is_empty();
        let keys = if no_keys { None } else { Some(new_group_values(Arc::clone(&self.key_schema), &GroupOrdering::None)?) };
        Ok(Sums { keys, accumulators: self.calls.iter().map(AggregateCall::accumulator).collect::<Result<_>>()? })
    }

    /// All of `parts`, the groups in the order in which they appear there.
    pub(super) fn merge<'a>(&self, parts: impl IntoIterator<Item = &'a SumsAtRest>) -> Result<Sums> {
        let mut sums = self.empty()?;
        let mut groups = Vec::new();
        for part in parts {
            sums.merge(part, &mut groups)?;
        }
        Ok(sums)
    }

    /// Takes over the rows of state that are in `columns`, an aggregate's columns each, in their order. `None`: the aggregate is new and
    /// starts empty.
    pub(super) fn restore(&self, rows: usize, keys: &[ArrayRef], states: &[Option<Vec<ArrayRef>>]) -> Result<Sums> {
        let mut sums = self.empty()?;
        let mut groups = Vec::new();
        sums.intern(keys, rows, &mut groups)?;
        let total = sums.len();
        for ((accumulator, state), call) in sums.accumulators.iter_mut().zip(states).zip(&self.calls) {
            match state {
                Some(state) => accumulator.merge_batch(state, &groups, total)?,
                // No row counts, but the accumulator learns which groups there are.
                None => {
                    let nulls: Vec<ArrayRef> = call.argument_types.iter().map(|t| new_null_array(t, rows)).collect();
                    accumulator.update_batch(&nulls, &groups, Some(&BooleanArray::from(vec![false; rows])), total)?;
                }
            }
        }
        Ok(sums)
    }

    /// The columns of state at rest: keys, then those of each aggregate.
    pub(super) fn rest_fields(&self) -> Result<Vec<Field>> {
        let mut fields: Vec<Field> = self.key_fields().collect();
        for call in &self.calls {
            fields.extend(call.state_fields()?);
        }
        Ok(fields)
    }
}

impl Addends {
    /// All of `parts`, one after the other.
    pub(super) fn concat(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() <= 1 {
            let none = Self { rows: 0, keys: Vec::new(), arguments: Vec::new(), filters: Vec::new() };
            return Ok(parts.pop().unwrap_or(none));
        }
        let both = |columns: Vec<&ArrayRef>| Ok(concat(&columns.into_iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?);
        let Some(first) = parts.first() else { return Err(DataFusionError::Internal("no rows".into())) };
        let keys = (0..first.keys.len()).map(|key| both(parts.iter().filter_map(|part| part.keys.get(key)).collect()));
        let arguments = first.arguments.iter().enumerate().map(|(call, arguments)| {
            let of = |argument| both(parts.iter().filter_map(|part| part.arguments.get(call)?.get(argument)).collect());
            (0..arguments.len()).map(of).collect::<Result<Vec<_>>>()
        });
        let filters = first.filters.iter().enumerate().map(|(call, filter)| match filter {
            None => Ok(None),
            Some(_) => {
                let masks: Vec<&dyn Array> =
                    parts.iter().filter_map(|part| part.filters.get(call)?.as_ref()).map(|mask| mask as &dyn Array).collect();
                Ok(concat(&masks)?.as_boolean_opt().cloned())
            }
        });
        Ok(Self {
            rows: parts.iter().map(|part| part.rows).sum(),
            keys: keys.collect::<Result<_>>()?,
            arguments: arguments.collect::<Result<_>>()?,
            filters: filters.collect::<Result<_>>()?,
        })
    }

    /// The rows with these indices, in order.
    pub(super) fn take(&self, rows: Vec<u32>) -> Result<Self> {
        let first = rows.first().copied().unwrap_or(0);
        if rows.iter().zip(first..).all(|(row, next)| *row == next) {
            return Ok(self.slice(first as usize, rows.len()));
        }
        let rows = UInt32Array::from(rows);
        let pick = |column: &ArrayRef| Ok(take(column, &rows, None)?);
        let filters = self.filters.iter().map(|filter| match filter {
            None => Ok(None),
            Some(mask) => Ok(take(mask, &rows, None)?.as_boolean_opt().cloned()),
        });
        Ok(Self {
            rows: rows.len(),
            keys: self.keys.iter().map(pick).collect::<Result<_>>()?,
            arguments: self.arguments.iter().map(|columns| columns.iter().map(pick).collect()).collect::<Result<_>>()?,
            filters: filters.collect::<Result<_>>()?,
        })
    }

    /// Rows beside each other, without copying them.
    fn slice(&self, offset: usize, rows: usize) -> Self {
        let slice = |columns: &Vec<ArrayRef>| columns.iter().map(|column| column.slice(offset, rows)).collect();
        Self {
            rows,
            keys: slice(&self.keys),
            arguments: self.arguments.iter().map(slice).collect(),
            filters: self.filters.iter().map(|filter| filter.as_ref().map(|mask| mask.slice(offset, rows))).collect(),
        }
    }
}

impl Sums {
    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.keys.as_ref().map_or(1, |keys| keys.len())
    }

    pub(super) fn bytes(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        // An accumulator's size is that of its lists, without itself.
        let itself: usize = self.accumulators.iter().map(|accumulator| size_of_val(accumulator) + size_of_val(&**accumulator)).sum();
        keys + itself + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
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

    /// Adds rows. `groups` is room for their group indices, so that it is allocated once.
    pub(super) fn add(&mut self, rows: &Addends, groups: &mut Vec<usize>) -> Result<()> {
        self.intern(&rows.keys, rows.rows, groups)?;
        let total = self.len();
        for ((accumulator, arguments), filter) in self.accumulators.iter_mut().zip(&rows.arguments).zip(&rows.filters) {
            accumulator.update_batch(arguments, groups, filter.as_ref(), total)?;
        }
        Ok(())
    }

    /// Adds what others have added up.
    pub(super) fn merge(&mut self, other: &SumsAtRest, groups: &mut Vec<usize>) -> Result<()> {
        self.intern(&other.keys, other.rows, groups)?;
        let total = self.len();
        for (accumulator, state) in self.accumulators.iter_mut().zip(&other.states) {
            accumulator.merge_batch(state, groups, total)?;
        }
        Ok(())
    }

    fn key_columns(&mut self) -> Result<Vec<ArrayRef>> {
        self.keys.as_mut().map_or_else(|| Ok(Vec::new()), |keys| keys.emit(EmitTo::All))
    }

    /// The keys of each group, and the value of each aggregate.
    pub(super) fn finish(mut self) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let values = self.accumulators.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All)).collect::<Result<_>>()?;
        Ok((self.key_columns()?, values))
    }

    pub(super) fn rest(mut self) -> Result<SumsAtRest> {
        let rows = self.len();
        let states: Vec<Vec<ArrayRef>> =
            self.accumulators.iter_mut().map(|accumulator| accumulator.state(EmitTo::All)).collect::<Result<_>>()?;
        let keys = self.key_columns()?;
        let bytes = keys.iter().chain(states.iter().flatten()).map(|column| column.get_array_memory_size()).sum();
        Ok(SumsAtRest { rows, keys, states, bytes })
    }
}

impl SumsAtRest {
    /// The columns, as [`Adder::rest_fields`] says.
    pub(super) fn columns(self) -> Vec<ArrayRef> {
        self.keys.into_iter().chain(self.states.into_iter().flatten()).collect()
    }
}
