//! Evaluating expressions on rows: one of them may be more than the code of a function can take.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

thread_local! {
    static EVALUATES: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread evaluates an expression: then a panic is an error of a row, which will be told, and
/// need not be told by the hook for panics.
#[must_use]
pub fn is_evaluating() -> bool {
    EVALUATES.get()
}

/// The value of `expr` for each row of `batch`.
///
/// # Errors
/// When it cannot be evaluated for one of them, also when a function panics.
pub(crate) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    unpanicked(|| expr.evaluate(batch)?.into_array(batch.num_rows()))
}

/// What `evaluate` gives, which only looks at what is outside of it.
pub(crate) fn unpanicked<T>(evaluate: impl FnOnce() -> Result<T>) -> Result<T> {
    let outer = EVALUATES.replace(true);
    // An expression keeps nothing, so that nothing is left half done.
    let outcome = catch_unwind(AssertUnwindSafe(evaluate));
    EVALUATES.set(outer);
    outcome.unwrap_or_else(|panic| {
        Err(DataFusionError::Execution(format!("a function cannot take it and panicked: {}", text(&*panic))))
    })
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why")
}
