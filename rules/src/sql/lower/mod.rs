//! A logical plan becomes a tree of operators.

mod aggregate;
pub(super) mod condition;
mod join;
mod kinds;
mod literals;
mod over;
mod pattern;
mod rows;
mod safety;
mod select;
mod target;
mod time_bounds;
pub(super) mod types;
mod unnest;
mod window;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, Result, plan_datafusion_err, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::Alias;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, TableSource, Volatility};
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion_optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Analyzer, Optimizer, OptimizerContext};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{
    Expr as AstExpr, GroupByExpr, Ident, ObjectName, Query, Select, Statement as AstStatement, VisitMut,
    VisitorMut, WindowSpec, WindowType, visit_expressions, visit_expressions_mut,
};

use super::as_of::{AS_OF_FORM, AsOf};
use super::floats::{canonical, checked};
use super::functions::is_memory;
use super::names::{Names, StreamSource, is_scalar_only, options as planner_options};
use super::operators::{self, Computes, CutWindow, Filter, Operator, Shared, Source};
use super::pattern::MatchRecognize;
use super::pattern::formula::is_marker;
use super::statement::Statement;
use super::table_functions::{WINDOW_END, WINDOW_START, WINDOW_TIME, Window};
use super::time::EventTime;
use super::wall_clock::{is_now, refuse_out_of_place};
use super::{complaint, elsewhere, mismatch, warnings};
use crate::sql::options::SqlOptions;
pub(super) use literals::PARTS;
use rows::{prefilters, safe_conditions_first};
use target::{fit, late_rows, resolve_target};
pub(super) use window::{has_window, window_below, window_column};

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
    // Every subquery becomes a join: nothing is computed behind the operators' back.
    simplify: Optimizer::with_rules(vec![
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(SimplifyExpressions::new()),
    ]),
    share: Optimizer::with_rules(vec![Arc::new(CommonSubexprEliminate::new())]),
    options: Arc::new(planning_options()),
});

fn planning_options() -> ConfigOptions {
    let mut options = ConfigOptions::default();
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options
}

/// Plans `CREATE VIEW name AS query`: later statements of the file can read it.
pub(super) fn view(name: &str, query: Query, names: &Names<'_>, views: &mut PlannerContext) -> Result<()> {
    if names.catalog.readable().any(|stream| stream == name) {
        return plan_err!("the view `{name}` has the name of a stream; choose another");
    }
    let plan = plan(query, names, views)?;
    // Statements that read it come to its errors, too, and to no others.
    views.insert_cte(name, LogicalPlanBuilder::from(plan.clone()).alias(name)?.build()?);
    analyzed(plan).map(drop)
}

/// Plans and lowers `INSERT INTO target [(columns)] query`.
pub(super) fn insert(
    target: &str,
    columns: &[String],
    query: Query,
    options: &SqlOptions,
    names: &Names<'_>,
    views: &mut PlannerContext,
) -> Result<Statement> {
    let target = resolve_target(target, names)?;
    let plan = plan(query, names, views)?;
    let plan = fit(plan, &target, columns, names)?;
    let plan = analyzed(plan)?;
    refuse_hidden_inputs(&plan)?;
    window::warn_of_ends(&plan, names)?;
    warnings::of_plan(&plan, names)?;
    let plan = simplified(plan)?;
    refuse_subqueries(&plan)?;
    let plan = safe_conditions_first(plan)?;
    let plan = PLANNING.share.optimize(plan, &optimizing(), |_, _| {})?;
    let by_arrival = &names.catalog.by_arrival;
    let mut lowering =
        Lowering { inputs: Vec::new(), tables: Vec::new(), by_arrival, options, asked: Asked::Windows };
    let root = lowering.lower(&plan)?;
    if lowering.inputs.is_empty() {
        let why = "the statement reads no stream, so nothing would ever make it write; read a stream, and \
            join it with the table";
        return Err(complaint::in_clause("FROM", DataFusionError::Plan(why.to_owned())));
    }
    let by_arrival = |stream: &Arc<str>| names.catalog.by_arrival.contains(&**stream);
    let time = EventTime::new(
        lowering.inputs.iter().map(|stream| (Arc::clone(stream), by_arrival(stream))),
        options,
    );
    let late =
        options.late_rows.as_ref().map(|late| late_rows(late, &lowering.inputs, options, names)).transpose();
    let late = late.map_err(|error| complaint::in_clause("--! late_rows", error))?;
    Ok(Statement::new(lowering.inputs, target, root, time, late)
        .with_tables(lowering.tables)
        .for_rows(prefilters(&plan)))
}

fn plan(mut query: Query, names: &Names<'_>, views: &mut PlannerContext) -> Result<LogicalPlan> {
    elsewhere::refuse(&query)?;
    warnings::of_text(&query, names);
    spell_out_over(&mut query)?;
    let ControlFlow::Continue(()) = query.visit(&mut WindowTimes);
    planner(names).sql_statement_to_plan_with_context(AstStatement::Query(Box::new(query)), views)
}

fn planner<'a>(names: &'a Names<'a>) -> SqlToRel<'a, Names<'a>> {
    let options = ParserOptions::new().with_collect_spans(true).with_map_string_types_to_utf8view(false);
    SqlToRel::new_with_options(names, options)
}

/// GROUP BY a bound of the window is GROUP BY its time as well, where a SELECT asks for that.
struct WindowTimes;

impl VisitorMut for WindowTimes {
    type Break = Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Infallible> {
        let GroupByExpr::Expressions(groups, _) = &select.group_by else { return ControlFlow::Continue(()) };
        let last = |expr: &AstExpr| match expr {
            AstExpr::Identifier(name) => Some(name.value.to_lowercase()),
            AstExpr::CompoundIdentifier(names) => names.last().map(|name| name.value.to_lowercase()),
            _ => None,
        };
        let is =
            |expr: &AstExpr, names: &[&str]| last(expr).is_some_and(|name| names.contains(&name.as_str()));
        if groups.iter().any(|group| is(group, &[WINDOW_TIME])) {
            return ControlFlow::Continue(());
        }
        let Some(mut time) = groups.iter().find(|group| is(group, &[WINDOW_START, WINDOW_END])).cloned()
        else {
            return ControlFlow::Continue(());
        };
        let asks = |expr: &AstExpr| {
            if is(expr, &[WINDOW_TIME]) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let asks_above = visit_expressions(&select.projection, asks).is_break()
            || visit_expressions(&select.having, asks).is_break()
            || visit_expressions(&select.qualify, asks).is_break();
        let name = match &mut time {
            AstExpr::Identifier(name) => Some(name),
            AstExpr::CompoundIdentifier(names) => names.last_mut(),
            _ => None,
        };
        if let (true, Some(name), GroupByExpr::Expressions(groups, _)) =
            (asks_above, name, &mut select.group_by)
        {
            WINDOW_TIME.clone_into(&mut name.value);
            groups.push(time);
        }
        ControlFlow::Continue(())
    }
}

/// `plan` with casts where types differ that may meet.
fn analyzed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let agreeing = types::agreeing(plan)?;
    let plan = PLANNING.analyzer.execute_and_check(agreeing.clone(), planner_options(), |_, _| {});
    let plan = plan.map_err(|error| mismatch::in_plan(&agreeing, error))?;
    literals::check(&plan)?;
    Ok(plan)
}

/// `plan` with constants computed, and nothing in it that has no value for any row.
fn simplified(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = PLANNING.simplify.optimize(plan, &optimizing(), |_, _| {})?;
    literals::check_constants(&plan)?;
    Ok(plan)
}

/// How a statement is optimized.
fn optimizing() -> OptimizerContext {
    // Names that it makes up are counted from one in each statement.
    OptimizerContext::new_with_config_options(Arc::clone(&PLANNING.options))
        .without_query_execution_start_time()
}

/// A spelling of OVER that means nothing.
enum Spelled {
    Extends(Ident),
    Scalar(ObjectName),
}

/// Spellings of OVER that the planner does not know: a function that remembers rows, without OVER, remembers
/// them all, so that `rate(energy)` is `rate(energy) OVER ()`; and `OVER (w)` is `OVER w`.
fn spell_out_over(query: &mut Query) -> Result<()> {
    let wrong = visit_expressions_mut(query, |expr| {
        let AstExpr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let is_memory = || is_memory(&function.name.to_string().to_lowercase());
        match &mut function.over {
            None if is_memory() => {
                let all = WindowSpec {
                    window_name: None,
                    partition_by: Vec::new(),
                    order_by: Vec::new(),
                    window_frame: None,
                };
                function.over = Some(WindowType::WindowSpec(all));
            }
            Some(_) if is_scalar_only(&function.name.to_string().to_lowercase()) => {
                return ControlFlow::Break(Spelled::Scalar(function.name.clone()));
            }
            Some(WindowType::WindowSpec(window)) => {
                if let Some(name) = window.window_name.take() {
                    if !window.partition_by.is_empty()
                        || !window.order_by.is_empty()
                        || window.window_frame.is_some()
                    {
                        return ControlFlow::Break(Spelled::Extends(name));
                    }
                    function.over = Some(WindowType::NamedWindow(name));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match wrong {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(Spelled::Scalar(name)) => {
            let why = plan_datafusion_err!("`{name}` looks at one row, and takes no OVER; leave OVER out");
            Err(complaint::at(&name, why))
        }
        ControlFlow::Break(Spelled::Extends(name)) => {
            plan_err!(
                "OVER ({name} ..) adds to the window `{name}`, which is not supported; write the whole \
                window out"
            )
        }
    }
}

/// Rules are a function of the sequence: nothing may read dice, or a clock of its own.
fn refuse_hidden_inputs(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        refuse_out_of_place(node)?;
        node.apply_expressions(|expr| {
            refuse_hidden_input(expr).map_err(|error| complaint::near_first([expr], error))
        })
    })?;
    Ok(())
}

/// Subqueries that could not be made joins.
fn refuse_subqueries(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| match expr {
                Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                    let why = plan_datafusion_err!(
                        "a subquery cannot stand here; join the table, and use its columns"
                    );
                    Err(complaint::in_clause("( SELECT", why))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(())
}

fn refuse_hidden_input(expr: &Expr) -> Result<TreeNodeRecursion> {
    expr.apply(|expr| match expr {
        Expr::ScalarFunction(call) if is_marker(call) => {
            plan_err!(
                "`{}()` looks at rows of a match, and there is none; it can stand in MEASURES and DEFINE of \
                MATCH_RECOGNIZE",
                call.name()
            )
        }
        Expr::ScalarFunction(call)
            if call.func.signature().volatility != Volatility::Immutable && !is_now(call) =>
        {
            plan_err!(
                "`{}()` gives another result each time, but the same rows must always give the same \
                result",
                call.name()
            )
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })
}

/// Makes operators of a logical plan, from its leaves up. What an operator is made of is told where it is
/// made: an arm here, a function below.
struct Lowering<'a> {
    /// the streams that the statement reads
    inputs: Vec<Arc<str>>,
    /// the reference tables, with their columns
    tables: Vec<(Arc<str>, SchemaRef)>,
    /// streams whose `ts` is the time of arrival
    by_arrival: &'a BTreeSet<String>,
    options: &'a SqlOptions,
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
        let is_whole = matches!(self.asked, Asked::Windows);
        let operator = self.lower_one(plan).map_err(|error| complaint::in_node(plan, error))?;
        let (mut keeps, mut shares) = (false, false);
        operators::visit(&*operator, &mut |operator| {
            keeps |= !operator.is_row_by_row();
            shares |= operator.shared().is_some();
        });
        // The lowest that keeps something: there is most to do, and least that differs between rules.
        if !keeps || shares || !is_whole || reads_table(plan)? {
            return Ok(operator);
        }
        let by_arrival =
            self.inputs.iter().map(ToString::to_string).filter(|stream| self.by_arrival.contains(stream));
        Ok(Box::new(Shared::new(Computes::new(plan, self.options, by_arrival.collect(), part), operator)))
    }

    fn lower_one(&mut self, plan: &LogicalPlan) -> Result<Box<dyn Operator>> {
        match plan {
            LogicalPlan::TableScan(scan) => match scan.source.downcast_ref::<StreamSource>() {
                Some(source) if source.is_table => {
                    if !self.tables.iter().any(|(name, _)| *name == source.name) {
                        self.tables.push((Arc::clone(&source.name), source.schema()));
                    }
                    Ok(Box::new(operators::Table::named(
                        Arc::clone(&source.name),
                        &nullable(&source.schema()),
                    )))
                }
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
            LogicalPlan::Filter(_) if let Some((join, conditions)) = join::filtered_join(plan) => {
                self.join(join, &conditions)
            }
            LogicalPlan::Filter(filter) => {
                let input = self.lower(&filter.input)?;
                Ok(Box::new(Filter::new(input, physical(&filter.predicate, filter.input.schema())?)))
            }
            LogicalPlan::Extension(extension) => {
                let node = extension.node.as_any();
                match (node.downcast_ref::<Window>(), node.downcast_ref::<MatchRecognize>()) {
                    (Some(window), _) => self.window(window),
                    (_, Some(pattern)) => self.pattern(pattern),
                    _ if node.is::<AsOf>() => {
                        let why = plan_datafusion_err!(
                            "FOR SYSTEM_TIME AS OF stands on the right side of a join; {AS_OF_FORM}"
                        );
                        Err(complaint::in_clause("FOR SYSTEM_TIME", why))
                    }
                    _ => plan_err!("`{}` cannot be used in a rule", extension.node.name()),
                }
            }
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) if join::tables(plan)?.is_some() => {
                plan_err!(
                    "aggregates over a reference table are not supported; put what is wanted into the table \
                    itself, or use `query` for a SQLite table"
                )
            }
            LogicalPlan::Distinct(Distinct::All(input)) if matches!(&**input, LogicalPlan::Union(_)) => {
                plan_err!(
                    "UNION removes rows that are equal, which needs endless memory; UNION ALL keeps them"
                )
            }
            LogicalPlan::Distinct(distinct) => self.distinct(distinct),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Join(join) => self.join(join, &[]),
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| self.lower(input)).collect::<Result<_>>()?;
                Ok(Box::new(operators::Union::new(inputs, nullable(union.schema.as_arrow()))))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.lower(&unnest.input)?;
                unnest::unnest(input, unnest, 0, nullable(unnest.schema.as_arrow()))
            }
            LogicalPlan::Values(values) => unnest::values(values),
            LogicalPlan::Window(window) => self.over(window),
            other => refuse(other),
        }
    }
}

/// The operators of `plan`, which keep something, and none below them does.
fn part(
    plan: &LogicalPlan,
    options: &SqlOptions,
    by_arrival: &BTreeSet<String>,
) -> Result<Box<dyn Operator>> {
    Lowering { inputs: Vec::new(), tables: Vec::new(), by_arrival, options, asked: Asked::Windows }
        .lower_one(plan)
}

/// Whether rows of a reference table are in it.
fn reads_table(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| match node {
        LogicalPlan::TableScan(scan) => {
            Ok(scan.source.downcast_ref::<StreamSource>().is_some_and(|source| source.is_table))
        }
        _ => Ok(false),
    })
}

fn refuse(plan: &LogicalPlan) -> Result<Box<dyn Operator>> {
    match plan {
        LogicalPlan::Sort(_) => plan_err!(
            "ORDER BY on an endless stream never ends; rows are written in order of arrival; within closed \
            windows, number them: row_number() OVER (PARTITION BY window_start, window_end ORDER BY ..)"
        ),
        LogicalPlan::Limit(_) => plan_err!(
            "LIMIT on an endless stream would stop the rule for good; use WHERE, or for the first n of each \
            closed window QUALIFY row_number() OVER (PARTITION BY window_start, window_end ORDER BY ..) <= n"
        ),
        LogicalPlan::Subquery(_) => {
            plan_err!(
                "this subquery depends on the row around it in a way that no join can express; write it as \
                a join"
            )
        }
        LogicalPlan::EmptyRelation(_) => Err(complaint::in_clause(
            "SELECT",
            plan_datafusion_err!("the statement reads no stream; add FROM"),
        )),
        LogicalPlan::RecursiveQuery(_) => plan_err!("recursive queries never end on an endless stream"),
        other => plan_err!("`{}` cannot be used in a rule", other.display()),
    }
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    physical_anywhere(expr, schema).map_err(|error| complaint::near_first([expr], error))
}

fn physical_anywhere(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    expr.apply(|expr| {
        if let Expr::WindowFunction(call) = expr {
            return plan_err!(
                "`{}` cannot stand in WHERE, GROUP BY or HAVING, nor in another function of OVER; write \
                QUALIFY instead of WHERE, or compute it in a step before: WITH step AS (SELECT .. OVER ..)",
                call.fun
            );
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    checked(
        create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?,
        schema.as_arrow(),
    )
}

/// What identifies, or orders, rows: floats that are the same are one value.
fn key(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    canonical(physical(expr, schema)?, schema.as_arrow())
}

/// Every column may be null: what a filter or an outer expression proves about nulls does not matter to us.
pub(super) fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// `expr`, seen from above `plan`, with what is computed once for several expressions written out again: the
/// names that the optimizer makes up for it say nothing of what it is.
fn spelled_out(expr: &Expr, plan: &LogicalPlan) -> Result<Expr> {
    let LogicalPlan::Projection(projection) = plan else { return Ok(expr.clone()) };
    let spelled = expr.clone().transform_up(|expr| {
        let made_up = match &expr {
            Expr::Column(column) if column.name.starts_with("__common_expr") => {
                projection.schema.maybe_index_of_column(column)
            }
            _ => None,
        };
        match made_up.and_then(|index| projection.expr.get(index)) {
            Some(meant) => spelled_out(&meant.clone().unalias(), &projection.input).map(Transformed::yes),
            None => Ok(Transformed::no(expr)),
        }
    })?;
    Ok(spelled.data)
}

/// The expression as text, without the names of relations: an alias does not change what is computed.
fn unqualified(expr: &Expr) -> String {
    let bare = expr.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_some() => {
                datafusion_common::tree_node::Transformed::yes(Expr::Column(Column::new_unqualified(
                    column.name,
                )))
            }
            Expr::Alias(Alias { expr, .. }) => datafusion_common::tree_node::Transformed::yes(*expr),
            other => datafusion_common::tree_node::Transformed::no(other),
        })
    });
    bare.map_or_else(|_: DataFusionError| expr.to_string(), |bare| bare.data.to_string())
}
