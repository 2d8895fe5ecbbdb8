//! The task that owns a bus: it reads frames, sends what outputs ask for, and opens the bus again.
//!
//! Nothing is sent late. A frame that finds no room within `send_timeout` is given up, and while the bus is
//! away, or the controller is off, writes fail at once and messages that were sent again and again are
//! forgotten until an output has a new row for them.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span};

use super::bus::{Event, Received, Sent};
use super::frame::Frame;
use super::link::{Link, Wire};
use super::polls::Question;
use super::streams::Streams;
use crate::line::backoff::Backoff;
use crate::line::outage::Outages;
use crate::status::{Counter, LineStatus};
use crate::{DeliveryError, Inlet, Source};

/// Frames that wait for room on the bus.
const QUEUED: usize = 64;

/// How often a controller that is off is asked whether it has returned.
const OFF_CHECK: Duration = Duration::from_secs(1);

/// What an output asks the line to do.
pub(super) struct Command {
    pub(super) output: Arc<str>,
    pub(super) frame: Frame,
    pub(super) repeat: Option<Repeat>,
    pub(super) answer: Answer,
}

impl Command {
    /// It cannot be done while the bus is away.
    fn refuse(self, connection: &str, reason: &str) {
        let why = format!("connection {connection} is down: {reason}");
        // Whoever asked has given up if this fails.
        let _ = self.answer.send(Err(DeliveryError::Transient(why)));
    }
}

type Answer = oneshot::Sender<Result<(), DeliveryError>>;

/// A frame is sent again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat {
    pub(super) every: Duration,
    /// for how long without a newer one
    pub(super) expiry: Duration,
}

/// A connection before it runs.
pub(super) struct Line {
    pub(super) name: Arc<str>,
    pub(super) link: Arc<Link>,
    pub(super) streams: Streams,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) send_timeout: Duration,
    pub(super) status: Arc<LineStatus>,
    pub(super) backoff: Backoff,
}

impl Source for Line {
    fn run(mut self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let span = info_span!("can", connection = %self.name);
        async move {
            let asked = inlet.asked.clone();
            self.streams.open(inlet);
            let overruns = self.status.counter("overruns");
            let running = Running {
                line: *self,
                shutdown,
                commands_gone: false,
                outgoing: VecDeque::new(),
                repeated: BTreeMap::new(),
                off: None,
                outages: Outages::default(),
                frames: Vec::new(),
                overruns,
                asked,
                questions: FuturesUnordered::new(),
            };
            running.run().await;
        }
        .instrument(span)
        .boxed()
    }
}

/// A frame that waits for room.
struct Outgoing {
    output: Arc<str>,
    frame: Frame,
    deadline: Instant,
    answer: Option<Answer>,
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

struct Running {
    line: Line,
    shutdown: CancellationToken,
    commands_gone: bool,
    outgoing: VecDeque<Outgoing>,
    repeated: BTreeMap<Arc<str>, Repeated>,
    /// why the controller is off the bus
    off: Option<String>,
    outages: Outages,
    frames: Vec<Received>,
    overruns: Arc<Counter>,
    /// whether the line listens
    asked: watch::Receiver<i64>,
    questions: FuturesUnordered<Question>,
}

/// Why a bus is not used any more.
enum End {
    Lost(String),
    /// a log is over
    Played,
    Finished,
}

impl Running {
    async fn run(mut self) {
        loop {
            let opened = {
                let link = Arc::clone(&self.line.link);
                self.meanwhile(async move { link.open().await }).await
            };
            let (end, up) = match opened {
                None => return,
                Some(Err(reason)) => (End::Lost(reason), None),
                Some(Ok(mut wire)) => {
                    let since = Instant::now();
                    self.connected();
                    let end = self.drive(&mut wire).await;
                    (end, Some(since.elapsed()))
                }
            };
            match end {
                End::Finished => return self.line.status.is_down(None),
                End::Played => {
                    self.lost("the log has been played".into());
                    self.meanwhile(pending::<()>()).await;
                    return;
                }
                End::Lost(reason) => {
                    if let Some(up) = up {
                        self.line.backoff.was_up(up);
                    }
                    self.lost(reason);
                    let pause = self.line.backoff.pause();
                    self.line.status.waits(pause);
                    if self.meanwhile(sleep(pause)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn connected(&mut self) {
        self.off = None;
        if self.outages.connected() {
            self.line.status.reconnects.add(1);
        }
        self.line.status.is_up();
        self.line.streams.begins();
    }

    fn lost(&mut self, reason: String) {
        self.line.status.is_down(Some(reason.clone()));
        self.line.streams.rows().ends();
        self.turn_down(&reason);
        self.outages.lost(reason);
    }

    /// Fails everything that waits to be sent, and forgets what was sent again and again.
    fn turn_down(&mut self, reason: &str) {
        let why = || DeliveryError::Transient(format!("connection {} is down: {reason}", self.line.name));
        let waiting = self.outgoing.drain(..).filter_map(|outgoing| outgoing.answer);
        let repeated = std::mem::take(&mut self.repeated).into_values().filter_map(|of| of.answer);
        for answer in waiting.chain(repeated) {
            // Whoever asked has given up if this fails.
            let _ = answer.send(Err(why()));
        }
    }

    /// Whether nobody needs the line any more.
    fn is_finished(&self) -> bool {
        !self.line.streams.is_open() && self.commands_gone && self.outgoing.is_empty()
    }

    /// Waits for something while there is no bus. None: the line is not needed any more.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            let trouble = self.line.status.trouble();
            self.line.streams.pass(Instant::now(), trouble.as_deref());
            self.line.streams.rows().pass_on();
            if self.is_finished() {
                return None;
            }
            let is_known = trouble.is_some();
            let due = self.line.streams.next_due().filter(|_| is_known);
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                () = self.shutdown.cancelled(), if self.line.streams.is_open() => {
                    self.line.streams.rows().close();
                }
                // Before it is known that the bus is away, a write waits for it.
                command = self.line.commands.recv(), if is_known && !self.commands_gone => match command {
                    Some(command) => command.refuse(&self.line.name, &trouble.unwrap_or_default()),
                    None => self.commands_gone = true,
                },
                () = until(due) => {}
                open = self.line.streams.rows().room() => if !open { self.line.streams.rows().close(); },
            }
        }
    }

    /// Uses a bus until it is lost or not needed.
    async fn drive(&mut self, wire: &mut Wire) -> End {
        let mut check_off = Instant::now();
        loop {
            self.repeat();
            if let Err(reason) = self.send(wire) {
                return End::Lost(reason);
            }
            self.line.streams.pass(Instant::now(), self.off.as_deref());
            while let Some(question) = self.line.streams.ask(Instant::now()) {
                self.questions.push(question);
            }
            self.line.streams.rows().pass_on();
            if self.is_finished() {
                return End::Finished;
            }
            let wants_room = !self.outgoing.is_empty();
            let off_check = self.off.is_some().then_some(check_off);
            let due = [self.next_due(), self.line.streams.next_due(), off_check].into_iter().flatten().min();
            tokio::select! {
                () = self.shutdown.cancelled(), if self.line.streams.is_open() => {
                    self.line.streams.rows().close();
                }
                command = self.line.commands.recv(),
                    if !self.commands_gone && self.outgoing.len() < QUEUED => self.take(command),
                event = wire.wait(wants_room, &mut self.frames) => {
                    self.take_frames(wire);
                    match event {
                        Err(reason) => return End::Lost(reason),
                        Ok(Event::Frames | Event::Room) => {}
                        Ok(Event::Off(reason)) => {
                            self.lost(reason.clone());
                            self.off = Some(reason);
                            check_off = Instant::now() + OFF_CHECK;
                        }
                        Ok(Event::On) => self.connected(),
                        Ok(Event::Played) => return End::Played,
                    }
                }
                Some(answer) = self.questions.next() => self.line.streams.take_answer(answer),
                Ok(()) = self.asked.changed(), if self.line.streams.is_open() => {
                    let asked = *self.asked.borrow_and_update();
                    // What has come by now is in front of the answer.
                    wire.drain(&mut self.frames);
                    self.take_frames(wire);
                    if self.off.is_none() {
                        self.line.streams.rows().heard(asked);
                    }
                }
                () = until(due) => {
                    if self.off.is_some() && check_off <= Instant::now() {
                        check_off = Instant::now() + OFF_CHECK;
                        if wire.has_returned() {
                            self.connected();
                        }
                    }
                }
                open = self.line.streams.rows().room() => if !open { self.line.streams.rows().close(); },
            }
        }
    }

    fn take_frames(&mut self, wire: &mut Wire) {
        let lost = wire.newly_lost();
        if lost > 0 {
            if self.line.status.dropped.get() == 0 {
                error!(lost, "frames came faster than they were read, and are lost: lighten the rules");
            }
            self.line.status.dropped.add(lost);
        }
        for received in self.frames.drain(..) {
            self.line.status.messages.add(1);
            self.line.streams.take(&received);
        }
    }

    fn take(&mut self, command: Option<Command>) {
        let Some(command) = command else {
            self.commands_gone = true;
            return;
        };
        if let Some(reason) = &self.off {
            return command.refuse(&self.line.name, reason);
        }
        let now = Instant::now();
        let Command { output, frame, repeat, answer } = command;
        let Some(Repeat { every, expiry }) = repeat else {
            let deadline = now + self.line.send_timeout;
            self.outgoing.push_back(Outgoing { output, frame, deadline, answer: Some(answer) });
            return;
        };
        let until = now + expiry;
        match self.repeated.get_mut(&output) {
            Some(repeated) => {
                (repeated.frame, repeated.until) = (frame, until);
                if let Some(earlier) = repeated.answer.replace(answer) {
                    let _ = earlier.send(Err(DeliveryError::Transient("a newer row took its place".into())));
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
        let Self { line, outgoing, repeated, overruns, .. } = self;
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
                    deadline: now + line.send_timeout,
                    answer: of.answer.take(),
                }),
            }
            true
        });
    }

    /// When the task has to look again at what is sent.
    fn next_due(&self) -> Option<Instant> {
        let repeated = self.repeated.values().map(|of| of.due.min(of.until));
        repeated.chain(self.outgoing.front().map(|of| of.deadline)).min()
    }

    /// Sends what waits, as far as there is room.
    ///
    /// # Errors
    /// Why the bus is gone.
    fn send(&mut self, wire: &mut Wire) -> Result<(), String> {
        while let Some(first) = self.outgoing.front() {
            let outcome = match wire.send(&first.frame) {
                Sent::Yes => Ok(()),
                Sent::Later if first.deadline > Instant::now() => return Ok(()),
                Sent::Later => {
                    self.line.status.timeouts.add(1);
                    Err(DeliveryError::Transient(format!(
                        "it was not sent within {}: no node acknowledges, or the bus is full. Compare \
                         the bit rate with the other nodes', and look at wiring and termination",
                        tidegate_core::Span(self.line.send_timeout)
                    )))
                }
                Sent::Refused(why) => Err(DeliveryError::Permanent(why)),
                Sent::Lost(reason) => return Err(reason),
            };
            let Some(Outgoing { output, answer, .. }) = self.outgoing.pop_front() else { break };
            if let Err(error) = &outcome {
                debug!(%output, %error, "not sent");
            }
            if let Some(answer) = answer {
                let _ = answer.send(outcome);
            }
        }
        Ok(())
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
