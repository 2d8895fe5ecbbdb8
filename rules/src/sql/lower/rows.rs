//! What can be said of the rows that a statement makes something of: its [`Way`]s, and in which order its conditions are looked at.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column as Name, Result, ScalarValue};
use datafusion_expr::expr::InList;
use datafusion_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion_expr::{Between, BinaryExpr, Expr, Filter, LogicalPlan, Operator};
use tidegate_core::schema::FieldType;

use crate::index::{Band, Column, Equal, Value, Way};
use crate::sql::names::StreamSource;

/// No person writes a list that is longer, and a rule that asks for anything is not worth its place in the index.
const MOST_WAYS: usize = 64;

/// Has conditions that may fail looked at after those that cannot, and only for the rows that fulfil these: whether a row counts as bad does
/// not depend on the order in which conditions are written, nor on whether another row makes the rule run.
pub(super) fn safe_conditions_first(plan: LogicalPlan) -> Result<LogicalPlan> {
    let split = plan.transform_down(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(Transformed::no(node)) };
        if is_safe(&filter.predicate) {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let (safe, others): (Vec<_>, Vec<_>) = split_conjunction_owned(filter.predicate.clone()).into_iter().partition(is_safe);
        let (Some(safe), Some(others)) = (conjunction(safe), conjunction(others)) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let first = LogicalPlan::Filter(Filter::try_new(safe, filter.input)?);
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(others, Arc::new(first))?)))
    })?;
    Ok(split.data)
}

/// What a row must look like for a statement with this plan to make anything of it. `None`: it must see every row.
pub(super) fn ways(plan: &LogicalPlan) -> Option<Vec<Way>> {
    let mut found = Vec::new();
    conditions(plan, &mut found)?;
    found.into_iter().filter(|ways| ways.len() <= MOST_WAYS).reduce(|a, b| both(&a, &b))
}

/// Adds what the conditions of `plan` ask for. Returns whether none of it can fail; `None`: rows are not looked at one by one.
fn conditions(plan: &LogicalPlan, found: &mut Vec<Vec<Way>>) -> Option<bool> {
    match plan {
        LogicalPlan::TableScan(_) => Some(true),
        LogicalPlan::SubqueryAlias(alias) => conditions(&alias.input, found),
        LogicalPlan::Projection(projection) => {
            let safe = conditions(&projection.input, found)?;
            Some(safe && projection.expr.iter().all(is_safe))
        }
        LogicalPlan::Filter(filter) => {
            let safe = conditions(&filter.input, found)? && is_safe(&filter.predicate);
            if safe {
                found.extend(split_conjunction(&filter.predicate).into_iter().filter_map(|expr| asks(expr, &filter.input)));
            }
            Some(safe)
        }
        _ => None,
    }
}

/// Whether `expr` has a value for every row. More have than are known here.
fn is_safe(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => is_safe(&alias.expr),
        Expr::Not(expr) | Expr::IsNull(expr) | Expr::IsNotNull(expr) | Expr::IsTrue(expr) | Expr::IsFalse(expr) => is_safe(expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => never_fails(*op) && is_safe(left) && is_safe(right),
        Expr::Between(Between { expr, low, high, .. }) => is_safe(expr) && is_safe(low) && is_safe(high),
        Expr::InList(InList { expr, list, .. }) => is_safe(expr) && list.iter().all(is_safe),
        _ => false,
    }
}

fn never_fails(op: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(op, And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// What rows for which `expr` holds look like; `None` when that cannot be told.
fn asks(expr: &Expr, input: &LogicalPlan) -> Option<Vec<Way>> {
    match expr {
        Expr::Alias(alias) => asks(&alias.expr, input),
        Expr::IsTrue(expr) => asks(expr, input),
        Expr::Column(_) => truth(expr, true, input),
        Expr::Not(expr) | Expr::IsFalse(expr) => truth(expr, false, input),
        Expr::InList(InList { expr, list, negated: false }) if list.len() <= MOST_WAYS => {
            list.iter().map(|value| Some(Way { equal: Some(equal(expr, value, input)?), band: None })).collect()
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let (low, high) = (compare(expr, Operator::GtEq, low, input)?, compare(expr, Operator::LtEq, high, input)?);
            Some(vec![low.and(&high)])
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => match (asks(left, input), asks(right, input)) {
                (Some(a), Some(b)) => Some(both(&a, &b)),
                (one, other) => one.or(other),
            },
            Operator::Or => {
                let (mut a, b) = (asks(left, input)?, asks(right, input)?);
                a.extend(b);
                (a.len() <= MOST_WAYS).then_some(a)
            }
            _ => match compare(left, *op, right, input) {
                None => Some(vec![compare(right, op.swap()?, left, input)?]),
                Some(way) => Some(vec![way]),
            },
        },
        _ => None,
    }
}

/// The ways of rows that fulfil both: each of the better ones, with what the others ask for if there is only one.
fn both(a: &[Way], b: &[Way]) -> Vec<Way> {
    let cost = |ways: &[Way]| (ways.iter().map(Way::cost).max(), ways.len());
    let (better, other) = if cost(a) <= cost(b) { (a, b) } else { (b, a) };
    match other {
        [other] => better.iter().map(|way| way.and(other)).collect(),
        _ => better.to_vec(),
    }
}

fn truth(expr: &Expr, value: bool, input: &LogicalPlan) -> Option<Vec<Way>> {
    let column = column(expr, input).filter(|column| column.kind == FieldType::Bool)?;
    Some(vec![Way { equal: Some(Equal { column, value: Value::Number(i64::from(value)) }), band: None }])
}

fn equal(expr: &Expr, literal: &Expr, input: &LogicalPlan) -> Option<Equal> {
    let column = column(expr, input)?;
    let value = value(literal, column.kind)?;
    Some(Equal { column, value })
}

fn compare(expr: &Expr, op: Operator, literal: &Expr, input: &LogicalPlan) -> Option<Way> {
    let Equal { column, value } = equal(expr, literal, input)?;
    if op == Operator::Eq {
        return Some(Way { equal: Some(Equal { column, value }), band: None });
    }
    let Value::Number(number) = value else { return None };
    let (low, high) = match op {
        Operator::Gt | Operator::GtEq => (number, i64::MAX),
        Operator::Lt | Operator::LtEq => (i64::MIN, number),
        _ => return None,
    };
    Some(Way { equal: None, band: Some(Band { column, low, high }) })
}

/// A literal of exactly the type of the column: then nothing is converted when they are compared.
fn value(literal: &Expr, kind: FieldType) -> Option<Value> {
    let Expr::Literal(value, _) = literal else { return None };
    match (value, kind) {
        (ScalarValue::Int64(Some(value)), FieldType::Int64) => Some(Value::Number(*value)),
        (ScalarValue::Float64(Some(value)), FieldType::Float64) => Value::float(*value),
        (ScalarValue::TimestampNanosecond(Some(value), Some(_)), FieldType::Timestamp) => Some(Value::Number(*value)),
        (ScalarValue::Boolean(Some(value)), FieldType::Bool) => Some(Value::Number(i64::from(*value))),
        (ScalarValue::Utf8(Some(value)), FieldType::Utf8) => Some(Value::Text(Arc::from(value.as_str()))),
        _ => None,
    }
}

/// The column of the stream that `expr` is, seen from above `plan`.
fn column(expr: &Expr, plan: &LogicalPlan) -> Option<Column> {
    let name = match expr {
        Expr::Alias(alias) => return column(&alias.expr, plan),
        Expr::Column(name) => name,
        _ => return None,
    };
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source = scan.source.downcast_ref::<StreamSource>()?;
            let (index, field) = datafusion_expr::TableSource::schema(source).column_with_name(&name.name).map(|(i, f)| (i, f.clone()))?;
            Some(Column { index, name: Arc::from(field.name().as_str()), kind: FieldType::of(field.data_type())? })
        }
        LogicalPlan::Filter(filter) => column(expr, &filter.input),
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(name)?;
            let inner: Name = alias.input.schema().columns().into_iter().nth(index)?;
            column(&Expr::Column(inner), &alias.input)
        }
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(name)?;
            column(projection.expr.get(index)?, &projection.input)
        }
        _ => None,
    }
}
