//! What the engine asks of an output.

use schemars::{Schema, SchemaGenerator};
use tidegate_core::FieldType;

use crate::connection::{ConnectionConfig, Kind};
use crate::modbus::config::ReadBack;
use crate::table::{Problem, Review, Table, inline};
use crate::{can, modbus, mqtt, serial};

/// `[outputs.NAME]`, for each kind of connection that it writes to.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputConfig {
    /// a message a row
    Mqtt(mqtt::OutputConfig),
    /// coils and registers
    Modbus(modbus::OutputConfig),
    /// frames of a bus
    Can(can::OutputConfig),
    /// bytes for a device on a serial line, a row each
    Serial(serial::OutputConfig),
}

impl OutputConfig {
    /// Reads the table of an output on a connection of this kind.
    pub fn read(kind: Kind, table: &mut impl Table) -> Option<Self> {
        match kind {
            Kind::Mqtt => table.read().map(Self::Mqtt),
            Kind::Modbus => table.read().map(Self::Modbus),
            Kind::Can => table.read().map(Self::Can),
            Kind::Serial => table.read().map(Self::Serial),
        }
    }

    /// Says what is wrong with it, and keeps what it takes from files. `connection`: the one that it writes
    /// to, if that is known.
    pub fn check(&mut self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => config.check(review),
            Self::Modbus(config) => config.check(connection.and_then(ConnectionConfig::as_modbus), review),
            Self::Can(config) => config.check(connection.and_then(ConnectionConfig::as_can), review),
            Self::Serial(config) => config.check(review),
        }
    }

    /// The name of the connection that it writes to.
    #[must_use]
    pub fn connection(&self) -> &str {
        match self {
            Self::Mqtt(config) => &config.connection,
            Self::Modbus(config) => &config.connection,
            Self::Can(config) => &config.connection,
            Self::Serial(config) => &config.connection,
        }
    }

    /// The columns that rows for it must have, by name.
    #[must_use]
    pub fn required_columns(&self) -> Vec<String> {
        match self {
            Self::Mqtt(config) => config.required_columns(),
            Self::Modbus(_) => Vec::new(),
            Self::Can(config) => config.required.clone(),
            Self::Serial(config) => config.required_columns(),
        }
    }

    /// The columns that it takes, with their types; `None`: any, as they are.
    #[must_use]
    pub fn columns(&self) -> Option<Vec<(String, FieldType)>> {
        match self {
            Self::Mqtt(_) | Self::Serial(_) => None,
            Self::Modbus(config) => Some(config.columns()),
            Self::Can(config) => Some(config.columns.clone()),
        }
    }

    /// The least and the greatest value of columns that take numbers, where they have limits: what is beyond
    /// them by more than rounding is refused when it is written.
    #[must_use]
    pub fn ranges(&self) -> Vec<(String, f64, f64)> {
        match self {
            Self::Mqtt(_) | Self::Serial(_) => Vec::new(),
            Self::Modbus(config) => config.ranges(),
            Self::Can(config) => config.ranges.clone(),
        }
    }

    /// The names that columns take in place of numbers.
    #[must_use]
    pub fn labels(&self) -> Vec<(String, Vec<String>)> {
        match self {
            Self::Mqtt(_) | Self::Serial(_) => Vec::new(),
            Self::Modbus(config) => config.labels(),
            Self::Can(config) => config.labels_of_columns.clone(),
        }
    }

    /// Whether it moves a machine, and not only tells something.
    #[must_use]
    pub fn moves_machines(&self) -> bool {
        match self {
            Self::Mqtt(_) => false,
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => true,
        }
    }

    /// The columns that say which of several things it moves.
    #[must_use]
    pub fn instance_columns(&self) -> Vec<String> {
        match self {
            Self::Mqtt(config) => config.topic_columns(),
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => Vec::new(),
        }
    }

    /// Whether [`crate::Sink::read`] says what the device has.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        match self {
            Self::Modbus(_) => true,
            Self::Mqtt(_) | Self::Can(_) | Self::Serial(_) => false,
        }
    }

    /// Whether [`crate::Sink::deliver`] looks itself whether the device has what was written.
    #[must_use]
    pub fn reads_back(&self) -> bool {
        match self {
            Self::Modbus(config) => config.read_back != ReadBack::No,
            Self::Mqtt(_) | Self::Can(_) | Self::Serial(_) => false,
        }
    }

    /// Why what it wrote may stand for ever, and what would help, if nothing says when it expires
    /// ([`crate::Sink::expire_after`]). `connection`: the one that it writes to.
    #[must_use]
    pub fn outlives_the_box(&self, connection: &ConnectionConfig) -> Option<Problem> {
        match self {
            Self::Mqtt(config) => config.outlives_the_box(connection.as_mqtt()?),
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => None,
        }
    }

    /// Why what it writes cannot expire, if it is so.
    #[must_use]
    pub fn refuses_expiry(&self, connection: &ConnectionConfig) -> Option<Problem> {
        match self {
            Self::Mqtt(config) => config.refuses_expiry(connection.as_mqtt()?),
            Self::Modbus(_) | Self::Can(_) | Self::Serial(_) => None,
        }
    }

    /// Whether the far side is told, or can tell by itself, that the box has died: only then can anything be
    /// done about what it wrote. What a device does by itself the box does not know.
    #[must_use]
    pub fn falls_back_by_itself(&self, connection: &ConnectionConfig) -> bool {
        match self {
            Self::Mqtt(_) => connection.as_mqtt().is_some_and(|broker| broker.last_will.is_some()),
            // Receivers of what is sent again and again see its silence.
            Self::Can(config) => config.every.is_some() && config.expiry.is_some(),
            Self::Modbus(_) | Self::Serial(_) => false,
        }
    }

    /// What the table may look like, for each kind.
    pub fn schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
        vec![
            inline::<mqtt::OutputConfig>(generator),
            inline::<modbus::OutputConfig>(generator),
            inline::<can::OutputConfig>(generator),
            inline::<serial::OutputConfig>(generator),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn table(value: &Value) -> serde_json::Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn output(kind: Kind, config: &Value) -> OutputConfig {
        OutputConfig::read(kind, &mut table(config)).unwrap()
    }

    fn broker(more: &Value) -> ConnectionConfig {
        let mut config = table(&json!({ "host": "broker" }));
        config.extend(table(more));
        ConnectionConfig::read(Kind::Mqtt, &mut config).unwrap()
    }

    #[test]
    fn a_topic_tells_instances_apart_and_machines_are_moved_elsewhere() {
        let config = json!({ "connection": "c", "topic": "{line}/{press}/{line}/set", "payload": "{run}" });
        let topic = output(Kind::Mqtt, &config);
        assert_eq!(topic.instance_columns(), ["line", "press"]);
        assert!(!topic.moves_machines() && !topic.is_readable());
        let pump = output(Kind::Modbus, &json!({ "connection": "c", "fields": { "run": { "coil": 5 } } }));
        assert!(pump.moves_machines() && pump.is_readable() && pump.instance_columns().is_empty());
    }

    #[test]
    fn what_a_broker_retains_outlives_the_box_unless_it_expires() {
        let config = |retain: bool| json!({ "connection": "c", "topic": "a", "retain": retain });
        let (kept, passing) = (output(Kind::Mqtt, &config(true)), output(Kind::Mqtt, &config(false)));
        let (new, old) = (broker(&json!({})), broker(&json!({ "version": "3.1.1" })));
        let help = |problem: Option<Problem>| problem.map(|problem| (problem.at, problem.help.unwrap()));
        let (at, advice) = help(kept.outlives_the_box(&new)).unwrap();
        assert!(at == ["retain"] && advice.contains("`expiry`"), "{advice}");
        for refusal in [kept.outlives_the_box(&old), kept.refuses_expiry(&old)] {
            let (at, advice) = help(refusal).unwrap();
            assert!(at == ["retain"] && advice.contains("version = \"5\""), "{advice}");
        }
        assert_eq!(kept.refuses_expiry(&new), None);
        for connection in [&new, &old] {
            assert_eq!(
                (passing.outlives_the_box(connection), passing.refuses_expiry(connection)),
                (None, None)
            );
        }
    }

    #[test]
    fn a_death_of_the_box_is_noticed_by_a_last_will_or_by_the_silence_of_a_message() {
        let topic = output(Kind::Mqtt, &json!({ "connection": "c", "topic": "a" }));
        assert!(!topic.falls_back_by_itself(&broker(&json!({}))));
        assert!(topic.falls_back_by_itself(&broker(&json!({ "last_will": { "topic": "box/state" } }))));
        let bus = ConnectionConfig::read(Kind::Can, &mut table(&json!({ "interface": "can0" }))).unwrap();
        for (config, notices) in [
            (json!({ "connection": "c", "id": "0x123" }), false),
            (json!({ "connection": "c", "id": "0x123", "every": "100ms", "expiry": "1s" }), true),
        ] {
            assert_eq!(output(Kind::Can, &config).falls_back_by_itself(&bus), notices, "{config}");
        }
    }
}
