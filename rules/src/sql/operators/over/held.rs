//! `held`: a condition has been true for so long. It is the one function that does not wait for a row to say
//! so: when the time has come and no row with it, the key's last row is given once more.
//!
//! Whether a condition holds is known from rows, and how long it has held from the key's clock. A **moment**
//! is when it will have held for long enough. It passes when the watermark reaches it (in event-time order:
//! before any row that is later), or with a later row of the key itself, whichever is first. Until then a row
//! can break it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampNanosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::super::row_log::RowLog;
use super::super::{Chunk, Pass};
use super::Rows;
use super::keys::Keys;
use crate::sql::operators::at_rest::column_of;

/// One call of `held`.
#[derive(Debug)]
pub(in crate::sql) struct Held {
    pub fingerprint: String,
    pub condition: Arc<dyn PhysicalExpr>,
    /// how long it must hold
    pub for_ns: i64,
    /// the column of the result
    pub column: usize,
}

/// How it stands with one condition of one key.
#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    /// the key's time since when it holds
    since: Option<i64>,
    /// whether it has held for long enough, and somebody has been told
    told: bool,
    /// its entry among the moments
    moment: Option<Moment>,
}

/// When the watermark gets there; moments of one time in the order in which they were made.
type Moment = (i64, i64);

/// All calls of `held` of one OVER, and the last row of each key.
#[derive(Debug)]
pub(super) struct Waits {
    helds: Vec<Held>,
    /// the column whose value is the moment in a row that is given once more
    time_column: usize,
    /// whether rows come in the order of their times
    in_order: bool,
    /// how much `ts` may be behind the watermark
    delay_ns: i64,
    schema: SchemaRef,
    log: RowLog,
    /// by place
    last: Vec<Option<u32>>,
    /// by place, and then by call
    holds: Vec<Vec<Hold>>,
    /// place and call
    moments: BTreeMap<Moment, (usize, usize)>,
    made: i64,
    /// what the newest row that has come out in this pass is due to: none comes out before it, though its
    /// moment may have been long ago
    after: u32,
}

/// The rows that come out.
#[derive(Default)]
struct Lines {
    rows: Vec<Option<u32>>,
    causes: Vec<u32>,
    /// one of each call
    flags: Vec<Vec<bool>>,
    /// which are given once more, and the moment
    again: Vec<(usize, i64)>,
}

impl Waits {
    /// `schema` is that of the rows that come out.
    pub(super) fn new(
        helds: Vec<Held>,
        time_column: usize,
        in_order: bool,
        delay_ns: i64,
        schema: &SchemaRef,
    ) -> Self {
        let types = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        Self {
            helds,
            time_column,
            in_order,
            delay_ns,
            schema: Arc::clone(schema),
            log: RowLog::new(types),
            last: Vec::new(),
            holds: Vec::new(),
            moments: BTreeMap::new(),
            made: 0,
            after: 0,
        }
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        self.helds.iter().map(|held| &held.condition)
    }

    /// The watermark at which the next moment passes.
    pub(super) fn deadline(&self) -> Option<i64> {
        self.moments.first_key_value().map(|((at, _), _)| at.saturating_add(self.delay_ns))
    }

    /// Rows have come: `columns` are theirs, still without results of `held`, and `conditions` what those
    /// ask.
    pub(super) fn rows(
        &mut self,
        chunk: &Chunk,
        columns: Vec<ArrayRef>,
        rows: &Rows<'_>,
        conditions: &[ArrayRef],
        keys: &Keys,
        pass: &Pass<'_>,
    ) -> Result<Chunk> {
        self.last.resize(rows.keys.max(self.last.len()), None);
        self.holds.resize_with(rows.keys.max(self.holds.len()), || vec![Hold::default(); self.helds.len()]);
        let conditions: Vec<&BooleanArray> = conditions
            .iter()
            .map(|condition| condition.as_boolean_opt().ok_or_else(missing))
            .collect::<Result<_>>()?;
        let times = columns
            .get(self.time_column)
            .and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>())
            .ok_or_else(missing)?;
        let times = times.clone();
        let first = self.log.push(columns, chunk.len())?;
        let mut lines = self.lines();
        for ((at, place), (row, now)) in rows.places.iter().enumerate().zip((first..).zip(rows.times)) {
            let (cause, ts) = (chunk.cause(at), times.value(at));
            while let Some((moment, of)) = self.first_moment() {
                let by = pass.reached(moment.saturating_add(self.delay_ns)).filter(|by| *by <= cause);
                if !(self.in_order && moment < ts) && by.is_none_or(|by| by == cause) {
                    break;
                }
                self.tell(moment, of, by.unwrap_or(cause), keys, &mut lines);
            }
            while let Some(moment) = self.moment_of(*place).filter(|moment| *moment < ts) {
                self.tell(moment, *place, cause, keys, &mut lines);
            }
            let ahead = keys.ahead(*place).unwrap_or(0);
            for (call, condition) in conditions.iter().enumerate() {
                let holds = condition.is_valid(at).then(|| condition.value(at));
                let flag = self.step(*place, call, holds, *now, ahead);
                lines.flags.get_mut(call).ok_or_else(missing)?.push(flag);
            }
            if let Some(last) = self.last.get_mut(*place) {
                *last = Some(row);
            }
            lines.rows.push(Some(row));
            lines.causes.push(cause);
        }
        self.after = lines.causes.last().copied().unwrap_or(self.after);
        let made = self.chunk(lines)?;
        if self.log.wants_packing() {
            self.log.pack(self.last.iter_mut().flatten(), false)?;
        }
        Ok(made)
    }

    /// All rows of the pass have come: time passes. The end of the input is not time that passes.
    pub(super) fn time(&mut self, keys: &Keys, pass: &Pass<'_>) -> Result<Chunk> {
        let mut lines = self.lines();
        while let Some((moment, of)) = self.first_moment().filter(|_| !pass.ends) {
            let Some(by) = pass.reached(moment.saturating_add(self.delay_ns)) else { break };
            self.tell(moment, of, by, keys, &mut lines);
        }
        self.after = 0;
        self.chunk(lines)
    }

    fn lines(&self) -> Lines {
        Lines { flags: vec![Vec::new(); self.helds.len()], ..Lines::default() }
    }

    /// The first moment, and the place of its key.
    fn first_moment(&self) -> Option<(i64, usize)> {
        self.moments.first_key_value().map(|((at, _), (place, _))| (*at, *place))
    }

    /// The first moment of one key.
    fn moment_of(&self, place: usize) -> Option<i64> {
        self.holds.get(place)?.iter().filter_map(|hold| hold.moment).min().map(|(at, _)| at)
    }

    /// One row for one call.
    fn step(&mut self, place: usize, call: usize, holds: Option<bool>, now: i64, ahead: i64) -> bool {
        let Some(for_ns) = self.helds.get(call).map(|held| held.for_ns) else { return false };
        let Some(hold) = self.holds.get_mut(place).and_then(|holds| holds.get_mut(call)) else {
            return false;
        };
        match holds {
            Some(true) => {
                hold.since.get_or_insert(now);
            }
            Some(false) => {
                hold.moment.take().map(|moment| self.moments.remove(&moment));
                *hold = Hold::default();
            }
            None => {}
        }
        let Some(since) = hold.since else { return false };
        if now.saturating_sub(since) >= for_ns {
            hold.told = true;
            hold.moment.take().map(|moment| self.moments.remove(&moment));
        } else if let Some(at) = moment(since, for_ns, ahead).filter(|_| !hold.told && hold.moment.is_none())
        {
            let moment = (at, self.made);
            self.made += 1;
            hold.moment = Some(moment);
            self.moments.insert(moment, (place, call));
        }
        hold.told
    }

    /// The moment `at` of the key at `place` has passed: its last row is given once more.
    fn tell(&mut self, at: i64, place: usize, by: u32, keys: &Keys, lines: &mut Lines) {
        let now = at.saturating_add(keys.ahead(place).unwrap_or(0));
        let Some(holds) = self.holds.get_mut(place) else { return };
        for ((hold, held), flags) in holds.iter_mut().zip(&self.helds).zip(&mut lines.flags) {
            if hold.since.is_some_and(|since| now.saturating_sub(since) >= held.for_ns) {
                hold.told = true;
            }
            if let Some(moment) = hold.moment.take_if(|(moment, _)| *moment <= at) {
                self.moments.remove(&moment);
            }
            flags.push(hold.told);
        }
        lines.again.push((lines.rows.len(), at));
        lines.rows.push(self.last.get(place).copied().flatten());
        lines.causes.push(by.max(lines.causes.last().copied().unwrap_or(self.after)));
    }

    /// The rows of the log that `lines` name, with the results of `held`.
    fn chunk(&self, lines: Lines) -> Result<Chunk> {
        if lines.rows.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        let mut columns = self.log.gather_all(&lines.rows)?;
        for (held, flags) in self.helds.iter().zip(lines.flags) {
            *columns.get_mut(held.column).ok_or_else(missing)? = Arc::new(BooleanArray::from(flags));
        }
        if !lines.again.is_empty() {
            let times = columns.get_mut(self.time_column).ok_or_else(missing)?;
            let mut moments =
                times.as_primitive_opt::<TimestampNanosecondType>().ok_or_else(missing)?.values().to_vec();
            for (row, moment) in lines.again {
                *moments.get_mut(row).ok_or_else(missing)? = moment;
            }
            *times =
                Arc::new(TimestampNanosecondArray::from(moments).with_data_type(times.data_type().clone()));
        }
        Ok(Chunk {
            batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?,
            causes: Some(lines.causes),
        })
    }

    /// The box's clock was set back: moments are made anew with the next row of each key.
    pub(super) fn start_anew(&mut self) {
        self.moments.clear();
        self.holds.iter_mut().flatten().for_each(|hold| hold.moment = None);
    }

    pub(super) fn keep(&mut self, places: &[usize]) -> Result<()> {
        let all = self.last.len();
        self.last = places.iter().map(|place| self.last.get(*place).copied().flatten()).collect();
        self.holds = places
            .iter()
            .map(|place| self.holds.get_mut(*place).map(std::mem::take).unwrap_or_default())
            .collect();
        self.index_moments();
        if self.last.len() == all { Ok(()) } else { self.log.pack(self.last.iter_mut().flatten(), true) }
    }

    fn index_moments(&mut self) {
        let holds = self.holds.iter().enumerate();
        let moments = holds.flat_map(|(place, holds)| {
            holds.iter().enumerate().map(move |(call, hold)| (hold.moment, (place, call)))
        });
        self.moments = moments.filter_map(|(moment, of)| Some((moment?, of))).collect();
    }

    pub(super) fn bytes(&self) -> usize {
        let key = size_of::<Option<u32>>() + size_of::<Vec<Hold>>() + self.helds.len() * size_of::<Hold>();
        self.log.bytes()
            + self.holds.len() * key
            + self.moments.len() * 2 * size_of::<(Moment, (usize, usize))>()
    }

    /// The last row of each key, and how it stands with each call, by fingerprint.
    pub(super) fn seal(&mut self) -> Result<(RecordBatch, Vec<(String, RecordBatch)>)> {
        let last = RecordBatch::try_new(Arc::clone(&self.schema), self.log.gather_all(&self.last)?)?;
        let mut sealed = Vec::new();
        for (call, held) in self.helds.iter().enumerate() {
            let holds: Vec<Hold> =
                self.holds.iter().map(|holds| holds.get(call).copied().unwrap_or_default()).collect();
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter(holds.iter().map(|hold| hold.since))),
                Arc::new(BooleanArray::from_iter(holds.iter().map(|hold| Some(hold.told)))),
                Arc::new(Int64Array::from_iter(holds.iter().map(|hold| hold.moment.map(|(at, _)| at)))),
                Arc::new(Int64Array::from_iter(holds.iter().map(|hold| hold.moment.map(|(_, made)| made)))),
            ];
            sealed.push((held.fingerprint.clone(), RecordBatch::try_new(Arc::new(hold_schema()), columns)?));
        }
        Ok((last, sealed))
    }

    /// Takes over the last rows of `keys` keys. A column that they have not is null.
    pub(super) fn restore_last(&mut self, last: &RecordBatch) -> Result<()> {
        let columns = self.schema.fields().iter().map(|field| {
            column_of(last, field.name(), field.data_type())
                .unwrap_or_else(|| new_null_array(field.data_type(), last.num_rows()))
        });
        let first = self.log.push(columns.collect(), last.num_rows())?;
        self.last = (first..).take(last.num_rows()).map(Some).collect();
        self.holds = vec![vec![Hold::default(); self.helds.len()]; last.num_rows()];
        Ok(())
    }

    /// The fingerprints of the calls.
    pub(super) fn fingerprints(&self) -> Vec<String> {
        self.helds.iter().map(|held| held.fingerprint.clone()).collect()
    }

    /// Takes over how it stands with one call. An interval that is another now counts from the same
    /// beginning.
    pub(super) fn restore_call(&mut self, call: usize, batch: &RecordBatch, keys: &Keys) -> Result<()> {
        let int = |n: usize| {
            batch
                .columns()
                .get(n)
                .and_then(|column| column.as_primitive_opt::<Int64Type>())
                .ok_or_else(missing)
        };
        let (since, at, made) = (int(0)?, int(2)?, int(3)?);
        let told = batch.columns().get(1).and_then(|column| column.as_boolean_opt()).ok_or_else(missing)?;
        let for_ns = self.helds.get(call).map(|held| held.for_ns).ok_or_else(missing)?;
        for (row, holds) in self.holds.iter_mut().enumerate().take(batch.num_rows()) {
            let since = since.is_valid(row).then(|| since.value(row));
            let moment = match (since, keys.ahead(row)) {
                (Some(since), Some(ahead)) if at.is_valid(row) => {
                    moment(since, for_ns, ahead).map(|at| (at, made.value(row)))
                }
                _ => None,
            };
            self.made = self.made.max(moment.map_or(0, |(_, made)| made + 1));
            if let Some(hold) = holds.get_mut(call) {
                *hold = Hold { since, told: told.value(row), moment };
            }
        }
        self.index_moments();
        Ok(())
    }
}

/// When a condition that holds since `since` will have held for `for_ns`, for a key whose clock is so much
/// ahead. `None`: not before the end of time.
fn moment(since: i64, for_ns: i64, ahead: i64) -> Option<i64> {
    since.checked_add(for_ns).map(|at| at.saturating_sub(ahead))
}

fn hold_schema() -> Schema {
    let fields = [
        ("since", DataType::Int64),
        ("told", DataType::Boolean),
        ("moment", DataType::Int64),
        ("made", DataType::Int64),
    ];
    Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec())
}

fn missing() -> DataFusionError {
    DataFusionError::Internal("what `held` remembers is missing".into())
}
