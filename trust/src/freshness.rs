//! Whether a command is new: counters stop what was there before, the time floor and `not_after` what was
//! held back, and nonces what was kept for minutes, without a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::envelope::brief;
use crate::key::PublicKey;
use crate::key_set::KeySet;
use crate::op::Timing;
use crate::outcome::Code;
use crate::refusal::Refusal;
use crate::time::{WallTime, write_duration};

/// How many counters of a key may come out of order.
pub const WINDOW: usize = 256;

/// How far a signer's clock may be ahead of the box's.
const AHEAD_OF_CLOCK: Duration = Duration::from_secs(24 * 3_600);

/// The same, for a box that has no clock and has been on the shelf for a year.
const AHEAD_OF_FLOOR: Duration = Duration::from_secs(400 * 24 * 3_600);

/// The longest that a command may wait: one that is good for ever could be held back for ever.
pub const LONGEST_VALIDITY: Duration = AHEAD_OF_FLOOR;

/// The longest that a command is held because the box does not know the time.
pub const LONGEST_HOLD: Duration = Duration::from_secs(15 * 60);

/// How often a box makes a new nonce. The one before counts, too.
pub const NONCE_PERIOD: Duration = Duration::from_secs(10 * 60);

/// What the box knows of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// A time service has set it.
    Synchronised(WallTime),
    /// Whatever it shows, nobody has set it.
    Unsynchronised,
}

/// What is done with a queued command that may be too old, by a box that does not know the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoClock {
    /// It waits for the time, at most [`LONGEST_HOLD`]; then rules are taken, and all else is refused.
    #[default]
    Hold,
    /// It is taken: its counter is new, and it is not certainly too old.
    Accept,
    /// It is refused.
    Refuse,
}

/// What a box has to remember to know what is new. The caller stores it with what it admits, in one
/// transaction: a counter that was forgotten lets a command in twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// It is not earlier than that.
    pub floor: Floor,
    /// of each key that ever commanded
    pub counters: BTreeMap<PublicKey, Counter>,
}

/// The latest time of which the box is sure that it has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// the time
    pub at: WallTime,
    /// how it is known, for people: a wrong floor makes good commands old
    pub from: String,
}

/// Which counters of a key have been used: all up to `floor`, and those in `used`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// no counter up to this one counts any more
    pub floor: u64,
    /// the last [`WINDOW`] that were used
    pub used: BTreeSet<u64>,
}

/// Why a counter does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldCounter {
    /// It was used.
    Used,
    /// It is older than all that are remembered.
    BelowFloor,
}

/// Of a key that never commanded.
const UNUSED: Counter = Counter { floor: 0, used: BTreeSet::new() };

impl Counter {
    /// Whether `ctr` was never used.
    ///
    /// # Errors
    /// When it was, or nobody knows any more.
    pub fn check(&self, ctr: u64) -> Result<(), OldCounter> {
        if ctr <= self.floor {
            return Err(OldCounter::BelowFloor);
        }
        if self.used.contains(&ctr) { Err(OldCounter::Used) } else { Ok(()) }
    }

    /// From now on `ctr` is used.
    pub fn record(&mut self, ctr: u64) {
        self.used.insert(ctr);
        while self.used.len() > WINDOW
            && let Some(oldest) = self.used.pop_first()
        {
            self.floor = self.floor.max(oldest);
        }
    }

    /// The greatest that was used, which `cap` tells.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.used.last().copied().unwrap_or(0).max(self.floor)
    }

    /// What is left of it when its key goes: should the key come back, its old commands do not.
    fn close(&mut self) {
        self.floor = self.newest();
        self.used.clear();
    }
}

impl Freshness {
    /// A box of a program that was built at `build`, with no past.
    #[must_use]
    pub fn new(build: WallTime) -> Self {
        Self {
            floor: Floor { at: build, from: "the program was built then".into() },
            counters: BTreeMap::new(),
        }
    }

    fn raise(&mut self, at: WallTime, from: impl FnOnce() -> String) {
        if at > self.floor.at {
            self.floor = Floor { at, from: from() };
        }
    }

    /// A time service has set the clock to that.
    pub fn observe(&mut self, clock: Clock) {
        if let Clock::Synchronised(at) = clock {
            self.raise(at, || "the clock was set to that by a time service".into());
        }
    }

    /// Another key set counts: it is not earlier than when it was made, and keys that are gone stay used up.
    pub fn adopt(&mut self, set: &KeySet) {
        self.raise(set.issued, || format!("key set {} was made then", set.version));
        for (key, counter) in &mut self.counters {
            if set.entries(*key).next().is_none() {
                counter.close();
            }
        }
    }

    /// A command was admitted. It is done once, and it is not earlier than when it was signed.
    pub fn record(&mut self, command: &Command, signers: impl IntoIterator<Item = PublicKey>) {
        let mut is_signed = false;
        for key in signers {
            is_signed = true;
            if let Some(ctr) = command.ctr {
                self.counters.entry(key).or_default().record(ctr);
            }
        }
        if let Some(issued) = command.issued.filter(|_| is_signed) {
            self.raise(issued, || format!("command {} was signed then", command.id));
        }
    }

    /// The latest time that is certain to have come.
    #[must_use]
    pub fn now(&self, clock: Clock) -> WallTime {
        match clock {
            Clock::Synchronised(at) => at.max(self.floor.at),
            Clock::Unsynchronised => self.floor.at,
        }
    }

    fn how_now_is_known(&self, clock: Clock) -> String {
        match clock {
            Clock::Synchronised(at) if at >= self.floor.at => format!("the clock shows {at}"),
            _ => format!("it is {} at least, since {}", self.floor.at, self.floor.from),
        }
    }

    /// Whether a command by `signers` was never here, and is not from a future that nobody believes.
    pub(crate) fn check_counter(
        &self,
        command: &Command,
        signers: &[(&str, PublicKey)],
        clock: Clock,
    ) -> Result<(), Refusal> {
        let missing = |field: &str, what: &str| {
            Refusal::new(Code::Invalid, format!("a signed command needs `{field}`, {what}"))
        };
        if signers.is_empty() {
            return Ok(());
        }
        let what = "which is greater each time: microseconds since 1970, as `date +%s%6N` prints";
        let ctr = command.ctr.ok_or_else(|| missing("ctr", what))?;
        for (name, key) in signers {
            let counter = self.counters.get(key).unwrap_or(const { &UNUSED });
            let Err(old) = counter.check(ctr) else { continue };
            let newest = counter.newest();
            let why = match old {
                OldCounter::Used => "was used by another command",
                OldCounter::BelowFloor => "is older than all that are remembered",
            };
            return Err(Refusal::new(
                Code::Replayed,
                format!("the counter {ctr} of key {} {why}; its newest is {newest}", brief(name)),
            )
            .help("it is an old command that came back, or the signer's clock is slow: sign it anew"));
        }
        let ahead = match clock {
            Clock::Synchronised(_) => AHEAD_OF_CLOCK,
            Clock::Unsynchronised => AHEAD_OF_FLOOR,
        };
        let latest = self.now(clock).after(ahead);
        let counted = WallTime::from_micros(i64::try_from(ctr).unwrap_or(i64::MAX));
        for (field, at) in [("ctr", Some(counted)), ("issued", command.issued)] {
            if let Some(at) = at.filter(|at| *at > latest) {
                let (known, ahead) = (self.how_now_is_known(clock), write_duration(ahead));
                let reason =
                    format!("`{field}` says {at}, and {known}: more than {ahead} ahead is not believed");
                return Err(Refusal::new(Code::NotFresh, reason)
                    .help("set the clock of the computer that signs, or that of the box"));
            }
        }
        Ok(())
    }

    /// Whether the time of a command has not passed, as far as can be told. If it cannot be told: whether
    /// that matters to it.
    pub(crate) fn check_time(
        &self,
        command: &Command,
        is_signed: bool,
        clock: Clock,
    ) -> Result<Age, Refusal> {
        let now = self.now(clock);
        if let Some(end) = command.not_after.filter(|end| *end < now) {
            let known = self.how_now_is_known(clock);
            return Err(Refusal::new(
                Code::Expired,
                format!("the command was good until {end}, and {known}"),
            )
            .help("sign it anew, if it should still be done"));
        }
        if command.op.terms().timing != Timing::Queued {
            return Ok(Age::Known);
        }
        let invalid = |reason: String| Refusal::new(Code::Invalid, reason);
        match (command.issued, command.not_after) {
            (Some(issued), Some(end)) if end < issued => {
                return Err(invalid(format!("it is good until {end}, before it was signed at {issued}")));
            }
            (Some(issued), Some(end)) if end > issued.after(LONGEST_VALIDITY) => {
                let longest = write_duration(LONGEST_VALIDITY);
                return Err(invalid(format!("it is good until {end}, longer than {longest}")));
            }
            (Some(_), Some(_)) => {}
            _ if is_signed => {
                let reason = format!("a signed {} needs `issued` and `not_after`", command.op);
                return Err(
                    invalid(reason).help("they say when it was signed, and until when it may be begun")
                );
            }
            _ => {}
        }
        let is_known =
            clock != Clock::Unsynchronised || command.not_after.is_none() || command.nonce.is_some();
        Ok(if is_known { Age::Known } else { Age::Unknown })
    }
}

/// Whether it can be told how old a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    Known,
    Unknown,
}

/// What the box says of itself so that a command can prove to be new. It is not stored: after a start, and in
/// a box whose disk is last week's, old nonces count no more. Its times are those of a clock that never goes
/// back and goes on while the machine sleeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonces {
    current: Nonce,
    previous: Option<Nonce>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Nonce {
    text: String,
    since: Duration,
}

impl Nonce {
    /// It can stand in a shell and in JSON as it is.
    fn new(random: [u8; 16], now: Duration) -> Self {
        Self { text: random.iter().map(|byte| format!("{byte:02x}")).collect(), since: now }
    }
}

impl Nonces {
    /// The first one of a start, from 16 random bytes.
    #[must_use]
    pub fn new(random: [u8; 16], now: Duration) -> Self {
        Self { current: Nonce::new(random, now), previous: None }
    }

    /// When the next one is due.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.current.since + NONCE_PERIOD
    }

    /// Makes a new one. The one before counts until the next, or until it is as old as that.
    pub fn renew(&mut self, random: [u8; 16], now: Duration) {
        self.previous = Some(std::mem::replace(&mut self.current, Nonce::new(random, now)));
    }

    /// What `cap` tells.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.current.text
    }

    /// Whoever renews them may be late, so their age counts, too.
    fn contains(&self, text: &str, now: Duration) -> bool {
        let counts = |nonce: &Nonce| nonce.text == text && now.saturating_sub(nonce.since) < 2 * NONCE_PERIOD;
        counts(&self.current) || self.previous.as_ref().is_some_and(counts)
    }

    pub(crate) fn check(&self, command: &Command, now: Duration) -> Result<(), Refusal> {
        let is_live = command.op.terms().timing == Timing::Live;
        let reason = match &command.nonce {
            Some(nonce) if self.contains(nonce, now) => return Ok(()),
            None if !is_live => return Ok(()),
            Some(nonce) => format!("the nonce {} is not one of the box's last two", brief(nonce)),
            None => {
                format!("{} moves something at once, and has no nonce that proves that it is new", command.op)
            }
        };
        Err(Refusal::new(Code::NotFresh, reason)
            .help("take `nonce` from the box's cap topic, and sign the command again within ten minutes"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The model remembers everything, and never forgets.
        #[test]
        fn no_counter_is_good_twice(
            ctrs in prop::collection::vec(prop_oneof![0u64..2_000, any::<u64>()], 0..2_000),
            restart in any::<prop::sample::Index>(),
        ) {
            let mut counter = Counter::default();
            let mut ever = BTreeSet::new();
            let restart = restart.index(ctrs.len() + 1);
            for (number, ctr) in ctrs.into_iter().enumerate() {
                if number == restart {
                    counter = serde_json::from_str(&serde_json::to_string(&counter).unwrap()).unwrap();
                }
                let greatest = ever.last().copied().unwrap_or(0);
                let is_new = counter.check(ctr).is_ok();
                prop_assert!(!(is_new && ever.contains(&ctr)), "{ctr} was good before");
                // As long as nothing is forgotten, all that is new is good; and what is the greatest always
                // is.
                if (ever.len() <= WINDOW || ctr > greatest) && ctr > 0 {
                    prop_assert_eq!(is_new, !ever.contains(&ctr));
                }
                if is_new {
                    counter.record(ctr);
                    ever.insert(ctr);
                }
                prop_assert!(counter.used.len() <= WINDOW);
                prop_assert_eq!(counter.newest(), ever.last().copied().unwrap_or(0));
            }
        }

        /// Whatever is observed in whatever order, the floor does not go back.
        #[test]
        fn the_floor_only_rises(times in prop::collection::vec(0i64..4_000_000_000_000_000, 0..50)) {
            let mut state = Freshness::new(WallTime::from_micros(1_000));
            for micros in times {
                let before = state.floor.at;
                let at = WallTime::from_micros(micros);
                state.observe(Clock::Synchronised(at));
                prop_assert_eq!(state.floor.at, before.max(at));
                state.observe(Clock::Unsynchronised);
                prop_assert_eq!(state.now(Clock::Unsynchronised), before.max(at));
            }
        }
    }

    #[test]
    fn the_last_two_nonces_count() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let mut nonces = Nonces::new([1; 16], minutes(0));
        let first = nonces.current().to_owned();
        assert_eq!(nonces.due(), minutes(10));
        nonces.renew([2; 16], minutes(10));
        let second = nonces.current().to_owned();
        assert!(nonces.contains(&first, minutes(19)) && nonces.contains(&second, minutes(19)));
        nonces.renew([3; 16], minutes(20));
        assert!(!nonces.contains(&first, minutes(20)) && nonces.contains(&second, minutes(20)));
        assert!(!nonces.contains("", minutes(20)));
        // The machine slept, and nobody has renewed them yet; then somebody has.
        let third = nonces.current().to_owned();
        assert!(!nonces.contains(&second, minutes(60)) && !nonces.contains(&third, minutes(60)));
        nonces.renew([4; 16], minutes(60));
        assert!(!nonces.contains(&third, minutes(60)) && nonces.contains(nonces.current(), minutes(60)));
    }
}
