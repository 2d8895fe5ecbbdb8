//! Tests of the configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use tidegate_connectors::stream::OnDiskFailure;
use tidegate_core::Place;

use super::*;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

/// One file of the golden directory, as a user would see its errors.
fn outcome(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    // Relative paths in errors must not depend on where the test runs.
    let base_dir = golden_dir();
    let outcome = parse(&text, name, &base_dir);
    assert!(
        outcome.as_ref().err().is_none_or(|wrong| !wrong.is_empty()),
        "an error without a diagnostic: {name}"
    );
    let diagnostics = outcome.map_or_else(|wrong| wrong, |config| config.warnings);
    let mut seen = String::new();
    for diagnostic in diagnostics {
        writeln!(seen, "{diagnostic}").unwrap();
    }
    seen.replace(&format!("{}/", base_dir.display()), "DIR/")
}

#[test]
fn every_wrong_file_gives_exactly_the_errors_that_are_written_down() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(golden_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let seen = outcome(&path);
        let expected_path = path.with_extension("err");
        if std::env::var_os("TIDEGATE_BLESS").is_some() && !seen.is_empty() {
            std::fs::write(&expected_path, &seen).unwrap();
        }
        // A file without expected errors must be right.
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if seen != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- seen\n{seen}", path.display()));
        }
    }
    assert!(count > 8, "the golden directory was not found");
    assert!(
        wrong.is_empty(),
        "{}\nset TIDEGATE_BLESS=1 to accept, and read the difference",
        wrong.join("\n")
    );
}

fn maximal() -> String {
    std::fs::read_to_string(golden_dir().join("maximal.toml")).unwrap()
}

fn parse_here(text: &str) -> Result<Config, Vec<Diagnostic>> {
    parse(text, "tidegate.toml", &golden_dir())
}

fn span(text: &str) -> Span {
    text.parse().unwrap()
}

#[test]
fn every_key_is_read_and_paths_start_at_the_file() {
    let config = load(&golden_dir().join("maximal.toml")).unwrap();
    assert_eq!((config.name.as_str(), config.data_dir), ("pump-house-3", golden_dir().join("data")));
    let ConnectionConfig::Mqtt(plant) = &config.connections["plant"] else { panic!("it is one of MQTT") };
    assert_eq!(plant.tls.as_ref().unwrap().ca.as_deref(), Some(golden_dir().join("certs/ca.pem").as_path()));
    assert_eq!(plant.port.unwrap().get(), 8883);
    let Stream::Input(tank) = &config.streams["tank"] else { panic!("it has a connection") };
    assert!(!tank.is_journaled());
    let pump = &config.outputs["cooling_pump"];
    assert_eq!(
        (pump.config.connection(), pump.queue.get(), pump.when_full),
        ("plant", 100, WhenQueueFull::Block)
    );
    let uplink = &config.uplinks["uplink"];
    assert_eq!((uplink.in_flight.get(), uplink.backlog_rate.unwrap().get()), (500, 5000));
    assert_eq!((config.rules.dir, config.rules.workers.get()), (golden_dir().join("rules"), 2));
    assert_eq!(tank.on_disk_failure(), OnDiskFailure::GoOn);
    let Buffer { path, max_size, reserve, when_full, ttl, queue, .. } = config.buffer;
    let Buffer { commit_every, sync_every, journal_size, journal_age, snapshot_every, .. } = config.buffer;
    assert_eq!(path, golden_dir().join("data/outbox.db"));
    assert_eq!((max_size, reserve, queue.get()), (ByteSize(512 << 20), ByteSize(16 << 20), 2000));
    assert_eq!((when_full, ttl), (tidegate_rules::WhenFull::DropOldest, Some(span("30d"))));
    assert_eq!((commit_every, sync_every), (span("250ms"), Some(span("5s"))));
    assert_eq!((journal_size, journal_age, snapshot_every), (ByteSize(64 << 20), span("7d"), span("1min")));
}

#[test]
fn the_least_that_a_box_needs_is_its_name() {
    let config = parse("name = 'a'", "tidegate.toml", Path::new("/etc/tidegate")).unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/tidegate/data"));
    assert_eq!(
        config.rules,
        Rules {
            dir: "/etc/tidegate/rules".into(),
            workers: NonZeroUsize::MIN,
            time_limit: Span(std::time::Duration::from_secs(5)),
            trusted_keys: Vec::new(),
            require_signed_plugins: false,
        }
    );
    assert_eq!(config.buffer.path, Path::new("/etc/tidegate/data/buffer.db"));
    assert_eq!(
        (config.buffer.max_size, config.buffer.when_full, config.buffer.queue.get()),
        (ByteSize(1 << 30), tidegate_rules::WhenFull::DropOldest, 65_536)
    );
    let Buffer { commit_every, sync_every, journal_size, journal_age, snapshot_every, .. } = config.buffer;
    assert_eq!((commit_every, sync_every), (span("0ns"), None));
    assert_eq!((journal_size, journal_age, snapshot_every), (ByteSize(256 << 20), span("1d"), span("5min")));
    assert_eq!(config.uplinks, BTreeMap::new());
}

#[test]
fn several_uplinks_have_names_and_take_what_their_rules_write() {
    let config = load(&golden_dir().join("uplinks.toml")).unwrap();
    assert_eq!(config.uplinks.keys().collect::<Vec<_>>(), ["cloud", "historian", "web"]);
    assert_eq!(config.uplinks["cloud"].rules, None);
    assert_eq!(
        config.uplinks["historian"].rules,
        Some(BTreeSet::from(["alarms".to_owned(), "means".to_owned()]))
    );
    let UplinkConfig::Http(web) = &config.uplinks["web"].config else { panic!("`url` is HTTP") };
    assert_eq!((web.batch.get(), web.timeout, web.headers.len()), (200, span("10s"), 2));
    assert_eq!(web.tls.as_ref().unwrap().ca.as_deref(), Some(golden_dir().join("certs/ca.pem").as_path()));
}

#[test]
fn columns_are_ts_then_captures_then_fields_by_name() {
    let config = parse_here(&maximal()).unwrap();
    let columns = |stream: &str| {
        let schema = config.streams[stream].schema()?;
        Some(schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(
        columns("tank").as_deref(),
        Some("ts line machine filled_at level product temperature valve_open")
    );
    assert_eq!(columns("tank_stats").as_deref(), Some("ts mean samples"));
    assert_eq!(columns("inferred"), None);
    let tank = config.streams["tank"].schema().unwrap();
    assert_eq!(tank.field(0), &ts_field());
    assert_eq!(tank.field_with_name("line").unwrap().data_type(), &FieldType::Utf8.data_type());
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| load(path).unwrap_err().remove(0);
    assert_eq!(error(&dir.path().join("none.toml")).message, "there is no such configuration file");
    assert_eq!(error(dir.path()).message, "this is a directory, not a configuration file");
    let binary = dir.path().join("binary.toml");
    std::fs::write(&binary, b"name = 'a'\nx = '\xff'").unwrap();
    let error = error(&binary);
    assert_eq!(error.message, "the file is not UTF-8 text from here on");
    assert_eq!(error.place, Some(Place { line: 2, column: 6 }));
}

/// Every key of `value` is allowed by `schema`, following references and alternatives.
fn assert_keys_known(schema: &serde_json::Value, root: &serde_json::Value, value: &toml::Value, path: &str) {
    let toml::Value::Table(table) = value else { return };
    for (key, value) in table {
        let path = format!("{path}.{key}");
        let found = property(schema, root, key);
        assert!(!found.is_empty(), "the schema does not know {path}");
        // One alternative that knows everything below is enough.
        let fits = |schema: &&serde_json::Value| {
            std::panic::catch_unwind(|| assert_keys_known(schema, root, value, &path)).is_ok()
        };
        assert!(found.iter().any(fits), "the schema does not know all of {path}");
    }
}

fn property<'a>(
    schema: &'a serde_json::Value,
    root: &'a serde_json::Value,
    key: &str,
) -> Vec<&'a serde_json::Value> {
    let mut found: Vec<_> = schema["properties"].get(key).into_iter().collect();
    if schema["additionalProperties"].is_object() {
        found.push(&schema["additionalProperties"]);
    }
    if let Some(reference) = schema["$ref"].as_str() {
        found.extend(property(root.pointer(reference.trim_start_matches('#')).unwrap(), root, key));
    }
    for alternatives in ["anyOf", "oneOf", "allOf"] {
        found.extend(
            schema[alternatives]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|schema| property(schema, root, key)),
        );
    }
    let branches = ["then", "else"].into_iter().filter_map(|branch| schema.get(branch));
    found.extend(branches.flat_map(|branch| property(branch, root, key)));
    found
}

#[test]
fn the_json_schema_knows_every_key_of_the_maximal_files() {
    let schema = json_schema();
    for file in ["maximal.toml", "uplinks.toml"] {
        let value: toml::Value =
            toml::from_str(&std::fs::read_to_string(golden_dir().join(file)).unwrap()).unwrap();
        assert_keys_known(&schema, &schema, &value, "");
    }
    assert_eq!(schema["required"], serde_json::json!(["name"]));
    assert!(property(&schema, &schema, "managment").is_empty());
}

#[test]
fn no_part_of_the_json_schema_closes_out_the_keys_of_another() {
    fn keys(schema: &serde_json::Value) -> BTreeSet<&String> {
        schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys).collect()
    }
    fn check(schema: &serde_json::Value) {
        let has = |key: &str| schema.get(key).is_some();
        assert!(!(has("$ref") && has("properties")), "each refuses the keys of the other: {schema:#}");
        let alternatives = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema[key].as_array());
        for part in alternatives.flatten() {
            for part in [part, &part["then"], &part["else"]] {
                for (closed, open) in [(schema, part), (part, schema)] {
                    let fits = closed["additionalProperties"] != false || keys(open).is_subset(&keys(closed));
                    assert!(fits, "one refuses the keys of the other: {schema:#}");
                }
            }
        }
        match schema {
            serde_json::Value::Object(object) => object.values().for_each(check),
            serde_json::Value::Array(items) => items.iter().for_each(check),
            _ => {}
        }
    }
    check(&json_schema());
}

/// The document's ```toml blocks. A block without `name` is a fragment: it is completed with [`PREAMBLE`].
fn toml_blocks(document: &str) -> Vec<(usize, String)> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap();
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        match line {
            "```toml" => {
                inside = true;
                blocks.push((number + 1, String::new()));
            }
            "```" => inside = false,
            line if inside => writeln!(blocks.last_mut().unwrap().1, "{line}").unwrap(),
            _ => {}
        }
    }
    blocks
}

/// What fragments in documents may rely on: two connections.
const PREAMBLE: &str = "name = 'preamble'\n\
    connections.plant = { kind = 'mqtt', host = 'localhost' }\n\
    connections.cloud = { kind = 'mqtt', host = 'localhost' }\n";

/// The page on CAN speaks of one bus and has its database in it; the others speak of files of the goldens.
fn surroundings(document: &str) -> (PathBuf, Option<tempfile::TempDir>, String) {
    if document != "docs/can.md" {
        return (golden_dir(), None, PREAMBLE.to_owned());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let page = std::fs::read_to_string(path).unwrap();
    let database = page.split("```text\n").map(|block| block.split("```").next().unwrap());
    let database = database.skip(1).find(|block| block.starts_with("BU_:")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("drive.dbc"), database).unwrap();
    std::fs::write(dir.path().join("drive.log"), "").unwrap();
    let bus = "connections.drive = { kind = 'can', interface = 'can0', dbc = ['drive.dbc'] }\n";
    (dir.path().to_owned(), Some(dir), format!("{PREAMBLE}{bus}"))
}

#[test]
fn every_example_of_the_documents_is_right() {
    for (document, least) in [
        ("docs/configuration.md", 6),
        ("docs/guide.md", 1),
        ("docs/modbus.md", 1),
        ("docs/can.md", 4),
        ("docs/serial.md", 8),
        ("docs/outputs.md", 1),
        ("docs/sql.md", 1),
        ("README.md", 1),
    ] {
        let blocks = toml_blocks(document);
        assert!(blocks.len() >= least, "{document}: the examples were not found");
        let (dir, _kept, preamble) = surroundings(document);
        for (line, block) in blocks {
            let text = if block.starts_with("name =") {
                block
            } else if block.contains("[connections.drive]") {
                format!("{PREAMBLE}{block}")
            } else {
                format!("{preamble}{block}")
            };
            if let Err(diagnostics) = parse(&text, "example", &dir) {
                panic!("{document}:{line}: {diagnostics:#?}\n{text}");
            }
        }
    }
}

#[test]
fn the_reference_names_every_key() {
    // A protocol may have a page of its own.
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let pages = ["configuration.md", "modbus.md", "can.md", "serial.md", "outputs.md"]
        .map(|page| std::fs::read_to_string(docs.join(page)).unwrap());
    let reference = pages.concat();
    let mut keys = Vec::new();
    property_names(&json_schema(), &mut keys);
    assert!(keys.len() > 30, "the schema was not searched");
    let absent: Vec<_> = keys
        .iter()
        .filter(|key| !reference.contains(&format!("`{key}`")) && !reference.contains(&format!("## `[{key}")))
        .collect();
    assert!(absent.is_empty(), "the reference does not explain {absent:?}");
}

fn property_names(schema: &serde_json::Value, names: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(|properties| properties.as_object()) {
                names.extend(properties.keys().cloned());
            }
            object.values().for_each(|inner| property_names(inner, names));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|inner| property_names(inner, names)),
        _ => {}
    }
}

mod any_text {
    use super::*;
    use proptest::prelude::*;

    /// The maximal file with some lines cut, doubled or swapped for tokens that have a meaning somewhere.
    fn mutated() -> impl Strategy<Value = String> {
        let token = prop::sample::select(vec![
            "=",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "'",
            "\n",
            "\"\"\"",
            "#",
            ",",
            ".",
            "0",
            "-1",
            "9999999999999999999999",
            "1.5",
            "true",
            "[[",
            "]]",
            "1979-05-27",
            "\u{0}",
            "é",
            "\r",
            "{}",
            "[]",
            "\"x\"",
            "inf",
        ]);
        prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, token), 1..6).prop_map(|edits| {
            let mut text: Vec<char> = maximal().chars().collect();
            for (at, cut, token) in edits {
                let at = at.index(text.len());
                let end = (at + cut).min(text.len());
                text.splice(at..end, token.chars());
            }
            text.into_iter().collect()
        })
    }

    proptest! {
        #[test]
        fn never_panics_and_never_fails_without_a_word(text in mutated()) {
            match parse_here(&text) {
                Err(diagnostics) => prop_assert!(!diagnostics.is_empty()),
                Ok(config) => {
                    let table: toml::Table = toml::from_str(&text).unwrap();
                    let written = |section: &str| table.get(section).and_then(|value| value.as_table()).map_or(0, |table| table.len());
                    prop_assert_eq!(config.connections.len(), written("connections"));
                    prop_assert_eq!(config.streams.len(), written("streams"));
                    prop_assert_eq!(config.outputs.len(), written("outputs"));
                    prop_assert_eq!(
                        config.uplinks.len(),
                        written("uplinks") + usize::from(table.contains_key("uplink")),
                    );
                }
            }
        }

        #[test]
        fn noise_never_panics(text in "\\PC*") {
            let _ = parse_here(&text);
        }
    }
}
