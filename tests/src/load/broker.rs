//! A mosquitto of one's own: on a free port, in a directory of its own, gone when it is dropped.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, bail};

/// Attempts to start: somebody else may take the port between the question and the start.
const ATTEMPTS: usize = 20;

/// A running mosquitto.
#[derive(Debug)]
pub struct Broker {
    /// on 127.0.0.1
    pub port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Broker {
    /// Starts a broker that drops nothing which a slow subscriber has not taken yet, and has at most `in_flight` unconfirmed QoS 1 messages
    /// under way to each client (mosquitto's default is 20).
    pub fn start(in_flight: u16) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a directory for mosquitto")?;
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let path = dir.path().join("mosquitto.conf");
            let mut text = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n");
            // Without nodelay, small messages wait up to 40 ms for acknowledgements of TCP, whoever subscribes.
            write!(text, "max_inflight_messages {in_flight}\nset_tcp_nodelay true\nlog_dest stderr\n")?;
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            let mut child = spawn(&path)?;
            if listens(child.stderr.take()) {
                return Ok(Self { port, child, _dir: dir });
            }
            child.wait().context("cannot wait for mosquitto")?;
        }
        bail!("mosquitto found no free port in {ATTEMPTS} attempts")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port on which nobody listens.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}

/// `mosquitto -h` names the version in its first line.
pub fn version() -> String {
    let said = program().args(["-h"]).output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or("mosquitto").to_owned()
}

fn program() -> Command {
    // Debian installs it where only root's PATH leads.
    let outside_path = std::path::Path::new("/usr/sbin/mosquitto");
    if outside_path.exists() { Command::new(outside_path) } else { Command::new("mosquitto") }
}

fn spawn(config: &std::path::Path) -> anyhow::Result<Child> {
    let mut command = program();
    command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().context("cannot start mosquitto; install it: sudo apt-get install -y mosquitto")
}

/// Whether it listens: it says "running" when it does, and ends when it cannot. The rest of its log is read, so that it never waits for us.
fn listens(log: Option<ChildStderr>) -> bool {
    let Some(log) = log else { return false };
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    let running = lines.any(|line| line.ends_with(" running"));
    std::thread::spawn(move || lines.for_each(drop));
    running
}
