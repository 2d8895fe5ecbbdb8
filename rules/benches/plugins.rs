//! What a plugin costs, next to the same computation in Rust on the same Arrow columns, in one run.
//!
//! `cargo bench -p tidegate-rules --bench plugins` measures, with `-- --quick` it only shows that it works.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a benchmark ends where it fails"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimestampNanosecondType};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::wasm::pack;
use tidegate_rules::{
    Catalog, CompileError, CompiledPlugins, Emissions, Language, Plugins, Rule, Source, When, compile,
};

const THRESHOLD: &str = include_str!("../tests/wasm/threshold.wat");
const ZSCORE: &str = include_str!("../tests/wasm/zscore.wat");
const MANIFEST: &str =
    "reads = [\"tank\"]\n[writes.uplink]\ncolumns = { ts = \"timestamp\", score = \"float64\" }\n";

/// Keeps compiled plugins in memory.
#[derive(Debug, Default)]
struct InMemory(Mutex<BTreeMap<String, Vec<u8>>>);

impl CompiledPlugins for InMemory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &str, code: &[u8]) {
        self.0.lock().unwrap().insert(key.to_owned(), code.to_vec());
    }
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (turns, turn) = if quick { (1, Duration::ZERO) } else { (41, Duration::from_millis(10)) };
    for (name, code, native) in [
        ("threshold", THRESHOLD, threshold as fn(&RecordBatch, &mut [f64; 3]) -> RecordBatch),
        ("z-score", ZSCORE, zscore),
    ] {
        let source = source(code);
        let kept = Arc::new(InMemory::default());
        let compiles = Instant::now();
        drop(plugin(&source, &kept));
        let compiles = compiles.elapsed();
        let loads = Instant::now();
        let mut rule = plugin(&source, &kept);
        let loads = loads.elapsed();
        println!("{name}: compiled in {compiles:.1?}, loaded in {loads:.1?}");
        for count in [1, 100, 8_192] {
            let rows = tank(count);
            let mut state = [0.0; 3];
            let mut subject = || {
                let mut out = Emissions::default();
                rule.on_batch("tank", &rows, When::at(0), &mut out).unwrap();
                black_box(out);
            };
            let mut reference = || drop(black_box(native(&rows.batch, &mut state)));
            let (subject, reference) = by_turns(turns, turn, &mut subject, &mut reference);
            let each = |time: f64| time * 1e9 / count as f64;
            println!(
                "  {count:>5} rows: {:>8.1} ns a row, native {:>7.1} ns: {:.2} x",
                each(subject),
                each(reference),
                subject / reference
            );
        }
    }
}

/// The median seconds of a call of each, which take turns.
fn by_turns(turns: usize, turn: Duration, one: &mut dyn FnMut(), other: &mut dyn FnMut()) -> (f64, f64) {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        ones.push(time(turn, one));
        others.push(time(turn, other));
    }
    (median(ones), median(others))
}

fn time(turn: Duration, call: &mut dyn FnMut()) -> f64 {
    let (begin, mut calls) = (Instant::now(), 0_u32);
    while calls == 0 || begin.elapsed() < turn {
        (0..16).for_each(|_| call());
        calls += 16;
    }
    begin.elapsed().as_secs_f64() / f64::from(calls)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap()
}

fn source(code: &str) -> Source {
    let text = include_str!("../tests/wasm/plugin.wat");
    let component = wat::parse_str(text.replace("{{CODE}}", code).replace("{{VERSION}}", "1.0.0")).unwrap();
    Source::new(Language::Wasm, pack(&component, MANIFEST))
}

fn plugin(source: &Source, kept: &Arc<InMemory>) -> Box<dyn Rule> {
    let compiled: Arc<dyn CompiledPlugins> = Arc::clone(kept) as _;
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(schema()))].into(),
        uplink: true,
        plugins: Plugins { compiled: Some(compiled), ..Plugins::default() },
        ..Catalog::default()
    };
    match compile("plugin.wasm", source, &catalog) {
        Ok(compiled) => compiled.rule,
        Err(CompileError::Wrong(wrong)) => panic!("{wrong:?}"),
        Err(CompileError::Waiting(streams)) => panic!("waits for {streams:?}"),
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![ts_field(), Field::new("temperature", DataType::Float64, true)]))
}

/// One row in ten is above 80.
fn tank(rows: usize) -> Rows {
    let times: Vec<i64> = (0..rows as i64).map(|row| row * 1_000_000).collect();
    let temperatures: Vec<f64> =
        (0..rows).map(|row| if row % 10 == 0 { 81.0 } else { (row % 70) as f64 }).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Float64Array::from(temperatures)),
    ];
    Rows { batch: RecordBatch::try_new(schema(), columns).unwrap(), seqs: Seqs::Run { first: 1 } }
}

fn written(times: Vec<i64>, scores: Vec<f64>) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Float64Array::from(scores)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn columns(rows: &RecordBatch) -> (&[i64], &[f64]) {
    let times = rows.column(0).as_primitive::<TimestampNanosecondType>().values();
    (times, rows.column(1).as_primitive::<Float64Type>().values())
}

fn threshold(rows: &RecordBatch, _: &mut [f64; 3]) -> RecordBatch {
    let (times, temperatures) = columns(rows);
    let (mut hot_times, mut scores) = (Vec::new(), Vec::new());
    for (time, x) in times.iter().zip(temperatures) {
        if *x > 80.0 {
            hot_times.push(*time);
            scores.push(*x);
        }
    }
    written(hot_times, scores)
}

fn zscore(rows: &RecordBatch, state: &mut [f64; 3]) -> RecordBatch {
    let (times, temperatures) = columns(rows);
    let [n, mean, squares] = state;
    let score = |x: &f64| {
        let off = x - *mean;
        let score = if *squares > 0.0 { off / (*squares / *n).sqrt() } else { 0.0 };
        *n += 1.0;
        *mean += off / *n;
        *squares += off * (x - *mean);
        score
    };
    let scores = temperatures.iter().map(score).collect();
    written(times.to_vec(), scores)
}
