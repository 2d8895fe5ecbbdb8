//! `unnest` of lists and structs, and rows that are written in the rule.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::{DFSchema, Result, UnnestOptions, plan_err};
use datafusion_expr::{Unnest, Values};

use super::{nullable, physical};
use crate::sql::operators::{self, Operator, Table, Unnested};

/// `unnest`, of an input that has `before` columns in front of those that the plan knows.
pub(super) fn unnest(
    input: Box<dyn Operator>,
    unnest: &Unnest,
    before: usize,
    schema: SchemaRef,
) -> Result<Box<dyn Operator>> {
    if unnest.list_type_columns.iter().any(|(_, list)| list.depth > 1) {
        return plan_err!(
            "a list in a list is unnested in two steps; write `SELECT unnest(x) FROM (SELECT unnest(list) \
            AS x FROM ..)`"
        );
    }
    let mut columns: Vec<(usize, Unnested)> = (0..before).map(|index| (index, Unnested::Same)).collect();
    for index in &unnest.dependency_indices {
        let what = if unnest.list_type_columns.iter().any(|(list, _)| list == index) {
            Unnested::List
        } else if unnest.struct_type_columns.contains(index) {
            // All its fields come at once.
            if columns.contains(&(before + index, Unnested::Struct)) {
                continue;
            }
            Unnested::Struct
        } else {
            Unnested::Same
        };
        columns.push((before + index, what));
    }
    // The kind that keeps nulls has no name outside of DataFusion, but is what holds where nothing is said.
    let keeps_null = unnest.options.null_handling == UnnestOptions::new().null_handling;
    Ok(Box::new(operators::Unnest::new(input, columns, keeps_null, schema)))
}

/// `VALUES ..`: they are computed once.
pub(super) fn values(values: &Values) -> Result<Box<dyn Operator>> {
    let schema = nullable(values.schema.as_arrow());
    let row = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    let mut columns: Vec<Vec<ArrayRef>> =
        schema.fields().iter().map(|field| vec![new_empty_array(field.data_type())]).collect();
    for exprs in &values.values {
        for (column, expr) in columns.iter_mut().zip(exprs) {
            column.push(physical(expr, &DFSchema::empty())?.evaluate(&row)?.into_array(1)?);
        }
    }
    let columns = columns.iter().map(|parts| {
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        Ok(concat(&parts)?)
    });
    Ok(Box::new(Table::constant(RecordBatch::try_new(schema, columns.collect::<Result<_>>()?)?)))
}
