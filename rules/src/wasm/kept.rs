//! What a plugin keeps: its state, its timers, and how often it has failed of late.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::UInt32Type;

use crate::rule::{RuleError, SealedState};
use crate::timers::Timers;

/// How state at rest is marked.
const STATE: &str = "plugin state, version 1";
/// How the number of failures is marked; behind it stands whose they are.
const FAILURES: &str = "plugin failures, version 1: ";
/// About how many bytes an entry takes beside its key and its value.
const BYTES: usize = 96;

/// What a plugin keeps between calls.
#[derive(Debug, Default)]
pub(super) struct Kept {
    entries: BTreeMap<Arc<str>, Arc<[u8]>>,
    bytes: usize,
    pub timers: Timers,
    /// Rows and timers that failed one after the other.
    pub failures: u32,
}

/// What one call changes of it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// `None`: it goes
    pub entries: BTreeMap<Arc<str>, Option<Arc<[u8]>>>,
    /// when each is due; `None`: it is cancelled
    pub timers: BTreeMap<Arc<str>, Option<i64>>,
    /// of `entries`
    pub bytes: usize,
}

/// About how many bytes an entry takes.
pub(super) fn bytes_of(key: &str, value: &[u8]) -> usize {
    BYTES + key.len() + value.len()
}

impl Kept {
    pub(super) fn get(&self, key: &str) -> Option<&Arc<[u8]>> {
        self.entries.get(key)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// About how many bytes of memory all of it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.timers.bytes()
    }

    fn put(&mut self, key: Arc<str>, value: Option<Arc<[u8]>>) {
        if let Some((key, old)) = self.entries.remove_entry(&key) {
            self.bytes -= bytes_of(&key, &old);
        }
        if let Some(value) = value {
            self.bytes += bytes_of(&key, &value);
            self.entries.insert(key, value);
        }
    }

    /// Makes the changes of a call that went well.
    ///
    /// # Errors
    /// When there are too many timers.
    pub(super) fn apply(&mut self, changes: Changes) -> Result<(), RuleError> {
        changes.entries.into_iter().for_each(|(key, value)| self.put(key, value));
        // First those that make room.
        let (set, cancelled): (Vec<_>, Vec<_>) = changes.timers.into_iter().partition(|(_, at)| at.is_some());
        cancelled.iter().for_each(|(tag, _)| self.timers.cancel(tag));
        set.iter().try_for_each(|(tag, at)| self.timers.set(tag, at.unwrap_or_default()))
    }

    /// All of it at rest; `version` names the plugin whose failures are counted.
    ///
    /// # Errors
    /// When Arrow refuses, which it has no reason to.
    pub(super) fn seal(&self, version: &str) -> Result<Vec<SealedState>, RuleError> {
        let mut sealed = Vec::new();
        if !self.entries.is_empty() {
            let keys: ArrayRef = Arc::new(StringArray::from_iter_values(self.entries.keys()));
            let values: ArrayRef = Arc::new(LargeBinaryArray::from_iter_values(self.entries.values()));
            sealed.push(at_rest(STATE.to_owned(), [("key", keys), ("value", values)])?);
        }
        sealed.extend(self.timers.seal()?);
        // Also where there are none: it says which version has kept the rest.
        if self.failures > 0 || !sealed.is_empty() {
            let failures: ArrayRef = Arc::new(UInt32Array::from(vec![self.failures]));
            sealed.push(at_rest(format!("{FAILURES}{version}"), [("failures", failures)])?);
        }
        Ok(sealed)
    }

    /// Whether `state` was kept by another version than `version`.
    pub(super) fn is_of_another(state: &[SealedState], version: &str) -> bool {
        let is_own = |sealed: &SealedState| sealed.fingerprint.strip_prefix(FAILURES) == Some(version);
        !state.is_empty() && !state.iter().any(is_own)
    }

    /// Takes the state of another version over. Returns what does not fit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn restore(
        &mut self,
        state: Vec<SealedState>,
        version: &str,
    ) -> Result<Vec<String>, RuleError> {
        let mut misfits = Vec::new();
        for sealed in state {
            if self.timers.restore(&sealed)? {
                continue;
            }
            let column = |name: &str| sealed.batch.as_ref().and_then(|batch| batch.column_by_name(name));
            if let Some(whose) = sealed.fingerprint.strip_prefix(FAILURES) {
                // A new version starts with none.
                let failures = column("failures").and_then(|column| column.as_primitive_opt::<UInt32Type>());
                if let Some(failures) = failures.filter(|failures| whose == version && !failures.is_empty()) {
                    self.failures = failures.value(0);
                }
            } else if sealed.fingerprint == STATE {
                let keys = column("key").and_then(|column| column.as_string_opt::<i32>());
                let values = column("value").and_then(|column| column.as_binary_opt::<i64>());
                let (Some(keys), Some(values)) = (keys, values) else {
                    return Err(RuleError("its state cannot be read".to_owned()));
                };
                for (key, value) in keys.iter().zip(values) {
                    if let (Some(key), Some(value)) = (key, value) {
                        self.put(key.into(), Some(value.into()));
                    }
                }
            } else if sealed.batch.is_some() {
                misfits.push(format!("the state of `{}` does not fit and is dropped", sealed.fingerprint));
            }
        }
        Ok(misfits)
    }
}

fn at_rest<const N: usize>(
    fingerprint: String,
    columns: [(&str, ArrayRef); N],
) -> Result<SealedState, RuleError> {
    let batch = RecordBatch::try_from_iter(columns)
        .map_err(|error| RuleError(format!("its state cannot be kept: {error}")))?;
    Ok(SealedState { fingerprint, watermark: 0, batch: Some(batch) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_sealed_is_restored() {
        let mut kept = Kept::default();
        let mut changes = Changes::default();
        for (key, value) in [("a", Some(&b"1"[..])), ("b", Some(&b""[..])), ("c", None)] {
            changes.entries.insert(key.into(), value.map(Arc::from));
        }
        changes.timers.insert("t".into(), Some(7));
        changes.timers.insert("u".into(), None);
        kept.apply(changes).unwrap();
        kept.failures = 3;
        assert_eq!((kept.len(), kept.bytes), (2, 2 * BYTES + 3));
        for (version, failures) in [("one", 3), ("other", 0)] {
            let mut other = Kept::default();
            let mut state = kept.seal("one").unwrap();
            assert_eq!(Kept::is_of_another(&state, version), version == "other");
            state.push(SealedState { fingerprint: "sum".to_owned(), ..state[0].clone() });
            assert_eq!(
                other.restore(state, version).unwrap(),
                ["the state of `sum` does not fit and is dropped"]
            );
            assert_eq!((&other.entries, other.bytes()), (&kept.entries, kept.bytes()));
            assert_eq!((other.timers.next(), other.failures), (Some(7), failures));
        }
        let gone = Changes { entries: [("a".into(), None)].into(), ..Changes::default() };
        kept.apply(gone).unwrap();
        assert_eq!((kept.len(), kept.bytes), (1, BYTES + 1));
    }
}
