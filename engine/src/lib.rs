//! Tidegate: a rules engine and stream processor for industrial edge boxes.

pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod status;
