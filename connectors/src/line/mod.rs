//! What every line needs, whatever is spoken on it: the task that owns it, when it is tried again, what is
//! said of outages, how TCP connects, when devices are due, which of them are left alone, what payloads give, how rows get to
//! the engine, and what outputs write.

pub mod backoff;
pub(crate) mod decoding;
pub(crate) mod handover;
pub(crate) mod limits;
pub(crate) mod outage;
pub mod parking;
pub(crate) mod polls;
pub(crate) mod schedule;
pub(crate) mod silence;
pub(crate) mod task;
pub(crate) mod tcp;
pub(crate) mod writes;
