#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::buffer::{Buffer, OutboxRows, Uplinks};
use crate::disk::SystemDisk;
use crate::status::OutboxStatus;
use arrow::array::{Int64Array, RecordBatch};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_connectors::uplink::Confirmation;
use tidegate_connectors::{UplinkConfig, mqtt};
use tidegate_core::clock::SystemClock;
use tidegate_core::{Ack, ByteSize, Rows, Seqs};
use tidegate_rules::{DeliveryPolicy, Priority, WhenFull};
use tokio::sync::{mpsc, oneshot};

type Answer = oneshot::Sender<Result<(), DeliveryError>>;

/// A far side whose answers the test gives. A gap of n rows is shown as -n.
struct Scripted {
    generation: watch::Receiver<Option<u64>>,
    batch: usize,
    sent: mpsc::Sender<(Vec<i64>, Answer)>,
    hang_ups: Arc<AtomicU64>,
}

impl Uplink for Scripted {
    fn batch(&self) -> usize {
        self.batch
    }

    fn send(&mut self, parcel: Parcel) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        let value = |message: &Bytes| {
            let message: serde_json::Value = serde_json::from_slice(message).unwrap();
            assert_eq!(message["rule"], *parcel.rule);
            match message["row"]["v"].as_i64() {
                Some(value) => {
                    assert_eq!(message["id"], format!("box-1/{}/{value}/0", parcel.rule));
                    value
                }
                None => -message["gap"]["rows"].as_i64().unwrap(),
            }
        };
        let values = parcel.messages.iter().map(value).collect();
        let (answer, answered) = oneshot::channel();
        Box::pin(async move {
            self.sent.send((values, answer)).await.unwrap();
            let confirmation = async move {
                answered.await.unwrap_or(Err(DeliveryError::Transient("the line went down".into())))
            };
            Ok(Box::pin(confirmation) as Confirmation)
        })
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        self.generation.clone()
    }

    fn hang_ups(&self) -> u64 {
        self.hang_ups.load(Ordering::Relaxed)
    }
}

struct Stage {
    _dir: tempfile::TempDir,
    buffer: Buffer,
    line: watch::Sender<Option<u64>>,
    sent: mpsc::Receiver<(Vec<i64>, Answer)>,
    hang_ups: Arc<AtomicU64>,
    dropped: Arc<OutboxStatus>,
    status: Arc<UplinkStatus>,
    stop: CancellationToken,
}

fn stage(in_flight: usize, batch: usize) -> Stage {
    stage_with(in_flight, batch, |_| {})
}

fn stage_with(in_flight: usize, batch: usize, change: impl FnOnce(&mut config::Buffer)) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let queue = NonZeroUsize::new(10).unwrap();
    let mut settings =
        config::Buffer { queue, when_full: WhenFull::Block, ..config::Buffer::at(dir.path().join("b.db")) };
    change(&mut settings);
    let (dropped, status) = (Arc::new(OutboxStatus::default()), Arc::new(UplinkStatus::default()));
    let uplinks = Uplinks::new(&[("cloud", None)]);
    let (buffer, writer) =
        Buffer::open(&settings, uplinks, Arc::new(SystemClock), Arc::new(SystemDisk), Arc::clone(&dropped))
            .unwrap();
    tokio::spawn(writer);
    let (line, generation) = watch::channel(None);
    let (tell, sent) = mpsc::channel(1000);
    let uplink = config::Uplink {
        rules: None,
        in_flight: NonZeroUsize::new(in_flight).unwrap(),
        backlog_rate: None,
        config: UplinkConfig::Mqtt(mqtt::UplinkConfig { connection: "cloud".into(), topic: "up".into() }),
    };
    let hang_ups = Arc::default();
    let far_side = Scripted { generation, batch, sent: tell, hang_ups: Arc::clone(&hang_ups) };
    let forwarder = Forwarder::new(buffer.outbox("cloud"), far_side, &uplink, "box-1", Arc::clone(&status));
    let stop = CancellationToken::new();
    tokio::spawn(forwarder.run(stop.clone()));
    Stage { _dir: dir, buffer, line, sent, hang_ups, dropped, status, stop }
}

impl Stage {
    async fn append(&self, values: std::ops::Range<i64>) {
        self.append_of("r", values).await;
    }

    async fn append_of(&self, rule: &'static str, values: std::ops::Range<i64>) {
        self.append_with(DeliveryPolicy::default(), rule, values).await;
    }

    async fn append_with(&self, delivery: DeliveryPolicy, rule: &'static str, values: std::ops::Range<i64>) {
        let batch =
            RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from_iter_values(values.clone())) as _)])
                .unwrap();
        let (done, committed) = oneshot::channel();
        let ack = Ack::new(move |_| done.send(()).unwrap());
        let rows = Rows { batch, seqs: Seqs::Run { first: values.start as u64 } };
        let ordinals = vec![0; rows.len()];
        self.buffer
            .append(vec![OutboxRows { rule: rule.into(), rows, ordinals, delivery, now_ns: 1, ack }])
            .await
            .unwrap();
        committed.await.unwrap();
    }

    async fn confirm(&mut self, n: usize) -> Vec<i64> {
        let mut values = Vec::new();
        for _ in 0..n {
            let (parcel, answer) = self.sent.recv().await.unwrap();
            answer.send(Ok(())).unwrap();
            values.extend(parcel);
        }
        values
    }

    async fn empty(&self) {
        let mut committed = self.buffer.outbox("cloud").committed();
        // Deletions are committed with the group; fetching is answered in between.
        while !self.buffer.outbox("cloud").fetch(0, u64::MAX >> 1, 1).await.unwrap().is_empty() {
            tokio::select! { _ = committed.changed() => {}, () = tokio::task::yield_now() => {} }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_order_and_leave_the_outbox_when_they_are_confirmed() {
    let mut stage = stage(3, 1);
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
    let mut stage = stage(4, 1);
    stage.append(0..6).await;
    stage.line.send_replace(Some(1));
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(stage.sent.recv().await.unwrap());
    }
    let (value, second) = answers.remove(1);
    second.send(Ok(())).unwrap();
    assert_eq!(value, [1]);
    // The freed place is taken, which shows that the confirmation was seen.
    let (value, _open) = stage.sent.recv().await.unwrap();
    assert_eq!(value, [4]);
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
    let mut stage = stage(1, 1);
    stage.append(0..5).await;
    stage.line.send_replace(Some(1));
    let (first, answer) = stage.sent.recv().await.unwrap();
    stage.append(100..102).await;
    answer.send(Ok(())).unwrap();
    assert_eq!(first, [0]);
    assert_eq!(stage.confirm(6).await, [100, 101, 1, 2, 3, 4]);
    stage.empty().await;
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_for_good_does_not_hold_up_the_others() {
    let mut stage = stage(10, 1);
    stage.append(0..3).await;
    stage.line.send_replace(Some(1));
    for _ in 0..3 {
        let (value, answer) = stage.sent.recv().await.unwrap();
        let outcome =
            if value == [1] { Err(DeliveryError::Permanent("0x97 quota exceeded".into())) } else { Ok(()) };
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
    let mut stage = stage_with(10, 1, |settings| {
        settings.max_size = ByteSize(1_200);
        settings.when_full = WhenFull::DropOldest;
    });
    for first in [0, 100, 200] {
        stage.append(first..first + 100).await;
    }
    let dropped = stage.dropped.dropped.get() as i64;
    assert!(dropped > 0 && dropped % 100 == 0, "{dropped}");
    stage.line.send_replace(Some(1));
    assert_eq!(stage.confirm(1).await, [-dropped]);
    assert_eq!(stage.confirm(300 - dropped as usize).await, (dropped..300).collect::<Vec<_>>());
    stage.empty().await;
    assert!(stage.buffer.outbox("cloud").fetch_gaps(1).await.unwrap().is_empty());
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_has_rows_of_one_rule_from_as_many_blocks_as_fit() {
    let mut stage = stage(100, 4);
    for first in 0..3 {
        stage.append(first * 2..first * 2 + 2).await;
    }
    stage.append_of("s", 6..9).await;
    stage.line.send_replace(Some(1));
    let mut parcels = Vec::new();
    for _ in 0..3 {
        let (parcel, answer) = stage.sent.recv().await.unwrap();
        answer.send(Ok(())).unwrap();
        parcels.push(parcel);
    }
    assert_eq!(parcels, [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7, 8]]);
    stage.empty().await;
    assert_eq!(stage.status.delivered.get(), 9);
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_in_doubt_is_sent_again_with_the_same_rows_before_all_others() {
    let mut stage = stage(8, 4);
    stage.append(0..2).await;
    stage.line.send_replace(Some(1));
    let first = stage.sent.recv().await.unwrap();
    stage.append(2..5).await;
    let second = stage.sent.recv().await.unwrap();
    assert_eq!((&first.0, &second.0), (&vec![0, 1], &vec![2, 3, 4]));
    // Both are lost with the line, and more comes while it is down.
    stage.line.send_replace(None);
    drop((first, second));
    stage.append(5..6).await;
    stage.line.send_replace(Some(2));
    let mut parcels = Vec::new();
    for _ in 0..3 {
        let (parcel, answer) = stage.sent.recv().await.unwrap();
        answer.send(Ok(())).unwrap();
        parcels.push(parcel);
    }
    assert_eq!(parcels, [vec![0, 1], vec![2, 3, 4], vec![5]]);
    stage.empty().await;
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_parcel_is_sent_row_by_row_so_that_only_the_bad_row_is_refused() {
    let mut stage = stage(10, 5);
    stage.append(0..5).await;
    stage.append(5..6).await;
    stage.line.send_replace(Some(1));
    let refuse = |value: &[i64]| {
        if value.contains(&3) { Err(DeliveryError::Permanent("400 Bad Request".into())) } else { Ok(()) }
    };
    let mut sent = Vec::new();
    for _ in 0..7 {
        let (parcel, answer) = stage.sent.recv().await.unwrap();
        answer.send(refuse(&parcel)).unwrap();
        sent.push(parcel);
    }
    sent.sort();
    assert_eq!(sent, [vec![0], vec![0, 1, 2, 3, 4], vec![1], vec![2], vec![3], vec![4], vec![5]]);
    stage.empty().await;
    assert_eq!(stage.status.delivered.get(), 5);
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_by_priority_and_live_rows_before_all_of_it() {
    let mut stage = stage(1, 1);
    for (priority, first) in [(5, 0), (9, 10), (2, 20), (5, 30), (9, 40)] {
        let delivery =
            DeliveryPolicy { priority: Priority::try_from(priority).unwrap(), ..DeliveryPolicy::default() };
        stage.append_with(delivery, "r", first..first + 2).await;
    }
    stage.line.send_replace(Some(1));
    let (first, answer) = stage.sent.recv().await.unwrap();
    assert_eq!(first, [10]);
    stage.append(50..51).await;
    answer.send(Ok(())).unwrap();
    assert_eq!(stage.confirm(10).await, [50, 11, 40, 41, 0, 1, 30, 31, 20, 21]);
    stage.empty().await;
    stage.stop.cancel();
}

#[test]
fn a_parcel_may_exceed_the_rate_for_a_moment_and_the_next_one_waits_the_longer() {
    let start = Instant::now();
    let mut lanes = lanes_rate(100, 50, start);
    assert_eq!((lanes.next(start), lanes.take().len()), (Next::Send, 50));
    let Next::Wait { until: Some(until) } = lanes.next(start) else { panic!("the rate was exceeded") };
    assert!((499..=501).contains(&(until - start).as_millis()), "{:?}", until - start);
}

#[test]
fn the_backlog_keeps_to_its_rate() {
    let start = Instant::now();
    let mut rate = lanes_rate(100, 1, start);
    let mut now = start;
    let mut sent = 0;
    while now < start + Duration::from_secs(1) {
        match rate.next(now) {
            Next::Send => {
                assert_eq!(rate.take().len(), 1);
                rate.settled(1, sent, None);
                sent += 1;
            }
            Next::Wait { until } => now = until.unwrap(),
            Next::Fetch { .. } => panic!("everything was fetched"),
        }
    }
    assert!((100..=102).contains(&sent), "{sent}");
}

fn lanes_rate(per_s: u32, batch: usize, now: Instant) -> Lanes {
    let mut lanes = Lanes::new(1000, batch, Some(per_s));
    lanes.start(1, now);
    for priority in Priority::ALL.into_iter().take(5) {
        assert_eq!(lanes.next(now), Next::Fetch { priority: Some(priority), after: 0, until: 1, limit: 64 });
        if priority != Priority::default() {
            lanes.fetched(Vec::new());
        }
    }
    let batch =
        RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from_iter_values(0..500)) as _)]).unwrap();
    let rows = Rows { batch, seqs: Seqs::Run { first: 0 } };
    lanes.fetched(vec![crate::buffer::StoredBlock {
        id: 1,
        rule: "r".into(),
        rows,
        ordinals: vec![0; 500],
        written: None,
    }]);
    lanes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_at_which_the_far_side_hangs_up_is_set_aside_and_the_others_arrive() {
    let mut stage = stage(10, 1);
    stage.append(0..6).await;
    stage.line.send_replace(Some(0));
    let (mut ends, mut open) = (0, Vec::new());
    while stage.status.delivered.get() < 5 {
        let (values, answer) = tokio::select! {
            biased;
            sent = stage.sent.recv() => sent.unwrap(),
            () = tokio::task::yield_now() => continue,
        };
        match values[..] {
            [3] => {
                ends += 1;
                stage.hang_ups.fetch_add(1, Ordering::Relaxed);
                stage.line.send_replace(None);
                drop((answer, std::mem::take(&mut open)));
                stage.line.send_replace(Some(ends));
            }
            // As long as rows come at once, the line is closed before the broker has confirmed any.
            _ if ends < 3 => open.push(answer),
            // An error means that it belongs to a line that was closed.
            _ => drop(answer.send(Ok(()))),
        }
    }
    assert_eq!(ends, 6, "three times with the others, and three times alone");
    stage.empty().await;
    stage.stop.cancel();
}
