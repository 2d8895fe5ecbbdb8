//! An adapter on a serial port that speaks the Lawicel protocol.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tidegate_core::{Clock, Sampler};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::warn;

use super::bus::{Event, Received, Sent};
use super::frame::Frame;
use super::slcan::{Command, Decoder, Reply, write_frame};
use crate::port;
use crate::status::LineStatus;

/// Bytes that wait for the port; the rest waits in the line, where it can be given up.
const MOST_WAITING: usize = 256;

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
        }
    }

    /// As [`super::bus::Bus::wait`].
    pub(super) async fn wait(
        &mut self,
        wants_room: bool,
        frames: &mut Vec<Received>,
    ) -> Result<Event, String> {
        let mut bytes = [0; 1024];
        let Self { wire, waiting, .. } = self;
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
        match read.await {
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
            Some(Reply::Done) => self.opening = self.opening.saturating_sub(1),
            // An adapter that is closed refuses to be closed.
            Some(Reply::Refused) if self.opening > 2 => self.opening -= 1,
            Some(Reply::Refused) => {
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

    /// Has a frame written.
    pub(super) fn send(&mut self, frame: &Frame) -> Sent {
        if self.waiting.len() >= MOST_WAITING {
            return Sent::Later;
        }
        let mut line = String::new();
        if !write_frame(frame, &mut line) {
            return Sent::Refused("the adapter's protocol has no such frame".into());
        }
        self.waiting.extend(line.bytes());
        Sent::Yes
    }
}
