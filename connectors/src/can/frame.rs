//! What goes over a bus.

use std::fmt;
use std::ops::Deref;

use super::id::Id;

/// The most that a classic frame carries.
pub const MOST_CLASSIC: usize = 8;

/// The most that a CAN FD frame carries.
pub const MOST_FD: usize = 64;

/// A frame as it was received, or shall be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// up to 8 bytes
    Data {
        /// whose
        id: Id,
        /// what
        data: Payload,
    },
    /// up to 64 bytes, of CAN FD
    Fd {
        /// whose
        id: Id,
        /// what
        data: Payload,
        /// whether the bytes are sent at the faster rate (BRS)
        fast: bool,
        /// whether the sender is error-passive (ESI)
        passive: bool,
    },
    /// asks for a data frame of this length
    Remote {
        /// whose
        id: Id,
        /// 0 to 8
        length: u8,
    },
    /// what the controller says of the bus, as in `linux/can/error.h`
    Error {
        /// the classes, without the flag that marks error frames
        class: u32,
        /// what belongs to them
        data: [u8; 8],
    },
}

impl Frame {
    /// The id, but of error frames.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        match self {
            Self::Data { id, .. } | Self::Fd { id, .. } | Self::Remote { id, .. } => Some(*id),
            Self::Error { .. } => None,
        }
    }
}

/// The bytes of a frame.
#[derive(Clone, Copy)]
pub struct Payload {
    bytes: [u8; MOST_FD],
    length: u8,
}

impl Payload {
    /// None: they are more than 64.
    #[must_use]
    pub fn new(data: &[u8]) -> Option<Self> {
        let mut bytes = [0; MOST_FD];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        Some(Self { bytes, length: u8::try_from(data.len()).ok()? })
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X?}", &**self)
    }
}

/// The least length of a CAN FD frame that holds so many bytes: beyond 8 there are only some (ISO 11898-1).
#[must_use]
pub fn fd_length(bytes: usize) -> Option<usize> {
    if bytes <= MOST_CLASSIC {
        return Some(bytes);
    }
    FD_LENGTHS.into_iter().find(|length| *length >= bytes)
}

/// The lengths that the codes 9 to 15 stand for.
pub const FD_LENGTHS: [usize; 7] = [12, 16, 20, 24, 32, 48, 64];
