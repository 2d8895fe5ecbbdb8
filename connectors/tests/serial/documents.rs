//! What the documents show can be configured.

use std::path::Path;

use serde_json::{Map, Value};
use tidegate_connectors::connection::Kind;
use tidegate_connectors::table::Review;
use tidegate_connectors::{ConnectionConfig, OutputConfig, StreamConfig};

fn examples(document: &str) -> Vec<Map<String, Value>> {
    let blocks = document.split("```toml\n").skip(1).map(|after| after.split("```").next().unwrap());
    blocks.map(|block| toml::from_str(block).unwrap_or_else(|error| panic!("{error}\n{block}"))).collect()
}

#[test]
fn every_example_of_a_serial_device_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/serial.md");
    let examples = examples(&std::fs::read_to_string(path).unwrap());
    assert!(examples.len() > 8, "{}", examples.len());
    for example in examples {
        let tables = |section: &str| {
            let all = example.get(section).and_then(Value::as_object).cloned().unwrap_or_default();
            all.into_iter()
                .map(|(name, table)| (name, table.as_object().unwrap().clone()))
                .collect::<Vec<_>>()
        };
        let mut review = Review::new("[it]", Path::new("/"), Vec::new());
        for (name, mut table) in tables("connections") {
            assert_eq!(table.remove("kind"), Some("serial".into()));
            let config = ConnectionConfig::read(Kind::Serial, &mut table);
            config.unwrap_or_else(|| panic!("connection {name}: {table:?}")).check(&mut review);
        }
        for (name, mut table) in tables("streams") {
            let config = StreamConfig::read(Kind::Serial, &mut table);
            config.unwrap_or_else(|| panic!("stream {name}")).check(&[], &mut review);
        }
        for (name, mut table) in tables("outputs") {
            let config = OutputConfig::read(Kind::Serial, &mut table);
            config.unwrap_or_else(|| panic!("output {name}")).check(None, &mut review);
        }
        assert_eq!(review.remarks, []);
    }
}
