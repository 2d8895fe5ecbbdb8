//! Timers of rules that are programs: a tag each, due at a time of the sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;

use crate::rule::{RuleError, SealedState};

/// How state that holds timers is marked.
const FINGERPRINT: &str = "timers, version 1";
/// A rule that wants more has gone astray.
pub(crate) const MOST_TIMERS: usize = 10_000;
/// About how many bytes one takes beside its tag.
const BYTES: usize = 128;

/// The timers of one rule.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(i64, Arc<str>)>,
    tags: BTreeMap<Arc<str>, i64>,
    bytes: usize,
}

impl Timers {
    /// Has `tag` be due at `at`, and no more when it was to be.
    ///
    /// # Errors
    /// When there are too many.
    pub(crate) fn set(&mut self, tag: &str, at: i64) -> Result<(), RuleError> {
        self.cancel(tag);
        if self.tags.len() >= MOST_TIMERS {
            return Err(RuleError(format!(
                "it has {MOST_TIMERS} timers already: use one tag again and again, or cancel those that are not \
                needed"
            )));
        }
        let tag: Arc<str> = tag.into();
        self.bytes += BYTES + tag.len();
        self.due.insert((at, Arc::clone(&tag)));
        self.tags.insert(tag, at);
        Ok(())
    }

    /// Forgets `tag`.
    pub(crate) fn cancel(&mut self, tag: &str) {
        if let Some((tag, at)) = self.tags.remove_entry(tag) {
            self.bytes -= BYTES + tag.len();
            self.due.remove(&(at, tag));
        }
    }

    /// Whether there is one called `tag`.
    pub(crate) fn contains(&self, tag: &str) -> bool {
        self.tags.contains_key(tag)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<i64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the next one that is due by `now`: the earliest, and of those the first by its tag.
    pub(crate) fn take(&mut self, now: i64) -> Option<Arc<str>> {
        let (_, tag) = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.cancel(&tag);
        Some(tag)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tags.len()
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them, at rest; `None`: there are none.
    ///
    /// # Errors
    /// When Arrow refuses, which it has no reason to.
    pub(crate) fn seal(&self) -> Result<Option<SealedState>, RuleError> {
        if self.tags.is_empty() {
            return Ok(None);
        }
        let tags: ArrayRef = Arc::new(StringArray::from_iter_values(self.tags.keys()));
        let at: ArrayRef = Arc::new(Int64Array::from_iter_values(self.tags.values().copied()));
        let batch = RecordBatch::try_from_iter([("tag", tags), ("at", at)])
            .map_err(|error| RuleError(format!("its timers cannot be kept: {error}")))?;
        Ok(Some(SealedState { fingerprint: FINGERPRINT.to_owned(), watermark: 0, batch: Some(batch) }))
    }

    /// Takes those of another version over. Returns whether `state` holds timers.
    ///
    /// # Errors
    /// When it does, and they cannot be read.
    pub(crate) fn restore(&mut self, state: &SealedState) -> Result<bool, RuleError> {
        if state.fingerprint != FINGERPRINT {
            return Ok(false);
        }
        let columns = state.batch.as_ref().and_then(|batch| {
            let tags = batch.column_by_name("tag")?.as_string_opt::<i32>()?.clone();
            Some((tags, batch.column_by_name("at")?.as_primitive_opt::<Int64Type>()?.clone()))
        });
        let Some((tags, at)) = columns else {
            return Err(RuleError("its timers cannot be read".to_owned()));
        };
        for (tag, at) in tags.iter().zip(&at) {
            if let (Some(tag), Some(at)) = (tag, at) {
                self.set(tag, at)?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_earliest_comes_first_and_a_tag_is_there_once() {
        let mut timers = Timers::default();
        for (tag, at) in [("b", 5), ("a", 5), ("late", 9), ("again", 1), ("again", 7), ("gone", 2)] {
            timers.set(tag, at).unwrap();
        }
        timers.cancel("gone");
        timers.cancel("unknown");
        assert_eq!((timers.len(), timers.next()), (4, Some(5)));
        let mut other = Timers::default();
        assert!(other.restore(&timers.seal().unwrap().unwrap()).unwrap());
        for timers in [&mut timers, &mut other] {
            let taken: Vec<String> =
                std::iter::from_fn(|| timers.take(7)).map(|tag| tag.to_string()).collect();
            assert_eq!(taken, ["a", "b", "again"]);
            assert_eq!((timers.take(7), timers.len(), timers.bytes()), (None, 1, BYTES + 4));
        }
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut timers = Timers::default();
        for at in 0..MOST_TIMERS as i64 {
            timers.set(&at.to_string(), at).unwrap();
        }
        timers.set("0", 3).unwrap();
        let error = timers.set("one more", 0).unwrap_err();
        assert!(error.0.starts_with("it has 10000 timers already"), "{error}");
    }
}
