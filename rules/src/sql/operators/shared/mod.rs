//! Operators that several statements use at once.
//!
//! In the tree of a statement, [`Shared`] stands in the place of the lowest operators that keep something. These are in a [`Part`], and statements
//! whose parts compute the same **and hold the same** can use one of them: the first that asks in a pass runs it, the others are given what it made of
//! the pass. Nothing that a rule writes depends on whether it shares a part, so that is neither in the journal nor in a snapshot.
//!
//! # What holds
//! * All users of a part are called for the same rows, since they read the same streams, and have the same event time. [`Turn`] says which
//!   pass of which call it is.
//! * A tick calls only those whose time it is. If that is the part's time, all of its users are called. If not, a user is called for reasons of its own:
//!   where the watermark stands still, the tick is nothing to the part, and where it moves, the user goes its own way from there on.
//! * Who leaves takes a copy of the state along, and the others do not notice.

mod part;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, Weak};

use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::LogicalPlan;

use super::{Chunk, Operator, Pass, explain, visit, visit_mut};
use crate::Options;
use crate::rule::{SealedState, Step};
use crate::sql::time::EventTime;
use part::{Part, gone, hold_the_same, lock, take_equal};

/// Which pass it is, for all who take part in it.
#[derive(Clone, Copy)]
pub(in crate::sql) struct Turn<'a> {
    /// see [`crate::When::round`], and the number of the pass within the call
    pub number: (u64, u32),
    /// the statement's event time after the pass
    pub time: Option<&'a EventTime>,
}

/// What a part computes, exactly: its plan, with all literals and types, and the options that say how it is run.
#[derive(Debug)]
pub(in crate::sql) struct Computes {
    hash: u64,
    plan: LogicalPlan,
    options: Options,
}

impl Computes {
    /// `plan`, run in a rule with `options`.
    pub(in crate::sql) fn new(plan: &LogicalPlan, options: &Options) -> Self {
        // Of the others, some belong to event time, which is compared by itself, and the rest to the rule.
        let options = Options { emit: options.emit, emit_every: options.emit_every, state_ttl: options.state_ttl, ..Options::default() };
        let mut hasher = DefaultHasher::new();
        plan.hash(&mut hasher);
        Self { hash: hasher.finish(), plan: plan.clone(), options }
    }
}

impl PartialEq for Computes {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.hash == other.hash && self.options == other.options && self.plan == other.plan)
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
pub struct SharedParts {
    parts: HashMap<Arc<Computes>, Vec<Weak<Mutex<Part>>>>,
}

impl SharedParts {
    /// How many parts there are, each of them with one rule or many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.parts.values().flatten().filter(|part| part.strong_count() > 0).count()
    }

    /// Forgets parts that nobody uses any more.
    pub fn tidy(&mut self) {
        self.parts.retain(|_, parts| {
            parts.retain(|part| part.strong_count() > 0);
            !parts.is_empty()
        });
    }

    /// Those that compute the same, the oldest first.
    fn that_compute(&self, computes: &Computes) -> (Option<Arc<Computes>>, Vec<Arc<Mutex<Part>>>) {
        match self.parts.get_key_value(computes) {
            Some((known, parts)) => (Some(Arc::clone(known)), parts.iter().filter_map(Weak::upgrade).collect()),
            None => (None, Vec::new()),
        }
    }

    fn insert(&mut self, computes: &Arc<Computes>, part: &Arc<Mutex<Part>>) {
        let parts = self.parts.entry(Arc::clone(computes)).or_default();
        parts.retain(|part| part.strong_count() > 0);
        parts.push(Arc::downgrade(part));
    }

    fn remove(&mut self, computes: &Computes, part: &Arc<Mutex<Part>>) {
        if let Some(parts) = self.parts.get_mut(computes) {
            parts.retain(|known| known.strong_count() > 0 && !std::ptr::eq(known.as_ptr(), Arc::as_ptr(part)));
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
    /// in how many passes of the part it has taken part, if it shares it
    passes: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Shared {
    /// `operator` and all below it.
    pub(in crate::sql) fn new(computes: Computes, operator: Box<dyn Operator>) -> Self {
        let (schema, rule) = (Arc::clone(operator.schema()), Arc::from(""));
        let part = Part::new(operator, Arc::clone(&rule));
        Self { computes: Arc::new(computes), schema, rule, part: Arc::new(Mutex::new(part)), passes: 0 }
    }

    /// Looks for a part among `parts` that computes the same and holds the same, and uses that from now on. `time` is the event time of
    /// the statement, which belongs to `rule`.
    ///
    /// # Errors
    /// When the state cannot be looked at.
    pub(in crate::sql) fn share(&mut self, rule: &Arc<str>, time: Option<&EventTime>, parts: &mut SharedParts) -> Result<()> {
        let mut own = lock(&self.part);
        own.rename(&self.rule, rule);
        own.time = time.cloned();
        drop(own);
        self.rule = Arc::clone(rule);
        let (computes, known) = parts.that_compute(&self.computes);
        if let Some(computes) = computes {
            self.computes = computes;
        }
        for other in known {
            if Arc::ptr_eq(&other, &self.part) {
                return Ok(());
            }
            if hold_the_same(&mut lock(&self.part), &mut lock(&other))? {
                self.join(other);
                return Ok(());
            }
        }
        parts.insert(&self.computes, &self.part);
        Ok(())
    }

    /// Uses `other` from now on, which holds the same. Both are at rest.
    fn join(&mut self, other: Arc<Mutex<Part>>) {
        let released = lock(&self.part).release(&self.rule);
        let mut joined = lock(&other);
        joined.operators.extend(released);
        joined.users.push(Arc::clone(&self.rule));
        self.passes = joined.passes;
        drop(joined);
        self.part = other;
    }

    /// Has a part of its own from now on, which holds the same as the one before.
    ///
    /// # Errors
    /// When the state cannot be copied.
    pub(in crate::sql) fn leave(&mut self) -> Result<()> {
        let mut shared = lock(&self.part);
        if shared.users.len() == 1 {
            return Ok(());
        }
        let (rest, time) = (shared.at_rest()?.to_vec(), shared.time.clone());
        let Some(operator) = shared.release(&self.rule) else { return Err(gone()) };
        drop(shared);
        let mut own = Part::new(operator, Arc::clone(&self.rule));
        (own.rest, own.time) = (Some(rest), time);
        (self.part, self.passes) = (Arc::new(Mutex::new(own)), 0);
        Ok(())
    }

    /// The same, and no rule of this worker shares it later.
    ///
    /// # Errors
    /// When the state cannot be copied.
    pub(in crate::sql) fn move_away(&mut self, parts: &mut SharedParts) -> Result<()> {
        self.leave()?;
        parts.remove(&self.computes, &self.part);
        Ok(())
    }

    /// Calls `see` for its operators.
    pub(super) fn visit(&self, see: &mut dyn FnMut(&dyn Operator)) {
        // One that has failed keeps nothing and waits for nothing.
        if let Ok(operator) = lock(&self.part).awake() {
            visit(operator, see);
        }
    }

    /// Calls `change` for its operators; it must not share them.
    ///
    /// # Errors
    /// Those of `change`.
    pub(in crate::sql) fn visit_mut(&mut self, change: &mut dyn FnMut(&mut dyn Operator) -> Result<()>) -> Result<()> {
        visit_mut(lock(&self.part).awake()?, change)
    }

    /// Describes its operators; the first step says who else uses them.
    pub(super) fn explain(&self, depth: usize, steps: &mut Vec<Step>) {
        let mut part = lock(&self.part);
        let mut others: Vec<Arc<str>> = part.users.iter().filter(|user| **user != self.rule).cloned().collect();
        others.sort();
        others.dedup();
        let at = steps.len();
        if let Ok(operator) = part.awake() {
            explain(operator, depth, steps);
        }
        if let Some(step) = steps.get_mut(at) {
            step.shared_with = others;
        }
    }

    fn with<T>(&self, look: impl FnOnce(&dyn Operator) -> T) -> Option<T> {
        lock(&self.part).operators.first().map(|operator| look(&**operator))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(lock(&self.part).release(&self.rule));
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
        // A table has changed, and no table is read below.
        let Some(turn) = pass.turn else { return Ok(Chunk::empty(&self.schema)) };
        let mut part = lock(&self.part);
        if !part.has_run(turn) {
            if part.users.len() == 1 {
                return part.run(pass, turn);
            }
            if pass.input.is_none() && !pass.ends && !part.is_due(pass)? {
                if pass.watermarks.first() == pass.watermarks.last() {
                    return Ok(Chunk::empty(&self.schema));
                }
                drop(part);
                self.leave()?;
                return lock(&self.part).run(pass, turn);
            }
            part.run_for_all(pass, turn)?;
        }
        self.passes += 1;
        if self.passes != part.passes {
            return Err(DataFusionError::Internal("rules that share a window were not called for the same rows".into()));
        }
        part.give(pass)
    }

    fn explain(&self) -> String {
        self.with(|operator| operator.explain()).unwrap_or_default()
    }

    fn origin(&self) -> String {
        self.with(|operator| operator.origin()).unwrap_or_default()
    }

    fn gives_input_rows(&self) -> bool {
        self.with(|operator| operator.gives_input_rows()).unwrap_or_default()
    }

    fn is_timed(&self) -> bool {
        self.with(|operator| operator.is_timed()).unwrap_or_default()
    }

    fn delay_ns(&self) -> i64 {
        self.with(|operator| operator.delay_ns()).unwrap_or_default()
    }

    fn end_delay_ns(&self) -> i64 {
        self.with(|operator| operator.end_delay_ns()).unwrap_or_default()
    }

    /// A copy for each who asks.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        lock(&self.part).at_rest().map(<[SealedState]>::to_vec)
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let mut part = lock(&self.part);
        if part.users.len() > 1 {
            part.at_rest()?;
        }
        if part.rest.as_ref().is_some_and(|rest| take_equal(state, rest)) {
            return Ok(());
        }
        // The others, if there are any, go on with what there was; and it is a new part, to be compared with all others.
        let Some(operator) = part.release(&self.rule) else { return Err(gone()) };
        drop(part);
        (self.part, self.passes) = (Arc::new(Mutex::new(Part::new(operator, Arc::clone(&self.rule)))), 0);
        let mut part = lock(&self.part);
        let Some(operator) = part.operators.first_mut() else { return Err(gone()) };
        visit_mut(&mut **operator, &mut |operator| operator.restore(state, misfits))
    }
}

#[cfg(test)]
mod tests;
