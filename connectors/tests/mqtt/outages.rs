//! The broker goes away and comes back; so does the box.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use rumqttc_v4 as plain;
use serde_json::json;
use tidegate_connectors::mqtt::Publisher;
use tidegate_connectors::mqtt::config::Qos;
use tidegate_connectors::{DeliveryError, LineNews};

use tidegate_peers::mosquitto::Mosquitto;

use super::cable::Cable;
use super::peer::Peer;
use super::session::{VERSIONS, numbers, uncaused};
use crate::rig::{Rig, Setup};

const MESSAGES: i64 = 300;

/// Publishes as the forwarder does: again and again, until it is confirmed.
async fn publish_until_confirmed(publisher: &Publisher, topic: &str, payload: String) {
    loop {
        let confirmed = match publisher.publish(topic, payload.clone().into(), Qos::AtLeastOnce, false).await
        {
            Ok(confirmation) => confirmation.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(()) => return,
            Err(DeliveryError::Permanent(why)) => panic!("{why}"),
            Err(DeliveryError::Transient(_) | DeliveryError::Unknown(_)) => {
                let mut session = publisher.session();
                session.wait_for(Option::is_some).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_line_listens_when_what_was_queued_has_come_and_says_so_when_it_is_asked() {
    const QUEUED: usize = 100;
    for version in VERSIONS {
        let mut broker = Mosquitto::start().await;
        let port = broker.port();
        let sender = Peer::connect(port, "sender", "").await;
        let setup = || Setup::mqtt(version, port).numbers(1);
        let mut rig = setup().run();
        assert_eq!(rig.rows_and_news().await, (0, LineNews::Begins));
        rig.vanish().await;
        for n in 0..QUEUED {
            sender.publish("plant/a/n", json!({ "n": n }).to_string(), 1, false).await;
        }
        let mut rig = setup().run();
        assert_eq!(rig.rows_and_news().await, (QUEUED, LineNews::Begins));
        rig.question.send_replace(7);
        assert_eq!(rig.rows_and_news().await, (0, LineNews::Heard { asked: 7 }));
        broker.kill().await;
        assert!(matches!(rig.rows_and_news().await, (0, LineNews::Ends { .. })));
        rig.end().await;
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
        let mut rig = Setup::mqtt(version, port).numbers(1).run();
        rig.listening(&sender).await;

        let publisher = rig.publisher().clone();
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
        let mut rig = Setup::mqtt(version, broker.port()).numbers(1).run();
        rig.listening(&peer).await;
        let before = rig.connected_after(0).await;
        broker.kill().await;
        // Whether the connection is known to be gone or not: the message is not confirmed, and its sender is
        // told.
        let unconfirmed = match rig.publisher().publish("out/n", "1".into(), Qos::AtLeastOnce, false).await {
            Ok(confirmation) => confirmation.await,
            Err(error) => Err(error),
        };
        let gone = matches!(unconfirmed, Err(DeliveryError::Unknown(_) | DeliveryError::Transient(_)));
        assert!(gone, "{unconfirmed:?}");
        broker.restart().await;
        let after = rig.connected_after(before.generation).await;
        assert!(!after.present);
        publish_until_confirmed(rig.publisher(), "out/n", "1".into()).await;
        rig.listening(&peer).await;
        rig.end().await;
    }
}

#[tokio::test]
async fn messages_that_no_process_has_committed_come_again_and_an_old_acknowledgement_counts_for_nothing() {
    let broker = Mosquitto::start().await;
    for version in VERSIONS {
        let client_id = json!(format!("box {version}"));
        let setup = || Setup::mqtt(version, broker.port()).set("client_id", client_id.clone()).numbers(1);
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
        let mut rig = Setup::mqtt(version, broker.port()).numbers(1).run();
        rig.listening(&peer).await;
        peer.publish("plant/press/n", r#"{"n": 1}"#, 1, false).await;
        let batch = rig.batch().await;
        batch.ack.refuse();
        drop(batch);
        assert_eq!(numbers(&rig.batch().await.rows), [1]);
        rig.end().await;
    }
}

async fn publish(peer: &Peer, numbers: impl IntoIterator<Item = i64>) {
    for n in numbers {
        peer.publish("plant/press/n", format!("{{\"n\": {n}}}"), 1, false).await;
    }
}

/// Nothing is left of what was sent so far: a further connection brings only what is sent now.
async fn nothing_is_left(rig: &mut Rig, cable: &Cable, peer: &Peer) {
    rig.acknowledged().await;
    let repeated = rig.status.count("repeated");
    let before = rig.connected_after(0).await;
    cable.cut();
    rig.connected_after(before.generation).await;
    publish(peer, [1_000]).await;
    assert_eq!(rig.numbers(1).await.0, [1_000]);
    assert_eq!(rig.status.count("repeated"), repeated);
}

#[tokio::test]
async fn rows_that_the_engine_has_do_not_come_twice_when_the_connection_is_lost() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let (cable, peer) = (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
        let mut rig = Setup::mqtt(version, cable.port()).numbers(1).run();
        broker.subscribed("plant/+/n").await;
        publish(&peer, 1..=5).await;
        let (seen, batches) = rig.numbers(5).await;
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert_eq!(batches.iter().map(|batch| batch.marks.len()).sum::<usize>(), 5);

        // Twice, and no fate is decided yet.
        for times in 1..=2 {
            let before = rig.connected_after(0).await;
            cable.cut();
            assert!(rig.connected_after(before.generation).await.present, "{version}");
            rig.repeated(5 * times).await;
        }
        publish(&peer, [6]).await;
        assert_eq!(rig.numbers(1).await.0, [6], "{version}");
        drop(batches);
        nothing_is_left(&mut rig, &cable, &peer).await;
        rig.end().await;
    }
}

#[tokio::test]
async fn rows_do_not_come_twice_when_their_acknowledgements_are_lost_on_the_way() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let (cable, peer) = (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
        let mut rig = Setup::mqtt(version, cable.port()).numbers(1).run();
        broker.subscribed("plant/+/n").await;
        publish(&peer, 1..=3).await;
        let (seen, batches) = rig.numbers(3).await;
        assert_eq!(seen, [1, 2, 3]);
        let before = rig.connected_after(0).await;
        cable.mute_box();
        drop(batches);
        cable.has_lost_something().await;
        cable.cut();
        rig.connected_after(before.generation).await;
        rig.repeated(3).await;
        nothing_is_left(&mut rig, &cable, &peer).await;
        rig.end().await;
    }
}

#[tokio::test]
async fn rows_do_not_come_twice_when_the_broker_restarts_with_its_sessions() {
    for version in VERSIONS {
        let mut broker = Mosquitto::start().await;
        let mut rig = Setup::mqtt(version, broker.port()).numbers(1).run();
        broker.subscribed("plant/+/n").await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        publish(&peer, 1..=3).await;
        let (seen, batches) = rig.numbers(3).await;
        assert_eq!(seen, [1, 2, 3]);
        let before = rig.connected_after(0).await;
        broker.stop().await;
        broker.restart().await;
        assert!(rig.connected_after(before.generation).await.present, "{version}");
        rig.repeated(3).await;
        drop(batches);
        publish(&peer, [4]).await;
        assert_eq!(rig.numbers(1).await.0, [4], "{version}");
        rig.end().await;
    }
}

#[tokio::test]
async fn rows_that_were_refused_come_again_and_the_others_do_not() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let (cable, peer) = (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
        let mut rig = Setup::mqtt(version, cable.port()).numbers(1).run();
        broker.subscribed("plant/+/n").await;
        let mut batches = Vec::new();
        for n in 1..=3 {
            publish(&peer, [n]).await;
            batches.extend(rig.numbers(1).await.1);
        }
        let before = rig.connected_after(0).await;
        batches[1].ack.refuse();
        drop(batches.remove(1));
        cable.cut();
        rig.connected_after(before.generation).await;
        assert_eq!(rig.numbers(1).await.0, [2], "{version}");
        rig.repeated(2).await;
        drop(batches);
        nothing_is_left(&mut rig, &cable, &peer).await;
        rig.end().await;
    }
}

#[tokio::test]
async fn rows_that_an_earlier_process_committed_do_not_come_twice() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let (cable, peer) = (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
        let setup = || Setup::mqtt(version, cable.port()).numbers(1);
        let mut rig = setup().run();
        broker.subscribed("plant/+/n").await;
        publish(&peer, 1..=5).await;
        let (seen, batches) = rig.numbers(5).await;
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        let marks: Vec<u64> = batches.iter().flat_map(|batch| batch.marks.clone()).collect();
        rig.vanish().await;
        drop(batches);

        // The power failed before the last two were committed.
        let (committed, _) = marks.split_at(3);
        let mut rig = setup().knowing(committed).run();
        assert!(rig.connected_after(0).await.present, "{version}: the broker kept the session");
        let (seen, batches) = rig.numbers(2).await;
        assert_eq!(seen, [4, 5], "{version}");
        rig.repeated(3).await;
        assert_eq!(
            batches.iter().flat_map(|batch| batch.marks.clone()).collect::<Vec<_>>(),
            marks[3..],
            "a repeat has the same mark"
        );
        drop(batches);
        nothing_is_left(&mut rig, &cable, &peer).await;
        rig.end().await;
    }
}

#[tokio::test]
async fn a_broker_that_forgot_the_session_begins_anew_with_packet_ids_and_its_messages_are_new() {
    for version in VERSIONS {
        let mut broker = Mosquitto::with_config("allow_anonymous true\npersistence false\n").await;
        let cable = Cable::to(broker.port()).await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut rig = Setup::mqtt(version, cable.port()).numbers(1).run();
        broker.subscribed("plant/+/n").await;
        publish(&peer, [1]).await;
        let (_, first) = rig.numbers(1).await;
        let before = rig.connected_after(0).await;
        broker.kill().await;
        let lines = broker.lines().count();
        broker.restart().await;
        let before = rig.connected_after(before.generation).await;
        assert!(!before.present, "{version}");
        broker.subscribed_after(lines, "plant/+/n").await;

        // An equal message under the same packet id, which is lost on the way, so that the flag is on what is
        // seen of it.
        let peer = Peer::connect(broker.port(), "another peer", "").await;
        cable.mute_broker();
        publish(&peer, [1]).await;
        cable.has_lost_something().await;
        cable.cut();
        assert!(rig.connected_after(before.generation).await.present, "{version}");
        let (seen, second) = rig.numbers(1).await;
        assert_eq!(seen, [1], "{version}");
        assert_eq!(first[0].marks, second[0].marks, "only the session tells them apart");
        rig.repeated(0).await;
        drop((first, second));
        rig.end().await;
    }
}

#[tokio::test]
async fn a_message_is_known_again_by_each_stream_for_itself() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let (cable, peer) = (Cable::to(broker.port()).await, Peer::connect(broker.port(), "peer", "").await);
        // To the broker that is one subscription.
        let stream = |topic: &str| json!({ "connection": "c", "topic": topic, "fields": { "n": "int64" } });
        let mut rig = Setup::mqtt(version, cable.port())
            .stream("all", stream("plant/+/n"))
            .stream("devices", stream("plant/{device}/n"))
            .run();
        broker.subscribed("plant/+/n").await;
        publish(&peer, [1]).await;
        let (_, mut batches) = rig.numbers(2).await;
        assert_eq!(batches[0].marks, batches[1].marks);
        let before = rig.connected_after(0).await;
        let devices = batches.iter().position(|batch| &*batch.stream == "devices").unwrap();
        let devices = batches.remove(devices);
        devices.ack.refuse();
        drop(devices);
        cable.cut();
        rig.connected_after(before.generation).await;
        let (_, again) = rig.numbers(1).await;
        assert_eq!(&*again[0].stream, "devices", "{version}");
        rig.repeated(1).await;
        drop((batches, again));
        rig.acknowledged().await;
        let before = rig.connected_after(0).await;
        cable.cut();
        rig.connected_after(before.generation).await;
        publish(&peer, [2]).await;
        assert_eq!(rig.numbers(2).await.0, [2, 2], "{version}");
        rig.repeated(1).await;
        rig.end().await;
    }
}

#[tokio::test]
async fn commands_for_a_broker_that_is_away_fail_at_once_and_are_never_sent_late() {
    for version in VERSIONS {
        let mut broker = Mosquitto::start().await;
        let mut rig = Setup::mqtt(version, broker.port())
            .output("pump", json!({ "connection": "c", "topic": "act/pump", "payload": "{n}" }))
            .run();
        rig.connected_after(0).await;
        broker.kill().await;
        let command = |n: i64| {
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![n])) as ArrayRef)]).unwrap()
        };
        let pump = rig.sinks.get_mut("pump").unwrap();
        // In the moment before the loss is noticed, and after it.
        assert!(matches!(
            pump.deliver(uncaused(&command(1))).await.failures.as_slice(),
            [(0, DeliveryError::Transient(_) | DeliveryError::Unknown(_))]
        ));
        rig.disconnected().await;
        let pump = rig.sinks.get_mut("pump").unwrap();
        let failures = pump.deliver(uncaused(&command(2))).await.failures;
        let is_down = |why: &str| why.starts_with("connection c is down: ");
        assert!(
            matches!(failures.as_slice(), [(0, DeliveryError::Transient(why))] if is_down(why)),
            "{failures:?}"
        );
        let generation = rig.publisher().session().borrow().map_or(1, |session| session.generation);
        broker.restart().await;
        let mut peer = Peer::connect(broker.port(), "peer", "act/#").await;
        rig.connected_after(generation).await;
        assert_eq!(rig.sinks.get_mut("pump").unwrap().deliver(uncaused(&command(3))).await.failures, []);
        assert_eq!(peer.next().await.1, "3", "{version}");
        rig.end().await;
    }
}
