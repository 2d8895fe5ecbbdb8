//! A table in a CSV file: a line of names, then a line a row (RFC 4180). An empty cell is null.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::RecordBatch;
use tidegate_core::{Diagnostic, FieldType, Place};

use super::{Cell, Columns};

/// Reads the file.
pub(super) fn read(
    path: &Path,
    declared: Option<&BTreeMap<String, FieldType>>,
) -> Result<RecordBatch, Diagnostic> {
    let file = path.display().to_string();
    let at =
        |line: Option<u64>| line.and_then(|line| Some(Place { line: u32::try_from(line).ok()?, column: 1 }));
    let cannot = |error: csv::Error| {
        let place = at(error.position().map(csv::Position::line));
        Diagnostic::new(file.clone(), format!("this is not CSV: {error}")).at(place)
    };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(cannot)?;
    let names: Vec<String> = reader
        .headers()
        .map_err(cannot)?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_owned())
        .collect();
    if let Some((what, help)) = other_separator(&names) {
        return Err(Diagnostic::new(file, what).at(at(Some(1))).help(help));
    }
    let mut seen = BTreeSet::new();
    if let Some(name) = names.iter().find(|name| name.is_empty() || !seen.insert(name.as_str())) {
        let what = if name.is_empty() {
            "a column has no name".to_owned()
        } else {
            format!("two columns are called `{name}`")
        };
        let help = "the first line names the columns, each with a name of its own".to_owned();
        return Err(Diagnostic::new(file, what).at(at(Some(1))).help(help));
    }
    // What a column holds decides what its cells mean: with one `007` in it, it holds text.
    let mut texts: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.map_err(cannot)?;
        lines.push(record.position().map(csv::Position::line));
        for (column, cell) in texts.iter_mut().zip(&record) {
            column.push(cell.to_owned());
        }
    }
    let cells = texts.into_iter().map(|column| {
        let cells: Vec<Cell> = column.iter().map(|text| cell(text)).collect();
        let is_text =
            cells.iter().filter_map(Cell::field_type).reduce(FieldType::widened) == Some(FieldType::Utf8);
        if is_text {
            column
                .into_iter()
                .map(|text| if text.is_empty() { Cell::Null } else { Cell::Text(text) })
                .collect()
        } else {
            cells
        }
    });
    let columns = Columns { cells: cells.collect(), names };
    columns.batch(declared, &|row, what| {
        let line = row.and_then(|row| lines.get(row).copied().flatten());
        Diagnostic::new(file.clone(), what).at(at(Some(line.unwrap_or(1))))
    })
}

/// What is wrong with a header whose columns are separated by something else than `,`, and what to do:
/// spreadsheets write `;` where the comma is the decimal point.
pub(crate) fn other_separator(names: &[String]) -> Option<(String, String)> {
    let [only] = names else { return None };
    let shown = match [';', '\t', '|'].into_iter().find(|separator| only.contains(*separator))? {
        '\t' => "tabs".to_owned(),
        separator => format!("`{separator}`"),
    };
    let help = "separate them with `,`, and write the decimal point as `.`".to_owned();
    Some((format!("the columns of the file seem to be separated by {shown}"), help))
}

/// What a cell looks like. A number that would read differently when it is written again is text: an article,
/// a telephone number.
fn cell(text: &str) -> Cell {
    let digits = text.trim_start_matches(['-', '+']);
    let padded =
        digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.") && !digits.starts_with("0e");
    match text {
        "" => Cell::Null,
        "true" | "TRUE" | "True" => Cell::Bool(true),
        "false" | "FALSE" | "False" => Cell::Bool(false),
        _ if padded || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            Cell::Text(text.to_owned())
        }
        _ => match (text.parse(), text.parse()) {
            (Ok(value), _) => Cell::Int(value),
            (_, Ok(value)) => Cell::Float(value),
            _ => Cell::Text(text.to_owned()),
        },
    }
}
