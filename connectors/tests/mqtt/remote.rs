//! The way to the box that management has: messages under topics, both ways.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate_connectors::connection::Kind;
use tidegate_connectors::remote::{LARGEST, Message, News, Publication, Remote, Reply, Request, Will};
use tidegate_connectors::status::LineStatus;
use tidegate_connectors::{ConnectionConfig, DeliveryError};
use tidegate_peers::mosquitto::Mosquitto;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::peer::{PATIENCE, Peer};
use super::script::{Script, welcome};
use super::session::VERSIONS;

/// A way to the box that runs.
struct Way {
    remote: Remote,
    status: Arc<LineStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Way {
    fn open(version: &str, port: u16) -> Self {
        let backoff = json!({ "min": "1ms", "max": "50ms" });
        let table = json!({ "host": "127.0.0.1", "port": port, "version": version, "backoff": backoff });
        let mut table = table.as_object().unwrap().clone();
        let connection = ConnectionConfig::read(Kind::Mqtt, &mut table).unwrap();
        let (status, stop) = (Arc::<LineStatus>::default(), CancellationToken::new());
        let will = Will { topic: "box/status".into(), payload: "gone".into(), delay: Duration::from_secs(1) };
        let mut remote = connection
            .open_remote(Request {
                name: "c",
                box_name: "box",
                filters: vec!["box/cmd/+/+".into(), "box/ask/+".into()],
                will,
                status: Arc::clone(&status),
                stop: stop.clone(),
            })
            .unwrap();
        let task = tokio::spawn(std::mem::replace(&mut remote.task, Box::pin(std::future::ready(()))));
        Self { remote, status, stop, task }
    }

    async fn news(&mut self) -> News {
        timeout(PATIENCE, self.remote.news.recv()).await.expect("there are news").unwrap()
    }

    async fn listens(&mut self) {
        loop {
            if let News::Listens = self.news().await {
                return;
            }
        }
    }

    async fn message(&mut self) -> Message {
        loop {
            if let News::Message(message) = self.news().await {
                return message;
            }
        }
    }

    /// Says something, and waits until it has arrived.
    async fn say(&self, topic: &str, payload: &str, keep: bool) -> Result<(), DeliveryError> {
        let (topic, payload) = (topic.to_owned(), payload.to_owned().into());
        let publication =
            Publication { topic, payload, keep, confirmed: true, expiry: None, correlation: None };
        timeout(PATIENCE, self.remote.post.publish(publication).await?).await.expect("the broker confirms")
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it ends").unwrap();
    }
}

/// Publishes as MQTT 5 can and the other peer cannot.
async fn publish(port: u16, arguments: &[&str]) {
    let mut program = tokio::process::Command::new("mosquitto_pub");
    let program = program.args(["-h", "127.0.0.1", "-V", "5", "-q", "1", "-p", &port.to_string()]);
    let ended = program.args(arguments).stdout(Stdio::null()).status().await.unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_what_is_does_not() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut way = Way::open(version, broker.port());
        way.listens().await;
        for n in ["1", "2", "3"] {
            peer.publish(&format!("box/cmd/log/{n}"), n, 1, false).await;
        }
        let (first, second, third) = (way.message().await, way.message().await, way.message().await);
        assert_eq!(first.payload.as_deref(), Ok(&b"1"[..]), "{version}");
        assert!(!first.kept && first.reply.is_none());
        drop(first.ack);
        // It is out of order, and waits for the one before.
        drop(third.ack);
        way.say("box/res/log/1", "done", false).await.unwrap();
        // As a process that ends without a word.
        way.task.abort();
        drop(second);
        let mut way = Way::open(version, broker.port());
        assert_eq!(way.message().await.topic, "box/cmd/log/2", "{version}");
        let third = way.message().await;
        assert_eq!(third.topic, "box/cmd/log/3", "{version}");
        drop(third);
        way.end().await;
    }
}

#[tokio::test]
async fn what_the_broker_keeps_comes_at_each_connection_and_says_so() {
    for version in VERSIONS {
        let mut broker = Mosquitto::start().await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        peer.publish("box/cmd/log/1", "kept", 1, true).await;
        let mut way = Way::open(version, broker.port());
        for _ in 0..2 {
            let message = way.message().await;
            assert!(message.kept, "{version}: {message:?}");
            drop(message);
            // Behind the acknowledgement: a broker that has not seen that brings the message of the session again.
            way.say("box/res/log/1", "init", false).await.unwrap();
            broker.stop().await;
            while !matches!(way.news().await, News::Lost) {}
            let refused = way.say("box/res/log/1", "done", true).await.unwrap_err();
            assert!(matches!(refused, DeliveryError::Transient(_)), "{refused}");
            broker.restart().await;
        }
        assert!(way.status.reconnects.get() >= 1, "{version}");
        way.end().await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_told_by_its_topic_and_the_next_one_comes() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut way = Way::open(version, broker.port());
        way.listens().await;
        for (n, bytes) in [(1, LARGEST), (2, LARGEST + 1), (3, 5 << 20)] {
            peer.publish(&format!("box/cmd/log/{n}"), vec![b'x'; bytes], 1, false).await;
            let message = way.message().await;
            assert_eq!(message.topic, format!("box/cmd/log/{n}"), "{version}");
            let expected = if bytes > LARGEST { Err(bytes) } else { Ok(bytes) };
            assert_eq!(message.payload.map(|payload| payload.len()), expected, "{version}");
        }
        assert_eq!(way.status.reconnects.get(), 0, "{version}");
        way.end().await;
    }
}

#[tokio::test]
async fn a_question_says_where_the_answer_goes() {
    let broker = Mosquitto::start().await;
    let mut way = Way::open("5", broker.port());
    way.listens().await;
    let reply = ["-D", "publish", "response-topic", "box/ans/me", "-D", "publish", "correlation-data", "7"];
    publish(broker.port(), &[&["-t", "box/ask/status", "-m", "?"], &reply[..]].concat()).await;
    let expected = Reply { topic: "box/ans/me".into(), correlation: Some("7".into()) };
    assert_eq!(way.message().await.reply, Some(expected));
    way.end().await;
}

#[tokio::test]
async fn the_correlation_goes_back_with_the_answer() {
    let broker = Script::start().await;
    let way = Way::open("5", broker.port());
    let mut line = broker.connection().await;
    line.say(welcome("5")).await;
    line.subscribed("5", &[1, 1]).await;
    let publication = Publication {
        topic: "a".into(),
        payload: "x".into(),
        keep: false,
        confirmed: false,
        expiry: Some(Duration::from_secs(9)),
        correlation: Some("77".into()),
    };
    drop(way.remote.post.publish(publication).await.unwrap());
    // MQTT 5.0, sections 3.3.2.3.3 and 3.3.2.3.6: Message Expiry Interval (2), Correlation Data (9).
    let expected = b"\x00\x01a\x0a\x02\x00\x00\x00\x09\x09\x00\x0277x";
    assert_eq!(line.packet_of(0x30).await, expected);
    way.task.abort();
}

#[tokio::test]
async fn a_box_that_is_gone_without_a_word_is_missed_and_one_that_stops_is_not() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let mut peer = Peer::connect(broker.port(), "peer", "box/status").await;
        let mut way = Way::open(version, broker.port());
        way.listens().await;
        way.say("box/status", "stops", true).await.unwrap();
        assert_eq!(peer.next().await.1, "stops", "{version}");
        way.end().await;
        let mut way = Way::open(version, broker.port());
        way.listens().await;
        way.task.abort();
        assert_eq!(peer.next().await.1, "gone", "{version}");
    }
}

#[tokio::test]
async fn a_flood_that_nobody_takes_is_neither_lost_nor_kept_without_bound() {
    for version in VERSIONS {
        let broker = Mosquitto::start().await;
        let peer = Peer::connect(broker.port(), "peer", "").await;
        let mut way = Way::open(version, broker.port());
        way.listens().await;
        let count = 3_000_usize;
        for n in 0..count {
            peer.publish(&format!("box/cmd/log/{n}"), "x", 1, false).await;
        }
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < count {
            seen.insert(way.message().await.topic);
        }
        way.end().await;
    }
}

#[test]
fn a_line_that_carries_no_messages_is_refused() {
    let mut table = json!({ "host": "127.0.0.1" }).as_object().unwrap().clone();
    let connection = ConnectionConfig::read(Kind::Modbus, &mut table).unwrap();
    let will = Will { topic: String::new(), payload: String::new(), delay: Duration::ZERO };
    let request = Request {
        name: "plc",
        box_name: "box",
        filters: Vec::new(),
        will,
        status: Arc::default(),
        stop: CancellationToken::new(),
    };
    let Err(refused) = connection.open_remote(request) else { panic!("it was opened") };
    assert!(refused.to_string().contains("kind = \"mqtt\""), "{refused}");
}
