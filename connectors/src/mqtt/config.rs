//! What users write about MQTT.

use std::num::NonZeroU16;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use tidegate_core::{ByteSize, Span};

use super::template::{BROKERS_OWN, Template};
use crate::codec::PayloadConfig;
use crate::line::backoff::BackoffConfig;
use crate::secret::SecretSource;
use crate::stream::OnDiskFailure;
use crate::table::{Table, inline, joined};
use crate::tls::TlsConfig;

/// `[connections.NAME]` with `kind = "mqtt"`: one session with a broker.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionConfig {
    /// Host name or address of the broker.
    pub host: String,
    /// TCP port; 1883, or 8883 with `tls`, when absent.
    pub port: Option<NonZeroU16>,
    /// Protocol version.
    #[serde(default)]
    pub version: Version,
    /// Client id; `tidegate-BOX-CONNECTION` when absent. It must be the same after a restart, or queued
    /// messages are lost.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// Where the password is kept.
    pub password: Option<SecretSource>,
    /// TLS; absent means plain TCP.
    pub tls: Option<TlsConfig>,
    /// Longest silence before a ping. A broker that leaves what was sent to it unanswered for twice as long
    /// is given up. On a slow line choose it longer than `in_flight` messages take.
    #[serde(default = "default_keep_alive")]
    pub keep_alive: Span,
    /// How long the broker keeps the session while the box is away (MQTT 5; a 3.1.1 broker decides itself).
    /// Choose it longer than the worst outage.
    #[serde(default = "default_session_expiry")]
    pub session_expiry: Span,
    /// Largest packet that is taken or sent; larger ones are refused with an error.
    #[serde(default = "default_max_packet")]
    pub max_packet: ByteSize,
    /// How many QoS 1 messages may be unacknowledged at a time, in each direction (MQTT 5 Receive Maximum).
    #[serde(default = "default_in_flight")]
    pub in_flight: NonZeroU16,
    /// Shortest and longest pause before connecting again.
    #[serde(default)]
    pub backoff: BackoffConfig,
    /// What the broker publishes when the box goes away without saying so.
    pub last_will: Option<LastWillConfig>,
}

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum Version {
    /// MQTT 3.1.1
    #[serde(rename = "3.1.1")]
    V3_1_1,
    /// MQTT 5.0
    #[default]
    #[serde(rename = "5")]
    V5,
}

/// `last_will`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LastWillConfig {
    /// topic that the broker publishes to
    pub topic: String,
    /// payload
    #[serde(default)]
    pub payload: String,
    /// quality of service, 0 or 1
    #[serde(default)]
    pub qos: Qos,
    /// whether the broker keeps it for later subscribers
    #[serde(default)]
    pub retain: bool,
}

/// Quality of service: 0 (at most once) or 1 (at least once).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "u8")]
pub enum Qos {
    /// 0
    AtMostOnce,
    /// 1
    #[default]
    AtLeastOnce,
}

impl JsonSchema for Qos {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Qos".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 0, "maximum": 1, "description": "quality of \
            service: 0 (at most once) or 1 (at least once)" })
    }
}

impl TryFrom<u8> for Qos {
    type Error = String;

    fn try_from(qos: u8) -> Result<Self, String> {
        match qos {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Err("QoS 2 is not supported: use 1; repeats are dropped by their ids".into()),
            _ => Err(format!("there is no QoS {qos}: use 0 or 1")),
        }
    }
}

/// `[streams.NAME]` on an MQTT connection.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The connection's name.
    pub connection: String,
    /// Topic filter. `{name}` stands for one level and becomes a text column; `+` and a final `#` match
    /// without a column; `$share/GROUP/...` shares the subscription.
    pub topic: String,
    /// Quality of service of the subscription.
    #[serde(default)]
    pub qos: Qos,
    /// What becomes of messages that the broker had retained.
    #[serde(default)]
    pub retained: Retained,
    /// Name of a boolean column that says whether the message is one that the broker had retained; absent: no
    /// such column.
    pub retained_column: Option<String>,
    /// Whether rows are kept in the journal, so that rules' state survives a restart; default: yes with QoS
    /// 1, no with QoS 0.
    pub journal: Option<bool>,
    /// What happens while the disk refuses to be written.
    #[serde(default)]
    pub on_disk_failure: OnDiskFailure,
    /// What the payload is, and where the values are in it: keys of their own, which every connection that
    /// carries bytes has.
    #[serde(skip)]
    pub payload: PayloadConfig,
}

impl StreamConfig {
    /// Reads the table of a stream.
    pub fn read(table: &mut impl Table) -> Option<Self> {
        let payload = table.take(PayloadConfig::KEYS);
        let config: Self = table.read()?;
        Some(Self { payload: payload?, ..config })
    }

    /// What the table may look like.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        joined(&[inline::<Self>(generator), inline::<PayloadConfig>(generator)])
    }

    /// Whether rows are kept in the journal.
    #[must_use]
    pub fn is_journaled(&self) -> bool {
        self.journal.unwrap_or(self.qos == Qos::AtLeastOnce)
    }
}

/// What becomes of messages that a broker has retained: it sends them again for each new subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Retained {
    /// One makes a row when it is new to the stream, and never again.
    #[default]
    First,
    /// Each one makes a row whenever the broker sends it.
    Always,
    /// None makes a row.
    Never,
}

/// `[outputs.NAME]` on an MQTT connection.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// The connection's name.
    pub connection: String,
    /// Topic; `{column}` is replaced by the row's value. A null, an empty value or one with `/`, `+` or `#`
    /// refuses the row.
    pub topic: String,
    /// Payload; `{column}` is replaced by the row's value. Absent: the whole row as a JSON object.
    pub payload: Option<String>,
    /// Quality of service.
    #[serde(default)]
    pub qos: Qos,
    /// Whether the broker keeps the last message for later subscribers.
    #[serde(default)]
    pub retain: bool,
}

impl OutputConfig {
    /// The template that a topic is, of which an output may write what comes out.
    ///
    /// # Errors
    /// Why it is none, in words for the user.
    pub fn topic_of(topic: &str) -> Result<Template, String> {
        let template = Template::parse_topic(topic)?;
        if topic.starts_with('$') { Err(BROKERS_OWN.into()) } else { Ok(template) }
    }
}

/// The keys of an uplink by an MQTT connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// The connection's name.
    pub connection: String,
    /// Topic that rows are published to; `{box}` and `{rule}` are replaced by the box's and the rule's name.
    #[serde(default = "default_uplink_topic")]
    pub topic: String,
}

/// What a packet may have at most: smaller limits would refuse ordinary messages, and CONNECT itself; a
/// packet's remaining length is at most 268 435 455 bytes (MQTT 5.0, section 1.5.5).
pub const PACKETS: std::ops::RangeInclusive<ByteSize> = ByteSize(1024)..=ByteSize(268_435_455);

fn default_uplink_topic() -> String {
    "tidegate/{box}/{rule}".into()
}

fn default_keep_alive() -> Span {
    Span(Duration::from_secs(30))
}

fn default_session_expiry() -> Span {
    Span(Duration::from_secs(7 * 24 * 3600))
}

fn default_max_packet() -> ByteSize {
    ByteSize(1 << 20)
}

fn default_in_flight() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_journaled_with_qos_1_unless_the_user_says_otherwise() {
        for (keys, journaled) in [
            (r#""qos": 1"#, true),
            (r#""qos": 0"#, false),
            (r#""qos": 1, "journal": false"#, false),
            (r#""qos": 0, "journal": true"#, true),
        ] {
            let config: StreamConfig =
                serde_json::from_str(&format!(r#"{{"connection": "c", "topic": "t", {keys}}}"#)).unwrap();
            assert_eq!(config.is_journaled(), journaled, "{keys}");
        }
    }
}
