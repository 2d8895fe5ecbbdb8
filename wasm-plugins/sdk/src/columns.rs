//! Columns as they cross the border between box and plugin: `wit/rule.wit`, interface `columns`.

use std::fmt;

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false
    Boolean,
    /// whole numbers
    Int64,
    /// numbers
    Float64,
    /// nanoseconds since 1970-01-01T00:00:00Z
    Timestamp,
    /// text
    Utf8,
    /// bytes
    Bytes,
}

impl Kind {
    /// In the order of the contract.
    #[cfg(target_family = "wasm")]
    pub(crate) const ALL: [Self; 6] =
        [Self::Boolean, Self::Int64, Self::Float64, Self::Timestamp, Self::Utf8, Self::Bytes];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "bool",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Timestamp => "timestamp",
            Self::Utf8 => "utf8",
            Self::Bytes => "bytes",
        })
    }
}

/// A stream that is read, or a target that is written to.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub name: String,
    pub fields: Vec<(String, Kind)>,
}

/// The values of a column, one a row. Where there is no value, anything may stand.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    /// one bit a row: 1 where there is a value; `None`: all rows have one
    pub valid: Option<Vec<u8>>,
    pub data: Data,
}

#[derive(Debug, Clone)]
pub(crate) enum Data {
    Boolean(Vec<u8>),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Timestamp(Vec<i64>),
    Utf8(Variable),
    Bytes(Variable),
}

/// Those of row `i` are `data[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub offsets: Vec<i32>,
    pub data: Vec<u8>,
}

/// A column for a target, by its place there.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub field: u32,
    pub values: Values,
}

impl Values {
    /// No rows yet.
    pub fn empty(kind: Kind) -> Self {
        let variable = || Variable { offsets: vec![0], data: Vec::new() };
        let data = match kind {
            Kind::Boolean => Data::Boolean(Vec::new()),
            Kind::Int64 => Data::Int64(Vec::new()),
            Kind::Float64 => Data::Float64(Vec::new()),
            Kind::Timestamp => Data::Timestamp(Vec::new()),
            Kind::Utf8 => Data::Utf8(variable()),
            Kind::Bytes => Data::Bytes(variable()),
        };
        Self { valid: None, data }
    }

    pub fn has_value(&self, row: usize) -> bool {
        self.valid.as_ref().is_none_or(|bits| bit(bits, row))
    }
}

impl Variable {
    pub fn get(&self, row: usize) -> &[u8] {
        let [from, to] = [self.offsets[row], self.offsets[row + 1]];
        &self.data[from as usize..to as usize]
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.offsets.push(i32::try_from(self.data.len()).expect("more than 2 GiB of text in one call"));
    }
}

/// Bit `row` of `bits`.
pub(crate) fn bit(bits: &[u8], row: usize) -> bool {
    bits[row / 8] & (1 << (row % 8)) != 0
}

/// Appends a bit to the `rows` that are there.
pub(crate) fn push_bit(bits: &mut Vec<u8>, rows: usize, set: bool) {
    if rows % 8 == 0 {
        bits.push(0);
    }
    bits[rows / 8] |= u8::from(set) << (rows % 8);
}
