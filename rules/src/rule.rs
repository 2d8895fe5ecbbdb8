//! The one trait that every rule obeys.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use tidegate_core::{Rows, Span};

use crate::capability::{Indexed, Keeping, Lookups, Sharing, Silences, Starting};
use crate::fence::Fence;
use crate::target::Target;

/// A running rule.
///
/// The worker calls it on one thread, in the order of the sequence. It must be a deterministic function of
/// what it is handed, and must not depend on where batches were cut. What only some languages can do is asked
/// for at the end, and none of it is needed.
pub trait Rule: Send {
    /// Which streams the rule reads, and where rows of each can lead.
    fn flows(&self) -> &[Flow];

    /// Takes rows of one of its input streams.
    ///
    /// # Errors
    /// When the rule cannot go on. Rows that cannot be evaluated are not an error: they go to
    /// [`Emissions::bad_rows`].
    fn on_batch(
        &mut self,
        stream: &str,
        rows: &Rows,
        when: When,
        out: &mut Emissions,
    ) -> Result<(), RuleError>;

    /// Time has passed without a row. `seq` numbers what it writes.
    ///
    /// # Errors
    /// When the rule cannot go on.
    fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError>;

    /// The sequence's time at which the rule wants the next tick, if no row comes before.
    fn wakes_at(&self) -> Option<i64>;

    /// The input has ended: every open window closes. `seq` numbers what it writes. Only a replay has an end.
    ///
    /// # Errors
    /// When the rule cannot go on.
    fn on_end(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError>;

    /// What the rule is made of, and what it keeps.
    fn explain(&self) -> Explanation;

    /// Takes the state out of the rule, to be stored or handed to another version. The rule must not be used
    /// afterwards, unless the state is restored to it.
    ///
    /// # Errors
    /// When an operator cannot give its state away.
    fn seal(&mut self) -> Result<Vec<SealedState>, RuleError>;

    /// Takes over what fits of the state of another version. Returns what did not fit, for the log.
    ///
    /// # Errors
    /// When state that claims to fit cannot be merged.
    fn restore(&mut self, state: Vec<SealedState>) -> Result<Vec<String>, RuleError>;

    /// What stops it in the middle of a call; `None`: no call of it can take long.
    fn fence(&self) -> Option<&Arc<Fence>> {
        None
    }

    /// What it has to do before it is called; `None`: nothing, or this version of it has done it.
    fn starting(&mut self) -> Option<&mut dyn Starting> {
        None
    }

    /// What it need not be called for; `None`: it must see every row when it comes.
    fn indexed(&self) -> Option<&dyn Indexed> {
        None
    }

    /// What it keeps from row to row; `None`: nothing.
    fn keeping(&mut self) -> Option<&mut dyn Keeping> {
        None
    }

    /// What it looks up; `None`: nothing.
    fn lookups(&mut self) -> Option<&mut dyn Lookups> {
        None
    }

    /// What it waits for in silence; `None`: nothing.
    fn silences(&mut self) -> Option<&mut dyn Silences> {
        None
    }

    /// What it can have run once with others; `None`: nothing.
    fn sharing(&mut self) -> Option<&mut dyn Sharing> {
        None
    }
}

impl dyn Rule {
    /// A copy of the state; the rule goes on.
    ///
    /// # Errors
    /// When the state cannot be copied; then the rule must not be used afterwards.
    pub fn snapshot(&mut self) -> Result<Vec<SealedState>, RuleError> {
        if let Some(sharing) = self.sharing() {
            return sharing.snapshot();
        }
        // Taking it out and putting it back costs no more than a copy, and asks nothing more of a rule.
        let state = self.seal()?;
        if !state.is_empty() {
            self.restore(state.clone())?;
        }
        Ok(state)
    }
}

/// When a rule is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// The sequence's time, nanoseconds. It never goes back: it is for durations, and says nothing of the
    /// time of day.
    pub now: i64,
    /// What the wall clock showed, nanoseconds since 1970. It may jump, and is only shown to rules: SQL's
    /// `now()`.
    pub wall_ns: i64,
    /// Equal for all rules that are handed the same, and for nothing else: rules that share something know by
    /// it that it has been done.
    pub round: u64,
}

impl When {
    /// The round of a rule that is called without others.
    pub const ALONE: u64 = 0;

    /// When the wall clock shows the sequence's time `now`, nanoseconds.
    #[must_use]
    pub fn at(now: i64) -> Self {
        Self { now, wall_ns: now, round: Self::ALONE }
    }

    /// The same, together with all rules that are called in `round`.
    #[must_use]
    pub fn in_round(self, round: u64) -> Self {
        Self { round, ..self }
    }
}

/// The newest time, in the sequence's, for which it is known that a stream was listened to: its line was up,
/// and what the far side had kept was read. What does not come at another time is no silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listened {
    /// from when on
    pub since: i64,
    /// up to when; silence after that is not known to be one yet
    pub until: i64,
    /// whether that may be extended: the line is up
    pub goes_on: bool,
}

impl Listened {
    /// Both were listened to: what follows from two streams is silent when both are.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            since: self.since.max(other.since),
            until: self.until.min(other.until),
            goes_on: self.goes_on && other.goes_on,
        }
    }
}

/// A rule, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Statement by statement, operator by operator, the one that writes first.
    pub steps: Vec<Step>,
    /// The options of its language that say how its time goes, as far as they are set.
    pub time: Vec<(&'static str, Option<Span>)>,
}

/// One operator of a rule, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// how deep it is below the statement's target
    pub depth: usize,
    /// what it does
    pub what: String,
    /// how many keys, groups of open windows or rows it keeps
    pub entries: usize,
    /// about how many bytes of memory they take
    pub bytes: usize,
    /// other rules for which this and all below it is done once
    pub shared_with: Vec<Arc<str>>,
}

/// A way through a rule: rows of `input` can lead to rows for `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The stream that is read.
    pub input: Arc<str>,
    /// Where rows go.
    pub target: Target,
}

/// Rows for one target, in the order of their sequence numbers.
#[derive(Debug, Clone)]
pub struct Emission {
    /// Where they go.
    pub target: Target,
    /// The rows.
    pub rows: Rows,
}

/// What a rule wrote while it took one batch.
#[derive(Debug, Default)]
pub struct Emissions {
    /// Rows, statement by statement.
    pub rows: Vec<Emission>,
    /// Rows that came too late for a window that has closed.
    pub late: u64,
    /// How far behind the rule's time the latest of them was, nanoseconds; 0: that is not known.
    pub late_by_ns: i64,
    /// Groups, windows or rows that the rule has given up, since it kept more than it may.
    pub forgotten: u64,
    /// About how many bytes the rule keeps now.
    pub state_bytes: u64,
    /// Rows whose `ts` was too far ahead to be believed.
    pub ahead: u64,
    /// Rows that could not be evaluated, and the first reason.
    pub bad_rows: u64,
    /// Why the first of them could not.
    pub bad_row: Option<String>,
    /// What the rule says to the people who look after it.
    pub log: Vec<LogLine>,
    /// The number of the row, or of the tick, at which a rule with a [`Fence`] could not go on.
    pub stopped_at: Option<u64>,
}

/// What a rule says to the people who look after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// how much it matters
    pub level: LogLevel,
    /// the words
    pub text: String,
}

/// How much a line of a log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// to whoever looks for a fault
    Debug,
    /// to whoever wants to know what goes on
    Info,
    /// something may be wrong
    Warn,
    /// something is wrong
    Error,
}

impl Emissions {
    /// Adds `rows` for `target`, unless there are none.
    pub fn emit(&mut self, target: &Target, rows: Rows) {
        if !rows.is_empty() {
            self.rows.push(Emission { target: target.clone(), rows });
        }
    }

    /// Adds the counts of `other`.
    pub(crate) fn note(&mut self, other: &Self) {
        self.late += other.late;
        self.late_by_ns = self.late_by_ns.max(other.late_by_ns);
        self.forgotten += other.forgotten;
        self.ahead += other.ahead;
        self.bad_rows += other.bad_rows;
        if self.bad_row.is_none() {
            self.bad_row.clone_from(&other.bad_row);
        }
        self.log.extend_from_slice(&other.log);
        self.stopped_at = self.stopped_at.or(other.stopped_at);
    }

    /// Notes that one row could not be evaluated.
    pub fn bad(&mut self, reason: String) {
        self.bad_rows += 1;
        self.bad_row.get_or_insert(reason);
    }

    /// The ordinal of each row within (rule, sequence number), emission by emission. `self` must hold one
    /// rule's rows only.
    #[must_use]
    pub fn ordinals(rows: &[Emission]) -> Vec<Vec<u32>> {
        let mut next: HashMap<u64, u32> = HashMap::new();
        let single = rows.len() == 1;
        rows.iter()
            .map(|emission| {
                // One emission's numbers never decrease, so a lone emission only needs to compare neighbours.
                let mut last: Option<(u64, u32)> = None;
                let mut ordinal_of = |seq: u64| {
                    if single {
                        let ordinal = last.filter(|(s, _)| *s == seq).map_or(0, |(_, o)| o + 1);
                        last = Some((seq, ordinal));
                        return ordinal;
                    }
                    let next = next.entry(seq).or_default();
                    *next += 1;
                    *next - 1
                };
                (0..emission.rows.len()).map(|row| ordinal_of(emission.rows.seqs.get(row))).collect()
            })
            .collect()
    }
}

/// The state of one operator at rest.
#[derive(Debug, Clone)]
pub struct SealedState {
    /// What the operator computes, apart from thresholds and projections; only state with an equal
    /// fingerprint fits.
    pub fingerprint: String,
    /// The watermark, nanoseconds since the epoch.
    pub watermark: i64,
    /// Rows of state: key columns, then the state columns of each aggregate, named by what it computes.
    pub batch: Option<RecordBatch>,
}

/// Why a rule cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(pub String);
