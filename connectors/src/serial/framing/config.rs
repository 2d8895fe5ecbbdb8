//! What users write about frames.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_core::{ByteSize, Span};

use super::checksum::{Checksum, Sum};
use crate::codec::ByteOrder;
use crate::serial::escapes::Bytes;
use crate::table::Problem;

/// Where a frame begins and ends in the bytes of a line: `{ end = "\r\n" }`, or a name such as `"cobs"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameConfig {
    /// absent: by the other keys
    pub kind: Option<FrameKind>,
    /// the bytes that each begins with
    pub start: Option<Bytes>,
    /// the bytes that each ends with
    pub end: Option<Bytes>,
    /// how many bytes follow `end` and belong to the frame
    pub trailer: u8,
    /// how long each is
    pub length: Option<LengthConfig>,
    /// silence that ends a frame, or gives it up
    pub gap: Option<Span>,
    /// how it is checked
    pub checksum: Option<Checksum>,
    /// bytes that a frame has at most
    pub max: Option<ByteSize>,
}

/// Frames that need no other words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// consistent overhead byte stuffing, with 0x00 between frames
    Cobs,
    /// SLIP (RFC 1055)
    Slip,
    /// HDLC-like frames with byte stuffing and a 16-bit check (RFC 1662)
    Hdlc,
    /// NMEA 0183: a line from `$` or `!` with its checksum
    Nmea,
}

/// How long a frame is: `12`, or `{ at = 1, type = "uint8" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LengthConfig {
    /// all frames are that long
    Fixed(usize),
    /// a number in the frame says it
    Prefix(PrefixConfig),
}

/// `{ at = 1, type = "uint16", order = "little", counts = "frame" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixConfig {
    /// where the number is, counted from 0 at the start of the frame
    #[serde(default)]
    pub at: usize,
    /// its type; uint8 when absent
    #[serde(default, rename = "type")]
    pub width: Width,
    /// order of its bytes
    #[serde(default)]
    pub order: ByteOrder,
    /// the bits of it that are the length; all when absent
    pub mask: Option<u32>,
    /// what it counts
    #[serde(default)]
    pub counts: Counts,
    /// how many bytes the frame has that it does not count
    #[serde(default)]
    pub add: i32,
}

/// The type of a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// one byte
    #[default]
    Uint8,
    /// two bytes
    Uint16,
    /// four bytes
    Uint32,
}

impl Width {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Uint8 => 1,
            Self::Uint16 => 2,
            Self::Uint32 => 4,
        }
    }
}

/// What a length counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Counts {
    /// the bytes behind it
    #[default]
    Rest,
    /// the whole frame
    Frame,
}

/// Longest frame when nothing is said about it.
const USUAL_MAX: u64 = 4 << 10;

/// More than any device sends at once; looking for a frame in what is none may take the square of it.
const LARGEST: u64 = 64 << 10;

/// Longer pauses are no gaps between frames.
const LONGEST_GAP: Duration = Duration::from_secs(60);

impl FrameConfig {
    /// Bytes that a frame has at most.
    #[must_use]
    pub fn max(&self) -> usize {
        usize::try_from(self.max.map_or(USUAL_MAX, |max| max.0)).unwrap_or(usize::MAX)
    }

    /// Bytes that a stream finds in a frame at most.
    #[must_use]
    pub fn longest_content(&self) -> usize {
        match (&self.length, &self.checksum) {
            (Some(LengthConfig::Fixed(length)), Some(checksum)) => checksum.end(*length, 0).unwrap_or(0),
            (Some(LengthConfig::Fixed(length)), None) => *length,
            _ => self.max(),
        }
    }

    /// What is wrong with it; places are keys of this table.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let max = self.max.map_or(USUAL_MAX, |max| max.0);
        if !(1..=LARGEST).contains(&max) {
            problems.push(Problem::new(&["max"], "`max` is from 1B to 64KiB"));
        }
        for (key, bytes) in [("start", &self.start), ("end", &self.end)] {
            if bytes.as_ref().is_some_and(|bytes| bytes.0.is_empty()) {
                problems.push(Problem::new(&[key], format!("`{key}` has no bytes")));
            }
        }
        if self.gap.is_some_and(|gap| gap.0.is_zero() || gap.0 > LONGEST_GAP) {
            problems.push(Problem::new(&["gap"], format!("a gap is from 1ms to {}", Span(LONGEST_GAP))));
        }
        if let Some(kind) = self.kind {
            let keys = [
                ("start", self.start.is_some()),
                ("end", self.end.is_some()),
                ("length", self.length.is_some()),
                ("trailer", self.trailer > 0),
                ("checksum", self.checksum.is_some() && matches!(kind, FrameKind::Hdlc | FrameKind::Nmea)),
            ];
            for (key, _) in keys.into_iter().filter(|(_, said)| *said) {
                let what = format!("`{key}` contradicts the kind, which says it");
                problems.push(Problem::new(&[key], what).help("leave it out"));
            }
            return problems;
        }
        if self.end.is_some() && self.length.is_some() {
            let what = "it says `end` and `length`";
            problems.push(Problem::new(&["length"], what).help("keep the one by which a frame ends"));
        }
        if self.end.is_none() && self.length.is_none() && self.gap.is_none() {
            problems.push(Problem::absent(&[], "it does not say where a frame ends").help(
                "add end = \"\\r\\n\", length = 12, gap = \"20ms\", or kind = \"cobs\", \"slip\", \"hdlc\" or \
                \"nmea\"",
            ));
        }
        if self.trailer > 0 && self.end.is_none() {
            problems.push(Problem::new(&["trailer"], "a trailer is what follows `end`, and there is none"));
        }
        if let (Some(checksum), None) = (&self.checksum, &problems.first()) {
            problems.extend(checksum_problem(checksum));
        }
        match &self.length {
            Some(LengthConfig::Fixed(length)) if *length == 0 || *length as u64 > max => {
                problems.push(Problem::new(&["length"], format!("a length is from 1 to `max`, {max}")));
            }
            Some(LengthConfig::Fixed(length)) if problems.is_empty() => {
                problems.extend(self.beyond(*length));
            }
            Some(LengthConfig::Prefix(prefix)) if (prefix.at + prefix.width.bytes()) as u64 > max => {
                problems.push(Problem::new(&["length", "at"], "the length is behind the longest frame"));
            }
            _ => {}
        }
        let has_mark = self.start.is_some() || self.checksum.is_some() || self.gap.is_some();
        if self.length.is_some() && !has_mark && problems.is_empty() {
            let what = "nothing shows where a frame begins, once a byte was lost";
            problems.push(
                Problem::new(&["length"], what)
                    .help("add the bytes of its `start`, its `checksum`, or the `gap` between two frames"),
            );
        }
        problems
    }
}

impl FrameConfig {
    /// What has no room in frames that are all so long.
    fn beyond(&self, length: usize) -> Option<Problem> {
        let start = self.start.as_ref().map_or(0, |start| start.0.len());
        if start > length {
            let what = format!("`start` has {start} bytes, and a frame {length}");
            return Some(Problem::new(&["start"], what).help("correct one of them"));
        }
        let checksum = self.checksum.as_ref().filter(|checksum| checksum.end(length, 0).is_none())?;
        let Checksum { from, skip, .. } = checksum;
        let (written, last) = (checksum.written(), checksum.at.unwrap_or_default().unsigned_abs());
        let place = if last == 0 { "at the end".to_owned() } else { format!("at the {last}. last byte") };
        let what = format!(
            "a frame of {length} bytes has no room for a checksum of {written} bytes {place} that covers what \
            is in front of it from byte {from} on, up to {skip} bytes before it"
        );
        Some(Problem::new(&["checksum"], what).help("correct it, or `length`"))
    }
}

fn checksum_problem(checksum: &Checksum) -> Option<Problem> {
    let wrong = |what: String| Problem::new(&["checksum", "at"], what);
    let at = checksum.at?;
    if at >= 0 {
        return Some(wrong("`at` counts from the end of the frame: write -2 or the like".into()));
    }
    let (behind, written) = (at.unsigned_abs() as usize, checksum.written());
    (behind < written).then(|| {
        wrong(format!("`at = {at}` is too close to the end for a checksum of {written} bytes"))
            .help(format!("write at = -{written}, or less"))
    })
}

/// The keys of a table.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FrameKeys {
    /// frames that need no other words
    kind: Option<FrameKind>,
    /// the bytes that each begins with
    start: Option<Bytes>,
    /// the bytes that each ends with
    end: Option<Bytes>,
    /// how many bytes follow `end` and belong to the frame, such as a checksum
    #[serde(default)]
    trailer: u8,
    /// how long each is
    length: Option<LengthConfig>,
    /// Silence that ends a frame; where something else ends it, silence that gives it up.
    gap: Option<Span>,
    /// how it is checked
    #[serde(default, deserialize_with = "checksum")]
    #[schemars(with = "Option<ChecksumSchema>")]
    checksum: Option<Checksum>,
    /// bytes that a frame has at most; 4KiB when absent
    max: Option<ByteSize>,
}

#[derive(JsonSchema)]
#[schemars(untagged, rename = "Checksum")]
#[expect(dead_code, reason = "only its schema is used")]
enum ChecksumSchema {
    Kind(Sum),
    With(Checksum),
}

#[derive(JsonSchema)]
#[schemars(untagged, rename = "Frame")]
#[expect(dead_code, reason = "only its schema is used")]
enum FrameSchema {
    Kind(FrameKind),
    With(FrameKeys),
}

#[derive(JsonSchema)]
#[schemars(untagged, rename = "Length")]
#[expect(dead_code, reason = "only its schema is used")]
enum LengthSchema {
    Fixed(usize),
    Prefix(PrefixConfig),
}

impl From<FrameKeys> for FrameConfig {
    fn from(keys: FrameKeys) -> Self {
        let FrameKeys { kind, start, end, trailer, length, gap, checksum, max } = keys;
        Self { kind, start, end, trailer, length, gap, checksum, max }
    }
}

/// Reads a name, a number or a table; derived, an untagged enum would not say which key of a table is wrong.
struct Short<N, M, T> {
    expected: &'static str,
    name: fn(N) -> T,
    number: Option<fn(usize) -> T>,
    table: fn(M) -> T,
}

impl<'de, N: Deserialize<'de>, M: Deserialize<'de>, T> Visitor<'de> for Short<N, M, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<T, E> {
        N::deserialize(name.into_deserializer()).map(self.name)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let wrong = || E::invalid_value(de::Unexpected::Signed(number), &self.expected);
        let length = usize::try_from(number).map_err(|_| wrong())?;
        self.number.map(|read| read(length)).ok_or_else(wrong)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(self.table)
    }
}

impl<'de> Deserialize<'de> for FrameConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Short {
            expected: "a table such as { end = \"\\r\\n\" }, or a kind such as \"cobs\"",
            name: |kind| Self { kind: Some(kind), ..Self::default() },
            number: None,
            table: |keys: FrameKeys| keys.into(),
        })
    }
}

impl<'de> Deserialize<'de> for LengthConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Short {
            expected: "a number of bytes, or { at = 1, type = \"uint8\" }",
            name: |never: Never| match never {},
            number: Some(Self::Fixed),
            table: Self::Prefix,
        })
    }
}

/// No name is a length.
#[derive(Deserialize)]
enum Never {}

fn checksum<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Checksum>, D::Error> {
    let short = Short {
        expected: "a kind such as \"crc16_modbus\", or { kind = \"xor\", from = 1 }",
        name: Checksum::usual,
        number: None,
        table: |checksum| checksum,
    };
    deserializer.deserialize_any(short).map(Some)
}

impl JsonSchema for FrameConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        FrameSchema::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        FrameSchema::json_schema(generator)
    }
}

impl JsonSchema for LengthConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        LengthSchema::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        LengthSchema::json_schema(generator)
    }
}
