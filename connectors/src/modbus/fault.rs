//! Why a request gave nothing.

use std::fmt;
use std::time::Duration;

use tidegate_core::Span;

/// Why a request gave nothing. What was asked for is said by who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The device refuses, with this code.
    Exception(u8),
    /// No answer came in time.
    Silent {
        /// how long it was waited for
        timeout: Duration,
        /// whether bytes came that are no answer
        heard: bool,
    },
    /// The far side closed the connection, or the port is gone.
    Closed,
    /// The same, before the request was sent.
    ClosedBefore,
    /// The operating system's words.
    Io(String),
    /// What came cannot be from a device that follows the protocol; in words for the user.
    Garbled(String),
    /// A serial line on which bytes never stop.
    Babble,
    /// The request itself is impossible; in words for the user.
    Request(String),
}

/// An exception's name, and what it usually comes from (Application Protocol V1.1b3, section 7).
fn exception(code: u8) -> (&'static str, &'static str) {
    match code {
        1 => ("illegal function", "the device does not know this kind of request"),
        2 => (
            "illegal data address",
            "it has no such register: compare with the data sheet, which may count from 1 (`addresses_from \
            = 1`), and look at `gap`",
        ),
        3 => {
            ("illegal data value", "it does not take this value, or not so many registers (`max_registers`)")
        }
        4 => ("server device failure", "the device has failed at it: look at its own display or log"),
        5 => ("acknowledge", "it needs longer for this"),
        6 => ("server device busy", "it is busy: poll it less often, or set `pause_between_requests`"),
        7 => ("negative acknowledge", "the device cannot do this"),
        8 => ("memory parity error", "the device's memory is damaged"),
        10 => (
            "gateway path unavailable",
            "the gateway has no way to this unit: compare its settings with `unit`",
        ),
        11 => {
            ("gateway target device failed to respond", "the device behind the gateway is off or not wired")
        }
        _ => ("an exception of the maker's own", "see the device's manual"),
    }
}

impl Fault {
    /// Whether the connection is of no more use.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Closed | Self::ClosedBefore | Self::Io(_) | Self::Garbled(_) | Self::Babble)
    }

    /// Whether the device itself was not heard of.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Exception(10 | 11))
    }

    /// Whether the device is there; none: it says nothing about that.
    #[must_use]
    pub fn tells_alive(&self) -> Option<bool> {
        match self {
            fault if fault.is_silence() => Some(false),
            Self::Exception(_) => Some(true),
            Self::ClosedBefore => None,
            // One device must not take the line from the others again and again.
            fault => fault.ends_connection().then_some(false),
        }
    }

    /// Whether the device does not know the function, and so has done nothing.
    #[must_use]
    pub fn is_unknown_function(&self) -> bool {
        matches!(self, Self::Exception(1))
    }

    /// Whether the device may have done what it was asked for: the request was sent, and what came says
    /// neither yes nor no.
    #[must_use]
    pub fn may_have_been_done(&self) -> bool {
        !matches!(self, Self::Exception(1..=4 | 6..=10 | 12..) | Self::Request(_) | Self::ClosedBefore)
    }

    /// Whether the same request may go through later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Exception(1..=4 | 7..=9 | 12..) | Self::Request(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exception(code) => {
                let (name, help) = exception(*code);
                write!(f, "the device answers \"{name}\" (exception {code}): {help}")
            }
            Self::Silent { timeout, heard: false } => write!(f, "no answer within {}", Span(*timeout)),
            Self::Silent { timeout, heard: true } => write!(
                f,
                "no answer within {}, but bytes that are none: compare baud rate, parity and wiring, and \
                look for a second master or a unit id that is used twice",
                Span(*timeout)
            ),
            Self::Closed | Self::ClosedBefore => {
                f.write_str("the far side closed the connection (many devices take one client at a time)")
            }
            Self::Io(error) => f.write_str(error),
            Self::Garbled(what) => write!(f, "the answer is not right: {what}"),
            Self::Babble => f.write_str(
                "the line does not fall silent: look for another master, a loose wire or a bias resistor",
            ),
            Self::Request(what) => f.write_str(what),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}
