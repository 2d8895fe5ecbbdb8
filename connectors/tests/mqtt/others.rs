//! The same against brokers that are not mosquitto, which `tests/brokers/prepare` makes: aedes and mochi, and
//! with `TIDEGATE_BROKERS=all` all of them.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use serde_json::json;
use tidegate_peers::others::{Make, Other};

use super::cable::Cable;
use super::peer::Peer;
use super::session::{numbers, uncaused};
use crate::rig::{Rig, Setup};

/// Each with the versions of the protocol that it knows.
const BROKERS: [(Make, &str); 7] = [
    (Make::Aedes, "3.1.1"),
    (Make::Mochi, "3.1.1"),
    (Make::Mochi, "5"),
    (Make::HiveMq, "3.1.1"),
    (Make::HiveMq, "5"),
    (Make::Moquette, "3.1.1"),
    (Make::Amqtt, "3.1.1"),
];

fn brokers() -> impl Iterator<Item = (Make, &'static str)> {
    let all = std::env::var_os("TIDEGATE_BROKERS").is_some_and(|which| which == "all");
    BROKERS.into_iter().take(if all { BROKERS.len() } else { 3 })
}

async fn publish(peer: &Peer, numbers: impl IntoIterator<Item = i64>) {
    for n in numbers {
        peer.publish("plant/press/n", format!("{{\"n\": {n}}}"), 1, false).await;
    }
}

#[tokio::test]
#[ignore = "needs tests/brokers/prepare"]
async fn other_brokers_messages_become_rows_and_rows_messages() {
    for (make, version) in brokers() {
        let broker = Other::start(make).await;
        let mut peer = Peer::connect(broker.port(), "peer", "act/#").await;
        for qos in [0, 1] {
            eprintln!("{make:?} {version}, QoS {qos}");
            let id = json!(format!("box {qos}"));
            let output = json!({ "connection": "c", "topic": "act/pump", "payload": "{n}", "qos": qos });
            let mut rig = Setup::mqtt(version, broker.port())
                .set("client_id", id)
                .numbers(qos)
                .output("pump", output)
                .run();
            rig.subscribed(1).await;
            publish(&peer, 1..=100).await;
            let mut seen = Vec::new();
            while seen.len() < 100 {
                // Acknowledged as they come: HiveMQ's window is ten messages.
                seen.extend(numbers(&rig.batch().await.rows));
            }
            assert_eq!(seen, (1..=100).collect::<Vec<_>>(), "{make:?} {version}, QoS {qos}");
            let row =
                RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![7])) as ArrayRef)]).unwrap();
            assert_eq!(
                rig.sinks.get_mut("pump").unwrap().deliver(uncaused(&row)).await.failures,
                [],
                "{make:?} {version}, QoS {qos}"
            );
            assert_eq!(peer.next().await, ("act/pump".into(), "7".into()));
            rig.end().await;
        }
    }
}

#[tokio::test]
#[ignore = "needs tests/brokers/prepare"]
async fn other_brokers_subscriptions_count_when_they_are_granted() {
    for (make, version) in brokers() {
        for packet in [Cable::SUBSCRIBE, Cable::SUBACK] {
            eprintln!("{make:?} {version}");
            let broker = Other::start(make).await;
            let (cable, peer) =
                (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
            cable.cut_at(packet);
            let mut rig = Setup::mqtt(version, cable.port()).numbers(1).run();
            let before = rig.connected_after(0).await;
            rig.connected_after(before.generation).await;
            rig.subscribed(1).await;
            publish(&peer, [7]).await;
            assert_eq!(rig.numbers(1).await.0, [7], "{make:?} {version}");
            rig.end().await;
        }
    }
}

/// Waits for these rows, in any order with a marker: HiveMQ sends what it retains some time after it has
/// granted the subscription. Nothing else may have come.
async fn come(rig: &mut Rig, peer: &Peer, marker: i64, rows: &[i64]) {
    rig.subscribed(1).await;
    // With QoS 0, so that what is not acknowledged before a crash does not come again.
    peer.publish("plant/marker/n", format!("{{\"n\": {marker}}}"), 0, false).await;
    let (mut seen, _) = rig.numbers(1 + rows.len()).await;
    seen.retain(|n| *n != marker);
    assert_eq!(seen, rows);
    rig.acknowledged().await;
}

#[tokio::test]
#[ignore = "needs tests/brokers/prepare"]
async fn other_brokers_retained_messages_make_a_row_once() {
    // Moquette sends them without the flag, against MQTT-3.3.1-8; amqtt forgets the session, and sends each
    // twice.
    for (make, version) in brokers().filter(|(make, _)| !matches!(make, Make::Moquette | Make::Amqtt)) {
        for qos in [0, 1] {
            eprintln!("{make:?} {version}, QoS {qos}");
            let broker = Other::start(make).await;
            let (cable, peer) =
                (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
            let shelf = Arc::new(Mutex::new(Vec::new()));
            let start = || Setup::mqtt(version, cable.port()).numbers(qos).on(&shelf).run();
            peer.publish("plant/tank/n", r#"{"n": 1}"#, 1, true).await;
            // mochi confirms a message before it looks for subscribers, and takes the next one after that.
            peer.publish("nobody", "", 1, false).await;
            let mut rig = start();
            come(&mut rig, &peer, 100, &[1]).await;
            let before = rig.connected_after(0).await;
            cable.cut();
            rig.connected_after(before.generation).await;
            come(&mut rig, &peer, 101, &[]).await;
            rig.end().await;
            let mut rig = start();
            come(&mut rig, &peer, 102, &[]).await;
            rig.end().await;
            peer.publish("plant/tank/n", r#"{"n": 2}"#, 0, true).await;
            peer.publish("nobody", "", 1, false).await;
            let mut rig = start();
            come(&mut rig, &peer, 103, &[2]).await;
            rig.end().await;
        }
    }
}

/// aedes repeats with the packet id, and without the DUP flag.
#[tokio::test]
#[ignore = "needs tests/brokers/prepare"]
async fn aedes_repeats_are_known_by_the_next_process() {
    let broker = Other::start(Make::Aedes).await;
    let peer = Peer::connect(broker.port(), "peer", "").await;
    let setup = || Setup::mqtt("3.1.1", broker.port()).numbers(1);
    let mut rig = setup().run();
    rig.subscribed(1).await;
    publish(&peer, 1..=5).await;
    let (_, batches) = rig.numbers(5).await;
    let marks: Vec<u64> = batches.iter().flat_map(|batch| batch.marks.clone()).collect();
    rig.vanish().await;
    drop(batches);
    let mut rig = setup().knowing(&marks[..3]).run();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(numbers(&rig.batch().await.rows));
    }
    assert_eq!(seen, [4, 5]);
    rig.repeated(3).await;
    rig.end().await;
}
