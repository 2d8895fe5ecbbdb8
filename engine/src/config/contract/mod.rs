//! What an output promises whatever rules say: `[outputs.NAME.contract]`, as it is written and as it is meant.
//!
//! What each key means to users is in `docs/outputs.md`. [`table`] is how it is written, and [`check`] makes
//! terms of it that cannot be wrong; [`streams`] are those that it may look at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tidegate_core::FieldType;

mod check;
mod streams;
mod table;

pub(super) use check::{Facts, Problem};
pub(super) use streams::StreamsOfContracts;
pub(super) use table::{ContractTable, WordOr};

/// What a column of an output is told, or has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// on or off
    Bool(bool),
    /// a whole number
    Int(i64),
    /// a number, which is finite
    Float(f64),
    /// text
    Text(Arc<str>),
}

impl Value {
    /// It as a number, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            #[allow(clippy::cast_precision_loss)] // limits and steps are of numbers that people write
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }

    /// Whether something runs, or flows, with it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        match self {
            Self::Bool(on) => *on,
            Self::Int(_) | Self::Float(_) => self.number() != Some(0.0),
            Self::Text(_) => false,
        }
    }

    /// The same number in the kind that `self` has; a whole number is the nearest one.
    #[must_use]
    pub fn with_number(&self, number: f64) -> Self {
        match self {
            #[allow(clippy::cast_possible_truncation)] // what is too large is the largest
            Self::Int(_) => Self::Int(number.round() as i64),
            _ => Self::Float(number),
        }
    }

    /// It in a column of this type; `None`: it does not fit.
    #[must_use]
    pub fn of_type(&self, kind: FieldType) -> Option<Self> {
        match (kind, self) {
            (FieldType::Bool, Self::Bool(_))
            | (FieldType::Int64, Self::Int(_))
            | (FieldType::Float64, Self::Float(_))
            | (FieldType::Utf8, Self::Text(_)) => Some(self.clone()),
            (FieldType::Float64, Self::Int(_)) => self.number().map(Self::Float),
            #[allow(clippy::cast_possible_truncation)] // it is whole, and in range
            (FieldType::Int64, Self::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
                Some(Self::Int(*value as i64))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => write!(f, "\"{value}\""),
        }
    }
}

impl JsonSchema for Value {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OutputValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "number", "string"] })
    }
}

/// Values by column.
pub type Values = BTreeMap<Arc<str>, Value>;

/// The contract of an output.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// What a row means.
    pub kind: ContractKind,
    /// The columns that tell instances apart; empty: there is one.
    pub key: Vec<Arc<str>>,
    /// How many instances there may be.
    pub max_instances: usize,
    /// How long a claim lives; `None`: for ever.
    pub expiry: Option<Duration>,
    /// Where the output goes when nobody claims anything.
    pub failsafe: Rest,
    /// For how long nobody may claim anything before that.
    pub failsafe_after: Duration,
    /// How old what a rule reads may be.
    pub max_input_age: MaxInputAge,
    /// Who wins among rules of one rank; `None`: there is one rule a rank.
    pub tie: Option<Tie>,
    /// Least and greatest numbers, by column.
    pub range: BTreeMap<Arc<str>, (f64, f64)>,
    /// What becomes of numbers that are beyond.
    pub out_of_range: OutOfRange,
    /// What may keep the output from doing what is demanded.
    pub interlocks: Vec<Interlock>,
    /// Outputs that may not be on together with this one.
    pub never_with: Vec<Arc<str>>,
    /// How long those must have been off.
    pub dead_time: Duration,
    /// How long what is on stays on.
    pub min_on: Duration,
    /// How long what is off stays off.
    pub min_off: Duration,
    /// Greatest change a second, by column.
    pub slew: BTreeMap<Arc<str>, f64>,
    /// How often a ramp takes a step.
    pub slew_every: Duration,
    /// Changes that are not worth a write, by column.
    pub deadband: BTreeMap<Arc<str>, f64>,
    /// The shortest time between two writes.
    pub rate: Option<Duration>,
    /// Whether and how it is looked at whether the device has what was written.
    pub read_back: Option<ReadBack>,
    /// How often a write is repeated that did not go well.
    pub retries: u32,
    /// When.
    pub retry_after: Duration,
    /// How often the same value is sent again.
    pub refresh: Option<Duration>,
    /// What happens after a start until the first claim.
    pub startup: Startup,
    /// How long after a start that is.
    pub startup_grace: Duration,
    /// What happens when the box stops in good order.
    pub on_stop: OnStop,
    /// The longest override.
    pub max_lease: Duration,
    /// What happens when an override ends.
    pub after_override: AfterOverride,
    /// What happens when somebody else has written.
    pub external: External,
}

/// What a row for an output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContractKind {
    /// A level: the newest counts.
    #[default]
    State,
    /// A pulse: each counts.
    Event,
}

/// Where an output is when nobody wants anything of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Rest {
    /// It is told this.
    Values(Values),
    /// It stays as it is.
    Hold,
    /// It is not written any more.
    Release,
}

impl Rest {
    /// What it is told, if it is.
    #[must_use]
    pub fn values(&self) -> Option<&Values> {
        if let Self::Values(values) = self { Some(values) } else { None }
    }
}

/// How old what a rule reads may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MaxInputAge {
    /// As old as it likes.
    #[default]
    Any,
    /// All of it.
    All(Duration),
    /// Some streams, by name.
    Some(BTreeMap<Arc<str>, Duration>),
}

impl MaxInputAge {
    /// That of rows of `stream`.
    #[must_use]
    pub fn of(&self, stream: &str) -> Option<Duration> {
        match self {
            Self::Any => None,
            Self::All(age) => Some(*age),
            Self::Some(ages) => ages.get(stream).copied(),
        }
    }
}

/// Who wins among rules of one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// the one that has spoken last
    Newest,
    /// the smallest number, or off
    Min,
    /// the greatest number, or on
    Max,
    /// the one that is off; of numbers the one nearest to zero
    Off,
}

/// What becomes of a number that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutOfRange {
    /// The nearest end of the range is taken.
    #[default]
    Clamp,
    /// The row is no claim.
    Refuse,
}

/// What keeps an output from doing what is demanded.
#[derive(Debug, Clone, PartialEq)]
pub struct Interlock {
    /// What it is called.
    pub name: Arc<str>,
    /// While this is true, the output is free: SQL over the newest rows of streams.
    pub when: Arc<str>,
    /// How old these rows may be; `None`: as old as they like.
    pub max_age: Option<Duration>,
    /// Where the output goes when it is not free.
    pub trip: Values,
    /// For how long it must be true before the output is free again.
    pub clear_after: Duration,
    /// Whether only a person frees the output.
    pub latch: bool,
    /// Whether the output goes there by its slew.
    pub trip_ramp: bool,
}

/// Whether the device has what was written.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadBack {
    /// By column, the stream and its column that show it; empty: the device is asked for what was written.
    pub from: BTreeMap<Arc<str>, (Arc<str>, Arc<str>)>,
    /// When it is looked at first.
    pub settle: Duration,
    /// By when it must be there.
    pub within: Duration,
    /// How often it is looked whether it is still there; `None`: never, or as often as rows of `from` come.
    pub every: Option<Duration>,
    /// How far off it may be, by column.
    pub tolerance: BTreeMap<Arc<str>, f64>,
    /// How often the write is repeated.
    pub retries: u32,
    /// What then.
    pub on_mismatch: OnMismatch,
}

/// What happens when the device does not take what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMismatch {
    /// It is said.
    #[default]
    Alarm,
    /// The output goes to its failsafe values as well.
    Failsafe,
}

/// What happens when the device has something else than what was written and confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum External {
    /// It is said.
    #[default]
    Alarm,
    /// It stays so, as if a person had overridden the output.
    Yield,
    /// What is wanted is written again.
    Reassert,
}

/// What happens when an override ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterOverride {
    /// The output goes to what rules want.
    #[default]
    Target,
    /// It stays where it is until a rule claims something.
    Wait,
}

/// What happens after a start until the first claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Startup {
    /// Nothing.
    #[default]
    Wait,
    /// The output goes to its failsafe values when nothing is claimed for `startup_grace`.
    Failsafe,
}

/// What happens when the box stops in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// The output goes to its failsafe values.
    Failsafe,
    /// It stays as it is.
    Hold,
    /// It is not written.
    Release,
}

#[cfg(test)]
impl Contract {
    /// The contract that `text` means, of an output that takes `columns` and can be read.
    pub(crate) fn of_text(text: &str, columns: &[(&str, FieldType)]) -> Result<Self, Vec<String>> {
        let table: ContractTable = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let facts = Facts { columns: Some(columns), is_readable: true, ..Facts::default() };
        let (contract, problems) = table.check(&facts);
        contract.ok_or_else(|| problems.into_iter().map(|problem| problem.what).collect())
    }
}
