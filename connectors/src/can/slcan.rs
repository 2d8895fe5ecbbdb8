//! The lines between a computer and a CAN adapter on a serial port: those of Lawicel's CANUSB ("CANUSB
//! manual", 2013), with the letters that adapters have added for CAN FD.
//!
//! ```text
//! t10021133\r     frame 0x100 with the bytes 11 33
//! ```
//!
//! A carriage return ends a line, and alone means yes; BEL (7) means no.

use std::fmt::{self, Write as _};

use super::frame::{FD_LENGTHS, Frame, MOST_CLASSIC, MOST_FD, Payload};
use super::id::Id;
use crate::hex::Hex;

const END: u8 = b'\r';
const BEL: u8 = 7;

/// Of the time that an adapter may be set to write behind its frames; then nobody knows how long these are.
const TIME_DIGITS: usize = 4;

/// The longest line: letter, id, length, 64 bytes, and a time that nobody has asked for.
const MOST_OF_A_LINE: usize = 1 + 8 + 1 + 2 * MOST_FD + TIME_DIGITS;

/// What a computer tells an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `C`: leaves the bus
    Close,
    /// `V`: asks for the versions
    Version,
    /// `S`: sets the bit rate; see [`bit_rate`]
    BitRate(u8),
    /// `O`: takes part in the bus
    Open,
    /// `L`: listens, and sends not even acknowledgements
    Listen,
    /// `F`: asks for the [`Flags`]
    Flags,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close => f.write_char('C'),
            Self::Version => f.write_char('V'),
            Self::BitRate(code) => write!(f, "S{code}"),
            Self::Open => f.write_char('O'),
            Self::Listen => f.write_char('L'),
            Self::Flags => f.write_char('F'),
        }
    }
}

/// The bit rates that adapters know, from `S0` on.
pub const BIT_RATES: [u32; 9] =
    [10_000, 20_000, 50_000, 100_000, 125_000, 250_000, 500_000, 800_000, 1_000_000];

/// The command that sets this bit rate, if adapters know it.
#[must_use]
pub fn bit_rate(bits_a_second: u32) -> Option<Command> {
    let code = BIT_RATES.iter().position(|rate| *rate == bits_a_second)?;
    u8::try_from(code).ok().map(Command::BitRate)
}

/// Adds the line that sends a frame. False: the protocol has no such frame (error frames, and CAN FD frames
/// of a length that there is not).
#[must_use]
pub fn write_frame(frame: &Frame, line: &mut String) -> bool {
    let (letters, length) = match frame {
        Frame::Data { data, .. } => (['t', 'T'], data.len()),
        Frame::Remote { length, .. } => (['r', 'R'], usize::from(*length)),
        Frame::Fd { data, fast: false, .. } => (['d', 'D'], data.len()),
        Frame::Fd { data, fast: true, .. } => (['b', 'B'], data.len()),
        Frame::Error { .. } => return false,
    };
    let most = if matches!(frame, Frame::Fd { .. }) { MOST_FD } else { MOST_CLASSIC };
    let Some(code) = code(length).filter(|_| length <= most) else { return false };
    let [standard, extended] = letters;
    // Writing to a String cannot fail.
    let _ = match frame.id() {
        Some(Id::Standard(number)) => write!(line, "{standard}{number:03X}{code:X}"),
        Some(Id::Extended(number)) => write!(line, "{extended}{number:08X}{code:X}"),
        None => return false,
    };
    if let Frame::Data { data, .. } | Frame::Fd { data, .. } = frame {
        let _ = write!(line, "{:X}", Hex(data));
    }
    line.push(char::from(END));
    true
}

fn code(length: usize) -> Option<usize> {
    if length <= MOST_CLASSIC {
        return Some(length);
    }
    FD_LENGTHS.iter().position(|known| *known == length).map(|at| at + MOST_CLASSIC + 1)
}

/// What an adapter tells a computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// a frame from the bus
    Frame(Frame),
    /// The command was carried out.
    Done,
    /// The frame was taken, and will be sent.
    Taken,
    /// The command was not carried out.
    Refused,
    /// hardware and software: two digits each, or in words
    Version(String),
    /// how the bus is
    Flags(Flags),
}

/// The status of an adapter's controller (of the SJA1000).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The flags that are set, in words.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let words = [
            "receive queue full",
            "send queue full",
            "error warning",
            "data overrun",
            "",
            "error-passive",
            "arbitration lost",
            "bus error",
        ];
        (0..8)
            .zip(words)
            .filter(move |(bit, word)| self.0 >> bit & 1 == 1 && !word.is_empty())
            .map(|(_, word)| word)
    }
}

/// Reads what an adapter sends, in whatever pieces it comes.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    line: Vec<u8>,
    /// whether the rest of the line is dropped
    skips: bool,
    garbled: Option<Garbled>,
}

/// A line that is none, as far as it was kept, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbled {
    /// its bytes
    pub line: Vec<u8>,
    /// in words
    pub why: &'static str,
}

impl Decoder {
    /// Takes a byte; gives what it completes.
    pub fn push(&mut self, byte: u8) -> Option<Reply> {
        match byte {
            BEL => {
                // It stands alone; what came before it has lost its end.
                if !self.line.is_empty() {
                    self.drop_line("it has lost its end");
                }
                self.skips = false;
                Some(Reply::Refused)
            }
            END if std::mem::take(&mut self.skips) => None,
            END => {
                let reply = parse(&self.line);
                if reply.is_none() {
                    self.drop_line(flaw(&self.line));
                }
                self.line.clear();
                reply
            }
            // Some adapters send line feeds as well.
            b'\n' if self.line.is_empty() && !self.skips => None,
            _ if self.skips => None,
            _ if self.line.len() == MOST_OF_A_LINE => {
                self.drop_line("it is longer than any line of an adapter");
                self.skips = true;
                None
            }
            byte => {
                self.line.push(byte);
                None
            }
        }
    }

    /// The line that the last byte has shown to be none.
    pub fn take_garbled(&mut self) -> Option<Garbled> {
        self.garbled.take()
    }

    fn drop_line(&mut self, why: &'static str) {
        self.garbled = Some(Garbled { line: std::mem::take(&mut self.line), why });
    }
}

/// What is wrong with a line that is none.
fn flaw(line: &[u8]) -> &'static str {
    let without_time = line.len().checked_sub(TIME_DIGITS).and_then(|end| parse(line.get(..end)?));
    match without_time {
        Some(Reply::Frame(_)) => {
            "behind its frame are four more digits; if they are times, switch them off in the adapter (Z0 \
             while it is closed)"
        }
        _ => "an adapter has no such line; is the `baud` of the port right?",
    }
}

fn parse(line: &[u8]) -> Option<Reply> {
    let Some((letter, rest)) = line.split_first() else { return Some(Reply::Done) };
    match (letter, rest.len()) {
        (b't' | b'r' | b'd' | b'b', _) => parse_frame(*letter, rest, 3),
        (b'T' | b'R' | b'D' | b'B', _) => parse_frame(*letter, rest, 8),
        (b'z' | b'Z', 0) => Some(Reply::Taken),
        (b'V', 1..) => text(rest).map(Reply::Version),
        (b'F', 2) => {
            hex(rest).and_then(|flags| u8::try_from(flags).ok()).map(|flags| Reply::Flags(Flags(flags)))
        }
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ').then(|| text.to_owned())
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0_u32, |number, byte| Some(number.checked_mul(16)? | char::from(*byte).to_digit(16)?))
}

fn parse_frame(letter: u8, rest: &[u8], digits: usize) -> Option<Reply> {
    let (number, rest) = rest.split_at_checked(digits)?;
    let number = hex(number)?;
    let id = if digits == 3 { Id::standard(number) } else { Id::extended(number) }?;
    let (code, rest) = rest.split_at_checked(1)?;
    let code = usize::try_from(hex(code)?).ok()?;
    let is_fd = matches!(letter, b'd' | b'D' | b'b' | b'B');
    let length = match code.checked_sub(MOST_CLASSIC + 1) {
        None => code,
        Some(at) if is_fd => *FD_LENGTHS.get(at)?,
        Some(_) => return None,
    };
    let is_remote = matches!(letter, b'r' | b'R');
    let data = rest;
    if data.len() != if is_remote { 0 } else { 2 * length } {
        return None;
    }
    let mut bytes = [0; MOST_FD];
    for (byte, digits) in bytes.iter_mut().zip(data.chunks_exact(2)) {
        *byte = u8::try_from(hex(digits)?).ok()?;
    }
    let data = Payload::new(bytes.get(..data.len() / 2)?)?;
    let frame = match letter {
        _ if is_remote => Frame::Remote { id, length: u8::try_from(length).ok()? },
        b't' | b'T' => Frame::Data { id, data },
        // Nothing tells whether the sender is error-passive.
        _ => Frame::Fd { id, data, fast: matches!(letter, b'b' | b'B'), passive: false },
    };
    Some(Reply::Frame(frame))
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::any_frame;
    use super::*;
    use proptest::prelude::*;

    /// What is said, and how many lines are garbled.
    fn replies(bytes: &[u8]) -> (Vec<Reply>, usize) {
        let (mut decoder, mut replies, mut garbled) = (Decoder::default(), Vec::new(), 0);
        for byte in bytes {
            replies.extend(decoder.push(*byte));
            garbled += usize::from(decoder.take_garbled().is_some());
        }
        (replies, garbled)
    }

    fn data(bytes: &[u8]) -> Payload {
        Payload::new(bytes).unwrap()
    }

    /// The examples of the CANUSB manual; those of CAN FD are of the CANable's firmware.
    #[test]
    fn frames_are_written_and_read_as_in_the_manual() {
        let (standard, extended) = (Id::Standard(0x100), Id::Extended(0x100));
        let long: Vec<u8> = (0..12).collect();
        for (line, frame) in [
            ("t10021133\r", Frame::Data { id: standard, data: data(&[0x11, 0x33]) }),
            ("T0000010021133\r", Frame::Data { id: extended, data: data(&[0x11, 0x33]) }),
            ("t1000\r", Frame::Data { id: standard, data: data(&[]) }),
            ("r1002\r", Frame::Remote { id: standard, length: 2 }),
            ("R000001002\r", Frame::Remote { id: extended, length: 2 }),
            (
                "d1009000102030405060708090A0B\r",
                Frame::Fd { id: standard, data: data(&long), fast: false, passive: false },
            ),
            ("B00000100111\r", Frame::Fd { id: extended, data: data(&[0x11]), fast: true, passive: false }),
        ] {
            let mut written = String::new();
            assert!(write_frame(&frame, &mut written));
            assert_eq!(written, line);
            assert_eq!(replies(line.as_bytes()), (vec![Reply::Frame(frame)], 0));
        }
    }

    #[test]
    fn commands_and_replies_are_those_of_the_manual() {
        let set = bit_rate(250_000).unwrap();
        let commands =
            [set, Command::Listen, Command::Open, Command::Version, Command::Flags, Command::Close];
        assert_eq!(commands.map(|command| command.to_string()).concat(), "S5LOVFC");
        assert_eq!(bit_rate(250_001), None);
        let (replies, garbled) = replies(b"\r\x07z\rZ\rV1013\rF24\r");
        assert_eq!(replies[..4], [Reply::Done, Reply::Refused, Reply::Taken, Reply::Taken]);
        assert_eq!(replies[4..], [Reply::Version("1013".into()), Reply::Flags(Flags(0x24))]);
        assert_eq!(garbled, 0);
        assert_eq!(Flags(0x24).words().collect::<Vec<_>>(), ["error warning", "error-passive"]);
    }

    /// The manual: four digits behind the data are milliseconds, if they were asked for; they never are.
    #[test]
    fn more_bytes_than_the_length_says_are_no_time() {
        let mut decoder = Decoder::default();
        let mut flaw = |line: &str| {
            line.bytes().for_each(|byte| assert_eq!(decoder.push(byte), None, "{line}"));
            decoder.take_garbled().unwrap()
        };
        for line in ["t1004AABBCCDDEEFF\r", "t100211331234\r", "r10021234\r"] {
            let Garbled { line: kept, why } = flaw(line);
            assert_eq!(kept, line.trim_end().as_bytes());
            assert!(why.contains("four more digits"), "{why}");
        }
        assert!(flaw("t1004AABBCC\r").why.contains("no such line"));
    }

    #[test]
    fn what_is_garbled_is_counted_and_the_next_line_is_read() {
        let frame = Frame::Data { id: Id::Standard(0x100), data: data(&[]) };
        let frame = || Reply::Frame(frame);
        assert_eq!(replies(b"133\rt1000\r"), (vec![frame()], 1), "it began in the middle");
        assert_eq!(replies(b"t10\x07t1000\r"), (vec![Reply::Refused, frame()], 1));
        let noise = [b"t1".repeat(10_000), b"\rt1000\r".to_vec()].concat();
        assert_eq!(replies(&noise), (vec![frame()], 1));
        for line in [
            "t8000\r",
            "t100911\r",
            "t10021\r",
            "t1002113\r",
            "t10021133123\r",
            "tg000\r",
            "T200000000\r",
            "x\r",
            "F2\r",
        ] {
            assert_eq!(replies(line.as_bytes()), (vec![], 1), "{line}");
        }
        let mut line = String::new();
        let odd = Frame::Fd { id: Id::Standard(1), data: data(&[0; 9]), fast: false, passive: false };
        assert!(!write_frame(&odd, &mut line) && line.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(frame in any_frame()) {
            let mut line = String::new();
            if !write_frame(&frame, &mut line) {
                let is_error = matches!(frame, Frame::Error { .. });
                prop_assert!(is_error);
                return Ok(());
            }
            let expected = match frame {
                Frame::Fd { id, data, fast, .. } => Frame::Fd { id, data, fast, passive: false },
                other => other,
            };
            let expected = Reply::Frame(expected);
            prop_assert_eq!(replies(line.as_bytes()), (vec![expected], 0));
        }

        #[test]
        fn a_good_line_is_read_behind_any_noise(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            for byte in noise {
                decoder.push(byte);
                prop_assert!(decoder.line.len() <= MOST_OF_A_LINE);
            }
            decoder.push(END);
            prop_assert_eq!(decoder.push(b'z'), None);
            prop_assert_eq!(decoder.push(END), Some(Reply::Taken));
        }
    }
}
