#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::config::WhenFull;
use arrow::array::{Int64Array, RecordBatch};
use tidegate_core::{ByteSize, Outcome, Seqs};

fn settings(dir: &tempfile::TempDir) -> config::Buffer {
    let queue = std::num::NonZeroUsize::MIN.saturating_add(255);
    config::Buffer { path: dir.path().join("box.db"), max_size: ByteSize(1 << 30), when_full: WhenFull::Block, queue }
}

fn rows(first: u64, n: usize, ack: Ack) -> OutboxRows {
    let values = Int64Array::from_iter_values((0..n as i64).map(|i| (first as i64 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)));
    let batch = RecordBatch::try_from_iter([("v", Arc::new(values) as _)]).unwrap();
    OutboxRows { rule: "r".into(), rows: Rows { batch, seqs: Seqs::Run { first } }, ordinals: vec![0; n], ack }
}

fn acked() -> (Ack, std::sync::mpsc::Receiver<Outcome>) {
    let (tell, told) = std::sync::mpsc::channel();
    (Ack::new(move |outcome| tell.send(outcome).unwrap()), told)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn seqs(buffer: &Buffer) -> Vec<u64> {
    let blocks = wait(buffer.fetch(0, u64::MAX >> 1, 1000)).unwrap();
    blocks.iter().flat_map(|b| (0..b.rows.len()).map(|i| b.rows.seqs.get(i))).collect()
}

#[test]
fn acknowledged_rows_are_there_after_reopening_and_row_numbers_do_not_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(&settings(&dir), Arc::default()).unwrap();
    let end = buffer.sequence_start().1;
    let (ack, told) = acked();
    buffer.append(rows(5, 10_000, ack)).unwrap();
    assert_eq!(told.recv().unwrap(), Outcome::Done);
    assert!(matches!(Buffer::open(&settings(&dir), Arc::default()), Err(BufferError::InUse(_))));
    buffer.close();
    let (ack, told) = acked();
    assert!(buffer.append(rows(0, 1, ack)).is_err());
    assert_eq!(told.recv().unwrap(), Outcome::Refused);
    let buffer = Buffer::open(&settings(&dir), Arc::default()).unwrap();
    assert!(buffer.sequence_start().0 >= end);
    assert_eq!(seqs(&buffer), (5..10_005).collect::<Vec<_>>());
    buffer.close();
}

#[test]
fn a_corrupt_file_is_set_aside_and_row_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(&settings(&dir), Arc::default()).unwrap();
    let end = buffer.sequence_start().1;
    buffer.close();
    std::fs::write(dir.path().join("box.db"), vec![7; 9000]).unwrap();
    let buffer = Buffer::open(&settings(&dir), Arc::default()).unwrap();
    assert!(buffer.sequence_start().0 >= end);
    assert!(dir.path().join("box.db.corrupt-1").exists());
    buffer.close();
}

#[test]
fn a_full_buffer_holds_new_rows_until_older_ones_are_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(&config::Buffer { max_size: ByteSize(6_000), ..settings(&dir) }, Arc::default()).unwrap();
    let ((first, first_told), (second, second_told)) = (acked(), acked());
    buffer.append(rows(0, 500, first)).unwrap();
    assert_eq!(first_told.recv().unwrap(), Outcome::Done);
    buffer.append(rows(500, 500, second)).unwrap();
    assert_eq!(seqs(&buffer), (0..500).collect::<Vec<_>>());
    assert!(second_told.try_recv().is_err());
    wait(buffer.confirm(vec![1])).unwrap();
    assert_eq!(second_told.recv().unwrap(), Outcome::Done);
    assert_eq!(seqs(&buffer), (500..1000).collect::<Vec<_>>());
    buffer.close();
}

#[test]
fn the_oldest_rows_are_dropped_and_counted_where_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let status: Arc<OutboxStatus> = Arc::default();
    let config = config::Buffer { max_size: ByteSize(6_000), when_full: WhenFull::DropOldest, ..settings(&dir) };
    let buffer = Buffer::open(&config, Arc::clone(&status)).unwrap();
    for first in [0, 500] {
        let (ack, told) = acked();
        buffer.append(rows(first, 500, ack)).unwrap();
        assert_eq!(told.recv().unwrap(), Outcome::Done);
    }
    assert_eq!(seqs(&buffer), (500..1000).collect::<Vec<_>>());
    buffer.close();
    assert_eq!((status.dropped.get(), status.waiting.get()), (500, 500));
}

#[test]
fn a_newer_layout_is_refused_and_a_damaged_block_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(&settings(&dir), Arc::default()).unwrap();
    buffer.append(rows(0, 3, Ack::none())).unwrap();
    buffer.close();
    let raw = rusqlite::Connection::open(dir.path().join("box.db")).unwrap();
    raw.execute("UPDATE block SET data = x'00112233'", []).unwrap();
    let buffer = Buffer::open(&settings(&dir), Arc::default()).unwrap();
    assert!(seqs(&buffer).is_empty());
    buffer.close();
    assert_eq!(raw.query_row("SELECT count(*) FROM refused", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
    raw.execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(Buffer::open(&settings(&dir), Arc::default()), Err(BufferError::Newer { found: 99, .. })));
}
