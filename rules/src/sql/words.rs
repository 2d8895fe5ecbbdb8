//! What the planner knows as types and expressions, in the words of those who write rules.

use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Between, Case, Cast, InList, Like, TryCast, WindowFunction};
use datafusion_expr::{BinaryExpr, Expr, Operator};

use super::text::lower_first;
pub(super) use crate::types::{field_type, kind};

/// The type as CAST names it, if it has a name there.
fn sql_type(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Binary => "BYTEA",
        DataType::Date32 => "DATE",
        DataType::Time64(_) => "TIME",
        _ => return None,
    })
}

/// `expr` as somebody would write it: without the names of relations, and without casts that change no value.
pub(super) fn said(expr: &Expr) -> String {
    match expr {
        Expr::Alias(alias) => said(&alias.expr),
        Expr::Column(column) => identifier(&column.name),
        Expr::Literal(value, _) => literal(value),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            format!("{} {op} {}", within(left, *op, false), within(right, *op, true))
        }
        Expr::Not(expr) => format!("NOT {}", in_parentheses(expr)),
        Expr::Negative(expr) => format!("-{}", in_parentheses(expr)),
        Expr::IsNull(expr) => format!("{} IS NULL", in_parentheses(expr)),
        Expr::IsNotNull(expr) => format!("{} IS NOT NULL", in_parentheses(expr)),
        Expr::IsTrue(expr) => format!("{} IS TRUE", in_parentheses(expr)),
        Expr::IsFalse(expr) => format!("{} IS FALSE", in_parentheses(expr)),
        Expr::IsNotTrue(expr) => format!("{} IS NOT TRUE", in_parentheses(expr)),
        Expr::IsNotFalse(expr) => format!("{} IS NOT FALSE", in_parentheses(expr)),
        Expr::Between(Between { expr, negated, low, high }) => {
            format!("{}{} BETWEEN {} AND {}", in_parentheses(expr), not(*negated), said(low), said(high))
        }
        Expr::InList(InList { expr, list, negated }) => {
            format!("{}{} IN ({})", in_parentheses(expr), not(*negated), all(list))
        }
        Expr::Like(Like { negated, expr, pattern, case_insensitive, .. }) => {
            let like = if *case_insensitive { "ILIKE" } else { "LIKE" };
            format!("{}{} {like} {}", in_parentheses(expr), not(*negated), said(pattern))
        }
        Expr::Case(case) => case_of(case),
        Expr::Cast(Cast { expr, field }) if let Some(zone) = local_zone(field.data_type()) => {
            format!("{} AT TIME ZONE '{zone}'", in_parentheses(expr))
        }
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            match sql_type(field.data_type()) {
                Some(_) if is_implied(expr, field.data_type()) => said(expr),
                Some(name) => format!("CAST({} AS {name})", said(expr)),
                None => said(expr),
            }
        }
        Expr::ScalarFunction(call) => function(call.func.name(), &call.args),
        Expr::AggregateFunction(call) => aggregate(call),
        Expr::WindowFunction(call) => window(call),
        other => other.to_string(),
    }
}

/// The zone of times that are shown otherwise than in UTC.
pub(super) fn local_zone(data_type: &DataType) -> Option<&str> {
    match data_type {
        DataType::Timestamp(_, Some(zone)) => Some(&**zone).filter(|zone| *zone != "UTC"),
        _ => None,
    }
}

/// `exprs`, with commas between.
pub(super) fn all(exprs: &[Expr]) -> String {
    exprs.iter().map(said).collect::<Vec<_>>().join(", ")
}

fn not(negated: bool) -> &'static str {
    if negated { " NOT" } else { "" }
}

/// A name as it is written: in quotes, unless it is what SQL makes of a name without them.
pub(super) fn identifier(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// An operand of `op`: in parentheses where it binds looser.
fn within(expr: &Expr, op: Operator, is_right: bool) -> String {
    match expr {
        Expr::BinaryExpr(inner) => {
            let (inner, outer) = (inner.op.precedence(), op.precedence());
            let loose =
                inner < outer || (is_right && inner == outer && !matches!(op, Operator::And | Operator::Or));
            if loose { format!("({})", said(expr)) } else { said(expr) }
        }
        _ => in_parentheses(expr),
    }
}

fn in_parentheses(expr: &Expr) -> String {
    let text = said(expr);
    let is_whole = match expr {
        Expr::Alias(alias) => return in_parentheses(&alias.expr),
        Expr::Column(_) | Expr::Literal(..) | Expr::Case(_) => true,
        Expr::ScalarFunction(_) | Expr::AggregateFunction(_) | Expr::WindowFunction(_) => true,
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => {
            text.starts_with("CAST(") || matches!(**expr, Expr::Column(_) | Expr::Literal(..))
        }
        Expr::Not(_) | Expr::Negative(_) | Expr::IsNull(_) | Expr::IsNotNull(_) => true,
        _ => false,
    };
    if is_whole { text } else { format!("({text})") }
}

/// Whether nobody needs to write the cast: it widens a number, or gives a constant or a time the type that
/// stands beside it.
fn is_implied(expr: &Expr, to: &DataType) -> bool {
    match expr {
        Expr::Literal(value, _) => kind(&value.data_type()) == kind(to),
        _ => to.is_numeric() && matches!(expr, Expr::Column(_)) || matches!(to, DataType::Timestamp(..)),
    }
}

fn case_of(Case { expr, when_then_expr, else_expr }: &Case) -> String {
    let mut text = "CASE".to_owned();
    if let Some(expr) = expr {
        text.push_str(&format!(" {}", said(expr)));
    }
    for (when, then) in when_then_expr {
        text.push_str(&format!(" WHEN {} THEN {}", said(when), said(then)));
    }
    if let Some(expr) = else_expr {
        text.push_str(&format!(" ELSE {}", said(expr)));
    }
    text + " END"
}

fn function(name: &str, args: &[Expr]) -> String {
    match (name, args) {
        ("json_get", [json, keys @ ..]) => {
            keys.iter().fold(said(json), |text, key| format!("{text}->{}", said(key)))
        }
        ("json_get_text", [json, keys @ .., last]) => {
            let path = keys.iter().fold(said(json), |text, key| format!("{text}->{}", said(key)));
            format!("{path}->>{}", said(last))
        }
        ("get_field" | "array_element", [from, key]) => format!("{}[{}]", said(from), said(key)),
        ("make_array", elements) => format!("[{}]", all(elements)),
        _ => format!("{name}({})", all(args)),
    }
}

fn aggregate(call: &AggregateFunction) -> String {
    let params = &call.params;
    let name = call.func.name();
    let args = match params.args.as_slice() {
        [Expr::Literal(..)] if name == "count" => "*".to_owned(),
        args => all(args),
    };
    let distinct = if params.distinct { "DISTINCT " } else { "" };
    let mut text = format!("{name}({distinct}{args}");
    if !params.order_by.is_empty() {
        let order = params
            .order_by
            .iter()
            .map(|sort| format!("{}{}", said(&sort.expr), if sort.asc { "" } else { " DESC" }));
        text.push_str(&format!(" ORDER BY {}", order.collect::<Vec<_>>().join(", ")));
    }
    text.push(')');
    if let Some(filter) = &params.filter {
        text.push_str(&format!(" FILTER (WHERE {})", said(filter)));
    }
    text
}

fn window(call: &WindowFunction) -> String {
    let params = &call.params;
    let partition = match params.partition_by.as_slice() {
        [] => String::new(),
        keys => format!("PARTITION BY {}", all(keys)),
    };
    format!("{}({}) OVER ({partition})", call.fun, all(&params.args))
}

/// Why an expression has no value for a row.
pub(super) fn failure(error: &DataFusionError) -> String {
    let said = error.find_root().message().to_string();
    let said = [
        "Arrow error: ",
        "Compute error: ",
        "Cast error: ",
        "Invalid argument error: ",
        "Arithmetic overflow: ",
    ]
    .into_iter()
    .fold(said.as_str(), |said, prefix| said.strip_prefix(prefix).unwrap_or(said));
    match said {
        "Divide by zero error" => "a division by zero".to_owned(),
        said if is_skipped_or_doubled(said) => SKIPPED_OR_DOUBLED.to_owned(),
        said => plain(&lower_first(said)),
    }
}

/// What is said of a local time that is none, or two.
pub(super) const SKIPPED_OR_DOUBLED: &str =
    "a local time that comes twice, or never, in the night in which the clocks change";

/// Whether Arrow says so.
pub(super) fn is_skipped_or_doubled(said: &str) -> bool {
    said.contains("Cannot cast timezone to different timezone")
        || said.contains("error computing timezone offset")
}

fn literal(value: &ScalarValue) -> String {
    match value {
        value if value.is_null() => "NULL".to_owned(),
        ScalarValue::Boolean(Some(true)) => "TRUE".to_owned(),
        ScalarValue::Boolean(Some(false)) => "FALSE".to_owned(),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => {
            format!("'{}'", text.replace('\'', "''"))
        }
        ScalarValue::IntervalMonthDayNano(Some(span)) => interval(span.months, span.days, span.nanoseconds),
        ScalarValue::IntervalDayTime(Some(span)) => {
            interval(0, span.days, i64::from(span.milliseconds) * 1_000_000)
        }
        ScalarValue::IntervalYearMonth(Some(months)) => interval(*months, 0, 0),
        value => {
            let name = sql_type(&value.data_type()).filter(|_| !value.data_type().is_numeric());
            match (name, value.cast_to(&DataType::Utf8)) {
                (Some(name), Ok(ScalarValue::Utf8(Some(text)))) => format!("{name} '{text}'"),
                _ => value.to_string(),
            }
        }
    }
}

/// `INTERVAL '10' SECOND`, in the largest unit of which it is a whole number.
pub(super) fn interval(months: i32, days: i32, ns: i64) -> String {
    const UNITS: [(&str, i64); 6] = [
        ("HOUR", 3_600_000_000_000),
        ("MINUTE", 60_000_000_000),
        ("SECOND", 1_000_000_000),
        ("MILLISECOND", 1_000_000),
        ("MICROSECOND", 1_000),
        ("NANOSECOND", 1),
    ];
    match (months, days, ns) {
        (0, 0, ns) => {
            let (unit, size) =
                UNITS.into_iter().find(|(_, size)| ns % size == 0).unwrap_or(("NANOSECOND", 1));
            format!("INTERVAL '{}' {unit}", ns / size)
        }
        (0, days, 0) => format!("INTERVAL '{days}' DAY"),
        (months, 0, 0) if months % 12 == 0 => format!("INTERVAL '{}' YEAR", months / 12),
        (months, 0, 0) => format!("INTERVAL '{months}' MONTH"),
        (months, days, ns) => {
            let seconds = ns as f64 / 1e9;
            format!("INTERVAL '{months} months {days} days {seconds} seconds'")
        }
    }
}

/// `message` with the field's words for types.
pub(super) fn plain(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_uppercase()) {
        let (before, from) = rest.split_at(begin);
        text.push_str(before);
        let is_whole = !before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        let kind = match word {
            "Utf8" | "LargeUtf8" | "Utf8View" | "String" => "text",
            "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32" | "UInt64" => "number",
            "Float16" | "Float32" | "Float64" | "Decimal128" | "Decimal256" | "Numeric" => "number",
            "Boolean" => "condition",
            "Timestamp" => "time",
            "Interval" | "IntervalMonthDayNano" | "Duration" => "span of time",
            "Date32" | "Date64" => "date",
            "Time32" | "Time64" => "time of day",
            "List" | "LargeList" | "FixedSizeList" => "list",
            "Struct" => "struct",
            "Null" => "NULL",
            _ => word,
        };
        let known = is_whole && kind != word;
        text.push_str(if known { kind } else { word });
        rest = if known { after_parentheses(after) } else { after };
    }
    text + rest
}

/// What stands behind the parentheses that `text` begins with, if it does.
pub(super) fn after_parentheses(text: &str) -> &str {
    if !text.starts_with('(') {
        return text;
    }
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return text.get(at + 1..).unwrap_or_default(),
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}
