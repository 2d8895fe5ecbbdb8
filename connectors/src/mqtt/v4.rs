//! MQTT 3.1.1.

use std::time::Duration;

use rumqttc_v4 as mqtt;
use rumqttc_v4::mqttbytes::v4::{PubAck, SubscribeReasonCode};
use rumqttc_v4::{ClientError, ConnectionError, Incoming as Packet, PublishNoticeError, StateError};

use super::client::{
    Answer, CONNECT_TIMEOUT, Event, Failure, Filter, Incoming, LARGEST_V4_PACKET, NO_PING, Outgoing, Plan,
    Refused, Welcome, dial, refused, socket_failed, too_large, unconfirmed, unsent,
};
use super::config::Qos;
use crate::DeliveryError;

pub(super) type Notice = mqtt::PublishNotice;

pub(super) struct EventLoop {
    inner: mqtt::EventLoop,
    max_packet: u32,
}

pub(super) struct Requests(mqtt::AsyncClient);

pub(super) fn connect(plan: &Plan) -> (Requests, EventLoop) {
    let mut options = mqtt::MqttOptions::new(plan.client_id.clone(), (plan.host.clone(), plan.port));
    let largest_in = LARGEST_V4_PACKET.max(plan.max_packet as usize);
    options
        .set_keep_alive(plan.keep_alive_s)
        // Outgoing packets are measured before they get here.
        .set_max_packet_size(largest_in, usize::MAX)
        .set_clean_session(!plan.persistent)
        .set_inflight(plan.in_flight)
        .set_ack_mode(mqtt::AckMode::Manual)
        .set_max_request_batch(usize::from(plan.in_flight));
    if let Some(username) = &plan.username {
        let password = plan.password.as_ref().map(|password| password.reveal().to_owned());
        match password {
            Some(password) => options.set_credentials(username.clone(), password),
            None => options.set_username(username.clone()),
        };
    }
    if let Some(tls) = &plan.tls {
        options.set_transport(mqtt::Transport::tls_with_config(mqtt::TlsConfiguration::Rustls(tls.clone())));
    }
    if let Some(will) = &plan.last_will {
        options.set_last_will(mqtt::LastWill::new(
            will.topic.clone(),
            will.payload.clone(),
            qos(will.qos),
            will.retain,
        ));
    }
    let patience = plan.patience();
    options.set_socket_connector(move |host, _| dial(host, patience));
    let mut network = mqtt::NetworkOptions::new();
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    let (client, mut inner) =
        mqtt::AsyncClient::builder(options).capacity(usize::from(plan.in_flight)).build();
    inner.set_network_options(network);
    (Requests(client), EventLoop { inner, max_packet: plan.max_packet })
}

impl EventLoop {
    pub(super) async fn poll(&mut self) -> Result<Event, Failure> {
        match self.inner.poll().await {
            Ok(mqtt::Event::Incoming(Packet::Publish(publish))) => {
                let packet_id = (publish.qos == mqtt::QoS::AtLeastOnce).then_some(publish.pkid);
                let (dup, retained, size) = (publish.dup, publish.retain, publish.size());
                Ok(Event::Message(Incoming {
                    topic: publish.topic,
                    payload: publish.payload,
                    packet_id,
                    dup,
                    retained,
                    size,
                    reply: None,
                }))
            }
            Ok(mqtt::Event::Incoming(Packet::ConnAck(connack))) => {
                Ok(Event::Connected(Welcome { present: connack.session_present, ..Welcome::default() }))
            }
            Ok(mqtt::Event::Incoming(Packet::SubAck(suback))) => {
                let answer = |code: &SubscribeReasonCode| match code {
                    SubscribeReasonCode::Success(qos) => granted(*qos),
                    SubscribeReasonCode::Failure => Answer::Refused(
                        "MQTT 3.1.1 gives no reason; look into the broker's access rules".into(),
                    ),
                };
                Ok(Event::Subscribed(suback.return_codes.iter().map(answer).collect()))
            }
            Ok(mqtt::Event::Incoming(Packet::UnsubAck(_))) => Ok(Event::Answered),
            Ok(mqtt::Event::Incoming(_)) => Ok(Event::Heard),
            Ok(_) => Ok(Event::Other),
            Err(error) => Err(self.explain(error)),
        }
    }

    fn explain(&self, error: ConnectionError) -> Failure {
        use mqtt::mqttbytes::Error as Bytes;
        Failure::Other(match error {
            ConnectionError::ConnectionRefused(code) => refused(&format!("{code:?}"), None),
            ConnectionError::MqttState(StateError::ConnectionAborted) => return Failure::Closed,
            ConnectionError::NetworkTimeout => return Failure::Silent,
            ConnectionError::MqttState(StateError::AwaitPingResp) => NO_PING.into(),
            ConnectionError::MqttState(StateError::Deserialization(Bytes::PayloadSizeLimitExceeded(
                size,
            ))) => too_large(size, self.max_packet),
            ConnectionError::MqttState(StateError::Deserialization(Bytes::Io(error)))
            | ConnectionError::Io(error) => {
                return socket_failed(&error);
            }
            ConnectionError::MqttState(StateError::Deserialization(error)) => {
                return Failure::Unreadable(error.to_string());
            }
            ConnectionError::Tls(error) => format!("TLS: {error}"),
            other => other.to_string(),
        })
    }
}

impl Requests {
    pub(super) fn subscribe(&self, filters: &[Filter]) -> Result<(), String> {
        let filters =
            filters.iter().map(|filter| mqtt::SubscribeFilter::new(filter.topic.clone(), qos(filter.qos)));
        self.0.try_subscribe_many(filters).map_err(|error| error.to_string())
    }

    pub(super) fn unsubscribe(&self, filter: &str) -> Result<(), String> {
        self.0.try_unsubscribe(filter).map_err(|error| error.to_string())
    }

    pub(super) fn publish(&self, message: Outgoing) -> Result<Notice, Refused> {
        let options = mqtt::PublishOptions::new(qos(message.qos)).retain(message.retain);
        match self.0.try_publish_tracked(message.topic.as_str(), message.payload.clone(), options) {
            Ok(notice) => Ok(notice),
            Err(ClientError::RequestChannelFull(_)) => Err(Refused::Full(message)),
            Err(ClientError::InvalidRequest(_)) => Err(Refused::Error(DeliveryError::Permanent(format!(
                "\"{}\" is not a topic that can be published to",
                message.topic
            )))),
            Err(_) => Err(Refused::Error(unsent())),
        }
    }

    pub(super) fn ack(&self, packet_id: u16) -> bool {
        self.0.try_manual_ack(mqtt::ManualAck::PubAck(PubAck::new(packet_id))).is_ok()
    }

    pub(super) fn disconnect(&self, deadline: Duration) {
        // A full queue means that the connection is not worth a goodbye.
        let _ = self.0.try_disconnect_with_timeout(deadline);
    }
}

pub(super) async fn wait(notice: Notice) -> Result<(), DeliveryError> {
    match notice.wait_async().await {
        Ok(_) => Ok(()),
        Err(PublishNoticeError::Recv | PublishNoticeError::SessionReset) => Err(unconfirmed()),
        Err(PublishNoticeError::Qos0NotFlushed) => Err(unsent()),
        Err(error) => Err(DeliveryError::Transient(error.to_string())),
    }
}

const fn granted(qos: mqtt::QoS) -> Answer {
    match qos {
        mqtt::QoS::AtMostOnce => Answer::Granted(Qos::AtMostOnce),
        // A broker grants no more than it was asked for.
        _ => Answer::Granted(Qos::AtLeastOnce),
    }
}

const fn qos(qos: Qos) -> mqtt::QoS {
    match qos {
        Qos::AtMostOnce => mqtt::QoS::AtMostOnce,
        Qos::AtLeastOnce => mqtt::QoS::AtLeastOnce,
    }
}
