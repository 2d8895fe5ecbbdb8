//! The task that owns a port: it reads, asks, writes, and opens the port again.
//!
//! A write that waits goes out before the next request. Between a request and its answer nothing is sent.
//! While the port is gone, polls that are due become rows that say so, where a stream has asked for them,
//! and writes fail at once.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_core::Span;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use super::framing::Framer;
use super::link::Link;
use super::sink::Command;
use super::streams::Streams;
use crate::line::backoff::Backoff;
use crate::line::outage::Outages;
use crate::port::{Dial, Place};
use crate::status::LineStatus;
use crate::{DeliveryError, Inlet, Source};

/// After a request that was not answered the line has to be silent for one timeout; on one that never is, no
/// longer than so many.
const LONGEST_REST: u32 = 4;

/// After how many requests without any answer a serial server is called anew.
const HOPELESS: u32 = 10;

/// A connection before it runs.
pub(super) struct Line {
    pub(super) name: Arc<str>,
    pub(super) dial: Dial,
    pub(super) framer: Framer,
    pub(super) streams: Streams,
    pub(super) pause: Duration,
    pub(super) echo: bool,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) status: Arc<LineStatus>,
    pub(super) backoff: Backoff,
}

impl Source for Line {
    fn run(mut self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let span = info_span!("serial", connection = %self.name);
        async move {
            let asked = inlet.asked.clone();
            self.streams.begin(inlet, Instant::now());
            let running = Running {
                line: *self,
                shutdown,
                asked,
                waiting: None,
                commands_gone: false,
                outages: Outages::default(),
                silent: 0,
            };
            running.run().await;
        }
        .instrument(span)
        .boxed()
    }
}

struct Running {
    line: Line,
    shutdown: CancellationToken,
    asked: watch::Receiver<i64>,
    /// a command that was taken and not carried out yet
    waiting: Option<Command>,
    commands_gone: bool,
    outages: Outages,
    /// requests without an answer, one after the other
    silent: u32,
}

/// Why a connection is over.
enum End {
    Lost(String),
    Finished,
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self::Lost(reason)
    }
}

impl Running {
    async fn run(mut self) {
        loop {
            let dial = self.line.dial.clone();
            let opened = self.meanwhile(async move { dial.open().await }).await;
            let (end, up) = match opened {
                None => return,
                Some(Err(reason)) => (End::Lost(reason), None),
                Some(Ok(wire)) => {
                    let since = Instant::now();
                    let mut link = self.connected(wire);
                    let end = self.drive(&mut link).await;
                    // What is left of a frame will not become one.
                    link.framer().opened(Instant::now());
                    self.dispatch(&mut link);
                    (end, Some(since.elapsed()))
                }
            };
            let End::Lost(reason) = end else { return self.line.status.is_down(None) };
            self.lost(reason, up);
            let pause = self.line.backoff.pause();
            self.line.status.waits(pause);
            if self.meanwhile(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    fn connected(&mut self, wire: crate::port::Wire) -> Link {
        self.silent = 0;
        if self.outages.connected() {
            self.line.status.reconnects.add(1);
        }
        self.line.status.is_up();
        self.line.streams.begins(Instant::now());
        let framer = self.line.framer.clone();
        let byte = self.line.dial.settings().byte_time();
        Link::new(wire, self.line.dial.place().clone(), framer, byte, self.line.echo)
    }

    fn lost(&mut self, reason: String, up: Option<Duration>) {
        if let Some(up) = up {
            self.line.backoff.was_up(up);
            self.line.streams.ends(&reason);
        }
        self.line.status.is_down(Some(reason.clone()));
        self.outages.lost(reason);
    }

    /// Whether nobody needs the line any more.
    fn is_finished(&self) -> bool {
        !self.line.streams.rows.is_open() && self.commands_gone && self.waiting.is_none()
    }

    /// Waits for something while there is no connection. None: the line is not needed any more.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            // Before it is known that the line is down, a write waits for the connection.
            let trouble = self.line.status.trouble();
            if let Some(reason) = &trouble {
                self.turn_down(reason);
                self.line.streams.pass_by(&format!("not connected: {reason}"), Instant::now());
            }
            self.line.streams.rows.pass_on();
            if self.is_finished() {
                return None;
            }
            let due = self.line.streams.next_due().filter(|_| trouble.is_some());
            let rows = &mut self.line.streams.rows;
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                () = self.shutdown.cancelled(), if rows.is_open() => rows.close(),
                command = self.line.commands.recv(), if self.waiting.is_none() && !self.commands_gone => {
                    self.commands_gone = command.is_none();
                    self.waiting = command;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                open = rows.room() => if !open { rows.close(); },
            }
        }
    }

    fn turn_down(&mut self, reason: &str) {
        while let Some(command) = self.next_command() {
            let why = format!("connection {} is down: {reason}", self.line.name);
            // Whoever asked has given up if this fails.
            let _ = command.outcome.send(Err(DeliveryError::Transient(why)));
        }
    }

    fn next_command(&mut self) -> Option<Command> {
        self.waiting.take().or_else(|| self.line.commands.try_recv().ok())
    }

    /// Uses a connection until it is lost or not needed.
    async fn drive(&mut self, link: &mut Link) -> End {
        loop {
            self.dispatch(link);
            if let Err(end) = self.serve(link).await {
                return end;
            }
            // A line on which something is always due never comes to where it waits for this.
            if self.shutdown.is_cancelled() {
                self.line.streams.rows.close();
            }
            self.line.streams.rows.pass_on();
            if self.is_finished() {
                return End::Finished;
            }
            let now = Instant::now();
            self.line.streams.note_stale(now);
            if let Some(poll) = self.line.streams.due(now) {
                if let Err(end) = self.poll(link, poll).await {
                    return end;
                }
                continue;
            }
            if let Err(reason) = self.until_something(link).await {
                return End::Lost(reason);
            }
        }
    }

    /// Waits for whatever comes next.
    async fn until_something(&mut self, link: &mut Link) -> Result<(), String> {
        let due = self.line.streams.next_due();
        let is_heard = self.line.streams.any_unasked();
        let rows = &mut self.line.streams.rows;
        tokio::select! {
            biased;
            () = self.shutdown.cancelled(), if rows.is_open() => rows.close(),
            heard = link.listen() => heard?,
            command = self.line.commands.recv(), if self.waiting.is_none() && !self.commands_gone => {
                self.commands_gone = command.is_none();
                self.waiting = command;
            }
            // Behind what is there to be read: a port that is open and has nothing is silent.
            asked = asked(&mut self.asked), if is_heard => rows.heard(asked),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            open = rows.room() => if !open { rows.close(); },
        }
        Ok(())
    }

    /// Hands out the frames that nobody has asked for.
    fn dispatch(&mut self, link: &mut Link) {
        let now = Instant::now();
        while let Some(frame) = link.frames.pop_front() {
            self.line.streams.dispatch(&frame, now);
        }
        self.line.streams.note(link.framer());
    }

    /// Carries out the writes that wait.
    async fn serve(&mut self, link: &mut Link) -> Result<(), End> {
        while let Some(command) = self.next_command() {
            let (result, ended) = match self.write(link, &command).await {
                Ok(result) => (result, None),
                Err(reason) => (Err(DeliveryError::Transient(reason.clone())), Some(reason)),
            };
            if let Err(error) = &result {
                debug!(output = %command.output, %error, "write failed");
            }
            // Whoever asked has given up if this fails.
            let _ = command.outcome.send(result);
            if let Some(reason) = ended {
                return Err(End::Lost(reason));
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        link: &mut Link,
        command: &Command,
    ) -> Result<Result<(), DeliveryError>, String> {
        self.rest(link).await?;
        link.send(&command.bytes).await?;
        let Some(answer) = &command.answer else { return Ok(Ok(())) };
        let sent = command.bytes.len();
        let found = self.answer(link, sent, command.timeout, |_, frame| answer.fits(frame)).await?;
        if found.is_some() {
            return Ok(Ok(()));
        }
        self.line.status.timeouts.add(1);
        let timeout = Span(command.timeout);
        Ok(Err(DeliveryError::Transient(format!(
            "{}: sent, and not confirmed by `answer` within {timeout}",
            command.output
        ))))
    }

    /// Asks a device.
    async fn poll(&mut self, link: &mut Link, poll: usize) -> Result<(), End> {
        let Some((request, timeout)) = self.line.streams.request(poll) else { return Ok(()) };
        if !self.line.streams.is_to_be_asked(poll, Instant::now()) {
            return Ok(());
        }
        let asked = self.line.streams.rows.asked();
        let answer = self.ask(link, poll, &request, timeout).await;
        let now = Instant::now();
        match answer {
            Ok(Some(frame)) => {
                self.silent = 0;
                self.line.streams.settle(poll, true, now);
                self.line.streams.rows.heard(asked);
                self.line.streams.finish(poll, Ok(&frame), now);
            }
            Ok(None) => {
                self.silent = self.silent.saturating_add(1);
                self.line.status.timeouts.add(1);
                self.line.streams.settle(poll, false, now);
                let fault = format!("no answer within {}", Span(timeout));
                self.line.streams.finish(poll, Err(&fault), now);
                let is_network = matches!(self.line.dial.place(), Place::Tcp(_) | Place::Rfc2217(_));
                if is_network && self.silent >= HOPELESS {
                    let reason = format!("nobody has answered the last {} requests", self.silent);
                    return Err(End::Lost(reason));
                }
            }
            Err(reason) => {
                self.line.streams.finish(poll, Err(&reason), now);
                return Err(End::Lost(reason));
            }
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        link: &mut Link,
        poll: usize,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, String> {
        self.rest(link).await?;
        link.send(request).await?;
        self.answer(link, request.len(), timeout, |streams, frame| streams.answers(poll, frame)).await
    }

    /// Waits until the line may be used: for the pause between requests and, after one that was not answered,
    /// until it is silent, since a late answer would be taken for the next.
    async fn rest(&mut self, link: &mut Link) -> Result<(), String> {
        let dirty = link.dirty.take();
        let until = |link: &Link| link.last + dirty.unwrap_or(Duration::ZERO).max(self.line.pause);
        let limit = Instant::now() + (dirty.unwrap_or_default() * LONGEST_REST).max(self.line.pause);
        let mut frames = Vec::new();
        loop {
            frames.extend(link.frames.drain(..));
            let until = until(link).min(limit);
            if until <= Instant::now() {
                break;
            }
            tokio::select! {
                biased;
                heard = link.listen() => heard?,
                () = sleep_until(until) => {}
            }
        }
        link.frames.extend(frames);
        self.dispatch(link);
        Ok(())
    }

    /// The frame that answers what was sent; none: it did not come in time. What else comes is handed out.
    async fn answer(
        &mut self,
        link: &mut Link,
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
            let place = link.frames.iter().position(|frame| fits(&self.line.streams, frame));
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
                    link.dirty = Some(timeout);
                    return Ok(None);
                }
                () = grace(&self.shutdown) => return Err("the box stops".into()),
            }
        }
    }
}

/// Resolves when the box stops, and has waited long enough for an answer.
async fn grace(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(Duration::from_secs(1)).await;
}

/// Resolves when the line is asked whether it listens.
async fn asked(asked: &mut watch::Receiver<i64>) -> i64 {
    match asked.changed().await {
        Ok(()) => *asked.borrow_and_update(),
        Err(_) => pending().await,
    }
}
