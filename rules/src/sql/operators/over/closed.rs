//! `OVER (PARTITION BY window_start, ..)`: the rows of a closed window are there at once, so that each can be
//! compared with all others.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, lexsort_to_indices, partition};
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_physical_expr::window::WindowExpr;
use datafusion_physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::super::{Chunk, Operator, Pass, each_evaluable};
use crate::expression::{evaluate, guarded};
use crate::sql::words::failure;

/// The operator. It keeps nothing: it sees a window's rows once, when the window closes.
#[derive(Debug)]
pub(in crate::sql) struct OverClosed {
    input: Box<dyn Operator>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    functions: Vec<Arc<dyn WindowExpr>>,
    schema: SchemaRef,
}

impl OverClosed {
    /// All of `functions` go by `keys` and `order`.
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        order: Vec<PhysicalSortExpr>,
        functions: Vec<Arc<dyn WindowExpr>>,
        schema: SchemaRef,
    ) -> Self {
        Self { input, keys, order, functions, schema }
    }

    /// Whether all that rows are compared by can be evaluated.
    fn check(&self, chunk: &Chunk) -> Result<()> {
        let arguments = self.functions.iter().flat_map(|function| function.expressions());
        let order = self.order.iter().map(|order| Arc::clone(&order.expr));
        self.keys
            .iter()
            .cloned()
            .chain(order)
            .chain(arguments)
            .try_for_each(|expr| evaluate(&expr, &chunk.batch).map(drop))
    }

    /// `chunk` in the order of causes, keys and ORDER BY; and where each set of rows is that see each other.
    fn sets(&self, chunk: &Chunk) -> Result<(Chunk, Vec<Range<usize>>)> {
        let rows = chunk.len();
        let plain = |values| SortColumn { values, options: None };
        let numbers = UInt32Array::from_iter_values((0..).take(rows));
        let mut columns = vec![plain(Arc::new(UInt32Array::from(chunk.causes())) as ArrayRef)];
        for key in &self.keys {
            columns.push(plain(evaluate(key, &chunk.batch)?));
        }
        let set = columns.len();
        for order in &self.order {
            columns.push(order.evaluate_to_sort_column(&chunk.batch)?);
        }
        columns.push(plain(Arc::new(numbers)));
        let indices = lexsort_to_indices(&columns, None)?;
        let sorted: Vec<ArrayRef> = columns
            .iter()
            .take(set)
            .map(|column| arrow::compute::take(&column.values, &indices, None))
            .collect::<Result<_, _>>()?;
        Ok((chunk.take(indices.values().to_vec())?, partition(&sorted)?.ranges()))
    }

    fn compare(&self, set: Chunk) -> Result<Chunk> {
        let mut columns = set.batch.columns().to_vec();
        for function in &self.functions {
            columns.push(guarded(|| function.evaluate(&set.batch))?);
        }
        Ok(Chunk { batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?, causes: set.causes })
    }
}

impl Operator for OverClosed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        if rows.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        let mut good = Vec::with_capacity(1);
        each_evaluable(&rows, pass.out, &mut |part| {
            self.check(part)?;
            good.push(part.clone());
            Ok(())
        });
        let rows = Chunk::concat(rows.batch.schema_ref(), good)?;
        if rows.is_empty() {
            return Ok(Chunk::empty(&self.schema));
        }
        let (rows, sets) = self.sets(&rows)?;
        let mut made = Vec::with_capacity(sets.len());
        for set in sets {
            match self.compare(rows.slice(set.start, set.len())) {
                Ok(compared) => made.push(compared),
                // Rows that are compared stand or fall together.
                Err(error) => set.for_each(|_| pass.out.bad(failure(&error))),
            }
        }
        Chunk::concat(&self.schema, made)
    }

    fn explain(&self) -> String {
        let functions: Vec<&str> = self.functions.iter().map(|function| function.name()).collect();
        format!("within each closed window: {}", functions.join(", "))
    }
}
