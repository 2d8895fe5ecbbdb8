//! What must hold for MQTT connections, streams and outputs beyond the types of their keys.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tidegate_connectors::backoff::BackoffConfig;
use tidegate_connectors::mqtt::config::{
    FieldAt, FieldConfig, OnDiskFailure, PACKETS, TextFormat, TimeUnit, TsAt, TsConfig, Version,
};
use tidegate_connectors::mqtt::template::Template;
use tidegate_connectors::mqtt::topic::Filter;
use tidegate_connectors::mqtt::{ConnectionConfig, OutputConfig, StreamConfig};
use tidegate_connectors::secret::SecretSource;
use tidegate_core::{FieldType, TS};

use super::document::{Report, Table};
use super::{names, tls};

/// Keep-alive is a 16-bit number of seconds (MQTT 5.0, 3.1.2.10).
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(65_535);
/// Session expiry is a 32-bit number of seconds (MQTT 5.0, 3.1.2.11.2); the greatest value means "never".
const LONGEST_SESSION: Duration = Duration::from_secs(4_294_967_294);
/// The columns of `stream` beside `ts`, if they are declared: what is captured from the topic, the flag of
/// retained messages, then the fields in order of their names.
pub(super) fn columns(stream: &StreamConfig) -> Option<Vec<(String, FieldType)>> {
    let captured =
        captures(&stream.topic).unwrap_or_default().into_iter().map(|name| (name, FieldType::Utf8));
    let declared = stream.fields.as_ref()?.iter().map(|(name, field)| (name.clone(), field.field_type()));
    let flag = stream.retained_column.iter().map(|name| (name.clone(), FieldType::Bool));
    Some(captured.chain(flag).chain(declared).collect())
}

/// Checks a connection, and resolves its paths against `base_dir`.
pub(super) fn check_connection(
    config: &mut ConnectionConfig,
    table: &Table<'_>,
    base_dir: &Path,
    report: &mut Report<'_>,
) {
    check_host(&config.host, table, report);
    if let Some(SecretSource::File(path)) = &mut config.password {
        *path = base_dir.join(&*path); // `preflight` looks at it
    }
    if config.password.is_some() && config.username.is_none() && config.version == Version::V3_1_1 {
        let help = "add `username = \"..\"`, or use version \"5\"".to_owned();
        report.error(
            &table.key_span_of(&["password"]),
            "MQTT 3.1.1 has no password without a user name",
            help,
        );
    }
    if config.client_id.as_deref() == Some("") {
        let help = "leave `client_id` out to get `tidegate-BOX-CONNECTION`: it must stay the same, or \
            queued messages are lost"
            .to_owned();
        report.error(&table.span_of(&["client_id"]), "the client id is empty", help);
    }
    if let Some(tls) = &mut config.tls {
        tls::check(tls, table, base_dir, report);
    }
    if config.keep_alive.0 < Duration::from_secs(1) || config.keep_alive.0 > LONGEST_KEEP_ALIVE {
        report.error(
            &table.span_of(&["keep_alive"]),
            format!("`keep_alive` must be from 1s to 65535s, and is {}", config.keep_alive),
            None,
        );
    }
    if config.session_expiry.0 > LONGEST_SESSION {
        report.error(
            &table.span_of(&["session_expiry"]),
            format!("`session_expiry` is at most 49710d, and is {}", config.session_expiry),
            None,
        );
    }
    if !PACKETS.contains(&config.max_packet) {
        let message = format!(
            "`max_packet` must be from {} to {}, and is {}",
            PACKETS.start(),
            PACKETS.end(),
            config.max_packet
        );
        report.error(&table.span_of(&["max_packet"]), message, None);
    }
    check_backoff(&config.backoff, table, report);
    if let Some(Err(why)) = config.last_will.as_ref().map(|will| check_topic_name(&will.topic)) {
        report.error(
            &table.span_of(&["last_will", "topic"]),
            format!("this is not a topic to publish to: {why}"),
            None,
        );
    }
}

/// Checks the table `backoff` in `table`.
pub(super) fn check_backoff(backoff: &BackoffConfig, table: &Table<'_>, report: &mut Report<'_>) {
    if backoff.min.0.is_zero() {
        let help = "write a pause such as \"500ms\": without one, a far side that is down would be called \
            without end"
            .to_owned();
        report.error(&table.span_of(&["backoff", "min"]), "`backoff.min` must be longer than nothing", help);
    }
    if backoff.min > backoff.max {
        let message =
            format!("`backoff.min` ({}) is longer than `backoff.max` ({})", backoff.min, backoff.max);
        report.error(
            &table.span_of(&["backoff", "min"]),
            message,
            "the pause grows from `min` to `max`".to_owned(),
        );
    }
}

fn check_host(host: &str, table: &Table<'_>, report: &mut Report<'_>) {
    let span = table.span_of(&["host"]);
    if let Some((scheme, rest)) = host.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let at = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
        let (name, port) = match at.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            Some((name, port)) => (name, format!(" and `port = {port}`")),
            None => (at, String::new()),
        };
        let tls = match scheme.to_lowercase().as_str() {
            "mqtts" | "ssl" | "tls" | "https" | "wss" => ", and `tls = {}`",
            _ => "; add `tls = {}` for an encrypted line",
        };
        let help = format!("write `host = \"{name}\"`{port}{tls}");
        report.error(&span, "`host` takes a name or an address, not a URL", help);
    } else if let Some((name, port)) = host.split_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
        report.error(
            &span,
            "`host` takes a name or an address, without the port",
            format!("write `host = \"{name}\"` and `port = {port}`"),
        );
    } else if host.is_empty() || host.contains(char::is_whitespace) {
        report.error(&span, format!("\"{host}\" is not a host name or address"), None);
    }
}

/// Checks an input stream.
pub(super) fn check_stream(config: &StreamConfig, table: &Table<'_>, report: &mut Report<'_>) {
    if config.on_disk_failure == OnDiskFailure::Hold {
        let what = "while the disk refuses, the messages of this stream wait, and when `buffer.queue` is \
            full, all streams and outputs";
        let help = "write \"go_on\", if outputs must move also when a crash could lose what was \
            acknowledged meanwhile";
        report.warning(&table.span_of(&["on_disk_failure"]), what, help.to_owned());
    }
    let wrong_before = report.errors();
    check_topic_and_fields(config, table, report);
    check_times(config, table, report);
    // Whatever is left is found by what a box would open.
    if report.errors() == wrong_before
        && let Err(why) = config.decoder(Vec::new())
    {
        report.error(&table.span(), format!("{}: {why}", table.title()), None);
    }
}

/// Checks what is said of times: where there are none, and what contradicts itself.
fn check_times(config: &StreamConfig, table: &Table<'_>, report: &mut Report<'_>) {
    if config.ts_missing.is_some() && config.ts.is_none() {
        let help =
            "name the place of the time, such as `ts = \"time\"`, or leave `ts_missing` out".to_owned();
        let message =
            format!("`ts_missing` is for rows without their time, and {} declares no `ts`", table.title());
        report.error(&table.key_span_of(&["ts_missing"]), message, help);
    }
    if let Some(TsConfig::At(TsAt { unit, format, .. })) = &config.ts {
        check_unit(*unit, format.as_ref(), &["ts"], table, report);
    }
    for (name, field) in config.fields.iter().flatten() {
        let FieldConfig::At(FieldAt { field_type, unit, zone, format, .. }) = field else { continue };
        check_unit(*unit, format.as_ref(), &["fields", name], table, report);
        let keys = [("unit", unit.is_some()), ("zone", zone.is_some()), ("format", format.is_some())];
        for (key, _) in keys.into_iter().filter(|(_, there)| *there && *field_type != FieldType::Timestamp) {
            let help = format!("write `type = \"timestamp\"`, or leave `{key}` out");
            report.error(
                &table.key_span_of(&["fields", name, key]),
                format!("`{key}` is for times, and `{name}` is {field_type}"),
                help,
            );
        }
    }
}

fn check_unit(
    unit: Option<TimeUnit>,
    format: Option<&TextFormat>,
    at: &[&str],
    table: &Table<'_>,
    report: &mut Report<'_>,
) {
    if unit.is_some() && format.is_some() {
        let help = "`format` says how numbers are written, too: leave `unit` out, or `format`".to_owned();
        report.error(
            &table.key_span_of(&[at, &["unit"]].concat()),
            "`unit` and `format` contradict each other",
            help,
        );
    }
}

fn check_topic_and_fields(config: &StreamConfig, table: &Table<'_>, report: &mut Report<'_>) {
    let captured = match captures(&config.topic) {
        Ok(captured) => captured,
        Err(why) => {
            let help = "examples: \"plant/{line}/temperature\", \"plant/+/state\", \"plant/#\"".to_owned();
            report.error(&table.span_of(&["topic"]), format!("this is not a topic filter: {why}"), help);
            Vec::new()
        }
    };
    let mut seen = BTreeSet::new();
    for name in &captured {
        let clash = if name == TS {
            Some("the topic captures `ts`, which is the event time of every row".to_owned())
        } else if !seen.insert(name) {
            Some(format!("the topic captures `{name}` twice"))
        } else if config.fields.as_ref().is_some_and(|fields| fields.contains_key(name)) {
            Some(format!("the column `{name}` is both captured from the topic and declared as a field"))
        } else {
            None
        };
        if let Some(message) = clash {
            report.error(&table.span_of(&["topic"]), message, "give one of them another name".to_owned());
        }
    }
    if let Some(name) = &config.retained_column {
        let is_field = config.fields.as_ref().is_some_and(|fields| fields.contains_key(name));
        let wrong = match names::check_identifier(name) {
            Err(why) => Some(why),
            Ok(()) if name == TS || captured.contains(name) || is_field => {
                Some("the stream has a column of that name already".into())
            }
            Ok(()) => None,
        };
        if let Some(why) = wrong {
            report.error(
                &table.span_of(&["retained_column"]),
                format!("\"{name}\" cannot be the column's name: {why}"),
                None,
            );
        }
    }
    if let Some(fields) = &config.fields {
        check_fields(
            fields.keys(),
            table,
            "leave `fields` out to have the columns inferred from the data",
            report,
        );
    }
}

/// Checks the names of declared fields; `instead` is the advice when there are none.
pub(super) fn check_fields<'a>(
    fields: impl Iterator<Item = &'a String>,
    table: &Table<'_>,
    instead: &str,
    report: &mut Report<'_>,
) {
    if table.is_written_empty("fields") {
        report.error(
            &table.key_span_of(&["fields"]),
            format!("`fields` is empty in {}", table.title()),
            instead.to_owned(),
        );
    }
    for name in fields {
        let span = table.key_span_of(&["fields", name]);
        if name == TS {
            let help = "every row has `ts`, its event time, already; leave it out here, or give the value \
                another name"
                .to_owned();
            report.error(&span, "a field must not be called `ts`", help);
        } else if name.is_empty() {
            report.error(&span, "a field's name is empty", None);
        }
    }
}

/// Checks an output.
pub(super) fn check_output(config: &OutputConfig, table: &Table<'_>, report: &mut Report<'_>) {
    if config.topic.contains("${") {
        let what = "the `$` before the brace stays in the topic";
        report.warning(&table.span_of(&["topic"]), what, "write `{column}`, without it".to_owned());
    }
    if let Err(why) = OutputConfig::topic_of(&config.topic) {
        let help = "examples: \"plant/pump/set\", \"plant/{line}/set\"".to_owned();
        report.error(&table.span_of(&["topic"]), format!("this is not a topic to publish to: {why}"), help);
    }
}

/// What a topic filter captures, in order.
fn captures(filter: &str) -> Result<Vec<String>, String> {
    let captures = Filter::parse(filter)?.captures().to_vec();
    for name in &captures {
        names::check_identifier(name)
            .map_err(|why| format!("\"{name}\" cannot be a column's name: {why}"))?;
    }
    Ok(captures)
}

/// The names in `{braces}` of a topic to publish to.
pub(super) fn placeholders(template: &str) -> Result<Vec<String>, String> {
    Ok(Template::parse_topic(template)?.columns().map(str::to_owned).collect())
}

fn check_topic_name(topic: &str) -> Result<(), String> {
    match placeholders(topic)?.first() {
        None => Ok(()),
        Some(name) => Err(format!("`{{{name}}}` cannot be filled in here; write the topic out")),
    }
}
