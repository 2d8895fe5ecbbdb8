//! Rows a second, over the last ten seconds and the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// Rows a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// over the last ten seconds, or since the start
    pub per_s_10s: f64,
    /// over the last minute, or since the start
    pub per_s_60s: f64,
}

/// What rows are counted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// rows that came
    Stream,
    /// rows that a rule wrote
    Rule,
    /// rows that the far side confirmed
    Output,
    /// rows that the far side confirmed
    Uplink,
}

const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_mins(1);

/// Counts of the last minute.
#[derive(Debug, Default)]
pub struct Rates(BTreeMap<(Counted, String), Counts>);

/// When there were how many.
type Counts = VecDeque<(Instant, u64)>;

impl Rates {
    /// Takes note of what has been counted until `now`.
    pub fn note(&mut self, status: &Status, now: Instant) {
        let mut new = Vec::new();
        new.extend(
            status.streams.all().into_iter().map(|(name, of)| ((Counted::Stream, name), of.rows.get())),
        );
        new.extend(status.rules.all().into_iter().map(|(name, of)| ((Counted::Rule, name), of.rows.get())));
        new.extend(
            status.outputs.all().into_iter().map(|(name, of)| ((Counted::Output, name), of.written.get())),
        );
        new.extend(
            status.uplinks.all().into_iter().map(|(name, of)| ((Counted::Uplink, name), of.delivered.get())),
        );
        let mut before = std::mem::take(&mut self.0);
        self.0 = new
            .into_iter()
            .map(|(key, count)| {
                let mut counts = before.remove(&key).unwrap_or_default();
                // The oldest that is kept is the newest that is at least as old as the longest span.
                while counts.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LONG) {
                    counts.pop_front();
                }
                counts.push_back((now, count));
                (key, counts)
            })
            .collect();
    }

    /// The rate of `name`.
    #[must_use]
    pub fn get(&self, what: Counted, name: &str) -> Rate {
        let Some(counts) = self.0.get(&(what, name.to_owned())) else { return Rate::default() };
        Rate { per_s_10s: over(SHORT, counts), per_s_60s: over(LONG, counts) }
    }
}

fn over(span: Duration, counts: &Counts) -> f64 {
    let Some((now, newest)) = counts.back() else { return 0.0 };
    // The newest that is old enough, or else the oldest.
    let old_enough = |(at, _): &&(Instant, u64)| now.saturating_duration_since(*at) >= span;
    let Some((since, before)) = counts.iter().rev().find(old_enough).or(counts.front()) else { return 0.0 };
    let seconds = now.saturating_duration_since(*since).as_secs_f64();
    let rows = f64::from(u32::try_from(newest.saturating_sub(*before)).unwrap_or(u32::MAX));
    // A thousandth is as much as a person can use.
    if seconds > 0.0 { (rows / seconds * 1_000.0).round() / 1_000.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_the_last_ten_seconds_and_the_last_minute() {
        let (status, mut rates, begin) = (Status::default(), Rates::default(), Instant::now());
        let tank = status.streams.of("tank");
        let mut second = 0;
        let mut pass = |seconds: u64, rows: u64| {
            for _ in 0..seconds {
                rates.note(&status, begin + Duration::from_secs(second));
                tank.rows.add(rows);
                second += 1;
            }
            rates.note(&status, begin + Duration::from_secs(second));
            let Rate { per_s_10s, per_s_60s } = rates.get(Counted::Stream, "tank");
            (per_s_10s, per_s_60s)
        };
        assert_eq!(pass(0, 0), (0.0, 0.0));
        assert_eq!(pass(4, 24), (24.0, 24.0), "since the start");
        assert_eq!(pass(26, 24), (24.0, 24.0));
        assert_eq!(pass(5, 0).0, 12.0);
        assert_eq!(pass(25, 0), (0.0, 12.0));
        assert_eq!(pass(30, 0), (0.0, 0.0));
    }
}
