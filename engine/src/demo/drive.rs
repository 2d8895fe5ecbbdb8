//! The dosing station's drive on the wire: a CAN bus with an adapter on a serial server, which speaks the
//! Lawicel protocol (slcan), so that nothing has to be set up on the machine.
//!
//! It shares nothing with the box but the line: what is in its frames is written here and in
//! `deploy/demo/drive.dbc`, as in a drive and in its data sheet.
//!
//! | frame | bytes |
//! | --- | --- |
//! | 0x100, from the drive, each 100 ms | 0, 1: speed, 0.25 1/min; 2: temperature, 1 degree from -40 on; 3, bits 0 to 3: 0 off, 1 ready, 2 runs; bit 4: told to run |
//! | 0x200, to the drive | 0, 1: speed, 0.25 1/min; 2, bit 0: run |
//!
//! All numbers have the low byte first.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::dosing::Dosing;

const STATUS_EVERY: Duration = Duration::from_millis(100);
/// Far longer than any command of the adapter.
const LONGEST: usize = 64;
const STEPS_PER_RPM: f64 = 4.0;

/// Runs `station` and its bus on `listener` until `shutdown`. One at a time is connected, as with any adapter.
pub(super) async fn run(listener: TcpListener, station: watch::Sender<Dosing>, shutdown: CancellationToken) {
    let live = async {
        let mut clock = interval(STATUS_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            clock.tick().await;
            station.send_modify(|station| station.step(STATUS_EVERY.as_secs_f64()));
        }
    };
    let serve = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            if let Err(error) = talk(stream, &station).await {
                tracing::debug!(%error, "the demo's CAN adapter lost its connection");
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = live => {}
        () = serve => {}
    }
}

async fn talk(mut stream: TcpStream, station: &watch::Sender<Dosing>) -> std::io::Result<()> {
    let mut adapter = Adapter::default();
    let mut status = interval(STATUS_EVERY);
    status.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut heard = [0; 256];
    loop {
        tokio::select! {
            _ = status.tick() => {
                if adapter.is_open {
                    let frame = status_frame(&station.borrow());
                    stream.write_all(frame.as_bytes()).await?;
                }
            }
            count = stream.read(&mut heard) => {
                let count = count?;
                if count == 0 {
                    return Ok(());
                }
                let answers = adapter.take(heard.get(..count).unwrap_or_default(), station);
                stream.write_all(&answers).await?;
            }
        }
    }
}

fn status_frame(station: &Dosing) -> String {
    let [low, high] = ((station.speed * STEPS_PER_RPM).round() as u16).to_le_bytes(); // saturates
    let temperature = (station.temperature + 40.0).round() as u8;
    let state = if station.speed > 0.0 { 2 } else { u8::from(station.enabled) };
    let state = state | u8::from(station.enabled) << 4;
    format!("t1004{low:02X}{high:02X}{temperature:02X}{state:02X}\r")
}

/// The adapter between the bus and the serial line.
#[derive(Debug, Default)]
struct Adapter {
    is_open: bool,
    line: Vec<u8>,
}

impl Adapter {
    /// Takes bytes, and returns what is answered: CR to what was done, BEL to what was not.
    fn take(&mut self, bytes: &[u8], station: &watch::Sender<Dosing>) -> Vec<u8> {
        let mut answers = Vec::new();
        for byte in bytes {
            match byte {
                b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    answers.extend(self.answer(&line, station));
                }
                _ if self.line.len() < LONGEST => self.line.push(*byte),
                _ => self.line.clear(),
            }
        }
        answers
    }

    fn answer(&mut self, line: &[u8], station: &watch::Sender<Dosing>) -> Vec<u8> {
        match line {
            [] => b"\r".to_vec(),
            [b'S' | b'Z' | b'M' | b'm', ..] => b"\r".to_vec(),
            [b'O'] => {
                self.is_open = true;
                b"\r".to_vec()
            }
            [b'C'] => {
                self.is_open = false;
                b"\r".to_vec()
            }
            [b'V'] => b"V1013\r".to_vec(),
            [b'N'] => b"NDEMO\r".to_vec(),
            [b'F'] => b"F00\r".to_vec(),
            [b't' | b'T', ..] if self.is_open => {
                if let Some((enabled, setpoint)) = command(line) {
                    station.send_modify(|station| station.command(enabled, setpoint));
                }
                if line.starts_with(b"t") { b"z\r".to_vec() } else { b"Z\r".to_vec() }
            }
            _ => vec![7],
        }
    }
}

/// What a frame tells the drive; none: it is not for it.
fn command(line: &[u8]) -> Option<(bool, f64)> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("t200")?;
    let length = text.get(..1)?.parse::<usize>().ok()?;
    let byte = |n: usize| u8::from_str_radix(text.get(1 + 2 * n..3 + 2 * n)?, 16).ok();
    if length < 3 {
        return None;
    }
    let speed = u16::from_le_bytes([byte(0)?, byte(1)?]);
    Some((byte(2)? & 1 == 1, f64::from(speed) / STEPS_PER_RPM))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::controller::listen;
    use super::*;

    #[test]
    fn the_adapter_answers_and_the_drive_obeys() {
        let (station, watched) = watch::channel(Dosing::new(1));
        let mut adapter = Adapter::default();
        assert_eq!(adapter.take(b"t2003E02E01\r", &station), [7], "it is closed");
        assert_eq!(adapter.take(b"C\rS5\rO\r", &station), b"\r\r\r");
        // 3000 1/min are 12000 steps, 2EE0.
        assert_eq!(adapter.take(b"t2003E0", &station), b"");
        assert_eq!(adapter.take(b"2E01\rt3000\r?\r", &station), b"z\rz\r\x07");
        assert_eq!((watched.borrow().enabled, watched.borrow().setpoint), (true, 3_000.0));
        adapter.take(b"t2002E02E\r", &station);
        assert_eq!(watched.borrow().setpoint, 3_000.0, "a frame that is too short is no command");
        adapter.take(b"t2003E02E00\r", &station);
        assert!(!watched.borrow().enabled);
    }

    #[test]
    fn the_status_says_what_the_drive_does() {
        let mut station = Dosing::new(1);
        assert_eq!(status_frame(&station), "t100400004000\r", "at rest, at 24 degrees");
        station.command(true, 750.0);
        station.step(0.5);
        // 750 1/min are 3000 steps, 0BB8.
        assert_eq!(status_frame(&station), "t1004B80B4012\r");
    }

    #[tokio::test]
    async fn the_bus_goes_on_when_a_client_has_gone() {
        let (listener, port) = listen().await.unwrap();
        let (truth, mut watched) = watch::channel(Dosing::new(1));
        let shutdown = CancellationToken::new();
        let bus = tokio::spawn(run(listener, truth, shutdown.clone()));
        for setpoint in [400.0, 800.0] {
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let [low, high] = ((setpoint * STEPS_PER_RPM) as u16).to_le_bytes();
            client.write_all(format!("O\rt2003{low:02X}{high:02X}01\r").as_bytes()).await.unwrap();
            watched.wait_for(|station| station.speed == setpoint).await.unwrap();
        }
        shutdown.cancel();
        bus.await.unwrap();
    }
}
