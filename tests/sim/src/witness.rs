//! What the box took in, in the order in which it did: what rules, interlocks and contracts go by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use tidegate::status::Status;
use tidegate::system::control::{self, ControlEvent};

use crate::world::SimulatedClock;

/// Streams that decisions about outputs depend on.
const STREAMS: [&str; 4] = ["wish", "guard", "gate", control::NAME];

/// What is in a column of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// nothing
    Null,
    /// on or off
    Bool(bool),
    /// a whole number, or a time
    Int(i64),
    /// a number, or none
    Float(f64),
    /// text
    Text(String),
}

/// A row that the box took in.
#[derive(Debug, Clone)]
pub struct Row {
    /// which start of the box it was
    pub round: usize,
    /// its number
    pub seq: u64,
    /// its stream
    pub stream: &'static str,
    /// when, nanoseconds since the simulation began
    pub at: i64,
    /// what the wall clock showed
    pub wall_ns: i64,
    /// its columns
    pub cells: BTreeMap<String, Cell>,
    /// what was said, in the stream of that
    pub said: Option<ControlEvent>,
}

/// Sees what the box takes in, start after start.
#[derive(Clone, Default)]
pub struct Witness(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    rows: Vec<Row>,
    round: usize,
    missed: bool,
}

impl Witness {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A box starts. Returns its number.
    pub fn round(&self) -> usize {
        let mut seen = self.lock();
        seen.round += 1;
        seen.round
    }

    /// The number of the box that runs.
    #[must_use]
    pub fn now(&self) -> usize {
        self.lock().round
    }

    /// All rows, in the order of starts and numbers.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = self.lock().rows.clone();
        rows.sort_by_key(|row| (row.round, row.seq));
        rows
    }

    /// Whether it did not see everything.
    #[must_use]
    pub fn has_missed(&self) -> bool {
        self.lock().missed
    }

    /// Looks at a box with this status, before it runs.
    pub fn watch(&self, status: &Status, clock: &Arc<SimulatedClock>) {
        for stream in STREAMS {
            let mut subscription = status.streams.of(stream).tap.listen();
            let (witness, clock) = (self.clone(), Arc::clone(clock));
            tokio::spawn(async move {
                while let Some(passed) = subscription.next().await {
                    let at = clock.passed_ns();
                    let mut seen = witness.lock();
                    seen.missed |= subscription.missed() > 0;
                    let round = seen.round;
                    for row in 0..passed.rows.len() {
                        let one = passed.rows.batch.slice(row, 1);
                        seen.rows.push(Row {
                            round,
                            seq: passed.rows.seqs.get(row),
                            stream,
                            at,
                            wall_ns: passed.wall_ns,
                            cells: cells(&one),
                            said: ControlEvent::read(&one).pop().filter(|_| stream == control::NAME),
                        });
                    }
                }
            });
        }
    }
}

fn cells(row: &RecordBatch) -> BTreeMap<String, Cell> {
    let cell = |array: &dyn Array| {
        if array.is_null(0) {
            return Cell::Null;
        }
        match array.data_type() {
            DataType::Boolean => Cell::Bool(array.as_boolean().value(0)),
            DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(0)),
            DataType::Float64 => Cell::Float(array.as_primitive::<Float64Type>().value(0)),
            DataType::Timestamp(..) => Cell::Int(array.as_primitive::<TimestampNanosecondType>().value(0)),
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(0).to_owned()),
            _ => Cell::Null,
        }
    };
    let schema = row.schema_ref();
    schema
        .fields()
        .iter()
        .zip(row.columns())
        .map(|(field, array)| (field.name().clone(), cell(array)))
        .collect()
}

impl Row {
    /// What is in a column.
    #[must_use]
    pub fn cell(&self, column: &str) -> &Cell {
        self.cells.get(column).unwrap_or(&Cell::Null)
    }

    /// Whether it says that it is good, or nothing of that.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.cells.get("quality").is_none_or(|quality| *quality == Cell::Text("good".into()))
    }
}
