//! Filters and projections: what looks at rows one by one.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::{Chunk, Columns, Operator, Pass, each_evaluable, evaluate_all, written};
use crate::expression::evaluate;

/// Keeps the rows for which a condition holds.
#[derive(Debug)]
pub(in crate::sql) struct Filter {
    input: Box<dyn Operator>,
    predicate: Arc<dyn PhysicalExpr>,
    /// the columns that are left, if not all of them
    kept: Option<Vec<usize>>,
    columns: Columns,
}

impl Filter {
    pub(in crate::sql) fn new(input: Box<dyn Operator>, predicate: Arc<dyn PhysicalExpr>) -> Self {
        Self { columns: Columns::new(Arc::clone(input.schema())), input, predicate, kept: None }
    }

    /// Gives only these columns, which make up `schema`.
    pub(in crate::sql) fn keeping(self, columns: Vec<usize>, schema: SchemaRef) -> Self {
        Self { kept: Some(columns), columns: Columns::new(schema), ..self }
    }

    fn filter(&self, chunk: &Chunk) -> Result<Chunk> {
        let rows = chunk.len();
        let value = evaluate(&self.predicate, &chunk.batch)?;
        let mask =
            value.as_boolean_opt().ok_or_else(|| DataFusionError::Plan("WHERE is not a condition".into()))?;
        let holds = mask.true_count();
        if holds == 0 {
            return Ok(self.columns.none());
        }
        let batch = match &self.kept {
            None => chunk.batch.clone(),
            Some(columns) => {
                let kept = columns.iter().filter_map(|column| chunk.batch.columns().get(*column).cloned());
                RecordBatch::try_new(Arc::clone(self.schema()), kept.collect())?
            }
        };
        if holds == rows {
            return Ok(Chunk { batch, causes: chunk.causes.clone() });
        }
        // Null counts as false. Set bits are looked for by the word: most rows of most filters stay behind.
        let without_nulls = (mask.null_count() > 0).then(|| prep_null_mask_filter(mask));
        let kept = without_nulls.as_ref().unwrap_or(mask).values().set_indices_u32();
        let causes = match &chunk.causes {
            None => kept.collect(),
            Some(causes) => kept.filter_map(|row| causes.get(row as usize).copied()).collect(),
        };
        Ok(Chunk { batch: filter_record_batch(&batch, mask)?, causes: Some(causes) })
    }
}

impl Operator for Filter {
    fn schema(&self) -> &SchemaRef {
        self.columns.schema()
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        row_by_row(&self.columns, rows, pass, &mut |rows| self.filter(rows))
    }

    fn gives_input_rows(&self) -> bool {
        self.input.gives_input_rows()
    }

    fn explain(&self) -> String {
        format!("filter {}", written(&self.predicate))
    }
}

/// Computes columns.
#[derive(Debug)]
pub(in crate::sql) struct Project {
    input: Box<dyn Operator>,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    columns: Columns,
    delay_ns: i64,
}

impl Project {
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Self {
        Self { delay_ns: input.delay_ns(), input, exprs, columns: Columns::new(schema) }
    }

    /// The `ts` of its rows is computed, and may be so much behind the watermark.
    pub(in crate::sql) fn with_delay(self, delay_ns: i64) -> Self {
        Self { delay_ns, ..self }
    }
}

impl Operator for Project {
    fn schema(&self) -> &SchemaRef {
        self.columns.schema()
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        row_by_row(&self.columns, rows, pass, &mut |rows| project(&self.exprs, self.columns.schema(), rows))
    }

    fn gives_input_rows(&self) -> bool {
        self.input.gives_input_rows()
    }

    fn delay_ns(&self) -> i64 {
        self.delay_ns
    }

    fn explain(&self) -> String {
        let columns = self.schema().fields().iter().zip(&self.exprs).map(|(field, expr)| {
            let text = written(expr);
            if text == *field.name() { text } else { format!("{text} AS {}", field.name()) }
        });
        format!("compute {}", columns.collect::<Vec<_>>().join(", "))
    }
}

/// Sends `rows` through `step`, which looks at them one by one, and leaves out those that cannot be
/// evaluated. `columns` are those that it gives.
pub(super) fn row_by_row(
    columns: &Columns,
    rows: Chunk,
    pass: &mut Pass<'_>,
    step: &mut dyn FnMut(&Chunk) -> Result<Chunk>,
) -> Result<Chunk> {
    if rows.is_empty() {
        return Ok(columns.none());
    }
    let mut made = Vec::with_capacity(1);
    each_evaluable(&rows, pass.out, &mut |rows| {
        made.push(step(rows)?);
        Ok(())
    });
    Chunk::concat(columns.schema(), made)
}

fn project(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef, chunk: &Chunk) -> Result<Chunk> {
    let columns = evaluate_all(exprs, &chunk.batch)?;
    let options = RecordBatchOptions::new().with_row_count(Some(chunk.len()));
    Ok(Chunk {
        batch: RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?,
        causes: chunk.causes.clone(),
    })
}
