//! The shipped rules on the simulated plant, without brokers and faster than real time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::wasm::pack;
use tidegate_rules::{
    Catalog, CompileError, Emissions, Language, OutputColumns, Rule, Source, When, compile,
};

use super::dosing::Dosing;
use super::folder::RULES;
use super::plant::{Plant, SITE, Sample, TankCommand};
use super::station::Station;

const STEPS_PER_S: i64 = 8;
/// The booster station's controller is asked four times a second.
const STEPS_PER_POLL: i64 = 2;
/// The scale sends twice a second.
const STEPS_PER_WEIGHT: i64 = 4;

fn catalog() -> Catalog {
    let columns = |columns: &[(&str, DataType)]| {
        let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
        Arc::new(Schema::new([ts_field()].into_iter().chain(fields).collect::<Vec<_>>()))
    };
    let (text, float) = (DataType::Utf8, DataType::Float64);
    let tank = columns(&[
        ("site", text.clone()),
        ("device", text.clone()),
        ("temperature", float.clone()),
        ("level", float.clone()),
        ("inflow", float.clone()),
    ]);
    let (pump, bool) = ([("run", DataType::Boolean), ("speed", float.clone())], DataType::Boolean);
    let measured = ["pressure", "current", "hours"].map(|name| (name, float.clone()));
    let booster = columns(&[&measured[..], &[("fault", bool)], &pump].concat());
    let stats = columns(&[
        ("site", text.clone()),
        ("device", text.clone()),
        ("mean_temperature", float.clone()),
        ("max_temperature", float.clone()),
        ("mean_level", float.clone()),
        ("samples", DataType::Int64),
    ]);
    let trend = columns(&[("device", text.clone()), ("value", float.clone()), ("rate", float.clone())]);
    let output = || OutputColumns { required: vec!["site".to_owned(), "device".to_owned()], accepted: None };
    let pump = pump.map(|(name, data_type)| Field::new(name, data_type, true));
    let pump = Arc::new(Schema::new(pump.to_vec()));
    let booster_pump = OutputColumns { required: vec![], accepted: Some(pump) };
    let drive = columns(&[
        ("Speed", float.clone()),
        ("Temperature", float.clone()),
        ("State", text.clone()),
        ("Enabled", DataType::Boolean),
    ]);
    let scale = columns(&[("state", text.clone()), ("net", float.clone()), ("unit", text.clone())]);
    let dosing = [("SetSpeed", float), ("Enable", DataType::Boolean)];
    let dosing = dosing.map(|(name, data_type)| Field::new(name, data_type, true));
    let dosing = Arc::new(Schema::new(dosing.to_vec()));
    let dosing_pump = OutputColumns { required: vec![], accepted: Some(dosing) };
    let outputs = ["cooling_pump", "outlet_gate", "flow_display"].map(|name| (name.to_owned(), output()));
    Catalog {
        inputs: [("tank", tank), ("booster", booster), ("drive", drive), ("scale", scale)]
            .map(|(name, schema)| (name.to_owned(), Some(schema)))
            .into(),
        by_arrival: ["booster", "drive", "scale"].map(str::to_owned).into(),
        derived: [("tank_stats", stats), ("level_trend", trend)]
            .map(|(name, schema)| (name.to_owned(), schema))
            .into(),
        outputs: outputs
            .into_iter()
            .chain([("booster_pump".to_owned(), booster_pump), ("dosing_pump".to_owned(), dosing_pump)])
            .collect(),
        uplink: true,
        ..Catalog::default()
    }
}

/// Plant and rules, each acting on the other.
struct Loop {
    plant: Plant,
    station: Station,
    dosing: Dosing,
    rules: Vec<Box<dyn Rule>>,
    tank: SchemaRef,
    booster: SchemaRef,
    drive: SchemaRef,
    scale: SchemaRef,
    /// steps so far
    steps: i64,
    /// rows by target
    written: BTreeMap<String, usize>,
    /// rates of the levels that were told to the cloud: `fills`, and how full the tank was
    turns: Vec<(bool, f64)>,
}

impl Loop {
    fn new(edit: impl Fn(&str) -> String) -> Self {
        let catalog = catalog();
        let shipped = |name: &Path| {
            let (_, content) = RULES.iter().find(|(shipped, _)| Path::new(shipped) == name).unwrap();
            *content
        };
        let text = |content: &[u8]| std::str::from_utf8(content).unwrap().to_owned();
        let rules = RULES.iter().filter_map(|(name, content)| {
            let path = Path::new(name);
            let language = Language::from_path(path)?;
            let content = match language {
                Language::Wasm => pack(content, &text(shipped(&path.with_extension("toml")))),
                Language::Sql | Language::Rhai => edit(&text(content)).into_bytes(),
            };
            Some((name, Source::new(language, content)))
        });
        let rules = rules.map(|(name, source)| match compile(name, &source, &catalog) {
            Ok(compiled) => compiled.rule,
            Err(CompileError::Wrong(wrong)) => {
                panic!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
            Err(CompileError::Waiting(streams)) => panic!("{name} waits for {streams:?}"),
        });
        let rules = rules.collect();
        let [tank, booster, drive, scale] =
            ["tank", "booster", "drive", "scale"].map(|name| catalog.inputs[name].clone().unwrap());
        Self {
            plant: Plant::new(1),
            station: Station::new(1),
            dosing: Dosing::new(1),
            rules,
            tank,
            booster,
            drive,
            scale,
            steps: 0,
            written: BTreeMap::new(),
            turns: Vec::new(),
        }
    }

    fn run(&mut self, seconds: i64, mut look: impl FnMut(&Plant, &Station)) {
        for _ in 0..seconds * STEPS_PER_S {
            self.plant.step(1.0 / STEPS_PER_S as f64);
            self.station.step(1.0 / STEPS_PER_S as f64);
            self.dosing.step(1.0 / STEPS_PER_S as f64);
            self.steps += 1;
            self.feed("drive", &self.drive_row());
            if self.steps % STEPS_PER_WEIGHT == 0 {
                self.feed("scale", &self.scale_row());
            }
            if let Some(rows) = self.tank_rows() {
                self.feed("tank", &rows);
            }
            if self.steps % STEPS_PER_POLL == 0 {
                self.feed("booster", &self.booster_row());
            }
            look(&self.plant, &self.station);
        }
    }

    fn ts(&self, rows: usize) -> ArrayRef {
        let ts_ns = 1_767_225_600_000_000_000 + self.steps * 1_000_000_000 / STEPS_PER_S;
        Arc::new(TimestampNanosecondArray::from_value(ts_ns, rows).with_timezone("UTC"))
    }

    fn booster_row(&self) -> Rows {
        let Station { run, setpoint, measured_pressure, current, hours, .. } = self.station;
        let float = |value: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
        let bool = |value: bool| -> ArrayRef { Arc::new(BooleanArray::from(vec![value])) };
        let fault = self.station.is_tripped();
        let measured = [measured_pressure, current, hours].map(float);
        let pump = [bool(fault), bool(run), float(setpoint)];
        let columns = [self.ts(1)].into_iter().chain(measured).chain(pump).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.booster), columns).unwrap();
        Rows { batch, seqs: Seqs::Run { first: self.steps.unsigned_abs() } }
    }

    fn drive_row(&self) -> Rows {
        let Dosing { speed, temperature, enabled, .. } = self.dosing;
        let state = if speed > 0.0 { "runs" } else { "ready" };
        let columns: Vec<ArrayRef> = vec![
            self.ts(1),
            Arc::new(Float64Array::from(vec![speed])),
            Arc::new(Float64Array::from(vec![temperature])),
            Arc::new(StringArray::from(vec![state])),
            Arc::new(BooleanArray::from(vec![enabled])),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.drive), columns).unwrap();
        Rows { batch, seqs: Seqs::Run { first: self.steps.unsigned_abs() } }
    }

    fn scale_row(&self) -> Rows {
        let columns: Vec<ArrayRef> = vec![
            self.ts(1),
            Arc::new(StringArray::from(vec!["US"])),
            Arc::new(Float64Array::from(vec![self.dosing.measured_weight])),
            Arc::new(StringArray::from(vec!["kg"])),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.scale), columns).unwrap();
        Rows { batch, seqs: Seqs::Run { first: self.steps.unsigned_abs() } }
    }

    fn tank_rows(&mut self) -> Option<Rows> {
        let readings: Vec<_> =
            self.plant
                .sample()
                .into_iter()
                .filter_map(|(device, sample)| {
                    if let Sample::Reading(reading) = sample { Some((device, reading)) } else { None }
                })
                .collect();
        let columns: Vec<ArrayRef> = vec![
            self.ts(readings.len()),
            Arc::new(StringArray::from_iter_values(readings.iter().map(|_| SITE))),
            Arc::new(StringArray::from_iter_values(readings.iter().map(|(device, _)| device))),
            Arc::new(Float64Array::from_iter(readings.iter().map(|(_, reading)| reading.temperature))),
            Arc::new(Float64Array::from_iter_values(readings.iter().map(|(_, reading)| reading.level))),
            Arc::new(Float64Array::from_iter_values(readings.iter().map(|(_, reading)| reading.inflow))),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.tank), columns).unwrap();
        (!readings.is_empty())
            .then_some(Rows { batch, seqs: Seqs::Run { first: self.steps.unsigned_abs() * 3 } })
    }

    fn feed(&mut self, stream: &str, rows: &Rows) {
        let mut out = Emissions::default();
        for rule in
            self.rules.iter_mut().filter(|rule| rule.flows().iter().any(|flow| &*flow.input == stream))
        {
            rule.on_batch(stream, rows, When::at(0), &mut out).unwrap();
        }
        assert_eq!((out.late, out.bad_row), (0, None));
        for emission in out.rows {
            *self.written.entry(emission.target.name().to_owned()).or_default() += emission.rows.len();
            match emission.target.name() {
                derived @ ("tank_stats" | "level_trend") => self.feed(derived, &emission.rows),
                "cooling_pump" => self.command(&emission.rows.batch, "run", TankCommand::Pump),
                "outlet_gate" => self.command(&emission.rows.batch, "open", TankCommand::Gate),
                "booster_pump" => self.command_station(&emission.rows.batch),
                "dosing_pump" => self.command_dosing(&emission.rows.batch),
                "uplink" => self.note_turns(&emission.rows.batch),
                _ => {}
            }
        }
    }

    fn command(&mut self, rows: &RecordBatch, column: &str, command: fn(bool) -> TankCommand) {
        let devices = rows.column_by_name("device").unwrap().as_string::<i32>();
        let values = rows.column_by_name(column).unwrap().as_boolean();
        for row in 0..rows.num_rows() {
            self.plant.command(devices.value(row), command(values.value(row)));
        }
    }

    fn command_station(&mut self, rows: &RecordBatch) {
        if let Some(run) = rows.column_by_name("run") {
            self.station.run = run.as_boolean().value(0);
        }
        if let Some(speed) = rows.column_by_name("speed") {
            self.station.setpoint = speed.as_primitive::<Float64Type>().value(0);
        }
    }
}

impl Loop {
    fn note_turns(&mut self, rows: &RecordBatch) {
        let Some(tanks) = rows.column_by_name("tank") else { return };
        let levels = rows.column_by_name("level").unwrap().as_primitive::<Float64Type>();
        let tanks = tanks.as_string::<i32>().iter().zip(levels.values());
        self.turns.extend(tanks.map(|(tank, level)| (tank == Some("fills"), *level)));
    }

    fn command_dosing(&mut self, rows: &RecordBatch) {
        let speed = rows.column_by_name("SetSpeed").unwrap().as_primitive::<Float64Type>();
        let enable = rows.column_by_name("Enable").unwrap().as_boolean();
        for row in 0..rows.num_rows() {
            self.dosing.command(enable.value(row), speed.value(row));
        }
    }
}

#[test]
fn the_rules_keep_every_tank_cool_and_neither_full_nor_empty() {
    let mut demo = Loop::new(str::to_owned);
    demo.run(120, |_, _| {});
    let (mut pumps, mut gates) = ([false; 3], [false; 3]);
    demo.run(240, |plant, _| {
        for (n, tank) in plant.tanks().iter().enumerate() {
            assert!((50.0..92.0).contains(&tank.temperature), "{tank:?}");
            assert!((20.0..90.0).contains(&tank.level), "{tank:?}");
            pumps[n] |= tank.pump_runs;
            gates[n] |= tank.gate_open;
        }
    });
    assert_eq!((pumps, gates), ([true; 3], [true; 3]));
    let written = &demo.written;
    assert!(
        written["tank_stats"] >= 90 && written["uplink"] > written["tank_stats"],
        "statistics and alarms: {written:?}"
    );
    assert!(written["flow_display"] > 7_500, "{written:?}");
}

#[test]
fn the_rule_keeps_the_main_at_its_pressure_and_comes_back_from_a_trip() {
    let mut demo = Loop::new(str::to_owned);
    demo.run(60, |_, _| {});
    let (mut steps, mut near, mut trips) = (0, 0, 0);
    let mut before = demo.station.clone();
    demo.run(600, |_, station| {
        // A trip of the motor costs the most, and what it has missed is not made up for.
        assert!((3.0..6.5).contains(&station.pressure), "{station:?}");
        steps += 1;
        near += usize::from((4.7..5.3).contains(&station.pressure));
        trips += usize::from(station.is_tripped() && !before.is_tripped());
        before = station.clone();
    });
    assert!(trips >= 2, "{trips}");
    assert!(near * 10 > steps * 7, "{near} of {steps}");
    let (written, polls) = (demo.written["booster_pump"], steps / 2);
    assert!(written >= polls, "it claims its pump all the time: {written} rows for {polls} rows");

    // A controller that comes back from a loss of power has forgotten what it was told.
    demo.station.run = false;
    demo.station.setpoint = 0.0;
    demo.run(60, |_, _| {});
    assert!(demo.station.run && demo.station.pressure > 4.0, "{:?}", demo.station);
}

#[test]
fn the_edit_that_the_view_suggests_makes_the_tanks_cooler() {
    let mean_after = |edit: fn(&str) -> String| {
        let mut demo = Loop::new(edit);
        let (mut sum, mut n) = (0.0, 0.0);
        demo.run(120, |_, _| {});
        demo.run(240, |plant, _| {
            for tank in plant.tanks() {
                sum += tank.temperature;
                n += 1.0;
            }
        });
        sum / n
    };
    let (shipped, edited) = (mean_after(str::to_owned), mean_after(|text| text.replace("> 80;", "> 70;")));
    assert!(edited < shipped - 2.0, "{shipped} {edited}");
}

#[test]
fn the_rule_doses_by_the_inflow_until_the_barrel_is_empty() {
    let mut demo = Loop::new(str::to_owned);
    demo.run(30, |_, _| {});
    let inflow: f64 = demo.plant.tanks().iter().map(|tank| tank.inflow).sum();
    let ratio = demo.dosing.setpoint / inflow;
    assert!((1.2..1.8).contains(&ratio), "{ratio}: {:?}", demo.dosing);
    let (mut empty, mut stood) = (0, 0);
    for _ in 0..240 {
        demo.run(1, |_, _| {});
        // The scale is not exact, and the rule keeps half a kilogram.
        assert!(demo.dosing.weight > 0.3, "{:?}", demo.dosing);
        empty += usize::from(demo.dosing.weight < 0.6);
        stood += usize::from(demo.dosing.speed == 0.0);
    }
    assert!(empty > 0 && stood > 0, "{empty} {stood}");
}

#[test]
fn the_plugin_tells_when_a_tank_begins_to_fill_and_to_empty() {
    let mut demo = Loop::new(str::to_owned);
    // Until it knows how fast the levels change.
    demo.run(60, |_, _| {});
    demo.turns.clear();
    let mut gates: Vec<bool> = demo.plant.tanks().iter().map(|tank| tank.gate_open).collect();
    let mut moved = 0;
    demo.run(240, |plant, _| {
        for (gate, tank) in gates.iter_mut().zip(plant.tanks()) {
            moved += usize::from(*gate != tank.gate_open);
            *gate = tank.gate_open;
        }
    });
    // A tank turns when its gate moves, near 80 and 30 %, and noise does not make it turn in between.
    assert!(moved > 6 && demo.turns.len().abs_diff(moved) <= 3, "{moved}: {:?}", demo.turns);
    for (fills, level) in &demo.turns {
        let near = if *fills { 20.0..40.0 } else { 70.0..90.0 };
        assert!(near.contains(level), "{:?}", demo.turns);
    }
}
