//! The time that the engine takes from its caller: a box gives it the machine's, a replay or a simulation its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the engine reads time.
pub trait Clock: Send + Sync {
    /// Wall time in nanoseconds since 1970-01-01T00:00:00Z. It may jump; nothing but stored times may depend on it.
    fn wall_ns(&self) -> i64;

    /// Time that never goes back and never jumps, since an arbitrary start.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        }
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// A clock that stands still until it is set: for replay and tests. Its monotonic time is the time it was moved forward.
#[derive(Debug, Default)]
pub struct SimulatedClock {
    now_ns: AtomicI64,
}

impl SimulatedClock {
    /// Moves wall time to `ns` since the epoch, if that is later than now.
    pub fn advance_to(&self, ns: i64) {
        self.now_ns.fetch_max(ns, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn wall_ns(&self) -> i64 {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.wall_ns()).unwrap_or(0))
    }
}
