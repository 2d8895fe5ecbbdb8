//! What a rule costs, next to the same computation with DataFusion alone, in one run.
//!
//! Subject and reference take turns, so that both see the same machine; the figure is the median of the
//! turns. `cargo bench -p tidegate-rules` measures, `cargo bench -p tidegate-rules -- --quick` only shows
//! that it works.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark ends where it fails"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::cast::as_boolean_array;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, Emissions, Language, OutputColumns, Rule, Source, When, compile,
};

const FILTER: &str = "INSERT INTO out SELECT device, temperature FROM tank WHERE temperature > 80";
const TUMBLE: &str = "INSERT INTO out SELECT window_start, device, avg(temperature) AS mean \
     FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device";
const HOP: &str = "INSERT INTO out SELECT window_start, device, avg(temperature) AS mean FROM HOP(tank, \
    DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '60' SECOND) GROUP BY window_start, window_end, device";
const HOP_TUMBLE: &str = "INSERT INTO out SELECT window_start, device, avg(temperature) AS mean \
     FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end, device";
/// A second on, a second off.
const SESSION: &str = "CREATE VIEW busy AS SELECT * FROM tank WHERE date_part('second', ts) % 2 = 0; INSERT \
    INTO out SELECT window_start, device, avg(temperature) AS mean FROM SESSION(busy PARTITION BY device, \
    DESCRIPTOR(ts), INTERVAL '500' MILLISECOND) GROUP BY window_start, window_end, device";
const GROUP_BY: &str = "SELECT device, avg(temperature) AS mean FROM tank GROUP BY device";
const GROUP_BY_WINDOW: &str = "SELECT date_bin(INTERVAL '10 seconds', ts) AS window_start, device, \
    avg(temperature) AS mean FROM tank GROUP BY window_start, device";

const LAG: &str = "INSERT INTO out SELECT device, temperature - lag(temperature) OVER (PARTITION BY device \
    ORDER BY ts) AS step FROM tank";
const STOCK_LAG: &str =
    "SELECT device, temperature - lag(temperature) OVER (PARTITION BY device ORDER BY ts) AS step FROM tank";
const SLIDING: &str = "INSERT INTO out SELECT device, max(temperature) OVER (PARTITION BY device ORDER BY \
    ts RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND CURRENT ROW) AS peak FROM tank";
const STOCK_SLIDING: &str = "SELECT device, max(temperature) OVER (PARTITION BY device ORDER BY ts RANGE \
    BETWEEN INTERVAL '1' SECOND PRECEDING AND CURRENT ROW) AS peak FROM tank";
/// Every row with the latest hot row of its device.
const LATEST: &str = "CREATE VIEW hot AS SELECT ts, device, temperature FROM tank WHERE temperature > 80; \
     INSERT INTO out SELECT t.device, t.temperature, h.temperature AS peak \
     FROM tank AS t LEFT JOIN hot FOR SYSTEM_TIME AS OF t.ts AS h ON t.device = h.device";
/// The same in stock SQL, which has no join with the latest row.
const STOCK_LATEST: &str = "SELECT device, temperature, last_value(CASE WHEN temperature > 80 THEN \
    temperature END) IGNORE NULLS OVER (PARTITION BY device ORDER BY ts) AS peak FROM tank";
const MATCH: &str = "INSERT INTO out SELECT device, low, high FROM tank MATCH_RECOGNIZE (PARTITION BY \
    device ORDER BY ts MEASURES FIRST(b.temperature) AS low, c.temperature AS high PATTERN (a b c) DEFINE b \
    AS temperature > PREV(temperature), c AS temperature > PREV(temperature))";
/// The same as [`MATCH`] but for matches that overlap: DataFusion alone has no patterns.
const LAGS: &str = "SELECT device, low, high FROM (SELECT device, temperature AS high, lag(temperature) \
    OVER w AS low, lag(temperature, 2) OVER w AS before FROM tank WINDOW w AS (PARTITION BY device ORDER BY \
    ts)) WHERE high > low AND low > before";

/// The same as [`FILTER`] in Rhai.
const SCRIPT: &str = "//! reads = [\"tank\"]\n//! writes = [\"out\"]\nfn on_row(row, state) { if row.temperature > 80.0 \
    { write(\"out\", #{ device: row.device, temperature: row.temperature }); } }";
/// How far a reading is from the mean of all before it, in standard deviations.
const Z_SCORE: &str = "INSERT INTO out SELECT device, score FROM (SELECT device, (temperature - avg(temperature) \
    OVER ()) / nullif(stddev(temperature) OVER (), 0) AS score FROM tank) AS scores WHERE abs(score) > 3";
/// The same, after Welford.
const Z_SCORE_SCRIPT: &str = "//! reads = [\"tank\"]\n//! writes = [\"out\"]\nfn on_start(state) { state.n = 0; \
    state.mean = 0.0; state.m2 = 0.0; }\nfn on_row(row, state) { let x = row.temperature; state.n += 1; let d = x - \
    state.mean; state.mean += d / state.n; state.m2 += d * (x - state.mean); if state.n > 1 { let s = \
    sqrt(state.m2 / (state.n - 1)); if abs(x - state.mean) > 3.0 * s { write(\"out\", #{ device: row.device, score: \
    (x - state.mean) / s }); } } }";

const KEYS: usize = 1_000;
const MANY_KEYS: usize = 100_000;
const BATCH_ROWS: usize = 8_192;
/// 10 000 rows a second of event time: a window of 10 s has 100 rows of each key.
const ROW_NS: i64 = 100_000;
/// How many rows pass the filter: one in ten.
const HOT_EVERY: usize = 10;

/// How much is measured.
struct Extent {
    turns: usize,
    /// shortest time of one turn of a small computation, which is repeated for as long
    turn: Duration,
    windowed_rows: usize,
}

fn main() {
    // Cargo itself adds `--bench`.
    let quick = std::env::args().any(|argument| argument == "--quick");
    let extent = if quick {
        Extent { turns: 3, turn: Duration::from_millis(2), windowed_rows: 100_000 }
    } else {
        Extent { turns: 21, turn: Duration::from_millis(50), windowed_rows: 1_000_000 }
    };
    println!("| what | rule | DataFusion | rule : DataFusion in speed | target |");
    println!("| --- | --- | --- | --- | --- |");
    filters(&extent);
    scripts(&extent);
    windows(&extent);
    memories(&extent);
    patterns(&extent);
}

fn filters(extent: &Extent) {
    for (rows, target) in [(1, "<= 2 us"), (256, ""), (BATCH_ROWS, ">= 0.9")] {
        // The first row is hot: a lone row passes.
        let input = tank(HOT_EVERY - 1, rows);
        let mut rule = rule(FILTER);
        let mut seq = 0;
        let subject = || {
            let mut out = Emissions::default();
            let numbered = Rows { batch: input.clone(), seqs: Seqs::Run { first: seq } };
            seq += rows as u64;
            rule.on_batch("tank", &numbered, When::at(0), &mut out).unwrap();
            black_box(out.rows.len())
        };
        let predicate = bare_predicate();
        let reference = || black_box(bare_filter(&*predicate, &input).num_rows());
        let (rule_time, bare_time) = by_turns(extent, subject, reference);
        print(&format!("filter, {rows} rows a batch"), "batch", rule_time, bare_time, target);
    }
}

/// Scripts beside SQL, and beside what a program of one's own would do.
fn scripts(extent: &Extent) {
    for rows in [1, 100, BATCH_ROWS] {
        let input = tank(0, rows);
        for (name, script, sql, native) in [
            ("threshold", SCRIPT, FILTER, native_threshold as fn(&RecordBatch) -> usize),
            ("z-score", Z_SCORE_SCRIPT, Z_SCORE, native_z_score),
        ] {
            let target = if name == "threshold" && rows == BATCH_ROWS { "<= 0.5 us a row" } else { "" };
            let (script_time, sql_time) = by_turns(extent, again(script, &input), again(sql, &input));
            let what = format!("{name} in Rhai, {rows} rows a batch, against SQL");
            print(&what, "row", script_time / rows as f64, sql_time / rows as f64, target);
            let (script_time, native_time) = by_turns(extent, again(script, &input), || native(&input));
            let what = format!("{name} in Rhai, {rows} rows a batch, against Rust");
            print(&what, "row", script_time / rows as f64, native_time / rows as f64, target);
        }
    }
}

/// Hands `input` to the rule `text` each time it is called.
fn again(text: &str, input: &RecordBatch) -> impl FnMut() -> usize + use<> {
    let (mut rule, input, mut seq) = (rule(text), input.clone(), 0);
    if let Some(starting) = rule.starting() {
        starting.start(0, When::at(0), &mut Emissions::default()).unwrap();
    }
    move || {
        let mut out = Emissions::default();
        let numbered = Rows { batch: input.clone(), seqs: Seqs::Run { first: seq } };
        seq += input.num_rows() as u64;
        rule.on_batch("tank", &numbered, When::at(0), &mut out).unwrap();
        assert_eq!(out.bad_rows, 0, "{:?}", out.bad_row);
        black_box(out.rows.len())
    }
}

fn native_threshold(input: &RecordBatch) -> usize {
    let temperatures = input["temperature"].as_primitive::<Float64Type>();
    black_box(temperatures.iter().flatten().filter(|t| *t > 80.0).count())
}

fn native_z_score(input: &RecordBatch) -> usize {
    let (mut n, mut mean, mut m2, mut far) = (0.0, 0.0, 0.0, 0);
    for x in input["temperature"].as_primitive::<Float64Type>().iter().flatten() {
        n += 1.0;
        let d = x - mean;
        mean += d / n;
        m2 += d * (x - mean);
        far += usize::from(n > 1.0 && (x - mean).abs() > 3.0 * (m2 / (n - 1.0)).sqrt());
    }
    black_box(far)
}

fn windows(extent: &Extent) {
    for keys in [KEYS, MANY_KEYS] {
        averages(extent, keys);
    }
    let batches = whole_plant(extent, KEYS);
    let once =
        Extent { turns: extent.turns.min(11), turn: Duration::ZERO, windowed_rows: extent.windowed_rows };
    for (name, text, target) in [("hop with 60 panes", HOP, ">= 0.5"), ("session", SESSION, "")] {
        let (rule_time, tumble_time) =
            by_turns(&once, || whole_input(text, &batches), || whole_input(HOP_TUMBLE, &batches));
        print(
            &format!("{name}, {KEYS} keys, against tumbling by its pane"),
            "all",
            rule_time,
            tumble_time,
            target,
        );
    }
}

/// The tumbling average of so many keys.
fn averages(extent: &Extent, keys: usize) {
    let batches = whole_plant(extent, keys);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context
        .register_table("tank", Arc::new(MemTable::try_new(schema(), vec![batches.clone()]).unwrap()))
        .unwrap();
    let once =
        Extent { turns: extent.turns.min(11), turn: Duration::ZERO, windowed_rows: extent.windowed_rows };
    for (name, query, target) in
        [("GROUP BY device", GROUP_BY, ">= 0.5"), ("GROUP BY window, device", GROUP_BY_WINDOW, "")]
    {
        let reference = || {
            runtime.block_on(async {
                black_box(context.sql(query).await.unwrap().collect().await.unwrap().len())
            })
        };
        // One turn is one pass over all rows.
        let (rule_time, stock_time) = by_turns(&once, || whole_input(TUMBLE, &batches), reference);
        let what = format!("tumbling average of {keys} keys, {} rows, against {name}", extent.windowed_rows);
        print(&what, "all", rule_time, stock_time, target);
    }
}

/// All rows, of so many devices.
fn whole_plant(extent: &Extent, keys: usize) -> Vec<RecordBatch> {
    let rows = extent.windowed_rows;
    (0..rows).step_by(BATCH_ROWS).map(|at| plant(at, BATCH_ROWS.min(rows - at), keys)).collect()
}

/// Runs the rule `text` over all rows.
fn whole_input(text: &str, batches: &[RecordBatch]) -> usize {
    let mut out = Emissions::default();
    let mut rule = rule(text);
    let mut seq = 0;
    for batch in batches {
        let rows = Rows { batch: batch.clone(), seqs: Seqs::Run { first: seq } };
        seq += batch.num_rows() as u64;
        rule.on_batch("tank", &rows, When::at(0), &mut out).unwrap();
    }
    rule.on_end(seq, When::at(i64::MAX), &mut out).unwrap();
    assert!(out.late == 0 && out.bad_rows == 0);
    black_box(out.rows.len())
}

/// Rules that remember rows, next to the same over the finished table.
fn memories(extent: &Extent) {
    let rows = 100_000;
    let batches: Vec<RecordBatch> =
        (0..rows).step_by(BATCH_ROWS).map(|at| tank(at, BATCH_ROWS.min(rows - at))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context
        .register_table("tank", Arc::new(MemTable::try_new(schema(), vec![batches.clone()]).unwrap()))
        .unwrap();
    let once = Extent { turns: extent.turns.min(11), turn: Duration::ZERO, windowed_rows: rows };
    for (name, text, query) in [
        ("lag", LAG, STOCK_LAG),
        ("greatest value of the last second", SLIDING, STOCK_SLIDING),
        ("latest-value join", LATEST, STOCK_LATEST),
    ] {
        let reference = || {
            runtime.block_on(async {
                black_box(context.sql(query).await.unwrap().collect().await.unwrap().len())
            })
        };
        let (rule_time, stock_time) = by_turns(&once, || whole_input(text, &batches), reference);
        print(&format!("{name}, {KEYS} keys, {rows} rows"), "all", rule_time, stock_time, "");
    }
}

fn patterns(extent: &Extent) {
    let rows = 100_000;
    let batches: Vec<RecordBatch> =
        (0..rows).step_by(BATCH_ROWS).map(|at| tank(at, BATCH_ROWS.min(rows - at))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context
        .register_table("tank", Arc::new(MemTable::try_new(schema(), vec![batches.clone()]).unwrap()))
        .unwrap();
    let subject = || {
        let mut out = Emissions::default();
        let mut rule = rule(MATCH);
        for (batch, first) in batches.iter().zip((0_u64..).step_by(BATCH_ROWS)) {
            let rows = Rows { batch: batch.clone(), seqs: Seqs::Run { first } };
            rule.on_batch("tank", &rows, When::at(0), &mut out).unwrap();
        }
        assert!(out.late == 0 && out.bad_rows == 0 && !out.rows.is_empty());
        black_box(out.rows.len())
    };
    let reference = || {
        runtime.block_on(async { black_box(context.sql(LAGS).await.unwrap().collect().await.unwrap().len()) })
    };
    let once = Extent { turns: extent.turns.min(11), turn: Duration::ZERO, windowed_rows: rows };
    let (rule_time, stock_time) = by_turns(&once, subject, reference);
    print(
        &format!("pattern of 3 steps, {KEYS} keys, {rows} rows, against lag"),
        "all",
        rule_time,
        stock_time,
        "",
    );
}

/// Median seconds of one call each.
fn by_turns(
    extent: &Extent,
    mut subject: impl FnMut() -> usize,
    mut reference: impl FnMut() -> usize,
) -> (f64, f64) {
    let (calls, reference_calls) =
        (calls_in(extent.turn, &mut subject), calls_in(extent.turn, &mut reference));
    let (mut subjects, mut references) = (Vec::new(), Vec::new());
    for _ in 0..extent.turns {
        subjects.push(time(calls, &mut subject));
        references.push(time(reference_calls, &mut reference));
    }
    (median(subjects), median(references))
}

/// How many calls take about as long as `turn`; also warms up.
fn calls_in(turn: Duration, call: &mut impl FnMut() -> usize) -> u32 {
    let mut calls = 1;
    while time(calls, call) * f64::from(calls) < turn.as_secs_f64() {
        calls *= 2;
    }
    calls
}

fn time(calls: u32, call: &mut impl FnMut() -> usize) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_secs_f64() / f64::from(calls)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print(what: &str, unit: &str, rule: f64, reference: f64, target: &str) {
    let us = 1e6;
    println!(
        "| {what} | {:.2} us/{unit} | {:.2} us/{unit} | {:.2} | {target} |",
        rule * us,
        reference * us,
        reference / rule
    );
}

fn rule(text: &str) -> Box<dyn Rule> {
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(schema()))].into(),
        outputs: [("out".to_owned(), OutputColumns::default())].into(),
        ..Catalog::default()
    };
    let language = if text.starts_with("//!") { Language::Rhai } else { Language::Sql };
    match compile("bench", &Source::new(language, text), &catalog) {
        Ok(compiled) => compiled.rule,
        Err(CompileError::Wrong(wrong)) => {
            panic!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        Err(CompileError::Waiting(streams)) => panic!("the rule waits for {streams:?}"),
    }
}

fn bare_predicate() -> Arc<dyn PhysicalExpr> {
    let columns = DFSchema::try_from(schema()).unwrap();
    SessionContext::new().create_physical_expr(col("temperature").gt(lit(80.0)), &columns).unwrap()
}

/// What [`FILTER`] asks for, and nothing else.
fn bare_filter(predicate: &dyn PhysicalExpr, input: &RecordBatch) -> RecordBatch {
    let mask = predicate.evaluate(input).unwrap().into_array(input.num_rows()).unwrap();
    filter_record_batch(&input.project(&[1, 2]).unwrap(), as_boolean_array(&mask).unwrap()).unwrap()
}

fn schema() -> SchemaRef {
    thread_local!(static SCHEMA: SchemaRef = Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("temperature", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
    ])));
    SCHEMA.with(Arc::clone)
}

/// Rows `first .. first + rows` of the plant.
fn tank(first: usize, rows: usize) -> RecordBatch {
    plant(first, rows, KEYS)
}

/// The same, of a plant with so many devices.
fn plant(first: usize, rows: usize, keys: usize) -> RecordBatch {
    let numbers = || first..first + rows;
    let temperature =
        |n: usize| if n % HOT_EVERY == HOT_EVERY - 1 { 85.0 } else { 20.0 + (n % 97) as f64 / 4.0 };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampNanosecondArray::from_iter_values(numbers().map(|n| n as i64 * ROW_NS))
                .with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("device-{:04}", n * 7 % keys)))),
        Arc::new(Float64Array::from_iter_values(numbers().map(temperature))),
        Arc::new(Int64Array::from_iter_values(numbers().map(|n| n as i64))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}
