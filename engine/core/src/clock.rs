//! The time that the engine takes from its caller: a box gives it the machine's, a simulation or a test its
//! own.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the engine reads time.
pub trait Clock: Send + Sync {
    /// Wall time in nanoseconds since 1970-01-01T00:00:00Z. It may jump; nothing but stored times and what is
    /// shown to rules may depend on it.
    fn wall_ns(&self) -> i64;

    /// Time since the machine was started. It never goes back and never jumps.
    fn monotonic(&self) -> Duration;

    /// Which start of the machine [`Clock::monotonic`] counts from; equal for all processes of that time.
    /// Empty: nobody knows.
    fn boot(&self) -> Arc<str>;

    /// Whether a time service has set wall time since then.
    fn is_synchronised(&self) -> bool;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

/// systemd-timesyncd makes this file when it has set the clock, and `/run` is empty after each start of the
/// machine.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

impl Clock for SystemClock {
    fn wall_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        }
    }

    fn monotonic(&self) -> Duration {
        // It goes on while the machine sleeps, and is the same for all processes.
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let since = rustix::time::clock_gettime(id);
        Duration::new(u64::try_from(since.tv_sec).unwrap_or(0), u32::try_from(since.tv_nsec).unwrap_or(0))
    }

    fn boot(&self) -> Arc<str> {
        static BOOT: OnceLock<Arc<str>> = OnceLock::new();
        let read =
            || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into();
        Arc::clone(BOOT.get_or_init(read))
    }

    fn is_synchronised(&self) -> bool {
        std::path::Path::new(SYNCHRONISED).exists()
    }
}

/// A clock that stands still until it is told otherwise, for tests.
#[derive(Debug)]
pub struct SimulatedClock {
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    wall_ns: i64,
    monotonic: Duration,
    boots: u32,
    synchronised: bool,
}

impl SimulatedClock {
    /// A machine that has just been started and believes that it is `wall_ns`.
    #[must_use]
    pub fn new(wall_ns: i64) -> Self {
        Self {
            shown: Mutex::new(Shown { wall_ns, monotonic: Duration::ZERO, boots: 1, synchronised: false }),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        let mut shown = self.shown();
        shown.wall_ns = shown.wall_ns.saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        shown.monotonic += time;
    }

    /// Somebody sets the clock.
    pub fn set(&self, wall_ns: i64) {
        self.shown().wall_ns = wall_ns;
    }

    /// A time service sets the clock.
    pub fn synchronise(&self, wall_ns: i64) {
        let mut shown = self.shown();
        (shown.wall_ns, shown.synchronised) = (wall_ns, true);
    }

    /// The machine is started anew, and believes that it is `wall_ns`.
    pub fn reboot(&self, wall_ns: i64) {
        let mut shown = self.shown();
        *shown = Shown { wall_ns, monotonic: Duration::ZERO, boots: shown.boots + 1, synchronised: false };
    }
}

impl Clock for SimulatedClock {
    fn wall_ns(&self) -> i64 {
        self.shown().wall_ns
    }

    fn monotonic(&self) -> Duration {
        self.shown().monotonic
    }

    fn boot(&self) -> Arc<str> {
        format!("boot {}", self.shown().boots).into()
    }

    fn is_synchronised(&self) -> bool {
        self.shown().synchronised
    }
}
