//! Whole-box scenarios: the real binary, real mosquitto brokers, and plain clients on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod afar;
mod asking;
mod bad_values;
mod command_line;
mod control;
mod crashes;
mod endurance;
mod errors;
mod firing;
mod formats;
mod golden_rules;
mod modbus;
mod outages;
mod outputs;
mod proof;
mod recovery;
mod reload;
mod retained;
mod silence;
mod stopping;
mod tables;
mod uplinks;
