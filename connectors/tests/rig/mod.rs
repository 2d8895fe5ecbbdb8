//! A connection under test: opened, running, and its ends in the test's hands.

mod rows;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidegate_connectors::connection::{Kind, Opened, Request, StreamRequest};
use tidegate_connectors::mqtt::{self, Publisher};
use tidegate_connectors::status::LineStatus;
use tidegate_connectors::table::Review;
use tidegate_connectors::{
    Arrival, ConnectionConfig, Delivery, DeliveryError, Inlet, Keep, LineNews, OpenError, OutputConfig, Sink,
    Source, StreamConfig, Writes,
};
use tidegate_core::Batch;
use tidegate_core::clock::SystemClock;
use tidegate_peers::PATIENCE;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use rows::{batch, bytes};

/// What to open, as users would write it.
pub(crate) struct Setup {
    kind: Kind,
    directory: TempDir,
    connection: Value,
    streams: Vec<(&'static str, Value)>,
    outputs: Vec<(&'static str, Value)>,
    inlet: usize,
    known_marks: Vec<u64>,
    shelf: Arc<Mutex<Vec<u8>>>,
}

impl Setup {
    pub(crate) fn new(kind: Kind, mut connection: Value) -> Self {
        if connection.get("backoff").is_none() {
            connection["backoff"] = json!({ "min": "1ms", "max": "50ms" });
        }
        Self {
            kind,
            directory: tempfile::tempdir().unwrap(),
            connection,
            streams: Vec::new(),
            outputs: Vec::new(),
            inlet: 64,
            known_marks: Vec::new(),
            shelf: Arc::default(),
        }
    }

    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.connection[key] = value;
        self
    }

    /// A file beside the configuration.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    /// A stream; where streams are polled, often.
    pub(crate) fn stream(mut self, name: &'static str, config: Value) -> Self {
        let mut defaults = json!({ "connection": "c" });
        if self.kind == Kind::Modbus {
            defaults["every"] = json!("20ms");
        }
        self.streams.push((name, with_defaults(config, defaults)));
        self
    }

    pub(crate) fn output(mut self, name: &'static str, config: Value) -> Self {
        self.outputs.push((name, with_defaults(config, json!({ "connection": "c" }))));
        self
    }

    /// So many arrivals may wait.
    pub(crate) fn inlet(mut self, arrivals: usize) -> Self {
        self.inlet = arrivals;
        self
    }

    /// What an earlier process kept of the streams, and this one will.
    pub(crate) fn on(mut self, shelf: &Arc<Mutex<Vec<u8>>>) -> Self {
        self.shelf = Arc::clone(shelf);
        self
    }

    /// Marks of the rows that an earlier process committed.
    pub(crate) fn knowing(mut self, marks: &[u64]) -> Self {
        self.known_marks = marks.to_vec();
        self
    }

    /// Reads and checks it as the box does: what it is, and what is said of it.
    fn read(&self) -> (Checked, Vec<String>) {
        let mut said = Vec::new();
        let mut review = |title: &str, check: &mut dyn FnMut(&mut Review<'_>)| {
            let mut review = Review::new(title, self.directory.path(), Vec::new());
            check(&mut review);
            said.extend(review.remarks.into_iter().map(|remark| {
                format!("{title} {:?}: {}; {}", remark.at, remark.message, remark.help.unwrap_or_default())
            }));
        };
        let (kind, mut table) = (self.kind, table(&self.connection));
        let mut connection = ConnectionConfig::read(kind, &mut table).expect("a connection");
        review("[connections.c]", &mut |review| connection.check(review));
        let mut streams = Vec::new();
        for (name, config) in &self.streams {
            let mut config = StreamConfig::read(kind, &mut self::table(config)).expect("a stream");
            review(name, &mut |review| config.check(&[&connection], review));
            streams.push((*name, config));
        }
        let mut outputs = Vec::new();
        for (name, config) in &self.outputs {
            let mut config = OutputConfig::read(kind, &mut self::table(config)).expect("an output");
            review(name, &mut |review| config.check(Some(&connection), review));
            outputs.push((*name, config));
        }
        (Checked { connection, streams, outputs }, said)
    }

    /// What it is, or what is said of it.
    pub(crate) fn check(&self) -> Result<Checked, Vec<String>> {
        let (checked, said) = self.read();
        if said.is_empty() { Ok(checked) } else { Err(said) }
    }

    /// Opens it, whatever is said of it.
    pub(crate) fn open(&self, status: &Arc<LineStatus>) -> Result<Line, OpenError> {
        let (Checked { connection, streams, outputs }, _) = self.read();
        let request = Request {
            name: "c",
            box_name: "box",
            streams: streams
                .iter()
                .map(|(name, config)| StreamRequest {
                    name,
                    config,
                    known: Vec::new(),
                    known_marks: self.known_marks.clone(),
                    intake: Arc::default(),
                    kept: self.shelf.lock().unwrap().clone(),
                })
                .collect(),
            outputs: outputs.iter().map(|(name, config)| (*name, config)).collect(),
            clock: Arc::new(SystemClock),
            status: Arc::clone(status),
            keep: Some(self.keep()),
        };
        if let ConnectionConfig::Mqtt(config) = &connection {
            let mqtt::Opened { source, sinks, publisher } = mqtt::open(config, "box".into(), request)?;
            return Ok(Line { source, sinks, publisher: Some(publisher) });
        }
        let Opened { source, sinks } = connection.open(request)?;
        Ok(Line { source, sinks, publisher: None })
    }

    /// Keeps what the stream remembers on the shelf.
    fn keep(&self) -> Keep {
        let shelf = Arc::clone(&self.shelf);
        Arc::new(move |_: &str, file| {
            *shelf.lock().unwrap() = file;
            std::future::ready(Ok(())).boxed()
        })
    }

    /// Opens and runs it.
    pub(crate) fn run(self) -> Rig {
        let status = Arc::new(LineStatus::default());
        let Line { source, sinks, publisher } = self.open(&status).unwrap_or_else(|error| panic!("{error}"));
        let (queue, arrivals) = mpsc::channel(self.inlet);
        let (question, asked) = watch::channel(i64::MIN);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(source.run(Inlet { queue, line: 0, asked }, shutdown.clone()));
        let (rows, _directory) = (Vec::new(), self.directory);
        Rig { arrivals, rows, question, sinks, publisher, status, shutdown, task, _directory }
    }
}

fn table(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn with_defaults(config: Value, mut defaults: Value) -> Value {
    defaults.as_object_mut().unwrap().extend(table(&config));
    defaults
}

pub(crate) struct Checked {
    connection: ConnectionConfig,
    pub(crate) streams: Vec<(&'static str, StreamConfig)>,
    pub(crate) outputs: Vec<(&'static str, OutputConfig)>,
}

/// A connection that is ready to run.
pub(crate) struct Line {
    source: Box<dyn Source>,
    sinks: BTreeMap<String, Box<dyn Sink>>,
    publisher: Option<Publisher>,
}

pub(crate) struct Rig {
    arrivals: mpsc::Receiver<Arrival>,
    /// rows that came together with one that was asked for
    rows: Vec<(String, Map<String, Value>)>,
    /// asks whether the connection listens
    pub(crate) question: watch::Sender<i64>,
    pub(crate) sinks: BTreeMap<String, Box<dyn Sink>>,
    publisher: Option<Publisher>,
    pub(crate) status: Arc<LineStatus>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _directory: TempDir,
}

impl Rig {
    /// What comes next.
    async fn arrival(&mut self) -> Arrival {
        match timeout(PATIENCE, self.arrivals.recv()).await {
            Ok(arrival) => arrival.expect("the source runs"),
            Err(_) => panic!("nothing comes: {:?}", self.status.trouble()),
        }
    }

    /// The next rows that come together, with what the connection waits for.
    pub(crate) async fn batch(&mut self) -> Batch {
        loop {
            if let Arrival::Rows(batch) = self.arrival().await {
                return batch;
            }
        }
    }

    /// Rows that are there already.
    pub(crate) fn waiting_batch(&mut self) -> Option<Batch> {
        loop {
            if let Arrival::Rows(batch) = self.arrivals.try_recv().ok()? {
                return Some(batch);
            }
        }
    }

    /// The next row of any stream, with `ts` in nanoseconds.
    pub(crate) async fn timed_row(&mut self) -> (String, Map<String, Value>) {
        while self.rows.is_empty() {
            let batch = self.batch().await;
            let row = |at| (batch.stream.to_string(), rows::cells(&batch.rows, at));
            self.rows.extend((0..batch.rows.num_rows()).map(row));
        }
        self.rows.remove(0)
    }

    /// The next row of any stream, without its time.
    pub(crate) async fn row(&mut self) -> Value {
        self.row_and_stream().await.1
    }

    pub(crate) async fn row_and_stream(&mut self) -> (String, Value) {
        let (stream, mut row) = self.timed_row().await;
        row.remove("ts");
        (stream, row.into())
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
        self.rows_and_news().await.1
    }

    /// How many rows come before there is news of the line, and that.
    pub(crate) async fn rows_and_news(&mut self) -> (usize, LineNews) {
        let mut before = 0;
        loop {
            match self.arrival().await {
                Arrival::Rows(batch) => before += batch.rows.num_rows(),
                Arrival::Line { news, .. } => return (before, news),
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

    /// Waits until the line is down, and says why; rows that have come meanwhile stay.
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

    /// Waits until the line is up; rows that have come meanwhile stay.
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
        write(&mut **self.sinks.get_mut(output).unwrap(), row).await
    }

    /// Asks an output for columns.
    pub(crate) async fn read(&mut self, output: &str, columns: &[&str]) -> Result<Value, DeliveryError> {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let reading = self.sinks.get_mut(output).unwrap().read(&columns);
        let row = timeout(PATIENCE, reading).await.expect("a read ends")?;
        assert_eq!(row.num_rows(), 1);
        Ok(rows::cells(&row, 0).into())
    }

    /// What publishes beside the outputs.
    pub(crate) fn publisher(&self) -> &Publisher {
        self.publisher.as_ref().expect("it is a session with a broker")
    }

    /// Waits until the source has ended by itself.
    pub(crate) async fn until_over(&mut self) {
        while self.arrivals.recv().await.is_some() {}
    }

    /// Ends it as a crash would: without a goodbye.
    pub(crate) async fn vanish(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Shuts down and waits for the end of the source.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        drop((self.arrivals, self.sinks, self.publisher));
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
