//! What a key is for, and what it is for within that.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::glob;
use crate::op::Op;
use crate::time::{parse_duration, write_duration};

/// What a key is for. Each may also ask for what changes nothing and is nobody's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks: status, why, tail; no configuration.
    Viewer,
    /// Runs the plant: overrides, rules on and off, resets of trips, restarts.
    Operator,
    /// Brings rules and plugins.
    Deployer,
    /// Changes the configuration, and with it contracts.
    Engineer,
    /// Changes who may do what.
    Security,
}

impl Role {
    /// Whether that is its work.
    #[must_use]
    pub fn may(self, op: Op) -> bool {
        op.terms().roles.contains(&self)
    }

    /// As in a key set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Deployer => "deployer",
            Self::Engineer => "engineer",
            Self::Security => "security",
        }
    }
}

/// Where a key's role ends. Patterns have `*` and `?`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// names of boxes
    pub boxes: Vec<String>,
    /// names of rules; absent: all
    #[serde(default = "everything", skip_serializing_if = "is_everything")]
    pub rules: Vec<String>,
    /// names of outputs; absent: all
    #[serde(default = "everything", skip_serializing_if = "is_everything")]
    pub outputs: Vec<String>,
    /// The longest override, as `"45min"`; absent: what the output's contract allows.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub max_lease: Option<Duration>,
}

fn everything() -> Vec<String> {
    vec!["*".into()]
}

fn is_everything(patterns: &[String]) -> bool {
    patterns == ["*"]
}

impl Scope {
    pub(crate) fn has_box(&self, name: &str) -> bool {
        self.boxes.iter().any(|pattern| glob::matches(pattern, name))
    }

    pub(crate) fn has_rule(&self, name: &str) -> bool {
        self.rules.iter().any(|pattern| glob::matches(pattern, name))
    }

    pub(crate) fn has_output(&self, name: &str) -> bool {
        self.outputs.iter().any(|pattern| glob::matches(pattern, name))
    }
}

/// `"45min"`, where there is one.
mod optional_duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, parse_duration, write_duration};
    use crate::role::invalid_duration;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => serializer.serialize_str(&write_duration(*duration)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(source)?;
        text.map(|text| parse_duration(&text).ok_or_else(|| invalid_duration::<D::Error>(&text))).transpose()
    }
}

fn invalid_duration<E: serde::de::Error>(text: &str) -> E {
    E::custom(format_args!(
        "\"{text}\" is not a duration: write a whole number and a unit, such as \"45min\""
    ))
}
