//! One queue and one task an output: rows wait here until the far side has confirmed them, or are dropped as the configuration says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidegate_connectors::{Delivery, DeliveryError, Sink};
use tidegate_core::Rows;
use tokio::sync::Notify;

use crate::config::WhenQueueFull;
use crate::sampler::Sampler;
use crate::status::OutputStatus;

/// Rows that are on their way to the far side at a time, about.
const DELIVERED_ROWS: usize = 1_024;

/// The queue of one output. The worker of its rules pushes, the output's task pops.
pub struct OutputQueue {
    name: Arc<str>,
    capacity: usize,
    when_full: WhenQueueFull,
    state: Mutex<State>,
    room: Notify,
    filled: Notify,
    status: Arc<OutputStatus>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Rows>,
    rows: usize,
    closed: bool,
    dropped: Sampler,
}

impl OutputQueue {
    /// A queue for at most `capacity` rows.
    #[must_use]
    pub fn new(name: &str, capacity: usize, when_full: WhenQueueFull, status: Arc<OutputStatus>) -> Self {
        let (state, room, filled) = (Mutex::default(), Notify::new(), Notify::new());
        Self { name: Arc::from(name), capacity: capacity.max(1), when_full, state, room, filled, status }
    }

    /// Puts rows at the end. When there is no room, waits (`block`) or makes room by dropping the oldest rows. Rows for a closed queue
    /// are dropped.
    pub async fn push(&self, rows: Rows) {
        let mut offset = 0;
        while offset < rows.len() {
            let part = (rows.len() - offset).min(self.capacity);
            if self.when_full == WhenQueueFull::Block {
                self.room_for(part).await;
            }
            self.push_part(rows.slice(offset, part));
            offset += part;
        }
    }

    /// Waits until `rows` rows fit, or the queue is closed.
    async fn room_for(&self, rows: usize) {
        loop {
            let room = self.room.notified();
            {
                let state = self.lock();
                if state.closed || state.rows + rows <= self.capacity {
                    break;
                }
            }
            let _held = self.status.held.one_more();
            room.await;
        }
        // A rule that has just moved may have left another worker waiting here.
        self.room.notify_one();
    }

    fn push_part(&self, rows: Rows) {
        let mut state = self.lock();
        let mut dropped = if state.closed { rows.len() } else { 0 };
        if !state.closed {
            state.rows += rows.len();
            state.waiting.push_back(rows);
            while state.rows > self.capacity {
                let over = state.rows - self.capacity;
                let Some(oldest) = state.waiting.pop_front() else { break };
                let gone = over.min(oldest.len());
                if gone < oldest.len() {
                    state.waiting.push_front(oldest.slice(gone, oldest.len() - gone));
                }
                state.rows -= gone;
                dropped += gone;
            }
        }
        if dropped > 0 {
            self.status.dropped.add(dropped as u64);
            if let Some(count) = state.dropped.count(dropped as u64) {
                tracing::error!(output = %self.name, rows = count, capacity = self.capacity, "the output's queue is full; its oldest rows are dropped");
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// The next rows; `None` when the queue is closed and empty. Takes several pushes together, or a far side with a slow line would see
    /// one a round trip.
    async fn pop(&self) -> Option<RecordBatch> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if let Some(rows) = state.pop(DELIVERED_ROWS) {
                    self.room.notify_one();
                    return Some(rows);
                }
                if state.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Takes no more rows; those that wait are still delivered.
    pub fn close(&self) {
        self.lock().closed = true;
        self.room.notify_one();
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers rows until the queue is closed and empty. A row that cannot be delivered now is not delivered later: an actuator must not
    /// move on a cause that has gone.
    pub async fn deliver_to(&self, mut sink: Box<dyn Sink>) {
        let mut failures = Sampler::default();
        while let Some(rows) = self.pop().await {
            let Delivery { written, failed, error } = sink.deliver(&rows).await;
            self.status.written.add(written as u64);
            self.status.failed.add(failed as u64);
            self.status.last.note(&rows, "");
            if let Some(error) = error {
                self.status.last_error.note(error.to_string());
                let Some(count) = failures.count(failed as u64) else { continue };
                let advice = match error {
                    DeliveryError::Transient(_) => "they are not written later",
                    DeliveryError::Permanent(_) => "correct the rule or the output",
                };
                tracing::error!(output = %self.name, rows = count, %error, advice, "rows could not be written");
            }
        }
    }
}

impl State {
    /// Rows from the front with equal columns, about `limit` of them.
    fn pop(&mut self, limit: usize) -> Option<RecordBatch> {
        let first = self.waiting.pop_front()?.batch;
        let (schema, mut taken) = (first.schema(), first.num_rows());
        let mut parts = vec![first];
        while taken < limit
            && let Some(next) = self.waiting.pop_front_if(|next| *next.batch.schema_ref() == schema)
        {
            taken += next.len();
            parts.push(next.batch);
        }
        self.rows -= taken;
        // Equal columns can be put together; should that fail, nothing is worth stopping the output for but these rows.
        concat_batches(&schema, &parts).map_err(|error| tracing::error!(%error, rows = taken, "rows for an output are lost")).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use futures::future::BoxFuture;
    use tidegate_core::Seqs;

    fn rows(values: impl IntoIterator<Item = i64>) -> Rows {
        let batch = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap();
        Rows { batch, seqs: Seqs::One { seq: 0 } }
    }

    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<i64>>>);

    impl Sink for Recorder {
        fn deliver<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Delivery> {
            let values = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            Box::pin(async move {
                let mut delivery = Delivery::default();
                for value in values {
                    let down = || DeliveryError::Transient("the line is down".into());
                    delivery.count(if value < 0 { Err(down()) } else { Ok(()) });
                    self.0.lock().unwrap().extend((value >= 0).then_some(value));
                }
                delivery
            })
        }
    }

    fn wait(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    }

    fn drain(queue: &OutputQueue) -> Vec<i64> {
        let recorder = Recorder::default();
        queue.close();
        wait(queue.deliver_to(Box::new(recorder.clone())));
        std::mem::take(&mut *recorder.0.lock().unwrap())
    }

    #[test]
    fn a_full_queue_drops_its_oldest_rows_and_counts_them() {
        let status = Arc::new(OutputStatus::default());
        let queue = OutputQueue::new("pump", 5, WhenQueueFull::DropOldest, Arc::clone(&status));
        wait(queue.push(rows(0..4)));
        wait(queue.push(rows(4..7)));
        assert_eq!(drain(&queue), [2, 3, 4, 5, 6]);
        assert_eq!((status.dropped.get(), status.written.get()), (2, 5));
        wait(queue.push(rows(0..1)));
        assert_eq!(status.dropped.get(), 3, "a closed queue takes nothing");
    }

    #[test]
    fn rows_that_fail_are_counted_and_the_next_ones_go_on() {
        let status = Arc::new(OutputStatus::default());
        let queue = OutputQueue::new("pump", 50, WhenQueueFull::DropOldest, Arc::clone(&status));
        wait(queue.push(rows([1])));
        wait(queue.push(rows([-1, 2])));
        wait(queue.push(rows([3])));
        assert_eq!(drain(&queue), [1, 2, 3]);
        assert_eq!((status.failed.get(), status.written.get()), (1, 3));
    }

    #[test]
    fn a_blocking_queue_holds_the_writer_until_there_is_room() {
        let status = Arc::new(OutputStatus::default());
        let queue = Arc::new(OutputQueue::new("pump", 2, WhenQueueFull::Block, Arc::clone(&status)));
        let writer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                (0..20).for_each(|x| wait(queue.push(rows([x]))));
                queue.close();
            }
        });
        let recorder = Recorder::default();
        wait(queue.deliver_to(Box::new(recorder.clone())));
        writer.join().unwrap();
        assert_eq!(*recorder.0.lock().unwrap(), (0..20).collect::<Vec<_>>());
        assert_eq!(status.dropped.get(), 0);
    }
}
