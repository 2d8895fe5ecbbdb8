//! `SELECT .. [WHERE ..]`: no column is copied that nobody looks at.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::{LogicalPlan, Projection};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::join::filtered_join;
use super::window::delay_ns;
use super::{Lowering, nullable, physical};
use crate::sql::operators::{Filter, Operator, Project};

impl Lowering<'_> {
    pub(super) fn projection(&mut self, projection: &Projection) -> Result<Box<dyn Operator>> {
        let (mut exprs, input) = computed(projection)?;
        let input: Box<dyn Operator> = match input {
            LogicalPlan::Filter(filter) if filtered_join(input).is_none() => {
                let predicate = physical(&filter.predicate, filter.input.schema())?;
                let below = self.lower(&filter.input)?;
                let columns = columns(&exprs)?;
                if columns.len() < below.schema().fields().len() && !columns.is_empty() {
                    let schema = Arc::new(below.schema().project(&columns)?);
                    exprs = renumbered(exprs, &columns)?;
                    Box::new(Filter::new(below, predicate).keeping(columns, schema))
                } else {
                    Box::new(Filter::new(below, predicate))
                }
            }
            input => self.lower(input)?,
        };
        let delay_ns = delay_ns(projection, &*input);
        Ok(Box::new(Project::new(input, exprs, nullable(projection.schema.as_arrow())).with_delay(delay_ns)))
    }
}

/// What `projection` computes, and of what: where it only names columns of another one, the two are one.
fn computed(projection: &Projection) -> Result<(Vec<Arc<dyn PhysicalExpr>>, &LogicalPlan)> {
    let exprs = projection
        .expr
        .iter()
        .map(|expr| physical(expr, projection.input.schema()))
        .collect::<Result<Vec<_>>>()?;
    let LogicalPlan::Projection(inner) = &*projection.input else { return Ok((exprs, &projection.input)) };
    let chosen: Option<Vec<usize>> =
        exprs.iter().map(|expr| Some(expr.downcast_ref::<Column>()?.index())).collect();
    let Some(chosen) = chosen else { return Ok((exprs, &projection.input)) };
    let (inner_exprs, input) = computed(inner)?;
    let mut seen = BTreeSet::new();
    // Nothing is computed twice.
    let once = chosen
        .iter()
        .all(|index| seen.insert(index) || inner_exprs.get(*index).is_some_and(|expr| expr.is::<Column>()));
    let merged: Option<Vec<_>> = chosen.iter().map(|index| inner_exprs.get(*index).cloned()).collect();
    match merged.filter(|_| once) {
        Some(merged) => Ok((merged, input)),
        None => Ok((exprs, &projection.input)),
    }
}

/// The columns that `exprs` look at, ascending.
fn columns(exprs: &[Arc<dyn PhysicalExpr>]) -> Result<Vec<usize>> {
    let mut columns = BTreeSet::new();
    for expr in exprs {
        expr.apply(|expr| {
            columns.extend(expr.downcast_ref::<Column>().map(Column::index));
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(columns.into_iter().collect())
}

/// `exprs` where only `columns` are left.
fn renumbered(exprs: Vec<Arc<dyn PhysicalExpr>>, columns: &[usize]) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let renumber = |expr: Arc<dyn PhysicalExpr>| {
        let column = expr.downcast_ref::<Column>();
        let moved = column.and_then(|column| {
            Some(Column::new(column.name(), columns.binary_search(&column.index()).ok()?))
        });
        Ok(moved.map_or_else(
            || Transformed::no(Arc::clone(&expr)),
            |moved| Transformed::yes(Arc::new(moved) as _),
        ))
    };
    exprs.into_iter().map(|expr| Ok(expr.transform_up(renumber)?.data)).collect()
}
