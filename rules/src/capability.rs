//! What a rule can do beside [`Rule`](crate::Rule), if its language can: each of them is optional, and a rule
//! without it is treated as one of which nothing is known.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::index::Prefilter;
use crate::rule::{Emissions, Listened, RuleError, SealedState, When};
use crate::sql;

/// A rule that says what it need not be called for. Any other is handed every row, when it comes.
pub trait Indexed {
    /// What a row of `stream` must look like for the rule to make anything of it: one of these, with columns
    /// as they are in the batches that it was compiled for. Then the rule may be handed such rows only.
    /// `None`: it must see every row.
    fn prefilters(&self, stream: &str) -> Option<Arc<[Prefilter]>>;

    /// Whether it matters when rows come, apart from their order: a rule for which it does not need not be
    /// handed them one by one when they are run again.
    fn minds_time(&self) -> bool;
}

/// A rule that begins by doing something, which may fail: then it must not be called, and the version before
/// goes on.
pub trait Starting {
    /// Begins, with what the version before has kept. `seq` numbers what it writes.
    ///
    /// # Errors
    /// When it cannot run; at which place of its file, if that is known.
    fn start(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError>;
}

/// A rule that keeps something from row to row. How much that may be is said by options of all rules, and seen
/// to for all of them (`limit`).
pub trait Keeping {
    /// About how many bytes it is.
    fn bytes(&self) -> usize;

    /// Gives up what is oldest. Returns how many entries that were; 0: there is nothing that it can do without.
    /// What it writes must be whole all the same: a window, say, goes with all of its rows.
    ///
    /// # Errors
    /// When the rule cannot go on.
    fn forget(&mut self) -> Result<usize, RuleError>;

    /// What most of it is, and how a person has it keep less.
    fn advice(&self) -> String;
}

/// A rule that looks things up in reference tables.
pub trait Lookups {
    /// Which, each with the columns that it was compiled for.
    fn tables(&self) -> &[(Arc<str>, SchemaRef)];

    /// The reference table `name` holds `rows` from now on, in the columns of [`Lookups::tables`]. Rows of
    /// streams that come later see it; nothing is written now.
    ///
    /// # Errors
    /// When the rule cannot go on.
    fn on_table(&mut self, name: &str, rows: &RecordBatch, out: &mut Emissions) -> Result<(), RuleError>;
}

/// A rule that makes something of it that no row comes.
pub trait Silences {
    /// The silences that it waits for: streams, each with the sequence's time up to which somebody must have
    /// listened to it for the rule to take note if no row has come.
    fn awaited(&self) -> Vec<(Arc<str>, i64)>;

    /// When streams were listened to, as far as that is known by `now`; a stream that is never named here
    /// always was. Returns whether time goes on by that: then the rule is to have a tick at once.
    fn listened(&mut self, streams: &[(Arc<str>, Listened)], now: i64) -> bool;
}

/// What rules of one worker share. A language whose rules share something has a field of its own here.
#[derive(Debug, Default)]
pub struct Shared {
    pub(crate) sql: sql::SharedParts,
}

impl Shared {
    /// How many parts there are, each of them with one rule or many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sql.count()
    }

    /// Forgets what nobody uses any more, and copies of what the others hold.
    pub fn tidy(&mut self) {
        self.sql.tidy();
    }
}

/// A rule of which parts are run once for all rules of its worker that have them.
pub trait Sharing {
    /// Has what is equal in it and in other rules of its worker run once for all of them; it is called `name`
    /// there. From now on it must be called together with them: see [`When::round`](crate::When::round). It
    /// makes no difference to what the rule does.
    ///
    /// # Errors
    /// When its state cannot be looked at.
    fn share(&mut self, name: &Arc<str>, shared: &mut Shared) -> Result<(), RuleError>;

    /// Shares nothing any more, since it is to run on another worker.
    ///
    /// # Errors
    /// When its state cannot be copied.
    fn move_away(&mut self, shared: &mut Shared) -> Result<(), RuleError>;

    /// A copy of the state; what is shared stays so.
    ///
    /// # Errors
    /// When the state cannot be copied; then the rule must not be used afterwards.
    fn snapshot(&mut self) -> Result<Vec<SealedState>, RuleError>;
}
