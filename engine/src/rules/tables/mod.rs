//! Reference tables: files that rules look things up in.
//!
//! # What holds
//! * A file is read whole, and its content takes the place of what was there, between two batches: the change
//!   is an entry of the sequence, as a change of the rules is.
//! * A file that cannot be read, or whose values do not fit, changes nothing: the content that was there
//!   stays, and the file is reported.
//! * The journal names a content, which the buffer keeps for as long as it can be asked for: so what is run
//!   again after a crash sees what was there then.
//!
//! Like the rules directory, files are compared with what is known of them; events of the file system only
//! say that it is worth looking.

mod adoption;
mod csv;
mod parquet;
mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use tidegate_connectors::codec::read_base64;
use tidegate_core::{ByteSize, Diagnostic, FieldType};

use crate::buffer::{Content, pack};
use crate::config::{Config, ReferenceTable, TableKind};
use crate::rules::book::RuleBook;
use crate::sequence::edit::{Edit, Edited};
pub(crate) use adoption::adopt_copies;
pub(crate) use csv::other_separator;

/// What a value costs beside the text in it.
const BYTES_A_CELL: u64 = 8;

/// The files of the tables, and what is known of them.
#[derive(Default)]
pub struct TableFiles {
    files: BTreeMap<Arc<str>, Watched>,
}

struct Watched {
    settings: ReferenceTable,
    /// `None`: not looked at yet
    seen: Option<Vec<Option<Stamp>>>,
    /// what is wrong with the file
    wrong: Option<Diagnostic>,
}

/// What tells a changed file without reading it.
type Stamp = (u64, u64, i64, i64);

impl TableFiles {
    /// The tables of `config`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let watched =
            |settings: &ReferenceTable| Watched { settings: settings.clone(), seen: None, wrong: None };
        let files =
            config.tables.iter().map(|(name, settings)| (Arc::from(name.as_str()), watched(settings)));
        Self { files: files.collect() }
    }

    /// The directories that the files are in.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.files.values().filter_map(|file| file.settings.path.parent())
    }

    /// The names of the files, without their directories.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.values().filter_map(|file| file.settings.path.file_name()?.to_str())
    }

    /// What is wrong with the files.
    pub fn wrong(&self) -> impl Iterator<Item = &Diagnostic> {
        self.files.values().filter_map(|file| file.wrong.as_ref())
    }

    /// Reads the files that have changed since they were looked at, except for those that are `busy` being
    /// written. What is wrong with one is logged, unless `quiet`.
    pub fn look(&mut self, book: &mut RuleBook, busy: &dyn Fn(&Path) -> bool, quiet: bool) -> Vec<Edited> {
        let mut edited = Vec::new();
        for (name, file) in &mut self.files {
            let stamps = stamps(&file.settings);
            if file.seen.as_ref() == Some(&stamps) || busy(&file.settings.path) {
                continue;
            }
            file.seen = Some(stamps);
            match read(&file.settings)
                .and_then(|rows| change(name, rows, book).map_err(|error| unpackable(&file.settings, &error)))
            {
                Ok(changed) => {
                    let was_wrong = file.wrong.take().is_some();
                    if was_wrong && changed.is_none() && !quiet {
                        tracing::info!(
                            table = %name,
                            "the table's file is right again; it holds what it held before"
                        );
                    }
                    edited.extend(changed);
                }
                Err(wrong) => {
                    if !quiet {
                        let keeps = if book.table(name).is_some() {
                            "what it held before stays"
                        } else {
                            "rules that read it do not run"
                        };
                        tracing::error!(table = %name, "{wrong} ({keeps})");
                    }
                    file.wrong = Some(wrong);
                }
            }
        }
        edited
    }
}

/// Table `name` holds `rows` from now on. `None`: it does already.
///
/// # Errors
/// When they cannot be packed for the journal. Nothing has changed then.
pub fn change(name: &Arc<str>, rows: RecordBatch, book: &mut RuleBook) -> Result<Option<Edited>, ArrowError> {
    if book.table(name).is_some_and(|known| *known == rows) {
        return Ok(None);
    }
    let content = Content::new(pack(std::slice::from_ref(&rows))?);
    tracing::info!(table = %name, rows = rows.num_rows(), "the table is loaded");
    Ok(Some(Edited {
        edit: Some(Edit::Table { name: name.to_string(), content }),
        changes: book.set_table(name, rows),
    }))
}

fn unpackable(settings: &ReferenceTable, error: &ArrowError) -> Diagnostic {
    let what = format!("the table cannot be kept for a restart: {error}");
    Diagnostic::new(settings.path.display().to_string(), what)
        .help("leave out columns that no rule reads, or declare the others in `fields`".to_owned())
}

fn stamps(settings: &ReferenceTable) -> Vec<Option<Stamp>> {
    let mut paths = vec![settings.path.clone()];
    if matches!(settings.kind, TableKind::Sqlite { .. }) {
        // What is written to a database may stand in its log for long.
        let mut log = settings.path.clone().into_os_string();
        log.push("-wal");
        paths.push(PathBuf::from(log));
    }
    let stamp = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        Some((
            meta.ino(),
            meta.len(),
            meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec()),
            meta.ctime_nsec(),
        ))
    };
    paths.iter().map(stamp).collect()
}

/// The content of the file.
///
/// # Errors
/// When it cannot be read, is too large, or holds what does not fit the declared columns.
pub fn read(settings: &ReferenceTable) -> Result<RecordBatch, Diagnostic> {
    let file = settings.path.display().to_string();
    let meta = fs::metadata(&settings.path).map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "put the file there, or correct `path`",
            _ => "check its owner and mode with `ls -l`",
        };
        Diagnostic::new(file.clone(), format!("cannot read the table: {error}")).help(help.to_owned())
    })?;
    // Reading a pipe or a device would wait for ever.
    if !meta.is_file() {
        return Err(Diagnostic::new(file, "the table is no file")
            .help("only files, and links to files, are tables".to_owned()));
    }
    // Of a database it is the rows that count.
    if meta.len() > settings.max_size.0 && !matches!(settings.kind, TableKind::Sqlite { .. }) {
        return Err(too_large(&file, settings.max_size));
    }
    match &settings.kind {
        TableKind::Csv => csv::read(&settings.path, settings.fields.as_ref()),
        TableKind::Parquet => parquet::read(&settings.path, settings.fields.as_ref(), settings.max_size),
        TableKind::Sqlite { query } => {
            sqlite::read(&settings.path, query, settings.fields.as_ref(), settings.max_size)
        }
    }
}

fn too_large(file: &str, max_size: ByteSize) -> Diagnostic {
    Diagnostic::new(file, format!("the table is larger than {max_size}")).help(
        "a table is held in memory as a whole; leave out rows and columns that no rule reads, or \
            raise `max_size`"
            .to_owned(),
    )
}

/// A value of a table before it has its column's type.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// nanoseconds since 1970
    Time(i64),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Time(ns) => jiff::Timestamp::from_nanosecond(i128::from(*ns)).unwrap_or_default().fmt(f),
        }
    }
}

impl Cell {
    /// The type that holds it.
    fn field_type(&self) -> Option<FieldType> {
        match self {
            Self::Null => None,
            Self::Bool(_) => Some(FieldType::Bool),
            Self::Int(_) => Some(FieldType::Int64),
            Self::Float(_) => Some(FieldType::Float64),
            Self::Text(_) => Some(FieldType::Utf8),
            Self::Time(_) => Some(FieldType::Timestamp),
        }
    }

    /// The value as one of `field_type`. `None`: it is none.
    fn as_type(&self, field_type: FieldType) -> Option<Self> {
        let cell = match (self, field_type) {
            (Self::Text(text), FieldType::Bytes) => {
                read_base64(text)?;
                self.clone()
            }
            (Self::Null, _)
            | (Self::Bool(_), FieldType::Bool)
            | (Self::Int(_), FieldType::Int64)
            | (Self::Float(_), FieldType::Float64)
            | (Self::Text(_), FieldType::Utf8) => self.clone(),
            (Self::Int(value), FieldType::Float64) => Self::Float(*value as f64),
            (Self::Int(value @ (0 | 1)), FieldType::Bool) => Self::Bool(*value == 1),
            (Self::Text(text), FieldType::Bool) => Self::Bool(text.to_lowercase().parse().ok()?),
            (Self::Text(text), FieldType::Int64) => Self::Int(text.parse().ok()?),
            (Self::Text(text), FieldType::Float64) => Self::Float(text.parse().ok()?),
            (Self::Text(text), FieldType::Timestamp) => {
                Self::Int(i64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()?)
            }
            (Self::Time(ns), FieldType::Timestamp) => Self::Int(*ns),
            (Self::Time(_), FieldType::Utf8) => Self::Text(self.to_string()),
            (Self::Int(value), FieldType::Utf8) => Self::Text(value.to_string()),
            (Self::Float(value), FieldType::Utf8) => Self::Text(value.to_string()),
            (Self::Bool(value), FieldType::Utf8) => Self::Text(value.to_string()),
            _ => return None,
        };
        Some(cell)
    }
}

/// Columns of cells, on their way to a batch.
struct Columns {
    names: Vec<String>,
    cells: Vec<Vec<Cell>>,
}

impl Columns {
    /// The batch: in the declared columns, or in those that are there, each of the narrowest type that holds
    /// all its values. `wrong` makes a diagnostic of a row's index and what is wrong with it.
    fn batch(
        self,
        declared: Option<&BTreeMap<String, FieldType>>,
        wrong: &dyn Fn(Option<usize>, String) -> Diagnostic,
    ) -> Result<RecordBatch, Diagnostic> {
        let rows = self.cells.first().map_or(0, Vec::len);
        let chosen: Vec<(String, &Vec<Cell>, Option<FieldType>)> = match declared {
            None => {
                self.names.iter().cloned().zip(&self.cells).map(|(name, cells)| (name, cells, None)).collect()
            }
            Some(declared) => {
                let find = |(name, field_type): (&String, &FieldType)| {
                    let cells =
                        self.names.iter().position(|known| known == name).and_then(|at| self.cells.get(at));
                    let missing =
                        || wrong(None, format!("there is no column `{name}`, which `fields` declares"));
                    Ok((name.clone(), cells.ok_or_else(missing)?, Some(*field_type)))
                };
                declared.iter().map(find).collect::<Result<_, Diagnostic>>()?
            }
        };
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (name, cells, declared) in chosen {
            let inferred = || {
                cells
                    .iter()
                    .filter_map(Cell::field_type)
                    .reduce(FieldType::widened)
                    .unwrap_or(FieldType::Utf8)
            };
            let field_type = declared.unwrap_or_else(inferred);
            let unfit = |row: usize, cell: &Cell| {
                wrong(
                    Some(row),
                    format!("{cell} in column `{name}` is no {}", format!("{field_type:?}").to_lowercase()),
                )
            };
            let values = cells
                .iter()
                .enumerate()
                .map(|(row, cell)| cell.as_type(field_type).ok_or_else(|| unfit(row, cell)));
            let values = values.collect::<Result<Vec<Cell>, Diagnostic>>()?;
            columns.push(array(field_type, &values));
            fields.push(Field::new(name.as_str(), field_type.data_type(), true));
        }
        RecordBatch::try_new_with_options(
            Arc::new(Schema::new(fields)),
            columns,
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )
        .map_err(|error| wrong(None, error.to_string()))
    }
}

/// The values, which are of this type or null, as a column.
fn array(field_type: FieldType, values: &[Cell]) -> ArrayRef {
    let ints = || values.iter().map(|cell| if let Cell::Int(value) = cell { Some(*value) } else { None });
    match field_type {
        FieldType::Bool => {
            let values =
                values.iter().map(|cell| if let Cell::Bool(value) = cell { Some(*value) } else { None });
            Arc::new(values.collect::<BooleanArray>())
        }
        FieldType::Int64 => Arc::new(ints().collect::<Int64Array>()),
        FieldType::Timestamp => Arc::new(ints().collect::<TimestampNanosecondArray>().with_timezone("UTC")),
        FieldType::Float64 => {
            let values =
                values.iter().map(|cell| if let Cell::Float(value) = cell { Some(*value) } else { None });
            Arc::new(values.collect::<Float64Array>())
        }
        FieldType::Utf8 => {
            let values = values
                .iter()
                .map(|cell| if let Cell::Text(value) = cell { Some(value.as_str()) } else { None });
            Arc::new(values.collect::<StringArray>())
        }
        FieldType::Bytes => {
            let values = values.iter().map(|cell| match cell {
                Cell::Text(text) => read_base64(text),
                _ => None,
            });
            Arc::new(values.collect::<BinaryArray>())
        }
    }
}

#[cfg(test)]
mod tests;
