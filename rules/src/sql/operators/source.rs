//! Where rows of a stream enter a statement.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;

use super::{Chunk, Operator, Pass};

/// The rows of a stream, as they come.
#[derive(Debug)]
pub(in crate::sql) struct Source {
    stream: Arc<str>,
    schema: SchemaRef,
}

impl Source {
    pub(in crate::sql) fn new(stream: Arc<str>, schema: SchemaRef) -> Self {
        Self { stream, schema }
    }

    /// Without the columns that have been inferred since the rule was compiled, which stand behind the
    /// others.
    fn known_columns(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let known = self.schema.fields().len();
        if batch.num_columns() <= known {
            return Ok(batch.clone());
        }
        Ok(batch.project(&(0..known).collect::<Vec<_>>())?)
    }
}

impl Operator for Source {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        Vec::new()
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        Vec::new()
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        Ok(match pass.input {
            Some((stream, batch)) if stream == &*self.stream => {
                Chunk { batch: self.known_columns(batch)?, causes: None }
            }
            _ => Chunk::empty(&self.schema),
        })
    }

    fn explain(&self) -> String {
        format!("stream {}", self.stream)
    }

    fn gives_input_rows(&self) -> bool {
        true
    }

    fn origin(&self) -> String {
        self.stream.to_string()
    }
}
