//! Plugins in processes and beside threads, which the crate itself must not know of.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::wasm::pack;
use tidegate_rules::{
    Catalog, Compiled, CompiledPlugins, Emissions, Language, Plugins, RuleError, Source, When, compile,
};

const THRESHOLD: &str = include_str!("../wasm/threshold.wat");
const MANIFEST: &str =
    "reads = [\"tank\"]\n[writes.uplink]\ncolumns = { ts = \"timestamp\", score = \"float64\" }\n";

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

/// The component around `code`.
fn component(code: &str) -> Vec<u8> {
    let text = include_str!("../wasm/plugin.wat");
    wat::parse_str(text.replace("{{CODE}}", code).replace("{{VERSION}}", "1.0.0")).unwrap()
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![ts_field(), Field::new("temperature", DataType::Float64, true)]))
}

fn plugin(component: &[u8], manifest: &str, kept: &Arc<InMemory>) -> Compiled {
    let compiled: Arc<dyn CompiledPlugins> = Arc::clone(kept) as _;
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(schema()))].into(),
        uplink: true,
        plugins: Plugins { compiled: Some(compiled), ..Plugins::default() },
        ..Catalog::default()
    };
    let source = Source::new(Language::Wasm, pack(component, manifest));
    compile("a.wasm", &source, &catalog).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Two rows, of which one is above 80; the first has the number 3.
fn rows() -> Rows {
    let columns: [ArrayRef; 2] = [
        Arc::new(TimestampNanosecondArray::from(vec![1, 2]).with_timezone("UTC")),
        Arc::new(Float64Array::from(vec![81.0, 1.0])),
    ];
    let batch = RecordBatch::try_new(schema(), columns.into()).unwrap();
    Rows { batch, seqs: Seqs::Run { first: 3 } }
}

#[test]
fn a_fence_stops_a_call() {
    let endless = "(func $init (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))
        (func $on_timer (param i32 i32) (result i32) (i32.const 16))
        (func $on_batch (param i32 i32 i32 i32) (result i32) (loop $for_ever (br $for_ever)) (i32.const 16))";
    let manifest = format!("{MANIFEST}[limits]\nfuel = 10000000000\n");
    let mut rule = plugin(&component(endless), &manifest, &Arc::default()).rule;
    let fence = Arc::clone(rule.fence().unwrap());
    let watchdog = thread::spawn(move || fence.raise());
    let mut out = Emissions::default();
    let outcome = rule.on_batch("tank", &rows(), When::at(0), &mut out);
    watchdog.join().unwrap();
    assert_eq!(outcome, Err(RuleError("it was stopped, since a call took too long".to_owned())));
    assert_eq!((out.stopped_at, out.rows.len(), out.bad_rows), (Some(3), 0, 0));
}

/// Says to a child that it is to run with what the service file forbids.
const DENIED: &str = "TIDEGATE_TEST_MEMORY_DENIED";

/// Runs the next one in a process of its own, since what is forbidden stays so.
#[test]
fn plugins_run_where_memory_is_written_or_executed() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plugins::in_a_process_that_may_not_make_memory_executable", "--nocapture"])
        .env(DENIED, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn in_a_process_that_may_not_make_memory_executable() {
    // Linux before 6.3 cannot be asked.
    if std::env::var_os(DENIED).is_none() || tidegate_code_memory::deny_write_execute().is_err() {
        return;
    }
    let component = component(THRESHOLD);
    let plain = wasmtime::component::Component::new(&wasmtime::Engine::default(), &component);
    let why = plain.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(why.contains("unable to make memory executable"), "nothing was forbidden: {why}");
    let kept = Arc::new(InMemory::default());
    for from_kept in [false, true] {
        assert_eq!(kept.0.lock().unwrap().len(), usize::from(from_kept));
        let Compiled { mut rule, warnings, .. } = plugin(&component, MANIFEST, &kept);
        assert_eq!(warnings, []);
        let mut out = Emissions::default();
        rule.on_batch("tank", &rows(), When::at(0), &mut out).unwrap();
        assert_eq!(out.rows.iter().map(|emission| emission.rows.len()).collect::<Vec<_>>(), [1]);
    }
}
