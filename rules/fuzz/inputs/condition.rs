//! Any text is a condition or an error, and a condition has a verdict, or none, for any rows.
//!
//! Text made of random bytes seldom parses, so half of the inputs choose words.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use tidegate_rules::{Condition, ConditionColumn};

const WORDS: &str = include_str!("../../tests/words.txt");

/// What conditions are made of, above all.
const OWN: [&str; 24] = [
    "tank.temperature",
    "tank.count",
    "tank.device",
    "tank.running",
    "press.temperature",
    "press.running",
    "AND",
    "OR",
    "NOT",
    "(",
    ")",
    "=",
    "<>",
    ">",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "NULL",
    "0",
    "1.5",
    "'a'",
    "IS NULL",
];

fn columns() -> [(&'static str, ArrayRef); 4] {
    [
        ("temperature", Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(-0.0), Some(1e308)]))),
        ("count", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(0), Some(i64::MAX)]))),
        ("device", Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("1")]))),
        ("running", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]))),
    ]
}

fn text(data: &[u8]) -> Option<String> {
    match data.split_first()? {
        (kind, words) if kind % 2 == 1 => {
            let known: Vec<&str> = WORDS.lines().collect();
            let word = |byte: &u8| match usize::from(*byte) {
                own @ 0..160 => OWN[own % OWN.len()],
                other => known[other * 7 % known.len()],
            };
            Some(words.iter().map(word).collect::<Vec<_>>().join(" "))
        }
        (_, bytes) => String::from_utf8(bytes.to_vec()).ok(),
    }
}

pub fn take(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let columns = columns();
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let streams: BTreeMap<_, _> =
        ["tank", "press"].map(|stream| (stream.to_owned(), Some(Arc::clone(&schema)))).into();
    let Ok(condition) = Condition::compile(&text, &streams) else { return };
    let column = |looked: &ConditionColumn| {
        Arc::clone(&columns.iter().find(|(name, _)| **name == *looked.column).unwrap().1)
    };
    let taken = condition.columns().iter().map(column).collect();
    let rows = RecordBatch::try_new(Arc::clone(condition.schema()), taken).unwrap();
    let alone: Result<Vec<_>, _> =
        (0..rows.num_rows()).map(|row| condition.evaluate(&rows.slice(row, 1))).collect();
    // One row has no say in another one's verdict.
    match (condition.evaluate(&rows), alone) {
        (Ok(together), Ok(alone)) => {
            assert!(together.iter().eq(alone.iter().flat_map(|verdict| verdict.iter())), "{text}");
        }
        (together, alone) => assert_eq!(together.is_ok(), alone.is_ok(), "{text}"),
    }
}
