//! Recorded rows and the ticks between them.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use arrow::array::{Int64Array, TimestampNanosecondArray};
use tidegate_rules::Target;

use super::chunk::Origin;
use super::*;
use crate::rules::worker::tests::{Echo, running};

const S: i64 = 1_000_000_000;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a rule writes that repeats each row `delay` later, when rows with these times are read so many at a
/// time. And how many numbers it took.
fn replayed(delay: i64, times: &[i64], cut: usize) -> (Vec<i64>, u64) {
    let output = Output::default();
    let mut run = Run::new(&Arc::default(), Results::new(Box::new(output.clone())));
    run.one_by_one = running("r", Echo::new("tank", Target::Uplink, delay));
    for (at, times) in times.chunks(cut).enumerate() {
        let values = Int64Array::from_iter_values((0..).skip(at * cut).take(times.len()));
        let ts = TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC");
        let rows =
            RecordBatch::try_from_iter([("ts", Arc::new(ts) as _), ("x", Arc::new(values) as _)]).unwrap();
        let origins = times.iter().zip(1..).map(|(at, line)| Origin { at: *at, line }).collect();
        run.feed(&Chunk { stream: "tank".into(), file: "tank.jsonl".into(), rows, origins }).unwrap();
    }
    let numbers = run.numbers.next();
    run.end().unwrap();
    let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    (rows.map(|row| row["row"]["x"].as_i64().unwrap()).collect(), numbers)
}

#[test]
fn ticks_come_between_rows_as_on_a_box_wherever_the_recording_is_cut() {
    // A row goes before the tick that is due at the same time; times that go back do not move time.
    let times = [0, S, 3 * S, 2 * S, 3 * S, 10 * S, 11 * S, 12 * S];
    for cut in 1..=times.len() {
        assert_eq!(replayed(2 * S, &times, cut), ([0, 1, 2, 3, 4].to_vec(), 8 + 3), "cut into {cut}");
        // At 10 s the rows of 0 s, at 11 s that of 1 s wait for the tick that comes after them.
        assert_eq!(replayed(10 * S, &times, cut), ([0, 1].to_vec(), 8 + 2), "cut into {cut}");
    }
}

#[test]
fn the_end_of_a_recording_is_no_tick() {
    assert_eq!(replayed(5 * S, &[0, S], 2), (Vec::new(), 2));
}
