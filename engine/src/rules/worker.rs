//! A worker runs rules, in the order of the sequence.
//!
//! It is a plain state machine: entries in, rows out. A box runs its only one beside the sequencer, and
//! several on threads of their own; a replay calls it in place. Rules that feed each other through derived
//! streams live on the same worker; rows of a derived stream reach their readers within the same entry.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidegate_core::Rows;
use tidegate_rules::{
    Emission, Emissions, Listened, Mode, Rule, RuleError, SealedState, Shared, Target, When,
};
use tokio::sync::mpsc;

use crate::buffer::SnapshotPart;
use crate::outputs::contract::instance::At;
use crate::outputs::contract::{Contracts, Made, Writer};
use crate::rules::router::{self, Routed, Router};
use crate::rules::watchdog::Watch;
use crate::sequence::change::{Change, Load};
use crate::sequence::entry::Entry;
use crate::sequence::hosted::Hosted;
use crate::sequence::verdict::Verdict;
use crate::sequence::version::RuleVersion;
use crate::sequence::wakes::{Silences, Waker};
use crate::status::{Status, Version};

mod readers;

use readers::{Concerned, Readers};

/// Runs rules.
pub struct Worker {
    rules: BTreeMap<Arc<str>, Hosted>,
    /// what the reference tables hold
    tables: BTreeMap<Arc<str>, RecordBatch>,
    /// the same rules by the streams that they read
    readers: Readers,
    /// those that want a tick, by the time at which they do
    wakes: BTreeSet<(i64, Arc<str>)>,
    /// those that had one and did not move their time: they get no tick of their own
    overdue: BTreeSet<Arc<str>>,
    /// when input streams were listened to, as far as anybody has said
    listened: BTreeMap<Arc<str>, Listened>,
    /// whether the silences that rules wait for are others than those that were last left for the sequencer
    other_silences: bool,
    /// what is equal in several rules
    shared: Shared,
    /// see [`When::round`]
    round: u64,
    /// what rules kept that were stopped
    left: BTreeMap<Arc<str>, Vec<SealedState>>,
    /// what stopped rules when the sequence was made that is run again
    stops: Arc<[Verdict]>,
    /// what stopped rules now
    verdicts: Vec<Verdict>,
    /// stops those that take too long
    watch: Option<Watch>,
    /// what outputs promise: they are all on one worker, with the rules that write to them
    contracts: Contracts,
    /// what has come of them, and was not taken yet
    made: Made,
    /// Whether what is run has been run before, and was counted and said then.
    again: bool,
    status: Arc<Status>,
}

impl Worker {
    /// A worker without rules.
    #[must_use]
    pub fn new(status: Arc<Status>) -> Self {
        Self {
            rules: BTreeMap::new(),
            tables: BTreeMap::new(),
            readers: Readers::default(),
            wakes: BTreeSet::new(),
            overdue: BTreeSet::new(),
            listened: BTreeMap::new(),
            other_silences: false,
            shared: Shared::default(),
            round: When::ALONE,
            left: BTreeMap::new(),
            stops: Arc::default(),
            verdicts: Vec::new(),
            watch: None,
            contracts: Contracts::default(),
            made: Made::default(),
            again: false,
            status,
        }
    }

    /// The same, whose rules are stopped when they take too long.
    #[must_use]
    pub fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// The same, with outputs that promise something.
    #[must_use]
    pub fn governing(self, contracts: Contracts) -> Self {
        Self { contracts, ..self }
    }

    /// Takes what contracts have made of the last entry.
    pub fn take_made(&mut self) -> Made {
        std::mem::take(&mut self.made)
    }

    /// Takes entries until there are no more, and hands on what the rules make of them. `waker` is told when
    /// they want a tick.
    pub async fn run(mut self, mut entries: mpsc::Receiver<Entry>, router: Router, waker: Waker) {
        let mut ticks = 0;
        while let Some(entry) = entries.recv().await {
            self.again = entry.is_replayed();
            match entry {
                Entry::Change(change) => self.on_change(change).await,
                Entry::Batch { stream, rows, when, origin } => {
                    let written = self.on_batch(&stream, &rows, when);
                    router.send(written, self.take_made(), when.now, &origin).await
                }
                Entry::Tick { seq, when, origin } => {
                    let written = self.on_tick(seq, when);
                    router.send(written, self.take_made(), when.now, &origin).await;
                    // Those that are run again were not made by this sequencer.
                    ticks += u64::from(!origin.is_replayed());
                }
                Entry::Listened { seq, streams, listened, when, origin } => {
                    let written = self.on_listened(seq, &streams, listened, when);
                    router.send(written, self.take_made(), when.now, &origin).await;
                }
                Entry::Verdicts(stops) => self.stops = stops,
                Entry::Restore { rule, state } => self.restore(&rule, state),
                Entry::Snapshot(number) => {
                    // The buffer is closed only when the box is going down.
                    drop(router.buffer.snapshot_part(SnapshotPart { number, states: self.snapshot() }));
                }
            }
            waker.leave(self.wakes_at(), ticks);
            self.verdicts.drain(..).for_each(|verdict| waker.leave_verdict(verdict));
            if std::mem::take(&mut self.other_silences) {
                waker.leave_silences(self.silences());
            }
        }
    }

    /// Takes rows of an input stream. Returns what the rules wrote, rule by rule and statement by statement:
    /// rows of equal sequence numbers are meant in this order.
    pub fn on_batch(&mut self, stream: &str, rows: &Rows, when: When) -> Vec<Routed> {
        if !self.readers.has(stream) && !self.contracts.watches(stream) {
            return Vec::new();
        }
        let mut pass = Pass::at(when);
        pass.seq = rows.seqs.get(0);
        self.feed(&Arc::from(stream), rows, &mut pass);
        self.run_derived(&mut pass);
        self.finish(pass)
    }

    /// Time has passed: rules whose time it is are called, those nearest to the input first.
    pub fn on_tick(&mut self, seq: u64, when: When) -> Vec<Routed> {
        let mut pass = Pass::of(seq, when);
        let when = self.in_new_round(when);
        // That some had their tick makes no difference: nobody knows when the sequence is run again.
        let due = self
            .wakes
            .iter()
            .take_while(|(at, _)| *at <= when.now)
            .map(|(_, name)| name)
            .chain(&self.overdue);
        for name in self.by_depth(due) {
            // A row of a derived stream may have been what it waited for.
            if self.rules.get(&name).is_some_and(|hosted| hosted.is_due(when.now)) {
                if let Some(stop) = self.stop_within(&name, seq, seq).cloned() {
                    self.stop(&name, stop.reason);
                    continue;
                }
                self.call(&name, &mut pass, &|rule, out| rule.on_tick(seq, when, out));
                self.answer(&name, when.now);
                self.run_derived(&mut pass);
            }
        }
        self.finish(pass)
    }

    /// It is known when `streams` were listened to: rules for which time goes on by that are called, those
    /// nearest to the input first.
    pub fn on_listened(
        &mut self,
        seq: u64,
        streams: &[Arc<str>],
        listened: Listened,
        when: When,
    ) -> Vec<Routed> {
        self.listened.extend(streams.iter().map(|stream| (Arc::clone(stream), listened)));
        let mut pass = Pass::of(seq, when);
        let when = self.in_new_round(when);
        for name in self.by_depth(self.rules.keys()) {
            if self.tell(&name, when.now) {
                self.call(&name, &mut pass, &|rule, out| rule.on_tick(seq, when, out));
                self.run_derived(&mut pass);
            }
        }
        self.finish(pass)
    }

    /// Tells a rule when its streams were listened to. Returns whether it wants a tick because of that.
    fn tell(&mut self, name: &Arc<str>, now: i64) -> bool {
        let Some(hosted) = self.rules.get_mut(name) else { return false };
        let inputs: BTreeSet<&Arc<str>> = hosted.rule.flows().iter().map(|flow| &flow.input).collect();
        let listened = inputs.into_iter().filter_map(|stream| {
            let roots =
                self.readers.roots(stream).into_iter().filter_map(|root| self.listened.get(&root).copied());
            Some((Arc::clone(stream), roots.reduce(Listened::and)?))
        });
        let listened: Vec<(Arc<str>, Listened)> = listened.collect();
        let wants_a_tick = !listened.is_empty()
            && hosted.rule.silences().is_some_and(|silences| silences.listened(&listened, now));
        self.look(name);
        wants_a_tick
    }

    /// The silences that rules wait for, as silences of input streams.
    #[must_use]
    pub fn silences(&self) -> Silences {
        let mut silences = Silences::new();
        for (stream, at) in self.rules.values().flat_map(|hosted| &hosted.silences) {
            for root in self.readers.roots(stream) {
                let earliest = silences.entry(root).or_insert(*at);
                *earliest = (*earliest).min(*at);
            }
        }
        silences
    }

    /// When a rule wants the next tick.
    #[must_use]
    pub fn wakes_at(&self) -> Option<i64> {
        let rules = self.wakes.first().map(|(at, _)| *at);
        rules.into_iter().chain(self.contracts.wakes_at()).min()
    }

    /// Whether it has no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The input has ended: windows close, those nearest to the input first.
    pub fn on_end(&mut self, seq: u64, when: When) -> Vec<Routed> {
        let mut pass = Pass::of(seq, when);
        let when = self.in_new_round(when);
        for name in self.by_depth(self.rules.keys()) {
            self.call(&name, &mut pass, &|rule, out| rule.on_end(seq, when, out));
            self.run_derived(&mut pass);
        }
        self.finish(pass)
    }

    /// Changes the rules. Waits for nothing but another worker's rule.
    pub async fn on_change(&mut self, change: Change) {
        match change {
            Change::Load(load) => self.load(load),
            Change::Remove(name) => {
                self.left.remove(&name);
                if let Some(hosted) = self.take_out(&name) {
                    hosted.status.running.clear();
                }
                self.contracts.rule_is_gone(&name, "was removed");
            }
            Change::Table(table, rows) => {
                self.tables.insert(Arc::clone(&table), rows);
                let names: Vec<Arc<str>> = self.rules.keys().cloned().collect();
                names.iter().for_each(|name| self.show_tables(name, Some(&table)));
            }
            Change::Give(name, to) => {
                let sharing = self.rules.get_mut(&name).and_then(|hosted| hosted.rule.sharing());
                if let Some(Err(error)) = sharing.map(|sharing| sharing.move_away(&mut self.shared)) {
                    self.stop(&name, error.to_string());
                }
                if let Some(hosted) = self.take_out(&name) {
                    // The other worker is gone only when the box is going down.
                    drop(to.send(hosted));
                }
                self.contracts.rule_is_gone(&name, "does not write to it any more");
            }
            Change::Take(name, from) => {
                if let Ok(hosted) = from.await {
                    self.put_in(name, hosted);
                }
            }
        }
    }

    /// Gives a rule the state back that it had before a restart.
    pub fn restore(&mut self, name: &Arc<str>, state: Vec<SealedState>) {
        if **name == *Contracts::STORED_AS {
            self.contracts.restore(state);
            return;
        }
        let Some(hosted) = self.rules.get_mut(name) else { return };
        match restore(&mut *hosted.rule, state) {
            Ok(misfits) => misfits.iter().for_each(|misfit| tracing::warn!(rule = %name, "{misfit}")),
            Err(error) => {
                tracing::error!(rule = %name, %error, "what the rule kept before the restart is lost")
            }
        }
        self.share(name);
        self.look(name);
    }

    /// The state of every rule that has some, as it is now.
    pub fn snapshot(&mut self) -> Vec<(Arc<str>, Vec<SealedState>)> {
        let mut states = Vec::new();
        let names: Vec<Arc<str>> = self.rules.keys().cloned().collect();
        for name in names {
            // Rules that were loaded at different times may hold the same by now.
            self.share(&name);
            match self.rules.get_mut(&name).map(|hosted| hosted.rule.snapshot()) {
                None => {}
                Some(Ok(state)) if state.is_empty() => {}
                Some(Ok(state)) => states.push((name, state)),
                Some(Err(error)) => self.stop(&name, error.to_string()),
            }
        }
        self.shared.tidy();
        states.extend(self.left.iter().map(|(name, state)| (Arc::clone(name), state.clone())));
        if !self.contracts.is_empty() {
            states.push((Arc::from(Contracts::STORED_AS), self.contracts.stored()));
        }
        states
    }

    /// Has the rule share what it can.
    fn share(&mut self, name: &Arc<str>) {
        let sharing = self.rules.get_mut(name).and_then(|hosted| hosted.rule.sharing());
        if let Some(Err(error)) = sharing.map(|sharing| sharing.share(name, &mut self.shared)) {
            self.stop(name, error.to_string());
        }
    }

    /// Stops a rule that cannot go on; nothing else is stopped. What it has kept goes to the version that
    /// mends it.
    fn stop(&mut self, name: &Arc<str>, reason: String) {
        let Some(mut hosted) = self.take_out(name) else { return };
        match catch_unwind(AssertUnwindSafe(|| hosted.rule.seal())) {
            Ok(Ok(state)) if state.is_empty() => {}
            Ok(Ok(state)) => drop(self.left.insert(Arc::clone(name), state)),
            Ok(Err(error)) => tracing::error!(rule = %name, %error, "what the rule kept is lost"),
            Err(_) => tracing::error!(rule = %name, "what the rule kept is lost"),
        }
        let advice = "change its file to start it again";
        tracing::error!(rule = %name, reason, advice, "the rule failed and is stopped");
        self.contracts.rule_is_gone(name, "failed and is stopped");
        hosted.status.running.clear();
        hosted.status.stopped.note(reason);
    }

    fn load(&mut self, load: Load) {
        let Load { version, mut rule, inherits, is_said, status } = load;
        let RuleVersion { name, hash, mode, .. } = &*version;
        let mut kept = "";
        let left = self.left.remove(&inherits).map(Ok);
        if let Some(sealed) = self.take_out(&inherits).map(|mut old| old.rule.seal()).or(left) {
            let had_none = sealed.as_ref().is_ok_and(Vec::is_empty);
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
        status.versions.add(1);
        if is_said {
            let shadow = if *mode == Mode::Shadow { " in shadow: it writes nothing" } else { "" };
            tracing::info!("rule {name}: version {} runs{shadow}{kept}", status.versions.get());
        }
        let (number, hash) = (status.versions.get(), Arc::clone(hash));
        status.running.note(Version { number, hash, mode: *mode });
        status.stopped.clear();
        // Under its own name there may be one whose state goes to nobody.
        drop(self.take_out(name));
        self.left.remove(name);
        let (bad_rows, late, ahead, forgotten, said) = Default::default();
        self.put_in(
            Arc::clone(name),
            Hosted {
                rule,
                version: Arc::clone(&version),
                status,
                bad_rows,
                late,
                ahead,
                forgotten,
                said,
                wakes_at: None,
                silences: Vec::new(),
            },
        );
        if inherits != *name {
            self.contracts.rule_is_gone(&inherits, "has another name now");
        }
        self.show_tables(name, None);
    }

    /// Tells contracts which rules write to outputs, and what they read for that.
    fn note_writers(&mut self) {
        if self.contracts.is_empty() {
            return;
        }
        let names: Vec<Arc<str>> = self.rules.keys().cloned().collect();
        for name in names {
            let Some(hosted) = self.rules.get(&name) else { continue };
            if hosted.version.mode != Mode::Active {
                self.contracts.rule_is_gone(&name, "is in shadow");
                continue;
            }
            let mut inputs: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
            for flow in hosted.rule.flows() {
                if let Target::Output(output) = &flow.target
                    && self.contracts.governs(output)
                {
                    inputs.entry(Arc::clone(output)).or_default().extend(self.readers.roots(&flow.input));
                }
            }
            let (version, rank) = (Arc::clone(&hosted.version.hash), hosted.version.rank);
            self.contracts.rule_runs(&name, Writer { version, rank, inputs });
        }
    }

    /// Shows a rule what is in `table`, or in all tables that it reads.
    fn show_tables(&mut self, name: &Arc<str>, table: Option<&Arc<str>>) {
        let lookups = self.rules.get_mut(name).and_then(|hosted| hosted.rule.lookups());
        let reads = lookups.map_or_else(Vec::new, |lookups| lookups.tables().to_vec());
        for (read, schema) in reads.into_iter().filter(|(read, _)| table.is_none_or(|table| read == table)) {
            // A version for other columns is about to be replaced, or keeps to what there was.
            if let Some(rows) = self.tables.get(&read).filter(|rows| rows.schema() == schema).cloned() {
                // A table gives no rows, so it does not matter when that is.
                self.call(name, &mut Pass::at(When::at(0)), &|rule, out| match rule.lookups() {
                    Some(lookups) => lookups.on_table(&read, &rows, out),
                    None => Ok(()),
                });
            }
        }
    }

    fn put_in(&mut self, name: Arc<str>, mut hosted: Hosted) {
        self.readers.insert(&name, &*hosted.rule);
        hosted.wakes_at = None;
        let feeds_others = hosted.rule.flows().iter().any(|flow| matches!(flow.target, Target::Stream(_)));
        self.rules.insert(Arc::clone(&name), hosted);
        // Time passes only with an entry of the sequence that says so.
        self.tell(&name, i64::MIN);
        if feeds_others {
            for other in self.by_depth(self.rules.keys()) {
                self.tell(&other, i64::MIN);
            }
        }
        self.note_writers();
        self.share(&name);
        self.look(&name);
    }

    fn take_out(&mut self, name: &Arc<str>) -> Option<Hosted> {
        let hosted = self.rules.remove(name)?;
        self.readers.remove(name, &*hosted.rule);
        self.overdue.remove(name);
        self.other_silences |= !hosted.silences.is_empty();
        if let Some(at) = hosted.wakes_at {
            self.wakes.remove(&(at, Arc::clone(name)));
        }
        Some(hosted)
    }

    /// Takes note of when the rule wants a tick now.
    fn look(&mut self, name: &Arc<str>) {
        let Some(hosted) = self.rules.get_mut(name) else { return };
        let silences = hosted.rule.silences().map_or_else(Vec::new, |silences| silences.awaited());
        self.other_silences |= hosted.silences != silences;
        hosted.silences = silences;
        let before = std::mem::replace(&mut hosted.wakes_at, hosted.rule.wakes_at());
        if hosted.wakes_at == before {
            return;
        }
        self.overdue.remove(name);
        if let Some(at) = before {
            self.wakes.remove(&(at, Arc::clone(name)));
        }
        if let Some(at) = hosted.wakes_at {
            self.wakes.insert((at, Arc::clone(name)));
        }
    }

    /// The rule had a tick at `now`. If it wants another one for a time that has passed, it would want them
    /// without end: it has to wait for a row.
    fn answer(&mut self, name: &Arc<str>, now: i64) {
        if let Some(at) = self.rules.get(name).and_then(|hosted| hosted.wakes_at).filter(|at| *at <= now) {
            self.wakes.remove(&(at, Arc::clone(name)));
            self.overdue.insert(Arc::clone(name));
        }
    }

    /// Those whose inputs are connections first, then those that read what they write, and so on.
    fn by_depth<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<str>> {
        let depth = |stream: &str| {
            self.readers.order().iter().position(|derived| &**derived == stream).map_or(0, |at| at + 1)
        };
        let of_rule =
            |name: &str| self.rules.get(name)?.rule.flows().iter().map(|flow| depth(&flow.input)).max();
        let mut names: Vec<_> = names.map(|name| (of_rule(name).unwrap_or(0), Arc::clone(name))).collect();
        names.sort();
        names.into_iter().map(|(_, name)| name).collect()
    }

    fn run_derived(&mut self, pass: &mut Pass) {
        for derived in self.readers.order().clone().iter() {
            let Some(emissions) = pass.derived.remove(derived) else { continue };
            let rows: usize = emissions.iter().map(Rows::len).sum();
            match router::merge(emissions) {
                Ok(rows) => {
                    if !self.again {
                        self.status.streams.of(derived).note(&rows, pass.when.wall_ns);
                    }
                    self.feed(derived, &rows, pass);
                }
                Err(error) => {
                    self.status.streams.of(derived).lost.add(rows as u64);
                    let why = "rows of different rules for one derived stream cannot be merged and are lost";
                    tracing::error!(stream = %derived, rows, %error, why);
                }
            }
        }
    }

    fn feed(&mut self, stream: &Arc<str>, rows: &Rows, pass: &mut Pass) {
        self.contracts.rows(stream, rows);
        let when = self.in_new_round(pass.when);
        let Concerned { rules, subsets } = self.readers.concerned(stream, rows);
        for (name, subset) in rules {
            let rows = subset.and_then(|subset| subsets.get(subset)).unwrap_or(rows);
            let last = rows.seqs.get(rows.len().saturating_sub(1));
            if let Some(stop) = self.stop_within(&name, rows.seqs.get(0), last).cloned() {
                let rows = before(rows, stop.at);
                if !rows.is_empty() {
                    self.call(&name, pass, &|rule, out| rule.on_batch(stream, &rows, when, out));
                }
                self.stop(&name, stop.reason);
                continue;
            }
            self.call(&name, pass, &|rule, out| rule.on_batch(stream, rows, when, out));
        }
    }

    /// What stopped the rule when the sequence was made, between numbers `first` and `last`.
    fn stop_within(&self, name: &str, first: u64, last: u64) -> Option<&Verdict> {
        if self.stops.is_empty() {
            return None;
        }
        let version = &self.rules.get(name)?.version.hash;
        let stops = |stop: &&Verdict| {
            stop.rule == name && *stop.version == **version && (first..=last).contains(&stop.at)
        };
        self.stops.iter().find(stops)
    }

    /// The same, for all rules that are called for one thing.
    fn in_new_round(&mut self, when: When) -> When {
        self.round += 1;
        when.in_round(self.round)
    }

    /// Calls one rule. A rule that fails or panics is stopped; nothing else is.
    fn call(&mut self, name: &Arc<str>, pass: &mut Pass, call: Call<'_>) {
        let Some(hosted) = self.rules.get_mut(name) else { return };
        let mut out = Emissions::default();
        let fence = hosted.rule.fence().cloned();
        let outcome = catch_unwind(AssertUnwindSafe(|| match (&fence, &self.watch) {
            (Some(fence), Some(watch)) => watch.over(fence, || call(&mut *hosted.rule, &mut out)),
            _ => call(&mut *hosted.rule, &mut out),
        }));
        let is_whole = outcome.is_ok();
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(format!("it panicked: {}", panic_text(&*panic))),
        };
        if let (Some(reason), Some(at)) = (&failure, out.stopped_at)
            && fence.is_some_and(|fence| fence.is_raised())
        {
            let (rule, version) = (name.to_string(), hosted.version.hash.to_string());
            self.verdicts.push(Verdict { rule, version, at, reason: reason.clone() });
            for emission in &mut out.rows {
                emission.rows = before(&emission.rows, at);
            }
            out.rows.retain(|emission| !emission.rows.is_empty());
        }
        if self.again {
            hosted.status.state_bytes.set(out.state_bytes);
        } else {
            hosted.note(&out, pass.when.wall_ns);
        }
        if hosted.version.mode == Mode::Active {
            pass.take(&hosted.version, out.rows);
        }
        match failure {
            None => self.look(name),
            Some(reason) => {
                self.stop(name, reason);
                if !is_whole {
                    // After a panic nobody knows what it is.
                    self.left.remove(name);
                }
            }
        }
    }

    /// What goes out of it; what is claimed of outputs with a contract goes there.
    fn finish(&mut self, pass: Pass) -> Vec<Routed> {
        let mut routed = Vec::new();
        for Written { version, emissions } in pass.written {
            let ordinals = Emissions::ordinals(&emissions);
            for (Emission { target, rows }, ordinals) in emissions.into_iter().zip(ordinals) {
                match &target {
                    Target::Output(output) if self.contracts.governs(output) => {
                        self.contracts.claims(output, &version.name, rows, ordinals);
                    }
                    _ => routed.push(Routed { version: Arc::clone(&version), target, rows, ordinals }),
                }
            }
        }
        let When { now, wall_ns, .. } = pass.when;
        let Made { orders, decisions } = self.contracts.settle(At { seq: pass.seq, now, wall_ns });
        self.made.orders.extend(orders);
        self.made.decisions.extend(decisions);
        routed
    }
}

/// One call of a rule.
type Call<'a> = &'a dyn Fn(&mut dyn Rule, &mut Emissions) -> Result<(), RuleError>;

/// What the rules wrote for one entry of the sequence.
struct Pass {
    /// the number of the entry, or of the first row in it
    seq: u64,
    /// when the entry came
    when: When,
    /// in the order of the first emission of each rule
    written: Vec<Written>,
    /// not yet handed to the readers
    derived: BTreeMap<Arc<str>, Vec<Rows>>,
}

/// What one rule wrote.
struct Written {
    version: Arc<RuleVersion>,
    emissions: Vec<Emission>,
}

impl Pass {
    fn at(when: When) -> Self {
        Self::of(0, when)
    }

    fn of(seq: u64, when: When) -> Self {
        Self { seq, when, written: Vec::new(), derived: BTreeMap::new() }
    }

    fn take(&mut self, version: &Arc<RuleVersion>, emissions: Vec<Emission>) {
        if emissions.is_empty() {
            return;
        }
        for emission in &emissions {
            if let Target::Stream(derived) = &emission.target {
                self.derived.entry(Arc::clone(derived)).or_default().push(emission.rows.clone());
            }
        }
        match self.written.iter_mut().find(|written| Arc::ptr_eq(&written.version, version)) {
            Some(written) => written.emissions.extend(emissions),
            None => self.written.push(Written { version: Arc::clone(version), emissions }),
        }
    }
}

/// Those of `rows` that have smaller numbers than `at`.
fn before(rows: &Rows, at: u64) -> Rows {
    let count = (0..rows.len()).take_while(|row| rows.seqs.get(*row) < at).count();
    rows.slice(0, count)
}

fn restore(rule: &mut dyn Rule, state: Vec<SealedState>) -> Result<Vec<String>, RuleError> {
    if state.is_empty() { Ok(Vec::new()) } else { rule.restore(state) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no reason given".to_owned())
}

#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
pub(crate) mod tests;
