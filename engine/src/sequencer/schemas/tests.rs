#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;
use crate::config;
use crate::disk::SystemDisk;

const CONFIG: &str = r#"
name = "a"
[connections.plant]
kind = "mqtt"
host = "localhost"
[streams.s]
connection = "plant"
topic = "s"
"#;

fn store(dir: &Path) -> SchemaStore {
    SchemaStore::new(&config::parse(CONFIG, "tidegate.toml", dir).unwrap(), Arc::new(SystemDisk))
}

fn schema(columns: &[(&str, FieldType)]) -> SchemaRef {
    let columns = columns.iter().map(|(name, field_type)| Field::new(*name, field_type.data_type(), true));
    Arc::new(Schema::new(std::iter::once(ts_field()).chain(columns).collect::<Vec<_>>()))
}

#[test]
fn columns_outlive_the_box_and_what_is_new_has_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = store(dir.path());
    assert_eq!(before.load("s", None), []);
    let news = before.learn("s", &schema(&[("t", FieldType::Int64)])).unwrap();
    assert_eq!(news, News { new: vec!["t int64".into()], changed: Vec::new() });
    let wide = schema(&[("t", FieldType::Float64), ("ok", FieldType::Bool)]);
    let news = before.learn("s", &wide).unwrap();
    assert_eq!(news, News { new: vec!["ok bool".into()], changed: vec!["t int64 -> float64".into()] });
    assert_eq!(before.learn("s", &wide), None);
    let mut after = store(dir.path());
    assert_eq!(
        after.load("s", None),
        [("t".to_owned(), FieldType::Float64), ("ok".to_owned(), FieldType::Bool)]
    );
    assert_eq!(after.get("s"), Some(&wide));
}

#[test]
fn a_file_that_cannot_be_read_gives_way_to_the_snapshot_and_a_deleted_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let in_force = schema(&[("t", FieldType::Utf8)]);
    let columns = [("t".to_owned(), FieldType::Utf8)];
    assert_eq!(store(dir.path()).load("s", Some(Arc::clone(&in_force))), []);
    let path = dir.path().join("data/schemas/s.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "{\"fields\": [[\"t\", ").unwrap();
    let mut damaged = store(dir.path());
    assert_eq!(damaged.load("s", Some(in_force)), columns);
    assert!(path.with_extension("json.damaged").exists());
    damaged.keep();
    assert_eq!(store(dir.path()).load("s", None), columns);
}

#[test]
fn a_file_that_names_no_columns_of_a_stream_is_set_aside_by_the_box_and_left_by_who_looks() {
    for fields in [r#"[["t","int64"],["t","bool"]]"#, r#"[["ts","int64"]]"#, "7"] {
        let dir = tempfile::tempdir().unwrap();
        let before = config::parse(CONFIG, "tidegate.toml", dir.path()).unwrap();
        let path = before.data_dir.join("schemas/s.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{{\"fields\": {fields}}}")).unwrap();
        assert_eq!(SchemaStore::look(&before).get("s"), None);
        assert!(path.exists());
        assert_eq!(store(dir.path()).load("s", None), []);
        assert!(!path.exists() && path.with_extension("json.damaged").exists());
    }
}
