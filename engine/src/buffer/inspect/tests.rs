#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;
use tidegate_core::{Ack, ByteSize, Outcome, Rows, Seqs};
use tidegate_rules::SealedState;

use super::*;
use crate::buffer::tests::{OnThread, UPLINK, acked, rows, seqs, settings, wait};
use crate::buffer::{JournalEntry, JournalStep, OutboxRows, Snapshot, SnapshotPart, block, database};
use crate::config;
use tidegate_rules::WhenFull;

/// Makes a file one of layout 1.
const DOWNGRADE: &str = "DROP TABLE journal; DROP TABLE snapshot; DROP TABLE state; DROP TABLE progress;
    ALTER TABLE meta DROP COLUMN last_entry; ALTER TABLE meta DROP COLUMN journal_bytes; DROP TABLE \
    confirmed; DROP INDEX block_priority; ALTER TABLE block DROP COLUMN priority;
    ALTER TABLE gap DROP COLUMN uplinks; ALTER TABLE meta DROP COLUMN uplinks;
    ALTER TABLE meta DROP COLUMN now_ns; DROP INDEX block_expires; ALTER TABLE block DROP COLUMN now_ns; \
    ALTER TABLE block DROP COLUMN expires_ns;
    DROP TABLE clocks; DROP TABLE content; DROP TABLE decision; DROP TABLE decision_basis; DROP TABLE \
    decision_group; ALTER TABLE meta DROP COLUMN decision_bytes; PRAGMA user_version = 1;";

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("box.db")
}

fn raw(dir: &TempDir) -> Connection {
    Connection::open(file(dir)).unwrap()
}

fn open(dir: &TempDir) -> OnThread {
    OnThread::open(&settings(dir), Arc::default()).unwrap()
}

fn of(rule: &str, rows: OutboxRows) -> OutboxRows {
    OutboxRows { rule: rule.into(), ..rows }
}

/// Appends rows as a block of their own.
fn store(buffer: &OnThread, rule: &str, first: u64, n: usize) {
    let (ack, told) = acked();
    buffer.append(vec![of(rule, rows(first, n, ack))]).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
}

/// Blocks 1 to 4 of `a`, `b`, `a`, `a`; block 2 refused; gap 1.
fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&dir);
    for (rule, first) in [("a", 0), ("b", 100), ("a", 200), ("a", 300)] {
        store(&buffer, rule, first, 50);
    }
    wait(buffer.outbox(UPLINK).refuse(2, "too large".into())).unwrap();
    buffer.append(vec![OutboxRows { ordinals: vec![0; 9], ..of("c", rows(400, 5, Ack::none())) }]).unwrap();
    buffer.close();
    dir
}

fn tank(first: i64, n: usize) -> RecordBatch {
    let times = (first..).take(n).map(|ns| ns * 1_000_000_000);
    let ts: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(times).with_timezone("UTC"));
    let level: ArrayRef = Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64 / 3.0)));
    RecordBatch::try_from_iter([("ts", ts), ("level", level)]).unwrap()
}

/// The same with entries 1 to 5 in the journal, of which 2 is a change of the rules, and with snapshots after
/// entries 1 and 3.
fn journaled() -> TempDir {
    let dir = filled();
    let buffer = open(&dir);
    let rows = |stream: &str, first: i64| {
        let (ack, told) = acked();
        let rows = Rows { batch: tank(first, 50), seqs: Seqs::Run { first: first as u64 } };
        (JournalStep::Rows { stream: stream.into(), rows, marks: vec![first as u64], ack }, Some(told))
    };
    let state = |watermark, batch| SealedState { fingerprint: "f".into(), watermark, batch };
    let snapshot = |number, entry| {
        buffer
            .snapshot(Snapshot { number, entry, manifest: "{}".into(), parts: 1, ..Snapshot::default() })
            .unwrap();
        let states = vec![("a".into(), vec![state(5, Some(tank(0, 2)))]), ("b".into(), vec![state(6, None)])];
        buffer.snapshot_part(SnapshotPart { number, states }).unwrap();
    };
    let edit = (JournalStep::Edit { edit: "{\"rule\":\"größer\"}".into(), content: None }, None);
    let steps = [rows("tank", 0), edit, rows("tank", 100), rows("press", 200), rows("tank", 300)];
    for (id, (step, told)) in (1..).zip(steps) {
        buffer
            .journal(JournalEntry { id, now_ns: id as i64 * 1000, wall_ns: id as i64 * 1000, step })
            .unwrap();
        // Each in a commit of its own, or the first snapshot would give way to the second at once.
        assert!(told.is_none_or(|told| told.recv().unwrap() == Outcome::Done));
        if id == 1 || id == 3 {
            snapshot(id, id);
        }
    }
    buffer.close();
    dir
}

fn verify(dir: &TempDir) -> Verdict {
    Inspector::open(&file(dir)).unwrap().verify(|_, _| {})
}

fn problems(dir: &TempDir) -> Vec<String> {
    verify(dir)
        .problems
        .into_iter()
        .map(|problem| format!("{}: {}", problem.place, problem.problem))
        .collect()
}

/// Row numbers and ordinals of what is read.
fn read(dir: &TempDir, source: Source, limit: u64, newest: bool) -> Vec<u64> {
    let inspector = Inspector::open(&file(dir)).unwrap();
    let mut reader = Reader::new(&inspector, source, limit, newest).unwrap();
    let mut found = Vec::new();
    while let Some(portion) = reader.read().unwrap() {
        found.extend((0..portion.rows.len()).map(|row| portion.rows.seqs.get(row)));
    }
    assert_eq!(reader.unreadable(), 0);
    found
}

#[test]
fn stats_count_what_is_there() {
    let dir = filled();
    raw(&dir).execute_batch(DOWNGRADE).unwrap();
    let stats = Inspector::open(&file(&dir)).unwrap().stats().unwrap();
    let Outbox { rows, blocks, bytes, oldest, newest, rules, corrected_rows } = stats.outbox;
    assert_eq!(corrected_rows, 0);
    assert_eq!((rows, blocks, rules.len()), (150, 3, 1));
    assert_eq!((&*rules[0].rule, rules[0].rows, rules[0].blocks, rules[0].bytes), ("a", 150, 3, bytes));
    assert_eq!(
        (oldest, newest),
        (Some(Moment { seq: 0, wall_ns: None }), Some(Moment { seq: 349, wall_ns: None }))
    );
    assert_eq!(bytes, raw(&dir).query_row("SELECT bytes FROM meta", [], |row| row.get::<_, u64>(0)).unwrap());
    let refused: Vec<_> =
        stats.refused.iter().map(|of| (&*of.rule, &*of.reason, of.rows, of.blocks)).collect();
    assert_eq!(refused, [("b", "too large", 50, 1)]);
    let gaps: Vec<_> = stats
        .gaps
        .iter()
        .map(|of| (&*of.rule, &*of.reason, of.records, of.rows, of.first_seq, of.last_seq))
        .collect();
    assert_eq!(gaps, [("c", "cannot be stored", 1, 5, 400, 404)]);
    assert!(
        stats.refused[0].wall_ns > 1_700_000_000_000_000_000
            && stats.gaps[0].wall_ns > 1_700_000_000_000_000_000
    );
    assert_eq!((stats.layout, stats.journal, stats.snapshots, stats.decisions), (1, None, None, None));
    assert_eq!(stats.file_bytes, file(&dir).metadata().unwrap().len());
}

#[test]
fn stats_count_journal_and_snapshots() {
    let stats = Inspector::open(&file(&journaled())).unwrap().stats().unwrap();
    let Journal { entries, rows, bytes, edits, oldest_ns, newest_ns, streams, corrected_rows } =
        stats.journal.unwrap();
    assert_eq!(
        (entries, rows, edits, oldest_ns, newest_ns, corrected_rows),
        (5, 200, 1, Some(1000), Some(5000), 0)
    );
    let of: Vec<_> =
        streams.iter().map(|of| (&*of.stream, of.entries, of.rows, of.oldest_ns, of.newest_ns)).collect();
    assert_eq!(of, [("press", 1, 50, 4000, 4000), ("tank", 3, 150, 1000, 5000)]);
    assert_eq!(bytes, streams.iter().map(|of| of.bytes).sum::<u64>() + "{'rule':'größer'}".len() as u64);
    let Snapshots { count, entry, wall_ns, bytes, rules } = stats.snapshots.unwrap();
    assert_eq!((count, entry, rules.len()), (2, Some(3), 2));
    assert!(wall_ns.unwrap() > 1_700_000_000_000_000_000);
    assert_eq!((&*rules[0].rule, rules[0].parts, rules[0].bytes * 2), ("a", 1, bytes));
    assert_eq!((&*rules[1].rule, rules[1].parts, rules[1].bytes), ("b", 1, 0));
    assert_eq!(stats.outbox.oldest, Some(Moment { seq: 0, wall_ns: Some(1000) }));
    assert_eq!(stats.outbox.newest, Some(Moment { seq: 349, wall_ns: Some(5000) }));
}

#[test]
fn the_arrival_of_a_row_is_known_as_far_as_the_journal_reaches() {
    let dir = journaled();
    let arrival = |seq| rows::entry_of(&raw(&dir), seq).unwrap().map(|came| (came.end, came.wall_ns));
    for (seq, came) in [
        (0, Some((50, 1000))),
        (49, Some((50, 1000))),
        (50, None),
        (100, Some((150, 3000))),
        (299, None),
        (349, Some((350, 5000))),
        (350, None),
    ] {
        assert_eq!(arrival(seq), came, "{seq}");
    }
}

#[test]
fn rows_are_read_from_either_end_of_a_rule_and_of_a_stream() {
    let dir = journaled();
    let all: Vec<u64> = (0..50).chain(200..250).chain(300..350).collect();
    assert_eq!(read(&dir, Source::Waiting(None), u64::MAX, false), all);
    assert_eq!(read(&dir, Source::Waiting(Some("a".into())), u64::MAX, true), all);
    assert_eq!(read(&dir, Source::Waiting(Some("a".into())), 60, true), all[90..]);
    assert!(read(&dir, Source::Waiting(Some("b".into())), 60, true).is_empty());
    assert_eq!(read(&dir, Source::Refused(None), 2, false), [100, 101]);
    assert_eq!(read(&dir, Source::Stream("press".into()), 2, true), [248, 249]);
    assert_eq!(
        read(&dir, Source::Stream("tank".into()), 51, false),
        (0..50).chain([100]).collect::<Vec<_>>()
    );
    let inspector = Inspector::open(&file(&dir)).unwrap();
    assert_eq!(
        inspector.names(&Source::Stream(String::new())).unwrap(),
        ["press".into(), "tank".into()].into()
    );
    raw(&dir).execute_batch(DOWNGRADE).unwrap();
    let Err(error) =
        Reader::new(&Inspector::open(&file(&dir)).unwrap(), Source::Stream("tank".into()), 1, false)
            .map(drop)
    else {
        panic!("layout 1 has no journal")
    };
    assert!(error.to_string().contains("has layout 1, which keeps no rows of streams"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_oldest_rows_are_the_first_of_all_and_the_newest_the_last(sizes in prop::collection::vec(1_usize..40, 1..12), limit in 0_u64..300) {
        let dir = tempfile::tempdir().unwrap();
        let buffer = open(&dir);
        let mut first = 0;
        for size in sizes {
            store(&buffer, "r", first, size);
            first += size as u64 + 3;
        }
        let all = seqs(&buffer);
        buffer.close();
        let n = usize::try_from(limit).unwrap().min(all.len());
        prop_assert_eq!(read(&dir, Source::Waiting(None), limit, false), &all[..n]);
        prop_assert_eq!(read(&dir, Source::Waiting(None), limit, true), &all[all.len() - n..]);
        prop_assert_eq!(problems(&dir), Vec::<String>::new());
    }
}

#[test]
fn rows_of_a_stream_have_the_time_at_which_they_came_whatever_they_say_themselves() {
    let dir = journaled();
    let came = || {
        let inspector = Inspector::open(&file(&dir)).unwrap();
        let mut reader = Reader::new(&inspector, Source::Stream("tank".into()), u64::MAX, false).unwrap();
        std::iter::from_fn(|| reader.read().unwrap()).map(|portion| portion.at_ns).collect::<Vec<_>>()
    };
    raw(&dir).execute("DELETE FROM clocks", []).unwrap();
    assert_eq!(came(), [Some(1_000), Some(3_000), Some(5_000)], "as the journal has it");
    // The clock was set right at 4 000: before, it had been 4 900 behind.
    let clocks = "INSERT INTO clocks (now_ns, boot, monotonic_ns, wall_ns, synchronised) VALUES
        (0, 'b', 0, 100, 0), (4000, 'b', 4000, 9000, 1)";
    raw(&dir).execute(clocks, []).unwrap();
    assert_eq!(came(), [Some(6_000), Some(8_000), Some(10_000)]);
}

#[test]
fn a_block_that_cannot_be_read_is_counted_and_the_others_are_read() {
    let dir = filled();
    raw(&dir).execute("UPDATE block SET data = x'00' WHERE id = 3", []).unwrap();
    let inspector = Inspector::open(&file(&dir)).unwrap();
    let mut reader = Reader::new(&inspector, Source::Waiting(None), u64::MAX, false).unwrap();
    let firsts: Vec<u64> =
        std::iter::from_fn(|| reader.read().unwrap()).map(|portion| portion.rows.seqs.get(0)).collect();
    assert_eq!((firsts, reader.unreadable()), (vec![0, 300], 1));
}

#[test]
fn looking_does_not_hold_the_box_up() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&dir);
    store(&buffer, "a", 0, 10);
    let mut inspector = Inspector::open(&file(&dir)).unwrap();
    let mut reader = Reader::new(&inspector, Source::Waiting(None), u64::MAX, false).unwrap();
    // Rows are committed and deleted while somebody reads.
    store(&buffer, "a", 10, 10);
    assert_eq!(reader.read().unwrap().unwrap().rows.len(), 10);
    wait(buffer.outbox(UPLINK).confirm(vec![1, 2])).unwrap();
    store(&buffer, "a", 20, 10);
    // What came later is not read, nor what is gone.
    assert!(reader.read().unwrap().is_none());
    assert_eq!(inspector.stats().unwrap().outbox.rows, 10);
    assert_eq!(inspector.verify(|_, _| {}).problems, []);
    buffer.close();
    // The box's closing has put everything into the file, as if nobody had looked.
    assert_eq!(Inspector::open(&file(&dir)).unwrap().stats().unwrap().wal_bytes, 0);
}

#[test]
fn nothing_is_purged_while_a_box_has_the_buffer() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&dir);
    store(&buffer, "a", 0, 10);
    let error = purge(&file(&dir), &Purge::AllWaiting).unwrap_err();
    assert!(
        matches!(&error, BufferError::Running(_)) && error.to_string().contains("stop the box first"),
        "{error}"
    );
    assert_eq!(seqs(&buffer).len(), 10);
    buffer.close();
}

fn gaps(dir: &TempDir) -> Vec<(String, String, u64, u64, u64)> {
    let gaps = Inspector::open(&file(dir)).unwrap().stats().unwrap().gaps;
    gaps.into_iter().map(|gap| (gap.rule, gap.reason, gap.rows, gap.first_seq, gap.last_seq)).collect()
}

#[test]
fn purged_rows_leave_a_gap_that_the_box_goes_on_from() {
    let dir = filled();
    let stored = ("c".to_owned(), "cannot be stored".to_owned(), 5, 400, 404);
    let would = Inspector::open(&file(&dir)).unwrap().would_purge(&Purge::Rule("a".into())).unwrap();
    assert_eq!((would.entries, would.rows), (3, 150));
    assert_eq!(purge(&file(&dir), &Purge::Rule("b".into())).unwrap(), Purged::default());
    assert_eq!(gaps(&dir), std::slice::from_ref(&stored));
    assert_eq!(purge(&file(&dir), &Purge::Rule("a".into())).unwrap(), would);
    assert_eq!(gaps(&dir), [("a".into(), "purged".into(), 150, 0, 349), stored.clone()]);
    assert_eq!(purge(&file(&dir), &Purge::Refused).unwrap().rows, 50);
    assert_eq!(
        gaps(&dir),
        [("a".into(), "purged".into(), 150, 0, 349), ("b".into(), "refused".into(), 50, 100, 149), stored]
    );
    assert_eq!(problems(&dir), Vec::<String>::new());
    let buffer = open(&dir);
    assert!(seqs(&buffer).is_empty());
    assert_eq!(wait(buffer.outbox(UPLINK).fetch_gaps(10)).unwrap().len(), 3);
    store(&buffer, "a", 500, 1);
    assert_eq!(wait(buffer.outbox(UPLINK).fetch(4, u64::MAX, 10)).unwrap()[0].id, 5);
    buffer.close();
    assert_eq!(purge(&file(&dir), &Purge::Gaps).unwrap(), Purged { entries: 3, rows: 205, bytes: 0 });
    assert!(gaps(&dir).is_empty());
    assert_eq!(problems(&dir), Vec::<String>::new());
}

#[test]
fn a_purge_of_many_blocks_gives_the_space_back_and_leaves_old_gaps_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Buffer { max_size: ByteSize(1), when_full: WhenFull::DropOldest, ..settings(&dir) };
    let buffer = OnThread::open(&config, Arc::default()).unwrap();
    store(&buffer, "r0", 0, 1);
    store(&buffer, "r0", 1, 1);
    buffer.close();
    let buffer = open(&dir);
    for block in 0..700 {
        buffer
            .append(vec![of(&format!("r{}", block % 300), rows(1000 * (block + 1), 400, Ack::none()))])
            .unwrap();
    }
    buffer.close();
    let blocks = Inspector::open(&file(&dir)).unwrap().stats().unwrap().outbox.blocks;
    assert!(blocks > 256, "{blocks}");
    let large = file(&dir).metadata().unwrap().len();
    assert_eq!(purge(&file(&dir), &Purge::AllWaiting).unwrap().rows, 700 * 400 + 1);
    let small = file(&dir).metadata().unwrap().len();
    assert!(small * 4 < large, "{small} of {large}");
    let stats = Inspector::open(&file(&dir)).unwrap().stats().unwrap();
    assert_eq!((stats.outbox.blocks, stats.gaps.len()), (0, 301));
    assert_eq!(stats.gaps.iter().map(|gap| gap.rows).sum::<u64>(), 700 * 400 + 2);
    assert_eq!(problems(&dir), Vec::<String>::new());
}

#[test]
fn a_purge_makes_a_file_of_layout_1_one_of_the_newest() {
    let dir = filled();
    raw(&dir).execute_batch(DOWNGRADE).unwrap();
    assert_eq!(purge(&file(&dir), &Purge::AllWaiting).unwrap().rows, 150);
    assert_eq!(Inspector::open(&file(&dir)).unwrap().layout(), VERSION);
    assert_eq!(problems(&dir), Vec::<String>::new());
}

#[test]
fn a_good_file_has_no_problems() {
    let dir = journaled();
    let verdict = verify(&dir);
    assert_eq!((verdict.problems, verdict.more), (vec![], false));
    assert_eq!(
        verdict.checked,
        Checked { blocks: 4, gaps: 1, entries: 5, states: 4, contents: 0, decisions: 0 }
    );
    raw(&dir).execute_batch(DOWNGRADE).unwrap();
    let verdict = verify(&dir);
    assert_eq!((verdict.problems, verdict.more), (vec![], false));
    assert_eq!(
        verdict.checked,
        Checked { blocks: 4, gaps: 1, entries: 0, states: 0, contents: 0, decisions: 0 }
    );
}

/// One change each, and what is said of it.
const CORRUPTIONS: &[(&str, &str)] = &[
    ("DROP TABLE gap", "table gap: is missing"),
    ("DROP TABLE state", "table state: is missing"),
    ("DROP TABLE meta", "table meta: is missing"),
    ("DELETE FROM meta", "table meta: has 0 rows instead of one"),
    (
        "UPDATE meta SET waiting = waiting + 1",
        "table meta: `waiting` is 151, but there are 150 rows that wait",
    ),
    ("UPDATE meta SET bytes = 0", "table meta: `bytes` is 0, but there are "),
    ("UPDATE meta SET journal_bytes = journal_bytes - 1", "table meta: `journal_bytes` is "),
    ("UPDATE meta SET last_block = 3", "table meta: `last_block` is 3, but there is block 4"),
    ("UPDATE meta SET last_gap = 0", "table meta: `last_gap` is 0, but there is gap 1"),
    ("UPDATE meta SET last_entry = 4", "table meta: `last_entry` is 4, but there is journal entry 5"),
    ("UPDATE meta SET waiting = 'many'", "table meta: cannot be read to its end: Invalid column type"),
    ("UPDATE meta SET sequence = 349", "below 349 are reserved, but table block uses 349"),
    ("UPDATE meta SET sequence = 404", "below 404 are reserved, but table gap uses 404"),
    ("UPDATE journal SET first_seq = 9000000000000 WHERE id = 5", "but table journal uses 9000000000049"),
    ("UPDATE progress SET seq = 9000000000000", "but table progress uses 9000000000000"),
    ("UPDATE refused SET id = 9", "table meta: `last_block` is 4, but there is refused block 9"),
    ("DELETE FROM block WHERE id = 3", "table meta: `waiting` is 150, but there are 100 rows that wait"),
    ("UPDATE block SET rule = x'ff' WHERE id = 3", "block 3: `rule` is of type Blob"),
    (
        "UPDATE block SET id = 5 WHERE id = 1; UPDATE meta SET last_block = 5",
        "block 5: its row 0/0 comes after row 349/0, which is of a later entry",
    ),
    (
        "INSERT INTO block SELECT 5, rule, first_seq, last_seq, rows, data, priority, now_ns, expires_ns \
        FROM block WHERE id = 4; UPDATE meta SET last_block = 5",
        "block 5: its row 300/0 was there before",
    ),
    (
        "UPDATE block SET first_seq = 199 WHERE id = 3",
        "block 3: says row numbers 199 to 249, but holds 200 to 249",
    ),
    (
        "UPDATE block SET last_seq = 250 WHERE id = 3",
        "block 3: says row numbers 200 to 250, but holds 200 to 249",
    ),
    (
        "UPDATE block SET last_seq = 199 WHERE id = 3",
        "block 3: its first row number 200 is above its last, 199",
    ),
    ("UPDATE block SET rows = 49 WHERE id = 3", "block 3: `rows` is 49, but it holds 50"),
    ("UPDATE block SET rows = -1 WHERE id = 3", "block 3: `rows` is -1, which it cannot be"),
    ("UPDATE block SET data = x'' WHERE id = 3", "block 3: does not decode: "),
    ("UPDATE block SET data = substr(data, 1, 200) WHERE id = 3", "block 3: does not decode: "),
    (
        "UPDATE block SET data = (SELECT data FROM refused) WHERE id = 3",
        "block 3: says row numbers 200 to 249, but holds 100 to 149",
    ),
    (
        "UPDATE progress SET seq = 348 WHERE rule = 'a'",
        "block 4: its row number 349 is beyond the progress of rule `a`, 348",
    ),
    ("UPDATE progress SET seq = 'far' WHERE rule = 'a'", "block 1: the progress of rule `a` cannot be read"),
    ("UPDATE block SET priority = 10 WHERE id = 3", "block 3: a priority is from 0 to 9, and not 10"),
    ("UPDATE block SET priority = 'high' WHERE id = 3", "block 3: `priority` is of type Text"),
    ("DROP TABLE confirmed", "table confirmed: is missing"),
    (
        "INSERT INTO confirmed VALUES ('uplink', 9)",
        "table confirmed: uplink `uplink` has confirmed block 9, which is not there",
    ),
    (
        "INSERT INTO confirmed VALUES ('cloud', 3)",
        "table confirmed: block 3 is confirmed by uplink `cloud`, which is not there",
    ),
    (
        "INSERT INTO confirmed VALUES ('uplink', 3)",
        "table confirmed: block 3 is confirmed by all uplinks that take it, and still waits",
    ),
    ("INSERT INTO confirmed VALUES (x'00', 3)", "table confirmed: `uplink` is of type Blob"),
    ("UPDATE refused SET data = x'00'", "refused block 2: does not decode"),
    ("UPDATE refused SET reason = x'00'", "refused block 2: `reason` is of type Blob"),
    ("UPDATE gap SET first_seq = 405", "gap 1: its first row number 405 is above its last, 404"),
    ("UPDATE gap SET wall_ns = 'late'", "gap 1: `wall_ns` is of type Text"),
    (
        "UPDATE journal SET first_seq = 249 WHERE id = 5",
        "journal entry 5: its first row number 249 is below 250, where",
    ),
    ("UPDATE journal SET rows = 49 WHERE id = 3", "journal entry 3: `rows` is 49, but it holds 50"),
    ("UPDATE journal SET data = x'00' WHERE id = 3", "journal entry 3: does not decode"),
    (
        "UPDATE journal SET data = (SELECT data FROM block WHERE id = 1) WHERE id = 3",
        "journal entry 3: a row of it has no `ts`",
    ),
    ("UPDATE journal SET marks = x'00' WHERE id = 3", "journal entry 3: `marks` has 1 bytes"),
    (
        "UPDATE journal SET stream = '' WHERE id = 3",
        "journal entry 3: it is neither rows of a stream nor a tick nor a change of the rules",
    ),
    (
        "UPDATE journal SET stream = '', rows = 0 WHERE id = 5; UPDATE journal SET first_seq = 7 WHERE id = \
        5",
        "journal entry 5: its first row number 7 is below",
    ),
    (
        "UPDATE journal SET now_ns = 1 WHERE id = 5",
        "journal entry 5: its time 1 is before 4000, that of an entry before it",
    ),
    ("UPDATE meta SET now_ns = 4999", "table meta: `now_ns` is 4999, but journal entry 5 is from later"),
    ("DROP TABLE clocks", "table clocks: is missing"),
    ("UPDATE clocks SET boot = x'ff'", "reading 1 of the clocks: `boot` is of type Blob"),
    (
        "INSERT INTO clocks (now_ns, boot, monotonic_ns, wall_ns, synchronised) VALUES (7, '', 0, 0, 0)",
        "of the clocks: its time 7 is before",
    ),
    ("UPDATE journal SET edit = '{' WHERE id = 2", "journal entry 2: `edit` is not JSON"),
    (
        "DELETE FROM journal WHERE id = 4",
        "table journal: entry 4 after snapshot 1 is missing: a restart needs it",
    ),
    (
        "UPDATE journal SET id = 9 WHERE id = 5",
        "table journal: entries 5 to 8 after snapshot 1 are missing: a restart needs them",
    ),
    (
        "DELETE FROM journal WHERE id > 2",
        "snapshot 2: it follows journal entry 3, but the journal ends with entry 2",
    ),
    (
        "UPDATE snapshot SET entry = 4 WHERE id = 1",
        "snapshot 2: it follows journal entry 3, but snapshot 1 before it follows entry 4",
    ),
    (
        "UPDATE snapshot SET entry = 6 WHERE id = 2",
        "table meta: `last_entry` is 5, but there is a snapshot after journal entry 6",
    ),
    ("UPDATE snapshot SET manifest = '{' WHERE id = 2", "snapshot 2: `manifest` is not JSON"),
    ("UPDATE snapshot SET wall_ns = 'old' WHERE id = 2", "snapshot 2: `wall_ns` is of type Text"),
    ("DELETE FROM snapshot WHERE id = 1", "state 1: it is of rule `a` in snapshot 1, which is not there"),
    ("UPDATE state SET data = x'00' WHERE id = 3", "state 3: does not decode"),
    ("UPDATE state SET watermark = 'high' WHERE id = 4", "state 4: `watermark` is of type Text"),
];

#[test]
fn every_kind_of_corruption_is_found_and_named() {
    let good = journaled();
    assert_eq!(problems(&good), Vec::<String>::new());
    for (change, expected) in CORRUPTIONS {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(file(&good), file(&dir)).unwrap();
        raw(&dir).execute_batch(change).unwrap();
        let found = problems(&dir);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{change}: {found:?}");
    }
}

#[test]
fn each_statement_of_a_rule_may_begin_anew_within_an_entry_but_not_behind_it() {
    let dir = journaled();
    let buffer = open(&dir);
    let append = |seqs: [u64; 3], ordinal| {
        let mut next = of("d", rows(0, 3, Ack::none()));
        (next.rows.seqs, next.ordinals) = (Seqs::list(seqs.to_vec()), vec![ordinal; 3]);
        next
    };
    buffer.append(vec![append([100, 110, 149], 0), append([100, 120, 149], 1)]).unwrap();
    // In a commit of its own, or both would be in one block.
    buffer.close();
    let buffer = open(&dir);
    // Numbers that the journal does not know.
    buffer.append(vec![append([5000, 5005, 5006], 0), append([5000, 5001, 5006], 1)]).unwrap();
    buffer.close();
    assert_eq!(problems(&dir), Vec::<String>::new());
    let buffer = open(&dir);
    buffer.append(vec![append([6000, 6001, 6001], 0)]).unwrap();
    store(&buffer, "a", 6000, 1);
    buffer.append(vec![of("e", rows(250, 60, Ack::none())), of("e", rows(210, 1, Ack::none()))]).unwrap();
    buffer.close();
    assert_eq!(
        problems(&dir),
        [
            "block 7: its row 6001/0 was there before",
            "block 9: its row 210/0 comes after row 309/0, which is of a later entry"
        ]
    );
}

#[test]
fn a_bit_that_flips_in_a_block_is_found_unless_its_rows_are_the_same() {
    let dir = filled();
    let raw = raw(&dir);
    raw.execute_batch("PRAGMA synchronous = OFF").unwrap();
    let data: Vec<u8> = raw.query_row("SELECT data FROM block WHERE id = 3", [], |row| row.get(0)).unwrap();
    let rows = |data: &[u8]| block::decode(data).ok().map(|(rows, ordinals)| (rows.batch, ordinals));
    let mut harmless = 0;
    for at in (0..data.len()).filter(|at| *at < 64 || at % 5 == 0) {
        // All bits of the head, which has no checksum.
        for bit in if at < 16 { 0..8 } else { at % 8..at % 8 + 1 } {
            let mut changed = data.clone();
            changed[at] ^= 1 << bit;
            raw.execute("UPDATE block SET data = ?1 WHERE id = 3", [&changed]).unwrap();
            match &*problems(&dir) {
                [] => {
                    harmless += 1;
                    assert_eq!(
                        rows(&changed),
                        rows(&data),
                        "bit {bit} of byte {at} changes a row, and is not found"
                    );
                }
                found => {
                    assert!(found.len() == 1 && found[0].starts_with("block 3: "), "byte {at}: {found:?}")
                }
            }
        }
    }
    // The head has a bit without meaning, and says how much memory is needed to unpack.
    assert!(harmless <= 16, "{harmless}");
}

#[test]
fn pages_that_are_overwritten_are_found_and_do_not_hide_the_rest() {
    let dir = journaled();
    raw(&dir).execute_batch("UPDATE gap SET first_seq = 405; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let root: u64 = raw(&dir)
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'block'", [], |row| row.get(0))
        .unwrap();
    let (file, page) =
        (std::fs::File::options().write(true).open(file(&dir)).unwrap(), [0xA5; database::PAGE as usize]);
    file.write_all_at(&page, (root - 1) * page.len() as u64).unwrap();
    let found = problems(&dir);
    assert!(
        found
            .iter()
            .any(|problem| problem.starts_with("the file: ") && problem.contains(&format!("page {root}"))),
        "{found:?}"
    );
    assert!(
        found.iter().any(|problem| problem.starts_with("table block: cannot be read to its end")),
        "{found:?}"
    );
    assert!(found.iter().any(|problem| problem.starts_with("gap 1: ")), "{found:?}");
}

#[test]
fn a_file_with_very_many_problems_is_not_listed_to_its_end() {
    let dir = filled();
    let many = "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO gap SELECT i, 'r', 9, 8, 1, 'x', 0, '' FROM n; UPDATE meta SET last_gap = 2000";
    raw(&dir).execute_batch(many).unwrap();
    let verdict = verify(&dir);
    assert_eq!((verdict.problems.len(), verdict.more), (1000, true));
}

#[test]
fn what_is_no_buffer_says_so_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let error = || {
        let Err(error) = Inspector::open(&file(&dir)) else { panic!("it was opened") };
        assert!(purge(&file(&dir), &Purge::Gaps).is_err());
        error
    };
    assert!(matches!(error(), BufferError::Absent(_)));
    assert!(!file(&dir).exists());
    std::fs::write(file(&dir), "").unwrap();
    assert!(matches!(error(), BufferError::Absent(_)));
    std::fs::write(file(&dir), [7; 9000]).unwrap();
    assert!(error().to_string().contains("file is not a database; check the disk"));
    assert_eq!(std::fs::read(file(&dir)).unwrap(), [7; 9000]);
    std::fs::remove_file(file(&dir)).unwrap();
    raw(&dir).execute_batch("CREATE TABLE letters (text)").unwrap();
    assert!(matches!(error(), BufferError::Foreign { table, .. } if table == "letters"));
    raw(&dir).execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(error(), BufferError::Newer { found: 99, ours: VERSION, .. }));
}

#[test]
fn a_file_that_nobody_may_change_is_opened_by_a_uri_whatever_its_name() {
    let dir = filled();
    let odd = dir.path().join("100%? #1 pümp&a=b.db");
    std::fs::copy(file(&dir), &odd).unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let (conn, layout) = connect(&odd, &immutable(&odd), flags).unwrap();
    assert_eq!(layout, VERSION);
    assert_eq!(conn.query_row("SELECT count(*) FROM block", [], |row| row.get::<_, u64>(0)).unwrap(), 3);
    // None of the files that go with a log were made.
    assert!(!beside(&odd, "-shm").exists());
}

#[test]
fn what_is_trimmed_off_the_journal_is_counted_as_it_was_added() {
    let dir = tempfile::tempdir().unwrap();
    let buffer =
        OnThread::open(&config::Buffer { journal_size: ByteSize(0), ..settings(&dir) }, Arc::default())
            .unwrap();
    for id in 1..=1100 {
        // Bytes are counted, of which this has more than characters.
        buffer
            .journal(JournalEntry {
                id,
                now_ns: 1,
                wall_ns: 0,
                step: JournalStep::Edit { edit: "\"größer\"".into(), content: None },
            })
            .unwrap();
        if id >= 1099 {
            store(&buffer, "a", id, 1);
            buffer
                .snapshot(Snapshot {
                    number: id,
                    entry: id,
                    manifest: "{}".into(),
                    parts: 1,
                    ..Snapshot::default()
                })
                .unwrap();
            buffer.snapshot_part(SnapshotPart { number: id, states: Vec::new() }).unwrap();
            store(&buffer, "b", id, 1);
        }
    }
    buffer.close();
    assert_eq!(verify(&dir).checked.entries, 1, "the older of two snapshots is after entry 1099");
    assert_eq!(problems(&dir), Vec::<String>::new());
}
