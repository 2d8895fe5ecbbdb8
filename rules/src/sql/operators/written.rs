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

/// `text` with its durations, which are written in nanoseconds, in the largest unit that is exact.
pub(super) fn with_units(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(begin);
        let (digits, after) = from.split_at(from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len()));
        shown.push_str(before);
        // A digit within a name is none of a duration.
        let alone = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        match digits.parse().ok().zip(after.strip_prefix("ns").filter(|next| alone && !next.starts_with(char::is_alphanumeric))) {
            Some((ns, next)) => {
                shown.push_str(&Span(Duration::from_nanos(ns)).to_string());
                rest = next;
            }
            None => {
                shown.push_str(digits);
                rest = after;
            }
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_with_their_unit() {
        assert_eq!(with_units("TUMBLE(tank, 10000000000ns) BY (x1ns, 5, 1500000ns)"), "TUMBLE(tank, 10s) BY (x1ns, 5, 1500us)");
        assert_eq!(with_units("filter 7ns2 > 99999999999999999999999ns"), "filter 7ns2 > 99999999999999999999999ns");
    }
}
