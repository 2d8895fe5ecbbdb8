//! Tidegate: a rules engine and stream processor for industrial edge boxes.

pub mod buffer;
pub mod status;
