//! What whole-box tests stand on: the real binary as a child process, real mosquitto brokers, and a plain client on the other side.
//!
//! * [`mosquitto`]: a broker of one's own, that can be stopped, killed and started again on its port;
//! * [`box_under_test`]: a site (configuration, rules and data in a directory of its own) and the `tidegate` processes that run in it;
//! * [`client`]: a publisher and subscriber that knows nothing of Tidegate;
//! * [`lines`]: what a process writes, line by line, to wait for;
//! * [`golden`]: texts that are kept in files.
//!
//! Nothing here sleeps: whoever waits, waits for an event, and gives up after [`PATIENCE`] with all that is known.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "all of this is test code: what is not as it should be ends the test"
)]

use std::time::Duration;

pub mod box_under_test;
pub mod client;
pub mod golden;
pub mod lines;
pub mod mosquitto;

/// Longest wait for something that must happen. It is not a measure of speed: many tests share few cores.
pub const PATIENCE: Duration = Duration::from_secs(120);
