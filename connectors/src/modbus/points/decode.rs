//! From registers to values.

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::Float16Type;

use super::config::{Byte, Order};
use super::{Integer, Meaning, Point, Raw, Value, View, Width};

pub(super) type Half = <Float16Type as ArrowPrimitiveType>::Native;

impl Point {
    /// The value in what was read for several points, where this one begins at `offset`.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_at(&self, raw: Raw<'_>, offset: usize) -> Result<Value, String> {
        let part = raw.part(offset, usize::from(self.count)).ok_or("the answer is too short")?;
        self.decode(part)
    }

    /// The value in what was read for this point.
    ///
    /// # Errors
    /// In words for the user, when the bits mean nothing: then the value is null.
    pub fn decode(&self, raw: Raw<'_>) -> Result<Value, String> {
        let registers = match raw {
            Raw::Bits([bit]) if self.meaning == Meaning::Flag => return Ok(Value::Bool(*bit)),
            Raw::Registers(registers) if registers.len() == usize::from(self.count) => registers,
            _ => return Err("not as many registers as were asked for".into()),
        };
        match &self.meaning {
            Meaning::Flag => Err("registers instead of bits".into()),
            Meaning::Bit(bit) => Ok(Value::Bool(number(registers, self.order) >> bit & 1 == 1)),
            Meaning::NonZero => Ok(Value::Bool(number(registers, self.order) != 0)),
            Meaning::Integer { integer, view, missing } => {
                let content = integer.read(number(registers, self.order))?;
                if Some(content) == *missing { Ok(Value::Null) } else { view.show(content) }
            }
            Meaning::Float { width, scaling } => {
                let content = width.float(number(registers, self.order));
                let value = scaling.map_or(content, |scaling| scaling.apply(content));
                let wrong = if content.is_nan() { "it is not a number" } else { "it is infinite" };
                if value.is_finite() { Ok(Value::Float(value)) } else { Err(wrong.into()) }
            }
            Meaning::Text => Ok(Value::Text(text(registers, self.order))),
        }
    }
}

/// Up to four registers as one number.
fn number(registers: &[u16], order: Order) -> u64 {
    let join = |number: u64, register: &u16| {
        let register = if order.bytes_swapped { register.swap_bytes() } else { *register };
        number << 16 | u64::from(register)
    };
    if order.words_reversed { registers.iter().rev().fold(0, join) } else { registers.iter().fold(0, join) }
}

impl Integer {
    fn read(self, number: u64) -> Result<i128, String> {
        let (content, bits, signed) = match self {
            Self::Byte { byte: Byte::High, signed } => (number >> 8, 8, signed),
            Self::Byte { byte: Byte::Low, signed } => (number & 0xff, 8, signed),
            Self::Binary { width, signed } => (number, 16 * u32::from(width.registers()), signed),
            Self::Decimal { width } => return decimal(number, width),
        };
        let content = i128::from(content);
        Ok(if signed && content >= 1 << (bits - 1) { content - (1 << bits) } else { content })
    }
}

fn decimal(number: u64, width: Width) -> Result<i128, String> {
    let digits = 4 * u32::from(width.registers());
    (0..digits).rev().try_fold(0, |value: i128, place| {
        let digit = number >> (4 * place) & 0xf;
        if digit > 9 {
            return Err(format!("0x{number:0>width$X} is not decimal digits (BCD)", width = digits as usize));
        }
        Ok(10 * value + i128::from(digit))
    })
}

impl View {
    fn show(&self, content: i128) -> Result<Value, String> {
        match self {
            Self::Plain => i64::try_from(content)
                .map(Value::Int)
                .map_err(|_| format!("{content} is above the greatest int64; a `scale` makes it a float64")),
            #[expect(clippy::cast_precision_loss, reason = "a float64 is what was asked for")]
            Self::Scaled(scaling) => Ok(Value::Float(scaling.apply(content as f64))),
            // A content that nobody has named is no reason to lose it.
            Self::Named(names) => {
                Ok(Value::Text(names.get(&content).cloned().unwrap_or_else(|| content.to_string())))
            }
        }
    }
}

impl Width {
    #[expect(clippy::cast_possible_truncation, reason = "the number has no more bits than that")]
    fn float(self, number: u64) -> f64 {
        match self {
            Self::One => Half::from_bits(number as u16).to_f64(),
            Self::Two => f64::from(f32::from_bits(number as u32)),
            Self::Four => f64::from_bits(number),
        }
    }
}

/// Text up to the first NUL, without the blanks that fill it up. Bytes that are not UTF-8 are Latin-1.
fn text(registers: &[u16], order: Order) -> String {
    let bytes: Vec<u8> = registers
        .iter()
        .flat_map(
            |register| if order.bytes_swapped { register.to_le_bytes() } else { register.to_be_bytes() },
        )
        .take_while(|byte| *byte != 0)
        .collect();
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error.as_bytes().iter().copied().map(char::from).collect(),
    };
    text.trim_end().to_owned()
}
