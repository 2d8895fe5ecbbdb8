//! MATCH_RECOGNIZE.

use std::sync::Arc;

use datafusion_common::{DFSchema, Result, plan_err};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;

use super::{Lowering, nullable, physical, refuse_hidden_input, unqualified};
use crate::sql::floats::checked;
use crate::sql::operators::{Formula, MatchAggregate, MatchRows, Operator, Recognition, Slot, arguments_of};
use crate::sql::pattern::{self, MatchRecognize, formula};
use crate::sql::wall_clock::refuse_now;

impl Lowering<'_> {
    pub(super) fn pattern(&mut self, node: &MatchRecognize) -> Result<Box<dyn Operator>> {
        use datafusion_expr::UserDefinedLogicalNodeCore;
        let input = self.lower(&node.input)?;
        let rows = pattern::unqualified(node.input.schema())?;
        let spec = &node.spec;
        let lower = |formula: &formula::Formula| lower_formula(formula, &rows);
        let (before, behind) = spec.columns(&rows)?;
        let recognition = Recognition {
            shape: spec.shape.clone(),
            names: spec.variables.clone(),
            conditions: spec
                .conditions
                .iter()
                .map(|condition| condition.as_ref().map(lower).transpose())
                .collect::<Result<_>>()?,
            within_ns: spec.within_ns,
            absent: spec.absent,
            skip: spec.skip,
            measures: spec.measures.iter().map(|(_, measure)| lower(measure)).collect::<Result<_>>()?,
            all_rows: spec.all_rows,
            keys: spec.partition_by.clone(),
            before,
            behind,
            looks_for: spec.looks_for.clone(),
        };
        Ok(Box::new(MatchRows::new(input, nullable(node.schema().as_arrow()), recognition)?))
    }
}

/// Rows of a match are looked at as often as the search needs.
fn refuse(expr: &Expr) -> Result<()> {
    refuse_now(expr)?;
    refuse_hidden_input(expr).map(drop)
}

fn lower_formula(formula: &formula::Formula, rows: &DFSchema) -> Result<Formula> {
    let slots = formula.slots.iter().map(|slot| match slot {
        formula::Slot::Value { at, value } => {
            refuse(value)?;
            Ok(Slot::Value { at: *at, value: physical(value, rows)? })
        }
        formula::Slot::Aggregate { variables, finished, call } => {
            refuse(call)?;
            let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
            let lowered =
                LoweredAggregateBuilder::new(call, rows, rows.as_arrow(), &props, &context).build()?;
            if !lowered.order_bys.is_empty() {
                return plan_err!(
                    "ORDER BY inside `{}` cannot stand in MATCH_RECOGNIZE; rows of a match are in event time",
                    unqualified(call)
                );
            }
            let arguments = arguments_of(&lowered.aggregate, rows.as_arrow())?;
            let filter = lowered.filter.map(|filter| checked(filter, rows.as_arrow())).transpose()?;
            let call = MatchAggregate { function: lowered.aggregate, arguments, filter };
            Ok(Slot::Aggregate { variables: *variables, finished: *finished, call })
        }
        formula::Slot::Classifier { finished } => Ok(Slot::Classifier { finished: *finished }),
        formula::Slot::MatchNumber => Ok(Slot::MatchNumber),
    });
    let slots = slots.collect::<Result<_>>()?;
    refuse(&formula.expr)?;
    let schema = formula.schema(rows)?;
    Ok(Formula { slots, expr: physical(&formula.expr, &schema)?, schema: Arc::clone(schema.inner()) })
}
