//! The MQTT connection against a real broker.

mod brokers;
mod cable;
mod peer;
mod remote;
mod retained;
mod script;
mod session;

mod delivery;
mod limits;
mod others;
mod outages;
mod security;
