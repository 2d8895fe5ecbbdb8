//! Expressions and durations as people write them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::util::display::array_value_to_string;
use datafusion_common::ScalarValue;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};
use tidegate_core::Span;

/// `expr` in SQL.
pub(in crate::sql) fn written(expr: &Arc<dyn PhysicalExpr>) -> String {
    // A literal does not say by itself that it is text or a time: a name that looks like one takes its place.
    let named = Arc::clone(expr).transform_up(|expr| {
        let text = expr.downcast_ref::<Literal>().and_then(|literal| quoted(literal.value()));
        Ok(text.map_or_else(|| Transformed::no(Arc::clone(&expr)), |text| Transformed::yes(Arc::new(Column::new(&text, 0)) as _)))
    });
    named.map_or_else(|_| expr.to_string(), |named| Sql(&*named.data).to_string())
}

fn quoted(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Some(format!("'{}'", text.replace('\'', "''")))
        }
        ScalarValue::TimestampNanosecond(Some(_), _) => {
            let time = array_value_to_string(&value.to_array().ok()?, 0).ok()?;
            Some(format!("TIMESTAMP '{time}'"))
        }
        _ => None,
    }
}

struct Sql<'a>(&'a dyn PhysicalExpr);

impl fmt::Display for Sql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// A duration with its unit.
pub(in crate::sql) fn span(ns: i64) -> Span {
    Span(Duration::from_nanos(ns.unsigned_abs()))
}
