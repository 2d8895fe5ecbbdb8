//! A mosquitto of one's own: on a free port, in a directory of its own, gone when it is dropped.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::PATIENCE;
use crate::lines::Lines;

/// Lets everybody in, keeps sessions on disk, and drops nothing that a slow subscriber has not taken yet. The
/// window of 20 messages in flight is mosquitto's default.
const USUAL: &str = "allow_anonymous true\npersistence true\nmax_queued_messages 0\n";

/// CONNECT of MQTT 3.1.1 (section 3.1) with a clean session and the client id `probe`.
const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05probe";

/// Debian installs it where only root's PATH leads.
const PROGRAMS: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];

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

    /// As [`Self::start`]; it is also found at `address`, with the same port.
    pub async fn start_at(address: Ipv4Addr) -> Self {
        Self::with_config(&format!("{USUAL}listener {{port}} {address}\n")).await
    }

    /// Starts a broker with this configuration, beside its port and directory.
    pub async fn with_config(config: &str) -> Self {
        Self::with_files(config, &[]).await
    }

    /// As [`Self::with_config`], after writing files into its directory, which is `{dir}` in the
    /// configuration; `{port}` is its port.
    pub async fn with_files(config: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let config = config.replace("{dir}", dir.path().to_str().unwrap());
        let mut broker = Self { dir, port: 0, config, child: None, lines: Lines::default() };
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

    /// A file in its directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
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

    /// Has it hang: its connections stay open, and nobody answers.
    pub async fn hang(&self) {
        self.signal("-STOP").await;
    }

    /// It goes on after that.
    pub async fn go_on(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, name: &str) {
        signal(name, self.child.as_ref().and_then(Child::id).expect("it runs")).await;
    }

    /// Kills it, as a power cut would: nothing is written on the way.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Takes away what it kept on disk, so that it knows no session when it starts again.
    pub fn forget(&self) {
        match std::fs::remove_file(self.dir.path().join("mosquitto.db")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("cannot remove the broker's sessions: {error}")
            }
            _ => {}
        }
    }

    /// Ends it in order, so that it writes its sessions to disk.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            terminate(child.id().unwrap()).await;
            let Ok(status) = timeout(PATIENCE, child.wait()).await else {
                panic!("mosquitto does not end:\n{}", self.lines.text())
            };
            status.unwrap();
        }
    }

    /// Starts it again on the same port, with what it kept on disk.
    pub async fn restart(&mut self) {
        let started = async { while !self.launch().await {} };
        if timeout(PATIENCE, started).await.is_err() {
            panic!("mosquitto does not get its port {} back", self.port);
        }
    }

    /// Starts the process and waits until it works. False: somebody else has the port.
    async fn launch(&mut self) -> bool {
        let path = self.file("mosquitto.conf");
        let mut text = format!("listener {} 127.0.0.1\n", self.port);
        // `subscribe` is what `subscribed` waits for.
        text.push_str(
            "log_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\nlog_type \
            information\nlog_type subscribe\n",
        );
        write!(
            text,
            "persistence_location {}/\nuser root\n{}",
            self.dir.path().display(),
            self.config.replace("{port}", &self.port.to_string())
        )
        .unwrap();
        std::fs::write(&path, text).unwrap();
        let seen = self.lines.count();
        let (log, writer) = std::io::pipe().unwrap();
        let mut child = spawn(&path, writer);
        self.lines.follow(log);
        // It says "running" when it listens, and names the error when it cannot.
        let running = self.lines.wait_after(seen, " running");
        let taken = self.lines.wait_after(seen, "Address already in use");
        let listens = tokio::select! { _ = running => true, _ = taken => false };
        if listens {
            self.works().await;
            self.child = Some(child);
        } else {
            timeout(PATIENCE, child.wait()).await.expect("it ends without its port").unwrap();
        }
        listens
    }

    /// Waits for its first answer. After it says "running" there is still a moment in which mosquitto 2.0
    /// forgets a SIGTERM, and runs on.
    async fn works(&self) {
        let answer = async {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
            socket.write_all(CONNECT).await.unwrap();
            // Acceptance, refusal, an alert of TLS, or a closed connection: each comes from its main loop.
            let _ = socket.read(&mut [0; 16]).await;
        };
        if timeout(PATIENCE, answer).await.is_err() {
            panic!("mosquitto does not answer on port {}:\n{}", self.port, self.lines.text());
        }
    }
}

/// Its name and version, as `mosquitto -h` says them in its first line.
#[must_use]
pub fn version() -> String {
    let said =
        PROGRAMS.iter().find_map(|program| std::process::Command::new(program).arg("-h").output().ok());
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or("mosquitto").to_owned()
}

/// Sends SIGTERM.
pub async fn terminate(pid: u32) {
    signal("-TERM", pid).await;
}

async fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").arg(name).arg(pid.to_string()).status().await.unwrap();
    assert!(status.success(), "cannot send SIG{name} to process {pid}");
}

fn spawn(config: &Path, log: std::io::PipeWriter) -> Child {
    for program in PROGRAMS {
        let log = log.try_clone().unwrap();
        let spawned = Command::new(program)
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        match spawned {
            Ok(child) => return child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("cannot start mosquitto: {error}"),
        }
    }
    panic!("these tests need the broker mosquitto; install it: sudo apt-get install -y mosquitto")
}
