//! One BLOB: an Arrow IPC stream in a zstd frame with checksum. Two columns follow the rule's own: `__seq` and `__ordinal`.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use tidegate_core::{Rows, Seqs};

/// Level 3 is zstd's own default: higher ones cost a small processor more than the flash saves.
const LEVEL: i32 = 3;
/// A frame that unpacks to more than this was not written by us.
const MAX_UNPACKED: u64 = 1 << 30;

/// Adds the identity columns to `rows`.
pub(super) fn with_ids(rows: &Rows, ordinals: &[u32]) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<_> = rows.batch.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__seq", DataType::UInt64, false)));
    fields.push(Arc::new(Field::new("__ordinal", DataType::UInt32, false)));
    let mut columns = rows.batch.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from_iter_values((0..rows.len()).map(|row| rows.seqs.get(row)))) as ArrayRef);
    columns.push(Arc::new(UInt32Array::from(ordinals.to_vec())));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Packs batches of one schema into one block.
pub(super) fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let whole = concat_batches(first.schema_ref(), batches)?;
    let mut packer = zstd::Encoder::new(Vec::new(), LEVEL)?;
    packer.include_checksum(true)?;
    let mut writer = StreamWriter::try_new(packer, whole.schema_ref())?;
    writer.write(&whole)?;
    Ok(writer.into_inner()?.finish()?)
}

/// The rows and ordinals of a block.
pub(super) fn decode(data: &[u8]) -> Result<(Rows, Vec<u32>), ArrowError> {
    let mut plain = Vec::new();
    zstd::Decoder::new(data)?.take(MAX_UNPACKED).read_to_end(&mut plain)?;
    let mut reader = StreamReader::try_new(plain.as_slice(), None)?;
    let bad = || ArrowError::ParseError("the block has no rows or no identity columns".into());
    let batch = reader.next().ok_or_else(bad)??;
    let count = batch.num_columns().checked_sub(2).ok_or_else(bad)?;
    let seqs = batch.columns().get(count).and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or_else(bad)?;
    let ordinals = batch.columns().get(count + 1).and_then(|c| c.as_primitive_opt::<UInt32Type>()).ok_or_else(bad)?;
    let own = batch.project(&(0..count).collect::<Vec<_>>())?;
    Ok((Rows { batch: own, seqs: Seqs::list(seqs.values().to_vec()) }, ordinals.values().to_vec()))
}

/// The least and the greatest sequence number in `parts`.
pub(super) fn seq_range(parts: &[RecordBatch]) -> Result<(u64, u64), ArrowError> {
    let columns = parts.iter().filter_map(|part| part.column_by_name("__seq")?.as_primitive_opt::<UInt64Type>());
    let range = columns
        .flat_map(|seqs| seqs.values().iter().copied())
        .fold(None, |range: Option<(u64, u64)>, seq| Some(range.map_or((seq, seq), |(low, high)| (low.min(seq), high.max(seq)))));
    range.ok_or_else(|| ArrowError::InvalidArgumentError("a block without rows".into()))
}
