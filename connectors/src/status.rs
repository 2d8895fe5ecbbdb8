//! What a connection did, as counters that anybody may read at any time. They belong to the process, not to
//! the session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use tidegate_core::status::Counter;
use tidegate_core::status::Newest;
use tokio::sync::watch;

/// One connection.
#[derive(Debug, Default)]
pub struct LineStatus {
    /// whether the line is up; change it with [`LineStatus::is_up`] and [`LineStatus::is_down`]
    pub connected: AtomicBool,
    /// messages, answers or frames taken in
    pub messages: Counter,
    /// rows made of them
    pub rows: Counter,
    /// what could not be decoded, or is too large; it is lost
    pub malformed: Counter,
    /// values that did not fit their column, and are null
    pub wrong_type: Counter,
    /// what was dropped because the engine did not take it in time, or belongs to no stream
    pub dropped: Counter,
    /// times that the line was opened again after it had been up
    pub reconnects: Counter,
    /// times that the far side closed the line after it had accepted it
    pub hang_ups: Counter,
    /// requests that were not answered in time
    pub timeouts: Counter,
    /// requests that a device refused
    pub refusals: Counter,
    /// what the protocol counts besides, by what it is; they stay when the line is opened anew
    own: Named,
    /// what it shows besides
    gauges: Named,
    /// the devices that are left alone now, because they do not answer
    parked: Newest<Vec<String>>,
    /// counts what [`LineStatus::changes`] tells of
    changes: watch::Sender<u64>,
    /// since when the line is up, or has been down
    changed: Newest<()>,
    /// why the line is down, or of no use although it is up
    trouble: Newest<String>,
    /// kept when the line comes back
    last_error: Newest<String>,
    /// how long the pause before the next attempt is, which began then
    pause: Newest<Duration>,
}

/// What a stream did not take as it came.
#[derive(Debug, Default)]
pub struct Intake {
    /// messages that could not be decoded; they are lost
    pub malformed: Counter,
    /// rows without the time that the stream declares: left out or, with `ts_missing = "arrival"`, given the
    /// time of arrival
    pub untimed: Counter,
    /// values that did not fit their column, and are null
    pub misfits: Counter,
    /// elements of arrays of rows that are no objects; they are lost, and the others are not
    pub malformed_rows: Counter,
    /// values for whose keys there was no inferred column left
    pub not_taken: Counter,
    /// declared columns in which no row has had a value so far
    pub unseen: Newest<String>,
}

/// Whether the far side of an uplink is there.
#[derive(Debug, Default)]
pub struct FarSideStatus {
    /// whether it is
    pub connected: AtomicBool,
    /// why rows were not taken, for the newest of them
    pub last_error: Newest<String>,
}

impl Intake {
    /// What was counted, by what it is. Names are part of the protocol: they stay.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let Self { malformed, untimed, misfits, malformed_rows, not_taken, unseen: _ } = self;
        vec![
            ("malformed", malformed.get()),
            ("malformed_rows", malformed_rows.get()),
            ("without_time", untimed.get()),
            ("wrong_type", misfits.get()),
            ("not_taken", not_taken.get()),
        ]
    }
}

impl LineStatus {
    /// What the protocol counts under this name. Names are part of the protocol of `tidegate status`: they
    /// stay.
    #[must_use]
    pub fn counter(&self, name: &'static str) -> Arc<Counter> {
        find(&self.own, name)
    }

    /// What the protocol shows under this name: how many there are now.
    #[must_use]
    pub fn gauge(&self, name: &'static str) -> Arc<Counter> {
        find(&self.gauges, name)
    }

    /// What was counted besides messages and rows, by what it is. Names are part of the protocol: they stay.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let mut counts = vec![
            ("malformed", self.malformed.get()),
            ("wrong_type", self.wrong_type.get()),
            ("dropped", self.dropped.get()),
            ("reconnects", self.reconnects.get()),
            ("hang_ups", self.hang_ups.get()),
            ("timeouts", self.timeouts.get()),
            ("refusals", self.refusals.get()),
        ];
        counts.extend(values(&self.own));
        counts
    }

    /// How many there are now, by what it is.
    #[must_use]
    pub fn gauges(&self) -> Vec<(&'static str, u64)> {
        values(&self.gauges)
    }

    /// One of [`LineStatus::counts`] and [`LineStatus::gauges`]; 0 where nothing counts it.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts()
            .into_iter()
            .chain(self.gauges())
            .find(|(known, _)| *known == name)
            .map_or(0, |(_, count)| count)
    }

    /// Whether the line is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Why the line is down, or of no use although it is up, in words.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.get().map(|(_, reason)| reason)
    }

    /// Why the line was down last, and how long ago it was tried then.
    #[must_use]
    pub fn last_error(&self) -> Option<(Duration, String)> {
        self.last_error.get()
    }

    /// How long the line has been up or down; none: it was never tried.
    #[must_use]
    pub fn changed(&self) -> Option<Duration> {
        self.changed.get().map(|(ago, ())| ago)
    }

    /// When the line is tried again; none: it is up, or being tried now.
    #[must_use]
    pub fn next_attempt(&self) -> Option<Duration> {
        let (since, pause) = self.pause.get()?;
        pause.checked_sub(since)
    }

    /// The devices that are left alone now, because they do not answer: `unit 3`.
    #[must_use]
    pub fn parked(&self) -> Vec<String> {
        self.parked.get().map(|(_, devices)| devices).unwrap_or_default()
    }

    /// These devices are left alone from now on, and no others.
    pub fn leaves_alone(&self, devices: Vec<String>) {
        if self.parked() != devices {
            self.parked.note(devices);
            self.tell();
        }
    }

    /// What went wrong on the line: requests without an answer or refused, and what came and could not be
    /// read.
    #[must_use]
    pub fn errors(&self) -> u64 {
        [&self.timeouts, &self.refusals, &self.malformed, &self.hang_ups].iter().map(|of| of.get()).sum()
    }

    /// Changes when the line comes up or goes down, fails or suffers for another reason, or leaves other devices alone.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// The line is tried again after `pause`.
    pub fn waits(&self, pause: Duration) {
        self.pause.note(pause);
    }

    /// The line has come up.
    pub fn is_up(&self) {
        self.pause.clear();
        self.trouble.clear();
        if !self.connected.swap(true, Ordering::Relaxed) {
            self.changed.note(());
        }
        self.tell();
    }

    /// The line is up, and of no use; none: it is again.
    pub fn suffers(&self, trouble: Option<String>) {
        match trouble {
            Some(trouble) => {
                self.trouble.note(trouble.clone());
                self.last_error.note(trouble);
            }
            None => self.trouble.clear(),
        }
        self.tell();
    }

    /// The line has gone down, or another attempt has failed.
    pub fn is_down(&self, trouble: Option<String>) {
        if self.connected.swap(false, Ordering::Relaxed) || !self.changed.is_some() {
            self.changed.note(());
        }
        self.suffers(trouble);
    }
}

type Named = Mutex<Vec<(&'static str, Arc<Counter>)>>;

fn find(named: &Named, name: &'static str) -> Arc<Counter> {
    let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, counter)) = named.iter().find(|(known, _)| *known == name) {
        return Arc::clone(counter);
    }
    let counter = Arc::new(Counter::default());
    named.push((name, Arc::clone(&counter)));
    counter
}

fn values(named: &Named) -> Vec<(&'static str, u64)> {
    let named = named.lock().unwrap_or_else(PoisonError::into_inner);
    named.iter().map(|(name, counter)| (*name, counter.get())).collect()
}

pub(crate) fn add(counter: &Counter, n: usize) {
    counter.add(n as u64);
}
