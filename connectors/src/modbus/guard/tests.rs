//! A device that misbehaves in every way that was seen in the field, on time that a test turns: no value that
//! comes out is wrong, and the line recovers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crc::{CRC_16_MODBUS, Crc};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::{Instant, sleep};
use tokio_modbus::{Request, Response};

use super::{Framing, Guard, Pace};
use crate::modbus::fault::Fault;
use crate::status::LineStatus;

const UNIT: u8 = 7;
const TIMEOUT: Duration = Duration::from_millis(1_000);
const QUICK: Duration = Duration::from_millis(10);

/// What the device does with one request.
#[derive(Debug, Clone)]
enum Act {
    Answer,
    /// answers when this has passed
    Late(Duration),
    /// answers, and once more when this has passed
    Twice(Duration),
    TwiceAtOnce,
    ByteByByte,
    /// the first half, and nothing more
    Half,
    /// the second half comes when this has passed
    HalfLate(Duration),
    Nothing,
    /// an exception
    Refuse(u8),
    /// answers as another unit
    AsUnit(u8),
    /// changes the content, which begins with the function code
    Content(fn(&mut Vec<u8>)),
    /// changes the frame as it goes over the line
    Frame(fn(&mut Vec<u8>)),
    /// these bytes before the answer
    Noise(Vec<u8>),
    /// these bytes behind it
    Behind(Vec<u8>),
    /// the request before the answer, as a two-wire adapter hears it
    Echo,
    /// the request, and no answer
    EchoOnly,
    /// closes the connection
    Close,
}

/// The wire on the device's side: it outlives connections, as a serial one does.
#[derive(Clone)]
struct Device {
    acts: Arc<Mutex<VecDeque<Act>>>,
    /// once the acts are done
    always: Act,
    is_tcp: bool,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

fn register(address: u16) -> u16 {
    address.wrapping_mul(7) ^ 0x5A3C
}

fn bit(address: u16) -> bool {
    register(address).count_ones() % 2 == 1
}

fn rtu(unit: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = [&[unit], content].concat();
    frame.extend(Crc::<u16>::new(&CRC_16_MODBUS).checksum(&frame).to_le_bytes());
    frame
}

fn tcp(transaction: [u8; 2], unit: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 1).unwrap().to_be_bytes();
    [&transaction[..], &[0, 0], &length, &[unit], content].concat()
}

/// What a device without faults answers (Application Protocol V1.1b3, section 6).
fn right_answer(request: &[u8]) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
    let function = request[0];
    match function {
        1 | 2 => {
            let (first, count) = (word(1), word(3));
            let mut bytes = vec![0; usize::from(count.div_ceil(8))];
            for n in 0..count {
                bytes[usize::from(n / 8)] |= u8::from(bit(first + n)) << (n % 8);
            }
            [&[function, bytes.len() as u8], &bytes[..]].concat()
        }
        3 | 4 | 23 => {
            let (first, count) = (word(1), word(3));
            let words = (0..count).flat_map(|n| register(first + n).to_be_bytes());
            [function, 2 * count as u8].into_iter().chain(words).collect()
        }
        15 | 16 => request[..5].to_vec(),
        _ => request.to_vec(),
    }
}

impl Device {
    fn new(is_tcp: bool, acts: impl IntoIterator<Item = Act>) -> Self {
        let acts = Arc::new(Mutex::new(acts.into_iter().collect()));
        Self { acts, always: Act::Answer, is_tcp, asked: Arc::default() }
    }

    fn connect(&self) -> DuplexStream {
        let (near, far) = duplex(4_096);
        tokio::spawn(self.clone().serve(far));
        near
    }

    async fn serve(self, line: DuplexStream) {
        let (mut reader, writer) = split(line);
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        while let Some((head, unit, content)) = self.request(&mut reader).await {
            self.asked.lock().unwrap().push(content.clone());
            let act = self.acts.lock().unwrap().pop_front().unwrap_or_else(|| self.always.clone());
            if matches!(act, Act::Close) {
                return;
            }
            let (is_tcp, writer) = (self.is_tcp, Arc::clone(&writer));
            tokio::spawn(async move { perform(act, is_tcp, head, unit, &content, &writer).await });
        }
    }

    async fn request(&self, reader: &mut ReadHalf<DuplexStream>) -> Option<([u8; 2], u8, Vec<u8>)> {
        if self.is_tcp {
            let mut header = [0; 7];
            reader.read_exact(&mut header).await.ok()?;
            let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
            reader.read_exact(&mut content).await.ok()?;
            return Some(([header[0], header[1]], header[6], content));
        }
        let mut frame = vec![0; 7];
        reader.read_exact(&mut frame).await.ok()?;
        let more = match frame[1] {
            43 => 0,
            15 | 16 => 2 + usize::from(frame[6]),
            22 => 3,
            _ => 1,
        };
        let mut rest = vec![0; more];
        reader.read_exact(&mut rest).await.ok()?;
        frame.extend(rest);
        let content = frame[1..frame.len() - 2].to_vec();
        assert_eq!(rtu(frame[0], &content), frame, "requests have a checksum");
        Some(([0; 2], frame[0], content))
    }
}

async fn perform(
    act: Act,
    is_tcp: bool,
    head: [u8; 2],
    unit: u8,
    request: &[u8],
    writer: &tokio::sync::Mutex<WriteHalf<DuplexStream>>,
) {
    let frame = |unit, content: &[u8]| if is_tcp { tcp(head, unit, content) } else { rtu(unit, content) };
    let mut content = right_answer(request);
    let right = frame(unit, &content);
    let own = frame(unit, request);
    let send = async |bytes: &[u8]| {
        // The connection may be gone.
        let _ = writer.lock().await.write_all(bytes).await;
    };
    sleep(QUICK).await;
    match act {
        Act::Answer => send(&right).await,
        Act::Late(late) => {
            sleep(late).await;
            send(&right).await;
        }
        Act::Twice(after) => {
            send(&right).await;
            sleep(after).await;
            send(&right).await;
        }
        Act::TwiceAtOnce => send(&[&right[..], &right].concat()).await,
        Act::ByteByByte => {
            for byte in right {
                send(&[byte]).await;
                sleep(Duration::from_millis(2)).await;
            }
        }
        Act::Half => send(&right[..right.len() / 2]).await,
        Act::HalfLate(late) => {
            let (first, second) = right.split_at(right.len() / 2);
            send(first).await;
            sleep(late).await;
            send(second).await;
        }
        Act::Nothing | Act::Close => {}
        Act::Refuse(code) => send(&frame(unit, &[request[0] | 0x80, code])).await,
        Act::AsUnit(other) => send(&frame(other, &content)).await,
        Act::Content(change) => {
            change(&mut content);
            send(&frame(unit, &content)).await;
        }
        Act::Frame(change) => {
            let mut changed = right;
            change(&mut changed);
            send(&changed).await;
        }
        Act::Noise(noise) => send(&[noise, right].concat()).await,
        Act::Behind(behind) => send(&[right, behind].concat()).await,
        Act::Echo => {
            send(&own).await;
            sleep(QUICK).await;
            send(&right).await;
        }
        Act::EchoOnly => send(&own).await,
    }
}

/// A client that connects again when it has to.
struct Master {
    device: Device,
    guard: Option<Guard<DuplexStream>>,
    transaction: u16,
    connections: u32,
    status: Arc<LineStatus>,
    any_unit: bool,
}

impl Master {
    fn new(device: Device) -> Self {
        Self { device, guard: None, transaction: 0, connections: 0, status: Arc::default(), any_unit: false }
    }

    async fn call(&mut self, request: Request<'_>) -> Result<Response, Fault> {
        let mut guard = match self.guard.take() {
            Some(guard) => guard,
            None => {
                self.connections += 1;
                let framing = match self.device.is_tcp {
                    true => Framing::tcp(self.any_unit, self.transaction),
                    false => Framing::rtu(None),
                };
                Guard::new(self.device.connect(), framing, Pace::default(), Arc::clone(&self.status))
            }
        };
        let result = guard.call(UNIT, request, TIMEOUT).await;
        self.transaction = guard.next_transaction();
        if !result.as_ref().is_err_and(Fault::ends_connection) {
            self.guard = Some(guard);
        }
        result
    }

    /// Reads two registers, and looks whether they are the right ones.
    async fn read(&mut self, address: u16) -> Result<(), Fault> {
        match self.call(Request::ReadHoldingRegisters(address, 2)).await? {
            Response::ReadHoldingRegisters(words) => {
                assert_eq!(words, [register(address), register(address + 1)], "WRONG VALUE of {address}");
                Ok(())
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Ten reads of different registers of one length, the first of which the device deals with as it is told.
/// Returns which of them failed, and how many connections it took.
async fn ten_reads(is_tcp: bool, acts: &[Act]) -> (Vec<usize>, u32, Arc<LineStatus>) {
    let mut master = Master::new(Device::new(is_tcp, acts.iter().cloned()));
    let mut failed = Vec::new();
    for n in 0..10_u16 {
        if master.read(10 * n).await.is_err() {
            failed.push(usize::from(n));
        }
    }
    (failed, master.connections, master.status)
}

const TCP: bool = true;
const RTU: bool = false;

/// What happens, on which framing, what the device does, which of the ten reads fail, and how many
/// connections are made.
type Case = (&'static str, bool, Vec<Act>, Vec<usize>, u32);

fn cases() -> Vec<Case> {
    let late = TIMEOUT + Duration::from_millis(200);
    let ms = Duration::from_millis;
    vec![
        ("late by more than the timeout", TCP, vec![Act::Late(late)], vec![0], 1),
        ("late by more than the timeout", RTU, vec![Act::Late(late)], vec![0], 1),
        ("every second one late", TCP, vec![Act::Late(late), Act::Answer, Act::Late(late)], vec![0, 2], 1),
        ("every second one late", RTU, vec![Act::Late(late), Act::Answer, Act::Late(late)], vec![0, 2], 1),
        ("twice, 10 ms apart", TCP, vec![Act::Twice(ms(10)); 5], vec![], 1),
        ("twice, 1 ms apart", RTU, vec![Act::Twice(ms(1)); 5], vec![], 1),
        ("twice in one piece", TCP, vec![Act::TwiceAtOnce; 5], vec![], 1),
        ("twice in one piece", RTU, vec![Act::TwiceAtOnce; 5], vec![], 1),
        ("byte by byte", TCP, vec![Act::ByteByByte; 5], vec![], 1),
        ("byte by byte", RTU, vec![Act::ByteByByte; 5], vec![], 1),
        ("half of it", TCP, vec![Act::Half], vec![0], 2),
        ("half of it", RTU, vec![Act::Half], vec![0], 1),
        ("the second half late", TCP, vec![Act::HalfLate(late)], vec![0], 2),
        ("the second half late", RTU, vec![Act::HalfLate(late)], vec![0], 1),
        ("too few registers", TCP, vec![Act::Content(fewer)], vec![0], 2),
        ("too few registers", RTU, vec![Act::Content(fewer)], vec![0], 1),
        ("too many registers", TCP, vec![Act::Content(more)], vec![0], 2),
        ("too many registers", RTU, vec![Act::Content(more)], vec![0], 1),
        ("another unit", TCP, vec![Act::AsUnit(9)], vec![0], 2),
        ("another unit", RTU, vec![Act::AsUnit(9)], vec![0], 1),
        ("another function", TCP, vec![Act::Content(|content| content[0] = 4)], vec![0], 2),
        ("another function", RTU, vec![Act::Content(|content| content[0] = 4)], vec![0], 1),
        ("an answer to nothing that was asked", TCP, vec![Act::Frame(|frame| frame[0] ^= 0x40)], vec![0], 2),
        ("protocol 1", TCP, vec![Act::Frame(|frame| frame[3] = 1)], vec![0], 2),
        ("a length that is too great", TCP, vec![Act::Frame(|frame| frame[4] = 0xff)], vec![0], 2),
        ("a header and nothing", TCP, vec![Act::Frame(|frame| frame[5] = 1)], vec![0], 2),
        ("a checksum behind the frame", TCP, vec![Act::Behind(vec![0xB1, 0x0B]); 5], vec![], 1),
        ("a wrong checksum", RTU, vec![Act::Frame(|frame| *frame.last_mut().unwrap() ^= 1)], vec![0], 1),
        ("thirty bytes of noise", RTU, vec![Act::Noise(vec![0x55; 30]); 5], vec![], 1),
        ("noise that begins like an answer", RTU, vec![Act::Noise(vec![UNIT, 3, 4, 0]); 5], vec![], 1),
        ("noise behind the answer", RTU, vec![Act::Behind(vec![UNIT, 3, 4, 0, 0]); 5], vec![], 1),
        ("its own request heard", RTU, vec![Act::Echo; 10], vec![], 1),
        ("only its own request heard", RTU, vec![Act::EchoOnly], vec![0], 1),
        ("no answer", TCP, vec![Act::Nothing], vec![0], 1),
        ("no answer", RTU, vec![Act::Nothing], vec![0], 1),
        ("function 0x80", TCP, vec![Act::Content(|content| *content = vec![0x80, 1])], vec![0], 2),
        ("function 0x80", RTU, vec![Act::Content(|content| *content = vec![0x80, 1])], vec![0], 1),
        ("closed", TCP, vec![Act::Close], vec![0], 2),
        ("closed", RTU, vec![Act::Close], vec![0], 2),
    ]
}

fn fewer(content: &mut Vec<u8>) {
    content.truncate(4);
    content[1] = 2;
}

fn more(content: &mut Vec<u8>) {
    content.extend([1, 2]);
    content[1] = 6;
}

#[tokio::test(start_paused = true)]
async fn whatever_a_device_does_no_wrong_value_comes_out_and_the_line_recovers() {
    for (name, is_tcp, acts, failed, connections) in cases() {
        let (name, is_tcp) = (name, if is_tcp { "TCP" } else { "RTU" });
        let outcome = ten_reads(is_tcp == "TCP", &acts).await;
        assert_eq!((outcome.0, outcome.1), (failed, connections), "{name} on {is_tcp}");
    }
}

#[tokio::test(start_paused = true)]
async fn any_sequence_of_faults_gives_no_wrong_value() {
    let ms = Duration::from_millis;
    for is_tcp in [TCP, RTU] {
        let acts: Vec<Act> =
            cases().into_iter().filter(|case| case.1 == is_tcp).flat_map(|case| case.2).collect();
        // Each stride meets the faults in another order.
        for stride in [1, 3, 7, 11, 13, 17] {
            let order = (0..acts.len()).map(|n| acts[n * stride % acts.len()].clone());
            let mut master = Master::new(Device::new(is_tcp, order));
            for n in 0..200_u16 {
                let _ = master.read(3 * n).await;
                sleep(ms(u64::from(n % 5))).await;
            }
            assert!(master.read(4_000).await.is_ok(), "stride {stride}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_doubled_answer_that_comes_while_the_next_is_awaited_is_not_taken_for_it() {
    // The copy comes when the next request is out: 10 ms after the answer, as long as the device needs.
    for apart in [2, 5, 9, 10, 11, 15, 19, 20, 25, 35] {
        let mut master = Master::new(Device::new(RTU, vec![Act::Twice(Duration::from_millis(apart)); 20]));
        for n in 0..20 {
            assert_eq!(master.read(10 * n).await, Ok(()), "{apart} ms apart");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn equal_answers_to_different_requests_cost_time_and_nothing_else() {
    let mut device = Device::new(RTU, []);
    device.always = Act::Content(|content| content[2..].fill(0));
    let mut master = Master::new(device);
    let began = Instant::now();
    for n in 0..10 {
        let answer = master.call(Request::ReadHoldingRegisters(n, 2)).await;
        assert_eq!(answer, Ok(Response::ReadHoldingRegisters(vec![0, 0])));
    }
    assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_exception_is_told_with_its_code_and_the_connection_goes_on() {
    for is_tcp in [TCP, RTU] {
        let codes = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 0x55, 0];
        let mut master = Master::new(Device::new(is_tcp, codes.map(Act::Refuse)));
        for code in codes {
            assert_eq!(master.read(0).await, Err(Fault::Exception(code)));
        }
        assert_eq!(master.read(0).await, Ok(()));
        assert_eq!(master.connections, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_confirmed_by_its_own_answer_only() {
    let writes = || -> [Request<'static>; 5] {
        [
            Request::WriteSingleCoil(5, true),
            Request::WriteSingleRegister(40, 7),
            Request::WriteMultipleCoils(5, vec![true, false].into()),
            Request::WriteMultipleRegisters(40, vec![1, 2].into()),
            Request::MaskWriteRegister(40, 0xff00, 0x1),
        ]
    };
    for is_tcp in [TCP, RTU] {
        for write in writes() {
            // On RTU the first one finds out whether the adapter hears itself.
            let mut master = Master::new(Device::new(is_tcp, []));
            assert!(master.call(write.clone()).await.is_ok(), "{write:?}");
            master.read(0).await.unwrap();
            for wrong in [
                // another address, another value or count, another function
                Act::Content(|content| content[2] ^= 1),
                Act::Content(|content| content[4] ^= 1),
                Act::Content(|content| content[0] ^= 1),
            ] {
                master.device.acts.lock().unwrap().push_back(wrong);
                let result = master.call(write.clone()).await;
                assert!(result.is_err(), "{write:?}: {result:?}");
                assert_eq!(master.read(0).await, Ok(()));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_hears_itself_confirms_nothing() {
    // A dead device behind such an adapter: a read before the first write shows that it hears itself.
    let mut device = Device::new(RTU, []);
    device.always = Act::EchoOnly;
    let mut master = Master::new(device);
    let write = || Request::WriteSingleCoil(5, true);
    assert_eq!(master.call(write()).await, Err(Fault::Silent { timeout: TIMEOUT, heard: false }));
    assert!(matches!(master.call(write()).await, Err(Fault::Silent { .. })));
    let asked: Vec<u8> = master.device.asked.lock().unwrap().iter().map(|request| request[0]).collect();
    assert_eq!(asked, [1, 5, 5]);
    // One that answers writes only, without such an adapter.
    let mut device = Device::new(RTU, [Act::Nothing]);
    device.always = Act::Answer;
    let mut master = Master::new(device);
    assert_eq!(master.call(write()).await, Ok(Response::WriteSingleCoil(5, true)));

    let mut device = Device::new(RTU, []);
    device.always = Act::Echo;
    let mut master = Master::new(device);
    assert_eq!(master.call(write()).await, Ok(Response::WriteSingleCoil(5, true)));
    master.device.acts.lock().unwrap().push_back(Act::EchoOnly);
    assert!(matches!(master.call(write()).await, Err(Fault::Silent { .. })), "it is known by now");
    assert_eq!(master.call(write()).await, Ok(Response::WriteSingleCoil(5, true)));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_answers_as_unit_0_or_255_is_taken_where_it_is_said_so() {
    for unit in [0, 255] {
        let mut master = Master::new(Device::new(TCP, [Act::AsUnit(unit)]));
        let refused = master.read(0).await.unwrap_err();
        assert!(refused.to_string().contains("any_unit"), "{refused}");
        let mut master = Master::new(Device::new(TCP, [Act::AsUnit(unit), Act::AsUnit(9)]));
        master.any_unit = true;
        assert_eq!(master.read(0).await, Ok(()));
        assert!(master.read(0).await.is_err(), "unit 9 is another device");
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_is_left_in_peace_after_a_timeout_and_between_requests() {
    let mut device = Device::new(RTU, [Act::Nothing]);
    device.always = Act::Answer;
    let pace = Pace {
        after_connect: Duration::from_secs(2),
        between: Duration::from_millis(300),
        ..Pace::default()
    };
    let mut guard = Guard::new(device.connect(), Framing::rtu(None), pace, Arc::default());
    let began = Instant::now();
    let mut read = async || guard.call(UNIT, Request::ReadCoils(0, 3), TIMEOUT).await;
    assert!(read().await.is_err());
    assert_eq!(began.elapsed().as_millis(), 3_000, "the pause, then the timeout");
    assert!(read().await.is_ok());
    assert_eq!(began.elapsed().as_millis(), 4_010, "as long a silence, then the device's time");
    assert!(read().await.is_ok());
    assert_eq!(began.elapsed().as_millis(), 4_320);
}

#[tokio::test(start_paused = true)]
async fn coils_and_identification_come_through() {
    for is_tcp in [TCP, RTU] {
        let mut master = Master::new(Device::new(is_tcp, []));
        for count in [1, 7, 8, 9, 2_000] {
            match master.call(Request::ReadCoils(3, count)).await.unwrap() {
                Response::ReadCoils(bits) => {
                    for n in 0..count {
                        assert_eq!(bits[usize::from(n)], bit(3 + n));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let objects = |content: &mut Vec<u8>| {
            *content = [&[43, 14, 1, 1, 0, 0, 2][..], &[0, 4], b"ACME", &[1, 2], b"P1"].concat();
        };
        master.device.acts.lock().unwrap().push_back(Act::Content(objects));
        let basic = tokio_modbus::prelude::ReadCode::Basic;
        match master.call(Request::ReadDeviceIdentification(basic, 0)).await.unwrap() {
            Response::ReadDeviceIdentification(answer) => assert_eq!(answer.device_id_objects.len(), 2),
            other => panic!("{other:?}"),
        }
    }
}
