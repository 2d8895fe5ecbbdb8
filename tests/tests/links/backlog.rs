//! The uplink is away for long, and a week's rows wait for it.

use std::time::{Duration, Instant};

use tidegate_tests::link::{Quality, apart};

use crate::scene::{Scene, Settings};

/// A debug build that holds as many rows in memory grows by more than this.
const FLAT_KIB: u64 = 60 << 10;

/// One row in a hundred is for the field.
const RULE: &str = "INSERT INTO uplink SELECT n, text FROM numbers; INSERT INTO out SELECT n FROM numbers \
    WHERE n % 100 = 0;";

#[test]
#[ignore = "it makes networks: see main.rs"]
fn live_rows_pass_a_hundred_thousand_that_wait_and_memory_stays_flat() {
    apart(async || {
        const SETTLED: i64 = 2_000;
        const COUNT: i64 = 100_000;
        const LIVE: i64 = COUNT + 100;
        let mut scene = Scene::set(Settings { rule: RULE, ..Settings::default() }).await;
        scene.uplink_wire.set(Quality::GONE);
        scene.publish_in_bulk(1..SETTLED + 1).await;
        scene.field.until(SETTLED).await;
        scene.lost(0, "cloud").await;
        let before = scene.the_box.resident_kib();
        scene.publish_in_bulk(SETTLED + 1..COUNT).await;
        let written = scene.field.until(COUNT - 100).await;
        assert!(
            written.into_iter().eq((SETTLED + 100..COUNT).step_by(100)),
            "the field was written to all the time"
        );
        let waiting = scene.the_box.resident_kib();
        assert!(waiting < before + FLAT_KIB, "resident memory grew from {before} KiB to {waiting} KiB");

        scene.uplink_wire.set(Quality::GOOD);
        scene.cloud.receive(1_000).await;
        scene.publish(COUNT..LIVE).await;
        scene.cloud.receive(LIVE as usize).await;
        let (backlog, live): (Vec<i64>, Vec<i64>) = scene.cloud.numbers().iter().partition(|n| **n < COUNT);
        assert!(backlog.into_iter().eq(0..COUNT) && live.into_iter().eq(COUNT..LIVE), "all, in order");
        let last_live = scene.cloud.numbers().iter().position(|n| *n == LIVE - 1).unwrap();
        assert!(last_live < COUNT as usize / 2, "live rows came after {last_live} others");
        let drained = scene.the_box.resident_kib();
        assert!(drained < before + FLAT_KIB, "resident memory grew from {before} KiB to {drained} KiB");
        assert_eq!(scene.outages("cloud"), (1, 1));
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn a_backlog_with_a_rate_keeps_to_it_and_live_rows_do_not() {
    apart(async || {
        const RATE: u32 = 2_000;
        const COUNT: i64 = 20_000;
        const LIVE: i64 = COUNT + 500;
        let mut scene =
            Scene::set(Settings { rule: RULE, more: "backlog_rate = 2000", ..Settings::default() }).await;
        scene.uplink_wire.set(Quality::GONE);
        scene.publish_in_bulk(1..COUNT).await;
        scene.field.until(COUNT - 100).await;
        scene.lost(0, "cloud").await;

        let start = Instant::now();
        scene.uplink_wire.set(Quality::GOOD);
        scene.the_box.log().wait("connected again").await;
        scene.publish(COUNT..LIVE).await;
        scene.cloud.until(LIVE - 1).await;
        let passed = scene.cloud.numbers().len();
        assert!(passed < COUNT as usize, "live rows wait for no rate");
        scene.cloud.receive(LIVE as usize).await;
        // Rows that were under way when the line was lost go again before the backlog, up to the default of
        // `in_flight`; and a tenth of a second's rows may go at once.
        let least = Duration::from_secs(COUNT as u64 - 1_000) / RATE - Duration::from_millis(200);
        assert!(start.elapsed() >= least, "{COUNT} rows took {:?}", start.elapsed());
        let (backlog, live): (Vec<i64>, Vec<i64>) = scene.cloud.numbers().iter().partition(|n| **n < COUNT);
        assert!(backlog.into_iter().eq(0..COUNT) && live.into_iter().eq(COUNT..LIVE), "all, in order");
    });
}
