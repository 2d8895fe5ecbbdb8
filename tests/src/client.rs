//! The other side: a plain MQTT 3.1.1 client that publishes to and listens on a broker, and comes back when
//! the broker does.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rumqttc_v4 as mqtt;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::PATIENCE;
use crate::mosquitto::Mosquitto;

/// Messages of [`Client::publish_all`] that are not acknowledged yet.
const UNDER_WAY: usize = 100;

/// Pause before connecting again.
const AGAIN: Duration = Duration::from_millis(20);

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// topic
    pub topic: String,
    /// payload
    pub payload: Bytes,
    /// whether the broker had kept it from before the subscription
    pub retained: bool,
}

impl Message {
    /// The payload as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// The payload as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// A client.
pub struct Client {
    client: mqtt::AsyncClient,
    messages: mpsc::UnboundedReceiver<Message>,
    connected: watch::Receiver<bool>,
    driver: tokio::task::JoinHandle<()>,
}

impl Client {
    /// One that only publishes.
    pub async fn publisher(broker: &Mosquitto) -> Self {
        Self::connect(broker, "").await
    }

    /// One that takes what comes on `filter`. The broker keeps its session while the broker or the client is
    /// away.
    pub async fn subscriber(broker: &Mosquitto, filter: &str) -> Self {
        Self::connect(broker, filter).await
    }

    async fn connect(broker: &Mosquitto, filter: &str) -> Self {
        let id = if filter.is_empty() {
            "publisher".to_owned()
        } else {
            format!("listens-{}", filter.replace(['/', '#', '+'], "-"))
        };
        let mut options = mqtt::MqttOptions::new(id, ("127.0.0.1", broker.port()));
        options.set_max_packet_size(usize::MAX, usize::MAX);
        options.set_clean_session(filter.is_empty());
        let (client, events) = mqtt::AsyncClient::builder(options).capacity(1_000).build();
        #[expect(
            clippy::disallowed_methods,
            reason = "what a test has not looked at yet must not hold up the broker"
        )]
        let (sender, messages) = mpsc::unbounded_channel();
        let (ready_sender, mut ready) = watch::channel(false);
        let (connected_sender, connected) = watch::channel(false);
        let driver = Driver {
            filter: filter.to_owned(),
            client: client.clone(),
            messages: sender,
            ready: ready_sender,
            connected: connected_sender,
        };
        let driver = tokio::spawn(driver.run(events));
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready))
            .await
            .expect("the client connects")
            .unwrap();
        Self { client, messages, connected, driver }
    }

    /// Publishes with QoS 1 and waits for the broker's acknowledgement.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.publish_with(mqtt::PublishOptions::new(mqtt::QoS::AtLeastOnce), topic, payload.into()).await;
    }

    /// As [`Self::publish`], and the broker keeps the message for later subscribers.
    pub async fn retain(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.publish_with(
            mqtt::PublishOptions::new(mqtt::QoS::AtLeastOnce).retain(true),
            topic,
            payload.into(),
        )
        .await;
    }

    async fn publish_with(&self, options: mqtt::PublishOptions, topic: &str, payload: Vec<u8>) {
        let notice = self.client.publish_tracked(topic, payload, options).await.unwrap();
        tokio::time::timeout(PATIENCE, notice.wait_async()).await.expect("the broker confirms").unwrap();
    }

    /// Publishes all with QoS 1, as fast as they are acknowledged. A message whose acknowledgement was lost
    /// with the connection is published again: the broker has taken each at least once when this returns.
    pub async fn publish_all(&self, messages: impl IntoIterator<Item = (String, String)>) {
        self.publish_until_confirmed(messages, |(topic, payload), _| (topic.clone(), payload.clone())).await;
    }

    /// As [`Self::publish_all`], but each attempt has a message of its own: `message` makes it, from the item
    /// and the number of the attempt, from 1 on. Returns how often something was published again.
    pub async fn publish_until_confirmed<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        message: impl Fn(&T, u32) -> (String, String),
    ) -> u64 {
        let mut items = items.into_iter().peekable();
        let mut under_way: VecDeque<(mqtt::PublishNotice, T, u32)> = VecDeque::new();
        let mut again = 0;
        loop {
            let room = under_way.len() < UNDER_WAY;
            let (item, attempt) = if let Some(item) = items.next_if(|_| room) {
                (item, 1)
            } else if let Some((notice, item, attempt)) = under_way.pop_front() {
                if tokio::time::timeout(PATIENCE, notice.wait_async())
                    .await
                    .expect("the broker answers")
                    .is_ok()
                {
                    continue;
                }
                again += 1;
                (item, attempt + 1)
            } else {
                return again;
            };
            let (topic, payload) = message(&item, attempt);
            under_way.push_back((self.send(&topic, &payload).await, item, attempt));
        }
    }

    async fn send(&self, topic: &str, payload: &str) -> mqtt::PublishNotice {
        let mut connected = self.connected.clone();
        tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected))
            .await
            .expect("the broker is there")
            .unwrap();
        let options = mqtt::PublishOptions::new(mqtt::QoS::AtLeastOnce);
        self.client.publish_tracked(topic, payload.as_bytes().to_vec(), options).await.unwrap()
    }

    /// The next message.
    pub async fn next(&mut self) -> Message {
        self.next_if_any().await.expect("a message comes")
    }

    /// The next message; `None` when none has come after [`PATIENCE`].
    pub async fn next_if_any(&mut self) -> Option<Message> {
        tokio::time::timeout(PATIENCE, self.messages.recv()).await.ok().map(Option::unwrap)
    }

    /// Takes messages until `enough` says so, and returns all of them.
    pub async fn take_until(&mut self, mut enough: impl FnMut(&Message) -> bool) -> Vec<Message> {
        let mut taken = Vec::new();
        loop {
            let Some(message) = self.next_if_any().await else {
                panic!("no more messages come; {} came, the last is {:?}", taken.len(), taken.last())
            };
            taken.push(message);
            if enough(&taken[taken.len() - 1]) {
                return taken;
            }
        }
    }

    /// Takes `count` messages.
    pub async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut left = count;
        self.take_until(|_| {
            left -= 1;
            left == 0
        })
        .await
    }

    /// What has come in and was not taken.
    pub fn rest(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.messages.try_recv().ok()).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Driver {
    filter: String,
    client: mqtt::AsyncClient,
    messages: mpsc::UnboundedSender<Message>,
    ready: watch::Sender<bool>,
    connected: watch::Sender<bool>,
}

impl Driver {
    async fn run(self, mut events: mqtt::EventLoop) {
        loop {
            match events.poll().await {
                Ok(mqtt::Event::Incoming(mqtt::Incoming::Publish(publish))) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    if self
                        .messages
                        .send(Message { topic, payload: publish.payload, retained: publish.retain })
                        .is_err()
                    {
                        return;
                    }
                }
                Ok(mqtt::Event::Incoming(mqtt::Incoming::ConnAck(_))) => {
                    self.connected.send_replace(true);
                    if self.filter.is_empty() {
                        self.ready.send_replace(true);
                    } else {
                        self.client.try_subscribe(self.filter.as_str(), mqtt::QoS::AtLeastOnce).unwrap();
                    }
                }
                Ok(mqtt::Event::Incoming(mqtt::Incoming::SubAck(_))) => drop(self.ready.send_replace(true)),
                Err(mqtt::ConnectionError::RequestsDone) => return,
                Ok(_) => {}
                Err(_) => {
                    self.connected.send_replace(false);
                    // Not a wait for anything: it only leaves the processor to the others.
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}
