//! Why a box does not run.

use std::io;
use std::path::PathBuf;

use tidegate_connectors::OpenError;

use crate::buffer::BufferError;

/// Why a box could not be started, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A directory could not be made.
    #[error("cannot make the directory {}: {error}", path.display())]
    Directory {
        /// the directory
        path: PathBuf,
        /// why
        error: io::Error,
    },
    /// The buffer could not be opened.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// A connection could not be prepared.
    #[error("connection `{name}`: {error}")]
    Connection {
        /// its name
        name: String,
        /// why
        error: OpenError,
    },
    /// An uplink could not be prepared.
    #[error("uplink `{name}`: {error}")]
    Uplink {
        /// its name
        name: String,
        /// why
        error: OpenError,
    },
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// Parts of the box did not end well.
    #[error("the box did not end well; {0}")]
    Ending(String),
}
