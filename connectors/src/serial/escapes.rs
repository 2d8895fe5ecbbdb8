//! Bytes as users write them: text, in which `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` stand for one byte each.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// Bytes, written as text.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

/// The bytes that a text stands for.
///
/// # Errors
/// In words for the user, when a backslash is followed by something else.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(rest.get(..at).unwrap_or_default().as_bytes());
        let escape = rest.get(at + 1..).unwrap_or_default();
        let (byte, length) = match escape.chars().next() {
            Some('r') => (b'\r', 1),
            Some('n') => (b'\n', 1),
            Some('t') => (b'\t', 1),
            Some('0') => (0, 1),
            Some('\\') => (b'\\', 1),
            Some('x') => {
                let digits = escape.get(1..3).filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or_else(|| "two hexadecimal digits follow `\\x`, as in `\\x02`".to_owned())?, 3)
            }
            _ => {
                return Err(
                    "behind a backslash stands r, n, t, 0, another backslash, or x with two digits, as \
                            in `\\x02`"
                        .into(),
                );
            }
        };
        bytes.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unescape(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "text, in which \\r, \\n, \\t, \\0, \\\\ and \\xNN stand for a byte"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes() {
        assert_eq!(unescape(r"\x02T{a}\r\n\\\0é"), Ok(b"\x02T{a}\r\n\\\0\xc3\xa9".to_vec()));
        assert_eq!(unescape("\r\n"), Ok(b"\r\n".to_vec()));
        for wrong in [r"\x2", r"\xg0", r"\q", "\\", r"\x+1", r"\xé"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }
}
