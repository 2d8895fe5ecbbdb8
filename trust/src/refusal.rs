//! Why a command was not taken, for the program that sent it and for the person who has to find out.

use std::fmt;

use crate::digest::Digest;
use crate::outcome::Code;

/// A command that is not done.
///
/// An answer to it must not take the place of what is known of a command that was admitted under the same id:
/// whoever can publish could overwrite results with refusals otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// for programs
    pub code: Code,
    /// what is wrong, in lower case, without a full stop
    pub reason: String,
    /// what to do about it
    pub help: Option<String>,
    /// Whose signatures were good, by the names in the key set. Empty: nobody knows who sent it.
    pub signers: Vec<String>,
    /// of the payload, once the envelope could be read
    pub digest: Option<Digest>,
}

impl Refusal {
    /// A refusal of a message of which nothing is known yet.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), help: None, signers: Vec::new(), digest: None }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}
