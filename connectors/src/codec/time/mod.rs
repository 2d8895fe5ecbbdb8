//! Times as devices write them, to nanoseconds since 1970 (UTC): exact, whatever the number of digits. What
//! is finer than a nanosecond is cut off, towards the past, so that no time moves over the end of its window.

mod decimal;
mod format;
mod plausible;
mod zone;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use jiff::fmt::temporal::{Pieces, TimeZoneAnnotation, TimeZoneAnnotationKind};
use jiff::{civil, tz};
use schemars::JsonSchema;
use serde::Deserialize;

use super::column::Scalar;
use decimal::Decimal;
use format::Read;
pub use format::TextFormat;
pub(super) use plausible::{implausible, is_plausible};
pub use zone::Zone;
pub(super) use zone::offset_at;

/// Unit of a numeric time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// seconds
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
    const ALL: [Self; 4] = [Self::S, Self::Ms, Self::Us, Self::Ns];

    /// A unit is 10 to this power nanoseconds.
    const fn power(self) -> u32 {
        match self {
            Self::S => 9,
            Self::Ms => 6,
            Self::Us => 3,
            Self::Ns => 0,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }
}

/// How numbers that are times are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// In this unit.
    Unit(TimeUnit),
    /// With 15 digits or more they are nanoseconds, with less milliseconds: the two meet in 1970 and the year
    /// 5138.
    Guessed,
}

impl Numbers {
    fn unit(self, number: &Decimal<'_>) -> TimeUnit {
        match self {
            Self::Unit(unit) => unit,
            Self::Guessed if number.has_digits(15) => TimeUnit::Ns,
            Self::Guessed => TimeUnit::Ms,
        }
    }
}

/// How times are written in one place of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat {
    /// How numbers are read, in quotes or not.
    pub numbers: Numbers,
    /// Where text that names no zone was written.
    pub zone: Option<Zone>,
    /// How text and numbers are written, instead of RFC 3339 and numbers of units.
    pub format: Option<TextFormat>,
}

impl TimeFormat {
    /// RFC 3339, or a number in `unit`.
    #[must_use]
    pub fn in_unit(unit: TimeUnit) -> Self {
        Self { numbers: Numbers::Unit(unit), zone: None, format: None }
    }

    /// RFC 3339, or a number that says by its length what it is.
    pub(super) fn guessed() -> Self {
        Self { numbers: Numbers::Guessed, zone: None, format: None }
    }

    /// The time that the JSON value `json` is, in nanoseconds since 1970.
    pub(super) fn read(&self, json: &str) -> Result<i64, Unreadable> {
        match json.as_bytes() {
            [b'"', ..] => self.read_text(&text(json)?),
            [b'-' | b'0'..=b'9', ..] if self.format.is_some() => self.text(json),
            [b'-' | b'0'..=b'9', ..] => match Decimal::parse(json) {
                Some(number) => self.number(&number, json),
                None => Err(Unreadable::NoTime(shortened(json))),
            },
            [b'n', ..] => Err(Unreadable::Null),
            [b'{', ..] => Err(Unreadable::NoTime("an object".into())),
            [b'[', ..] => Err(Unreadable::NoTime("an array".into())),
            _ => Err(Unreadable::NoTime(shortened(json))),
        }
    }

    /// The same of a value of a format that is not text.
    pub(super) fn read_value(&self, value: Scalar<'_>) -> Result<i64, Unreadable> {
        match value {
            Scalar::Null => Err(Unreadable::Null),
            Scalar::Text(text) => self.read_text(text),
            Scalar::Int(number) => self.read(&number.to_string()),
            Scalar::Big(number) => self.read(&number.to_string()),
            Scalar::Beyond(number) => self.read(number),
            // As JSON writes it: the shortest digits that read back the same.
            Scalar::Float(number) => self.read(&serde_json::Value::from(number).to_string()),
            Scalar::Bool(_) | Scalar::Bytes(_) => Err(Unreadable::NoTime(value.to_string())),
        }
    }

    fn read_text(&self, text: &str) -> Result<i64, Unreadable> {
        let text = text.trim();
        match Decimal::parse(text).filter(|_| self.format.is_none()) {
            Some(number) => self.number(&number, text),
            None => self.text(text),
        }
    }

    fn number(&self, number: &Decimal<'_>, text: &str) -> Result<i64, Unreadable> {
        let unit = self.numbers.unit(number);
        number.floor(unit.power()).ok_or_else(|| Unreadable::OutOfRange {
            what: format!("{} in {}", shortened(text), unit.name()),
            likely: plausible::likely_unit(number, unit),
        })
    }

    fn text(&self, text: &str) -> Result<i64, Unreadable> {
        let no_time = || Unreadable::NoTime(format!("the text {:?}", shortened(text)));
        let named = |zone: &str| zone.parse::<Zone>().map_err(|_| no_time());
        let (local, offset, zone, is_leap) = match &self.format {
            Some(format) => {
                let Read { fields, since_epoch, is_leap } = format.read(text).ok_or_else(no_time)?;
                if let Some(ns) = since_epoch {
                    return in_range(ns, text);
                }
                let zone = fields.iana_time_zone().map(named).transpose()?;
                (fields.to_datetime().map_err(|_| no_time())?, fields.offset(), zone, is_leap)
            }
            None => {
                let text = without_excess(text);
                let pieces = Pieces::parse(&*text).map_err(|_| no_time())?;
                let time = pieces.time().unwrap_or(civil::Time::midnight());
                let zone = match pieces.time_zone_annotation().map(TimeZoneAnnotation::kind) {
                    Some(TimeZoneAnnotationKind::Named(name)) => Some(named(name.as_str())?),
                    _ => None,
                };
                // The parser reads the sixtieth second as the one before.
                let is_leap = time.second() == 59 && has_second_60(&text);
                (civil::DateTime::from_parts(pieces.date(), time), pieces.to_numeric_offset(), zone, is_leap)
            }
        };
        if offset.is_some_and(|offset| offset.seconds().abs() > FARTHEST_OFFSET_S) {
            return Err(Unreadable::Offset(shortened(text)));
        }
        let out_of_range = || Unreadable::OutOfRange { what: shortened(text), likely: None };
        let local_ns =
            local.to_zoned(tz::TimeZone::UTC).map_err(|_| out_of_range())?.timestamp().as_nanosecond();
        let offset_s = match (offset, zone.or(self.zone)) {
            (Some(offset), _) => i64::from(offset.seconds()),
            (None, Some(zone)) => {
                let local_s = i64::try_from(local_ns.div_euclid(NS)).map_err(|_| out_of_range())?;
                zone.offset_s(local_s).ok_or_else(out_of_range)?
            }
            (None, None) => return Err(Unreadable::NoZone(shortened(text))),
        };
        let ns = local_ns - i128::from(offset_s) * NS;
        // POSIX, seconds since the Epoch: the sixtieth second is the first of the next minute. Its fraction
        // is left out, or the second that follows would lie before it.
        in_range(if is_leap { (ns.div_euclid(NS) + 1) * NS } else { ns }, text)
    }
}

/// As far as clocks may be from UTC (ISO 8601 has no limit, Java's and SQL's are 18 and 14 hours).
const FARTHEST_OFFSET_S: i32 = 18 * 3_600;

const NS: i128 = 1_000_000_000;

fn in_range(ns: i128, text: &str) -> Result<i64, Unreadable> {
    i64::try_from(ns).map_err(|_| Unreadable::OutOfRange { what: shortened(text), likely: None })
}

/// What a JSON string says.
fn text(json: &str) -> Result<Cow<'_, str>, Unreadable> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        _ => serde_json::from_str(json)
            .map(Cow::Owned)
            .map_err(|_| Unreadable::NoTime(format!("the text {}", shortened(json)))),
    }
}

/// The text without digits of a second that are finer than a nanosecond.
fn without_excess(text: &str) -> Cow<'_, str> {
    let Some(point) = text.find(['.', ',']) else { return Cow::Borrowed(text) };
    let (start, fraction) = text.split_at(point + 1);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    match (fraction.get(..9), fraction.get(digits..)) {
        (Some(kept), Some(rest)) if digits > 9 => Cow::Owned(format!("{start}{kept}{rest}")),
        _ => Cow::Borrowed(text),
    }
}

/// Whether the clock in a text of RFC 3339 or ISO 8601 shows the second 60.
fn has_second_60(text: &str) -> bool {
    let Some((_, time)) = text.split_once(['T', 't', ' ']) else { return false };
    let clock = time.split(|char: char| !char.is_ascii_digit() && char != ':').next().unwrap_or_default();
    clock.ends_with("60") && clock.bytes().filter(u8::is_ascii_digit).count() == 6
}

/// As much of a value as fits a message.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Why a value is no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    Null,
    /// Something else, described.
    NoTime(String),
    /// This text does not say in which zone it was written.
    NoZone(String),
    /// The offset from UTC in this text is that of no place.
    Offset(String),
    /// A time that 64 bits of nanoseconds do not hold.
    OutOfRange {
        what: String,
        likely: Option<TimeUnit>,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::NoTime(what) => {
                write!(
                    f,
                    "{what}, which is no time (RFC 3339 with an offset or \"Z\", or a number; see `format`)"
                )
            }
            Self::NoZone(text) => {
                write!(
                    f,
                    "{text:?}, which names no zone: it needs \"Z\" or an offset, or `zone` has to say where \
                    it was written"
                )
            }
            Self::Offset(text) => {
                write!(f, "{text:?}, which is no time: its offset from UTC is more than 18 hours")
            }
            Self::OutOfRange { what, likely: None } => {
                write!(f, "{what}, which is not in the years 1677 to 2262")
            }
            Self::OutOfRange { what, likely: Some(unit) } => {
                write!(f, "{what}, which is not in the years 1677 to 2262: is `unit` \"{}\"?", unit.name())
            }
        }
    }
}
