//! Changes of what workers run.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidegate_rules::Rule;
use tokio::sync::oneshot;

use crate::sequence::hosted::Moved;
use crate::sequence::loads::{Loads, Undecided};
use crate::sequence::version::RuleVersion;
use crate::status::RuleStatus;

/// A change of the rules that a worker runs, or of what they look up; it takes effect between two batches.
pub enum Change {
    /// A new rule, or a new version of a rule.
    Load(Load),
    /// The rule is gone.
    Remove(Arc<str>),
    /// A reference table holds this from now on.
    Table(Arc<str>, RecordBatch),
    /// Another worker takes the rule over.
    Give(Arc<str>, oneshot::Sender<Moved>),
    /// The rule comes from another worker, which gives it away at the same place of the sequence.
    Take(Arc<str>, oneshot::Receiver<Moved>),
}

impl Change {
    /// The rule that it loads, if it does.
    #[must_use]
    pub fn loads(&self) -> Option<&str> {
        match self {
            Self::Load(load) => Some(&load.version.name),
            _ => None,
        }
    }

    /// The same, on its way to a worker: if it is a version, it is one of `loads` until it runs.
    #[must_use]
    pub fn among(mut self, loads: &Arc<Loads>) -> Self {
        if let Self::Load(load) = &mut self {
            load.undecided = Some(loads.begin());
        }
        self
    }
}

/// A compiled rule on its way to its worker.
pub struct Load {
    /// which
    pub version: Arc<RuleVersion>,
    /// what it does
    pub rule: Box<dyn Rule>,
    /// The rule whose state it takes over: itself, or the one it was renamed from.
    pub inherits: Arc<str>,
    /// Whether it is worth a line in the log that it runs.
    pub is_said: bool,
    /// Where it is told. The book's: by now the rule may be gone there, and is not to come back by its name.
    pub status: Arc<RuleStatus>,
    /// Held until it runs, or was refused.
    pub undecided: Option<Undecided>,
}
