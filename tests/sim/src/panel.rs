//! A panel where people and programs say what they wish of the pump. Its rows bear the time at which they
//! were said, which may be long ago when they come.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use tidegate::config::{Value, Values};
use tidegate_connectors::{Arrival, Inlet, LineNews, Source};
use tidegate_core::{Ack, Batch, Clock};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::rules;
use crate::world::SimulatedClock;

/// How often it says something, about.
const EVERY: Duration = Duration::from_secs(2);
/// What the strongest rule wishes in the end.
pub const FINALLY: f64 = 50.0;

/// One row of stream `wish`.
struct Wish {
    who: i64,
    run: Option<bool>,
    speed: Option<f64>,
    /// how long ago it was said
    age: Duration,
}

/// The box's line to it.
pub struct PanelLine {
    /// chance
    pub dice: Dice,
    /// the last box: it says the same again and again
    pub is_last: bool,
    /// what time it is
    pub clock: Arc<SimulatedClock>,
    /// of the stream
    pub schema: SchemaRef,
}

/// Where the pump is to be in the end.
#[must_use]
pub fn finally() -> Values {
    Values::from([("run".into(), Value::Bool(true)), ("speed".into(), Value::Float(FINALLY))])
}

impl PanelLine {
    async fn drive(self, mut inlet: Inlet, shutdown: CancellationToken) {
        let mut due = Instant::now() + self.dice.delay(EVERY);
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
                    due += if self.is_last { EVERY / 3 } else { self.dice.delay(2 * EVERY) + EVERY / 50 };
                    let wishes = if self.is_last { last() } else { self.wishes() };
                    told = inlet.queue.send(Arrival::Rows(self.batch(&wishes))).await.is_ok();
                }
            }
        }
    }

    fn wishes(&self) -> Vec<Wish> {
        let dice = &self.dice;
        let wish = |_| Wish {
            who: *dice.pick(&rules::WHO).unwrap_or(&1),
            run: (!dice.one_in(8)).then(|| dice.one_in(2)),
            speed: match dice.below(16) {
                0 | 1 => None,
                2 => Some(f64::NAN),
                _ => Some(f64::from(u32::try_from(dice.below(1_600)).unwrap_or(0)) / 10.0 - 50.0),
            },
            age: if dice.one_in(10) { dice.delay(Duration::from_hours(3)) } else { Duration::ZERO },
        };
        (0..dice.between(1, 3)).map(wish).collect()
    }

    fn batch(&self, wishes: &[Wish]) -> Batch {
        let wall_ns = self.clock.wall_ns();
        let ts = |wish: &Wish| wall_ns.saturating_sub(i64::try_from(wish.age.as_nanos()).unwrap_or(0));
        let column = |field: &Field| -> ArrayRef {
            match field.name().as_str() {
                "ts" => {
                    let ts = TimestampNanosecondArray::from_iter_values(wishes.iter().map(ts));
                    Arc::new(ts.with_timezone("UTC"))
                }
                "who" => Arc::new(Int64Array::from_iter_values(wishes.iter().map(|wish| wish.who))),
                "run" => Arc::new(wishes.iter().map(|wish| wish.run).collect::<BooleanArray>()),
                _ => Arc::new(wishes.iter().map(|wish| wish.speed).collect::<Float64Array>()),
            }
        };
        let columns = self.schema.fields().iter().map(|field| column(field)).collect();
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .unwrap_or_else(|_| RecordBatch::new_empty(Arc::new(Schema::empty())));
        Batch { stream: "wish".into(), rows, marks: Vec::new(), ack: Ack::none() }
    }
}

/// In the end each rule has its own wish, and the strongest counts.
fn last() -> Vec<Wish> {
    let wish = |(who, run, speed)| Wish { who, run: Some(run), speed: Some(speed), age: Duration::ZERO };
    rules::WHO
        .iter()
        .zip([(false, 20.0), (true, FINALLY), (false, 0.0)])
        .map(|(who, (run, speed))| wish((*who, run, speed)))
        .collect()
}

impl Source for PanelLine {
    fn run(self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(self.drive(inlet, shutdown))
    }
}
