//! Frames that their start, end, length or the silence behind them shows.

use super::checksum::{Checksum, Sum};
use super::config::{Counts, LengthConfig};
use super::{Look, Why};

/// Frames between a start and an end.
#[derive(Debug, Clone)]
pub(super) struct Delimited {
    /// empty: a frame begins where the one before ends
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
    /// bytes behind the end that belong to the frame
    pub(super) trailer: usize,
}

/// Frames whose length is known.
#[derive(Debug, Clone)]
pub(super) struct Length {
    pub(super) start: Vec<u8>,
    pub(super) length: LengthConfig,
}

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    match what {
        [] => None,
        [byte] => bytes.iter().position(|other| other == byte),
        _ => bytes.windows(what.len()).position(|window| window == what),
    }
}

/// How many bytes are in front of the first start, or of what may become one.
fn before_start(bytes: &[u8], start: &[u8]) -> usize {
    find(bytes, start).unwrap_or_else(|| {
        let longest = start.len().saturating_sub(1).min(bytes.len());
        let tail = (1..=longest).rev().find(|count| {
            let (tail, head) = (bytes.get(bytes.len() - count..), start.get(..*count));
            tail == head
        });
        bytes.len() - tail.unwrap_or(0)
    })
}

/// What stands in front of a start, if anything.
fn noise(bytes: &[u8], start: &[u8]) -> Option<Look> {
    match before_start(bytes, start) {
        _ if start.is_empty() => None,
        0 if bytes.len() < start.len() => Some(Look::More { seen: 0 }),
        0 => None,
        count => Some(Look::skip(count, Why::Noise)),
    }
}

impl Delimited {
    pub(super) fn look(
        &self,
        bytes: &[u8],
        seen: usize,
        max: usize,
        is_torn: bool,
        checksum: Option<&Checksum>,
    ) -> Look {
        if let Some(look) = noise(bytes, &self.start) {
            return look;
        }
        let from = seen.saturating_sub(self.end.len() - 1).max(self.start.len());
        let Some(end) = find(bytes.get(from..).unwrap_or_default(), &self.end).map(|at| from + at) else {
            if bytes.len() <= self.start.len() + max + self.end.len() {
                return Look::More { seen: bytes.len() };
            }
            if !self.start.is_empty() {
                let seen = bytes.len() - 1;
                return Look::Skip { count: 1, why: Why::TooLong, is_torn: false, seen };
            }
            let why = if is_torn { Why::Torn } else { Why::TooLong };
            // The end may have begun.
            return Look::lost(bytes.len() - (self.end.len() - 1), why);
        };
        let whole = end + self.end.len() + self.trailer;
        if bytes.len() < whole {
            return Look::More { seen: end };
        }
        if self.start.is_empty() && is_torn {
            return Look::skip(whole, Why::Torn);
        }
        // Without a start, all of it is of no use; with one, another frame may begin in it.
        let wrong = |why| Look::skip(if self.start.is_empty() { whole } else { 1 }, why);
        if end - self.start.len() > max {
            return wrong(Why::TooLong);
        }
        let mut content = self.start.len()..end;
        if let Some(checksum) = checksum {
            let behind = if self.trailer == 0 { self.end.len() } else { 0 };
            let Some(place) = checksum.check(bytes.get(..whole).unwrap_or_default(), behind) else {
                return wrong(Why::Checksum);
            };
            content.end = content.end.min(place).max(content.start);
        } else if !self.start.is_empty()
            && let Some(again) = rfind(bytes.get(1..end).unwrap_or_default(), &self.start)
        {
            // The end of the frame in front was lost.
            return Look::skip(1 + again, Why::Unfinished);
        }
        Look::Frame(whole, Some(content))
    }
}

fn rfind(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).rposition(|window| window == what)
}

impl Length {
    pub(super) fn look(&self, bytes: &[u8], max: usize, is_torn: bool, checksum: Option<&Checksum>) -> Look {
        if let Some(look) = noise(bytes, &self.start) {
            return look;
        }
        // Only silence shows where a frame begins.
        let is_blind = self.start.is_empty() && checksum.is_none();
        if is_blind && is_torn {
            return Look::lost(bytes.len(), Why::Torn);
        }
        let length = match self.length {
            LengthConfig::Fixed(length) => length,
            LengthConfig::Prefix(prefix) => {
                let end = prefix.at + prefix.width.bytes();
                let Some(number) = bytes.get(prefix.at..end) else { return Look::More { seen: 0 } };
                let number = prefix.order.number(number) & prefix.mask.map_or(u64::MAX, u64::from);
                let counted = if prefix.counts == Counts::Rest { end as u64 } else { 0 };
                let length = i64::try_from(counted + number).unwrap_or(i64::MAX) + i64::from(prefix.add);
                match usize::try_from(length).ok().filter(|length| *length >= end && *length <= max) {
                    Some(length) => length,
                    None if is_blind => return Look::lost(bytes.len(), Why::Malformed),
                    None => return Look::skip(1, Why::Malformed),
                }
            }
        };
        let Some(whole) = bytes.get(..length) else { return Look::More { seen: 0 } };
        match checksum.map(|checksum| checksum.check(whole, 0)) {
            Some(None) => Look::skip(1, Why::Checksum),
            // What follows the checksum is a part of the frame.
            Some(Some(place)) => Look::Frame(length, Some(0..place)),
            None => Look::Frame(length, Some(0..length)),
        }
    }
}

/// All that came until the line fell silent.
pub(super) fn by_gap(
    bytes: &[u8],
    max: usize,
    is_torn: bool,
    is_silent: bool,
    checksum: Option<&Checksum>,
) -> Look {
    let whole = bytes.len();
    if is_torn {
        return if is_silent { Look::skip(whole, Why::Torn) } else { Look::lost(whole, Why::Torn) };
    }
    if whole > max {
        return if is_silent { Look::skip(whole, Why::TooLong) } else { Look::lost(whole, Why::TooLong) };
    }
    if !is_silent {
        return Look::More { seen: 0 };
    }
    match checksum.map(|checksum| checksum.check(bytes, 0)) {
        Some(None) => Look::skip(whole, Why::Checksum),
        Some(Some(place)) => Look::Frame(whole, Some(0..place)),
        None => Look::Frame(whole, Some(0..whole)),
    }
}

/// A sentence: `$GPGLL,..*hh\r\n`, whose checksum is the exclusive or of all between `$` and `*`
/// (NMEA 0183, section 5.2).
pub(super) fn nmea(bytes: &[u8], seen: usize, max: usize) -> Look {
    let is_start = |byte: &u8| matches!(byte, b'$' | b'!');
    match bytes.iter().position(is_start) {
        Some(0) => {}
        Some(count) => return Look::skip(count, Why::Noise),
        None => return Look::skip(bytes.len(), Why::Noise),
    }
    let Some(end) = find(bytes.get(seen..).unwrap_or_default(), b"\n").map(|at| seen + at) else {
        return if bytes.len() > max {
            Look::Skip { count: 1, why: Why::TooLong, is_torn: false, seen: bytes.len() - 1 }
        } else {
            Look::More { seen: bytes.len() }
        };
    };
    let sentence = bytes.get(1..end).unwrap_or_default();
    if let Some(again) = sentence.iter().rposition(is_start) {
        return Look::skip(1 + again, Why::Unfinished);
    }
    let sentence = sentence.strip_suffix(b"\r").unwrap_or(sentence);
    if sentence.len() > max {
        return Look::skip(1, Why::TooLong);
    }
    let checksum = Checksum { skip: 1, ascii: true, ..Checksum::usual(Sum::Xor) };
    match checksum.check(sentence, 0) {
        Some(place) if sentence.get(place) == Some(&b'*') => Look::Frame(end + 1, Some(1..1 + place)),
        _ => Look::skip(end + 1, Why::Checksum),
    }
}
