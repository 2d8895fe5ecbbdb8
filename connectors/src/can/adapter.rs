//! An adapter on a serial port that speaks the Lawicel protocol.
//!
//! A frame is sent when the adapter says so. One at a time is with it: others wait in the line, where they
//! can be given up, since what stands in the port would be sent late.

use std::collections::VecDeque;
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
use super::slcan::{Command, Decoder, Flags, Garbled, Reply, write_frame};
use crate::hex::excerpt;
use crate::port;
use crate::status::LineStatus;

/// How long an adapter may take to answer. What has no answer by then is not known to be sent.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

const SILENT: &str = "is it an adapter (slcan), is the `baud` of the port right, and does nothing else use \
    it? Some firmware (that of CANable) does what it is told and never says so: for it, add answers = false to \
    `slcan`, or by hand --no-answers";

/// What an adapter is told when it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) bit_rate: Command,
    pub(super) listen_only: bool,
    /// whether it says what has become of commands and frames
    pub(super) answers: bool,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// that the port takes a frame, of an adapter that does not answer
    Written,
    /// whether a frame is sent
    Sent,
    /// why it is not
    Reason,
}

/// An open adapter that takes part in its bus.
pub(super) struct Adapter {
    wire: port::Wire,
    answers: bool,
    decoder: Decoder,
    /// what has been read and not looked at yet
    input: VecDeque<u8>,
    /// what has not been written yet
    output: Vec<u8>,
    awaited: Option<(Awaited, Instant)>,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
    garbled: Sampler,
    refused: Sampler,
}

impl Adapter {
    /// Takes part in the bus.
    ///
    /// # Errors
    /// What was tried, and what came of it, in words for the user.
    pub(super) async fn open(
        wire: port::Wire,
        setting: Setting,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Result<Self, String> {
        let mut adapter = Self {
            wire,
            answers: setting.answers,
            decoder: Decoder::default(),
            input: VecDeque::new(),
            output: Vec::new(),
            awaited: None,
            clock,
            status,
            garbled: Sampler::default(),
            refused: Sampler::default(),
        };
        let open = if setting.listen_only { Command::Listen } else { Command::Open };
        // The first end of a line is behind whatever the adapter has heard before.
        adapter.output.push(b'\r');
        adapter.tell(Command::Close);
        if !setting.answers {
            adapter.tell(setting.bit_rate);
            adapter.tell(open);
            return Ok(adapter);
        }
        // One that is closed refuses to be closed; all that is said before the version is of earlier.
        adapter.tell(Command::Version);
        let knows_version = adapter.hear(|reply| matches!(reply, Reply::Version(_))).await?.is_some();
        for command in [setting.bit_rate, open] {
            adapter.tell(command);
            let is_answer = |reply: &Reply| matches!(reply, Reply::Done | Reply::Taken | Reply::Refused);
            match adapter.hear(is_answer).await? {
                Some(Reply::Refused) => return Err(refusal(command)),
                Some(_) => {}
                None if knows_version => return Err(format!("the adapter does not answer `{command}`")),
                None => return Err(format!("nothing answers `C`, `V` and `{command}`: {SILENT}")),
            }
        }
        Ok(adapter)
    }

    fn tell(&mut self, command: Command) {
        self.output.extend(format!("{command}\r").bytes());
    }

    /// Waits for a reply. None: it does not come. Frames are of earlier, or of another one's bus.
    async fn hear(&mut self, is_wanted: impl Fn(&Reply) -> bool) -> Result<Option<Reply>, String> {
        let deadline = Instant::now() + ANSWERS_WITHIN;
        loop {
            while let Some(byte) = self.input.pop_front() {
                if let Some(reply) = self.decode(byte).filter(&is_wanted) {
                    return Ok(Some(reply));
                }
            }
            match timeout_at(deadline, self.transfer(false)).await {
                Ok(transferred) => drop(transferred?),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Writes what waits and reads what comes. True: all is written, and that was `wanted`.
    async fn transfer(&mut self, wanted: bool) -> Result<bool, String> {
        let Self { wire, output, input, .. } = self;
        let mut bytes = [0; 1024];
        let read = poll_fn(|context| {
            while !output.is_empty() {
                match Pin::new(&mut *wire).poll_write(context, output) {
                    Poll::Ready(Ok(count)) => drop(output.drain(..count.min(output.len()))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if wanted && output.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            Pin::new(&mut *wire).poll_read(context, &mut buffer).map_ok(|()| Some(buffer.filled().len()))
        });
        match read.await {
            Err(error) => Err(format!("the adapter cannot be reached: {error}")),
            Ok(Some(0)) => Err("the adapter is gone: is it plugged in?".into()),
            Ok(None) => Ok(true),
            Ok(Some(count)) => {
                input.extend(bytes.get(..count).unwrap_or_default());
                Ok(false)
            }
        }
    }

    /// As [`super::bus::Bus::wait`].
    pub(super) async fn wait(
        &mut self,
        wants_room: bool,
        frames: &mut Vec<Received>,
    ) -> Result<Event, String> {
        if self.input.is_empty() {
            let awaited = self.awaited;
            let transfer = self.transfer(match awaited {
                None => wants_room,
                Some((awaited, _)) => awaited == Awaited::Written,
            });
            let transferred = match awaited {
                None => transfer.await?,
                Some((awaited, since)) => match timeout_at(since + ANSWERS_WITHIN, transfer).await {
                    Ok(transferred) => transferred?,
                    Err(_) => return self.is_overdue(awaited),
                },
            };
            if transferred {
                return Ok(if self.awaited.take().is_some() { Event::Answered(Ok(())) } else { Event::Room });
            }
        }
        let at = self.clock.wall_ns();
        while let Some(byte) = self.input.pop_front() {
            match self.decode(byte) {
                Some(Reply::Frame(frame)) => frames.push(Received { frame, at }),
                Some(reply) => {
                    if let Some(outcome) = self.take(&reply) {
                        return Ok(Event::Answered(outcome));
                    }
                }
                None => {}
            }
        }
        Ok(Event::Frames)
    }

    fn is_overdue(&mut self, awaited: Awaited) -> Result<Event, String> {
        match awaited {
            Awaited::Reason => {
                self.awaited = None;
                Ok(Event::Answered(Err(self.refuses(None))))
            }
            Awaited::Sent => Err(format!("the adapter does not answer (any more): {SILENT}")),
            Awaited::Written => Err("the port takes nothing any more: is the adapter overrun?".into()),
        }
    }

    fn decode(&mut self, byte: u8) -> Option<Reply> {
        let reply = self.decoder.push(byte);
        if let Some(Garbled { line, why }) = self.decoder.take_garbled() {
            self.status.malformed.add(1);
            if let Some(count) = self.garbled.count(1) {
                warn!(
                    count,
                    line = excerpt(&line),
                    why,
                    "lines of the adapter that cannot be read are left out"
                );
            }
        }
        reply
    }

    /// What a reply says of the frame that was sent.
    fn take(&mut self, reply: &Reply) -> Option<Result<(), String>> {
        match (reply, self.awaited.map(|(awaited, _)| awaited)) {
            (Reply::Done | Reply::Taken, Some(Awaited::Sent)) => {
                self.awaited = None;
                Some(Ok(()))
            }
            (Reply::Refused, Some(Awaited::Sent)) => {
                self.status.refusals.add(1);
                self.tell(Command::Flags);
                self.awaited = Some((Awaited::Reason, Instant::now()));
                None
            }
            (Reply::Flags(flags), Some(Awaited::Reason)) => {
                self.awaited = None;
                Some(Err(self.refuses(Some(*flags))))
            }
            (Reply::Done | Reply::Refused, Some(Awaited::Reason)) => {
                self.awaited = None;
                Some(Err(self.refuses(None)))
            }
            // Of a command that opened it, or of a frame whose answer nobody waits for.
            (Reply::Refused, _) => {
                self.status.refusals.add(1);
                self.refuses(None);
                None
            }
            _ => None,
        }
    }

    /// Why it refuses something.
    fn refuses(&mut self, flags: Option<Flags>) -> String {
        let words: Vec<&str> = flags.into_iter().flat_map(Flags::words).collect();
        let why = match words.as_slice() {
            [] => "it does not say why; its queue may be full, or it is not on the bus".to_owned(),
            words => words.join(", "),
        };
        if let Some(count) = self.refused.count(1) {
            warn!(count, why, "the adapter refuses what it is told");
        }
        format!(
            "the adapter refuses the frame: {why}. Compare the bit rate with the other nodes', and look at \
             wiring and termination"
        )
    }

    /// Has a frame written.
    pub(super) fn send(&mut self, frame: &Frame) -> Sent {
        if !self.output.is_empty() || self.awaited.is_some() {
            return Sent::Later;
        }
        let mut line = String::new();
        if !write_frame(frame, &mut line) {
            return Sent::Refused("the adapter's protocol has no such frame".into());
        }
        self.output.extend(line.bytes());
        let awaited = if self.answers { Awaited::Sent } else { Awaited::Written };
        self.awaited = Some((awaited, Instant::now()));
        Sent::Asked
    }
}

fn refusal(command: Command) -> String {
    match command {
        Command::BitRate(_) => {
            format!("the adapter refuses the bit rate (`{command}`): it may know others only")
        }
        Command::Listen => format!("the adapter refuses to listen only (`{command}`): it may not be able to"),
        _ => format!(
            "the adapter refuses to take part in the bus (`{command}`): look at its wiring, and whether it \
             is set to another mode"
        ),
    }
}
