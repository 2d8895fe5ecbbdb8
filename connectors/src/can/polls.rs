//! Values that are asked for again and again.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::config::IsoTpConfig;
use super::isotp::{Fault, Field, Node, Request};
use crate::line::handover::HandOver;
use crate::line::schedule::Schedule;
use crate::quality::Quality;
use crate::rows::{Rows, Value};
use crate::status::{Counter, LineStatus};

/// What a stream asks a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) node: IsoTpConfig,
    pub(super) request: Request,
    pub(super) every: Duration,
    pub(super) patience: Duration,
    pub(super) fields: Vec<Field>,
}

/// A question under way: which, and what came of it.
pub(super) type Question = BoxFuture<'static, Answer>;

/// What has come of a question.
pub(super) struct Answer {
    poll: usize,
    outcome: Result<Vec<u8>, Fault>,
}

struct Poll {
    stream: usize,
    asked: Asked,
    /// Of those that ask it one at a time does: answers look alike.
    node: Arc<Mutex<Node>>,
    is_under_way: bool,
    /// what the log has about it
    said: Option<String>,
}

/// All questions of a connection.
pub(super) struct Polls {
    polls: Vec<Poll>,
    schedule: Schedule,
    overruns: Arc<Counter>,
    status: Arc<LineStatus>,
}

impl Polls {
    /// `asked`: with the places of their streams.
    pub(super) fn new(
        line: &str,
        interface: &str,
        asked: Vec<(usize, Asked)>,
        status: Arc<LineStatus>,
    ) -> Self {
        let mut nodes: Vec<(IsoTpConfig, Arc<Mutex<Node>>)> = Vec::new();
        let schedule = Schedule::new(line, asked.iter().map(|(_, asked)| asked.every));
        let polls = asked.into_iter().map(|(stream, asked)| {
            let known =
                nodes.iter().find(|(config, _)| *config == asked.node).map(|(_, node)| Arc::clone(node));
            let node = known.unwrap_or_else(|| {
                let node = Arc::new(Mutex::new(Node::new(interface, asked.node)));
                nodes.push((asked.node, Arc::clone(&node)));
                node
            });
            Poll { stream, asked, node, is_under_way: false, said: None }
        });
        Self { polls: polls.collect(), schedule, overruns: status.counter("overruns"), status }
    }

    /// Asking begins now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.schedule.begin(now);
    }

    /// When the next question is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.next_due()
    }

    /// The next question that is due.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Question> {
        while let Some(place) = self.schedule.due(now) {
            self.overruns.add(u64::from(self.schedule.done(place, now)));
            let poll = self.polls.get_mut(place)?;
            if std::mem::replace(&mut poll.is_under_way, true) {
                self.overruns.add(1);
                continue;
            }
            let (node, request) = (Arc::clone(&poll.node), poll.asked.request.clone());
            let patience = poll.asked.patience;
            let question = async move {
                let outcome = node.lock().await.ask(&request, patience).await;
                Answer { poll: place, outcome }
            };
            return Some(question.boxed());
        }
        None
    }

    /// Makes a row of an answer.
    pub(super) fn take(&mut self, answer: Answer, at: i64, rows: &mut HandOver<Rows>) {
        let Some(poll) = self.polls.get_mut(answer.poll) else { return };
        poll.is_under_way = false;
        let bytes = match answer.outcome {
            Ok(bytes) => bytes,
            Err(fault) => {
                match &fault {
                    Fault::Silent(_) => self.status.timeouts.add(1),
                    Fault::Refused(_) => self.status.refusals.add(1),
                    Fault::Io(_) => {}
                }
                return poll.fail(at, fault.text(), rows);
            }
        };
        self.status.messages.add(1);
        let (mut values, mut fault) = (Vec::with_capacity(poll.asked.fields.len()), None);
        for field in &poll.asked.fields {
            let value = field.read(&bytes).unwrap_or_else(|why| {
                self.status.wrong_type.add(1);
                fault.get_or_insert(why);
                Value::Null
            });
            values.push(value);
        }
        poll.say(fault.as_deref(), rows);
        let quality = if fault.is_some() { Quality::Uncertain } else { Quality::Good };
        rows.add(poll.stream, |rows| rows.append(at, &values, quality, fault.as_deref()));
    }

    /// The questions that are due while nobody can be asked.
    pub(super) fn pass_by(&mut self, reason: &str, at: i64, now: Instant, rows: &mut HandOver<Rows>) {
        while let Some(place) = self.schedule.due(now) {
            self.overruns.add(u64::from(self.schedule.done(place, now)));
            let Some(poll) = self.polls.get_mut(place) else { return };
            // What the bus suffers from is said of the bus.
            poll.said = Some(reason.to_owned());
            poll.fail(at, reason, rows);
        }
    }
}

impl Poll {
    fn fail(&mut self, at: i64, fault: &str, rows: &mut HandOver<Rows>) {
        self.say(Some(fault), rows);
        if rows.stream(self.stream).is_some_and(|rows| rows.tell_quality()) {
            rows.add(self.stream, |rows| rows.append(at, [], Quality::Bad, Some(fault)));
        }
    }

    /// Says what is new about it.
    fn say(&mut self, fault: Option<&str>, rows: &mut HandOver<Rows>) {
        if fault == self.said.as_deref() {
            return;
        }
        let stream = rows.stream(self.stream).map(|rows| Arc::clone(rows.stream()));
        match fault {
            Some(fault) => warn!(stream = stream.as_deref(), fault, "values could not be read and are null"),
            None => info!(stream = stream.as_deref(), "all values are read again"),
        }
        self.said = fault.map(str::to_owned);
    }
}
