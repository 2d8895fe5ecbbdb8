//! Who listens: which lines are up and read, so that it is silence when no row comes.
//!
//! Nothing that is waited for comes while a line is down, nor while the far side still sends what it has
//! kept, nor from a far side that hangs. So a silence is not taken for one until the line has shown, after the
//! fact, that it was listening: when a rule would take note of a silence, the line is asked, and its answer
//! is an entry of the sequence. A line that does not answer holds up nothing but the silences of its own
//! streams.
//!
//! When a time service sets the clock, the time for which the machine was off is added to the sequence's
//! time. Nobody listened then, so that all begin anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_connectors::LineNews;
use tidegate_rules::Listened;
use tokio::sync::watch;

use crate::sequence::wakes::Silences;

/// The lines that streams come from.
#[derive(Debug, Default)]
pub struct Listeners {
    lines: Vec<Listener>,
    /// the streams, by the lines that bring them
    groups: BTreeMap<Vec<usize>, Group>,
    /// see [`crate::time::SequenceTime::now_and_leaps`]
    leaps: u64,
}

#[derive(Debug)]
struct Listener {
    /// `None`: never in this process
    listened: Option<Listened>,
    /// when it was asked last, in the sequence's time
    question: watch::Sender<i64>,
}

/// Streams that come from the same lines. They are listened to while all of these are.
#[derive(Debug, Default)]
struct Group {
    streams: Arc<[Arc<str>]>,
    /// as it was told last
    listened: Option<Listened>,
}

impl Listeners {
    /// Adds a line that brings `streams`, before there is news of any. Returns its number, and where it finds
    /// the sequence's time at which it was last asked.
    pub fn add(&mut self, streams: impl IntoIterator<Item = Arc<str>>) -> (usize, watch::Receiver<i64>) {
        let (question, asked) = watch::channel(i64::MIN);
        let line = self.lines.len();
        self.lines.push(Listener { listened: None, question });
        let mut lines_of: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (lines, group) in std::mem::take(&mut self.groups) {
            lines_of.extend(group.streams.iter().map(|stream| (Arc::clone(stream), lines.clone())));
        }
        streams.into_iter().for_each(|stream| lines_of.entry(stream).or_default().push(line));
        let mut groups: BTreeMap<_, Vec<Arc<str>>> = BTreeMap::new();
        lines_of.into_iter().for_each(|(stream, lines)| groups.entry(lines).or_default().push(stream));
        let group = |streams: Vec<_>| Group { streams: streams.into(), listened: None };
        self.groups = groups.into_iter().map(|(lines, streams)| (lines, group(streams))).collect();
        (line, asked)
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether time has counted in which nobody listened, so that all lines begin anew:
    /// [`Listeners::begin_anew`].
    pub(super) fn has_leapt(&self, leaps: u64) -> bool {
        self.leaps != leaps
    }

    /// Takes note of that. Returns the lines that listen.
    pub(super) fn begin_anew(&mut self, leaps: u64) -> Vec<usize> {
        self.leaps = leaps;
        let listens = |line: &Listener| line.listened.is_some_and(|listened| listened.goes_on);
        self.lines.iter().enumerate().filter(|(_, line)| listens(line)).map(|(number, _)| number).collect()
    }

    /// Asks the lines whose streams have been silent for as long as rules wait for. Returns when the next is
    /// to be asked.
    pub(super) fn ask(&self, silences: &[Arc<Silences>], now: i64) -> Option<i64> {
        let mut next: Option<i64> = None;
        for (stream, at) in silences.iter().flat_map(|silences| silences.iter()) {
            let of_stream = self.groups.iter().find(|(_, group)| group.streams.contains(stream));
            for line in
                of_stream.iter().flat_map(|(lines, _)| *lines).filter_map(|line| self.lines.get(*line))
            {
                let listens = line.listened.is_some_and(|listened| listened.goes_on && listened.until < *at);
                if !listens || *line.question.borrow() >= *at {
                    continue;
                }
                if *at <= now {
                    line.question.send_replace(now);
                } else {
                    next = Some(next.map_or(*at, |next| next.min(*at)));
                }
            }
        }
        next
    }

    /// Takes note of what is new of a line at `now`. Returns streams and when they were listened to, where
    /// that says more than before.
    pub(super) fn news(
        &mut self,
        line: usize,
        news: &LineNews,
        now: i64,
    ) -> Vec<(Arc<[Arc<str>]>, Listened)> {
        let Some(listener) = self.lines.get_mut(line) else { return Vec::new() };
        let before = listener.listened;
        let listened = match (news, before.filter(|before| before.goes_on)) {
            (LineNews::Begins, _) => Listened { since: now, until: now, goes_on: true },
            (LineNews::Heard { asked }, Some(before)) => {
                Listened { until: before.until.max(*asked), ..before }
            }
            (LineNews::Ends { heard }, Some(before)) => {
                let last = now.saturating_sub(i64::try_from(heard.elapsed().as_nanos()).unwrap_or(i64::MAX));
                Listened { until: before.until.max(last), goes_on: false, ..before }
            }
            (LineNews::Ends { .. }, None) if before.is_none() => {
                Listened { since: now, until: now, goes_on: false }
            }
            (LineNews::Heard { .. } | LineNews::Ends { .. }, None) => return Vec::new(),
        };
        listener.listened = Some(listened);
        let lines = &self.lines;
        let concerned = self.groups.iter_mut().filter(|(of, _)| of.contains(&line));
        let told = concerned.filter_map(|(of, group)| {
            let listened =
                of.iter().map(|line| lines.get(*line)?.listened).reduce(|a, b| Some(a?.and(b?))).flatten()?;
            let is_new = group.listened.replace(listened) != Some(listened);
            is_new.then(|| (Arc::clone(&group.streams), listened))
        });
        told.collect()
    }
}
