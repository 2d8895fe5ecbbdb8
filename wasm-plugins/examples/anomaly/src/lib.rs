//! Finds values that are unlike those before: how many standard deviations is each away from the mean?
//!
//! Mean and variance are weighted exponentially (T. Finch, "Incremental calculation of weighted mean and
//! variance", 2009, section 9), so that three numbers a key are all that is kept.

use serde::{Deserialize, Serialize};
use tidegate_plugin::prelude::*;

/// `[config]` of `anomaly.toml`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// the column that is looked at
    value: String,
    /// each of these has a mean of its own
    key: Option<String>,
    /// about how many values the mean goes back
    memory: u32,
    /// standard deviations from which on a value is written
    threshold: f64,
}

/// What is known of a key's values.
#[derive(Default, Serialize, Deserialize)]
pub struct Seen {
    count: u32,
    mean: f64,
    variance: f64,
}

/// The plugin.
pub struct Anomaly {
    value: Column<f64>,
    key: Option<Column<str>>,
    memory: u32,
    weight: f64,
    threshold: f64,
    anomalies: Target,
    fields: Fields,
}

struct Fields {
    ts: Option<Field<Timestamp>>,
    key: Option<Field<str>>,
    value: Option<Field<f64>>,
    score: Field<f64>,
}

impl Plugin for Anomaly {
    type Config = Config;
    type State = Keyed<Seen>;

    fn new(config: Config, schema: &Schema) -> Result<Self> {
        if config.memory < 2 {
            return Err("`memory` must be at least 2: one value has no deviation".into());
        }
        if config.threshold <= 0.0 {
            return Err("`threshold` must be greater than 0".into());
        }
        let anomalies = schema.only_target()?;
        Ok(Self {
            value: schema.column(&config.value)?,
            key: config.key.map(|key| schema.column(&key)).transpose()?,
            memory: config.memory,
            weight: 2.0 / (f64::from(config.memory) + 1.0),
            threshold: config.threshold,
            fields: Fields {
                ts: anomalies.field_if_there("ts")?,
                key: anomalies.field_if_there("key")?,
                value: anomalies.field_if_there("value")?,
                score: anomalies.field("score")?,
            },
            anomalies,
        })
    }

    fn on_row(&self, row: Row<'_>, state: &mut Self::State, out: &mut Out) -> Result<()> {
        let Some(value) = row.get(&self.value).filter(|value| value.is_finite()) else { return Ok(()) };
        let key = self.key.as_ref().map(|key| row.get(key).unwrap_or_default()).unwrap_or_default();
        let seen = state.entry(key);
        // Until it has seen enough, everything is unlike what was before.
        let score = seen.score(value).filter(|_| seen.count >= self.memory);
        seen.take(value, self.weight);
        if let Some(score) = score.filter(|score| score.abs() >= self.threshold) {
            let Fields { ts, key: key_field, value: value_field, score: score_field } = &self.fields;
            let said = [
                ts.map(|field| field.is(row.ts())),
                key_field.map(|field| field.is(key)),
                value_field.map(|field| field.is(value)),
                Some(score_field.is(score)),
            ];
            let said: Vec<_> = said.into_iter().flatten().collect();
            out.write(&self.anomalies, &said);
        }
        Ok(())
    }

    fn config_schema() -> String {
        include_str!("config.schema.json").to_owned()
    }
}

impl Seen {
    /// How many standard deviations `value` is from the mean; `None`: nothing has deviated yet.
    fn score(&self, value: f64) -> Option<f64> {
        (self.variance > 0.0).then(|| (value - self.mean) / self.variance.sqrt())
    }

    fn take(&mut self, value: f64, weight: f64) {
        if self.count == 0 {
            self.mean = value;
        } else {
            let difference = value - self.mean;
            let increment = weight * difference;
            self.mean += increment;
            self.variance = (1.0 - weight) * (self.variance + difference * increment);
        }
        self.count = self.count.saturating_add(1);
    }
}

export!(Anomaly);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plugin::Kind;
    use tidegate_plugin::testing::Bench;

    fn bench(config: &str) -> Bench<Anomaly> {
        Bench::new(config)
            .input("press", &[("device", Kind::Utf8), ("pressure", Kind::Float64)])
            .target("anomalies", &[("key", Kind::Utf8), ("score", Kind::Float64)])
    }

    const CONFIG: &str = r#"{"value": "pressure", "key": "device", "memory": 4, "threshold": 3.0}"#;

    #[test]
    fn a_value_unlike_those_before_is_written_with_its_key() {
        let mut bench = bench(CONFIG);
        let mut lines = Vec::new();
        for pressure in [10.0, 11.0, 10.0, 11.0, 10.0, 30.0] {
            for device in ["a", "b"] {
                let pressure = if device == "a" { pressure } else { 10.0 };
                let row: &[_] = &[("device", device.into()), ("pressure", pressure.into())];
                lines.extend(bench.batch("press", &[row]).unwrap());
            }
        }
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        // Reckoned by hand: weight 0.4; mean 10.3264, variance 0.21986304 before the last value.
        let expected = (30.0 - 10.326_4) / 0.219_863_04_f64.sqrt();
        assert_eq!(line.text("key"), Some("a"));
        let score = line.number("score").unwrap();
        assert!((score - expected).abs() < 1e-9, "{score} {expected}");
    }

    #[test]
    fn a_wrong_configuration_is_refused_in_words() {
        let error = |config: &str| bench(config).check().unwrap_err();
        assert_eq!(
            error(&CONFIG.replace("pressure", "presure")),
            "there is no column `presure` in `press`; did you mean `pressure`?"
        );
        assert_eq!(
            error(&CONFIG.replace("4", "1")),
            "`memory` must be at least 2: one value has no deviation"
        );
        assert!(error(&CONFIG.replace("key", "kez")).starts_with("[config]: unknown field `kez`"));
    }
}
