//! Joins: rows of two inputs that belong together.
//!
//! * [`interval`]: stream with stream, where event times say how long a row can find partners.
//! * [`latest`]: each row of one stream with the newest row of another.
//! * [`table`]: a stream with what a reference table holds at the moment.
//!
//! All of them write rows in the order of their causes, and at one cause in the order in which the partners
//! came, so that it does not matter where batches were cut.

mod interval;
mod kept;
mod keys;
mod latest;
mod table;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::{Chunk, each_evaluable};
use crate::expression::evaluate;
use crate::rule::Emissions;

pub(in crate::sql) use interval::{IntervalJoin, IntervalSide, Reach};
pub(in crate::sql) use keys::Keys;
pub(in crate::sql) use latest::{LatestJoin, LatestJoinParts, Moment};
pub(in crate::sql) use table::{Table, TableJoin, TableJoinKind, TableJoinParts};

/// Which of the pairs `batch` (columns of the left row, then of the right one) a further condition of ON
/// holds for. A pair for which it cannot be evaluated is bad, and does not count.
fn pairs_that_hold(
    condition: Option<&Arc<dyn PhysicalExpr>>,
    batch: &RecordBatch,
    out: &mut Emissions,
) -> Vec<usize> {
    let Some(condition) = condition else { return (0..batch.num_rows()).collect() };
    let mut hold = Vec::new();
    // The cause of a pair is its own index here: so it is known when only some of them can be evaluated.
    let pairs = Chunk { batch: batch.clone(), causes: None };
    each_evaluable(&pairs, out, &mut |part| {
        let value = evaluate(condition, &part.batch)?;
        let mask =
            value.as_boolean_opt().ok_or_else(|| DataFusionError::Plan("ON is not a condition".into()))?;
        hold.extend(
            (0..part.len())
                .filter(|row| mask.is_valid(*row) && mask.value(*row))
                .map(|row| part.cause(row) as usize),
        );
        Ok(())
    });
    hold
}

/// A batch of columns that may be none at all.
pub(in crate::sql::operators) fn batch_of(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
