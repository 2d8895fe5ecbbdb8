//! Messages in, rows out, and back.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use serde_json::json;
use tidegate_connectors::DeliveryError;
use tidegate_connectors::mqtt::config::Qos;

use tidegate_peers::mosquitto::Mosquitto;

use super::peer::{PATIENCE, Peer};
use super::script::{Script, welcome};
use super::session::{VERSIONS, numbers, texts, uncaused};
use crate::rig::{Setup, write};

#[tokio::test]
async fn a_message_becomes_a_row_with_its_topic_in_columns() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut rig = Setup::mqtt(version, broker.port()).numbers(1).run();
        rig.listening(&peer).await;
        peer.publish("plant/press/n", r#"{"n": 7, "other": [1, {}]}"#, 1, false).await;
        let batch = rig.batch().await;
        assert_eq!(&*batch.stream, "numbers");
        assert_eq!(numbers(&batch.rows), [7], "{version}");
        assert_eq!(texts(&batch.rows, "device"), ["press"]);
        assert!(batch.ack.is_awaited());
        assert_eq!(batch.marks.len(), 1);
        drop(batch);
        rig.end().await;
    }
}

#[tokio::test]
async fn an_output_publishes_each_row_and_waits_for_the_broker() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let mut peer = Peer::connect(broker.port(), "peer", "act/#").await;
        let mut rig = Setup::mqtt(version, broker.port())
            .output("pump", json!({ "connection": "c", "topic": "act/{device}" }))
            .output("lamp", json!({ "connection": "c", "topic": "act/lamp/{device}", "payload": "{\"on\": {run}}", "qos": 0 }))
            .run();
        rig.connected_after(0).await;
        let rows = RecordBatch::try_from_iter([
            ("device", Arc::new(StringArray::from(vec!["p1", "p/2", "p3"])) as ArrayRef),
            ("run", Arc::new(BooleanArray::from(vec![true, true, false]))),
        ])
        .unwrap();
        let delivery = rig.sinks.get_mut("pump").unwrap().deliver(uncaused(&rows)).await;
        assert_eq!(delivery.written, rows.num_rows() - 1);
        let [(1, error)] = delivery.failures.as_slice() else { panic!("{delivery:?}") };
        assert!(
            matches!(
                error,
                DeliveryError::Permanent(why) if why.contains("column device") && why.contains("p/2"),
            ),
            "{error}"
        );
        // The other rows of the call went their way.
        assert_eq!(peer.next().await, ("act/p1".into(), r#"{"device":"p1","run":true}"#.into()));
        assert_eq!(peer.next().await, ("act/p3".into(), r#"{"device":"p3","run":false}"#.into()));
        assert_eq!(
            rig.sinks.get_mut("lamp").unwrap().deliver(uncaused(&rows.slice(2, 1))).await.failures,
            []
        );
        assert_eq!(peer.next().await, ("act/lamp/p3".into(), r#"{"on": false}"#.into()));
        rig.end().await;
    }
}

#[tokio::test]
async fn retained_messages_come_to_a_new_subscriber() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let rig = Setup::mqtt(version, broker.port()).run();
        rig.connected_after(0).await;
        let confirmation = rig
            .publisher()
            .publish("plant/press/n", r#"{"n": 5}"#.into(), Qos::AtLeastOnce, true)
            .await
            .unwrap();
        confirmation.await.unwrap();
        rig.end().await;
        let mut rig = Setup::mqtt(version, broker.port())
            .set("client_id", json!(format!("reader {version}")))
            .numbers(0)
            .run();
        assert_eq!(numbers(&rig.batch().await.rows), [5]);
        rig.end().await;
    }
}

#[tokio::test]
async fn what_expires_says_so_in_whole_seconds() {
    let broker = Script::start().await;
    let mut rig =
        Setup::mqtt("5", broker.port()).output("pump", json!({ "topic": "a", "retain": true })).run();
    let mut connection = broker.connection().await;
    connection.say(welcome("5")).await;
    rig.connected_after(0).await;
    let mut sink = rig.sinks.remove("pump").unwrap();
    // MQTT 5.0, section 3.3: topic, packet id, length of the properties, those, payload. Message Expiry
    // Interval is property 2, four bytes (3.3.2.3.3). PUBACK: 3.4.
    for (expiry, properties) in [
        (None, &[0][..]),
        (Some(Duration::from_millis(1)), &[5, 2, 0, 0, 0, 1]),
        (Some(Duration::from_secs(300)), &[5, 2, 0, 0, 1, 44]),
        (Some(Duration::MAX), &[5, 2, 255, 255, 255, 255]),
    ] {
        if let Some(expiry) = expiry {
            sink.expire_after(expiry);
        }
        let row = json!({ "run": true });
        let (written, ()) = tokio::join!(write(&mut *sink, &row), async {
            let publish = connection.packet_of(0x33).await;
            assert_eq!(publish[..3], *b"\0\x01a");
            assert_eq!(publish[5..5 + properties.len()], *properties);
            assert_eq!(publish[5 + properties.len()..], *br#"{"run":true}"#);
            connection.say(&[0x40, 2, publish[3], publish[4]]).await;
        });
        assert_eq!(written, Ok(()));
    }
    drop(sink);
    rig.vanish().await;
}

#[tokio::test]
async fn a_retained_message_is_gone_when_it_has_expired() {
    let broker = Mosquitto::start().await;
    let mut rig =
        Setup::mqtt("5", broker.port()).output("pump", json!({ "topic": "act/pump", "retain": true })).run();
    rig.connected_after(0).await;
    rig.sinks.get_mut("pump").unwrap().expire_after(Duration::from_secs(2));
    assert_eq!(rig.write("pump", &json!({ "run": true })).await, Ok(()));
    let mut first = Peer::connect(broker.port(), "first", "act/#").await;
    assert_eq!(first.next().await, ("act/pump".into(), r#"{"run":true}"#.into()));
    let gone = async {
        loop {
            let mut late = Peer::connect(broker.port(), "late", "act/#").await;
            late.publish("act/mark", "x", 1, false).await;
            if late.next().await.0 == "act/mark" {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the broker drops it");
    rig.end().await;
}

#[tokio::test]
async fn the_last_will_is_published_when_the_box_vanishes_and_not_when_it_says_goodbye() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let mut peer = Peer::connect(broker.port(), "peer", "box/#").await;
        let setup = || {
            Setup::mqtt(version, broker.port())
                .set("last_will", json!({ "topic": "box/state", "payload": "gone" }))
        };
        let rig = setup().run();
        rig.connected_after(0).await;
        rig.end().await;
        peer.publish("box/mark", "after the goodbye", 1, false).await;
        assert_eq!(peer.next().await.1, "after the goodbye");
        let rig = setup().run();
        rig.connected_after(0).await;
        rig.vanish().await;
        assert_eq!(peer.next().await, ("box/state".into(), "gone".into()));
    }
}

#[tokio::test]
async fn a_malformed_message_is_counted_and_the_next_one_is_read() {
    let broker = Mosquitto::start().await;
    let peer = Peer::connect(broker.port(), "peer", "").await;
    let mut rig = Setup::mqtt("5", broker.port()).numbers(1).run();
    rig.listening(&peer).await;
    peer.publish("plant/press/n", r#"{"n": 1"#, 1, false).await;
    peer.publish("plant/press/n", r#"{"n": "many"}"#, 1, false).await;
    peer.publish("plant/press/n", r#"{"n": 2}"#, 1, false).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&2) {
        let batch = rig.batch().await;
        seen.extend(numbers(&batch.rows));
    }
    assert_eq!(rig.status.malformed.get(), 1);
    assert_eq!(rig.status.wrong_type.get(), 1);
    rig.end().await;
}
