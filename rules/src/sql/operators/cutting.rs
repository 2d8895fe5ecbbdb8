//! How rows are cut into windows that end by their rows, whatever is kept of the rows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::TS;

use super::keys::Keys;
use super::partition::{Content, Done, Open, Partition, Row};
use super::{Chunk, Pass, an_eighth, evaluate_all, times};
use crate::expression::evaluate;

/// How many keys are kept at least before any is forgotten.
const FEW: usize = 64;

/// What ends a window.
#[derive(Debug)]
pub(in crate::sql) enum Cut {
    /// so many nanoseconds without a row
    Gap(i64),
    /// so many rows; the next window ends `every` rows later
    Rows { size: usize, every: u64 },
    /// a condition; another one opens the next
    State { open: Arc<dyn PhysicalExpr>, close: Arc<dyn PhysicalExpr> },
}

/// Rows on their way into windows, key by key.
#[derive(Debug)]
pub(super) struct Cutter<C> {
    pub cut: Cut,
    /// by what windows are apart from each other
    partition: Vec<Arc<dyn PhysicalExpr>>,
    delay_ns: i64,
    pub keys: Keys,
    /// by the number of their key
    pub partitions: Vec<Partition<C>>,
    /// partitions with sessions, by a time not after the end of the session that ends first
    ends: BinaryHeap<Reverse<(i64, usize)>>,
    /// rows so far
    pub arrived: u64,
    /// windows that wait for more
    pub open: usize,
    /// the number of the key of each of the rows at hand
    groups: Vec<usize>,
    /// the numbers of keys whose windows have got rows, until their owner has seen to them
    touched: Vec<usize>,
    /// how many partitions there may be before those are forgotten that wait for nothing
    tidy_at: usize,
    /// the greatest last `ts` of a session that was given up
    pub forgotten_to: i64,
    /// how long a key may have no row before its windows are given up, where time does not end them
    pub ttl_ns: Option<i64>,
    /// the watermark at which somebody should look which keys have had none for so long
    check_at: i64,
    /// windows that have been given up; their owner empties the list
    pub given_up: Vec<Open<C>>,
}

/// Rows whose keys and conditions have been evaluated.
pub(super) struct Keyed {
    pub chunk: Chunk,
    pub keys: Vec<ArrayRef>,
    conditions: Option<[BooleanArray; 2]>,
}

impl<C: Content> Cutter<C> {
    pub(super) fn new(
        (cut, ttl_ns): (Cut, Option<i64>),
        partition: Vec<Arc<dyn PhysicalExpr>>,
        key_schema: SchemaRef,
        delay_ns: i64,
    ) -> Result<Self> {
        Ok(Self {
            cut,
            partition,
            delay_ns,
            keys: Keys::new(key_schema)?,
            partitions: Vec::new(),
            ends: BinaryHeap::new(),
            arrived: 0,
            open: 0,
            groups: Vec::new(),
            touched: Vec::new(),
            tidy_at: FEW,
            forgotten_to: i64::MIN,
            ttl_ns,
            check_at: i64::MIN,
            given_up: Vec::new(),
        })
    }

    /// Evaluates keys and conditions; changes nothing.
    pub(super) fn prepare(&self, chunk: &Chunk) -> Result<Keyed> {
        times(&chunk.batch, TS)?;
        let condition = |expr: &Arc<dyn PhysicalExpr>| {
            let value = evaluate(expr, &chunk.batch)?;
            value.as_boolean_opt().cloned().ok_or_else(|| DataFusionError::Plan("not a condition".into()))
        };
        let conditions = match &self.cut {
            Cut::State { open, close } => Some([condition(open)?, condition(close)?]),
            Cut::Gap(_) | Cut::Rows { .. } => None,
        };
        Ok(Keyed { chunk: chunk.clone(), keys: evaluate_all(&self.partition, &chunk.batch)?, conditions })
    }

    /// Numbers the keys of rows of another version.
    pub(super) fn find_keys(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<usize>> {
        let mut groups = Vec::new();
        self.keys.number(keys, rows, &mut groups)?;
        self.partitions.resize_with(self.keys.len().max(self.partitions.len()), Partition::default);
        Ok(groups)
    }

    pub(super) fn keys_of(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        evaluate_all(&self.partition, batch)
    }

    fn closes_at(&self, last: i64) -> i64 {
        match self.cut {
            Cut::Gap(gap) => last.saturating_add(gap).saturating_add(self.delay_ns),
            Cut::Rows { .. } | Cut::State { .. } => i64::MAX,
        }
    }

    /// Adds rows to their windows; `number` says what a row is called, if anything is to be kept of it.
    /// Returns how many of these are in no window, or have left theirs again.
    pub(super) fn absorb(
        &mut self,
        rows: &Keyed,
        number: impl Fn(usize) -> Option<u32>,
        pass: &mut Pass<'_>,
        is_input: bool,
        done: &mut Vec<Done<C>>,
    ) -> Result<usize> {
        let mut groups = std::mem::take(&mut self.groups);
        self.keys.number(&rows.keys, rows.chunk.len(), &mut groups)?;
        self.partitions.resize_with(self.keys.len().max(self.partitions.len()), Partition::default);
        let mut dropped = 0;
        for (at, (ts, key)) in times(&rows.chunk.batch, TS)?.iter().zip(&groups).enumerate() {
            let row = Row { number: number(at), ts: *ts, cause: rows.chunk.cause(at), key: *key };
            if self.ttl_ns.is_some() {
                self.begin_anew_after_silence(*key, (*ts).max(pass.before(row.cause)));
            }
            let Some(partition) = self.partitions.get_mut(*key) else { continue };
            if !std::mem::replace(&mut partition.is_touched, true) {
                self.touched.push(*key);
            }
            self.arrived += 1;
            let is_dropped = match &self.cut {
                Cut::Gap(gap) => self.add_to_session(*gap, row, pass, is_input, done),
                Cut::Rows { size, every } => self.add_to_count((*size, *every), row, done),
                Cut::State { .. } => {
                    let holds = |mask: &BooleanArray| mask.is_valid(at) && mask.value(at);
                    let conditions =
                        rows.conditions.as_ref().map_or([false; 2], |both| both.each_ref().map(holds));
                    self.add_to_state(conditions, row, done)
                }
            };
            dropped += usize::from(is_dropped && row.number.is_some());
        }
        self.groups = groups;
        Ok(dropped)
    }

    /// Whether a window is given up at the time `now`, after so long a silence: a matter of times alone, so
    /// that it can be done at any time later.
    fn is_silent(&self, partition: &Partition<C>, now: i64) -> bool {
        let silence = partition.open.back().map(|open| now.saturating_sub(open.last));
        silence.zip(self.ttl_ns).is_some_and(|(silence, ttl_ns)| silence > ttl_ns)
    }

    fn begin_anew_after_silence(&mut self, key: usize, now: i64) {
        if self.partitions.get(key).is_some_and(|partition| self.is_silent(partition, now)) {
            self.give_up(key);
        }
    }

    /// Gives up the windows of a key, and what is known of it.
    fn give_up(&mut self, key: usize) {
        let windows = self.partitions.get_mut(key).map(std::mem::take).unwrap_or_default().open;
        self.open = self.open.saturating_sub(windows.len());
        self.given_up.extend(windows);
    }

    /// Gives up the windows of keys that have had no row for too long; none is kept for more than twice as
    /// long as it must be.
    pub(super) fn expire(&mut self, pass: &Pass<'_>) {
        let watermark = pass.watermarks.last().copied().unwrap_or(i64::MIN);
        if pass.ends {
            self.check_at = i64::MIN;
        } else if let Some(ttl_ns) =
            self.ttl_ns.filter(|_| watermark > i64::MIN && watermark >= self.check_at)
        {
            self.check_at = watermark.saturating_add(ttl_ns);
            (0..self.partitions.len()).for_each(|key| self.begin_anew_after_silence(key, watermark));
        }
    }

    /// Returns whether the row is too late.
    fn add_to_session(
        &mut self,
        gap: i64,
        row: Row,
        pass: &mut Pass<'_>,
        is_input: bool,
        done: &mut Vec<Done<C>>,
    ) -> bool {
        let before = pass.before(row.cause);
        if before >= self.closes_at(row.ts) {
            pass.too_late(row.cause, is_input);
            return true;
        }
        let delay_ns = self.delay_ns;
        let closes_at = |last: i64| last.saturating_add(gap).saturating_add(delay_ns);
        let Some(partition) = self.partitions.get_mut(row.key) else { return true };
        // Where there was a session, there is an entry that is not after its end.
        let known = partition.open.front().map(|open| closes_at(open.last));
        let waiting = partition.open.len();
        let reached =
            |last: i64| if closes_at(last) <= before { pass.reached(closes_at(last)) } else { None };
        partition.end_sessions(gap, row.key, &reached, done);
        let in_doubt = self.forgotten_to > i64::MIN && row.ts < self.forgotten_to.saturating_add(gap);
        partition.extend_session(gap, row, in_doubt, self.arrived);
        self.open = (self.open + partition.open.len()).saturating_sub(waiting);
        let end = partition.open.front().map(|open| closes_at(open.last));
        if let Some(end) = end.filter(|end| known.is_none_or(|known| *end < known)) {
            self.ends.push(Reverse((end, row.key)));
        }
        false
    }

    /// Returns whether a row has left the window again.
    fn add_to_count(&mut self, (size, every): (usize, u64), row: Row, done: &mut Vec<Done<C>>) -> bool {
        let Some(partition) = self.partitions.get_mut(row.key) else { return true };
        partition.seen += 1;
        if partition.open.is_empty() {
            partition.make_room();
            partition.open.push_back(Open::new(row.ts, self.arrived));
            self.open += 1;
        }
        let Some(open) = partition.open.front_mut() else { return true };
        open.push(row.number, row.ts);
        let is_over = open.rows > size;
        if is_over {
            open.content.drop_first();
            open.rows -= 1;
        }
        if partition.seen.is_multiple_of(every) && open.rows == size {
            if every >= size as u64 {
                self.open = self.open.saturating_sub(1);
                done.extend(partition.open.pop_front().map(|open| {
                    let last = open.last;
                    open.done(row.cause, row.key, last)
                }));
            } else {
                let (start, end, rows, born, content) =
                    (open.first, open.last, open.rows, open.born, open.content.copy());
                done.push(Done {
                    cause: row.cause,
                    key: row.key,
                    start,
                    end,
                    rows,
                    born,
                    in_doubt: false,
                    content,
                });
            }
        }
        is_over
    }

    /// Returns whether the row is in no window.
    fn add_to_state(&mut self, [opens, closes]: [bool; 2], row: Row, done: &mut Vec<Done<C>>) -> bool {
        let Some(partition) = self.partitions.get_mut(row.key) else { return true };
        if partition.open.is_empty() {
            if !opens {
                return true;
            }
            partition.make_room();
            partition.open.push_back(Open::new(row.ts, self.arrived));
            self.open += 1;
        }
        if let Some(open) = partition.open.front_mut() {
            open.push(row.number, row.ts);
        }
        if let Some(open) = closes.then(|| partition.open.pop_front()).flatten() {
            self.open = self.open.saturating_sub(1);
            let last = open.last;
            done.push(open.done(row.cause, row.key, last));
        }
        false
    }

    /// Whether windows let go of all their rows when they are complete: no other window has any of them.
    pub(super) fn lets_go(&self) -> bool {
        match self.cut {
            Cut::Gap(_) | Cut::State { .. } => true,
            Cut::Rows { size, every } => every >= size as u64,
        }
    }

    /// The keys whose windows have got rows since the last call.
    pub(super) fn take_touched(&mut self) -> Vec<usize> {
        let touched = std::mem::take(&mut self.touched);
        for key in &touched {
            if let Some(partition) = self.partitions.get_mut(*key) {
                partition.is_touched = false;
            }
        }
        touched
    }

    /// Ends the sessions that the watermark reaches.
    pub(super) fn end_sessions(&mut self, pass: &Pass<'_>, done: &mut Vec<Done<C>>) {
        let Cut::Gap(gap) = self.cut else { return };
        while let Some(Reverse((end, group))) = self.ends.peek().copied() {
            if pass.reached(end).is_none() {
                break;
            }
            self.ends.pop();
            let delay_ns = self.delay_ns;
            let closes_at = |last: i64| last.saturating_add(gap).saturating_add(delay_ns);
            let Some(partition) = self.partitions.get_mut(group) else { continue };
            let waiting = partition.open.len();
            partition.end_sessions(gap, group, &|last| pass.reached(closes_at(last)), done);
            self.open = (self.open + partition.open.len()).saturating_sub(waiting);
            if let Some(open) = partition.open.front() {
                self.ends.push(Reverse((closes_at(open.last), group)));
            }
        }
        if pass.ends {
            self.forgotten_to = i64::MIN;
        }
    }

    /// The watermark at which a session may end.
    pub(super) fn deadline(&self) -> Option<i64> {
        self.ends.peek().map(|Reverse((end, _))| *end)
    }

    /// About how many bytes keys and windows take, without what these hold.
    pub(super) fn bytes(&self) -> usize {
        let partitions = self.partitions.capacity() * size_of::<Partition<C>>()
            + self.partitions.len().max(self.open) * size_of::<Open<C>>();
        self.keys.bytes() + partitions + self.ends.capacity() * size_of::<Reverse<(i64, usize)>>()
    }

    /// Forgets keys that wait for nothing.
    pub(super) fn tidy(&mut self) -> Result<()> {
        if self.partitions.len() < self.tidy_at { Ok(()) } else { self.forget_idle() }
    }

    fn forget_idle(&mut self) -> Result<()> {
        let is_idle = |partition: &Partition<C>| {
            let between = match &self.cut {
                Cut::Rows { every, .. } => partition.seen.is_multiple_of(*every),
                Cut::Gap(_) | Cut::State { .. } => true,
            };
            partition.open.is_empty() && between
        };
        let wanted = (0_u32..)
            .zip(&self.partitions)
            .filter(|(_, partition)| !is_idle(partition))
            .map(|(number, _)| number);
        let new = self.keys.keep_only(wanted.collect::<Vec<_>>())?;
        let before = std::mem::take(&mut self.partitions);
        self.partitions.resize_with(self.keys.len(), Partition::default);
        for (partition, new) in before.into_iter().zip(new) {
            if let Some(place) = self.partitions.get_mut(new as usize) {
                *place = partition;
            }
        }
        self.find_ends();
        self.tidy_at = FEW.max(self.partitions.len() * 2);
        Ok(())
    }

    /// Gives up the windows of the keys that have been silent longest.
    pub(super) fn shed(&mut self) -> Result<()> {
        let newest = |(at, partition): (usize, &Partition<C>)| {
            partition.open.back().map(|open| ((open.last, open.born), at))
        };
        let mut open: Vec<_> = self.partitions.iter().enumerate().filter_map(newest).collect();
        open.sort_unstable();
        open.truncate(an_eighth(open.len()));
        open.into_iter().for_each(|(_, key)| self.give_up(key));
        if matches!(self.cut, Cut::Gap(_)) {
            self.forgotten_to = self.given_up.iter().map(|open| open.last).fold(self.forgotten_to, i64::max);
        }
        self.forget_idle()?;
        self.partitions.shrink_to_fit();
        Ok(())
    }

    /// Finds the ends of sessions anew.
    pub(super) fn find_ends(&mut self) {
        let first = |(group, partition): (usize, &Partition<C>)| {
            Some(Reverse((self.closes_at(partition.open.front()?.last), group)))
        };
        let is_timed = matches!(self.cut, Cut::Gap(_));
        self.ends = self.partitions.iter().enumerate().filter(|_| is_timed).filter_map(first).collect();
    }

    /// Takes all windows out, each with the number of its key and how many rows that has had.
    pub(super) fn take_open(&mut self) -> Vec<(usize, u64, Open<C>)> {
        self.ends.clear();
        self.open = 0;
        let partitions = std::mem::take(&mut self.partitions).into_iter().enumerate();
        partitions
            .flat_map(|(key, partition)| {
                partition.open.into_iter().map(move |open| (key, partition.seen, open))
            })
            .collect()
    }
}
