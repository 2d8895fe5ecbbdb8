//! What users write about a serial port, whatever is spoken on it.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::table::Problem;

/// A serial port, here or on a serial server: where it is, and how bytes go over its line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PortConfig {
    /// Path of the port; those below `/dev/serial/by-id` stay the same when adapters are moved. Or a serial
    /// server on the network: "rfc2217://HOST:PORT", which is told the settings, or "tcp://HOST:PORT", which
    /// has its own.
    pub device: Option<String>,
    /// The USB adapter, instead of `device`: `{ vendor = 0x0403, product = 0x6001 }`.
    pub usb: Option<UsbConfig>,
    /// Bits a second.
    pub baud: Option<NonZeroU32>,
    /// Data bits of a byte, 5 to 8; 8 when absent.
    pub data_bits: Option<u8>,
    /// Parity bit.
    pub parity: Option<Parity>,
    /// Stop bits, 1 or 2.
    pub stop_bits: Option<u8>,
    /// How the device holds the box back, and the box the device.
    pub flow_control: FlowControl,
    /// Whether the driver switches an RS-485 transceiver. Only for ports whose driver can; USB adapters
    /// switch by themselves.
    pub rs485: bool,
    /// Whether the line DTR is on; absent: as the driver has it.
    pub dtr: Option<bool>,
    /// Whether the line RTS is on; absent: as the driver has it.
    pub rts: Option<bool>,
    /// Whether the port is given up when it does not confirm its settings; true when absent. Set it to false
    /// for adapters that round the rate.
    pub strict: Option<bool>,
}

/// `usb = { vendor = 0x0403, product = 0x6001, serial = "A50285BI" }`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsbConfig {
    /// vendor id
    pub vendor: u16,
    /// product id
    pub product: u16,
    /// serial number, where several adapters of one kind are plugged in
    pub serial: Option<String>,
    /// number of the interface, for adapters that have several ports
    pub interface: Option<u8>,
}

impl fmt::Display for UsbConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)?;
        self.serial.iter().try_for_each(|serial| write!(f, " with serial number {serial}"))?;
        self.interface.iter().try_for_each(|interface| write!(f, ", interface {interface}"))
    }
}

/// Parity of each byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// no parity bit
    #[default]
    None,
    /// even number of ones
    Even,
    /// odd number of ones
    Odd,
    /// always one
    Mark,
    /// always zero
    Space,
}

/// How the device holds the box back, and the box the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowControl {
    /// not at all
    #[default]
    None,
    /// by the lines RTS and CTS
    RtsCts,
    /// by the bytes XON and XOFF, which no data may have in it
    XonXoff,
}

/// How bytes go over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// bits a second
    pub baud: NonZeroU32,
    /// 5 to 8
    pub data_bits: u8,
    /// parity bit
    pub parity: Parity,
    /// 1 or 2
    pub stop_bits: u8,
    /// how each holds the other back
    pub flow_control: FlowControl,
}

impl Settings {
    /// `baud` 8N1: what most devices have.
    #[must_use]
    pub const fn plain(baud: NonZeroU32) -> Self {
        Self { baud, data_bits: 8, parity: Parity::None, stop_bits: 1, flow_control: FlowControl::None }
    }

    /// What one byte takes: start bit, data bits, parity, stop bits.
    #[must_use]
    pub fn byte_time(&self) -> Duration {
        let parity = u32::from(self.parity != Parity::None);
        let bits = 1 + u32::from(self.data_bits) + parity + u32::from(self.stop_bits);
        Duration::from_secs(1) * bits / self.baud.get()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
            Parity::Mark => 'M',
            Parity::Space => 'S',
        };
        write!(f, "{} baud, {}{parity}{}", self.baud, self.data_bits, self.stop_bits)
    }
}

/// Where a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// in this machine, under this path
    Path(PathBuf),
    /// in this machine, wherever it is plugged in
    Usb(UsbConfig),
    /// at a serial server that takes settings (RFC 2217)
    Rfc2217(Server),
    /// at a serial server that hands bytes through
    Tcp(Server),
}

/// A serial server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// name or address
    pub host: String,
    /// TCP port
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Usb(usb) => write!(f, "the USB adapter {usb}"),
            Self::Rfc2217(Server { host, port }) => write!(f, "rfc2217://{host}:{port}"),
            Self::Tcp(Server { host, port }) => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// Advice for who does not know what ports there are.
pub const PORTS: &str = "list the ports with: tidegate serial list";

impl PortConfig {
    /// The keys, for tables that have others beside them.
    pub const KEYS: &'static [&'static str] = &[
        "device",
        "usb",
        "baud",
        "data_bits",
        "parity",
        "stop_bits",
        "flow_control",
        "rs485",
        "dtr",
        "rts",
        "strict",
    ];

    /// A port with this path or address.
    #[must_use]
    pub fn at(device: impl Into<String>) -> Self {
        Self { device: Some(device.into()), ..Self::default() }
    }

    /// Where the port is.
    ///
    /// # Errors
    /// What is wrong with it; the place is a key of this table.
    pub fn place(&self) -> Result<Place, Problem> {
        let device = match (&self.device, &self.usb) {
            (None, None) => {
                let what = "it does not say which port";
                return Err(Problem::absent(&[], what).help(format!("add `device` or `usb`; {PORTS}")));
            }
            (Some(_), Some(_)) => {
                return Err(Problem::new(&["usb"], "it says `device` and `usb`").help("keep one of them"));
            }
            (None, Some(usb)) => return Ok(Place::Usb(usb.clone())),
            (Some(device), None) => device,
        };
        let wrong = |what: String| Problem::new(&["device"], what);
        match device.split_once("://") {
            Some(("tcp", rest)) => Server::parse(rest).map(Place::Tcp).map_err(wrong),
            Some(("rfc2217", rest)) => Server::parse(rest).map(Place::Rfc2217).map_err(wrong),
            Some((scheme, _)) => {
                let what = format!("`{scheme}://` is no way to a serial port");
                Err(wrong(what).help("write the path of a port, rfc2217://HOST:PORT or tcp://HOST:PORT"))
            }
            None if device.is_empty() => Err(wrong("the device is empty".into()).help(PORTS)),
            None if !device.starts_with('/') => {
                let help = match device.rsplit_once(':') {
                    Some((_, port)) if port.parse::<u16>().is_ok() => {
                        format!("write \"tcp://{device}\" or \"rfc2217://{device}\" for a serial server")
                    }
                    _ => format!("write the whole path, such as \"/dev/{device}\"; {PORTS}"),
                };
                Err(wrong(format!("\"{device}\" is no path of a port")).help(help))
            }
            None => Ok(Place::Path(device.into())),
        }
    }

    /// How bytes go over the line; what is not said is as in `usual`.
    #[must_use]
    pub fn settings(&self, usual: Settings) -> Settings {
        Settings {
            baud: self.baud.unwrap_or(usual.baud),
            data_bits: self.data_bits.unwrap_or(usual.data_bits),
            parity: self.parity.unwrap_or(usual.parity),
            stop_bits: self.stop_bits.unwrap_or(usual.stop_bits),
            flow_control: self.flow_control,
        }
    }

    /// What is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let place = self.place();
        let is_tcp = matches!(place, Ok(Place::Tcp(_)));
        let is_network = is_tcp || matches!(place, Ok(Place::Rfc2217(_)));
        problems.extend(place.err());
        if !matches!(self.stop_bits, None | Some(1 | 2)) {
            problems.push(Problem::new(&["stop_bits"], "there are 1 or 2 stop bits"));
        }
        if !matches!(self.data_bits, None | Some(5..=8)) {
            problems.push(Problem::new(&["data_bits"], "a byte has 5 to 8 data bits"));
        }
        if self.rs485 && is_network {
            problems.push(
                Problem::new(&["rs485"], "a serial server switches its transceiver itself")
                    .help("leave `rs485` out, and set it at the server"),
            );
        }
        let said = [
            ("baud", self.baud.is_some()),
            ("data_bits", self.data_bits.is_some()),
            ("parity", self.parity.is_some()),
            ("stop_bits", self.stop_bits.is_some()),
            ("flow_control", self.flow_control != FlowControl::None),
            ("dtr", self.dtr.is_some()),
            ("rts", self.rts.is_some()),
        ];
        for (key, _) in said.iter().filter(|(_, said)| is_tcp && *said) {
            problems.push(
                Problem::new(&[key], format!("`{key}` does not reach a port behind tcp://"))
                    .help("set it at the server and leave it out here, or use rfc2217://"),
            );
        }
        if self.rts.is_some() && self.flow_control == FlowControl::RtsCts {
            problems.push(
                Problem::new(&["rts"], "with flow_control = \"rts_cts\" the driver switches RTS")
                    .help("leave `rts` out"),
            );
        }
        problems
    }

    /// Whether both mean the same port.
    #[must_use]
    pub fn is_same_port(&self, other: &Self) -> bool {
        // The names below /dev/serial are links.
        let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match (self.place(), other.place()) {
            (Ok(Place::Path(one)), Ok(Place::Path(other))) => resolved(&one) == resolved(&other),
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }
}

impl Server {
    fn parse(address: &str) -> Result<Self, String> {
        let wrong = || format!("\"{address}\" is no address of a serial server: write HOST:PORT behind `//`");
        let (host, port) = address.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn place(device: &str) -> Result<Place, String> {
        PortConfig::at(device).place().map_err(|problem| problem.to_string())
    }

    fn problems(config: Value) -> Vec<String> {
        let config: PortConfig = serde_json::from_value(config).unwrap();
        config.problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_device_is_a_path_or_a_serial_server() {
        assert_eq!(place("/dev/ttyUSB0"), Ok(Place::Path("/dev/ttyUSB0".into())));
        let server = |host: &str, port| Server { host: host.into(), port };
        assert_eq!(place("tcp://moxa:4001"), Ok(Place::Tcp(server("moxa", 4001))));
        assert_eq!(place("rfc2217://[fe80::1]:2217"), Ok(Place::Rfc2217(server("fe80::1", 2217))));
        for (device, words) in [
            ("", "is empty"),
            ("ttyUSB0", "\"/dev/ttyUSB0\""),
            ("moxa:4001", "rfc2217://moxa:4001"),
            ("telnet://moxa:4001", "`telnet://`"),
            ("tcp://moxa", "HOST:PORT"),
            ("tcp://:4001", "HOST:PORT"),
            ("tcp://moxa:0", "HOST:PORT"),
        ] {
            let said = place(device).unwrap_err();
            assert!(said.contains(words), "{device}: {said}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        let usb = json!({ "vendor": 0x0403, "product": 0x6001 });
        assert_eq!(problems(json!({ "usb": usb, "baud": 9600, "parity": "mark" })), [""; 0]);
        for (config, words) in [
            (json!({}), "which port"),
            (json!({ "device": "/dev/ttyS0", "usb": usb }), "keep one of them"),
            (json!({ "device": "/dev/ttyS0", "stop_bits": 3 }), "1 or 2 stop bits"),
            (json!({ "device": "/dev/ttyS0", "data_bits": 9 }), "5 to 8"),
            (json!({ "device": "tcp://moxa:4001", "baud": 9600 }), "`baud` does not reach"),
            (json!({ "device": "rfc2217://moxa:4001", "rs485": true }), "set it at the server"),
            (json!({ "device": "/dev/ttyS0", "flow_control": "rts_cts", "rts": true }), "leave `rts` out"),
        ] {
            let said = problems(config);
            assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
        }
    }

    #[test]
    fn a_byte_takes_its_bits() {
        let plain = Settings::plain(NonZeroU32::new(10_000).unwrap());
        assert_eq!(plain.byte_time(), Duration::from_millis(1));
        let seven = Settings { data_bits: 7, parity: Parity::Even, stop_bits: 2, ..plain };
        assert_eq!(
            (seven.byte_time(), seven.to_string()),
            (Duration::from_micros(1_100), "10000 baud, 7E2".into())
        );
    }
}
