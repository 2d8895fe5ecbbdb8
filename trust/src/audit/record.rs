//! One thing that happened.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::outcome::Code;
use crate::time::WallTime;

/// A record of the audit, without its number, which the chain gives it. Its fields are stored in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The sequence's time in nanoseconds: it never jumps.
    pub time: i64,
    /// what the wall clock showed
    pub wall: WallTime,
    /// whether a time service had set it
    pub synchronised: bool,
    /// which start of the machine
    pub boot: String,
    /// who did it
    pub who: Who,
    /// what was done
    pub what: Event,
    /// of the command's payload, or of the text that is there now
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// what was decided, or what came of it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// the same for people
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// those whose signatures were good, by their names in the key set
    Keys(Vec<String>),
    /// a user of the machine
    Uid(u32),
    /// Whoever could publish. Nobody knows more.
    Anybody,
    /// the box itself
    TheBox,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", deny_unknown_fields)]
pub enum Event {
    /// A command came, was decided on, went on or ended. Both names are as they came.
    Command {
        /// its operation
        op: String,
        /// its id
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// Another key set counts, or would have.
    Trust {
        /// its version
        version: u64,
    },
    /// Another configuration counts, or would have.
    Configuration,
    /// A rule changed, wherever it came from.
    Rule {
        /// its name
        name: String,
    },
    /// An override began or ended.
    Override {
        /// its output
        output: String,
    },
    /// An interlock or a limit took an output away from its rules, or gave it back.
    Trip {
        /// the output
        output: String,
    },
    /// The box started.
    Start {
        /// which program
        version: String,
    },
    /// The box stopped.
    Stop,
    /// Somebody came to the console, or tried to.
    Login,
    /// Something happened that is not in here.
    Gap {
        /// how many records, if that is known
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<u64>,
    },
}
