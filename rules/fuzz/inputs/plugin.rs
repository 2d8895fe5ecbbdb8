//! Any bytes are a plugin or an error, as a component and as a manifest, and a plugin takes any rows.
//!
//! Random bytes are seldom a component, so one of three inputs changes a good one in a few places.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::wasm::{pack, unpack};
use tidegate_rules::{Catalog, Emissions, Language, Source, When, compile};

static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let code = include_str!("../../tests/wasm/threshold.wat");
    let text = include_str!("../../tests/wasm/plugin.wat");
    wat::parse_str(text.replace("{{CODE}}", code).replace("{{VERSION}}", "1.0.0")).unwrap()
});
const MANIFEST: &str = "reads = [\"tank\"]\n[writes.uplink]\ncolumns = { ts = \"timestamp\", score = \"float64\" }\n\
    [limits]\nfuel = 100000\nmemory = \"1MiB\"\n";

/// The source of a rule that `data` stands for.
fn source(data: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = data.split_first()?;
    Some(match kind % 4 {
        0 => rest.to_vec(),
        1 => pack(rest, MANIFEST),
        2 => pack(&COMPONENT, std::str::from_utf8(rest).ok()?),
        _ => {
            let mut changed = COMPONENT.clone();
            for change in rest.chunks_exact(3).take(8) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % changed.len();
                changed[at] = change[2];
            }
            pack(&changed, MANIFEST)
        }
    })
}

pub fn take(data: &[u8]) {
    let Some(source) = source(data) else { return };
    let (component, manifest) = unpack(&source);
    if let Some(manifest) = manifest {
        assert_eq!(unpack(&pack(component, manifest)), (component, Some(manifest)));
    }
    let tank = Arc::new(Schema::new(vec![ts_field(), Field::new("temperature", DataType::Float64, true)]));
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(Arc::clone(&tank)))].into(),
        uplink: true,
        ..Catalog::default()
    };
    let Ok(compiled) = compile("a.wasm", &Source::new(Language::Wasm, &source), &catalog) else { return };
    let mut rule = compiled.rule;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(vec![i64::MIN, 0, i64::MAX]).with_timezone("UTC")),
        Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(1e308)])),
    ];
    let rows = Rows { batch: RecordBatch::try_new(tank, columns).unwrap(), seqs: Seqs::Run { first: 1 } };
    let mut out = Emissions::default();
    // A plugin may stop with an error.
    let mut run = || {
        if let Some(starting) = rule.starting() {
            starting.start(0, When::at(0), &mut out)?;
        }
        rule.on_batch("tank", &rows, When::at(1), &mut out)?;
        rule.on_tick(10, When::at(i64::MAX), &mut out)?;
        let state = rule.seal()?;
        rule.restore(state)
    };
    drop(run());
}
