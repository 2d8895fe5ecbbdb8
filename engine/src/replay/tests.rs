//! Recorded rows and the ticks between them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Float64Array, Int64Array, RecordBatch, TimestampNanosecondArray};
use proptest::prelude::*;
use tidegate_rules::{Language, Source, Target};

use super::chunk::{Chunk, Origin};
use super::plant::{self, Plant};
use super::results::Results;
use super::run::{Came, Run};
use crate::catalog::catalog;
use crate::config::{self, Value, Values};
use crate::decision::Outcome;
use crate::outputs::contract::{Contracts, Order, What};
use crate::rules::book::RuleBook;
use crate::rules::worker::tests::{Echo, running};
use crate::status::Status;
use crate::system::writes::{self, WriteReport};

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
    let mut results = Results::new(Box::new(output.clone()));
    let mut run = Run::new(&Arc::default(), Contracts::default(), Plant::ideal());
    run.put(running("r", Echo::new("tank", Target::Uplink, delay)));
    for (at, times) in times.chunks(cut).enumerate() {
        let values = Int64Array::from_iter_values((0..).skip(at * cut).take(times.len()));
        let ts = TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC");
        let rows =
            RecordBatch::try_from_iter([("ts", Arc::new(ts) as _), ("x", Arc::new(values) as _)]).unwrap();
        let origins = times.iter().zip(1..).map(|(at, line)| Origin::new(*at, line)).collect();
        let chunk = Chunk { stream: "tank".into(), file: "tank.jsonl".into(), rows, origins };
        results.write(&run.feed(&chunk)).unwrap();
    }
    let numbers = run.numbers.next();
    results.write(&run.end()).unwrap();
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

/// What the output `valve` would have been sent, as nanoseconds and its opening, when `rows` (time and `v`)
/// are read so many at a time, and each claims an opening of `v`.
fn opened(contract: &str, rows: &[(i64, f64)], cut: usize) -> Vec<(i64, f64)> {
    let text = format!(
        "name = \"box\"\n[connections.plant]\nkind = \"mqtt\"\nhost = \"localhost\"\n[streams.tank]\n\
        connection = \"plant\"\ntopic = \"tank\"\nts = \"ts\"\nfields = {{ v = \"float64\" }}\n\
        [outputs.valve]\nconnection = \"plant\"\ntopic = \"valve\"\n[outputs.valve.contract]\n{contract}"
    );
    let config = config::parse(&text, "tidegate.toml", Path::new(".")).unwrap();
    let (catalog, status) = (catalog(&config, &|_| None), Arc::new(Status::default()));
    let schema = catalog.inputs["tank"].clone().unwrap();
    let contracts = Contracts::from_config(&plant::unseen(&config), &catalog, &status);
    let mut book = RuleBook::new(catalog, 1, Arc::clone(&status)).governed_by(&contracts);
    let source = Source::new(Language::Sql, "INSERT INTO valve SELECT v AS opening FROM tank");
    let changes = book.put(&"r".into(), "r.sql", &source, &"r".into()).changes;
    assert!(book.wrong().is_empty(), "{:?}", book.wrong());
    let mut run = Run::new(&status, contracts, Plant::ideal());
    run.load(changes.into_iter().map(|(_, change)| change).collect(), &book);
    let mut sent = Vec::new();
    let mut note = |came: Came<'_>| {
        for order in came.made.orders {
            let What::Write { values, .. } = &order.what else { continue };
            sent.push((order.at, values["opening"].number().unwrap()));
        }
    };
    for rows in rows.chunks(cut) {
        let ts = TimestampNanosecondArray::from_iter_values(rows.iter().map(|(at, _)| *at));
        let v = Float64Array::from_iter_values(rows.iter().map(|(_, v)| *v));
        let columns = vec![Arc::new(ts.with_timezone("UTC")) as _, Arc::new(v) as _];
        let origins = rows.iter().zip(1..).map(|((at, _), line)| Origin::new(*at, line)).collect();
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        note(run.feed(&Chunk { stream: "tank".into(), file: "tank.jsonl".into(), rows, origins }));
    }
    note(run.end());
    sent
}

#[test]
fn a_ramp_goes_on_between_rows_and_reaches_its_end_wherever_the_recording_is_cut() {
    let contract = "expiry = \"60s\"\nfailsafe = \"hold\"\nrange = { opening = [0, 100] }\n\
        slew = { opening = \"10/s\" }\n";
    let rows = [(0, 0.0), (S, 200.0), (S, 150.0), (2 * S, 120.0), (3 * S, 130.0), (30 * S, 101.0)];
    let whole = opened(contract, &rows, rows.len());
    // It claims more than 100 from the first second on, and ten a second are allowed.
    assert_eq!(whole.first(), Some(&(0, 0.0)), "{whole:?}");
    assert_eq!(whole.last().map(|(_, opening)| *opening), Some(100.0), "{whole:?}");
    assert!(whole.len() > 10, "{whole:?}");
    for pair in whole.windows(2) {
        #[allow(clippy::cast_precision_loss)]
        let seconds = (pair[1].0 - pair[0].0) as f64 / 1e9;
        // A step is what half a second allows, at most.
        assert!(pair[1].1 - pair[0].1 <= 10.0 * seconds.clamp(0.5, 1.0) + 1e-9, "{whole:?}");
    }
    for cut in 1..rows.len() {
        assert_eq!(opened(contract, &rows, cut), whole, "cut into {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is claimed, and whenever.
    #[test]
    fn what_is_sent_does_not_depend_on_where_a_recording_was_cut(
        steps in prop::collection::vec((0_i64..6, -50_f64..150.0), 1..40),
        cut in 1_usize..7,
    ) {
        let contract = "expiry = \"5s\"\nfailsafe = { opening = 0 }\nfailsafe_after = \"1s\"\n\
            range = { opening = [0, 100] }\nslew = { opening = \"20/s\" }\ndeadband = { opening = 3 }\n\
            rate = \"1/s\"\n";
        let mut now = 0;
        let rows: Vec<(i64, f64)> = steps
            .into_iter()
            .map(|(halves, v)| {
                now += halves * S / 2;
                (now, v)
            })
            .collect();
        prop_assert_eq!(opened(contract, &rows, cut), opened(contract, &rows, rows.len()));
    }
}

#[test]
fn a_claim_that_nobody_renews_ends_when_no_row_comes() {
    let contract = "expiry = \"5s\"\nfailsafe = { opening = 0 }\n";
    let rows = [(0, 40.0), (60 * S, 50.0)];
    assert_eq!(opened(contract, &rows, 1), [(0, 40.0), (5 * S, 0.0), (60 * S, 50.0)]);
}

#[test]
fn a_write_is_answered_as_the_same_write_was_then() {
    let order = |write: u64, at: i64, on: bool| Order {
        output: "pump".into(),
        instance: "".into(),
        write,
        by: crate::decision::Origin::Failsafe { because: "a test".into() },
        seq: write,
        at,
        until: None,
        gives_way: true,
        what: What::Write { key: Values::new(), values: [("run".into(), Value::Bool(on))].into() },
    };
    let recorded = |write: u64, outcome: Outcome, on: bool| {
        let (output, instance, values) = ("pump".into(), "".into(), [("run".into(), Value::Bool(on))].into());
        let (rule, reason) = (None, Some("it is so".to_owned()));
        writes::rows(&[(7, WriteReport { output, instance, write, rule, outcome, reason, values })]).unwrap()
    };
    let mut plant = Plant::recorded_beside();
    plant.told(&[order(1, 0, true), order(2, 0, false)]);
    // The box had counted further, and has also done something else.
    let answer = plant.recorded(&recorded(78, Outcome::Refused, false)).unwrap();
    let answer = WriteReport::read(&answer).remove(0);
    assert_eq!(
        (answer.write, answer.outcome, answer.reason.as_deref()),
        (2, Outcome::Refused, Some("it is so"))
    );
    assert!(plant.recorded(&recorded(79, Outcome::Refused, false)).is_none(), "it is answered");
    assert!(plant.recorded(&recorded(80, Outcome::Read, true)).is_none(), "nothing is read here");
    // Of the other one the recording knows nothing.
    assert_eq!(plant.answers_at(), Some(S));
    assert!(plant.answers(S - 1, 0).is_none());
    let answer = WriteReport::read(&plant.answers(S, 0).unwrap()).remove(0);
    assert_eq!((answer.write, answer.outcome), (1, Outcome::Acknowledged));
    assert_eq!((plant.as_recorded, plant.assumed, plant.answers_at()), (1, 1, None));
}
