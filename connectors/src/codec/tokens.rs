//! Binary formats that say the same as JSON: a format takes a payload apart into tokens, and these drive the
//! visitors that JSON's parser drives.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Deeper values are refused, as JSON's parser does: each level takes some of the stack.
const DEEPEST: usize = 128;

/// One piece of a payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'t> {
    Null,
    Bool(bool),
    Int(i64),
    /// an integer above `i64::MAX`
    Big(u64),
    Float(f64),
    Text(&'t str),
    Bytes(&'t [u8]),
    /// so many values follow; `None`: see [`Tokens::ends_here`]
    Seq(Option<usize>),
    /// so many keys with a value each follow
    Map(Option<usize>),
}

impl Token<'_> {
    pub(super) fn unsigned(value: u64) -> Self {
        i64::try_from(value).map_or(Self::Big(value), Self::Int)
    }
}

/// A payload, token by token.
pub(super) trait Tokens {
    /// The next one.
    fn next(&mut self) -> Result<Token<'_>, Fault>;

    /// Whether a sequence or a map without a length ends here; then the end is taken.
    fn ends_here(&mut self) -> Result<bool, Fault> {
        Ok(false)
    }

    /// Whether nothing is left.
    fn is_empty(&mut self) -> bool;
}

/// Why a payload cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is none of its format.
    Malformed(String),
    /// It is of another shape than is expected.
    Shape(String),
}

impl Fault {
    pub(super) fn ends_early() -> Self {
        Self::Malformed("the payload ends in the middle of a value".into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Malformed(why) | Self::Shape(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Shape(message.to_string())
    }
}

/// Reads the value that `tokens` begin with; nothing may follow it.
pub(super) fn read<'de, T: Tokens, S: DeserializeSeed<'de>>(
    tokens: &mut T,
    seed: S,
) -> Result<S::Value, Fault> {
    let value = seed.deserialize(Walk { tokens: &mut *tokens, depth: 0 })?;
    if tokens.is_empty() { Ok(value) } else { Err(Fault::Malformed("something follows the value".into())) }
}

struct Walk<'t, T> {
    tokens: &'t mut T,
    depth: usize,
}

impl<'t, T: Tokens> Walk<'t, T> {
    fn inside(self, left: Option<usize>) -> Result<Inside<'t, T>, Fault> {
        if self.depth >= DEEPEST {
            return Err(Fault::Malformed(format!("values are nested more than {DEEPEST} deep")));
        }
        Ok(Inside { tokens: self.tokens, depth: self.depth + 1, left })
    }
}

impl<'de, T: Tokens> Deserializer<'de> for Walk<'_, T> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tokens.next()? {
            Token::Null => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Int(value) => visitor.visit_i64(value),
            Token::Big(value) => visitor.visit_u64(value),
            Token::Float(value) => visitor.visit_f64(value),
            Token::Text(text) => visitor.visit_str(text),
            Token::Bytes(bytes) => visitor.visit_bytes(bytes),
            Token::Seq(length) => visitor.visit_seq(self.inside(length)?),
            Token::Map(length) => visitor.visit_map(self.inside(length)?),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What is in a sequence or a map.
struct Inside<'t, T> {
    tokens: &'t mut T,
    depth: usize,
    left: Option<usize>,
}

impl<T: Tokens> Inside<'_, T> {
    fn goes_on(&mut self) -> Result<bool, Fault> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => {
                let ends = self.tokens.ends_here()?;
                if ends {
                    self.left = Some(0);
                }
                Ok(!ends)
            }
        }
    }

    fn value(&mut self) -> Walk<'_, T> {
        Walk { tokens: &mut *self.tokens, depth: self.depth }
    }
}

impl<'de, T: Tokens> SeqAccess<'de> for Inside<'_, T> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        if self.goes_on()? { seed.deserialize(self.value()).map(Some) } else { Ok(None) }
    }
}

impl<'de, T: Tokens> MapAccess<'de> for Inside<'_, T> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        if !self.goes_on()? {
            return Ok(None);
        }
        // Small devices number their keys; they are names here.
        let number = match self.tokens.next()? {
            Token::Text(name) => return seed.deserialize(name.into_deserializer()).map(Some),
            Token::Int(number) => number.to_string(),
            Token::Big(number) => number.to_string(),
            _ => return Err(Fault::Shape("a key is neither text nor a whole number".into())),
        };
        seed.deserialize(number.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self.value())
    }
}
