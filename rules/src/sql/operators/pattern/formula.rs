//! Formulas as they are evaluated: their slots filled, and the expression over them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::filter;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::rows::Rows;
use crate::expression::evaluate;
use crate::sql::operators::evaluate_all;
use crate::sql::pattern::formula::At;

/// A formula, lowered.
#[derive(Debug)]
pub(in crate::sql) struct Formula {
    pub slots: Vec<Slot>,
    /// the columns that `expr` sees, one a slot
    pub schema: SchemaRef,
    pub expr: Arc<dyn PhysicalExpr>,
}

/// A slot, lowered. Types are those of the formula's schema.
#[derive(Debug)]
pub(in crate::sql) enum Slot {
    Value { at: At, value: Arc<dyn PhysicalExpr> },
    Aggregate { variables: u64, finished: bool, call: MatchAggregate },
    Classifier { finished: bool },
    MatchNumber,
}

/// An aggregate of rows of a match.
#[derive(Debug)]
pub(in crate::sql) struct MatchAggregate {
    pub function: Arc<AggregateFunctionExpr>,
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
    pub filter: Option<Arc<dyn PhysicalExpr>>,
}

/// Rows of a match, or of what may become one, seen from one of them.
pub(super) trait View {
    /// The row that `at` means.
    fn row(&self, at: &At) -> Option<u64>;

    /// The rows of these variables.
    fn rows(&self, variables: u64, finished: bool) -> Vec<u64>;

    /// The variable of the last row.
    fn variable(&self, finished: bool) -> usize;

    /// How many matches there have been, with this one.
    fn number(&self) -> i64;
}

impl Formula {
    /// How many rows before the match it looks at.
    pub(super) fn back(&self) -> usize {
        let back = |slot: &Slot| if let Slot::Value { at, .. } = slot { at.back as usize } else { 0 };
        self.slots.iter().map(back).max().unwrap_or(0)
    }

    /// Whether it looks at many rows.
    pub(super) fn aggregates(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Aggregate { .. }))
    }

    /// Whether the row of `variable` and those just before it are all that it looks at.
    pub(super) fn is_local(&self, variable: usize) -> bool {
        self.slots.iter().all(|slot| match slot {
            Slot::Value { at, .. } => at.from_last && at.offset == 0 && at.variables >> variable & 1 == 1,
            Slot::Classifier { .. } => true,
            Slot::Aggregate { .. } | Slot::MatchNumber => false,
        })
    }

    /// Its value for each of these rows of `variable`, if it is local. `before` gives the number of the row
    /// that is so many rows before each.
    pub(super) fn local(
        &self,
        rows: &Rows,
        count: usize,
        name: &str,
        before: &dyn Fn(usize) -> Vec<Option<u64>>,
    ) -> Result<ArrayRef> {
        self.evaluate(count, |slot, data_type| match slot {
            Slot::Value { at, value } => rows.values(value, data_type, &before(at.back as usize)),
            _ => Ok(Arc::new(StringArray::from(vec![name; count]))),
        })
    }

    /// Its value for each view.
    pub(super) fn values(&self, rows: &Rows, views: &[&dyn View], names: &[String]) -> Result<ArrayRef> {
        let name = |variable: usize| names.get(variable).map(String::as_str);
        self.evaluate(views.len(), |slot, data_type| match slot {
            Slot::Value { at, value } => {
                let ids: Vec<Option<u64>> = views.iter().map(|view| view.row(at)).collect();
                rows.values(value, data_type, &ids)
            }
            Slot::Aggregate { variables, finished, call } => {
                let values =
                    views.iter().map(|view| aggregate(call, rows, &view.rows(*variables, *finished)));
                ScalarValue::iter_to_array(values.collect::<Result<Vec<_>>>()?)
            }
            Slot::Classifier { finished } => {
                Ok(Arc::new(StringArray::from_iter(views.iter().map(|view| name(view.variable(*finished))))))
            }
            Slot::MatchNumber => {
                Ok(Arc::new(Int64Array::from_iter_values(views.iter().map(|view| view.number()))))
            }
        })
    }

    /// Whether it holds for the view.
    pub(super) fn holds(&self, rows: &Rows, view: &dyn View, names: &[String]) -> Result<bool> {
        let value = self.values(rows, &[view], names)?;
        Ok(value
            .as_boolean_opt()
            .is_some_and(|value| value.len() == 1 && value.is_valid(0) && value.value(0)))
    }

    fn evaluate(
        &self,
        count: usize,
        mut fill: impl FnMut(&Slot, &DataType) -> Result<ArrayRef>,
    ) -> Result<ArrayRef> {
        let fields = self.schema.fields();
        let columns = self
            .slots
            .iter()
            .zip(fields)
            .map(|(slot, field)| fill(slot, field.data_type()))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        evaluate(&self.expr, &batch)
    }
}

fn aggregate(call: &MatchAggregate, rows: &Rows, ids: &[u64]) -> Result<ScalarValue> {
    let batch = rows.batch(ids)?;
    let mut arguments = evaluate_all(&call.arguments, &batch)?;
    if let Some(condition) = &call.filter {
        let mask = evaluate(condition, &batch)?;
        let mask = mask.as_boolean();
        arguments = arguments.iter().map(|argument| Ok(filter(argument, mask)?)).collect::<Result<_>>()?;
    }
    let mut accumulator = call.function.create_accumulator()?;
    accumulator.update_batch(&arguments)?;
    accumulator.evaluate()
}
