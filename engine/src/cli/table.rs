//! Tables and figures for people.

use std::fmt::Write as _;

use super::render::printable;
pub(super) use crate::management::report::age;

/// Columns as wide as what is in them; those of `right` are numbers. Nothing without rows.
pub(super) fn table<const N: usize>(
    out: &mut String,
    heads: [&str; N],
    right: [bool; N],
    rows: Vec<[String; N]>,
) {
    wide(out, &heads, &right, rows.into_iter().map(Vec::from).collect());
}

/// The same, for columns that are counted while it runs.
pub(super) fn wide(out: &mut String, heads: &[&str], right: &[bool], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let mut lines = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.into_iter().map(|cells| cells.iter().map(|cell| printable(cell)).collect()));
    let mut widths = vec![0; heads.len()];
    for cells in &lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    for cells in &lines {
        let mut text = String::new();
        for ((cell, width), right) in cells.iter().zip(&widths).zip(right) {
            // Writing to a String cannot fail.
            let _ = if *right { write!(text, "  {cell:>width$}") } else { write!(text, "  {cell:width$}") };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}

/// `text`, or as much of it as `width` characters show.
pub(super) fn cut(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// "1 row", "2 rows"
pub(super) fn counted(count: u64, what: &str) -> String {
    counted_as(count, what, &format!("{what}s"))
}

pub(super) fn counted_as(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// "12 345 678"
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// "1.2 MiB": two digits at least.
pub(super) fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let tenths = bytes.saturating_mul(10) >> shift;
        if tenths >= 100 {
            return format!("{} {unit}", tenths / 10);
        }
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}
