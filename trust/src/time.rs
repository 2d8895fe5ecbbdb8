//! Points in time as signed documents write them, and lengths of time in arguments.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point in time, written as RFC 3339 in UTC with a `Z`: `2026-11-29T20:30:00Z`. Kept to the microsecond,
/// which is what counters count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WallTime(Timestamp);

/// Text that is not such a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a time: write it in UTC, such as \"2026-11-29T20:30:00Z\"")]
pub struct NoTime(String);

impl WallTime {
    /// From microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        let nearest = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_microsecond(micros).unwrap_or(nearest))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// `duration` later, or the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self::from_micros(
            self.micros().saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for WallTime {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        // The parser also takes offsets, names of zones and spaces: one point in time in many ways.
        let is_plain = text.ends_with('Z')
            && text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'-' | b':' | b'.' | b'T' | b'Z'))
            && text.as_bytes().get(10) == Some(&b'T');
        let parsed = text.parse::<Timestamp>().ok().filter(|_| is_plain);
        parsed.map(|time| Self::from_micros(time.as_microsecond())).ok_or_else(|| NoTime(text.into()))
    }
}

impl TryFrom<String> for WallTime {
    type Error = NoTime;

    fn try_from(text: String) -> Result<Self, NoTime> {
        text.parse()
    }
}

impl From<WallTime> for String {
    fn from(time: WallTime) -> Self {
        time.to_string()
    }
}

/// Reads a length of time with its unit, as everywhere in Tidegate: `45min` (or `45m`), `2h`, `30s`.
#[must_use]
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
    let seconds = match unit {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "ms" => return number.parse().ok().map(Duration::from_millis),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// Writes it in the largest unit in which it is whole.
pub(crate) fn write_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let whole = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")].into_iter();
    let unit = whole.filter(|_| duration.subsec_nanos() == 0).find(|(per, _)| seconds.is_multiple_of(*per));
    unit.map_or_else(
        || format!("{}ms", duration.as_millis()),
        |(per, unit)| format!("{}{unit}", seconds / per),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_time_is_written_in_one_way() {
        let time: WallTime = "2026-11-29T20:30:00Z".parse().unwrap();
        assert_eq!(time.micros(), 1_795_984_200_000_000, "as `date -u -d 2026-11-29T20:30:00Z +%s` says");
        assert_eq!(time.to_string(), "2026-11-29T20:30:00Z");
        assert_eq!("2026-11-29T20:30:00.25Z".parse::<WallTime>().unwrap().micros() - time.micros(), 250_000);
        for wrong in [
            "2026-11-29T20:30:00+00:00",
            "2026-11-29 20:30:00Z",
            "2026-11-29t20:30:00z",
            "2026-11-29T20:30:00Z[UTC]",
            "2026-11-29",
            "2026-02-30T00:00:00Z",
            "",
        ] {
            assert!(wrong.parse::<WallTime>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_ends_and_does_not_wrap() {
        assert!(WallTime::from_micros(i64::MAX) >= WallTime::from_micros(0).after(Duration::MAX));
        assert!(WallTime::from_micros(i64::MIN) < WallTime::from_micros(0));
    }

    #[test]
    fn lengths_of_time_have_units() {
        for (text, seconds) in [("45m", 2_700), ("45min", 2_700), ("2h", 7_200), ("1d", 86_400), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "45", "m", "-1m", "1.5h", "45 m", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for (text, seconds) in [("45min", 2_700), ("2h", 7_200), ("90s", 90), ("0d", 0)] {
            assert_eq!(write_duration(Duration::from_secs(seconds)), text);
        }
    }
}
