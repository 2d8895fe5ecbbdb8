//! What entries and snapshots name: it is there while they are, and once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use arrow::array::{RecordBatch, TimestampNanosecondArray};
use tidegate_core::{ByteSize, Outcome, Seqs, Span};

use super::tests::{OnThread, acked, settings, wait};
use super::*;

fn open(settings: &config::Buffer) -> OnThread {
    OnThread::open(settings, Arc::default()).unwrap()
}

fn content(text: &str) -> Content {
    Content::new(text.as_bytes().to_vec())
}

/// An entry that names `content`, in the way that nobody here knows.
fn edit(id: u64, content: &Content) -> JournalEntry {
    let edit = format!("{{\"put\":\"{}\"}}", content.hash());
    JournalEntry {
        id,
        now_ns: 1,
        wall_ns: 1,
        step: JournalStep::Edit { edit, content: Some(content.clone()) },
    }
}

/// Returns when it is on disk, with all before it.
fn row(buffer: &OnThread, id: u64) {
    let (ack, told) = acked();
    let times = Arc::new(TimestampNanosecondArray::from(vec![1]).with_timezone("UTC")) as _;
    let rows =
        Rows { batch: RecordBatch::try_from_iter([("ts", times)]).unwrap(), seqs: Seqs::Run { first: id } };
    let step = JournalStep::Rows { stream: "tank".into(), rows, marks: Vec::new(), ack };
    buffer.journal(JournalEntry { id, now_ns: 1, wall_ns: 1, step }).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
}

fn snapshot(buffer: &OnThread, number: u64, entry: u64, contents: &[&Content]) {
    let names: Vec<String> = contents.iter().map(|content| format!("\"{}\"", content.hash())).collect();
    let manifest = format!("{{\"rules\":[{}]}}", names.join(","));
    let contents = contents.iter().copied().cloned().collect();
    buffer.snapshot(Snapshot { number, entry, manifest, contents, parts: 1, mends: false }).unwrap();
    buffer.snapshot_part(SnapshotPart { number, states: Vec::new() }).unwrap();
}

fn read(buffer: &Buffer, content: &Content) -> Option<Vec<u8>> {
    wait(buffer.content(content.hash())).unwrap()
}

fn count(dir: &tempfile::TempDir) -> u64 {
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.query_row("SELECT count(*) FROM content", [], |row| row.get(0)).unwrap()
}

fn problems(dir: &tempfile::TempDir) -> Vec<String> {
    let mut inspector = inspect::Inspector::open(&dir.path().join("box.db")).unwrap();
    let problems = inspector.verify(|_, _| {}).problems;
    problems.into_iter().map(|problem| format!("{}: {}", problem.place, problem.problem)).collect()
}

#[test]
fn a_content_is_kept_once_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    let (a, b) = (content("a"), content("b"));
    for (id, content) in (1..).zip([&a, &b, &a, &a]) {
        buffer.journal(edit(id, content)).unwrap();
    }
    row(&buffer, 5);
    snapshot(&buffer, 1, 5, &[&a, &b, &a]);
    buffer.close();
    assert_eq!((count(&dir), problems(&dir)), (2, Vec::new()));
    let buffer = open(&settings(&dir));
    assert_eq!([&a, &b].map(|content| read(&buffer, content)), [Some(b"a".to_vec()), Some(b"b".to_vec())]);
    assert_eq!(read(&buffer, &content("c")), None);
}

#[test]
fn a_snapshot_brings_what_it_names_along() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    let a = content("a");
    // As when the journal had broken off before the entry.
    snapshot(&buffer, 1, 0, &[&a]);
    buffer.close();
    assert_eq!(read(&open(&settings(&dir)), &a), Some(b"a".to_vec()));
}

#[test]
fn a_content_goes_when_neither_an_entry_nor_a_snapshot_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let nothing_old = config::Buffer { journal_size: ByteSize(1), ..settings(&dir) };
    let buffer = open(&nothing_old);
    let [gone, named, again, held] = ["gone", "named", "again", "held"].map(content);
    for (id, content) in (1..).zip([&gone, &named, &again]) {
        buffer.journal(edit(id, content)).unwrap();
    }
    snapshot(&buffer, 1, 3, &[&gone, &named]);
    row(&buffer, 4);
    // A rule gets the source back that it once had, more than the entries later that are always kept.
    buffer.journal(edit(2_004, &again)).unwrap();
    snapshot(&buffer, 2, 2_004, &[&named]);
    row(&buffer, 2_005);
    assert_eq!(
        read(&buffer, &gone),
        Some(b"gone".to_vec()),
        "a damaged snapshot lets a box begin at the older"
    );
    buffer.journal(edit(2_006, &held)).unwrap();
    snapshot(&buffer, 3, 2_005, &[&named]);
    row(&buffer, 2_007);
    buffer.close();
    assert_eq!(problems(&dir), Vec::<String>::new());
    let buffer = open(&nothing_old);
    let found = [&gone, &named, &again, &held].map(|content| read(&buffer, content).is_some());
    assert_eq!(found, [false, true, false, true]);
}

#[test]
fn contents_of_entries_that_are_kept_for_their_age_are_kept_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Buffer { journal_age: Span(std::time::Duration::MAX), ..settings(&dir) };
    let buffer = open(&config);
    let a = content("a");
    buffer.journal(edit(1, &a)).unwrap();
    for number in 1..4 {
        row(&buffer, 1 + number);
        snapshot(&buffer, number, 1 + number, &[]);
    }
    row(&buffer, 9);
    assert_eq!(read(&buffer, &a), Some(b"a".to_vec()));
}

#[test]
fn a_content_that_is_damaged_is_lost_and_can_be_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    let a = content("a");
    buffer.journal(edit(1, &a)).unwrap();
    row(&buffer, 2);
    buffer.close();
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute("UPDATE content SET bytes = x'62'", []).unwrap();
    drop(raw);
    let said = problems(&dir);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("content 1: its bytes are not those that "), "{said:?}");
    let buffer = open(&settings(&dir));
    assert_eq!(read(&buffer, &a), None);
    buffer.journal(edit(3, &a)).unwrap();
    row(&buffer, 4);
    assert_eq!(read(&buffer, &a), Some(b"a".to_vec()));
    buffer.close();
    assert_eq!(problems(&dir), Vec::<String>::new());
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute("DELETE FROM content", []).unwrap();
    drop(raw);
    let said = problems(&dir);
    assert!(
        said.contains(&format!(
            "journal entry 3: it names content {}, which is missing: a restart needs it",
            a.hash()
        )),
        "{said:?}"
    );
}

#[test]
fn contents_survive_the_salvage_of_a_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = open(&settings(&dir));
    let (a, b) = (content("a"), content("b"));
    buffer.journal(edit(1, &a)).unwrap();
    buffer.journal(edit(2, &b)).unwrap();
    row(&buffer, 3);
    buffer.close();
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute_batch("DROP TABLE gap; UPDATE content SET bytes = x'62' WHERE id = 1").unwrap();
    drop(raw);
    let buffer = open(&settings(&dir));
    assert!(fs::exists(dir.path().join("box.db.corrupt-1")).unwrap());
    assert_eq!([&a, &b].map(|content| read(&buffer, content)), [None, Some(b"b".to_vec())]);
}

#[test]
fn large_contents_take_room_in_the_queue_and_make_a_group_of_their_own() {
    let held = |bytes: usize| {
        let content = Content::new(vec![0; bytes]);
        group::Held::new(group::Append::Journal(edit(1, &content)))
    };
    assert_eq!((held(10).rows(), held(10).size()), (1, (0, 10)));
    assert_eq!((held(1 << 20).rows(), held(1 << 20).size()), (8_193, (0, 1 << 20)));
}
