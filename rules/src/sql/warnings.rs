//! What a statement says that is SQL, and probably not what its author wants.

use std::ops::ControlFlow;

use datafusion_common::{DataFusionError, Diagnostic, Span, plan_datafusion_err};
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Query, Spanned, Value, ValueWithSpan, visit_expressions};

use super::names::Names;

/// Warns of what can be seen in the text of `query` alone.
pub(super) fn of_text(query: &Query, names: &Names<'_>) {
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        if let Some((null, is)) = compared_with_null(expr) {
            let what = plan_datafusion_err!("nothing is equal or unequal to NULL, so this never holds; write `{is}`");
            names.warn(at(null, what));
        }
        ControlFlow::Continue(())
    });
}

/// The NULL of `x = NULL`, and what is meant.
fn compared_with_null(expr: &Expr) -> Option<(&Expr, &'static str)> {
    let Expr::BinaryOp { left, op, right } = expr else { return None };
    let is = match op {
        BinaryOperator::Eq => "IS NULL",
        BinaryOperator::NotEq => "IS NOT NULL",
        _ => return None,
    };
    let is_null = |side: &&Expr| matches!(side, Expr::Value(ValueWithSpan { value: Value::Null, .. }));
    Some(([&**right, &**left].into_iter().find(is_null)?, is))
}

/// `what`, with the place of `part`.
fn at(part: &impl Spanned, what: DataFusionError) -> DataFusionError {
    let span = Span::try_from_sqlparser_span(part.span());
    what.with_diagnostic(Diagnostic::new_warning("", span))
}
