//! Binary payloads of a fixed layout: where each value is, and of which type.

use std::collections::BTreeMap;

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::Float16Type;
use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::FieldType;

use super::column::Scalar;
use super::decode::{Decoder, Place};
use super::layout::ROW;
use super::pattern::text_of;
use super::payload::FieldAt;
use super::tokens::Fault;
use crate::scaling::Scaling;

/// The type of a column, or of the bytes that it is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// true or false; in a layout a byte that is not 0
    Bool,
    /// signed 64-bit integer
    Int64,
    /// IEEE 754 double
    Float64,
    /// text; in a layout `length` bytes
    Utf8,
    /// a point in time
    Timestamp,
    /// bytes that are no text; in a layout `length` of them
    Bytes,
    /// in a layout: signed byte
    Int8,
    /// in a layout: unsigned byte
    Uint8,
    /// in a layout: two bytes, signed
    Int16,
    /// in a layout: two bytes
    Uint16,
    /// in a layout: three bytes, signed
    Int24,
    /// in a layout: three bytes
    Uint24,
    /// in a layout: four bytes, signed
    Int32,
    /// in a layout: four bytes
    Uint32,
    /// in a layout: eight bytes
    Uint64,
    /// in a layout: IEEE 754, two bytes
    Float16,
    /// in a layout: IEEE 754, four bytes
    Float32,
    /// in a layout: `length` bytes of decimal digits, two a byte
    Bcd,
    /// in a layout: a number that is written as text in `length` bytes
    Digits,
}

impl ValueType {
    /// The column's own type; none: bytes that have to be read.
    #[must_use]
    pub fn column(self) -> Option<FieldType> {
        Some(match self {
            Self::Bool => FieldType::Bool,
            Self::Int64 => FieldType::Int64,
            Self::Float64 => FieldType::Float64,
            Self::Utf8 => FieldType::Utf8,
            Self::Timestamp => FieldType::Timestamp,
            Self::Bytes => FieldType::Bytes,
            _ => return None,
        })
    }

    /// Bytes that it takes; none: it has to be said.
    fn width(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 | Self::Float16 => 2,
            Self::Int24 | Self::Uint24 => 3,
            Self::Int32 | Self::Uint32 | Self::Float32 => 4,
            Self::Int64 | Self::Uint64 | Self::Float64 => 8,
            Self::Utf8 | Self::Bytes | Self::Bcd | Self::Digits | Self::Timestamp => return None,
        })
    }

    fn is_signed(self) -> bool {
        matches!(self, Self::Int8 | Self::Int16 | Self::Int24 | Self::Int32 | Self::Int64)
    }

    fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::Float32 | Self::Float64)
    }

    fn is_integer(self) -> bool {
        self.width().is_some() && !self.is_float() && self != Self::Bool
    }
}

/// Order of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrder {
    /// the high byte comes first
    #[default]
    Big,
    /// the low byte comes first
    Little,
}

impl ByteOrder {
    /// Up to eight bytes as a number.
    #[must_use]
    pub fn number(self, bytes: &[u8]) -> u64 {
        let join = |number, byte: &u8| number << 8 | u64::from(*byte);
        match self {
            Self::Big => bytes.iter().fold(0, join),
            Self::Little => bytes.iter().rev().fold(0, join),
        }
    }
}

/// A value's place in a payload, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryField {
    at: i32,
    length: Option<usize>,
    order: ByteOrder,
    value_type: ValueType,
    meaning: Meaning,
}

#[derive(Debug, Clone, PartialEq)]
enum Meaning {
    Plain,
    Bit(u8),
    Scaled(Scaling),
    Named(BTreeMap<i128, String>),
    Masked(u64, Option<Scaling>),
}

/// Why a field of a layout is none: the key, and the reason.
type Wrong = (&'static str, String);

impl BinaryField {
    /// # Errors
    /// The key that is wrong, and why.
    pub fn new(field: &FieldAt) -> Result<Self, Wrong> {
        let FieldAt { value_type, at, length, order, bit, mask, scale, offset, values, .. } = field;
        let value_type = *value_type;
        let Some(at) = *at else {
            return Err(("at", "a layout has to know the first byte: add `at = 0` or the like".into()));
        };
        let sized = value_type.width();
        match length {
            Some(0) => return Err(("length", "a length is at least 1".into())),
            Some(_) if sized.is_some() => {
                return Err(("length", "the type has a length of its own: leave it out".into()));
            }
            _ if at < 0 && sized.or(*length).is_some_and(|bytes| bytes > at.unsigned_abs() as usize) => {
                let what = format!("`at = {at}` is too close to the end for what it takes");
                return Err(("at", what));
            }
            None if matches!(value_type, ValueType::Bcd) => {
                return Err(("length", "`bcd` needs the number of bytes, such as `length = 3`".into()));
            }
            Some(length) if value_type == ValueType::Bcd && *length > 9 => {
                return Err(("length", "no more than 18 digits fit, in 9 bytes".into()));
            }
            _ => {}
        }
        if value_type == ValueType::Timestamp {
            let help =
                "read the number, such as uint32, and make a time of it in SQL: to_timestamp_seconds(x)";
            return Err(("type", help.into()));
        }
        let bits = sized.map_or(0, |bytes| 8 * bytes as u32);
        let is_integer = value_type.is_integer();
        for (key, said) in [("bit", bit.is_some()), ("mask", mask.is_some()), ("values", values.is_some())] {
            let takes = is_integer || (key == "values" && value_type == ValueType::Bcd);
            if said && !takes {
                return Err((key, format!("`{key}` is for whole numbers, such as uint8")));
            }
        }
        let is_number =
            is_integer || value_type.is_float() || matches!(value_type, ValueType::Bcd | ValueType::Digits);
        if (scale.is_some() || offset.is_some()) && !is_number {
            return Err(("scale", "`scale` and `offset` are for numbers".into()));
        }
        let scaling = match (scale, offset) {
            (None, None) => None,
            (scale, offset) => {
                let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
                if scale == 0.0 || !scale.is_finite() || !offset.is_finite() {
                    return Err(("scale", "a scale is a number that is not 0".into()));
                }
                Some(Scaling::new(scale, offset))
            }
        };
        let meaning = match (bit, mask, values, scaling) {
            (Some(bit), None, None, None) if u32::from(*bit) < bits => Meaning::Bit(*bit),
            (Some(_), None, None, None) => {
                return Err(("bit", format!("the type has bits 0 to {}", bits - 1)));
            }
            (Some(_), ..) => return Err(("bit", "a bit is true or false, and nothing else".into())),
            (None, Some(mask), None, scaling) => {
                if *mask == 0 || mask.checked_shr(bits).unwrap_or(0) != 0 {
                    return Err(("mask", format!("a mask has some of the {bits} bits of the type")));
                }
                Meaning::Masked(*mask, scaling)
            }
            (None, None, Some(values), None) => Meaning::Named(names(values)?),
            (None, _, Some(_), _) => {
                return Err(("values", "`values` goes neither with `mask` nor with `scale`".into()));
            }
            (None, None, None, Some(scaling)) => Meaning::Scaled(scaling),
            (None, None, None, None) => Meaning::Plain,
        };
        Ok(Self { at, length: *length, order: order.unwrap_or_default(), value_type, meaning })
    }

    /// The column's type.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        match (&self.meaning, self.value_type) {
            (Meaning::Bit(_), _) => FieldType::Bool,
            (Meaning::Named(_), _) => FieldType::Utf8,
            (Meaning::Scaled(_) | Meaning::Masked(_, Some(_)), _) => FieldType::Float64,
            (Meaning::Masked(_, None), _) => FieldType::Int64,
            (Meaning::Plain, ValueType::Bool) => FieldType::Bool,
            (Meaning::Plain, ValueType::Utf8 | ValueType::Timestamp) => FieldType::Utf8,
            (Meaning::Plain, ValueType::Bytes) => FieldType::Bytes,
            (Meaning::Plain, ValueType::Digits) => FieldType::Float64,
            (Meaning::Plain, value_type) if value_type.is_float() => FieldType::Float64,
            (Meaning::Plain, _) => FieldType::Int64,
        }
    }

    /// How many bytes a payload has that has it.
    pub(super) fn needs(&self) -> usize {
        let from_start = |at| at + self.value_type.width().or(self.length).unwrap_or(0);
        usize::try_from(self.at).map_or(self.at.unsigned_abs() as usize, from_start)
    }

    /// The bytes of it.
    fn part<'p>(&self, payload: &'p [u8]) -> Option<&'p [u8]> {
        let start = match usize::try_from(self.at) {
            Ok(at) => at,
            Err(_) => payload.len().checked_sub(usize::try_from(self.at.unsigned_abs()).ok()?)?,
        };
        match self.value_type.width().or(self.length) {
            Some(length) => payload.get(start..start.checked_add(length)?),
            None => payload.get(start..),
        }
    }

    /// Gives the value in a payload to `put`.
    ///
    /// # Errors
    /// When the payload is too short.
    pub(crate) fn read(&self, payload: &[u8], put: &mut impl FnMut(Scalar<'_>)) -> Result<(), String> {
        let Some(part) = self.part(payload) else {
            return Err(format!("it has {} bytes, which is too short", payload.len()));
        };
        let number = self.order.number(part.get(..8).unwrap_or(part));
        match self.value_type {
            ValueType::Bool => put(Scalar::Bool(number != 0)),
            ValueType::Utf8 | ValueType::Timestamp => {
                let end = part.iter().position(|byte| *byte == 0).unwrap_or(part.len());
                put(Scalar::Text(text_of(part.get(..end).unwrap_or(part)).trim_end()));
            }
            ValueType::Bytes => put(Scalar::Bytes(part)),
            ValueType::Digits => match text_of(part).trim().replace(' ', "").parse::<f64>() {
                Ok(value) if value.is_finite() => put(Scalar::Float(self.scaled(value))),
                // Devices show dashes where they have no value.
                _ => put(Scalar::Text(text_of(part).trim())),
            },
            ValueType::Bcd => match decimal(part, self.order) {
                Some(value) => self.show(value.into(), put),
                None => put(Scalar::Bytes(part)),
            },
            value_type if value_type.is_float() => {
                let value = float(value_type, number);
                put(Scalar::Float(self.scaled(value)));
            }
            value_type => {
                let bits = 8 * part.len();
                let number = i128::from(number);
                let is_negative = value_type.is_signed() && number >> (bits - 1) & 1 == 1;
                self.show(if is_negative { number - (1 << bits) } else { number }, put);
            }
        }
        Ok(())
    }

    fn scaled(&self, value: f64) -> f64 {
        if let Meaning::Scaled(scaling) = self.meaning { scaling.apply(value) } else { value }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float64 is what was asked for, and a mask is about the bits as they are"
    )]
    fn show(&self, number: i128, put: &mut impl FnMut(Scalar<'_>)) {
        match &self.meaning {
            Meaning::Plain => put(integer(number)),
            Meaning::Bit(bit) => put(Scalar::Bool(number >> bit & 1 == 1)),
            Meaning::Scaled(scaling) => put(Scalar::Float(scaling.apply(number as f64))),
            Meaning::Masked(mask, scaling) => {
                let masked = (number as u64 & mask) >> mask.trailing_zeros();
                match scaling {
                    Some(scaling) => put(Scalar::Float(scaling.apply(masked as f64))),
                    None => put(integer(masked.into())),
                }
            }
            // A number that nobody has named is no reason to lose it.
            Meaning::Named(names) => match names.get(&number) {
                Some(name) => put(Scalar::Text(name)),
                None => put(Scalar::Text(&number.to_string())),
            },
        }
    }
}

fn integer(number: i128) -> Scalar<'static> {
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => Scalar::Int(number),
        (_, Ok(number)) => Scalar::Big(number),
        _ => Scalar::Null,
    }
}

fn names(values: &BTreeMap<String, String>) -> Result<BTreeMap<i128, String>, Wrong> {
    let named = values.iter().map(|(number, name)| {
        let wrong = || ("values", format!("`{number}` is no whole number"));
        Ok((number.parse().map_err(|_| wrong())?, name.clone()))
    });
    named.collect()
}

/// At most 18 digits.
fn decimal(bytes: &[u8], order: ByteOrder) -> Option<i64> {
    let digits = |value: i64, byte: &u8| {
        let (high, low) = (byte >> 4, byte & 0xf);
        (high <= 9 && low <= 9).then(|| value * 100 + i64::from(high * 10 + low))
    };
    match order {
        ByteOrder::Big => bytes.iter().try_fold(0, digits),
        ByteOrder::Little => bytes.iter().rev().try_fold(0, digits),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the number has no more bits than that")]
fn float(value_type: ValueType, number: u64) -> f64 {
    match value_type {
        ValueType::Float16 => <Float16Type as ArrowPrimitiveType>::Native::from_bits(number as u16).to_f64(),
        ValueType::Float32 => f64::from(f32::from_bits(number as u32)),
        _ => f64::from_bits(number),
    }
}

impl Decoder {
    /// Adds the row of a payload in which each value has its place.
    pub(super) fn read_binary(
        &mut self,
        payload: &[u8],
        binary_fields: &[(String, BinaryField)],
    ) -> Result<(), Fault> {
        self.begin_row();
        for (name, binary_field) in binary_fields {
            let Some(key) = self.find(ROW, name) else { continue };
            let place = Place { node: ROW, key };
            let read = binary_field.read(payload, &mut |value| self.put(place, value));
            read.map_err(|why| Fault::Malformed(format!("{why} for `{name}`")))?;
        }
        self.end_row()
    }
}
