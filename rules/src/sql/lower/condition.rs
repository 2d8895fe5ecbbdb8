//! A condition by itself becomes what the one of WHERE becomes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, Result, TableReference, internal_err, plan_datafusion_err};
use datafusion_expr::planner::ContextProvider;
use datafusion_expr::{Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::planner::PlannerContext;
use datafusion_sql::sqlparser::ast::Expr as AstExpr;

use super::kinds::{Kind, told};
use super::{analyzed, physical, planner, refuse_hidden_inputs, rows, simplified, types};
use crate::sql::names::Names;
use crate::sql::{complaint, warnings, words};

/// What a condition becomes.
pub(in crate::sql) struct Planned {
    /// The columns that it looks at, stream by stream.
    pub columns: Vec<Looked>,
    /// What of it has a value for every row.
    pub safe: Option<Arc<dyn PhysicalExpr>>,
    /// The rest, which must be true as well.
    pub rest: Arc<dyn PhysicalExpr>,
}

/// A column of a stream.
pub(in crate::sql) struct Looked {
    pub stream: String,
    pub column: String,
    pub data_type: DataType,
}

/// Plans `written`, which names `streams` and no others.
pub(in crate::sql) fn condition(
    written: AstExpr,
    streams: &BTreeSet<String>,
    names: &Names<'_>,
) -> Result<Planned> {
    warnings::of_text(&written, names);
    let rows = newest_rows(streams, names)?;
    let predicate = planner(names).sql_to_expr(written, rows.schema(), &mut PlannerContext::new())?;
    check_type(&predicate, rows.schema())?;
    let plan = analyzed(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(rows))?))?;
    refuse_hidden_inputs(&plan)?;
    warnings::of_plan(&plan, names)?;
    let (schema, columns) = looked_at(&plan)?;
    let (safe, rest) = match rows::safe_conditions_first(simplified(plan)?)? {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => match &*input {
            LogicalPlan::Filter(first) => (Some(first.predicate.clone()), predicate),
            _ => (None, predicate),
        },
        _ => return internal_err!("a condition has become something else"),
    };
    let safe = safe.map(|safe| physical(&safe, &schema)).transpose()?;
    Ok(Planned { columns, safe, rest: physical(&rest, &schema)? })
}

/// The newest row of each stream, side by side.
fn newest_rows(streams: &BTreeSet<String>, names: &Names<'_>) -> Result<LogicalPlan> {
    let mut rows: Option<LogicalPlanBuilder> = None;
    for stream in streams {
        let name = TableReference::bare(stream.as_str());
        let scan = LogicalPlanBuilder::scan(name.clone(), names.get_table_source(name)?, None)?;
        rows = Some(match rows {
            Some(before) => before.cross_join(scan.build()?)?,
            None => scan,
        });
    }
    match rows {
        Some(rows) => rows.build(),
        None => internal_err!("a condition looks at no stream"),
    }
}

fn check_type(predicate: &Expr, schema: &DFSchema) -> Result<()> {
    // What has no type yet, or never, is the planner's to say.
    let Ok(data_type) = predicate.get_type(schema) else { return Ok(()) };
    let such = match Kind::from_arrow(&data_type) {
        Kind::Condition => return Ok(()),
        Kind::Text => " = 'on'",
        Kind::Number => " > 0",
        _ => " IS NOT NULL",
    };
    let written = types::written(predicate);
    let of = match predicate {
        Expr::Column(column) => match &column.relation {
            Some(stream) => {
                format!("{}.{}", words::identifier(stream.table()), words::identifier(&column.name))
            }
            None => written.clone(),
        },
        _ => written.clone(),
    };
    let kind = told(&data_type);
    let what = plan_datafusion_err!(
        "`{written}` is {kind}, and a condition is true or false; compare it with something, such as \
        `{of}{such}`"
    );
    Err(complaint::near_first([predicate], what))
}

/// The columns that the condition looks at, before those go that make no difference.
fn looked_at(plan: &LogicalPlan) -> Result<(DFSchema, Vec<Looked>)> {
    let LogicalPlan::Filter(filter) = plan else { return internal_err!("a condition is a filter") };
    let all = filter.input.schema();
    let indices = filter.predicate.column_refs().into_iter().map(|column| all.index_of_column(column));
    let indices: BTreeSet<usize> = indices.collect::<Result<_>>()?;
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for index in indices {
        let (stream, field) = all.qualified_field(index);
        fields.push((stream.cloned(), Arc::clone(field)));
        columns.push(Looked {
            stream: stream.map(|stream| stream.table().to_owned()).unwrap_or_default(),
            column: field.name().clone(),
            data_type: field.data_type().clone(),
        });
    }
    Ok((DFSchema::new_with_metadata(fields, HashMap::new())?, columns))
}
