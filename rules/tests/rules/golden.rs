//! Golden cases: what a rule writes for rows that a person can follow.
//!
//! `golden/NAME.sql` is the rule, `NAME.in` what happens, `NAME.out` what the rule must write. All are found by walking. A line of `NAME.in` is a row,
//! `STREAM column=value ..`; columns that are left out are null, and times are written as `1500ms`, `10s`, `min` or `max` since 1970. `@10s` before
//! it is the sequence's time, and what the wall clock shows, unless `@10s/20d` says that it shows something else. `tick 10s` lets time pass, `end` ends the
//! input. A line of `NAME.out` is the number of the line that
//! caused the row (from 0), its target, and its columns; `late` and `bad` say how many rows were.
//!
//! Each case runs in batches of one row, in batches as large as can be, and with the rule replaced by itself before every line: all
//! three must write the same. Expected rows are written by hand, from the definitions in `docs/sql.md`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
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
            let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
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

fn when(text: &str) -> When {
    match text.split_once('/') {
        Some((now, wall)) => When { wall_ns: time(wall), ..When::at(time(now)) },
        None => When::at(time(text)),
    }
}

fn column(value: Option<&str>, data_type: &DataType) -> ArrayRef {
    let value = value.filter(|value| *value != "null");
    match data_type {
        DataType::Timestamp(..) => Arc::new(TimestampNanosecondArray::from(vec![value.map(time)]).with_timezone("UTC")),
        DataType::Float64 => Arc::new(Float64Array::from(vec![value.map(|value| value.parse().unwrap())])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![value.map(|value| match value {
            "min" | "max" => time(value),
            digits => digits.parse().unwrap(),
        })])),
        DataType::Boolean => Arc::new(BooleanArray::from(vec![value.map(|value| value.parse().unwrap())])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![value])),
        other => {
            assert!(value.is_none(), "no golden case can have a {other}");
            new_null_array(other, 1)
        }
    }
}

fn events(text: &str) -> Vec<Event> {
    let inputs = catalog().inputs;
    let row = |when: When, line: &str| {
        let mut words = line.split_whitespace();
        let stream = words.next().unwrap();
        let schema = inputs[stream].clone().unwrap();
        let values: Vec<(&str, &str)> = words.map(|word| word.split_once('=').unwrap()).collect();
        for (name, _) in &values {
            assert!(schema.column_with_name(name).is_some(), "`{stream}` has no column `{name}`");
        }
        let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let columns = schema.fields().iter().map(|field| column(value(field.name()), field.data_type())).collect();
        Event::Row { stream: stream.to_owned(), when, row: RecordBatch::try_new(schema, columns).unwrap() }
    };
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match (line.strip_prefix("tick "), line.strip_prefix('@').and_then(|rest| rest.split_once(' '))) {
            _ if line == "end" => Event::End,
            (Some(then), _) => Event::Tick(when(then)),
            (None, Some((then, line))) => row(when(then), line),
            (None, None) => row(When::at(0), line),
        })
        .collect()
}

fn written(out: Emissions) -> String {
    let options = FormatOptions::default().with_null("null");
    // In the order of causes; rows of one cause in the order in which they were written.
    let mut lines: Vec<(u64, String)> = Vec::new();
    for emission in &out.rows {
        let batch = &emission.rows.batch;
        let columns: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let seq = emission.rows.seqs.get(row);
            let values =
                batch.schema_ref().fields().iter().zip(&columns).map(|(field, column)| format!(" {}={}", field.name(), column.value(row)));
            lines.push((seq, format!("{seq} {}{}\n", emission.target, values.collect::<String>())));
        }
    }
    lines.sort_by_key(|(seq, _)| *seq);
    let mut text: String = lines.into_iter().map(|(_, line)| line).collect();
    for (count, what) in [(out.late, "late"), (out.bad_rows, "bad")] {
        if count > 0 {
            text.push_str(&format!("{count} {what}\n"));
        }
    }
    text
}

/// Runs the case with batches of up to `most` rows; `swap`: the rule is replaced before every line.
fn run(text: &str, events: &[Event], most: usize, swap: bool) -> String {
    let mut running = rule(text);
    let mut out = Emissions::default();
    let mut at = 0;
    while at < events.len() {
        if swap {
            let mut next = rule(text);
            assert_eq!(next.restore(running.seal().unwrap()).unwrap(), Vec::<String>::new());
            running = next;
        }
        let seq = at as u64;
        match &events[at] {
            Event::End => running.on_end(seq, When::at(i64::MAX), &mut out).unwrap(),
            Event::Tick(when) => running.on_tick(seq, *when, &mut out).unwrap(),
            Event::Row { stream, when, row } => {
                let together = events[at..].iter().map_while(|event| match event {
                    Event::Row { stream: other, when: at, row } if other == stream && at == when => Some(row),
                    _ => None,
                });
                let rows: Vec<&RecordBatch> = together.take(most).collect();
                let rows = Rows { batch: concat_batches(&row.schema(), rows).unwrap(), seqs: Seqs::Run { first: seq } };
                running.on_batch(stream, &rows, *when, &mut out).unwrap();
                at += rows.len() - 1;
            }
        }
        at += 1;
    }
    written(out)
}

#[test]
fn each_case_writes_what_it_must() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut rules: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    rules.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    rules.sort();
    assert!(rules.len() >= 4, "the cases were found");
    let mut wrong = Vec::new();
    for path in rules {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let events = events(&fs::read_to_string(path.with_extension("in")).unwrap());
        let expected = fs::read_to_string(path.with_extension("out")).unwrap();
        for (how, most, swap) in
            [("one row a batch", 1, false), ("large batches", usize::MAX, false), ("a new version before each line", 1, true)]
        {
            let written = run(&text, &events, most, swap);
            if written != expected {
                wrong.push(format!("{name}, {how}:\n{written}expected:\n{expected}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn columns_of_cases_have_the_types_of_the_stream() {
    let schema: Arc<Schema> = catalog().inputs["tank"].clone().unwrap();
    let Event::Row { row, when, .. } = &events("@2s tank ts=-1ms device=a temperature=NaN count=min running=true")[0] else {
        panic!("a row")
    };
    assert_eq!((row.schema(), row.num_rows(), *when), (schema, 1, When::at(2_000_000_000)));
}
