//! What the engine asks of an output.

use schemars::{Schema, SchemaGenerator};

use crate::connection::Kind;
use crate::mqtt;
use crate::table::{Review, Table, inline};

/// `[outputs.NAME]`, for each kind of connection that it writes to.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputConfig {
    /// a message a row
    Mqtt(mqtt::OutputConfig),
}

impl OutputConfig {
    /// Reads the table of an output on a connection of this kind.
    pub fn read(kind: Kind, table: &mut impl Table) -> Option<Self> {
        match kind {
            Kind::Mqtt => table.read().map(Self::Mqtt),
        }
    }

    /// Says what is wrong with it.
    pub fn check(&self, review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => config.check(review),
        }
    }

    /// The name of the connection that it writes to.
    #[must_use]
    pub fn connection(&self) -> &str {
        match self {
            Self::Mqtt(config) => &config.connection,
        }
    }

    /// The columns that rows for it must have, by name.
    #[must_use]
    pub fn required_columns(&self) -> Vec<String> {
        match self {
            Self::Mqtt(config) => config.required_columns(),
        }
    }

    /// What the table may look like, for each kind.
    pub fn schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
        vec![inline::<mqtt::OutputConfig>(generator)]
    }
}
