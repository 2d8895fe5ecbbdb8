//! Golden cases: what a rule writes for rows that a person can follow.
//!
//! `golden/NAME.sql` is the rule, `NAME.in` what happens, `NAME.out` what the rule must write. All are found
//! by walking. A line of `NAME.in` is a row, `STREAM column=value ..`; columns that are left out are null,
//! times are written as `1500ms`, `10s`, `min` or `max` since 1970, and lists as `1,null,3`. `@10s` before it
//! is the sequence's time, and what the wall clock shows, unless `@10s/20d` says that it shows something
//! else. Lines of a table that stand together are what it holds from then on. `tick 10s` lets time pass,
//! `end` ends the input. A line of `NAME.out` is the number of the line that caused the row (from 0), its
//! target, and its columns; `late`, `bad` and `ahead` say how many rows were.
//!
//! Each case runs in batches of one row, in batches as large as can be, and with the rule replaced by itself,
//! copied for a snapshot or given a tick that it has not asked for before every line: all must write the
//! same; and so they must with any other rows. Expected rows are written by hand, from the definitions in
//! `docs/sql.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampNanosecondArray, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Emissions, When};

use crate::bench_rows::{catalog, rule};

/// A line of `NAME.in`.
enum Event {
    Row { stream: String, when: When, row: RecordBatch },
    Tick(When),
    End,
}

fn time(text: &str) -> i64 {
    match text {
        "min" => i64::MIN,
        "max" => i64::MAX,
        _ => {
            let (digits, unit) =
                text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
            let factor = match unit {
                "ns" => 1,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => 86_400_000_000_000,
                _ => panic!("`{text}` has no unit of time"),
            };
            digits.parse::<i64>().unwrap() * factor
        }
    }
}

fn whole(text: &str) -> i64 {
    if matches!(text, "min" | "max") { time(text) } else { text.parse().unwrap() }
}

fn when(text: &str) -> When {
    match text.split_once('/') {
        Some((now, wall)) => When { wall_ns: time(wall), ..When::at(time(now)) },
        None => When::at(time(text)),
    }
}

fn column(value: Option<&str>, data_type: &DataType) -> ArrayRef {
    let value = value.filter(|value| *value != "null");
    match data_type {
        DataType::Timestamp(..) => {
            Arc::new(TimestampNanosecondArray::from(vec![value.map(time)]).with_timezone("UTC"))
        }
        DataType::Float64 => Arc::new(Float64Array::from(vec![value.map(|value| value.parse().unwrap())])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![value.map(whole)])),
        DataType::List(of) if *of.data_type() == DataType::Int64 => {
            let of = |list: &str| {
                list.split_terminator(',').map(|one| (one != "null").then(|| whole(one))).collect::<Vec<_>>()
            };
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([value.map(of)]))
        }
        DataType::Boolean => Arc::new(BooleanArray::from(vec![value.map(|value| value.parse().unwrap())])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![value])),
        other => {
            assert!(value.is_none(), "no golden case can have a {other}");
            new_null_array(other, 1)
        }
    }
}

fn events(text: &str) -> Vec<Event> {
    let catalog = catalog();
    let row = |when: When, line: &str| {
        let mut words = line.split_whitespace();
        let stream = words.next().unwrap();
        let schema = catalog.inputs.get(stream).unwrap_or_else(|| &catalog.tables[stream]).clone().unwrap();
        let values: Vec<(&str, &str)> = words.map(|word| word.split_once('=').unwrap()).collect();
        for (name, _) in &values {
            assert!(schema.column_with_name(name).is_some(), "`{stream}` has no column `{name}`");
        }
        let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let columns =
            schema.fields().iter().map(|field| column(value(field.name()), field.data_type())).collect();
        Event::Row { stream: stream.to_owned(), when, row: RecordBatch::try_new(schema, columns).unwrap() }
    };
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            match (line.strip_prefix("tick "), line.strip_prefix('@').and_then(|rest| rest.split_once(' '))) {
                _ if line == "end" => Event::End,
                (Some(then), _) => Event::Tick(when(then)),
                (None, Some((then, line))) => row(when(then), line),
                (None, None) => row(When::at(0), line),
            }
        })
        .collect()
}

fn written(out: Emissions) -> String {
    let options = FormatOptions::default().with_null("null");
    // In the order of causes; rows of one cause in the order in which they were written.
    let mut lines: Vec<(u64, String)> = Vec::new();
    for emission in &out.rows {
        let batch = &emission.rows.batch;
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let seq = emission.rows.seqs.get(row);
            let values = batch
                .schema_ref()
                .fields()
                .iter()
                .zip(&columns)
                .map(|(field, column)| format!(" {}={}", field.name(), column.value(row)));
            lines.push((seq, format!("{seq} {}{}\n", emission.target, values.collect::<String>())));
        }
    }
    lines.sort_by_key(|(seq, _)| *seq);
    let mut text: String = lines.into_iter().map(|(_, line)| line).collect();
    for (count, what) in [(out.late, "late"), (out.bad_rows, "bad"), (out.ahead, "ahead")] {
        if count > 0 {
            text.push_str(&format!("{count} {what}\n"));
        }
    }
    text
}

/// What happens before every line.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// the rule is replaced by itself
    Swap,
    Snapshot,
    /// another rule wants a tick
    Tick,
}

/// Runs the case with batches of up to `most` rows.
fn run(text: &str, events: &[Event], most: usize, before: Before) -> String {
    let mut running = rule(text);
    let mut out = Emissions::default();
    let mut table: Option<(&str, RecordBatch)> = None;
    let mut at = 0;
    while at < events.len() {
        if before == Before::Swap {
            let mut next = rule(text);
            if let Some((name, rows)) = &table {
                next.lookups().unwrap().on_table(name, rows, &mut out).unwrap();
            }
            assert_eq!(next.restore(running.seal().unwrap()).unwrap(), Vec::<String>::new());
            running = next;
        }
        if before == Before::Snapshot {
            running.snapshot().unwrap();
        }
        let seq = at as u64;
        if let (Before::Tick, Event::Row { when, .. }) = (before, &events[at]) {
            running.on_tick(seq, *when, &mut out).unwrap();
        }
        match &events[at] {
            Event::End => running.on_end(seq, When::at(i64::MAX), &mut out).unwrap(),
            Event::Tick(when) => running.on_tick(seq, *when, &mut out).unwrap(),
            Event::Row { stream, when, row } => {
                let together = events[at..].iter().map_while(|event| match event {
                    Event::Row { stream: other, when: at, row } if other == stream && at == when => Some(row),
                    _ => None,
                });
                let is_table =
                    running.lookups().unwrap().tables().iter().any(|(table, _)| &**table == stream);
                let rows: Vec<&RecordBatch> =
                    together.take(if is_table { usize::MAX } else { most }).collect();
                let rows = Rows {
                    batch: concat_batches(&row.schema(), rows).unwrap(),
                    seqs: Seqs::Run { first: seq },
                };
                if is_table {
                    running.lookups().unwrap().on_table(stream, &rows.batch, &mut out).unwrap();
                    table = Some((stream, rows.batch.clone()));
                } else {
                    running.on_batch(stream, &rows, *when, &mut out).unwrap();
                }
                at += rows.len() - 1;
            }
        }
        at += 1;
    }
    written(out)
}

/// The ways to run a case, which must all write the same: batches of up to so many rows, and whether the rule
/// is replaced before every line.
const WAYS: [(&str, usize, Before); 5] = [
    ("one row a batch", 1, Before::Nothing),
    ("large batches", usize::MAX, Before::Nothing),
    ("a new version before each line", 1, Before::Swap),
    ("a snapshot before each line", 1, Before::Snapshot),
    ("a tick before each line", 1, Before::Tick),
];

/// The rules of all cases.
fn rules() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut rules: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    rules.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    rules.sort();
    assert!(rules.len() >= 4, "the cases were found");
    rules
}

#[test]
fn each_case_writes_what_it_must() {
    let mut wrong = Vec::new();
    for path in rules() {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let events = events(&fs::read_to_string(path.with_extension("in")).unwrap());
        let expected = fs::read_to_string(path.with_extension("out")).unwrap();
        for (how, most, before) in WAYS {
            let written = run(&text, &events, most, before);
            if written != expected {
                wrong.push(format!("{name}, {how}:\n{written}expected:\n{expected}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lines of a case in which nothing is as it should be.
fn edges() -> impl Strategy<Value = String> {
    let any = |name: &'static str, values: &'static str| {
        prop::sample::select(values.split(' ').collect::<Vec<_>>())
            .prop_map(move |value| format!(" {name}={value}"))
    };
    let ts = any(
        "ts",
        "min -9223372036854775807ns -1s -1ns 0s 0s 1s 4999999999ns 5s 12s 9223372034s 9223372036854775806ns \
        max",
    );
    let tank = (
        any("temperature", "null NaN -NaN -inf -1e150 -0.0 0 1 2.5 81 1e150"),
        any("count", "null min -1 0 1 7 max"),
        any("running", "null true false"),
    );
    let valve = (
        any("position", "null min -1 0 1 max"),
        any("readings", "null 1,null,max"),
        any("open", "null true false"),
    );
    let row = (ts, any("device", "null a b"), tank, valve, 0_i64..10, 0..9);
    prop::collection::vec(row, 0..16).prop_map(|rows| {
        let mut now = 0;
        let line =
            |(ts, device, (temperature, count, running), (position, readings, open), passed, kind): (
                _,
                _,
                _,
                _,
                i64,
                i32,
            )| {
                now += passed;
                match kind {
                    0 => format!("tick {now}s\n"),
                    1..=3 => format!("@{now}s valve{ts}{device}{position}{readings}{open}\n"),
                    _ => format!("@{now}s tank{ts}{device}{temperature}{count}{running}\n"),
                }
            };
        rows.into_iter().map(line).chain(["end".to_owned()]).collect()
    })
}

#[test]
fn no_case_depends_on_where_batches_are_cut_when_rows_are_at_the_edges() {
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    // Variances that are put together from two versions of a rule differ in their last digits, and those of
    // large numbers in all.
    let is_exact = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        !["stddev", "var_", "corr(", "covar_", "regr_"].iter().any(|name| text.contains(name))
    };
    let exact: Vec<PathBuf> = rules().into_iter().filter(is_exact).collect();
    assert!(exact.len() > 50);
    proptest!(config, |(path in prop::sample::select(exact), lines in edges())| {
        let (text, events) = (fs::read_to_string(&path).unwrap(), events(&lines));
        let streams = rule(&text).flows().iter().map(|flow| flow.input.to_string()).collect::<Vec<_>>();
        let events: Vec<Event> = events.into_iter().filter(|event| !matches!(event, Event::Row { stream, .. } if !streams.contains(stream))).collect();
        let [first, others @ ..] = WAYS.map(|(_, most, before)| run(&text, &events, most, before));
        for other in others {
            prop_assert_eq!(&first, &other, "{}:\n{}", path.display(), lines);
        }
    });
}

#[test]
fn columns_of_cases_have_the_types_of_the_stream() {
    let schema: Arc<Schema> = catalog().inputs["tank"].clone().unwrap();
    let Event::Row { row, when, .. } =
        &events("@2s tank ts=-1ms device=a temperature=NaN count=min running=true")[0]
    else {
        panic!("a row")
    };
    assert_eq!((row.schema(), row.num_rows(), *when), (schema, 1, When::at(2_000_000_000)));
}
