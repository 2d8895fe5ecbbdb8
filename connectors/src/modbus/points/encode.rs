//! From values to what is written.

use tidegate_core::diagnostic::did_you_mean;

use super::config::{Order, ValueType};
use super::decode::Half;
use super::{Integer, Meaning, Point, Raw, Value, View, Width};
use crate::scaling::Scaling;

/// What has to be written for a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    /// a coil
    Coil(bool),
    /// whole registers
    Registers(Vec<u16>),
    /// some bits of a register, and what they become
    Bits {
        /// ones where the register changes
        mask: u16,
        /// the new bits
        bits: u16,
    },
}

impl Point {
    /// What is read where this was written.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn written(&self, encoded: &Encoded) -> Result<Value, String> {
        match encoded {
            Encoded::Coil(on) => self.decode(Raw::Bits(&[*on])),
            Encoded::Registers(registers) => self.decode(Raw::Registers(registers)),
            Encoded::Bits { bits, .. } => self.decode(Raw::Registers(&[*bits])),
        }
    }

    /// The least and the greatest number that it takes, where it takes numbers and has limits.
    #[must_use]
    pub fn range(&self) -> Option<(f64, f64)> {
        let (least, most) = match &self.meaning {
            Meaning::Integer { integer, view: View::Plain, .. } => integer.range_as_floats(),
            Meaning::Integer { integer, view: View::Scaled(scaling), .. } => {
                let (least, most) = integer.range_as_floats();
                (scaling.apply(least), scaling.apply(most))
            }
            Meaning::Float { width: width @ (Width::One | Width::Two), scaling } => width.floats(*scaling),
            _ => return None,
        };
        Some(if least <= most { (least, most) } else { (most, least) })
    }

    /// The names that its contents have, if it takes nothing else.
    #[must_use]
    pub fn names(&self) -> Option<Vec<String>> {
        let Meaning::Integer { view: View::Named(names), .. } = &self.meaning else { return None };
        Some(names.values().cloned().collect())
    }

    /// What has to be written so that the point has `value`.
    ///
    /// # Errors
    /// When the value does not fit: point, value and range, in words for the user.
    pub fn encode(&self, value: &Value) -> Result<Encoded, String> {
        let fail = |why: String| format!("{self} cannot be {value}: {why}");
        match (&self.meaning, value) {
            (_, Value::Null) => Err(fail("there is no value to write".into())),
            (Meaning::Flag, Value::Bool(on)) => Ok(Encoded::Coil(*on)),
            (Meaning::Bit(_), Value::Bool(on)) => {
                let mask = self.mask();
                Ok(Encoded::Bits { mask, bits: if *on { mask } else { 0 } })
            }
            (Meaning::NonZero, Value::Bool(on)) => Ok(self.registers(u64::from(*on), Width::One)),
            (Meaning::Flag | Meaning::Bit(_) | Meaning::NonZero, _) => {
                Err(fail("it takes true or false".into()))
            }
            (Meaning::Integer { integer, view, .. }, value) => {
                let content = view.content(*integer, value).map_err(fail)?;
                Ok(self.integer(*integer, content))
            }
            (Meaning::Float { width, scaling }, value) => {
                let number = as_float(value).map_err(fail)?;
                let content = scaling.map_or(number, |scaling| scaling.invert(number));
                let bits = width.bits(content).ok_or_else(|| fail(width.float_range(*scaling)))?;
                Ok(self.registers(bits, *width))
            }
            (Meaning::Text, Value::Text(text)) => self.text(text).map_err(fail),
            (Meaning::Text, _) => Err(fail("it takes text".into())),
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range was checked")]
    fn integer(&self, integer: Integer, content: i128) -> Encoded {
        match integer {
            // The mask chooses one of the two.
            Integer::Byte { .. } => {
                let mask = self.mask();
                Encoded::Bits { mask, bits: ((content as u16 & 0xff) * 0x101) & mask }
            }
            Integer::Binary { width, .. } => self.registers(content as u64, width),
            Integer::Decimal { width } => {
                let digits = 4 * u32::from(width.registers());
                let bcd = (0..digits)
                    .fold(0, |bcd, place| bcd | (content as u64 / 10_u64.pow(place) % 10) << (4 * place));
                self.registers(bcd, width)
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "register by register")]
    fn registers(&self, number: u64, width: Width) -> Encoded {
        let mut registers: Vec<u16> =
            (0..width.registers()).rev().map(|place| (number >> (16 * place)) as u16).collect();
        if self.order.words_reversed {
            registers.reverse();
        }
        Encoded::Registers(in_order(registers, self.order))
    }

    fn text(&self, text: &str) -> Result<Encoded, String> {
        let room = 2 * usize::from(self.count);
        if text.len() > room {
            return Err(format!("it has room for {room} bytes, and this has {}", text.len()));
        }
        if text.contains('\0') {
            return Err("it has a NUL in it, which ends text".into());
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(room, 0);
        let registers = bytes.chunks_exact(2).filter_map(|pair| match pair {
            [high, low] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        });
        Ok(Encoded::Registers(in_order(registers.collect(), self.order)))
    }
}

fn in_order(mut registers: Vec<u16>, order: Order) -> Vec<u16> {
    if order.bytes_swapped {
        for register in &mut registers {
            *register = register.swap_bytes();
        }
    }
    registers
}

impl Integer {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the greatest of 64 bits is rounded up, and is as far away"
    )]
    fn range_as_floats(self) -> (f64, f64) {
        let (least, most) = self.range();
        (least as f64, most as f64)
    }
}

impl View {
    fn content(&self, integer: Integer, value: &Value) -> Result<i128, String> {
        let (least, most) = integer.range();
        let content = match (self, value) {
            (Self::Named(names), Value::Text(name)) => {
                return names
                    .iter()
                    .find(|(_, known)| *known == name)
                    .map(|(content, _)| *content)
                    .ok_or_else(|| {
                        let known: Vec<&str> = names.values().map(String::as_str).collect();
                        did_you_mean(name, &known).unwrap_or_default()
                    });
            }
            (Self::Named(_), _) => return Err("it takes one of its names, as text".into()),
            (Self::Plain, Value::Int(content)) => i128::from(*content),
            (Self::Plain, value) => whole(as_float(value)?)?,
            (Self::Scaled(scaling), value) => nearest(scaling.invert(as_float(value)?)),
        };
        if (least..=most).contains(&content) {
            return Ok(content);
        }
        match self {
            Self::Scaled(scaling) => {
                let (least, most) = integer.range_as_floats();
                Err(range_in_words(scaling.apply(least), scaling.apply(most)))
            }
            _ => Err(range_in_words(least, most)),
        }
    }
}

fn range_in_words<T: PartialOrd + std::fmt::Display>(one: T, other: T) -> String {
    let (least, most) = if one <= other { (one, other) } else { (other, one) };
    format!("it takes {least} to {most}")
}

fn as_float(value: &Value) -> Result<f64, String> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "what is not whole is scaled")]
        Value::Int(value) => Ok(*value as f64),
        Value::Float(value) if value.is_finite() => Ok(*value),
        Value::Float(_) => Err("that is not a number to write".into()),
        _ => Err("it takes a number".into()),
    }
}

fn whole(value: f64) -> Result<i128, String> {
    if value.fract() == 0.0 {
        return Ok(nearest(value));
    }
    Err("it takes whole numbers; use round(), or give the point a `scale`".into())
}

/// The nearest whole number; beyond the greatest, the greatest.
#[expect(clippy::cast_possible_truncation, reason = "`as` ends at the greatest")]
fn nearest(value: f64) -> i128 {
    value.round() as i128
}

impl Width {
    /// None: it would be infinite.
    #[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
    fn bits(self, content: f64) -> Option<u64> {
        match self {
            Self::One => {
                let half = Half::from_f64(content);
                half.is_finite().then(|| half.to_bits().into())
            }
            Self::Two => {
                let single = content as f32;
                single.is_finite().then(|| single.to_bits().into())
            }
            Self::Four => content.is_finite().then(|| content.to_bits()),
        }
    }

    fn float_range(self, scaling: Option<Scaling>) -> String {
        let value_type = match self {
            Self::One => ValueType::Float16,
            Self::Two => ValueType::Float32,
            Self::Four => ValueType::Float64,
        };
        let (least, most) = self.floats(scaling);
        format!("{}, as {value_type} has it", range_in_words(least, most))
    }

    /// The least and the greatest float, scaled.
    fn floats(self, scaling: Option<Scaling>) -> (f64, f64) {
        let most = match self {
            Self::One => 65_504.0,
            Self::Two => f64::from(f32::MAX),
            Self::Four => f64::MAX,
        };
        scaling.map_or((-most, most), |scaling| (scaling.apply(-most), scaling.apply(most)))
    }
}
