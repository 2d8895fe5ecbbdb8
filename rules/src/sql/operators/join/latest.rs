//! Each row of one stream with the latest row of another: `JOIN s FOR SYSTEM_TIME AS OF ..`.
//!
//! By arrival, the latest row is the one that has come last: one row a key is kept, and nothing waits. By
//! event time, it is the one with the greatest `ts` that is not after the row's own: so a row waits until the
//! watermark reaches its `ts`, and rows of the other stream are kept until no row can ask for them any more.
//!
//! The latest row of a key is kept for ever, unless there is a time to live: then a row that is so much older
//! than the one that asks, or than the watermark, is not found, which is a matter of their times alone, and
//! so it can be forgotten at any time after that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::TS;

use super::kept::{KeptRows, side_by_side};
use super::keys::Keys;
use super::pairs_that_hold;
use crate::rule::SealedState;
use crate::sql::operators::at_rest::{rows_of, take_state};
use crate::sql::operators::{Chunk, Held, Operator, Pass, an_eighth, each_evaluable, times, written};

/// What a key costs, with the set of its rows, and what a row costs beside its columns: its place in the
/// order of time.
const BYTES_A_KEY: usize = 300;
const BYTES_A_ROW: usize = 80;

/// Which row is the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) enum Moment {
    /// the one that has come last
    Arrival,
    /// the one with the greatest `ts` that is not after the row's own; the slack of both inputs, as far as
    /// `ts` may be behind the watermark
    EventTime { left_slack: i64, right_slack: i64 },
}

/// The operator.
#[derive(Debug)]
pub(in crate::sql) struct LatestJoin {
    left: Box<dyn Operator>,
    right: Box<dyn Operator>,
    left_keys: Keys,
    right_keys: Keys,
    moment: Moment,
    /// whether rows without a partner are written
    outer: bool,
    /// what must hold of the latest row
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// what is kept
    fingerprint: String,
    schema: SchemaRef,
    /// rows of the left side that wait for the watermark, by (`ts`, number)
    waiting: KeptRows,
    waits: BTreeMap<(i64, u64), Option<Arc<[u8]>>>,
    /// rows of the right side that can still be the latest: of each key, and of all, by (`ts`, number)
    versions: KeptRows,
    by_key: HashMap<Arc<[u8]>, BTreeSet<(i64, u64)>>,
    by_time: BTreeMap<(i64, u64), Version>,
    /// those that the watermark has not reached
    unsettled: BTreeSet<(i64, u64)>,
    /// how old a row of the right side may be and still be found
    ttl_ns: Option<i64>,
    /// the watermark at which somebody should look which are too old
    check_at: i64,
    /// by event time, rows of the right side of this time or before have been given up
    forgotten_to: Option<i64>,
}

/// A row of the right side.
#[derive(Debug)]
struct Version {
    key: Arc<[u8]>,
    /// its event time, if there is a time to live
    ts: i64,
}

/// What belongs to the join.
pub(in crate::sql) struct LatestJoinParts {
    pub left: Box<dyn Operator>,
    pub right: Box<dyn Operator>,
    pub keys: (Keys, Keys),
    pub moment: Moment,
    pub outer: bool,
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    /// how old the latest row may be, if there is a limit; then both sides have a `ts`
    pub ttl_ns: Option<i64>,
}

/// A row of the left side on its way out.
struct Asking {
    cause: u32,
    /// the greatest `ts` that a version may have
    until: i64,
    /// what time it is for it, if there is a time to live
    now: i64,
    id: u64,
    key: Option<Arc<[u8]>>,
}

/// The rows of the right side that have come in this pass, each with its cause.
#[derive(Default)]
struct New {
    rows: Vec<(u64, u32)>,
}

impl New {
    /// Whether the row `id` has come when the row of the pass with this index has.
    fn has_come(&self, id: u64, cause: u32) -> bool {
        let row = self
            .rows
            .first()
            .and_then(|(first, _)| self.rows.get(usize::try_from(id.checked_sub(*first)?).ok()?));
        row.is_none_or(|(_, came)| *came <= cause)
    }
}

impl LatestJoin {
    /// `fingerprint` says what is kept; `schema` has the columns of the left side, then those of the right
    /// one.
    pub(in crate::sql) fn new(parts: LatestJoinParts, fingerprint: String, schema: SchemaRef) -> Self {
        let LatestJoinParts { left, right, keys: (left_keys, right_keys), moment, outer, condition, ttl_ns } =
            parts;
        let (waiting, versions) =
            (KeptRows::new(Arc::clone(left.schema())), KeptRows::new(Arc::clone(right.schema())));
        Self {
            left,
            right,
            left_keys,
            right_keys,
            moment,
            outer,
            condition,
            fingerprint,
            schema,
            waiting,
            waits: BTreeMap::new(),
            versions,
            by_key: HashMap::new(),
            by_time: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            ttl_ns,
            check_at: i64::MIN,
            forgotten_to: None,
        }
    }

    /// Keeps the rows of the right side.
    fn learn(&mut self, rows: &Chunk, pass: &mut Pass<'_>) -> Result<New> {
        let mut new = New::default();
        if rows.is_empty() {
            return Ok(new);
        }
        let mut parts = Vec::with_capacity(1);
        each_evaluable(rows, pass.out, &mut |part| {
            let (order, ages) = (self.order(&part.batch)?, self.ages(&part.batch)?);
            parts.push((part.clone(), self.right_keys.of(&part.batch)?, order, ages));
            Ok(())
        });
        for (part, keys, order, ts) in parts {
            let is_forgotten = |ts: i64| self.forgotten_to.is_some_and(|to| ts <= to);
            let on_time = |row: &usize| match (self.moment, time(&order, *row)) {
                (Moment::Arrival, _) => true,
                (Moment::EventTime { right_slack, .. }, ts) => {
                    ts.saturating_add(right_slack) >= pass.before(part.cause(*row)) && !is_forgotten(ts)
                }
            };
            let (mut good, late): (Vec<usize>, Vec<usize>) = (0..part.len()).partition(on_time);
            late.iter().for_each(|row| pass.too_late(part.cause(*row), self.right.gives_input_rows()));
            good.retain(|row| keys.get(*row).is_some());
            let batch =
                if good.len() == part.len() { part.batch.clone() } else { part.take(indices(&good))?.batch };
            let first = self.versions.push(batch)?;
            for (row, id) in good.into_iter().zip(first..) {
                new.rows.push((id, part.cause(row)));
                let Some(key) = keys.get(row) else { continue };
                let key = self
                    .by_key
                    .get_key_value(key)
                    .map_or_else(|| Arc::from(key), |(known, _)| Arc::clone(known));
                self.remember((time(&order, row), id), key, time(&ts, row));
            }
        }
        Ok(new)
    }

    /// From now on a row of the right side can be found.
    fn remember(&mut self, at: (i64, u64), key: Arc<[u8]>, ts: i64) {
        self.unsettled.insert(at);
        self.by_time.insert(at, Version { key: Arc::clone(&key), ts });
        self.by_key.entry(key).or_default().insert(at);
    }

    /// A row of the right side is of no use any more.
    fn forget(&mut self, at: (i64, u64)) -> Result<()> {
        self.unsettled.remove(&at);
        if let Some(Version { key, .. }) = self.by_time.remove(&at)
            && let Some(versions) = self.by_key.get_mut(&key)
        {
            versions.remove(&at);
            if versions.is_empty() {
                self.by_key.remove(&key);
            }
        }
        self.versions.forget(at.1)
    }

    /// The `ts` of each row. By arrival all are one moment, and the number decides.
    fn order(&self, batch: &RecordBatch) -> Result<Vec<i64>> {
        match self.moment {
            Moment::Arrival => Ok(vec![i64::MIN; batch.num_rows()]),
            Moment::EventTime { .. } => Ok(times(batch, TS)?.to_vec()),
        }
    }

    /// The event time of each row, where it matters how old rows are.
    fn ages(&self, batch: &RecordBatch) -> Result<Vec<i64>> {
        match self.ttl_ns {
            None => Ok(vec![i64::MIN; batch.num_rows()]),
            Some(_) => Ok(times(batch, TS)?.to_vec()),
        }
    }

    /// Takes rows of the left side in.
    fn ask(&mut self, rows: &Chunk, pass: &mut Pass<'_>) -> Result<Vec<Asking>> {
        let mut parts = Vec::with_capacity(1);
        each_evaluable(rows, pass.out, &mut |part| {
            let (order, ages) = (self.order(&part.batch)?, self.ages(&part.batch)?);
            parts.push((part.clone(), self.left_keys.of(&part.batch)?, order, ages));
            Ok(())
        });
        let mut come = Vec::new();
        for (part, keys, order, ages) in parts.into_iter().filter(|(part, ..)| !part.is_empty()) {
            let on_time = |row: &usize| match self.moment {
                Moment::Arrival => true,
                Moment::EventTime { left_slack, .. } => {
                    time(&order, *row).saturating_add(left_slack) >= pass.before(part.cause(*row))
                }
            };
            let (good, late): (Vec<usize>, Vec<usize>) = (0..part.len()).partition(on_time);
            late.iter().for_each(|row| pass.too_late(part.cause(*row), self.left.gives_input_rows()));
            let batch = if late.is_empty() { part.batch.clone() } else { part.take(indices(&good))?.batch };
            let first = self.waiting.push(batch)?;
            for (row, id) in good.into_iter().zip(first..) {
                let key = keys.get(row).map(|key| {
                    self.by_key
                        .get_key_value(key)
                        .map_or_else(|| Arc::from(key), |(known, _)| Arc::clone(known))
                });
                let cause = part.cause(row);
                come.push(Asking {
                    cause,
                    until: time(&order, row),
                    now: time(&ages, row).max(pass.before(cause)),
                    id,
                    key,
                });
            }
        }
        let Moment::EventTime { right_slack, .. } = self.moment else { return Ok(come) };
        // Those that waited before have lower numbers.
        let first = come.first().map_or(u64::MAX, |row| row.id);
        let causes: Vec<u32> = come.iter().map(|row| row.cause).collect();
        self.waits.extend(come.into_iter().map(|row| ((row.until, row.id), row.key)));
        let mut asking = Vec::new();
        while let Some((ts, id)) = self.waits.first_key_value().map(|(at, _)| *at) {
            let Some(reached) = pass.reached(ts.saturating_add(right_slack)) else { break };
            let came = id.checked_sub(first).and_then(|row| causes.get(row as usize)).copied().unwrap_or(0);
            if let Some((_, key)) = self.waits.pop_first() {
                asking.push(Asking { cause: reached.max(came), until: ts, now: ts, id, key });
            }
        }
        asking.sort_by_key(|row| row.cause);
        Ok(asking)
    }

    /// The number of the latest row for `row`, of those that have come by its cause.
    fn latest(&self, row: &Asking, new: &New) -> Option<u64> {
        let versions = self.by_key.get(row.key.as_ref()?)?;
        let mut newest_first = versions.range(..=(row.until, u64::MAX)).rev();
        let at = newest_first.find(|(_, id)| new.has_come(*id, row.cause))?;
        let is_too_old =
            |ttl: i64| self.by_time.get(at).is_none_or(|version| row.now.saturating_sub(version.ts) > ttl);
        if self.ttl_ns.is_some_and(is_too_old) { None } else { Some(at.1) }
    }

    /// Writes the rows, each with its latest one.
    fn answer(&self, asking: &[Asking], new: &New, pass: &mut Pass<'_>) -> Result<Chunk> {
        let latest: Vec<Option<u64>> = asking.iter().map(|row| self.latest(row, new)).collect();
        let met: Vec<usize> =
            latest.iter().enumerate().filter(|(_, latest)| latest.is_some()).map(|(row, _)| row).collect();
        let left_of =
            |rows: &[usize]| rows.iter().map(|row| asking.get(*row).map(|row| row.id)).collect::<Vec<_>>();
        let right_of =
            |rows: &[usize]| rows.iter().map(|row| latest.get(*row).copied().flatten()).collect::<Vec<_>>();
        let hold: Vec<usize> = match &self.condition {
            None => met,
            Some(_) => {
                let (left, right) = (left_of(&met), right_of(&met));
                let both = side_by_side(&self.schema, (&self.waiting, &left), (&self.versions, &right))?;
                let hold = pairs_that_hold(self.condition.as_ref(), &both, pass.out);
                hold.into_iter().filter_map(|pair| met.get(pair).copied()).collect()
            }
        };
        let (left, right): (Vec<_>, Vec<_>) = if self.outer {
            let mut right = vec![None; asking.len()];
            for row in hold {
                if let (Some(right), Some(latest)) = (right.get_mut(row), latest.get(row)) {
                    *right = *latest;
                }
            }
            (asking.iter().map(|row| Some(row.id)).collect(), right)
        } else {
            (left_of(&hold), right_of(&hold))
        };
        if left.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        let causes: HashMap<u64, u32> = asking.iter().map(|row| (row.id, row.cause)).collect();
        let causes = left.iter().filter_map(|id| causes.get(&(*id)?).copied()).collect();
        Ok(Chunk {
            batch: side_by_side(&self.schema, (&self.waiting, &left), (&self.versions, &right))?,
            causes: Some(causes),
        })
    }

    /// Forgets the rows of the right side that no row can ask for any more.
    fn settle(&mut self, pass: &Pass<'_>) -> Result<()> {
        let settled = match self.moment {
            Moment::Arrival => i64::MAX,
            Moment::EventTime { left_slack, right_slack } => pass
                .watermarks
                .last()
                .copied()
                .unwrap_or(i64::MIN)
                .saturating_sub(left_slack.max(right_slack)),
        };
        while let Some(at) = self.unsettled.pop_first() {
            if at.0 > settled {
                self.unsettled.insert(at);
                break;
            }
            let Some(versions) = self.by_time.get(&at).and_then(|version| self.by_key.get_mut(&version.key))
            else {
                continue;
            };
            let rest = versions.split_off(&at);
            for old in std::mem::replace(versions, rest) {
                self.by_time.remove(&old);
                self.versions.forget(old.1)?;
            }
        }
        Ok(())
    }

    /// Forgets the rows of the right side that are too old for every row that can come. A row is kept for at
    /// most twice as long as it must be.
    fn expire(&mut self, pass: &Pass<'_>) -> Result<()> {
        let Some(ttl_ns) = self.ttl_ns else { return Ok(()) };
        let watermark = pass.watermarks.last().copied().unwrap_or(i64::MIN);
        if pass.ends || watermark == i64::MIN || watermark < self.check_at {
            return Ok(());
        }
        self.check_at = watermark.saturating_add(ttl_ns);
        let slack = match self.moment {
            Moment::Arrival => 0,
            Moment::EventTime { left_slack, right_slack } => left_slack.max(right_slack),
        };
        let oldest = watermark.saturating_sub(slack).saturating_sub(ttl_ns);
        let old: Vec<(i64, u64)> =
            self.by_time.iter().filter(|(_, version)| version.ts < oldest).map(|(at, _)| *at).collect();
        old.into_iter().try_for_each(|at| self.forget(at))
    }

    fn fingerprint_of(&self, side: &str) -> String {
        format!("{side} OF {}", self.fingerprint)
    }

    /// Takes over rows of a side: they came before all others.
    fn take_over(&mut self, side: Side, batch: &RecordBatch) -> Result<()> {
        let (kept, keys) = match side {
            Side::Left => (&mut self.waiting, &self.left_keys),
            Side::Right => (&mut self.versions, &self.right_keys),
        };
        let rows = RecordBatch::try_new(Arc::clone(kept.schema()), batch.columns().to_vec())?;
        let keys = keys.of(&rows)?;
        let first = kept.push(rows.clone())?;
        let (order, ts) = (self.order(&rows)?, self.ages(&rows)?);
        for (row, id) in (0..rows.num_rows()).zip(first..) {
            let at = (time(&order, row), id);
            let key = keys.get(row).map(Arc::<[u8]>::from);
            match (side, key) {
                (Side::Left, key) => drop(self.waits.insert(at, key)),
                (Side::Right, Some(key)) => self.remember(at, key, time(&ts, row)),
                (Side::Right, None) => {}
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Left,
    Right,
}

fn time(ts: &[i64], row: usize) -> i64 {
    ts.get(row).copied().unwrap_or(i64::MIN)
}

fn indices(rows: &[usize]) -> Vec<u32> {
    rows.iter().filter_map(|row| u32::try_from(*row).ok()).collect()
}

impl Operator for LatestJoin {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.left, &*self.right]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.left, &mut *self.right]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let left = self.left.run(pass)?;
        let right = self.right.run(pass)?;
        let new = self.learn(&right, pass)?;
        let asking = self.ask(&left, pass)?;
        let answer = self.answer(&asking, &new, pass)?;
        asking.iter().try_for_each(|row| self.waiting.forget(row.id))?;
        self.settle(pass)?;
        self.expire(pass)?;
        if pass.ends {
            (self.check_at, self.forgotten_to) = (i64::MIN, None);
        }
        Ok(answer)
    }

    fn explain(&self) -> String {
        let condition = self
            .condition
            .as_ref()
            .map(|condition| format!(", where {}", written(condition)))
            .unwrap_or_default();
        format!("join {}{condition}", self.fingerprint)
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }

    fn is_timed(&self) -> bool {
        self.moment != Moment::Arrival || self.ttl_ns.is_some()
    }

    fn delay_ns(&self) -> i64 {
        match self.moment {
            Moment::Arrival => self.left.delay_ns(),
            Moment::EventTime { left_slack, right_slack } => left_slack.max(right_slack),
        }
    }

    fn end_delay_ns(&self) -> i64 {
        match self.moment {
            Moment::Arrival => self.left.end_delay_ns(),
            Moment::EventTime { left_slack, right_slack } => {
                left_slack.max(right_slack).max(self.left.end_delay_ns())
            }
        }
    }

    fn deadline(&self) -> Option<i64> {
        let Moment::EventTime { right_slack, .. } = self.moment else { return None };
        self.waits.first_key_value().map(|((ts, _), _)| ts.saturating_add(right_slack))
    }

    fn held(&self) -> Held {
        let entries = self.waits.len() + self.by_time.len();
        Held {
            entries,
            bytes: self.waiting.bytes()
                + self.versions.bytes()
                + self.by_key.len() * BYTES_A_KEY
                + entries * BYTES_A_ROW,
        }
    }

    /// Rows that wait are not written; a key whose rows have been given up is unknown until its next row
    /// comes, as it was before its first.
    fn shed(&mut self) -> Result<usize> {
        if self.waiting.bytes() > self.versions.bytes() {
            let rows = an_eighth(self.waits.len());
            for _ in 0..rows {
                let Some(((_, id), _)) = self.waits.pop_first() else { break };
                self.waiting.forget(id)?;
            }
            self.waiting.tidy()?;
            return Ok(rows);
        }
        let rows = an_eighth(self.by_time.len());
        for _ in 0..rows {
            let Some(at) = self.by_time.first_key_value().map(|(at, _)| *at) else { break };
            if self.moment != Moment::Arrival {
                self.forgotten_to = self.forgotten_to.max(Some(at.0));
            }
            self.forget(at)?;
        }
        self.versions.tidy()?;
        Ok(rows)
    }

    /// The rows of each side as they came. The watermark is the time up to which rows have been given up.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let (waiting, versions) = (self.waiting.take_all()?.1, self.versions.take_all()?.1);
        (self.waits, self.by_key) = (BTreeMap::new(), HashMap::new());
        (self.by_time, self.unsettled) = (BTreeMap::new(), BTreeSet::new());
        let sealed = |side: &str, batch: RecordBatch| SealedState {
            fingerprint: self.fingerprint_of(side),
            watermark: self.forgotten_to.unwrap_or(i64::MIN),
            batch: (batch.num_rows() > 0).then_some(batch),
        };
        Ok(vec![sealed("LEFT", waiting), sealed("RIGHT", versions)])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        for (name, side) in [("LEFT", Side::Left), ("RIGHT", Side::Right)] {
            let fingerprint = self.fingerprint_of(name);
            let Some(SealedState { watermark, batch, .. }) = take_state(state, &fingerprint) else {
                continue;
            };
            self.forgotten_to = Some(watermark).filter(|time| *time > i64::MIN);
            let Some(batch) = batch else { continue };
            let schema = match side {
                Side::Left => self.waiting.schema(),
                Side::Right => self.versions.schema(),
            };
            match rows_of(&batch, schema) {
                Some(batch) => self.take_over(side, &batch)?,
                None => misfits
                    .push(format!("the rows that `{fingerprint}` keeps had other columns and are dropped")),
            }
        }
        Ok(())
    }
}
