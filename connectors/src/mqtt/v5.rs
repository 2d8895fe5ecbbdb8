//! MQTT 5.0.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rumqttc_v5 as mqtt;
use rumqttc_v5::mqttbytes::v5::{
    LastWillProperties, PubAck, PubAckReason, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc_v5::{
    ClientError, ConnectionError, Incoming as Packet, PublishNoticeError, PublishResult, StateError,
};

use super::client::{
    Answer, CONNECT_TIMEOUT, Event, Expiry, Failure, Filter, Incoming, NO_PING, Outgoing, Plan, Refused,
    Welcome, dial, refused, socket_failed, too_large, unconfirmed, unsent,
};
use super::config::{LastWillConfig, Qos};
use crate::DeliveryError;
use crate::remote::Reply;

pub(super) type Notice = mqtt::PublishNotice;

pub(super) struct EventLoop {
    inner: mqtt::EventLoop,
    last_will: Option<LastWillConfig>,
}

pub(super) struct Requests(mqtt::AsyncClient);

type Checkpoint<'a, T> = BoxFuture<'a, Result<T, mqtt::SessionStoreError>>;

/// Tells the client that it has a session with nothing in flight. That is so: what this process published and
/// did not see confirmed was given back to whoever published it. Without a stored session the client would
/// refuse the broker's `session present`.
#[derive(Debug)]
struct NothingInFlight {
    in_flight: u16,
    expiry_s: u32,
}

impl mqtt::SessionStore for NothingInFlight {
    fn load<'a>(&'a self, key: &'a mqtt::SessionStoreKey) -> Checkpoint<'a, Option<mqtt::PersistedSession>> {
        Box::pin(std::future::ready(Ok(Some(mqtt::PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: Some(self.expiry_s),
            outgoing_inflight_upper_limit: Some(self.in_flight),
            ack_mode: mqtt::PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        }))))
    }

    fn save<'a>(&'a self, _: &'a mqtt::SessionStoreKey, _: &'a mqtt::PersistedSession) -> Checkpoint<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn clear<'a>(&'a self, _: &'a mqtt::SessionStoreKey) -> Checkpoint<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

pub(super) fn connect(plan: &Plan) -> (Requests, EventLoop) {
    let mut options = mqtt::MqttOptions::new(plan.client_id.clone(), (plan.host.clone(), plan.port));
    options
        .set_keep_alive(plan.keep_alive_s)
        .set_max_packet_size(Some(plan.max_packet))
        .set_receive_maximum(Some(plan.in_flight))
        .set_outgoing_inflight_upper_limit(plan.in_flight)
        .set_clean_start(!plan.persistent)
        .set_ack_mode(mqtt::AckMode::Manual)
        .set_connect_timeout(CONNECT_TIMEOUT)
        .set_max_request_batch(usize::from(plan.in_flight));
    if plan.persistent {
        options.set_session_expiry_interval(Some(plan.session_expiry_s));
        options.set_session_store_arc(Arc::new(NothingInFlight {
            in_flight: plan.in_flight,
            expiry_s: plan.session_expiry_s,
        }));
    }
    match (&plan.username, &plan.password) {
        (Some(username), Some(password)) => {
            options.set_credentials(username.clone(), password.reveal().to_owned());
        }
        (Some(username), None) => {
            options.set_username(username.clone());
        }
        (None, Some(password)) => {
            options.set_password(password.reveal().to_owned());
        }
        (None, None) => {}
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
            (plan.will_delay_s > 0).then(|| delayed_by(plan.will_delay_s)),
        ));
    }
    let patience = plan.patience();
    options.set_socket_connector(move |host, _| dial(host, patience));
    let mut network = mqtt::NetworkOptions::new();
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    options.set_network_options(network);
    let (client, inner) = mqtt::AsyncClient::builder(options).capacity(usize::from(plan.in_flight)).build();
    (Requests(client), EventLoop { inner, last_will: plan.last_will.clone() })
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
                    reply: publish.properties.and_then(reply),
                }))
            }
            Ok(mqtt::Event::Incoming(Packet::ConnAck(connack))) => {
                // With a store, the client would take a checkpoint of all that is in flight for every packet.
                self.inner.options.clear_session_store();
                Ok(Event::Connected(welcome(&connack)))
            }
            Ok(mqtt::Event::Incoming(Packet::SubAck(suback))) => {
                let text = suback.properties.and_then(|properties| properties.reason_string);
                let text = text.map(|text| format!(" ({text})")).unwrap_or_default();
                let answer = |code: &SubscribeReasonCode| match code {
                    SubscribeReasonCode::Success(qos) => granted(*qos),
                    other => Answer::Refused(format!("{other:?}{text}")),
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
            ConnectionError::ConnectionRefused(code) => {
                refused(&format!("{code:?}"), self.last_will.as_ref())
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => return Failure::Closed,
            ConnectionError::Timeout(_) => return Failure::Silent,
            ConnectionError::MqttState(StateError::AwaitPingResp) => NO_PING.into(),
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
                let text = reason_string.map(|text| format!(" ({text})")).unwrap_or_default();
                return Failure::Ended(format!("the broker ended the connection: {reason_code:?}{text}"));
            }
            ConnectionError::MqttState(StateError::Deserialization(Bytes::PayloadSizeLimitExceeded {
                pkt_size,
                max,
            })) => too_large(pkt_size, max),
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

/// MQTT 5.0, section 3.1.3.2.2, Will Delay Interval.
fn delayed_by(seconds: u32) -> LastWillProperties {
    LastWillProperties {
        delay_interval: Some(seconds),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    }
}

/// MQTT 5.0, section 4.10.
fn reply(properties: PublishProperties) -> Option<Box<Reply>> {
    let PublishProperties { response_topic, correlation_data: correlation, .. } = properties;
    response_topic.map(|topic| Box::new(Reply { topic, correlation }))
}

/// MQTT 5.0, section 3.2.2.3: what is absent is as the client asked, or without a limit.
fn welcome(connack: &mqtt::mqttbytes::v5::ConnAck) -> Welcome {
    let properties = connack.properties.as_ref();
    Welcome {
        present: connack.session_present,
        max_packet: properties.and_then(|properties| properties.max_packet_size),
        max_qos: match properties.and_then(|properties| properties.max_qos) {
            Some(0) => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        },
        session_expiry_s: properties.and_then(|properties| properties.session_expiry_interval),
    }
}

impl Requests {
    pub(super) fn subscribe(&self, filters: &[Filter]) -> Result<(), String> {
        let filters = filters.iter().map(|wanted| {
            let mut filter = mqtt::SubscribeFilter::new(wanted.topic.clone(), qos(wanted.qos));
            // What is known already is left out here: it may have changed while the line was down.
            filter.retain_forward_rule =
                if wanted.retained { RetainForwardRule::OnEverySubscribe } else { RetainForwardRule::Never };
            filter
        });
        self.0.try_subscribe_many(filters).map_err(|error| error.to_string())
    }

    pub(super) fn unsubscribe(&self, filter: &str) -> Result<(), String> {
        self.0.try_unsubscribe(filter).map_err(|error| error.to_string())
    }

    pub(super) fn publish(&self, message: Outgoing) -> Result<Notice, Refused> {
        let mut options = mqtt::PublishOptions::new(qos(message.qos)).retain(message.retain);
        if message.expiry.is_some() || message.correlation.is_some() {
            options = options.properties(PublishProperties {
                message_expiry_interval: message.expiry.map(|Expiry(seconds)| seconds),
                correlation_data: message.correlation.clone(),
                ..PublishProperties::default()
            });
        }
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
        self.0.try_manual_ack(mqtt::ManualAck::PubAck(PubAck::new(packet_id, None))).is_ok()
    }

    pub(super) fn disconnect(&self, deadline: Duration) {
        // A full queue means that the connection is not worth a goodbye.
        let _ = self.0.try_disconnect_with_timeout(deadline);
    }
}

pub(super) async fn wait(notice: Notice) -> Result<(), DeliveryError> {
    match notice.wait_async().await {
        Ok(PublishResult::Qos1(ack)) => judge(ack.reason),
        Ok(_) => Ok(()),
        Err(PublishNoticeError::Recv | PublishNoticeError::SessionReset) => Err(unconfirmed()),
        Err(PublishNoticeError::Qos0NotFlushed) => Err(unsent()),
        Err(PublishNoticeError::V5PubAck(reason)) => judge(reason),
        Err(PublishNoticeError::RetainNotSupported) => {
            Err(DeliveryError::Permanent("the broker does not keep messages: set retain = false".into()))
        }
        Err(error) => Err(DeliveryError::Transient(error.to_string())),
    }
}

/// MQTT 5.0, section 3.4.2.1.
fn judge(reason: PubAckReason) -> Result<(), DeliveryError> {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
        PubAckReason::QuotaExceeded | PubAckReason::PacketIdentifierInUse => Err(DeliveryError::Transient(
            format!("the broker cannot take the message now: {reason:?} (0x{:02X})", reason as u8),
        )),
        _ => Err(DeliveryError::Permanent(format!(
            "the broker refused the message: {reason:?} (0x{:02X})",
            reason as u8
        ))),
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
