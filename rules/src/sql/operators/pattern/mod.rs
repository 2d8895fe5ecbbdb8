//! `MATCH_RECOGNIZE`: finds rows that look like a pattern.
//!
//! Rows wait until the watermark reaches them, so that each partition is searched in event time; rows of one
//! time are searched in order of arrival. A match is written when it is certain: with the row that completes
//! it, or with the one after which no preferred match is possible any more, or when time has passed.
//!
//! All conditions that look at one row and those just before it are evaluated at once for the rows of a pass;
//! the others where a search asks.

mod attempt;
mod formula;
mod program;
mod rows;
mod search;
mod state;
mod tracks;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;
use tidegate_core::TS;

use super::{Chunk, Held, Operator, Pass, each_evaluable, times};
use crate::rule::{Emissions, SealedState};
use crate::sql::floats::canonical_array;
use crate::sql::operators::at_rest::take_state;
use crate::sql::pattern::Skip;
use crate::sql::pattern::shape::Shape;
use crate::sql::words::failure;
use attempt::Scratch;
use program::Program;
use rows::Rows;
use search::{BAD, Condition, Partition, Row, Search, Work};
use tracks::Tracks;
use view::{Found, Seen};

pub(in crate::sql) use formula::{Formula, MatchAggregate, Slot};

/// Partitions without rows that are worth clearing away.
const CROWD: usize = 1_024;

/// What is looked for and what is written, lowered.
pub(in crate::sql) struct Recognition {
    pub shape: Shape,
    pub names: Vec<String>,
    pub conditions: Vec<Option<Formula>>,
    pub within_ns: Option<i64>,
    pub absent: Option<(usize, i64)>,
    pub skip: Skip,
    pub measures: Vec<Formula>,
    pub all_rows: bool,
    /// columns of the input by which rows are told apart
    pub keys: Vec<usize>,
    /// columns of the input that are written before and behind the measures
    pub before: Vec<usize>,
    pub behind: Vec<usize>,
    pub looks_for: String,
}

/// The operator.
pub(in crate::sql) struct MatchRows {
    input: Box<dyn Operator>,
    fingerprint: String,
    looks_for: String,
    schema: SchemaRef,
    search: Search,
    measures: Vec<Formula>,
    all_rows: bool,
    before: Vec<usize>,
    behind: Vec<usize>,
    key_columns: Vec<usize>,
    /// how much rows may be behind the watermark
    delay_ns: i64,
    /// up to which time everything has ended that time ends
    ended: i64,
    rows: Rows,
    /// time and number of rows that the watermark has not reached
    waiting: BTreeSet<(i64, u64)>,
    keys: Option<Box<dyn GroupValues>>,
    /// by the index of their key
    partitions: Vec<Partition>,
    /// how many partitions there were when the vacant ones were cleared away
    crowd: usize,
    /// partitions by the time at which something ends in them
    wakes: BTreeMap<(i64, u64), usize>,
    /// how many rows the partitions hold, and what the searches take
    kept: usize,
    bytes: usize,
    found: Vec<Found>,
    scratch: Scratch,
    groups: Vec<usize>,
}

impl std::fmt::Debug for MatchRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MatchRows")
            .field("fingerprint", &self.fingerprint)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

/// A row whose turn has come: the row of the pass that it is due to, its time and its number.
type Due = (u32, i64, u64);

impl MatchRows {
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        schema: SchemaRef,
        recognition: Recognition,
    ) -> Result<Self> {
        let Recognition {
            shape,
            names,
            conditions,
            within_ns,
            absent,
            skip,
            measures,
            all_rows,
            keys,
            before,
            behind,
            looks_for,
        } = recognition;
        let conditions: Vec<Condition> = conditions
            .into_iter()
            .enumerate()
            .map(|(variable, condition)| match condition {
                None => Condition::Always,
                Some(formula) if formula.is_local(variable) => Condition::Local(formula),
                Some(formula) => Condition::History(formula),
            })
            .collect();
        let by_history = (0_u32..)
            .zip(&conditions)
            .filter(|(_, condition)| matches!(condition, Condition::History(_)))
            .fold(0, |bits, (variable, _)| bits | 1_u64 << variable);
        let formulas = || {
            conditions.iter().filter_map(|condition| match condition {
                Condition::Always => None,
                Condition::Local(formula) | Condition::History(formula) => Some(formula),
            })
        };
        let tracks = Tracks::from_formulas(conditions.iter().filter_map(|condition| {
            if let Condition::History(formula) = condition { Some(formula) } else { None }
        }));
        let numbered = measures
            .iter()
            .chain(formulas())
            .flat_map(|formula| &formula.slots)
            .any(|slot| matches!(slot, Slot::MatchNumber));
        // A partition without rows is forgotten, and how many matches it had with it.
        let keep = measures
            .iter()
            .chain(formulas())
            .map(Formula::back)
            .max()
            .unwrap_or(0)
            .max(usize::from(numbered));
        let program = Program::compile(&shape);
        let learns = by_history == 0 && program.len() <= 64;
        let search = Search {
            starts: program.starts(),
            program,
            names,
            tracks,
            by_history,
            conditions,
            within_ns,
            absent: absent.map(|(variable, span)| (u8::try_from(variable).unwrap_or(u8::MAX), span)),
            skip,
            keep,
            learns,
        };
        let fields: Vec<Field> =
            input.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let fingerprint = format!("MATCH({} BY {looks_for})", input.origin());
        let mut operator = Self {
            delay_ns: input.delay_ns(),
            ended: i64::MIN,
            input,
            fingerprint,
            looks_for,
            schema,
            search,
            measures,
            all_rows,
            before,
            behind,
            key_columns: keys,
            rows: Rows::new(Arc::new(Schema::new(fields))),
            waiting: BTreeSet::new(),
            keys: None,
            partitions: Vec::new(),
            crowd: 0,
            wakes: BTreeMap::new(),
            kept: 0,
            bytes: 0,
            found: Vec::new(),
            scratch: Scratch::default(),
            groups: Vec::new(),
        };
        operator.forget()?;
        Ok(operator)
    }

    /// Room for keys, if there are any.
    fn no_keys(&self) -> Result<Option<Box<dyn GroupValues>>> {
        if self.key_columns.is_empty() {
            return Ok(None);
        }
        let fields = self.key_columns.iter().map(|column| self.rows.schema().field(*column).clone());
        Ok(Some(new_group_values(Arc::new(Schema::new(fields.collect::<Vec<_>>())), &GroupOrdering::None)?))
    }

    /// As if nothing had come yet.
    fn forget(&mut self) -> Result<()> {
        self.keys = self.no_keys()?;
        self.partitions.clear();
        self.wakes.clear();
        self.waiting.clear();
        (self.crowd, self.kept, self.bytes, self.ended) = (0, 0, 0, i64::MIN);
        self.rows.keep(Vec::new())
    }

    /// The row that moves the watermark so far that no row before `ts` comes any more.
    fn reached(&self, pass: &Pass<'_>, ts: i64) -> Option<u32> {
        pass.reached(ts.saturating_add(self.delay_ns))
    }

    /// What `watermark` says of the rows of the input.
    fn effective(&self, watermark: i64) -> i64 {
        if watermark == i64::MAX { watermark } else { watermark.saturating_sub(self.delay_ns) }
    }

    /// Takes rows in. Returns those whose turn has come, in the order of their turns.
    fn enter(&mut self, rows: &Chunk, pass: &mut Pass<'_>) -> Result<Vec<Due>> {
        let mut due = Vec::with_capacity(rows.len());
        let mut parts = Vec::with_capacity(1);
        each_evaluable(rows, pass.out, &mut |part| {
            times(&part.batch, TS)?;
            parts.push(part.clone());
            Ok(())
        });
        for mut part in parts {
            let (mut kept, mut late) = (Vec::with_capacity(part.len()), Vec::new());
            for (row, ts) in (0_u32..).zip(times(&part.batch, TS)?) {
                let cause = part.cause(row as usize);
                if *ts < self.effective(pass.before(cause)) { late.push(cause) } else { kept.push(row) }
            }
            if !late.is_empty() {
                part = part.take(kept)?;
                late.into_iter().for_each(|cause| pass.too_late(cause, self.input.gives_input_rows()));
            }
            let ids = self.rows.push(&part.batch)?;
            for ((row, ts), id) in times(&part.batch, TS)?.iter().enumerate().zip(ids) {
                let cause = part.cause(row);
                let turn = if *ts <= self.effective(pass.after(cause)) {
                    Some(cause)
                } else {
                    self.reached(pass, *ts)
                };
                match turn {
                    Some(turn) => due.push((turn, *ts, id)),
                    None => {
                        self.waiting.insert((*ts, id));
                    }
                }
            }
        }
        while let Some((ts, id)) = self.waiting.first().copied() {
            let Some(turn) = self.reached(pass, ts) else { break };
            self.waiting.pop_first();
            due.push((turn, ts, id));
        }
        if !due.is_sorted() {
            due.sort_unstable();
        }
        Ok(due)
    }

    /// Puts rows behind the others of their partitions, with what their conditions say. Returns their
    /// partitions and their conditions.
    fn place(&mut self, rows: &[(i64, u64)], out: &mut Emissions) -> Result<(Vec<usize>, Vec<u64>)> {
        if rows.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let ids: Vec<u64> = rows.iter().map(|(_, id)| *id).collect();
        let mut groups = std::mem::take(&mut self.groups);
        match &mut self.keys {
            Some(keys) => {
                let columns = self
                    .key_columns
                    .iter()
                    .map(|column| self.rows.column(&ids, *column).map(canonical_array))
                    .collect::<Result<Vec<_>>>()?;
                keys.intern(&columns, &mut groups)?;
                if keys.len() > self.partitions.len() {
                    self.partitions.resize_with(keys.len(), Partition::default);
                }
            }
            None => {
                groups.clear();
                groups.resize(ids.len(), 0);
                self.partitions.resize_with(1, Partition::default);
            }
        }
        let local = self.search.conditions.iter().filter_map(|condition| {
            if let Condition::Local(formula) = condition { Some(formula) } else { None }
        });
        let back = local.map(Formula::back).max().unwrap_or(0);
        let mut before: Vec<Vec<Option<u64>>> = vec![Vec::with_capacity(ids.len()); back + 1];
        for ((ts, id), group) in rows.iter().zip(&groups) {
            let Some(partition) = self.partitions.get_mut(*group) else { continue };
            partition.rows.push_back(Row { id: *id, ts: *ts, holds: 0, failed: 0 });
            let last = partition.rows.len() - 1;
            for (back, before) in before.iter_mut().enumerate() {
                before.push(last.checked_sub(back).and_then(|row| partition.rows.get(row)).map(|row| row.id));
            }
        }
        self.kept += ids.len();
        let holds = self.judge(&before, ids.len(), out);
        Ok((groups, holds))
    }

    /// Which conditions hold for each of `count` rows; `before[n]` are the rows that are `n` before them.
    fn judge(&self, before: &[Vec<Option<u64>>], count: usize, out: &mut Emissions) -> Vec<u64> {
        let always = self
            .search
            .conditions
            .iter()
            .zip(0_u32..)
            .filter(|(condition, _)| matches!(condition, Condition::Always));
        let mut holds = vec![always.fold(0, |bits, (_, variable)| bits | 1 << variable); count];
        for (condition, variable) in self.search.conditions.iter().zip(0_u32..) {
            let Condition::Local(formula) = condition else { continue };
            let name = self.search.names.get(variable as usize).map_or("", String::as_str);
            let mut bad = Vec::new();
            halves(0..count, &mut bad, &mut |range| {
                let ids = |back: usize| {
                    let ids = before.get(back).and_then(|ids| ids.get(range.clone()));
                    ids.map(<[_]>::to_vec).unwrap_or_default()
                };
                let value = formula.local(&self.rows, range.len(), name, &ids)?;
                let value = value
                    .as_boolean_opt()
                    .ok_or_else(|| DataFusionError::Plan("DEFINE is not a condition".into()))?;
                for (holds, value) in holds.iter_mut().skip(range.start).zip(value) {
                    *holds |= u64::from(value == Some(true)) << variable;
                }
                Ok(())
            });
            for (row, error) in bad {
                if let Some(holds) = holds.get_mut(row).filter(|holds| **holds & BAD == 0) {
                    *holds |= BAD;
                    out.bad(failure(&error));
                }
            }
        }
        holds
    }

    /// Lets `act` work on a partition, and takes note of what that changes.
    fn work(
        &mut self,
        at: usize,
        cause: u32,
        out: &mut Emissions,
        act: impl FnOnce(&Search, &mut Partition, &mut Work<'_>),
    ) {
        let Some(partition) = self.partitions.get_mut(at) else { return };
        let (rows, bytes) = (partition.rows.len(), partition.bytes());
        let mut work = Work::new(&self.rows, out, &mut self.found, &mut self.scratch, cause);
        act(&self.search, partition, &mut work);
        self.kept = (self.kept + partition.rows.len()).saturating_sub(rows);
        self.bytes = (self.bytes + partition.bytes()).saturating_sub(bytes);
        let start = partition.rows.get(partition.start).map(|row| row.id);
        let wake = self.search.deadline(partition).zip(start);
        if wake != partition.wake {
            if let Some(old) = partition.wake {
                self.wakes.remove(&old);
            }
            if let Some(new) = wake {
                self.wakes.insert(new, at);
            }
            partition.wake = wake;
        }
    }

    /// Ends what time has ended: all that is due to rows of the pass before `until`, but to none before
    /// `from`.
    fn sweep(&mut self, pass: &mut Pass<'_>, from: u32, until: u32) {
        while let Some((wake, at)) = self.wakes.first_key_value().map(|(wake, at)| (*wake, *at)) {
            let Some(cause) = self.reached(pass, wake.0).map(|cause| cause.max(from)) else { break };
            if cause >= until {
                break;
            }
            let time = self.effective(pass.after(cause));
            self.work(at, cause, pass.out, |search, partition, work| search.expire(partition, time, work));
            // What has been ended must not come again.
            if self.wakes.get(&wake) == Some(&at) {
                self.wakes.remove(&wake);
            }
        }
    }

    /// Nothing comes any more: what is found is found.
    fn finish(&mut self, pass: &mut Pass<'_>) {
        let cause = u32::try_from(pass.watermarks.len().saturating_sub(2)).unwrap_or(u32::MAX);
        let first = |partition: &Partition| partition.rows.get(partition.start).map(|row| row.id);
        let mut open: Vec<_> = self
            .partitions
            .iter()
            .enumerate()
            .filter_map(|(at, partition)| Some((first(partition)?, at)))
            .collect();
        open.sort_unstable();
        for (_, at) in open {
            self.work(at, cause, pass.out, Search::finish);
        }
    }

    /// What has been found, as rows.
    fn write(&self, found: &[Found], out: &mut Emissions) -> Result<Chunk> {
        let mut seen = Vec::with_capacity(found.len());
        for found in found {
            let last = found.labels.len().saturating_sub(1);
            let rows = if self.all_rows { 0..last + 1 } else { last..last + 1 };
            let is_written =
                |row: &usize| !self.all_rows || found.labels.get(*row).is_some_and(|label| !label.hidden);
            seen.extend(rows.filter(is_written).map(|row| Seen { found, row }));
        }
        let mut written = Vec::with_capacity(1);
        let mut bad = Vec::new();
        halves(0..seen.len(), &mut bad, &mut |range| {
            let seen = seen.get(range).unwrap_or_default();
            written.push(Chunk {
                batch: self.write_some(seen)?,
                causes: Some(seen.iter().map(|seen| seen.found.cause).collect()),
            });
            Ok(())
        });
        bad.into_iter().for_each(|(_, error)| out.bad(failure(&error)));
        Chunk::concat(&self.schema, written)
    }

    fn write_some(&self, seen: &[Seen<'_>]) -> Result<RecordBatch> {
        let own: Vec<u64> = seen
            .iter()
            .filter_map(|seen| seen.found.ids.get(seen.found.before + seen.row).copied())
            .collect();
        let views: Vec<&dyn formula::View> = seen.iter().map(|seen| seen as &dyn formula::View).collect();
        let mut columns =
            self.before.iter().map(|column| self.rows.column(&own, *column)).collect::<Result<Vec<_>>>()?;
        for measure in &self.measures {
            columns.push(measure.values(&self.rows, &views, &self.search.names)?);
        }
        for column in &self.behind {
            columns.push(self.rows.column(&own, *column)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Operator for MatchRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        let due = self.enter(&rows, pass)?;
        let mut last = 0;
        if !due.is_empty() {
            let rows: Vec<(i64, u64)> = due.iter().map(|(_, ts, id)| (*ts, *id)).collect();
            let (groups, holds) = self.place(&rows, pass.out)?;
            for (((cause, ..), at), holds) in due.iter().zip(&groups).zip(holds) {
                self.sweep(pass, last, *cause);
                last = *cause;
                self.work(*at, *cause, pass.out, |search, partition, work| {
                    partition.judge(holds);
                    search.come(partition, work);
                });
            }
            self.groups = groups;
        }
        self.sweep(pass, last, u32::MAX);
        self.ended = pass.watermarks.last().map_or(self.ended, |watermark| self.effective(*watermark));
        if pass.ends {
            self.finish(pass);
        }
        let found = std::mem::take(&mut self.found);
        let written =
            if found.is_empty() { Chunk::empty(&self.schema) } else { self.write(&found, pass.out)? };
        if pass.ends {
            self.forget()?
        } else {
            self.tidy()?
        }
        Ok(written)
    }

    fn explain(&self) -> String {
        format!("match rows {}", self.looks_for)
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        true
    }

    fn shed(&mut self) -> Result<usize> {
        self.forget_oldest()
    }

    /// Between the first row of a match and its end lies no more than this, where WITHIN says so.
    fn delay_ns(&self) -> i64 {
        let absent = self.search.absent.map_or(0, |(_, span)| span);
        self.delay_ns.saturating_add(self.search.within_ns.unwrap_or(0)).saturating_add(absent)
    }

    fn deadline(&self) -> Option<i64> {
        let waits = self.waiting.first().map(|(ts, _)| *ts);
        let wakes = self.wakes.first_key_value().map(|((deadline, _), _)| *deadline);
        waits.into_iter().chain(wakes).min().map(|deadline| deadline.saturating_add(self.delay_ns))
    }

    fn held(&self) -> Held {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        let lists = self.partitions.capacity() * size_of::<Partition>()
            + (self.waiting.len() + self.wakes.len()) * 32;
        Held { entries: self.kept + self.waiting.len(), bytes: self.rows.bytes() + self.bytes + keys + lists }
    }

    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let watermark = self.ended;
        let batch = self.give_away()?;
        Ok(vec![SealedState { fingerprint: self.fingerprint.clone(), watermark, batch }])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let Some(SealedState { watermark, batch, .. }) = take_state(state, &self.fingerprint) else {
            return Ok(());
        };
        self.ended = watermark;
        match batch {
            Some(batch) => self.take_over(&batch, misfits),
            None => Ok(()),
        }
    }
}

/// Calls `evaluate` with all of `range`; where that fails, with halves of it. What fails alone is added to
/// `bad`.
fn halves(
    range: Range<usize>,
    bad: &mut Vec<(usize, DataFusionError)>,
    evaluate: &mut dyn FnMut(Range<usize>) -> Result<()>,
) {
    if range.is_empty() {
        return;
    }
    match evaluate(range.clone()) {
        Ok(()) => {}
        Err(error) if range.len() == 1 => bad.push((range.start, error)),
        Err(_) => {
            let middle = range.start + range.len() / 2;
            halves(range.start..middle, bad, evaluate);
            halves(middle..range.end, bad, evaluate);
        }
    }
}
