//! What must hold for uplinks by HTTP beyond the types of their keys.

use std::path::Path;
use std::time::Duration;

use tidegate_connectors::http::{HeaderConfig, UplinkConfig, parse_url};
use tidegate_connectors::secret::SecretSource;
use tidegate_core::Span;

use super::document::{Report, Table};
use super::mqtt::check_backoff;
use super::tls;

/// A quicker answer than this cannot be relied on.
const SHORTEST_TIMEOUT: Span = Span(Duration::from_millis(100));
/// Headers that the box itself writes.
const OWN: [&str; 5] = ["content-type", "content-length", "transfer-encoding", "host", "idempotency-key"];

/// Checks an uplink, and resolves its paths against `base_dir`.
pub(super) fn check_uplink(
    uplink: &mut UplinkConfig,
    table: &Table<'_>,
    base_dir: &Path,
    report: &mut Report<'_>,
) {
    if let Err(why) = parse_url(&uplink.url) {
        let help = "example: \"https://historian.example/tidegate\"; secrets go into `bearer` or `headers`"
            .to_owned();
        report.error(&table.span_of(&["url"]), format!("this is not a URL to post to: {why}"), help);
    }
    for (name, value) in &mut uplink.headers {
        let span = table.key_span_of(&["headers", name]);
        let lower = name.to_ascii_lowercase();
        match value {
            _ if OWN.contains(&lower.as_str()) => {
                report.error(&span, format!("the box itself writes the header `{name}`"), None)
            }
            HeaderConfig::Text(_)
                if ["authorization", "cookie", "proxy-authorization"].contains(&lower.as_str()) =>
            {
                let help = format!(
                    "write `bearer = {{ file = \"..\" }}`, or `{name} = {{ file = \"..\" }}` for the whole \
                    value"
                );
                report.error(&span, format!("the secret `{name}` must not be written into this file"), help);
            }
            HeaderConfig::Secret(source) => resolve(source, base_dir),
            HeaderConfig::Text(_) => {}
        }
    }
    if let Some(source) = &mut uplink.bearer {
        resolve(source, base_dir);
        if let Some(name) = uplink.headers.keys().find(|name| name.eq_ignore_ascii_case("authorization")) {
            report.error(
                &table.key_span_of(&["headers", name]),
                format!("`bearer` writes the header `{name}` already"),
                None,
            );
        }
    }
    if let Some(settings) = &mut uplink.tls {
        tls::check(settings, table, base_dir, report);
        if uplink.url.starts_with("http://") {
            let help = "write https:// in `url`, or leave `tls` out".to_owned();
            report.error(
                &table.key_span_of(&["tls"]),
                "`tls` has no effect on a URL that starts with http://",
                help,
            );
        }
    }
    check_backoff(&uplink.backoff, table, report);
    if uplink.timeout < SHORTEST_TIMEOUT {
        let message = format!("`timeout` must be at least {SHORTEST_TIMEOUT}, and is {}", uplink.timeout);
        report.error(&table.span_of(&["timeout"]), message, None);
    }
}

/// The file itself is looked at by `preflight`.
fn resolve(source: &mut SecretSource, base_dir: &Path) {
    if let SecretSource::File(path) = source {
        *path = base_dir.join(&*path);
    }
}
