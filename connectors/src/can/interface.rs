//! What the kernel says of a network interface: whether it is a CAN bus, up, and in which state its
//! controller is. Asked by rtnetlink (rtnetlink(7), `linux/can/netlink.h`), which everybody may.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
/// `struct ifinfomsg`
const IFINFO: usize = 16;
const ARPHRD_CAN: u16 = 280;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_CAN_BITTIMING: u16 = 1;
const IFLA_CAN_STATE: u16 = 4;
const IFLA_CAN_CTRLMODE: u16 = 5;
const IFLA_CAN_RESTART_MS: u16 = 6;
/// `enum can_state`
const WARNING: u32 = 1;
const BUS_OFF: u32 = 3;
const CTRLMODE_LISTENONLY: u32 = 0x02;
/// `CANFD_MTU`
const FD_MTU: u32 = 72;
/// An interface's name with its end (IFNAMSIZ).
const NAME: usize = 16;

/// An interface as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interface {
    /// whether it is a CAN bus
    pub is_can: bool,
    /// whether somebody has brought it up
    pub is_up: bool,
    /// whether it takes FD frames
    pub takes_fd: bool,
    /// whether its controller has left the bus because of errors
    pub is_bus_off: bool,
    /// whether its controller counts so many errors that something is wrong
    pub is_failing: bool,
    /// whether it never sends
    pub listens_only: bool,
    /// bits a second, 0 when nobody has set it; none: a virtual bus
    pub bitrate: Option<u32>,
    /// after how many milliseconds its controller returns to the bus by itself; none or 0: never
    pub restart_ms: Option<u32>,
}

impl Interface {
    /// Asks the kernel for it.
    ///
    /// # Errors
    /// `NotFound` when there is no such interface.
    pub fn read(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() >= NAME || name.contains('\0') {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (domain, of) = (AddressFamily::Netlink, SockType::Raw);
        let netlink = socket(domain, of, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        send(netlink.as_raw_fd(), &request(name), MsgFlags::empty())?;
        // The kernel has answered before `send` returns.
        let mut answer = vec![0; 1 << 15];
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        parse(answer.get(..length).unwrap_or_default())
    }
}

fn request(name: &str) -> Vec<u8> {
    let mut body = vec![0; IFINFO];
    body.extend(u16::try_from(4 + name.len() + 1).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(IFLA_IFNAME.to_ne_bytes());
    body.extend(name.bytes());
    body.push(0);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn parse(answer: &[u8]) -> io::Result<Interface> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut off");
    let body = answer.get(HEADER..).ok_or_else(short)?;
    match u16_at(answer, 4) {
        Some(RTM_NEWLINK) => {}
        Some(NLMSG_ERROR) => {
            let code = u32_at(body, 0).map(u32::cast_signed).ok_or_else(short)?;
            let error = io::Error::from_raw_os_error(code.saturating_neg());
            // ENODEV has no kind of its own.
            return Err(if code == -19 { io::ErrorKind::NotFound.into() } else { error });
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel answers something else")),
    }
    let mut interface = Interface {
        is_can: u16_at(body, 2) == Some(ARPHRD_CAN),
        is_up: u32_at(body, 8).is_some_and(|flags| flags & IFF_UP != 0),
        ..Interface::default()
    };
    for (kind, value) in attributes(body.get(IFINFO..).unwrap_or_default()) {
        match kind {
            IFLA_MTU => interface.takes_fd = u32_at(value, 0).is_some_and(|mtu| mtu >= FD_MTU),
            IFLA_LINKINFO if interface.is_can => {
                let data = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_DATA);
                for (kind, value) in attributes(data.map(|(_, value)| value).unwrap_or_default()) {
                    interface.take(kind, value);
                }
            }
            _ => {}
        }
    }
    Ok(interface)
}

impl Interface {
    fn take(&mut self, kind: u16, value: &[u8]) {
        match kind {
            IFLA_CAN_BITTIMING => self.bitrate = u32_at(value, 0),
            IFLA_CAN_STATE => {
                let state = u32_at(value, 0);
                self.is_bus_off = state == Some(BUS_OFF);
                self.is_failing = state.is_some_and(|state| (WARNING..=BUS_OFF).contains(&state));
                // Only controllers have one.
                self.bitrate.get_or_insert(0);
            }
            IFLA_CAN_CTRLMODE => {
                self.listens_only = u32_at(value, 4).is_some_and(|modes| modes & CTRLMODE_LISTENONLY != 0);
            }
            IFLA_CAN_RESTART_MS => self.restart_ms = u32_at(value, 0),
            _ => {}
        }
    }
}

/// Attributes one behind the other: length with its head, kind, value, each from a multiple of four on.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The two highest bits say how it is written.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_loopback_interface_is_up_and_no_can_bus() {
        let lo = Interface::read("lo").unwrap();
        assert!(!lo.is_can && lo.bitrate.is_none());
        for name in ["", "no-such-can", "a-name-that-is-far-too-long"] {
            assert_eq!(Interface::read(name).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut answer = bytes;
            if let Some(kind) = answer.get_mut(4..6) {
                kind.copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
            }
            let _ = parse(&answer);
        }
    }
}
