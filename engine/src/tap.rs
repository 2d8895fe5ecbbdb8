//! Rows as they pass, for whoever looks. Nobody who looks holds anything up: what does not fit into a
//! listener's queue passes it by, and is counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::Rows;
use tidegate_core::status::Counter;
use tokio::sync::mpsc;

/// Rows that wait for one listener: more than a person reads in a minute.
const ROWS: usize = 1_024;

/// Where rows pass.
#[derive(Debug, Default)]
pub struct Tap {
    /// looked at for every batch
    is_open: AtomicBool,
    listeners: Mutex<Vec<Arc<Queue>>>,
}

/// Rows that have passed.
#[derive(Debug, Clone)]
pub struct Passed {
    /// the rows, with their sequence numbers
    pub rows: Rows,
    /// when they were here, nanoseconds since 1970
    pub wall_ns: i64,
    /// the rule that wrote them, and its version, where that is known
    pub rule: Option<(Arc<str>, Option<u64>)>,
    /// where that wrote them to
    pub target: Option<Arc<str>>,
    /// What became of each row, where there is a far side: none, or why it failed.
    pub failures: Option<Arc<[Option<Arc<str>>]>>,
}

#[derive(Debug)]
struct Queue {
    parts: mpsc::Sender<Passed>,
    rows: Counter,
    taken: Counter,
    missed: Counter,
}

/// Listens to a tap until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    parts: mpsc::Receiver<Passed>,
}

impl Tap {
    /// Listens from now on.
    pub fn listen(&self) -> Subscription {
        let (send, parts) = mpsc::channel(ROWS);
        let queue = Arc::new(Queue {
            parts: send,
            rows: Counter::default(),
            taken: Counter::default(),
            missed: Counter::default(),
        });
        let mut listeners = self.lock();
        listeners.push(Arc::clone(&queue));
        self.is_open.store(true, Ordering::Relaxed);
        Subscription { queue, parts }
    }

    /// Shows what `passed` makes to whoever listens; it is not called for nobody.
    pub fn show(&self, passed: impl FnOnce() -> Passed) {
        if !self.is_open.load(Ordering::Relaxed) {
            return;
        }
        let mut listeners = self.lock();
        listeners.retain(|queue| !queue.parts.is_closed());
        if listeners.is_empty() {
            return self.is_open.store(false, Ordering::Relaxed);
        }
        let passed = passed();
        listeners.iter().for_each(|queue| queue.push(&passed));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&self, passed: &Passed) {
        let rows = passed.rows.len();
        let waiting = usize::try_from(self.rows.get().saturating_sub(self.taken.get())).unwrap_or(usize::MAX);
        let fits = ROWS.saturating_sub(waiting).min(rows);
        self.missed.add((rows - fits) as u64);
        if fits == 0 {
            return;
        }
        self.rows.add(fits as u64);
        let part = Passed { rows: passed.rows.slice(0, fits), ..passed.clone() };
        if self.parts.try_send(part).is_err() {
            self.missed.add(fits as u64);
            self.taken.add(fits as u64);
        }
    }
}

impl Subscription {
    /// The next rows; none: what was listened to is gone.
    pub async fn next(&mut self) -> Option<Passed> {
        let passed = self.parts.recv().await?;
        self.queue.taken.add(passed.rows.len() as u64);
        Some(passed)
    }

    /// Rows that have passed by so far because they came faster than they were taken.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.queue.missed.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use futures::FutureExt;
    use tidegate_core::Seqs;

    fn passed(first: u64, rows: usize) -> Passed {
        let values = Int64Array::from_iter_values((0_i64..).take(rows));
        let batch = RecordBatch::try_from_iter([("x", Arc::new(values) as _)]).unwrap();
        let rows = Rows { batch, seqs: Seqs::Run { first } };
        Passed { rows, wall_ns: 0, rule: None, target: None, failures: None }
    }

    #[test]
    fn what_a_listener_does_not_take_in_time_passes_by_and_is_counted() {
        let tap = Tap::default();
        tap.show(|| panic!("nobody listens"));
        let mut subscription = tap.listen();
        tap.show(|| passed(0, 1_000));
        tap.show(|| passed(1_000, 100));
        assert_eq!(subscription.missed(), 76);
        let taken: Vec<(u64, usize)> = std::iter::from_fn(|| subscription.next().now_or_never().flatten())
            .map(|part| (part.rows.seqs.get(0), part.rows.len()))
            .collect();
        assert_eq!(taken, [(0, 1_000), (1_000, 24)]);
        tap.show(|| passed(1_100, 1_024));
        assert_eq!(
            (subscription.next().now_or_never().flatten().map(|part| part.rows.len()), subscription.missed()),
            (Some(1_024), 76)
        );
        drop(subscription);
        tap.show(|| panic!("nobody listens any more"));
    }
}
