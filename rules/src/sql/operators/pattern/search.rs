//! The search for matches in the rows of one partition.
//!
//! A search tries one first row after the other. For each, the pattern's program is run on the rows as they
//! come, along all branches at once, in the order in which the standard prefers them. When a branch completes
//! the pattern, all that are less preferred end; when no more preferred one is left, it is the match. No row
//! is looked at twice on the same branch, so a search never goes back and forth as a backtracking one would.

use std::collections::VecDeque;

use super::attempt::{Attempt, Branch, Label, Node, ROOT, Scratch};
use super::formula::Formula;
use super::program::{Program, Step};
use super::rows::Rows;
use super::tracks::Tracks;
use super::view::{Found, Trying};
use crate::rule::Emissions;
use crate::sql::pattern::Skip;
use crate::sql::words::failure;

/// A match has no more rows than this, so that one that never ends does not take all memory.
const MAX_ROWS: usize = 10_000;

/// Branches through the pattern that can still take rows: beyond that, those that are preferred least end.
const MAX_BRANCHES: usize = 256;

/// What conditions that look at other rows may cost for one new row, in evaluations: beyond that, which takes
/// some tenths of a second, what has been searched is left behind.
const MAX_COST: usize = 200_000;

/// The flag of a row, beside the bits of variables: a condition could not be evaluated for it.
pub(super) const BAD: u64 = 1 << 63;

/// When a row may be taken for a variable.
#[derive(Debug)]
pub(super) enum Condition {
    Always,
    /// it depends on that row and those just before it, and is evaluated when it comes
    Local(Formula),
    /// it depends on the other rows of the match
    History(Formula),
}

/// What is looked for.
#[derive(Debug)]
pub(super) struct Search {
    pub program: Program,
    pub names: Vec<String>,
    /// by variable
    pub conditions: Vec<Condition>,
    pub tracks: Tracks,
    /// variables, as bits, whose condition is [`Condition::History`]
    pub by_history: u64,
    /// variables, as bits, that the first row can have
    pub starts: u64,
    pub within_ns: Option<i64>,
    /// the variable of the row that must not come, and for how long
    pub absent: Option<(u8, i64)>,
    pub skip: Skip,
    /// how many rows before a match must be kept
    pub keep: usize,
    /// whether a branch that failed from a step and a row on fails for every attempt
    pub learns: bool,
}

/// A row of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub id: u64,
    pub ts: i64,
    /// a bit for each variable whose condition holds; without those that depend on other rows
    pub holds: u64,
    /// a bit for each step that was at this row and led to no match, whatever was before it
    pub failed: u64,
}

/// The rows of one key, and how far the search in them is.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub rows: VecDeque<Row>,
    /// how many of them have come; the rest waits for its turn in this pass
    seen: usize,
    /// the row that is tried as the first of a match
    pub start: usize,
    /// the next row that the attempt looks at
    next: usize,
    pub attempt: Attempt,
    /// how many matches there have been
    pub number: u64,
    /// where its attempt stands in the list of deadlines
    pub wake: Option<(i64, u64)>,
}

/// What a search works with, and what it finds.
pub(super) struct Work<'a> {
    pub rows: &'a Rows,
    pub out: &'a mut Emissions,
    pub found: &'a mut Vec<Found>,
    pub scratch: &'a mut Scratch,
    pub cause: u32,
    /// what may still be spent, in evaluations
    pub budget: usize,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        rows: &'a Rows,
        out: &'a mut Emissions,
        found: &'a mut Vec<Found>,
        scratch: &'a mut Scratch,
        cause: u32,
    ) -> Self {
        Self { rows, out, found, scratch, cause, budget: MAX_COST }
    }
}

impl Partition {
    /// Whether it holds nothing that would be missed.
    pub(super) fn is_vacant(&self) -> bool {
        self.rows.is_empty()
    }

    /// Gives its rows up, and what has begun with them.
    pub(super) fn forget(&mut self) {
        *self = Self { number: self.number, wake: self.wake, ..Self::default() };
    }

    /// The rows whose turn has come.
    pub(super) fn came(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().take(self.seen)
    }

    /// About how much memory it takes, without its rows.
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.attempt.branches.capacity() * size_of::<Branch>()
            + self.attempt.marks.capacity() * 4
            + self.attempt.nodes.capacity() * size_of::<Node>()
    }

    /// Its next row gets what its conditions have said.
    pub(super) fn judge(&mut self, holds: u64) {
        if let Some(row) = self.rows.get_mut(self.seen) {
            row.holds = holds;
        }
    }

    /// The same for a row that came before the state was sealed.
    pub(super) fn judge_next(&mut self, holds: u64) {
        self.judge(holds);
        self.seen += 1;
    }

    /// The first `before` rows are before the search, the others have come.
    pub(super) fn resume(&mut self, before: usize) {
        self.start = before;
    }

    fn ts(&self, row: usize) -> i64 {
        self.rows.get(row).map_or(i64::MAX, |row| row.ts)
    }
}

impl Search {
    /// The next row of the partition has come.
    pub(super) fn come(&self, partition: &mut Partition, work: &mut Work<'_>) {
        self.expire(partition, partition.ts(partition.seen), work);
        partition.seen += 1;
        self.go_on(partition, work);
    }

    /// It is `time`, and no row before that comes any more.
    pub(super) fn expire(&self, partition: &mut Partition, time: i64, work: &mut Work<'_>) {
        while partition.attempt.active {
            self.end_branches(partition, time);
            if !partition.attempt.branches.is_empty() {
                break;
            }
            self.decide(partition, work);
            self.go_on(partition, work);
        }
    }

    /// No row comes any more.
    pub(super) fn finish(&self, partition: &mut Partition, work: &mut Work<'_>) {
        while partition.attempt.active {
            let attempt = &mut partition.attempt;
            if let Some(branch) =
                attempt.branches.iter().find(|branch| self.program.step(branch.step) == Step::Done)
            {
                attempt.found = Some(branch.node);
            }
            attempt.branches.clear();
            self.decide(partition, work);
            self.go_on(partition, work);
        }
    }

    /// When the attempt will end by itself, or some of its branches.
    pub(super) fn deadline(&self, partition: &Partition) -> Option<i64> {
        let attempt = &partition.attempt;
        if !attempt.active {
            return None;
        }
        let waits = |branch: &Branch| self.program.step(branch.step) == Step::Done;
        let running = self.within_ns.filter(|_| attempt.branches.iter().any(|branch| !waits(branch)));
        let within = running.map(|within| partition.ts(partition.start).saturating_add(within));
        let absent = self.absent.and_then(|(_, span)| {
            attempt
                .branches
                .iter()
                .filter(|branch| waits(branch))
                .map(|branch| self.last_ts(partition, branch.node).saturating_add(span))
                .min()
        });
        within.into_iter().chain(absent).min()
    }

    fn last_ts(&self, partition: &Partition, node: u32) -> i64 {
        let row = partition.attempt.nodes.get(node as usize).map_or(0, |node| node.row as usize);
        partition.ts(partition.start + row)
    }

    /// Ends the branches that have no time left.
    fn end_branches(&self, partition: &mut Partition, time: i64) {
        if self.within_ns.is_none() && self.absent.is_none() {
            return;
        }
        let first = partition.ts(partition.start);
        let is_over = self.within_ns.is_some_and(|within| time.saturating_sub(first) >= within);
        let width = self.tracks.width();
        let mut kept = 0;
        for at in 0..partition.attempt.branches.len() {
            let Some(branch) = partition.attempt.branches.get(at).copied() else { break };
            if self.program.step(branch.step) == Step::Done {
                let span = self.absent.map_or(0, |(_, span)| span);
                if time.saturating_sub(self.last_ts(partition, branch.node)) >= span {
                    partition.attempt.found = Some(branch.node);
                    break;
                }
            } else if is_over {
                partition.attempt.timed_out = true;
                continue;
            }
            if let Some(place) = partition.attempt.branches.get_mut(kept) {
                *place = branch;
            }
            partition.attempt.marks.copy_within(at * width..(at + 1) * width, kept * width);
            kept += 1;
        }
        partition.attempt.branches.truncate(kept);
        partition.attempt.marks.truncate(kept * width);
    }

    /// Looks at the rows that have come, as far as they tell.
    pub(super) fn go_on(&self, partition: &mut Partition, work: &mut Work<'_>) {
        loop {
            if !partition.attempt.active && !self.begin(partition, work) {
                break;
            }
            while partition.next < partition.seen && !partition.attempt.branches.is_empty() {
                self.end_branches(partition, partition.ts(partition.next));
                self.end_long(partition, work);
                self.end_dear(partition, work);
                self.step(partition, work);
                partition.next += 1;
            }
            if !partition.attempt.branches.is_empty() {
                break;
            }
            self.decide(partition, work);
        }
        self.trim(partition);
    }

    /// Begins an attempt at the next row that can be the first of a match.
    fn begin(&self, partition: &mut Partition, work: &mut Work<'_>) -> bool {
        let can_start = |row: &Row| self.starts & (row.holds | self.by_history) != 0;
        while partition.start < partition.seen && !partition.rows.get(partition.start).is_some_and(can_start)
        {
            partition.start += 1;
        }
        if partition.start >= partition.seen {
            return false;
        }
        let attempt = &mut partition.attempt;
        attempt.active = true;
        attempt.found = None;
        attempt.nodes.clear();
        attempt.clutter = 256;
        (attempt.timed_out, attempt.fruitless) = (false, 1);
        work.scratch.clear();
        self.tracks.clear(&mut work.scratch.mark);
        self.spread(0, ROOT, work.scratch);
        attempt.keep(work.scratch);
        partition.next = partition.start;
        true
    }

    /// All branches take the next row, or end.
    fn step(&self, partition: &mut Partition, work: &mut Work<'_>) {
        let Some(row) = partition.rows.get(partition.next).copied() else { return };
        let current = u32::try_from(partition.next - partition.start).unwrap_or(u32::MAX);
        let width = self.tracks.width();
        work.scratch.clear();
        for at in 0..partition.attempt.branches.len() {
            let Some(branch) = partition.attempt.branches.get(at).copied() else { break };
            match self.program.step(branch.step) {
                Step::Row { variable, hidden } => {
                    if self.has_failed(partition, branch.step)
                        || !self.holds(variable, partition, at, branch, row, work)
                    {
                        continue;
                    }
                    let attempt = &mut partition.attempt;
                    let node = u32::try_from(attempt.nodes.len()).unwrap_or(ROOT);
                    attempt.nodes.push(Node {
                        parent: branch.node,
                        row: current,
                        label: Label { variable, hidden },
                    });
                    work.scratch.mark.clear();
                    work.scratch.mark.extend_from_slice(
                        attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default(),
                    );
                    self.tracks.take(&mut work.scratch.mark, variable, current);
                    if self.spread(branch.step + 1, node, work.scratch) {
                        attempt.found = Some(node);
                        break;
                    }
                }
                // It waits for the row that must not come.
                _ => {
                    let comes = self
                        .absent
                        .is_some_and(|(variable, _)| self.holds(variable, partition, at, branch, row, work));
                    if !comes {
                        work.scratch.branches.push(branch);
                        let marks =
                            partition.attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default();
                        work.scratch.marks.extend_from_slice(marks);
                    }
                }
            }
        }
        partition.attempt.keep(work.scratch);
        let is_running = |branch: &Branch| self.program.step(branch.step) != Step::Done;
        let running = partition.attempt.branches.iter().filter(|branch| is_running(branch)).count();
        if running > MAX_BRANCHES || partition.attempt.branches.len() - running > MAX_ROWS {
            work.out.bad(format!(
                "there are more than {MAX_BRANCHES} ways to match the pattern at once: those \
                preferred least are left out"
            ));
            let (mut running, mut waiting) = (0, 0);
            self.retain(&mut partition.attempt, work.scratch, |branch| {
                let (count, most) =
                    if is_running(branch) { (&mut running, MAX_BRANCHES) } else { (&mut waiting, MAX_ROWS) };
                *count += 1;
                *count <= most
            });
        }
        partition.attempt.tidy();
    }

    /// Whether no match comes of `step` at the next row, as an attempt has found out before. From now on it
    /// is so, unless this attempt finds one.
    fn has_failed(&self, partition: &mut Partition, step: usize) -> bool {
        let next = partition.next;
        let Some(row) = partition.rows.get_mut(next).filter(|_| self.learns) else { return false };
        let failed = row.failed >> step & 1 == 1;
        row.failed |= 1 << step;
        failed
    }

    /// Goes on only with the branches that `is_kept`.
    fn retain(&self, attempt: &mut Attempt, scratch: &mut Scratch, mut is_kept: impl FnMut(&Branch) -> bool) {
        let width = self.tracks.width();
        scratch.clear();
        for (at, branch) in attempt.branches.iter().enumerate() {
            if is_kept(branch) {
                scratch.branches.push(*branch);
                scratch
                    .marks
                    .extend_from_slice(attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default());
            }
        }
        attempt.keep(scratch);
    }

    /// Adds the branches that go on from `step`, up to where a row is needed, preferred first. Returns
    /// whether one of them completes the pattern: then those after it are left out.
    fn spread(&self, step: usize, node: u32, scratch: &mut Scratch) -> bool {
        scratch.open.clear();
        scratch.open.push((step, 0));
        // `begun` has a bit for each repetition that has taken no row yet: with such a one, a step may lead
        // elsewhere than without.
        while let Some((step, begun)) = scratch.open.pop() {
            let next = self.program.step(step);
            if !scratch.visit(step, if matches!(next, Step::Row { .. } | Step::Done) { 0 } else { begun }) {
                continue;
            }
            match next {
                Step::Jump(to) => scratch.open.push((to, begun)),
                Step::Split { first, second } => scratch.open.extend([(second, begun), (first, begun)]),
                Step::Enter(repetition) => scratch.open.push((step + 1, begun | 1 << repetition)),
                Step::Leave(repetition) if begun >> repetition & 1 == 1 => {}
                Step::Leave(_) => scratch.open.push((step + 1, begun)),
                Step::Done if self.absent.is_none() => return true,
                Step::Done | Step::Row { .. } => {
                    scratch.branches.push(Branch { step, node });
                    scratch.marks.extend_from_slice(&scratch.mark);
                }
            }
        }
        false
    }

    /// Whether the condition of `variable` holds for `row` on this branch.
    fn holds(
        &self,
        variable: u8,
        partition: &mut Partition,
        at: usize,
        branch: Branch,
        row: Row,
        work: &mut Work<'_>,
    ) -> bool {
        let Some(Condition::History(formula)) = self.conditions.get(usize::from(variable)) else {
            return row.holds >> variable & 1 == 1;
        };
        let width = self.tracks.width();
        let view = Trying {
            search: self,
            partition,
            marks: partition.attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default(),
            node: branch.node,
            taken: partition.attempt.nodes.get(branch.node as usize).map_or(0, |node| node.row + 1),
            variable,
            current: u32::try_from(partition.next - partition.start).unwrap_or(u32::MAX),
        };
        let rows = if formula.aggregates() { view.taken as usize } else { 0 };
        work.budget = work.budget.saturating_sub(1 + rows / 8);
        match formula.holds(work.rows, &view, &self.names) {
            Ok(holds) => holds,
            Err(error) => {
                // One row is one bad row, however often it is looked at.
                let next = partition.next;
                if let Some(row) = partition.rows.get_mut(next).filter(|row| row.holds & BAD == 0) {
                    row.holds |= BAD;
                    work.out.bad(failure(&error));
                }
                false
            }
        }
    }

    /// Gives up what would become longer than any match may be.
    fn end_long(&self, partition: &mut Partition, work: &mut Work<'_>) {
        let is_running = |branch: &Branch| self.program.step(branch.step) != Step::Done;
        if partition.next - partition.start < MAX_ROWS || !partition.attempt.branches.iter().any(is_running) {
            return;
        }
        work.out
            .bad(format!("a match would have more than {MAX_ROWS} rows: they are left behind; use WITHIN"));
        partition.attempt.fruitless = partition.next - partition.start;
        self.retain(&mut partition.attempt, work.scratch, |branch| !is_running(branch));
    }

    /// Gives up what costs more than any pattern may.
    fn end_dear(&self, partition: &mut Partition, work: &mut Work<'_>) {
        if work.budget > 0 {
            return;
        }
        work.budget = MAX_COST;
        work.out.bad(
            "the pattern costs too much at these rows: they are left behind; use WITHIN, or simpler \
                conditions in DEFINE"
                .to_owned(),
        );
        partition.attempt.fruitless = partition.seen - partition.start;
        self.retain(&mut partition.attempt, work.scratch, |_| false);
    }

    /// No branch is left: what was found is the match, and the search goes on behind it.
    fn decide(&self, partition: &mut Partition, work: &mut Work<'_>) {
        partition.attempt.active = false;
        let found = partition.attempt.found.take();
        // What failed for lack of time, or has not been followed to its end, may match from another row on.
        if found.is_some() || partition.attempt.timed_out {
            let looked_at =
                partition.rows.range_mut(partition.start..partition.next.min(partition.rows.len()));
            looked_at.for_each(|row| row.failed = 0);
        }
        let Some(node) = found else {
            partition.start += partition.attempt.fruitless;
            return;
        };
        let labels = partition.attempt.labels(node);
        partition.number += 1;
        let before = partition.start.min(self.keep);
        let ids = partition
            .rows
            .iter()
            .skip(partition.start - before)
            .take(before + labels.len())
            .map(|row| row.id);
        work.found.push(Found {
            ids: ids.collect(),
            before,
            number: partition.number,
            cause: work.cause,
            labels: labels.clone(),
        });
        let is_one_of = |variables: u64| move |label: &Label| variables >> label.variable & 1 == 1;
        let ahead = match self.skip {
            Skip::PastLastRow => Some(labels.len()),
            Skip::ToNextRow => Some(1),
            Skip::ToFirst(variables) => labels.iter().position(is_one_of(variables)),
            Skip::ToLast(variables) => labels.iter().rposition(is_one_of(variables)),
        };
        partition.start += match ahead {
            Some(ahead) if ahead > 0 => ahead,
            _ => {
                work.out.bad(
                    "AFTER MATCH SKIP leads to no row behind the first of the match: the search goes \
                        on with the next row"
                        .to_owned(),
                );
                1
            }
        };
    }

    /// Lets rows go that nothing will ask for.
    fn trim(&self, partition: &mut Partition) {
        let surplus = partition.start.saturating_sub(self.keep);
        partition.rows.drain(..surplus);
        partition.start -= surplus;
        partition.seen -= surplus;
        partition.next = partition.next.saturating_sub(surplus);
        if partition.rows.is_empty() && partition.rows.capacity() > 64 {
            partition.rows = VecDeque::new();
        }
    }
}
