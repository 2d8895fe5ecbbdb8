//! What led to a row that a rule wrote, by its number.

use tidegate_core::Seqs;

use super::chunk::Chunk;
use super::times;

/// What has which number, while one chunk is fed.
#[derive(Default)]
pub(super) struct Causes<'a> {
    chunk: Option<&'a Chunk>,
    /// by their numbers
    entries: Vec<(u64, Entry)>,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    /// rows from this one on
    Rows(usize),
    /// no row of a recording: when that was, and what
    Apart(i64, &'static str),
}

impl<'a> Causes<'a> {
    pub(super) fn new(chunk: &'a Chunk) -> Self {
        Self { chunk: Some(chunk), entries: Vec::new() }
    }

    /// Rows of the chunk, from `row` on, have the numbers from `seq` on.
    pub(super) fn rows(&mut self, seq: u64, row: usize) {
        let goes_on = |(first, entry): &(u64, Entry)| match entry {
            Entry::Rows(at) => seq - first == (row - at) as u64,
            Entry::Apart(..) => false,
        };
        if !self.entries.last().is_some_and(goes_on) {
            self.entries.push((seq, Entry::Rows(row)));
        }
    }

    /// Something that no row of the chunk is happened at `now`.
    pub(super) fn apart(&mut self, seq: u64, now: i64, what: &'static str) {
        self.entries.push((seq, Entry::Apart(now, what)));
    }

    /// The numbers of all rows of the chunk, of which there are `count`.
    pub(super) fn numbers(&self, count: usize) -> Seqs {
        if let [(first, Entry::Rows(0))] = self.entries.as_slice() {
            return Seqs::Run { first: *first };
        }
        let rows = self.entries.iter().filter_map(|(seq, entry)| match entry {
            Entry::Rows(row) => Some((*seq, *row)),
            Entry::Apart(..) => None,
        });
        let rows: Vec<(u64, usize)> = rows.collect();
        let ends = rows.iter().skip(1).map(|(_, row)| *row).chain([count]);
        let each = rows
            .iter()
            .zip(ends)
            .flat_map(|((seq, row), end)| (0..end.saturating_sub(*row) as u64).map(move |at| seq + at));
        Seqs::list(each.collect())
    }

    /// The row of the chunk that has the number `seq`.
    pub(super) fn row(&self, seq: u64) -> Option<usize> {
        match self.entry(seq)? {
            (first, Entry::Rows(row)) => Some(row + usize::try_from(seq - first).unwrap_or(usize::MAX)),
            (_, Entry::Apart(..)) => None,
        }
    }

    /// The event time, and the place, of what has the number `seq`.
    pub(super) fn of(&self, seq: u64) -> (i64, String) {
        match (self.entry(seq), self.row(seq), self.chunk) {
            (_, Some(row), Some(chunk)) => {
                let line = chunk.origins.get(row).map_or(0, |origin| origin.line);
                (times(&chunk.rows).get(row).copied().unwrap_or(i64::MIN), format!("{}:{line}", chunk.file))
            }
            (Some((_, Entry::Apart(at, what))), ..) => (at, what.to_owned()),
            _ => (i64::MIN, String::new()),
        }
    }

    fn entry(&self, seq: u64) -> Option<(u64, Entry)> {
        let after = self.entries.partition_point(|(first, _)| *first <= seq);
        self.entries.get(after.checked_sub(1)?).copied()
    }
}
