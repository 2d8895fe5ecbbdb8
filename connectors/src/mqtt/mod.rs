//! MQTT 3.1.1 (OASIS, 2014) and 5.0 (OASIS, 2019).

pub mod config;

pub use config::{ConnectionConfig, OutputConfig, StreamConfig};
