//! A serial port as tokio sees it.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::termios::{ControlModes, OptionalActions, ioctl_tiocexcl, tcgetattr, tcsetattr};
use serial2::rs4xx::{Rs485Config, TransceiverMode};
use serial2::{CharSize, KeepSettings, SerialPort, StopBits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::config::{Parity, SerialConfig};

/// An open port that nobody else has.
///
/// Reading gives 0 bytes, at once and for ever, when the adapter is unplugged: who reads takes that for the
/// end of the connection. Drop the port before it is opened again, or it comes back under another name.
#[derive(Debug)]
pub(super) struct Port {
    // tokio's type for any descriptor that can be polled is unsafe to make; those for pipes do the same and
    // may be given a terminal.
    receiver: pipe::Receiver,
    sender: pipe::Sender,
    /// keeps the lock
    _port: SerialPort,
}

impl Port {
    /// Opens, locks and sets a port. Must be called in a tokio runtime.
    pub(super) fn open(config: &SerialConfig) -> io::Result<Self> {
        let mut port = SerialPort::open(&config.device, KeepSettings)?;
        // Before anything is set, or another program's line would be disturbed. The lock keeps away whoever
        // asks for it, TIOCEXCL all but root.
        flock(port.as_fd(), FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another program has it open (lsof says which)")
            }
            error => error.into(),
        })?;
        ioctl_tiocexcl(port.as_fd())?;
        if config.strict {
            apply(&mut port, config).map_err(|error| explain(error, config))?;
        } else {
            apply_unverified(&port, config)?;
        }
        if config.rs485 {
            set_rs485(&port)?;
        }
        port.discard_buffers()?;
        let receiver = pipe::Receiver::from_owned_fd_unchecked(port.as_fd().try_clone_to_owned()?)?;
        let sender = pipe::Sender::from_owned_fd_unchecked(port.as_fd().try_clone_to_owned()?)?;
        Ok(Self { receiver, sender, _port: port })
    }
}

/// What one byte takes: start bit, eight data bits, parity, stop bits.
pub(super) fn byte_time(config: &SerialConfig) -> Duration {
    let parity = u32::from(config.parity != Parity::None);
    Duration::from_secs(1) * (9 + parity + stop_bits(config)) / config.baud.get()
}

fn stop_bits(config: &SerialConfig) -> u32 {
    config.stop_bits.map_or(if config.parity == Parity::None { 2 } else { 1 }, u32::from)
}

fn apply(port: &mut SerialPort, config: &SerialConfig) -> io::Result<()> {
    let mut settings = port.get_configuration()?;
    settings.set_raw();
    settings.set_baud_rate(config.baud.get())?;
    settings.set_char_size(CharSize::Bits8);
    settings.set_stop_bits(if stop_bits(config) == 2 { StopBits::Two } else { StopBits::One });
    settings.set_parity(match config.parity {
        Parity::None => serial2::Parity::None,
        Parity::Even => serial2::Parity::Even,
        Parity::Odd => serial2::Parity::Odd,
    });
    port.set_configuration(&settings)
}

/// The same without looking whether the driver has done it.
fn apply_unverified(port: &SerialPort, config: &SerialConfig) -> io::Result<()> {
    let mut termios = tcgetattr(port.as_fd())?;
    termios.make_raw();
    termios.set_speed(config.baud.get())?;
    let modes = &mut termios.control_modes;
    modes.insert(ControlModes::CS8 | ControlModes::CREAD | ControlModes::CLOCAL);
    modes.remove(ControlModes::CRTSCTS);
    modes.set(ControlModes::CSTOPB, stop_bits(config) == 2);
    modes.set(ControlModes::PARENB, config.parity != Parity::None);
    modes.set(ControlModes::PARODD, config.parity == Parity::Odd);
    tcsetattr(port.as_fd(), OptionalActions::Now, &termios)?;
    Ok(())
}

fn explain(error: io::Error, config: &SerialConfig) -> io::Error {
    if error.kind() != io::ErrorKind::Other {
        return error;
    }
    io::Error::other(format!(
        "the driver does not take {} baud, parity {:?}, {} stop bits ({error}); `strict = false` goes on \
        all the same",
        config.baud,
        config.parity,
        stop_bits(config)
    ))
}

fn set_rs485(port: &SerialPort) -> io::Result<()> {
    let unsupported = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!(
                "the driver cannot switch RS-485 ({error}): leave `rs485` out for adapters that do it \
                themselves"
            ),
        )
    };
    port.set_rs4xx_mode(TransceiverMode::Rs485(Rs485Config::new())).map_err(unsupported)?;
    // Drivers leave out what they do not know.
    match port.get_rs4xx_mode()? {
        TransceiverMode::Rs485(_) => Ok(()),
        _ => Err(unsupported(io::Error::from(io::ErrorKind::Unsupported))),
    }
}

impl AsyncRead for Port {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receiver).poll_read(context, buffer)
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.sender).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sender).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sender).poll_shutdown(context)
    }
}
