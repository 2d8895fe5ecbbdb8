#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn zoned(zone: &str) -> TimeFormat {
    TimeFormat { zone: Some(zone.parse().unwrap()), ..TimeFormat::in_unit(TimeUnit::S) }
}

fn formatted(format: &str, zone: Option<&str>) -> TimeFormat {
    let zone = zone.map(|zone| zone.parse().unwrap());
    TimeFormat { zone, format: Some(format.parse().unwrap()), ..TimeFormat::in_unit(TimeUnit::Ms) }
}

fn utc(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_nanosecond().try_into().unwrap()
}

const UNITS: [(TimeUnit, i128); 4] =
    [(TimeUnit::S, 1_000_000_000), (TimeUnit::Ms, 1_000_000), (TimeUnit::Us, 1_000), (TimeUnit::Ns, 1)];

#[test]
fn every_digit_of_a_number_counts() {
    for (number, ns) in [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.1234567890123456789012345678901234567890", 1_700_000_000_123_456_789),
        ("1.7e9", 1_700_000_000_000_000_000),
        ("17E+8", 1_700_000_000_000_000_000),
        ("1700000000123456789e-9", 1_700_000_000_123_456_789),
        ("0.0000000019", 1),
        ("-0.0000000001", -1),
        ("-1.5", -1_500_000_000),
        ("-0", 0),
        ("0e99999999999999999999999", 0),
        ("1e-99999999999999999999999", 0),
        ("9223372036.854775807", i64::MAX),
        ("-9223372036.854775808", i64::MIN),
    ] {
        let seconds = TimeFormat::in_unit(TimeUnit::S);
        assert_eq!(seconds.read(number), Ok(ns), "{number}");
        assert_eq!(seconds.read(&format!("\" {number}\"")), Ok(ns), "\"{number}\"");
    }
    for number in ["9223372036.854775808", "-9223372036.8547758081", "1e300", "1e99999999999999999999999"] {
        let read = TimeFormat::in_unit(TimeUnit::S).read(number);
        assert!(matches!(read, Err(Unreadable::OutOfRange { .. })), "{number}: {read:?}");
    }
}

#[test]
fn a_number_of_a_recording_says_by_its_length_what_it_is() {
    let guessed = TimeFormat::guessed();
    assert_eq!(guessed.read("1700000000123.5"), Ok(1_700_000_000_123_500_000));
    assert_eq!(guessed.read("1700000000123456789.5"), Ok(1_700_000_000_123_456_789));
    assert_eq!(guessed.read("100000000000000"), Ok(100_000_000_000_000));
    assert_eq!(guessed.read("0.000e20"), Ok(0));
}

#[test]
fn texts_of_the_field_are_read() {
    let berlin = zoned("Europe/Berlin");
    for (text, time) in [
        ("2026-03-01T12:00:00", "2026-03-01T11:00:00Z"),
        ("2026-07-01T12:00:00", "2026-07-01T10:00:00Z"),
        ("2026-03-01 12:00:00.123", "2026-03-01T11:00:00.123Z"),
        ("2026-03-01 12:00:00,123", "2026-03-01T11:00:00.123Z"),
        ("2026-03-01T12:00:00.1234567899999", "2026-03-01T11:00:00.123456789Z"),
        ("2026-03-01T12:00", "2026-03-01T11:00:00Z"),
        ("2026-03-01", "2026-02-28T23:00:00Z"),
        // What the text says of its zone counts.
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
        ("2026-03-01T12:00:00-05:30", "2026-03-01T17:30:00Z"),
        ("2026-03-01T12:00:00[America/New_York]", "2026-03-01T17:00:00Z"),
        ("2026-03-01T12:00:00+01:00[Europe/Berlin]", "2026-03-01T11:00:00Z"),
    ] {
        assert_eq!(berlin.read(&format!("\"{text}\"")), Ok(utc(time)), "{text}");
    }
    // The same characters, escaped.
    assert_eq!(berlin.read(r#""2026\u002d03-01T12:00:00""#), Ok(utc("2026-03-01T11:00:00Z")));
}

#[test]
fn a_format_is_all_that_counts() {
    for (format, zone, json, time) in [
        ("%d.%m.%Y %H:%M:%S", Some("Europe/Berlin"), "\"01.03.2026 12:00:00\"", "2026-03-01T11:00:00Z"),
        ("%d.%m.%Y %H:%M:%S%.f", Some("UTC"), "\"01.03.2026 12:00:00.25\"", "2026-03-01T12:00:00.25Z"),
        ("%m/%d/%y %I:%M %p", Some("America/New_York"), "\"07/01/26 02:30 PM\"", "2026-07-01T18:30:00Z"),
        ("%Y%m%d%H%M%S", Some("UTC"), "20260301120000", "2026-03-01T12:00:00Z"),
        ("%Y%m%d%H%M%S", Some("UTC"), "\"20260301120000\"", "2026-03-01T12:00:00Z"),
        ("%d/%b/%Y:%H:%M:%S %z", None, "\"01/Mar/2026:12:00:00 +0100\"", "2026-03-01T11:00:00Z"),
        ("%d.%m.%Y", Some("Europe/Berlin"), "\"01.03.2026\"", "2026-02-28T23:00:00Z"),
        ("%s", None, "\"1700000000\"", "2023-11-14T22:13:20Z"),
    ] {
        assert_eq!(formatted(format, zone).read(json), Ok(utc(time)), "{format} {json}");
    }
    let german = formatted("%d.%m.%Y %H:%M:%S", Some("UTC"));
    assert!(german.read("\"2026-03-01T12:00:00Z\"").is_err());
    for format in ["%d.%m.%Y %I:%M", "%d.%m. %H:%M", "%H:%M:%S", "%", "%!", "", "TT.MM.JJJJ"] {
        assert!(format.parse::<TextFormat>().is_err(), "{format}");
    }
}

/// The seconds are what Python's `datetime.strptime` and `calendar.timegm` make of the same text, the digits
/// behind them those of the text.
#[test]
fn a_format_takes_every_digit_and_needs_those_that_nothing_separates() {
    for (format, text, ns) in [
        ("%s%.f", "1767225600.5", 1_767_225_600_500_000_000),
        ("%s%.f", "1767225600", 1_767_225_600_000_000_000),
        ("%s%.f", "1767225600.1234567899", 1_767_225_600_123_456_789),
        ("%s%.f", "-1.5", -1_500_000_000),
        ("%s%.f", "-0.0000000001", -1),
        ("at %s,%f s", "at 1767225600,25 s", 1_767_225_600_250_000_000),
        ("%d.%m.%Y %H:%M:%S%.f", "01.03.2026 12:00:00.1234567891", 1_772_366_400_123_456_789),
        ("%d.%m.%Y %H:%M:%S%.f", "1.3.2026 9:5:7.12345678999999999999", 1_772_355_907_123_456_789),
        ("%Y%m%d%H%M%S%f", "202603011200001234567899", 1_772_366_400_123_456_789),
        ("%Y%m%d%H%M%S", "20260301120000", 1_772_366_400_000_000_000),
        ("%Y%m%d %H%M%S", "20260301  9 5 7", 1_772_355_907_000_000_000),
        ("%y%j %H:%M", "26060 12:00", 1_772_366_400_000_000_000),
        ("%F %T", "2026-03-01 12:00:00", 1_772_366_400_000_000_000),
        ("Uhr \u{fc}: %d. %B %Y %I %p", "Uhr \u{fc}: 1. March 2026 12 PM", 1_772_366_400_000_000_000),
        ("%G-W%V-%u", "2026-W09-7", 1_772_323_200_000_000_000),
        ("%a %-d%b%Y %R", "Sun 1Mar2026 12:00", 1_772_366_400_000_000_000),
    ] {
        let format = formatted(format, Some("UTC"));
        assert_eq!(format.read(&serde_json::to_string(text).unwrap()), Ok(ns), "{text}");
    }
    assert_eq!(formatted("%s%.f", None).read("1767225600.5"), Ok(1_767_225_600_500_000_000));
    for (format, text) in [
        ("%Y%m%d%H%M%S", "2026030112000"),
        ("%Y%m%d%H%M%S", "202603011200000"),
        ("%Y%m%d%H%M", "20260301123"),
        ("%d%m%y", "01032"),
        ("%y%j %H:%M", "2660 12:00"),
        ("%d.%m.%Y %H:%M:%S%.f", "01.03.2026 12:00:00."),
        ("%d.%m.%Y %I:%M %p", "01.03.2026 13:00 PM"),
        ("%d.%m.%Y %H:%M", "01.03.2026 12:"),
        ("%a %d.%m.%Y", "Mon 01.03.2026"),
        ("%s", "99999999999999999999999"),
    ] {
        assert!(formatted(format, Some("UTC")).read(&format!("\"{text}\"")).is_err(), "{format} {text}");
    }
    for format in ["%Y-%m-%d %Z", "%c", "%Y-%m-%d %5", "%C-%m-%d"] {
        let error = format.parse::<TextFormat>().unwrap_err();
        assert!(error.contains("write it as strptime has it"), "{error}");
    }
}

/// POSIX, section 4.19 (seconds since the Epoch): 60 seconds are a minute; so Python's
/// `calendar.timegm((2016, 12, 31, 23, 59, 60))` is 1483228800.
#[test]
fn a_leap_second_is_the_beginning_of_the_next_and_time_does_not_run_back() {
    let ns = Ok(1_483_228_800_000_000_000);
    for text in [
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.5Z",
        "2016-12-31 23:59:60+00:00",
        "20161231T235960Z",
        // RFC 3339, section 5.8
        "2016-12-31T15:59:60-08:00",
        "2017-01-01T00:59:60[Europe/Berlin]",
    ] {
        assert_eq!(TimeFormat::in_unit(TimeUnit::S).read(&format!("\"{text}\"")), ns, "{text}");
    }
    assert_eq!(zoned("Europe/Berlin").read("\"2017-01-01 00:59:60,25\""), ns);
    assert_eq!(formatted("%Y%m%d%H%M%S%.f", Some("UTC")).read("20161231235960.75"), ns);
    assert_eq!(zoned("UTC").read("\"2016-12-31T23:59:59.999999999\""), Ok(1_483_228_799_999_999_999));
    assert!(zoned("UTC").read("\"2016-12-31T23:59:61\"").is_err());
}

#[test]
fn an_offset_that_no_place_has_is_refused() {
    let seconds = TimeFormat::in_unit(TimeUnit::S);
    for offset in ["+14:00", "-12:00", "+18:00", "-18:00"] {
        assert!(seconds.read(&format!("\"2026-03-01T12:00:00{offset}\"")).is_ok(), "{offset}");
    }
    for offset in ["+18:01", "-18:01", "+25:00", "+23:59", "-99:00"] {
        assert!(seconds.read(&format!("\"2026-03-01T12:00:00{offset}\"")).is_err(), "{offset}");
    }
    assert!(formatted("%Y-%m-%d %z", None).read("\"2026-03-01 +2500\"").is_err());
    let why = seconds.read("\"2026-03-01T12:00:00+25:00\"").unwrap_err().to_string();
    assert!(why.contains("its offset from UTC is more than 18 hours"), "{why}");
}

#[test]
fn what_is_no_time_says_why() {
    let ms = TimeFormat::in_unit(TimeUnit::Ms);
    for (json, why) in [
        ("null", "null"),
        ("true", "true, which is no time"),
        (r#"{"a":1}"#, "an object, which is no time"),
        ("\"yesterday\"", "the text \"yesterday\", which is no time"),
        ("\"2026-02-29T00:00:00Z\"", "which is no time"),
        (
            "\"2026-03-01T12:00:00\"",
            "names no zone: it needs \"Z\" or an offset, or `zone` has to say where it was written",
        ),
        (
            "1700000000000000",
            "1700000000000000 in ms, which is not in the years 1677 to 2262: is `unit` \"us\"?",
        ),
        ("1700000000000000000", "is `unit` \"ns\"?"),
        ("\"\\ud800\"", "which is no time"),
    ] {
        let seen = ms.read(json).unwrap_err().to_string();
        assert!(seen.contains(why), "{json}: {seen}");
    }
    let seen = TimeFormat::in_unit(TimeUnit::S).read("1700000000000").unwrap_err().to_string();
    assert!(seen.contains("is `unit` \"ms\"?"), "{seen}");
    assert!("Europe/Berln".parse::<Zone>().unwrap_err().contains("did you mean \"Europe/Berlin\"?"));
}

#[test]
fn an_implausible_time_names_the_unit_that_it_is_most_likely_in() {
    let now = utc("2026-03-01T00:00:00Z");
    let said = |unit, json: &str| {
        let format = TimeFormat::in_unit(unit);
        implausible(format.read(json).unwrap(), json, &format, now)
    };
    for (unit, json, likely) in [
        (TimeUnit::Ms, "1772323200", "s"),
        (TimeUnit::Us, "1772323200", "s"),
        (TimeUnit::Us, "1772323200000", "ms"),
        (TimeUnit::Ns, "1772323200000000", "us"),
        (TimeUnit::Ms, "\"1772323200.5\"", "s"),
    ] {
        let note = said(unit, json).unwrap();
        assert!(note.starts_with("ts is 1970-01-"), "{note}");
        assert!(note.ends_with(&format!("is `unit` \"{likely}\"?")), "{json}: {note}");
    }
    assert_eq!(said(TimeUnit::S, "1772323200"), None);
    assert_eq!(said(TimeUnit::S, "1262304000"), None);
    assert!(
        said(TimeUnit::S, "\"1970-01-01T00:01:00Z\"").unwrap().contains("has the device's clock been set?")
    );
    assert!(said(TimeUnit::S, "2000000000").unwrap().contains("the box's clock shows 2026-03-01T00:00:00Z"));
    // A box whose own clock was not set knows no better.
    let format = TimeFormat::in_unit(TimeUnit::S);
    assert_eq!(
        implausible(utc("2033-05-18T03:33:20Z"), "2000000000", &format, utc("1970-01-01T00:00:30Z")),
        None
    );
}

/// What Python's zoneinfo says: see `zones.py` beside the table.
#[test]
fn local_times_are_those_of_zoneinfo() {
    let mut lines = 0;
    for line in include_str!("../../../tests/zones/zones.txt").lines() {
        let [zone, local, s] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let expected = s.parse::<i64>().unwrap() * 1_000_000_000;
        assert_eq!(zoned(zone).read(&format!("\"{local}\"")), Ok(expected), "{line}");
        lines += 1;
    }
    assert_eq!(lines, 300);
}

/// `value` times 10 to the power of `exponent`, cut off towards minus infinity. `None`: it is beyond all
/// bounds.
fn scaled(value: i128, exponent: i32) -> Option<i128> {
    match u32::try_from(exponent) {
        Ok(up) if value == 0 => Some(0).filter(|_| up < 1_000),
        Ok(up) => value.checked_mul(10_i128.checked_pow(up)?),
        Err(_) => Some(
            10_i128
                .checked_pow(exponent.unsigned_abs())
                .map_or(value.signum().min(0), |power| value.div_euclid(power)),
        ),
    }
}

proptest! {
    #[test]
    fn numbers_are_exact(mantissa in any::<i64>(), more in 0_i128..1_000_000_000_000, exponent in -60_i32..60, point in 0_usize..30) {
        // Up to 31 digits, written with a point somewhere and the exponent that undoes it.
        let value = i128::from(mantissa) * 1_000_000_000_000 + if mantissa < 0 { -more } else { more };
        let digits = format!("{:031}", value.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - point);
        let sign = if value < 0 { "-" } else { "" };
        let number = format!("{sign}{whole}.{fraction}0e{}", exponent + i32::try_from(point).unwrap());
        for (unit, ns) in UNITS {
            let power = ns.ilog10();
            let expected = scaled(value, exponent + i32::try_from(power).unwrap()).and_then(|ns| i64::try_from(ns).ok());
            let format = TimeFormat::in_unit(unit);
            prop_assert_eq!(format.read(&format!("\"{number}\"")).ok(), expected, "{} in {:?}", number, unit);
        }
    }

    #[test]
    fn digits_behind_a_nanosecond_are_cut_off(seconds in -9_000_000_000_i64..9_000_000_000, fraction in "[0-9]{1,45}") {
        let nine: i64 = format!("{fraction:0<9}")[..9].parse().unwrap();
        let rest = fraction.len() > 9 && fraction[9..].contains(|digit| digit != '0');
        let ns = if seconds < 0 { seconds * 1_000_000_000 - nine - i64::from(rest) } else { seconds * 1_000_000_000 + nine };
        let format = TimeFormat::in_unit(TimeUnit::S);
        prop_assert_eq!(format.read(&format!("{seconds}.{fraction}")), Ok(ns));
    }

    #[test]
    fn text_and_number_say_the_same(ns in any::<i64>()) {
        let text = jiff::Timestamp::from_nanosecond(ns.into()).unwrap().to_string();
        let format = TimeFormat::in_unit(TimeUnit::Ns);
        prop_assert_eq!(format.read(&format!("\"{text}\"")), Ok(ns));
        prop_assert_eq!(format.read(&ns.to_string()), Ok(ns));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), raw in "[-+0-9.eE: TZ]{0,60}") {
        for format in [zoned("Europe/Berlin"), TimeFormat::guessed(), formatted("%d.%m.%Y %H:%M:%S%.f", Some("Asia/Tokyo"))] {
            for json in [serde_json::to_string(&text).unwrap(), format!("\"{raw}\""), raw.clone()] {
                if let Ok(ns) = format.read(&json) {
                    let _ = implausible(ns, &json, &format, ns);
                }
            }
        }
    }
}
