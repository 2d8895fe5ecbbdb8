//! What a broker retains makes a row once, unless the stream says otherwise.

use std::sync::{Arc, Mutex};

use arrow::array::AsArray;
use serde_json::json;
use tidegate_peers::PATIENCE;
use tidegate_peers::mosquitto::Mosquitto;

use super::cable::Cable;
use super::peer::Peer;
use super::session::{VERSIONS, numbers};
use crate::rig::{Rig, Setup};

const TOPIC: &str = "plant/press/n";

fn n(n: i64) -> String {
    format!("{{\"n\": {n}}}")
}

/// Takes the rows up to one that is sent now, and counts them as dealt with.
async fn up_to(rig: &mut Rig, peer: &Peer, marker: i64) -> Vec<i64> {
    rig.subscribed(1).await;
    peer.publish("plant/marker/n", n(marker), 0, false).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&marker) {
        seen.extend(numbers(&rig.batch().await.rows));
    }
    seen.pop();
    seen
}

/// Waits until the file on the shelf is another one.
async fn kept(shelf: &Mutex<Vec<u8>>, before: &[u8]) {
    let wait = async {
        while *shelf.lock().unwrap() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is kept");
}

#[tokio::test]
async fn a_retained_message_makes_a_row_once_through_reconnects_crashes_and_restarts() {
    for version in VERSIONS {
        for qos in [0, 1] {
            let broker = Mosquitto::start().await;
            let (cable, peer) =
                (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
            let shelf = Arc::new(Mutex::new(Vec::new()));
            let start = || Setup::mqtt(version, cable.port()).numbers(qos).on(&shelf).run();
            peer.publish(TOPIC, n(1), 1, true).await;

            let mut rig = start();
            assert_eq!(up_to(&mut rig, &peer, 100).await, [1], "{version}, QoS {qos}");
            kept(&shelf, &[]).await;
            let before = rig.connected_after(0).await;
            cable.cut();
            rig.connected_after(before.generation).await;
            assert_eq!(up_to(&mut rig, &peer, 101).await, [0; 0], "{version}, QoS {qos}, a reconnect");
            rig.vanish().await;

            let mut rig = start();
            assert_eq!(up_to(&mut rig, &peer, 102).await, [0; 0], "{version}, QoS {qos}, a crash");
            assert_eq!(rig.status.count("retained_left_out"), 1);
            peer.publish(TOPIC, n(2), 0, true).await;
            assert_eq!(rig.numbers(1).await.0, [2]);
            rig.end().await;

            let mut rig = start();
            assert_eq!(
                up_to(&mut rig, &peer, 103).await,
                [0; 0],
                "{version}, QoS {qos}, it came live before"
            );
            rig.end().await;

            // While the box is away, with QoS 0, so that no broker queues it.
            peer.publish(TOPIC, n(1), 0, true).await;
            let mut rig = start();
            assert_eq!(up_to(&mut rig, &peer, 104).await, [1], "{version}, QoS {qos}, a new value");
            rig.end().await;
        }
    }
}

#[tokio::test]
async fn rows_that_were_refused_or_never_dealt_with_come_again() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let shelf = Arc::new(Mutex::new(Vec::new()));
        let start = || Setup::mqtt(version, broker.port()).numbers(1).on(&shelf).run();
        peer.publish(TOPIC, n(1), 1, true).await;
        let mut rig = start();
        let held = rig.batch().await;
        assert_eq!(numbers(&held.rows), [1]);
        rig.vanish().await;
        let mut rig = start();
        assert_eq!(up_to(&mut rig, &peer, 100).await, [1], "{version}");
        rig.end().await;
        drop(held);
    }
}

#[tokio::test]
async fn the_journal_knows_what_came_after_the_last_file() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        peer.publish(TOPIC, n(1), 1, true).await;
        let mut rig = Setup::mqtt(version, broker.port()).numbers(1).run();
        let marks = rig.batch().await.marks;
        rig.vanish().await;
        let mut rig = Setup::mqtt(version, broker.port()).numbers(1).knowing(&marks).run();
        assert_eq!(up_to(&mut rig, &peer, 100).await, [0; 0], "{version}");
        rig.end().await;
    }
}

#[tokio::test]
async fn a_stream_can_take_all_or_none_and_have_the_flag_as_a_column() {
    for version in VERSIONS {
        for (retained, at_the_second_start) in [("first", &[][..]), ("always", &[1][..]), ("never", &[])] {
            let broker = Mosquitto::start().await;
            let peer = Peer::connect(broker.port(), "peer", "").await;
            let shelf = Arc::new(Mutex::new(Vec::new()));
            let stream = json!({ "connection": "c", "topic": "plant/{device}/n", "fields": { "n": "int64" },
                                 "retained": retained, "retained_column": "old" });
            let start =
                || Setup::mqtt(version, broker.port()).stream("numbers", stream.clone()).on(&shelf).run();
            peer.publish(TOPIC, n(1), 1, true).await;
            let mut rig = start();
            rig.subscribed(1).await;
            peer.publish("plant/marker/n", n(2), 0, false).await;
            let mut seen = Vec::new();
            while seen.last() != Some(&(2, false)) {
                let batch = rig.batch().await;
                let flags = batch.rows.column_by_name("old").unwrap().as_boolean().values().iter();
                seen.extend(numbers(&batch.rows).into_iter().zip(flags));
            }
            let expected: &[(i64, bool)] =
                if retained == "never" { &[(2, false)] } else { &[(1, true), (2, false)] };
            assert_eq!(seen, expected, "{version}, {retained}");
            rig.end().await;
            let mut rig = start();
            assert_eq!(up_to(&mut rig, &peer, 3).await, at_the_second_start, "{version}, {retained}");
            rig.end().await;
        }
    }
}
