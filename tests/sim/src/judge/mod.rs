//! Whether outputs kept their contracts. It knows what they promise ([`Terms`]), what came in and in which
//! order ([`Witness`]), and what reached the device ([`Plc`]), and nothing of how the box decides.
//!
//! [`knowledge`] is what the box could know when it decided: which interlocks had tripped, and who wished
//! what. [`limits`] are promises about what reaches the device, [`will`] those about whose will it is, and
//! [`reasons`] compares the decisions that the buffer has kept.

mod knowledge;
mod limits;
mod reasons;
mod will;

pub use reasons::decisions;
use tidegate::config::Value;
use tidegate::decision::Decision;

use crate::panel;
use crate::plc::{Attempt, Plc};
use crate::record::Record;
use crate::terms::{MS, Terms};
use crate::witness::{Row, Witness};

/// How exact times are: timers go by milliseconds.
const EXACT: i64 = 3 * MS;

/// How one start of the box went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Round {
    /// when it began, nanoseconds since the simulation began
    pub begins: i64,
    /// the machine was started anew before it
    pub rebooted: bool,
    /// time in which the machine was off may have counted
    pub leaps: bool,
    /// parts of the box were held up
    pub pauses: bool,
    /// the power was cut at its end
    pub is_cut: bool,
    /// the disk refused, or decisions were dropped
    pub forgets: bool,
    /// whether [`crate::rules::PUMP_B`] claimed the pump at its end
    pub b_is_active: bool,
    /// whether that was edited
    pub b_was_touched: bool,
}

/// Judges the outputs of one simulation.
pub struct Judge<'a> {
    /// what they promise
    pub terms: &'a [Terms],
    /// what reached the device
    pub plc: &'a Plc,
    /// what came in
    pub witness: &'a Witness,
    /// how the box was started
    pub rounds: &'a [Round],
    /// what the buffer has of decisions that something was sent
    pub decisions: &'a [Decision],
    /// takes what is wrong
    pub record: &'a Record,
}

/// One output, and all that is known of it.
struct Case<'a> {
    terms: &'a Terms,
    /// in the order in which they reached the device
    attempts: Vec<Tried<'a>>,
    rows: &'a [Row],
    record: &'a Record,
}

/// A write, and what led to it.
struct Tried<'a> {
    attempt: &'a Attempt,
    round: Round,
    /// when it was decided, nanoseconds since the simulation began
    decided: i64,
    /// the decision, if the buffer has it
    decision: Option<&'a Decision>,
    /// whether an interlock may have tripped
    is_trip: bool,
}

impl Tried<'_> {
    /// Whether it was written because the box stops.
    fn is_stop(&self) -> bool {
        self.attempt.cause.by.to_string().ends_with("the box stops")
    }

    fn number(&self, column: &str) -> Option<f64> {
        self.attempt.values.get(column)?.number()
    }
}

impl Case<'_> {
    fn wrong(&self, tried: &Tried<'_>, what: &str) {
        let Attempt { output, round, values, cause, .. } = tried.attempt;
        let write = cause.write.unwrap_or(0);
        self.record.wrong(format!(
            "{output}, start {round}, write {write} of {} ({values:?}, by {}): {what}",
            cause.seq, cause.by
        ));
    }
}

impl Judge<'_> {
    /// Judges.
    pub fn check(&self) {
        if self.witness.has_missed() {
            // What the box knew is not known.
            return;
        }
        let (rows, attempts) = (self.witness.rows(), self.plc.attempts());
        for terms in self.terms {
            let mut case = Case { terms, attempts: Vec::new(), rows: &rows, record: self.record };
            let of_output = attempts.iter().filter(|attempt| attempt.output == terms.output);
            case.attempts = of_output.filter_map(|attempt| self.tried(attempt, &rows)).collect();
            for index in 0..case.attempts.len() {
                let is_trip = case.may_be_trip(index);
                if let Some(tried) = case.attempts.get_mut(index) {
                    tried.is_trip = is_trip;
                }
            }
            case.limits();
            case.wills();
            case.reasons();
        }
        limits::pairs(self.terms, &attempts, self.record);
    }

    fn tried<'a>(&'a self, attempt: &'a Attempt, rows: &[Row]) -> Option<Tried<'a>> {
        let round = *self.rounds.get(attempt.round.checked_sub(1)?)?;
        // What the box says of how long ago it decided; but not before what it knew then.
        let said = attempt.handed - (attempt.now - attempt.cause.at);
        let before = rows.iter().rfind(|row| row.round == attempt.round && row.seq <= attempt.cause.seq);
        let decided = said.max(before.map_or(round.begins, |row| row.at)).min(attempt.handed);
        let decision = self.decisions.iter().find(|decision| reasons::is_of(decision, attempt));
        Some(Tried { attempt, round, decided, decision, is_trip: false })
    }
}

/// Whether outputs are where they are to go in the end.
#[must_use]
pub fn has_arrived(terms: &[Terms], plc: &Plc) -> bool {
    terms.iter().all(|terms| {
        let has = plc.has(terms.output);
        match terms.output {
            "pump" => panel::finally().iter().all(|(column, value)| {
                let far = match (value.number(), has.get(column).and_then(Value::number)) {
                    (Some(value), Some(has)) => (value - has).abs(),
                    _ if has.get(column) == Some(value) => 0.0,
                    _ => f64::INFINITY,
                };
                far <= terms.deadband.unwrap_or(0.0)
            }),
            output => has.get("run") == Some(&Value::Bool(output == "forward")),
        }
    })
}
