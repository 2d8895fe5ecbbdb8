//! Matches, and what may become one, as formulas see them.

use super::attempt::Label;
use super::formula::View;
use super::search::{Partition, Search};
use crate::sql::pattern::formula::{ALL, At};

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

/// What may become a match, when the row at hand is taken for a variable.
pub(super) struct Trying<'a> {
    pub search: &'a Search,
    pub partition: &'a Partition,
    pub marks: &'a [u32],
    pub node: u32,
    /// how many rows the way has taken
    pub taken: u32,
    pub variable: u8,
    pub current: u32,
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
        let path = self
            .partition
            .attempt
            .path(self.node)
            .filter(|node| is_mine(node.label.variable))
            .map(|node| node.row);
        let mut rows: Vec<u32> =
            is_mine(self.variable).then_some(self.current).into_iter().chain(path).collect();
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
        let mut rows = (0..labels.len())
            .filter(|row| labels.get(*row).is_some_and(|label| at.variables >> label.variable & 1 == 1));
        let row =
            if at.from_last { rows.rev().nth(at.offset as usize) } else { rows.nth(at.offset as usize) }?;
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
