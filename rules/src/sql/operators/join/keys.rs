//! The equalities of a join, as bytes that are equal where the values are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion_common::{Result, plan_err};
use datafusion_physical_expr::PhysicalExpr;

use crate::sql::operators::{evaluate_all, written};

/// One side of the equalities of a join.
#[derive(Debug)]
pub(in crate::sql) struct Keys {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// `None` when there are no equalities: then all rows have one key
    converter: Option<RowConverter>,
    /// whether null equals null
    null_is_value: bool,
}

/// The keys of some rows.
pub(super) struct KeyRows {
    /// `None`: all rows have the empty key
    rows: Option<Rows>,
    /// rows in which some key is null, if that matters
    null: Vec<bool>,
}

impl Keys {
    /// `exprs` are evaluated on rows of `schema`; those of the two sides have the same types.
    pub(in crate::sql) fn new(
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        schema: &SchemaRef,
        null_is_value: bool,
    ) -> Result<Self> {
        let types = exprs.iter().map(|expr| expr.data_type(schema)).collect::<Result<Vec<DataType>>>()?;
        let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
        if !RowConverter::supports_fields(&fields) {
            let types = types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return plan_err!(
                "columns of type {types} cannot be compared in a join; compare a text or a number in them"
            );
        }
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { exprs, converter, null_is_value })
    }

    /// What they are, with those of the `other` side.
    pub(super) fn written(&self, other: &Self) -> String {
        let pairs = self
            .exprs
            .iter()
            .zip(&other.exprs)
            .map(|(one, other)| format!("{} = {}", written(one), written(other)));
        pairs.collect::<Vec<_>>().join(" AND ")
    }

    /// Whether there are no equalities.
    pub(super) fn is_empty(&self) -> bool {
        self.exprs.is_empty()
    }

    /// The keys of the rows of `batch`.
    pub(super) fn of(&self, batch: &RecordBatch) -> Result<KeyRows> {
        let Some(converter) = &self.converter else { return Ok(KeyRows { rows: None, null: Vec::new() }) };
        let columns: Vec<ArrayRef> = evaluate_all(&self.exprs, batch)?;
        let mut null = Vec::new();
        for nulls in
            columns.iter().filter(|_| !self.null_is_value).filter_map(|column| column.logical_nulls())
        {
            null.resize(batch.num_rows(), false);
            null.iter_mut().zip(nulls.iter()).for_each(|(null, valid)| *null |= !valid);
        }
        Ok(KeyRows { rows: Some(converter.convert_columns(&columns)?), null })
    }
}

impl KeyRows {
    /// The key of `row`. `None`: a part of it is null, which equals nothing.
    pub(super) fn get(&self, row: usize) -> Option<&[u8]> {
        if self.null.get(row).copied().unwrap_or(false) {
            return None;
        }
        match &self.rows {
            None => Some(&[]),
            Some(rows) if row < rows.num_rows() => Some(rows.row(row).data()),
            Some(_) => None,
        }
    }
}
