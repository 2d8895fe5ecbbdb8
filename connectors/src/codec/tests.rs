#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use serde_json::{Value, json};
use tidegate_core::FieldType;

use super::json::text;
use super::*;

mod properties;
pub(super) use properties::anything;

const ARRIVAL: i64 = 1_700_000_000_000_000_000;

pub(super) fn declared(fields: &[(&str, FieldType, &str)]) -> Layout {
    Layout {
        format: Format::Json,
        numbers_as_text: false,
        captures: Vec::new(),
        flag: None,
        ts: TsPlace::Arrival,
        rows: None,
        fields: Fields::Declared(fields.iter().map(|(name, kind, path)| field(name, *kind, path)).collect()),
        pattern: None,
        binary_fields: Vec::new(),
    }
}

fn field(name: &str, field_type: FieldType, path: &str) -> Field {
    Field {
        name: name.to_owned(),
        field_type,
        path: path.parse().unwrap(),
        time: TimeFormat::in_unit(TimeUnit::Ms),
    }
}

fn ts_at(path: &str, unit: TimeUnit, missing: Missing) -> TsPlace {
    TsPlace::At { path: path.parse().unwrap(), time: TimeFormat::in_unit(unit), missing }
}

fn inferred() -> Layout {
    Layout {
        format: Format::Json,
        numbers_as_text: false,
        captures: Vec::new(),
        flag: None,
        ts: TsPlace::Arrival,
        rows: None,
        fields: Fields::Inferred(Vec::new()),
        pattern: None,
        binary_fields: Vec::new(),
    }
}

/// The rows as the encoder writes them, without `ts` where it is the time of arrival.
fn rendered(batch: &RecordBatch) -> Vec<Value> {
    let encoder = Encoder::new(batch.schema_ref());
    (0..batch.num_rows())
        .map(|row| {
            let mut out = Vec::new();
            encoder.encode_row(batch, row, &mut out);
            let mut value: Value = serde_json::from_slice(&out).unwrap();
            if value["ts"] == "2023-11-14T22:13:20Z" {
                value.as_object_mut().unwrap().remove("ts");
            }
            value
        })
        .collect()
}

fn decoded(layout: &Layout, payloads: &[&str]) -> Vec<Value> {
    let mut decoder = Decoder::new(layout).unwrap();
    for payload in payloads {
        decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap();
    }
    decoder.finish().map(|batch| rendered(&batch)).unwrap_or_default()
}

#[test]
fn declared_fields_are_found_at_their_paths() {
    let layout = declared(&[
        ("temperature", FieldType::Float64, "sensors.temperature"),
        ("first", FieldType::Int64, "list.0.x"),
        ("name", FieldType::Utf8, "name"),
        ("on", FieldType::Bool, "on"),
    ]);
    let payload = r#"{"name":"p\u00e4","extra":{"a":[1,2]},"sensors":{"pressure":1,"temperature":80},"on":true,"list":[{"x":3.0},{"x":4}]}"#;
    assert_eq!(
        decoded(&layout, &[payload, "{}"]),
        [
            json!({ "temperature": 80.0, "first": 3, "name": "p\u{e4}", "on": true }),
            json!({ "temperature": null, "first": null, "name": null, "on": null }),
        ]
    );
}

#[test]
fn values_of_the_wrong_type_are_null_and_described() {
    let layout =
        declared(&[("temperature", FieldType::Float64, "temperature"), ("n", FieldType::Int64, "n")]);
    let mut decoder = Decoder::new(&layout).unwrap();
    for payload in [
        r#"{"temperature":"abc"}"#,
        r#"{"n":1.5}"#,
        r#"{"n":9223372036854775808}"#,
        r#"{"n":{"a":1}}"#,
        r#"{"n":[1]}"#,
    ] {
        assert_eq!(decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap(), 1);
    }
    let Findings { misfits, untimed, notes, .. } = decoder.take_findings().unwrap();
    assert_eq!(misfits.count, 5);
    assert_eq!(misfits.first.unwrap(), "column temperature: expected float64, found the string \"abc\"");
    assert_eq!((untimed.count, notes.len()), (0, 0));
    assert_eq!(decoder.take_findings(), None);
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.column(1).null_count(), 5);
    assert_eq!(batch.column(2).null_count(), 5);
}

#[test]
fn the_last_of_two_equal_keys_counts() {
    let layout = declared(&[("n", FieldType::Int64, "n"), ("s", FieldType::Utf8, "s")]);
    assert_eq!(
        decoded(&layout, &[r#"{"n":1,"s":"long text","n":2,"s":"x"}"#, r#"{"n":3,"n":null}"#]),
        [json!({ "n": 2, "s": "x" }), json!({ "n": null, "s": null }),]
    );
}

#[test]
fn anything_becomes_text_where_text_is_declared() {
    let layout = declared(&[("s", FieldType::Utf8, "s")]);
    let payloads = [
        r#"{"s":1}"#,
        r#"{"s":80.0}"#,
        r#"{"s":true}"#,
        r#"{"s":{"a":[1,"b",null]}}"#,
        r#"{"s":[ ]}"#,
        r#"{"s":18446744073709551615}"#,
    ];
    let texts: Vec<_> =
        decoded(&layout, &payloads).into_iter().map(|row| row["s"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts, ["1", "80.0", "true", r#"{"a":[1,"b",null]}"#, "[]", "18446744073709551615"]);
}

#[test]
fn inferred_columns_appear_and_only_whole_numbers_widen() {
    let mut decoder = Decoder::new(&inferred()).unwrap();
    for payload in [
        r#"{"a":1}"#,
        r#"{"a":2.5,"b":{"c":true,"d":{"e":"x"}},"f":null}"#,
        r#"{"a":"three","b":{"c":7},"f":1,"g":[1,{"h":2}]}"#,
    ] {
        decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap();
    }
    let batch = decoder.finish().unwrap();
    let names: Vec<_> = batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["ts", "a", "b_c", "b_d_e", "f", "g"]);
    assert_eq!(
        rendered(&batch),
        [
            json!({ "a": 1.0, "b_c": null, "b_d_e": null, "f": null, "g": null }),
            json!({ "a": 2.5, "b_c": true, "b_d_e": "x", "f": null, "g": null }),
            json!({ "a": null, "b_c": null, "b_d_e": null, "f": 1, "g": r#"[1,{"h":2}]"# }),
        ]
    );
    let Findings { misfits, notes, .. } = decoder.take_findings().unwrap();
    assert_eq!(misfits.count, 2);
    assert_eq!(misfits.first.unwrap(), "column a: expected float64, found the string \"three\"");
    assert_eq!(notes, Vec::<String>::new());
    decoder.decode(br#"{"a":4}"#, &[], ARRIVAL).unwrap();
    assert_eq!(decoder.finish().unwrap().schema(), batch.schema());
}

#[test]
fn one_bad_value_costs_itself_and_not_the_column() {
    let mut decoder = Decoder::new(&inferred()).unwrap();
    for payload in [
        r#"{"t":79}"#,
        r#"{"t":81}"#,
        r#"{"t":81.5}"#,
        r#"{"t":"nan"}"#,
        r#"{"t":9}"#,
        r#"{"t":{"v":1}}"#,
        r#"{"t":true}"#,
        r#"{"t":82}"#,
    ] {
        decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap();
    }
    let values: Vec<_> =
        rendered(&decoder.finish().unwrap()).into_iter().map(|row| row["t"].clone()).collect();
    assert_eq!(
        values,
        [
            json!(79.0),
            json!(81.0),
            json!(81.5),
            Value::Null,
            json!(9.0),
            Value::Null,
            Value::Null,
            json!(82.0)
        ]
    );
    assert_eq!(decoder.take_findings().unwrap().misfits.count, 2);
}

#[test]
fn a_text_column_takes_numbers_and_says_so_once() {
    let mut decoder = Decoder::new(&inferred()).unwrap();
    for payload in [r#"{"t":"n/a"}"#, r#"{"t":81.5}"#, r#"{"t":82}"#, r#"{"t":true}"#] {
        decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap();
    }
    let notes = decoder.take_findings().unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].starts_with("column t is text, because its first value was, and now gets numbers"),
        "{}",
        notes[0]
    );
    let values: Vec<_> =
        rendered(&decoder.finish().unwrap()).into_iter().map(|row| row["t"].clone()).collect();
    assert_eq!(values, [json!("n/a"), json!("81.5"), json!("82"), json!("true")]);
}

#[test]
fn keys_that_become_one_column_are_said() {
    let mut decoder = Decoder::new(&Layout { captures: vec!["device".into()], ..inferred() }).unwrap();
    for payload in [
        r#"{"a":{"b":1}}"#,
        r#"{"a_b":2}"#,
        r#"{"a_b":3,"a":{"b":4}}"#,
        r#"{"a":{"b":5},"a_b":null}"#,
        r#"{"device":7,"ts":8}"#,
        r#"{"device":7,"ts":8}"#,
    ] {
        decoder.decode(payload.as_bytes(), &["press"], ARRIVAL).unwrap();
    }
    let Findings { misfits, notes, .. } = decoder.take_findings().unwrap();
    assert_eq!(misfits.count, 1);
    assert_eq!(
        misfits.first.unwrap(),
        "column a_b: expected int64, found values in two places of the row, of which the last counts"
    );
    assert_eq!(notes.len(), 3);
    assert!(notes[0].starts_with("two places in the payload become the one column `a_b`"), "{}", notes[0]);
    assert!(notes[1].starts_with("the payload's `device` is not taken"), "{}", notes[1]);
    assert!(
        notes[2].starts_with("the payload's `ts` is not taken, and rows have the time of arrival"),
        "{}",
        notes[2]
    );
    let rows = rendered(&decoder.finish().unwrap());
    assert_eq!(
        rows.iter().map(|row| row["a_b"].clone()).collect::<Vec<_>>(),
        [json!(1), json!(2), json!(4), json!(5), Value::Null, Value::Null]
    );
    assert!(rows.iter().all(|row| row["device"] == "press"));
}

#[test]
fn an_object_is_read_as_a_whole_and_for_what_is_inside() {
    let layout = declared(&[
        ("all", FieldType::Utf8, "a"),
        ("inner", FieldType::Int64, "a.b"),
        ("deep", FieldType::Utf8, "a.c"),
        ("deeper", FieldType::Timestamp, "a.c.1"),
        ("when", FieldType::Timestamp, "t"),
        ("written", FieldType::Utf8, "t"),
    ]);
    let payload = r#"{"t":1700000000000.0000001,"a":{"b":1,"c":[2,"2023-11-14T22:13:20Z"]}}"#;
    let mut decoder = Decoder::new(&layout).unwrap();
    decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap();
    decoder.decode(br#"{"a":"x"}"#, &[], ARRIVAL).unwrap();
    assert_eq!(
        rendered(&decoder.finish().unwrap()),
        [
            json!({
                "all": r#"{"b":1,"c":[2,"2023-11-14T22:13:20Z"]}"#,
                "inner": 1,
                "deep": r#"[2,"2023-11-14T22:13:20Z"]"#,
                "deeper": "2023-11-14T22:13:20Z",
                "when": "2023-11-14T22:13:20Z",
                "written": "1700000000000.0",
            }),
            json!({ "all": "x", "inner": null, "deep": null, "deeper": null, "when": null, "written": null }),
        ]
    );
    assert_eq!(decoder.take_findings(), None);
    // The path of `ts` leads through what is inferred.
    let layout = Layout { ts: ts_at("meta.0.time", TimeUnit::S, Missing::Drop), ..inferred() };
    let mut decoder = Decoder::new(&layout).unwrap();
    decoder.decode(br#"{"meta":[{"time":1.5}],"v":1}"#, &[], ARRIVAL).unwrap();
    assert_eq!(rendered(&decoder.finish().unwrap()), [json!({ "ts": "1970-01-01T00:00:01.500Z", "v": 1 })]);
    let layout = Layout { ts: ts_at("meta.time", TimeUnit::S, Missing::Drop), ..inferred() };
    let mut decoder = Decoder::new(&layout).unwrap();
    decoder.decode(br#"{"meta":{"time":1.5,"site":"n"}}"#, &[], ARRIVAL).unwrap();
    assert_eq!(
        rendered(&decoder.finish().unwrap()),
        [json!({ "ts": "1970-01-01T00:00:01.500Z", "meta_site": "n" })]
    );
}

#[test]
fn known_columns_survive_a_restart_and_inference_has_a_limit() {
    let mut layout = inferred();
    layout.fields = Fields::Inferred(vec![("b_c".into(), FieldType::Float64)]);
    assert_eq!(
        decoded(&layout, &[r#"{"b":{"c":1}}"#, r#"{"x":1}"#]),
        [json!({ "b_c": 1.0, "x": null }), json!({ "b_c": null, "x": 1 })]
    );
}

#[test]
fn a_value_for_which_there_is_no_column_left_costs_itself() {
    // 1 100 keys: 256 become columns, and what is beyond 1 024 is not even looked up. They come in the order
    // of their names.
    let wide: Value =
        (0..1_100).map(|n| (format!("k{n:04}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    let mut decoder = Decoder::new(&Layout { captures: vec!["d".into()], ..inferred() }).unwrap();
    let mut taken = |payload: &str| decoder.decode(payload.as_bytes(), &["a"], ARRIVAL).unwrap();
    assert_eq!(taken(&wide.to_string()), 1);
    assert_eq!(taken(r#"{"k0000":10,"k0300":null,"k0301":[1],"k0302":{"x":1},"k0303":2,"x":3,"d":4}"#), 1);
    let findings = decoder.take_findings().unwrap();
    assert_eq!((findings.misfits.count, findings.not_taken), (0, 1_100 - 256 + 5));
    assert_eq!(findings.notes.len(), 1, "{:?}", findings.notes);
    let note = &findings.notes[0];
    assert!(note.contains("`k0256` is not taken") && note.contains("declare `fields`"), "{note}");
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.num_columns(), 2 + 256);
    let last = batch.column_by_name("k0255").unwrap().as_primitive::<Int64Type>();
    assert_eq!((last.value(0), last.is_null(1)), (255, true));
    assert_eq!(batch.column_by_name("k0000").unwrap().as_primitive::<Int64Type>().values(), &[0, 10]);
}

#[test]
fn an_element_that_is_no_object_costs_itself() {
    let mut decoder =
        Decoder::new(&declared(&[("v", FieldType::Int64, "v"), ("x", FieldType::Utf8, "x")])).unwrap();
    let payload = r#"[{"v":1,"x":"ok1"},7,{"v":3,"x":"ok3"},[{"v":4}],"t",null,true,1.5,-1,1e999]"#;
    assert_eq!(decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap(), 2);
    let malformed = decoder.take_findings().unwrap().malformed_rows;
    assert_eq!(malformed.count, 8);
    assert_eq!(malformed.first.unwrap(), "\"1\": expected an object, found the number 7");
    assert_eq!(
        rendered(&decoder.finish().unwrap()),
        [json!({ "v": 1, "x": "ok1" }), json!({ "v": 3, "x": "ok3" })]
    );
    assert_eq!(decoder.decode(b"[7]", &[], ARRIVAL).unwrap(), 0);

    // Each row keeps its own time.
    let layout = Layout {
        ts: ts_at("t", TimeUnit::S, Missing::Drop),
        rows: Some("a.list".parse().unwrap()),
        ..declared(&[("v", FieldType::Int64, "v"), ("dev", FieldType::Utf8, "^.dev")])
    };
    let mut decoder = Decoder::new(&layout).unwrap();
    let payload = r#"{"dev":"D","a":{"list":[[{"t":9}],{"v":1,"t":1},5,null,{"v":2,"t":2}]}}"#;
    assert_eq!(decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap(), 2);
    let findings = decoder.take_findings().unwrap();
    assert_eq!((findings.malformed_rows.count, findings.untimed.count), (3, 0));
    assert_eq!(findings.malformed_rows.first.unwrap(), "\"a.list.0\": expected an object, found an array");
    assert_eq!(
        rendered(&decoder.finish().unwrap()),
        [
            json!({ "ts": "1970-01-01T00:00:01Z", "v": 1, "dev": "D" }),
            json!({ "ts": "1970-01-01T00:00:02Z", "v": 2, "dev": "D" })
        ]
    );
}

#[test]
fn a_number_that_no_float64_holds_costs_itself() {
    let layout = Layout {
        rows: Some("r".parse().unwrap()),
        ..declared(&[
            ("a", FieldType::Float64, "a"),
            ("b", FieldType::Int64, "b"),
            ("s", FieldType::Utf8, "s"),
            ("t", FieldType::Timestamp, "t"),
            ("root", FieldType::Float64, "^.root"),
        ])
    };
    let many_digits = "9".repeat(400);
    let mut decoder = Decoder::new(&layout).unwrap();
    // 1.7976931348623157e308 is the greatest that there is (IEEE 754, binary64).
    let payload = format!(
        r#"{{"root":1e309,"other":1e999,"r":[{{"a":1,"b":"x"}},{{"a":1e999,"b":2}},{{"a":{many_digits},"b":-1E+999,"s":1e999}},
        {{"s":[1,1e999,"\"-1e999"],"t":1e999}},{{"a":1.7976931348623157e308,"b":3,"s":"1e999"}},{{"a":1e-999,"t":1.0005}}]}}"#
    );
    assert_eq!(decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap(), 6);
    let findings = decoder.take_findings().unwrap();
    // root, b, a, a, b, s, t: nothing twice, although the message is read twice
    assert_eq!(findings.misfits.count, 7);
    assert_eq!(findings.misfits.first.unwrap(), "column b: expected int64, found the string \"x\"");
    assert_eq!(
        rendered(&decoder.finish().unwrap()),
        [
            json!({ "a": 1.0, "b": null, "s": null, "t": null, "root": null }),
            json!({ "a": null, "b": 2, "s": null, "t": null, "root": null }),
            json!({ "a": null, "b": null, "s": "1e999", "t": null, "root": null }),
            json!({ "a": null, "b": null, "s": "[1,null,\"\\\"-1e999\"]", "t": null, "root": null }),
            json!({ "a": f64::MAX, "b": 3, "s": "1e999", "t": null, "root": null }),
            json!({ "a": 0.0, "b": null, "s": null, "t": "1970-01-01T00:00:00.001000500Z", "root": null }),
        ]
    );

    let mut decoder = Decoder::new(&inferred()).unwrap();
    for payload in [r#"{"a":1,"b":1e999}"#, r#"{"a":-1e999,"b":2,"c":{"d":1e400}}"#] {
        assert_eq!(decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap(), 1);
    }
    // A column of whole numbers stays one.
    let batch = decoder.finish().unwrap();
    assert_eq!(
        batch.column_by_name("a").unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
        [Some(1), None]
    );
    assert_eq!(
        batch.column_by_name("b").unwrap().as_primitive::<Float64Type>().iter().collect::<Vec<_>>(),
        [None, Some(2.0)]
    );
    let misfits = decoder.take_findings().unwrap().misfits;
    assert_eq!(misfits.count, 3);
    assert_eq!(
        misfits.first.unwrap(),
        "column b: expected float64, found the number 1e999, which no float64 holds"
    );

    // What is no JSON does not become JSON by it.
    for payload in [
        r#"{"a":1e999,"b":01e999}"#,
        r#"{"a":1e999"#,
        r#"{"a":1e999,"b":+1e999}"#,
        r#"{"a":1e999x}"#,
        r#"{"a":1e999, 1e999 : 2}"#,
    ] {
        assert!(
            matches!(decoder.decode(payload.as_bytes(), &[], ARRIVAL), Err(DecodeError::NotJson(_))),
            "{payload}"
        );
    }
}

/// RFC 8259, section 8.1.
#[test]
fn a_byte_order_mark_is_ignored() {
    let layout = declared(&[("v", FieldType::Int64, "v")]);
    assert_eq!(
        decoded(&layout, &["\u{feff}{\"v\":1}", "\u{feff}[{\"v\":2}]"]),
        [json!({ "v": 1 }), json!({ "v": 2 })]
    );
    let mut decoder = Decoder::new(&layout).unwrap();
    assert!(matches!(decoder.decode(b"\xef\xbb\xbf", &[], ARRIVAL), Err(DecodeError::Empty)));
    assert!(decoder.decode(b"\xef\xbb\xbf\xef\xbb\xbf{}", &[], ARRIVAL).is_err());
}

#[test]
fn elements_of_an_array_become_rows_with_values_from_outside() {
    let layout = Layout {
        format: Format::Json,
        numbers_as_text: false,
        captures: vec!["line".into()],
        flag: None,
        ts: ts_at("^.head.time", TimeUnit::S, Missing::Arrival),
        rows: Some("body.items".parse().unwrap()),
        fields: Fields::Declared(vec![
            field("device", FieldType::Utf8, "^.device"),
            field("v", FieldType::Int64, "v"),
        ]),
        pattern: None,
        binary_fields: Vec::new(),
    };
    let mut decoder = Decoder::new(&layout).unwrap();
    // Values outside come before and after the rows.
    let payload = br#"{"head":{"time":1.5},"body":{"items":[{"v":1},{"v":2},{"w":3}]},"device":"d"}"#;
    assert_eq!(decoder.decode(payload, &["L1"], ARRIVAL).unwrap(), 3);
    assert_eq!(decoder.decode(br#"{"body":{"items":[{"v":4}]}}"#, &["L2"], ARRIVAL).unwrap(), 1);
    assert_eq!(decoder.decode(br#"{"body":{"items":[]},"device":"none"}"#, &["L3"], ARRIVAL).unwrap(), 0);
    for (payload, why) in [
        (r#"{"body":{}}"#, "there is no array at \"body.items\""),
        (r#"{"body":7}"#, "on the way to the rows at \"body.items\""),
    ] {
        let error = decoder.decode(payload.as_bytes(), &[""], ARRIVAL).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(
        rendered(&decoder.finish().unwrap()),
        [
            json!({ "ts": "1970-01-01T00:00:01.500Z", "line": "L1", "device": "d", "v": 1 }),
            json!({ "ts": "1970-01-01T00:00:01.500Z", "line": "L1", "device": "d", "v": 2 }),
            json!({ "ts": "1970-01-01T00:00:01.500Z", "line": "L1", "device": "d", "v": null }),
            json!({ "line": "L2", "device": null, "v": 4 }),
        ]
    );
}

#[test]
fn times_are_read_as_text_and_in_every_unit() {
    for (unit, time, expected) in [
        (TimeUnit::S, "1.25", "1970-01-01T00:00:01.250Z"),
        (TimeUnit::S, "1700000000", "2023-11-14T22:13:20Z"),
        (TimeUnit::Ms, "1700000000001", "2023-11-14T22:13:20.001Z"),
        (TimeUnit::Us, "1700000000000001", "2023-11-14T22:13:20.000001Z"),
        (TimeUnit::Ns, "1700000000000000001", "2023-11-14T22:13:20.000000001Z"),
        (TimeUnit::Ms, "-1", "1969-12-31T23:59:59.999Z"),
        (TimeUnit::Ms, "\"2026-03-01T13:00:00+01:00\"", "2026-03-01T12:00:00Z"),
        (TimeUnit::S, "1700000000.123456789", "2023-11-14T22:13:20.123456789Z"),
        (TimeUnit::S, "\"1700000000.123456789\"", "2023-11-14T22:13:20.123456789Z"),
        (TimeUnit::S, "1.7e9", "2023-11-14T22:13:20Z"),
    ] {
        let layout = Layout { ts: ts_at("t", unit, Missing::Drop), ..declared(&[]) };
        let mut decoder = Decoder::new(&layout).unwrap();
        decoder.decode(format!("{{\"t\":{time}}}").as_bytes(), &[], ARRIVAL).unwrap();
        let batch = decoder.finish().unwrap();
        let mut out = Vec::new();
        Encoder::new(batch.schema_ref()).encode_row(&batch, 0, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{{\"ts\":\"{expected}\"}}"), "{time} {unit:?}");
    }
}

#[test]
fn a_row_without_its_time_costs_itself() {
    let payloads = [
        r#"{"t":1,"v":1}"#,
        r#"{"v":2}"#,
        r#"{"t":null,"v":3}"#,
        r#"{"t":"soon","v":4}"#,
        r#"{"t":1e300,"v":5}"#,
        r#"{"v":6,"t":{"a":1}}"#,
        r#"{"t":6,"v":7}"#,
    ];
    let fields = declared(&[("v", FieldType::Int64, "v")]);
    for layout in [fields.clone(), inferred()] {
        let mut decoder =
            Decoder::new(&Layout { ts: ts_at("t", TimeUnit::S, Missing::Drop), ..layout }).unwrap();
        let taken: Vec<usize> = payloads
            .iter()
            .map(|payload| decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap())
            .collect();
        assert_eq!(taken, [1, 0, 0, 0, 0, 0, 1]);
        let Findings { misfits, untimed, notes, .. } = decoder.take_findings().unwrap();
        assert_eq!(
            (misfits.count, untimed.count, untimed.first.unwrap().as_str()),
            (0, 5, "there is no \"t\"")
        );
        // That it is 1970 is said once.
        assert_eq!(notes.len(), 1, "{notes:?}");
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.column_by_name("v").unwrap().as_primitive::<Int64Type>().values(), &[1, 7]);
        assert_eq!(decoder.decode(br#"{"t":9}"#, &[], ARRIVAL).unwrap(), 1);
        assert_eq!(decoder.take_findings(), None);
    }
    // A list of rows keeps those that have theirs.
    let mut decoder =
        Decoder::new(&Layout { ts: ts_at("t", TimeUnit::S, Missing::Drop), ..fields.clone() }).unwrap();
    assert_eq!(decoder.decode(format!("[{}]", payloads.join(",")).as_bytes(), &[], ARRIVAL).unwrap(), 2);
    // Without the time outside of the rows, none of them has any.
    let outside =
        Layout { ts: ts_at("^.t", TimeUnit::S, Missing::Drop), rows: Some("r".parse().unwrap()), ..fields };
    let mut decoder = Decoder::new(&outside).unwrap();
    assert_eq!(decoder.decode(br#"{"r":[{"v":1},{"v":2}]}"#, &[], ARRIVAL).unwrap(), 0);
    assert_eq!(decoder.decode(br#"{"r":[{"v":3},{"v":4}],"t":1}"#, &[], ARRIVAL).unwrap(), 2);
    assert_eq!(decoder.take_findings().unwrap().untimed.count, 2);
}

#[test]
fn a_row_without_its_time_may_have_the_time_of_arrival() {
    let layout =
        Layout { ts: ts_at("t", TimeUnit::S, Missing::Arrival), ..declared(&[("v", FieldType::Int64, "v")]) };
    let mut decoder = Decoder::new(&layout).unwrap();
    for payload in [r#"{"t":1600000000,"v":1}"#, r#"{"v":2}"#, r#"{"t":"soon","v":3}"#] {
        assert_eq!(decoder.decode(payload.as_bytes(), &[], ARRIVAL).unwrap(), 1);
    }
    let Findings { untimed, notes, .. } = decoder.take_findings().unwrap();
    assert_eq!((untimed.count, untimed.first, notes.len()), (2, None, 1));
    let times = decoder.finish().unwrap();
    assert_eq!(
        times.column(0).as_primitive::<TimestampNanosecondType>().values(),
        &[1_600_000_000_000_000_000, ARRIVAL, ARRIVAL]
    );
}

#[test]
fn recorded_rows_need_their_ts() {
    let layout = Layout::recorded(&[("device".into(), FieldType::Utf8), ("a.b".into(), FieldType::Int64)]);
    let mut decoder = Decoder::new(&layout).unwrap();
    for ts in ["1700000000000", "1700000000000000000", "\"2023-11-14T22:13:20Z\""] {
        decoder.decode(format!("{{\"ts\":{ts},\"device\":\"d\",\"a.b\":1}}").as_bytes(), &[], 0).unwrap();
    }
    for row in [r#"{"device":"d"}"#, r#"{"ts":null}"#, r#"{"ts":"soon"}"#] {
        let error = decoder.decode(row.as_bytes(), &[], 0).unwrap_err().to_string();
        assert!(error.contains("no readable `ts`"), "{error}");
    }
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.column(0).as_primitive::<TimestampNanosecondType>().values(), &[ARRIVAL; 3]);
    assert_eq!(batch.column_by_name("a.b").unwrap().as_primitive::<Int64Type>().values(), &[1; 3]);
}

#[test]
fn bad_payloads_leave_nothing_and_say_what_is_wrong() {
    let layout = declared(&[("n", FieldType::Int64, "n"), ("s", FieldType::Utf8, "s")]);
    let mut decoder = Decoder::new(&layout).unwrap();
    decoder.decode(br#"{"n":1,"s":"a"}"#, &[], ARRIVAL).unwrap();
    let deep = format!("{{\"n\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (payload, why) in [
        (&b""[..], "the payload is empty"),
        (br#"{"n":2"#, "EOF while parsing an object at line 1 column 6"),
        (br#"{"n":2} x"#, "trailing characters at line 1 column 9"),
        (b"7", "expected an object or an array of objects at line 1 column 1"),
        (b"\"text\"", "expected an object or an array of objects"),
        (b"{\"s\":\"\xff\"}", "invalid unicode code point"),
        (br#"{"n":NaN}"#, "expected value"),
        (deep.as_bytes(), "recursion limit exceeded"),
    ] {
        let error = decoder.decode(payload, &[], ARRIVAL).unwrap_err().to_string();
        assert!(error.contains(why), "{error} does not say {why}");
    }
    assert_eq!(rendered(&decoder.finish().unwrap()), [json!({ "n": 1, "s": "a" })]);
    assert!(decoder.finish().is_none());
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    let twice = Layout { captures: vec!["n".into()], ..declared(&[("n", FieldType::Int64, "n")]) };
    assert_eq!(Decoder::new(&twice).err(), Some(LayoutError::Twice("n".into())));
    assert!(matches!(
        Decoder::new(&declared(&[("n", FieldType::Int64, "^.n")])).err(),
        Some(LayoutError::NoRows(_))
    ));
    for path in ["", ".", "a..b", "^", "^.", "a.^"] {
        assert!(path.parse::<super::Path>().is_err(), "{path}");
    }
    for (path, instead) in [
        ("^at", "\"^.at\""),
        ("^.^at", "\"^.at\""),
        ("$.a.b", "\"a.b\""),
        ("$[0].a", "\"0.a\""),
        ("^.$.a", "\"a\""),
    ] {
        let error = path.parse::<super::Path>().unwrap_err();
        assert!(error.contains(instead), "{error}");
    }
}
