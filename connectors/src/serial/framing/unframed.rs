//! Bytes that never become a frame, and why that may be.

use std::time::Duration;

use tokio::time::Instant;

use super::Kind;
use super::looks::find;

/// What has come since the last frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unframed {
    /// when the first byte came
    pub since: Instant,
    /// how many bytes
    pub count: u64,
    /// how many times the line has paused meanwhile
    pub pauses: u64,
    last: Instant,
    newest: Vec<u8>,
}

/// Bytes of one frame follow each other faster, as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// How many of the newest bytes are kept.
const NEWEST: usize = 64;

/// Ends that devices use, the longer ones first.
const ENDS: [&[u8]; 5] = [b"\r\n", b"\n", b"\r", b"\x03", b"\0"];

impl Unframed {
    pub(super) fn since(now: Instant) -> Self {
        Self { since: now, count: 0, pauses: 0, last: now, newest: Vec::new() }
    }

    pub(super) fn add(&mut self, bytes: &[u8], now: Instant) {
        self.pauses += u64::from(self.last + PAUSE <= now);
        self.last = now;
        self.count += bytes.len() as u64;
        self.newest.extend_from_slice(bytes.get(bytes.len().saturating_sub(NEWEST)..).unwrap_or(bytes));
        self.newest.drain(..self.newest.len().saturating_sub(NEWEST));
    }

    /// The newest bytes.
    #[must_use]
    pub fn newest(&self) -> &[u8] {
        &self.newest
    }
}

/// Why `bytes` are no frame of this kind.
pub(super) fn probable_cause(kind: &Kind, bytes: &[u8]) -> String {
    let is_text = |byte: &&u8| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t' | 2 | 3);
    let is_garbage = 4 * bytes.iter().filter(is_text).count() < 3 * bytes.len();
    let lacks = |key: &str, what: &[u8]| format!("`{key}`, \"{}\", does not come", what.escape_ascii());
    let missing = match kind {
        Kind::Delimited(kind) if is_missing(bytes, &kind.start) => Some(lacks("start", &kind.start)),
        Kind::Delimited(kind) if is_missing(bytes, &kind.end) => {
            let other = ENDS.into_iter().find(|end| *end != kind.end && find(bytes, end).is_some());
            match other.filter(|_| !is_garbage) {
                Some(other) => {
                    let (end, other) = (kind.end.escape_ascii(), other.escape_ascii());
                    return format!(
                        "`end` is \"{end}\", and the device seems to send \"{other}\": write end = \"{other}\""
                    );
                }
                None => Some(lacks("end", &kind.end)),
            }
        }
        Kind::Length(kind) if is_missing(bytes, &kind.start) => Some(lacks("start", &kind.start)),
        Kind::Nmea if is_missing(bytes, b"$") && is_missing(bytes, b"!") => {
            Some("the `$` of a sentence does not come".to_owned())
        }
        Kind::Gap => return "the line is never silent for `gap`: shorten it".to_owned(),
        _ => None,
    };
    match missing {
        Some(missing) if is_garbage => format!("{missing}: compare baud rate and parity with the device"),
        Some(missing) => format!("{missing}: compare `frame` with the device"),
        None => "compare `frame`, its length and its checksum, and the baud rate with the device".to_owned(),
    }
}

fn is_missing(bytes: &[u8], mark: &[u8]) -> bool {
    !mark.is_empty() && find(bytes, mark).is_none()
}
