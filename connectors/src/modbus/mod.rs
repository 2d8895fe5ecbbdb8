//! Modbus (Application Protocol V1.1b3; Messaging on TCP/IP V1.0b; Serial Line V1.02): TCP, RTU on a serial
//! port, and RTU over TCP.
//!
//! Delivery: a value is what the device said in answer to the request for it, or null. Nothing is ever
//! repeated from an earlier poll, and no answer is taken for that to another request (`guard`). Rows are not
//! acknowledged, since a device has nothing to send again. A write is confirmed by the device's answer and,
//! with `read_back`, by what it has afterwards; one that was not answered is not sent again.
//!
//! Read [`config`] for what users write, [`points`] for what registers mean, [`plan`] for how requests are
//! merged, `guard` for how answers are told apart, then `line` for the task that owns the connection, and
//! `jobs` for what outputs ask of it.
//! [`commission`] is the same for somebody who stands before the cabinet.

mod check;
pub mod commission;
pub mod config;
mod fault;
pub mod frame;
mod guard;
mod jobs;
mod line;
mod link;
pub mod plan;
pub mod points;
mod polls;
mod sink;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info_span;

pub use check::DEVICE;
pub use config::{ConnectionConfig, OutputConfig, StreamConfig};

use crate::Sink;
use crate::connection::{OpenError, Opened, Request, StreamRequest};
use crate::line::task::{Line, Task};
use crate::line::writes::{RowSink, Waiting};
use crate::output::OutputConfig as OutputKind;
use crate::rows::{Rows, Value};
use crate::stream::StreamConfig as StreamKind;
use line::Master;
use link::Link;
use polls::{Poll, Polls, Unit};
use sink::Points;

/// Prepares a connection; does no I/O.
///
/// # Errors
/// When the configuration is wrong in itself. That the device is not there is no error.
pub(crate) fn open(config: &ConnectionConfig, request: Request<'_>) -> Result<Opened, OpenError> {
    let Request { name, streams, outputs, clock, status, .. } = request;
    if let Some(problem) = config.problems().into_iter().next() {
        return Err(problem.into());
    }
    let link = Link::new(config)
        .ok_or_else(|| OpenError::setting(&[], "it says neither `host` nor `serial`, or both"))?;
    let (line_tx, waiting) = Waiting::new(&status);
    let (mut polls, mut tables) = (Vec::new(), Vec::new());
    for StreamRequest { name: stream, config: map, intake, .. } in streams {
        let StreamKind::Modbus(map) = map else { continue };
        let fail = |problem| OpenError::stream(stream, problem);
        if let Some(problem) = map.problems([config]).into_iter().next() {
            return Err(fail(problem));
        }
        let points: Arc<[_]> = map.points().map_err(fail)?.into();
        for (device, unit) in map.devices(name) {
            polls.push(Poll {
                stream: tables.len(),
                device: device.map(|device| Value::Text(device.to_string())),
                unit: Unit(unit),
                timeout: map.timeout.unwrap_or(config.timeout).0,
                every: map.every.0,
                points: Arc::clone(&points),
                reads: plan::plan(&points, map.limits()),
            });
        }
        tables.push((Rows::new(stream, map.values(), map.quality), intake));
    }
    let mut sinks: BTreeMap<String, Box<dyn Sink>> = BTreeMap::new();
    for (output, map) in outputs {
        let OutputKind::Modbus(map) = map else { continue };
        let fail = |problem| OpenError::output(output, problem);
        if let Some(problem) = map.problems(Some(config)).into_iter().next() {
            return Err(fail(problem));
        }
        let encode = Points {
            points: map.points().map_err(fail)?,
            unit: Unit(map.unit.unwrap_or(1)),
            timeout: map.timeout.unwrap_or(config.timeout).0,
            read_back: map.read_back,
        };
        let (line, within) = (line_tx.clone(), map.write_within.0);
        let sink = RowSink { output: output.into(), encode, line, within };
        sinks.insert(output.to_owned(), Box::new(sink));
    }
    let protocol = Master {
        link,
        polls: Polls::new(name, polls, tables, config.park, clock, Arc::clone(&status)),
        retries: config.retries,
        hopeless: config.park.after.get(),
        close_after_poll: config.close_after_poll,
        status: Arc::clone(&status),
        lacks: BTreeMap::new(),
        transaction: 0,
        silent: 0,
        answered: false,
    };
    let line = Line::new(name, &config.backoff, waiting, status);
    let source = Box::new(Task { line, protocol, span: info_span!("modbus", connection = name) });
    Ok(Opened { source, sinks })
}
