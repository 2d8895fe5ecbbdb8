//! What must hold for payloads beyond the types of their keys.

use tidegate_core::TS;
use tidegate_core::diagnostic::did_you_mean;

use super::binary::{BinaryField, ValueType};
use super::csv::CsvFormat;
use super::nmea::NAMES;
use super::payload::{FieldAt, FieldConfig, PayloadConfig, TsAt, TsConfig};
use super::{Format, Path, TextFormat, TimeUnit};
use crate::table::{At, Review};

impl PayloadConfig {
    /// Says what is wrong with the names of fields.
    pub(crate) fn check_fields(&self, review: &mut Review<'_>) {
        if let Some(fields) = &self.fields {
            let instead = "leave `fields` out to have the columns inferred from the data";
            check_fields(fields.keys(), instead, review);
        }
    }

    /// Says what the format does not go with.
    pub(crate) fn check_format(&self, review: &mut Review<'_>) {
        if self.pattern.is_some() && self.format != Format::Regex {
            let message =
                format!("`pattern` is for the format `regex`, and this is `{}`", self.format.name());
            review.error(
                At::key(&["pattern"]),
                message,
                "leave it out, or write `format = \"regex\"`".to_owned(),
            );
        }
        self.check_binary_fields(review);
        if matches!(self.format, Format::Json | Format::Cbor | Format::MsgPack) {
            return;
        }
        let name = self.format.name();
        if self.rows.is_some() {
            let message = format!("`rows` is for nested values, and `{name}` has none");
            review.error(At::key(&["rows"]), message, "leave it out".to_owned());
        }
        if self.numbers_as_text {
            let message = match self.format {
                Format::Layout => format!("in `{name}` there are numbers, and no texts"),
                _ => format!("in `{name}` everything is text, and numbers are read from it"),
            };
            review.error(At::key(&["numbers_as_text"]), message, "leave it out".to_owned());
        }
        match self.format {
            Format::Raw => self.check_raw(review),
            Format::Csv(CsvFormat { header: false, .. }) => self.check_positions(review),
            Format::Regex => self.check_pattern(review),
            Format::Nmea(_) => self.check_sentence(review),
            _ => {}
        }
    }

    /// Says what is wrong with the places of values in bytes, also where there should be none.
    fn check_binary_fields(&self, review: &mut Review<'_>) {
        let is_layout = self.format == Format::Layout;
        if is_layout && self.fields.is_none() {
            let help = "add `fields = { net = { at = 2, type = \"int16\", scale = 0.1 } }`".to_owned();
            review.absence(At::Table, "a layout is what its `fields` say, and there are none", help);
        }
        if is_layout && self.ts.is_some() {
            let help = "leave it out: rows have the time of arrival".to_owned();
            review.error(At::key(&["ts"]), "a layout has no place for a time", help);
        }
        for (name, field) in self.fields.iter().flatten() {
            let at = |key: &str| At::key(&["fields", name, key]);
            let field = match field {
                FieldConfig::At(field) => field,
                FieldConfig::Type(field_type) if is_layout => {
                    let help = format!("write `{name} = {{ at = 0, type = \"{field_type}\" }}`");
                    review.error(At::key(&["fields", name]), "a layout has to know the first byte", help);
                    continue;
                }
                FieldConfig::Type(_) => continue,
            };
            if is_layout {
                if let Err((key, why)) = BinaryField::new(field) {
                    let what = format!("`{name}` cannot be read: {why}");
                    if field.keys().any(|known| known == key) || key == "type" {
                        review.error(at(key), what, None);
                    } else {
                        review.absence(At::value(&["fields", name]), what, None);
                    }
                }
                if field.path.is_some() {
                    let help = "leave `path` out, `at` says where it is".to_owned();
                    review.error(at("path"), "bytes have no names", help);
                }
                continue;
            }
            if let Some(key) = field.keys().next() {
                let what = format!("`{key}` is for bytes, and the format is `{}`", self.format.name());
                review.error(at(key), what, "write `format = \"layout\"`, or leave it out".to_owned());
            }
            if field.value_type.column().is_none() {
                let help = "columns are bool, int64, float64, utf8, timestamp or bytes".to_owned();
                review.error(at("type"), "this is a type of bytes in a `layout`", help);
            }
        }
    }

    /// Says what is wrong with a regular expression and the fields that it is to give.
    fn check_pattern(&self, review: &mut Review<'_>) {
        let example = "write it with named groups, such as '^(?<net>[0-9.]+) (?<unit>kg|g)$'";
        let Some(pattern) = &self.pattern else {
            let what = "the format `regex` needs a `pattern`";
            return review.absence(At::Table, what, example.to_owned());
        };
        let groups: Vec<&str> = pattern.groups().collect();
        if groups.is_empty() {
            return review.error(At::value(&["pattern"]), "it has no named groups", example.to_owned());
        }
        let mut check = |keys: &[&str], path: &Path| {
            let name = path.to_string();
            if !groups.contains(&name.as_str()) {
                let help = did_you_mean(&name, &groups);
                let help = help.unwrap_or_else(|| format!("its groups are {}", groups.join(", ")));
                review.absence(At::value(keys), format!("the pattern has no group `{name}`"), help);
            }
        };
        for (name, field) in self.fields.iter().flatten() {
            check(&["fields", name], field.path().unwrap_or(&Path::of_key(name)));
        }
        if let Some((path, _)) = self.ts.as_ref().map(TsConfig::place) {
            check(&["ts"], &path);
        }
    }

    /// Says what no sentence has.
    fn check_sentence(&self, review: &mut Review<'_>) {
        for (name, field) in self.fields.iter().flatten() {
            let path = field.path().cloned().unwrap_or_else(|| Path::of_key(name));
            let is_known = match path.names() {
                [one] => one.parse::<u8>().is_ok() || NAMES.contains(&one.as_str()),
                _ => false,
            };
            if !is_known {
                let help = format!(
                    "write the position of the value: `{name} = {{ type = \"float64\", path = \"7\" }}`; \
                    \"0\" is the address. Or one of {}",
                    NAMES.join(", ")
                );
                let what = format!("a sentence has no value called `{path}`");
                review.absence(At::value(&["fields", name]), what, help);
            }
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
            review.absence(At::Table, what, help.to_owned());
        }
        for (name, field) in self.fields.iter().flatten() {
            if !field.path().is_some_and(is_position) {
                let what = format!("lines without a header have no value called `{name}`");
                review.absence(At::value(&["fields", name]), what, help.to_owned());
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
            let FieldConfig::At(FieldAt { value_type, unit, zone, format, .. }) = field else { continue };
            check_unit(*unit, format.as_ref(), &["fields", name], review);
            let keys = [("unit", unit.is_some()), ("zone", zone.is_some()), ("format", format.is_some())];
            for (key, _) in
                keys.into_iter().filter(|(_, there)| *there && *value_type != ValueType::Timestamp)
            {
                let field_type = field.field_type();
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
