//! The MQTT connection against a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod cable;
mod peer;
mod rig;

mod delivery;
mod limits;
mod outages;
mod security;
