//! Aggregates that give results before they are final, or never become final: early results of windows that
//! go by the clock, and groups without a window that are forgotten after a while.
//!
//! Rows are added one by one, because each may be a result of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::Accumulator;
use datafusion_physical_expr::PhysicalExpr;

use super::accumulate::{Addends, Adder};
use super::time_window::window_time;
use super::{
    AggregateCall, Bound, Chunk, GroupColumn, Groups, Held, LateCopies, Operator, Pass, an_eighth,
    each_evaluable,
};
use crate::rule::SealedState;
use crate::sql::operators::at_rest::{columns_of, take_state};
use crate::sql::windows::TimeWindows;

/// When results are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) struct Emit {
    /// with each row, those of its groups
    pub rows: bool,
    /// each time the watermark reaches a multiple of so many nanoseconds, those of the groups that have
    /// changed
    pub every_ns: Option<i64>,
}

/// What ends a group.
#[derive(Debug)]
enum End {
    /// its window, whose bound the rows tell
    Window(TimeWindows, Bound),
    /// so many nanoseconds without a row
    Silence(i64),
}

/// The operator.
pub(in crate::sql) struct RunningAggregate {
    input: Box<dyn Operator>,
    fingerprint: String,
    end: End,
    emit: Emit,
    delay_ns: i64,
    columns: Vec<GroupColumn>,
    adder: Adder,
    schema: SchemaRef,
    /// by the watermark at which it ends, then by age
    groups: BTreeMap<(i64, u64), Group>,
    /// where the group of a window's end and keys is
    places: HashMap<(i64, Vec<ScalarValue>), (i64, u64)>,
    /// age of the next group
    next: u64,
    /// the watermark at which groups that have changed are given
    gives_at: Option<i64>,
    /// the watermark that it takes to have been reached at least: windows that it would end have been given
    /// up
    forgotten_to: i64,
    bytes: usize,
}

struct Group {
    age: u64,
    /// of its window; 0 if it has none
    end: i64,
    keys: Vec<ScalarValue>,
    accumulators: Vec<Box<dyn Accumulator>>,
    /// whether it has changed since it was given
    changed: bool,
    /// about how much memory it takes
    bytes: usize,
}

impl std::fmt::Debug for RunningAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningAggregate")
            .field("fingerprint", &self.fingerprint)
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}

/// What a group costs beside its keys and sums: its places in the order of their ends, which is half full,
/// and in the index.
const BYTES_A_GROUP: usize =
    2 * size_of::<((i64, u64), Group)>() + 2 * size_of::<((i64, Vec<ScalarValue>), (i64, u64))>();

/// Rows to be given, each with the row that it is due to.
#[derive(Default)]
struct Results {
    causes: Vec<u32>,
    rows: Vec<Vec<ScalarValue>>,
}

impl Results {
    fn push(&mut self, cause: u32, row: Vec<ScalarValue>) {
        self.causes.push(cause);
        self.rows.push(row);
    }

    fn chunk(self, schema: &SchemaRef) -> Result<Chunk> {
        if self.rows.is_empty() {
            return Ok(Chunk::empty(schema));
        }
        let mut columns: Vec<Vec<ScalarValue>> =
            vec![Vec::with_capacity(self.rows.len()); schema.fields().len()];
        for row in self.rows {
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        let columns = columns.into_iter().map(ScalarValue::iter_to_array).collect::<Result<_>>()?;
        Ok(Chunk { batch: RecordBatch::try_new(Arc::clone(schema), columns)?, causes: Some(self.causes) })
    }
}

impl RunningAggregate {
    /// Early results of windows. `input` gives a row once for each of its windows.
    pub(in crate::sql) fn of_windows(
        input: Box<dyn Operator>,
        fingerprint: String,
        (windows, emit): (TimeWindows, Emit),
        groups: Groups,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Self {
        let Groups { columns, bound, keys } = groups;
        Self::new(
            input,
            fingerprint,
            (End::Window(windows, bound), emit),
            columns,
            Adder::new(keys, calls),
            schema,
        )
    }

    /// Groups that are forgotten when they have had no row for `ttl_ns`.
    pub(in crate::sql) fn of_groups(
        input: Box<dyn Operator>,
        fingerprint: String,
        (ttl_ns, emit): (i64, Emit),
        keys: Vec<(Arc<dyn PhysicalExpr>, Field)>,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Self {
        let columns = (0..keys.len()).map(GroupColumn::Key).collect();
        Self::new(input, fingerprint, (End::Silence(ttl_ns), emit), columns, Adder::new(keys, calls), schema)
    }

    fn new(
        input: Box<dyn Operator>,
        fingerprint: String,
        (end, emit): (End, Emit),
        columns: Vec<GroupColumn>,
        adder: Adder,
        schema: SchemaRef,
    ) -> Self {
        Self {
            delay_ns: input.end_delay_ns(),
            input,
            fingerprint,
            end,
            emit,
            columns,
            adder,
            schema,
            groups: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
            gives_at: None,
            forgotten_to: i64::MIN,
            bytes: 0,
        }
    }

    fn ends(&self, batch: &RecordBatch) -> Result<Vec<i64>> {
        match &self.end {
            End::Window(windows, bound) => bound.ends(batch, windows),
            End::Silence(_) => Ok(vec![0; batch.num_rows()]),
        }
    }

    fn absorb(
        &mut self,
        chunk: &Chunk,
        (ends, addends): (&[i64], &Addends),
        pass: &Pass<'_>,
        late: &mut LateCopies,
        results: &mut Results,
    ) -> Result<()> {
        for (row, end) in ends.iter().enumerate() {
            let cause = chunk.cause(row);
            let before = pass.before(cause);
            self.pass_time(pass, before, results)?;
            let ends_at = match &self.end {
                End::Window(..) => end.saturating_add(self.delay_ns),
                End::Silence(ttl) => match pass.after(cause) {
                    i64::MIN => i64::MAX,
                    after => after.saturating_add(*ttl),
                },
            };
            let is_late = matches!(self.end, End::Window(..)) && before.max(self.forgotten_to) >= ends_at;
            late.note(cause, is_late);
            if is_late {
                continue;
            }
            let keys: Vec<ScalarValue> = addends
                .keys
                .iter()
                .map(|key| ScalarValue::try_from_array(key, row))
                .collect::<Result<_>>()?;
            let mut group = self.take_group(*end, keys, pass.after(cause))?;
            for ((accumulator, arguments), filter) in
                group.accumulators.iter_mut().zip(&addends.arguments).zip(&addends.filters)
            {
                if filter.as_ref().is_none_or(|mask| mask.is_valid(row) && mask.value(row)) {
                    let one: Vec<ArrayRef> =
                        arguments.iter().map(|argument| argument.slice(row, 1)).collect();
                    accumulator.update_batch(&one)?;
                }
            }
            if self.emit.rows {
                results.push(cause, self.results_of(&mut group)?);
            } else {
                group.changed = true;
            }
            if let Some(every) = self.emit.every_ns.filter(|_| group.changed) {
                let from = if before == i64::MIN { pass.after(cause) } else { before };
                let next = match from {
                    // As soon as there is a watermark.
                    i64::MIN => i64::MIN + 1,
                    _ => from.saturating_sub(from.rem_euclid(every)).saturating_add(every),
                };
                self.gives_at.get_or_insert(next);
            }
            self.put_group(ends_at, group);
        }
        Ok(())
    }

    /// The group with these keys, out of its place; a new one if there is none, or if the row that brings the
    /// watermark to `now` comes after too long a silence.
    fn take_group(&mut self, end: i64, keys: Vec<ScalarValue>, now: i64) -> Result<Group> {
        let place = (end, keys);
        if let Some(group) = self
            .places
            .remove(&place)
            .and_then(|(ends_at, age)| Some((ends_at, self.groups.remove(&(ends_at, age))?)))
        {
            let (ends_at, group) = group;
            self.bytes = self.bytes.saturating_sub(group.bytes);
            if matches!(self.end, End::Window(..)) || ends_at > now {
                return Ok(group);
            }
        }
        self.next += 1;
        let mut accumulators: Vec<_> =
            self.adder.calls().iter().map(AggregateCall::single).collect::<Result<_>>()?;
        let (end, mut keys) = place;
        // There are many groups, and each has few of both.
        accumulators.shrink_to_fit();
        keys.shrink_to_fit();
        Ok(Group { age: self.next, end, keys, accumulators, changed: false, bytes: 0 })
    }

    fn put_group(&mut self, ends_at: i64, mut group: Group) {
        let keys: usize = group.keys.iter().map(ScalarValue::size).sum();
        let sums = group
            .accumulators
            .iter()
            .map(|accumulator| accumulator.size() + size_of_val(accumulator))
            .sum::<usize>();
        group.bytes = BYTES_A_GROUP + 2 * keys + sums;
        self.bytes += group.bytes;
        self.places.insert((group.end, group.keys.clone()), (ends_at, group.age));
        self.groups.insert((ends_at, group.age), group);
    }

    /// Ends groups and gives those that have changed, as the watermark goes on to `until`.
    fn pass_time(&mut self, pass: &Pass<'_>, until: i64, results: &mut Results) -> Result<()> {
        loop {
            let ends_at = self.groups.first_key_value().map_or(i64::MAX, |((ends_at, _), _)| *ends_at);
            let gives_at = self.gives_at.unwrap_or(i64::MAX);
            let at = ends_at.min(gives_at);
            let Some(cause) = pass.reached(at).filter(|_| at <= until) else { return Ok(()) };
            if ends_at <= gives_at {
                let Some((_, mut group)) = self.groups.pop_first() else { return Ok(()) };
                self.bytes = self.bytes.saturating_sub(group.bytes);
                if matches!(self.end, End::Window(..)) {
                    results.push(cause, self.results_of(&mut group)?);
                }
                self.places.remove(&(group.end, group.keys));
            } else {
                self.gives_at = None;
                let mut groups = std::mem::take(&mut self.groups);
                for group in groups.values_mut().filter(|group| group.changed) {
                    group.changed = false;
                    results.push(cause, self.results_of(group)?);
                }
                self.groups = groups;
            }
        }
    }

    /// The row that says how a group stands.
    fn results_of(&self, group: &mut Group) -> Result<Vec<ScalarValue>> {
        let values = self
            .adder
            .calls()
            .iter()
            .zip(&mut group.accumulators)
            .map(|(call, accumulator)| look_at(call, accumulator));
        let values = values.collect::<Result<Vec<_>>>()?;
        let start = match &self.end {
            End::Window(windows, _) => windows.start_of(group.end),
            End::Silence(_) => 0,
        };
        let time = |ns: i64| ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into()));
        let columns = self.columns.iter().map(|column| match column {
            GroupColumn::Start => Ok(time(start)),
            GroupColumn::End => Ok(time(group.end)),
            GroupColumn::Time => Ok(time(window_time(group.end))),
            GroupColumn::Key(key) => group
                .keys
                .get(*key)
                .cloned()
                .ok_or_else(|| DataFusionError::Internal("a group column is missing".into())),
        });
        columns.chain(values.into_iter().map(Ok)).collect()
    }

    fn forgotten_fingerprint(&self) -> String {
        format!("FORGOTTEN OF {}", self.fingerprint)
    }

    fn state_schema(&self) -> Result<SchemaRef> {
        let mut fields = vec![
            Field::new("#end", DataType::Int64, false),
            Field::new("#ends_at", DataType::Int64, false),
            Field::new("#changed", DataType::Boolean, false),
        ];
        fields.extend(self.adder.rest_fields()?);
        Ok(Arc::new(Schema::new(fields)))
    }

    fn take_over(&mut self, batch: &RecordBatch, misfits: &mut Vec<String>) -> Result<()> {
        let missing = || DataFusionError::Internal("sealed groups without their ends".into());
        let times = |name: &str| {
            batch
                .column_by_name(name)
                .and_then(|column| column.as_primitive_opt::<Int64Type>())
                .ok_or_else(missing)
        };
        let (ends, ends_at) = (times("#end")?, times("#ends_at")?);
        let changed = batch
            .column_by_name("#changed")
            .and_then(|column| column.as_boolean_opt())
            .ok_or_else(missing)?;
        let keys = columns_of(batch.columns().iter().skip(3), self.adder.key_schema().fields());
        let Some(keys) = keys else {
            misfits.push(format!("`{}` has keys of other types now and starts empty", self.fingerprint));
            return Ok(());
        };
        let states: Vec<Option<Vec<ArrayRef>>> =
            self.adder.calls().iter().map(|call| call.find_state(batch)).collect::<Result<_>>()?;
        for (call, _) in self.adder.calls().iter().zip(&states).filter(|(_, state)| state.is_none()) {
            misfits.push(format!(
                "`{}` is new and starts empty in the groups that are there now",
                call.fingerprint()
            ));
        }
        for row in 0..batch.num_rows() {
            let keys = keys.iter().map(|key| ScalarValue::try_from_array(key, row)).collect::<Result<_>>()?;
            let mut group = self.take_group(ends.value(row), keys, i64::MIN)?;
            for (accumulator, state) in group.accumulators.iter_mut().zip(&states) {
                if let Some(state) = state {
                    accumulator
                        .merge_batch(&state.iter().map(|column| column.slice(row, 1)).collect::<Vec<_>>())?;
                }
            }
            group.changed = changed.value(row);
            self.put_group(ends_at.value(row), group);
        }
        Ok(())
    }
}

/// The value of `accumulator`, which can go on afterwards.
fn look_at(call: &AggregateCall, accumulator: &mut Box<dyn Accumulator>) -> Result<ScalarValue> {
    if call.can_be_looked_at() {
        return accumulator.evaluate();
    }
    let state: Vec<ArrayRef> =
        accumulator.state()?.iter().map(|value| value.to_array()).collect::<Result<_>>()?;
    *accumulator = call.single()?;
    accumulator.merge_batch(&state)?;
    let mut copy = call.single()?;
    copy.merge_batch(&state)?;
    copy.evaluate()
}

impl Operator for RunningAggregate {
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
        let mut results = Results::default();
        if !rows.is_empty() {
            let mut prepared = Vec::with_capacity(1);
            each_evaluable(&rows, pass.out, &mut |rows| {
                prepared.push((rows.clone(), self.ends(&rows.batch)?, self.adder.prepare(&rows.batch)?));
                Ok(())
            });
            let mut late = LateCopies::new(self.input.gives_input_rows());
            for (chunk, ends, addends) in prepared {
                self.absorb(&chunk, (&ends, &addends), pass, &mut late, &mut results)?;
            }
            late.tell(pass);
        }
        self.pass_time(pass, i64::MAX, &mut results)?;
        if pass.ends {
            self.forgotten_to = i64::MIN;
        }
        results.chunk(&self.schema)
    }

    fn explain(&self) -> String {
        format!("aggregate {}: {}", self.fingerprint, self.adder.explain())
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        true
    }

    fn delay_ns(&self) -> i64 {
        match &self.end {
            End::Window(windows, _) => self.delay_ns.saturating_add(windows.size_ns()),
            End::Silence(_) => self.input.delay_ns(),
        }
    }

    fn end_delay_ns(&self) -> i64 {
        self.delay_ns
    }

    fn deadline(&self) -> Option<i64> {
        let ends = self
            .groups
            .keys()
            .next()
            .map(|(ends_at, _)| *ends_at)
            .filter(|_| matches!(self.end, End::Window(..)));
        [ends, self.gives_at].into_iter().flatten().min()
    }

    fn held(&self) -> Held {
        Held { entries: self.groups.len(), bytes: self.bytes }
    }

    /// The groups that would end first: windows with all of theirs, or those that have been silent longest.
    fn shed(&mut self) -> Result<usize> {
        let before = self.groups.len();
        let last = self.groups.keys().nth(an_eighth(before).saturating_sub(1)).copied();
        let Some((ends_at, age)) = last else { return Ok(0) };
        let next = match &self.end {
            End::Window(..) => {
                self.forgotten_to = ends_at;
                ends_at.checked_add(1).map(|next| (next, 0))
            }
            End::Silence(_) => Some((ends_at, age + 1)),
        };
        let rest = next.map(|next| self.groups.split_off(&next)).unwrap_or_default();
        for group in std::mem::replace(&mut self.groups, rest).into_values() {
            self.bytes = self.bytes.saturating_sub(group.bytes);
            self.places.remove(&(group.end, group.keys));
        }
        self.places.shrink_to_fit();
        Ok(before - self.groups.len())
    }

    /// For each group, the oldest first, what ends it, its keys and the state of each aggregate. The
    /// watermark is that at which groups that have changed are given.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let mut groups: Vec<((i64, u64), Group)> = std::mem::take(&mut self.groups).into_iter().collect();
        groups.sort_by_key(|(_, group)| group.age);
        self.places.clear();
        self.bytes = 0;
        let batch = if groups.is_empty() {
            None
        } else {
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(groups.iter().map(|(_, group)| group.end))),
                Arc::new(Int64Array::from_iter_values(groups.iter().map(|((ends_at, _), _)| *ends_at))),
                Arc::new(BooleanArray::from(
                    groups.iter().map(|(_, group)| group.changed).collect::<Vec<_>>(),
                )),
            ];
            let schema = self.state_schema()?;
            let mut scalars: Vec<Vec<ScalarValue>> =
                vec![Vec::with_capacity(groups.len()); schema.fields().len() - columns.len()];
            for (_, group) in &mut groups {
                let mut row = std::mem::take(&mut group.keys);
                for accumulator in &mut group.accumulators {
                    row.extend(accumulator.state()?);
                }
                scalars.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            }
            for column in scalars {
                columns.push(ScalarValue::iter_to_array(column)?);
            }
            Some(RecordBatch::try_new(schema, columns)?)
        };
        let gives_at = self.gives_at.take().unwrap_or(i64::MIN);
        let mut sealed =
            vec![SealedState { fingerprint: self.fingerprint.clone(), watermark: gives_at, batch }];
        if self.forgotten_to > i64::MIN {
            sealed.push(SealedState {
                fingerprint: self.forgotten_fingerprint(),
                watermark: self.forgotten_to,
                batch: None,
            });
        }
        Ok(sealed)
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        if let Some(sealed) = take_state(state, &self.forgotten_fingerprint()) {
            self.forgotten_to = sealed.watermark;
        }
        let Some(sealed) = take_state(state, &self.fingerprint) else { return Ok(()) };
        if sealed.watermark != i64::MIN && self.emit.every_ns.is_some() {
            self.gives_at = Some(sealed.watermark);
        }
        match sealed.batch {
            Some(batch) => self.take_over(&batch, misfits),
            None => Ok(()),
        }
    }
}
