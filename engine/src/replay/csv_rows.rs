//! A CSV recording: each line as a JSON object, so that all recordings are decoded in one way.

use std::io::BufRead;

use serde_json::{Map, Value};
use tidegate_core::{Diagnostic, FieldType, TS};

use super::fault::{Fault, Written, no_time};
use super::lines::{cannot_read, place};
use crate::rules::tables::other_separator;

/// Reads a CSV file with a header.
pub(super) struct CsvRows {
    file: String,
    reader: csv::Reader<Box<dyn BufRead>>,
    /// the columns' names
    pub header: Vec<String>,
    /// columns that hold text, whatever it looks like: `007` is no number there
    texts: Vec<bool>,
    /// columns that hold numbers
    numbers: Vec<bool>,
    /// whether a number had a decimal comma
    pub has_decimal_commas: bool,
    record: csv::StringRecord,
    json: String,
}

impl CsvRows {
    /// Reads the header.
    pub(super) fn new(file: &str, reader: Box<dyn BufRead>) -> Result<Self, Diagnostic> {
        let mut reader = csv::Reader::from_reader(reader);
        let header = reader.headers().map_err(|error| wrong(file, &error))?.clone();
        let header: Vec<String> =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        check_header(&header).map_err(|fault| fault.into_diagnostic(file, 1))?;
        let (texts, numbers) = (Vec::new(), Vec::new());
        let (record, json) = (csv::StringRecord::new(), String::new());
        Ok(Self {
            file: file.to_owned(),
            reader,
            header,
            texts,
            numbers,
            has_decimal_commas: false,
            record,
            json,
        })
    }

    /// The columns have these types.
    pub(super) fn know(&mut self, fields: &[(String, FieldType)]) {
        let has = |name: &String, kinds: &[FieldType]| {
            fields.iter().any(|(field, kind)| field == name && kinds.contains(kind))
        };
        // A time may have more digits than the float that its cell would become.
        let as_written = |name: &String| {
            name == TS || has(name, &[FieldType::Utf8, FieldType::Timestamp, FieldType::Bytes])
        };
        self.texts = self.header.iter().map(as_written).collect();
        self.numbers =
            self.header.iter().map(|name| has(name, &[FieldType::Int64, FieldType::Float64])).collect();
    }

    pub(super) fn next(&mut self) -> Result<Option<Written<'_>>, Diagnostic> {
        match self.reader.read_record(&mut self.record) {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(error) => return bad_record(&self.file, &error),
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        let mut row = Map::new();
        for ((at, name), cell) in self.header.iter().enumerate().zip(&self.record) {
            let cell = cell.trim();
            let is = |columns: &[bool]| columns.get(at).copied().unwrap_or(false);
            self.has_decimal_commas |= is(&self.numbers) && has_decimal_comma(cell);
            let value = if is(&self.texts) && !cell.is_empty() { Value::from(cell) } else { value(cell) };
            row.insert(name.clone(), value);
        }
        self.json = Value::Object(row).to_string();
        Ok(Some((line, Ok(self.json.as_bytes()))))
    }
}

/// A line with too many or too few cells costs itself; a file that cannot be read any more ends the replay.
fn bad_record(file: &str, error: &csv::Error) -> Result<Option<Written<'static>>, Diagnostic> {
    let line = error.position().map_or(0, csv::Position::line);
    let why = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the line has {len} cells, and the header {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "the line is not UTF-8 text".to_owned(),
        _ => return Err(wrong(file, error)),
    };
    Ok(Some((line, Err(Fault::new(why)))))
}

fn check_header(header: &[String]) -> Result<(), Fault> {
    if let Some((why, help)) = other_separator(header) {
        return Err(Fault::new(why).help(help));
    }
    if let Some(twice) =
        header.iter().enumerate().find(|(at, name)| header.iter().take(*at).any(|other| other == *name))
    {
        return Err(Fault::new(format!("two columns are called `{}`", twice.1)));
    }
    if !header.iter().any(|name| name == TS) {
        let names: Vec<&str> = header.iter().map(String::as_str).collect();
        return Err(no_time(&names));
    }
    Ok(())
}

/// A cell: empty is null; numbers, `true` and `false` are themselves; all else is text.
fn value(cell: &str) -> Value {
    match cell {
        "" => Value::Null,
        "true" | "TRUE" | "True" => Value::Bool(true),
        "false" | "FALSE" | "False" => Value::Bool(false),
        _ if cell.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            let float = || cell.parse::<f64>().map(Value::from);
            cell.parse::<i64>().map(Value::from).or_else(|_| float()).unwrap_or_else(|_| Value::from(cell))
        }
        _ => Value::from(cell),
    }
}

/// Whether this is a number as spreadsheets write it in half of Europe: `79,5`.
fn has_decimal_comma(cell: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = cell.strip_prefix('-').unwrap_or(cell);
    unsigned.split_once(',').is_some_and(|(whole, fraction)| digits(whole) && digits(fraction))
}

fn wrong(file: &str, error: &csv::Error) -> Diagnostic {
    if let csv::ErrorKind::Io(error) = error.kind() {
        return cannot_read(file, error);
    }
    let line = error.position().map(|position| place(position.line(), 1));
    Diagnostic::new(file, format!("not good CSV: {error}")).at(line)
}
