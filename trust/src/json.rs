//! JSON as two parsers cannot read it differently: no key twice, no unknown field, no deep nesting.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The deepest that a signed document goes is a key set inside a command's arguments: 6.
pub(crate) const DEEPEST: usize = 16;

/// A sentence of the parser itself has a hundred; one that lists an operation's fields has more.
const LONGEST_ERROR: usize = 300;

/// Reads `bytes` as one JSON value in which no object has a key twice.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, String> {
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut source).map_err(said)?;
    source.end().map_err(said)?;
    Ok(value)
}

/// Reads `bytes` as a `T`, whose type says `deny_unknown_fields`.
pub(crate) fn read_as<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    from_value(read(bytes)?)
}

/// The same, of what was read.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(said)
}

/// The parser's words quote those of a stranger, which end up in logs: they stay on one line, and short.
fn said(error: serde_json::Error) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    error.to_string().chars().take(LONGEST_ERROR).map(plain).collect()
}

/// A value at `depth`. The parser itself takes the last of two equal keys.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEEPEST {
            return Err(E::custom(format_args!("it is nested deeper than {DEEPEST} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is there twice")));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (text, why) in [
            (r#"{"a":1,"a":1}"#, "the key `a` is there twice"),
            (r#"{"x":{"b":1,"\u0062":2}}"#, "the key `b` is there twice"),
            (r#"{"a":1} {"a":2}"#, "trailing"),
            (r#"{"a":01}"#, "invalid number"),
            ("{\"a\":\"\u{1}\"}", "control character"),
            ("\u{feff}{}", "expected value"),
            ("", "EOF"),
            (r#"{"a":NaN}"#, "expected"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(read(b"{\"a\":\"\xff\"}").is_err(), "no UTF-8");
    }

    #[test]
    fn nesting_ends_where_it_is_said_to() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(nested(DEEPEST).as_bytes()).is_ok());
        assert!(read(nested(DEEPEST + 1).as_bytes()).unwrap_err().contains("deeper"));
        assert!(read("[".repeat(40_000).as_bytes()).unwrap_err().contains("deeper"), "and costs nothing");
    }

    #[test]
    fn errors_do_not_carry_what_a_stranger_wrote_into_logs() {
        let text = format!("{{\"\\u001b[2J\\n{0}\":1,\"\\u001b[2J\\n{0}\":1}}", "x".repeat(40_000));
        let error = read(text.as_bytes()).unwrap_err();
        assert!(error.len() < 400 && !error.contains(|c: char| c.is_control()), "{error}");
    }

    #[test]
    fn all_else_is_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,0.1,1e300,"\u00e9\n",true,null,{}],"b":{"c":18446744073709551615}}"#;
        assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }
}
