//! The one that owns SQLite, on a thread of its own in a box: takes what is queued, commits it as a group,
//! releases the acks.
//!
//! Rows go from the queue to `gathered`, where they are collected; are packed and held; and are let go when
//! they are on disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_core::{Rows, Sampler};
use tidegate_rules::Priority;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::changes::{Changes, Done, Lane, NewGap, Totals};
use super::content::Content;
use super::database::Database;
use super::group::{Append, Gathered, Held, pack};
use super::journal::{JournalEntry, NewEntry, NewSnapshot, Snapshot, SnapshotPart};
use super::queue::Outlet;
use super::{BufferError, Gap, OutboxRows, StoredBlock, block};
use crate::status::OutboxStatus;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Rows that grow too old wait for each other so long: one commit for many of them spares the disk.
const EXPIRY_PAUSE: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(10) };
/// How long deliveries wait for a commit that is made anyway: what is lost of them in a crash is sent again,
/// under the same ids.
const DELIVERIES_WAIT: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1_000 });
/// Decisions that do not wait for others.
const DECISIONS: usize = 1_024;
/// What may pass rows that wait for room: the journal grows by it, since no snapshot can be stored meanwhile.
const MAX_PASSED: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };
/// Requests that are answered between two commits, so that neither keeps the other waiting.
const REQUESTS: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, BufferError>>;

/// What the writer is asked for, besides appends: these go on while appends have to wait.
pub(super) enum Request {
    Fetch {
        uplink: Arc<str>,
        range: (u64, u64),
        priority: Option<Priority>,
        limit: usize,
        reply: Reply<Vec<StoredBlock>>,
    },
    Confirm(Arc<str>, Vec<u64>),
    Refuse(Arc<str>, u64, String),
    FetchGaps(Arc<str>, usize, Reply<Vec<Gap>>),
    ConfirmGaps(Arc<str>, Vec<u64>),
    ReadJournal(u64, Reply<Vec<JournalEntry>>),
    Content(String, Reply<Option<Vec<u8>>>),
    Adopt(Content, Reply<()>),
    Reserve(Reply<(u64, u64)>),
    Close,
}

/// When a failed commit is tried again. Nothing but the time changes that: not a request, however many come.
#[derive(Debug, Default)]
struct Backoff {
    delay: Duration,
    retry_at: Option<Instant>,
}

impl Backoff {
    fn failed(&mut self, now: Instant) {
        self.delay = (self.delay * 2).clamp(FIRST_RETRY, LAST_RETRY);
        self.retry_at = Some(now + self.delay);
    }

    /// Returns whether there was a failure before.
    fn succeeded(&mut self) -> bool {
        std::mem::take(self).retry_at.is_some()
    }
}

/// How often the log says each of these.
#[derive(Default)]
struct Reported {
    full: Sampler,
    dropped: Sampler,
    failing: Sampler,
    recovered: Sampler,
    unpackable: Sampler,
    refused: Sampler,
    forgotten: Sampler,
    expired: Sampler,
    unjournaled: Sampler,
    unread: Sampler,
}

pub(super) struct Writer {
    /// before `committed`, so that who hears of the end finds it closed
    database: Database,
    queue: Outlet,
    requests: mpsc::Receiver<Request>,
    committed: watch::Sender<u64>,
    status: Arc<OutboxStatus>,
    commit_every: Duration,
    gathered: Gathered,
    /// What is to be committed next, and the changes made of it. Alarms stand apart, so that they need not
    /// wait with the rest.
    alarms: Vec<Held>,
    held: Vec<Held>,
    changes: Changes,
    /// there is no room for them, as of the last look
    alarms_wait: bool,
    rows_wait: bool,
    /// bytes that have passed rows that wait
    passed: usize,
    /// when the first delivery, gap or decision came that is not noted yet
    delivered: Option<Instant>,
    /// a snapshot of which parts are missing
    snapshot: Option<(Snapshot, Vec<SnapshotPart>)>,
    backoff: Backoff,
    /// when rows are to be dropped because they are too old
    expiry: Option<Instant>,
    /// there may be free pages to give back
    shrink: bool,
    closing: bool,
    reported: Reported,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        queue: Outlet,
        requests: mpsc::Receiver<Request>,
        committed: watch::Sender<u64>,
        status: Arc<OutboxStatus>,
        commit_every: Duration,
    ) -> Self {
        note_size(&status, database.totals());
        let mut writer = Self {
            database,
            queue,
            requests,
            committed,
            status,
            commit_every,
            gathered: Gathered::default(),
            alarms: Vec::new(),
            held: Vec::new(),
            changes: Changes::default(),
            alarms_wait: false,
            rows_wait: false,
            passed: 0,
            delivered: None,
            snapshot: None,
            backoff: Backoff::default(),
            expiry: None,
            shrink: true,
            closing: false,
            reported: Reported::default(),
        };
        writer.look_for_expiry();
        writer
    }

    pub(super) async fn run(mut self) {
        while !self.closing {
            let due = self.due();
            let wait = async move {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                request = self.requests.recv() => self.answer(request.unwrap_or(Request::Close)),
                () = self.queue.filled(), if self.takes_more() => self.gather(),
                () = wait => {}
                () = std::future::ready(()), if self.shrink && self.backoff.retry_at.is_none() => {
                    self.shrink();
                }
            }
            for _ in 0..REQUESTS {
                let Ok(request) = self.requests.try_recv() else { break };
                self.answer(request);
            }
            if self.takes_more() {
                self.gather();
            }
            if self.due().is_some_and(|due| due <= Instant::now()) {
                self.pack();
                self.commit();
            }
            if self.backoff.retry_at.is_none() {
                self.queue.tell(false);
            }
        }
        self.finish().await;
    }

    /// When the next commit is to be made.
    fn due(&self) -> Option<Instant> {
        if self.backoff.retry_at.is_some() {
            return self.backoff.retry_at;
        }
        let is_asked_for = self.rows_wait || self.alarms_wait;
        let is_asked_for = is_asked_for || self.changes.decisions.len() >= DECISIONS;
        let delivered = self
            .delivered
            .map(|since| if is_asked_for { since } else { since + self.commit_every.max(DELIVERIES_WAIT) });
        [self.gathered.due(self.commit_every), delivered, self.database.sync_due(), self.expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether more is taken from the queue.
    fn takes_more(&self) -> bool {
        self.backoff.retry_at.is_none()
            && !self.gathered.is_full()
            && !self.alarms_wait
            && self.passed < MAX_PASSED
    }

    /// Answers what was asked and commits what was appended before the buffer was closed. One attempt each:
    /// nobody waits for a disk here.
    async fn finish(mut self) {
        self.requests.close();
        self.queue.close();
        while let Some(request) = self.requests.recv().await {
            self.answer(request);
        }
        loop {
            self.gather();
            self.give_up_mending();
            self.pack();
            let more = !(self.held.is_empty() && self.alarms.is_empty());
            self.commit();
            if !self.changes.is_only_blocks() {
                tracing::warn!(
                    "the buffer closed before deliveries, gaps and decisions could be noted; they will be \
                    sent or made again"
                );
            }
            if !(self.held.is_empty() && self.alarms.is_empty()) {
                let held = self.held.iter().chain(&self.alarms).map(|held| held.size().0);
                let rows = held.sum::<usize>() + self.gathered.rows();
                tracing::error!(
                    rows,
                    "the buffer closed before these rows, and any queued behind them, could be written; \
                    they were not acknowledged"
                );
                break;
            }
            if !more {
                break;
            }
        }
        if let Err(error) = self.database.checkpoint() {
            tracing::warn!(%error, "the write-ahead log could not be folded in; the next start does it");
        }
    }

    fn answer(&mut self, request: Request) {
        // An asker that went away does not want the answer.
        match request {
            Request::Confirm(uplink, ids) => {
                self.delivered.get_or_insert_with(Instant::now);
                // Ids that were never given would stay for ever while the disk fails.
                let last = self.database.totals().last_block;
                self.changes
                    .confirmed
                    .extend(ids.into_iter().filter(|id| *id <= last).map(|id| (id, Arc::clone(&uplink))));
            }
            Request::Refuse(uplink, id, reason) => {
                let reason =
                    if self.database.uplinks().is_one() { reason } else { format!("{uplink}: {reason}") };
                self.refuse(Some(&uplink), vec![(id, reason)]);
            }
            Request::FetchGaps(uplink, limit, reply) => {
                let found = self.repaired(|database, changes| {
                    let gaps = database.fetch_gaps(&uplink, limit, changes)?;
                    // Lost in a power cut, its id would stand for another one.
                    if gaps.is_empty() { Ok(gaps) } else { database.sync().map(|()| gaps) }
                });
                drop(reply.send(found));
            }
            Request::ConfirmGaps(uplink, ids) => {
                self.delivered.get_or_insert_with(Instant::now);
                let last = self.database.totals().last_gap;
                self.changes
                    .confirmed_gaps
                    .extend(ids.into_iter().filter(|id| *id <= last).map(|id| (id, Arc::clone(&uplink))));
            }
            Request::ReadJournal(after, reply) => {
                let found = self.repaired(|database, _| database.read_journal(after));
                let answer = found.map(|(good, bad)| {
                    for (entry, reason) in bad {
                        if let Some(entries) = self.reported.unread.count(1) {
                            tracing::error!(
                                entry,
                                reason,
                                entries,
                                "an entry of the journal cannot be read; the rules' state lacks its rows"
                            );
                        }
                    }
                    good
                });
                drop(reply.send(answer));
            }
            Request::Content(hash, reply) => {
                drop(reply.send(self.repaired(|database, _| database.content(&hash))))
            }
            Request::Adopt(content, reply) => {
                drop(reply.send(self.repaired(|database, _| database.adopt(&content))))
            }
            Request::Reserve(reply) => drop(reply.send(self.repaired(|database, _| database.reserve()))),
            Request::Close => self.closing = true,
            Request::Fetch { uplink, range, priority, limit, reply } => {
                let found = self
                    .repaired(|database, changes| database.fetch(&uplink, range, priority, limit, changes));
                let answer = found.map(|(good, bad)| {
                    self.refuse(None, bad);
                    good
                });
                drop(reply.send(answer));
            }
        }
    }

    /// By `uplink`, or for all of them.
    fn refuse(&mut self, uplink: Option<&Arc<str>>, blocks: Vec<(u64, String)>) {
        if blocks.is_empty() {
            return;
        }
        self.delivered.get_or_insert_with(Instant::now);
        let last = self.database.totals().last_block;
        for (id, reason) in blocks.into_iter().filter(|(id, _)| *id <= last) {
            if let Some(blocks) = self.reported.refused.count(1) {
                tracing::error!(
                    block = id,
                    %reason,
                    blocks,
                    "a block cannot be delivered; it is kept in table `refused`"
                );
            }
            self.changes.refused.insert((id, uplink.cloned()), reason);
        }
    }

    /// Takes what is queued, up to the limits.
    fn gather(&mut self) {
        let now = Instant::now();
        while !self.gathered.is_full()
            && let Some(held) = self.queue.take()
        {
            self.gathered.push(held, now);
        }
        let noted = |changes: &Changes| changes.gaps.len() + changes.decisions.len();
        let before = noted(&self.changes);
        self.changes.gaps.extend(self.queue.gaps());
        // Like deliveries, they wait for a commit that is made anyway: lost in a crash, they are made again.
        self.changes.decisions.extend(self.queue.decisions());
        if noted(&self.changes) > before {
            self.delivered.get_or_insert(now);
        }
    }

    /// The box ends before the snapshot is there from which the journal would go on: what lies behind it is
    /// not stored.
    fn give_up_mending(&mut self) {
        let rows: u64 = self
            .gathered
            .give_up_mending()
            .iter()
            .flat_map(Held::outbox)
            .map(|rows| rows.rows.len() as u64)
            .sum();
        if rows > 0 {
            self.status.dropped.add(rows);
            tracing::error!(
                rows,
                "the box ended before the journal could go on; rows for the uplinks are lost"
            );
        }
    }

    /// Makes changes of what was gathered; while rows wait for room, of what may pass them.
    fn pack(&mut self) {
        if self.gathered.is_mending() {
            return;
        }
        let (alarms, mut rest) = self.gathered.take(&self.held);
        if self.rows_wait {
            self.passed += alarms.iter().chain(&rest).map(|held| held.size().1).sum::<usize>();
        }
        let lane = self.lane(&alarms);
        self.changes.alarms.add(lane);
        let lane = self.lane(&rest);
        self.changes.rows.add(lane);
        self.pack_journal(&mut rest);
        self.alarms.extend(alarms);
        self.held.extend(rest);
    }

    fn lane(&mut self, appends: &[Held]) -> Lane {
        let outbox: Vec<&OutboxRows> = appends.iter().flat_map(Held::outbox).collect();
        let (blocks, unpackable) = pack(&outbox, block::encode);
        let mut lane = Lane { blocks, progress: BTreeMap::new() };
        for OutboxRows { rule, rows, .. } in &outbox {
            let last = rows.seqs.get(rows.len().saturating_sub(1));
            let progress = lane.progress.entry(Arc::clone(rule)).or_default();
            *progress = last.max(*progress);
        }
        for bad in unpackable {
            let Some(OutboxRows { rule, rows: Rows { seqs, .. }, ack, .. }) = outbox.get(bad.index) else {
                continue;
            };
            let (rows, last) =
                (bad.rows, outbox.get(bad.index).map_or(0, |rows| rows.rows.len().saturating_sub(1)));
            let (first_seq, last_seq) = (seqs.get(0), seqs.get(last));
            self.changes.gaps.push(NewGap {
                rule: Arc::clone(rule),
                first_seq,
                last_seq,
                rows,
                reason: "cannot be stored",
            });
            ack.refuse();
            self.status.dropped.add(bad.rows);
            if let Some(rows) = self.reported.unpackable.count(bad.rows) {
                tracing::error!(
                    rule = %rule,
                    rows,
                    error = %bad.error,
                    "rows cannot be stored and were dropped, not acknowledged; mend the rule"
                );
            }
        }
        lane
    }

    fn pack_journal(&mut self, appends: &mut [Held]) {
        for held in appends {
            let failed = match &mut held.append {
                Append::Outbox(_) => None,
                Append::Journal(entry) => match NewEntry::pack(entry) {
                    Ok(entry) => {
                        self.changes.journal.push(entry);
                        None
                    }
                    // Refused, it would come again and again. The rules have it, but a crash would lose it.
                    Err(error) => Some(error.to_string()),
                },
                Append::Snapshot(snapshot) => {
                    let snapshot = std::mem::take(snapshot);
                    self.snapshot = Some((snapshot, Vec::new()));
                    None
                }
                Append::Part(part) => match &mut self.snapshot {
                    Some((snapshot, parts)) if snapshot.number == part.number => {
                        parts.push(std::mem::take(part));
                        None
                    }
                    _ => None,
                },
            };
            if let Some(error) = failed
                && let Some(entries) = self.reported.unjournaled.count(1)
            {
                tracing::error!(
                    error,
                    entries,
                    "rows cannot be stored in the journal; a crash would lose what they did to the rules' \
                    state"
                );
            }
        }
        if self.snapshot.as_ref().is_some_and(|(snapshot, parts)| parts.len() >= snapshot.parts)
            && let Some((snapshot, parts)) = self.snapshot.take()
        {
            let states = parts.into_iter().flat_map(|part| part.states).collect();
            match NewSnapshot::pack(snapshot, states) {
                Ok(snapshot) => self.changes.snapshot = Some(snapshot),
                Err(error) => {
                    tracing::error!(%error, "the rules' state cannot be stored; the snapshot before stays, \
                        and the journal with it")
                }
            }
        }
    }

    /// Commits, and says whether rows wait for room.
    fn commit(&mut self) {
        self.try_commit();
        let held = self.alarms_wait || self.rows_wait;
        self.status.held.set(u64::from(held));
    }

    fn try_commit(&mut self) {
        let too_old = self.expiry.is_some_and(|at| at <= Instant::now());
        let Changes { alarms, rows, snapshot, .. } = &self.changes;
        let must_wait = |lane: &Lane| !lane.blocks.is_empty() && self.database.must_wait(&lane.blocks);
        let (alarms_wait, rows_wait) = (must_wait(alarms), must_wait(rows));
        let new = !(alarms_wait || alarms.blocks.is_empty()) || !(rows_wait || rows.blocks.is_empty());
        let new = new || (snapshot.is_some() && !alarms_wait && !rows_wait);
        if self.changes.is_only_blocks() && !new && !too_old {
            // What was delivered was not there any more, or nothing was.
            self.delivered = None;
            (self.alarms_wait, self.rows_wait) = (alarms_wait, rows_wait);
            self.release();
            let is_due = self.database.sync_due().is_some_and(|due| due <= Instant::now());
            match if is_due { self.repaired(|database, _| database.sync()) } else { Ok(()) } {
                // Nothing was written, so nobody knows whether it could be.
                Ok(()) => drop(self.backoff.succeeded()),
                Err(error) => self.failed(&error),
            }
            return;
        }
        match self.repaired(|database, changes| database.commit(changes)) {
            Ok(done) => self.committed(&done),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &BufferError) {
        self.backoff.failed(Instant::now());
        self.status.failures.add(1);
        self.status.refused.store(true, Ordering::Relaxed);
        self.queue.tell(true);
        self.held.iter_mut().chain(&mut self.alarms).chain(self.gathered.appends()).for_each(Held::go_on);
        if let Some(attempts) = self.reported.failing.count(1) {
            let until = "until it can, rows are held: those of streams with `on_disk_failure = \"hold\"` \
                are not acknowledged, of others a crash may lose what was acknowledged";
            tracing::error!(%error, attempts, "the buffer cannot be written; {until}");
        }
    }

    fn succeeded(&mut self) {
        self.status.refused.store(false, Ordering::Relaxed);
        if self.backoff.succeeded()
            && let Some(times) = self.reported.recovered.count(1)
        {
            tracing::warn!(times, "the buffer can be written again");
        }
    }

    fn committed(&mut self, done: &Done) {
        self.succeeded();
        let Changes { alarms, rows, snapshot, gaps, .. } = std::mem::take(&mut self.changes);
        let dropped = done.dropped_rows + done.expired_rows + done.forgotten_rows;
        if dropped > 0 || !gaps.is_empty() {
            self.status.gaps.add(1);
        }
        if done.alarms_wait {
            self.changes.alarms = alarms;
        }
        if done.rows_wait {
            self.changes.rows = rows;
        }
        if done.alarms_wait || done.rows_wait {
            self.changes.snapshot = snapshot;
        }
        (self.alarms_wait, self.rows_wait) = (done.alarms_wait, done.rows_wait);
        self.delivered = None;
        self.status.commits.add(1);
        self.status.committed.add(done.stored_rows);
        note_size(&self.status, self.database.totals());
        self.status.dropped.add(dropped);
        if done.dropped_rows > 0
            && let Some(rows) = self.reported.dropped.count(done.dropped_rows)
        {
            tracing::error!(
                rows,
                "there was no room for all rows, and some were dropped: see why the uplink does not take \
                them, or raise `max_size`"
            );
        }
        if done.forgotten_rows > 0
            && let Some(rows) = self.reported.forgotten.count(done.forgotten_rows)
        {
            tracing::error!(rows, "table `refused` is full; its oldest blocks were deleted");
        }
        if done.expired_rows > 0
            && let Some(rows) = self.reported.expired.count(done.expired_rows)
        {
            tracing::warn!(
                rows,
                "rows were older than their `ttl` before an uplink had taken them, and were dropped"
            );
        }
        self.look_for_expiry();
        self.shrink = true;
        // The forwarder hears of rows before their source does, so that they count as live at once; and of
        // deletions too, because there may be new gaps.
        self.committed.send_replace(self.database.totals().last_block);
        self.release();
    }

    /// Lets go of what is on disk: all but rows that wait for room. The journal does not wait for that.
    fn release(&mut self) {
        if !self.alarms_wait {
            self.alarms.drain(..).for_each(Held::release);
        }
        self.held.extract_if(.., |held| !self.rows_wait || held.outbox().is_empty()).for_each(Held::release);
        if self.rows_wait || self.alarms_wait {
            self.say_full();
        }
        if !self.rows_wait {
            self.passed = 0;
            self.gathered.make_due(Instant::now());
        }
    }

    /// When the next rows grow too old. What cannot be read now is looked at after the next commit.
    fn look_for_expiry(&mut self) {
        let left = self.database.next_expiry().ok().flatten();
        self.expiry =
            left.map(|left| Instant::now() + if left.is_zero() { left } else { left.max(EXPIRY_PAUSE) });
    }

    fn say_full(&mut self) {
        if let Some(times) = self.reported.full.count(1) {
            tracing::warn!(
                times,
                "there is no room for new rows, and they wait until the uplink has taken older ones, or \
                raise `max_size`"
            );
        }
    }

    fn shrink(&mut self) {
        self.shrink = self.database.shrink().unwrap_or_else(|error| {
            tracing::debug!(%error, "free pages could not be given back; the next commit tries again");
            false
        });
    }

    /// Does `work`; if the database turns out to be damaged, replaces it and does it again.
    fn repaired<T>(
        &mut self,
        work: impl Fn(&mut Database, &Changes) -> Result<T, BufferError>,
    ) -> Result<T, BufferError> {
        self.database.attach()?;
        match work(&mut self.database, &self.changes) {
            Err(cause) if cause.is_damage() => {
                let lost = self.database.salvage(&cause)?;
                self.status.dropped.add(lost);
                self.status.gaps.add(1);
                note_size(&self.status, self.database.totals());
                work(&mut self.database, &self.changes)
            }
            other => other,
        }
    }
}

fn note_size(status: &OutboxStatus, totals: Totals) {
    status.waiting.set(totals.waiting);
    status.bytes.set(totals.bytes);
    status.journal_bytes.set(totals.journal_bytes);
    status.decision_bytes.set(totals.decision_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_commit_is_due_at_its_deadline_and_each_failure_doubles_the_wait() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.retry_at.is_none() && !backoff.succeeded());
        let mut now = start;
        for wait_ms in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            backoff.failed(now);
            now += Duration::from_millis(wait_ms);
            assert_eq!(backoff.retry_at, Some(now));
        }
        assert!(backoff.succeeded() && backoff.retry_at.is_none());
    }
}
