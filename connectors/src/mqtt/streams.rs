//! The streams of one connection: which of them a message belongs to, and the rows that wait for the engine.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidegate_core::{Ack, Batch, Sampler};
use tokio::sync::Notify;

use super::acks::{Acks, Fate};
use super::client::{Incoming, too_large};
use super::config::{Retained, StreamConfig};
use super::marks::{Coming, Hashes, Marks};
use super::retained::Memory;
use super::topic::{Filter, MAX_CAPTURES};
use crate::line::decoding::Decoding;
use crate::status::{LineStatus, add};

/// A batch is handed over as soon as it has this many rows, or earlier, as soon as nothing more is there.
pub(super) const BATCH_ROWS: usize = 8_192;

/// Rows that wait for an engine that does not take them: 8 batches, a second or so at full load. Then QoS 0
/// messages are dropped.
pub(super) const HELD_ROWS: usize = 8 * BATCH_ROWS;

/// Bytes of payload that wait likewise, so that large messages do not fill the memory.
const HELD_BYTES: usize = 64 << 20;

pub(super) struct Stream {
    pub(super) name: Arc<str>,
    pub(super) filter: Filter,
    pub(super) decoding: Decoding,
    retained: Retained,
    /// Whether the flag is a column.
    has_flag: bool,
    memory: Memory,
    /// The fate of the rows in the decoder, if any of them came with QoS 1.
    fate: Option<Arc<Fate>>,
    /// The marks of the messages in the decoder that came with QoS 1.
    marks: Vec<u64>,
}

impl Stream {
    pub(super) fn new(
        name: Arc<str>,
        filter: Filter,
        decoding: Decoding,
        config: &StreamConfig,
        memory: Memory,
    ) -> Self {
        Self {
            name,
            filter,
            decoding,
            retained: config.retained,
            has_flag: config.retained_column.is_some(),
            memory,
            fate: None,
            marks: Vec::new(),
        }
    }

    /// Whether a message that the broker had retained gives no row.
    fn leaves_out(&mut self, hashes: Hashes) -> bool {
        match self.retained {
            Retained::First => self.memory.knows(hashes),
            Retained::Always => false,
            Retained::Never => true,
        }
    }

    /// Rows were made of a message, for the engine to take note of with its batch.
    fn took(&mut self, hashes: Hashes, packet_id: Option<u16>, retained: bool) {
        if self.retained == Retained::First {
            self.memory.took(hashes, retained);
            self.marks.push(hashes.mark(packet_id.unwrap_or_default()));
        } else if let Some(packet_id) = packet_id {
            self.marks.push(hashes.mark(packet_id));
        }
    }
}

pub(super) struct Streams {
    streams: Vec<Stream>,
    marks: Marks,
    status: Arc<LineStatus>,
    max_packet: u32,
    decided: Arc<Notify>,
    /// The newest topic, and where it leads: devices repeat themselves.
    topic: String,
    routes: Vec<(usize, Vec<Range<usize>>)>,
    held_rows: usize,
    held_bytes: usize,
    dropped: Sampler,
    refused: Sampler,
    unclaimed: Sampler,
    too_large: Sampler,
}

impl Streams {
    pub(super) fn new(streams: Vec<Stream>, marks: Marks, status: Arc<LineStatus>, max_packet: u32) -> Self {
        Self {
            streams,
            marks,
            status,
            max_packet,
            decided: Arc::new(Notify::new()),
            topic: String::new(),
            routes: Vec::new(),
            held_rows: 0,
            held_bytes: 0,
            dropped: Sampler::default(),
            refused: Sampler::default(),
            unclaimed: Sampler::default(),
            too_large: Sampler::default(),
        }
    }

    /// Wakes when the fate of a batch was decided.
    pub(super) fn decided(&self) -> Arc<Notify> {
        Arc::clone(&self.decided)
    }

    /// Rows that wait for the engine.
    pub(super) fn held(&self) -> usize {
        self.held_rows
    }

    /// A connection is made; `present`: the broker still has the session.
    pub(super) fn connected(&mut self, present: bool) {
        self.marks.connected(present);
    }

    /// The acknowledgement of a message was sent.
    pub(super) fn acknowledged(&mut self, packet_id: u16) {
        self.marks.acknowledged(packet_id);
    }

    /// Decodes a message into the streams that it belongs to and that do not have its rows yet. When there is
    /// no room for it, it is dropped (QoS 0) or refused (QoS 1).
    pub(super) fn take(&mut self, message: &Incoming, acks: &mut Acks, now_ns: i64) {
        add(&self.status.messages, 1);
        let hashes = self.marks.hashes(&message.topic, &message.payload);
        let coming = match message.packet_id {
            Some(packet_id) => self.marks.comes(hashes.mark(packet_id), message.dup),
            None => Coming::New,
        };
        let held = self.held_rows >= HELD_ROWS || self.held_bytes >= HELD_BYTES;
        match message.packet_id {
            // What follows a message that was refused is refused, too, or it would overtake it.
            Some(packet_id) if held || acks.any_refused() => {
                if let Some(count) = self.refused.count(1) {
                    tracing::warn!(
                        count,
                        "the engine is behind, and the broker sends more than `in_flight` messages: it will \
                        be asked for them again"
                    );
                }
                return acks.refuse(packet_id);
            }
            None if held => {
                add(&self.status.dropped, 1);
                if let Some(count) = self.dropped.count(1) {
                    tracing::error!(
                        count,
                        "the engine is behind and QoS 0 messages are dropped: lighten the rules, or \
                        subscribe with qos = 1"
                    );
                }
                return;
            }
            _ => {}
        }
        // One allocation, and only for QoS 1.
        let mut fates = Vec::new();
        let mut decoded = Decoded::default();
        if message.size > self.max_packet as usize {
            add(&self.status.malformed, 1);
            if let Some(count) = self.too_large.count(1) {
                let reason = too_large(message.size, self.max_packet);
                tracing::error!(
                    count,
                    topic = %String::from_utf8_lossy(&message.topic),
                    reason,
                    "message refused; it is lost",
                );
            }
        } else {
            self.route(&message.topic);
            decoded = self.decode(message, hashes, coming, now_ns, &mut fates);
        }
        if decoded.repeated {
            self.status.counter("repeated").add(1);
            tracing::debug!(
                topic = self.topic,
                packet_id = message.packet_id,
                "the broker repeated a message"
            );
        }
        if let Some(packet_id) = message.packet_id
            && (coming != Coming::AgainHere || decoded.new)
        {
            acks.push(packet_id, fates.into_iter());
            self.marks.awaits_acknowledgement(packet_id);
        }
    }

    fn decode(
        &mut self,
        message: &Incoming,
        hashes: Hashes,
        coming: Coming,
        now_ns: i64,
        fates: &mut Vec<Arc<Fate>>,
    ) -> Decoded {
        let mut decoded = Decoded::default();
        let mark = message.packet_id.map(|packet_id| hashes.mark(packet_id));
        for (index, ranges) in &self.routes {
            let Some(stream) = self.streams.get_mut(*index) else { continue };
            let first_copy =
                mark.filter(|_| coming != Coming::New).and_then(|mark| self.marks.first_copy(*index, mark));
            if let Some(fate) = first_copy {
                fates.push(fate);
                decoded.repeated = true;
                continue;
            }
            if message.retained && stream.leaves_out(hashes) {
                self.status.counter("retained_left_out").add(1);
                continue;
            }
            let mut given = [""; MAX_CAPTURES + 1];
            for (capture, range) in given.iter_mut().zip(ranges) {
                *capture = self.topic.get(range.clone()).unwrap_or_default();
            }
            if let Some(flag) = given.get_mut(ranges.len()).filter(|_| stream.has_flag) {
                *flag = if message.retained { "true" } else { "false" };
            }
            let given = given.get(..ranges.len() + usize::from(stream.has_flag)).unwrap_or_default();
            let rows = stream.decoding.decode(&message.payload, given, &self.topic, now_ns);
            if rows == 0 {
                continue;
            }
            add(&self.status.rows, rows);
            self.held_rows += rows;
            self.held_bytes += message.payload.len();
            decoded.new = true;
            stream.took(hashes, message.packet_id, message.retained);
            if let Some(mark) = mark {
                let fate = stream.fate.get_or_insert_default();
                fates.push(Arc::clone(fate));
                self.marks.remember(*index, mark, Arc::clone(fate));
            }
        }
        decoded
    }

    /// Finds the streams that a topic belongs to.
    fn route(&mut self, topic: &Bytes) {
        if !self.routes.is_empty() && self.topic.as_bytes() == &**topic {
            return;
        }
        self.routes.clear();
        self.topic.clear();
        // A topic that is not UTF-8 belongs to no stream.
        self.topic.push_str(std::str::from_utf8(topic).unwrap_or_default());
        for (index, stream) in self.streams.iter().enumerate() {
            if let Some(captures) = stream.filter.matches(&self.topic) {
                self.routes.push((index, captures));
            }
        }
        if self.routes.is_empty() {
            add(&self.status.dropped, 1);
            if let Some(count) = self.unclaimed.count(1) {
                let topic = String::from_utf8_lossy(topic);
                tracing::warn!(
                    count,
                    %topic,
                    "messages for no stream: the broker's session has a subscription from an earlier \
                    configuration; change client_id to leave it"
                );
            }
        }
    }

    /// Whether a batch is full.
    pub(super) fn is_full(&self) -> bool {
        self.held_rows >= BATCH_ROWS
    }

    /// Takes the rows of one stream; none if no rows wait.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        let stream = self.streams.iter_mut().find(|stream| stream.decoding.decoder.rows() > 0)?;
        let rows = stream.decoding.decoder.finish()?;
        stream.decoding.note_unseen();
        self.held_rows = self.held_rows.saturating_sub(rows.num_rows());
        if self.held_rows == 0 {
            self.held_bytes = 0;
        }
        let fate = stream.fate.take();
        stream.memory.handed_over(fate.clone());
        let ack = fate.map_or_else(Ack::none, |fate| fate.guard(&self.decided));
        Some(Batch { stream: Arc::clone(&stream.name), rows, marks: std::mem::take(&mut stream.marks), ack })
    }

    /// What a stream has to keep on disk now, or `at_the_end`; and when there is more.
    pub(super) fn unsaved(&mut self, at_the_end: bool) -> Result<(Arc<str>, Vec<u8>), Option<Instant>> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for stream in &mut self.streams {
            stream.memory.settle();
            match stream.memory.due(now) {
                Some(due) if at_the_end || due <= now => {
                    if let Some(file) = stream.memory.save() {
                        return Ok((Arc::clone(&stream.name), file));
                    }
                }
                Some(due) => next = Some(next.map_or(due, |next| next.min(due))),
                None => {}
            }
        }
        Err(next)
    }

    /// Throws away the rows that wait; those that came with QoS 1 will be sent again.
    pub(super) fn forget(&mut self) {
        for stream in &mut self.streams {
            let rows = stream.decoding.decoder.finish().map_or(0, |rows| rows.num_rows());
            stream.marks.clear();
            stream.memory.forget();
            match stream.fate.take() {
                Some(fate) => fate.refuse(),
                None => add(&self.status.dropped, rows),
            }
        }
        self.held_rows = 0;
        self.held_bytes = 0;
    }
}

/// What a message was to the streams that it belongs to.
#[derive(Default)]
struct Decoded {
    /// It gave rows.
    new: bool,
    /// Its rows were taken before.
    repeated: bool,
}
