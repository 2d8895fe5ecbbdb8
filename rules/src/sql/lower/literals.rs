//! Literals that a function would refuse with the first row: they are refused when the rule is loaded.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use chrono::format::{Item, StrftimeItems};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Volatility, lit};
use datafusion_physical_expr::create_physical_expr;
use tidegate_core::diagnostic::nearest;

use super::types::{text_of, written};
use crate::sql::words::{SKIPPED_OR_DOUBLED, is_skipped_or_doubled};

/// Functions that fail for any row, or for none, if only the row is a decent one; and which of their
/// arguments says so.
const SAMPLED: [(&str, usize, &str); 8] = [
    ("date_part", 0, "no part of a date"),
    ("date_trunc", 0, "nothing that a time could be cut to"),
    ("date_bin", 0, "no length of a bin"),
    ("regexp_count", 1, "no regular expression"),
    ("regexp_instr", 1, "no regular expression"),
    ("regexp_like", 1, "no regular expression"),
    ("regexp_match", 1, "no regular expression"),
    ("regexp_replace", 1, "no regular expression"),
];

/// Functions with formats of times, from this argument on.
const FORMATTED: [(&str, usize); 8] = [
    ("to_char", 1),
    ("to_date", 1),
    ("to_timestamp", 1),
    ("to_timestamp_micros", 1),
    ("to_timestamp_millis", 1),
    ("to_timestamp_nanos", 1),
    ("to_timestamp_seconds", 1),
    ("to_unixtime", 1),
];

const JSON: [&str; 3] = ["json_get", "json_get_array", "json_get_text"];

pub(in crate::sql) const PARTS: [&str; 16] = [
    "century",
    "day",
    "decade",
    "dow",
    "doy",
    "epoch",
    "hour",
    "isodow",
    "microsecond",
    "millisecond",
    "minute",
    "month",
    "quarter",
    "second",
    "week",
    "year",
];

/// Refuses literals of `plan`, whose types have been made to agree.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| check_one(expr, &schema).map(|()| TreeNodeRecursion::Continue))
        })
    })?;
    Ok(())
}

/// Refuses what is left of constants of `plan`, which has been simplified: they have no value.
pub(super) fn check_constants(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if !is_constant(expr) || matches!(expr, Expr::Literal(..)) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                match value_of(expr) {
                    Err(error) => {
                        plan_err!("`{}` has no value for any row: {}", written(expr), reason(&error))
                    }
                    Ok(()) => Ok(TreeNodeRecursion::Jump),
                }
            })
        })
    })?;
    Ok(())
}

fn check_one(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => match field.data_type() {
            DataType::Timestamp(_, Some(zone)) => check_zone(zone),
            _ => Ok(()),
        },
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) if is_regex(*op) => match text_of(right) {
            Some(pattern) => check_regex(pattern),
            None => Ok(()),
        },
        Expr::ScalarFunction(call) => check_call(call, schema),
        _ => Ok(()),
    }
}

fn is_regex(op: Operator) -> bool {
    matches!(
        op,
        Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch
    )
}

fn check_zone(zone: &str) -> Result<()> {
    if Tz::from_str(zone).is_ok() {
        return Ok(());
    }
    let names = || chrono_tz::TZ_VARIANTS.iter().map(|known| known.name());
    let city = |name: &&str| {
        name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&zone.replace(' ', "_")))
    };
    let near = names()
        .find(|name| name.eq_ignore_ascii_case(zone))
        .or_else(|| names().find(city))
        .or_else(|| nearest(zone, names()));
    match near {
        Some(near) => plan_err!("there is no time zone `{zone}`; did you mean `{near}`?"),
        None => plan_err!(
            "there is no time zone `{zone}`; write a name such as `Europe/Berlin`, or an offset such as \
            `+02:00`"
        ),
    }
}

fn check_regex(pattern: &str) -> Result<()> {
    let function = datafusion_functions::regex::regexp_like();
    match value_of(&function.call(vec![lit(""), lit(pattern)])) {
        Ok(()) => Ok(()),
        Err(error) => plan_err!("`'{pattern}'` is no regular expression: {}", reason(&error)),
    }
}

fn check_call(call: &ScalarFunction, schema: &DFSchema) -> Result<()> {
    let name = call.func.name();
    if JSON.contains(&name) {
        return call.args.iter().skip(1).filter_map(text_of).try_for_each(check_key);
    }
    if let Some((_, from)) = FORMATTED.iter().find(|(known, _)| *known == name) {
        return call.args.iter().skip(*from).filter_map(text_of).try_for_each(check_format);
    }
    let Some((_, at, what)) = SAMPLED.iter().find(|(known, ..)| *known == name) else { return Ok(()) };
    let Some(literal) = call.args.get(*at).filter(|argument| is_constant(argument)) else { return Ok(()) };
    if *at == 1
        && let Some(pattern) = text_of(literal)
    {
        check_regex(pattern)?;
    }
    let args = call.args.iter().map(|argument| {
        if is_constant(argument) { Some(argument.clone()) } else { sample(argument, schema) }
    });
    let Some(args) = args.collect::<Option<Vec<_>>>() else { return Ok(()) };
    let Err(error) = value_of(&Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&call.func), args }))
    else {
        return Ok(());
    };
    match text_of(literal) {
        Some(part) if *at == 0 => {
            let help = nearest(&part.to_lowercase(), PARTS).map_or_else(
                || format!("write one of {}", PARTS.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            plan_err!("`'{part}'` is {what}; {help}")
        }
        _ => plan_err!("`{name}` cannot do this with any row: {}", reason(&error)),
    }
}

/// MySQL and SQLite write `'$.a.b'`, which is here a key of that name, and never there.
fn check_key(key: &str) -> Result<()> {
    if !(key == "$" || key.starts_with("$.") || key.starts_with("$[")) {
        return Ok(());
    }
    let keys = key.split(['$', '.', '[', ']']).filter(|part| !part.is_empty());
    let path: String = keys
        .map(|part| if part.parse::<i64>().is_ok() { format!("->{part}") } else { format!("->'{part}'") })
        .collect();
    plan_err!(
        "`'{key}'` is a path, and `->` takes one key at a time; write payload{path}, and ->> before the \
        last key for text"
    )
}

fn check_format(format: &str) -> Result<()> {
    if StrftimeItems::new(format).any(|item| matches!(item, Item::Error)) {
        return plan_err!(
            "`'{format}'` is no format of times; write parts of a time such as %Y-%m-%dT%H:%M:%S%.3f, and \
            %% for a percent sign"
        );
    }
    if !format.contains('%') {
        return plan_err!("`'{format}'` names no part of a time; write '%Y-%m-%d %H:%M:%S', for instance");
    }
    Ok(())
}

/// Whether `expr` has one value, whatever the row.
fn is_constant(expr: &Expr) -> bool {
    let varies = expr.exists(|expr| {
        Ok(match expr {
            Expr::Literal(..)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::BinaryExpr(_)
            | Expr::Negative(_)
            | Expr::Alias(_) => false,
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            _ => true,
        })
    });
    !varies.unwrap_or(true)
}

/// A decent value in the place of `expr`.
fn sample(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let data_type = expr.get_type(schema).ok()?;
    let value = match &data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            ScalarValue::TimestampNanosecond(Some(0), None)
        }
        DataType::Time32(_) | DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => {
            ScalarValue::Time64Nanosecond(Some(0))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ScalarValue::from(""),
        number if number.is_numeric() => ScalarValue::Int64(Some(1)),
        _ => return None,
    };
    Some(Expr::Literal(value.cast_to(&data_type).ok()?, None))
}

/// Evaluates a constant.
fn value_of(expr: &Expr) -> Result<()> {
    let expr = create_physical_expr(
        expr,
        &DFSchema::empty(),
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )?;
    let row = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &row)?;
    expr.evaluate(&batch).map(drop)
}

/// What is wrong, without the drawing of the place that comes with it.
fn reason(error: &DataFusionError) -> String {
    let message = error.find_root().message().into_owned();
    if is_skipped_or_doubled(&message) {
        return SKIPPED_OR_DOUBLED.to_owned();
    }
    let mut lines = message.lines().map(str::trim).filter(|line| line.chars().any(char::is_alphabetic));
    let first = lines.clone().next().unwrap_or_default();
    let said = lines.find_map(|line| line.strip_prefix("error: ")).unwrap_or(first);
    said.trim_end_matches(')').replace(';', ",")
}
