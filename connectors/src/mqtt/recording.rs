//! Recorded messages with their payloads as they came: what `mosquitto_sub` prints.
//!
//! Three forms are read; the first line of a file says which it is.
//!
//! * JSON Lines with `topic` and `payload`, `tst`, the time of arrival, and `retain` (`mosquitto_sub -F %j`).
//!   Any payload survives.
//! * `TIME TOPIC PAYLOAD` (`-F '%U %t %p'` or `-F '%I %t %p'`): seconds since 1970, or ISO 8601 with an
//!   offset.
//! * `TOPIC PAYLOAD` (`-v`): when messages came is not known, so streams without `ts` are left out.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

/// How to record what every stream can be fed from.
pub const ADVICE: &str = "record with `mosquitto_sub -F %j`, which says when each message came";

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// an object a line
    Json,
    /// text a line
    Text {
        /// whether there is a time in front; known when the first line was read
        timed: Option<bool>,
    },
}

impl Form {
    /// That of a file that begins with this byte.
    #[must_use]
    pub fn from_first_byte(first: Option<u8>) -> Self {
        if first == Some(b'{') { Self::Json } else { Self::Text { timed: None } }
    }

    /// Reads one line.
    ///
    /// # Errors
    /// Why it is no message, in words for the user.
    pub fn read(&mut self, line: &[u8]) -> Result<Message, String> {
        match self {
            Self::Json => json_message(line),
            Self::Text { timed } => text_message(line, timed),
        }
    }
}

/// A message as it was recorded.
#[derive(Debug)]
pub struct Message {
    /// when it came, nanoseconds since 1970
    pub at: Option<i64>,
    /// its topic
    pub topic: String,
    /// its payload
    pub payload: Vec<u8>,
    /// whether the broker had retained it, as far as the recording says
    pub retained: bool,
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

fn text_message(line: &[u8], timed: &mut Option<bool>) -> Result<Message, String> {
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
            let Message { at, topic, payload, .. } = form.read(line.as_bytes()).unwrap();
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
        assert!(timed.read(b" \"v\": 1").is_err(), "the second line of a payload");

        let mut untimed = Form::Text { timed: None };
        assert_eq!(read("s/a {\"v\": 1}", &mut untimed), expected(None, "s/a", "{\"v\": 1}"));
        assert_eq!(read("s/c", &mut untimed), expected(None, "s/c", ""));
    }
}
