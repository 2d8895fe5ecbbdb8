//! Expressions of DataFusion, as SQL and the index evaluate them on rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use crate::evaluation::unpanicked;

/// The value of `expr` for each row of `batch`.
///
/// # Errors
/// When it cannot be evaluated for one of them, also when a function panics.
pub(crate) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    guarded(|| expr.evaluate(batch)?.into_array(batch.num_rows()))
}

/// What `evaluate` gives; an error when a function panics.
pub(crate) fn guarded<T>(evaluate: impl FnOnce() -> Result<T>) -> Result<T> {
    unpanicked(evaluate).unwrap_or_else(|panicked| Err(DataFusionError::Execution(panicked.to_string())))
}
