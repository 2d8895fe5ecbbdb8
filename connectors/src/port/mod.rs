//! Serial ports: how they are set, found and opened, for whatever is spoken on them.
//!
//! [`PortConfig`] is what users write, [`Dial`] what opens it again and again, [`Wire`] the open line. A read
//! of 0 bytes is a lost line, also on a port of this machine (an adapter was unplugged). Drop the wire before
//! the port is opened again.

mod config;
mod remote;
mod rfc2217;
mod tty;
pub mod usb;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use config::{FlowControl, PORTS, Parity, Place, PortConfig, Server, Settings, UsbConfig};
pub use rfc2217::{Client, Refusal};
pub use tty::{Output, Port};

use crate::line::tcp;
use crate::table::Problem;
use remote::Remote;

/// How to open a port.
#[derive(Debug, Clone)]
pub struct Dial {
    place: Place,
    config: PortConfig,
    settings: Settings,
    patience: Duration,
}

/// An open line.
#[derive(Debug)]
pub enum Wire {
    /// bytes as they are
    Network(TcpStream),
    /// a port of this machine
    Serial(Port),
    /// a port of a serial server
    Remote(Box<Remote>),
}

impl Dial {
    /// `usual`: settings for what the configuration does not say. `patience`: how long a serial server may
    /// take.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: &PortConfig, usual: Settings, patience: Duration) -> Result<Self, Problem> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem);
        }
        Ok(Self {
            place: config.place()?,
            settings: config.settings(usual),
            config: config.clone(),
            patience,
        })
    }

    /// Where the port is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How bytes go over the line.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Opens the port.
    ///
    /// # Errors
    /// In words for the user.
    pub async fn open(&self) -> Result<Wire, String> {
        match &self.place {
            Place::Path(path) => self.open_tty(path),
            Place::Usb(usb) => self.open_tty(&usb::find(usb)?),
            Place::Tcp(server) => {
                Ok(Wire::Network(tcp::connect(&server.host, server.port, self.patience).await?))
            }
            Place::Rfc2217(server) => {
                let stream = tcp::connect(&server.host, server.port, self.patience).await?;
                let client = Client::new(&self.config, self.settings);
                let remote = Remote::open(stream, client, self.patience).await;
                let remote = remote.map_err(|why| format!("{}: {why}", self.place))?;
                Ok(Wire::Remote(Box::new(remote)))
            }
        }
    }

    fn open_tty(&self, path: &std::path::Path) -> Result<Wire, String> {
        Port::open(path, &self.config, self.settings).map(Wire::Serial).map_err(|error| {
            let path = path.display();
            let help = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "add the user that tidegate runs as to the group dialout".to_owned()
                }
                io::ErrorKind::NotFound => format!("is it plugged in? {PORTS}"),
                io::ErrorKind::ResourceBusy | io::ErrorKind::Unsupported | io::ErrorKind::Other => {
                    return format!("{path} cannot be opened: {error}");
                }
                _ => format!("is it plugged in, and a serial port? {PORTS}"),
            };
            format!("{path} cannot be opened: {error}; {help}")
        })
    }
}

impl Wire {
    /// What is not sent yet and can be thrown away; none: the port is not of this machine.
    pub(crate) fn output(&self) -> Option<Output> {
        match self {
            Self::Serial(port) => port.output().ok(),
            Self::Network(_) | Self::Remote(_) => None,
        }
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
            Self::Remote(remote) => Pin::new(&mut **remote).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Serial(port) => Pin::new(port).poll_write(context, bytes),
            Self::Remote(remote) => Pin::new(&mut **remote).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_flush(context),
            Self::Serial(port) => Pin::new(port).poll_flush(context),
            Self::Remote(remote) => Pin::new(&mut **remote).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Serial(port) => Pin::new(port).poll_shutdown(context),
            Self::Remote(remote) => Pin::new(&mut **remote).poll_shutdown(context),
        }
    }
}
