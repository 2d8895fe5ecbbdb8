//! What must hold for connections, streams and outputs beyond the types of their keys.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_core::names::check_identifier;
use tidegate_core::{FieldType, TS};

use super::config::{ConnectionConfig, OutputConfig, PACKETS, StreamConfig, UplinkConfig, Version};
use super::template::Template;
use super::topic::Filter;
use crate::connection;
use crate::line::tcp::host_problem;
use crate::stream::OnDiskFailure;
use crate::table::{At, Problem, Review, tell};

/// Keep-alive is a 16-bit number of seconds (MQTT 5.0, 3.1.2.10).
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(65_535);
/// Session expiry is a 32-bit number of seconds (MQTT 5.0, 3.1.2.11.2); the greatest value means "never".
const LONGEST_SESSION: Duration = Duration::from_secs(4_294_967_294);

impl ConnectionConfig {
    /// Says what is wrong with it, and resolves its paths.
    pub(crate) fn check(&mut self, review: &mut Review<'_>) {
        check_host(&self.host, review);
        if let Some(password) = &mut self.password {
            password.resolve(review.base_dir);
        }
        if self.password.is_some() && self.username.is_none() && self.version == Version::V3_1_1 {
            let help = "add `username = \"..\"`, or use version \"5\"".to_owned();
            let what = "MQTT 3.1.1 has no password without a user name";
            review.error(At::key(&["password"]), what, help);
        }
        if self.client_id.as_deref() == Some("") {
            let help = "leave `client_id` out to get `tidegate-BOX-CONNECTION`: it must stay the same, or \
                queued messages are lost"
                .to_owned();
            review.error(At::value(&["client_id"]), "the client id is empty", help);
        }
        if let Some(tls) = &mut self.tls {
            tls.check(review);
        }
        if self.keep_alive.0 < Duration::from_secs(1) || self.keep_alive.0 > LONGEST_KEEP_ALIVE {
            let message = format!("`keep_alive` must be from 1s to 65535s, and is {}", self.keep_alive);
            review.error(At::value(&["keep_alive"]), message, None);
        }
        if self.session_expiry.0 > LONGEST_SESSION {
            let message = format!("`session_expiry` is at most 49710d, and is {}", self.session_expiry);
            review.error(At::value(&["session_expiry"]), message, None);
        }
        if !PACKETS.contains(&self.max_packet) {
            let (least, most) = (PACKETS.start(), PACKETS.end());
            let message = format!("`max_packet` must be from {least} to {most}, and is {}", self.max_packet);
            review.error(At::value(&["max_packet"]), message, None);
        }
        self.backoff.check(review);
        if let Some(Err(why)) = self.last_will.as_ref().map(|will| check_topic_name(&will.topic)) {
            let message = format!("this is not a topic to publish to: {why}");
            review.error(At::value(&["last_will", "topic"]), message, None);
        }
    }

    /// Two sessions with one client id throw each other out, again and again.
    pub(crate) fn check_beside<'a>(
        &self,
        name: &str,
        earlier: impl DoubleEndedIterator<Item = (&'a str, &'a Self)>,
        review: &mut Review<'_>,
    ) {
        let Some(client_id) = &self.client_id else { return };
        let session = |of: &Self| (of.host.clone(), of.port, of.client_id.clone());
        if let Some((other, _)) = earlier.rev().find(|(_, other)| session(other) == session(self)) {
            let message =
                format!("`{name}` and `{other}` use the same client id \"{client_id}\" on the same broker");
            let help = "a broker keeps only one session a client id: give each connection its own, or \
                leave `client_id` out"
                .to_owned();
            review.error(At::value(&["client_id"]), message, help);
        }
    }
}

fn check_host(host: &str, review: &mut Review<'_>) {
    let at = At::value(&["host"]);
    if let Some((scheme, rest)) = host.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
        let (name, port) = match address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            Some((name, port)) => (name, format!(" and `port = {port}`")),
            None => (address, String::new()),
        };
        let tls = match scheme.to_lowercase().as_str() {
            "mqtts" | "ssl" | "tls" | "https" | "wss" => ", and `tls = {}`",
            _ => "; add `tls = {}` for an encrypted line",
        };
        let help = format!("write `host = \"{name}\"`{port}{tls}");
        review.error(at, "`host` takes a name or an address, not a URL", help);
    } else {
        tell(host_problem(host).into_iter().collect(), review);
    }
}

impl StreamConfig {
    /// Says what is wrong with it.
    pub(crate) fn check(&self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        if self.on_disk_failure == OnDiskFailure::Hold {
            let what = "while the disk refuses, the messages of this stream wait, and when `buffer.queue` is \
                full, all streams and outputs";
            let help = "write \"go_on\", if outputs must move also when a crash could lose what was \
                acknowledged meanwhile";
            review.warning(At::value(&["on_disk_failure"]), what, help.to_owned());
        }
        // A broker that knows no shared subscriptions waits for messages of that very topic.
        let is_shared = self.topic.starts_with("$share/");
        if is_shared && connection.is_some_and(|connection| connection.version == Version::V3_1_1) {
            let what = "shared subscriptions came with MQTT 5: with version \"3.1.1\" many brokers grant \
                this one and send nothing";
            let help = "set `version = \"5\"` if the broker knows it".to_owned();
            review.warning(At::value(&["topic"]), what, help);
        }
        self.check_topic(review);
        self.payload.check_fields(review);
        self.payload.check_format(review);
        self.payload.check_times(review);
        // Whatever is left is found by what a box would open.
        if !review.has_errors()
            && let Err(why) = self.decoder(Vec::new())
        {
            review.absence(At::Table, format!("{}: {why}", review.title), None);
        }
    }

    /// The columns behind `ts`, if they are declared: what is captured from the topic, the flag of retained
    /// messages, then the fields in order of their names.
    pub(crate) fn columns(&self) -> Option<Vec<(String, FieldType)>> {
        let captured = captures(&self.topic).unwrap_or_default().into_iter();
        let captured = captured.map(|name| (name, FieldType::Utf8));
        let flag = self.retained_column.iter().map(|name| (name.clone(), FieldType::Bool));
        Some(captured.chain(flag).chain(self.payload.columns()?).collect())
    }

    fn check_topic(&self, review: &mut Review<'_>) {
        let captured = match captures(&self.topic) {
            Ok(captured) => captured,
            Err(why) => {
                let help =
                    "examples: \"plant/{line}/temperature\", \"plant/+/state\", \"plant/#\"".to_owned();
                review.error(At::value(&["topic"]), format!("this is not a topic filter: {why}"), help);
                Vec::new()
            }
        };
        let is_field = |name: &String| self.payload.fields.as_ref().is_some_and(|all| all.contains_key(name));
        let mut seen = BTreeSet::new();
        for name in &captured {
            let clash = if name == TS {
                Some("the topic captures `ts`, which is the event time of every row".to_owned())
            } else if !seen.insert(name) {
                Some(format!("the topic captures `{name}` twice"))
            } else if is_field(name) {
                Some(format!("the column `{name}` is both captured from the topic and declared as a field"))
            } else {
                None
            };
            if let Some(message) = clash {
                review.error(At::value(&["topic"]), message, "give one of them another name".to_owned());
            }
        }
        let Some(name) = &self.retained_column else { return };
        let wrong = match check_identifier(name) {
            Err(why) => Some(why),
            Ok(()) if name == TS || captured.contains(name) || is_field(name) => {
                Some("the stream has a column of that name already".into())
            }
            Ok(()) => None,
        };
        if let Some(why) = wrong {
            let message = format!("\"{name}\" cannot be the column's name: {why}");
            review.error(At::value(&["retained_column"]), message, None);
        }
    }
}

impl OutputConfig {
    /// Says what is wrong with it.
    pub(crate) fn check(&self, review: &mut Review<'_>) {
        if self.topic.contains("${") {
            let what = "the `$` before the brace stays in the topic";
            review.warning(At::value(&["topic"]), what, "write `{column}`, without it".to_owned());
        }
        if let Err(why) = Self::topic_of(&self.topic) {
            let help = "examples: \"plant/pump/set\", \"plant/{line}/set\"".to_owned();
            let message = format!("this is not a topic to publish to: {why}");
            review.error(At::value(&["topic"]), message, help);
        }
    }

    /// The columns that stand in its topic and its payload, by name.
    pub(crate) fn required_columns(&self) -> Vec<String> {
        let topic = Template::parse(&self.topic);
        let payload = self.payload.as_deref().map(Template::parse);
        let columns = topic.columns().chain(payload.iter().flat_map(Template::columns));
        columns.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The columns that stand in its topic, in their order.
    pub(crate) fn topic_columns(&self) -> Vec<String> {
        let (topic, mut columns) = (Template::parse(&self.topic), Vec::new());
        for column in topic.columns() {
            if !columns.iter().any(|known| known == column) {
                columns.push(column.to_owned());
            }
        }
        columns
    }

    /// Why what it wrote may stand for ever, if nothing says when it expires.
    pub(crate) fn outlives_the_box(&self, connection: &ConnectionConfig) -> Option<Problem> {
        let what = "the broker keeps the last message (`retain = true`) and hands it to every device that \
            asks for the topic, for ever, also when the box has long been gone";
        let help = match connection.version {
            Version::V5 => {
                "give the contract an `expiry` that is a time: the broker drops the message then; \
                or leave `retain` out"
            }
            Version::V3_1_1 => UNTIL,
        };
        self.retain.then(|| Problem::new(&["retain"], what).help(help))
    }

    /// Why what it writes cannot expire.
    pub(crate) fn refuses_expiry(&self, connection: &ConnectionConfig) -> Option<Problem> {
        let what = "the broker keeps the last message (`retain = true`) for ever, whatever the contract's \
            `expiry` says: MQTT 3.1.1 has no messages that expire";
        let is_refused = self.retain && connection.version == Version::V3_1_1;
        is_refused.then(|| Problem::new(&["retain"], what).help(UNTIL))
    }
}

const UNTIL: &str = "leave `retain` out, or set `version = \"5\"` in the connection if the broker knows it: \
    there a message expires as the contract's `expiry` says";

impl UplinkConfig {
    /// Says what is wrong with it. `connection`: the one that it goes by, if that is known.
    pub(crate) fn check(&self, connection: Option<&connection::ConnectionConfig>, review: &mut Review<'_>) {
        if connection.is_some_and(|connection| connection.as_mqtt().is_none()) {
            let what = format!("`{}` is no session with a broker, and takes no rows", self.connection);
            let help = "name a connection of kind \"mqtt\", or write `url` for a web server".to_owned();
            review.error(At::value(&["connection"]), what, help);
        }
        let wrong = match Template::parse_topic(&self.topic) {
            Err(why) => Some((why, None)),
            Ok(topic) => topic.columns().find(|name| !["box", "rule"].contains(name)).map(|name| {
                (format!("`{{{name}}}` cannot be filled in"), Some("`{box}` and `{rule}` can".to_owned()))
            }),
        };
        if let Some((why, help)) = wrong {
            let message = format!("this is not a topic to publish to: {why}");
            review.error(At::value(&["topic"]), message, help);
        }
    }
}

/// What a topic filter captures, in order.
fn captures(filter: &str) -> Result<Vec<String>, String> {
    let captures = Filter::parse(filter)?.captures().to_vec();
    for name in &captures {
        check_identifier(name).map_err(|why| format!("\"{name}\" cannot be a column's name: {why}"))?;
    }
    Ok(captures)
}

fn check_topic_name(topic: &str) -> Result<(), String> {
    match Template::parse_topic(topic)?.columns().next() {
        None => Ok(()),
        Some(name) => Err(format!("`{{{name}}}` cannot be filled in here; write the topic out")),
    }
}
