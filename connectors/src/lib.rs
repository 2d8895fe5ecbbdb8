//! Tidegate's lines to the outside: one module a protocol, each with its configuration, a pure codec, a
//! source and sinks.
//!
//! A connection owns its line. [`Source::run`] drives it for as long as the box runs and never gives up on
//! its own: every I/O error means that the line is gone, is said once, and is answered by backing off and
//! opening again. [`Sink::deliver`] writes to it.
//!
//! A new protocol is a new module here and one arm in each `match` on [`ConnectionConfig`].

pub mod backoff;
pub mod http;
pub mod json;
pub mod modbus;
pub mod mqtt;
pub mod secret;
pub mod status;
pub mod tls;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::Batch;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The kinds of connection that the configuration can name.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ConnectionConfig {
    /// A session with an MQTT broker, 3.1.1 or 5.
    Mqtt(mqtt::ConnectionConfig),
}

/// The sequencer's end of a connection.
#[derive(Debug, Clone)]
pub struct Inlet {
    /// Where the connection puts what it read: the sequencer's queue. Sending waits when the queue is full,
    /// which holds the line back.
    pub queue: mpsc::Sender<Intake>,
    /// what [`Intake::Line`] calls the connection
    pub line: usize,
    /// When the connection was last asked whether it listens, in the sequence's time; see
    /// [`LineNews::Heard`].
    pub asked: watch::Receiver<i64>,
}

impl Inlet {
    /// For a connection that has nothing to read.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { queue: mpsc::channel(1).0, line: 0, asked: watch::channel(i64::MIN).1 }
    }

    /// What is new of the connection, as the queue takes it.
    #[must_use]
    pub fn news(&self, news: LineNews) -> Intake {
        Intake::Line { line: self.line, news }
    }
}

/// What comes from connections.
#[derive(Debug)]
pub enum Intake {
    /// Rows.
    Rows(Batch),
    /// Whether what does not come is silence.
    Line {
        /// the connection: [`Inlet::line`]
        line: usize,
        /// what is new of it
        news: LineNews,
    },
}

/// Whether a connection listens to its streams. It is told behind the rows that were read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineNews {
    /// The line is up, and what the far side had kept is read: from now on it is silence when nothing comes.
    /// Told again when that was in doubt.
    Begins,
    /// The line was alive when it was asked at this time of the sequence, and all that had come by then is
    /// read.
    Heard {
        /// see [`Inlet::asked`]
        asked: i64,
    },
    /// The line is down.
    Ends {
        /// when it was last heard: the news may wait for long before the engine takes it
        heard: Instant,
    },
}

/// Keeps on disk what a stream has to remember through a restart, in place of what it kept before.
pub type Keep = Arc<dyn Fn(&str, Vec<u8>) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync>;

/// The reading side of a connection, and the only place that does I/O on it.
pub trait Source: Send {
    /// Drives the line until `shutdown` is cancelled: reads into `inlet`, carries out what the sinks ask for,
    /// reconnects. On shutdown it stops reading at once, but keeps acknowledging and publishing until every
    /// sink and every [`tidegate_core::Ack`] is gone.
    fn run(self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()>;
}

/// The writing side of one output.
pub trait Sink: Send {
    /// Writes every row, in order, and returns when the far side has confirmed all of them (as far as the
    /// protocol confirms). A row that fails does not stop the others.
    fn deliver<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Delivery>;
}

/// What became of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// rows that the far side has confirmed
    pub written: usize,
    /// the rows that failed, by their place in the call, and why
    pub failures: Vec<(usize, DeliveryError)>,
}

impl Delivery {
    /// Counts the next row.
    pub fn count(&mut self, outcome: Result<(), DeliveryError>) {
        match outcome {
            Ok(()) => self.written += 1,
            Err(error) => self.failures.push((self.written + self.failures.len(), error)),
        }
    }
}

/// Why rows did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The line is down or the far side is busy: the same rows may go through later.
    #[error("{0}")]
    Transient(String),
    /// The same rows will never go through: they do not fit, or the far side refused them.
    #[error("{0}")]
    Permanent(String),
}

/// A place in a payload: names separated by dots (`"sensors.temperature"`); a number selects an array's
/// element. Where an array's elements become rows, a path starts at the element, and at the payload itself
/// when it begins with `^.` (`"^.device"`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path {
    names: Vec<String>,
    from_root: bool,
}

impl Path {
    /// The place of one key, whatever characters it has in it.
    #[must_use]
    pub fn of_key(name: &str) -> Self {
        Self { names: vec![name.to_owned()], from_root: false }
    }

    /// The names from the outside in, without the `^`; never empty.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the path begins with `^`: it starts at the payload, not at the row.
    #[must_use]
    pub fn is_from_root(&self) -> bool {
        self.from_root
    }
}

impl std::str::FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from_root, names) = match text.strip_prefix("^.") {
            Some(names) => (true, names),
            None => (false, text),
        };
        // Either would be a name that no payload has, and every value null.
        if let Some(rest) = names.strip_prefix('^').filter(|rest| !rest.is_empty()) {
            return Err(format!("\"{text}\" is not a path: write \"^.{rest}\" for what is outside the rows"));
        }
        if let Some(rest) = names.strip_prefix("$.").or_else(|| names.strip_prefix("$[")) {
            let rest = rest.replace(']', "").replace('[', ".");
            return Err(format!("\"{text}\" is not a path: write it without `$` and brackets, \"{rest}\""));
        }
        if names.split('.').any(|name| name.is_empty() || name == "^") {
            return Err(format!(
                "\"{text}\" is not a path: write names separated by single dots, such \
                as \"sensors.temperature\"; \"^.\" in front starts at the payload instead of the row"
            ));
        }
        Ok(Self { names: names.split('.').map(str::to_owned).collect(), from_root })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.from_root { "^." } else { "" }, self.names.join("."))
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Path {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "names separated by dots, such as \"sensors.temperature\"; where `rows` is \
                set, \"^.\" in front starts outside of them"
        })
    }
}
