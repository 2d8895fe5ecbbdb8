//! The task that owns a line: it polls, writes, and connects again.
//!
//! Reads and writes never overlap. A write that waits goes out before the next request, also between the
//! requests of one poll. While the line is down polls that are due become rows that say so, where a stream
//! has asked for them, and writes fail at once.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use super::fault::Fault;
use super::guard::Guard;
use super::link::Link;
use super::plan::Read;
use super::polls::{LEFT_ALONE, Polls, Reading, Unit, raw, request};
use super::sink::Command;
use super::write::{Device, Lacks, Write, WriteFault};
use crate::line::backoff::Backoff;
use crate::line::outage::Outages;
use crate::line::parking::Turn;
use crate::port::Wire;
use crate::status::LineStatus;
use crate::{DeliveryError, Inlet, Source};

/// A connection before it runs.
pub(super) struct Line {
    pub(super) name: Arc<str>,
    pub(super) link: Link,
    pub(super) polls: Polls,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) retries: u8,
    /// after how many requests without any answer a network connection is made anew
    pub(super) hopeless: u32,
    pub(super) close_after_poll: bool,
    pub(super) status: Arc<LineStatus>,
    pub(super) backoff: Backoff,
}

impl Source for Line {
    fn run(mut self: Box<Self>, inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let span = info_span!("modbus", connection = %self.name);
        async move {
            self.polls.begin(inlet, Instant::now());
            let running = Running {
                line: *self,
                shutdown,
                waiting: None,
                commands_gone: false,
                lacks: BTreeMap::new(),
                outages: Outages::default(),
                transaction: 0,
                silent: 0,
                answered: false,
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
    /// a command that was taken and not carried out yet
    waiting: Option<Command>,
    commands_gone: bool,
    lacks: BTreeMap<u8, Lacks>,
    outages: Outages,
    transaction: u16,
    /// requests without an answer, one after the other
    silent: u32,
    /// whether anybody has answered on this connection
    answered: bool,
}

/// Why a connection is over.
enum End {
    Lost(String),
    /// The far side has closed it while nothing was asked; what was to be asked is not.
    HungUp,
    /// Nothing is due, and the line is wanted only then.
    Idle,
    Finished,
}

impl Running {
    async fn run(mut self) {
        loop {
            let dialled = {
                let (link, transaction) = (self.line.link.clone(), self.transaction);
                let status = Arc::clone(&self.line.status);
                self.meanwhile(async move { link.dial(transaction, status).await }).await
            };
            let (end, up) = match dialled {
                None => return,
                Some(Err(reason)) => (End::Lost(reason), None),
                Some(Ok(mut guard)) => {
                    let since = Instant::now();
                    self.connected();
                    let end = self.drive(&mut guard).await;
                    self.transaction = guard.next_transaction();
                    (end, Some(since.elapsed()))
                }
            };
            match end {
                End::Finished => return self.line.status.is_down(None),
                End::HungUp => debug!("the far side has closed an idle connection; connecting again"),
                End::Idle => {
                    if !self.until_wanted().await {
                        return self.line.status.is_down(None);
                    }
                }
                End::Lost(reason) => {
                    self.lost(reason, up);
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
        (self.silent, self.answered) = (0, false);
        if !self.line.status.is_connected() {
            if self.outages.connected() {
                self.line.status.reconnects.add(1);
            }
            self.line.status.is_up();
        }
        self.line.polls.rows.begins();
    }

    fn lost(&mut self, reason: String, up: Option<Duration>) {
        match up {
            // What answers is there, whatever one of its units does.
            Some(_) if self.answered => self.line.backoff.succeeded(),
            Some(up) => self.line.backoff.was_up(up),
            None => {}
        }
        self.line.status.is_down(Some(reason.clone()));
        self.outages.lost(reason);
        self.line.polls.rows.ends();
    }

    /// Whether nobody needs the line any more.
    fn is_finished(&self) -> bool {
        !self.line.polls.rows.is_open() && self.commands_gone && self.waiting.is_none()
    }

    /// Waits for something while there is no connection. None: the line is not needed any more.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            // Before it is known that the line is down, a write waits for the connection.
            let trouble = self.line.status.trouble();
            if let Some(reason) = &trouble {
                self.turn_down(reason);
                self.line.polls.pass_by(&format!("not connected: {reason}"), Instant::now());
            }
            self.line.polls.rows.pass_on();
            if self.is_finished() {
                return None;
            }
            let due = self.line.polls.next_due().filter(|_| trouble.is_some());
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                () = self.shutdown.cancelled(), if self.line.polls.rows.is_open() => self.line.polls.rows.close(),
                command = self.line.commands.recv(), if self.waiting.is_none() && !self.commands_gone => {
                    self.take(command);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                open = self.line.polls.rows.room() => if !open { self.line.polls.rows.close(); },
            }
        }
    }

    /// Waits until something is due on a line that is closed in between. False: nothing will be.
    async fn until_wanted(&mut self) -> bool {
        loop {
            self.line.polls.rows.pass_on();
            if self.is_finished() {
                return false;
            }
            let due = self.line.polls.next_due();
            if self.waiting.is_some() || due.is_some_and(|due| due <= Instant::now()) {
                return true;
            }
            self.until_something(due).await;
        }
    }

    /// Waits for whatever comes next.
    async fn until_something(&mut self, due: Option<Instant>) {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled(), if self.line.polls.rows.is_open() => self.line.polls.rows.close(),
            command = self.line.commands.recv(), if self.waiting.is_none() && !self.commands_gone => {
                self.take(command);
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            open = self.line.polls.rows.room() => if !open { self.line.polls.rows.close(); },
        }
    }

    fn take(&mut self, command: Option<Command>) {
        self.commands_gone = command.is_none();
        self.waiting = command;
    }

    fn turn_down(&mut self, reason: &str) {
        while let Some(command) = self.next_command() {
            let why = format!("connection {} is down: {reason}", self.line.name);
            // Whoever asked has given up if this fails.
            let _ = command.answer.send(Err(DeliveryError::Transient(why)));
        }
    }

    fn next_command(&mut self) -> Option<Command> {
        self.waiting.take().or_else(|| self.line.commands.try_recv().ok())
    }

    /// Uses a connection until it is lost or not needed.
    async fn drive(&mut self, guard: &mut Guard<Wire>) -> End {
        loop {
            if let Err(end) = self.serve(guard).await {
                return end;
            }
            // A line on which something is always due never comes to where it waits for this.
            if self.shutdown.is_cancelled() {
                self.line.polls.rows.close();
            }
            self.line.polls.rows.pass_on();
            if self.is_finished() {
                return End::Finished;
            }
            let now = Instant::now();
            if let Some(index) = self.line.polls.due(now) {
                if let Err(end) = self.poll(guard, index, now).await {
                    return end;
                }
                continue;
            }
            if self.line.close_after_poll {
                return End::Idle;
            }
            self.until_something(self.line.polls.next_due()).await;
        }
    }

    /// Carries out the writes that wait.
    async fn serve(&mut self, guard: &mut Guard<Wire>) -> Result<(), End> {
        while let Some(command) = self.next_command() {
            let mut ended = None;
            let mut outcome = Ok(());
            if !self.line.polls.parking.may_write(&Unit(command.unit), command.timeout, Instant::now()) {
                let why =
                    format!("unit {} does not answer, and is left alone for a while (`park`)", command.unit);
                // Whoever asked has given up if this fails.
                let _ = command.answer.send(Err(DeliveryError::Transient(why)));
                continue;
            }
            for (done, write) in command.writes.iter().enumerate() {
                let result = self.write(guard, &command, write).await;
                let Err(error) = result else { continue };
                let fault = error.fault();
                if fault == Some(&Fault::ClosedBefore) && done == 0 && self.answered {
                    self.waiting = Some(command);
                    return Err(End::HungUp);
                }
                ended =
                    fault.filter(|fault| fault.ends_connection()).map(|fault| End::Lost(fault.to_string()));
                outcome = Err(explain(&error, write, done, &command.writes));
                break;
            }
            if let Err(error) = &outcome {
                debug!(output = %command.output, unit = command.unit, %error, "write failed");
            }
            let _ = command.answer.send(outcome);
            if let Some(end) = ended {
                return Err(end);
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        guard: &mut Guard<Wire>,
        command: &Command,
        write: &Write,
    ) -> Result<(), WriteFault> {
        let lacks = self.lacks.entry(command.unit).or_default();
        let mut device = Device { guard, unit: command.unit, timeout: command.timeout, lacks };
        let result = device.write(write, command.read_back).await;
        match result.as_ref().err().map(WriteFault::fault) {
            None | Some(None) => {
                self.answered = true;
                self.line.polls.parking.settle(Unit(command.unit), true, Instant::now());
            }
            Some(Some(fault)) => self.count(fault),
        }
        result
    }

    fn count(&mut self, fault: &Fault) {
        match fault {
            Fault::Exception(_) => self.line.status.refusals.add(1),
            Fault::Silent { .. } => self.line.status.timeouts.add(1),
            Fault::Closed | Fault::ClosedBefore => self.line.status.hang_ups.add(1),
            Fault::Garbled(_) => self.line.status.malformed.add(1),
            Fault::Io(_) | Fault::Babble | Fault::Request(_) => {}
        }
    }

    /// Reads everything of one poll.
    async fn poll(&mut self, guard: &mut Guard<Wire>, index: usize, now: Instant) -> Result<(), End> {
        let Some(poll) = self.line.polls.poll(index) else { return Ok(()) };
        let unit = poll.unit;
        let mut reading = Reading::new(poll);
        let tries = match self.line.polls.parking.turn(&unit, now) {
            Turn::Ask => 1 + u32::from(self.line.retries),
            Turn::Try => 1,
            Turn::Leave => {
                reading.failed(LEFT_ALONE.to_owned());
                self.line.polls.finish(index, &reading, now);
                return Ok(());
            }
        };
        let asked = self.line.polls.rows.asked();
        let outcome = self.read_all(guard, index, tries, &mut reading).await;
        if outcome.is_err() && self.shutdown.is_cancelled() {
            self.line.polls.rows.close();
            return Err(End::Idle);
        }
        if matches!(outcome, Err(End::HungUp)) && !reading.has_answers() {
            return outcome;
        }
        let now = Instant::now();
        if let Some(alive) = reading.alive() {
            self.line.polls.parking.settle(unit, alive, now);
        }
        if reading.has_answers() {
            self.line.polls.rows.heard(asked);
        }
        self.line.polls.finish(index, &reading, now);
        if outcome.is_ok() && self.line.link.is_network() && self.silent >= self.line.hopeless {
            return Err(End::Lost(format!("nobody has answered the last {} requests", self.silent)));
        }
        outcome
    }

    /// Sends the requests of a poll until one shows that there is no use in the others.
    async fn read_all(
        &mut self,
        guard: &mut Guard<Wire>,
        index: usize,
        tries: u32,
        reading: &mut Reading,
    ) -> Result<(), End> {
        let Some(poll) = self.line.polls.poll(index) else { return Ok(()) };
        let (unit, timeout, reads) = (poll.unit, poll.timeout, poll.reads.clone());
        for read in &reads {
            if let Err(end) = self.serve(guard).await {
                reading.failed("the connection was lost".into());
                return Err(end);
            }
            let result = self.read(guard, unit.0, read, timeout, tries).await;
            let fault = match result.as_ref().map_err(Fault::clone).and_then(raw) {
                Ok(raw) => {
                    self.line.polls.decode(index, read, raw, reading);
                    continue;
                }
                Err(fault) => fault,
            };
            if matches!(fault, Fault::Exception(2 | 3)) && read.points.len() > 1 {
                self.line.polls.take_apart(index, read);
            }
            reading.refused(read, &fault);
            if fault == Fault::ClosedBefore && self.answered {
                return Err(End::HungUp);
            }
            if fault.ends_connection() {
                return Err(End::Lost(fault.to_string()));
            }
            if fault.is_silence() {
                break;
            }
        }
        Ok(())
    }

    async fn read(
        &mut self,
        guard: &mut Guard<Wire>,
        unit: u8,
        read: &Read,
        timeout: Duration,
        tries: u32,
    ) -> Result<tokio_modbus::Response, Fault> {
        let mut tried = 0;
        loop {
            tried += 1;
            let result = tokio::select! {
                biased;
                result = guard.call(unit, request(read), timeout) => result,
                () = grace(&self.shutdown) => Err(Fault::Io("the box stops".into())),
            };
            match &result {
                Ok(_) | Err(Fault::Exception(_)) => {
                    (self.silent, self.answered) = (0, true);
                    self.line.status.messages.add(1);
                }
                Err(Fault::Silent { .. }) => self.silent = self.silent.saturating_add(1),
                Err(_) => {}
            }
            match result {
                Ok(response) => return Ok(response),
                Err(fault) => {
                    self.count(&fault);
                    if !matches!(fault, Fault::Silent { .. }) || tried >= tries {
                        return Err(fault);
                    }
                    debug!(unit, asked = %read.span, %fault, "asking again");
                }
            }
        }
    }
}

/// Resolves when the box stops, and has waited long enough for an answer.
async fn grace(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(Duration::from_secs(1)).await;
}

/// Why a row was not written, or not all of it.
fn explain(error: &WriteFault, write: &Write, done: usize, writes: &[Write]) -> DeliveryError {
    let mut why = format!("{}: {error}", write.points.join(", "));
    let others = |writes: Option<&[Write]>| {
        let points = writes.unwrap_or_default().iter().flat_map(|write| write.points.iter().cloned());
        points.collect::<Vec<_>>().join(", ")
    };
    if done > 0 {
        why += &format!("; written before: {}", others(writes.get(..done)));
    }
    if done + 1 < writes.len() {
        why += &format!("; not tried: {}", others(writes.get(done + 1..)));
    }
    match error.fault() {
        Some(fault) if fault.is_transient() => DeliveryError::Transient(why),
        _ => DeliveryError::Permanent(why),
    }
}
