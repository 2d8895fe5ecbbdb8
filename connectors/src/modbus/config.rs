//! What users write about Modbus.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_core::Span;

pub use super::points::config::{Byte, Order, PointConfig, ValueType};
pub use crate::line::backoff::BackoffConfig;
pub use crate::line::parking::ParkConfig;
use crate::line::writes::default_write_within;
use crate::port::{FlowControl, Parity, PortConfig, Settings};

/// `[connections.NAME]` with `kind = "modbus"`: a device or gateway on the network, or a serial line.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionConfig {
    /// Host name or address of the device or gateway; either this or `serial`.
    pub host: Option<String>,
    /// TCP port; 502 when absent.
    pub port: Option<NonZeroU16>,
    /// What goes over the network: "tcp" (Modbus TCP), or "rtu" for a serial server that hands bytes through.
    #[serde(default)]
    pub framing: Framing,
    /// The serial port; either this or `host`. What is absent is as the Modbus standard has it: 19200 baud,
    /// even parity, and 1 stop bit with parity or 2 without. Many devices without parity send 1.
    pub serial: Option<PortConfig>,
    /// How long a device may take to answer; what the bytes take on a serial line is added. A stream or an
    /// output may have its own.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long a network connection may take.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// How many times a read that was not answered is tried again. Writes are not.
    #[serde(default = "default_retries")]
    pub retries: u8,
    /// Pause before the first request of a connection.
    #[serde(default)]
    pub pause_after_connect: Span,
    /// Pause between the last byte of an answer and the next request.
    #[serde(default)]
    pub pause_between_requests: Span,
    /// Whether the connection is closed when nothing is due, for devices that take one client at a time.
    #[serde(default)]
    pub close_after_poll: bool,
    /// Whether an answer may carry unit 0 or 255 instead of the one that was asked; some gateways do so.
    #[serde(default)]
    pub any_unit: bool,
    /// Whether the adapter hears what it sends (two-wire RS-485). It is also found out by itself, once a
    /// read was answered.
    #[serde(default)]
    pub echo: bool,
    /// When a unit that does not answer is left alone, and for how long.
    #[serde(default)]
    pub park: ParkConfig,
    /// Shortest and longest pause before connecting again.
    #[serde(default)]
    pub backoff: BackoffConfig,
}

/// What goes over a network connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// Modbus TCP: frames with a transaction number
    #[default]
    Tcp,
    /// Modbus RTU: frames as on a serial line, with a checksum
    Rtu,
}

/// `[streams.NAME]` on a Modbus connection: a map of registers, polled from one device or several.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The connection's name, or a list of names.
    pub connection: Connections,
    /// Unit id of the device; 1 when absent.
    pub unit: Option<u8>,
    /// Several devices of one kind: their names and unit ids. The column `device` tells them apart.
    pub units: Option<BTreeMap<String, u8>>,
    /// How often the device is polled.
    pub every: Span,
    /// The columns, and where their values are.
    pub fields: BTreeMap<String, PointConfig>,
    /// Whether the stream has the columns `quality` (good, uncertain, bad) and `fault`; then a poll without
    /// any answer is a row, too.
    #[serde(default)]
    pub quality: bool,
    /// Order of bytes and words, for fields that do not say their own.
    #[serde(default)]
    pub order: Order,
    /// The number of the first register in the data sheet, 0 or 1: a data sheet that counts from 1 means by
    /// register 1 what is 0 on the wire.
    #[serde(default)]
    pub addresses_from: u8,
    /// How long the device may take to answer; absent: as the connection says.
    pub timeout: Option<Span>,
    /// Most registers that the device gives at a time.
    #[serde(default = "default_max_registers")]
    pub max_registers: u16,
    /// Most coils or discrete inputs that the device gives at a time.
    #[serde(default = "default_max_bits")]
    pub max_bits: u16,
    /// Up to how many registers (or bits) that nobody asked for are read to save a request.
    #[serde(default)]
    pub gap: u16,
    /// Whether each field is read by a request of its own, for devices that give nothing else.
    #[serde(default)]
    pub one_request_per_field: bool,
    /// Whether rows are kept in the journal; default: no.
    #[serde(default)]
    pub journal: bool,
}

/// One connection's name, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connections {
    /// one
    One(String),
    /// each of them has the same devices; the column `device` tells them apart
    Many(Vec<String>),
}

impl Connections {
    /// The names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

impl JsonSchema for Connections {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Connections".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // No alternatives, of which an editor would mark all.
        schemars::json_schema!({ "type": ["string", "array"], "items": { "type": "string" }, "minItems": 1 })
    }
}

impl<'de> Deserialize<'de> for Connections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Connections;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a connection's name, or a list such as [\"line_1\", \"line_2\"]")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Connections, E> {
                Ok(Connections::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Connections, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Connections::Many(names))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// `[outputs.NAME]` on a Modbus connection: the coils and holding registers that a rule may write.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// The connection's name.
    pub connection: String,
    /// Unit id of the device; 1 when absent.
    pub unit: Option<u8>,
    /// The columns, and where their values go. A row writes those that it has a value for.
    pub fields: BTreeMap<String, PointConfig>,
    /// Order of bytes and words, for fields that do not say their own.
    #[serde(default)]
    pub order: Order,
    /// The number of the first register in the data sheet, 0 or 1.
    #[serde(default)]
    pub addresses_from: u8,
    /// How long the device may take to answer; absent: as the connection says.
    pub timeout: Option<Span>,
    /// Whether what was written is read again and compared: `true`, or "same_request" for devices that know
    /// function 23.
    #[serde(default)]
    pub read_back: ReadBack,
    /// How long after the rule has decided it a write may still be sent; then it is dropped.
    #[serde(default = "default_write_within")]
    pub write_within: Span,
}

/// Whether a write is looked at afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadBack {
    /// the device's confirmation is enough
    #[default]
    No,
    /// it is read again after that
    After,
    /// registers are written and read by one request (function 23); coils and bits are read after that
    SameRequest,
}

impl<'de> Deserialize<'de> for ReadBack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;

        impl Visitor<'_> for Word {
            type Value = ReadBack;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"same_request\"")
            }

            fn visit_bool<E: de::Error>(self, after: bool) -> Result<ReadBack, E> {
                Ok(if after { ReadBack::After } else { ReadBack::No })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<ReadBack, E> {
                if word == "same_request" {
                    return Ok(ReadBack::SameRequest);
                }
                Err(E::invalid_value(de::Unexpected::Str(word), &self))
            }
        }

        deserializer.deserialize_any(Word)
    }
}

impl JsonSchema for ReadBack {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ReadBack".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "enum": [true, false, "same_request"] })
    }
}

/// Most registers of one read (Modbus Application Protocol V1.1b3, section 6.3).
pub const MOST_REGISTERS: u16 = 125;

/// Most coils or discrete inputs of one read (section 6.1).
pub const MOST_BITS: u16 = 2000;

fn default_timeout() -> Span {
    Span(Duration::from_secs(1))
}

fn default_connect_timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn default_retries() -> u8 {
    1
}

/// How bytes go over a line whose configuration does not say it (Serial Line V1.02, section 3.2): without
/// parity, a second stop bit is in its place.
pub(super) fn usual_settings(port: &PortConfig) -> Settings {
    let parity = port.parity.unwrap_or(Parity::Even);
    Settings {
        baud: NonZeroU32::MIN.saturating_add(19_199),
        data_bits: 8,
        parity,
        stop_bits: if parity == Parity::None { 2 } else { 1 },
        flow_control: FlowControl::None,
    }
}

fn default_max_registers() -> u16 {
    MOST_REGISTERS
}

fn default_max_bits() -> u16 {
    MOST_BITS
}
