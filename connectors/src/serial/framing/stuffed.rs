//! Frames in which one byte stands for their end, and never for itself.

use super::checksum::{Checksum, Sum};
use super::{Look, Why};

/// How a byte is kept from standing for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stuffing {
    /// S. Cheshire, M. Baker: Consistent Overhead Byte Stuffing, 1999
    Cobs,
    /// RFC 1055
    Slip,
    /// RFC 1662, section 4
    Hdlc,
}

impl Stuffing {
    fn end(self) -> u8 {
        match self {
            Self::Cobs => 0,
            Self::Slip => 0xc0,
            Self::Hdlc => 0x7e,
        }
    }

    pub(super) fn look(
        self,
        bytes: &[u8],
        seen: usize,
        max: usize,
        is_torn: bool,
        checksum: Option<&Checksum>,
        content: &mut Vec<u8>,
    ) -> Look {
        let check = if self == Self::Hdlc { 2 } else { 0 };
        // Each byte may be stuffed, and those of the check, too.
        let longest = 2 * (max + check) + 2;
        let at = bytes.get(seen..).unwrap_or_default().iter().position(|byte| *byte == self.end());
        let Some(end) = at.map(|at| seen + at) else {
            if bytes.len() > longest {
                return Look::lost(bytes.len(), if is_torn { Why::Torn } else { Why::TooLong });
            }
            return Look::More { seen: bytes.len() };
        };
        let whole = end + 1;
        if end == 0 {
            return Look::Filler(1);
        }
        if is_torn {
            return Look::skip(whole, Why::Torn);
        }
        content.clear();
        let stuffed = bytes.get(..end).unwrap_or_default();
        if !self.unstuff(stuffed, content) {
            return Look::skip(whole, Why::Malformed);
        }
        if self == Self::Hdlc {
            // RFC 1662, section C.2: the low byte first
            match Checksum::usual(Sum::Crc16X25).check(content, 0) {
                Some(place) => content.truncate(place),
                None => return Look::skip(whole, Why::Checksum),
            }
        }
        if let Some(checksum) = checksum {
            match checksum.check(content, 0) {
                Some(place) => content.truncate(place),
                None => return Look::skip(whole, Why::Checksum),
            }
        }
        if content.len() > max {
            return Look::skip(whole, Why::TooLong);
        }
        Look::Frame(whole, None)
    }

    /// Whether it could be.
    fn unstuff(self, stuffed: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::Cobs => uncobs(stuffed, out),
            Self::Slip => unescape(stuffed, out, 0xdb, |byte| match byte {
                0xdc => Some(0xc0),
                0xdd => Some(0xdb),
                _ => None,
            }),
            Self::Hdlc => unescape(stuffed, out, 0x7d, |byte| Some(byte ^ 0x20)),
        }
    }
}

fn unescape(stuffed: &[u8], out: &mut Vec<u8>, escape: u8, meaning: fn(u8) -> Option<u8>) -> bool {
    let mut bytes = stuffed.iter();
    while let Some(&byte) = bytes.next() {
        let byte = if byte == escape { bytes.next().and_then(|byte| meaning(*byte)) } else { Some(byte) };
        let Some(byte) = byte else { return false };
        out.push(byte);
    }
    true
}

fn uncobs(mut stuffed: &[u8], out: &mut Vec<u8>) -> bool {
    while let Some((code, rest)) = stuffed.split_first() {
        let Some((block, rest)) = rest.split_at_checked(usize::from(*code).saturating_sub(1)) else {
            return false;
        };
        out.extend_from_slice(block);
        // A full block ends without the byte that it stands for, and so does the last one.
        if *code < 0xff && !rest.is_empty() {
            out.push(0);
        }
        stuffed = rest;
    }
    true
}
