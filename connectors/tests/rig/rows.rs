//! Rows as JSON: what comes, and what rules would write.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array};
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use serde_json::{Map, Value};

/// A row that came. Bytes are hexadecimal digits.
pub(super) fn cells(rows: &RecordBatch, row: usize) -> Map<String, Value> {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    columns
        .map(|(field, column)| {
            let value = match column.data_type() {
                _ if column.is_null(row) => Value::Null,
                DataType::Boolean => column.as_boolean().value(row).into(),
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
                DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
                DataType::Timestamp(..) => column.as_primitive::<TimestampNanosecondType>().value(row).into(),
                DataType::Binary => {
                    let bytes = column.as_binary::<i32>().value(row).iter();
                    bytes.map(|byte| format!("{byte:02X}")).collect::<String>().into()
                }
                _ => column.as_string::<i32>().value(row).into(),
            };
            (field.name().clone(), value)
        })
        .collect()
}

/// A row as a rule would write it. A text that begins with X' is bytes.
pub(crate) fn batch(row: &Value) -> RecordBatch {
    let columns = row.as_object().unwrap().iter().map(|(name, value)| {
        let array: ArrayRef = match value {
            Value::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Value::Number(value) if value.is_i64() => Arc::new(Int64Array::from(vec![value.as_i64()])),
            Value::Number(value) => Arc::new(Float64Array::from(vec![value.as_f64()])),
            Value::String(value) => match value.strip_prefix("X'") {
                Some(digits) => {
                    let bytes = bytes(digits.trim_end_matches('\''));
                    Arc::new(BinaryArray::from(vec![bytes.as_slice()]))
                }
                None => Arc::new(StringArray::from(vec![value.as_str()])),
            },
            _ => Arc::new(Int64Array::from(vec![None])),
        };
        (name.as_str(), array, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Bytes from hexadecimal digits.
pub(crate) fn bytes(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}
