//! Windows that end by their rows: `SESSION`, `COUNT_WINDOW` and `STATE_WINDOW`. Rows wait until their window
//! is known, and then come all together, in order of arrival, with the bounds of the window.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion_common::Result;
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::TS;

use super::cutting::{Cut, Cutter};
use super::kept_rows::KeptRows;
use super::partition::{Content, Done, Open, leave_out_rests};
use super::time_window::with_bounds;
use super::{Chunk, Held, Operator, Pass, each_evaluable, times};
use crate::rule::{Emissions, SealedState};
use crate::sql::operators::at_rest::{column_of, take_state};

/// The names of the columns of state that are no columns of the rows.
const WINDOW: &str = "#window";
const SEEN: &str = "#seen";
const IN_DOUBT: &str = "#in_doubt";

/// The operator.
#[derive(Debug)]
pub(in crate::sql) struct RowWindows {
    input: Box<dyn Operator>,
    fingerprint: String,
    schema: SchemaRef,
    delay_ns: i64,
    cutter: Cutter<Rows>,
    rows: KeptRows,
}

/// The numbers of a window's rows, in order of arrival.
type Rows = VecDeque<u32>;

impl Content for Rows {
    fn push(&mut self, row: u32) {
        self.push_back(row);
    }

    fn drop_first(&mut self) {
        self.pop_front();
    }

    fn join(&mut self, other: Self) {
        self.extend(other);
        self.make_contiguous().sort_unstable();
    }

    fn copy(&self) -> Self {
        self.clone()
    }
}

impl RowWindows {
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        fingerprint: String,
        (cut, ttl_ns): (Cut, Option<i64>),
        partition: Vec<(Arc<dyn PhysicalExpr>, Field)>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let (partition, fields): (Vec<_>, Vec<_>) = partition.into_iter().unzip();
        let delay_ns = input.delay_ns();
        Ok(Self {
            rows: KeptRows::new(Arc::clone(input.schema())),
            cutter: Cutter::new((cut, ttl_ns), partition, Arc::new(Schema::new(fields)), delay_ns)?,
            input,
            fingerprint,
            schema,
            delay_ns,
        })
    }

    /// The rows of complete windows, window by window.
    fn give(&mut self, mut done: Vec<Done<Rows>>, out: &mut Emissions) -> Result<Chunk> {
        if self.cutter.lets_go() {
            self.rows.drop_rows(done.iter().map(|window| window.rows).sum());
        }
        out.forgotten += leave_out_rests(&mut done).len() as u64;
        if done.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        // Where two close with the same row, the one that ended first comes first, then the one that began to
        // arrive first.
        done.sort_by_key(|window| (window.cause, window.end, window.born));
        let total = done.iter().map(|window| window.rows).sum();
        let (mut rows, mut causes) = (Vec::with_capacity(total), Vec::with_capacity(total));
        for window in &done {
            rows.extend(&window.content);
            causes.resize(rows.len(), window.cause);
        }
        let batch = self.rows.take(rows)?;
        let (mut starts, mut ends) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let times = times(&batch, TS)?;
        for window in &done {
            let of_window = times.iter().skip(starts.len()).take(window.rows);
            let (start, end) = match self.cutter.cut {
                // Rows may have left the window again.
                Cut::Rows { .. } => (of_window.clone().min().copied(), of_window.max().copied()),
                Cut::Gap(_) | Cut::State { .. } => (None, None),
            };
            starts.resize(starts.len() + window.rows, start.unwrap_or(window.start));
            ends.resize(starts.len(), end.unwrap_or(window.end));
        }
        with_bounds(Chunk { batch, causes: Some(causes) }, starts, ends, &self.schema)
    }

    /// Frees the memory of rows and keys that are of no use any more.
    fn tidy(&mut self, pass: &Pass<'_>) -> Result<()> {
        self.cutter.expire(pass);
        self.let_go();
        if self.rows.is_mostly_dropped() {
            self.drop_unused()?;
        }
        self.cutter.tidy()
    }

    /// Lets go of the rows of windows that have been given up. Returns how many.
    fn let_go(&mut self) -> usize {
        let rows = self.cutter.given_up.drain(..).map(|window| window.rows).sum();
        self.rows.drop_rows(rows);
        rows
    }

    fn drop_unused(&mut self) -> Result<()> {
        let open = self.cutter.partitions.iter_mut().flat_map(|partition| &mut partition.open);
        let mut used: Vec<&mut u32> = open.flat_map(|open| &mut open.content).collect();
        self.rows.keep_only(&mut used)
    }

    fn state_schema(&self) -> SchemaRef {
        let mut fields = vec![
            Field::new(WINDOW, DataType::UInt32, false),
            Field::new(SEEN, DataType::UInt64, false),
            Field::new(IN_DOUBT, DataType::Boolean, false),
        ];
        fields.extend(self.input.schema().fields().iter().map(|field| field.as_ref().clone()));
        Arc::new(Schema::new(fields))
    }

    fn take_over(&mut self, batch: &RecordBatch) -> Result<bool> {
        let columns = self.input.schema().fields().iter();
        let found = columns.map(|field| column_of(batch, field.name(), field.data_type()));
        let windows =
            batch.column_by_name(WINDOW).and_then(|column| column.as_primitive_opt::<UInt32Type>().cloned());
        let seen =
            batch.column_by_name(SEEN).and_then(|column| column.as_primitive_opt::<UInt64Type>().cloned());
        let (Some(columns), Some(windows), Some(seen)) = (found.collect::<Option<Vec<_>>>(), windows, seen)
        else {
            return Ok(false);
        };
        let in_doubt = batch.column_by_name(IN_DOUBT).and_then(|column| column.as_boolean_opt());
        let rows = RecordBatch::try_new(Arc::clone(self.input.schema()), columns)?;
        let keys = self.cutter.keys_of(&rows)?;
        let groups = self.cutter.find_keys(&keys, rows.num_rows())?;
        let times = times(&rows, TS)?.to_vec();
        let first = self.rows.push(rows);
        let mut open: BTreeMap<u32, (usize, Open<Rows>)> = BTreeMap::new();
        for (at, ((ts, group), (window, seen))) in
            times.iter().zip(groups).zip(windows.values().iter().zip(seen.values())).enumerate()
        {
            let row = first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            self.cutter.arrived += 1;
            let (_, open) =
                open.entry(*window).or_insert_with(|| (group, Open::new(*ts, self.cutter.arrived)));
            open.push(Some(row), *ts);
            open.in_doubt = in_doubt.is_some_and(|in_doubt| in_doubt.value(at));
            if let Some(partition) = self.cutter.partitions.get_mut(group) {
                partition.seen = *seen;
            }
        }
        // Windows of one key are numbered in their order.
        for (group, open) in open.into_values() {
            if let Some(partition) = self.cutter.partitions.get_mut(group) {
                partition.open.push_back(open);
                self.cutter.open += 1;
            }
        }
        self.cutter.find_ends();
        Ok(true)
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
                prepared.push(self.cutter.prepare(rows)?);
                Ok(())
            });
            for part in prepared {
                let first = self.rows.push(part.chunk.batch.clone());
                let number = |row| Some(first.saturating_add(u32::try_from(row).unwrap_or(u32::MAX)));
                let dropped =
                    self.cutter.absorb(&part, number, pass, self.input.gives_input_rows(), &mut done)?;
                self.rows.drop_rows(dropped);
            }
            self.cutter.take_touched();
        }
        self.cutter.end_sessions(pass, &mut done);
        let rows = self.give(done, pass.out)?;
        self.tidy(pass)?;
        Ok(rows)
    }

    fn explain(&self) -> String {
        format!("windows {}", self.fingerprint)
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        matches!(self.cutter.cut, Cut::Gap(_)) || self.cutter.ttl_ns.is_some()
    }

    /// A window may last for ever before its rows come.
    fn delay_ns(&self) -> i64 {
        i64::MAX
    }

    fn end_delay_ns(&self) -> i64 {
        self.delay_ns
    }

    fn deadline(&self) -> Option<i64> {
        self.cutter.deadline()
    }

    /// The lists of a window's rows are somewhat longer than they must be.
    fn held(&self) -> Held {
        Held {
            entries: self.rows.live(),
            bytes: self.rows.bytes() + self.cutter.bytes() + self.rows.live() * 6,
        }
    }

    fn shed(&mut self) -> Result<usize> {
        self.cutter.shed()?;
        let rows = self.let_go();
        self.drop_unused()?;
        Ok(rows)
    }

    /// The rows that wait, each with the number of its window, how many rows its key has had, and whether the
    /// window is in doubt. The watermark is the last time of a session that was given up.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let (mut rows, mut windows, mut seen, mut in_doubt) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (number, (_, count, open)) in (0_u32..).zip(self.cutter.take_open()) {
            rows.extend(open.content);
            windows.resize(rows.len(), number);
            seen.resize(rows.len(), count);
            in_doubt.resize(rows.len(), open.in_doubt);
        }
        let batch = if rows.is_empty() {
            None
        } else {
            // In order of arrival over all windows, so that what is given later keeps its order.
            let mut order: Vec<u32> = (0_u32..).take(rows.len()).collect();
            order.sort_by_key(|at| rows.get(*at as usize).copied());
            let order = UInt32Array::from(order);
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(UInt32Array::from(windows)),
                Arc::new(UInt64Array::from(seen)),
                Arc::new(BooleanArray::from(in_doubt)),
            ];
            columns.extend(self.rows.take(rows)?.columns().iter().cloned());
            Some(take_record_batch(&RecordBatch::try_new(self.state_schema(), columns)?, &order)?)
        };
        self.rows = KeptRows::new(Arc::clone(self.input.schema()));
        self.cutter.keys.clear()?;
        Ok(vec![SealedState {
            fingerprint: self.fingerprint.clone(),
            watermark: self.cutter.forgotten_to,
            batch,
        }])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let Some(sealed) = take_state(state, &self.fingerprint) else { return Ok(()) };
        self.cutter.forgotten_to = sealed.watermark;
        if let Some(batch) = sealed.batch
            && !self.take_over(&batch)?
        {
            misfits.push(format!(
                "the rows in the open windows of `{}` have other columns and are dropped",
                self.fingerprint
            ));
        }
        Ok(())
    }
}
