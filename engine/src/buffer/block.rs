//! One BLOB: an Arrow IPC stream in a zstd frame with checksum. In the outbox two columns follow the rule's
//! own: `__seq` and `__ordinal`.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use tidegate_core::{Rows, Seqs};

/// Level 3 is zstd's own default: higher ones cost a small processor more than the flash saves.
const LEVEL: i32 = 3;
/// A frame that unpacks to more than this was not written by us.
const MAX_UNPACKED: u64 = 1 << 30;
/// Rows of more than this are not packed: half of `MAX_UNPACKED`, since padding and offsets come on top, and
/// well below the thousand million bytes that SQLite takes in one value.
const MAX_BYTES: usize = 1 << 29;

/// Adds the identity columns to `rows`.
pub(super) fn with_ids(rows: &Rows, ordinals: &[u32]) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<_> = rows.batch.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__seq", DataType::UInt64, false)));
    fields.push(Arc::new(Field::new("__ordinal", DataType::UInt32, false)));
    let mut columns = rows.batch.columns().to_vec();
    columns
        .push(Arc::new(UInt64Array::from_iter_values((0..rows.len()).map(|row| rows.seqs.get(row))))
            as ArrayRef);
    columns.push(Arc::new(UInt32Array::from(ordinals.to_vec())));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Bytes that the rows of `batch` take, without what else is in buffers that it shares.
pub(super) fn bytes(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(of).sum()
}

/// Packs batches of one schema into one block.
pub(crate) fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let size: usize = batches.iter().map(bytes).sum();
    if size > MAX_BYTES {
        return Err(ArrowError::InvalidArgumentError(format!(
            "{size} bytes are more than the {MAX_BYTES} that fit into a block"
        )));
    }
    no_panic(|| {
        let Some(first) = batches.first() else { return Ok(Vec::new()) };
        let whole = concat_batches(first.schema_ref(), batches)?;
        let mut packer = zstd::Encoder::new(Vec::new(), LEVEL)?;
        packer.include_checksum(true)?;
        let mut writer = StreamWriter::try_new(packer, whole.schema_ref())?;
        writer.write(&whole)?;
        Ok(writer.into_inner()?.finish()?)
    })
}

/// The rows and ordinals of a block whose rows have identity columns.
pub(super) fn decode(data: &[u8]) -> Result<(Rows, Vec<u32>), ArrowError> {
    let batch = decode_batch(data)?;
    let bad = || ArrowError::ParseError("the block has no identity columns".into());
    let count = batch.num_columns().checked_sub(2).ok_or_else(bad)?;
    let seqs = batch.columns().get(count).and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or_else(bad)?;
    let ordinals =
        batch.columns().get(count + 1).and_then(|c| c.as_primitive_opt::<UInt32Type>()).ok_or_else(bad)?;
    let own = batch.project(&(0..count).collect::<Vec<_>>())?;
    Ok((Rows { batch: own, seqs: Seqs::list(seqs.values().to_vec()) }, ordinals.values().to_vec()))
}

/// What [`encode`] packed, as one batch.
pub(crate) fn decode_batch(data: &[u8]) -> Result<RecordBatch, ArrowError> {
    no_panic(|| {
        let mut plain = Vec::new();
        zstd::Decoder::new(data)?.take(MAX_UNPACKED).read_to_end(&mut plain)?;
        let mut reader = StreamReader::try_new(plain.as_slice(), None)?;
        reader.next().ok_or_else(|| ArrowError::ParseError("the block has no rows".into()))?
    })
}

/// The least and the greatest sequence number in `parts`, as [`with_ids`] made them.
pub(super) fn seq_range(parts: &[RecordBatch]) -> (u64, u64) {
    // By position: a rule may have a column of that name.
    let columns =
        parts.iter().filter_map(|part| part.columns().iter().nth_back(1)?.as_primitive_opt::<UInt64Type>());
    let range = columns.flat_map(|seqs| seqs.values().iter().copied()).fold(
        None,
        |range: Option<(u64, u64)>, seq| {
            Some(range.map_or((seq, seq), |(low, high)| (low.min(seq), high.max(seq))))
        },
    );
    range.unwrap_or_default()
}

/// Arrow panics on some malformed input; one bad block must not end the writer.
fn no_panic<T>(work: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(ArrowError::ParseError("the Arrow library panicked on it".into())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn rows(names: &[&str], values: std::ops::Range<u64>) -> RecordBatch {
        let column = |name: &&str| {
            ((*name).to_owned(), Arc::new(UInt64Array::from_iter_values(values.clone())) as ArrayRef)
        };
        let batch = RecordBatch::try_from_iter(names.iter().map(column)).unwrap();
        let ordinals: Vec<u32> = (0..).take(batch.num_rows()).collect();
        with_ids(&Rows { batch, seqs: Seqs::Run { first: 100 } }, &ordinals).unwrap()
    }

    #[test]
    fn a_rules_own_column_named_like_an_identity_column_is_kept_apart() {
        let part = rows(&["__seq", "v"], 0..3);
        assert_eq!(seq_range(std::slice::from_ref(&part)), (100, 102));
        let (back, ordinals) = decode(&encode(&[part]).unwrap()).unwrap();
        assert_eq!((back.batch.num_columns(), back.seqs.get(2), ordinals), (2, 102, vec![0, 1, 2]));
    }

    #[test]
    fn a_block_cut_short_or_changed_anywhere_is_an_error() {
        let data = encode(&[rows(&["v"], 0..50)]).unwrap();
        for at in 0..data.len() {
            assert!(decode(data.get(..at).unwrap()).is_err(), "cut at {at}");
        }
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn a_panic_in_arrow_is_an_error() {
        assert!(no_panic(|| -> Result<(), _> { panic!("malformed") }).is_err());
    }

    #[test]
    fn a_slice_counts_only_its_own_rows() {
        let whole = rows(&["v"], 0..1000);
        assert_eq!(bytes(&whole.slice(10, 3)), 3 * (8 + 8 + 4));
    }
}
