//! What users write about one point.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// `{ holding = 40, type = "uint16", scale = 0.1 }`: where a value is, and what its bits mean.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PointConfig {
    /// Number of a holding register (function 3; written by 6, 16, 22 or 23), as on the wire: from 0, unless
    /// `addresses_from` is 1.
    pub holding: Option<u16>,
    /// Number of an input register (function 4).
    pub input: Option<u16>,
    /// Number of a coil (function 1; written by 5 or 15).
    pub coil: Option<u16>,
    /// Number of a discrete input (function 2).
    pub discrete: Option<u16>,
    /// The number in a data sheet, with the kind in front and counted from 1: "40031" is holding register 30,
    /// "30001" input register 0, "10001" discrete input 0, "00001" coil 0.
    pub at: Option<String>,
    /// What a register holds. Coils, discrete inputs and bits need none.
    #[serde(rename = "type")]
    pub value_type: Option<ValueType>,
    /// One bit of a register: 0 is the lowest, 15 the highest.
    pub bit: Option<u8>,
    /// Of `int8` and `uint8`: which half of the register; absent: the low one.
    pub byte: Option<Byte>,
    /// Order of bytes and words; absent: as the stream or output says.
    pub order: Option<Order>,
    /// The value is the register's content times this.
    pub scale: Option<f64>,
    /// What is added to that.
    pub offset: Option<f64>,
    /// Of a `string`: how many registers it takes; each holds two characters.
    pub length: Option<u16>,
    /// Content that means "no value", such as 65535 or -32768: it is null.
    pub missing: Option<i64>,
    /// Names for contents: `{ 0 = "off", 1 = "auto" }`.
    pub values: Option<BTreeMap<String, String>>,
}

/// What registers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// one register; 0 is false, all else is true
    Bool,
    /// half a register, signed
    Int8,
    /// half a register
    Uint8,
    /// one register, signed
    Int16,
    /// one register
    Uint16,
    /// two registers, signed
    Int32,
    /// two registers
    Uint32,
    /// four registers, signed
    Int64,
    /// four registers; what is above the greatest int64 is null
    Uint64,
    /// one register, IEEE 754 binary16
    Float16,
    /// two registers, IEEE 754 binary32
    Float32,
    /// four registers, IEEE 754 binary64
    Float64,
    /// one register, four decimal digits
    Bcd16,
    /// two registers, eight decimal digits
    Bcd32,
    /// `length` registers, two characters each
    String,
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Int16 => "int16",
            Self::Uint16 => "uint16",
            Self::Int32 => "int32",
            Self::Uint32 => "uint32",
            Self::Int64 => "int64",
            Self::Uint64 => "uint64",
            Self::Float16 => "float16",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Bcd16 => "bcd16",
            Self::Bcd32 => "bcd32",
            Self::String => "string",
        })
    }
}

/// Half of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Byte {
    /// bits 8 to 15
    High,
    /// bits 0 to 7
    #[default]
    Low,
}

/// In which order the bytes of a value come: `A` is the highest. The four-letter names are good for every
/// width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    /// whether the lowest register comes first
    pub words_reversed: bool,
    /// whether the low byte of each register comes first
    pub bytes_swapped: bool,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (words_reversed, bytes_swapped) = match text {
            "AB" | "ABCD" | "ABCDEFGH" => (false, false),
            "CDAB" | "GHEFCDAB" => (true, false),
            "BA" | "BADC" | "BADCFEHG" => (false, true),
            "DCBA" | "HGFEDCBA" => (true, true),
            _ => {
                return Err(format!(
                    "\"{text}\" is not an order: write \"ABCD\" (as the Modbus standard has it), \"CDAB\" \
                    (low register first), \"BADC\" (low byte first in each register) or \"DCBA\" (both)"
                ));
            }
        };
        Ok(Self { words_reversed, bytes_swapped })
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Order {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Order".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "enum": [
                "AB", "BA", "ABCD", "CDAB", "BADC", "DCBA", "ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA"
            ],
            "description": "order of bytes and words; A is the highest byte. The four-letter names are good \
                for every width"
        })
    }
}
