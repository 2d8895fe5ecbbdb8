//! A whole box: builds it from a configuration, runs it, takes it apart.
//!
//! Data flows one way, so a box is built from its end to its beginning, and taken apart from its beginning to
//! its end: sources stop, queues run dry, the buffer commits, the connections send their last
//! acknowledgements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidegate_connectors::Inlet;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::buffer::{Buffer, Uplinks};
use crate::catalog::catalog;
use crate::config::{Config, Stream};
use crate::error::RunError;
use crate::management::managed_box::{Handles, Heartbeat};
use crate::outputs::Outputs;
use crate::outputs::contract::Contracts;
use crate::rules::book::RuleBook;
use crate::rules::compiled::CompiledFiles;
use crate::rules::directory::RulesHandle;
use crate::rules::router::Router;
use crate::rules::tables::adopt_copies;
use crate::rules::watchdog::Watchdog;
use crate::rules::worker::Worker;
use crate::sequence::entry::Entry;
use crate::sequence::wakes::Wakes;
use crate::sequencer::journal::{Journal, Kept, Start};
use crate::sequencer::numbers::Numbers;
use crate::sequencer::schemas::SchemaStore;
use crate::sequencer::{Listeners, Sequencer};
use crate::status::Status;
use crate::supervisor::Supervisor;
use crate::system::control::ControlEvents;
use crate::system::writes::WriteReports;
use crate::system::{self, BoxItself};
use crate::uplinks::Forwarder;
use crate::world::{Known, Line, Rules, World};

/// Batches that wait for the sequencer, and entries that wait for a worker. A batch is what a connection had
/// at once, so that a few are enough to keep everybody busy, and more would only make rows wait longer.
const QUEUED_BATCHES: usize = 16;
/// Rule changes that wait for the sequencer.
const QUEUED_CHANGES: usize = 64;
/// How long a box may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

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
    /// ends when the outputs have
    delivered: mpsc::Receiver<()>,
    heartbeat: Heartbeat,
    control: ControlEvents,
}

/// Starts the box that `config` describes. Returns when its rules are loaded and its connections are being
/// opened.
///
/// # Errors
/// When the data directory, the buffer or a connection's files cannot be used. That nobody is there is
/// no error.
pub async fn start(config: &Config, world: &mut dyn World) -> Result<Running, RunError> {
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let (clock, disk) = (world.clock(), world.disk());
    let status = Arc::new(Status::default());
    let mut supervisor = Supervisor::new(world.threads(), CancellationToken::new());
    for path in std::iter::once(config.data_dir.as_path()).chain(config.buffer.path.parent()) {
        disk.make_dir(path).map_err(|error| RunError::Directory { path: path.to_owned(), error })?;
    }
    let uplinks = Uplinks::from_config(&config.uplinks);
    let (buffer, writer) =
        Buffer::open(&config.buffer, uplinks, clock, Arc::clone(&disk), Arc::clone(&status.outbox))?;
    supervisor.thread("buffer writer", writer)?;
    let (reading, forwarding) = (CancellationToken::new(), CancellationToken::new());
    let mut recovered = buffer.recovered();
    let mut schemas = SchemaStore::new(config, Arc::clone(&disk));
    adopt_copies(&*disk, &config.data_dir, &buffer).await?;
    let beginning = Start::new(&mut recovered);
    let mut load =
        |stream: &String| (stream.clone(), schemas.load(stream, beginning.columns(stream).flatten()));
    let columns = config.streams.keys().map(&mut load).collect();
    let known = Known { columns, marks: std::mem::take(&mut recovered.marks) };
    let mut listeners = Listeners::default();
    let mut lines: Vec<_> = world
        .lines(config, &known, &status)?
        .into_iter()
        .map(|line| (listeners.add(streams_of(config, &line.name)), line))
        .collect();
    let control = ControlEvents::new(world.clock());
    let writes = WriteReports::new(world.clock(), Arc::clone(&status));
    for own in &system::STREAMS {
        let (status, clock) = (&*status, world.clock());
        let source = own.open(BoxItself { config, status, clock, control: &control, writes: &writes });
        let line = Line { name: own.name.to_owned(), source, sinks: BTreeMap::new() };
        lines.push((listeners.add([Arc::from(own.name)]), line));
    }
    for (name, uplink) in &config.uplinks {
        let far_side = world.uplink(config, name, uplink, &status, &forwarding)?;
        let forwarder = Forwarder::new(
            buffer.outbox(name),
            far_side.uplink,
            uplink,
            &config.name,
            status.uplinks.of(name),
        );
        far_side.tasks.into_iter().for_each(|(task, run)| supervisor.spawn(&task, run));
        supervisor.spawn(&format!("forwarder of {name}"), forwarder.run(forwarding.clone()));
    }

    let outputs = Outputs::from_config(config, &status, buffer.time(), writes.clone(), control.clone());
    let (draining, drained) = mpsc::channel(1);
    let decided = recovered.decisions;
    let router = Router {
        outputs: outputs.clone(),
        buffer: buffer.clone(),
        done: Arc::new(recovered.progress),
        decided: Arc::clone(&decided),
    };
    let wakes = Wakes::new(config.rules.workers.get());
    let columns = |stream: &str| beginning.columns(stream).unwrap_or_else(|| schemas.get(stream).cloned());
    let mut catalog = catalog(config, &columns);
    let contracts = Contracts::from_config(config, &catalog, &status);
    catalog.plugins.compiled = Some(Arc::new(CompiledFiles::below(&config.data_dir, Arc::clone(&disk))));
    let mut book =
        RuleBook::new(catalog, config.rules.workers.get(), Arc::clone(&status)).compiled_by(world.compile());
    book = book.governed_by(&contracts);
    let looked_at = contracts.touches().iter().map(ToString::to_string).collect::<Vec<_>>();
    let workers =
        start_workers(&config.rules, &router, &wakes, &status, &draining, contracts, &mut supervisor)?;
    let mut kept = Kept::from_config(config);
    // What decisions about outputs depend on is kept, whatever their streams say.
    kept.streams.extend(looked_at);
    let columns = inputs(config, &schemas);
    let journal =
        Journal::recover(buffer.clone(), kept, beginning, &mut book, &columns, &workers, wakes.loads())
            .await?;
    let Rules { handle: rules, run: run_rules } = world.rules(config, book);
    let (queue, intake) = mpsc::channel(QUEUED_BATCHES);
    let (changes, change_queue) = mpsc::channel(QUEUED_CHANGES);
    let (heartbeat, beats) = mpsc::channel(1);
    let (numbers, reserving) = Numbers::reserved_in(buffer.clone());
    supervisor.spawn("row numbers", reserving);
    let sequencer = Sequencer {
        numbers,
        time: buffer.time(),
        workers,
        wakes,
        listeners,
        rules: rules.clone(),
        schemas,
        status: Arc::clone(&status),
        journal,
        snapshot_every: config.buffer.snapshot_every.0,
        decided,
    };
    supervisor.spawn("sequencer", async move {
        sequencer.run(intake, change_queue, beats).await;
        drop(draining);
    });
    let (loaded, ready) = oneshot::channel();
    supervisor.thread("rules", run_rules(changes, loaded))?;
    // An error means that it has failed; the supervisor stops the box then.
    let _ = ready.await;
    let (delivering, delivered) = mpsc::channel(1);
    for ((number, asked), Line { name, source, sinks }) in lines {
        for (name, sink) in sinks {
            let (task, delivering) = (outputs.task(&name, sink), delivering.clone());
            let deliver = async move {
                if let Some(task) = task {
                    task.run().await;
                }
                drop(delivering);
            };
            supervisor.spawn(&format!("output {name}"), deliver);
        }
        let inlet = Inlet { queue: queue.clone(), line: number, asked };
        supervisor.spawn(&format!("connection {name}"), source.run(inlet, reading.clone()));
    }
    tracing::info!(
        name = config.name,
        connections = config.connections.len(),
        streams = config.streams.len(),
        "the box runs"
    );
    Ok(Running {
        status,
        supervisor,
        rules,
        buffer,
        outputs,
        reading,
        forwarding,
        drained,
        delivered,
        heartbeat,
        control,
    })
}

impl Running {
    /// What flows.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Asks the sequencer whether it still goes round.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// What it takes to ask the box.
    #[must_use]
    pub fn handles(&self) -> Handles {
        Handles { status: self.status(), control: self.control.clone(), time: self.buffer.time() }
    }

    /// Resolves when a part of the box has failed, and it must be stopped.
    pub async fn failed(&self) {
        self.supervisor.stop.cancelled().await;
    }

    /// Takes the box apart: what has come in is dealt with, what the uplink has not taken stays in the
    /// outbox.
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
                "rows that have come in are not all dealt with; those that were not acknowledged will be \
                sent again by whoever sent them"
            );
        }
        self.forwarding.cancel();
        let Self { supervisor, outputs, delivered, buffer, .. } = &mut self;
        let closing = async {
            // Outputs before the buffer, so that what became of the last writes can still be kept.
            outputs.close();
            let _ = tokio::time::timeout(STOP_DEADLINE / 3, delivered.recv()).await;
            // Whoever still waits for the buffer is let go by that. Outputs and a writer that do not end in
            // time are among those that are named.
            let _ = tokio::time::timeout(STOP_DEADLINE, buffer.close()).await;
        };
        let (ended, ()) = tokio::join!(supervisor.wait(STOP_DEADLINE), closing);
        ended.map_err(RunError::Ending)?;
        tracing::info!("the box has stopped");
        Ok(())
    }
}

/// The streams that connection `name` brings.
fn streams_of<'a>(config: &'a Config, name: &'a str) -> impl Iterator<Item = Arc<str>> + 'a {
    let streams = config.streams.iter().filter(move |(_, stream)| stream.is_fed_by(name));
    streams.map(|(stream, _)| Arc::from(stream.as_str()))
}

/// The columns of input streams, as far as they are known.
fn inputs(config: &Config, schemas: &SchemaStore) -> BTreeMap<String, SchemaRef> {
    let inputs = config.streams.iter().filter(|(_, stream)| matches!(stream, Stream::Input(_)));
    let own = system::STREAMS.iter().map(|own| own.name);
    let names = inputs.map(|(name, _)| name.as_str()).chain(own);
    names.filter_map(|name| Some((name.to_owned(), schemas.get(name)?.clone()))).collect()
}

fn start_workers(
    config: &crate::config::Rules,
    router: &Router,
    wakes: &Arc<Wakes>,
    status: &Arc<Status>,
    draining: &mpsc::Sender<()>,
    contracts: Contracts,
    supervisor: &mut Supervisor,
) -> Result<Vec<mpsc::Sender<Entry>>, RunError> {
    let (count, watchdog) = (config.workers, Watchdog::new(config.time_limit.0));
    let (mut queues, mut contracts) = (Vec::with_capacity(count.get()), Some(contracts));
    for number in 0..count.get() {
        let (entries, queue) = mpsc::channel(QUEUED_BATCHES);
        let mut worker = Worker::new(Arc::clone(status)).watched(watchdog.watch());
        if number == Contracts::WORKER
            && let Some(contracts) = contracts.take()
        {
            worker = worker.governing(contracts);
        }
        let (router, waker, draining) = (router.clone(), wakes.waker(number), draining.clone());
        let work = async move {
            worker.run(queue, router, waker).await;
            drop(draining);
        };
        let name = format!("rules {number}");
        // The only one has nobody to make room for, and each hand-over to another thread makes a row late.
        if count.get() == 1 {
            supervisor.spawn_unnamed(&name, work)
        } else {
            supervisor.thread(&name, work)?
        }
        queues.push(entries);
    }
    Ok(queues)
}
