//! `MATCH_RECOGNIZE`: rows that look like a pattern, one after the other (SQL:2016, row pattern recognition,
//! feature R010).
//!
//! * [`clauses`]: what the parser does not know becomes something that it does know.
//! * [`shape`]: the regular expression of PATTERN.
//! * [`formula`]: the expressions of DEFINE and MEASURES.
//!
//! What is beyond the standard: `WITHIN` behind PATTERN, as Flink has it, and
//! `NOT FOLLOWED BY c WITHIN span`, which asks for the absence of a row. What is not there: matches without
//! rows, `^` and `$`, NEXT, and unmatched rows.

pub(super) mod clauses;
pub(super) mod formula;
pub(super) mod shape;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_common::{DFSchema, DFSchemaRef, Result, ScalarValue, plan_err};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion_sql::sqlparser::ast::{
    AfterMatchSkip, EmptyMatchesMode, Expr as AstExpr, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, Measure, OrderByExpr, RowsPerMatch, SymbolDefinition, TableFactor, visit_expressions_mut,
};
use tidegate_core::{TS, ts_type};

use super::complaint::{in_clause, near};
use super::words::kind;
use clauses::{NOT_FOLLOWED_BY, SUBSET, WITHIN};
use formula::{ALL_NAME, Formula, Scope};
use shape::Shape;

/// Where the search goes on after a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Skip {
    PastLastRow,
    ToNextRow,
    /// the first row of one of these variables
    ToFirst(u64),
    /// the last row of one of these variables
    ToLast(u64),
}

/// What MATCH_RECOGNIZE says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub(super) struct Spec {
    /// indices of input columns
    pub partition_by: Vec<usize>,
    /// names, by index
    pub variables: Vec<String>,
    pub shape: Shape,
    /// conditions, by variable; a variable without one is always true
    pub conditions: Vec<Option<Formula>>,
    /// how much later than its first row the last row of a match may be, without that
    pub within_ns: Option<i64>,
    /// the variable of the row that must not come, and for how long after the last row
    pub absent: Option<(usize, i64)>,
    pub skip: Skip,
    /// one row for each row of the match, instead of one for all
    pub all_rows: bool,
    pub measures: Vec<(String, Formula)>,
    /// what is looked for, as text: state belongs to it
    pub looks_for: String,
}

impl Spec {
    /// The columns of its rows: indices of input columns before the measures, and behind them.
    pub(super) fn columns(&self, input: &DFSchema) -> Result<(Vec<usize>, Vec<usize>)> {
        if !self.all_rows {
            return Ok((self.partition_by.clone(), Vec::new()));
        }
        let mut before = self.partition_by.clone();
        before.extend(input.index_of_column_by_name(None, TS).filter(|ts| !before.contains(ts)));
        let behind = (0..input.fields().len()).filter(|column| !before.contains(column)).collect();
        Ok((before, behind))
    }
}

/// The node of a plan.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct MatchRecognize {
    pub input: LogicalPlan,
    pub spec: Arc<Spec>,
    schema: DFSchemaRef,
}

impl MatchRecognize {
    fn over(input: LogicalPlan, spec: Arc<Spec>) -> Result<Self> {
        let rows = unqualified(input.schema())?;
        let (before, behind) = spec.columns(&rows)?;
        let column =
            |column: &usize| Ok((None, Arc::new(rows.field(*column).as_ref().clone().with_nullable(true))));
        let mut fields = before.iter().map(column).collect::<Result<Vec<_>>>()?;
        for (name, formula) in &spec.measures {
            fields.push((
                None,
                Arc::new(Field::new(name, formula.expr.get_type(&formula.schema(&rows)?)?, true)),
            ));
        }
        fields.extend(behind.iter().map(column).collect::<Result<Vec<_>>>()?);
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(Self { input, spec, schema })
    }
}

impl fmt::Debug for MatchRecognize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for MatchRecognize {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.spec.partial_cmp(&other.spec)
    }
}

impl Hash for MatchRecognize {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.spec.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for MatchRecognize {
    fn name(&self) -> &str {
        "MatchRecognize"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// None: its formulas are not expressions over the input's columns.
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchRecognize: {}", self.spec.looks_for)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Self::over(input, Arc::clone(&self.spec)),
            Err(_) => plan_err!("MATCH_RECOGNIZE has one input"),
        }
    }
}

/// Plans MATCH_RECOGNIZE in FROM.
#[derive(Debug)]
pub(super) struct RowPatterns;

impl RelationPlanner for RowPatterns {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        if !matches!(relation, TableFactor::MatchRecognize { .. }) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        self.plan_match(relation, context).map_err(|error| in_clause("MATCH_RECOGNIZE", error))
    }
}

impl RowPatterns {
    fn plan_match(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::MatchRecognize {
            table,
            partition_by,
            order_by,
            measures,
            rows_per_match,
            after_match_skip,
            pattern,
            symbols,
            alias,
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let input = context.plan(*table)?;
        let rows = unqualified(input.schema())?;
        refuse_other_order(&order_by, &rows, context)?;
        let all_rows = match rows_per_match {
            None | Some(RowsPerMatch::OneRow) => false,
            Some(RowsPerMatch::AllRows(None | Some(EmptyMatchesMode::Show | EmptyMatchesMode::Omit))) => true,
            Some(RowsPerMatch::AllRows(Some(EmptyMatchesMode::WithUnmatched))) => {
                return plan_err!(
                    "WITH UNMATCHED ROWS would write every row of the stream; write `ALL ROWS PER MATCH`"
                );
            }
        };
        let mut variables = Vec::new();
        let shape = Shape::read(&pattern, &mut variables, &|name| context.normalize_ident(name.clone()))?;
        let in_pattern = variables.len();
        let definitions = Definitions::read(symbols, &mut variables, context)?;
        let mut names: Vec<(String, u64)> =
            (0..).zip(&variables).map(|(at, name)| (name.clone(), 1_u64 << at)).collect();
        names.extend(definitions.subsets(&names)?);
        let partition = join(partition_by.iter().map(ToString::to_string));
        let skip_text = after_match_skip.as_ref().map(|skip| format!("{skip} ")).unwrap_or_default();
        let looks_for =
            format!("{partition}: {skip_text}PATTERN ({}){}", shape.display(&variables), definitions.text);
        let partition_by = partition_by
            .iter()
            .map(|column| partition_column(column, &rows, context))
            .collect::<Result<Vec<_>>>()?;
        let skip = skip(after_match_skip, &names, &shape, context)?;
        let formula = |expr: AstExpr, measure: bool, context: &mut dyn RelationPlannerContext| {
            let scope = Scope { names: &names, rows: &rows, measure };
            let written = expr.clone();
            let expr = name_all_rows(expr, &names, &rows, context);
            let expr = context.sql_to_expr(expr, &scope.planning_schema()?)?;
            Formula::new(expr, &scope).map_err(|error| near(&written, error))
        };
        let mut conditions = vec![None; variables.len()];
        for (variable, condition) in definitions.conditions {
            if let Some(place) = conditions.get_mut(variable) {
                let text = condition.to_string();
                let condition = formula(condition, false, context)?;
                match condition.expr.get_type(&condition.schema(&rows)?)? {
                    DataType::Boolean | DataType::Null => *place = Some(condition),
                    other => {
                        let found = kind(&other);
                        return plan_err!(
                            "`{text}` is {found}, but DEFINE needs a condition; compare it with something"
                        );
                    }
                }
            }
        }
        let absent = definitions.absent;
        if absent.is_some_and(|(variable, _)| variable < in_pattern) {
            return plan_err!(
                "the row that must not follow has a variable that the pattern has too; give it another name"
            );
        }
        let mut computed = Vec::with_capacity(measures.len());
        for Measure { expr, alias } in measures {
            let name = context.normalize_ident(alias);
            computed.push((name, formula(expr, true, context)?));
        }
        if computed.is_empty() && !all_rows && partition_by.is_empty() {
            return plan_err!("a match would have no columns; add `MEASURES LAST(ts) AS ts`");
        }
        let spec = Spec {
            partition_by,
            variables,
            shape,
            conditions,
            within_ns: definitions.within_ns,
            absent,
            skip,
            all_rows,
            measures: computed,
            looks_for,
        };
        let node = MatchRecognize::over(input, Arc::new(spec))?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// What DEFINE says, and the clauses before it.
#[derive(Default)]
struct Definitions {
    conditions: Vec<(usize, AstExpr)>,
    subsets: Vec<(String, Vec<String>)>,
    within_ns: Option<i64>,
    absent: Option<(usize, i64)>,
    /// all of it, for people
    text: String,
}

impl Definitions {
    /// Adds the variable that must not come to `variables`.
    fn read(
        symbols: Vec<SymbolDefinition>,
        variables: &mut Vec<String>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Self> {
        let mut read = Self::default();
        let mut conditions: Vec<(String, String, AstExpr)> = Vec::new();
        for SymbolDefinition { symbol, definition } in symbols {
            let written = symbol.to_string();
            let name = context.normalize_ident(symbol);
            match (name.as_str(), arguments(&definition)) {
                (WITHIN, _) => {
                    read.text.push_str(&format!(" WITHIN {definition}"));
                    read.within_ns = Some(span_ns("WITHIN", definition, context)?);
                }
                (NOT_FOLLOWED_BY, Some((NOT_FOLLOWED_BY, arguments))) => {
                    let Ok([AstExpr::Identifier(variable), span]) = <[AstExpr; 2]>::try_from(arguments)
                    else {
                        return plan_err!(
                            "write `NOT FOLLOWED BY c WITHIN INTERVAL '5' SECOND`, where c is a variable of \
                            DEFINE"
                        );
                    };
                    read.text.push_str(&format!(" NOT FOLLOWED BY {variable} WITHIN {span}"));
                    let variable = context.normalize_ident(variable);
                    let at = variables.iter().position(|known| *known == variable).unwrap_or_else(|| {
                        variables.push(variable);
                        variables.len() - 1
                    });
                    read.absent = Some((at, span_ns("NOT FOLLOWED BY", span, context)?));
                }
                (_, Some((SUBSET, arguments))) => {
                    read.text.push_str(&format!(
                        " SUBSET {written} = ({})",
                        join(arguments.iter().map(ToString::to_string))
                    ));
                    let parts = arguments.into_iter().map(|part| match part {
                        AstExpr::Identifier(part) => Ok(context.normalize_ident(part)),
                        other => plan_err!("`{other}` is no variable; write `SUBSET s = (a, b)`"),
                    });
                    read.subsets.push((name, parts.collect::<Result<_>>()?));
                }
                _ => {
                    if conditions.iter().any(|(known, ..)| *known == name) {
                        return plan_err!(
                            "`{written}` is defined twice; combine the conditions with AND or OR"
                        );
                    }
                    conditions.push((name, written, definition));
                }
            }
        }
        let defined = conditions.iter().map(|(_, written, condition)| format!("{written} AS {condition}"));
        read.text.push_str(&format!(" DEFINE {}", join(defined)));
        for (name, written, condition) in conditions {
            match variables.iter().position(|known| *known == name) {
                Some(variable) => read.conditions.push((variable, condition)),
                None => {
                    return plan_err!(
                        "`{written}` is defined, but PATTERN has no such variable; remove it, or use it in \
                        PATTERN"
                    );
                }
            }
        }
        if let Some((variable, _)) = read.absent
            && !read.conditions.iter().any(|(defined, _)| *defined == variable)
        {
            let name = variables.get(variable).cloned().unwrap_or_default();
            return plan_err!(
                "`{name}` must not follow, but DEFINE does not say what it is; add `{name} AS condition`"
            );
        }
        if let Some(name) =
            [WITHIN, NOT_FOLLOWED_BY].into_iter().find(|name| variables.iter().any(|known| known == name))
        {
            return plan_err!(
                "`{name}` is a clause of MATCH_RECOGNIZE and cannot be a variable; choose another name"
            );
        }
        Ok(read)
    }

    fn subsets(&self, names: &[(String, u64)]) -> Result<Vec<(String, u64)>> {
        let bits = |name: &String| match names.iter().find(|(known, _)| known == name) {
            Some((_, bits)) => Ok(*bits),
            None => plan_err!("SUBSET has `{name}`, but PATTERN has no such variable; remove it"),
        };
        let subsets = self.subsets.iter().map(|(name, parts)| {
            if names.iter().any(|(known, _)| known == name) {
                return plan_err!("`{name}` is a variable and cannot be a SUBSET too; choose another name");
            }
            Ok((
                name.clone(),
                parts
                    .iter()
                    .map(bits)
                    .try_fold(0, |all, part| Ok::<_, datafusion_common::DataFusionError>(all | part?))?,
            ))
        });
        subsets.collect()
    }
}

/// The name and arguments of a call.
fn arguments(expr: &AstExpr) -> Option<(&'static str, Vec<AstExpr>)> {
    let AstExpr::Function(function) = expr else { return None };
    let name = [NOT_FOLLOWED_BY, SUBSET].into_iter().find(|name| function.name.to_string() == *name)?;
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    Some((name, arguments.collect::<Option<_>>()?))
}

fn refuse_other_order(
    order_by: &[OrderByExpr],
    rows: &DFSchema,
    context: &dyn RelationPlannerContext,
) -> Result<()> {
    match rows.fields().iter().find(|field| field.name() == TS) {
        Some(field) if *field.data_type() == ts_type() => {}
        _ => return plan_err!("the data of MATCH_RECOGNIZE has no column `ts`; add `ts` to its SELECT"),
    }
    let form = "write `ORDER BY ts`";
    match order_by {
        [] => plan_err!("MATCH_RECOGNIZE must say in which order rows follow each other; {form}"),
        [one] => {
            let column = match &one.expr {
                AstExpr::Identifier(column) => Some(column),
                AstExpr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            let descending = one.options.asc == Some(false);
            match column.map(|column| context.normalize_ident(column.clone())) {
                Some(column) if column == TS && !descending => Ok(()),
                _ => plan_err!(
                    "rows follow each other in event time, which is the column `ts`, not `{one}`; {form}"
                ),
            }
        }
        _ => plan_err!(
            "rows follow each other in event time, and those of one time in order of arrival; {form}"
        ),
    }
}

fn partition_column(
    column: &AstExpr,
    rows: &DFSchema,
    context: &dyn RelationPlannerContext,
) -> Result<usize> {
    let name = match column {
        AstExpr::Identifier(name) => context.normalize_ident(name.clone()),
        AstExpr::CompoundIdentifier(parts) => {
            parts.last().map(|name| context.normalize_ident(name.clone())).unwrap_or_default()
        }
        _ => {
            return plan_err!(
                "PARTITION BY takes columns, not `{column}`; compute it in a view that MATCH_RECOGNIZE reads"
            );
        }
    };
    match rows.index_of_column_by_name(None, &name) {
        Some(index) => Ok(index),
        None => Err(datafusion_common::field_not_found(None::<&str>, &name, rows)),
    }
}

fn skip(
    skip: Option<AfterMatchSkip>,
    names: &[(String, u64)],
    shape: &Shape,
    context: &dyn RelationPlannerContext,
) -> Result<Skip> {
    let bits = |name: Ident| {
        let written = name.to_string();
        let name = context.normalize_ident(name);
        match names.iter().find(|(known, _)| *known == name) {
            Some((_, bits)) => Ok(*bits),
            None => {
                plan_err!("`{written}` follows SKIP TO, but PATTERN has no such variable; choose one of it")
            }
        }
    };
    match skip {
        None | Some(AfterMatchSkip::PastLastRow) => Ok(Skip::PastLastRow),
        Some(AfterMatchSkip::ToNextRow) => Ok(Skip::ToNextRow),
        Some(AfterMatchSkip::ToFirst(name)) => {
            let text = name.to_string();
            let bits = bits(name)?;
            if shape.begins_with(bits) {
                return plan_err!(
                    "AFTER MATCH SKIP TO FIRST {text} would find the same match for ever; write `AFTER \
                    MATCH SKIP TO NEXT ROW`"
                );
            }
            Ok(Skip::ToFirst(bits))
        }
        Some(AfterMatchSkip::ToLast(name)) => Ok(Skip::ToLast(bits(name)?)),
    }
}

/// Names without a variable before them get one that means every row; `COUNT(A.*)` counts a column that is
/// never null.
fn name_all_rows(
    mut expr: AstExpr,
    names: &[(String, u64)],
    rows: &DFSchema,
    context: &dyn RelationPlannerContext,
) -> AstExpr {
    let normal = |name: &Ident| context.normalize_ident(name.clone());
    let is_column = |name: &Ident| rows.index_of_column_by_name(None, &normal(name)).is_some();
    let all = || Ident::with_quote('"', ALL_NAME);
    let _ = visit_expressions_mut(&mut expr, |expr| {
        match expr {
            AstExpr::Identifier(name) if is_column(name) => {
                *expr = AstExpr::CompoundIdentifier(vec![all(), name.clone()])
            }
            AstExpr::CompoundIdentifier(parts) => {
                let is_variable = |first: &Ident| {
                    names.iter().any(|(name, _)| *name == normal(first)) || first.value == ALL_NAME
                };
                if parts.first().is_some_and(|first| !is_variable(first) && is_column(first)) {
                    parts.insert(0, all());
                }
            }
            AstExpr::Function(function) => {
                if let FunctionArguments::List(list) = &mut function.args {
                    for argument in &mut list.args {
                        if let FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(variable)) = argument {
                            let parts = variable
                                .0
                                .iter()
                                .filter_map(|part| part.as_ident().cloned())
                                .chain([Ident::new(TS)]);
                            *argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(
                                AstExpr::CompoundIdentifier(parts.collect()),
                            ));
                        }
                    }
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    expr
}

fn span_ns(clause: &str, written: AstExpr, context: &mut dyn RelationPlannerContext) -> Result<i64> {
    let form = format!("write an interval, such as `{clause} .. INTERVAL '10' SECOND`");
    let text = written.to_string();
    let expr = context.sql_expr_to_logical_expr(written, &DFSchema::empty())?;
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expr else {
        return plan_err!("`{text}` is no span of time; {form}");
    };
    if interval.months != 0 {
        return plan_err!("months and years differ in length; {form}");
    }
    let ns_per_day = 86_400_000_000_000_i64;
    match i64::from(interval.days)
        .checked_mul(ns_per_day)
        .and_then(|days| days.checked_add(interval.nanoseconds))
    {
        Some(ns) if ns > 0 => Ok(ns),
        Some(_) => plan_err!("`{text}` is not longer than zero; {form}"),
        None => plan_err!("`{text}` is too long; {form}"),
    }
}

/// The columns of the input under their names alone.
pub(super) fn unqualified(schema: &DFSchema) -> Result<DFSchema> {
    let fields = schema.fields().iter().map(|field| (None, Arc::clone(field)));
    DFSchema::new_with_metadata(fields.collect(), HashMap::new())
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}
