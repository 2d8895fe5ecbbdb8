//! What users write about HTTP.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::Span;

use super::client::parse_url;
use crate::line::backoff::BackoffConfig;
use crate::secret::SecretSource;
use crate::table::{At, Review};
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

/// A request is held in memory as a whole.
const LARGEST_BATCH: usize = 10_000;
/// A quicker answer than this cannot be relied on.
const SHORTEST_TIMEOUT: Span = Span(Duration::from_millis(100));
/// Headers that the box itself writes.
const OWN: [&str; 5] = ["content-type", "content-length", "transfer-encoding", "host", "idempotency-key"];

impl UplinkConfig {
    /// Says what is wrong with it, and resolves its paths.
    pub(crate) fn check(&mut self, review: &mut Review<'_>) {
        if let Err(why) = parse_url(&self.url) {
            let help =
                "example: \"https://historian.example/tidegate\"; secrets go into `bearer` or `headers`"
                    .to_owned();
            review.error(At::value(&["url"]), format!("this is not a URL to post to: {why}"), help);
        }
        if self.batch.get() > LARGEST_BATCH {
            let message = format!("`batch` is at most {LARGEST_BATCH}, and is {}", self.batch);
            review.error(At::value(&["batch"]), message, None);
        }
        self.check_headers(review);
        if let Some(tls) = &mut self.tls {
            tls.check(review);
            if self.url.starts_with("http://") {
                let help = "write https:// in `url`, or leave `tls` out".to_owned();
                let what = "`tls` has no effect on a URL that starts with http://";
                review.error(At::key(&["tls"]), what, help);
            }
        }
        self.backoff.check(review);
        if self.timeout < SHORTEST_TIMEOUT {
            let message = format!("`timeout` must be at least {SHORTEST_TIMEOUT}, and is {}", self.timeout);
            review.error(At::value(&["timeout"]), message, None);
        }
    }

    fn check_headers(&mut self, review: &mut Review<'_>) {
        for (name, value) in &mut self.headers {
            let at = At::key(&["headers", name]);
            let lower = name.to_ascii_lowercase();
            match value {
                _ if OWN.contains(&lower.as_str()) => {
                    review.error(at, format!("the box itself writes the header `{name}`"), None);
                }
                HeaderConfig::Text(_)
                    if ["authorization", "cookie", "proxy-authorization"].contains(&lower.as_str()) =>
                {
                    let help = format!(
                        "write `bearer = {{ file = \"..\" }}`, or `{name} = {{ file = \"..\" }}` for the \
                        whole value"
                    );
                    let message = format!("the secret `{name}` must not be written into this file");
                    review.error(at, message, help);
                }
                HeaderConfig::Secret(source) => source.resolve(review.base_dir),
                HeaderConfig::Text(_) => {}
            }
        }
        let Some(source) = &mut self.bearer else { return };
        source.resolve(review.base_dir);
        if let Some(name) = self.headers.keys().find(|name| name.eq_ignore_ascii_case("authorization")) {
            let message = format!("`bearer` writes the header `{name}` already");
            review.error(At::key(&["headers", name]), message, None);
        }
    }
}

fn default_batch() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(499)
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}
