//! Nodes that are asked with ISO-TP (ISO 15765-2, by the kernel's socket), and values in their answers, as in
//! UDS (ISO 14229-1) and OBD (ISO 15031-5).

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use socketcan::{CanAddr, Id, SocketOptions};
use tidegate_core::{FieldType, Span};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, timeout_at};

use super::config::IsoTpConfig;
use super::id;
use crate::codec::{BinaryField, Scalar};
use crate::rows::Value;
use crate::table::Problem;

const AF_CAN: i32 = 29;
const CAN_ISOTP: i32 = 6;
const EPROTONOSUPPORT: i32 = 93;
const SOL_CAN_ISOTP: i32 = 106;
const CAN_ISOTP_OPTS: i32 = 1;
/// Flags of `struct can_isotp_options` (`linux/can/isotp.h`).
const TX_PADDING: u32 = 0x4;
const RX_PADDING: u32 = 0x8;

/// The longest answer of classic ISO-TP.
const MOST_BYTES: usize = 4095;

/// The first byte of a negative answer, and the reason that means "not yet" (ISO 14229-1, annex A).
const NEGATIVE: u8 = 0x7f;
const PENDING: u8 = 0x78;

/// Answers of this kind have so much added to the request's first byte.
const POSITIVE: u8 = 0x40;

/// How often a node may say "not yet".
const MOST_PENDING: u32 = 30;

/// A request that is sent again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request(pub(super) Vec<u8>);

impl Request {
    /// Reads "22 F1 90".
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new(&["request"], format!("\"{text}\" is no request"))
                .help("write its bytes in hexadecimal, such as \"01 0C\" or \"22 F1 90\"")
        };
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let [high, low] = pair else { return None };
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        bytes.filter(|bytes| (1..=MOST_BYTES).contains(&bytes.len())).map(Self).ok_or_else(wrong)
    }

    /// How many bytes behind the first an answer repeats: what of the node was asked for.
    fn repeated(&self) -> usize {
        match self.0.first() {
            // OBD: the parameter. Of several only the first is at a known place.
            Some(0x01 | 0x02 | 0x09) => 1,
            // UDS: the identifier of data.
            Some(0x22) => 2,
            _ => 0,
        }
    }

    fn is_answered_by(&self, answer: &[u8]) -> bool {
        let (Some(service), Some(kind)) = (self.0.first(), answer.first()) else { return false };
        let count = self.repeated().min(self.0.len() - 1);
        kind.checked_sub(POSITIVE) == Some(*service)
            && self.0.get(1..=count).is_some_and(|asked| answer.get(1..=count) == Some(asked))
    }
}

/// A node's socket, as the options want it.
struct Socket(OwnedFd);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl SocketOptions for Socket {}

/// A node that is asked, one request at a time.
pub(super) struct Node {
    interface: String,
    config: IsoTpConfig,
    socket: Option<UnixDatagram>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// none came in time
    Silent(String),
    /// the node refuses
    Refused(String),
    /// it cannot be asked
    Io(String),
}

impl Fault {
    pub(super) fn text(&self) -> &str {
        let (Self::Silent(text) | Self::Refused(text) | Self::Io(text)) = self;
        text
    }
}

impl Node {
    pub(super) fn new(interface: &str, config: IsoTpConfig) -> Self {
        Self { interface: interface.to_owned(), config, socket: None }
    }

    /// Sends a request and waits for its answer. One that comes late is not taken for that to the next
    /// request.
    pub(super) async fn ask(&mut self, request: &Request, patience: Duration) -> Result<Vec<u8>, Fault> {
        let outcome = self.try_ask(request, patience).await;
        if matches!(outcome, Err(Fault::Io(_) | Fault::Silent(_))) {
            self.socket = None;
        }
        outcome
    }

    async fn try_ask(&mut self, request: &Request, patience: Duration) -> Result<Vec<u8>, Fault> {
        let io = |error: io::Error| match error.raw_os_error() {
            Some(EPROTONOSUPPORT) => Fault::Io("the kernel has no ISO-TP: modprobe can_isotp".into()),
            _ => Fault::Io(format!("{}: {error}", self.interface)),
        };
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(&self.interface, self.config).map_err(io)?,
        };
        let socket = self.socket.insert(socket);
        let mut bytes = vec![0; MOST_BYTES];
        while socket.try_recv(&mut bytes).is_ok() {}
        socket.send(&request.0).await.map_err(io)?;
        let mut deadline = Instant::now() + patience;
        let mut pending = 0;
        loop {
            let failed = socket.async_io(Interest::ERROR, || match socket.take_error()? {
                Some(error) => Ok(error),
                None => Err(ErrorKind::WouldBlock.into()),
            });
            // An error alone does not wake who waits for an answer.
            let received = timeout_at(deadline, async {
                tokio::select! {
                    biased;
                    error = failed => Err(error.unwrap_or_else(|error| error)),
                    count = socket.recv(&mut bytes) => count,
                }
            });
            let answer = match received.await {
                Err(_) => return Err(self.silent(patience)),
                // Nobody has taken the request (`ECOMM`, `ETIMEDOUT`).
                Ok(Err(error)) if matches!(error.raw_os_error(), Some(70 | 110)) => {
                    return Err(self.silent(patience));
                }
                Ok(Err(error)) => return Err(io(error)),
                Ok(Ok(count)) => bytes.get(..count).unwrap_or_default(),
            };
            match answer {
                [NEGATIVE, service, PENDING, ..]
                    if request.0.first() == Some(service) && pending < MOST_PENDING =>
                {
                    pending += 1;
                    deadline = Instant::now() + patience.max(Duration::from_secs(5));
                }
                [NEGATIVE, service, code, ..] if request.0.first() == Some(service) => {
                    return Err(Fault::Refused(refusal(*code)));
                }
                answer if request.is_answered_by(answer) => return Ok(answer.to_vec()),
                // It answers another question.
                _ => {}
            }
        }
    }

    fn silent(&self, patience: Duration) -> Fault {
        let IsoTpConfig { tx, rx, .. } = self.config;
        Fault::Silent(format!(
            "no answer from {rx:#x} to the request to {tx:#x} within {}: compare the ids with the node's, \
             and see with `tidegate can dump {}` whether it answers",
            Span(patience),
            self.interface
        ))
    }
}

fn open(interface: &str, config: IsoTpConfig) -> io::Result<UnixDatagram> {
    let too_great = || io::Error::new(ErrorKind::InvalidInput, "an id has 29 bits at most");
    let id = |number: u32| -> io::Result<Id> {
        if config.extended || number > id::MOST_STANDARD {
            return socketcan::ExtendedId::new(number).map(Id::Extended).ok_or_else(too_great);
        }
        let number = u16::try_from(number).map_err(|_| too_great())?;
        socketcan::StandardId::new(number).map(Id::Standard).ok_or_else(too_great)
    };
    let socket = socket2::Socket::new(Domain::from(AF_CAN), Type::DGRAM, Some(Protocol::from(CAN_ISOTP)))?;
    socket.set_nonblocking(true)?;
    let address = CanAddr::from_iface_isotp(interface, id(config.rx)?, id(config.tx)?)?;
    // Options are taken before the socket is bound only.
    let socket = Socket(socket.into());
    if let Some(padding) = config.padding {
        // struct can_isotp_options: flags, frame_txtime, ext_address, txpad_content, rxpad_content,
        // rx_ext_address
        let [a, b, c, d] = (TX_PADDING | RX_PADDING).to_ne_bytes();
        let options = [a, b, c, d, 0, 0, 0, 0, 0, padding, padding, 0];
        socket.set_socket_option_bytes(SOL_CAN_ISOTP, CAN_ISOTP_OPTS, &options)?;
    }
    let socket = socket2::Socket::from(socket.0);
    socket.bind(&address.into_sock_addr())?;
    // As for raw sockets: only its readiness is used.
    UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(OwnedFd::from(socket)))
}

/// What a code of a negative answer means (ISO 14229-1, table A.1).
fn refusal(code: u8) -> String {
    let (name, help) = match code {
        0x10 => ("general reject", "the node does not say why"),
        0x11 => ("service not supported", "the node does not know such requests"),
        0x12 => ("sub-function not supported", "compare the request with the node's description"),
        0x13 => ("incorrect message length", "compare the request with the node's description"),
        0x14 => ("response too long", "ask for fewer values at a time"),
        0x21 => ("busy, repeat request", "ask less often"),
        0x22 => ("conditions not correct", "the node cannot say it in the state that it is in"),
        0x31 => ("request out of range", "the node has no such value"),
        0x33 => ("security access denied", "the node wants a key first"),
        0x7e | 0x7f => ("not supported in active session", "the node wants another session first"),
        _ => ("a reason of its own", "see the node's description"),
    };
    format!("the node refuses: {name} ({code:#04x}); {help}")
}

/// The value of a field in an answer.
///
/// # Errors
/// Why there is none, in words for the user.
pub(super) fn read(name: &str, place: &BinaryField, answer: &[u8]) -> Result<Value, String> {
    let mut value = Err("it has none".to_owned());
    let wanted = place.field_type();
    let short = place.read(answer, &mut |scalar| {
        value = match (scalar, wanted) {
            (Scalar::Bool(on), _) => Ok(Value::Bool(on)),
            (Scalar::Int(number), _) => Ok(Value::Int(number)),
            (Scalar::Float(number), _) if number.is_finite() => Ok(Value::Float(number)),
            (Scalar::Float(number), _) if number.is_nan() => Err("it is not a number".into()),
            (Scalar::Float(_), _) => Err("it is infinite".into()),
            (Scalar::Text(text), FieldType::Utf8) => Ok(Value::Text(text.to_owned())),
            (Scalar::Bytes(bytes), FieldType::Bytes) => Ok(Value::Bytes(bytes.to_vec())),
            (Scalar::Big(_), _) => Err("it is above the greatest int64".into()),
            (other, wanted) => Err(format!("it is {other}, and not {wanted}")),
        };
    });
    short.and(value).map_err(|why| format!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(config: serde_json::Value, answer: &[u8]) -> Result<Value, String> {
        let field = serde_json::from_value(config).unwrap();
        read("x", &BinaryField::new(&field).unwrap(), answer)
    }

    /// ISO 15031-5: engine speed is parameter 0x0C, a quarter of a revolution a minute; coolant temperature
    /// 0x05, 40 degrees below its number. The vehicle's number is identifier 0xF190 of ISO 14229-1.
    #[test]
    fn values_are_where_the_standards_have_them() {
        let rpm = json!({ "at": 2, "type": "uint16", "scale": 0.25 });
        assert_eq!(value(rpm, &[0x41, 0x0c, 0x1a, 0xf8]), Ok(Value::Float(1726.0)));
        let coolant = json!({ "at": 2, "type": "uint8", "offset": -40 });
        assert_eq!(value(coolant, &[0x41, 0x05, 0x7b]), Ok(Value::Float(83.0)));
        let vin = json!({ "at": 3, "type": "utf8" });
        let answer = [&[0x62, 0xf1, 0x90][..], b"WP0ZZZ99ZTS392124"].concat();
        assert_eq!(value(vin, &answer), Ok(Value::Text("WP0ZZZ99ZTS392124".into())));
        let little = json!({ "at": 1, "type": "int16", "order": "little" });
        assert_eq!(value(little, &[0, 0xfe, 0xff]), Ok(Value::Int(-2)));
        assert_eq!(value(json!({ "at": 0, "type": "uint24" }), &[1, 2, 3]), Ok(Value::Int(0x01_0203)));
        let bytes = json!({ "at": 1, "type": "bytes", "length": 2 });
        assert_eq!(value(bytes, &[1, 2, 3, 4]), Ok(Value::Bytes(vec![2, 3])));
    }

    /// IEEE 754: exponents of ones alone are infinite, or not a number.
    #[test]
    fn what_is_no_value_is_said() {
        let float = json!({ "at": 0, "type": "float32" });
        assert_eq!(value(float.clone(), &1.5_f32.to_be_bytes()), Ok(Value::Float(1.5)));
        for (config, answer, words) in [
            (float.clone(), &[0x7f, 0xc0, 0, 0][..], "x: it is not a number"),
            (float.clone(), &[0x7f, 0x80, 0, 0], "infinite"),
            (float, &[1, 2, 3], "3 bytes"),
            (json!({ "at": 0, "type": "uint64" }), &[0xff; 8], "above the greatest int64"),
            (json!({ "at": 0, "type": "bcd", "length": 1 }), &[0xab], "1 bytes"),
        ] {
            let why = value(config, answer).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let request = |text| Request::parse(text).unwrap();
        assert!(request("01 0C").is_answered_by(&[0x41, 0x0c, 0, 0]));
        assert!(!request("01 0C").is_answered_by(&[0x41, 0x0d, 0]));
        assert!(request("22F190").is_answered_by(&[0x62, 0xf1, 0x90, 1]));
        assert!(!request("22F190").is_answered_by(&[0x62, 0xf1, 0x91, 1]));
        assert!(!request("22F190").is_answered_by(&[0x62]) && !request("3E00").is_answered_by(&[]));
        for wrong in ["", "1", "0x01", "01 0G"] {
            assert!(Request::parse(wrong).is_err(), "{wrong}");
        }
    }
}
