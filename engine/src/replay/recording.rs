//! Recorded rows: JSON Lines or CSV, with the stream's column names as keys.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};
use tidegate_connectors::json::{Decoder, Fields, Layout};
use tidegate_core::{Diagnostic, FieldType, Place, TS};

use super::times;

/// Rows that are decoded at a time; results do not depend on it.
const BATCH: usize = 1_024;
/// A longer line is no row that a device sent.
const MAX_LINE_BYTES: usize = 16 << 20;

/// One input of a replay.
pub(super) struct Recording {
    pub stream: Arc<str>,
    path: PathBuf,
    lines: Lines,
    decoder: Decoder,
    schema: SchemaRef,
    /// rows that were decoded and not yet taken
    rows: Option<RecordBatch>,
}

impl Recording {
    /// Opens the recording `path` of `stream`. When the stream's columns are not declared, the file is read once to infer them.
    pub(super) fn open(stream: &str, path: &Path, declared: Option<&SchemaRef>) -> Result<Self, Diagnostic> {
        let fields = match declared {
            Some(schema) => fields_of(schema),
            None => infer(path)?,
        };
        let mut decoder =
            Decoder::new(&Layout::recorded(&fields)).map_err(|error| Diagnostic::new(path.display().to_string(), error.to_string()))?;
        let schema = decoder.schema();
        let texts = fields.into_iter().filter(|(_, field_type)| *field_type == FieldType::Utf8).map(|(name, _)| name).collect();
        let lines = Lines { texts, ..Lines::open(path)? };
        Ok(Self { stream: Arc::from(stream), path: path.to_owned(), lines, decoder, schema, rows: None })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The time of the next row.
    pub(super) fn head(&mut self) -> Result<Option<i64>, Diagnostic> {
        if self.rows.is_none() {
            self.rows = self.read()?;
        }
        Ok(self.rows.as_ref().and_then(|rows| times(rows).first().copied()))
    }

    /// Takes the next row, and those behind it for which `mine` is true, as far as they are decoded.
    pub(super) fn take_while(&mut self, mine: impl Fn(i64) -> bool) -> Option<RecordBatch> {
        let rows = self.rows.take()?;
        let count = times(&rows).iter().skip(1).take_while(|ts| mine(**ts)).count() + 1;
        if count < rows.num_rows() {
            self.rows = Some(rows.slice(count, rows.num_rows() - count));
        }
        Some(rows.slice(0, count))
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, Diagnostic> {
        while self.decoder.rows() < BATCH {
            let Some(json) = self.lines.next()? else { break };
            let decoded = self.decoder.decode(json.as_bytes(), &[], 0);
            decoded.map_err(|error| self.lines.wrong(error.to_string()))?;
            if let Some(complaint) = self.decoder.take_complaint() {
                tracing::warn!(file = %self.path.display(), line = self.lines.line, values = complaint.count, first = complaint.first, "values do not fit their columns and are null");
            }
        }
        Ok(self.decoder.finish())
    }
}

fn fields_of(schema: &SchemaRef) -> Vec<(String, FieldType)> {
    let fields = schema.fields().iter().filter(|field| field.name() != TS);
    fields.filter_map(|field| Some((field.name().clone(), FieldType::of(field.data_type())?))).collect()
}

/// The columns of all rows of a file, in the order in which they are first seen.
fn infer(path: &Path) -> Result<Vec<(String, FieldType)>, Diagnostic> {
    let file = path.display().to_string();
    let layout = Layout { fields: Fields::Inferred(Vec::new()), ..Layout::recorded(&[]) };
    let mut decoder = Decoder::new(&layout).map_err(|error| Diagnostic::new(file.clone(), error.to_string()))?;
    let mut lines = Lines::open(path)?;
    while let Some(json) = lines.next()? {
        let decoded = decoder.decode(json.as_bytes(), &[], 0);
        decoded.map_err(|error| lines.wrong(error.to_string()))?;
        if decoder.rows() >= BATCH {
            drop(decoder.finish());
        }
    }
    Ok(fields_of(&decoder.schema()))
}

/// The rows of a file as JSON objects.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// the names of the columns, when the file is CSV
    header: Option<csv::StringRecord>,
    csv: Option<csv::Reader<File>>,
    /// columns of a CSV file that hold text, whatever it looks like: `007` is no number there
    texts: Vec<String>,
    /// number of the line that was read last
    line: u32,
    text: String,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Diagnostic> {
        let cannot = |error: std::io::Error| Diagnostic::new(path.display().to_string(), format!("cannot read the recording: {error}"));
        let mut file = File::open(path).map_err(cannot)?;
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let (mut csv, mut header) = (None, None);
        if is_csv {
            file.seek(SeekFrom::Start(0)).map_err(cannot)?;
            let mut reader = csv::Reader::from_reader(file.try_clone().map_err(cannot)?);
            header = Some(reader.headers().map_err(|error| csv_error(path, &error))?.clone());
            csv = Some(reader);
        }
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), header, csv, texts: Vec::new(), line: 0, text: String::new() })
    }

    /// Something is wrong with the line that was read last.
    fn wrong(&self, why: String) -> Diagnostic {
        Diagnostic::new(self.path.display().to_string(), why).at(Place { line: self.line, column: 1 })
    }

    /// The next row.
    fn next(&mut self) -> Result<Option<&str>, Diagnostic> {
        match (&mut self.csv, &self.header) {
            (Some(csv), Some(header)) => {
                let mut record = csv::StringRecord::new();
                if !csv.read_record(&mut record).map_err(|error| csv_error(&self.path, &error))? {
                    return Ok(None);
                }
                self.line = record.position().map_or(0, |position| u32::try_from(position.line()).unwrap_or(u32::MAX));
                let texts = &self.texts;
                let named = |(name, cell): (&str, &str)| {
                    let is_text = texts.iter().any(|text| text == name.trim()) && !cell.trim().is_empty();
                    (name.trim().to_owned(), if is_text { Value::from(cell.trim()) } else { value(cell) })
                };
                let row: Map<String, Value> = header.iter().zip(&record).map(named).collect();
                self.text = Value::Object(row).to_string();
                Ok(Some(&self.text))
            }
            _ => self.next_json(),
        }
    }

    fn next_json(&mut self) -> Result<Option<&str>, Diagnostic> {
        loop {
            self.text.clear();
            self.line += 1;
            let read = std::io::Read::take(&mut self.reader, MAX_LINE_BYTES as u64).read_line(&mut self.text);
            match read {
                Ok(0) => return Ok(None),
                Ok(MAX_LINE_BYTES) => return Err(self.wrong(format!("the line is longer than {MAX_LINE_BYTES} bytes"))),
                Ok(_) if self.text.trim().is_empty() => {}
                Ok(_) => return Ok(Some(self.text.trim_end())),
                Err(error) => return Err(self.wrong(format!("cannot read the recording: {error}"))),
            }
        }
    }
}

/// A cell of a CSV file: empty is null; numbers, `true` and `false` are themselves; all else is text.
fn value(cell: &str) -> Value {
    let cell = cell.trim();
    match cell {
        "" => Value::Null,
        "true" | "TRUE" | "True" => Value::Bool(true),
        "false" | "FALSE" | "False" => Value::Bool(false),
        _ if cell.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            cell.parse::<i64>().map(Value::from).or_else(|_| cell.parse::<f64>().map(Value::from)).unwrap_or_else(|_| Value::from(cell))
        }
        _ => Value::from(cell),
    }
}

fn csv_error(path: &Path, error: &csv::Error) -> Diagnostic {
    let line = error.position().map(|position| Place { line: u32::try_from(position.line()).unwrap_or(u32::MAX), column: 1 });
    Diagnostic::new(path.display().to_string(), format!("not good CSV: {error}")).at(line)
}
