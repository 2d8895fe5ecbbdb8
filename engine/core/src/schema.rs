//! What a stream's columns are.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The column that every row has: event time.
pub const TS: &str = "ts";

/// The type of [`TS`]: nanoseconds since the epoch, UTC.
#[must_use]
pub fn ts_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(Arc::from("UTC")))
}

/// The field of [`TS`]; it is never null.
#[must_use]
pub fn ts_field() -> Field {
    Field::new(TS, ts_type(), false)
}

/// The type of a declared field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// true or false
    Bool,
    /// signed 64-bit integer
    Int64,
    /// IEEE 754 double
    Float64,
    /// UTF-8 text
    Utf8,
    /// a point in time, nanoseconds, UTC
    Timestamp,
    /// bytes that are no text
    Bytes,
}

impl FieldType {
    /// The Arrow type that holds it.
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Utf8 => DataType::Utf8,
            Self::Timestamp => ts_type(),
            Self::Bytes => DataType::Binary,
        }
    }

    /// The field type that an Arrow type stands for, if there is one.
    #[must_use]
    pub fn from_arrow(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Bool),
            DataType::Int64 => Some(Self::Int64),
            DataType::Float64 => Some(Self::Float64),
            DataType::Utf8 => Some(Self::Utf8),
            DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => Some(Self::Timestamp),
            DataType::Binary => Some(Self::Bytes),
            _ => None,
        }
    }

    /// The narrowest type that holds values of both: Int64 -> Float64 -> Utf8. For data that is there as a
    /// whole; a stream's columns do not become text.
    #[must_use]
    pub fn widened(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Int64, Self::Float64) | (Self::Float64, Self::Int64) => Self::Float64,
            _ => Self::Utf8,
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Utf8 => "utf8",
            Self::Timestamp => "timestamp",
            Self::Bytes => "bytes",
        })
    }
}
