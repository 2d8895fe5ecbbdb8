//! What is kept, what is given up, and the state at rest: rows, and what they are to the search.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int8Array, RecordBatch, UInt64Array};
use arrow::compute::take_arrays;
use arrow::datatypes::{DataType, Field, Int8Type, Schema, UInt64Type};
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use tidegate_core::TS;

use super::search::Partition;
use super::{CROWD, MatchRows};
use crate::rule::Emissions;
use crate::sql::operators::at_rest::column_of;
use crate::sql::operators::{an_eighth, times};

/// Columns of the state at rest, beside those of the input.
const STATE: &str = "#state";
const MATCHES: &str = "#matches";

/// What rows at rest are: kept for those after them, searched, or waiting for their time.
const BEFORE: i8 = 0;
const CAME: i8 = 1;
const WAITS: i8 = 2;

impl MatchRows {
    /// Gives up an eighth of the matches that have begun, the oldest first; where there are none, of the rows
    /// that wait. Returns how many rows that are.
    pub(super) fn forget_oldest(&mut self) -> Result<usize> {
        let before = self.kept + self.waiting.len();
        let first = |partition: &Partition| partition.rows.front().map(|row| row.id);
        let mut begun: Vec<_> = self
            .partitions
            .iter()
            .enumerate()
            .filter_map(|(at, partition)| Some((first(partition)?, at)))
            .collect();
        begun.sort_unstable();
        let mut nobody = Emissions::default();
        for (_, at) in begun.iter().take(an_eighth(begun.len())) {
            self.work(*at, 0, &mut nobody, |_, partition, _| partition.forget());
        }
        if begun.is_empty() {
            for _ in 0..an_eighth(self.waiting.len()) {
                self.waiting.pop_first();
            }
        }
        self.clear_vacant()?;
        self.rows.keep(self.needed())?;
        Ok(before - self.kept - self.waiting.len())
    }

    /// The numbers of all rows that are needed.
    fn needed(&self) -> Vec<u64> {
        let kept = self.partitions.iter().flat_map(|partition| partition.rows.iter().map(|row| row.id));
        kept.chain(self.waiting.iter().map(|(_, id)| *id)).collect()
    }

    /// Clears away what nothing will ask for.
    pub(super) fn tidy(&mut self) -> Result<()> {
        if self.rows.is_cluttered(self.kept + self.waiting.len()) {
            self.rows.keep(self.needed())?;
        }
        if self.partitions.len() > 2 * self.crowd + CROWD { self.clear_vacant() } else { Ok(()) }
    }

    /// Forgets the keys that have no rows.
    fn clear_vacant(&mut self) -> Result<()> {
        let Some(mut keys) = self.keys.take() else { return Ok(()) };
        let columns = keys.emit(EmitTo::All)?;
        let old = std::mem::take(&mut self.partitions);
        let (places, kept): (Vec<u64>, Vec<Partition>) =
            (0_u64..).zip(old).filter(|(_, partition)| !partition.is_vacant()).unzip();
        self.partitions = kept;
        self.crowd = self.partitions.len();
        self.keys = self.no_keys()?;
        if let Some(keys) = self.keys.as_mut().filter(|_| self.crowd > 0) {
            keys.intern(&take_arrays(&columns, &UInt64Array::from(places), None)?, &mut self.groups)?;
        }
        self.wakes = self
            .partitions
            .iter()
            .enumerate()
            .filter_map(|(at, partition)| Some((partition.wake?, at)))
            .collect();
        Ok(())
    }

    /// The rows that are kept, in the order in which they came. A search is a function of its rows: it is
    /// done again.
    pub(super) fn give_away(&mut self) -> Result<Option<RecordBatch>> {
        let mut kept: Vec<(u64, i8, u64)> = self.waiting.iter().map(|(_, id)| (*id, WAITS, 0)).collect();
        for partition in &self.partitions {
            let state = |row: usize| if row < partition.start { BEFORE } else { CAME };
            kept.extend(
                partition.came().enumerate().map(|(row, came)| (came.id, state(row), partition.number)),
            );
        }
        kept.sort_unstable();
        let batch = if kept.is_empty() {
            None
        } else {
            let rows = self.rows.batch(&kept.iter().map(|(id, ..)| *id).collect::<Vec<_>>())?;
            let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(STATE, DataType::Int8, false)));
            fields.push(Arc::new(Field::new(MATCHES, DataType::UInt64, false)));
            let mut columns = rows.columns().to_vec();
            columns.push(Arc::new(Int8Array::from_iter_values(kept.iter().map(|(_, state, _)| *state))));
            columns.push(Arc::new(UInt64Array::from_iter_values(kept.iter().map(|(.., matches)| *matches))));
            Some(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
        };
        self.forget()?;
        Ok(batch)
    }

    /// Takes such rows over. What does not fit is added to `misfits`.
    pub(super) fn take_over(&mut self, sealed: &RecordBatch, misfits: &mut Vec<String>) -> Result<()> {
        let fields = self.rows.schema().fields().iter();
        let columns: Option<Vec<ArrayRef>> =
            fields.map(|field| column_of(sealed, field.name(), field.data_type())).collect();
        let states = sealed.column_by_name(STATE).and_then(|column| column.as_primitive_opt::<Int8Type>());
        let matches =
            sealed.column_by_name(MATCHES).and_then(|column| column.as_primitive_opt::<UInt64Type>());
        let (Some(columns), Some(states), Some(matches)) = (columns, states, matches) else {
            misfits.push(format!(
                "the columns that `{}` looks at have changed: it starts without rows",
                self.fingerprint
            ));
            return Ok(());
        };
        let batch = RecordBatch::try_new(Arc::clone(self.rows.schema()), columns)?;
        let ids = self.rows.push(&batch)?;
        let mut placed = Vec::new();
        for (((ts, id), state), matches) in
            times(&batch, TS)?.iter().zip(ids).zip(states.values()).zip(matches.values())
        {
            if *state == WAITS {
                self.waiting.insert((*ts, id));
            } else {
                placed.push((*ts, id, *state, *matches));
            }
        }
        placed.sort_unstable();
        let rows: Vec<(i64, u64)> = placed.iter().map(|(ts, id, ..)| (*ts, *id)).collect();
        // What could not be evaluated has been counted before.
        let mut counted = Emissions::default();
        let (groups, holds) = self.place(&rows, &mut counted)?;
        let mut before = vec![0; self.partitions.len()];
        for (((.., state, matches), group), holds) in placed.iter().zip(&groups).zip(holds) {
            if let (Some(partition), Some(before)) = (self.partitions.get_mut(*group), before.get_mut(*group))
            {
                *before += usize::from(*state == BEFORE);
                partition.number = *matches;
                partition.judge_next(holds);
            }
        }
        for (at, before) in before.into_iter().enumerate() {
            let ended = self.ended;
            self.work(at, 0, &mut counted, |search, partition, work| {
                // What was within limits row by row is so again.
                work.budget = usize::MAX;
                partition.resume(before);
                search.go_on(partition, work);
                search.expire(partition, ended, work);
            });
        }
        self.groups = groups;
        Ok(())
    }
}
