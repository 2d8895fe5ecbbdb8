//! What goes next: live rows first, then the backlog at a bounded rate. No I/O, and time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_rules::Priority;
use tokio::time::Instant;

use crate::buffer::StoredBlock;

/// Rows that are held in memory for one lane, about; one block more at most.
const FETCH_ROWS: usize = 8_192;
const FETCH_BLOCKS: usize = 64;

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read blocks of one priority or of any with `after < id <= until`, and hand them to [`Lanes::fetched`].
    Fetch { priority: Option<Priority>, after: u64, until: u64, limit: usize },
    /// Send what [`Lanes::take`] gives.
    Send,
    /// Wait for a confirmation or a commit, or until the backlog's rate allows a row.
    Wait { until: Option<Instant> },
}

/// What a settled row means for its block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Other rows of the block are open.
    Open,
    /// All rows are confirmed: the block can be deleted.
    Confirmed,
    /// All rows are settled, but some were refused for good.
    Refused(String),
}

/// Both lanes.
pub(super) struct Lanes {
    in_flight_limit: usize,
    /// rows of one parcel, at most
    batch: usize,
    in_flight: usize,
    rate: Option<Rate>,
    live: Lane,
    backlog: Lane,
    fetching_live: bool,
    /// blocks of which some rows were sent and not all are settled
    open: BTreeMap<u64, Open>,
}

#[derive(Default)]
struct Lane {
    /// what goes through it one after the other; none: all in the order of their ids
    priorities: &'static [Priority],
    /// newest block that was read
    after: u64,
    /// newest block of the lane
    until: u64,
    blocks: VecDeque<Arc<StoredBlock>>,
    /// next row of the first block
    row: usize,
    /// rows of an average block
    block_rows: usize,
}

struct Open {
    rows: Vec<RowState>,
    /// rows that are not settled
    left: usize,
    refused: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RowState {
    Waiting,
    /// in a parcel, which may have to be sent again
    Sent,
    Settled,
}

impl Lanes {
    pub(super) fn new(in_flight_limit: usize, batch: usize, backlog_rows_per_s: Option<u32>) -> Self {
        Self {
            in_flight_limit,
            batch: batch.clamp(1, in_flight_limit),
            in_flight: 0,
            rate: backlog_rows_per_s.map(Rate::new),
            live: Lane::default(),
            backlog: Lane::default(),
            fetching_live: false,
            open: BTreeMap::new(),
        }
    }

    /// The line is up. Blocks up to `newest` are backlog.
    pub(super) fn start(&mut self, newest: u64, now: Instant) {
        self.in_flight = 0;
        self.backlog = Lane { priorities: &Priority::ALL, until: newest, ..Lane::default() };
        self.live = Lane { after: newest, until: newest, ..Lane::default() };
        if let Some(rate) = &mut self.rate {
            rate.start(now);
        }
    }

    /// The line is down. What was sent and not confirmed will be sent again by the caller, and not be taken
    /// from here.
    pub(super) fn stop(&mut self) {
        self.in_flight = 0;
        (self.live.blocks, self.backlog.blocks) = (VecDeque::new(), VecDeque::new());
    }

    /// Rows that were taken before are on their way again.
    pub(super) fn sent_again(&mut self, rows: usize) {
        self.in_flight += rows;
    }

    /// Rows that were sent are not on their way any more, but will be sent again.
    pub(super) fn returned(&mut self, rows: usize) {
        self.in_flight = self.in_flight.saturating_sub(rows);
    }

    /// Blocks up to `newest` are on disk.
    pub(super) fn committed(&mut self, newest: u64) {
        self.live.until = self.live.until.max(newest);
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.in_flight > 0 && self.in_flight + self.batch > self.in_flight_limit {
            return Next::Wait { until: None };
        }
        if let Some(next) = self.live.next() {
            self.fetching_live = true;
            return next;
        }
        self.fetching_live = false;
        match (self.backlog.next(), &mut self.rate) {
            (Some(Next::Send), Some(rate)) => match rate.ready_at(now) {
                Some(until) => Next::Wait { until: Some(until) },
                None => Next::Send,
            },
            (Some(next), _) => next,
            (None, _) => Next::Wait { until: None },
        }
    }

    /// Takes what [`Next::Fetch`] asked for.
    pub(super) fn fetched(&mut self, blocks: Vec<StoredBlock>) {
        let lane = if self.fetching_live { &mut self.live } else { &mut self.backlog };
        lane.after = blocks.last().map_or(lane.until, |last| last.id);
        if lane.after >= lane.until
            && let Some((_, rest)) = lane.priorities.split_first()
            && !rest.is_empty()
        {
            (lane.priorities, lane.after) = (rest, 0);
        }
        let rows: usize = blocks.iter().map(|block| block.rows.len()).sum();
        lane.block_rows = rows.checked_div(blocks.len()).unwrap_or(0);
        lane.blocks.extend(blocks.into_iter().map(Arc::new));
    }

    /// The rows that go next, after [`Next::Send`]: rows of one rule for one parcel. None if all of them were
    /// sent before.
    pub(super) fn take(&mut self) -> Vec<(Arc<StoredBlock>, usize)> {
        let lane = if self.fetching_live { &mut self.live } else { &mut self.backlog };
        let mut taken: Vec<(Arc<StoredBlock>, usize)> = Vec::new();
        while taken.len() < self.batch
            && let Some(block) = lane.blocks.front()
            && taken.first().is_none_or(|(first, _)| first.rule == block.rule)
        {
            let block = Arc::clone(block);
            let open = self.open.entry(block.id).or_insert_with(|| Open::new(block.rows.len()));
            let row = lane.row;
            lane.row += 1;
            if lane.row >= block.rows.len() {
                lane.blocks.pop_front();
                lane.row = 0;
            }
            if let Some(state @ RowState::Waiting) = open.rows.get_mut(row) {
                *state = RowState::Sent;
                taken.push((block, row));
            }
        }
        self.in_flight += taken.len();
        if let Some(rate) = self.rate.as_mut().filter(|_| !self.fetching_live) {
            rate.take(taken.len());
        }
        taken
    }

    /// A row was confirmed, or refused for good.
    pub(super) fn settled(&mut self, block: u64, row: usize, refused: Option<String>) -> Settled {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(open) = self.open.get_mut(&block) else { return Settled::Open };
        if let Some(state) = open.rows.get_mut(row)
            && std::mem::replace(state, RowState::Settled) != RowState::Settled
        {
            open.left -= 1;
        }
        open.refused = open.refused.take().or(refused);
        if open.left > 0 {
            return Settled::Open;
        }
        match self.open.remove(&block).and_then(|open| open.refused) {
            Some(reason) => Settled::Refused(reason),
            None => Settled::Confirmed,
        }
    }
}

impl Lane {
    fn next(&self) -> Option<Next> {
        if !self.blocks.is_empty() {
            return Some(Next::Send);
        }
        let limit = (FETCH_ROWS / self.block_rows.max(1)).clamp(1, FETCH_BLOCKS);
        let priority = self.priorities.first().copied();
        (self.after < self.until).then_some(Next::Fetch {
            priority,
            after: self.after,
            until: self.until,
            limit,
        })
    }
}

impl Open {
    fn new(rows: usize) -> Self {
        Self { rows: vec![RowState::Waiting; rows], left: rows, refused: None }
    }
}

/// The shortest wait.
const TICK: Duration = Duration::from_millis(1);

/// A token bucket that holds a tenth of a second's rows.
struct Rate {
    per_s: u32,
    tokens: f64,
    filled: Option<Instant>,
}

impl Rate {
    fn new(per_s: u32) -> Self {
        Self { per_s, tokens: 0.0, filled: None }
    }

    fn start(&mut self, now: Instant) {
        (self.tokens, self.filled) = (1.0, Some(now));
    }

    /// `None`: now.
    fn ready_at(&mut self, now: Instant) -> Option<Instant> {
        let per_s = f64::from(self.per_s);
        let since =
            self.filled.replace(now).map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.tokens = (self.tokens + since.as_secs_f64() * per_s).min((per_s / 10.0).max(1.0));
        // What is left when a sum of fractions falls just short is less than a clock or a timer can tell.
        (self.tokens < 1.0).then(|| now + Duration::from_secs_f64((1.0 - self.tokens) / per_s).max(TICK))
    }

    /// A parcel may take more than there is: the next one waits the longer.
    fn take(&mut self, rows: usize) {
        self.tokens -= f64::from(u32::try_from(rows).unwrap_or(u32::MAX));
    }
}
