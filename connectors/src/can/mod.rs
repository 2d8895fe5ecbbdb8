//! CAN.
//!
//! Pure parts: [`id`] and [`frame`] are what goes over a bus; [`database`] reads DBC files into [`message`]s
//! and [`signal`]s, which lead from payloads to values and back.

pub mod bits;
pub mod database;
pub mod filter;
pub mod frame;
pub mod id;
pub mod log;
pub mod message;
pub mod signal;
pub mod slcan;
pub mod transport;
