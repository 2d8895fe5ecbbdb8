//! What led to a row that a rule wrote, by its number.

use tidegate_core::Seqs;

use super::chunk::Chunk;
use super::times;

/// What has which number, while one chunk is fed.
pub(super) struct Causes<'a> {
    chunk: Option<&'a Chunk>,
    /// by their numbers
    entries: Vec<(u64, Entry)>,
    /// when it is, for what no row led to
    now: i64,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    /// rows from this one on
    Rows(usize),
    /// time passed; when that was
    Tick(i64),
}

impl<'a> Causes<'a> {
    pub(super) fn new(chunk: &'a Chunk) -> Self {
        Self { chunk: Some(chunk), entries: Vec::new(), now: i64::MIN }
    }

    /// The recordings have ended at `now`.
    pub(super) fn end(now: i64) -> Self {
        Self { chunk: None, entries: Vec::new(), now }
    }

    /// Rows of the chunk, from `row` on, have the numbers from `seq` on.
    pub(super) fn rows(&mut self, seq: u64, row: usize) {
        let goes_on = |(first, entry): &(u64, Entry)| match entry {
            Entry::Rows(at) => seq - first == (row - at) as u64,
            Entry::Tick(_) => false,
        };
        if !self.entries.last().is_some_and(goes_on) {
            self.entries.push((seq, Entry::Rows(row)));
        }
    }

    /// Time has passed, until `now`.
    pub(super) fn tick(&mut self, seq: u64, now: i64) {
        self.entries.push((seq, Entry::Tick(now)));
    }

    /// The numbers of all rows of the chunk, of which there are `count`.
    pub(super) fn numbers(&self, count: usize) -> Seqs {
        if let [(first, Entry::Rows(0))] = self.entries.as_slice() {
            return Seqs::Run { first: *first };
        }
        let rows = self.entries.iter().filter_map(|(seq, entry)| match entry {
            Entry::Rows(row) => Some((*seq, *row)),
            Entry::Tick(_) => None,
        });
        let rows: Vec<(u64, usize)> = rows.collect();
        let ends = rows.iter().skip(1).map(|(_, row)| *row).chain([count]);
        let each = rows
            .iter()
            .zip(ends)
            .flat_map(|((seq, row), end)| (0..end.saturating_sub(*row) as u64).map(move |at| seq + at));
        Seqs::list(each.collect())
    }

    /// The event time, and the place, of what has the number `seq`.
    pub(super) fn of(&self, seq: u64) -> (i64, String) {
        let after = self.entries.partition_point(|(first, _)| *first <= seq);
        let entry = after.checked_sub(1).and_then(|at| self.entries.get(at));
        match (entry, self.chunk) {
            (Some((first, Entry::Rows(row))), Some(chunk)) => {
                let row = row + usize::try_from(seq - first).unwrap_or(usize::MAX);
                let line = chunk.origins.get(row).map_or(0, |origin| origin.line);
                (times(&chunk.rows).get(row).copied().unwrap_or(i64::MIN), format!("{}:{line}", chunk.file))
            }
            (Some((_, Entry::Tick(at))), _) => (*at, "time".to_owned()),
            _ => (self.now, "end".to_owned()),
        }
    }
}
