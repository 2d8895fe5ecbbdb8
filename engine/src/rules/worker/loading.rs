//! Rules are loaded, take over what the version before has kept, and start.
//!
//! A version that has something to do before it runs does that with the next rows or tick: what it writes
//! has the number of these. Until then, and if it fails at it, the version before is what runs, and has lost
//! nothing. Which versions were refused is kept in the sequence, as all verdicts are.

use std::sync::Arc;

use tidegate_rules::{Emissions, Mode, Rule, RuleError, SealedState};

use super::{Call, Failure, Pass, Worker, guarded};
use crate::outputs::contract::Contracts;
use crate::sequence::change::Load;
use crate::sequence::edit::Edit;
use crate::sequence::hosted::{Hosted, Starting};
use crate::sequence::verdict::Verdict;
use crate::sequence::version::{RuleFile, RuleVersion};
use crate::status::{RuleStatus, Version};

impl Worker {
    /// Gives a rule the state back that it had before a restart.
    pub fn restore(&mut self, name: &Arc<str>, state: Vec<SealedState>) {
        if **name == *Contracts::STORED_AS {
            self.contracts.restore(state);
            return;
        }
        if let Some(mut starting) = self.starting.remove(name) {
            give_back(name, &mut *starting.hosted.rule, state);
            self.start_or_run(starting);
            return;
        }
        let Some(hosted) = self.rules.get_mut(name) else { return };
        give_back(name, &mut *hosted.rule, state);
        self.share(name);
        self.look(name);
    }

    pub(super) fn load(&mut self, load: Load) {
        let Load { version, mut rule, inherits, is_said, status, undecided } = load;
        let name = &version.name;
        self.starting.remove(name);
        self.starting.remove(&inherits);
        let may_fail = rule.fence().is_some();
        if inherits != *name {
            self.rename(&inherits, name, may_fail.then_some(&status));
        }
        let heir = if may_fail { name } else { &inherits };
        let sealed = match self.rules.get_mut(heir) {
            // It may have to go on.
            Some(old) if may_fail => Some(old.rule.snapshot()),
            Some(_) => self.take_out(heir).map(|mut old| old.rule.seal()),
            None => self.left.get(name).map(|left| Ok(left.state.clone())),
        };
        let mut kept = "";
        if let Some(sealed) = sealed {
            let had_none = sealed.as_ref().is_ok_and(Vec::is_empty);
            if sealed.is_err() {
                self.take_out(heir);
            }
            match sealed.and_then(|state| restore(&mut *rule, state)) {
                Ok(_) if had_none => {}
                Ok(misfits) => {
                    kept =
                        if misfits.is_empty() { " (state kept)" } else { " (state kept as far as it fits)" };
                    misfits.iter().for_each(|misfit| tracing::warn!(rule = %name, "{misfit}"));
                }
                Err(error) => {
                    kept = " (state lost)";
                    tracing::error!(rule = %name, %error, "what the old version kept is lost");
                }
            }
        }
        let hosted = Hosted::new(rule, version, status);
        self.start_or_run(Starting { hosted, inherits, is_said, undecided, kept });
    }

    /// What there is of rule `from` belongs to rule `to` from now on; with `status`, it goes on under that
    /// name.
    fn rename(&mut self, from: &Arc<str>, to: &Arc<str>, status: Option<&Arc<RuleStatus>>) {
        // Under the new name there may be one whose state goes to nobody.
        self.take_out(to);
        self.left.remove(to);
        if let Some(left) = self.left.remove(from) {
            self.left.insert(Arc::clone(to), left);
        }
        if let Some(status) = status
            && let Some(mut hosted) = self.take_out(from)
        {
            hosted.version = Arc::new(RuleVersion { name: Arc::clone(to), ..(*hosted.version).clone() });
            hosted.status = Arc::clone(status);
            self.put_in(Arc::clone(to), hosted);
            self.contracts.rule_is_gone(from, "has another name now");
        }
    }

    fn start_or_run(&mut self, mut starting: Starting) {
        if starting.hosted.rule.starting().is_some() {
            self.starting.insert(Arc::clone(&starting.hosted.version.name), starting);
        } else {
            self.begin_to_run(starting);
        }
    }

    /// The version runs from now on, and no other one of its rule.
    fn begin_to_run(&mut self, Starting { hosted, inherits, is_said, undecided, kept }: Starting) {
        let RuleVersion { name, hash, mode, .. } = &*hosted.version;
        let (name, status) = (Arc::clone(name), Arc::clone(&hosted.status));
        status.versions.add(1);
        if is_said {
            let shadow = if *mode == Mode::Shadow { " in shadow: it writes nothing" } else { "" };
            tracing::info!("rule {name}: version {} runs{shadow}{kept}", status.versions.get());
        }
        status.running.note(Version { number: status.versions.get(), hash: Arc::clone(hash), mode: *mode });
        status.stopped.clear();
        self.take_out(&name);
        self.left.remove(&name);
        self.put_in(Arc::clone(&name), hosted);
        if inherits != name {
            self.contracts.rule_is_gone(&inherits, "has another name now");
        }
        self.show_tables(&name, None);
        drop(undecided);
    }

    /// Has those versions start that are to, before anything else is done for the entry.
    pub(super) fn start_all(&mut self, pass: &mut Pass) {
        while let Some((name, starting)) = self.starting.pop_first() {
            self.start(&name, starting, pass);
        }
    }

    fn start(&mut self, name: &Arc<str>, mut starting: Starting, pass: &mut Pass) {
        let (seq, when) = (pass.seq, self.in_new_round(pass.when));
        let version = Arc::clone(&starting.hosted.version);
        let is_this = |stop: &&Verdict| {
            stop.is_start && *stop.rule == **name && *stop.version == *version.hash && stop.at == seq
        };
        if let Some(stop) = self.stops.iter().find(is_this).cloned() {
            self.refuse(starting, stop.reason);
            return;
        }
        let mut out = Emissions::default();
        let call: Call<'_> = &|rule, out| match rule.starting() {
            Some(starting) => starting.start(seq, when, out),
            None => Ok(()),
        };
        let started = guarded(self.watch.as_ref(), &mut *starting.hosted.rule, call, &mut out);
        match started {
            Ok(()) => {
                if self.again {
                    starting.hosted.status.state_bytes.set(out.state_bytes);
                } else {
                    starting.hosted.note(&out, pass.when.wall_ns);
                }
                self.begin_to_run(starting);
                if version.mode == Mode::Active {
                    pass.take(&version, out.rows);
                }
            }
            Err(Failure { reason, .. }) => {
                starting.hosted.say(out.log.iter().filter(|_| !self.again));
                let (rule, hash) = (name.to_string(), version.hash.to_string());
                let verdict =
                    Verdict { rule, version: hash, at: seq, reason: reason.clone(), is_start: true };
                let goes_on = self.refuse(starting, reason);
                self.verdicts.push(Edit::Refuse { verdict, goes_on });
            }
        }
    }

    /// The version does not run. Returns what does instead, or did until it was stopped.
    fn refuse(&mut self, starting: Starting, reason: String) -> Option<RuleFile> {
        let Starting { hosted, undecided, .. } = starting;
        let name = &hosted.version.name;
        let running = self.rules.get(name).map(|old| &old.version.file);
        let goes_on = running.or_else(|| Some(&self.left.get(name)?.file)).cloned();
        if goes_on.is_none() {
            hosted.status.stopped.note(reason);
        }
        self.undecided.extend(undecided);
        goes_on
    }
}

fn give_back(name: &Arc<str>, rule: &mut dyn Rule, state: Vec<SealedState>) {
    match restore(rule, state) {
        Ok(misfits) => misfits.iter().for_each(|misfit| tracing::warn!(rule = %name, "{misfit}")),
        Err(error) => {
            tracing::error!(rule = %name, %error, "what the rule kept before the restart is lost")
        }
    }
}

fn restore(rule: &mut dyn Rule, state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
    if state.is_empty() { Ok(Vec::new()) } else { rule.restore(state) }
}
