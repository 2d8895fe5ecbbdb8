//! A logical plan becomes a tree of operators.

mod aggregate;
mod rows;
mod select;
mod target;
mod window;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, Result, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::Alias;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, Volatility};
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Analyzer, Optimizer, OptimizerContext};
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{Query, Statement as AstStatement};

use super::names::{Names, StreamSource, options as planner_options};
use super::operators::{CutWindow, Filter, Operator, Source};
use super::statement::Statement;
use super::table_functions::Window;
use super::time::EventTime;
use crate::Options;
use rows::{safe_conditions_first, ways};
use target::{fit, late_rows, resolve_target};

/// What plans statements; made once, since thousands of rules may be loaded at a time.
struct Planning {
    analyzer: Analyzer,
    simplify: Optimizer,
    /// computes equal expressions once
    share: Optimizer,
    options: Arc<ConfigOptions>,
}

static PLANNING: LazyLock<Planning> = LazyLock::new(|| Planning {
    analyzer: Analyzer::new(),
    simplify: Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]),
    share: Optimizer::with_rules(vec![Arc::new(CommonSubexprEliminate::new())]),
    options: Arc::default(),
});

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
    let plan = PLANNING.analyzer.execute_and_check(plan, planner_options(), |_, _| {})?;
    refuse_hidden_inputs(&plan)?;
    // Names that it makes up are counted from one in each statement.
    let context = OptimizerContext::new_with_config_options(Arc::clone(&PLANNING.options)).without_query_execution_start_time();
    let plan = PLANNING.simplify.optimize(plan, &context, |_, _| {})?;
    let plan = safe_conditions_first(plan)?;
    let plan = PLANNING.share.optimize(plan, &context, |_, _| {})?;
    let mut lowering = Lowering { inputs: Vec::new(), options, asked: Asked::Windows };
    let root = lowering.lower(&plan)?;
    if lowering.inputs.is_empty() {
        return plan_err!("the statement reads no stream");
    }
    let by_arrival = |stream: &Arc<str>| names.catalog.by_arrival.contains(&**stream);
    let time = EventTime::new(lowering.inputs.iter().map(|stream| (Arc::clone(stream), by_arrival(stream))), options);
    let late = options.late_rows.as_ref().map(|late| late_rows(late, &lowering.inputs, options, names)).transpose()?;
    Ok(Statement::new(lowering.inputs, target, root, time, late).for_rows(ways(&plan)))
}

fn plan(query: Query, names: &Names<'_>, views: &mut PlannerContext) -> Result<LogicalPlan> {
    let options = ParserOptions::new().with_collect_spans(true).with_map_string_types_to_utf8view(false);
    SqlToRel::new_with_options(names, options).sql_statement_to_plan_with_context(AstStatement::Query(Box::new(query)), views)
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
struct Lowering<'a> {
    /// the streams that the statement reads
    inputs: Vec<Arc<str>>,
    options: &'a Options,
    /// what the next window down is asked for
    asked: Asked,
}

/// What an aggregate asks the window below it for.
enum Asked {
    /// the windows of rows
    Windows,
    /// the panes of rows
    Panes,
    /// to leave the cutting to the aggregate
    Cutting,
    /// that is done: here is what cuts
    Cut(CutWindow),
}

impl Lowering<'_> {
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
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => {
                let input = self.lower(&filter.input)?;
                Ok(Box::new(Filter::new(input, physical(&filter.predicate, filter.input.schema())?)))
            }
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Window>() {
                Some(window) => self.window(window),
                None => plan_err!("`{}` cannot be used in a rule", extension.node.name()),
            },
            LogicalPlan::Distinct(distinct) => self.distinct(distinct),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            other => refuse(other),
        }
    }
}

fn refuse(plan: &LogicalPlan) -> Result<Box<dyn Operator>> {
    match plan {
        LogicalPlan::Sort(_) => plan_err!("ORDER BY on an endless stream never ends; rows are written in order of arrival"),
        LogicalPlan::Limit(_) => plan_err!("LIMIT on an endless stream would stop the rule for good; use WHERE"),
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
