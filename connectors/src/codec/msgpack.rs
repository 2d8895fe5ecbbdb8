//! MessagePack (the specification of 2017, with its timestamps).

use rmp::Marker;

use super::tokens::{Fault, Token, Tokens};
use super::write_rfc3339;

/// The type of extensions that are timestamps.
const TIMESTAMP: i8 = -1;
const NS: i64 = 1_000_000_000;

pub(super) struct MsgPack<'p> {
    rest: &'p [u8],
    /// a time as text
    scratch: Vec<u8>,
}

impl<'p> MsgPack<'p> {
    pub(super) fn new(payload: &'p [u8]) -> Self {
        Self { rest: payload, scratch: Vec::new() }
    }

    fn take(&mut self, length: usize) -> Result<&'p [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(Fault::ends_early)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(Fault::ends_early)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A length of 8, 16 or 32 bits.
    fn length(&mut self, bytes: usize) -> Result<usize, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn text(&mut self, length: usize) -> Result<Token<'p>, Fault> {
        let bytes = self.take(length)?;
        // Before 2013 there was one type for text and bytes.
        Ok(std::str::from_utf8(bytes).map_or(Token::Bytes(bytes), Token::Text))
    }

    fn extension(&mut self, length: usize) -> Result<Token<'_>, Fault> {
        let [kind] = self.fixed()?;
        let data = self.take(length)?;
        let ns = if i8::from_be_bytes([kind]) == TIMESTAMP { nanoseconds(data) } else { None };
        let Some(ns) = ns else { return Ok(Token::Bytes(data)) };
        self.scratch.clear();
        write_rfc3339(ns, &mut self.scratch);
        Ok(Token::Text(std::str::from_utf8(&self.scratch).unwrap_or_default()))
    }
}

impl Tokens for MsgPack<'_> {
    fn next(&mut self) -> Result<Token<'_>, Fault> {
        let [first] = self.fixed()?;
        Ok(match Marker::from_u8(first) {
            Marker::Null => Token::Null,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::FixPos(value) => Token::Int(value.into()),
            Marker::FixNeg(value) => Token::Int(value.into()),
            Marker::U8 => Token::Int(u8::from_be_bytes(self.fixed()?).into()),
            Marker::U16 => Token::Int(u16::from_be_bytes(self.fixed()?).into()),
            Marker::U32 => Token::Int(u32::from_be_bytes(self.fixed()?).into()),
            Marker::U64 => Token::unsigned(u64::from_be_bytes(self.fixed()?)),
            Marker::I8 => Token::Int(i8::from_be_bytes(self.fixed()?).into()),
            Marker::I16 => Token::Int(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => Token::Int(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => Token::Int(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.fixed()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => self.length(1).and_then(|length| self.text(length))?,
            Marker::Str16 => self.length(2).and_then(|length| self.text(length))?,
            Marker::Str32 => self.length(4).and_then(|length| self.text(length))?,
            Marker::Bin8 => Token::Bytes(self.length(1).and_then(|length| self.take(length))?),
            Marker::Bin16 => Token::Bytes(self.length(2).and_then(|length| self.take(length))?),
            Marker::Bin32 => Token::Bytes(self.length(4).and_then(|length| self.take(length))?),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => {
                let length = self.length(1)?;
                self.extension(length)?
            }
            Marker::Ext16 => {
                let length = self.length(2)?;
                self.extension(length)?
            }
            Marker::Ext32 => {
                let length = self.length(4)?;
                self.extension(length)?
            }
            Marker::FixArray(length) => Token::Seq(Some(length.into())),
            Marker::Array16 => Token::Seq(Some(self.length(2)?)),
            Marker::Array32 => Token::Seq(Some(self.length(4)?)),
            Marker::FixMap(length) => Token::Map(Some(length.into())),
            Marker::Map16 => Token::Map(Some(self.length(2)?)),
            Marker::Map32 => Token::Map(Some(self.length(4)?)),
            Marker::Reserved => return Err(Fault::Malformed("the byte c1 begins no value".into())),
        })
    }

    fn is_empty(&mut self) -> bool {
        self.rest.is_empty()
    }
}

/// A timestamp of 32, 64 or 96 bits in nanoseconds since 1970, where 64 bits hold it.
fn nanoseconds(data: &[u8]) -> Option<i64> {
    let (seconds, ns) = match data.len() {
        4 => (u32::from_be_bytes(data.try_into().ok()?).into(), 0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            (i64::try_from(both & 0x3_ffff_ffff).ok()?, i64::try_from(both >> 34).ok()?)
        }
        12 => {
            let (ns, seconds) = data.split_first_chunk()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*ns).into())
        }
        _ => return None,
    };
    seconds.checked_mul(NS)?.checked_add(ns)
}
