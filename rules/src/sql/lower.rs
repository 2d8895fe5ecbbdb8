//! A logical plan becomes a tree of operators.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, ExprSchema, Result, ScalarValue, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::Alias;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, TableSource, Volatility, cast, lit};
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Analyzer, Optimizer, OptimizerContext};
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{Query, Statement as AstStatement};
use tidegate_core::TS;
use tidegate_core::diagnostic::{did_you_mean, nearest};

use super::names::{Names, StreamSource, Tumble, WINDOW_END, WINDOW_START, options as planner_options, with_window_columns};
use super::operators::{self, AggregateCall, Bound, Filter, GroupColumn, Groups, Operator, Project, Source, WindowAggregate};
use super::statement::Statement;
use super::time::EventTime;
use crate::{Options, Target};

/// Plans `CREATE VIEW name AS query`: later statements of the file can read it.
pub(super) fn view(name: &str, query: Query, names: &Names<'_>, views: &mut PlannerContext) -> Result<()> {
    if names.catalog.readable().any(|stream| stream == name) {
        return plan_err!("the view `{name}` has the name of a stream; choose another");
    }
    let plan = plan(query, names, views)?;
    let plan = LogicalPlanBuilder::from(plan).alias(name)?.build()?;
    views.insert_cte(name, plan);
    Ok(())
}

/// Plans and lowers `INSERT INTO target [(columns)] query`.
pub(super) fn insert(
    target: &str,
    columns: &[String],
    query: Query,
    options: &Options,
    names: &Names<'_>,
    views: &mut PlannerContext,
) -> Result<Statement> {
    let target = resolve_target(target, names)?;
    let plan = plan(query, names, views)?;
    let plan = fit(plan, &target, columns, names)?;
    let plan = Analyzer::new().execute_and_check(plan, planner_options(), |_, _| {})?;
    refuse_hidden_inputs(&plan)?;
    let optimizer = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new()), Arc::new(CommonSubexprEliminate::new())]);
    let plan = optimizer.optimize(plan, &OptimizerContext::new().without_query_execution_start_time(), |_, _| {})?;
    let mut lowering = Lowering { inputs: Vec::new() };
    let root = lowering.lower(&plan)?;
    if lowering.inputs.is_empty() {
        return plan_err!("the statement reads no stream");
    }
    let by_arrival = |stream: &Arc<str>| names.catalog.by_arrival.contains(&**stream);
    let time = EventTime::new(lowering.inputs.iter().map(|stream| (Arc::clone(stream), by_arrival(stream))), options);
    Ok(Statement::new(lowering.inputs, target, root, time))
}

fn plan(query: Query, names: &Names<'_>, views: &mut PlannerContext) -> Result<LogicalPlan> {
    let options = ParserOptions::new().with_collect_spans(true).with_map_string_types_to_utf8view(false);
    SqlToRel::new_with_options(names, options).sql_statement_to_plan_with_context(AstStatement::Query(Box::new(query)), views)
}

fn resolve_target(name: &str, names: &Names<'_>) -> Result<Target> {
    let catalog = names.catalog;
    if catalog.outputs.contains_key(name) {
        return Ok(Target::Output(Arc::from(name)));
    }
    if catalog.derived.contains_key(name) {
        return Ok(Target::Stream(Arc::from(name)));
    }
    if name == "uplink" {
        return if catalog.uplink { Ok(Target::Uplink) } else { plan_err!("there is no uplink; add [uplink] to the configuration") };
    }
    if catalog.inputs.contains_key(name) {
        return plan_err!("`{name}` is fed by a connection and cannot be written; write to an output, a derived stream or `uplink`");
    }
    let known: Vec<&str> = catalog.writable().collect();
    let help = did_you_mean(name, &known).unwrap_or_else(|| "declare an output or a derived stream in the configuration".to_owned());
    plan_err!("`{name}` is not an output, a derived stream or `uplink`; {help}")
}

/// Names the columns as INSERT INTO's list says, and makes them fit what the target declares.
fn fit(plan: LogicalPlan, target: &Target, columns: &[String], names: &Names<'_>) -> Result<LogicalPlan> {
    let exprs = plan.schema().columns();
    if !columns.is_empty() && columns.len() != exprs.len() {
        return plan_err!("INSERT INTO {target} names {} columns, but the SELECT has {}", columns.len(), exprs.len());
    }
    let named: Vec<(String, Column)> =
        exprs.into_iter().enumerate().map(|(i, column)| (columns.get(i).cloned().unwrap_or_else(|| column.name.clone()), column)).collect();
    let mut seen = HashSet::new();
    if let Some((twice, _)) = named.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        return plan_err!("two columns are called `{twice}`; name one of them with AS");
    }
    let exprs = match target {
        Target::Stream(stream) => {
            let Some(declared) = names.catalog.derived.get(&**stream) else { return plan_err!("`{stream}` is not a derived stream") };
            fit_stream(&plan, stream, declared, &named)?
        }
        Target::Output(output) => {
            let have: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            let required = names.catalog.outputs.get(&**output).map(|columns| columns.required.as_slice()).unwrap_or_default();
            if let Some(missing) = required.iter().find(|column| !have.contains(&column.as_str())) {
                let near = nearest(missing, have).map(|near| format!(" (is it `{near}`?)")).unwrap_or_default();
                return plan_err!(
                    "output `{output}` needs a column `{missing}`, because its topic or payload names it; add it to the SELECT{near}"
                );
            }
            plain(named)
        }
        Target::Uplink => plain(named),
    };
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

fn plain(named: Vec<(String, Column)>) -> Vec<Expr> {
    named.into_iter().map(|(name, column)| Expr::Column(column).alias(name)).collect()
}

fn fit_stream(plan: &LogicalPlan, stream: &str, declared: &Schema, named: &[(String, Column)]) -> Result<Vec<Expr>> {
    let fields: Vec<&str> = declared.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some((extra, _)) = named.iter().find(|(name, _)| !fields.contains(&name.as_str())) {
        let help = did_you_mean(extra, &fields).unwrap_or_default();
        return plan_err!("stream `{stream}` declares no field `{extra}`; {help}");
    }
    let mut exprs = Vec::with_capacity(fields.len());
    for field in declared.fields() {
        let Some((_, column)) = named.iter().find(|(name, _)| name == field.name()) else {
            if field.name() == TS {
                return plan_err!("every row of stream `{stream}` needs its event time; add `ts` (or `window_end AS ts`) to the SELECT");
            }
            exprs.push(lit(ScalarValue::try_from(field.data_type())?).alias(field.name()));
            continue;
        };
        let found = plan.schema().field_from_column(column)?.data_type().clone();
        let wanted = field.data_type();
        let expr = Expr::Column(column.clone());
        let expr = match widens(&found, wanted) {
            Some(false) => expr,
            Some(true) => cast(expr, wanted.clone()),
            None => {
                return plan_err!(
                    "column `{}` is {found}, but stream `{stream}` declares it {wanted}; convert it with CAST or change the declaration",
                    field.name()
                );
            }
        };
        exprs.push(expr.alias(field.name()));
    }
    Ok(exprs)
}

/// Whether values of `found` fit `wanted` without loss: `Some(false)` as they are, `Some(true)` after a cast.
fn widens(found: &DataType, wanted: &DataType) -> Option<bool> {
    use DataType::{Float32, Float64, Int64, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    match (found, wanted) {
        (a, b) if a == b => Some(false),
        (Null, _) | (Utf8View | LargeUtf8, Utf8) | (Timestamp(..), Timestamp(..)) | (Float32, Float64) => Some(true),
        (a, Int64 | Float64) if a.is_integer() => Some(true),
        _ => None,
    }
}

/// Rules are a function of their rows: nothing may read a clock or dice.
fn refuse_hidden_inputs(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    return plan_err!(
                        "`{}()` gives another result each time, but the same rows must always give the same result; use the row's `ts` for time",
                        call.name()
                    );
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// Makes operators of a logical plan, from its leaves up. What an operator is made of is told where it is made: an arm here, a function below.
struct Lowering {
    /// the streams that the statement reads
    inputs: Vec<Arc<str>>,
}

impl Lowering {
    fn lower(&mut self, plan: &LogicalPlan) -> Result<Box<dyn Operator>> {
        match plan {
            LogicalPlan::TableScan(scan) => match scan.source.downcast_ref::<StreamSource>() {
                Some(source) => {
                    if !self.inputs.contains(&source.name) {
                        self.inputs.push(Arc::clone(&source.name));
                    }
                    Ok(Box::new(Source::new(Arc::clone(&source.name), source.schema())))
                }
                None => plan_err!("`{}` is not a stream", scan.table_name),
            },
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                let exprs = projection.expr.iter().map(|expr| physical(expr, projection.input.schema())).collect::<Result<Vec<_>>>()?;
                Ok(Box::new(Project::new(input, exprs, nullable(projection.schema.as_arrow()))))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.lower(&filter.input)?;
                Ok(Box::new(Filter::new(input, physical(&filter.predicate, filter.input.schema())?)))
            }
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Tumble>() {
                Some(tumble) => {
                    let input = self.lower(&tumble.input)?;
                    Ok(Box::new(operators::Tumble::new(input, tumble.size_ns, with_window_columns(tumble.input.schema().as_arrow()))))
                }
                None => plan_err!("`{}` cannot be used in a rule", extension.node.name()),
            },
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            other => refuse(other),
        }
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Box<dyn Operator>> {
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

fn refuse(plan: &LogicalPlan) -> Result<Box<dyn Operator>> {
    match plan {
        LogicalPlan::Sort(_) => plan_err!("ORDER BY on an endless stream never ends; rows are written in order of arrival"),
        LogicalPlan::Limit(_) => plan_err!("LIMIT on an endless stream would stop the rule for good; use WHERE"),
        LogicalPlan::Distinct(_) => {
            plan_err!(
                "DISTINCT on an endless stream needs endless memory; use a window: SELECT .. FROM TUMBLE(..) GROUP BY window_start, window_end, .."
            )
        }
        LogicalPlan::Join(_) | LogicalPlan::Subquery(_) => {
            plan_err!("joins and subqueries over several streams are not supported yet; a statement reads one stream")
        }
        LogicalPlan::Union(_) => plan_err!("UNION is not supported; write one INSERT for each SELECT"),
        LogicalPlan::Window(_) => plan_err!("window functions (OVER) are not supported yet; use TUMBLE with GROUP BY"),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => plan_err!("the statement reads no stream; add FROM"),
        LogicalPlan::Unnest(_) => plan_err!("unnest is not supported yet; let the stream's `rows` setting make one row of each element"),
        LogicalPlan::RecursiveQuery(_) => plan_err!("recursive queries never end on an endless stream"),
        other => plan_err!("`{}` cannot be used in a rule", other.display()),
    }
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let mut subquery = false;
    expr.apply(|expr| {
        subquery |= matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if subquery {
        return plan_err!("subqueries in expressions are not supported yet; a statement reads one stream");
    }
    let expr = create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    // A sum that wraps around is a command that no one meant: the row is left out and reported instead, as for a division by zero.
    let checked = expr.transform_up(|expr| match expr.downcast_ref::<BinaryExpr>() {
        Some(binary) => Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _)),
        None => Ok(Transformed::no(expr)),
    })?;
    Ok(checked.data)
}

/// Every column may be null: what a filter or an outer expression proves about nulls does not matter to us.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// The expression as text, without the names of relations: an alias does not change what is computed.
fn unqualified(expr: &Expr) -> String {
    let bare = expr.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_some() => {
                datafusion_common::tree_node::Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            Expr::Alias(Alias { expr, .. }) => datafusion_common::tree_node::Transformed::yes(*expr),
            other => datafusion_common::tree_node::Transformed::no(other),
        })
    });
    bare.map_or_else(|_: DataFusionError| expr.to_string(), |bare| bare.data.to_string())
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
