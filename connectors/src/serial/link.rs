//! An open port, and the frames that come from it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep_until};

use super::framing::{Framer, SETTLED};
use crate::port::{Place, Wire};

/// A driver that does not take bytes for so long is held back by the device, or stuck.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that are read at once: what a terminal's buffer has.
const READ: usize = 4096;

/// An open port. It hears at any time, also while it sends.
pub(super) struct Link {
    reader: ReadHalf<Wire>,
    writer: WriteHalf<Wire>,
    place: Place,
    framer: Framer,
    buffer: Box<[u8]>,
    /// Frames that were found; they are taken out before anything more is heard.
    pub(super) frames: VecDeque<Vec<u8>>,
    /// What the adapter will hear of what was sent, if it hears that.
    echo: Option<VecDeque<u8>>,
    byte: Duration,
    /// when the last byte came or was sent
    pub(super) last: Instant,
    /// When an answer was given up, and for how long the line has to be silent then: it may come late.
    pub(super) dirty: Option<(Instant, Duration)>,
}

/// Writes what there is room for; when nothing is left, waits until it is under way.
async fn write_some(writer: &mut WriteHalf<Wire>, rest: &[u8]) -> io::Result<usize> {
    if rest.is_empty() { writer.flush().await.map(|()| 0) } else { writer.write(rest).await }
}

impl Link {
    pub(super) fn new(wire: Wire, place: Place, mut framer: Framer, byte: Duration, echo: bool) -> Self {
        let (reader, writer) = split(wire);
        let now = Instant::now();
        framer.opened(now);
        Self {
            reader,
            writer,
            place,
            framer,
            buffer: vec![0; READ].into(),
            frames: VecDeque::new(),
            echo: echo.then(VecDeque::new),
            byte,
            last: now,
            // What is asked before it is known that nobody talks gets an answer whose beginning may be
            // another's end.
            dirty: Some((Instant::now(), SETTLED)),
        }
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

    /// Sends bytes, and hears meanwhile.
    ///
    /// # Errors
    /// In words for the user, when the line is lost.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let deadline = Instant::now() + WRITE_PATIENCE + 2 * self.time_of(bytes.len());
        if let Some(echo) = &mut self.echo {
            echo.clear();
            echo.extend(bytes);
        }
        let mut sent = 0;
        loop {
            let rest = bytes.get(sent..).unwrap_or_default();
            tokio::select! {
                biased;
                read = self.reader.read(&mut self.buffer) => self.take(read)?,
                wrote = write_some(&mut self.writer, rest) => {
                    sent += wrote.map_err(|error| self.gone(&error))?;
                    if rest.is_empty() {
                        self.last = Instant::now();
                        return Ok(());
                    }
                }
                () = sleep_until(deadline) => {
                    return Err(format!(
                        "{}: bytes cannot be sent: does the device hold the line back (`flow_control`)?",
                        self.place
                    ));
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
        self.last = Instant::now();
        let frames = &mut self.frames;
        self.framer.push(bytes, self.last, &mut |frame| frames.push_back(frame.to_vec()));
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
