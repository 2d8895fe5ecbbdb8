//! The functions that SQL has not, but machines need: they remember rows, and stand with `OVER`.
//!
//! Here is how they are written: names, arguments, types. What they do is in [`super::operators`]'s `over`.
//! [`epoch`] are those that SQL has, with a type that says more.

mod epoch;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{Expr, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};

pub(super) use epoch::{EPOCHS, Epoch};

/// A function that remembers rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Memory {
    /// the edge: a condition has become true
    Became,
    /// a value differs from the one before
    Changed,
    /// how often a condition was true of late
    CountWithin,
    /// a value that moves only when it has moved far enough
    Deadband,
    /// exponentially weighted mean
    Ewma,
    /// a condition has been true for so long
    Held,
    /// a switch with two thresholds
    Hysteresis,
    /// how much a counter has grown
    Increase,
    /// how fast a counter grows, per second
    Rate,
    /// seconds since a condition was true
    Since,
}

impl Memory {
    const ALL: [Self; 10] = [
        Self::Became,
        Self::Changed,
        Self::CountWithin,
        Self::Deadband,
        Self::Ewma,
        Self::Held,
        Self::Hysteresis,
        Self::Increase,
        Self::Rate,
        Self::Since,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Became => "became",
            Self::Changed => "changed",
            Self::CountWithin => "count_within",
            Self::Deadband => "deadband",
            Self::Ewma => "ewma",
            Self::Held => "held",
            Self::Hysteresis => "hysteresis",
            Self::Increase => "increase",
            Self::Rate => "rate",
            Self::Since => "since",
        }
    }

    /// How it is written, for those who wrote it otherwise.
    fn form(self) -> &'static str {
        match self {
            Self::Became => "became(temperature > 80)",
            Self::Changed => "changed(state)` or `changed(temperature, 0.5)",
            Self::CountWithin => "count_within(temperature > 80, INTERVAL '1' MINUTE)",
            Self::Deadband => "deadband(temperature, 0.5)",
            Self::Ewma => "ewma(temperature, 0.2)` or `ewma(temperature, INTERVAL '10' SECOND)",
            Self::Held => "held(temperature > 80, INTERVAL '10' SECOND)",
            Self::Hysteresis => "hysteresis(temperature, 70, 80)",
            Self::Increase => "increase(parts)",
            Self::Rate => "rate(energy)",
            Self::Since => "since(temperature > 80)",
        }
    }

    /// Whether the first argument is a condition.
    pub(super) fn takes_condition(self) -> bool {
        matches!(self, Self::Became | Self::CountWithin | Self::Held | Self::Since)
    }

    /// Whether its result depends on when rows come.
    pub(super) fn takes_time(self, interval: bool) -> bool {
        matches!(self, Self::CountWithin | Self::Held | Self::Rate | Self::Since) || interval
    }

    fn returns(self) -> DataType {
        match self {
            Self::Became | Self::Changed | Self::Held | Self::Hysteresis => DataType::Boolean,
            Self::Deadband | Self::Ewma | Self::Increase | Self::Rate | Self::Since => DataType::Float64,
            Self::CountWithin => DataType::Int64,
        }
    }

    /// The types to which arguments of the types `written` are cast.
    fn arguments(self, written: &[DataType]) -> Result<Vec<DataType>> {
        let wrong = || plan_err!("`{}` does not take these arguments; write `{}`", self.name(), self.form());
        let number = |data_type: &DataType| data_type.is_numeric() || data_type.is_null();
        let condition = |data_type: &DataType| matches!(data_type, DataType::Boolean | DataType::Null);
        let interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
        let numbers = |count: usize| {
            if written.iter().all(number) { Ok(vec![DataType::Float64; count]) } else { wrong() }
        };
        match (self, written) {
            (Self::Became | Self::Since, [c]) if condition(c) => Ok(vec![DataType::Boolean]),
            (Self::CountWithin | Self::Held, [c, i]) if condition(c) && interval(i) => {
                Ok(vec![DataType::Boolean, i.clone()])
            }
            (Self::Changed, [any]) => {
                Ok(vec![if any.is_floating() { DataType::Float64 } else { any.clone() }])
            }
            (Self::Ewma, [x, i]) if number(x) && interval(i) => Ok(vec![DataType::Float64, i.clone()]),
            (Self::Increase | Self::Rate, [_]) => numbers(1),
            (Self::Changed | Self::Deadband | Self::Ewma, [_, _]) => numbers(2),
            (Self::Hysteresis, [_, _, _]) => numbers(3),
            _ => wrong(),
        }
    }
}

/// One of them, as DataFusion's planner sees it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct MemoryUdf {
    pub memory: Memory,
    signature: Signature,
}

impl WindowUDFImpl for MemoryUdf {
    fn name(&self) -> &str {
        self.memory.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        plan_err!(
            "`{}` follows rows as they come, and the rows of a closed window come all at once; leave \
            window_start and window_end out of its PARTITION BY",
            self.name()
        )
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), self.memory.returns(), true)))
    }

    fn coerce_types(&self, written: &[DataType]) -> Result<Vec<DataType>> {
        self.memory.arguments(written)
    }
}

/// All of them.
pub(super) fn memories() -> impl Iterator<Item = Arc<WindowUDF>> {
    Memory::ALL.into_iter().map(|memory| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(WindowUDF::new_from_impl(MemoryUdf { memory, signature }))
    })
}

/// Whether `name` is one of them.
pub(super) fn is_memory(name: &str) -> bool {
    Memory::ALL.into_iter().any(|memory| memory.name() == name)
}

/// Nanoseconds of the constant interval `expr`, which must be longer than zero; `what` says what it is, for
/// people.
pub(super) fn span_ns(expr: &Expr, what: &str) -> Result<i64> {
    const DAY_NS: i64 = 86_400_000_000_000;
    let (months, days, ns) = match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            (interval.months, interval.days, interval.nanoseconds)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => {
            (0, interval.days, i64::from(interval.milliseconds).saturating_mul(1_000_000))
        }
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => (*months, 0, 0),
        _ => return plan_err!("{what} must be a constant; write an interval, such as INTERVAL '10' SECOND"),
    };
    if months != 0 {
        return plan_err!(
            "{what} cannot have months or years, which differ in length; write days or shorter"
        );
    }
    match i64::from(days).checked_mul(DAY_NS).and_then(|days| days.checked_add(ns)) {
        Some(span) if span > 0 => Ok(span),
        Some(_) => {
            plan_err!("{what} must be longer than zero; write an interval, such as INTERVAL '10' SECOND")
        }
        None => plan_err!("{what} is too long; write an interval, such as INTERVAL '10' SECOND"),
    }
}
