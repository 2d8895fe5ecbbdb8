//! Whether the device has what was written: it is read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::governed::{Governed, listed};
use super::instance::{At, Check, Known, TroubleKind, ns};
use super::newest::Newest;
use super::{Made, What};
use crate::config::{OnMismatch, Value, Values};
use crate::decision::{Origin, Outcome};

impl Governed {
    /// Looks whether the device has what was written. Returns when to look again.
    pub(super) fn check(&mut self, name: &Arc<str>, newest: &Newest, at: At, made: &mut Made) -> Option<i64> {
        let contract = Arc::clone(&self.contract);
        let read_back = contract.read_back.as_ref()?;
        let Some(check) = self.instances.get(name)?.check.clone() else {
            return self.watch(name, at, made);
        };
        let instance = self.instances.get_mut(name)?;
        if check.values.is_empty() {
            instance.check = None;
            return None;
        }
        if !read_back.from.is_empty() {
            let mut shown = Values::new();
            let wanted: Values = check
                .values
                .iter()
                .filter(|(column, _)| read_back.from.contains_key(*column))
                .map(clone)
                .collect();
            for (column, (stream, shows)) in &read_back.from {
                if let Some(seen) = newest.get(stream, name).filter(|seen| seen.arrived >= check.since)
                    && let Some(value) = seen.value(shows)
                {
                    shown.insert(Arc::clone(column), value);
                }
            }
            if are_alike(&wanted, &shown, &read_back.tolerance) {
                self.confirmed(name, &check, at);
                return None;
            }
            return self.missing(name, &check, &shown, at, made);
        }
        // The answer may be lost on its way: then the device is as good as silent.
        let ends = check.until.saturating_add(ns(read_back.within));
        if check.asked {
            if at.now < ends {
                return Some(ends);
            }
            if check.again {
                instance.check = None;
                return self.watch(name, at, made);
            }
            return self.missing(name, &check, &Values::new(), at, made);
        }
        if at.now < check.due {
            return Some(check.due);
        }
        let (write, columns) = (check.write, check.values.keys().cloned().collect());
        instance.check = Some(Check { asked: true, ..check });
        let by = Origin::Failsafe { because: "it is read back".into() };
        self.order(name, write, by, None, What::Read { columns }, at, made);
        Some(ends)
    }

    fn confirmed(&mut self, name: &Arc<str>, check: &Check, at: At) {
        if let Some(instance) = self.instances.get_mut(name) {
            instance.confirm(&check.values, at.now);
            instance.check = None;
        }
    }

    /// The device does not show what it was told: there is time, or it has to be told again, or there is
    /// nothing more that can be done.
    fn missing(
        &mut self,
        name: &Arc<str>,
        check: &Check,
        shown: &Values,
        at: At,
        made: &mut Made,
    ) -> Option<i64> {
        if at.now < check.until {
            return Some(check.until);
        }
        let contract = Arc::clone(&self.contract);
        let read_back = contract.read_back.as_ref()?;
        let instance = self.instances.get_mut(name)?;
        instance.check = None;
        for column in check.values.keys() {
            if let Some(field) = instance.fields.get_mut(column) {
                field.known = Known::Unknown;
            }
        }
        instance.fail(&contract, &check.values, TroubleKind::Mismatch, at.now);
        if let Some(trouble) = instance.troubles.iter_mut().find(|trouble| trouble.values == check.values) {
            // It had its time to get there.
            trouble.next = at.now;
            if trouble.attempts <= read_back.retries {
                return None;
            }
        }
        instance.gave_up |= read_back.on_mismatch == OnMismatch::Failsafe;
        let reason = if shown.is_empty() {
            "nothing shows what the device has".to_owned()
        } else {
            let there: Vec<String> =
                shown.iter().map(|(column, value)| format!("{column} is {value}")).collect();
            format!("it was told {}, and {}", listed(&check.values), there.join(", "))
        };
        let by = Origin::Failsafe { because: "it was read back".into() };
        let what = What::Differs { outcome: Outcome::Mismatch, values: shown.clone(), reason };
        self.order(name, check.write, by, None, what, at, made);
        None
    }

    /// The device was asked, and has answered or not.
    pub(super) fn read(
        &mut self,
        name: &Arc<str>,
        outcome: Outcome,
        values: &Values,
        at: At,
        made: &mut Made,
    ) {
        let contract = Arc::clone(&self.contract);
        let Some(read_back) = &contract.read_back else { return };
        let Some(check) = self.instances.get_mut(name).and_then(|instance| instance.check.clone()) else {
            return;
        };
        if check.again {
            if let Some(instance) = self.instances.get_mut(name) {
                instance.check = None;
            }
            self.compare(name, values, at, made);
            return;
        }
        if outcome == Outcome::Read && are_alike(&check.values, values, &read_back.tolerance) {
            self.confirmed(name, &check, at);
            return;
        }
        if at.now < check.until
            && let Some(instance) = self.instances.get_mut(name)
        {
            let again = (ns(read_back.within) / 10).max(50_000_000);
            let due = at.now.saturating_add(again).min(check.until);
            instance.check = Some(Check { asked: false, due, ..check });
            return;
        }
        self.missing(name, &check, values, at, made);
    }
}

fn clone((column, value): (&Arc<str>, &Value)) -> (Arc<str>, Value) {
    (Arc::clone(column), value.clone())
}

/// Whether `shown` has all of `wanted`, as far as it has to be exact.
fn are_alike(wanted: &Values, shown: &Values, tolerance: &BTreeMap<Arc<str>, f64>) -> bool {
    wanted.iter().all(|(column, value)| {
        shown.get(column).is_some_and(|shown| is_alike(value, shown, tolerance.get(column).copied()))
    })
}

pub(super) fn is_alike(wanted: &Value, shown: &Value, tolerance: Option<f64>) -> bool {
    match (wanted.number(), shown.number()) {
        // What a device keeps has fewer digits than a float.
        (Some(wanted), Some(shown)) => {
            (wanted - shown).abs() <= tolerance.unwrap_or_else(|| wanted.abs() * 1e-6)
        }
        _ => wanted == shown,
    }
}
