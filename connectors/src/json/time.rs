//! Event time as devices write it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::column::Scalar;

/// Unit of a numeric time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// seconds, fractions allowed
    S,
    /// milliseconds
    #[default]
    Ms,
    /// microseconds
    Us,
    /// nanoseconds
    Ns,
}

impl TimeUnit {
    const fn ns(self) -> i64 {
        match self {
            Self::S => 1_000_000_000,
            Self::Ms => 1_000_000,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }
}

/// How numbers that are times are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    Unit(TimeUnit),
    /// 14 digits or more are nanoseconds, less are milliseconds: the two meet in 1970 and the year 5138.
    Guessed,
}

impl Numbers {
    fn unit(self, magnitude: f64) -> TimeUnit {
        match self {
            Self::Unit(unit) => unit,
            Self::Guessed if magnitude >= 1e14 => TimeUnit::Ns,
            Self::Guessed => TimeUnit::Ms,
        }
    }

    /// Nanoseconds since the epoch: RFC 3339 text with an offset, or a number in this unit. None: it is no time, or is out of range
    /// (years 1677 to 2262).
    pub(super) fn read(self, value: Scalar<'_>) -> Option<i64> {
        match value {
            Scalar::Text(text) => i64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok(),
            #[allow(clippy::cast_precision_loss)] // only the magnitude counts
            Scalar::Int(number) => number.checked_mul(self.unit(number.unsigned_abs() as f64).ns()),
            Scalar::Float(number) => {
                let unit = self.unit(number.abs()).ns();
                // Whole units and the rest apart: their product does not fit a double's 53 bits.
                #[allow(clippy::cast_possible_truncation)]
                let whole = (number.abs() < 9.2e18).then(|| number.trunc() as i64)?;
                #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
                let rest = (number.fract() * unit as f64).round() as i64;
                whole.checked_mul(unit)?.checked_add(rest)
            }
            Scalar::Null | Scalar::Bool(_) | Scalar::Big(_) => None,
        }
    }
}
