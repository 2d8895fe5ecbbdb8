//! Changes of rule files and tables, as the journal keeps them, and what workers have to do for them.

use tidegate_rules::Source;

use super::change::Change;
use super::verdict::Verdict;
use super::version::RuleFile;
use crate::buffer::Content;

/// A change, with the worker that it is for.
pub type Placed = (usize, Change);

/// A change of the rule files, or of the files of reference tables, that is good: the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A rule has a new source.
    Put {
        /// the rule
        name: String,
        /// its file, as diagnostics name it
        file: String,
        /// the source
        source: Source,
        /// the rule whose state it takes over: itself, or the one that it was renamed from, which is gone
        inherits: String,
    },
    /// A rule is gone.
    Remove {
        /// the rule
        name: String,
    },
    /// A reference table holds something else.
    Table {
        /// the table
        name: String,
        /// its rows, packed
        content: Content,
    },
    /// A rule was stopped.
    Stop(Verdict),
    /// A version could not start.
    Refuse {
        /// which, and why
        verdict: Verdict,
        /// the version before, which goes on
        goes_on: Option<RuleFile>,
    },
}

/// What came of a change of the rule files.
#[derive(Default)]
pub struct Edited {
    /// the change, unless it was refused
    pub edit: Option<Edit>,
    /// what the workers have to do
    pub changes: Vec<Placed>,
}
