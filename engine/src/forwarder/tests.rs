#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::buffer::OutboxRows;
use crate::config::WhenFull;
use crate::disk::SystemDisk;
use arrow::array::{Int64Array, RecordBatch};
use std::num::{NonZeroU32, NonZeroUsize};
use tidegate_core::clock::SystemClock;
use tidegate_core::{Ack, ByteSize, Rows, Seqs};
use tokio::sync::{mpsc, oneshot};

/// A far side whose answers the test gives. A gap of n rows is shown as -n.
struct Scripted {
    generation: watch::Receiver<Option<u64>>,
    sent: mpsc::Sender<(i64, oneshot::Sender<Result<(), DeliveryError>>)>,
}

impl Uplink for Scripted {
    fn send(&mut self, topic: String, payload: Bytes) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        assert_eq!(topic, "up/box-1/r");
        let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let value = match message["row"]["v"].as_i64() {
            Some(value) => {
                assert_eq!(message["id"], format!("box-1/r/{value}/0"));
                value
            }
            None => -message["gap"]["rows"].as_i64().unwrap(),
        };
        let (answer, answered) = oneshot::channel();
        Box::pin(async move {
            self.sent.send((value, answer)).await.unwrap();
            let confirmation = async move { answered.await.unwrap_or(Err(DeliveryError::Transient("the line went down".into()))) };
            Ok(Box::pin(confirmation) as Confirmation)
        })
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        self.generation.clone()
    }
}

struct Stage {
    _dir: tempfile::TempDir,
    buffer: Buffer,
    line: watch::Sender<Option<u64>>,
    sent: mpsc::Receiver<(i64, oneshot::Sender<Result<(), DeliveryError>>)>,
    status: Arc<OutboxStatus>,
    stop: CancellationToken,
}

fn stage(in_flight: usize, backlog_rate: Option<u32>) -> Stage {
    stage_with(in_flight, backlog_rate, |_| {})
}

fn stage_with(in_flight: usize, backlog_rate: Option<u32>, change: impl FnOnce(&mut config::Buffer)) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let queue = NonZeroUsize::new(10).unwrap();
    let mut settings = config::Buffer { queue, ..config::Buffer::at(dir.path().join("b.db")) };
    change(&mut settings);
    let status: Arc<OutboxStatus> = Arc::default();
    let (buffer, writer) = Buffer::open(&settings, Arc::new(SystemClock), Arc::new(SystemDisk), Arc::clone(&status)).unwrap();
    tokio::spawn(writer);
    let (line, generation) = watch::channel(None);
    let (tell, sent) = mpsc::channel(1000);
    let uplink = config::Uplink {
        connection: "cloud".into(),
        topic: "up/{box}/{rule}".into(),
        in_flight: NonZeroUsize::new(in_flight).unwrap(),
        backlog_rate: backlog_rate.and_then(NonZeroU32::new),
    };
    let forwarder = Forwarder::new(buffer.clone(), Scripted { generation, sent: tell }, &uplink, "box-1", Arc::clone(&status));
    let stop = CancellationToken::new();
    tokio::spawn(forwarder.run(stop.clone()));
    Stage { _dir: dir, buffer, line, sent, status, stop }
}

impl Stage {
    async fn append(&self, values: std::ops::Range<i64>) {
        let batch = RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from_iter_values(values.clone())) as _)]).unwrap();
        let (done, committed) = oneshot::channel();
        let ack = Ack::new(move |_| done.send(()).unwrap());
        let rows = Rows { batch, seqs: Seqs::Run { first: values.start as u64 } };
        let ordinals = vec![0; rows.len()];
        self.buffer.append(vec![OutboxRows { rule: "r".into(), rows, ordinals, ack }]).await.unwrap();
        committed.await.unwrap();
    }

    async fn confirm(&mut self, n: usize) -> Vec<i64> {
        let mut values = Vec::new();
        for _ in 0..n {
            let (value, answer) = self.sent.recv().await.unwrap();
            answer.send(Ok(())).unwrap();
            values.push(value);
        }
        values
    }

    async fn empty(&self) {
        let mut committed = self.buffer.committed();
        // Deletions are committed with the group; fetching is answered in between.
        while !self.buffer.fetch(0, u64::MAX >> 1, 1).await.unwrap().is_empty() {
            tokio::select! { _ = committed.changed() => {}, () = tokio::task::yield_now() => {} }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_order_and_leave_the_outbox_when_they_are_confirmed() {
    let mut stage = stage(3, None);
    stage.append(0..10).await;
    stage.line.send_replace(Some(1));
    assert_eq!(stage.confirm(10).await, (0..10).collect::<Vec<_>>());
    stage.empty().await;
    assert_eq!(stage.status.delivered.get(), 10);
    stage.append(10..12).await;
    assert_eq!(stage.confirm(2).await, [10, 11]);
    stage.empty().await;
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_confirmed_is_sent_again_and_what_was_is_not() {
    let mut stage = stage(4, None);
    stage.append(0..6).await;
    stage.line.send_replace(Some(1));
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(stage.sent.recv().await.unwrap());
    }
    let (value, second) = answers.remove(1);
    second.send(Ok(())).unwrap();
    assert_eq!(value, 1);
    // The freed place is taken, which shows that the confirmation was seen.
    let (value, _open) = stage.sent.recv().await.unwrap();
    assert_eq!(value, 4);
    stage.line.send_replace(None);
    drop(answers);
    stage.line.send_replace(Some(2));
    assert_eq!(stage.confirm(5).await, [0, 2, 3, 4, 5]);
    stage.empty().await;
    assert_eq!(stage.status.delivered.get(), 6);
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn live_rows_go_before_the_backlog() {
    let mut stage = stage(1, None);
    stage.append(0..5).await;
    stage.line.send_replace(Some(1));
    let (first, answer) = stage.sent.recv().await.unwrap();
    stage.append(100..102).await;
    answer.send(Ok(())).unwrap();
    assert_eq!(first, 0);
    assert_eq!(stage.confirm(6).await, [100, 101, 1, 2, 3, 4]);
    stage.empty().await;
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_for_good_does_not_hold_up_the_others() {
    let mut stage = stage(10, None);
    stage.append(0..3).await;
    stage.line.send_replace(Some(1));
    for _ in 0..3 {
        let (value, answer) = stage.sent.recv().await.unwrap();
        let outcome = if value == 1 { Err(DeliveryError::Permanent("0x97 quota exceeded".into())) } else { Ok(()) };
        answer.send(outcome).unwrap();
    }
    stage.append(3..4).await;
    assert_eq!(stage.confirm(1).await, [3]);
    stage.empty().await;
    assert_eq!(stage.status.delivered.get(), 3);
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_dropped_are_reported_as_gaps_before_the_others_go() {
    let mut stage = stage_with(10, None, |settings| {
        settings.max_size = ByteSize(1_200);
        settings.when_full = WhenFull::DropOldest;
    });
    for first in [0, 100, 200] {
        stage.append(first..first + 100).await;
    }
    let dropped = stage.status.dropped.get() as i64;
    assert!(dropped > 0 && dropped % 100 == 0, "{dropped}");
    stage.line.send_replace(Some(1));
    assert_eq!(stage.confirm(1).await, [-dropped]);
    assert_eq!(stage.confirm(300 - dropped as usize).await, (dropped..300).collect::<Vec<_>>());
    stage.empty().await;
    assert!(stage.buffer.fetch_gaps(1).await.unwrap().is_empty());
    stage.stop.cancel();
}

#[test]
fn the_backlog_keeps_to_its_rate() {
    let start = Instant::now();
    let mut rate = lanes_rate(100, start);
    let mut now = start;
    let mut sent = 0;
    while now < start + Duration::from_secs(1) {
        match rate.next(now) {
            Next::Send => {
                rate.take().unwrap();
                rate.settled(1, sent, None);
                sent += 1;
            }
            Next::Wait { until } => now = until.unwrap(),
            Next::Fetch { .. } => panic!("everything was fetched"),
        }
    }
    assert!((100..=102).contains(&sent), "{sent}");
}

fn lanes_rate(per_s: u32, now: Instant) -> Lanes {
    let mut lanes = Lanes::new(1000, Some(per_s));
    lanes.start(1, now);
    assert_eq!(lanes.next(now), Next::Fetch { after: 0, until: 1, limit: 64 });
    let batch = RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from_iter_values(0..500)) as _)]).unwrap();
    let rows = Rows { batch, seqs: Seqs::Run { first: 0 } };
    lanes.fetched(vec![crate::buffer::StoredBlock { id: 1, rule: "r".into(), rows, ordinals: vec![0; 500] }]);
    lanes
}
