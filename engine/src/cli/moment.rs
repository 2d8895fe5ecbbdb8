//! Times as people read and write them: by the clock on their wall.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tidegate_core::Span;

use super::table;
use crate::time::{Known, Readings};

const S: i64 = 1_000_000_000;

/// Tells when something was.
pub(super) struct Times {
    readings: Readings,
    now: Timestamp,
    zone: TimeZone,
}

impl Times {
    /// For a person in `zone` who looks at `now`; `readings` are the box's.
    pub(super) fn new(readings: Readings, now: Timestamp, zone: TimeZone) -> Self {
        Self { readings, now, zone }
    }

    /// The wall time at the sequence's time `at_ns`, when the clock showed `shown_ns`.
    fn wall(&self, at_ns: i64, shown_ns: i64) -> Timestamp {
        let wall_ns = self.readings.wall_of(at_ns).map_or(shown_ns, |time| time.wall_ns);
        Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The time of day, with the day if it is another one than today.
    pub(super) fn time(&self, at_ns: i64, shown_ns: i64) -> String {
        self.text(at_ns, shown_ns, 0)
    }

    /// The same, to the millisecond.
    pub(super) fn exact(&self, at_ns: i64, shown_ns: i64) -> String {
        self.text(at_ns, shown_ns, 3)
    }

    fn text(&self, at_ns: i64, shown_ns: i64, digits: usize) -> String {
        self.of(self.wall(at_ns, shown_ns), digits)
    }

    /// A time that the box has told.
    pub(super) fn clock(&self, at: Timestamp) -> String {
        self.of(at, 0)
    }

    fn of(&self, at: Timestamp, digits: usize) -> String {
        let local = |time: Timestamp| time.to_zoned(self.zone.clone()).datetime();
        let (at, now) = (local(at), local(self.now));
        let time = match digits {
            0 => format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second()),
            _ => format!("{:02}:{:02}:{:02}.{:03}", at.hour(), at.minute(), at.second(), at.millisecond()),
        };
        if at.date() == now.date() { time } else { format!("{} {time}", at.date()) }
    }

    /// How long ago that was.
    pub(super) fn age(&self, at_ns: i64, shown_ns: i64) -> String {
        table::age(self.now.as_nanosecond() - self.wall(at_ns, shown_ns).as_nanosecond())
    }

    /// What a person should know about times of then.
    pub(super) fn doubt(&self, at_ns: i64) -> Option<&'static str> {
        match self.readings.wall_of(at_ns)?.by {
            Known::Synchronised => None,
            Known::Corrected { .. } => Some("it was wrong then, and set later: times are corrected"),
            Known::Unsynchronised => Some("no time service had set it: times are what it showed"),
        }
    }

    /// For programs.
    pub(super) fn rfc3339(&self, at_ns: i64, shown_ns: i64) -> String {
        self.wall(at_ns, shown_ns).to_string()
    }
}

/// A moment that a person writes, in nanoseconds since 1970; one without seconds, or parts of them, ends with
/// its minute or second.
///
/// # Errors
/// When it cannot be understood.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    moment(text, Timestamp::now(), &TimeZone::system())
        .and_then(|moment| i64::try_from(moment.as_nanosecond()).ok())
        .ok_or_else(|| {
            "write a time of day such as `10:14` or `10:14:03`, with a day before it where it is not today \
            (`2026-03-01 10:14`), RFC 3339, or how long ago, such as `20min`"
                .into()
        })
}

fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(Span(ago)) = text.parse::<Span>() {
        return now.checked_sub(ago).ok();
    }
    let in_zone = |local: DateTime| Some(local.to_zoned(zone.clone()).ok()?.timestamp());
    if text.len() == "2026-03-01".len()
        && let Ok(day) = text.parse::<Date>()
    {
        let next = in_zone(day.tomorrow().ok()?.to_datetime(Time::midnight()))?;
        return next.checked_sub(SignedDuration::from_nanos(1)).ok();
    }
    let begins = if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else if let Ok(local) = text.parse::<DateTime>() {
        in_zone(local)?
    } else {
        let today = now.to_zoned(zone.clone()).date();
        let at = text.parse::<Time>().ok().filter(|_| text.contains(':'))?;
        let time = in_zone(today.to_datetime(at))?;
        // What has not come yet was yesterday.
        if time > now { in_zone(today.yesterday().ok()?.to_datetime(at))? } else { time }
    };
    let clock = text.split_once(['T', 't', ' ']).map_or(text, |(_, time)| time);
    let clock = clock.split(['Z', 'z', '+', '-']).next().unwrap_or(clock);
    let lasts = match clock.matches(':').count() {
        _ if clock.contains(['.', ',']) => 1,
        1 => 60 * S,
        _ => S,
    };
    begins.checked_add(SignedDuration::from_nanos(lasts - 1)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::time::Reading;

    fn berlin() -> TimeZone {
        // In summer, from POSIX: the tests need no database of zones.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn a_moment_is_written_as_on_the_wall() {
        let now: Timestamp = "2026-07-01T10:30:00+02:00".parse().unwrap();
        for (text, expected) in [
            ("10:14", "2026-07-01T08:14:59.999999999Z"),
            ("10:14:03", "2026-07-01T08:14:03.999999999Z"),
            ("10:14:03.120", "2026-07-01T08:14:03.12Z"),
            ("10:40", "2026-06-30T08:40:59.999999999Z"),
            ("2026-03-01 10:14", "2026-03-01T09:14:59.999999999Z"),
            ("2026-03-01T10:14:03", "2026-03-01T09:14:03.999999999Z"),
            ("2026-03-01T10:14:03Z", "2026-03-01T10:14:03.999999999Z"),
            ("2026-03-01T10:14:03.5+01:00", "2026-03-01T09:14:03.5Z"),
            ("2026-03-01", "2026-03-01T22:59:59.999999999Z"),
            ("20min", "2026-07-01T08:10:00Z"),
        ] {
            let found = moment(text, now, &berlin()).map(|time| time.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
        for wrong in ["", "soon", "25:00", "10", "2026-13-01 10:00"] {
            assert_eq!(moment(wrong, now, &berlin()), None, "{wrong}");
        }
        assert!(parse("soon").unwrap_err().contains("`10:14`"));
    }

    #[test]
    fn times_are_told_as_on_the_wall_and_corrected_where_the_clock_was_wrong() {
        let ns = |text: &str| i64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap();
        let (boot, synchronised) = (ns("2026-07-01T08:00:00Z"), ns("2026-07-01T08:10:00Z"));
        let reading = |now_ns: i64, wall_ns: i64, synchronised| Reading {
            now_ns,
            boot: "b".into(),
            monotonic_ns: now_ns - boot,
            wall_ns,
            synchronised,
        };
        // It believed that it was 1970, until it was told.
        let readings = Readings(vec![reading(boot, 0, false), reading(synchronised, synchronised, true)]);
        let now = "2026-07-01T12:00:00Z".parse().unwrap();
        let times = Times::new(readings, now, berlin());
        let early = boot + 63 * S + 120_000_000;
        assert_eq!(times.time(early, 63 * S), "10:01:03");
        assert_eq!(times.exact(early, 63 * S), "10:01:03.120");
        assert_eq!(times.age(early, 63 * S), "3 h");
        assert_eq!(times.rfc3339(early, 63 * S), "2026-07-01T08:01:03.12Z");
        assert!(times.doubt(early).is_some_and(|doubt| doubt.contains("corrected")));
        assert_eq!(times.doubt(synchronised + S), None);
        // Before the first reading it is what the clock showed.
        assert_eq!(times.time(boot - 1, ns("2026-06-30T22:30:00Z")), "00:30:00");
        assert_eq!(times.time(boot - 1, ns("2026-06-30T21:30:00Z")), "2026-06-30 23:30:00");
    }
}
