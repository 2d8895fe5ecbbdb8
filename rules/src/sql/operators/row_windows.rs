//! Windows that end by their rows: `SESSION`, `COUNT_WINDOW` and `STATE_WINDOW`. Rows wait until their window is known, and then come all
//! together, in order of arrival, with the bounds of the window.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::TS;

use super::kept_rows::{KeptRows, Keys};
use super::time_window::with_bounds;
use super::{Chunk, Held, Operator, Pass, each_evaluable, evaluate_all, times};
use crate::rule::SealedState;

/// The names of the columns of state that are no columns of the rows.
const WINDOW: &str = "#window";
const SEEN: &str = "#seen";

/// What ends a window.
#[derive(Debug)]
pub(in crate::sql) enum Cut {
    /// so many nanoseconds without a row
    Gap(i64),
    /// so many rows; the next window ends `every` rows later
    Rows { size: usize, every: u64 },
    /// a condition; another one opens the next
    State { open: Arc<dyn PhysicalExpr>, close: Arc<dyn PhysicalExpr> },
}

/// The operator.
#[derive(Debug)]
pub(in crate::sql) struct RowWindows {
    input: Box<dyn Operator>,
    fingerprint: String,
    cut: Cut,
    partition: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    delay_ns: i64,
    keys: Keys,
    /// by the index of their key
    partitions: Vec<Partition>,
    rows: KeptRows,
    /// partitions with sessions, by a time not after the end of the session that ends first
    ends: BinaryHeap<Reverse<(i64, usize)>>,
    groups: Vec<usize>,
    /// how many partitions there may be before those are forgotten that wait for nothing
    tidy_at: usize,
}

/// How many keys are kept at least before any is forgotten.
const FEW: usize = 64;

/// The windows of one key that wait for more.
#[derive(Debug, Default)]
struct Partition {
    /// those that go by time, apart from each other; else one at most
    open: VecDeque<Open>,
    /// rows so far, where they are counted
    seen: u64,
}

impl Partition {
    fn is_idle(&self, cut: &Cut) -> bool {
        let between = match cut {
            Cut::Rows { every, .. } => self.seen % every == 0,
            Cut::Gap(_) | Cut::State { .. } => true,
        };
        self.open.is_empty() && between
    }
}

/// A window that waits for more rows.
#[derive(Debug)]
struct Open {
    /// least and greatest `ts`
    first: i64,
    last: i64,
    /// in order of arrival
    rows: VecDeque<u32>,
}

impl Open {
    fn push(&mut self, row: u32, ts: i64) {
        self.first = self.first.min(ts);
        self.last = self.last.max(ts);
        self.rows.push_back(row);
    }
}

/// A window that is complete.
struct Done {
    cause: u32,
    start: i64,
    end: i64,
    rows: Vec<u32>,
}

/// Rows whose expressions have been evaluated.
struct Prepared {
    chunk: Chunk,
    keys: Vec<ArrayRef>,
    conditions: Option<[BooleanArray; 2]>,
}

impl RowWindows {
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        fingerprint: String,
        cut: Cut,
        partition: Vec<(Arc<dyn PhysicalExpr>, Field)>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let (partition, fields): (Vec<_>, Vec<_>) = partition.into_iter().unzip();
        Ok(Self {
            delay_ns: input.delay_ns(),
            rows: KeptRows::new(Arc::clone(input.schema())),
            input,
            fingerprint,
            cut,
            partition,
            schema,
            keys: Keys::new(Arc::new(Schema::new(fields)))?,
            partitions: Vec::new(),
            ends: BinaryHeap::new(),
            groups: Vec::new(),
            tidy_at: FEW,
        })
    }

    fn prepare(&self, chunk: &Chunk) -> Result<Prepared> {
        let condition = |expr: &Arc<dyn PhysicalExpr>| {
            let value = expr.evaluate(&chunk.batch)?.into_array(chunk.len())?;
            value.as_boolean_opt().cloned().ok_or_else(|| DataFusionError::Plan("not a condition".into()))
        };
        let conditions = match &self.cut {
            Cut::State { open, close } => Some([condition(open)?, condition(close)?]),
            Cut::Gap(_) | Cut::Rows { .. } => None,
        };
        Ok(Prepared { chunk: chunk.clone(), keys: evaluate_all(&self.partition, &chunk.batch)?, conditions })
    }

    /// Adds rows to their windows.
    fn absorb(&mut self, rows: &Prepared, pass: &mut Pass<'_>, done: &mut Vec<Done>) -> Result<()> {
        let mut groups = std::mem::take(&mut self.groups);
        self.keys.intern(&rows.keys, rows.chunk.len(), &mut groups)?;
        self.partitions.resize_with(self.keys.len().max(self.partitions.len()), Partition::default);
        let times = times(&rows.chunk.batch, TS)?;
        let first = self.rows.push(rows.chunk.batch.clone());
        for (at, (ts, group)) in times.iter().zip(&groups).enumerate() {
            let Some(partition) = self.partitions.get_mut(*group) else { continue };
            let row = first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            let cause = rows.chunk.cause(at);
            match &self.cut {
                Cut::Gap(gap) => {
                    let closes = |last: i64| last.saturating_add(*gap).saturating_add(self.delay_ns);
                    let before = pass.before(cause);
                    if before >= closes(*ts) {
                        pass.too_late(cause, self.input.gives_input_rows());
                        self.rows.drop_rows(1);
                        continue;
                    }
                    // Where there was a session, there is an entry that is not after its end.
                    let known = partition.open.front().map(|open| closes(open.last));
                    partition.end_sessions(*gap, &mut |open| pass.reached(closes(open.last)).filter(|_| closes(open.last) <= before), done);
                    partition.extend_session(*gap, row, *ts);
                    let end = partition.open.front().map(|open| closes(open.last));
                    if let Some(end) = end.filter(|end| known.is_none_or(|known| *end < known)) {
                        self.ends.push(Reverse((end, *group)));
                    }
                }
                Cut::Rows { size, every } => {
                    partition.seen += 1;
                    if partition.open.is_empty() {
                        partition.open.push_back(Open { first: *ts, last: *ts, rows: VecDeque::new() });
                    }
                    let Some(open) = partition.open.front_mut() else { continue };
                    open.rows.push_back(row);
                    if open.rows.len() > *size {
                        open.rows.pop_front();
                        self.rows.drop_rows(1);
                    }
                    if partition.seen % every == 0 && open.rows.len() == *size {
                        done.push(Done { cause, start: i64::MAX, end: i64::MIN, rows: open.rows.iter().copied().collect() });
                        if *every >= *size as u64 {
                            self.rows.drop_rows(open.rows.len());
                            partition.open.clear();
                        }
                    }
                }
                Cut::State { .. } => {
                    let [opens, closes] =
                        rows.conditions.as_ref().map_or([false; 2], |both| both.each_ref().map(|mask| mask.is_valid(at) && mask.value(at)));
                    if partition.open.is_empty() && !opens {
                        self.rows.drop_rows(1);
                        continue;
                    }
                    match partition.open.front_mut() {
                        Some(open) => open.push(row, *ts),
                        None => partition.open.push_back(Open { first: *ts, last: *ts, rows: [row].into() }),
                    }
                    if let Some(open) = closes.then(|| partition.open.pop_front()).flatten() {
                        done.push(Done { cause, start: open.first, end: open.last, rows: open.rows.into() });
                    }
                }
            }
        }
        self.groups = groups;
        Ok(())
    }

    /// Ends the sessions that the watermark reaches.
    fn end_sessions(&mut self, pass: &Pass<'_>, done: &mut Vec<Done>) {
        let Cut::Gap(gap) = self.cut else { return };
        let closes = |last: i64| last.saturating_add(gap).saturating_add(self.delay_ns);
        while let Some(Reverse((end, group))) = self.ends.peek().copied() {
            if pass.reached(end).is_none() {
                break;
            }
            self.ends.pop();
            let Some(partition) = self.partitions.get_mut(group) else { continue };
            partition.end_sessions(gap, &mut |open| pass.reached(closes(open.last)), done);
            if let Some(open) = partition.open.front() {
                self.ends.push(Reverse((closes(open.last), group)));
            }
        }
    }

    /// The rows of complete windows, window by window.
    fn give(&mut self, mut done: Vec<Done>) -> Result<Chunk> {
        if done.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        // Where two close with the same row, the one that ended first comes first, then the one that began to arrive first.
        done.sort_by_key(|window| (window.cause, window.end, window.rows.first().copied()));
        let total = done.iter().map(|window| window.rows.len()).sum();
        let (mut rows, mut causes) = (Vec::with_capacity(total), Vec::with_capacity(total));
        for window in &done {
            rows.extend_from_slice(&window.rows);
            causes.resize(rows.len(), window.cause);
        }
        let batch = self.rows.take(rows)?;
        let (mut starts, mut ends) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let times = times(&batch, TS)?;
        for window in &done {
            let of_window = times.iter().skip(starts.len()).take(window.rows.len());
            let (start, end) = match self.cut {
                Cut::Rows { .. } => (of_window.clone().min().copied(), of_window.max().copied()),
                Cut::Gap(_) | Cut::State { .. } => (Some(window.start), Some(window.end)),
            };
            starts.resize(starts.len() + window.rows.len(), start.unwrap_or(window.start));
            ends.resize(starts.len(), end.unwrap_or(window.end));
            if !matches!(self.cut, Cut::Rows { .. }) {
                self.rows.drop_rows(window.rows.len());
            }
        }
        with_bounds(Chunk { batch, causes: Some(causes) }, starts, ends, &self.schema)
    }

    /// Frees the memory of rows and keys that are of no use any more.
    fn tidy(&mut self) -> Result<()> {
        if self.rows.is_mostly_dropped() {
            let mut used: Vec<&mut u32> =
                self.partitions.iter_mut().flat_map(|partition| &mut partition.open).flat_map(|open| &mut open.rows).collect();
            self.rows.keep_only(&mut used)?;
        }
        if self.partitions.len() >= self.tidy_at {
            let keep: Vec<bool> = self.partitions.iter().map(|partition| !partition.is_idle(&self.cut)).collect();
            self.keys.keep_only(&keep)?;
            self.partitions.retain(|partition| !partition.is_idle(&self.cut));
            self.find_ends();
            self.tidy_at = FEW.max(self.partitions.len() * 2);
        }
        Ok(())
    }

    fn find_ends(&mut self) {
        self.ends.clear();
        if let Cut::Gap(gap) = self.cut {
            let first = |(group, partition): (usize, &Partition)| {
                let end = partition.open.front()?.last.saturating_add(gap).saturating_add(self.delay_ns);
                Some(Reverse((end, group)))
            };
            self.ends = self.partitions.iter().enumerate().filter_map(first).collect();
        }
    }

    fn state_schema(&self) -> SchemaRef {
        let mut fields = vec![Field::new(WINDOW, DataType::UInt32, false), Field::new(SEEN, DataType::UInt64, false)];
        fields.extend(self.input.schema().fields().iter().map(|field| field.as_ref().clone()));
        Arc::new(Schema::new(fields))
    }

    fn take_over(&mut self, batch: &RecordBatch) -> Result<bool> {
        let columns = self.input.schema().fields().iter();
        let found =
            columns.map(|field| batch.column_by_name(field.name()).filter(|column| column.data_type() == field.data_type()).cloned());
        let windows = batch.column_by_name(WINDOW).and_then(|column| column.as_primitive_opt::<UInt32Type>().cloned());
        let seen = batch.column_by_name(SEEN).and_then(|column| column.as_primitive_opt::<UInt64Type>().cloned());
        let (Some(columns), Some(windows), Some(seen)) = (found.collect::<Option<Vec<_>>>(), windows, seen) else { return Ok(false) };
        let rows = RecordBatch::try_new(Arc::clone(self.input.schema()), columns)?;
        let mut groups = Vec::new();
        self.keys.intern(&evaluate_all(&self.partition, &rows)?, rows.num_rows(), &mut groups)?;
        self.partitions.resize_with(self.keys.len(), Partition::default);
        let times = times(&rows, TS)?.to_vec();
        let first = self.rows.push(rows);
        let mut open: BTreeMap<u32, (usize, Open)> = BTreeMap::new();
        for (at, ((ts, group), (window, seen))) in times.iter().zip(groups).zip(windows.values().iter().zip(seen.values())).enumerate() {
            let row = first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            let new = || (group, Open { first: *ts, last: *ts, rows: VecDeque::new() });
            open.entry(*window).or_insert_with(new).1.push(row, *ts);
            if let Some(partition) = self.partitions.get_mut(group) {
                partition.seen = *seen;
            }
        }
        // Windows of one key are numbered in their order.
        for (group, open) in open.into_values() {
            if let Some(partition) = self.partitions.get_mut(group) {
                partition.open.push_back(open);
            }
        }
        self.find_ends();
        Ok(true)
    }
}

impl Partition {
    /// Ends sessions, the first one first, for as long as `cause` says which row ends them.
    fn end_sessions(&mut self, gap: i64, cause: &mut dyn FnMut(&Open) -> Option<u32>, done: &mut Vec<Done>) {
        while let Some(cause) = self.open.front().and_then(&mut *cause) {
            let Some(open) = self.open.pop_front() else { return };
            done.push(Done { cause, start: open.first, end: open.last.saturating_add(gap), rows: open.rows.into() });
        }
    }

    /// Adds a row to the session that it is in, to both and all between if it joins them, or begins one.
    fn extend_session(&mut self, gap: i64, row: u32, ts: i64) {
        // The gap is as long as the session's end is away from its last row: a row at the end is not in it.
        let from = self.open.partition_point(|open| open.last.saturating_add(gap) <= ts);
        let to = self.open.partition_point(|open| open.first < ts.saturating_add(gap));
        let mut rows: Vec<u32> = Vec::new();
        let mut joined = Open { first: ts, last: ts, rows: VecDeque::new() };
        for open in self.open.drain(from.min(to)..to) {
            joined.first = joined.first.min(open.first);
            joined.last = joined.last.max(open.last);
            if rows.is_empty() && joined.rows.is_empty() { joined.rows = open.rows } else { rows.extend(open.rows) }
        }
        if !rows.is_empty() {
            rows.extend(joined.rows);
            rows.sort_unstable();
            joined.rows = rows.into();
        }
        joined.rows.push_back(row);
        self.open.insert(from.min(to), joined);
    }
}

impl Operator for RowWindows {
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
            let mut prepared = Vec::with_capacity(1);
            each_evaluable(&rows, pass.out, &mut |rows| {
                prepared.push(self.prepare(rows)?);
                Ok(())
            });
            for part in prepared {
                self.absorb(&part, pass, &mut done)?;
            }
        }
        self.end_sessions(pass, &mut done);
        let rows = self.give(done)?;
        self.tidy()?;
        Ok(rows)
    }

    fn explain(&self) -> String {
        format!("windows {}", self.fingerprint)
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        matches!(self.cut, Cut::Gap(_))
    }

    /// A window may last for ever before its rows come.
    fn delay_ns(&self) -> i64 {
        i64::MAX
    }

    fn end_delay_ns(&self) -> i64 {
        self.delay_ns
    }

    fn deadline(&self) -> Option<i64> {
        self.ends.peek().map(|Reverse((end, _))| *end)
    }

    fn held(&self) -> Held {
        Held { entries: self.rows.live(), bytes: self.rows.bytes() + self.keys.bytes() }
    }

    /// The rows that wait, each with the number of its window and how many rows its key has had.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let (mut rows, mut windows, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        let partitions = std::mem::take(&mut self.partitions);
        let open = partitions.iter().flat_map(|partition| partition.open.iter().map(|open| (partition.seen, open)));
        for (number, (count, open)) in (0_u32..).zip(open) {
            rows.extend(open.rows.iter().copied());
            windows.resize(rows.len(), number);
            seen.resize(rows.len(), count);
        }
        let batch = if rows.is_empty() {
            None
        } else {
            // In order of arrival over all windows, so that what is given later keeps its order.
            let mut order: Vec<u32> = (0_u32..).take(rows.len()).collect();
            order.sort_by_key(|at| rows.get(*at as usize).copied());
            let order = UInt32Array::from(order);
            let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(windows)), Arc::new(UInt64Array::from(seen))];
            columns.extend(self.rows.take(rows)?.columns().iter().cloned());
            Some(take_record_batch(&RecordBatch::try_new(self.state_schema(), columns)?, &order)?)
        };
        self.rows = KeptRows::new(Arc::clone(self.input.schema()));
        self.keys.clear()?;
        self.ends.clear();
        Ok(vec![SealedState { fingerprint: self.fingerprint.clone(), watermark: i64::MIN, batch }])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let Some(at) = state.iter().position(|sealed| sealed.fingerprint == self.fingerprint) else { return Ok(()) };
        let sealed = state.remove(at);
        if let Some(batch) = sealed.batch
            && !self.take_over(&batch)?
        {
            misfits.push(format!("the rows in the open windows of `{}` have other columns and are dropped", self.fingerprint));
        }
        Ok(())
    }
}
