//! What the box could know when it decided. What depends on moments that are as good as the same is not
//! certain.

use tidegate::config::{Value, Values};
use tidegate::system::control::ControlKind;

use super::{Case, EXACT, Tried};
use crate::rules;
use crate::terms::{Lock, MS, Terms, When};
use crate::witness::{Cell, Row};

/// Longer no override lasts (`max_lease`).
const LONGEST_LEASE: i64 = 8 * 3_600_000 * MS;

/// What is not known for certain is perhaps, and not surely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Maybe {
    pub(super) perhaps: bool,
    pub(super) surely: bool,
}

const NO: Maybe = Maybe { perhaps: false, surely: false };
const YES: Maybe = Maybe { perhaps: true, surely: true };

/// What was known up to a row of one start of the box.
pub(super) struct Knowledge<'a> {
    pub(super) terms: &'a Terms,
    /// all rows of all starts up to there
    pub(super) rows: &'a [Row],
    pub(super) round: usize,
    pub(super) begins: i64,
    pub(super) now: i64,
}

impl<'a> Case<'a> {
    /// What was known when a write was decided: with the row that it was decided at, and without it.
    pub(super) fn knew(&self, tried: &Tried<'_>) -> [Knowledge<'a>; 2] {
        let (round, seq) = (tried.attempt.round, tried.attempt.cause.seq);
        // The first thing that is said is that the box has started.
        let first = self.rows.iter().find(|row| row.round == round);
        let begins = first.map_or(tried.round.begins, |row| row.at);
        [1, 0].map(|with| {
            let end = self.rows.partition_point(|row| (row.round, row.seq) < (round, seq + with));
            let rows = self.rows.get(..end).unwrap_or_default();
            Knowledge { terms: self.terms, rows, round, begins, now: tried.decided }
        })
    }

    /// Whether a write may have been made because an interlock has tripped.
    pub(super) fn may_be_trip(&self, index: usize) -> bool {
        let Some(tried) = self.attempts.get(index) else { return false };
        tried.round.leaps && !self.terms.locks.is_empty()
            || self
                .knew(tried)
                .iter()
                .any(|known| self.terms.locks.iter().any(|lock| known.trip(lock).perhaps))
    }
}

/// An interlock as time goes on.
struct Trip<'a> {
    lock: &'a Lock,
    /// when rows of its streams must have come
    grace_ends: i64,
    newest: [Option<&'a Row>; 2],
    tripped: Maybe,
    good_since: Option<i64>,
}

impl Trip<'_> {
    fn heard(&self) -> bool {
        self.newest.iter().take(self.lock.when.streams().len()).all(Option::is_some)
    }

    /// Nothing happens until `now`.
    fn pass(&mut self, now: i64) {
        if let Some(since) = self.good_since.filter(|_| !self.lock.latch) {
            let clears = since + self.lock.clear_after;
            if clears + EXACT <= now || self.lock.clear_after == 0 {
                self.tripped = NO;
            } else if clears - EXACT <= now {
                self.tripped.surely = false;
            }
        }
        let heard = self.newest.iter().flatten();
        let ends = if self.heard() {
            let Some((oldest, age)) = heard.map(|row| row.at).min().zip(self.lock.max_age) else { return };
            oldest + age
        } else {
            self.grace_ends
        };
        if ends + EXACT < now {
            (self.tripped, self.good_since) = (YES, None);
        } else if ends - EXACT <= now {
            (self.tripped, self.good_since) = (Maybe { perhaps: true, surely: false }, None);
        }
    }

    fn is_true(&self) -> bool {
        let cell = |column: &str| {
            self.newest.iter().flatten().map(|row| row.cell(column)).find(|cell| **cell != Cell::Null)
        };
        let level = || matches!(cell("level"), Some(Cell::Float(level)) if *level > 10.0);
        let closed = || cell("open") == Some(&Cell::Bool(false));
        let is_true = match self.lock.when {
            When::Level => level(),
            When::Closed => closed(),
            When::LevelAndClosed => level() && closed(),
        };
        is_true && self.newest.iter().flatten().all(|row| row.is_good())
    }
}

impl<'a> Knowledge<'a> {
    fn of_round(&self) -> &'a [Row] {
        let first = self.rows.partition_point(|row| row.round < self.round);
        self.rows.get(first..).unwrap_or_default()
    }

    /// Whether all streams of an interlock have spoken since the start, or had time to.
    pub(super) fn heard(&self, lock: &Lock) -> bool {
        let spoke = |stream: &&str| self.of_round().iter().any(|row| row.stream == *stream);
        lock.when.streams().iter().all(spoke) || self.now + EXACT >= self.begins + self.terms.startup_grace
    }

    /// Whether an interlock has tripped.
    pub(super) fn trip(&self, lock: &Lock) -> Maybe {
        // What was so before the start is left.
        let tripped = Maybe { perhaps: self.round > 1, surely: false };
        let grace_ends = self.begins + self.terms.startup_grace;
        let mut trip = Trip { lock, grace_ends, newest: [None; 2], tripped, good_since: None };
        for row in self.of_round() {
            let resets = row.said.as_ref().is_some_and(|said| {
                said.event == ControlKind::Reset && said.output.as_deref() == Some(self.terms.output)
            });
            let stream = lock.when.streams().iter().position(|stream| *stream == row.stream);
            if stream.is_none() && !resets {
                continue;
            }
            trip.pass(row.at);
            if let Some(newest) = stream.and_then(|stream| trip.newest.get_mut(stream)) {
                *newest = Some(row);
            }
            if !trip.heard() {
                continue;
            }
            match (trip.is_true(), resets) {
                (true, true) => (trip.tripped, trip.good_since) = (NO, None),
                (true, false) => trip.good_since = trip.good_since.or(Some(row.at)),
                (false, _) => (trip.tripped, trip.good_since) = (YES, None),
            }
        }
        trip.pass(self.now);
        trip.tripped
    }

    /// What a rule claims, and whether the claim is alive.
    pub(super) fn claim(&self, rule: &str) -> (Values, Maybe) {
        let (mut values, mut expires, mut is_sure) = (Values::new(), i64::MIN, true);
        for row in self.of_round() {
            let Some(columns) = self.claims(rule, row).filter(|_| self.is_admitted(row)) else { continue };
            if columns.iter().any(|(column, cell)| !self.fits(column, cell)) {
                continue;
            }
            if expires != i64::MIN && expires - EXACT <= row.at {
                is_sure = expires + EXACT <= row.at;
                values.clear();
            }
            for (column, cell) in columns {
                match cell {
                    Cell::Bool(on) => drop(values.insert(column.into(), Value::Bool(*on))),
                    Cell::Float(number) => drop(values.insert(column.into(), Value::Float(*number))),
                    _ => drop(values.remove(column)),
                }
            }
            expires = self.terms.expiry.map_or(i64::MAX - EXACT, |expiry| row.at + expiry);
        }
        let alive = |late: i64| expires != i64::MIN && self.now < expires + late;
        let surely = is_sure && !values.is_empty() && alive(-EXACT);
        (values, Maybe { perhaps: alive(EXACT), surely })
    }

    /// The columns that a rule makes of a row.
    fn claims(&self, rule: &str, row: &'a Row) -> Option<Vec<(&'static str, &'a Cell)>> {
        let who = match rule {
            rules::PUMP_A => rules::WHO[0],
            rules::PUMP_B => rules::WHO[1],
            rules::PUMP_C => rules::WHO[2],
            _ if row.stream == "guard" => {
                let column = if self.terms.output == "forward" { "fwd" } else { "rev" };
                return Some(vec![("run", row.cell(column))]);
            }
            _ => return None,
        };
        let is_meant = row.stream == "wish" && *row.cell("who") == Cell::Int(who);
        is_meant.then(|| vec![("run", row.cell("run")), ("speed", row.cell("speed"))])
    }

    /// Whether a row is young and good enough when it comes.
    fn is_admitted(&self, row: &Row) -> bool {
        let age = match (row.stream, row.cell("ts")) {
            ("wish", Cell::Int(ts)) => row.wall_ns.saturating_sub(*ts).max(0),
            _ => 0,
        };
        row.is_good() && self.terms.max_input_age.is_none_or(|most| age <= most)
    }

    fn fits(&self, column: &str, cell: &Cell) -> bool {
        let Cell::Float(number) = cell else { return true };
        let (least, greatest) =
            self.terms.range.filter(|_| self.terms.refuses).unwrap_or((f64::MIN, f64::MAX));
        column != "speed" || number.is_finite() && (least..=greatest).contains(number)
    }

    /// What a person wants, and whether that counts.
    pub(super) fn overridden(&self, rebooted: bool) -> (Values, Maybe) {
        let (mut values, mut maybe) = (Values::new(), NO);
        for row in self.rows {
            let Some(said) =
                row.said.as_ref().filter(|said| said.output.as_deref() == Some(self.terms.output))
            else {
                continue;
            };
            match said.event {
                ControlKind::Override => {
                    let lease =
                        said.lease.map_or(0, |lease| i64::try_from(lease.as_nanos()).unwrap_or(i64::MAX));
                    let until = row.at + lease.min(LONGEST_LEASE);
                    let is_of_before = row.round < self.round;
                    values.clone_from(&said.values);
                    maybe = Maybe {
                        // A start of the machine ends it; one of the box leaves it, if it was kept by then.
                        perhaps: self.now < until + EXACT && !(is_of_before && rebooted),
                        surely: self.now < until - EXACT && !is_of_before,
                    };
                }
                ControlKind::Release if row.round < self.round => maybe.surely = false,
                ControlKind::Release => maybe = NO,
                _ => {}
            }
        }
        (values, maybe)
    }
}
