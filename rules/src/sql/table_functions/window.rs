//! A window in a logical plan.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result, plan_err};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use tidegate_core::ts_type;

use crate::sql::windows::TimeWindows;

pub(in crate::sql) const WINDOW_START: &str = "window_start";
pub(in crate::sql) const WINDOW_END: &str = "window_end";
/// The event time of what a window comes to, as in Flink: the last millisecond of it, so that the window
/// above it is the one that it is part of.
pub(in crate::sql) const WINDOW_TIME: &str = "window_time";

/// How much [`WINDOW_TIME`] is before [`WINDOW_END`].
pub(in crate::sql) const WINDOW_TIME_NS: i64 = 1_000_000;

/// The columns that a window adds behind those of its data.
pub(in crate::sql) const WINDOW_COLUMNS: [&str; 3] = [WINDOW_START, WINDOW_END, WINDOW_TIME];

/// What cuts a stream into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(in crate::sql) enum WindowKind {
    /// the clock
    Time(TimeWindows),
    /// a gap of so many nanoseconds without a row
    Session { gap_ns: i64 },
    /// so many rows, anew after each `every`
    Count { size: u32, every: u32 },
    /// a condition opens, another closes
    State,
}

/// The data with three more columns, `window_start`, `window_end` and `window_time` (SQL:2016, polymorphic
/// table functions).
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::sql) struct Window {
    pub input: LogicalPlan,
    pub kind: WindowKind,
    /// whose windows are apart from each other
    pub partition: Vec<Expr>,
    /// what opens and what closes a window that goes by state
    pub conditions: Vec<Expr>,
    schema: DFSchemaRef,
}

impl Window {
    pub(super) fn over(
        input: LogicalPlan,
        kind: WindowKind,
        partition: Vec<Expr>,
        conditions: Vec<Expr>,
    ) -> Result<Self> {
        let mut fields: Vec<_> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        // The new columns belong to the same relation, so that `t.window_start` works.
        let qualifier = fields.first().and_then(|(qualifier, _)| qualifier.clone());
        for name in WINDOW_COLUMNS {
            if fields.iter().any(|(_, field)| field.name() == name) {
                return plan_err!(
                    "the data of the window has a column `{name}` already; name it otherwise, `{name} AS \
                    inner_{name}`"
                );
            }
            fields.push((qualifier.clone(), Arc::new(Field::new(name, ts_type(), false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(Self { input, kind, partition, conditions, schema })
    }

    /// Which of its columns `column` is.
    pub(in crate::sql) fn schema_index(&self, column: &Column) -> Option<usize> {
        self.schema.maybe_index_of_column(column)
    }

    /// What it does, for state and people; `data` is where its rows come from.
    pub(in crate::sql) fn describe(&self, data: &str, partition: &[String], conditions: &[String]) -> String {
        let data = if partition.is_empty() {
            data.to_owned()
        } else {
            format!("{data} PARTITION BY {}", partition.join(", "))
        };
        match self.kind {
            WindowKind::Time(windows) => windows.describe(&data),
            WindowKind::Session { gap_ns } => format!("SESSION({data}, {gap_ns}ns)"),
            WindowKind::Count { size, every } if size == every => format!("COUNT_WINDOW({data}, {size})"),
            WindowKind::Count { size, every } => format!("COUNT_WINDOW({data}, {size}, {every})"),
            WindowKind::State => format!("STATE_WINDOW({data}, {})", conditions.join(", ")),
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for Window {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.kind.partial_cmp(&other.kind)
    }
}

impl UserDefinedLogicalNodeCore for Window {
    fn name(&self) -> &str {
        "Window"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.partition.iter().chain(&self.conditions).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window: {:?}", self.kind)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let conditions = exprs.split_off(self.partition.len().min(exprs.len()));
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Self::over(input, self.kind, exprs, conditions),
            Err(_) => plan_err!("a window has one input"),
        }
    }
}

/// The schema of `schema`'s fields with the window columns, without qualifiers.
pub(in crate::sql) fn with_window_columns(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.extend(WINDOW_COLUMNS.map(|name| Arc::new(Field::new(name, ts_type(), false))));
    Arc::new(Schema::new(fields))
}
