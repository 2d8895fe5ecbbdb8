//! What the documents show is so: every example compiles, and what they say is refused is refused with those
//! words.
//!
//! A document's first `toml` block is its configuration. `sql` and `rhai` blocks are rules; a `sql refused` block
//! is one that the `text` block after it answers. A `rows in` block after a rule is what comes, and the `rows out`
//! block after that is what the rule writes: a line of names, and then a line for each row; `-` is null, and
//! times without a date are those of 1970-01-01. A column `now` says what the wall clock shows when a row
//! comes. A `table NAME` block before them is what a reference table holds, and `rows in until TIME` lets
//! time go on behind the last row. In `coming-from.md` the last column of each table is a rule's SELECT, or
//! an option.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidegate_core::schema::ts_field;
use tidegate_core::{FieldType, Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, Compiled, Emissions, Language, OutputColumns, Rule, Source, When,
};

const DAY: &str = "1970-01-01T";

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

/// What `config` offers to rules. The box reads its configuration elsewhere; this knows just enough for
/// examples.
fn catalog(config: &str) -> Catalog {
    let config: toml::Table = config.parse().unwrap();
    let mut catalog = Catalog {
        uplink: config.contains_key("uplink") || config.contains_key("uplinks"),
        ..Catalog::default()
    };
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
        catalog.outputs.insert(name.clone(), OutputColumns { required, accepted: None });
    }
    catalog.inputs.insert("tidegate_connections".to_owned(), Some(own_stream()));
    catalog
}

/// The box's own stream, as the guide to SQL lists its columns; a test of the engine compares the list.
fn own_stream() -> SchemaRef {
    let guide =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md")).unwrap();
    let section = guide.split("\n## How the box itself is\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let column = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let kind: FieldType = toml::Value::from(rest.split(" |").next()?).try_into().unwrap();
        (name != "ts").then(|| Field::new(name, kind.data_type(), true))
    };
    let columns: Vec<Field> = section.lines().filter_map(column).collect();
    assert!(columns.len() > 3, "the list was not found");
    Arc::new(Schema::new([ts_field()].into_iter().chain(columns).collect::<Vec<_>>()))
}

/// A rule, in the language that a block is of.
fn compile(language: Language, rule: &str, catalog: &Catalog) -> Result<Compiled, CompileError> {
    let file = format!("rule.{}", language.extension());
    tidegate_rules::compile(&file, &Source::new(language, rule), catalog)
}

fn said(language: Language, rule: &str, catalog: &Catalog) -> String {
    match compile(language, rule, catalog) {
        Ok(_) => String::new(),
        Err(CompileError::Wrong(wrong)) => wrong.iter().map(|diagnostic| format!("{diagnostic}\n")).collect(),
        Err(CompileError::Waiting(streams)) => format!("waiting for {streams:?}\n"),
    }
}

/// The rows of `text` in the columns of `schema`.
fn batch(text: &str, schema: &SchemaRef) -> RecordBatch {
    let rows = cells(text);
    let column = |field: &Arc<Field>| {
        let at = rows[0].iter().position(|name| name == field.name());
        let value = |row: &Vec<String>| at.map(|at| row[at].clone()).filter(|value| value != "-");
        let is_time = field.name() == "ts";
        let values =
            rows[1..].iter().map(|row| value(row).map(|value| if is_time { moment(&value) } else { value }));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(values));
        let values = cast(&texts, field.data_type()).unwrap();
        assert_eq!(
            values.logical_null_count(),
            texts.logical_null_count(),
            "a value of `{}` cannot be read",
            field.name()
        );
        values
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect()).unwrap()
}

fn moment(time: &str) -> String {
    if time.contains('T') { time.to_owned() } else { format!("{DAY}{time}Z") }
}

/// Lets time go on to `until`, as a box does when nothing comes.
fn tick(rule: &mut dyn Rule, until: i64, out: &mut Emissions) {
    while let Some(at) = rule.wakes_at().filter(|at| *at <= until) {
        rule.on_tick(u64::MAX, When::at(at), out).unwrap();
    }
}

/// What `rule` writes for the rows of `text`, and when time goes on to `until`.
fn written(
    language: Language,
    rule: &str,
    table: Option<(&str, &str)>,
    text: &str,
    until: Option<&str>,
    catalog: &Catalog,
) -> Vec<Vec<String>> {
    let mut rule = compile(language, rule, catalog).unwrap().rule;
    let stream = Arc::clone(&rule.flows()[0].input);
    let schema = catalog.inputs[&*stream].clone().unwrap();
    let (rows, batch) = (cells(text), batch(text, &schema));
    let clock = rows[0].iter().position(|name| name == "now");
    let times = batch["ts"].as_primitive::<TimestampNanosecondType>().clone();
    let mut out = Emissions::default();
    if let Some((name, text)) = table {
        let rows = self::batch(text, catalog.tables[name].as_ref().unwrap());
        rule.lookups().unwrap().on_table(name, &rows, &mut out).unwrap();
    }
    for row in 0..batch.num_rows() {
        let wall_ns = clock.map_or(0, |at| string_to_timestamp_nanos(&moment(&rows[row + 1][at])).unwrap());
        let now = if until.is_some() { times.value(row) } else { 0 };
        tick(&mut *rule, now - 1, &mut out);
        let one = Rows { batch: batch.slice(row, 1), seqs: Seqs::One { seq: row as u64 } };
        rule.on_batch(&stream, &one, When { wall_ns, ..When::at(now) }, &mut out).unwrap();
    }
    if let Some(until) = until {
        tick(&mut *rule, string_to_timestamp_nanos(&moment(until)).unwrap(), &mut out);
    }
    assert_eq!(out.bad_rows, 0, "{:?}", out.bad_row);
    let mut lines: Vec<Vec<String>> = Vec::new();
    for batch in out.rows.iter().map(|emission| &emission.rows.batch) {
        let options = FormatOptions::default().with_null("-");
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        if lines.is_empty() {
            lines.push(batch.schema().fields().iter().map(|field| field.name().clone()).collect());
        }
        lines.extend((0..batch.num_rows()).map(|row| {
            let text = |column: &ArrayFormatter<'_>| column.value(row).to_string();
            columns
                .iter()
                .map(text)
                .map(|text| {
                    text.strip_prefix(DAY).map_or(text.clone(), |time| time.trim_end_matches('Z').to_owned())
                })
                .collect()
        }));
    }
    lines
}

fn cells(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Checks all examples of `document`, which has at least `least` of them.
fn check(document: &str, least: usize) {
    let blocks = blocks(document);
    let config = blocks.iter().find(|block| block.kind == "toml").unwrap();
    let catalog = catalog(&config.text);
    let mut checked = 0;
    for (index, block) in blocks.iter().enumerate() {
        let (language, expected) = match block.kind.as_str() {
            "sql" => (Language::Sql, ""),
            "sql refused" => (Language::Sql, blocks[index + 1].text.as_str()),
            "rhai" => (Language::Rhai, ""),
            "rhai refused" => (Language::Rhai, blocks[index + 1].text.as_str()),
            _ => continue,
        };
        assert_eq!(said(language, &block.text, &catalog), expected, "{document}:{}", block.line);
        checked += 1;
        let table = blocks
            .get(index + 1)
            .and_then(|block| Some((block.kind.strip_prefix("table ")?, block.text.as_str())));
        let index = index + usize::from(table.is_some());
        if let Some([input, output]) = blocks.get(index + 1..index + 3)
            && let Some(rest) = input.kind.strip_prefix("rows in")
        {
            assert_eq!(output.kind, "rows out", "{document}:{}", output.line);
            let until = rest.strip_prefix(" until ");
            assert_eq!(
                written(language, &block.text, table, &input.text, until, &catalog),
                cells(&output.text),
                "{document}:{}",
                output.line
            );
        }
    }
    assert!(checked >= least, "{document}: only {checked} examples were found");
}

#[test]
fn the_guide_to_sql_shows_what_works() {
    check("docs/sql.md", 7);
}

#[test]
#[cfg(feature = "rhai")]
fn the_guide_to_rhai_shows_what_works() {
    check("docs/rhai.md", 8);
}

#[test]
fn the_recipes_work() {
    check("docs/recipes.md", 10);
}

#[test]
fn what_is_spelled_otherwise_here_compiles() {
    const DOCUMENT: &str = "docs/coming-from.md";
    let catalog = catalog(&blocks(DOCUMENT)[0].text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DOCUMENT);
    let mut checked = 0;
    for (line, text) in (1..).zip(fs::read_to_string(path).unwrap().lines()) {
        let Some(form) =
            text.strip_suffix("` |").and_then(|row| row.rsplit_once("| `")).map(|(_, form)| form)
        else {
            continue;
        };
        let rule = match form.strip_prefix("--!") {
            Some(_) => format!("{form}\nINSERT INTO uplink SELECT device FROM meas"),
            None => format!("INSERT INTO uplink {form}"),
        };
        assert_eq!(said(Language::Sql, &rule, &catalog), "", "{DOCUMENT}:{line}");
        checked += 1;
    }
    assert!(checked > 40, "only {checked} forms were found");
}

#[test]
fn the_readme_shows_what_works() {
    check("README.md", 1);
}
