//! UNION ALL: the rows of several inputs, in the order of their causes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;

use super::{Chunk, Operator, Pass};

/// The operator. At one cause, the rows of the first input come first.
#[derive(Debug)]
pub(in crate::sql) struct Union {
    inputs: Vec<Box<dyn Operator>>,
    schema: SchemaRef,
}

impl Union {
    /// The inputs have the types of `schema`; their names do not matter.
    pub(in crate::sql) fn new(inputs: Vec<Box<dyn Operator>>, schema: SchemaRef) -> Self {
        Self { inputs, schema }
    }
}

impl Operator for Union {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        self.inputs.iter().map(|input| &**input).collect()
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        self.inputs.iter_mut().map(|input| &mut **input as &mut dyn Operator).collect()
    }

    fn run(&mut self, pass: &mut Pass<'_>) -> Result<Chunk> {
        let mut chunks = Vec::with_capacity(1);
        for input in &mut self.inputs {
            let Chunk { batch, causes } = input.run(pass)?;
            if batch.num_rows() > 0 {
                chunks.push(Chunk {
                    batch: RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?,
                    causes,
                });
            }
        }
        if chunks.len() < 2 {
            return Chunk::concat(&self.schema, chunks);
        }
        let all = Chunk::concat(&self.schema, chunks)?;
        let mut rows: Vec<u32> = (0_u32..).take(all.len()).collect();
        rows.sort_by_key(|row| all.cause(*row as usize));
        all.take(rows)
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    fn explain(&self) -> String {
        format!("the rows of {} inputs", self.inputs.len())
    }

    fn origin(&self) -> String {
        self.inputs.iter().map(|input| input.origin()).collect::<Vec<_>>().join(" AND ")
    }
}
