//! Brokers that are not mosquitto, as `tests/brokers/prepare` makes them. They keep sessions in memory.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::PATIENCE;

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// aedes, JavaScript: 3.1.1; what it repeats has no DUP flag
    Aedes,
    /// mochi-mqtt, Go: 3.1.1 and 5
    Mochi,
    /// HiveMQ CE, Java: 3.1.1 and 5
    HiveMq,
    /// Moquette, Java: 3.1.1; what it has retained comes without the RETAIN flag
    Moquette,
    /// amqtt, Python: 3.1.1; it loses sessions when a client goes without a goodbye
    Amqtt,
}

/// A running broker; it ends when it is dropped.
#[derive(Debug)]
pub struct Other {
    port: u16,
    _child: Child,
}

impl Other {
    /// Starts one on a free port.
    pub async fn start(make: Make) -> Self {
        let home = PathBuf::from(std::env::var_os("HOME").expect("there is a home directory"));
        let brokers = home.join(".cache/tidegate/brokers");
        let java = |name: &str| {
            let classes = brokers.join(name);
            let mut java = Command::new("java");
            java.arg("-cp").arg(format!("{0}:{0}/lib/*", classes.display())).arg("Broker");
            java
        };
        let program = |program: PathBuf, script: &str| {
            let mut command = Command::new(program);
            command.arg(brokers.join(script));
            command
        };
        let mut command = match make {
            Make::Aedes => program(brokers.join("aedes/node"), "aedes/broker.js"),
            Make::Mochi => Command::new(brokers.join("mochi/broker")),
            Make::HiveMq => java("hivemq"),
            Make::Moquette => java("moquette"),
            Make::Amqtt => program(brokers.join("amqtt/bin/python"), "amqtt/broker.py"),
        };
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let advice = "run tests/brokers/prepare";
        let mut child = spawned.unwrap_or_else(|error| panic!("{make:?} does not start ({error}): {advice}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let says_its_port = async {
            loop {
                let line = lines
                    .next_line()
                    .await
                    .unwrap()
                    .unwrap_or_else(|| panic!("{make:?} has ended: {advice}"));
                if let Some(port) = line.strip_prefix("port ") {
                    return port.parse().unwrap();
                }
            }
        };
        let Ok(port) = timeout(PATIENCE, says_its_port).await else { panic!("{make:?} says no port") };
        Self { port, _child: child }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}
