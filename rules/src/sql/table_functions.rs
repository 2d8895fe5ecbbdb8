//! The window table functions: what may stand in FROM besides a stream or a view.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, Result, ScalarValue, plan_err};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion_sql::sqlparser::ast::{Expr as AstExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, TableFactor};
use tidegate_core::{TS, ts_type};

pub(super) const WINDOW_START: &str = "window_start";
pub(super) const WINDOW_END: &str = "window_end";

/// `TUMBLE(data, DESCRIPTOR(ts), size)`: the data with two more columns, `window_start` and `window_end` (SQL:2016, polymorphic table
/// functions). Windows are `[start, end)` and aligned to 1970-01-01T00:00:00Z.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Tumble {
    pub input: LogicalPlan,
    /// length of a window, nanoseconds, more than 0
    pub size_ns: i64,
    schema: DFSchemaRef,
}

impl Tumble {
    fn over(input: LogicalPlan, size_ns: i64) -> Result<Self> {
        let mut fields: Vec<_> = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        // The new columns belong to the same relation, so that `t.window_start` works.
        let qualifier = fields.first().and_then(|(qualifier, _)| qualifier.clone());
        for name in [WINDOW_START, WINDOW_END] {
            fields.push((qualifier.clone(), Arc::new(Field::new(name, ts_type(), false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(Self { input, size_ns, schema })
    }
}

impl fmt::Debug for Tumble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for Tumble {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.size_ns.partial_cmp(&other.size_ns)
    }
}

impl Hash for Tumble {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.size_ns.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Tumble {
    fn name(&self) -> &str {
        "Tumble"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tumble: size={}ns", self.size_ns)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Self::over(input, self.size_ns),
            Err(_) => plan_err!("TUMBLE has one input"),
        }
    }
}

#[derive(Debug)]
pub(super) struct WindowFunctions;

const TUMBLE_FORM: &str = "write `TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND)`";

impl RelationPlanner for WindowFunctions {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let (name, args, alias) = match relation {
            TableFactor::Table { name, args: Some(args), alias, .. } => (name, args.args, alias),
            TableFactor::TableFunction { expr: AstExpr::Function(function), alias } => match function.args {
                FunctionArguments::List(list) => (function.name, list.args, alias),
                _ => return plan_err!("{TUMBLE_FORM}"),
            },
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let function = name.to_string().to_lowercase();
        match function.as_str() {
            "tumble" => {
                let plan = tumble(args, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            "hop" | "session" | "cumulate" => plan_err!("the window `{}` is not supported yet; {TUMBLE_FORM}", function.to_uppercase()),
            _ => plan_err!("`{name}` is not a table function; {TUMBLE_FORM}"),
        }
    }
}

fn tumble(args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let mut exprs = Vec::with_capacity(args.len());
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr),
            other => return plan_err!("TUMBLE does not take `{other}`; {TUMBLE_FORM}"),
        }
    }
    let Ok([data, descriptor, size]) = <[AstExpr; 3]>::try_from(exprs) else {
        return plan_err!("TUMBLE takes three arguments; {TUMBLE_FORM}");
    };
    let data = match data {
        AstExpr::Identifier(ident) => ObjectName::from(ident),
        AstExpr::CompoundIdentifier(idents) => ObjectName::from(idents),
        other => return plan_err!("the first argument of TUMBLE is the name of a stream or view, not `{other}`; {TUMBLE_FORM}"),
    };
    match descriptor_column(&descriptor) {
        Some(column) if context.normalize_ident(column.clone()) == TS => {}
        Some(column) => return plan_err!("windows go by event time, which is the column `ts`, not `{column}`; {TUMBLE_FORM}"),
        None => return plan_err!("the second argument of TUMBLE is `DESCRIPTOR(ts)`, not `{descriptor}`; {TUMBLE_FORM}"),
    }
    let size = context.sql_expr_to_logical_expr(size.clone(), &DFSchema::empty()).and_then(|expr| interval_ns(&expr, &size))?;
    let input = context.plan(TableFactor::Table {
        name: data,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    })?;
    match input.schema().fields().iter().find(|field| field.name() == TS) {
        Some(field) if *field.data_type() == ts_type() => {}
        _ => return plan_err!("the data of TUMBLE has no column `ts`; add `ts` to its SELECT"),
    }
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(Tumble::over(input, size)?) }))
}

fn descriptor_column(expr: &AstExpr) -> Option<&Ident> {
    let AstExpr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(AstExpr::Identifier(column)))] => {
            function.name.to_string().eq_ignore_ascii_case("descriptor").then_some(column)
        }
        _ => None,
    }
}

fn interval_ns(expr: &Expr, written: &AstExpr) -> Result<i64> {
    let bad = |why: &str| Err(DataFusionError::Plan(format!("`{written}` cannot be the size of a window: {why}")));
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expr else {
        return bad("write an interval, such as INTERVAL '10' SECOND");
    };
    if interval.months != 0 {
        return bad("months and years differ in length; use days or shorter");
    }
    let ns_per_day = 86_400_000_000_000_i64;
    match i64::from(interval.days).checked_mul(ns_per_day).and_then(|days| days.checked_add(interval.nanoseconds)) {
        Some(ns) if ns > 0 => Ok(ns),
        Some(_) => bad("it must be longer than zero"),
        None => bad("it is too long"),
    }
}

/// The schema of `schema`'s fields with the window columns, without qualifiers.
pub(super) fn with_window_columns(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.extend([WINDOW_START, WINDOW_END].map(|name| Arc::new(Field::new(name, ts_type(), false))));
    Arc::new(Schema::new(fields))
}
