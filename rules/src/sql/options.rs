//! The options that rules in SQL have, beside those of all rules: `--!` lines.

use serde::Deserialize;
use tidegate_core::Span;

use crate::options::{Key, LanguageOptions};

/// What the `--!` lines of a rule say about its time, its windows and its keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SqlOptions {
    /// How much later than the newest row a row may come and still count.
    pub lateness: Span,
    /// How long a stream must be silent for its time to go on by the box's clock; absent: it waits for the
    /// next row, unless `ts` is the time of arrival.
    pub idle_after: Option<Span>,
    /// How far ahead of the time reached so far a row may be and still move it on; absent: as far as it
    /// likes.
    pub max_ahead: Option<Span>,
    /// Where rows go that come too late: a derived stream, an output or the uplink; absent: nowhere.
    pub late_rows: Option<String>,
    /// Whether windows write before they close.
    pub emit: EmitRows,
    /// How often windows write the groups that have changed before they close, in event time.
    pub emit_every: Option<Span>,
    /// How long a key is kept when no row comes for it, where neither time nor an interval ends that; absent:
    /// for ever, and groups without a window are refused.
    pub state_ttl: Option<Span>,
}

/// When windows write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EmitRows {
    /// When they close.
    #[default]
    Final,
    /// With each row as well.
    Row,
}

impl LanguageOptions for SqlOptions {
    const KEYS: &'static [Key] = &[
        ("lateness", "a length of time", "lateness = \"5s\""),
        ("idle_after", "a length of time", "idle_after = \"10s\""),
        ("max_ahead", "a length of time", "max_ahead = \"1h\""),
        ("late_rows", "the name of a derived stream or output, or \"uplink\"", "late_rows = \"uplink\""),
        ("emit", "\"final\" or \"row\"", "emit = \"row\""),
        ("emit_every", "a length of time", "emit_every = \"1s\""),
        ("state_ttl", "a length of time", "state_ttl = \"1h\""),
    ];
    const MARK: &'static str = "--!";
    const COMMENT: &'static str = "--";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_options() {
        for (key, _, example) in SqlOptions::KEYS {
            assert!(example.starts_with(&format!("{key} = ")), "{example}");
            assert!(toml::from_str::<SqlOptions>(example).is_ok(), "{example}");
        }
    }
}
