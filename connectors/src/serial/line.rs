//! The task that owns a port: it reads, asks, writes, and opens the port again.
//!
//! A write that waits goes out before the next request, also while the line rests after one that was not
//! answered. Between a request and its answer nothing is sent. While the port is gone, polls that are due
//! become rows that say so, where a stream has asked for them, and writes fail at once.

use std::future::pending;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_core::Span;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::framing::Framer;
use super::link::{Link, Unsent, Usage};
use super::pace::Owed;
use super::sink::TelegramWrite;
use super::streams::{Stream, Streams};
use crate::hex::dump;
use crate::line::handover::HandOver;
use crate::line::task::{self, End, Protocol};
use crate::line::writes::Write;
use crate::port::{Dial, Place, Wire};
use crate::{DeliveryError, Inlet};

type Line = task::Line<TelegramWrite>;

/// When no byte has come for so long and nobody has answered, or bytes have come and no frame, something is
/// wrong with the line.
const USELESS: Duration = Duration::from_secs(10);

/// After how many requests without any answer a serial server is called anew.
const HOPELESS: u32 = 10;

/// The one that listens, and asks.
pub(super) struct Station {
    pub(super) dial: Dial,
    pub(super) framer: Framer,
    pub(super) streams: Streams,
    pub(super) usage: Usage,
    /// whether the line listens
    pub(super) asked: watch::Receiver<i64>,
    /// requests without an answer, one after the other
    pub(super) silent: u32,
    /// what was said of a line that is up and of no use
    pub(super) useless: Option<&'static str>,
    /// the same, until it is of use again, also where the line was opened again since
    pub(super) said_useless: Option<&'static str>,
}

impl Protocol for Station {
    type Wire = Wire;
    type Write = TelegramWrite;
    type Rows = Stream;

    fn start(&mut self, inlet: Inlet) {
        self.asked = inlet.asked.clone();
        self.streams.begin(inlet, Instant::now());
    }

    fn open(&self) -> BoxFuture<'static, Result<Wire, String>> {
        let dial = self.dial.clone();
        async move { dial.open().await }.boxed()
    }

    async fn drive(&mut self, wire: Wire, line: &mut Line) -> End {
        let byte = self.dial.settings().byte_time();
        let mut link = Link::new(wire, self.dial.place().clone(), self.framer.clone(), byte, self.usage);
        let end = self.use_link(&mut link, line).await;
        // What is left of a frame will not become one.
        link.framer().opened(Instant::now(), Duration::ZERO);
        self.dispatch(&mut link);
        end
    }

    fn rows(&mut self) -> &mut HandOver<Stream> {
        &mut self.streams.rows
    }

    fn begins(&mut self) {
        (self.silent, self.useless) = (0, None);
        self.streams.begins(Instant::now());
    }

    fn ends(&mut self, _: &str, _: &Line) {
        self.streams.rows.ends();
    }

    fn next_due(&self) -> Option<Instant> {
        self.streams.next_due()
    }

    fn pass_by(&mut self, fault: &str, now: Instant) {
        self.streams.pass_by(fault, now);
    }
}

impl Station {
    /// Uses a connection until it is lost or not needed.
    async fn use_link(&mut self, link: &mut Link, line: &mut Line) -> End {
        loop {
            self.dispatch(link);
            if line.is_finished(&mut self.streams.rows) {
                return End::Finished;
            }
            if let Err(reason) = self.take_turn(link, line).await {
                return End::Lost(reason);
            }
        }
    }

    /// Does what comes next: a write, a poll, or nothing until something happens.
    async fn take_turn(&mut self, link: &mut Link, line: &mut Line) -> Result<(), String> {
        if line.writes.any() || self.streams.due(Instant::now()).is_some() {
            link.drain().await?;
            self.dispatch(link);
        }
        let now = Instant::now();
        self.streams.note_stale(now, None);
        self.note_useless(link, line, now);
        if let Some(write) = line.writes.next() {
            let ready = self.ready_for(link, &write, now);
            if ready <= now {
                self.write(link, line, write).await?;
                line.writes.held_up_by("the line waited for the `answer` to an earlier write");
                return Ok(());
            }
            let until = ready.min(write.until);
            line.writes.put_back_because(write, link.waits_for(now));
            return self.until_something(link, line, Some(until)).await;
        }
        let Some(poll) = self.streams.due(now) else {
            return self.until_something(link, line, self.streams.next_due()).await;
        };
        if !self.streams.is_to_be_asked(poll, now) {
            return Ok(());
        }
        let wanted = self.streams.due_since(poll).unwrap_or(now);
        let patience = self.streams.request(poll).map_or(Duration::ZERO, |(_, timeout)| timeout);
        let ready = link.pace.request(wanted, link.frame_until(), patience);
        if ready <= now {
            self.poll(link, line, poll).await?;
            line.writes.held_up_by("the line waited for the answer to a request");
            Ok(())
        } else {
            self.until_something(link, line, Some(ready)).await
        }
    }

    /// When a write may go out.
    fn ready_for(&self, link: &Link, write: &Write<TelegramWrite>, now: Instant) -> Instant {
        // What could seem to confirm it has to come first.
        let is_doubtful = write.what.answer.is_some()
            && match link.pace.owed(now) {
                Some(Owed::Poll(poll)) => !self.streams.is_selective(poll),
                owed => owed.is_some(),
            };
        if is_doubtful {
            link.pace.request(write.decided(), link.frame_until(), write.what.timeout)
        } else {
            link.pace.write(link.frame_until())
        }
    }

    /// Waits for whatever comes, until something is due.
    async fn until_something(
        &mut self,
        link: &mut Link,
        line: &mut Line,
        due: Option<Instant>,
    ) -> Result<(), String> {
        let due = due.into_iter().chain(self.streams.next_stale()).min();
        let is_heard = self.streams.any_unasked();
        let rows = &mut self.streams.rows;
        tokio::select! {
            biased;
            heard = link.listen() => heard?,
            // Behind what is there to be read: a port that is open and has nothing is silent.
            asked = asked(&mut self.asked), if is_heard => rows.heard(asked),
            () = line.wait(rows, due) => {}
        }
        Ok(())
    }

    /// Hands out the frames that nobody has asked for.
    fn dispatch(&mut self, link: &mut Link) {
        let now = Instant::now();
        while let Some(frame) = link.frames.pop_front() {
            self.streams.dispatch(&frame, now);
        }
        self.streams.note(link.framer());
    }

    /// Says once of a line that is up that nothing comes of it, and why that may be.
    fn note_useless(&mut self, link: &mut Link, line: &Line, now: Instant) {
        let is_mute = link.framer().tally().bytes == 0 && self.silent > 0 && link.opened + USELESS <= now;
        let longest = link.framer().max();
        let patience = USELESS.max(link.time_of(longest));
        let is_lost = link.framer().is_lost(now, patience);
        let useless = if is_mute { Some(MUTE) } else { is_lost.then_some(FRAMELESS) };
        if self.useless == useless {
            return;
        }
        self.useless = useless;
        let trouble = match useless {
            None => {
                self.said_useless = None;
                info!("the line is of use again");
                return line.status.suffers(None);
            }
            Some(MUTE) => format!("{}: {MUTE}: {}", link.place(), mute_because(link.place())),
            Some(what) => {
                let seen = link.framer().unframed().map(|unframed| dump(unframed.newest()));
                let seen = seen.unwrap_or_default();
                let cause = link.framer().probable_cause();
                format!("{}: {what}: {cause}; the newest are {seen}", link.place())
            }
        };
        if std::mem::replace(&mut self.said_useless, useless) != useless {
            warn!(trouble, "the line is up, and of no use");
        }
        line.status.suffers(Some(trouble));
    }

    /// Carries out a write.
    ///
    /// # Errors
    /// Why the line is lost.
    async fn write(
        &mut self,
        link: &mut Link,
        line: &Line,
        write: Write<TelegramWrite>,
    ) -> Result<(), String> {
        let TelegramWrite { bytes, answer, timeout } = &write.what;
        let owed = link.pace.owed(Instant::now());
        if answer.is_some() {
            link.begin_exchange();
            if owed.is_none() {
                link.pace.rested();
            }
        }
        if let Err(Unsent { reason, is_begun }) = link.send(bytes, Some(write.until)).await {
            let error = if is_begun { DeliveryError::Unknown } else { DeliveryError::Transient };
            let why = if write.until <= Instant::now() {
                line.writes.count_late();
                let began = if is_begun { "it began in time, and did not end" } else { "it could not begin" };
                format!("{began} within {} (`write_within`): {reason}", Span(write.within))
            } else {
                reason.clone()
            };
            write.settle(Err(error(why)));
            return Err(reason);
        }
        let Some(answer) = answer else {
            write.settle(Ok(()));
            return Ok(());
        };
        // A frame that may be the late answer to a poll confirms nothing.
        let is_late = |streams: &Streams, frame: &[u8]| match owed {
            Some(Owed::Poll(poll)) => streams.answers(poll, frame),
            _ => false,
        };
        let fits = |streams: &Streams, frame: &[u8]| answer.fits(frame) && !is_late(streams, frame);
        let found = self.answer(link, line, bytes.len(), *timeout, fits).await;
        let timeout = *timeout;
        match found {
            Ok(Some(_)) => write.settle(Ok(())),
            Ok(None) => {
                line.status.timeouts.add(1);
                link.pace.unanswered(Instant::now(), timeout, Owed::Write);
                let why =
                    format!("{}: sent, and not confirmed by `answer` within {}", write.output, Span(timeout));
                write.settle(Err(DeliveryError::Unknown(why)));
            }
            Err(reason) => {
                let why =
                    format!("{}: sent, and the line was lost before `answer` came: {reason}", write.output);
                write.settle(Err(DeliveryError::Unknown(why)));
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Asks a device.
    async fn poll(&mut self, link: &mut Link, line: &Line, poll: usize) -> Result<(), String> {
        let Some((request, timeout)) = self.streams.request(poll) else { return Ok(()) };
        let asked = self.streams.rows.asked();
        let heard = link.framer().tally().bytes;
        let answer = self.ask(link, line, poll, &request, timeout).await;
        let now = Instant::now();
        match answer {
            Ok(Some(frame)) => {
                self.silent = 0;
                self.streams.settle(poll, true, now);
                self.streams.rows.heard(asked);
                self.streams.finish(poll, Ok(&frame), now);
            }
            Ok(None) => {
                self.silent = self.silent.saturating_add(1);
                line.status.timeouts.add(1);
                link.pace.unanswered(now, timeout, Owed::Poll(poll));
                self.streams.settle(poll, false, now);
                let others = if link.framer().tally().bytes > heard { ", though bytes came" } else { "" };
                let fault = format!("no answer within {}{others}", Span(timeout));
                self.streams.finish(poll, Err(&fault), now);
                if is_network(link.place()) && self.silent >= HOPELESS {
                    let reason = match self.useless {
                        Some(_) => line.status.trouble(),
                        None => None,
                    };
                    let silent = || format!("nobody has answered the last {} requests", self.silent);
                    return Err(reason.unwrap_or_else(silent));
                }
            }
            Err(reason) => {
                self.streams.finish_without_line(poll, &reason, now);
                return Err(reason);
            }
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        link: &mut Link,
        line: &Line,
        poll: usize,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, String> {
        link.begin_exchange();
        link.pace.rested();
        link.send(request, None).await?;
        self.answer(link, line, request.len(), timeout, |streams, frame| streams.answers(poll, frame)).await
    }

    /// The frame that answers what was sent; none: it did not come in time. What else comes is handed out.
    async fn answer(
        &mut self,
        link: &mut Link,
        line: &Line,
        sent: usize,
        timeout: Duration,
        fits: impl Fn(&Streams, &[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, String> {
        let begun = Instant::now();
        let mut deadline = begun + timeout + link.time_of(sent);
        // A frame that has begun in time is waited for.
        let longest = link.framer().max();
        let limit = deadline + timeout + link.time_of(longest);
        loop {
            let place = link.frames.iter().position(|frame| fits(&self.streams, frame));
            let answer = place.and_then(|place| link.frames.remove(place));
            self.dispatch(link);
            if answer.is_some() {
                link.pace.used(Instant::now());
                return Ok(answer);
            }
            if link.framer().waiting() > 0 {
                deadline = deadline.max(link.pace.last_heard() + timeout).min(limit);
            }
            tokio::select! {
                biased;
                heard = link.listen() => heard?,
                () = sleep_until(deadline) => return Ok(None),
                () = line.grace() => return Err("the box stops".into()),
            }
        }
    }
}

/// Resolves when the line is asked whether it listens.
async fn asked(asked: &mut watch::Receiver<i64>) -> i64 {
    match asked.changed().await {
        Ok(()) => *asked.borrow_and_update(),
        Err(_) => pending().await,
    }
}

const MUTE: &str = "no byte has come since it was opened, and requests are not answered";

const FRAMELESS: &str = "bytes come, and no frame";

fn is_network(place: &Place) -> bool {
    matches!(place, Place::Tcp(_) | Place::Rfc2217(_))
}

/// Why nothing at all may come from a port.
fn mute_because(place: &Place) -> &'static str {
    if is_network(place) {
        "has the server another client (many give a port's bytes to one), or is the device off, or its cable \
        out?"
    } else {
        "is the device off, are RX and TX crossed, or does it want another baud rate?"
    }
}
