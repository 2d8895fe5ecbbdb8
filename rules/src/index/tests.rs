//! What the index finds, by hand; that it finds enough is tested with rules.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray};
use tidegate_core::schema::FieldType;

use super::{Band, Column, Concerned, Equal, Index, Value, Way};

fn device() -> Column {
    Column { index: 0, name: "device".into(), kind: FieldType::Utf8 }
}

fn is(text: &str) -> Way {
    Way { equal: Some(Equal { column: device(), value: Value::Text(text.into()) }), band: None }
}

fn between(low: f64, high: f64) -> Way {
    let column = Column { index: 1, name: "level".into(), kind: FieldType::Float64 };
    let number = |value| match Value::float(value) {
        Some(Value::Number(number)) => number,
        other => panic!("{other:?}"),
    };
    let low = if low == f64::NEG_INFINITY { i64::MIN } else { number(low) };
    let high = if high == f64::INFINITY { i64::MAX } else { number(high) };
    Way { equal: None, band: Some(Band { column, low, high }) }
}

fn batch(rows: &[(Option<&str>, Option<f64>)]) -> RecordBatch {
    let devices = StringArray::from_iter(rows.iter().map(|row| row.0));
    let levels = Float64Array::from_iter(rows.iter().map(|row| row.1));
    RecordBatch::try_from_iter_with_nullable([("device", Arc::new(devices) as _, true), ("level", Arc::new(levels) as _, true)]).unwrap()
}

/// (rule, its rows; `None`: all) in order.
fn found(index: &Index<&'static str>, rows: &[(Option<&str>, Option<f64>)]) -> Vec<(&'static str, Option<Vec<u32>>)> {
    let Concerned { rules, subsets } = index.concerned(&batch(rows));
    rules.into_iter().map(|(rule, subset)| (*rule, subset.map(|subset| subsets[subset].clone()))).collect()
}

#[test]
fn rules_are_found_by_value_with_their_rows_and_by_bounds() {
    let mut index = Index::default();
    index.insert("a", vec![is("x")].into());
    index.insert("b", vec![between(80.0, f64::INFINITY)].into());
    index.insert("c", vec![is("x").and(&between(80.0, f64::INFINITY))].into());
    index.insert("d", vec![is("y"), is("x")].into());
    index.insert("e", vec![between(f64::NEG_INFINITY, 5.0)].into());
    index.insert("f", vec![between(10.0, 20.0), is("z")].into());
    let rows = [(Some("x"), Some(30.0)), (Some("y"), Some(90.0)), (None, None), (Some("x"), None)];
    let x = Some(vec![0, 3]);
    assert_eq!(found(&index, &rows), [("a", x), ("b", None), ("d", Some(vec![0, 1, 3]))]);
    assert_eq!(found(&index, &[(Some("x"), Some(80.0))]), [("a", None), ("b", None), ("c", None), ("d", None)]);
    assert_eq!(found(&index, &[(Some("w"), Some(15.0))]), [("f", None)]);
    assert_eq!(found(&index, &[(Some("w"), Some(5.0))]), [("e", None)]);
    assert_eq!(found(&index, &[(None, None)]), []);
    assert_eq!(found(&index, &[]), []);
    for rule in ["a", "b", "c", "d", "e", "f", "g"] {
        index.remove(rule);
    }
    assert!(index.is_empty() && index.columns.is_empty() && index.others.is_empty());
}

#[test]
fn a_new_version_of_a_rule_replaces_the_old_one() {
    let mut index = Index::default();
    index.insert("a", vec![is("x")].into());
    index.insert("a", vec![is("y")].into());
    assert_eq!((found(&index, &[(Some("x"), None)]), found(&index, &[(Some("y"), None)])), (vec![], vec![("a", None)]));
    assert_eq!(index.len(), 1);
}

#[test]
fn a_column_of_another_type_concerns_everybody_who_asks_for_it() {
    let mut index = Index::default();
    let number = Column { kind: FieldType::Int64, ..device() };
    index.insert("a", vec![Way { equal: Some(Equal { column: number.clone(), value: Value::Number(1) }), band: None }].into());
    index.insert("b", vec![Way { equal: None, band: Some(Band { column: number, low: 1, high: 2 }) }].into());
    index.insert(
        "c",
        vec![Way { equal: Some(Equal { column: Column { index: 9, ..device() }, value: Value::Text("x".into()) }), band: None }].into(),
    );
    assert_eq!(found(&index, &[(Some("x"), None)]), [("a", None), ("b", None), ("c", None)]);
}

#[test]
fn ways_are_told_to_people() {
    let both = is("it's").and(&between(80.5, f64::INFINITY));
    assert_eq!(both.to_string(), "device = 'it''s' and level from 80.5 up");
    assert_eq!(between(1.0, 2.0).and(&between(1.5, 3.0)).to_string(), "level from 1.5 to 2");
    assert_eq!(between(f64::NEG_INFINITY, -0.0).to_string(), "level up to 0");
}
