//! Posts, and says what the answer means.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::config::{HeaderConfig, UplinkConfig};
use crate::connection::OpenError;
use crate::tls;

/// draft-ietf-httpapi-idempotency-key-header, section 2.1: a string of RFC 9651, in quotes.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What of an answer is told: enough for a sentence of the server, and little in a log.
const TOLD: usize = 300;
/// A larger answer is not read to its end: its connection is closed instead.
const LONGEST_ANSWER: usize = 64 << 10;
/// Longer than this, a server's wish is taken for a mistake, or for a clock that is wrong.
const LONGEST_WISH: Duration = Duration::from_hours(1);
/// A cloud's load balancer closes a silent connection after a minute at the earliest.
const IDLE: Duration = Duration::from_secs(50);

/// Why a request did not arrive, or nobody knows whether it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The same request may go through later.
    #[error("{reason}")]
    Transient {
        /// why
        reason: String,
        /// how long the server wants to be left alone
        retry_after: Option<Duration>,
    },
    /// The server will never take this.
    #[error("{0}")]
    Permanent(String),
}

/// Posts to one URL. Connections are kept open and used again.
#[derive(Debug)]
pub struct Client {
    config: UplinkConfig,
    uri: Uri,
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// read anew after the server did not accept them: secrets change
    headers: Mutex<HeaderMap>,
}

impl Client {
    /// Prepares a client; nothing is connected yet.
    ///
    /// # Errors
    /// When the URL, a header, a secret or the TLS files cannot be used.
    pub fn open(config: &UplinkConfig) -> Result<Self, OpenError> {
        let uri = parse_url(&config.url).map_err(|why| {
            OpenError::setting(&["url"], format!("`{}` is not a URL to post to: {why}", config.url))
        })?;
        let https = uri.scheme_str() == Some("https");
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Without it, a line that has died in silence is only noticed by the timeout of the next request.
        tcp.set_keepalive(Some(IDLE));
        let tls = config.tls.clone().unwrap_or_default();
        // The system's authorities are only read for a server that needs them.
        let tls = if https { tls::client_config(&tls)? } else { tls::no_roots()? };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*tls).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { config: config.clone(), uri, inner, headers: Mutex::new(headers(config)?) })
    }

    /// Posts the JSON text `body`. `key` is the same when the same is sent again, and only then.
    ///
    /// # Errors
    /// When the server did not say that it has taken it.
    pub async fn post(&self, body: Bytes, key: &str) -> Result<(), PostError> {
        let transient = |reason: String| PostError::Transient { reason, retry_after: None };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let key =
            HeaderValue::try_from(format!("\"{key}\"")).map_err(|error| transient(error.to_string()))?;
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        let deadline = Instant::now() + self.config.timeout.0;
        let answer = match timeout_at(deadline, self.inner.request(request)).await {
            Ok(answer) => {
                answer.map_err(|error| transient(format!("{}: {}", self.config.url, chain(&error))))?
            }
            Err(_) => {
                return Err(transient(format!(
                    "{}: no answer within {}",
                    self.config.url, self.config.timeout
                )));
            }
        };
        let (status, retry_after) = (answer.status(), answer.headers().get(RETRY_AFTER).and_then(wish));
        // A confirmation does not get lost because the rest of the answer does.
        let text = timeout_at(deadline, beginning(answer.into_body())).await.unwrap_or_default();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && let Ok(fresh) = headers(&self.config)
        {
            *self.headers.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        judge(status, retry_after, &text)
    }
}

/// What a URL has to be. The seam to the configuration's check.
///
/// # Errors
/// What is wrong with it.
pub fn parse_url(url: &str) -> Result<Uri, String> {
    match url.split_once("://") {
        Some(("http" | "https", _)) => {}
        Some((other, _)) => return Err(format!("`{other}` is neither `https` nor `http`")),
        None => return Err("it does not start with `https://` or `http://`".into()),
    }
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("a name and a password do not belong into a URL".into())
        }
        Some(authority) if !authority.host().is_empty() => Ok(uri),
        _ => Err("it names no host".into()),
    }
}

fn headers(config: &UplinkConfig) -> Result<HeaderMap, OpenError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in &config.headers {
        let header = || unsendable(&["headers", name], name);
        let (text, secret) = match value {
            HeaderConfig::Text(text) => (text.clone(), false),
            HeaderConfig::Secret(source) => {
                let secret = source.read().map_err(|error| OpenError::secret(&["headers", name], error))?;
                (secret.reveal().to_owned(), true)
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| header())?;
        value.set_sensitive(secret);
        headers.insert(HeaderName::try_from(name).map_err(|_| header())?, value);
    }
    if let Some(bearer) = &config.bearer {
        let secret = bearer.read().map_err(|error| OpenError::secret(&["bearer"], error))?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", secret.reveal()))
            .map_err(|_| unsendable(&["bearer"], "Authorization"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(headers)
}

fn unsendable(keys: &[&str], name: &str) -> OpenError {
    let message = format!("the header `{name}` has characters in its name or its value that cannot be sent");
    OpenError::setting(keys, message)
}

/// What an answer means. A status that speaks of the way and not of the rows (a wrong URL, a token that has
/// expired) is no reason to give rows up: a person mends it, and they go through.
fn judge(status: StatusCode, retry_after: Option<Duration>, text: &str) -> Result<(), PostError> {
    if status.is_success() {
        return Ok(());
    }
    let text = text.trim();
    let reason = if text.is_empty() {
        format!("the server answers {status}")
    } else {
        format!("the server answers {status}: {text}")
    };
    match status.as_u16() {
        401 | 403 | 404 | 405 | 407 | 408 | 421 | 425 | 429 => {
            Err(PostError::Transient { reason, retry_after })
        }
        400..=499 => Err(PostError::Permanent(reason)),
        _ => Err(PostError::Transient { reason, retry_after }),
    }
}

/// Retry-After (RFC 9110, section 10.2.3): seconds, or a date.
fn wish(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            SystemTime::from(until).duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WISH))
}

/// The beginning of an answer as text, without control characters. The rest is read as long as it is short,
/// so that the connection can be used again.
async fn beginning(mut body: Incoming) -> String {
    let (mut told, mut read) = (Vec::new(), 0);
    while read < LONGEST_ANSWER
        && let Some(Ok(frame)) = body.frame().await
    {
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        told.extend(data.iter().take(TOLD - told.len()));
    }
    String::from_utf8_lossy(&told).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error with its causes: the outermost one alone says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_status_says_whether_rows_were_taken_are_bad_or_may_go_through_later() {
        let outcome = |status: u16| match judge(StatusCode::from_u16(status).unwrap(), None, " no \n") {
            Ok(()) => "taken",
            Err(PostError::Permanent(reason)) => {
                assert!(reason.contains(&status.to_string()) && reason.ends_with(": no"), "{reason}");
                "refused"
            }
            Err(PostError::Transient { .. }) => "later",
        };
        let of = |statuses: &[u16]| {
            statuses.iter().map(|status| outcome(*status)).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(of(&[200, 201, 202, 204]), ["taken"].into());
        assert_eq!(of(&[400, 409, 410, 411, 413, 415, 422, 431, 451]), ["refused"].into());
        assert_eq!(
            of(&[301, 302, 307, 401, 403, 404, 405, 407, 408, 421, 425, 429, 500, 501, 502, 503, 504, 507]),
            ["later"].into()
        );
    }

    #[test]
    fn the_servers_wish_is_seconds_or_a_date_and_has_a_limit() {
        let wish = |text: &str| wish(&HeaderValue::from_str(text).unwrap());
        assert_eq!((wish("7"), wish("0")), (Some(Duration::from_secs(7)), Some(Duration::ZERO)));
        assert_eq!(wish("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(
            (wish("86400"), wish("Thu, 06 Nov 2994 08:49:37 GMT")),
            (Some(LONGEST_WISH), Some(LONGEST_WISH))
        );
        assert_eq!((wish("soon"), wish("-1")), (None, None));
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (url, why) in [
            ("historian.example/in", "does not start with"),
            ("ftp://historian.example", "`ftp` is neither"),
            ("https://box:secret@historian.example", "a password"),
            ("https://", ""),
            ("http://a b", ""),
        ] {
            let error = parse_url(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
        assert!(parse_url("https://historian.example:8443/in?box=1").is_ok());
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_named_and_a_secret_is_not_shown() {
        let config = |headers: &[(&str, &str)]| UplinkConfig {
            url: "http://localhost".into(),
            batch: std::num::NonZeroUsize::MIN,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), HeaderConfig::Text((*value).to_owned())))
                .collect(),
            bearer: None,
            tls: None,
            timeout: tidegate_core::Span(Duration::from_secs(1)),
            backoff: crate::line::backoff::BackoffConfig::default(),
        };
        assert_eq!(headers(&config(&[("X-Site", "north")])).unwrap().get("x-site").unwrap(), "north");
        for bad in [[("a b", "c")], [("a", "b\nc")]] {
            let name = bad.first().unwrap().0;
            let error = headers(&config(&bad)).unwrap_err();
            assert!(matches!(error, OpenError::Setting { keys, .. } if keys == ["headers", name]));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let source = crate::secret::SecretSource::File(file.path().to_owned());
        let headers = headers(&UplinkConfig { bearer: Some(source), ..config(&[]) }).unwrap();
        assert_eq!(headers.get(AUTHORIZATION).unwrap(), "Bearer hunter2");
        assert!(!format!("{headers:?}").contains("hunter2"));
    }
}
