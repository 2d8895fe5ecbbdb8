//! The world of a box: the machine it runs on, with its clock, its disk, and lines to brokers and web
//! servers.

use std::sync::Arc;

use tidegate_connectors::http;
use tidegate_connectors::mqtt::topic::Filter;
use tidegate_connectors::mqtt::{self, OpenError, StreamRequest};
use tidegate_connectors::{ConnectionConfig, Inlet};
use tidegate_core::clock::SystemClock;
use tidegate_core::{Clock, FieldType};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, OutputKind, Stream, StreamKind, Uplink, UplinkKind};
use crate::disk::{Disk, SystemDisk};
use crate::forwarder::{HttpUplink, MqttUplink};
use crate::memories::Memories;
use crate::rulebook::RuleBook;
use crate::rules_dir::RulesDir;
use crate::run::RunError;
use crate::status::Status;
use crate::supervisor::{SystemThreads, Threads};
use crate::tables::TableFiles;
use crate::world::{FarSide, Known, Line, Rules, World};

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
        let tables = TableFiles::new(config);
        let (rules, handle) = RulesDir::new(&config.rules.dir, tables, book);
        Rules { handle, run: Box::new(|changes, loaded| Box::pin(rules.run(changes, loaded))) }
    }
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
fn open_line(
    config: &Config,
    name: &str,
    known: &Known,
    clock: &Arc<dyn Clock>,
    status: &Status,
) -> Result<Option<Line>, RunError> {
    let Some(ConnectionConfig::Mqtt(settings)) = config.connections.get(name) else { return Ok(None) };
    let memories = Memories::new(&config.data_dir, Arc::new(SystemDisk));
    let streams: Vec<StreamRequest<'_>> = config
        .streams
        .iter()
        .filter_map(|(stream, kind)| match kind {
            Stream::Input { connection, kind: StreamKind::Mqtt(kind) } if connection == name => {
                let columns = known.columns.get(stream).cloned().unwrap_or_default();
                Some(StreamRequest {
                    name: stream,
                    config: kind,
                    known: without_given(columns, kind),
                    known_marks: known.marks.get(stream.as_str()).cloned().unwrap_or_default(),
                    intake: Arc::clone(&status.streams.of(stream).intake),
                    kept: memories.load(stream),
                })
            }
            _ => None,
        })
        .collect();
    let outputs: Vec<_> = config
        .outputs
        .iter()
        .filter(|(_, output)| output.connection == name)
        .map(|(output, kind)| match &kind.kind {
            OutputKind::Mqtt(kind) => (output.as_str(), kind),
        })
        .collect();
    if streams.is_empty() && outputs.is_empty() {
        return Ok(None);
    }
    let request = mqtt::Request {
        name,
        config: settings,
        client_id: format!("tidegate-{}-{name}", config.name),
        streams,
        outputs,
        clock: Arc::clone(clock),
        status: status.connections.of(name),
        keep: Some(memories.keep()),
    };
    let opened =
        mqtt::open(request).map_err(|error| RunError::Connection { name: name.to_owned(), error })?;
    Ok(Some(Line { name: name.to_owned(), source: opened.source, sinks: opened.sinks }))
}

/// Captures of the topic and the flag do not come from the payload; only the others were inferred.
fn without_given(
    mut columns: Vec<(String, FieldType)>,
    stream: &mqtt::StreamConfig,
) -> Vec<(String, FieldType)> {
    let filter = Filter::parse(&stream.topic).ok();
    let is_capture =
        |column: &String| filter.as_ref().is_some_and(|filter| filter.captures().contains(column));
    columns.retain(|(column, _)| !is_capture(column) && stream.retained_column.as_ref() != Some(column));
    columns
}

/// The way to the cloud called `name`, to a broker or a web server.
fn open_uplink(
    config: &Config,
    name: &str,
    uplink: &Uplink,
    clock: &Arc<dyn Clock>,
    status: &Status,
    stop: &CancellationToken,
) -> Result<FarSide, RunError> {
    match &uplink.kind {
        UplinkKind::Mqtt(mqtt) => {
            let (opened, label) = open_session(config, name, &mqtt.connection, clock, status)?;
            let (uplink, follow) =
                MqttUplink::new(opened.publisher, &mqtt.topic, &config.name, status.uplinks.of(name));
            // It has nothing to read; it ends when the forwarder lets go of it.
            let connection = opened.source.run(Inlet::nowhere(), stop.clone());
            let tasks = vec![
                (format!("{name} session"), Box::pin(follow) as _),
                (format!("connection {label}"), connection),
            ];
            Ok(FarSide { uplink: Box::new(uplink), tasks })
        }
        UplinkKind::Http(http) => {
            let client = http::Client::open(http)
                .map_err(|error| RunError::Uplink { name: name.to_owned(), error })?;
            let line = status.connections.of(&format!("{name} (uplink)"));
            let (uplink, follow) = HttpUplink::new(client, http, status.uplinks.of(name), line);
            Ok(FarSide {
                uplink: Box::new(uplink),
                tasks: vec![(format!("{name} session"), Box::pin(follow) as _)],
            })
        }
    }
}

/// An uplink has a session of its own: a busy field must not hold it up. Returns it with the name that it has
/// in logs.
fn open_session(
    config: &Config,
    uplink: &str,
    name: &str,
    clock: &Arc<dyn Clock>,
    status: &Status,
) -> Result<(mqtt::Opened, String), RunError> {
    let Config { name: box_name, connections, streams, outputs, uplinks, .. } = config;
    let Some(ConnectionConfig::Mqtt(settings)) = connections.get(name) else {
        return Err(RunError::Connection {
            name: name.to_owned(),
            error: OpenError::Config("there is no such connection".into()),
        });
    };
    let mut settings = settings.clone();
    let shared = streams
        .values()
        .any(|stream| matches!(stream, Stream::Input { connection, .. } if connection == name))
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
        clock: Arc::clone(clock),
        status: status.connections.of(&label),
        keep: None,
    };
    let opened =
        mqtt::open(request).map_err(|error| RunError::Connection { name: name.to_owned(), error })?;
    Ok((opened, label))
}
