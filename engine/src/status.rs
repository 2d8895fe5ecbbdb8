//! What flows and what rules did, as counters that anybody may read at any time.
//!
//! Writers only add to atomics and replace the newest row; they never wait for a reader.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{max, take};
use arrow::datatypes::TimestampNanosecondType;
use tidegate_connectors::codec::Encoder;
use tidegate_connectors::status::{FarSideStatus, Intake, LineStatus};
pub use tidegate_core::status::{Counter, Named, Newest};
use tidegate_core::{Rows, TS};
use tidegate_rules::Mode;

use crate::config::Values;
use crate::decision::Origin;
use crate::tap::{Passed, Tap};

/// Everything about one running box.
#[derive(Debug, Default)]
pub struct Status {
    /// by stream name
    pub streams: Named<StreamStatus>,
    /// by rule name
    pub rules: Named<RuleStatus>,
    /// by output name
    pub outputs: Named<OutputStatus>,
    /// by connection name
    pub connections: Named<LineStatus>,
    /// the outbox, and the file that it lies in with the journal
    pub outbox: Arc<OutboxStatus>,
    /// by uplink name
    pub uplinks: Named<UplinkStatus>,
    /// what is wrong with the rules directory and the files of reference tables, a sentence each
    pub files: Newest<Vec<String>>,
}

/// What was counted besides the rows themselves, by what it is. Names are part of the protocol: they stay.
pub type Counts = Vec<(&'static str, u64)>;

impl Status {
    /// Whether the box waits for room because its configuration says so. It is not hung then.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.outbox.held.get() > 0 || self.outputs.all().iter().any(|(_, output)| output.held.get() > 0)
    }
}

/// One stream.
#[derive(Debug, Default)]
pub struct StreamStatus {
    /// rows that came
    pub rows: Counter,
    /// rows that the journal does not have, since the disk did not take them: a crash loses what they did to
    /// the rules' state
    pub unjournaled: Counter,
    /// rows of a derived stream that did not reach its readers, and what was not told in a stream of the box
    pub lost: Counter,
    /// the newest row
    pub last: LastRow,
    /// the greatest event time so far, in nanoseconds since 1970
    pub watermark: Watermark,
    /// shows rows as they come
    pub tap: Tap,
    /// what its connection did not take as it came
    pub intake: Arc<Intake>,
}

impl StreamStatus {
    /// Counts `rows`, which came at `wall_ns`, nanoseconds since 1970.
    pub fn note(&self, rows: &Rows, wall_ns: i64) {
        self.rows.add(rows.len() as u64);
        self.last.note(&rows.batch, "");
        self.watermark.note(&rows.batch);
        self.tap.show(|| Passed { rows: rows.clone(), wall_ns, rule: None, target: None, failures: None });
    }

    /// What was counted besides rows.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Self { unjournaled, lost, intake, rows: _, last: _, watermark: _, tap: _ } = self;
        let mut counts = intake.counts();
        counts.extend([("unjournaled", unjournaled.get()), ("lost", lost.get())]);
        counts
    }
}

/// One rule.
#[derive(Debug, Default)]
pub struct RuleStatus {
    /// rows that the rule wrote, to any target; in shadow mode, those that it would have written
    pub rows: Counter,
    /// rows that came too late for their window
    pub late: Counter,
    /// groups, windows or rows that the rule has given up, since it kept more than it may
    pub forgotten: Counter,
    /// rows further ahead of time than `max_ahead` says; they did not move it on
    pub ahead: Counter,
    /// about how many bytes the rule keeps
    pub state_bytes: Counter,
    /// rows that could not be evaluated and are left out
    pub left_out: Counter,
    /// times that a version took effect
    pub versions: Counter,
    /// the version that runs
    pub running: Newest<Version>,
    /// the newest row that it wrote
    pub last: LastRow,
    /// why rows were left out, for the newest of them
    pub last_error: Newest<String>,
    /// what is wrong with the newest text of the file, if it was refused
    pub refused: Newest<String>,
    /// streams without known columns, and tables without a file, that its newest text waits for
    pub waits_for: Newest<String>,
    /// why the version that ran was stopped
    pub stopped: Newest<String>,
    /// shows rows as it writes them
    pub tap: Tap,
}

impl RuleStatus {
    /// What was counted besides rows.
    #[must_use]
    pub fn counts(&self) -> Counts {
        // Without `..`, so that nothing is counted that nobody sees.
        let Self {
            late,
            left_out,
            forgotten,
            ahead,
            rows: _,
            state_bytes: _,
            versions: _,
            running: _,
            last: _,
            last_error: _,
            refused: _,
            waits_for: _,
            stopped: _,
            tap: _,
        } = self;
        vec![
            ("late", late.get()),
            ("left_out", left_out.get()),
            ("forgotten", forgotten.get()),
            ("ahead", ahead.get()),
        ]
    }
}

/// A version of a rule that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// counts those of this process, from 1
    pub number: u64,
    /// the text's SHA-256, in hexadecimal digits
    pub hash: Arc<str>,
    /// whether it writes
    pub mode: Mode,
}

/// One output.
#[derive(Debug, Default)]
pub struct OutputStatus {
    /// rows that the far side confirmed
    pub written: Counter,
    /// rows that failed
    pub failed: Counter,
    /// how many of the newest rows failed: none, if the newest one was written
    pub failing: Counter,
    /// rows that were dropped because the queue was full
    pub dropped: Counter,
    /// rows that were not written because newer ones for the same points waited
    pub superseded: Counter,
    /// rules that wait for room in the queue now (`when_full = "block"`), and hold up all that comes behind
    /// them
    pub held: Counter,
    /// the newest row
    pub last: LastRow,
    /// why rows failed, for the newest of them
    pub last_error: Newest<String>,
    /// shows rows when the far side has answered
    pub tap: Tap,
    /// where it is, if it has a contract
    pub states: OutputStates,
}

/// Where an output with a contract is: all that it moves, by the names of instances (empty where there is
/// one).
#[derive(Debug, Default)]
pub struct OutputStates(Mutex<BTreeMap<Arc<str>, OutputState>>);

/// Where one of those is that an output moves. Times are the sequence's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OutputState {
    /// what was sent
    pub values: Values,
    /// whether the device is known to have it
    pub confirmed: bool,
    /// whose will it is; none: nothing was sent
    pub by: Option<Origin>,
    /// since when
    pub since_ns: i64,
    /// all that, in words for people
    pub sentence: String,
    /// the same, for a narrow screen; empty: nothing was sent
    pub brief: String,
    /// interlocks that have tripped, with why, in words for people
    pub interlocks: Vec<String>,
    /// what a person wants
    pub overridden: Option<OverrideState>,
}

/// What a person wants of an output.
#[derive(Debug, Clone, PartialEq)]
pub struct OverrideState {
    /// who
    pub who: Arc<str>,
    /// why
    pub reason: Arc<str>,
    /// what
    pub values: Values,
    /// until when
    pub until_ns: i64,
}

impl OutputStates {
    /// Where `instance` is now.
    pub fn note(&self, instance: &Arc<str>, state: OutputState) {
        self.lock().insert(Arc::clone(instance), state);
    }

    /// How many of them a person has overridden.
    #[must_use]
    pub fn overridden(&self) -> usize {
        self.lock().values().filter(|state| state.overridden.is_some()).count()
    }

    /// How many of them an interlock has tripped.
    #[must_use]
    pub fn tripped(&self) -> usize {
        self.lock().values().filter(|state| !state.interlocks.is_empty()).count()
    }

    /// What the one does that has changed last, in a few words.
    #[must_use]
    pub fn newest(&self) -> Option<String> {
        let states = self.lock();
        let sent = states.iter().filter(|(_, state)| !state.brief.is_empty());
        let (instance, state) = sent.max_by_key(|(_, state)| state.since_ns)?;
        let of = if instance.is_empty() { String::new() } else { format!("{instance}: ") };
        Some(format!("{of}{}", state.brief))
    }

    /// All of them, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, OutputState)> {
        self.lock().iter().map(|(instance, state)| (Arc::clone(instance), state.clone())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, OutputState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutputStatus {
    /// What was counted besides written rows.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Self {
            failed,
            dropped,
            superseded,
            failing: _,
            held: _,
            written: _,
            last: _,
            last_error: _,
            tap: _,
            states: _,
        } = self;
        vec![("failed", failed.get()), ("dropped", dropped.get()), ("superseded", superseded.get())]
    }
}

/// The buffer: outbox and journal.
#[derive(Debug, Default)]
pub struct OutboxStatus {
    /// commits since the start, of whatever they hold: with `durability = "full"` each of them waits for the
    /// disk
    pub commits: Counter,
    /// rows that wait on disk, for any uplink
    pub waiting: Counter,
    /// rows committed since the start
    pub committed: Counter,
    /// rows that the buffer dropped: it was full, they could not be stored, or the file was damaged; each
    /// leaves a gap record
    pub dropped: Counter,
    /// 1: rows wait for room, and hold up all that comes behind them
    pub held: Counter,
    /// what the rows that wait take
    pub bytes: Counter,
    /// what the journal takes
    pub journal_bytes: Counter,
    /// what decisions about outputs take
    pub decision_bytes: Counter,
    /// decisions that the disk did not take
    pub decisions_dropped: Counter,
    /// commits that noted gaps
    pub gaps: Counter,
    /// commits that failed
    pub failures: Counter,
    /// whether the last one did
    pub refused: AtomicBool,
    /// whether nothing of the sequence is stored until there is a snapshot
    pub broken_off: AtomicBool,
}

impl OutboxStatus {
    /// What was counted besides waiting rows and commits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Self {
            dropped,
            failures,
            decisions_dropped,
            held: _,
            committed: _,
            commits: _,
            waiting: _,
            bytes: _,
            journal_bytes: _,
            ..
        } = self;
        vec![
            ("dropped", dropped.get()),
            ("failed_commits", failures.get()),
            ("dropped_decisions", decisions_dropped.get()),
        ]
    }
}

/// One uplink and its forwarder.
#[derive(Debug, Default)]
pub struct UplinkStatus {
    /// rows confirmed since the start
    pub delivered: Counter,
    /// rows that the far side refused for good; they were put aside
    pub refused: Counter,
    /// rows among them since the last one was confirmed
    pub refusing: Counter,
    /// whether the far side is there, and why it took no rows
    pub far_side: Arc<FarSideStatus>,
}

impl UplinkStatus {
    /// What was counted besides delivered rows.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Self { refused, refusing: _, delivered: _, far_side: _ } = self;
        vec![("refused", refused.get())]
    }
}

/// The newest row of many, kept as it is: it becomes text only when somebody looks.
#[derive(Debug, Default)]
pub struct LastRow(Mutex<Option<Row>>);

#[derive(Debug, Clone)]
struct Row {
    at: Instant,
    /// what stands before the row, such as its target; may be empty
    label: Arc<str>,
    /// the row is the last one of these
    rows: RecordBatch,
}

impl LastRow {
    /// More rows than this are not held for the sake of one: it is copied.
    const HELD: usize = 64;

    /// Notes the last of `rows`, with what stands before it.
    pub fn note(&self, rows: &RecordBatch, label: &str) {
        let Some(last) = rows.num_rows().checked_sub(1) else { return };
        let copied = || {
            let index = UInt32Array::from_value(u32::try_from(last).ok()?, 1);
            let columns = rows.columns().iter().map(|column| take(column, &index, None));
            RecordBatch::try_new(rows.schema(), columns.collect::<Result<Vec<ArrayRef>, _>>().ok()?).ok()
        };
        let kept = if last < Self::HELD { Some(rows.clone()) } else { copied() };
        if let Some(rows) = kept {
            *self.lock() = Some(Row { at: Instant::now(), label: Arc::from(label), rows });
        }
    }

    /// How long ago the newest row came, and its text.
    #[must_use]
    pub fn read(&self) -> Option<(Duration, String)> {
        let Row { at, label, rows } = self.lock().clone()?;
        let mut text = label.as_bytes().to_vec();
        if !text.is_empty() {
            text.push(b' ');
        }
        Encoder::new(rows.schema_ref()).encode_row(&rows, rows.num_rows().checked_sub(1)?, &mut text);
        Some((at.elapsed(), String::from_utf8_lossy(&text).into_owned()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The greatest event time of rows so far.
#[derive(Debug, Default)]
pub struct Watermark(Mutex<Option<i64>>);

impl Watermark {
    fn note(&self, rows: &RecordBatch) {
        let ts = rows.column_by_name(TS).and_then(|ts| ts.as_primitive_opt::<TimestampNanosecondType>());
        if let Some(greatest) = ts.and_then(max) {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *known = (*known).max(Some(greatest));
        }
    }

    /// In nanoseconds since 1970; none: no row had one.
    #[must_use]
    pub fn get(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
