//! What the engine asks of an input stream.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use tidegate_core::FieldType;

use crate::connection::{ConnectionConfig, Kind};
use crate::mqtt;
use crate::table::{Review, Table};

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
}

impl StreamConfig {
    /// Reads the table of a stream on a connection of this kind.
    pub fn read(kind: Kind, table: &mut impl Table) -> Option<Self> {
        match kind {
            Kind::Mqtt => mqtt::StreamConfig::read(table).map(Self::Mqtt),
        }
    }

    /// Says what is wrong with it. `connection`: the one that feeds it, if that is known.
    pub fn check(&self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => {
                config.check(connection.and_then(ConnectionConfig::as_mqtt), review);
            }
        }
    }

    /// The name of the connection that feeds it.
    #[must_use]
    pub fn connection(&self) -> &str {
        match self {
            Self::Mqtt(config) => &config.connection,
        }
    }

    /// The columns behind `ts`, if they are declared; `None`: they are inferred from the data.
    #[must_use]
    pub fn columns(&self) -> Option<Vec<(String, FieldType)>> {
        match self {
            Self::Mqtt(config) => config.columns(),
        }
    }

    /// Whether `ts` is the time of arrival.
    #[must_use]
    pub fn goes_by_arrival(&self) -> bool {
        match self {
            Self::Mqtt(config) => config.payload.goes_by_arrival(),
        }
    }

    /// Whether the box asks for the values, so that nothing but an answer is ever heard.
    #[must_use]
    pub fn is_polled(&self) -> bool {
        match self {
            Self::Mqtt(_) => false,
        }
    }

    /// Whether rows are kept in the journal.
    #[must_use]
    pub fn is_journaled(&self) -> bool {
        match self {
            Self::Mqtt(config) => config.is_journaled(),
        }
    }

    /// What happens while the disk refuses to be written.
    #[must_use]
    pub fn on_disk_failure(&self) -> OnDiskFailure {
        match self {
            Self::Mqtt(config) => config.on_disk_failure,
        }
    }

    /// Whether it is fed by messages, which can be recorded as they come.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        match self {
            Self::Mqtt(_) => true,
        }
    }

    /// The same stream, fed from recorded messages; `None`: its connection brings none. `known`: columns that
    /// were inferred from the recording.
    pub fn recorded(&self, known: Vec<(String, FieldType)>) -> Option<Result<recorded::Recorded, String>> {
        match self {
            Self::Mqtt(config) => Some(recorded::Recorded::new(config, known)),
        }
    }

    /// What the table may look like, for each kind.
    pub fn schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
        vec![mqtt::StreamConfig::schema(generator)]
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
