//! What stopped a rule, where that is no function of the sequence, and what a version was refused for.

use serde::{Deserialize, Serialize};

/// A rule was stopped by time, or by room on the stack: nobody can tell from the rows alone that it would be
/// stopped there again. So the journal keeps it, and when the sequence is run again the rule is stopped at the
/// same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// the rule
    pub rule: String,
    /// the SHA-256 of its source
    pub version: String,
    /// The number of the row, or of the tick, at which it could not go on: nothing of it, or of what has a
    /// greater number, was done.
    pub at: u64,
    /// why
    pub reason: String,
    /// Whether it was about to start: then it was refused, and the version before went on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_start: bool,
}
