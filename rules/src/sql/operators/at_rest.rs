//! State of another version of a rule, in which numbers may have been whole.
//!
//! An inferred column is `int64` until its first fraction comes, and the rule is then compiled anew. What it
//! has kept goes on as if all numbers had been floats: Int64 becomes Float64, in keys, sums and rows, and
//! inside lists and structs. Only that: any other type is another column.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Fields, SchemaRef};

use crate::rule::SealedState;

/// Takes the state with this fingerprint out of `state`.
pub(super) fn take_state(state: &mut Vec<SealedState>, fingerprint: &str) -> Option<SealedState> {
    place_of(state, fingerprint).map(|at| state.remove(at))
}

/// Where the state with this fingerprint is.
pub(super) fn place_of(state: &[SealedState], fingerprint: &str) -> Option<usize> {
    let exact = state.iter().position(|sealed| sealed.fingerprint == fingerprint);
    let wanted = untyped(fingerprint);
    exact.or_else(|| state.iter().position(|sealed| untyped(&sealed.fingerprint) == wanted))
}

/// The column `name` of `batch`, as the type `wanted`, if it may be.
pub(super) fn column_of(batch: &RecordBatch, name: &str, wanted: &DataType) -> Option<ArrayRef> {
    let as_wanted = |column: &ArrayRef| widened(column, wanted);
    let plain = || {
        let name = untyped(name);
        let schema = batch.schema_ref();
        let mut named = schema.fields().iter().zip(batch.columns());
        named.find_map(|(field, column)| (untyped(field.name()) == name).then(|| as_wanted(column)).flatten())
    };
    batch.column_by_name(name).and_then(as_wanted).or_else(plain)
}

/// `columns` as the types of `fields`, if they may be.
pub(super) fn columns_of<'a>(
    columns: impl IntoIterator<Item = &'a ArrayRef>,
    fields: &Fields,
) -> Option<Vec<ArrayRef>> {
    let columns: Option<Vec<ArrayRef>> =
        columns.into_iter().zip(fields).map(|(column, field)| widened(column, field.data_type())).collect();
    columns.filter(|columns| columns.len() == fields.len())
}

/// `batch`, which has columns of the same names, with the columns of `schema`, if it may be.
pub(super) fn rows_of(batch: &RecordBatch, schema: &SchemaRef) -> Option<RecordBatch> {
    let (own, wanted) = (batch.schema_ref().fields(), schema.fields());
    if own.len() != wanted.len()
        || own.iter().zip(wanted).any(|(own, wanted)| untyped(own.name()) != untyped(wanted.name()))
    {
        return None;
    }
    RecordBatch::try_new(Arc::clone(schema), columns_of(batch.columns(), wanted)?).ok()
}

fn widened(column: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    if column.data_type() == wanted {
        return Some(Arc::clone(column));
    }
    if widens(column.data_type(), wanted) { cast(column, wanted).ok() } else { None }
}

fn widens(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Int64, DataType::Float64) => true,
        (DataType::List(from), DataType::List(to)) => widens(from.data_type(), to.data_type()),
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len()
                && from
                    .iter()
                    .zip(to)
                    .all(|(from, to)| from.name() == to.name() && widens(from.data_type(), to.data_type()))
        }
        _ => from == to,
    }
}

/// What is computed, whether numbers are whole or not: the planner writes the type of each constant, and a
/// cast where a whole number meets a float.
fn untyped(text: &str) -> Cow<'_, str> {
    const CAST: &str = "CAST(";
    if !["Int64(", "Float64(", CAST].iter().any(|word| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let begins = !plain.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let word = ["Int64(", "Float64(", CAST].into_iter().find(|word| begins && rest.starts_with(word));
        let inside = word.and_then(|word| {
            let (inside, after) = in_parentheses(rest.get(word.len()..)?)?;
            match inside.strip_suffix(" AS Float64") {
                Some(inside) if word == CAST => Some((untyped(inside), after)),
                None if word != CAST && inside.parse::<f64>().is_ok() => Some((inside.into(), after)),
                _ => None,
            }
        });
        if let Some((inside, after)) = inside {
            plain.push_str(&inside);
            rest = after;
        } else {
            plain.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        }
    }
    Cow::Owned(plain)
}

/// What stands before the parenthesis that closes an open one, and behind it.
fn in_parentheses(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some((text.get(..at)?, text.get(at + 1..)?)),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::untyped;

    #[test]
    fn constants_and_casts_to_floats_do_not_count() {
        for (text, plain) in [
            ("sum(a)", "sum(a)"),
            ("avg(CAST(a AS Float64))#0", "avg(a)#0"),
            ("sum(a) FILTER (WHERE a > Int64(2))", "sum(a) FILTER (WHERE a > 2)"),
            ("sum(a) FILTER (WHERE a > Float64(2))", "sum(a) FILTER (WHERE a > 2)"),
            ("sum(CAST(f(a, CAST(b AS Float64)) AS Float64))", "sum(f(a, b))"),
            ("sum(CAST(a AS Int64))", "sum(CAST(a AS Int64))"),
            ("sum(TRY_CAST(a AS Float64))", "sum(TRY_CAST(a AS Float64))"),
            ("sum(UInt64(2)) CAST(", "sum(UInt64(2)) CAST("),
        ] {
            assert_eq!(untyped(text), plain);
        }
    }
}
