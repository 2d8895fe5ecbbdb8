//! What a service manager is told, by the protocol of sd_notify(3): that the box runs, how it is, and that it
//! is alive.
//!
//! The watchdog is fed by the sequencer: a question goes through its queue, and only when it has come back is
//! the service manager told. A box whose sequencer hangs is started anew, and one that has nothing to do is
//! not.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::managed_box::{Heartbeat, ManagedBox};
use super::report::Report;

/// How often it is said how the box is.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The way to the service manager.
pub struct Service {
    socket: UnixDatagram,
    address: SocketAddr,
    /// how long the box may be silent
    watchdog: Option<Duration>,
}

impl Service {
    /// The one that started this process, if there is one that wants to know.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let for_us = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid != std::process::id().to_string());
        let watchdog = std::env::var("WATCHDOG_USEC")
            .ok()
            .filter(|_| !for_us)
            .and_then(|us| us.parse().ok())
            .map(Duration::from_micros);
        Self::at(&std::env::var_os("NOTIFY_SOCKET")?, watchdog)
    }

    /// The one at `address`: a path, or `@` and the name of an abstract socket.
    fn at(address: &std::ffi::OsStr, watchdog: Option<Duration>) -> Option<Self> {
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(Path::new(address)),
        };
        let opened = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        match opened {
            Ok((socket, address)) => Some(Self { socket, address, watchdog }),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told how the box is (NOTIFY_SOCKET)");
                None
            }
        }
    }

    /// Tells it that the box stops.
    pub fn stops(&self) {
        self.tell("STOPPING=1\nSTATUS=stops: what has come in is dealt with");
    }

    /// Tells it that the box runs, and then how it is.
    pub async fn run(&self, managed: &ManagedBox, heartbeat: Heartbeat) {
        self.tell(&format!("READY=1\nSTATUS={}", summary(&Report::new(managed))));
        let say = async {
            let mut ticks = interval(STATUS_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if !managed.is_stopping() {
                    self.tell(&format!("STATUS={}", summary(&Report::new(managed))));
                }
            }
        };
        tokio::join!(say, self.feed_watchdog(managed, heartbeat));
    }

    async fn feed_watchdog(&self, managed: &ManagedBox, heartbeat: Heartbeat) {
        let Some(watchdog) = self.watchdog else { return };
        let mut ticks = interval(watchdog / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (beat, beaten) = oneshot::channel();
            let mut asked = pin!(async {
                // A sequencer that is gone has come to its end: the rest of the box has a deadline of its
                // own.
                if heartbeat.send(beat).await.is_ok() {
                    drop(beaten.await);
                }
            });
            loop {
                tokio::select! {
                    () = &mut asked => break,
                    _ = ticks.tick() => if managed.status.is_held() || managed.is_stopping() {
                        self.tell("WATCHDOG=1");
                    },
                }
            }
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, text: &str) {
        if let Err(error) = self.socket.send_to_addr(text.as_bytes(), &self.address) {
            tracing::debug!(%error, "the service manager was not told how the box is");
        }
    }
}

/// How the box is, in a line.
fn summary(report: &Report) -> String {
    let rows: u64 = report.streams.iter().map(|stream| stream.rows).sum();
    let written: u64 = report.outputs.iter().map(|output| output.written).sum();
    let waiting = report.buffer.waiting;
    let more = match report.attention.len() {
        0 | 1 => String::new(),
        many => format!(" (and {} more)", many - 1),
    };
    let trouble = report.attention.first().map_or_else(String::new, |first| format!("; {first}{more}"));
    let text = format!("{rows} rows in, {written} written, {waiting} wait for the cloud{trouble}");
    // A line is a field.
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests;
