//! Where rows of a stream enter a statement.

use std::sync::Arc;

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
            Some((stream, batch)) if stream == &*self.stream => Chunk { batch: batch.clone(), causes: None },
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
