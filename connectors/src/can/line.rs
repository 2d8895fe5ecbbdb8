//! The task that owns a bus: it reads frames, sends what outputs ask for, and opens the bus again.
//!
//! Nothing is sent late. A frame that finds no room within `send_timeout` is given up, and while the bus is
//! away, or the controller is off, writes fail at once and messages that were sent again and again are
//! forgotten until an output has a new row for them. A frame is written when the controller, or an adapter,
//! says that it has sent it. One that a controller holds back is unknown, and nothing else is given to it
//! meanwhile. Where an adapter does not answer, the bus is opened anew, so that nothing behind the frame is
//! sent late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::aboard::{Aboard, Outgoing};
use super::bus::{Event, Received, Sent};
use super::frame::Frame;
use super::link::{Link, Wire};
use super::polls::Question;
use super::streams::Streams;
use crate::line::handover::HandOver;
use crate::line::task::{self, End, Protocol};
use crate::line::writes::{Answer, Write};
use crate::rows::Rows;
use crate::status::{Counter, LineStatus};
use crate::{DeliveryError, Inlet};

/// Frames that wait for room on the bus.
const QUEUED: usize = 64;

/// How often a controller that is off is asked whether it has returned.
const OFF_CHECK: Duration = Duration::from_secs(1);

type Line = task::Line<FrameWrite>;

/// What an output asks of the bus.
pub(super) struct FrameWrite {
    pub(super) frame: Frame,
    pub(super) repeat: Option<Repeat>,
}

/// A frame is sent again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat {
    pub(super) every: Duration,
    /// for how long without a newer one
    pub(super) expiry: Duration,
}

/// A message that is sent again and again.
struct Repeated {
    frame: Frame,
    every: Duration,
    due: Instant,
    until: Instant,
    /// of the row that has not been sent yet
    answer: Option<Answer>,
}

/// The box on the bus.
pub(super) struct Controller {
    link: Arc<Link>,
    streams: Streams,
    send_timeout: Duration,
    status: Arc<LineStatus>,
    outgoing: VecDeque<Outgoing>,
    aboard: Aboard,
    /// what an adapter has, and has not answered yet
    unanswered: Option<Outgoing>,
    repeated: BTreeMap<Arc<str>, Repeated>,
    /// why the controller is off the bus
    off: Option<String>,
    frames: Vec<Received>,
    overruns: Arc<Counter>,
    /// whether the line listens
    asked: watch::Receiver<i64>,
    questions: FuturesUnordered<Question>,
}

impl Protocol for Controller {
    type Wire = Wire;
    type Write = FrameWrite;
    type Rows = Rows;

    fn start(&mut self, inlet: Inlet) {
        self.asked = inlet.asked.clone();
        self.streams.open(inlet);
    }

    fn open(&self) -> BoxFuture<'static, Result<Wire, String>> {
        let link = Arc::clone(&self.link);
        async move { link.open().await }.boxed()
    }

    async fn drive(&mut self, wire: Wire, line: &mut Line) -> End {
        self.use_bus(wire, line).await
    }

    fn rows(&mut self) -> &mut HandOver<Rows> {
        self.streams.rows()
    }

    fn begins(&mut self) {
        self.off = None;
        self.streams.begins();
    }

    /// Fails everything that waits to be sent, and forgets what was sent again and again.
    fn ends(&mut self, reason: &str, line: &Line) {
        self.streams.rows().ends();
        self.aboard.abandon(reason);
        if let Some(unanswered) = self.unanswered.take() {
            let why = format!(
                "it was given to the adapter, and may have been sent; nothing else is until the adapter has \
                 been opened anew: {reason}"
            );
            unanswered.settle(Err(DeliveryError::Unknown(why)));
        }
        let waiting = self.outgoing.drain(..).filter_map(|outgoing| outgoing.answer);
        let repeated = std::mem::take(&mut self.repeated).into_values().filter_map(|of| of.answer);
        for answer in waiting.chain(repeated) {
            answer.send(Err(line.is_down(reason)));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.streams.next_due()
    }

    fn pass_by(&mut self, fault: &str, now: Instant) {
        self.streams.pass(now, Some(fault));
    }
}

impl Controller {
    pub(super) fn new(link: Link, streams: Streams, send_timeout: Duration, status: Arc<LineStatus>) -> Self {
        Self {
            link: Arc::new(link),
            streams,
            send_timeout,
            outgoing: VecDeque::new(),
            aboard: Aboard::default(),
            unanswered: None,
            repeated: BTreeMap::new(),
            off: None,
            frames: Vec::new(),
            overruns: status.counter("overruns"),
            asked: Inlet::nowhere().asked,
            questions: FuturesUnordered::new(),
            status,
        }
    }

    /// Uses a bus until it is lost or not needed.
    async fn use_bus(&mut self, mut wire: Wire, line: &mut Line) -> End {
        let mut check_off = Instant::now();
        loop {
            if self.off.is_some() && check_off <= Instant::now() {
                check_off = Instant::now() + OFF_CHECK;
                if wire.has_returned() {
                    line.connected(self);
                }
            }
            while self.outgoing.len() < QUEUED
                && let Some(write) = line.writes.next()
            {
                self.take(write, line);
            }
            self.repeat();
            if let Err(reason) = self.send(&mut wire) {
                return End::Lost(reason);
            }
            let off = self.off.as_ref().map(|reason| format!("not connected: {reason}"));
            self.streams.pass(Instant::now(), off.as_deref());
            while let Some(question) = self.streams.ask(Instant::now()) {
                self.questions.push(question);
            }
            let is_done = self.outgoing.is_empty() && self.unanswered.is_none() && !self.aboard.is_awaited();
            if line.is_finished(self.streams.rows()) && is_done {
                return End::Finished;
            }
            let wants_room = !self.outgoing.is_empty() && self.aboard.has_room(Instant::now());
            let off_check = self.off.is_some().then_some(check_off);
            let due = [self.next_send(), self.streams.next_due(), off_check].into_iter().flatten().min();
            let is_open = self.streams.is_open();
            tokio::select! {
                event = wire.wait(wants_room, &mut self.frames) => {
                    self.take_frames(&mut wire);
                    match event {
                        Err(reason) => return End::Lost(reason),
                        Ok(Event::Frames | Event::Room) => {}
                        Ok(Event::Left(frame)) => self.has_left(&frame),
                        Ok(Event::Answered(outcome)) => {
                            if let Some(unanswered) = self.unanswered.take() {
                                unanswered.settle(outcome.map_err(DeliveryError::Transient));
                            }
                        }
                        Ok(Event::Off(reason)) => {
                            line.lost(self, reason.clone());
                            self.off = Some(reason);
                            check_off = Instant::now() + OFF_CHECK;
                        }
                        Ok(Event::On) => line.connected(self),
                        Ok(Event::Played(path)) => return End::Over(format!(
                            "{path} has been played to its end; it is played again when the box starts, or \
                             over and over with repeat = true"
                        )),
                    }
                }
                Some(answer) = self.questions.next() => self.streams.take_answer(answer),
                Ok(()) = self.asked.changed(), if is_open => {
                    let asked = *self.asked.borrow_and_update();
                    // What has come by now is in front of the answer.
                    wire.drain(&mut self.frames);
                    self.take_frames(&mut wire);
                    if self.off.is_none() {
                        self.streams.rows().heard(asked);
                    }
                }
                () = line.wait(self.streams.rows(), due) => {}
            }
        }
    }

    fn take_frames(&mut self, wire: &mut Wire) {
        let lost = wire.newly_lost();
        if lost > 0 {
            if self.status.dropped.get() == 0 {
                error!(lost, "frames came faster than they were read, and are lost: lighten the rules");
            }
            self.status.dropped.add(lost);
        }
        for received in self.frames.drain(..) {
            self.status.messages.add(1);
            self.streams.take(&received);
        }
    }

    fn take(&mut self, write: Write<FrameWrite>, line: &Line) {
        if let Some(reason) = &self.off {
            return write.settle(Err(line.is_down(reason)));
        }
        let now = Instant::now();
        let Write { output, what: FrameWrite { frame, repeat }, answer, .. } = write;
        let Some(Repeat { every, expiry }) = repeat else {
            let deadline = now + self.send_timeout;
            self.outgoing.push_back(Outgoing { output, frame, deadline, answer: Some(answer) });
            return;
        };
        let until = now + expiry;
        match self.repeated.get_mut(&output) {
            Some(repeated) => {
                (repeated.frame, repeated.until) = (frame, until);
                if let Some(earlier) = repeated.answer.replace(answer) {
                    earlier.send(Err(DeliveryError::Transient("a newer row took its place".into())));
                }
            }
            None => {
                let repeated = Repeated { frame, every, due: now, until, answer: Some(answer) };
                self.repeated.insert(output, repeated);
            }
        }
    }

    /// Queues the messages that are due to be sent again.
    fn repeat(&mut self) {
        let now = Instant::now();
        let Self { send_timeout, outgoing, repeated, overruns, .. } = self;
        repeated.retain(|output, of| {
            if of.until <= now && of.answer.is_none() {
                info!(%output, "no newer row has come within `expiry`: the message is not sent any more");
                return false;
            }
            if of.due > now {
                return true;
            }
            let missed = now.saturating_duration_since(of.due).as_nanos() / of.every.as_nanos().max(1);
            let missed = u32::try_from(missed).unwrap_or(u32::MAX);
            of.due += of.every.saturating_mul(missed.saturating_add(1));
            overruns.add(u64::from(missed));
            match outgoing.iter_mut().find(|waiting| waiting.output == *output) {
                // The bus is so slow that the last one waits still: only the newest is of use.
                Some(waiting) => {
                    waiting.frame = of.frame;
                    overruns.add(1);
                    if waiting.answer.is_none() {
                        waiting.answer = of.answer.take();
                    }
                }
                None => outgoing.push_back(Outgoing {
                    output: Arc::clone(output),
                    frame: of.frame,
                    deadline: now + *send_timeout,
                    answer: of.answer.take(),
                }),
            }
            true
        });
    }

    /// When the task has to look again at what is sent.
    fn next_send(&self) -> Option<Instant> {
        let repeated = self.repeated.values().map(|of| of.due.min(of.until));
        let waiting = self.outgoing.front().map(|of| of.deadline);
        repeated.chain(waiting).chain(self.aboard.next_due()).min()
    }

    /// A frame is on the bus.
    fn has_left(&mut self, frame: &Frame) {
        let Some(left) = self.aboard.left(frame) else { return };
        if left.deadline <= Instant::now() {
            self.status.counter("sent_late").add(1);
        }
        left.settle(Ok(()));
    }

    /// Sends what waits, as far as there is room.
    ///
    /// # Errors
    /// Why the bus is gone.
    fn send(&mut self, wire: &mut Wire) -> Result<(), String> {
        let now = Instant::now();
        self.status.timeouts.add(self.aboard.tell_overdue(now, self.send_timeout));
        self.aboard.forget(now, || wire.is_failing());
        while let Some(first) = self.outgoing.front() {
            let sent = if self.aboard.has_room(now) { wire.send(&first.frame) } else { Sent::Later };
            let error = match sent {
                Sent::Aboard => {
                    self.aboard.take(self.outgoing.pop_front());
                    continue;
                }
                Sent::Asked => {
                    self.unanswered = self.outgoing.pop_front();
                    continue;
                }
                Sent::Later if first.deadline > now => return Ok(()),
                Sent::Later => {
                    self.status.timeouts.add(1);
                    DeliveryError::Transient(format!(
                        "it was not sent within {}: no node acknowledges, or the bus is full. Compare \
                         the bit rate with the other nodes', and look at wiring and termination",
                        tidegate_core::Span(self.send_timeout)
                    ))
                }
                Sent::Refused(why) => DeliveryError::Permanent(why),
                Sent::Lost(reason) => return Err(reason),
            };
            if let Some(first) = self.outgoing.pop_front() {
                first.settle(Err(error));
            }
        }
        Ok(())
    }
}
