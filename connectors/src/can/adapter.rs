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

/// How long what seems a yes is listened behind: other devices go on, as modems do (`\r\nERROR\r\n`).
const SETTLES: Duration = Duration::from_millis(100);

/// The longest that is waited for quiet.
const HEARD_OUT: Duration = Duration::from_secs(5);

const ECHO: &str = "what it is told comes back: that is an echo (of a modem, a terminal, or a cable whose RX \
    and TX touch), and no adapter (slcan)";

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

/// What has come.
enum Heard {
    Reply(Reply),
    /// a line that is none of an adapter's
    Unreadable(Vec<u8>),
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
    /// frames that came while it was opened
    early: Vec<Received>,
    /// the frame that was written last
    sent: Option<Frame>,
    /// Whether a no could still be that to a command that opened it.
    is_unsure: bool,
    /// why it is left
    fault: Option<String>,
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
            early: Vec::new(),
            sent: None,
            is_unsure: setting.answers,
            fault: None,
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
        // One that is closed refuses to be closed.
        adapter.tell(Command::Version);
        adapter.hear_out(setting.bit_rate).await?;
        for command in [setting.bit_rate, open] {
            adapter.tell(command);
            if let Err(why) = adapter.is_done(command).await {
                return Err(adapter.give_up(why).await);
            }
        }
        Ok(adapter)
    }

    fn tell(&mut self, command: Command) {
        self.output.extend(format!("{command}\r").bytes());
    }

    /// The next thing that is heard. None: nothing comes until then.
    async fn hear(&mut self, until: Instant) -> Result<Option<Heard>, String> {
        loop {
            while let Some(byte) = self.input.pop_front() {
                if let Some(heard) = self.decode(byte)? {
                    return Ok(Some(heard));
                }
            }
            match timeout_at(until, self.transfer(false)).await {
                Ok(transferred) => drop(transferred?),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Hears all answers of earlier, so that the next one is that to the next command: until the version has
    /// come, which was asked for last, or nothing is answered any more.
    async fn hear_out(&mut self, next: Command) -> Result<(), String> {
        let begun = Instant::now();
        let (mut quiet, mut is_answered) = (begun + ANSWERS_WITHIN, false);
        while let Some(heard) = self.hear(quiet).await? {
            match heard {
                Heard::Reply(Reply::Version(_)) => return Ok(()),
                // Frames are of earlier, or of another one's bus.
                Heard::Reply(Reply::Frame(_)) | Heard::Unreadable(_) => {}
                Heard::Reply(_) => (quiet, is_answered) = (Instant::now() + ANSWERS_WITHIN, true),
            }
            if begun + HEARD_OUT < Instant::now() {
                return Err(format!("it answers without end, so that `{next}` cannot be asked: {SILENT}"));
            }
        }
        if is_answered {
            return Ok(());
        }
        Err(self.give_up(format!("nothing answers `C` and `V`: {SILENT}")).await)
    }

    /// Waits for the answer to a command, and whether that is all.
    async fn is_done(&mut self, command: Command) -> Result<(), String> {
        let (mut deadline, mut is_done) = (Instant::now() + ANSWERS_WITHIN, false);
        while let Some(heard) = self.hear(deadline).await? {
            match heard {
                Heard::Reply(Reply::Done | Reply::Taken) if !is_done => {
                    (deadline, is_done) = (Instant::now() + SETTLES, true);
                }
                Heard::Reply(Reply::Refused) => return Err(refusal(command)),
                // On the bus it hears frames at once, also such as are in front of its yes.
                Heard::Reply(Reply::Frame(frame)) if !matches!(command, Command::BitRate(_)) => {
                    self.early.push(Received { frame, at: self.clock.wall_ns() });
                }
                Heard::Reply(_) => {}
                // Once it takes part in the bus, it passes on what it hears there.
                Heard::Unreadable(_) if is_done && !matches!(command, Command::BitRate(_)) => {}
                Heard::Unreadable(line) => {
                    return Err(format!(
                        "`{command}` is answered with {}, which no adapter says: is it one (slcan), and is \
                         the `baud` of the port right?",
                        excerpt(&line)
                    ));
                }
            }
            // A busy bus is never quiet.
            if deadline <= Instant::now() {
                break;
            }
        }
        if is_done { Ok(()) } else { Err(format!("the adapter does not answer `{command}`")) }
    }

    /// Takes it off the bus, and hears what comes too late: it must not be taken for an answer when it is
    /// opened again.
    async fn give_up(&mut self, why: String) -> String {
        let limit = Instant::now() + HEARD_OUT;
        self.tell(Command::Close);
        while Instant::now() < limit
            && let Ok(Some(_)) = self.hear(Instant::now() + ANSWERS_WITHIN).await
        {}
        why
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
        if self.fault.is_some() {
            return self.leave().await;
        }
        if !self.early.is_empty() {
            frames.append(&mut self.early);
            return Ok(Event::Frames);
        }
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
                Ok(Some(Heard::Reply(Reply::Frame(frame)))) => {
                    if self.is_echo(&frame) {
                        self.fault = Some(ECHO.into());
                    } else {
                        frames.push(Received { frame, at });
                    }
                }
                Ok(Some(Heard::Reply(reply))) => {
                    if let Some(outcome) = self.take(&reply) {
                        return Ok(Event::Answered(outcome));
                    }
                }
                Ok(Some(Heard::Unreadable(_)) | None) => {}
                Err(fault) => self.fault = Some(fault),
            }
            if self.fault.is_some() {
                return self.leave().await;
            }
        }
        Ok(Event::Frames)
    }

    /// Nobody else sends what was just written, and before it is answered.
    fn is_echo(&self, frame: &Frame) -> bool {
        let is_unanswered = matches!(self.awaited, Some((Awaited::Sent, _)));
        is_unanswered && self.sent.as_ref() == Some(frame)
    }

    /// Has it leave the bus, as far as that is still possible.
    async fn leave(&mut self) -> Result<Event, String> {
        self.output.clear();
        self.tell(Command::Close);
        // What is wrong with it is known; whether it takes this changes nothing.
        let _ = timeout_at(Instant::now() + SETTLES, self.transfer(true)).await;
        Err(self.fault.take().unwrap_or_default())
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

    /// # Errors
    /// It is an echo.
    fn decode(&mut self, byte: u8) -> Result<Option<Heard>, String> {
        let reply = self.decoder.push(byte).map(Heard::Reply);
        let Some(Garbled { line, why }) = self.decoder.take_garbled() else { return Ok(reply) };
        if is_command(&line) {
            return Err(ECHO.into());
        }
        self.status.malformed.add(1);
        if let Some(count) = self.garbled.count(1) {
            warn!(count, line = excerpt(&line), why, "lines of the adapter that cannot be read are left out");
        }
        // A no cuts off what came before it.
        Ok(reply.or(Some(Heard::Unreadable(line))))
    }

    /// What a reply says of the frame that was sent.
    fn take(&mut self, reply: &Reply) -> Option<Result<(), String>> {
        match (reply, self.awaited.map(|(awaited, _)| awaited)) {
            (Reply::Done | Reply::Taken, Some(Awaited::Sent)) => {
                (self.awaited, self.is_unsure) = (None, false);
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
            (Reply::Refused, None) if self.is_unsure => {
                self.status.refusals.add(1);
                self.fault = Some(
                    "the adapter said no after it had said yes to its bit rate and to taking part in the bus: \
                     one of them did not happen, so it is opened anew"
                        .into(),
                );
                None
            }
            // Of a frame whose answer nobody waits for.
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
        self.sent = Some(*frame);
        let awaited = if self.answers { Awaited::Sent } else { Awaited::Written };
        self.awaited = Some((awaited, Instant::now()));
        Sent::Asked
    }
}

/// Whether a line is one that an adapter is told, and never says.
fn is_command(line: &[u8]) -> bool {
    match line {
        [b'C' | b'V' | b'O' | b'L' | b'F'] => true,
        [b'S', code] => code.is_ascii_digit(),
        _ => false,
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
