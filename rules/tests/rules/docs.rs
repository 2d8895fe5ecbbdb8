//! What the documents show is so: every example compiles, and what they say is refused is refused with those words.
//!
//! A document's first `toml` block is its configuration. `sql` blocks are rules; a `sql refused` block is one that the `text` block after it
//! answers.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tidegate_core::FieldType;
use tidegate_core::schema::ts_field;
use tidegate_rules::{Catalog, CompileError, OutputColumns, compile};

/// A fenced block of a document.
struct Block {
    /// what stands behind the fence
    kind: String,
    /// number of the fence's line
    line: usize,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, text) in (1..).zip(fs::read_to_string(path).unwrap().lines()) {
        match (text.strip_prefix("```"), open.take()) {
            (Some(kind), None) => open = Some(Block { kind: kind.to_owned(), line, text: String::new() }),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.text.push_str(text);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document}: a block is not closed");
    blocks
}

/// The `{names}` in a topic or payload.
fn names_in(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

/// What `config` offers to rules. The box reads its configuration elsewhere; this knows just enough for examples.
fn catalog(config: &str) -> Catalog {
    let config: toml::Table = config.parse().unwrap();
    let mut catalog = Catalog { uplink: config.contains_key("uplink") || config.contains_key("uplinks"), ..Catalog::default() };
    for (name, stream) in config["streams"].as_table().unwrap() {
        let mut fields = vec![ts_field()];
        let topic = stream.get("topic").and_then(toml::Value::as_str).unwrap_or_default();
        fields.extend(names_in(topic).map(|name| Field::new(name, DataType::Utf8, true)));
        for (field, declared) in stream["fields"].as_table().unwrap() {
            let field_type: FieldType = declared.get("type").unwrap_or(declared).clone().try_into().unwrap();
            fields.push(Field::new(field, field_type.data_type(), true));
        }
        let schema = Arc::new(Schema::new(fields));
        if stream.get("connection").is_some() {
            catalog.inputs.insert(name.clone(), Some(schema));
        } else {
            catalog.derived.insert(name.clone(), schema);
        }
    }
    for (name, table) in config.get("tables").and_then(toml::Value::as_table).into_iter().flatten() {
        let field = |(name, declared): (&String, &toml::Value)| {
            let field_type: FieldType = declared.clone().try_into().unwrap();
            Field::new(name, field_type.data_type(), true)
        };
        let fields: Vec<Field> = table["fields"].as_table().unwrap().iter().map(field).collect();
        catalog.tables.insert(name.clone(), Some(Arc::new(Schema::new(fields))));
    }
    for (name, output) in config["outputs"].as_table().unwrap() {
        let templates = ["topic", "payload"].iter().filter_map(|key| output.get(key)?.as_str());
        let required = templates.flat_map(names_in).map(str::to_owned).collect();
        catalog.outputs.insert(name.clone(), OutputColumns { required });
    }
    catalog
}

fn said(rule: &str, catalog: &Catalog) -> String {
    match compile("rule.sql", rule, catalog) {
        Ok(_) => String::new(),
        Err(CompileError::Wrong(wrong)) => wrong.iter().map(|diagnostic| format!("{diagnostic}\n")).collect(),
        Err(CompileError::Waiting(streams)) => format!("waiting for {streams:?}\n"),
    }
}

/// Checks all examples of `document`, which has at least `least` of them.
fn check(document: &str, least: usize) {
    let blocks = blocks(document);
    let config = blocks.iter().find(|block| block.kind == "toml").unwrap();
    let catalog = catalog(&config.text);
    let mut checked = 0;
    for (index, block) in blocks.iter().enumerate() {
        let expected = match block.kind.as_str() {
            "sql" => "",
            "sql refused" => blocks[index + 1].text.as_str(),
            _ => continue,
        };
        assert_eq!(said(&block.text, &catalog), expected, "{document}:{}", block.line);
        checked += 1;
    }
    assert!(checked >= least, "{document}: only {checked} examples were found");
}

#[test]
fn the_guide_to_sql_shows_what_works() {
    check("docs/sql.md", 7);
}

#[test]
fn the_readme_shows_what_works() {
    check("README.md", 1);
}
