//! How far apart the event times of two rows may be for a join, read off its conditions.

use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::Alias;
use datafusion_expr::{Between, BinaryExpr, Cast, Expr, Operator, TryCast};

use crate::sql::operators::Reach;

const NS_PER_DAY: i64 = 86_400_000_000_000;

/// `left`, `right` are the columns that carry time. The reach that `conditions` leave, as far as they are
/// about these two and nothing else, and which of them these are. `Err`: a bound is missing.
pub(super) fn reach(
    conditions: &[Expr],
    left: &Column,
    right: &Column,
) -> Result<(Reach, Vec<usize>), Missing> {
    let (mut from, mut to) = (None, None);
    let mut used = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let Some((at_least, at_most)) = bounds(condition, left, right) else { continue };
        used.push(index);
        from = at_least.into_iter().chain(from).max();
        to = at_most.into_iter().chain(to).min();
    }
    match (from, to) {
        (Some(from), Some(to)) => Ok((Reach { from, to }, used)),
        (None, None) => Err(Missing::Both),
        (None, Some(_)) => Err(Missing::From),
        (Some(_), None) => Err(Missing::To),
    }
}

/// Which bound there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Both,
    /// how much earlier the right row may be
    From,
    /// how much later
    To,
}

/// What `condition` says about (right time - left time): at least, at most. `None`: it is about something
/// else.
fn bounds(condition: &Expr, left: &Column, right: &Column) -> Option<(Option<i64>, Option<i64>)> {
    match condition {
        Expr::Alias(Alias { expr, .. }) => bounds(expr, left, right),
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let (from, to) = compared(expr, Operator::GtEq, low, left, right)?;
            let (from2, to2) = compared(expr, Operator::LtEq, high, left, right)?;
            Some((from.into_iter().chain(from2).max(), to.into_iter().chain(to2).min()))
        }
        Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) => compared(a, *op, b, left, right),
        _ => None,
    }
}

fn compared(
    a: &Expr,
    op: Operator,
    b: &Expr,
    left: &Column,
    right: &Column,
) -> Option<(Option<i64>, Option<i64>)> {
    let (a, b) = (Linear::from_expr(a, left, right)?, Linear::from_expr(b, left, right)?);
    let difference = a.plus(b.times(-1)?)?;
    // `difference op 0`, and what that says about right - left.
    let (op, ns) = match (difference.left, difference.right) {
        (-1, 1) => (op, difference.ns.checked_neg()?),
        (1, -1) => (op.swap()?, difference.ns),
        _ => return None,
    };
    match op {
        Operator::Eq => Some((Some(ns), Some(ns))),
        Operator::Lt => Some((None, Some(ns.checked_sub(1)?))),
        Operator::LtEq => Some((None, Some(ns))),
        Operator::Gt => Some((Some(ns.checked_add(1)?), None)),
        Operator::GtEq => Some((Some(ns), None)),
        _ => None,
    }
}

/// So many times the left time, the right time, and some nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Linear {
    left: i64,
    right: i64,
    ns: i64,
}

impl Linear {
    fn from_expr(expr: &Expr, left: &Column, right: &Column) -> Option<Self> {
        match expr {
            Expr::Column(column) if column == left => Some(Self { left: 1, right: 0, ns: 0 }),
            Expr::Column(column) if column == right => Some(Self { left: 0, right: 1, ns: 0 }),
            Expr::Alias(Alias { expr, .. }) => Self::from_expr(expr, left, right),
            // What is cast here was a time or a span, and stays one; one that would lose precision is not of
            // use.
            Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })
                if is_exact(field.data_type()) =>
            {
                Self::from_expr(expr, left, right)
            }
            Expr::Negative(expr) => Self::from_expr(expr, left, right)?.times(-1),
            Expr::Literal(value, _) => Some(Self { left: 0, right: 0, ns: span_ns(value)? }),
            Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Plus, right: b }) => {
                Self::from_expr(a, left, right)?.plus(Self::from_expr(b, left, right)?)
            }
            Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Minus, right: b }) => {
                Self::from_expr(a, left, right)?.plus(Self::from_expr(b, left, right)?.times(-1)?)
            }
            _ => None,
        }
    }

    fn plus(self, other: Self) -> Option<Self> {
        let [left, right] = [self.left.checked_add(other.left)?, self.right.checked_add(other.right)?];
        Some(Self { left, right, ns: self.ns.checked_add(other.ns)? })
    }

    fn times(self, factor: i64) -> Option<Self> {
        let [left, right] = [self.left.checked_mul(factor)?, self.right.checked_mul(factor)?];
        Some(Self { left, right, ns: self.ns.checked_mul(factor)? })
    }
}

fn is_exact(to: &arrow::datatypes::DataType) -> bool {
    use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
    matches!(
        to,
        DataType::Timestamp(TimeUnit::Nanosecond, _)
            | DataType::Duration(TimeUnit::Nanosecond)
            | DataType::Interval(IntervalUnit::MonthDayNano)
    )
}

/// The length of a span in nanoseconds; months have none.
fn span_ns(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(span)) if span.months == 0 => {
            i64::from(span.days).checked_mul(NS_PER_DAY)?.checked_add(span.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(span)) => i64::from(span.days)
            .checked_mul(NS_PER_DAY)?
            .checked_add(i64::from(span.milliseconds).checked_mul(1_000_000)?),
        ScalarValue::DurationNanosecond(Some(ns)) => Some(*ns),
        ScalarValue::DurationMicrosecond(Some(us)) => us.checked_mul(1_000),
        ScalarValue::DurationMillisecond(Some(ms)) => ms.checked_mul(1_000_000),
        ScalarValue::DurationSecond(Some(s)) => s.checked_mul(1_000_000_000),
        _ => None,
    }
}
