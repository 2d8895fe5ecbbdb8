//! Which rules read which streams, and which of them a batch concerns.
//!
//! Rules come and go one at a time, and each change costs the same however many others there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::index::{self, Index};
use tidegate_rules::{Flow, Rule, Target};

/// Looking a batch up pays from so many rules on: below, all of them are called.
const FEW: usize = 8;

/// Which rules a batch concerns.
#[derive(Default)]
pub(super) struct Concerned {
    /// In the order of their names, each with the index of its rows in `subsets`. `None`: all rows.
    pub rules: Vec<(Arc<str>, Option<usize>)>,
    /// rows of the batch
    pub subsets: Vec<Rows>,
}

/// Of the rules of one worker.
#[derive(Default)]
pub(super) struct Readers {
    streams: BTreeMap<Arc<str>, OfStream>,
    flows: Edges,
}

/// The rules that read one stream.
#[derive(Default)]
struct OfStream {
    /// those that must see every row
    every_row: BTreeSet<Arc<str>>,
    others: Index<Arc<str>>,
}

impl Readers {
    pub(super) fn insert(&mut self, name: &Arc<str>, rule: &dyn Rule) {
        for stream in inputs(rule.flows()) {
            let readers = self.streams.entry(Arc::clone(stream)).or_default();
            match rule.indexed().and_then(|indexed| indexed.prefilters(stream)) {
                Some(prefilters) => readers.others.insert(Arc::clone(name), prefilters),
                None => drop(readers.every_row.insert(Arc::clone(name))),
            }
        }
        self.flows.insert(rule.flows());
    }

    pub(super) fn remove(&mut self, name: &str, rule: &dyn Rule) {
        for stream in inputs(rule.flows()) {
            let Some(readers) = self.streams.get_mut(stream) else { continue };
            readers.others.remove(name);
            readers.every_row.remove(name);
            if readers.others.is_empty() && readers.every_row.is_empty() {
                self.streams.remove(stream);
            }
        }
        self.flows.remove(rule.flows());
    }

    pub(super) fn has(&self, stream: &str) -> bool {
        self.streams.contains_key(stream)
    }

    /// The derived streams that rules lead to; each comes after the streams that lead to it.
    pub(super) fn order(&self) -> &Arc<[Arc<str>]> {
        &self.flows.order
    }

    /// The input streams from which data flows into `stream`; of one that no rule writes, itself.
    pub(super) fn roots(&self, stream: &Arc<str>) -> BTreeSet<Arc<str>> {
        let (mut roots, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![stream]);
        while let Some(stream) = left.pop() {
            let before = self.flows.counts.keys().filter(|(_, to)| to == stream).map(|(from, _)| from);
            let known = left.len();
            left.extend(before.filter(|from| seen.insert(Arc::clone(from))));
            if left.len() == known && !self.flows.order.contains(stream) {
                roots.insert(Arc::clone(stream));
            }
        }
        roots
    }

    /// The rules that `rows` of `stream` concern.
    pub(super) fn concerned(&self, stream: &str, rows: &Rows) -> Concerned {
        let Some(OfStream { every_row, others }) = self.streams.get(stream) else {
            return Concerned::default();
        };
        let mut concerned = if others.len() < FEW {
            Concerned {
                rules: others.rules().map(|name| (Arc::clone(name), None)).collect(),
                subsets: Vec::new(),
            }
        } else {
            let index::Concerned { rules, subsets } = others.concerned(&rows.batch);
            let rules = rules.into_iter().map(|(name, subset)| (Arc::clone(name), subset)).collect();
            // Rows that could not be taken are not lost: the rule leaves out what does not concern it anyway.
            let only = |wanted: Vec<u32>| only(rows, &wanted).unwrap_or_else(|_| rows.clone());
            Concerned { rules, subsets: subsets.into_iter().map(only).collect() }
        };
        if !every_row.is_empty() {
            concerned.rules.extend(every_row.iter().map(|name| (Arc::clone(name), None)));
            concerned.rules.sort_unstable();
        }
        concerned
    }
}

fn inputs(flows: &[Flow]) -> BTreeSet<&Arc<str>> {
    flows.iter().map(|flow| &flow.input).collect()
}

fn only(rows: &Rows, wanted: &[u32]) -> Result<Rows, ArrowError> {
    // Most of them: leaving the others out costs more than it saves.
    if wanted.len() * 2 > rows.len() {
        return Ok(rows.clone());
    }
    let seqs = match &rows.seqs {
        Seqs::One { seq } => Seqs::One { seq: *seq },
        seqs => Seqs::list(wanted.iter().map(|row| seqs.get(*row as usize)).collect()),
    };
    Ok(Rows { batch: take_record_batch(&rows.batch, &UInt32Array::from(wanted.to_vec()))?, seqs })
}

/// From which streams data flows into which derived streams.
#[derive(Default)]
struct Edges {
    /// how many flows of rules there are from one to the other
    counts: BTreeMap<(Arc<str>, Arc<str>), usize>,
    order: Arc<[Arc<str>]>,
}

impl Edges {
    fn insert(&mut self, flows: &[Flow]) {
        let mut new = false;
        for edge in edges(flows) {
            let count = self.counts.entry(edge).or_default();
            new |= *count == 0;
            *count += 1;
        }
        self.arrange(new);
    }

    fn remove(&mut self, flows: &[Flow]) {
        let mut gone = false;
        for edge in edges(flows) {
            let Some(count) = self.counts.get_mut(&edge) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&edge);
                gone = true;
            }
        }
        self.arrange(gone);
    }

    fn arrange(&mut self, changed: bool) {
        if changed {
            self.order = crate::rules::order::topological(self.counts.keys().cloned().collect()).into();
        }
    }
}

fn edges(flows: &[Flow]) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
    flows.iter().filter_map(|flow| match &flow.target {
        Target::Stream(derived) => Some((Arc::clone(&flow.input), Arc::clone(derived))),
        Target::Output(_) | Target::Uplink => None,
    })
}
