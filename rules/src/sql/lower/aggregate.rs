//! Aggregates: GROUP BY over a window.

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Aggregate, Expr, LogicalPlan};
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;

use super::{Lowering, nullable, physical, unqualified};
use crate::sql::operators::{AggregateCall, Bound, GroupColumn, Groups, Operator, WindowAggregate};
use crate::sql::table_functions::{Tumble, WINDOW_END, WINDOW_START};

impl Lowering {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Box<dyn Operator>> {
        let below = self.lower(&aggregate.input)?;
        let input = aggregate.input.schema();
        let mut size_ns = None;
        let (mut columns, mut bound, mut keys, mut key_names) = (Vec::new(), None, Vec::new(), Vec::new());
        for (index, expr) in aggregate.group_expr.iter().enumerate() {
            match window_column(expr, &aggregate.input) {
                Some((name, size)) => {
                    let is_start = name == WINDOW_START;
                    columns.push(if is_start { GroupColumn::Start } else { GroupColumn::End });
                    let expr = physical(expr, input)?;
                    bound = Some(if is_start { Bound::Start(expr) } else { Bound::End(expr) });
                    size_ns = Some(size);
                }
                None => {
                    if matches!(expr, Expr::GroupingSet(_)) {
                        return plan_err!("GROUPING SETS, CUBE and ROLLUP are not supported; write one INSERT for each grouping");
                    }
                    columns.push(GroupColumn::Key(keys.len()));
                    keys.push((physical(expr, input)?, aggregate.schema.field(index).as_ref().clone().with_nullable(true)));
                    key_names.push(unqualified(expr));
                }
            }
        }
        let (Some(size_ns), Some(bound)) = (size_ns, bound) else {
            return match has_window(&aggregate.input)? {
                true => plan_err!("the aggregate must go by window; add `GROUP BY window_start, window_end`"),
                false => plan_err!(
                    "an aggregate over an endless stream never ends; read a window: FROM TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end"
                ),
            };
        };
        let props = ExecutionProps::new();
        let context = PhysicalPlanningContext::default();
        let mut calls = Vec::new();
        for expr in &aggregate.aggr_expr {
            let lowered = LoweredAggregateBuilder::new(expr, input, input.as_arrow(), &props, &context).build()?;
            if !lowered.order_bys.is_empty() {
                return plan_err!("ORDER BY inside `{}` is not supported; rows come in order of arrival", unqualified(expr));
            }
            calls.push(AggregateCall::new(lowered.aggregate, lowered.filter, unqualified(expr), input.as_arrow())?);
        }
        let fingerprint = format!("TUMBLE({}, {size_ns}ns) BY ({})", below.origin(), key_names.join(", "));
        let schema = nullable(aggregate.schema.as_arrow());
        Ok(Box::new(WindowAggregate::new(below, fingerprint, size_ns, Groups { columns, bound, keys }, calls, schema)))
    }
}

/// Whether some window is below, down to the next aggregate.
fn has_window(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Extension(extension) if extension.node.as_any().is::<Tumble>());
        Ok(if matches!(node, LogicalPlan::Aggregate(_)) { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Which window column `expr` is, seen from above `plan`, and how long the window is.
fn window_column(expr: &Expr, plan: &LogicalPlan) -> Option<(&'static str, i64)> {
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
        LogicalPlan::Extension(extension) => {
            let tumble = extension.node.as_any().downcast_ref::<Tumble>()?;
            [WINDOW_START, WINDOW_END].into_iter().find(|name| *name == column.name).map(|name| (name, tumble.size_ns))
        }
        _ => None,
    }
}
