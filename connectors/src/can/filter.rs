//! Which frames the kernel shall hand over: few filters that let through all that is wanted.

use std::collections::BTreeSet;

use super::id::{Id, IdRange, MOST_EXTENDED, MOST_STANDARD, is_addressed};

/// The most that a raw socket takes (`CAN_RAW_FILTER_MAX`, `linux/can/raw.h`).
pub const MOST_FILTERS: usize = 512;

/// Tells ids of 29 bits in a filter (`CAN_EFF_FLAG`).
const EXTENDED: u32 = 1 << 31;

/// What a stream needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// frames with these ids
    Ids(IdRange),
    /// a parameter group of J1939, with any priority and destination
    Group {
        /// its number
        pgn: u32,
        /// who sends it; none: anybody
        source: Option<u8>,
    },
}

/// Lets a frame through if its id and `id` are equal in the bits of `mask` (`struct can_filter`). Bit 31 is
/// always one of them; those of remote and error frames are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    /// the mask; in front, so that filters that can be joined lie side by side
    pub mask: u32,
    /// the id, in the bits of the mask
    pub id: u32,
}

impl Filter {
    fn new(id: u32, mask: u32) -> Self {
        Self { mask, id: id & mask }
    }

    /// Whether a frame with this id passes.
    #[must_use]
    pub fn passes(self, id: Id) -> bool {
        let flag = if id.is_extended() { EXTENDED } else { 0 };
        (id.number() | flag) & self.mask == self.id
    }

    /// Whether all that passes `other` passes it, too.
    fn covers(self, other: Self) -> bool {
        self.mask & other.mask == self.mask && other.id & self.mask == self.id
    }
}

/// Filters for everything that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// at most [`MOST_FILTERS`]; a frame passes if it passes one of them
    pub list: Vec<Filter>,
    /// whether nothing passes but what is wanted
    pub exact: bool,
}

/// Filters that let all of `wanted` through. If there would be too many of them, they let more through.
#[must_use]
pub fn filters(wanted: &[Wanted]) -> Filters {
    let mut set: BTreeSet<Filter> = wanted.iter().flat_map(|wanted| exact(*wanted)).collect();
    set = joined(set);
    let exact = set.len() <= MOST_FILTERS;
    // The low bits of ids are the least of what tells them apart: the source address, or the last digit.
    for bit in 0..29 {
        if set.len() <= MOST_FILTERS {
            break;
        }
        set = set.into_iter().map(|filter| Filter::new(filter.id, filter.mask & !(1 << bit))).collect();
    }
    if !exact {
        set = joined(set);
    }
    Filters { list: set.into_iter().collect(), exact }
}

fn exact(wanted: Wanted) -> Vec<Filter> {
    match wanted {
        Wanted::Ids(range) => blocks(range),
        Wanted::Group { pgn, source } => {
            let group = if is_addressed(pgn) { 0x3_ff00 } else { 0x3_ffff };
            let (source, sources) = source.map_or((0, 0), |source| (u32::from(source), 0xff));
            vec![Filter::new(EXTENDED | pgn << 8 | source, EXTENDED | group << 8 | sources)]
        }
    }
}

/// A range as blocks whose ids have their high bits in common.
fn blocks(range: IdRange) -> Vec<Filter> {
    let (all, flag) =
        if range.first().is_extended() { (MOST_EXTENDED, EXTENDED) } else { (MOST_STANDARD, 0) };
    let (mut first, last) = (range.first().number(), range.last().number());
    let mut blocks = Vec::new();
    while first <= last {
        // The greatest block that begins here and does not go beyond the end.
        let fits = |bits: &u32| {
            let more = (1_u32 << bits) - 1;
            first & more == 0 && more <= last - first
        };
        let bits = (0..=29).take_while(fits).last().unwrap_or(0);
        let more = (1_u32 << bits) - 1;
        blocks.push(Filter::new(first | flag, EXTENDED | all & !more));
        first += more + 1;
    }
    blocks
}

/// The same with fewer filters: those that others cover are left out, and pairs that differ in one bit are one.
fn joined(mut filters: BTreeSet<Filter>) -> BTreeSet<Filter> {
    loop {
        let pair = |filter: &Filter| {
            let bits =
                (0..29).map(|bit| 1 << bit).filter(|bit| filter.mask & bit != 0 && filter.id & bit == 0);
            bits.map(|bit| (Filter { id: filter.id | bit, ..*filter }, bit))
                .find(|(other, _)| filters.contains(other))
        };
        let mut taken = BTreeSet::new();
        let mut pairs = Vec::new();
        for filter in &filters {
            if let Some((other, bit)) = pair(filter)
                && !taken.contains(filter)
                && !taken.contains(&other)
            {
                taken.extend([*filter, other]);
                pairs.push(Filter::new(filter.id, filter.mask & !bit));
            }
        }
        if pairs.is_empty() {
            break;
        }
        filters.retain(|filter| !taken.contains(filter));
        filters.extend(pairs);
    }
    // Those with fewer bits in their masks may cover others; there are few masks.
    let masks: BTreeSet<u32> = filters.iter().map(|filter| filter.mask).collect();
    let is_covered = |filter: &Filter| {
        masks.iter().any(|mask| {
            let wider = Filter::new(filter.id, *mask);
            *mask != filter.mask && wider.covers(*filter) && filters.contains(&wider)
        })
    };
    filters.iter().filter(|filter| !is_covered(filter)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(range: &str) -> Wanted {
        Wanted::Ids(range.parse().unwrap())
    }

    fn list(wanted: &[Wanted]) -> Vec<(u32, u32)> {
        filters(wanted).list.into_iter().map(|filter| (filter.id, filter.mask)).collect()
    }

    #[test]
    fn ranges_and_groups_become_masks() {
        // As candump has them: 100:7FF is one id, 100:700 are 256.
        assert_eq!(list(&[ids("0x100")]), [(0x100, 0x8000_07ff)]);
        assert_eq!(list(&[ids("0x100-0x1ff")]), [(0x100, 0x8000_0700)]);
        assert_eq!(list(&[ids("0x0-0x7ff")]), [(0, 0x8000_0000)]);
        assert_eq!(list(&[ids("0x0x-0x1FFFFFFFx")]), [(0x8000_0000, 0x8000_0000)]);
        assert_eq!(list(&[ids("0x18FEF100x")]), [(0x98fe_f100, 0x9fff_ffff)]);
        assert_eq!(list(&[ids("0x100"), ids("0x101"), ids("0x100-0x1ff")]), [(0x100, 0x8000_0700)]);
        let group = |pgn, source| Wanted::Group { pgn, source };
        assert_eq!(list(&[group(61_444, None)]), [(0x80f0_0400, 0x83ff_ff00)]);
        assert_eq!(list(&[group(61_444, Some(3))]), [(0x80f0_0403, 0x83ff_ffff)]);
        assert_eq!(list(&[group(59_904, None)]), [(0x80ea_0000, 0x83ff_0000)]);
        assert_eq!(list(&[]), []);
    }

    fn any_range() -> impl Strategy<Value = Wanted> {
        let range = |(is_extended, first, length): (bool, u32, u32)| {
            let id = |number: u32| if is_extended { Id::extended(number) } else { Id::standard(number) };
            let most = if is_extended { MOST_EXTENDED } else { MOST_STANDARD };
            let first = first.min(most);
            IdRange::new(id(first)?, id((first + length).min(most))?).map(Wanted::Ids)
        };
        (any::<bool>(), prop_oneof![0..4096_u32, 0..=MOST_EXTENDED], prop_oneof![Just(0), 0..300_u32])
            .prop_filter_map("a range", range)
    }

    fn any_wanted() -> impl Strategy<Value = Wanted> {
        prop_oneof![
            8 => any_range(),
            1 => (0..=0x3_ffff_u32, any::<Option<u8>>())
                .prop_map(|(pgn, source)| Wanted::Group { pgn, source }),
        ]
    }

    fn is_wanted(wanted: &[Wanted], id: Id) -> bool {
        wanted.iter().any(|wanted| match wanted {
            Wanted::Ids(range) => range.contains(id),
            Wanted::Group { pgn, source } => {
                let pgn = if is_addressed(*pgn) { pgn & !0xff } else { *pgn };
                super::super::id::J1939Id::parse(id)
                    .is_some_and(|id| id.pgn == pgn && source.is_none_or(|source| source == id.source))
            }
        })
    }

    fn check(wanted: &[Wanted], ids: impl IntoIterator<Item = Id>) -> Result<(), TestCaseError> {
        let filters = filters(wanted);
        prop_assert!(filters.list.len() <= MOST_FILTERS);
        for id in ids {
            let passes = filters.list.iter().any(|filter| filter.passes(id));
            let is_wanted = is_wanted(wanted, id);
            prop_assert!(passes || !is_wanted, "{} is wanted", id);
            prop_assert!(!filters.exact || passes == is_wanted, "{} is not wanted", id);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_wanted_always_passes(
            wanted in proptest::collection::vec(any_wanted(), 0..30),
            others in proptest::collection::vec(0..=MOST_EXTENDED, 50),
        ) {
            let edges = wanted.iter().filter_map(|wanted| match wanted {
                Wanted::Ids(range) => Some([range.first(), range.last()]),
                Wanted::Group { .. } => None,
            });
            let groups = wanted.iter().filter_map(|wanted| match wanted {
                Wanted::Group { pgn, source } => Id::extended(pgn << 8 | u32::from(source.unwrap_or(7))),
                Wanted::Ids(_) => None,
            });
            let near = edges.flatten().flat_map(|id| {
                let number = id.number();
                let make = if id.is_extended() { Id::extended } else { Id::standard };
                [number.wrapping_sub(1), number, number + 1].into_iter().filter_map(make)
            });
            let standard = (0..=MOST_STANDARD).filter_map(Id::standard);
            let others = others.iter().filter_map(|number| Id::extended(*number));
            check(&wanted, near.chain(groups).chain(standard).chain(others))?;
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn too_many_are_joined_and_say_so(
            numbers in proptest::collection::btree_set(0..=MOST_EXTENDED, 1500..3000),
        ) {
            let ids: Vec<Id> = numbers.iter().filter_map(|number| Id::extended(*number)).collect();
            let wanted: Vec<Wanted> = ids.iter().map(|id| Wanted::Ids((*id).into())).collect();
            prop_assert!(!filters(&wanted).exact);
            check(&wanted, ids)?;
        }
    }
}
