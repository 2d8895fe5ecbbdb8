//! Any text is a rule or an error, and a rule takes any rows: no panic, and no minute.
//!
//! Text made of random bytes seldom parses, so half of the inputs choose words.
#![no_main]

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use libfuzzer_sys::fuzz_target;
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Emissions, When, compile};

const WORDS: &str = include_str!("../../tests/words.txt");

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("temperature", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
        Field::new("running", DataType::Boolean, true),
    ]))
}

fn rows() -> RecordBatch {
    let times = [0, 1, i64::MAX, i64::MIN, 5_000_000_000, 12_000_000_000];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("a"), Some(""), Some("b")])),
        Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN), Some(f64::INFINITY), Some(-0.0), Some(1e308)])),
        Arc::new(Int64Array::from(vec![Some(0), None, Some(i64::MAX), Some(i64::MIN), Some(-1), Some(1)])),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true), Some(false), Some(true)])),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn text(data: &[u8]) -> Option<String> {
    match data.split_first()? {
        (kind, words) if kind % 2 == 1 => {
            let known: Vec<&str> = WORDS.lines().collect();
            let words = words.iter().filter_map(|word| known.get(usize::from(*word) % known.len()).copied());
            Some(format!("INSERT INTO uplink SELECT {}", words.collect::<Vec<_>>().join(" ")))
        }
        (_, bytes) => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    let hot = Schema::new(vec![ts_field(), Field::new("device", DataType::Utf8, true), Field::new("mean", DataType::Float64, true)]);
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(schema()))].into(),
        derived: [("hot".to_owned(), Arc::new(hot))].into(),
        uplink: true,
        ..Catalog::default()
    };
    let Ok((_, mut rule)) = compile("rule.sql", &text, &catalog) else { return };
    let mut out = Emissions::default();
    let rows = Rows { batch: rows(), seqs: Seqs::Run { first: 1 } };
    if rule.on_batch("tank", &rows, When::at(1), &mut out).is_ok() && rule.on_tick(7, When::at(2_000_000_000), &mut out).is_ok() {
        if let Ok(state) = rule.seal() {
            drop(rule.restore(state));
        }
        drop(rule.on_end(8, When::at(i64::MAX), &mut out));
    }
});
