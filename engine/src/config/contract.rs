//! What an output promises whatever rules say: `[outputs.NAME.contract]`, as it is written and as it is meant.
//!
//! What each key means to users is in `docs/outputs.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{FieldType, Span};

/// More often, a ramp would be nothing but writes.
const SHORTEST_STEP: Duration = Duration::from_millis(10);

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
    fn schema_name() -> Cow<'static, str> {
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

/// A length of time, or `"never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term(pub(super) Option<Duration>);

impl<'de> Deserialize<'de> for Term {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        if text == "never" {
            return Ok(Self(None));
        }
        Span::from_str(&text)
            .map(|span| Self(Some(span.0)))
            .map_err(|error| de::Error::custom(format!("{error}, or \"never\"")))
    }
}

impl JsonSchema for Term {
    fn schema_name() -> Cow<'static, str> {
        "Term".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(never|[0-9]+ *(ns|us|ms|s|min|m|h|d))$" })
    }
}

/// So much, or so many, in a length of time: `"5/s"`, `"10/min"`, `"0.5/h"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// per second; greater than 0
    pub(super) a_second: f64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (number, unit) = text.split_once('/')?;
            let seconds = match unit.trim() {
                "s" => 1.0,
                "min" | "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
            let number: f64 = number.trim().parse().ok()?;
            (number.is_finite() && number > 0.0).then_some(Self { a_second: number / seconds })
        };
        let example = "write a number greater than 0 and a unit, such as \"5/s\", \"10/min\" or \"2/h\"";
        parse().ok_or_else(|| format!("\"{text}\" is not a rate: {example}"))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+ */ *(s|min|m|h)$" })
    }
}

/// What is a word, or a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum WordOr<T> {
    Word(String),
    Table(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = WordOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, or a word in quotes")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(WordOr::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Table)
            }
        }

        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for WordOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("WordOr{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}

/// One, or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OneOrMore<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, or a list of tables")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMore(vec![one]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut several = Vec::new();
                while let Some(next) = list.next_element()? {
                    several.push(next);
                }
                Ok(OneOrMore(several))
            }
        }

        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMore<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMore{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // What is said of tables counts for tables only, and of lists for lists, so that neither is a choice.
        let mut one = T::json_schema(generator);
        let items = generator.subschema_for::<T>();
        one.insert("type".into(), serde_json::json!(["object", "array"]));
        one.insert("items".into(), items.into());
        one
    }
}

/// `[outputs.NAME.contract]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ContractTable {
    /// What a row means: a level, of which the newest counts, or a pulse.
    #[serde(default)]
    pub(super) kind: ContractKind,
    /// Columns that tell apart what the output moves; absent: those in the topic.
    pub(super) key: Option<Vec<String>>,
    /// How many combinations of them there may be.
    #[serde(default = "thousand")]
    pub(super) max_instances: NonZeroUsize,
    /// How long a claim lives after its row, or "never".
    pub(super) expiry: Term,
    /// Where the output goes when nobody claims anything: a value a column, "hold" or "release".
    pub(super) failsafe: Option<WordOr<BTreeMap<String, Value>>>,
    /// For how long nobody may claim anything before that.
    #[serde(default)]
    pub(super) failsafe_after: Span,
    /// How old what a rule reads may be, for all or for some of its streams.
    pub(super) max_input_age: Option<WordOr<BTreeMap<String, Span>>>,
    /// Who wins among rules of one rank; absent: there is one rule a rank.
    pub(super) tie: Option<Tie>,
    /// Least and greatest numbers, by column.
    #[serde(default)]
    pub(super) range: BTreeMap<String, (f64, f64)>,
    /// What becomes of numbers that are beyond.
    #[serde(default)]
    pub(super) out_of_range: OutOfRange,
    /// What may keep the output from doing what is demanded.
    pub(super) interlock: Option<OneOrMore<InterlockTable>>,
    /// Outputs that may not be on together with this one.
    #[serde(default)]
    pub(super) never_with: Vec<String>,
    /// How long those must have been off.
    #[serde(default)]
    pub(super) dead_time: Span,
    /// How long what is on stays on.
    #[serde(default)]
    pub(super) min_on: Span,
    /// How long what is off stays off.
    #[serde(default)]
    pub(super) min_off: Span,
    /// Greatest change, by column.
    #[serde(default)]
    pub(super) slew: BTreeMap<String, Rate>,
    /// How often a ramp takes a step.
    #[serde(default = "half_a_second")]
    pub(super) slew_every: Span,
    /// Changes that are not worth a write, by column.
    #[serde(default)]
    pub(super) deadband: BTreeMap<String, f64>,
    /// How often the output may be written.
    pub(super) rate: Option<Rate>,
    /// Whether the device has what was written.
    pub(super) read_back: Option<ReadBackTable>,
    /// How often a write is repeated that did not go well.
    #[serde(default = "one")]
    pub(super) retries: u32,
    /// When.
    #[serde(default = "a_second")]
    pub(super) retry_after: Span,
    /// How often the same value is sent again.
    pub(super) refresh: Option<Span>,
    /// What happens after a start until the first claim.
    #[serde(default)]
    pub(super) startup: Startup,
    /// How long after a start that is.
    #[serde(default = "half_a_minute")]
    pub(super) startup_grace: Span,
    /// What happens when the box stops in good order; absent: as `failsafe` says.
    pub(super) on_stop: Option<OnStop>,
    /// The longest override.
    #[serde(default = "eight_hours")]
    pub(super) max_lease: Span,
}

/// `interlock` of a contract.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InterlockTable {
    /// What it is called; absent: the condition.
    pub(super) name: Option<String>,
    /// While this is true, the output is free: SQL over the newest rows of streams.
    pub(super) when: String,
    /// How old these rows may be, or "never".
    pub(super) max_age: Term,
    /// Where the output goes when it is not free; absent: its failsafe values.
    pub(super) trip: Option<BTreeMap<String, Value>>,
    /// For how long it must be true before the output is free again.
    #[serde(default)]
    pub(super) clear_after: Span,
    /// Whether only a person frees the output.
    #[serde(default)]
    pub(super) latch: bool,
    /// Whether the output goes there by its slew.
    #[serde(default)]
    pub(super) trip_ramp: bool,
}

/// `read_back` of a contract.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadBackTable {
    /// By column, what shows it: "stream.column"; absent: the device is asked for what was written.
    #[serde(default)]
    pub(super) from: BTreeMap<String, String>,
    /// When it is looked at first.
    #[serde(default)]
    pub(super) settle: Span,
    /// By when it must be there.
    pub(super) within: Span,
    /// How far off it may be, by column.
    #[serde(default)]
    pub(super) tolerance: BTreeMap<String, f64>,
    /// How often the write is repeated.
    #[serde(default = "one")]
    pub(super) retries: u32,
    /// What then.
    #[serde(default)]
    pub(super) on_mismatch: OnMismatch,
}

fn thousand() -> NonZeroUsize {
    const THOUSAND: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);
    THOUSAND
}

fn one() -> u32 {
    1
}

fn a_second() -> Span {
    Span(Duration::from_secs(1))
}

fn half_a_second() -> Span {
    Span(Duration::from_millis(500))
}

fn half_a_minute() -> Span {
    Span(Duration::from_secs(30))
}

fn eight_hours() -> Span {
    Span(Duration::from_hours(8))
}

/// What is known of an output whose contract is looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The columns that it takes, with their types; `None`: any.
    pub(super) columns: Option<Vec<(String, FieldType)>>,
    /// The columns that say where a row goes.
    pub(super) key: Vec<String>,
    /// Whether the device can be asked for what it has.
    pub(super) can_read: bool,
}

/// What is wrong with a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// the keys that lead to it, from the contract on
    pub(super) at: Vec<String>,
    pub(super) what: String,
    pub(super) help: Option<String>,
    /// it is taken all the same
    pub(super) is_warning: bool,
}

/// Gathers what is wrong.
struct Checking<'a> {
    facts: &'a Facts,
    problems: Vec<Problem>,
}

impl Checking<'_> {
    fn error(&mut self, at: &[&str], what: impl Into<String>, help: impl Into<Option<String>>) {
        let at = at.iter().map(|key| (*key).to_owned()).collect();
        self.problems.push(Problem { at, what: what.into(), help: help.into(), is_warning: false });
    }

    fn warning(&mut self, at: &[&str], what: impl Into<String>, help: impl Into<Option<String>>) {
        let at = at.iter().map(|key| (*key).to_owned()).collect();
        self.problems.push(Problem { at, what: what.into(), help: help.into(), is_warning: true });
    }

    /// The type of a column, if the output says which columns it takes.
    fn kind(&mut self, at: &[&str], column: &str) -> Option<FieldType> {
        let columns = self.facts.columns.as_ref()?;
        if let Some((_, kind)) = columns.iter().find(|(name, _)| name == column) {
            return Some(*kind);
        }
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let help = did_you_mean(column, &names);
        self.error(at, format!("the output has no `{column}`"), help);
        None
    }

    fn number(&mut self, clause: &str, column: &str) {
        if let Some(kind @ (FieldType::Bool | FieldType::Utf8)) = self.kind(&[clause, column], column) {
            self.error(
                &[clause, column],
                format!("`{column}` is {kind}, and `{clause}` is for numbers"),
                None,
            );
        }
    }

    fn values(
        &mut self,
        at: &[&str],
        values: BTreeMap<String, Value>,
        range: &BTreeMap<Arc<str>, (f64, f64)>,
    ) -> Values {
        let mut typed = Values::new();
        for (column, value) in values {
            let at = [at, &[&column]].concat();
            let kind = self.kind(&at, &column);
            let fits = kind.map_or(Some(value.clone()), |kind| value.of_type(kind));
            let column: Arc<str> = column.as_str().into();
            match (fits, kind) {
                (None, Some(kind)) => {
                    self.error(&at, format!("`{column}` takes {kind}, and {value} is none"), None)
                }
                (None, None) => {}
                (Some(value), _) => {
                    if let (Some((least, greatest)), Some(number)) = (range.get(&column), value.number())
                        && !(*least..=*greatest).contains(&number)
                    {
                        let what = format!(
                            "{number} is not in the `range` of `{column}`, from {least} to {greatest}"
                        );
                        self.error(&at, what, None);
                    }
                    typed.insert(column, value);
                }
            }
        }
        typed
    }
}

fn spans_per_column<T>(table: BTreeMap<String, T>) -> BTreeMap<Arc<str>, T> {
    table.into_iter().map(|(column, value)| (column.into(), value)).collect()
}

impl ContractTable {
    /// The contract that it means, and everything that is wrong with it.
    pub(super) fn check(self, facts: &Facts) -> (Option<Contract>, Vec<Problem>) {
        let mut checking = Checking { facts, problems: Vec::new() };
        let contract = self.contract(&mut checking);
        let is_wrong = checking.problems.iter().any(|problem| !problem.is_warning);
        (contract.filter(|_| !is_wrong), checking.problems)
    }

    fn contract(self, checking: &mut Checking<'_>) -> Option<Contract> {
        self.check_numbers(checking);
        self.check_kind(checking);
        let range = spans_per_column(self.range.clone());
        let failsafe = self.rest(checking, &range)?;
        let max_input_age = self.ages(checking);
        let on_stop = self.on_stop.unwrap_or(match &failsafe {
            Rest::Values(_) => OnStop::Failsafe,
            Rest::Hold => OnStop::Hold,
            Rest::Release => OnStop::Release,
        });
        if failsafe.values().is_none() {
            for (key, is_set) in
                [("on_stop", on_stop == OnStop::Failsafe), ("startup", self.startup == Startup::Failsafe)]
            {
                if is_set {
                    checking.error(&[key], format!("`{key}` needs values in `failsafe`"), None);
                }
            }
        }
        let interlocks = self.interlock.clone().map_or_else(Vec::new, |interlocks| interlocks.0);
        let interlocks =
            interlocks.into_iter().filter_map(|table| table.interlock(checking, &failsafe, &range)).collect();
        let read_back = self.read_back.clone().and_then(|table| table.read_back(checking));
        let key = self.key.clone().unwrap_or_else(|| checking.facts.key.clone());
        Some(Contract {
            kind: self.kind,
            key: key.into_iter().map(Arc::from).collect(),
            max_instances: self.max_instances.get(),
            expiry: self.expiry.0,
            failsafe,
            failsafe_after: self.failsafe_after.0,
            max_input_age,
            tie: self.tie,
            range,
            out_of_range: self.out_of_range,
            interlocks,
            never_with: self.never_with.into_iter().map(Arc::from).collect(),
            dead_time: self.dead_time.0,
            min_on: self.min_on.0,
            min_off: self.min_off.0,
            slew: self.slew.into_iter().map(|(column, rate)| (column.into(), rate.a_second)).collect(),
            slew_every: self.slew_every.0,
            deadband: spans_per_column(self.deadband),
            rate: self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate.a_second)),
            read_back,
            retries: self.retries,
            retry_after: self.retry_after.0,
            refresh: self.refresh.map(|span| span.0),
            startup: self.startup,
            startup_grace: self.startup_grace.0,
            on_stop,
            max_lease: self.max_lease.0,
        })
    }

    fn check_numbers(&self, checking: &mut Checking<'_>) {
        for (column, (least, greatest)) in &self.range {
            checking.number("range", column);
            if least.partial_cmp(greatest) != Some(std::cmp::Ordering::Less) {
                let what = format!("the range of `{column}` begins at {least} and ends at {greatest}");
                checking.error(&["range", column], what, "write the smaller number first".to_owned());
            }
        }
        self.slew.keys().for_each(|column| checking.number("slew", column));
        for (column, deadband) in &self.deadband {
            checking.number("deadband", column);
            if deadband.is_nan() || *deadband < 0.0 {
                checking.error(&["deadband", column], format!("a deadband of {deadband} is none"), None);
            }
        }
        if self.slew_every.0 < SHORTEST_STEP {
            let least = Span(SHORTEST_STEP);
            checking.error(&["slew_every"], format!("a ramp takes a step every {least} at most"), None);
        }
        if self.expiry.0 == Some(Duration::ZERO) {
            let help = "write how long a rule may be silent, such as \"30s\", or \"never\"".to_owned();
            checking.error(&["expiry"], "a claim that ends at once is none", help);
        }
        if let (Some(refresh), Some(expiry)) = (self.refresh, self.expiry.0)
            && refresh.0 > expiry
        {
            let what =
                format!("`refresh` ({refresh}) is longer than `expiry` ({}): it never happens", Span(expiry));
            checking.warning(&["refresh"], what, None);
        }
        let switches =
            |columns: &Vec<(String, FieldType)>| columns.iter().any(|(_, kind)| *kind == FieldType::Bool);
        if checking.facts.columns.as_ref().is_some_and(|columns| !switches(columns)) {
            for (key, span) in [("min_on", self.min_on), ("min_off", self.min_off)] {
                if !span.0.is_zero() {
                    let what = format!("`{key}` is for columns that are on or off, and the output has none");
                    checking.warning(&[key], what, None);
                }
            }
        }
    }

    /// What makes no sense for pulses.
    fn check_kind(&self, checking: &mut Checking<'_>) {
        if self.kind != ContractKind::Event {
            return;
        }
        for (key, is_set) in [
            ("tie", self.tie.is_some()),
            ("never_with", !self.never_with.is_empty()),
            ("min_on", !self.min_on.0.is_zero()),
            ("min_off", !self.min_off.0.is_zero()),
            ("slew", !self.slew.is_empty()),
            ("deadband", !self.deadband.is_empty()),
            ("read_back", self.read_back.is_some()),
            ("refresh", self.refresh.is_some()),
        ] {
            if is_set {
                let what =
                    format!("`{key}` is for levels, and this output takes pulses (`kind = \"event\"`)");
                checking.error(&[key], what, "take it out".to_owned());
            }
        }
    }

    fn rest(&self, checking: &mut Checking<'_>, range: &BTreeMap<Arc<str>, (f64, f64)>) -> Option<Rest> {
        let help = "write where the output goes when nobody claims anything: a value a column, such as \
            `failsafe = { run = false }`; \"hold\": it stays as it is; \"release\": it is not written any more";
        match &self.failsafe {
            None if self.kind == ContractKind::Event => Some(Rest::Release),
            None => {
                checking.error(&[], "the contract lacks `failsafe`", help.to_owned());
                None
            }
            Some(WordOr::Word(word)) if word == "hold" => Some(Rest::Hold),
            Some(WordOr::Word(word)) if word == "release" => Some(Rest::Release),
            Some(WordOr::Word(word)) => {
                checking.error(&["failsafe"], format!("\"{word}\" is no failsafe"), help.to_owned());
                None
            }
            Some(WordOr::Table(values)) if values.is_empty() => {
                checking.error(&["failsafe"], "there are no values in `failsafe`", help.to_owned());
                None
            }
            Some(WordOr::Table(values)) => {
                Some(Rest::Values(checking.values(&["failsafe"], values.clone(), range)))
            }
        }
    }

    fn ages(&self, checking: &mut Checking<'_>) -> MaxInputAge {
        match &self.max_input_age {
            None => MaxInputAge::Any,
            Some(WordOr::Word(word)) => match Span::from_str(word) {
                Ok(span) => MaxInputAge::All(span.0),
                Err(error) => {
                    checking.error(&["max_input_age"], error.to_string(), None);
                    MaxInputAge::Any
                }
            },
            Some(WordOr::Table(ages)) => {
                let ages = ages.iter().map(|(stream, span)| (Arc::from(stream.as_str()), span.0));
                MaxInputAge::Some(ages.collect())
            }
        }
    }
}

impl InterlockTable {
    fn interlock(
        self,
        checking: &mut Checking<'_>,
        failsafe: &Rest,
        range: &BTreeMap<Arc<str>, (f64, f64)>,
    ) -> Option<Interlock> {
        let trip = match (self.trip, failsafe.values()) {
            (Some(trip), _) => checking.values(&["interlock", "trip"], trip, range),
            (None, Some(failsafe)) => failsafe.clone(),
            (None, None) => {
                let help = "write where the output goes then, such as `trip = { run = false }`".to_owned();
                checking.error(&["interlock"], "the interlock has no values to go to", help);
                return None;
            }
        };
        let name = self.name.unwrap_or_else(|| format!("interlock `{}`", self.when)).into();
        Some(Interlock {
            name,
            when: self.when.into(),
            max_age: self.max_age.0,
            trip,
            clear_after: self.clear_after.0,
            latch: self.latch,
            trip_ramp: self.trip_ramp,
        })
    }
}

impl ReadBackTable {
    fn read_back(self, checking: &mut Checking<'_>) -> Option<ReadBack> {
        let mut from = BTreeMap::new();
        for (column, shows) in self.from {
            checking.kind(&["read_back", "from", &column], &column);
            match shows.split_once('.') {
                Some((stream, shown)) if !stream.is_empty() && !shown.is_empty() => {
                    from.insert(Arc::from(column.as_str()), (Arc::from(stream), Arc::from(shown)));
                }
                _ => {
                    let help = "write the stream and its column: `from = { speed = \"drive.actual_speed\" }`";
                    checking.error(
                        &["read_back", "from", &column],
                        format!("\"{shows}\" names no column"),
                        help.to_owned(),
                    );
                }
            }
        }
        if from.is_empty() && !checking.facts.can_read {
            let help = "name the columns of streams that show what the device does: `from = { speed = \
                \"drive.actual_speed\" }`";
            checking.error(&["read_back"], "this connection cannot read what was written", help.to_owned());
        }
        for column in self.tolerance.keys() {
            checking.kind(&["read_back", "tolerance", column], column);
        }
        if self.within.0 < self.settle.0 || self.within.0.is_zero() {
            let what = "`within` has to be longer than `settle`: it is looked at in between";
            checking.error(&["read_back", "within"], what, None);
        }
        Some(ReadBack {
            from,
            settle: self.settle.0,
            within: self.within.0,
            tolerance: spans_per_column(self.tolerance),
            retries: self.retries,
            on_mismatch: self.on_mismatch,
        })
    }
}

#[cfg(test)]
impl Contract {
    /// The contract that `text` means, of an output that takes `columns` and can be read.
    pub(crate) fn of_text(text: &str, columns: &[(&str, FieldType)]) -> Result<Self, Vec<String>> {
        let table: ContractTable = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let facts = Facts { columns: Some(columns), key: Vec::new(), can_read: true };
        let (contract, problems) = table.check(&facts);
        contract.ok_or_else(|| problems.into_iter().map(|problem| problem.what).collect())
    }
}
