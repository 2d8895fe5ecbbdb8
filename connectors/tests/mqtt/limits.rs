//! Packets that are too large, and an engine that is too slow.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use tidegate_connectors::DeliveryError;
use tidegate_connectors::mqtt::config::Qos;

use tidegate_peers::mosquitto::Mosquitto;

use super::peer::Peer;
use super::session::{VERSIONS, numbers};
use crate::rig::Setup;

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_connection_lives() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut rig = Setup::mqtt(version, broker.port()).set("max_packet", json!("1KiB")).numbers(1).run();
        rig.listening(&peer).await;
        let large = format!(r#"{{"n": 1, "text": "{}"}}"#, "x".repeat(2_000));
        peer.publish("plant/press/n", large, 1, false).await;
        peer.publish("plant/press/n", r#"{"n": 2}"#, 1, false).await;
        assert_eq!(numbers(&rig.batch().await.rows), [2], "{version}");
        // With MQTT 5 the broker knows the limit and keeps the message; with 3.1.1 it has to be refused here.
        let refused = if version == "5" { 0 } else { 1 };
        assert_eq!(rig.status.malformed.get(), refused, "{version}");
        assert_eq!(rig.status.reconnects.get(), 0, "{version}");
        rig.end().await;
    }
}

#[tokio::test]
async fn a_message_to_the_broker_that_is_too_large_is_refused_with_its_size() {
    let broker = Mosquitto::with_config("allow_anonymous true\nmax_packet_size 500\n").await;
    for (version, limit) in [("3.1.1", 1024), ("5", 500)] {
        let rig = Setup::mqtt(version, broker.port()).set("max_packet", json!("1KiB")).run();
        rig.connected_after(0).await;
        let error = rig
            .publisher()
            .publish("out/n", vec![b'x'; 2_000].into(), Qos::AtLeastOnce, false)
            .await
            .unwrap_err();
        // Fixed header 1 + 2, topic 2 + 5, packet id 2, payload; version 5 has one byte for the length of no
        // properties.
        let size = if version == "5" { 2_013 } else { 2_012 };
        let DeliveryError::Permanent(why) = error else { panic!("{error:?}") };
        assert!(
            why.contains(&format!("{size} bytes"))
                && why.contains(&limit.to_string())
                && why.contains("max_packet"),
            "{why}"
        );
        rig.publisher()
            .publish("out/n", vec![b'x'; 400].into(), Qos::AtLeastOnce, false)
            .await
            .unwrap()
            .await
            .unwrap();
        rig.end().await;
    }
}

/// Connects with a keep-alive of so many seconds and a last will, and then is silent. Returns the socket to
/// hold.
fn silent_client(port: u16, keep_alive_s: u8) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // CONNECT (MQTT 3.1.1, section 3.1): clean session, will with QoS 0, client id "s", topic "silent",
    // message "x".
    let mut connect = *b"\x10\x18\x00\x04MQTT\x04\x06\x00?\x00\x01s\x00\x06silent\x00\x01x";
    connect[11] = keep_alive_s;
    socket.write_all(&connect).unwrap();
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    socket
}

#[tokio::test]
async fn an_engine_that_takes_nothing_does_not_cost_the_connection() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let mut peer = Peer::connect(broker.port(), "peer", "silent").await;
        let mut rig = Setup::mqtt(version, broker.port())
            .set("keep_alive", json!("1s"))
            .set("in_flight", json!(10))
            .numbers(1)
            .inlet(1)
            .run();
        rig.listening(&peer).await;
        for n in 0..50 {
            peer.publish("plant/press/n", format!("{{\"n\": {n}}}"), 1, false).await;
        }
        // The broker gives up a client of the same keep-alive that really is silent; that is the measure of
        // time here. Twice, since the box's last packet was later than the first silent one's.
        for _ in 0..2 {
            let _socket = silent_client(broker.port(), 1);
            assert_eq!(peer.next().await.0, "silent");
        }
        let mut seen = Vec::new();
        while seen.last() != Some(&49) {
            seen.extend(numbers(&rig.batch().await.rows));
        }
        assert_eq!(seen, (0..50).collect::<Vec<_>>(), "{version}: each once, in order");
        assert_eq!(rig.status.reconnects.get(), 0, "{version}");
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn pings_go_out_while_messages_pour_in() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let mut peer = Peer::connect(broker.port(), "peer", "silent").await;
        let mut rig = Setup::mqtt(version, broker.port()).set("keep_alive", json!("4s")).numbers(0).run();
        rig.listening(&peer).await;
        let mut source = tokio::spawn(async move {
            rig.until_over().await;
            rig
        });
        let port = broker.port();
        let flood = tokio::spawn(async move {
            let peer = Peer::connect(port, "flood", "").await;
            loop {
                peer.pour("plant/press/n", r#"{"n": 1}"#).await;
            }
        });
        for _ in 0..2 {
            let _socket = silent_client(broker.port(), 4);
            tokio::select! {
                (topic, _) = peer.next() => assert_eq!(topic, "silent"),
                _ = &mut source => panic!("the source ended"),
            }
        }
        flood.abort();
        let status = status_of(&broker);
        assert!(!status.contains("Client box has exceeded timeout"), "{version}: {status}");
        source.abort();
    }
}

/// What mosquitto logged.
fn status_of(broker: &Mosquitto) -> String {
    broker.lines().text()
}
