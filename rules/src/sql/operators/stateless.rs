//! Filters, projections and the windows of rows: what looks at rows one by one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampNanosecondArray};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::TS;

use super::{Chunk, Operator, Pass, each_evaluable, evaluate_all, times};

/// Keeps the rows for which a condition holds.
#[derive(Debug)]
pub(in crate::sql) struct Filter {
    input: Box<dyn Operator>,
    predicate: Arc<dyn PhysicalExpr>,
}

impl Filter {
    pub(in crate::sql) fn new(input: Box<dyn Operator>, predicate: Arc<dyn PhysicalExpr>) -> Self {
        Self { input, predicate }
    }
}

impl Operator for Filter {
    fn schema(&self) -> &SchemaRef {
        self.input.schema()
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        vec![&*self.input]
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        vec![&mut *self.input]
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let rows = self.input.run(pass)?;
        row_by_row(self.input.schema(), rows, pass, &mut |rows| filter(&self.predicate, rows))
    }

    fn explain(&self) -> String {
        format!("filter {}", self.predicate)
    }
}

/// Computes columns.
#[derive(Debug)]
pub(in crate::sql) struct Project {
    input: Box<dyn Operator>,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Project {
    pub(in crate::sql) fn new(input: Box<dyn Operator>, exprs: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef) -> Self {
        Self { input, exprs, schema }
    }
}

impl Operator for Project {
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
        row_by_row(&self.schema, rows, pass, &mut |rows| project(&self.exprs, &self.schema, rows))
    }

    fn explain(&self) -> String {
        let columns = self.schema.fields().iter().zip(&self.exprs).map(|(field, expr)| format!("{expr} AS {}", field.name()));
        format!("compute {}", columns.collect::<Vec<_>>().join(", "))
    }
}

/// Adds `window_start` and `window_end` behind the columns.
#[derive(Debug)]
pub(in crate::sql) struct Tumble {
    input: Box<dyn Operator>,
    size_ns: i64,
    schema: SchemaRef,
}

impl Tumble {
    pub(in crate::sql) fn new(input: Box<dyn Operator>, size_ns: i64, schema: SchemaRef) -> Self {
        Self { input, size_ns, schema }
    }
}

impl Operator for Tumble {
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
        row_by_row(&self.schema, rows, pass, &mut |rows| tumble(self.size_ns, &self.schema, rows))
    }

    fn explain(&self) -> String {
        format!("windows of {} ns", self.size_ns)
    }
}

/// Sends `rows` through `step`, which looks at them one by one, and leaves out those that cannot be evaluated.
fn row_by_row(schema: &SchemaRef, rows: Chunk, pass: &mut Pass<'_>, step: &mut dyn FnMut(&Chunk) -> Result<Chunk>) -> Result<Chunk> {
    if rows.is_empty() {
        return Ok(Chunk::empty(schema));
    }
    let mut made = Vec::with_capacity(1);
    each_evaluable(&rows, pass.out, &mut |rows| {
        made.push(step(rows)?);
        Ok(())
    });
    Chunk::concat(schema, made)
}

fn filter(predicate: &Arc<dyn PhysicalExpr>, chunk: &Chunk) -> Result<Chunk> {
    let rows = chunk.len();
    let value = predicate.evaluate(&chunk.batch)?.into_array(rows)?;
    let mask = value.as_boolean_opt().ok_or_else(|| DataFusionError::Plan("WHERE is not a condition".into()))?;
    if mask.true_count() == rows {
        return Ok(chunk.clone());
    }
    // Null counts as false. Set bits are looked for by the word: most rows of most filters stay behind.
    let without_nulls = (mask.null_count() > 0).then(|| prep_null_mask_filter(mask));
    let kept = without_nulls.as_ref().unwrap_or(mask).values().set_indices_u32();
    let causes = match &chunk.causes {
        None => kept.collect(),
        Some(causes) => kept.filter_map(|row| causes.get(row as usize).copied()).collect(),
    };
    Ok(Chunk { batch: filter_record_batch(&chunk.batch, mask)?, causes: Some(causes) })
}

fn project(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef, chunk: &Chunk) -> Result<Chunk> {
    let columns = evaluate_all(exprs, &chunk.batch)?;
    let options = RecordBatchOptions::new().with_row_count(Some(chunk.len()));
    Ok(Chunk { batch: RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?, causes: chunk.causes.clone() })
}

fn tumble(size_ns: i64, schema: &SchemaRef, chunk: &Chunk) -> Result<Chunk> {
    // Saturation only matters within one window of the ends of time (1677 and 2262).
    let starts: Vec<i64> = times(&chunk.batch, TS)?.iter().map(|ts| ts.saturating_sub(ts.rem_euclid(size_ns))).collect();
    let ends: Vec<i64> = starts.iter().map(|start| start.saturating_add(size_ns)).collect();
    let mut columns = chunk.batch.columns().to_vec();
    columns.extend([starts, ends].map(|times| Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")) as ArrayRef));
    Ok(Chunk { batch: RecordBatch::try_new(Arc::clone(schema), columns)?, causes: chunk.causes.clone() })
}
