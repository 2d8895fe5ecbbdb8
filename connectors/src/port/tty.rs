//! A serial port of this machine as tokio sees it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::fs::{FlockOperation, flock};
use rustix::termios::{
    ControlModes, InputModes, OptionalActions, SpecialCodeIndex, Termios, ioctl_tiocexcl, tcgetattr,
    tcsetattr,
};
use serial2::rs4xx::{Rs485Config, TransceiverMode};
use serial2::{KeepSettings, SerialPort};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::config::{FlowControl, Parity, PortConfig, Settings};

/// An open port that nobody else has.
///
/// Reading gives 0 bytes, at once and for ever, when the adapter is unplugged: who reads takes that for the
/// end of the connection. Drop the port before it is opened again, or it comes back under another name.
#[derive(Debug)]
pub struct Port {
    // tokio's type for any descriptor that can be polled is unsafe to make; those for pipes do the same and
    // may be given a terminal.
    receiver: pipe::Receiver,
    sender: pipe::Sender,
    /// keeps the lock
    port: SerialPort,
}

impl Port {
    /// Opens, locks and sets a port. Must be called in a tokio runtime.
    pub(super) fn open(path: &Path, config: &PortConfig, line: Settings) -> io::Result<Self> {
        let port = SerialPort::open(path, KeepSettings)?;
        // Before anything is set, or another program's line would be disturbed. The lock keeps away whoever
        // asks for it, TIOCEXCL all but root.
        flock(port.as_fd(), FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another program has it open (lsof says which)")
            }
            error => error.into(),
        })?;
        ioctl_tiocexcl(port.as_fd())?;
        apply(&port, line, config.strict.unwrap_or(true))?;
        if config.rs485 {
            set_rs485(&port)?;
        }
        let lines = [("DTR", config.dtr), ("RTS", config.rts)];
        for (name, on) in lines.into_iter().filter_map(|(name, on)| Some((name, on?))) {
            let set = if name == "DTR" { port.set_dtr(on) } else { port.set_rts(on) };
            set.map_err(|error| io::Error::new(error.kind(), format!("{name} cannot be switched: {error}")))?;
        }
        port.discard_buffers()?;
        let receiver = pipe::Receiver::from_owned_fd_unchecked(port.as_fd().try_clone_to_owned()?)?;
        let sender = pipe::Sender::from_owned_fd_unchecked(port.as_fd().try_clone_to_owned()?)?;
        Ok(Self { receiver, sender, port })
    }

    /// What the driver has taken and not sent yet.
    pub(super) fn output(&self) -> io::Result<Output> {
        self.port.try_clone().map(Output)
    }
}

/// The bytes that a driver has taken, and has not sent yet: while the device holds the line back, they wait,
/// and would go out late.
#[derive(Debug)]
pub struct Output(SerialPort);

impl Output {
    /// Throws them away.
    pub(crate) fn discard(&self) -> io::Result<()> {
        self.0.discard_output_buffer()
    }
}

/// The modes that settings decide.
const DECIDED: ControlModes = ControlModes::CSIZE
    .union(ControlModes::CSTOPB)
    .union(ControlModes::PARENB)
    .union(ControlModes::PARODD)
    .union(ControlModes::CMSPAR)
    .union(ControlModes::CRTSCTS);

fn modes(line: Settings) -> ControlModes {
    let mut modes = match line.data_bits {
        5 => ControlModes::CS5,
        6 => ControlModes::CS6,
        7 => ControlModes::CS7,
        _ => ControlModes::CS8,
    };
    modes.set(ControlModes::CSTOPB, line.stop_bits == 2);
    modes.set(ControlModes::PARENB, line.parity != Parity::None);
    modes.set(ControlModes::PARODD, matches!(line.parity, Parity::Odd | Parity::Mark));
    modes.set(ControlModes::CMSPAR, matches!(line.parity, Parity::Mark | Parity::Space));
    modes.set(ControlModes::CRTSCTS, line.flow_control == FlowControl::RtsCts);
    modes
}

fn apply(port: &SerialPort, line: Settings, strict: bool) -> io::Result<()> {
    let mut termios = tcgetattr(port.as_fd())?;
    termios.make_raw();
    termios.set_speed(line.baud.get())?;
    termios.control_modes.remove(DECIDED);
    termios.control_modes.insert(modes(line) | ControlModes::CREAD | ControlModes::CLOCAL);
    let by_bytes = InputModes::IXON | InputModes::IXOFF;
    termios.input_modes.remove(InputModes::IXANY);
    termios.input_modes.set(by_bytes, line.flow_control == FlowControl::XonXoff);
    // A read of no bytes means that the port is gone.
    termios.special_codes[SpecialCodeIndex::VMIN] = 1;
    termios.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(port.as_fd(), OptionalActions::Now, &termios)?;
    // Drivers leave out what they do not know, and say that all went well.
    match refused(&tcgetattr(port.as_fd())?, line) {
        Some(what) if strict => Err(io::Error::other(format!(
            "the driver does not take {what} of {line}; `strict = false` goes on all the same"
        ))),
        Some(what) => {
            tracing::warn!(%line, "the driver does not take {what}");
            Ok(())
        }
        None => Ok(()),
    }
}

/// What the driver has not done.
fn refused(termios: &Termios, line: Settings) -> Option<&'static str> {
    let differs = (termios.control_modes ^ modes(line)) & DECIDED;
    let parity = ControlModes::PARENB | ControlModes::PARODD | ControlModes::CMSPAR;
    if termios.output_speed() != line.baud.get() {
        Some("the rate")
    } else if differs.intersects(parity) {
        Some("the parity")
    } else if differs.intersects(ControlModes::CSIZE) {
        Some("the data bits")
    } else if differs.intersects(ControlModes::CSTOPB) {
        Some("the stop bits")
    } else if differs.intersects(ControlModes::CRTSCTS) {
        Some("the flow control")
    } else {
        None
    }
}

fn set_rs485(port: &SerialPort) -> io::Result<()> {
    let unsupported = |why: String| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the driver cannot switch RS-485 ({why}): leave `rs485` out for adapters that do it themselves"
            ),
        )
    };
    port.set_rs4xx_mode(TransceiverMode::Rs485(Rs485Config::new())).map_err(|error| {
        if error.raw_os_error() == Some(rustix::io::Errno::NOTTY.raw_os_error()) {
            unsupported("TIOCSRS485 is unsupported".into())
        } else {
            unsupported(error.to_string())
        }
    })?;
    // Drivers leave out what they do not know.
    match port.get_rs4xx_mode()? {
        TransceiverMode::Rs485(_) => Ok(()),
        _ => Err(unsupported("it was set, and is not there when it is read back".into())),
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
