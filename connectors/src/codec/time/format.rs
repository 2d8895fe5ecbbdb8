//! Times in a form of their own: `%d.%m.%Y %H:%M:%S`.
//!
//! Numbers are read here, since every digit of them counts; what has names, signs or weeks is read by jiff.

use jiff::civil;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use super::NS;

/// How the text of a time is written, as `strptime` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFormat(Vec<Part>);

/// A directive of a format, or what is between two.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(u8),
    /// White space, or none.
    Space,
    /// At most so many digits; exactly so many behind another number without anything in between, or nobody
    /// could tell which of the two is short.
    Number {
        unit: Unit,
        digits: usize,
        exact: bool,
    },
    /// Of a second, with its point or without.
    Fraction {
        point: bool,
    },
    SinceEpoch,
    /// A directive that jiff reads.
    Other(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Year,
    YearOfCentury,
    Month,
    Day,
    DayOfYear,
    Hour,
    HourOfHalf,
    Minute,
    Second,
}

/// What a text says by its format.
#[derive(Default)]
pub(super) struct Read {
    pub(super) fields: BrokenDownTime,
    /// Of `%s`, in nanoseconds since 1970: nothing else counts then.
    pub(super) since_epoch: Option<i128>,
    /// The second is the sixtieth; `fields` have the one before.
    pub(super) is_leap: bool,
}

impl TextFormat {
    pub(super) fn read(&self, text: &str) -> Option<Read> {
        let mut rest = text.as_bytes();
        let mut read = Read::default();
        let mut seconds = None;
        let (mut ns, mut is_finer) = (0, false);
        for part in &self.0 {
            match part {
                Part::Literal(byte) => rest = rest.strip_prefix(&[*byte])?,
                Part::Space => rest = rest.trim_ascii_start(),
                Part::Number { unit, digits, exact } => {
                    let (sign, padded) = if *unit == Unit::Year { sign(rest) } else { (1, rest) };
                    let number = padded.trim_ascii_start();
                    // Of a fixed width, spaces are a part.
                    let spaces = if *exact { padded.len() - number.len() } else { 0 };
                    let digits = digits.saturating_sub(spaces);
                    let value;
                    (value, rest) = leading_number(number, digits)?;
                    if *exact && number.len() - rest.len() < digits {
                        return None;
                    }
                    read.set(*unit, sign * i16::try_from(value).ok()?)?;
                }
                Part::Fraction { point } => {
                    match (point, rest) {
                        (true, [b'.', after @ ..]) => rest = after,
                        (true, _) => continue,
                        (false, _) => {}
                    }
                    let (first, after) = rest.split_at(digits(rest).min(9));
                    let (finer, after) = after.split_at(digits(after));
                    let (value, _) = leading_number(first, first.len())?;
                    ns = i32::try_from(value * 10_i64.pow(9 - u32::try_from(first.len()).ok()?)).ok()?;
                    is_finer = finer.iter().any(|digit| *digit != b'0');
                    rest = after;
                    read.fields.set_subsec_nanosecond(Some(ns)).ok()?;
                }
                Part::SinceEpoch => {
                    let (sign, number) = sign(rest.trim_ascii_start());
                    let (value, after) = leading_number(number, digits(number))?;
                    (seconds, rest) = (Some((sign, value)), after);
                }
                Part::Other(directive) => rest = read.take_over(directive, rest)?,
            }
        }
        read.since_epoch = seconds.map(|(sign, value)| {
            let whole = i128::from(value) * NS + i128::from(ns);
            if sign < 0 { -whole - i128::from(is_finer) } else { whole }
        });
        rest.is_empty().then_some(read)
    }
}

impl Read {
    fn set(&mut self, unit: Unit, value: i16) -> Option<()> {
        let small = i8::try_from(value).ok();
        let fields = &mut self.fields;
        let is_set = match unit {
            Unit::Year => fields.set_year(Some(value)),
            // POSIX, strptime: 69 to 99 are 1969 to 1999.
            Unit::YearOfCentury => fields.set_year(Some(value + if value < 69 { 2000 } else { 1900 })),
            Unit::Month => fields.set_month(small),
            Unit::Day => fields.set_day(small),
            Unit::DayOfYear => fields.set_day_of_year(Some(value)),
            Unit::HourOfHalf if !(1..=12).contains(&value) => return None,
            Unit::Hour | Unit::HourOfHalf => fields.set_hour(small),
            Unit::Minute => fields.set_minute(small),
            Unit::Second => {
                self.is_leap = value == 60;
                fields.set_second(if self.is_leap { Some(59) } else { small })
            }
        };
        is_set.ok()
    }

    /// Reads one directive from the beginning of `text`, and returns what follows.
    fn take_over<'t>(&mut self, directive: &str, text: &'t [u8]) -> Option<&'t [u8]> {
        let (read, length) = BrokenDownTime::parse_prefix(directive, text).ok()?;
        let fields = &mut self.fields;
        if let Some(month) = read.month() {
            fields.set_month(Some(month)).ok()?;
        }
        if let Some(meridiem) = read.meridiem() {
            fields.set_meridiem(Some(meridiem));
        }
        if let Some(weekday) = read.weekday() {
            fields.set_weekday(Some(weekday));
        }
        if let Some(offset) = read.offset() {
            fields.set_offset(Some(offset));
        }
        if let Some(zone) = read.iana_time_zone() {
            fields.set_iana_time_zone(Some(zone.to_owned()));
        }
        if let Some(year) = read.iso_week_year() {
            fields.set_iso_week_year(Some(year)).ok()?;
        }
        if let Some(week) = read.iso_week() {
            fields.set_iso_week(Some(week)).ok()?;
        }
        if let Some(week) = read.sunday_based_week() {
            fields.set_sunday_based_week(Some(week)).ok()?;
        }
        if let Some(week) = read.monday_based_week() {
            fields.set_monday_based_week(Some(week)).ok()?;
        }
        text.get(length..)
    }
}

/// Whether a number is negative, as 1 or -1, and its digits.
fn sign(text: &[u8]) -> (i16, &[u8]) {
    match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    }
}

/// How many digits `text` begins with.
fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The number of at most `longest` digits that `text` begins with, and what follows it.
fn leading_number(text: &[u8], longest: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(digits(text).min(longest))?;
    let value = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((value, rest))
}

/// The parts of a format. `Err`: a directive that cannot be read.
fn parts(format: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut chars = format.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '%' => {
                let is_option = |char: &char| char.is_ascii_digit() || "-_^#:.".contains(*char);
                let options: String = std::iter::from_fn(|| chars.next_if(is_option)).collect();
                let letter = chars.next().ok_or("it ends within a directive")?;
                parts.extend(directive(&options, letter)?);
            }
            char if char.is_ascii_whitespace() => parts.push(Part::Space),
            char => parts.extend(char.to_string().bytes().map(Part::Literal)),
        }
    }
    Ok(parts)
}

/// Demands all digits where a number follows another with nothing in between.
fn fix_widths(parts: &mut [Part]) {
    let mut follows_number = false;
    for part in parts {
        let is_number =
            matches!(part, Part::Number { .. } | Part::Fraction { point: false } | Part::SinceEpoch);
        if let Part::Number { exact, .. } = part {
            *exact &= follows_number;
        }
        follows_number = is_number;
    }
}

fn directive(options: &str, letter: char) -> Result<Vec<Part>, String> {
    // Without padding, the user says that digits may be missing.
    let number = |unit, digits| Part::Number { unit, digits, exact: !options.starts_with(['-', '_']) };
    Ok(vec![match letter {
        '%' => Part::Literal(b'%'),
        'n' | 't' => Part::Space,
        'F' => return parts("%Y-%m-%d"),
        'D' => return parts("%m/%d/%y"),
        'T' => return parts("%H:%M:%S"),
        'R' => return parts("%H:%M"),
        'Y' => number(Unit::Year, 4),
        'y' => number(Unit::YearOfCentury, 2),
        'm' => number(Unit::Month, 2),
        'd' | 'e' => number(Unit::Day, 2),
        'j' => number(Unit::DayOfYear, 3),
        'H' | 'k' => number(Unit::Hour, 2),
        'I' | 'l' => number(Unit::HourOfHalf, 2),
        'M' => number(Unit::Minute, 2),
        'S' => number(Unit::Second, 2),
        'f' | 'N' => Part::Fraction { point: options.contains('.') },
        's' => Part::SinceEpoch,
        'A' | 'a' | 'B' | 'b' | 'h' | 'P' | 'p' | 'Q' | 'z' | 'G' | 'g' | 'V' | 'U' | 'W' | 'u' | 'w' => {
            Part::Other(format!("%{options}{letter}").into())
        }
        other => return Err(format!("times with %{options}{other} cannot be read")),
    }])
}

/// A time by which a format shows whether anything is missing from it: each of its numbers is another, and
/// the hour is after noon.
const PROBE: civil::DateTime = civil::date(2026, 3, 1).at(17, 34, 56, 0);

impl std::str::FromStr for TextFormat {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        let advice = "write it as strptime has it, such as \"%d.%m.%Y %H:%M:%S\" or \"%Y%m%d%H%M%S%.f\"";
        let wrong = |error: &dyn std::fmt::Display| {
            format!("\"{format}\" is not a format of times: {error}; {advice}")
        };
        let text = PROBE
            .to_zoned(TimeZone::UTC)
            .and_then(|probe| strtime::format(format, &probe))
            .map_err(|error| wrong(&error))?;
        let mut parts = parts(format).map_err(|error| wrong(&error))?;
        fix_widths(&mut parts);
        let this = Self(parts);
        let Some(read) = this.read(&text) else {
            return Err(wrong(&format_args!("not even {text:?}, which is written by it, can be read")));
        };
        let whole = match read.since_epoch {
            Some(_) => Some(PROBE),
            None => read.fields.to_datetime().ok(),
        };
        // A format may end with the day, the hour or the minute, and the rest is zero then.
        let fits = whole.is_some_and(|whole| {
            whole.date() == PROBE.date() && (read.fields.hour().is_none() || whole.hour() == PROBE.hour())
        });
        if fits {
            return Ok(this);
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
