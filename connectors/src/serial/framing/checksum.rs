//! Checksums of frames.

use crc::{
    CRC_8_SMBUS, CRC_16_ARC, CRC_16_IBM_3740, CRC_16_IBM_SDLC, CRC_16_KERMIT, CRC_16_MODBUS, CRC_16_XMODEM,
    CRC_32_ISO_HDLC, Crc,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::codec::ByteOrder;

/// How a frame is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sum {
    /// all bytes combined by exclusive or (BCC)
    Xor,
    /// sum of all bytes, 8 bits
    Sum,
    /// what has to be added to the sum of all bytes to make it 0 (LRC)
    Lrc,
    /// sum of all bytes, 16 bits
    Sum16,
    /// polynomial 0x07, begins with 0
    Crc8,
    /// as on Modbus: polynomial 0x8005, begins with 0xFFFF
    Crc16Modbus,
    /// polynomial 0x8005, begins with 0 (smart meters' P1)
    Crc16Arc,
    /// polynomial 0x1021, begins with 0xFFFF (CCITT-FALSE)
    Crc16Ccitt,
    /// polynomial 0x1021, begins with 0
    Crc16Xmodem,
    /// polynomial 0x1021, begins with 0, reflected
    Crc16Kermit,
    /// the frame check sequence of HDLC
    Crc16X25,
    /// as in Ethernet and ZIP
    Crc32,
}

// Their tables are made by the compiler.
static CRC8: Crc<u8> = Crc::<u8>::new(&CRC_8_SMBUS);
static MODBUS: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);
static ARC: Crc<u16> = Crc::<u16>::new(&CRC_16_ARC);
static CCITT: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_3740);
static XMODEM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
static KERMIT: Crc<u16> = Crc::<u16>::new(&CRC_16_KERMIT);
static X25: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);
static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

impl Sum {
    /// Of these bytes.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> u32 {
        let sum = |start, step: fn(u8, u8) -> u8| bytes.iter().fold(start, |sum, byte| step(sum, *byte));
        match self {
            Self::Xor => sum(0_u8, |sum, byte| sum ^ byte).into(),
            Self::Sum => sum(0, u8::wrapping_add).into(),
            Self::Lrc => sum(0, u8::wrapping_sub).into(),
            Self::Sum16 => bytes.iter().fold(0_u16, |sum, byte| sum.wrapping_add((*byte).into())).into(),
            Self::Crc8 => CRC8.checksum(bytes).into(),
            Self::Crc16Modbus => MODBUS.checksum(bytes).into(),
            Self::Crc16Arc => ARC.checksum(bytes).into(),
            Self::Crc16Ccitt => CCITT.checksum(bytes).into(),
            Self::Crc16Xmodem => XMODEM.checksum(bytes).into(),
            Self::Crc16Kermit => KERMIT.checksum(bytes).into(),
            Self::Crc16X25 => X25.checksum(bytes).into(),
            Self::Crc32 => CRC32.checksum(bytes),
        }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::Xor | Self::Sum | Self::Lrc | Self::Crc8 => 1,
            Self::Crc32 => 4,
            _ => 2,
        }
    }

    /// Whether its low byte is usually sent first.
    fn is_little(self) -> bool {
        matches!(self, Self::Crc16Modbus | Self::Crc16Arc | Self::Crc16Kermit | Self::Crc16X25)
    }
}

/// `checksum = "crc16_modbus"`, or `{ kind = "xor", from = 1, ascii = true }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checksum {
    /// how it is computed
    pub kind: Sum,
    /// The first byte that it covers, counted from 0 in the whole frame with its start and end. It covers all
    /// up to the checksum itself.
    #[serde(default)]
    pub from: usize,
    /// Where the checksum is, counted from the end of the whole frame: -3 are the third last byte and those
    /// behind it. Absent: it is the last of the frame, before `end` if there is no `trailer`.
    pub at: Option<i32>,
    /// Bytes in front of the checksum that it does not cover, such as a `*`.
    #[serde(default)]
    pub skip: usize,
    /// Whether it is written as hexadecimal digits.
    #[serde(default)]
    pub ascii: bool,
    /// Order of its bytes; absent: as that checksum is usually sent.
    pub order: Option<ByteOrder>,
}

impl Checksum {
    /// As it is usually sent, behind all that it covers.
    #[must_use]
    pub fn usual(kind: Sum) -> Self {
        Self { kind, from: 0, at: None, skip: 0, ascii: false, order: None }
    }

    /// Bytes that it takes in the frame.
    #[must_use]
    pub fn written(&self) -> usize {
        if self.ascii { 2 * self.kind.width() } else { self.kind.width() }
    }

    /// Where it begins in a frame; `behind`: what is usually behind it there.
    fn place(&self, frame: usize, behind: usize) -> Option<usize> {
        let back = match self.at {
            Some(at) => usize::try_from(-i64::from(at)).ok()?,
            None => self.written() + behind,
        };
        frame.checked_sub(back)
    }

    /// Where in a frame of this length what it covers ends; none: there is no room for it.
    pub(super) fn end(&self, frame: usize, behind: usize) -> Option<usize> {
        let place = self.place(frame, behind)?;
        let end = place.checked_sub(self.skip)?;
        (self.from <= end && place + self.written() <= frame).then_some(end)
    }

    /// Where it begins, and with it what is in front of it that it does not cover, if it is right.
    #[must_use]
    pub fn check(&self, frame: &[u8], behind: usize) -> Option<usize> {
        let (place, end) = (self.place(frame.len(), behind)?, self.end(frame.len(), behind)?);
        let covered = frame.get(self.from..end)?;
        let written = frame.get(place..place + self.written())?;
        let usual = if self.kind.is_little() && !self.ascii { ByteOrder::Little } else { ByteOrder::Big };
        let order = self.order.unwrap_or(usual);
        let found = if self.ascii {
            let digits = std::str::from_utf8(written).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            let number = u32::from_str_radix(digits, 16).ok()?;
            let bytes = number.to_be_bytes();
            order.number(bytes.get(4 - self.kind.width()..)?)
        } else {
            order.number(written)
        };
        (found == u64::from(self.kind.of(covered))).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_catalogue() {
        // https://reveng.sourceforge.io/crc-catalogue/all.htm: the check of each is that of "123456789".
        for (sum, check) in [
            (Sum::Crc8, 0xf4),
            (Sum::Crc16Modbus, 0x4b37),
            (Sum::Crc16Arc, 0xbb3d),
            (Sum::Crc16Ccitt, 0x29b1),
            (Sum::Crc16Xmodem, 0x31c3),
            (Sum::Crc16Kermit, 0x2189),
            (Sum::Crc16X25, 0x906e),
            (Sum::Crc32, 0xcbf4_3926),
            // 0x31 + .. + 0x39 = 0x1dd
            (Sum::Sum, 0xdd),
            (Sum::Lrc, 0x23),
            (Sum::Sum16, 0x1dd),
            (Sum::Xor, 0x31),
        ] {
            assert_eq!(sum.of(b"123456789"), check, "{sum:?}");
        }
    }

    #[test]
    fn checksums_are_found_where_they_are() {
        let usual = Checksum::usual(Sum::Crc16Modbus);
        // Modbus over Serial Line V1.02, appendix B: the low byte first
        assert_eq!(usual.check(b"123456789\x37\x4b", 0), Some(9));
        assert_eq!(usual.check(b"123456789\x4b\x37", 0), None);
        let big = Checksum { order: Some(ByteOrder::Big), ..usual.clone() };
        assert_eq!(big.check(b"123456789\x4b\x37", 0), Some(9));
        let text = Checksum { ascii: true, skip: 1, from: 1, ..Checksum::usual(Sum::Xor) };
        assert_eq!(text.check(b"$123456789*31\r\n", 2), Some(10));
        assert_eq!(text.check(b"$123456789*+1\r\n", 2), None);
        let placed = Checksum { at: Some(-4), ..text };
        assert_eq!(placed.check(b"$123456789*31\r\n", 0), Some(10));
        assert_eq!(usual.check(b"1", 0), None);
    }
}
