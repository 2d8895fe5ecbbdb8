//! What a statement says that is SQL, and probably not what its author wants.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Result, plan_datafusion_err};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Aggregate, Expr, ExprSchemable, Filter, LogicalPlan};
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr as Written, Query, SetExpr, TableFactor, Value, ValueWithSpan, Visit,
    visit_expressions,
};
use tidegate_core::Diagnostic;

use super::complaint::{at, at_first, in_clause, near_first};
use super::lower::{has_window, window_below, window_column};
use super::names::Names;
use super::options::{EmitRows, SqlOptions};
use super::table_functions::{Window, WindowKind};
use super::text::{Body, Statement};
use super::wall_clock::asks_for_now;
use super::words::{interval, local_zone, said};
use crate::options::OptionLines;
use crate::{Catalog, Mode};

mod bounds;

/// Warns of what can be seen in `text` alone.
pub(super) fn of_text(text: &impl Visit, names: &Names<'_>) {
    let mut contradictions = BTreeSet::new();
    let _: ControlFlow<()> = visit_expressions(text, |expr| {
        if let Some(what) = bounds::reversed(expr) {
            names.warn(what);
        }
        // An AND is part of the AND around it.
        if let Some(what) = bounds::contradiction(expr).filter(|what| contradictions.insert(what.to_string()))
        {
            names.warn(what);
        }
        if let Some((null, is)) = compared_with_null(expr) {
            let what = plan_datafusion_err!(
                "nothing is equal or unequal to NULL, so this never holds; write `{is}`"
            );
            names.warn(at(null, what));
        }
        if let Written::BinaryOp { left, op: BinaryOperator::BitwiseXor, right } = expr {
            let what = plan_datafusion_err!(
                "`^` is no power here: it is where the bits of two whole numbers differ; write \
                `power({left}, {right})` for the power"
            );
            names.warn(at(expr, what));
        }
        ControlFlow::Continue(())
    });
}

/// Warns of what can be seen in `plan`.
pub(super) fn of_plan(plan: &LogicalPlan, names: &Names<'_>) -> Result<()> {
    plan.apply(|node| {
        if let LogicalPlan::Extension(extension) = node
            && let Some(window) = extension.node.as_any().downcast_ref::<Window>()
        {
            names.note_window();
            hop_with_gaps(window).into_iter().for_each(|what| names.warn(what));
        }
        let what = match node {
            LogicalPlan::Filter(filter) => silence(filter)?,
            LogicalPlan::Aggregate(aggregate) => windows_of_all(aggregate),
            _ => None,
        };
        if let Some(what) = what {
            names.warn(what);
        }
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Some(what) = local_time_of_no_zone(expr, &schema) {
                    names.warn(near_first([expr], what));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// `HOP` whose slide is longer than its windows: most likely, they have changed places.
fn hop_with_gaps(window: &Window) -> Option<DataFusionError> {
    let WindowKind::Time(windows) = window.kind else { return None };
    let (slide, size) = (windows.step_ns(), windows.size_ns());
    if slide <= size {
        return None;
    }
    let (slide, size) = (interval(0, 0, slide), interval(0, 0, size));
    let what = plan_datafusion_err!(
        "`HOP` leaves out rows: windows of {size} begin every {slide}; it takes the slide first: HOP(stream, \
        DESCRIPTOR(ts), {size}, {slide})"
    );
    Some(what)
}

/// Statements that write to an output with each row, as one before them does. Where one has a condition, as in
/// a pair of on and off, both may be meant.
pub(super) fn of_outputs(
    file: &str,
    statements: &[Statement],
    mode: Mode,
    catalog: &Catalog,
) -> Vec<Diagnostic> {
    let mut written: BTreeMap<&str, u32> = BTreeMap::new();
    let mut warnings = Vec::new();
    if mode != Mode::Active {
        return warnings;
    }
    let mut views = BTreeSet::new();
    for statement in statements {
        let (target, query) = match &statement.body {
            Body::View { name, .. } => {
                views.insert(name.as_str());
                continue;
            }
            Body::Insert { target, query, .. } => (target, query),
        };
        let line = statement.start.map_or(1, |start| start.line);
        if !catalog.outputs.contains_key(target) || !is_unconditional(query, &views) {
            continue;
        }
        if let Some(first) = written.get(target.as_str()) {
            let what = format!(
                "the statement in line {first} writes to the output `{target}`, too: the row that comes \
                last decides what it does"
            );
            let help = "let one statement write it, with CASE or UNION ALL, so that a row says one thing";
            warnings.push(Diagnostic::new(file, what).at(statement.start).help(help.to_owned()).warning());
        } else {
            written.insert(target, line);
        }
    }
    warnings
}

/// Whether each row, or each group, of a stream gives a row.
fn is_unconditional(query: &Query, views: &BTreeSet<&str>) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let [from] = select.from.as_slice() else { return false };
    let is_stream = match &from.relation {
        TableFactor::Table { name, .. } => !views.contains(name.to_string().as_str()),
        _ => false,
    };
    let has_condition = select.selection.is_some() || select.having.is_some() || select.qualify.is_some();
    is_stream && from.joins.is_empty() && !has_condition
}

/// Options that say when windows write, where there are none.
pub(super) fn of_options(
    lines: &OptionLines<'_>,
    options: &SqlOptions,
    has_windows: bool,
) -> Vec<Diagnostic> {
    let written = [("emit", options.emit == EmitRows::Row), ("emit_every", options.emit_every.is_some())];
    let idle = written.into_iter().filter(|(_, said)| *said && !has_windows);
    idle.map(|(option, _)| {
        let what = format!("`{option}` says when windows write, and the rule has none");
        let help =
            "leave it out, or read a window: FROM TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND)";
        lines.warning(option, what, help)
    })
    .collect()
}

/// `to_local_time(ts)`, which gives `ts` back.
fn local_time_of_no_zone(expr: &Expr, schema: &DFSchema) -> Option<DataFusionError> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let argument = call.args.first().filter(|_| call.func.name() == "to_local_time")?;
    let data_type = argument.get_type(schema).ok()?;
    if local_zone(&data_type).is_some() {
        return None;
    }
    let (text, utc) = (said(argument), matches!(data_type, DataType::Timestamp(_, Some(_))));
    let why = if utc { "whose clocks show UTC" } else { "which has no zone" };
    Some(plan_datafusion_err!(
        "`to_local_time({text})` leaves `{text}` as it is, {why}; say which zone: to_local_time({text} AT \
        TIME ZONE 'Europe/Berlin')"
    ))
}

/// `HAVING now() - max(ts) > ..` of groups that have no window: a group is looked at when a row of it comes.
fn silence(filter: &Filter) -> Result<Option<DataFusionError>> {
    let LogicalPlan::Aggregate(aggregate) = &*filter.input else { return Ok(None) };
    if has_window(&aggregate.input)? || !asks_for_now(&filter.predicate) {
        return Ok(None);
    }
    let what = plan_datafusion_err!(
        "a group is looked at only when one of its rows comes, so that this cannot find a silent one; write \
        FROM SESSION(stream PARTITION BY device, DESCRIPTOR(ts), INTERVAL '10' SECOND) with `--! idle_after \
        = \"10s\"`"
    );
    Ok(Some(in_clause("HAVING", what)))
}

/// Windows that end by their rows, of all keys together, where GROUP BY names a key.
fn windows_of_all(aggregate: &Aggregate) -> Option<DataFusionError> {
    let window = window_below(&aggregate.input).filter(|window| window.partition.is_empty())?;
    let key = aggregate.group_expr.iter().find(|expr| window_column(expr, &aggregate.input).is_none())?;
    let (name, why) = match window.kind {
        WindowKind::Time(_) => return None,
        WindowKind::Session { .. } => ("SESSION", "ends when all keys together are silent"),
        WindowKind::Count { .. } => ("COUNT_WINDOW", "counts the rows of all keys together"),
        WindowKind::State => ("STATE_WINDOW", "is opened and closed by rows of any key"),
    };
    let (written, key) = (key, said(key));
    let what = plan_datafusion_err!(
        "this {name} {why}, and not of each `{key}`; write {name}(stream PARTITION BY {key}, ..)"
    );
    Some(at_first([written], what))
}

/// The NULL of `x = NULL`, and what is meant.
fn compared_with_null(expr: &Written) -> Option<(&Written, &'static str)> {
    let Written::BinaryOp { left, op, right } = expr else { return None };
    let is = match op {
        BinaryOperator::Eq => "IS NULL",
        BinaryOperator::NotEq => "IS NOT NULL",
        _ => return None,
    };
    let is_null = |side: &&Written| matches!(side, Written::Value(ValueWithSpan { value: Value::Null, .. }));
    Some(([&**right, &**left].into_iter().find(is_null)?, is))
}
