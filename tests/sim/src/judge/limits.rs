//! How far, how fast and how often; and of a pair never both.

use tidegate::config::Value;

use super::{Case, EXACT, Tried};
use crate::plc::{Attempt, Did};
use crate::record::Record;
use crate::terms::{MS, Terms};

/// What floats are off by.
const ROUNDING: f64 = 1e-6;

impl Case<'_> {
    pub(super) fn limits(&self) {
        self.range();
        self.steps();
        self.pace();
        self.minimum_times();
        self.rate();
    }

    fn range(&self) {
        let Some((least, greatest)) = self.terms.range else { return };
        for tried in &self.attempts {
            if tried.number("speed").is_some_and(|speed| !(least..=greatest).contains(&speed)) {
                self.wrong(tried, &format!("it is not from {least} to {greatest}"));
            }
        }
    }

    fn step(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)] // some seconds
        self.terms.slew.map(|slew| slew * self.terms.slew_every as f64 / 1e9 + ROUNDING)
    }

    /// A write goes no further than a step from what the device has.
    fn steps(&self) {
        let Some(step) = self.step() else { return };
        let rests = self.terms.failsafe.as_ref().and_then(|failsafe| failsafe.get("speed")?.number());
        for (index, tried) in self.attempts.iter().enumerate() {
            let Some(speed) = tried.number("speed").filter(|_| !tried.is_trip && !tried.is_stop()) else {
                continue;
            };
            let mut starts: Vec<f64> =
                tried.attempt.before.get("speed").and_then(Value::number).into_iter().collect();
            let earlier = self.attempts.get(..index).unwrap_or_default();
            // After a crash it goes on from what it knew before: what the disk has, or what it rests at.
            let unknown = earlier.iter().rev().take_while(|earlier| {
                earlier.decision.is_none() || !matches!(earlier.attempt.did, Did::Taken)
            });
            let is_after_a_crash = unknown.clone().any(|earlier| earlier.decision.is_none());
            if is_after_a_crash {
                starts.extend(unknown.clone().filter_map(|tried| tried.number("speed")));
                starts
                    .extend(unknown.clone().filter_map(|tried| tried.attempt.before.get("speed")?.number()));
            }
            // What says that it did and did not is taken at its word.
            starts.extend(
                unknown
                    .clone()
                    .filter(|tried| tried.attempt.did == Did::Deaf)
                    .filter_map(|tried| tried.number("speed")),
            );
            // A start before anything was ever written; without failsafe values it jumps.
            let was_written = earlier.iter().any(|tried| tried.number("speed").is_some());
            if is_after_a_crash || !was_written {
                let Some(rests) = rests else { continue };
                starts.push(rests);
            }
            if starts.iter().all(|start| (speed - start).abs() > step) {
                self.wrong(tried, &format!("a step from {starts:?} may be {step} at most"));
            }
        }
    }

    /// Many steps are no faster than one.
    fn pace(&self) {
        let (Some(step), Some(slew)) = (self.step(), self.terms.slew) else { return };
        let mut run: Vec<(i64, f64)> = Vec::new();
        let mut round = 0;
        for tried in &self.attempts {
            let Some(speed) = tried.number("speed") else { continue };
            let goes_on = !tried.is_trip && !tried.is_stop() && tried.attempt.did == Did::Taken;
            if !goes_on || tried.attempt.round != round {
                run.clear();
            }
            round = tried.attempt.round;
            if !goes_on || tried.round.leaps {
                continue;
            }
            for (at, from) in &run {
                #[allow(clippy::cast_precision_loss)] // some seconds
                let most = step + slew * (tried.decided - at + EXACT) as f64 / 1e9;
                if (speed - from).abs() > most {
                    let took = (tried.decided - at) / MS;
                    self.wrong(tried, &format!("from {from} in {took} ms; {most} is the most"));
                }
            }
            run.push((tried.decided, speed));
        }
    }

    /// What went on stays on, what went off stays off.
    fn minimum_times(&self) {
        let mut before: Option<&Tried<'_>> = None;
        for tried in &self.attempts {
            let Attempt { before: was, after, did, done, .. } = tried.attempt;
            let (was, is) = (was.get("run"), after.get("run"));
            if *did == Did::Deaf {
                // It counts as done.
                before = None;
                continue;
            }
            if was == is || !tried.attempt.values.contains_key("run") {
                continue;
            }
            let least = if is == Some(&Value::Bool(true)) { self.terms.min_off } else { self.terms.min_on };
            if let Some(earlier) = before.filter(|_| !tried.is_trip && !tried.is_stop()) {
                // It counts from the answer, if that had come by then.
                let answered = earlier.attempt.answered.filter(|answered| {
                    !tried.round.pauses
                        && earlier.attempt.round == tried.attempt.round
                        && *answered + EXACT < tried.decided
                });
                let sent = answered.map_or(earlier.decided, |_| earlier.attempt.done);
                if done - sent < least - EXACT {
                    self.wrong(
                        tried,
                        &format!(
                            "{} ms after it was turned; {} are the least",
                            (done - sent) / MS,
                            least / MS
                        ),
                    );
                }
            }
            // What the disk has not kept is not known after a crash; nor is a part of a write.
            before = (tried.decision.is_some() && *did != Did::Partly).then_some(tried);
        }
    }

    /// No more often than so.
    fn rate(&self) {
        let Some(rate) = self.terms.rate else { return };
        let mut before: Option<(usize, i64)> = None;
        for tried in &self.attempts {
            let is_free = tried.is_trip || tried.is_stop() || tried.round.leaps;
            if let Some((_, last)) = before
                .filter(|(round, last)| !is_free && *round == tried.attempt.round && *last != tried.decided)
                && tried.decided - last < rate - EXACT
            {
                self.wrong(
                    tried,
                    &format!(
                        "{} ms after the one before; {} are the least",
                        (tried.decided - last) / MS,
                        rate / MS
                    ),
                );
            }
            before = Some((tried.attempt.round, tried.decided));
        }
    }
}

/// Of two that exclude each other both are never on, and one has been off for its time before the other goes
/// on.
pub(super) fn pairs(terms: &[Terms], attempts: &[Attempt], record: &Record) {
    let is_on = |attempt: &Attempt| attempt.after.get("run") == Some(&Value::Bool(true));
    for terms in terms {
        let Some(other) = terms.never_with else { continue };
        let mut others: Option<&Attempt> = None;
        for attempt in attempts {
            if attempt.output == other {
                if attempt.before.get("run") != attempt.after.get("run") {
                    others = Some(attempt);
                }
                continue;
            }
            let goes_on = is_on(attempt) && attempt.before.get("run") != attempt.after.get("run");
            if attempt.output != terms.output || !goes_on {
                continue;
            }
            let Some(others) = others else { continue };
            let off = attempt.done - others.done;
            if is_on(others) || off < terms.dead_time - EXACT {
                record.wrong(format!(
                    "start {}: {} goes on (write {:?}) while {other} is {}",
                    attempt.round,
                    terms.output,
                    attempt.cause.write,
                    if is_on(others) { "on".to_owned() } else { format!("off for {} ms only", off / MS) }
                ));
            }
        }
    }
}
