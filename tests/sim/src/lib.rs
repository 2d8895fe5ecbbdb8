//! A whole box on simulated time, disk and network, in one thread. A seed decides every delay, fault and
//! crash.
//!
//! [`run`] plays one seed: a few rounds, in each of which the box runs until it is stopped or the power is
//! cut, on the disk that the round before left; then a round in which nothing goes wrong, so that everything
//! gets where it belongs; then the [`reckoning`].
//!
//! * [`disk`]: files of which a power cut keeps what was synced and some of the rest.
//! * [`broker`]: devices, a broker, and the box's connection to it. [`cloud`]: the far side of the uplink.
//!   [`valve`]: an output. [`press`]: what is polled, on a [`wire`] that tears what is said.
//! * [`columns`]: what devices send, of a stream that declares no fields.
//! * [`plc`]: outputs with contracts, and what interlocks look at. [`panel`] and [`person`]: what is wished of
//!   them. [`terms`]: what they promise; the [`judge`] says whether they keep it, by what the [`witness`] saw
//!   come in.
//! * [`rules`]: the rules directory with a reference [`table`], and somebody who edits both. [`echo`]: a rule
//!   that lives by ticks. [`programs`]: rules in Rhai, and plugins.
//! * [`world`]: all of that as the engine sees it. [`dice`]: chance. [`record`]: what happened.

pub mod broker;
pub mod cloud;
pub mod columns;
pub mod dice;
pub mod disk;
pub mod echo;
pub mod judge;
pub mod panel;
pub mod person;
pub mod plc;
pub mod press;
pub mod programs;
pub mod reckoning;
pub mod record;
pub mod rules;
pub mod table;
pub mod terms;
pub mod valve;
pub mod wire;
pub mod witness;
pub mod world;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use tidegate::config::{self, Config, Stream, WhenQueueFull};
use tidegate::disk::Disk as _;
use tidegate::run::{self, Running};
use tidegate::status::Status;
use tidegate_connectors::StreamConfig;
use tidegate_connectors::stream::OnDiskFailure;
use tidegate_core::{ByteSize, Span};
use tokio::time::{Instant, sleep, timeout};

use broker::{Broker, Weather};
use cloud::Cloud;
use columns::Columns;
use dice::Dice;
use disk::{Disk, Faults};
use judge::{Judge, Round};
use person::Person;
use plc::Plc;
use press::Press;
use reckoning::Reckoning;
use record::Record;
use rules::RuleFiles;
use terms::Terms;
use valve::Valve;
use witness::Witness;
use world::{Conditions, Hardware, SimulatedClock, SimulatedWorld};

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// equal for equal runs
    pub hash: u64,
    /// what must not have happened; empty when all is well
    pub wrong: Vec<String>,
    /// messages that were published
    pub messages: u64,
    /// times that the power was cut
    pub power_cuts: u64,
    /// writes that have reached what moves
    pub writes: u64,
}

/// A plant with two streams and an output, presses that are polled, a controller that moves what a panel
/// wishes, and a cloud. Outputs of the controller are beside it: see [`config_of`].
const CONFIG: &str = r#"
name = "box"

[connections.plant]
kind = "mqtt"
host = "plant"

[connections.press]
kind = "modbus"
host = "press"

[connections.panel]
kind = "mqtt"
host = "panel"

[connections.plc]
kind = "modbus"
host = "plc"

[connections.cloud]
kind = "mqtt"
host = "cloud"

[streams.tank]
connection = "plant"
topic = "tank"
ts = "time"
fields = { device = "utf8", n = "int64", v = "int64" }

[streams.noise]
connection = "plant"
topic = "noise"
qos = 0

[streams.level]
connection = "press"
units = { press_1 = 1, press_2 = 2 }
every = "2s"
quality = true
journal = true
fields = { n = { holding = 0, type = "int64" }, v = { holding = 4, type = "int64" } }

[streams.copied]
fields = { device = "utf8", n = "int64", v = "int64" }

[streams.echoed]
fields = { n = "int64", waited = "int64" }

[streams.wish]
connection = "panel"
topic = "wish"
ts = "time"
fields = { who = "int64", run = "bool", speed = "float64" }

[streams.wished]
fields = { run = "bool", speed = "float64" }

[streams.guard]
connection = "plc"
unit = 1
every = "1s"
quality = true
journal = true
fields = { level = { input = 0, type = "float64" }, fwd = { discrete = 0 }, rev = { discrete = 1 } }

[streams.gate]
connection = "plc"
unit = 1
every = "1s"
quality = true
fields = { open = { discrete = 2 } }

[tables.factors]
path = "factors.csv"

[outputs.valve]
connection = "plant"
topic = "valve"

[uplink]
connection = "cloud"
"#;

/// The configuration of a box whose outputs promise `terms`.
#[must_use]
pub fn config_of(terms: &[Terms]) -> String {
    std::iter::once(CONFIG.to_owned()).chain(terms.iter().map(Terms::text)).collect()
}

/// How many sources of rules and contents of tables are named and missing, and how many are there and not
/// named. Names are the only texts of 64 characters.
const CONTENTS: &str = "
    WITH said (text) AS (SELECT manifest FROM snapshot UNION ALL SELECT edit FROM journal WHERE edit <> ''),
    named (hash) AS (SELECT atom FROM said, json_tree(said.text) AS value WHERE value.type = 'text' AND \
    length(atom) = 64)
    SELECT (SELECT count(*) FROM named WHERE hash NOT IN (SELECT hash FROM content)),
        (SELECT count(*) FROM content WHERE hash NOT IN (SELECT hash FROM named))";
const YEAR_NS: i64 = 31_536_000_000_000_000;
/// Simulated time in which everything must have arrived when nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(900);

/// Plays a seed. `show`: what happens is logged.
#[must_use]
pub fn run(seed: u64, show: bool) -> Outcome {
    let mut play = Play::new(seed, show);
    let rounds = if play.calm { 1 } else { play.dice.between(1, 4) };
    for _ in 0..rounds {
        play.round(false);
    }
    play.round(true);
    let Play { broker, press, cloud, valve, rules, record, in_order, drops, lossy, .. } = &play;
    let (in_order, drops, lossy, refused) = (*in_order, *drops, *lossy, play.refused);
    let longest = play.hardware.ran + play.hardware.off;
    let always_a_table = rules.table.was_always_there();
    Reckoning {
        broker,
        press,
        cloud,
        valve,
        record,
        in_order,
        drops,
        lossy,
        refused,
        longest,
        always_a_table,
    }
    .check();
    play.judge();
    let Play { broker, record, .. } = &play;
    Outcome {
        hash: record.hash(),
        wrong: record.all_wrong(),
        messages: broker.messages().len() as u64,
        power_cuts: play.power_cuts,
        writes: play.plc.attempts().len() as u64,
    }
}

/// What outlives the box.
struct Play {
    dice: Dice,
    record: Record,
    disk: Disk,
    broker: Broker,
    press: Press,
    valve: Valve,
    terms: Vec<Terms>,
    plc: Plc,
    person: Person,
    witness: Witness,
    /// how each start of the box went
    rounds: Vec<Round>,
    /// the one at hand
    round: Round,
    /// whether a time service has set the clock in it
    synchronised: Cell<bool>,
    cloud: Cloud,
    rules: RuleFiles,
    calm: bool,
    /// whether rows arrive in the order in which they were made
    in_order: bool,
    /// a full buffer drops its oldest rows, or all that are too old, and says so
    drops: bool,
    /// streams go on while the disk refuses
    goes_on: bool,
    /// the disk refused while streams went on
    lossy: bool,
    /// the disk refused
    refused: bool,
    /// what flowed in the round at hand
    status: Arc<Status>,
    hardware: Arc<Hardware>,
    power_cuts: u64,
    /// columns of `noise` that the box must not forget: it ended in order since it saw them, on a disk that
    /// did not fail
    kept: Columns,
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// in order
    Stopped,
    /// by a power cut, or so badly that the service manager kills what is left
    Cut,
}

impl Play {
    fn new(seed: u64, show: bool) -> Self {
        let dice = Dice::new(seed);
        let record = Record::new(show);
        let calm = dice.one_in(10);
        let drops = !calm && dice.one_in(6);
        let goes_on = drops && dice.one_in(2);
        let terms = Terms::draw(&dice.others());
        Self {
            disk: Disk::new(dice.others()),
            broker: Broker::new(usize::try_from(dice.between(1, 60)).unwrap_or(1)),
            press: Press::default(),
            valve: Valve::default(),
            plc: Plc::new(&terms),
            person: Person { dice: dice.others(), record: record.clone() },
            terms,
            witness: Witness::default(),
            rounds: Vec::new(),
            round: Round::default(),
            synchronised: Cell::default(),
            cloud: Cloud::default(),
            rules: RuleFiles::new(dice.others(), &record),
            calm,
            in_order: calm,
            drops,
            goes_on,
            lossy: false,
            refused: false,
            status: Arc::default(),
            hardware: Arc::default(),
            power_cuts: 0,
            kept: Columns::default(),
            dice,
            record,
        }
    }

    fn config(&self, last: bool) -> anyhow::Result<Config> {
        let dice = &self.dice;
        let number = |first, last| {
            NonZeroUsize::MIN.saturating_add(usize::try_from(dice.between(first, last)).unwrap_or(0))
        };
        let root = Path::new(self.disk.root());
        let mut config = config::parse(&config_of(&self.terms), "tidegate.toml", root).map_err(|wrong| {
            let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            anyhow::anyhow!(wrong.join("; "))
        })?;
        config.data_dir = root.join("data");
        config.rules.workers = number(0, 2);
        // It goes by the machine's time, of which there must be enough for every call.
        config.rules.time_limit = Span(Duration::from_secs(40));
        for stream in config.streams.values_mut() {
            if let Stream::Input(StreamConfig::Mqtt(kind)) = stream {
                kind.on_disk_failure = if self.goes_on { OnDiskFailure::GoOn } else { OnDiskFailure::Hold };
            }
        }
        let seconds = dice.between(1, 60);
        config.buffer = config::Buffer {
            queue: number(0, 60),
            // Now and then so few that they run out while the disk refuses.
            numbers: if dice.one_in(2) { 1 << 32 } else { dice.between(40, 2_000) },
            snapshot_every: Span(Duration::from_secs(seconds)),
            journal_size: ByteSize(dice.below(1 << 16)),
            journal_age: Span(Duration::from_secs(dice.below(100))),
            // With a small window of the broker the last round would take hours.
            commit_every: Span(Duration::from_millis(if last || dice.one_in(2) {
                0
            } else {
                dice.below(3_000)
            })),
            // Now and then the outbox is so small that it fills.
            max_size: ByteSize(if (self.drops || dice.one_in(4)) && !last { 2_500 } else { 1 << 30 }),
            ttl: (self.drops && dice.one_in(2) && !last)
                .then(|| Span(Duration::from_secs(dice.between(1, 60)))),
            when_full: if self.drops {
                tidegate_rules::WhenFull::DropOldest
            } else {
                tidegate_rules::WhenFull::Block
            },
            ..config::Buffer::at(self.database())
        };
        for uplink in config.uplinks.values_mut() {
            uplink.in_flight = number(0, 50);
            uplink.backlog_rate = if dice.one_in(3) {
                u32::try_from(dice.between(50, 500)).ok().and_then(std::num::NonZeroU32::new)
            } else {
                None
            };
        }
        for output in config.outputs.values_mut() {
            output.queue = number(0, 30);
            output.when_full = if dice.one_in(2) { WhenQueueFull::Block } else { WhenQueueFull::DropOldest };
        }
        Ok(config)
    }

    fn database(&self) -> PathBuf {
        Path::new(self.disk.root()).join("data/box.db")
    }

    fn conditions(&self, last: bool) -> Conditions {
        let calm = last || self.calm;
        let hour = Duration::from_secs(3_600);
        let weather = || Weather {
            lasts: if calm { hour } else { Duration::from_secs(self.dice.between(1, 30)) },
            away: if calm { Duration::ZERO } else { self.dice.delay(Duration::from_secs(20)) },
            calm,
        };
        Conditions {
            plant: weather(),
            cloud: weather(),
            calm,
            last,
            pause: if calm || self.dice.one_in(3) {
                Duration::ZERO
            } else {
                self.dice.delay(Duration::from_secs(2))
            },
            edits: (!calm && self.dice.one_in(2)).then(|| Duration::from_secs(self.dice.between(1, 10))),
        }
    }

    fn round(&mut self, last: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return self.record.wrong(format!("no runtime: {error}")),
        };
        let (end, took) = runtime.block_on(async {
            self.record.round();
            self.witness.round();
            let began = Instant::now();
            self.round.begins = SimulatedClock::new(&self.hardware).passed_ns();
            self.broker.speak();
            let end = self.live(last).await;
            self.broker.fall_silent();
            self.record.note(format_args!("the round ends: {end:?}"));
            (end, began.elapsed())
        });
        self.record.round_ended();
        let dropped = self.status.outbox.decisions_dropped.get();
        let refused = std::mem::take(&mut self.status).outbox.failures.get() > 0;
        self.refused |= refused;
        self.lossy |= self.goes_on && refused;
        let cut = end == End::Cut || (!last && self.dice.one_in(4));
        self.round.is_cut = cut;
        self.round.leaps |= self.synchronised.take();
        self.round.forgets = refused || dropped > 0;
        (self.round.b_is_active, self.round.b_was_touched) = self.rules.claims_the_pump();
        self.rounds.push(std::mem::take(&mut self.round));
        if cut {
            self.disk.cut_power();
        }
        let seen = self.broker.forget_box();
        self.press.forget_box();
        // Everything that was under way goes with the runtime.
        drop(runtime);
        match (self.disk.mend(), end) {
            (true, _) => self.kept = Columns::default(),
            (false, End::Stopped) if !seen.is_empty() => self.kept = seen,
            (false, _) => {}
        }
        if let Some(hardware) = Arc::get_mut(&mut self.hardware) {
            hardware.ran += took;
            if cut {
                // It comes back with the right time, with that of long ago, or with any.
                let years = i64::try_from(self.dice.below(80)).unwrap_or(0) - 40;
                let wrong_ns = if self.dice.one_in(2) { years * YEAR_NS } else { 0 };
                hardware.reboot(self.dice.delay(Duration::from_hours(12)), wrong_ns);
                self.round.rebooted = true;
                if self.dice.one_in(3) {
                    hardware.synchronise();
                    self.round.leaps = true;
                }
            }
        } else {
            self.record.wrong("something of the round is left".into());
        }
        if cut {
            self.disk.restore_power();
            self.power_cuts += 1;
            self.check_disk();
        }
        self.check_columns();
        if self.broker.has_acknowledgements() {
            self.rules.settle();
        }
        if !last && self.dice.one_in(3) {
            self.rules.edit_unseen();
        }
    }

    /// Whether what moves did what it should.
    fn judge(&self) {
        let decisions = match judge::decisions(&self.disk) {
            Ok(decisions) => decisions,
            Err(error) => return self.record.wrong(format!("decisions cannot be read: {error:#}")),
        };
        let Self { terms, plc, witness, rounds, record, .. } = self;
        Judge { terms, plc, witness, rounds, decisions: &decisions, record }.check();
    }

    async fn live(&mut self, last: bool) -> End {
        let conditions = self.conditions(last);
        self.round.pauses = !conditions.pause.is_zero();
        let config = match self.config(last) {
            Ok(config) => config,
            Err(error) => {
                self.record.wrong(error.to_string());
                return End::Cut;
            }
        };
        let clock = Arc::new(SimulatedClock::new(&self.hardware));
        let mut world = SimulatedWorld {
            clock: Arc::clone(&clock),
            disk: self.disk.clone(),
            broker: self.broker.clone(),
            press: self.press.clone(),
            valve: self.valve.clone(),
            plc: self.plc.clone(),
            witness: self.witness.clone(),
            cloud: self.cloud.clone(),
            rules: self.rules.clone(),
            conditions,
            dice: self.dice.others(),
            record: self.record.clone(),
        };
        if last {
            self.rules.mend();
        }
        // The place of the disk differs from run to run.
        let buffer = config::Buffer { path: PathBuf::new(), ..config.buffer.clone() };
        self.record
            .note(format_args!("a round begins: {conditions:?} {buffer:?} {} workers", config.rules.workers));
        if !conditions.calm && self.dice.one_in(2) {
            self.disk.light_fuse(self.dice.between(1, 1 << self.dice.between(1, 12)));
        }
        if !conditions.calm && self.dice.one_in(4) {
            self.disk.fail(self.faults());
        }
        let started = tokio::select! {
            biased;
            () = self.disk.power_cut() => return End::Cut,
            started = run::start(&config, &mut world) => started,
        };
        let running = match started {
            Ok(running) => running,
            Err(error) => {
                let error = error.to_string().replace(self.disk.root(), "");
                self.record.note(format_args!("the box does not start: {error}"));
                if last {
                    self.record.wrong(format!("the box does not start: {error}"));
                }
                return End::Cut;
            }
        };
        // Live rows overtake those that wait when the box starts.
        self.status = running.status();
        self.in_order &= self.status.outbox.waiting.get() == 0;
        let lives = Duration::from_millis(self.dice.below(60_000 >> self.dice.below(4)) + 1);
        tokio::select! {
            biased;
            () = self.disk.power_cut() => return End::Cut,
            () = running.failed() => {
                self.record.wrong("a part of the box has failed".into());
                return End::Cut;
            }
            () = self.happen(conditions, &running), if !last => {}
            () = self.drain(&running), if last => {}
            () = sleep(lives), if !last => {}
        }
        if !last && self.dice.one_in(2) {
            return End::Cut;
        }
        self.record.note(format_args!("the box is told to stop"));
        let stopped = tokio::select! {
            biased;
            () = self.disk.power_cut() => return End::Cut,
            stopped = running.stop() => stopped,
        };
        match stopped {
            Ok(()) => End::Stopped,
            Err(error) => {
                self.record.note(format_args!("the box did not end well: {error}"));
                if last {
                    self.record.wrong(format!("the box did not end well: {error}"));
                }
                End::Cut
            }
        }
    }

    fn faults(&self) -> Faults {
        let rate = || if self.dice.one_in(2) { self.dice.below(60) } else { 0 };
        Faults {
            reads: if self.dice.one_in(4) { rate() } else { 0 },
            writes: rate(),
            syncs: rate(),
            full: self.dice.one_in(5),
        }
    }

    /// Devices publish, clocks jump, disks fail and recover. Never ends.
    async fn happen(&self, conditions: Conditions, running: &Running) {
        // Now and then so much comes that the journal is cut.
        let most_ms = if self.dice.one_in(100) { 30 } else { 3_000 };
        let (pause_ms, burst) = (self.dice.between(20, most_ms), self.dice.between(1, 12));
        loop {
            sleep(Duration::from_millis(self.dice.between(1, 2 * pause_ms))).await;
            self.broker.publish(self.dice.below(burst + 1), self.dice.below(3));
            if self.dice.one_in(25) {
                self.person.interferes(&running.handles().control);
            }
            if conditions.calm {
                continue;
            }
            if self.dice.one_in(50) {
                let years = i64::try_from(self.dice.below(80)).unwrap_or(0) - 40;
                self.record.note(format_args!("the clock is {years} years off"));
                self.hardware.jump(years * YEAR_NS);
            }
            if self.dice.one_in(60) {
                self.record.note(format_args!("a time service sets the clock"));
                self.hardware.synchronise();
                self.synchronised.set(true);
            }
            if self.dice.one_in(30) {
                let faults = if self.dice.one_in(3) { self.faults() } else { Faults::default() };
                self.record.note(format_args!("the disk: {faults:?}"));
                self.disk.fail(faults);
            }
        }
    }

    /// Nothing goes wrong any more: everything gets where it belongs.
    async fn drain(&self, running: &Running) {
        self.broker.publish_end();
        self.press.rest();
        let status = running.status();
        let done = async {
            // The last rows have passed the rules when they are acknowledged, and are in the outbox soon
            // after.
            let mut quiet = 0;
            for turn in 0.. {
                if quiet == 30 {
                    return;
                }
                // What is latched is free again when a person says so, and interlocks are.
                if turn % 50 == 0 && !judge::has_arrived(&self.terms, &self.plc) {
                    self.person.frees(&running.handles().control);
                }
                sleep(Duration::from_millis(100)).await;
                let connected = status
                    .uplinks
                    .all()
                    .iter()
                    .all(|(_, uplink)| uplink.far_side.connected.load(Ordering::Relaxed));
                let all = self.broker.is_done()
                    && status.outbox.waiting.get() == 0
                    && connected
                    && judge::has_arrived(&self.terms, &self.plc);
                quiet = if all { quiet + 1 } else { 0 };
            }
        };
        if timeout(PATIENCE, done).await.is_err() {
            let (waiting, broker) = (status.outbox.waiting.get(), self.broker.is_done());
            if !judge::has_arrived(&self.terms, &self.plc) {
                let has: Vec<_> = plc::OUTPUTS.iter().map(|output| (output, self.plc.has(output))).collect();
                return self
                    .record
                    .wrong(format!("after {PATIENCE:?} outputs are not where they were to go: {has:?}"));
            }
            self.record.wrong(format!(
                "after {PATIENCE:?} {waiting} rows wait in the outbox; all messages \
                are acknowledged: {broker}"
            ));
        }
    }

    /// Inferred columns are kept, and their file is whole or not there.
    fn check_columns(&self) {
        let copy = self.disk.copy();
        if let Some(damaged) = copy.names().iter().find(|name| name.contains("damaged")) {
            self.record.wrong(format!("the columns of a stream were set aside: {damaged}"));
        }
        let file = copy.read(&Path::new(copy.root()).join("data/schemas/noise.json"));
        let wrong = match file {
            Ok(file) => self.kept.missing_in(&file),
            Err(error) => (!self.kept.is_empty()).then(|| format!("it is gone: {error}")),
        };
        if let Some(wrong) = wrong {
            self.record.wrong(format!("the columns of `noise`, kept in a file: {wrong}"));
        }
    }

    /// What a power cut has left is a sound database.
    fn check_disk(&self) {
        let copy = self.disk.copy();
        let names = copy.names();
        if let Some(corrupt) = names.iter().find(|name| name.contains("corrupt")) {
            self.record.wrong(format!("a database was set aside: {corrupt}"));
        }
        if !names.iter().any(|name| name == "data/box.db") {
            return;
        }
        let path = Path::new(copy.root()).join("data/box.db");
        let look = |conn: Connection| {
            let integrity: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            // Blocks of a rule follow each other, or a row would be there twice.
            let overlap = "SELECT count(*) FROM (SELECT first_seq, lag(last_seq) OVER (PARTITION BY rule \
                ORDER BY id) AS before FROM block)
                WHERE before >= first_seq";
            let overlaps: u64 = conn.query_row(overlap, [], |row| row.get(0))?;
            let (missing, unnamed) = conn.query_row(CONTENTS, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((integrity, overlaps, missing, unnamed))
        };
        match copy.database(&path).and_then(look) {
            Ok((integrity, 0, 0, 0)) if integrity == "ok" => {}
            Ok((integrity, overlaps, missing, unnamed)) => {
                let (missing, unnamed): (u64, u64) = (missing, unnamed);
                self.record.wrong(format!(
                    "the database: {integrity}; {overlaps} blocks hold rows that are in others, too; of sources \
                    and tables {missing} are named and missing, {unnamed} are there and not named"
                ));
            }
            // The power went before there was a table.
            Err(error) if error.to_string().contains("no such table") => {}
            Err(error) => self.record.wrong(format!("the database cannot be read: {error}")),
        }
    }
}
