//! What the sequence is made of.

use std::sync::Arc;

use tidegate_core::{Ack, Rows};
use tidegate_rules::{Listened, SealedState, When};

use super::change::Change;
use super::verdict::Verdict;

/// What a worker takes from the sequence.
pub enum Entry {
    /// Rows of an input stream.
    Batch {
        /// the stream
        stream: Arc<str>,
        /// its rows, numbered
        rows: Rows,
        /// when they came
        when: When,
        /// whether they have just come
        origin: Origin,
    },
    /// Time has passed, and a rule wants to know.
    Tick {
        /// its number
        seq: u64,
        /// when that was
        when: When,
        /// whether it was made just now
        origin: Origin,
    },
    /// It is known when streams were listened to.
    Listened {
        /// its number
        seq: u64,
        /// streams that come from the same lines
        streams: Arc<[Arc<str>]>,
        /// when that was
        listened: Listened,
        /// when that was known
        when: When,
        /// whether it has just become known
        origin: Origin,
    },
    /// The rules change.
    Change(Change),
    /// Rules are stopped where they were when the sequence was made: what follows is run again.
    Verdicts(Arc<[Verdict]>),
    /// A rule gets the state back that it had.
    Restore {
        /// the rule
        rule: Arc<str>,
        /// its state
        state: Vec<SealedState>,
    },
    /// The rules' state at this place goes into the snapshot of this number.
    Snapshot(u64),
}

impl Entry {
    /// Whether it is run again.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        match self {
            Self::Batch { origin, .. } | Self::Tick { origin, .. } | Self::Listened { origin, .. } => {
                origin.is_replayed()
            }
            Self::Change(_) | Self::Verdicts(_) | Self::Restore { .. } | Self::Snapshot(_) => false,
        }
    }
}

/// Where an entry comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A connection. Held until everything that follows from the rows is durable, or their journal entry is.
    Live(Ack),
    /// The journal: outputs see what comes of it, and write nothing.
    Journal,
}

impl Origin {
    /// Whether what comes of it was asked for before.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        matches!(self, Self::Journal)
    }
}
