//! What a script keeps: a map that goes through its calls.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use rhai::{Dynamic, Map};

use super::encoding::{decode, encode};
use super::value::kind;
use crate::rule::{RuleError, SealedState};

/// How state at rest is marked.
const MAP: &str = "rhai state, version 1";
/// How it is marked what has happened to a version of a rule.
const LIFE: &str = "rhai life, version 1";
/// A count of all entries is worth so many of them a row.
const ENTRIES_A_ROW: usize = 16;
/// About how many bytes a value takes in a list, and an entry in a map beside its key.
const ELEMENT: usize = 16;
const ENTRY: usize = 64;

/// The state of one script.
#[derive(Debug)]
pub(super) struct State {
    value: Dynamic,
    /// rows since it was counted
    rows: usize,
    counted: Count,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub entries: usize,
    pub bytes: usize,
    /// levels of lists and maps
    pub depth: usize,
}

impl State {
    pub(super) fn new() -> Self {
        Self { value: Dynamic::from_map(Map::new()), rows: 0, counted: Count::default() }
    }

    /// The map itself, for a call for so many rows.
    pub(super) fn take(&mut self, rows: usize) -> Dynamic {
        self.rows += rows;
        std::mem::take(&mut self.value)
    }

    /// Takes it back. Returns whether it still is a map: a script can put something else in its place.
    pub(super) fn put_back(&mut self, value: Dynamic) -> bool {
        self.value = value;
        self.value.is_map()
    }

    fn map(&self) -> Option<impl std::ops::Deref<Target = Map> + '_> {
        self.value.as_map_ref().ok()
    }

    /// How much it was, not long ago.
    pub(super) fn count(&mut self) -> Count {
        if self.rows * ENTRIES_A_ROW > self.counted.entries {
            self.rows = 0;
            self.counted = self.map().map_or_else(Count::default, |map| count_map(&map));
        }
        self.counted
    }

    /// How much it was when it was counted last.
    pub(super) fn counted(&self) -> Count {
        self.counted
    }

    /// The name of the largest entry.
    pub(super) fn largest(&self) -> Option<String> {
        let map = self.map()?;
        map.iter().max_by_key(|(_, value)| count(value).bytes).map(|(name, _)| name.to_string())
    }

    /// Takes out what cannot be kept; returns where it was, and what.
    pub(super) fn purge(&mut self) -> Option<(String, &'static str)> {
        let mut map = self.value.as_map_mut().ok()?;
        let mut found = None;
        for (name, value) in map.iter_mut() {
            purge(value, &mut |path, what| {
                found.get_or_insert((format!("state.{name}{path}"), what));
            });
        }
        found
    }

    /// All of it, at rest; `None`: it is empty.
    ///
    /// # Errors
    /// When something in it cannot be kept.
    pub(super) fn seal(&self) -> Result<Option<SealedState>, RuleError> {
        let Some(map) = self.map() else { return Ok(None) };
        if map.is_empty() {
            return Ok(None);
        }
        let mut values = Vec::with_capacity(map.len());
        for (name, value) in map.iter() {
            let mut bytes = Vec::new();
            encode(value, &mut bytes).map_err(|(path, what)| {
                RuleError(format!("`state.{name}{path}` cannot be kept: it is {what}"))
            })?;
            values.push(bytes);
        }
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(map.keys()));
        let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(values));
        sealed(MAP, [("name", names), ("value", values)]).map(Some)
    }

    /// Takes over what another version kept. Returns whether `state` is such.
    ///
    /// # Errors
    /// When it is, and cannot be read.
    pub(super) fn restore(&mut self, state: &SealedState) -> Result<bool, RuleError> {
        if state.fingerprint != MAP {
            return Ok(false);
        }
        let unreadable = || RuleError("what the script kept cannot be read".to_owned());
        let batch = state.batch.as_ref().ok_or_else(unreadable)?;
        let names = batch.column_by_name("name").and_then(|names| names.as_string_opt::<i32>());
        let values = batch.column_by_name("value").and_then(|values| values.as_binary_opt::<i32>());
        let (names, values) = names.zip(values).ok_or_else(unreadable)?;
        let mut map = Map::new();
        for (name, value) in names.iter().zip(values) {
            let (name, value) = name.zip(value).ok_or_else(unreadable)?;
            map.insert(name.into(), decode(value).ok_or_else(unreadable)?);
        }
        self.counted = count_map(&map);
        self.rows = 0;
        self.value = Dynamic::from_map(map);
        Ok(true)
    }
}

fn sealed<const N: usize>(
    fingerprint: &str,
    columns: [(&str, ArrayRef); N],
) -> Result<SealedState, RuleError> {
    let batch = RecordBatch::try_from_iter(columns)
        .map_err(|error| RuleError(format!("what the script keeps is no batch: {error}")))?;
    Ok(SealedState { fingerprint: fingerprint.to_owned(), watermark: 0, batch: Some(batch) })
}

/// What has happened to a version of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Life {
    /// the SHA-256 of the version that has started; empty: none has
    pub started: String,
    /// how many rows in a row have reached a limit
    pub failures: i64,
}

impl Life {
    pub(super) fn seal(&self) -> Result<SealedState, RuleError> {
        let started: ArrayRef = Arc::new(StringArray::from_iter_values([&self.started]));
        let failures: ArrayRef = Arc::new(Int64Array::from(vec![self.failures]));
        sealed(LIFE, [("started", started), ("failures", failures)])
    }

    /// What `state` says; `None`: it is of something else.
    pub(super) fn restore(state: &SealedState) -> Option<Self> {
        let batch = state.batch.as_ref().filter(|batch| state.fingerprint == LIFE && batch.num_rows() > 0)?;
        let started = batch.column_by_name("started")?.as_string_opt::<i32>()?.value(0).to_owned();
        let failures = batch.column_by_name("failures")?.as_primitive_opt::<Int64Type>()?.value(0);
        Some(Self { started, failures })
    }
}

fn count_map(map: &Map) -> Count {
    let mut sum = Count { depth: 1, ..Count::default() };
    for (name, value) in map {
        let Count { entries, bytes, depth } = count(value);
        sum.entries += 1 + entries;
        sum.bytes += ENTRY + name.len() + bytes;
        sum.depth = sum.depth.max(depth + 1);
    }
    sum
}

fn count(value: &Dynamic) -> Count {
    if let Ok(map) = value.as_map_ref() {
        return count_map(&map);
    }
    if let Ok(array) = value.as_array_ref() {
        let mut sum = Count { entries: 0, bytes: ELEMENT * array.len(), depth: 1 };
        for value in array.iter() {
            let Count { entries, bytes, depth } = count(value);
            sum.entries += 1 + entries;
            sum.bytes += bytes;
            sum.depth = sum.depth.max(depth + 1);
        }
        return sum;
    }
    let bytes = if let Ok(text) = value.as_immutable_string_ref() {
        text.len()
    } else {
        value.as_blob_ref().map_or(0, |blob| blob.len())
    };
    Count { bytes, ..Count::default() }
}

/// Makes everything missing that cannot be kept.
fn purge(value: &mut Dynamic, found: &mut dyn FnMut(String, &'static str)) {
    if let Ok(mut map) = value.as_map_mut() {
        for (name, value) in map.iter_mut() {
            purge(value, &mut |path, what| found(format!(".{name}{path}"), what));
        }
        return;
    }
    if let Ok(mut array) = value.as_array_mut() {
        for (at, value) in array.iter_mut().enumerate() {
            purge(value, &mut |path, what| found(format!("[{at}]{path}"), what));
        }
        return;
    }
    if encode(value, &mut Vec::new()).is_err() {
        found(String::new(), kind(value));
        *value = Dynamic::UNIT;
    }
}
