//! What a power cut may take of what was committed, and what not.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use tidegate::buffer::{Buffer, OutboxRows, Uplinks};
use tidegate::config;
use tidegate::disk::Disk as _;
use tidegate_core::clock::SystemClock;
use tidegate_core::{Ack, Outcome, Rows, Seqs, Span};
use tidegate_rules::DeliveryPolicy;
use tidegate_sim::dice::Dice;
use tidegate_sim::disk::Disk;
use tokio::sync::oneshot;
use tokio::time::sleep;

const SYNC_EVERY: Duration = Duration::from_secs(10);
const SEEDS: u64 = 40;

fn settings(disk: &Disk, durability: Option<Duration>) -> config::Buffer {
    let path = Path::new(disk.root()).join("box.db");
    config::Buffer { sync_every: durability.map(Span), ..config::Buffer::at(path) }
}

fn open(settings: &config::Buffer, disk: &Disk) -> Buffer {
    let disk = Arc::new(disk.clone());
    let (buffer, writer) =
        Buffer::open(settings, Uplinks::default(), Arc::new(SystemClock), disk, Arc::default()).unwrap();
    tokio::spawn(writer);
    buffer
}

/// Appends one row, and waits until it is acknowledged.
async fn store(buffer: &Buffer, seq: u64) {
    let (tell, told) = oneshot::channel();
    let ack = Ack::new(move |outcome| tell.send(outcome).unwrap());
    let batch = RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let rows = Rows { batch, seqs: Seqs::Run { first: seq } };
    buffer
        .append(vec![OutboxRows {
            rule: "r".into(),
            rows,
            ordinals: vec![0],
            delivery: DeliveryPolicy::default(),
            now_ns: 1,
            ack,
        }])
        .await
        .unwrap();
    assert_eq!(told.await.unwrap(), Outcome::Done);
}

/// Runs a buffer in which rows are stored after these pauses, and cuts the power after the last one. Returns
/// up to which row the buffer has them afterwards.
fn cut(seed: u64, durability: Option<Duration>, pauses: &[Duration], before_the_cut: Duration) -> u64 {
    let disk = Disk::new(Dice::new(seed));
    let settings = settings(&disk, durability);
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let running = runtime();
    running.block_on(async {
        let buffer = open(&settings, &disk);
        disk.sync_dir(Path::new(disk.root())).unwrap();
        for (seq, pause) in (1..).zip(pauses) {
            sleep(*pause).await;
            store(&buffer, seq).await;
        }
        sleep(before_the_cut).await;
        disk.cut_power();
    });
    drop(running);
    disk.restore_power();
    runtime()
        .block_on(async { open(&settings, &disk).recovered().progress.get("r").copied().unwrap_or_default() })
}

#[test]
fn with_full_durability_nothing_is_lost() {
    for seed in 0..SEEDS {
        assert_eq!(cut(seed, None, &[Duration::from_secs(1); 5], Duration::ZERO), 5, "seed {seed}");
    }
}

#[test]
fn with_normal_durability_what_is_older_than_a_sync_is_there_and_the_rest_may_be_lost() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        // Row 1 is stored in second 4, and so on: the power goes in second 20.
        let left = cut(seed, Some(SYNC_EVERY), &[Duration::from_secs(4); 5], Duration::ZERO);
        assert!(
            left >= 2,
            "seed {seed}: rows 1 and 2 were committed more than ten seconds before, and only {left} are left"
        );
        lost += 5 - left;
    }
    assert!(lost > 0, "this test would not see a loss");
}

#[test]
fn with_normal_durability_a_quiet_buffer_is_synced_as_well() {
    for seed in 0..SEEDS {
        let left =
            cut(seed, Some(SYNC_EVERY), &[Duration::from_secs(1)], SYNC_EVERY + Duration::from_secs(1));
        assert_eq!(left, 1, "seed {seed}");
    }
}

#[test]
fn a_delivery_of_what_is_not_there_does_not_keep_the_writer_busy() {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    // Simulated time passes only while everybody sleeps.
    std::thread::spawn(move || {
        let disk = Disk::new(Dice::new(1));
        let settings = settings(&disk, None);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let buffer = open(&settings, &disk);
            buffer.outbox("cloud").confirm(vec![7]).await.unwrap();
            sleep(Duration::from_secs(60)).await;
            buffer.close().await;
        });
        tell.send(()).unwrap();
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(120)), Ok(()));
}
