//! HTTP and HTTPS: rows are posted to a server.
//!
//! A request is delivered when its answer has a 2xx status, and not before: whatever happens on the way, the
//! same request may be sent again. It carries an `Idempotency-Key`, by which the server knows a repeat
//! (draft-ietf-httpapi-idempotency-key-header).

mod client;
pub mod config;
mod uplink;

pub use client::{Client, PostError};
pub use config::{HeaderConfig, UplinkConfig};
pub(crate) use uplink::open_uplink;
