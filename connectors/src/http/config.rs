//! What users write about HTTP.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::Span;

use crate::backoff::BackoffConfig;
use crate::secret::SecretSource;
use crate::tls::TlsConfig;

/// The keys of an uplink by HTTP.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// Where rows are posted to: `https://..` or `http://..`.
    pub url: String,
    /// How many rows of one rule go into one request, at most.
    #[serde(default = "default_batch")]
    pub batch: NonZeroUsize,
    /// Headers of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderConfig>,
    /// Where the token for `Authorization: Bearer` is kept.
    pub bearer: Option<SecretSource>,
    /// TLS; absent: that of the system.
    pub tls: Option<TlsConfig>,
    /// How long one request may take, from the connection to the end of the answer.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Shortest and longest pause after a request that failed.
    #[serde(default)]
    pub backoff: BackoffConfig,
}

/// A header's value: text, or where it is kept when it is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected text in quotes, or { file = \"..\" } or { env = \"..\" } for a secret"
)]
pub enum HeaderConfig {
    /// the value itself
    Text(String),
    /// where the value is kept
    Secret(SecretSource),
}

fn default_batch() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(499)
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}
