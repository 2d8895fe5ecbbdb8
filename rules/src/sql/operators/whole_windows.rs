//! Aggregates over windows that end by their rows: all rows of a window come together, so that nothing is
//! kept.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, SchemaRef, UInt32Type};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::accumulate::Adder;
use super::sums::Total;
use super::{AggregateCall, Chunk, Operator, Pass, each_evaluable};

/// The operator. Its groups are those of GROUP BY, which names the windows, among the rows that are due to
/// one row.
pub(in crate::sql) struct WholeWindows {
    input: Box<dyn Operator>,
    fingerprint: String,
    adder: Adder,
    /// the keys, behind the row that the rows are due to
    key_schema: SchemaRef,
    schema: SchemaRef,
}

impl std::fmt::Debug for WholeWindows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WholeWindows").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl WholeWindows {
    pub(in crate::sql) fn new(
        input: Box<dyn Operator>,
        fingerprint: String,
        keys: Vec<(Arc<dyn PhysicalExpr>, Field)>,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Self {
        let adder = Adder::new(keys, calls);
        let key_schema = adder.key_schema_behind(Field::new("cause", DataType::UInt32, false));
        Self { input, fingerprint, adder, key_schema, schema }
    }
}

impl Operator for WholeWindows {
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
        let mut prepared = Vec::with_capacity(1);
        each_evaluable(&rows, pass.out, &mut |rows| {
            let mut addends = self.adder.prepare(&rows.batch)?;
            addends.keys.insert(0, Arc::new(UInt32Array::from(rows.causes())) as ArrayRef);
            prepared.push(addends);
            Ok(())
        });
        let (mut columns, values) = Total::new(&prepared, &self.key_schema, &self.adder)?.values()?;
        let causes = columns.remove(0);
        let causes = causes.as_primitive_opt::<UInt32Type>().map(|causes| causes.values().to_vec());
        let causes = Some(causes.ok_or_else(|| DataFusionError::Internal("groups without a cause".into()))?);
        columns.extend(values);
        Ok(Chunk { batch: RecordBatch::try_new(Arc::clone(&self.schema), columns)?, causes })
    }

    fn explain(&self) -> String {
        format!("aggregate {}: {}", self.fingerprint, self.adder.explain())
    }

    fn origin(&self) -> String {
        self.fingerprint.clone()
    }
}
