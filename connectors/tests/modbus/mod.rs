//! The Modbus connection against devices: one that does as a test says, and those that others wrote.

mod script;

mod lines;
mod maps;
mod peers;
mod reads;
mod serial;
mod writes;

use serde_json::{Value, json};
use tidegate_connectors::connection::Kind;

use crate::rig::Setup;

impl Setup {
    pub(crate) fn modbus(connection: Value) -> Self {
        Self::new(Kind::Modbus, connection)
    }

    pub(crate) fn tcp(port: u16) -> Self {
        Self::modbus(json!({ "host": "127.0.0.1", "port": port }))
    }
}
