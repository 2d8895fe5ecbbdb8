//! Where a signal's bits are in a payload.

/// In which order the bytes of a signal come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Intel: the least first; the start bit is the least
    Little,
    /// Motorola: the greatest first; the start bit is the greatest
    Big,
}

/// Up to 64 bits in up to nine bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    start: u16,
    width: u8,
    order: ByteOrder,
    /// the bytes that have them
    first: u16,
    last: u16,
    /// how many bits of the least byte are below them
    shift: u8,
}

impl Bits {
    /// The least bit of the first byte.
    pub(super) const FIRST: Self =
        Self { start: 0, width: 1, order: ByteOrder::Little, first: 0, last: 0, shift: 0 };

    /// Bits as a DBC file names them: bit 0 is the least of byte 0, bit 8 the least of byte 1, in both
    /// orders. None: more than 64 or none at all, or behind what could be counted.
    #[must_use]
    pub fn new(start: u64, width: u64, order: ByteOrder) -> Option<Self> {
        let start = u16::try_from(start).ok()?;
        let width = u8::try_from(width).ok().filter(|width| (1..=64).contains(width))?;
        let more = u16::from(width) - 1;
        let (last, shift) = match order {
            ByteOrder::Little => (start.checked_add(more)? / 8, start % 8),
            ByteOrder::Big => {
                // Counted in the order of transmission, where the greatest bit of a byte comes first.
                let end = (start ^ 7).checked_add(more)?;
                (end / 8, 7 - end % 8)
            }
        };
        Some(Self { start, width, order, first: start / 8, last, shift: u8::try_from(shift).ok()? })
    }

    /// The start bit as in the file.
    #[must_use]
    pub fn start(self) -> u16 {
        self.start
    }

    /// How many there are.
    #[must_use]
    pub fn width(self) -> u8 {
        self.width
    }

    /// In which order their bytes come.
    #[must_use]
    pub fn order(self) -> ByteOrder {
        self.order
    }

    /// How many bytes a payload must have for all of them to be in it.
    #[must_use]
    pub fn reach(self) -> usize {
        usize::from(self.last) + 1
    }

    /// The greatest number that they hold.
    #[must_use]
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - u32::from(self.width))
    }

    /// What is in them; None: the payload ends before.
    #[must_use]
    pub fn read(self, payload: &[u8]) -> Option<u64> {
        // Most frames have eight bytes, which are one number.
        if self.last < 8
            && let Some(bytes) = payload.first_chunk()
        {
            let number = match self.order {
                ByteOrder::Little => u64::from_le_bytes(*bytes) >> (8 * self.first),
                ByteOrder::Big => u64::from_be_bytes(*bytes) >> (8 * (7 - self.last)),
            };
            return Some(number >> self.shift & self.mask());
        }
        let bytes = payload.get(usize::from(self.first)..=usize::from(self.last))?;
        if bytes.len() > 8 {
            return Some(self.read_wide(bytes));
        }
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let number = match self.order {
            ByteOrder::Little => bytes.iter().rev().fold(0, join),
            ByteOrder::Big => bytes.iter().fold(0, join),
        };
        Some(number >> self.shift & self.mask())
    }

    #[expect(clippy::cast_possible_truncation, reason = "they are 64 at most")]
    fn read_wide(self, bytes: &[u8]) -> u64 {
        let join = |number: u128, byte: &u8| number << 8 | u128::from(*byte);
        let number = match self.order {
            ByteOrder::Little => bytes.iter().rev().fold(0, join),
            ByteOrder::Big => bytes.iter().fold(0, join),
        };
        (number >> self.shift) as u64 & self.mask()
    }

    /// Puts `raw` into them; bytes that the payload does not have are left out.
    pub fn write(self, payload: &mut [u8], raw: u64) {
        let mut number = u128::from(raw & self.mask()) << self.shift;
        for (byte, mask) in self.bytes() {
            let [low, ..] = number.to_le_bytes();
            number >>= 8;
            if let Some(byte) = payload.get_mut(byte) {
                *byte = *byte & !mask | low & mask;
            }
        }
    }

    /// The bytes from the least to the greatest, each with those of its bits that are meant.
    pub fn bytes(self) -> impl Iterator<Item = (usize, u8)> {
        let mask = u128::from(self.mask()) << self.shift;
        (0..=self.last - self.first).map(move |place| {
            let byte = match self.order {
                ByteOrder::Little => self.first + place,
                ByteOrder::Big => self.last - place,
            };
            let [low, ..] = (mask >> (8 * u32::from(place))).to_le_bytes();
            (byte.into(), low)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, bit by bit, by the definition: the bits of a Motorola signal go down within a byte, and on
    /// at bit 7 of the next one.
    fn by_definition(start: u16, width: u8, order: ByteOrder, payload: &[u8]) -> u64 {
        let bit = |at: u16| u64::from(payload[usize::from(at / 8)] >> (at % 8) & 1);
        match order {
            ByteOrder::Little => {
                (0..u16::from(width)).fold(0, |raw, place| raw | bit(start + place) << place)
            }
            ByteOrder::Big => {
                let mut at = start;
                let mut raw = 0;
                for _ in 0..width {
                    raw = raw << 1 | bit(at);
                    at = if at.is_multiple_of(8) { at + 15 } else { at - 1 };
                }
                raw
            }
        }
    }

    #[test]
    fn there_are_one_to_64_bits() {
        for (start, width) in [(0, 0), (0, 65), (65_536, 1), (65_535, 2), (u64::MAX, 1), (0, u64::MAX)] {
            assert_eq!(Bits::new(start, width, ByteOrder::Little), None, "{start} {width}");
        }
        assert_eq!(Bits::new(65_528, 2, ByteOrder::Big), None);
    }

    proptest! {
        #[test]
        fn bits_are_where_the_definition_has_them(
            payload in proptest::collection::vec(any::<u8>(), 16..80),
            start in 0_u16..512,
            width in 1_u8..=64,
            is_big: bool,
            raw: u64,
        ) {
            let order = if is_big { ByteOrder::Big } else { ByteOrder::Little };
            let bits = Bits::new(start.into(), width.into(), order).unwrap();
            prop_assert_eq!(bits.read(&payload).is_some(), bits.reach() <= payload.len());
            let mut written = payload.clone();
            bits.write(&mut written, raw);
            if let Some(read) = bits.read(&payload) {
                prop_assert_eq!(read, by_definition(start, width, order, &payload));
                prop_assert_eq!(bits.read(&written), Some(raw & bits.mask()));
                bits.write(&mut written, read);
                prop_assert_eq!(&written, &payload, "nothing else was touched");
            }
        }
    }
}
