//! Where two versions did not write the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::replay::chunk::Chunk;
use crate::replay::results::RowsAsJson;
use crate::replay::written;

/// Differences that are told one by one.
const MOST: usize = 20;

/// Who wrote something, and where it went.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// the rule; absent: it is what the output would have been sent, whoever wanted it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// the output, the derived stream or the uplink
    pub target: Arc<str>,
    /// which of what the output moves, such as `line=7`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Arc<str>>,
}

/// One thing that was written.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// the event time of what led to it
    pub(super) at: i64,
    /// what led to it
    pub(super) cause: String,
    /// the row of the chunk that did, if one did
    pub(super) row: Option<usize>,
    pub(super) place: Place,
    /// a JSON object
    pub(super) what: String,
}

/// How much was written.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// by whom, and where it went
    #[serde(flatten)]
    pub place: Place,
    /// rows of the version that runs
    pub now: u64,
    /// rows of the version that was tested
    pub new: u64,
    /// those that are the same, for the same reason
    pub same: u64,
}

/// The versions did not write the same for the same reason.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// the event time of what led to it, RFC 3339
    pub time: String,
    /// the stream of the row that led to it and its number in the sequence, `time`, `answer`, `start` or
    /// `end`
    pub cause: String,
    /// that row
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<Value>,
    /// by whom, and where it went
    #[serde(flatten)]
    pub place: Place,
    /// what only the version that runs wrote
    pub now: Vec<Value>,
    /// what only the version that was tested wrote
    pub new: Vec<Value>,
}

/// All of them: counted, and the first ones as they are.
#[derive(Default)]
pub(super) struct Differences {
    counts: BTreeMap<Place, (u64, u64, u64)>,
    first: Vec<Difference>,
    all: u64,
    rows: RowsAsJson,
}

/// What both wrote to one place because of one thing.
#[derive(Default)]
struct Both {
    row: Option<usize>,
    now: Vec<String>,
    new: Vec<String>,
}

impl Differences {
    /// Compares what came of the same rows.
    pub(super) fn note(&mut self, chunk: Option<&Chunk>, now: Vec<Item>, new: Vec<Item>) {
        let mut all: BTreeMap<(i64, String, Place), Both> = BTreeMap::new();
        for (items, is_new) in [(now, false), (new, true)] {
            for Item { at, cause, row, place, what } in items {
                let both = all.entry((at, cause, place)).or_default();
                both.row = both.row.or(row);
                if is_new { both.new.push(what) } else { both.now.push(what) }
            }
        }
        for ((at, cause, place), Both { row, mut now, mut new }) in all {
            let count = self.counts.entry(place.clone()).or_default();
            (count.0, count.1) = (count.0 + now.len() as u64, count.1 + new.len() as u64);
            now.retain(|one| match new.iter().position(|other| other == one) {
                Some(same) => {
                    new.remove(same);
                    count.2 += 1;
                    false
                }
                None => true,
            });
            if now.is_empty() && new.is_empty() {
                continue;
            }
            self.all += 1;
            if self.first.len() < MOST {
                let row = chunk.zip(row).and_then(|(chunk, row)| {
                    let mut json = Vec::new();
                    self.rows.write(&chunk.rows, row, &mut json);
                    serde_json::from_slice(&json).ok()
                });
                let [now, new] = [now, new]
                    .map(|texts| texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect());
                self.first.push(Difference { time: written(at), cause, row, place, now, new });
            }
        }
    }

    /// How much was written, how often it was not the same, and the first of these.
    pub(super) fn finish(self) -> (Vec<Count>, u64, Vec<Difference>) {
        let count = |(place, (now, new, same))| Count { place, now, new, same };
        (self.counts.into_iter().map(count).collect(), self.all, self.first)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn item(at: i64, rule: Option<&str>, what: &str) -> Item {
        let place = Place { rule: rule.map(Arc::from), target: "pump".into(), instance: None };
        Item { at, cause: format!("tank:{at}"), row: None, place, what: what.to_owned() }
    }

    #[test]
    fn the_same_for_the_same_reason_is_no_difference() {
        let mut differences = Differences::default();
        let (on, off) = ("{\"run\":true}", "{\"run\":false}");
        let now = vec![item(1, Some("a"), on), item(2, Some("a"), off), item(3, None, on), item(3, None, on)];
        let new = vec![item(1, Some("a"), on), item(2, Some("a"), on), item(3, None, on), item(4, None, on)];
        differences.note(None, now, new);
        let (counts, all, first) = differences.finish();
        let counts: Vec<_> = counts
            .iter()
            .map(|count| (count.place.rule.as_deref(), count.now, count.new, count.same))
            .collect();
        assert_eq!(counts, [(None, 2, 2, 1), (Some("a"), 2, 2, 1)]);
        assert_eq!(all, 3);
        let told: Vec<_> =
            first.iter().map(|one| (one.cause.as_str(), one.now.len(), one.new.len())).collect();
        assert_eq!(told, [("tank:2", 1, 1), ("tank:3", 1, 0), ("tank:4", 0, 1)]);
    }

    #[test]
    fn the_first_are_told_and_all_are_counted() {
        let mut differences = Differences::default();
        for at in 0..50 {
            differences.note(None, Vec::new(), vec![item(at, Some("a"), "{}")]);
        }
        let (_, all, first) = differences.finish();
        assert_eq!((all, first.len()), (50, MOST));
    }
}
