//! What devices answer in a replay: nobody is there, so they do what they are told.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use crate::config::Config;
use crate::decision::{Origin, Outcome};
use crate::outputs::contract::{Order, What};
use crate::system::writes::{self, WriteReport};

/// How long a write waits for a recorded answer, in the sequence's unit: devices answer within that, or are
/// taken for ones that do not.
const PATIENCE: i64 = 1_000_000_000;

/// What outputs were told and nobody has answered for.
#[derive(Default)]
pub(super) struct Plant {
    open: VecDeque<Order>,
    /// how long a write waits for an answer of the recording
    patience: i64,
    /// writes that were answered as the recording says
    pub(super) as_recorded: u64,
    /// writes that were taken to be acknowledged
    pub(super) assumed: u64,
}

impl Plant {
    /// One in which all goes well.
    pub(super) fn ideal() -> Self {
        Self::default()
    }

    /// One that answers as was recorded, where the same was written, and ideally otherwise.
    pub(super) fn recorded_beside() -> Self {
        Self { patience: PATIENCE, ..Self::default() }
    }

    /// Takes note of what outputs are told.
    pub(super) fn told(&mut self, orders: &[Order]) {
        let writes = orders.iter().filter(|order| matches!(order.what, What::Write { .. }));
        self.open.extend(writes.cloned());
    }

    /// When the next answer comes.
    pub(super) fn answers_at(&self) -> Option<i64> {
        self.open.front().map(|order| order.at.saturating_add(self.patience))
    }

    /// The answers that have come by `now`, as rows of `tidegate_writes`.
    pub(super) fn answers(&mut self, now: i64, wall_ns: i64) -> Option<RecordBatch> {
        let mut answers = Vec::new();
        while self.answers_at().is_some_and(|at| at <= now)
            && let Some(order) = self.open.pop_front()
        {
            answers.extend(acknowledged(order).map(|report| (wall_ns, report)));
        }
        self.assumed += answers.len() as u64;
        writes::rows(&answers)
    }

    /// A row of `tidegate_writes` as it was recorded, with the number of the same write here. `None`: nothing
    /// of the kind was written here.
    pub(super) fn recorded(&mut self, row: &RecordBatch) -> Option<RecordBatch> {
        let report = WriteReport::read(row).into_iter().next()?;
        if matches!(report.outcome, Outcome::Read | Outcome::Mismatch) {
            return None;
        }
        let is_same = |order: &Order| {
            order.output == report.output
                && order.instance == report.instance
                && matches!(&order.what, What::Write { values, .. } if *values == report.values)
        };
        let order = self.open.remove(self.open.iter().position(is_same)?)?;
        self.as_recorded += 1;
        let column = row.schema().index_of("write").ok()?;
        let mut columns = row.columns().to_vec();
        let number: ArrayRef = Arc::new(Int64Array::from(vec![i64::try_from(order.write).ok()?]));
        *columns.get_mut(column)? = number;
        RecordBatch::try_new(row.schema(), columns).ok()
    }
}

fn acknowledged(order: Order) -> Option<WriteReport> {
    let Order { output, instance, write, by, what: What::Write { values, .. }, .. } = order else {
        return None;
    };
    let rule = if let Origin::Rule { rule, .. } = by { Some(rule) } else { None };
    let (outcome, reason) = (Outcome::Acknowledged, None);
    Some(WriteReport { output, instance, write, rule, outcome, reason, values })
}

/// `config`, of a plant that has what it is told: nobody has to look whether it does. What streams show of it
/// is what the plant did then, and not what it would have done.
pub(super) fn unseen(config: &Config) -> Config {
    let mut config = config.clone();
    for contract in config.outputs.values_mut().filter_map(|output| output.contract.as_mut()) {
        contract.read_back = None;
    }
    config
}
