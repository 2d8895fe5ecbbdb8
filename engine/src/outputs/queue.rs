//! Where rows for an output wait until the far side has confirmed them, or are dropped as the configuration
//! says.
//!
//! Rows count until the far side has answered for them. At most half of a queue is under way at a time: the
//! rest can still be dropped for newer rows, and the newest row always finds a place.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidegate_connectors::Takes;
use tidegate_core::Sampler;
use tokio::sync::Notify;

use super::waiting::{Handed, Next, Reading, Waiting};
use crate::config::WhenQueueFull;
use crate::decision::Outcome;
use crate::status::OutputStatus;
use crate::system::writes::{WriteReport, WriteReports};

/// Why a write was not carried out that a newer one says anew.
const NEWER: &str = "a newer one has taken its place";

/// Rows that are under way to the far side at a time, however long the queue is: enough for a slow line.
const DELIVERED_ROWS: usize = 1_024;

/// The queue of one output. The worker of its rules pushes, the output's task pops.
pub struct OutputQueue {
    pub(super) name: Arc<str>,
    capacity: usize,
    when_full: WhenQueueFull,
    state: Mutex<State>,
    room: Notify,
    filled: Notify,
    pub(super) status: Arc<OutputStatus>,
    /// takes what became of writes that a contract wanted
    pub(super) reports: Option<WriteReports>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// what a contract wants to know, and has not been asked for yet; of each instance the newest
    readings: VecDeque<Reading>,
    /// rows that wait
    rows: usize,
    /// rows that were handed to the sink, which has not answered yet
    under_way: usize,
    closed: bool,
    /// whether the sink wants of each point the newest only
    takes_newest: bool,
    dropped: Sampler,
}

impl OutputQueue {
    /// A queue for at most `capacity` rows.
    #[must_use]
    pub fn new(name: &str, capacity: usize, when_full: WhenQueueFull, status: Arc<OutputStatus>) -> Self {
        let (state, room, filled) = (Mutex::default(), Notify::new(), Notify::new());
        let (name, capacity) = (Arc::from(name), capacity.max(1));
        Self { name, capacity, when_full, state, room, filled, status, reports: None }
    }

    /// The same for an output with a contract, which wants to know what became of each write.
    #[must_use]
    pub fn reporting(self, reports: WriteReports) -> Self {
        // A contract decides anew when a write comes to nothing, and waits for no room.
        Self { reports: Some(reports), when_full: WhenQueueFull::DropOldest, ..self }
    }

    /// Asks the device for what it has.
    pub fn ask(&self, reading: Reading) {
        let mut state = self.lock();
        if !state.closed {
            state.readings.retain(|waiting| waiting.instance != reading.instance);
            state.readings.push_back(reading);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Tells the contract what became of a write that did not reach the sink.
    fn report(&self, writes: Vec<Waiting>, outcome: Outcome, reason: &str) {
        let Some(reports) = &self.reports else { return };
        for order in writes.into_iter().filter_map(|write| write.order) {
            reports.report(WriteReport {
                output: Arc::clone(&self.name),
                instance: Arc::clone(&order.instance),
                write: order.write,
                rule: order.rule.clone(),
                outcome,
                reason: Some(reason.to_owned()),
                values: order.values.clone(),
            });
        }
    }

    /// Puts rows at the end. When there is no room, waits (`block`) or makes room by dropping the oldest
    /// rows. Rows for a closed queue are dropped.
    ///
    /// Rows that are run again are not taken: they were written in their time, or nobody wants them by now.
    pub async fn push(&self, rows: Waiting) {
        if rows.is_replayed {
            return;
        }
        let mut offset = 0;
        while offset < rows.len() {
            let part = (rows.len() - offset).min(self.half());
            if self.when_full == WhenQueueFull::Block {
                self.room_for(part).await;
            }
            self.push_part(rows.slice(offset, part));
            offset += part;
        }
    }

    /// As many rows find room at the latest when those that wait are under way.
    fn half(&self) -> usize {
        (self.capacity / 2).max(1)
    }

    /// Waits until `rows` rows fit, or the queue is closed.
    async fn room_for(&self, rows: usize) {
        loop {
            let room = self.room.notified();
            {
                let state = self.lock();
                if state.closed || state.rows + rows <= state.room(self.capacity) {
                    break;
                }
            }
            let _held = self.status.held.one_more();
            room.await;
        }
        // A rule that has just moved may have left another worker waiting here.
        self.room.notify_one();
    }

    fn push_part(&self, rows: Waiting) {
        let (mut superseded, mut lost) = (Vec::new(), Vec::new());
        let mut state = self.lock();
        let mut dropped = if state.closed { rows.len() } else { 0 };
        if state.closed {
            lost.push(rows);
        } else {
            superseded.extend(state.give_way(&rows));
            state.rows += rows.len();
            state.waiting.push_back(rows);
            let room = state.room(self.capacity);
            if state.rows > room && state.takes_newest {
                // What nobody needs makes room before what somebody does.
                superseded.extend(state.supersede(&self.name));
            }
            while state.rows > room {
                let over = state.rows - room;
                let Some(oldest) = state.waiting.pop_front() else { break };
                let gone = over.min(oldest.len());
                if gone < oldest.len() {
                    state.waiting.push_front(oldest.slice(gone, oldest.len() - gone));
                }
                state.rows -= gone;
                dropped += gone;
                lost.push(oldest);
            }
        }
        self.status.superseded.add(superseded.len() as u64);
        if dropped > 0 {
            self.status.dropped.add(dropped as u64);
            if let Some(count) = state.dropped.count(dropped as u64) {
                tracing::error!(
                    output = %self.name,
                    rows = count,
                    capacity = self.capacity,
                    "the output's queue is full; its oldest rows are dropped"
                );
            }
        }
        drop(state);
        self.filled.notify_one();
        self.report(superseded, Outcome::Superseded, NEWER);
        self.report(lost, Outcome::Failed, "the output's queue is full, or the box stops");
    }

    /// The next rows, which are under way from now on; `None` when the queue is closed and empty. Takes
    /// several pushes together, or a far side with a slow line would see one a round trip.
    pub(super) async fn pop(&self, takes: Takes) -> Option<Next> {
        loop {
            let filled = self.filled.notified();
            let mut superseded = Vec::new();
            let next = {
                let mut state = self.lock();
                let limit = match takes {
                    Takes::All => self.half().min(DELIVERED_ROWS),
                    Takes::Newest => {
                        superseded = state.supersede(&self.name);
                        self.status.superseded.add(superseded.len() as u64);
                        1
                    }
                };
                // What is to be written goes before what is to be known.
                let next = state.pop(limit).map(Next::Write);
                next.or_else(|| state.readings.pop_front().map(Next::Read))
                    .map(Some)
                    .or(state.closed.then_some(None))
            };
            self.report(superseded, Outcome::Superseded, NEWER);
            if let Some(next) = next {
                self.room.notify_one();
                return next;
            }
            filled.await;
        }
    }

    /// The far side has answered for all that was under way.
    pub(super) fn answered(&self) {
        self.lock().under_way = 0;
        self.room.notify_one();
    }

    /// Takes no more rows; those that wait are still delivered.
    pub fn close(&self) {
        self.lock().closed = true;
        self.room.notify_one();
        self.filled.notify_one();
    }

    /// The far side wants of each point the newest only.
    pub(super) fn take_newest(&self) {
        self.lock().takes_newest = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many rows may wait: at least one, so that the newest row is never the one that is dropped.
    fn room(&self, capacity: usize) -> usize {
        capacity.saturating_sub(self.under_way).max(1)
    }

    /// Takes out writes of a contract that `newer` says anew.
    fn give_way(&mut self, newer: &Waiting) -> Vec<Waiting> {
        if newer.order.is_none() {
            return Vec::new();
        }
        let (gone, kept) =
            self.waiting.drain(..).partition::<VecDeque<_>, _>(|waiting| waiting.gives_way_to(newer));
        self.waiting = kept;
        self.rows -= gone.iter().map(Waiting::len).sum::<usize>();
        gone.into()
    }

    /// Takes out what newer rows that wait say anew, point by point, and returns it row by row.
    fn supersede(&mut self, output: &str) -> Vec<Waiting> {
        if self.rows < 2 {
            return Vec::new();
        }
        let mut said: HashSet<String> = HashSet::new();
        let mut kept: VecDeque<Waiting> = VecDeque::new();
        let mut gone = Vec::new();
        for part in self.waiting.drain(..).rev() {
            for row in (0..part.len()).rev() {
                let mut points = part.points(row).peekable();
                if points.peek().is_some() && points.all(|point| said.contains(point)) {
                    gone.push(part.slice(row, 1));
                    let (by, seq) = (&part.by, part.rows.seqs.get(row));
                    tracing::debug!(output, %by, seq, outcome = "a newer one waits", "write");
                    continue;
                }
                said.extend(part.points(row).map(str::to_owned));
                kept.push_front(part.slice(row, 1));
            }
        }
        self.waiting = kept;
        self.rows -= gone.len();
        gone
    }

    /// Up to `limit` rows from the front with equal columns.
    fn pop(&mut self, limit: usize) -> Option<Handed> {
        let first = self.take(limit)?;
        let (schema, mut taken) = (first.rows.batch.schema(), first.len());
        let mut parts = vec![first];
        while taken < limit
            && self.waiting.front().is_some_and(|next| *next.rows.batch.schema_ref() == schema)
        {
            let Some(next) = self.take(limit - taken) else { break };
            taken += next.len();
            parts.push(next);
        }
        let batch = concat_batches(&schema, parts.iter().map(|part| &part.rows.batch)).unwrap_or_else(|_| {
            // Too much for one array, say: then they go one after the other.
            parts.drain(1..).rev().for_each(|part| self.waiting.push_front(part));
            parts.first().map_or_else(|| RecordBatch::new_empty(schema), |first| first.rows.batch.clone())
        });
        self.under_way = batch.num_rows();
        self.rows -= self.under_way;
        let causes = parts.iter().flat_map(Waiting::causes).collect();
        Some(Handed { batch, parts, causes })
    }

    /// Up to `limit` rows of the first push.
    fn take(&mut self, limit: usize) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        if first.len() <= limit {
            return Some(first);
        }
        self.waiting.push_front(first.slice(limit, first.len() - limit));
        Some(first.slice(0, limit))
    }
}
