//! A mosquitto of one's own: on a free port, in a directory of its own, gone when it is dropped.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::PATIENCE;
use crate::lines::Lines;

/// Lets everybody in, keeps sessions on disk, and drops nothing that a slow subscriber has not taken yet. The window of 20 messages in
/// flight is mosquitto's default.
const USUAL: &str = "allow_anonymous true\npersistence true\nmax_queued_messages 0\n";

/// A running mosquitto.
#[derive(Debug)]
pub struct Mosquitto {
    dir: tempfile::TempDir,
    port: u16,
    config: String,
    child: Option<Child>,
    lines: Lines,
}

impl Mosquitto {
    /// Starts a broker that lets everybody in and keeps sessions on disk.
    pub async fn start() -> Self {
        Self::with_config(USUAL).await
    }

    /// Starts a broker with this configuration, beside its port and directory.
    pub async fn with_config(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Self { dir, port: 0, config: config.to_owned(), child: None, lines: Lines::default() };
        // Somebody else may take the port between the question and the start.
        for _ in 0..20 {
            broker.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if broker.launch().await {
                return broker;
            }
        }
        panic!("mosquitto found no free port in 20 attempts")
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logs.
    #[must_use]
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Waits until somebody has subscribed to `filter`: from then on no message for it is missed.
    pub async fn subscribed(&self, filter: &str) {
        self.subscribed_after(0, filter).await;
    }

    /// As [`Self::subscribed`], behind the first `after` log lines.
    pub async fn subscribed_after(&self, after: usize, filter: &str) {
        self.lines.wait_after(after, &format!(" 1 {filter}")).await;
    }

    /// Kills it, as a power cut would: nothing is written on the way.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Takes away what it kept on disk, so that it knows no session when it starts again.
    pub fn forget(&self) {
        match std::fs::remove_file(self.dir.path().join("mosquitto.db")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("cannot remove the broker's sessions: {error}"),
            _ => {}
        }
    }

    /// Ends it in order, so that it writes its sessions to disk.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            terminate(child.id());
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port, with what it kept on disk.
    pub async fn restart(&mut self) {
        let started = async { while !self.launch().await {} };
        if tokio::time::timeout(PATIENCE, started).await.is_err() {
            panic!("mosquitto does not get its port {} back", self.port);
        }
    }

    /// Starts the process and waits until it listens. False: somebody else has the port.
    async fn launch(&mut self) -> bool {
        let path = self.dir.path().join("mosquitto.conf");
        let mut text = format!("listener {} 127.0.0.1\nlog_dest stderr\n", self.port);
        // `subscribe` is what `subscribed` waits for.
        text.push_str("log_type error\nlog_type warning\nlog_type notice\nlog_type information\nlog_type subscribe\n");
        write!(text, "persistence_location {}/\nuser root\n{}", self.dir.path().display(), self.config).unwrap();
        std::fs::write(&path, text).unwrap();
        let seen = self.lines.count();
        let mut child = spawn(&path);
        self.lines.follow(child.stderr.take().unwrap());
        // It says "running" when it listens, and names the error when it cannot.
        let running = self.lines.wait_after(seen, " running");
        let taken = self.lines.wait_after(seen, "Address already in use");
        let listens = tokio::select! { _ = running => true, _ = taken => false };
        if listens {
            self.child = Some(child);
        } else {
            child.wait().unwrap();
        }
        listens
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends SIGTERM.
pub(crate) fn terminate(pid: u32) {
    let status = Command::new("kill").arg("-TERM").arg(pid.to_string()).status().unwrap();
    assert!(status.success(), "cannot send SIGTERM to process {pid}");
}

fn spawn(config: &Path) -> Child {
    // Debian installs it where only root's PATH leads.
    for program in ["mosquitto", "/usr/sbin/mosquitto"] {
        let spawned = Command::new(program).arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        match spawned {
            Ok(child) => return child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("cannot start mosquitto: {error}"),
        }
    }
    panic!("these tests need the broker mosquitto; install it: sudo apt-get install -y mosquitto")
}
