//! A controller that moves things: a pump, and a drive that goes forwards or in reverse. It obeys, late, half
//! or not at all, loses its answers, and remembers what was really done. Beside that it is polled, for what
//! interlocks look at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use futures::future::BoxFuture;
use tidegate::config::{Value, Values};
use tidegate_connectors::status::LineStatus;
use tidegate_connectors::{
    Arrival, Cause, Delivery, DeliveryError, Inlet, LineNews, Sink, Source, Takes, Writes,
};
use tidegate_core::{Ack, Batch, Clock};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::broker::Weather;
use crate::dice::Dice;
use crate::record::Record;
use crate::terms::Terms;
use crate::witness::Witness;
use crate::world::SimulatedClock;

/// What moves.
pub const OUTPUTS: [&str; 3] = ["pump", "forward", "reverse"];
/// How often one of its streams is polled.
const EVERY: Duration = Duration::from_millis(800);

/// What became of a write at the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// It was done, and said so.
    Taken,
    /// It was done, and nobody heard of it.
    Silent,
    /// A part of it was done.
    Partly,
    /// It says that it was done, and it was not.
    Deaf,
    /// It was not done.
    Nothing,
}

/// A write that has reached the device.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// which start of the box it was
    pub round: usize,
    /// the output
    pub output: &'static str,
    /// when it was handed over, nanoseconds since the simulation began
    pub handed: i64,
    /// when it was done, or not
    pub done: i64,
    /// the sequence's time when it was handed over
    pub now: i64,
    /// what it comes from
    pub cause: Cause,
    /// what was to be written
    pub values: Values,
    /// what the device had before
    pub before: Values,
    /// what the device had afterwards
    pub after: Values,
    /// what became of it
    pub did: Did,
    /// when the box was told that it was done
    pub answered: Option<i64>,
}

/// The controller. It outlives the box.
#[derive(Clone)]
pub struct Plc(Arc<Mutex<State>>);

struct State {
    has: BTreeMap<&'static str, Values>,
    attempts: Vec<Attempt>,
    is_up: bool,
    /// says that it obeys and does not, where somebody looks
    deaf: BTreeMap<&'static str, bool>,
}

impl Plc {
    /// One at rest, whose outputs promise these.
    #[must_use]
    pub fn new(terms: &[Terms]) -> Self {
        let rests = |terms: &Terms| {
            let mut values = Values::from([("run".into(), Value::Bool(false))]);
            values.extend(terms.turns().then(|| ("speed".into(), Value::Float(0.0))));
            (terms.output, values)
        };
        let deaf = terms.iter().map(|terms| (terms.output, terms.reads_back)).collect();
        let has = terms.iter().map(rests).collect();
        Self(Arc::new(Mutex::new(State { has, attempts: Vec::new(), is_up: false, deaf })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an output has.
    #[must_use]
    pub fn has(&self, output: &str) -> Values {
        self.lock().has.get(output).cloned().unwrap_or_default()
    }

    /// All writes that have reached it, in order of when they were done.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().attempts.clone()
    }
}

/// The box's way to one of its outputs.
pub struct PlcSink {
    /// the controller
    pub plc: Plc,
    /// the output
    pub output: &'static str,
    /// what goes wrong
    pub dice: Dice,
    /// nothing does
    pub calm: bool,
    /// what time it is
    pub clock: Arc<SimulatedClock>,
    /// which box it is
    pub witness: Witness,
    /// what happened
    pub record: Record,
}

impl PlcSink {
    async fn write(&self, values: Values, cause: &Cause, now: i64) -> Result<(), DeliveryError> {
        let handed = self.clock.passed_ns();
        if cause.until.is_some_and(|until| now > until) {
            return Err(DeliveryError::Transient("it comes too late".into()));
        }
        let down = || DeliveryError::Transient("the line is down".into());
        if !self.plc.lock().is_up {
            return Err(down());
        }
        sleep(self.dice.delay(Duration::from_millis(if self.calm { 20 } else { 300 }))).await;
        let is_up = self.plc.lock().is_up;
        let fate = if self.calm { 99 } else { self.dice.below(24) };
        let did = match fate {
            _ if !is_up && self.dice.one_in(2) => Did::Silent,
            0 => Did::Silent,
            1 if values.len() > 1 => Did::Partly,
            2 if self.plc.lock().deaf.get(self.output) == Some(&true) => Did::Deaf,
            _ if !is_up => Did::Nothing,
            3..=5 => Did::Nothing,
            _ => Did::Taken,
        };
        let attempt = self.plc.act(
            self,
            Attempt {
                round: self.witness.now(),
                output: self.output,
                handed,
                done: self.clock.passed_ns(),
                now,
                cause: cause.clone(),
                values,
                before: Values::new(),
                after: Values::new(),
                // Until its answer has come.
                did: if did == Did::Taken { Did::Silent } else { did },
                answered: None,
            },
        );
        sleep(self.dice.delay(Duration::from_millis(if self.calm { 20 } else { 300 }))).await;
        let unknown = || DeliveryError::Unknown("no answer".into());
        match did {
            Did::Taken => {
                let answered = Some(self.clock.passed_ns());
                if let Some(attempt) = self.plc.lock().attempts.get_mut(attempt) {
                    (attempt.did, attempt.answered) = (Did::Taken, answered);
                }
                Ok(())
            }
            Did::Deaf => Ok(()),
            Did::Silent => Err(unknown()),
            Did::Partly | Did::Nothing => match self.dice.below(3) {
                0 => Err(DeliveryError::Permanent("it does not want that".into())),
                1 => Err(DeliveryError::Transient("it is busy".into())),
                _ => Err(unknown()),
            },
        }
    }
}

impl Plc {
    /// The device does what it does. Returns the place of the attempt.
    fn act(&self, line: &PlcSink, mut attempt: Attempt) -> usize {
        let mut state = self.lock();
        let has = state.has.entry(attempt.output).or_default();
        attempt.before.clone_from(has);
        let columns = match attempt.did {
            Did::Taken | Did::Silent => attempt.values.len(),
            Did::Partly => 1,
            Did::Deaf | Did::Nothing => 0,
        };
        // What is a register goes before what is a coil.
        has.extend(attempt.values.clone().into_iter().rev().take(columns));
        attempt.after.clone_from(has);
        let Attempt { output, values, did, cause, .. } = &attempt;
        let values: Vec<String> =
            values.iter().map(|(column, value)| format!("{column} = {value}")).collect();
        line.record.note(format_args!(
            "{output}: {} ({did:?}), write {:?} of {}, {}",
            values.join(", "),
            cause.write.unwrap_or(0),
            cause.seq,
            cause.by
        ));
        state.attempts.push(attempt);
        state.attempts.len() - 1
    }
}

impl Sink for PlcSink {
    fn takes(&self) -> Takes {
        Takes::Newest
    }

    fn deliver<'a>(&'a mut self, Writes { rows, causes, now }: Writes<'a>) -> BoxFuture<'a, Delivery> {
        Box::pin(async move {
            let mut delivery = Delivery::default();
            for (row, cause) in causes.iter().enumerate() {
                delivery.count(self.write(values(rows, row), cause, now).await);
            }
            delivery
        })
    }

    fn read<'a>(&'a mut self, columns: &'a [String]) -> BoxFuture<'a, Result<RecordBatch, DeliveryError>> {
        Box::pin(async move {
            sleep(self.dice.delay(Duration::from_millis(200))).await;
            let lost = !self.calm && self.dice.one_in(12);
            if lost || !self.plc.lock().is_up {
                return Err(DeliveryError::Transient("no answer".into()));
            }
            let has = self.plc.has(self.output);
            let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
                columns.iter().map(|name| column(name, has.get(name.as_str()))).unzip();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
                .map_err(|error| DeliveryError::Permanent(error.to_string()))
        })
    }
}

fn column(name: &str, value: Option<&Value>) -> (Field, ArrayRef) {
    let array: ArrayRef = match value {
        Some(Value::Bool(on)) => Arc::new(BooleanArray::from(vec![*on])),
        other => Arc::new(Float64Array::from(vec![other.and_then(Value::number)])),
    };
    (Field::new(name, array.data_type().clone(), true), array)
}

fn values(rows: &RecordBatch, row: usize) -> Values {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    let value = |array: &ArrayRef| match array.data_type() {
        _ if array.is_null(row) => None,
        DataType::Boolean => Some(Value::Bool(array.as_boolean().value(row))),
        _ => Some(Value::Float(array.as_primitive_opt::<Float64Type>()?.value(row))),
    };
    columns.filter_map(|(field, array)| Some((field.name().as_str().into(), value(array)?))).collect()
}

/// The box's line to it, which polls streams `guard` and `gate`.
pub struct PlcLine {
    /// the controller
    pub plc: Plc,
    /// what goes wrong
    pub dice: Dice,
    /// what happened
    pub record: Record,
    /// how well it works
    pub weather: Weather,
    /// the last box: in the end all is well
    pub is_last: bool,
    /// what time it is
    pub clock: Arc<SimulatedClock>,
    /// of the two streams
    pub schemas: [SchemaRef; 2],
    /// takes how the line is
    pub status: Arc<LineStatus>,
}

impl PlcLine {
    async fn drive(self, mut inlet: Inlet, shutdown: CancellationToken) {
        let mut told = inlet.queue.send(inlet.news(LineNews::Begins)).await.is_ok();
        let (mut poll, mut turn) = (Instant::now() + self.dice.delay(EVERY), Instant::now());
        // Until when a stream says what is wrong, or nothing.
        let mut bad = Instant::now();
        self.plc.lock().is_up = false;
        while told {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                asked = inlet.asked.changed() => {
                    let asked_at = *inlet.asked.borrow_and_update();
                    let heard = inlet.news(LineNews::Heard { asked: asked_at });
                    told = asked.is_ok() && inlet.queue.send(heard).await.is_ok();
                }
                () = sleep_until(turn) => {
                    let is_up = !self.plc.lock().is_up;
                    self.plc.lock().is_up = is_up;
                    self.record.note(format_args!("plc: the line is up: {is_up}"));
                    if is_up { self.status.is_up() } else { self.status.is_down(Some("no route".into())) }
                    let Weather { lasts, away, .. } = self.weather;
                    turn += if is_up { lasts / 2 + self.dice.delay(lasts) } else { self.dice.delay(away) };
                }
                () = sleep_until(poll) => {
                    poll += if self.is_last { EVERY } else { EVERY / 4 + self.dice.delay(2 * EVERY) };
                    if !self.plc.lock().is_up {
                        continue;
                    }
                    if !self.is_last && self.dice.one_in(12) {
                        bad = Instant::now() + self.dice.delay(Duration::from_secs(8));
                    }
                    let stream = usize::from(self.dice.one_in(2));
                    let is_bad = bad > Instant::now();
                    // Now and then nothing comes at all.
                    if is_bad && self.dice.one_in(3) {
                        continue;
                    }
                    for stream in if self.is_last { 0..2 } else { stream..stream + 1 } {
                        let rows = self.rows(stream, is_bad);
                        told &= inlet.queue.send(Arrival::Rows(rows)).await.is_ok();
                    }
                }
            }
        }
        self.record.note(format_args!("plc: closed"));
    }

    fn rows(&self, stream: usize, is_bad: bool) -> Batch {
        let dice = &self.dice;
        let count = if self.is_last { 1 } else { usize::try_from(dice.between(1, 3)).unwrap_or(1) };
        let rows = || 0..count;
        let schema = self.schemas.get(stream).cloned().unwrap_or_else(|| Arc::new(Schema::empty()));
        // All of a row is missing when it is not good.
        let good: Vec<bool> = rows().map(|_| !(is_bad && dice.one_in(4))).collect();
        let some = |value: bool, row: usize| (good.get(row) == Some(&true)).then_some(value);
        let bools = |of: &dyn Fn() -> bool| -> ArrayRef {
            Arc::new(rows().map(|row| some(of(), row)).collect::<BooleanArray>())
        };
        let level = || if is_bad && dice.one_in(2) { 5.0 } else { 50.0 };
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "ts" => {
                    let ts = TimestampNanosecondArray::from(vec![self.clock.wall_ns(); count]);
                    Arc::new(ts.with_timezone("UTC"))
                }
                "level" => {
                    let level = rows()
                        .map(|row| some(true, row).map(|_| level()).filter(|_| !is_bad || !dice.one_in(6)));
                    Arc::new(level.collect::<Float64Array>())
                }
                "open" => bools(&|| is_bad && dice.one_in(2)),
                "fwd" if self.is_last => bools(&|| true),
                "rev" if self.is_last => bools(&|| false),
                "fwd" | "rev" => bools(&|| dice.one_in(2)),
                "quality" => {
                    let word = |row: usize| if good.get(row) == Some(&true) { "good" } else { "bad" };
                    Arc::new(StringArray::from_iter_values(rows().map(word)))
                }
                _ => Arc::new(
                    rows()
                        .map(|row| (good.get(row) != Some(&true)).then_some("it is busy"))
                        .collect::<StringArray>(),
                ),
            }
        });
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns.collect())
            .unwrap_or_else(|_| RecordBatch::new_empty(schema));
        Batch {
            stream: if stream == 0 { "guard" } else { "gate" }.into(),
            rows,
            marks: Vec::new(),
            ack: Ack::none(),
        }
    }
}

impl Source for PlcLine {
    fn run(self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(self.drive(inlet, shutdown))
    }
}
