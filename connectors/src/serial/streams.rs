//! The streams of one line: whose a frame is, what is asked when, and the rows that wait for the engine.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidegate_core::{Batch, Clock, Sampler};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::config::{PollConfig, StreamConfig};
use super::framing::{Framer, Tally, Why};
use crate::hex::dump;
use crate::line::decoding::Decoding;
use crate::line::handover::{HandOver, Pending};
use crate::line::parking::{ParkConfig, Turn};
use crate::line::polls::{LEFT_ALONE, Poll, Polls};
use crate::line::silence::Silence;
use crate::quality::{FAULT, QUALITY, Quality};
use crate::status::{Counter, Intake, LineStatus};

/// Rows of one stream.
pub(super) struct Stream {
    config: StreamConfig,
    name: Arc<str>,
    decoding: Decoding,
    intake: Arc<Intake>,
    /// of each row, where they are columns
    verdicts: Vec<(Quality, Option<String>)>,
}

impl Stream {
    pub(super) fn new(name: &str, config: &StreamConfig, decoding: Decoding, intake: Arc<Intake>) -> Self {
        Self { config: config.clone(), name: name.into(), decoding, intake, verdicts: Vec::new() }
    }

    fn take_frame(&mut self, frame: &[u8], source: &str, now_ns: i64) {
        let (malformed, misfits) = (self.intake.malformed.get(), self.intake.misfits.get());
        let rows = self.decoding.decode(frame, &[], source, now_ns);
        if self.intake.malformed.get() > malformed {
            return self.is_bad("the frame could not be read", Quality::Bad, now_ns);
        }
        let misfits = usize::try_from(self.intake.misfits.get() - misfits).unwrap_or(usize::MAX);
        let is_useless = self.config.payload.fields.as_ref().is_some_and(|all| misfits >= rows * all.len());
        let verdict = match misfits {
            0 => (Quality::Good, None),
            count => {
                let quality = if is_useless { Quality::Bad } else { Quality::Uncertain };
                (quality, Some(format!("values that do not fit their columns: {count}")))
            }
        };
        if self.config.quality {
            self.verdicts.extend(std::iter::repeat_n(verdict, rows));
        }
    }

    /// A row without values, if the stream has asked for such.
    fn is_bad(&mut self, fault: &str, quality: Quality, now_ns: i64) {
        if self.config.quality && self.decoding.decoder.add_blank(now_ns) {
            self.verdicts.push((quality, Some(fault.to_owned())));
        }
    }
}

impl Pending for Stream {
    fn len(&self) -> usize {
        self.decoding.len()
    }

    fn take(&mut self) -> Option<Batch> {
        let batch = self.decoding.take()?;
        if !self.config.quality {
            return Some(batch);
        }
        let verdicts = std::mem::take(&mut self.verdicts);
        let qualities: StringArray = verdicts.iter().map(|(quality, _)| Some(quality.as_str())).collect();
        let faults: StringArray = verdicts.iter().map(|(_, fault)| fault.as_deref()).collect();
        let added = [QUALITY, FAULT].map(|name| Arc::new(Field::new(name, DataType::Utf8, true)));
        let schema = batch.rows.schema();
        let schema = Schema::new(schema.fields().iter().cloned().chain(added).collect::<Vec<_>>());
        let arrays = [Arc::new(qualities) as ArrayRef, Arc::new(faults)];
        let arrays = batch.rows.columns().iter().cloned().chain(arrays).collect();
        // There is a verdict for each row.
        let rows = RecordBatch::try_new(Arc::new(schema), arrays).ok()?;
        Some(Batch { rows, ..batch })
    }
}

/// What the streams have in common with each other: the line.
pub(super) struct Streams {
    /// the connection, for the log
    line: Arc<str>,
    pub(super) rows: HandOver<Stream>,
    configs: Vec<(Arc<str>, StreamConfig)>,
    /// by the streams' places; none: what is asked for says itself that it did not come
    silences: Vec<Option<Silence>>,
    /// a device each, by the stream's name
    polls: Polls<Arc<str>>,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
    counts: Counts,
    /// bytes since the last frame
    unframed: Arc<Counter>,
    told: Tally,
    skipped: Sampler,
    unclaimed: Sampler,
    strays: Sampler,
}

/// What the protocol counts besides.
struct Counts {
    strays: Arc<Counter>,
    unclaimed: Arc<Counter>,
    skipped: Arc<Counter>,
    resyncs: Arc<Counter>,
    mismatches: Arc<Counter>,
    too_long: Arc<Counter>,
}

impl Streams {
    pub(super) fn new(
        line: &str,
        streams: Vec<Stream>,
        park: ParkConfig,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Self {
        let configs: Vec<_> =
            streams.iter().map(|stream| (Arc::clone(&stream.name), stream.config.clone())).collect();
        let polls = configs.iter().enumerate().filter_map(|(stream, (name, config))| {
            let every = config.poll.as_ref()?.every.0;
            Some(Poll { stream, name: Arc::clone(name), device: Arc::clone(name), every })
        });
        let silences = configs.iter().map(|(name, config)| {
            let limit = config.stale_after.map(|after| after.0);
            let is_needed = config.poll.is_none() || limit.is_some();
            is_needed.then(|| Silence::new(Arc::clone(name), "nothing has come".into(), limit, &status))
        });
        let unframed = status.gauge("bytes_since_frame");
        let counts = Counts {
            strays: status.counter("strays"),
            unclaimed: status.counter("unclaimed"),
            skipped: status.counter("skipped_bytes"),
            resyncs: status.counter("resyncs"),
            mismatches: status.counter("checksum_errors"),
            too_long: status.counter("too_long"),
        };
        Self {
            line: line.into(),
            polls: Polls::new(line, polls.collect(), park, &status),
            silences: silences.collect(),
            configs,
            rows: HandOver::new(streams, Arc::clone(&status)),
            clock,
            status,
            counts,
            unframed,
            told: Tally::default(),
            skipped: Sampler::default(),
            unclaimed: Sampler::default(),
            strays: Sampler::default(),
        }
    }

    /// Reading begins.
    pub(super) fn begin(&mut self, inlet: crate::Inlet, now: Instant) {
        self.rows.open(inlet);
        self.polls.begin(now);
    }

    /// Whether any stream is not asked for.
    pub(super) fn any_unasked(&self) -> bool {
        self.configs.iter().any(|(_, config)| config.poll.is_none())
    }

    /// When something is due: a poll, or that a stream is stale.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let polls = self.polls.next_due().filter(|_| self.rows.is_open());
        polls.into_iter().chain(self.next_stale()).min()
    }

    /// When a stream becomes stale.
    pub(super) fn next_stale(&self) -> Option<Instant> {
        self.silences.iter().flatten().filter_map(Silence::due).min().filter(|_| self.rows.is_open())
    }

    /// When a poll was, or is, due.
    pub(super) fn due_since(&self, poll: usize) -> Option<Instant> {
        self.polls.due_since(poll)
    }

    /// The poll that has been due for longest: its place among the polls.
    pub(super) fn due(&self, now: Instant) -> Option<usize> {
        self.polls.due(now).filter(|_| self.rows.is_open())
    }

    /// What a poll sends, and how long it waits.
    pub(super) fn request(&self, poll: usize) -> Option<(Vec<u8>, Duration)> {
        let PollConfig { send, timeout, .. } = self.config(poll)?.poll.as_ref()?;
        Some((send.0.clone(), timeout.0))
    }

    /// Whether a frame may be the answer to a poll.
    pub(super) fn answers(&self, poll: usize, frame: &[u8]) -> bool {
        self.config(poll).is_some_and(|config| config.fits(frame))
    }

    /// Whether the frames of a poll can be told from others by what is in them.
    pub(super) fn is_selective(&self, poll: usize) -> bool {
        self.config(poll).is_some_and(StreamConfig::is_selective)
    }

    fn config(&self, poll: usize) -> Option<&StreamConfig> {
        self.configs.get(self.polls.stream(poll)?).map(|(_, config)| config)
    }

    /// Whether a poll's device is to be asked; if not, the poll is over.
    pub(super) fn is_to_be_asked(&mut self, poll: usize, now: Instant) -> bool {
        let is_left = self.polls.turn(poll, now) == Turn::Leave;
        if is_left {
            self.finish(poll, Err(LEFT_ALONE), now);
        }
        !is_left
    }

    /// A device has answered a poll, or not at all.
    pub(super) fn settle(&mut self, poll: usize, answered: bool, now: Instant) {
        self.polls.settle(poll, answered, now);
    }

    /// A poll is over: makes a row of what it gave, and says when it is due again.
    pub(super) fn finish(&mut self, poll: usize, outcome: Result<&[u8], &str>, now: Instant) {
        self.tell(poll, outcome, now);
        self.polls.done(poll, now);
    }

    fn tell(&mut self, poll: usize, outcome: Result<&[u8], &str>, now: Instant) {
        let Some(index) = self.polls.stream(poll) else { return };
        self.polls.say(poll, outcome.err(), now);
        match outcome {
            Ok(frame) => self.take(index, frame, now),
            Err(fault) => self.is_bad(index, fault, Quality::Bad),
        }
    }

    /// The line is down: what is due, and what comes by itself.
    pub(super) fn pass_by(&mut self, reason: &str, now: Instant) {
        self.note_stale(now, Some(reason));
        while let Some(poll) = self.due(now) {
            self.finish_without_line(poll, reason, now);
        }
    }

    /// A poll is over since the line was lost.
    pub(super) fn finish_without_line(&mut self, poll: usize, reason: &str, now: Instant) {
        self.polls.said_of_the_line(poll, reason, now);
        self.tell(poll, Err(reason), now);
        self.polls.passed_by(poll, now);
    }

    /// Gives a frame that was not asked for to the first stream that it fits.
    pub(super) fn dispatch(&mut self, frame: &[u8], now: Instant) {
        let mut fits = self.configs.iter().enumerate().filter(|(_, (_, config))| config.fits(frame));
        let first = fits.clone().find(|(_, (_, config))| config.poll.is_none()).map(|(index, _)| index);
        if let Some(index) = first {
            return self.take(index, frame, now);
        }
        if let Some((_, (stream, _))) = fits.next() {
            self.counts.strays.add(1);
            if let Some(count) = self.strays.count(1) {
                let frame = dump(frame);
                warn!(%stream, count, frame, "frames that nobody has asked for: late answers, or another master");
            }
            return;
        }
        self.counts.unclaimed.add(1);
        if let Some(count) = self.unclaimed.count(1).filter(|_| !self.configs.is_empty()) {
            warn!(count, frame = dump(frame), "frames that fit no stream: compare `match` and `pattern`");
        }
    }

    fn take(&mut self, index: usize, frame: &[u8], now: Instant) {
        let now_ns = self.clock.wall_ns();
        let source = Arc::clone(&self.line);
        self.rows.add(index, |stream| stream.take_frame(frame, &source, now_ns));
        if let Some(silence) = self.silences.get_mut(index).and_then(Option::as_mut) {
            silence.came(now);
        }
    }

    fn is_bad(&mut self, index: usize, fault: &str, quality: Quality) {
        let has_rows = self.configs.get(index).is_some_and(|(_, config)| config.quality);
        if has_rows {
            let now_ns = self.clock.wall_ns();
            self.rows.add(index, |stream| stream.is_bad(fault, quality, now_ns));
        }
    }

    /// Streams that have become stale get a row that says so. `down`: that the line is gone, and why.
    pub(super) fn note_stale(&mut self, now: Instant, down: Option<&str>) {
        if !self.rows.is_open() {
            return;
        }
        for index in 0..self.silences.len() {
            let silence = self.silences.get_mut(index).and_then(Option::as_mut);
            if let Some(fault) = silence.and_then(|silence| silence.becomes_stale(now, down)) {
                self.is_bad(index, &fault, Quality::Stale);
            }
        }
    }

    /// The line is up.
    pub(super) fn begins(&mut self, now: Instant) {
        self.told = Tally::default();
        self.rows.begins();
        self.silences.iter_mut().flatten().for_each(|silence| silence.begins(now));
    }

    /// Counts what the framing has done, and says what was skipped, if it was not said just now.
    pub(super) fn note(&mut self, framer: &mut Framer) {
        let (now, told) = (framer.tally(), std::mem::replace(&mut self.told, framer.tally()));
        self.status.messages.add(now.frames.saturating_sub(told.frames));
        self.counts.skipped.add(now.skipped.saturating_sub(told.skipped));
        self.counts.resyncs.add(now.resyncs.saturating_sub(told.resyncs));
        self.counts.mismatches.add(now.mismatches.saturating_sub(told.mismatches));
        self.counts.too_long.add(now.too_long.saturating_sub(told.too_long));
        self.unframed.set(framer.unframed().map_or(0, |unframed| unframed.count));
        let Some(skipped) = framer.take_skipped() else { return };
        let why = skipped.why.map_or("", Why::as_str);
        let bytes = dump(&skipped.sample);
        if skipped.why == Some(Why::Torn) {
            debug!(bytes, count = skipped.count, why, "bytes that are in no frame");
        } else if let Some(count) = self.skipped.count(skipped.count) {
            warn!(
                bytes,
                count,
                why,
                "bytes that are in no frame: compare `frame`, baud rate and parity with the device"
            );
        }
    }
}
