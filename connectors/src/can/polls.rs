//! Values that are asked for again and again.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::IsoTpConfig;
use super::isotp::{Fault, Node, Request, read};
use crate::codec::BinaryField;
use crate::line::handover::HandOver;
use crate::line::parking::{ParkConfig, Turn};
use crate::line::polls::{self, LEFT_ALONE};
use crate::quality::Quality;
use crate::rows::{Rows, Value};
use crate::status::{Intake, LineStatus};

/// What a stream asks a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) node: IsoTpConfig,
    pub(super) request: Request,
    pub(super) every: Duration,
    pub(super) patience: Duration,
    pub(super) fields: Vec<(String, BinaryField)>,
}

/// A stream that asks.
pub(super) struct Asker {
    /// its place among the streams
    pub(super) stream: usize,
    pub(super) name: Arc<str>,
    pub(super) intake: Arc<Intake>,
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
    intake: Arc<Intake>,
}

/// All questions of a connection.
pub(super) struct Polls {
    polls: Vec<Poll>,
    asking: polls::Polls<IsoTpConfig>,
    status: Arc<LineStatus>,
}

impl Polls {
    /// `asked`: with the streams that do.
    pub(super) fn new(
        line: &str,
        interface: &str,
        asked: Vec<(Asker, Asked)>,
        park: ParkConfig,
        status: Arc<LineStatus>,
    ) -> Self {
        let mut nodes: Vec<(IsoTpConfig, Arc<Mutex<Node>>)> = Vec::new();
        let asking = asked.iter().map(|(Asker { stream, name, .. }, asked)| polls::Poll {
            stream: *stream,
            name: Arc::clone(name),
            device: asked.node,
            every: asked.every,
        });
        let asking = polls::Polls::new(line, asking.collect(), park, &status);
        let polls = asked.into_iter().map(|(Asker { stream, intake, .. }, asked)| {
            let known =
                nodes.iter().find(|(config, _)| *config == asked.node).map(|(_, node)| Arc::clone(node));
            let node = known.unwrap_or_else(|| {
                let node = Arc::new(Mutex::new(Node::new(interface, asked.node)));
                nodes.push((asked.node, Arc::clone(&node)));
                node
            });
            Poll { stream, asked, node, is_under_way: false, intake }
        });
        Self { polls: polls.collect(), asking, status }
    }

    /// Asking begins now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.asking.begin(now);
    }

    /// When the next question is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.asking.next_due()
    }

    /// The next question that is due. Nodes that are left alone are not asked.
    pub(super) fn ask(&mut self, at: i64, now: Instant, rows: &mut HandOver<Rows>) -> Option<Question> {
        while let Some(place) = self.asking.due(now) {
            self.asking.done(place, now);
            if self.asking.turn(place, now) == Turn::Leave {
                self.fail(place, at, now, LEFT_ALONE, rows);
                continue;
            }
            let poll = self.polls.get_mut(place)?;
            if std::mem::replace(&mut poll.is_under_way, true) {
                self.asking.overrun();
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
    pub(super) fn take(&mut self, answer: Answer, at: i64, now: Instant, rows: &mut HandOver<Rows>) {
        let place = answer.poll;
        let Some(poll) = self.polls.get_mut(place) else { return };
        poll.is_under_way = false;
        let bytes = match answer.outcome {
            Ok(bytes) => bytes,
            Err(fault) => {
                match &fault {
                    Fault::Silent(_) => {
                        self.status.timeouts.add(1);
                        self.asking.settle(place, false, now);
                    }
                    Fault::Refused(_) => {
                        self.status.refusals.add(1);
                        self.asking.settle(place, true, now);
                    }
                    Fault::Io(_) => {}
                }
                return self.fail(place, at, now, fault.text(), rows);
            }
        };
        self.status.messages.add(1);
        self.asking.settle(place, true, now);
        let (mut values, mut fault) = (Vec::with_capacity(poll.asked.fields.len()), None);
        for (name, field) in &poll.asked.fields {
            let value = read(name, field, &bytes).unwrap_or_else(|why| {
                self.status.wrong_type.add(1);
                poll.intake.misfits.add(1);
                fault.get_or_insert(why);
                Value::Null
            });
            values.push(value);
        }
        self.asking.say(place, fault.as_deref(), now);
        let quality = match fault {
            None => Quality::Good,
            Some(_) if values.iter().any(|value| *value != Value::Null) => Quality::Uncertain,
            Some(_) => Quality::Bad,
        };
        rows.add(poll.stream, |rows| rows.append(at, &values, quality, fault.as_deref()));
    }

    /// The questions that are due while nobody can be asked.
    pub(super) fn pass_by(&mut self, reason: &str, at: i64, now: Instant, rows: &mut HandOver<Rows>) {
        while let Some(place) = self.asking.due(now) {
            self.asking.passed_by(place, now);
            self.asking.said_of_the_line(place, reason, now);
            self.fail(place, at, now, reason, rows);
        }
    }

    fn fail(&mut self, place: usize, at: i64, now: Instant, fault: &str, rows: &mut HandOver<Rows>) {
        self.asking.say(place, Some(fault), now);
        let Some(poll) = self.polls.get(place) else { return };
        if rows.stream(poll.stream).is_some_and(|rows| rows.tell_quality()) {
            rows.add(poll.stream, |rows| rows.append(at, [], Quality::Bad, Some(fault)));
        }
    }
}
