//! An index over what rules ask of the rows of one stream: which rules can make anything of a batch, and of
//! which of its rows?
//!
//! A rule that looks at rows one by one says what a row must look like at least ([`Prefilter`]): a value of
//! one term, bounds of another. Rules that ask for a value are found by it, whatever else they ask for; the
//! rest are found by their bounds, sorted. So the cost of a batch is that of the rules that it concerns, and
//! hardly that of the others. What a prefilter cannot express is left to the rule: the index names every rule
//! that can match, and some that cannot.
//!
//! A term is a column, or something computed of columns, which is computed once a batch however many rules
//! ask for it. A term that is not of the type that a prefilter names, or that cannot be computed for a batch,
//! concerns every rule that asks for it.

mod column;
mod prefilter;

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use column::Values;
pub use prefilter::{Band, Equal, Prefilter, Source, Term, Value};

/// A term is computed when so many rules ask for it: fewer compute it themselves.
const SHARED: usize = 4;

/// Rules, by the rows that concern them. `K` names a rule.
#[derive(Debug)]
pub struct Index<K> {
    rules: BTreeMap<K, Arc<[Prefilter]>>,
    /// rules that ask for a value
    values: HashMap<Term, ByValue<K>>,
    /// rules that do not
    others: Bands<K>,
    /// of the next bucket
    number: u32,
}

/// Which rules a batch concerns.
#[derive(Debug, PartialEq, Eq)]
pub struct Concerned<'a, K> {
    /// The rules in their order, each with the index of its rows in `subsets`. `None`: all rows.
    pub rules: Vec<(&'a K, Option<usize>)>,
    /// Rows of the batch, ascending.
    pub subsets: Vec<Vec<u32>>,
}

/// Rules that ask for a value of one term.
#[derive(Debug)]
struct ByValue<K> {
    /// how many
    rules: usize,
    numbers: HashMap<i64, Bucket<K>>,
    texts: HashMap<Arc<str>, Bucket<K>>,
}

/// Rules that ask for the same value.
#[derive(Debug)]
struct Bucket<K> {
    number: u32,
    rules: Bands<K>,
}

/// Rules, by the bounds that they ask for.
#[derive(Debug)]
struct Bands<K> {
    /// rules that ask for none
    any: Vec<K>,
    terms: HashMap<Term, ByBand<K>>,
}

/// Rules that ask for bounds of one term.
#[derive(Debug)]
struct ByBand<K> {
    /// how many
    rules: usize,
    /// by the lower bound: the upper bound, and the rule
    low: BTreeMap<i64, Vec<(i64, K)>>,
    /// those without a lower bound, by the upper bound
    high: BTreeMap<i64, Vec<K>>,
}

impl<K: Ord + Clone> Default for Index<K> {
    fn default() -> Self {
        Self { rules: BTreeMap::new(), values: HashMap::new(), others: Bands::default(), number: 0 }
    }
}

impl<K> Default for Bands<K> {
    fn default() -> Self {
        Self { any: Vec::new(), terms: HashMap::new() }
    }
}

impl<K: Ord + Clone> Index<K> {
    /// The number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules, in their order.
    pub fn rules(&self) -> impl Iterator<Item = &K> {
        self.rules.keys()
    }

    /// Adds `rule`, which rows concern that fulfil one of `prefilters`.
    pub fn insert(&mut self, rule: K, prefilters: Arc<[Prefilter]>) {
        self.remove(&rule);
        for prefilter in prefilters.iter() {
            let Some(Equal { term, value }) = &prefilter.equal else {
                self.others.insert(&rule, prefilter.band.as_ref());
                continue;
            };
            let by = self.values.entry(term.clone()).or_default();
            by.rules += 1;
            self.number = self.number.wrapping_add(1);
            let new = Bucket { number: self.number, rules: Bands::default() };
            let bucket = match value {
                Value::Number(number) => by.numbers.entry(*number).or_insert(new),
                Value::Text(text) => by.texts.entry(Arc::clone(text)).or_insert(new),
            };
            bucket.rules.insert(&rule, prefilter.band.as_ref());
        }
        self.rules.insert(rule, prefilters);
    }

    /// Removes `rule`.
    pub fn remove<Q: Ord + ?Sized>(&mut self, rule: &Q)
    where
        K: Borrow<Q>,
    {
        let Some((rule, prefilters)) = self.rules.remove_entry(rule) else { return };
        for prefilter in prefilters.iter() {
            let Some(Equal { term, value }) = &prefilter.equal else {
                self.others.remove(&rule, prefilter.band.as_ref());
                continue;
            };
            let Some(by) = self.values.get_mut(term) else { continue };
            by.rules -= 1;
            match value {
                Value::Number(number) => take_from(&mut by.numbers, number, &rule, prefilter.band.as_ref()),
                Value::Text(text) => take_from(&mut by.texts, text, &rule, prefilter.band.as_ref()),
            }
            if by.rules == 0 {
                self.values.remove(term);
            }
        }
    }

    /// The rules that can make anything of `batch`, and of which of its rows.
    #[must_use]
    pub fn concerned(&self, batch: &RecordBatch) -> Concerned<'_, K> {
        let mut found = Concerned { rules: Vec::new(), subsets: Vec::new() };
        if batch.num_rows() == 0 {
            return found;
        }
        self.others.find(batch, None, &mut found);
        for (term, by) in &self.values {
            by.find(term, batch, &mut found);
        }
        found.in_order();
        found
    }
}

impl<K: Ord> Concerned<'_, K> {
    /// Puts the rules into their order, each once.
    fn in_order(&mut self) {
        self.rules.sort_unstable();
        let Self { rules, subsets } = self;
        // A rule that all rows concern comes with `None` first.
        rules.dedup_by(|next, first| {
            if next.0 != first.0 {
                return false;
            }
            if let (Some(a), Some(b)) = (first.1, next.1)
                && a != b
            {
                first.1 = Some(subsets.len());
                subsets.push(union(subsets.get(a), subsets.get(b)));
            }
            true
        });
    }
}

fn union(a: Option<&Vec<u32>>, b: Option<&Vec<u32>>) -> Vec<u32> {
    let mut rows: Vec<u32> = a.into_iter().chain(b).flatten().copied().collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

impl<K> Default for ByValue<K> {
    fn default() -> Self {
        Self { rules: 0, numbers: HashMap::new(), texts: HashMap::new() }
    }
}

impl<K: Ord + Clone> ByValue<K> {
    fn find<'a>(&'a self, term: &Term, batch: &RecordBatch, found: &mut Concerned<'a, K>) {
        let array = looked_up(term, self.rules, batch);
        let Some(values) = array.as_ref().and_then(|array| Values::downcast(array, term.kind)) else {
            let buckets = self.numbers.values().chain(self.texts.values());
            return buckets.for_each(|bucket| bucket.rules.all(None, found));
        };
        let rows = batch.num_rows();
        let mut concerned: Vec<(&Bucket<K>, Vec<u32>)> = Vec::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut last: Option<(Key<'_>, Option<usize>)> = None;
        for row in 0..rows {
            let key = values.text(row).map(Key::Text).or_else(|| values.number(row).map(Key::Number));
            let Some(key) = key else { continue };
            // Rows of one device often come one after the other.
            let place = match last {
                Some((before, place)) if before == key => place,
                _ => self.bucket(key).map(|bucket| {
                    *places.entry(bucket.number).or_insert_with(|| {
                        concerned.push((bucket, Vec::new()));
                        concerned.len() - 1
                    })
                }),
            };
            last = Some((key, place));
            if let Some((_, bucket_rows)) = place.and_then(|place| concerned.get_mut(place)) {
                bucket_rows.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
        }
        for (bucket, bucket_rows) in concerned {
            let subset = if bucket_rows.len() == rows {
                None
            } else {
                found.subsets.push(bucket_rows);
                Some(found.subsets.len() - 1)
            };
            bucket.rules.find(batch, subset, found);
        }
    }

    fn bucket(&self, key: Key<'_>) -> Option<&Bucket<K>> {
        match key {
            Key::Number(number) => self.numbers.get(&number),
            Key::Text(text) => self.texts.get(text),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Key<'a> {
    Number(i64),
    Text(&'a str),
}

fn take_from<V: Hash + Eq, K: Ord + Clone>(
    buckets: &mut HashMap<V, Bucket<K>>,
    value: &V,
    rule: &K,
    band: Option<&Band>,
) {
    let Some(bucket) = buckets.get_mut(value) else { return };
    bucket.rules.remove(rule, band);
    if bucket.rules.is_empty() {
        buckets.remove(value);
    }
}

impl<K: Ord + Clone> Bands<K> {
    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.terms.is_empty()
    }

    fn insert(&mut self, rule: &K, band: Option<&Band>) {
        let Some(Band { term, low, high }) = band else { return self.any.push(rule.clone()) };
        let by = self.terms.entry(term.clone()).or_default();
        by.rules += 1;
        match *low {
            i64::MIN => by.high.entry(*high).or_default().push(rule.clone()),
            low => by.low.entry(low).or_default().push((*high, rule.clone())),
        }
    }

    fn remove(&mut self, rule: &K, band: Option<&Band>) {
        let Some(Band { term, low, high }) = band else { return self.any.retain(|other| other != rule) };
        let Some(by) = self.terms.get_mut(term) else { return };
        by.rules -= 1;
        if *low == i64::MIN {
            if let Some(rules) = by.high.get_mut(high) {
                rules.retain(|other| other != rule);
                forget_if_empty(&mut by.high, *high);
            }
        } else if let Some(rules) = by.low.get_mut(low) {
            rules.retain(|(_, other)| other != rule);
            forget_if_empty(&mut by.low, *low);
        }
        if by.rules == 0 {
            self.terms.remove(term);
        }
    }

    /// Adds the rules that rows of `subset` concern.
    fn find<'a>(&'a self, batch: &RecordBatch, subset: Option<usize>, found: &mut Concerned<'a, K>) {
        found.rules.extend(self.any.iter().map(|rule| (rule, subset)));
        for (term, by) in &self.terms {
            let array = looked_up(term, by.rules, batch);
            let Some(values) = array.as_ref().and_then(|array| Values::downcast(array, term.kind)) else {
                by.all(subset, found);
                continue;
            };
            let extent = match subset.and_then(|subset| found.subsets.get(subset)) {
                Some(rows) => values.extent(rows.iter().map(|row| *row as usize)),
                None => values.extent(0..batch.num_rows()),
            };
            let Some((least, greatest)) = extent else { continue };
            let low =
                by.low.range(..=greatest).flat_map(|(_, rules)| rules).filter(|(high, _)| *high >= least);
            found.rules.extend(low.map(|(_, rule)| (rule, subset)));
            found
                .rules
                .extend(by.high.range(least..).flat_map(|(_, rules)| rules).map(|rule| (rule, subset)));
        }
    }

    fn all<'a>(&'a self, subset: Option<usize>, found: &mut Concerned<'a, K>) {
        found.rules.extend(self.any.iter().map(|rule| (rule, subset)));
        self.terms.values().for_each(|by| by.all(subset, found));
    }
}

impl<K> Default for ByBand<K> {
    fn default() -> Self {
        Self { rules: 0, low: BTreeMap::new(), high: BTreeMap::new() }
    }
}

impl<K> ByBand<K> {
    fn all<'a>(&'a self, subset: Option<usize>, found: &mut Concerned<'a, K>) {
        found.rules.extend(self.low.values().flatten().map(|(_, rule)| (rule, subset)));
        found.rules.extend(self.high.values().flatten().map(|rule| (rule, subset)));
    }
}

fn forget_if_empty<T>(lists: &mut BTreeMap<i64, Vec<T>>, bound: i64) {
    if lists.get(&bound).is_some_and(Vec::is_empty) {
        lists.remove(&bound);
    }
}

/// The values of `term`, if it pays to look for the rules that ask for it.
fn looked_up(term: &Term, rules: usize, batch: &RecordBatch) -> Option<ArrayRef> {
    if term.is_computed() && rules < SHARED { None } else { term.array(batch) }
}

#[cfg(test)]
mod tests;
