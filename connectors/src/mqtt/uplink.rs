//! The far side is an MQTT broker: a message a row, with QoS 1.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::{BoxFuture, FutureExt};
use tidegate_core::Clock;
use tokio::sync::watch;

use super::Opened;
use super::config::{ConnectionConfig, Qos, UplinkConfig};
use super::publisher::Publisher;
use super::template::Template;
use crate::connection::OpenError;
use crate::status::{FarSideStatus, LineStatus};
use crate::uplink::{Confirmation, FarSide, Parcel, Request, Uplink};
use crate::{DeliveryError, Inlet, connection};

/// Prepares an uplink. It has a session of its own: a busy field must not hold it up.
pub(crate) fn open_uplink(config: &UplinkConfig, request: Request<'_>) -> Result<FarSide, OpenError> {
    let Request { name, box_name, connection, is_shared, clock, status, lines, stop } = request;
    let Some(mut settings) = connection.and_then(connection::ConnectionConfig::as_mqtt).cloned() else {
        return Err(OpenError::setting(&[], "there is no such connection"));
    };
    let topic = Template::parse_topic(&config.topic).map_err(|why| {
        OpenError::setting(&[], format!("uplink {name}: \"{}\" is not a topic: {why}", config.topic))
    })?;
    // Two sessions with one client id would throw each other out.
    if is_shared {
        settings.client_id = settings.client_id.map(|id| format!("{id}-{name}"));
        settings.last_will = None;
    }
    let of = &config.connection;
    let label = if is_shared { format!("{of} ({name})") } else { of.clone() };
    let suffix = if name == "uplink" { String::new() } else { format!("-{name}") };
    let opened = session(
        &settings,
        &label,
        box_name,
        format!("tidegate-{box_name}-uplink{suffix}"),
        clock,
        lines(&label),
    )?;
    let (uplink, follow) = Messages::new(opened.publisher, topic, box_name, status);
    // It has nothing to read; it ends when the forwarder lets go of it.
    let connection = opened.source.run(Inlet::nowhere(), stop);
    let tasks =
        vec![(format!("{name} session"), Box::pin(follow) as _), (format!("connection {label}"), connection)];
    Ok(FarSide { uplink: Box::new(uplink), tasks })
}

fn session(
    config: &ConnectionConfig,
    name: &str,
    box_name: &str,
    client_id: String,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
) -> Result<Opened, OpenError> {
    let (streams, outputs, keep) = (Vec::new(), Vec::new(), None);
    let request = connection::Request { name, box_name, streams, outputs, clock, status, keep };
    super::open(config, client_id, request)
}

/// An uplink by a session with a broker.
struct Messages {
    publisher: Publisher,
    generation: watch::Receiver<Option<u64>>,
    topic: Template,
    box_name: String,
    /// of the rule whose row was sent last
    rule_topic: Option<(Arc<str>, String)>,
}

impl Messages {
    /// Publishes by `publisher` to `topic`, which may hold `{box}` and `{rule}`. Its sessions are followed by
    /// a task that ends with the connection.
    fn new(
        publisher: Publisher,
        topic: Template,
        box_name: &str,
        status: Arc<FarSideStatus>,
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
        (Self { publisher, generation, topic, box_name: box_name.to_owned(), rule_topic: None }, follow)
    }

    fn topic_of(&mut self, rule: &Arc<str>) -> String {
        match &self.rule_topic {
            Some((known, topic)) if known == rule => topic.clone(),
            _ => {
                let topic = self.topic.filled(|name| match name {
                    "box" => &self.box_name,
                    // No topic may have a `*` of its own meaning, but a name is easier to subscribe to.
                    _ if &**rule == "*" => "unknown",
                    _ => rule,
                });
                self.rule_topic = Some((Arc::clone(rule), topic.clone()));
                topic
            }
        }
    }
}

impl Uplink for Messages {
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
