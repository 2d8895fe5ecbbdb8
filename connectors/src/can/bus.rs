//! A raw socket on a bus of the kernel's (SocketCAN; `Documentation/networking/can.rst` of Linux), as tokio
//! sees it.
//!
//! tokio's type for any descriptor that can be polled is unsafe to make; that for datagram sockets does the
//! same, and may be given one of another family, as long as only its readiness is used. A reader that waits
//! for frames alone is not woken when the interface goes down, so the socket's error is waited for beside
//! them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socketcan::{CanFdSocket, CanFilter, Socket, SocketOptions};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep_until};

use super::frame::{Frame, Payload};
use super::id::Id;
use super::interface::Interface;

/// Frames of which a controller has not said that they are sent; there are fewer, unless it drops them.
const HANDED: usize = 64;

/// Frames that are read before anything else is done.
const BATCH: usize = 64;

/// Bytes of frames that wait in the kernel to be read, for half a second of a busy bus; it gives less where
/// it may not give so many.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What a write waits for when the interface's queue is full. A frame takes 0.1 to 10 ms.
const FULL_PAUSE: Duration = Duration::from_millis(2);

const CLASSIC_SIZE: usize = 16;
const FD_SIZE: usize = 72;
const EFF_FLAG: u32 = 1 << 31;
const RTR_FLAG: u32 = 1 << 30;
const ERR_FLAG: u32 = 1 << 29;
const BIT_RATE_SWITCH: u8 = 1;
const ERROR_STATE: u8 = 2;
const FD_FRAME: u8 = 4;
/// Classes of error frames (`linux/can/error.h`).
const ERROR_CLASSES: u32 = 0x1fff_ffff;
const BUS_OFF: u32 = 0x40;
const RESTARTED: u32 = 0x100;

const ENXIO: i32 = 6;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EAFNOSUPPORT: i32 = 97;
const EPROTONOSUPPORT: i32 = 93;
const ENETDOWN: i32 = 100;
const ENOBUFS: i32 = 105;

/// A frame, and when it came, as wall time in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// the frame
    pub frame: Frame,
    /// when
    pub at: i64,
}

/// What has become of a frame that was to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// the controller has it: [`Event::Left`] says when it is sent
    Aboard,
    /// an adapter has it; what becomes of it is an [`Event::Answered`]
    Asked,
    /// there is no room for it now: [`Bus::wait`] says when
    Later,
    /// it can never be sent, in words for the user
    Refused(String),
    /// the bus is gone, in words for the user
    Lost(String),
}

/// What happens on a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// frames have come
    Frames,
    /// there may be room for a frame
    Room,
    /// a frame of the box is on the bus, as far as the controller's driver tells: the kernel marks interfaces
    /// whose drivers do with `ECHO`, and for others says it when the driver has taken the frame
    Left(Frame),
    /// what an adapter says of the frame that it was given: whether it is sent, or why not
    Answered(Result<(), String>),
    /// the controller has left the bus, in words for the user
    Off(String),
    /// the controller has returned to the bus
    On,
    /// this recording has come to its end
    Played(String),
}

/// An open bus. What it sends comes back to it as [`Event::Left`] only.
#[derive(Debug)]
pub struct Bus {
    name: String,
    socket: CanFdSocket,
    waiter: UnixDatagram,
    takes_fd: bool,
    listens_only: bool,
    is_off: bool,
    /// what the controller has
    handed: VecDeque<Frame>,
    /// what it has sent of that
    left: VecDeque<Frame>,
    /// what happened behind the frames that were read
    next: Option<Result<Event, io::Error>>,
    /// the kernel's count of frames that it had no room for
    lost: u32,
    told_lost: u32,
    control: Vec<u8>,
    full_until: Option<Instant>,
}

impl Bus {
    /// Opens an interface for the frames that `filters` let through, as id and mask in the kernel's form.
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// In words for the user.
    pub fn open(name: &str, filters: &[(u32, u32)], errors: bool) -> Result<Self, String> {
        let interface = Interface::read(name).map_err(|error| explain(name, &error))?;
        if !interface.is_can {
            return Err(format!("{name} is no CAN interface; {LIST}"));
        }
        if !interface.is_up {
            let how = match interface.bitrate {
                Some(bitrate @ 1..) => format!(" type can bitrate {bitrate}"),
                Some(0) => " type can bitrate 250000".into(),
                None => String::new(),
            };
            return Err(format!("{name} is down; bring it up with: ip link set {name} up{how}"));
        }
        let opened = Self::socket(name, filters, errors).and_then(|socket| {
            let waiter = std::os::unix::net::UnixDatagram::from(socket.as_fd().try_clone_to_owned()?);
            Ok((socket, UnixDatagram::from_std(waiter)?))
        });
        let (socket, waiter) = opened.map_err(|error| explain(name, &error))?;
        Ok(Self {
            name: name.to_owned(),
            socket,
            waiter,
            takes_fd: interface.takes_fd,
            listens_only: interface.listens_only,
            is_off: false,
            handed: VecDeque::new(),
            left: VecDeque::new(),
            next: interface.is_bus_off.then(|| Ok(Event::Off(off(name)))),
            lost: 0,
            told_lost: 0,
            control: nix::cmsg_space!(nix::sys::time::TimeSpec, u32),
            full_until: None,
        })
    }

    fn socket(name: &str, filters: &[(u32, u32)], errors: bool) -> io::Result<CanFdSocket> {
        let socket = CanFdSocket::open(name)?;
        socket.set_nonblocking(true)?;
        let filters: Vec<CanFilter> = filters.iter().map(|(id, mask)| CanFilter::new(*id, *mask)).collect();
        socket.set_filters(&filters)?;
        socket.set_error_filter(if errors { ERROR_CLASSES } else { BUS_OFF | RESTARTED })?;
        socket.set_recv_timestamp(true)?;
        // A frame comes back when the controller has sent it.
        socket.set_recv_own_msgs(true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        // The smallest that there is: what waits in the kernel while nobody acknowledges is sent late.
        setsockopt(&socket, sockopt::SndBuf, &1)?;
        Ok(socket)
    }

    /// Waits until something happens; frames go to the end of `frames`. With `wants_room` it is also told
    /// when a frame may be sent. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// Why the bus is gone, in words for the user.
    pub async fn wait(&mut self, wants_room: bool, frames: &mut Vec<Received>) -> Result<Event, String> {
        if let Some(frame) = self.left.pop_front() {
            return Ok(Event::Left(frame));
        }
        if let Some(next) = self.next.take() {
            let event = next.map_err(|error| explain(&self.name, &error))?;
            self.is_off = matches!(event, Event::Off(_)) || self.is_off && event != Event::On;
            return Ok(event);
        }
        let Self { name, socket, waiter, control, lost, full_until, is_off, next, handed, left, .. } = self;
        let failed = waiter.async_io(Interest::ERROR, || match socket.as_raw_socket().take_error()? {
            Some(error) => Ok(error),
            None => Err(ErrorKind::WouldBlock.into()),
        });
        let read = waiter.async_io(Interest::READABLE, || {
            let before = frames.len();
            while frames.len() < before + BATCH {
                match read(socket, control, lost) {
                    Ok(Some(received)) if has_left(&received.frame, handed) => left.push_back(received.frame),
                    Ok(Some(received)) => {
                        frames.push(received);
                        if let Some(event) = controller_event(name, &received.frame, *is_off) {
                            *next = Some(Ok(event));
                            break;
                        }
                    }
                    Ok(None) => {}
                    Err(error) if frames.len() == before && left.is_empty() => return Err(error),
                    Err(error) => {
                        *next = (error.kind() != ErrorKind::WouldBlock).then_some(Err(error));
                        break;
                    }
                }
            }
            Ok(())
        });
        let room = async {
            match *full_until {
                Some(until) => sleep_until(until).await,
                // It fails when the runtime ends.
                None => drop(waiter.ready(Interest::WRITABLE).await),
            }
        };
        let outcome = tokio::select! {
            biased;
            error = failed => Err(error.unwrap_or_else(|error| error)),
            outcome = read => outcome.map(|()| Event::Frames),
            () = room, if wants_room => Ok(Event::Room),
        };
        outcome.map_err(|error| explain(name, &error))
    }

    /// Takes the frames that wait in the socket now.
    pub fn drain(&mut self, frames: &mut Vec<Received>) {
        while self.next.is_none()
            && let Ok(received) = read(&self.socket, &mut self.control, &mut self.lost)
        {
            let Some(received) = received else { continue };
            if has_left(&received.frame, &mut self.handed) {
                self.left.push_back(received.frame);
                continue;
            }
            frames.push(received);
            self.next = controller_event(&self.name, &received.frame, self.is_off).map(Ok);
        }
    }

    /// How many frames have found no room in the socket since this was asked last, as far as is known.
    pub fn newly_lost(&mut self) -> u64 {
        // The kernel's count begins again behind its greatest.
        self.lost.wrapping_sub(std::mem::replace(&mut self.told_lost, self.lost)).into()
    }

    /// Hands a frame to the controller.
    pub fn send(&mut self, frame: &Frame) -> Sent {
        let name = &self.name;
        if self.listens_only {
            // The kernel would take it, and drop it.
            return Sent::Refused(format!(
                "the controller of {name} only listens; if it may send: ip link set {name} down && ip link \
                set {name} up type can listen-only off"
            ));
        }
        if matches!(frame, Frame::Fd { .. }) && !self.takes_fd {
            return Sent::Refused(format!(
                "{name} takes no FD frames: where its controller can, set it up with: ip link set {name} up \
                type can bitrate 500000 dbitrate 2000000 fd on"
            ));
        }
        let Some((bytes, size)) = encode(frame) else {
            return Sent::Refused("a classic frame has 8 bytes at most".into());
        };
        let bytes = bytes.get(..size).unwrap_or_default();
        let written = self.waiter.try_io(Interest::WRITABLE, || self.socket.as_raw_socket().send(bytes));
        let Err(error) = written else {
            self.full_until = None;
            if self.handed.len() == HANDED {
                self.handed.pop_front();
            }
            self.handed.push_back(*frame);
            return Sent::Aboard;
        };
        match error.raw_os_error() {
            // The queue of the interface is full, of which the socket knows nothing.
            Some(ENOBUFS) => {
                self.full_until = Some(Instant::now() + FULL_PAUSE);
                Sent::Later
            }
            _ if error.kind() == ErrorKind::WouldBlock => {
                self.full_until = None;
                Sent::Later
            }
            Some(EINVAL) => Sent::Refused(format!("{name} does not take such a frame ({error})")),
            _ => Sent::Lost(explain(name, &error)),
        }
    }

    /// Whether the controller has errors, and may hold frames back because of them.
    pub fn is_failing(&self) -> bool {
        Interface::read(&self.name).is_ok_and(|interface| interface.is_failing)
    }

    /// Whether a controller that had left the bus has returned. It is asked, since not every driver tells.
    pub fn has_returned(&mut self) -> bool {
        let returned =
            self.is_off && Interface::read(&self.name).is_ok_and(|interface| !interface.is_bus_off);
        self.is_off &= !returned;
        returned
    }
}

const LIST: &str = "list those that there are with: ip link show type can";

fn off(name: &str) -> String {
    let restart = Interface::read(name).ok().and_then(|interface| interface.restart_ms).filter(|ms| *ms > 0);
    let what = match restart {
        Some(ms) => format!("it returns after {ms} ms"),
        None => format!(
            "it does not return by itself: ip link set {name} type can restart, or have it return with: ip \
            link set {name} down && ip link set {name} up type can restart-ms 100"
        ),
    };
    format!(
        "the controller of {name} has left the bus after too many errors (bus-off), and {what}. Compare the \
        bit rate with the other nodes' and look at wiring and termination"
    )
}

fn explain(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EAFNOSUPPORT | EPROTONOSUPPORT) => format!(
            "{name} cannot be opened: the kernel has no CAN (modprobe can_raw), or the service may not use \
            it (RestrictAddressFamilies=AF_CAN AF_NETLINK)"
        ),
        Some(ENETDOWN) => format!("{name} went down"),
        Some(ENODEV | ENXIO) => format!("there is no interface {name} (any more); {LIST}"),
        _ if error.kind() == ErrorKind::NotFound => format!("there is no interface {name}; {LIST}"),
        _ => format!("{name}: {error}"),
    }
}

/// What a frame says of the controller.
fn controller_event(name: &str, frame: &Frame, is_off: bool) -> Option<Event> {
    match frame {
        Frame::Error { class, .. } if class & BUS_OFF != 0 => Some(Event::Off(off(name))),
        Frame::Error { class, .. } if class & RESTARTED == 0 => None,
        // Who receives is on the bus.
        _ => is_off.then_some(Event::On),
    }
}

/// Whether a frame is one that the box has sent itself. On a bus no other node sends under the same id.
fn has_left(frame: &Frame, handed: &mut VecDeque<Frame>) -> bool {
    let place = handed.iter().position(|own| own == frame);
    place.and_then(|place| handed.remove(place)).is_some()
}

/// Reads a frame; none: the kernel has passed on something that is none.
fn read(socket: &CanFdSocket, control: &mut [u8], lost: &mut u32) -> io::Result<Option<Received>> {
    let mut bytes = [0; FD_SIZE];
    let (length, at) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(control), MsgFlags::MSG_DONTWAIT)?;
        let mut at = 0;
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmTimestampns(time) => {
                    at = time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec());
                }
                ControlMessageOwned::RxqOvfl(count) => *lost = count,
                _ => {}
            }
        }
        (message.bytes, at)
    };
    Ok(bytes.get(..length).and_then(decode).map(|frame| Received { frame, at }))
}

/// `struct can_frame` or `struct canfd_frame` (`linux/can.h`).
fn decode(bytes: &[u8]) -> Option<Frame> {
    let word = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let (length, flags) = (*bytes.get(4)?, *bytes.get(5)?);
    let id =
        if word & EFF_FLAG == 0 { Id::standard(word & 0x7ff) } else { Id::extended(word & ERROR_CLASSES) };
    let data = bytes.get(8..)?;
    let payload = || Payload::new(data.get(..usize::from(length))?);
    match bytes.len() {
        FD_SIZE => Some(Frame::Fd {
            id: id?,
            data: payload()?,
            fast: flags & BIT_RATE_SWITCH != 0,
            passive: flags & ERROR_STATE != 0,
        }),
        CLASSIC_SIZE if word & ERR_FLAG != 0 => {
            Some(Frame::Error { class: word & ERROR_CLASSES, data: data.try_into().ok()? })
        }
        CLASSIC_SIZE if word & RTR_FLAG != 0 => Some(Frame::Remote { id: id?, length }),
        CLASSIC_SIZE => Some(Frame::Data { id: id?, data: payload()? }),
        _ => None,
    }
}

/// The same the other way, with how many of the bytes it has; none: it is too long for its kind.
fn encode(frame: &Frame) -> Option<([u8; FD_SIZE], usize)> {
    let word = |id: &Id| id.number() | if id.is_extended() { EFF_FLAG } else { 0 };
    let (word, length, flags, data, size): (_, _, _, &[u8], _) = match frame {
        Frame::Data { id, data } => (word(id), data.len(), 0, data, CLASSIC_SIZE),
        Frame::Remote { id, length } => (word(id) | RTR_FLAG, usize::from(*length), 0, &[], CLASSIC_SIZE),
        Frame::Error { class, data } => (class | ERR_FLAG, data.len(), 0, data, CLASSIC_SIZE),
        Frame::Fd { id, data, fast, passive } => {
            let fast = if *fast { BIT_RATE_SWITCH } else { 0 };
            let passive = if *passive { ERROR_STATE } else { 0 };
            (word(id), data.len(), FD_FRAME | fast | passive, data, FD_SIZE)
        }
    };
    if length > size - 8 {
        return None;
    }
    let mut bytes = [0; FD_SIZE];
    let head = word.to_ne_bytes().into_iter().chain([u8::try_from(length).ok()?, flags, 0, 0]);
    for (place, byte) in bytes.iter_mut().zip(head.chain(data.iter().copied())) {
        *place = byte;
    }
    Some((bytes, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_handed_to_the_kernel_is_what_it_would_hand_back(
            number in 0_u32..0x2000_0000,
            bytes in proptest::collection::vec(any::<u8>(), 0..=8),
            fd_bytes in proptest::collection::vec(any::<u8>(), 0..=64),
            fast in any::<bool>(),
            length in 0_u8..=8,
        ) {
            let ids = [Id::standard(number & 0x7ff).unwrap(), Id::extended(number).unwrap()];
            for id in ids {
                for frame in [
                    Frame::Data { id, data: Payload::new(&bytes).unwrap() },
                    Frame::Fd { id, data: Payload::new(&fd_bytes).unwrap(), fast, passive: !fast },
                    Frame::Remote { id, length },
                    Frame::Error { class: number, data: [length; 8] },
                ] {
                    let (bytes, size) = encode(&frame).unwrap();
                    prop_assert_eq!(decode(&bytes[..size]), Some(frame));
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }

    /// `linux/can.h`: id with flags, length, flags, two bytes of no meaning, data.
    #[test]
    fn a_frame_lies_in_memory_as_the_kernel_has_it() {
        let data = Payload::new(&[1, 2]).unwrap();
        let (bytes, size) = encode(&Frame::Data { id: Id::extended(0x18fe_f100).unwrap(), data }).unwrap();
        assert_eq!(bytes[..4], 0x98fe_f100_u32.to_ne_bytes());
        assert_eq!((&bytes[4..10], size), (&[2, 0, 0, 0, 1, 2][..], 16));
        let id = Id::standard(0x7ff).unwrap();
        let (bytes, size) = encode(&Frame::Fd { id, data, fast: true, passive: false }).unwrap();
        assert_eq!((&bytes[4..6], size), (&[2, 5][..], 72));
    }
}
