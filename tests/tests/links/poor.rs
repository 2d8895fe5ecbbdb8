//! The uplink is there, but poor.

use std::time::Duration;

use tidegate_tests::link::{Quality, apart};

use crate::scene::{Scene, Settings};

#[test]
#[ignore = "it makes networks: see main.rs"]
fn an_uplink_with_300_ms_of_delay_and_a_fifth_of_its_packets_lost_delivers_everything_in_order() {
    apart(async || {
        const COUNT: i64 = 200;
        let mut scene = Scene::set(Settings { uplink_keep_alive: "30s", ..Settings::default() }).await;
        // There and back, both.
        scene.uplink_wire.set(Quality {
            delay: Duration::from_millis(150),
            loss_percent: 20,
            ..Quality::GOOD
        });
        scene.publish(1..COUNT).await;
        assert!(scene.field.until(COUNT - 1).await.into_iter().eq(1..COUNT));
        let behind = scene.cloud.numbers().len();
        assert!(behind < COUNT as usize, "the field does not wait for the uplink");

        scene.cloud.until(COUNT - 1).await;
        assert!(scene.cloud.numbers().iter().copied().eq(0..COUNT));
        assert_eq!(scene.cloud.repeats(), 0);
        assert_eq!(scene.outages("cloud"), (0, 0), "TCP has dealt with it");
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn a_slow_uplink_whose_keep_alive_suits_it_is_not_taken_for_a_dead_one() {
    apart(async || {
        const COUNT: i64 = 60;
        let mut scene = Scene::set(Settings { uplink_keep_alive: "5s", ..Settings::default() }).await;
        // The window of 20 rows takes some three seconds.
        scene.uplink_wire.set(Quality { bits_per_s: Some(9_600), ..Quality::GOOD });
        scene.publish(1..COUNT).await;
        assert!(scene.field.until(COUNT - 1).await.into_iter().eq(1..COUNT));
        scene.cloud.until(COUNT - 1).await;
        assert!(scene.cloud.numbers().iter().copied().eq(0..COUNT));
        assert_eq!(scene.cloud.repeats(), 0);
        assert_eq!(scene.outages("cloud"), (0, 0));
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn an_uplink_of_300_bits_a_second_slows_nobody_and_when_it_is_better_live_rows_go_first() {
    apart(async || {
        const COUNT: i64 = 3_000;
        const LIVE: i64 = COUNT + 20;
        let mut scene = Scene::set(Settings { more: "backlog_rate = 500", ..Settings::default() }).await;
        scene.uplink_wire.set(Quality { bits_per_s: Some(300), ..Quality::GOOD });
        scene.publish(1..COUNT).await;
        assert!(scene.field.until(COUNT - 1).await.into_iter().eq(1..COUNT));
        // The rows on the line are in the way of the pings: too slow for this keep_alive.
        scene.lost(0, "cloud").await;

        scene.uplink_wire.set(Quality::GOOD);
        scene.the_box.log().wait("connected again").await;
        scene.publish(COUNT..LIVE).await;
        scene.cloud.receive(LIVE as usize).await;
        let (backlog, live): (Vec<i64>, Vec<i64>) = scene.cloud.numbers().iter().partition(|n| **n < COUNT);
        assert!(backlog.into_iter().eq(0..COUNT) && live.into_iter().eq(COUNT..LIVE), "all, in order");
        assert_eq!(scene.cloud.numbers().last(), Some(&(COUNT - 1)), "the backlog was last");
        assert_eq!(scene.outages("cloud"), (1, 1));
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn a_connection_is_made_at_300_bits_a_second_and_rows_arrive() {
    apart(async || {
        let mut scene = Scene::set(Settings { uplink_keep_alive: "20s", ..Settings::default() }).await;
        scene.uplink_wire.set(Quality::GONE);
        scene.lost(0, "cloud").await;
        scene.uplink_wire.set(Quality { bits_per_s: Some(300), ..Quality::GOOD });
        scene.the_box.log().wait("connected again").await;
        // One by one: rows that share a packet take longer than this keep_alive, and whether they do is a
        // matter of luck.
        scene.cloud.receive(1).await;
        for n in 1..4 {
            scene.publish(n..n + 1).await;
            scene.cloud.receive(n as usize + 1).await;
        }
        assert!(scene.cloud.numbers().iter().copied().eq(0..4));
        assert_eq!(scene.outages("cloud"), (1, 1));
    });
}
