//! The world of a box: the machine it runs on, with its clock, its disk, and lines to the
//! outside.

use std::sync::Arc;

use tidegate_connectors::connection::{self, StreamRequest};
use tidegate_connectors::uplink::{self, FarSide};
use tidegate_core::Clock;
use tidegate_core::clock::SystemClock;
use tokio_util::sync::CancellationToken;

use crate::catalog::catalog;
use crate::config::{self, Config, Stream, Uplink};
use crate::disk::{Disk, SystemDisk};
use crate::error::RunError;
use crate::rules::book::{AfterRestart, RuleBook};
use crate::rules::directory::RulesDir;
use crate::rules::tables::TableFiles;
use crate::sequencer::memory::StreamMemory;
use crate::status::Status;
use crate::supervisor::{SystemThreads, Threads};
use crate::world::{Known, Line, Rules, World};

/// The machine that a box runs on.
#[derive(Debug, Default)]
pub struct Machine;

impl Machine {
    /// Why a start would be refused: opens each line and each way to the cloud as a start does, and lets go
    /// of them.
    #[must_use]
    pub fn refusals(&mut self, config: &Config, known: &Known) -> Vec<RunError> {
        let (clock, status, stop) = (self.clock(), Status::default(), CancellationToken::new());
        let lines = config
            .connections
            .keys()
            .filter_map(|name| open_line(config, name, known, &clock, &status).err());
        let mut refusals: Vec<RunError> = lines.collect();
        for (name, uplink) in &config.uplinks {
            let refused = self.uplink(config, name, uplink, &status, &stop).err();
            // A connection that cannot be opened for streams cannot be opened for the uplink either.
            refusals.extend(
                refused.filter(|error| refusals.iter().all(|other| other.to_string() != error.to_string())),
            );
        }
        refusals
    }
}

impl World for Machine {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(SystemDisk)
    }

    fn threads(&self) -> Arc<dyn Threads> {
        Arc::new(SystemThreads)
    }

    fn lines(&mut self, config: &Config, known: &Known, status: &Status) -> Result<Vec<Line>, RunError> {
        open_lines(config, known, &self.clock(), status)
    }

    fn uplink(
        &mut self,
        config: &Config,
        name: &str,
        uplink: &Uplink,
        status: &Status,
        stop: &CancellationToken,
    ) -> Result<FarSide, RunError> {
        open_uplink(config, name, uplink, &self.clock(), status, stop)
    }

    fn rules(&mut self, config: &Config, book: RuleBook) -> Rules {
        let book = book.knowing(after_restart(config.clone()));
        let tables = TableFiles::new(config);
        let (rules, handle) = RulesDir::new(&config.rules.dir, tables, book);
        Rules { handle, run: Box::new(|changes, loaded| Box::pin(rules.run(changes, loaded))) }
    }
}

/// What rules could name if a box that was started with `config` read its file again.
fn after_restart(config: Config) -> AfterRestart {
    Box::new(move |running| {
        let now = config::load(&config.file).ok()?;
        if config.differences(&now).is_empty() {
            return None;
        }
        let mut then = catalog(&now, &|stream| running.inputs.get(stream).cloned().flatten());
        for (name, columns) in &mut then.tables {
            *columns = columns.take().or_else(|| running.tables.get(name).cloned().flatten());
        }
        Some(then)
    })
}

fn open_lines(
    config: &Config,
    known: &Known,
    clock: &Arc<dyn Clock>,
    status: &Status,
) -> Result<Vec<Line>, RunError> {
    let lines = config.connections.keys().map(|name| open_line(config, name, known, clock, status));
    lines.filter_map(Result::transpose).collect()
}

/// The connection called `name`; none if nothing is read from it or written to it: an uplink opens a session
/// of its own.
fn open_line<'a>(
    config: &'a Config,
    name: &str,
    known: &Known,
    clock: &Arc<dyn Clock>,
    status: &Status,
) -> Result<Option<Line>, RunError> {
    let Some(connection) = config.connections.get(name) else { return Ok(None) };
    let memory = StreamMemory::new(&config.data_dir, Arc::new(SystemDisk));
    let request = |(stream, settings): (&'a String, &'a Stream)| match settings {
        Stream::Input(of) if settings.is_fed_by(name) => Some(StreamRequest {
            name: stream,
            config: of,
            known: known.columns.get(stream).cloned().unwrap_or_default(),
            known_marks: known.marks.get(stream.as_str()).cloned().unwrap_or_default(),
            intake: Arc::clone(&status.streams.of(stream).intake),
            kept: memory.load(stream),
        }),
        _ => None,
    };
    let streams: Vec<StreamRequest<'_>> = config.streams.iter().filter_map(request).collect();
    let outputs = config.outputs.iter().filter(|(_, output)| output.config.connection() == name);
    let outputs: Vec<_> = outputs.map(|(output, settings)| (output.as_str(), &settings.config)).collect();
    if streams.is_empty() && outputs.is_empty() {
        return Ok(None);
    }
    let opened = connection
        .open(connection::Request {
            name,
            box_name: &config.name,
            streams,
            outputs,
            clock: Arc::clone(clock),
            status: status.connections.of(name),
            keep: Some(memory.keep()),
        })
        .map_err(|error| RunError::Connection { name: name.to_owned(), error })?;
    Ok(Some(Line { name: name.to_owned(), source: opened.source, sinks: opened.sinks }))
}

/// The way to the cloud called `name`.
fn open_uplink(
    config: &Config,
    name: &str,
    uplink: &Uplink,
    clock: &Arc<dyn Clock>,
    status: &Status,
    stop: &CancellationToken,
) -> Result<FarSide, RunError> {
    let Config { name: box_name, connections, streams, outputs, uplinks, .. } = config;
    let connection = uplink.config.connection();
    let is_shared = connection.is_some_and(|connection| {
        streams.values().any(|stream| stream.is_fed_by(connection))
            || outputs.values().any(|output| output.config.connection() == connection)
            || uplinks.iter().any(|(other, of)| other != name && of.config.connection() == Some(connection))
    });
    let request = uplink::Request {
        name,
        box_name,
        connection: connection.and_then(|connection| connections.get(connection)),
        is_shared,
        clock: Arc::clone(clock),
        status: Arc::clone(&status.uplinks.of(name).far_side),
        lines: &|line| status.connections.of(line),
        stop: stop.clone(),
    };
    // What is wrong with an uplink by a connection is wrong with that.
    uplink.config.open(request).map_err(|error| match connection {
        Some(connection) => RunError::Connection { name: connection.to_owned(), error },
        None => RunError::Uplink { name: name.to_owned(), error },
    })
}
