//! What is due again and again on one line, each in its own rhythm.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tokio::time::Instant;

/// The rhythms of a line, by their places.
#[derive(Debug)]
pub(crate) struct Schedule {
    rhythms: Vec<Rhythm>,
}

#[derive(Debug)]
struct Rhythm {
    every: Duration,
    due: Instant,
    /// By how much the second time is later than the rhythm, and with it all others: see [`lag`].
    lag: Duration,
}

impl Schedule {
    /// For the line of this name.
    pub(crate) fn new(line: &str, intervals: impl IntoIterator<Item = Duration>) -> Self {
        let now = Instant::now();
        let rhythm = |every| Rhythm { every, due: now, lag: lag(line, every) };
        Self { rhythms: intervals.into_iter().map(rhythm).collect() }
    }

    /// It begins now. What has one interval is spread over it, so that a line with many devices does not
    /// burst.
    pub(crate) fn begin(&mut self, now: Instant) {
        let phases = phases(&self.rhythms.iter().map(|rhythm| rhythm.every).collect::<Vec<_>>());
        for (rhythm, phase) in self.rhythms.iter_mut().zip(phases) {
            rhythm.due = now + phase;
        }
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.rhythms.iter().map(|rhythm| rhythm.due).min()
    }

    /// The one that has been due for longest.
    pub(crate) fn due(&self, now: Instant) -> Option<usize> {
        let due = self.rhythms.iter().enumerate().filter(|(_, rhythm)| rhythm.due <= now);
        due.min_by_key(|(_, rhythm)| rhythm.due).map(|(index, _)| index)
    }

    /// When one was, or is, due.
    pub(crate) fn due_since(&self, index: usize) -> Option<Instant> {
        self.rhythms.get(index).map(|rhythm| rhythm.due)
    }

    /// One is done, and due again at the next moment of its own rhythm. Returns how many times it was due
    /// again before.
    pub(crate) fn done(&mut self, index: usize, now: Instant) -> u32 {
        let Some(rhythm) = self.rhythms.get_mut(index) else { return 0 };
        let missed = missed(rhythm.due, rhythm.every, now);
        rhythm.due += rhythm.every.saturating_mul(missed.saturating_add(1)) + std::mem::take(&mut rhythm.lag);
        missed
    }
}

/// When each comes first: those of one interval are spread over it.
fn phases(intervals: &[Duration]) -> Vec<Duration> {
    let mut seen: BTreeMap<Duration, u32> = BTreeMap::new();
    intervals
        .iter()
        .map(|every| {
            let all = intervals.iter().filter(|other| *other == every).count();
            let before = seen.entry(*every).or_default();
            let phase = *every * *before / u32::try_from(all).unwrap_or(u32::MAX).max(1);
            *before += 1;
            phase
        })
        .collect()
}

/// How much later than others the line has its rhythm, by its name, so that many lines do not ask at the same
/// moment. The first value comes at once.
fn lag(line: &str, every: Duration) -> Duration {
    let mut hasher = SipHasher13::new();
    hasher.write(line.as_bytes());
    let thousandths = u32::try_from(hasher.finish() % 1_000).unwrap_or_default();
    every.min(Duration::from_secs(1)) * thousandths / 1_000
}

/// How many times it was due again before it was over.
fn missed(due: Instant, every: Duration, now: Instant) -> u32 {
    let late = now.saturating_duration_since(due);
    u32::try_from(late.as_nanos() / every.as_nanos().max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn polls_of_one_interval_are_spread_over_it() {
        let ms = Duration::from_millis;
        let first = phases(&[ms(1_000), ms(1_000), ms(300), ms(1_000), ms(1_000)]);
        assert_eq!(first, [ms(0), ms(250), ms(0), ms(500), ms(750)]);
    }

    #[test]
    fn lines_of_one_interval_do_not_ask_at_the_same_moment() {
        let every = Duration::from_millis(100);
        let lags: BTreeSet<Duration> = (0..20).map(|n| lag(&format!("press_{n}"), every)).collect();
        assert!(lags.len() > 15 && lags.iter().all(|lag| *lag < every), "{lags:?}");
        assert!(lag("press_1", Duration::from_hours(1)) < Duration::from_secs(1));
    }

    #[test]
    fn a_poll_that_is_late_keeps_its_rhythm_and_what_it_missed_is_counted() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let second = Duration::from_secs(1);
        assert_eq!(missed(at(0), second, at(0)), 0);
        assert_eq!(missed(at(0), second, at(999)), 0);
        assert_eq!(missed(at(0), second, at(1_000)), 1);
        assert_eq!(missed(at(0), second, at(3_500)), 3);
    }
}
