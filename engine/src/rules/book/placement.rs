//! Which worker each rule lives on.
//!
//! Rules that share a derived stream or an output live on one worker, so that their rows keep their order.
//! Putting a rule where the others are costs the same however many they are; only a rule that ties together
//! what was apart makes others move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_rules::{Catalog, Flow, Target};

/// Where all rules live.
pub(super) struct Placement {
    places: BTreeMap<Arc<str>, Place>,
    /// rules by the derived streams and outputs that they touch
    tied: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// number of rules by worker
    load: Vec<usize>,
    /// what is on one worker for good: rules that touch it live there
    pinned: BTreeMap<Arc<str>, usize>,
}

struct Place {
    worker: usize,
    ties: BTreeSet<Arc<str>>,
}

/// A rule that moves from one worker to another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub rule: Arc<str>,
    pub from: usize,
    pub to: usize,
}

impl Placement {
    pub(super) fn new(workers: usize) -> Self {
        let pinned = BTreeMap::new();
        Self { places: BTreeMap::new(), tied: BTreeMap::new(), load: vec![0; workers.max(1)], pinned }
    }

    /// The same; rules that touch one of `ties` live on `worker`.
    pub(super) fn pin(&mut self, ties: impl IntoIterator<Item = Arc<str>>, worker: usize) {
        self.pinned.extend(ties.into_iter().map(|tie| (tie, worker)));
    }

    /// The worker that one of `ties` is on for good.
    fn pinned_to<'a>(&self, mut ties: impl Iterator<Item = &'a Arc<str>>) -> Option<usize> {
        ties.find_map(|tie| self.pinned.get(tie).copied())
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.load.len()
    }

    /// The worker that rule `name` lives on.
    pub(super) fn worker_of(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|place| place.worker)
    }

    /// The rules that touch this derived stream or output.
    pub(super) fn touching(&self, tie: &str) -> impl Iterator<Item = &Arc<str>> {
        self.tied.get(tie).into_iter().flatten()
    }

    /// Rule `name` is gone. Returns the worker that it lived on.
    pub(super) fn leave(&mut self, name: &str) -> Option<usize> {
        let Place { worker, ties } = self.places.remove(name)?;
        for tie in ties {
            if let Some(rules) = self.tied.get_mut(&tie) {
                rules.remove(name);
                if rules.is_empty() {
                    self.tied.remove(&tie);
                }
            }
        }
        if let Some(load) = self.load.get_mut(worker) {
            *load = load.saturating_sub(1);
        }
        Some(worker)
    }

    /// Rule `name` has these ties now. It stays where it is, on `worker` if it was there before, or goes
    /// where there are the fewest.
    pub(super) fn settle(
        &mut self,
        name: &Arc<str>,
        worker: Option<usize>,
        ties: BTreeSet<Arc<str>>,
    ) -> usize {
        let before = self.leave(name);
        let with_others = || ties.iter().find_map(|tie| self.worker_of(self.tied.get(tie)?.first()?));
        let fewest = || self.load.iter().zip(0..).min().map_or(0, |(_, worker)| worker);
        let pinned = || self.pinned_to(ties.iter());
        let worker = before.or(worker).or_else(pinned).or_else(with_others).unwrap_or_else(fewest);
        for tie in &ties {
            self.tied.entry(Arc::clone(tie)).or_default().insert(Arc::clone(name));
        }
        if let Some(load) = self.load.get_mut(worker) {
            *load += 1;
        }
        self.places.insert(Arc::clone(name), Place { worker, ties });
        worker
    }

    /// Moves `name` and all rules that must live with it to one worker: the one that has most of them.
    pub(super) fn bring_together(&mut self, name: &Arc<str>) -> Vec<Move> {
        let family = || self.family(name);
        let ties = |rule: &Arc<str>| self.places.get(rule).map(|place| &place.ties);
        if self.are_together(name) {
            let pinned = ties(name).and_then(|ties| self.pinned_to(ties.iter()));
            if pinned.is_none() || pinned == self.worker_of(name) {
                return Vec::new();
            }
        }
        let family = family();
        let pinned = family.iter().find_map(|member| self.pinned_to(ties(member)?.iter()));
        let mut votes = vec![0_usize; self.load.len()];
        for worker in family.iter().filter_map(|member| self.worker_of(member)) {
            if let Some(count) = votes.get_mut(worker) {
                *count += 1;
            }
        }
        let most = votes.iter().zip(0..).max_by_key(|(votes, worker)| (**votes, usize::MAX - worker));
        let to = pinned.unwrap_or(most.map_or(0, |(_, worker)| worker));
        let mut moves = Vec::new();
        for rule in family {
            let Some(place) = self.places.get_mut(&rule).filter(|place| place.worker != to) else { continue };
            let from = std::mem::replace(&mut place.worker, to);
            for (worker, load) in self.load.iter_mut().enumerate() {
                *load =
                    if worker == from { load.saturating_sub(1) } else { *load + usize::from(worker == to) };
            }
            moves.push(Move { rule, from, to });
        }
        moves
    }

    /// Whether `name` lives where those do that it shares something with; they were together before.
    fn are_together(&self, name: &Arc<str>) -> bool {
        let Some(place) = self.places.get(name) else { return true };
        let others =
            place.ties.iter().filter_map(|tie| self.tied.get(tie)?.iter().find(|other| *other != name));
        others.filter_map(|other| self.worker_of(other)).all(|worker| worker == place.worker)
    }

    /// `name` and every rule that shares a derived stream or an output with it, or with one that does.
    pub(super) fn family(&self, name: &Arc<str>) -> BTreeSet<Arc<str>> {
        let mut family = BTreeSet::new();
        let mut seen: BTreeSet<&Arc<str>> = BTreeSet::new();
        let mut next = vec![name];
        while let Some(member) = next.pop() {
            if !family.insert(Arc::clone(member)) {
                continue;
            }
            let ties = self.places.get(member).into_iter().flat_map(|place| &place.ties);
            next.extend(ties.filter(|tie| seen.insert(tie)).filter_map(|tie| self.tied.get(tie)).flatten());
        }
        family
    }
}

/// Names of the derived streams and outputs that a rule touches.
pub(super) fn ties(flows: &[Flow], catalog: &Catalog) -> BTreeSet<Arc<str>> {
    let read = flows.iter().map(|flow| &flow.input).filter(|input| catalog.derived.contains_key(&***input));
    let written = flows.iter().filter_map(|flow| match &flow.target {
        Target::Stream(name) | Target::Output(name) => Some(name),
        Target::Uplink => None,
    });
    read.chain(written).cloned().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Rules that share something live together, whatever comes and goes, and nobody moves without a
        /// reason.
        #[test]
        fn rules_that_share_something_live_together(
            changes in prop::collection::vec((0_usize..12, prop::option::weighted(0.8, prop::collection::btree_set(0_usize..9, 0..3))), 1..60),
            workers in 1_usize..5,
        ) {
            let mut placement = Placement::new(workers);
            for (rule, ties) in changes {
                let rule: Arc<str> = format!("r{rule}").into();
                let Some(ties) = ties else {
                    placement.leave(&rule);
                    continue;
                };
                let ties = ties.into_iter().map(|tie| format!("t{tie}").into()).collect();
                placement.settle(&rule, None, ties);
                let before: BTreeMap<_, _> = placement.places.keys().map(|name| (Arc::clone(name), placement.worker_of(name).unwrap())).collect();
                let moves = placement.bring_together(&rule);
                for Move { rule, from, to } in &moves {
                    prop_assert_eq!((before[rule], placement.worker_of(rule)), (*from, Some(*to)));
                    prop_assert_ne!(from, to);
                }
                for rules in placement.tied.values() {
                    let at: BTreeSet<_> = rules.iter().map(|name| placement.worker_of(name)).collect();
                    prop_assert_eq!(at.len(), 1);
                }
                let mut load = vec![0; workers];
                placement.places.values().for_each(|place| load[place.worker] += 1);
                prop_assert_eq!(&load, &placement.load);
            }
        }
    }
}
