//! In which order derived streams are run.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The derived streams of `edges` (from, to), each after all that lead to it. Streams on a circle, which the
/// rule book refuses, are left out.
pub(crate) fn topological(mut edges: BTreeSet<(Arc<str>, Arc<str>)>) -> Vec<Arc<str>> {
    let mut waiting: BTreeSet<Arc<str>> = edges.iter().map(|(_, to)| Arc::clone(to)).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(next) = waiting
        .iter()
        .find(|stream| edges.iter().all(|(from, to)| to != *stream || !waiting.contains(from)))
        .cloned()
    {
        waiting.remove(&next);
        edges.retain(|(_, to)| *to != next);
        order.push(next);
    }
    order
}
