//! The task that owns a port: it reads, asks, writes, and opens the port again.
//!
//! A write that waits goes out before the next request. Between a request and its answer nothing is sent.
//! While the port is gone, polls that are due become rows that say so, where a stream has asked for them,
//! and writes fail at once.

use std::future::pending;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_core::Span;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::framing::Framer;
use super::link::Link;
use super::sink::TelegramWrite;
use super::streams::{Stream, Streams};
use crate::line::handover::HandOver;
use crate::line::task::{self, End, Protocol};
use crate::port::{Dial, Place, Wire};
use crate::{DeliveryError, Inlet};

type Line = task::Line<TelegramWrite>;

/// After a request that was not answered the line has to be silent for one timeout; on one that never is, no
/// longer than so many.
const LONGEST_REST: u32 = 4;

/// After how many requests without any answer a serial server is called anew.
const HOPELESS: u32 = 10;

/// The one that listens, and asks.
pub(super) struct Station {
    pub(super) dial: Dial,
    pub(super) framer: Framer,
    pub(super) streams: Streams,
    pub(super) pause: Duration,
    pub(super) echo: bool,
    /// whether the line listens
    pub(super) asked: watch::Receiver<i64>,
    /// requests without an answer, one after the other
    pub(super) silent: u32,
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
        let mut link = Link::new(wire, self.dial.place().clone(), self.framer.clone(), byte, self.echo);
        let end = self.use_link(&mut link, line).await;
        // What is left of a frame will not become one.
        link.framer().opened(Instant::now());
        self.dispatch(&mut link);
        end
    }

    fn rows(&mut self) -> &mut HandOver<Stream> {
        &mut self.streams.rows
    }

    fn begins(&mut self) {
        self.silent = 0;
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
            if let Err(reason) = self.serve(link, line).await {
                return End::Lost(reason);
            }
            if line.is_finished(&mut self.streams.rows) {
                return End::Finished;
            }
            let now = Instant::now();
            self.streams.note_stale(now, None);
            let outcome = match self.streams.due(now) {
                Some(poll) => self.poll(link, line, poll).await,
                None => self.until_something(link, line).await,
            };
            if let Err(reason) = outcome {
                return End::Lost(reason);
            }
        }
    }

    /// Waits for whatever comes next.
    async fn until_something(&mut self, link: &mut Link, line: &mut Line) -> Result<(), String> {
        let due = self.streams.next_due();
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

    /// Carries out the writes that wait.
    async fn serve(&mut self, link: &mut Link, line: &mut Line) -> Result<(), String> {
        while let Some(write) = line.writes.next() {
            match self.write(link, line, &write.output, &write.what).await {
                Ok(outcome) => write.settle(outcome),
                Err(reason) => {
                    write.settle(Err(DeliveryError::Unknown(reason.clone())));
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        link: &mut Link,
        line: &Line,
        output: &str,
        write: &TelegramWrite,
    ) -> Result<Result<(), DeliveryError>, String> {
        let TelegramWrite { bytes, answer, timeout } = write;
        self.rest(link, line).await?;
        link.send(bytes).await?;
        let Some(answer) = answer else { return Ok(Ok(())) };
        let found = self.answer(link, line, bytes.len(), *timeout, |_, frame| answer.fits(frame)).await?;
        if found.is_some() {
            return Ok(Ok(()));
        }
        line.status.timeouts.add(1);
        let timeout = Span(*timeout);
        let why = format!("{output}: sent, and not confirmed by `answer` within {timeout}");
        Ok(Err(DeliveryError::Unknown(why)))
    }

    /// Asks a device.
    async fn poll(&mut self, link: &mut Link, line: &Line, poll: usize) -> Result<(), String> {
        let Some((request, timeout)) = self.streams.request(poll) else { return Ok(()) };
        if !self.streams.is_to_be_asked(poll, Instant::now()) {
            return Ok(());
        }
        let asked = self.streams.rows.asked();
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
                self.streams.settle(poll, false, now);
                let fault = format!("no answer within {}", Span(timeout));
                self.streams.finish(poll, Err(&fault), now);
                let is_network = matches!(self.dial.place(), Place::Tcp(_) | Place::Rfc2217(_));
                if is_network && self.silent >= HOPELESS {
                    let reason = format!("nobody has answered the last {} requests", self.silent);
                    return Err(reason);
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
        self.rest(link, line).await?;
        link.send(request).await?;
        self.answer(link, line, request.len(), timeout, |streams, frame| streams.answers(poll, frame)).await
    }

    /// Waits until the line may be used: for the pause between requests and, after one that was not answered,
    /// until it is silent, since a late answer would be taken for the next. What has come is read before
    /// anything is sent.
    async fn rest(&mut self, link: &mut Link, line: &Line) -> Result<(), String> {
        let (given_up, silence) = link.dirty.take().unwrap_or((link.last, Duration::ZERO));
        let limit = Instant::now() + (silence * LONGEST_REST).max(self.pause);
        loop {
            self.dispatch(link);
            // The request was before that: it is no sign of life.
            let until = link.last.max(given_up) + silence.max(self.pause);
            tokio::select! {
                biased;
                heard = link.listen() => heard?,
                () = sleep_until(until.min(limit)) => return Ok(()),
                () = line.grace() => return Err("the box stops".into()),
            }
            if limit <= Instant::now() {
                self.dispatch(link);
                return Ok(());
            }
        }
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
                return Ok(answer);
            }
            if link.framer().waiting() > 0 {
                deadline = deadline.max(link.last + timeout).min(limit);
            }
            tokio::select! {
                biased;
                heard = link.listen() => heard?,
                () = sleep_until(deadline) => {
                    link.dirty = Some((Instant::now(), timeout));
                    return Ok(None);
                }
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
