//! What is said between whoever asks and the box: one JSON object a line, wherever there is a stream of bytes.
//!
//! ```text
//! > {"v":1,"op":"status"}
//! < {"v":1,"status":"successful","result":{"box":{"name":"pump-house-3", ..}, ..}}
//! > {"v":1,"id":"7","op":"log","args":{"level":"louder"}}
//! < {"v":1,"id":"7","status":"failed","code":"invalid","reason":".."}
//! ```
//!
//! A command that goes on for a while answers with `"status":"executing"` before its last line. `id` is for
//! the caller, and comes back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the protocol.
pub const VERSION: u32 = 1;

/// A request as it comes in: `args` are the command's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`]
    pub v: u32,
    /// comes back with the reply
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// [`ManagementCommand::OP`](super::command::ManagementCommand::OP)
    pub op: String,
    /// the command's fields; absent: none
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
}

/// What comes back, a line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply<P = Value, A = Value> {
    /// [`VERSION`]
    pub v: u32,
    /// of the request
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// how it went
    #[serde(flatten)]
    pub outcome: Outcome<P, A>,
}

/// How a command went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Outcome<P = Value, A = Value> {
    /// It goes on; this came of it meanwhile.
    Executing {
        /// one [`ManagementCommand::Part`](super::command::ManagementCommand::Part)
        result: P,
    },
    /// It is done.
    Successful {
        /// [`ManagementCommand::Answer`](super::command::ManagementCommand::Answer)
        result: A,
    },
    /// It was not done.
    Failed(Refusal),
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}{}", help.as_ref().map_or_else(String::new, |help| format!("; {help}")))]
pub struct Refusal {
    /// for programs
    pub code: Code,
    /// for people
    pub reason: String,
    /// what to do
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Why a command was not done, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It cannot be understood.
    Invalid,
    /// The caller may not do that.
    Forbidden,
    /// Too many ask.
    Busy,
    /// What it names is not there.
    NotFound,
    /// It cannot be done.
    Unable,
}

impl Refusal {
    /// A refusal without advice.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), help: None }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
