//! The line goes away without a word, and comes back.

use serde_json::json;
use tidegate_tests::PATIENCE;
use tidegate_tests::link::{Quality, apart};

use crate::scene::{Scene, Settings};

#[test]
#[ignore = "it makes networks: see main.rs"]
fn an_uplink_whose_packets_vanish_is_missed_by_keep_alive_and_goes_on_where_it_was() {
    apart(async || {
        const CUT: i64 = 500;
        const COUNT: i64 = 3_000;
        let mut scene = Scene::set(Settings::default()).await;
        scene.publish(1..CUT).await;
        scene.uplink_wire.set(Quality::GONE);
        scene.publish(CUT..COUNT).await;
        assert!(scene.field.until(COUNT - 1).await.into_iter().eq(1..COUNT));
        scene.lost(0, "cloud").await;
        assert!(scene.cloud.numbers().len() < COUNT as usize);

        scene.uplink_wire.set(Quality::GOOD);
        scene.cloud.receive(COUNT as usize).await;
        assert!(scene.cloud.numbers().iter().copied().eq(0..COUNT));
        assert_eq!(scene.outages("cloud"), (1, 1));
        assert_eq!(scene.outages("plant"), (0, 0));
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn a_line_that_vanishes_with_more_under_way_than_a_socket_holds_is_missed_as_well() {
    apart(async || {
        const COUNT: i64 = 200;
        let mut scene = Scene::set(Settings::default()).await;
        let text = "large ".repeat(10_000);
        scene.uplink_wire.set(Quality::GONE);
        scene.publish_rows((1..COUNT).map(|n| json!({ "n": n, "text": text }))).await;
        assert!(scene.field.until(COUNT - 1).await.into_iter().eq(1..COUNT));
        scene.lost(0, "cloud").await;

        scene.uplink_wire.set(Quality::GOOD);
        scene.cloud.receive(COUNT as usize).await;
        assert!(scene.cloud.numbers().iter().copied().eq(0..COUNT));
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn a_line_that_vanishes_while_the_box_only_writes_to_it_is_missed_as_well() {
    apart(async || {
        // Nobody answers a write with QoS 0, and a line that is written to needs no ping.
        let more = "[outputs.lamp]\nconnection = \"cloud\"\ntopic = \"lamp\"\nqos = 0\n";
        let rule = "INSERT INTO uplink SELECT n FROM numbers WHERE n = 0; \
                    INSERT INTO lamp SELECT n FROM numbers; INSERT INTO out SELECT n FROM numbers;";
        let mut scene = Scene::set(Settings { more, rule, ..Settings::default() }).await;
        scene.uplink_wire.set(Quality::GONE);
        let writing = async {
            let mut n = 0;
            while scene.outages("cloud").0 == 0 {
                n += 1;
                scene.publish(n..n + 1).await;
                scene.field.until(n).await;
            }
        };
        tokio::time::timeout(PATIENCE, writing).await.expect("the box misses the line");
        scene.uplink_wire.set(Quality::GOOD);
        scene
            .the_box
            .log()
            .wait("{connection=cloud}: tidegate_connectors::mqtt::losses: connected again")
            .await;
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn a_plant_whose_packets_vanish_is_missed_by_keep_alive_and_sends_again_what_was_not_acknowledged() {
    apart(async || {
        const COUNT: i64 = 3_000;
        let settings = Settings { plant_keep_alive: "2s", uplink_keep_alive: "30s", ..Settings::default() };
        let mut scene = Scene::set(settings).await;
        // Messages still come in, but their acknowledgements do not come out.
        scene.plant_wire.set_out_of(Quality::GONE);
        scene.publish(1..COUNT).await;
        scene.cloud.receive(3).await;
        scene.plant_wire.set(Quality::GONE);
        scene.lost(0, "plant").await;
        assert!(scene.cloud.numbers().len() < COUNT as usize, "most are still with the plant");

        scene.plant_wire.set(Quality::GOOD);
        scene.cloud.until(COUNT - 1).await;
        assert!(
            scene.cloud.numbers().iter().copied().eq(0..COUNT),
            "none is lost, and what comes again is not counted twice"
        );
        assert_eq!(scene.outages("plant"), (1, 1));
        assert_eq!(scene.outages("cloud"), (0, 0));
        // The field is written to again.
        scene.publish(COUNT..COUNT + 1).await;
        scene.field.until(COUNT).await;
    });
}

#[test]
#[ignore = "it makes networks: see main.rs"]
fn an_uplink_that_goes_down_and_up_twenty_times_loses_nothing() {
    apart(async || {
        let mut scene = Scene::set(Settings::default()).await;
        let mut n = 1;
        for flap in 1..=20 {
            let before = scene.the_box.log().count();
            scene.uplink_wire.set(Quality::GONE);
            scene.publish(n..n + 50).await;
            assert!(scene.field.until(n + 49).await.into_iter().eq(n..n + 50));
            // Most are over before the box has noticed.
            if flap % 5 == 0 {
                scene.lost(before, "cloud").await;
            }
            scene.uplink_wire.set(Quality::GOOD);
            scene.cloud.receive(n as usize + 50).await;
            n += 50;
        }
        assert!(scene.cloud.numbers().iter().copied().eq(0..n));
        let (lost, again) = scene.outages("cloud");
        assert!(lost >= 4 && lost == again, "lost {lost} times, there again {again} times");
    });
}
