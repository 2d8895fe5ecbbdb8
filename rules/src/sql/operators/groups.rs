//! What GROUP BY names where windows are aggregated.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{Field, TimestampNanosecondType};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_expr::PhysicalExpr;

use super::time_window::window_time;
use crate::expression::evaluate;
use crate::sql::table_functions::WINDOW_TIME_NS;
use crate::sql::windows::TimeWindows;

/// Where a column of GROUP BY comes from.
#[derive(Debug, Clone, Copy)]
pub(in crate::sql) enum GroupColumn {
    Start,
    End,
    Time,
    /// the key with this index
    Key(usize),
}

/// What GROUP BY names.
pub(in crate::sql) struct Groups {
    pub columns: Vec<GroupColumn>,
    pub bound: Bound,
    pub keys: Vec<(Arc<dyn PhysicalExpr>, Field)>,
}

/// The bound of its window that a row tells.
#[derive(Debug)]
pub(in crate::sql) enum Bound {
    Start(Arc<dyn PhysicalExpr>),
    End(Arc<dyn PhysicalExpr>),
    Time(Arc<dyn PhysicalExpr>),
}

impl Bound {
    /// The end for each row of `batch` in these windows, or panes.
    pub(super) fn ends(&self, batch: &RecordBatch, windows: &TimeWindows) -> Result<Vec<i64>> {
        let (Self::Start(bound) | Self::End(bound) | Self::Time(bound)) = self;
        let bounds = evaluate(bound, batch)?;
        let Some(bounds) =
            bounds.as_primitive_opt::<TimestampNanosecondType>().filter(|bounds| bounds.null_count() == 0)
        else {
            return Err(DataFusionError::Execution("a row has no window".into()));
        };
        Ok(match self {
            Self::Start(_) => {
                // Most rows are in the window of the row before.
                let mut last = None;
                let end = |start: &i64| match last {
                    Some((of, end)) if of == *start => end,
                    _ => last.insert((*start, windows.last_end(*start))).1,
                };
                bounds.values().iter().map(end).collect()
            }
            Self::End(_) => bounds.values().to_vec(),
            Self::Time(_) => bounds.values().iter().map(|time| time.saturating_add(WINDOW_TIME_NS)).collect(),
        })
    }
}

/// The columns of a window's rows: the group columns, then the aggregates.
pub(super) fn window_columns(
    columns: &[GroupColumn],
    start: i64,
    end: i64,
    keys: &[ArrayRef],
    values: Vec<ArrayRef>,
    rows: usize,
) -> Result<Vec<ArrayRef>> {
    let constant =
        |ns: i64| Arc::new(TimestampNanosecondArray::from(vec![ns; rows]).with_timezone("UTC")) as ArrayRef;
    let groups = columns.iter().map(|column| match column {
        GroupColumn::Start => Ok(constant(start)),
        GroupColumn::End => Ok(constant(end)),
        GroupColumn::Time => Ok(constant(window_time(end))),
        GroupColumn::Key(key) => keys
            .get(*key)
            .cloned()
            .ok_or_else(|| DataFusionError::Internal("a group column is missing".into())),
    });
    groups.chain(values.into_iter().map(Ok)).collect()
}
