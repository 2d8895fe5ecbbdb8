//! Poor lines between a box, its plant and the cloud: the real binary, real mosquitto brokers, and a network
//! for each test in which packets are late, lost, slow or vanish.
//!
//! Every test makes networks and TUN devices, which not every machine allows. They are left out of a plain
//! `cargo test`; `tests/run` runs them in a step of its own, and so does
//!
//! ```sh
//! cargo test -p tidegate-tests --test links -- --ignored
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod backlog;
mod outages;
mod poor;
mod scene;
