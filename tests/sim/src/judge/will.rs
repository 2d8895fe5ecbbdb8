//! Whose will a write is: nothing is written that nobody wants, that an interlock forbids, that a rule in
//! shadow wants, or that is run again.

use tidegate::config::Value;
use tidegate_connectors::By;

use super::knowledge::{Knowledge, Maybe};
use super::{Case, Round, Tried};
use crate::rules;

impl Case<'_> {
    pub(super) fn wills(&self) {
        for (index, tried) in self.attempts.iter().enumerate() {
            if tried.is_stop() {
                if self.terms.failsafe.as_ref().is_none_or(|failsafe| {
                    tried.attempt.values.iter().any(|(column, value)| failsafe.get(column) != Some(value))
                }) {
                    self.wrong(tried, "a box that stops writes failsafe values only");
                }
                continue;
            }
            self.is_new(tried);
            self.is_allowed(tried);
            let knew = self.knew(tried);
            if !tried.is_trip
                && knew.iter().all(|known| {
                    !known.terms.locks.iter().all(|lock| known.heard(lock) || known.trip(lock).perhaps)
                })
            {
                self.wrong(tried, "nothing is known yet of an interlock");
            }
            for (column, value) in &tried.attempt.values {
                let tried_so = |known: &Knowledge<'_>| self.is_wanted(known, index, column, value);
                if !tried.round.leaps && !knew.iter().any(tried_so) {
                    let wanted =
                        knew.iter().map(|known| self.explain(known, tried, column)).collect::<Vec<_>>();
                    self.wrong(
                        tried,
                        &format!("nobody wants {column} = {value}; {}", wanted.join("; without the row: ")),
                    );
                }
            }
        }
    }

    /// It stems from a row, or a moment, of this start of the box.
    fn is_new(&self, tried: &Tried<'_>) {
        let first = self.rows.iter().find(|row| row.round == tried.attempt.round);
        if first.is_none_or(|first| tried.attempt.cause.seq < first.seq) {
            self.wrong(tried, "it stems from what was before the start");
        }
    }

    /// Who asked for it is somebody who may.
    fn is_allowed(&self, tried: &Tried<'_>) {
        let claimers = claimers(self.terms.output);
        match &tried.attempt.cause.by {
            By::Rule { name, version } => {
                if !claimers.contains(&&**name) || !rules::versions(name).contains(version) {
                    self.wrong(tried, "this version of this rule moves nothing");
                }
                let claims = |known: &Knowledge<'_>| known.claim(name).1.perhaps;
                if !tried.round.leaps && !self.knew(tried).iter().any(claims) {
                    self.wrong(tried, "the rule does not claim it");
                }
            }
            By::Person { .. } => {
                if !self.knew(tried).iter().any(|known| known.overridden(tried.round.rebooted).1.perhaps) {
                    self.wrong(tried, "nobody overrides it");
                }
            }
            By::Contract { because } if because.starts_with("interlock") && !tried.is_trip => {
                self.wrong(tried, "no interlock has tripped");
            }
            By::Contract { .. } => {}
        }
    }

    fn is_wanted(&self, known: &Knowledge<'_>, index: usize, column: &str, value: &Value) -> bool {
        let Some(tried) = self.attempts.get(index) else { return false };
        let before = tried.attempt.before.get(column);
        let last = self
            .attempts
            .get(..index)
            .and_then(|before| before.iter().rev().find_map(|tried| tried.attempt.values.get(column)));
        let rests = self.terms.failsafe.as_ref().and_then(|failsafe| failsafe.get(column));
        let starts: Vec<&Value> = [before, last, rests].into_iter().flatten().collect();
        let on_the_way = |target: &Value| {
            let Some((value, target)) = value.number().zip(target.number()) else { return false };
            let between = |start: f64| start.min(target) <= value && value <= start.max(target);
            starts.iter().filter_map(|start| start.number()).any(between)
        };
        let trips: Vec<(Maybe, bool)> =
            self.terms.locks.iter().map(|lock| (known.trip(lock), lock.ramps)).collect();
        if let Some(trip) = self.terms.trip().get(column) {
            let is_trip = trips
                .iter()
                .any(|(trips, ramps)| trips.perhaps && (value == trip || *ramps && on_the_way(trip)));
            if is_trip || trips.iter().any(|(trip, _)| trip.surely) {
                return is_trip;
            }
        }
        let wanted = self.wanted(known, tried.round, column);
        let stays = column == "run" && last == Some(value) && self.terms.min_on.max(self.terms.min_off) > 0;
        stays
            || wanted.iter().any(|wanted| {
                let wanted = self.within_range(wanted);
                wanted == *value
                    || self.terms.slew.is_some() && on_the_way(&wanted)
                    || last == Some(value) && self.is_as_good(value, &wanted)
            })
    }

    /// Whether a value stays that is not quite what is wanted.
    fn is_as_good(&self, value: &Value, wanted: &Value) -> bool {
        let Some((value, wanted)) = value.number().zip(wanted.number()) else { return false };
        self.terms.deadband.is_some_and(|band| (value - wanted).abs() <= band)
    }

    fn within_range(&self, value: &Value) -> Value {
        match (value, self.terms.range) {
            (Value::Float(number), Some((least, greatest))) => Value::Float(number.clamp(least, greatest)),
            _ => value.clone(),
        }
    }

    /// What may be wanted of a column.
    fn wanted(&self, known: &Knowledge<'_>, round: Round, column: &str) -> Vec<Value> {
        let mut values = Vec::new();
        let failsafe = self.terms.failsafe.as_ref().and_then(|failsafe| failsafe.get(column));
        if self.terms.gives_up {
            values.extend(failsafe.cloned());
        }
        if self.terms.never_with.is_some() {
            values.push(Value::Bool(false));
        }
        let (person, counts) = known.overridden(round.rebooted);
        if let Some(value) = person.get(column).filter(|_| counts.perhaps) {
            values.push(value.clone());
            if counts.surely {
                return values;
            }
        }
        for rule in claimers(self.terms.output) {
            let (claim, mut alive) = known.claim(rule);
            if *rule == rules::PUMP_B && round.b_was_touched {
                alive.surely = false;
            } else if *rule == rules::PUMP_B && !round.b_is_active {
                continue;
            }
            if let Some(value) = claim.get(column).filter(|_| alive.perhaps) {
                values.push(value.clone());
                if alive.surely {
                    return values;
                }
            }
        }
        values.extend(failsafe.cloned());
        values
    }

    fn explain(&self, known: &Knowledge<'_>, tried: &Tried<'_>, column: &str) -> String {
        let trips: Vec<Maybe> = self.terms.locks.iter().map(|lock| known.trip(lock)).collect();
        let wanted = self.wanted(known, tried.round, column);
        format!("wanted is one of {wanted:?}, and interlocks are {trips:?}")
    }
}

/// Rules that claim an output, the strongest first.
fn claimers(output: &str) -> &'static [&'static str] {
    if output == "pump" { &[rules::PUMP_B, rules::PUMP_A, rules::PUMP_C] } else { &[rules::PAIR] }
}
