//! What was read of a recording, for the summary at its end. What comes in floods is said once, and then
//! counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use tidegate_connectors::codec::Findings;
use tidegate_core::TS;

use super::{times, written};

/// The rows of one stream in one recording.
pub(super) struct Tally {
    pub stream: Arc<str>,
    pub file: Arc<str>,
    pub rows: u64,
    /// rows or messages that could not be read
    left_out: u64,
    /// values that are null because they do not fit their columns, or for which there was no column left
    wrong: u64,
    /// least and greatest event time
    times: Option<(i64, i64)>,
    /// columns that had no value yet
    empty: Option<BTreeSet<String>>,
}

impl Tally {
    pub(super) fn new(stream: &str, file: &str) -> Self {
        let (stream, file) = (Arc::from(stream), Arc::from(file));
        Self { stream, file, rows: 0, left_out: 0, wrong: 0, times: None, empty: None }
    }

    /// Whether nothing was read yet.
    pub(super) fn is_new(&self) -> bool {
        self.rows == 0 && self.left_out == 0
    }

    /// A row or message cannot be read.
    pub(super) fn leave_out(&mut self, line: u64, why: &str) {
        self.leave_out_rows(1, line, why);
    }

    fn leave_out_rows(&mut self, count: u64, line: u64, why: &str) {
        if self.left_out == 0 {
            let (stream, file) = (&self.stream, &self.file);
            tracing::warn!(%stream, %file, line, "left out, as all others like it: {why}");
        }
        self.left_out += count;
    }

    /// What a decoder found in a line; `hint` is added to values that do not fit.
    pub(super) fn note(&mut self, findings: Findings, line: u64, hint: &str) {
        let Findings { misfits, untimed, malformed_rows, not_taken, notes } = findings;
        if let Some(why) = malformed_rows.first {
            self.leave_out_rows(malformed_rows.count, line, &why);
        }
        if let Some(why) = untimed.first {
            self.leave_out_rows(untimed.count, line, &format!("the row has no time: {why}"));
        }
        let (stream, file) = (&self.stream, &self.file);
        if let Some(first) = misfits.first.filter(|_| self.wrong == 0) {
            tracing::warn!(
                %stream, %file, line,
                "a value does not fit its column and is null, as are all others like it: {first}{hint}"
            );
        }
        for note in notes {
            tracing::warn!(%stream, %file, line, "{note}");
        }
        self.wrong += misfits.count + not_taken;
    }

    /// Takes note of what is in `rows`.
    pub(super) fn look_at(&mut self, rows: &RecordBatch) {
        for ts in times(rows) {
            let (first, last) = self.times.get_or_insert((*ts, *ts));
            (*first, *last) = ((*first).min(*ts), (*last).max(*ts));
        }
        let names =
            || rows.schema_ref().fields().iter().map(|field| field.name().clone()).filter(|name| name != TS);
        let empty = self.empty.get_or_insert_with(|| names().collect());
        empty.retain(|name| {
            rows.column_by_name(name).is_none_or(|column| column.null_count() == column.len())
        });
    }

    /// Says what there was.
    pub(super) fn summarise(&self) {
        let Self { stream, file, rows, left_out, wrong, .. } = self;
        let [from, to] = [self.times.map(|(first, _)| first), self.times.map(|(_, last)| last)]
            .map(|ts| ts.map_or_else(String::new, written));
        let never = self.empty.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        if left_out + wrong > 0 {
            tracing::warn!(
                %stream,
                %file,
                rows,
                left_out,
                wrong_values = wrong,
                from,
                to,
                always_null = never,
                "read, not all of it",
            );
        } else {
            tracing::info!(%stream, %file, rows, from, to, always_null = never, "read");
        }
    }
}
