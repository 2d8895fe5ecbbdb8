//! How long to wait before connecting again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::Span;

use crate::table::{Problem, Review, tell};

/// `backoff`: the pause grows from `min` to `max`, with jitter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackoffConfig {
    /// first pause
    pub min: Span,
    /// longest pause
    pub max: Span,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { min: Span(Duration::from_millis(500)), max: Span(Duration::from_secs(60)) }
    }
}

impl BackoffConfig {
    /// Says what is wrong with the table `backoff`.
    pub(crate) fn check(&self, review: &mut Review<'_>) {
        tell(self.problems(), review);
    }

    /// What is wrong with the table `backoff`.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let wrong = |what: String, help: &str| Problem::new(&["backoff", "min"], what).help(help);
        let mut problems = Vec::new();
        if self.min.0.is_zero() {
            problems.push(wrong(
                "`backoff.min` must be longer than nothing".to_owned(),
                "write a pause such as \"500ms\": without one, a far side that is down would be \
                 called without end",
            ));
        }
        if self.min > self.max {
            problems.push(wrong(
                format!("`backoff.min` ({}) is longer than `backoff.max` ({})", self.min, self.max),
                "the pause grows from `min` to `max`",
            ));
        }
        problems
    }
}

/// A line that was up for so long, or for the longest pause, has run well.
const STEADY: Duration = Duration::from_secs(10);

/// Exponential backoff with jitter: the n-th pause is anywhere between the shortest one and 2^n times that,
/// and never above the longest. A plant whose boxes all lost a broker at once does not come back all at once.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    /// Pauses from `min` to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        // The hasher is seeded by the operating system; a zero would stay zero.
        Self::seeded(min, max, RandomState::new().hash_one(min) | 1)
    }

    fn seeded(min: Duration, max: Duration, random: u64) -> Self {
        Self { min, max: max.max(min), ceiling: min, random }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        // xorshift64 (Marsaglia, 2003)
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let span = u64::try_from(self.ceiling.saturating_sub(self.min).as_nanos()).unwrap_or(u64::MAX);
        self.min + Duration::from_nanos(self.random.checked_rem(span).unwrap_or(0))
    }

    /// What was tried again has worked: pauses start small again.
    pub fn succeeded(&mut self) {
        self.ceiling = self.min;
    }

    /// Tells how long the line was up. If it has run well, pauses start small again; one that breaks each time
    /// as soon as it is up, whatever it did meanwhile, is not hammered.
    pub fn was_up(&mut self, up: Duration) {
        if up >= self.max.min(STEADY) {
            self.ceiling = self.min;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_stay_between_the_shortest_and_the_longest(min_ms in 1_u64..10_000, more_ms in 0_u64..600_000, seed in 1_u64..) {
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(min_ms + more_ms));
            let mut backoff = Backoff::seeded(min, max, seed);
            for n in 1..40_u32 {
                let pause = backoff.pause();
                let ceiling = min.saturating_mul(2_u32.saturating_pow(n.min(31))).min(max);
                prop_assert!(min <= pause && pause <= ceiling.max(min), "{pause:?} in {min:?}..{ceiling:?}");
            }
            backoff.was_up(max + Duration::from_secs(1));
            prop_assert!(backoff.pause() <= min * 2);
        }
    }

    #[test]
    fn a_line_that_falls_at_once_is_called_less_and_less_and_one_that_has_run_well_starts_anew() {
        let (min, max) = (Duration::from_millis(500), Duration::from_secs(60));
        let mut backoff = Backoff::seeded(min, max, 7);
        for _ in 0..20 {
            // Longer than the first pauses, and shorter than anything that is of use.
            backoff.was_up(Duration::from_secs(2));
            backoff.pause();
        }
        assert_eq!(backoff.ceiling, max);
        backoff.was_up(STEADY);
        assert!(backoff.pause() <= 2 * min);
        let mut quick = Backoff::seeded(Duration::from_millis(1), Duration::from_millis(50), 7);
        (0..20).for_each(|_| assert!(quick.pause() > Duration::ZERO));
        quick.was_up(Duration::from_millis(50));
        assert!(quick.pause() <= Duration::from_millis(2));
    }
}
