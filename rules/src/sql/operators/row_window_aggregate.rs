//! Aggregates over windows that end by their rows: each row is added up as it comes, and only the sums wait for the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, partition};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_physical_expr::PhysicalExpr;

use super::accumulate::{Addends, Adder, Sums};
use super::aggregate::window_columns;
use super::cutting::{Content, Cut, Cutter, Done, Keyed, Open, leave_out_rests};
use super::time_window::with_bounds;
use super::{AggregateCall, Chunk, GroupColumn, Held, Operator, Pass, each_evaluable, visit};
use crate::rule::{Emissions, SealedState};

/// The name under which rows that have been cut into windows enter what stands between window and aggregate.
pub(in crate::sql) const CUT_ROWS: &str = "#cut rows";

const WINDOW: &str = "#window";

/// A window function whose rows are to be added up.
pub(in crate::sql) struct CutWindow {
    pub input: Box<dyn Operator>,
    /// and how long a key is remembered, where time does not end its windows
    pub cut: (Cut, Option<i64>),
    pub partition: Vec<(Arc<dyn PhysicalExpr>, Field)>,
    /// of its rows, with the bounds
    pub schema: SchemaRef,
}

/// The operator.
pub(in crate::sql) struct RowWindowAggregate {
    input: Box<dyn Operator>,
    fingerprint: String,
    cutter: Cutter<Parts>,
    /// filters and projections between the window and the aggregate, over [`CUT_ROWS`]
    between: Box<dyn Operator>,
    cut_schema: SchemaRef,
    columns: Vec<GroupColumn>,
    keys: Vec<GroupKey>,
    adder: Adder,
    schema: SchemaRef,
    key_schema: SchemaRef,
    delay_ns: i64,
    groups: Vec<usize>,
    /// of all windows together
    held: Held,
}

impl std::fmt::Debug for RowWindowAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowWindowAggregate").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// What a window adds up to, and what is still to be added, in order.
#[derive(Debug, Default)]
struct Parts {
    /// of its partition; empty as long as there are no sums
    keys: Vec<ScalarValue>,
    sums: Option<Sums>,
    open: Vec<Part>,
    /// what it is known to take
    held: Held,
}

#[derive(Debug)]
enum Part {
    /// of the rows at hand
    Rows(Vec<u32>),
    /// a session that has become one with this
    Window(Parts),
}

impl Content for Parts {
    fn push(&mut self, row: u32) {
        match self.open.last_mut() {
            Some(Part::Rows(rows)) => rows.push(row),
            _ => self.open.push(Part::Rows(vec![row])),
        }
    }

    /// Only windows that share rows let go of any, and these are not added up.
    fn drop_first(&mut self) {}

    fn join(&mut self, other: Self) {
        self.open.push(Part::Window(other));
    }

    fn copy(&self) -> Self {
        Self::default()
    }
}

/// A key of GROUP BY.
#[derive(Debug, Clone, Copy)]
enum GroupKey {
    /// the same for all rows of a window: the key of its partition with this index
    OfPartition(usize),
    /// the key of its sums with this index
    OfRow(usize),
}

/// Rows on their way from the window to the aggregate.
struct Arrived {
    /// of the partition of each row of the window
    keys: Vec<ArrayRef>,
    addends: Addends,
    /// which of them a row of the window has become
    places: Vec<Option<u32>>,
}

/// What GROUP BY names.
pub(in crate::sql) struct WindowGroups {
    pub columns: Vec<GroupColumn>,
    pub keys: Vec<(Arc<dyn PhysicalExpr>, Field)>,
    /// which key of the partition each of `keys` is, if it is one
    pub of_partition: Vec<Option<usize>>,
}

impl RowWindowAggregate {
    /// `between` reads [`CUT_ROWS`].
    pub(in crate::sql) fn new(
        window: CutWindow,
        fingerprint: String,
        between: Box<dyn Operator>,
        groups: WindowGroups,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let (partition, fields): (Vec<_>, Vec<_>) = window.partition.into_iter().unzip();
        let key_schema = Arc::new(Schema::new(fields));
        let delay_ns = window.input.delay_ns();
        let (mut keys, mut of_rows) = (Vec::new(), Vec::new());
        for (key, of_partition) in groups.keys.into_iter().zip(groups.of_partition) {
            keys.push(of_partition.map_or(GroupKey::OfRow(of_rows.len()), GroupKey::OfPartition));
            if of_partition.is_none() {
                of_rows.push(key);
            }
        }
        Ok(Self {
            cutter: Cutter::new(window.cut, partition, Arc::clone(&key_schema), delay_ns)?,
            input: window.input,
            fingerprint,
            between,
            cut_schema: window.schema,
            columns: groups.columns,
            keys,
            adder: Adder::new(of_rows, calls),
            schema,
            key_schema,
            delay_ns,
            groups: Vec::new(),
            held: Held::default(),
        })
    }

    /// Takes rows through what stands between window and aggregate.
    fn arrive(&mut self, Keyed { chunk: rows, keys, .. }: Keyed, pass: &mut Pass<'_>) -> Result<Arrived> {
        // Nothing looks at the bounds, which are not known yet.
        let nowhere = vec![0; rows.len()];
        let cut = with_bounds(Chunk { batch: rows.batch.clone(), causes: None }, nowhere.clone(), nowhere, &self.cut_schema)?;
        let mut inner = Pass {
            input: Some((CUT_ROWS, &cut.batch)),
            watermarks: Vec::new(),
            when: pass.when,
            ends: false,
            number: None,
            late: Vec::new(),
            out: &mut *pass.out,
        };
        let passed = self.between.run(&mut inner)?;
        let mut places = vec![None; rows.len()];
        let mut prepared = Vec::with_capacity(1);
        let mut at = 0_u32;
        each_evaluable(&passed, pass.out, &mut |passed| {
            prepared.push(self.adder.prepare(&passed.batch)?);
            for row in passed.causes() {
                if let Some(place) = places.get_mut(row as usize) {
                    *place = Some(at);
                }
                at += 1;
            }
            Ok(())
        });
        Ok(Arrived { keys, addends: Addends::concat(prepared)?, places })
    }

    /// Adds what is still to be added. Windows that have become one are worked off from the inside, as rows came; there may be so many of
    /// them that recursion would not do.
    fn settle(&mut self, parts: &mut Parts, arrived: &Arrived) -> Result<()> {
        let mut outer: Vec<(Parts, std::vec::IntoIter<Part>)> = Vec::new();
        let mut inner = std::mem::take(parts);
        self.forget(&mut inner);
        let mut rest = std::mem::take(&mut inner.open).into_iter();
        loop {
            match rest.next() {
                Some(Part::Rows(rows)) => self.add(&mut inner, &rows, arrived)?,
                Some(Part::Window(mut other)) => {
                    self.forget(&mut other);
                    let of_other = std::mem::take(&mut other.open).into_iter();
                    outer.push((std::mem::replace(&mut inner, other), std::mem::replace(&mut rest, of_other)));
                }
                None => match outer.pop() {
                    Some((around, rest_around)) => {
                        let other = std::mem::replace(&mut inner, around);
                        rest = rest_around;
                        match (&mut inner.sums, other.sums) {
                            (Some(sums), Some(other)) => sums.merge(&other.rest()?, &mut self.groups)?,
                            (None, sums) => (inner.sums, inner.keys) = (sums, other.keys),
                            (Some(_), None) => {}
                        }
                    }
                    None => break,
                },
            }
        }
        let (groups, bytes) = inner.sums.as_ref().map_or((1, 0), |sums| (sums.len(), sums.bytes()));
        let keys: usize = inner.keys.iter().map(ScalarValue::size).sum();
        inner.held = Held { entries: groups, bytes: bytes + keys };
        self.held = Held { entries: self.held.entries + groups, bytes: self.held.bytes + inner.held.bytes };
        *parts = inner;
        Ok(())
    }

    /// Adds rows of a window, those of them that have arrived.
    fn add(&mut self, parts: &mut Parts, rows: &[u32], arrived: &Arrived) -> Result<()> {
        let places: Vec<u32> = rows.iter().filter_map(|row| arrived.places.get(*row as usize).copied().flatten()).collect();
        if places.is_empty() {
            return Ok(());
        }
        let sums = match &mut parts.sums {
            Some(sums) => sums,
            none => {
                let row = rows.first().map_or(0, |row| *row as usize);
                parts.keys = arrived.keys.iter().map(|key| ScalarValue::try_from_array(key, row)).collect::<Result<_>>()?;
                parts.keys.shrink_to_fit();
                none.insert(self.adder.empty()?)
            }
        };
        sums.add(&arrived.addends.take(places)?, &mut self.groups)
    }

    /// Takes a window out of what is held.
    fn forget(&mut self, parts: &mut Parts) {
        let Held { entries, bytes } = std::mem::take(&mut parts.held);
        self.held = Held { entries: self.held.entries.saturating_sub(entries), bytes: self.held.bytes.saturating_sub(bytes) };
    }

    /// Lets go of what windows add up to that have been given up. Returns how many.
    fn let_go(&mut self) -> usize {
        let mut windows = std::mem::take(&mut self.cutter.given_up);
        windows.iter_mut().for_each(|window| self.forget(&mut window.content));
        windows.len()
    }

    /// Adds rows to their windows.
    fn absorb(&mut self, rows: &Chunk, pass: &mut Pass<'_>, done: &mut Vec<Done<Parts>>) -> Result<()> {
        let mut keyed = Vec::with_capacity(1);
        each_evaluable(rows, pass.out, &mut |rows| {
            keyed.push(self.cutter.prepare(rows)?);
            Ok(())
        });
        for part in keyed {
            let begin = done.len();
            self.cutter.absorb(&part, 0, pass, self.input.gives_input_rows(), done)?;
            let arrived = self.arrive(part, pass)?;
            for window in done.iter_mut().skip(begin) {
                self.settle(&mut window.content, &arrived)?;
            }
            let mut touched = self.cutter.groups.clone();
            touched.sort_unstable();
            touched.dedup();
            for key in touched {
                let Some(partition) = self.cutter.partitions.get_mut(key) else { continue };
                let mut open = std::mem::take(&mut partition.open);
                for window in &mut open {
                    self.settle(&mut window.content, &arrived)?;
                }
                if let Some(partition) = self.cutter.partitions.get_mut(key) {
                    partition.open = open;
                }
            }
        }
        Ok(())
    }

    fn give(&mut self, mut done: Vec<Done<Parts>>, out: &mut Emissions) -> Result<Chunk> {
        // Where two close with the same row, the one that ended first comes first, then the one that began to arrive first.
        done.sort_by_key(|window| (window.cause, window.end, window.born));
        let mut chunks = Vec::with_capacity(done.len());
        done.iter_mut().for_each(|window| self.forget(&mut window.content));
        out.forgotten += leave_out_rests(&mut done);
        for window in done {
            let Some(sums) = window.content.sums else { continue };
            let rows = sums.len();
            let (of_rows, values) = sums.finish()?;
            let keys = self.keys.iter().map(|key| match key {
                GroupKey::OfPartition(key) => window.content.keys.get(*key).map(|key| key.to_array_of_size(rows)),
                GroupKey::OfRow(key) => of_rows.get(*key).cloned().map(Ok),
            });
            let missing = || DataFusionError::Internal("a group column is missing".into());
            let keys = keys.map(|key| key.unwrap_or_else(|| Err(missing()))).collect::<Result<Vec<_>>>()?;
            let columns = window_columns(&self.columns, window.start, window.end, &keys, values, rows)?;
            chunks.push(Chunk { batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?, causes: Some(vec![window.cause; rows]) });
        }
        Chunk::concat(&self.schema, chunks)
    }

    fn sums_fingerprint(&self) -> String {
        format!("SUMS OF {}", self.fingerprint)
    }

    fn windows_schema(&self) -> SchemaRef {
        let times = ["#first", "#last"].map(|name| Field::new(name, DataType::Int64, false));
        let counts = ["#rows", "#seen", "#born"].map(|name| Field::new(name, DataType::UInt64, false));
        let keys = self.key_schema.fields().iter().map(|field| field.as_ref().clone());
        let in_doubt = Field::new("#in_doubt", DataType::Boolean, false);
        Arc::new(Schema::new(keys.chain(times).chain(counts).chain([in_doubt]).collect::<Vec<_>>()))
    }

    fn sums_schema(&self) -> Result<SchemaRef> {
        let mut fields = vec![Field::new(WINDOW, DataType::UInt32, false)];
        fields.extend(self.adder.rest_fields()?);
        Ok(Arc::new(Schema::new(fields)))
    }

    fn take_over(&mut self, windows: &RecordBatch, sums: Option<&RecordBatch>, misfits: &mut Vec<String>) -> Result<()> {
        let missing = || DataFusionError::Internal("sealed windows without their bounds".into());
        let time = |name: &str| windows.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>().cloned()).ok_or_else(missing);
        let count = |name: &str| windows.column_by_name(name).and_then(|c| c.as_primitive_opt::<UInt64Type>().cloned()).ok_or_else(missing);
        let (first, last) = (time("#first")?, time("#last")?);
        let (rows, seen, born) = (count("#rows")?, count("#seen")?, count("#born")?);
        let in_doubt = windows.column_by_name("#in_doubt").and_then(|column| column.as_boolean_opt());
        let mut of_window = sums.map(|sums| self.sums_by_window(sums, misfits)).transpose()?.unwrap_or_default();
        let keys: Vec<ArrayRef> = windows.columns().iter().take(self.key_schema.fields().len()).cloned().collect();
        for (window, group) in self.cutter.find_keys(&keys, windows.num_rows())?.into_iter().enumerate() {
            let sums = u32::try_from(window).ok().and_then(|window| of_window.remove(&window));
            let mut content = Parts { sums, ..Parts::default() };
            if content.sums.is_some() {
                content.keys = keys.iter().map(|key| ScalarValue::try_from_array(key, window)).collect::<Result<_>>()?;
            }
            self.settle(&mut content, &Arrived { keys: Vec::new(), addends: Addends::concat(Vec::new())?, places: Vec::new() })?;
            let open = Open {
                first: first.value(window),
                last: last.value(window),
                rows: usize::try_from(rows.value(window)).unwrap_or(usize::MAX),
                born: born.value(window),
                in_doubt: in_doubt.is_some_and(|in_doubt| in_doubt.value(window)),
                content,
            };
            self.cutter.arrived = self.cutter.arrived.max(born.value(window));
            if let Some(partition) = self.cutter.partitions.get_mut(group) {
                partition.seen = seen.value(window);
                partition.open.push_back(open);
            }
        }
        self.cutter.find_ends();
        Ok(())
    }

    fn sums_by_window(&self, sums: &RecordBatch, misfits: &mut Vec<String>) -> Result<BTreeMap<u32, Sums>> {
        let states: Vec<Option<Vec<ArrayRef>>> = self.adder.calls().iter().map(|call| call.find_state(sums)).collect::<Result<_>>()?;
        for (call, _) in self.adder.calls().iter().zip(&states).filter(|(_, state)| state.is_none()) {
            misfits.push(format!("`{}` is new and starts empty in the windows that are open now", call.fingerprint()));
        }
        let missing = || DataFusionError::Internal("sealed sums without their windows".into());
        let column = sums.column_by_name(WINDOW).cloned().ok_or_else(missing)?;
        let windows = column.as_primitive_opt::<UInt32Type>().cloned().ok_or_else(missing)?;
        let keys: Vec<ArrayRef> = sums.columns().iter().skip(1).take(self.adder.key_fields().count()).cloned().collect();
        let mut of_window = BTreeMap::new();
        for range in partition(&[column])?.ranges() {
            let slice = |columns: &Vec<ArrayRef>| columns.iter().map(|column| column.slice(range.start, range.len())).collect::<Vec<_>>();
            let states: Vec<_> = states.iter().map(|state| state.as_ref().map(&slice)).collect();
            of_window.insert(windows.value(range.start), self.adder.restore(range.len(), &slice(&keys), &states)?);
        }
        Ok(of_window)
    }
}

impl Operator for RowWindowAggregate {
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
        let mut done = Vec::new();
        if !rows.is_empty() {
            self.absorb(&rows, pass, &mut done)?;
        }
        self.cutter.end_sessions(pass, &mut done);
        let rows = self.give(done, pass.out)?;
        self.cutter.expire(pass);
        self.let_go();
        self.cutter.tidy()?;
        Ok(rows)
    }

    fn explain(&self) -> String {
        let mut between = String::new();
        visit(&*self.between, &mut |operator| {
            if !operator.inputs().is_empty() {
                between = format!("{between}, then {}", operator.explain());
            }
        });
        format!("aggregate {}{between}: {}", self.fingerprint, self.adder.explain())
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        matches!(self.cutter.cut, Cut::Gap(_)) || self.cutter.ttl_ns.is_some()
    }

    /// The start of a window may be any time ago.
    fn delay_ns(&self) -> i64 {
        i64::MAX
    }

    fn end_delay_ns(&self) -> i64 {
        self.delay_ns
    }

    fn deadline(&self) -> Option<i64> {
        self.cutter.deadline()
    }

    fn held(&self) -> Held {
        Held { bytes: self.held.bytes + self.cutter.bytes(), ..self.held }
    }

    fn shed(&mut self) -> Result<usize> {
        self.cutter.shed()?;
        Ok(self.let_go())
    }

    /// The windows, with their keys, and what they add up to so far, by the number of the window. The watermark is the last time of a session
    /// that was given up.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let schema = self.sums_schema()?;
        let (mut keys, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows, mut counts, mut born) = (Vec::new(), Vec::new(), Vec::new());
        let (mut in_doubt, mut sums) = (Vec::new(), Vec::new());
        for (number, (key, seen, open)) in (0_u32..).zip(self.cutter.take_open()) {
            keys.push(key as u64);
            first.push(open.first);
            last.push(open.last);
            rows.push(open.rows as u64);
            counts.push(seen);
            born.push(open.born);
            in_doubt.push(open.in_doubt);
            if let Some(open) = open.content.sums {
                let rest = open.rest()?;
                let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(vec![number; rest.rows]))];
                columns.extend(rest.columns());
                sums.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
            }
        }
        let is_empty = keys.is_empty();
        let mut columns = self.cutter.keys.columns(&UInt64Array::from(keys))?;
        self.cutter.keys.clear()?;
        self.held = Held::default();
        columns.extend([first, last].map(|times| Arc::new(Int64Array::from(times)) as ArrayRef));
        columns.extend([rows, counts, born].map(|counts| Arc::new(UInt64Array::from(counts)) as ArrayRef));
        columns.push(Arc::new(BooleanArray::from(in_doubt)));
        let batch = if is_empty { None } else { Some(RecordBatch::try_new(self.windows_schema(), columns)?) };
        let sums = if sums.is_empty() { None } else { Some(concat_batches(&schema, &sums)?) };
        Ok(vec![
            SealedState { fingerprint: self.fingerprint.clone(), watermark: self.cutter.forgotten_to, batch },
            SealedState { fingerprint: self.sums_fingerprint(), watermark: i64::MIN, batch: sums },
        ])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let mut take = |fingerprint: &str| {
            let at = state.iter().position(|sealed| sealed.fingerprint == fingerprint)?;
            Some(state.remove(at))
        };
        let (windows, sums) = (take(&self.fingerprint), take(&self.sums_fingerprint()).and_then(|sums| sums.batch));
        let Some(windows) = windows else { return Ok(()) };
        self.cutter.forgotten_to = windows.watermark;
        match windows.batch {
            Some(windows) => self.take_over(&windows, sums.as_ref(), misfits),
            None => Ok(()),
        }
    }
}
