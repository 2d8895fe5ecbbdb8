//! The task that owns a line: it polls, writes, and connects again.
//!
//! Reads and writes never overlap. A write that waits goes out before the next request, also between the
//! requests of one poll. While the line is down polls that are due become rows that say so, where a stream
//! has asked for them, and writes fail at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::debug;

use super::fault::Fault;
use super::guard::Guard;
use super::link::Link;
use super::plan::Read;
use super::polls::{Polls, Reading, Unit, raw, request};
use super::sink::Job;
use super::write::Lacks;
use crate::Inlet;
use crate::line::handover::HandOver;
use crate::line::parking::Turn;
use crate::line::polls::LEFT_ALONE;
use crate::line::task::{self, End, Protocol};
use crate::port::Wire;
use crate::rows::Rows;
use crate::status::LineStatus;

pub(super) type Line = task::Line<Job>;

/// The one that asks.
pub(super) struct Master {
    pub(super) link: Link,
    pub(super) polls: Polls,
    pub(super) retries: u8,
    /// after how many requests without any answer a network connection is made anew
    pub(super) hopeless: u32,
    pub(super) close_after_poll: bool,
    pub(super) status: Arc<LineStatus>,
    pub(super) lacks: BTreeMap<Unit, Lacks>,
    pub(super) transaction: u16,
    /// requests without an answer, one after the other
    pub(super) silent: u32,
    /// whether anybody has answered on this connection
    pub(super) answered: bool,
}

impl Protocol for Master {
    type Wire = Guard<Wire>;
    type Write = Job;
    type Rows = Rows;

    fn start(&mut self, inlet: Inlet) {
        self.polls.begin(inlet, Instant::now());
    }

    fn open(&self) -> BoxFuture<'static, Result<Guard<Wire>, String>> {
        let (link, transaction, status) = (self.link.clone(), self.transaction, Arc::clone(&self.status));
        async move { link.dial(transaction, status).await }.boxed()
    }

    async fn drive(&mut self, mut guard: Guard<Wire>, line: &mut Line) -> End {
        let end = self.use_line(&mut guard, line).await;
        self.transaction = guard.next_transaction();
        end
    }

    fn rows(&mut self) -> &mut HandOver<Rows> {
        &mut self.polls.rows
    }

    fn begins(&mut self) {
        (self.silent, self.answered) = (0, false);
        self.polls.rows.begins();
    }

    fn ends(&mut self, _: &str, _: &Line) {
        self.polls.rows.ends();
    }

    fn next_due(&self) -> Option<Instant> {
        self.polls.next_due()
    }

    fn pass_by(&mut self, fault: &str, now: Instant) {
        self.polls.pass_by(fault, now);
    }
}

impl Master {
    /// Uses a connection until it is lost or not needed.
    async fn use_line(&mut self, guard: &mut Guard<Wire>, line: &mut Line) -> End {
        loop {
            if let Err(end) = self.serve(guard, line).await {
                return end;
            }
            if line.is_finished(&mut self.polls.rows) {
                return End::Finished;
            }
            let now = Instant::now();
            if let Some(index) = self.polls.due(now) {
                if let Err(end) = self.poll(guard, line, index, now).await {
                    return end;
                }
                continue;
            }
            if self.close_after_poll {
                return End::Idle;
            }
            let due = self.polls.next_due();
            line.wait(&mut self.polls.rows, due).await;
        }
    }

    pub(super) fn count(&mut self, fault: &Fault) {
        match fault {
            Fault::Exception(_) => self.status.refusals.add(1),
            Fault::Silent { .. } => self.status.timeouts.add(1),
            Fault::Closed | Fault::ClosedBefore => self.status.hang_ups.add(1),
            Fault::Garbled(_) => self.status.malformed.add(1),
            Fault::Io(_) | Fault::Babble | Fault::Request(_) => {}
        }
    }

    /// Reads everything of one poll.
    async fn poll(
        &mut self,
        guard: &mut Guard<Wire>,
        line: &mut Line,
        index: usize,
        now: Instant,
    ) -> Result<(), End> {
        let Some(poll) = self.polls.poll(index) else { return Ok(()) };
        let unit = poll.unit;
        let mut reading = Reading::new(poll);
        let tries = match self.polls.asking.parking.turn(&unit, now) {
            Turn::Ask => 1 + u32::from(self.retries),
            Turn::Try => 1,
            Turn::Leave => {
                reading.failed(LEFT_ALONE.to_owned());
                self.polls.finish(index, &reading, now);
                return Ok(());
            }
        };
        let asked = self.polls.rows.asked();
        let outcome = self.read_all(guard, line, index, tries, &mut reading).await;
        if outcome.is_err() && line.shutdown.is_cancelled() {
            self.polls.rows.close();
            return Err(End::Idle);
        }
        if matches!(outcome, Err(End::HungUp)) && !reading.has_answers() {
            return outcome;
        }
        let now = Instant::now();
        if let Some(alive) = reading.alive() {
            self.polls.asking.parking.settle(unit, alive, now);
        }
        if reading.has_answers() {
            self.polls.rows.heard(asked);
        }
        self.polls.finish(index, &reading, now);
        outcome.and_then(|()| self.check_hope())
    }

    /// Whether a network connection on which nobody answers is to be made anew.
    pub(super) fn check_hope(&self) -> Result<(), End> {
        if self.link.is_network() && self.silent >= self.hopeless {
            return Err(End::Lost(format!("nobody has answered the last {} requests", self.silent)));
        }
        Ok(())
    }

    /// Sends the requests of a poll until one shows that there is no use in the others.
    async fn read_all(
        &mut self,
        guard: &mut Guard<Wire>,
        line: &mut Line,
        index: usize,
        tries: u32,
        reading: &mut Reading,
    ) -> Result<(), End> {
        let Some(poll) = self.polls.poll(index) else { return Ok(()) };
        let (unit, timeout, reads) = (poll.unit, poll.timeout, poll.reads.clone());
        for read in &reads {
            // What is asked of the line while it rests goes before this.
            let rested = tokio::select! {
                biased;
                rested = guard.rest() => rested.map_err(|fault| End::Lost(fault.to_string())),
                () = line.grace() => Err(End::Lost("the box stops".into())),
            };
            let served = if rested.is_ok() { self.serve(guard, line).await } else { rested };
            if let Err(end) = served {
                reading.failed("the connection was lost".into());
                return Err(end);
            }
            let result = self.read(guard, line, (unit, timeout), read, tries).await;
            let fault = match result.as_ref().map_err(Fault::clone).and_then(raw) {
                Ok(raw) => {
                    self.polls.decode(index, read, raw, reading);
                    continue;
                }
                Err(fault) => fault,
            };
            if matches!(fault, Fault::Exception(2 | 3)) && read.points.len() > 1 {
                self.polls.take_apart(index, read);
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

    /// Sends one request, again when nobody answers.
    pub(super) async fn read(
        &mut self,
        guard: &mut Guard<Wire>,
        line: &Line,
        (unit, timeout): (Unit, Duration),
        read: &Read,
        tries: u32,
    ) -> Result<tokio_modbus::Response, Fault> {
        let mut tried = 0;
        loop {
            tried += 1;
            let result = tokio::select! {
                biased;
                result = guard.call(unit.0, request(read), timeout) => result,
                () = line.grace() => Err(Fault::Io("the box stops".into())),
            };
            match &result {
                Ok(_) | Err(Fault::Exception(_)) => {
                    (self.silent, self.answered) = (0, true);
                    self.status.messages.add(1);
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
                    debug!(unit = unit.0, asked = %read.span, %fault, "asking again");
                }
            }
        }
    }
}
