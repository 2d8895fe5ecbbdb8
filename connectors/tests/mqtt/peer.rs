//! The other side: a plain client that publishes to and listens on the broker.

use bytes::Bytes;
use rumqttc_v4 as mqtt;
pub(crate) use tidegate_peers::PATIENCE;
use tokio::sync::mpsc;

pub(crate) struct Peer {
    client: mqtt::AsyncClient,
    /// what came in: topic and payload
    messages: mpsc::Receiver<(String, Bytes)>,
    driver: tokio::task::JoinHandle<()>,
}

impl Peer {
    /// Connects, and subscribes to a filter if it is not empty.
    pub(crate) async fn connect(port: u16, id: &str, filter: &str) -> Self {
        Self::with_options(mqtt::MqttOptions::new(id, ("127.0.0.1", port)), filter).await
    }

    pub(crate) async fn with_options(mut options: mqtt::MqttOptions, filter: &str) -> Self {
        options.set_max_packet_size(usize::MAX, usize::MAX);
        let (client, mut events) = mqtt::AsyncClient::builder(options).capacity(1_000).build();
        let (sender, messages) = mpsc::channel(100_000); // more than any test sends
        let (ready_sender, ready) = tokio::sync::oneshot::channel();
        let (filter, subscriber) = (filter.to_owned(), client.clone());
        let driver = tokio::spawn(async move {
            let mut ready = Some(ready_sender);
            loop {
                match events.poll().await {
                    Ok(mqtt::Event::Incoming(mqtt::Incoming::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        if sender.send((topic, publish.payload)).await.is_err() {
                            return;
                        }
                    }
                    Ok(mqtt::Event::Incoming(mqtt::Incoming::ConnAck(_))) if !filter.is_empty() => {
                        subscriber.try_subscribe(filter.as_str(), mqtt::QoS::AtLeastOnce).unwrap();
                    }
                    Ok(mqtt::Event::Incoming(mqtt::Incoming::ConnAck(_) | mqtt::Incoming::SubAck(_))) => {
                        if let Some(ready) = ready.take() {
                            let _ = ready.send(());
                        }
                    }
                    Err(mqtt::ConnectionError::RequestsDone) => return,
                    Ok(_) => {}
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        tokio::time::timeout(PATIENCE, ready).await.expect("the peer connects").unwrap();
        Self { client, messages, driver }
    }

    /// Publishes and waits for the broker's acknowledgement.
    pub(crate) async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, qos: u8, retain: bool) {
        let payload = payload.into();
        let qos = if qos == 0 { mqtt::QoS::AtMostOnce } else { mqtt::QoS::AtLeastOnce };
        let options = mqtt::PublishOptions::new(qos).retain(retain);
        let confirmed = async {
            loop {
                let notice = self.client.publish_tracked(topic, payload.clone(), options).await.unwrap();
                // After a restart of the broker the client gives unconfirmed messages back.
                if notice.wait_async().await.is_ok() {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, confirmed).await.expect("the broker confirms");
    }

    /// Publishes with QoS 0 as fast as the client takes it.
    pub(crate) async fn pour(&self, topic: &str, payload: &str) {
        self.client.publish(topic, payload.to_owned(), mqtt::PublishOptions::at_most_once()).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> (String, String) {
        let (topic, payload) =
            tokio::time::timeout(PATIENCE, self.messages.recv()).await.expect("a message comes").unwrap();
        (topic, String::from_utf8(payload.into()).unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
