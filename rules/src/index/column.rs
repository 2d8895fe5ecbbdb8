//! A column of a batch, as the numbers and texts that the index looks for.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use tidegate_core::schema::FieldType;

/// The number that stands for a float, in the order of rules: every NaN is one, and greater than all others,
/// and both zeros are one.
pub(super) fn number_of_float(value: f64) -> i64 {
    let one = if value.is_nan() { f64::NAN } else { value + 0.0 };
    fold(one.to_bits().cast_signed())
}

/// The float that a number stands for.
pub(super) fn float_of(number: i64) -> f64 {
    f64::from_bits(fold(number).cast_unsigned())
}

/// Turns the order of negative floats round; doing it again undoes it.
fn fold(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

/// The values of a column.
pub(super) enum Values<'a> {
    Int(&'a Int64Array),
    Float(&'a Float64Array),
    Time(&'a TimestampNanosecondArray),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
}

impl<'a> Values<'a> {
    /// `None` when the column is not of this type.
    pub(super) fn downcast(column: &'a ArrayRef, kind: FieldType) -> Option<Self> {
        match kind {
            FieldType::Int64 => column.as_primitive_opt::<Int64Type>().map(Self::Int),
            FieldType::Float64 => column.as_primitive_opt::<Float64Type>().map(Self::Float),
            FieldType::Timestamp => column.as_primitive_opt::<TimestampNanosecondType>().map(Self::Time),
            FieldType::Bool => column.as_boolean_opt().map(Self::Bool),
            FieldType::Utf8 => column.as_string_opt::<i32>().map(Self::Text),
            // Nothing compares them with a threshold.
            FieldType::Bytes => None,
        }
    }

    /// The number of `row`; `None` when it is null, text, or not there.
    pub(super) fn number(&self, row: usize) -> Option<i64> {
        match self {
            Self::Int(values) => present(values, row).then(|| values.value(row)),
            Self::Float(values) => present(values, row).then(|| number_of_float(values.value(row))),
            Self::Time(values) => present(values, row).then(|| values.value(row)),
            Self::Bool(values) => present(values, row).then(|| i64::from(values.value(row))),
            Self::Text(_) => None,
        }
    }

    /// The text of `row`; `None` when it is null, not text, or not there.
    pub(super) fn text(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Text(values) => present(*values, row).then(|| values.value(row)),
            _ => None,
        }
    }

    /// The least and the greatest number of `rows`; `None` when there is none.
    pub(super) fn extent(&self, rows: impl Iterator<Item = usize>) -> Option<(i64, i64)> {
        let numbers = rows.filter_map(|row| self.number(row));
        numbers.fold(None, |extent, number| {
            extent.map_or(Some((number, number)), |(low, high)| Some((number.min(low), number.max(high))))
        })
    }
}

fn present(values: &impl Array, row: usize) -> bool {
    row < values.len() && values.is_valid(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_floats_are_in_the_order_of_floats() {
        let floats =
            [f64::NEG_INFINITY, f64::MIN, -1.0, -5e-324, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY, f64::NAN];
        let numbers: Vec<i64> = floats.iter().map(|float| number_of_float(*float)).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(number_of_float(-0.0), number_of_float(0.0));
        assert_eq!(number_of_float(-f64::NAN), number_of_float(f64::NAN));
        for float in floats {
            assert_eq!(float_of(number_of_float(float)).to_bits(), float.to_bits());
        }
    }
}
