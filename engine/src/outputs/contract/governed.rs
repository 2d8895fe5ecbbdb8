//! An output with a contract: its instances, and what happens to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidegate_core::schema::TS;
use tidegate_core::{FieldType, Rows, Span};

use super::evaluate::{Evaluating, Evaluation, Partner, apart, note_sent};
use super::instance::{At, Claim, Field, Flight, Instance, Known, Override, Verdict, ns};
use super::interlock::{Interlocked, Judged};
use super::newest::{Newest, instance_name, key_of, value};
use super::{Made, Order, What, Writer};
use crate::config::{AfterOverride, Contract, ContractKind, OnStop, OutOfRange, Value, Values};
use crate::decision::{Clause, Decision, Input, Origin, Outcome, Step, Verdict as Said};
use crate::status::{OutputState, OutputStatus, OverrideState};
use crate::system::control::{ControlEvent, ControlKind};
use crate::system::writes::WriteReport;

/// Rows of inputs that are kept with a decision.
const MOST_INPUTS: usize = 8;
/// A refusal is told again when it has come so many times as often.
const REFUSED_AGAIN: u64 = 10;
/// Kinds of refusals that are counted at a time.
const MOST_REFUSALS: usize = 64;

/// An output with a contract.
pub(super) struct Governed {
    pub(super) name: Arc<str>,
    pub(super) contract: Arc<Contract>,
    /// the columns that it takes; `None`: any
    pub(super) columns: Option<BTreeMap<Arc<str>, FieldType>>,
    /// those that are written together or not at all
    pub(super) whole: Vec<Arc<str>>,
    /// of these, with what nothing runs
    pub(super) at_rest: Values,
    pub(super) connection: Arc<str>,
    /// outputs that may not be on together with it
    pub(super) partners: Vec<Arc<str>>,
    pub(super) interlocks: Vec<Interlocked>,
    pub(super) instances: BTreeMap<Arc<str>, Instance>,
    pub(super) line_is_up: bool,
    pub(super) writes: u64,
    pub(super) decisions: u64,
    /// what rules that write it read for that
    pub(super) writers: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// by rule and reason, the decision and how often it was made
    pub(super) refusals: BTreeMap<(Arc<str>, String), (u64, u64)>,
    /// where it is told what it does
    pub(super) status: Arc<OutputStatus>,
}

/// What came of a look at an instance.
pub(super) struct Looked {
    pub(super) woke_at: Option<i64>,
    pub(super) wakes_at: Option<i64>,
    pub(super) asks_off: Vec<Arc<str>>,
    /// the columns that tell it apart
    pub(super) key: Values,
}

/// What one row of a rule says.
type Claimed = (Values, BTreeMap<Arc<str>, Option<Value>>);

impl Governed {
    /// Whether interlocks or what is read back look at `stream`.
    pub(super) fn looks_at(&self, stream: &Arc<str>) -> bool {
        self.interlocks.iter().any(|interlock| interlock.looks_at(stream)) || self.is_shown_in(stream)
    }

    /// Whether what was written is looked for in `stream`.
    pub(super) fn is_shown_in(&self, stream: &Arc<str>) -> bool {
        self.from().any(|(_, (shows, _))| shows == stream)
    }

    pub(super) fn from(&self) -> impl Iterator<Item = (&Arc<str>, &(Arc<str>, Arc<str>))> {
        self.contract.read_back.iter().flat_map(|read_back| &read_back.from)
    }

    /// The key columns, if rows of `stream` are about instances.
    pub(super) fn key_in(&self, stream: &Arc<str>, rows: &RecordBatch) -> Option<Vec<Arc<str>>> {
        let key = &self.contract.key;
        let has = |column: &Arc<str>| rows.schema_ref().column_with_name(column).is_some();
        (!key.is_empty() && self.looks_at(stream) && key.iter().all(has)).then(|| key.clone())
    }

    /// What interlocks make of `rows` of `stream`; of one row, where they are about instances.
    pub(super) fn judge(&mut self, stream: &Arc<str>, rows: &Rows, newest: &Newest, at: At) -> Vec<Judged> {
        let concerned: Vec<Arc<str>> = match self.key_in(stream, &rows.batch) {
            None => self.instances.keys().cloned().collect(),
            Some(key) => {
                let name = key_of(&key, &rows.batch, 0).map(|of_row| instance_name(&key, &of_row));
                name.into_iter().filter(|name| self.instances.contains_key(name)).collect()
            }
        };
        let mut judged = Vec::new();
        for (lock, (interlock, terms)) in
            self.interlocks.iter_mut().zip(&self.contract.interlocks).enumerate()
        {
            if !interlock.looks_at(stream) {
                continue;
            }
            interlock.learn(stream, &rows.batch.schema());
            for name in &concerned {
                let known = self.instances.get(name).and_then(|instance| instance.locks.get(lock));
                judged.extend(interlock.judge(
                    stream,
                    rows,
                    newest,
                    name,
                    known,
                    lock,
                    terms.max_age.map(ns),
                    at,
                ));
            }
        }
        judged.sort_by(|a, b| (a.seq, a.lock, &a.instance).cmp(&(b.seq, b.lock, &b.instance)));
        judged
    }

    /// Takes note of what an interlock said. Returns whether that is something else than before.
    pub(super) fn note(&mut self, judged: Judged) -> Option<Arc<str>> {
        let lock = self.instances.get_mut(&judged.instance)?.locks.get_mut(judged.lock)?;
        (lock.verdict, lock.stale_at) = (Some(judged.verdict), judged.stale_at);
        // A row that says the same as the one before ends a silence.
        (judged.turned || lock.tripped.is_some()).then_some(judged.instance)
    }

    /// Instances that wait to see in `stream` what they were told.
    pub(super) fn waiting_for(&self, stream: &Arc<str>) -> Vec<Arc<str>> {
        if !self.is_shown_in(stream) {
            return Vec::new();
        }
        let waits = self.instances.iter().filter(|(_, instance)| instance.check.is_some());
        waits.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// A row that `rule` wrote. Returns the instance that it is about, if that has to be looked at.
    #[allow(clippy::too_many_arguments)] // they are one row
    pub(super) fn claim(
        &mut self,
        rule: &Arc<str>,
        writer: &Writer,
        rows: &RecordBatch,
        row: usize,
        ordinal: u32,
        newest: &Newest,
        at: At,
        made: &mut Made,
    ) -> Option<Arc<str>> {
        let origin = Origin::Rule {
            rule: Arc::clone(rule),
            version: Arc::clone(&writer.version),
            seq: at.seq,
            ordinal,
        };
        let inputs = || self.inputs(writer, newest);
        let (key, columns) = match self.admit(writer, rows, row, newest, at) {
            Ok(claimed) => claimed,
            Err(reason) => {
                let inputs = inputs();
                self.refuse(rule, origin, reason, inputs, at, made);
                return None;
            }
        };
        let name = instance_name(&self.contract.key, &key);
        if !self.instances.contains_key(&name) {
            if self.instances.len() >= self.contract.max_instances {
                let most = self.contract.max_instances;
                let reason =
                    format!("there are {most} of them already (`max_instances`), and `{name}` is one more");
                let inputs = inputs();
                self.refuse(rule, origin, reason, inputs, at, made);
                return None;
            }
            self.begin(&name, key.clone(), newest, at);
        }
        if self.contract.kind == ContractKind::Event {
            self.pulse(&name, rule, origin, columns, writer, newest, at, made);
            return None;
        }
        self.refusals.retain(|(refused, _), _| refused != rule);
        let expires = self.contract.expiry.map(|expiry| at.now.saturating_add(ns(expiry)));
        let claim = Claim {
            version: Arc::clone(&writer.version),
            rank: writer.rank,
            values: Values::new(),
            seq: at.seq,
            ordinal,
            since: at.now,
            renewed: 0,
            expires,
        };
        self.instances.get_mut(&name)?.claim(rule, &columns, claim);
        Some(name)
    }

    /// An instance that nobody has claimed before. Its interlocks have seen what there was.
    fn begin(&mut self, name: &Arc<str>, key: Values, newest: &Newest, at: At) {
        let started = self.instances.values().filter_map(|instance| instance.started).min();
        let mut instance = Instance::new(key, self.interlocks.len());
        instance.started = started.or(Some(at.now));
        for ((interlock, terms), lock) in
            self.interlocks.iter().zip(&self.contract.interlocks).zip(&mut instance.locks)
        {
            if let Some((verdict, stale_at)) = interlock.now(newest, name, terms.max_age.map(ns)) {
                (lock.verdict, lock.stale_at) = (Some(verdict), stale_at);
            }
        }
        self.instances.insert(Arc::clone(name), instance);
    }

    /// What a row says, if it may.
    fn admit(
        &self,
        writer: &Writer,
        rows: &RecordBatch,
        row: usize,
        newest: &Newest,
        at: At,
    ) -> Result<Claimed, String> {
        self.are_fresh(writer, newest, at)?;
        let key = key_of(&self.contract.key, rows, row)?;
        let mut columns = BTreeMap::new();
        for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let name: Arc<str> = field.name().as_str().into();
            if key.contains_key(&name) || *name == *TS {
                continue;
            }
            let found = value(array, row).map_err(|why| format!("`{name}` {why}"))?;
            let found = match (&self.columns, found) {
                (Some(known), Some(found)) => {
                    let kind = known.get(&name).ok_or_else(|| format!("the output has no `{name}`"))?;
                    Some(
                        found
                            .of_type(*kind)
                            .ok_or_else(|| format!("`{name}` takes {kind}, and {found} is none"))?,
                    )
                }
                (_, found) => found,
            };
            if let Some(number) = found.as_ref().and_then(Value::number)
                && let Some((least, greatest)) = self.contract.range.get(&name)
                && self.contract.out_of_range == OutOfRange::Refuse
                && !(*least..=*greatest).contains(&number)
            {
                return Err(format!("`{name}` is {number}, and has to be from {least} to {greatest}"));
            }
            columns.insert(name, found);
        }
        Ok((key, columns))
    }

    /// Whether what the rule reads is good and young enough.
    fn are_fresh(&self, writer: &Writer, newest: &Newest, at: At) -> Result<(), String> {
        for stream in writer.inputs.get(&self.name).into_iter().flatten() {
            let most = self.contract.max_input_age.of(stream);
            let Some(seen) = newest.get(stream, &Arc::from("")) else {
                match most {
                    Some(_) => return Err(format!("there was no row of `{stream}` since the start")),
                    None => continue,
                }
            };
            if let Some(quality) = seen.quality() {
                return Err(format!("the newest row of `{stream}` is {quality}"));
            }
            if most.is_some() && seen.was_kept() {
                return Err(format!(
                    "the newest row of `{stream}` had been kept for it, nobody knows for how long"
                ));
            }
            let age = seen.age(at.now);
            if let Some(most) = most.filter(|most| age > ns(*most)) {
                let age = Span(std::time::Duration::from_millis(age.unsigned_abs() / 1_000_000));
                return Err(format!("the newest row of `{stream}` is {age} old, and may be {}", Span(most)));
            }
        }
        Ok(())
    }

    fn inputs(&self, writer: &Writer, newest: &Newest) -> Vec<Input> {
        let streams = writer.inputs.get(&self.name).into_iter().flatten();
        let seen = streams.filter_map(|stream| Some(newest.get(stream, &Arc::from(""))?.input(stream)));
        seen.take(MOST_INPUTS).collect()
    }

    fn refuse(
        &mut self,
        rule: &Arc<str>,
        by: Origin,
        reason: String,
        inputs: Vec<Input>,
        at: At,
        made: &mut Made,
    ) {
        // The numbers in it differ from row to row, and it is the same all the same.
        let kind: String = reason.chars().take_while(|letter| !letter.is_ascii_digit()).collect();
        let count = self.refusals.get(&(Arc::clone(rule), kind.clone())).copied();
        let (number, times) = count.map_or_else(|| (self.number(), 1), |(number, times)| (number, times + 1));
        if self.refusals.len() >= MOST_REFUSALS && count.is_none() {
            self.refusals.pop_first();
        }
        self.refusals.insert((Arc::clone(rule), kind), (number, times));
        let is_told = std::iter::successors(Some(1_u64), |next| next.checked_mul(REFUSED_AGAIN))
            .any(|next| next == times);
        if is_told {
            let verdict = Said::Refused { reason };
            made.decisions.push(Decision {
                inputs,
                times,
                ..self.decision(number, &"".into(), verdict, by, at)
            });
        }
    }

    fn number(&mut self) -> u64 {
        self.decisions += 1;
        self.decisions
    }

    fn decision(&self, number: u64, instance: &Arc<str>, verdict: Said, by: Origin, at: At) -> Decision {
        Decision {
            output: Arc::clone(&self.name),
            instance: Arc::clone(instance),
            number,
            times: 1,
            seq: at.seq,
            at_ns: at.now,
            wall_ns: at.wall_ns,
            verdict,
            by,
            inputs: Vec::new(),
            claims: Vec::new(),
            overridden: None,
            steps: Vec::new(),
            values: Values::new(),
            before: Values::new(),
        }
    }

    /// A row that counts by itself: it is sent now, or never.
    #[allow(clippy::too_many_arguments)] // they are one row
    fn pulse(
        &mut self,
        name: &Arc<str>,
        rule: &Arc<str>,
        by: Origin,
        columns: BTreeMap<Arc<str>, Option<Value>>,
        writer: &Writer,
        newest: &Newest,
        at: At,
        made: &mut Made,
    ) {
        let values: Values =
            columns.into_iter().filter_map(|(column, value)| Some((column, value?))).collect();
        let inputs = self.inputs(writer, newest);
        let Some(instance) = self.instances.get_mut(name) else { return };
        let evaluating = Evaluating {
            contract: &self.contract,
            at,
            line_is_up: self.line_is_up,
            partners: &[],
            whole: &[],
            at_rest: &self.at_rest,
            wakes_at: None,
        };
        if let Some(reason) = evaluating.hinders_pulse(instance) {
            self.refuse(rule, by, reason, inputs, at, made);
            return;
        }
        self.writes += 1;
        let write = self.writes;
        instance.written_at = Some(at.now);
        let flight = Flight { values: values.clone(), rule: Some(Arc::clone(rule)), before: BTreeMap::new() };
        instance.fly(write, flight);
        let until = self.contract.expiry.map(|expiry| at.now.saturating_add(ns(expiry)));
        let what = What::Write { key: instance.key.clone(), values: values.clone() };
        self.order(name, write, by.clone(), until, what, at, made);
        let number = self.number();
        let decision = self.decision(number, name, Said::Sent { write }, by, at);
        made.decisions.push(Decision { inputs, values, ..decision });
    }

    #[allow(clippy::too_many_arguments)] // they are one order
    pub(super) fn order(
        &self,
        instance: &Arc<str>,
        write: u64,
        by: Origin,
        until: Option<i64>,
        what: What,
        at: At,
        made: &mut Made,
    ) {
        let (output, instance) = (Arc::clone(&self.name), Arc::clone(instance));
        let gives_way = self.contract.kind == ContractKind::State;
        made.orders.push(Order {
            output,
            instance,
            write,
            by,
            seq: at.seq,
            at: at.now,
            until,
            gives_way,
            what,
        });
    }

    /// Looks at an instance: sends what has to be sent.
    pub(super) fn look(
        &mut self,
        name: &Arc<str>,
        partners: &[Partner],
        newest: &Newest,
        at: At,
        made: &mut Made,
    ) -> Option<Looked> {
        let checks_at =
            self.check(name, newest, at, made).into_iter().chain(self.remind(name, at, made)).min();
        let instance = self.instances.get_mut(name)?;
        let woke_at = instance.wakes_at.take();
        let evaluating = Evaluating {
            contract: &self.contract,
            at,
            line_is_up: self.line_is_up,
            partners,
            whole: &self.whole,
            at_rest: &self.at_rest,
            wakes_at: checks_at,
        };
        let evaluation = match self.contract.kind {
            ContractKind::State => evaluating.run(instance),
            ContractKind::Event => Evaluation::default(),
        };
        instance.wakes_at = evaluation.wakes_at;
        let (wakes_at, asks_off) = (evaluation.wakes_at, evaluation.asks_off.clone());
        if evaluation.writes.is_empty() {
            self.hold(name, evaluation, newest, at, made);
        } else {
            self.send(name, &evaluation, newest, at, made);
        }
        self.tell(name);
        let key = self.instances.get(name)?.key.clone();
        Some(Looked { woke_at, wakes_at, asks_off, key })
    }

    /// Tells whoever asks what an instance does.
    fn tell(&self, name: &Arc<str>) {
        let Some(instance) = self.instances.get(name) else { return };
        let values = instance.sent();
        let (by, since_ns) = instance.by.clone().map_or((None, 0), |(by, since)| (Some(by), since));
        let strays = instance.fields.iter();
        let strays: Values =
            strays.filter_map(|(column, field)| Some((Arc::clone(column), field.strays.clone()?))).collect();
        let is_left = instance.overridden.is_none() && self.contract.after_override == AfterOverride::Wait;
        let (sentence, brief) = match &by {
            None => ("nothing was sent yet".to_owned(), String::new()),
            Some(_) if !strays.is_empty() => {
                let has = format!("somebody else has written {}", listed(&strays));
                (format!("{}, but {has}", listed(&values)), has)
            }
            Some(Origin::Override { who, .. }) if is_left => {
                let left = format!("as the override by {who} left it, until a rule claims something");
                (format!("{}: {left}", listed(&values)), format!("{}  left by {who}", brief(&values)))
            }
            Some(by) => (format!("{}: {by}", listed(&values)), format!("{}  {}", brief(&values), by.brief())),
        };
        let locks = self.contract.interlocks.iter().zip(&instance.locks);
        let tripped = locks.filter_map(|(terms, lock)| {
            let (_, because) = lock.tripped.as_ref()?;
            Some(format!("{}: {because}", terms.name))
        });
        let is_confirmed =
            |field: &Field| field.sent.is_none() || matches!(field.known, Known::Confirmed { .. });
        let overridden = instance.overridden.as_ref().map(|overridden| OverrideState {
            who: Arc::clone(&overridden.who),
            reason: Arc::clone(&overridden.reason),
            values: overridden.values.clone(),
            until_ns: overridden.until,
        });
        let state = OutputState {
            confirmed: !values.is_empty() && strays.is_empty() && instance.fields.values().all(is_confirmed),
            values,
            by,
            since_ns,
            sentence,
            brief,
            interlocks: tripped.collect(),
            overridden,
        };
        self.status.states.note(name, state);
    }

    fn send(&mut self, name: &Arc<str>, evaluation: &Evaluation, newest: &Newest, at: At, made: &mut Made) {
        let failsafe = self.contract.failsafe.values().cloned();
        for (values, by) in &evaluation.writes {
            let of_write = |step: &&Step| values.contains_key(&step.column);
            let steps: Vec<Step> = evaluation.steps.iter().filter(of_write).cloned().collect();
            let inputs = self.shown(by, newest, name);
            let Some(instance) = self.instances.get_mut(name) else { return };
            self.writes += 1;
            let write = self.writes;
            let before = instance.sent();
            let rule = if let Origin::Rule { rule, .. } = by { Some(Arc::clone(rule)) } else { None };
            let until = rule.as_ref().and_then(|rule| instance.claims.get(rule)?.expires);
            let as_before = note_sent(instance, failsafe.as_ref(), values, &steps, at.now);
            instance.fly(write, Flight { values: values.clone(), rule, before: as_before });
            let is_same = values.iter().all(|(column, value)| before.get(column) == Some(value));
            if !is_same || instance.by.is_none() {
                instance.by = Some((by.clone(), at.now));
            }
            instance.held = None;
            let what = What::Write { key: instance.key.clone(), values: values.clone() };
            let (claims, overridden) = (instance.claimed(), instance.overridden());
            self.order(name, write, by.clone(), until, what, at, made);
            let number = self.number();
            let decision = self.decision(number, name, Said::Sent { write }, by.clone(), at);
            let values = values.clone();
            made.decisions.push(Decision { inputs, claims, overridden, steps, values, before, ..decision });
        }
    }

    /// Says what is held back, when that is something else than was said before.
    fn hold(&mut self, name: &Arc<str>, evaluation: Evaluation, newest: &Newest, at: At, made: &mut Made) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        if !evaluation.is_held || evaluation.steps.is_empty() {
            instance.held = None;
            return;
        }
        let what = |step: &Step| format!("{} {:?}", step.column, step.clause);
        let held = evaluation.steps.iter().map(what).collect::<Vec<_>>().join(", ");
        // That a ramp waits for its next step is no news.
        let is_news = evaluation.steps.iter().any(|step| step.clause != Clause::Slew);
        if instance.held.as_ref() == Some(&held) || !is_news {
            return;
        }
        instance.held = Some(held);
        let (claims, overridden, before) = (instance.claimed(), instance.overridden(), instance.sent());
        let because = Arc::from("it is as it was");
        let by = evaluation.origin.unwrap_or(Origin::Failsafe { because });
        let inputs = self.shown(&by, newest, name);
        let number = self.number();
        let decision = self.decision(number, name, Said::Held { until_ns: evaluation.wakes_at }, by, at);
        let steps = evaluation.steps;
        made.decisions.push(Decision { inputs, claims, overridden, steps, before, ..decision });
    }

    /// The rows that have led to what is done by `by`.
    fn shown(&self, by: &Origin, newest: &Newest, instance: &Arc<str>) -> Vec<Input> {
        let streams: Vec<Arc<str>> = match by {
            Origin::Interlock { name, .. } => {
                let own = self.interlocks.iter().zip(&self.contract.interlocks);
                own.filter(|(_, terms)| terms.name == *name).flat_map(|(lock, _)| lock.streams()).collect()
            }
            Origin::Rule { rule, .. } => self.writers.get(rule).cloned().unwrap_or_default(),
            _ => Vec::new(),
        };
        let seen = streams.iter().filter_map(|stream| Some(newest.get(stream, instance)?.input(stream)));
        seen.take(MOST_INPUTS).collect()
    }

    /// What became of a write. Returns whether the instance has to be looked at.
    pub(super) fn answered(&mut self, report: WriteReport, at: At, made: &mut Made) -> bool {
        let WriteReport { instance: name, write, outcome, reason, values, .. } = report;
        let contract = Arc::clone(&self.contract);
        let Some(instance) = self.instances.get_mut(&name) else { return false };
        let is_asked = instance.check.as_ref().is_some_and(|check| check.asked && check.write == write);
        let is_alarm = matches!(outcome, Outcome::Mismatch | Outcome::External);
        if is_asked && !instance.flights.contains_key(&write) && !is_alarm {
            self.read(&name, outcome, &values, at, made);
            return true;
        }
        let flight = instance.answered(&contract, write, outcome, at.now);
        if flight.is_none() && !is_alarm {
            return false;
        }
        let by = match flight.and_then(|flight| flight.rule) {
            Some(rule) => instance.origin(&rule),
            None => None,
        };
        let by = by.unwrap_or(Origin::Failsafe { because: "the device has answered".into() });
        let number = self.number();
        let decision = self.decision(number, &name, Said::Answered { write, outcome, reason }, by, at);
        made.decisions.push(Decision { values, ..decision });
        true
    }

    /// The box has started. Returns what has to be looked at.
    pub(super) fn start(&mut self, now: i64, is_known: bool) -> Vec<Arc<str>> {
        self.line_is_up = true;
        self.instances.values_mut().for_each(|instance| instance.start(now, is_known));
        self.instances.keys().cloned().collect()
    }

    /// Numbers go on behind the `newest` decision that there is, whatever was kept: none takes the place of
    /// another. Each write has a decision, so that numbers of writes are not used again either.
    pub(super) fn count_on(&mut self, newest: Option<&Value>) {
        if let Some(Value::Int(newest)) = newest {
            let newest = u64::try_from(*newest).unwrap_or_default();
            (self.decisions, self.writes) = (self.decisions.max(newest), self.writes.max(newest));
        }
    }

    /// What a person says. Returns whether the instance has to be looked at.
    pub(super) fn control(&mut self, event: ControlEvent, at: At) -> bool {
        let ControlEvent { event, instance: name, values, lease, reason, who, .. } = event;
        let lease = ns(self.contract.max_lease.min(lease.unwrap_or_default()));
        let (who, reason) = (who.unwrap_or_default(), reason.unwrap_or_default());
        let typed = |(column, value): (Arc<str>, Value)| {
            let value = match &self.columns {
                Some(columns) => value.of_type(*columns.get(&column)?)?,
                None => value,
            };
            Some((column, value))
        };
        let values: Values = values.into_iter().filter_map(typed).collect();
        let Some(instance) = self.instances.get_mut(&name) else { return false };
        match event {
            ControlKind::Override if !values.is_empty() => {
                let until = at.now.saturating_add(lease);
                for column in values.keys() {
                    instance.fields.entry(Arc::clone(column)).or_default().claimed = true;
                }
                let (told, ends) = (None, false);
                let overridden = Override { who, reason, since: at.now, until, values, told, ends };
                instance.overridden = Some(overridden);
                (instance.idle, instance.was_claimed, instance.gave_up) = (None, true, false);
            }
            ControlKind::Release => {
                instance.end_override(&self.contract, at.now, &format!("{who} has released it"));
            }
            ControlKind::Reset => {
                for lock in instance.locks.iter_mut().filter(|lock| lock.verdict == Some(Verdict::Free)) {
                    (lock.tripped, lock.clear_since) = (None, None);
                }
                instance.gave_up = false;
                instance.troubles.clear();
            }
            _ => return false,
        }
        true
    }

    /// The line is up or down. Returns what has to be looked at.
    pub(super) fn line(&mut self, is_up: bool) -> Vec<Arc<str>> {
        let was_up = std::mem::replace(&mut self.line_is_up, is_up);
        if was_up && !is_up {
            self.instances.values_mut().for_each(Instance::lose_line);
        }
        if was_up == is_up { Vec::new() } else { self.instances.keys().cloned().collect() }
    }

    /// The other one of a pair has an instance that nobody has claimed here.
    pub(super) fn meet(&mut self, name: &Arc<str>, key: &Values, newest: &Newest, at: At) {
        let is_new = !self.instances.contains_key(name) && self.instances.len() < self.contract.max_instances;
        if is_new
            && key.len() == self.contract.key.len()
            && self.contract.key.iter().all(|column| key.contains_key(column))
        {
            self.begin(name, key.clone(), newest, at);
        }
    }

    /// The other one of a pair needs this one off, or does not any more. Returns whether it has to be looked
    /// at.
    pub(super) fn ask_off(&mut self, name: &Arc<str>, asks: &Arc<str>, is_asked: bool) -> bool {
        let Some(instance) = self.instances.get_mut(name) else { return false };
        let before = instance.asked_off.clone();
        if is_asked {
            instance.asked_off = Some(Arc::clone(asks));
        } else if before.as_ref() == Some(asks) {
            instance.asked_off = None;
        }
        instance.asked_off != before
    }

    /// The box stops in good order.
    pub(super) fn stop(&mut self, at: At, made: &mut Made) {
        let Some(failsafe) = self.contract.failsafe.values().cloned() else { return };
        if self.contract.on_stop != OnStop::Failsafe || self.contract.kind == ContractKind::Event {
            return;
        }
        let names: Vec<Arc<str>> = self.instances.keys().cloned().collect();
        for name in names {
            let Some(instance) = self.instances.get(&name) else { continue };
            let sent = instance.sent();
            let is_there = failsafe.iter().all(|(column, value)| sent.get(column) == Some(value));
            // What was never written is not ours.
            if sent.is_empty() || is_there && instance.flights.is_empty() {
                continue;
            }
            let by = Origin::Failsafe { because: "the box stops".into() };
            let writes = apart(&failsafe, instance, None, &self.whole);
            let writes = writes.into_iter().map(|values| (values, by.clone())).collect();
            let evaluation = Evaluation { writes, ..Evaluation::default() };
            self.send(&name, &evaluation, &Newest::default(), at, made);
        }
    }
}

pub(super) fn listed(values: &Values) -> String {
    values.iter().map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(", ")
}

fn brief(values: &Values) -> String {
    values.iter().map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(" ")
}
