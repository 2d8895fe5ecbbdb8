//! `tidegate_control`: what people and the box itself say of outputs.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Int64Type, SchemaRef};
use futures::future::{BoxFuture, FutureExt};
use tidegate_connectors::Source;
use tidegate_core::{Clock, FieldType};

use super::feed::{Fed, Feed, Said};
use super::{BoxItself, columns};
use crate::config::{Value, Values};

/// Its name.
pub const NAME: &str = "tidegate_control";
/// People are few, and what one says becomes a row at once.
const WAITING: usize = 64;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    columns([
        ("event", FieldType::Utf8),
        ("output", FieldType::Utf8),
        ("instance", FieldType::Utf8),
        ("values", FieldType::Utf8),
        ("lease", FieldType::Int64),
        ("reason", FieldType::Utf8),
        ("who", FieldType::Utf8),
        ("off_known", FieldType::Bool),
    ])
});

/// Something that a person, or the box itself, says of outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlEvent {
    /// what
    pub event: ControlKind,
    /// of which output; none: of all
    pub output: Option<Arc<str>>,
    /// of which of what it moves, such as `line=7`; empty where there is one
    pub instance: Arc<str>,
    /// where it is to stay: of an override; by output, the newest decision: of a start
    pub values: Values,
    /// for how long, or how much longer: of an override
    pub lease: Option<Duration>,
    /// why
    pub reason: Option<Arc<str>>,
    /// who says so
    pub who: Option<Arc<str>>,
    /// of a start: whether it is known for how long the box was away
    pub off_known: Option<bool>,
}

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    /// The box has started.
    Start,
    /// The box is about to stop in good order.
    Stop,
    /// An output stays where a person wants it.
    Override,
    /// It does not any more.
    Release,
    /// A trip that is latched is over.
    Reset,
    /// An override holds still: said every hour.
    Holds,
    /// An override is about to end.
    Ends,
}

impl ControlKind {
    /// All of them, with their words in the stream.
    pub const WORDS: [(&str, Self); 7] = [
        ("start", Self::Start),
        ("stop", Self::Stop),
        ("override", Self::Override),
        ("release", Self::Release),
        ("reset", Self::Reset),
        ("holds", Self::Holds),
        ("ends", Self::Ends),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// The one of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind)
    }
}

impl ControlEvent {
    /// The box has started; `off_known`: whether it is known for how long it was away; `decided`: by output,
    /// the newest decision that there is, behind which numbers go on, whatever else was lost.
    #[must_use]
    pub fn start(off_known: bool, decided: &HashMap<Arc<str>, u64>) -> Self {
        let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let values = decided.iter().map(|(output, newest)| (Arc::clone(output), number(*newest))).collect();
        Self { off_known: Some(off_known), values, ..Self::of_the_box(ControlKind::Start) }
    }

    /// The box is about to stop in good order.
    #[must_use]
    pub fn stop() -> Self {
        Self::of_the_box(ControlKind::Stop)
    }

    /// It as a row of the stream, said when the wall clock shows `wall_ns`.
    #[must_use]
    pub fn row(self, wall_ns: i64) -> Option<RecordBatch> {
        rows(&[(wall_ns, self)])
    }

    fn of_the_box(event: ControlKind) -> Self {
        Self {
            event,
            output: None,
            instance: "".into(),
            values: Values::new(),
            lease: None,
            reason: None,
            who: None,
            off_known: None,
        }
    }

    /// What the rows of the stream say, without those that cannot be understood.
    #[must_use]
    pub fn read(rows: &RecordBatch) -> Vec<Self> {
        (0..rows.num_rows()).filter_map(|row| Self::from_row(rows, row)).collect()
    }

    fn from_row(rows: &RecordBatch, row: usize) -> Option<Self> {
        let text = |name| {
            let column = rows.column_by_name(name)?.as_string_opt::<i32>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let lease = rows.column_by_name("lease")?.as_primitive_opt::<Int64Type>()?;
        let lease = lease.is_valid(row).then(|| lease.value(row));
        let off_known = rows.column_by_name("off_known")?.as_boolean_opt()?;
        Some(Self {
            event: ControlKind::from_word(text("event")?)?,
            output: text("output").map(Arc::from),
            instance: text("instance").unwrap_or_default().into(),
            values: match text("values") {
                Some(values) => serde_json::from_str(values).ok()?,
                None => Values::new(),
            },
            lease: lease.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis),
            reason: text("reason").map(Arc::from),
            who: text("who").map(Arc::from),
            off_known: off_known.is_valid(row).then(|| off_known.value(row)),
        })
    }
}

/// Takes what is said. Cheap to clone.
#[derive(Clone)]
pub struct ControlEvents(Arc<Said<ControlEvent>>);

/// The box does not come to what was said before.
#[derive(Debug, thiserror::Error)]
#[error("the box has not come to what it was told before: {WAITING} events wait")]
pub struct NotTaken;

impl ControlEvents {
    /// Of a box with this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Said::new(WAITING, clock)))
    }

    /// Says `event`. It becomes a row of the stream soon; nobody waits for that.
    ///
    /// # Errors
    /// When too many wait; it is not said then.
    pub fn say(&self, event: ControlEvent) -> Result<(), NotTaken> {
        self.0.take_in(event).then_some(()).ok_or(NotTaken)
    }
}

#[cfg(test)]
impl ControlEvents {
    /// The next rows.
    pub(crate) fn waiting(&mut self) -> Option<RecordBatch> {
        self.rows()
    }
}

impl Feed for ControlEvents {
    fn rows(&mut self) -> Option<RecordBatch> {
        let events = self.0.take_out(WAITING);
        if events.is_empty() { None } else { rows(&events) }
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        self.0.filled().boxed()
    }
}

/// Events, each with what the wall clock showed, as rows of the stream.
fn rows(events: &[(i64, ControlEvent)]) -> Option<RecordBatch> {
    let texts = |of: &dyn Fn(&ControlEvent) -> Option<String>| -> ArrayRef {
        Arc::new(events.iter().map(|(_, event)| of(event)).collect::<StringArray>())
    };
    let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
    let lease =
        |event: &ControlEvent| event.lease.map(|lease| i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
    let ts = TimestampNanosecondArray::from_iter_values(events.iter().map(|(wall_ns, _)| *wall_ns));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ts.with_timezone("UTC")),
        texts(&|event| Some(event.event.word().to_owned())),
        texts(&|event| text(&event.output)),
        texts(&|event| event.output.as_ref().map(|_| event.instance.to_string())),
        texts(&|event| json(&event.values)),
        Arc::new(events.iter().map(|(_, event)| lease(event)).collect::<Int64Array>()),
        texts(&|event| text(&event.reason)),
        texts(&|event| text(&event.who)),
        Arc::new(events.iter().map(|(_, event)| event.off_known).collect::<BooleanArray>()),
    ];
    // The columns are those of the schema, and equally long.
    RecordBatch::try_new(Arc::clone(schema()), columns).ok()
}

/// Values in a column; none: null.
pub(super) fn json(values: &Values) -> Option<String> {
    if values.is_empty() { None } else { serde_json::to_string(values).ok() }
}

pub(super) fn schema() -> &'static SchemaRef {
    &SCHEMA
}

pub(super) fn open(BoxItself { control, .. }: BoxItself<'_>) -> Box<dyn Source> {
    Box::new(Fed { stream: NAME, feed: control.clone() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tidegate_connectors::{Arrival, Inlet, LineNews};
    use tidegate_core::clock::SimulatedClock;
    use tokio::sync::{mpsc, watch};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn by_a_person() -> ControlEvent {
        let values = [("run".into(), Value::Bool(false)), ("speed".into(), Value::Float(40.0))];
        ControlEvent {
            event: ControlKind::Override,
            output: Some("pump".into()),
            instance: "line=7".into(),
            values: values.into(),
            lease: Some(Duration::from_mins(45)),
            reason: Some("bearing is changed".into()),
            who: Some("uid 1000".into()),
            off_known: None,
        }
    }

    #[test]
    fn what_is_said_can_be_read_from_the_rows() {
        let clock = Arc::new(SimulatedClock::new(7_000));
        let mut events = ControlEvents::new(Arc::clone(&clock) as _);
        let bare = |event| ControlEvent { event, output: Some("pump".into()), ..ControlEvent::stop() };
        let said = [
            ControlEvent::start(true, &[("pump".into(), 7)].into()),
            by_a_person(),
            bare(ControlKind::Release),
            bare(ControlKind::Reset),
            ControlEvent::stop(),
        ];
        for event in &said {
            events.say(event.clone()).unwrap();
            clock.pass(Duration::from_nanos(1));
        }
        let rows = events.rows().unwrap();
        assert_eq!(ControlEvent::read(&rows), said);
        let cell = |name: &str, row: usize| {
            let mut text = Vec::new();
            tidegate_connectors::codec::Encoder::new(rows.schema_ref()).encode_row(&rows, row, &mut text);
            let row: serde_json::Value = serde_json::from_slice(&text).unwrap();
            row.get(name).cloned().unwrap_or_default()
        };
        assert_eq!(cell("values", 1), r#"{"run":false,"speed":40.0}"#);
        assert_eq!(cell("lease", 1), 2_700_000);
        assert_eq!(cell("output", 0), serde_json::Value::Null);
        assert_eq!(
            rows.column(0).as_primitive::<arrow::datatypes::TimestampNanosecondType>().value(4),
            7_004
        );
        assert!(events.rows().is_none());
    }

    #[test]
    fn whoever_says_too_much_is_told() {
        let events = ControlEvents::new(Arc::new(SimulatedClock::new(0)));
        for _ in 0..WAITING {
            events.say(ControlEvent::stop()).unwrap();
        }
        let refused = events.say(ControlEvent::stop()).unwrap_err();
        assert_eq!(refused.to_string(), "the box has not come to what it was told before: 64 events wait");
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_told() {
        let events = ControlEvents::new(Arc::new(SimulatedClock::new(0)));
        let (queue, mut intake) = mpsc::channel(8);
        let (_question, asked) = watch::channel(i64::MIN);
        let shutdown = CancellationToken::new();
        let source = Box::new(Fed { stream: NAME, feed: events.clone() });
        let task = tokio::spawn(source.run(Inlet { queue, line: 1, asked }, shutdown.clone()));
        let begins = intake.recv().await.unwrap();
        assert!(matches!(begins, Arrival::Line { line: 1, news: LineNews::Begins }), "{begins:?}");
        events.say(by_a_person()).unwrap();
        let Arrival::Rows(batch) = intake.recv().await.unwrap() else { panic!("no rows") };
        assert_eq!((&*batch.stream, ControlEvent::read(&batch.rows)), (NAME, vec![by_a_person()]));
        // Both before the source comes to look.
        events.say(ControlEvent::stop()).unwrap();
        shutdown.cancel();
        let Arrival::Rows(batch) = intake.recv().await.unwrap() else { panic!("no rows") };
        assert_eq!(ControlEvent::read(&batch.rows), [ControlEvent::stop()]);
        task.await.unwrap();
    }
}
