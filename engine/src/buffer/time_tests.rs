//! Clocks that jump, rows that grow old, and what is known of when they were written.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use tidegate_core::clock::SimulatedClock;
use tidegate_core::{Outcome, Span};
use tokio::time::Instant;

use super::inspect::{Inspector, Reader, Source};
use super::tests::{OnThread, UPLINK, acked, one, rows, seqs, settings, wait};
use super::*;
use crate::disk::SystemDisk;
use crate::time::Known;
use crate::time::tests::RuntimeClock;

const S: i64 = 1_000_000_000;
const YEAR: i64 = 31_536_000 * S;
/// 2026-01-01T00:00:00Z
const TODAY: i64 = 1_767_225_600 * S;

struct Stage {
    dir: tempfile::TempDir,
    clock: Arc<SimulatedClock>,
    settings: config::Buffer,
    status: Arc<OutboxStatus>,
    buffer: OnThread,
    next: u64,
}

impl Stage {
    /// A box that believes that it is `wall_ns`, and keeps rows for `ttl`.
    fn new(wall_ns: i64, ttl: Option<Duration>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimulatedClock::new(wall_ns));
        let (settings, status) = (config::Buffer { ttl: ttl.map(Span), ..settings(&dir) }, Arc::default());
        let buffer =
            OnThread::open_by(&settings, one(), Arc::clone(&clock) as _, Arc::clone(&status)).unwrap();
        Self { dir, clock, settings, status, buffer, next: 0 }
    }

    fn restart(&mut self) {
        self.buffer.close();
        self.buffer =
            OnThread::open_by(&self.settings, one(), Arc::clone(&self.clock) as _, Arc::clone(&self.status))
                .unwrap();
    }

    fn reboot(&mut self, wall_ns: i64) {
        self.buffer.close();
        self.clock.reboot(wall_ns);
        self.restart();
    }

    fn store_of(&mut self, rule: &str, delivery: DeliveryPolicy) {
        let (ack, told) = acked();
        let now_ns = self.buffer.time().now();
        self.buffer
            .append(vec![OutboxRows { rule: rule.into(), delivery, now_ns, ..rows(self.next, 1, ack) }])
            .unwrap();
        assert_eq!(told.recv().unwrap(), Outcome::Done);
        self.next += 1;
    }

    fn store(&mut self) {
        self.store_of("r", DeliveryPolicy::default());
    }

    fn pass(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds));
    }

    fn gaps(&self) -> Vec<(String, String, u64)> {
        let gaps = wait(self.buffer.outbox(UPLINK).fetch_gaps(100)).unwrap();
        gaps.into_iter().map(|gap| (gap.rule.to_string(), gap.reason, gap.rows)).collect()
    }
}

#[test]
fn rows_that_are_too_old_are_not_sent_and_leave_a_gap() {
    let mut stage = Stage::new(TODAY, Some(Duration::from_secs(60)));
    let ttl = Some(Span(Duration::from_hours(1)));
    stage.store();
    stage.store_of("slow", DeliveryPolicy { ttl, ..DeliveryPolicy::default() });
    stage.pass(59);
    stage.store();
    assert_eq!(seqs(&stage.buffer), [0, 1, 2]);
    stage.pass(1);
    assert_eq!(seqs(&stage.buffer), [1, 2], "before anybody cleans up");
    stage.store();
    assert_eq!(stage.gaps(), [("r".to_owned(), "expired".to_owned(), 1)]);
    assert_eq!((stage.status.dropped.get(), stage.status.waiting.get()), (1, 3));
    // The buffer's own does not count for what was stored before.
    stage.settings.ttl = None;
    stage.restart();
    stage.store();
    stage.pass(3_600);
    stage.store();
    assert_eq!(seqs(&stage.buffer), [4, 5]);
    assert_eq!(stage.gaps().iter().map(|(.., rows)| *rows).sum::<u64>(), 4);
    assert_eq!(stage.status.dropped.get(), 4);
    assert_eq!(Inspector::open(&stage.settings.path).unwrap().verify(|_, _| {}).problems, []);
}

#[test]
fn nothing_grows_old_because_a_clock_jumps() {
    let mut stage = Stage::new(0, Some(Duration::from_secs(60)));
    stage.store();
    for wall_ns in [TODAY, TODAY + 40 * YEAR, -40 * YEAR, 0] {
        stage.clock.set(wall_ns);
        stage.pass(2);
        stage.store();
    }
    stage.clock.synchronise(TODAY);
    stage.pass(2);
    stage.store();
    for wall_ns in [TODAY + 30 * YEAR, 0, TODAY - YEAR] {
        stage.reboot(wall_ns);
        stage.store();
        stage.pass(2);
    }
    assert_eq!(seqs(&stage.buffer), (0..9).collect::<Vec<_>>());
    // But time passes all the same.
    stage.pass(53);
    stage.store();
    assert_eq!(seqs(&stage.buffer), (3..10).collect::<Vec<_>>());
    // The machine was off for half a minute, which is known as soon as its clock is set.
    stage.reboot(0);
    stage.store();
    assert_eq!(seqs(&stage.buffer), (3..11).collect::<Vec<_>>());
    stage.clock.synchronise(TODAY + (2 + 55 + 30) * S);
    stage.pass(2);
    stage.store();
    assert_eq!(seqs(&stage.buffer), (9..12).collect::<Vec<_>>());
}

#[test]
fn journal_entries_are_as_old_as_the_time_that_passed_and_ticks_push_no_rows_out() {
    let mut stage = Stage::new(TODAY, None);
    stage.settings.journal_age = Span(Duration::from_hours(1));
    stage.restart();
    // Three ticks for each entry with rows.
    let keep = |stage: &Stage, ids: std::ops::RangeInclusive<u64>| {
        for id in ids {
            let (now_ns, wall_ns) = (stage.buffer.time().now(), stage.clock.wall_ns());
            let of_rows = JournalStep::Rows {
                stream: "s".into(),
                rows: rows(id, 1, Ack::none()).rows,
                marks: vec![id],
                ack: Ack::none(),
            };
            let step = if id.is_multiple_of(4) { of_rows } else { JournalStep::Tick { seq: id } };
            stage.buffer.journal(JournalEntry { id, now_ns, wall_ns, step }).unwrap();
        }
    };
    let snapshot = |stage: &Stage, number: u64, entry: u64| {
        stage
            .buffer
            .snapshot(Snapshot { number, entry, manifest: "{}".into(), parts: 1, ..Snapshot::default() })
            .unwrap();
        stage.buffer.snapshot_part(SnapshotPart { number, states: Vec::new() }).unwrap();
    };
    let kept = |stage: &Stage, what: &str| -> (u64, u64) {
        let raw = rusqlite::Connection::open(&stage.settings.path).unwrap();
        let select = format!("SELECT min(id), count(*) FROM journal WHERE {what}");
        raw.query_row(&select, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    keep(&stage, 1..=6_000);
    for (number, entry) in [(1, 6_000), (2, 6_100), (3, 6_200)] {
        snapshot(&stage, number, entry);
        stage.clock.set(TODAY + 40 * YEAR);
        keep(&stage, entry + 1..=entry + 100);
    }
    stage.restart();
    assert_eq!(kept(&stage, "TRUE"), (1, 6_300), "they are of today, whatever the clock says");
    stage.pass(3_700);
    snapshot(&stage, 4, 6_300);
    stage.restart();
    // The older of two snapshots is after entry 6200.
    assert_eq!(kept(&stage, "rows = 0"), (6_201, 75));
    assert_eq!(kept(&stage, "rows > 0"), (6_300 - 4 * (journal::KEPT_ENTRIES - 1), journal::KEPT_ENTRIES));
    assert_eq!(stage.buffer.recovered().marks["s"].len() as u64, journal::KEPT_ENTRIES);
    let problems = Inspector::open(&stage.settings.path).unwrap().verify(|_, _| {}).problems;
    let other = problems.iter().find(|problem| !problem.problem.contains("has no `ts`"));
    assert_eq!(other, None);
}

#[test]
fn what_was_written_before_the_clock_was_set_is_corrected_when_it_is_read() {
    let mut stage = Stage::new(0, None);
    stage.pass(10);
    stage.store();
    stage.pass(50);
    stage.clock.synchronise(TODAY);
    stage.store();
    let written = |stage: &Stage| -> Vec<_> {
        wait(stage.buffer.outbox(UPLINK).fetch(0, u64::MAX, 10))
            .unwrap()
            .into_iter()
            .map(|block| block.written.unwrap())
            .collect()
    };
    let corrected = |written: WallTime| {
        (written.wall_ns, matches!(written.by, Known::Corrected { by_ns } if by_ns == TODAY - 60 * S))
    };
    let early = written(&stage)[0];
    assert_eq!(corrected(early), (TODAY - 50 * S, true));
    assert_eq!(written(&stage)[1], WallTime { wall_ns: TODAY, by: Known::Synchronised });
    stage.reboot(0);
    stage.store();
    assert_eq!((written(&stage)[0], written(&stage)[2].by), (early, Known::Unsynchronised));
    let inspector = Inspector::open(&stage.dir.path().join("box.db")).unwrap();
    let outbox = inspector.stats().unwrap().outbox;
    assert_eq!((outbox.corrected_rows, outbox.oldest.unwrap().wall_ns), (1, Some(TODAY - 50 * S)));
    let mut reader = Reader::new(&inspector, Source::Waiting(None), 10, false).unwrap();
    assert_eq!(reader.read().unwrap().unwrap().written, Some(early));
}

#[test]
fn readings_of_the_clocks_go_with_what_they_are_for() {
    let mut stage = Stage::new(TODAY, None);
    for boot in 0..20 {
        stage.store();
        stage
            .buffer
            .snapshot(Snapshot {
                number: boot,
                entry: 0,
                manifest: "{}".into(),
                parts: 1,
                ..Snapshot::default()
            })
            .unwrap();
        stage.buffer.snapshot_part(SnapshotPart { number: boot, states: Vec::new() }).unwrap();
        if boot == 3 {
            stage.clock.synchronise(TODAY);
            stage.pass(2);
            stage.store();
        }
        if boot == 10 {
            let ids = wait(stage.buffer.outbox(UPLINK).fetch(0, u64::MAX, 100))
                .unwrap()
                .iter()
                .map(|block| block.id)
                .collect();
            wait(stage.buffer.outbox(UPLINK).confirm(ids)).unwrap();
        }
        stage.reboot(TODAY);
    }
    let raw = rusqlite::Connection::open(&stage.settings.path).unwrap();
    let boots: Vec<String> = {
        let mut select = raw.prepare("SELECT boot FROM clocks ORDER BY id").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    // Rows of boot 12 and later wait; the clock was right in boot 4.
    assert_eq!(boots[0], "boot 4", "{boots:?}");
    assert_eq!(boots.len(), 11, "{boots:?}");
    assert_eq!(boots.last().unwrap(), "boot 21");
}

#[tokio::test(start_paused = true)]
async fn rows_go_when_they_are_too_old_though_nothing_else_happens() {
    let dir = tempfile::tempdir().unwrap();
    let settings = config::Buffer { ttl: Some(Span(Duration::from_hours(1))), ..settings(&dir) };
    let clock = Arc::new(RuntimeClock(Instant::now()));
    let status: Arc<OutboxStatus> = Arc::default();
    let (buffer, writer) =
        Buffer::open(&settings, one(), clock, Arc::new(SystemDisk), Arc::clone(&status)).unwrap();
    tokio::spawn(writer);
    let outbox = buffer.outbox(UPLINK);
    let mut committed = outbox.committed();
    let store = async |first| {
        let now_ns = buffer.time().now();
        buffer.append(vec![OutboxRows { now_ns, ..rows(first, 10, Ack::none()) }]).await.unwrap();
    };
    store(0).await;
    committed.changed().await.unwrap();
    tokio::time::advance(Duration::from_mins(30)).await;
    store(10).await;
    committed.changed().await.unwrap();
    assert_eq!(status.waiting.get(), 20);
    committed.changed().await.unwrap();
    assert_eq!((status.waiting.get(), status.dropped.get()), (10, 10));
    committed.changed().await.unwrap();
    assert_eq!((status.waiting.get(), status.dropped.get()), (0, 20));
    let gap = &outbox.fetch_gaps(10).await.unwrap()[0];
    assert_eq!((gap.rows, gap.first_seq, gap.last_seq, &*gap.reason), (20, 0, 19, "expired"));
    // Nobody wakes up for what is not there.
    let idle = tokio::time::timeout(Duration::from_hours(100), committed.changed()).await;
    assert!(idle.is_err());
}
