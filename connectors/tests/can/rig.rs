//! A connection under test: opened, running, and its ends in the test's hands.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidegate_connectors::connection::{Kind, Opened, Request, StreamRequest};
use tidegate_connectors::status::LineStatus;
use tidegate_connectors::table::Review;
use tidegate_connectors::{
    Arrival, ConnectionConfig, Delivery, DeliveryError, Inlet, LineNews, OutputConfig, Sink, StreamConfig,
    Writes,
};
use tidegate_core::clock::SystemClock;
use tidegate_peers::PATIENCE;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What to open, as users would write it.
pub(crate) struct Setup {
    directory: TempDir,
    connection: Map<String, Value>,
    streams: Vec<(&'static str, Value)>,
    outputs: Vec<(&'static str, Value)>,
}

fn table(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

impl Setup {
    pub(crate) fn interface(name: &str) -> Self {
        Self::new(&json!({ "interface": name, "backoff": { "min": "1ms", "max": "20ms" } }))
    }

    pub(crate) fn new(connection: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let connection = table(connection);
        Self { directory, connection, streams: Vec::new(), outputs: Vec::new() }
    }

    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.connection.insert(key.to_owned(), value);
        self
    }

    /// A file beside the configuration.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    pub(crate) fn dbc(self, text: &str) -> Self {
        self.file("test.dbc", text).set("dbc", json!(["test.dbc"]))
    }

    pub(crate) fn stream(mut self, name: &'static str, mut config: Value) -> Self {
        config["connection"] = json!("c");
        self.streams.push((name, config));
        self
    }

    pub(crate) fn output(mut self, name: &'static str, mut config: Value) -> Self {
        config["connection"] = json!("c");
        self.outputs.push((name, config));
        self
    }

    /// Reads and checks it as the box does. What is wrong, if anything.
    pub(crate) fn check(&self) -> Result<Checked, Vec<String>> {
        let mut said = Vec::new();
        let mut review = |base: &Path, title: &str, check: &mut dyn FnMut(&mut Review<'_>)| {
            let mut review = Review::new(title, base, Vec::new());
            check(&mut review);
            said.extend(review.remarks.into_iter().map(|remark| {
                format!("{title} {:?}: {}; {}", remark.at, remark.message, remark.help.unwrap_or_default())
            }));
        };
        let base = self.directory.path();
        let mut connection = ConnectionConfig::read(Kind::Can, &mut self.connection.clone()).unwrap();
        review(base, "[connections.c]", &mut |review| connection.check(review));
        let mut streams = Vec::new();
        for (name, config) in &self.streams {
            let mut config = StreamConfig::read(Kind::Can, &mut table(config)).expect("the keys are right");
            review(base, name, &mut |review| config.check(&[&connection], review));
            streams.push((*name, config));
        }
        let mut outputs = Vec::new();
        for (name, config) in &self.outputs {
            let mut config = OutputConfig::read(Kind::Can, &mut table(config)).expect("the keys are right");
            review(base, name, &mut |review| config.check(Some(&connection), review));
            outputs.push((*name, config));
        }
        if said.is_empty() { Ok(Checked { connection, streams, outputs }) } else { Err(said) }
    }

    /// Opens and runs it.
    pub(crate) fn run(self) -> Rig {
        let Checked { connection, streams, outputs } =
            self.check().unwrap_or_else(|said| panic!("{said:#?}"));
        let status = Arc::new(LineStatus::default());
        let request = Request {
            name: "c",
            box_name: "box",
            streams: streams
                .iter()
                .map(|(name, config)| StreamRequest {
                    name,
                    config,
                    known: Vec::new(),
                    known_marks: Vec::new(),
                    intake: Arc::default(),
                    kept: Vec::new(),
                })
                .collect(),
            outputs: outputs.iter().map(|(name, config)| (*name, config)).collect(),
            clock: Arc::new(SystemClock),
            status: Arc::clone(&status),
            keep: None,
        };
        let Opened { source, sinks } = connection.open(request).unwrap_or_else(|error| panic!("{error}"));
        let (queue, arrivals) = mpsc::channel(64);
        let (question, asked) = watch::channel(i64::MIN);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(source.run(Inlet { queue, line: 0, asked }, shutdown.clone()));
        Rig {
            arrivals,
            rows: Vec::new(),
            question,
            sinks,
            status,
            shutdown,
            task,
            _directory: self.directory,
        }
    }
}

pub(crate) struct Checked {
    pub(crate) connection: ConnectionConfig,
    pub(crate) streams: Vec<(&'static str, StreamConfig)>,
    pub(crate) outputs: Vec<(&'static str, OutputConfig)>,
}

pub(crate) struct Rig {
    arrivals: mpsc::Receiver<Arrival>,
    /// rows that came together with one that was asked for
    rows: Vec<(String, Map<String, Value>)>,
    /// asks whether the connection listens
    pub(crate) question: watch::Sender<i64>,
    pub(crate) sinks: BTreeMap<String, Box<dyn Sink>>,
    pub(crate) status: Arc<LineStatus>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _directory: TempDir,
}

impl Rig {
    /// The next row of any stream, with `ts` in nanoseconds.
    pub(crate) async fn timed_row(&mut self) -> (String, Map<String, Value>) {
        loop {
            if !self.rows.is_empty() {
                return self.rows.remove(0);
            }
            let next = timeout(PATIENCE, self.arrivals.recv()).await;
            let Ok(next) = next else { panic!("no row comes: {:?}", self.status.trouble()) };
            if let Arrival::Rows(batch) = next.expect("the source runs") {
                let stream = batch.stream.to_string();
                let rows = (0..batch.rows.num_rows()).map(|row| (stream.clone(), cells(&batch.rows, row)));
                self.rows.extend(rows);
            }
        }
    }

    /// The next row of any stream, without its time.
    pub(crate) async fn row(&mut self) -> Value {
        let (_, mut row) = self.timed_row().await;
        row.remove("ts");
        row.into()
    }

    /// The next row for which something holds.
    pub(crate) async fn row_where(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = timeout(PATIENCE, async {
            loop {
                last = self.row().await;
                if holds(&last) {
                    return last.clone();
                }
            }
        });
        let found = found.await.ok();
        found.unwrap_or_else(|| panic!("no such row comes; the last one is {last}"))
    }

    /// Takes what comes until there is news of the line.
    pub(crate) async fn news(&mut self) -> LineNews {
        loop {
            let next = timeout(PATIENCE, self.arrivals.recv()).await.expect("there is news");
            match next.expect("the source runs") {
                Arrival::Rows(_) => {}
                Arrival::Line { news, .. } => return news,
            }
        }
    }

    /// Waits until the line is there.
    pub(crate) async fn begins(&mut self) {
        while self.news().await != LineNews::Begins {}
    }

    /// Waits until the line is away, and says why.
    pub(crate) async fn ends(&mut self) -> String {
        while !matches!(self.news().await, LineNews::Ends { .. }) {}
        self.status.last_error().expect("there is a reason").1
    }

    /// A counter of the connection's own.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status.counts().iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }

    /// Writes one row.
    pub(crate) async fn write(&mut self, output: &str, row: &Value) -> Result<(), DeliveryError> {
        write(&mut **self.sinks.get_mut(output).unwrap(), row).await
    }

    /// Waits until the line is away, and says why.
    pub(crate) async fn trouble(&self) -> String {
        let mut changes = self.status.changes();
        loop {
            if let Some(trouble) = self.status.trouble() {
                return trouble;
            }
            timeout(PATIENCE, changes.changed()).await.expect("there is trouble").unwrap();
        }
    }

    /// Shuts down and waits for the end of the source.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        drop((self.arrivals, self.sinks));
        timeout(PATIENCE, self.task).await.expect("the source ends").unwrap();
    }
}

/// Writes one row.
pub(crate) async fn write(sink: &mut dyn Sink, row: &Value) -> Result<(), DeliveryError> {
    let batch = batch(row);
    let delivery = timeout(PATIENCE, sink.deliver(Writes { rows: &batch, causes: &[], now: 0 }));
    let Delivery { written, mut failures } = delivery.await.expect("a write ends");
    assert_eq!(written + failures.len(), 1);
    failures.pop().map_or(Ok(()), |(_, error)| Err(error))
}

fn cells(rows: &RecordBatch, row: usize) -> Map<String, Value> {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    columns
        .map(|(field, column)| {
            let value = match column.data_type() {
                _ if column.is_null(row) => Value::Null,
                DataType::Boolean => column.as_boolean().value(row).into(),
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
                DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
                DataType::Timestamp(..) => column.as_primitive::<TimestampNanosecondType>().value(row).into(),
                DataType::Binary => {
                    let bytes = column.as_binary::<i32>().value(row).iter();
                    bytes.map(|byte| format!("{byte:02X}")).collect::<String>().into()
                }
                _ => column.as_string::<i32>().value(row).into(),
            };
            (field.name().clone(), value)
        })
        .collect()
}

/// A row as a rule would write it. A text that begins with X' is bytes.
fn batch(row: &Value) -> RecordBatch {
    use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray};
    let columns = row.as_object().unwrap().iter().map(|(name, value)| {
        let array: ArrayRef = match value {
            Value::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Value::Number(value) if value.is_i64() => Arc::new(Int64Array::from(vec![value.as_i64()])),
            Value::Number(value) => Arc::new(Float64Array::from(vec![value.as_f64()])),
            Value::String(value) => match value.strip_prefix("X'") {
                Some(digits) => {
                    let bytes: Vec<u8> = digits
                        .trim_end_matches('\'')
                        .as_bytes()
                        .chunks(2)
                        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                        .collect();
                    Arc::new(BinaryArray::from(vec![bytes.as_slice()]))
                }
                None => Arc::new(StringArray::from(vec![value.as_str()])),
            },
            _ => Arc::new(Int64Array::from(vec![None])),
        };
        (name.as_str(), array, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}
