//! Payloads of any bytes, for each kind of layout: no panic, and no partial row.

use tidegate_connectors::codec::{
    Decoder, Field, Fields, Format, Layout, Missing, TimeFormat, TimeUnit, TsPlace,
};
use tidegate_core::FieldType;

fn layouts() -> [Layout; 4] {
    let field = |name: &str, field_type, path: &str| Field {
        name: name.to_owned(),
        field_type,
        path: path.parse().unwrap(),
        time: TimeFormat { zone: "Europe/Berlin".parse().ok(), ..TimeFormat::in_unit(TimeUnit::S) },
    };
    let declared = vec![
        field("b", FieldType::Bool, "b"),
        field("i", FieldType::Int64, "a.0.i"),
        field("f", FieldType::Float64, "a.f"),
        field("whole", FieldType::Utf8, "a"),
        field("s", FieldType::Utf8, "s"),
        field("t", FieldType::Timestamp, "t"),
    ];
    let in_form = |name: &str, format: &str| Field {
        time: TimeFormat {
            format: Some(format.parse().unwrap()),
            ..field(name, FieldType::Timestamp, name).time
        },
        ..field(name, FieldType::Timestamp, name)
    };
    let in_forms = vec![
        in_form("t", "%Y%m%d%H%M%S%.f"),
        in_form("b", "%s%.f"),
        in_form("s", "%a %-d. %B %y %I:%M:%S%f %p %z"),
        in_form("d", "%j%Y %Q"),
    ];
    let mut from_root = declared.clone();
    from_root.push(field("d", FieldType::Utf8, "^.d"));
    let ts = TsPlace::At {
        path: "t".parse().unwrap(),
        time: TimeFormat::in_unit(TimeUnit::S),
        missing: Missing::Arrival,
    };
    [
        Layout {
            format: Format::Json,
            numbers_as_text: false,
            captures: vec![],
            flag: None,
            ts: ts.clone(),
            rows: None,
            fields: Fields::Declared(declared),
            pattern: None,
            binary_fields: Vec::new(),
        },
        Layout {
            format: Format::Json,
            numbers_as_text: false,
            captures: vec![],
            flag: None,
            ts,
            rows: Some("r".parse().unwrap()),
            fields: Fields::Declared(from_root),
            pattern: None,
            binary_fields: Vec::new(),
        },
        Layout {
            format: Format::Json,
            numbers_as_text: false,
            captures: vec![],
            flag: None,
            ts: TsPlace::Arrival,
            rows: None,
            fields: Fields::Inferred(vec![]),
            pattern: None,
            binary_fields: Vec::new(),
        },
        Layout {
            format: Format::Json,
            numbers_as_text: false,
            captures: vec![],
            flag: None,
            ts: TsPlace::Arrival,
            rows: None,
            fields: Fields::Declared(in_forms),
            pattern: None,
            binary_fields: Vec::new(),
        },
    ]
}

pub fn take(payload: &[u8]) {
    for layout in layouts() {
        let mut decoder = Decoder::new(&layout).unwrap();
        let rows = decoder.decode(payload, &[], 0).unwrap_or(0);
        assert_eq!(decoder.finish().map_or(0, |batch| batch.num_rows()), rows);
    }
}
