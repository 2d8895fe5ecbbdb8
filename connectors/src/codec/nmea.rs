//! Sentences of NMEA 0183: values between commas, which the sentence's type gives a meaning.
//!
//! A path is a position: `"1"` is the first value behind the address (`GPRMC`), which is `"0"`. Besides,
//! `talker` and `sentence` are the two parts of the address, and `latitude` and `longitude` the position in
//! degrees, where the sentence has one.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::column::Scalar;
use super::decode::{Decoder, Place};
use super::layout::ROW;
use super::pattern::text_of;
use super::tokens::Fault;

/// `{ nmea = { sentence = "RMC" } }`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NmeaFormat {
    /// the type of the sentences, such as RMC; all when absent
    pub sentence: Option<Sentence>,
}

/// Three letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence([u8; 3]);

impl<'de> Deserialize<'de> for Sentence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let letters = text.as_bytes().try_into().ok().filter(|letters: &[u8; 3]| letters.is_ascii());
        let wrong = || {
            serde::de::Error::custom(format!(
                "\"{text}\" is no type of a sentence: write one such as \"RMC\""
            ))
        };
        letters.map(Self).ok_or_else(wrong)
    }
}

impl JsonSchema for Sentence {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sentence".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 3, "maxLength": 3 })
    }
}

/// Where a latitude is; its hemisphere, the longitude and its hemisphere follow (NMEA 0183, section 6.3).
const POSITIONS: [(&str, usize); 5] = [("GGA", 2), ("GLL", 1), ("RMC", 3), ("GNS", 2), ("BWC", 2)];

/// Names of values that are not positions.
pub(super) const NAMES: [&str; 4] = ["talker", "sentence", "latitude", "longitude"];

impl NmeaFormat {
    /// Whether only some sentences are of the type.
    pub(super) fn is_selective(self) -> bool {
        self.sentence.is_some()
    }

    /// Whether a payload is of the type.
    pub(super) fn fits(self, payload: &[u8]) -> bool {
        let address = payload.split(|byte| *byte == b',').next().unwrap_or_default();
        let address = address.strip_prefix(b"$").or_else(|| address.strip_prefix(b"!")).unwrap_or(address);
        self.sentence.is_none_or(|Sentence(sentence)| address.ends_with(&sentence))
    }
}

/// The values of a sentence, whose checksum is right if it has one.
fn values(text: &str) -> Result<Vec<&str>, Fault> {
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.strip_prefix(['$', '!']).unwrap_or(text);
    let (text, checksum) = match text.rsplit_once('*') {
        Some((text, checksum)) => (text, Some(checksum)),
        None => (text, None),
    };
    if let Some(checksum) = checksum {
        let sum = text.bytes().fold(0, |sum, byte| sum ^ byte);
        if u8::from_str_radix(checksum, 16) != Ok(sum) {
            return Err(Fault::Malformed(format!("its checksum is {checksum}, and should be {sum:02X}")));
        }
    }
    Ok(text.split(',').collect())
}

/// Degrees: the last two digits before the point, and all behind it, are minutes.
fn degrees(text: &str, hemisphere: &str) -> Option<f64> {
    let point = text.find('.').unwrap_or(text.len());
    let (whole, minutes) = text.split_at_checked(point.checked_sub(2)?)?;
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let whole = if whole.is_empty() { 0.0 } else { whole.parse().ok()? };
    let degrees = whole + minutes.parse::<f64>().ok()? / 60.0;
    match hemisphere {
        "N" | "E" => Some(degrees),
        "S" | "W" => Some(-degrees),
        _ => None,
    }
}

impl Decoder {
    /// Adds the row of a sentence.
    pub(super) fn read_nmea(&mut self, payload: &[u8], format: NmeaFormat) -> Result<(), Fault> {
        if !format.fits(payload) {
            return Err(Fault::Malformed("it is another sentence".into()));
        }
        let text = text_of(payload);
        let values = values(&text)?;
        let address = values.first().copied().unwrap_or_default();
        let Some((talker, sentence)) = address.split_at_checked(address.len().saturating_sub(3)) else {
            return Err(Fault::Malformed("it has no address".into()));
        };
        self.begin_row();
        for (at, value) in values.iter().enumerate() {
            let Some(key) = self.element(ROW, at) else { continue };
            let value = if value.is_empty() { Scalar::Null } else { Scalar::Text(value) };
            self.put(Place { node: ROW, key }, value);
        }
        let at = POSITIONS.iter().find(|(name, _)| *name == sentence).map(|(_, at)| *at);
        let angle = |behind| {
            let at = at? + behind;
            degrees(values.get(at).copied()?, values.get(at + 1).copied()?)
        };
        let angles = [angle(0), angle(2)].map(|angle| angle.map_or(Scalar::Null, Scalar::Float));
        let [latitude, longitude] = angles;
        let named = [Scalar::Text(talker), Scalar::Text(sentence), latitude, longitude];
        for (name, value) in NAMES.iter().zip(named) {
            let Some(key) = self.find(ROW, name) else { continue };
            self.put(Place { node: ROW, key }, value);
        }
        self.end_row()
    }
}
