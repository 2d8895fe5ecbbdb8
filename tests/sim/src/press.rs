//! Presses that are polled, and the box's line to them: they answer, late, twice, half or not at all, or that
//! they cannot, and the line tears what they say.
//!
//! Each request has a number, which stands in its answer. The line does what `tidegate_connectors::modbus`
//! promises: one request at a time, no answer is taken for that to another, and a poll without a value is a row
//! that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{Field, SchemaRef};
use futures::future::BoxFuture;
use tidegate_connectors::{Arrival, Inlet, LineNews, Source};
use tidegate_core::{Ack, Batch, Clock, Outcome};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::record::Record;
use crate::wire::Wire;

/// They are asked in turns.
const DEVICES: [&str; 2] = ["press_1", "press_2"];
/// How often one of them is.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_millis(400);
/// How long a prompt one does.
const PROMPT: Duration = Duration::from_millis(100);

/// The presses, and what they were asked.
#[derive(Clone, Default)]
pub struct Press(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// by the number of the request
    polls: BTreeMap<i64, Poll>,
    /// whose rows are in the journal for certain
    kept: BTreeSet<i64>,
    /// the process that the box is
    epoch: u64,
    /// nobody is asked any more
    rests: bool,
}

/// A request, and what has to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// who was asked
    pub device: &'static str,
    /// what was answered in time; none: nothing, or that it cannot be said
    pub value: Option<i64>,
}

impl Press {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All requests, by their numbers.
    #[must_use]
    pub fn polls(&self) -> BTreeMap<i64, Poll> {
        self.lock().polls.clone()
    }

    /// The requests whose rows the engine has kept.
    #[must_use]
    pub fn kept(&self) -> BTreeSet<i64> {
        self.lock().kept.clone()
    }

    /// Nobody is asked any more.
    pub fn rest(&self) {
        self.lock().rests = true;
    }

    /// What the process before has under way counts for nothing any more.
    pub fn forget_box(&self) {
        self.lock().epoch += 1;
    }

    fn keep(&self, n: i64, epoch: u64) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.kept.insert(n);
        }
    }
}

/// The box's line to the presses.
pub struct PressLine {
    press: Press,
    dice: Dice,
    record: Record,
    /// nothing goes wrong
    calm: bool,
    clock: Arc<dyn Clock>,
    /// of stream `level`
    schema: SchemaRef,
    wire: Wire,
    epoch: u64,
}

impl PressLine {
    /// A line for stream `level` with these columns.
    #[must_use]
    pub fn new(
        press: &Press,
        dice: Dice,
        record: &Record,
        calm: bool,
        clock: Arc<dyn Clock>,
        schema: SchemaRef,
    ) -> Self {
        let (press, record, epoch) = (press.clone(), record.clone(), press.lock().epoch);
        Self { press, dice, record, calm, clock, schema, wire: Wire::default(), epoch }
    }

    async fn drive(mut self, mut inlet: Inlet, shutdown: CancellationToken) {
        let mut due = Instant::now() + self.dice.delay(EVERY);
        let mut devices = DEVICES.into_iter().cycle();
        let mut told = inlet.queue.send(inlet.news(LineNews::Begins)).await.is_ok();
        while told {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                asked = inlet.asked.changed() => {
                    let asked_at = *inlet.asked.borrow_and_update();
                    let heard = inlet.news(LineNews::Heard { asked: asked_at });
                    told = asked.is_ok() && inlet.queue.send(heard).await.is_ok();
                }
                () = sleep_until(due) => {
                    // What was missed is not made up for.
                    while due <= Instant::now() {
                        due += EVERY;
                    }
                    let Some(device) = devices.next().filter(|_| !self.press.lock().rests) else { continue };
                    let rows = tokio::select! {
                        biased;
                        () = shutdown.cancelled() => break,
                        rows = self.poll(device) => rows,
                    };
                    told = inlet.queue.send(Arrival::Rows(rows)).await.is_ok();
                }
            }
        }
        self.record.note(format_args!("press: closed"));
    }

    /// Asks `device`, and makes a row of what comes in time.
    async fn poll(&mut self, device: &'static str) -> Batch {
        let deadline = Instant::now() + TIMEOUT;
        let n = self.ask(device, deadline);
        let answer = loop {
            let Some(line) = self.wire.line(deadline).await else { break Err("no answer") };
            let line = String::from_utf8_lossy(&line);
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                [number, from, said] if *number == n.to_string() && *from == device => {
                    break said.parse::<i64>().map_err(|_| "it is busy");
                }
                [""] => {}
                _ => self.record.note(format_args!("press: a stray, {line}")),
            }
        };
        self.record.note(format_args!("press: {n} {answer:?}"));
        let (press, epoch) = (self.press.clone(), self.epoch);
        let ack = Ack::new(move |outcome| {
            if outcome == Outcome::Done {
                press.keep(n, epoch);
            }
        });
        Batch { stream: "level".into(), rows: self.row(n, device, answer), marks: Vec::new(), ack }
    }

    /// The next request, which is answered or not.
    fn ask(&mut self, device: &'static str, deadline: Instant) -> i64 {
        let mut state = self.press.lock();
        let n = state.polls.last_key_value().map_or(1, |(last, _)| last + 1);
        let value = i64::try_from(self.dice.below(1_000)).unwrap_or(0);
        let (dice, now) = (&self.dice, Instant::now());
        let prompt = now + dice.delay(PROMPT);
        // It begins anew, whatever was left half said.
        let (text, busy) = (format!("\n{n} {device} {value}\n"), format!("\n{n} {device} busy\n"));
        let mut say = |text: &str, at, gap| self.wire.say(text.as_bytes(), at, gap, dice);
        let answered = match if self.calm { 9 } else { dice.below(10) } {
            0 => None,
            1 => {
                let half = usize::try_from(dice.below(text.len() as u64)).unwrap_or(0);
                say(text.get(..half).unwrap_or_default(), prompt, PROMPT);
                None
            }
            2 => Some(say(&text, deadline + dice.delay(3 * EVERY), PROMPT)),
            3 => {
                let first = say(&text, prompt, PROMPT);
                say(&text, first, PROMPT);
                Some(first)
            }
            4 => {
                say(&busy, prompt, PROMPT);
                None
            }
            5 => Some(say(&text, prompt, TIMEOUT)),
            _ => Some(say(&text, prompt, Duration::from_millis(10))),
        };
        let value = answered.filter(|at| *at <= deadline).map(|_| value);
        state.polls.insert(n, Poll { device, value });
        n
    }

    fn row(&self, n: i64, device: &str, answer: Result<i64, &str>) -> RecordBatch {
        let column = |field: &Field| -> ArrayRef {
            match field.name().as_str() {
                "ts" => Arc::new(
                    TimestampNanosecondArray::from_iter_values([self.clock.wall_ns()]).with_timezone("UTC"),
                ),
                "n" => Arc::new(Int64Array::from_iter_values([n])),
                "v" => Arc::new(Int64Array::from_iter([answer.ok()])),
                "quality" => Arc::new(StringArray::from(vec![if answer.is_ok() { "good" } else { "bad" }])),
                "fault" => Arc::new(StringArray::from(vec![answer.err()])),
                _ => Arc::new(StringArray::from(vec![device])),
            }
        };
        let columns = self.schema.fields().iter().map(|field| column(field)).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(&self.schema)))
    }
}

impl Source for PressLine {
    fn run(self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(self.drive(inlet, shutdown))
    }
}
