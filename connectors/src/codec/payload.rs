//! What users write about payloads, whatever carries them: `format`, `rows`, `ts`, `fields`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_core::FieldType;

use super::binary::{BinaryField, ByteOrder, ValueType};
use super::csv::CsvFormat;
use super::nmea::NmeaFormat;
use super::pairs::PairFormat;
use super::{
    Decoder, Field, Fields, Layout, Missing, Numbers, Path, Pattern, TextFormat, TimeFormat, TimeUnit,
    TsPlace, Zone,
};

/// The keys of a stream of payloads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayloadConfig {
    /// What the payload is.
    #[serde(default)]
    pub format: Format,
    /// The regular expression that takes a text apart: its named groups, such as `(?<net>[0-9.]+)`, are the
    /// values. Only with the format `regex`.
    pub pattern: Option<Pattern>,
    /// Path of an array in the payload whose elements become rows; values outside it are read with paths that
    /// start with `^.` by every row. Absent: one message, one row (or one row an element, when the payload
    /// itself is an array).
    pub rows: Option<Path>,
    /// Where the event time is; absent: the time of arrival.
    pub ts: Option<TsConfig>,
    /// What becomes of a row in which the event time is absent, null or unreadable.
    pub ts_missing: Option<Missing>,
    /// Whether numbers may be written as text, in quotes.
    #[serde(default)]
    pub numbers_as_text: bool,
    /// The columns. Absent: inferred from the data, and kept on disk.
    pub fields: Option<BTreeMap<String, FieldConfig>>,
}

impl PayloadConfig {
    /// The keys.
    pub const KEYS: &'static [&'static str] =
        &["format", "pattern", "rows", "ts", "ts_missing", "numbers_as_text", "fields"];

    /// Whether rows have the time of arrival.
    #[must_use]
    pub fn goes_by_arrival(&self) -> bool {
        self.ts.is_none()
    }

    /// The declared columns, in order of their names; `None`: they are inferred.
    #[must_use]
    pub fn columns(&self) -> Option<Vec<(String, FieldType)>> {
        let fields = self.fields.as_ref()?;
        Some(fields.iter().map(|(name, field)| (name.clone(), field.field_type())).collect())
    }

    /// A decoder of such payloads, whose caller gives the text columns `captures` and the boolean column
    /// `flag` with each of them. `known`: columns that were inferred earlier; used where none are declared.
    ///
    /// # Errors
    /// In words for the user, when two columns have one name, or a path means nothing.
    pub fn decoder(
        &self,
        captures: &[String],
        flag: Option<&String>,
        mut known: Vec<(String, FieldType)>,
    ) -> Result<Decoder, String> {
        let ts = match self.ts.as_ref().map(TsConfig::place) {
            None => TsPlace::Arrival,
            Some((path, time)) => TsPlace::At { path, time, missing: self.ts_missing.unwrap_or_default() },
        };
        let fields = match &self.fields {
            // What the caller gives is none of the payload's.
            None => {
                known.retain(|(name, _)| !captures.contains(name) && flag != Some(name));
                Fields::Inferred(known)
            }
            Some(fields) => Fields::Declared(fields.iter().map(|(name, field)| field.field(name)).collect()),
        };
        let layout = Layout {
            format: self.format,
            numbers_as_text: self.numbers_as_text,
            captures: captures.to_vec(),
            flag: flag.cloned(),
            ts,
            rows: self.rows.clone(),
            fields,
            pattern: self.pattern.clone().filter(|_| self.format == Format::Regex),
            binary_fields: self.binary_fields()?,
        };
        Decoder::new(&layout).map_err(|error| error.to_string())
    }

    /// Whether what is in a payload decides whether it is of this stream.
    #[must_use]
    pub fn is_selective(&self) -> bool {
        match self.format {
            Format::Regex => true,
            Format::Nmea(format) => format.is_selective(),
            _ => false,
        }
    }

    /// Whether a payload may be of this stream, where several could have it.
    #[must_use]
    pub fn fits(&self, payload: &[u8]) -> bool {
        match (self.format, &self.pattern) {
            (Format::Regex, Some(pattern)) => pattern.fits(payload),
            (Format::Nmea(format), _) => format.fits(payload),
            _ => true,
        }
    }

    /// The fields of a layout that no payload of so many bytes has, and how many bytes it takes to have them.
    pub(crate) fn beyond(&self, longest: usize) -> Vec<(String, usize)> {
        let fields = self.binary_fields().unwrap_or_default();
        let needs = fields.into_iter().map(|(name, field)| (name, field.needs()));
        needs.filter(|(_, needs)| *needs > longest).collect()
    }

    /// Where the values of a layout are.
    pub(crate) fn binary_fields(&self) -> Result<Vec<(String, BinaryField)>, String> {
        if self.format != Format::Layout {
            return Ok(Vec::new());
        }
        let binary_field = |(name, field): (&String, &FieldConfig)| match field {
            FieldConfig::At(field) => match BinaryField::new(field) {
                Ok(binary_field) => Ok((name.clone(), binary_field)),
                Err((key, why)) => Err(format!("fields.{name}.{key}: {why}")),
            },
            FieldConfig::Type(_) => Err(format!("fields.{name}: a layout has to know where it is")),
        };
        self.fields.iter().flatten().map(binary_field).collect()
    }
}

/// What a payload is: `"json"`, or `{ csv = { header = true } }`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// JSON (RFC 8259): an object, or an array of objects
    #[default]
    Json,
    /// lines of values
    Csv(CsvFormat),
    /// one value: a number, text, a word such as ON, or bytes
    Raw,
    /// CBOR (RFC 8949): a map, or an array of maps
    Cbor,
    /// MessagePack: a map, or an array of maps
    MsgPack,
    /// a text that a regular expression takes apart
    Regex,
    /// a text of keys and values
    KeyValue(PairFormat),
    /// bytes that have their places
    Layout,
    /// a sentence of NMEA 0183
    Nmea(NmeaFormat),
}

impl Format {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv(_) => "csv",
            Self::Raw => "raw",
            Self::Cbor => "cbor",
            Self::MsgPack => "msgpack",
            Self::Regex => "regex",
            Self::KeyValue(_) => "key_value",
            Self::Layout => "layout",
            Self::Nmea(_) => "nmea",
        }
    }
}

/// How users write a [`Format`].
#[derive(JsonSchema)]
#[schemars(untagged, rename = "Format")]
#[expect(dead_code, reason = "only its schema is used")]
enum WrittenFormat {
    /// by its name
    Name(FormatName),
    /// with settings
    With(FormatSettings),
}

/// The formats by name.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum FormatName {
    /// JSON (RFC 8259): an object, or an array of objects
    Json,
    /// lines of values that commas separate
    Csv,
    /// one value: a number, text, a word such as ON, or bytes
    Raw,
    /// CBOR (RFC 8949): a map, or an array of maps
    Cbor,
    /// MessagePack: a map, or an array of maps
    #[serde(rename = "msgpack")]
    MsgPack,
    /// a text that the regular expression `pattern` takes apart
    Regex,
    /// a text of keys and values, such as T=21.5;RH=48
    KeyValue,
    /// bytes, in which each field has its place
    Layout,
    /// a sentence of NMEA 0183
    Nmea,
}

/// The formats that have settings.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum FormatSettings {
    /// lines of values
    Csv(CsvFormat),
    /// keys and values
    KeyValue(PairFormat),
    /// sentences of NMEA 0183
    Nmea(NmeaFormat),
}

/// As they are written: an enum of serde would not say which key of the table is wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatTable {
    csv: Option<CsvFormat>,
    key_value: Option<PairFormat>,
    nmea: Option<NmeaFormat>,
}

impl<'de> Deserialize<'de> for FormatSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match FormatTable::deserialize(deserializer)? {
            FormatTable { csv: Some(format), key_value: None, nmea: None } => Ok(Self::Csv(format)),
            FormatTable { csv: None, key_value: Some(format), nmea: None } => Ok(Self::KeyValue(format)),
            FormatTable { csv: None, key_value: None, nmea: Some(format) } => Ok(Self::Nmea(format)),
            _ => Err(de::Error::custom(
                "write one format with its settings, such as { csv = { header = true } }",
            )),
        }
    }
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Json => Self::Json,
            FormatName::Csv => Self::Csv(CsvFormat::default()),
            FormatName::Raw => Self::Raw,
            FormatName::Cbor => Self::Cbor,
            FormatName::MsgPack => Self::MsgPack,
            FormatName::Regex => Self::Regex,
            FormatName::KeyValue => Self::KeyValue(PairFormat::default()),
            FormatName::Layout => Self::Layout,
            FormatName::Nmea => Self::Nmea(NmeaFormat::default()),
        }
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a format such as \"json\", or { csv = { header = true } }";
        let table = |settings| match settings {
            FormatSettings::Csv(format) => Self::Csv(format),
            FormatSettings::KeyValue(format) => Self::KeyValue(format),
            FormatSettings::Nmea(format) => Self::Nmea(format),
        };
        deserializer.deserialize_any(TextOrTable { expected, text: |name: FormatName| name.into(), table })
    }
}

impl JsonSchema for Format {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        WrittenFormat::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        WrittenFormat::json_schema(generator)
    }
}

/// Where event time is: `"time"`, or `{ path = "time", unit = "ms" }`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum TsConfig {
    /// RFC 3339 text, or a number of milliseconds since 1970
    Path(Path),
    /// with how it is written
    At(TsAt),
}

/// `{ path = "time", unit = "ms" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TsAt {
    /// where the time is
    pub path: Path,
    /// unit of numbers since 1970-01-01T00:00:00Z; absent: milliseconds
    pub unit: Option<TimeUnit>,
    /// time zone of text that names none
    pub zone: Option<Zone>,
    /// how the time is written, as strptime has it, instead of RFC 3339 or a number in `unit`
    pub format: Option<TextFormat>,
}

impl TsConfig {
    pub(super) fn place(&self) -> (Path, TimeFormat) {
        match self {
            Self::Path(path) => (path.clone(), time_format(None, None, None)),
            Self::At(TsAt { path, unit, zone, format }) => {
                (path.clone(), time_format(*unit, *zone, format.as_ref()))
            }
        }
    }
}

/// A declared column: its type, or `{ type = "float64", path = "sensors.temperature" }`.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub enum FieldConfig {
    /// the type; the value is found under the column's own name
    Type(FieldType),
    /// with the place of the value
    At(FieldAt),
}

/// `{ type = "float64", path = "sensors.temperature" }`, or of bytes `{ type = "int16", at = 2 }`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldAt {
    /// type of the column; in a layout, of its bytes
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// where the value is; absent: under the column's own name
    pub path: Option<Path>,
    /// of a `timestamp`: unit of numbers since 1970-01-01T00:00:00Z; absent: milliseconds
    pub unit: Option<TimeUnit>,
    /// of a `timestamp`: time zone of text that names none
    pub zone: Option<Zone>,
    /// of a `timestamp`: how it is written, as strptime has it
    pub format: Option<TextFormat>,
    /// in a layout: the first byte, counted from 0; -1 is the last byte
    pub at: Option<i32>,
    /// in a layout, of text, bytes, `bcd` and `digits`: how many bytes; absent: all up to the end
    pub length: Option<usize>,
    /// in a layout: order of bytes; big when absent
    pub order: Option<ByteOrder>,
    /// in a layout: one bit of the number, 0 is the lowest, and the column is a boolean
    pub bit: Option<u8>,
    /// in a layout: the bits of the number that count; the lowest of them becomes bit 0
    pub mask: Option<u64>,
    /// in a layout: what the number is multiplied with
    pub scale: Option<f64>,
    /// in a layout: what is added after that
    pub offset: Option<f64>,
    /// in a layout: names of numbers, and the column is text
    pub values: Option<BTreeMap<String, String>>,
}

impl FieldAt {
    /// The keys that are there and are for layouts.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("at", self.at.is_some()),
            ("length", self.length.is_some()),
            ("order", self.order.is_some()),
            ("bit", self.bit.is_some()),
            ("mask", self.mask.is_some()),
            ("scale", self.scale.is_some()),
            ("offset", self.offset.is_some()),
            ("values", self.values.is_some()),
        ];
        keys.into_iter().filter(|(_, is_there)| *is_there).map(|(key, _)| key)
    }
}

impl FieldConfig {
    /// The column's type.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        match self {
            Self::Type(field_type) => *field_type,
            Self::At(field) => match BinaryField::new(field) {
                Ok(binary_field) => binary_field.field_type(),
                Err(_) => field.value_type.column().unwrap_or(FieldType::Int64),
            },
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        if let Self::At(at) = self { at.path.as_ref() } else { None }
    }

    fn field(&self, name: &str) -> Field {
        let (path, time) = match self {
            Self::Type(_) => (None, time_format(None, None, None)),
            Self::At(at) => (at.path.clone(), time_format(at.unit, at.zone, at.format.as_ref())),
        };
        let path = path.unwrap_or_else(|| Path::of_key(name));
        Field { name: name.to_owned(), field_type: self.field_type(), path, time }
    }
}

fn time_format(unit: Option<TimeUnit>, zone: Option<Zone>, format: Option<&TextFormat>) -> TimeFormat {
    TimeFormat { numbers: Numbers::Unit(unit.unwrap_or_default()), zone, format: format.cloned() }
}

// Derived, an untagged enum would only say that none of its variants fits, and not which key of a table is
// wrong.
impl<'de> Deserialize<'de> for TsConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a path such as \"time\", or { path = \"time\", unit = \"ms\" }";
        deserializer.deserialize_any(TextOrTable { expected, text: Self::Path, table: Self::At })
    }
}

impl<'de> Deserialize<'de> for FieldConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected =
            "a type such as \"float64\", or { type = \"float64\", path = \"sensors.temperature\" }";
        deserializer.deserialize_any(TextOrTable { expected, text: Self::Type, table: Self::At })
    }
}

/// Reads text with the one, and a table with the other.
struct TextOrTable<A, B, T> {
    expected: &'static str,
    text: fn(A) -> T,
    table: fn(B) -> T,
}

impl<'de, A: Deserialize<'de>, B: Deserialize<'de>, T> Visitor<'de> for TextOrTable<A, B, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        A::deserialize(text.into_deserializer()).map(self.text)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
        B::deserialize(MapAccessDeserializer::new(map)).map(self.table)
    }
}
