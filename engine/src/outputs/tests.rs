#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Mutex;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidegate_connectors::{By, Cause, Delivery, DeliveryError, Takes, Writes};
use tidegate_core::clock::SystemClock;
use tidegate_core::{Rows, Seqs};

use super::*;
use crate::config::WhenQueueFull;
use crate::status::OutputStatus;
use crate::time::Readings;

fn rows(values: impl IntoIterator<Item = i64>) -> Waiting {
    let batch =
        RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap();
    waiting(Rows { batch, seqs: Seqs::One { seq: 0 } })
}

fn rule(name: &str) -> By {
    By::Rule { name: Arc::from(name), version: Arc::from("5e1f") }
}

fn waiting(rows: Rows) -> Waiting {
    let ordinals = (0..).take(rows.len()).collect();
    Waiting { by: rule("rule"), rows, ordinals, at: 7, is_replayed: false, order: None }
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

async fn deliver(queue: &Arc<OutputQueue>, sink: Box<dyn Sink>) {
    let time = Arc::new(SequenceTime::start(Arc::new(SystemClock), 0, &Readings::default()));
    OutputTask::new(Arc::clone(queue), sink, time).run().await;
}

fn drain(queue: &Arc<OutputQueue>) -> Vec<i64> {
    let recorder = Recorder::default();
    queue.close();
    wait(deliver(queue, Box::new(recorder.clone())));
    std::mem::take(&mut *recorder.0.lock().unwrap())
}

#[test]
fn the_newest_rows_that_failed_count_until_one_is_written() {
    let status = Arc::new(OutputStatus::default());
    // (rows, how many of the newest have failed by then); negative ones fail
    let steps = [(vec![1, -2], 1), (vec![-3, -4], 3), (vec![-5, 6, -7], 1), (vec![-8, 9], 0)];
    for (values, failing) in steps {
        let queue = Arc::new(OutputQueue::new("pump", 5, WhenQueueFull::DropOldest, Arc::clone(&status)));
        wait(queue.push(rows(values)));
        drain(&queue);
        assert_eq!(status.failing.get(), failing);
    }
}

#[test]
fn a_full_queue_drops_its_oldest_rows_and_counts_them() {
    let status = Arc::new(OutputStatus::default());
    let queue = Arc::new(OutputQueue::new("pump", 5, WhenQueueFull::DropOldest, Arc::clone(&status)));
    wait(queue.push(rows(0..4)));
    wait(queue.push(rows(4..7)));
    assert_eq!(drain(&queue), [2, 3, 4, 5, 6]);
    assert_eq!((status.dropped.get(), status.written.get()), (2, 5));
    wait(queue.push(rows(0..1)));
    assert_eq!(status.dropped.get(), 3, "a closed queue takes nothing");
}

#[test]
fn rows_that_are_run_again_are_never_written_and_wait_for_nobody() {
    let status = Arc::new(OutputStatus::default());
    let queue = Arc::new(OutputQueue::new("pump", 2, WhenQueueFull::Block, Arc::clone(&status)));
    let replayed = |values| Waiting { is_replayed: true, ..rows(values) };
    // More than there is room for, and nobody delivers yet.
    assert!(queue.push(replayed(0..9)).now_or_never().is_some());
    wait(queue.push(rows([9])));
    assert!(queue.push(replayed(10..20)).now_or_never().is_some());
    assert_eq!(drain(&queue), [9]);
    assert_eq!((status.written.get(), status.dropped.get(), status.superseded.get()), (1, 0, 0));
    assert!(queue.push(replayed(20..21)).now_or_never().is_some());
    assert_eq!(status.dropped.get(), 0, "what is run again is not lost");
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
            async move { deliver(&queue, Box::new(Slow { given, answer })).await }
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
    let status = Arc::new(OutputStatus::default());
    let queue = OutputQueue::new("pump", 1_000, WhenQueueFull::DropOldest, status);
    [0, 1_000].into_iter().for_each(|first| wait(queue.push(dictionary(first))));
    queue.close();
    let taken = || match queue.pop(Takes::All).now_or_never().unwrap() {
        Some(waiting::Next::Write(handed)) => Some(handed.batch.num_rows()),
        _ => None,
    };
    assert_eq!([taken(), taken(), taken()], [Some(200), Some(200), None]);
}

#[test]
fn whoever_listens_sees_of_each_row_who_wrote_it_and_what_became_of_it() {
    let status = Arc::new(OutputStatus::default());
    let queue = Arc::new(OutputQueue::new("pump", 50, WhenQueueFull::DropOldest, Arc::clone(&status)));
    let mut subscription = status.tap.listen();
    let by = |name: &str, values: &[i64]| Waiting { by: rule(name), ..rows(values.iter().copied()) };
    wait(queue.push(by("on", &[1, -2])));
    wait(queue.push(by("off", &[-3, 4])));
    drain(&queue);
    let mut seen = Vec::new();
    while let Some(Some(passed)) = subscription.next().now_or_never() {
        let failures = passed.failures.unwrap();
        let failed = failures.iter().map(Option::is_some).collect::<Vec<_>>();
        seen.push((passed.rule.unwrap().0.to_string(), failed));
    }
    assert_eq!(seen, [("on".to_owned(), vec![false, true]), ("off".to_owned(), vec![true, false])]);
}

#[test]
fn rows_that_fail_are_counted_and_the_next_ones_go_on() {
    let status = Arc::new(OutputStatus::default());
    let queue = Arc::new(OutputQueue::new("pump", 50, WhenQueueFull::DropOldest, Arc::clone(&status)));
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
    wait(deliver(&queue, Box::new(recorder.clone())));
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

    fn deliver<'a>(&'a mut self, Writes { rows, causes, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
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
    let queue = Arc::new(OutputQueue::new("pump", 50, WhenQueueFull::DropOldest, Arc::clone(&status)));
    let row = |values: [(&str, Option<i64>); 2], seq| {
        let columns = values.map(|(name, value)| (name, Arc::new(Int64Array::from(vec![value])) as _, true));
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
    wait(deliver(&queue, Box::new(Points(Arc::clone(&written)))));
    let written = std::mem::take(&mut *written.lock().unwrap());
    let said: Vec<(&str, u64)> = written.iter().map(|(said, cause)| (said.as_str(), cause.seq)).collect();
    assert_eq!(said, [("run 0", 3), ("", 4), ("speed 30", 5)]);
    let Cause { by, ordinal, at, .. } = &written[0].1;
    assert_eq!((by, *ordinal, *at), (&rule("rule"), 0, 7));
    assert_eq!((status.written.get(), status.superseded.get()), (3, 2));
}

#[test]
fn what_newer_rows_say_anew_makes_room_before_the_newest_value_of_a_point() {
    let status = Arc::new(OutputStatus::default());
    let queue = Arc::new(OutputQueue::new("pump", 4, WhenQueueFull::DropOldest, Arc::clone(&status)));
    queue.take_newest();
    let row = |name: &str, value| {
        let column = Arc::new(Int64Array::from(vec![value])) as _;
        let batch = RecordBatch::try_from_iter([(name, column)]).unwrap();
        waiting(Rows { batch, seqs: Seqs::One { seq: 0 } })
    };
    wait(queue.push(row("on", 1)));
    (0..50).for_each(|n| wait(queue.push(row("n", n))));
    let written = Arc::new(Mutex::new(Vec::new()));
    queue.close();
    wait(deliver(&queue, Box::new(Points(Arc::clone(&written)))));
    let written = std::mem::take(&mut *written.lock().unwrap());
    let said: Vec<&str> = written.iter().map(|(said, _)| said.as_str()).collect();
    assert_eq!(said, ["on 1", "n 49"]);
    assert_eq!((status.dropped.get(), status.superseded.get()), (0, 49));
}
