//! `[management]`: who may tell the box what to do from afar, and how.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_connectors::connection::Kind;
use tidegate_connectors::{ConnectionConfig, remote};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_trust::freshness::NoClock;
use tidegate_trust::gate::Unsigned;

use super::document::{Report, Table};
use super::names;

/// `[management]`: the box is managed from afar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Management {
    /// The connection, which is in [`Config::connections`] and carries messages.
    pub connection: String,
    /// How all topics begin.
    pub prefix: String,
    /// The groups that the box is in.
    pub groups: Vec<String>,
    /// What is done with what nobody has signed.
    pub unsigned: Unsigned,
    /// What is done with a command that may be too old, while the box does not know the time.
    pub no_clock: NoClock,
}

/// `[management]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ManagementKeys {
    /// The connection by which the box is managed, one that carries messages. It gets a session of its own.
    pub(super) connection: String,
    /// How all topics of management begin.
    #[serde(default = "default_prefix")]
    pub(super) prefix: String,
    /// Groups of boxes that this one is in: it takes commands for them, too.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// What is done with what nobody has signed.
    #[serde(default)]
    pub(super) unsigned: UnsignedKey,
    /// What is done with a command that may be too old, while the box does not know the time.
    #[serde(default)]
    #[schemars(with = "NoClockKey")]
    pub(super) no_clock: NoClock,
}

/// What is done with what nobody has signed.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum UnsignedKey {
    /// Nothing: also questions have to be signed.
    Refuse,
    /// Questions are answered.
    #[default]
    Queries,
    /// All of it is done: whoever can publish on the box's topics commands it.
    Allow,
}

impl From<UnsignedKey> for Unsigned {
    fn from(key: UnsignedKey) -> Self {
        match key {
            UnsignedKey::Refuse => Self::Refuse,
            UnsignedKey::Queries => Self::Queries,
            UnsignedKey::Allow => Self::Allow,
        }
    }
}

/// [`NoClock`] as the schema shows it.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum NoClockKey {
    /// It waits for the time, up to a quarter of an hour; then rules are taken, and all else is refused.
    Hold,
    /// It is taken.
    Accept,
    /// It is refused.
    Refuse,
}

/// Reads the table, and says what is wrong with it. `kinds`: of all connections that there are, also wrong ones.
pub(super) fn read(
    table: &Table<'_>,
    connections: &BTreeMap<String, ConnectionConfig>,
    kinds: &BTreeMap<String, Option<Kind>>,
    report: &mut Report<'_>,
) -> Option<Management> {
    let keys: ManagementKeys = table.read(&[], report)?;
    let at = |key: &str| table.span_of(&[key]);
    match connections.get(&keys.connection) {
        Some(connection) if connection.carries_messages() => {}
        Some(_) => report.error(
            &at("connection"),
            format!("the box cannot be managed by the connection `{}`", keys.connection),
            format!("name one with {}", remote::KIND),
        ),
        // One that is there and wrong has been told of.
        None if kinds.contains_key(&keys.connection) => {}
        None => {
            let known: Vec<&str> = kinds.keys().map(String::as_str).collect();
            let message = format!("there is no connection `{}`", keys.connection);
            report.error(&at("connection"), message, did_you_mean(&keys.connection, &known));
        }
    }
    let is_level = |level: &str| !level.is_empty() && !level.contains(['+', '#', '\0']);
    if !keys.prefix.split('/').all(is_level) || keys.prefix.starts_with('$') {
        report.error(
            &at("prefix"),
            format!("\"{}\" cannot begin a topic", keys.prefix),
            "write levels with slashes between them, such as \"tidegate/v1\"".to_owned(),
        );
    }
    for (group, span) in table.texts("groups") {
        if let Err(why) = names::check_box(group) {
            report.error(&span, format!("\"{group}\" cannot be a group's name"), why);
        }
    }
    let ManagementKeys { connection, prefix, groups, unsigned, no_clock } = keys;
    Some(Management { connection, prefix, groups, unsigned: unsigned.into(), no_clock })
}

fn default_prefix() -> String {
    "tidegate/v1".into()
}
