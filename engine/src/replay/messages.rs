//! Recorded messages of a connection, with their payloads as they came: what `mosquitto_sub` prints.
//!
//! Three forms are read; the first line of a file says which it is.
//!
//! * JSON Lines with `topic` and `payload`, `tst`, the time of arrival, and `retain` (`mosquitto_sub -F %j`).
//!   Any payload survives.
//! * `TIME TOPIC PAYLOAD` (`-F '%U %t %p'` or `-F '%I %t %p'`): seconds since 1970, or ISO 8601 with an
//!   offset.
//! * `TOPIC PAYLOAD` (`-v`): when messages came is not known, so streams without `ts` are left out.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::Deserialize;
use serde_json::Value;
use tidegate_connectors::mqtt::{Outcome, Recorded, StreamConfig};
use tidegate_core::{Diagnostic, FieldType};

use super::lines::{Lines, Opened, Reading, is_standard_input};
use super::recording::{BATCH, Chunk, Origin};
use super::rows::{fields_of, read_only_once};
use super::tally::Tally;
use super::times;
use crate::config::{Config, Stream, StreamKind};

/// How to record what every stream can be fed from.
const ADVICE: &str = "record with `mosquitto_sub -F %j`, which says when each message came";

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

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    /// text; whether there is a time in front is known when the first line was read
    Text {
        timed: Option<bool>,
    },
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
        // The configuration was checked before, so that neither is ever wrong.
        let recorded = Recorded::new(stream, known)
            .map_err(|why| Diagnostic::new(file, format!("stream `{name}`: {why}")))?;
        Ok(Self {
            stream: recorded,
            by_arrival: stream.ts.is_none(),
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
                Stream::Input { connection, kind: StreamKind::Mqtt(kind) } => {
                    of.is_none_or(|of| of == connection).then_some((name, kind))
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
        if let Some((name, _)) = streams.iter().find(|(_, stream)| stream.fields.is_none()) {
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
        let form =
            if opened.first_byte(file)? == Some(b'{') { Form::Json } else { Form::Text { timed: None } };
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
            let message = match message(text, &mut self.form) {
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
                    self.origins.extend(std::iter::repeat_n(Origin { at, line }, rows));
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
            origin.at = *ts;
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

/// A message as it was recorded.
struct Message {
    /// when it came, nanoseconds since 1970
    at: Option<i64>,
    topic: String,
    payload: Vec<u8>,
    /// whether the broker had retained it, as far as the recording says
    retained: bool,
}

/// What `mosquitto_sub -F %j` prints of a message, as far as it is read.
#[derive(Deserialize)]
struct JsonMessage {
    tst: Option<Value>,
    topic: String,
    #[serde(default)]
    payload: Value,
    /// 0 or 1
    #[serde(default)]
    retain: u8,
}

/// Reads one line.
fn message(line: &[u8], form: &mut Form) -> Result<Message, String> {
    match form {
        Form::Json => json_message(line),
        Form::Text { timed } => {
            let (first, rest) = split_at_space(line);
            let at = std::str::from_utf8(first).ok().and_then(time);
            let is_timed = *timed.get_or_insert(at.is_some());
            if is_timed && at.is_none() {
                return Err("it does not begin with a time, as the first line does; a payload of several \
                    lines needs `-F %j`"
                    .into());
            }
            let (topic, payload) = if is_timed { split_at_space(rest) } else { (first, rest) };
            let topic = std::str::from_utf8(topic).map_err(|_| "its topic is not UTF-8 text")?;
            Ok(Message {
                at: at.filter(|_| is_timed),
                topic: topic.to_owned(),
                payload: payload.to_vec(),
                retained: false,
            })
        }
    }
}

fn json_message(line: &[u8]) -> Result<Message, String> {
    let JsonMessage { tst, topic, payload, retain } =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let at = match tst {
        None | Some(Value::Null) => None,
        Some(tst) => {
            let text = tst.as_str().map_or_else(|| tst.to_string(), str::to_owned);
            Some(time(&text).ok_or_else(|| format!("its time `tst` is {tst}, which is no time"))?)
        }
    };
    let payload = match payload {
        Value::Null => Vec::new(),
        Value::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    };
    Ok(Message { at, topic, payload, retained: retain != 0 })
}

fn split_at_space(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b' ') {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

/// Nanoseconds since 1970: ISO 8601 with an offset, or seconds since 1970 with a fraction.
fn time(text: &str) -> Option<i64> {
    if let Some((seconds, fraction)) =
        text.split_once('.').filter(|(seconds, _)| seconds.bytes().all(|byte| byte.is_ascii_digit()))
    {
        let digits = format!("{fraction:0<9}");
        let ns = digits.get(..9).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        return seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(ns.parse().ok()?);
    }
    // mosquitto_sub 2.0 writes a `Z` in front of the offset that its local time has.
    let text = match text.rfind(['+', '-']) {
        Some(at) if text.get(..at).is_some_and(|before| before.ends_with('Z')) => {
            Cow::Owned(text.replacen('Z', "", 1))
        }
        _ => Cow::Borrowed(text),
    };
    i64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Lines as mosquitto_sub 2.0.11 printed them.
    #[test]
    fn messages_are_read_in_all_forms_that_mosquitto_sub_prints() {
        let read = |line: &str, form: &mut Form| {
            let Message { at, topic, payload, .. } = message(line.as_bytes(), form).unwrap();
            (at, topic, String::from_utf8(payload).unwrap())
        };
        let expected =
            |at: Option<i64>, topic: &str, payload: &str| (at, topic.to_owned(), payload.to_owned());
        let json = concat!(
            r#"{"tst":"2026-11-29T23:46:17.228158Z+0000","topic":"s/a b","qos":0,"retain":0,"payloadlen":13,"#,
            r#""payload":"{\n \"v\": 1\n}"}"#
        );
        let at = Some(1_795_995_977_228_158_000);
        assert_eq!(read(json, &mut Form::Json), expected(at, "s/a b", "{\n \"v\": 1\n}"));
        let json = r#"{"tst":"2026-11-30T00:46:17.228158+0100","topic":"s/a","qos":0,"payload":{"v":1}}"#;
        assert_eq!(read(json, &mut Form::Json), expected(at, "s/a", "{\"v\":1}"));
        let empty = r#"{"topic":"s/c","qos":0,"retain":0,"payloadlen":0,"payload":null}"#;
        assert_eq!(read(empty, &mut Form::Json), expected(None, "s/c", ""));

        let mut timed = Form::Text { timed: None };
        let at = Some(1_795_995_977_228_251_321);
        assert_eq!(
            read("1795995977.228251321 s/a {\"v\": 1}", &mut timed),
            expected(at, "s/a", "{\"v\": 1}")
        );
        assert_eq!(timed, Form::Text { timed: Some(true) });
        let at = Some(1_795_995_977_000_000_000);
        assert_eq!(read("2026-11-29T23:46:17+0000 s/a 23.5", &mut timed), expected(at, "s/a", "23.5"));
        assert!(message(b" \"v\": 1", &mut timed).is_err(), "the second line of a payload");

        let mut untimed = Form::Text { timed: None };
        assert_eq!(read("s/a {\"v\": 1}", &mut untimed), expected(None, "s/a", "{\"v\": 1}"));
        assert_eq!(read("s/c", &mut untimed), expected(None, "s/c", ""));
    }
}
