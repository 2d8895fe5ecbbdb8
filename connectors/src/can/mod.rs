//! CAN: SocketCAN interfaces of the kernel, classic and FD; adapters on serial ports; recordings.
//!
//! Delivery: a row is a frame that was on the bus, with the kernel's time of its arrival. Frames that find
//! no room on their way are counted and said. Nothing is acknowledged, since nobody sends anything again. A
//! write is done when the controller has sent its frame. One that was not given to the controller in time is
//! given up, and not sent later; of one that the controller holds back nobody knows.
//!
//! Read [`config`] for what users write; `check`, `reception` and `transmission` for what it means of
//! connections, streams and outputs; then `line` for the task that owns the bus, `streams` for the way from
//! frames to rows, `sink` for that from rows to frames. [`bus`] is the socket, [`interface`] what the kernel
//! says of it; `adapter` and `recording` stand in its place. `polls` asks nodes by `isotp`. [`commission`] is
//! the same for somebody who stands before the cabinet.
//!
//! Pure parts: [`id`] and [`frame`] are what goes over a bus; [`database`] reads DBC files into [`message`]s
//! and [`signal`]s, which lead from payloads to values and back; [`transport`] puts together what J1939 sends
//! in several frames; [`filter`] says what the kernel shall hand over; [`log`] and [`slcan`] are other ways
//! to write frames.

mod aboard;
mod adapter;
pub mod bits;
pub mod bus;
mod check;
pub mod commission;
pub mod config;
pub mod database;
pub mod filter;
pub mod frame;
pub mod id;
pub mod interface;
mod isotp;
mod line;
mod link;
pub mod log;
pub mod message;
mod polls;
mod reception;
mod recording;
pub mod signal;
mod sink;
pub mod slcan;
mod streams;
mod transmission;
pub mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info_span;

pub use config::{ConnectionConfig, OutputConfig, StreamConfig};

use crate::Sink;
use crate::connection::{OpenError, Opened, Request, StreamRequest};
use crate::line::task::{Line, Task};
use crate::line::writes::{RowSink, WRITE_WITHIN, Waiting};
use crate::output::OutputConfig as OutputKind;
use crate::rows::Rows;
use crate::stream::StreamConfig as StreamKind;
use line::{Controller, Repeat};
use link::Link;
use sink::Frames;
use streams::{Setup, Streams};

/// Prepares a connection; reads its databases, if they are not read yet.
///
/// # Errors
/// When the configuration is wrong in itself. That the bus is not there is no error.
pub(crate) fn open(config: &ConnectionConfig, request: Request<'_>) -> Result<Opened, OpenError> {
    let Request { name, streams, outputs, clock, status, .. } = request;
    if let Some(problem) = config.problems().into_iter().next() {
        return Err(problem.into());
    }
    let database = match &config.database {
        Some(database) => Arc::clone(database),
        None => Arc::new(config.read_databases().map_err(|problems| {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            OpenError::setting(&["dbc"], first)
        })?),
    };
    let (line_tx, waiting) = Waiting::new(&status);
    let mut setups = Vec::new();
    for StreamRequest { name: stream, config: map, intake, .. } in streams {
        let StreamKind::Can(map) = map else { continue };
        let fail = |problem| OpenError::stream(stream, problem);
        let reception = map.reception(&database).map_err(fail)?;
        let problems = map.problems(Some(config)).into_iter();
        if let Some(problem) = problems.chain(map.check_columns(&reception)).next() {
            return Err(fail(problem));
        }
        let rows = Rows::new(stream, reception.columns(map.labels), map.quality);
        let stale_after = map.stale_after.map(|after| after.0);
        setups.push(Setup { rows, reception, labels: map.labels, stale_after, intake });
    }
    let (mut sinks, mut sent): (BTreeMap<String, Box<dyn Sink>>, _) = (BTreeMap::new(), Vec::new());
    for (output, map) in outputs {
        let OutputKind::Can(map) = map else { continue };
        let fail = |problem| OpenError::output(output, problem);
        if let Some(problem) = map.problems(Some(config)).into_iter().next() {
            return Err(fail(problem));
        }
        let transmission = map.transmission(&database).map_err(fail)?;
        sent.push(transmission.id());
        let encode = Frames {
            required: transmission.columns().1,
            transmission,
            repeat: map
                .every
                .zip(map.expiry)
                .map(|(every, expiry)| Repeat { every: every.0, expiry: expiry.0 }),
        };
        let sink = RowSink { output: output.into(), encode, line: line_tx.clone(), within: WRITE_WITHIN };
        sinks.insert(output.to_owned(), Box::new(sink));
    }
    let interface = config.interface.as_deref().unwrap_or_default();
    let streams =
        Streams::new(name, interface, setups, database, config.park, Arc::clone(&clock), Arc::clone(&status));
    let link = Link::new(config, streams.filters(&sent), streams.want_errors(), clock, Arc::clone(&status))?;
    let protocol = Controller::new(link, streams, config.send_timeout.0, Arc::clone(&status));
    let line = Line::new(name, &config.backoff, waiting, status);
    let source = Box::new(Task { line, protocol, span: info_span!("can", connection = name) });
    Ok(Opened { source, sinks })
}
