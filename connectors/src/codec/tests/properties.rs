//! What holds for all payloads.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_core::FieldType;

use super::*;

type Row = (Option<bool>, Option<i64>, Option<f64>, Option<String>);

fn row() -> impl Strategy<Value = Row> {
    let float = any::<f64>().prop_filter("JSON has no such number", |value| value.is_finite());
    (any::<Option<bool>>(), any::<Option<i64>>(), proptest::option::of(float), any::<Option<String>>())
}

fn object((b, i, f, s): &Row, order: usize) -> String {
    let mut members = [
        format!("\"b\":{}", json!(b)),
        format!("\"i\":{}", json!(i)),
        format!("\"f\":{}", json!(f)),
        format!("\"s\":{}", json!(s)),
    ];
    members.rotate_left(order % 4);
    format!("{{{}}}", members.join(","))
}

fn values(batch: &RecordBatch) -> Vec<Row> {
    let (b, i) = (batch.column(1).as_boolean(), batch.column(2).as_primitive::<Int64Type>());
    let (f, s) = (batch.column(3).as_primitive::<Float64Type>(), batch.column(4).as_string::<i32>());
    (0..batch.num_rows())
        .map(|row| {
            (
                b.is_valid(row).then(|| b.value(row)),
                i.is_valid(row).then(|| i.value(row)),
                f.is_valid(row).then(|| f.value(row)),
                s.is_valid(row).then(|| s.value(row).to_owned()),
            )
        })
        .collect()
}

fn all_types() -> Layout {
    declared(&[
        ("b", FieldType::Bool, "b"),
        ("i", FieldType::Int64, "i"),
        ("f", FieldType::Float64, "f"),
        ("s", FieldType::Utf8, "s"),
    ])
}

proptest! {
    #[test]
    fn rows_come_out_as_they_went_in_wherever_batches_are_cut(rows in prop::collection::vec((row(), 0_usize..4, any::<bool>()), 0..50)) {
        let mut decoder = Decoder::new(&all_types()).unwrap();
        let mut seen = Vec::new();
        for (row, order, cut) in &rows {
            decoder.decode(object(row, *order).as_bytes(), &[], ARRIVAL).unwrap();
            if *cut {
                seen.extend(decoder.finish().iter().flat_map(values));
            }
        }
        seen.extend(decoder.finish().iter().flat_map(values));
        prop_assert_eq!(seen, rows.into_iter().map(|(row, ..)| row).collect::<Vec<_>>());
    }

    #[test]
    fn an_array_of_rows_is_the_same_as_the_rows(rows in prop::collection::vec(row(), 1..20)) {
        let text = format!("[{}]", rows.iter().map(|row| object(row, 0)).collect::<Vec<_>>().join(","));
        let mut decoder = Decoder::new(&all_types()).unwrap();
        prop_assert_eq!(decoder.decode(text.as_bytes(), &[], ARRIVAL).unwrap(), rows.len());
        prop_assert_eq!(values(&decoder.finish().unwrap()), rows);
    }

    #[test]
    fn a_truncated_message_leaves_nothing(good in row(), bad in row(), cut in any::<prop::sample::Index>()) {
        let text = object(&bad, 0);
        let cut = cut.index(text.len());
        let mut decoder = Decoder::new(&all_types()).unwrap();
        decoder.decode(object(&good, 0).as_bytes(), &[], ARRIVAL).unwrap();
        prop_assert!(decoder.decode(&text.as_bytes()[..cut], &[], ARRIVAL).is_err());
        prop_assert_eq!(values(&decoder.finish().unwrap()), [good]);
    }

    #[test]
    fn no_bytes_make_it_panic(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4)) {
        for layout in [all_types(), inferred()] {
            let mut decoder = Decoder::new(&layout).unwrap();
            for payload in &payloads {
                let _ = decoder.decode(payload, &[], ARRIVAL);
            }
            let _ = decoder.finish();
        }
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them(ns in any::<i64>()) {
        let mut out = Vec::new();
        write_rfc3339(ns, &mut out);
        let text = String::from_utf8(out).unwrap();
        prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_nanosecond(), i128::from(ns));
        prop_assert!([20, 24, 27, 30].contains(&text.len()), "{}", text);
    }
}

/// A value as serde has it at `path`, of several keys of one name the last.
fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => value.get(name),
    })
}

/// Any JSON value, small enough to be a payload.
pub(in crate::codec) fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..5)
                .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn the_text_of_a_value_is_found_where_the_value_is(value in anything(), path in prop::collection::vec("[a-c]{1,2}|[0-3]", 0..4), spaced in any::<bool>()) {
        let text = if spaced { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
        let found = text::find(text.as_bytes(), &path).map(|found| serde_json::from_slice::<Value>(found).unwrap());
        prop_assert_eq!(found.as_ref(), at(&value, &path));
        let mut rows = Vec::new();
        text::each_row(text.as_bytes(), &path, &mut |row| rows.push(serde_json::from_slice::<Value>(row).unwrap()));
        let expected = match at(&value, &path) {
            Some(Value::Array(items)) => items.iter().filter(|item| item.is_object()).cloned().collect(),
            Some(object @ Value::Object(_)) => vec![object.clone()],
            _ => Vec::new(),
        };
        prop_assert_eq!(rows, expected);
    }

    #[test]
    fn inference_copes_with_values_that_change_their_kind(values in prop::collection::vec(anything(), 1..10)) {
        let mut decoder = Decoder::new(&inferred()).unwrap();
        let mut rows = 0;
        for value in &values {
            rows += decoder.decode(value.to_string().as_bytes(), &[], ARRIVAL).unwrap_or(0);
        }
        prop_assert_eq!(decoder.finish().map_or(0, |batch| batch.num_rows()), rows);
    }
}
