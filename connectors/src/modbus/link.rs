//! How a connection is made.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::check::port_advice;
use super::config::{ConnectionConfig, SerialConfig};
use super::guard::{Framing, Guard, Pace};
use super::port::{self, Port};
use crate::status::LineStatus;

/// The port of Modbus TCP.
const PORT: u16 = 502;

/// Above this rate, silence between frames is no shorter (Serial Line V1.02, section 2.5.1.1).
const SHORTEST_SILENCE: Duration = Duration::from_micros(1_750);

/// Where a connection leads, and how it is used.
#[derive(Debug, Clone)]
pub(super) struct Link {
    place: Place,
    is_tcp: bool,
    any_unit: bool,
    echo: bool,
    pace: Pace,
}

#[derive(Debug, Clone)]
enum Place {
    Network { host: String, port: u16, timeout: Duration },
    Serial(SerialConfig),
}

/// An open line.
#[derive(Debug)]
pub(super) enum Wire {
    Network(TcpStream),
    Serial(Port),
}

impl Link {
    /// None: the configuration says neither or both.
    pub(super) fn new(config: &ConnectionConfig) -> Option<Self> {
        let (place, byte) = match (&config.host, &config.serial) {
            (Some(host), None) => {
                let port = config.port.map_or(PORT, std::num::NonZeroU16::get);
                let place = Place::Network { host: host.clone(), port, timeout: config.connect_timeout.0 };
                (place, Duration::ZERO)
            }
            (None, Some(serial)) => (Place::Serial(serial.clone()), port::byte_time(serial)),
            _ => return None,
        };
        // Frames are three and a half bytes apart.
        let silence = if byte.is_zero() { byte } else { (byte * 7 / 2).max(SHORTEST_SILENCE) };
        let pace = Pace {
            after_connect: config.pause_after_connect.0,
            between: config.pause_between_requests.0.max(silence),
            byte,
        };
        Some(Self { place, is_tcp: config.is_tcp(), any_unit: config.any_unit, echo: config.echo, pace })
    }

    /// Whether the line is a network connection, which can be made anew when nobody answers.
    pub(super) fn is_network(&self) -> bool {
        matches!(self.place, Place::Network { .. })
    }

    /// Connects. `transaction` is the first transaction id; errors are in words for the user.
    pub(super) async fn dial(
        &self,
        transaction: u16,
        status: Arc<LineStatus>,
    ) -> Result<Guard<Wire>, String> {
        let wire = match &self.place {
            Place::Network { host, port, timeout: patience } => {
                let connecting = TcpStream::connect((host.as_str(), *port));
                let stream = match timeout(*patience, connecting).await {
                    Err(_) => {
                        return Err(format!("{host} does not answer: check host, port, cable and firewall"));
                    }
                    Ok(Err(error)) => return Err(refused(&error, host, *port)),
                    Ok(Ok(stream)) => stream,
                };
                // Requests are small, and wait for each other.
                let _ = stream.set_nodelay(true);
                Wire::Network(stream)
            }
            Place::Serial(config) => Wire::Serial(Port::open(config).map_err(|error| {
                let device = config.device.display();
                format!("{device} cannot be opened: {error}; {}", port_advice(&config.device))
            })?),
        };
        let framing = if self.is_tcp {
            Framing::tcp(self.any_unit, transaction)
        } else {
            Framing::rtu(self.echo.then_some(true))
        };
        Ok(Guard::new(wire, framing, self.pace, status))
    }
}

fn refused(error: &io::Error, host: &str, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "{host} does not take connections on port {port}: check the port; many devices take one client \
            at a time"
        ),
        _ => format!("{host}:{port}: {error}"),
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Serial(port) => Pin::new(port).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Serial(port) => Pin::new(port).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_flush(context),
            Self::Serial(port) => Pin::new(port).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Serial(port) => Pin::new(port).poll_shutdown(context),
        }
    }
}
