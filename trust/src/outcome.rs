//! What becomes of a command, as it stands on `res/..`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::CommandId;
use crate::digest::Digest;
use crate::time::WallTime;

/// How a command ended. Nothing else is said of it to programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It did what was asked.
    Ok,
    /// It has no signature, and the box wants one.
    Unsigned,
    /// A signature does not fit: the message was changed, or signed with another key.
    BadSignature,
    /// It is signed by a key that the box does not know (any more).
    UnknownKey,
    /// The key may not do that.
    Forbidden,
    /// It is for another box.
    WrongBox,
    /// Its counter was there before.
    Replayed,
    /// Its `not_after` has passed.
    Expired,
    /// Nothing proves that it is new enough.
    NotFresh,
    /// Another command had this id.
    IdReused,
    /// It cannot be understood.
    Invalid,
    /// What it was to replace is not there any more (`if_hash`).
    Precondition,
    /// A local file of that name is there.
    #[serde(rename = "conflict.local")]
    ConflictLocal,
    /// A newer command for the same thing was there first.
    Superseded,
    /// The box has too much to do.
    Busy,
    /// Somebody cancelled it.
    Cancelled,
    /// It took too long.
    Timeout,
    /// The box stopped in the middle, and it cannot be resumed.
    Interrupted,
    /// It did not go well, and what was there before is there again.
    RolledBack,
    /// It did not go well, nor did the way back: a person has to look.
    RollbackFailed,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Ok,
        Self::Unsigned,
        Self::BadSignature,
        Self::UnknownKey,
        Self::Forbidden,
        Self::WrongBox,
        Self::Replayed,
        Self::Expired,
        Self::NotFresh,
        Self::IdReused,
        Self::Invalid,
        Self::Precondition,
        Self::ConflictLocal,
        Self::Superseded,
        Self::Busy,
        Self::Cancelled,
        Self::Timeout,
        Self::Interrupted,
        Self::RolledBack,
        Self::RollbackFailed,
    ];
}

/// How far a command is that is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It waits for another one, or for the time.
    Queued,
    /// Its artifact is on the way.
    Fetching,
    /// It is looked at, and nothing is changed.
    Checking,
    /// The change is being made.
    Applying,
    /// The change is made, and goes if it does harm.
    Probation,
    /// The change is made, and goes if nobody confirms it.
    Confirming,
}

/// The state of a command. Two of them are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It was seen.
    Init,
    /// It is being done.
    Executing(Step),
    /// It is over: `successful`, if the code is [`Code::Ok`], else `failed`.
    Ended(Code),
}

/// What is told of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Report {
    /// which command
    pub id: CommandId,
    /// how far it is
    pub state: State,
    /// what went wrong, and where
    pub reason: Option<String>,
    /// when this state began
    pub since: Option<WallTime>,
    /// of the command's payload
    pub digest: Option<Digest>,
    /// what is there now
    pub now: Option<Now>,
    /// what the operation has to say
    pub result: Option<Value>,
    /// the record of the audit in which it stands
    pub audit: Option<u64>,
}

/// What is there after a command, whatever came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Now {
    /// of the text or the artifact
    pub hash: Option<Digest>,
    /// counted by the box
    pub generation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Init,
    Executing,
    Successful,
    Failed,
}

/// A [`Report`] as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: CommandId,
    status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<WallTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    now: Option<Now>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audit: Option<u64>,
}

impl From<Report> for Fields {
    fn from(report: Report) -> Self {
        let (status, step, code) = match report.state {
            State::Init => (Status::Init, None, None),
            State::Executing(step) => (Status::Executing, Some(step), None),
            State::Ended(Code::Ok) => (Status::Successful, None, Some(Code::Ok)),
            State::Ended(code) => (Status::Failed, None, Some(code)),
        };
        let Report { id, state: _, reason, since, digest, now, result, audit } = report;
        Self { id, status, step, code, reason, since, digest, now, result, audit }
    }
}

impl TryFrom<Fields> for Report {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, &'static str> {
        let state = match (fields.status, fields.step, fields.code) {
            (Status::Init, None, None) => State::Init,
            (Status::Executing, Some(step), None) => State::Executing(step),
            (Status::Successful, None, None | Some(Code::Ok)) => State::Ended(Code::Ok),
            (Status::Failed, None, Some(code)) if code != Code::Ok => State::Ended(code),
            _ => {
                return Err(
                    "`step` belongs to `executing`, `ok` to `successful`, any other code to `failed`",
                );
            }
        };
        let Fields { id, status: _, step: _, code: _, reason, since, digest, now, result, audit } = fields;
        Ok(Self { id, state, reason, since, digest, now, result, audit })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn codes_are_spelt_as_in_the_specification() {
        let spelt: Vec<String> = Code::ALL
            .iter()
            .map(|code| serde_json::to_value(code).unwrap().as_str().unwrap().into())
            .collect();
        assert_eq!(
            spelt.join(", "),
            "ok, unsigned, bad_signature, unknown_key, forbidden, wrong_box, replayed, expired, not_fresh, \
             id_reused, invalid, precondition, conflict.local, superseded, busy, cancelled, timeout, \
             interrupted, rolled_back, rollback_failed"
        );
    }

    #[test]
    fn reports_are_written_as_in_the_specification() {
        for text in [
            r#"{"id":"01JD3Z00","status":"init"}"#,
            r#"{"id":"01JD3Z00","status":"executing","step":"probation","since":"2026-11-29T20:30:00Z"}"#,
            concat!(
                r#"{"id":"01JD3Z00","status":"failed","code":"rolled_back","reason":"rule stopped: memory","#,
                r#""now":{"hash":null,"generation":41},"audit":8812}"#
            ),
            r#"{"id":"01JD3Z00","status":"successful","code":"ok"}"#,
        ] {
            let report: Report = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&report).unwrap(), text);
        }
        for (step, name) in [
            (Step::Queued, "queued"),
            (Step::Fetching, "fetching"),
            (Step::Checking, "checking"),
            (Step::Applying, "applying"),
            (Step::Probation, "probation"),
            (Step::Confirming, "confirming"),
        ] {
            assert_eq!(serde_json::to_value(step).unwrap(), name);
        }
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        for text in [
            r#"{"id":"01JD3Z00","status":"executing"}"#,
            r#"{"id":"01JD3Z00","status":"failed"}"#,
            r#"{"id":"01JD3Z00","status":"failed","code":"ok"}"#,
            r#"{"id":"01JD3Z00","status":"successful","code":"busy"}"#,
            r#"{"id":"01JD3Z00","status":"init","step":"queued"}"#,
            r#"{"id":"01JD3Z00","status":"done"}"#,
            r#"{"id":"01JD3Z00","status":"init","more":1}"#,
        ] {
            assert!(serde_json::from_str::<Report>(text).is_err(), "{text}");
        }
    }
}
