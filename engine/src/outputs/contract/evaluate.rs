//! From what is wanted to what is sent: the steps of a contract, in their order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::instance::{At, Claim, Field, Instance, Known, Lock, TroubleKind, Verdict, deciding, is_on, ns};
use crate::config::{Contract, Startup, Tie, Value, Values};
use crate::decision::{Clause, Origin, Step};

/// Another output that may not be on together with this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partner {
    pub(super) output: Arc<str>,
    /// since when the device is known to have it off
    pub(super) off_since: Option<i64>,
}

/// What an instance shall do now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Evaluation {
    /// What is sent, in this order, and whose will it is; empty: nothing.
    pub(super) writes: Vec<(Values, Origin)>,
    /// whose will it is what is held back
    pub(super) origin: Option<Origin>,
    pub(super) steps: Vec<Step>,
    /// something that is wanted is not there yet
    pub(super) is_held: bool,
    /// when it has to be looked at again
    pub(super) wakes_at: Option<i64>,
    /// partners that must be off before it can go on
    pub(super) asks_off: Vec<Arc<str>>,
}

/// What a column shall be, on its way through the steps.
struct Candidate {
    column: Arc<str>,
    demand: Value,
    value: Value,
    origin: Origin,
    /// nothing but its own clause holds it back
    is_trip: bool,
    ramps: bool,
    /// small changes count
    counts: bool,
    /// it is not sent, though nobody knows whether the device has it
    waits: bool,
    steps: Vec<Step>,
}

impl Candidate {
    fn step(&mut self, clause: Clause, after: Option<Value>, because: String) {
        let (column, before) = (Arc::clone(&self.column), self.value.clone());
        if let Some(after) = &after {
            self.value = after.clone();
        }
        self.steps.push(Step { column, clause, before, after, because });
    }
}

/// One evaluation of an instance.
pub(super) struct Evaluating<'a> {
    pub(super) contract: &'a Contract,
    pub(super) at: At,
    pub(super) line_is_up: bool,
    pub(super) partners: &'a [Partner],
    /// columns that are written together or not at all
    pub(super) whole: &'a [Arc<str>],
    /// with what nothing runs, as far as the output says which columns it takes
    pub(super) at_rest: &'a Values,
    pub(super) wakes_at: Option<i64>,
}

impl Evaluating<'_> {
    /// It has to be looked at again at `at`, if that is in the future.
    fn wake(&mut self, at: i64) {
        if at > self.at.now {
            self.wakes_at = Some(self.wakes_at.map_or(at, |known| known.min(at)));
        }
    }

    /// What `instance` shall do now. It is not changed but for what time has brought to its end.
    pub(super) fn run(mut self, instance: &mut Instance) -> Evaluation {
        let now = self.at.now;
        instance.started.get_or_insert(now);
        instance.expire(self.contract, now);
        for expires in instance.claims.values().filter_map(|claim| claim.expires) {
            self.wake(expires);
        }
        if let Some(overridden) = &instance.overridden {
            self.wake(overridden.until);
        }
        self.turn_locks(instance);
        let mut candidates = self.demands(instance);
        for candidate in &mut candidates {
            self.range(candidate);
        }
        self.trips(instance, &mut candidates);
        let mut evaluation = Evaluation::default();
        self.pairs(instance, &mut candidates, &mut evaluation);
        for candidate in &mut candidates {
            let field = instance.fields.get(&candidate.column).cloned().unwrap_or_default();
            self.minimum_times(&field, candidate);
            self.slew(instance, &field, candidate);
            self.deadband(&field, candidate);
        }
        self.collect(instance, candidates, &mut evaluation);
        evaluation.wakes_at = self.wakes_at;
        evaluation
    }

    /// What keeps a row that counts by itself from being sent.
    pub(super) fn hinders_pulse(mut self, instance: &mut Instance) -> Option<String> {
        self.turn_locks(instance);
        let locks = self.contract.interlocks.iter().zip(&instance.locks);
        let tripped = locks.clone().find_map(|(terms, lock)| {
            let (_, because) = lock.tripped.as_ref()?;
            Some(format!("`{}` is not fulfilled: {because}", terms.name))
        });
        let unheard = || {
            let unheard = locks.clone().find(|(_, lock)| lock.verdict.is_none());
            unheard.map(|(terms, _)| format!("nothing is known yet of `{}`", terms.name))
        };
        let line = || (!self.line_is_up).then(|| "the line is down".to_owned());
        let early = || {
            let free_at = instance.written_at?.saturating_add(ns(self.contract.rate?));
            (free_at > self.at.now).then(|| "it comes too soon after the one before (`rate`)".to_owned())
        };
        tripped.or_else(unheard).or_else(line).or_else(early)
    }

    /// Interlocks trip, and are free again.
    fn turn_locks(&mut self, instance: &mut Instance) {
        let (now, started) = (self.at.now, instance.started.unwrap_or(self.at.now));
        let grace_ends = started.saturating_add(ns(self.contract.startup_grace));
        for (terms, lock) in self.contract.interlocks.iter().zip(&mut instance.locks) {
            let because: Option<Arc<str>> = match (&lock.verdict, lock.stale_at) {
                (None, _) if now < grace_ends => {
                    self.wake(grace_ends);
                    continue;
                }
                (None, _) => Some("there was no row since the start".into()),
                (Some(_), Some(stale_at)) if stale_at <= now => {
                    Some("the newest row of a stream in it is too old".into())
                }
                (Some(Verdict::Not(because)), _) => Some(Arc::clone(because)),
                (Some(Verdict::Free), stale_at) => {
                    if let Some(stale_at) = stale_at {
                        self.wake(stale_at);
                    }
                    None
                }
            };
            match because {
                Some(because) => {
                    lock.clear_since = None;
                    let since = lock.tripped.as_ref().map_or(now, |(since, _)| *since);
                    lock.tripped = Some((since, because));
                }
                None if lock.tripped.is_some() && !terms.latch => {
                    let clear_since = *lock.clear_since.get_or_insert(now);
                    let clears_at = clear_since.saturating_add(ns(terms.clear_after));
                    self.wake(clears_at);
                    if clears_at <= now {
                        (lock.tripped, lock.clear_since) = (None, None);
                    }
                }
                None => {}
            }
        }
    }

    /// What people and rules want, column by column, and what nobody wants any more.
    fn demands(&mut self, instance: &Instance) -> Vec<Candidate> {
        let mut columns: BTreeSet<&Arc<str>> =
            instance.claims.values().flat_map(|claim| claim.values.keys()).collect();
        columns.extend(instance.overridden.iter().flat_map(|overridden| overridden.values.keys()));
        let rest = self.rest(instance);
        columns.extend(rest.iter().flat_map(|(values, _)| values.keys()));
        let failsafe = self.contract.failsafe.values();
        let left = |column: &&Arc<str>| instance.fields.get(*column).is_some_and(|field| field.claimed);
        columns.extend(failsafe.into_iter().flat_map(|values| values.keys()).filter(left));
        let mut candidates = Vec::new();
        for column in columns {
            let (value, origin, is_rest) = if let Some((value, overridden)) = instance
                .overridden
                .as_ref()
                .and_then(|overridden| Some((overridden.values.get(column)?, overridden)))
            {
                let (who, reason) = (Arc::clone(&overridden.who), Arc::clone(&overridden.reason));
                (value.clone(), Origin::Override { who, reason }, false)
            } else if let Some((rule, value)) = self.winner(instance, column) {
                let Some(origin) = instance.origin(rule) else { continue };
                (value.clone(), origin, false)
            } else if let Some((values, origin)) = &rest {
                let Some(value) = values.get(column) else { continue };
                (value.clone(), origin.clone(), true)
            } else if instance.idle.is_none()
                && let Some(value) = failsafe.and_then(|values| values.get(column))
            {
                let because = format!("no rule claims `{column}` any more").into();
                (value.clone(), Origin::Failsafe { because }, true)
            } else {
                continue;
            };
            candidates.push(Candidate {
                column: Arc::clone(column),
                demand: value.clone(),
                value,
                origin,
                is_trip: false,
                ramps: true,
                counts: is_rest,
                waits: false,
                steps: Vec::new(),
            });
        }
        candidates
    }

    /// What holds while nobody claims anything, if something does by now.
    fn rest(&mut self, instance: &Instance) -> Option<(Values, Origin)> {
        let failsafe = self.contract.failsafe.values();
        if let Some(partner) = &instance.asked_off {
            let off = off(failsafe, instance, self.at_rest);
            return Some((off, Origin::Pair { output: Arc::clone(partner) }));
        }
        let failsafe = failsafe?;
        if instance.gave_up {
            let because = "the device does not do what it is told".into();
            return Some((failsafe.clone(), Origin::Failsafe { because }));
        }
        let (since, because) = instance.idle.as_ref()?;
        if !instance.was_claimed {
            let started = instance.started?;
            let grace_ends = started.saturating_add(ns(self.contract.startup_grace));
            if self.contract.startup == Startup::Wait {
                return None;
            }
            self.wake(grace_ends);
            if grace_ends > self.at.now {
                return None;
            }
        } else {
            let begins = since.saturating_add(ns(self.contract.failsafe_after));
            if begins == i64::MAX {
                return None;
            }
            self.wake(begins);
            if begins > self.at.now {
                return None;
            }
        }
        Some((failsafe.clone(), Origin::Failsafe { because: Arc::clone(because) }))
    }

    /// The rule whose claim of `column` counts.
    fn winner<'i>(&self, instance: &'i Instance, column: &Arc<str>) -> Option<(&'i Arc<str>, &'i Value)> {
        if instance.gave_up {
            return None;
        }
        let claims =
            instance.claims.iter().filter_map(|(rule, claim)| Some((rule, claim, claim.values.get(column)?)));
        let strongest = claims.clone().map(|(_, claim, _)| claim.rank).min()?;
        let of_rank = claims.filter(|(_, claim, _)| claim.rank == strongest);
        let won = of_rank.reduce(|best, next| if self.wins(&next, &best) { next } else { best });
        won.map(|(rule, _, value)| (rule, value))
    }

    /// Whether `next` wins over `best`, which has the same rank.
    fn wins(&self, next: &(&Arc<str>, &Claim, &Value), best: &(&Arc<str>, &Claim, &Value)) -> bool {
        let as_number = |value: &Value| match value {
            Value::Bool(on) => Some(f64::from(u8::from(*on))),
            other => other.number(),
        };
        let newer = next.1.renewed > best.1.renewed;
        let (Some(a), Some(b)) = (as_number(next.2), as_number(best.2)) else { return newer };
        let less = match self.contract.tie {
            None | Some(Tie::Newest) => return newer,
            Some(Tie::Min) => a.partial_cmp(&b),
            Some(Tie::Max) => b.partial_cmp(&a),
            Some(Tie::Off) => a.abs().partial_cmp(&b.abs()),
        };
        match less {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => newer,
            _ => false,
        }
    }

    fn range(&self, candidate: &mut Candidate) {
        let Some((least, greatest)) = self.contract.range.get(&candidate.column) else { return };
        let Some(number) = candidate.value.number() else { return };
        let clamped = number.clamp(*least, *greatest);
        #[allow(clippy::float_cmp)] // it is the same number or another one
        if clamped != number {
            let because = format!("{number} is not from {least} to {greatest}");
            let after = candidate.value.with_number(clamped);
            candidate.step(Clause::Range, Some(after), because);
        }
    }

    /// What interlocks have in the place of what is wanted.
    fn trips(&self, instance: &Instance, candidates: &mut Vec<Candidate>) {
        let wanted = !candidates.is_empty();
        for (terms, lock) in self.contract.interlocks.iter().zip(&instance.locks) {
            let Some((_, because)) = &lock.tripped else { continue };
            if lock.verdict.is_none() && !wanted {
                // Nothing was heard, and nothing is wanted: nobody has to be stopped.
                continue;
            }
            for (column, trip) in &terms.trip {
                let origin =
                    Origin::Interlock { name: Arc::clone(&terms.name), because: Arc::clone(because) };
                let known = candidates.iter_mut().find(|candidate| candidate.column == *column);
                match known {
                    // The first one that has tripped counts.
                    Some(candidate) if candidate.is_trip => {}
                    Some(candidate) => {
                        let because = format!("`{}` is not fulfilled: {because}", terms.name);
                        candidate.step(Clause::Interlock, Some(trip.clone()), because);
                        (candidate.origin, candidate.is_trip, candidate.ramps) =
                            (origin, true, terms.trip_ramp);
                    }
                    None => candidates.push(Candidate {
                        column: Arc::clone(column),
                        demand: trip.clone(),
                        value: trip.clone(),
                        origin,
                        is_trip: true,
                        ramps: terms.trip_ramp,
                        counts: true,
                        waits: false,
                        steps: Vec::new(),
                    }),
                }
            }
        }
    }

    /// Of a pair, one goes on only when the other one is known to be off.
    fn pairs(&mut self, instance: &Instance, candidates: &mut [Candidate], evaluation: &mut Evaluation) {
        if self.partners.is_empty() {
            return;
        }
        let mut wanted = instance.sent();
        let before = wanted.clone();
        for candidate in candidates.iter() {
            wanted.insert(Arc::clone(&candidate.column), candidate.value.clone());
        }
        // What is on, and is known to be, has passed here already.
        let is_known = |column: &Arc<str>| {
            instance.fields.get(column).is_some_and(|field| field.known != Known::Unknown)
        };
        if !is_on(&wanted) || is_on(&before) && deciding(&before).into_iter().all(is_known) {
            return;
        }
        let mut blocked = None;
        for partner in self.partners {
            match partner.off_since {
                None => {
                    blocked = Some(format!("`{}` is not known to be off", partner.output));
                    evaluation.asks_off.push(Arc::clone(&partner.output));
                }
                Some(since) => {
                    let free_at = since.saturating_add(ns(self.contract.dead_time));
                    self.wake(free_at);
                    if free_at > self.at.now {
                        blocked = Some(format!("`{}` has not been off for long enough", partner.output));
                    }
                }
            }
        }
        let Some(blocked) = blocked else { return };
        let decides: BTreeSet<Arc<str>> = deciding(&wanted).into_iter().cloned().collect();
        for candidate in candidates.iter_mut().filter(|candidate| decides.contains(&candidate.column)) {
            if candidate.value.is_on() {
                let off = off_of(&candidate.value);
                candidate.step(Clause::NeverWith, Some(off), blocked.clone());
                candidate.ramps = false;
            }
        }
    }

    fn minimum_times(&mut self, field: &Field, candidate: &mut Candidate) {
        let (Some(Value::Bool(is)), Value::Bool(wanted)) = (&field.sent, &candidate.value) else { return };
        let (is, wanted, Some(turned_at)) = (*is, *wanted, field.turned_at) else { return };
        if is == wanted || candidate.is_trip {
            return;
        }
        let (least, clause) =
            if is { (self.contract.min_on, Clause::MinOn) } else { (self.contract.min_off, Clause::MinOff) };
        let free_at = turned_at.saturating_add(ns(least));
        if free_at > self.at.now {
            self.wake(free_at);
            let state = if is { "on" } else { "off" };
            let because = format!("it has to be {state} for {} at least", tidegate_core::Span(least));
            candidate.step(clause, Some(Value::Bool(is)), because);
            // Nothing is turned on that nobody wants: it may have gone off by itself.
            candidate.waits = is && field.known == Known::Unknown;
        }
    }

    fn slew(&mut self, instance: &Instance, field: &Field, candidate: &mut Candidate) {
        let Some(a_second) = self.contract.slew.get(&candidate.column) else { return };
        let Some(target) = candidate.value.number().filter(|_| candidate.ramps) else { return };
        let failsafe = || self.contract.failsafe.values()?.get(&candidate.column)?.number();
        let is_known = field.known != Known::Unknown || instance.written_at.is_some();
        let known = field.sent.as_ref().and_then(Value::number).filter(|_| is_known);
        let Some(from) = known.or_else(failsafe) else { return };
        let every = self.contract.slew_every;
        let most = a_second * every.as_secs_f64();
        let difference = target - from;
        if difference == 0.0 {
            return;
        }
        let next_step = field.stepped_at.map_or(self.at.now, |at| at.saturating_add(ns(every)));
        let because = format!("it goes from {from} to {target} by {a_second} a second at most");
        // Where it may be: what was sent before, too, as long as nobody has answered.
        let (least, greatest) = field.perhaps.map_or((from, from), |(a, b)| (a.min(from), b.max(from)));
        let (lowest, highest) = (greatest - most, least + most);
        let is_early = next_step > self.at.now;
        if !is_early && (lowest..=highest).contains(&target) {
            // The last step of a ramp counts, however small it is.
            candidate.counts |= field.ramps;
            return;
        }
        let mut value = candidate.value.with_number(target.min(highest).max(lowest));
        if value.number() == Some(from) && field.perhaps.is_none() {
            // A whole number moves by one at least, or it would stay for ever.
            value = candidate.value.with_number(from + difference.signum());
        }
        let moves = value.number().is_some_and(|value| (value - from) * difference > 0.0);
        if is_early || lowest > highest || !moves {
            self.wake(if is_early { next_step } else { self.at.now.saturating_add(ns(every)) });
            let stays = candidate.value.with_number(from);
            candidate.step(Clause::Slew, Some(stays), because);
        } else {
            self.wake(self.at.now.saturating_add(ns(every)));
            candidate.step(Clause::Slew, Some(value), because);
            candidate.counts = true;
        }
    }

    fn deadband(&self, field: &Field, candidate: &mut Candidate) {
        let Some(deadband) = self.contract.deadband.get(&candidate.column) else { return };
        let sent = field.sent.as_ref().and_then(Value::number).filter(|_| field.known != Known::Unknown);
        let (Some(sent), Some(number)) = (sent, candidate.value.number()) else { return };
        let range = self.contract.range.get(&candidate.column);
        #[allow(clippy::float_cmp)] // the ends of the range are what was clamped to
        let is_end = range.is_some_and(|(least, greatest)| number == *least || number == *greatest);
        let difference = (number - sent).abs();
        if candidate.is_trip || candidate.counts || is_end || difference == 0.0 || difference > *deadband {
            return;
        }
        let because = format!("{number} is no further than {deadband} from {sent}, which was sent last");
        let stays = candidate.value.with_number(sent);
        candidate.step(Clause::Deadband, Some(stays), because);
    }

    /// What is sent of it all, unless there is no line, it is too early, or it was tried often enough.
    fn collect(&mut self, instance: &Instance, candidates: Vec<Candidate>, evaluation: &mut Evaluation) {
        let now = self.at.now;
        let refresh_at = self.refresh_at(instance);
        let refreshes = refresh_at.is_some_and(|at| at <= now);
        if let Some(at) = refresh_at {
            self.wake(at);
        }
        let mut sends = Vec::new();
        for candidate in candidates {
            let field = instance.fields.get(&candidate.column);
            // What somebody else has written is left so, unless the output has to be stopped.
            let is_asked_off = instance.asked_off.is_some() && !candidate.value.is_on();
            let has_to_be = candidate.is_trip || is_asked_off;
            let is_there = field.is_some_and(|field| {
                field.sent.as_ref() == Some(&candidate.value)
                    && field.known != Known::Unknown
                    && !(has_to_be && field.strays.is_some())
            });
            evaluation.is_held |= candidate.value != candidate.demand && !candidate.is_trip;
            let is_new = !candidate.waits && (!is_there || refreshes);
            if is_new || !candidate.steps.is_empty() {
                if is_new || evaluation.origin.is_none() {
                    evaluation.origin = Some(candidate.origin.clone());
                }
                evaluation.steps.extend(candidate.steps.iter().cloned());
            }
            if is_new {
                sends.push(candidate);
            }
        }
        if sends.is_empty() {
            return;
        }
        let is_trip = sends.iter().any(|candidate| candidate.is_trip);
        let value = |candidate: &Candidate| (Arc::clone(&candidate.column), candidate.value.clone());
        let all: Values = sends.iter().map(value).collect();
        for values in apart(&all, instance, self.contract.failsafe.values(), self.whole) {
            let of_write = |candidate: &&Candidate| values.contains_key(&candidate.column);
            if let Some((clause, because)) = self.hindrance(instance, &values, is_trip) {
                for candidate in sends.iter().filter(of_write) {
                    let (column, before) = (Arc::clone(&candidate.column), candidate.value.clone());
                    let because = because.clone();
                    evaluation.steps.push(Step { column, clause, before, after: None, because });
                }
                evaluation.is_held = true;
            } else if let Some(first) = sends.iter().find(of_write) {
                let origin = first.origin.clone();
                evaluation.writes.push((values, origin));
            }
        }
    }

    fn refresh_at(&self, instance: &Instance) -> Option<i64> {
        let refresh = self.contract.refresh?;
        let is_wanted = !instance.claims.is_empty() || instance.overridden.is_some();
        Some(instance.written_at?.saturating_add(ns(refresh))).filter(|_| is_wanted)
    }

    /// What keeps `values` from being sent now.
    fn hindrance(&mut self, instance: &Instance, values: &Values, is_trip: bool) -> Option<(Clause, String)> {
        let now = self.at.now;
        if !self.line_is_up {
            return Some((Clause::Line, "the line is down: nothing waits for it".into()));
        }
        let started = instance.started.unwrap_or(now);
        let grace_ends = started.saturating_add(ns(self.contract.startup_grace));
        let unheard = |lock: &Lock| lock.verdict.is_none() && lock.tripped.is_none();
        if !is_trip
            && now < grace_ends
            && let Some((terms, _)) =
                self.contract.interlocks.iter().zip(&instance.locks).find(|(_, lock)| unheard(lock))
        {
            self.wake(grace_ends);
            let because = format!("the box has just started, and nothing is known yet of `{}`", terms.name);
            return Some((Clause::Start, because));
        }
        if let Some(trouble) = instance.troubles.iter().find(|trouble| trouble.values == *values) {
            let retries = match (trouble.kind, &self.contract.read_back) {
                (TroubleKind::Refused, _) => {
                    return Some((Clause::Retries, "the device has refused it".into()));
                }
                (TroubleKind::Mismatch, Some(read_back)) => read_back.retries,
                _ => self.contract.retries,
            };
            if trouble.attempts > retries {
                let because = format!("it was tried {} times", trouble.attempts);
                return Some((Clause::Retries, because));
            }
            if trouble.next > now {
                self.wake(trouble.next);
                return Some((Clause::Retries, "it has just failed, and is tried again soon".into()));
            }
        }
        if let (Some(rate), Some(written_at), false) = (self.contract.rate, instance.written_at, is_trip) {
            let free_at = written_at.saturating_add(ns(rate));
            if free_at > now {
                self.wake(free_at);
                return Some((
                    Clause::Rate,
                    format!("it is written every {} at most", tidegate_core::Span(rate)),
                ));
            }
        }
        None
    }
}

/// The value with which nothing runs.
pub(super) fn off_of(value: &Value) -> Value {
    match value {
        Value::Bool(_) => Value::Bool(false),
        other => other.with_number(0.0),
    }
}

/// What turns an instance off: its failsafe values if they do, otherwise what it was told without what is on;
/// where it was told nothing yet, what all such outputs are `at_rest`.
fn off(failsafe: Option<&Values>, instance: &Instance, at_rest: &Values) -> Values {
    if let Some(values) = failsafe.filter(|values| !is_on(values) && !deciding(values).is_empty()) {
        return values.clone();
    }
    let sent = Some(instance.sent()).filter(|sent| !sent.is_empty()).unwrap_or_else(|| at_rest.clone());
    let off = |column: &Arc<str>| Some((Arc::clone(column), off_of(sent.get(column)?)));
    deciding(&sent).into_iter().filter_map(off).collect()
}

/// What is written by itself, and first: what is turned off. Whatever a device says of the rest, and however long
/// it takes, it does not keep anything running. But columns that are `whole`, as those of one frame are, go
/// out together: with what the device has of those that do not change.
pub(super) fn apart(
    values: &Values,
    instance: &Instance,
    failsafe: Option<&Values>,
    whole: &[Arc<str>],
) -> Vec<Values> {
    let sent = instance.sent();
    if !whole.is_empty() {
        let has = |column: &Arc<str>| sent.get(column).or_else(|| failsafe?.get(column)).cloned();
        let rest = whole.iter().filter(|column| !values.contains_key(*column));
        let rest = rest.filter_map(|column| Some((Arc::clone(column), has(column)?)));
        return vec![rest.chain(values.clone()).collect()];
    }
    let turns_off = |column: &Arc<str>, value: &Value| {
        *value == Value::Bool(false) && sent.get(column) != Some(&Value::Bool(false))
    };
    let (off, rest): (Values, Values) =
        values.clone().into_iter().partition(|(column, value)| turns_off(column, value));
    [off, rest].into_iter().filter(|values| !values.is_empty()).collect()
}

/// What was sent becomes what the device has. Returns how the columns were before.
pub(super) fn note_sent(
    instance: &mut Instance,
    failsafe: Option<&Values>,
    values: &Values,
    steps: &[Step],
    now: i64,
) -> BTreeMap<Arc<str>, Field> {
    let mut before = BTreeMap::new();
    for (column, value) in values {
        let field = instance.fields.entry(Arc::clone(column)).or_default();
        before.insert(Arc::clone(column), field.clone());
        if field.sent.as_ref() != Some(value) {
            field.stepped_at = Some(now);
            field.ramps = steps.iter().any(|step| step.column == *column && step.clause == Clause::Slew);
        }
        if field.sent.as_ref() != Some(value) {
            // Of what was never told it is believed that it rests.
            let was = field.sent.clone().or_else(|| failsafe?.get(column).cloned());
            field.may_be(was.as_ref());
        }
        let was_on = field.sent.as_ref().map(Value::is_on);
        if was_on != Some(value.is_on()) {
            (field.turned_at, field.turns) = (Some(now), true);
        }
        // What it is known to have it has also while it is told again.
        let is_same = field.sent.as_ref() == Some(value) && field.strays.is_none();
        if !(is_same && matches!(field.known, Known::Confirmed { .. })) {
            field.known = Known::Sent;
        }
        (field.sent, field.strays) = (Some(value.clone()), None);
    }
    instance.written_at = Some(now);
    before
}
