//! Rows into the outbox, beside the same blocks in a SQLite database with nothing around it.
//!
//! `cargo bench -p tidegate --bench outbox` measures; `-- --quick` only shows that it works.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark ends where it fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tidegate::buffer::{Buffer, OutboxRows, Uplinks};
use tidegate::config;
use tidegate::disk::SystemDisk;
use tidegate::status::OutboxStatus;
use tidegate_core::clock::SystemClock;
use tidegate_core::{Ack, Rows, Seqs};
use tidegate_rules::{DeliveryPolicy, WhenFull};

/// Rows of one append.
const ROWS: u64 = 1_000;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rows, rounds) = if quick { (10 * ROWS, 1) } else { (4_000 * ROWS, 3) };
    println!("| what | rows/s | x SQLite alone | commits | bytes a row in the file |");
    println!("| --- | --- | --- | --- | --- |");
    for _ in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.db");
        let (outbox, commits) = fill(&path, rows);
        let bytes = std::fs::metadata(&path).unwrap().len() as f64 / rows as f64;
        let alone = alone(&path, &dir.path().join("alone.db"), commits);
        let rate = |took: Duration| rows as f64 / took.as_secs_f64();
        let ratio = rate(outbox) / rate(alone);
        println!(
            "| rows of 5 columns into the outbox, {ROWS} an append | {:.0} | {ratio:.2} | {commits} | \
            {bytes:.1} |",
            rate(outbox)
        );
        println!("| the same blocks, SQLite alone | {:.0} | 1 | {commits} | |", rate(alone));
    }
}

/// Appends `rows` to a new buffer at `path`; returns how long it takes until the last is on disk, and the
/// number of commits.
fn fill(path: &Path, rows: u64) -> (Duration, u64) {
    let text = "name = \"bench\"\nconnections.cloud = { kind = \"mqtt\", host = \"127.0.0.1\" }\nuplink = { \
        connection = \"cloud\", topic = \"up\" }\n";
    let config = config::parse(text, "bench.toml", path.parent().unwrap()).unwrap();
    let status = Arc::new(OutboxStatus::default());
    let settings = config::Buffer {
        max_size: tidegate_core::ByteSize(u64::MAX >> 1),
        when_full: WhenFull::Block,
        ..config::Buffer::at(path.to_owned())
    };
    let (buffer, writer) = Buffer::open(
        &settings,
        Uplinks::from_config(&config.uplinks),
        Arc::new(SystemClock),
        Arc::new(SystemDisk),
        Arc::clone(&status),
    )
    .unwrap();
    let on_thread = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let writing = std::thread::spawn(move || on_thread().block_on(writer));
    let batches: Vec<RecordBatch> = (0..64).map(batch).collect();
    let begun = Instant::now();
    on_thread().block_on(async {
        for (at, first) in (0..rows).step_by(usize::try_from(ROWS).unwrap()).enumerate() {
            let rows = Rows { batch: batches[at % batches.len()].clone(), seqs: Seqs::Run { first } };
            let ordinals = vec![0; rows.len()];
            let (rule, delivery, now_ns) =
                ("load".into(), DeliveryPolicy::default(), i64::try_from(first).unwrap());
            buffer
                .append(vec![OutboxRows { rule, rows, ordinals, delivery, now_ns, ack: Ack::none() }])
                .await
                .unwrap();
        }
        buffer.close().await;
    });
    let took = begun.elapsed();
    writing.join().unwrap();
    assert_eq!(status.committed.get(), rows);
    (took, status.commits.get())
}

/// What a plant sends: values that move a little, a few devices, a flag.
fn batch(number: u64) -> RecordBatch {
    let rows = || (0..ROWS).map(move |row| number * ROWS + row);
    // A linear congruential generator (Knuth's MMIX): the same rows in each run.
    let noise = |n: u64| {
        (n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 40) as f64
            / f64::from(1 << 24)
    };
    let columns: [(&str, ArrayRef); 5] = [
        ("n", Arc::new(Int64Array::from_iter_values(rows().map(|n| i64::try_from(n).unwrap())))),
        ("device", Arc::new(StringArray::from_iter_values(rows().map(|n| format!("device-{}", n % 20))))),
        (
            "temperature",
            Arc::new(Float64Array::from_iter_values(
                rows().map(|n| (200.0 + 100.0 * noise(n)).round() / 10.0),
            )),
        ),
        (
            "pressure",
            Arc::new(Float64Array::from_iter_values(
                rows().map(|n| (1_000.0 + 50.0 * noise(n + 1)).round() / 1_000.0),
            )),
        ),
        ("ok", Arc::new(rows().map(|n| Some(n % 50 != 0)).collect::<BooleanArray>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Writes the blocks of the buffer at `from` to a database of the same kind, with nothing else, in as many
/// commits.
fn alone(from: &Path, to: &Path, commits: u64) -> Duration {
    let from = Connection::open(from).unwrap();
    let text = |sql: &str| from.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    let mut to = Connection::open(to).unwrap();
    let page: u32 = from.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    let settings =
        format!("PRAGMA page_size = {page}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL");
    let table = text("SELECT sql FROM sqlite_schema WHERE name = 'block'");
    to.execute_batch(&format!(
        "{settings}; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000; {table}"
    ))
    .unwrap();
    let mut select = from.prepare("SELECT * FROM block ORDER BY id").unwrap();
    let columns = select.column_count();
    let blocks: Vec<Vec<Value>> = select
        .query_map([], |row| (0..columns).map(|at| row.get(at)).collect::<Result<_, _>>())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let insert = format!("INSERT INTO block VALUES ({})", vec!["?"; columns].join(","));
    let each = blocks.len().div_ceil(usize::try_from(commits).unwrap().max(1));
    let begun = Instant::now();
    for some in blocks.chunks(each) {
        let tx = to.transaction().unwrap();
        for block in some {
            tx.prepare_cached(&insert).unwrap().execute(params_from_iter(block)).unwrap();
        }
        tx.commit().unwrap();
    }
    begun.elapsed()
}
