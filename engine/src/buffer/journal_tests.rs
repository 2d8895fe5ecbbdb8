//! What a box starts from: entries, snapshots, progress and marks, as they are found after a restart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use arrow::array::{Int64Array, RecordBatch};
use tidegate_core::{ByteSize, Outcome, Seqs, Span};

use super::tests::{OnThread, UPLINK, acked, rows, settings, wait};
use super::*;

fn open(settings: &config::Buffer) -> OnThread {
    OnThread::open(settings, Arc::default()).unwrap()
}

fn batch(first: i64, n: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from_iter_values(first..first + n)) as _)])
        .unwrap()
}

/// Ten rows a message.
fn entry(id: u64, ack: Ack) -> JournalEntry {
    let first = id * 10;
    let rows = Rows { batch: batch(first as i64, 10), seqs: Seqs::Run { first } };
    JournalEntry {
        id,
        now_ns: 1,
        wall_ns: 1,
        step: JournalStep::Rows { stream: "tank".into(), rows, marks: vec![id, id + 1_000_000], ack },
    }
}

fn journal(buffer: &OnThread, ids: std::ops::RangeInclusive<u64>) {
    let last = *ids.end();
    for id in ids {
        if id < last {
            buffer.journal(entry(id, Ack::none())).unwrap();
        }
    }
    let (ack, told) = acked();
    buffer.journal(entry(last, ack)).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
}

/// A snapshot of one rule, whose state is the number of the entry.
fn snapshot(buffer: &OnThread, number: u64, after: u64) {
    buffer
        .snapshot(Snapshot {
            number,
            entry: after,
            manifest: format!("manifest {after}"),
            contents: Vec::new(),
            parts: 2,
            mends: false,
        })
        .unwrap();
    let state = |batch| tidegate_rules::SealedState { fingerprint: "sum".into(), watermark: -7, batch };
    buffer
        .snapshot_part(SnapshotPart {
            number,
            states: vec![("a".into(), vec![state(Some(batch(after as i64, 1))), state(None)])],
        })
        .unwrap();
    buffer.snapshot_part(SnapshotPart { number, states: Vec::new() }).unwrap();
}

fn ids(buffer: &OnThread, after: u64) -> Vec<u64> {
    let (mut ids, mut after) = (Vec::new(), after);
    loop {
        let entries = wait(buffer.read_journal(after)).unwrap();
        let Some(last) = entries.last() else { return ids };
        after = last.id;
        ids.extend(entries.iter().map(|entry| entry.id));
    }
}

#[test]
fn entries_are_acknowledged_when_they_are_on_disk_and_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    journal(&buffer, 1..=3);
    buffer
        .journal(JournalEntry {
            id: 4,
            now_ns: 2,
            wall_ns: 2,
            step: JournalStep::Edit { edit: "{\"remove\":{\"name\":\"a\"}}".into(), content: None },
        })
        .unwrap();
    buffer.close();
    let buffer = open(&settings(&dir));
    let recovered = buffer.recovered();
    assert_eq!(
        (recovered.entries, recovered.snapshot.is_none(), recovered.progress.len()),
        ((1, 4), true, 0)
    );
    assert_eq!(recovered.marks["tank"], [1, 1_000_001, 2, 1_000_002, 3, 1_000_003]);
    let entries = wait(buffer.read_journal(1)).unwrap();
    assert_eq!(
        entries.iter().map(|entry| (entry.id, entry.wall_ns)).collect::<Vec<_>>(),
        [(2, 1), (3, 1), (4, 2)]
    );
    let JournalStep::Rows { stream, rows, .. } = &entries[0].step else { panic!("{entries:?}") };
    assert_eq!((&**stream, &rows.batch, rows.seqs.get(9)), ("tank", &batch(20, 10), 29));
    assert!(matches!(&entries[2].step, JournalStep::Edit { edit, .. } if edit.contains("remove")));
}

#[test]
fn a_snapshot_counts_when_all_its_parts_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    journal(&buffer, 1..=2);
    snapshot(&buffer, 1, 2);
    journal(&buffer, 3..=3);
    // One whose parts do not come.
    buffer
        .snapshot(Snapshot { number: 2, entry: 3, manifest: "half".into(), parts: 2, ..Snapshot::default() })
        .unwrap();
    buffer.snapshot_part(SnapshotPart { number: 2, states: Vec::new() }).unwrap();
    // A part of the one before.
    buffer.snapshot_part(SnapshotPart { number: 1, states: Vec::new() }).unwrap();
    buffer.close();
    let buffer = open(&settings(&dir));
    let found = buffer.recovered().snapshot.unwrap();
    assert_eq!((found.entry, found.manifest.as_str()), (2, "manifest 2"));
    let states = &found.states["a"];
    assert_eq!((states[0].fingerprint.as_str(), states[0].watermark), ("sum", -7));
    assert_eq!((states[0].batch.as_ref(), states[1].batch.as_ref()), (Some(&batch(2, 1)), None));
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    for number in 1..=3 {
        journal(&buffer, number..=number);
        snapshot(&buffer, number, number);
    }
    buffer.close();
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    assert_eq!(
        raw.query_row("SELECT count(*), min(entry) FROM snapshot", [], |r| Ok((r.get(0)?, r.get(1)?))),
        Ok((2, 2))
    );
    raw.execute(
        "UPDATE state SET data = x'0011' WHERE snapshot = (SELECT max(id) FROM snapshot) AND \
        length(data) > 0",
        [],
    )
    .unwrap();
    let buffer = open(&settings(&dir));
    let recovered = buffer.recovered();
    assert_eq!(recovered.snapshot.unwrap().entry, 2);
    assert!(recovered.damaged[0].contains("rule `a`"), "{:?}", recovered.damaged);
    // What comes after the older one is still there.
    assert_eq!(ids(&buffer, 2), [3]);
}

#[test]
fn progress_is_noted_with_the_rows_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    for (rule, first) in [("a", 100), ("b", 5), ("a", 50)] {
        buffer.append(vec![OutboxRows { rule: rule.into(), ..rows(first, 10, Ack::none()) }]).unwrap();
    }
    buffer.close();
    let progress = open(&settings(&dir)).recovered().progress;
    assert_eq!((progress["a"], progress["b"], progress.len()), (109, 14, 2));
}

#[test]
fn the_journal_goes_on_while_the_outbox_is_full_and_a_snapshot_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Buffer { max_size: ByteSize(6_000), ..settings(&dir) };
    let buffer = open(&config);
    let (first, first_told) = acked();
    buffer.append(vec![rows(0, 500, first)]).unwrap();
    assert_eq!(first_told.recv().unwrap(), Outcome::Done);
    // While the writer cannot commit its first entry, the others queue up to make one group.
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ((waits, waits_told), (goes, goes_told)) = (acked(), acked());
    buffer.journal(entry(1, Ack::none())).unwrap();
    while !buffer.appends.is_empty() {
        std::thread::yield_now();
    }
    // It answers when it has taken what makes the first group.
    wait(buffer.outbox(UPLINK).fetch(0, 0, 1)).unwrap();
    buffer.append(vec![OutboxRows { rule: "a".into(), ..rows(500, 500, waits) }]).unwrap();
    buffer.journal(entry(2, goes)).unwrap();
    snapshot(&buffer, 1, 2);
    raw.execute_batch("ROLLBACK").unwrap();
    assert_eq!(goes_told.recv().unwrap(), Outcome::Done);
    assert!(waits_told.try_recv().is_err(), "there is no room yet");
    assert_eq!(
        raw.query_row("SELECT count(*) FROM snapshot", [], |r| r.get(0)),
        Ok(0),
        "it would be ahead of the outbox"
    );
    wait(buffer.outbox(UPLINK).confirm(vec![1])).unwrap();
    assert_eq!(waits_told.recv().unwrap(), Outcome::Done);
    buffer.close();
    let recovered = open(&config).recovered();
    assert_eq!((recovered.snapshot.unwrap().entry, recovered.progress["a"]), (2, 999));
}

#[test]
fn old_entries_go_when_there_is_a_newer_snapshot_and_they_are_too_many_or_too_old() {
    let dir = tempfile::tempdir().unwrap();
    // Every entry is of 1970, and each is larger than a byte.
    for (limits, kept) in [
        (config::Buffer { journal_size: ByteSize(1), ..settings(&dir) }, journal::KEPT_ENTRIES),
        (
            config::Buffer { journal_age: Span(std::time::Duration::from_secs(60)), ..settings(&dir) },
            journal::KEPT_ENTRIES,
        ),
        (config::Buffer { journal_age: Span(std::time::Duration::MAX), ..settings(&dir) }, 2_000),
    ] {
        let _ = std::fs::remove_file(dir.path().join("box.db"));
        let buffer = open(&limits);
        journal(&buffer, 1..=1_000);
        snapshot(&buffer, 1, 1_000);
        journal(&buffer, 1_001..=2_000);
        assert_eq!(ids(&buffer, 0).len(), 2_000, "with one snapshot everything is kept");
        snapshot(&buffer, 2, 2_000);
        buffer.close();
        let buffer = open(&limits);
        let found = ids(&buffer, 0);
        // The second newest snapshot holds what comes after it; marks hold the newest 1 024.
        assert_eq!((found.len() as u64, found[found.len() - 1]), (kept.max(1_000), 2_000));
        assert_eq!(buffer.recovered().entries, (2_001 - found.len() as u64, 2_000));
        buffer.close();
    }
}

#[test]
fn a_buffer_of_the_first_layout_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    buffer.append(vec![rows(7, 3, Ack::none())]).unwrap();
    let numbers = buffer.sequence_start().1;
    buffer.close();
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute_batch(
        "DROP TABLE journal; DROP TABLE snapshot; DROP TABLE state; DROP TABLE progress;
         ALTER TABLE meta DROP COLUMN last_entry; ALTER TABLE meta DROP COLUMN journal_bytes; DROP TABLE \
        confirmed; DROP INDEX block_priority; ALTER TABLE block DROP COLUMN priority;
    ALTER TABLE gap DROP COLUMN uplinks; ALTER TABLE meta DROP COLUMN uplinks;
         ALTER TABLE meta DROP COLUMN now_ns; DROP INDEX block_expires; ALTER TABLE block DROP COLUMN \
        now_ns; ALTER TABLE block DROP COLUMN expires_ns; DROP TABLE clocks; DROP TABLE content; \
        DROP TABLE decision; DROP TABLE decision_basis; DROP TABLE decision_group; \
        ALTER TABLE meta DROP COLUMN decision_bytes; PRAGMA user_version = 1;",
    )
    .unwrap();
    let buffer = open(&settings(&dir));
    assert!(buffer.sequence_start().0 >= numbers);
    assert_eq!(super::tests::seqs(&buffer), [7, 8, 9]);
    journal(&buffer, 1..=1);
    assert_eq!(ids(&buffer, 0), [1]);
}

#[test]
fn damage_leaves_what_can_be_read_of_the_journal_and_no_half_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    journal(&buffer, 1..=5);
    snapshot(&buffer, 1, 5);
    journal(&buffer, 6..=9);
    buffer.close();
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute_batch(
        "UPDATE journal SET stream = x'ff' WHERE id = 7; UPDATE state SET rule = x'ff'; DROP TABLE gap",
    )
    .unwrap();
    drop(raw);
    let status: Arc<OutboxStatus> = Arc::default();
    let buffer = OnThread::open(&settings(&dir), status).unwrap();
    assert!(dir.path().join("box.db.corrupt-1").exists());
    let recovered = buffer.recovered();
    assert!(recovered.snapshot.is_none());
    assert_eq!(ids(&buffer, 0), [1, 2, 3, 4, 5, 6, 8, 9]);
}
