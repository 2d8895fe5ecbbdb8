//! Lines of the log files of can-utils (`candump -l`):
//!
//! ```text
//! (1436509052.249713) vcan0 044#2A366C2BBA
//! ```
//!
//! Three digits in front of the `#` are an id of 11 bits, eight one of 29 bits or, with bit 29, an error
//! frame. `##` and a digit of flags begin a CAN FD frame, `#R` a remote frame (can-utils, `lib.h` and
//! `parse_canframe` of `lib.c`; what that passes over behind a frame is refused here).

use std::fmt;

use super::frame::{Frame, MOST_CLASSIC, Payload};
use super::id::Id;
use crate::hex::Hex;

/// Tells error frames (`CAN_ERR_FLAG`, `linux/can.h`).
const ERROR: u32 = 1 << 29;

/// Flags of CAN FD frames (`linux/can.h`).
const FAST: u8 = 1;
const PASSIVE: u8 = 2;

const NS_A_SECOND: i64 = 1_000_000_000;

/// A frame as a log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// nanoseconds since 1970, or since some other moment: logs may have either
    pub at: i64,
    /// from which interface
    pub interface: &'a str,
    /// what
    pub frame: Frame,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; a line of a candump log looks like (1436509052.249713) can0 123#11223344")]
pub struct LineError(&'static str);

impl<'a> Line<'a> {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// When it is not as candump writes it.
    pub fn parse(line: &'a str) -> Result<Self, LineError> {
        let mut words = line.split_ascii_whitespace();
        let time = words.next().and_then(|word| word.strip_prefix('(')?.strip_suffix(')'));
        let at = time.and_then(nanoseconds).ok_or(LineError("it does not begin with a time"))?;
        let interface = words.next().ok_or(LineError("it names no interface"))?;
        let frame = words.next().ok_or(LineError("it has no frame"))?;
        // Newer ones say whether it was received or sent.
        if !matches!((words.next(), words.next()), (None | Some("R" | "T"), None)) {
            return Err(LineError("there is something behind the frame"));
        }
        Ok(Self { at, interface, frame: parse_frame(frame)? })
    }
}

/// `seconds.fraction`, with up to nine digits of fraction.
fn nanoseconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(NS_A_SECOND)?.checked_add(fraction)
}

/// A frame as can-utils write it: `123#DEADBEEF`, `12345678#R8`, `123##1AABB`.
///
/// # Errors
/// When it is none.
pub fn parse_frame(text: &str) -> Result<Frame, LineError> {
    let (number, rest) = text.split_once('#').ok_or(LineError("there is no # in its frame"))?;
    let digits = number.len();
    let is_hex = number.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(number, 16).ok().filter(|_| is_hex);
    let number = number.ok_or(LineError("the id is no hexadecimal number"))?;
    let id = match digits {
        3 => Id::standard(number),
        8 if (ERROR..2 * ERROR).contains(&number) => return parse_error(number & !ERROR, rest),
        8 => Id::extended(number),
        _ => return Err(LineError("the id has neither three digits nor eight")),
    };
    let id = id.ok_or(LineError("the id is too great"))?;
    if let Some(rest) = rest.strip_prefix('#') {
        let flags = rest.get(..1).and_then(|digit| u8::from_str_radix(digit, 16).ok());
        let flags = flags.ok_or(LineError("there are no flags behind ##"))?;
        let data = bytes(rest.get(1..).unwrap_or_default())?;
        return Ok(Frame::Fd { id, data, fast: flags & FAST != 0, passive: flags & PASSIVE != 0 });
    }
    let (rest, has_code) = length_code(rest)?;
    let frame = match rest.strip_prefix(['R', 'r']) {
        Some(length) => Frame::Remote { id, length: remote_length(length)? },
        None => Frame::Data { id, data: bytes(rest)? },
    };
    let length = match &frame {
        Frame::Remote { length, .. } => usize::from(*length),
        Frame::Data { data, .. } | Frame::Fd { data, .. } => data.len(),
        Frame::Error { .. } => 0,
    };
    match length {
        _ if length > MOST_CLASSIC => Err(LineError("there are more than 8 bytes behind a single #")),
        _ if has_code && length != MOST_CLASSIC => Err(LineError("only behind 8 bytes there may be a `_`")),
        _ => Ok(frame),
    }
}

/// Without the length code behind `_`, 9 to F, which means 8 bytes as well. Whether there is one.
fn length_code(text: &str) -> Result<(&str, bool), LineError> {
    let Some((rest, code)) = text.split_once('_') else { return Ok((text, false)) };
    match code.as_bytes() {
        [b'9' | b'A'..=b'F' | b'a'..=b'f'] => Ok((rest, true)),
        _ => Err(LineError("behind `_` stands a length code, 9 to F, and nothing else")),
    }
}

fn remote_length(digit: &str) -> Result<u8, LineError> {
    match digit.as_bytes() {
        [] => Ok(0),
        [digit @ b'0'..=b'8'] => Ok(digit - b'0'),
        _ => Err(LineError("a remote frame asks for 0 to 8 bytes")),
    }
}

fn parse_error(class: u32, rest: &str) -> Result<Frame, LineError> {
    // Some programs leave the bytes out.
    let (heard, mut data) = (bytes(rest)?, [0; 8]);
    let room = data.get_mut(..heard.len()).ok_or(LineError("an error frame has 8 bytes"))?;
    room.copy_from_slice(&heard);
    Ok(Frame::Error { class, data })
}

/// Hexadecimal digits; there may be dots between the bytes.
fn bytes(text: &str) -> Result<Payload, LineError> {
    let flaw = LineError("the data are no hexadecimal bytes");
    let mut data = [0; super::frame::MOST_FD];
    let mut count = 0;
    let mut digits = text.bytes().peekable();
    while let Some(high) = digits.next() {
        let low = digits.next();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(high), low.and_then(digit)) else { return Err(flaw) };
        *data.get_mut(count).ok_or(LineError("a frame has at most 64 bytes"))? = high << 4 | low;
        count += 1;
        digits.next_if_eq(&b'.');
    }
    data.get(..count).and_then(Payload::new).ok_or(flaw)
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.at.div_euclid(NS_A_SECOND), self.at.rem_euclid(NS_A_SECOND));
        write!(f, "({seconds:010}.{:06}) {} {}", rest / 1000, self.interface, Written(&self.frame))
    }
}

/// A frame as [`parse_frame`] reads it.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a>(pub &'a Frame);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.id() {
            Some(Id::Standard(number)) => write!(f, "{number:03X}#")?,
            Some(Id::Extended(number)) => write!(f, "{number:08X}#")?,
            None => {}
        }
        match self.0 {
            Frame::Data { data, .. } => write!(f, "{:X}", Hex(data)),
            Frame::Fd { data, fast, passive, .. } => {
                write!(f, "#{:X}", (u8::from(*fast) * FAST) | (u8::from(*passive) * PASSIVE))?;
                write!(f, "{:X}", Hex(data))
            }
            Frame::Remote { length: 0, .. } => f.write_str("R"),
            Frame::Remote { length, .. } => write!(f, "R{length}"),
            Frame::Error { class, data } => {
                write!(f, "{:08X}#", class | ERROR)?;
                write!(f, "{:X}", Hex(data))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::any_frame;
    use super::*;
    use proptest::prelude::*;

    fn data(bytes: &[u8]) -> Payload {
        Payload::new(bytes).unwrap()
    }

    /// The first from can-utils' README, the others from its `lib.h` and `log2long`.
    #[test]
    fn lines_are_read_as_can_utils_write_them() {
        let line = Line::parse("(1436509052.249713) vcan0 044#2A366C2BBA").unwrap();
        let frame = Frame::Data { id: Id::Standard(0x44), data: data(&[0x2a, 0x36, 0x6c, 0x2b, 0xba]) };
        assert_eq!(line, Line { at: 1_436_509_052_249_713_000, interface: "vcan0", frame });
        for (text, frame) in [
            ("123#", Frame::Data { id: Id::Standard(0x123), data: data(&[]) }),
            (
                "12345678#112233",
                Frame::Data { id: Id::Extended(0x1234_5678), data: data(&[0x11, 0x22, 0x33]) },
            ),
            ("00000123#11.22.33", Frame::Data { id: Id::Extended(0x123), data: data(&[0x11, 0x22, 0x33]) }),
            ("5AA#R", Frame::Remote { id: Id::Standard(0x5aa), length: 0 }),
            ("5AA#R8", Frame::Remote { id: Id::Standard(0x5aa), length: 8 }),
            ("5AA#R8_9", Frame::Remote { id: Id::Standard(0x5aa), length: 8 }),
            ("7A1#r", Frame::Remote { id: Id::Standard(0x7a1), length: 0 }),
            ("123#11.2233", Frame::Data { id: Id::Standard(0x123), data: data(&[0x11, 0x22, 0x33]) }),
            (
                "123#1122334455667788_E",
                Frame::Data {
                    id: Id::Standard(0x123),
                    data: data(&[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]),
                },
            ),
            (
                "213##311",
                Frame::Fd { id: Id::Standard(0x213), data: data(&[0x11]), fast: true, passive: true },
            ),
            (
                "1F334455##0",
                Frame::Fd { id: Id::Extended(0x1f33_4455), data: data(&[]), fast: false, passive: false },
            ),
            ("20000088#0000000000000000", Frame::Error { class: 0x88, data: [0; 8] }),
        ] {
            assert_eq!(parse_frame(text), Ok(frame), "{text}");
        }
        assert_eq!(Line::parse("(0.5) can0 123# T").map(|line| line.at), Ok(500_000_000));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for line in [
            "",
            "123#11",
            "() can0 123#",
            "(1) can0 123#",
            "(1.-5) can0 123#",
            "(99999999999999.0) can0 123#",
            "(1.0) can0",
            "(1.0) 123#11",
            "(1.0) can0 123",
            "(1.0) can0 12#",
            "(1.0) can0 800#",
            "(1.0) can0 +12#",
            "(1.0) can0 123#1",
            "(1.0) can0 123#1G",
            "(1.0) can0 123#112233445566778899",
            "(1.0) can0 123##",
            "(1.0) can0 123##G",
            "(1.0) can0 123#R9",
            "(1.0) can0 20000088#000000000000000000",
            "(1.0) can0 40000000#00",
            "(1.0) can0 102#1122_GARBAGE",
            "(1.0) can0 102#1122_9",
            "(1.0) can0 123#1122334455667788_8",
            "(1.0) can0 123#1122334455667788_EE",
            "(1.0) can0 123#1122334455667788_",
            "(1.0) can0 5AA#R8_GARBAGE",
            "(1.0) can0 5AA#R1_9",
            "(1.0) can0 5AA#R08",
            "(1.0) can0 5AA#R+1",
            "(1.0) can0 123#11..22",
            "(1.0) can0 213##311_9",
            "(1.0) can0 45123#81:00:12345678#112233",
            "(1.0) can0 123#11 X",
            "(1.0) can0 123#é",
        ] {
            assert!(Line::parse(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(micros in 0..4_000_000_000_000_000_i64, frame in any_frame()) {
            let line = Line { at: 1000 * micros, interface: "can0", frame };
            let text = line.to_string();
            prop_assert_eq!(Line::parse(&text), Ok(line));
        }

        #[test]
        fn any_text_is_a_line_or_an_error(
            text in "(\\([0-9.]{0,20}\\) [a-z]{0,5} )?[0-9A-FR#_.]{0,30}",
            other: String,
        ) {
            let _ = Line::parse(&text);
            let _ = Line::parse(&other);
        }
    }
}
