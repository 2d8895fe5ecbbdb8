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

use crate::sql::words::{after_parentheses, interval};

/// `expr` in SQL.
pub(in crate::sql) fn written(expr: &Arc<dyn PhysicalExpr>) -> String {
    // A literal does not say by itself that it is text or a time: a name that looks like one takes its place.
    let named = Arc::clone(expr).transform_up(|expr| {
        let text = expr.downcast_ref::<Literal>().and_then(|literal| quoted(literal.value()));
        Ok(text.map_or_else(
            || Transformed::no(Arc::clone(&expr)),
            |text| Transformed::yes(Arc::new(Column::new(&text, 0)) as _),
        ))
    });
    named.map_or_else(|_| expr.to_string(), |named| Sql(&*named.data).to_string())
}

fn quoted(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(span)) => {
            Some(interval(span.months, span.days, span.nanoseconds))
        }
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => Some(format!("'{}'", text.replace('\'', "''"))),
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
        match digits
            .parse()
            .ok()
            .zip(after.strip_prefix("ns").filter(|next| alone && !next.starts_with(char::is_alphanumeric)))
        {
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

/// `text`, in which the planner has written constants and types, as somebody writes rules.
pub(super) fn in_words(text: &str) -> String {
    // What the planner calls the columns of OVER and count(*).
    let text = text
        .replace(" ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING", "")
        .replace("count(Int64(1))", "count(*)")
        .replace("count(1)", "count(*)");
    let text = zones(&over(&text));
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(begin) = rest.find(|c: char| c.is_ascii_uppercase()) {
        let (before, from) = rest.split_at(begin);
        shown.push_str(before);
        let (word, after) =
            from.split_at(from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len()));
        let is_whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (said, next) = match constant(word, after).filter(|_| is_whole) {
            Some((said, next)) => (said, next),
            None => (if is_whole { type_name(word) } else { word }.to_owned(), after),
        };
        shown.push_str(&said);
        rest = next;
    }
    with_units(&(shown + rest))
}

/// `text` with ` PARTITION BY [a, b]` as ` OVER (PARTITION BY a, b)`.
fn over(text: &str) -> String {
    let mut parts = text.split(" PARTITION BY [");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| match part.split_once(']') {
        Some((keys, rest)) => format!("{shown} OVER (PARTITION BY {keys}){rest}"),
        None => format!("{shown} PARTITION BY [{part}"),
    })
}

/// `text` with `CAST(a AS Timestamp(.., zone))` as `a AT TIME ZONE zone`.
fn zones(text: &str) -> String {
    const CAST: &str = "CAST";
    let Some((before, from)) = text.split_once("CAST(").map(|(before, _)| text.split_at(before.len())) else {
        return text.to_owned();
    };
    let call = from.strip_prefix(CAST).unwrap_or_default();
    let after = after_parentheses(call);
    let inner = call.strip_suffix(after).and_then(|call| call.strip_prefix('(')?.strip_suffix(')'));
    let Some(inner) = inner else { return text.to_owned() };
    let zoned = inner.rsplit_once(" AS Timestamp(").and_then(|(of, to)| Some((of, to.split('"').nth(1)?)));
    let inner = match zoned {
        Some((of, zone)) => format!("{} AT TIME ZONE '{zone}'", zones(of)),
        None => format!("{CAST}({})", zones(inner)),
    };
    format!("{before}{inner}{}", zones(after))
}

/// The constant that `word` and what is `after` it are, and what comes behind that.
fn constant<'a>(word: &str, after: &'a str) -> Option<(String, &'a str)> {
    if word == "IntervalMonthDayNano" {
        let (span, next) = after.split_once('}')?;
        let part = |name: &str| {
            span.split_once(name)?.1.trim_start_matches(": ").split([',', ' ']).next()?.parse::<i64>().ok()
        };
        let (months, days, ns) = (part("months")?, part("days")?, part("nanoseconds")?);
        let next = if after.starts_with("(\"") { next.trim_start().strip_prefix("\")")? } else { next };
        return Some((interval(i32::try_from(months).ok()?, i32::try_from(days).ok()?, ns), next));
    }
    if word == "Timestamp" && after.starts_with('(') {
        return Some(("TIMESTAMP".to_owned(), after_parentheses(after)));
    }
    let (inner, next) = after.strip_prefix('(')?.split_once(')')?;
    match word {
        "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32" | "UInt64" | "Float32"
        | "Float64" => Some((inner.to_owned(), next)),
        "Boolean" => Some((inner.to_uppercase(), next)),
        "Utf8" | "LargeUtf8" | "Utf8View" => {
            Some((format!("'{}'", inner.trim_matches('"').replace('\'', "''")), next))
        }
        "Interval" => Some(("INTERVAL".to_owned(), next)),
        _ => None,
    }
}

fn type_name(word: &str) -> &str {
    match word {
        "Int64" => "BIGINT",
        "Int32" => "INT",
        "Float64" => "DOUBLE",
        "Utf8" | "LargeUtf8" | "Utf8View" => "VARCHAR",
        "Boolean" => "BOOLEAN",
        "Date32" => "DATE",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_planner_writes_is_said_in_words() {
        let span =
            "IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 10000000000 }\")";
        assert_eq!(
            in_words(&format!("filter ts - lag(ts) > {span}")),
            "filter ts - lag(ts) > INTERVAL '10' SECOND"
        );
        let bare = "IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 }";
        assert_eq!(in_words(&format!("x > {bare}, y")), "x > INTERVAL '1' DAY, y");
        assert_eq!(
            in_words(
                "aggregate GROUPS(t, 5000000000ns): count(Int64(1)), sum(x * Float64(2.5)), max(note = \
                Utf8(\"it's\"))"
            ),
            "aggregate GROUPS(t, 5s): count(*), sum(x * 2.5), max(note = 'it''s')"
        );
        assert_eq!(
            in_words(
                "lag(t.x) PARTITION BY [t.k, t.j] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING \
                AS y"
            ),
            "lag(t.x) OVER (PARTITION BY t.k, t.j) AS y"
        );
        assert_eq!(
            in_words(
                "project date_trunc('day', to_local_time(CAST(ts AS Timestamp(Nanosecond, \
                Some(\"Europe/Berlin\"))))) AS day, CAST(CAST(x AS Timestamp(ns)) AS Timestamp(ns, \
                \"+02:00\"))"
            ),
            "project date_trunc('day', to_local_time(ts AT TIME ZONE 'Europe/Berlin')) AS day, CAST(x AS \
            TIMESTAMP) AT TIME ZONE '+02:00'"
        );
        assert_eq!(
            in_words("filter CAST(temp AS Int64) > 80 AND Boolean(true)"),
            "filter CAST(temp AS BIGINT) > 80 AND TRUE"
        );
    }

    #[test]
    fn durations_are_shown_with_their_unit() {
        assert_eq!(
            with_units("TUMBLE(tank, 10000000000ns) BY (x1ns, 5, 1500000ns)"),
            "TUMBLE(tank, 10s) BY (x1ns, 5, 1500us)"
        );
        assert_eq!(
            with_units("filter 7ns2 > 99999999999999999999999ns"),
            "filter 7ns2 > 99999999999999999999999ns"
        );
    }
}
