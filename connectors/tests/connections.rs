//! Connections against the far sides that they are made for, a module a protocol; and what lies beside them:
//! uplinks by HTTP, DBC files as others read them, and what is fuzzed. One program, since each links the whole
//! crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod can;
mod dbc;
mod fuzz;
mod http;
mod modbus;
mod mqtt;
mod rig;
mod serial;
