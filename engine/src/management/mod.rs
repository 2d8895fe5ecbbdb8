//! A running box can be asked. A question is a command, and a command is one file under `command`: what it
//! takes, who may ask it, what it does, what it answers. Where it comes from makes no difference to it: today
//! that is the local socket ([`socket`]).
//!
//! The protocol is the same wherever there is a stream of bytes: one JSON object a line.
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
//!
//! * [`desk`]: what commands can reach of the box.
//! * [`report`]: what there is to say about a box, and [`rates`] of it.
//! * [`client`]: asks; [`socket`]: is asked; [`service`]: what the service manager is told.

pub mod client;
pub mod command;
pub mod desk;
pub mod rates;
pub mod report;
pub mod service;
pub mod socket;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use desk::Desk;

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
    /// [`Command::OP`]
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
        /// one [`Command::Part`]
        result: P,
    },
    /// It is done.
    Successful {
        /// [`Command::Answer`]
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

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Look.
    Read,
    /// Change how the box runs.
    Operate,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// for the log
    pub name: String,
    /// the most that it may do
    pub right: Right,
}

/// Something that a box can be asked, or told to do.
pub trait Command: Serialize + for<'de> Deserialize<'de> + Send {
    /// its name
    const OP: &'static str;
    /// who may
    const NEEDS: Right;
    /// what it answers in the end
    type Answer: Serialize + for<'de> Deserialize<'de> + Send;
    /// what it tells while it goes on
    type Part: Serialize + for<'de> Deserialize<'de> + Send;

    /// Does it.
    fn run(
        self,
        desk: &Desk,
        caller: &Caller,
        listener: &mut dyn Listener,
    ) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;
}

/// Takes what a command tells while it goes on.
pub trait Listener: Send {
    /// Hands on `part`, a [`Command::Part`] as JSON: columns stay in their order. False: nobody listens any
    /// more.
    fn tell(&mut self, part: String) -> BoxFuture<'_, bool>;

    /// Resolves when nobody listens any more.
    fn gone(&mut self) -> BoxFuture<'_, ()>;
}

/// Checks that `caller` may run `C`, and does.
async fn run<C: Command>(
    args: Value,
    desk: &Desk,
    caller: &Caller,
    listener: &mut dyn Listener,
) -> Result<Value, Refusal> {
    let command: C = serde_json::from_value(args).map_err(|error| {
        Refusal::new(Code::Invalid, format!("the args of `{}` cannot be understood: {error}", C::OP))
    })?;
    if caller.right < C::NEEDS {
        return Err(Refusal::new(Code::Forbidden, format!("{} may look, but not `{}`", caller.name, C::OP)));
    }
    let answer = command.run(desk, caller, listener).await?;
    serde_json::to_value(answer)
        .map_err(|error| Refusal::new(Code::Unable, format!("the answer cannot be written: {error}")))
}

/// Answers `request`.
pub async fn answer(desk: &Desk, caller: &Caller, request: Request, listener: &mut dyn Listener) -> Reply {
    let Request { v, id, op, args } = request;
    let outcome = if v == VERSION {
        command::run(
            &op,
            args.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            desk,
            caller,
            listener,
        )
        .await
    } else {
        let reason = format!("this box speaks version {VERSION} of the protocol, not {v}");
        Err(Refusal::new(Code::Invalid, reason).help("use the `tidegate` that is as old as the box"))
    };
    let outcome = outcome.map_or_else(Outcome::Failed, |result| Outcome::Successful { result });
    Reply { v: VERSION, id, outcome }
}

#[cfg(test)]
mod tests;
