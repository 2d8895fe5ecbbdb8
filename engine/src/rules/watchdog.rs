//! The last fence around rules that are programs: a thread looks whether a call uses the processor for too long,
//! and raises the rule's [`Fence`].
//!
//! It is there for what counts nothing while it runs, such as comparing two large arrays. What it does is no
//! function of the sequence, so the worker makes a [`Verdict`](crate::sequence::verdict::Verdict) of it.

use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::gettid;
use tidegate_rules::Fence;

/// How often a call is looked at within its limit.
const LOOKS: u32 = 8;

/// Watches over the workers of a box. The thread is started with the first rule that has a fence.
#[derive(Debug)]
pub struct Watchdog {
    limit: Duration,
    started: Once,
    calls: Mutex<Vec<Weak<Call>>>,
}

/// What one worker is doing.
type Call = Mutex<Option<Doing>>;

/// A call of a rule.
#[derive(Debug)]
struct Doing {
    fence: Arc<Fence>,
    since: Instant,
    clock: ThreadClock,
    /// The processor time of the thread when the call was first looked at. A machine that is busy with other
    /// things makes a call late, and that is no fault of the rule.
    seen: Option<Duration>,
}

/// The clock of the processor time of a thread.
#[derive(Debug, Clone, Copy)]
struct ThreadClock(ClockId);

thread_local! {
    static CLOCK: ThreadClock = ThreadClock::here();
}

impl ThreadClock {
    /// That of this thread, for others to read. Linux puts the thread's number and two marks, "of a thread" and
    /// "as it was scheduled", into the number of the clock (include/linux/posix-timers_types.h).
    fn here() -> Self {
        Self(ClockId::from_raw((!gettid().as_raw() << 3) | 4 | 2))
    }

    /// `None`: the thread is gone.
    fn now(self) -> Option<Duration> {
        self.0.now().ok().map(Duration::from)
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct Watch {
    dog: Arc<Watchdog>,
    call: Arc<Call>,
}

impl Watchdog {
    /// Stops calls that use the processor for longer than `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self { limit, started: Once::new(), calls: Mutex::default() })
    }

    /// The end of one more worker.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Watch {
        let call = Arc::<Call>::default();
        lock(&self.calls).push(Arc::downgrade(&call));
        Watch { dog: Arc::clone(self), call }
    }

    fn start(self: &Arc<Self>) {
        let (dog, pause) = (Arc::downgrade(self), self.limit / LOOKS);
        let look = move || {
            while let Some(dog) = dog.upgrade() {
                dog.look(Instant::now());
                drop(dog);
                std::thread::park_timeout(pause);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watchdog".to_owned()).spawn(look) {
            tracing::error!(%error, "no thread watches over rules that take too long");
        }
    }

    fn look(&self, now: Instant) {
        lock(&self.calls).retain(|call| {
            let Some(call) = call.upgrade() else { return false };
            if let Some(Doing { fence, since, clock, seen }) = &mut *lock(&call)
                && now.saturating_duration_since(*since) >= self.limit / LOOKS
                && let Some(used) = clock.now()
                && used.saturating_sub(*seen.get_or_insert(used)) >= self.limit
            {
                fence.raise();
            }
            true
        });
    }
}

impl Watch {
    /// Calls a rule that has `fence`.
    pub fn over<T>(&self, fence: &Arc<Fence>, call: impl FnOnce() -> T) -> T {
        self.dog.started.call_once(|| self.dog.start());
        let clock = CLOCK.with(|clock| *clock);
        let doing = Doing { fence: Arc::clone(fence), since: Instant::now(), clock, seen: None };
        *lock(&self.call) = Some(doing);
        let done = call();
        *lock(&self.call) = None;
        done
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_takes_too_long_is_stopped_and_others_are_not() {
        let dog = Watchdog::new(Duration::from_millis(8));
        let [quick, slow, next] = [(); 3].map(|()| Arc::new(Fence::new()));
        let (here, there) = (dog.watch(), dog.watch());
        here.over(&quick, || {});
        there.over(&slow, || {
            while !slow.is_raised() {
                std::hint::spin_loop();
            }
        });
        there.over(&next, || {});
        // One that waits for its turn is no fault of the rule, however long it is.
        there.over(&next, || {
            for _ in 0..100 {
                dog.look(Instant::now() + Duration::from_hours(1));
            }
        });
        assert_eq!([quick, slow, next].map(|fence| fence.is_raised()), [false, true, false]);
    }
}
