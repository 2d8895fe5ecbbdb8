//! Where a statement writes, and what is asked of its columns there.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::{
    Column, DataFusionError, Result, ScalarValue, TableReference, plan_datafusion_err, plan_err,
};
use datafusion_expr::planner::ContextProvider;
use datafusion_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use tidegate_core::TS;

use super::{Asked, Lowering};
use crate::sql::complaint::{at_first, near_first};
use crate::sql::names::Names;
use crate::sql::options::SqlOptions;
use crate::sql::statement::LateRows;
use crate::sql::words::{identifier, said};
use crate::target::{Fit, Origin, Target, Unfit};

/// The target that `name` is.
pub(super) fn resolve_target(name: &str, names: &Names<'_>) -> Result<Target> {
    Target::find(name, names.catalog).map_err(unfit)
}

/// With what to do about it.
fn unfit(unfit: Unfit) -> DataFusionError {
    let help = match &unfit {
        Unfit::Name { .. } => return plan_datafusion_err!("{unfit}"),
        Unfit::NoTime { .. } => "add `ts` (or `window_time AS ts`) to the SELECT".to_owned(),
        Unfit::NoColumn { near, .. } => {
            let near = near.as_ref().map(|near| format!(" (is it `{near}`?)")).unwrap_or_default();
            format!("add it to the SELECT{near}")
        }
        Unfit::NoZone { column } => {
            let another = if column == TS {
                "leave `ts` as it is and give the local time another name"
            } else {
                "declare it `utf8` for local time, and write `CAST(.. AS VARCHAR)`"
            };
            let column = identifier(column);
            format!("{another}, or say which zone it is of: `.. AT TIME ZONE 'Europe/Berlin' AS {column}`")
        }
        Unfit::Type { .. } => "convert it with CAST or change the declaration".to_owned(),
    };
    plan_datafusion_err!("{unfit}; {help}")
}

/// Names the columns as INSERT INTO's list says, and makes them fit what the target declares.
pub(super) fn fit(
    plan: LogicalPlan,
    target: &Target,
    columns: &[String],
    names: &Names<'_>,
) -> Result<LogicalPlan> {
    let exprs = plan.schema().columns();
    if !columns.is_empty() && columns.len() != exprs.len() {
        return plan_err!(
            "INSERT INTO {target} names {} columns, but the SELECT has {}",
            columns.len(),
            exprs.len()
        );
    }
    let named: Vec<(String, Column)> = exprs
        .into_iter()
        .enumerate()
        .map(|(i, column)| (columns.get(i).cloned().unwrap_or_else(|| column.name.clone()), column))
        .collect();
    let mut seen = HashSet::new();
    if let Some((twice, _)) = named.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        return plan_err!("two columns are called `{twice}`; name one of them with AS");
    }
    if columns.is_empty()
        && let Some(expr) =
            named.iter().find_map(|(_, column)| nameless(&Expr::Column(column.clone()), &plan))
    {
        let text = said(&expr);
        let help = match text.strip_prefix('[') {
            Some(_) => "a list stands in brackets; a name stands alone, or in double quotes".to_owned(),
            None => format!("write `{text} AS name`"),
        };
        let why = plan_datafusion_err!("a column without a name: `{text}`; {help}");
        return Err(at_first([&expr], why));
    }
    let written = plan.schema().fields().iter().zip(&named);
    let written: Vec<Field> =
        written.map(|(field, (name, _))| field.as_ref().clone().with_name(name)).collect();
    let fit = Fit::new(target, &Schema::new(written), names.catalog).map_err(|why| {
        let column = match &why {
            Unfit::NoZone { column } => named.iter().find(|(name, _)| name == column),
            _ => None,
        };
        let at = column.map(|(_, column)| Expr::Column(column.clone()));
        near_first(at.iter(), unfit(why))
    })?;
    let column = |at: usize| {
        let lost = || DataFusionError::Internal(format!("there is no column {at}"));
        named.get(at).map(|(_, column)| Expr::Column(column.clone())).ok_or_else(lost)
    };
    let exprs = fit.columns().map(|(field, origin)| {
        let expr = match origin {
            Origin::Column(at) => column(at)?,
            Origin::Cast(at) => cast(column(at)?, field.data_type().clone()),
            Origin::Null => lit(ScalarValue::try_from(field.data_type())?),
        };
        Ok(expr.alias(field.name()))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

/// Where rows of the streams `inputs` go that come too late: to `target`, which takes their columns as they
/// are.
pub(super) fn late_rows(
    target: &str,
    inputs: &[Arc<str>],
    options: &SqlOptions,
    names: &Names<'_>,
) -> Result<LateRows> {
    let target = resolve_target(target, names)?;
    let fit_one = |stream: &Arc<str>| {
        let rows = LogicalPlanBuilder::scan(
            stream.to_string(),
            names.get_table_source(TableReference::bare(&**stream))?,
            None,
        )?
        .build()?;
        let plan = fit(rows, &target, &[], names)?;
        Ok((
            Arc::clone(stream),
            Lowering {
                inputs: Vec::new(),
                tables: Vec::new(),
                by_arrival: &names.catalog.by_arrival,
                options,
                asked: Asked::Windows,
            }
            .lower(&plan)?,
        ))
    };
    Ok(LateRows { fit: inputs.iter().map(fit_one).collect::<Result<_>>()?, target })
}

/// What the column `expr` of `plan` is, if nobody has given it a name.
fn nameless(expr: &Expr, plan: &LogicalPlan) -> Option<Expr> {
    let column = match expr {
        Expr::Column(column) => column,
        // The planner calls it so itself.
        Expr::Alias(alias) if alias.name == "count(*)" => return nameless(&alias.expr, plan),
        Expr::Alias(_) | Expr::GroupingSet(_) => return None,
        other => return Some(other.clone()),
    };
    let index = plan.schema().maybe_index_of_column(column);
    match plan {
        LogicalPlan::Projection(projection) => nameless(projection.expr.get(index?)?, &projection.input),
        // Grouping sets are refused later, and have other columns than expressions.
        LogicalPlan::Aggregate(aggregate)
            if !matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_), ..]) =>
        {
            nameless(aggregate.group_expr.iter().chain(&aggregate.aggr_expr).nth(index?)?, &aggregate.input)
        }
        LogicalPlan::Window(window) => match index?.checked_sub(window.input.schema().fields().len()) {
            Some(own) => nameless(window.window_expr.get(own)?, &window.input),
            None => nameless(expr, &window.input),
        },
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = alias.input.schema().columns().into_iter().nth(index?)?;
            nameless(&Expr::Column(inner), &alias.input)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => nameless(expr, input),
        LogicalPlan::Filter(filter) => nameless(expr, &filter.input),
        LogicalPlan::Union(union) => {
            let first = union.inputs.first()?;
            nameless(&Expr::Column(first.schema().columns().into_iter().nth(index?)?), first)
        }
        _ => None,
    }
}
