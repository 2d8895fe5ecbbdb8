//! The box under load: a site with configuration and rules, and the process `tidegate run` in it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use crate::PATIENCE;

/// Topic that the box reads.
pub const IN: &str = "load/in";
/// Topic of the box's output.
pub const OUT: &str = "load/out";
/// Topic of its uplink.
pub const UP: &str = "load/up";

/// Rows hotter than this are the markers by which progress is seen: one in [`crate::plant::MARKER_EVERY`].
pub const MARKERS: &str = "INSERT INTO out SELECT n, temperature FROM flood WHERE temperature > 90;\n";

/// The binary to measure: the one that was named, or one that is built now beside this program.
pub fn binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return named.canonicalize().with_context(|| format!("there is no binary {}", named.display()));
    }
    // TARGET/PROFILE/tidegate-load
    let this = std::env::current_exe().context("cannot find this program")?;
    let target =
        this.ancestors().nth(2).ok_or_else(|| anyhow!("{} is not in a target directory", this.display()))?;
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--package", "tidegate", "--bin", "tidegate", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cannot run cargo; name a binary with --tidegate")?;
    if !built.success() {
        bail!("the binary cannot be built; name one with --tidegate");
    }
    Ok(target.join("release/tidegate"))
}

/// What the box is told.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// port of the broker in the field
    pub field: u16,
    /// port of the broker that the uplink goes to
    pub cloud: u16,
    /// QoS of the subscription
    pub qos: u8,
    /// QoS of the output
    pub out_qos: u8,
    /// rule files: name without extension, text
    pub rules: Vec<(String, String)>,
    /// further settings of the buffer, as lines
    pub buffer: &'static str,
    /// further settings of the output, behind a comma
    pub output: &'static str,
}

impl Setup {
    /// The session ends with the box: one that stayed would collect the floods that are meant for others, and
    /// hand them to the next box.
    pub fn config(&self) -> String {
        let Self { field, cloud, qos, out_qos, buffer, output, .. } = self;
        format!(
            r#"name = "load"
connections.field = {{ kind = "mqtt", host = "127.0.0.1", port = {field}, session_expiry = "1s" }}
connections.cloud = {{ kind = "mqtt", host = "127.0.0.1", port = {cloud}, backoff = {{ min = "20ms", max = "100ms" }} }}
outputs.out = {{ connection = "field", topic = "{OUT}", qos = {out_qos}, when_full = "block"{output} }}
uplink = {{ connection = "cloud", topic = "{UP}" }}
buffer.max_size = "16GiB"
buffer.when_full = "block"
{buffer}

[streams.flood]
connection = "field"
topic = "{IN}"
qos = {qos}
fields = {{ n = "int64", device = "utf8", temperature = "float64", pressure = "float64", ok = "bool" }}
"#
        )
    }
}

/// A directory with configuration and rules.
#[derive(Debug)]
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// One with brokers.
    pub fn new(setup: Setup) -> anyhow::Result<Self> {
        Self::with_config(&setup.config(), &setup.rules)
    }

    /// Writes a configuration and rules down: name without extension, text.
    pub fn with_config(config: &str, rules: &[(String, String)]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a directory for the box")?;
        let site = Self { dir };
        site.configure(config)?;
        let folder = site.dir.path().join("rules");
        std::fs::create_dir(&folder)?;
        for (name, text) in rules {
            std::fs::write(folder.join(format!("{name}.sql")), text).context("cannot write a rule")?;
        }
        Ok(site)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Changes the configuration, for the next start.
    pub fn configure(&self, config: &str) -> anyhow::Result<()> {
        std::fs::write(self.dir.path().join("tidegate.toml"), config)
            .context("cannot write the configuration")
    }

    /// Bytes of the buffer on disk.
    pub fn buffer_bytes(&self) -> u64 {
        let size = |name: &str| {
            std::fs::metadata(self.dir.path().join("data").join(name)).map_or(0, |file| file.len())
        };
        size("buffer.db") + size("buffer.db-wal")
    }

    /// How often the disk under the buffer has been told to flush its cache since the machine started, by
    /// whomever: the kernel's count (Documentation/block/stat.rst, field 16), where it has one.
    pub fn flushes(&self) -> Option<u64> {
        let device = std::fs::metadata(self.dir.path()).ok()?.dev();
        // As makedev(3) puts them together.
        let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
        let minor = (device & 0xff) | ((device >> 12) & !0xff);
        let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
        stat.split_whitespace().nth(15)?.parse().ok()
    }

    /// Starts `tidegate run`. Returns when it runs.
    pub fn run(&self, binary: &Path) -> anyhow::Result<Subject> {
        let spawned = Instant::now();
        let mut command = Command::new(binary);
        command
            .args(["run", "--config", "tidegate.toml"])
            .current_dir(self.dir.path())
            .env_remove("TIDEGATE_LOG");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = Arc::new(Log::default());
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || log.follow(BufReader::new(stderr)));
        }
        let mut subject = Subject { child, log, spawned, running: Duration::ZERO };
        subject.running = subject.log.wait("the box runs")? - spawned;
        Ok(subject)
    }
}

/// What a box has done from its start to its end.
#[derive(Debug, Clone, Copy)]
pub struct Totals {
    /// bytes that it caused to be written to a disk
    pub written: u64,
    /// commits of its buffer, by its own count
    pub commits: u64,
}

/// `tidegate run` as a process. It is killed when it is dropped.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    log: Arc<Log>,
    /// when the process was asked for
    pub spawned: Instant,
    /// from then until it said that it runs
    pub running: Duration,
}

impl Subject {
    /// Resident memory now, bytes (`VmRSS` in proc(5)).
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// Most resident memory so far, bytes (`VmHWM` in proc(5)).
    pub fn peak(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// Bytes that it caused to be written to a disk so far (`write_bytes` in proc(5)).
    pub fn written(&self) -> anyhow::Result<u64> {
        let text = self.proc("io")?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
        Ok(line.trim().parse()?)
    }

    /// Processor time so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(&self.proc("stat")?)
    }

    /// Resident memory now that is not backed by a file, bytes (`RssAnon` in proc(5)): all but the binary's
    /// own pages.
    pub fn anonymous(&self) -> anyhow::Result<u64> {
        self.status("RssAnon:")
    }

    /// What it warned of since it runs, but not that the uplink is down: that is so on purpose, as is what the
    /// configuration is warned of before.
    pub fn complaints(&self) -> Vec<String> {
        let lines = self.log.lines().into_iter().map(|(_, line)| line);
        let bad = |line: &String| {
            (line.contains(" WARN ") || line.contains(" ERROR ")) && !line.contains("connection=cloud")
        };
        lines.skip_while(|line| !line.contains("the box runs")).filter(bad).collect()
    }

    /// The first line with `text` in it that it has written by now.
    pub fn said(&self, text: &str) -> Option<String> {
        self.log.lines().into_iter().map(|(_, line)| line).find(|line| line.contains(text))
    }

    /// Kills it, as a power cut would.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill the box")?;
        self.child.wait().context("cannot wait for the box").map(drop)
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<Totals> {
        Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status()
            .context("cannot run kill")?;
        // It has closed its log, and has not been waited for: the kernel still knows.
        self.log.wait_for_the_end()?;
        let written = self.written()?;
        let status = self.child.wait().context("cannot wait for the box")?;
        if !status.success() {
            bail!("the box ended with {status}:\n{}", self.log.text());
        }
        let in_line =
            |line: &str| line.split(' ').find_map(|field| field.strip_prefix("commits=")).map(str::to_owned);
        let commits = self.log.lines().iter().rev().find_map(|(_, line)| in_line(line));
        let commits = commits.context("the box did not say how often it has committed")?.parse()?;
        Ok(Totals { written, commits })
    }

    fn status(&self, key: &str) -> anyhow::Result<u64> {
        let text = self.proc("status")?;
        let line =
            text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {path}; the box has said:\n{}", self.log.text()))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time in the text of a `stat` file, proc(5), fields 14 and 15. Linux shows them in
/// hundredths of a second.
pub fn cpu_of(stat: &str) -> anyhow::Result<Duration> {
    ticks(stat, 11)
}

/// Two fields of a `stat` file together, `from` places behind the third.
fn ticks(stat: &str, from: usize) -> anyhow::Result<Duration> {
    // The name of the program, field 2, may have blanks in it.
    let (_, rest) = stat.rsplit_once(") ").context("no program name in stat")?;
    let ticks: u64 = rest.split(' ').skip(from).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// User and system time of the children that have ended and were waited for: proc(5), fields 16 and 17.
pub fn cpu_of_children() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    ticks(&stat, 13)
}

/// What a process writes, line by line, with the time of each.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<(Vec<(Instant, String)>, bool)>,
    changed: Condvar,
}

impl Log {
    fn follow(&self, from: impl BufRead) {
        for line in from.lines().map_while(Result::ok) {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).0.push((Instant::now(), line));
            self.changed.notify_all();
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    /// Waits for a line with `text` in it; returns its time.
    fn wait(&self, text: &str) -> anyhow::Result<Instant> {
        let find = |lines: &[(Instant, String)]| {
            lines.iter().find(|(_, line)| line.contains(text)).map(|(time, _)| *time)
        };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |(lines, ended)| !*ended && find(lines).is_none());
        let found = find(&waited.unwrap_or_else(PoisonError::into_inner).0.0);
        found.with_context(|| format!("the box did not say {text:?}:\n{}", self.text()))
    }

    /// Waits until there will be no more lines.
    fn wait_for_the_end(&self) -> anyhow::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |(_, ended)| !*ended);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            bail!("the box does not end:\n{}", self.text())
        } else {
            Ok(())
        }
    }

    fn lines(&self) -> Vec<(Instant, String)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn text(&self) -> String {
        self.lines().into_iter().map(|(_, line)| line + "\n").collect()
    }
}
