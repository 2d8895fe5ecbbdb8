//! Frames: what an answer to a request must look like, and where it is among the bytes that have come. Pure.

use std::ops::Range;

use crc::{CRC_16_MODBUS, Crc};

const CHECKSUM: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

/// The bit that makes a function code an exception's.
const EXCEPTION: u8 = 0x80;

/// Bytes of a Modbus TCP header: transaction, protocol, length, unit.
pub const HEADER: usize = 7;

/// The answer that belongs to one request, and to no other, as far as the protocol can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    function: u8,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// so many bytes of data
    Data(u8),
    /// what was sent, or its beginning
    Same(Vec<u8>),
    /// function 43/14: a list of objects
    Identification,
}

/// What bytes are, beginning with a function code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// an answer of so many bytes
    Fits(usize),
    /// the beginning of one
    Short,
    /// something else
    Other,
}

impl Expected {
    /// The answer to a request, given from its function code on (Application Protocol V1.1b3, section 6).
    /// None: nobody knows.
    #[must_use]
    pub fn answer_to(request: &[u8]) -> Option<Self> {
        let function = *request.first()?;
        let count = |at: usize| Some(u16::from_be_bytes([*request.get(at)?, *request.get(at + 1)?]));
        let shape = match function {
            1 | 2 => Shape::Data(u8::try_from(count(3)?.div_ceil(8)).ok()?),
            3 | 4 | 23 => Shape::Data(u8::try_from(count(3)?.checked_mul(2)?).ok()?),
            5 | 6 | 22 => Shape::Same(request.to_vec()),
            15 | 16 => Shape::Same(request.get(..5)?.to_vec()),
            43 => Shape::Identification,
            _ => return None,
        };
        Some(Self { function, shape })
    }

    /// Whether a request of this kind looks like its own answer, so that an adapter that hears itself seems
    /// to confirm it.
    #[must_use]
    pub fn is_own_request(&self, request: &[u8]) -> bool {
        matches!(&self.shape, Shape::Same(same) if same == request)
    }

    /// Whether data is expected, which another request of the same length would get as well.
    #[must_use]
    pub fn is_data(&self) -> bool {
        matches!(self.shape, Shape::Data(_))
    }

    /// Bytes of the answer, at least.
    #[must_use]
    pub fn shortest(&self) -> usize {
        match &self.shape {
            Shape::Data(bytes) => 2 + usize::from(*bytes),
            Shape::Same(same) => same.len(),
            Shape::Identification => 7,
        }
    }

    /// What `bytes` are; more may follow.
    #[must_use]
    pub fn look(&self, bytes: &[u8]) -> Look {
        let is_exception = bytes.first() == Some(&(self.function | EXCEPTION));
        match bytes {
            [_] if is_exception => Look::Short,
            [_, _, ..] if is_exception => Look::Fits(2),
            [] => Look::Short,
            [function, ..] if *function != self.function => Look::Other,
            _ => self.look_at_shape(bytes),
        }
    }

    fn look_at_shape(&self, bytes: &[u8]) -> Look {
        let (known, len): (&[u8], usize) = match &self.shape {
            Shape::Data(count) => (&[self.function, *count], self.shortest()),
            Shape::Same(same) => (same, self.shortest()),
            Shape::Identification => match identification_len(bytes) {
                Some(len) => (&[43, 14], len),
                None => (&[43, 14], usize::MAX),
            },
        };
        if bytes.iter().zip(known).any(|(byte, known)| byte != known) {
            Look::Other
        } else if bytes.len() < len {
            Look::Short
        } else {
            Look::Fits(len)
        }
    }
}

/// Function, type, code, conformity, more, next, number of objects; then number, length and bytes of each.
fn identification_len(bytes: &[u8]) -> Option<usize> {
    let objects = *bytes.get(6)?;
    (0..objects).try_fold(7, |at, _| Some(at + 2 + usize::from(*bytes.get(at + 1)?)))
}

/// Where, from `from` on, a frame of Modbus RTU is that answers: unit, answer, checksum. Whatever else is
/// there is skipped: noise, other units, what the adapter hears of itself.
#[must_use]
pub fn find_rtu(bytes: &[u8], from: usize, unit: u8, expected: &Expected) -> Option<Range<usize>> {
    (from..bytes.len()).find_map(|start| {
        let (first, rest) = bytes.get(start..)?.split_first()?;
        let Look::Fits(len) = expected.look(rest) else { return None };
        let frame = start..start + 1 + len + 2;
        (*first == unit && is_intact(bytes.get(frame.clone())?)).then_some(frame)
    })
}

/// A request for what another one writes, as it goes over the line, and its answer. It looks different.
pub(super) fn read_like(unit: u8, write: &[u8]) -> Option<(Vec<u8>, Expected)> {
    let (function, address) = match write {
        [5, high, low, ..] => (1, [*high, *low]),
        [6 | 22, high, low, ..] => (3, [*high, *low]),
        _ => return None,
    };
    let content = [function, address[0], address[1], 0, 1];
    let mut frame = vec![unit];
    frame.extend(content);
    frame.extend(CHECKSUM.checksum(&frame).to_le_bytes());
    Some((frame, Expected::answer_to(&content)?))
}

/// Whether a frame ends with its own checksum, low byte first (Serial Line V1.02, section 2.5.1.2).
fn is_intact(frame: &[u8]) -> bool {
    let Some((content, checksum)) = frame.split_last_chunk::<2>() else { return false };
    CHECKSUM.checksum(content).to_le_bytes() == *checksum
}

/// The first frame of Modbus TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpFrame {
    /// transaction id
    pub transaction: u16,
    /// unit id
    pub unit: u8,
    /// bytes with the header
    pub len: usize,
}

/// Looks for a frame at the beginning of `bytes`. None: more has to come.
///
/// # Errors
/// In words for the user, when this is not Modbus TCP (Messaging on TCP/IP V1.0b, section 3.1.3).
pub fn tcp_frame(bytes: &[u8]) -> Result<Option<TcpFrame>, String> {
    let [t0, t1, p0, p1, l0, l1, unit, ..] = *bytes else { return Ok(None) };
    let (protocol, length) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([l0, l1]));
    if protocol != 0 {
        return Err(format!("protocol {protocol} in the header instead of 0: this is not Modbus TCP"));
    }
    if !(3..=254).contains(&length) {
        return Err(format!("a length of {length} in the header, and 3 to 254 are possible"));
    }
    let len = HEADER - 1 + usize::from(length);
    if bytes.len() < len {
        return Ok(None);
    }
    Ok(Some(TcpFrame { transaction: u16::from_be_bytes([t0, t1]), unit, len }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with the unit in front and the checksum behind.
    fn rtu(unit: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = vec![unit];
        frame.extend(content);
        frame.extend(CHECKSUM.checksum(&frame).to_le_bytes());
        frame
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // Serial Line V1.02, appendix B: 02 07 gives 0x1241, sent as 41 12.
        assert!(is_intact(&[0x02, 0x07, 0x41, 0x12]));
        assert!(!is_intact(&[0x02, 0x07, 0x12, 0x41]));
    }

    #[test]
    fn answers_are_those_of_the_examples_in_the_specification() {
        // Application Protocol V1.1b3, sections 6.1 to 6.17.
        for (request, answer) in [
            (&[1, 0, 0x13, 0, 0x13][..], &[1, 3, 0xCD, 0x6B, 0x05][..]),
            (&[2, 0, 0xC4, 0, 0x16], &[2, 3, 0xAC, 0xDB, 0x35]),
            (&[3, 0, 0x6B, 0, 3], &[3, 6, 2, 0x2B, 0, 0, 0, 0x64]),
            (&[4, 0, 8, 0, 1], &[4, 2, 0, 0x0A]),
            (&[5, 0, 0xAC, 0xFF, 0], &[5, 0, 0xAC, 0xFF, 0]),
            (&[6, 0, 1, 0, 3], &[6, 0, 1, 0, 3]),
            (&[15, 0, 0x13, 0, 0x0A, 2, 0xCD, 1], &[15, 0, 0x13, 0, 0x0A]),
            (&[16, 0, 1, 0, 2, 4, 0, 0x0A, 1, 2], &[16, 0, 1, 0, 2]),
            (&[22, 0, 4, 0, 0xF2, 0, 0x25], &[22, 0, 4, 0, 0xF2, 0, 0x25]),
            (
                &[23, 0, 3, 0, 6, 0, 0x0E, 0, 3, 6, 0, 0xFF, 0, 0xFF, 0, 0xFF],
                &[23, 12, 0, 0xFE, 0x0A, 0xCD, 0, 1, 0, 3, 0, 0x0D, 0, 0xFF],
            ),
            (&[43, 14, 1, 0], &[43, 14, 1, 1, 0, 0, 2, 0, 2, b'a', b'b', 1, 1, b'c']),
            (&[1, 4, 0xA1, 0, 1], &[0x81, 2]),
        ] {
            let expected = Expected::answer_to(request).unwrap();
            assert_eq!(expected.look(answer), Look::Fits(answer.len()), "{request:?}");
            for end in 0..answer.len() {
                assert_eq!(expected.look(&answer[..end]), Look::Short, "{request:?} up to {end}");
            }
        }
        let three = Expected::answer_to(&[3, 0, 0x6B, 0, 3]).unwrap();
        for other in
            [&[4, 6, 0, 0, 0, 0, 0, 0][..], &[3, 4, 0, 0, 0, 0], &[3, 8, 0, 0, 0, 0, 0, 0, 0, 0], &[0x84, 2]]
        {
            assert_eq!(three.look(other), Look::Other);
        }
        let five = Expected::answer_to(&[5, 0, 0xAC, 0xFF, 0]).unwrap();
        assert_eq!((five.look(&[5, 0, 0xAC, 0, 0]), five.look(&[5, 0, 0xAD])), (Look::Other, Look::Other));
    }

    #[test]
    fn headers_that_are_not_modbus_tcp_are_refused() {
        assert_eq!(tcp_frame(&[0, 1, 0, 0, 0, 5, 1, 3, 2, 0]), Ok(None));
        let whole = tcp_frame(&[0, 1, 0, 0, 0, 5, 9, 3, 2, 0, 7, 99]);
        assert_eq!(whole, Ok(Some(TcpFrame { transaction: 1, unit: 9, len: 11 })));
        assert!(tcp_frame(b"HTTP/1.1 400").unwrap_err().contains("not Modbus TCP"));
        for length in [[0, 0], [0, 2], [0, 255], [255, 255]] {
            assert!(tcp_frame(&[0, 1, 0, 0, length[0], length[1], 1]).unwrap_err().contains("length"));
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_found_behind_any_noise_and_only_there(
            noise in prop::collection::vec(any::<u8>(), 0..60), count in 1_u16..=125, unit: u8, data: u8,
        ) {
            let [high, low] = count.to_be_bytes();
            let expected = Expected::answer_to(&[3, 0, 0, high, low]).unwrap();
            let mut answer = vec![3, (2 * count) as u8];
            answer.resize(2 + 2 * usize::from(count), data);
            let frame = rtu(unit, &answer);
            let bytes: Vec<u8> = noise.iter().chain(&frame).copied().collect();
            // Noise has the right unit, function, length and checksum once in 2^40, at the least.
            prop_assert_eq!(find_rtu(&bytes, 0, unit, &expected), Some(noise.len()..bytes.len()));
            prop_assert_eq!(find_rtu(&bytes[..bytes.len() - 1], 0, unit, &expected), None);
            prop_assert_eq!(find_rtu(&bytes, 0, unit.wrapping_add(1), &expected), None);
        }

        #[test]
        fn one_wrong_bit_makes_it_no_answer(count in 1_u8..=125, bit in 0_usize..2_000, data: u8) {
            let expected = Expected::answer_to(&[4, 0, 0, 0, count]).unwrap();
            let mut answer = vec![4, 2 * count];
            answer.resize(2 + 2 * usize::from(count), data);
            let mut frame = rtu(7, &answer);
            let bit = bit % (8 * frame.len());
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(find_rtu(&frame, 0, 7, &expected), None);
        }

        #[test]
        fn any_bytes_are_looked_at_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            request in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            if let Some(expected) = Expected::answer_to(&request) {
                if let Look::Fits(len) = expected.look(&bytes) {
                    prop_assert!(len <= bytes.len());
                }
                let _ = find_rtu(&bytes, 0, 1, &expected);
            }
            if let Ok(Some(frame)) = tcp_frame(&bytes) {
                prop_assert!(frame.len <= bytes.len() && frame.len > HEADER);
            }
        }
    }
}
