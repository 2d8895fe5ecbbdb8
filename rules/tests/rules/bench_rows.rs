//! The streams and the table that these tests run on, and how they drive a rule.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, Compiled, Emission, Emissions, Language, OutputColumns, Rule, Source, Target, When,
};

/// One row of stream `tank`.
#[derive(Debug, Clone)]
pub struct Tank {
    pub ts_ms: i64,
    pub device: Option<&'static str>,
    pub temperature: Option<f64>,
    pub count: Option<i64>,
    pub running: Option<bool>,
}

pub fn tank(ts_ms: i64, device: &'static str, temperature: f64) -> Tank {
    Tank {
        ts_ms,
        device: Some(device),
        temperature: Some(temperature),
        count: Some(ts_ms),
        running: Some(temperature > 0.0),
    }
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("temperature", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
        Field::new("running", DataType::Boolean, true),
    ]))
}

pub fn batch(rows: &[Tank]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.ts_ms * 1_000_000))
                .with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.device))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.temperature))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.count))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.running))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// One row of stream `valve`.
#[derive(Debug, Clone)]
pub struct Valve {
    pub ts_ms: i64,
    pub device: Option<&'static str>,
    pub open: Option<bool>,
    pub position: Option<i64>,
    pub readings: Option<Vec<Option<i64>>>,
}

pub fn valve(ts_ms: i64, device: &'static str, open: bool) -> Valve {
    Valve {
        ts_ms,
        device: Some(device),
        open: Some(open),
        position: Some(ts_ms),
        readings: Some(vec![Some(ts_ms), Some(-ts_ms)]),
    }
}

pub fn valve_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("open", DataType::Boolean, true),
        Field::new("position", DataType::Int64, true),
        Field::new("readings", DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))), true),
    ]))
}

pub fn valve_batch(rows: &[Valve]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.ts_ms * 1_000_000))
                .with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.device))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.open))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.position))),
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|r| r.readings.clone()))),
    ];
    RecordBatch::try_new(valve_schema(), columns).unwrap()
}

pub fn limits_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("device", DataType::Utf8, true),
        Field::new("high", DataType::Float64, true),
        Field::new("area", DataType::Utf8, true),
    ]))
}

/// The table `limits` with these rows.
pub fn limits(rows: &[(Option<&str>, Option<f64>, &str)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
    ];
    RecordBatch::try_new(limits_schema(), columns).unwrap()
}

/// A row of one stream or the other.
#[derive(Debug, Clone)]
pub enum Event {
    Tank(Tank),
    Valve(Valve),
}

impl Event {
    pub fn stream(&self) -> &'static str {
        match self {
            Self::Tank(_) => "tank",
            Self::Valve(_) => "valve",
        }
    }
}

/// The rows of `events` that are of one stream, as batches.
pub fn batches(events: &[Event]) -> [RecordBatch; 2] {
    let (mut tanks, mut valves) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Tank(row) => tanks.push(row.clone()),
            Event::Valve(row) => valves.push(row.clone()),
        }
    }
    [batch(&tanks), valve_batch(&valves)]
}

/// Feeds the rows of both streams in their order, in batches of at most the given sizes (the rest as large as
/// they can be).
pub fn feed_events(
    rule: &mut dyn Rule,
    events: &[Event],
    first_seq: u64,
    cuts: &[usize],
    out: &mut Emissions,
) {
    let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
    let mut at = 0;
    while at < events.len() {
        let stream = events[at].stream();
        let most = cuts.next().unwrap();
        let len = events[at..].iter().take_while(|event| event.stream() == stream).take(most).count();
        let [tanks, valves] = batches(&events[at..at + len]);
        let batch = if stream == "tank" { tanks } else { valves };
        rule.on_batch(
            stream,
            &Rows { batch, seqs: Seqs::Run { first: first_seq + at as u64 } },
            When::at(0),
            out,
        )
        .unwrap();
        at += len;
    }
}

pub fn catalog() -> Catalog {
    let hot = Schema::new(vec![
        ts_field(),
        Field::new("device", DataType::Utf8, true),
        Field::new("mean", DataType::Float64, true),
    ]);
    Catalog {
        inputs: [
            ("tank".to_owned(), Some(schema())),
            ("valve".to_owned(), Some(valve_schema())),
            ("later".to_owned(), None),
        ]
        .into(),
        tables: [("limits".to_owned(), Some(limits_schema())), ("settings".to_owned(), None)].into(),
        derived: [("hot".to_owned(), Arc::new(hot))].into(),
        outputs: [
            ("cooling_pump".to_owned(), OutputColumns { required: vec!["device".into()], accepted: None }),
            ("lamp".to_owned(), OutputColumns::default()),
        ]
        .into(),
        uplink: true,
        uplink_rules: None,
        ..Catalog::default()
    }
}

pub fn compile(file: &str, text: &str, catalog: &Catalog) -> Result<Compiled, CompileError> {
    tidegate_rules::compile(file, &Source::new(Language::Sql, text), catalog)
}

pub fn rule(text: &str) -> Box<dyn Rule> {
    rule_of(text, &catalog())
}

pub fn rule_of(text: &str, catalog: &Catalog) -> Box<dyn Rule> {
    match compile("rule.sql", text, catalog) {
        Ok(compiled) => compiled.rule,
        Err(CompileError::Wrong(wrong)) => {
            panic!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        Err(CompileError::Waiting(streams)) => panic!("waiting for {streams:?}"),
    }
}

/// Feeds `rows` in batches of the given sizes (the rest in one), and ends the input if `end`.
pub fn feed(rule: &mut dyn Rule, rows: &[Tank], first_seq: u64, cuts: &[usize]) -> Emissions {
    let mut out = Emissions::default();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let len = cut.min(rows.len() - at);
        if len > 0 {
            let rows =
                Rows { batch: batch(&rows[at..at + len]), seqs: Seqs::Run { first: first_seq + at as u64 } };
            rule.on_batch("tank", &rows, When::at(0), &mut out).unwrap();
            at += len;
        }
    }
    out
}

/// (target, sequence number, row as text) of each row, in order.
pub fn listing(emissions: &[Emission]) -> Vec<(Target, u64, String)> {
    let mut list = Vec::new();
    for emission in emissions {
        for row in 0..emission.rows.len() {
            let one = emission.rows.batch.slice(row, 1);
            let text = pretty_format_batches(&[one]).unwrap().to_string();
            list.push((emission.target.clone(), emission.rows.seqs.get(row), text));
        }
    }
    list
}

/// All rows of `target` as a table, as DataFusion's tests print them.
pub fn table(emissions: &[Emission], target: &str) -> String {
    let batches: Vec<_> =
        emissions.iter().filter(|e| e.target.name() == target).map(|e| e.rows.batch.clone()).collect();
    pretty_format_batches(&batches).unwrap().to_string()
}
