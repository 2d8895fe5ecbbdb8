//! Aggregates over windows that end by their rows: rows are added up before their window ends, and only the
//! sums wait for the end.
//!
//! See [`WindowSums`] for when.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::accumulate::Adder;
use super::cutting::{Cut, Cutter};
use super::partition::{Done, Open, leave_out_rests};
use super::time_window::{window_time, with_bounds};
use super::window_sums::{Parts, WindowSums};
use super::{AggregateCall, Chunk, GroupColumn, Held, Operator, Pass, each_evaluable, visit};
use crate::rule::{Emissions, SealedState};
use crate::sql::operators::at_rest::{columns_of, take_state};

/// The name under which rows that have been cut into windows enter what stands between window and aggregate.
pub(in crate::sql) const CUT_ROWS: &str = "#cut rows";

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
    group_keys: Vec<GroupKey>,
    sums: WindowSums,
    schema: SchemaRef,
    key_schema: SchemaRef,
    delay_ns: i64,
}

impl std::fmt::Debug for RowWindowAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowWindowAggregate").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
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
        let (mut group_keys, mut of_rows) = (Vec::new(), Vec::new());
        for (key, of_partition) in groups.keys.into_iter().zip(groups.of_partition) {
            group_keys.push(of_partition.map_or(GroupKey::OfRow(of_rows.len()), GroupKey::OfPartition));
            if of_partition.is_none() {
                of_rows.push(key);
            }
        }
        Ok(Self {
            sums: WindowSums::new(Adder::new(of_rows, calls))?,
            cutter: Cutter::new(window.cut, partition, Arc::clone(&key_schema), delay_ns)?,
            input: window.input,
            fingerprint,
            between,
            cut_schema: window.schema,
            columns: groups.columns,
            group_keys,
            schema,
            key_schema,
            delay_ns,
        })
    }

    /// Takes rows through what stands between window and aggregate. Returns for each the number under which
    /// it waits; `None`: it has not come through.
    fn arrive(&mut self, rows: &Chunk, pass: &mut Pass<'_>) -> Result<Vec<Option<u32>>> {
        // Nothing looks at the bounds, which are not known yet.
        let nowhere = vec![0; rows.len()];
        let cut = with_bounds(
            Chunk { batch: rows.batch.clone(), causes: None },
            nowhere.clone(),
            nowhere,
            &self.cut_schema,
        )?;
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
        let mut numbers = vec![None; rows.len()];
        each_evaluable(&passed, pass.out, &mut |passed| {
            let first = self.sums.push(&passed.batch)?;
            for (number, row) in (first..).zip(passed.causes()) {
                if let Some(place) = numbers.get_mut(row as usize) {
                    *place = Some(number);
                }
            }
            Ok(())
        });
        Ok(numbers)
    }

    /// Adds rows to their windows.
    fn absorb(&mut self, rows: &Chunk, pass: &mut Pass<'_>, done: &mut Vec<Done<Parts>>) -> Result<()> {
        let mut keyed = Vec::with_capacity(1);
        each_evaluable(rows, pass.out, &mut |rows| {
            keyed.push(self.cutter.prepare(rows)?);
            Ok(())
        });
        for part in keyed {
            let numbers = self.arrive(&part.chunk, pass)?;
            let number = |row: usize| numbers.get(row).copied().flatten();
            let dropped = self.cutter.absorb(&part, number, pass, self.input.gives_input_rows(), done)?;
            self.sums.drop_rows(dropped);
        }
        Ok(())
    }

    /// Adds up what waits for windows that have much of it.
    fn settle_touched(&mut self) -> Result<()> {
        let mut due = Vec::new();
        for key in self.cutter.take_touched() {
            let open =
                self.cutter.partitions.get_mut(key).into_iter().flat_map(|partition| &mut partition.open);
            for (at, open) in open.enumerate().filter(|(_, open)| open.content.are_many()) {
                due.push((key, at, std::mem::take(&mut open.content)));
            }
        }
        self.sums.settle(due.iter_mut().map(|(.., parts)| parts).collect())?;
        for (key, at, parts) in due {
            if let Some(open) =
                self.cutter.partitions.get_mut(key).and_then(|partition| partition.open.get_mut(at))
            {
                open.content = parts;
            }
        }
        Ok(())
    }

    /// Lets go of windows that have been given up. Returns how many they were.
    fn let_go(&mut self) -> usize {
        let windows = std::mem::take(&mut self.cutter.given_up);
        let gone = windows.len();
        windows.into_iter().for_each(|window| self.sums.let_go(window.content));
        gone
    }

    fn tidy_sums(&mut self) -> Result<()> {
        let open = self.cutter.partitions.iter_mut().flat_map(|partition| &mut partition.open);
        self.sums.tidy(open.map(|open| &mut open.content).collect())
    }

    /// The rows of windows that are complete.
    fn give(&mut self, mut done: Vec<Done<Parts>>, out: &mut Emissions) -> Result<Chunk> {
        let rests = leave_out_rests(&mut done);
        out.forgotten += rests.len() as u64;
        rests.into_iter().for_each(|window| self.sums.let_go(window.content));
        if done.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        // Where two close with the same row, the one that ended first comes first, then the one that began to
        // arrive first.
        done.sort_by_key(|window| (window.cause, window.end, window.born));
        let parts = done.iter_mut().map(|window| std::mem::take(&mut window.content)).collect();
        let results = self.sums.results(parts)?;
        if results.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        let mut columns = results.into_iter();
        let numbers = columns.next().and_then(|numbers| numbers.as_primitive_opt::<UInt32Type>().cloned());
        let numbers =
            numbers.ok_or_else(|| DataFusionError::Internal("results without their windows".into()))?;
        let windows: Vec<&Done<Parts>> =
            numbers.values().iter().filter_map(|number| done.get(*number as usize)).collect();
        let of_rows: Vec<ArrayRef> =
            columns.by_ref().take(self.sums.adder().key_schema().fields().len()).collect();
        let partitions: Vec<u32> =
            windows.iter().map(|window| u32::try_from(window.key).unwrap_or(u32::MAX)).collect();
        let of_partitions = self.cutter.keys.columns(&partitions)?;
        let times = |time: fn(&Done<Parts>) -> i64| {
            let times = TimestampNanosecondArray::from_iter_values(windows.iter().map(|window| time(window)));
            Arc::new(times.with_timezone("UTC")) as ArrayRef
        };
        let group = |column: &GroupColumn| match column {
            GroupColumn::Start => Some(times(|window| window.start)),
            GroupColumn::End => Some(times(|window| window.end)),
            GroupColumn::Time => Some(times(|window| window_time(window.end))),
            GroupColumn::Key(key) => match self.group_keys.get(*key)? {
                GroupKey::OfPartition(key) => of_partitions.get(*key).cloned(),
                GroupKey::OfRow(key) => of_rows.get(*key).cloned(),
            },
        };
        let groups = self.columns.iter().map(group).collect::<Option<Vec<_>>>();
        let groups = groups.ok_or_else(|| DataFusionError::Internal("a group column is missing".into()))?;
        let batch =
            RecordBatch::try_new(Arc::clone(&self.schema), groups.into_iter().chain(columns).collect())?;
        Ok(Chunk { batch, causes: Some(windows.iter().map(|window| window.cause).collect()) })
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

    fn take_over(
        &mut self,
        windows: &RecordBatch,
        sums: Option<&RecordBatch>,
        misfits: &mut Vec<String>,
    ) -> Result<()> {
        let missing = || DataFusionError::Internal("sealed windows without their bounds".into());
        let time = |name: &str| {
            windows
                .column_by_name(name)
                .and_then(|c| c.as_primitive_opt::<Int64Type>().cloned())
                .ok_or_else(missing)
        };
        let count = |name: &str| {
            windows
                .column_by_name(name)
                .and_then(|c| c.as_primitive_opt::<UInt64Type>().cloned())
                .ok_or_else(missing)
        };
        let (first, last) = (time("#first")?, time("#last")?);
        let (rows, seen, born) = (count("#rows")?, count("#seen")?, count("#born")?);
        let in_doubt = windows.column_by_name("#in_doubt").and_then(|column| column.as_boolean_opt());
        let Some(keys) = columns_of(windows.columns(), self.key_schema.fields()) else {
            misfits.push(format!("`{}` has keys of other types now and starts empty", self.fingerprint));
            return Ok(());
        };
        let mut of_window =
            sums.map(|sums| self.sums.restore(sums, misfits)).transpose()?.unwrap_or_default();
        for (window, group) in self.cutter.find_keys(&keys, windows.num_rows())?.into_iter().enumerate() {
            let sums = u32::try_from(window).ok().and_then(|window| of_window.remove(&window));
            let mut content = Parts::new(sums);
            self.sums.remember(&mut content);
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
                self.cutter.open += 1;
            }
        }
        self.cutter.find_ends();
        Ok(())
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
        self.settle_touched()?;
        self.cutter.end_sessions(pass, &mut done);
        let rows = self.give(done, pass.out)?;
        self.cutter.expire(pass);
        self.let_go();
        if self.sums.is_untidy(self.cutter.open) {
            self.tidy_sums()?;
        }
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
        format!("aggregate {}{between}: {}", self.fingerprint, self.sums.adder().explain())
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
        let held = self.sums.held(self.cutter.open);
        Held { bytes: held.bytes + self.cutter.bytes(), ..held }
    }

    fn shed(&mut self) -> Result<usize> {
        self.cutter.shed()?;
        let windows = self.let_go();
        self.tidy_sums()?;
        Ok(windows)
    }

    /// The windows, with their keys, and what they add up to so far, by the number of the window. The
    /// watermark is the last time of a session that was given up.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let (mut keys, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows, mut counts, mut born) = (Vec::new(), Vec::new(), Vec::new());
        let (mut in_doubt, mut parts) = (Vec::new(), Vec::new());
        for (key, seen, open) in self.cutter.take_open() {
            keys.push(u32::try_from(key).unwrap_or(u32::MAX));
            first.push(open.first);
            last.push(open.last);
            rows.push(open.rows as u64);
            counts.push(seen);
            born.push(open.born);
            in_doubt.push(open.in_doubt);
            parts.push(open.content);
        }
        let batch = if keys.is_empty() {
            None
        } else {
            let mut columns = self.cutter.keys.columns(&keys)?;
            columns.extend([first, last].map(|times| Arc::new(Int64Array::from(times)) as ArrayRef));
            columns
                .extend([rows, counts, born].map(|counts| Arc::new(UInt64Array::from(counts)) as ArrayRef));
            columns.push(Arc::new(BooleanArray::from(in_doubt)));
            Some(RecordBatch::try_new(self.windows_schema(), columns)?)
        };
        let states = self.sums.states(parts)?;
        let sums = if states.is_empty() {
            None
        } else {
            Some(RecordBatch::try_new(self.sums.state_schema()?, states)?)
        };
        self.sums.clear()?;
        self.cutter.keys.clear()?;
        Ok(vec![
            SealedState { fingerprint: self.fingerprint.clone(), watermark: self.cutter.forgotten_to, batch },
            SealedState { fingerprint: self.sums_fingerprint(), watermark: i64::MIN, batch: sums },
        ])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let windows = take_state(state, &self.fingerprint);
        let sums = take_state(state, &self.sums_fingerprint()).and_then(|sums| sums.batch);
        let Some(windows) = windows else { return Ok(()) };
        self.cutter.forgotten_to = windows.watermark;
        match windows.batch {
            Some(windows) => self.take_over(&windows, sums.as_ref(), misfits),
            None => Ok(()),
        }
    }
}
