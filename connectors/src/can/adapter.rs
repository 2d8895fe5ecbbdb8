//! An adapter on a serial port that speaks the Lawicel protocol.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidegate_core::{Clock, Sampler};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::bus::{Event, Received, Sent};
use super::frame::Frame;
use super::slcan::{Command, Decoder, Reply, write_frame};
use crate::port;
use crate::status::LineStatus;

/// How long an adapter that answers may take to. What has no answer by then is not known to be sent, and what
/// stands behind it would be sent late.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// An open adapter that takes part in its bus.
pub(super) struct Adapter {
    wire: port::Wire,
    decoder: Decoder,
    /// what has not been written yet
    waiting: Vec<u8>,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
    garbled: u64,
    refused: Sampler,
    /// how many of the commands that open it have not been answered
    opening: usize,
    /// Whether it answers at all: some firmware does not.
    answers: bool,
    /// When the frame was sent that has no answer. One at a time: others wait in the line, where they can be
    /// given up.
    unanswered: Option<Instant>,
}

impl Adapter {
    /// For an open port. `bit_rate`: the command that sets it.
    pub(super) fn new(
        wire: port::Wire,
        bit_rate: Command,
        listen_only: bool,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Self {
        // The first end of a line is behind whatever the adapter has heard before.
        let mut lines = String::from("\r");
        let open = if listen_only { Command::Listen } else { Command::Open };
        let commands = [Command::Close, bit_rate, open];
        commands.iter().for_each(|command| command.write(&mut lines));
        Self {
            wire,
            decoder: Decoder::default(),
            waiting: lines.into_bytes(),
            clock,
            status,
            garbled: 0,
            refused: Sampler::default(),
            opening: 1 + commands.len(),
            answers: false,
            unanswered: None,
        }
    }

    /// As [`super::bus::Bus::wait`].
    pub(super) async fn wait(
        &mut self,
        wants_room: bool,
        frames: &mut Vec<Received>,
    ) -> Result<Event, String> {
        let mut bytes = [0; 1024];
        let overdue = self.unanswered.filter(|_| self.answers).map(|since| since + ANSWERS_WITHIN);
        let Self { wire, waiting, .. } = self;
        let wants_room = wants_room && overdue.is_none();
        let read = poll_fn(|context| {
            while !waiting.is_empty() {
                match Pin::new(&mut *wire).poll_write(context, waiting) {
                    Poll::Ready(Ok(count)) => drop(waiting.drain(..count.min(waiting.len()))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if wants_room && waiting.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *wire).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(Some(buffer.filled().len()))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        });
        let read = match overdue {
            Some(overdue) => timeout_at(overdue, read).await.map_err(|_| {
                "the adapter does not answer any more: is it overrun, or has it lost its power?".to_owned()
            })?,
            None => read.await,
        };
        match read {
            Err(error) => Err(format!("the adapter cannot be reached: {error}")),
            Ok(Some(0)) => Err("the adapter is gone: is it plugged in?".into()),
            Ok(None) => Ok(Event::Room),
            Ok(Some(count)) => {
                let at = self.clock.wall_ns();
                for byte in bytes.get(..count).unwrap_or_default() {
                    self.take(*byte, at, frames);
                }
                Ok(Event::Frames)
            }
        }
    }

    fn take(&mut self, byte: u8, at: i64, frames: &mut Vec<Received>) {
        let reply = self.decoder.push(byte);
        let garbled = self.decoder.garbled();
        self.status.malformed.add(garbled - std::mem::replace(&mut self.garbled, garbled));
        match reply {
            Some(Reply::Frame { frame, .. }) => frames.push(Received { frame, at }),
            Some(Reply::Taken) => self.has_answered(),
            // Not every adapter answers each of the commands that open it.
            Some(Reply::Done) => {
                self.opening = self.opening.saturating_sub(1);
                self.has_answered();
            }
            // An adapter that is closed refuses to be closed.
            Some(Reply::Refused) if self.opening > 2 && self.unanswered.is_none() => {
                self.opening -= 1;
                self.has_answered();
            }
            Some(Reply::Refused) => {
                self.has_answered();
                self.status.refusals.add(1);
                if let Some(count) = self.refused.count(1) {
                    warn!(
                        count,
                        "the adapter refuses what it is told: it may not know the bit rate, its queue may be \
                        full, or nobody on the bus acknowledges"
                    );
                }
            }
            _ => {}
        }
    }

    fn has_answered(&mut self) {
        (self.answers, self.unanswered) = (true, None);
    }

    /// Has a frame written.
    pub(super) fn send(&mut self, frame: &Frame) -> Sent {
        if !self.waiting.is_empty() || self.answers && self.unanswered.is_some() {
            return Sent::Later;
        }
        let mut line = String::new();
        if !write_frame(frame, &mut line) {
            return Sent::Refused("the adapter's protocol has no such frame".into());
        }
        self.waiting.extend(line.bytes());
        self.unanswered = Some(Instant::now());
        Sent::Yes
    }
}
