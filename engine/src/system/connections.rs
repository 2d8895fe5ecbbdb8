//! `tidegate_connections`: how connections are.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::SchemaRef;
use futures::future::{BoxFuture, FutureExt, pending, select_all};
use tidegate_connectors::Source;
use tidegate_connectors::status::LineStatus;
use tidegate_core::{Clock, FieldType};
use tokio::sync::watch;

use super::feed::{Fed, Feed};
use super::{BoxItself, columns};

/// Its name.
pub const NAME: &str = "tidegate_connections";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    columns([
        ("connection", FieldType::Utf8),
        ("connected", FieldType::Bool),
        ("reason", FieldType::Utf8),
        ("reconnects", FieldType::Int64),
        ("errors", FieldType::Int64),
        ("parked", FieldType::Int64),
        ("parked_devices", FieldType::Utf8),
    ])
});

pub(super) fn schema() -> &'static SchemaRef {
    &SCHEMA
}

pub(super) fn open(BoxItself { config, status, clock, .. }: BoxItself<'_>) -> Box<dyn Source> {
    let lines = config.connections.keys().map(|name| (name.clone(), status.connections.of(name)));
    Box::new(Fed { stream: NAME, feed: Connections::new(lines, clock) })
}

/// Feeds it: a row whenever a connection comes up, goes down, goes on to fail for another
/// reason, or leaves a device alone or takes it up again.
struct Connections {
    lines: Vec<Line>,
    clock: Arc<dyn Clock>,
}

struct Line {
    name: String,
    status: Arc<LineStatus>,
    changes: watch::Receiver<u64>,
    /// as it was told last
    told: Option<State>,
}

/// What a row is about; the counts stand beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    connected: bool,
    reason: Option<String>,
    parked: Vec<String>,
}

impl Connections {
    /// For the lines that there are, by name.
    fn new(lines: impl IntoIterator<Item = (String, Arc<LineStatus>)>, clock: Arc<dyn Clock>) -> Self {
        let line = |(name, status): (String, Arc<LineStatus>)| {
            let changes = status.changes();
            Line { name, status, changes, told: None }
        };
        Self { lines: lines.into_iter().map(line).collect(), clock }
    }
}

impl Feed for Connections {
    fn rows(&mut self) -> Option<RecordBatch> {
        let mut new = Vec::new();
        for line in &mut self.lines {
            line.changes.mark_unchanged();
            // One that was never tried is neither up nor down.
            if line.status.changed().is_none() {
                continue;
            }
            let state = State {
                connected: line.status.is_connected(),
                reason: line.status.trouble(),
                parked: line.status.parked(),
            };
            if line.told.as_ref() != Some(&state) {
                line.told = Some(state.clone());
                new.push((&line.name, &line.status, state));
            }
        }
        if new.is_empty() {
            return None;
        }
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let parked = |state: &State| (!state.parked.is_empty()).then(|| state.parked.join(", "));
        let now = self.clock.wall_ns();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from(vec![now; new.len()]).with_timezone("UTC")),
            Arc::new(StringArray::from_iter_values(new.iter().map(|(name, ..)| name))),
            Arc::new(new.iter().map(|(.., state)| Some(state.connected)).collect::<BooleanArray>()),
            Arc::new(new.iter().map(|(.., state)| state.reason.clone()).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(new.iter().map(|(_, of, _)| int(of.reconnects.get())))),
            Arc::new(Int64Array::from_iter_values(new.iter().map(|(_, of, _)| int(of.errors())))),
            Arc::new(Int64Array::from_iter_values(
                new.iter().map(|(.., state)| int(state.parked.len() as u64)),
            )),
            Arc::new(new.iter().map(|(.., state)| parked(state)).collect::<StringArray>()),
        ];
        // The columns are those of the schema, and equally long.
        RecordBatch::try_new(Arc::clone(schema()), columns).ok()
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        if self.lines.is_empty() {
            return pending().boxed();
        }
        let changes = self.lines.iter_mut().map(|line| line.changes.changed().boxed());
        // The statuses are here, so that nobody stops telling.
        select_all(changes).map(drop).boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use arrow::array::AsArray;
    use tidegate_connectors::{Arrival, Inlet, LineNews};
    use tidegate_core::clock::SystemClock;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_row_comes_when_a_connection_changes_and_only_then() {
        let status = Arc::new(LineStatus::default());
        let lines = [("plc".to_owned(), Arc::clone(&status))];
        let source = Fed { stream: NAME, feed: Connections::new(lines, Arc::new(SystemClock)) };
        let (queue, mut intake) = mpsc::channel(8);
        let (question, asked) = watch::channel(i64::MIN);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(Box::new(source).run(Inlet { queue, line: 3, asked }, shutdown.clone()));
        let begins = intake.recv().await.unwrap();
        assert!(matches!(begins, Arrival::Line { line: 3, news: LineNews::Begins }), "{begins:?}");
        let mut next = async || match intake.recv().await.unwrap() {
            Arrival::Rows(batch) => {
                let text = |name: &str| {
                    let column = batch.rows.column_by_name(name).unwrap().as_string::<i32>().clone();
                    column.iter().map(|value| value.unwrap_or("-").to_owned()).collect::<Vec<_>>().join("|")
                };
                let connected = batch.rows.column_by_name("connected").unwrap().as_boolean().value(0);
                format!("{} {connected} {} {}", text("connection"), text("reason"), text("parked_devices"))
            }
            Arrival::Line { news, .. } => format!("{news:?}"),
        };
        status.is_down(Some("no route".into()));
        assert_eq!(next().await, "plc false no route -");
        status.is_down(Some("no route".into()));
        status.is_up();
        assert_eq!(next().await, "plc true - -");
        status.leaves_alone(vec!["unit 3".into(), "unit 7".into()]);
        assert_eq!(next().await, "plc true - unit 3, unit 7");
        status.leaves_alone(vec!["unit 3".into(), "unit 7".into()]);
        question.send_replace(9);
        assert_eq!(next().await, "Heard { asked: 9 }");
        shutdown.cancel();
        task.await.unwrap();
    }
}
