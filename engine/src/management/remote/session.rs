//! The line on which the box is managed from afar: what comes in goes to the [`Desk`], what it says goes out,
//! what it begins is done here, beside all else.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use tidegate_connectors::remote::{News, Post, Publication, Remote};
use tidegate_trust::Code;
use tidegate_trust::command::CommandId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::desk::{Deed, Desk, Failure, Job, Question};
use super::ledger::LedgerError;
use super::ops;
use super::presence::Presence;
use crate::management::managed_box::ManagedBox;

/// From one message to the next, on average: checking signatures costs time, and anybody can publish.
const PACE: Duration = Duration::from_millis(20);
/// As many may come at once, such as all that nobody has cleared.
const BURST: u32 = 500;
/// However long a command goes on, it has failed by then.
const LONGEST: Duration = Duration::from_mins(15);
/// What cannot be written down is tried again after so long.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// How often it is told that the box is alive, and looked at whether a nonce is due.
const ALIVE_EVERY: Duration = Duration::from_mins(1);
/// How long a last word may take to arrive.
const GOODBYE: Duration = Duration::from_secs(2);

/// The line, and what stands at its end.
pub struct Session {
    desk: Desk,
    presence: Presence,
    post: Arc<dyn Post>,
    managed: Arc<ManagedBox>,
    /// ends that could not be written down yet
    unwritten: Vec<(CommandId, Result<Value, Failure>)>,
    pace: Pace,
}

/// How fast messages are looked at: [`PACE`], and [`BURST`] at once.
struct Pace {
    /// when all that have come would have come one after the other
    reached: Instant,
}

impl Pace {
    async fn wait(&mut self) {
        let now = Instant::now();
        self.reached = self.reached.max(now) + PACE;
        sleep(self.reached.saturating_duration_since(now).saturating_sub(PACE * BURST)).await;
    }
}

type Jobs = FuturesUnordered<futures::future::BoxFuture<'static, (CommandId, Result<Value, Failure>)>>;

impl Session {
    /// A session that says things by `post`.
    #[must_use]
    pub fn new(desk: Desk, presence: Presence, post: Arc<dyn Post>, managed: Arc<ManagedBox>) -> Self {
        Self { desk, presence, post, managed, unwritten: Vec::new(), pace: Pace { reached: Instant::now() } }
    }

    /// Runs until the line ends; `deeds` are left from the start.
    pub async fn run(mut self, remote: Remote, deeds: Vec<Deed>) {
        let Remote { mut news, task, .. } = remote;
        // Beside each other: what is said waits for room on the line.
        tokio::select! {
            () = task => {}
            () = self.serve(&mut news, deeds) => {}
        }
    }

    async fn serve(&mut self, news: &mut mpsc::Receiver<News>, deeds: Vec<Deed>) {
        let mut jobs = Jobs::new();
        let mut alive = interval(ALIVE_EVERY);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.act(deeds, &mut jobs).await;
        let mut next = Some(Duration::ZERO);
        loop {
            let due = async {
                match next {
                    Some(next) => sleep(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((id, outcome)) = jobs.next() => self.unwritten.push((id, outcome)),
                Some(news) = news.recv() => self.take(news, &mut jobs).await,
                _ = alive.tick() => self.tick().await,
                () = due => {}
            }
            next = match self.proceed(&mut jobs).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "no command from afar is carried out; the box runs on");
                    Some(DISK_PAUSE)
                }
            };
        }
    }

    /// Writes down what has ended, and begins what can be begun.
    async fn proceed(&mut self, jobs: &mut Jobs) -> Result<Option<Duration>, LedgerError> {
        while let Some((id, outcome)) = self.unwritten.last().cloned() {
            let deeds = self.desk.ended(&id, outcome)?;
            self.unwritten.pop();
            self.act(deeds, jobs).await;
        }
        let (deeds, next) = self.desk.proceed()?;
        self.act(deeds, jobs).await;
        Ok(next)
    }

    async fn take(&mut self, news: News, jobs: &mut Jobs) {
        let deeds = match news {
            News::Lost => return,
            News::Listens => {
                for publication in self.presence.arrives(&self.desk, &self.managed) {
                    self.say(publication).await;
                }
                self.desk.listens()
            }
            News::Message(message) => {
                self.pace.wait().await;
                let deeds = self.desk.message(&message);
                if deeds.is_err() {
                    // It comes again on the next connection.
                    message.ack.refuse();
                }
                deeds
            }
        };
        match deeds {
            Ok(deeds) => self.act(deeds, jobs).await,
            Err(error) => tracing::error!(%error, "a command from afar was not taken; the box runs on"),
        }
    }

    async fn tick(&mut self) {
        // Without random numbers the nonces that there are go on counting.
        if super::random().is_ok_and(|random| self.desk.renew(random)) {
            self.say(self.presence.cap(&self.desk)).await;
        }
        self.say(self.presence.alive(&self.managed)).await;
    }

    async fn act(&self, deeds: Vec<Deed>, jobs: &mut Jobs) {
        for deed in deeds {
            match deed {
                Deed::Say(publication) => self.say(publication).await,
                Deed::Begin(job) => jobs.push(Box::pin(carry_out(Arc::clone(&self.managed), job))),
                Deed::Answer(question) => self.answer(question).await,
            }
        }
    }

    /// Says something, if there is a line: what is kept by the ledger is said again when it is back.
    async fn say(&self, publication: Publication) {
        if let Err(error) = self.post.publish(publication).await {
            tracing::debug!(%error, "nobody could be told");
        }
    }

    async fn answer(&self, question: Question) {
        let Question { op, args, who, topic, correlation, id } = question;
        let answer = match ops::answer(&self.managed, op, args, &who).await {
            Ok(result) => json!({ "id": id, "status": "successful", "code": "ok", "result": result }),
            Err(Failure { code, reason }) => {
                json!({ "id": id, "status": "failed", "code": code, "reason": reason })
            }
        };
        let payload = answer.to_string().into();
        let publication =
            Publication { topic, payload, keep: false, confirmed: true, expiry: None, correlation };
        self.say(publication).await;
    }
}

async fn carry_out(managed: Arc<ManagedBox>, job: Job) -> (CommandId, Result<Value, Failure>) {
    let Job { id, op, args, who } = job;
    tracing::info!(%op, %id, asked_by = who, "a command from afar is carried out");
    let done = timeout(LONGEST, ops::carry_out(&managed, op, args, &who)).await;
    let outcome = done.unwrap_or_else(|_| {
        let reason = format!("it was not done after {} minutes", LONGEST.as_secs() / 60);
        Err(Failure::new(Code::Timeout, reason))
    });
    if let Err(Failure { reason, .. }) = &outcome {
        tracing::warn!(%op, %id, reason, "a command from afar has failed");
    }
    (id, outcome)
}

/// Tells everybody that the box is about to go, if somebody can be told.
pub async fn say_goodbye(presence: &Presence, post: &dyn Post) {
    let told = async {
        if let Ok(told) = post.publish(presence.leaves()).await {
            drop(told.await);
        }
    };
    drop(timeout(GOODBYE, told).await);
}
