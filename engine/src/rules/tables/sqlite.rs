//! A table in a SQLite database, or what a query makes of several.
//!
//! The database belongs to somebody else: it is opened to be read, looked at once, and closed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arrow::array::RecordBatch;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tidegate_core::{ByteSize, Diagnostic, FieldType};

use super::{BYTES_A_CELL, Cell, Columns, too_large};

/// So long whoever writes the database may keep it locked.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads what `query` gives.
pub(super) fn read(
    path: &Path,
    query: &str,
    declared: Option<&BTreeMap<String, FieldType>>,
    max_size: ByteSize,
) -> Result<RecordBatch, Diagnostic> {
    let file = path.display().to_string();
    let wrong = |what: String| Diagnostic::new(file.clone(), what);
    let cannot = |error: rusqlite::Error| wrong(format!("cannot read the table: {error}"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags).map_err(cannot)?;
    database.busy_timeout(PATIENCE).map_err(cannot)?;
    let mut statement = database.prepare(query).map_err(cannot)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut cells: Vec<Vec<Cell>> = vec![Vec::new(); names.len()];
    let mut bytes = 0;
    let mut rows = statement.query([]).map_err(cannot)?;
    while let Some(row) = rows.next().map_err(cannot)? {
        for (index, column) in cells.iter_mut().enumerate() {
            let cell = match row.get_ref(index).map_err(cannot)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(value) => Cell::Int(value),
                ValueRef::Real(value) => Cell::Float(value),
                ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(_) => {
                    let name = names.get(index).map_or("", String::as_str);
                    return Err(wrong(format!("column `{name}` holds bytes, which no rule can read"))
                        .help("leave it out with `query`".to_owned()));
                }
            };
            bytes += BYTES_A_CELL + if let Cell::Text(text) = &cell { text.len() as u64 } else { 0 };
            column.push(cell);
        }
        if bytes > max_size.0 {
            return Err(too_large(&file, max_size));
        }
    }
    let columns = Columns { names, cells };
    columns.batch(declared, &|row, what| {
        let row = row.map(|row| format!("row {}: ", row + 1)).unwrap_or_default();
        wrong(format!("{row}{what}"))
    })
}
