//! What is looked at though nobody has written: whether the device still has what it was told, and whether an
//! override still holds.

use std::sync::Arc;

use super::check::is_alike;
use super::governed::{Governed, listed};
use super::instance::{At, Check, Override, ns};
use super::newest::Newest;
use super::{Made, What};
use crate::config::{External, ReadBack, Values};
use crate::decision::{Origin, Outcome};
use crate::system::control::{ControlEvent, ControlKind};

/// Somebody else has written when the device had something else so often in a row.
const OFTEN: u32 = 2;
/// What somebody else has written is written over so often at most: he may do the same.
const REASSERTED_EVERY: i64 = 10_000_000_000;
/// How long before its end an override is told to end, unless its lease is short.
const ENDS: i64 = 300_000_000_000;
/// How often it is told that one holds.
const HOUR: i64 = 3_600_000_000_000;

impl Governed {
    /// Asks the device now and then for what it has, when nothing is under way. Returns when that is.
    pub(super) fn watch(&mut self, name: &Arc<str>, at: At, made: &mut Made) -> Option<i64> {
        let ReadBack { every, within, .. } = self.contract.read_back.as_ref()?;
        let (every, within) = (ns((*every)?), ns(*within));
        let instance = self.instances.get_mut(name).filter(|instance| instance.is_settled())?;
        let next = *instance.watch.next.get_or_insert(at.now.saturating_add(every));
        if at.now < next || !self.line_is_up {
            return Some(next).filter(|next| *next > at.now);
        }
        instance.watch.next = Some(at.now.saturating_add(every));
        let (write, values) = (instance.last_write, instance.sent());
        let columns = values.keys().cloned().collect();
        let (since, due, until) = (at.now, at.now, at.now.saturating_add(within));
        instance.check = Some(Check { write, values, since, due, until, asked: true, again: true });
        let by = Origin::Failsafe { because: "it is read again".into() };
        self.order(name, write, by, None, What::Read { columns }, at, made);
        Some(until.saturating_add(within))
    }

    /// A row of `stream` has come. Returns the instances that have to be looked at because of what it shows.
    pub(super) fn notice(
        &mut self,
        stream: &Arc<str>,
        newest: &Newest,
        at: At,
        made: &mut Made,
    ) -> Vec<Arc<str>> {
        if !self.is_shown_in(stream) {
            return Vec::new();
        }
        let settled = self.instances.iter().filter(|(_, instance)| instance.is_settled());
        let settled: Vec<Arc<str>> = settled.map(|(name, _)| Arc::clone(name)).collect();
        let mut turned = Vec::new();
        for name in settled {
            // That which was seen before counts once.
            let Some(seen) = newest.get(stream, &name).filter(|seen| seen.seq == at.seq) else { continue };
            if seen.quality().is_some() {
                continue;
            }
            let of_stream = self.from().filter(|(_, (shows, _))| shows == stream);
            let shown: Values = of_stream
                .filter_map(|(column, (_, shows))| {
                    let value = seen.value(shows)?;
                    let kind = self.columns.as_ref().and_then(|columns| columns.get(column));
                    Some((Arc::clone(column), kind.map_or(Some(value.clone()), |kind| value.of_type(*kind))?))
                })
                .collect();
            if self.compare(&name, &shown, at, made) {
                turned.push(name);
            }
        }
        turned
    }

    /// What the device has is compared with what it was told last. Returns whether there is something to do.
    pub(super) fn compare(&mut self, name: &Arc<str>, shown: &Values, at: At, made: &mut Made) -> bool {
        let contract = Arc::clone(&self.contract);
        let Some(read_back) = &contract.read_back else { return false };
        let Some(instance) = self.instances.get_mut(name) else { return false };
        let mut others = Values::new();
        for (column, value) in shown {
            let Some(field) = instance.fields.get_mut(column) else { continue };
            let Some(sent) = &field.sent else { continue };
            if is_alike(sent, value, read_back.tolerance.get(column).copied()) {
                field.strays = None;
            } else if field.strays.is_some() {
                // It was told when that began.
                field.strays = Some(value.clone());
            } else {
                others.insert(Arc::clone(column), value.clone());
            }
        }
        if others.is_empty() {
            instance.watch.differs = 0;
            return false;
        }
        instance.watch.differs = instance.watch.differs.saturating_add(1);
        if instance.watch.differs < OFTEN {
            let soon = (ns(read_back.within) / 10).max(50_000_000);
            instance.watch.next = Some(at.now.saturating_add(soon));
            return false;
        }
        self.stray(name, &others, at, made)
    }

    /// Somebody else has written `others`.
    fn stray(&mut self, name: &Arc<str>, others: &Values, at: At, made: &mut Made) -> bool {
        let Some(instance) = self.instances.get_mut(name) else { return false };
        let was = instance.sent();
        let then = match self.contract.external {
            External::Alarm => {
                for (column, value) in others {
                    if let Some(field) = instance.fields.get_mut(column) {
                        field.strays = Some(value.clone());
                    }
                }
                "it stays so until something else is wanted"
            }
            External::Yield => {
                instance.adopt(others, at.now);
                let mut values = instance.overridden.take().map(|before| before.values).unwrap_or_default();
                values.extend(others.clone());
                let (who, reason) = (Arc::from("somebody else"), Arc::from("it was written past the box"));
                let by = Origin::Override { who: Arc::clone(&who), reason: Arc::clone(&reason) };
                let (since, until) = (at.now, at.now.saturating_add(ns(self.contract.max_lease)));
                let (told, ends) = (None, false);
                instance.overridden = Some(Override { who, reason, since, until, values, told, ends });
                for column in others.keys() {
                    instance.fields.entry(Arc::clone(column)).or_default().claimed = true;
                }
                (instance.idle, instance.was_claimed) = (None, true);
                instance.by = Some((by, at.now));
                "it stays so for `max_lease`, unless it is released"
            }
            External::Reassert => {
                let last = instance.watch.reasserted_at;
                if last.is_some_and(|last| at.now.saturating_sub(last) < REASSERTED_EVERY) {
                    return false;
                }
                instance.watch.reasserted_at = Some(at.now);
                instance.adopt(others, at.now);
                "what is wanted is written again"
            }
        };
        instance.watch.differs = 0;
        let told = others.keys().filter_map(|column| Some((Arc::clone(column), was.get(column)?.clone())));
        let told: Values = told.collect();
        let reason = format!("it had {}, and has {} now; {then}", listed(&told), listed(others));
        let write = instance.last_write;
        let by = Origin::Failsafe { because: "somebody else has written".into() };
        let what = What::Differs { outcome: Outcome::External, values: others.clone(), reason };
        self.order(name, write, by, None, what, at, made);
        true
    }

    /// Tells now and then of an override, and that it is about to end. Returns when that is next.
    pub(super) fn remind(&mut self, name: &Arc<str>, at: At, made: &mut Made) -> Option<i64> {
        let overridden = self.instances.get_mut(name)?.overridden.as_mut()?;
        let Override { since, until, .. } = *overridden;
        let ends_at = until.saturating_sub(ENDS.min(until.saturating_sub(since) / 10));
        if until <= at.now || overridden.ends {
            return None;
        }
        let holds_at = overridden.told.unwrap_or(since).saturating_add(HOUR);
        let event = if ends_at <= at.now {
            overridden.ends = true;
            ControlKind::Ends
        } else if holds_at <= at.now {
            overridden.told = Some(at.now);
            ControlKind::Holds
        } else {
            return Some(ends_at.min(holds_at));
        };
        let left = u64::try_from(until.saturating_sub(at.now)).unwrap_or(0);
        let event = ControlEvent {
            event,
            output: Some(Arc::clone(&self.name)),
            instance: Arc::clone(name),
            values: overridden.values.clone(),
            lease: Some(std::time::Duration::from_nanos(left)),
            reason: Some(Arc::clone(&overridden.reason)),
            who: Some(Arc::clone(&overridden.who)),
            off_known: None,
        };
        let by =
            Origin::Override { who: Arc::clone(&overridden.who), reason: Arc::clone(&overridden.reason) };
        let next = (!overridden.ends).then(|| ends_at.min(at.now.saturating_add(HOUR)));
        self.order(name, 0, by, None, What::Say { event }, at, made);
        next
    }
}
