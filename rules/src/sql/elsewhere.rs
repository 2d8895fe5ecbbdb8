//! Expressions of other products that the parser reads, and the planner does not know: it would name them
//! otherwise than they are written, or nowhere.

use std::ops::ControlFlow;

use datafusion_common::{DataFusionError, Result, plan_datafusion_err};
use datafusion_sql::sqlparser::ast::{
    CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query,
    SetExpr, Value, ValueWithSpan, visit_expressions,
};

use super::complaint::{at, near};
use super::lower::PARTS;

/// Refuses what `query` has of them.
pub(super) fn refuse(query: &Query) -> Result<()> {
    let into = match &*query.body {
        SetExpr::Select(select) => select.into.as_ref(),
        _ => None,
    };
    if let Some(into) = into {
        let name = &into.name;
        let what = plan_datafusion_err!(
            "`INTO {name}` behind SELECT makes a table elsewhere; write INSERT INTO {name} SELECT .."
        );
        return Err(at(name, what));
    }
    match visit_expressions(query, |expr| match refused(expr) {
        Some(error) => ControlFlow::Break(error),
        None => ControlFlow::Continue(()),
    }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Why the expression itself, whatever is in it, is refused, if it is.
pub(super) fn refused(expr: &Expr) -> Option<DataFusionError> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => Some(at(
            expr,
            plan_datafusion_err!(
                "a rule has no parameters such as `{name}`; write the value, or look it up in a reference \
                table"
            ),
        )),
        Expr::RLike { negated, expr: of, pattern, regexp } => {
            let (name, not) = (if *regexp { "REGEXP" } else { "RLIKE" }, if *negated { "!" } else { "" });
            Some(near(
                &**of,
                plan_datafusion_err!("`{name}` is no operator here; write `{of} {not}~ {pattern}`"),
            ))
        }
        Expr::Convert { is_try, expr: of, .. } => {
            let (name, cast) = if *is_try { ("TRY_CONVERT", "TRY_CAST") } else { ("CONVERT", "CAST") };
            Some(near(&**of, plan_datafusion_err!("`{name}` is not known here; write `{cast}(x AS DOUBLE)`")))
        }
        Expr::Floor { expr: of, field: CeilFloorKind::DateTimeField(field) }
            if *field != DateTimeField::NoDateTime =>
        {
            let part = field.to_string().to_lowercase();
            let help = format!("date_trunc('{part}', {of})");
            Some(near(&**of, plan_datafusion_err!("`FLOOR` takes a number, and no TO; write `{help}`")))
        }
        Expr::Ceil { expr: of, field: CeilFloorKind::DateTimeField(field) }
            if *field != DateTimeField::NoDateTime =>
        {
            let part = field.to_string();
            let help = format!("date_trunc('{}', {of}) + INTERVAL '1' {part}", part.to_lowercase());
            Some(near(&**of, plan_datafusion_err!("`CEIL` takes a number, and no TO; write `{help}`")))
        }
        Expr::Function(call) => call_refused(call),
        _ => None,
    }
}

fn call_refused(call: &Function) -> Option<DataFusionError> {
    let (written, name) = (call.name.to_string(), call.name.to_string().to_lowercase());
    let FunctionArguments::List(list) = &call.args else { return None };
    let mut args = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    let (first, second) = (args.next().flatten()?, args.next().flatten());
    match name.as_str() {
        "datepart" | "date_part" | "datetrunc" | "date_trunc" => {
            let Expr::Identifier(part) = first else { return None };
            let known = PARTS.contains(&part.value.to_lowercase().as_str());
            let what = if name.contains("part") { "date_part" } else { "date_trunc" };
            let of = second.filter(|_| known)?;
            Some(at(
                first,
                plan_datafusion_err!(
                    "the part of a time stands in single quotes; write `{what}('{}', {of})`",
                    part.value.to_lowercase()
                ),
            ))
        }
        "current_timestamp" | "current_time" | "now" | "localtimestamp" => Some(at(
            &call.name,
            plan_datafusion_err!(
                "`{written}` takes no number of digits; write `now()`, or `date_trunc('millisecond', now())`"
            ),
        )),
        "mod" => {
            let (of, by) = (first, second?);
            Some(at(
                &call.name,
                plan_datafusion_err!("there is no function `{written}`; write `{of} % {by}`"),
            ))
        }
        _ => None,
    }
}
