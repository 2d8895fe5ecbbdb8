//! Where a value is in a payload.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// A place in a payload: names separated by dots (`"sensors.temperature"`); a number selects an array's
/// element. Where an array's elements become rows, a path starts at the element, and at the payload itself
/// when it begins with `^.` (`"^.device"`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path {
    names: Vec<String>,
    from_root: bool,
}

impl Path {
    /// The place of one key, whatever characters it has in it.
    #[must_use]
    pub fn of_key(name: &str) -> Self {
        Self { names: vec![name.to_owned()], from_root: false }
    }

    /// The names from the outside in, without the `^`; never empty.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the path begins with `^`: it starts at the payload, not at the row.
    #[must_use]
    pub fn is_from_root(&self) -> bool {
        self.from_root
    }
}

impl std::str::FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from_root, names) = match text.strip_prefix("^.") {
            Some(names) => (true, names),
            None => (false, text),
        };
        // Either would be a name that no payload has, and every value null.
        if let Some(rest) = names.strip_prefix('^').filter(|rest| !rest.is_empty()) {
            return Err(format!("\"{text}\" is not a path: write \"^.{rest}\" for what is outside the rows"));
        }
        if let Some(rest) = names.strip_prefix("$.").or_else(|| names.strip_prefix("$[")) {
            let rest = rest.replace(']', "").replace('[', ".");
            return Err(format!("\"{text}\" is not a path: write it without `$` and brackets, \"{rest}\""));
        }
        if names.split('.').any(|name| name.is_empty() || name == "^") {
            return Err(format!(
                "\"{text}\" is not a path: write names separated by single dots, such \
                as \"sensors.temperature\"; \"^.\" in front starts at the payload instead of the row"
            ));
        }
        Ok(Self { names: names.split('.').map(str::to_owned).collect(), from_root })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.from_root { "^." } else { "" }, self.names.join("."))
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Path {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "names separated by dots, such as \"sensors.temperature\"; where `rows` is \
                set, \"^.\" in front starts outside of them"
        })
    }
}
