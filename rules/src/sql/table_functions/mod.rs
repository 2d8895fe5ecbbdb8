//! The window table functions: what may stand in FROM besides a stream or a view.

mod tokens;
mod window;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue, plan_datafusion_err, plan_err};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion_sql::sqlparser::ast::{
    Expr as AstExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, TableFactor,
};
use tidegate_core::{TS, ts_type};

use super::complaint::{at, near};
use super::spellings::of_function;
use super::windows::TimeWindows;
use super::words::kind;
pub(super) use tokens::rewrite as rewrite_tokens;
pub(super) use window::{
    WINDOW_COLUMNS, WINDOW_END, WINDOW_START, WINDOW_TIME, WINDOW_TIME_NS, Window, WindowKind,
    with_window_columns,
};

/// How `PARTITION BY k, ..` of a window's data is handed to its planner: as an argument of its own, a call of
/// this name.
pub(super) const PARTITION_BY: &str = "partition_by";

/// The names of the window functions, each with the form to write.
pub(super) const FORMS: [(&str, &str); 6] = [
    ("tumble", "write `TUMBLE(stream, DESCRIPTOR(ts), INTERVAL '10' SECOND)`"),
    (
        "hop",
        "write `HOP(stream, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '10' SECOND)`, the slide first, \
        then the size",
    ),
    (
        "cumulate",
        "write `CUMULATE(stream, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '1' HOUR)`, the step first, \
        then the size",
    ),
    ("session", "write `SESSION(stream PARTITION BY device, DESCRIPTOR(ts), INTERVAL '5' MINUTE)`"),
    ("count_window", "write `COUNT_WINDOW(stream PARTITION BY device, 100)`"),
    (
        "state_window",
        "write `STATE_WINDOW(stream PARTITION BY device, running, NOT running)`: what opens a window, and \
        what closes it",
    ),
];

/// More windows of one row than this would be a mistake, or a load that no one wants.
const MAX_OVERLAP: i64 = 100_000;

#[derive(Debug)]
pub(super) struct WindowFunctions;

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (name, args, alias) = match relation {
            TableFactor::Table { name, args: Some(args), alias, .. } => (name, args.args, alias),
            TableFactor::TableFunction { expr: AstExpr::Function(function), alias } => match function.args {
                FunctionArguments::List(list) => (function.name, list.args, alias),
                _ => return plan_err!("`{}` takes its arguments in parentheses", function.name),
            },
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let window = window(&name, args, context).map_err(|error| near(&name, error))?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(window) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn window(
    name: &ObjectName,
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<Window> {
    let function = name.to_string().to_lowercase();
    let Some((_, form)) = FORMS.iter().find(|(known, _)| *known == function) else {
        let known = FORMS.map(|(known, _)| known.to_uppercase()).join(", ");
        let help = of_function(&function).map_or_else(|| format!("there are {known}"), str::to_owned);
        return plan_err!("`{name}` is not a table function; {help}");
    };
    Call::new(function.to_uppercase(), form, args, context)?.window(context)
}

/// A window function as it is written.
struct Call {
    function: String,
    form: &'static str,
    data: LogicalPlan,
    partition: Vec<Expr>,
    /// the arguments behind the data
    rest: Vec<AstExpr>,
}

impl Call {
    fn new(
        function: String,
        form: &'static str,
        args: Vec<FunctionArg>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Self> {
        let mut exprs = Vec::with_capacity(args.len());
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr),
                other => return plan_err!("{function} does not take `{other}`; {form}"),
            }
        }
        let mut rest = exprs.into_iter().peekable();
        let data = match rest.next() {
            Some(AstExpr::Identifier(ident)) => ObjectName::from(ident),
            Some(AstExpr::CompoundIdentifier(idents)) => ObjectName::from(idents),
            Some(other) => {
                return plan_err!(
                    "the first argument of {function} is the name of a stream or view, not `{other}`; {form}"
                );
            }
            None => return plan_err!("{function} needs a stream or view; {form}"),
        };
        let mut data = context.plan(TableFactor::Table {
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
        match data
            .schema()
            .fields()
            .iter()
            .find(|field| field.name() == TS)
            .map(|field| field.data_type().clone())
        {
            Some(found) if found == ts_type() => {}
            Some(found) => data = with_event_time(data, found, &function)?,
            None => return plan_err!("the data of {function} has no column `ts`; add `ts` to its SELECT"),
        }
        let mut partition = Vec::new();
        if let Some(keys) = rest.next_if(|arg| call_args(arg, PARTITION_BY).is_some()) {
            for key in call_args(&keys, PARTITION_BY).unwrap_or_default() {
                match key {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(key)) => {
                        partition.push(context.sql_to_expr(key.clone(), data.schema())?)
                    }
                    other => return plan_err!("{function} cannot be partitioned by `{other}`; {form}"),
                }
            }
        }
        Ok(Self { function, form, data, partition, rest: rest.collect() })
    }

    fn window(mut self, context: &mut dyn RelationPlannerContext) -> Result<Window> {
        let Self { function, form, .. } = &self;
        let (function, form) = (function.clone(), *form);
        match function.as_str() {
            "TUMBLE" => {
                let [size, offset] = self.intervals(context, "three arguments, or four with an offset", 1)?;
                let size = size.unwrap_or(1);
                self.by_time(TimeWindows::tumble(size, offset.unwrap_or(0)))
            }
            "HOP" => {
                let [slide, size, offset] =
                    self.intervals(context, "four arguments, or five with an offset", 2)?;
                self.by_time(TimeWindows::hop(slide.unwrap_or(1), size.unwrap_or(1), offset.unwrap_or(0)))
            }
            "CUMULATE" => {
                let [step, size] = self.intervals(context, "four arguments", 2)?;
                let (step, size) = (step.unwrap_or(1), size.unwrap_or(1));
                if size % step != 0 {
                    return plan_err!("the size of CUMULATE must be a multiple of its step; {form}");
                }
                self.by_time(TimeWindows::cumulate(step, size))
            }
            "SESSION" => {
                let [gap] = self.intervals(context, "three arguments", 1)?;
                Window::over(
                    self.data,
                    WindowKind::Session { gap_ns: gap.unwrap_or(1) },
                    self.partition,
                    Vec::new(),
                )
            }
            "COUNT_WINDOW" => {
                let rows = std::mem::take(&mut self.rest)
                    .iter()
                    .map(|arg| row_count(arg, form))
                    .collect::<Result<Vec<_>>>()?;
                let (size, every) = match rows.as_slice() {
                    [size] => (*size, *size),
                    [size, every] if every <= size => (*size, *every),
                    [_, _] => {
                        return plan_err!(
                            "COUNT_WINDOW cannot leave out rows: `every` must not be more than the size; \
                            {form}"
                        );
                    }
                    _ => {
                        return plan_err!(
                            "COUNT_WINDOW takes two arguments, or three with how many rows lie between \
                            windows; {form}"
                        );
                    }
                };
                Window::over(self.data, WindowKind::Count { size, every }, self.partition, Vec::new())
            }
            _ => {
                let Ok([open, close]) = <[AstExpr; 2]>::try_from(self.rest) else {
                    return plan_err!("STATE_WINDOW takes three arguments; {form}");
                };
                let mut conditions = Vec::with_capacity(2);
                for written in [open, close] {
                    let schema = self.data.schema();
                    let condition = context.sql_to_expr(written.clone(), schema)?;
                    let condition = match condition.get_type(schema)? {
                        DataType::Boolean => condition,
                        DataType::Null => cast(condition, DataType::Boolean),
                        other => {
                            let found = kind(&other);
                            let why = plan_datafusion_err!(
                                "`{written}` is {found}, but STATE_WINDOW needs a condition; {form}"
                            );
                            return Err(at(&written, why));
                        }
                    };
                    conditions.push(condition);
                }
                Window::over(self.data, WindowKind::State, self.partition, conditions)
            }
        }
    }

    fn by_time(self, windows: TimeWindows) -> Result<Window> {
        if !self.partition.is_empty() {
            return plan_err!(
                "{} does not go by key: its windows are the same for all rows; name the keys in GROUP BY",
                self.function
            );
        }
        if windows.overlap() > MAX_OVERLAP {
            return plan_err!(
                "each row would be in {} windows; make the slide longer, or the window shorter",
                windows.overlap()
            );
        }
        Window::over(self.data, WindowKind::Time(windows), Vec::new(), Vec::new())
    }

    /// `DESCRIPTOR(ts)` and the lengths behind it, of which the first `needed` must be there; the last may be
    /// an offset.
    fn intervals<const N: usize>(
        &mut self,
        context: &mut dyn RelationPlannerContext,
        takes: &str,
        needed: usize,
    ) -> Result<[Option<i64>; N]> {
        let Self { function, form, .. } = self;
        let mut rest = std::mem::take(&mut self.rest).into_iter();
        let count = rest.len();
        if count < needed + 1 || count > N + 1 {
            return plan_err!("{function} takes {takes}; {form}");
        }
        if let Some(descriptor) = rest.next() {
            match descriptor_column(&descriptor) {
                Some(column) if context.normalize_ident(column.clone()) == TS => {}
                Some(column) => {
                    let why = plan_datafusion_err!(
                        "windows go by event time, which is the column `ts`, not `{column}`; {form}"
                    );
                    return Err(at(&descriptor, why));
                }
                None => {
                    let why = plan_datafusion_err!(
                        "the second argument of {function} is `DESCRIPTOR(ts)`, not `{descriptor}`; {form}"
                    );
                    return Err(at(&descriptor, why));
                }
            }
        }
        let mut lengths = [None; N];
        for (index, (length, written)) in lengths.iter_mut().zip(rest).enumerate() {
            let expr = context.sql_expr_to_logical_expr(written.clone(), &DFSchema::empty())?;
            let what = match (function.as_str(), index) {
                _ if index >= needed => "offset",
                ("HOP", 0) => "slide",
                ("CUMULATE", 0) => "step",
                ("SESSION", _) => "gap",
                _ => "size",
            };
            *length = Some(interval_ns(&expr, &written, what)?);
        }
        Ok(lengths)
    }
}

/// `data`, whose `ts` is of the type `found`, with a `ts` that windows can go by, if it is a moment that they
/// can know.
fn with_event_time(data: LogicalPlan, found: DataType, function: &str) -> Result<LogicalPlan> {
    match found {
        DataType::Timestamp(_, Some(_)) => {}
        DataType::Timestamp(_, None) => {
            return plan_err!(
                "`ts` of the data of {function} is a time without a zone, and windows go by UTC; leave `ts` \
                as it is and give the local time another name, or say which zone it is of: `.. AT TIME ZONE \
                'Europe/Berlin' AS ts`"
            );
        }
        other => {
            return plan_err!(
                "`ts` of the data of {function} is {other}, and windows go by time; write `to_timestamp(..) \
                AT TIME ZONE 'UTC' AS ts` in its SELECT"
            );
        }
    }
    let columns = data.schema().columns().into_iter().map(|column| {
        let (relation, name) = (column.relation.clone(), column.name.clone());
        let column = Expr::Column(column);
        if name == TS { cast(column, ts_type()).alias_qualified(relation, name) } else { column }
    });
    LogicalPlanBuilder::from(data.clone()).project(columns.collect::<Vec<_>>())?.build()
}

/// The arguments of `expr`, if it is a call of `name`.
fn call_args<'a>(expr: &'a AstExpr, name: &str) -> Option<&'a [FunctionArg]> {
    let AstExpr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    function.name.to_string().eq_ignore_ascii_case(name).then_some(list.args.as_slice())
}

fn descriptor_column(expr: &AstExpr) -> Option<&Ident> {
    match call_args(expr, "descriptor")? {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(AstExpr::Identifier(column)))] => Some(column),
        _ => None,
    }
}

fn row_count(written: &AstExpr, form: &str) -> Result<u32> {
    match written.to_string().parse::<u32>() {
        Ok(rows) if rows > 0 => Ok(rows),
        _ => {
            let why = "write a whole number greater than zero";
            Err(at(written, plan_datafusion_err!("`{written}` cannot be a number of rows: {why}; {form}")))
        }
    }
}

fn interval_ns(expr: &Expr, written: &AstExpr, what: &str) -> Result<i64> {
    let is_offset = what == "offset";
    let bad = |why: &str| {
        Err(DataFusionError::Plan(format!("`{written}` cannot be the {what} of a window: {why}")))
    };
    let (Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _), sign) = (match expr {
        Expr::Negative(inner) => (inner.as_ref(), -1),
        other => (other, 1),
    }) else {
        return bad("write an interval, such as INTERVAL '10' SECOND");
    };
    if interval.months != 0 {
        return bad("months and years differ in length; use days or shorter");
    }
    let ns_per_day = 86_400_000_000_000_i64;
    match i64::from(interval.days)
        .checked_mul(ns_per_day)
        .and_then(|days| days.checked_add(interval.nanoseconds))
    {
        Some(ns) if is_offset => Ok(ns.saturating_mul(sign)),
        Some(ns) if ns > 0 && sign > 0 => Ok(ns),
        Some(_) => bad(&format!("the {what} must be longer than zero")),
        None => bad("it is too long"),
    }
}
