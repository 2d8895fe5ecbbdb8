//! What the rest of this module needs of an MQTT client, the same for both versions of the protocol.
//!
//! A client lives for one connection. After an error it is dropped and a new one is made, so that nothing
//! waits in it to be sent later: what was not confirmed is its sender's business, who was told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::config::{LastWillConfig, Qos, Version};
use super::{v4, v5};
use crate::DeliveryError;
use crate::line::tcp;
use crate::remote::Reply;
use crate::secret::Secret;

/// The largest packet that MQTT can express is 256 MiB. A 3.1.1 broker cannot be told a limit, so that a
/// packet above the configured one is read, refused and acknowledged; only above this is the connection
/// closed.
pub(super) const LARGEST_V4_PACKET: usize = 64 << 20;

/// How long a client may try to connect. The handshakes of TCP and MQTT are some 500 bytes: at 300 bit/s, the
/// slowest line that there is, they take half as long.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a host may take to answer: what is left of [`CONNECT_TIMEOUT`] is the broker's, so that it is
/// known who was silent.
const HOST_TIMEOUT: Duration = Duration::from_secs(CONNECT_TIMEOUT.as_secs() * 2 / 3);

/// Opens the socket to a broker at `host:port`, which is given up when it acknowledges nothing for `patience`.
///
/// Pings do not find every line that went silent: a line that is written to needs none, and what cannot be
/// written stops the client before its next ping. Then only TCP can tell.
pub(super) async fn dial(host: String, patience: Duration) -> io::Result<TcpStream> {
    tcp::dial(&*host, HOST_TIMEOUT, patience).await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => io::Error::new(io::ErrorKind::HostUnreachable, tcp::silent(&host)),
        _ => error,
    })
}

/// What a connection is made with.
pub(super) struct Plan {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) keep_alive_s: u16,
    /// whether the broker keeps the session while the box is away
    pub(super) persistent: bool,
    pub(super) session_expiry_s: u32,
    pub(super) max_packet: u32,
    pub(super) in_flight: u16,
    pub(super) last_will: Option<LastWillConfig>,
    /// how long the broker waits with the last will; 3.1.1 knows nothing of that
    pub(super) will_delay_s: u32,
}

impl Plan {
    /// The longest silence of the broker before it is asked for an answer.
    pub(super) fn keep_alive(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_alive_s))
    }

    /// How long a broker may leave unanswered what was sent to it: it is as long until a ping is missed.
    pub(super) fn patience(&self) -> Duration {
        2 * self.keep_alive()
    }
}

/// A message that came in.
pub(super) struct Incoming {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    /// packet id of a QoS 1 message, which has to be acknowledged
    pub(super) packet_id: Option<u16>,
    /// whether the broker says that it may have come before (the DUP flag)
    pub(super) dup: bool,
    /// whether the broker had kept it, and sends it because of a new subscription (the RETAIN flag)
    pub(super) retained: bool,
    /// bytes on the wire
    pub(super) size: usize,
    /// where an answer is wanted; 3.1.1 knows nothing of that
    pub(super) reply: Option<Box<Reply>>,
}

/// What is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) topic: String,
    pub(super) qos: Qos,
    /// whether the broker shall send what it has retained; a 3.1.1 broker always does
    pub(super) retained: bool,
}

/// The broker's answer to one filter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Granted(Qos),
    /// in words for the user
    Refused(String),
}

/// What the broker says when it accepts a connection.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    /// whether it still had the session
    pub(super) present: bool,
    /// the largest packet that it takes
    pub(super) max_packet: Option<u32>,
    /// the highest QoS that it takes
    pub(super) max_qos: Qos,
    /// how long it keeps the session, if not as long as was asked for
    pub(super) session_expiry_s: Option<u32>,
}

/// What happened on the connection.
pub(super) enum Event {
    /// The broker accepted the connection.
    Connected(Welcome),
    Message(Incoming),
    /// The broker's answer for each filter, in order.
    Subscribed(Vec<Answer>),
    /// The broker has answered [`Requests::ask`].
    Answered,
    /// The broker said something that concerns only the client.
    Heard,
    /// The client said something.
    Other,
}

/// Why a connection ended, or was not made.
pub(super) enum Failure {
    /// The broker closed it without a reason.
    Closed,
    /// The broker closed it; why, in words for the user.
    Ended(String),
    /// The broker did not answer CONNECT.
    Silent,
    /// The broker sent what this version of the protocol does not know.
    Unreadable(String),
    /// in words for the user
    Other(String),
}

impl Failure {
    /// In words for the user; `answered`: whether the broker had accepted the connection.
    fn explain(self, version: Version, answered: bool) -> String {
        let other_version = match version {
            Version::V5 => "if it knows only MQTT 3.1.1, set version = \"3.1.1\"",
            Version::V3_1_1 => "if it knows only MQTT 5, set version = \"5\"",
        };
        match self {
            Self::Closed if answered => CLOSED.into(),
            Self::Closed => {
                format!(
                    "{CLOSED} instead of answering CONNECT; {other_version}; some do so for a wrong \
                    username, password or client_id"
                )
            }
            Self::Silent => format!(
                "the broker did not answer CONNECT within {} s; {other_version}",
                CONNECT_TIMEOUT.as_secs()
            ),
            Self::Unreadable(error) if answered => format!("the broker sent what cannot be read: {error}"),
            Self::Unreadable(error) => {
                format!("the broker's answer to CONNECT cannot be read ({error}); {other_version}")
            }
            Self::Ended(reason) | Self::Other(reason) => reason,
        }
    }
}

/// A message to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) expiry: Option<Expiry>,
    /// MQTT 5.0, section 3.3.2.3.6, Correlation Data
    pub(super) correlation: Option<Bytes>,
}

/// After how many seconds the broker drops a message that it has not handed on, and one that it has retained
/// (MQTT 5.0, section 3.3.2.3.3, Message Expiry Interval).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry(pub(super) u32);

impl From<Duration> for Expiry {
    /// Parts of a second are rounded up: nothing is dropped before its time.
    fn from(time: Duration) -> Self {
        Self(u32::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1))
    }
}

impl Outgoing {
    /// Bytes on the wire (MQTT 3.1.1 section 3.3, 5.0 section 3.3).
    pub(super) fn size(&self, version: Version) -> usize {
        let packet_id = if self.qos == Qos::AtLeastOnce { 2 } else { 0 };
        let properties = match version {
            Version::V3_1_1 => 0,
            Version::V5 => {
                let correlation = self.correlation.as_ref().map_or(0, |data| 3 + data.len());
                let all = correlation + if self.expiry.is_some() { 5 } else { 0 };
                length_bytes(all) + all
            }
        };
        let rest = 2 + self.topic.len() + packet_id + properties + self.payload.len();
        1 + length_bytes(rest) + rest
    }
}

/// How many bytes a length takes (MQTT 5.0, section 1.5.5).
const fn length_bytes(length: usize) -> usize {
    match length {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// The client's queue is full; the message is given back.
pub(super) enum Refused {
    Full(Outgoing),
    Error(DeliveryError),
}

/// The side that drives the connection.
pub(super) struct EventLoop {
    client: Client,
    version: Version,
    /// whether the broker has accepted the connection
    answered: bool,
    /// whether the broker has closed it after that
    hung_up: bool,
}

enum Client {
    V4(Box<v4::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// The side that asks it to send.
pub(super) enum Requests {
    V4(v4::Requests),
    V5(v5::Requests),
}

/// What becomes of a message that was handed to the client.
#[derive(Debug)]
pub(super) enum Notice {
    V4(v4::Notice),
    V5(v5::Notice),
}

pub(super) fn connect(plan: &Plan) -> (Requests, EventLoop) {
    let (requests, client) = match plan.version {
        Version::V3_1_1 => {
            let (requests, event_loop) = v4::connect(plan);
            (Requests::V4(requests), Client::V4(Box::new(event_loop)))
        }
        Version::V5 => {
            let (requests, event_loop) = v5::connect(plan);
            (Requests::V5(requests), Client::V5(Box::new(event_loop)))
        }
    };
    (requests, EventLoop { client, version: plan.version, answered: false, hung_up: false })
}

impl EventLoop {
    /// The next event; the first call connects. Not safe to cancel. After an error, in words for the user,
    /// the client is spent.
    pub(super) async fn poll(&mut self) -> Result<Event, String> {
        let event = match &mut self.client {
            Client::V4(event_loop) => event_loop.poll().await,
            Client::V5(event_loop) => event_loop.poll().await,
        };
        self.answered |= matches!(event, Ok(Event::Connected(_)));
        event.map_err(|failure| {
            self.hung_up = self.answered && matches!(failure, Failure::Closed | Failure::Ended(_));
            failure.explain(self.version, self.answered)
        })
    }

    /// Whether the broker has closed the connection after it had accepted it.
    pub(super) fn has_hung_up(&self) -> bool {
        self.hung_up
    }
}

impl Requests {
    pub(super) fn subscribe(&self, filters: &[Filter]) -> Result<(), String> {
        match self {
            Self::V4(requests) => requests.subscribe(filters),
            Self::V5(requests) => requests.subscribe(filters),
        }
    }

    pub(super) fn publish(&self, message: Outgoing) -> Result<Notice, Refused> {
        match self {
            Self::V4(requests) => requests.publish(message).map(Notice::V4),
            Self::V5(requests) => requests.publish(message).map(Notice::V5),
        }
    }

    /// Asks for an answer. The client sends no PINGREQ while it has other things to send, and offers no way
    /// to ask for one, so it is told to leave a subscription that nobody has: a broker answers that, too
    /// (MQTT 3.1.1, section 3.10.4), behind what it had to send before.
    pub(super) fn ask(&self) -> Result<(), String> {
        const NOBODY: &str = "tidegate/are-you-there";
        match self {
            Self::V4(requests) => requests.unsubscribe(NOBODY),
            Self::V5(requests) => requests.unsubscribe(NOBODY),
        }
    }

    /// Acknowledges a message. False: the client's queue is full; try again later.
    pub(super) fn ack(&self, packet_id: u16) -> bool {
        match self {
            Self::V4(requests) => requests.ack(packet_id),
            Self::V5(requests) => requests.ack(packet_id),
        }
    }

    /// Says goodbye after what is in flight was confirmed, so that the last will is not published.
    pub(super) fn disconnect(&self, deadline: Duration) {
        match self {
            Self::V4(requests) => requests.disconnect(deadline),
            Self::V5(requests) => requests.disconnect(deadline),
        }
    }
}

impl Notice {
    pub(super) async fn wait(self) -> Result<(), DeliveryError> {
        match self {
            Self::V4(notice) => v4::wait(notice).await,
            Self::V5(notice) => v5::wait(notice).await,
        }
    }
}

pub(super) fn unsent() -> DeliveryError {
    DeliveryError::Transient("the connection was lost before the message was sent".into())
}

pub(super) fn unconfirmed() -> DeliveryError {
    DeliveryError::Unknown("the connection was lost before the broker confirmed the message".into())
}

/// Words for a broker that is there and says nothing.
pub(super) const NO_PING: &str = "the broker did not answer within two keep_alive";

/// Words for a connection that a broker closed without a reason.
const CLOSED: &str = "the broker closed the connection";

/// What a socket that failed means.
pub(super) fn socket_failed(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind;
    match error.kind() {
        // See `dial`.
        ErrorKind::TimedOut => {
            Failure::Other("the broker did not acknowledge within two keep_alive what was sent to it".into())
        }
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Failure::Ended(error.to_string()),
        _ => Failure::Other(error.to_string()),
    }
}

/// How reasons begin that do not go away by themselves: wrong password, unknown client and the like.
pub(super) const REFUSED: &str = "the broker refused the connection";

/// What to do about a refusal that is called `code` in the standard.
pub(super) fn refused(code: &str, will: Option<&LastWillConfig>) -> String {
    let advice = match (code, will) {
        ("QoSNotSupported", Some(_)) => "set last_will.qos = 0",
        ("RetainNotSupported", Some(_)) => "set last_will.retain = false",
        ("TopicNameInvalid", Some(_)) => "check last_will.topic",
        ("PacketTooLarge" | "PayloadFormatInvalid", Some(_)) => "check last_will.payload",
        ("UnsupportedProtocolVersion", _) => "set version = \"3.1.1\"",
        ("RefusedProtocolVersion", _) => "set version = \"5\"",
        (
            "ServerUnavailable"
            | "ServerBusy"
            | "ServiceUnavailable"
            | "QuotaExceeded"
            | "ConnectionRateExceeded",
            _,
        ) => "ask who runs it",
        _ => "check username, password, certificates and client_id",
    };
    format!("{REFUSED}: {code}: {advice}")
}

pub(super) fn too_large(size: usize, max_packet: u32) -> String {
    format!(
        "a packet of {size} bytes is larger than max_packet = {max_packet} bytes: raise max_packet, or make \
        the sender send less"
    )
}
