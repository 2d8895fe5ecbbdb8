//! Aggregates: GROUP BY over a window, or with a time to live; DISTINCT is one without aggregates.

use std::sync::Arc;

use datafusion_common::{Result, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Aggregate, Distinct, Expr, LogicalPlan};
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;
use tidegate_core::Span;

use super::window::{before_window, has_window, ignores_bounds, window_below, window_column};
use super::{Asked, Lowering, key, nullable, spelled_out, unqualified};
use crate::sql::operators::{
    AggregateCall, Bound, Emit, GroupColumn, Groups, Operator, RowWindowAggregate, RunningAggregate,
    WholeWindows, WindowAggregate, WindowGroups,
};
use crate::sql::options::EmitRows;
use crate::sql::table_functions::{WINDOW_START, WINDOW_TIME, WindowKind};
use crate::sql::wall_clock::asks_for_now;

/// Aggregates whose result depends on the order of rows where no ORDER BY gives one.
const ORDERED: [&str; 6] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value", "any_value"];

/// Windows of more panes than this have a size and a slide that hardly fit together.
const MAX_PANES: i64 = 100_000;

/// What GROUP BY names.
#[derive(Default)]
struct Named {
    /// the windows, if it names a bound of theirs
    kind: Option<WindowKind>,
    names_end: bool,
    columns: Vec<GroupColumn>,
    bound: Option<Bound>,
    /// without the bounds
    keys: Keys,
    key_names: Vec<String>,
    /// with the bounds
    all: Keys,
}

type Keys = Vec<(Arc<dyn datafusion_physical_expr::PhysicalExpr>, arrow::datatypes::Field)>;

impl Lowering<'_> {
    pub(super) fn distinct(&mut self, distinct: &Distinct) -> Result<Box<dyn Operator>> {
        match distinct {
            Distinct::All(input) => {
                let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                if !columns.iter().any(|column| window_column(column, input).is_some()) {
                    return plan_err!(
                        "DISTINCT on an endless stream needs endless memory; use a window and select it: \
                        SELECT DISTINCT window_start, window_end, .. FROM TUMBLE(..)"
                    );
                }
                self.aggregate(&Aggregate::try_new(Arc::clone(input), columns, Vec::new())?)
            }
            Distinct::On(_) => {
                plan_err!(
                    "DISTINCT ON is not supported; use first_value: SELECT first_value(x ORDER BY ts) .. \
                    GROUP BY window_start, window_end, .."
                )
            }
        }
    }

    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Box<dyn Operator>> {
        let Named { kind, names_end, columns, bound, keys, key_names, all } = named(aggregate)?;
        let (Some(kind), Some(bound)) = (kind, bound) else { return self.groups(aggregate, all, &key_names) };
        let calls = calls(aggregate)?;
        let schema = nullable(aggregate.schema.as_arrow());
        let early = self.emit();
        let WindowKind::Time(windows) = kind else {
            if early.is_some() {
                return plan_err!(
                    "`emit` and `emit_every` are for TUMBLE, HOP and CUMULATE; the rows of other windows \
                    come when these are complete"
                );
            }
            return self.of_rows(
                aggregate,
                Named { kind: Some(kind), names_end, columns, bound: None, keys, key_names, all },
                calls,
            );
        };
        if windows.grow() && !names_end {
            return plan_err!(
                "the windows of CUMULATE that start together differ by their end; add `GROUP BY \
                window_start, window_end`"
            );
        }
        let above: Vec<&Expr> = aggregate
            .group_expr
            .iter()
            .filter(|expr| window_column(expr, &aggregate.input).is_none())
            .chain(&aggregate.aggr_expr)
            .collect();
        let by_panes = early.is_none()
            && !windows.are_panes()
            && windows.panes_in_one() <= MAX_PANES
            && !aggregate.aggr_expr.iter().any(goes_by_order)
            && ignores_bounds(&aggregate.input, &above);
        let names = key_names.join(", ");
        self.asked = if by_panes { Asked::Panes } else { Asked::Windows };
        let below = self.lower(&aggregate.input)?;
        self.asked = Asked::Windows;
        let what = format!("{} BY ({names})", windows.describe(&below.origin()));
        let groups = Groups { columns, bound, keys };
        if let Some(emit) = early {
            return Ok(Box::new(RunningAggregate::of_windows(
                below,
                format!("EARLY {what}"),
                (windows, emit),
                groups,
                calls,
                schema,
            )));
        }
        let what = if by_panes || windows.are_panes() { what } else { format!("COPIES {what}") };
        Ok(Box::new(WindowAggregate::new(below, what, (windows, by_panes), groups, calls, schema)?))
    }

    /// Over windows that end by their rows.
    fn of_rows(
        &mut self,
        aggregate: &Aggregate,
        named: Named,
        calls: Vec<AggregateCall>,
    ) -> Result<Box<dyn Operator>> {
        let schema = nullable(aggregate.schema.as_arrow());
        let names = named.key_names.join(", ");
        if !can_add_up(aggregate, &named) {
            let below = self.lower(&aggregate.input)?;
            let fingerprint = format!("{} BY ({names})", below.origin());
            return Ok(Box::new(WholeWindows::new(below, fingerprint, named.all, calls, schema)));
        }
        self.asked = Asked::Cutting;
        let between = self.lower(&aggregate.input)?;
        let Asked::Cut(window) = std::mem::replace(&mut self.asked, Asked::Windows) else {
            return plan_err!("the aggregate has no window of its own");
        };
        let what = window_below(&aggregate.input).map(|below| {
            let texts = |exprs: &[Expr]| exprs.iter().map(unqualified).collect::<Vec<_>>();
            below.describe(&window.input.origin(), &texts(&below.partition), &texts(&below.conditions))
        });
        let fingerprint = format!("{} BY ({names})", what.unwrap_or_default());
        let groups =
            WindowGroups { columns: named.columns, keys: named.keys, of_partition: of_partition(aggregate) };
        Ok(Box::new(RowWindowAggregate::new(window, fingerprint, between, groups, calls, schema)?))
    }

    /// GROUP BY without a window.
    fn groups(
        &mut self,
        aggregate: &Aggregate,
        keys: Keys,
        key_names: &[String],
    ) -> Result<Box<dyn Operator>> {
        if has_window(&aggregate.input)? {
            return plan_err!("the aggregate must go by window; add `GROUP BY window_start, window_end`");
        }
        let Some(ttl) = self.options.state_ttl else {
            return plan_err!(
                "an aggregate over an endless stream never ends; read a window: FROM TUMBLE(stream, \
                DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, or say with `--! \
                state_ttl = \"1h\"` how long a silent group is kept"
            );
        };
        let calls = calls(aggregate)?;
        let below = self.lower(&aggregate.input)?;
        let fingerprint = format!("GROUPS({}) BY ({})", below.origin(), key_names.join(", "));
        let emit = self.emit().unwrap_or(Emit { rows: true, every_ns: None });
        let schema = nullable(aggregate.schema.as_arrow());
        Ok(Box::new(RunningAggregate::of_groups(
            below,
            fingerprint,
            (nanoseconds(ttl), emit),
            keys,
            calls,
            schema,
        )))
    }

    /// What the options say about early results.
    fn emit(&self) -> Option<Emit> {
        let emit = Emit {
            rows: self.options.emit == EmitRows::Row,
            every_ns: self.options.emit_every.map(nanoseconds),
        };
        (emit.rows || emit.every_ns.is_some()).then_some(emit)
    }
}

pub(super) fn nanoseconds(span: Span) -> i64 {
    i64::try_from(span.0.as_nanos()).unwrap_or(i64::MAX).max(1)
}

/// Whether rows can be added up before their window is complete: nothing asks for its bounds, nor what time
/// it is then, no two windows share rows, and each is a group of its own.
fn can_add_up(aggregate: &Aggregate, named: &Named) -> bool {
    let Some(window) = window_below(&aggregate.input) else { return false };
    let is_bound = |expr: &&Expr| window_column(expr, &aggregate.input).is_some();
    let above: Vec<&Expr> =
        aggregate.group_expr.iter().filter(|expr| !is_bound(expr)).chain(&aggregate.aggr_expr).collect();
    let groups: Vec<String> = aggregate
        .group_expr
        .iter()
        .filter_map(|expr| before_window(expr, &aggregate.input))
        .map(|expr| unqualified(&expr))
        .collect();
    let shares_rows = matches!(window.kind, WindowKind::Count { size, every } if size != every);
    let in_order =
        !matches!(window.kind, WindowKind::Session { .. }) || !aggregate.aggr_expr.iter().any(goes_by_order);
    let both_bounds =
        named.names_end && named.columns.iter().any(|column| matches!(column, GroupColumn::Start));
    let by_key = window.partition.iter().all(|key| groups.contains(&unqualified(key)));
    !shares_rows
        && in_order
        && both_bounds
        && by_key
        && ignores_bounds(&aggregate.input, &above)
        && !asks_above_window(&aggregate.input)
}

/// Whether something from `plan` down to its window asks for the time of day.
fn asks_above_window(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Filter(filter) => asks_for_now(&filter.predicate) || asks_above_window(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => asks_above_window(&alias.input),
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().any(asks_for_now) || asks_above_window(&projection.input)
        }
        _ => false,
    }
}

/// For each key of GROUP BY, without the bounds, which key of the window's partition it is.
fn of_partition(aggregate: &Aggregate) -> Vec<Option<usize>> {
    let partition: Vec<String> =
        window_below(&aggregate.input).iter().flat_map(|window| &window.partition).map(unqualified).collect();
    let keys = aggregate.group_expr.iter().filter(|expr| window_column(expr, &aggregate.input).is_none());
    keys.map(|key| {
        let key = unqualified(&before_window(key, &aggregate.input)?);
        partition.iter().position(|known| *known == key)
    })
    .collect()
}

fn named(aggregate: &Aggregate) -> Result<Named> {
    let input = aggregate.input.schema();
    let mut named = Named::default();
    for (index, expr) in aggregate.group_expr.iter().enumerate() {
        if matches!(expr, Expr::GroupingSet(_)) {
            return plan_err!(
                "GROUPING SETS, CUBE and ROLLUP are not supported; write one INSERT for each grouping"
            );
        }
        let lowered = key(expr, input)?;
        let field = aggregate.schema.field(index).as_ref().clone().with_nullable(true);
        named.all.push((Arc::clone(&lowered), field.clone()));
        match window_column(expr, &aggregate.input) {
            Some(column) => {
                if named.kind.is_some_and(|kind| kind != column.kind) {
                    return plan_err!(
                        "GROUP BY names the bounds of different windows; an aggregate goes by one"
                    );
                }
                named.kind = Some(column.kind);
                let (column, bound) = match column.name {
                    WINDOW_START => (GroupColumn::Start, Bound::Start(lowered)),
                    WINDOW_TIME => (GroupColumn::Time, Bound::Time(lowered)),
                    _ => (GroupColumn::End, Bound::End(lowered)),
                };
                named.columns.push(column);
                named.names_end |= !matches!(bound, Bound::Start(_));
                // The end says which window it is, even of those that start together.
                if named.bound.is_none() || !matches!(bound, Bound::Start(_)) {
                    named.bound = Some(bound);
                }
            }
            None => {
                named.columns.push(GroupColumn::Key(named.keys.len()));
                named.keys.push((lowered, field));
                named.key_names.push(unqualified(&spelled_out(expr, &aggregate.input)?));
            }
        }
    }
    Ok(named)
}

fn calls(aggregate: &Aggregate) -> Result<Vec<AggregateCall>> {
    let input = aggregate.input.schema();
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in &aggregate.aggr_expr {
        let lowered =
            LoweredAggregateBuilder::new(expr, input, input.as_arrow(), &props, &context).build()?;
        if !lowered.order_bys.is_empty() && lowered.aggregate.fun().name() == "nth_value" {
            return plan_err!(
                "nth_value with ORDER BY is not supported; write `array_agg(x ORDER BY ts)[n]`"
            );
        }
        let what = unqualified(&spelled_out(expr, &aggregate.input)?);
        calls.push(AggregateCall::new(lowered.aggregate, lowered.filter, what, input.as_arrow())?);
    }
    Ok(calls)
}

/// Whether the result of the aggregate depends on the order in which rows come.
fn goes_by_order(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => goes_by_order(&alias.expr),
        Expr::AggregateFunction(call) => {
            call.params.order_by.is_empty() && ORDERED.contains(&call.func.name())
        }
        _ => false,
    }
}
