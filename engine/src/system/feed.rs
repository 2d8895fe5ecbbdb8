//! How a stream of the box is fed: by what the box itself knows, or what somebody in it says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use futures::future::{BoxFuture, FutureExt};
use tidegate_connectors::{Arrival, Inlet, LineNews, Source};
use tidegate_core::{Ack, Batch, Clock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What feeds a stream.
pub(super) trait Feed: Send {
    /// What is new, as rows of the stream.
    fn rows(&mut self) -> Option<RecordBatch>;

    /// Resolves when something may be new.
    fn changed(&mut self) -> BoxFuture<'_, ()>;
}

/// The source of a stream that the box feeds itself.
pub(super) struct Fed<F> {
    /// the stream
    pub(super) stream: &'static str,
    pub(super) feed: F,
}

impl<F: Feed> Fed<F> {
    fn news(&mut self) -> Option<Arrival> {
        let rows = self.feed.rows()?;
        Some(Arrival::Rows(Batch { stream: self.stream.into(), rows, marks: Vec::new(), ack: Ack::none() }))
    }
}

impl<F: Feed + 'static> Source for Fed<F> {
    fn run(mut self: Box<Self>, mut inlet: Inlet, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        async move {
            // Nobody but the box speaks here, so that it is always listened to.
            let mut told = inlet.queue.send(inlet.news(LineNews::Begins)).await.is_ok();
            while told {
                if let Some(rows) = self.news() {
                    told = inlet.queue.send(rows).await.is_ok();
                    continue;
                }
                // What was said before it is told.
                if shutdown.is_cancelled() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = self.feed.changed() => {}
                    asked = inlet.asked.changed() => {
                        let asked_at = *inlet.asked.borrow_and_update();
                        let heard = inlet.news(LineNews::Heard { asked: asked_at });
                        told = asked.is_ok() && inlet.queue.send(heard).await.is_ok();
                    }
                }
            }
        }
        .boxed()
    }
}

/// What was said in the box and is not a row yet, with the wall time at which it was. Whoever speaks waits
/// for nobody.
pub(super) struct Said<T> {
    queue: Mutex<VecDeque<(i64, T)>>,
    capacity: usize,
    said: Notify,
    clock: Arc<dyn Clock>,
}

impl<T> Said<T> {
    pub(super) fn new(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self { queue: Mutex::default(), capacity, said: Notify::new(), clock }
    }

    /// Takes it, unless there is no room. Returns whether it did.
    pub(super) fn take_in(&self, what: T) -> bool {
        let mut queue = self.lock();
        let has_room = queue.len() < self.capacity;
        if has_room {
            queue.push_back((self.clock.wall_ns(), what));
            self.said.notify_one();
        }
        has_room
    }

    /// Takes it, and lets go of the oldest one if there is no room. Returns whether it had to.
    pub(super) fn take_in_and_drop_oldest(&self, what: T) -> bool {
        let mut queue = self.lock();
        let is_full = queue.len() >= self.capacity;
        if is_full {
            queue.pop_front();
        }
        queue.push_back((self.clock.wall_ns(), what));
        self.said.notify_one();
        is_full
    }

    /// The oldest of what was said, at most `count`.
    pub(super) fn take_out(&self, count: usize) -> Vec<(i64, T)> {
        let mut queue = self.lock();
        let count = queue.len().min(count);
        queue.drain(..count).collect()
    }

    /// Resolves when something is there.
    pub(super) async fn filled(&self) {
        loop {
            let said = self.said.notified();
            if !self.lock().is_empty() {
                return;
            }
            said.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(i64, T)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
