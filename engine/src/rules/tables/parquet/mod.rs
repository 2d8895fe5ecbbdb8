//! A table in a Parquet file.
//!
//! What the file says of itself is not believed: it is looked at before anything is unpacked, so that a small
//! file which claims to be, or which becomes, much larger than `max_size` is refused, and a damaged one is an
//! error and no end of the box.

mod pages;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimestampNanosecondType};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::CompressionCodec;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tidegate_core::{ByteSize, Diagnostic, FieldType, ts_type};

use super::{BYTES_A_CELL, Cell, Columns, too_large};

/// Rows that are unpacked at a time.
const ROWS: usize = 1_024;

/// Reads the file.
pub(super) fn read(
    path: &Path,
    declared: Option<&BTreeMap<String, FieldType>>,
    max_size: ByteSize,
) -> Result<RecordBatch, Diagnostic> {
    let table = Table { file: path.display().to_string(), max_size };
    let bytes = table.bytes(path)?;
    // The reader is made for files that are whole.
    match catch_unwind(AssertUnwindSafe(|| table.read(bytes, declared))) {
        Ok(read) => read,
        Err(_) => Err(table.damaged("its reader has panicked".to_owned())),
    }
}

struct Table {
    file: String,
    max_size: ByteSize,
}

impl Table {
    fn wrong(&self, what: String) -> Diagnostic {
        Diagnostic::new(self.file.clone(), what)
    }

    fn damaged(&self, why: String) -> Diagnostic {
        let help = "write the file anew, under another name, and rename it when it is whole".to_owned();
        self.wrong(format!("this is no Parquet file, or a damaged one: {why}")).help(help)
    }

    fn bytes(&self, path: &Path) -> Result<Bytes, Diagnostic> {
        let mut bytes = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(self.max_size.0.saturating_add(1)).read_to_end(&mut bytes));
        read.map_err(|error| self.wrong(format!("cannot read the table: {error}")))?;
        if bytes.len() as u64 > self.max_size.0 {
            Err(too_large(&self.file, self.max_size))
        } else {
            Ok(bytes.into())
        }
    }

    fn read(
        &self,
        bytes: Bytes,
        declared: Option<&BTreeMap<String, FieldType>>,
    ) -> Result<RecordBatch, Diagnostic> {
        let damaged = |error: ParquetError| self.damaged(error.to_string());
        // What Arrow's writers add says how to hold a column in memory, which we know better.
        let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let found = ArrowReaderMetadata::load(&bytes, options()).map_err(damaged)?;
        let roots: Vec<(usize, Arc<Field>)> = found.schema().fields().iter().cloned().enumerate().collect();
        let wanted = |field: &Field| declared.is_none_or(|declared| declared.contains_key(field.name()));
        let chosen: Vec<(usize, Arc<Field>)> = roots.into_iter().filter(|(_, field)| wanted(field)).collect();
        for (_, field) in &chosen {
            self.readable(field)?;
        }
        let parts = ProjectionMask::roots(found.parquet_schema(), chosen.iter().map(|(root, _)| *root));
        self.look_at_pages(&bytes, found.metadata(), &parts)?;
        let views: Vec<Field> = found.schema().fields().iter().map(|field| as_view(field)).collect();
        let found = ArrowReaderMetadata::try_new(
            Arc::clone(found.metadata()),
            options().with_schema(Arc::new(Schema::new(views))),
        )
        .map_err(damaged)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, found)
            .with_projection(parts)
            .with_batch_size(ROWS);
        let mut columns = Columns {
            names: chosen.iter().map(|(_, field)| field.name().clone()).collect(),
            cells: vec![Vec::new(); chosen.len()],
        };
        let mut size = 0;
        for batch in reader.build().map_err(damaged)? {
            let batch = batch.map_err(|error| self.damaged(error.to_string()))?;
            for ((column, cells), (_, field)) in batch.columns().iter().zip(&mut columns.cells).zip(&chosen) {
                let rows = || format!("rows {} to {}", cells.len() + 1, cells.len() + column.len());
                let values = held(column)
                    .map_err(|why| self.wrong(format!("{}, column `{}`: {why}", rows(), field.name())))?;
                // Before a text that is there once becomes one for each row.
                size += size_of(&values);
                if size > self.max_size.0 {
                    return Err(too_large(&self.file, self.max_size));
                }
                cells.extend((0..values.len()).map(|row| cell(&values, row)));
            }
        }
        columns.batch(declared, &|row, what| {
            let row = row.map(|row| format!("row {}: ", row + 1)).unwrap_or_default();
            self.wrong(format!("{row}{what}"))
        })
    }

    /// Refuses a column that has no place in a rule.
    fn readable(&self, field: &Field) -> Result<(), Diagnostic> {
        if held_as(field.data_type()).is_some() {
            return Ok(());
        }
        let what = format!("column `{}` is {}, which no rule can read", field.name(), field.data_type());
        Err(self.wrong(what).help("name the other columns in `fields`, each with its type".to_owned()))
    }

    /// Refuses what cannot be unpacked, and what would be too large then.
    fn look_at_pages(
        &self,
        bytes: &[u8],
        metadata: &ParquetMetaData,
        parts: &ProjectionMask,
    ) -> Result<(), Diagnostic> {
        let mut size = 0_u64;
        for group in metadata.row_groups() {
            for (index, column) in
                group.columns().iter().enumerate().filter(|(index, _)| parts.leaf_included(*index))
            {
                let codec = column.compression_codec();
                let known = matches!(
                    codec,
                    CompressionCodec::UNCOMPRESSED
                        | CompressionCodec::SNAPPY
                        | CompressionCodec::GZIP
                        | CompressionCodec::ZSTD
                );
                if !known {
                    let what = format!(
                        "column `{}` is compressed with {codec:?}, which is not read here",
                        column.column_path().string()
                    );
                    return Err(self.wrong(what).help("write the file with snappy, gzip or zstd".to_owned()));
                }
                let (start, length) = column.byte_range();
                let range =
                    usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(length)).ok());
                let unpacked = range.and_then(|(start, end)| pages::unpacked(bytes.get(start..end)?));
                let Some(unpacked) = unpacked else {
                    return Err(self
                        .damaged(format!("the pages of column {} are not where they should be", index + 1)));
                };
                size = size.saturating_add(unpacked);
            }
        }
        if size > self.max_size.0 { Err(too_large(&self.file, self.max_size)) } else { Ok(()) }
    }
}

/// The type in which values of `data_type` are taken out. `None`: no rule can read them.
fn held_as(data_type: &DataType) -> Option<DataType> {
    use DataType::{
        Boolean, Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256, Float16, Float32, Float64,
        Int64, LargeUtf8, Null, Timestamp, Utf8, Utf8View,
    };
    match data_type {
        Null | Boolean => Some(data_type.clone()),
        whole if whole.is_integer() => Some(Int64),
        Float16 | Float32 | Float64 | Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => {
            Some(Float64)
        }
        Utf8 | LargeUtf8 | Utf8View => Some(Utf8View),
        Date32 | Date64 | Timestamp(..) => Some(ts_type()),
        _ => None,
    }
}

/// Text as views: a text that stands once in the file and in a million rows is in memory once.
fn as_view(field: &Field) -> Field {
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => field.clone().with_data_type(DataType::Utf8View),
        _ => field.clone(),
    }
}

/// The values of `column` in that type.
fn held(column: &ArrayRef) -> Result<ArrayRef, String> {
    let data_type =
        held_as(column.data_type()).ok_or_else(|| format!("{} cannot be read", column.data_type()))?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, &data_type, &strict).map_err(|error| error.to_string())
}

/// What they cost.
fn size_of(values: &ArrayRef) -> u64 {
    let texts = values
        .as_string_view_opt()
        .map_or(0, |texts| texts.iter().flatten().map(|text| text.len() as u64).sum());
    BYTES_A_CELL * values.len() as u64 + texts
}

/// One of them.
fn cell(values: &ArrayRef, row: usize) -> Cell {
    if values.is_null(row) {
        return Cell::Null;
    }
    let cell = match values.data_type() {
        DataType::Boolean => values.as_boolean_opt().map(|values| Cell::Bool(values.value(row))),
        DataType::Int64 => values.as_primitive_opt::<Int64Type>().map(|values| Cell::Int(values.value(row))),
        DataType::Float64 => {
            values.as_primitive_opt::<Float64Type>().map(|values| Cell::Float(values.value(row)))
        }
        DataType::Timestamp(..) => {
            values.as_primitive_opt::<TimestampNanosecondType>().map(|values| Cell::Time(values.value(row)))
        }
        _ => values.as_string_view_opt().map(|values| Cell::Text(values.value(row).to_owned())),
    };
    cell.unwrap_or(Cell::Null)
}
