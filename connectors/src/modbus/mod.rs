//! Modbus (Application Protocol V1.1b3; Messaging on TCP/IP V1.0b; Serial Line V1.02): TCP, RTU on a serial
//! port, and RTU over TCP.
//!
//! Delivery: a value is what the device said in answer to the request for it, or null. Nothing is ever
//! repeated from an earlier poll, and no answer is taken for that to another request (`guard`). Rows are not
//! acknowledged, since a device has nothing to send again. A write is confirmed by the device's answer and,
//! with `read_back`, by what it has afterwards; one that was not answered is not sent again.
//!
//! Read [`config`] for what users write, [`points`] for what registers mean, [`plan`] for how requests are
//! merged, `guard` for how answers are told apart, then `line` for the task that owns the connection.
//! [`commission`] is the same for somebody who stands before the cabinet.

mod check;
pub mod commission;
pub mod config;
mod fault;
pub mod frame;
mod guard;
mod line;
mod link;
mod outage;
pub mod plan;
pub mod points;
mod polls;
mod port;
mod rows;
mod sink;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_core::{Clock, FieldType};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use check::{DEVICE, FAULT, QUALITY};
pub use config::{ConnectionConfig, OutputConfig, StreamConfig};
pub use points::Problem;

use crate::backoff::Backoff;
use crate::status::{Intake, LineStatus};
use crate::{Sink, Source};
use line::Line;
use link::Link;
use polls::{Poll, Polls, Stream};
use rows::Rows;
use sink::PointSink;

/// Writes of all outputs together that wait for the line.
const QUEUED: usize = 64;

/// What a connection is opened with.
pub struct Request<'a> {
    /// The connection's name in the configuration.
    pub name: &'a str,
    /// Its configuration.
    pub config: &'a ConnectionConfig,
    /// The streams that it feeds, also those that name other connections besides.
    pub streams: Vec<StreamRequest<'a>>,
    /// The outputs that write to it.
    pub outputs: Vec<(&'a str, &'a OutputConfig)>,
    /// Where times of arrival come from.
    pub clock: Arc<dyn Clock>,
    /// Where the connection counts.
    pub status: Arc<LineStatus>,
}

/// A stream that a connection feeds.
pub struct StreamRequest<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its configuration.
    pub config: &'a StreamConfig,
    /// Where the stream counts what it did not take as it came.
    pub intake: Arc<Intake>,
}

/// A connection that is ready to run.
pub struct Opened {
    /// Runs the connection; nothing is sent or received before.
    pub source: Box<dyn Source>,
    /// By the outputs' names.
    pub sinks: BTreeMap<String, Box<dyn Sink>>,
}

/// A connection that cannot be opened, whatever the device says.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings contradict each other.
    #[error("{0}")]
    Config(Problem),
    /// A stream cannot be read.
    #[error("stream {name}: {problem}")]
    Stream {
        /// which
        name: String,
        /// why
        problem: Problem,
    },
    /// An output cannot be written to.
    #[error("output {name}: {problem}")]
    Output {
        /// which
        name: String,
        /// why
        problem: Problem,
    },
}

/// The columns of a stream beside `ts`, which is the time of arrival.
#[must_use]
pub fn columns(config: &StreamConfig) -> Vec<(String, FieldType)> {
    config.columns()
}

/// Prepares a connection; does no I/O.
///
/// # Errors
/// When the configuration is wrong in itself. That the device is not there is no error.
pub fn open(request: Request<'_>) -> Result<Opened, OpenError> {
    let Request { name, config, streams, outputs, clock, status } = request;
    if let Some(problem) = config.check().into_iter().next() {
        return Err(OpenError::Config(problem));
    }
    let link = Link::new(config).ok_or_else(|| {
        OpenError::Config(Problem::new(&[], "it says neither `host` nor `serial`, or both"))
    })?;
    let (line_tx, commands) = mpsc::channel(QUEUED);
    let (mut polls, mut tables) = (Vec::new(), Vec::new());
    for (index, StreamRequest { name: stream, config: map, intake }) in streams.into_iter().enumerate() {
        let fail = |problem| OpenError::Stream { name: stream.to_owned(), problem };
        if let Some(problem) = map.check().into_iter().next() {
            return Err(fail(problem));
        }
        let points: Arc<[_]> = map.points().map_err(fail)?.into();
        for (device, unit) in map.devices(name) {
            check_unit(config, unit).map_err(fail)?;
            polls.push(Poll {
                stream: index,
                device,
                unit,
                timeout: map.timeout.unwrap_or(config.timeout).0,
                every: map.every.0,
                points: Arc::clone(&points),
                reads: plan::plan(&points, map.limits()),
                due: Instant::now(),
                said: None,
            });
        }
        tables.push(Stream { rows: Rows::new(stream, map, &points), intake });
    }
    let mut sinks: BTreeMap<String, Box<dyn Sink>> = BTreeMap::new();
    for (output, map) in outputs {
        let fail = |problem| OpenError::Output { name: output.to_owned(), problem };
        if let Some(problem) = map.check().into_iter().next() {
            return Err(fail(problem));
        }
        let unit = map.unit.unwrap_or(1);
        check_unit(config, unit).map_err(fail)?;
        let sink = PointSink {
            output: output.into(),
            points: map.points().map_err(fail)?,
            unit,
            timeout: map.timeout.unwrap_or(config.timeout).0,
            read_back: map.read_back,
            line: line_tx.clone(),
        };
        sinks.insert(output.to_owned(), Box::new(sink));
    }
    let source = Box::new(Line {
        name: name.into(),
        link,
        polls: Polls::new(polls, tables, config.park, clock, Arc::clone(&status)),
        commands,
        retries: config.retries,
        hopeless: config.park.after.get(),
        close_after_poll: config.close_after_poll,
        status,
        backoff: Backoff::new(config.backoff.min.0, config.backoff.max.0),
    });
    Ok(Opened { source, sinks })
}

fn check_unit(config: &ConnectionConfig, unit: u8) -> Result<(), Problem> {
    if unit == 0 && !config.is_tcp() {
        return Err(Problem::new(&["unit"], "unit 0 is all units at once, and none of them answers")
            .help("write the device's own unit id, 1 to 247"));
    }
    Ok(())
}
