//! The real binary: a site to run it in, and the process that runs.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::PATIENCE;
use crate::lines::Lines;
use crate::link::Cabinet;
use crate::mosquitto::{Mosquitto, terminate};
use tokio::process::Child;

const RUN: &[&str] = &["run", "--config", "tidegate.toml"];

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Tests this binary, instead of one that is built. Comes too late when one was asked for before.
pub fn test_binary(path: PathBuf) {
    drop(BINARY.set(path));
}

/// The binary `tidegate`: the one that was named, here or by `TIDEGATE_BINARY`; else one of the profile that
/// the tests were built with, built when it is asked for first.
pub fn binary() -> &'static Path {
    BINARY.get_or_init(|| {
        // Cargo would build it anew: on its own it has fewer features of its dependencies than within the
        // workspace.
        if let Some(built) = std::env::var_os("TIDEGATE_BINARY") {
            return PathBuf::from(built);
        }
        // TARGET/PROFILE/deps/TEST, or TARGET/PROFILE/PROGRAM
        let program = std::env::current_exe().unwrap();
        let profile_dir = program.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).unwrap();
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => "dev",
            other => other,
        };
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo has told this program about its package. ring's build script looks at it, so that ring
        // and all that is built on it would be compiled anew.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_MANIFEST_", "CARGO_PKG_"]
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                cargo.env_remove(name);
            }
        }
        let built = cargo
            .args([
                "build",
                "--quiet",
                "--package",
                "tidegate",
                "--bin",
                "tidegate",
                "--profile",
                profile,
                "--target-dir",
            ])
            .arg(profile_dir.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success(), "the binary cannot be built");
        profile_dir.join("tidegate")
    })
}

/// `[connections.NAME]` of a configuration: a session with `broker` that comes back quickly after an outage.
#[must_use]
pub fn connection(name: &str, broker: &Mosquitto, version: &str) -> String {
    connection_at(name, Ipv4Addr::LOCALHOST, broker, version)
}

/// As [`connection`], to another address of the broker.
#[must_use]
pub fn connection_at(name: &str, address: Ipv4Addr, broker: &Mosquitto, version: &str) -> String {
    let port = broker.port();
    format!(
        "[connections.{name}]\nkind = \"mqtt\"\nhost = \"{address}\"\nport = {port}\nversion \
        = \"{version}\"\nbackoff = {{ min = \"10ms\", max = \"100ms\" }}\n"
    )
}

/// Configuration, rules and data of a box, in a directory of its own.
#[derive(Debug)]
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// A site with this `tidegate.toml` and no rules. The box is called `box`.
    #[must_use]
    pub fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        std::fs::write(dir.path().join("tidegate.toml"), format!("name = \"box\"\n{config}")).unwrap();
        Self { dir }
    }

    /// A file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file of a rule.
    #[must_use]
    pub fn rule_path(&self, name: &str) -> PathBuf {
        self.path("rules").join(format!("{name}.sql"))
    }

    /// Puts a rule in place at once, as `mv` does.
    pub fn rule(&self, name: &str, text: &str) {
        let fresh = self.path("rules").join(format!(".{name}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.rule_path(name)).unwrap();
    }

    /// Runs `tidegate` to its end.
    #[must_use]
    pub fn tidegate(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts the box.
    #[must_use]
    pub fn run(&self) -> RunningBox {
        self.start(self.command(RUN))
    }

    /// Starts `tidegate`, whose standard output can be read.
    #[must_use]
    pub fn tidegate_running(&self, args: &[&str]) -> Child {
        let command = self.command(args);
        tokio::process::Command::from(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Starts the box with these variables in its environment.
    #[must_use]
    pub fn run_with(&self, variables: &[(&str, &str)]) -> RunningBox {
        let mut command = self.command(RUN);
        command.envs(variables.iter().copied());
        self.start(command)
    }

    /// Starts the box in a network of its own.
    #[must_use]
    pub fn run_in(&self, cabinet: &Cabinet) -> RunningBox {
        self.start(cabinet.inside(&self.command(RUN)))
    }

    fn start(&self, mut command: Command) -> RunningBox {
        let lines = Lines::default();
        let (log, writer) = std::io::pipe().unwrap();
        command.stdout(Stdio::null()).stderr(writer);
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        lines.follow(log);
        RunningBox { child, lines, dir: self.dir.path().to_owned() }
    }

    fn command(&self, args: &[&str]) -> Command {
        command(self.dir.path(), args)
    }
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(dir).stdin(Stdio::null()).env_remove("TIDEGATE_LOG");
    command
}

/// `tidegate run` as a process. It is killed when it is dropped.
#[derive(Debug)]
pub struct RunningBox {
    child: Child,
    lines: Lines,
    dir: PathBuf,
}

impl RunningBox {
    /// What it logs.
    #[must_use]
    pub fn log(&self) -> &Lines {
        &self.lines
    }

    /// Resident memory, KiB (`VmRSS` in proc(5)).
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Processor time so far (`utime` and `stime` in proc(5), in hundredths of a second).
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name of the program, field 2, may have blanks in it.
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// What it said of lost data, or that needs a person: the first line of the level ERROR.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.lines.find(" ERROR ")
    }

    /// Kills it, as a power cut would. Its buffer has to be whole all the same.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
        self.verify();
    }

    /// Checks every invariant of the buffer, if there is one.
    pub fn verify(&self) {
        let verified = command(&self.dir, &["buffer", "verify"]).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(
            verified.status.success() || said.contains("there is no buffer"),
            "{}{said}",
            String::from_utf8_lossy(&verified.stdout)
        );
    }

    /// Asks it to end (SIGTERM), and waits until it has. Until then its buffer is whole.
    pub async fn stop(mut self) -> ExitStatus {
        self.verify();
        terminate(self.pid()).await;
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("the box does not end"),
        }
    }

    /// Sends it SIGHUP.
    pub async fn hang_up(&self) {
        let sent = tokio::process::Command::new("kill")
            .args(["-HUP", &self.pid().to_string()])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until it ends by itself.
    pub async fn end(mut self) -> ExitStatus {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("the box does not end"),
        }
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("the box runs")
    }
}

impl Drop for RunningBox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Shown by the test harness beside what went wrong.
            print_log(&self.lines.text());
        }
    }
}

#[allow(clippy::print_stderr, reason = "the log belongs to the report of a failed test")]
fn print_log(log: &str) {
    eprintln!("--- the box's log\n{log}\n---");
}
