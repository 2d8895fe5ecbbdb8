//! `FOR SYSTEM_TIME AS OF`: the newest row of a stream, as a join sees it (SQL:2011, system-versioned
//! tables).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion_common::{DFSchemaRef, Result, plan_datafusion_err, plan_err};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion_sql::sqlparser::ast::{Expr as AstExpr, FunctionArguments, Ident, TableFactor, TableVersion};
use tidegate_core::TS;

use super::complaint::at;

pub(super) const AS_OF_FORM: &str = "write `FROM t JOIN s FOR SYSTEM_TIME AS OF t.ts ON t.k = s.k`, or `AS \
    OF CURRENT_TIMESTAMP` for what has come last";

/// Which moment's rows are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub(super) enum When {
    /// `CURRENT_TIMESTAMP`: now, whatever `ts` says
    Now,
    /// the `ts` of the row that asks, of the relation with this name
    RowTime(Option<String>),
}

/// A stream, of which a join takes the latest row a key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct AsOf {
    pub input: LogicalPlan,
    pub when: When,
}

impl fmt::Debug for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for AsOf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.when.partial_cmp(&other.when)
    }
}

impl UserDefinedLogicalNodeCore for AsOf {
    fn name(&self) -> &str {
        "AsOf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsOf: {:?}", self.when)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Ok(Self { input, when: self.when.clone() }),
            Err(_) => plan_err!("FOR SYSTEM_TIME AS OF is about one stream"),
        }
    }
}

/// Plans `name FOR SYSTEM_TIME AS OF ..`.
#[derive(Debug)]
pub(super) struct Versions;

impl RelationPlanner for Versions {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { version, alias, with_hints, sample, name, .. } = &mut relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if let Some(hint) = with_hints.first() {
            return Err(at(
                hint,
                plan_datafusion_err!(
                    "a rule has no hints such as `{hint}`: nothing here locks; leave WITH (..) out"
                ),
            ));
        }
        if sample.is_some() {
            return Err(at(
                name,
                plan_datafusion_err!("a sample of a stream would be another each time; write WHERE"),
            ));
        }
        let Some(version) = version.take() else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let alias = alias.take();
        let TableVersion::ForSystemTimeAsOf(moment) = version else {
            return plan_err!("streams have no versions such as `{version}`; {AS_OF_FORM}");
        };
        let when = when(&moment, context)?;
        let input = context.plan(relation)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(AsOf { input, when }) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn when(moment: &AstExpr, context: &dyn RelationPlannerContext) -> Result<When> {
    let row_time = |relation: Option<&Ident>, column: &Ident| {
        (context.normalize_ident(column.clone()) == TS)
            .then(|| When::RowTime(relation.map(|name| context.normalize_ident(name.clone()))))
    };
    let when = match moment {
        AstExpr::Identifier(column) => row_time(None, column),
        AstExpr::CompoundIdentifier(parts) => match parts.as_slice() {
            [relation, column] => row_time(Some(relation), column),
            _ => None,
        },
        AstExpr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let bare = match &function.args {
                FunctionArguments::None => true,
                FunctionArguments::List(list) => list.args.is_empty(),
                FunctionArguments::Subquery(_) => false,
            };
            (bare && (name == "current_timestamp" || name == "now")).then_some(When::Now)
        }
        _ => None,
    };
    when.map_or_else(|| plan_err!("`AS OF {moment}` is no moment that a join can go by; {AS_OF_FORM}"), Ok)
}
