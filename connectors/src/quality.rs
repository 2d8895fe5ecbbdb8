//! How good the values of a row are: the columns that streams of every fieldbus have with `quality = true`.
//!
//! A value that could not be read is null, whether they are there or not; never an old one.

/// The column that says how good a row is.
pub const QUALITY: &str = "quality";

/// The column that says why it is not good; null where it is.
pub const FAULT: &str = "fault";

/// How good a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// All was read.
    Good,
    /// Something was not.
    Uncertain,
    /// Nothing was.
    Bad,
    /// What comes by itself did not come in time.
    Stale,
}

impl Quality {
    /// As the column has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Uncertain => "uncertain",
            Self::Bad => "bad",
            Self::Stale => "stale",
        }
    }
}
