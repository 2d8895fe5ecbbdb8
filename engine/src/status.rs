//! What flows and what rules did, as counters that anybody may read at any time.
//!
//! Writers only add to atomics and replace the last row; they never wait for a reader.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidegate_connectors::json::Encoder;
use tidegate_connectors::status::LineStatus;

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
}

/// One stream.
#[derive(Debug, Default)]
pub struct StreamStatus {
    /// rows that came
    pub rows: Counter,
    /// the newest row
    pub last: Last,
}

impl StreamStatus {
    /// Counts `rows`, and shows the last of them if anybody looks.
    pub fn note(&self, rows: &RecordBatch) {
        self.rows.add(rows.num_rows() as u64);
        self.last.show_last_row(rows, "");
    }
}

/// One rule.
#[derive(Debug, Default)]
pub struct RuleStatus {
    /// rows that the rule wrote, to any target
    pub rows: Counter,
    /// rows that came too late for their window
    pub late: Counter,
    /// groups, windows or rows that the rule has given up, since it kept more than it may
    pub forgotten: Counter,
    /// about how many bytes the rule keeps
    pub state_bytes: Counter,
    /// times that the rule failed on a batch
    pub errors: Counter,
    /// times that a new version took effect
    pub versions: Counter,
    /// the newest row that it wrote, or what is wrong with its newest version
    pub last: Last,
    /// whether the newest version of the file was refused
    pub refused: AtomicBool,
}

/// One output.
#[derive(Debug, Default)]
pub struct OutputStatus {
    /// rows that the far side confirmed
    pub written: Counter,
    /// rows that failed
    pub failed: Counter,
    /// rows that were dropped because the queue was full
    pub dropped: Counter,
    /// the newest row
    pub last: Last,
}

/// The buffer: outbox and journal.
#[derive(Debug, Default)]
pub struct OutboxStatus {
    /// commits since the start, of whatever they hold: with `durability = "full"` each of them waits for the disk
    pub commits: Counter,
    /// rows that wait on disk, for any uplink
    pub waiting: Counter,
    /// rows committed since the start
    pub committed: Counter,
    /// rows that the buffer dropped: it was full, they could not be stored, or the file was damaged; each leaves a gap record
    pub dropped: Counter,
}

/// One uplink and its forwarder.
#[derive(Debug, Default)]
pub struct UplinkStatus {
    /// rows confirmed since the start
    pub delivered: Counter,
    /// whether the far side is there
    pub connected: AtomicBool,
}

/// A number that only its writers change.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets the value, for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A short text about the newest thing that happened. Rows are rendered only when somebody watches: see [`Last::wanted`].
#[derive(Debug, Default)]
pub struct Last {
    text: Mutex<String>,
    wanted: AtomicBool,
}

impl Last {
    /// Whether a reader took the text since it was last replaced; rendering for nobody is skipped.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Shows the last of `rows` behind `label` (which may be empty), if a reader wants a newer text.
    pub fn show_last_row(&self, rows: &RecordBatch, label: &str) {
        if let Some(last) = rows.num_rows().checked_sub(1).filter(|_| self.wanted()) {
            let mut text = label.as_bytes().to_vec();
            if !text.is_empty() {
                text.push(b' ');
            }
            Encoder::new(rows.schema_ref()).encode_row(rows, last, &mut text);
            self.replace(String::from_utf8_lossy(&text).into_owned());
        }
    }

    /// Replaces the text.
    pub fn replace(&self, text: String) {
        self.wanted.store(false, Ordering::Relaxed);
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// The text; asks for a newer one.
    #[must_use]
    pub fn read(&self) -> String {
        self.wanted.store(true, Ordering::Relaxed);
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Statuses by name, made when first asked for.
#[derive(Debug)]
pub struct Named<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<T: Default> Named<T> {
    /// The status of `name`. Keep the `Arc`; do not ask on the hot path.
    #[must_use]
    pub fn of(&self, name: &str) -> Arc<T> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = map.get(name) {
            return Arc::clone(status);
        }
        Arc::clone(map.entry(name.to_owned()).or_default())
    }

    /// Forgets `name`.
    pub fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// All of them, in order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<T>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(name, status)| (name.clone(), Arc::clone(status))).collect()
    }
}
