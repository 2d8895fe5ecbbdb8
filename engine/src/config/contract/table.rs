//! A contract as it is written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_core::Span;

use super::{AfterOverride, ContractKind, External, OnMismatch, OnStop, OutOfRange, Startup, Tie, Value};

/// A length of time, or `"never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Term(pub(in crate::config) Option<Duration>);

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
pub(in crate::config) struct Rate {
    /// per second; greater than 0
    pub(in crate::config) a_second: f64,
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
pub(in crate::config) enum WordOr<T> {
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
pub(in crate::config) struct OneOrMore<T>(pub(in crate::config) Vec<T>);

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
pub(in crate::config) struct ContractTable {
    /// What a row means: a level, of which the newest counts, or a pulse.
    #[serde(default)]
    pub(in crate::config) kind: ContractKind,
    /// Columns that tell apart what the output moves; absent: those that say where a row
    /// goes.
    pub(in crate::config) key: Option<Vec<String>>,
    /// How many combinations of them there may be.
    #[serde(default = "thousand")]
    pub(in crate::config) max_instances: NonZeroUsize,
    /// How long a claim lives after its row, or "never".
    pub(in crate::config) expiry: Term,
    /// Where the output goes when nobody claims anything: a value a column, "hold" or "release".
    pub(in crate::config) failsafe: Option<WordOr<BTreeMap<String, Value>>>,
    /// For how long nobody may claim anything before that.
    #[serde(default)]
    pub(in crate::config) failsafe_after: Span,
    /// How old what a rule reads may be, for all or for some of its streams.
    pub(in crate::config) max_input_age: Option<WordOr<BTreeMap<String, Span>>>,
    /// Who wins among rules of one rank; absent: there is one rule a rank.
    pub(in crate::config) tie: Option<Tie>,
    /// Least and greatest numbers, by column.
    #[serde(default)]
    pub(in crate::config) range: BTreeMap<String, (f64, f64)>,
    /// What becomes of numbers that are beyond.
    #[serde(default)]
    pub(in crate::config) out_of_range: OutOfRange,
    /// What may keep the output from doing what is demanded.
    pub(in crate::config) interlock: Option<OneOrMore<InterlockTable>>,
    /// Outputs that may not be on together with this one.
    #[serde(default)]
    pub(in crate::config) never_with: Vec<String>,
    /// How long those must have been off.
    #[serde(default)]
    pub(in crate::config) dead_time: Span,
    /// How long what is on stays on.
    #[serde(default)]
    pub(in crate::config) min_on: Span,
    /// How long what is off stays off.
    #[serde(default)]
    pub(in crate::config) min_off: Span,
    /// Greatest change, by column.
    #[serde(default)]
    pub(in crate::config) slew: BTreeMap<String, Rate>,
    /// How often a ramp takes a step.
    #[serde(default = "half_a_second")]
    pub(in crate::config) slew_every: Span,
    /// Changes that are not worth a write, by column.
    #[serde(default)]
    pub(in crate::config) deadband: BTreeMap<String, f64>,
    /// How often the output may be written.
    pub(in crate::config) rate: Option<Rate>,
    /// Whether the device has what was written.
    pub(in crate::config) read_back: Option<ReadBackTable>,
    /// How often a write is repeated that did not go well.
    #[serde(default = "one")]
    pub(in crate::config) retries: u32,
    /// When.
    #[serde(default = "a_second")]
    pub(in crate::config) retry_after: Span,
    /// How often the same value is sent again.
    pub(in crate::config) refresh: Option<Span>,
    /// What happens after a start until the first claim.
    #[serde(default)]
    pub(in crate::config) startup: Startup,
    /// How long after a start that is.
    #[serde(default = "half_a_minute")]
    pub(in crate::config) startup_grace: Span,
    /// What happens when the box stops in good order; absent: as `failsafe` says.
    pub(in crate::config) on_stop: Option<OnStop>,
    /// The longest override.
    #[serde(default = "eight_hours")]
    pub(in crate::config) max_lease: Span,
    /// What happens when an override ends.
    #[serde(default)]
    pub(in crate::config) after_override: AfterOverride,
    /// What happens when the device has something else than what was written and confirmed.
    #[serde(default)]
    pub(in crate::config) external: External,
}

/// `interlock` of a contract.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct InterlockTable {
    /// What it is called; absent: the condition.
    pub(in crate::config) name: Option<String>,
    /// While this is true, the output is free: SQL over the newest rows of streams.
    pub(in crate::config) when: String,
    /// How old these rows may be, or "never".
    pub(in crate::config) max_age: Term,
    /// Where the output goes when it is not free; absent: its failsafe values.
    pub(in crate::config) trip: Option<BTreeMap<String, Value>>,
    /// For how long it must be true before the output is free again.
    #[serde(default)]
    pub(in crate::config) clear_after: Span,
    /// Whether only a person frees the output.
    #[serde(default)]
    pub(in crate::config) latch: bool,
    /// Whether the output goes there by its slew.
    #[serde(default)]
    pub(in crate::config) trip_ramp: bool,
}

/// `read_back` of a contract.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ReadBackTable {
    /// By column, what shows it: "stream.column"; absent: the device is asked for what was written.
    #[serde(default)]
    pub(in crate::config) from: BTreeMap<String, String>,
    /// When it is looked at first.
    #[serde(default)]
    pub(in crate::config) settle: Span,
    /// By when it must be there.
    pub(in crate::config) within: Span,
    /// How often it is looked whether it is still there.
    pub(in crate::config) every: Option<Span>,
    /// How far off it may be, by column.
    #[serde(default)]
    pub(in crate::config) tolerance: BTreeMap<String, f64>,
    /// How often the write is repeated.
    #[serde(default = "one")]
    pub(in crate::config) retries: u32,
    /// What then.
    #[serde(default)]
    pub(in crate::config) on_mismatch: OnMismatch,
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
