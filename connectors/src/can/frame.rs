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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_id() -> impl Strategy<Value = Id> {
        prop_oneof![
            (0..=super::super::id::MOST_STANDARD).prop_filter_map("11 bits", Id::standard),
            (0..=super::super::id::MOST_EXTENDED).prop_filter_map("29 bits", Id::extended),
        ]
    }

    fn any_payload(most: usize) -> impl Strategy<Value = Payload> {
        proptest::collection::vec(any::<u8>(), 0..=most)
            .prop_filter_map("64 bytes", |data| Payload::new(&data))
    }

    /// CAN FD frames have lengths that there are.
    pub(in crate::can) fn any_frame() -> impl Strategy<Value = Frame> {
        let padded = |data: Payload| {
            let mut bytes = data.to_vec();
            bytes.resize(fd_length(data.len())?, 0);
            Payload::new(&bytes)
        };
        let fd = any_payload(MOST_FD).prop_filter_map("64 bytes", padded);
        prop_oneof![
            (any_id(), any_payload(MOST_CLASSIC)).prop_map(|(id, data)| Frame::Data { id, data }),
            (any_id(), fd, any::<bool>(), any::<bool>()).prop_map(|(id, data, fast, passive)| Frame::Fd {
                id,
                data,
                fast,
                passive
            }),
            (any_id(), 0..=8_u8).prop_map(|(id, length)| Frame::Remote { id, length }),
            (0..1_u32 << 29, any::<[u8; 8]>()).prop_map(|(class, data)| Frame::Error { class, data }),
        ]
    }

    #[test]
    fn fd_frames_have_the_lengths_of_the_standard() {
        assert_eq!(fd_length(8), Some(8));
        assert_eq!(fd_length(9), Some(12));
        assert_eq!(fd_length(33), Some(48));
        assert_eq!(fd_length(64), Some(64));
        assert_eq!(fd_length(65), None);
        assert_eq!(Payload::new(&[0; 65]), None);
        assert_ne!(Payload::new(&[0]), Payload::new(&[0, 0]));
    }
}
