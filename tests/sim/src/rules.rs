//! The rules directory with a reference table beside it, and somebody who edits both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate::rules::book::RuleBook;
use tidegate::rules::directory::{Request, RulesHandle};
use tidegate::sequence::edit::Edited;
use tidegate::world::Rules;
use tidegate_rules::{Language, Source};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::dice::Dice;
use crate::echo;
use crate::programs;
use crate::record::Record;
use crate::table::TableFile;

/// Sources by rule name, and what the table holds; they outlive the box.
#[derive(Clone)]
pub struct RuleFiles {
    /// the file of the table
    pub table: TableFile,
    sources: Arc<Mutex<BTreeMap<String, Source>>>,
    /// whether each rule has had a good version that will not be forgotten
    settled: Arc<AtomicBool>,
    /// whether [`PUMP_B`] was edited
    touched: Arc<AtomicBool>,
    dice: Dice,
    record: Record,
}

/// Rows one by one, with the factor that the table had for them and what time it was.
pub const STAMPED: &str = "stamped";
/// Windows that say the same once more: a row may have been sent before a crash, and its window after.
pub const STAMPED_WINDOWS: &str = "stamped_windows";

/// Length in seconds of the windows of [`WINDOWS`] and [`STAMPED_WINDOWS`].
pub const WINDOW_S: i64 = 10;
/// Length in seconds of the windows of [`COPIED_WINDOWS`].
pub const COPIED_WINDOW_S: i64 = 7;

/// Rows one by one.
pub const EACH: &str = "each";
/// Rows of some, one by one.
pub const SOME: &str = "some";
/// Windows over the input stream.
pub const WINDOWS: &str = "windows";
/// Windows over the derived stream.
pub const COPIED_WINDOWS: &str = "copied_windows";
/// Windows of a rule whose file changes its name; they are those of [`WINDOWS`], so that the two share them
/// for as long as they are on one worker.
pub const ROAMING: [&str; 2] = ["roaming_a", "roaming_b"];
/// Rows of a rule that comes and goes.
pub const SPARE: &str = "spare";
/// Rows of the stream without a journal.
pub const NOISE: &str = "noise_each";

/// What was polled, each with how many of its device there were before it, and the one before.
pub const POLLED: &str = "polled";

/// Rows of some, a while later.
pub const ECHOES: &str = "echoes";
/// The same, by a derived stream.
pub const ECHOED: &str = "echoed_rows";

/// Each row with how many of its device there were before it, and the one before: what remembers counts every
/// row once.
pub const RUNNING: &str = "running";
/// Rows of a device until it is silent for [`SILENCE_NS`].
pub const SESSIONS: &str = "sessions";
/// Two rows of a device of which the second comes up to [`PAIR_NS`] after the first.
pub const PAIRS: &str = "pairs";
/// Two neighbours of a device of which the second has the greater `v`.
pub const RISES: &str = "rises";
/// The same, of a rule for which time goes on when all devices are silent for [`IDLE_AFTER`].
pub const SILENT: &str = "silent";
/// Longer than most silences, and shorter than many times without a connection.
pub const IDLE_AFTER: Duration = Duration::from_secs(12);
/// What ends a session of [`SESSIONS`].
pub const SILENCE_NS: i64 = 500_000_000;
/// How far apart the rows of [`PAIRS`] are at most.
pub const PAIR_NS: i64 = 1_000_000_000;

/// Claims the pump.
pub const PUMP_A: &str = "pump_a";
/// Claims the pump, and is stronger. It comes and goes, and is in shadow at times.
pub const PUMP_B: &str = "pump_b";
/// Claims the pump by a derived stream, and is weaker.
pub const PUMP_C: &str = "pump_c";
/// Would claim the pump, and is in shadow.
pub const PUMP_SHADOW: &str = "pump_shadow";
/// Claims both directions of the drive.
pub const PAIR: &str = "pair";
/// Whose wishes are those of [`PUMP_A`], [`PUMP_B`] and [`PUMP_C`].
pub const WHO: [i64; 3] = [1, 2, 4];

/// The least `v` of [`SOME`] and [`ECHOES`].
pub const LEAST: i64 = 50;
/// The least `v` that moves the valve.
pub const VALVE: i64 = 90;

fn windows(stream: &str, seconds: i64, version: u64) -> String {
    // Each version has another threshold, and all of them let everything pass: results do not depend on when
    // the text was changed.
    format!(
        "--! lateness = \"2s\"\nINSERT INTO uplink SELECT device, window_start AS beginning, count(*) AS \
        rows, sum(n) AS total, min(v) AS low, max(v) AS high FROM TUMBLE({stream}, DESCRIPTOR(ts), INTERVAL \
        '{seconds}' SECOND) GROUP BY window_start, window_end, device HAVING count(*) > -{version}"
    )
}

/// What [`STAMPED`] and [`STAMPED_WINDOWS`] read.
const STAMPS: &str = "CREATE VIEW stamped AS SELECT t.ts, t.n, t.device, f.factor, CAST(now() AS BIGINT) AS \
    seen FROM tank t JOIN factors f ON f.device = t.device";

/// A version of a rule.
fn source(rule: &str, version: u64) -> Source {
    programs::source(rule, version).unwrap_or_else(|| Source::new(Language::Sql, text(rule, version)))
}

/// The same, writing nothing.
fn in_shadow(source: &Source) -> Source {
    let text = source.text("").unwrap_or_default();
    Source::new(Language::Sql, format!("{SHADOW}\n{text}"))
}

/// What a rule says that writes nothing.
const SHADOW: &str = "--! mode = \"shadow\"";

fn is_shadow(source: &Source) -> bool {
    source.text("").is_ok_and(|text| text.contains(SHADOW))
}

/// The hashes of all versions of a rule that may move something.
#[must_use]
pub fn versions(rule: &str) -> Vec<Arc<str>> {
    (0..=5)
        .map(|version| source(rule, version))
        .filter(|source| !is_shadow(source))
        .map(|source| Arc::clone(source.sha256()))
        .collect()
}

/// A version of a rule that is none.
fn wrong(rule: &str, version: u64) -> Source {
    programs::wrong(rule, version)
        .unwrap_or_else(|| Source::new(Language::Sql, format!("SELECT nothing FROM nowhere -- {version}")))
}

/// A version of a rule in SQL.
fn text(rule: &str, version: u64) -> String {
    match rule {
        EACH => format!("-- version {version}\nINSERT INTO uplink SELECT n, device, v FROM tank"),
        SOME => format!("-- version {version}\nINSERT INTO uplink SELECT n, v FROM tank WHERE v >= {LEAST}"),
        WINDOWS | "roaming_a" | "roaming_b" => windows("tank", WINDOW_S, version + 1),
        COPIED_WINDOWS => windows("copied", COPIED_WINDOW_S, version + 1),
        "copies" => format!("-- version {version}\nINSERT INTO copied SELECT ts, device, n, v FROM tank"),
        "valve" => {
            format!("-- version {version}\nINSERT INTO valve SELECT n, v FROM tank WHERE v >= {VALVE}")
        }
        RUNNING => format!(
            "-- version {version}\nINSERT INTO uplink SELECT n, device, count(*) OVER w AS seen, lag(n) \
            OVER w AS before FROM tank WINDOW w AS (PARTITION BY device)"
        ),
        POLLED => format!(
            "-- version {version}\nINSERT INTO uplink SELECT n, device, v, quality, fault, count(*) OVER w AS \
            seen, lag(n) OVER w AS before FROM level WINDOW w AS (PARTITION BY device)"
        ),
        SILENT => {
            format!("--! idle_after = \"{}s\"\n{}", IDLE_AFTER.as_secs(), self::text(SESSIONS, version))
        }
        SESSIONS => format!(
            "--! lateness = \"2s\"\nINSERT INTO uplink SELECT device, min(n) AS first, max(n) AS last, \
            count(*) AS rows, sum(n) AS total FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), \
            INTERVAL '{SILENCE_NS}' NANOSECOND) GROUP BY window_start, window_end, device HAVING count(*) > \
            -{version}"
        ),
        PAIRS => format!(
            "--! lateness = \"2s\"\n-- version {version}\nINSERT INTO uplink SELECT a.n AS n, b.n AS m FROM \
            tank AS a JOIN tank AS b ON a.device = b.device AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL \
            '{PAIR_NS}' NANOSECOND WHERE a.v >= {LEAST} AND b.v >= {LEAST}"
        ),
        RISES => format!(
            "--! lateness = \"2s\"\n-- version {version}\nINSERT INTO uplink SELECT n, m FROM tank \
            MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts MEASURES a.n AS n, b.n AS m AFTER MATCH SKIP \
            TO NEXT ROW PATTERN (a b) DEFINE b AS b.v > a.v)"
        ),
        STAMPED => {
            format!("-- version {version}\n{STAMPS}; INSERT INTO uplink SELECT n, factor, seen FROM stamped")
        }
        STAMPED_WINDOWS => format!(
            "--! lateness = \"2s\"\n-- version {version}\n{STAMPS}; INSERT INTO uplink SELECT device, \
            window_start AS beginning, sum(n) AS total, sum(n * factor) AS weighted, min(seen) AS first, \
            max(seen) AS last FROM TUMBLE(stamped, DESCRIPTOR(ts), INTERVAL '{WINDOW_S}' SECOND) GROUP BY \
            window_start, window_end, device"
        ),
        PUMP_A => format!("-- version {version}\nINSERT INTO pump SELECT run, speed FROM wish WHERE who = 1"),
        PUMP_B => format!(
            "--! rank = 4\n-- version {version}\nINSERT INTO pump SELECT run, speed FROM wish WHERE who = 2"
        ),
        "wishes" => {
            format!("-- version {version}\nINSERT INTO wished SELECT ts, run, speed FROM wish WHERE who = 4")
        }
        PUMP_C => {
            format!("--! rank = 12\n-- version {version}\nINSERT INTO pump SELECT run, speed FROM wished")
        }
        PUMP_SHADOW => format!(
            "--! rank = 1\n--! mode = \"shadow\"\n-- version {version}\nINSERT INTO pump SELECT run, speed \
            FROM wish"
        ),
        PAIR => format!(
            "-- version {version}\nINSERT INTO forward SELECT fwd AS run FROM guard; INSERT INTO reverse \
            SELECT rev AS run FROM guard"
        ),
        ECHOES => echo::text(version),
        ECHOED => format!("-- version {version}\nINSERT INTO uplink SELECT n, waited FROM echoed"),
        NOISE => format!("-- version {version}\nINSERT INTO uplink SELECT n, v FROM noise"),
        _ => format!("-- version {version}\nINSERT INTO uplink SELECT n FROM tank WHERE v < 20"),
    }
}

const STEADY: [&str; 26] = [
    POLLED,
    EACH,
    SOME,
    WINDOWS,
    "copies",
    COPIED_WINDOWS,
    "valve",
    PUMP_A,
    "wishes",
    PUMP_C,
    PUMP_SHADOW,
    PAIR,
    NOISE,
    ECHOES,
    ECHOED,
    RUNNING,
    SESSIONS,
    SILENT,
    PAIRS,
    RISES,
    STAMPED,
    STAMPED_WINDOWS,
    programs::SCRIPT_RUNNING,
    programs::SCRIPT_ECHOES,
    programs::PLUGIN_RUNNING,
    programs::PLUGIN_ECHOES,
];

impl RuleFiles {
    /// The directory as it is first.
    #[must_use]
    pub fn new(dice: Dice, record: &Record) -> Self {
        let names = STEADY.iter().chain(&ROAMING[..1]).chain([&PUMP_B]);
        let sources = names.map(|name| ((*name).to_owned(), source(name, 0))).collect();
        Self {
            table: TableFile::default(),
            sources: Arc::new(Mutex::new(sources)),
            settled: Arc::default(),
            touched: Arc::default(),
            dice,
            record: record.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first rules are in the journal: they come before the first message, and that was acknowledged.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Whether [`PUMP_B`] claims the pump, and whether it was edited since this was asked last.
    #[must_use]
    pub fn claims_the_pump(&self) -> (bool, bool) {
        let is_active = self.lock().get(PUMP_B).is_some_and(|source| !is_shadow(source));
        (is_active, self.touched.swap(false, Ordering::Relaxed))
    }

    /// Somebody edits the directory. Returns what changed.
    fn edit(&self) -> Vec<Change> {
        let version = self.dice.between(1, 5);
        let mut sources = self.lock();
        let changes = match self.dice.below(10) {
            0 => {
                let spare = sources.contains_key(SPARE);
                vec![if spare {
                    Change::Remove(SPARE)
                } else {
                    Change::Put(SPARE, source(SPARE, version), SPARE)
                }]
            }
            1 => {
                let [a, b] = ROAMING;
                let (from, to) = if sources.contains_key(a) { (a, b) } else { (b, a) };
                let Some(same) = sources.get(from).cloned() else { return Vec::new() };
                vec![Change::Put(to, same, from), Change::Remove(from)]
            }
            9 => {
                self.touched.store(true, Ordering::Relaxed);
                vec![match self.dice.below(3) {
                    0 => Change::Remove(PUMP_B),
                    1 => Change::Put(PUMP_B, in_shadow(&source(PUMP_B, version)), PUMP_B),
                    _ => Change::Put(PUMP_B, source(PUMP_B, version), PUMP_B),
                }]
            }
            8 => {
                self.table.edit();
                vec![Change::Table]
            }
            // The version before stays in force, if there was one.
            2 if self.settled.load(Ordering::Relaxed) => {
                let Some(name) = self.dice.pick(&STEADY) else { return Vec::new() };
                vec![Change::Put(name, wrong(name, version), name)]
            }
            _ => {
                let Some(name) = self.dice.pick(&STEADY) else { return Vec::new() };
                vec![Change::Put(name, source(name, version), name)]
            }
        };
        for change in &changes {
            match change {
                Change::Put(name, source, _) => drop(sources.insert((*name).to_owned(), source.clone())),
                Change::Remove(name) => drop(sources.remove(*name)),
                Change::Table => {}
            }
        }
        changes
    }

    /// Rules are edited while the box is down.
    pub fn edit_unseen(&self) {
        for _ in 0..self.dice.below(4) {
            self.edit();
        }
    }

    /// All that is wrong is put right.
    pub fn mend(&self) {
        let mut sources = self.lock();
        for name in STEADY.into_iter().chain([PUMP_B]) {
            sources.insert(name.to_owned(), source(name, 0));
        }
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Owns the rule book of a box, as the rules directory does; `every` so often, about, somebody edits.
    #[must_use]
    pub fn watch(&self, book: RuleBook, every: Option<Duration>) -> Rules {
        let (handle, requests) = RulesHandle::new();
        let watcher = Watcher { files: self.clone(), book, every, requests };
        Rules { handle, run: Box::new(|changes, loaded| Box::pin(watcher.run(changes, loaded))) }
    }
}

enum Change {
    /// name, source, and the rule whose state it takes over
    Put(&'static str, Source, &'static str),
    Remove(&'static str),
    /// the table's file has another content
    Table,
}

struct Watcher {
    files: RuleFiles,
    book: RuleBook,
    every: Option<Duration>,
    requests: mpsc::Receiver<Request>,
}

impl Watcher {
    async fn run(mut self, changes: mpsc::Sender<Edited>, loaded: oneshot::Sender<()>) {
        if !send(&changes, self.look()).await {
            return;
        }
        // Whoever waited may have been stopped meanwhile.
        let _ = loaded.send(());
        let mut edit_at = self.next_edit();
        loop {
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(Request::ColumnsChanged { stream, schema, reply }) => drop(reply.send(self.book.columns_changed(&stream, &schema))),
                    Some(Request::Look) => {}
                    Some(Request::Stop) | None => return,
                },
                () = sleep_until(edit_at.unwrap_or_else(Instant::now)), if edit_at.is_some() => {
                    let edited = self.files.edit().into_iter().filter_map(|change| self.take(change)).collect();
                    if !send(&changes, edited).await {
                        return;
                    }
                    edit_at = self.next_edit();
                }
            }
        }
    }

    fn next_edit(&self) -> Option<Instant> {
        let most = u64::try_from(self.every?.as_millis()).unwrap_or(u64::MAX);
        Some(Instant::now() + Duration::from_millis(self.files.dice.between(1, 2 * most)))
    }

    fn take(&mut self, change: Change) -> Option<Edited> {
        let edited = match &change {
            Change::Put(name, source, inherits) => {
                self.book.put(&Arc::from(*name), name, source, &Arc::from(*inherits))
            }
            Change::Remove(name) => self.book.remove(name),
            Change::Table => self.files.table.read(&mut self.book)?,
        };
        self.files.record.note(format_args!("rules: {:?}", edited.edit));
        Some(edited)
    }

    /// What is new since the box before: as `RulesDir` finds it.
    fn look(&mut self) -> Vec<Edited> {
        let known: BTreeMap<String, Source> = self
            .book
            .sources()
            .filter_map(|(name, source)| Some((name.to_string(), source?.clone())))
            .collect();
        let sources = self.files.lock().clone();
        let mut gone: Vec<&String> = known.keys().filter(|name| !sources.contains_key(*name)).collect();
        let mut edited: Vec<Edited> = self.files.table.read(&mut self.book).into_iter().collect();
        for (name, source) in sources.iter().filter(|(name, source)| known.get(*name) != Some(source)) {
            let renamed =
                gone.iter().position(|old| !known.contains_key(name) && known.get(*old) == Some(source));
            let from = renamed.map(|at| gone.remove(at));
            let inherits = from.unwrap_or(name);
            edited.push(self.book.put(
                &Arc::from(name.as_str()),
                name,
                source,
                &Arc::from(inherits.as_str()),
            ));
            edited.extend(from.map(|from| self.book.remove(from)));
        }
        edited.extend(gone.into_iter().map(|name| self.book.remove(name)));
        for one in &edited {
            self.files.record.note(format_args!("rules: found {:?}", one.edit));
        }
        edited
    }
}

async fn send(to: &mpsc::Sender<Edited>, changes: Vec<Edited>) -> bool {
    for change in changes.into_iter().filter(|change| change.edit.is_some() || !change.changes.is_empty()) {
        if to.send(change).await.is_err() {
            return false;
        }
    }
    true
}
