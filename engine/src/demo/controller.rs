//! The booster station's controller on the wire: a Modbus TCP server with the station behind it.
//!
//! It shares nothing with the box but the line: the server is that of `tokio-modbus`, and what its registers
//! hold is written here and in `deploy/demo/tidegate.toml`, as in a controller and in a data sheet.
//!
//! | point | |
//! | --- | --- |
//! | coil 0 | run |
//! | holding register 0 | speed setpoint, 0.1 % |
//! | input register 0 | measured pressure, 0.01 bar |
//! | input register 1 | motor current, 0.1 A |
//! | input registers 2, 3 | hours of running, 0.01 h, the low register first |
//! | input register 4 | status word: bit 0 the pump turns, bit 3 the motor protection has tripped |

use std::future::{Ready, ready};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_util::sync::CancellationToken;

use super::station::Station;

/// How often the station moves on.
const STEP: Duration = Duration::from_millis(125);
/// Before it takes connections again, should the system have refused one.
const RETRY: Duration = Duration::from_secs(1);
/// The one unit that there is.
const UNIT: u8 = 1;
/// The highest setpoint, 100 %.
const FULL_SPEED: u16 = 1_000;

/// Runs `station` and its server on `listener` until `shutdown`.
pub(super) async fn run(listener: TcpListener, station: watch::Sender<Station>, shutdown: CancellationToken) {
    let registers = Registers(Arc::new(station));
    let station = Arc::clone(&registers.0);
    let server = Server::new(listener);
    let on_connected = |stream: TcpStream, from: SocketAddr| {
        let registers = registers.clone();
        async move { accept_tcp_connection(stream, from, |_| Ok(Some(registers.clone()))) }
    };
    let on_error = |error: io::Error| tracing::debug!(%error, "the demo's controller lost a connection");
    let serve = async {
        loop {
            if let Err(error) = server.serve(&on_connected, on_error).await {
                tracing::warn!(%error, "the demo's controller could not take a connection and tries again");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let live = async {
        let mut clock = tokio::time::interval(STEP);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            clock.tick().await;
            station.send_modify(|station| station.step(STEP.as_secs_f64()));
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = serve => {}
        () = live => {}
    }
}

/// Listens on a free port of the loopback interface.
pub(super) async fn listen() -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// The station as registers and coils.
#[derive(Debug, Clone)]
struct Registers(Arc<watch::Sender<Station>>);

impl Service for Registers {
    type Request = SlaveRequest<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, asked: SlaveRequest<'static>) -> Self::Future {
        // As a gateway says it behind which there is no such unit.
        ready(if asked.slave == UNIT {
            self.answer(&asked.request)
        } else {
            Err(ExceptionCode::GatewayTargetDevice)
        })
    }
}

impl Registers {
    fn answer(&self, request: &Request<'_>) -> Result<Response, ExceptionCode> {
        match *request {
            Request::ReadCoils(first, n) => part(&[self.0.borrow().run], first, n).map(Response::ReadCoils),
            Request::ReadHoldingRegisters(first, n) => {
                let setpoint = scaled(self.0.borrow().setpoint, 10.0);
                part(&[setpoint], first, n).map(Response::ReadHoldingRegisters)
            }
            Request::ReadInputRegisters(first, n) => {
                part(&inputs(&self.0.borrow()), first, n).map(Response::ReadInputRegisters)
            }
            Request::WriteSingleCoil(at, on) => {
                self.write_coils(at, &[on]).map(|()| Response::WriteSingleCoil(at, on))
            }
            Request::WriteMultipleCoils(first, ref on) => {
                self.write_coils(first, on).map(|()| Response::WriteMultipleCoils(first, 1))
            }
            Request::WriteSingleRegister(at, value) => {
                self.write_registers(at, &[value]).map(|()| Response::WriteSingleRegister(at, value))
            }
            Request::WriteMultipleRegisters(first, ref values) => {
                self.write_registers(first, values).map(|()| Response::WriteMultipleRegisters(first, 1))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        }
    }

    /// There is one coil.
    fn write_coils(&self, first: u16, on: &[bool]) -> Result<(), ExceptionCode> {
        match (first, on) {
            (_, []) => Err(ExceptionCode::IllegalDataValue),
            (0, &[on]) => {
                self.0.send_modify(|station| station.run = on);
                Ok(())
            }
            _ => Err(ExceptionCode::IllegalDataAddress),
        }
    }

    /// There is one holding register.
    fn write_registers(&self, first: u16, values: &[u16]) -> Result<(), ExceptionCode> {
        match (first, values) {
            (_, []) => Err(ExceptionCode::IllegalDataValue),
            (0, &[setpoint]) if setpoint > FULL_SPEED => Err(ExceptionCode::IllegalDataValue),
            (0, &[setpoint]) => {
                self.0.send_modify(|station| station.setpoint = f64::from(setpoint) / 10.0);
                Ok(())
            }
            _ => Err(ExceptionCode::IllegalDataAddress),
        }
    }
}

fn inputs(station: &Station) -> [u16; 5] {
    // Saturates, after some five thousand years.
    let hours = (station.hours * 100.0) as u32;
    let [high, low] = [(hours >> 16) as u16, hours as u16];
    let status = u16::from(station.speed > 0.0) | u16::from(station.is_tripped()) << 3;
    [scaled(station.measured_pressure, 100.0), scaled(station.current, 10.0), low, high, status]
}

fn scaled(value: f64, steps: f64) -> u16 {
    (value * steps).round() as u16 // saturates
}

/// `n` of `all`, from the address `first`: the order of checks is that of the specification (V1.1b3, 6.1).
fn part<T: Copy>(all: &[T], first: u16, n: u16) -> Result<Vec<T>, ExceptionCode> {
    if n == 0 {
        return Err(ExceptionCode::IllegalDataValue);
    }
    let (first, n) = (usize::from(first), usize::from(n));
    all.get(first..first + n).map(<[T]>::to_vec).ok_or(ExceptionCode::IllegalDataAddress)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio_modbus::Slave;
    use tokio_modbus::client::tcp::connect_slave;
    use tokio_modbus::prelude::{Client, Reader, Writer};

    use super::super::broker::nobody_listens_on;
    use super::*;

    #[tokio::test]
    async fn a_client_reads_and_moves_the_station_and_hears_what_is_not_there() {
        let (listener, port) = listen().await.unwrap();
        let (truth, mut watched) = watch::channel(Station::new(1));
        let shutdown = CancellationToken::new();
        let controller = tokio::spawn(run(listener, truth, shutdown.clone()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut client = connect_slave(address, Slave(1)).await.unwrap();

        assert_eq!(client.read_coils(0, 1).await.unwrap(), Ok(vec![false]));
        client.write_single_register(0, 805).await.unwrap().unwrap();
        client.write_single_coil(0, true).await.unwrap().unwrap();
        assert_eq!(client.read_holding_registers(0, 1).await.unwrap(), Ok(vec![805]));
        watched.wait_for(|station| station.run && station.speed == 80.5).await.unwrap();
        let inputs = client.read_input_registers(0, 5).await.unwrap().unwrap();
        // 3.2 bar and more; 18 A at 80 %; 1234.5 hours are 123450, which is 1 E23A in hexadecimal.
        assert!((280..700).contains(&inputs[0]) && (150..210).contains(&inputs[1]), "{inputs:?}");
        assert_eq!(inputs[2..], [0xE23A, 1, 1]);
        client.write_multiple_coils(0, &[false]).await.unwrap().unwrap();
        client.write_multiple_registers(0, &[0]).await.unwrap().unwrap();
        watched.wait_for(|station| !station.run && station.setpoint == 0.0).await.unwrap();

        use ExceptionCode::{GatewayTargetDevice, IllegalDataAddress, IllegalDataValue, IllegalFunction};
        assert_eq!(client.read_input_registers(4, 2).await.unwrap(), Err(IllegalDataAddress));
        assert_eq!(client.read_holding_registers(1, 1).await.unwrap(), Err(IllegalDataAddress));
        assert_eq!(client.read_coils(65_535, 1).await.unwrap(), Err(IllegalDataAddress));
        assert_eq!(client.write_single_coil(1, true).await.unwrap(), Err(IllegalDataAddress));
        assert_eq!(client.write_multiple_registers(0, &[1, 2]).await.unwrap(), Err(IllegalDataAddress));
        assert_eq!(client.write_single_register(0, 1_001).await.unwrap(), Err(IllegalDataValue));
        assert_eq!(client.read_discrete_inputs(0, 1).await.unwrap(), Err(IllegalFunction));
        let mut stranger = connect_slave(address, Slave(2)).await.unwrap();
        assert_eq!(stranger.read_coils(0, 1).await.unwrap(), Err(GatewayTargetDevice));
        client.disconnect().await.unwrap();

        // The other client is still there when it ends.
        shutdown.cancel();
        controller.await.unwrap();
        nobody_listens_on(port).await;
    }
}
