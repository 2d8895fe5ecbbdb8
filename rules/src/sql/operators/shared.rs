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

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::LogicalPlan;

use super::{Chunk, Operator, Pass, explain, visit, visit_mut};
use crate::Options;
use crate::rule::{Emissions, SealedState, Step, When};
use crate::sql::time::EventTime;

/// Which pass it is, for all who take part in it.
#[derive(Clone, Copy)]
pub(in crate::sql) struct Turn<'a> {
    /// see [`When::round`], and the number of the pass within the call
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
        let options = Options {
            emit: options.emit,
            emit_every: options.emit_every,
            state_ttl: options.state_ttl,
            ..Options::default()
        };
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
        let own = Part { rest: Some(rest), time, ..Part::new(operator, Arc::clone(&self.rule)) };
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
        if part.users.len() > 1 {
            // The others go on with what there was.
            let Some(operator) = part.release(&self.rule) else { return Err(gone()) };
            drop(part);
            (self.part, self.passes) = (Arc::new(Mutex::new(Part::new(operator, Arc::clone(&self.rule)))), 0);
            part = lock(&self.part);
        }
        part.rest = None;
        let Some(operator) = part.operators.first_mut() else { return Err(gone()) };
        visit_mut(&mut **operator, &mut |operator| operator.restore(state, misfits))
    }
}

/// Operators with their users.
#[derive(Debug)]
struct Part {
    /// The first runs; the others are as new, one for each user that may leave.
    operators: Vec<Box<dyn Operator>>,
    /// what was taken out of the first, until it runs again
    rest: Option<Vec<SealedState>>,
    /// the rules that use it, one for each [`Shared`]
    users: Vec<Arc<str>>,
    /// event time after the last pass
    time: Option<EventTime>,
    health: Health,
    /// how often it has run for several users
    passes: u64,
    made: Option<Made>,
}

#[derive(Debug)]
enum Health {
    Well,
    /// whoever sees this sees that it has panicked
    Runs,
    Failed(Arc<DataFusionError>),
}

/// What the last pass has come to, until all users have it.
#[derive(Debug)]
struct Made {
    number: (u64, u32),
    chunk: Chunk,
    late: Vec<u32>,
    noted: Emissions,
    /// how many users are to be given it
    wanted: usize,
}

impl Part {
    fn new(operator: Box<dyn Operator>, rule: Arc<str>) -> Self {
        Self { operators: vec![operator], rest: None, users: vec![rule], time: None, health: Health::Well, passes: 0, made: None }
    }

    fn rename(&mut self, from: &Arc<str>, to: &Arc<str>) {
        if let Some(user) = self.users.iter_mut().find(|user| *user == from) {
            *user = Arc::clone(to);
        }
    }

    /// A user leaves. Returns operators that are as new; if it was the last, those that ran.
    fn release(&mut self, rule: &Arc<str>) -> Option<Box<dyn Operator>> {
        if let Some(at) = self.users.iter().position(|user| user == rule) {
            self.users.swap_remove(at);
        }
        self.operators.pop()
    }

    fn check(&self) -> Result<()> {
        match &self.health {
            Health::Well => Ok(()),
            Health::Runs => Err(DataFusionError::Execution("it panicked, in a window that it shares".into())),
            Health::Failed(error) => Err(DataFusionError::Shared(Arc::clone(error))),
        }
    }

    /// Does `what`; when that fails, it has failed for all users, as it would have for each of them.
    fn or_fail<T>(&mut self, what: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check()?;
        self.health = Health::Runs;
        what(self).inspect(|_| self.health = Health::Well).or_else(|error| {
            self.health = Health::Failed(Arc::new(error));
            self.check().and_then(|()| Err(gone()))
        })
    }

    /// Takes the state out, if it is not.
    fn at_rest(&mut self) -> Result<&[SealedState]> {
        if self.rest.is_none() {
            self.rest = self.or_fail(|part| {
                let mut rest = Vec::new();
                visit_mut(part.first()?, &mut |operator| {
                    rest.extend(operator.seal()?);
                    Ok(())
                })?;
                Ok(Some(rest))
            })?;
        }
        self.check()?;
        Ok(self.rest.as_deref().unwrap_or_default())
    }

    /// What runs, with its state.
    fn awake(&mut self) -> Result<&mut dyn Operator> {
        self.check()?;
        if let Some(mut rest) = self.rest.take() {
            self.or_fail(|part| {
                visit_mut(part.first()?, &mut |operator| operator.restore(&mut rest, &mut Vec::new()))?;
                let Some(watermarks) = part.time.as_ref().map(EventTime::unmoved) else { return Ok(()) };
                // It learns what time it is: what has closed is not in the state.
                let (when, out) = (When::at(i64::MIN), &mut Emissions::default());
                let mut pass = Pass { input: None, watermarks, when, ends: false, turn: None, late: Vec::new(), out };
                part.first()?.run(&mut pass).map(drop)
            })?;
        }
        self.first()
    }

    fn first(&mut self) -> Result<&mut dyn Operator> {
        match self.operators.first_mut() {
            Some(operator) => Ok(&mut **operator),
            None => Err(gone()),
        }
    }

    fn has_run(&self, turn: Turn<'_>) -> bool {
        self.made.as_ref().is_some_and(|made| made.number == turn.number)
    }

    /// Whether time that has passed makes a difference to it.
    fn is_due(&mut self, pass: &Pass<'_>) -> Result<bool> {
        let watermark = pass.watermarks.last().copied().unwrap_or(i64::MIN);
        let mut due = false;
        visit(self.awake()?, &mut |operator| {
            due |= operator.deadline().is_some_and(|deadline| deadline <= watermark);
            due |= operator.wakes_at().is_some_and(|at| at <= pass.when.now);
        });
        Ok(due)
    }

    /// How many entries it keeps, unless it is at rest.
    fn entries(&mut self) -> Option<usize> {
        if self.rest.is_some() {
            return None;
        }
        let mut entries = 0;
        visit(self.awake().ok()?, &mut |operator| entries += operator.held().entries);
        Some(entries)
    }

    /// For one user.
    fn run(&mut self, pass: &mut Pass<'_>, turn: Turn<'_>) -> Result<Chunk> {
        self.awake()?;
        self.made = None;
        self.time = turn.time.cloned();
        self.or_fail(|part| part.first()?.run(pass))
    }

    /// For several: what it makes of the pass waits for them.
    fn run_for_all(&mut self, pass: &mut Pass<'_>, turn: Turn<'_>) -> Result<()> {
        if turn.number.0 == When::ALONE {
            return Err(DataFusionError::Internal("a rule that shares a window was called without the others".into()));
        }
        let mut noted = Emissions::default();
        let watermarks = std::mem::take(&mut pass.watermarks);
        let mut of_all = Pass { watermarks, late: Vec::new(), out: &mut noted, ..*pass };
        let chunk = self.run(&mut of_all, turn);
        let late = std::mem::take(&mut of_all.late);
        pass.watermarks = std::mem::take(&mut of_all.watermarks);
        self.made = Some(Made { number: turn.number, chunk: chunk?, late, noted, wanted: self.users.len() });
        self.passes += 1;
        Ok(())
    }

    /// Gives one user what the last pass has come to.
    fn give(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let Some(made) = &mut self.made else { return Err(gone()) };
        pass.late.extend_from_slice(&made.late);
        pass.out.note(&made.noted);
        made.wanted = made.wanted.saturating_sub(1);
        if made.wanted > 0 {
            return Ok(made.chunk.clone());
        }
        self.made.take().map(|made| made.chunk).ok_or_else(gone)
    }
}

/// Whether `other` holds what `own` holds, which compute the same. Then both are at rest.
fn hold_the_same(own: &mut Part, other: &mut Part) -> Result<bool> {
    if own.time != other.time {
        return Ok(false);
    }
    if let (Some(own), Some(other)) = (own.entries(), other.entries())
        && own != other
    {
        return Ok(false);
    }
    let own = own.at_rest()?;
    // Its own users are told what is wrong with it.
    Ok(other.at_rest().is_ok_and(|other| own.len() == other.len() && own.iter().zip(other).all(|(own, other)| is_same(own, other))))
}

/// Takes `rest` out of `state` if all of it is there.
fn take_equal(state: &mut Vec<SealedState>, rest: &[SealedState]) -> bool {
    let mut left = state.clone();
    for one in rest {
        let Some(at) = left.iter().position(|sealed| sealed.fingerprint == one.fingerprint) else { return false };
        if !is_same(one, &left.remove(at)) {
            return false;
        }
    }
    *state = left;
    true
}

/// To the last bit.
fn is_same(one: &SealedState, other: &SealedState) -> bool {
    let batches = |one: &RecordBatch, other: &RecordBatch| {
        let mut columns = one.columns().iter().zip(other.columns());
        one.schema() == other.schema()
            && one.num_rows() == other.num_rows()
            && columns.all(|(one, other)| Arc::ptr_eq(one, other) || one == other)
    };
    one.fingerprint == other.fingerprint
        && one.watermark == other.watermark
        && match (&one.batch, &other.batch) {
            (None, None) => true,
            (Some(one), Some(other)) => batches(one, other),
            _ => false,
        }
}

/// What happens when a lock was held by who panicked is a matter of [`Health`].
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone() -> DataFusionError {
    DataFusionError::Internal("a part that is shared has no operators".into())
}
