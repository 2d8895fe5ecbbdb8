//! MQTT 3.1.1 (OASIS, 2014) and 5.0 (OASIS, 2019).
//!
//! Delivery: a message that came with QoS 1 is acknowledged, in the order of receipt, only when every effect
//! of its rows is durable; until then the broker sends it again on the next connection, with the DUP flag.
//! Such a repeat is known by its mark, also by the next process if its rows were committed: it is
//! acknowledged when the rows of the first copy are dealt with, and gives no rows of its own. Only rows that
//! were refused come again. Where it is in doubt whether a message is a repeat, it is taken (`marks` says
//! when), and so is one that a broker repeats without the flag, or after it has lost the session. A message
//! that is malformed or too large is acknowledged and counted: it would never get better. Publishing with QoS
//! 1 is confirmed by the broker's acknowledgement and nothing less, and a message whose connection went away
//! is given back to its sender, never kept to be sent late.
//!
//! Read [`config`] for what users write, [`topic`] and [`template`] for how topics and columns meet, then
//! `line` for the task that owns the connection.

mod acks;
mod check;
mod client;
pub mod config;
mod line;
mod listening;
mod losses;
mod marks;
mod publisher;
mod pulse;
pub(crate) mod recorded;
pub(crate) mod recording;
mod remote;
mod retained;
mod sink;
mod streams;
mod subscriptions;
pub mod template;
pub mod topic;
mod uplink;
mod v4;
mod v5;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_core::FieldType;
use tokio::sync::watch;

pub use config::{ConnectionConfig, OutputConfig, StreamConfig, UplinkConfig};
pub use marks::KNOWN_MARKS;
pub use publisher::{Confirmation, Publisher, Session};
pub(crate) use remote::open_remote;
pub(crate) use uplink::open_uplink;

use crate::codec::Decoder;
use crate::connection::{OpenError, Request};
use crate::line::backoff::Backoff;
use crate::line::decoding::Decoding;
use crate::output::OutputConfig as OutputKind;
use crate::stream::StreamConfig as StreamKind;
use crate::{Sink, Source};
use client::Plan;
use config::{Qos, Version};
use line::Line;
use marks::Marks;
use publisher::Outbox;
use retained::Memory;
use sink::TopicSink;
use streams::{Stream, Streams};
use subscriptions::Subscriptions;
use template::Template;
use topic::Filter;

/// A connection that is ready to run.
pub struct Opened {
    /// Runs the connection; nothing is sent or received before.
    pub source: Box<dyn Source>,
    /// By the outputs' names.
    pub sinks: BTreeMap<String, Box<dyn Sink>>,
    /// For the uplink. Drop it where it is not needed: the source runs until all publishers and sinks are
    /// gone.
    pub publisher: Publisher,
}

/// Prepares a connection; does no network I/O, but reads the secret and the PEM files. `client_id`: when the
/// configuration has none; it must be the same after every restart.
///
/// # Errors
/// When the configuration is wrong in itself or a file cannot be read. That the broker is not there is no
/// error.
pub fn open(config: &ConnectionConfig, client_id: String, request: Request<'_>) -> Result<Opened, OpenError> {
    let Request { name, box_name: _, streams, outputs, clock, status, keep } = request;
    let streams: Vec<_> = streams
        .into_iter()
        .filter_map(|stream| match stream.config {
            StreamKind::Mqtt(config) => Some((config, stream)),
            _ => None,
        })
        .collect();
    let outputs: Vec<_> = outputs
        .into_iter()
        .filter_map(|(output, config)| match config {
            OutputKind::Mqtt(config) => Some((output, config)),
            _ => None,
        })
        .collect();
    let persistent = streams.iter().any(|(config, _)| config.qos == Qos::AtLeastOnce);
    let plan = plan(config, client_id, persistent)?;
    let backoff = || Backoff::new(config.backoff.min.0, config.backoff.max.0);
    let mut subscriptions = Subscriptions::new(backoff(), Arc::clone(&status));
    let mut decoders = Vec::with_capacity(streams.len());
    let mut marks = Marks::new(&plan.client_id, plan.in_flight, streams.len());
    let has_earlier = streams.iter().any(|(_, stream)| !stream.known_marks.is_empty());
    let confirms = outputs.iter().any(|(_, output)| output.qos == Qos::AtLeastOnce)
        || (outputs.is_empty() && streams.is_empty());
    for (index, (settings, stream)) in streams.into_iter().enumerate() {
        let fail = |reason: String| OpenError::Stream {
            name: stream.name.to_owned(),
            keys: vec!["topic".into()],
            reason,
        };
        let filter = settings.filter().map_err(fail)?;
        let decoder = settings.decoder(stream.known).map_err(fail)?;
        subscriptions.add(filter.subscription(), settings.qos, settings.retained);
        marks.know(index, &stream.known_marks);
        let memory = Memory::read(&stream.kept, &stream.known_marks).unwrap_or_else(|| {
            tracing::warn!(
                stream = stream.name,
                "what the stream remembers is damaged: retained messages may make their rows again"
            );
            Memory::default()
        });
        let name: Arc<str> = stream.name.into();
        let decoding = Decoding::new(Arc::clone(&name), decoder, stream.intake, Arc::clone(&status));
        decoders.push(Stream::new(name, filter, decoding, settings, memory));
    }
    let (outbox, requests) = Outbox::new();
    let (session_tx, session_rx) = watch::channel(None);
    let name: Arc<str> = name.into();
    let publisher = Publisher {
        connection: Arc::clone(&name),
        version: config.version,
        requests,
        session: session_rx,
        status: Arc::clone(&status),
        expiry: None,
    };
    let sinks = outputs
        .into_iter()
        .map(|(output, config)| {
            let wrong = |why| OpenError::Output {
                name: output.to_owned(),
                keys: vec!["topic".into()],
                reason: format!("\"{}\" is not a topic: {why}", config.topic),
            };
            let topic = OutputConfig::topic_of(&config.topic).map_err(wrong)?;
            let payload = config.payload.as_deref().map(Template::parse);
            let sink = TopicSink {
                publisher: publisher.clone(),
                topic,
                payload,
                qos: config.qos,
                retain: config.retain,
            };
            Ok((output.to_owned(), Box::new(sink) as Box<dyn Sink>))
        })
        .collect::<Result<_, OpenError>>()?;
    let streams = Streams::new(decoders, marks, Arc::clone(&status), plan.max_packet);
    let source = Box::new(Line {
        name,
        plan,
        subscriptions,
        streams,
        has_earlier,
        confirms,
        outbox,
        session: session_tx,
        status,
        backoff: backoff(),
        clock,
        keep,
    });
    Ok(Opened { source, sinks, publisher })
}

fn plan(config: &ConnectionConfig, client_id: String, persistent: bool) -> Result<Plan, OpenError> {
    if config.username.is_none() && config.password.is_some() && config.version == Version::V3_1_1 {
        let message = "MQTT 3.1.1 does not allow a password without a username: set username";
        return Err(OpenError::setting(&[], message));
    }
    let client_id = config.client_id.clone().unwrap_or(client_id);
    if client_id.is_empty() {
        let message = "client_id is empty: the broker could not know the box again after a restart";
        return Err(OpenError::setting(&[], message));
    }
    let keep_alive_s = u16::try_from(config.keep_alive.0.as_secs()).ok().filter(|seconds| *seconds > 0);
    let Some(keep_alive_s) = keep_alive_s else {
        let message = format!("keep_alive = \"{}\": MQTT allows 1s to 65535s", config.keep_alive);
        return Err(OpenError::setting(&[], message));
    };
    let max_packet =
        u32::try_from(config.max_packet.0).ok().filter(|_| config::PACKETS.contains(&config.max_packet));
    let Some(max_packet) = max_packet else {
        let (least, most) = (config::PACKETS.start(), config::PACKETS.end());
        let message = format!("max_packet = \"{}\": choose {least} to {most}", config.max_packet);
        return Err(OpenError::setting(&[], message));
    };
    Ok(Plan {
        version: config.version,
        client_id,
        host: config.host.clone(),
        port: config.port.map_or(if config.tls.is_some() { 8883 } else { 1883 }, std::num::NonZeroU16::get),
        username: config.username.clone(),
        password: config
            .password
            .as_ref()
            .map(|source| source.read().map_err(|error| OpenError::secret(&["password"], error)))
            .transpose()?,
        tls: config.tls.as_ref().map(crate::tls::client_config).transpose()?,
        keep_alive_s,
        persistent,
        session_expiry_s: u32::try_from(config.session_expiry.0.as_secs()).unwrap_or(u32::MAX),
        max_packet,
        in_flight: config.in_flight.get(),
        last_will: config.last_will.clone(),
        will_delay_s: 0,
    })
}

impl StreamConfig {
    fn filter(&self) -> Result<Filter, String> {
        Filter::parse(&self.topic).map_err(|why| format!("\"{}\" is not a topic filter: {why}", self.topic))
    }

    /// A decoder for the stream's payloads; its schema is the stream's. `known`: columns that were known
    /// earlier, for streams that declare none.
    ///
    /// # Errors
    /// In words for the user, when the topic filter is wrong, two columns have one name, or a path means
    /// nothing.
    pub fn decoder(&self, known: Vec<(String, FieldType)>) -> Result<Decoder, String> {
        self.payload.decoder(self.filter()?.captures(), self.retained_column.as_ref(), known)
    }
}
