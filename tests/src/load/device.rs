//! Modbus TCP devices that answer at once and count what they are asked (Messaging on TCP/IP V1.0b, section
//! 3.1.3; Application Protocol V1.1b3, section 6). All of them are on one thread.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::peer::Driver;

const READ_COILS: u8 = 1;
const READ_DISCRETES: u8 = 2;
/// Function of a request for holding registers.
pub const READ_HOLDING: u8 = 3;
const READ_INPUTS: u8 = 4;
/// Function of a write of one coil.
pub const WRITE_COIL: u8 = 5;
/// What such a write says in place of a count when the coil is to be on.
pub const ON: u16 = 0xff00;
const WRITE_REGISTER: u8 = 6;
const WRITE_COILS: u8 = 15;
const WRITE_REGISTERS: u8 = 16;

const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_VALUE: u8 = 3;

/// Most registers and most bits of a reading request.
pub const MOST_REGISTERS: u16 = 125;
pub const MOST_BITS: u16 = 2_000;

/// The first three fields of a frame: transaction, protocol, and how many bytes follow.
const HEAD: usize = 6;

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// when it was there
    pub at: Instant,
    transaction: [u8; 2],
    unit: u8,
    pub function: u8,
    pub address: u16,
    /// how many, or the value of a write to one place
    pub count: u16,
}

impl Asked {
    /// None: no client of the protocol sends this.
    fn parse(frame: &[u8], at: Instant) -> Option<Self> {
        let &[t1, t2, 0, 0, _, _, unit, function, a1, a2, c1, c2, ..] = frame else { return None };
        let (address, count) = (u16::from_be_bytes([a1, a2]), u16::from_be_bytes([c1, c2]));
        Some(Self { at, transaction: [t1, t2], unit, function, address, count })
    }

    /// Registers that are read.
    fn registers(&self) -> u64 {
        if matches!(self.function, READ_HOLDING | READ_INPUTS) { u64::from(self.count) } else { 0 }
    }

    /// Appends the answer of a device that has `content` in all of its registers and its lowest bit in all
    /// of its coils.
    fn answer(&self, content: u16, to: &mut Vec<u8>) {
        match self.function {
            READ_COILS | READ_DISCRETES if (1..=MOST_BITS).contains(&self.count) => {
                let bytes = usize::from(self.count).div_ceil(8);
                self.begin(self.function, 1 + bytes, to);
                to.push(bytes as u8);
                to.resize(to.len() + bytes, if content & 1 == 1 { 0xff } else { 0 });
            }
            READ_HOLDING | READ_INPUTS if (1..=MOST_REGISTERS).contains(&self.count) => {
                let bytes = 2 * usize::from(self.count);
                self.begin(self.function, 1 + bytes, to);
                to.push(bytes as u8);
                to.extend(content.to_be_bytes().into_iter().cycle().take(bytes));
            }
            READ_COILS | READ_DISCRETES | READ_HOLDING | READ_INPUTS => self.refuse(ILLEGAL_VALUE, to),
            WRITE_COIL | WRITE_REGISTER | WRITE_COILS | WRITE_REGISTERS => {
                self.begin(self.function, 4, to);
                to.extend(self.address.to_be_bytes());
                to.extend(self.count.to_be_bytes());
            }
            _ => self.refuse(ILLEGAL_FUNCTION, to),
        }
    }

    fn refuse(&self, why: u8, to: &mut Vec<u8>) {
        self.begin(self.function | 0x80, 1, to);
        to.push(why);
    }

    /// Everything before what the function has to say, which is `rest` bytes.
    fn begin(&self, function: u8, rest: usize, to: &mut Vec<u8>) {
        to.extend(self.transaction);
        to.extend([0, 0]);
        to.extend(((2 + rest) as u16).to_be_bytes());
        to.extend([self.unit, function]);
    }
}

/// What a device has been asked so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    pub requests: u64,
    pub registers: u64,
}

#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    registers: AtomicU64,
}

/// Devices, each on a port of its own. They end when this is dropped.
#[derive(Debug)]
pub struct Devices {
    /// on 127.0.0.1
    pub ports: Vec<u16>,
    tallies: Vec<Arc<Tally>>,
    _driver: Driver,
}

impl Devices {
    /// Starts `count` devices. Device `n` is `device(n)`: told each request, it says what is in its registers
    /// now.
    pub fn start<D>(count: usize, device: impl Fn(usize) -> D) -> anyhow::Result<Self>
    where
        D: FnMut(&Asked) -> u16 + Send + 'static,
    {
        let tallies: Vec<Arc<Tally>> = (0..count).map(|_| Arc::default()).collect();
        let (mut ports, mut devices) = (Vec::new(), Vec::new());
        for (number, tally) in tallies.iter().enumerate() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for a device")?;
            listener.set_nonblocking(true)?;
            ports.push(listener.local_addr()?.port());
            devices.push((listener, Arc::clone(tally), device(number)));
        }
        let driver = Driver::spawn("devices", move || async move {
            let mut all = JoinSet::new();
            for (listener, tally, device) in devices {
                all.spawn(listen(listener, tally, device));
            }
            while all.join_next().await.is_some() {}
        })?;
        Ok(Self { ports, tallies, _driver: driver })
    }

    /// What each of them has been asked so far.
    pub fn asked(&self) -> Vec<Count> {
        let count = |tally: &Arc<Tally>| Count {
            requests: tally.requests.load(Ordering::Relaxed),
            registers: tally.registers.load(Ordering::Relaxed),
        };
        self.tallies.iter().map(count).collect()
    }
}

/// Serves one client after the other, as many a device does.
async fn listen(
    listener: TcpListener,
    tally: Arc<Tally>,
    mut device: impl FnMut(&Asked) -> u16,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that goes, goes; one that is missed is seen by what does not come.
        let _ = serve(stream, &tally, &mut device).await;
    }
}

async fn serve(
    mut stream: TcpStream,
    tally: &Tally,
    device: &mut impl FnMut(&Asked) -> u16,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (BytesMut::with_capacity(4_096), Vec::with_capacity(512));
    while stream.read_buf(&mut input).await? > 0 {
        let at = Instant::now();
        while let Some(frame) = next_frame(&mut input) {
            let Some(asked) = Asked::parse(&frame, at) else { return Ok(()) };
            tally.requests.fetch_add(1, Ordering::Relaxed);
            tally.registers.fetch_add(asked.registers(), Ordering::Relaxed);
            asked.answer(device(&asked), &mut output);
        }
        stream.write_all(&output).await?;
        output.clear();
    }
    Ok(())
}

/// The next frame, if all of it is there.
fn next_frame(input: &mut BytesMut) -> Option<BytesMut> {
    let &[_, _, _, _, l1, l2, ..] = &**input else { return None };
    let whole = HEAD + usize::from(u16::from_be_bytes([l1, l2]));
    (input.len() >= whole).then(|| input.split_to(whole))
}

#[cfg(test)]
mod tests {
    use tokio_modbus::client::tcp;
    use tokio_modbus::prelude::{ExceptionCode, Reader, Writer};

    use super::*;

    #[tokio::test]
    async fn a_client_of_the_protocol_reads_and_writes() {
        let devices = Devices::start(2, |number| {
            let mut content = 10 + number as u16;
            move |asked| {
                if asked.function == WRITE_REGISTER {
                    content = asked.count;
                }
                content
            }
        })
        .unwrap();
        let mut client = tcp::connect((Ipv4Addr::LOCALHOST, devices.ports[1]).into()).await.unwrap();
        assert_eq!(client.read_holding_registers(7, 125).await.unwrap().unwrap(), [11; 125]);
        assert_eq!(client.read_coils(0, 9).await.unwrap().unwrap(), [true; 9]);
        client.write_single_register(3, 258).await.unwrap().unwrap();
        client.write_multiple_registers(3, &[1, 2]).await.unwrap().unwrap();
        client.write_single_coil(3, true).await.unwrap().unwrap();
        client.write_multiple_coils(3, &[true, false]).await.unwrap().unwrap();
        assert_eq!(client.read_input_registers(0, 2).await.unwrap().unwrap(), [258; 2]);
        assert_eq!(client.read_discrete_inputs(0, 3).await.unwrap().unwrap(), [false; 3]);
        let refused = client.read_holding_registers(0, 126).await.unwrap();
        assert_eq!(refused, Err(ExceptionCode::IllegalDataValue));
        let refused = client.masked_write_register(0, 1, 2).await.unwrap();
        assert_eq!(refused, Err(ExceptionCode::IllegalFunction));
        let [idle, asked] = devices.asked()[..] else { panic!("two devices") };
        assert_eq!((idle.requests, asked.requests, asked.registers), (0, 10, 125 + 2 + 126));
    }
}
