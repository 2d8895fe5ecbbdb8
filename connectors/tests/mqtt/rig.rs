//! A connection under test: opened, running, and its ends in the test's hands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::FutureExt;
use serde_json::{Value, json};
use tidegate_connectors::connection::{Request, StreamRequest};
use tidegate_connectors::mqtt::{self, ConnectionConfig, Publisher, Session};
use tidegate_connectors::status::LineStatus;
use tidegate_connectors::{
    Arrival, Inlet, Keep, LineNews, OpenError, OutputConfig, Sink, StreamConfig, Writes,
};
use tidegate_core::Batch;
use tidegate_core::clock::SystemClock;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::peer::PATIENCE;

pub(crate) const VERSIONS: [&str; 2] = ["3.1.1", "5"];

/// What to open, as users would write it.
pub(crate) struct Setup {
    pub(crate) connection: Value,
    pub(crate) streams: Vec<(&'static str, Value)>,
    pub(crate) outputs: Vec<(&'static str, Value)>,
    pub(crate) inlet: usize,
    /// What an earlier process committed of each stream.
    pub(crate) known_marks: Vec<u64>,
    shelf: Arc<Mutex<Vec<u8>>>,
}

impl Setup {
    pub(crate) fn new(version: &str, port: u16) -> Self {
        let connection = json!({
            "host": "127.0.0.1", "port": port, "version": version, "client_id": "box",
            "backoff": { "min": "1ms", "max": "50ms" },
        });
        Self {
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

    /// A stream of `{"n": 1}` on `plant/{device}/n`.
    pub(crate) fn numbers(self, qos: u8) -> Self {
        self.stream(
            "numbers",
            json!({ "connection": "c", "topic": "plant/{device}/n", "qos": qos, "fields": { "n": "int64" } }),
        )
    }

    pub(crate) fn stream(mut self, name: &'static str, config: Value) -> Self {
        self.streams.push((name, config));
        self
    }

    pub(crate) fn output(mut self, name: &'static str, config: Value) -> Self {
        self.outputs.push((name, config));
        self
    }

    pub(crate) fn open(&self, status: &Arc<LineStatus>) -> Result<mqtt::Opened, OpenError> {
        let config: ConnectionConfig = serde_json::from_value(self.connection.clone()).unwrap();
        let streams: Vec<(&str, StreamConfig)> = self
            .streams
            .iter()
            .map(|(name, value)| {
                let config = mqtt::StreamConfig::read(&mut value.as_object().unwrap().clone()).unwrap();
                (*name, StreamConfig::Mqtt(config))
            })
            .collect();
        let outputs: Vec<(&str, OutputConfig)> = self
            .outputs
            .iter()
            .map(|(name, value)| (*name, OutputConfig::Mqtt(serde_json::from_value(value.clone()).unwrap())))
            .collect();
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
        mqtt::open(&config, "box".into(), request)
    }

    /// Keeps what the stream remembers on the shelf.
    fn keep(&self) -> Keep {
        let shelf = Arc::clone(&self.shelf);
        Arc::new(move |_: &str, file| {
            *shelf.lock().unwrap() = file;
            std::future::ready(Ok(())).boxed()
        })
    }

    /// What an earlier process kept, and this one will.
    pub(crate) fn on(mut self, shelf: &Arc<Mutex<Vec<u8>>>) -> Self {
        self.shelf = Arc::clone(shelf);
        self
    }

    /// Marks of the rows that an earlier process committed.
    pub(crate) fn knowing(mut self, marks: &[u64]) -> Self {
        self.known_marks = marks.to_vec();
        self
    }

    /// Opens and runs it.
    pub(crate) fn run(self) -> Rig {
        let status = Arc::new(LineStatus::default());
        let opened = self.open(&status).unwrap();
        let (queue, rows) = mpsc::channel(self.inlet);
        let (question, asked) = watch::channel(i64::MIN);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(opened.source.run(Inlet { queue, line: 0, asked }, shutdown.clone()));
        let rows = Rows { intake: rows };
        Rig { rows, question, sinks: opened.sinks, publisher: opened.publisher, status, shutdown, task }
    }
}

/// What comes from the connection. Who asks for rows is not told whether it listens.
pub(crate) struct Rows {
    intake: mpsc::Receiver<Arrival>,
}

impl Rows {
    pub(crate) async fn recv(&mut self) -> Option<Batch> {
        loop {
            if let Arrival::Rows(batch) = self.intake.recv().await? {
                return Some(batch);
            }
        }
    }

    pub(crate) fn try_recv(&mut self) -> Result<Batch, mpsc::error::TryRecvError> {
        loop {
            if let Arrival::Rows(batch) = self.intake.try_recv()? {
                return Ok(batch);
            }
        }
    }
}

pub(crate) struct Rig {
    pub(crate) rows: Rows,
    /// asks whether the connection listens
    pub(crate) question: watch::Sender<i64>,
    pub(crate) sinks: BTreeMap<String, Box<dyn Sink>>,
    pub(crate) publisher: Publisher,
    pub(crate) status: Arc<LineStatus>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    /// Waits for a connection later than `generation`.
    pub(crate) async fn connected_after(&self, generation: u64) -> Session {
        let mut session = self.publisher.session();
        let found = tokio::time::timeout(
            PATIENCE,
            session.wait_for(|session| session.is_some_and(|session| session.generation > generation)),
        );
        let Ok(found) = found.await else { panic!("it does not connect: {:?}", self.status.trouble()) };
        found.unwrap().unwrap()
    }

    pub(crate) async fn disconnected(&self) {
        let mut session = self.publisher.session();
        tokio::time::timeout(PATIENCE, session.wait_for(Option::is_none)).await.expect("it notices").unwrap();
    }

    /// Waits until the line is down for a reason, and returns it.
    pub(crate) async fn turned_down(&self) -> String {
        let reason = async {
            loop {
                match self.status.trouble() {
                    Some(reason) => return reason,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, reason).await.expect("it fails")
    }

    /// Takes what comes until there is news of the line. Returns how many rows came before it.
    pub(crate) async fn news(&mut self) -> (usize, LineNews) {
        let mut before = 0;
        loop {
            let intake =
                tokio::time::timeout(PATIENCE, self.rows.intake.recv()).await.expect("there is news");
            match intake.expect("the source runs") {
                Arrival::Rows(batch) => before += batch.rows.num_rows(),
                Arrival::Line { news, .. } => return (before, news),
            }
        }
    }

    pub(crate) async fn batch(&mut self) -> Batch {
        tokio::time::timeout(PATIENCE, self.rows.recv()).await.expect("rows come").expect("the source runs")
    }

    /// Takes batches until there are `count` numbers.
    pub(crate) async fn numbers(&mut self, count: usize) -> (Vec<i64>, Vec<Batch>) {
        let (mut seen, mut batches) = (Vec::new(), Vec::new());
        while seen.len() < count {
            let batch = self.batch().await;
            seen.extend(numbers(&batch.rows));
            batches.push(batch);
        }
        (seen, batches)
    }

    /// Waits until `count` messages were known again.
    pub(crate) async fn repeated(&self, count: u64) {
        let repeated = || self.status.count("repeated");
        let wait = async {
            while repeated() < count {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{} messages instead of {count} were known again", repeated());
        }
        assert_eq!(repeated(), count);
    }

    /// Waits until the broker has granted `count` subscriptions.
    pub(crate) async fn subscribed(&self, count: u64) {
        let wait = async {
            while self.status.count("subscriptions") < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the broker grants the subscriptions");
    }

    /// Waits until the broker has every acknowledgement that was due before: it takes packets in the order in
    /// which they are sent.
    pub(crate) async fn acknowledged(&self) {
        self.publisher
            .publish("box/mark", "".into(), mqtt::config::Qos::AtLeastOnce, false)
            .await
            .unwrap()
            .await
            .unwrap();
    }

    /// Waits until the subscriptions are in force: until a message on `topic` comes through. Its rows are
    /// acknowledged.
    pub(crate) async fn listening(&mut self, peer: &super::peer::Peer) {
        loop {
            peer.publish("plant/probe/n", r#"{"n": -1}"#, 1, false).await;
            if let Ok(Some(_)) =
                tokio::time::timeout(std::time::Duration::from_millis(50), self.rows.recv()).await
            {
                break;
            }
        }
        while self.rows.try_recv().is_ok() {}
    }

    /// Ends it as a crash would: without a goodbye.
    pub(crate) async fn vanish(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Shuts down and waits for the end of the source.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        drop((self.rows, self.sinks, self.publisher));
        tokio::time::timeout(PATIENCE, self.task).await.expect("the source ends").unwrap();
    }
}

/// The values of column `n`, without probes.
pub(crate) fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("n")
        .unwrap()
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .copied()
        .filter(|n| *n >= 0)
        .collect()
}

pub(crate) fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    rows.column_by_name(column)
        .unwrap()
        .as_string::<i32>()
        .iter()
        .map(|text| text.unwrap().to_owned())
        .collect()
}

/// Writes of which the far side is told no cause.
pub(crate) fn uncaused(rows: &RecordBatch) -> Writes<'_> {
    Writes { rows, causes: &[], now: 0 }
}
