//! How floats compare: NaN equals NaN and is greater than every other number, and both zeros are one, as in
//! PostgreSQL.
//!
//! Arrow compares by IEEE 754's total order, in which the sign of a NaN counts and zeros differ. What `0.0 /
//! 0.0` gives has its sign set on x86 and not on ARM, so that a rule would do one thing at the desk and
//! another on the box.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Result, ScalarValue, internal_err};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::expressions::{BinaryExpr, CaseExpr, InListExpr, in_list};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// Functions that compare their arguments.
const COMPARE: [&str; 3] = ["greatest", "least", "nullif"];

/// A float, ordered as this module says.
trait Number: Copy + PartialOrd {
    fn is_nan(self) -> bool;

    fn is_less(self, other: Self) -> bool {
        self < other || (other.is_nan() && !self.is_nan())
    }

    fn is_same(self, other: Self) -> bool {
        self == other || (self.is_nan() && other.is_nan())
    }

    /// The one float that stands for all that are the same.
    fn canonical(self) -> Self;
}

impl Number for f64 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    fn canonical(self) -> Self {
        if self.is_nan() { f64::NAN } else { self + 0.0 }
    }
}

impl Number for f32 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    fn canonical(self) -> Self {
        if self.is_nan() { f32::NAN } else { self + 0.0 }
    }
}

/// `expr` as rules evaluate it, on rows of `schema`: floats compare as this module says, and what overflows
/// fails.
pub(super) fn checked(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let checked = expr.transform_up(|expr| {
        // A sum that wraps around is a command that no one meant: the row is left out and reported, as for a
        // division by zero.
        let expr = match expr.downcast_ref::<BinaryExpr>() {
            Some(binary) => Arc::new(binary.clone().with_fail_on_overflow(true)) as _,
            None => expr,
        };
        comparing(expr, schema).map(Transformed::yes)
    })?;
    Ok(checked.data)
}

/// `expr`, where it compares floats; what is below it has been looked at.
fn comparing(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return compare(binary.left(), *binary.op(), binary.right(), schema)
            .map(|compared| compared.unwrap_or(expr));
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        if is_float(&list.expr().data_type(schema)?) {
            let members = list
                .list()
                .iter()
                .map(|member| canonical(Arc::clone(member), schema))
                .collect::<Result<_>>()?;
            return in_list(canonical(Arc::clone(list.expr()), schema)?, members, &list.negated(), schema);
        }
        return Ok(expr);
    }
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        return match case.expr() {
            Some(of) if is_float(&of.data_type(schema)?) => {
                let when = case.when_then_expr().iter().map(|(when, then)| {
                    let equal = compare(of, Operator::Eq, when, schema)?;
                    let equal = equal.unwrap_or_else(|| {
                        Arc::new(BinaryExpr::new(Arc::clone(of), Operator::Eq, Arc::clone(when)))
                    });
                    Ok((equal, Arc::clone(then)))
                });
                Ok(Arc::new(CaseExpr::try_new(
                    None,
                    when.collect::<Result<_>>()?,
                    case.else_expr().cloned(),
                )?))
            }
            _ => Ok(expr),
        };
    }
    if expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| COMPARE.contains(&call.name())) {
        let arguments = expr
            .children()
            .into_iter()
            .map(|argument| canonical(Arc::clone(argument), schema))
            .collect::<Result<_>>()?;
        return expr.with_new_children(arguments);
    }
    Ok(expr)
}

/// `expr` with one value for all that are the same: for what is grouped, sorted or looked up by it.
pub(super) fn canonical(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let is_float = is_float(&expr.data_type(schema)?);
    Ok(if is_float && !expr.is::<Canonical>() { Arc::new(Canonical(expr)) } else { expr })
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

fn compare(
    left: &Arc<dyn PhysicalExpr>,
    op: Operator,
    right: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    let compares = matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom);
    let (of, with) = (left.data_type(schema)?, right.data_type(schema)?);
    if !compares || !is_float(&of) || of != with {
        return Ok(None);
    }
    Ok(Some(Arc::new(Comparison(BinaryExpr::new(Arc::clone(left), op, Arc::clone(right))))))
}

/// A comparison of two floats.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Comparison(BinaryExpr);

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Comparison {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.0.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let (left, op, right) =
            (self.0.left().evaluate(batch)?, *self.0.op(), self.0.right().evaluate(batch)?);
        Ok(match (left, right) {
            (ColumnarValue::Array(left), ColumnarValue::Array(right)) => {
                ColumnarValue::Array(arrays(&left, op, &right)?)
            }
            (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
                ColumnarValue::Array(with_one(&left, op, &right)?)
            }
            (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
                ColumnarValue::Array(with_one(&right, op.swap().unwrap_or(op), &left)?)
            }
            (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => ColumnarValue::Scalar(
                ScalarValue::try_from_array(&with_one(&left.to_array()?, op, &right)?, 0)?,
            ),
        })
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![self.0.left(), self.0.right()]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        match <[_; 2]>::try_from(children) {
            Ok([left, right]) => Ok(Arc::new(Self(BinaryExpr::new(left, *self.0.op(), right)))),
            Err(_) => internal_err!("a comparison has two sides"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// An expression, with one value for all floats that are the same.
#[derive(Debug, Clone, Eq)]
struct Canonical(Arc<dyn PhysicalExpr>);

impl Hash for Canonical {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Canonical {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Canonical {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.0.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.0.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        Ok(match self.0.evaluate(batch)? {
            ColumnarValue::Array(values) => ColumnarValue::Array(canonical_array(values)),
            ColumnarValue::Scalar(ScalarValue::Float64(value)) => {
                ColumnarValue::Scalar(ScalarValue::Float64(value.map(Number::canonical)))
            }
            ColumnarValue::Scalar(ScalarValue::Float32(value)) => {
                ColumnarValue::Scalar(ScalarValue::Float32(value.map(Number::canonical)))
            }
            other => other,
        })
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        match <[_; 1]>::try_from(children) {
            Ok([inner]) => Ok(Arc::new(Self(inner))),
            Err(_) => internal_err!("one expression has one value"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// What [`canonical`] gives for `values`.
pub(super) fn canonical_array(values: ArrayRef) -> ArrayRef {
    if let Some(numbers) = values.as_primitive_opt::<Float64Type>() {
        return Arc::new(numbers.unary::<_, Float64Type>(Number::canonical));
    }
    match values.as_primitive_opt::<Float32Type>() {
        Some(numbers) => Arc::new(numbers.unary::<_, Float32Type>(Number::canonical)),
        None => values,
    }
}

fn arrays(left: &ArrayRef, op: Operator, right: &ArrayRef) -> Result<ArrayRef> {
    if let (Some(left), Some(right)) =
        (left.as_primitive_opt::<Float64Type>(), right.as_primitive_opt::<Float64Type>())
    {
        return Ok(Arc::new(pairs(left, op, right)?));
    }
    match (left.as_primitive_opt::<Float32Type>(), right.as_primitive_opt::<Float32Type>()) {
        (Some(left), Some(right)) => Ok(Arc::new(pairs(left, op, right)?)),
        _ => internal_err!("floats are compared with what is no float"),
    }
}

fn with_one(left: &ArrayRef, op: Operator, right: &ScalarValue) -> Result<ArrayRef> {
    match right {
        ScalarValue::Float64(Some(right)) if let Some(left) = left.as_primitive_opt() => {
            Ok(Arc::new(each::<Float64Type>(left, op, *right)?))
        }
        ScalarValue::Float32(Some(right)) if let Some(left) = left.as_primitive_opt() => {
            Ok(Arc::new(each::<Float32Type>(left, op, *right)?))
        }
        // Null is not known, but it is distinct from what is there.
        right => arrays(left, op, &right.to_array_of_size(left.len())?),
    }
}

/// Each pair of rows; a function of its own for each operator, so that the loop is one over numbers.
fn pairs<T: ArrowPrimitiveType>(
    left: &PrimitiveArray<T>,
    op: Operator,
    right: &PrimitiveArray<T>,
) -> Result<BooleanArray>
where
    T::Native: Number,
{
    let distinct = |negated: bool| {
        let differ = |(left, right): (Option<T::Native>, Option<T::Native>)| match (left, right) {
            (Some(left), Some(right)) => !left.is_same(right),
            (left, right) => left.is_some() || right.is_some(),
        };
        left.iter().zip(right.iter()).map(|pair| Some(differ(pair) != negated)).collect::<BooleanArray>()
    };
    Ok(match op {
        Operator::Eq => BooleanArray::from_binary(left, right, Number::is_same),
        Operator::NotEq => BooleanArray::from_binary(left, right, |a, b| !a.is_same(b)),
        Operator::Lt => BooleanArray::from_binary(left, right, Number::is_less),
        Operator::GtEq => BooleanArray::from_binary(left, right, |a, b| !a.is_less(b)),
        Operator::Gt => BooleanArray::from_binary(left, right, |a, b| b.is_less(a)),
        Operator::LtEq => BooleanArray::from_binary(left, right, |a, b| !b.is_less(a)),
        Operator::IsDistinctFrom => distinct(false),
        Operator::IsNotDistinctFrom => distinct(true),
        other => return internal_err!("`{other}` compares nothing"),
    })
}

/// The same with one number.
fn each<T: ArrowPrimitiveType>(
    left: &PrimitiveArray<T>,
    op: Operator,
    right: T::Native,
) -> Result<BooleanArray>
where
    T::Native: Number,
{
    Ok(match op {
        Operator::Eq => BooleanArray::from_unary(left, |value| value.is_same(right)),
        Operator::NotEq => BooleanArray::from_unary(left, |value| !value.is_same(right)),
        Operator::Lt => BooleanArray::from_unary(left, |value| value.is_less(right)),
        Operator::GtEq => BooleanArray::from_unary(left, |value| !value.is_less(right)),
        Operator::Gt => BooleanArray::from_unary(left, |value| right.is_less(value)),
        Operator::LtEq => BooleanArray::from_unary(left, |value| !right.is_less(value)),
        other => return pairs(left, other, &PrimitiveArray::from_value(right, left.len())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Float64Array;

    /// PostgreSQL 17, "8.1.3. Floating-Point Types": NaN is equal to NaN and greater than all other values;
    /// the sign of zero does not matter.
    #[test]
    fn floats_compare_as_in_postgresql_whatever_the_sign_of_nan() {
        let ordered =
            [f64::NEG_INFINITY, f64::MIN, -1.0, -0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY, f64::NAN];
        let same = |value: f64| if value == 0.0 || value.is_nan() { -value } else { value };
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                for (a, b) in [(*a, *b), (same(*a), *b), (*a, same(*b))] {
                    let order = i.cmp(&j);
                    let expected = [
                        (Operator::Eq, order.is_eq()),
                        (Operator::NotEq, order.is_ne()),
                        (Operator::Lt, order.is_lt()),
                        (Operator::LtEq, order.is_le()),
                        (Operator::Gt, order.is_gt()),
                        (Operator::GtEq, order.is_ge()),
                        (Operator::IsDistinctFrom, order.is_ne()),
                        (Operator::IsNotDistinctFrom, order.is_eq()),
                    ];
                    for (op, expected) in expected {
                        let (left, right): (ArrayRef, ArrayRef) =
                            (Arc::new(Float64Array::from(vec![a])), Arc::new(Float64Array::from(vec![b])));
                        assert_eq!(
                            arrays(&left, op, &right).unwrap().as_boolean().value(0),
                            expected,
                            "{a} {op} {b}"
                        );
                        let one = with_one(&left, op, &ScalarValue::Float64(Some(b))).unwrap();
                        assert_eq!(one.as_boolean().value(0), expected, "{a} {op} {b}");
                    }
                    assert_eq!(a.canonical().to_bits() == b.canonical().to_bits(), i == j, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn null_is_not_known_but_distinct_from_a_number() {
        let left: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.0)]));
        let none = ScalarValue::Float64(None);
        assert_eq!(
            with_one(&left, Operator::Lt, &none).unwrap().as_boolean(),
            &BooleanArray::from(vec![None, None])
        );
        assert_eq!(
            with_one(&left, Operator::IsDistinctFrom, &none).unwrap().as_boolean(),
            &BooleanArray::from(vec![false, true])
        );
    }
}
