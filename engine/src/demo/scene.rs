//! What the view shows at one moment: the box's counters and, beside them, the truth about plant and cloud.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cloud::CloudState;
use super::plant::Tank;
use super::recent::Message;
use crate::status::Status;

/// One picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    /// since the demo started
    pub(super) running_for: Duration,
    pub(super) tanks: Vec<Tank>,
    pub(super) streams: Vec<StreamLine>,
    pub(super) rules: Vec<RuleLine>,
    pub(super) outputs: Vec<OutputLine>,
    pub(super) connections: Vec<ConnectionLine>,
    pub(super) outbox: OutboxLine,
    pub(super) uplinks: Vec<UplinkLine>,
    pub(super) cloud: Option<CloudState>,
    /// newest first
    pub(super) messages: Vec<Message>,
    /// the rule file that the user is asked to edit
    pub(super) rule_to_try: String,
}

#[derive(Debug, Clone)]
pub(super) struct StreamLine {
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) per_second: f64,
    pub(super) last: String,
}

#[derive(Debug, Clone)]
pub(super) struct RuleLine {
    pub(super) name: String,
    /// rows that it wrote
    pub(super) rows: u64,
    pub(super) late: u64,
    pub(super) errors: u64,
    pub(super) versions: u64,
    pub(super) refused: bool,
    /// newest row, or why the newest version was refused
    pub(super) last: String,
}

#[derive(Debug, Clone)]
pub(super) struct OutputLine {
    pub(super) name: String,
    pub(super) written: u64,
    /// refused or dropped
    pub(super) failed: u64,
    pub(super) last: String,
}

#[derive(Debug, Clone)]
pub(super) struct ConnectionLine {
    pub(super) name: String,
    pub(super) connected: bool,
    pub(super) malformed: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct OutboxLine {
    pub(super) waiting: u64,
    pub(super) dropped: u64,
}

#[derive(Debug, Clone)]
pub(super) struct UplinkLine {
    pub(super) name: String,
    pub(super) delivered: u64,
    pub(super) connected: bool,
}

impl Scene {
    /// Reads the box's `status`, `running_for` after the start.
    pub(super) fn of(status: &Status, rates: &mut Rates, running_for: Duration) -> Self {
        let streams: Vec<_> =
            status.streams.all().into_iter().map(|(name, stream)| (name, stream.rows.get(), stream.last.read())).collect();
        rates.note(running_for, streams.iter().map(|(name, rows, _)| (name.clone(), *rows)).collect());
        let streams = streams
            .into_iter()
            .map(|(name, rows, last)| StreamLine {
                per_second: rates.per_second(&name, rows, running_for),
                name,
                rows,
                last: printable(&last),
            })
            .collect();
        let rules = status.rules.all().into_iter().map(|(name, rule)| RuleLine {
            name,
            rows: rule.rows.get(),
            late: rule.late.get(),
            errors: rule.errors.get(),
            versions: rule.versions.get(),
            refused: rule.refused.load(Ordering::Relaxed),
            last: printable(&rule.last.read()),
        });
        let outputs = status.outputs.all().into_iter().map(|(name, output)| OutputLine {
            name,
            written: output.written.get(),
            failed: output.failed.get() + output.dropped.get(),
            last: printable(&output.last.read()),
        });
        let connections = status.connections.all().into_iter().map(|(name, connection)| ConnectionLine {
            name,
            connected: connection.connected.load(Ordering::Relaxed),
            malformed: connection.malformed.load(std::sync::atomic::Ordering::Relaxed),
        });
        let outbox = OutboxLine { waiting: status.outbox.waiting.get(), dropped: status.outbox.dropped.get() };
        let uplinks = status.uplinks.all().into_iter().map(|(name, uplink)| UplinkLine {
            name,
            delivered: uplink.delivered.get(),
            connected: uplink.connected.load(Ordering::Relaxed),
        });
        Self {
            running_for,
            streams,
            rules: rules.collect(),
            outputs: outputs.collect(),
            connections: connections.collect(),
            outbox,
            uplinks: uplinks.collect(),
            ..Self::default()
        }
    }
}

/// Rows come from outside, and a terminal obeys control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Row counts of the last moments, from which rates are told.
#[derive(Debug, Default)]
pub(super) struct Rates(VecDeque<(Duration, BTreeMap<String, u64>)>);

impl Rates {
    /// Over how long a rate is taken: steady to look at, and still quick to change.
    const SPAN: Duration = Duration::from_secs(2);

    fn note(&mut self, now: Duration, counts: BTreeMap<String, u64>) {
        // The oldest that is kept is the newest that is at least SPAN old.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= Self::SPAN) {
            self.0.pop_front();
        }
        self.0.push_back((now, counts));
    }

    fn per_second(&self, name: &str, rows: u64, now: Duration) -> f64 {
        let Some((at, counts)) = self.0.front() else { return 0.0 };
        let seconds = now.saturating_sub(*at).as_secs_f64();
        let new = rows.saturating_sub(counts.get(name).copied().unwrap_or(0));
        if seconds > 0.0 { f64::from(u32::try_from(new).unwrap_or(u32::MAX)) / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_rate_is_taken_over_the_last_two_seconds() {
        let status = Status::default();
        let tank = status.streams.of("tank");
        let mut rates = Rates::default();
        let mut rate_at = |ms| Scene::of(&status, &mut rates, Duration::from_millis(ms)).streams[0].per_second;
        assert_eq!(rate_at(0), 0.0);
        for n in 1..=12 {
            tank.rows.add(6);
            assert_eq!(rate_at(n * 250), 24.0);
        }
        for n in 13..=20 {
            rate_at(n * 250);
        }
        assert_eq!(rate_at(5_250), 0.0);
    }

    #[test]
    fn control_characters_from_outside_do_not_reach_the_terminal() {
        let status = Status::default();
        status.streams.of("tank").last.replace("{\"x\":\"\u{1b}[2J\n\"}".to_owned());
        let scene = Scene::of(&status, &mut Rates::default(), Duration::ZERO);
        assert_eq!(scene.streams[0].last, "{\"x\":\" [2J \"}");
    }
}
