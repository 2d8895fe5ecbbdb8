//! What every line needs, whatever is spoken on it: when it is tried again, what is said of outages, when
//! devices are due, which of them are left alone, what payloads give, and how rows get to the engine.

pub mod backoff;
pub(crate) mod decoding;
pub(crate) mod handover;
pub(crate) mod outage;
pub mod parking;
pub(crate) mod schedule;
