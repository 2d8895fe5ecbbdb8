//! How much a machine vibrates, and at which frequencies: samples of acceleration become a row for each block
//! of them, with its root mean square, its peak, its crest factor, and the root mean square of each band.
//!
//! A block is windowed by Hann's window and transformed (J. W. Cooley and J. W. Tukey, 1965). By Parseval's
//! theorem the bands that cover all frequencies add up, squared, to what the whole block has.

mod fourier;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_plugin::prelude::*;

/// `[config]` of `vibration.toml`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// the column with the samples
    value: String,
    /// each of these vibrates by itself
    key: Option<String>,
    /// samples a second
    rate_hz: f64,
    /// samples that are transformed together: a power of two
    block: usize,
    /// by the column of the target that each goes to: from which frequency up to below which, in hertz
    bands: BTreeMap<String, [f64; 2]>,
}

/// What has come of the next block.
#[derive(Default, Serialize, Deserialize)]
pub struct Block {
    samples: Vec<f32>,
    /// when the last of them was measured, nanoseconds
    last: i64,
}

/// The plugin.
pub struct Vibration {
    value: Column<f64>,
    key: Option<Column<str>>,
    rate_hz: f64,
    block: usize,
    /// nanoseconds from one sample to the next, above which one is missing
    gap: i64,
    blocks: Target,
    fields: Fields,
}

struct Fields {
    ts: Option<Field<Timestamp>>,
    key: Option<Field<str>>,
    rms: Option<Field<f64>>,
    peak: Option<Field<f64>>,
    crest: Option<Field<f64>>,
    bands: Vec<([f64; 2], Field<f64>)>,
}

impl Plugin for Vibration {
    type Config = Config;
    type State = Keyed<Block>;

    fn new(config: Config, schema: &Schema) -> Result<Self> {
        let Config { value, key, rate_hz, block, bands } = config;
        if !block.is_power_of_two() || !(16..=8192).contains(&block) {
            return Err(format!("`block` must be a power of two from 16 to 8192, not {block}").into());
        }
        if rate_hz <= 0.0 {
            return Err("`rate_hz` must be greater than 0".into());
        }
        let blocks = schema.only_target()?;
        let band = |(name, [from, to]): (String, [f64; 2])| {
            if !(0.0 <= from && from < to && to <= rate_hz / 2.0) {
                let most = rate_hz / 2.0;
                return Err(Error::from(format!("band `{name}` must go up, within 0 and {most} Hz")));
            }
            Ok(([from, to], blocks.field(&name)?))
        };
        Ok(Self {
            value: schema.column(&value)?,
            key: key.map(|key| schema.column(&key)).transpose()?,
            rate_hz,
            block,
            gap: (1.5e9 / rate_hz) as i64,
            fields: Fields {
                ts: blocks.field_if_there("ts")?,
                key: blocks.field_if_there("key")?,
                rms: blocks.field_if_there("rms")?,
                peak: blocks.field_if_there("peak")?,
                crest: blocks.field_if_there("crest")?,
                bands: bands.into_iter().map(band).collect::<Result<_>>()?,
            },
            blocks,
        })
    }

    fn on_row(&self, row: Row<'_>, state: &mut Self::State, out: &mut Out) -> Result<()> {
        let (Some(value), Some(Timestamp(ts))) = (row.get(&self.value), row.ts()) else { return Ok(()) };
        let key = self.key.as_ref().map(|key| row.get(key).unwrap_or_default()).unwrap_or_default();
        let block = state.entry(key);
        // Samples on both sides of a gap are no block: their spectrum would be that of the gap.
        if !block.samples.is_empty() && !(0..=self.gap).contains(&(ts - block.last)) {
            block.samples.clear();
        }
        block.samples.push(value as f32);
        block.last = ts;
        if block.samples.len() == self.block {
            let spectrum = Spectrum::new(&block.samples, self.rate_hz);
            self.write(&spectrum, ts, key, out);
            block.samples.clear();
        }
        Ok(())
    }
}

impl Vibration {
    fn write(&self, spectrum: &Spectrum, ts: i64, key: &str, out: &mut Out) {
        let Fields { ts: ts_field, key: key_field, rms, peak, crest, bands } = &self.fields;
        let mut said = vec![];
        said.extend(ts_field.map(|field| field.is(Timestamp(ts))));
        said.extend(key_field.map(|field| field.is(key)));
        said.extend(rms.map(|field| field.is(spectrum.rms)));
        said.extend(peak.map(|field| field.is(spectrum.peak)));
        // What does not vibrate has none.
        said.extend(crest.map(|field| field.is((spectrum.rms > 0.0).then(|| spectrum.peak / spectrum.rms))));
        said.extend(bands.iter().map(|(band, field)| field.is(spectrum.band(*band))));
        out.write(&self.blocks, &said);
    }
}

/// What a block is made of.
struct Spectrum {
    rms: f64,
    peak: f64,
    /// the mean square at each frequency, from 0 to half of the rate
    squares: Vec<f64>,
    /// from one of these frequencies to the next
    step_hz: f64,
}

impl Spectrum {
    fn new(samples: &[f32], rate_hz: f64) -> Self {
        let count = samples.len();
        let mean = samples.iter().copied().map(f64::from).sum::<f64>() / count as f64;
        let centred: Vec<f64> = samples.iter().map(|sample| f64::from(*sample) - mean).collect();
        let square = centred.iter().map(|sample| sample * sample).sum::<f64>() / count as f64;
        let window = fourier::hann(count);
        let weight: f64 = window.iter().map(|weight| weight * weight).sum();
        let windowed = centred.iter().zip(&window).map(|(sample, weight)| sample * weight);
        let transformed = fourier::transform(windowed.map(|sample| (sample, 0.0)).collect());
        // Each frequency but the first and the last stands there twice.
        let last = count / 2;
        let square_at = |(at, (re, im)): (usize, &(f64, f64))| {
            let times = if at == 0 || at == last { 1.0 } else { 2.0 };
            times * (re * re + im * im) / (count as f64 * weight)
        };
        Self {
            rms: square.sqrt(),
            peak: centred.iter().fold(0.0, |peak, sample| sample.abs().max(peak)),
            squares: transformed.iter().take(last + 1).enumerate().map(square_at).collect(),
            step_hz: rate_hz / count as f64,
        }
    }

    /// The root mean square of what vibrates from one frequency up to below another.
    fn band(&self, [from, to]: [f64; 2]) -> f64 {
        let frequencies = (0..).map(|at| f64::from(at) * self.step_hz);
        let inside = frequencies.zip(&self.squares).filter(|(frequency, _)| (from..to).contains(frequency));
        inside.map(|(_, square)| square).sum::<f64>().sqrt()
    }
}

export!(Vibration);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plugin::Kind;
    use tidegate_plugin::testing::{Bench, Line};

    const CONFIG: &str = r#"{"value": "g", "key": "device", "rate_hz": 1024.0, "block": 512,
        "bands": {"low": [10, 100], "high": [100, 512]}}"#;

    fn bench(config: &str) -> Bench<Vibration> {
        let numbers = ["rms", "peak", "crest", "low", "high"].map(|name| (name, Kind::Float64));
        let target: Vec<_> = [("key", Kind::Utf8)].into_iter().chain(numbers).collect();
        Bench::new(config)
            .input("acceleration", &[("ts", Kind::Timestamp), ("device", Kind::Utf8), ("g", Kind::Float64)])
            .target("blocks", &target)
    }

    /// What comes of `count` samples of a sine of 40 Hz with amplitude 2, and one of 200 Hz with amplitude 1.
    fn lines(count: usize, missing: Option<usize>) -> Vec<Line> {
        let mut bench = bench(CONFIG);
        let mut lines = Vec::new();
        for at in (0..count).filter(|at| Some(*at) != missing) {
            let time = at as f64 / 1024.0;
            let turn = std::f64::consts::TAU * time;
            let value = 9.81 + 2.0 * (40.0 * turn).sin() + (200.0 * turn).sin();
            let ts = Timestamp((time * 1e9) as i64);
            let row: &[_] = &[("ts", ts.into()), ("device", "7".into()), ("g", value.into())];
            lines.extend(bench.batch("acceleration", &[row]).unwrap());
        }
        lines
    }

    #[test]
    fn sines_are_found_in_their_bands() {
        let lines = lines(1024, None);
        assert_eq!(lines.len(), 2);
        for line in lines {
            // A sine's root mean square is its amplitude divided by the square root of two.
            let expected = [("rms", 2.5_f64.sqrt()), ("low", 2.0_f64.sqrt()), ("high", 0.5_f64.sqrt())];
            for (name, expected) in expected {
                let found = line.number(name).unwrap();
                assert!((found - expected).abs() < 1e-3, "{name}: {found}, not {expected}");
            }
            let (peak, rms) = (line.number("peak").unwrap(), line.number("rms").unwrap());
            assert!((peak - 3.0).abs() < 0.02, "{peak}");
            assert_eq!(line.number("crest"), Some(peak / rms));
        }
    }

    #[test]
    fn a_block_has_no_gap() {
        assert_eq!(lines(700, Some(100)).len(), 1);
        assert_eq!(lines(612, Some(100)).len(), 0);
    }

    #[test]
    fn a_wrong_configuration_is_refused_in_words() {
        let error = |from: &str, to: &str| bench(&CONFIG.replace(from, to)).check().unwrap_err();
        assert_eq!(error("512,", "500,"), "`block` must be a power of two from 16 to 8192, not 500");
        assert_eq!(error("[100, 512]", "[100, 600]"), "band `high` must go up, within 0 and 512 Hz");
        assert_eq!(
            error("\"low\"", "\"lowest\""),
            "there is no column `lowest` in `blocks`; there are `crest`, `high`, `key`, `low`, `peak`, `rms`"
        );
    }
}
