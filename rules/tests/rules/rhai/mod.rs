//! Rules in Rhai.

mod limits;
mod rows;
mod says;
mod state;
mod timers;
mod words;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, Compiled, Emission, Emissions, Language, OutputColumns, Rule, Source, When,
};

const SECOND: i64 = 1_000_000_000;

/// `device`, temperature and count; the second of the day is the row's number.
type Reading = (&'static str, Option<f64>, Option<i64>);

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields = fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    Arc::new(Schema::new([ts_field()].into_iter().chain(fields).collect::<Vec<_>>()))
}

fn tank_schema() -> SchemaRef {
    schema(&[
        ("device", DataType::Utf8),
        ("count", DataType::Int64),
        ("running", DataType::Boolean),
        ("temperature", DataType::Float64),
    ])
}

fn catalog() -> Catalog {
    let pump = schema(&[("run", DataType::Boolean), ("speed", DataType::Float64)]);
    let pump = Arc::new(Schema::new(pump.fields()[1..].to_vec()));
    Catalog {
        inputs: [
            ("tank".to_owned(), Some(tank_schema())),
            (
                "valve".to_owned(),
                Some(schema(&[("device", DataType::Utf8), ("position", DataType::Float64)])),
            ),
            ("later".to_owned(), None),
        ]
        .into(),
        tables: [("limits".to_owned(), None)].into(),
        derived: [(
            "hot".to_owned(),
            schema(&[("device", DataType::Utf8), ("mean", DataType::Float64), ("n", DataType::Int64)]),
        )]
        .into(),
        outputs: [
            ("lamp".to_owned(), OutputColumns { required: vec!["device".into()], accepted: None }),
            ("pump".to_owned(), OutputColumns { required: Vec::new(), accepted: Some(pump) }),
        ]
        .into(),
        uplink: true,
        ..Catalog::default()
    }
}

fn compile(script: &str) -> Result<Compiled, CompileError> {
    tidegate_rules::compile("rule.rhai", &Source::new(Language::Rhai, script), &catalog())
}

/// What is wrong with `script`, a line each.
fn wrong(script: &str) -> String {
    match compile(script) {
        Ok(_) => String::new(),
        Err(CompileError::Wrong(wrong)) => wrong.iter().map(|one| format!("{one}\n")).collect(),
        Err(CompileError::Waiting(streams)) => format!("waiting for {streams:?}\n"),
    }
}

fn rule(script: &str) -> Box<dyn Rule> {
    match compile(script) {
        Ok(compiled) => compiled.rule,
        Err(_) => panic!("{}", wrong(script)),
    }
}

/// A rule that reads the tank and may write everywhere.
fn on_tank(body: &str) -> String {
    format!("//! reads = [\"tank\"]\n//! writes = [\"uplink\", \"pump\", \"lamp\", \"hot\"]\n{body}")
}

fn tank(first: usize, readings: &[Reading]) -> Rows {
    let times = (first..first + readings.len()).map(|n| n as i64 * SECOND);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(times).with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(readings.iter().map(|(device, ..)| device))),
        Arc::new(Int64Array::from_iter(readings.iter().map(|(.., count)| count))),
        Arc::new(BooleanArray::from_iter(readings.iter().map(|(_, t, _)| t.map(|t| t > 50.0)))),
        Arc::new(Float64Array::from_iter(readings.iter().map(|(_, temperature, _)| temperature))),
    ];
    let batch = RecordBatch::try_new(tank_schema(), columns).unwrap();
    Rows { batch, seqs: Seqs::Run { first: first as u64 } }
}

fn valve(at: usize, position: f64) -> Rows {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(vec![at as i64 * SECOND]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec!["a"])),
        Arc::new(Float64Array::from(vec![position])),
    ];
    let schema = catalog().inputs["valve"].clone().unwrap();
    Rows { batch: RecordBatch::try_new(schema, columns).unwrap(), seqs: Seqs::One { seq: at as u64 } }
}

/// Hands `rows` to `rule` in batches of at most `most`; the sequence's time is that of each batch's first row.
fn feed(rule: &mut dyn Rule, rows: &Rows, most: usize) -> Emissions {
    let mut out = Emissions::default();
    for at in (0..rows.len()).step_by(most) {
        let some = rows.slice(at, most.min(rows.len() - at));
        let now = some.seqs.get(0) as i64 * SECOND;
        rule.on_batch("tank", &some, When::at(now), &mut out).unwrap();
    }
    out
}

/// What was written, a line a row: its number, where to, and its columns.
fn listing(emissions: &[Emission]) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let mut lines = Vec::new();
    for Emission { target, rows } in emissions {
        let schema = rows.batch.schema();
        for row in 0..rows.len() {
            let columns = schema.fields().iter().zip(rows.batch.columns()).map(|(field, column)| {
                let value = ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string();
                format!(" {}={}", field.name(), value.strip_prefix("1970-01-01T").unwrap_or(&value))
            });
            lines.push(format!("{} {target}{}", rows.seqs.get(row), columns.collect::<String>()));
        }
    }
    lines
}

/// What `body` writes for a hot row, a cold one and one without a reading.
fn three(body: &str) -> Emissions {
    let rows = tank(0, &[("a", Some(81.5), Some(4)), ("b", Some(20.0), None), ("a", None, Some(5))]);
    feed(&mut *rule(&on_tank(body)), &rows, 10)
}
