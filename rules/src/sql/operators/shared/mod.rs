//! Operators that several statements use at once.
//!
//! In the tree of a statement, [`Shared`] stands in the place of the lowest operators that keep something.
//! These are in a [`Part`], and statements whose parts compute the same **and hold the same** can use one of
//! them: the first that asks in a pass runs it, the others are given what it made of the pass. Nothing that a
//! rule writes depends on whether it shares a part, so that is neither in the journal nor in a snapshot.
//!
//! # What holds
//! * All users of a part are called for the same rows, since they read the same streams, and have the same
//!   event time. [`PassNumber`] says which pass of which call it is.
//! * A tick calls only those whose time it is. If it is the part's time, that is all of its users. If it is
//!   not, the part makes nothing of the tick, and it does not matter who had it: see [`EventTime`].
//! * Who leaves takes a copy of what the part holds along, in operators of its own that are made anew, and
//!   the others do not notice.

mod part;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, Weak};

use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_expr::LogicalPlan;

use super::{Chunk, Operator, Pass, explain, visit, visit_mut};
use crate::rule::{SealedState, Step, When};
use crate::sql::options::SqlOptions;
use crate::sql::time::EventTime;
use part::{Part, Seen, lock, restore};

/// Which pass it is, for all who take part in it: see [`crate::When::round`], and the number of the pass
/// within the call.
pub(in crate::sql) type PassNumber = (u64, usize);

/// What a part computes, exactly: its plan, with all literals and types, and the options that say how it is
/// run.
#[derive(Debug)]
pub(in crate::sql) struct Computes {
    hash: u64,
    plan: LogicalPlan,
    options: SqlOptions,
    /// those of its streams whose `ts` is the time of arrival
    by_arrival: BTreeSet<String>,
    make: Make,
}

/// Makes operators of a plan.
pub(in crate::sql) type Make = fn(&LogicalPlan, &SqlOptions, &BTreeSet<String>) -> Result<Box<dyn Operator>>;

impl Computes {
    /// What `make` makes of `plan` in a rule with `options`.
    pub(in crate::sql) fn new(
        plan: &LogicalPlan,
        options: &SqlOptions,
        by_arrival: BTreeSet<String>,
        make: Make,
    ) -> Self {
        // The others belong to event time, which is compared by itself.
        let options = SqlOptions {
            emit: options.emit,
            emit_every: options.emit_every,
            state_ttl: options.state_ttl,
            ..SqlOptions::default()
        };
        let mut hasher = DefaultHasher::new();
        plan.hash(&mut hasher);
        Self { hash: hasher.finish(), plan: plan.clone(), options, by_arrival, make }
    }

    fn make(&self) -> Result<Box<dyn Operator>> {
        (self.make)(&self.plan, &self.options, &self.by_arrival)
    }
}

impl PartialEq for Computes {
    fn eq(&self, other: &Self) -> bool {
        let is_same =
            self.hash == other.hash && self.options == other.options && self.by_arrival == other.by_arrival;
        std::ptr::eq(self, other) || (is_same && self.plan == other.plan)
    }
}

impl Eq for Computes {}

impl Hash for Computes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// The parts of the rules of one worker.
#[derive(Debug, Default)]
pub(crate) struct SharedParts {
    parts: HashMap<Arc<Computes>, Vec<Weak<Mutex<Part>>>>,
}

impl SharedParts {
    /// How many parts there are, each of them with one rule or many.
    pub(crate) fn count(&self) -> usize {
        self.parts.values().flatten().filter(|part| part.strong_count() > 0).count()
    }

    /// Forgets parts that nobody uses any more, and copies of what the others hold.
    pub(crate) fn tidy(&mut self) {
        self.parts.retain(|_, parts| {
            parts.retain(|part| part.strong_count() > 0);
            parts.iter().filter_map(Weak::upgrade).for_each(|part| {
                if let Ok(mut part) = lock(&part) {
                    part.seen = None;
                }
            });
            !parts.is_empty()
        });
    }

    fn remove(&mut self, computes: &Computes, part: &Arc<Mutex<Part>>) {
        if let Some(parts) = self.parts.get_mut(computes) {
            parts.retain(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(part)));
        }
    }
}

/// What a statement has in the place of operators that it may share.
pub(in crate::sql) struct Shared {
    computes: Arc<Computes>,
    schema: SchemaRef,
    /// whose statement it is; empty before it is known
    rule: Arc<str>,
    part: Arc<Mutex<Part>>,
    /// how many passes of the part it has been given
    given: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Shared {
    /// `operators`, which `computes` has made.
    pub(in crate::sql) fn new(computes: Computes, operators: Box<dyn Operator>) -> Self {
        let (schema, rule) = (Arc::clone(operators.schema()), Arc::from(""));
        let part = Arc::new(Mutex::new(Part::new(operators, &rule)));
        Self { computes: Arc::new(computes), schema, rule, part, given: 0 }
    }

    /// Looks for a part among `parts` that computes the same and holds the same, and uses that from now on.
    /// `time` is the event time of the statement, which belongs to `rule`.
    ///
    /// # Errors
    /// When the state cannot be looked at.
    pub(in crate::sql) fn share(
        &mut self,
        rule: &Arc<str>,
        time: Option<&EventTime>,
        parts: &mut SharedParts,
    ) -> Result<()> {
        let mut own = lock(&self.part)?;
        if !Arc::ptr_eq(&self.rule, rule) {
            own.leave(&self.rule);
            own.users.push(Arc::clone(rule));
            self.rule = Arc::clone(rule);
        }
        let state = own.seen.take().and_then(|seen| seen.state);
        own.seen = Some(Seen { time: time.cloned(), state });
        if let Some((known, _)) = parts.parts.get_key_value(&*self.computes) {
            self.computes = Arc::clone(known);
        }
        let known = parts.parts.entry(Arc::clone(&self.computes)).or_default();
        let is_own = |other: &Weak<Mutex<Part>>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(&self.part));
        // Several users, who come one by one, go to an older part only: else two parts could change places.
        let is_alone = own.users.len() == 1;
        let others =
            known.iter().take_while(|other| is_alone || !is_own(other)).filter(|other| !is_own(other));
        let mut others = others.filter_map(Weak::upgrade);
        let Some(same) =
            others.find(|other| lock(other).is_ok_and(|mut other| own.holds_the_same(&mut other)))
        else {
            if !known.iter().any(is_own) {
                known.push(Arc::downgrade(&self.part));
            }
            return Ok(());
        };
        own.leave(rule);
        drop(own);
        let mut joined = lock(&same)?;
        joined.users.push(Arc::clone(rule));
        self.given = joined.passes;
        drop(joined);
        self.part = same;
        Ok(())
    }

    /// Has a part of its own from now on, which holds the same as the one before.
    ///
    /// # Errors
    /// When the state cannot be copied.
    pub(in crate::sql) fn leave(&mut self) -> Result<()> {
        let mut shared = lock(&self.part)?;
        if shared.users.len() == 1 {
            return Ok(());
        }
        let mut state = shared.state()?;
        drop(shared);
        self.begin_anew(&mut state, &mut Vec::new())
    }

    /// Has a part of its own from now on, which holds what fits of `state`.
    fn begin_anew(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let mut operators = self.computes.make()?;
        restore(&mut *operators, state, misfits)?;
        lock(&self.part)?.leave(&self.rule);
        (self.part, self.given) = (Arc::new(Mutex::new(Part::new(operators, &self.rule))), 0);
        Ok(())
    }

    /// The same as [`Shared::leave`], and no rule of this worker shares it later. On another, rounds are
    /// counted by themselves.
    ///
    /// # Errors
    /// When the state cannot be copied.
    pub(in crate::sql) fn move_away(&mut self, parts: &mut SharedParts) -> Result<()> {
        self.leave()?;
        parts.remove(&self.computes, &self.part);
        lock(&self.part)?.begin_round(When::ALONE);
        Ok(())
    }

    /// A copy of what it holds.
    ///
    /// # Errors
    /// When the state cannot be copied.
    pub(in crate::sql) fn state(&self) -> Result<Vec<SealedState>> {
        lock(&self.part)?.state()
    }

    /// Calls `see` for its operators. One that has failed keeps nothing and waits for nothing.
    pub(super) fn visit(&self, see: &mut dyn FnMut(&dyn Operator)) {
        if let Ok(part) = lock(&self.part) {
            visit(&*part.operators, see);
        }
    }

    /// Calls `change` for its operators; it must not share them.
    ///
    /// # Errors
    /// Those of `change`.
    pub(in crate::sql) fn visit_mut(
        &mut self,
        change: &mut dyn FnMut(&mut dyn Operator) -> Result<()>,
    ) -> Result<()> {
        let mut part = lock(&self.part)?;
        part.seen = None;
        visit_mut(&mut *part.operators, change)
    }

    /// Describes its operators; the first step says who else uses them.
    pub(super) fn explain(&self, depth: usize, steps: &mut Vec<Step>) {
        let Ok(part) = lock(&self.part) else { return };
        let others: BTreeSet<&Arc<str>> = part.users.iter().filter(|user| **user != self.rule).collect();
        let at = steps.len();
        explain(&*part.operators, depth, steps);
        if let Some(step) = steps.get_mut(at) {
            step.shared_with = others.into_iter().cloned().collect();
        }
    }

    fn with<T: Default>(&self, look: impl FnOnce(&dyn Operator) -> T) -> T {
        lock(&self.part).map(|part| look(&*part.operators)).unwrap_or_default()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Ok(mut part) = lock(&self.part) {
            part.leave(&self.rule);
        }
    }
}

impl Operator for Shared {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        Vec::new()
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        Vec::new()
    }

    fn shared(&self) -> Option<&Shared> {
        Some(self)
    }

    fn shared_mut(&mut self) -> Option<&mut Shared> {
        Some(self)
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        match pass.number {
            Some(number) => lock(&self.part)?.run(pass, number, &mut self.given),
            // A table has changed, and no table is read below.
            None => Ok(Chunk::empty(&self.schema)),
        }
    }

    fn explain(&self) -> String {
        self.with(|operator| operator.explain())
    }

    fn origin(&self) -> String {
        self.with(|operator| operator.origin())
    }

    fn gives_input_rows(&self) -> bool {
        self.with(|operator| operator.gives_input_rows())
    }

    fn delay_ns(&self) -> i64 {
        self.with(|operator| operator.delay_ns())
    }

    fn end_delay_ns(&self) -> i64 {
        self.with(|operator| operator.end_delay_ns())
    }

    /// At once, if there is something that it has not been given.
    fn wakes_at(&self) -> Option<i64> {
        let waits = lock(&self.part).is_ok_and(|part| part.users.len() > 1 && part.passes > self.given);
        waits.then_some(i64::MIN)
    }

    /// Takes it out, unless others go on with it.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let mut part = lock(&self.part)?;
        if part.users.len() == 1 { part.seal() } else { part.state() }
    }

    /// The others, if there are any, go on with what there was.
    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let mut part = lock(&self.part)?;
        if part.users.len() == 1 {
            part.seen = None;
            return restore(&mut *part.operators, state, misfits);
        }
        drop(part);
        self.begin_anew(state, misfits)
    }
}

#[cfg(test)]
mod tests;
