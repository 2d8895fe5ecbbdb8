//! What rows are added up to, and by which keys: aggregates, and rows whose expressions have been evaluated.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{Accumulator, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};

use super::evaluate_all;
use super::keys::Keys;
use super::sums::{Sums, SumsAtRest};
use crate::expression::evaluate;
use crate::sql::floats::{canonical, checked};
use crate::sql::operators::at_rest::column_of;

/// Aggregates that compare what they are given.
const COMPARE: [&str; 8] = [
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "max",
    "median",
    "min",
    "percentile_cont",
];

/// What is evaluated for each row that `function` takes, on rows of `input`.
pub(in crate::sql) fn arguments_of(
    function: &AggregateFunctionExpr,
    input: &Schema,
) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let compares = COMPARE.contains(&function.fun().name()) || function.is_distinct();
    let argument = |expr: Arc<dyn PhysicalExpr>| {
        let expr = checked(expr, input)?;
        if compares { canonical(expr, input) } else { Ok(expr) }
    };
    function.expressions().into_iter().map(argument).collect()
}

/// `min` and `max` of floats without two NaNs: DataFusion's own forget a NaN with the next number, so that
/// the order of rows would matter.
fn extreme(name: &str, data_type: &DataType) -> Option<Box<dyn GroupsAccumulator>> {
    macro_rules! extremes {
        ($type:ty, $native:ident) => {
            match name {
                "max" => Some(Box::new(
                    PrimitiveGroupsAccumulator::<$type, _>::new(data_type, |most, new| {
                        if new.is_nan() || *most < new {
                            *most = new;
                        }
                    })
                    .with_starting_value($native::NEG_INFINITY),
                )),
                "min" => Some(Box::new(
                    PrimitiveGroupsAccumulator::<$type, _>::new(data_type, |least, new| {
                        if least.is_nan() || *least > new {
                            *least = new;
                        }
                    })
                    .with_starting_value($native::NAN),
                )),
                _ => None,
            }
        };
    }
    match data_type {
        DataType::Float64 => extremes!(Float64Type, f64),
        DataType::Float32 => extremes!(Float32Type, f32),
        _ => None,
    }
}

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
        let mut arguments = arguments_of(&function, input)?;
        let order = function
            .order_bys()
            .iter()
            .map(|order| canonical(checked(Arc::clone(&order.expr), input)?, input));
        arguments.extend(order.collect::<Result<Vec<_>>>()?);
        let filter = filter.map(|filter| checked(filter, input)).transpose()?;
        let argument_types =
            arguments.iter().map(|argument| argument.data_type(input)).collect::<Result<_>>()?;
        Ok(Self { function, arguments, argument_types, filter, fingerprint })
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// For many groups.
    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if let Some(extreme) = extreme(self.function.fun().name(), self.function.field().data_type()) {
            return Ok(extreme);
        }
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

    /// Whether the value of an accumulator for one group can be looked at without harm to it. That is
    /// promised for none, but these only compute it from a few numbers.
    pub(super) fn can_be_looked_at(&self) -> bool {
        const NUMBERS: [&str; 9] =
            ["count", "sum", "avg", "min", "max", "bool_and", "bool_or", "stddev", "var"];
        !self.function.is_distinct() && NUMBERS.contains(&self.function.fun().name())
    }

    /// Lets an accumulator know groups that have no row for it.
    pub(super) fn begin(
        &self,
        accumulator: &mut dyn GroupsAccumulator,
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        let nulls: Vec<ArrayRef> =
            self.argument_types.iter().map(|t| new_null_array(t, groups.len())).collect();
        accumulator.update_batch(&nulls, groups, Some(&BooleanArray::from(vec![false; groups.len()])), total)
    }

    /// The names of the state columns at rest, with their types.
    pub(super) fn state_fields(&self) -> Result<Vec<Field>> {
        let fields = self.function.state_fields()?;
        Ok(fields
            .iter()
            .enumerate()
            .map(|(i, field)| {
                Field::new(format!("{}#{i}", self.fingerprint), field.data_type().clone(), true)
            })
            .collect())
    }

    /// Its state columns in `batch`, if they are there.
    pub(super) fn find_state(&self, batch: &RecordBatch) -> Result<Option<Vec<ArrayRef>>> {
        let fields = self.state_fields()?;
        Ok(fields.iter().map(|field| column_of(batch, field.name(), field.data_type())).collect())
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
    /// of their keys; empty before [`Self::number`]
    pub numbers: Vec<usize>,
    pub arguments: Vec<Vec<ArrayRef>>,
    pub filters: Vec<Option<BooleanArray>>,
}

impl Adder {
    pub(super) fn new(keys: Vec<(Arc<dyn PhysicalExpr>, Field)>, calls: Vec<AggregateCall>) -> Self {
        let (keys, key_fields): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        Self { keys, key_schema: Arc::new(Schema::new(key_fields)), calls }
    }

    /// The keys, behind one that the caller puts before the others in [`Addends::keys`].
    pub(super) fn key_schema_behind(&self, field: Field) -> SchemaRef {
        let fields = std::iter::once(Arc::new(field)).chain(self.key_schema.fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    pub(super) fn key_schema(&self) -> &SchemaRef {
        &self.key_schema
    }

    pub(super) fn calls(&self) -> &[AggregateCall] {
        &self.calls
    }

    /// What is computed, for people.
    pub(super) fn explain(&self) -> String {
        self.calls.iter().map(AggregateCall::fingerprint).collect::<Vec<_>>().join(", ")
    }

    /// Evaluates keys and arguments; changes nothing.
    pub(super) fn prepare(&self, batch: &RecordBatch) -> Result<Addends> {
        let rows = batch.num_rows();
        let arguments =
            self.calls.iter().map(|call| evaluate_all(&call.arguments, batch)).collect::<Result<_>>()?;
        let filters = self.calls.iter().map(|call| match &call.filter {
            None => Ok(None),
            Some(expr) => {
                let value = evaluate(expr, batch)?;
                value
                    .as_boolean_opt()
                    .cloned()
                    .map(Some)
                    .ok_or_else(|| DataFusionError::Plan("FILTER is not a condition".into()))
            }
        });
        let keys = evaluate_all(&self.keys, batch)?;
        Ok(Addends { rows, keys, numbers: Vec::new(), arguments, filters: filters.collect::<Result<_>>()? })
    }

    /// Nothing yet.
    pub(super) fn empty(&self) -> Result<Sums> {
        Ok(Sums::new(self.accumulators()?))
    }

    pub(super) fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        self.calls.iter().map(AggregateCall::accumulator).collect()
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

    /// Takes over state of the keys with these numbers, an aggregate's columns each. `None`: the aggregate is
    /// new and starts empty.
    pub(super) fn restore(&self, numbers: &[usize], states: &[Option<Vec<ArrayRef>>]) -> Result<Sums> {
        let mut sums = self.empty()?;
        sums.restore(numbers, states, &self.calls)?;
        Ok(sums)
    }

    /// The columns of rows that wait to be added up: keys, then arguments and filters. There is one at least,
    /// to tell how many rows there are.
    pub(super) fn row_fields(&self) -> Vec<Field> {
        let arguments = self.calls.iter().flat_map(|call| &call.argument_types).cloned();
        let filters = self.calls.iter().filter(|call| call.filter.is_some()).map(|_| DataType::Boolean);
        let named = |(number, data_type)| Field::new(format!("#{number}"), data_type, true);
        let keys = self.key_schema.fields().iter().map(|field| field.as_ref().clone());
        let mut fields: Vec<Field> = keys.chain((0..).zip(arguments.chain(filters)).map(named)).collect();
        if fields.is_empty() {
            fields.push(Field::new("#", DataType::Null, true));
        }
        fields
    }

    /// Rows with these columns.
    pub(super) fn addends(&self, rows: usize, columns: &[ArrayRef]) -> Addends {
        let mut columns = columns.iter().cloned();
        let keys = columns.by_ref().take(self.key_schema.fields().len()).collect();
        let arguments = self
            .calls
            .iter()
            .map(|call| columns.by_ref().take(call.argument_types.len()).collect())
            .collect();
        let filters = self
            .calls
            .iter()
            .map(|call| call.filter.as_ref().and_then(|_| columns.next()?.as_boolean_opt().cloned()))
            .collect();
        Addends { rows, keys, numbers: Vec::new(), arguments, filters }
    }

    /// The columns of state at rest: keys, then those of each aggregate.
    pub(super) fn rest_fields(&self) -> Result<Vec<Field>> {
        let mut fields: Vec<Field> =
            self.key_schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for call in &self.calls {
            fields.extend(call.state_fields()?);
        }
        Ok(fields)
    }
}

impl Addends {
    /// Numbers the keys, of which the columns are not needed any more.
    pub(super) fn number(&mut self, keys: &mut Keys) -> Result<()> {
        keys.number(&std::mem::take(&mut self.keys), self.rows, &mut self.numbers)
    }

    /// As [`Adder::row_fields`] says.
    pub(super) fn columns(self) -> Vec<ArrayRef> {
        let filters = self.filters.into_iter().flatten().map(|filter| Arc::new(filter) as ArrayRef);
        let mut columns: Vec<ArrayRef> =
            self.keys.into_iter().chain(self.arguments.into_iter().flatten()).chain(filters).collect();
        if columns.is_empty() {
            columns.push(new_null_array(&DataType::Null, self.rows));
        }
        columns
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
            numbers: rows
                .values()
                .iter()
                .filter_map(|row| self.numbers.get(*row as usize).copied())
                .collect(),
            keys: self.keys.iter().map(pick).collect::<Result<_>>()?,
            arguments: self
                .arguments
                .iter()
                .map(|columns| columns.iter().map(pick).collect())
                .collect::<Result<_>>()?,
            filters: filters.collect::<Result<_>>()?,
        })
    }

    /// Rows beside each other, without copying them.
    pub(super) fn slice(&self, offset: usize, rows: usize) -> Self {
        let slice =
            |columns: &Vec<ArrayRef>| columns.iter().map(|column| column.slice(offset, rows)).collect();
        Self {
            rows,
            numbers: self.numbers.get(offset..offset + rows).map(<[usize]>::to_vec).unwrap_or_default(),
            keys: slice(&self.keys),
            arguments: self.arguments.iter().map(slice).collect(),
            filters: self
                .filters
                .iter()
                .map(|filter| filter.as_ref().map(|mask| mask.slice(offset, rows)))
                .collect(),
        }
    }
}
