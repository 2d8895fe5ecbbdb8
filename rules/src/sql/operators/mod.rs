//! What a statement is made of when it runs: a tree of operators, each of which asks its inputs for rows and
//! makes rows of them.
//!
//! # The contract
//! * One call of [`Operator::run`] is one **pass**: a batch of one stream has come, or time has passed, or
//!   the input has ended. Every operator is run exactly once a pass, also when there are no rows for it, so
//!   that time reaches all of them.
//! * Every row says which row of the batch it is due to: its **cause**. Causes never decrease within a chunk.
//!   A window that closes is due to the row that moved the watermark over its end.
//! * Where batches were cut must not be visible in the rows, nor in their order, nor in the state: a pass of
//!   a thousand rows does what a thousand passes of one row do. So an operator that keeps state looks at what
//!   was so **before** each row: [`Pass::before`] for whether a row is late, [`Pass::reached`] for which row
//!   closes a window. At one cause, rows count before time does.
//! * An expression that cannot be evaluated costs its row and nothing else ([`each_evaluable`]). An error
//!   stops the rule.
//! * State has a bound: a window, an interval, or `state_ttl`; and what it takes is known, and can be given
//!   up, the oldest first ([`Operator::shed`]). What is written stays right: a window is given up whole, and
//!   a row that may have had a partner is not written alone.
//! * State has a fingerprint that says what is kept, apart from thresholds and projections, so that a new
//!   version of the rule finds it.

mod accumulate;
mod aggregate;
mod at_rest;
mod cutting;
mod groups;
mod in_order;
mod join;
mod kept_rows;
mod keys;
mod over;
mod partition;
mod pattern;
mod row_log;
mod row_window_aggregate;
mod row_windows;
mod running;
mod shared;
mod source;
mod stateless;
mod sums;
mod time_window;
mod union;
mod unnest;
mod whole_windows;
mod window_sums;
mod written;

use std::cell::OnceCell;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::{Rows, Seqs, TS};

use crate::expression::evaluate;
use crate::rule::{Emissions, SealedState, Step, When};
use crate::sql::words::failure;

pub(super) use accumulate::{AggregateCall, arguments_of};
pub(super) use aggregate::WindowAggregate;
pub(super) use cutting::Cut;
pub(super) use groups::{Bound, GroupColumn, Groups};
pub(super) use in_order::InOrder;
pub(super) use join::{
    IntervalJoin, IntervalSide, Keys, LatestJoin, LatestJoinParts, Moment, Reach, Table, TableJoin,
    TableJoinKind, TableJoinParts,
};
pub(super) use over::{
    Back, Frame, FrameAggregate, Function, Held as HeldCall, Memories, Over, OverClosed, Parts, Pick,
    Remember, Which,
};
pub(super) use pattern::{Formula, MatchAggregate, MatchRows, Recognition, Slot};
pub(super) use row_window_aggregate::{CUT_ROWS, CutWindow, RowWindowAggregate, WindowGroups};
pub(super) use row_windows::RowWindows;
pub(super) use running::{Emit, RunningAggregate};
pub(crate) use shared::SharedParts;
pub(super) use shared::{Computes, PassNumber, Shared};
pub(super) use source::Source;
pub(super) use stateless::{Filter, Project};
pub(super) use time_window::TimeWindow;
pub(super) use union::Union;
pub(super) use unnest::{Unnest, Unnested};
pub(super) use whole_windows::WholeWindows;
use written::in_words;
pub(super) use written::written;

/// A step of a statement.
pub(super) trait Operator: Debug + Send {
    /// The columns that it gives.
    fn schema(&self) -> &SchemaRef;

    /// Where its rows come from.
    fn inputs(&self) -> Vec<&dyn Operator>;

    /// The same, to be run or restored.
    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator>;

    /// One pass: runs the inputs and makes rows of theirs.
    ///
    /// # Errors
    /// When the rule cannot go on.
    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk>;

    /// What it does, in a line, for people.
    fn explain(&self) -> String;

    /// What its rows are made of, apart from thresholds and projections: the fingerprint of state above it
    /// begins with it.
    fn origin(&self) -> String {
        self.inputs().iter().map(|input| input.origin()).collect::<Vec<_>>().join(", ")
    }

    /// Whether it looks at rows one by one and keeps nothing: then nobody misses rows that come to nothing.
    fn is_row_by_row(&self) -> bool {
        false
    }

    /// Whether its rows are rows of a stream, each due to itself, though with other columns.
    fn gives_input_rows(&self) -> bool {
        false
    }

    /// Whether it looks at the watermark.
    fn is_timed(&self) -> bool {
        false
    }

    /// How much the `ts` of its rows may be behind the watermark, nanoseconds: operators above must wait for
    /// so much longer. `i64::MAX`: any time.
    fn delay_ns(&self) -> i64 {
        self.inputs().iter().map(|input| input.delay_ns()).max().unwrap_or(0)
    }

    /// How much the end of the window that its rows are of may be behind the watermark, nanoseconds.
    fn end_delay_ns(&self) -> i64 {
        self.inputs().iter().map(|input| input.end_delay_ns()).max().unwrap_or(0)
    }

    /// The watermark at which it would write something though no row comes; for itself, without its inputs.
    fn deadline(&self) -> Option<i64> {
        None
    }

    /// The sequence's time at which it would write something though no row comes; for itself, without its
    /// inputs.
    fn wakes_at(&self) -> Option<i64> {
        None
    }

    /// Itself, if others may use what is below it.
    fn shared(&self) -> Option<&Shared> {
        None
    }

    /// The same, to be changed.
    fn shared_mut(&mut self) -> Option<&mut Shared> {
        None
    }

    /// What it keeps.
    fn held(&self) -> Held {
        Held::default()
    }

    /// Gives up the oldest eighth of its entries at least, as if their time had run out and nothing were to
    /// be written for it: keys begin anew with their next row, and rows that come for a window that was given
    /// up are late. Returns how many entries they were; 0: it has none.
    ///
    /// # Errors
    /// When what is left cannot be kept.
    fn shed(&mut self) -> Result<usize> {
        Ok(0)
    }

    /// Takes its own state out, without that of its inputs, and keeps none of it; it must not run afterwards
    /// unless the state is restored.
    ///
    /// # Errors
    /// When the state cannot be given away.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        Ok(Vec::new())
    }

    /// Takes what fits out of `state`, for itself. What it cannot carry over it says in `misfits`.
    ///
    /// # Errors
    /// When state that claims to fit cannot be taken over.
    fn restore(&mut self, _state: &mut Vec<SealedState>, _misfits: &mut Vec<String>) -> Result<()> {
        Ok(())
    }
}

/// How many of so many entries are given up at once: few, so that not much more is lost than must be, and yet
/// so many that all calls together take no longer than looking at the entries a few times.
pub(super) fn an_eighth(entries: usize) -> usize {
    entries.div_ceil(8)
}

/// What an operator keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// keys, groups of open windows, or rows, whatever it counts
    pub entries: usize,
    /// about how much memory they take
    pub bytes: usize,
}

/// Rows between two operators.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub batch: RecordBatch,
    /// for each row, the row of the pass that it is due to; never decreasing. `None`: row `i` is due to row
    /// `i`
    pub causes: Option<Vec<u32>>,
}

impl Chunk {
    pub(super) fn empty(schema: &SchemaRef) -> Self {
        Self { batch: RecordBatch::new_empty(Arc::clone(schema)), causes: Some(Vec::new()) }
    }

    pub(super) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of the pass that `row` is due to.
    pub(super) fn cause(&self, row: usize) -> u32 {
        let same = u32::try_from(row).unwrap_or(u32::MAX);
        self.causes.as_ref().map_or(same, |causes| causes.get(row).copied().unwrap_or(same))
    }

    /// The causes, one a row.
    pub(super) fn causes(&self) -> Vec<u32> {
        (0..self.len()).map(|row| self.cause(row)).collect()
    }

    pub(super) fn slice(&self, offset: usize, len: usize) -> Self {
        let all = offset == 0 && len == self.len();
        let causes = if all {
            self.causes.clone()
        } else {
            Some((offset..offset + len).map(|row| self.cause(row)).collect())
        };
        Self { batch: self.batch.slice(offset, len), causes }
    }

    /// The rows with these indices.
    pub(super) fn take(&self, rows: Vec<u32>) -> Result<Self> {
        let causes = Some(rows.iter().map(|row| self.cause(*row as usize)).collect());
        Ok(Self { batch: take_record_batch(&self.batch, &UInt32Array::from(rows))?, causes })
    }

    /// All rows of `chunks`, which have the schema `schema`, one chunk after the other.
    pub(super) fn concat(schema: &SchemaRef, mut chunks: Vec<Self>) -> Result<Self> {
        match chunks.len() {
            0 => Ok(Self::empty(schema)),
            1 => Ok(chunks.remove(0)),
            _ => {
                let causes = chunks.iter().flat_map(Self::causes).collect();
                let batch = concat_batches(schema, chunks.iter().map(|chunk| &chunk.batch))?;
                Ok(Self { batch, causes: Some(causes) })
            }
        }
    }
}

/// The columns of an operator that comes to nothing in most passes. Empty columns take longer to make than
/// all else then, so they are made once, when they are first asked for.
#[derive(Debug)]
pub(super) struct Columns {
    schema: SchemaRef,
    none: OnceCell<Chunk>,
}

impl Columns {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, none: OnceCell::new() }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// No rows.
    pub(super) fn none(&self) -> Chunk {
        self.none.get_or_init(|| Chunk::empty(&self.schema)).clone()
    }
}

/// What has happened: rows of one stream have come, or time has passed.
pub(super) struct Pass<'a> {
    /// the stream and its rows. `None`: only time has passed, which counts as one row
    pub input: Option<(&'a str, &'a RecordBatch)>,
    /// the watermark before the first row, and after each; empty when no operator is timed
    pub watermarks: Vec<i64>,
    pub when: When,
    /// whether there will be no more rows
    pub ends: bool,
    /// which pass it is. `None`: no rows of streams are in it
    pub number: Option<PassNumber>,
    /// the rows of `input` that were late
    pub late: Vec<u32>,
    /// takes note of rows that are late or bad
    pub out: &'a mut Emissions,
}

impl Pass<'_> {
    /// The watermark before the row with this index has come.
    pub(super) fn before(&self, cause: u32) -> i64 {
        self.watermarks.get(cause as usize).copied().unwrap_or(i64::MIN)
    }

    /// The watermark when the row with this index has come.
    pub(super) fn after(&self, cause: u32) -> i64 {
        self.watermarks.get(cause as usize + 1).copied().unwrap_or(i64::MIN)
    }

    /// Notes that a row that is due to the row with this index came too late; `is_input`: it is that row
    /// itself.
    pub(super) fn too_late(&mut self, cause: u32, is_input: bool) {
        self.out.late += 1;
        if is_input {
            self.late.push(cause);
        }
    }

    /// Notes how far behind time the late rows were.
    pub(super) fn note_lateness(&mut self) -> Result<()> {
        let Some((_, batch)) = self.input.filter(|_| !self.late.is_empty()) else { return Ok(()) };
        let times = times(batch, TS)?;
        let behind = |row: &u32| Some(self.before(*row).saturating_sub(*times.get(*row as usize)?));
        let most = self.late.iter().filter_map(behind).max().unwrap_or(0);
        self.out.late_by_ns = self.out.late_by_ns.max(most);
        Ok(())
    }

    /// The row that moves the watermark to `ts` or over it. `None`: no row does.
    pub(super) fn reached(&self, ts: i64) -> Option<u32> {
        let after = self.watermarks.get(1..)?;
        let row = after.partition_point(|watermark| *watermark < ts);
        if row < after.len() { u32::try_from(row).ok() } else { None }
    }
}

/// Rows that are late, where a row of the input may come once for each of its windows: it is late when the
/// copy in the last of them is.
pub(super) struct LateCopies {
    is_input: bool,
    causes: Vec<u32>,
}

impl LateCopies {
    /// `is_input`: they are rows of the input, each due to itself.
    pub(super) fn new(is_input: bool) -> Self {
        Self { is_input, causes: Vec::new() }
    }

    /// Whether the next copy, in their order, is late.
    pub(super) fn note(&mut self, cause: u32, is_late: bool) {
        let is_copy = self.is_input && self.causes.last() == Some(&cause);
        if is_late && !is_copy {
            self.causes.push(cause);
        } else if !is_late && is_copy {
            self.causes.pop();
        }
    }

    pub(super) fn tell(self, pass: &mut Pass<'_>) {
        self.causes.into_iter().for_each(|cause| pass.too_late(cause, self.is_input));
    }
}

/// Calls `evaluate` with all of `chunk`; where that fails, with halves of it, so that only the rows that
/// cannot be evaluated are lost and the result does not depend on their neighbours.
pub(super) fn each_evaluable(
    chunk: &Chunk,
    out: &mut Emissions,
    evaluate: &mut dyn FnMut(&Chunk) -> Result<()>,
) {
    match evaluate(chunk) {
        Ok(()) => {}
        Err(error) if chunk.len() <= 1 => out.bad(failure(&error)),
        Err(_) => {
            let half = chunk.len() / 2;
            each_evaluable(&chunk.slice(0, half), out, evaluate);
            each_evaluable(&chunk.slice(half, chunk.len() - half), out, evaluate);
        }
    }
}

/// The values of `exprs` for each row of `batch`.
pub(super) fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| evaluate(expr, batch)).collect()
}

/// The sequence numbers of rows with these causes.
pub(super) fn seqs_of(rows: &Seqs, causes: Option<Vec<u32>>) -> Seqs {
    match (causes, rows) {
        (None, _) | (_, Seqs::One { .. }) => rows.clone(),
        (Some(causes), _) => match (causes.first(), causes.last()) {
            (Some(first), Some(last)) if first == last => Seqs::One { seq: rows.get(*first as usize) },
            _ => Seqs::list(causes.iter().map(|row| rows.get(*row as usize)).collect()),
        },
    }
}

/// The rows of a chunk with their sequence numbers.
pub(super) fn numbered(chunk: Chunk, seqs: &Seqs) -> Rows {
    Rows { batch: chunk.batch, seqs: seqs_of(seqs, chunk.causes) }
}

/// Calls `visit` for `operator` and all below it, inputs first.
pub(super) fn visit(operator: &dyn Operator, visit_one: &mut dyn FnMut(&dyn Operator)) {
    if let Some(shared) = operator.shared() {
        shared.visit(visit_one);
    }
    for input in operator.inputs() {
        visit(input, visit_one);
    }
    visit_one(operator);
}

/// The same, to change them; what others may use is changed by [`Shared`] only.
pub(super) fn visit_mut(
    operator: &mut dyn Operator,
    change: &mut dyn FnMut(&mut dyn Operator) -> Result<()>,
) -> Result<()> {
    for input in operator.inputs_mut() {
        visit_mut(input, change)?;
    }
    change(operator)
}

/// Describes `operator` and all below it, itself first.
pub(super) fn explain(operator: &dyn Operator, depth: usize, steps: &mut Vec<Step>) {
    if let Some(shared) = operator.shared() {
        return shared.explain(depth, steps);
    }
    let Held { entries, bytes } = operator.held();
    steps.push(Step { depth, what: in_words(&operator.explain()), entries, bytes, shared_with: Vec::new() });
    for input in operator.inputs() {
        explain(input, depth + 1, steps);
    }
}

/// The column `name` of `batch` as event times.
pub(super) fn times<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a [i64]> {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::TimestampNanosecondType;
    let column =
        batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    match column.filter(|times| times.null_count() == 0) {
        Some(times) => Ok(times.values()),
        None => Err(DataFusionError::Execution(format!("a row has no `{name}`"))),
    }
}
