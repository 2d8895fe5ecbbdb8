//! Where commands from afar come in, and what is said of them: `init`, `executing`, then `successful` or
//! `failed`, each of it written down before it is said.
//!
//! No I/O happens here but that of the [`Ledger`]: messages, time and the ends of what was begun are handed in,
//! and what is to be said and begun comes out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_connectors::remote::{Message, Publication};
use tidegate_core::Clock;
use tidegate_trust::audit::{Event, Record, Who};
use tidegate_trust::command::{Channel, Command, CommandId, Identity, Topic};
use tidegate_trust::freshness::{Clock as Watch, Freshness, NoClock, Nonces};
use tidegate_trust::gate::{self, Admission, Admitted, Gate, Signer, Start, Trust};
use tidegate_trust::op::{Op, Timing};
use tidegate_trust::outcome::{Report, State, Step};
use tidegate_trust::{Code, Refusal, WallTime};

use super::ledger::{Entry, Kept, Ledger, LedgerError};
use crate::time::SequenceTime;

/// After so long without another one, those that were kept for the box are all there.
const QUIET: Duration = Duration::from_millis(500);
/// However many come, those that have come by then are begun.
const COLLECTED: Duration = Duration::from_secs(5);
/// How long the far side keeps what became of a command.
const RESULT_EXPIRY: Duration = Duration::from_hours(7 * 24);
/// What is to be done at once may wait for so long behind another command.
const LIVE_FOR: Duration = Duration::from_mins(1);
/// Commands that have not begun. More are not taken.
const MOST_WAITING: usize = 256;
/// As many results are said again when the line comes back.
const SAID_AGAIN: usize = 256;
/// So many refusals of nobody knows whom are written down one by one in [`REFUSALS_EVERY`]; of the others, how many
/// they were: anybody can publish, and nobody may fill the disk.
const REFUSALS_WRITTEN: u32 = 5;
const REFUSALS_EVERY: Duration = Duration::from_mins(10);

/// What the box is, to those who ask from afar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// its name, and the groups that it is in
    pub me: Identity,
    /// how all topics begin
    pub prefix: String,
    /// what happens to a command that may be too old
    pub no_clock: NoClock,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Say that.
    Say(Publication),
    /// Begin with that; its end is told to [`Desk::ended`].
    Begin(Job),
    /// Answer that.
    Answer(Question),
}

/// A command that begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// which
    pub id: CommandId,
    /// what
    pub op: Op,
    /// its arguments
    pub args: Value,
    /// who wants it, for people
    pub who: String,
}

/// Something that is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// what
    pub op: Op,
    /// its arguments
    pub args: Value,
    /// who asks, for people
    pub who: String,
    /// where the answer goes
    pub topic: String,
    /// comes back with it
    pub correlation: Option<Bytes>,
    /// the question's id
    pub id: CommandId,
}

/// Where commands come in.
pub struct Desk {
    settings: Settings,
    trust: Trust,
    freshness: Freshness,
    nonces: Nonces,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    time: Arc<SequenceTime>,
    /// commands that have not begun
    waiting: Vec<Waiting>,
    /// what commands are about that have begun and not ended
    busy: BTreeSet<String>,
    /// those that have begun
    begun: Vec<Kept>,
    /// since when commands are collected, and when the last of them came
    collecting: Option<(Duration, Duration)>,
    refusals: Refusals,
}

/// A command that has not begun.
struct Waiting {
    kept: Kept,
    since: Duration,
}

/// Refusals of late.
#[derive(Default)]
struct Refusals {
    since: Duration,
    written: u32,
    passed: u64,
}

impl Desk {
    /// A desk with what was on it when the process ended. What had begun then and cannot be begun again has
    /// failed.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub fn open(
        settings: Settings,
        trust: Trust,
        ledger: Ledger,
        build: WallTime,
        random: [u8; 16],
        (clock, time): (Arc<dyn Clock>, Arc<SequenceTime>),
    ) -> Result<(Self, Vec<Deed>), LedgerError> {
        let freshness = ledger.freshness()?.unwrap_or_else(|| Freshness::new(build));
        let now = clock.monotonic();
        let open = ledger.open_commands()?;
        let mut desk = Self {
            settings,
            trust,
            freshness,
            nonces: Nonces::new(random, now),
            ledger,
            clock,
            time,
            waiting: Vec::new(),
            busy: BTreeSet::new(),
            begun: Vec::new(),
            collecting: Some((now, now)),
            refusals: Refusals::default(),
        };
        let mut deeds = Vec::new();
        for kept in open {
            match kept.report.state {
                // What is to be done at once is not done at another time: nobody knows how long the box was off.
                _ if kept.admitted.command.op.terms().timing == Timing::Live => {
                    let reason =
                        "the box stopped before it was certain that it was done, and does not do it later";
                    deeds.extend(desk.end(kept, Err(Failure::new(Code::Interrupted, reason)))?);
                }
                State::Executing(step) if step != Step::Queued => {
                    let reason = "the box stopped while it was done; whether it took effect is not known";
                    deeds.extend(desk.end(kept, Err(Failure::new(Code::Interrupted, reason)))?);
                }
                _ => desk.waiting.push(Waiting { kept, since: now }),
            }
        }
        Ok((desk, deeds))
    }

    /// What the box takes as new, for `cap`.
    #[must_use]
    pub fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    /// The counters, for `cap`.
    #[must_use]
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whom the box believes, for `cap`.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Makes a new nonce, if it is time for that. Whether it has.
    pub fn renew(&mut self, random: [u8; 16]) -> bool {
        let now = self.clock.monotonic();
        let is_due = now >= self.nonces.due();
        if is_due {
            self.nonces.renew(random, now);
        }
        is_due
    }

    /// The line is up. What became of the newest commands is said again: the far side may have lost it.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn listens(&mut self) -> Result<Vec<Deed>, LedgerError> {
        let now = self.clock.monotonic();
        self.collecting = Some((now, now));
        let ended = self.ledger.ended_commands(SAID_AGAIN)?;
        let open = self.waiting.iter().map(|waiting| &waiting.kept).chain(&self.begun);
        Ok(ended.iter().rev().chain(open).map(|kept| self.say(kept)).collect())
    }

    /// Somebody has said something on one of the box's topics.
    ///
    /// # Errors
    /// When it cannot be written down: nothing has come of it, and it has to come again.
    pub fn message(&mut self, message: &Message) -> Result<Vec<Deed>, LedgerError> {
        let topic = match Topic::parse(&self.settings.prefix, &message.topic) {
            Ok(topic) => topic,
            Err(refusal) => return self.refuse(None, &message.topic, refusal, false),
        };
        let bytes = match &message.payload {
            // Whoever tidies up behind a command takes nothing back.
            Ok(bytes) if bytes.is_empty() => return Ok(Vec::new()),
            Ok(bytes) => bytes,
            Err(size) => {
                let reason = format!("the message has {size} bytes, and was not read");
                let refusal = Refusal::new(Code::Invalid, reason)
                    .help("send what is large as an artifact, by its SHA-256");
                return self.refuse(Some(&topic), &message.topic, refusal, false);
            }
        };
        let known = topic.id.as_ref().map(|id| self.ledger.command(id)).transpose()?.flatten();
        let remembered = known.as_ref().map(|kept| kept.admitted.digest);
        let admission = self.gate().admit(&gate::Message { topic: &topic, bytes, remembered });
        match (admission, topic.channel) {
            (Ok(Admission::Again), _) => Ok(known.iter().map(|kept| self.say(kept)).collect()),
            (Ok(Admission::New(admitted)), Channel::Question) => Ok(self.ask(*admitted, message)),
            (Ok(Admission::New(admitted)), Channel::Command) => self.take(*admitted),
            (Err(refusal), _) => self.refuse(Some(&topic), &message.topic, refusal, known.is_some()),
        }
    }

    fn gate(&self) -> Gate<'_> {
        Gate {
            me: &self.settings.me,
            trust: &self.trust,
            freshness: &self.freshness,
            nonces: &self.nonces,
            uptime: self.clock.monotonic(),
            clock: self.watch(),
            no_clock: self.settings.no_clock,
        }
    }

    fn watch(&self) -> Watch {
        if self.clock.is_synchronised() { Watch::Synchronised(self.wall()) } else { Watch::Unsynchronised }
    }

    fn wall(&self) -> WallTime {
        WallTime::from_micros(self.clock.wall_ns() / 1_000)
    }

    /// A command that is new, and may be given.
    fn take(&mut self, admitted: Admitted) -> Result<Vec<Deed>, LedgerError> {
        let report = Report {
            id: admitted.command.id.clone(),
            state: State::Init,
            reason: None,
            since: Some(self.wall()),
            digest: Some(admitted.digest),
            now: None,
            result: None,
            audit: None,
        };
        let mut kept = Kept { admitted, report };
        let mut freshness = self.freshness.clone();
        freshness.observe(self.watch());
        let Admitted { command, signers, .. } = &kept.admitted;
        freshness.record(command, signers.iter().map(|signer| signer.key));
        if self.waiting.len() >= MOST_WAITING {
            let reason = format!("{MOST_WAITING} commands wait already");
            self.freshness = freshness;
            return self.end(kept, Err(Failure::new(Code::Busy, reason)));
        }
        let record = self.record(&kept, None, None);
        let entry = Entry { command: Some(&kept), freshness: Some(&freshness) };
        kept.report.audit = Some(self.ledger.write(&record, entry)?);
        self.freshness = freshness;
        let deed = self.say(&kept);
        let now = self.clock.monotonic();
        if let Some((_, last)) = &mut self.collecting {
            *last = now;
        }
        self.waiting.push(Waiting { kept, since: now });
        Ok(vec![deed])
    }

    fn ask(&mut self, admitted: Admitted, message: &Message) -> Vec<Deed> {
        let Some(reply) = &message.reply else { return Vec::new() };
        // The box is nobody's messenger: it answers where answers belong, and nowhere else.
        let answers = format!("{}/{}/ans/", self.settings.prefix, self.settings.me.name);
        if !reply.topic.starts_with(&answers) || reply.topic.contains(['+', '#']) {
            tracing::warn!(
                topic = reply.topic,
                answers,
                "a question from afar wants its answer where answers do not belong: it is not answered"
            );
            return Vec::new();
        }
        let who = who(&admitted.signers);
        let Command { op, id, args, .. } = admitted.command;
        let (topic, correlation) = (reply.topic.clone(), reply.correlation.clone());
        vec![Deed::Answer(Question { op, args: Value::Object(args), who, topic, correlation, id })]
    }

    /// Begins what can be begun. Returns what is to be done, and when it has to be looked at again if nothing
    /// happens before.
    ///
    /// # Errors
    /// When the ledger cannot be written: nothing was begun then.
    pub fn proceed(&mut self) -> Result<(Vec<Deed>, Option<Duration>), LedgerError> {
        let now = self.clock.monotonic();
        if let Some((since, last)) = self.collecting {
            let until = (last + QUIET).min(since + COLLECTED);
            if now < until {
                return Ok((Vec::new(), Some(until - now)));
            }
            self.collecting = None;
        }
        // What was kept for the box comes in any order; those without a counter in the order in which they came.
        self.waiting.sort_by_key(|waiting| waiting.kept.admitted.command.ctr);
        let (mut deeds, mut next): (Vec<_>, Option<Duration>) = (Vec::new(), None);
        let mut at = 0;
        while let Some(waiting) = self.waiting.get(at) {
            let target = waiting.kept.target();
            let start = self.gate().may_start(&waiting.kept.admitted, now.saturating_sub(waiting.since));
            if let Ok(Start::Wait(left)) = start {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
            if matches!(start, Ok(Start::Wait(_))) || start.is_ok() && self.busy.contains(&target) {
                at += 1;
                continue;
            }
            let newest = self.ledger.newest_counter(&target)?;
            let Waiting { kept, since } = self.waiting.remove(at);
            match self.begin(kept, target, (start, since), newest) {
                Ok(begun) => deeds.extend(begun),
                Err((waiting, error)) => {
                    self.waiting.insert(at, Waiting { kept: *waiting, since });
                    return Err(error);
                }
            }
        }
        Ok((deeds, next))
    }

    fn begin(
        &mut self,
        mut kept: Kept,
        target: String,
        (start, since): (Result<Start, Refusal>, Duration),
        newest: Option<u64>,
    ) -> Result<Vec<Deed>, (Box<Kept>, LedgerError)> {
        let waited = self.clock.monotonic().saturating_sub(since);
        let is_late = kept.admitted.command.op.terms().timing == Timing::Live && waited > LIVE_FOR;
        let before = kept.clone();
        let failed = |error| (Box::new(before), error);
        if let Err(refusal) = start {
            let why = Failure { code: refusal.code, reason: refusal.to_string() };
            return self.end(kept, Err(why)).map_err(failed);
        }
        if is_late {
            let reason =
                format!("it waited for {} s behind another command about {target}", waited.as_secs());
            return self.end(kept, Err(Failure::new(Code::NotFresh, reason))).map_err(failed);
        }
        if let Some((newest, ctr)) = newest.zip(kept.admitted.command.ctr)
            && ctr < newest
        {
            let reason = format!("a newer command about {target} was done before: its counter is {newest}");
            return self.end(kept, Err(Failure::new(Code::Superseded, reason))).map_err(failed);
        }
        (kept.report.state, kept.report.since) = (State::Executing(Step::Applying), Some(self.wall()));
        let record = self.record(&kept, None, None);
        let entry = Entry { command: Some(&kept), freshness: None };
        kept.report.audit = Some(self.ledger.write(&record, entry).map_err(failed)?);
        let Command { op, id, args, .. } = &kept.admitted.command;
        let (args, who) = (Value::Object(args.clone()), who(&kept.admitted.signers));
        let job = Job { id: id.clone(), op: *op, args, who };
        let deeds = vec![self.say(&kept), Deed::Begin(job)];
        self.busy.insert(target);
        self.begun.push(kept);
        Ok(deeds)
    }

    /// What was begun has ended.
    ///
    /// # Errors
    /// When that cannot be written down. It has to be told again.
    pub fn ended(
        &mut self,
        id: &CommandId,
        outcome: Result<Value, Failure>,
    ) -> Result<Vec<Deed>, LedgerError> {
        let Some(at) = self.begun.iter().position(|kept| kept.report.id == *id) else {
            return Ok(Vec::new());
        };
        let kept = self.begun.remove(at);
        let target = kept.target();
        match self.end(kept.clone(), outcome) {
            Ok(deeds) => {
                self.busy.remove(&target);
                Ok(deeds)
            }
            Err(error) => {
                self.begun.push(kept);
                Err(error)
            }
        }
    }

    fn end(&mut self, mut kept: Kept, outcome: Result<Value, Failure>) -> Result<Vec<Deed>, LedgerError> {
        let report = &mut kept.report;
        (report.state, report.reason, report.result) = match outcome {
            Ok(Value::Null) => (State::Ended(Code::Ok), None, None),
            Ok(result) => (State::Ended(Code::Ok), None, Some(result)),
            Err(Failure { code, reason }) => (State::Ended(code), Some(reason), None),
        };
        report.since = Some(self.wall());
        let (code, reason) = match report.state {
            State::Ended(code) => (Some(code), report.reason.clone()),
            State::Init | State::Executing(_) => (None, None),
        };
        let record = self.record(&kept, code, reason);
        // They are of no use any more, and may be large.
        kept.admitted.command.args.clear();
        let entry = Entry { command: Some(&kept), freshness: Some(&self.freshness) };
        kept.report.audit = Some(self.ledger.write(&record, entry)?);
        Ok(vec![self.say(&kept)])
    }

    /// Says why something was not taken. `is_known`: the id is another command's, whose result stays.
    fn refuse(
        &mut self,
        topic: Option<&Topic>,
        as_it_came: &str,
        refusal: Refusal,
        is_known: bool,
    ) -> Result<Vec<Deed>, LedgerError> {
        let op = topic.map_or(as_it_came, |topic| topic.op.as_str());
        let id = topic.and_then(|topic| topic.id.clone());
        let said = refusal.to_string();
        let who = if refusal.signers.is_empty() { Who::Anybody } else { Who::Keys(refusal.signers.clone()) };
        tracing::warn!(op, id = id.as_ref().map(CommandId::as_str), reason = said, "a command was refused");
        if self.refusals.is_written(self.clock.monotonic(), &who) {
            let missing = std::mem::take(&mut self.refusals.passed);
            if missing > 0 {
                let gap = self.note(Who::TheBox, Event::Gap { missing: Some(missing) });
                self.ledger.write(&gap, Entry::default())?;
            }
            let event = Event::Command { op: brief(op), id: id.as_ref().map(|id| id.as_str().to_owned()) };
            let record = Record {
                digest: refusal.digest,
                code: Some(refusal.code),
                result: Some(said.clone()),
                ..self.note(who, event)
            };
            self.ledger.write(&record, Entry::default())?;
        }
        let (Some(topic), Some(id)) = (topic, id) else { return Ok(Vec::new()) };
        let report = Report {
            id,
            state: State::Ended(refusal.code),
            reason: Some(said),
            since: Some(self.wall()),
            digest: refusal.digest,
            now: None,
            result: None,
            audit: None,
        };
        // Whoever may publish could overwrite what became of others' commands otherwise.
        Ok(vec![self.publish(&topic.op, &report, !is_known)])
    }

    fn record(&self, kept: &Kept, code: Option<Code>, result: Option<String>) -> Record {
        let Admitted { command, digest, signers, .. } = &kept.admitted;
        let event =
            Event::Command { op: command.op.name().to_owned(), id: Some(command.id.as_str().to_owned()) };
        let keys = signers.iter().map(|signer| signer.id.clone()).collect::<Vec<_>>();
        let who = if keys.is_empty() { Who::Anybody } else { Who::Keys(keys) };
        Record { digest: Some(*digest), code, result, ..self.note(who, event) }
    }

    fn note(&self, who: Who, what: Event) -> Record {
        Record {
            time: self.time.now(),
            wall: self.wall(),
            synchronised: self.clock.is_synchronised(),
            boot: self.clock.boot().to_string(),
            who,
            what,
            digest: None,
            code: None,
            result: None,
        }
    }

    fn say(&self, kept: &Kept) -> Deed {
        self.publish(kept.admitted.command.op.name(), &kept.report, true)
    }

    fn publish(&self, op: &str, report: &Report, keep: bool) -> Deed {
        let Settings { prefix, me, .. } = &self.settings;
        let (op, id) = (op.replace(['/', '+', '#'], "_"), report.id.as_str());
        Deed::Say(Publication {
            topic: format!("{prefix}/{}/res/{op}/{id}", me.name),
            payload: json!(report).to_string().into(),
            keep,
            confirmed: true,
            expiry: Some(RESULT_EXPIRY),
            correlation: None,
        })
    }
}

impl Refusals {
    /// Whether one more is written down by itself. Those of known keys always are.
    fn is_written(&mut self, now: Duration, who: &Who) -> bool {
        if !matches!(who, Who::Anybody) {
            return true;
        }
        if now.saturating_sub(self.since) >= REFUSALS_EVERY {
            (self.since, self.written) = (now, 0);
        }
        self.written = self.written.saturating_add(1);
        let is_written = self.written <= REFUSALS_WRITTEN;
        self.passed += u64::from(!is_written);
        is_written
    }
}

/// Why a command did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// for programs
    pub code: Code,
    /// for people
    pub reason: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Who gave a command, for people.
fn who(signers: &[Signer]) -> String {
    if signers.is_empty() {
        return "somebody from afar".to_owned();
    }
    let ids: Vec<&str> = signers.iter().map(|signer| signer.id.as_str()).collect();
    format!("key {}", ids.join(" and "))
}

/// As much of a text as fits beside others.
fn brief(text: &str) -> String {
    text.chars().take(128).collect()
}
