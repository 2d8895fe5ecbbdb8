//! What `tidegate why` says of each write: the buffer has the decision, and the decision leads to the write.

use std::path::Path;

use tidegate::buffer::VerdictKind;
use tidegate::buffer::inspect::Inspector;
use tidegate::config::Value;
use tidegate::decision::{Decision, Origin, Verdict};
use tidegate::disk::Disk as _;
use tidegate_connectors::By;

use super::{Case, Tried};
use crate::disk::Disk;
use crate::plc::Attempt;

/// What the buffer on a disk has of decisions that something was sent.
///
/// # Errors
/// When it cannot be read.
pub fn decisions(disk: &Disk) -> anyhow::Result<Vec<Decision>> {
    let (dir, disk) = (tempfile::tempdir()?, disk.copy());
    for name in ["box.db", "box.db-wal"] {
        let file = Path::new(disk.root()).join("data").join(name);
        if disk.exists(&file) {
            std::fs::write(dir.path().join(name), disk.read(&file)?)?;
        }
    }
    let (inspector, mut found) = (Inspector::open(&dir.path().join("box.db"))?, Vec::new());
    for output in inspector.decided_outputs()? {
        let mut decisions = inspector.decisions(&output, &[VerdictKind::Sent], None, None)?;
        while let Some(decision) = decisions.read()? {
            found.push(decision);
        }
        anyhow::ensure!(decisions.unreadable() == 0, "some of {output} are damaged");
    }
    Ok(found)
}

/// Whether a decision is that of a write: numbers are given again when a crash took all that was known of
/// one.
pub(super) fn is_of(decision: &Decision, attempt: &Attempt) -> bool {
    let Verdict::Sent { write } = decision.verdict else { return false };
    *decision.output == *attempt.output
        && Some(write) == attempt.cause.write
        && decision.at_ns == attempt.cause.at
        && decision.seq == attempt.cause.seq
        && decision.values == attempt.values
}

impl Case<'_> {
    pub(super) fn reasons(&self) {
        for (index, tried) in self.attempts.iter().enumerate() {
            match tried.decision {
                Some(decision) => {
                    if let Err(what) = self.leads_to(decision, tried) {
                        self.wrong(tried, &format!("its decision says {what}: {decision:?}"));
                    }
                }
                // What is not on the disk when the power goes, and can be run from nothing, is lost.
                None if tried.round.is_cut || tried.round.forgets => {
                    let later = self.attempts.get(index + 1..).unwrap_or_default();
                    let is_told = later.iter().any(|later| {
                        later.attempt.round == tried.attempt.round
                            && later.attempt.cause.write > tried.attempt.cause.write
                            && later.decision.is_some()
                    });
                    if is_told && !tried.round.forgets {
                        self.wrong(tried, "nothing says why, although later writes are explained");
                    }
                }
                None => self.wrong(tried, "nothing says why"),
            }
        }
    }

    /// Whether the decision explains the write.
    fn leads_to(&self, decision: &Decision, tried: &Tried<'_>) -> Result<(), String> {
        match (&decision.by, &tried.attempt.cause.by) {
            (Origin::Rule { rule, version, .. }, By::Rule { name, version: of })
                if rule == name && version == of =>
            {
                self.has_rows(decision, tried)?;
            }
            (Origin::Override { who, .. }, By::Person { who: by }) if who == by => {}
            (
                Origin::Interlock { .. } | Origin::Pair { .. } | Origin::Failsafe { .. },
                By::Contract { because },
            ) if decision.by.to_string() == **because => {}
            (by, _) => return Err(format!("that it is the will of another: {by}")),
        }
        for (column, value) in &tried.attempt.values {
            let steps = decision.steps.iter().filter(|step| step.column == *column);
            let mut at = steps.clone().next().map_or(value, |step| &step.before);
            if !self.is_a_will(decision, column, at) {
                return Err(format!("that {column} = {at} was wanted, and nobody wanted it"));
            }
            for step in steps {
                if step.before != *at {
                    return Err(format!("that {:?} began at {} and not at {at}", step.clause, step.before));
                }
                at = step.after.as_ref().ok_or("that nothing was sent")?;
            }
            if at != value {
                return Err(format!("that {column} came to {at}"));
            }
        }
        Ok(())
    }

    /// The rows that it names came in by then.
    fn has_rows(&self, decision: &Decision, tried: &Tried<'_>) -> Result<(), String> {
        if decision.inputs.is_empty() {
            return Err("that no row led to it".into());
        }
        for input in &decision.inputs {
            let came = self.rows.iter().any(|row| {
                row.round == tried.attempt.round
                    && *row.stream == *input.stream
                    && row.seq == input.seq
                    && row.seq <= tried.attempt.cause.seq
            });
            if !came {
                return Err(format!(
                    "that row {} of {} led to it, which never came",
                    input.seq, input.stream
                ));
            }
        }
        Ok(())
    }

    fn is_a_will(&self, decision: &Decision, column: &str, value: &Value) -> bool {
        let claims = decision.claims.iter().map(|claim| &claim.values);
        let persons = decision.overridden.iter().map(|person| &person.values);
        let (failsafe, trip) = (self.terms.failsafe.as_ref(), self.terms.trip());
        let mut wills = claims.chain(persons).chain(failsafe).chain([&trip]);
        wills.any(|values| values.get(column) == Some(value))
            || self.terms.never_with.is_some() && *value == Value::Bool(false)
    }
}
