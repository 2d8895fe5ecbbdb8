//! A whole box: builds it from a configuration, runs it, takes it apart.
//!
//! Data flows one way, so a box is built from its end to its beginning, and taken apart from its beginning to its end: sources stop,
//! queues run dry, the buffer commits, the connections send their last acknowledgements.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidegate_connectors::http;
use tidegate_connectors::mqtt::topic::Filter;
use tidegate_connectors::mqtt::{self, OpenError, StreamRequest};
use tidegate_connectors::{ConnectionConfig, Sink, Source};
use tidegate_core::{Clock, FieldType};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::buffer::{Buffer, BufferError, SnapshotPart, Uplinks};
use crate::catalog::catalog;
use crate::config::{Config, OutputKind, Stream, StreamKind, Uplink, UplinkKind};
use crate::forwarder::{self, Forwarder, HttpUplink, MqttUplink};
use crate::journal::{Journal, Start};
use crate::outputs::OutputQueue;
use crate::router::Router;
use crate::rulebook::{Edited, RuleBook};
use crate::rules_dir::{RulesDir, RulesHandle};
use crate::schemas::SchemaStore;
use crate::sequencer::{Entry, Numbers, Sequencer};
use crate::status::Status;
use crate::supervisor::Supervisor;
use crate::worker::Worker;

/// Batches that wait for the sequencer, and entries that wait for a worker. A batch is what a connection had at once, so that a few are
/// enough to keep everybody busy, and more would only make rows wait longer.
const QUEUED_BATCHES: usize = 16;
/// Rule changes that wait for the sequencer.
const QUEUED_CHANGES: usize = 64;
/// How long a box may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// Ask for more sequence numbers when fewer are left.
const NUMBERS_LEFT: u64 = 1 << 31;

/// Why a box could not be started, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A directory could not be made.
    #[error("cannot make the directory {}: {error}", path.display())]
    Directory {
        /// the directory
        path: PathBuf,
        /// why
        error: io::Error,
    },
    /// The buffer could not be opened.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// A connection could not be prepared.
    #[error("connection `{name}`: {error}")]
    Connection {
        /// its name
        name: String,
        /// why
        error: OpenError,
    },
    /// An uplink could not be prepared.
    #[error("uplink `{name}`: {error}")]
    Uplink {
        /// its name
        name: String,
        /// why
        error: http::OpenError,
    },
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// Parts of the box did not end well.
    #[error("the box did not end well; {0}")]
    Ending(String),
}

/// A box that runs.
pub struct Running {
    status: Arc<Status>,
    supervisor: Supervisor,
    rules: RulesHandle,
    buffer: Buffer,
    outputs: Outputs,
    /// stops reading
    reading: CancellationToken,
    /// stops the forwarders
    forwarding: CancellationToken,
    /// ends when the sequencer and the workers have ended
    drained: mpsc::Receiver<()>,
}

type Outputs = BTreeMap<Arc<str>, Arc<OutputQueue>>;

/// A connection that is ready to run, before it does.
struct Line {
    name: String,
    source: Box<dyn Source>,
    sinks: BTreeMap<String, Box<dyn Sink>>,
}

/// Starts the box that `config` describes. Returns when its rules are loaded and its connections are being opened.
///
/// # Errors
/// When the data directory, the buffer or a connection's files cannot be used. That a broker is not there is no error.
pub async fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<Running, RunError> {
    let status = Arc::new(Status::default());
    let mut supervisor = Supervisor::new(CancellationToken::new());
    for path in std::iter::once(config.data_dir.as_path()).chain(config.buffer.path.parent()) {
        std::fs::create_dir_all(path).map_err(|error| RunError::Directory { path: path.to_owned(), error })?;
    }
    let buffer = Buffer::open(&config.buffer, Uplinks::of(&config.uplinks), Arc::clone(&status.outbox))?;
    let (reading, forwarding) = (CancellationToken::new(), CancellationToken::new());
    let mut recovered = buffer.recovered();
    let beginning = Start::of(&mut recovered);
    let mut schemas = SchemaStore::of(config);
    let known = config.streams.keys().map(|stream| (stream.clone(), schemas.load(stream))).collect();
    let lines = open_lines(config, &known, &recovered.marks, &clock, &status)?;
    let clouds = Clouds { config, clock: &clock, status: &status, buffer: &buffer, forwarding: &forwarding };
    config.uplinks.iter().try_for_each(|(name, uplink)| clouds.start(name, uplink, &mut supervisor))?;

    let outputs = output_queues(config, &status);
    let (draining, drained) = mpsc::channel(1);
    let router = Router { outputs: outputs.clone(), buffer: buffer.clone(), done: Arc::new(recovered.progress) };
    let workers = start_workers(config.rules.workers, &router, &status, &draining, &mut supervisor)?;
    let columns = |stream: &str| beginning.columns(stream).unwrap_or_else(|| schemas.get(stream).cloned());
    let mut book = RuleBook::new(catalog(config, &columns), config.rules.workers.get(), Arc::clone(&status));
    let journaled = journaled(config);
    let journal =
        Journal::recover(buffer.clone(), Arc::clone(&clock), journaled, beginning, &mut book, &inputs(config, &schemas), &workers).await?;
    let (rules_dir, rules) = RulesDir::new(&config.rules.dir, book);
    let (inlet, batches) = mpsc::channel(QUEUED_BATCHES);
    let (changes, change_queue) = mpsc::channel(QUEUED_CHANGES);
    let sequencer = Sequencer {
        numbers: Numbers::from(buffer.sequence_start().0),
        reserve: reserve(&buffer),
        workers,
        rules: rules.clone(),
        schemas,
        status: Arc::clone(&status),
        journal,
        snapshot_every: config.buffer.snapshot_every.0,
    };
    supervisor.spawn("sequencer", async move {
        sequencer.run(batches, change_queue).await;
        drop(draining);
    });
    load_rules(rules_dir, changes, &mut supervisor).await?;
    for line in lines {
        start_line(line, &outputs, &inlet, &reading, &mut supervisor);
    }
    tracing::info!(name = config.name, connections = config.connections.len(), streams = config.streams.len(), "the box runs");
    Ok(Running { status, supervisor, rules, buffer, outputs, reading, forwarding, drained })
}

impl Running {
    /// What flows.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Resolves when a part of the box has failed, and it must be stopped.
    pub async fn failed(&self) {
        self.supervisor.stop.cancelled().await;
    }

    /// Takes the box apart: what has come in is dealt with, what the uplink has not taken stays in the outbox.
    ///
    /// # Errors
    /// When a part has failed, or takes too long; it is named.
    pub async fn stop(mut self) -> Result<(), RunError> {
        tracing::info!("the box stops");
        self.reading.cancel();
        self.rules.stop();
        // The sequencer ends when the sources have let go of it, and the workers when the sequencer has.
        let drained = tokio::time::timeout(STOP_DEADLINE / 3, self.drained.recv()).await;
        if drained.is_err() {
            tracing::warn!(
                "rows that have come in are not all dealt with; those that were not acknowledged will be sent again by their broker"
            );
        }
        self.forwarding.cancel();
        let (outputs, buffer) = (std::mem::take(&mut self.outputs), self.buffer.clone());
        let closing = tokio::task::spawn_blocking(move || {
            buffer.close();
            outputs.values().for_each(|queue| queue.close());
        });
        let ended = self.supervisor.wait(STOP_DEADLINE).await;
        if closing.await.is_err() {
            return Err(RunError::Ending("the buffer could not be closed".into()));
        }
        ended.map_err(RunError::Ending)?;
        tracing::info!("the box has stopped");
        Ok(())
    }
}

/// Reserves numbers in time; the answer is on disk long before the numbers are used.
fn reserve(buffer: &Buffer) -> Box<dyn FnMut(u64) + Send + Sync> {
    let mut end = buffer.sequence_start().1;
    let buffer = buffer.clone();
    Box::new(move |next| {
        if end.saturating_sub(next) < NUMBERS_LEFT {
            end += 1 << 32;
            let buffer = buffer.clone();
            tokio::spawn(async move {
                if let Err(error) = buffer.reserve_more().await {
                    tracing::error!(%error, "no more row numbers could be reserved");
                }
            });
        }
    })
}

fn open_lines(
    config: &Config,
    known: &BTreeMap<String, Vec<(String, FieldType)>>,
    marks: &HashMap<Arc<str>, Vec<u64>>,
    clock: &Arc<dyn Clock>,
    status: &Status,
) -> Result<Vec<Line>, RunError> {
    let mut lines = Vec::new();
    for (name, connection) in &config.connections {
        let ConnectionConfig::Mqtt(settings) = connection;
        let streams: Vec<StreamRequest<'_>> = config
            .streams
            .iter()
            .filter_map(|(stream, kind)| match kind {
                Stream::Input { connection, kind: StreamKind::Mqtt(kind) } if connection == name => {
                    let known = known.get(stream).cloned().unwrap_or_default();
                    Some(StreamRequest {
                        name: stream,
                        config: kind,
                        known: without_captures(known, &kind.topic),
                        known_marks: marks.get(stream.as_str()).cloned().unwrap_or_default(),
                    })
                }
                _ => None,
            })
            .collect();
        let outputs: Vec<_> = config
            .outputs
            .iter()
            .filter(|(_, output)| output.connection == *name)
            .map(|(output, kind)| match &kind.kind {
                OutputKind::Mqtt(kind) => (output.as_str(), kind),
            })
            .collect();
        if streams.is_empty() && outputs.is_empty() {
            continue; // an uplink opens a session of its own
        }
        let request = mqtt::Request {
            name,
            config: settings,
            client_id: format!("tidegate-{}-{name}", config.name),
            streams,
            outputs,
            clock: Arc::clone(clock),
            status: status.connections.of(name),
        };
        let opened = mqtt::open(request).map_err(|error| RunError::Connection { name: name.clone(), error })?;
        lines.push(Line { name: name.clone(), source: opened.source, sinks: opened.sinks });
    }
    Ok(lines)
}

/// Captures of the topic come from the topic; only the others were inferred.
fn without_captures(mut columns: Vec<(String, FieldType)>, topic: &str) -> Vec<(String, FieldType)> {
    if let Ok(filter) = Filter::parse(topic) {
        columns.retain(|(column, _)| !filter.captures().contains(column));
    }
    columns
}

/// What uplinks are made of.
struct Clouds<'a> {
    config: &'a Config,
    clock: &'a Arc<dyn Clock>,
    status: &'a Arc<Status>,
    buffer: &'a Buffer,
    forwarding: &'a CancellationToken,
}

impl Clouds<'_> {
    /// Starts the uplink `name` and its forwarder.
    fn start(&self, name: &str, uplink: &Uplink, supervisor: &mut Supervisor) -> Result<(), RunError> {
        match &uplink.kind {
            UplinkKind::Mqtt(mqtt) => {
                let Some(ConnectionConfig::Mqtt(settings)) = self.config.connections.get(&mqtt.connection) else { return Ok(()) };
                let (opened, label) = self.session(name, &mqtt.connection, settings.clone())?;
                let (far_side, follow) = MqttUplink::new(opened.publisher, &mqtt.topic, &self.config.name, self.status.uplinks.of(name));
                supervisor.spawn(&format!("{name} session"), follow);
                self.forward(name, uplink, far_side, supervisor);
                // It has nothing to read; it ends when the forwarder lets go of it.
                let (nowhere, _) = mpsc::channel(1);
                supervisor.spawn(&format!("connection {label}"), opened.source.run(nowhere, self.forwarding.clone()));
            }
            UplinkKind::Http(http) => {
                let client = http::Client::open(http).map_err(|error| RunError::Uplink { name: name.to_owned(), error })?;
                let (status, line) = (self.status.uplinks.of(name), self.status.connections.of(&format!("{name} (uplink)")));
                let (far_side, follow) = HttpUplink::new(client, http, status, line);
                supervisor.spawn(&format!("{name} session"), follow);
                self.forward(name, uplink, far_side, supervisor);
            }
        }
        Ok(())
    }

    fn forward(&self, name: &str, settings: &Uplink, far_side: impl forwarder::Uplink, supervisor: &mut Supervisor) {
        let (outbox, status) = (self.buffer.outbox(name), self.status.uplinks.of(name));
        let forwarder = Forwarder::new(outbox, far_side, settings, &self.config.name, status);
        supervisor.spawn(&format!("forwarder of {name}"), forwarder.run(self.forwarding.clone()));
    }

    /// An uplink has a session of its own: a busy field must not hold it up. Returns it with the name that it has in logs.
    fn session(&self, uplink: &str, name: &str, mut settings: mqtt::ConnectionConfig) -> Result<(mqtt::Opened, String), RunError> {
        let Config { name: box_name, streams, outputs, uplinks, .. } = self.config;
        let shared = streams.values().any(|stream| matches!(stream, Stream::Input { connection, .. } if connection == name))
            || outputs.values().any(|output| output.connection == *name)
            || uplinks.iter().any(|(other, settings)| other != uplink && settings.connection() == Some(name));
        // Two sessions with one client id would throw each other out.
        if shared {
            settings.client_id = settings.client_id.map(|id| format!("{id}-{uplink}"));
            settings.last_will = None;
        }
        let label = if shared { format!("{name} ({uplink})") } else { name.to_owned() };
        let suffix = if uplink == "uplink" { String::new() } else { format!("-{uplink}") };
        let request = mqtt::Request {
            name: &label,
            config: &settings,
            client_id: format!("tidegate-{box_name}-uplink{suffix}"),
            streams: Vec::new(),
            outputs: Vec::new(),
            clock: Arc::clone(self.clock),
            status: self.status.connections.of(&label),
        };
        let opened = mqtt::open(request).map_err(|error| RunError::Connection { name: name.to_owned(), error })?;
        Ok((opened, label))
    }
}

/// The streams that are journaled.
fn journaled(config: &Config) -> BTreeSet<String> {
    let is_journaled = |stream: &Stream| match stream {
        Stream::Input { kind: StreamKind::Mqtt(kind), .. } => kind.is_journaled(),
        Stream::Derived { .. } => false,
    };
    config.streams.iter().filter(|(_, stream)| is_journaled(stream)).map(|(name, _)| name.clone()).collect()
}

/// The columns of input streams, as far as they are known.
fn inputs(config: &Config, schemas: &SchemaStore) -> BTreeMap<String, SchemaRef> {
    let inputs = config.streams.iter().filter(|(_, stream)| matches!(stream, Stream::Input { .. }));
    inputs.filter_map(|(name, _)| Some((name.clone(), schemas.get(name)?.clone()))).collect()
}

fn output_queues(config: &Config, status: &Status) -> Outputs {
    let queue =
        |name: &str, queue: NonZeroUsize, when_full| Arc::new(OutputQueue::new(name, queue.get(), when_full, status.outputs.of(name)));
    config.outputs.iter().map(|(name, output)| (Arc::from(name.as_str()), queue(name, output.queue, output.when_full))).collect()
}

fn start_workers(
    count: NonZeroUsize,
    router: &Router,
    status: &Arc<Status>,
    draining: &mpsc::Sender<()>,
    supervisor: &mut Supervisor,
) -> Result<Vec<mpsc::Sender<Entry>>, RunError> {
    let mut queues = Vec::with_capacity(count.get());
    for number in 0..count.get() {
        let (entries, mut queue) = mpsc::channel(QUEUED_BATCHES);
        let mut worker = Worker::new(Arc::clone(status));
        let (router, draining) = (router.clone(), draining.clone());
        supervisor.thread(&format!("rules {number}"), move || {
            while let Some(entry) = queue.blocking_recv() {
                match entry {
                    Entry::Change(change) => worker.on_change(change),
                    Entry::Batch { stream, rows, origin } => router.send(worker.on_batch(&stream, &rows), &origin),
                    Entry::Restore { rule, state } => worker.restore(&rule, state),
                    Entry::Snapshot(number) => {
                        // The buffer is closed only when the box is going down.
                        drop(router.buffer.snapshot_part(SnapshotPart { number, states: worker.snapshot() }));
                    }
                }
            }
            drop(draining);
        })?;
        queues.push(entries);
    }
    Ok(queues)
}

/// Runs the rules directory's thread, and waits until it has loaded what is there.
async fn load_rules(rules: RulesDir, changes: mpsc::Sender<Edited>, supervisor: &mut Supervisor) -> Result<(), RunError> {
    let (loaded, ready) = oneshot::channel();
    supervisor.thread("rules directory", move || rules.run(&changes, loaded))?;
    // An error means that the thread has failed; the supervisor stops the box then.
    let _ = ready.await;
    Ok(())
}

fn start_line(line: Line, outputs: &Outputs, inlet: &tidegate_connectors::Inlet, reading: &CancellationToken, supervisor: &mut Supervisor) {
    for (name, sink) in line.sinks {
        if let Some(queue) = outputs.get(name.as_str()).cloned() {
            supervisor.spawn(&format!("output {name}"), async move { queue.deliver_to(sink).await });
        }
    }
    supervisor.spawn(&format!("connection {}", line.name), line.source.run(inlet.clone(), reading.clone()));
}
