//! Secrets come from files or the environment (systemd credentials), never from the configuration itself, and
//! never reach a log.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

/// Where a secret is kept: `{ file = "/run/credentials/tidegate.service/mqtt" }` or
/// `{ env = "MQTT_PASSWORD" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretSource {
    /// a file whose content, without a final newline, is the secret
    File(PathBuf),
    /// an environment variable
    Env(String),
}

/// A secret that was read; it does not print itself.
#[derive(Clone)]
pub struct Secret(String);

/// A secret that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("cannot read the secret file {}: {error}", path.display())]
    File {
        /// the file
        path: PathBuf,
        /// why
        error: std::io::Error,
    },
    /// The variable is not set, or is not UTF-8.
    #[error(
        "the environment variable {0} that holds the secret is not set: set it, or use `{{ file = \"..\" }}`"
    )]
    Env(String),
}

impl SecretSource {
    /// A file's path starts at `base_dir`. The file itself is looked at when it is read.
    pub(crate) fn resolve(&mut self, base_dir: &Path) {
        if let Self::File(path) = self {
            *path = base_dir.join(&*path);
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// When the file cannot be read as UTF-8, or the variable is not set.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Secret(text.strip_suffix('\n').unwrap_or(&text).to_owned())),
                Err(error) => Err(SecretError::File { path: path.clone(), error }),
            },
            Self::Env(name) => std::env::var(name).map(Secret).map_err(|_| SecretError::Env(name.clone())),
        }
    }
}

impl Secret {
    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
