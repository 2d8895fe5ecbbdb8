//! The search for matches in the rows of one partition.
//!
//! A search tries one first row after the other. For each, the pattern's program is run on the rows as they come, along all ways at once, in the
//! order in which the standard prefers them. When a way completes the pattern, all that are less preferred end; when no more preferred
//! one is left, it is the match. No row is looked at twice on the same way, so a search never goes back and forth as a backtracking one would.

use std::collections::VecDeque;

use super::formula::{Formula, View};
use super::program::{Program, Step};
use super::rows::Rows;
use super::tracks::Tracks;
use crate::rule::Emissions;
use crate::sql::pattern::Skip;
use crate::sql::pattern::formula::{ALL, At};

/// A match has no more rows than this, so that one that never ends does not take all memory.
pub(in crate::sql) const MAX_ROWS: usize = 10_000;

/// Ways through the pattern at once: beyond that, those that are preferred least end.
pub(in crate::sql) const MAX_WAYS: usize = 256;

/// The flag of a row, beside the bits of variables: a condition could not be evaluated for it.
pub(super) const BAD: u64 = 1 << 63;

/// No node.
const ROOT: u32 = u32::MAX;

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
}

/// A row of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub id: u64,
    pub ts: i64,
    /// a bit for each variable whose condition holds; without those that depend on other rows
    pub holds: u64,
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
    attempt: Attempt,
    /// how many matches there have been
    pub number: u64,
    /// where its attempt stands in the list of deadlines
    pub wake: Option<(i64, u64)>,
}

/// The ways from one first row.
#[derive(Debug, Default)]
struct Attempt {
    active: bool,
    /// preferred first
    ways: Vec<Way>,
    /// what each remembers
    marks: Vec<u32>,
    nodes: Vec<Node>,
    /// how many nodes are worth a look for those that no way needs
    clutter: usize,
    /// the last row of the match that is complete, unless a preferred way completes too
    found: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    /// where it is; at [`Step::Done`] it waits for the row that must not come
    step: usize,
    node: u32,
}

/// A row that some way has taken; rows are counted from the first of the attempt.
#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    row: u32,
    label: Label,
}

/// What a row was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub variable: u8,
    pub hidden: bool,
}

/// Rows that match.
#[derive(Debug)]
pub(super) struct Found {
    /// those before the match that may be asked for, and those of the match
    pub ids: Vec<u64>,
    /// how many of them are before
    pub before: usize,
    pub labels: Vec<Label>,
    pub number: u64,
    /// the row of the pass that it is due to
    pub cause: u32,
}

/// What a search works with, and what it finds.
pub(super) struct Work<'a> {
    pub rows: &'a Rows,
    pub out: &'a mut Emissions,
    pub found: &'a mut Vec<Found>,
    pub scratch: &'a mut Scratch,
    pub cause: u32,
}

/// Room to work in, kept to allocate once.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    ways: Vec<Way>,
    marks: Vec<u32>,
    mark: Vec<u32>,
    open: Vec<usize>,
    /// step and place in `visited_marks` of what has been visited
    visited: Vec<(usize, usize)>,
    visited_marks: Vec<u32>,
}

impl Scratch {
    /// Whether a way with the marks at hand has not been at `step` yet. From then on it has.
    fn visit(&mut self, step: usize) -> bool {
        let width = self.mark.len();
        let same = |at: usize| self.visited_marks.get(at..at + width) == Some(self.mark.as_slice());
        if self.visited.iter().any(|(visited, at)| *visited == step && same(*at)) {
            return false;
        }
        self.visited.push((step, self.visited_marks.len()));
        self.visited_marks.extend_from_slice(&self.mark);
        true
    }
}

impl Partition {
    /// Whether it holds nothing that would be missed.
    pub(super) fn is_vacant(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose turn has come.
    pub(super) fn came(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().take(self.seen)
    }

    /// About how much memory it takes, without its rows.
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.attempt.ways.capacity() * size_of::<Way>()
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
            self.end_ways(partition, time);
            if !partition.attempt.ways.is_empty() {
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
            if let Some(way) = attempt.ways.iter().find(|way| self.program.step(way.step) == Step::Done) {
                attempt.found = Some(way.node);
            }
            attempt.ways.clear();
            self.decide(partition, work);
            self.go_on(partition, work);
        }
    }

    /// When the attempt will end by itself, or some of its ways.
    pub(super) fn deadline(&self, partition: &Partition) -> Option<i64> {
        let attempt = &partition.attempt;
        if !attempt.active {
            return None;
        }
        let waits = |way: &Way| self.program.step(way.step) == Step::Done;
        let running = self.within_ns.filter(|_| attempt.ways.iter().any(|way| !waits(way)));
        let within = running.map(|within| partition.ts(partition.start).saturating_add(within));
        let absent = self.absent.and_then(|(_, span)| {
            attempt.ways.iter().filter(|way| waits(way)).map(|way| self.last_ts(partition, way.node).saturating_add(span)).min()
        });
        within.into_iter().chain(absent).min()
    }

    fn last_ts(&self, partition: &Partition, node: u32) -> i64 {
        let row = partition.attempt.nodes.get(node as usize).map_or(0, |node| node.row as usize);
        partition.ts(partition.start + row)
    }

    /// Ends the ways that have no time left.
    fn end_ways(&self, partition: &mut Partition, time: i64) {
        if self.within_ns.is_none() && self.absent.is_none() {
            return;
        }
        let first = partition.ts(partition.start);
        let is_over = self.within_ns.is_some_and(|within| time >= first.saturating_add(within));
        let width = self.tracks.width();
        let mut kept = 0;
        for at in 0..partition.attempt.ways.len() {
            let Some(way) = partition.attempt.ways.get(at).copied() else { break };
            if self.program.step(way.step) == Step::Done {
                let span = self.absent.map_or(0, |(_, span)| span);
                if time >= self.last_ts(partition, way.node).saturating_add(span) {
                    partition.attempt.found = Some(way.node);
                    break;
                }
            } else if is_over {
                continue;
            }
            if let Some(place) = partition.attempt.ways.get_mut(kept) {
                *place = way;
            }
            partition.attempt.marks.copy_within(at * width..(at + 1) * width, kept * width);
            kept += 1;
        }
        partition.attempt.ways.truncate(kept);
        partition.attempt.marks.truncate(kept * width);
    }

    /// Looks at the rows that have come, as far as they tell.
    pub(super) fn go_on(&self, partition: &mut Partition, work: &mut Work<'_>) {
        loop {
            if !partition.attempt.active && !self.begin(partition, work) {
                break;
            }
            while partition.next < partition.seen && !partition.attempt.ways.is_empty() {
                self.end_ways(partition, partition.ts(partition.next));
                self.end_long(partition, work);
                self.step(partition, work);
                partition.next += 1;
            }
            if !partition.attempt.ways.is_empty() {
                break;
            }
            self.decide(partition, work);
        }
        self.trim(partition);
    }

    /// Begins an attempt at the next row that can be the first of a match.
    fn begin(&self, partition: &mut Partition, work: &mut Work<'_>) -> bool {
        let can_start = |row: &Row| self.starts & (row.holds | self.by_history) != 0;
        while partition.start < partition.seen && !partition.rows.get(partition.start).is_some_and(can_start) {
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
        work.scratch.clear();
        self.tracks.clear(&mut work.scratch.mark);
        self.spread(0, ROOT, work.scratch);
        attempt.keep(work.scratch);
        partition.next = partition.start;
        true
    }

    /// All ways take the next row, or end.
    fn step(&self, partition: &mut Partition, work: &mut Work<'_>) {
        let Some(row) = partition.rows.get(partition.next).copied() else { return };
        let current = u32::try_from(partition.next - partition.start).unwrap_or(u32::MAX);
        let width = self.tracks.width();
        work.scratch.clear();
        for at in 0..partition.attempt.ways.len() {
            let Some(way) = partition.attempt.ways.get(at).copied() else { break };
            match self.program.step(way.step) {
                Step::Row { variable, hidden } => {
                    if !self.holds(variable, partition, at, way, row, work) {
                        continue;
                    }
                    let attempt = &mut partition.attempt;
                    let node = u32::try_from(attempt.nodes.len()).unwrap_or(ROOT);
                    attempt.nodes.push(Node { parent: way.node, row: current, label: Label { variable, hidden } });
                    work.scratch.mark.clear();
                    work.scratch.mark.extend_from_slice(attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default());
                    self.tracks.take(&mut work.scratch.mark, variable, current);
                    if self.spread(way.step + 1, node, work.scratch) {
                        attempt.found = Some(node);
                        break;
                    }
                }
                // It waits for the row that must not come.
                _ => {
                    let comes = self.absent.is_some_and(|(variable, _)| self.holds(variable, partition, at, way, row, work));
                    if !comes {
                        work.scratch.ways.push(way);
                        let marks = partition.attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default();
                        work.scratch.marks.extend_from_slice(marks);
                    }
                }
            }
        }
        if work.scratch.ways.len() > MAX_WAYS {
            work.scratch.ways.truncate(MAX_WAYS);
            work.scratch.marks.truncate(MAX_WAYS * width);
            work.out.bad(format!("there are more than {MAX_WAYS} ways to match the pattern at once: those preferred least are left out"));
        }
        partition.attempt.keep(work.scratch);
        partition.attempt.tidy();
    }

    /// Adds the ways that go on from `step`, up to where a row is needed, preferred first. Returns whether one of them completes the pattern: then
    /// those after it are left out.
    fn spread(&self, step: usize, node: u32, scratch: &mut Scratch) -> bool {
        scratch.open.clear();
        scratch.open.push(step);
        while let Some(step) = scratch.open.pop() {
            if !scratch.visit(step) {
                continue;
            }
            match self.program.step(step) {
                Step::Jump(to) => scratch.open.push(to),
                Step::Split { first, second } => scratch.open.extend([second, first]),
                Step::Done if self.absent.is_none() => return true,
                Step::Done | Step::Row { .. } => {
                    scratch.ways.push(Way { step, node });
                    scratch.marks.extend_from_slice(&scratch.mark);
                }
            }
        }
        false
    }

    /// Whether the condition of `variable` holds for `row` on this way.
    fn holds(&self, variable: u8, partition: &mut Partition, at: usize, way: Way, row: Row, work: &mut Work<'_>) -> bool {
        let Some(Condition::History(formula)) = self.conditions.get(usize::from(variable)) else {
            return row.holds >> variable & 1 == 1;
        };
        let width = self.tracks.width();
        let view = Trying {
            search: self,
            partition,
            marks: partition.attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default(),
            node: way.node,
            taken: partition.attempt.nodes.get(way.node as usize).map_or(0, |node| node.row + 1),
            variable,
            current: u32::try_from(partition.next - partition.start).unwrap_or(u32::MAX),
        };
        match formula.holds(work.rows, &view, &self.names) {
            Ok(holds) => holds,
            Err(error) => {
                // One row is one bad row, however often it is looked at.
                let next = partition.next;
                if let Some(row) = partition.rows.get_mut(next).filter(|row| row.holds & BAD == 0) {
                    row.holds |= BAD;
                    work.out.bad(error.strip_backtrace());
                }
                false
            }
        }
    }

    /// Gives up what would become longer than any match may be.
    fn end_long(&self, partition: &mut Partition, work: &mut Work<'_>) {
        let is_running = |way: &Way| self.program.step(way.step) != Step::Done;
        if partition.next - partition.start < MAX_ROWS || !partition.attempt.ways.iter().any(is_running) {
            return;
        }
        work.out.bad(format!("a match would have more than {MAX_ROWS} rows: it ends there; use WITHIN"));
        let width = self.tracks.width();
        work.scratch.clear();
        for (at, way) in partition.attempt.ways.iter().enumerate().filter(|(_, way)| !is_running(way)) {
            work.scratch.ways.push(*way);
            work.scratch.marks.extend_from_slice(partition.attempt.marks.get(at * width..(at + 1) * width).unwrap_or_default());
        }
        partition.attempt.keep(work.scratch);
    }

    /// No way is left: what was found is the match, and the search goes on behind it.
    fn decide(&self, partition: &mut Partition, work: &mut Work<'_>) {
        partition.attempt.active = false;
        let Some(node) = partition.attempt.found.take() else {
            partition.start += 1;
            return;
        };
        let labels = partition.attempt.labels(node);
        partition.number += 1;
        let before = partition.start.min(self.keep);
        let ids = partition.rows.iter().skip(partition.start - before).take(before + labels.len()).map(|row| row.id);
        work.found.push(Found { ids: ids.collect(), before, number: partition.number, cause: work.cause, labels: labels.clone() });
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
                work.out
                    .bad("AFTER MATCH SKIP leads to no row behind the first of the match: the search goes on with the next row".to_owned());
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

impl Scratch {
    fn clear(&mut self) {
        self.ways.clear();
        self.marks.clear();
        self.visited.clear();
        self.visited_marks.clear();
    }
}

impl Attempt {
    /// Goes on with the ways in `scratch`.
    fn keep(&mut self, scratch: &mut Scratch) {
        std::mem::swap(&mut self.ways, &mut scratch.ways);
        std::mem::swap(&mut self.marks, &mut scratch.marks);
    }

    /// What the rows up to `node` were taken for.
    fn labels(&self, node: u32) -> Vec<Label> {
        let mut labels: Vec<Label> = self.path(node).map(|node| node.label).collect();
        labels.reverse();
        labels
    }

    /// The nodes from `node` back to the first.
    fn path(&self, node: u32) -> impl Iterator<Item = &Node> {
        let get = |at: u32| self.nodes.get(at as usize);
        std::iter::successors(get(node), move |node| get(node.parent))
    }

    /// Clears nodes away that no way needs.
    fn tidy(&mut self) {
        if self.nodes.len() < self.clutter {
            return;
        }
        let mut places = vec![ROOT; self.nodes.len()];
        for node in self.ways.iter().map(|way| way.node).chain(self.found) {
            let mut at = node;
            while let (Some(place), Some(node)) = (places.get_mut(at as usize), self.nodes.get(at as usize)) {
                if *place != ROOT {
                    break;
                }
                *place = 0;
                at = node.parent;
            }
        }
        let mut kept: u32 = 0;
        for place in places.iter_mut().filter(|place| **place != ROOT) {
            *place = kept;
            kept += 1;
        }
        let place = |at: u32| places.get(at as usize).copied().unwrap_or(ROOT);
        let nodes = self.nodes.iter().zip(&places).filter(|(_, place)| **place != ROOT);
        self.nodes = nodes.map(|(node, _)| Node { parent: place(node.parent), ..*node }).collect();
        self.ways.iter_mut().for_each(|way| way.node = place(way.node));
        self.found = self.found.map(place);
        self.clutter = 2 * self.nodes.len() + 256;
    }
}

/// What may become a match, when the row at hand is taken for a variable.
struct Trying<'a> {
    search: &'a Search,
    partition: &'a Partition,
    marks: &'a [u32],
    node: u32,
    /// how many rows the way has taken
    taken: u32,
    variable: u8,
    current: u32,
}

impl Trying<'_> {
    fn id(&self, row: u32, back: u32) -> Option<u64> {
        let row = (self.partition.start + row as usize).checked_sub(back as usize)?;
        self.partition.rows.get(row).map(|row| row.id)
    }
}

impl View for Trying<'_> {
    fn row(&self, at: &At) -> Option<u64> {
        let row = self.search.tracks.row(self.marks, at, self.variable, self.taken, self.current)?;
        self.id(row, at.back)
    }

    fn rows(&self, variables: u64, _finished: bool) -> Vec<u64> {
        if variables == ALL {
            return (0..self.taken).chain([self.current]).filter_map(|row| self.id(row, 0)).collect();
        }
        let is_mine = |variable: u8| variables >> variable & 1 == 1;
        let path = self.partition.attempt.path(self.node).filter(|node| is_mine(node.label.variable)).map(|node| node.row);
        let mut rows: Vec<u32> = is_mine(self.variable).then_some(self.current).into_iter().chain(path).collect();
        rows.reverse();
        rows.into_iter().filter_map(|row| self.id(row, 0)).collect()
    }

    fn variable(&self, _finished: bool) -> usize {
        usize::from(self.variable)
    }

    fn number(&self) -> i64 {
        i64::try_from(self.partition.number + 1).unwrap_or(i64::MAX)
    }
}

/// A match, seen from one of its rows.
pub(super) struct Seen<'a> {
    pub found: &'a Found,
    /// the index of that row
    pub row: usize,
}

impl Seen<'_> {
    fn labels(&self, finished: bool) -> &[Label] {
        let all = &self.found.labels;
        if finished { all } else { all.get(..=self.row).unwrap_or(all) }
    }
}

impl View for Seen<'_> {
    fn row(&self, at: &At) -> Option<u64> {
        let labels = self.labels(at.finished);
        let mut rows = (0..labels.len()).filter(|row| labels.get(*row).is_some_and(|label| at.variables >> label.variable & 1 == 1));
        let row = if at.from_last { rows.rev().nth(at.offset as usize) } else { rows.nth(at.offset as usize) }?;
        self.found.ids.get((self.found.before + row).checked_sub(at.back as usize)?).copied()
    }

    fn rows(&self, variables: u64, finished: bool) -> Vec<u64> {
        let ids = self.found.ids.iter().skip(self.found.before);
        let rows = ids.zip(self.labels(finished)).filter(|(_, label)| variables >> label.variable & 1 == 1);
        rows.map(|(id, _)| *id).collect()
    }

    fn variable(&self, finished: bool) -> usize {
        self.labels(finished).last().map_or(usize::MAX, |label| usize::from(label.variable))
    }

    fn number(&self) -> i64 {
        i64::try_from(self.found.number).unwrap_or(i64::MAX)
    }
}
