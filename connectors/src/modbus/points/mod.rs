//! Points: a column's place in a device, and the way between registers and values. Pure.
//!
//! [`PointConfig`] is what users write, [`Point`] what has been checked. `parse` leads from one to the other,
//! `decode` from registers to values, `encode` back.

pub mod config;
mod decode;
mod encode;
mod parse;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use tidegate_core::FieldType;

pub use crate::rows::Value;
pub use encode::Encoded;
pub use parse::Spelling;
pub(super) use parse::nearest_point;

use crate::scaling::Scaling;
use config::{Byte, Order};

/// The four tables of a device (Modbus Application Protocol V1.1b3, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// bits that can be written
    Coil,
    /// bits that cannot
    Discrete,
    /// registers that cannot be written
    Input,
    /// registers that can
    Holding,
}

impl Table {
    /// The key that names it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Input => "input",
            Self::Holding => "holding",
        }
    }

    /// Whether it consists of bits.
    #[must_use]
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// Whether it can be written.
    #[must_use]
    pub fn is_writable(self) -> bool {
        matches!(self, Self::Coil | Self::Holding)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete input",
            Self::Input => "input register",
            Self::Holding => "holding register",
        })
    }
}

/// A column's place in a device, and what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The column.
    pub name: Arc<str>,
    /// Which table.
    pub table: Table,
    /// The first register or bit, as on the wire.
    pub address: u16,
    /// How many.
    pub count: u16,
    order: Order,
    meaning: Meaning,
}

impl Point {
    /// The column's type.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        match &self.meaning {
            Meaning::Flag | Meaning::Bit(_) | Meaning::NonZero => FieldType::Bool,
            Meaning::Integer { view: View::Plain, .. } => FieldType::Int64,
            Meaning::Integer { view: View::Scaled(_), .. } | Meaning::Float { .. } => FieldType::Float64,
            Meaning::Integer { view: View::Named(_), .. } | Meaning::Text => FieldType::Utf8,
        }
    }

    /// The first register or bit behind it; 65 536 behind the last one.
    #[must_use]
    pub fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    /// A name that several of its contents have, so that it cannot be written.
    pub(in crate::modbus) fn name_of_several(&self) -> Option<&str> {
        let Meaning::Integer { view: View::Named(names), .. } = &self.meaning else { return None };
        let mut seen = BTreeSet::new();
        names.values().map(String::as_str).find(|name| !seen.insert(*name))
    }

    /// The bits of its registers that are its own.
    #[must_use]
    pub fn mask(&self) -> u16 {
        let mask = match self.meaning {
            Meaning::Bit(bit) => 1_u16.checked_shl(u32::from(bit)).unwrap_or_default(),
            Meaning::Integer { integer: Integer::Byte { byte: Byte::High, .. }, .. } => 0xff00,
            Meaning::Integer { integer: Integer::Byte { byte: Byte::Low, .. }, .. } => 0x00ff,
            _ => return 0xffff,
        };
        if self.order.bytes_swapped { mask.swap_bytes() } else { mask }
    }
}

/// The point in words: "level (input register 30)".
impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {}", self.name, self.table, self.address)?;
        if self.count > 1 {
            write!(f, " to {}", self.end() - 1)?;
        }
        if let Meaning::Bit(bit) = self.meaning {
            write!(f, ", bit {bit}")?;
        }
        f.write_str(")")
    }
}

/// What the bits of a point mean.
#[derive(Debug, Clone, PartialEq)]
enum Meaning {
    /// a coil or discrete input
    Flag,
    /// a bit of a register
    Bit(u8),
    /// a register that is not zero
    NonZero,
    Integer {
        integer: Integer,
        view: View,
        missing: Option<i128>,
    },
    Float {
        width: Width,
        scaling: Option<Scaling>,
    },
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integer {
    Byte { byte: Byte, signed: bool },
    Binary { width: Width, signed: bool },
    Decimal { width: Width },
}

impl Integer {
    /// The least and the greatest content.
    fn range(self) -> (i128, i128) {
        let (bits, signed) = match self {
            Self::Byte { signed, .. } => (8, signed),
            Self::Binary { width, signed } => (16 * u32::from(width.registers()), signed),
            Self::Decimal { width } => return (0, 10_i128.pow(4 * u32::from(width.registers())) - 1),
        };
        if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
    }
}

/// How many registers a number takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    One,
    Two,
    Four,
}

impl Width {
    fn registers(self) -> u16 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// What is shown of an integer.
#[derive(Debug, Clone, PartialEq)]
enum View {
    Plain,
    Scaled(Scaling),
    Named(BTreeMap<i128, String>),
}

/// What a device has given: as many as were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw<'a> {
    /// coils or discrete inputs
    Bits(&'a [bool]),
    /// registers
    Registers(&'a [u16]),
}

impl<'a> Raw<'a> {
    /// `count` of them from `offset` on, if there are so many.
    #[must_use]
    pub fn part(self, offset: usize, count: usize) -> Option<Self> {
        let range = offset..offset.checked_add(count)?;
        Some(match self {
            Self::Bits(bits) => Self::Bits(bits.get(range)?),
            Self::Registers(registers) => Self::Registers(registers.get(range)?),
        })
    }
}

#[cfg(test)]
mod tests;
