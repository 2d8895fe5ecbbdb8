//! Payloads of any bytes, for each kind of layout: no panic, and no partial row.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_connectors::json::{Decoder, Fields, Layout, TimeUnit, TsPlace};
use tidegate_core::FieldType;

fn layouts() -> [Layout; 3] {
    let declared = vec![
        ("b".to_owned(), FieldType::Bool, "b".parse().unwrap()),
        ("i".to_owned(), FieldType::Int64, "a.0.i".parse().unwrap()),
        ("f".to_owned(), FieldType::Float64, "a.f".parse().unwrap()),
        ("s".to_owned(), FieldType::Utf8, "s".parse().unwrap()),
        ("t".to_owned(), FieldType::Timestamp, "t".parse().unwrap()),
    ];
    let mut from_root = declared.clone();
    from_root.push(("d".to_owned(), FieldType::Utf8, "^.d".parse().unwrap()));
    let ts = TsPlace::At("t".parse().unwrap(), TimeUnit::S);
    [
        Layout { captures: vec![], ts: ts.clone(), rows: None, fields: Fields::Declared(declared) },
        Layout { captures: vec![], ts, rows: Some("r".parse().unwrap()), fields: Fields::Declared(from_root) },
        Layout { captures: vec![], ts: TsPlace::Arrival, rows: None, fields: Fields::Inferred(vec![]) },
    ]
}

fuzz_target!(|payload: &[u8]| {
    for layout in layouts() {
        let mut decoder = Decoder::new(&layout).unwrap();
        let rows = decoder.decode(payload, &[], 0).unwrap_or(0);
        assert_eq!(decoder.finish().map_or(0, |batch| batch.num_rows()), rows);
    }
});
