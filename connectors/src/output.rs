//! What the engine asks of an output.

use schemars::{Schema, SchemaGenerator};
use tidegate_core::FieldType;

use crate::connection::{ConnectionConfig, Kind};
use crate::table::{Review, Table, inline};
use crate::{can, modbus, mqtt, serial};

/// `[outputs.NAME]`, for each kind of connection that it writes to.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputConfig {
    /// a message a row
    Mqtt(mqtt::OutputConfig),
    /// coils and registers
    Modbus(modbus::OutputConfig),
    /// frames of a bus
    Can(can::OutputConfig),
    /// bytes for a device on a serial line, a row each
    Serial(serial::OutputConfig),
}

impl OutputConfig {
    /// Reads the table of an output on a connection of this kind.
    pub fn read(kind: Kind, table: &mut impl Table) -> Option<Self> {
        match kind {
            Kind::Mqtt => table.read().map(Self::Mqtt),
            Kind::Modbus => table.read().map(Self::Modbus),
            Kind::Can => table.read().map(Self::Can),
            Kind::Serial => table.read().map(Self::Serial),
        }
    }

    /// Says what is wrong with it, and keeps what it takes from files. `connection`: the one that it writes
    /// to, if that is known.
    pub fn check(&mut self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => config.check(review),
            Self::Modbus(config) => config.check(connection.and_then(ConnectionConfig::as_modbus), review),
            Self::Can(config) => config.check(connection.and_then(ConnectionConfig::as_can), review),
            Self::Serial(config) => config.check(review),
        }
    }

    /// The name of the connection that it writes to.
    #[must_use]
    pub fn connection(&self) -> &str {
        match self {
            Self::Mqtt(config) => &config.connection,
            Self::Modbus(config) => &config.connection,
            Self::Can(config) => &config.connection,
            Self::Serial(config) => &config.connection,
        }
    }

    /// The columns that rows for it must have, by name.
    #[must_use]
    pub fn required_columns(&self) -> Vec<String> {
        match self {
            Self::Mqtt(config) => config.required_columns(),
            Self::Modbus(_) => Vec::new(),
            Self::Can(config) => config.required.clone(),
            Self::Serial(config) => config.required_columns(),
        }
    }

    /// The columns that it takes, with their types; `None`: any, as they are.
    #[must_use]
    pub fn columns(&self) -> Option<Vec<(String, FieldType)>> {
        match self {
            Self::Mqtt(_) | Self::Serial(_) => None,
            Self::Modbus(config) => Some(config.columns()),
            Self::Can(config) => Some(config.columns.clone()),
        }
    }

    /// What the table may look like, for each kind.
    pub fn schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
        vec![
            inline::<mqtt::OutputConfig>(generator),
            inline::<modbus::OutputConfig>(generator),
            inline::<can::OutputConfig>(generator),
            inline::<serial::OutputConfig>(generator),
        ]
    }
}
