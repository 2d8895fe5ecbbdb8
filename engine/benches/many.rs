//! What many rules on one stream cost: time to load them, memory, and time for a batch.
//!
//! `cargo bench -p tidegate --bench many` measures; `-- --quick` only shows that it works. `-- --memory N`
//! prints what N rules take and ends: each number of rules is measured in a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark ends where it fails"
)]

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::FutureExt;
use tidegate::rules::book::RuleBook;
use tidegate::rules::worker::Worker;
use tidegate::status::Status;
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Language, OutputColumns, Source, When};

/// A kind of rule, and of how many rules one matches a row.
struct Kind {
    name: &'static str,
    text: fn(usize) -> String,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "threshold, none matches",
        text: |n| format!("INSERT INTO uplink SELECT device, level FROM tank WHERE level > {}", 1_000 + n),
    },
    Kind {
        name: "device and threshold, one matches a row",
        text: |n| {
            format!(
                "INSERT INTO uplink SELECT device, level FROM tank WHERE device = 'device-{n}' AND level > 10"
            )
        },
    },
    Kind {
        name: "function of a column, none matches",
        text: |n| {
            format!("INSERT INTO uplink SELECT device, level FROM tank WHERE sqrt(level) > {}", 1_000 + n)
        },
    },
    Kind {
        name: "equal windows",
        text: |n| {
            format!(
                "INSERT INTO uplink SELECT device, avg(level) AS level FROM TUMBLE(tank, DESCRIPTOR(ts), \
                INTERVAL '10' SECOND) GROUP BY window_start, window_end, device HAVING avg(level) > {}",
                1_000 + n
            )
        },
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--memory") {
        return memory(arguments[at + 1].parse().unwrap());
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (counts, turn) = if quick {
        (&[1, 10, 100][..], Duration::from_millis(2))
    } else {
        (&[1, 10, 100, 1_000, 10_000][..], Duration::from_millis(200))
    };
    println!("| rules | kind | loaded in | 1-row batch | x 10 rules | 1 000-row batch | x 10 rules |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for Kind { name, text } in &KINDS {
        let mut ten = (f64::NAN, f64::NAN);
        for count in counts {
            let (mut worker, loaded) = load(*count, text);
            let (one, thousand) = (cost(&mut worker, 1, turn), cost(&mut worker, 1_000, turn));
            if *count == 10 {
                ten = (one, thousand);
            }
            println!(
                "| {count} | {name} | {:.1} ms | {:.2} us | {} | {:.1} us | {} |",
                loaded.as_secs_f64() * 1e3,
                one * 1e6,
                ratio(one, ten.0),
                thousand * 1e6,
                ratio(thousand, ten.1)
            );
        }
    }
    println!("\n| rules | resident memory | bytes a rule |");
    println!("| --- | --- | --- |");
    let mut base = 0.0;
    for count in counts {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--memory", &count.to_string()])
            .output()
            .unwrap();
        let kib: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        if *count == counts[0] {
            base = kib;
        }
        // Below a thousand it is the allocator's pages that are counted.
        let each = (kib - base) * 1024.0 / (*count as f64 - counts[0] as f64);
        let each = if *count < 1_000 { String::new() } else { format!("{each:.0}") };
        println!("| {count} | {:.1} MiB | {each} |", kib / 1024.0);
    }
}

/// Empty when there is no reference yet.
fn ratio(time: f64, reference: f64) -> String {
    if reference.is_nan() { String::new() } else { format!("{:.1}", time / reference) }
}

/// Prints the resident memory of this process with `count` rules, in KiB.
fn memory(count: usize) {
    let (mut worker, _) = load(count, &KINDS[0].text);
    cost(&mut worker, 1, Duration::ZERO);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    println!("{}", line.trim().trim_end_matches(" kB"));
}

/// A worker with `count` rules, and how long it took to load them.
fn load(count: usize, text: &fn(usize) -> String) -> (Worker, Duration) {
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(schema()))].into(),
        outputs: [("out".to_owned(), OutputColumns::default())].into(),
        uplink: true,
        ..Catalog::default()
    };
    let status = Arc::new(Status::default());
    let mut book = RuleBook::new(catalog, 1, Arc::clone(&status));
    let mut worker = Worker::new(status);
    let start = Instant::now();
    for n in 0..count {
        let name: Arc<str> = format!("rule-{n:05}").into();
        for (_, change) in book.put(&name, "rule.sql", &Source::new(Language::Sql, text(n)), &name).changes {
            worker.on_change(change).now_or_never().unwrap();
        }
    }
    (worker, start.elapsed())
}

/// Seconds that the rules of `worker` take for a batch of `rows` rows.
fn cost(worker: &mut Worker, rows: usize, turn: Duration) -> f64 {
    let batch = batch(rows);
    let mut seq = 0;
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < 3 || begun.elapsed() < turn {
        let numbered = Rows { batch: batch.clone(), seqs: Seqs::Run { first: seq } };
        seq += rows as u64;
        let start = Instant::now();
        black_box(worker.on_batch("tank", &numbered, When::at(0)));
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("level", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
    ]))
}

fn batch(rows: usize) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampNanosecondArray::from_iter_values((0..rows as i64).map(|n| n * 1_000_000))
                .with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter_values((0..rows).map(|n| format!("device-{n}")))),
        Arc::new(Float64Array::from_iter_values((0..rows).map(|n| 20.0 + (n % 97) as f64 / 4.0))),
        Arc::new(Int64Array::from_iter_values(0..rows as i64)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}
