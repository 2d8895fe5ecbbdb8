//! Tidegate's lines to the outside: one module a protocol, each with its configuration, a pure codec, a
//! source and sinks.
//!
//! A connection owns its line. [`Source::run`] drives it for as long as the box runs and never gives up on
//! its own: every I/O error means that the line is gone, is said once, and is answered by backing off and
//! opening again. [`Sink::deliver`] writes to it.
//!
//! [`connection`], [`stream`], [`output`] and [`uplink`] are what the engine knows of all this: closed enums
//! that answer its questions, and `open`; [`remote`] is what its management does. A new protocol is a new module and one arm in each of their
//! `match`es. [`codec`] is for every connection that carries bytes: any of them takes any format.

pub mod can;
mod cells;
pub mod codec;
pub mod commission;
pub mod connection;
pub mod hex;
pub mod http;
pub mod line;
pub mod modbus;
pub mod mqtt;
pub mod output;
pub mod port;
pub mod quality;
pub mod remote;
pub mod rows;
mod scaling;
pub mod secret;
pub mod serial;
pub mod status;
pub mod stream;
pub mod table;
pub mod tls;
pub mod uplink;

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_core::Batch;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use connection::{ConnectionConfig, OpenError};
pub use output::OutputConfig;
pub use stream::StreamConfig;
pub use uplink::UplinkConfig;

/// The sequencer's end of a connection.
#[derive(Debug, Clone)]
pub struct Inlet {
    /// Where the connection puts what it read: the sequencer's queue. Sending waits when the queue is full,
    /// which holds the line back.
    pub queue: mpsc::Sender<Arrival>,
    /// what [`Arrival::Line`] calls the connection
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
    pub fn news(&self, news: LineNews) -> Arrival {
        Arrival::Line { line: self.line, news }
    }
}

/// What comes from connections.
#[derive(Debug)]
pub enum Arrival {
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
    /// How it wants to be handed what waits.
    fn takes(&self) -> Takes {
        Takes::All
    }

    /// Carries out every write, in order, and returns when the far side has confirmed all of them (as far as
    /// the protocol confirms). One that fails does not stop the others.
    fn deliver<'a>(&'a mut self, writes: Writes<'a>) -> BoxFuture<'a, Delivery>;

    /// Asks the device for these columns of the output as they are now: one row, in this order, with the
    /// types of [`OutputConfig::columns`]. It waits its turn on the line as a write does, and is not done when
    /// it is dropped before.
    ///
    /// # Errors
    /// `Permanent` where nothing can be read ([`OutputConfig::is_readable`]), and what the device refuses;
    /// otherwise `Transient`: all of it can be asked for again.
    fn read<'a>(&'a mut self, _columns: &'a [String]) -> BoxFuture<'a, Result<RecordBatch, DeliveryError>> {
        ready(Err(DeliveryError::Permanent(CANNOT_READ.into()))).boxed()
    }

    /// What is written from now on is of no use after so long: whoever keeps it for others may drop it then.
    fn expire_after(&mut self, _expiry: Duration) {}
}

/// Why nothing is read, and what helps.
pub(crate) const CANNOT_READ: &str = "this kind of connection cannot read what an output has: let \
    `read_back.from` name columns of streams that show what the device does";

/// How a sink wants to be handed writes that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// All of them together: each counts by itself.
    All,
    /// One at a time, since the line takes no more. Its columns are points that keep what was written to
    /// them: a write of whose points newer writes wait is not carried out.
    Newest,
}

/// Writes to an output: a row each, and what it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Writes<'a> {
    /// The rows.
    pub rows: &'a RecordBatch,
    /// One for each row.
    pub causes: &'a [Cause],
    /// The sequence's time, nanoseconds.
    pub now: i64,
}

impl Writes<'_> {
    /// How long ago a row was decided.
    #[must_use]
    pub fn age(&self, row: usize) -> Duration {
        let ns = self.causes.get(row).map_or(0, |cause| self.now.saturating_sub(cause.at));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
    }

    /// How long a row may still be carried out, if that is known.
    #[must_use]
    pub fn left(&self, row: usize) -> Option<Duration> {
        let until = self.causes.get(row)?.until?;
        Some(Duration::from_nanos(u64::try_from(until.saturating_sub(self.now)).unwrap_or(0)))
    }
}

/// What a write comes from. It keeps this to the device and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Who asked for it.
    pub by: By,
    /// The number of the row of the sequence that it stems from.
    pub seq: u64,
    /// Which of the rows of that number it is.
    pub ordinal: u32,
    /// When that was, in the sequence's time, nanoseconds.
    pub at: i64,
    /// After this time of the sequence it is not carried out any more; `None`: as the connection says.
    pub until: Option<i64>,
    /// The number of the write, if the output counts them.
    pub write: Option<u64>,
}

/// Who asked for a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A rule.
    Rule {
        /// its name
        name: Arc<str>,
        /// the SHA-256 of its source, in hexadecimal digits
        version: Arc<str>,
    },
    /// A person.
    Person {
        /// who
        who: Arc<str>,
    },
    /// The output itself: its contract asks for it.
    Contract {
        /// why, in words for people
        because: Arc<str>,
    },
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { name, version } => write!(f, "rule {name}, version {version}"),
            Self::Person { who } => write!(f, "{who}"),
            Self::Contract { because } => write!(f, "its contract: {because}"),
        }
    }
}

/// What became of writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// writes that the far side has confirmed
    pub written: usize,
    /// the writes that failed, by their place in the call, and why
    pub failures: Vec<(usize, DeliveryError)>,
}

impl Delivery {
    /// Counts the next write.
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
    /// They were sent, and no answer says what became of them: they may have arrived.
    #[error("{0}")]
    Unknown(String),
    /// The same rows will never go through: they do not fit, or the far side refused them.
    #[error("{0}")]
    Permanent(String),
}
