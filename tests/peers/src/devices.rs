//! Devices and serial servers that others wrote, as `tests/devices/prepare` makes them, and serial lines.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::PATIENCE;

/// A running device; it ends when it is dropped.
#[derive(Debug)]
pub struct Device {
    port: u16,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Device {
    /// One by pymodbus; `arguments` are those of its script.
    pub async fn pymodbus(arguments: &[&str]) -> Self {
        let home = home();
        let mut command = Command::new(home.join("pymodbus/bin/python"));
        command.arg(home.join("pymodbus/server.py"));
        Self::start(command, arguments).await
    }

    /// One by libmodbus; `arguments` are those of its program.
    pub async fn libmodbus(arguments: &[&str]) -> Self {
        Self::start(Command::new(home().join("libmodbus/server")), arguments).await
    }

    /// A serial server by pyserial; `arguments` are those of its script.
    pub async fn pyserial(arguments: &[&str]) -> Self {
        let home = home();
        let mut command = Command::new(home.join("pyserial/bin/python"));
        command.arg(home.join("pyserial/server.py"));
        Self::start(command, arguments).await
    }

    async fn start(mut command: Command, arguments: &[&str]) -> Self {
        let advice = "run tests/devices/prepare";
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start ({error}): {advice}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut device = Self { port: 0, lines, _child: child };
        let first = device.line().await;
        if let Some(port) = first.strip_prefix("port ") {
            device.port = port.parse().unwrap();
        } else {
            assert_eq!(first, "ready", "{advice}");
        }
        device
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it prints next.
    pub async fn line(&mut self) -> String {
        let line =
            timeout(PATIENCE, self.lines.next_line()).await.expect("the device says something").unwrap();
        line.expect("the device runs: run tests/devices/prepare")
    }
}

/// Debian's ser2net: it offers a serial port by RFC 2217.
#[derive(Debug)]
pub struct Ser2net {
    port: u16,
    _configuration: TempDir,
    _child: Child,
}

impl Ser2net {
    /// Offers the port at `path`. It listens a moment later.
    pub async fn serve(path: &Path) -> Self {
        let configuration = tempfile::tempdir().unwrap();
        let file = configuration.path().join("ser2net.yaml");
        // It cannot choose a port by itself.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "%YAML 1.1\n---\nconnection: &port\n  accepter: telnet(rfc2217),tcp,127.0.0.1,{port}\n  \
            connector: serialdev,{},9600n81,local\n",
            path.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("ser2net");
        command.args(["-n", "-d", "-c"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn().expect("there is ser2net");
        Self { port, _configuration: configuration, _child: child }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Where `tests/devices/prepare` puts them.
pub(crate) fn home() -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").expect("there is a home directory"));
    home.join(".cache/tidegate/devices")
}

/// A serial cable: two ports, and what is written to one is read from the other.
#[derive(Debug)]
pub struct SerialCable {
    directory: TempDir,
    /// none: it is unplugged
    socat: Option<Socat>,
}

#[derive(Debug)]
struct Socat {
    // It ends when nobody takes what it says.
    _lines: Lines<BufReader<ChildStderr>>,
    child: Child,
}

impl SerialCable {
    /// Plugs one in.
    pub async fn plug() -> Self {
        let mut cable = Self { directory: tempfile::tempdir().unwrap(), socat: None };
        cable.replug().await;
        cable
    }

    /// Pulls it out: both ports are gone.
    pub async fn unplug(&mut self) {
        let mut socat = self.socat.take().expect("it is plugged in");
        // A name that is left behind would soon lead to another cable's port.
        for end in [self.near(), self.far()] {
            std::fs::remove_file(end).unwrap();
        }
        socat.child.kill().await.unwrap();
    }

    /// Plugs it in again, under the same names.
    pub async fn replug(&mut self) {
        let end = |end: PathBuf| format!("PTY,raw,echo=0,link={}", end.display());
        // It says on its error output when both are there.
        let mut child = Command::new("socat")
            .args(["-d", "-d", &end(self.near()), &end(self.far())])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("there is socat");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("starting data transfer loop") {
                    return;
                }
            }
            panic!("socat has ended");
        };
        timeout(PATIENCE, ready).await.expect("socat makes two ports");
        self.socat = Some(Socat { _lines: lines, child });
    }

    /// The box's end.
    #[must_use]
    pub fn near(&self) -> PathBuf {
        self.end("near")
    }

    /// The device's end.
    #[must_use]
    pub fn far(&self) -> PathBuf {
        self.end("far")
    }

    fn end(&self, name: &str) -> PathBuf {
        let path: &Path = self.directory.path();
        path.join(name)
    }
}

/// Reads with libmodbus' own client, as its users do: `arguments` are those of mbpoll. Returns the values.
pub async fn mbpoll(port: u16, arguments: &[&str]) -> Vec<i64> {
    let port = port.to_string();
    let mut command = Command::new("mbpoll");
    command.args(["-m", "tcp", "-p", &port, "-0", "-1"]).args(arguments).arg("127.0.0.1");
    let output = timeout(PATIENCE, command.output()).await.expect("mbpoll ends").expect("there is mbpoll");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let values = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]:"));
    values.map(|(_, value)| value.split_whitespace().next().unwrap().parse().unwrap()).collect()
}
