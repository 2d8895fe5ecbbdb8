//! The far side is an MQTT broker: a message a row, with QoS 1.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::{BoxFuture, FutureExt};
use tidegate_connectors::DeliveryError;
use tidegate_connectors::mqtt::Publisher;
use tidegate_connectors::mqtt::config::Qos;
use tokio::sync::watch;

use super::{Confirmation, Parcel, Uplink};
use crate::status::UplinkStatus;

/// An uplink by a session with a broker.
pub struct MqttUplink {
    publisher: Publisher,
    generation: watch::Receiver<Option<u64>>,
    /// may still hold `{rule}`
    topic: String,
    /// of the rule whose row was sent last
    rule_topic: Option<(Arc<str>, String)>,
}

impl MqttUplink {
    /// Publishes by `publisher` to `topic`, which may hold `{box}` and `{rule}`. Its sessions are followed by
    /// a task that ends with the connection.
    pub fn new(
        publisher: Publisher,
        topic: &str,
        box_name: &str,
        status: Arc<UplinkStatus>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let mut session = publisher.session();
        let (tell, generation) = watch::channel(None);
        let follow = async move {
            loop {
                let now = session.borrow_and_update().map(|session| session.generation);
                status.connected.store(now.is_some(), Ordering::Relaxed);
                if tell.send(now).is_err() || session.changed().await.is_err() {
                    return;
                }
            }
        };
        (Self { publisher, generation, topic: topic.replace("{box}", box_name), rule_topic: None }, follow)
    }

    fn topic_of(&mut self, rule: &Arc<str>) -> String {
        match &self.rule_topic {
            Some((known, topic)) if known == rule => topic.clone(),
            _ => {
                // No topic may have a `*` of its own meaning, but a name is easier to subscribe to.
                let topic = self.topic.replace("{rule}", if &**rule == "*" { "unknown" } else { rule });
                self.rule_topic = Some((Arc::clone(rule), topic.clone()));
                topic
            }
        }
    }
}

impl Uplink for MqttUplink {
    fn batch(&self) -> usize {
        1
    }

    fn send(&mut self, parcel: Parcel) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        Box::pin(async move {
            let topic = self.topic_of(&parcel.rule);
            let mut confirmations = Vec::with_capacity(parcel.messages.len());
            for message in parcel.messages {
                confirmations.push(self.publisher.publish(&topic, message, Qos::AtLeastOnce, false).await?);
            }
            Ok(futures::future::try_join_all(confirmations).map(|all| all.map(drop)).boxed())
        })
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        self.generation.clone()
    }

    fn hang_ups(&self) -> u64 {
        self.publisher.hang_ups()
    }
}
