//! An open port, and the frames that come from it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::framing::{Framer, SETTLED};
use super::pace::{Owed, Pace};
use crate::port::{Output, Place, Wire};

/// A driver that does not take bytes for so long is held back by the device, or stuck.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// Where devices only answer, the line is silent as soon as what was on its way has come: adapters and serial
/// servers keep bytes for some tens of milliseconds.
const ARRIVED: Duration = Duration::from_millis(100);

/// A frame that does not go on for so long is not waited for.
const FRAME_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that are read at once: what a terminal's buffer has.
const READ: usize = 4096;

/// An open port. It hears at any time, also while it sends.
pub(super) struct Link {
    reader: ReadHalf<Wire>,
    writer: WriteHalf<Wire>,
    output: Option<Output>,
    place: Place,
    framer: Framer,
    buffer: Box<[u8]>,
    /// Frames that were found; they are taken out before anything more is heard.
    pub(super) frames: VecDeque<Vec<u8>>,
    /// What the adapter will hear of what was sent, if it hears that.
    echo: Option<VecDeque<u8>>,
    byte: Duration,
    pub(super) pace: Pace,
    pub(super) opened: Instant,
}

/// How a line is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// whether the adapter hears what it sends
    pub(super) echo: bool,
    /// `pause_between_requests`
    pub(super) pause: Option<Duration>,
    /// whether devices speak that nobody has asked
    pub(super) unasked: bool,
}

/// Bytes were not sent, or not all of them.
pub(super) struct Unsent {
    pub(super) reason: String,
    /// whether some of them may be on their way
    pub(super) is_begun: bool,
}

impl From<Unsent> for String {
    fn from(unsent: Unsent) -> Self {
        unsent.reason
    }
}

/// Writes what there is room for; when nothing is left, waits until it is under way.
async fn write_some(writer: &mut WriteHalf<Wire>, rest: &[u8]) -> io::Result<usize> {
    if rest.is_empty() { writer.flush().await.map(|()| 0) } else { writer.write(rest).await }
}

impl Link {
    /// A line that was just opened. `byte`: what one takes.
    pub(super) fn new(wire: Wire, place: Place, mut framer: Framer, byte: Duration, usage: Usage) -> Self {
        let output = wire.output();
        let (reader, writer) = split(wire);
        let now = Instant::now();
        let Usage { echo, pause, unasked } = usage;
        let settled = if unasked { SETTLED } else { ARRIVED };
        framer.opened(now, settled);
        Self {
            reader,
            writer,
            output,
            place,
            framer,
            buffer: vec![0; READ].into(),
            frames: VecDeque::new(),
            echo: echo.then(VecDeque::new),
            byte,
            pace: Pace::new(pause, now, settled),
            opened: now,
        }
    }

    /// Takes what has come by now, so that it is no answer to what is asked then.
    ///
    /// # Errors
    /// In words for the user, when the line is lost.
    pub(super) async fn drain(&mut self) -> Result<(), String> {
        // Lets the runtime see what is there.
        yield_now().await;
        while let Some(heard) = self.listen().now_or_never() {
            heard?;
            // The frames of one that never stops are taken out in between.
            if self.frames.len() > READ {
                break;
            }
        }
        Ok(())
    }

    /// Until when a frame that is under way is waited for.
    pub(super) fn frame_until(&self) -> Option<Instant> {
        let until = || self.framer.due().unwrap_or(self.pace.last_heard() + FRAME_PAUSE);
        (self.framer.waiting() > 0).then(until)
    }

    /// Why nothing may be sent yet.
    pub(super) fn waits_for(&self, now: Instant) -> &'static str {
        match self.pace.owed(now) {
            Some(Owed::Poll(_)) => "the line waited for the late answer to an earlier request",
            Some(Owed::Write) => "the line waited for the late `answer` to an earlier write",
            Some(Owed::Unknown) => "the line was just opened, and was waited for until it was quiet",
            None if self.framer.waiting() > 0 => "the line waited for the end of a frame that was coming in",
            None => "the line waited for its `pause_between_requests`",
        }
    }

    /// A request goes out: what there is of a frame is no part of its answer.
    pub(super) fn begin_exchange(&mut self) {
        if self.framer.waiting() > 0 {
            self.framer.give_up(Instant::now(), FRAME_PAUSE);
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn framer(&mut self) -> &mut Framer {
        &mut self.framer
    }

    /// How long so many bytes take on the line.
    pub(super) fn time_of(&self, bytes: usize) -> Duration {
        self.byte.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Waits until bytes come, or a frame ends by silence.
    ///
    /// # Errors
    /// In words for the user, when the line is lost.
    pub(super) async fn listen(&mut self) -> Result<(), String> {
        let due = self.framer.due();
        tokio::select! {
            biased;
            read = self.reader.read(&mut self.buffer) => self.take(read),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let frames = &mut self.frames;
                self.framer.silence(Instant::now(), &mut |frame| frames.push_back(frame.to_vec()));
                Ok(())
            }
        }
    }

    /// Sends bytes, and hears meanwhile. `until`: when what has not gone out is of no use any more.
    ///
    /// # Errors
    /// In words for the user, when the line is lost.
    pub(super) async fn send(&mut self, bytes: &[u8], until: Option<Instant>) -> Result<(), Unsent> {
        let deadline = Instant::now() + WRITE_PATIENCE + 2 * self.time_of(bytes.len());
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        if let Some(echo) = &mut self.echo {
            echo.clear();
            echo.extend(bytes);
        }
        let mut sent = 0;
        loop {
            let rest = bytes.get(sent..).unwrap_or_default();
            tokio::select! {
                biased;
                read = self.reader.read(&mut self.buffer) => {
                    self.take(read).map_err(|reason| Unsent { reason, is_begun: sent > 0 })?;
                }
                wrote = write_some(&mut self.writer, rest) => {
                    sent += wrote
                        .map_err(|error| Unsent { reason: self.gone(&error), is_begun: sent > 0 })?;
                    if rest.is_empty() {
                        self.pace.used(Instant::now());
                        return Ok(());
                    }
                }
                () = sleep_until(deadline) => {
                    if let Some(Err(error)) = self.output.as_ref().map(Output::discard) {
                        warn!(%error, "what the driver holds back may be sent late");
                    }
                    let reason = format!(
                        "{}: bytes cannot be sent: does the device hold the line back (`flow_control`)?",
                        self.place
                    );
                    return Err(Unsent { reason, is_begun: sent > 0 });
                }
            }
        }
    }

    fn take(&mut self, read: io::Result<usize>) -> Result<(), String> {
        let count = match read {
            Ok(0) => return Err(self.end()),
            Ok(count) => count,
            Err(error) => return Err(self.gone(&error)),
        };
        let mut bytes = self.buffer.get(..count).unwrap_or_default();
        if let Some(echo) = &mut self.echo {
            while let (Some(expected), Some((byte, rest))) = (echo.front(), bytes.split_first()) {
                if expected != byte {
                    echo.clear();
                    break;
                }
                echo.pop_front();
                bytes = rest;
            }
        }
        let now = Instant::now();
        self.pace.heard(now);
        let frames = &mut self.frames;
        self.framer.push(bytes, now, &mut |frame| frames.push_back(frame.to_vec()));
        Ok(())
    }

    fn end(&self) -> String {
        match &self.place {
            Place::Path(_) | Place::Usb(_) => format!("{} is gone: was it unplugged?", self.place),
            Place::Rfc2217(_) | Place::Tcp(_) => format!("{} has closed the connection", self.place),
        }
    }

    fn gone(&self, error: &io::Error) -> String {
        // What drivers say when the adapter is unplugged.
        if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
            return self.end();
        }
        format!("{}: {error}", self.place)
    }
}
