//! Filters and projections, evaluated on whole batches.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampNanosecondArray};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::{Rows, Seqs};

use super::window::{Prepared, WindowAggregate};
use crate::rule::{Emissions, RuleError, SealedState, Target};

/// One statement: rows of one stream on their way to one target.
#[derive(Debug)]
pub(super) struct Pipeline {
    input: Arc<str>,
    target: Target,
    /// from the stream up to the window, or to the target when there is none
    before: Vec<Stage>,
    window: Option<WindowAggregate>,
    /// from the window to the target
    after: Vec<Stage>,
}

/// A step that looks at rows one by one.
#[derive(Debug)]
pub(super) enum Stage {
    Filter(Arc<dyn PhysicalExpr>),
    Project {
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    },
    /// adds `window_start` and `window_end` behind the columns
    Tumble {
        ts: usize,
        size_ns: i64,
        schema: SchemaRef,
    },
}

/// Rows between two stages, with where they came from.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub batch: RecordBatch,
    /// for each row, its index in the batch that came in; `None`: the same
    pub origin: Option<Vec<u32>>,
    /// for each row, the start of its window, once that is known
    pub starts: Option<Vec<i64>>,
}

impl Pipeline {
    pub(super) fn new(input: Arc<str>, target: Target, before: Vec<Stage>, window: Option<WindowAggregate>, after: Vec<Stage>) -> Self {
        Self { input, target, before, window, after }
    }

    pub(super) fn input(&self) -> &Arc<str> {
        &self.input
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn on_batch(&mut self, rows: &Rows, out: &mut Emissions) -> Result<(), RuleError> {
        let Some(window) = &self.window else {
            each_evaluable(rows, 0, out, &mut |rows, _, out| {
                let chunk = run(&self.before, Chunk { batch: rows.batch.clone(), origin: None, starts: None })?;
                let seqs = seqs_of(&rows.seqs, chunk.origin.as_deref());
                out.emit(&self.target, Rows { batch: chunk.batch, seqs });
                Ok(())
            });
            return Ok(());
        };
        let mut begin = 0;
        for row in window.set_back(&rows.batch).map_err(rule_error)? {
            self.on_windowed(&rows.slice(begin, row - begin), out)?;
            if let Some(window) = &mut self.window {
                for closed in window.start_anew().map_err(rule_error)? {
                    finish(&self.after, &self.target, closed, rows.seqs.get(row), out);
                }
            }
            begin = row;
        }
        self.on_windowed(&rows.slice(begin, rows.len() - begin), out)
    }

    fn on_windowed(&mut self, rows: &Rows, out: &mut Emissions) -> Result<(), RuleError> {
        let Some(window) = &mut self.window else { return Ok(()) };
        let watermarks = window.watermarks(&rows.batch).map_err(rule_error)?;
        let mut prepared: Vec<Prepared> = Vec::new();
        each_evaluable(rows, 0, out, &mut |rows, offset, _| {
            let chunk = run(&self.before, Chunk { batch: rows.batch.clone(), origin: None, starts: None })?;
            prepared.push(window.prepare(chunk, offset)?);
            Ok(())
        });
        for part in prepared {
            out.late += window.absorb(part, &watermarks).map_err(rule_error)?;
        }
        for (row, closed) in window.close(&watermarks).map_err(rule_error)? {
            finish(&self.after, &self.target, closed, rows.seqs.get(row), out);
        }
        Ok(())
    }

    pub(super) fn on_end(&mut self, seq: u64, out: &mut Emissions) -> Result<(), RuleError> {
        if let Some(window) = &mut self.window {
            for closed in window.close_all().map_err(rule_error)? {
                finish(&self.after, &self.target, closed, seq, out);
            }
        }
        Ok(())
    }

    pub(super) fn seal(&mut self) -> Result<Option<SealedState>, RuleError> {
        self.window.as_mut().map(WindowAggregate::seal).transpose().map_err(rule_error)
    }

    /// Takes the state that fits out of `state`.
    pub(super) fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<(), RuleError> {
        let Some(window) = &mut self.window else { return Ok(()) };
        match state.iter().position(|sealed| sealed.fingerprint == window.fingerprint()) {
            Some(at) => window.restore(state.remove(at), misfits).map_err(rule_error),
            None => Ok(()),
        }
    }
}

fn rule_error(error: DataFusionError) -> RuleError {
    RuleError(error.strip_backtrace())
}

/// Sends the rows of a closed window on.
fn finish(after: &[Stage], target: &Target, closed: RecordBatch, seq: u64, out: &mut Emissions) {
    let rows = Rows { batch: closed, seqs: Seqs::One { seq } };
    each_evaluable(&rows, 0, out, &mut |rows, _, out| {
        let chunk = run(after, Chunk { batch: rows.batch.clone(), origin: None, starts: None })?;
        out.emit(target, Rows { batch: chunk.batch, seqs: Seqs::One { seq } });
        Ok(())
    });
}

/// Calls `evaluate` with all of `rows`; where that fails, with halves of them, so that only the rows that cannot be evaluated are lost
/// and the result does not depend on their neighbours.
fn each_evaluable(rows: &Rows, offset: usize, out: &mut Emissions, evaluate: &mut dyn FnMut(&Rows, usize, &mut Emissions) -> Result<()>) {
    match evaluate(rows, offset, out) {
        Ok(()) => {}
        Err(error) if rows.len() <= 1 => out.bad(error.strip_backtrace()),
        Err(_) => {
            let half = rows.len() / 2;
            each_evaluable(&rows.slice(0, half), offset, out, evaluate);
            each_evaluable(&rows.slice(half, rows.len() - half), offset + half, out, evaluate);
        }
    }
}

fn seqs_of(seqs: &Seqs, origin: Option<&[u32]>) -> Seqs {
    match (origin, seqs) {
        (None, _) | (_, Seqs::One { .. }) => seqs.clone(),
        (Some(origin), _) => Seqs::list(origin.iter().map(|row| seqs.get(*row as usize)).collect()),
    }
}

/// Sends a chunk through `stages`.
fn run(stages: &[Stage], mut chunk: Chunk) -> Result<Chunk> {
    for stage in stages {
        if chunk.batch.num_rows() == 0 {
            break;
        }
        chunk = match stage {
            Stage::Filter(predicate) => filter(predicate, chunk)?,
            Stage::Project { exprs, schema } => project(exprs, schema, chunk)?,
            Stage::Tumble { ts, size_ns, schema } => tumble(*ts, *size_ns, schema, chunk)?,
        };
    }
    Ok(chunk)
}

fn filter(predicate: &Arc<dyn PhysicalExpr>, chunk: Chunk) -> Result<Chunk> {
    let rows = chunk.batch.num_rows();
    let value = predicate.evaluate(&chunk.batch)?.into_array(rows)?;
    let mask = value.as_boolean_opt().ok_or_else(|| DataFusionError::Plan("WHERE is not a condition".into()))?;
    if mask.true_count() == rows {
        return Ok(chunk);
    }
    // Null counts as false. Set bits are looked for by the word: most rows of most filters stay behind.
    let without_nulls = (mask.null_count() > 0).then(|| prep_null_mask_filter(mask));
    let kept: Vec<u32> = without_nulls.as_ref().unwrap_or(mask).values().set_indices_u32().collect();
    let select = |values: &[i64]| kept.iter().filter_map(|row| values.get(*row as usize).copied()).collect();
    Ok(Chunk {
        batch: filter_record_batch(&chunk.batch, mask)?,
        starts: chunk.starts.as_deref().map(select),
        origin: Some(match &chunk.origin {
            None => kept,
            Some(origin) => kept.iter().filter_map(|row| origin.get(*row as usize).copied()).collect(),
        }),
    })
}

fn project(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef, chunk: Chunk) -> Result<Chunk> {
    let columns = evaluate_all(exprs, &chunk.batch)?;
    let options = RecordBatchOptions::new().with_row_count(Some(chunk.batch.num_rows()));
    Ok(Chunk { batch: RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?, ..chunk })
}

pub(super) fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

fn tumble(ts: usize, size_ns: i64, schema: &SchemaRef, chunk: Chunk) -> Result<Chunk> {
    let times = chunk
        .batch
        .columns()
        .get(ts)
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>())
        .filter(|times| times.null_count() == 0)
        .ok_or_else(|| DataFusionError::Execution("a row without `ts` belongs to no window".into()))?;
    // Saturation only matters within one window of the ends of time (1677 and 2262).
    let starts: Vec<i64> = times.values().iter().map(|ts| ts.saturating_sub(ts.rem_euclid(size_ns))).collect();
    let ends = starts.iter().map(|start| start.saturating_add(size_ns)).collect::<Vec<_>>();
    let mut columns = chunk.batch.columns().to_vec();
    columns.push(Arc::new(TimestampNanosecondArray::from(starts.clone()).with_timezone("UTC")));
    columns.push(Arc::new(TimestampNanosecondArray::from(ends).with_timezone("UTC")));
    Ok(Chunk { batch: RecordBatch::try_new(Arc::clone(schema), columns)?, starts: Some(starts), ..chunk })
}
