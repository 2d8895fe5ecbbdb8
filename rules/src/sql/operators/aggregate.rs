//! Aggregates over windows that go by the clock, kept as panes.
//!
//! A window closes when the watermark reaches its end, and a row is late when all windows that it is in have
//! closed. All of it is computed for a whole batch at once, and yet gives the same rows as a batch a row
//! would: a window takes all rows of the batch that come before the row that closes it, in their order.
//!
//! Windows that share rows are put together from panes. What has been added up for two neighbouring panes,
//! for four, eight and so on, is kept until the first of them is of no use any more, so that a window of a
//! thousand panes takes some ten of these [`WindowAggregate::block`]s instead. Which ones depends on the
//! window alone, never on what happened before: sums of floating point numbers come out the same to the last
//! bit.
//!
//! All panes share one table of keys, which gives each row's key a number; a pane knows keys by their
//! numbers. Keys that no pane has any more are forgotten when they are many.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray};
use arrow::compute::{concat_batches, partition};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};
use tidegate_core::ts_type;

use super::accumulate::{Addends, Adder};
use super::groups::{Bound, GroupColumn, Groups, window_columns};
use super::keys::Keys;
use super::sums::{Sums, SumsAtRest};
use super::{AggregateCall, Chunk, Held, LateCopies, Operator, Pass, an_eighth, each_evaluable};
use crate::rule::SealedState;
use crate::sql::operators::at_rest::{columns_of, take_state};
use crate::sql::table_functions::WINDOW_END;
use crate::sql::windows::TimeWindows;

/// The operator.
pub(in crate::sql) struct WindowAggregate {
    input: Box<dyn Operator>,
    fingerprint: String,
    windows: TimeWindows,
    /// length of a pane; `None`: rows come once for each of their windows, and what is added up for one
    /// serves no other
    pane_ns: Option<i64>,
    bound: Bound,
    /// how much its rows may be behind the watermark
    delay_ns: i64,
    columns: Vec<GroupColumn>,
    adder: Adder,
    keys: Keys,
    /// the numbers of the keys of the window that has closed last: the next ones are likely to have the same
    recent: Vec<u32>,
    /// of the rows of a closed window: group columns, then aggregates
    schema: SchemaRef,
    /// panes, or windows, by their end
    open: BTreeMap<i64, Pane>,
    /// what `2^level` panes add up to, by level and the number of the first divided by `2^level`
    blocks: BTreeMap<(u32, i64), SumsAtRest>,
    /// windows that end here or before have closed
    closed_to: i64,
    /// the watermark that it takes to have been reached at least: windows that it would close have been given
    /// up
    forgotten_to: i64,
    /// group index of each row of the rows at hand; kept to allocate once
    groups: Vec<usize>,
}

enum Pane {
    Live(Sums),
    /// some window that holds it has closed
    Rest(SumsAtRest),
}

impl Pane {
    fn held(&self) -> Held {
        match self {
            Self::Live(sums) => Held { entries: sums.len(), bytes: sums.bytes() },
            Self::Rest(rest) => Held { entries: rest.rows, bytes: rest.bytes },
        }
    }

    fn keys(&self) -> &[u32] {
        match self {
            Self::Live(sums) => sums.keys(),
            Self::Rest(rest) => &rest.keys,
        }
    }

    fn renumber(&mut self, new: &[u32]) {
        match self {
            Self::Live(sums) => sums.renumber(new),
            Self::Rest(rest) => rest.renumber(new),
        }
    }
}

impl std::fmt::Debug for WindowAggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WindowAggregate")
            .field("fingerprint", &self.fingerprint)
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

/// How many keys are kept at least before any is forgotten.
const FEW: usize = 64;

/// Rows whose expressions have been evaluated, with where they belong.
struct Prepared {
    /// for each row, the row of the pass that it is due to
    causes: Vec<u32>,
    ends: Vec<i64>,
    addends: Addends,
}

impl WindowAggregate {
    /// `groups` are what GROUP BY names; `fingerprint` says what is kept. `by_panes`: the rows of `input`
    /// tell their pane, not their window.
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        fingerprint: String,
        (windows, by_panes): (TimeWindows, bool),
        groups: Groups,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let Groups { columns, bound, keys } = groups;
        let adder = Adder::new(keys, calls);
        Ok(Self {
            keys: Keys::new(Arc::clone(adder.key_schema()))?,
            recent: Vec::new(),
            delay_ns: input.end_delay_ns(),
            input,
            fingerprint,
            windows,
            pane_ns: by_panes.then(|| windows.panes().size_ns()),
            bound,
            columns,
            adder,
            schema,
            open: BTreeMap::new(),
            blocks: BTreeMap::new(),
            closed_to: i64::MIN,
            forgotten_to: i64::MIN,
            groups: Vec::new(),
        })
    }

    /// The first and the last end of a window that holds the pane that ends at `end`; the last is before the
    /// first if none does.
    fn ends_over(&self, end: i64) -> (i64, i64) {
        match self.pane_ns {
            Some(_) => (self.windows.end_from(end), self.windows.last_end(end.saturating_sub(1))),
            None => (end, end),
        }
    }

    /// The watermark at which the window that ends at `end` closes.
    fn closes_at(&self, end: i64) -> i64 {
        end.saturating_add(self.delay_ns)
    }

    /// The end up to which windows have closed at this watermark.
    fn closed_at(&self, watermark: i64) -> i64 {
        if watermark == i64::MIN { watermark } else { watermark.saturating_sub(self.delay_ns) }
    }

    /// The watermark before the row with this index has come.
    fn before(&self, pass: &Pass<'_>, cause: u32) -> i64 {
        pass.before(cause).max(self.forgotten_to)
    }

    fn prepare(&self, chunk: &Chunk) -> Result<Prepared> {
        let windows = if self.pane_ns.is_some() { self.windows.panes() } else { self.windows };
        let ends = self.bound.ends(&chunk.batch, &windows)?;
        Ok(Prepared { causes: chunk.causes(), ends, addends: self.adder.prepare(&chunk.batch)? })
    }

    /// Adds rows to their panes. Where a row comes too late for some of its windows, but not for all, those
    /// close before it is added.
    fn absorb(
        &mut self,
        rows: &Prepared,
        pass: &Pass<'_>,
        late: &mut LateCopies,
        closed: &mut Vec<Chunk>,
    ) -> Result<()> {
        let (Some(first_end), Some(last_cause)) = (rows.ends.first().copied(), rows.causes.last()) else {
            return Ok(());
        };
        let (mut of, (mut first, mut last)) = (first_end, self.ends_over(first_end));
        if first <= last
            && self.before(pass, *last_cause) < self.closes_at(first)
            && rows.ends.iter().all(|end| *end == first_end)
        {
            rows.causes.first().into_iter().for_each(|cause| late.note(*cause, false));
            return self.add(first_end, &rows.addends);
        }
        let mut by_end: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, (end, cause)) in (0_u32..).zip(rows.ends.iter().zip(&rows.causes)) {
            if *end != of {
                (of, (first, last)) = (*end, self.ends_over(*end));
            }
            let before = self.before(pass, *cause);
            let is_late = first <= last && before >= self.closes_at(last);
            late.note(*cause, is_late);
            if is_late || first > last {
                // Or it is between two windows.
            } else if before >= self.closes_at(first) {
                self.add_all(std::mem::take(&mut by_end), &rows.addends)?;
                self.close(pass, before, closed)?;
                self.closed_to = self.closed_to.max(self.closed_at(before));
                self.add_all([(*end, vec![row])].into(), &rows.addends)?;
            } else {
                by_end.entry(*end).or_default().push(row);
            }
        }
        self.add_all(by_end, &rows.addends)
    }

    /// Adds the rows of `addends` with these indices to the panes that end at the keys of `by_end`.
    fn add_all(&mut self, by_end: BTreeMap<i64, Vec<u32>>, addends: &Addends) -> Result<()> {
        by_end.into_iter().try_for_each(|(end, rows)| self.add(end, &addends.take(rows)?))
    }

    /// Adds all of `addends` to the pane that ends at `end`.
    fn add(&mut self, end: i64, addends: &Addends) -> Result<()> {
        if let Some(pane_ns) = self.pane_ns.filter(|_| end <= self.closed_to) {
            let (_, number) = self.windows.panes_between(end, end, pane_ns);
            self.blocks.retain(|(level, index), _| number >> level != *index);
        }
        let mut sums = match self.open.remove(&end) {
            Some(Pane::Live(sums)) => sums,
            Some(Pane::Rest(rest)) => self.adder.merge([&rest])?,
            None => self.adder.empty()?,
        };
        sums.add(addends, &mut self.groups)?;
        self.open.insert(end, Pane::Live(sums));
        Ok(())
    }

    /// The end of the window that closes next, of those with rows.
    fn next_end(&self) -> Option<i64> {
        let from = self.windows.end_from(self.closed_to.saturating_add(1));
        self.open.keys().find_map(|end| {
            let (first, last) = self.ends_over(*end);
            let next = if self.pane_ns.is_some() && self.closed_to >= first { from } else { first };
            (next <= last).then_some(next)
        })
    }

    /// Closes the windows that the watermark `until` closes, or those that close in this pass.
    fn close(&mut self, pass: &Pass<'_>, until: i64, closed: &mut Vec<Chunk>) -> Result<()> {
        while let Some(end) = self.next_end() {
            let due = self.closes_at(end);
            let Some(row) = pass.reached(due).filter(|_| due <= until) else { break };
            let start = self.windows.start_of(end);
            if let Some(sums) = self.sums_of(start, end)? {
                let (keys, values) = sums.finish()?;
                let rows = keys.len();
                let columns =
                    window_columns(&self.columns, start, end, &self.keys.columns(&keys)?, values, rows)?;
                self.recent = keys;
                closed.push(Chunk {
                    batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?,
                    causes: Some(vec![row; rows]),
                });
            }
            self.closed_to = self.closed_to.max(end);
            self.forget();
        }
        Ok(())
    }

    /// What the window `[start, end)` adds up to. `None`: it has no rows.
    fn sums_of(&mut self, start: i64, end: i64) -> Result<Option<Sums>> {
        let Some(pane_ns) = self.pane_ns else {
            return match self.open.remove(&end) {
                Some(Pane::Live(sums)) => Ok(Some(sums)),
                Some(Pane::Rest(rest)) => self.adder.merge([&rest]).map(Some),
                None => Ok(None),
            };
        };
        let (mut number, last) = self.windows.panes_between(start, end, pane_ns);
        let mut blocks = Vec::new();
        while number <= last {
            let left = last.abs_diff(number).saturating_add(1);
            let level = number.trailing_zeros().min(left.ilog2()).min(62);
            blocks.extend(self.block(level, number >> level, pane_ns)?);
            let Some(next) = number.checked_add(1 << level) else { break };
            number = next;
        }
        if blocks.is_empty() { Ok(None) } else { self.adder.merge(&blocks).map(Some) }
    }

    /// What the `2^level` panes from number `index * 2^level` on add up to. `None`: they have no rows.
    fn block(&mut self, level: u32, index: i64, pane_ns: i64) -> Result<Option<SumsAtRest>> {
        if let Some(block) = self.blocks.get(&(level, index)) {
            return Ok(Some(block.clone()));
        }
        let first = index << level;
        let (start, end) = self.windows.span_of_panes(first, first.saturating_add((1 << level) - 1), pane_ns);
        let Some(found) = self.open.range((Excluded(start), Included(end))).next().map(|(end, _)| *end)
        else {
            return Ok(None);
        };
        if level == 0 {
            let rest = match self.open.remove(&found) {
                Some(Pane::Live(sums)) => sums.rest()?,
                Some(Pane::Rest(rest)) => rest,
                None => return Ok(None),
            };
            self.open.insert(found, Pane::Rest(rest.clone()));
            return Ok(Some(rest));
        }
        let halves =
            (self.block(level - 1, index << 1, pane_ns)?, self.block(level - 1, (index << 1) | 1, pane_ns)?);
        let block = match halves {
            (Some(left), Some(right)) => Some(self.adder.merge([&left, &right])?.rest()?),
            (left, right) => left.or(right),
        };
        if let Some(block) = &block {
            self.blocks.insert((level, index), block.clone());
        }
        Ok(block)
    }

    /// Forgets the panes whose last window has closed.
    fn forget(&mut self) {
        while let Some(end) =
            self.open.keys().next().copied().filter(|end| self.ends_over(*end).1 <= self.closed_to)
        {
            self.open.remove(&end);
        }
        // Blocks are few, unless a long window has just passed.
        if let Some(pane_ns) = self.pane_ns.filter(|_| self.blocks.len() > 2 * self.open.len() + 8) {
            let first = self
                .open
                .keys()
                .next()
                .map_or(i64::MAX, |end| self.windows.panes_between(*end, *end, pane_ns).1);
            self.blocks.retain(|(level, index), _| *index >= first >> level);
        }
    }

    /// Forgets the keys that no pane has any more, when there are many next to what the panes hold.
    fn forget_keys(&mut self) -> Result<()> {
        let groups = self.open.values().map(|pane| pane.keys().len()).sum::<usize>() + self.recent.len();
        if self.keys.len() <= FEW.max(groups * 2) { Ok(()) } else { self.keep_used_keys() }
    }

    fn keep_used_keys(&mut self) -> Result<()> {
        let new =
            self.keys.keep_only(self.open.values().flat_map(Pane::keys).chain(&self.recent).copied())?;
        // They can be put together again.
        self.blocks.clear();
        self.open.values_mut().for_each(|pane| pane.renumber(&new));
        self.recent = self.recent.iter().filter_map(|number| new.get(*number as usize).copied()).collect();
        Ok(())
    }

    fn state_schema(&self) -> Result<SchemaRef> {
        let mut fields = vec![Field::new(WINDOW_END, ts_type(), false)];
        fields.extend(self.adder.rest_fields()?);
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Takes over sealed state with the same fingerprint. An aggregate that was not computed before starts
    /// empty in the open windows, which is added to `misfits`.
    fn take_over(&mut self, batch: &RecordBatch, misfits: &mut Vec<String>) -> Result<()> {
        let states: Vec<Option<Vec<ArrayRef>>> =
            self.adder.calls().iter().map(|call| call.find_state(batch)).collect::<Result<_>>()?;
        for (call, _) in self.adder.calls().iter().zip(&states).filter(|(_, state)| state.is_none()) {
            misfits.push(format!(
                "`{}` is new and starts empty in the windows that are open now",
                call.fingerprint()
            ));
        }
        let Some(keys) = columns_of(batch.columns().iter().skip(1), self.keys.schema().fields()) else {
            misfits.push(format!("`{}` has keys of other types now and starts empty", self.fingerprint));
            return Ok(());
        };
        let mut numbers = Vec::new();
        self.keys.number(&keys, batch.num_rows(), &mut numbers)?;
        let ends = batch.columns().first().filter(|ends| *ends.data_type() == ts_type()).cloned();
        let ends = ends.ok_or_else(|| DataFusionError::Internal("sealed state without windows".into()))?;
        let end_values = ends.as_primitive::<TimestampNanosecondType>().clone();
        for range in partition(&[ends])?.ranges() {
            let slice = |columns: &Vec<ArrayRef>| {
                columns.iter().map(|column| column.slice(range.start, range.len())).collect::<Vec<_>>()
            };
            let states: Vec<_> = states.iter().map(|state| state.as_ref().map(&slice)).collect();
            let sums = self.adder.restore(numbers.get(range.clone()).unwrap_or_default(), &states)?;
            self.open.insert(end_values.value(range.start), Pane::Live(sums));
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
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
        let mut closed = Vec::new();
        self.closed_to = self.closed_at(self.before(pass, 0));
        if !rows.is_empty() {
            let mut prepared = Vec::with_capacity(1);
            each_evaluable(&rows, pass.out, &mut |rows| {
                prepared.push(self.prepare(rows)?);
                Ok(())
            });
            let mut late = LateCopies::new(self.input.gives_input_rows());
            for mut part in prepared {
                part.addends.number(&mut self.keys)?;
                self.absorb(&part, pass, &mut late, &mut closed)?;
            }
            late.tell(pass);
        }
        self.close(pass, i64::MAX, &mut closed)?;
        self.closed_to =
            self.closed_to.max(self.closed_at(pass.watermarks.last().copied().unwrap_or(i64::MIN)));
        self.forget();
        if pass.ends {
            // Where time begins anew, the same panes may come again with other rows.
            self.blocks.clear();
            self.forgotten_to = i64::MIN;
        }
        self.forget_keys()?;
        Chunk::concat(&self.schema, closed)
    }

    fn explain(&self) -> String {
        format!("aggregate {}: {}", self.fingerprint, self.adder.explain())
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        true
    }

    fn delay_ns(&self) -> i64 {
        self.delay_ns.saturating_add(self.windows.size_ns())
    }

    fn end_delay_ns(&self) -> i64 {
        self.delay_ns
    }

    fn deadline(&self) -> Option<i64> {
        self.next_end().map(|end| self.closes_at(end))
    }

    fn held(&self) -> Held {
        let mut held = Held::default();
        for Held { entries, bytes } in self.open.values().map(Pane::held) {
            held = Held { entries: held.entries + entries, bytes: held.bytes + bytes };
        }
        held.bytes += self.blocks.values().map(|block| block.bytes).sum::<usize>();
        held.bytes += self.keys.bytes() + 4 * self.recent.capacity();
        held
    }

    fn shed(&mut self) -> Result<usize> {
        // What can be put together again goes before anything that cannot.
        self.blocks.clear();
        let enough = an_eighth(self.held().entries);
        let mut forgotten = 0;
        while forgotten < enough
            && let Some(end) = self.next_end()
        {
            self.forgotten_to = self.closes_at(end);
            self.closed_to = self.closed_to.max(end);
            let gone = self.open.iter().take_while(|(end, _)| self.ends_over(**end).1 <= self.closed_to);
            forgotten += gone.map(|(_, pane)| pane.held().entries).sum::<usize>();
            self.forget();
        }
        self.recent = Vec::new();
        self.keep_used_keys()?;
        Ok(forgotten)
    }

    /// For each open pane and group its keys and the state of each aggregate.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let schema = self.state_schema()?;
        let mut batches = Vec::with_capacity(self.open.len());
        self.blocks.clear();
        self.recent.clear();
        for (end, pane) in std::mem::take(&mut self.open) {
            let rest = match pane {
                Pane::Live(sums) => sums.rest()?,
                Pane::Rest(rest) => rest,
            };
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(TimestampNanosecondArray::from(vec![end; rest.rows]).with_timezone("UTC"))];
            columns.extend(self.keys.columns(&rest.keys)?);
            columns.extend(rest.states.into_iter().flatten());
            batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
        }
        self.keys.clear()?;
        let batch = if batches.is_empty() { None } else { Some(concat_batches(&schema, &batches)?) };
        Ok(vec![SealedState { fingerprint: self.fingerprint.clone(), watermark: self.forgotten_to, batch }])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        let Some(sealed) = take_state(state, &self.fingerprint) else { return Ok(()) };
        self.forgotten_to = self.forgotten_to.max(sealed.watermark);
        match sealed.batch {
            Some(batch) => self.take_over(&batch, misfits),
            None => Ok(()),
        }
    }
}
