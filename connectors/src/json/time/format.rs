//! Times in a form of their own: `%d.%m.%Y %H:%M:%S`.

use jiff::civil;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

/// How the text of a time is written, as `strptime` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFormat(Box<str>);

impl TextFormat {
    pub(super) fn read(&self, text: &str) -> Option<BrokenDownTime> {
        BrokenDownTime::parse(&*self.0, text).ok()
    }
}

/// A time by which a format shows whether anything is missing from it: each of its numbers is another, and
/// the hour is after noon.
const PROBE: civil::DateTime = civil::date(2026, 3, 1).at(17, 34, 56, 0);

impl std::str::FromStr for TextFormat {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        let advice = "write it as strptime has it, such as \"%d.%m.%Y %H:%M:%S\" or \"%Y%m%d%H%M%S%.f\"";
        let wrong = |error: jiff::Error| format!("\"{format}\" is not a format of times: {error}; {advice}");
        let text =
            PROBE.to_zoned(TimeZone::UTC).and_then(|probe| strtime::format(format, &probe)).map_err(wrong)?;
        let read = BrokenDownTime::parse(format, &text).map_err(wrong)?;
        let whole = match read.timestamp() {
            Some(_) => Some(PROBE),
            None => read.to_datetime().ok(),
        };
        // A format may end with the day, the hour or the minute, and the rest is zero then.
        let fits = whole.is_some_and(|whole| {
            whole.date() == PROBE.date() && (read.hour().is_none() || whole.hour() == PROBE.hour())
        });
        if fits {
            return Ok(Self(format.into()));
        }
        Err(format!(
            "the format \"{format}\" does not give a whole date, or leaves open which half of the day it \
            is; {advice}"
        ))
    }
}

impl<'de> Deserialize<'de> for TextFormat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for TextFormat {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TextFormat".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "how the text of a time is written, as \
            strptime has it: \"%d.%m.%Y %H:%M:%S\"" })
    }
}
