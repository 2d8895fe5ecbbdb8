//! Windows: the table functions in FROM, and what the columns that they add mean further up.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result, TableReference, plan_datafusion_err, plan_err};
use datafusion_expr::{Expr, LogicalPlan, Projection};

use super::aggregate::nanoseconds;
use super::{Asked, Lowering, key, physical, unqualified};
use crate::sql::names::Names;
use crate::sql::operators::{CUT_ROWS, Cut, CutWindow, Operator, RowWindows, Source, TimeWindow};
use crate::sql::table_functions::{
    WINDOW_COLUMNS, WINDOW_END, WINDOW_TIME, WINDOW_TIME_NS, Window, WindowKind, with_window_columns,
};
use tidegate_core::TS;

/// How many copies of a row are made at most, where windows cannot share what is added up.
const MAX_COPIES: i64 = 1_000;

impl Lowering<'_> {
    pub(super) fn window(&mut self, window: &Window) -> Result<Box<dyn Operator>> {
        let asked = std::mem::replace(&mut self.asked, Asked::Windows);
        let input = self.lower(&window.input)?;
        let schema = with_window_columns(input.schema());
        let by_time = matches!(window.kind, WindowKind::Time(_) | WindowKind::Session { .. });
        if by_time && input.delay_ns() == i64::MAX {
            return plan_err!(
                "`ts` of rows whose window ends by its rows can be any time ago, so that no window over \
                them could ever close; give the time of their window: SELECT window_time AS ts, .. GROUP BY \
                window_start, window_end"
            );
        }
        let below = window.input.schema();
        let partition = window.partition.iter().map(unqualified).collect::<Vec<_>>();
        let conditions = window.conditions.iter().map(unqualified).collect::<Vec<_>>();
        let fingerprint = window.describe(&input.origin(), &partition, &conditions);
        let cut = match window.kind {
            WindowKind::Time(windows) => {
                let windows = if matches!(asked, Asked::Panes) { windows.panes() } else { windows };
                if windows.overlap() > MAX_COPIES {
                    return plan_err!(
                        "each row would come in {} windows, because what is computed here cannot be put \
                        together from parts; make the slide longer, or the window shorter",
                        windows.overlap()
                    );
                }
                return Ok(Box::new(TimeWindow::new(input, windows, schema)));
            }
            WindowKind::Session { gap_ns } => Cut::Gap(gap_ns),
            WindowKind::Count { size, every } => Cut::Rows { size: size as usize, every: u64::from(every) },
            WindowKind::State => match window.conditions.as_slice() {
                [open, close] => Cut::State { open: physical(open, below)?, close: physical(close, below)? },
                _ => return plan_err!("a state window has two conditions"),
            },
        };
        // Time ends a session.
        let ttl_ns = self.options.state_ttl.map(nanoseconds).filter(|_| !by_time);
        let keyed = |(index, expr): (usize, &Expr)| {
            let expr = key(expr, below)?;
            let data_type = expr.data_type(below.as_arrow())?;
            Ok((expr, arrow::datatypes::Field::new(format!("key{index}"), data_type, true)))
        };
        let partition = window.partition.iter().enumerate().map(keyed).collect::<Result<_>>()?;
        if matches!(asked, Asked::Cutting) {
            self.asked =
                Asked::Cut(CutWindow { input, cut: (cut, ttl_ns), partition, schema: Arc::clone(&schema) });
            return Ok(Box::new(Source::new(Arc::from(CUT_ROWS), schema)));
        }
        Ok(Box::new(RowWindows::new(input, fingerprint, (cut, ttl_ns), partition, schema)?))
    }
}

/// Warns of windows over windows that go by the end of those below: it belongs to the next window.
pub(super) fn warn_of_ends(plan: &LogicalPlan, names: &Names<'_>) -> Result<()> {
    plan.apply(|node| {
        if let LogicalPlan::Extension(extension) = node
            && let Some(window) = extension.node.as_any().downcast_ref::<Window>()
            && matches!(window.kind, WindowKind::Time(_))
            && let Some(ts_of) = window.input.schema().columns().into_iter().find(|column| column.name == TS)
            && let Some(WindowColumn { name: WINDOW_END, .. }) =
                window_column(&Expr::Column(ts_of.clone()), &window.input)
        {
            let data = ts_of.relation.as_ref().map_or("the data", TableReference::table);
            names.warn(plan_datafusion_err!(
                "`{data}` has window_end as its ts: the window that ends at 11:00 counts in the hour that \
                begins then; write `window_time AS ts`"
            ));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// How much the `ts` that `projection` gives may be behind the watermark, when its input is `input`.
pub(super) fn delay_ns(projection: &Projection, input: &dyn Operator) -> i64 {
    let ts = projection
        .schema
        .fields()
        .iter()
        .position(|field| field.name() == TS)
        .and_then(|index| projection.expr.get(index));
    let Some(found) = ts.and_then(|ts| window_column(ts, &projection.input)) else { return input.delay_ns() };
    match (found.kind, found.name) {
        (_, WINDOW_END) => input.end_delay_ns(),
        // A window above that holds it ends with it, or later, since both end with a millisecond.
        (WindowKind::Time(windows), WINDOW_TIME) if windows.end_with(WINDOW_TIME_NS) => input.end_delay_ns(),
        (_, WINDOW_TIME) => input.end_delay_ns().saturating_add(WINDOW_TIME_NS),
        // An aggregate allows for the start of its windows anyway.
        (WindowKind::Time(windows), _) if !found.aggregated => {
            input.delay_ns().saturating_add(windows.size_ns())
        }
        _ => input.delay_ns(),
    }
}

/// A column that a window has added.
#[derive(Debug, Clone, Copy)]
pub(in crate::sql) struct WindowColumn {
    pub name: &'static str,
    pub kind: WindowKind,
    /// whether an aggregate that goes by it lies between
    pub aggregated: bool,
}

/// Which window column `expr` is, seen from above `plan`.
pub(in crate::sql) fn window_column(expr: &Expr, plan: &LogicalPlan) -> Option<WindowColumn> {
    let column = match expr {
        Expr::Alias(alias) => return window_column(&alias.expr, plan),
        Expr::Column(column) => column,
        _ => return None,
    };
    match plan {
        LogicalPlan::Filter(filter) => window_column(expr, &filter.input),
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(column)?;
            let inner = alias.input.schema().columns().into_iter().nth(index)?;
            window_column(&Expr::Column(inner), &alias.input)
        }
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column)?;
            window_column(projection.expr.get(index)?, &projection.input)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let index = aggregate.schema.maybe_index_of_column(column)?;
            let found = window_column(aggregate.group_expr.get(index)?, &aggregate.input)?;
            Some(WindowColumn { aggregated: true, ..found })
        }
        LogicalPlan::Extension(extension) => {
            let window = extension.node.as_any().downcast_ref::<Window>()?;
            // The window's own columns are the last ones.
            let own = window.schema_index(column)?.checked_sub(window.input.schema().fields().len())?;
            let name = WINDOW_COLUMNS.into_iter().nth(own)?;
            Some(WindowColumn { name, kind: window.kind, aggregated: false })
        }
        _ => None,
    }
}

/// Whether some window is below, down to the next aggregate.
pub(in crate::sql) fn has_window(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Extension(extension) if extension.node.as_any().is::<Window>());
        Ok(if matches!(node, LogicalPlan::Aggregate(_)) {
            TreeNodeRecursion::Jump
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// Whether nothing from `plan` down to its window, nor `above` it, computes anything of the window's columns:
/// then rows need not know which windows they are in.
pub(super) fn ignores_bounds(plan: &LogicalPlan, above: &[&Expr]) -> bool {
    let free =
        |expr: &Expr, plan: &LogicalPlan| expr.column_refs().iter().all(|column| !is_bound(column, plan));
    if !above.iter().all(|expr| free(expr, plan)) {
        return false;
    }
    match plan {
        LogicalPlan::Filter(filter) => ignores_bounds(&filter.input, &[&filter.predicate]),
        LogicalPlan::SubqueryAlias(alias) => ignores_bounds(&alias.input, &[]),
        LogicalPlan::Projection(projection) => {
            let computed: Vec<&Expr> = projection
                .expr
                .iter()
                .filter(|expr| window_column(expr, &projection.input).is_none())
                .collect();
            ignores_bounds(&projection.input, &computed)
        }
        LogicalPlan::Extension(extension) => extension.node.as_any().is::<Window>(),
        _ => false,
    }
}

/// `expr`, said in columns of what the window below `plan` reads. `None`: it cannot be.
pub(super) fn before_window(expr: &Expr, plan: &LogicalPlan) -> Option<Expr> {
    let replaced = |replace: &dyn Fn(&Column) -> Option<Expr>| {
        let mut known = true;
        let expr = expr.clone().transform_up(|expr| match &expr {
            Expr::Column(column) => match replace(column) {
                Some(replaced) => Ok(Transformed::yes(replaced)),
                None => {
                    known = false;
                    Ok(Transformed::no(expr))
                }
            },
            _ => Ok(Transformed::no(expr)),
        });
        expr.ok().map(|expr| expr.data).filter(|_| known)
    };
    match plan {
        LogicalPlan::Filter(filter) => before_window(expr, &filter.input),
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = alias.input.schema().columns();
            let of = |column: &Column| {
                Some(Expr::Column(inner.get(alias.schema.maybe_index_of_column(column)?)?.clone()))
            };
            before_window(&replaced(&of)?, &alias.input)
        }
        LogicalPlan::Projection(projection) => {
            let of = |column: &Column| {
                projection.expr.get(projection.schema.maybe_index_of_column(column)?).cloned()
            };
            before_window(&replaced(&of)?, &projection.input)
        }
        LogicalPlan::Extension(_) => Some(expr.clone()),
        _ => None,
    }
}

/// The window below `plan`, with nothing but filters and projections between.
pub(in crate::sql) fn window_below(plan: &LogicalPlan) -> Option<&Window> {
    match plan {
        LogicalPlan::Filter(filter) => window_below(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => window_below(&alias.input),
        LogicalPlan::Projection(projection) => window_below(&projection.input),
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<Window>(),
        _ => None,
    }
}

fn is_bound(column: &Column, plan: &LogicalPlan) -> bool {
    window_column(&Expr::Column(column.clone()), plan).is_some()
}
