//! Window functions: `OVER`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DataFusionError, Result, ScalarValue, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{NullTreatment, Sort, WindowFunction};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{
    Expr, LogicalPlan, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, lit,
};
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::{PhysicalExpr, PhysicalSortExpr, create_physical_sort_expr};
use datafusion_physical_plan::windows::create_window_expr;
use tidegate_core::{TS, ts_type};

use super::aggregate::nanoseconds;
use super::window::{WindowColumn, window_column};
use super::{Lowering, key, nullable, physical, unqualified};
use crate::sql::functions::{Memory, MemoryUdf, span_ns};
use crate::sql::operators::{
    Back, Frame, FrameAggregate, Function, HeldCall, InOrder, Memories, Operator, Over, OverClosed, Parts,
    Pick, Remember, Which,
};
use crate::sql::table_functions::{WINDOW_COLUMNS, WINDOW_END, WINDOW_TIME, WindowKind};
use crate::sql::words::said;

impl Lowering<'_> {
    pub(super) fn over(&mut self, window: &Window) -> Result<Box<dyn Operator>> {
        let mut below = self.lower(&window.input)?;
        let calls = window.window_expr.iter().map(call_of).collect::<Result<Vec<_>>>()?;
        let same = |a: &&WindowFunction, b: &&WindowFunction| {
            a.params.partition_by == b.params.partition_by && a.params.order_by == b.params.order_by
        };
        // Rows that are in windows but have not been aggregated wait until those close.
        let keys = calls.iter().flat_map(|call| &call.params.partition_by);
        if let Some((end, size_ns)) = keys.into_iter().find_map(|key| row_window_end(key, &window.input)) {
            below = Box::new(InOrder::until_closed(below, end, size_ns));
        }
        for calls in calls.chunk_by(same) {
            below = self.over_one_order(below, calls, window)?;
        }
        Ok(below)
    }

    /// An operator for `calls`, which have the same PARTITION BY and ORDER BY. Their columns come behind
    /// those of `below`.
    fn over_one_order(
        &self,
        below: Box<dyn Operator>,
        calls: &[&WindowFunction],
        window: &Window,
    ) -> Result<Box<dyn Operator>> {
        let Some(params) = calls.first().map(|call| &call.params) else { return Ok(below) };
        let input = window.input.schema();
        let width = below.schema().fields().len();
        let fields: Vec<Field> = window
            .schema
            .fields()
            .iter()
            .take(width + calls.len())
            .map(|field| field.as_ref().clone())
            .collect();
        let schema = nullable(&Schema::new(fields));
        let whole =
            |key: &Expr| closes_window(key, &window.input) || row_window_end(key, &window.input).is_some();
        if params.partition_by.iter().any(whole) {
            return closed(below, calls, input, schema);
        }
        let order = event_order(&params.order_by, &window.input)?;
        let keys = params.partition_by.iter().map(|by| {
            let (expr, name) = (key(by, input)?, spelled(by, &window.input));
            Ok((Arc::clone(&expr), Field::new(name, expr.data_type(input.as_arrow())?, true)))
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let mut fingerprint = format!("OVER({})", below.origin());
        if !keys.is_empty() {
            let names: Vec<&str> = keys.iter().map(|(_, field)| field.name().as_str()).collect();
            fingerprint.push_str(&format!(" BY ({})", names.join(", ")));
        }
        let below: Box<dyn Operator> = match order {
            None => below,
            Some(column) => {
                if below.delay_ns() == i64::MAX {
                    return plan_err!(
                        "the rows that OVER reads come in no order of time; leave ORDER BY out for the \
                        order of arrival"
                    );
                }
                fingerprint.push_str(&format!(" IN ORDER OF {}", input.field(column).name()));
                Box::new(InOrder::new(below, column))
            }
        };
        let mut builder = FunctionBuilder { input, plan: &window.input, takes_time: None };
        let functions = calls
            .iter()
            .enumerate()
            .map(|(n, call)| builder.function(call, width + n))
            .collect::<Result<_>>()?;
        let time_column = match (builder.takes_time, order) {
            (None, _) => None,
            (Some(_), Some(column)) => Some(column),
            (Some(function), None) => match input
                .fields()
                .iter()
                .position(|field| field.name() == TS && *field.data_type() == ts_type())
            {
                Some(column) => Some(column),
                None => {
                    return plan_err!(
                        "`{function}` goes by time, and there is no column `ts`; add `ts` to the SELECT \
                        that it reads"
                    );
                }
            },
        };
        let parts = Parts {
            keys,
            functions,
            time_column,
            in_order: order.is_some(),
            ttl_ns: self.options.state_ttl.map(nanoseconds),
            schema,
        };
        Ok(Box::new(Over::new(below, fingerprint, parts)?))
    }
}

fn call_of(expr: &Expr) -> Result<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr),
        Expr::WindowFunction(call) => Ok(call),
        other => plan_err!("`{other}` is not a window function"),
    }
}

/// The column whose order `ORDER BY` asks for. `None`: the order of arrival.
fn event_order(order: &[Sort], plan: &LogicalPlan) -> Result<Option<usize>> {
    // A RANGE frame without ORDER BY comes with a constant.
    let mut order = order.iter().filter(|sort| !matches!(sort.expr, Expr::Literal(..)));
    let Some(sort) = order.next() else { return Ok(None) };
    let by = unqualified(&sort.expr);
    let advice = "write ORDER BY ts, or leave it out for the order of arrival; the rows of closed windows \
        can have any order: PARTITION BY window_start, window_end";
    if !is_event_time(&sort.expr, plan) || order.next().is_some() {
        return plan_err!(
            "OVER in the order of `{by}` would have to wait for the end of the stream, which never comes; \
            {advice}"
        );
    }
    if !sort.asc {
        return plan_err!(
            "OVER (.. ORDER BY `{by}` DESC) begins with the last row of a stream that never ends; each row \
            is the newest of its key when it comes: take the rows of the stream as they are, or the last of \
            each window with last_value"
        );
    }
    match &sort.expr {
        Expr::Column(column) => plan.schema().index_of_column(column).map(Some),
        _ => Ok(None),
    }
}

/// The column of `plan`'s input that the column `expr` of `plan` is.
fn below<'a>(expr: &Expr, plan: &'a LogicalPlan) -> Option<(Expr, &'a LogicalPlan)> {
    let column = match expr {
        Expr::Alias(alias) => return below(&alias.expr, plan),
        Expr::Column(column) => column,
        _ => return None,
    };
    match plan {
        LogicalPlan::Filter(filter) => Some((expr.clone(), &filter.input)),
        LogicalPlan::Window(window) => Some((expr.clone(), &window.input)),
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(column)?;
            let inner = alias.input.schema().columns().into_iter().nth(index)?;
            Some((Expr::Column(inner), &alias.input))
        }
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column)?;
            Some((projection.expr.get(index)?.clone(), &projection.input))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let index = aggregate.schema.maybe_index_of_column(column)?;
            Some((aggregate.group_expr.get(index)?.clone(), &aggregate.input))
        }
        _ => None,
    }
}

/// Whether the column `expr` of `plan` grows with the watermark: `ts`, or the end of closed windows, under
/// whatever name.
fn is_event_time(expr: &Expr, plan: &LogicalPlan) -> bool {
    match expr {
        Expr::Alias(alias) => is_event_time(&alias.expr, plan),
        Expr::Column(column) => {
            let is_time = plan
                .schema()
                .maybe_index_of_column(column)
                .is_some_and(|index| *plan.schema().field(index).data_type() == ts_type());
            is_time
                && (column.name == TS
                    || [WINDOW_END, WINDOW_TIME].contains(&column.name.as_str())
                    || below(expr, plan).is_some_and(|(expr, plan)| is_event_time(&expr, plan)))
        }
        _ => false,
    }
}

/// Whether the column `expr` of `plan` is a bound of windows that are closed when their rows come.
fn closes_window(expr: &Expr, plan: &LogicalPlan) -> bool {
    match (below(expr, plan), plan) {
        (Some((Expr::Column(column), _)), LogicalPlan::Aggregate(_)) => {
            WINDOW_COLUMNS.contains(&column.name.as_str())
        }
        (Some((expr, plan)), _) => closes_window(&expr, plan),
        (None, _) => false,
    }
}

/// If `expr` is the end of the windows by the clock that rows of `plan` are in: its column, and the length of
/// the windows.
fn row_window_end(expr: &Expr, plan: &LogicalPlan) -> Option<(usize, i64)> {
    let Expr::Column(column) = expr else { return None };
    match window_column(expr, plan)? {
        WindowColumn { name: WINDOW_END, kind: WindowKind::Time(windows), aggregated: false } => {
            Some((plan.schema().maybe_index_of_column(column)?, windows.size_ns()))
        }
        _ => None,
    }
}

/// `calls` within closed windows: DataFusion's own functions can do that.
fn closed(
    below: Box<dyn Operator>,
    calls: &[&WindowFunction],
    input: &DFSchema,
    schema: SchemaRef,
) -> Result<Box<dyn Operator>> {
    let width = below.schema().fields().len();
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let (mut keys, mut order, mut functions) = (Vec::new(), Vec::new(), Vec::new());
    for (n, call) in calls.iter().enumerate() {
        let params = &call.params;
        check_bounds(&params.window_frame)?;
        let exprs =
            |exprs: &[Expr]| exprs.iter().map(|expr| physical(expr, input)).collect::<Result<Vec<_>>>();
        let filter = params.filter.as_ref().map(|filter| physical(filter, input)).transpose()?;
        keys = params.partition_by.iter().map(|by| key(by, input)).collect::<Result<_>>()?;
        let sorted = |sort: &Sort| {
            let made = create_physical_sort_expr(sort, input, &props, &context)?;
            Ok(PhysicalSortExpr { expr: key(&sort.expr, input)?, ..made })
        };
        order = params.order_by.iter().map(sorted).collect::<Result<_>>()?;
        functions.push(create_window_expr(
            &call.fun,
            schema.field(width + n).name().clone(),
            &exprs(&params.args)?,
            &keys,
            &order,
            Arc::new(params.window_frame.clone()),
            Arc::new(input.as_arrow().clone()),
            params.null_treatment == Some(NullTreatment::IgnoreNulls),
            params.distinct,
            filter,
        )?);
    }
    Ok(Box::new(OverClosed::new(below, keys, order, functions, schema)))
}

/// A frame that ends before it starts is a slip.
fn check_bounds(frame: &WindowFrame) -> Result<()> {
    use WindowFrameBound::{CurrentRow, Following, Preceding};
    let backwards = match (&frame.start_bound, &frame.end_bound) {
        (Following(_), Preceding(_) | CurrentRow) | (CurrentRow, Preceding(_)) => true,
        (Preceding(start), Preceding(end)) => end.is_null() || (!start.is_null() && start < end),
        (Following(start), Following(end)) => start.is_null() || (!end.is_null() && start > end),
        _ => false,
    };
    if backwards {
        plan_err!("the frame {frame} ends before it starts; put the farther bound first")
    } else {
        Ok(())
    }
}

/// The frame of a function that follows rows as they come.
fn frame(frame: &WindowFrame) -> Result<Frame> {
    check_bounds(frame)?;
    let refused = |what: &str| {
        plan_err!(
            "{what} looks at rows that have not come yet; end the frame with CURRENT ROW, or look at closed \
            windows: PARTITION BY window_start, window_end"
        )
    };
    let back = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Following(ahead) if ahead.is_null() => refused("UNBOUNDED `FOLLOWING`"),
        WindowFrameBound::Following(_) => refused("`FOLLOWING`"),
        WindowFrameBound::Preceding(back) if back.is_null() => Ok(Back::Unbounded),
        WindowFrameBound::CurrentRow if frame.units == WindowFrameUnits::Rows => Ok(Back::Rows(0)),
        WindowFrameBound::CurrentRow => Ok(Back::Time(0)),
        WindowFrameBound::Preceding(back) => match (frame.units, back) {
            (WindowFrameUnits::Rows, ScalarValue::UInt64(Some(rows))) => {
                Ok(Back::Rows(usize::try_from(*rows).unwrap_or(usize::MAX)))
            }
            (WindowFrameUnits::Range, back) => {
                span_ns(&lit(back.clone()), "the RANGE of a frame").map(Back::Time)
            }
            _ => plan_err!("the frame {frame} is not supported; write ROWS or RANGE"),
        },
    };
    if frame.units == WindowFrameUnits::Groups {
        return plan_err!("`GROUPS` frames are not supported; write ROWS or RANGE");
    }
    // Without ORDER BY and frame, SQL means all rows of the key: on a stream, all so far.
    if *frame == WindowFrame::new(None) {
        return Ok(Frame::RUNNING);
    }
    // Of rows with the same time, those that have come count.
    let end =
        if frame.end_bound == WindowFrameBound::CurrentRow { Back::Rows(0) } else { back(&frame.end_bound)? };
    Ok(Frame { start: back(&frame.start_bound)?, end })
}

/// Makes functions of an OVER that follows rows as they come.
struct FunctionBuilder<'a> {
    input: &'a DFSchema,
    plan: &'a LogicalPlan,
    /// a function that asks what time it is
    takes_time: Option<String>,
}

impl FunctionBuilder<'_> {
    fn function(&mut self, call: &WindowFunction, column: usize) -> Result<Function> {
        let made: Function = match &call.fun {
            WindowFunctionDefinition::AggregateUDF(_) => Function::Call(Box::new(self.aggregate(call)?)),
            WindowFunctionDefinition::WindowUDF(udf) => {
                if call.params.filter.is_some() || call.params.distinct {
                    return plan_err!(
                        "`{}` takes neither FILTER nor DISTINCT; use CASE in its argument",
                        udf.name()
                    );
                }
                match udf.inner().downcast_ref::<MemoryUdf>() {
                    Some(udf) => self.memory(udf.memory, call, column)?,
                    None => self.pick(udf.name(), call)?,
                }
            }
        };
        Ok(made)
    }

    fn takes_time(&mut self, call: &WindowFunction) {
        self.takes_time.get_or_insert_with(|| call.fun.to_string());
    }

    /// The arguments, compiled.
    fn arguments(&self, call: &WindowFunction) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        call.params.args.iter().map(|argument| physical(argument, self.input)).collect()
    }

    fn frame(&mut self, call: &WindowFunction) -> Result<Frame> {
        let frame = frame(&call.params.window_frame)?;
        if matches!(frame.start, Back::Time(_)) || matches!(frame.end, Back::Time(_)) {
            self.takes_time(call);
        }
        Ok(frame)
    }

    /// `name(arguments) frame`.
    fn fingerprint(&self, call: &WindowFunction, frame: Option<Frame>) -> String {
        let params = &call.params;
        let arguments: Vec<String> =
            params.args.iter().map(|argument| spelled(argument, self.plan)).collect();
        let mut text = format!(
            "{}({}{})",
            call.fun,
            if params.distinct { "DISTINCT " } else { "" },
            arguments.join(", ")
        );
        if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
            text.push_str(" IGNORE NULLS");
        }
        if let Some(filter) = &params.filter {
            text.push_str(&format!(" FILTER ({})", spelled(filter, self.plan)));
        }
        if let Some(frame) = frame.filter(|frame| *frame != Frame::RUNNING) {
            text.push_str(&format!(" {frame}"));
        }
        text
    }

    fn aggregate(&mut self, call: &WindowFunction) -> Result<FrameAggregate> {
        let WindowFunctionDefinition::AggregateUDF(function) = &call.fun else {
            return plan_err!("`{}` is not an aggregate", call.fun);
        };
        let (frame, params) = (self.frame(call)?, &call.params);
        let schema = Arc::new(self.input.as_arrow().clone());
        let aggregate = AggregateExprBuilder::new(Arc::clone(function), self.arguments(call)?)
            .schema(Arc::clone(&schema))
            .alias(call.fun.to_string())
            .with_ignore_nulls(params.null_treatment == Some(NullTreatment::IgnoreNulls))
            .with_distinct(params.distinct)
            .build()?;
        let filter = params.filter.as_ref().map(|filter| physical(filter, self.input)).transpose()?;
        FrameAggregate::new(self.fingerprint(call, Some(frame)), Arc::new(aggregate), filter, frame, &schema)
    }

    /// DataFusion's window functions.
    fn pick(&mut self, name: &str, call: &WindowFunction) -> Result<Function> {
        let params = &call.params;
        let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
        let number = |n: usize, otherwise: i64| match params.args.get(n) {
            None => Ok(otherwise),
            Some(Expr::Literal(value, _)) if value.is_null() => Ok(otherwise),
            Some(Expr::Literal(value, _)) => match value.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(Some(number)) if number >= 0 => Ok(number),
                _ if name == "lag" => plan_err!(
                    "`lag` with a negative distance looks at rows that have not come yet; write `lag(x, 1)`"
                ),
                _ => plan_err!("`{name}` counts from 1"),
            },
            Some(other) => plan_err!("`{}` must be a constant number of rows in `{name}`", said(other)),
        };
        let which = match name {
            "row_number" => {
                let fingerprint = self.fingerprint(call, None);
                return Ok(Function::Call(Box::new(Memories::new(
                    fingerprint,
                    Vec::new(),
                    Remember::RowNumber,
                ))));
            }
            "lag" => {
                let default = match params.args.get(2) {
                    None => None,
                    Some(Expr::Literal(value, _)) if value.is_null() => None,
                    Some(Expr::Literal(value, _)) => Some(value.clone()),
                    Some(other) => {
                        let other = said(other);
                        return plan_err!(
                            "`{other}` must be a constant as the default of `lag`; use coalesce(lag(x), \
                            {other})"
                        );
                    }
                };
                Which::Lag(usize::try_from(number(1, 1)?).unwrap_or(usize::MAX), default)
            }
            "first_value" => Which::First(self.frame(call)?),
            "last_value" => Which::Last(self.frame(call)?),
            "nth_value" => match number(1, 1)? {
                0 => return plan_err!("`nth_value` counts from 1"),
                n => Which::Nth(self.frame(call)?, usize::try_from(n).unwrap_or(usize::MAX)),
            },
            "lead" => {
                return plan_err!(
                    "`lead` looks at a row that has not come yet; swap the roles of the two rows and write \
                    `lag`"
                );
            }
            _ => {
                return plan_err!(
                    "`{name}` compares rows that have not all come; use `row_number`, or look at closed \
                    windows: PARTITION BY window_start, window_end"
                );
            }
        };
        let in_rows = |frame: &Frame| {
            *frame != Frame::RUNNING
                && [frame.start, frame.end].iter().any(|back| matches!(back, Back::Rows(n) if *n > 0))
        };
        if ignore_nulls
            && matches!(&which, Which::First(frame) | Which::Last(frame) | Which::Nth(frame, _) if in_rows(frame))
        {
            return plan_err!(
                "`{name}` with IGNORE NULLS does not take ROWS; use RANGE, or leave out the rows without \
                value before"
            );
        }
        let Some(argument) = self.arguments(call)?.into_iter().next() else {
            return plan_err!("`{name}` needs an argument");
        };
        let data_type = argument.data_type(self.input.as_arrow())?;
        let which = match which {
            Which::Lag(back, Some(default)) => Which::Lag(back, Some(default.cast_to(&data_type)?)),
            other => other,
        };
        let value = params.args.first().map(|value| spelled(value, self.plan)).unwrap_or_default();
        let fingerprint = match &which {
            Which::Lag(back, _) => {
                format!("lag({value}, {back}){}", if ignore_nulls { " IGNORE NULLS" } else { "" })
            }
            _ => self.fingerprint(call, Some(frame(&params.window_frame)?)),
        };
        Ok(Function::Call(Box::new(Pick::new(fingerprint, argument, data_type, which, ignore_nulls))))
    }

    /// Our own functions. What they remember survives other thresholds.
    fn memory(&mut self, memory: Memory, call: &WindowFunction, column: usize) -> Result<Function> {
        let name = call.fun.to_string();
        let mut arguments = self.arguments(call)?.into_iter();
        let (Some(first), Some(value)) = (arguments.next(), call.params.args.first()) else {
            return plan_err!("`{name}` needs an argument");
        };
        let of = if memory.takes_condition() {
            without_thresholds(value, self.plan)
        } else {
            spelled(value, self.plan)
        };
        let second = call.params.args.get(1);
        let interval = || span_ns(second.unwrap_or(value), &format!("the interval of `{name}`"));
        let is_interval = matches!(
            second,
            Some(Expr::Literal(
                ScalarValue::IntervalMonthDayNano(_)
                    | ScalarValue::IntervalDayTime(_)
                    | ScalarValue::IntervalYearMonth(_),
                _
            ))
        );
        if memory.takes_time(memory == Memory::Ewma && is_interval) {
            self.takes_time(call);
        }
        let mut fingerprint = format!("{name}({of})");
        let what = match memory {
            Memory::Became => Remember::Became,
            Memory::Changed if second.is_some() => {
                fingerprint.push_str(" by more");
                Remember::ChangedBy
            }
            Memory::Changed => {
                let data_type = first.data_type(self.input.as_arrow())?;
                return Ok(Function::Call(Box::new(Pick::new(
                    fingerprint,
                    first,
                    data_type,
                    Which::Changed,
                    true,
                ))));
            }
            Memory::CountWithin => {
                // In (ts - interval, ts]: that is, from one nanosecond after its beginning.
                let interval = interval()?;
                fingerprint.push_str(&format!(" in {interval}ns"));
                let schema = Arc::new(self.input.as_arrow().clone());
                let count = AggregateExprBuilder::new(count_udaf(), vec![physical(&lit(1_i64), self.input)?]);
                let count = count.schema(Arc::clone(&schema)).alias(name).build()?;
                let frame = Frame { start: Back::Time(interval - 1), end: Back::Rows(0) };
                let counts = FrameAggregate::new(fingerprint, Arc::new(count), Some(first), frame, &schema)?;
                return Ok(Function::Call(Box::new(counts)));
            }
            Memory::Deadband => Remember::Deadband,
            Memory::Ewma if is_interval => Remember::EwmaTime(interval()?),
            Memory::Ewma => Remember::EwmaShare(share(second)?),
            Memory::Held => {
                return Ok(Function::Held(HeldCall {
                    fingerprint,
                    condition: first,
                    for_ns: interval()?,
                    column,
                }));
            }
            Memory::Hysteresis => {
                check_hysteresis(&call.params.args)?;
                Remember::Hysteresis
            }
            Memory::Increase => Remember::Increase,
            Memory::Rate => Remember::Rate,
            Memory::Since => Remember::Since,
        };
        let arguments = std::iter::once(first).chain(arguments).collect();
        Ok(Function::Call(Box::new(Memories::new(fingerprint, arguments, what))))
    }
}

fn constant(expr: Option<&Expr>) -> Option<f64> {
    match expr {
        Some(Expr::Literal(ScalarValue::Float64(number), _)) => *number,
        _ => None,
    }
}

/// The share of the newest value in `ewma`.
fn share(expr: Option<&Expr>) -> Result<f64> {
    match constant(expr) {
        Some(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => plan_err!(
            "the second argument of `ewma` is the share of the newest value; write a number over 0 and up \
            to 1, or an interval"
        ),
    }
}

fn check_hysteresis(arguments: &[Expr]) -> Result<()> {
    match (constant(arguments.get(1)), constant(arguments.get(2))) {
        (Some(low), Some(high)) if low >= high => {
            plan_err!(
                "`hysteresis` is off from {low} down and on from {high} up, which leaves nothing between; \
                put the lower threshold first"
            )
        }
        _ => Ok(()),
    }
}

/// `condition` as text, with its constants blanked: what is remembered of it survives another threshold.
fn without_thresholds(condition: &Expr, plan: &LogicalPlan) -> String {
    let blank = whole(condition, plan).transform_up(|expr| {
        Ok(match expr {
            Expr::Literal(..) => Transformed::yes(Expr::Column(Column::new_unqualified("_"))),
            other => Transformed::no(other),
        })
    });
    blank.map_or_else(|_: DataFusionError| unqualified(condition), |blank| unqualified(&blank.data))
}

/// The expression as text.
fn spelled(expr: &Expr, plan: &LogicalPlan) -> String {
    unqualified(&whole(expr, plan))
}

/// The expression with common parts, which the planner has taken out of it, back in place.
fn whole(expr: &Expr, plan: &LogicalPlan) -> Expr {
    let is_common =
        |expr: &Expr| matches!(expr, Expr::Column(column) if column.name.starts_with("__common_expr"));
    let whole = expr.clone().transform_up(|expr| {
        if !is_common(&expr) {
            return Ok(Transformed::no(expr));
        }
        let mut place = (expr, plan);
        while is_common(&place.0) {
            let Some(deeper) = below(&place.0, place.1) else { break };
            place = (unaliased(deeper.0), deeper.1);
        }
        Ok(Transformed::yes(place.0))
    });
    whole.map_or_else(|_: DataFusionError| expr.clone(), |whole| whole.data)
}

fn unaliased(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => unaliased(*alias.expr),
        other => other,
    }
}
