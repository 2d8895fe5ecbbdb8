//! Times that can be read and are most likely wrong: a unit that is not the device's, a clock that was never
//! set.

use super::decimal::Decimal;
use super::{Numbers, TimeFormat, TimeUnit, shortened, text};
use crate::codec::write_rfc3339;

/// 2000-01-01T00:00:00Z: no device that is still in use has measured before.
const EARLIEST: i64 = 946_684_800_000_000_000;
/// 2100-01-01T00:00:00Z: nor does any after.
const LATEST: i64 = 4_102_444_800_000_000_000;
/// A device may be ahead of the box, but hardly by more.
const YEAR: i64 = 365 * 24 * 3_600_000_000_000;

/// Whether nothing is to be said about the time `ns`, when it is `arrival_ns` on the box's clock.
pub(crate) fn is_plausible(ns: i64, arrival_ns: i64) -> bool {
    (EARLIEST..LATEST).contains(&ns) && !is_ahead(ns, arrival_ns)
}

fn is_ahead(ns: i64, arrival_ns: i64) -> bool {
    // A box without a battery may itself not know what time it is.
    let box_knows = (EARLIEST..LATEST).contains(&arrival_ns);
    box_knows && ns > arrival_ns.saturating_add(YEAR)
}

/// What is to be said about the time `ns` that `json` was read as, when it is `arrival_ns` on the box's
/// clock; `None`: it is plausible.
pub(crate) fn implausible(ns: i64, json: &str, format: &TimeFormat, arrival_ns: i64) -> Option<String> {
    if is_plausible(ns, arrival_ns) {
        return None;
    }
    let ahead = is_ahead(ns, arrival_ns);
    let written = text(json).ok();
    let written = written.as_deref().unwrap_or(json).trim();
    let number = Decimal::parse(written).filter(|_| format.format.is_none());
    let read = match &number {
        Some(number) => format!("{} in {}", shortened(written), format.numbers.unit(number).name()),
        None => format!("{:?}", shortened(written)),
    };
    let advice = match number.and_then(|number| likely_unit(&number, format.numbers.unit(&number))) {
        Some(unit) if format.numbers == Numbers::Guessed => {
            format!(
                "are the times in {}? A number is taken for milliseconds, with 15 digits or more for \
                nanoseconds",
                unit.name()
            )
        }
        Some(unit) => format!("is `unit` \"{}\"?", unit.name()),
        None if ahead => format!("the box's clock shows {}: which of the two is wrong?", rfc3339(arrival_ns)),
        None => "has the device's clock been set?".to_owned(),
    };
    Some(format!("ts is {} (read from {read}); {advice}", rfc3339(ns)))
}

/// The unit other than `unit` in which the number is a plausible time.
pub(super) fn likely_unit(number: &Decimal<'_>, unit: TimeUnit) -> Option<TimeUnit> {
    let plausible =
        |unit: &TimeUnit| number.floor(unit.power()).is_some_and(|ns| (EARLIEST..LATEST).contains(&ns));
    TimeUnit::ALL.into_iter().filter(|other| *other != unit).find(plausible)
}

fn rfc3339(ns: i64) -> String {
    let mut out = Vec::new();
    write_rfc3339(ns, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
