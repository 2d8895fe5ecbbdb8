//! Rows as JSON Lines or CSV.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use tidegate_connectors::codec::{Encoder, write_value};

use crate::buffer::inspect::{Inspector, Portion, Reader, Source};
use crate::cli::Failure;
use crate::uplinks::{Payloads, corrected};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    JsonLines,
    Csv,
}

impl FileFormat {
    /// By the file's name.
    pub(super) fn from_path(output: &Path) -> Result<Self, Failure> {
        let extension = output.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("jsonl") => Ok(Self::JsonLines),
            Some("csv") => Ok(Self::Csv),
            None if output == Path::new("-") => Ok(Self::JsonLines),
            _ => Err(Failure::Failed(anyhow::anyhow!(
                "{} does not say how to write rows: name it FILE.jsonl or FILE.csv",
                output.display()
            ))),
        }
    }
}

/// When rows came that are wanted, in nanoseconds since 1970.
pub(super) struct Between {
    /// this or later
    pub(super) since: Option<i64>,
    /// before this
    pub(super) until: Option<i64>,
}

impl Between {
    /// Rows of which nobody knows when they came are wanted, too.
    fn has(&self, portion: &Portion) -> bool {
        let Some(at) = portion.at_ns else { return true };
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// Writes all rows of `source` to `output`. Returns how many, and how many blocks could not be read.
pub(super) fn export(
    inspector: &Inspector,
    source: &Source,
    name: Option<&str>,
    between: &Between,
    output: &Path,
    format: FileFormat,
) -> Result<(u64, u64), Failure> {
    let (columns, clock) = match format {
        FileFormat::JsonLines => (Vec::new(), false),
        FileFormat::Csv => columns(inspector, source)?,
    };
    let mut reader = Reader::new(inspector, source.clone(), u64::MAX, false)?;
    let out: Box<dyn Write> =
        if output == Path::new("-") { Box::new(io::stdout().lock()) } else { Box::new(create(output)?) };
    let out = BufWriter::new(out);
    let rows = match format {
        FileFormat::JsonLines => {
            let mut lines = JsonLines::for_files(out, name, source);
            while let Some(portion) = reader.read()? {
                if between.has(&portion) {
                    lines.write(&portion)?;
                }
            }
            lines.finish()?;
            lines.rows()
        }
        FileFormat::Csv => {
            let mut table = Table::new(out, name, source, columns, clock)?;
            while let Some(portion) = reader.read()? {
                if between.has(&portion) {
                    table.write(&portion)?;
                }
            }
            table.out.flush()?;
            table.rows
        }
    };
    Ok((rows, reader.unreadable()))
}

fn create(output: &Path) -> Result<File, Failure> {
    File::create(output)
        .map_err(|error| Failure::Failed(anyhow::anyhow!("cannot write {}: {error}", output.display())))
}

/// Rows, one JSON object a line.
pub(super) struct JsonLines<W> {
    out: W,
    shape: Shape,
    line: Vec<u8>,
    rows: u64,
}

/// What a line looks like.
enum Shape {
    /// `{"id":..,"rule":..,"row":{..}}`
    Rule(Payloads),
    /// `{"seq":..,"stream":..,"row":{..}}`
    Stream(Option<(SchemaRef, Encoder)>),
    /// `{..}`, as recordings have it
    Recording(Option<(SchemaRef, Encoder)>),
}

impl<W: Write> JsonLines<W> {
    /// For a person: each row says what it is.
    pub(super) fn new(out: W, name: Option<&str>, source: &Source) -> Self {
        let shape = if matches!(source, Source::Stream(_)) {
            Shape::Stream(None)
        } else {
            Shape::Rule(Payloads::new(name))
        };
        Self { out, shape, line: Vec::new(), rows: 0 }
    }

    /// For a file: rows of streams are nothing but their columns.
    fn for_files(out: W, name: Option<&str>, source: &Source) -> Self {
        let shape = if matches!(source, Source::Stream(_)) {
            Shape::Recording(None)
        } else {
            Shape::Rule(Payloads::new(name))
        };
        Self { out, shape, line: Vec::new(), rows: 0 }
    }

    pub(super) fn write(&mut self, portion: &Portion) -> io::Result<()> {
        let Portion { name, rows, ordinals, written, .. } = portion;
        for row in 0..rows.len() {
            self.line.clear();
            match &mut self.shape {
                Shape::Rule(payloads) => {
                    payloads.write(
                        name,
                        rows,
                        ordinals.get(row).copied().unwrap_or_default(),
                        row,
                        *written,
                        &mut self.line,
                    );
                }
                Shape::Stream(encoder) => {
                    let stream = serde_json::Value::from(&**name);
                    write!(self.line, "{{\"seq\":{},\"stream\":{stream},\"row\":", rows.seqs.get(row))?;
                    encoder_of(encoder, rows.batch.schema_ref()).encode_row(&rows.batch, row, &mut self.line);
                    self.line.push(b'}');
                }
                Shape::Recording(encoder) => {
                    encoder_of(encoder, rows.batch.schema_ref()).encode_row(&rows.batch, row, &mut self.line);
                }
            }
            self.line.push(b'\n');
            self.out.write_all(&self.line)?;
            self.rows += 1;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }
}

fn encoder_of<'a>(known: &'a mut Option<(SchemaRef, Encoder)>, schema: &SchemaRef) -> &'a Encoder {
    let fits = known.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, schema) || known == schema);
    if !fits {
        *known = None;
    }
    &known.get_or_insert_with(|| (Arc::clone(schema), Encoder::new(schema))).1
}

/// All columns of the rows, in the order in which they are first seen: columns come and go with versions of a
/// rule, and streams widen. And whether times had to be corrected.
fn columns(inspector: &Inspector, source: &Source) -> Result<(Vec<String>, bool), Failure> {
    let (mut columns, mut clock): (Vec<String>, bool) = (Vec::new(), false);
    let mut reader = Reader::new(inspector, source.clone(), u64::MAX, false)?;
    while let Some(portion) = reader.read()? {
        clock |= portion.written.and_then(corrected).is_some();
        for field in portion.rows.batch.schema_ref().fields() {
            if !columns.contains(field.name()) {
                columns.push(field.name().clone());
            }
        }
    }
    Ok((columns, clock))
}

/// Rows as CSV.
struct Table<W: Write> {
    out: csv::Writer<W>,
    /// in front of each id; none for rows of streams
    prefix: Option<String>,
    columns: Vec<String>,
    /// whether there are columns for times that had to be corrected
    clock: bool,
    rows: u64,
}

impl<W: Write> Table<W> {
    fn new(
        out: W,
        name: Option<&str>,
        source: &Source,
        columns: Vec<String>,
        clock: bool,
    ) -> Result<Self, Failure> {
        let of_stream = matches!(source, Source::Stream(_));
        let prefix = (!of_stream).then(|| name.map_or_else(String::new, |name| format!("{name}/")));
        let mut out = csv::Writer::from_writer(out);
        if of_stream {
            out.write_record(&columns)?;
        } else {
            let columns = columns.iter().map(|column| format!("row.{column}"));
            let clock = ["clock.written", "clock.behind_ms"].into_iter().filter(|_| clock).map(str::to_owned);
            out.write_record(["id".to_owned(), "rule".to_owned()].into_iter().chain(columns).chain(clock))?;
        }
        Ok(Self { out, prefix, columns, clock, rows: 0 })
    }

    fn write(&mut self, portion: &Portion) -> Result<(), Failure> {
        let Portion { name, rows, ordinals, written, .. } = portion;
        let clock = written
            .and_then(corrected)
            .map(|(written, behind_ms)| (written.to_string(), behind_ms.to_string()));
        let columns: Vec<Option<&ArrayRef>> =
            self.columns.iter().map(|column| rows.batch.column_by_name(column)).collect();
        let (mut record, mut json) = (csv::ByteRecord::new(), Vec::new());
        for row in 0..rows.len() {
            record.clear();
            if let Some(prefix) = &self.prefix {
                let ordinal = ordinals.get(row).copied().unwrap_or_default();
                record.push_field(format!("{prefix}{name}/{}/{ordinal}", rows.seqs.get(row)).as_bytes());
                record.push_field(name.as_bytes());
            }
            for column in &columns {
                json.clear();
                if let Some(column) = column {
                    write_value(column, row, &mut json);
                }
                match json.first() {
                    Some(b'"') => record.push_field(serde_json::from_slice::<String>(&json)?.as_bytes()),
                    _ if json == b"null" => record.push_field(b""),
                    _ => record.push_field(&json),
                }
            }
            if self.clock {
                let (written, behind_ms) =
                    clock.as_ref().map_or(("", ""), |(written, behind_ms)| (written, behind_ms));
                record.push_field(written.as_bytes());
                record.push_field(behind_ms.as_bytes());
            }
            self.out.write_byte_record(&record)?;
            self.rows += 1;
        }
        Ok(())
    }
}
