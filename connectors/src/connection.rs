//! What the engine asks of a connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::{Clock, FieldType};

use crate::output::OutputConfig;
use crate::port::PortConfig;
use crate::secret::SecretError;
use crate::status::{Intake, LineStatus};
use crate::stream::StreamConfig;
use crate::table::{At, Problem, Review, Table};
use crate::tls::TlsError;
use crate::{Keep, Sink, Source, can, modbus, mqtt, serial};

/// The kinds of connection, as `kind` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// a session with a broker
    Mqtt,
    /// a line with devices that have registers
    Modbus,
    /// a bus of frames
    Can,
    /// a serial line with a device that speaks in frames of its own
    Serial,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mqtt, Self::Modbus, Self::Can, Self::Serial];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Modbus => "modbus",
            Self::Can => "can",
            Self::Serial => "serial",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// `[connections.NAME]`, for each `kind`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ConnectionConfig {
    /// A session with an MQTT broker, 3.1.1 or 5.
    Mqtt(mqtt::ConnectionConfig),
    /// Modbus: TCP, RTU on a serial port, or RTU over TCP.
    Modbus(modbus::ConnectionConfig),
    /// CAN: an interface of the kernel, an adapter on a serial port, or a recording.
    Can(can::ConnectionConfig),
    /// A serial port, here or on a serial server, with a device that speaks in frames of its own.
    Serial(serial::ConnectionConfig),
}

/// What a connection is opened with.
pub struct Request<'a> {
    /// The connection's name in the configuration.
    pub name: &'a str,
    /// The box's name.
    pub box_name: &'a str,
    /// The streams that it feeds.
    pub streams: Vec<StreamRequest<'a>>,
    /// The outputs that write to it.
    pub outputs: Vec<(&'a str, &'a OutputConfig)>,
    /// Where times of arrival come from.
    pub clock: Arc<dyn Clock>,
    /// Where the connection counts.
    pub status: Arc<LineStatus>,
    /// Where it keeps what streams remember; without it they remember as long as the process lives.
    pub keep: Option<Keep>,
}

/// A stream that a connection feeds.
pub struct StreamRequest<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its configuration.
    pub config: &'a StreamConfig,
    /// Columns that were known earlier, without `ts`; used when the configuration declares none.
    pub known: Vec<(String, FieldType)>,
    /// The marks ([`tidegate_core::Batch::marks`]) of rows that an earlier process committed for this stream,
    /// oldest first.
    pub known_marks: Vec<u64>,
    /// Where the stream counts what it did not take as it came.
    pub intake: Arc<Intake>,
    /// What an earlier process kept for this stream; empty: nothing.
    pub kept: Vec<u8>,
}

/// A connection that is ready to run.
pub struct Opened {
    /// Runs the connection; nothing is sent or received before.
    pub source: Box<dyn Source>,
    /// By the outputs' names. The source runs until all of them are gone.
    pub sinks: BTreeMap<String, Box<dyn Sink>>,
}

impl ConnectionConfig {
    /// Reads the table of a connection of this kind, without its `kind`.
    pub fn read(kind: Kind, table: &mut impl Table) -> Option<Self> {
        match kind {
            Kind::Mqtt => table.read().map(Self::Mqtt),
            Kind::Modbus => table.read().map(Self::Modbus),
            Kind::Can => table.read().map(Self::Can),
            Kind::Serial => serial::ConnectionConfig::read(table).map(Self::Serial),
        }
    }

    /// Says what is wrong with it, and resolves its paths.
    pub fn check(&mut self, review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => config.check(review),
            Self::Modbus(config) => config.check(review),
            Self::Can(config) => config.check(review),
            Self::Serial(config) => config.check(review),
        }
    }

    /// Says what it must not have in common with the connections `earlier`. `name`: its own.
    pub fn check_beside(&self, name: &str, earlier: &[(&str, &Self)], review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => {
                let earlier = earlier.iter().filter_map(|(name, other)| Some((*name, other.as_mqtt()?)));
                config.check_beside(name, earlier, review);
            }
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => {
                self.check_port_beside(name, earlier, review);
            }
        }
    }

    /// A port takes one connection.
    fn check_port_beside(&self, name: &str, earlier: &[(&str, &Self)], review: &mut Review<'_>) {
        let Some((port, keys)) = self.port() else { return };
        let has_it = |other: &Self| other.port().is_some_and(|(other, _)| other.is_same_port(&port));
        let Some((other, _)) = earlier.iter().find(|(_, other)| has_it(other)) else { return };
        let place = port.place().map_or_else(|_| String::new(), |place| format!(" {place}"));
        let what = format!("`{name}` and `{other}` use the same port{place}");
        let help = "one connection has the line: name it in all streams and outputs of its devices";
        review.error(At::value(keys), what, help.to_owned());
    }

    /// Prepares it; does no network I/O, but reads secrets and other files.
    ///
    /// # Errors
    /// When the configuration is wrong in itself or a file cannot be read. That nobody is there is no error.
    pub fn open(&self, request: Request<'_>) -> Result<Opened, OpenError> {
        match self {
            Self::Mqtt(config) => {
                let client_id = format!("tidegate-{}-{}", request.box_name, request.name);
                let mqtt::Opened { source, sinks, .. } = mqtt::open(config, client_id, request)?;
                Ok(Opened { source, sinks })
            }
            Self::Modbus(config) => modbus::open(config, request),
            Self::Can(config) => can::open(config, request),
            Self::Serial(config) => serial::open(config, request),
        }
    }

    /// Whether it carries messages under topics, so that a box can be managed by it.
    #[must_use]
    pub fn carries_messages(&self) -> bool {
        match self {
            Self::Mqtt(_) => true,
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => false,
        }
    }

    /// What is said of a serial line, for whoever uses it by hand.
    #[must_use]
    pub fn as_serial(&self) -> Option<&serial::ConnectionConfig> {
        if let Self::Serial(config) = self { Some(config) } else { None }
    }

    /// The serial port that it has for itself, and the keys that say which.
    fn port(&self) -> Option<(PortConfig, &'static [&'static str])> {
        match self {
            Self::Mqtt(_) => None,
            Self::Modbus(config) => Some((config.serial.clone()?, &["serial", "device"])),
            Self::Can(config) => Some((PortConfig::at(&config.slcan.as_ref()?.device), &["slcan", "device"])),
            Self::Serial(config) => {
                let keys: &[&str] = if config.port.usb.is_some() { &["usb"] } else { &["device"] };
                Some((config.port.clone(), keys))
            }
        }
    }

    pub(crate) fn as_mqtt(&self) -> Option<&mqtt::ConnectionConfig> {
        if let Self::Mqtt(config) = self { Some(config) } else { None }
    }

    /// What is said of a Modbus line, for whoever uses it by hand.
    #[must_use]
    pub fn as_modbus(&self) -> Option<&modbus::ConnectionConfig> {
        if let Self::Modbus(config) = self { Some(config) } else { None }
    }

    /// What is said of a bus, for whoever uses it by hand.
    #[must_use]
    pub fn as_can(&self) -> Option<&can::ConnectionConfig> {
        if let Self::Can(config) = self { Some(config) } else { None }
    }
}

/// A connection or an uplink that cannot be opened, whatever the far side says.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A secret cannot be read.
    #[error("{}: {error}", keys.join("."))]
    Secret {
        /// which, in the table
        keys: Vec<String>,
        /// why
        error: SecretError,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting is wrong, or contradicts another.
    #[error("{message}")]
    Setting {
        /// where in the table; empty: all of it
        keys: Vec<String>,
        /// what is wrong
        message: String,
    },
    /// A stream cannot be read.
    #[error("stream {name}: {reason}")]
    Stream {
        /// which
        name: String,
        /// where in its table
        keys: Vec<String>,
        /// why
        reason: String,
    },
    /// An output cannot be written to.
    #[error("output {name}: {reason}")]
    Output {
        /// which
        name: String,
        /// where in its table
        keys: Vec<String>,
        /// why
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn setting(keys: &[&str], message: impl Into<String>) -> Self {
        Self::Setting { keys: keys.iter().map(|key| (*key).to_owned()).collect(), message: message.into() }
    }

    pub(crate) fn stream(name: &str, problem: Problem) -> Self {
        Self::Stream { name: name.to_owned(), reason: problem.text(), keys: problem.at }
    }

    pub(crate) fn output(name: &str, problem: Problem) -> Self {
        Self::Output { name: name.to_owned(), reason: problem.text(), keys: problem.at }
    }

    pub(crate) fn secret(keys: &[&str], error: SecretError) -> Self {
        Self::Secret { keys: keys.iter().map(|key| (*key).to_owned()).collect(), error }
    }
}

impl From<Problem> for OpenError {
    fn from(problem: Problem) -> Self {
        Self::Setting { message: problem.text(), keys: problem.at }
    }
}
