//! The last fence around rules that are programs: a thread looks whether a call takes too long, and raises the
//! rule's [`Fence`].
//!
//! It is there for what counts nothing while it runs, such as comparing two large arrays. What it does is no
//! function of the sequence, so the worker makes a [`Verdict`](crate::sequence::verdict::Verdict) of it.

use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

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

/// What one worker is doing: the rule that it calls, and since when.
type Call = Mutex<Option<(Instant, Arc<Fence>)>>;

/// A worker's end.
#[derive(Debug)]
pub struct Watch {
    dog: Arc<Watchdog>,
    call: Arc<Call>,
}

impl Watchdog {
    /// Stops calls that take longer than `limit`.
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
            if let Some((since, fence)) = &*lock(&call)
                && now.saturating_duration_since(*since) >= self.limit
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
        *lock(&self.call) = Some((Instant::now(), Arc::clone(fence)));
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
                std::thread::yield_now();
            }
        });
        there.over(&next, || {});
        dog.look(Instant::now() + Duration::from_secs(1));
        assert_eq!([quick, slow, next].map(|fence| fence.is_raised()), [false, true, false]);
    }
}
