//! Recorded messages of a connection, with their payloads as they came.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidegate_connectors::StreamConfig;
use tidegate_connectors::stream::recorded::{ADVICE, Form, Message, Outcome, Recorded};
use tidegate_core::{Diagnostic, FieldType};

use super::chunk::{BATCH, Chunk, Origin};
use super::lines::{Lines, Opened, Reading, is_standard_input};
use super::rows::{fields_of, read_only_once};
use super::tally::Tally;
use super::times;
use crate::config::{Config, Stream};

/// Reads recorded messages.
pub(super) struct RecordedMessages {
    file: Arc<str>,
    lines: Lines,
    form: Form,
    feeds: Vec<Feed>,
    /// the stream whose rows are in its decoder
    current: usize,
    origins: Vec<Origin>,
    /// the newest time that is known
    now: i64,
    /// lines that are no message
    unreadable: u64,
    /// messages whose topic no stream has
    unclaimed: u64,
    /// messages that make no row, because the broker had retained them
    retained: u64,
    /// Whether only the columns are wanted: they do not depend on when messages came.
    infers: bool,
    pub reading: Reading,
}

/// One stream that messages are for.
struct Feed {
    stream: Recorded,
    by_arrival: bool,
    tally: Tally,
    /// messages of which it is not known when they came, and should be
    timeless: u64,
}

impl Feed {
    fn new(
        name: &str,
        stream: &StreamConfig,
        known: Vec<(String, FieldType)>,
        file: &str,
    ) -> Result<Self, Diagnostic> {
        // The configuration was checked before, so that nothing is ever wrong.
        let wrong = |why| Diagnostic::new(file, format!("stream `{name}`: {why}"));
        let recorded = stream.recorded(known).ok_or_else(|| wrong("it is fed by no messages".to_owned()))?;
        Ok(Self {
            stream: recorded.map_err(wrong)?,
            by_arrival: stream.goes_by_arrival(),
            tally: Tally::new(name, file),
            timeless: 0,
        })
    }
}

impl RecordedMessages {
    /// Opens the recording `path` of the connection `of`, or of all. When columns are not declared, the file
    /// is read once to infer them.
    pub(super) fn open(of: Option<&str>, path: &Path, config: &Config) -> Result<Self, Diagnostic> {
        let file = path.display().to_string();
        let streams: Vec<(&String, &StreamConfig)> = config
            .streams
            .iter()
            .filter_map(|(name, stream)| match stream {
                Stream::Input(stream) => {
                    let is_of = of.is_none_or(|of| stream.connections().iter().any(|name| name == of));
                    (is_of && stream.has_messages()).then_some((name, stream))
                }
                Stream::Derived { .. } => None,
            })
            .collect();
        if streams.is_empty() {
            return Err(Diagnostic::new(
                file,
                "no stream is fed by the connection that these messages are of",
            ));
        }
        let mut known = BTreeMap::new();
        if let Some((name, _)) = streams.iter().find(|(_, stream)| stream.columns().is_none()) {
            if is_standard_input(path) {
                return Err(read_only_once(name));
            }
            let mut messages = Self::with(path, &file, &streams, &BTreeMap::new())?;
            messages.infers = true;
            let mut rows = VecDeque::new();
            tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
                loop {
                    messages.read(&mut rows)?;
                    if rows.drain(..).count() == 0 {
                        return Ok::<(), Diagnostic>(());
                    }
                }
            })?;
            known = messages.inferred();
        }
        Self::with(path, &file, &streams, &known)
    }

    fn with(
        path: &Path,
        file: &str,
        streams: &[(&String, &StreamConfig)],
        known: &BTreeMap<String, Vec<(String, FieldType)>>,
    ) -> Result<Self, Diagnostic> {
        let feeds = streams.iter().map(|(name, stream)| {
            let known = known.get(*name).cloned().unwrap_or_default();
            Feed::new(name, stream, known, file)
        });
        let feeds = feeds.collect::<Result<_, Diagnostic>>()?;
        let mut opened = Opened::new(path)?;
        let form = Form::from_first_byte(opened.first_byte(file)?);
        Ok(Self {
            file: Arc::from(file),
            lines: Lines::new(file, opened.reader),
            form,
            feeds,
            current: 0,
            origins: Vec::new(),
            now: 0,
            unreadable: 0,
            unclaimed: 0,
            retained: 0,
            infers: false,
            reading: opened.reading,
        })
    }

    /// The columns that were found, besides `ts` and what is captured from the topic.
    fn inferred(&mut self) -> BTreeMap<String, Vec<(String, FieldType)>> {
        let inferred = self.feeds.iter_mut().map(|feed| {
            let mut fields = fields_of(&feed.stream.decoder.schema());
            fields.retain(|(name, _)| !feed.stream.is_given(name));
            (feed.tally.stream.to_string(), fields)
        });
        inferred.collect()
    }

    pub(super) fn schemas(&mut self) -> BTreeMap<String, SchemaRef> {
        self.feeds
            .iter_mut()
            .map(|feed| (feed.tally.stream.to_string(), feed.stream.decoder.schema()))
            .collect()
    }

    /// Adds the next rows to `waiting`; none at the end.
    pub(super) fn read(&mut self, waiting: &mut VecDeque<Chunk>) -> Result<(), Diagnostic> {
        while waiting.is_empty() {
            let Some((line, text)) = self.lines.next()? else {
                self.finish(waiting);
                return Ok(());
            };
            let message = match self.form.read(text) {
                Ok(message) => message,
                Err(why) => {
                    self.unreadable += 1;
                    if self.unreadable == 1 {
                        tracing::warn!(file = %self.file, line, "this is no message, and is left out: {why}");
                    }
                    continue;
                }
            };
            if let Some(at) = message.at {
                self.now = at;
            }
            self.take(line, &message, waiting);
        }
        Ok(())
    }

    fn take(&mut self, line: u64, message: &Message, waiting: &mut VecDeque<Chunk>) {
        let mut is_claimed = false;
        for index in 0..self.feeds.len() {
            if !self.feeds.get(index).is_some_and(|feed| feed.stream.takes(&message.topic)) {
                continue;
            }
            is_claimed = true;
            if index != self.current {
                // The order of rows of different streams is that of their messages.
                self.finish(waiting);
                self.current = index;
            }
            let Some(feed) = self.feeds.get_mut(index) else { continue };
            if feed.by_arrival && message.at.is_none() && !self.infers {
                feed.timeless += 1;
                if feed.timeless == 1 {
                    tracing::warn!(
                        file = %self.file,
                        line,
                        stream = %feed.tally.stream,
                        "the stream goes by the time of arrival, and the recording does not say when that \
                        was: its messages are left out; {ADVICE}"
                    );
                }
                continue;
            }
            match feed.stream.take(&message.topic, &message.payload, message.retained, self.now) {
                Outcome::Rows(rows) => {
                    feed.tally.rows += rows as u64;
                    let at = message.at.unwrap_or(i64::MIN);
                    self.origins.extend(std::iter::repeat_n(Origin::new(at, line), rows));
                }
                Outcome::Malformed(error) => feed.tally.leave_out(line, &error.to_string()),
                Outcome::LeftOut => self.retained += 1,
                Outcome::NotMine => {}
            }
            if let Some(findings) = feed.stream.decoder.take_findings() {
                feed.tally.note(findings, line, "");
            }
            if feed.stream.decoder.rows() >= BATCH {
                self.finish(waiting);
            }
        }
        if !is_claimed {
            self.unclaimed += 1;
            if self.unclaimed == 1 {
                let topic = &message.topic;
                tracing::warn!(
                    file = %self.file,
                    line,
                    topic,
                    "no stream has this topic; this message is left out, as are all like it"
                );
            }
        }
    }

    /// Takes the rows of the stream that is being read out of its decoder.
    fn finish(&mut self, waiting: &mut VecDeque<Chunk>) {
        let mut origins = std::mem::take(&mut self.origins);
        let Some(feed) = self.feeds.get_mut(self.current) else { return };
        let Some(rows) = feed.stream.decoder.finish() else { return };
        for (origin, ts) in origins.iter_mut().zip(times(&rows)).filter(|(origin, _)| origin.at == i64::MIN) {
            (origin.at, origin.wall_ns) = (*ts, *ts);
            self.now = self.now.max(*ts);
        }
        waiting.push_back(Chunk::new(&mut feed.tally, rows, origins));
    }

    /// Says what was read.
    pub(super) fn summarise(&self) {
        self.feeds.iter().for_each(|feed| feed.tally.summarise());
        let Self { file, unreadable, unclaimed, retained, .. } = self;
        let timeless: u64 = self.feeds.iter().map(|feed| feed.timeless).sum();
        if unreadable + unclaimed + timeless > 0 {
            tracing::warn!(
                %file,
                no_message = unreadable,
                no_stream = unclaimed,
                no_time = timeless,
                "lines were left out"
            );
        }
        if *retained > 0 {
            tracing::info!(
                %file, messages = retained,
                "the broker had retained these and their streams want no row of them, as `retained` says"
            );
        }
    }
}
