//! Which expressions have a value, or null, for every row: they cannot divide by zero, overflow, or meet with
//! a text that is no number.

use arrow::datatypes::DataType;
use datafusion_common::DFSchema;
use datafusion_expr::expr::{Between, InList, Like, ScalarFunction};
use datafusion_expr::{BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator};

/// Functions that never fail.
const NEVER_FAIL: [&str; 14] = [
    "btrim",
    "character_length",
    "coalesce",
    "contains",
    "ends_with",
    "json_get",
    "json_get_text",
    "lower",
    "ltrim",
    "nullif",
    "reverse",
    "rtrim",
    "starts_with",
    "upper",
];

/// Functions that never fail when all their arguments are floats.
const NEVER_FAIL_FOR_FLOATS: [&str; 13] = [
    "abs", "atan", "atan2", "cbrt", "ceil", "cos", "degrees", "exp", "floor", "radians", "signum", "sin",
    "tan",
];

/// Whether `expr`, over rows with `schema`, has a value for every row. More have than are known here.
pub(super) fn is_safe(expr: &Expr, schema: &DFSchema) -> bool {
    let safe = |expr: &Expr| is_safe(expr, schema);
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => safe(&alias.expr),
        Expr::Not(expr) | Expr::IsNull(expr) | Expr::IsNotNull(expr) => safe(expr),
        Expr::IsTrue(expr) | Expr::IsFalse(expr) | Expr::IsNotTrue(expr) | Expr::IsNotFalse(expr) => {
            safe(expr)
        }
        Expr::Negative(expr) => is_float(expr, schema) && safe(expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let of_floats = is_arithmetic(*op) && is_float(left, schema) && is_float(right, schema);
            (of_floats || never_fails(*op)) && safe(left) && safe(right)
        }
        Expr::Between(Between { expr, low, high, .. }) => safe(expr) && safe(low) && safe(high),
        Expr::InList(InList { expr, list, .. }) => safe(expr) && list.iter().all(safe),
        // Only a pattern that is not known when the rule is loaded may turn out to be none.
        Expr::Like(Like { expr, pattern, .. }) => safe(expr) && matches!(**pattern, Expr::Literal(..)),
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            expr.iter().chain(else_expr).all(|expr| safe(expr))
                && when_then_expr.iter().all(|(when, then)| safe(when) && safe(then))
        }
        Expr::TryCast(cast) => safe(&cast.expr),
        Expr::Cast(Cast { expr, field }) => {
            safe(expr) && expr.get_type(schema).is_ok_and(|from| only_widens(&from, field.data_type()))
        }
        Expr::ScalarFunction(call) => function_is_safe(call, schema) && call.args.iter().all(safe),
        _ => false,
    }
}

fn function_is_safe(call: &ScalarFunction, schema: &DFSchema) -> bool {
    let name = call.func.name();
    NEVER_FAIL.contains(&name)
        || (NEVER_FAIL_FOR_FLOATS.contains(&name) && call.args.iter().all(|expr| is_float(expr, schema)))
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Float32 | DataType::Float64))
}

fn never_fails(op: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or, StringConcat};
    matches!(
        op,
        And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | StringConcat
    )
}

/// Of floats none of these fails: what has no value is infinite, or not a number.
fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

/// Whether every value of `from` has one in `to`.
fn only_widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{Float32, Float64, Int64, LargeUtf8, Utf8, Utf8View};
    match to {
        Float64 => from.is_integer() || matches!(from, Float32 | Float64),
        Int64 => {
            from.is_signed_integer() || matches!(from, DataType::UInt8 | DataType::UInt16 | DataType::UInt32)
        }
        Utf8 | LargeUtf8 | Utf8View => from.is_integer() || matches!(from, Utf8 | LargeUtf8 | Utf8View),
        _ => from == to,
    }
}
