//! Identifiers of frames, as users write them, and what is in those of J1939.

use std::fmt;
use std::str::FromStr;

/// The greatest id of 11 bits.
pub const MOST_STANDARD: u32 = 0x7ff;

/// The greatest id of 29 bits.
pub const MOST_EXTENDED: u32 = 0x1fff_ffff;

/// An identifier of 11 or of 29 bits: the same number is another identifier in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// 11 bits
    Standard(u16),
    /// 29 bits
    Extended(u32),
}

impl Id {
    /// None: it has more than 11 bits.
    #[must_use]
    pub fn standard(number: u32) -> Option<Self> {
        u16::try_from(number).ok().filter(|_| number <= MOST_STANDARD).map(Self::Standard)
    }

    /// None: it has more than 29 bits.
    #[must_use]
    pub fn extended(number: u32) -> Option<Self> {
        (number <= MOST_EXTENDED).then_some(Self::Extended(number))
    }

    /// The number without its width.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Standard(number) => number.into(),
            Self::Extended(number) => number,
        }
    }

    /// Whether it has 29 bits.
    #[must_use]
    pub fn is_extended(self) -> bool {
        matches!(self, Self::Extended(_))
    }

    fn with_number(self, number: u32) -> Option<Self> {
        if self.is_extended() { Self::extended(number) } else { Self::standard(number) }
    }
}

/// `0x100`, or with 29 bits `0x18FEF100x`.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(number) => write!(f, "0x{number:X}"),
            Self::Extended(number) => write!(f, "0x{number:X}x"),
        }
    }
}

/// Text that is no identifier, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no id: {why}")]
pub struct IdError {
    text: String,
    why: String,
}

impl IdError {
    fn new(text: &str, why: impl Into<String>) -> Self {
        Self { text: text.into(), why: why.into() }
    }
}

const SPELLINGS: &str = "write one such as 0x100, or 0x18FEF100x with 29 bits";

/// Number and whether there is an `x` behind it.
fn number(text: &str) -> Option<(u32, bool)> {
    let (digits, is_extended) = match text.strip_suffix(['x', 'X']) {
        // The x of `0x` belongs in front.
        Some(digits) if digits != "0" => (digits, true),
        _ => (text, false),
    };
    // `from_str_radix` takes a sign.
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((digits, 10), |hex| (hex, 16));
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    Some((u32::from_str_radix(digits, radix).ok().filter(|_| plain)?, is_extended))
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (number, is_extended) = number(text).ok_or_else(|| IdError::new(text, SPELLINGS))?;
        if is_extended {
            Self::extended(number)
                .ok_or_else(|| IdError::new(text, "29 bits hold 0x0x to 0x1FFFFFFFx, and no more"))
        } else {
            Self::standard(number).ok_or_else(|| {
                let why = match Self::extended(number) {
                    Some(id) => format!("11 bits hold 0x0 to 0x7FF; with 29 bits it is written {id}"),
                    None => "an id has 29 bits at most, so that 0x1FFFFFFFx is the greatest".into(),
                };
                IdError::new(text, why)
            })
        }
    }
}

/// All identifiers of one width from one to another: `0x100-0x1ff`, `0x18FEF100x-0x18FEF1FFx`, or only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRange {
    first: Id,
    last: Id,
}

impl IdRange {
    /// None: they differ in width, or the first is behind the last.
    #[must_use]
    pub fn new(first: Id, last: Id) -> Option<Self> {
        (first.is_extended() == last.is_extended() && first <= last).then_some(Self { first, last })
    }

    /// The least id in it.
    #[must_use]
    pub fn first(self) -> Id {
        self.first
    }

    /// The greatest id in it.
    #[must_use]
    pub fn last(self) -> Id {
        self.last
    }

    /// Whether the id is in it.
    #[must_use]
    pub fn contains(self, id: Id) -> bool {
        // All standard ids are less than all extended ones.
        (self.first..=self.last).contains(&id)
    }
}

impl From<Id> for IdRange {
    fn from(id: Id) -> Self {
        Self { first: id, last: id }
    }
}

impl FromStr for IdRange {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let Some((first, last)) = text.split_once('-') else { return text.parse::<Id>().map(Self::from) };
        let last: Id = last.trim().parse()?;
        let first = first.trim();
        // The width is told by the last one, too: `0x18FEF100-0x18FEF1FFx`.
        let first = match number(first) {
            Some((number, false)) => last.with_number(number).map_or_else(|| first.parse(), Ok)?,
            _ => first.parse()?,
        };
        Self::new(first, last).ok_or_else(|| {
            let why = if first.is_extended() == last.is_extended() {
                format!("{first} is behind {last}; write the lesser one first")
            } else {
                "one end has 11 bits, and the other 29; write an x behind both or behind none".into()
            };
            IdError::new(text, why)
        })
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        if self.first != self.last {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

/// What J1939 (SAE J1939-21, section 5.2) keeps in an identifier of 29 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct J1939Id {
    /// 0 (highest) to 7
    pub priority: u8,
    /// the number of the parameter group, 18 bits
    pub pgn: u32,
    /// who sends
    pub source: u8,
    /// to whom; none: the group is for everybody
    pub destination: Option<u8>,
}

/// The destination that means everybody.
pub const GLOBAL: u8 = 0xff;

/// The source address of nobody in particular: tools write it into databases.
pub const NULL_ADDRESS: u8 = 0xfe;

/// The greatest number of a parameter group.
pub const MOST_PGN: u32 = 0x3_ffff;

/// Whether messages of the group go to one node: then the id has a destination in the number's low byte.
#[must_use]
pub fn is_addressed(pgn: u32) -> bool {
    pgn >> 8 & 0xff < 240
}

impl J1939Id {
    /// None: it has 11 bits.
    #[must_use]
    pub fn parse(id: Id) -> Option<Self> {
        let Id::Extended(number) = id else { return None };
        let [top, .., low, source] = number.to_be_bytes();
        let group = number >> 8 & MOST_PGN;
        let (pgn, destination) = if is_addressed(group) { (group & !0xff, Some(low)) } else { (group, None) };
        Some(Self { priority: top >> 2 & 7, pgn, source, destination })
    }

    /// The identifier; what does not fit into its fields is left out. A group that goes to one node goes to
    /// everybody if there is no destination.
    #[must_use]
    pub fn id(self) -> Id {
        let low = if is_addressed(self.pgn) {
            self.pgn & !0xff | u32::from(self.destination.unwrap_or(GLOBAL))
        } else {
            self.pgn
        };
        let number = u32::from(self.priority & 7) << 26 | (low & MOST_PGN) << 8 | u32::from(self.source);
        Id::Extended(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<Id>().ok();
        assert_eq!(read("0x100"), Some(Id::Standard(0x100)));
        assert_eq!(read("256"), Some(Id::Standard(0x100)));
        assert_eq!(read("0x7ff"), Some(Id::Standard(0x7ff)));
        assert_eq!(read("0x0"), Some(Id::Standard(0)));
        assert_eq!(read("0x18FEF100x"), Some(Id::Extended(0x18fe_f100)));
        assert_eq!(read("0x100x"), Some(Id::Extended(0x100)));
        assert_eq!(read("0x0x"), Some(Id::Extended(0)));
        assert_eq!(read("5x"), Some(Id::Extended(5)));
        for wrong in ["", "x", "0x", "0x800", "0x20000000x", "-1", "0x-1", "+1", "0x+1", "1e3", "speed"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        let error = "0x18FEF100".parse::<Id>().unwrap_err().to_string();
        assert!(error.contains("0x18FEF100x"), "{error}");
    }

    #[test]
    fn ranges_have_ends_of_one_width() {
        let read = |text: &str| text.parse::<IdRange>();
        let range = read("0x100-0x1ff").unwrap();
        assert!(range.contains(Id::Standard(0x1ff)) && !range.contains(Id::Standard(0x200)));
        assert!(!range.contains(Id::Extended(0x100)));
        assert_eq!(read("0x18FEF100-0x18FEF1FFx"), read("0x18FEF100x - 0x18FEF1FFx"));
        assert_eq!(read("0x10"), Ok(IdRange::from(Id::Standard(0x10))));
        assert!(read("0x200-0x100").unwrap_err().to_string().contains("lesser one first"));
        assert!(read("0x10x-0x20").unwrap_err().to_string().contains("29"));
        assert!(read("0x10-").is_err() && read("-0x10").is_err());
    }

    /// SAE J1939-71: EEC1 is PGN 61444, sent by engine 1 (address 0) with priority 3 as 0x0CF00400. J1939-21:
    /// a request is PGN 59904, to one node or to 255.
    #[test]
    fn the_parts_of_a_j1939_id_are_where_the_standard_has_them() {
        let engine = J1939Id::parse(Id::Extended(0x0cf0_0400)).unwrap();
        assert_eq!(engine, J1939Id { priority: 3, pgn: 61_444, source: 0, destination: None });
        let request = J1939Id::parse(Id::Extended(0x18ea_00f9)).unwrap();
        assert_eq!(request, J1939Id { priority: 6, pgn: 59_904, source: 0xf9, destination: Some(0) });
        let all = J1939Id { destination: None, ..request };
        assert_eq!(all.id(), Id::Extended(0x18ea_fff9));
        assert_eq!(J1939Id::parse(Id::Standard(0x100)), None);
    }

    fn any_id() -> impl Strategy<Value = Id> {
        prop_oneof![
            (0..=MOST_STANDARD).prop_filter_map("11 bits", Id::standard),
            (0..=MOST_EXTENDED).prop_filter_map("29 bits", Id::extended),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(id in any_id(), other in any_id()) {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            if let Some(range) = IdRange::new(id, other) {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in "[0-9a-fxX+\\- ]{0,12}") {
            let _ = text.parse::<Id>();
            let _ = text.parse::<IdRange>();
        }

        #[test]
        fn a_j1939_id_comes_back_from_its_parts(number in 0..=MOST_EXTENDED) {
            let id = Id::Extended(number);
            prop_assert_eq!(J1939Id::parse(id).map(J1939Id::id), Some(id));
        }
    }
}
