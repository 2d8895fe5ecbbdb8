//! What management asks of a connection: messages under topics, both ways. Nothing of it is a row, and none of
//! it shares a queue with rows: a box whose data plane is full can be reached.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tidegate_core::Ack;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::DeliveryError;
use crate::connection::{ConnectionConfig, OpenError};
use crate::mqtt;
use crate::status::LineStatus;
use crate::uplink::Confirmation;

/// What a remote is opened with.
pub struct Request<'a> {
    /// The connection's name in the configuration.
    pub name: &'a str,
    /// The box's name.
    pub box_name: &'a str,
    /// The topics that are listened to, with `+` and `#`.
    pub filters: Vec<String>,
    /// What the far side says when the box is gone without a word.
    pub will: Will,
    /// Where the line counts.
    pub status: Arc<LineStatus>,
    /// Ends the session.
    pub stop: CancellationToken,
}

/// What is said of a box that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// where
    pub topic: String,
    /// what; it is kept for those who ask later
    pub payload: String,
    /// how long the box may be away before it is said, where the far side can wait
    pub delay: Duration,
}

/// A way to the box that is ready to run.
pub struct Remote {
    /// What comes in. What is not taken out of it holds the line back.
    pub news: mpsc::Receiver<News>,
    /// Says something.
    pub post: Arc<dyn Post>,
    /// Has to run for that. It ends when [`Request::stop`] is cancelled; what is not acknowledged by then comes
    /// again.
    pub task: BoxFuture<'static, ()>,
}

/// What comes in.
#[derive(Debug)]
pub enum News {
    /// The line is up and all topics are listened to. What the far side has kept under them comes next, if it
    /// has not come already.
    Listens,
    /// Somebody has said something.
    Message(Message),
    /// The line is down.
    Lost,
}

/// What somebody has said.
#[derive(Debug)]
pub struct Message {
    /// where
    pub topic: String,
    /// what, or how many bytes it has when these are more than [`LARGEST`]
    pub payload: Result<Bytes, usize>,
    /// whether the far side had kept it
    pub kept: bool,
    /// where an answer is wanted
    pub reply: Option<Reply>,
    /// The message comes again until the last clone of this is gone.
    pub ack: Ack,
}

/// Where an answer is wanted (MQTT 5.0, section 4.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// the topic
    pub topic: String,
    /// comes back with the answer
    pub correlation: Option<Bytes>,
}

/// Which connections carry messages, as users write it.
pub const KIND: &str = "kind = \"mqtt\"";

/// The largest payload that is handed on, bytes. Nothing that is larger means anything to a box, so that it is
/// not looked at.
pub const LARGEST: usize = 64 << 10;

/// Something to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// where
    pub topic: String,
    /// what; nothing takes away what is kept there
    pub payload: Bytes,
    /// whether the far side keeps it for those who ask later
    pub keep: bool,
    /// Whether it has to arrive. Otherwise it is gone when nobody takes it at once.
    pub confirmed: bool,
    /// after how long it is of no use to anybody, where the far side can tell
    pub expiry: Option<Duration>,
    /// [`Reply::correlation`]
    pub correlation: Option<Bytes>,
}

/// Says what is to be said.
pub trait Post: Send + Sync {
    /// Hands `publication` to the line; the result resolves when it has arrived. Nothing is kept to be said
    /// later: while the line is down this is an error.
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Confirmation, DeliveryError>>;
}

impl ConnectionConfig {
    /// Prepares a way to the box by this connection, with a session of its own; does no network I/O, but reads
    /// secrets and other files.
    ///
    /// # Errors
    /// When it is of a kind that carries no messages, or a file cannot be read. That nobody is there is no
    /// error.
    pub fn open_remote(&self, request: Request<'_>) -> Result<Remote, OpenError> {
        match self {
            Self::Mqtt(config) => mqtt::open_remote(config, request),
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => Err(OpenError::setting(
                &["kind"],
                format!("the box cannot be managed by this connection: management needs one with {KIND}"),
            )),
        }
    }
}
