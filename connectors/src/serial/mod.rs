//! Serial devices that speak in frames of their own: lines, telegrams, packets.
//!
//! Delivery: a row is what one whole frame said; a frame that is torn, too long, or whose checksum is wrong
//! is counted and never read. Rows are not acknowledged, since a device has nothing to send again. A request
//! is answered by the frame that fits its stream and comes in time; after one that was not, the line has to
//! be silent before it is asked again, so that a late answer is not taken for the next. A write is confirmed
//! by the driver or, with `answer`, by the device, and is never sent twice, nor late (`write_within`).
//!
//! Read [`config`] for what users write, [`framing`] for how bytes become frames, `telegram` for how rows
//! become bytes, then `line` for the task that owns the port. [`commission`] is the same for somebody who
//! stands before the device.

mod check;
pub mod commission;
pub mod config;
pub mod escapes;
pub mod framing;
mod line;
mod link;
mod pace;
mod sink;
mod streams;
pub mod telegram;

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info_span;

pub use config::{ConnectionConfig, OutputConfig, StreamConfig};

use crate::codec::Decoder;
use crate::connection::{OpenError, Opened, Request, StreamRequest};
use crate::line::decoding::Decoding;
use crate::line::task::{Line, Task};
use crate::line::writes::{RowSink, Waiting};
use crate::output::OutputConfig as OutputKind;
use crate::port::Dial;
use crate::stream::StreamConfig as StreamKind;
use crate::table::Problem;
use crate::{Inlet, Sink};
use framing::Framer;
use line::Station;
use link::Usage;
use sink::Telegrams;
use streams::{Stream, Streams};

/// Prepares a connection; does no I/O.
///
/// # Errors
/// When the configuration is wrong in itself. That the device is not there is no error.
pub(crate) fn open(config: &ConnectionConfig, request: Request<'_>) -> Result<Opened, OpenError> {
    let Request { name, streams, outputs, clock, status, .. } = request;
    if let Some(problem) = config.problems().into_iter().next() {
        return Err(problem.into());
    }
    let framer = Framer::new(&config.frame).map_err(|problem| problem.inside("frame"))?;
    let dial = Dial::new(&config.port, config::usual_settings(), config.connect_timeout.0)?;
    let mut all = Vec::new();
    for StreamRequest { name: stream, config: frames, known, intake, .. } in streams {
        let StreamKind::Serial(frames) = frames else { continue };
        let fail = |problem| OpenError::stream(stream, problem);
        if let Some(problem) = frames.problems().into_iter().next() {
            return Err(fail(problem));
        }
        let decoder: Decoder = frames.decoder(known).map_err(|why| fail(Problem::new(&["fields"], why)))?;
        let decoding = Decoding::new(stream.into(), decoder, Arc::clone(&intake), Arc::clone(&status));
        all.push(Stream::new(stream, frames, decoding, intake));
    }
    let data_bits = dial.settings().data_bits;
    let (line_tx, waiting) = Waiting::new(&status);
    let mut sinks: BTreeMap<String, Box<dyn Sink>> = BTreeMap::new();
    for (output, telegram) in outputs {
        let OutputKind::Serial(telegram) = telegram else { continue };
        if let Some(problem) = telegram.problems().into_iter().next() {
            return Err(OpenError::output(output, problem));
        }
        let encode = Telegrams {
            telegram: telegram.payload.clone(),
            data_bits,
            answer: telegram.answer.clone(),
            timeout: telegram.timeout.0,
        };
        let (line, within) = (line_tx.clone(), telegram.write_within.0);
        let sink = RowSink { output: output.into(), encode, line, within };
        sinks.insert(output.to_owned(), Box::new(sink));
    }
    let streams = Streams::new(name, all, config.park, clock, Arc::clone(&status));
    let usage = Usage {
        echo: config.echo,
        pause: config.pause_between_requests.map(|pause| pause.0),
        unasked: streams.any_unasked(),
    };
    let protocol = Station {
        dial,
        framer,
        streams,
        usage,
        asked: Inlet::nowhere().asked,
        silent: 0,
        useless: None,
        said_useless: None,
    };
    let line = Line::new(name, &config.backoff, waiting, status);
    let source = Box::new(Task { line, protocol, span: info_span!("serial", connection = name) });
    Ok(Opened { source, sinks })
}
