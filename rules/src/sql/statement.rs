//! One statement that runs: its tree of operators, its event time, and where its rows go.

use std::sync::Arc;

use datafusion_common::{DataFusionError, Result};
use tidegate_core::{Rows, Seqs};

use super::operators::{Operator, Pass, numbered, visit, visit_mut};
use super::time::EventTime;
use crate::rule::{Emissions, RuleError, SealedState, Target};

/// `INSERT INTO target SELECT ..`, lowered.
#[derive(Debug)]
pub(super) struct Statement {
    inputs: Vec<Arc<str>>,
    target: Target,
    root: Box<dyn Operator>,
    /// `None` when no operator is timed
    time: Option<EventTime>,
}

impl Statement {
    /// `time` is the event time of the streams `inputs`.
    pub(super) fn new(inputs: Vec<Arc<str>>, target: Target, root: Box<dyn Operator>, time: EventTime) -> Self {
        let mut timed = false;
        visit(&*root, &mut |operator| timed |= operator.is_timed());
        Self { inputs, target, root, time: timed.then_some(time) }
    }

    pub(super) fn inputs(&self) -> &[Arc<str>] {
        &self.inputs
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn on_batch(&mut self, stream: &str, rows: &Rows, now: i64, out: &mut Emissions) -> Result<(), RuleError> {
        let Some(time) = &mut self.time else {
            return self.pass(Some((stream, rows)), &rows.seqs, Vec::new(), now, false, out);
        };
        let mut begin = 0;
        for row in time.set_back(stream, &rows.batch).map_err(rule_error)? {
            self.rows(stream, &rows.slice(begin, row - begin), now, out)?;
            if let Some(time) = &mut self.time {
                let watermarks = time.start_anew();
                self.pass(None, &Seqs::One { seq: rows.seqs.get(row) }, watermarks, now, true, out)?;
            }
            begin = row;
        }
        self.rows(stream, &rows.slice(begin, rows.len() - begin), now, out)
    }

    fn rows(&mut self, stream: &str, rows: &Rows, now: i64, out: &mut Emissions) -> Result<(), RuleError> {
        let Some(time) = &mut self.time else { return Ok(()) };
        let watermarks = time.rows(stream, &rows.batch, now).map_err(rule_error)?;
        self.pass(Some((stream, rows)), &rows.seqs, watermarks, now, false, out)
    }

    pub(super) fn on_tick(&mut self, seq: u64, now: i64, out: &mut Emissions) -> Result<(), RuleError> {
        let watermarks = self.time.as_mut().map_or_else(Vec::new, |time| time.pass(now));
        self.pass(None, &Seqs::One { seq }, watermarks, now, false, out)
    }

    pub(super) fn on_end(&mut self, seq: u64, out: &mut Emissions) -> Result<(), RuleError> {
        let watermarks = self.time.as_mut().map_or_else(Vec::new, EventTime::end);
        self.pass(None, &Seqs::One { seq }, watermarks, i64::MAX, true, out)
    }

    fn pass(
        &mut self,
        input: Option<(&str, &Rows)>,
        seqs: &Seqs,
        watermarks: Vec<i64>,
        now: i64,
        ends: bool,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let mut pass = Pass { input: input.map(|(stream, rows)| (stream, &rows.batch)), watermarks, now, ends, out };
        let rows = self.root.run(&mut pass).map_err(rule_error)?;
        out.emit(&self.target, numbered(rows, seqs));
        Ok(())
    }

    /// The sequence's time at which a tick would make a difference.
    pub(super) fn wakes_at(&self) -> Option<i64> {
        let mut wakes: Option<i64> = None;
        visit(&*self.root, &mut |operator| {
            let by_event_time = operator.deadline().and_then(|deadline| self.time.as_ref()?.reaches(deadline));
            for at in [by_event_time, operator.wakes_at()].into_iter().flatten() {
                wakes = Some(wakes.map_or(at, |earliest| earliest.min(at)));
            }
        });
        wakes
    }

    /// The operators, from the inputs to the target.
    pub(super) fn root(&self) -> &dyn Operator {
        &*self.root
    }

    pub(super) fn seal(&mut self, sealed: &mut Vec<SealedState>) -> Result<(), RuleError> {
        let mut seal = || {
            if let Some(time) = &self.time {
                sealed.extend(time.seal()?);
            }
            visit_mut(&mut *self.root, &mut |operator| {
                sealed.extend(operator.seal()?);
                Ok(())
            })
        };
        seal().map_err(rule_error)
    }

    /// Takes the state that fits out of `state`.
    pub(super) fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<(), RuleError> {
        if let Some(time) = &mut self.time {
            time.restore(state);
        }
        visit_mut(&mut *self.root, &mut |operator| operator.restore(state, misfits)).map_err(rule_error)
    }
}

fn rule_error(error: DataFusionError) -> RuleError {
    RuleError(error.strip_backtrace())
}
