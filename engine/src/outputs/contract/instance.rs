//! One thing that an output moves: what is claimed of it, what it was told, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{AfterOverride, Contract, ContractKind, Value, Values};
use crate::decision::{Claimed, Origin, Outcome, Overridden};

/// Writes without an outcome that are remembered: more than a line has under way.
const MOST_FLIGHTS: usize = 256;

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// the number of the entry of the sequence, or of the row in it
    pub seq: u64,
    /// the sequence's time, nanoseconds
    pub now: i64,
    /// what the wall clock shows
    pub wall_ns: i64,
}

/// What one rule wants now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) version: Arc<str>,
    pub(super) rank: u8,
    pub(super) values: Values,
    pub(super) seq: u64,
    pub(super) ordinal: u32,
    pub(super) since: i64,
    /// when it was made or renewed last; counts up, so that the newest of several is known
    pub(super) renewed: u64,
    pub(super) expires: Option<i64>,
}

/// What is known of a column.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Field {
    /// what the device was told last
    pub(super) sent: Option<Value>,
    pub(super) known: Known,
    /// Numbers between which it may be as well, as long as nobody has answered for what was sent.
    pub(super) perhaps: Option<(f64, f64)>,
    /// when it was turned on or off last
    pub(super) turned_at: Option<i64>,
    /// Whether nobody has answered for that yet: then it may have been later.
    pub(super) turns: bool,
    /// when it was changed last
    pub(super) stepped_at: Option<i64>,
    /// whether that was a step of a ramp
    pub(super) ramps: bool,
    /// whether a rule has claimed it since the start
    pub(super) claimed: bool,
    /// what the device has instead, since somebody else has written
    pub(super) strays: Option<Value>,
}

/// Whether the device has what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// Nobody knows.
    #[default]
    Unknown,
    /// It was told, and has not answered yet.
    Sent,
    /// It has.
    Confirmed {
        /// since when that is known
        since: i64,
    },
}

/// A write that has no outcome yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Flight {
    pub(super) values: Values,
    pub(super) rule: Option<Arc<str>>,
    /// how the columns were before, in case that it was not sent
    pub(super) before: BTreeMap<Arc<str>, Field>,
}

/// Writes that did not go well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Trouble {
    pub(super) values: Values,
    pub(super) attempts: u32,
    /// not before then
    pub(super) next: i64,
    pub(super) kind: TroubleKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TroubleKind {
    /// The device does not want it.
    Refused,
    /// It may go well another time.
    Failed,
    /// The device has something else.
    Mismatch,
}

/// It is looked at whether the device has what was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) write: u64,
    pub(super) values: Values,
    /// rows that show it must have come since then
    pub(super) since: i64,
    pub(super) due: i64,
    pub(super) until: i64,
    /// whether the device was asked, and has not answered
    pub(super) asked: bool,
    /// Whether it had it before, and it is looked whether it still has.
    #[serde(default)]
    pub(super) again: bool,
}

/// It is looked whether the device still has what it was told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Watch {
    /// when it is asked next
    pub(super) next: Option<i64>,
    /// how often it had something else, in a row
    pub(super) differs: u32,
    /// when what is wanted was last written over what somebody else had written
    pub(super) reasserted_at: Option<i64>,
}

/// An interlock of an instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Lock {
    /// what the condition said last; none: there was no row since the start
    pub(super) verdict: Option<Verdict>,
    /// when that is too old
    pub(super) stale_at: Option<i64>,
    /// since when, and why, it has tripped
    pub(super) tripped: Option<(i64, Arc<str>)>,
    /// since when the condition is true again
    pub(super) clear_since: Option<i64>,
}

/// What a condition said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Verdict {
    Free,
    /// It is false, or unknown: in words for people, with the values.
    Not(Arc<str>),
}

/// What a person wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// who
    pub who: Arc<str>,
    /// why
    pub reason: Arc<str>,
    /// since when
    pub since: i64,
    /// until when
    pub until: i64,
    /// what
    pub values: Values,
    /// when it was last told that it holds
    #[serde(default)]
    pub(super) told: Option<i64>,
    /// whether it was told that it is about to end
    #[serde(default)]
    pub(super) ends: bool,
}

/// One thing that an output moves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Instance {
    /// the columns that tell it apart
    pub(super) key: Values,
    pub(super) claims: BTreeMap<Arc<str>, Claim>,
    pub(super) renewals: u64,
    /// since when nobody claims anything, and why
    pub(super) idle: Option<(i64, Arc<str>)>,
    /// whether anybody has claimed something since the start
    pub(super) was_claimed: bool,
    /// when the box has started
    pub(super) started: Option<i64>,
    pub(super) overridden: Option<Override>,
    pub(super) locks: Vec<Lock>,
    pub(super) fields: BTreeMap<Arc<str>, Field>,
    /// when it was written last
    pub(super) written_at: Option<i64>,
    /// the number of that
    #[serde(default)]
    pub(super) last_write: u64,
    #[serde(default)]
    pub(super) watch: Watch,
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) troubles: Vec<Trouble>,
    pub(super) check: Option<Check>,
    /// The other one of a pair needs it off.
    pub(super) asked_off: Option<Arc<str>>,
    /// Whether it goes to its failsafe values, since it has not done what it was told.
    pub(super) gave_up: bool,
    /// whose will it is what was sent last, and since when it is so
    pub(super) by: Option<(Origin, i64)>,
    /// what was held back when that was last said
    pub(super) held: Option<String>,
    /// when it wants to be looked at again
    pub(super) wakes_at: Option<i64>,
}

impl Field {
    /// The device has what it was told, from now on if that is new.
    fn confirm(&mut self, now: i64) {
        if !matches!(self.known, Known::Confirmed { .. }) {
            self.known = Known::Confirmed { since: now };
        }
    }

    /// The device may have `value`, too.
    pub(super) fn may_be(&mut self, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::number) {
            let (least, greatest) = self.perhaps.unwrap_or((number, number));
            self.perhaps = Some((least.min(number), greatest.max(number)));
        }
    }
}

impl Instance {
    pub(super) fn new(key: Values, locks: usize) -> Self {
        let idle = Some((i64::MIN, Arc::from("no rule has claimed anything yet")));
        Self { key, idle, locks: vec![Lock::default(); locks], ..Self::default() }
    }

    /// A row of a rule, which has been admitted.
    pub(super) fn claim(&mut self, rule: &Arc<str>, columns: &BTreeMap<Arc<str>, Option<Value>>, new: Claim) {
        self.renewals += 1;
        let renewed = self.renewals;
        let before = self.claims.remove(rule);
        let since = before.as_ref().map_or(new.since, |before| before.since);
        let mut values = before.map(|before| before.values).unwrap_or_default();
        for (column, value) in columns {
            match value {
                Some(value) => {
                    values.insert(Arc::clone(column), value.clone());
                    self.fields.entry(Arc::clone(column)).or_default().claimed = true;
                }
                None => drop(values.remove(column)),
            }
        }
        if values.is_empty() {
            self.note_idle(new.since, "the last rule that claimed something gave it up");
            return;
        }
        (self.idle, self.was_claimed) = (None, true);
        self.claims.insert(Arc::clone(rule), Claim { values, since, renewed, ..new });
        // Who asks again is answered again.
        let again = self.troubles.iter_mut().filter(|trouble| trouble.kind != TroubleKind::Refused);
        again.for_each(|trouble| trouble.attempts = 0);
    }

    /// Rule `rule` wants nothing any more.
    pub(super) fn release(&mut self, rule: &str, now: i64, because: &str) -> bool {
        let had = self.claims.remove(rule).is_some();
        if had {
            self.note_idle(now, because);
        }
        had
    }

    /// Claims and the override that have come to their end are gone.
    pub(super) fn expire(&mut self, contract: &Contract, now: i64) {
        let is_over = |claim: &Claim| claim.expires.is_some_and(|expires| expires <= now);
        let ended: Vec<Arc<str>> = self
            .claims
            .iter()
            .filter(|(_, claim)| is_over(claim))
            .map(|(rule, _)| Arc::clone(rule))
            .collect();
        for rule in ended {
            self.claims.remove(&rule);
            self.note_idle(now, &format!("rule {rule} did not renew its claim"));
        }
        if self.overridden.as_ref().is_some_and(|overridden| overridden.until <= now) {
            self.end_override(contract, now, "the lease of the override has ended");
        }
    }

    /// Rules have it again.
    pub(super) fn end_override(&mut self, contract: &Contract, now: i64, because: &str) {
        if self.overridden.take().is_none() || contract.after_override == AfterOverride::Target {
            self.note_idle(now, because);
            return;
        }
        // Where it is counts as if somebody had claimed it now.
        self.claims.clear();
        self.idle = None;
        self.note_idle(contract.expiry.map_or(i64::MAX, |expiry| now.saturating_add(ns(expiry))), because);
    }

    /// Since `now` nobody may claim anything any more.
    pub(super) fn note_idle(&mut self, now: i64, because: &str) {
        if self.claims.is_empty() && self.overridden.is_none() && self.idle.is_none() {
            self.idle = Some((now, Arc::from(because)));
        }
    }

    /// The box has started. `is_known`: how long it was away.
    pub(super) fn start(&mut self, now: i64, is_known: bool) {
        self.claims.clear();
        self.flights.clear();
        (self.check, self.asked_off, self.held) = (None, None, None);
        self.watch = Watch::default();
        self.troubles.clear();
        (self.was_claimed, self.started) = (false, Some(now));
        if !is_known {
            // A lease of nobody knows how long is over.
            self.overridden = None;
        }
        for field in self.fields.values_mut() {
            (field.known, field.claimed, field.ramps, field.strays) = (Known::Unknown, false, false, None);
        }
        for lock in &mut self.locks {
            (lock.verdict, lock.stale_at, lock.clear_since) = (None, None, None);
        }
        if self.overridden.is_none() {
            self.idle = Some((now, Arc::from("the box has started, and no rule has claimed anything yet")));
        }
    }

    /// The line is down: nobody knows what the device has.
    pub(super) fn lose_line(&mut self) {
        self.check = None;
        self.watch = Watch::default();
        self.troubles.clear();
        for field in self.fields.values_mut() {
            (field.known, field.strays) = (Known::Unknown, None);
        }
    }

    /// Remembers a write that is on its way.
    pub(super) fn fly(&mut self, write: u64, flight: Flight) {
        while self.flights.len() >= MOST_FLIGHTS {
            self.flights.pop_first();
        }
        // Whatever the device still shows is from before.
        drop(self.check.take_if(|check| check.again));
        (self.last_write, self.watch.differs) = (write, 0);
        self.flights.insert(write, flight);
    }

    /// What became of a write. Returns what it had been, unless nobody waits for it any more.
    pub(super) fn answered(
        &mut self,
        contract: &Contract,
        write: u64,
        outcome: Outcome,
        now: i64,
    ) -> Option<Flight> {
        let flight = self.flights.remove(&write)?;
        if contract.kind == ContractKind::Event {
            return Some(flight);
        }
        let is_newest =
            |column: &Arc<str>| !self.flights.values().any(|newer| newer.values.contains_key(column));
        let columns: BTreeSet<Arc<str>> =
            flight.values.keys().filter(|column| is_newest(column)).cloned().collect();
        for column in &columns {
            let Some(field) = self.fields.get_mut(column) else { continue };
            match outcome {
                Outcome::Acknowledged => {
                    field.perhaps = None;
                    if field.turns {
                        (field.turned_at, field.turns) = (Some(now), false);
                    }
                    if contract.read_back.is_none() {
                        field.confirm(now);
                    }
                }
                Outcome::Unknown | Outcome::Mismatch => field.known = Known::Unknown,
                Outcome::Failed | Outcome::Refused => {
                    // It was not told: minimum times go on as they were.
                    let before = flight.before.get(column).cloned().unwrap_or_default();
                    let claimed = field.claimed;
                    *field = Field { known: Known::Unknown, claimed, ..before };
                    // Of several columns some may have been written before one was refused.
                    if flight.values.len() > 1 {
                        field.may_be(flight.values.get(column));
                    }
                }
                Outcome::Superseded | Outcome::Read | Outcome::External => {}
            }
        }
        match outcome {
            Outcome::Acknowledged => self.acknowledged(contract, write, &flight, now),
            Outcome::Refused => self.fail(contract, &flight.values, TroubleKind::Refused, now),
            Outcome::Failed | Outcome::Unknown => {
                self.fail(contract, &flight.values, TroubleKind::Failed, now)
            }
            Outcome::Superseded | Outcome::Read | Outcome::Mismatch | Outcome::External => {}
        }
        Some(flight)
    }

    fn acknowledged(&mut self, contract: &Contract, write: u64, flight: &Flight, now: i64) {
        let Some(read_back) = &contract.read_back else {
            self.went_well(&flight.values);
            return;
        };
        let (settle, within) = (ns(read_back.settle), ns(read_back.within));
        let mut values = flight.values.clone();
        if let Some(check) = self.check.take() {
            // What was written before, and has not been seen yet, is looked for with it.
            for (column, value) in check.values {
                values.entry(column).or_insert(value);
            }
        }
        values.retain(|column, value| {
            self.fields.get(column).is_some_and(|field| field.sent.as_ref() == Some(value))
        });
        let (due, until) = (now.saturating_add(settle), now.saturating_add(within.max(settle)));
        self.check = Some(Check { write, values, since: now, due, until, asked: false, again: false });
    }

    /// A write did not go well.
    pub(super) fn fail(&mut self, contract: &Contract, values: &Values, kind: TroubleKind, now: i64) {
        let is_same = |trouble: &&Trouble| trouble.values == *values && trouble.kind == kind;
        let attempts = self.troubles.iter().find(is_same).map_or(0, |trouble| trouble.attempts) + 1;
        let next = now.saturating_add(ns(contract.retry_after));
        self.went_well(values);
        self.troubles.push(Trouble { values: values.clone(), attempts, next, kind });
    }

    /// What was wrong with the columns of `values` is over.
    fn went_well(&mut self, values: &Values) {
        self.troubles.retain(|trouble| trouble.values.keys().all(|column| !values.contains_key(column)));
    }

    /// The columns in `values` are as they were told.
    pub(super) fn confirm(&mut self, values: &Values, now: i64) {
        for (column, value) in values {
            if let Some(field) =
                self.fields.get_mut(column).filter(|field| field.sent.as_ref() == Some(value))
            {
                field.confirm(now);
            }
        }
        self.went_well(values);
        (self.gave_up, self.watch.next) = (false, None);
    }

    /// Whether the device is known to have had all that it was told, and nothing is under way.
    pub(super) fn is_settled(&self) -> bool {
        let told = || self.fields.values().filter(|field| field.sent.is_some());
        let is_confirmed = |field: &Field| matches!(field.known, Known::Confirmed { .. });
        self.check.is_none() && self.flights.is_empty() && told().next().is_some() && told().all(is_confirmed)
    }

    /// What somebody else has written is what the device was told last.
    pub(super) fn adopt(&mut self, values: &Values, now: i64) {
        for (column, value) in values {
            let Some(field) = self.fields.get_mut(column) else { continue };
            if field.sent.as_ref().map(Value::is_on) != Some(value.is_on()) {
                field.turned_at = Some(now);
            }
            field.stepped_at = Some(now);
            (field.turns, field.ramps, field.perhaps, field.strays) = (false, false, None, None);
            (field.sent, field.known) = (Some(value.clone()), Known::Confirmed { since: now });
        }
    }

    /// What was sent last, column by column.
    pub(super) fn sent(&self) -> Values {
        let sent = |(column, field): (&Arc<str>, &Field)| Some((Arc::clone(column), field.sent.clone()?));
        self.fields.iter().filter_map(sent).collect()
    }

    /// Whether it is on, off, or nobody knows; and since when the device is known to be off.
    pub(super) fn off_since(&self) -> Option<i64> {
        let sent = self.sent();
        if sent.is_empty() || is_on(&sent) || !self.flights.is_empty() {
            return None;
        }
        let decides = deciding(&sent);
        let since = decides.into_iter().map(|column| match self.fields.get(column) {
            Some(Field { known: Known::Confirmed { since }, strays: None, .. }) => Some(*since),
            _ => None,
        });
        since.collect::<Option<Vec<i64>>>()?.into_iter().max()
    }

    /// All claims, for people.
    pub(super) fn claimed(&self) -> Vec<Claimed> {
        let claimed = |(rule, claim): (&Arc<str>, &Claim)| Claimed {
            rule: Arc::clone(rule),
            version: Arc::clone(&claim.version),
            rank: claim.rank,
            since_ns: claim.since,
            until_ns: claim.expires,
            values: claim.values.clone(),
        };
        self.claims.iter().map(claimed).collect()
    }

    /// The override, for people.
    pub(super) fn overridden(&self) -> Option<Overridden> {
        self.overridden.as_ref().map(|Override { who, reason, since, until, values, .. }| Overridden {
            who: Arc::clone(who),
            reason: Arc::clone(reason),
            since_ns: *since,
            until_ns: *until,
            values: values.clone(),
        })
    }

    /// Whose the claim of `rule` is.
    pub(super) fn origin(&self, rule: &Arc<str>) -> Option<Origin> {
        let claim = self.claims.get(rule)?;
        let (seq, ordinal) = (claim.seq, claim.ordinal);
        Some(Origin::Rule { rule: Arc::clone(rule), version: Arc::clone(&claim.version), seq, ordinal })
    }
}

/// The columns that say whether something is on: those that are on or off, and where there is none, numbers.
pub(super) fn deciding(values: &Values) -> Vec<&Arc<str>> {
    let of = |wanted: fn(&Value) -> bool| -> Vec<&Arc<str>> {
        values.iter().filter(|(_, value)| wanted(value)).map(|(column, _)| column).collect()
    };
    let switches = of(|value| matches!(value, Value::Bool(_)));
    if switches.is_empty() { of(|value| value.number().is_some()) } else { switches }
}

/// Whether something is on with these.
pub(super) fn is_on(values: &Values) -> bool {
    deciding(values).into_iter().any(|column| values.get(column).is_some_and(Value::is_on))
}

/// In the sequence's unit.
pub(super) fn ns(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
