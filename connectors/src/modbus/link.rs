//! How a connection is made.

use std::sync::Arc;
use std::time::Duration;

use super::config::{ConnectionConfig, usual_settings};
use super::guard::{Framing, Guard, Pace};
use crate::line::tcp;
use crate::port::{Dial, Wire};
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
    Serial(Box<Dial>),
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
            (None, Some(serial)) => {
                let dial = Dial::new(serial, usual_settings(serial), config.connect_timeout.0).ok()?;
                let byte = dial.settings().byte_time();
                (Place::Serial(Box::new(dial)), byte)
            }
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
            Place::Network { host, port, timeout } => {
                Wire::Network(tcp::connect(host, *port, *timeout).await?)
            }
            Place::Serial(dial) => dial.open().await?,
        };
        let framing = if self.is_tcp {
            Framing::tcp(self.any_unit, transaction)
        } else {
            Framing::rtu(self.echo.then_some(true))
        };
        Ok(Guard::new(wire, framing, self.pace, status))
    }
}
