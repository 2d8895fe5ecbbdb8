//! One queue and one task an output: rows wait here until the far side has confirmed them, or are dropped as
//! the configuration says.
//!
//! Rows count until the far side has answered for them. At most half of a queue is under way at a time: the
//! rest can still be dropped for newer rows, and the newest row always finds a place.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use tidegate_connectors::{Cause, Delivery, DeliveryError, Sink, Takes, Writes};
use tidegate_core::clock::SystemClock;
use tidegate_core::{Clock, Rows};
use tokio::sync::Notify;

use crate::config::WhenQueueFull;
use crate::sampler::Sampler;
use crate::status::OutputStatus;
use crate::tap::Passed;

/// Rows that are under way to the far side at a time, however long the queue is: enough for a slow line.
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

/// Rows for an output that one rule wrote at one time.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// the rule
    pub rule: Arc<str>,
    /// the SHA-256 of its source, in hexadecimal digits
    pub version: Arc<str>,
    /// the rows, with the numbers of those that they stem from
    pub rows: Rows,
    /// one a row
    pub ordinals: Vec<u32>,
    /// the sequence's time
    pub at: i64,
}

impl Waiting {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        Self {
            rule: Arc::clone(&self.rule),
            version: Arc::clone(&self.version),
            rows: self.rows.slice(offset, len),
            ordinals: self.ordinals.iter().skip(offset).take(len).copied().collect(),
            at: self.at,
        }
    }

    fn causes(&self) -> impl Iterator<Item = Cause> {
        self.ordinals.iter().enumerate().map(|(row, ordinal)| Cause {
            rule: Arc::clone(&self.rule),
            version: Arc::clone(&self.version),
            seq: self.rows.seqs.get(row),
            ordinal: *ordinal,
            at: self.at,
        })
    }

    /// The points that a row writes: the columns in which it has a value.
    fn points(&self, row: usize) -> impl Iterator<Item = &str> {
        let batch = &self.rows.batch;
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        columns.filter(move |(_, column)| column.is_valid(row)).map(|(field, _)| field.name().as_str())
    }
}

/// What the sink is handed at once, and what it was put together from.
struct Handed {
    batch: RecordBatch,
    parts: Vec<Waiting>,
    causes: Vec<Cause>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// rows that wait
    rows: usize,
    /// rows that were handed to the sink, which has not answered yet
    under_way: usize,
    closed: bool,
    /// whether the sink wants of each point the newest only
    takes_newest: bool,
    dropped: Sampler,
}

impl OutputQueue {
    /// A queue for at most `capacity` rows.
    #[must_use]
    pub fn new(name: &str, capacity: usize, when_full: WhenQueueFull, status: Arc<OutputStatus>) -> Self {
        let (state, room, filled) = (Mutex::default(), Notify::new(), Notify::new());
        Self { name: Arc::from(name), capacity: capacity.max(1), when_full, state, room, filled, status }
    }

    /// Puts rows at the end. When there is no room, waits (`block`) or makes room by dropping the oldest
    /// rows. Rows for a closed queue are dropped.
    pub async fn push(&self, rows: Waiting) {
        let mut offset = 0;
        while offset < rows.len() {
            let part = (rows.len() - offset).min(self.half());
            if self.when_full == WhenQueueFull::Block {
                self.room_for(part).await;
            }
            self.push_part(rows.slice(offset, part));
            offset += part;
        }
    }

    /// As many rows find room at the latest when those that wait are under way.
    fn half(&self) -> usize {
        (self.capacity / 2).max(1)
    }

    /// Waits until `rows` rows fit, or the queue is closed.
    async fn room_for(&self, rows: usize) {
        loop {
            let room = self.room.notified();
            {
                let state = self.lock();
                if state.closed || state.rows + rows <= state.room(self.capacity) {
                    break;
                }
            }
            let _held = self.status.held.one_more();
            room.await;
        }
        // A rule that has just moved may have left another worker waiting here.
        self.room.notify_one();
    }

    fn push_part(&self, rows: Waiting) {
        let mut state = self.lock();
        let mut dropped = if state.closed { rows.len() } else { 0 };
        if !state.closed {
            state.rows += rows.len();
            state.waiting.push_back(rows);
            let room = state.room(self.capacity);
            if state.rows > room && state.takes_newest {
                // What nobody needs makes room before what somebody does.
                self.status.superseded.add(state.supersede(&self.name));
            }
            while state.rows > room {
                let over = state.rows - room;
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
                tracing::error!(
                    output = %self.name,
                    rows = count,
                    capacity = self.capacity,
                    "the output's queue is full; its oldest rows are dropped"
                );
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// The next rows, which are under way from now on; `None` when the queue is closed and empty. Takes
    /// several pushes together, or a far side with a slow line would see one a round trip.
    async fn pop(&self, takes: Takes) -> Option<Handed> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                let limit = match takes {
                    Takes::All => self.half().min(DELIVERED_ROWS),
                    Takes::Newest => {
                        self.status.superseded.add(state.supersede(&self.name));
                        1
                    }
                };
                if let Some(rows) = state.pop(limit) {
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

    /// The far side has answered for all that was under way.
    fn answered(&self) {
        self.lock().under_way = 0;
        self.room.notify_one();
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

    /// Delivers rows until the queue is closed and empty. A row that cannot be delivered now is not delivered
    /// later: an actuator must not move on a cause that has gone.
    pub async fn deliver_to(&self, mut sink: Box<dyn Sink>) {
        let mut failures = Sampler::default();
        let takes = sink.takes();
        self.lock().takes_newest = takes == Takes::Newest;
        while let Some(Handed { batch, parts, causes }) = self.pop(takes).await {
            let delivery = sink.deliver(Writes { rows: &batch, causes: &causes }).await;
            self.answered();
            self.log(&causes, &delivery);
            self.status.written.add(delivery.written as u64);
            self.status.failed.add(delivery.failures.len() as u64);
            self.note_failing(batch.num_rows(), &delivery);
            self.status.last.note(&batch, "");
            self.show(&parts, &delivery);
            if let Some((_, error)) = delivery.failures.first() {
                self.status.last_error.note(error.to_string());
                let Some(count) = failures.count(delivery.failures.len() as u64) else { continue };
                let advice = match error {
                    DeliveryError::Transient(_) => "they are not written later",
                    DeliveryError::Permanent(_) => "correct the rule or the output",
                };
                tracing::error!(
                    output = %self.name,
                    rows = count,
                    %error,
                    advice,
                    "rows could not be written",
                );
            }
        }
    }

    /// What became of each write, for whoever wants to know.
    fn log(&self, causes: &[Cause], delivery: &Delivery) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let mut failures = delivery.failures.iter().peekable();
        for (row, Cause { rule, version, seq, ordinal, .. }) in causes.iter().enumerate() {
            let failure = failures.next_if(|(failed, _)| *failed == row).map(|(_, error)| error.to_string());
            let (output, outcome) = (&self.name, failure.as_deref().unwrap_or("written"));
            tracing::debug!(%output, %rule, %version, seq, ordinal, outcome, "write");
        }
    }

    /// Notes how many of the newest rows were not written.
    fn note_failing(&self, rows: usize, delivery: &Delivery) {
        let failed = delivery.failures.iter().rev().map(|(row, _)| *row);
        let newest = failed.zip((0..rows).rev()).take_while(|(failed, row)| failed == row).count();
        let before = if newest == rows { self.status.failing.get() } else { 0 };
        self.status.failing.set(before + newest as u64);
    }

    /// Shows whoever listens what became of the rows of a delivery.
    fn show(&self, parts: &[Waiting], delivery: &Delivery) {
        let mut first = 0;
        for Waiting { rule, rows, .. } in parts {
            self.status.tap.show(|| {
                let mut outcomes = vec![None; rows.len()];
                for (row, error) in &delivery.failures {
                    if let Some(outcome) = row.checked_sub(first).and_then(|row| outcomes.get_mut(row)) {
                        *outcome = Some(Arc::from(error.to_string()));
                    }
                }
                Passed {
                    rows: rows.clone(),
                    // It is only shown.
                    wall_ns: SystemClock.wall_ns(),
                    rule: Some((Arc::clone(rule), None)),
                    target: None,
                    failures: Some(outcomes.into()),
                }
            });
            first += rows.len();
        }
    }
}

impl State {
    /// How many rows may wait: at least one, so that the newest row is never the one that is dropped.
    fn room(&self, capacity: usize) -> usize {
        capacity.saturating_sub(self.under_way).max(1)
    }

    /// Takes out what newer rows that wait say anew, point by point. Returns how many rows that were.
    fn supersede(&mut self, output: &str) -> u64 {
        if self.rows < 2 {
            return 0;
        }
        let mut said: HashSet<String> = HashSet::new();
        let mut kept: VecDeque<Waiting> = VecDeque::new();
        let mut gone = 0;
        for part in self.waiting.drain(..).rev() {
            for row in (0..part.len()).rev() {
                let mut points = part.points(row).peekable();
                if points.peek().is_some() && points.all(|point| said.contains(point)) {
                    gone += 1;
                    let (rule, seq) = (&part.rule, part.rows.seqs.get(row));
                    tracing::debug!(output, %rule, seq, outcome = "a newer one waits", "write");
                    continue;
                }
                said.extend(part.points(row).map(str::to_owned));
                kept.push_front(part.slice(row, 1));
            }
        }
        self.waiting = kept;
        self.rows -= gone;
        gone as u64
    }

    /// Up to `limit` rows from the front with equal columns.
    fn pop(&mut self, limit: usize) -> Option<Handed> {
        let first = self.take(limit)?;
        let (schema, mut taken) = (first.rows.batch.schema(), first.len());
        let mut parts = vec![first];
        while taken < limit
            && self.waiting.front().is_some_and(|next| *next.rows.batch.schema_ref() == schema)
        {
            let Some(next) = self.take(limit - taken) else { break };
            taken += next.len();
            parts.push(next);
        }
        let batch = concat_batches(&schema, parts.iter().map(|part| &part.rows.batch)).unwrap_or_else(|_| {
            // Too much for one array, say: then they go one after the other.
            parts.drain(1..).rev().for_each(|part| self.waiting.push_front(part));
            parts.first().map_or_else(|| RecordBatch::new_empty(schema), |first| first.rows.batch.clone())
        });
        self.under_way = batch.num_rows();
        self.rows -= self.under_way;
        let causes = parts.iter().flat_map(Waiting::causes).collect();
        Some(Handed { batch, parts, causes })
    }

    /// Up to `limit` rows of the first push.
    fn take(&mut self, limit: usize) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        if first.len() <= limit {
            return Some(first);
        }
        self.waiting.push_front(first.slice(limit, first.len() - limit));
        Some(first.slice(0, limit))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use tidegate_core::Seqs;

    fn rows(values: impl IntoIterator<Item = i64>) -> Waiting {
        let batch =
            RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap();
        waiting(Rows { batch, seqs: Seqs::One { seq: 0 } })
    }

    fn waiting(rows: Rows) -> Waiting {
        let ordinals = (0..).take(rows.len()).collect();
        Waiting { rule: Arc::from("rule"), version: Arc::from("5e1f"), rows, ordinals, at: 7 }
    }

    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<i64>>>);

    impl Sink for Recorder {
        fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
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
    fn the_newest_rows_that_failed_count_until_one_is_written() {
        let status = Arc::new(OutputStatus::default());
        // (rows, how many of the newest have failed by then); negative ones fail
        let steps = [(vec![1, -2], 1), (vec![-3, -4], 3), (vec![-5, 6, -7], 1), (vec![-8, 9], 0)];
        for (values, failing) in steps {
            let queue = OutputQueue::new("pump", 5, WhenQueueFull::DropOldest, Arc::clone(&status));
            wait(queue.push(rows(values)));
            drain(&queue);
            assert_eq!(status.failing.get(), failing);
        }
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

    /// A far side that takes its time: it says what it was given, and answers when it is told to.
    struct Slow {
        given: tokio::sync::mpsc::Sender<Vec<i64>>,
        answer: tokio::sync::mpsc::Receiver<()>,
    }

    impl Sink for Slow {
        fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
            let values = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            Box::pin(async move {
                self.given.send(values).await.unwrap();
                self.answer.recv().await;
                Delivery { written: rows.num_rows(), ..Delivery::default() }
            })
        }
    }

    #[tokio::test]
    async fn rows_under_way_count_and_the_newest_row_always_finds_a_place() {
        for (capacity, delivered) in [
            (1, [vec![0], vec![19], vec![]]),
            (4, [vec![0, 1], vec![18, 19], vec![]]),
            (10, [vec![0, 1, 2, 3, 4], vec![15, 16, 17, 18, 19], vec![]]),
        ] {
            let status = Arc::new(OutputStatus::default());
            let queue =
                Arc::new(OutputQueue::new("pump", capacity, WhenQueueFull::DropOldest, Arc::clone(&status)));
            let (given, mut takes) = tokio::sync::mpsc::channel(1);
            let (tell, answer) = tokio::sync::mpsc::channel(1);
            queue.push(rows(0..i64::try_from(capacity).unwrap())).await;
            let delivering = tokio::spawn({
                let queue = Arc::clone(&queue);
                async move { queue.deliver_to(Box::new(Slow { given, answer })).await }
            });
            let mut seen = vec![takes.recv().await.unwrap()];
            queue.push(rows(i64::try_from(capacity).unwrap()..20)).await;
            queue.close();
            drop(tell);
            while let Some(more) = takes.recv().await {
                seen.push(more);
            }
            delivering.await.unwrap();
            seen.resize(3, Vec::new());
            assert_eq!(seen, delivered, "capacity {capacity}");
            let said = seen.iter().map(Vec::len).sum::<usize>() as u64;
            assert_eq!((status.written.get(), status.written.get() + status.dropped.get()), (said, 20));
        }
    }

    #[test]
    fn rows_that_do_not_fit_into_one_array_go_one_after_the_other() {
        // Equal columns by name and type, and yet not to be put together: a dictionary of 8-bit keys has no
        // room for both.
        let dictionary = |first: i64| {
            let keys = arrow::array::UInt8Array::from_iter_values(0..200);
            let values = Int64Array::from_iter_values(first..first + 200);
            let array = arrow::array::DictionaryArray::new(keys, Arc::new(values));
            let batch = RecordBatch::try_from_iter([("x", Arc::new(array) as _)]).unwrap();
            waiting(Rows { batch, seqs: Seqs::Run { first: 0 } })
        };
        let mut state = State::default();
        for first in [0, 1_000] {
            state.rows += 200;
            state.waiting.push_back(dictionary(first));
        }
        for left in [200, 0] {
            assert_eq!(state.pop(1_000).unwrap().batch.num_rows(), 200);
            assert_eq!(state.rows, left);
        }
        assert!(state.pop(1_000).is_none());
    }

    #[test]
    fn whoever_listens_sees_of_each_row_who_wrote_it_and_what_became_of_it() {
        let status = Arc::new(OutputStatus::default());
        let queue = OutputQueue::new("pump", 50, WhenQueueFull::DropOldest, Arc::clone(&status));
        let mut ear = status.tap.listen();
        let by =
            |rule: &str, values: &[i64]| Waiting { rule: Arc::from(rule), ..rows(values.iter().copied()) };
        wait(queue.push(by("on", &[1, -2])));
        wait(queue.push(by("off", &[-3, 4])));
        drain(&queue);
        let mut seen = Vec::new();
        while let Some(Some(passed)) = ear.next().now_or_never() {
            let failures = passed.failures.unwrap();
            let failed = failures.iter().map(Option::is_some).collect::<Vec<_>>();
            seen.push((passed.rule.unwrap().0.to_string(), failed));
        }
        assert_eq!(seen, [("on".to_owned(), vec![false, true]), ("off".to_owned(), vec![true, false])]);
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

    /// A device with points: it says what it was handed, and why.
    struct Points(Arc<Mutex<Vec<(String, Cause)>>>);

    impl Sink for Points {
        fn takes(&self) -> Takes {
            Takes::Newest
        }

        fn deliver<'a>(&'a mut self, Writes { rows, causes }: Writes<'a>) -> BoxFuture<'a, Delivery> {
            assert_eq!((rows.num_rows(), causes.len()), (1, 1));
            let columns = rows.schema_ref().fields().iter().zip(rows.columns());
            let said = columns.filter(|(_, column)| column.is_valid(0)).map(|(field, column)| {
                format!("{} {}", field.name(), column.as_primitive::<Int64Type>().value(0))
            });
            let said = said.collect::<Vec<_>>().join(", ");
            self.0.lock().unwrap().push((said, causes[0].clone()));
            Box::pin(async { Delivery { written: 1, ..Delivery::default() } })
        }
    }

    #[test]
    fn of_what_waits_for_a_point_the_newest_is_written() {
        let status = Arc::new(OutputStatus::default());
        let queue = OutputQueue::new("pump", 50, WhenQueueFull::DropOldest, Arc::clone(&status));
        let row = |values: [(&str, Option<i64>); 2], seq| {
            let columns =
                values.map(|(name, value)| (name, Arc::new(Int64Array::from(vec![value])) as _, true));
            let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
            waiting(Rows { batch, seqs: Seqs::One { seq } })
        };
        for (run, speed, seq) in [
            (Some(1), Some(10), 1),
            (None, Some(20), 2),
            (Some(0), None, 3),
            (None, None, 4),
            (None, Some(30), 5),
        ] {
            wait(queue.push(row([("run", run), ("speed", speed)], seq)));
        }
        let written = Arc::new(Mutex::new(Vec::new()));
        queue.close();
        wait(queue.deliver_to(Box::new(Points(Arc::clone(&written)))));
        let written = std::mem::take(&mut *written.lock().unwrap());
        let said: Vec<(&str, u64)> = written.iter().map(|(said, cause)| (said.as_str(), cause.seq)).collect();
        assert_eq!(said, [("run 0", 3), ("", 4), ("speed 30", 5)]);
        let Cause { rule, version, ordinal, at, .. } = &written[0].1;
        assert_eq!((&**rule, &**version, *ordinal, *at), ("rule", "5e1f", 0, 7));
        assert_eq!((status.written.get(), status.superseded.get()), (3, 2));
    }

    #[test]
    fn what_newer_rows_say_anew_makes_room_before_the_newest_value_of_a_point() {
        let status = Arc::new(OutputStatus::default());
        let queue = OutputQueue::new("pump", 4, WhenQueueFull::DropOldest, Arc::clone(&status));
        queue.lock().takes_newest = true;
        let row = |name: &str, value| {
            let column = Arc::new(Int64Array::from(vec![value])) as _;
            let batch = RecordBatch::try_from_iter([(name, column)]).unwrap();
            waiting(Rows { batch, seqs: Seqs::One { seq: 0 } })
        };
        wait(queue.push(row("on", 1)));
        (0..50).for_each(|n| wait(queue.push(row("n", n))));
        let written = Arc::new(Mutex::new(Vec::new()));
        queue.close();
        wait(queue.deliver_to(Box::new(Points(Arc::clone(&written)))));
        let written = std::mem::take(&mut *written.lock().unwrap());
        let said: Vec<&str> = written.iter().map(|(said, _)| said.as_str()).collect();
        assert_eq!(said, ["on 1", "n 49"]);
        assert_eq!((status.dropped.get(), status.superseded.get()), (0, 49));
    }
}
