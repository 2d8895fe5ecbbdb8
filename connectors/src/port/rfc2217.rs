//! The client's side of RFC 2217, "Telnet Com Port Control Option": a serial server is told how its port is
//! to be set. Pure: bytes in, bytes out.
//!
//! Options are agreed on as in RFC 1143 (an answer only where something changes), data is sent as in RFC 856:
//! binary, with 0xFF doubled. A server that refuses an option, or that answers with another value, is an
//! error that names it.

use std::collections::BTreeMap;
use std::fmt;

use super::config::{FlowControl, Parity, PortConfig, Settings};

// Telnet (RFC 854).
const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

// Options: RFC 856, RFC 858, RFC 2217.
const BINARY: u8 = 0;
const SUPPRESS_GO_AHEAD: u8 = 3;
const COM_PORT: u8 = 44;

// Commands of RFC 2217, section 3; the server answers with 100 more.
const SET_BAUDRATE: u8 = 1;
const SET_DATASIZE: u8 = 2;
const SET_PARITY: u8 = 3;
const SET_STOPSIZE: u8 = 4;
const SET_CONTROL: u8 = 5;
const FLOWCONTROL_SUSPEND: u8 = 8;
const FLOWCONTROL_RESUME: u8 = 9;
const SET_LINESTATE_MASK: u8 = 10;
const SET_MODEMSTATE_MASK: u8 = 11;
const PURGE_DATA: u8 = 12;
const ANSWER: u8 = 100;

// Values of SET-CONTROL.
const NO_FLOW_CONTROL: u8 = 1;
const XON_XOFF: u8 = 2;
const HARDWARE: u8 = 3;
const DTR_ON: u8 = 8;
const DTR_OFF: u8 = 9;
const RTS_ON: u8 = 11;
const RTS_OFF: u8 = 12;

/// What of a subnegotiation is kept: signatures are as long as servers like.
const LONGEST: usize = 64;

/// Why a server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It does not agree to an option.
    Option(&'static str),
    /// It has set something else than it was told.
    Value {
        /// the command's name
        command: &'static str,
        /// what it was told
        asked: String,
        /// what it says that it has
        got: String,
    },
    /// Its answer to a command has not the bytes that RFC 2217 gives it.
    Malformed {
        /// the command's name
        command: &'static str,
        /// how many bytes a value has
        expected: usize,
        /// what came
        got: Vec<u8>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name @ "COM-PORT-OPTION") => write!(
                f,
                "the server refuses {name} (RFC 2217): set the port at the server and use tcp://, or switch \
                its RFC 2217 mode on"
            ),
            Self::Option(name) => {
                write!(f, "the server refuses {name}, so that bytes would not stay as they are")
            }
            Self::Value { command, asked, got } => write!(
                f,
                "the server was told {command} {asked} and has {got}; `strict = false` goes on all the same"
            ),
            Self::Malformed { command, expected, got } => write!(
                f,
                "the server's answer to {command} has {} bytes ({}) instead of {expected}, so that nobody knows \
                what it has set; `strict = false` goes on all the same, or set the port at the server and use \
                tcp://",
                got.len(),
                if got.is_empty() { "none".to_owned() } else { format!("{got:02x?}") }
            ),
        }
    }
}

/// The state of the options that are offered and asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreed {
    Asked,
    Yes,
}

/// What the bytes before have left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Command,
    Option(u8),
    Sub,
    SubCommand,
}

/// One line to a server.
#[derive(Debug)]
pub struct Client {
    state: State,
    sub: Vec<u8>,
    /// by the verb that agrees (`DO` to what is offered, `WILL` to what is asked for) and the option
    options: BTreeMap<(u8, u8), Agreed>,
    /// what the server is told: the command, and the value
    orders: Vec<(u8, Vec<u8>)>,
    /// orders that it has not answered, once they were sent
    open: Option<Vec<(u8, Vec<u8>)>>,
    strict: bool,
    /// Where the server rounds and nobody minds.
    remarks: Vec<Refusal>,
    is_suspended: bool,
}

/// An order by its name.
fn name(command: u8) -> &'static str {
    match command {
        SET_BAUDRATE => "SET-BAUDRATE",
        SET_DATASIZE => "SET-DATASIZE",
        SET_PARITY => "SET-PARITY",
        SET_STOPSIZE => "SET-STOPSIZE",
        _ => "SET-CONTROL",
    }
}

fn words(command: u8, value: &[u8]) -> String {
    let word = match (command, value) {
        (SET_BAUDRATE, &[a, b, c, d]) => return u32::from_be_bytes([a, b, c, d]).to_string(),
        (SET_PARITY, [1]) => "none",
        (SET_PARITY, [2]) => "odd",
        (SET_PARITY, [3]) => "even",
        (SET_PARITY, [4]) => "mark",
        (SET_PARITY, [5]) => "space",
        (SET_STOPSIZE, [3]) => "1.5",
        (SET_CONTROL, [NO_FLOW_CONTROL]) => "no flow control",
        (SET_CONTROL, [XON_XOFF]) => "XON/XOFF",
        (SET_CONTROL, [HARDWARE]) => "RTS/CTS",
        (SET_CONTROL, [DTR_ON]) => "DTR on",
        (SET_CONTROL, [DTR_OFF]) => "DTR off",
        (SET_CONTROL, [RTS_ON]) => "RTS on",
        (SET_CONTROL, [RTS_OFF]) => "RTS off",
        (_, [value]) => return value.to_string(),
        _ => return format!("{value:?}"),
    };
    word.to_owned()
}

impl Client {
    /// A client that sets a port so.
    #[must_use]
    pub fn new(config: &PortConfig, line: Settings) -> Self {
        let parity = match line.parity {
            Parity::None => 1,
            Parity::Odd => 2,
            Parity::Even => 3,
            Parity::Mark => 4,
            Parity::Space => 5,
        };
        let flow = match line.flow_control {
            FlowControl::None => NO_FLOW_CONTROL,
            FlowControl::XonXoff => XON_XOFF,
            FlowControl::RtsCts => HARDWARE,
        };
        let mut orders = vec![
            (SET_BAUDRATE, line.baud.get().to_be_bytes().to_vec()),
            (SET_DATASIZE, vec![line.data_bits]),
            (SET_PARITY, vec![parity]),
            (SET_STOPSIZE, vec![line.stop_bits]),
            (SET_CONTROL, vec![flow]),
        ];
        orders.extend(config.dtr.map(|on| (SET_CONTROL, vec![if on { DTR_ON } else { DTR_OFF }])));
        orders.extend(config.rts.map(|on| (SET_CONTROL, vec![if on { RTS_ON } else { RTS_OFF }])));
        Self {
            state: State::Data,
            sub: Vec::new(),
            options: BTreeMap::new(),
            orders,
            open: None,
            strict: config.strict.unwrap_or(true),
            remarks: Vec::new(),
            is_suspended: false,
        }
    }

    /// Says what is wanted; the first bytes of a connection.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        for (verb, option) in [(WILL, COM_PORT), (WILL, BINARY), (DO, BINARY), (WILL, SUPPRESS_GO_AHEAD)] {
            out.extend([IAC, verb, option]);
            self.options.insert((if verb == WILL { DO } else { WILL }, option), Agreed::Asked);
        }
    }

    /// Whether the port is set, and bytes can go through.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.open.as_ref().is_some_and(Vec::is_empty)
    }

    /// What the server has not answered.
    #[must_use]
    pub fn unanswered(&self) -> String {
        match &self.open {
            None => {
                let waits = |option| self.options.get(&option) == Some(&Agreed::Asked);
                let names = [
                    ((DO, COM_PORT), "COM-PORT-OPTION"),
                    ((DO, BINARY), "BINARY"),
                    ((WILL, BINARY), "BINARY"),
                ];
                let mut open: Vec<_> =
                    names.iter().filter(|(option, _)| waits(*option)).map(|(_, name)| *name).collect();
                open.dedup();
                open.join(", ")
            }
            Some(open) => {
                let order = |(command, value): &(u8, Vec<u8>)| {
                    format!("{} {}", name(*command), words(*command, value))
                };
                open.iter().map(order).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// What it means that the server does not answer any more.
    #[must_use]
    pub fn unanswered_because(&self) -> &'static str {
        match self.open {
            None => "does it speak RFC 2217 on this port?",
            Some(_) => {
                "it speaks RFC 2217, but does not know these: set the port at the server and use tcp://"
            }
        }
    }

    /// Whether the server has asked to be sent nothing.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// What the server has set otherwise, where that is let pass.
    pub fn remarks(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.remarks)
    }

    /// Takes bytes of the server apart: `data` from the line, and answers to `out`. What came from the line
    /// before the port was set is thrown away.
    ///
    /// # Errors
    /// When the server refuses what is needed.
    pub fn take(&mut self, bytes: &[u8], data: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Data, IAC) => State::Command,
                (State::Data, byte) => {
                    self.pass(byte, data);
                    State::Data
                }
                (State::Command, IAC) => {
                    self.pass(IAC, data);
                    State::Data
                }
                (State::Command, WILL..=DONT) => State::Option(byte),
                (State::Command, SB) => {
                    self.sub.clear();
                    State::Sub
                }
                // No other command means anything to a client.
                (State::Command, _) => State::Data,
                (State::Option(verb), option) => {
                    self.agree(verb, option, out)?;
                    State::Data
                }
                (State::Sub, IAC) => State::SubCommand,
                (State::Sub, byte) => {
                    self.keep(byte);
                    State::Sub
                }
                (State::SubCommand, IAC) => {
                    self.keep(IAC);
                    State::Sub
                }
                (State::SubCommand, SE) => {
                    self.answered()?;
                    State::Data
                }
                // A server that has left out the end.
                (State::SubCommand, _) => State::Data,
            };
        }
        Ok(())
    }

    /// Appends bytes for the line as they are sent.
    pub fn escape(bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            out.push(byte);
            if byte == IAC {
                out.push(IAC);
            }
        }
    }

    fn pass(&self, byte: u8, data: &mut Vec<u8>) {
        if self.is_ready() {
            data.push(byte);
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.sub.len() < LONGEST {
            self.sub.push(byte);
        }
    }

    fn agree(&mut self, verb: u8, option: u8, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let (side, is_yes) = match verb {
            DO | DONT => (DO, verb == DO),
            _ => (WILL, verb == WILL),
        };
        // What the server may do of its own accord, besides what it was asked for.
        let is_welcome = [(WILL, SUPPRESS_GO_AHEAD), (WILL, COM_PORT)].contains(&(side, option));
        let (yes, no) = if side == DO { (WILL, WONT) } else { (DO, DONT) };
        match (self.options.get(&(side, option)), is_yes) {
            (Some(Agreed::Asked), true) => drop(self.options.insert((side, option), Agreed::Yes)),
            (Some(Agreed::Yes), true) => {}
            (None, true) if is_welcome => {
                self.options.insert((side, option), Agreed::Yes);
                out.extend([IAC, yes, option]);
            }
            (None, true) => out.extend([IAC, no, option]),
            (Some(_), false) => match option {
                COM_PORT if side == DO => return Err(Refusal::Option("COM-PORT-OPTION")),
                BINARY => return Err(Refusal::Option("BINARY")),
                _ => drop(self.options.remove(&(side, option))),
            },
            (None, false) => {}
        }
        let is_agreed = |key| self.options.get(&key) == Some(&Agreed::Yes);
        let all = [(DO, COM_PORT), (DO, BINARY), (WILL, BINARY)].into_iter().all(is_agreed);
        if self.open.is_none() && all {
            self.give_orders(out);
        }
        Ok(())
    }

    fn give_orders(&mut self, out: &mut Vec<u8>) {
        // What the line was doing meanwhile is of no interest, nor is what it signals.
        let others = [(SET_LINESTATE_MASK, vec![0]), (SET_MODEMSTATE_MASK, vec![0]), (PURGE_DATA, vec![1])];
        for (command, value) in others.iter().chain(&self.orders) {
            out.extend([IAC, SB, COM_PORT, *command]);
            Self::escape(value, out);
            out.extend([IAC, SE]);
        }
        self.open = Some(self.orders.clone());
    }

    fn answered(&mut self) -> Result<(), Refusal> {
        let [COM_PORT, command, value @ ..] = self.sub.as_slice() else { return Ok(()) };
        // Some servers ask to be held back with the client's own numbers.
        match command % ANSWER {
            FLOWCONTROL_SUSPEND => self.is_suspended = true,
            FLOWCONTROL_RESUME => self.is_suspended = false,
            _ => {}
        }
        let (Some(command), Some(open)) = (command.checked_sub(ANSWER), &mut self.open) else {
            return Ok(());
        };
        // Several orders are SET-CONTROL; the server answers them one after the other.
        let Some(place) = open.iter().position(|(order, _)| *order == command) else { return Ok(()) };
        let (_, asked) = open.remove(place);
        if asked == value {
            return Ok(());
        }
        let (name, expected) = (name(command), asked.len());
        let refusal = if value.len() == expected {
            Refusal::Value { command: name, asked: words(command, &asked), got: words(command, value) }
        } else {
            Refusal::Malformed { command: name, expected, got: value.to_vec() }
        };
        if self.strict {
            return Err(refusal);
        }
        self.remarks.push(refusal);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    fn client(config: &PortConfig) -> Client {
        Client::new(config, Settings::plain(NonZeroU32::new(65_535).unwrap()))
    }

    /// A server that agrees to everything, byte by byte as in RFC 2217, sections 2 and 3.
    fn agreement() -> Vec<u8> {
        vec![IAC, DO, COM_PORT, IAC, DO, BINARY, IAC, WILL, BINARY, IAC, DO, SUPPRESS_GO_AHEAD]
    }

    fn answers(baud: [u8; 4]) -> Vec<u8> {
        let mut all = vec![IAC, SB, COM_PORT, 101];
        Client::escape(&baud, &mut all);
        all.extend([IAC, SE]);
        for (command, value) in [(102, 8), (103, 1), (104, 1), (105, 1)] {
            all.extend([IAC, SB, COM_PORT, command, value, IAC, SE]);
        }
        all
    }

    fn talk(client: &mut Client, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
        let (mut data, mut out) = (Vec::new(), Vec::new());
        client.take(bytes, &mut data, &mut out)?;
        Ok((data, out))
    }

    fn ready() -> Client {
        let mut client = client(&PortConfig::default());
        client.begin(&mut Vec::new());
        talk(&mut client, &agreement()).unwrap();
        talk(&mut client, &answers([0, 0, 255, 255])).unwrap();
        assert!(client.is_ready());
        client
    }

    #[test]
    fn a_port_is_set_before_data_goes_through() {
        let mut client = client(&PortConfig::default());
        let mut out = Vec::new();
        client.begin(&mut out);
        assert_eq!(
            out,
            [IAC, WILL, COM_PORT, IAC, WILL, BINARY, IAC, DO, BINARY, IAC, WILL, SUPPRESS_GO_AHEAD]
        );
        assert_eq!(client.unanswered(), "COM-PORT-OPTION, BINARY");
        let (data, out) = talk(&mut client, &[b"old".as_slice(), &agreement()].concat()).unwrap();
        assert_eq!(data, b"");
        // 65 535 baud has two bytes that have to be doubled.
        let baud = [IAC, SB, COM_PORT, SET_BAUDRATE, 0, 0, 255, 255, 255, 255, IAC, SE];
        assert!(out.windows(baud.len()).any(|part| part == baud), "{out:?}");
        assert!(client.unanswered().starts_with("SET-BAUDRATE 65535, SET-DATASIZE 8, SET-PARITY none"));
        assert!(client.unanswered_because().contains("does not know these"));
        talk(&mut client, &answers([0, 0, 255, 255])).unwrap();
        assert!(client.is_ready());
        let (data, out) = talk(&mut client, &[b'a', IAC, IAC, b'b']).unwrap();
        assert_eq!((data.as_slice(), out.as_slice()), ([b'a', IAC, b'b'].as_slice(), [].as_slice()));
    }

    #[test]
    fn what_a_server_refuses_is_named() {
        let refused = |bytes: &[u8]| {
            let mut client = client(&PortConfig::default());
            client.begin(&mut Vec::new());
            talk(&mut client, bytes).unwrap_err().to_string()
        };
        assert!(refused(&[IAC, DONT, COM_PORT]).contains("refuses COM-PORT-OPTION (RFC 2217)"));
        assert!(refused(&[IAC, WONT, BINARY]).contains("refuses BINARY"));
        for (short, words) in [
            (
                [COM_PORT, 101, 37, 128].as_slice(),
                "answer to SET-BAUDRATE has 2 bytes ([25, 80]) instead of 4",
            ),
            (&[COM_PORT, 101], "answer to SET-BAUDRATE has 0 bytes (none) instead of 4"),
            (&[COM_PORT, 101, 0, 0, 37, 128, 0], "answer to SET-BAUDRATE has 5 bytes"),
            (&[COM_PORT, 103], "answer to SET-PARITY has 0 bytes (none) instead of 1"),
            (&[COM_PORT, 105, 1, 1], "answer to SET-CONTROL has 2 bytes"),
        ] {
            let said = refused(&[&agreement(), [IAC, SB].as_slice(), short, &[IAC, SE]].concat());
            assert!(said.contains(words), "{said}");
        }
        let said = refused(&[agreement(), answers([0, 0, 37, 128])].concat());
        assert!(said.contains("told SET-BAUDRATE 65535 and has 9600"), "{said}");
    }

    #[test]
    fn who_does_not_mind_is_told_what_was_rounded() {
        let mut client = client(&PortConfig { strict: Some(false), ..PortConfig::default() });
        client.begin(&mut Vec::new());
        talk(&mut client, &agreement()).unwrap();
        talk(&mut client, &answers([0, 0, 37, 128])).unwrap();
        assert!(client.is_ready());
        assert_eq!(client.remarks().len(), 1);
    }

    #[test]
    fn options_of_the_servers_own_are_turned_down_once_each() {
        const ECHO: u8 = 1;
        let (_, out) = talk(&mut ready(), &[IAC, WILL, ECHO, IAC, DO, 24, IAC, WONT, ECHO]).unwrap();
        assert_eq!(out, [IAC, DONT, ECHO, IAC, WONT, 24]);
        let (_, out) = talk(&mut ready(), &agreement()).unwrap();
        assert_eq!(out, [0_u8; 0], "what was agreed on is not answered");
    }

    #[test]
    fn a_server_may_hold_the_client_back() {
        let mut client = ready();
        talk(&mut client, &[IAC, SB, COM_PORT, 108, IAC, SE]).unwrap();
        assert!(client.is_suspended());
        talk(&mut client, &[IAC, SB, COM_PORT, 109, IAC, SE]).unwrap();
        assert!(!client.is_suspended());
    }

    proptest! {
        #[test]
        fn data_comes_through_however_it_is_cut(bytes: Vec<u8>, cut in 1_usize..9) {
            let mut escaped = Vec::new();
            Client::escape(&bytes, &mut escaped);
            let mut client = ready();
            let mut data = Vec::new();
            for piece in escaped.chunks(cut) {
                client.take(piece, &mut data, &mut Vec::new()).unwrap();
            }
            prop_assert_eq!(data, bytes);
        }

        #[test]
        fn any_bytes_are_taken_and_answers_are_no_longer_than_they_are(bytes: Vec<u8>) {
            let mut client = ready();
            let (mut data, mut out) = (Vec::new(), Vec::new());
            let _ = client.take(&bytes, &mut data, &mut out);
            prop_assert!(data.len() <= bytes.len() && out.len() <= bytes.len() && client.sub.len() <= LONGEST);
        }
    }
}
