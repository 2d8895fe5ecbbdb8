//! Text that a regular expression takes apart: its named groups are the values.

use std::borrow::Cow;
use std::fmt;

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::column::Scalar;
use super::decode::{Decoder, Place};
use super::layout::ROW;
use super::tokens::Fault;

/// A compiled expression is no larger: one that counts in steps of millions is a mistake.
const SIZE_LIMIT: usize = 1 << 20;

/// A regular expression. Its time is linear in the text, whatever it is (`regex` crate).
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether it is found in a payload.
    #[must_use]
    pub fn fits(&self, payload: &[u8]) -> bool {
        self.0.is_match(&text_of(payload))
    }

    /// The names of its groups.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.capture_names().flatten()
    }
}

/// Text as devices send it: what is not UTF-8 is Latin-1.
pub(super) fn text_of(payload: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(payload) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(payload.iter().copied().map(char::from).collect()),
    }
}

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(SIZE_LIMIT).build();
        built.map(Self).map_err(|error| {
            // The message points at the place in lines of its own.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("\"{text}\" is no regular expression: {reason}")
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "regex" })
    }
}

impl Decoder {
    /// Adds the row of a text.
    pub(super) fn read_pattern(&mut self, payload: &[u8], pattern: &Pattern) -> Result<(), Fault> {
        let text = text_of(payload);
        let Some(found) = pattern.0.captures(&text) else {
            return Err(Fault::Malformed("the pattern does not fit".into()));
        };
        self.begin_row();
        for name in pattern.groups() {
            let Some(key) = self.find(ROW, name) else { continue };
            // A group in a branch that was not taken, or one around nothing, has no value.
            let value = found.name(name).map_or("", |group| group.as_str().trim());
            let value = if value.is_empty() { Scalar::Null } else { Scalar::Text(value) };
            self.put(Place { node: ROW, key }, value);
        }
        self.end_row()
    }
}
