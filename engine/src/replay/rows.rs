//! Recorded rows of one stream: JSON Lines or CSV, with the stream's column names as keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::de::IgnoredAny;
use tidegate_connectors::codec::{Decoder, Fields, Layout};
use tidegate_core::diagnostic::nearest;
use tidegate_core::{Diagnostic, FieldType, TS};

use super::chunk::{BATCH, Chunk, Origin};
use super::csv_rows::CsvRows;
use super::fault::{Fault, Written};
use super::lines::{Lines, Opened, Reading, is_standard_input};
use super::tally::Tally;
use super::times;

/// Rows of JSON Lines whose keys are looked at: a name that is written wrong is written wrong in the first of
/// them.
const KEYS_LOOKED_AT: u64 = 1_000;

/// Reads recorded rows.
pub(super) struct RecordedRows {
    source: Source,
    decoder: Decoder,
    schema: SchemaRef,
    names: Names,
    pub tally: Tally,
    pub reading: Reading,
}

impl RecordedRows {
    /// Opens the recording `path` of `stream`. When the stream's columns are not declared, the file is read
    /// once to infer them.
    pub(super) fn open(stream: &str, path: &Path, declared: Option<&SchemaRef>) -> Result<Self, Diagnostic> {
        let file = path.display().to_string();
        let fields = match declared {
            Some(schema) => fields_of(schema),
            None => infer(stream, path)?,
        };
        let layout = Layout::recorded(&fields);
        let mut decoder =
            Decoder::new(&layout).map_err(|error| Diagnostic::new(&*file, error.to_string()))?;
        let schema = decoder.schema();
        let opened = Opened::new(path)?;
        let reading = opened.reading.clone();
        let mut source = Source::new(path, &file, opened)?;
        let tally = Tally::new(stream, &file);
        let declared = declared.map(|_| fields.iter().map(|(name, _)| name.clone()).collect());
        let mut names = Names { declared, said: BTreeSet::new() };
        if let Source::Csv(csv) = &mut source {
            csv.know(&fields);
            names.look_at(&csv.header, &tally);
        }
        Ok(Self { source, decoder, schema, names, tally, reading })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows, as many as are decoded at a time.
    pub(super) fn read(&mut self) -> Result<Option<Chunk>, Diagnostic> {
        let mut lines = Vec::new();
        while self.decoder.rows() < BATCH {
            let is_json = matches!(self.source, Source::Json(_));
            let Some((line, json)) = self.source.next()? else { break };
            let decode =
                |json| self.decoder.decode(json, &[], 0).map_err(|error| Fault::in_row(&error, json));
            let keys = |json: &&[u8]| serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(json).ok();
            let keys =
                json.as_ref().ok().filter(|_| is_json && self.tally.rows < KEYS_LOOKED_AT).and_then(keys);
            match json.and_then(decode) {
                Ok(rows) => {
                    lines.extend(std::iter::repeat_n(line, rows));
                    self.tally.rows += rows as u64;
                    if let Some(keys) = keys {
                        self.names.look_at(&keys.into_keys().collect::<Vec<_>>(), &self.tally);
                    }
                }
                // If not even the first row is one, this is no recording.
                Err(fault) if self.tally.is_new() => {
                    return Err(fault.into_diagnostic(&self.tally.file, line));
                }
                Err(fault) => self.tally.leave_out(line, &fault.why),
            }
            if let Some(findings) = self.decoder.take_findings() {
                let hint =
                    if self.source.has_decimal_commas() { "; write the decimal point as `.`" } else { "" };
                self.tally.note(findings, line, hint);
            }
        }
        let Some(rows) = self.decoder.finish() else { return Ok(None) };
        let origins = times(&rows).iter().zip(lines).map(|(ts, line)| Origin::new(*ts, line)).collect();
        Ok(Some(Chunk::new(&mut self.tally, rows, origins)))
    }
}

enum Source {
    Json(Lines),
    Csv(Box<CsvRows>),
}

impl Source {
    fn new(path: &Path, file: &str, mut opened: Opened) -> Result<Self, Diagnostic> {
        let is_csv = match path.extension() {
            Some(extension) => extension.eq_ignore_ascii_case("csv"),
            None => is_standard_input(path) && opened.first_byte(file)?.is_some_and(|first| first != b'{'),
        };
        if is_csv {
            return Ok(Self::Csv(Box::new(CsvRows::new(file, opened.reader)?)));
        }
        Ok(Self::Json(Lines::new(file, opened.reader)))
    }

    fn next(&mut self) -> Result<Option<Written<'_>>, Diagnostic> {
        match self {
            Self::Json(lines) => Ok(lines.next()?.map(|(line, json)| (line, Ok(json)))),
            Self::Csv(csv) => csv.next(),
        }
    }

    fn has_decimal_commas(&self) -> bool {
        matches!(self, Self::Csv(csv) if csv.has_decimal_commas)
    }
}

/// The columns of a stream, next to those of its recording.
struct Names {
    /// what the stream declares; `None`: whatever the recording has is a column
    declared: Option<BTreeSet<String>>,
    /// those of the recording that the stream does not have
    said: BTreeSet<String>,
}

impl Names {
    /// Says which of `names` are no columns of the stream: a column whose name is written wrong is null in
    /// every row.
    fn look_at(&mut self, names: &[String], tally: &Tally) {
        let Some(declared) = &self.declared else { return };
        for name in names.iter().filter(|name| *name != TS && !declared.contains(*name)) {
            if !self.said.insert(name.clone()) {
                continue;
            }
            let missing =
                declared.iter().map(String::as_str).filter(|known| !names.iter().any(|name| name == known));
            let advice = match nearest(name, missing) {
                Some(meant) => format!("did you mean `{meant}`? There is no `{meant}`, so it is null"),
                None => "it is not read".to_owned(),
            };
            let (stream, file) = (&tally.stream, &tally.file);
            tracing::warn!(
                %stream,
                %file,
                "the recording has a column `{name}` that the stream does not have; {advice}"
            );
        }
    }
}

pub(super) fn fields_of(schema: &SchemaRef) -> Vec<(String, FieldType)> {
    let fields = schema.fields().iter().filter(|field| field.name() != TS);
    fields
        .filter_map(|field| Some((field.name().clone(), FieldType::from_arrow(field.data_type())?)))
        .collect()
}

/// The columns of all rows of a file, in the order in which they are first seen.
fn infer(stream: &str, path: &Path) -> Result<Vec<(String, FieldType)>, Diagnostic> {
    let file = path.display().to_string();
    if is_standard_input(path) {
        return Err(read_only_once(stream));
    }
    let layout = Layout { fields: Fields::Inferred(Vec::new()), ..Layout::recorded(&[]) };
    let mut decoder = Decoder::new(&layout).map_err(|error| Diagnostic::new(&*file, error.to_string()))?;
    let mut source = Source::new(path, &file, Opened::new(path)?)?;
    while let Some((_, json)) = source.next()? {
        if let Ok(json) = json {
            // What is wrong with it is said when the row is read for its values.
            let _ = decoder.decode(json, &[], 0);
        }
        if decoder.rows() >= BATCH {
            drop(decoder.finish());
        }
    }
    Ok(fields_of(&decoder.schema()))
}

/// Columns are inferred first, and values read after that.
pub(super) fn read_only_once(stream: &str) -> Diagnostic {
    let why = format!("the columns of `{stream}` are not declared, and standard input can be read only once");
    Diagnostic::new("-", why)
        .help(format!("declare `fields` in [streams.{stream}], or write the recording to a file"))
}
