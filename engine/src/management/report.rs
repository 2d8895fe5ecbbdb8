//! What there is to say about a box at one moment. Names are part of the protocol: they stay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tidegate_connectors::status::LineStatus;
use tidegate_core::status::Newest;
use tidegate_rules::Mode;

use super::managed_box::ManagedBox;
use super::rates::{Counted, Rate, Rates};
use crate::config;
use crate::status::{Counts, LastRow, OutputStatus, RuleStatus, StreamStatus, UplinkStatus};

/// Everything about one box. Times are RFC 3339 by the box's clock; ages go by its monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// the box itself
    #[serde(rename = "box")]
    pub about: About,
    /// what needs a person, a sentence each; empty: all is right
    pub attention: Vec<String>,
    /// by name
    pub connections: Vec<Connection>,
    /// by name
    pub streams: Vec<Stream>,
    /// by name
    pub rules: Vec<Rule>,
    /// by name
    pub outputs: Vec<Output>,
    /// by name
    pub uplinks: Vec<Uplink>,
    /// the SQLite database
    pub buffer: Buffer,
}

/// The box itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// its name
    pub name: String,
    /// of the program
    pub version: String,
    /// `runs` or `stops`
    pub state: String,
    /// the process
    pub pid: u32,
    /// the configuration file
    pub config: String,
    /// when it was started
    pub since: String,
    /// how long it has run
    pub up_s: u64,
    /// the parts of the configuration file that wait for a restart
    pub config_changed: Vec<String>,
    /// what is wrong with the configuration file by now: the box would not start with it
    pub config_wrong: Vec<String>,
    /// where the rule files are
    pub rules_dir: String,
    /// what is wrong with that directory and the files of reference tables
    pub files_wrong: Vec<String>,
}

/// Something that was so some time ago.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Noted {
    /// what
    pub text: String,
    /// when
    pub at: String,
    /// how long ago
    pub ago_ms: u64,
}

/// One connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// its name
    pub name: String,
    /// whether it is up
    pub connected: bool,
    /// since when it is up or down; absent: it was never tried
    pub since: Option<String>,
    /// how long it has been up or down
    pub for_s: Option<u64>,
    /// messages taken in
    pub messages: u64,
    /// rows made of them
    pub rows: u64,
    /// what else was counted since the start, by what it is
    pub counts: BTreeMap<String, u64>,
    /// how many there are now, by what it is: subscriptions that the far side grants
    pub gauges: BTreeMap<String, u64>,
    /// when it is tried again; absent: it is up, or being tried now
    pub next_attempt_ms: Option<u64>,
    /// why it was down last
    pub last_error: Option<Noted>,
    /// why it is of no use although it is up
    pub trouble: Option<String>,
    /// devices that are left alone now, because they do not answer
    pub parked: Vec<String>,
}

/// One stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// its name
    pub name: String,
    /// the connection that feeds it; absent: rules do
    pub connection: Option<String>,
    /// rows that came
    pub rows: u64,
    /// rows a second
    pub rate: Rate,
    /// the newest row
    pub newest: Option<Noted>,
    /// the greatest event time so far; a rule's `lateness` is still to be taken from it
    pub watermark: Option<String>,
    /// declared columns in which no row has had a value so far
    pub unseen: Option<String>,
    /// how far that is behind the box's clock; negative: it is ahead
    pub watermark_behind_ms: Option<i64>,
    /// what else was counted since the start, by what it is
    pub counts: BTreeMap<String, u64>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// its name
    pub name: String,
    /// `runs`, `shadow`, `waits`, `refused`, `stopped` or `off`
    pub state: String,
    /// the version that runs
    pub version: Option<Version>,
    /// rows that it wrote; in shadow mode, those that it would have written
    pub rows: u64,
    /// of them a second
    pub rate: Rate,
    /// the newest of them, behind its target
    pub newest: Option<Noted>,
    /// about how much it keeps
    pub state_bytes: u64,
    /// what else was counted since the start, by what it is
    pub counts: BTreeMap<String, u64>,
    /// what its newest text waits for: streams without known columns, tables without a file
    pub waits_for: Option<String>,
    /// why the newest text of its file was refused; the version before runs on, if there is one
    pub refused: Option<Noted>,
    /// why it was stopped
    pub stopped: Option<Noted>,
    /// why rows were left out, for the newest of them
    pub last_error: Option<Noted>,
}

/// A version of a rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// counts those since the start of the box, from 1
    pub number: u64,
    /// since when it runs
    pub since: String,
    /// how long it has run
    pub for_s: u64,
    /// the SHA-256 of its text
    pub sha256: String,
}

/// One output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// its name
    pub name: String,
    /// whether its full queue holds up the rules that write to it (`when_full = "block"`)
    pub holds_up: bool,
    /// rows that the far side confirmed
    pub written: u64,
    /// how many of the newest rows were not written; 0: the newest one was
    pub failing: u64,
    /// of them a second
    pub rate: Rate,
    /// the newest row, written or not
    pub newest: Option<Noted>,
    /// where an output with a contract is, and why, in a few words
    pub does: Option<String>,
    /// how much of what it moves a person has overridden
    pub overridden: u64,
    /// how much of what it moves an interlock has tripped
    pub tripped: u64,
    /// what else was counted since the start, by what it is
    pub counts: BTreeMap<String, u64>,
    /// why rows failed, for the newest of them
    pub last_error: Option<Noted>,
}

/// One uplink.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uplink {
    /// its name
    pub name: String,
    /// whether the far side is there
    pub connected: bool,
    /// rows that it confirmed
    pub delivered: u64,
    /// rows that it refused for good since it confirmed one
    pub refusing: u64,
    /// of them a second
    pub rate: Rate,
    /// what else was counted since the start, by what it is
    pub counts: BTreeMap<String, u64>,
    /// why rows were not taken, for the newest of them
    pub last_error: Option<Noted>,
}

/// The SQLite database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Buffer {
    /// the file
    pub path: String,
    /// whether it holds up rules: there is no room, and `when_full` is `block`
    pub holds_up: bool,
    /// whether the disk could not be written the last time
    pub disk_refuses: bool,
    /// whether so much came meanwhile that the journal has broken off
    pub journal_broken_off: bool,
    /// rows that wait for any uplink
    pub waiting: u64,
    /// what they take
    pub bytes: u64,
    /// what they may take
    pub max_bytes: u64,
    /// what the journal takes
    pub journal_bytes: u64,
    /// what decisions about outputs take
    pub decision_bytes: u64,
    /// commits since the start
    pub commits: u64,
    /// what else was counted since the start, by what it is
    pub counts: BTreeMap<String, u64>,
    /// what the box writes to the disk in a day at this pace, in MiB; absent: it has not run for long enough
    /// to say
    pub disk_mib_a_day: Option<u64>,
}

/// A day is not told from less than that.
const LONG_ENOUGH: Duration = Duration::from_mins(10);

impl Report {
    /// What there is to say about `managed` now.
    #[must_use]
    pub fn new(managed: &ManagedBox) -> Self {
        let (status, rates, up) = (&managed.status, &*managed.rates(), managed.started.elapsed());
        let connections: Vec<Connection> =
            status.connections.all().into_iter().map(|(name, line)| connection(name, &line)).collect();
        // A stream that has had no row yet is of interest, too.
        let mut streams: BTreeMap<String, _> =
            managed.config.streams.keys().map(|name| (name.clone(), None)).collect();
        streams.extend(status.streams.all().into_iter().map(|(name, of)| (name, Some(of))));
        let stream = |(name, of): (String, Option<Arc<StreamStatus>>)| {
            let configured = managed.config.streams.get(&name);
            stream(name, configured, of.as_deref(), rates)
        };
        let mut report = Self {
            about: about(managed, up),
            attention: Vec::new(),
            connections,
            streams: streams.into_iter().map(stream).collect(),
            rules: status.rules.all().into_iter().map(|(name, of)| rule(name, &of, rates)).collect(),
            outputs: status.outputs.all().into_iter().map(|(name, of)| output(name, &of, rates)).collect(),
            uplinks: status.uplinks.all().into_iter().map(|(name, of)| uplink(name, &of, rates)).collect(),
            buffer: buffer(managed),
        };
        report.attention = attention(&report);
        report
    }
}

impl Report {
    /// This report, but connections and uplinks are up or down as they were in `before`: a box that stops
    /// lets go of them.
    #[must_use]
    pub fn with_lines_of(mut self, before: &Self) -> Self {
        for line in &mut self.connections {
            let known = before.connections.iter().find(|known| known.name == line.name);
            line.connected = known.is_some_and(|known| known.connected);
        }
        for uplink in &mut self.uplinks {
            let known = before.uplinks.iter().find(|known| known.name == uplink.name);
            uplink.connected = known.is_some_and(|known| known.connected);
        }
        self
    }
}

/// What needs a person.
fn attention(report: &Report) -> Vec<String> {
    let down = report.connections.iter().filter(|line| !line.connected).map(down);
    let silent = report.connections.iter().filter(|line| line.connected && !line.parked.is_empty());
    let silent = silent.map(|line| format!("connection {}: {}", line.name, unanswered(&line.parked)));
    let useless = report.connections.iter().filter_map(|line| {
        line.trouble.as_ref().map(|trouble| format!("connection {} is of no use: {trouble}", line.name))
    });
    let rules = report.rules.iter().flat_map(|rule| {
        let keeps =
            if rule.version.is_some() { "the version before runs on" } else { "the rule does not run" };
        let refused =
            rule.refused.as_ref().map(|noted| format!("rule {}: {} ({keeps})", rule.name, noted.text));
        let stopped =
            rule.stopped.as_ref().map(|noted| format!("rule {} was stopped: {}", rule.name, noted.text));
        [refused, stopped]
    });
    let away = report.uplinks.iter().filter(|uplink| !uplink.connected);
    let away = away.map(|uplink| format!("uplink {} is down{}", uplink.name, why(&uplink.last_error)));
    let holds = report.outputs.iter().filter(|output| output.holds_up);
    let holds = holds.map(|output| {
        format!("output {} holds rules up: its queue is full, and when_full = \"block\"", output.name)
    });
    let full = || "the buffer holds rules up: there is no room, and when_full = \"block\"";
    let refuses = || "the disk cannot be written: what comes in is in memory only, and a crash would lose it";
    let broken_off = || {
        "the journal has broken off: the disk does not take what comes in, and rows for \
        uplinks are dropped"
    };
    let Buffer { holds_up, disk_refuses, journal_broken_off, .. } = &report.buffer;
    let disk = if *journal_broken_off { Some(broken_off()) } else { disk_refuses.then(refuses) };
    let buffer = holds_up.then(full).into_iter().chain(disk).map(ToOwned::to_owned);
    let lines = down.chain(useless).chain(silent).chain(away).chain(failing(report));
    holds.chain(buffer).chain(files(&report.about)).chain(rules.flatten()).chain(lines).collect()
}

/// Why, and how long ago that was so.
fn why(noted: &Option<Noted>) -> String {
    let why = |noted: &Noted| format!(": {} ({} ago)", noted.text, age_ms(noted.ago_ms));
    noted.as_ref().map_or_else(String::new, why)
}

/// "unit 9 does not answer"
pub(crate) fn unanswered(devices: &[String]) -> String {
    let verb = if devices.len() == 1 { "does" } else { "do" };
    format!("{} {verb} not answer", devices.join(", "))
}

fn down(line: &Connection) -> String {
    let lasting =
        line.for_s.map_or_else(String::new, |s| format!(" for {}", age_ms(s.saturating_mul(1_000))));
    let next = match line.next_attempt_ms {
        Some(ms) => format!("it is tried again in {}", age_ms(ms)),
        None => "it is being tried now".to_owned(),
    };
    format!("connection {} is down{lasting}{}; {next}", line.name, why(&line.last_error))
}

/// What is wrong with what lies on the disk.
fn files(about: &About) -> impl Iterator<Item = String> {
    let wrong = about.config_wrong.iter().map(|wrong| {
        format!("{wrong} (the box runs with what it was started with, and would not start with this file)")
    });
    let changed = (!about.config_changed.is_empty()).then(|| {
        let parts = about.config_changed.join(", ");
        format!("{} has changed since the start: {parts}; restart the box to use it", about.config)
    });
    wrong.chain(changed).chain(about.files_wrong.iter().cloned())
}

/// Rows that their far side does not take.
fn failing(report: &Report) -> impl Iterator<Item = String> {
    let outputs = report.outputs.iter().filter(|output| output.failing > 0).map(|output| {
        let rows = newest_rows(output.failing);
        format!("output {}: {rows} not written{}", output.name, why(&output.last_error))
    });
    let uplinks = report.uplinks.iter().filter(|uplink| uplink.refusing > 0).map(|uplink| {
        let rows = newest_rows(uplink.refusing);
        format!("uplink {}: {rows} refused and put aside{}", uplink.name, why(&uplink.last_error))
    });
    outputs.chain(uplinks)
}

fn newest_rows(count: u64) -> String {
    if count == 1 { "the newest row was".to_owned() } else { format!("the newest {count} rows were") }
}

fn about(managed: &ManagedBox, up: Duration) -> About {
    let compared = managed.compare();
    About {
        name: managed.config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: if managed.is_stopping() { "stops" } else { "runs" }.to_owned(),
        pid: std::process::id(),
        config: managed.config_file(),
        since: ago(up),
        up_s: up.as_secs(),
        config_changed: compared.changed,
        config_wrong: compared.wrong.iter().map(ToString::to_string).collect(),
        rules_dir: managed.config.rules.dir.display().to_string(),
        files_wrong: managed.status.files.get().map(|(_, wrong)| wrong).unwrap_or_default(),
    }
}

fn connection(name: String, line: &LineStatus) -> Connection {
    let changed = line.changed();
    Connection {
        name,
        connected: line.is_connected(),
        since: changed.map(ago),
        for_s: changed.map(|changed| changed.as_secs()),
        messages: line.messages.get(),
        rows: line.rows.get(),
        counts: named(line.counts()),
        gauges: named(line.gauges()),
        next_attempt_ms: line.next_attempt().map(ms),
        last_error: line.last_error().map(noted),
        trouble: line.trouble().filter(|_| line.is_connected()),
        parked: line.parked(),
    }
}

fn stream(
    name: String,
    configured: Option<&config::Stream>,
    of: Option<&StreamStatus>,
    rates: &Rates,
) -> Stream {
    let watermark =
        of.and_then(|of| of.watermark.get()).and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok());
    let behind = |time: Timestamp| i64::try_from(Timestamp::now().duration_since(time).as_millis()).ok();
    Stream {
        connection: match configured {
            Some(config::Stream::Input(stream)) => Some(stream.connections().join(", ")),
            _ => None,
        },
        rows: of.map_or(0, |of| of.rows.get()),
        rate: rates.get(Counted::Stream, &name),
        newest: of.and_then(|of| newest(&of.last)),
        watermark: watermark.map(|time| time.to_string()),
        unseen: of.and_then(|of| of.intake.unseen.get()).map(|(_, columns)| columns),
        watermark_behind_ms: watermark.and_then(behind),
        counts: of.map(|of| named(of.counts())).unwrap_or_default(),
        name,
    }
}

fn rule(name: String, of: &RuleStatus, rates: &Rates) -> Rule {
    let running = of.running.get();
    let state = match &running {
        Some((_, version)) if version.mode == Mode::Shadow => "shadow",
        Some(_) => "runs",
        None if of.stopped.is_some() => "stopped",
        None if of.refused.is_some() => "refused",
        None if of.waits_for.is_some() => "waits",
        None => "off",
    };
    Rule {
        state: state.to_owned(),
        version: running.map(|(since, version)| Version {
            number: version.number,
            since: ago(since),
            for_s: since.as_secs(),
            sha256: version.hash.to_string(),
        }),
        rows: of.rows.get(),
        rate: rates.get(Counted::Rule, &name),
        newest: newest(&of.last),
        state_bytes: of.state_bytes.get(),
        counts: named(of.counts()),
        waits_for: of.waits_for.get().map(|(_, what)| what),
        refused: text(&of.refused),
        stopped: text(&of.stopped),
        last_error: text(&of.last_error),
        name,
    }
}

fn output(name: String, of: &OutputStatus, rates: &Rates) -> Output {
    Output {
        holds_up: of.held.get() > 0,
        written: of.written.get(),
        failing: of.failing.get(),
        rate: rates.get(Counted::Output, &name),
        newest: newest(&of.last),
        does: of.states.newest(),
        overridden: of.states.overridden() as u64,
        tripped: of.states.tripped() as u64,
        counts: named(of.counts()),
        last_error: text(&of.last_error),
        name,
    }
}

fn uplink(name: String, of: &UplinkStatus, rates: &Rates) -> Uplink {
    Uplink {
        connected: of.far_side.connected.load(Ordering::Relaxed),
        delivered: of.delivered.get(),
        refusing: of.refusing.get(),
        rate: rates.get(Counted::Uplink, &name),
        counts: named(of.counts()),
        last_error: text(&of.far_side.last_error),
        name,
    }
}

fn buffer(managed: &ManagedBox) -> Buffer {
    let outbox = &managed.status.outbox;
    Buffer {
        path: managed.config.buffer.path.display().to_string(),
        holds_up: outbox.held.get() > 0,
        disk_refuses: outbox.refused.load(Ordering::Relaxed),
        journal_broken_off: outbox.broken_off.load(Ordering::Relaxed),
        waiting: outbox.waiting.get(),
        bytes: outbox.bytes.get(),
        max_bytes: managed.config.buffer.max_size.0,
        journal_bytes: outbox.journal_bytes.get(),
        decision_bytes: outbox.decision_bytes.get(),
        commits: outbox.commits.get(),
        counts: named(outbox.counts()),
        disk_mib_a_day: disk_mib_a_day(managed.started),
    }
}

/// What this process writes to disks in a day at the pace since `started`, in MiB, if it has run for long
/// enough to say.
#[must_use]
pub fn disk_mib_a_day(started: Instant) -> Option<u64> {
    let up = started.elapsed();
    (up >= LONG_ENOUGH).then_some(())?;
    // `write_bytes` in proc(5): flash wears by what is written to it; cards and eMMC name how much they
    // stand.
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let bytes: u64 = io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()?;
    Some((bytes.saturating_mul(86_400) / up.as_secs().max(1)) >> 20)
}

fn named(counts: Counts) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn newest(row: &LastRow) -> Option<Noted> {
    row.read().map(noted)
}

fn text(newest: &Newest<String>) -> Option<Noted> {
    newest.get().map(noted)
}

fn noted((age, text): (Duration, String)) -> Noted {
    Noted { text, at: ago(age), ago_ms: ms(age) }
}

fn age_ms(ms: u64) -> String {
    age(i128::from(ms) * 1_000_000)
}

/// Nanoseconds for people: the largest unit is enough.
#[must_use]
pub fn age(ns: i128) -> String {
    let seconds = (ns / 1_000_000_000).max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn ms(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// The time that was `age` ago, to the millisecond.
pub(super) fn ago(age: Duration) -> String {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    Timestamp::now().checked_sub(age).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}
