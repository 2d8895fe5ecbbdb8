//! Operators that run for one statement or for several, and what they hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use datafusion_common::{DataFusionError, Result};

use super::super::{Chunk, Operator, Pass, visit, visit_mut};
use super::Turn;
use crate::rule::{Emissions, SealedState, When};
use crate::sql::time::EventTime;

/// Operators with their users.
#[derive(Debug)]
pub(super) struct Part {
    /// The first runs; the others are as new, one for each user that may leave.
    pub(super) operators: Vec<Box<dyn Operator>>,
    /// what was taken out of the first, until it runs again
    pub(super) rest: Option<Vec<SealedState>>,
    /// the rules that use it, one for each [`Shared`]
    pub(super) users: Vec<Arc<str>>,
    /// event time after the last pass
    pub(super) time: Option<EventTime>,
    health: Health,
    /// how often it has run for several users
    pub(super) passes: u64,
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
    pub(super) fn new(operator: Box<dyn Operator>, rule: Arc<str>) -> Self {
        Self { operators: vec![operator], rest: None, users: vec![rule], time: None, health: Health::Well, passes: 0, made: None }
    }

    pub(super) fn rename(&mut self, from: &Arc<str>, to: &Arc<str>) {
        if let Some(user) = self.users.iter_mut().find(|user| *user == from) {
            *user = Arc::clone(to);
        }
    }

    /// A user leaves. Returns operators that are as new; if it was the last, those that ran.
    pub(super) fn release(&mut self, rule: &Arc<str>) -> Option<Box<dyn Operator>> {
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
    pub(super) fn at_rest(&mut self) -> Result<&[SealedState]> {
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
    pub(super) fn awake(&mut self) -> Result<&mut dyn Operator> {
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

    pub(super) fn has_run(&self, turn: Turn<'_>) -> bool {
        self.made.as_ref().is_some_and(|made| made.number == turn.number)
    }

    /// Whether time that has passed makes a difference to it.
    pub(super) fn is_due(&mut self, pass: &Pass<'_>) -> Result<bool> {
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
    pub(super) fn run(&mut self, pass: &mut Pass<'_>, turn: Turn<'_>) -> Result<Chunk> {
        self.awake()?;
        self.made = None;
        self.time = turn.time.cloned();
        self.or_fail(|part| part.first()?.run(pass))
    }

    /// For several: what it makes of the pass waits for them.
    pub(super) fn run_for_all(&mut self, pass: &mut Pass<'_>, turn: Turn<'_>) -> Result<()> {
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
    pub(super) fn give(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
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
pub(super) fn hold_the_same(own: &mut Part, other: &mut Part) -> Result<bool> {
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
pub(super) fn take_equal(state: &mut Vec<SealedState>, rest: &[SealedState]) -> bool {
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
pub(super) fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn gone() -> DataFusionError {
    DataFusionError::Internal("a part that is shared has no operators".into())
}
