//! A map of many fields, and the fewest requests that can read it.

use crate::device::{MOST_BITS, MOST_REGISTERS};

/// What a user writes about a field of registers, how many it takes, and whether the next field is in the
/// same register.
const KINDS: [(&str, u16, bool); 9] = [
    (r#", type = "uint16""#, 1, false),
    (r#", type = "float32", order = "CDAB""#, 2, false),
    (r#", type = "int16", scale = 0.1"#, 1, false),
    (", bit = 3", 1, true),
    (", bit = 11", 1, false),
    (r#", type = "int32""#, 2, false),
    (r#", type = "uint16", values = { 0 = "off", 1 = "on" }"#, 1, false),
    (r#", type = "float64""#, 4, false),
    (r#", type = "string", length = 6"#, 6, false),
];

/// The tables, how many fields are there, and the most that one request reads.
const TABLES: [(&str, usize, u16); 4] = [
    ("holding", 140, MOST_REGISTERS),
    ("input", 25, MOST_REGISTERS),
    ("coil", 25, MOST_BITS),
    ("discrete", 10, MOST_BITS),
];

/// A field: where it is, and what a user writes about it.
#[derive(Debug, Clone)]
pub struct Field {
    table: &'static str,
    address: u16,
    width: u16,
    kind: &'static str,
}

impl Field {
    /// As it stands in a configuration.
    pub fn point(&self) -> String {
        format!("{{ {} = {}{} }}", self.table, self.address, self.kind)
    }
}

/// 200 fields of several types: mostly side by side, after every seventh some registers that nobody wants,
/// and after the ninetieth many.
pub fn map() -> Vec<Field> {
    let mut fields = Vec::new();
    for (table, count, most) in TABLES {
        let mut address = 0;
        for (number, (kind, width, shared)) in KINDS.into_iter().cycle().take(count).enumerate() {
            let (kind, width, shared) =
                if most == MOST_BITS { ("", 1, false) } else { (kind, width, shared) };
            fields.push(Field { table, address, width, kind });
            let unwanted = match number {
                _ if shared => continue,
                number if number % 90 == 89 => 400,
                number if number % 7 == 6 => 1 + number as u16 % 5,
                _ => 0,
            };
            address += width + unwanted;
        }
    }
    fields
}

/// The fewest requests that read all fields, none of them in two parts, with at most `gap` registers side by
/// side that nobody asked for. Every way to cut a table into requests is tried.
pub fn fewest_requests(fields: &[Field], gap: u16) -> usize {
    let of_table = |(table, _, most): (&str, usize, u16)| {
        let here = fields.iter().filter(|field| field.table == table);
        let mut places: Vec<_> = here.map(|field| (field.address, field.address + field.width)).collect();
        places.sort_unstable();
        // Of the first field, of the first two, and so on.
        let mut fewest = vec![0];
        for end in 1..=places.len() {
            let last_request = |begin: usize| places.get(begin..end).is_some_and(|run| fits(run, most, gap));
            let cuts = fewest.iter().enumerate().filter(|(begin, _)| last_request(*begin));
            fewest.push(cuts.map(|(_, before)| before + 1).min().unwrap_or(places.len()));
        }
        fewest.pop().unwrap_or_default()
    };
    TABLES.into_iter().map(of_table).sum()
}

/// Whether one request can read these places, each from its first register to behind its last.
fn fits(places: &[(u16, u16)], most: u16, gap: u16) -> bool {
    let Some(&(begin, _)) = places.first() else { return false };
    let mut reached = begin;
    for &(from, to) in places {
        if from > reached + gap {
            return false;
        }
        reached = reached.max(to);
    }
    reached - begin <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(places: &[(u16, u16)]) -> Vec<Field> {
        let field = |(address, width)| Field { table: "holding", address, width, kind: "" };
        places.iter().copied().map(field).collect()
    }

    #[test]
    fn requests_are_counted_as_by_hand() {
        let fields = registers(&[(0, 10), (10, 2), (15, 1)]);
        assert_eq!([0, 2, 3].map(|gap| fewest_requests(&fields, gap)), [2, 2, 1]);
        // 125 registers are one request; the 126th, or a field that reaches beyond, is another.
        let side_by_side: Vec<_> = (0..125).map(|address| (address, 1)).collect();
        assert_eq!(fewest_requests(&registers(&side_by_side), 0), 1);
        assert_eq!(fewest_requests(&registers(&[&side_by_side[..], &[(125, 1)]].concat()), 0), 2);
        assert_eq!(fewest_requests(&registers(&[&side_by_side[..124], &[(124, 2)]].concat()), 0), 2);
        let mut two_tables = registers(&[(0, 1), (1, 1)]);
        two_tables[1].table = "input";
        assert_eq!(fewest_requests(&two_tables, 0), 2);
    }

    #[test]
    fn the_map_has_200_fields_that_do_not_overlap_but_for_bits() {
        let fields = map();
        assert_eq!(fields.len(), 200);
        for pair in fields.windows(2).filter(|pair| pair[0].table == pair[1].table) {
            let same_register = pair[0].address == pair[1].address && pair[1].kind.starts_with(", bit");
            assert!(same_register || pair[0].address + pair[0].width <= pair[1].address, "{pair:?}");
        }
    }
}
