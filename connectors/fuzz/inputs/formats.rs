//! Payloads of any bytes in each format but JSON: no panic, and no partial row. The first byte chooses the
//! format and its layout.

use tidegate_connectors::codec::{
    CsvFormat, Decoder, Field, Fields, Format, Layout, Missing, TimeFormat, TimeUnit, TsPlace,
};
use tidegate_core::FieldType;

fn field(name: &str, field_type: FieldType, path: &str) -> Field {
    let time = TimeFormat::in_unit(TimeUnit::S);
    Field { name: name.to_owned(), field_type, path: path.parse().unwrap(), time }
}

fn layout(format: Format, rows: Option<&str>, fields: Fields, ts: Option<&str>) -> Layout {
    let ts = ts.map_or(TsPlace::Arrival, |path| TsPlace::At {
        path: path.parse().unwrap(),
        time: TimeFormat::in_unit(TimeUnit::S),
        missing: Missing::Arrival,
    });
    let rows = rows.map(|path| path.parse().unwrap());
    Layout {
        format,
        numbers_as_text: true,
        captures: vec![],
        flag: None,
        ts,
        rows,
        fields,
        pattern: None,
        binary_fields: vec![],
    }
}

fn layouts() -> Vec<Layout> {
    let inferred = || Fields::Inferred(vec![]);
    let declared = |root: bool| {
        let mut fields = vec![
            field("b", FieldType::Bool, "b"),
            field("i", FieldType::Int64, "a.0.i"),
            field("f", FieldType::Float64, "a.f"),
            field("whole", FieldType::Utf8, "a"),
            field("x", FieldType::Bytes, "x"),
            field("t", FieldType::Timestamp, "t"),
        ];
        fields.extend(root.then(|| field("d", FieldType::Utf8, "^.d")));
        Fields::Declared(fields)
    };
    let header = Format::Csv(CsvFormat { header: true, ..CsvFormat::default() });
    let positions =
        Fields::Declared(vec![field("x", FieldType::Bytes, "0"), field("t", FieldType::Timestamp, "2")]);
    let mut layouts = vec![
        layout(header, None, inferred(), None),
        layout(header, None, declared(false), Some("t")),
        layout(Format::Csv(CsvFormat::default()), None, positions, Some("1")),
        layout(Format::Raw, None, inferred(), None),
        layout(Format::Raw, None, Fields::Declared(vec![field("v", FieldType::Timestamp, "v")]), None),
    ];
    for format in [Format::Cbor, Format::MsgPack] {
        layouts.push(layout(format, None, inferred(), None));
        layouts.push(layout(format, None, declared(false), Some("t")));
        layouts.push(layout(format, Some("r"), declared(true), Some("^.t")));
    }
    layouts
}

pub fn take(input: &[u8]) {
    let Some((choice, payload)) = input.split_first() else { return };
    let layouts = layouts();
    let mut decoder = Decoder::new(&layouts[usize::from(*choice) % layouts.len()]).unwrap();
    let rows = decoder.decode(payload, &[], 0).unwrap_or(0);
    assert_eq!(decoder.finish().map_or(0, |batch| batch.num_rows()), rows);
}
