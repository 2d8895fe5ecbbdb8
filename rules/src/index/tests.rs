//! What the index finds, by hand; that it finds enough is tested with rules.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use tidegate_core::schema::FieldType;

use super::{Concerned, Index, Prefilter, Source, Term, Value};

fn device() -> Term {
    Term { name: "device".into(), kind: FieldType::Utf8, source: Source::Column(0) }
}

fn is(text: &str) -> Prefilter {
    Prefilter::equal(device(), Value::Text(text.into()))
}

fn between(low: f64, high: f64) -> Prefilter {
    let level = Term { name: "level".into(), kind: FieldType::Float64, source: Source::Column(1) };
    bounds(level, low, high)
}

fn bounds(term: Term, low: f64, high: f64) -> Prefilter {
    let number = |value| match Value::float(value) {
        Some(Value::Number(number)) => number,
        other => panic!("{other:?}"),
    };
    let low = if low == f64::NEG_INFINITY { i64::MIN } else { number(low) };
    let high = if high == f64::INFINITY { i64::MAX } else { number(high) };
    Prefilter::band(term, low, high)
}

fn batch(rows: &[(Option<&str>, Option<f64>)]) -> RecordBatch {
    let devices = StringArray::from_iter(rows.iter().map(|row| row.0));
    let levels = Float64Array::from_iter(rows.iter().map(|row| row.1));
    RecordBatch::try_from_iter_with_nullable([
        ("device", Arc::new(devices) as _, true),
        ("level", Arc::new(levels) as _, true),
    ])
    .unwrap()
}

/// (rule, its rows; `None`: all) in order.
fn found(
    index: &Index<&'static str>,
    rows: &[(Option<&str>, Option<f64>)],
) -> Vec<(&'static str, Option<Vec<u32>>)> {
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
    assert_eq!(
        found(&index, &[(Some("x"), Some(80.0))]),
        [("a", None), ("b", None), ("c", None), ("d", None)]
    );
    assert_eq!(found(&index, &[(Some("w"), Some(15.0))]), [("f", None)]);
    assert_eq!(found(&index, &[(Some("w"), Some(5.0))]), [("e", None)]);
    assert_eq!(found(&index, &[(None, None)]), []);
    assert_eq!(found(&index, &[]), []);
    for rule in ["a", "b", "c", "d", "e", "f", "g"] {
        index.remove(rule);
    }
    assert!(index.is_empty() && index.values.is_empty() && index.others.is_empty());
}

#[test]
fn a_new_version_of_a_rule_replaces_the_old_one() {
    let mut index = Index::default();
    index.insert("a", vec![is("x")].into());
    index.insert("a", vec![is("y")].into());
    assert_eq!(
        (found(&index, &[(Some("x"), None)]), found(&index, &[(Some("y"), None)])),
        (vec![], vec![("a", None)])
    );
    assert_eq!(index.len(), 1);
}

#[test]
fn a_column_of_another_type_concerns_everybody_who_asks_for_it() {
    let mut index = Index::default();
    let number = Term { kind: FieldType::Int64, ..device() };
    index.insert("a", vec![Prefilter::equal(number.clone(), Value::Number(1))].into());
    index.insert("b", vec![Prefilter::band(number, 1, 2)].into());
    let elsewhere = Term { source: Source::Column(9), ..device() };
    index.insert("c", vec![Prefilter::equal(elsewhere, Value::Text("x".into()))].into());
    assert_eq!(found(&index, &[(Some("x"), None)]), [("a", None), ("b", None), ("c", None)]);
}

#[test]
fn ways_are_told_to_people() {
    let both = is("it's").and(&between(80.5, f64::INFINITY));
    assert_eq!(both.to_string(), "device = 'it''s' and level from 80.5 up");
    assert_eq!(between(1.0, 2.0).and(&between(1.5, 3.0)).to_string(), "level from 1.5 to 2");
    assert_eq!(between(f64::NEG_INFINITY, -0.0).to_string(), "level up to 0");
}

/// `-level`, each time made anew.
fn lowered() -> Term {
    let level = Arc::new(datafusion_physical_expr::expressions::Column::new("level", 1));
    let lowered = Arc::new(datafusion_physical_expr::expressions::NegativeExpr::new(level));
    Term { name: "-level".into(), kind: FieldType::Float64, source: Source::Computed(lowered) }
}

#[test]
fn what_several_rules_compute_is_looked_up_and_what_few_compute_they_compute_themselves() {
    let mut index = Index::default();
    for (rule, low) in [("a", 10.0), ("b", 20.0), ("c", 30.0)] {
        index.insert(rule, vec![bounds(lowered(), low, f64::INFINITY)].into());
    }
    let rows = [(Some("x"), Some(-25.0))];
    assert_eq!(found(&index, &rows), [("a", None), ("b", None), ("c", None)]);
    index.insert("d", vec![bounds(lowered(), f64::NEG_INFINITY, 0.0)].into());
    assert_eq!(found(&index, &rows), [("a", None), ("b", None)]);
    assert_eq!(index.others.terms.len(), 1);
    // What cannot be computed concerns everybody.
    let other =
        RecordBatch::try_from_iter([("device", Arc::new(StringArray::from(vec!["x"])) as _)]).unwrap();
    assert_eq!(index.concerned(&other).rules.len(), 4);
    ["a", "b", "c", "d"].iter().for_each(|rule| index.remove(*rule));
    assert!(index.is_empty() && index.others.is_empty());
}

#[test]
fn columns_come_before_what_is_computed() {
    let (computed, prefilter) = (bounds(lowered(), 1.0, 2.0), between(1.0, 2.0));
    for both in [computed.and(&prefilter), prefilter.and(&computed)] {
        assert_eq!(both.to_string(), "level from 1 to 2");
    }
    assert_eq!(computed.and(&bounds(lowered(), 1.5, 9.0)).to_string(), "-level from 1.5 to 2");
}

/// What a bug in a kernel looks like.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Panics;

impl std::fmt::Display for Panics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("panics()")
    }
}

impl PhysicalExpr for Panics {
    fn evaluate(&self, _: &RecordBatch) -> datafusion_common::Result<ColumnarValue> {
        panic!("no value")
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn PhysicalExpr>>,
    ) -> datafusion_common::Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[test]
fn a_term_that_panics_concerns_everybody_who_asks_for_it_and_nobody_else() {
    let panics = Term {
        name: "panics()".into(),
        kind: FieldType::Float64,
        source: Source::Computed(Arc::new(Panics)),
    };
    let mut index = Index::default();
    for rule in ["a", "b", "c", "d"] {
        index.insert(rule, vec![bounds(panics.clone(), 1.0, f64::INFINITY)].into());
    }
    index.insert("e", vec![is("y")].into());
    assert_eq!(found(&index, &[(Some("x"), None)]), [("a", None), ("b", None), ("c", None), ("d", None)]);
}
