//! Brokers as they are: what they refuse, forget, do not answer and limit.

use serde_json::json;
use tidegate_connectors::DeliveryError;
use tidegate_connectors::mqtt::config::Qos;
use tidegate_peers::mosquitto::Mosquitto;

use super::cable::Cable;
use super::peer::Peer;
use super::script::{Script, message, welcome, welcome_back};
use super::session::VERSIONS;
use crate::rig::Setup;

#[tokio::test]
async fn a_subscription_counts_when_the_broker_has_granted_it() {
    for version in VERSIONS {
        for answered in [false, true] {
            let broker = Mosquitto::start().await;
            let (cable, peer) =
                (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
            // The broker has the session, and does or does not have the subscription; the box cannot know.
            if answered {
                cable.cut_at(Cable::SUBACK)
            } else {
                cable.cut_at(Cable::SUBSCRIBE)
            }
            let mut rig = Setup::mqtt(version, cable.port()).numbers(1).run();
            let before = rig.connected_after(0).await;
            assert!(rig.connected_after(before.generation).await.present, "{version}");
            rig.subscribed(1).await;
            peer.publish("plant/press/n", r#"{"n": 7}"#, 1, false).await;
            assert_eq!(rig.numbers(1).await.0, [7], "{version}, the broker had it: {answered}");
            rig.end().await;
        }
    }
}

#[tokio::test]
async fn what_is_refused_is_asked_for_again_on_the_same_connection_until_it_is_granted() {
    // MQTT 3.1.1, section 3.9.3; MQTT 5.0, section 3.9.3: unspecified, specific, packet identifier in use,
    // quota exceeded.
    for (version, refusals) in [("3.1.1", &[0x80_u8, 0x80][..]), ("5", &[0x80, 0x83, 0x91, 0x97])] {
        let broker = Script::start().await;
        let stream = |topic: &str| json!({ "connection": "c", "topic": topic, "fields": { "n": "int64" } });
        let mut rig = Setup::mqtt(version, broker.port())
            .stream("one", stream("plant/+/n"))
            .stream("two", stream("other"))
            .run();
        let mut line = broker.connection().await;
        line.say(welcome(version)).await;
        line.subscribed(version, &[refusals[0], 1]).await;
        for refusal in &refusals[1..] {
            line.subscribed(version, &[*refusal]).await;
        }
        line.subscribed(version, &[1]).await;
        line.say(&message(version, 1, r#"{"n": 7}"#)).await;
        assert_eq!(rig.numbers(1).await.0, [7], "{version}");
        assert_eq!(rig.status.count("subscriptions"), 2);
        assert_eq!(rig.status.count("subscriptions_refused"), refusals.len() as u64);
        assert_eq!(rig.status.reconnects.get(), 0);
        rig.vanish().await;
    }
}

#[tokio::test]
async fn a_broker_that_hangs_is_given_up_although_the_box_writes_to_it() {
    for version in VERSIONS {
        let broker = Script::start().await;
        let rig = Setup::mqtt(version, broker.port()).set("keep_alive", json!("1s")).run();
        let mut line = broker.connection().await;
        line.say(welcome(version)).await;
        rig.connected_after(0).await;
        let publisher = rig.publisher().clone();
        let writes = tokio::spawn(async move {
            while let Ok(written) = publisher.publish("out", "x".into(), Qos::AtMostOnce, false).await {
                if written.await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        // UNSUBSCRIBE, which would be answered.
        line.packet_of(0xA2).await;
        let reading = tokio::spawn(async move { while line.packet().await.0 == 0x30 {} });
        let reason = rig.trouble().await;
        assert!(reason.contains("did not answer within two keep_alive"), "{version}: {reason}");
        writes.await.unwrap();
        reading.abort();
        rig.vanish().await;
    }
}

#[tokio::test]
async fn what_a_broker_does_not_take_is_not_sent() {
    let broker = Script::start().await;
    let rig = Setup::mqtt("5", broker.port()).run();
    let mut line = broker.connection().await;
    // Maximum QoS 0, as MQTT 5.0, section 3.2.2.3.4 says.
    line.say(b"\x20\x05\x00\x00\x02\x24\x00").await;
    rig.connected_after(0).await;
    let refused = rig.publisher().publish("out", "1".into(), Qos::AtLeastOnce, false).await.unwrap_err();
    assert!(matches!(&refused, DeliveryError::Transient(why) if why.contains("QoS 0 only")), "{refused}");
    rig.publisher().publish("out", "0".into(), Qos::AtMostOnce, false).await.unwrap();
    assert_eq!(line.packet().await.0, 0x30);
    rig.vanish().await;
}

#[tokio::test]
async fn a_broker_of_another_version_and_one_that_only_hangs_up_are_told_apart_from_a_lost_line() {
    // As aedes answers (CONNACK of MQTT 3.1.1: unacceptable protocol version), and as others do without a
    // word.
    for (version, answer, write) in [
        ("5", &b"\x20\x02\x00\x01"[..], "set version = \"3.1.1\""),
        ("5", b"", "set version = \"3.1.1\""),
        ("3.1.1", b"", "client_id"),
    ] {
        let broker = Script::start().await;
        let rig = Setup::mqtt(version, broker.port()).run();
        let mut line = broker.connection().await;
        line.say(answer).await;
        drop(line);
        let reason = rig.trouble().await;
        assert!(reason.contains(write) && reason.contains("CONNECT"), "{version}: {reason}");
        rig.vanish().await;
    }
}

#[tokio::test]
async fn a_refused_last_will_is_named() {
    let broker = Script::start().await;
    let rig = Setup::mqtt("5", broker.port()).set("last_will", json!({ "topic": "gone", "qos": 1 })).run();
    // QoS not supported: MQTT 5.0, section 3.2.2.2.
    broker.connection().await.say(b"\x20\x03\x00\x9B\x00").await;
    let reason = rig.trouble().await;
    assert!(reason.contains("last_will.qos"), "{reason}");
    rig.vanish().await;
}

#[tokio::test]
async fn a_message_that_is_repeated_without_the_flag_is_known_when_the_session_goes_on() {
    for version in VERSIONS {
        let broker = Script::start().await;
        let mut rig = Setup::mqtt(version, broker.port()).numbers(1).run();
        let mut line = broker.connection().await;
        line.say(welcome(version)).await;
        line.subscribed(version, &[1]).await;
        line.say(&message(version, 5, r#"{"n": 1}"#)).await;
        let (_, batches) = rig.numbers(1).await;
        drop(line);
        let mut line = broker.connection().await;
        line.say(welcome_back(version)).await;
        line.say(&message(version, 5, r#"{"n": 1}"#)).await;
        rig.repeated(1).await;
        // Behind a new message, equal is not the same.
        line.say(&message(version, 6, r#"{"n": 2}"#)).await;
        drop(batches);
        assert_eq!(rig.numbers(1).await.0, [2], "{version}");
        line.say(&message(version, 5, r#"{"n": 1}"#)).await;
        assert_eq!(rig.numbers(1).await.0, [1], "{version}");
        rig.vanish().await;
    }
}

#[tokio::test]
async fn a_lost_session_is_counted_and_a_first_one_is_not() {
    for version in VERSIONS {
        let mut broker = Mosquitto::with_config("allow_anonymous true\npersistence false\n").await;
        let rig = Setup::mqtt(version, broker.port()).numbers(1).run();
        let before = rig.connected_after(0).await;
        assert_eq!(rig.status.count("sessions_lost"), 0);
        broker.kill().await;
        broker.restart().await;
        rig.connected_after(before.generation).await;
        assert_eq!(rig.status.count("sessions_lost"), 1, "{version}");
        rig.vanish().await;
    }
}
