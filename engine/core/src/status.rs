//! What running parts count and note, for whoever looks. Writers never wait for a reader.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

    /// Adds one until what is returned is dropped.
    #[must_use]
    pub fn one_more(&self) -> OneMore<'_> {
        self.add(1);
        OneMore(self)
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that counts as long as it is there.
#[derive(Debug)]
pub struct OneMore<'a>(&'a Counter);

impl Drop for OneMore<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The newest thing of a kind that happened, such as an error. When it was goes by the monotonic clock, so
/// that nothing seems older or newer because the clock was set.
#[derive(Debug)]
pub struct Newest<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Newest<T> {
    /// It happened now.
    pub fn note(&self, what: T) {
        *lock(&self.0) = Some((Instant::now(), what));
    }

    /// It does not hold any more.
    pub fn clear(&self) {
        *lock(&self.0) = None;
    }

    /// Whether it holds.
    #[must_use]
    pub fn is_some(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// How long ago it happened, and what it was.
    #[must_use]
    pub fn get(&self) -> Option<(Duration, T)> {
        lock(&self.0).as_ref().map(|(at, what)| (at.elapsed(), what.clone()))
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
        let mut map = lock(&self.0);
        if let Some(status) = map.get(name) {
            return Arc::clone(status);
        }
        Arc::clone(map.entry(name.to_owned()).or_default())
    }

    /// Forgets `name`.
    pub fn remove(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// All of them, in order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<T>)> {
        lock(&self.0).iter().map(|(name, status)| (name.clone(), Arc::clone(status))).collect()
    }

    /// The one of `name`, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        lock(&self.0).get(name).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
