//! HTTP and HTTPS: rows are posted to a server.
//!
//! A request is delivered when its answer has a 2xx status, and not before: whatever happens on the way, the
//! same request may be sent again. It carries an `Idempotency-Key`, by which the server knows a repeat
//! (draft-ietf-httpapi-idempotency-key-header).

mod client;
pub mod config;

pub use client::{Client, OpenError, PostError, parse_url};
pub use config::{HeaderConfig, UplinkConfig};
