//! What whole-box tests stand on: the real binary as a child process, real mosquitto brokers, and a plain
//! client on the other side.
//!
//! * [`box_under_test`]: a site (configuration, rules and data in a directory of its own) and the `tidegate`
//!   processes that run in it;
//! * [`client`]: a publisher and subscriber that knows nothing of Tidegate;
//! * [`plant`]: numbered rows and rules whose results arithmetic foretells; [`reckoning`]: an account of all
//!   that came of them; [`trial`]: a box between the two; [`soak`]: one for long;
//! * [`golden`]: texts that are kept in files;
//! * [`mosquitto`], [`http_server`], [`link`], [`machine`], [`disk`], [`lines`], [`dice`]: peers and what
//!   belongs to them, of the crate `tidegate-peers`.
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

pub mod box_under_test;
pub mod client;
pub mod golden;
pub mod plant;
pub mod reckoning;
pub mod soak;
pub mod trial;

pub use tidegate_peers::{
    PATIENCE, devices, dice, disk, http_server, lines, link, machine, mosquitto, recording_device,
};
