//! Cells of rows as plain text, where users write `{column}`.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use crate::codec;

/// Whether a column may be named so between braces: letters, digits and `_`, not starting with a digit.
pub(crate) fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && text.starts_with(|c: char| !c.is_ascii_digit())
}

fn column<'r>(rows: &'r RecordBatch, name: &str) -> Result<&'r ArrayRef, String> {
    rows.column_by_name(name).ok_or_else(|| {
        let names: Vec<_> =
            rows.schema_ref().fields().iter().map(|field| format!("`{}`", field.name())).collect();
        format!("the rows have no column `{name}`, only {}", names.join(", "))
    })
}

/// The column, which has a value in `row`.
pub(crate) fn cell<'r>(
    rows: &'r RecordBatch,
    name: &str,
    row: usize,
    what: &str,
) -> Result<&'r ArrayRef, String> {
    let array = column(rows, name)?;
    if codec::is_null(array, row) {
        return Err(format!("column {name} is null, and the {what} needs it"));
    }
    Ok(array)
}

/// Appends a value that is not null as plain text.
pub(crate) fn write_text(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match array.data_type() {
        DataType::Utf8 => out.extend_from_slice(array.as_string::<i32>().value(row).as_bytes()),
        DataType::LargeUtf8 => out.extend_from_slice(array.as_string::<i64>().value(row).as_bytes()),
        DataType::Utf8View => out.extend_from_slice(array.as_string_view().value(row).as_bytes()),
        DataType::Binary => out.extend_from_slice(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => out.extend_from_slice(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => out.extend_from_slice(array.as_binary_view().value(row)),
        _ if codec::write_time(array, row, out) => {}
        _ => codec::write_value(array, row, out),
    }
}
