//! One statement that runs: its tree of operators, its event time, and where its rows go.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use tidegate_core::{Rows, Seqs, TS};

use super::operators::{
    Chunk, Held, Operator, Pass, PassNumber, SharedParts, numbered, seqs_of, visit, visit_mut,
};
use super::time::EventTime;
use crate::index::Prefilter;
use crate::rule::{Emissions, Listened, RuleError, SealedState, When};
use crate::target::Target;

/// `INSERT INTO target SELECT ..`, lowered.
#[derive(Debug)]
pub(super) struct Statement {
    inputs: Vec<Arc<str>>,
    tables: Vec<(Arc<str>, SchemaRef)>,
    target: Target,
    root: Box<dyn Operator>,
    /// `None` when no operator is timed
    time: Option<EventTime>,
    /// whether an operator may keep something
    keeps_state: bool,
    /// of the last pass
    number: PassNumber,
    /// what a row must look like for it to make anything of it
    prefilters: Option<Vec<Prefilter>>,
    late: Option<LateRows>,
}

/// Where rows go that come too late.
#[derive(Debug)]
pub(super) struct LateRows {
    pub target: Target,
    /// for each stream, what makes its rows fit the target
    pub fit: Vec<(Arc<str>, Box<dyn Operator>)>,
}

impl Statement {
    /// `time` is the event time of the streams `inputs`.
    pub(super) fn new(
        inputs: Vec<Arc<str>>,
        target: Target,
        root: Box<dyn Operator>,
        time: EventTime,
        late: Option<LateRows>,
    ) -> Self {
        let (mut timed, mut keeps_state) = (false, false);
        visit(&*root, &mut |operator| {
            timed |= operator.is_timed();
            keeps_state |= !operator.is_row_by_row();
        });
        let (time, late) = (timed.then_some(time), late.filter(|_| timed));
        Self {
            inputs,
            tables: Vec::new(),
            target,
            root,
            time,
            late,
            keeps_state,
            number: (When::ALONE, 0),
            prefilters: None,
        }
    }

    /// Looks things up in `tables`, each with its columns.
    pub(super) fn with_tables(self, tables: Vec<(Arc<str>, SchemaRef)>) -> Self {
        Self { tables, ..self }
    }

    /// Makes nothing of rows that do not go one of `prefilters`.
    pub(super) fn for_rows(mut self, prefilters: Option<Vec<Prefilter>>) -> Self {
        self.prefilters = prefilters.filter(|_| !self.keeps_state);
        self
    }

    /// See [`crate::Indexed::prefilters`].
    pub(super) fn prefilters(&self) -> Option<&[Prefilter]> {
        self.prefilters.as_deref()
    }

    pub(super) fn inputs(&self) -> &[Arc<str>] {
        &self.inputs
    }

    pub(super) fn tables(&self) -> &[(Arc<str>, SchemaRef)] {
        &self.tables
    }

    /// About how many bytes its operators keep.
    pub(super) fn held_bytes(&self) -> usize {
        let mut bytes = 0;
        if self.keeps_state {
            visit(&*self.root, &mut |operator| bytes += operator.held().bytes);
        }
        bytes
    }

    /// The operator that keeps most.
    pub(super) fn largest(&self) -> (String, Held) {
        let mut largest = (self.root.explain(), Held::default());
        visit(&*self.root, &mut |operator| {
            let held = operator.held();
            if held.bytes > largest.1.bytes {
                largest = (operator.explain(), held);
            }
        });
        largest
    }

    /// The operator that keeps most, of those that can forget, gives up its oldest. Returns how many entries
    /// that were; 0: none can.
    ///
    /// # Errors
    /// When the rule cannot go on.
    pub(super) fn shed(&mut self) -> Result<usize, RuleError> {
        let mut sizes = Vec::new();
        visit(&*self.root, &mut |operator| sizes.push(operator.held().bytes));
        let mut largest_first: Vec<usize> =
            (0..sizes.len()).filter(|at| sizes.get(*at).is_some_and(|bytes| *bytes > 0)).collect();
        largest_first.sort_by_key(|at| sizes.get(*at).copied().map(std::cmp::Reverse));
        for chosen in largest_first {
            let (mut at, mut forgotten) = (0, 0);
            let mut shed = |operator: &mut dyn Operator| {
                if at == chosen {
                    forgotten = operator.shed()?;
                }
                at += 1;
                Ok(())
            };
            visit_mut(&mut *self.root, &mut |operator| {
                if let Some(shared) = operator.shared_mut() {
                    // Other rules go on with what there was.
                    shared.leave()?;
                    shared.visit_mut(&mut shed)?;
                }
                shed(operator)
            })
            .map_err(rule_error)?;
            if forgotten > 0 {
                return Ok(forgotten);
            }
        }
        Ok(0)
    }

    /// See [`crate::Indexed::minds_time`].
    pub(super) fn minds_time(&self) -> bool {
        self.time.as_ref().is_some_and(EventTime::minds_time)
    }

    pub(super) fn reads(&self, stream: &str) -> bool {
        self.inputs.iter().any(|input| &**input == stream)
    }

    /// Where rows of its inputs can lead.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        let late = self.late.iter().map(|late| &late.target).filter(|late| **late != self.target);
        std::iter::once(&self.target).chain(late)
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn on_batch(
        &mut self,
        stream: &str,
        rows: &Rows,
        when: When,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let Some(time) = &mut self.time else {
            return self.pass(Some((stream, rows)), &rows.seqs, Vec::new(), when, false, out);
        };
        if let Some(watermarks) = time.silence(when.now) {
            self.pass(None, &Seqs::One { seq: rows.seqs.get(0) }, watermarks, when, false, out)?;
        }
        let mut begin = 0;
        let beginnings = match &mut self.time {
            Some(time) => time.beginnings(stream, &rows.batch, when.now).map_err(rule_error)?,
            None => Vec::new(),
        };
        if beginnings.is_empty() {
            return self.rows(stream, rows, when, out);
        }
        for row in beginnings {
            self.rows(stream, &rows.slice(begin, row - begin), when, out)?;
            if let Some(time) = &mut self.time {
                let watermarks = time.start_anew(stream);
                self.pass(None, &Seqs::One { seq: rows.seqs.get(row) }, watermarks, when, true, out)?;
            }
            begin = row;
        }
        self.rows(stream, &rows.slice(begin, rows.len() - begin), when, out)
    }

    /// The table `name` holds `rows` from now on.
    pub(super) fn on_table(
        &mut self,
        name: &str,
        rows: &RecordBatch,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let watermarks = self.time.as_ref().map_or_else(Vec::new, EventTime::unmoved);
        let mut pass = Pass {
            input: Some((name, rows)),
            watermarks,
            when: When::at(i64::MIN),
            ends: false,
            number: None,
            late: Vec::new(),
            out,
        };
        // A table gives no rows of its own.
        self.root.run(&mut pass).map(drop).map_err(rule_error)
    }

    fn rows(&mut self, stream: &str, rows: &Rows, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        let Some(time) = &mut self.time else { return Ok(()) };
        let watermarks = time.rows(stream, &rows.batch, when.now, &mut out.ahead).map_err(rule_error)?;
        self.pass(Some((stream, rows)), &rows.seqs, watermarks, when, false, out)
    }

    pub(super) fn on_tick(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        let watermarks = self.time.as_mut().map_or_else(Vec::new, |time| time.pass(when.now));
        self.pass(None, &Seqs::One { seq }, watermarks, when, false, out)
    }

    pub(super) fn on_end(&mut self, seq: u64, when: When, out: &mut Emissions) -> Result<(), RuleError> {
        let watermarks = self.time.as_mut().map_or_else(Vec::new, EventTime::end);
        self.pass(None, &Seqs::One { seq }, watermarks, when, true, out)
    }

    fn pass(
        &mut self,
        input: Option<(&str, &Rows)>,
        seqs: &Seqs,
        watermarks: Vec<i64>,
        when: When,
        ends: bool,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        self.number = if self.number.0 == when.round {
            (when.round, self.number.1.saturating_add(1))
        } else {
            (when.round, 0)
        };
        let input_rows = input.map(|(stream, rows)| (stream, &rows.batch));
        let mut pass = Pass {
            input: input_rows,
            watermarks,
            when,
            ends,
            number: Some(self.number),
            late: Vec::new(),
            out,
        };
        let rows = self.root.run(&mut pass).map_err(rule_error)?;
        pass.note_lateness().map_err(rule_error)?;
        let late = std::mem::take(&mut pass.late);
        let rows = if let Target::Stream(stream) = &self.target {
            with_time(rows, stream, out).map_err(rule_error)?
        } else {
            rows
        };
        out.emit(&self.target, numbered(rows, seqs));
        match input.filter(|_| !late.is_empty()) {
            Some((stream, rows)) => self.send_late(stream, rows, late, when, out),
            None => Ok(()),
        }
    }

    /// Sends the rows with the indices `late` where such rows go.
    fn send_late(
        &mut self,
        stream: &str,
        rows: &Rows,
        mut late: Vec<u32>,
        when: When,
        out: &mut Emissions,
    ) -> Result<(), RuleError> {
        let Some(LateRows { target, fit }) = &mut self.late else { return Ok(()) };
        let Some((_, fit)) = fit.iter_mut().find(|(known, _)| &**known == stream) else { return Ok(()) };
        late.sort_unstable();
        late.dedup();
        let seqs = seqs_of(&rows.seqs, Some(late.clone()));
        let batch = take_record_batch(&rows.batch, &UInt32Array::from(late))
            .map_err(|error| rule_error(error.into()))?;
        let mut pass = Pass {
            input: Some((stream, &batch)),
            watermarks: Vec::new(),
            when,
            ends: false,
            number: None,
            late: Vec::new(),
            out,
        };
        let fitting = fit.run(&mut pass).map_err(rule_error)?;
        out.emit(target, numbered(fitting, &seqs));
        Ok(())
    }

    /// The sequence's time at which a tick would make a difference.
    pub(super) fn wakes_at(&self) -> Option<i64> {
        let mut wakes: Option<i64> = None;
        visit(&*self.root, &mut |operator| {
            let by_event_time =
                operator.deadline().and_then(|deadline| self.time.as_ref()?.reaches(deadline));
            for at in [by_event_time, operator.wakes_at()].into_iter().flatten() {
                wakes = Some(wakes.map_or(at, |earliest| earliest.min(at)));
            }
        });
        wakes
    }

    /// See [`crate::Silences::awaited`].
    pub(super) fn silences(&self) -> Vec<(Arc<str>, i64)> {
        let Some(time) = self.time.as_ref().filter(|time| time.wants_listeners()) else { return Vec::new() };
        let mut deadline: Option<i64> = None;
        visit(&*self.root, &mut |operator| {
            deadline =
                operator.deadline().map(|at| deadline.map_or(at, |earliest| earliest.min(at))).or(deadline);
        });
        deadline.map_or_else(Vec::new, |deadline| time.silences(deadline))
    }

    /// See [`crate::Silences::listened`].
    pub(super) fn listened(&mut self, streams: &[(Arc<str>, Listened)], now: i64) -> bool {
        self.time.as_mut().is_some_and(|time| time.listened(streams, now))
    }

    /// The operators, from the inputs to the target.
    pub(super) fn root(&self) -> &dyn Operator {
        &*self.root
    }

    /// See [`crate::Sharing::share`].
    pub(super) fn share(&mut self, rule: &Arc<str>, parts: &mut SharedParts) -> Result<(), RuleError> {
        let time = self.time.as_ref();
        let shared = visit_mut(&mut *self.root, &mut |operator| match operator.shared_mut() {
            Some(shared) => shared.share(rule, time, parts),
            None => Ok(()),
        });
        shared.map_err(rule_error)
    }

    /// See [`crate::Sharing::move_away`].
    pub(super) fn move_away(&mut self, parts: &mut SharedParts) -> Result<(), RuleError> {
        self.number = (When::ALONE, 0);
        let alone = visit_mut(&mut *self.root, &mut |operator| match operator.shared_mut() {
            Some(shared) => shared.move_away(parts),
            None => Ok(()),
        });
        alone.map_err(rule_error)
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

    /// Adds a copy of what it holds to `copies`.
    pub(super) fn snapshot(&mut self, copies: &mut Vec<SealedState>) -> Result<(), RuleError> {
        let mut copy = || {
            if let Some(time) = &self.time {
                copies.extend(time.seal()?);
            }
            visit_mut(&mut *self.root, &mut |operator| {
                let state = match operator.shared() {
                    Some(shared) => shared.state()?,
                    None => {
                        let state = operator.seal()?;
                        operator.restore(&mut state.clone(), &mut Vec::new())?;
                        state
                    }
                };
                copies.extend(state);
                Ok(())
            })
        };
        copy().map_err(rule_error)
    }

    /// Takes the state that fits out of `state`.
    pub(super) fn restore(
        &mut self,
        state: &mut Vec<SealedState>,
        misfits: &mut Vec<String>,
    ) -> Result<(), RuleError> {
        if let Some(time) = &mut self.time {
            time.restore(state);
        }
        visit_mut(&mut *self.root, &mut |operator| operator.restore(state, misfits)).map_err(rule_error)
    }
}

/// The rows for the derived stream `stream` that have an event time. Its readers could do nothing with the
/// others, and would not know what time it is.
fn with_time(rows: Chunk, stream: &str, out: &mut Emissions) -> Result<Chunk> {
    let Some(times) = rows.batch.column_by_name(TS).filter(|times| times.null_count() > 0) else {
        return Ok(rows);
    };
    let (with, without): (Vec<u32>, Vec<u32>) =
        (0_u32..).take(rows.len()).partition(|row| times.is_valid(*row as usize));
    without.iter().for_each(|_| {
        out.bad(format!("`ts` is null, and every row of stream `{stream}` needs its event time"))
    });
    rows.take(with)
}

fn rule_error(error: DataFusionError) -> RuleError {
    RuleError(error.strip_backtrace())
}
