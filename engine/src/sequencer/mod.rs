//! The sequencer: the only place where order is made.
//!
//! It numbers rows as they come, and hands batches, ticks, rule changes and snapshots to the workers in one
//! order, and to the journal in the same. It never waits for the disk, unless a stream says that it shall.
//!
//! Each entry has the sequence's time ([`crate::time`]). When a rule wants to be called although
//! no row comes, a tick is made, which takes a number like a row; rows that wait go first. When no rule wants that,
//! there are no ticks. A rule that wants to be called because no row has come is called when the line has
//! shown that it was listening ([`listening`]).
//!
//! [`journal`] keeps the sequence on disk, and runs it again after a crash; [`numbers`] are what rows are
//! numbered by. [`schemas`] and [`memory`]: inferred columns, and what streams have to remember.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidegate_connectors::{Arrival, LineNews};
use tidegate_core::{Ack, Batch, Rows};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use tidegate_rules::When;

use crate::rules::directory::RulesHandle;
use crate::sequence::edit::{Edit, Edited};
use crate::sequence::entry::{Entry, Origin};
use crate::sequence::wakes::Wakes;
use crate::sequencer::journal::Journal;
use crate::sequencer::numbers::Numbers;
use crate::sequencer::schemas::{News, SchemaStore};
use crate::status::{Status, StreamStatus};
use crate::system::control::{self, ControlEvent};
use crate::time::SequenceTime;

/// A timer that is farther away is set again on the way.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

pub mod journal;
mod listening;
pub mod memory;
pub mod numbers;
pub mod schemas;

pub use listening::Listeners;

/// Ticks of this start.
struct Ticks {
    made: u64,
    /// batches that went before a tick that is due
    passed: usize,
    /// As many may: those that waited when it became due. On a line that is never quiet it would come never.
    room: usize,
}

/// What the sequencer does though nothing comes.
enum Due {
    Tick,
    /// see [`Sequencer::begin_anew`]
    Beginning,
    /// A rule was stopped.
    Verdict,
}

/// The sequencer of a running box.
pub struct Sequencer {
    /// gives numbers
    pub numbers: Numbers,
    /// gives times
    pub time: Arc<SequenceTime>,
    /// one queue a worker
    pub workers: Vec<mpsc::Sender<Entry>>,
    /// when their rules want a tick
    pub wakes: Arc<Wakes>,
    /// the lines that streams come from
    pub listeners: Listeners,
    /// compiles rules anew when columns widen
    pub rules: RulesHandle,
    /// keeps inferred columns
    pub schemas: SchemaStore,
    /// counts rows
    pub status: Arc<Status>,
    /// keeps what can be run again
    pub journal: Journal,
    /// how often the rules' state is stored
    pub snapshot_every: Duration,
    /// by output, the newest decision that there is
    pub decided: Arc<HashMap<Arc<str>, u64>>,
}

impl Sequencer {
    /// Runs until every source has gone. Answers each of `beats` when it comes to it: it still goes round.
    pub async fn run(
        mut self,
        mut intake: mpsc::Receiver<Arrival>,
        mut changes: mpsc::Receiver<Edited>,
        mut beats: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        let mut streams: HashMap<Arc<str>, (SchemaRef, Arc<StreamStatus>)> = HashMap::new();
        let mut snapshots = tokio::time::interval(self.snapshot_every);
        snapshots.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        snapshots.tick().await;
        let mut ticks = Ticks { made: 0, passed: 0, room: intake.max_capacity() };
        self.say(ControlEvent::start(self.time.knows_the_gap(), &self.decided)).await;
        // Nobody listened while the box was down.
        for line in 0..self.listeners.len() {
            self.line(line, &LineNews::Ends { heard: Instant::now() }).await;
        }
        loop {
            // Before anything that came later.
            self.verdicts().await;
            tokio::select! {
                biased;
                Some(change) = changes.recv() => self.change(change).await,
                _ = snapshots.tick() => self.snapshot().await,
                // Whoever asked may have gone.
                Some(beat) = beats.recv() => drop(beat.send(())),
                () = self.mendable() => self.snapshot().await,
                () = std::future::ready(()), if ticks.passed > ticks.room => self.tick(&mut ticks).await,
                batch = intake.recv() => {
                    let Batch { stream, rows, marks, ack } = match batch {
                        Some(Arrival::Rows(batch)) => batch,
                        Some(Arrival::Line { line, news }) => {
                            self.line(line, &news).await;
                            continue;
                        }
                        None => break,
                    };
                    let schema = rows.schema();
                    let status = match streams.get(&stream) {
                        Some((known, status)) if Arc::ptr_eq(known, &schema) => status,
                        _ => {
                            self.columns_seen(&stream, &schema, &mut changes).await;
                            let status = self.status.streams.of(&stream);
                            &streams.entry(Arc::clone(&stream)).insert_entry((schema, status)).into_mut().1
                        }
                    };
                    let status = Arc::clone(status);
                    let now = self.rows(Batch { stream, rows, marks, ack }, &status).await;
                    let is_due = self.wakes.next(ticks.made).is_some_and(|at| at <= now);
                    ticks.passed = if is_due { ticks.passed + 1 } else { 0 };
                }
                due = self.wait(ticks.made) => match due {
                    Due::Tick => self.tick(&mut ticks).await,
                    Due::Verdict => {}
                    Due::Beginning => {
                        self.begin_anew().await;
                    }
                },
            }
        }
        self.say(ControlEvent::stop()).await;
        // A version that is about to start has done so with that.
        self.wakes.loads().decided().await;
        self.snapshot().await;
        tracing::debug!(next = self.numbers.next(), "all sources have gone");
    }

    /// Keeps what has stopped rules, and which versions could not start.
    async fn verdicts(&mut self) {
        for verdict in self.wakes.verdicts() {
            if let Edit::Refuse { .. } = verdict {
                self.rules.refused(verdict.clone());
            }
            self.change(Edited { edit: Some(verdict), changes: Vec::new() }).await;
        }
    }

    /// Rows have come: they are numbered, kept, and handed on. Returns when that was.
    async fn rows(&mut self, batch: Batch, status: &StreamStatus) -> i64 {
        let Batch { stream, rows, marks, ack } = batch;
        self.reserve(rows.num_rows() as u64).await;
        let (rows, when) = (self.numbers.number(rows), self.time.when());
        status.note(&rows, when.wall_ns);
        let ack = self.journal.rows(&stream, &rows, when, marks, ack, status).await;
        self.send(stream, rows, when, ack).await;
        if self.journal.snapshot_is_due() {
            self.snapshot().await;
        }
        when.now
    }

    /// The box itself says something, before or after all that comes in.
    async fn say(&mut self, event: ControlEvent) {
        let Some(rows) = event.row(self.time.when().wall_ns) else { return };
        let status = self.status.streams.of(control::NAME);
        let batch = Batch { stream: control::NAME.into(), rows, marks: Vec::new(), ack: Ack::none() };
        self.rows(batch, &status).await;
    }

    /// Resolves when a tick is due, after so many were made.
    async fn wait(&self, made: u64) -> Due {
        loop {
            let (now, leaps) = self.time.now_and_leaps();
            if self.listeners.has_leapt(leaps) {
                return Due::Beginning;
            }
            if self.wakes.has_verdicts() {
                return Due::Verdict;
            }
            let (tick, question) = (self.wakes.next(made), self.listeners.ask(&self.wakes.silences(), now));
            if tick.is_some_and(|at| at <= now) {
                return Due::Tick;
            }
            match tick.into_iter().chain(question).min().map(|at| at.saturating_sub(now)) {
                Some(ns) => {
                    let due = Duration::from_nanos(ns.unsigned_abs()).min(LONGEST_SLEEP);
                    // Either way it is looked at anew.
                    let _ = tokio::time::timeout(due, self.wakes.moved()).await;
                }
                None => self.wakes.moved().await,
            }
        }
    }

    /// Resolves when the journal has broken off, and can go on from a snapshot.
    async fn mendable(&self) {
        self.journal.mendable().await;
        self.numbers.plenty().await;
        self.wakes.loads().decided().await;
    }

    /// Has numbers for `count` rows or ticks. Past those that are reserved on disk nothing is stored, or,
    /// where a stream holds, everything waits for more.
    async fn reserve(&mut self, count: u64) {
        if self.numbers.are_reserved(count) {
            return;
        }
        if self.journal.holds() {
            self.numbers.reserved(count).await;
        } else {
            self.journal.break_off();
        }
    }

    async fn tick(&mut self, ticks: &mut Ticks) {
        self.reserve(1).await;
        let (seq, when) = (self.numbers.tick(), self.time.when());
        self.journal.tick(seq, when).await;
        for worker in &self.workers {
            // A worker is gone only when the box is going down.
            drop(worker.send(Entry::Tick { seq, when, origin: Origin::Live(Ack::none()) }).await);
        }
        (ticks.made, ticks.passed) = (ticks.made + 1, 0);
    }

    /// There is news of a line.
    async fn line(&mut self, line: usize, news: &LineNews) {
        let now = self.begin_anew().await;
        self.listened(line, news, now).await;
    }

    /// When time has counted in which nobody listened, silence begins anew. Returns the time.
    async fn begin_anew(&mut self) -> i64 {
        let (now, leaps) = self.time.now_and_leaps();
        if self.listeners.has_leapt(leaps) {
            for line in self.listeners.begin_anew(leaps) {
                self.listened(line, &LineNews::Begins, now).await;
            }
        }
        now
    }

    async fn listened(&mut self, line: usize, news: &LineNews, now: i64) {
        for (streams, listened) in self.listeners.news(line, news, now) {
            self.reserve(1).await;
            let (seq, when) = (self.numbers.tick(), self.time.when());
            self.journal.listened(seq, when, &streams, listened).await;
            for worker in &self.workers {
                let (streams, origin) = (Arc::clone(&streams), Origin::Live(Ack::none()));
                // A worker is gone only when the box is going down.
                drop(worker.send(Entry::Listened { seq, streams, listened, when, origin }).await);
            }
        }
    }

    async fn change(&mut self, Edited { edit, changes }: Edited) {
        if let Some(edit) = edit {
            self.journal.edit(&edit, self.time.when()).await;
        }
        for (worker, change) in changes {
            if let Some(worker) = self.workers.get(worker) {
                // A worker is gone only when the box is going down.
                drop(worker.send(Entry::Change(change.among(self.wakes.loads()))).await);
            }
        }
    }

    async fn snapshot(&mut self) {
        self.schemas.keep();
        // What followed could not be stored; or a version may be in force that does not run.
        if !self.numbers.are_reserved(1) || !self.wakes.loads().are_decided() {
            return;
        }
        self.verdicts().await;
        if let Some(number) = self.journal.snapshot(self.schemas.known(), self.workers.len()) {
            for worker in &self.workers {
                drop(worker.send(Entry::Snapshot(number)).await);
            }
        }
    }

    async fn send(&self, stream: Arc<str>, rows: Rows, when: When, ack: Ack) {
        let Some((last, others)) = self.workers.split_last() else { return };
        for worker in others {
            let entry = Entry::Batch {
                stream: Arc::clone(&stream),
                rows: rows.clone(),
                when,
                origin: Origin::Live(ack.clone()),
            };
            refuse_unless_sent(worker.send(entry).await);
        }
        refuse_unless_sent(last.send(Entry::Batch { stream, rows, when, origin: Origin::Live(ack) }).await);
    }

    /// Takes note of columns that are new, and lets no row with them pass before the rules have been compiled
    /// for them.
    async fn columns_seen(&mut self, stream: &str, schema: &SchemaRef, changes: &mut mpsc::Receiver<Edited>) {
        let Some(News { new, changed }) = self.schemas.learn(stream, schema) else { return };
        let rules = self.rules.clone();
        let mut asked = std::pin::pin!(rules.columns_changed(stream, schema));
        // Whoever owns the rule book may be waiting for us to take changes that were made before; they come
        // first.
        let compiled = loop {
            tokio::select! {
                biased;
                Some(change) = changes.recv() => self.change(change).await,
                compiled = &mut asked => break compiled,
            }
        };
        while let Ok(change) = changes.try_recv() {
            self.change(change).await;
        }
        let rules: Vec<&str> = compiled.iter().filter_map(|(_, change)| change.loads()).collect();
        let rules = rules.join(", ");
        if !new.is_empty() {
            tracing::info!(
                stream,
                columns = new.join(", "),
                rules,
                "the stream has new columns; the rules that read it are compiled for them"
            );
        }
        if !changed.is_empty() {
            tracing::info!(
                stream,
                columns = changed.join(", "),
                rules,
                "columns have another type; the rules that read the stream are compiled for it"
            );
        }
        // It follows from the rows, and is not an edit.
        self.change(Edited { edit: None, changes: compiled }).await;
    }
}

fn refuse_unless_sent(sent: Result<(), mpsc::error::SendError<Entry>>) {
    if let Err(mpsc::error::SendError(Entry::Batch { origin: Origin::Live(ack), .. })) = sent {
        ack.refuse();
    }
}

#[cfg(test)]
mod tests;
