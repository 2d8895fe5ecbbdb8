//! Reads TOML values into types, with errors that keep their structure: which key, where, and what would have
//! been right.

use std::fmt;
use std::ops::Range;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a value could not be read, and where.
#[derive(Debug)]
pub(super) struct ValueError {
    pub(super) problem: Problem,
    /// Bytes of the file; `None` while the error is still on its way out to the value that has a place.
    pub(super) span: Option<Range<usize>>,
    /// Keys from the outside in to what is wrong. For a missing key: to the table that lacks it.
    pub(super) path: Vec<String>,
}

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    UnknownKey {
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    UnknownChoice {
        found: String,
        known: &'static [&'static str],
    },
    /// A secret was written into the file; it must not be repeated in the message.
    SecretInFile,
    Other(String),
}

impl ValueError {
    fn new(problem: Problem) -> Self {
        Self { problem, span: None, path: Vec::new() }
    }

    fn within(mut self, key: &Spanned<impl AsRef<str>>, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self.path.insert(0, key.get_ref().as_ref().to_owned());
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::UnknownKey { .. } => f.write_str("unknown key"),
            Problem::MissingKey(key) => write!(f, "the key `{key}` is missing"),
            Problem::UnknownChoice { found, .. } => write!(f, "`{found}` is not a choice"),
            Problem::SecretInFile => f.write_str("a secret is written into the file"),
            Problem::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ValueError {}

impl de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Problem::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, found {}", in_plain_words(expected), describe(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownChoice { found: variant.to_owned(), known })
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownKey { known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Problem::MissingKey(key))
    }
}

/// Serde names Rust types; users know TOML's.
fn in_plain_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "a nonzero u16" => "a whole number from 1 to 65535".into(),
        "u32" | "u64" | "usize" => "a whole number that is not negative".into(),
        "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => "a whole number greater than 0".into(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a string" | "a borrowed string" | "path string" => "text in quotes".into(),
        "a character" => "one character in quotes".into(),
        "a map" => "a table".into(),
        "a sequence" => "a list".into(),
        text if text.starts_with("struct ") => "a table".into(),
        _ => expected,
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("{value}"),
        Unexpected::Unsigned(value) => format!("{value}"),
        Unexpected::Signed(value) => format!("{value}"),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(text) => format!("the text \"{text}\""),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

/// A deserializer over one TOML value.
pub(super) struct Value<'a> {
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn new(value: &'a DeValue<'a>) -> Self {
        Self { value }
    }

    fn integer<V: Visitor<'a>>(text: &str, radix: u32, visitor: V) -> Result<V::Value, ValueError> {
        if let Ok(value) = i64::from_str_radix(text, radix) {
            visitor.visit_i64(value)
        } else if let Ok(value) = u64::from_str_radix(text, radix) {
            visitor.visit_u64(value)
        } else {
            Err(de::Error::custom("the number is too large"))
        }
    }
}

impl<'de> de::Deserializer<'de> for Value<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.value {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => Self::integer(number.as_str(), number.radix(), visitor),
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::custom("this is not a number that can be represented")),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => {
                Err(de::Error::custom("no key here takes a date or time; put text in quotes"))
            }
            DeValue::Array(items) => visitor.visit_seq(Items(items.iter())),
            DeValue::Table(table) => visitor.visit_map(Entries::new(table)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self) // an absent key is never asked
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.value {
            DeValue::Table(table) if is_one_of(table, variants) => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries::new(table)))
            }
            DeValue::Table(_) => Err(de::Error::custom(format_args!(
                "expected exactly one of {} in the braces",
                list(variants)
            ))),
            // `tidegate_connectors::secret::SecretSource`
            _ if name == "SecretSource" => Err(ValueError::new(Problem::SecretInFile)),
            DeValue::String(text) => {
                visitor.visit_enum(IntoDeserializer::<ValueError>::into_deserializer(&**text))
            }
            other => Err(de::Error::custom(format_args!(
                "expected one of {}, found a {}",
                list(variants),
                other.type_str()
            ))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

fn is_one_of(table: &DeTable<'_>, variants: &[&str]) -> bool {
    table.len() == 1 && variants.iter().any(|variant| table.contains_key(*variant))
}

/// "`a`, `b`"
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

struct Items<'a>(std::slice::Iter<'a, Spanned<DeValue<'a>>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        let Some(item) = self.0.next() else { return Ok(None) };
        seed.deserialize(Value::new(item.get_ref())).map(Some).map_err(|mut error| {
            error.span.get_or_insert(item.span());
            error
        })
    }
}

type Entry<'a> = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>);

struct Entries<'a> {
    rest: Box<dyn Iterator<Item = Entry<'a>> + 'a>,
    current: Option<Entry<'a>>,
}

impl<'a> Entries<'a> {
    fn new(table: &'a DeTable<'a>) -> Self {
        Self { rest: Box::new(table.iter()), current: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        self.current = self.rest.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        let name: StrDeserializer<'_, ValueError> = (**key.get_ref()).into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| error.within(key, key.span()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ValueError> {
        let Some((key, value)) = self.current.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Value::new(value.get_ref())).map_err(|error| error.within(key, value.span()))
    }
}
