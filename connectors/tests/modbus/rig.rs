//! A connection under test: opened, running, and its ends in the test's hands.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use serde_json::{Map, Value, json};
use tidegate_connectors::connection::{Kind, OpenError, Opened, Request, StreamRequest};
use tidegate_connectors::status::LineStatus;
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
    kind: Kind,
    connection: Value,
    streams: Vec<(&'static str, Value)>,
    outputs: Vec<(&'static str, Value)>,
    inlet: usize,
}

impl Setup {
    pub(crate) fn tcp(port: u16) -> Self {
        Self::new(json!({ "host": "127.0.0.1", "port": port }))
    }

    pub(crate) fn new(connection: Value) -> Self {
        Self::on(Kind::Modbus, connection)
    }

    pub(crate) fn serial(connection: Value) -> Self {
        Self::on(Kind::Serial, connection)
    }

    fn on(kind: Kind, connection: Value) -> Self {
        let setup = Self { kind, connection, streams: Vec::new(), outputs: Vec::new(), inlet: 64 };
        setup.set("backoff", json!({ "min": "1ms", "max": "50ms" }))
    }

    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.connection[key] = value;
        self
    }

    /// A stream; where streams are polled, often.
    pub(crate) fn stream(mut self, name: &'static str, mut config: Value) -> Self {
        config["connection"] = config.get("connection").cloned().unwrap_or(json!("c"));
        if self.kind == Kind::Modbus {
            config["every"] = config.get("every").cloned().unwrap_or(json!("20ms"));
        }
        self.streams.push((name, config));
        self
    }

    pub(crate) fn output(mut self, name: &'static str, mut config: Value) -> Self {
        config["connection"] = json!("c");
        self.outputs.push((name, config));
        self
    }

    pub(crate) fn inlet(mut self, rows: usize) -> Self {
        self.inlet = rows;
        self
    }

    pub(crate) fn open(&self, status: &Arc<LineStatus>) -> Result<Opened, OpenError> {
        let table = |config: &Value| config.as_object().unwrap().clone();
        let kind = self.kind;
        let config = ConnectionConfig::read(kind, &mut table(&self.connection)).expect("a connection");
        let streams: Vec<(&str, StreamConfig)> = self
            .streams
            .iter()
            .map(|(name, config)| (*name, StreamConfig::read(kind, &mut table(config)).expect("a stream")))
            .collect();
        let outputs: Vec<(&str, OutputConfig)> = self
            .outputs
            .iter()
            .map(|(name, config)| (*name, OutputConfig::read(kind, &mut table(config)).expect("an output")))
            .collect();
        config.open(Request {
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
            status: Arc::clone(status),
            keep: None,
        })
    }

    /// Opens and runs it.
    pub(crate) fn run(self) -> Rig {
        let status = Arc::new(LineStatus::default());
        let opened = self.open(&status).unwrap_or_else(|error| panic!("{error}"));
        let (queue, intake) = mpsc::channel(self.inlet);
        let (question, asked) = watch::channel(i64::MIN);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(opened.source.run(Inlet { queue, line: 0, asked }, shutdown.clone()));
        Rig { intake, rows: Vec::new(), question, sinks: opened.sinks, status, shutdown, task }
    }
}

pub(crate) struct Rig {
    intake: mpsc::Receiver<Arrival>,
    /// rows that came together with one that was asked for
    rows: Vec<(String, Map<String, Value>)>,
    /// asks whether the connection listens
    pub(crate) question: watch::Sender<i64>,
    pub(crate) sinks: BTreeMap<String, Box<dyn Sink>>,
    pub(crate) status: Arc<LineStatus>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Rig {
    /// The next row of any stream, without its time.
    pub(crate) async fn row(&mut self) -> Map<String, Value> {
        self.row_of_any().await.1
    }

    pub(crate) async fn row_of_any(&mut self) -> (String, Map<String, Value>) {
        loop {
            if !self.rows.is_empty() {
                return self.rows.remove(0);
            }
            let next = timeout(PATIENCE, self.intake.recv()).await;
            let Ok(next) = next else { panic!("no row comes: {:?}", self.status.trouble()) };
            if let Arrival::Rows(batch) = next.expect("the source runs") {
                let rows =
                    (0..batch.rows.num_rows()).map(|row| (batch.stream.to_string(), cells(&batch.rows, row)));
                self.rows.extend(rows);
            }
        }
    }

    /// The next row for which something holds.
    pub(crate) async fn row_where(
        &mut self,
        holds: impl Fn(&Map<String, Value>) -> bool,
    ) -> Map<String, Value> {
        loop {
            let row = self.row().await;
            if holds(&row) {
                return row;
            }
        }
    }

    /// Takes what comes until there is news of the line.
    pub(crate) async fn news(&mut self) -> LineNews {
        loop {
            let next = timeout(PATIENCE, self.intake.recv()).await.expect("there is news");
            match next.expect("the source runs") {
                Arrival::Rows(_) => {}
                Arrival::Line { news, .. } => return news,
            }
        }
    }

    /// Why the line cannot be opened.
    pub(crate) async fn trouble(&self) -> String {
        let mut changes = self.status.changes();
        let changed = async {
            loop {
                if let Some(trouble) = self.status.trouble() {
                    return trouble;
                }
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, changed).await.expect("the line has trouble")
    }

    /// Waits until the line is down; rows that have come meanwhile stay.
    pub(crate) async fn until_down(&self) {
        self.trouble().await;
    }

    /// Waits until the line is up.
    pub(crate) async fn until_up(&self) {
        let mut changes = self.status.changes();
        let changed = async {
            while !self.status.is_connected() {
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, changed).await.expect("the line comes up");
    }

    /// Writes one row.
    pub(crate) async fn write(&mut self, output: &str, row: &Value) -> Result<(), DeliveryError> {
        let batch = batch(row);
        let sink = self.sinks.get_mut(output).unwrap();
        let Delivery { written, mut failures } =
            timeout(PATIENCE, sink.deliver(Writes { rows: &batch, causes: &[], now: 0 }))
                .await
                .expect("a write ends");
        assert_eq!(written + failures.len(), 1);
        failures.pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Shuts down and waits for the end of the source.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        drop((self.intake, self.sinks));
        timeout(PATIENCE, self.task).await.expect("the source ends").unwrap();
    }
}

fn cells(rows: &RecordBatch, row: usize) -> Map<String, Value> {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    columns
        .filter(|(field, _)| field.name() != "ts")
        .map(|(field, column)| {
            let value = match column.data_type() {
                _ if column.is_null(row) => Value::Null,
                DataType::Boolean => column.as_boolean().value(row).into(),
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
                DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
                _ => column.as_string::<i32>().value(row).into(),
            };
            (field.name().clone(), value)
        })
        .collect()
}

/// A row as a rule would write it.
pub(crate) fn batch(row: &Value) -> RecordBatch {
    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
    let columns = row.as_object().unwrap().iter().map(|(name, value)| {
        let array: ArrayRef = match value {
            Value::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
            Value::Number(value) if value.is_i64() => Arc::new(Int64Array::from(vec![value.as_i64()])),
            Value::Number(value) => Arc::new(Float64Array::from(vec![value.as_f64()])),
            Value::String(value) => Arc::new(StringArray::from(vec![value.as_str()])),
            _ => Arc::new(Int64Array::from(vec![None])),
        };
        (name.as_str(), array, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}
