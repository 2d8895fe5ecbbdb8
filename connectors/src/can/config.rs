//! What users write about CAN.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::{FieldType, Span};

use super::database::Database;
use crate::codec::FieldConfig;
pub use crate::line::backoff::BackoffConfig;
use crate::line::parking::ParkConfig;

/// `[connections.NAME]` with `kind = "can"`: a bus.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionConfig {
    /// A network interface of the kernel (SocketCAN), such as "can0"; either this, `slcan` or `log`.
    pub interface: Option<String>,
    /// An adapter on a serial port that speaks the Lawicel protocol.
    pub slcan: Option<SlcanConfig>,
    /// A recording by candump, played instead of a bus.
    pub log: Option<LogConfig>,
    /// DBC files: which messages there are on the bus, and what is in them.
    #[serde(default)]
    pub dbc: Vec<PathBuf>,
    /// Whether nothing may ever be sent. Outputs are refused then.
    #[serde(default)]
    pub listen_only: bool,
    /// How long a frame may wait for its turn on the bus before its output is told that it was not sent.
    #[serde(default = "default_send_timeout")]
    pub send_timeout: Span,
    /// Shortest and longest pause before the bus is tried again.
    #[serde(default = "default_backoff")]
    pub backoff: BackoffConfig,
    /// When a node that does not answer with `isotp` is left alone, and for how long.
    #[serde(default)]
    pub park: ParkConfig,
    /// What the files of `dbc` say.
    #[serde(skip)]
    pub database: Option<Arc<Database>>,
}

/// `slcan = { device = "/dev/ttyACM0", bitrate = 250000 }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlcanConfig {
    /// Path of the port; those below `/dev/serial/by-id` stay the same when adapters are moved. Or a serial
    /// server on the network: "tcp://HOST:PORT", "rfc2217://HOST:PORT".
    pub device: String,
    /// Bits a second on the bus; 10000, 20000, 50000, 100000, 125000, 250000, 500000, 800000 or 1000000.
    pub bitrate: u32,
    /// Bits a second on the serial port; USB adapters take any.
    #[serde(default = "default_baud")]
    pub baud: NonZeroU32,
    /// Whether it says what has become of commands and frames. Some firmware does not; then a frame counts as
    /// sent when the port has taken it.
    #[serde(default = "default_answers")]
    pub answers: bool,
}

/// `log = { path = "drive.log", speed = 1.0 }`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A file that `candump -l` or `candump -L` wrote.
    pub path: PathBuf,
    /// How many times as fast as it was recorded.
    #[serde(default = "default_speed")]
    pub speed: f64,
    /// Whether it begins again at its end.
    #[serde(default)]
    pub repeat: bool,
    /// Only the frames of this interface, if the file has several.
    pub interface: Option<String>,
}

/// `[streams.NAME]` on a CAN connection; what it has is one of `message`, `signals`, `ids`, `pgn`, `errors`
/// and `isotp`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The connection's name.
    pub connection: String,
    /// A message of the databases: its signals are the columns.
    pub message: Option<String>,
    /// Signals of the databases, a row each: "Speed", "MotorStatus.Speed", or "*" for all.
    pub signals: Option<Vec<String>>,
    /// Frames as they come, by their ids: "0x100", "0x100-0x1ff", with a trailing x for extended ones
    /// ("0x18FEF100x"), or "*" for all.
    pub ids: Option<Vec<String>>,
    /// Frames and transported messages of this J1939 parameter group, as they come.
    pub pgn: Option<u32>,
    /// With `pgn`, or a `message` of J1939: only from this source address.
    pub source: Option<u8>,
    /// Error frames.
    #[serde(default)]
    pub errors: bool,
    /// A node that is asked with ISO-TP, as in UDS and OBD: which ids requests and answers have.
    pub isotp: Option<IsoTpConfig>,
    /// With `isotp`: what is sent, in hexadecimal bytes ("22 F1 90").
    pub request: Option<String>,
    /// With `isotp`: how often.
    pub every: Option<Span>,
    /// With `isotp`: how long the answer may take.
    pub timeout: Option<Span>,
    /// With `isotp`: the columns, and where their values are in the bytes of the answer, as with the format
    /// `layout`.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldConfig>,
    /// After which silence of its message the values are stale. When absent: three times the cycle time in
    /// the database; a message without one never is.
    pub stale_after: Option<Span>,
    /// Whether the stream has the columns `quality` and `fault`; then a silence is a row, too.
    #[serde(default)]
    pub quality: bool,
    /// Whether signals with a value table have its texts instead of their numbers.
    #[serde(default)]
    pub labels: bool,
    /// Whether rows are kept in the journal; default: no.
    #[serde(default)]
    pub journal: bool,
    /// The columns behind `ts`; they are known when the databases are.
    #[serde(skip)]
    pub columns: Vec<(String, FieldType)>,
}

/// `isotp = { tx = 0x7e0, rx = 0x7e8 }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IsoTpConfig {
    /// The id of requests.
    pub tx: u32,
    /// The id of answers.
    pub rx: u32,
    /// Whether the ids are extended ones; ids above 0x7ff always are.
    #[serde(default)]
    pub extended: bool,
    /// What short frames are filled up with, for nodes that take only whole ones.
    pub padding: Option<u8>,
}

impl fmt::Display for IsoTpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:#x}", self.tx)
    }
}

/// `[outputs.NAME]` on a CAN connection: a message, or frames of one id.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// The connection's name.
    pub connection: String,
    /// A message of the databases: its signals are the columns.
    pub message: Option<String>,
    /// The id of frames whose bytes are in the column `data`: "0x123", with a trailing x for extended ones.
    pub id: Option<String>,
    /// With `id`: whether frames are FD frames, with up to 64 bytes.
    #[serde(default)]
    pub fd: bool,
    /// With `message`: whether signals with a value table take its texts instead of their numbers.
    #[serde(default)]
    pub labels: bool,
    /// With `message`: what signals have that a row does not name.
    #[serde(default)]
    pub defaults: BTreeMap<String, f64>,
    /// With a `message` of J1939: the box's own address, in place of the database's.
    pub source: Option<u8>,
    /// With a `message` of J1939 that goes to one node: its address, in place of the database's.
    pub destination: Option<u8>,
    /// How often the newest row is sent, again and again; when absent, each row is sent once.
    pub every: Option<Span>,
    /// With `every`: for how long a row is sent again when no newer one comes.
    pub expiry: Option<Span>,
    /// The columns; they are known when the databases are.
    #[serde(skip)]
    pub columns: Vec<(String, FieldType)>,
    /// Those that every row must have.
    #[serde(skip)]
    pub required: Vec<String>,
    /// The least and the greatest value of columns that take numbers.
    #[serde(skip)]
    pub ranges: Vec<(String, f64, f64)>,
    /// The names that columns take in place of numbers.
    #[serde(skip)]
    pub labels_of_columns: Vec<(String, Vec<String>)>,
}

/// A connection is another one when its messages are others.
impl PartialEq for Database {
    fn eq(&self, other: &Self) -> bool {
        self.messages() == other.messages()
    }
}

fn default_send_timeout() -> Span {
    Span(Duration::from_millis(250))
}

fn default_backoff() -> BackoffConfig {
    // Nobody is called but this machine's kernel, so there is no use in waiting for long.
    BackoffConfig { min: Span(Duration::from_millis(100)), max: Span(Duration::from_secs(2)) }
}

fn default_baud() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(115_199)
}

fn default_answers() -> bool {
    true
}

fn default_speed() -> f64 {
    1.0
}
