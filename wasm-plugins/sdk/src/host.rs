//! What the box does for a plugin: `wit/rule.wit`, interface `host`. In tests, [`crate::testing`] does it.

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// to whoever looks for a fault
    Debug,
    /// to whoever wants to know what goes on
    Info,
    /// something may be wrong
    Warn,
    /// something is wrong
    Error,
}

#[cfg(target_family = "wasm")]
pub(crate) use crate::abi::host::{after, cancel, get, log, now, remove, set, write};
#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::host::{after, cancel, get, log, now, remove, set, write};
