//! Operators that run for one statement or for several, and what they made of the call at hand.

use std::sync::{Arc, Mutex, MutexGuard};

use datafusion_common::{DataFusionError, Result};

use super::super::{Chunk, Operator, Pass, visit, visit_mut};
use super::PassNumber;
use crate::rule::{Emissions, SealedState, When};
use crate::sql::time::EventTime;

/// Operators with their users.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) operators: Box<dyn Operator>,
    /// the rules that use it, one for each [`super::Shared`]
    pub(super) users: Vec<Arc<str>>,
    /// `None`: it has run since somebody looked
    pub(super) seen: Option<Seen>,
    /// why none of its users can go on
    failed: Option<Arc<DataFusionError>>,
    round: u64,
    /// what it has made in this round, pass by pass
    made: Vec<Made>,
    /// in how many passes it has made something for all users
    pub(super) passes: u64,
}

/// What there was when somebody looked.
#[derive(Debug)]
pub(super) struct Seen {
    /// event time of the users
    pub time: Option<EventTime>,
    pub state: Option<Vec<SealedState>>,
}

/// What one pass has come to.
#[derive(Debug)]
struct Made {
    /// Which of [`Part::passes`] it is. `None`: it came to nothing, which nobody has to be told.
    pass: Option<u64>,
    chunk: Chunk,
    late: Vec<u32>,
    noted: Emissions,
}

impl Part {
    pub(super) fn new(operators: Box<dyn Operator>, rule: &Arc<str>) -> Self {
        Self {
            operators,
            users: vec![Arc::clone(rule)],
            seen: None,
            failed: None,
            round: When::ALONE,
            made: Vec::new(),
            passes: 0,
        }
    }

    pub(super) fn leave(&mut self, rule: &Arc<str>) {
        if let Some(at) = self.users.iter().position(|user| Arc::ptr_eq(user, rule)) {
            self.users.swap_remove(at);
        }
    }

    /// One pass, for a user that has been `given` so many.
    pub(super) fn run(
        &mut self,
        pass: &mut Pass<'_>,
        (round, number): PassNumber,
        given: &mut u64,
    ) -> Result<Chunk> {
        if self.round != round {
            self.begin_round(round);
        }
        if number >= self.made.len() && self.users.len() == 1 {
            return self.or_fail(|part| part.operators.run(pass));
        }
        if number == self.made.len() && round != When::ALONE {
            let made = self.make(pass)?;
            self.made.push(made);
        }
        match self.made.get(number) {
            Some(made) if made.pass.is_none_or(|pass| pass == *given + 1) => {
                pass.late.extend_from_slice(&made.late);
                pass.out.note(&made.noted);
                *given = made.pass.unwrap_or(*given);
                Ok(made.chunk.clone())
            }
            _ => Err(DataFusionError::Internal(
                "rules that share a window were not called for the same rows".into(),
            )),
        }
    }

    pub(super) fn begin_round(&mut self, round: u64) {
        self.round = round;
        self.made.clear();
    }

    fn make(&mut self, pass: &mut Pass<'_>) -> Result<Made> {
        let mut noted = Emissions::default();
        let watermarks = std::mem::take(&mut pass.watermarks);
        let mut of_all = Pass { watermarks, late: Vec::new(), out: &mut noted, ..*pass };
        let chunk = self.or_fail(|part| part.operators.run(&mut of_all))?;
        let late = std::mem::take(&mut of_all.late);
        pass.watermarks = of_all.watermarks;
        // Time passes for those who wait for it. Where it brings nothing, others need not have been called.
        let is_something = pass.input.is_some() || pass.ends || !chunk.is_empty();
        self.passes += u64::from(is_something);
        Ok(Made { pass: is_something.then_some(self.passes), chunk, late, noted })
    }

    /// Does `what` to the operators. When that fails, it has failed for all users, as it would have for each
    /// of them.
    fn or_fail<T>(&mut self, what: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.seen = None;
        what(self).map_err(|error| {
            let error = Arc::new(error);
            self.failed = Some(Arc::clone(&error));
            DataFusionError::Shared(error)
        })
    }

    /// A copy of what it holds. Taking it out and putting it back asks nothing more of an operator.
    pub(super) fn state(&mut self) -> Result<Vec<SealedState>> {
        if let Some(Seen { state: Some(state), .. }) = &self.seen {
            return Ok(state.clone());
        }
        let seen = self.seen.take();
        let state = self.or_fail(|part| {
            let state = part.seal()?;
            restore(&mut *part.operators, &mut state.clone(), &mut Vec::new())?;
            Ok(state)
        })?;
        self.seen = seen.map(|seen| Seen { state: Some(state.clone()), ..seen });
        Ok(state)
    }

    /// Takes out what it holds.
    pub(super) fn seal(&mut self) -> Result<Vec<SealedState>> {
        self.seen = None;
        let mut state = Vec::new();
        visit_mut(&mut *self.operators, &mut |operator| {
            state.extend(operator.seal()?);
            Ok(())
        })?;
        Ok(state)
    }

    fn entries(&self) -> usize {
        let mut entries = 0;
        visit(&*self.operators, &mut |operator| entries += operator.held().entries);
        entries
    }

    /// Whether `other`, which computes the same, holds the same. What is cheap is looked at first. If one
    /// cannot be looked at, its users are told when they run it.
    pub(super) fn holds_the_same(&mut self, other: &mut Self) -> bool {
        let (Some(own), Some(others)) = (&self.seen, &other.seen) else { return false };
        if own.time != others.time || self.entries() != other.entries() {
            return false;
        }
        let (Ok(own), Ok(other)) = (self.state(), other.state()) else { return false };
        own.len() == other.len() && own.iter().zip(&other).all(|(own, other)| is_same(own, other))
    }
}

/// Gives `operators`, which hold nothing, what fits of `state`.
pub(super) fn restore(
    operators: &mut dyn Operator,
    state: &mut Vec<SealedState>,
    misfits: &mut Vec<String>,
) -> Result<()> {
    visit_mut(operators, &mut |operator| operator.restore(state, misfits))
}

/// To the last bit: that is how Arrow compares numbers.
fn is_same(one: &SealedState, other: &SealedState) -> bool {
    one.fingerprint == other.fingerprint && one.watermark == other.watermark && one.batch == other.batch
}

/// What somebody has left half done when he panicked is of no use to anybody.
pub(super) fn lock(part: &Mutex<Part>) -> Result<MutexGuard<'_, Part>> {
    let part = part
        .lock()
        .map_err(|_| DataFusionError::Execution("it panicked, in a window that it shares".into()))?;
    match &part.failed {
        None => Ok(part),
        Some(error) => Err(DataFusionError::Shared(Arc::clone(error))),
    }
}
