//! A mosquitto of one's own: on a free port, in a directory of its own, gone when it is dropped.

use std::fmt::Write as _;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a broker may take to listen; it is the limit of a wait, not a pause.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A running mosquitto.
#[derive(Debug)]
pub struct Mosquitto {
    dir: tempfile::TempDir,
    port: u16,
    config: String,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts a broker that lets everybody in and keeps sessions on disk.
    pub fn start() -> anyhow::Result<Self> {
        Self::with_config("allow_anonymous true\npersistence true\n")
    }

    /// Starts a broker with further lines of configuration; `{dir}` in them is its directory.
    pub fn with_config(lines: &str) -> anyhow::Result<Self> {
        Self::with_files(lines, &[])
    }

    /// As [`Self::with_config`], after writing files into its directory.
    pub fn with_files(lines: &str, files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("no temporary directory for mosquitto")?;
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content)?;
        }
        let path = dir.path().to_str().context("the temporary directory's name is not UTF-8")?.to_owned();
        let mut this = Self { dir, port: 0, config: lines.replace("{dir}", &path), child: None };
        // Somebody else may take the port between the question and the start.
        for _ in 0..20 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            this.port = port;
            if this.launch()? {
                return Ok(this);
            }
        }
        bail!("mosquitto found no free port in 20 attempts")
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

    /// Kills it, as a power cut would: nothing is written on the way.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends it in order, so that it writes its sessions to disk.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            let status = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status()?;
            anyhow::ensure!(status.success(), "cannot send SIGTERM to mosquitto");
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again on the same port, with what it kept on disk.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.launch()? {
            anyhow::ensure!(Instant::now() < deadline, "mosquitto does not get its port {} back", self.port);
        }
        Ok(())
    }

    /// Starts the process and waits until it listens. False: it ended at once, most likely because the port is taken.
    fn launch(&mut self) -> anyhow::Result<bool> {
        let path = self.file("mosquitto.conf");
        let mut text = format!("listener {} 127.0.0.1\n", self.port);
        write!(text, "persistence_location {}/\nuser root\n{}", self.dir.path().display(), self.config)?;
        std::fs::write(&path, text)?;
        let log = std::fs::File::create(self.file("mosquitto.log"))?;
        let mut child = spawn(&path, log)?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = child.try_wait()? {
                let mut log = String::new();
                std::fs::File::open(self.file("mosquitto.log"))?.read_to_string(&mut log)?;
                if log.contains("Address already in use") {
                    return Ok(false);
                }
                bail!("mosquitto ended with {status}:\n{log}");
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                self.child = Some(child);
                return Ok(true);
            }
            if Instant::now() > deadline {
                child.kill()?;
                bail!("mosquitto does not listen on port {} after {START_DEADLINE:?}", self.port);
            }
            std::thread::yield_now();
        }
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

fn spawn(config: &Path, log: std::fs::File) -> anyhow::Result<Child> {
    // Debian installs it where only root's PATH leads.
    for program in ["mosquitto", "/usr/sbin/mosquitto"] {
        let spawned =
            Command::new(program).arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?).spawn();
        match spawned {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("cannot start mosquitto"),
        }
    }
    bail!("these tests need the broker mosquitto; install it: sudo apt-get install -y mosquitto")
}
