//! What the engine asks of an input stream.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use tidegate_core::FieldType;

use crate::connection::{ConnectionConfig, Kind};
use crate::mqtt::config::Retained;
use crate::table::{Review, Table, inline};
use crate::{can, modbus, mqtt, serial};

/// Messages that were recorded as they came, and what a stream makes of them.
pub mod recorded {
    pub use crate::mqtt::recorded::{Outcome, Recorded};
    pub use crate::mqtt::recording::{ADVICE, Form, Message};
}

/// `[streams.NAME]` with a `connection`, for each kind of it.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamConfig {
    /// messages of a topic filter
    Mqtt(mqtt::StreamConfig),
    /// a map of registers that is polled
    Modbus(modbus::StreamConfig),
    /// messages, signals or frames of a bus
    Can(can::StreamConfig),
    /// frames of a serial line
    Serial(serial::StreamConfig),
}

impl StreamConfig {
    /// Reads the table of a stream on a connection of this kind.
    pub fn read(kind: Kind, table: &mut impl Table) -> Option<Self> {
        match kind {
            Kind::Mqtt => mqtt::StreamConfig::read(table).map(Self::Mqtt),
            Kind::Modbus => table.read().map(Self::Modbus),
            Kind::Can => table.read().map(Self::Can),
            Kind::Serial => serial::StreamConfig::read(table).map(Self::Serial),
        }
    }

    /// Says what is wrong with it, and keeps what it takes from files. `connections`: those that feed it, as
    /// far as they are known.
    pub fn check(&mut self, connections: &[&ConnectionConfig], review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => {
                config.check(connections.iter().find_map(|connection| connection.as_mqtt()), review);
            }
            Self::Modbus(config) => {
                config.check(connections.iter().filter_map(|connection| connection.as_modbus()), review);
            }
            Self::Can(config) => {
                config.check(connections.iter().find_map(|connection| connection.as_can()), review);
            }
            Self::Serial(config) => {
                config.check(connections.iter().find_map(|connection| connection.as_serial()), review);
            }
        }
    }

    /// The names of the connections that feed it.
    #[must_use]
    pub fn connections(&self) -> &[String] {
        match self {
            Self::Mqtt(config) => std::slice::from_ref(&config.connection),
            Self::Modbus(config) => config.connection.names(),
            Self::Can(config) => std::slice::from_ref(&config.connection),
            Self::Serial(config) => std::slice::from_ref(&config.connection),
        }
    }

    /// The columns behind `ts`, if they are declared; `None`: they are inferred from the data.
    #[must_use]
    pub fn columns(&self) -> Option<Vec<(String, FieldType)>> {
        match self {
            Self::Mqtt(config) => config.columns(),
            Self::Modbus(config) => Some(config.columns()),
            Self::Can(config) => Some(config.columns.clone()),
            Self::Serial(config) => config.columns(),
        }
    }

    /// Whether `ts` is the time of arrival.
    #[must_use]
    pub fn goes_by_arrival(&self) -> bool {
        match self {
            Self::Mqtt(config) => config.payload.goes_by_arrival(),
            Self::Modbus(_) | Self::Can(_) => true,
            Self::Serial(config) => config.payload.goes_by_arrival(),
        }
    }

    /// The boolean column that says of a row that it was kept somewhere on its way, nobody knows for how
    /// long.
    #[must_use]
    pub fn kept_column(&self) -> Option<&str> {
        match self {
            Self::Mqtt(config) => config.retained_column.as_deref(),
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => None,
        }
    }

    /// What to do about rows of which that is so.
    pub const AGE_ADVICE: &str = "name a `retained_column` in the stream, which makes it old; or `ts`, if the \
        device says when; or write `retained = \"never\"`";

    /// Whether rows may have been kept so, and nothing in them tells.
    #[must_use]
    pub fn hides_age(&self) -> bool {
        match self {
            Self::Mqtt(config) => {
                let may_be_kept = config.retained != Retained::Never && config.retained_column.is_none();
                may_be_kept && config.payload.goes_by_arrival()
            }
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => false,
        }
    }

    /// Whether rows are kept in the journal.
    #[must_use]
    pub fn is_journaled(&self) -> bool {
        match self {
            Self::Mqtt(config) => config.is_journaled(),
            Self::Modbus(config) => config.journal,
            Self::Can(config) => config.journal,
            Self::Serial(config) => config.journal,
        }
    }

    /// What happens while the disk refuses to be written.
    #[must_use]
    pub fn on_disk_failure(&self) -> OnDiskFailure {
        match self {
            Self::Mqtt(config) => config.on_disk_failure,
            // A device sends nothing again, so that there is nothing to hold back.
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => OnDiskFailure::GoOn,
        }
    }

    /// Whether it is fed by messages, which can be recorded as they come.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        match self {
            Self::Mqtt(_) => true,
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => false,
        }
    }

    /// The same stream, fed from recorded messages; `None`: its connection brings none. `known`: columns that
    /// were inferred from the recording.
    pub fn recorded(&self, known: Vec<(String, FieldType)>) -> Option<Result<recorded::Recorded, String>> {
        match self {
            Self::Mqtt(config) => Some(recorded::Recorded::new(config, known)),
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => None,
        }
    }

    /// What the table may look like, for each kind.
    pub fn schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
        vec![
            mqtt::StreamConfig::schema(generator),
            inline::<modbus::StreamConfig>(generator),
            inline::<can::StreamConfig>(generator),
            serial::StreamConfig::schema(generator),
        ]
    }
}

/// What a stream does while the disk refuses to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDiskFailure {
    /// Its rows go on to rules and outputs, and its messages are acknowledged: a crash loses what is not on
    /// disk.
    #[default]
    GoOn,
    /// Its messages are not acknowledged before they are on disk; its broker, and in the end the whole box,
    /// waits.
    Hold,
}
