//! The Modbus connection against devices: one that does as a test says, and those that others wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[allow(dead_code, reason = "serial lines have it, too")]
mod rig;
mod script;

mod lines;
mod maps;
mod peers;
mod serial;
mod writes;
