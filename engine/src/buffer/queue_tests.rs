//! What happens when the disk does not take what comes in: who waits, who makes room, and what is on disk
//! afterwards.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::num::NonZeroUsize;
use std::time::Duration;

use super::tests::{OnThread, UPLINK, acked, rows, seqs, settings, wait};
use super::*;
use tidegate_core::Outcome;
use tidegate_rules::WhenFull;

/// A buffer whose queue takes `queue` rows, and a connection that locks the database when it is told to.
fn stage(
    queue: usize,
    when_full: WhenFull,
) -> (tempfile::TempDir, OnThread, Arc<OutboxStatus>, rusqlite::Connection) {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir, queue, when_full);
    let other = rusqlite::Connection::open(settings(&dir).path).unwrap();
    other.busy_timeout(Duration::from_secs(60)).unwrap();
    (dir, buffer, status, other)
}

fn open(dir: &tempfile::TempDir, queue: usize, when_full: WhenFull) -> (OnThread, Arc<OutboxStatus>) {
    let (queue, status) = (NonZeroUsize::new(queue).unwrap(), Arc::new(OutboxStatus::default()));
    let settings = config::Buffer { queue, when_full, ..settings(dir) };
    (OnThread::open(&settings, Arc::clone(&status)).unwrap(), status)
}

/// The database refuses from now on, and a first commit has failed.
fn refuse(buffer: &OnThread, status: &OutboxStatus, other: &rusqlite::Connection) {
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    buffer.append(vec![OutboxRows { rule: "first".into(), ..rows(0, 1, Ack::none()) }]).unwrap();
    until(|| status.refused.load(std::sync::atomic::Ordering::Relaxed));
}

fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

fn gaps(buffer: &OnThread) -> Vec<(String, u64, u64, u64)> {
    let gaps = wait(buffer.outbox(UPLINK).fetch_gaps(10)).unwrap();
    gaps.iter()
        .map(|gap| (format!("{}: {}", gap.rule, gap.reason), gap.first_seq, gap.last_seq, gap.rows))
        .collect()
}

fn tick(id: u64) -> JournalEntry {
    JournalEntry { id, now_ns: 1, wall_ns: 1, step: JournalStep::Tick { seq: id } }
}

fn delivery(when_full: Option<WhenFull>, priority: u8) -> DeliveryPolicy {
    DeliveryPolicy { when_full, priority: priority.try_into().unwrap(), ..DeliveryPolicy::default() }
}

#[test]
fn while_the_disk_refuses_nobody_waits_and_the_oldest_rows_make_room() {
    let (_dir, buffer, status, other) = stage(100, WhenFull::DropOldest);
    refuse(&buffer, &status, &other);
    for first in (1..1_000).step_by(10) {
        buffer.append(vec![rows(first, 10, Ack::none())]).unwrap();
        let stays = OutboxRows {
            rule: "stays".into(),
            delivery: delivery(Some(WhenFull::DropNewest), 5),
            ..rows(first, 10, Ack::none())
        };
        buffer.append(vec![stays]).unwrap();
        buffer
            .append(vec![OutboxRows {
                rule: "alarm".into(),
                delivery: delivery(None, 9),
                ..rows(first, 1, Ack::none())
            }])
            .unwrap();
    }
    other.execute_batch("COMMIT").unwrap();
    until(|| !gaps(&buffer).is_empty());
    // Of the rows the newest hundred are left; what drops its newest never found room, but for the first
    // time. Alarms have room of their own.
    let gone = |rule: &str| format!("{rule}: disk too slow");
    let found = gaps(&buffer);
    assert_eq!(found.iter().find(|(rule, ..)| *rule == gone("r")).unwrap(), &(gone("r"), 1, 900, 900));
    assert!(found.iter().all(|(rule, ..)| !rule.starts_with("alarm")), "{found:?}");
    let stored = seqs(&buffer);
    assert_eq!(
        stored.iter().filter(|seq| (901..1_001).contains(*seq)).count(),
        100 + 10,
        "the newest rows, and their alarms"
    );
    assert_eq!(status.dropped.get(), found.iter().map(|(.., rows)| rows).sum::<u64>());
    buffer.close();
}

#[test]
fn rows_that_block_wait_for_room_and_are_all_stored() {
    let (_dir, buffer, status, other) = stage(100, WhenFull::DropOldest);
    refuse(&buffer, &status, &other);
    let (tell, told) = std::sync::mpsc::sync_channel(1_000);
    let waits = std::thread::spawn({
        let buffer = buffer.clone();
        move || {
            for first in (1..1_000).step_by(10) {
                buffer
                    .append(vec![OutboxRows {
                        delivery: delivery(Some(WhenFull::Block), 5),
                        ..rows(first, 10, Ack::none())
                    }])
                    .unwrap();
                tell.send(first).unwrap();
            }
        }
    });
    for _ in 0..10 {
        told.recv().unwrap();
    }
    assert!(told.try_recv().is_err(), "a hundred rows wait, and no more fit");
    other.execute_batch("COMMIT").unwrap();
    waits.join().unwrap();
    buffer.close();
    assert_eq!(status.dropped.get(), 0);
}

#[test]
fn messages_are_acknowledged_while_the_disk_refuses_unless_they_hold() {
    let (_dir, buffer, status, other) = stage(100, WhenFull::DropOldest);
    let step = |id: u64, ack: Ack| {
        let rows = rows(id, 1, Ack::none()).rows;
        JournalEntry {
            id,
            now_ns: 1,
            wall_ns: 1,
            step: JournalStep::Rows { stream: "s".into(), rows, marks: Vec::new(), ack },
        }
    };
    let goes_on = || {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        (Ack::new(move |outcome| tell.send(outcome).unwrap()), told)
    };
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ((before, before_told), (after, after_told), (holds, holds_told)) = (goes_on(), goes_on(), acked());
    assert!(wait(buffer.0.journal(step(1, before), false)).unwrap());
    assert_eq!(before_told.recv().unwrap(), Outcome::Done, "when the commit fails");
    assert!(wait(buffer.0.journal(step(2, after), false)).unwrap());
    assert!(wait(buffer.0.journal(step(3, holds), false)).unwrap());
    assert_eq!(after_told.recv().unwrap(), Outcome::Done);
    assert!(holds_told.try_recv().is_err());
    assert!(status.refused.load(std::sync::atomic::Ordering::Relaxed));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(holds_told.recv().unwrap(), Outcome::Done);
    let found: Vec<u64> = wait(buffer.read_journal(0)).unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(found, [1, 2, 3], "all the same they are stored, once it is possible");
    assert!(!status.refused.load(std::sync::atomic::Ordering::Relaxed));
    buffer.close();
}

#[test]
fn a_journal_that_broke_off_goes_on_from_a_snapshot_and_nothing_is_stored_before_it() {
    let (dir, buffer, status, other) = stage(10, WhenFull::DropOldest);
    refuse(&buffer, &status, &other);
    let taken = |id: u64| wait(buffer.0.journal(tick(id), false)).unwrap();
    let ids = || -> Vec<u64> { wait(buffer.read_journal(0)).unwrap().iter().map(|entry| entry.id).collect() };
    assert!((1..=10).all(taken));
    assert!(!taken(11), "there is no room");
    assert!(
        !buffer
            .snapshot(Snapshot {
                number: 1,
                entry: 11,
                manifest: "{}".into(),
                parts: 1,
                ..Snapshot::default()
            })
            .unwrap()
    );
    buffer.append(vec![rows(11, 3, Ack::none())]).unwrap();
    assert_eq!(status.dropped.get(), 3, "it has no cause on disk");
    other.execute_batch("COMMIT").unwrap();
    wait(buffer.mendable());
    assert!(!taken(12), "room alone does not mend it");
    assert!(
        buffer
            .snapshot(Snapshot {
                number: 2,
                entry: 12,
                manifest: "{}".into(),
                parts: 2,
                ..Snapshot::default()
            })
            .unwrap()
    );
    assert!(taken(13));
    buffer.append(vec![rows(13, 1, Ack::none())]).unwrap();
    buffer.snapshot_part(SnapshotPart { number: 2, states: Vec::new() }).unwrap();
    until(|| ids().len() >= 10);
    assert_eq!(ids(), (1..=10).collect::<Vec<_>>(), "a part is missing");
    assert_eq!(seqs(&buffer), [0]);
    buffer.snapshot_part(SnapshotPart { number: 2, states: Vec::new() }).unwrap();
    until(|| ids().len() > 10);
    assert_eq!(ids(), (1..=10).chain([13]).collect::<Vec<_>>());
    assert_eq!(seqs(&buffer), [0, 13]);
    assert_eq!(gaps(&buffer), [("r: disk too slow".to_owned(), 11, 13, 3)]);
    buffer.close();
    let (again, _) = open(&dir, 10, WhenFull::DropOldest);
    assert_eq!(again.recovered().snapshot.unwrap().entry, 12);
    again.close();
}

#[test]
fn a_box_that_ends_before_the_snapshot_is_there_leaves_the_journal_as_it_was() {
    let (dir, buffer, status, other) = stage(10, WhenFull::DropOldest);
    refuse(&buffer, &status, &other);
    assert_eq!((1..=11).filter(|id| wait(buffer.0.journal(tick(*id), false)).unwrap()).count(), 10);
    other.execute_batch("COMMIT").unwrap();
    wait(buffer.mendable());
    assert!(
        buffer
            .snapshot(Snapshot {
                number: 1,
                entry: 11,
                manifest: "{}".into(),
                parts: 1,
                ..Snapshot::default()
            })
            .unwrap()
    );
    assert!(wait(buffer.0.journal(tick(12), false)).unwrap());
    buffer.append(vec![rows(12, 2, Ack::none())]).unwrap();
    buffer.close();
    assert_eq!(status.dropped.get(), 2);
    let (again, _) = open(&dir, 10, WhenFull::DropOldest);
    let recovered = again.recovered();
    assert_eq!((recovered.entries, recovered.snapshot.is_none()), ((1, 10), true));
    assert_eq!(seqs(&again), [0]);
    again.close();
}
