//! Conditions whose constants leave nothing: `x BETWEEN 80 AND 70`, `x > 80 AND x < 70`.

use std::cmp::Ordering;

use datafusion_common::{DataFusionError, plan_datafusion_err};
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value, ValueWithSpan};

use crate::sql::complaint::at;

/// What is said of `expr`, if it is a BETWEEN with its bounds the wrong way round.
pub(super) fn reversed(expr: &Expr) -> Option<DataFusionError> {
    let Expr::Between { expr: of, negated, low, high } = expr else { return None };
    if Constant::read(low)?.compare(&Constant::read(high)?)? != Ordering::Greater {
        return None;
    }
    let (holds, not, or) = if *negated { ("always holds", "NOT ", "AND") } else { ("never holds", "", "OR") };
    let help = if is_cyclic(of) {
        let (from, to) = if *negated { ("<", ">") } else { (">=", "<=") };
        format!("write `({of} {from} {low} {or} {of} {to} {high})`")
    } else {
        format!("write `{not}BETWEEN {high} AND {low}`")
    };
    let what = plan_datafusion_err!("nothing is between {low} and {high}, so that this {holds}; {help}");
    Some(at(&**of, what))
}

/// What is said of `expr`, if it is an AND whose parts ask too much of one thing.
pub(super) fn contradiction(expr: &Expr) -> Option<DataFusionError> {
    let mut parts = Vec::new();
    conjuncts(expr, &mut parts);
    let bounds: Vec<Bound<'_>> = parts.into_iter().filter_map(Bound::read).collect();
    for (at_second, second) in bounds.iter().enumerate() {
        let is_excluded =
            |first: &&Bound<'_>| first.of.to_string() == second.of.to_string() && first.excludes(second);
        if let Some(first) = bounds.iter().take(at_second).find(is_excluded) {
            let (of, a, b) = (second.of, first, second);
            let or = format!("`({of} {} {} OR {of} {} {})`", a.op, a.value, b.op, b.value);
            let what = plan_datafusion_err!(
                "`{of}` is never {} {} and {} {} at once, so that this never holds; write {or}, or other \
                bounds",
                a.op,
                a.value,
                b.op,
                b.value
            );
            return Some(at(second.whole, what));
        }
    }
    None
}

/// Hours begin anew: from 22 to 6 is a night.
fn is_cyclic(expr: &Expr) -> bool {
    match expr {
        Expr::Extract { .. } => true,
        Expr::Function(call) => {
            matches!(call.name.to_string().to_lowercase().as_str(), "date_part" | "datepart")
        }
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_cyclic(expr),
        _ => false,
    }
}

fn conjuncts<'a>(expr: &'a Expr, parts: &mut Vec<&'a Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, parts);
            conjuncts(right, parts);
        }
        Expr::Nested(inner) => conjuncts(inner, parts),
        other => parts.push(other),
    }
}

/// `of op value`
struct Bound<'a> {
    whole: &'a Expr,
    of: &'a Expr,
    op: BinaryOperator,
    value: &'a Expr,
    constant: Constant,
}

impl<'a> Bound<'a> {
    fn read(whole: &'a Expr) -> Option<Self> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
        let Expr::BinaryOp { left, op, right } = whole else { return None };
        if !matches!(op, Eq | Gt | GtEq | Lt | LtEq) {
            return None;
        }
        if let Some(constant) = Constant::read(right) {
            return Some(Self { whole, of: left, op: op.clone(), value: right, constant });
        }
        let turned = match op {
            Gt => Lt,
            GtEq => LtEq,
            Lt => Gt,
            LtEq => GtEq,
            other => other.clone(),
        };
        Some(Self { whole, of: right, op: turned, value: left, constant: Constant::read(left)? })
    }

    /// Whether no value keeps to both.
    fn excludes(&self, other: &Self) -> bool {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq};
        let Some(order) = self.constant.compare(&other.constant) else { return false };
        match (&self.op, &other.op) {
            (Gt | GtEq | Eq, Lt | LtEq | Eq) if order == Ordering::Greater => true,
            (Lt | LtEq | Eq, Gt | GtEq | Eq) if order == Ordering::Less => true,
            (Gt, Lt | LtEq | Eq) | (GtEq | Eq, Lt) | (Lt, GtEq | Eq) | (LtEq | Eq, Gt) => {
                order == Ordering::Equal
            }
            _ => false,
        }
    }
}

/// A literal that can be compared with another.
enum Constant {
    Number(f64),
    Text(String),
}

impl Constant {
    fn read(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
                digits.parse().ok().map(Self::Number)
            }
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
                Some(text.parse().map_or_else(|_| Self::Text(text.clone()), Self::Number))
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match Self::read(expr)? {
                Self::Number(number) => Some(Self::Number(-number)),
                Self::Text(_) => None,
            },
            Expr::Nested(inner) => Self::read(inner),
            _ => None,
        }
    }

    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}
