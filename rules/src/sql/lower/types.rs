//! Types that meet: in a comparison, a CASE, a UNION, or as an argument.
//!
//! DataFusion casts text to a number row by row where the two meet, and a row whose text is none is lost.
//! Here, as in PostgreSQL, a text that is written as a literal is read as the type of what it meets, when the
//! rule is loaded; anything else is refused with the cast to write.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Diagnostic, Result, ScalarValue, Span};
use datafusion_expr::expr::{Between, InList, InSubquery, ScalarFunction};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::type_coercion::functions::{UDFCoercionExt, fields_with_udf};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Case, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion_sql::sqlparser::ast::BinaryOperator;

use super::kinds::{Kind, meet, told};

/// Functions whose arguments are one value or another.
const CHOOSE: [&str; 5] = ["coalesce", "greatest", "least", "nullif", "nvl"];

/// Functions that write anything as text.
const WRITE: [&str; 3] = ["concat", "concat_ws", "string_agg"];

/// What to write where the elements of two lists do not meet.
const ELEMENTS: &str = "the elements of one as those of the other, such as CAST(.. AS VARCHAR)";

/// Looks at comparisons and sums where they are written: further on, DataFusion has a word of its own for
/// some of them.
#[derive(Debug)]
pub(in crate::sql) struct Meetings;

impl ExprPlanner for Meetings {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let operator = match op {
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo => {
                refuse_sum(&left, &right, schema)?;
                return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
            }
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        };
        let (left, right) = agreeing_pair(left, right, Some(operator), schema)?;
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// Text is neither added to nor multiplied.
fn refuse_sum(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<()> {
    let (Ok(of), Ok(with)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(()) };
    for (text, kind, other) in [
        (left, Kind::from_arrow(&of), Kind::from_arrow(&with)),
        (right, Kind::from_arrow(&with), Kind::from_arrow(&of)),
    ] {
        if kind == Kind::Text && text_of(text).is_none() && other == Kind::Number {
            let name = written(text);
            let message =
                format!("`{name}` is text, and cannot be computed with; write CAST({name} AS DOUBLE)");
            return Err(refusal(message, &[text]));
        }
    }
    Ok(())
}

/// `plan` with literals read as what they meet.
pub(super) fn agreeing(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut changed = false;
    let plan = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        check_join(&node)?;
        check_union(&node)?;
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let saved = names.save(&expr);
            let agreeing = expr.transform_up(|expr| agreeing_in(expr, &schema))?;
            Ok(agreeing.update_data(|expr| saved.restore(expr)))
        })?;
        changed |= node.transformed;
        if changed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })?;
    Ok(plan.data)
}

fn check_join(node: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Join(join) = node else { return Ok(()) };
    join.on.iter().try_for_each(|(left, right)| {
        let types = (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
        if meet(&types.0, &types.1) {
            Ok(())
        } else {
            Err(mismatch((left, &types.0), (right, &types.1), Some(Operator::Eq)))
        }
    })
}

fn check_union(node: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Union(union) = node else { return Ok(()) };
    let Some((first, others)) = union.inputs.split_first() else { return Ok(()) };
    for other in others {
        for (of, with) in first.schema().fields().iter().zip(other.schema().fields()) {
            if !meet(of.data_type(), with.data_type()) {
                let message = format!(
                    "column `{}` of the UNION is {} in one SELECT, and {} in another; convert one of them \
                    with CAST",
                    of.name(),
                    told(of.data_type()),
                    told(with.data_type())
                );
                return Err(DataFusionError::Plan(message));
            }
        }
    }
    Ok(())
}

fn agreeing_in(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let made = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left, right) = agreeing_pair(*left, *right, Some(op), schema)?;
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (of, low) = agreeing_pair(*expr, *low, Some(Operator::GtEq), schema)?;
            let (of, high) = agreeing_pair(of, *high, Some(Operator::LtEq), schema)?;
            Expr::Between(Between::new(Box::new(of), negated, Box::new(low), Box::new(high)))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let (of, list) = agreeing_with(*expr, list, schema)?;
            Expr::InList(InList::new(Box::new(of), list, negated))
        }
        Expr::InSubquery(InSubquery { expr: ref looked_up, ref subquery, .. }) => {
            if let (Ok(of), Some(field)) =
                (looked_up.get_type(schema), subquery.subquery.schema().fields().first())
            {
                let column = Expr::Column(datafusion_common::Column::new_unqualified(field.name()));
                if !meet(&of, field.data_type()) {
                    return Err(mismatch((looked_up, &of), (&column, field.data_type()), Some(Operator::Eq)));
                }
            }
            return Ok(Transformed::no(expr));
        }
        Expr::Case(case) => Expr::Case(agreeing_case(case, schema)?),
        Expr::ScalarFunction(call) if CHOOSE.contains(&call.func.name()) => {
            Expr::ScalarFunction(ScalarFunction {
                args: agreeing_all(call.args, None, schema)?,
                func: call.func,
            })
        }
        Expr::ScalarFunction(ref call) => {
            check_arguments(&*call.func, &call.args, schema)?;
            return Ok(Transformed::no(expr));
        }
        Expr::AggregateFunction(ref call) => {
            call.params.filter.iter().try_for_each(|filter| check_condition(filter, "FILTER", schema))?;
            check_arguments(&*call.func, &call.params.args, schema)?;
            return Ok(Transformed::no(expr));
        }
        Expr::Not(ref condition) => {
            check_condition(condition, "NOT", schema)?;
            return Ok(Transformed::no(expr));
        }
        Expr::IsTrue(ref condition)
        | Expr::IsFalse(ref condition)
        | Expr::IsNotTrue(ref condition)
        | Expr::IsNotFalse(ref condition) => {
            check_condition(condition, "IS", schema)?;
            return Ok(Transformed::no(expr));
        }
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(made))
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn agreeing_pair(left: Expr, right: Expr, op: Option<Operator>, schema: &DFSchema) -> Result<(Expr, Expr)> {
    match <[Expr; 2]>::try_from(agreeing_all(vec![left, right], op, schema)?) {
        Ok([left, right]) => Ok((left, right)),
        Err(_) => Err(DataFusionError::Internal("a comparison has two sides".into())),
    }
}

/// `list`, each of which is compared with `of`.
fn agreeing_with(of: Expr, list: Vec<Expr>, schema: &DFSchema) -> Result<(Expr, Vec<Expr>)> {
    let mut all = agreeing_all(std::iter::once(of).chain(list).collect(), Some(Operator::Eq), schema)?;
    let list = all.split_off(1);
    match all.pop() {
        Some(of) => Ok((of, list)),
        None => Err(DataFusionError::Internal("nothing is compared with a list".into())),
    }
}

fn agreeing_case(case: Case, schema: &DFSchema) -> Result<Case> {
    let Case { mut expr, when_then_expr, else_expr } = case;
    let (mut whens, thens): (Vec<Expr>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    if let Some(of) = expr.take() {
        let (of, list) = agreeing_with(*of, whens, schema)?;
        (expr, whens) = (Some(Box::new(of)), list);
    } else {
        whens.iter().try_for_each(|when| check_condition(when, "WHEN", schema))?;
    }
    let cases = thens.len();
    let mut results =
        agreeing_all(thens.into_iter().chain(else_expr.map(|otherwise| *otherwise)).collect(), None, schema)?;
    let otherwise = results.split_off(cases.min(results.len())).pop().map(Box::new);
    let when_then = whens.into_iter().map(Box::new).zip(results.into_iter().map(Box::new)).collect();
    Ok(Case { expr, when_then_expr: when_then, else_expr: otherwise })
}

/// A number is no condition: whether 0.5 is true is nobody's to say.
fn check_condition(expr: &Expr, of: &str, schema: &DFSchema) -> Result<()> {
    let Ok(kind) = expr.get_type(schema).map(|data_type| Kind::from_arrow(&data_type)) else { return Ok(()) };
    if !matches!(kind, Kind::Number | Kind::Text) || text_of(expr).is_some() {
        return Ok(());
    }
    let name = written(expr);
    let such = if kind == Kind::Number { format!("{name} > 0") } else { format!("{name} = 'on'") };
    let message = format!(
        "`{name}` is {}, and {of} takes a condition; compare it with something, such as `{such}`",
        kind.name()
    );
    Err(refusal(message, &[expr]))
}

/// `exprs`, which meet each other, as things of one kind.
fn agreeing_all(mut exprs: Vec<Expr>, op: Option<Operator>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let Ok(types) = exprs.iter().map(|expr| expr.get_type(schema)).collect::<Result<Vec<_>>>() else {
        return Ok(exprs);
    };
    // What is no literal says what the others are.
    let says = |(expr, data_type): &(&Expr, &DataType)| {
        !matches!(Kind::from_arrow(data_type), Kind::Null) && text_of(expr).is_none()
    };
    let Some((first, wanted)) =
        exprs.iter().zip(&types).find(says).map(|(expr, data_type)| (expr.clone(), data_type.clone()))
    else {
        return Ok(exprs);
    };
    for (expr, data_type) in exprs.iter_mut().zip(&types) {
        if meet(data_type, &wanted) {
            continue;
        }
        match text_of(expr) {
            Some(text) => {
                *expr = Expr::Literal(
                    reads(text, &wanted).ok_or_else(|| unreadable(text, &wanted, &first))?,
                    None,
                )
            }
            None => return Err(mismatch((&first, &wanted), (expr, data_type), op)),
        }
    }
    Ok(exprs)
}

/// The literal `text` as a value of the type `wanted`.
fn reads(text: &str, wanted: &DataType) -> Option<ScalarValue> {
    ScalarValue::from(text).cast_to(wanted).ok().filter(|value| !value.is_null())
}

/// `text` cannot be read as a value of the type `wanted`, which is that of `of`.
fn unreadable(text: &str, wanted: &DataType, of: &Expr) -> DataFusionError {
    let (name, kind) = (written(of), Kind::from_arrow(wanted));
    let point = text.replace(',', ".");
    let help = match kind {
        Kind::Number if text.matches(',').count() == 1 && point.parse::<f64>().is_ok() => {
            format!("write {point}: decimals stand behind a point")
        }
        Kind::Moment => "write it as '2026-01-31' or '2026-01-31T12:30:00Z'".to_owned(),
        Kind::Span => "write INTERVAL '10' SECOND".to_owned(),
        Kind::Condition => format!("write `{name}` or `NOT {name}`"),
        _ => format!("write CAST({name} AS VARCHAR) if it is to be compared as text"),
    };
    let what = if wanted.is_integer() { "a whole number" } else { kind.name() };
    refusal(format!("`{name}` is {what}, and '{text}' cannot be read as one; {help}"), &[of])
}

fn check_arguments<F: UDFCoercionExt>(function: &F, arguments: &[Expr], schema: &DFSchema) -> Result<()> {
    let field = |argument: &Expr| Ok(Arc::new(Field::new("", argument.get_type(schema)?, true)));
    let Ok(fields) = arguments.iter().map(field).collect::<Result<Vec<_>>>() else { return Ok(()) };
    let Ok(taken) = fields_with_udf(&fields, function) else { return Ok(()) };
    for ((argument, own), taken) in arguments.iter().zip(&fields).zip(&taken) {
        let taken = taken.data_type();
        let (kind, wanted) = (Kind::from_arrow(own.data_type()), Kind::from_arrow(taken));
        let is_written = wanted == Kind::Text && WRITE.contains(&function.name());
        if meet(own.data_type(), taken) || is_written {
            continue;
        }
        let (function, name, takes) = (function.name(), written(argument), told(taken));
        let message = match text_of(argument) {
            Some(text) if reads(text, taken).is_some() => continue,
            Some(_) => format!("{name} cannot be read as {takes}, which `{function}` takes here"),
            None => {
                let converted = converted(&name, kind, wanted, taken);
                format!(
                    "`{function}` takes {takes} here, and `{name}` is {}; write {converted}",
                    told(own.data_type())
                )
            }
        };
        return Err(refusal(message, &[argument]));
    }
    Ok(())
}

/// How to make something of kind `to` of `name`, which is of kind `from`.
fn converted(name: &str, from: Kind, to: Kind, wanted: &DataType) -> String {
    match (from, to) {
        (_, Kind::Text) => format!("CAST({name} AS VARCHAR)"),
        (Kind::Text, Kind::Moment) => format!("to_timestamp({name})"),
        (Kind::Number, Kind::Moment) => {
            format!("to_timestamp({name}), which takes seconds, or to_timestamp_millis({name})")
        }
        (_, Kind::Condition) => format!("CAST({name} AS BOOLEAN)"),
        (_, Kind::Number) if wanted.is_integer() => format!("CAST({name} AS BIGINT)"),
        (_, Kind::Number) => format!("CAST({name} AS DOUBLE)"),
        (Kind::List, Kind::List) => ELEMENTS.to_owned(),
        _ => "it as the other type with CAST".to_owned(),
    }
}

/// Two things of different kinds meet.
fn mismatch(
    (left, left_type): (&Expr, &DataType),
    (right, right_type): (&Expr, &DataType),
    op: Option<Operator>,
) -> DataFusionError {
    if let Some([left, right]) = parts_that_differ((left, left_type), (right, right_type)) {
        return mismatch((left.0, left.1), (right.0, right.1), Some(Operator::Eq));
    }
    let (left_kind, right_kind) = (Kind::from_arrow(left_type), Kind::from_arrow(right_type));
    let (mut a, mut b) = (written(left), written(right));
    if a == b {
        (a, b) = (qualified(left), qualified(right));
    }
    let what = if op.is_some() { "cannot be compared" } else { "cannot be one column" };
    let message = format!("`{a}` is {}, and `{b}` is {}: they {what}", told(left_type), told(right_type));
    // What to write in the place of one of them.
    let sign = op.map(|op| if op == Operator::NotEq { "<>".to_owned() } else { op.to_string() });
    let instead = |of_left: bool, new: &str| match &sign {
        Some(op) if of_left => format!("`{new} {op} {b}`"),
        Some(op) => format!("`{a} {op} {new}`"),
        None => format!("`{new}`"),
    };
    let equality = !matches!(op, Some(Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq));
    let is_literal = |expr: &Expr| matches!(expr, Expr::Literal(..));
    let help = match (left_kind, right_kind) {
        (Kind::Text, Kind::Number) | (Kind::Number, Kind::Text) => {
            let text_is_left = left_kind == Kind::Text;
            let (text, number, number_expr) = if text_is_left { (&a, &b, right) } else { (&b, &a, left) };
            // A text that is no number is null then, and costs no row.
            let as_number = instead(text_is_left, &format!("TRY_CAST({text} AS DOUBLE)"));
            match (equality, is_literal(number_expr)) {
                (true, true) => {
                    format!(
                        "{}, or {as_number} if it is to be read as a number",
                        instead(!text_is_left, &format!("'{number}'"))
                    )
                }
                (true, false) => instead(!text_is_left, &format!("CAST({number} AS VARCHAR)")),
                (false, _) => as_number,
            }
        }
        (Kind::Condition, Kind::Number) => condition_or_number(&a, &b, op),
        (Kind::Number, Kind::Condition) => condition_or_number(&b, &a, op),
        (Kind::Text, to) => instead(true, &converted(&a, Kind::Text, to, &DataType::Null)),
        (from, Kind::Text) => instead(false, &converted(&b, Kind::Text, from, &DataType::Null)),
        (Kind::Moment, Kind::Number) => converted(&b, Kind::Number, Kind::Moment, &DataType::Null),
        (Kind::Number, Kind::Moment) => converted(&a, Kind::Number, Kind::Moment, &DataType::Null),
        (Kind::Span, Kind::Number) | (Kind::Number, Kind::Span) => {
            "the length of time as INTERVAL '10' SECOND".to_owned()
        }
        (Kind::List, Kind::List) => ELEMENTS.to_owned(),
        _ => "one of them as the type of the other, with CAST".to_owned(),
    };
    refusal(format!("{message}; write {help}"), &[left, right])
}

/// The first members of two rows, or lists, that are written out and do not meet.
fn parts_that_differ<'a>(
    (left, left_type): (&'a Expr, &'a DataType),
    (right, right_type): (&'a Expr, &'a DataType),
) -> Option<[(&'a Expr, &'a DataType); 2]> {
    let (left, right) = (members(left, left_type)?, members(right, right_type)?);
    left.into_iter().zip(right).find(|(one, other)| !meet(one.1, other.1)).map(|(one, other)| [one, other])
}

fn members<'a>(expr: &'a Expr, data_type: &'a DataType) -> Option<Vec<(&'a Expr, &'a DataType)>> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let is_named = func.name() == "named_struct";
    let members = args.iter().skip(usize::from(is_named)).step_by(if is_named { 2 } else { 1 });
    match (func.name(), data_type) {
        ("struct" | "named_struct", DataType::Struct(fields)) => {
            Some(members.zip(fields.iter().map(|field| field.data_type())).collect())
        }
        ("make_array", DataType::List(field)) => {
            Some(members.map(|member| (member, field.data_type())).collect())
        }
        _ => None,
    }
}

fn condition_or_number(condition: &str, number: &str, op: Option<Operator>) -> String {
    match (op, number) {
        (Some(Operator::Eq), "1") | (Some(Operator::NotEq), "0") => format!("`{condition}`"),
        (Some(Operator::Eq), "0") | (Some(Operator::NotEq), "1") => format!("`NOT {condition}`"),
        _ => format!("CAST({condition} AS INT)"),
    }
}

fn refusal(message: String, at: &[&Expr]) -> DataFusionError {
    let span = at.iter().find_map(|expr| span_of(expr));
    DataFusionError::Plan(message.clone()).with_diagnostic(Diagnostic::new_error(message, span))
}

/// Where the first column of `expr` stands: literals do not know their place.
fn span_of(expr: &Expr) -> Option<Span> {
    let mut found = None;
    let looked = expr.apply(|expr| {
        if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = expr {
            found = column.spans.first();
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    looked.ok().and(found)
}

/// The text of a literal that is one.
pub(super) fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text),
            _,
        ) => text.as_deref(),
        Expr::Alias(alias) => text_of(&alias.expr),
        _ => None,
    }
}

/// `expr` as its author wrote it, more or less.
pub(super) fn written(expr: &Expr) -> String {
    match (expr, text_of(expr)) {
        (_, Some(text)) => format!("'{}'", text.replace('\'', "''")),
        (Expr::OuterReferenceColumn(_, column), _) => column.name.clone(),
        (other, _) => crate::sql::words::said(other),
    }
}

fn qualified(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => column.flat_name(),
        other => written(other),
    }
}
