//! Tests of reference tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use tidegate_rules::{Catalog, OutputColumns};

use super::*;
use crate::buffer::unpack;
use crate::status::Status;

fn settings(path: PathBuf, kind: TableKind, fields: &[(&str, FieldType)]) -> ReferenceTable {
    let fields = (!fields.is_empty())
        .then(|| fields.iter().map(|(name, field_type)| ((*name).to_owned(), *field_type)).collect());
    ReferenceTable { path, kind, fields, max_size: ByteSize(1 << 20) }
}

fn csv_with(text: &str, fields: &[(&str, FieldType)]) -> Result<RecordBatch, Diagnostic> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    fs::write(&path, text).unwrap();
    read(&settings(path, TableKind::Csv, fields))
        .map_err(|wrong| Diagnostic { file: "t.csv".into(), ..wrong })
}

fn types(rows: &RecordBatch) -> Vec<FieldType> {
    rows.schema().fields().iter().map(|field| FieldType::from_arrow(field.data_type()).unwrap()).collect()
}

#[test]
fn columns_of_a_csv_file_have_the_narrowest_type_that_holds_all_values() {
    use FieldType::{Bool, Float64, Int64, Utf8};
    let rows = csv_with("a,b,c,d,e,f,g\n1,1,true,x,007,,-5\n2,1.5,False,\"y,\"\"z\",8,,\n", &[]).unwrap();
    assert_eq!(types(&rows), [Int64, Float64, Bool, Utf8, Utf8, Utf8, Int64]);
    let table = pretty_format_batches(&[rows]).unwrap().to_string();
    assert!(table.contains("| 1 | 1.0 | true  | x    | 007 |   | -5 |"), "{table}");
    assert!(table.contains("| 2 | 1.5 | false | y,\"z | 8   |   |    |"), "{table}");
    let mixed = csv_with("a\n1.50\nx\n", &[]).unwrap();
    assert!(
        pretty_format_batches(&[mixed]).unwrap().to_string().contains("| 1.50 |"),
        "text stays as it is written"
    );
    assert_eq!(csv_with("a,b\n", &[]).unwrap().num_rows(), 0);
}

#[test]
fn declared_columns_are_those_that_there_are() {
    use FieldType::{Float64, Timestamp, Utf8};
    let rows = csv_with(
        "extra,id,high,since\n1,7,80,2026-01-02T03:04:05Z\n",
        &[("id", Utf8), ("high", Float64), ("since", Timestamp)],
    )
    .unwrap();
    let table = pretty_format_batches(&[rows]).unwrap().to_string();
    assert!(table.contains("| 80.0 | 7  | 2026-01-02T03:04:05Z |"), "{table}");
}

#[test]
fn another_separator_is_said_instead_of_a_column_that_is_not_there() {
    for (text, shown) in
        [("device;high\na;80,5\n", "`;`"), ("device\thigh\na\t80\n", "tabs"), ("a|b\n1|2\n", "`|`")]
    {
        let said = csv_with(text, &[]).unwrap_err().to_string();
        assert!(
            said.contains(&format!("separated by {shown}")) && said.contains("separate them with `,`"),
            "{said}"
        );
    }
    assert_eq!(csv_with("device\na;b\n", &[]).unwrap().num_columns(), 1, "only names tell");
}

#[test]
fn what_is_wrong_with_a_csv_file_is_said_with_its_line() {
    let said = |text: &str, fields: &[(&str, FieldType)]| csv_with(text, fields).unwrap_err().to_string();
    assert_eq!(said("a\n1\nx\n", &[("a", FieldType::Int64)]), "t.csv:3:1: \"x\" in column `a` is no int64");
    assert_eq!(
        said("a\n1\n", &[("b", FieldType::Int64)]),
        "t.csv:1:1: there is no column `b`, which `fields` declares"
    );
    assert!(said("a,b\n1\n", &[]).starts_with("t.csv:2:1: this is not CSV"), "{}", said("a,b\n1\n", &[]));
    assert!(said("a,a\n1,2\n", &[]).contains("two columns are called `a`"));
    assert!(said("", &[("b", FieldType::Int64)]).contains("no column `b`"));
    let large = format!("a\n{}", "1234567\n".repeat(1 << 18));
    assert!(said(&large, &[]).contains("larger than 1MiB"), "{}", said(&large, &[]));
}

/// A file that pyarrow or fastparquet has written: `engine/tests/parquet/make.py`.
fn parquet(name: &str, fields: &[(&str, FieldType)], max_size: u64) -> Result<RecordBatch, Diagnostic> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parquet").join(name);
    let settings =
        ReferenceTable { max_size: ByteSize(max_size), ..settings(path, TableKind::Parquet, fields) };
    read(&settings).map_err(|wrong| Diagnostic { file: name.into(), ..wrong })
}

const MIB: u64 = 1 << 20;

#[test]
fn a_parquet_file_says_what_its_columns_are() {
    let expected = [
        "device high single price count large on_site area since local day nothing",
        "a 80.5 0.5 12.34 7 4611686018427387904 true north 2026-01-02T03:04:05.678Z 2026-01-02T00:00:00Z \
        2026-01-02T00:00:00Z -",
        "b - 1.5 - -8 - false north - - - -",
        "- -1000000000.0 - -0.05 - 0 - south 1969-12-31T23:59:59Z - 1969-12-31T00:00:00Z -",
    ];
    let lines = |rows: &RecordBatch| {
        let options = FormatOptions::default().with_null("-");
        let columns: Vec<_> =
            rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        let names =
            rows.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" ");
        let row = |row| {
            columns
                .iter()
                .map(|column: &ArrayFormatter<'_>| column.value(row).to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        std::iter::once(names).chain((0..rows.num_rows()).map(row)).collect::<Vec<_>>()
    };
    for codec in ["snappy", "gzip", "zstd", "none"] {
        assert_eq!(lines(&parquet(&format!("{codec}.parquet"), &[], MIB).unwrap()), expected, "{codec}");
    }
    let without_last = expected.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
    assert_eq!(lines(&parquet("old.parquet", &[], MIB).unwrap()), without_last);
    assert_eq!(
        lines(&parquet("fastparquet.parquet", &[], MIB).unwrap()),
        ["device high count", "a 80.5 1", "b 90.5 2"]
    );
    // What is declared counts, and nothing else is looked at.
    let declared =
        parquet("snappy.parquet", &[("count", FieldType::Float64), ("since", FieldType::Utf8)], MIB).unwrap();
    assert_eq!(
        lines(&declared),
        ["count since", "7.0 2026-01-02T03:04:05.678Z", "-8.0 -", "- 1969-12-31T23:59:59Z"]
    );
    assert_eq!(
        lines(&parquet("nested.parquet", &[("device", FieldType::Utf8)], MIB).unwrap()),
        ["device", "a"]
    );
}

#[test]
fn what_is_wrong_with_a_parquet_file_is_said() {
    let said = |name: &str, fields: &[(&str, FieldType)]| parquet(name, fields, MIB).unwrap_err().to_string();
    assert_eq!(
        said("brotli.parquet", &[]),
        "brotli.parquet: column `device` is compressed with BROTLI, which is not read here; write the file \
        with snappy, gzip or zstd"
    );
    assert_eq!(
        said("nested.parquet", &[]),
        "nested.parquet: column `raw` is Binary, which no rule can read; name the other columns in \
        `fields`, each with its type"
    );
    assert_eq!(
        said("snappy.parquet", &[("hgh", FieldType::Float64)]),
        "snappy.parquet: there is no column `hgh`, which `fields` declares"
    );
    assert_eq!(
        said("snappy.parquet", &[("area", FieldType::Int64)]),
        "snappy.parquet: row 1: \"north\" in column `area` is no int64"
    );
    let large = said("too_large_number.parquet", &[]);
    assert!(
        large.starts_with("too_large_number.parquet: rows 1 to 1, column `large`: ")
            && large.contains("9223372036854775808"),
        "{large}"
    );
}

#[test]
fn a_parquet_file_that_becomes_too_large_is_refused() {
    // The file itself; a page; a text that stands in many rows; rows that are only counted.
    for (name, max_size) in [
        ("snappy.parquet", 4_096),
        ("one_page.parquet", MIB),
        ("one_text.parquet", 4 * MIB),
        ("no_values.parquet", MIB),
    ] {
        let said = parquet(name, &[], max_size).unwrap_err().to_string();
        assert!(said.contains("the table is larger than "), "{name}: {said}");
    }
    assert_eq!(parquet("one_page.parquet", &[], 17 * MIB).unwrap().num_rows(), 1);
}

#[test]
fn a_damaged_parquet_file_is_an_error_whatever_byte_it_is() {
    let whole =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parquet/fastparquet.parquet")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let read_of = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read(&settings(path.clone(), TableKind::Parquet, &[]))
    };
    for end in (0..whole.len()).step_by(13) {
        assert!(read_of(&whole[..end]).is_err(), "cut after {end}");
    }
    assert!(read_of(b"device,high\na,80\n").unwrap_err().to_string().contains("no Parquet file"));
    for (at, flip) in (0..whole.len()).flat_map(|at| [(at, 0x01), (at, 0x80)]) {
        let mut bytes = whole.clone();
        bytes[at] ^= flip;
        // A value may have become another one. It ends, and no memory is asked for that is not there.
        if let Ok(rows) = read_of(&bytes) {
            assert!(rows.num_rows() as u64 <= MIB / BYTES_A_CELL, "byte {at}");
        }
    }
}

#[test]
fn a_sqlite_table_is_read_while_somebody_else_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let owner = rusqlite::Connection::open(&path).unwrap();
    owner
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE limits (device TEXT, high REAL, on_site INTEGER, raw \
            BLOB);
             INSERT INTO limits VALUES ('a', 80, 1, NULL), ('b', NULL, 0, NULL);",
        )
        .unwrap();
    let of = |query: &str, fields: &[(&str, FieldType)]| {
        read(&settings(path.clone(), TableKind::Sqlite { query: query.to_owned() }, fields))
    };
    let rows = of("SELECT * FROM \"limits\"", &[]).unwrap();
    assert_eq!(types(&rows), [FieldType::Utf8, FieldType::Float64, FieldType::Int64, FieldType::Utf8]);
    let declared =
        of("SELECT * FROM limits", &[("device", FieldType::Utf8), ("on_site", FieldType::Bool)]).unwrap();
    let table = pretty_format_batches(&[declared]).unwrap().to_string();
    assert!(table.contains("| a      | true    |") && table.contains("| b      | false   |"), "{table}");
    assert!(of("SELECT * FROM nowhere", &[]).unwrap_err().to_string().contains("no such table"));
    assert!(of("SELECT x'00' AS raw", &[]).unwrap_err().to_string().contains("holds bytes"));
    assert!(of("DELETE FROM limits", &[]).unwrap_err().to_string().contains("cannot read the table"));
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
    assert!(of(endless, &[]).unwrap_err().to_string().contains("larger than 1MiB"));
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_one_that_is_new_is_an_edit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.csv");
    let catalog = Catalog {
        tables: [("limits".to_owned(), None)].into(),
        outputs: [("lamp".to_owned(), OutputColumns::default())].into(),
        ..Catalog::default()
    };
    let mut book = RuleBook::new(catalog, 2, Arc::new(Status::default())).quiet();
    let watched = Watched { settings: settings(path.clone(), TableKind::Csv, &[]), seen: None, wrong: None };
    let mut tables = TableFiles { files: [(Arc::from("limits"), watched)].into() };
    let put = |text: &str, tables: &mut TableFiles, book: &mut RuleBook| {
        let fresh = dir.path().join("fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, &path).unwrap();
        tables.look(book, &|_| false, true)
    };
    assert!(tables.look(&mut book, &|_| false, true).is_empty());
    assert!(tables.wrong().next().unwrap().to_string().contains("cannot read the table"));
    let first = put("device,high\na,80\n", &mut tables, &mut book);
    let Some(Edit::Table { name, content }) = &first[0].edit else { panic!("no edit") };
    // Each worker is told.
    assert_eq!((name.as_str(), first.len(), first[0].changes.len()), ("limits", 1, 2));
    assert!(tables.wrong().next().is_none());
    assert_eq!(unpack(content.bytes()).unwrap(), *book.table("limits").unwrap());
    // Neither a look without a change, nor the same content once more, nor a wrong file is an edit.
    assert!(tables.look(&mut book, &|_| false, true).is_empty());
    assert!(put("device,high\na,80\n", &mut tables, &mut book).is_empty());
    assert!(put("device,high\na\n", &mut tables, &mut book).is_empty());
    assert!(tables.wrong().next().unwrap().to_string().contains("this is not CSV"));
    assert_eq!(book.table("limits").unwrap().num_rows(), 1);
    assert_eq!(put("device,high\na,90\nb,91\n", &mut tables, &mut book).len(), 1);
    assert_eq!(book.table("limits").unwrap().num_rows(), 2);
}
