//! Says when a value has been too high for some readings in a row.

use serde::Deserialize;
use tidegate_plugin::prelude::*;

/// `[config]` of NAME.toml
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    column: String,
    limit: f64,
    readings: u32,
}

/// The plugin: what it was told, and the columns that it uses.
struct Rule {
    config: Config,
    value: Column<f64>,
    device: Column<str>,
    alarms: Target,
    alarm_device: Field<str>,
    alarm_value: Field<f64>,
}

impl Plugin for Rule {
    type Config = Config;
    /// For each device: how many readings were too high, one after the other.
    type State = Keyed<u32>;

    fn new(config: Config, schema: &Schema) -> Result<Self> {
        if config.readings == 0 {
            return Err("`readings` must be at least 1".into());
        }
        let alarms = schema.only_target()?;
        Ok(Self {
            value: schema.column(&config.column)?,
            device: schema.column("device")?,
            alarm_device: alarms.field("device")?,
            alarm_value: alarms.field("value")?,
            alarms,
            config,
        })
    }

    fn on_row(&self, row: Row<'_>, state: &mut Self::State, out: &mut Out) -> Result<()> {
        let Some(value) = row.get(&self.value) else { return Ok(()) };
        let device = row.get(&self.device).unwrap_or_default();
        let high = state.entry(device);
        *high = if value > self.config.limit { *high + 1 } else { 0 };
        if *high == self.config.readings {
            out.write(&self.alarms, &[self.alarm_device.is(device), self.alarm_value.is(value)]);
        }
        Ok(())
    }
}

export!(Rule);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plugin::Kind;
    use tidegate_plugin::testing::Bench;

    #[test]
    fn one_high_reading_is_no_alarm() {
        let mut bench = Bench::<Rule>::new(r#"{"column": "temperature", "limit": 80.0, "readings": 2}"#)
            .input("readings", &[("device", Kind::Utf8), ("temperature", Kind::Float64)])
            .target("uplink", &[("device", Kind::Utf8), ("value", Kind::Float64)]);
        let mut alarms = Vec::new();
        for temperature in [81.0, 79.0, 82.0, 83.0, 84.0] {
            let row: &[_] = &[("device", "7".into()), ("temperature", temperature.into())];
            alarms.extend(bench.batch("readings", &[row]).unwrap());
        }
        let alarms: Vec<String> = alarms.iter().map(ToString::to_string).collect();
        assert_eq!(alarms, ["uplink device=7 value=83"]);
    }
}
