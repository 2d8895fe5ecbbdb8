//! Tidegate: a rules engine and stream processor for industrial edge boxes.

#[cfg(feature = "demo")]
pub mod demo;
pub mod status;
