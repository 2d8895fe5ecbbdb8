//! Formats beside JSON. Payloads are those of Python's cbor2 5 and msgpack 1, or of the specifications.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use arrow::array::RecordBatch;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::payload::PayloadConfig;
use super::*;
use crate::table::Review;

/// 2026-03-01T12:00:00Z
const ARRIVAL: i64 = 1_772_366_400_000_000_000;

fn config(keys: Value) -> PayloadConfig {
    serde_json::from_value(keys).unwrap()
}

fn decoder(keys: Value) -> Decoder {
    config(keys).decoder(&[], None, Vec::new()).unwrap()
}

fn rendered(batch: &RecordBatch) -> Vec<Value> {
    let encoder = Encoder::new(batch.schema_ref());
    let row = |row| {
        let mut out = Vec::new();
        encoder.encode_row(batch, row, &mut out);
        serde_json::from_slice(&out).unwrap()
    };
    (0..batch.num_rows()).map(row).collect()
}

fn rows(keys: Value, payload: &[u8]) -> Vec<Value> {
    let mut decoder = decoder(keys);
    decoder.decode(payload, &[], ARRIVAL).unwrap();
    let mut rows = decoder.finish().map(|batch| rendered(&batch)).unwrap_or_default();
    for row in &mut rows {
        if row["ts"] == "2026-03-01T12:00:00Z" {
            row.as_object_mut().unwrap().remove("ts");
        }
    }
    rows
}

fn refused(keys: Value, payload: &[u8]) -> String {
    decoder(keys).decode(payload, &[], ARRIVAL).unwrap_err().to_string()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// `{"t": "2026-03-01T12:00:00Z", "device": "pä", "level": 23.5, "count": -7, "big": 2**63 + 5, "on": True,
/// "none": None, "raw": b"\x00\xff", "list": [{"x": 3}, {"x": 4}]}`
const SAME: [(&str, &str); 2] = [
    (
        "cbor",
        "a9617474323032362d30332d30315431323a30303a30305a666465766963656370c3a4656c6576656cfb4037800000000000\
        65636f756e7426636269671b8000000000000005626f6ef5646e6f6e65f6637261774200ff646c69737482a1617803a1617804",
    ),
    (
        "msgpack",
        "89a174b4323032362d30332d30315431323a30303a30305aa6646576696365a370c3a4a56c6576656ccb4037800000000000\
        a5636f756e74f9a3626967cf8000000000000005a26f6ec3a46e6f6e65c0a3726177c40200ffa46c6973749281a1780381a17804",
    ),
];

#[test]
fn binary_formats_say_what_json_says() {
    for (format, payload) in SAME {
        let fields = json!({
            "device": "utf8", "level": "float64", "count": "int64", "big": "float64", "on": "bool",
            "none": "utf8", "raw": "bytes", "second": { "type": "int64", "path": "list.1.x" }, "list": "utf8",
            "t": "timestamp",
        });
        let found = rows(json!({ "format": format, "fields": fields }), &hex(payload));
        let expected = json!({
            "device": "p\u{e4}", "level": 23.5, "count": -7, "big": 9_223_372_036_854_775_813.0, "on": true,
            "none": null, "raw": "AP8=", "second": 4, "list": "[{\"x\":3},{\"x\":4}]",
            "t": "2026-03-01T12:00:00Z",
        });
        assert_eq!(found, [expected], "{format}");
        let inferred = rows(json!({ "format": format, "rows": "list" }), &hex(payload));
        assert_eq!(inferred, [json!({ "x": 3 }), json!({ "x": 4 })], "{format}");
        let outside = json!({ "x": "int64", "level": { "type": "float64", "path": "^.level" } });
        let found =
            rows(json!({ "format": format, "rows": "list", "ts": "^.t", "fields": outside }), &hex(payload));
        assert_eq!(found, [json!({ "level": 23.5, "x": 3 }), json!({ "level": 23.5, "x": 4 })], "{format}");
    }
}

#[test]
fn times_of_binary_formats_are_times() {
    let keys = |format: &str| json!({ "format": format, "ts": "t", "fields": { "v": "int64" } });
    let of = |format: &str, payload: &str| -> Vec<String> {
        let mut decoder = decoder(keys(format));
        decoder.decode(&hex(payload), &[], ARRIVAL).unwrap();
        let rows = rendered(&decoder.finish().unwrap());
        rows.iter().map(|row| format!("{} {}", row["ts"].as_str().unwrap(), row["v"])).collect()
    };
    assert_eq!(
        of(
            "cbor",
            "82a26174c0781b323032362d30332d30315431323a30303a30302e3530303030305a617601a26174c11a69a42a40617602"
        ),
        ["2026-03-01T12:00:00.500Z 1", "2026-03-01T12:00:00Z 2"]
    );
    assert_eq!(of("cbor", "a26174c1fb41da690a90100000617603"), ["2026-03-01T12:00:00.250Z 3"]);
    assert_eq!(
        of(
            "msgpack",
            "9382a174d6ff69a42a40a1760182a174d7ff7735940069a42a40a1760282a174c70cff3b9ac9ffffffffffffffffffa17603"
        ),
        ["2026-03-01T12:00:00Z 1", "2026-03-01T12:00:00.500Z 2", "1969-12-31T23:59:59.999999999Z 3"]
    );
    // A number without a tag is in `unit`, as in JSON: {"t": 1772366400000, "v": 1}.
    assert_eq!(of("msgpack", "82a174cf0000019ca9450a00a17601"), ["2026-03-01T12:00:00Z 1"]);
}

/// RFC 8949, appendix A.
#[test]
fn values_of_cbor_are_those_of_its_specification() {
    let of = |kind: &str, value: &str| {
        let payload = hex(&format!("a16176{value}"));
        rows(json!({ "format": "cbor", "fields": { "v": kind } }), &payload)[0]["v"].clone()
    };
    for (value, expected) in [
        ("00", json!(0)),
        ("1864", json!(100)),
        ("1b000000e8d4a51000", json!(1_000_000_000_000_i64)),
        ("20", json!(-1)),
        ("3903e7", json!(-1000)),
        ("f6", json!(null)),
        ("f7", json!(null)),
    ] {
        assert_eq!(of("int64", value), expected, "{value}");
    }
    for (value, expected) in [
        ("f93c00", json!(1.0)),
        ("f97bff", json!(65504.0)),
        ("fa47c35000", json!(100_000.0)),
        ("fbc010666666666666", json!(-4.1)),
        ("3bffffffffffffffff", json!(-18_446_744_073_709_551_616.0)),
    ] {
        assert_eq!(of("float64", value), expected, "{value}");
    }
    assert_eq!(of("utf8", "7f657374726561646d696e67ff"), json!("streaming"));
    assert_eq!(of("bytes", "5f42010243030405ff"), json!("AQIDBAU="));
    assert_eq!(of("utf8", "9f018202039f0405ffff"), json!("[1,[2,3],[4,5]]"));
}

#[test]
fn small_devices_number_their_keys_and_leave_lengths_out() {
    let fields =
        json!({ "level": { "type": "float64", "path": "1" }, "name": { "type": "utf8", "path": "2" } });
    for (format, payload) in
        [("msgpack", "8201cb403780000000000002a161"), ("cbor", "a201fb4037800000000000026161")]
    {
        let found = rows(json!({ "format": format, "fields": fields }), &hex(payload));
        assert_eq!(found, [json!({ "level": 23.5, "name": "a" })], "{format}");
    }
    let endless = hex("bf656c6576656cfb4037800000000000ff");
    assert_eq!(rows(json!({ "format": "cbor" }), &endless), [json!({ "level": 23.5 })]);
    let single = hex("81a56c6576656cca41bc0000");
    assert_eq!(rows(json!({ "format": "msgpack" }), &single), [json!({ "level": 23.5 })]);
}

#[test]
fn what_is_no_payload_of_its_format_says_why() {
    for (format, payload, why) in [
        ("cbor", "a16176", "not CBOR: the payload ends in the middle of a value"),
        ("cbor", "a1617600ff", "not CBOR: something follows the value"),
        ("cbor", "a16176ff", "not CBOR: a break stands where a value belongs"),
        ("cbor", "01", "expected an object or an array of objects"),
        ("cbor", "a1f600", "a key is neither text nor a whole number"),
        ("cbor", "a161765bffffffffffffffff00", "not CBOR: the payload ends"),
        ("msgpack", "81a176", "not MessagePack: the payload ends in the middle of a value"),
        ("msgpack", "81a176c1", "not MessagePack: the byte c1 begins no value"),
        ("msgpack", "dfffffffff", "not MessagePack: the payload ends"),
    ] {
        let found = refused(json!({ "format": format }), &hex(payload));
        assert!(found.contains(why), "{payload}: {found}");
    }
    let deep = |key: &str| hex(&key.repeat(1_000));
    assert!(refused(json!({ "format": "cbor" }), &deep("a16161")).contains("nested more than 128 deep"));
    assert!(refused(json!({ "format": "msgpack" }), &deep("81a161")).contains("nested more than 128 deep"));
}

#[test]
fn a_raw_payload_is_one_value() {
    let of = |kind: &str, payload: &[u8]| {
        rows(json!({ "format": "raw", "fields": { "v": kind } }), payload)[0]["v"].clone()
    };
    for (payload, expected) in
        [("23.5", json!(23.5)), (" -4\r\n", json!(-4.0)), ("+1.5e3", json!(1500.0)), ("n/a", json!(null))]
    {
        assert_eq!(of("float64", payload.as_bytes()), expected, "{payload}");
    }
    for (payload, expected) in [
        ("ON", json!(true)),
        ("off", json!(false)),
        ("True", json!(true)),
        ("no", json!(false)),
        ("1", json!(true)),
        ("0", json!(false)),
        ("2", json!(null)),
    ] {
        assert_eq!(of("bool", payload.as_bytes()), expected, "{payload}");
    }
    assert_eq!((of("utf8", b"007"), of("int64", b"007")), (json!("007"), json!(7)));
    assert_eq!(of("bytes", &[0, 255]), json!("AP8="));
    assert_eq!(of("timestamp", b"1772366400500"), json!("2026-03-01T12:00:00.500Z"));
    for nonsense in ["inf", "nan", "1_000", "0x10", "1,5", "--1", "", "e5"] {
        assert_eq!(
            rows(json!({ "format": "raw", "fields": { "v": "float64" } }), format!("{nonsense} ").as_bytes())
                [0]["v"],
            json!(null),
            "{nonsense}"
        );
    }
}

#[test]
fn the_column_of_an_undeclared_raw_value_is_called_value() {
    let of = |payload: &str| rows(json!({ "format": "raw" }), payload.as_bytes());
    assert_eq!(of("23.5"), [json!({ "value": 23.5 })]);
    assert_eq!(of("7"), [json!({ "value": 7 })]);
    assert_eq!(of("ON"), [json!({ "value": true })]);
    assert_eq!(of("open"), [json!({ "value": "open" })]);
    let found = refused(json!({ "format": "raw" }), &[0xff]);
    assert!(found.contains("declare the type `bytes`"), "{found}");
}

#[test]
fn what_a_payload_of_lines_leaves_open_does_not_go_on_in_the_next() {
    let fields = json!({ "a": { "type": "utf8", "path": "0" }, "b": { "type": "utf8", "path": "1" } });
    let mut decoder = decoder(json!({ "format": "csv", "fields": fields }));
    for payload in [&b"\"open,1"[..], b"x,\"", b"\xff,1", b"y,2"] {
        // Bytes that are no text are refused.
        let _ = decoder.decode(payload, &[], ARRIVAL);
    }
    let last = decoder.finish().map(|batch| rendered(&batch)).unwrap().pop().unwrap();
    assert_eq!((&last["a"], &last["b"]), (&json!("y"), &json!("2")));
}

#[test]
fn lines_have_names_or_positions() {
    let header = json!({ "csv": { "header": true, "delimiter": ";" } });
    let payload = "\u{feff}device;level;on;at\r\np1; 23.5 ;ON;2026-03-01T12:00:00Z\n\"a;\"\"b\"\"\";;0;\n";
    let fields = json!({ "device": "utf8", "level": "float64", "on": "bool" });
    assert_eq!(
        rows(json!({ "format": header, "fields": fields }), payload.as_bytes()),
        [
            json!({ "device": "p1", "level": 23.5, "on": true }),
            json!({ "device": "a;\"b\"", "level": null, "on": false })
        ]
    );
    let with_time = json!({ "format": header, "ts": "at", "fields": { "level": "float64" } });
    assert_eq!(rows(with_time, payload.as_bytes()), [json!({ "level": 23.5 })], "the other row has no time");
    assert_eq!(
        rows(json!({ "format": header }), b"device;level\np1;7\np2;7.5"),
        [json!({ "device": "p1", "level": 7.0 }), json!({ "device": "p2", "level": 7.5 })]
    );
    let positions = json!({ "b": { "type": "int64", "path": "1" }, "a": { "type": "utf8", "path": "0" } });
    assert_eq!(
        rows(json!({ "format": "csv", "fields": positions }), b"x,1\ny,2,more\nz"),
        [json!({ "a": "x", "b": 1 }), json!({ "a": "y", "b": 2 }), json!({ "a": "z", "b": null })]
    );
    let found = refused(json!({ "format": header }), b"a;b\n1;2\n1;2;3\n");
    assert_eq!(found, "not CSV: line 3 has 3 values, and the header 2");
}

#[test]
fn numbers_that_devices_quote_are_numbers_where_that_is_said() {
    let payload = br#"{"level":"23.5","count":"7","name":"007","on":"true"}"#;
    let fields = json!({ "level": "float64", "count": "int64", "name": "utf8", "on": "bool" });
    assert_eq!(
        rows(json!({ "numbers_as_text": true, "fields": fields }), payload),
        [json!({ "level": 23.5, "count": 7, "name": "007", "on": null })]
    );
    assert_eq!(
        rows(json!({ "fields": fields }), payload),
        [json!({ "level": null, "count": null, "name": "007", "on": null })]
    );
    let inferred = json!({ "numbers_as_text": true });
    assert_eq!(rows(inferred, payload), [json!({ "level": 23.5, "count": 7, "name": 7, "on": "true" })]);
}

#[test]
fn bytes_are_base64_in_json_both_ways() {
    let of = |payload: &str| rows(json!({ "fields": { "v": "bytes" } }), payload.as_bytes())[0]["v"].clone();
    assert_eq!(of(r#"{"v":"AP8="}"#), json!("AP8="));
    assert_eq!(of(r#"{"v":"AP8"}"#), json!("AP8="));
    assert_eq!(of(r#"{"v":"no base64"}"#), json!(null));
}

#[test]
fn what_a_format_does_not_go_with_is_said() {
    let said = |keys: Value| {
        let config = config(keys);
        let mut review = Review::new("[streams.s]", std::path::Path::new(""), Vec::new());
        config.check_format(&mut review);
        review.remarks.into_iter().map(|remark| remark.message).collect::<Vec<_>>()
    };
    assert_eq!(said(json!({ "format": "cbor", "rows": "a", "numbers_as_text": true })), [""; 0]);
    assert_eq!(said(json!({ "format": "raw", "ts": "t", "rows": "a", "numbers_as_text": true })).len(), 3);
    let fields = json!({ "a": "int64", "b": { "type": "int64", "path": "x" } });
    assert_eq!(said(json!({ "format": "raw", "fields": fields })).len(), 2);
    assert_eq!(said(json!({ "format": "csv" })).len(), 1);
    assert_eq!(said(json!({ "format": "csv", "ts": "t", "fields": fields })).len(), 3);
    assert_eq!(
        said(json!({ "format": { "csv": { "header": true } }, "ts": "t", "fields": fields })),
        [""; 0]
    );
    for wrong in
        [json!("jsn"), json!({ "csv": { "delimiter": "ab" } }), json!({ "csv": { "delimiter": "." } })]
    {
        assert!(serde_json::from_value::<PayloadConfig>(json!({ "format": wrong })).is_err());
    }
}

/// `value` in CBOR, with a length or without where either may be.
fn cbor(value: &Value, endless: bool, out: &mut Vec<u8>) {
    let head = |major: u8, length: u64, out: &mut Vec<u8>| {
        out.push(major << 5 | 27);
        out.extend(length.to_be_bytes());
    };
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(value) => out.push(if *value { 0xf5 } else { 0xf4 }),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => head(0, value, out),
            (None, Some(value)) => head(1, u64::try_from(!value).unwrap(), out),
            _ => {
                out.push(0xfb);
                out.extend(number.as_f64().unwrap().to_be_bytes());
            }
        },
        Value::String(text) => {
            head(3, text.len() as u64, out);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            if endless {
                out.push(0x9f)
            } else {
                head(4, items.len() as u64, out)
            }
            items.iter().for_each(|item| cbor(item, endless, out));
            out.extend(endless.then_some(0xff));
        }
        Value::Object(entries) => {
            if endless {
                out.push(0xbf)
            } else {
                head(5, entries.len() as u64, out)
            }
            for (key, value) in entries {
                cbor(&key.clone().into(), endless, out);
                cbor(value, endless, out);
            }
            out.extend(endless.then_some(0xff));
        }
    }
}

/// `value` in MessagePack.
fn msgpack(value: &Value, out: &mut Vec<u8>) {
    let head = |mark: u8, length: usize, out: &mut Vec<u8>| {
        out.push(mark);
        out.extend(u32::try_from(length).unwrap().to_be_bytes());
    };
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => {
                out.push(0xcf);
                out.extend(value.to_be_bytes());
            }
            (None, Some(value)) => {
                out.push(0xd3);
                out.extend(value.to_be_bytes());
            }
            _ => {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap().to_be_bytes());
            }
        },
        Value::String(text) => {
            head(0xdb, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            head(0xdd, items.len(), out);
            items.iter().for_each(|item| msgpack(item, out));
        }
        Value::Object(entries) => {
            head(0xdf, entries.len(), out);
            for (key, value) in entries {
                msgpack(&key.clone().into(), out);
                msgpack(value, out);
            }
        }
    }
}

fn formats() -> Vec<Value> {
    vec![
        json!({ "format": "cbor" }),
        json!({ "format": "msgpack" }),
        json!({ "format": "raw" }),
        json!({ "format": { "csv": { "header": true } } }),
        json!({ "format": "csv", "ts": "0", "fields": { "a": { "type": "float64", "path": "1" } } }),
        json!({ "format": "cbor", "rows": "a", "ts": "^.b", "fields": { "a": "bytes", "b": "bool", "c": "utf8" } }),
        json!({ "format": "msgpack", "ts": "t.0", "fields": { "a": "int64", "t": "timestamp" } }),
        json!({ "format": "raw", "fields": { "v": "bool" } }),
    ]
}

proptest! {
    #[test]
    fn the_same_values_make_the_same_rows_in_each_format(values in prop::collection::vec(super::tests::anything(), 1..5), endless in any::<bool>()) {
        let fields = json!({ "a": "utf8", "b": "float64", "c": { "type": "int64", "path": "b.c" } });
        for fields in [Value::Null, fields] {
            let of = |format: &str, write: &dyn Fn(&Value) -> Vec<u8>| {
                let mut decoder = decoder(json!({ "format": format, "fields": fields }));
                let taken: Vec<_> = values.iter().map(|value| decoder.decode(&write(value), &[], ARRIVAL).ok()).collect();
                (taken, decoder.finish().map(|batch| rendered(&batch)))
            };
            let expected = of("json", &|value| value.to_string().into_bytes());
            let written = |write: &dyn Fn(&Value, &mut Vec<u8>), value: &Value| {
                let mut out = Vec::new();
                write(value, &mut out);
                out
            };
            prop_assert_eq!(&of("cbor", &|value| written(&|value, out| cbor(value, endless, out), value)), &expected);
            prop_assert_eq!(&of("msgpack", &|value| written(&msgpack, value)), &expected);
        }
    }

    #[test]
    fn lines_are_read_as_they_were_written(cells in prop::collection::vec(("[ -~]{0,8}", any::<i32>(), any::<bool>()), 1..8), quoted in any::<bool>()) {
        let mut payload = "text|number|on\n".to_owned();
        for (text, number, on) in &cells {
            let text = if quoted || text.contains(['"', '|']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.clone() };
            payload.push_str(&format!("{text}|{number}|{}\n", if *on { "ON" } else { "OFF" }));
        }
        let fields = json!({ "text": "utf8", "number": "int64", "on": "bool" });
        let found = rows(json!({ "format": { "csv": { "header": true, "delimiter": "|" } }, "fields": fields }), payload.as_bytes());
        let expected: Vec<Value> = cells.iter().map(|(text, number, on)| {
            let text = Some(text.trim()).filter(|text| !text.is_empty());
            json!({ "number": number, "on": on, "text": text })
        }).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_number_as_text_is_that_number(value in any::<f64>(), whole in any::<i64>()) {
        prop_assume!(value.is_finite());
        let of = |kind: &str, text: String| rows(json!({ "format": "raw", "fields": { "v": kind } }), text.as_bytes())[0]["v"].clone();
        prop_assert_eq!(of("float64", value.to_string()), json!(value));
        prop_assert_eq!(of("float64", format!("{value:e}")), json!(value));
        prop_assert_eq!(of("int64", whole.to_string()), json!(whole));
    }

    #[test]
    fn no_bytes_make_a_format_panic_or_leave_half_a_row(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4)) {
        for keys in formats() {
            let mut decoder = decoder(keys);
            let mut rows = 0;
            for payload in &payloads {
                rows += decoder.decode(payload, &[], ARRIVAL).unwrap_or(0);
            }
            prop_assert_eq!(decoder.finish().map_or(0, |batch| batch.num_rows()), rows);
        }
    }

    #[test]
    fn a_payload_that_was_cut_makes_no_row(value in super::tests::anything(), cut in any::<prop::sample::Index>()) {
        let row = json!({ "a": value, "b": 1 });
        let (mut first, mut second) = (Vec::new(), Vec::new());
        cbor(&row, false, &mut first);
        msgpack(&row, &mut second);
        for (format, payload) in [("cbor", first), ("msgpack", second)] {
            let mut decoder = decoder(json!({ "format": format }));
            prop_assert!(decoder.decode(&payload[..cut.index(payload.len())], &[], ARRIVAL).is_err());
            prop_assert!(decoder.finish().is_none());
        }
    }
}
