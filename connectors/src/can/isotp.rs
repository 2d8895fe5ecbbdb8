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

use super::config::{ByteType, FieldConfig, IsoTpConfig};
use super::id;
use crate::rows::Value;
use crate::scaling::Scaling;
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

/// A value in an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    config: FieldConfig,
}

impl Field {
    /// Checks it. A problem's place starts at the field's own table.
    pub(super) fn parse(name: &str, config: &FieldConfig) -> Result<Self, Problem> {
        let is_number = !matches!(config.field_type, ByteType::String | ByteType::Bytes);
        for (key, is_said, fits) in [
            ("length", config.length.is_some(), !is_number),
            ("scale", config.scale.is_some(), is_number),
            ("offset", config.offset.is_some(), is_number),
            ("little_endian", config.little_endian, is_number),
        ] {
            if is_said && !fits {
                return Err(
                    Problem::new(&[key], format!("`{key}` does not fit its type")).help("leave it out")
                );
            }
        }
        for (key, value) in [("scale", config.scale), ("offset", config.offset)] {
            if value.is_some_and(|value| !value.is_finite() || key == "scale" && value == 0.0) {
                return Err(Problem::new(&[key], format!("`{key}` cannot be {}", value.unwrap_or_default())));
            }
        }
        if config.length == Some(0) {
            return Err(Problem::new(&["length"], "it has at least one byte"));
        }
        Ok(Self { name: name.to_owned(), config: config.clone() })
    }

    pub(super) fn field_type(&self) -> FieldType {
        match self.config.field_type {
            ByteType::String => FieldType::Utf8,
            ByteType::Bytes => FieldType::Bytes,
            ByteType::Float32 => FieldType::Float64,
            _ if self.config.scale.is_some() || self.config.offset.is_some() => FieldType::Float64,
            _ => FieldType::Int64,
        }
    }

    /// Its value in an answer.
    ///
    /// # Errors
    /// In words for the user.
    pub(super) fn read(&self, answer: &[u8]) -> Result<Value, String> {
        let short = || format!("{}: the answer has {} bytes", self.name, answer.len());
        let rest = answer.get(usize::from(self.config.at)..).ok_or_else(short)?;
        let width = match self.config.field_type {
            ByteType::Uint8 | ByteType::Int8 => 1,
            ByteType::Uint16 | ByteType::Int16 => 2,
            ByteType::Uint24 => 3,
            ByteType::Uint32 | ByteType::Int32 | ByteType::Float32 => 4,
            ByteType::String | ByteType::Bytes => self.config.length.map_or(rest.len(), usize::from),
        };
        let bytes = rest.get(..width).filter(|bytes| !bytes.is_empty()).ok_or_else(short)?;
        match self.config.field_type {
            ByteType::Bytes => return Ok(Value::Bytes(bytes.to_vec())),
            ByteType::String => {
                let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                return Ok(Value::Text(String::from_utf8_lossy(text).trim_end().to_owned()));
            }
            _ => {}
        }
        let number = bytes.iter().enumerate().fold(0_u32, |number, (place, byte)| {
            let shift = if self.config.little_endian { place } else { width - 1 - place };
            number | u32::from(*byte) << (8 * shift)
        });
        let unused = 32 - 8 * u32::try_from(width).unwrap_or(4);
        let signed = (number << unused).cast_signed() >> unused;
        let whole = match self.config.field_type {
            ByteType::Float32 => {
                let value = f64::from(f32::from_bits(number));
                return match value.is_nan() {
                    true => Err(format!("{} is not a number", self.name)),
                    false => Ok(Value::Float(self.scaled(value))),
                };
            }
            ByteType::Int8 | ByteType::Int16 | ByteType::Int32 => i64::from(signed),
            _ => i64::from(number),
        };
        Ok(match self.field_type() {
            FieldType::Int64 => Value::Int(whole),
            #[expect(clippy::cast_precision_loss, reason = "it has 32 bits")]
            _ => Value::Float(self.scaled(whole as f64)),
        })
    }

    fn scaled(&self, content: f64) -> f64 {
        let FieldConfig { scale, offset, .. } = self.config;
        Scaling::new(scale.unwrap_or(1.0), offset.unwrap_or(0.0)).apply(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(config: serde_json::Value) -> Result<Field, String> {
        let config = serde_json::from_value(config).unwrap();
        Field::parse("x", &config).map_err(|problem| problem.to_string())
    }

    /// ISO 15031-5: engine speed is parameter 0x0C, a quarter of a revolution a minute; coolant temperature
    /// 0x05, 40 degrees below its number. The vehicle's number is identifier 0xF190 of ISO 14229-1.
    #[test]
    fn values_are_where_the_standards_have_them() {
        let read = |config, answer: &[u8]| field(config).unwrap().read(answer);
        let rpm = json!({ "at": 2, "type": "uint16", "scale": 0.25 });
        assert_eq!(read(rpm, &[0x41, 0x0c, 0x1a, 0xf8]), Ok(Value::Float(1726.0)));
        let coolant = json!({ "at": 2, "type": "uint8", "offset": -40 });
        assert_eq!(read(coolant, &[0x41, 0x05, 0x7b]), Ok(Value::Float(83.0)));
        let volts = json!({ "at": 0, "type": "uint8", "scale": 0.1 });
        assert_eq!(read(volts, &[3]), Ok(Value::Float(0.3)), "as a display shows it");
        let vin = json!({ "at": 3, "type": "string" });
        let answer = [&[0x62, 0xf1, 0x90][..], b"WP0ZZZ99ZTS392124"].concat();
        assert_eq!(read(vin, &answer), Ok(Value::Text("WP0ZZZ99ZTS392124".into())));
        let little = json!({ "at": 1, "type": "int16", "little_endian": true });
        assert_eq!(read(little, &[0, 0xfe, 0xff]), Ok(Value::Int(-2)));
        assert_eq!(read(json!({ "at": 0, "type": "uint24" }), &[1, 2, 3]), Ok(Value::Int(0x01_0203)));
        let float = json!({ "at": 0, "type": "float32" });
        assert_eq!(read(float.clone(), &1.5_f32.to_be_bytes()), Ok(Value::Float(1.5)));
        assert!(read(float.clone(), &f32::NAN.to_be_bytes()).is_err());
        assert!(read(float, &[1, 2, 3]).unwrap_err().contains("3 bytes"));
        assert_eq!(
            read(json!({ "at": 1, "type": "bytes", "length": 2 }), &[1, 2, 3, 4]),
            Ok(Value::Bytes(vec![2, 3]))
        );
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

    #[test]
    fn fields_that_contradict_themselves_are_refused() {
        for (config, words) in [
            (json!({ "at": 0, "type": "string", "scale": 2 }), "scale"),
            (json!({ "at": 0, "type": "uint8", "length": 2 }), "length"),
            (json!({ "at": 0, "type": "uint8", "scale": 0 }), "cannot be 0"),
            (json!({ "at": 0, "type": "bytes", "length": 0 }), "at least one byte"),
        ] {
            assert!(field(config).unwrap_err().contains(words), "{words}");
        }
    }
}
