//! What users write about payloads, whatever carries them: `format`, `rows`, `ts`, `fields`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_core::{FieldType, TS};

use super::csv::CsvFormat;
use super::{
    Decoder, Field, Fields, Layout, Missing, Numbers, Path, TextFormat, TimeFormat, TimeUnit, TsPlace, Zone,
};
use crate::table::{At, Review};

/// The keys of a stream of payloads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayloadConfig {
    /// What the payload is.
    #[serde(default)]
    pub format: Format,
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
        &["format", "rows", "ts", "ts_missing", "numbers_as_text", "fields"];

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
        };
        Decoder::new(&layout).map_err(|error| error.to_string())
    }

    /// Says what is wrong with the names of fields.
    pub(crate) fn check_fields(&self, review: &mut Review<'_>) {
        if let Some(fields) = &self.fields {
            let instead = "leave `fields` out to have the columns inferred from the data";
            check_fields(fields.keys(), instead, review);
        }
    }

    /// Says what the format does not go with.
    pub(crate) fn check_format(&self, review: &mut Review<'_>) {
        if !matches!(self.format, Format::Csv(_) | Format::Raw) {
            return;
        }
        let name = self.format.name();
        if self.rows.is_some() {
            let message = format!("`rows` is for nested values, and `{name}` has none");
            review.error(At::key(&["rows"]), message, "leave it out".to_owned());
        }
        if self.numbers_as_text {
            let message = format!("in `{name}` everything is text, and numbers are read from it");
            review.error(At::key(&["numbers_as_text"]), message, "leave it out".to_owned());
        }
        match self.format {
            Format::Raw => self.check_raw(review),
            Format::Csv(CsvFormat { header: false, .. }) => self.check_positions(review),
            _ => {}
        }
    }

    fn check_raw(&self, review: &mut Review<'_>) {
        if self.ts.is_some() {
            let help = "leave it out: rows have the time of arrival".to_owned();
            review.error(At::key(&["ts"]), "a `raw` payload is one value, and has no place for a time", help);
        }
        let Some(fields) = &self.fields else { return };
        if fields.len() > 1 {
            let help = "declare one field, or another `format`".to_owned();
            review.error(At::key(&["fields"]), "a `raw` payload is one value, and so one field", help);
        }
        for (name, _) in fields.iter().filter(|(_, field)| field.path().is_some()) {
            let help = "leave `path` out".to_owned();
            review.error(At::key(&["fields", name, "path"]), "a `raw` payload has no places in it", help);
        }
    }

    /// Without a header, values have no names.
    fn check_positions(&self, review: &mut Review<'_>) {
        let help = "write `format = { csv = { header = true } }` if the first line of a payload has names, \
            or else the position of each value: `fields = { level = { type = \"float64\", path = \"0\" } }`";
        let is_position =
            |path: &Path| matches!(path.names(), [position] if position.parse::<usize>().is_ok());
        if self.fields.is_none() {
            let what =
                "lines without a header do not say what their values are, and no `fields` are declared";
            review.error(At::value(&["format"]), what, help.to_owned());
        }
        for (name, field) in self.fields.iter().flatten() {
            if !field.path().is_some_and(is_position) {
                let what = format!("lines without a header have no value called `{name}`");
                review.error(At::key(&["fields", name]), what, help.to_owned());
            }
        }
        let ts = self.ts.as_ref().map(TsConfig::place);
        if ts.is_some_and(|(path, _)| !is_position(&path)) {
            review.error(
                At::value(&["ts"]),
                "lines without a header have no value of this name",
                help.to_owned(),
            );
        }
    }

    /// Says what is wrong with times: where there are none, and what contradicts itself.
    pub(crate) fn check_times(&self, review: &mut Review<'_>) {
        if self.ts_missing.is_some() && self.ts.is_none() {
            let help =
                "name the place of the time, such as `ts = \"time\"`, or leave `ts_missing` out".to_owned();
            let message =
                format!("`ts_missing` is for rows without their time, and {} declares no `ts`", review.title);
            review.error(At::key(&["ts_missing"]), message, help);
        }
        if let Some(TsConfig::At(TsAt { unit, format, .. })) = &self.ts {
            check_unit(*unit, format.as_ref(), &["ts"], review);
        }
        for (name, field) in self.fields.iter().flatten() {
            let FieldConfig::At(FieldAt { field_type, unit, zone, format, .. }) = field else { continue };
            check_unit(*unit, format.as_ref(), &["fields", name], review);
            let keys = [("unit", unit.is_some()), ("zone", zone.is_some()), ("format", format.is_some())];
            for (key, _) in
                keys.into_iter().filter(|(_, there)| *there && *field_type != FieldType::Timestamp)
            {
                let help = format!("write `type = \"timestamp\"`, or leave `{key}` out");
                let message = format!("`{key}` is for times, and `{name}` is {field_type}");
                review.error(At::key(&["fields", name, key]), message, help);
            }
        }
    }
}

fn check_unit(unit: Option<TimeUnit>, format: Option<&TextFormat>, at: &[&str], review: &mut Review<'_>) {
    if unit.is_some() && format.is_some() {
        let help = "`format` says how numbers are written, too: leave `unit` out, or `format`".to_owned();
        let at = At::key(&[at, &["unit"]].concat());
        review.error(at, "`unit` and `format` contradict each other", help);
    }
}

/// Says what is wrong with the names of declared fields; `instead` is the advice when there are none.
pub fn check_fields<'a>(fields: impl Iterator<Item = &'a String>, instead: &str, review: &mut Review<'_>) {
    if review.written_empty.iter().any(|key| key == "fields") {
        let message = format!("`fields` is empty in {}", review.title);
        review.error(At::key(&["fields"]), message, instead.to_owned());
    }
    for name in fields {
        let at = At::key(&["fields", name]);
        if name == TS {
            let help = "every row has `ts`, its event time, already; leave it out here, or give the value \
                another name"
                .to_owned();
            review.error(at, "a field must not be called `ts`", help);
        } else if name.is_empty() {
            review.error(at, "a field's name is empty", None);
        }
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
#[serde(rename_all = "lowercase")]
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
    MsgPack,
}

/// The format that has settings.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FormatSettings {
    /// lines of values
    csv: CsvFormat,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Json => Self::Json,
            FormatName::Csv => Self::Csv(CsvFormat::default()),
            FormatName::Raw => Self::Raw,
            FormatName::Cbor => Self::Cbor,
            FormatName::MsgPack => Self::MsgPack,
        }
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a format such as \"json\", or { csv = { header = true } }";
        let table = |FormatSettings { csv }| Self::Csv(csv);
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
    fn place(&self) -> (Path, TimeFormat) {
        match self {
            Self::Path(path) => (path.clone(), time_format(None, None, None)),
            Self::At(TsAt { path, unit, zone, format }) => {
                (path.clone(), time_format(*unit, *zone, format.as_ref()))
            }
        }
    }
}

/// A declared column: its type, or `{ type = "float64", path = "sensors.temperature" }`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum FieldConfig {
    /// the type; the value is found under the column's own name
    Type(FieldType),
    /// with the place of the value
    At(FieldAt),
}

/// `{ type = "float64", path = "sensors.temperature" }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldAt {
    /// type
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// where the value is; absent: under the column's own name
    pub path: Option<Path>,
    /// of a `timestamp`: unit of numbers since 1970-01-01T00:00:00Z; absent: milliseconds
    pub unit: Option<TimeUnit>,
    /// of a `timestamp`: time zone of text that names none
    pub zone: Option<Zone>,
    /// of a `timestamp`: how it is written, as strptime has it
    pub format: Option<TextFormat>,
}

impl FieldConfig {
    /// The column's type.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        match self {
            Self::Type(field_type) => *field_type,
            Self::At(at) => at.field_type,
        }
    }

    fn path(&self) -> Option<&Path> {
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
