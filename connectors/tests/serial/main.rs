//! Serial connections: over ptys against devices that do as a test says, and at serial servers that others
//! wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../modbus/rig.rs"]
#[allow(dead_code, reason = "it has more than is needed here")]
mod rig;

mod device;
mod frames;
mod lines;
mod modem;
mod servers;
mod timing;
