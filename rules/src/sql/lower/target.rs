//! Where a statement writes, and what is asked of its columns there.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion_common::{
    Column, ExprSchema, Result, ScalarValue, TableReference, plan_datafusion_err, plan_err,
};
use datafusion_expr::planner::ContextProvider;
use datafusion_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use tidegate_core::TS;
use tidegate_core::diagnostic::{did_you_mean, nearest};

use super::{Asked, Lowering};
use crate::sql::complaint::{at_first, near_first};
use crate::sql::names::Names;
use crate::sql::statement::LateRows;
use crate::sql::words::{field_type, identifier, said};
use crate::{Options, Target};

/// The target that `name` is.
pub(super) fn resolve_target(name: &str, names: &Names<'_>) -> Result<Target> {
    let catalog = names.catalog;
    if catalog.outputs.contains_key(name) {
        return Ok(Target::Output(Arc::from(name)));
    }
    if catalog.derived.contains_key(name) {
        return Ok(Target::Stream(Arc::from(name)));
    }
    if name == "uplink" {
        return if catalog.uplink {
            Ok(Target::Uplink)
        } else {
            plan_err!("there is no uplink; add [uplink] to the configuration")
        };
    }
    if catalog.tables.contains_key(name) {
        return plan_err!(
            "`{name}` is a reference table, which its file fills; write to an output, a derived stream or \
            `uplink`"
        );
    }
    if catalog.inputs.contains_key(name) {
        return plan_err!(
            "`{name}` is fed by a connection and cannot be written; write to an output, a derived stream or \
            `uplink`"
        );
    }
    let known: Vec<&str> = catalog.writable().collect();
    let help = did_you_mean(name, &known)
        .unwrap_or_else(|| "declare an output or a derived stream in the configuration".to_owned());
    plan_err!("`{name}` is not an output, a derived stream or `uplink`; {help}")
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
    if matches!(target, Target::Uplink)
        && let Some((_, column)) = named.iter().find(|(name, _)| name == TS)
    {
        refuse_local(TS, column, &plan)?;
    }
    let exprs = match target {
        Target::Stream(stream) => {
            let Some(declared) = names.catalog.derived.get(&**stream) else {
                return plan_err!("`{stream}` is not a derived stream");
            };
            fit_stream(&plan, stream, declared, &named)?
        }
        Target::Output(output) => {
            let have: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            let required = names
                .catalog
                .outputs
                .get(&**output)
                .map(|columns| columns.required.as_slice())
                .unwrap_or_default();
            if let Some(missing) = required.iter().find(|column| !have.contains(&column.as_str())) {
                let near =
                    nearest(missing, have).map(|near| format!(" (is it `{near}`?)")).unwrap_or_default();
                return plan_err!(
                    "output `{output}` needs a column `{missing}`, because its topic or payload names it; \
                    add it to the SELECT{near}"
                );
            }
            plain(named)
        }
        Target::Uplink => plain(named),
    };
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

/// Where rows of the streams `inputs` go that come too late: to `target`, which takes their columns as they
/// are.
pub(super) fn late_rows(
    target: &str,
    inputs: &[Arc<str>],
    options: &Options,
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

fn plain(named: Vec<(String, Column)>) -> Vec<Expr> {
    named.into_iter().map(|(name, column)| Expr::Column(column).alias(name)).collect()
}

fn fit_stream(
    plan: &LogicalPlan,
    stream: &str,
    declared: &Schema,
    named: &[(String, Column)],
) -> Result<Vec<Expr>> {
    let fields: Vec<&str> = declared.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some((extra, _)) = named.iter().find(|(name, _)| !fields.contains(&name.as_str())) {
        let help = did_you_mean(extra, &fields).unwrap_or_default();
        return plan_err!("stream `{stream}` declares no field `{extra}`; {help}");
    }
    let mut exprs = Vec::with_capacity(fields.len());
    for field in declared.fields() {
        let Some((_, column)) = named.iter().find(|(name, _)| name == field.name()) else {
            if field.name() == TS {
                return plan_err!(
                    "every row of stream `{stream}` needs its event time; add `ts` (or `window_time AS ts`) \
                    to the SELECT"
                );
            }
            exprs.push(lit(ScalarValue::try_from(field.data_type())?).alias(field.name()));
            continue;
        };
        let found = plan.schema().field_from_column(column)?.data_type().clone();
        let wanted = field.data_type();
        if matches!(wanted, DataType::Timestamp(..)) {
            refuse_local(field.name(), column, plan)?;
        }
        let expr = Expr::Column(column.clone());
        let expr = match widens(&found, wanted) {
            Some(false) => expr,
            Some(true) => cast(expr, wanted.clone()),
            None => {
                return plan_err!(
                    "column `{}` is {}, but stream `{stream}` declares it {}; convert it with CAST or \
                    change the declaration",
                    field.name(),
                    field_type(&found),
                    field_type(wanted)
                );
            }
        };
        exprs.push(expr.alias(field.name()));
    }
    Ok(exprs)
}

/// A time without a zone would be taken for one of UTC where `name` is a moment.
fn refuse_local(name: &str, column: &Column, plan: &LogicalPlan) -> Result<()> {
    if !matches!(plan.schema().field_from_column(column)?.data_type(), DataType::Timestamp(_, None)) {
        return Ok(());
    }
    let name = identifier(name);
    let another = if name == TS {
        "leave `ts` as it is and give the local time another name"
    } else {
        "declare it `utf8` for local time, and write `CAST(.. AS VARCHAR)`"
    };
    let why = plan_datafusion_err!(
        "`{name}` is a time without a zone, and would be taken for UTC; {another}, or say which zone it is \
        of: `.. AT TIME ZONE 'Europe/Berlin' AS {name}`"
    );
    let sources = [Expr::Column(column.clone())];
    Err(near_first(&sources, why))
}

/// Whether values of `found` fit `wanted` without loss: `Some(false)` as they are, `Some(true)` after a cast.
fn widens(found: &DataType, wanted: &DataType) -> Option<bool> {
    use DataType::{Float32, Float64, Int64, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    match (found, wanted) {
        (a, b) if a == b => Some(false),
        (Null, _) | (Utf8View | LargeUtf8, Utf8) | (Timestamp(..), Timestamp(..)) | (Float32, Float64) => {
            Some(true)
        }
        (a, Int64 | Float64) if a.is_integer() => Some(true),
        _ => None,
    }
}
