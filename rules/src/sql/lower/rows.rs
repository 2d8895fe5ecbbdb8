//! What can be said of the rows that a statement makes something of: its [`Prefilter`]s, and in which order
//! its conditions are looked at.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column as Name, DFSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::InList;
use datafusion_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion_expr::{
    Between, BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, TableSource, cast,
};
use tidegate_core::schema::FieldType;

use super::physical;
use super::safety::is_safe;
use crate::index::{Prefilter, Source, Term, Value};
use crate::sql::names::StreamSource;
use crate::sql::operators::written;
use crate::sql::wall_clock::asks_for_now;

/// No person writes a list that is longer, and a rule that asks for anything is not worth its place in the
/// index.
const MOST_PREFILTERS: usize = 64;

/// Columns, constants and operators of a term. One that is longer is not worth being compared with others.
const MOST_PARTS: usize = 256;

/// Has conditions that may fail looked at after those that cannot, and only for the rows that fulfil these:
/// whether a row counts as bad does not depend on the order in which conditions are written, nor on whether
/// another row makes the rule run.
pub(super) fn safe_conditions_first(plan: LogicalPlan) -> Result<LogicalPlan> {
    let split = plan.transform_down(|node| {
        let LogicalPlan::Filter(filter) = node else { return Ok(Transformed::no(node)) };
        let is_safe = |expr: &Expr| is_safe(expr, filter.input.schema());
        if is_safe(&filter.predicate) {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let (safe, others): (Vec<_>, Vec<_>) =
            split_conjunction_owned(filter.predicate.clone()).into_iter().partition(is_safe);
        let (Some(safe), Some(others)) = (conjunction(safe), conjunction(others)) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let first = LogicalPlan::Filter(Filter::try_new(safe, filter.input)?);
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(others, Arc::new(first))?)))
    })?;
    Ok(split.data)
}

/// What a row must look like for a statement with this plan to make anything of it. `None`: it must see every
/// row.
pub(super) fn prefilters(plan: &LogicalPlan) -> Option<Vec<Prefilter>> {
    let mut found = Vec::new();
    conditions(plan, &mut found)?;
    found.into_iter().filter(|prefilters| prefilters.len() <= MOST_PREFILTERS).reduce(|a, b| both(&a, &b))
}

/// Adds what the conditions of `plan` ask for. Returns whether none of it can fail; `None`: rows are not
/// looked at one by one.
fn conditions(plan: &LogicalPlan, found: &mut Vec<Vec<Prefilter>>) -> Option<bool> {
    match plan {
        LogicalPlan::TableScan(_) => Some(true),
        LogicalPlan::SubqueryAlias(alias) => conditions(&alias.input, found),
        LogicalPlan::Projection(projection) => {
            let safe = conditions(&projection.input, found)?;
            Some(safe && projection.expr.iter().all(|expr| is_safe(expr, projection.input.schema())))
        }
        LogicalPlan::Filter(filter) => {
            let (below, safe) =
                (conditions(&filter.input, found)?, is_safe(&filter.predicate, filter.input.schema()));
            if below {
                match split_conjunction(&filter.predicate).as_slice() {
                    all if safe => found.extend(all.iter().filter_map(|expr| asks(expr, &filter.input))),
                    // Where it has no value for a row, it has none in the index either, and the rule is
                    // called.
                    [only] => found.extend(asks_of_one_term(only, &filter.input)),
                    _ => {}
                }
            }
            Some(below && safe)
        }
        _ => None,
    }
}

/// What rows for which `expr` holds look like; `None` when that cannot be told.
fn asks(expr: &Expr, input: &LogicalPlan) -> Option<Vec<Prefilter>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return asks_of_one_term(expr, input) };
    match op {
        Operator::And => match (asks(left, input), asks(right, input)) {
            (Some(a), Some(b)) => Some(both(&a, &b)),
            (one, other) => one.or(other),
        },
        Operator::Or => {
            let (mut a, b) = (asks(left, input)?, asks(right, input)?);
            a.extend(b);
            (a.len() <= MOST_PREFILTERS).then_some(a)
        }
        _ => asks_of_one_term(expr, input),
    }
}

/// The same for a condition that looks at one term only.
fn asks_of_one_term(expr: &Expr, input: &LogicalPlan) -> Option<Vec<Prefilter>> {
    let found = match expr {
        Expr::Alias(alias) => return asks_of_one_term(&alias.expr, input),
        Expr::IsTrue(expr) => return asks_of_one_term(expr, input),
        Expr::Not(expr) | Expr::IsFalse(expr) => return truth(expr, false, input),
        Expr::InList(InList { expr, list, negated: false }) if list.len() <= MOST_PREFILTERS => {
            let (term, data_type) = term(expr, input)?;
            list.iter()
                .map(|literal| Some(Prefilter::equal(term.clone(), value(literal, &data_type, term.kind)?)))
                .collect()
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let low = compare(expr, Operator::GtEq, low, input);
            low.zip(compare(expr, Operator::LtEq, high, input)).map(|(low, high)| vec![low.and(&high)])
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => compare(left, *op, right, input)
            .or_else(|| compare(right, op.swap()?, left, input))
            .map(|prefilter| vec![prefilter]),
        _ => None,
    };
    found.or_else(|| truth(expr, true, input))
}

/// The prefilters of rows that fulfil both: each of the better ones, with what the others ask for if there is
/// only one.
fn both(a: &[Prefilter], b: &[Prefilter]) -> Vec<Prefilter> {
    let cost = |prefilters: &[Prefilter]| (prefilters.iter().map(Prefilter::cost).max(), prefilters.len());
    let (better, other) = if cost(a) <= cost(b) { (a, b) } else { (b, a) };
    match other {
        [other] => better.iter().map(|prefilter| prefilter.and(other)).collect(),
        _ => better.to_vec(),
    }
}

fn truth(expr: &Expr, value: bool, input: &LogicalPlan) -> Option<Vec<Prefilter>> {
    let (term, _) = term(expr, input).filter(|(term, _)| term.kind == FieldType::Bool)?;
    Some(vec![Prefilter::equal(term, Value::Number(i64::from(value)))])
}

fn compare(expr: &Expr, op: Operator, literal: &Expr, input: &LogicalPlan) -> Option<Prefilter> {
    if !matches!(literal, Expr::Literal(..)) {
        return None;
    }
    let (term, data_type) = term(expr, input)?;
    let value = value(literal, &data_type, term.kind)?;
    match (op, value) {
        (Operator::Eq, value) => Some(Prefilter::equal(term, value)),
        (Operator::Gt | Operator::GtEq, Value::Number(number)) => {
            Some(Prefilter::band(term, number, i64::MAX))
        }
        (Operator::Lt | Operator::LtEq, Value::Number(number)) => {
            Some(Prefilter::band(term, i64::MIN, number))
        }
        _ => None,
    }
}

/// A literal of exactly the type that it is compared with: then nothing is converted when they are compared.
fn value(literal: &Expr, data_type: &DataType, kind: FieldType) -> Option<Value> {
    let Expr::Literal(value, _) = literal else { return None };
    if value.data_type() != *data_type {
        return None;
    }
    match value.cast_to(&kind.data_type()).ok()? {
        ScalarValue::Int64(value) => value.map(Value::Number),
        ScalarValue::Float64(value) => value.and_then(Value::float),
        ScalarValue::TimestampNanosecond(value, _) => value.map(Value::Number),
        ScalarValue::Boolean(value) => value.map(|value| Value::Number(i64::from(value))),
        ScalarValue::Utf8(value) => value.map(|value| Value::Text(Arc::from(value))),
        _ => None,
    }
}

/// What `expr`, seen from above `plan`, looks at, and its type.
fn term(expr: &Expr, plan: &LogicalPlan) -> Option<(Term, DataType)> {
    let (expr, stream) = of_stream(expr.clone(), plan)?;
    let schema = stream.schema();
    if let Expr::Column(column) = &expr {
        let (index, field) = schema.column_with_name(&column.name)?;
        let kind = FieldType::from_arrow(field.data_type()).filter(|kind| *kind != FieldType::Bytes)?;
        return Some((
            Term { name: Arc::from(column.name.as_str()), kind, source: Source::Column(index) },
            field.data_type().clone(),
        ));
    }
    if expr.column_refs().is_empty() || asks_for_now(&expr) {
        return None;
    }
    let schema = DFSchema::try_from(schema).ok()?;
    let data_type = expr.get_type(&schema).ok()?;
    let kind = kind_of(&data_type)?;
    let computed = physical(&expr, &schema).ok()?;
    let name = Arc::from(written(&computed));
    let computed = if kind.data_type() == data_type {
        computed
    } else {
        physical(&cast(expr, kind.data_type()), &schema).ok()?
    };
    Some((Term { name, kind, source: Source::Computed(computed) }, data_type))
}

/// The type of the index that orders values as `data_type` does.
fn kind_of(data_type: &DataType) -> Option<FieldType> {
    match data_type {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32 => Some(FieldType::Int64),
        DataType::Float32 => Some(FieldType::Float64),
        DataType::LargeUtf8 | DataType::Utf8View => Some(FieldType::Utf8),
        // Bytes have no order that a threshold could use.
        DataType::Binary => None,
        other => FieldType::from_arrow(other),
    }
}

/// `expr`, seen from above `plan`, in columns of the stream at the bottom of it.
fn of_stream(expr: Expr, plan: &LogicalPlan) -> Option<(Expr, &StreamSource)> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let bare = written_out(expr, &|column| Some(Expr::Column(Name::new_unqualified(&column.name))))?;
            Some((bare, scan.source.downcast_ref::<StreamSource>()?))
        }
        LogicalPlan::Filter(filter) => of_stream(expr, &filter.input),
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = alias.input.schema().columns();
            let known = |column: &Name| {
                Some(Expr::Column(inner.get(alias.schema.maybe_index_of_column(column)?)?.clone()))
            };
            of_stream(written_out(expr, &known)?, &alias.input)
        }
        LogicalPlan::Projection(projection) => {
            let known = |column: &Name| {
                projection.expr.get(projection.schema.maybe_index_of_column(column)?).cloned()
            };
            of_stream(written_out(expr, &known)?, &projection.input)
        }
        _ => None,
    }
}

/// `expr` with what `known` has for each of its columns, and without names for parts of it. `None` when there
/// is no such column, or when it would be too long: steps that use a column twice double it each time.
fn written_out(expr: Expr, known: &dyn Fn(&Name) -> Option<Expr>) -> Option<Expr> {
    let written = expr.transform_up(|expr| match expr {
        Expr::Column(column) => match known(&column) {
            Some(meant) => Ok(Transformed::yes(meant.unalias())),
            None => plan_err!("there is no column {column}"),
        },
        Expr::Alias(alias) => Ok(Transformed::yes(*alias.expr)),
        other => Ok(Transformed::no(other)),
    });
    let written = written.ok()?.data;
    let mut parts = 0;
    let is_short = written.apply(|_| {
        parts += 1;
        Ok(if parts > MOST_PARTS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    is_short.ok().filter(|_| parts <= MOST_PARTS).map(|_| written)
}
