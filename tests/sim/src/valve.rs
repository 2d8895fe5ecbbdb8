//! An output: it takes what it is told, fails now and then, and remembers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::future::BoxFuture;
use tidegate_connectors::{Delivery, DeliveryError, Sink, Writes};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::record::Record;

/// What the output was told: column `n` of each row, in order.
#[derive(Clone, Default)]
pub struct Valve(Arc<Mutex<Vec<i64>>>);

impl Valve {
    /// What it was told.
    #[must_use]
    pub fn told(&self) -> Vec<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The box's way to it.
pub struct ValveLine {
    /// the output
    pub valve: Valve,
    /// what goes wrong
    pub dice: Dice,
    /// what happened
    pub record: Record,
}

impl Sink for ValveLine {
    fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
        Box::pin(async move {
            let mut delivery = Delivery::default();
            let numbers = rows.column_by_name("n").and_then(|column| column.as_primitive_opt::<Int64Type>());
            for n in numbers.map(|numbers| numbers.values().to_vec()).unwrap_or_default() {
                sleep(self.dice.delay(Duration::from_millis(200))).await;
                self.record.note(format_args!("valve: {n}"));
                self.valve.0.lock().unwrap_or_else(PoisonError::into_inner).push(n);
                // The answer may be lost.
                let lost = || DeliveryError::Transient("no answer".into());
                delivery.count(if self.dice.one_in(10) { Err(lost()) } else { Ok(()) });
            }
            delivery
        })
    }
}
