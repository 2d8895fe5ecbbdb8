//! Stream with stream: pairs of rows whose event times are no further apart than a reach says.
//!
//! A row is kept until the watermark says that no partner can come any more. Then, in an outer join, it is
//! written alone if it has met nobody; that is due to the row that moved the watermark. A row that comes with
//! a time before the watermark is late: its partners may have gone.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::kept::{KeptRows, side_by_side};
use super::keys::Keys;
use super::pairs_that_hold;
use crate::expression::evaluate;
use crate::rule::SealedState;
use crate::sql::operators::at_rest::{rows_of, take_state};
use crate::sql::operators::{Chunk, Held, Operator, Pass, an_eighth, each_evaluable, written};

/// What a key costs, with the list of its rows, and what a row costs beside its columns: its place in the
/// order of time, and among those that have met nobody.
const BYTES_A_KEY: usize = 160;
const BYTES_A_ROW: usize = 64;
const BYTES_ALONE: usize = 32;

/// Which partners a row of the left side has: those whose time is its own and between these many nanoseconds
/// more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) struct Reach {
    pub from: i64,
    pub to: i64,
}

/// One input of the join.
#[derive(Debug)]
pub(in crate::sql) struct IntervalSide {
    input: Box<dyn Operator>,
    keys: Keys,
    /// the event time that the reach is about
    time: Arc<dyn PhysicalExpr>,
    /// how much a row's time may be behind the watermark before it is late
    slack: i64,
    /// whether rows without a partner are written
    outer: bool,
    /// how far the watermark must be beyond a row's time until it can be forgotten
    waits: i64,
    kept: KeptRows,
    by_key: HashMap<Arc<[u8]>, VecDeque<Partner>>,
    /// by time, and then in order of arrival; the key of each
    by_time: BTreeMap<(i64, u64), Option<Arc<[u8]>>>,
    /// rows that have met nobody, where that matters; and whether a partner of theirs may have been given up
    /// before they came
    alone: BTreeMap<(i64, u64), bool>,
    /// rows of this time or before have been given up
    forgotten_to: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Partner {
    id: u64,
    time: i64,
}

/// What has come for one side in this pass.
#[derive(Default)]
struct Arrivals {
    rows: Vec<Arrival>,
}

struct Arrival {
    cause: u32,
    id: u64,
    /// `None`: it has no time, and so no partner
    time: Option<i64>,
    /// `None`: null, which equals nothing
    key: Option<Arc<[u8]>>,
}

/// Rows to be written, in the order in which they are.
#[derive(Default)]
struct Found {
    causes: Vec<u32>,
    left: Vec<Option<u64>>,
    right: Vec<Option<u64>>,
}

impl IntervalSide {
    /// `slack` is how much the time of a row that is not late may be behind the watermark.
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        keys: Keys,
        time: Arc<dyn PhysicalExpr>,
        slack: i64,
        outer: bool,
    ) -> Self {
        let kept = KeptRows::new(Arc::clone(input.schema()));
        let (by_key, by_time, alone) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { input, keys, time, slack, outer, waits: 0, kept, by_key, by_time, alone, forgotten_to: None }
    }

    /// Runs the input and keeps its rows; those that are late are counted and left out.
    fn take(&mut self, pass: &mut Pass<'_>) -> Result<Arrivals> {
        let rows = self.input.run(pass)?;
        let mut arrivals = Arrivals::default();
        if rows.is_empty() {
            return Ok(arrivals);
        }
        let mut parts = Vec::with_capacity(1);
        each_evaluable(&rows, pass.out, &mut |part| {
            let times = evaluate(&self.time, &part.batch)?;
            parts.push((part.clone(), times, self.keys.of(&part.batch)?));
            Ok(())
        });
        let is_input = self.input.gives_input_rows();
        for (part, times, keys) in parts {
            let times = event_times(&times)?;
            let is_late = |row: &usize| {
                times(*row)
                    .is_some_and(|time| time.saturating_add(self.slack) < pass.before(part.cause(*row)))
            };
            let (late, mut good): (Vec<usize>, Vec<usize>) = (0..part.len()).partition(is_late);
            late.iter().for_each(|row| pass.too_late(part.cause(*row), is_input));
            // What equals nothing matters only where it is written alone.
            good.retain(|row| self.outer || (keys.get(*row).is_some() && times(*row).is_some()));
            let kept =
                if good.len() == part.len() { part.batch.clone() } else { part.take(indices(&good))?.batch };
            let first = self.kept.push(kept)?;
            arrivals.rows.extend(good.iter().zip(first..).map(|(row, id)| Arrival {
                cause: part.cause(*row),
                id,
                time: times(*row),
                key: keys.get(*row).filter(|_| times(*row).is_some()).map(|key| self.shared(key)),
            }));
        }
        Ok(arrivals)
    }

    /// The key as it is in the index already, if it is.
    fn shared(&self, key: &[u8]) -> Arc<[u8]> {
        self.by_key.get_key_value(key).map_or_else(|| Arc::from(key), |(known, _)| Arc::clone(known))
    }

    /// From now on the row can be found. `in_doubt`: a partner of it may have been given up.
    fn index(&mut self, row: &Arrival, in_doubt: bool) {
        let time = row.time.unwrap_or(i64::MIN);
        if let Some(key) = &row.key {
            self.by_key.entry(Arc::clone(key)).or_default().push_back(Partner { id: row.id, time });
        }
        self.by_time.insert((time, row.id), row.key.clone());
        if self.outer {
            self.alone.insert((time, row.id), in_doubt && row.key.is_some());
        }
    }

    fn partners(&self, row: &Arrival) -> impl Iterator<Item = Partner> + use<'_> {
        row.key
            .as_ref()
            .and_then(|key| self.by_key.get::<[u8]>((**key).borrow()))
            .into_iter()
            .flatten()
            .copied()
    }

    /// The row has met somebody.
    fn has_met(&mut self, row: &Partner) {
        if self.outer {
            self.alone.remove(&(row.time, row.id));
        }
    }

    /// The watermark at which a row of this time can find no partner any more. For one that can until the
    /// last moment there is none before the end.
    fn gone_at(&self, time: i64, ends: bool) -> Option<i64> {
        if self.waits < 0 || ends {
            Some(time.saturating_add(self.waits))
        } else {
            time.checked_add(self.waits)
        }
    }

    /// Takes the rows that can find no partner any more out of the index. Returns them with the row of the
    /// pass that they go with, and whether they go alone. Of those that may have had a partner nobody can
    /// tell: they count as given up.
    fn gone(&mut self, pass: &mut Pass<'_>, arrivals: &Arrivals) -> Vec<(u32, u64, bool)> {
        let mut gone = Vec::new();
        let first = arrivals.rows.first().map_or(u64::MAX, |row| row.id);
        while let Some((time, id)) = self.by_time.first_key_value().map(|(at, _)| *at) {
            let Some(reached) = self.gone_at(time, pass.ends).and_then(|at| pass.reached(at)) else { break };
            // It may have come when its time was up already.
            let came = id
                .checked_sub(first)
                .and_then(|row| arrivals.rows.get(row as usize))
                .map_or(0, |row| row.cause);
            let key = self.by_time.pop_first().and_then(|(_, key)| key);
            self.take_from_index(id, key);
            let in_doubt = self.alone.remove(&(time, id));
            pass.out.forgotten += u64::from(in_doubt == Some(true));
            gone.push((reached.max(came), id, in_doubt == Some(false)));
        }
        gone
    }

    /// Gives up the rows with the least time.
    fn shed(&mut self) -> Result<usize> {
        let rows = an_eighth(self.by_time.len());
        for _ in 0..rows {
            let Some(((time, id), key)) = self.by_time.pop_first() else { break };
            if key.is_some() {
                self.forgotten_to = self.forgotten_to.max(Some(time));
            }
            self.take_from_index(id, key);
            self.alone.remove(&(time, id));
            self.kept.forget(id)?;
        }
        self.kept.tidy()?;
        Ok(rows)
    }

    /// Whether rows of the time `from` or later have been given up.
    fn has_forgotten(&self, from: i64) -> bool {
        self.forgotten_to.is_some_and(|to| from <= to)
    }

    fn take_from_index(&mut self, id: u64, key: Option<Arc<[u8]>>) {
        let Some((key, partners)) =
            key.and_then(|key| self.by_key.get_mut(&key).map(|partners| (key, partners)))
        else {
            return;
        };
        if let Some(at) = partners.iter().position(|partner| partner.id == id) {
            partners.remove(at);
        }
        if partners.is_empty() {
            self.by_key.remove(&key);
        }
    }

    fn held(&self) -> Held {
        let index = self.by_key.len() * BYTES_A_KEY
            + self.by_time.len() * BYTES_A_ROW
            + self.alone.len() * BYTES_ALONE;
        Held { entries: self.by_time.len(), bytes: self.kept.bytes() + index }
    }

    fn state_schema(&self) -> SchemaRef {
        let columns =
            self.kept.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        Arc::new(Schema::new(
            columns.chain([Field::new("alone", DataType::Boolean, true)]).collect::<Vec<_>>(),
        ))
    }

    /// The rows, with whether they have met nobody; null: in doubt. The watermark is the time up to which
    /// rows have been given up.
    fn seal(&mut self, fingerprint: String) -> Result<SealedState> {
        let (ids, batch) = self.kept.take_all()?;
        let alone: HashMap<u64, bool> =
            std::mem::take(&mut self.alone).into_iter().map(|((_, id), in_doubt)| (id, in_doubt)).collect();
        (self.by_key, self.by_time) = (HashMap::new(), BTreeMap::new());
        let mut columns = batch.columns().to_vec();
        let alone = ids.iter().map(|id| match alone.get(id) {
            Some(true) => None,
            alone => Some(alone.is_some()),
        });
        columns.push(Arc::new(BooleanArray::from_iter(alone)));
        let batch =
            if ids.is_empty() { None } else { Some(RecordBatch::try_new(self.state_schema(), columns)?) };
        Ok(SealedState { fingerprint, watermark: self.forgotten_to.unwrap_or(i64::MIN), batch })
    }

    fn restore(&mut self, batch: &RecordBatch) -> Result<()> {
        let alone = batch.columns().last().and_then(|column| column.as_boolean_opt()).cloned();
        let columns =
            batch.columns().get(..batch.num_columns().saturating_sub(1)).unwrap_or_default().to_vec();
        let rows = RecordBatch::try_new(Arc::clone(self.kept.schema()), columns)?;
        let times = evaluate(&self.time, &rows)?;
        let (times, keys) = (event_times(&times)?, self.keys.of(&rows)?);
        let first = self.kept.push(rows.clone())?;
        for (row, id) in (0..rows.num_rows()).zip(first..) {
            let key = keys.get(row).filter(|_| times(row).is_some()).map(|key| self.shared(key));
            let arrival = Arrival { cause: 0, id, time: times(row), key };
            let alone =
                alone.as_ref().map_or(Some(false), |alone| alone.is_valid(row).then(|| alone.value(row)));
            self.index(&arrival, alone.is_none());
            if alone == Some(false) {
                self.has_met(&Partner { id, time: times(row).unwrap_or(i64::MIN) });
            }
        }
        Ok(())
    }
}

/// The event time of each row, if it has one.
fn event_times(times: &ArrayRef) -> Result<impl Fn(usize) -> Option<i64> + use<>> {
    let times = times.as_primitive_opt::<TimestampNanosecondType>().cloned();
    let times =
        times.ok_or_else(|| DataFusionError::Internal("a join goes by a column that is no time".into()))?;
    Ok(move |row| (row < times.len() && times.is_valid(row)).then(|| times.value(row)))
}

fn indices(rows: &[usize]) -> Vec<u32> {
    rows.iter().filter_map(|row| u32::try_from(*row).ok()).collect()
}

/// The operator.
#[derive(Debug)]
pub(in crate::sql) struct IntervalJoin {
    left: IntervalSide,
    right: IntervalSide,
    reach: Reach,
    /// what else must hold, for the columns of both
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// what is kept
    fingerprint: String,
    schema: SchemaRef,
}

impl IntervalJoin {
    /// `fingerprint` says what is kept; `schema` has the columns of the left side, then those of the right
    /// one.
    pub(in crate::sql) fn new(
        mut left: IntervalSide,
        mut right: IntervalSide,
        reach: Reach,
        condition: Option<Arc<dyn PhysicalExpr>>,
        fingerprint: String,
        schema: SchemaRef,
    ) -> Self {
        // The last partner of a row has the greatest time in reach, and comes when the watermark is at most
        // its slack beyond that.
        left.waits = reach.to.saturating_add(right.slack).saturating_add(1);
        right.waits = left.slack.saturating_sub(reach.from).saturating_add(1);
        Self { left, right, reach, condition, fingerprint, schema }
    }

    /// All pairs that keys and times allow: each row as it comes with those that have come before it, the
    /// left of two that come at once first.
    fn meet(&mut self, left: &Arrivals, right: &Arrivals) -> Vec<(u32, Partner, Partner)> {
        let mut pairs = Vec::new();
        let (mut lefts, mut rights) = (left.rows.iter().peekable(), right.rows.iter().peekable());
        loop {
            let left_is_next = match (lefts.peek(), rights.peek()) {
                (Some(left), Some(right)) => left.cause <= right.cause,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return pairs,
            };
            if let Some(row) = if left_is_next { lefts.next() } else { rights.next() } {
                let (own, other) =
                    if left_is_next { (&mut self.left, &self.right) } else { (&mut self.right, &self.left) };
                let first = if left_is_next { self.reach.from } else { self.reach.to.saturating_neg() };
                let me = Partner { id: row.id, time: row.time.unwrap_or(i64::MIN) };
                for partner in other.partners(row) {
                    let (left, right) = if left_is_next { (me, partner) } else { (partner, me) };
                    let apart = i128::from(right.time) - i128::from(left.time);
                    if apart >= i128::from(self.reach.from) && apart <= i128::from(self.reach.to) {
                        pairs.push((row.cause, left, right));
                    }
                }
                own.index(row, other.has_forgotten(me.time.saturating_add(first)));
            }
        }
    }

    /// The pairs for which the condition holds; they have met.
    fn matches(&mut self, pairs: &[(u32, Partner, Partner)], pass: &mut Pass<'_>) -> Result<Found> {
        let (left, right): (Vec<_>, Vec<_>) =
            pairs.iter().map(|(_, left, right)| (Some(left.id), Some(right.id))).unzip();
        let hold = match &self.condition {
            None => (0..pairs.len()).collect(),
            Some(_) => {
                let both = side_by_side(&self.schema, (&self.left.kept, &left), (&self.right.kept, &right))?;
                pairs_that_hold(self.condition.as_ref(), &both, pass.out)
            }
        };
        let mut found = Found::default();
        for (cause, left, right) in hold.into_iter().filter_map(|pair| pairs.get(pair)) {
            self.left.has_met(left);
            self.right.has_met(right);
            found.causes.push(*cause);
            found.left.push(Some(left.id));
            found.right.push(Some(right.id));
        }
        Ok(found)
    }
}

impl Found {
    /// With the rows that go alone: at one cause after the pairs, the left ones first.
    fn with_lonely(self, lonely: Vec<(u32, Option<u64>, Option<u64>)>) -> Self {
        if lonely.is_empty() {
            return self;
        }
        let pairs = self
            .causes
            .into_iter()
            .zip(self.left)
            .zip(self.right)
            .map(|((cause, left), right)| (cause, left, right));
        let mut all: Vec<(u32, Option<u64>, Option<u64>)> = pairs.chain(lonely).collect();
        all.sort_by_key(|(cause, ..)| *cause);
        let mut found = Self::default();
        for (cause, left, right) in all {
            found.causes.push(cause);
            found.left.push(left);
            found.right.push(right);
        }
        found
    }
}

impl Operator for IntervalJoin {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.left.input, &*self.right.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.left.input, &mut *self.right.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let left = self.left.take(pass)?;
        let right = self.right.take(pass)?;
        let pairs = self.meet(&left, &right);
        let found = self.matches(&pairs, pass)?;
        let left_gone = self.left.gone(pass, &left);
        let right_gone = self.right.gone(pass, &right);
        let alone = |gone: &[(u32, u64, bool)]| {
            gone.iter().filter(|(.., alone)| *alone).map(|(cause, id, _)| (*cause, *id)).collect()
        };
        let (left_alone, right_alone): (Vec<_>, Vec<_>) = (alone(&left_gone), alone(&right_gone));
        let lonely = left_alone.into_iter().map(|(cause, id)| (cause, Some(id), None));
        let lonely =
            lonely.chain(right_alone.into_iter().map(|(cause, id)| (cause, None, Some(id)))).collect();
        let found = found.with_lonely(lonely);
        let chunk = if found.causes.is_empty() {
            Chunk::empty(&self.schema)
        } else {
            let batch =
                side_by_side(&self.schema, (&self.left.kept, &found.left), (&self.right.kept, &found.right))?;
            Chunk { batch, causes: Some(found.causes) }
        };
        left_gone.iter().try_for_each(|(_, id, _)| self.left.kept.forget(*id))?;
        right_gone.iter().try_for_each(|(_, id, _)| self.right.kept.forget(*id))?;
        if pass.ends {
            (self.left.forgotten_to, self.right.forgotten_to) = (None, None);
        }
        Ok(chunk)
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
        true
    }

    fn delay_ns(&self) -> i64 {
        // A pair, or a row that goes alone, has left no later than its rows are forgotten.
        let sides = [&self.left, &self.right];
        sides.iter().map(|side| side.waits.max(side.slack)).max().unwrap_or(0).max(0)
    }

    fn end_delay_ns(&self) -> i64 {
        [&self.left, &self.right]
            .iter()
            .map(|side| side.waits.max(side.input.end_delay_ns()))
            .max()
            .unwrap_or(0)
            .max(0)
    }

    fn deadline(&self) -> Option<i64> {
        let of = |side: &IntervalSide| {
            side.alone.first_key_value().map(|((time, _), _)| time.saturating_add(side.waits))
        };
        [of(&self.left), of(&self.right)].into_iter().flatten().min()
    }

    fn held(&self) -> Held {
        let (left, right) = (self.left.held(), self.right.held());
        Held { entries: left.entries + right.entries, bytes: left.bytes + right.bytes }
    }

    /// Pairs with rows that are given up are not written; nor, alone, are rows that come later and may have
    /// met one of them.
    fn shed(&mut self) -> Result<usize> {
        let side =
            if self.left.held().bytes >= self.right.held().bytes { &mut self.left } else { &mut self.right };
        side.shed()
    }

    /// The rows of each side as they came, with whether they have met nobody yet.
    fn seal(&mut self) -> Result<Vec<SealedState>> {
        let fingerprint = |side: &str| format!("{side} OF {}", self.fingerprint);
        let (left, right) = (fingerprint("LEFT"), fingerprint("RIGHT"));
        Ok(vec![self.left.seal(left)?, self.right.seal(right)?])
    }

    fn restore(&mut self, state: &mut Vec<SealedState>, misfits: &mut Vec<String>) -> Result<()> {
        for (name, side) in [("LEFT", &mut self.left), ("RIGHT", &mut self.right)] {
            let fingerprint = format!("{name} OF {}", self.fingerprint);
            let Some(SealedState { watermark, batch, .. }) = take_state(state, &fingerprint) else {
                continue;
            };
            side.forgotten_to = Some(watermark).filter(|time| *time > i64::MIN);
            let Some(batch) = batch else { continue };
            match rows_of(&batch, &side.state_schema()) {
                Some(batch) => side.restore(&batch)?,
                None => misfits
                    .push(format!("the rows that `{fingerprint}` keeps had other columns and are dropped")),
            }
        }
        Ok(())
    }
}
