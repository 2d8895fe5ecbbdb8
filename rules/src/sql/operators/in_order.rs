//! Rows in the order of event time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};

use super::row_log::RowLog;
use super::{Chunk, Held, LateCopies, Operator, Pass, an_eighth};
use crate::rule::SealedState;
use crate::sql::operators::at_rest::{column_of, take_state};

/// Keeps rows until the watermark reaches their time, and gives them in the order of their times; rows of one
/// time in order of arrival. A row that comes when the watermark is past its time is late. Rows that come in
/// order, without lateness, pass at once.
#[derive(Debug)]
pub(in crate::sql) struct InOrder {
    input: Box<dyn Operator>,
    fingerprint: String,
    time_column: usize,
    /// The length of windows, when `time_column` is the end of a row's window: the rows of a window come
    /// together when it closes.
    window_ns: Option<i64>,
    log: RowLog,
    /// by time and arrival
    waiting: BTreeMap<(i64, u64), Waiting>,
    arrivals: u64,
    passes: u64,
    /// rows of this time or before have been given up
    forgotten_to: i64,
}

#[derive(Debug)]
struct Waiting {
    /// its number in the log
    row: u32,
    /// the row of that pass that it is due to at least
    cause: u32,
    pass: u64,
}

impl InOrder {
    /// `time_column` holds the time.
    pub(in crate::sql) fn new(input: Box<dyn Operator>, time_column: usize) -> Self {
        let types = input.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        Self {
            fingerprint: format!("IN ORDER({})", input.origin()),
            input,
            time_column,
            window_ns: None,
            log: RowLog::new(types),
            waiting: BTreeMap::new(),
            arrivals: 0,
            passes: 0,
            forgotten_to: i64::MIN,
        }
    }

    /// `end_column` holds the end of the row's window, which is up to `size_ns` long. Rows of a window that
    /// has closed are late.
    pub(in crate::sql) fn until_closed(input: Box<dyn Operator>, end_column: usize, size_ns: i64) -> Self {
        let fingerprint = format!("UNTIL CLOSED({})", input.origin());
        Self { fingerprint, window_ns: Some(size_ns), ..Self::new(input, end_column) }
    }

    /// Whether a row of the time `ts`, which is due `delay_ns` later, is late when the watermark before it is
    /// `before`.
    fn is_late(&self, before: i64, ts: i64, delay_ns: i64) -> bool {
        let due = ts.saturating_add(delay_ns);
        let is_over = if self.window_ns.is_some() { before >= due } else { before > due };
        is_over || (ts <= self.forgotten_to && self.forgotten_to > i64::MIN)
    }

    /// Whether no row has to wait, as things are.
    fn passes_at_once(
        &self,
        rows: &Chunk,
        times: &dyn Fn(usize) -> Option<i64>,
        pass: &Pass<'_>,
        delay_ns: i64,
    ) -> bool {
        let mut last = i64::MIN;
        self.waiting.is_empty()
            && (0..rows.len()).all(|row| {
                let Some(ts) = times(row) else { return false };
                let (cause, due) = (rows.cause(row), ts.saturating_add(delay_ns));
                let in_order = ts >= std::mem::replace(&mut last, ts);
                in_order && !self.is_late(pass.before(cause), ts, delay_ns) && pass.after(cause) >= due
            })
    }

    /// The rows whose time has come.
    fn release(&mut self, pass: &Pass<'_>, delay_ns: i64) -> Result<Chunk> {
        let mut due: Vec<(u32, Option<u32>)> = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            let Some(by) = pass.reached(first.key().0.saturating_add(delay_ns)) else { break };
            let Waiting { row, cause, pass } = first.remove();
            due.push((if pass == self.passes { by.max(cause) } else { by }, Some(row)));
        }
        // Stable: within a cause by time and arrival.
        due.sort_by_key(|(cause, _)| *cause);
        let (causes, rows): (Vec<u32>, Vec<Option<u32>>) = due.into_iter().unzip();
        if rows.is_empty() {
            return Ok(Chunk::empty(self.input.schema()));
        }
        let batch = RecordBatch::try_new(Arc::clone(self.input.schema()), self.log.gather_all(&rows)?)?;
        Ok(Chunk { batch, causes: Some(causes) })
    }

    fn wait(&mut self, ts: i64, row: u32, cause: u32) {
        self.waiting.insert((ts, self.arrivals), Waiting { row, cause, pass: self.passes });
        self.arrivals += 1;
    }
}

impl Operator for InOrder {
    fn schema(&self) -> &SchemaRef {
        self.input.schema()
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        let delay_ns = self.input.delay_ns();
        if !rows.is_empty() {
            let column = rows
                .batch
                .columns()
                .get(self.time_column)
                .and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
            let column = column.ok_or_else(|| {
                DataFusionError::Internal("rows without a time came to be put in order".into())
            })?;
            let times = |row: usize| column.is_valid(row).then(|| column.value(row));
            if self.passes_at_once(&rows, &times, pass, delay_ns) {
                return Ok(rows);
            }
            self.passes += 1;
            let mut late = LateCopies::new(self.input.gives_input_rows());
            let first = self.log.push(rows.batch.columns().to_vec(), rows.len())?;
            for (row, number) in (0..rows.len()).zip(first..) {
                let cause = rows.cause(row);
                let Some(ts) = times(row) else {
                    pass.out.bad("a row has no time by which it could be put in order".into());
                    continue;
                };
                let is_late = self.is_late(pass.before(cause), ts, delay_ns);
                late.note(cause, is_late);
                if !is_late {
                    self.wait(ts, number, cause);
                }
            }
            late.tell(pass);
        } else {
            self.passes += 1;
        }
        let due = self.release(pass, delay_ns)?;
        if pass.ends {
            self.forgotten_to = i64::MIN;
        }
        if self.log.wants_packing() {
            self.log.pack(self.waiting.values_mut().map(|waiting| &mut waiting.row), false)?;
        }
        Ok(due)
    }

    fn explain(&self) -> String {
        let name = self.schema().fields().get(self.time_column).map_or("", |field| field.name());
        if self.window_ns.is_some() {
            "until their window closes".to_owned()
        } else {
            format!("in the order of {name}")
        }
    }

    fn is_timed(&self) -> bool {
        true
    }

    fn delay_ns(&self) -> i64 {
        self.input.delay_ns().saturating_add(self.window_ns.unwrap_or(0))
    }

    fn deadline(&self) -> Option<i64> {
        self.waiting.first_key_value().map(|((ts, _), _)| ts.saturating_add(self.input.delay_ns()))
    }

    fn held(&self) -> Held {
        // The nodes of a tree to whose end rows come are half full.
        let entry = 2 * size_of::<((i64, u64), Waiting)>();
        Held { entries: self.waiting.len(), bytes: self.log.bytes() + self.waiting.len() * entry }
    }

    /// Rows of one time go together: they may be those of a window.
    fn shed(&mut self) -> Result<usize> {
        let before = self.waiting.len();
        let last = self.waiting.keys().nth(an_eighth(before).saturating_sub(1)).map(|(ts, _)| *ts);
        let Some(last) = last else { return Ok(0) };
        self.forgotten_to = last;
        self.waiting = match last.checked_add(1) {
            Some(next) => self.waiting.split_off(&(next, 0)),
            None => BTreeMap::new(),
        };
        self.log.pack(self.waiting.values_mut().map(|waiting| &mut waiting.row), true)?;
        Ok(before - self.waiting.len())
    }

    /// The rows that wait, in order. The watermark is the time up to which rows have been given up.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let rows: Vec<Option<u32>> =
            std::mem::take(&mut self.waiting).values().map(|waiting| Some(waiting.row)).collect();
        let batch = match rows.as_slice() {
            [] => None,
            rows => Some(RecordBatch::try_new(Arc::clone(self.input.schema()), self.log.gather_all(rows)?)?),
        };
        self.log.pack(std::iter::empty(), true)?;
        Ok(vec![SealedState { fingerprint: self.fingerprint.clone(), watermark: self.forgotten_to, batch }])
    }

    /// A column that the rows have not is null in them.
    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let Some(SealedState { watermark, batch, .. }) = take_state(state, &self.fingerprint) else {
            return Ok(());
        };
        self.forgotten_to = watermark;
        let Some(batch) = batch else { return Ok(()) };
        let mut columns: Vec<ArrayRef> = Vec::new();
        for field in self.input.schema().fields() {
            match column_of(&batch, field.name(), field.data_type()) {
                Some(column) => columns.push(column),
                None => {
                    misfits.push(format!(
                        "`{}` is new and null in the rows that wait for their turn",
                        field.name()
                    ));
                    columns.push(new_null_array(field.data_type(), batch.num_rows()));
                }
            }
        }
        let times = columns
            .get(self.time_column)
            .and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>())
            .cloned();
        let first = self.log.push(columns, batch.num_rows())?;
        for (ts, row) in times.iter().flatten().zip(first..) {
            if let Some(ts) = ts {
                self.wait(ts, row, 0);
            }
        }
        Ok(())
    }
}
