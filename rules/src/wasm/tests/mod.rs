//! Plugins in WebAssembly's text format, run as rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimestampNanosecondType};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};

use super::pack;
use crate::catalog::{CompiledPlugins, Plugins};
use crate::rule::{Emissions, LogLevel, Rule, RuleError, When};
use crate::{Catalog, CompileError, Compiled, Language, OutputColumns, Source};

mod code;
mod hostile;

const THRESHOLD: &str = include_str!("../../../tests/wasm/threshold.wat");
const COUNTER: &str = include_str!("../../../tests/wasm/counter.wat");
/// One that writes times and scores anywhere.
const TO_UPLINK: &str =
    "reads = [\"tank\"]\n[writes.uplink]\ncolumns = { ts = \"timestamp\", score = \"float64\" }\n";
const COUNTS: &str = "reads = [\"tank\"]\n[writes.uplink]\ncolumns = { ts = \"timestamp\", n = \"int64\" }\n";

/// The component around `code`.
fn component(code: &str) -> Vec<u8> {
    component_of_version(code, "1.0.0")
}

fn component_of_version(code: &str, version: &str) -> Vec<u8> {
    let text = include_str!("../../../tests/wasm/plugin.wat");
    wat::parse_str(text.replace("{{CODE}}", code).replace("{{VERSION}}", version)).unwrap()
}

fn catalog() -> Catalog {
    let tank = vec![ts_field(), Field::new("temperature", DataType::Float64, true)];
    let hot = vec![
        ts_field(),
        Field::new("score", DataType::Float64, true),
        Field::new("n", DataType::Int64, true),
    ];
    let registers = Schema::new(vec![Field::new("run", DataType::Boolean, true)]);
    Catalog {
        inputs: [("tank".to_owned(), Some(Arc::new(Schema::new(tank)))), ("quiet".to_owned(), None)].into(),
        derived: [("hot".to_owned(), Arc::new(Schema::new(hot)))].into(),
        tables: [("limits".to_owned(), None)].into(),
        outputs: [(
            "pump".to_owned(),
            OutputColumns { required: Vec::new(), accepted: Some(Arc::new(registers)) },
        )]
        .into(),
        uplink: true,
        ..Catalog::default()
    }
}

fn compile(component: &[u8], manifest: &str, catalog: &Catalog) -> Result<Compiled, Vec<String>> {
    let source = Source::new(Language::Wasm, pack(component, manifest));
    crate::compile("rules/a.wasm", &source, catalog).map_err(|error| match error {
        CompileError::Waiting(streams) => vec![format!("waits for {}", streams.join(", "))],
        CompileError::Wrong(wrong) => wrong.iter().map(ToString::to_string).collect(),
    })
}

fn rule(code: &str, manifest: &str) -> Box<dyn Rule> {
    compile(&component(code), manifest, &catalog()).unwrap_or_else(|wrong| panic!("{wrong:?}")).rule
}

/// Why the plugin is refused.
fn refusal(component: &[u8], manifest: &str, catalog: &Catalog) -> String {
    compile(component, manifest, catalog).err().unwrap_or_default().join("\n")
}

/// Rows of `tank` from number `first` on; their times are their numbers.
fn tank(first: u64, temperatures: &[Option<f64>]) -> Rows {
    let times: Vec<i64> = (first as i64..).take(temperatures.len()).collect();
    let columns: [ArrayRef; 2] = [
        Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Float64Array::from(temperatures.to_vec())),
    ];
    let schema = catalog().inputs["tank"].clone().unwrap();
    Rows { batch: RecordBatch::try_new(schema, columns.into()).unwrap(), seqs: Seqs::Run { first } }
}

fn numbers(first: u64, temperatures: &[f64]) -> Rows {
    tank(first, &temperatures.iter().copied().map(Some).collect::<Vec<_>>())
}

/// Calls it at the time `now`.
fn call(rule: &mut Box<dyn Rule>, rows: &Rows, now: i64) -> (Emissions, Result<(), RuleError>) {
    let mut out = Emissions::default();
    let outcome = rule.on_batch("tank", rows, When::at(now), &mut out);
    (out, outcome)
}

/// The number of each row and the count in it.
fn counts(out: &Emissions) -> Vec<(u64, i64)> {
    let counts = |rows: &Rows| {
        let n = rows.batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().clone();
        (0..rows.len()).map(|row| (rows.seqs.get(row), n.value(row))).collect::<Vec<_>>()
    };
    out.rows.iter().flat_map(|emission| counts(&emission.rows)).collect()
}

#[test]
fn rows_go_in_and_come_out() {
    for (manifest, target) in [(TO_UPLINK, "uplink"), ("reads = [\"tank\"]\nwrites = [\"hot\"]", "hot")] {
        let mut rule = rule(THRESHOLD, manifest);
        assert_eq!((rule.flows().len(), &*rule.flows()[0].input), (1, "tank"));
        let rows = tank(10, &[Some(80.5), None, Some(80.0), Some(f64::NAN), Some(99.0), Some(-1.0)]);
        // Of a larger batch, as the engine cuts them.
        let (out, outcome) = call(&mut rule, &rows.slice(0, 5), 0);
        assert_eq!((outcome, out.rows.len(), out.bad_rows), (Ok(()), 1, 0));
        let emission = &out.rows[0];
        assert_eq!(emission.target.name(), target);
        let Rows { batch, seqs } = &emission.rows;
        let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampNanosecondType>();
        let scores = batch.column_by_name("score").unwrap().as_primitive::<Float64Type>();
        assert_eq!((times.values().as_ref(), scores.values().as_ref()), (&[10, 14][..], &[80.5, 99.0][..]));
        assert_eq!([seqs.get(0), seqs.get(1)], [10, 14]);
        let (out, outcome) = call(&mut rule, &numbers(20, &[1.0]), 0);
        assert_eq!((outcome, out.rows.len()), (Ok(()), 0));
    }
}

#[test]
fn what_it_keeps_outlives_it() {
    let mut one = rule(COUNTER, COUNTS);
    let (out, outcome) = call(&mut one, &numbers(1, &[1.0, 2.0, -3.0]), 5);
    assert_eq!((outcome, counts(&out)), (Ok(()), vec![(1, 1), (2, 2), (3, 3)]));
    assert_eq!(
        out.log.iter().map(|line| (line.level, line.text.as_str())).collect::<Vec<_>>(),
        [(LogLevel::Info, "counted")]
    );
    assert!(out.state_bytes > 9, "{}", out.state_bytes);
    assert_eq!(one.wakes_at(), Some(1_000_000_005));
    let state = one.snapshot().unwrap();
    let mut other = rule(COUNTER, COUNTS);
    assert_eq!(other.restore(state), Ok(Vec::new()));
    for rule in [&mut one, &mut other] {
        assert_eq!(rule.wakes_at(), Some(1_000_000_005));
        // A timer that is due comes before the rows, with the number of the first.
        let (out, outcome) = call(rule, &numbers(4, &[0.0, 0.0]), 1_000_000_005);
        assert_eq!((outcome, counts(&out)), (Ok(()), vec![(4, 3), (4, 4), (5, 5)]));
        assert_eq!(rule.wakes_at(), None);
        call(rule, &numbers(6, &[-1.0]), 2_000_000_000).1.unwrap();
        let mut out = Emissions::default();
        rule.on_tick(9, When::at(3_000_000_000), &mut out).unwrap();
        assert_eq!((counts(&out), rule.wakes_at()), (vec![(9, 6)], None));
        let steps = rule.explain().steps;
        let said: Vec<(&str, usize)> = steps.iter().map(|step| (step.what.as_str(), step.entries)).collect();
        assert_eq!(said, [("plugin: reads tank, writes uplink", 0), ("state", 1), ("timers", 0)]);
    }
}

#[test]
fn cuts_make_no_difference() {
    let temperatures = [1.0, -2.0, 3.0, 4.0, -5.0, 6.0, 7.0];
    let mut whole = rule(COUNTER, COUNTS);
    let expected = counts(&call(&mut whole, &numbers(1, &temperatures), 0).0);
    for cut in 1..temperatures.len() {
        let mut cut_up = rule(COUNTER, COUNTS);
        let rows = numbers(1, &temperatures);
        let mut found = counts(&call(&mut cut_up, &rows.slice(0, cut), 0).0);
        found.extend(counts(&call(&mut cut_up, &rows.slice(cut, rows.len() - cut), 0).0));
        assert_eq!(found, expected);
        assert_eq!(cut_up.wakes_at(), whole.wakes_at());
    }
}

#[test]
fn names_are_checked_before_anything_runs() {
    let good = component(THRESHOLD);
    let said = |manifest: &str| refusal(&good, manifest, &catalog());
    assert_eq!(
        said("reads = [\"tnak\", \"limits\", \"tank\", \"tank\"]\nwrites = [\"pmp\", \"uplink\", \"tank\"]"),
        "rules/a.toml:1:10: there is no stream `tnak`; did you mean `tank`?\n\
         rules/a.toml:1:18: `limits` is a reference table, which plugins cannot read; join it to the stream in a \
         rule in SQL\n\
         rules/a.toml:1:36: `tank` stands in `reads` twice; leave one of them out\n\
         rules/a.toml:2:11: `pmp` is not an output, a derived stream or `uplink`; did you mean `pump`?\n\
         rules/a.toml:2:18: `uplink` takes any columns, so the plugin has to say which it writes; write \
         `[writes.uplink]` and below it `columns = { score = \"float64\" }`\n\
         rules/a.toml:2:28: `tank` is fed by a connection and cannot be written; write to an output, a derived \
         stream or `uplink`"
    );
    let declared = "reads = [\"tank\"]\n[writes.pump]\ncolumns = { run = \"bool\" }";
    assert_eq!(said(declared), "rules/a.toml:2:9: `pump` has its columns already; leave `columns` out");
    assert_eq!(said("reads = [\"quiet\"]\nwrites = [\"pump\"]"), "waits for quiet");
    let source = Source::new(Language::Wasm, &good);
    let Err(CompileError::Wrong(wrong)) = crate::compile("rules/a.wasm", &source, &catalog()) else {
        panic!("it has no manifest")
    };
    assert_eq!(
        wrong[0].to_string(),
        "rules/a.wasm: the plugin has no manifest; write rules/a.toml beside it, with at least `reads = [\"NAME\"]`"
    );
}

#[test]
fn a_plugin_whose_end_is_missing_is_said_to_be_cut_off() {
    let good = component(THRESHOLD);
    for end in [good.len() - 1, good.len() / 2, 9] {
        let said = refusal(&good[..end], TO_UPLINK, &catalog());
        assert!(said.starts_with("rules/a.wasm: its end is missing"), "{end}: {said}");
    }
    assert_eq!(refusal(b"", TO_UPLINK, &catalog()), "rules/a.wasm: the file is empty; copy it again");
}

#[test]
fn it_may_refuse_its_configuration() {
    let code = r#"(data (i32.const 1024) "too hot")
        (func $init (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 32))
        (func $on_timer (param i32 i32) (result i32) (i32.const 16))
        (func $on_batch (param i32 i32 i32 i32) (result i32) (i32.const 16))"#;
    let manifest = format!("{TO_UPLINK}[config]\nlimit = 1e9\n");
    assert_eq!(
        refusal(&component(code), &manifest, &catalog()),
        "rules/a.toml:4:2: the plugin does not take its configuration: too hot"
    );
    assert_eq!(super::config_schema(&component(code)), Ok(String::new()));
}

#[test]
fn limits_that_are_too_small_to_start_are_told_where_they_stand() {
    let code = |init: &str| {
        let body = "(result i32) (i32.const 16))";
        component(&format!(
            "(func $init (param i32 i32 i32 i32 i32 i32) (result i32) {init} (i32.const 16))
            (func $on_timer (param i32 i32) {body} (func $on_batch (param i32 i32 i32 i32) {body}"
        ))
    };
    let (endless, greedy) = (
        "(loop $l (br $l))",
        "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable))",
    );
    for (init, limits, at, why, limit) in [
        (
            endless,
            "[limits]\nfuel = 5000\n",
            ":5:1",
            "it took more than 5000 steps (`limits.fuel`) in init",
            "fuel",
        ),
        (
            endless,
            "[limits]\nmemory = \"1MiB\"\n",
            ":4:2",
            "it took more than 10000000 steps (`limits.fuel`) in init",
            "fuel",
        ),
        (
            endless,
            "[config]\nx = 1\n",
            "",
            "it took more than 10000000 steps (`limits.fuel`) in init",
            "fuel",
        ),
        (
            greedy,
            "[limits]\nmemory = \"1MiB\"\n",
            ":5:1",
            "it needs more than 1MiB of memory (`limits.memory`) in init",
            "memory",
        ),
        (
            "",
            "[limits]\nmemory = \"1KiB\"\n",
            ":5:1",
            "it needs more than 1KiB of memory (`limits.memory`)",
            "memory",
        ),
        (
            "",
            "[limits]\ninstances = 1\n",
            ":5:1",
            "it has more than 1 modules (`limits.instances`)",
            "instances",
        ),
    ] {
        let said = refusal(&code(init), &format!("{TO_UPLINK}{limits}"), &catalog());
        assert_eq!(
            said,
            format!(
                "rules/a.toml{at}: the plugin cannot start within its limits: {why}; give it more with \
                `{limit}` in [limits], unless it has gone astray"
            )
        );
    }
}

#[test]
fn an_interpreted_plugin_does_the_same() {
    let interpreted: &'static super::runtime::Runtime = Box::leak(Box::new(super::runtime::interpreted()));
    let fails = COUNTER
        .replace("(call $after (i64.const 1000000000)", "(loop $l (br $l)) (call $after (i64.const 1)");
    for code in [COUNTER, &fails] {
        let manifest = format!("{COUNTS}[limits]\nfuel = 5000\n");
        let source = Source::new(Language::Wasm, pack(&component(code), &manifest));
        let done = |mut rule: Box<dyn Rule>| {
            let (out, outcome) = call(&mut rule, &numbers(1, &[1.0, -2.0, 3.0, 4.0]), 0);
            (counts(&out), out.bad_rows, out.bad_row, out.log, outcome, rule.wakes_at())
        };
        let native =
            done(crate::compile("a.wasm", &source, &catalog()).unwrap_or_else(|_| panic!("native")).rule);
        let other = super::compile::compile_with(|| Ok(interpreted), "a.wasm", &source, &catalog());
        assert_eq!(done(other.unwrap_or_else(|_| panic!("interpreted")).rule), native);
        assert_eq!(native.1, u64::from(code != COUNTER));
    }
}

/// Keeps compiled plugins in memory, as a box does on disk.
#[derive(Debug, Default)]
struct InMemory(Mutex<BTreeMap<String, Vec<u8>>>);

impl CompiledPlugins for InMemory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &str, code: &[u8]) {
        self.0.lock().unwrap().insert(key.to_owned(), code.to_vec());
    }
}

fn keeping(kept: &Arc<InMemory>) -> Catalog {
    let compiled: Arc<dyn CompiledPlugins> = Arc::clone(kept) as _;
    Catalog { plugins: Plugins { compiled: Some(compiled), ..Plugins::default() }, ..catalog() }
}

#[test]
fn a_version_looks_at_what_the_one_before_has_kept_before_it_runs() {
    let easy = "(func $init (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))";
    // It wants to begin with nothing.
    let strict = "(data (i32.const 1024) \"too old\")
        (func $init (param i32 i32 i32 i32 i32 i32) (result i32)
          (call $count)
          (if (result i32) (i64.eqz (i64.load (i32.const 200))) (then (i32.const 16)) (else (i32.const 32))))";
    let mut one = rule(COUNTER, COUNTS);
    call(&mut one, &numbers(1, &[1.0]), 0).1.unwrap();
    let state = one.snapshot().unwrap();
    let refused = "it fails with what the version before has kept: too old";
    for (code, outcome) in [
        (COUNTER.replace(easy, strict), Err(RuleError(refused.to_owned()))),
        (format!("{COUNTER}(func $another)"), Ok(())),
    ] {
        let mut other = rule(&code, COUNTS);
        assert!(other.starting().is_none(), "it has started, with nothing");
        other.restore(state.clone()).unwrap();
        let mut out = Emissions::default();
        assert_eq!(other.starting().unwrap().start(2, When::at(0), &mut out), outcome);
        assert!(other.starting().is_none() && out.stopped_at.is_none());
    }
    let mut same = rule(COUNTER, COUNTS);
    same.restore(state).unwrap();
    assert!(same.starting().is_none(), "after a restart of the box it goes on");
}
