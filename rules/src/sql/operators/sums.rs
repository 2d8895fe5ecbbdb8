//! Rows are added up group by group, with DataFusion's `GroupsAccumulator`s.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

use super::accumulate::{Addends, Adder, AggregateCall};

/// What has been added up so far, for each key that had rows, in the order in which these came. Keys are
/// known by their number in the operator's [`Keys`](super::keys::Keys), so that a key is looked for once a
/// row, however many windows there are.
pub(super) struct Sums {
    places: Places,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl std::fmt::Debug for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sums").field("groups", &self.len()).finish_non_exhaustive()
    }
}

/// The same at rest.
#[derive(Clone)]
pub(super) struct SumsAtRest {
    pub rows: usize,
    /// the numbers of the keys
    pub keys: Arc<[u32]>,
    pub states: Vec<Vec<ArrayRef>>,
    /// about how much memory they take
    pub bytes: usize,
}

impl Sums {
    pub(super) fn new(accumulators: Vec<Box<dyn GroupsAccumulator>>) -> Self {
        Self { places: Places::default(), accumulators }
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.places.keys.len()
    }

    pub(super) fn bytes(&self) -> usize {
        // An accumulator's size is that of its lists, without itself.
        let itself: usize = self
            .accumulators
            .iter()
            .map(|accumulator| size_of_val(accumulator) + size_of_val(&**accumulator))
            .sum();
        self.places.bytes()
            + itself
            + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }

    /// The numbers of the keys.
    pub(super) fn keys(&self) -> &[u32] {
        &self.places.keys
    }

    /// Calls keys by their new numbers.
    pub(super) fn renumber(&mut self, new: &[u32]) {
        let old = std::mem::take(&mut self.places);
        self.places.groups_of(renumbered(&old.keys, new).map(|number| number as usize), &mut Vec::new());
    }

    /// Adds rows, of which the keys are numbered. `groups` is room for their group indices, so that it is
    /// allocated once.
    pub(super) fn add(&mut self, rows: &Addends, groups: &mut Vec<usize>) -> Result<()> {
        self.places.groups_of(rows.numbers.iter().copied(), groups);
        let total = self.len();
        for ((accumulator, arguments), filter) in
            self.accumulators.iter_mut().zip(&rows.arguments).zip(&rows.filters)
        {
            accumulator.update_batch(arguments, groups, filter.as_ref(), total)?;
        }
        Ok(())
    }

    /// Adds what others have added up.
    pub(super) fn merge(&mut self, other: &SumsAtRest, groups: &mut Vec<usize>) -> Result<()> {
        self.places.groups_of(other.keys.iter().map(|number| *number as usize), groups);
        let total = self.len();
        for (accumulator, state) in self.accumulators.iter_mut().zip(&other.states) {
            accumulator.merge_batch(state, groups, total)?;
        }
        Ok(())
    }

    /// Takes over the state of each of `calls` for the keys with these numbers.
    pub(super) fn restore(
        &mut self,
        numbers: &[usize],
        states: &[Option<Vec<ArrayRef>>],
        calls: &[AggregateCall],
    ) -> Result<()> {
        let mut groups = Vec::new();
        self.places.groups_of(numbers.iter().copied(), &mut groups);
        let total = self.len();
        for ((accumulator, state), call) in self.accumulators.iter_mut().zip(states).zip(calls) {
            match state {
                Some(state) => accumulator.merge_batch(state, &groups, total)?,
                None => call.begin(&mut **accumulator, &groups, total)?,
            }
        }
        Ok(())
    }

    /// The number of each group's key, and the value of each aggregate.
    pub(super) fn finish(mut self) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let values = self
            .accumulators
            .iter_mut()
            .map(|accumulator| accumulator.evaluate(EmitTo::All))
            .collect::<Result<_>>()?;
        Ok((self.places.keys, values))
    }

    pub(super) fn rest(mut self) -> Result<SumsAtRest> {
        let states: Vec<Vec<ArrayRef>> = self
            .accumulators
            .iter_mut()
            .map(|accumulator| accumulator.state(EmitTo::All))
            .collect::<Result<_>>()?;
        let keys: Arc<[u32]> = self.places.keys.into();
        let of_states: usize = states.iter().flatten().map(|column| column.get_array_memory_size()).sum();
        Ok(SumsAtRest { rows: keys.len(), bytes: size_of_val(&*keys) + of_states, keys, states })
    }
}

impl SumsAtRest {
    /// Calls keys by their new numbers.
    pub(super) fn renumber(&mut self, new: &[u32]) {
        self.keys = renumbered(&self.keys, new).collect();
    }
}

fn renumbered<'a>(old: &'a [u32], new: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    old.iter().map(|number| new.get(*number as usize).copied().unwrap_or(u32::MAX))
}

/// Which group a key has.
#[derive(Default)]
struct Places {
    /// the number of each group's key
    keys: Vec<u32>,
    /// the group of each key with a number below its length, or [`NONE`]
    dense: Vec<u32>,
    /// that of others
    sparse: HashMap<u32, u32>,
}

const NONE: u32 = u32::MAX;

/// How many places there may be in [`Places::dense`] for each group: a window in which few of many keys have
/// rows must not pay for all.
const ROOM: usize = 16;

impl Places {
    fn bytes(&self) -> usize {
        4 * (self.keys.capacity() + self.dense.capacity()) + 9 * self.sparse.capacity()
    }

    /// Writes the groups of the keys with these numbers to `groups`. A new key begins a new group.
    fn groups_of(&mut self, numbers: impl Iterator<Item = usize>, groups: &mut Vec<usize>) {
        groups.clear();
        groups.extend(numbers.map(|number| match self.dense.get(number) {
            Some(group) if *group != NONE => *group as usize,
            _ => self.enter(number),
        }));
    }

    /// The group of a key that has none in `dense`.
    fn enter(&mut self, number: usize) -> usize {
        let next = self.keys.len();
        let (key, group) = (u32::try_from(number).unwrap_or(NONE), u32::try_from(next).unwrap_or(NONE));
        if number >= self.dense.len() && number < ROOM * (next + ROOM) {
            self.widen(number);
        }
        let found = match self.dense.get_mut(number) {
            Some(place) => {
                if *place == NONE {
                    *place = group;
                }
                *place
            }
            None => *self.sparse.entry(key).or_insert(group),
        };
        if found == group {
            self.keys.push(key);
        }
        found as usize
    }

    /// Makes room in `dense` for the key with this number.
    fn widen(&mut self, number: usize) {
        // By half at least: all steps together take little longer than the last.
        let len = (number + 1).max(self.dense.len() + self.dense.len() / 2);
        self.dense.resize(len, NONE);
        let dense = &mut self.dense;
        self.sparse.retain(|key, group| match dense.get_mut(*key as usize) {
            Some(place) => {
                *place = *group;
                false
            }
            None => true,
        });
    }
}

/// What rows add up to that come all at once.
pub(super) struct Total {
    keys: Box<dyn GroupValues>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl Total {
    /// `keys` are the columns of [`Addends::keys`].
    pub(super) fn new(parts: &[Addends], keys: &SchemaRef, adder: &Adder) -> Result<Self> {
        let mut total = Self {
            keys: new_group_values(Arc::clone(keys), &GroupOrdering::None)?,
            accumulators: adder.accumulators()?,
        };
        let mut groups = Vec::new();
        for rows in parts {
            total.keys.intern(&rows.keys, &mut groups)?;
            let groups_so_far = total.keys.len();
            for ((accumulator, arguments), filter) in
                total.accumulators.iter_mut().zip(&rows.arguments).zip(&rows.filters)
            {
                accumulator.update_batch(arguments, &groups, filter.as_ref(), groups_so_far)?;
            }
        }
        Ok(total)
    }

    /// The keys of each group, and the value of each aggregate.
    pub(super) fn values(mut self) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let values = self
            .accumulators
            .iter_mut()
            .map(|accumulator| accumulator.evaluate(EmitTo::All))
            .collect::<Result<_>>()?;
        Ok((self.keys.emit(EmitTo::All)?, values))
    }

    /// The keys of each group, and the state of each aggregate, one after the other.
    pub(super) fn states(mut self) -> Result<Vec<ArrayRef>> {
        let states: Vec<Vec<ArrayRef>> = self
            .accumulators
            .iter_mut()
            .map(|accumulator| accumulator.state(EmitTo::All))
            .collect::<Result<_>>()?;
        Ok(self.keys.emit(EmitTo::All)?.into_iter().chain(states.into_iter().flatten()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(places: &mut Places, numbers: &[usize]) -> Vec<usize> {
        let mut groups = Vec::new();
        places.groups_of(numbers.iter().copied(), &mut groups);
        groups
    }

    #[test]
    fn groups_are_numbered_in_the_order_in_which_keys_come() {
        let mut places = Places::default();
        assert_eq!(groups(&mut places, &[5, 3, 5, 900_000, 3]), [0, 1, 0, 2, 1]);
        assert_eq!(groups(&mut places, &[900_000, 900_001, 5]), [2, 3, 0]);
        assert_eq!(places.keys, [5, 3, 900_000, 900_001]);
    }

    #[test]
    fn few_of_many_keys_take_little_room() {
        let mut places = Places::default();
        let far: Vec<usize> = (0..100).map(|n| 1_000_000 - n * 1_000).collect();
        assert_eq!(groups(&mut places, &far), (0..100).collect::<Vec<_>>());
        assert!(places.bytes() < 100 * 64, "{}", places.bytes());
    }

    #[test]
    fn keys_that_were_far_apart_are_found_when_there_are_many() {
        let mut places = Places::default();
        let backwards: Vec<usize> = (0..70_000).rev().collect();
        let expected: Vec<usize> = (0..70_000).collect();
        assert_eq!(groups(&mut places, &backwards), expected);
        assert_eq!(groups(&mut places, &backwards), expected);
        assert_eq!(groups(&mut places, &[70_000]), [70_000]);
        assert!(places.sparse.is_empty());
        assert_eq!(groups(&mut places, &backwards), expected);
    }
}
