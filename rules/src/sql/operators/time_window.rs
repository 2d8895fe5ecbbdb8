//! Which windows of the clock a row is in.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use tidegate_core::TS;

use super::stateless::row_by_row;
use super::{Chunk, Columns, Operator, Pass, times};
use crate::sql::table_functions::WINDOW_TIME_NS;
use crate::sql::windows::TimeWindows;

/// Adds `window_start`, `window_end` and `window_time` behind the columns. A row that is in several windows
/// comes once for each, in their order; one that is in none does not come.
#[derive(Debug)]
pub(in crate::sql) struct TimeWindow {
    input: Box<dyn Operator>,
    windows: TimeWindows,
    columns: Columns,
}

impl TimeWindow {
    pub(in crate::sql) fn new(input: Box<dyn Operator>, windows: TimeWindows, schema: SchemaRef) -> Self {
        Self { input, windows, columns: Columns::new(schema) }
    }

    fn assign(&self, chunk: &Chunk) -> Result<Chunk> {
        let times = times(&chunk.batch, TS)?;
        if self.windows.are_panes() {
            let mut window = (0, 0);
            let window_of = |ts: &i64| {
                // Most rows are in the window of the row before.
                if !(window.0..window.1).contains(ts) {
                    window = self.windows.last(*ts);
                }
                window
            };
            let (starts, ends) = times.iter().map(window_of).unzip();
            return with_bounds(chunk.clone(), starts, ends, self.columns.schema());
        }
        let (mut rows, mut starts, mut ends) = (Vec::with_capacity(times.len()), Vec::new(), Vec::new());
        for (row, ts) in (0_u32..).zip(times) {
            for (start, end) in self.windows.of(*ts) {
                rows.push(row);
                starts.push(start);
                ends.push(end);
            }
        }
        with_bounds(chunk.take(rows)?, starts, ends, self.columns.schema())
    }
}

/// The rows with the bounds of their windows behind the columns.
pub(super) fn with_bounds(
    chunk: Chunk,
    starts: Vec<i64>,
    ends: Vec<i64>,
    schema: &SchemaRef,
) -> Result<Chunk> {
    let mut columns = chunk.batch.columns().to_vec();
    let times = ends.iter().map(|end| window_time(*end)).collect();
    columns.extend(
        [starts, ends, times]
            .map(|times| Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")) as ArrayRef),
    );
    Ok(Chunk { batch: RecordBatch::try_new(Arc::clone(schema), columns)?, causes: chunk.causes })
}

/// The event time of a window that ends at `end`.
pub(super) fn window_time(end: i64) -> i64 {
    end.saturating_sub(WINDOW_TIME_NS)
}

impl Operator for TimeWindow {
    fn schema(&self) -> &SchemaRef {
        self.columns.schema()
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        row_by_row(&self.columns, rows, pass, &mut |rows| self.assign(rows))
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn gives_input_rows(&self) -> bool {
        self.input.gives_input_rows()
    }

    fn explain(&self) -> String {
        format!("windows {}", self.windows.describe(&self.input.origin()))
    }

    fn end_delay_ns(&self) -> i64 {
        self.input.delay_ns()
    }
}
