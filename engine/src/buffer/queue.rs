//! What is on its way to the writer, in order: steps of the sequence, alarms and other rows, each as many
//! rows as `buffer.queue` says.
//!
//! Control goes on whatever the disk does, so whoever comes here waits only when told to: rows of rules with
//! `when_full = "block"`, and everything that must be stored when a stream holds. Other rows make room by
//! dropping older ones, which leaves a gap.
//!
//! Decisions stand apart: they are made again when the journal is run again, so they may be dropped.
//!
//! # A journal that breaks off
//! A step for which there is no room breaks the journal off. From there on nothing of the sequence is stored,
//! until a snapshot is taken at a place for which there is room again. The writer stores nothing that lies
//! behind that place without the snapshot, so the journal on disk has no hole that recovery would have to
//! cross.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::Sampler;
use tidegate_rules::WhenFull;
use tokio::sync::Notify;

use super::changes::NewGap;
use super::group::{Append, Held};
use super::journal::{JournalEntry, Snapshot, SnapshotPart};
use super::{BufferError, OutboxRows};
use crate::decision::Decision;
use crate::status::OutboxStatus;

/// Why rows are missing that were dropped here.
const NOT_IN_TIME: &str = "disk too slow";
/// Decisions that wait. One takes some kilobytes.
const DECISIONS: usize = if cfg!(test) { 200 } else { 4_096 };

/// What the engine fills and the writer empties.
pub(super) struct Queue {
    capacity: usize,
    /// what rows do whose rule does not say
    when_full: WhenFull,
    state: Mutex<State>,
    filled: Notify,
    room: Notify,
    mendable: Notify,
    status: Arc<OutboxStatus>,
}

#[derive(Default)]
struct State {
    lanes: [Lane; 3],
    /// numbers appends, over all lanes
    next: u64,
    /// by rule: rows that were dropped and not yet noted
    gaps: BTreeMap<Arc<str>, NewGap>,
    /// by output and number
    decisions: BTreeMap<(Arc<str>, u64), Decision>,
    decisions_dropped: Sampler,
    /// the snapshot that was announced last
    snapshot: u64,
    /// the journal has broken off
    broken: bool,
    /// the disk could not be written the last time
    refused: bool,
    closed: bool,
    dropped: Sampler,
}

#[derive(Default)]
struct Lane {
    appends: VecDeque<(u64, Held)>,
    rows: usize,
}

/// The place of each kind in [`State::lanes`].
#[derive(Debug, Clone, Copy)]
enum Kind {
    Steps,
    Alarms,
    Rows,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new(capacity: usize, when_full: WhenFull, status: Arc<OutboxStatus>) -> Self {
        let (state, filled, room, mendable) = Default::default();
        Self { capacity, when_full, state, filled, room, mendable, status }
    }

    /// Takes rows, or drops some. `hold`: waits for room, whatever their rules say.
    pub(super) async fn rows(&self, rows: Vec<OutboxRows>, hold: bool) -> Result<(), BufferError> {
        let (alarms, rest) = rows.into_iter().partition(|rows| rows.delivery.priority.may_use_reserve());
        for (kind, rows) in [(Kind::Alarms, alarms), (Kind::Rows, rest)] {
            let rows: Vec<OutboxRows> = rows;
            if rows.is_empty() {
                continue;
            }
            let held = Held::new(Append::Outbox(rows));
            if hold || !self.may_drop(&held) {
                self.wait_for(kind, &held).await?;
            }
            let mut state = self.open()?;
            if state.broken && !hold {
                self.drop_rows(&mut state, held);
                continue;
            }
            while !hold && !state.has_room(kind, held.rows(), self.capacity) {
                let newest_goes =
                    held.outbox().iter().all(|rows| self.when_full(rows) == WhenFull::DropNewest);
                let lane = state.lane(kind);
                let oldest =
                    lane.appends.iter().position(|(_, held)| self.may_drop(held)).filter(|_| !newest_goes);
                let Some((_, oldest)) = oldest.and_then(|at| lane.appends.remove(at)) else { break };
                lane.rows -= oldest.rows();
                self.drop_rows(&mut state, oldest);
            }
            if hold || !self.may_drop(&held) || state.has_room(kind, held.rows(), self.capacity) {
                state.push(kind, held);
                self.filled.notify_one();
            } else {
                self.drop_rows(&mut state, held);
            }
        }
        Ok(())
    }

    /// Takes a step of the sequence; if there is no room for it, waits (`hold`) or breaks the journal off.
    /// Returns whether it was taken.
    pub(super) async fn step(&self, entry: JournalEntry, hold: bool) -> Result<bool, BufferError> {
        let mut held = Held::new(Append::Journal(entry));
        if hold {
            self.wait_for(Kind::Steps, &held).await?;
        }
        let mut state = self.open()?;
        if !hold && (state.broken || !state.has_room(Kind::Steps, held.rows(), self.capacity)) {
            self.break_off_in(&mut state);
            held.go_on();
            return Ok(false);
        }
        state.push(Kind::Steps, held);
        self.filled.notify_one();
        Ok(true)
    }

    /// Takes decisions, as long as there is room.
    pub(super) fn decisions(&self, decisions: Vec<Decision>) {
        let mut state = self.lock();
        let mut dropped = 0;
        for decision in decisions {
            let key = (Arc::clone(&decision.output), decision.number);
            if state.closed || (state.decisions.len() >= DECISIONS && !state.decisions.contains_key(&key)) {
                dropped += 1;
            } else {
                state.decisions.insert(key, decision);
            }
        }
        self.drop_decisions(&mut state, dropped);
        self.filled.notify_one();
    }

    fn drop_decisions(&self, state: &mut State, dropped: u64) {
        if dropped == 0 {
            return;
        }
        self.status.decisions_dropped.add(dropped);
        if let Some(decisions) = state.decisions_dropped.count(dropped) {
            tracing::error!(
                decisions,
                "the disk did not take what was decided about outputs, and `tidegate why` will not tell of \
                it: look at the disk"
            );
        }
    }

    /// Nothing of the sequence is stored from here on, until there is a snapshot.
    pub(super) fn break_off(&self) {
        self.break_off_in(&mut self.lock());
    }

    fn break_off_in(&self, state: &mut State) {
        if !std::mem::replace(&mut state.broken, true) {
            tracing::error!(
                "the disk does not take what comes in: rules and outputs go on, but a crash now loses what \
                rows do to the rules' state, and rows for the uplinks are dropped; look at the disk, or \
                write `on_disk_failure = \"hold\"` for streams that shall wait"
            );
            self.status.broken_off.store(true, Ordering::Relaxed);
            // Rows that wait will not be stored.
            self.room.notify_waiters();
        }
    }

    /// Takes the announcement of a snapshot, unless the journal has broken off and there is no room for what
    /// would follow. Returns whether it was taken.
    pub(super) fn snapshot(&self, mut snapshot: Snapshot) -> Result<bool, BufferError> {
        let mut state = self.open()?;
        if state.broken && !self.is_mendable(&state) {
            return Ok(false);
        }
        if std::mem::take(&mut state.broken) {
            snapshot.mends = true;
            tracing::warn!("the disk takes what comes in again: the journal goes on from a snapshot");
            self.status.broken_off.store(false, Ordering::Relaxed);
        }
        // The newer one says it all.
        let lane = state.lane(Kind::Steps);
        let mended = |held: &Held| matches!(&held.append, Append::Snapshot(older) if older.mends);
        snapshot.mends |= lane.appends.iter().any(|(_, held)| mended(held));
        lane.appends.retain(|(_, held)| !held.is_snapshot());
        state.snapshot = snapshot.number;
        state.push(Kind::Steps, Held::new(Append::Snapshot(snapshot)));
        self.filled.notify_one();
        Ok(true)
    }

    /// Takes a part of a snapshot.
    pub(super) fn part(&self, part: SnapshotPart) -> Result<(), BufferError> {
        let mut state = self.open()?;
        if part.number == state.snapshot {
            state.push(Kind::Steps, Held::new(Append::Part(part)));
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Resolves when the journal has broken off and could go on.
    pub(super) async fn mendable(&self) {
        loop {
            let mendable = self.mendable.notified();
            if self.is_mendable(&self.lock()) {
                return;
            }
            mendable.await;
        }
    }

    fn is_mendable(&self, state: &State) -> bool {
        let [steps, ..] = &state.lanes;
        state.broken && !state.refused && steps.rows <= self.capacity / 2
    }

    async fn wait_for(&self, kind: Kind, held: &Held) -> Result<(), BufferError> {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.open()?;
                if state.has_room(kind, held.rows(), self.capacity)
                    || (state.broken && matches!(kind, Kind::Alarms | Kind::Rows))
                {
                    break;
                }
            }
            room.await;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().lanes.iter().all(|lane| lane.appends.is_empty())
    }

    fn when_full(&self, rows: &OutboxRows) -> WhenFull {
        rows.delivery.when_full.unwrap_or(self.when_full)
    }

    fn may_drop(&self, held: &Held) -> bool {
        held.outbox().iter().all(|rows| self.when_full(rows) != WhenFull::Block && !rows.ack.holds())
    }

    /// Their messages are dealt with: sent again, they would move outputs a second time.
    fn drop_rows(&self, state: &mut State, held: Held) {
        for rows in held.outbox() {
            let count = rows.rows.len() as u64;
            let seqs = || (0..rows.rows.len()).map(|row| rows.rows.seqs.get(row));
            let (Some(first_seq), Some(last_seq)) = (seqs().next(), seqs().next_back()) else { continue };
            let gap = state.gaps.entry(Arc::clone(&rows.rule)).or_insert_with(|| NewGap {
                rule: Arc::clone(&rows.rule),
                first_seq,
                last_seq,
                rows: 0,
                reason: NOT_IN_TIME,
            });
            (gap.first_seq, gap.last_seq) = (gap.first_seq.min(first_seq), gap.last_seq.max(last_seq));
            gap.rows += count;
            self.status.dropped.add(count);
            if let Some(rows) = state.dropped.count(count) {
                tracing::error!(
                    rows,
                    "the disk did not take rows for the uplinks in time, and they were dropped: look at the \
                    disk"
                );
            }
        }
        held.release();
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, BufferError> {
        let state = self.lock();
        if state.closed { Err(BufferError::Closed) } else { Ok(state) }
    }
}

impl State {
    fn lane(&mut self, kind: Kind) -> &mut Lane {
        let [steps, alarms, rows] = &mut self.lanes;
        match kind {
            Kind::Steps => steps,
            Kind::Alarms => alarms,
            Kind::Rows => rows,
        }
    }

    /// Where nothing waits, anything is taken.
    fn has_room(&mut self, kind: Kind, rows: usize, capacity: usize) -> bool {
        let lane = self.lane(kind);
        lane.rows == 0 || lane.rows + rows <= capacity
    }

    fn push(&mut self, kind: Kind, mut held: Held) {
        if self.refused {
            held.go_on();
        }
        let number = self.next;
        self.next += 1;
        let lane = self.lane(kind);
        lane.rows += held.rows();
        lane.appends.push_back((number, held));
    }
}

/// The writer's end of the queue. When it goes, what is left is refused, and nothing more is taken.
pub(super) struct Outlet(pub(super) Arc<Queue>);

impl Outlet {
    /// Resolves when there is something to take.
    pub(super) async fn filled(&self) {
        loop {
            let filled = self.0.filled.notified();
            {
                let state = self.0.lock();
                if !state.gaps.is_empty()
                    || !state.decisions.is_empty()
                    || state.lanes.iter().any(|lane| !lane.appends.is_empty())
                {
                    return;
                }
            }
            filled.await;
        }
    }

    /// The oldest append.
    pub(super) fn take(&self) -> Option<Held> {
        let mut state = self.0.lock();
        let number = |lane: &Lane| lane.appends.front().map_or(u64::MAX, |(number, _)| *number);
        let lane = state.lanes.iter_mut().min_by_key(|lane| number(lane))?;
        let (_, held) = lane.appends.pop_front()?;
        lane.rows -= held.rows();
        self.0.room.notify_waiters();
        Some(held)
    }

    /// What was dropped; to be taken after rows, so that no row is stored before the gap that lies before it.
    pub(super) fn gaps(&self) -> impl Iterator<Item = NewGap> + use<> {
        std::mem::take(&mut self.0.lock().gaps).into_values()
    }

    /// What was decided.
    pub(super) fn decisions(&self) -> impl Iterator<Item = Decision> + use<> {
        std::mem::take(&mut self.0.lock().decisions).into_values()
    }

    /// The disk could be written, or could not: then messages that need not wait for it are acknowledged.
    pub(super) fn tell(&self, refused: bool) {
        let mut state = self.0.lock();
        state.refused = refused;
        if refused {
            state.lanes.iter_mut().flat_map(|lane| &mut lane.appends).for_each(|(_, held)| held.go_on());
        } else if self.0.is_mendable(&state) {
            self.0.mendable.notify_one();
        }
    }

    /// Nothing more is taken in; what is there can be taken.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.room.notify_waiters();
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.close();
        // Acks may speak to others when they go: not under the lock.
        let mut state = self.0.lock();
        let (left, decisions) = (std::mem::take(&mut state.lanes), std::mem::take(&mut state.decisions));
        self.0.drop_decisions(&mut state, decisions.len() as u64);
        drop(state);
        drop(left);
    }
}
