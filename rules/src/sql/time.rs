//! Event time: the watermark of a statement.
//!
//! Each stream that the statement reads has a time of its own: the greatest `ts` that it has brought. The
//! watermark is the least of them minus the lateness, row by row. A stream that has fallen silent does not
//! stop time for ever, if it may be called idle: then its time goes on with the sequence's, from where it
//! was. Rows find the time that has gone by until they come, whether or not there was a tick. If there is a
//! limit, a row whose `ts` is too far ahead of its stream's time does not move it, and a stream whose rows
//! are all that far behind its time for as long as that has the wrong time: it begins anew.
//!
//! Only what was [`Listened`] to can be silent: where somebody says when that was, the time of a stream goes
//! on up to there and no further. A stream whose `ts` is the time of arrival needs nobody to say so: nothing
//! that comes later belongs to the time before.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion_common::Result;
use tidegate_core::TS;

use super::operators::times;
use super::options::SqlOptions;
use crate::rule::{Listened, SealedState};

/// How far the box's clock may be set back without windows taking note: time services do that, and rows may
/// be late by as much.
const STEP_NS: i64 = 1_000_000_000;

/// How long after its arrival a row may enter the sequence and still count: a stream whose `ts` is the time
/// of arrival is idle after that.
const ARRIVAL_NS: i64 = 100_000_000;

/// The event time of one statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EventTime {
    sources: Vec<SourceTime>,
    lateness_ns: i64,
    /// how far a row may be ahead of its stream's time and still move it
    max_ahead_ns: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
struct SourceTime {
    stream: Arc<str>,
    /// whether `ts` is the time of arrival: it goes back only when the box's clock is set back
    by_arrival: bool,
    /// how long it must be silent for its time to go on without it
    idle_after_ns: Option<i64>,
    /// its time: the greatest `ts`, and what went by in silence after that; `i64::MIN` before the first row
    newest: i64,
    /// the sequence's time from which on silence adds to `newest`
    since: i64,
    /// the sequence's time when it brought rows last that moved its time, or could have
    arrived: i64,
    /// The sequence's time since which all rows have been too far behind to be believed; `i64::MAX`: they are
    /// not.
    behind: i64,
    /// `None`: always, as far as anybody has said
    listened: Option<Listened>,
}

impl SourceTime {
    /// What of the time up to `now` can be silence: from when on, and up to when.
    fn silent(&self, now: i64) -> (i64, i64) {
        self.listened.map_or((i64::MIN, now), |listened| (listened.since, now.min(listened.until)))
    }

    /// Whether its time goes on with the sequence's, which is `now`.
    fn is_idle(&self, now: i64) -> bool {
        let (from, to) = self.silent(now);
        let silence = to.saturating_sub(self.arrived.max(from));
        self.newest != i64::MIN && self.idle_after_ns.is_some_and(|idle| silence > idle)
    }

    /// The sequence's time is `now`, though nothing has come.
    fn pass(&mut self, now: i64) {
        let (from, to) = self.silent(now);
        let since = self.since.max(from);
        if self.is_idle(now) && to > since {
            self.newest = self.newest.saturating_add(to.saturating_sub(since));
            self.since = to;
        }
    }

    /// The sequence's time at which its own time is `wanted` though nothing comes. `None`: never.
    fn reaches(&self, wanted: i64) -> Option<i64> {
        if self.newest == i64::MIN || self.listened.is_some_and(|listened| !listened.goes_on) {
            return None;
        }
        let (from, _) = self.silent(i64::MAX);
        let idle = self.arrived.max(from).saturating_add(self.idle_after_ns?).saturating_add(1);
        Some(idle.max(self.since.max(from).saturating_add(wanted.saturating_sub(self.newest))))
    }

    /// Whether a row with this `ts` is too far ahead to be believed. One that nothing has contradicted for as
    /// long as that is: the clock was really set.
    fn doubts(&self, ts: i64, now: i64, max_ahead_ns: i64) -> bool {
        let by_now = self.newest.saturating_add(now.saturating_sub(self.since).max(0));
        let ahead = self.newest != i64::MIN && ts > by_now.saturating_add(max_ahead_ns);
        ahead && !self.by_arrival && now.saturating_sub(self.arrived) <= max_ahead_ns
    }

    /// A row with this `ts` comes. Returns whether it moves the time, or could have.
    fn take(&mut self, ts: i64, now: i64, max_ahead_ns: Option<i64>) -> bool {
        if max_ahead_ns.is_some_and(|max_ahead| self.doubts(ts, now, max_ahead)) {
            return false;
        }
        self.newest = self.newest.max(ts);
        (self.since, self.arrived) = (now.saturating_add(self.grace()), now);
        true
    }

    /// Whether time is to begin anew before a row with this `ts`: the box's clock was set back, or all rows
    /// contradict what the stream's time was moved by once.
    fn begins_anew(&mut self, ts: i64, now: i64, max_ahead_ns: Option<i64>) -> bool {
        if self.by_arrival {
            return ts < self.newest.saturating_sub(STEP_NS);
        }
        let Some(max_ahead_ns) = max_ahead_ns else { return false };
        if ts >= self.newest.saturating_sub(max_ahead_ns) {
            self.behind = i64::MAX;
            return false;
        }
        self.behind = self.behind.min(now);
        now.saturating_sub(self.behind) > max_ahead_ns
    }

    /// What came before is of no account.
    fn begin_anew(&mut self) {
        (self.newest, self.behind) = (i64::MIN, i64::MAX);
    }

    fn grace(&self) -> i64 {
        if self.by_arrival { ARRIVAL_NS } else { 0 }
    }

    fn fingerprint(&self) -> String {
        format!("TIME({})", self.stream)
    }
}

impl EventTime {
    /// The time of a statement that reads `streams`, each with whether its `ts` is the time of arrival.
    pub(super) fn new(streams: impl IntoIterator<Item = (Arc<str>, bool)>, options: &SqlOptions) -> Self {
        let nanoseconds = |span: tidegate_core::Span| i64::try_from(span.0.as_nanos()).unwrap_or(i64::MAX);
        let idle_after = options.idle_after.map(nanoseconds);
        let sources = streams.into_iter().map(|(stream, by_arrival)| {
            let idle_after_ns = idle_after.or(by_arrival.then_some(ARRIVAL_NS));
            SourceTime {
                stream,
                by_arrival,
                idle_after_ns,
                newest: i64::MIN,
                since: i64::MIN,
                arrived: i64::MIN,
                behind: i64::MAX,
                listened: None,
            }
        });
        Self {
            sources: sources.collect(),
            lateness_ns: nanoseconds(options.lateness),
            max_ahead_ns: options.max_ahead.map(nanoseconds),
        }
    }

    /// Whether anything but the rows' own times moves it, or keeps it from moving.
    pub(super) fn minds_time(&self) -> bool {
        self.max_ahead_ns.is_some()
            || self.sources.iter().any(|source| source.by_arrival || source.idle_after_ns.is_some())
    }

    fn watermark(&self) -> i64 {
        self.watermark_of(self.sources.iter().map(|source| source.newest).min().unwrap_or(i64::MIN))
    }

    /// The watermark when the least of the streams' times is `least`.
    fn watermark_of(&self, least: i64) -> i64 {
        if least == i64::MIN { least } else { least.saturating_sub(self.lateness_ns) }
    }

    /// The rows before which time is to begin anew ([`EventTime::start_anew`]). Waiting for the old time to
    /// come again would take years.
    pub(super) fn beginnings(&mut self, stream: &str, batch: &RecordBatch, now: i64) -> Result<Vec<usize>> {
        let Some(source) = self.sources.iter_mut().find(|source| &*source.stream == stream) else {
            return Ok(Vec::new());
        };
        if !source.by_arrival && self.max_ahead_ns.is_none() {
            return Ok(Vec::new());
        }
        let mut trial = source.clone();
        let mut rows = Vec::new();
        for (row, ts) in times(batch, TS)?.iter().enumerate() {
            if trial.begins_anew(*ts, now, self.max_ahead_ns) {
                rows.push(row);
                trial.begin_anew();
            }
            trial.take(*ts, now, self.max_ahead_ns);
        }
        source.behind = trial.behind;
        Ok(rows)
    }

    /// Time begins anew for `stream`, and for all that go by the same clock, which is the box's. Returns the
    /// watermark before and after: all that waits for time comes first.
    pub(super) fn start_anew(&mut self, stream: &str) -> Vec<i64> {
        let before = self.watermark();
        let by_clock = self.sources.iter().any(|source| &*source.stream == stream && source.by_arrival);
        self.sources
            .iter_mut()
            .filter(|source| &*source.stream == stream || by_clock && source.by_arrival)
            .for_each(SourceTime::begin_anew);
        vec![before, i64::MAX]
    }

    /// The input has ended. Returns the watermark before and after.
    pub(super) fn end(&mut self) -> Vec<i64> {
        let before = self.watermark();
        self.sources.iter_mut().for_each(|source| source.newest = i64::MAX);
        vec![before, i64::MAX]
    }

    /// Something has happened that is no matter of time. Returns the watermark before and after.
    pub(super) fn unmoved(&self) -> Vec<i64> {
        vec![self.watermark(); 2]
    }

    /// Time has passed without a row. Returns the watermark before and after.
    pub(super) fn pass(&mut self, now: i64) -> Vec<i64> {
        let before = self.watermark();
        self.sources.iter_mut().for_each(|source| source.pass(now));
        vec![before, self.watermark()]
    }

    /// The time that has passed before rows come at `now`. Returns the watermark before and after. `None`: no
    /// stream was idle; whether there were ticks is of no account.
    pub(super) fn silence(&mut self, now: i64) -> Option<Vec<i64>> {
        self.sources.iter().any(|source| source.is_idle(now)).then(|| self.pass(now))
    }

    /// Rows of `stream` have come, after [`EventTime::silence`]. Returns the watermark before the first of
    /// them, and after each; adds to `ahead` how many were too far ahead.
    pub(super) fn rows(
        &mut self,
        stream: &str,
        batch: &RecordBatch,
        now: i64,
        ahead: &mut u64,
    ) -> Result<Vec<i64>> {
        let times = times(batch, TS)?;
        let mut watermarks = Vec::with_capacity(times.len() + 1);
        watermarks.push(self.watermark());
        let Some(at) = self.sources.iter().position(|source| &*source.stream == stream) else {
            return Ok(watermarks);
        };
        let others = self
            .sources
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .map(|(_, source)| source.newest)
            .min();
        let others = others.unwrap_or(i64::MAX);
        let Some(mut source) = self.sources.get(at).cloned() else { return Ok(watermarks) };
        watermarks.extend(times.iter().map(|ts| {
            *ahead += u64::from(!source.take(*ts, now, self.max_ahead_ns));
            self.watermark_of(source.newest.min(others))
        }));
        if let Some(known) = self.sources.get_mut(at) {
            *known = source;
        }
        Ok(watermarks)
    }

    /// Takes note of when its streams were listened to. Returns whether time goes on by that, at `now`.
    pub(super) fn listened(&mut self, streams: &[(Arc<str>, Listened)], now: i64) -> bool {
        for (stream, listened) in streams {
            let source =
                self.sources.iter_mut().find(|source| source.stream == *stream && !source.by_arrival);
            if let Some(source) = source {
                source.listened = Some(*listened);
            }
        }
        self.sources.iter().any(|source| source.is_idle(now))
    }

    /// Whether silence counts only where somebody has listened.
    pub(super) fn wants_listeners(&self) -> bool {
        self.sources.iter().any(|source| source.listened.is_some() && source.idle_after_ns.is_some())
    }

    /// Those streams whose time is not what the watermark `deadline` wants yet, each with the sequence's time
    /// at which it is though no row comes. `None`: one never gets there.
    fn behind(&self, deadline: i64) -> Option<Vec<(&SourceTime, i64)>> {
        let wanted = deadline.saturating_add(self.lateness_ns);
        let behind = self.sources.iter().filter(|source| source.newest < wanted);
        behind.map(|source| Some((source, source.reaches(wanted)?))).collect()
    }

    /// The sequence's time at which the watermark reaches `deadline` though no row comes. `None`: never, or
    /// not before somebody has listened.
    pub(super) fn reaches(&self, deadline: i64) -> Option<i64> {
        let behind = self.behind(deadline)?;
        if behind.iter().any(|(source, _)| source.listened.is_some()) {
            return None;
        }
        Some(behind.iter().map(|(_, at)| *at).max().unwrap_or(i64::MIN))
    }

    /// The streams that must have been listened to, each with up to when, for the watermark to reach
    /// `deadline` though no row comes.
    pub(super) fn silences(&self, deadline: i64) -> Vec<(Arc<str>, i64)> {
        let behind = self.behind(deadline).unwrap_or_default();
        let listened = behind.iter().filter(|(source, _)| source.listened.is_some());
        let others = behind.iter().filter(|(source, _)| source.listened.is_none()).map(|(_, at)| *at).max();
        listened
            .map(|(source, at)| (Arc::clone(&source.stream), others.map_or(*at, |other| other.max(*at))))
            .collect()
    }

    pub(super) fn seal(&self) -> Result<Vec<SealedState>> {
        let schema = Arc::new(Schema::new(
            ["since", "arrived", "behind"].map(|name| Field::new(name, DataType::Int64, false)).to_vec(),
        ));
        let seal = |source: &SourceTime| {
            let columns = [source.since, source.arrived, source.behind]
                .map(|time| Arc::new(Int64Array::from(vec![time])) as ArrayRef);
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns.to_vec())?;
            Ok(SealedState {
                fingerprint: source.fingerprint(),
                watermark: source.newest,
                batch: Some(batch),
            })
        };
        self.sources.iter().map(seal).collect()
    }

    /// Takes over the time of the streams that it reads, and leaves it for other statements of the rule.
    pub(super) fn restore(&mut self, state: &[SealedState]) {
        for source in &mut self.sources {
            let fingerprint = source.fingerprint();
            let Some(sealed) = state.iter().find(|sealed| sealed.fingerprint == fingerprint) else {
                continue;
            };
            let time = |name: &str| {
                sealed
                    .batch
                    .as_ref()?
                    .column_by_name(name)?
                    .as_primitive_opt::<Int64Type>()?
                    .values()
                    .first()
                    .copied()
            };
            source.newest = source.newest.max(sealed.watermark);
            source.since = source.since.max(time("since").unwrap_or(i64::MIN));
            source.arrived = source.arrived.max(time("arrived").unwrap_or(i64::MIN));
            source.behind = source.behind.min(time("behind").unwrap_or(i64::MAX));
        }
    }

    /// Whether `sealed` is the time of a stream, which is of use only where that stream is read.
    pub(super) fn is_time(sealed: &SealedState) -> bool {
        sealed.fingerprint.starts_with("TIME(")
    }
}
