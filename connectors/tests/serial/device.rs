//! The far end of a cable, in the test's hands.

use std::path::Path;

use serial2::SerialPort;
use tidegate_peers::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// A device at the end of a cable.
pub(crate) struct Device {
    receiver: pipe::Receiver,
    sender: pipe::Sender,
    _port: SerialPort,
}

impl Device {
    pub(crate) fn at(path: &Path) -> Self {
        use std::os::fd::AsFd;
        let port = SerialPort::open(path, 115_200).unwrap();
        let fd = || port.as_fd().try_clone_to_owned().unwrap();
        let receiver = pipe::Receiver::from_owned_fd_unchecked(fd()).unwrap();
        let sender = pipe::Sender::from_owned_fd_unchecked(fd()).unwrap();
        Self { receiver, sender, _port: port }
    }

    /// Sends bytes.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.sender.write_all(bytes)).await.expect("the line takes bytes").unwrap();
    }

    /// The next byte.
    pub(crate) async fn byte(&mut self) -> u8 {
        let mut byte = [0];
        timeout(PATIENCE, self.receiver.read_exact(&mut byte)).await.expect("a byte comes").unwrap();
        byte[0]
    }

    /// The bytes up to the next line end; none: the cable was pulled.
    pub(crate) async fn hear(&mut self) -> Option<String> {
        let mut heard = Vec::new();
        let mut byte = [0];
        while !heard.ends_with(b"\r\n") {
            match self.receiver.read(&mut byte).await {
                Ok(1) => heard.push(byte[0]),
                _ => return None,
            }
        }
        Some(String::from_utf8(heard).unwrap())
    }

    /// What is asked for next.
    pub(crate) async fn asked(&mut self) -> String {
        timeout(PATIENCE, self.hear()).await.expect("somebody asks").expect("the cable is plugged in")
    }
}
