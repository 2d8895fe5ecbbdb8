//! Local time to UTC, by the same copy of the IANA database as `AT TIME ZONE` in a rule.

use std::fmt;

use chrono::{MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::diagnostic::nearest;

/// A time zone of the IANA database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Zone(Tz);

impl Zone {
    /// What the zone's clocks are ahead of UTC when they show `local_s`, in seconds since 1970-01-01 00:00:00
    /// by these clocks. When they are set back, an hour comes twice, and the first one counts. When they are
    /// set forward, an hour is skipped; times in it count by the clock that was not set, as if it had not
    /// been noticed. Python, Java and JavaScript do the same.
    pub(super) fn offset_s(self, local_s: i64) -> Option<i64> {
        let local = naive(local_s)?;
        let offset = match self.0.offset_from_local_datetime(&local) {
            MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(offset, _) => offset,
            // No zone is farther than a day from UTC, so that this is before the change.
            MappedLocalTime::None => {
                self.0.offset_from_utc_datetime(&local.checked_sub_signed(TimeDelta::days(1))?)
            }
        };
        Some(i64::from(offset.fix().local_minus_utc()))
    }
}

/// What clocks of `zone`, a name of the IANA database or an offset such as `+02:00`, are ahead of UTC at
/// `utc_s`, in seconds.
pub(in crate::codec) fn offset_at(zone: &str, utc_s: i64) -> Option<i64> {
    let utc = naive(utc_s)?;
    let offset = match zone.parse::<Tz>() {
        Ok(zone) => zone.offset_from_utc_datetime(&utc).fix(),
        Err(_) => zone.parse::<arrow::array::timezone::Tz>().ok()?.offset_from_utc_datetime(&utc).fix(),
    };
    Some(i64::from(offset.local_minus_utc()))
}

fn naive(s: i64) -> Option<NaiveDateTime> {
    Some(chrono::DateTime::from_timestamp(s, 0)?.naive_utc())
}

impl std::str::FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        name.parse().map(Self).map_err(|_| {
            let advice = match nearest(name, TZ_VARIANTS.iter().map(|zone| zone.name())) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "write a name such as \"Europe/Berlin\" or \"UTC\"".to_owned(),
            };
            format!("there is no time zone \"{name}\" in the IANA database; {advice}")
        })
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.0.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "time zone of the IANA database, such \
            as \"Europe/Berlin\"" })
    }
}
