//! Types, in the words of those who write rules.

use arrow::datatypes::DataType;
use tidegate_core::FieldType;

/// What values of a type are.
pub(crate) fn kind(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "a condition",
        data_type if data_type.is_numeric() => "a number",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Timestamp(..) => "a time",
        DataType::Interval(_) | DataType::Duration(_) => "a span of time",
        DataType::Date32 | DataType::Date64 => "a date",
        DataType::Time32(_) | DataType::Time64(_) => "a time of day",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "a list",
        DataType::Struct(_) | DataType::Map(..) => "a struct",
        DataType::Null => "NULL",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes",
        _ => "another type",
    }
}

/// The type as the configuration declares fields, or what it is.
pub(crate) fn field_type(data_type: &DataType) -> &'static str {
    match FieldType::from_arrow(data_type) {
        Some(FieldType::Bool) => "bool",
        Some(FieldType::Int64) => "int64",
        Some(FieldType::Float64) => "float64",
        Some(FieldType::Utf8) => "utf8",
        Some(FieldType::Timestamp) => "timestamp",
        Some(FieldType::Bytes) => "bytes",
        None => kind(data_type),
    }
}
