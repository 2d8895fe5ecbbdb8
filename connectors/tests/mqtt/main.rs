//! The MQTT connection against a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod brokers;
mod cable;
mod peer;
mod retained;
mod rig;
mod script;

mod delivery;
mod limits;
mod others;
mod outages;
mod security;
