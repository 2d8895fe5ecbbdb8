//! How a bus is reached, and the bus as the line uses it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Clock;

use super::adapter::{Adapter, Setting};
use super::bus::{Bus, Event, Received, Sent};
use super::config::{ConnectionConfig, LogConfig};
use super::frame::Frame;
use super::recording::Player;
use super::slcan;
use crate::port::{Dial, PortConfig, Settings};
use crate::status::LineStatus;
use crate::table::Problem;

/// How long a serial server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How to open a bus.
pub(super) struct Link {
    access: Access,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
}

enum Access {
    Interface { name: String, filters: Vec<(u32, u32)>, errors: bool },
    Adapter { device: String, port: Box<Dial>, setting: Setting },
    Log(LogConfig),
}

/// An open bus.
pub(super) enum Wire {
    Bus(Box<Bus>),
    Adapter(Box<Adapter>),
    Log(Box<Player>),
}

impl Link {
    /// Leads to the bus of a configuration. `filters`: what an interface lets through, as id and mask.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(super) fn new(
        config: &ConnectionConfig,
        filters: Vec<(u32, u32)>,
        errors: bool,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Result<Self, Problem> {
        let access = match (&config.interface, &config.slcan, &config.log) {
            (Some(name), None, None) => Access::Interface { name: name.clone(), filters, errors },
            (None, Some(slcan), None) => {
                let bit_rate = slcan::bit_rate(slcan.bitrate)
                    .ok_or_else(|| Problem::new(&["slcan", "bitrate"], "adapters have no such bit rate"))?;
                let port = port(&slcan.device, slcan.baud).map_err(|problem| problem.inside("slcan"))?;
                let setting = Setting { bit_rate, listen_only: config.listen_only, answers: slcan.answers };
                Access::Adapter { device: slcan.device.clone(), port: Box::new(port), setting }
            }
            (None, None, Some(log)) => Access::Log(log.clone()),
            _ => return Err(Problem::absent(&[], "it says none of `interface`, `slcan` and `log`")),
        };
        Ok(Self { access, clock, status })
    }

    /// Opens it; errors are in words for the user.
    pub(super) async fn open(&self) -> Result<Wire, String> {
        let (clock, status) = (Arc::clone(&self.clock), Arc::clone(&self.status));
        match &self.access {
            Access::Interface { name, filters, errors } => {
                Bus::open(name, filters, *errors).map(|bus| Wire::Bus(Box::new(bus)))
            }
            Access::Adapter { device, port, setting } => {
                let adapter = Adapter::open(port.open().await?, *setting, clock, status).await;
                adapter
                    .map(|adapter| Wire::Adapter(Box::new(adapter)))
                    .map_err(|why| format!("{device}: {why}"))
            }
            Access::Log(log) => Player::open(log, clock, status).map(|player| Wire::Log(Box::new(player))),
        }
    }
}

/// The port of an adapter.
pub(super) fn port(device: &str, baud: NonZeroU32) -> Result<Dial, Problem> {
    Dial::new(&PortConfig::at(device), Settings::plain(baud), PATIENCE)
}

impl Wire {
    /// Waits until something happens; frames go to the end of `frames`. With `wants_room` it is also told
    /// when a frame may be sent. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// Why the bus is gone, in words for the user.
    pub(super) async fn wait(
        &mut self,
        wants_room: bool,
        frames: &mut Vec<Received>,
    ) -> Result<Event, String> {
        match self {
            Self::Bus(bus) => bus.wait(wants_room, frames).await,
            Self::Adapter(adapter) => adapter.wait(wants_room, frames).await,
            Self::Log(player) => player.wait(frames).await,
        }
    }

    /// Takes what has come by now, as far as that can be told.
    pub(super) fn drain(&mut self, frames: &mut Vec<Received>) {
        if let Self::Bus(bus) = self {
            bus.drain(frames);
        }
    }

    /// Hands a frame to the controller.
    pub(super) fn send(&mut self, frame: &Frame) -> Sent {
        match self {
            Self::Bus(bus) => bus.send(frame),
            Self::Adapter(adapter) => adapter.send(frame),
            Self::Log(_) => Sent::Refused("nothing can be sent to a log".into()),
        }
    }

    /// Whether the controller has errors, and may hold frames back because of them.
    pub(super) fn is_failing(&self) -> bool {
        if let Self::Bus(bus) = self { bus.is_failing() } else { false }
    }

    /// Whether a controller that had left the bus has returned.
    pub(super) fn has_returned(&mut self) -> bool {
        if let Self::Bus(bus) = self { bus.has_returned() } else { false }
    }

    /// Frames that have been lost since this was asked last, because they were not read in time.
    pub(super) fn newly_lost(&mut self) -> u64 {
        if let Self::Bus(bus) = self { bus.newly_lost() } else { 0 }
    }
}
