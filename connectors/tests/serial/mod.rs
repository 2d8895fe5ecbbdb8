//! Serial connections: over ptys against devices that do as a test says, and at serial servers that others
//! wrote.

mod device;
mod frames;
mod lines;
mod modem;
mod servers;
mod timing;

use serde_json::Value;
use tidegate_connectors::connection::Kind;

use crate::rig::Setup;

impl Setup {
    pub(crate) fn serial(connection: Value) -> Self {
        Self::new(Kind::Serial, connection)
    }
}
