//! What users write about serial devices.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use tidegate_core::{FieldType, Span};

use super::escapes::Bytes;
use super::framing::FrameConfig;
use super::telegram::Telegram;
use crate::codec::{Decoder, Pattern, PayloadConfig};
use crate::line::backoff::BackoffConfig;
use crate::line::parking::ParkConfig;
use crate::line::writes::default_write_within;
use crate::port::{PortConfig, Settings};
use crate::quality::{FAULT, QUALITY};
use crate::rows::with_quality;
use crate::table::{Table, inline, joined};

/// `[connections.NAME]` with `kind = "serial"`: a port, and the frames that come from it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Keys")]
pub struct ConnectionConfig {
    /// the port: keys of their own
    pub port: PortConfig,
    /// where a frame begins and ends
    pub frame: FrameConfig,
    /// how long a serial server may take
    pub connect_timeout: Span,
    /// pause between the last byte of an answer and the next request or write; absent: 20 ms before a request
    pub pause_between_requests: Option<Span>,
    /// whether the adapter hears what it sends
    pub echo: bool,
    /// when a device that does not answer its polls is left alone
    pub park: ParkConfig,
    /// shortest and longest pause before the port is opened again
    pub backoff: BackoffConfig,
}

/// Those of its keys that are not the port's.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where a frame begins and ends in the bytes of the line.
    frame: FrameConfig,
    /// How long a serial server may take.
    #[serde(default = "default_connect_timeout")]
    connect_timeout: Span,
    /// Pause between the last byte of an answer and the next request or write; absent: 20ms before a
    /// request, none before a write.
    pause_between_requests: Option<Span>,
    /// Whether the adapter hears what it sends (two-wire RS-485).
    #[serde(default)]
    echo: bool,
    /// When a device that does not answer its polls is left alone, and for how long.
    #[serde(default)]
    park: ParkConfig,
    /// Shortest and longest pause before the port is opened again.
    #[serde(default)]
    backoff: BackoffConfig,
}

impl From<Keys> for ConnectionConfig {
    fn from(keys: Keys) -> Self {
        let Keys { frame, connect_timeout, pause_between_requests, echo, park, backoff } = keys;
        let port = PortConfig::default();
        Self { port, frame, connect_timeout, pause_between_requests, echo, park, backoff }
    }
}

impl ConnectionConfig {
    /// Reads the table of a connection, without its `kind`.
    pub fn read(table: &mut impl Table) -> Option<Self> {
        let port = table.take(PortConfig::KEYS);
        let config: Keys = table.read()?;
        Some(Self { port: port?, ..config.into() })
    }
}

impl JsonSchema for ConnectionConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SerialConnection".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        joined(&[inline::<Keys>(generator), inline::<PortConfig>(generator)])
    }
}

/// What most devices have: 9600 baud, 8N1.
#[must_use]
pub(super) fn usual_settings() -> Settings {
    Settings::plain(NonZeroU32::MIN.saturating_add(9_599))
}

/// `[streams.NAME]` on a serial connection.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The connection's name.
    pub connection: String,
    /// Regular expression for the frames of this stream, where several streams are on the line: the first
    /// that fits has the frame. Absent: the format's own `pattern` or sentence, or every frame.
    #[serde(rename = "match")]
    pub pattern: Option<Pattern>,
    /// What the device is asked, for devices that do not speak by themselves.
    pub poll: Option<PollConfig>,
    /// Whether the stream has the columns `quality` (good, uncertain, bad) and `fault`; then a request
    /// without an answer is a row, too, and so is the loss of the line.
    #[serde(default)]
    pub quality: bool,
    /// How long nothing may come before the stream says with a row that it is stale; with `quality` only.
    pub stale_after: Option<Span>,
    /// Whether rows are kept in the journal; default: no.
    #[serde(default)]
    pub journal: bool,
    /// What a frame is, and where the values are in it: keys of their own, which every connection that
    /// carries bytes has.
    #[serde(skip)]
    pub payload: PayloadConfig,
}

/// `poll = { send = "P\r\n", every = "500ms", timeout = "200ms" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// the request; `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` stand for a byte
    pub send: Bytes,
    /// how often it is sent
    pub every: Span,
    /// how long the answer may take; what the bytes take on the line is added
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

impl StreamConfig {
    /// Reads the table of a stream.
    pub fn read(table: &mut impl Table) -> Option<Self> {
        let payload = table.take(PayloadConfig::KEYS);
        let config: Self = table.read()?;
        Some(Self { payload: payload?, ..config })
    }

    /// What the table may look like.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        joined(&[inline::<Self>(generator), inline::<PayloadConfig>(generator)])
    }

    /// The columns behind `ts`, if they are declared.
    pub(crate) fn columns(&self) -> Option<Vec<(String, FieldType)>> {
        Some(with_quality(self.payload.columns()?, self.quality))
    }

    /// A decoder for the frames. `known`: columns that were inferred earlier.
    ///
    /// # Errors
    /// In words for the user.
    pub fn decoder(&self, mut known: Vec<(String, FieldType)>) -> Result<Decoder, String> {
        known.retain(|(name, _)| !self.quality || ![QUALITY, FAULT].contains(&name.as_str()));
        self.payload.decoder(&[], None, known)
    }

    /// Whether what is in a frame decides whether it is of this stream.
    #[must_use]
    pub fn is_selective(&self) -> bool {
        self.pattern.is_some() || self.payload.is_selective()
    }

    /// Whether a frame may be of this stream.
    #[must_use]
    pub fn fits(&self, frame: &[u8]) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.fits(frame),
            None => self.payload.fits(frame),
        }
    }
}

/// `[outputs.NAME]` on a serial connection: a row is sent as text.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// The connection's name.
    pub connection: String,
    /// What is sent. `{column}` is replaced by the row's value, `{column:07.2}` by a number that is 7 wide,
    /// filled with zeros, and has 2 decimals; `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` stand for a byte.
    pub payload: Telegram,
    /// Regular expression for the frame by which the device confirms a write; absent: it does not.
    pub answer: Option<Pattern>,
    /// How long that may take.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long after the rule has decided it a write may still be sent; then it is dropped.
    #[serde(default = "default_write_within")]
    pub write_within: Span,
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(1))
}

fn default_connect_timeout() -> Span {
    Span(Duration::from_secs(5))
}
