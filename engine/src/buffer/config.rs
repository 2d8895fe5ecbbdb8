//! `[buffer]` of the configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::ByteSize;

/// Where results wait for the uplink, and how much may wait.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BufferSettings {
    /// The database file; `.lock`, `-wal` and `-shm` files lie beside it. Default `tidegate.db`.
    pub path: PathBuf,
    /// Bytes of compressed rows that may wait. The file is somewhat larger. Default 1 GiB.
    pub max_size: ByteSize,
    /// What happens to new rows when `max_size` is reached. Default `block`.
    pub when_full: WhenFull,
    /// Appends that may wait in memory for the writer; at least 1. Default 256.
    pub queue: usize,
}

impl Default for BufferSettings {
    fn default() -> Self {
        Self { path: "tidegate.db".into(), max_size: ByteSize(1 << 30), when_full: WhenFull::Block, queue: 256 }
    }
}

/// What happens to new rows when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// They wait, unacknowledged, until the uplink has taken older ones.
    #[default]
    Block,
    /// The oldest blocks are deleted, counted, and leave a gap record.
    DropOldest,
}
