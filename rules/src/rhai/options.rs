//! The options that rules in Rhai have, beside those of all rules: `//!` lines.

use serde::Deserialize;

use crate::options::{Key, LanguageOptions};

/// What the `//!` lines of a script say that SQL says in its statements.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RhaiOptions {
    /// The streams whose rows it is handed.
    pub reads: Vec<String>,
    /// The outputs and derived streams, and `uplink`, that it may write to.
    pub writes: Vec<String>,
}

impl LanguageOptions for RhaiOptions {
    const KEYS: &'static [Key] = &[
        ("reads", "a list of streams", "reads = [\"tank\"]"),
        (
            "writes",
            "a list of outputs and derived streams, or \"uplink\"",
            "writes = [\"cooling_pump\", \"uplink\"]",
        ),
    ];
    const MARK: &'static str = "//!";
    const COMMENT: &'static str = "//";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_options() {
        for (key, _, example) in RhaiOptions::KEYS {
            assert!(example.starts_with(&format!("{key} = ")), "{example}");
            assert!(toml::from_str::<RhaiOptions>(example).is_ok(), "{example}");
        }
    }
}
