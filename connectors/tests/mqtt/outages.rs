//! The broker goes away and comes back; so does the box.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use rumqttc_v4 as plain;
use serde_json::json;
use tidegate_connectors::DeliveryError;
use tidegate_connectors::mqtt::Publisher;
use tidegate_connectors::mqtt::config::Qos;

use tidegate_peers::mosquitto::Mosquitto;

use super::peer::Peer;
use super::rig::{Setup, VERSIONS, numbers};

const MESSAGES: i64 = 300;

/// Publishes as the forwarder does: again and again, until it is confirmed.
async fn publish_until_confirmed(publisher: &Publisher, topic: &str, payload: String) {
    loop {
        let confirmed = match publisher.publish(topic, payload.clone().into(), Qos::AtLeastOnce, false).await {
            Ok(confirmation) => confirmation.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(()) => return,
            Err(DeliveryError::Permanent(why)) => panic!("{why}"),
            Err(DeliveryError::Transient(_)) => {
                let mut session = publisher.session();
                session.wait_for(Option::is_some).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_either_direction_when_the_broker_restarts_with_qos_1_in_flight() {
    for version in VERSIONS {
        let mut broker = Mosquitto::start().await;
        let port = broker.port();
        let mut listener_options = plain::MqttOptions::new("listener", ("127.0.0.1", port));
        listener_options.set_clean_session(false);
        let mut listener = Peer::with_options(listener_options, "out/n").await;
        let sender = Peer::connect(port, "sender", "").await;
        let mut rig = Setup::new(version, port).numbers(1).run();
        rig.listening(&sender).await;

        let publisher = rig.publisher.clone();
        let outward = tokio::spawn(async move {
            for n in 0..MESSAGES {
                publish_until_confirmed(&publisher, "out/n", n.to_string()).await;
            }
        });
        let (halfway_sender, halfway) = tokio::sync::oneshot::channel();
        let inward = tokio::spawn(async move {
            let mut halfway = Some(halfway_sender);
            for n in 0..MESSAGES {
                if n == MESSAGES / 3 {
                    halfway.take().unwrap().send(()).unwrap();
                }
                sender.publish("plant/press/n", format!("{{\"n\": {n}}}"), 1, false).await;
            }
        });
        halfway.await.unwrap();
        broker.stop().await;
        broker.restart().await;

        let all: BTreeSet<i64> = (0..MESSAGES).collect();
        let mut came_in = BTreeSet::new();
        while came_in.len() < all.len() {
            came_in.extend(numbers(&rig.batch().await.rows));
        }
        assert_eq!(came_in, all, "{version}");
        let mut went_out = BTreeSet::new();
        while went_out.len() < all.len() {
            went_out.insert(listener.next().await.1.parse().unwrap());
        }
        assert_eq!(went_out, all, "{version}");
        inward.await.unwrap();
        outward.await.unwrap();
        rig.end().await;
    }
}

#[tokio::test]
async fn a_broker_that_forgot_the_session_is_subscribed_to_again_and_unconfirmed_messages_are_given_back() {
    for version in VERSIONS {
        let mut broker = Mosquitto::with_config("allow_anonymous true\npersistence false\n").await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut rig = Setup::new(version, broker.port()).numbers(1).run();
        rig.listening(&peer).await;
        let before = rig.connected_after(0).await;
        broker.kill().await;
        // Whether the connection is known to be gone or not: the message is not confirmed, and its sender is told.
        let unconfirmed = match rig.publisher.publish("out/n", "1".into(), Qos::AtLeastOnce, false).await {
            Ok(confirmation) => confirmation.await,
            Err(error) => Err(error),
        };
        assert!(matches!(unconfirmed, Err(DeliveryError::Transient(_))), "{unconfirmed:?}");
        broker.restart().await;
        let after = rig.connected_after(before.generation).await;
        assert!(!after.present);
        publish_until_confirmed(&rig.publisher, "out/n", "1".into()).await;
        rig.listening(&peer).await;
        rig.end().await;
    }
}

#[tokio::test]
async fn messages_that_were_not_acknowledged_come_again_and_an_old_acknowledgement_counts_for_nothing() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let client_id = json!(format!("box {version}"));
        let setup = || Setup::new(version, broker.port()).set("client_id", client_id.clone()).numbers(1);
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut rig = setup().run();
        rig.listening(&peer).await;
        peer.publish("plant/press/n", r#"{"n": 1}"#, 1, false).await;
        let held = rig.batch().await;
        assert_eq!(numbers(&held.rows), [1]);
        rig.vanish().await;

        let mut rig = setup().run();
        assert!(rig.connected_after(0).await.present, "{version}: the broker kept the session");
        // The acknowledgement of the first connection must not be taken for that of this one.
        drop(held);
        let again = rig.batch().await;
        assert_eq!(numbers(&again.rows), [1]);
        rig.vanish().await;

        let mut rig = setup().run();
        assert_eq!(numbers(&rig.batch().await.rows), [1]);
        // Acknowledged now, since the batch was dropped; a clean end sends the acknowledgement on its way.
        rig.end().await;
        drop(again);

        let mut rig = setup().run();
        rig.connected_after(0).await;
        peer.publish("plant/press/n", r#"{"n": 2}"#, 1, false).await;
        assert_eq!(numbers(&rig.batch().await.rows), [2]);
        rig.end().await;
    }
}

#[tokio::test]
async fn refused_messages_are_asked_for_again() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut rig = Setup::new(version, broker.port()).numbers(1).run();
        rig.listening(&peer).await;
        peer.publish("plant/press/n", r#"{"n": 1}"#, 1, false).await;
        let batch = rig.batch().await;
        batch.ack.refuse();
        drop(batch);
        assert_eq!(numbers(&rig.batch().await.rows), [1]);
        rig.end().await;
    }
}

#[tokio::test]
async fn commands_for_a_broker_that_is_away_fail_at_once_and_are_never_sent_late() {
    for version in VERSIONS {
        let mut broker = Mosquitto::start().await;
        let mut rig =
            Setup::new(version, broker.port()).output("pump", json!({ "connection": "c", "topic": "act/pump", "payload": "{n}" })).run();
        rig.connected_after(0).await;
        broker.kill().await;
        let command = |n: i64| RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![n])) as ArrayRef)]).unwrap();
        let pump = rig.sinks.get_mut("pump").unwrap();
        // In the moment before the loss is noticed, and after it.
        assert!(matches!(pump.deliver(&command(1)).await.error, Some(DeliveryError::Transient(_))));
        rig.disconnected().await;
        let pump = rig.sinks.get_mut("pump").unwrap();
        let error = pump.deliver(&command(2)).await.error.unwrap();
        assert!(matches!(&error, DeliveryError::Transient(why) if why.starts_with("connection c is down: ")), "{error:?}");
        let generation = rig.publisher.session().borrow().map_or(1, |session| session.generation);
        broker.restart().await;
        let mut peer = Peer::connect(broker.port(), "peer", "act/#").await;
        rig.connected_after(generation).await;
        assert_eq!(rig.sinks.get_mut("pump").unwrap().deliver(&command(3)).await.error, None);
        assert_eq!(peer.next().await.1, "3", "{version}");
        rig.end().await;
    }
}
