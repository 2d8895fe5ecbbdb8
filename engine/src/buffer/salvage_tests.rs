//! Damaged files: the box starts, goes on, keeps what can be read, and says what cannot.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::FileExt;

use tidegate_core::Outcome;

use super::tests::{OnThread, UPLINK, acked, rows, seqs, settings, wait};
use super::*;

const BLOCKS: u64 = 120;
const ROWS: u64 = 3;
const PAGE: u64 = database::PAGE as u64;

/// The first page that belongs to rows of `block` alone: before come the schema, the page map, and the roots
/// of tables and indexes.
fn leaves() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).0.close();
    dir.path().join("box.db").metadata().unwrap().len() / PAGE + 1
}

fn open(dir: &tempfile::TempDir) -> (OnThread, Arc<OutboxStatus>) {
    let status: Arc<OutboxStatus> = Arc::default();
    (OnThread::open(&settings(dir), Arc::clone(&status)).unwrap(), status)
}

/// A closed buffer with many small blocks, several to a page.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    // A rule each, or one commit would put them into one block.
    for block in 0..BLOCKS {
        buffer
            .append(vec![OutboxRows {
                rule: format!("r{block}").into(),
                ..rows(block * ROWS, ROWS as usize, Ack::none())
            }])
            .unwrap();
    }
    buffer.close();
    dir
}

fn store(buffer: &OnThread, first: u64) {
    let (ack, told) = acked();
    buffer.append(vec![rows(first, ROWS as usize, ack)]).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
}

/// Overwrites pages (numbered from 1) with what is no page.
fn damage(dir: &tempfile::TempDir, pages: impl Fn(u64) -> std::ops::Range<u64>) {
    let file = std::fs::File::options().write(true).open(dir.path().join("box.db")).unwrap();
    for page in pages(file.metadata().unwrap().len() / PAGE) {
        file.write_all_at(&[0xA5; PAGE as usize], (page - 1) * PAGE).unwrap();
    }
}

fn raw(dir: &tempfile::TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.path().join("box.db")).unwrap()
}

fn gaps(buffer: &Buffer) -> Vec<(String, u64, String)> {
    wait(buffer.outbox(UPLINK).fetch_gaps(10))
        .unwrap()
        .into_iter()
        .map(|gap| (gap.rule.to_string(), gap.rows, gap.reason))
        .collect()
}

#[test]
fn damage_met_while_fetching_costs_only_the_rows_in_it() {
    let dir = filled();
    damage(&dir, |pages| {
        assert!(pages > leaves() + 6, "{pages}");
        let middle = (leaves() + pages) / 2;
        middle..middle + 2
    });
    let (buffer, status) = open(&dir);
    assert!(!dir.path().join("box.db.corrupt-1").exists());
    let found = seqs(&buffer);
    let lost: Vec<u64> = (0..BLOCKS * ROWS).filter(|seq| !found.contains(seq)).collect();
    // In one piece, and not at the ends.
    assert!(
        !lost.is_empty() && lost[0] > 0 && lost.len() as u64 == lost[lost.len() - 1] - lost[0] + 1,
        "{lost:?}"
    );
    assert!(lost.len() < found.len() && lost[lost.len() - 1] < BLOCKS * ROWS - 1, "{lost:?}");
    assert!(dir.path().join("box.db.corrupt-1").exists());
    assert_eq!((status.dropped.get(), status.waiting.get()), (lost.len() as u64, found.len() as u64));
    assert_eq!(gaps(&buffer), [("*".to_owned(), lost.len() as u64, "buffer damaged".to_owned())]);
    store(&buffer, 9000);
    let newest = wait(buffer.outbox(UPLINK).fetch(BLOCKS, u64::MAX, 10)).unwrap();
    assert_eq!((newest.len(), newest[0].id), (1, BLOCKS + 1));
    wait(buffer.outbox(UPLINK).confirm(vec![1])).unwrap();
    buffer.close();
    let (buffer, status) = open(&dir);
    assert_eq!(status.waiting.get(), found.len() as u64);
    assert_eq!(seqs(&buffer).len(), found.len());
    assert!(!dir.path().join("box.db.corrupt-2").exists());
}

#[test]
fn damage_met_by_a_commit_does_not_cost_the_rows_that_it_writes() {
    let dir = filled();
    damage(&dir, |pages| leaves()..pages + 1);
    let (buffer, status) = open(&dir);
    store(&buffer, 9000);
    assert_eq!(seqs(&buffer), [9000, 9001, 9002]);
    buffer.close();
    assert_eq!(
        (status.dropped.get(), status.waiting.get(), status.committed.get()),
        (BLOCKS * ROWS, ROWS, ROWS)
    );
    assert_eq!(seqs(&open(&dir).0), [9000, 9001, 9002]);
}

#[test]
fn values_of_the_wrong_type_are_damage() {
    let dir = filled();
    raw(&dir).execute("UPDATE block SET rule = x'ff' WHERE id = 7", []).unwrap();
    raw(&dir).execute("UPDATE block SET rows = 'many' WHERE id = 9", []).unwrap();
    let (buffer, status) = open(&dir);
    let found = seqs(&buffer);
    assert!(!found.contains(&18) && !found.contains(&24));
    assert_eq!((found.len() as u64, status.dropped.get()), ((BLOCKS - 2) * ROWS, 2 * ROWS));
}

#[test]
fn a_file_without_its_tables_is_salvaged_when_it_is_opened() {
    let dir = filled();
    let numbers = open(&dir).0.sequence_start().1;
    raw(&dir).execute_batch("DROP TABLE meta").unwrap();
    let (buffer, status) = open_when_free(&dir);
    assert_eq!(seqs(&buffer), (0..BLOCKS * ROWS).collect::<Vec<_>>());
    assert_eq!(status.waiting.get(), BLOCKS * ROWS);
    assert!(buffer.sequence_start().0 >= numbers);
    // Nobody can say that nothing is missing.
    assert_eq!(gaps(&buffer), [("*".to_owned(), 0, "buffer damaged".to_owned())]);
}

fn open_when_free(dir: &tempfile::TempDir) -> (OnThread, Arc<OutboxStatus>) {
    loop {
        let status: Arc<OutboxStatus> = Arc::default();
        match OnThread::open(&settings(dir), Arc::clone(&status)) {
            Err(BufferError::InUse(_)) => std::thread::yield_now(),
            other => return (other.unwrap(), status),
        }
    }
}

/// Somebody makes room on a full disk.
#[test]
fn files_that_are_deleted_under_a_running_box_cost_nothing() {
    for gone in [&["box.db"][..], &["box.db-wal"], &["box.db", "box.db-wal", "box.db-shm"]] {
        let dir = filled();
        let (buffer, status) = open(&dir);
        store(&buffer, 5000);
        gone.iter().for_each(|name| std::fs::remove_file(dir.path().join(name)).unwrap());
        store(&buffer, 6000);
        store(&buffer, 7000);
        // As a crash leaves it: what is in the files by now has to be all.
        let copy = tempfile::tempdir().unwrap();
        for name in ["box.db", "box.db-wal"] {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        let expected: Vec<u64> =
            (0..BLOCKS * ROWS).chain(5000..5003).chain(6000..6003).chain(7000..7003).collect();
        assert_eq!(seqs(&open(&copy).0), expected, "{gone:?}");
        assert_eq!((seqs(&buffer), status.dropped.get()), (expected, 0), "{gone:?}");
        buffer.close();
    }
}

#[test]
fn a_crash_while_files_are_exchanged_loses_nothing() {
    let dir = filled();
    let [path, fresh, log] = ["box.db", "box.db.new", "box.db-wal"].map(|name| dir.path().join(name));
    // After the old file was moved, with its log still there.
    std::fs::rename(&path, &fresh).unwrap();
    std::fs::write(&log, [7; 5000]).unwrap();
    let (buffer, _) = open(&dir);
    assert_eq!(seqs(&buffer).len() as u64, BLOCKS * ROWS);
    buffer.close();
    // Before that: the new file is not complete.
    std::fs::write(&fresh, [7; 5000]).unwrap();
    let (buffer, _) = open(&dir);
    assert_eq!(seqs(&buffer).len() as u64, BLOCKS * ROWS);
    assert!(!fresh.exists());
    buffer.close();
}

#[test]
fn a_disk_that_keeps_failing_does_not_fill_up_with_damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = 0;
    for _ in 0..10 {
        std::fs::write(dir.path().join("box.db"), [7; 9000]).unwrap();
        let (buffer, _) = open(&dir);
        assert!(buffer.sequence_start().0 >= numbers);
        numbers = buffer.sequence_start().1;
        buffer.close();
    }
    let kept = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains("corrupt"));
    assert_eq!(kept.count(), 8);
}
