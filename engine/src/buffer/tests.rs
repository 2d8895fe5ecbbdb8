#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::disk::SystemDisk;
use arrow::array::{Int64Array, RecordBatch};
use tidegate_core::clock::SystemClock;
use tidegate_core::{ByteSize, Outcome, Seqs, Span};
use tidegate_rules::WhenFull;

pub(super) const UPLINK: &str = "uplink";

/// One uplink that takes everything.
pub(super) fn one() -> Uplinks {
    Uplinks::new(&[(UPLINK, None)])
}

pub(super) fn settings(dir: &tempfile::TempDir) -> config::Buffer {
    let queue = std::num::NonZeroUsize::MIN.saturating_add(99_999);
    config::Buffer { queue, when_full: WhenFull::Block, ..config::Buffer::at(dir.path().join("box.db")) }
}

/// A buffer whose writer has a thread of its own, for tests that have no runtime.
#[derive(Debug, Clone)]
pub(super) struct OnThread(pub(super) Buffer);

impl OnThread {
    pub(super) fn open(settings: &config::Buffer, status: Arc<OutboxStatus>) -> Result<Self, BufferError> {
        Self::open_for(settings, one(), status)
    }

    pub(super) fn open_for(
        settings: &config::Buffer,
        uplinks: Uplinks,
        status: Arc<OutboxStatus>,
    ) -> Result<Self, BufferError> {
        Self::open_by(settings, uplinks, Arc::new(SystemClock), status)
    }

    pub(super) fn open_by(
        settings: &config::Buffer,
        uplinks: Uplinks,
        clock: Arc<dyn Clock>,
        status: Arc<OutboxStatus>,
    ) -> Result<Self, BufferError> {
        let (buffer, writer) = Buffer::open(settings, uplinks, clock, Arc::new(SystemDisk), status)?;
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(writer)
        });
        Ok(Self(buffer))
    }

    pub(super) fn append(&self, rows: Vec<OutboxRows>) -> Result<(), BufferError> {
        wait(self.0.append(rows))
    }

    pub(super) fn journal(&self, entry: JournalEntry) -> Result<bool, BufferError> {
        wait(self.0.journal(entry, true))
    }

    pub(super) fn close(&self) {
        wait(self.0.close());
    }
}

impl std::ops::Deref for OnThread {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0
    }
}

pub(super) fn rows(first: u64, n: usize, ack: Ack) -> OutboxRows {
    let values = Int64Array::from_iter_values(
        (0..n as i64).map(|i| (first as i64 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)),
    );
    let batch = RecordBatch::try_from_iter([("v", Arc::new(values) as _)]).unwrap();
    OutboxRows {
        rule: "r".into(),
        rows: Rows { batch, seqs: Seqs::Run { first } },
        ordinals: vec![0; n],
        delivery: DeliveryPolicy::default(),
        now_ns: 1,
        ack,
    }
}

pub(super) fn acked() -> (Ack, std::sync::mpsc::Receiver<Outcome>) {
    let (tell, told) = std::sync::mpsc::sync_channel(1); // an ack speaks once
    let ack = Ack::new(move |outcome| tell.send(outcome).unwrap());
    // Otherwise a commit that fails would let go of it.
    ack.hold();
    (ack, told)
}

pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The sequence numbers of all rows.
pub(super) fn seqs(buffer: &Buffer) -> Vec<u64> {
    let (mut seqs, mut after) = (Vec::new(), 0);
    loop {
        let blocks = wait(buffer.outbox(UPLINK).fetch(after, u64::MAX, 1000)).unwrap();
        let Some(last) = blocks.last() else { return seqs };
        after = last.id;
        seqs.extend(
            blocks.iter().flat_map(|block| (0..block.rows.len()).map(|row| block.rows.seqs.get(row))),
        );
    }
}

#[test]
fn acknowledged_rows_are_there_after_reopening_and_row_numbers_do_not_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = OnThread::open(&settings(&dir), Arc::default()).unwrap();
    let end = buffer.sequence_start().1;
    let (ack, told) = acked();
    buffer.append(vec![rows(5, 10_000, ack)]).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
    assert!(matches!(OnThread::open(&settings(&dir), Arc::default()), Err(BufferError::InUse(_))));
    buffer.close();
    let (ack, told) = acked();
    assert!(buffer.append(vec![rows(0, 1, ack)]).is_err());
    assert_eq!(told.recv().unwrap(), Outcome::Refused);
    let buffer = OnThread::open(&settings(&dir), Arc::default()).unwrap();
    assert!(buffer.sequence_start().0 >= end);
    assert_eq!(seqs(&buffer), (5..10_005).collect::<Vec<_>>());
    buffer.close();
}

#[test]
fn a_corrupt_file_is_set_aside_and_row_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = OnThread::open(&settings(&dir), Arc::default()).unwrap();
    let end = buffer.sequence_start().1;
    buffer.close();
    std::fs::write(dir.path().join("box.db"), vec![7; 9000]).unwrap();
    let buffer = OnThread::open(&settings(&dir), Arc::default()).unwrap();
    assert!(buffer.sequence_start().0 >= end);
    assert!(dir.path().join("box.db.corrupt-1").exists());
    buffer.close();
}

#[test]
fn a_full_buffer_holds_new_rows_until_older_ones_are_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let buffer =
        OnThread::open(&config::Buffer { max_size: ByteSize(6_000), ..settings(&dir) }, Arc::default())
            .unwrap();
    let ((first, first_told), (second, second_told)) = (acked(), acked());
    buffer.append(vec![rows(0, 500, first)]).unwrap();
    assert_eq!(first_told.recv().unwrap(), Outcome::Done);
    buffer.append(vec![rows(500, 500, second)]).unwrap();
    assert_eq!(seqs(&buffer), (0..500).collect::<Vec<_>>());
    assert!(second_told.try_recv().is_err());
    wait(buffer.outbox(UPLINK).confirm(vec![1])).unwrap();
    assert_eq!(second_told.recv().unwrap(), Outcome::Done);
    assert_eq!(seqs(&buffer), (500..1000).collect::<Vec<_>>());
    buffer.close();
}

#[test]
fn the_oldest_rows_are_dropped_and_counted_where_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let status: Arc<OutboxStatus> = Arc::default();
    let config =
        config::Buffer { max_size: ByteSize(6_000), when_full: WhenFull::DropOldest, ..settings(&dir) };
    let buffer = OnThread::open(&config, Arc::clone(&status)).unwrap();
    for first in [0, 500] {
        let (ack, told) = acked();
        buffer.append(vec![rows(first, 500, ack)]).unwrap();
        assert_eq!(told.recv().unwrap(), Outcome::Done);
    }
    assert_eq!(seqs(&buffer), (500..1000).collect::<Vec<_>>());
    buffer.close();
    assert_eq!((status.dropped.get(), status.waiting.get()), (500, 500));
}

#[test]
fn a_newer_layout_is_refused_and_a_damaged_block_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = OnThread::open(&settings(&dir), Arc::default()).unwrap();
    buffer.append(vec![rows(0, 3, Ack::none())]).unwrap();
    buffer.close();
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute("UPDATE block SET data = x'00112233'", []).unwrap();
    let buffer = OnThread::open(&settings(&dir), Arc::default()).unwrap();
    assert!(seqs(&buffer).is_empty());
    buffer.close();
    assert_eq!(raw.query_row("SELECT count(*) FROM refused", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
    raw.execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(
        OnThread::open(&settings(&dir), Arc::default()),
        Err(BufferError::Newer { found: 99, .. })
    ));
}

/// A second connection, as a person's `sqlite3` would have it.
fn raw(dir: &tempfile::TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.path().join("box.db")).unwrap()
}

fn open(dir: &tempfile::TempDir) -> (OnThread, Arc<OutboxStatus>) {
    let status: Arc<OutboxStatus> = Arc::default();
    (OnThread::open(&settings(dir), Arc::clone(&status)).unwrap(), status)
}

fn fetch(buffer: &Buffer) -> Vec<u64> {
    wait(buffer.outbox(UPLINK).fetch(0, u64::MAX, 1000)).unwrap().iter().map(|block| block.id).collect()
}

/// Appends rows and waits until they are on disk.
fn store(buffer: &OnThread, first: u64, n: usize) {
    let (ack, told) = acked();
    buffer.append(vec![rows(first, n, ack)]).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
}

#[test]
fn a_failed_commit_is_tried_again_however_much_is_asked_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir);
    store(&buffer, 0, 1);
    store(&buffer, 1, 1);
    let other = raw(&dir);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (ack, told) = acked();
    buffer.append(vec![rows(2, 10, ack)]).unwrap();
    // Confirmations repeat while the disk fails, some of them nonsense; what was confirmed is not handed out
    // again.
    for _ in 0..200 {
        wait(buffer.outbox(UPLINK).confirm(vec![1, 77])).unwrap();
        assert_eq!(fetch(&buffer), [2]);
    }
    assert!(told.try_recv().is_err());
    assert_eq!((status.waiting.get(), status.committed.get()), (2, 2));
    other.execute_batch("COMMIT").unwrap();
    let outcome = loop {
        fetch(&buffer);
        if let Ok(outcome) = told.try_recv() {
            break outcome;
        }
    };
    assert_eq!(outcome, Outcome::Done);
    buffer.close();
    assert_eq!((status.waiting.get(), status.committed.get()), (11, 12));
    let (buffer, status) = open(&dir);
    assert_eq!((seqs(&buffer), status.waiting.get()), ((1..12).collect(), 11));
}

#[test]
fn rows_are_collected_and_committed_together_but_for_alarms_which_take_them_along() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        config::Buffer { commit_every: Span(std::time::Duration::from_secs(3_600)), ..settings(&dir) };
    let buffer = OnThread::open(&config, Arc::default()).unwrap();
    let append = |first, delivery| {
        let (ack, told) = acked();
        buffer.append(vec![OutboxRows { delivery, ..rows(first, 1, ack) }]).unwrap();
        told
    };
    let collected: Vec<_> = (0..100).map(|first| append(first, DeliveryPolicy::default())).collect();
    assert_eq!(fetch(&buffer), [0; 0]);
    assert!(collected.iter().all(|told| told.try_recv().is_err()));
    let alarm = append(100, DeliveryPolicy { priority: 9.try_into().unwrap(), ..DeliveryPolicy::default() });
    assert_eq!(alarm.recv().unwrap(), Outcome::Done);
    assert!(collected.iter().all(|told| told.recv().unwrap() == Outcome::Done));
    assert_eq!(seqs(&buffer), (0..101).collect::<Vec<_>>());
    let last = append(101, DeliveryPolicy::default());
    buffer.close();
    assert_eq!(last.recv().unwrap(), Outcome::Done);
}

#[test]
fn what_is_collected_is_committed_when_the_time_has_come_or_there_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let short = config::Buffer { commit_every: Span(std::time::Duration::from_millis(20)), ..settings(&dir) };
    let buffer = OnThread::open(&short, Arc::default()).unwrap();
    store(&buffer, 0, 1);
    buffer.close();
    let long = config::Buffer { commit_every: Span(std::time::Duration::from_secs(3_600)), ..settings(&dir) };
    let buffer = OnThread::open(&long, Arc::default()).unwrap();
    store(&buffer, 1, 65_536);
    buffer.close();
}

#[test]
fn closing_answers_commits_and_may_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    let told: Vec<_> = (0..200)
        .map(|seq| {
            let (ack, told) = acked();
            buffer.append(vec![rows(seq, 1, ack)]).unwrap();
            told
        })
        .collect();
    let askers: Vec<_> = (0..20)
        .map(|_| {
            let buffer = buffer.clone();
            std::thread::spawn(move || wait(buffer.outbox(UPLINK).fetch(0, u64::MAX, 1)).map(drop))
        })
        .collect();
    let other = buffer.clone();
    let closer = std::thread::spawn(move || other.close());
    buffer.close();
    buffer.close();
    closer.join().unwrap();
    assert!(told.iter().all(|told| told.recv().unwrap() == Outcome::Done));
    assert!(
        askers.into_iter().all(|asker| matches!(asker.join().unwrap(), Ok(()) | Err(BufferError::Closed)))
    );
    assert!(matches!(wait(buffer.outbox(UPLINK).fetch(0, u64::MAX, 1)), Err(BufferError::Closed)));
    assert_eq!(seqs(&open(&dir).0), (0..200).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_committed_before_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    let other = raw(&dir);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told: Vec<_> = (0..3)
        .map(|seq| {
            let (ack, told) = acked();
            buffer.append(vec![rows(seq, 1, ack)]).unwrap();
            told
        })
        .collect();
    buffer.close();
    assert!(told.iter().all(|told| told.recv().unwrap() == Outcome::Refused));
    other.execute_batch("COMMIT").unwrap();
    let full = config::Buffer { max_size: ByteSize(1), ..settings(&dir) };
    let buffer = OnThread::open(&full, Arc::default()).unwrap();
    store(&buffer, 0, 1);
    let (ack, told) = acked();
    buffer.append(vec![rows(1, 1, ack)]).unwrap();
    buffer.close();
    assert_eq!(told.recv().unwrap(), Outcome::Refused);
}

#[test]
fn dropping_the_last_handle_commits_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    for seq in 0..100 {
        buffer.append(vec![rows(seq, 1, Ack::none())]).unwrap();
    }
    drop(buffer);
    let buffer = loop {
        match OnThread::open(&settings(&dir), Arc::default()) {
            Err(BufferError::InUse(_)) => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert_eq!(seqs(&buffer), (0..100).collect::<Vec<_>>());
}

#[test]
fn rows_that_cannot_be_stored_are_refused_and_counted_and_the_rest_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir);
    let other = raw(&dir);
    // One failing commit first, so that the rest waits and makes one group.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    buffer.append(vec![rows(0, 1, Ack::none())]).unwrap();
    let ((good, good_told), (bad, bad_told), (last, last_told)) = (acked(), acked(), acked());
    buffer.append(vec![rows(1, 1, good)]).unwrap();
    buffer.append(vec![OutboxRows { ordinals: vec![0; 9], ..rows(2, 5, bad) }]).unwrap();
    buffer.append(vec![rows(7, 1, last)]).unwrap();
    other.execute_batch("COMMIT").unwrap();
    let outcomes = [good_told, bad_told, last_told].map(|told| told.recv().unwrap());
    assert_eq!(outcomes, [Outcome::Done, Outcome::Refused, Outcome::Done]);
    assert_eq!(seqs(&buffer), [0, 1, 7]);
    let gaps = wait(buffer.outbox(UPLINK).fetch_gaps(10)).unwrap();
    assert_eq!(
        gaps.iter().map(|g| (g.first_seq, g.last_seq, g.rows, &*g.reason)).collect::<Vec<_>>(),
        [(2, 6, 5, "cannot be stored")]
    );
    buffer.close();
    assert_eq!((status.committed.get(), status.waiting.get(), status.dropped.get()), (3, 3, 5));
}

#[test]
fn gaps_grow_until_they_are_fetched_and_stay_until_they_are_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Buffer { max_size: ByteSize(1), when_full: WhenFull::DropOldest, ..settings(&dir) };
    let buffer = OnThread::open(&config, Arc::default()).unwrap();
    let gaps = |buffer: &Buffer| {
        let gaps = wait(buffer.outbox(UPLINK).fetch_gaps(10)).unwrap();
        gaps.into_iter().map(|g| (g.id, g.first_seq, g.last_seq, g.rows, g.reason)).collect::<Vec<_>>()
    };
    let full = || "buffer full".to_owned();
    for first in [0, 10, 20, 30] {
        store(&buffer, first, 10);
    }
    assert_eq!(gaps(&buffer), [(1, 0, 29, 30, full())]);
    store(&buffer, 40, 10);
    store(&buffer, 50, 10);
    assert_eq!(gaps(&buffer), [(1, 0, 29, 30, full()), (2, 30, 49, 20, full())]);
    wait(buffer.outbox(UPLINK).confirm_gaps(vec![1])).unwrap();
    assert_eq!(gaps(&buffer), [(2, 30, 49, 20, full())]);
    buffer.close();
    let buffer = OnThread::open(&config, Arc::default()).unwrap();
    assert_eq!(gaps(&buffer), [(2, 30, 49, 20, full())]);
}

#[test]
fn refused_blocks_are_kept_up_to_a_limit_and_then_leave_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, status) = open(&dir);
    // About 24 KiB each, since the values are as good as random; 64 KiB are kept in tests.
    for block in 0..4 {
        store(&buffer, block * 3000, 3000);
    }
    for id in 1..=4 {
        wait(buffer.outbox(UPLINK).refuse(id, "too large for the broker".into())).unwrap();
    }
    buffer.close();
    let kept: Vec<u64> = raw(&dir)
        .prepare("SELECT id FROM refused")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(kept.len() < 4 && kept.last() == Some(&4), "{kept:?}");
    let lost = (4 - kept.len() as u64) * 3000;
    assert_eq!((status.dropped.get(), status.waiting.get()), (lost, 0));
    let (buffer, _) = open(&dir);
    let gaps = wait(buffer.outbox(UPLINK).fetch_gaps(10)).unwrap();
    assert_eq!(gaps.iter().map(|gap| gap.rows).sum::<u64>(), lost);
    assert!(gaps.iter().all(|gap| gap.reason == "refused" && gap.first_seq == 0));
}

#[test]
fn space_of_delivered_rows_goes_back_to_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let (buffer, _) = open(&dir);
    for block in 0..100 {
        store(&buffer, block * 8192, 8192);
    }
    let other = raw(&dir);
    let pages = || other.query_row("PRAGMA page_count", [], |row| row.get::<_, u64>(0)).unwrap();
    assert!(pages() > 3000, "{}", pages());
    wait(buffer.outbox(UPLINK).confirm((1..=100).collect())).unwrap();
    while pages() > 2200 {
        assert!(fetch(&buffer).is_empty());
    }
}

/// A disk on which SQLite can keep no write-ahead log.
struct WithoutLog;

impl Disk for WithoutLog {
    fn database(&self, _: &std::path::Path) -> rusqlite::Result<rusqlite::Connection> {
        rusqlite::Connection::open_in_memory()
    }

    fn lock(&self, path: &std::path::Path) -> std::io::Result<Option<Box<dyn crate::disk::LockFile>>> {
        SystemDisk.lock(path)
    }

    fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        SystemDisk.list(dir)
    }

    fn read(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
        SystemDisk.read(path)
    }

    fn write(&self, path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
        SystemDisk.write(path, content)
    }

    fn exists(&self, path: &std::path::Path) -> bool {
        SystemDisk.exists(path)
    }

    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        SystemDisk.remove(path)
    }

    fn make_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
        SystemDisk.make_dir(path)
    }

    fn sync_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
        SystemDisk.sync_dir(path)
    }
}

#[test]
fn without_a_write_ahead_log_the_buffer_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let opened =
        Buffer::open(&settings(&dir), one(), Arc::new(SystemClock), Arc::new(WithoutLog), Arc::default());
    let error = opened.map(drop).unwrap_err().to_string();
    assert!(error.contains("no write-ahead log here, but journal mode `memory`; check the disk"), "{error}");
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("box.db");
    let full = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None);
    for error in [
        BufferError::Sql { path: path.clone(), error: full },
        BufferError::Io { path: path.clone(), error: ErrorKind::StorageFull.into() },
    ] {
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("free some space"), "{text}");
    }
    raw(&dir).execute_batch("CREATE TABLE letters (text)").unwrap();
    let error = OnThread::open(&settings(&dir), Arc::default()).unwrap_err();
    assert!(matches!(&error, BufferError::Foreign { table, .. } if table == "letters"), "{error}");
    let nowhere = config::Buffer { path: dir.path().join("absent/box.db"), ..settings(&dir) };
    let text = OnThread::open(&nowhere, Arc::default()).unwrap_err().to_string();
    assert!(text.contains("absent/box.db") && text.contains("check that the directory exists"), "{text}");
}
