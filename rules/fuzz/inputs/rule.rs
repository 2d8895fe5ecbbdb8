//! Any text is a rule or an error, and a rule takes any rows: no panic, and no minute.
//!
//! Text made of random bytes seldom parses, so half of the inputs choose words.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Emissions, Language, OutputColumns, Source, When, compile};

const WORDS: &str = include_str!("../../tests/words.txt");

fn tank() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "device",
            Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("a"), Some(""), Some("b")])),
        ),
        (
            "temperature",
            Arc::new(Float64Array::from(vec![
                Some(1.0),
                None,
                Some(f64::NAN),
                Some(f64::INFINITY),
                Some(-0.0),
                Some(1e308),
            ])),
        ),
        (
            "count",
            Arc::new(Int64Array::from(vec![
                Some(0),
                None,
                Some(i64::MAX),
                Some(i64::MIN),
                Some(-1),
                Some(1),
            ])),
        ),
        (
            "running",
            Arc::new(BooleanArray::from(vec![
                Some(true),
                None,
                Some(false),
                Some(true),
                Some(false),
                Some(true),
            ])),
        ),
    ];
    stream(&[0, 1, i64::MAX, i64::MIN, 5_000_000_000, 12_000_000_000], columns)
}

fn valve() -> RecordBatch {
    let readings = [Some(vec![Some(1), None, Some(i64::MIN)]), Some(vec![]), None];
    let detail =
        [Some(r#"{"mode": "auto", "pid": [1e400, {"p": null}], "errors": ["x", 1]}"#), Some("{"), None];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(StringArray::from(vec![Some("a"), Some(""), None]))),
        ("detail", Arc::new(StringArray::from(detail.to_vec()))),
        ("open", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("position", Arc::new(Float64Array::from(vec![Some(0.0), Some(f64::NAN), None]))),
        ("readings", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(readings))),
    ];
    stream(&[i64::MIN, 1_000_000_000, i64::MAX], columns)
}

fn limits() -> RecordBatch {
    let device: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("a"), None]));
    let high: ArrayRef = Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(f64::NEG_INFINITY)]));
    RecordBatch::try_from_iter_with_nullable([("device", device, true), ("high", high, true)]).unwrap()
}

/// Rows of a stream with these times.
fn stream(times: &[i64], columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let mut fields = vec![ts_field()];
    let mut all: Vec<ArrayRef> =
        vec![Arc::new(TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC"))];
    for (name, column) in columns {
        fields.push(Field::new(name, column.data_type().clone(), true));
        all.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), all).unwrap()
}

fn text(data: &[u8]) -> Option<String> {
    match data.split_first()? {
        (kind, words) if kind % 2 == 1 => {
            let known: Vec<&str> = WORDS.lines().collect();
            // A byte a word: of more than 256 words, the rest would never be chosen.
            let words = words.iter().filter_map(|word| known.get(usize::from(*word) % known.len()).copied());
            // Options stand before all else, a line each.
            let (options, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("--!"));
            Some(format!("{}\nINSERT INTO uplink SELECT {}", options.join("\n"), words.join(" ")))
        }
        (_, bytes) => String::from_utf8(bytes.to_vec()).ok(),
    }
}

pub fn take(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (tank, valve, limits) = (tank(), valve(), limits());
    let hot = Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("mean", DataType::Float64, true),
    ]);
    let output = OutputColumns::default;
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(tank.schema())), ("valve".to_owned(), Some(valve.schema()))].into(),
        tables: [("limits".to_owned(), Some(limits.schema()))].into(),
        derived: [("hot".to_owned(), Arc::new(hot))].into(),
        outputs: [("cooling_pump".to_owned(), output()), ("lamp".to_owned(), output())].into(),
        uplink: true,
        ..Catalog::default()
    };
    let Ok(compiled) = compile("rule.sql", &Source::new(Language::Sql, text), &catalog) else { return };
    let mut rule = compiled.rule;
    let mut out = Emissions::default();
    let run = || {
        if let Some(lookups) = rule.lookups()
            && lookups.tables().iter().any(|(table, _)| &**table == "limits")
        {
            lookups.on_table("limits", &limits, &mut out)?;
        }
        for (first, stream, batch) in [(1, "tank", tank), (7, "valve", valve)] {
            if rule.flows().iter().any(|flow| &*flow.input == stream) {
                rule.on_batch(stream, &Rows { batch, seqs: Seqs::Run { first } }, When::at(1), &mut out)?;
            }
        }
        rule.on_tick(10, When::at(2_000_000_000), &mut out)?;
        let state = rule.seal()?;
        rule.restore(state)?;
        rule.on_end(11, When::at(i64::MAX), &mut out)
    };
    // A rule may stop with an error.
    drop(run());
}
