//! Which requests read a map of points. Pure.

use super::config::{MOST_BITS, MOST_REGISTERS};
use super::points::{Point, Table};

/// What a device gives at a time, and what may be read beside what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// most registers of one request
    pub registers: u16,
    /// most coils or discrete inputs of one request
    pub bits: u16,
    /// Up to how many of them that nobody asked for are read to save a request.
    pub gap: u16,
    /// Whether each point has a request of its own.
    pub one_each: bool,
}

impl Default for Limits {
    /// What the protocol allows, and nothing beside what is wanted.
    fn default() -> Self {
        Self { registers: MOST_REGISTERS, bits: MOST_BITS, gap: 0, one_each: false }
    }
}

/// One reading request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// which table
    pub table: Table,
    /// the first register or bit
    pub address: u16,
    /// how many
    pub count: u16,
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            1 => write!(f, "{} {}", self.table, self.address),
            count => write!(
                f,
                "{}s {} to {}",
                self.table,
                self.address,
                u32::from(self.address) + u32::from(count) - 1
            ),
        }
    }
}

impl Span {
    fn end(self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    fn around(point: &Point) -> Self {
        Self { table: point.table, address: point.address, count: point.count }
    }

    /// The span that reaches to `point`, too, if it is one request.
    fn joined(self, point: &Point, limits: Limits) -> Option<Self> {
        let most = if point.table.is_bits() { limits.bits } else { limits.registers };
        let end = self.end().max(point.end());
        let count = u16::try_from(end.checked_sub(u32::from(self.address))?).ok()?;
        let near = u32::from(point.address) <= self.end() + u32::from(limits.gap);
        (self.table == point.table && near && count <= most).then_some(Self { count, ..self })
    }
}

/// A request, and the points that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// what is asked for
    pub span: Span,
    /// The points by their places in the map, each with its place in the answer.
    pub points: Vec<(usize, usize)>,
}

/// Puts points that are near each other into one request. Taking as much as fits from the lowest address on
/// gives the fewest requests.
#[must_use]
pub fn plan(points: &[Point], limits: Limits) -> Vec<Read> {
    let mut sorted: Vec<(usize, &Point)> = points.iter().enumerate().collect();
    sorted.sort_by_key(|(_, point)| (point.table, point.address, point.count));
    let mut reads: Vec<Read> = Vec::new();
    for (index, point) in sorted {
        if let Some(last) = reads.last_mut().filter(|_| !limits.one_each)
            && let Some(span) = last.span.joined(point, limits)
        {
            last.span = span;
            last.points.push((index, usize::from(point.address - span.address)));
        } else {
            reads.push(Read { span: Span::around(point), points: vec![(index, 0)] });
        }
    }
    reads
}

/// The same points with a request for each: for a device that refuses a part of what was asked for at once.
#[must_use]
pub fn apart(read: &Read, points: &[Point]) -> Vec<Read> {
    let each = read.points.iter().filter_map(|(index, _)| Some((*index, points.get(*index)?)));
    each.map(|(index, point)| Read { span: Span::around(point), points: vec![(index, 0)] }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::points::Spelling;
    use super::super::points::config::{PointConfig, ValueType};
    use super::*;

    fn point(table: Table, address: u16, length: u16) -> Point {
        let mut config = PointConfig::default();
        match table {
            Table::Coil => config.coil = Some(address),
            Table::Discrete => config.discrete = Some(address),
            Table::Input => config.input = Some(address),
            Table::Holding => config.holding = Some(address),
        }
        if !table.is_bits() {
            (config.value_type, config.length) = (Some(ValueType::String), Some(length));
        }
        Point::parse("p", &config, Spelling::default()).unwrap()
    }

    fn spans(points: &[Point], limits: Limits) -> Vec<(u16, u16)> {
        plan(points, limits).iter().map(|read| (read.span.address, read.span.count)).collect()
    }

    const STANDARD: Limits = Limits { registers: 125, bits: 2000, gap: 0, one_each: false };

    #[test]
    fn neighbours_share_a_request_and_gaps_are_filled_up_to_the_setting() {
        let points = [
            point(Table::Holding, 10, 2),
            point(Table::Holding, 0, 10),
            point(Table::Holding, 15, 1),
            point(Table::Input, 16, 1),
        ];
        assert_eq!(spans(&points, STANDARD), [(16, 1), (0, 12), (15, 1)]);
        assert_eq!(spans(&points, Limits { gap: 2, ..STANDARD }), [(16, 1), (0, 12), (15, 1)]);
        assert_eq!(spans(&points, Limits { gap: 3, ..STANDARD }), [(16, 1), (0, 16)]);
        assert_eq!(spans(&points, Limits { gap: 3, registers: 15, ..STANDARD }), [(16, 1), (0, 12), (15, 1)]);
        let one_each = spans(&points, Limits { one_each: true, ..STANDARD });
        assert_eq!(one_each, [(16, 1), (0, 10), (10, 2), (15, 1)]);
    }

    prop_compose! {
        fn a_point()(table in 0..4, address in 0_u16..400, length in 1_u16..20) -> Point {
            let table = [Table::Coil, Table::Discrete, Table::Input, Table::Holding][table as usize];
            point(table, address, length)
        }
    }

    proptest! {
        #[test]
        fn every_point_is_read_and_nothing_beyond_the_settings(
            points in prop::collection::vec(a_point(), 1..40),
            registers in 20_u16..=125, bits in 1_u16..=2000, gap in 0_u16..30, one_each: bool,
        ) {
            let limits = Limits { registers, bits, gap, one_each };
            let reads = plan(&points, limits);
            let mut seen = BTreeSet::new();
            for read in &reads {
                let most = if read.span.table.is_bits() { bits } else { registers };
                prop_assert!(read.span.count <= most, "{read:?}");
                let mut wanted = BTreeSet::new();
                for (index, offset) in &read.points {
                    let point = &points[*index];
                    prop_assert!(seen.insert(*index), "once each");
                    prop_assert_eq!(point.table, read.span.table);
                    prop_assert_eq!(usize::from(read.span.address) + offset, usize::from(point.address));
                    prop_assert!(point.end() <= read.span.end());
                    wanted.extend(u32::from(point.address)..point.end());
                }
                prop_assert_eq!(wanted.first().copied(), Some(u32::from(read.span.address)));
                prop_assert_eq!(wanted.last().copied(), Some(read.span.end() - 1));
                // The longest stretch that nobody asked for.
                let (mut stretch, mut longest) = (0, 0);
                for address in u32::from(read.span.address)..read.span.end() {
                    stretch = if wanted.contains(&address) { 0 } else { stretch + 1 };
                    longest = longest.max(stretch);
                }
                prop_assert!(longest <= u32::from(gap), "{read:?}");
                prop_assert!(!one_each || read.points.len() == 1);
            }
            prop_assert_eq!(seen.len(), points.len());
            // Neighbouring requests could not have been one.
            for pair in reads.windows(2).filter(|_| !one_each) {
                let (a, b) = (pair[0].span, pair[1].span);
                let first = &points[pair[1].points[0].0];
                let most = u32::from(if b.table.is_bits() { bits } else { registers });
                prop_assert!(
                    a.table != b.table
                        || u32::from(first.address) > a.end() + u32::from(gap)
                        || a.end().max(first.end()) - u32::from(a.address) > most
                );
            }
        }
    }
}
