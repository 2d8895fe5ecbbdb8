//! Any text is a script or an error, and a script takes any rows: no panic, no overflow of the stack, and no
//! minute.
//!
//! Text made of random bytes seldom parses, so half of the inputs choose words.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Emissions, Language, OutputColumns, Source, When, compile};

const WORDS: &str = include_str!("../../tests/rhai-words.txt");

const OPTIONS: &str = "//! reads = [\"tank\"]\n//! writes = [\"uplink\", \"hot\", \"cooling_pump\"]\n";

fn tank() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("")]))),
        (
            "temperature",
            Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN), Some(f64::INFINITY)])),
        ),
        ("count", Arc::new(Int64Array::from(vec![Some(0), None, Some(i64::MAX), Some(i64::MIN)]))),
        ("running", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]))),
    ];
    let mut fields = vec![ts_field()];
    let times = vec![0, 1, i64::MAX, i64::MIN];
    let mut all: Vec<ArrayRef> = vec![Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC"))];
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
            let words = words.iter().filter_map(|word| known.get(usize::from(*word) % known.len()).copied());
            let words = words.collect::<Vec<_>>().join(" ");
            // Most of them are the body of a function.
            Some(match kind / 2 % 4 {
                0 => format!("{OPTIONS}{words}"),
                _ => format!(
                    "{OPTIONS}fn on_row(row, state) {{ let x = row.temperature; {words} }}\nfn on_timer(t, state) {{}}"
                ),
            })
        }
        (_, bytes) => String::from_utf8(bytes.to_vec()).ok(),
    }
}

pub fn take(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let tank = tank();
    let hot = Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("mean", DataType::Float64, true),
    ]);
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(tank.schema()))].into(),
        derived: [("hot".to_owned(), Arc::new(hot))].into(),
        outputs: [("cooling_pump".to_owned(), OutputColumns::default())].into(),
        uplink: true,
        ..Catalog::default()
    };
    let Ok(compiled) = compile("rule.rhai", &Source::new(Language::Rhai, text), &catalog) else { return };
    let mut rule = compiled.rule;
    let mut out = Emissions::default();
    let run = || {
        if let Some(starting) = rule.starting() {
            starting.start(0, When::at(0), &mut out)?;
        }
        let rows = Rows { batch: tank, seqs: Seqs::Run { first: 1 } };
        rule.on_batch("tank", &rows, When::at(1), &mut out)?;
        rule.on_tick(10, When::at(20_000_000_000), &mut out)?;
        let state = rule.seal()?;
        rule.restore(state)
    };
    // A rule may stop with an error.
    drop(run());
}
