//! How large the pages of a column become: what their headers say, which is what the reader makes room for.
//!
//! A header is a struct of [Thrift's compact
//! protocol](https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md); of it, only
//! the two sizes of
//! [`PageHeader`](https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift) are
//! looked at.

/// Structs in structs; a header has three.
const DEEPEST: u32 = 8;

/// Of fields of a header: the unpacked and the stored size of its page.
const UNPACKED: i64 = 2;
const STORED: i64 = 3;

/// What kinds of values are called.
const I32: u8 = 5;

/// The sum of the unpacked sizes of `pages`, one behind the other. `None`: they are none.
pub(super) fn unpacked(pages: &[u8]) -> Option<u64> {
    let (mut rest, mut sum) = (Compact(pages), 0_u64);
    while !rest.0.is_empty() {
        let (mut unpacked, mut stored) = (None, None);
        rest.each_field(DEEPEST, &mut |id, kind, header, depth| {
            match (id, kind) {
                (UNPACKED, I32) => unpacked = Some(header.zigzag()?),
                (STORED, I32) => stored = Some(header.zigzag()?),
                _ => header.skip(kind, depth)?,
            }
            Some(())
        })?;
        rest.jump(u64::try_from(stored?).ok()?)?;
        sum = sum.saturating_add(u64::try_from(unpacked?).ok()?);
    }
    Some(sum)
}

/// Bytes that are read from the front.
struct Compact<'a>(&'a [u8]);

/// Is told of a field: its id and kind, and how many structs its value may be deep. It must take or skip the
/// value.
type Visit<'v, 'a> = dyn FnMut(i64, u8, &mut Compact<'a>, u32) -> Option<()> + 'v;

impl<'a> Compact<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn jump(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn each_field(&mut self, depth: u32, visit: &mut Visit<'_, 'a>) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let mut id = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match i64::from(head >> 4) {
                0 => self.zigzag()?,
                delta => id.checked_add(delta)?,
            };
            visit(id, head & 0x0f, self, depth)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            // a boolean is its kind
            1 | 2 => Some(()),
            3 => self.jump(1),
            4..=6 => self.varint().map(drop),
            7 => self.jump(8),
            8 => {
                let length = self.varint()?;
                self.jump(length)
            }
            12 => self.each_field(depth, &mut |_, kind, header, depth| header.skip(kind, depth)),
            // A header has no lists, sets and maps.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unpacked;

    /// Fields 1 to 3: a data page, 300 bytes unpacked, two stored. Field 5: a struct with a number, a boolean
    /// and a text. Then the page.
    const PAGE: &[u8] = &[0x15, 0, 0x15, 0xd8, 0x04, 0x15, 4, 0x2c, 0x15, 2, 0x11, 0x18, 1, b'x', 0, 0, 7, 7];

    #[test]
    fn sizes_of_pages_are_added_up() {
        assert_eq!(unpacked(&[]), Some(0));
        assert_eq!(unpacked(PAGE), Some(300));
        assert_eq!(unpacked(&[PAGE, PAGE].concat()), Some(600));
    }

    #[test]
    fn what_is_cut_or_is_no_header_is_no_page() {
        for end in 1..PAGE.len() {
            assert_eq!(PAGE.get(..end).and_then(unpacked), None, "cut after {end}");
        }
        // Negative sizes, structs without end, a list, and a number of too many bytes.
        assert_eq!(unpacked(&[0x25, 1, 0x15, 0, 0]), None);
        assert_eq!(unpacked(&[0x1c; 100]), None);
        assert_eq!(unpacked(&[0x19, 0, 0]), None);
        assert_eq!(unpacked(&[[0x25].as_slice(), &[0xff; 20]].concat()), None);
    }
}
