//! The text of values in a payload: a number has all its digits there, and not only those that a float holds.
//!
//! What is said here of a text that is no JSON is of no use, and harmless: the parser refuses such a payload.

use serde::de::IgnoredAny;

/// The value that `path` leads to, from `value` on. Of several keys of one name the last counts.
pub(in crate::codec) fn find<'a>(value: &'a [u8], path: &[String]) -> Option<&'a [u8]> {
    let Some((name, inner)) = path.split_first() else { return Some(value) };
    entries(value).filter(|entry| entry.is(name)).map(|entry| find(entry.value, inner)).last().flatten()
}

/// Calls `each` with the elements of every array that `path` leads to, or the object that is there instead,
/// in the order of the text; elements that are no objects make no rows.
pub(in crate::codec) fn each_row<'a>(value: &'a [u8], path: &[String], each: &mut impl FnMut(&'a [u8])) {
    match path.split_first() {
        None if value.starts_with(b"{") => each(value),
        None => {
            entries(value).filter(|entry| entry.value.starts_with(b"{")).for_each(|entry| each(entry.value))
        }
        Some((name, inner)) => {
            entries(value).filter(|entry| entry.is(name)).for_each(|entry| each_row(entry.value, inner, each))
        }
    }
}

/// `text` from its first value on.
pub(in crate::codec) fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

/// In front of a number that was marked: a noncharacter, which no text has a use for (Unicode, section 23.7).
const MARK: char = '\u{10ffff}';

/// `json` with a string in place of each number that no float64 holds, since the parser takes none of them.
/// `None`: it has no such number.
pub(in crate::codec) fn with_marked_numbers(json: &[u8]) -> Option<Vec<u8>> {
    let (mut marked, mut rest) = (Vec::new(), json);
    let mut is_any = false;
    while let Some(first) = rest.first() {
        let token = match first {
            b'"' | b'-' | b'0'..=b'9' => length(rest),
            _ => 1,
        };
        let (token, after) = rest.split_at_checked(token)?;
        rest = after;
        match std::str::from_utf8(token) {
            // A string would become a key where a number is none.
            Ok(number) if is_beyond_float64(number) && !trimmed(rest).starts_with(b":") => {
                is_any = true;
                marked.extend_from_slice(format!("\"{MARK}{number}\"").as_bytes());
            }
            _ => marked.extend_from_slice(token),
        }
    }
    is_any.then_some(marked)
}

/// The number, as it was written, in the place of which there is `text`.
pub(in crate::codec) fn marked_number(text: &str) -> Option<&str> {
    text.strip_prefix(MARK).filter(|number| is_beyond_float64(number))
}

fn is_beyond_float64(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && json.parse::<f64>().is_ok_and(f64::is_infinite)
        && serde_json::from_str::<IgnoredAny>(json).is_ok()
}

/// A member of an object, or an element of an array.
struct Entry<'a> {
    /// With its quotes; none in an array.
    key: Option<&'a [u8]>,
    index: usize,
    value: &'a [u8],
}

impl Entry<'_> {
    fn is(&self, name: &str) -> bool {
        match self.key {
            None => name.parse() == Ok(self.index),
            Some(key) if key.contains(&b'\\') => {
                serde_json::from_slice::<String>(key).is_ok_and(|key| key == name)
            }
            Some(key) => key.get(1..key.len().saturating_sub(1)) == Some(name.as_bytes()),
        }
    }
}

/// What is in an object or array; nothing in any other value.
fn entries(value: &[u8]) -> Entries<'_> {
    match value {
        [b'{', rest @ ..] => Entries { rest, is_object: true, index: 0 },
        [b'[', rest @ ..] => Entries { rest, is_object: false, index: 0 },
        _ => Entries { rest: &[], is_object: false, index: 0 },
    }
}

struct Entries<'a> {
    rest: &'a [u8],
    is_object: bool,
    index: usize,
}

impl<'a> Entries<'a> {
    fn skip_mark(&mut self, mark: u8) {
        self.rest = trimmed(self.rest);
        if let [first, rest @ ..] = self.rest
            && *first == mark
        {
            self.rest = trimmed(rest);
        }
    }

    fn take_value(&mut self) -> Option<&'a [u8]> {
        let (value, rest) = self.rest.split_at_checked(length(self.rest))?;
        self.rest = rest;
        (!value.is_empty()).then_some(value)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.skip_mark(b',');
        let mut key = None;
        if self.is_object {
            key = Some(self.take_value().filter(|key| key.starts_with(b"\""))?);
            self.skip_mark(b':');
        }
        let value = self.take_value()?;
        self.index += 1;
        Some(Entry { key, index: self.index - 1, value })
    }
}

/// How long the value at the beginning of `text` is; zero where none begins.
fn length(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => string_length(text),
        Some(b'{' | b'[') => {
            let (mut depth, mut at) = (0_usize, 0);
            while let Some(byte) = text.get(at) {
                match byte {
                    b'"' => {
                        at += string_length(text.get(at..).unwrap_or_default());
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at
        }
        _ => text
            .iter()
            .take_while(|byte| !matches!(byte, b',' | b':' | b']' | b'}') && !byte.is_ascii_whitespace())
            .count(),
    }
}

fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}
