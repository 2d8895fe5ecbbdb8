//! Real peers for tests: programs that others wrote, each of one's own on a free port.
//!
//! * [`mosquitto`]: a broker that can be stopped, killed and started again on its port;
//! * [`others`]: other brokers;
//! * [`devices`]: Modbus devices, and serial cables to them;
//! * [`recording_device`]: a Modbus device that writes down what it is asked, and misbehaves as it is told;
//! * [`http_server`]: a web server that fails as it is told;
//! * [`link`]: lines to it that are slow, lose packets, or let them vanish;
//! * [`machine`]: a virtual machine with a kernel of its own, and a plug that can be pulled;
//! * [`disk`]: the disk of such a machine, with a write cache that a power cut loses;
//! * [`lines`]: what a process writes, line by line, to wait for;
//! * [`dice`]: chance that can be repeated.
//!
//! Nothing here sleeps: whoever waits, waits for an event, and gives up after [`PATIENCE`] with all that is
//! known.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "all of this is test code: what is not as it should be ends the test"
)]

use std::time::Duration;

pub mod devices;
pub mod dice;
pub mod disk;
pub mod http_server;
pub mod lines;
pub mod link;
pub mod machine;
pub mod mosquitto;
pub mod others;
pub mod recording_device;

/// Longest wait for something that must happen. It is not a measure of speed: many tests share few cores.
pub const PATIENCE: Duration = Duration::from_secs(120);
