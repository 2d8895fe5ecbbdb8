//! The time of the sequence: what rules, their timers and times to live go by.
//!
//! # Contract
//! * It begins with wall time when a box is first started, and passes with the machine's monotonic clock. It
//!   never goes back and never jumps, whatever is done to wall time; two starts never share a time.
//! * A restart goes on from the newest time on disk. As long as the machine was not started anew, the
//!   monotonic clock knows how long the box was away.
//! * When the machine was off, only wall time can tell for how long, and it is believed only where a time
//!   service had set it, both before and after. The time counts as soon as that is known. Until then, and
//!   where there is no time service, the machine was not off.
//!
//! So on a box that starts in 1970 and is set right by the network no timer fires and no row grows old
//! because of that.
//!
//! Now and then the clocks are compared. The [`Reading`]s are kept on disk, and say what the wall time of any
//! earlier moment was: see [`Readings::wall_of`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_core::Clock;
use tidegate_rules::When;

/// How often the clocks are compared, at most.
const LOOK_EVERY_NS: i64 = 100_000_000;
/// A step of wall time that is worth a reading. A leap second is not.
const STEP_NS: i64 = 1_500_000_000;

/// What all clocks showed at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// the sequence's time
    pub now_ns: i64,
    /// which start of the machine it was
    pub boot: Arc<str>,
    /// time since then
    pub monotonic_ns: i64,
    /// since 1970
    pub wall_ns: i64,
    /// whether a time service had set wall time
    pub synchronised: bool,
}

impl Reading {
    fn is_of(&self, boot: &str) -> bool {
        !boot.is_empty() && *self.boot == *boot
    }

    /// Whether wall time was set since `earlier`, or is known to be right since then.
    fn differs_from(&self, earlier: &Self) -> bool {
        let ahead = |reading: &Self| reading.wall_ns.saturating_sub(reading.monotonic_ns);
        self.synchronised != earlier.synchronised
            || ahead(self).abs_diff(ahead(earlier)) > STEP_NS.unsigned_abs()
    }
}

/// The readings of a buffer, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings(pub Vec<Reading>);

/// A wall time that was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime {
    /// since 1970, as well as it is known
    pub wall_ns: i64,
    /// how it is known
    pub by: Known,
}

/// How a wall time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A time service had set the clock.
    Synchronised,
    /// One did later, before the machine was started anew: the clock was behind by so much.
    Corrected {
        /// what was added to what the clock showed
        by_ns: i64,
    },
    /// It is what the clock showed.
    Unsynchronised,
}

impl Readings {
    /// The wall time at the sequence's time `now_ns`. `None`: no reading goes back so far.
    #[must_use]
    pub fn wall_of(&self, now_ns: i64) -> Option<WallTime> {
        let behind = self.0.partition_point(|reading| reading.now_ns <= now_ns);
        let reading = self.0.get(behind.checked_sub(1)?)?;
        let since = now_ns - reading.now_ns;
        let shown = reading.wall_ns.saturating_add(since);
        if reading.synchronised {
            return Some(WallTime { wall_ns: shown, by: Known::Synchronised });
        }
        let of_boot = |other: &&Reading| other.synchronised && other.is_of(&reading.boot);
        let (before, after) = self.0.split_at(behind);
        let Some(right) = after.iter().find(of_boot).or_else(|| before.iter().rev().find(of_boot)) else {
            return Some(WallTime { wall_ns: shown, by: Known::Unsynchronised });
        };
        let wall_ns = right
            .wall_ns
            .saturating_add(reading.monotonic_ns.saturating_add(since).saturating_sub(right.monotonic_ns));
        Some(WallTime { wall_ns, by: Known::Corrected { by_ns: wall_ns.saturating_sub(shown) } })
    }
}

/// The clock of the sequence.
pub struct SequenceTime {
    clock: Arc<dyn Clock>,
    boot: Arc<str>,
    state: Mutex<State>,
}

struct State {
    /// the sequence's time minus monotonic time
    ahead_ns: i64,
    /// the newest time that was told
    newest: i64,
    /// a moment before the machine was started at which wall time was right, until the time since then
    /// counts: the sequence's time and wall time
    before: Option<(i64, i64)>,
    /// the newest reading that is on disk
    noted: Option<Reading>,
    /// monotonic time when the clocks were last compared
    looked_ns: i64,
    /// how often time has counted in which the machine was off
    leaps: u64,
    /// whether it was known at the start for how long nobody was there
    knows_the_gap: bool,
}

impl std::fmt::Debug for SequenceTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SequenceTime").finish_non_exhaustive()
    }
}

impl SequenceTime {
    /// Goes on behind `newest`, the newest time on disk (0: there is none), with what is known of the clocks.
    #[must_use]
    pub fn start(clock: Arc<dyn Clock>, newest: i64, known: &Readings) -> Self {
        let boot = clock.boot();
        let (monotonic_ns, wall_ns) = (monotonic_ns(&*clock), clock.wall_ns());
        let goes_on = match known.0.last() {
            Some(last) if last.is_of(&boot) && monotonic_ns >= last.monotonic_ns => {
                last.now_ns.saturating_add(monotonic_ns - last.monotonic_ns)
            }
            Some(_) => newest,
            None => wall_ns,
        };
        let now_ns = goes_on.max(newest.saturating_add(1));
        let synchronised = || known.0.iter().rev().filter(|reading| reading.synchronised);
        // If it was known in this boot, the time before it counts already.
        let before =
            if synchronised().any(|reading| reading.is_of(&boot)) { None } else { synchronised().next() };
        let knows_the_gap = known.0.last().is_none_or(|last| last.is_of(&boot));
        let state = State {
            ahead_ns: now_ns.saturating_sub(monotonic_ns),
            newest,
            before: before.map(|reading| (reading.now_ns, reading.wall_ns)),
            noted: None,
            looked_ns: monotonic_ns,
            leaps: 0,
            knows_the_gap,
        };
        Self { clock, boot, state: Mutex::new(state) }
    }

    /// Whether it was known at the start for how long nobody was there: the machine was not started anew.
    #[must_use]
    pub fn knows_the_gap(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).knows_the_gap
    }

    /// Now, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> i64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.at(monotonic_ns(&*self.clock))
    }

    /// Now, and how often time in which the machine was off has counted since the start: nobody was there
    /// then.
    #[must_use]
    pub fn now_and_leaps(&self) -> (i64, u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.at(monotonic_ns(&*self.clock)), state.leaps)
    }

    /// Now, with what the wall clock shows, be it right or not.
    #[must_use]
    pub fn when(&self) -> When {
        When { wall_ns: self.clock.wall_ns(), ..When::at(self.now()) }
    }

    /// Compares the clocks, though not more often than there is something to be seen. Returns what has to be
    /// noted, until it is.
    pub fn compare(&self) -> Option<Reading> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let monotonic_ns = monotonic_ns(&*self.clock);
        if state.noted.is_some() && monotonic_ns - state.looked_ns < LOOK_EVERY_NS {
            return None;
        }
        state.looked_ns = monotonic_ns;
        let (wall_ns, synchronised) = (self.clock.wall_ns(), self.clock.is_synchronised());
        if let Some((now_ns, then_ns)) = state.before.take_if(|_| synchronised) {
            let off =
                now_ns.saturating_add(wall_ns.saturating_sub(then_ns)).saturating_sub(state.at(monotonic_ns));
            state.ahead_ns = state.ahead_ns.saturating_add(off.max(0));
            if off > 0 {
                state.leaps += 1;
                tracing::info!(
                    off = ?Duration::from_nanos(off.unsigned_abs()),
                    "a time service has set the clock: the time that the machine was off is known, and \
                    counts"
                );
            }
        }
        let reading = Reading {
            now_ns: state.at(monotonic_ns),
            boot: Arc::clone(&self.boot),
            monotonic_ns,
            wall_ns,
            synchronised,
        };
        state.noted.as_ref().is_none_or(|noted| reading.differs_from(noted)).then_some(reading)
    }

    /// The reading is on disk.
    pub fn noted(&self, reading: Reading) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).noted = Some(reading);
    }
}

impl State {
    fn at(&mut self, monotonic_ns: i64) -> i64 {
        self.newest = self.newest.max(self.ahead_ns.saturating_add(monotonic_ns));
        self.newest
    }
}

fn monotonic_ns(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.monotonic().as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use tidegate_core::clock::SimulatedClock;
    use tokio::time::Instant;

    /// A clock that goes with the runtime's timers.
    pub(crate) struct RuntimeClock(pub(crate) Instant);

    impl Clock for RuntimeClock {
        fn wall_ns(&self) -> i64 {
            TODAY
        }

        fn monotonic(&self) -> Duration {
            self.0.elapsed()
        }

        fn boot(&self) -> Arc<str> {
            "boot".into()
        }

        fn is_synchronised(&self) -> bool {
            false
        }
    }

    const S: i64 = 1_000_000_000;
    const YEAR: i64 = 31_536_000 * S;
    /// 2026-01-01T00:00:00Z
    const TODAY: i64 = 1_767_225_600 * S;

    /// A machine, and what is on its disk.
    struct Machine {
        clock: Arc<SimulatedClock>,
        newest: i64,
        readings: Readings,
        time: SequenceTime,
    }

    impl Machine {
        fn new(wall_ns: i64) -> Self {
            let clock = Arc::new(SimulatedClock::new(wall_ns));
            let time = SequenceTime::start(Arc::clone(&clock) as _, 0, &Readings::default());
            let mut machine = Self { clock, newest: 0, readings: Readings::default(), time };
            machine.commit();
            machine
        }

        fn commit(&mut self) -> i64 {
            if let Some(reading) = self.time.compare() {
                self.readings.0.push(reading.clone());
                self.time.noted(reading);
            }
            self.newest = self.time.now();
            self.newest
        }

        fn restart(&mut self) -> i64 {
            self.time = SequenceTime::start(Arc::clone(&self.clock) as _, self.newest, &self.readings);
            self.commit()
        }

        fn pass(&mut self, seconds: u64) -> i64 {
            self.clock.pass(Duration::from_secs(seconds));
            self.commit()
        }
    }

    #[test]
    fn it_passes_evenly_while_the_clock_jumps_by_years() {
        let mut machine = Machine::new(TODAY);
        let began = machine.time.now();
        assert_eq!(began, TODAY);
        for (seconds, wall_ns) in
            [(10, TODAY + 40 * YEAR), (20, TODAY - 40 * YEAR), (30, -5 * YEAR), (40, i64::MAX)]
        {
            machine.clock.set(wall_ns);
            assert_eq!(machine.pass(10) - began, seconds * S);
        }
    }

    #[test]
    fn a_restart_of_the_box_loses_no_time_and_repeats_none() {
        let mut machine = Machine::new(TODAY);
        machine.pass(60);
        machine.clock.pass(Duration::from_secs(3_600));
        machine.clock.set(0);
        assert_eq!(machine.restart(), TODAY + 3_660 * S);
        // At the same moment.
        assert_eq!(machine.restart(), TODAY + 3_660 * S + 1);
    }

    #[test]
    fn the_time_that_a_machine_was_off_counts_when_both_ends_are_known() {
        let mut machine = Machine::new(TODAY);
        machine.clock.synchronise(TODAY + S);
        let before = machine.pass(60);
        // It is off for an hour, and comes back without knowing the time.
        machine.clock.reboot(0);
        let after = machine.restart();
        assert_eq!(after, before + 1);
        machine.clock.set(40 * YEAR);
        assert_eq!(machine.pass(100), after + 100 * S, "nobody vouches for that");
        assert_eq!(machine.time.now_and_leaps(), (after + 100 * S, 0));
        machine.clock.synchronise(TODAY + S + (60 + 3_600 + 100) * S);
        assert_eq!(machine.pass(5), before + (3_600 + 105) * S);
        machine.clock.synchronise(TODAY + 3 * YEAR);
        assert_eq!(machine.pass(5), before + (3_600 + 110) * S, "it counts once");
        assert_eq!(machine.time.now_and_leaps(), (before + (3_600 + 110) * S, 1));
    }

    #[test]
    fn a_box_without_a_clock_is_set_right_and_nothing_jumps() {
        let mut machine = Machine::new(0);
        let before = machine.pass(30);
        assert_eq!(before, 30 * S + 1);
        machine.clock.synchronise(TODAY);
        assert_eq!(machine.pass(1), before + S);
        machine.clock.reboot(TODAY + 2 * YEAR);
        assert_eq!(machine.restart(), before + S + 1, "a clock that nobody has set");
        machine.clock.synchronise(TODAY + 60 * S);
        assert_eq!(machine.pass(1), before + 61 * S);
    }

    #[test]
    fn wall_times_of_a_boot_are_corrected_when_its_clock_is_set_right() {
        let mut machine = Machine::new(0);
        let early = machine.pass(30);
        let wall_of = |machine: &Machine, now| machine.readings.wall_of(now).unwrap();
        assert_eq!(wall_of(&machine, early), WallTime { wall_ns: 30 * S, by: Known::Unsynchronised });
        machine.clock.set(5 * YEAR);
        let odd = machine.pass(10);
        machine.clock.synchronise(TODAY + 100 * S);
        let late = machine.pass(10);
        assert_eq!(
            wall_of(&machine, early),
            WallTime { wall_ns: TODAY + 90 * S, by: Known::Corrected { by_ns: TODAY + 60 * S } }
        );
        assert_eq!(
            wall_of(&machine, odd),
            WallTime { wall_ns: TODAY + 100 * S, by: Known::Corrected { by_ns: TODAY + 90 * S - 5 * YEAR } }
        );
        assert_eq!(wall_of(&machine, late), WallTime { wall_ns: TODAY + 110 * S, by: Known::Synchronised });
        // Another boot says nothing about it.
        machine.clock.reboot(0);
        let next = machine.restart();
        assert_eq!(wall_of(&machine, next), WallTime { wall_ns: 0, by: Known::Unsynchronised });
        assert_eq!(machine.readings.wall_of(-1), None);
    }

    #[test]
    fn a_leap_second_is_no_reason_to_read_the_clocks() {
        let mut machine = Machine::new(TODAY);
        machine.clock.synchronise(TODAY);
        machine.pass(2);
        let readings = machine.readings.clone();
        machine.clock.set(machine.clock.wall_ns() - S);
        machine.pass(2);
        assert_eq!(machine.readings, readings);
        machine.clock.set(machine.clock.wall_ns() - 2 * S);
        machine.pass(2);
        assert_eq!(machine.readings.0.len(), readings.0.len() + 1);
    }
}
