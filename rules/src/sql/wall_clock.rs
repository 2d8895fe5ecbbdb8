//! `now()` and its kin: what the wall clock showed when the rows at hand entered the sequence.
//!
//! The sequence tells the time with each entry ([`crate::When`]), and it is the same when the entry is run
//! again. The functions look it up where they stand: when a row passes there. A row that waited, for the end
//! of its window or for a partner, passes when it goes on. So `now()` can stand where rows pass once, and not
//! where it is up to an operator when and how often it computes something: in what an aggregate or a window
//! function is told, or in a reference table.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidegate_core::ts_type;

use super::names::StreamSource;

const DAY_NS: i64 = 86_400_000_000_000;

/// What the expressions of one rule look the time up in.
#[derive(Debug, Clone, Default)]
pub(super) struct WallClock(Arc<Shown>);

#[derive(Debug, Default)]
struct Shown {
    ns: AtomicI64,
    /// whether there is an expression that looks it up
    is_read: AtomicBool,
}

impl WallClock {
    /// It is `wall_ns` from now on.
    pub(super) fn set(&self, wall_ns: i64) {
        // One thread runs a rule: nobody else looks.
        self.0.ns.store(wall_ns, Ordering::Relaxed);
    }

    /// Whether the rule wants to know.
    pub(super) fn is_read(&self) -> bool {
        self.0.is_read.load(Ordering::Relaxed)
    }

    /// The function that SQL calls `name`, if it is about the time of day.
    pub(super) fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let reading = Reading::named(name)?;
        self.0.is_read.store(true, Ordering::Relaxed);
        // Anything but volatile would be computed once, when the rule is planned.
        let signature = Signature::nullary(Volatility::Volatile);
        Some(Arc::new(ScalarUDF::new_from_impl(Now { clock: self.clone(), reading, signature })))
    }
}

/// What of it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reading {
    Moment,
    Date,
    Time,
}

impl Reading {
    fn named(name: &str) -> Option<Self> {
        match name {
            "now" | "current_timestamp" => Some(Self::Moment),
            "current_date" | "today" => Some(Self::Date),
            "current_time" => Some(Self::Time),
            _ => None,
        }
    }
}

/// Whether `name` is a function that asks for the time of day.
pub(super) fn is_clock(name: &str) -> bool {
    Reading::named(name).is_some()
}

#[derive(Debug)]
struct Now {
    clock: WallClock,
    reading: Reading,
    signature: Signature,
}

impl PartialEq for Now {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.clock.0, &other.clock.0) && self.reading == other.reading
    }
}

impl Eq for Now {}

impl Hash for Now {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.reading.hash(state);
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        match self.reading {
            Reading::Moment => "now",
            Reading::Date => "current_date",
            Reading::Time => "current_time",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.reading {
            Reading::Moment => ts_type(),
            Reading::Date => DataType::Date32,
            Reading::Time => DataType::Time64(TimeUnit::Nanosecond),
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let wall_ns = self.clock.0.ns.load(Ordering::Relaxed);
        let value = match self.reading {
            Reading::Moment => ScalarValue::TimestampNanosecond(Some(wall_ns), Some("UTC".into())),
            Reading::Date => match i32::try_from(wall_ns.div_euclid(DAY_NS)) {
                Ok(day) => ScalarValue::Date32(Some(day)),
                Err(_) => return exec_err!("the clock shows a day that no date can name"),
            },
            Reading::Time => ScalarValue::Time64Nanosecond(Some(wall_ns.rem_euclid(DAY_NS))),
        };
        Ok(ColumnarValue::Scalar(value))
    }
}

/// Whether `call` asks for the time of day.
pub(super) fn is_now(call: &ScalarFunction) -> bool {
    let function: &dyn Any = call.func.inner().as_ref();
    function.is::<Now>()
}

/// Whether `expr` does anywhere.
pub(super) fn asks_for_now(expr: &Expr) -> bool {
    let asks = expr.exists(|expr| Ok(matches!(expr, Expr::ScalarFunction(call) if is_now(call))));
    asks.unwrap_or(false)
}

/// Refuses `now()` in `expr`, since it is up to an operator when it computes that.
pub(super) fn refuse_now(expr: &Expr) -> Result<()> {
    if asks_for_now(expr) {
        return plan_err!(
            "`now()` can stand in SELECT, WHERE, HAVING, QUALIFY and ON; compute it there in a step before: \
            WITH step AS (SELECT *, now() AS seen FROM ..)"
        );
    }
    Ok(())
}

/// Refuses `now()` in `node` where it is no row of a stream that passes.
pub(super) fn refuse_out_of_place(node: &LogicalPlan) -> Result<()> {
    let rows_pass =
        matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Join(_));
    let mut asks = false;
    node.apply_expressions(|expr| {
        asks |= asks_for_now(expr);
        if rows_pass { Ok(()) } else { refuse_now(expr) }.map(|()| TreeNodeRecursion::Continue)
    })?;
    if !asks {
        return Ok(());
    }
    let (mut table, mut stream) = (false, false);
    node.apply(|below| {
        match below {
            LogicalPlan::TableScan(scan) => match scan.source.downcast_ref::<StreamSource>() {
                Some(source) if source.is_table => table = true,
                _ => stream = true,
            },
            LogicalPlan::Values(_) => table = true,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if table && !stream {
        return plan_err!(
            "`now()` cannot be asked of a table alone, whose rows are the same until its file changes; join \
            the table, and ask it of the joined rows: FROM stream JOIN table ON .. WHERE table.until > now()"
        );
    }
    Ok(())
}
