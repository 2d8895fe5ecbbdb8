//! What a contract decided, and why: as it is kept on disk, and shown to people.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Value, Values};

/// A decision about an instance of an output: something was sent, held back or refused, or a device has
/// answered.
///
/// It stands for itself: whoever reads it needs neither the journal nor the rules of that time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// the output
    pub output: Arc<str>,
    /// which of what it moves, such as `line=7`; empty where there is one
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub instance: Arc<str>,
    /// Counts the decisions of the output, from 1. A decision that was made again and again has one number,
    /// and is told again with a greater `times`.
    pub number: u64,
    /// how often it was made in a row
    pub times: u64,
    /// the entry of the sequence that led to it
    pub seq: u64,
    /// the sequence's time, nanoseconds
    pub at_ns: i64,
    /// what the wall clock showed, nanoseconds since 1970
    pub wall_ns: i64,
    /// what came of it
    pub verdict: Verdict,
    /// Whose will it was, or what stood in its way.
    pub by: Origin,
    /// the rows that led to it
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// what rules wanted then
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claimed>,
    /// what a person wanted then
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<Overridden>,
    /// what the steps of the contract changed, in their order
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// what was sent, or would have been
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    pub values: Values,
    /// what the device had before, as far as it was known
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    pub before: Values,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Verdict {
    /// It was handed to the connection.
    Sent {
        /// the number of the write
        write: u64,
    },
    /// It waits: the steps say for what.
    Held {
        /// until when, in the sequence's time; absent: for something to happen
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_ns: Option<i64>,
    },
    /// A row was no claim.
    Refused {
        /// why, in words for people
        reason: String,
    },
    /// A write came to an end.
    Answered {
        /// its number
        write: u64,
        /// what became of it
        outcome: Outcome,
        /// why, unless it went well
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What became of a write. Also the words in `tidegate_writes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The far side has confirmed it, as far as the protocol does.
    Acknowledged,
    /// The far side has refused it, or it does not fit.
    Refused,
    /// It was not sent.
    Failed,
    /// It was sent, and nobody has answered.
    Unknown,
    /// A newer one took its place before it was sent.
    Superseded,
    /// The device was asked, and has this.
    Read,
    /// The device has something else than what was written.
    Mismatch,
    /// It had what was written, and has something else now: somebody else has written.
    External,
}

impl Outcome {
    /// All of them, with their words.
    pub const WORDS: [(&str, Self); 8] = [
        ("acknowledged", Self::Acknowledged),
        ("refused", Self::Refused),
        ("failed", Self::Failed),
        ("unknown", Self::Unknown),
        ("superseded", Self::Superseded),
        ("read", Self::Read),
        ("mismatch", Self::Mismatch),
        ("external", Self::External),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, outcome)| *outcome == self).map_or("", |(word, _)| word)
    }

    /// The one of this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, outcome)| *outcome)
    }
}

/// Whose will a value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Origin {
    /// A rule's.
    Rule {
        /// its name
        rule: Arc<str>,
        /// the SHA-256 of its source, in hexadecimal digits
        version: Arc<str>,
        /// the number of the row that it stems from
        seq: u64,
        /// which of the rows of that number it is
        ordinal: u32,
    },
    /// A person's.
    Override {
        /// who
        who: Arc<str>,
        /// why
        reason: Arc<str>,
    },
    /// An interlock's.
    Interlock {
        /// its name
        name: Arc<str>,
        /// why it has tripped, in words for people
        because: Arc<str>,
    },
    /// The other one of a pair that is never on together needs it.
    Pair {
        /// the other output
        output: Arc<str>,
    },
    /// Nobody's: nobody claims anything.
    Failsafe {
        /// why nobody does, in words for people
        because: Arc<str>,
    },
}

impl Origin {
    /// Why it is so, for a narrow screen.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Rule { rule, .. } => format!("rule {rule}"),
            Self::Override { who, reason } => format!("override: {reason} ({who})"),
            Self::Interlock { because, .. } => format!("interlock: {because}"),
            Self::Pair { output } => format!("{output} goes on"),
            Self::Failsafe { because } => format!("failsafe: {because}"),
        }
    }
}

impl fmt::Display for Origin {
    /// Why it is so, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { rule, .. } => write!(f, "rule {rule} claims it"),
            Self::Override { who, reason } => write!(f, "override by {who}: {reason}"),
            Self::Interlock { name, because } => write!(f, "interlock `{name}`: {because}"),
            Self::Pair { output } => write!(f, "{output} goes on, and both may never be"),
            Self::Failsafe { because } => write!(f, "failsafe: {because}"),
        }
    }
}

/// A row of a stream that led to a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// the stream
    pub stream: Arc<str>,
    /// its number in the sequence
    pub seq: u64,
    /// the row as a JSON object, cut where it is long
    pub row: String,
}

/// What a rule wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// its name
    pub rule: Arc<str>,
    /// the SHA-256 of its source
    pub version: Arc<str>,
    /// 1 is the strongest
    pub rank: u8,
    /// since when it claims something, in the sequence's time
    pub since_ns: i64,
    /// until when, if it does not renew it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ns: Option<i64>,
    /// what
    pub values: Values,
}

/// What a person wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overridden {
    /// who
    pub who: Arc<str>,
    /// why
    pub reason: Arc<str>,
    /// since when, in the sequence's time
    pub since_ns: i64,
    /// until when
    pub until_ns: i64,
    /// what
    pub values: Values,
}

/// What a step of the contract made of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// the column
    pub column: Arc<str>,
    /// the clause of the contract: `range`, `interlock`, `never_with`, `min_on`, `min_off`, `slew`,
    /// `deadband`, `rate`, `retries`, `line`, `start`
    pub clause: Clause,
    /// what it was before it
    pub before: Value,
    /// what it was behind it; absent: nothing is sent
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// why, in words for people
    pub because: String,
}

/// A clause of a contract that changes values, or holds them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clause {
    /// within its range
    Range,
    /// only while it is free
    Interlock,
    /// never both of a pair
    NeverWith,
    /// on for so long
    MinOn,
    /// off for so long
    MinOff,
    /// no faster
    Slew,
    /// no smaller
    Deadband,
    /// no oftener
    Rate,
    /// no more attempts
    Retries,
    /// the line is down
    Line,
    /// the box has just started
    Start,
}
