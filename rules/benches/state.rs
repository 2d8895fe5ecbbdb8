//! What a key costs: how much memory a rule takes from the allocator for what it keeps, and how much it says
//! that it keeps, which is what `max_state` limits. Ends with an error where the two are further apart than a
//! quarter.
//!
//! A build without optimisation keeps the same bytes, so that `cargo test` runs this too.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a benchmark ends where it fails"
)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use peak_alloc::PeakAlloc;
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, Emissions, Language, OutputColumns, Rule, Source, When, compile,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const KEYS: i64 = 10_000;
const BATCH_ROWS: i64 = 1_000;
const SECOND: i64 = 1_000_000_000;

/// How far what a rule says may be from what it takes.
const TOLERANCE: f64 = 0.25;

/// A rule, and for how many seconds each key has a row every second; of both streams where the rule reads
/// two.
struct Case {
    what: &'static str,
    seconds: i64,
    text: &'static str,
}

const CASES: &[Case] = &[
    Case {
        what: "tumbling average",
        seconds: 3,
        text: "INSERT INTO out SELECT window_start, device, avg(temperature) AS mean FROM TUMBLE(tank, \
            DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device",
    },
    Case {
        what: "hopping average, 60 panes",
        seconds: 60,
        text: "INSERT INTO out SELECT window_start, device, avg(temperature) AS mean FROM HOP(tank, \
            DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '60' SECOND) GROUP BY window_start, window_end, \
            device",
    },
    Case {
        what: "tumbling average with early results",
        seconds: 3,
        text: "--! emit_every = \"1s\"\nINSERT INTO out SELECT window_start, device, avg(temperature) AS \
            mean FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, \
            device",
    },
    Case {
        what: "average of a session of 3 rows",
        seconds: 3,
        text: "INSERT INTO out SELECT window_start, device, avg(temperature) AS mean FROM SESSION(tank \
            PARTITION BY device, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, \
            device",
    },
    Case {
        what: "average of a session of 20 rows",
        seconds: 20,
        text: "INSERT INTO out SELECT window_start, device, avg(temperature) AS mean FROM SESSION(tank \
            PARTITION BY device, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, \
            device",
    },
    Case {
        what: "rows of a window of 10 rows, 3 of them there",
        seconds: 3,
        text: "INSERT INTO out SELECT window_start, device, temperature FROM COUNT_WINDOW(tank PARTITION BY \
            device, 10)",
    },
    Case {
        what: "GROUP BY with state_ttl: average",
        seconds: 3,
        text: "--! state_ttl = \"1h\"\nINSERT INTO out SELECT device, avg(temperature) AS mean FROM tank \
            GROUP BY device",
    },
    Case {
        what: "lag",
        seconds: 3,
        text: "INSERT INTO out SELECT device, lag(temperature) OVER (PARTITION BY device) AS before FROM \
            tank",
    },
    Case {
        what: "mean of the last 10 rows",
        seconds: 12,
        text: "INSERT INTO out SELECT device, avg(temperature) OVER (PARTITION BY device ROWS BETWEEN 9 \
            PRECEDING AND CURRENT ROW) AS mean FROM tank",
    },
    Case {
        what: "became and held",
        seconds: 3,
        text: "INSERT INTO out SELECT device, became(temperature > 80) OVER (PARTITION BY device) AS rose, \
               held(temperature > 10, INTERVAL '1' MINUTE) OVER (PARTITION BY device) AS stays FROM tank",
    },
    Case {
        what: "rows that wait for their turn, 5 of each key",
        seconds: 5,
        text: "--! lateness = \"1m\"\nINSERT INTO out SELECT device, lag(temperature) OVER (PARTITION BY \
            device ORDER BY ts) AS before FROM tank",
    },
    Case {
        what: "join with the row that came last",
        seconds: 3,
        text: "INSERT INTO out SELECT t.device, v.temperature AS last FROM tank t \
               JOIN valve FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS v ON t.device = v.device",
    },
    Case {
        what: "join with the latest row, with state_ttl",
        seconds: 3,
        text: "--! state_ttl = \"1h\"\nINSERT INTO out SELECT t.device, v.temperature AS last FROM tank t \
               LEFT JOIN valve FOR SYSTEM_TIME AS OF t.ts AS v ON t.device = v.device",
    },
    Case {
        what: "join within an interval, 1 row of each side",
        seconds: 1,
        text: "INSERT INTO out SELECT t.device, v.temperature AS other FROM tank t LEFT JOIN valve v ON \
            t.device = v.device AND v.ts BETWEEN t.ts - INTERVAL '10' SECOND AND t.ts + INTERVAL '10' SECOND",
    },
    Case {
        what: "pattern of 3 steps, 2 of them there",
        seconds: 2,
        text: "INSERT INTO out SELECT device, low FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts \
               MEASURES FIRST(b.temperature) AS low PATTERN (a b c) WITHIN INTERVAL '1' MINUTE \
               DEFINE b AS temperature > PREV(temperature), c AS temperature < PREV(temperature))",
    },
];

fn main() {
    println!("| what is kept | bytes a key | what the rule says | ratio |");
    println!("| --- | --- | --- | --- |");
    let wrong: Vec<&str> = CASES.iter().filter(|case| !is_honest(case)).map(|case| case.what).collect();
    assert!(wrong.is_empty(), "the rule does not say what it takes, within a quarter: {}", wrong.join("; "));
}

/// Prints a line of the table. Returns whether the rule says what it takes.
fn is_honest(case: &Case) -> bool {
    let mut rule = rule(case.text);
    let before = ALLOCATOR.current_usage();
    let said = run(&mut *rule, case.seconds);
    let taken = ALLOCATOR.current_usage().saturating_sub(before) as f64;
    let ratio = said as f64 / taken;
    println!(
        "| {} | {:.0} | {:.0} | {ratio:.2} |",
        case.what,
        taken / KEYS as f64,
        said as f64 / KEYS as f64
    );
    (ratio - 1.0).abs() <= TOLERANCE
}

/// Feeds the rows, and returns how much the rule says that it keeps then.
fn run(rule: &mut dyn Rule, seconds: i64) -> u64 {
    let streams: Vec<Arc<str>> = ["valve", "tank"].into_iter().map(Arc::from).collect();
    let read: Vec<&Arc<str>> =
        streams.iter().filter(|stream| rule.flows().iter().any(|flow| flow.input == **stream)).collect();
    let (mut seq, mut said) = (0, 0);
    for second in 0..seconds {
        for first in (0..KEYS).step_by(usize::try_from(BATCH_ROWS).unwrap()) {
            for stream in &read {
                let mut out = Emissions::default();
                let rows = Rows { batch: rows(second, first), seqs: Seqs::Run { first: seq } };
                seq += BATCH_ROWS.unsigned_abs();
                rule.on_batch(stream, &rows, When::at(0), &mut out).unwrap();
                assert!(out.late == 0 && out.bad_rows == 0, "{:?}", out.bad_row);
                said = out.state_bytes;
            }
        }
    }
    said
}

/// A row of each of the keys from `first` on.
fn rows(second: i64, first: i64) -> RecordBatch {
    let keys = || first..first + BATCH_ROWS;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampNanosecondArray::from_iter_values(keys().map(|key| second * SECOND + key * 1_000))
                .with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter_values(keys().map(|key| format!("device-{key:05}")))),
        Arc::new(Float64Array::from_iter_values(
            keys().map(|key| 20.0 + second as f64 + (key % 97) as f64 / 4.0),
        )),
        Arc::new(Int64Array::from_iter_values(keys())),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("temperature", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
    ]))
}

fn rule(text: &str) -> Box<dyn Rule> {
    let catalog = Catalog {
        inputs: ["tank", "valve"].map(|stream| (stream.to_owned(), Some(schema()))).into(),
        outputs: [("out".to_owned(), OutputColumns::default())].into(),
        ..Catalog::default()
    };
    match compile("bench.sql", &Source::new(Language::Sql, text), &catalog) {
        Ok(compiled) => compiled.rule,
        Err(CompileError::Wrong(wrong)) => {
            panic!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        Err(CompileError::Waiting(streams)) => panic!("the rule waits for {streams:?}"),
    }
}
