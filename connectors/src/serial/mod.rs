//! Devices on serial lines that speak in frames of their own.

pub mod escapes;
pub mod framing;
