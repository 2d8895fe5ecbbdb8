//! The rules of `tests/languages` as one plugin: `rule` in its configuration says which it is.

mod devices;
mod joined;
mod kept;
mod windows;

use serde::Deserialize;
use tidegate_plugin::prelude::*;

use devices::{Counter, Debounce, Hysteresis, Seen, Several, Threshold};
use joined::LastRow;
use kept::Kept;
use windows::Means;

/// `[config]` of a case's `plugin.toml`
#[derive(Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
enum Config {
    Threshold { above: f64 },
    Hysteresis { low: f64, high: f64 },
    Debounce { above: f64, seconds: u64 },
    Counter {},
    WindowedMean { seconds: i64 },
    LastRow {},
    Seen {},
    LateRows { seconds: i64, lateness: i64 },
    Several {},
}

/// What each of them does.
trait Case: Send + Sync {
    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out);

    fn on_timer(&self, _tag: &str, _kept: &mut Kept, _out: &mut Out) {}
}

struct Languages(Box<dyn Case>);

impl Plugin for Languages {
    type Config = Config;
    type State = Kept;

    fn new(config: Config, schema: &Schema) -> Result<Self> {
        Ok(Self(match config {
            Config::Threshold { above } => Box::new(Threshold::new(schema, above)?),
            Config::Hysteresis { low, high } => Box::new(Hysteresis::new(schema, low, high)?),
            Config::Debounce { above, seconds } => Box::new(Debounce::new(schema, above, seconds)?),
            Config::Counter {} => Box::new(Counter::new(schema)?),
            Config::WindowedMean { seconds } => Box::new(Means::new(schema, seconds, None)?),
            Config::LastRow {} => Box::new(LastRow::new(schema)?),
            Config::Seen {} => Box::new(Seen::new(schema)?),
            Config::LateRows { seconds, lateness } => Box::new(Means::new(schema, seconds, Some(lateness))?),
            Config::Several {} => Box::new(Several::new(schema)?),
        }))
    }

    fn on_row(&self, row: Row<'_>, kept: &mut Kept, out: &mut Out) -> Result<()> {
        self.0.on_row(row, kept, out);
        Ok(())
    }

    fn on_timer(&self, tag: &str, kept: &mut Kept, out: &mut Out) -> Result<()> {
        self.0.on_timer(tag, kept, out);
        Ok(())
    }
}

export!(Languages);
