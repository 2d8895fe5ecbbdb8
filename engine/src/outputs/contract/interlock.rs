//! Interlocks: conditions over the newest rows of streams.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use tidegate_core::Rows;
use tidegate_rules::{Condition, ConditionError};

use super::instance::{At, Lock, Verdict};
use super::newest::{Ages, Newest, Seen};

/// A condition, as soon as the columns of its streams are known.
pub(super) struct Interlocked {
    when: Arc<str>,
    /// columns of the streams that there are, as far as they are known
    columns: BTreeMap<String, Option<SchemaRef>>,
    condition: Option<Condition>,
    /// streams that it looks at, or waits for
    streams: Vec<Arc<str>>,
    ages: Arc<Ages>,
}

/// What an interlock said of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) seq: u64,
    /// its place among the rows
    pub(super) row: usize,
    pub(super) instance: Arc<str>,
    /// which of the interlocks
    pub(super) lock: usize,
    pub(super) verdict: Verdict,
    pub(super) stale_at: Option<i64>,
    /// whether that is something else than before
    pub(super) turned: bool,
}

impl Interlocked {
    /// The condition `when` over streams with these columns.
    pub(super) fn new(
        when: &Arc<str>,
        columns: BTreeMap<String, Option<SchemaRef>>,
        ages: Arc<Ages>,
    ) -> Self {
        let when = Arc::clone(when);
        let mut new = Self { when, columns, condition: None, streams: Vec::new(), ages };
        new.compile();
        new
    }

    fn compile(&mut self) {
        match Condition::compile(&self.when, &self.columns) {
            Ok(condition) => {
                let mut streams: Vec<Arc<str>> =
                    condition.columns().iter().map(|column| Arc::clone(&column.stream)).collect();
                streams.sort();
                streams.dedup();
                (self.streams, self.condition) = (streams, Some(condition));
            }
            Err(ConditionError::Waiting(streams)) => {
                self.streams = streams.iter().map(|stream| Arc::from(stream.as_str())).collect();
            }
            // It was looked at when the configuration was read; columns may have become others since.
            Err(ConditionError::Wrong { message, help, .. }) => {
                tracing::error!(when = %self.when, help, "the interlock cannot be evaluated: {message}");
                self.condition = None;
            }
        }
    }

    /// Rows of `stream` have these columns.
    pub(super) fn learn(&mut self, stream: &str, schema: &SchemaRef) {
        let known = self.columns.get_mut(stream);
        if let Some(known) = known.filter(|known| known.as_ref().is_none_or(|known| known != schema)) {
            *known = Some(Arc::clone(schema));
            self.compile();
        }
    }

    pub(super) fn looks_at(&self, stream: &Arc<str>) -> bool {
        self.streams.contains(stream)
    }

    pub(super) fn streams(&self) -> Vec<Arc<str>> {
        self.streams.clone()
    }

    /// What it makes of `rows` of `stream`, one after the other: all that turns it, and the last.
    #[allow(clippy::too_many_arguments)] // they are where the rows stand
    pub(super) fn judge(
        &self,
        stream: &Arc<str>,
        rows: &Rows,
        newest: &Newest,
        instance: &Arc<str>,
        known: Option<&Lock>,
        lock: usize,
        max_age: Option<i64>,
        at: At,
    ) -> Vec<Judged> {
        let Some(condition) = &self.condition else { return Vec::new() };
        let Some(batch) = self.batch(condition, Some((stream, &rows.batch)), newest, instance, rows.len())
        else {
            return Vec::new();
        };
        let others: Vec<&Seen> = self
            .streams
            .iter()
            .filter(|other| *other != stream)
            .filter_map(|other| newest.get(other, instance))
            .collect();
        let mut is_free = known.and_then(|known| known.verdict.as_ref()).map(|known| *known == Verdict::Free);
        // After a silence the first row counts, though it says the same as the last one before.
        let is_tripped = known.is_some_and(|known| known.tripped.is_some());
        let mut judged = Vec::new();
        let results = results(condition, &batch);
        for row in 0..rows.len() {
            let own = Seen { row: rows.batch.slice(row, 1), seq: 0, arrived: at.now, age_then: 0 };
            let verdict = verdict(condition, &batch, row, &results, others.iter().copied().chain([&own]));
            let turned = is_free != Some(verdict == Verdict::Free);
            is_free = Some(verdict == Verdict::Free);
            if !turned && row + 1 < rows.len() && !(is_tripped && row == 0) {
                continue;
            }
            let own = self.ages.age(stream, &rows.batch, row, at.wall_ns);
            let oldest =
                others.iter().map(|seen| seen.is_as_old_at(0)).chain([at.now.saturating_sub(own)]).min();
            let stale_at = max_age.zip(oldest).map(|(age, oldest)| oldest.saturating_add(age));
            let (seq, instance) = (rows.seqs.get(row), Arc::clone(instance));
            judged.push(Judged { seq, row, instance, lock, verdict, stale_at, turned });
        }
        judged
    }

    /// What it makes of the newest rows, and until when they are young enough; none: one is not there.
    pub(super) fn now(
        &self,
        newest: &Newest,
        instance: &Arc<str>,
        max_age: Option<i64>,
    ) -> Option<(Verdict, Option<i64>)> {
        let condition = self.condition.as_ref()?;
        let batch = self.batch(condition, None, newest, instance, 1)?;
        let seen: Vec<&Seen> =
            self.streams.iter().filter_map(|stream| newest.get(stream, instance)).collect();
        let results = results(condition, &batch);
        let verdict = verdict(condition, &batch, 0, &results, seen.iter().copied());
        let oldest = seen.iter().map(|seen| seen.is_as_old_at(0)).min();
        Some((verdict, max_age.zip(oldest).map(|(age, oldest)| oldest.saturating_add(age))))
    }

    /// The columns that the condition looks at: those of `own` row by row, and the newest of others; none:
    /// there is no row of one.
    fn batch(
        &self,
        condition: &Condition,
        own: Option<(&Arc<str>, &RecordBatch)>,
        newest: &Newest,
        instance: &Arc<str>,
        rows: usize,
    ) -> Option<RecordBatch> {
        let zeros = UInt32Array::from(vec![0; rows]);
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (column, field) in condition.columns().iter().zip(condition.schema().fields()) {
            let found = match own {
                Some((stream, rows)) if **stream == *column.stream => {
                    rows.column_by_name(&column.column).cloned()
                }
                _ => {
                    let seen = newest.get(&column.stream, instance)?;
                    let one = seen.row.column_by_name(&column.column);
                    one.and_then(|one| arrow::compute::take(one, &zeros, None).ok())
                }
            };
            let found = found.unwrap_or_else(|| new_null_array(field.data_type(), rows));
            columns.push(if found.data_type() == field.data_type() {
                found
            } else {
                arrow::compute::cast(&found, field.data_type()).ok()?
            });
        }
        RecordBatch::try_new(Arc::clone(condition.schema()), columns).ok()
    }
}

/// Row by row whether the condition is true; a row for which it has no value is no fault of the others.
fn results(condition: &Condition, batch: &RecordBatch) -> Vec<Result<bool, String>> {
    let is_true = |verdicts: &BooleanArray, row: usize| verdicts.is_valid(row) && verdicts.value(row);
    match condition.evaluate(batch) {
        Ok(verdicts) => (0..batch.num_rows()).map(|row| Ok(is_true(&verdicts, row))).collect(),
        Err(_) => (0..batch.num_rows())
            .map(|row| {
                let verdict = condition.evaluate(&batch.slice(row, 1));
                verdict.map(|verdict| is_true(&verdict, 0)).map_err(|error| error.why)
            })
            .collect(),
    }
}

fn verdict<'a>(
    condition: &Condition,
    batch: &RecordBatch,
    row: usize,
    results: &[Result<bool, String>],
    seen: impl Iterator<Item = &'a Seen>,
) -> Verdict {
    for seen in seen {
        if let Some(quality) = seen.quality() {
            return Verdict::Not(format!("a row that it looks at is {quality}").into());
        }
    }
    match results.get(row) {
        Some(Ok(true)) => return Verdict::Free,
        Some(Err(error)) => return Verdict::Not(error.as_str().into()),
        Some(Ok(false)) | None => {}
    }
    let what = |(column, array): (&tidegate_rules::ConditionColumn, &ArrayRef)| {
        let value = if array.is_null(row) {
            "NULL".to_owned()
        } else {
            array_value_to_string(array, row).unwrap_or_default()
        };
        format!("{}.{} was {value}", column.stream, column.column)
    };
    let values: Vec<String> = condition.columns().iter().zip(batch.columns()).map(what).collect();
    Verdict::Not(values.join(", ").into())
}
