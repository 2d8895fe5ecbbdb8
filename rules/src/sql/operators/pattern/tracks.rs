//! What a way through the pattern must remember of its rows, because conditions ask for it.
//!
//! Two ways that are at the same step and remember the same have the same future, whatever rows they took:
//! one of them is enough.

use super::formula::{Formula, Slot};
use crate::sql::pattern::formula::{ALL, At};

/// No row.
pub(super) const NONE: u32 = u32::MAX;

/// What is remembered, for all conditions together.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    tracks: Vec<Track>,
    width: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Track {
    variables: u64,
    what: What,
    /// where it begins
    at: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// the first rows
    First,
    /// the last rows, the very last first
    Last,
    /// a hash of all rows, for aggregates
    Hash,
}

impl Tracks {
    /// What these conditions ask for.
    pub(super) fn from_formulas<'a>(formulas: impl Iterator<Item = &'a Formula>) -> Self {
        let mut tracks = Self::default();
        for slot in formulas.flat_map(|formula| &formula.slots) {
            match slot {
                Slot::Value { at, .. } => {
                    tracks.add(
                        at.variables,
                        if at.from_last { What::Last } else { What::First },
                        at.offset as usize + 1,
                    );
                }
                Slot::Aggregate { variables, .. } => tracks.add(*variables, What::Hash, 2),
                Slot::Classifier { .. } | Slot::MatchNumber => {}
            }
        }
        for track in &mut tracks.tracks {
            track.at = tracks.width;
            tracks.width += track.len;
        }
        tracks
    }

    fn add(&mut self, variables: u64, what: What, len: usize) {
        // Where every row counts, the number of rows says which are the first and the last.
        if variables == ALL {
            return;
        }
        match self.tracks.iter_mut().find(|track| track.variables == variables && track.what == what) {
            Some(track) => track.len = track.len.max(len),
            None => self.tracks.push(Track { variables, what, at: 0, len }),
        }
    }

    /// How many numbers are remembered.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Makes `marks` those of no rows at all.
    pub(super) fn clear(&self, marks: &mut Vec<u32>) {
        marks.clear();
        marks.resize(self.width, NONE);
    }

    /// The row with this index was taken for `variable`.
    pub(super) fn take(&self, marks: &mut [u32], variable: u8, row: u32) {
        for track in self.tracks.iter().filter(|track| track.variables >> variable & 1 == 1) {
            let Some(marks) = marks.get_mut(track.at..track.at + track.len) else { continue };
            match (track.what, marks) {
                (What::First, marks) => {
                    if let Some(free) = marks.iter_mut().find(|mark| **mark == NONE) {
                        *free = row;
                    }
                }
                (What::Last, marks) => {
                    marks.rotate_right(1);
                    marks.iter_mut().take(1).for_each(|last| *last = row);
                }
                (What::Hash, [low, high]) => {
                    // Two independent hashes: rows only ever grow, so that an equal pair means equal rows but
                    // for one case in 2^64.
                    *low = low.wrapping_mul(0x9E37_79B1).wrapping_add(row.wrapping_add(1));
                    *high = high
                        .wrapping_mul(0x85EB_CA77)
                        .wrapping_add(row.wrapping_mul(0xC2B2_AE3D).wrapping_add(7))
                        .rotate_left(13);
                }
                (What::Hash, _) => {}
            }
        }
    }

    /// The row that `at` means, before it goes `back`, when the row `current` is taken for `variable` after
    /// the `taken` rows of `marks`.
    pub(super) fn row(&self, marks: &[u32], at: &At, variable: u8, taken: u32, current: u32) -> Option<u32> {
        let offset = at.offset;
        if at.variables == ALL {
            return match (at.from_last, offset) {
                (true, 0) => Some(current),
                (true, _) => taken.checked_sub(offset),
                (false, _) if offset < taken => Some(offset),
                (false, _) => (offset == taken).then_some(current),
            };
        }
        let what = if at.from_last { What::Last } else { What::First };
        let track = self.tracks.iter().find(|track| track.variables == at.variables && track.what == what)?;
        let marks = marks.get(track.at..track.at + track.len)?;
        let mark = |index: u32| marks.get(index as usize).copied().filter(|mark| *mark != NONE);
        let is_mine = at.variables >> variable & 1 == 1;
        match (is_mine, at.from_last) {
            (true, true) if offset == 0 => Some(current),
            (true, true) => mark(offset - 1),
            (true, false) => {
                mark(offset).or_else(|| (offset == 0 || mark(offset - 1).is_some()).then_some(current))
            }
            (false, _) => mark(offset),
        }
    }
}
