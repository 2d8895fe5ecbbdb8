#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidegate_core::Seqs;
use tidegate_core::schema::ts_field;

use super::*;
use crate::decision::{Clause, Outcome, Verdict};

pub(super) const S: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;

const COLUMNS: [(&str, FieldType); 2] = [("run", FieldType::Bool), ("speed", FieldType::Float64)];

/// What became of writes by default.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Device {
    Obeys,
    Refuses,
    Silent,
    Deaf,
    /// It is asked what it has, and no answer comes back.
    Mute,
}

/// A box with outputs, without anything else.
pub(super) struct Bench {
    pub(super) contracts: Contracts,
    pub(super) seq: u64,
    pub(super) now: i64,
    device: Device,
    /// every write that went out: when, of which output, what, and why
    pub(super) written: Vec<(i64, String, Values, Origin)>,
    pub(super) decisions: Vec<Decision>,
    /// what the device has
    pub(super) has: BTreeMap<String, Values>,
    answers: Vec<(String, u64, &'static str, Values)>,
    /// what is told of overrides, and when, in seconds
    pub(super) said: Vec<(i64, ControlEvent)>,
}

pub(super) fn tank_columns() -> SchemaRef {
    let columns = [("level", DataType::Float64), ("guard", DataType::Boolean)];
    let fields = columns.map(|(name, kind)| Field::new(name, kind, true));
    Arc::new(Schema::new([ts_field()].into_iter().chain(fields).collect::<Vec<_>>()))
}

pub(super) fn bench_with(outputs: &[(&str, &str)]) -> Bench {
    let terms = outputs.iter().map(|(name, text)| Terms {
        output: Arc::from(*name),
        contract: Contract::of_text(text, &COLUMNS).unwrap(),
        columns: Some(COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()),
        required: Vec::new(),
        connection: "plc".into(),
        status: Arc::default(),
    });
    let columns = BTreeMap::from([("tank".to_owned(), Some(tank_columns()))]);
    let mut bench = Bench {
        contracts: Contracts::new(terms.collect(), &columns, Ages::default()),
        seq: 0,
        now: 1_000 * S,
        device: Device::Obeys,
        written: Vec::new(),
        decisions: Vec::new(),
        has: BTreeMap::new(),
        answers: Vec::new(),
        said: Vec::new(),
    };
    for rule in ["a", "b"] {
        bench.rule(rule, if rule == "a" { 8 } else { 4 }, &["tank"]);
    }
    bench
}

pub(super) fn bench(contract: &str) -> Bench {
    bench_with(&[("pump", contract)])
}

pub(super) fn row(run: Option<bool>, speed: Option<f64>) -> RecordBatch {
    let run = Arc::new(BooleanArray::from(vec![run])) as ArrayRef;
    let speed = Arc::new(Float64Array::from(vec![speed])) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([("run", run, true), ("speed", speed, true)]).unwrap()
}

fn only<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
}

pub(super) fn run(on: bool) -> RecordBatch {
    only([("run", Arc::new(BooleanArray::from(vec![on])) as ArrayRef)])
}

pub(super) fn speed(speed: f64) -> RecordBatch {
    only([("speed", Arc::new(Float64Array::from(vec![speed])) as ArrayRef)])
}

impl Bench {
    fn rule(&mut self, rule: &str, rank: u8, inputs: &[&str]) {
        let inputs: BTreeSet<Arc<str>> = inputs.iter().map(|stream| Arc::from(*stream)).collect();
        let outputs =
            self.contracts.outputs.keys().map(|output| (Arc::clone(output), inputs.clone())).collect();
        self.contracts.rule_runs(&rule.into(), Writer { version: "v1".into(), rank, inputs: outputs });
    }

    pub(super) fn at(&self) -> At {
        At { seq: self.seq, now: self.now, wall_ns: self.now }
    }

    /// Takes what has come, and carries out what is asked.
    pub(super) fn settle(&mut self) {
        let mut made = self.contracts.settle(self.at());
        self.carry_out(&mut made);
        self.decisions.append(&mut made.decisions);
        // What the device said comes back as an entry of its own.
        while !self.answers.is_empty() {
            let answers = std::mem::take(&mut self.answers);
            for (output, write, outcome, values) in answers {
                self.seq += 1;
                let batch = outcome_row(&output, write, outcome, &values);
                self.contracts.rows(&writes::NAME.into(), &Rows { batch, seqs: Seqs::One { seq: self.seq } });
                let mut made = self.contracts.settle(self.at());
                self.carry_out(&mut made);
                self.decisions.append(&mut made.decisions);
            }
        }
    }

    pub(super) fn carry_out(&mut self, made: &mut Made) {
        for Order { output, write, by, what, .. } in made.orders.drain(..) {
            match what {
                What::Write { values, .. } => {
                    self.written.push((self.now, output.to_string(), values.clone(), by));
                    let outcome = match self.device {
                        Device::Obeys | Device::Deaf | Device::Mute => "acknowledged",
                        Device::Refuses => "refused",
                        Device::Silent => "unknown",
                    };
                    if self.device == Device::Obeys {
                        self.has.entry(output.to_string()).or_default().extend(values.clone());
                    }
                    self.answers.push((output.to_string(), write, outcome, values));
                }
                What::Read { .. } if self.device == Device::Mute => {}
                What::Read { .. } => {
                    let has = self.has.get(&*output).cloned().unwrap_or_default();
                    self.answers.push((output.to_string(), write, "read", has));
                }
                What::Differs { outcome, values, .. } => {
                    self.answers.push((output.to_string(), write, outcome.word(), values));
                }
                What::Say { event } => self.said.push(((self.now - 1_000 * S) / S, event)),
            }
        }
    }

    pub(super) fn claim(&mut self, rule: &str, batch: RecordBatch) {
        self.claim_of("pump", rule, batch);
    }

    pub(super) fn claim_of(&mut self, output: &str, rule: &str, batch: RecordBatch) {
        self.seq += 1;
        let rows = Rows { batch, seqs: Seqs::One { seq: self.seq } };
        self.contracts.claims(&output.into(), &rule.into(), rows, vec![0]);
        self.settle();
    }

    pub(super) fn tank(&mut self, level: Option<f64>, guard: Option<bool>) {
        self.seq += 1;
        let batch = tank(self.now, level, guard);
        self.contracts.rows(&"tank".into(), &Rows { batch, seqs: Seqs::One { seq: self.seq } });
        self.settle();
    }

    /// Time passes, with a tick whenever one is wanted.
    pub(super) fn pass(&mut self, duration: i64) {
        let end = self.now + duration;
        let mut ticks = 0;
        while let Some(at) = self.contracts.wakes_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.seq += 1;
            self.settle();
            ticks += 1;
            assert!(ticks < 100_000, "it wants ticks without end");
        }
        self.now = end;
    }

    pub(super) fn control(&mut self, event: &str, json: &str, lease_ms: u64, off_known: bool) {
        self.seq += 1;
        let event = ControlEvent {
            event: ControlKind::from_word(event).unwrap(),
            output: (!["start", "stop"].contains(&event)).then(|| "pump".into()),
            instance: "".into(),
            values: if json.is_empty() { Values::new() } else { serde_json::from_str(json).unwrap() },
            lease: (lease_ms > 0).then(|| std::time::Duration::from_millis(lease_ms)),
            reason: Some("bearing".into()),
            who: Some("ann".into()),
            off_known: Some(off_known),
        };
        let rows = Rows { batch: event.row(self.now).unwrap(), seqs: Seqs::One { seq: self.seq } };
        self.contracts.rows(&control::NAME.into(), &rows);
        self.settle();
    }

    fn line(&mut self, is_up: bool) {
        self.seq += 1;
        let batch = only([
            ("connection", Arc::new(StringArray::from(vec!["plc"])) as ArrayRef),
            ("connected", Arc::new(BooleanArray::from(vec![is_up]))),
        ]);
        self.contracts.rows(&connections::NAME.into(), &Rows { batch, seqs: Seqs::One { seq: self.seq } });
        self.settle();
    }

    /// What was written of one column: when, in milliseconds since the bench began, and what.
    fn wrote(&self, column: &str) -> Vec<(i64, Value)> {
        let of =
            self.written.iter().filter_map(|(now, _, values, _)| Some((*now, values.get(column)?.clone())));
        of.map(|(now, value)| ((now - 1_000 * S) / MS, value)).collect()
    }

    pub(super) fn switched(&self) -> Vec<(i64, bool)> {
        self.wrote("run").into_iter().map(|(at, value)| (at, value == Value::Bool(true))).collect()
    }

    pub(super) fn speeds(&self) -> Vec<f64> {
        self.wrote("speed").into_iter().map(|(_, value)| value.number().unwrap()).collect()
    }

    fn refused(&self) -> Vec<String> {
        let refused = |decision: &Decision| match &decision.verdict {
            Verdict::Refused { reason } => Some(reason.clone()),
            _ => None,
        };
        self.decisions.iter().filter_map(refused).collect()
    }
}

pub(super) fn tank(ts: i64, level: Option<f64>, guard: Option<bool>) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(vec![ts]).with_timezone("UTC")),
        Arc::new(Float64Array::from(vec![level])),
        Arc::new(BooleanArray::from(vec![guard])),
    ];
    RecordBatch::try_new(tank_columns(), columns).unwrap()
}

fn outcome_row(output: &str, write: u64, outcome: &str, values: &Values) -> RecordBatch {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    only([
        ("output", text(output)),
        ("instance", text("")),
        ("write", Arc::new(Int64Array::from(vec![i64::try_from(write).unwrap()]))),
        ("outcome", text(outcome)),
        ("reason", Arc::new(StringArray::from(vec![None::<&str>]))),
        ("values", text(&serde_json::to_string(values).unwrap())),
        ("rule", Arc::new(StringArray::from(vec![None::<&str>]))),
    ])
}

pub(super) const PLAIN: &str = "expiry = \"10s\"\nfailsafe = { run = false, speed = 0 }\n";

#[test]
fn a_claim_is_written_once_and_ends_in_failsafe_when_nobody_renews_it() {
    let mut bench = bench(PLAIN);
    bench.claim("a", row(Some(true), Some(40.0)));
    bench.pass(6 * S);
    bench.claim("a", row(Some(true), Some(40.0)));
    bench.pass(30 * S);
    assert_eq!(bench.switched(), [(0, true), (16_000, false)]);
    assert_eq!(bench.speeds(), [40.0, 0.0]);
    let (.., by) = bench.written.last().unwrap();
    assert_eq!(*by, Origin::Failsafe { because: "rule a did not renew its claim".into() });
}

#[test]
fn the_lowest_rank_counts_and_null_gives_way() {
    let mut bench = bench(PLAIN);
    bench.claim("a", speed(10.0));
    bench.claim("b", speed(20.0));
    bench.claim("a", speed(30.0));
    bench.claim("b", only([("speed", Arc::new(Float64Array::from(vec![None])) as ArrayRef)]));
    assert_eq!(bench.speeds(), [10.0, 20.0, 30.0]);
    bench.contracts.rule_is_gone(&"a".into(), "was removed");
    bench.pass(0);
    assert_eq!(bench.speeds(), [10.0, 20.0, 30.0, 0.0]);
}

#[test]
fn a_rule_that_is_gone_lets_the_next_rank_have_it() {
    let mut bench = bench(PLAIN);
    bench.claim("a", speed(10.0));
    bench.claim("b", speed(20.0));
    bench.contracts.rule_is_gone(&"b".into(), "was stopped");
    assert_eq!(bench.contracts.wakes_at(), Some(i64::MIN), "a tick is wanted at once");
    bench.pass(0);
    assert_eq!(bench.speeds(), [10.0, 20.0, 10.0]);
}

#[test]
fn what_no_output_can_be_told_is_no_claim_and_the_one_before_stays() {
    let mut bench = bench(&format!("{PLAIN}max_input_age = \"5s\"\nrange = {{ speed = [0, 100] }}\n"));
    bench.claim("a", speed(1.0));
    assert_eq!(bench.refused(), ["there was no row of `tank` since the start"]);
    bench.tank(Some(1.0), None);
    bench.claim("a", speed(40.0));
    bench.claim("a", speed(f64::NAN));
    bench.claim("a", only([("sped", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef)]));
    bench.claim("a", only([("run", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef)]));
    bench.pass(6 * S);
    bench.claim("a", speed(50.0));
    // A backlog: it has just come, and is two hours old.
    bench.seq += 1;
    let batch = tank(bench.now - 7_200 * S, Some(1.0), None);
    bench.contracts.rows(&"tank".into(), &Rows { batch, seqs: Seqs::One { seq: bench.seq } });
    bench.claim("a", speed(60.0));
    assert_eq!(bench.speeds(), [40.0]);
    assert_eq!(
        bench.refused()[1..],
        [
            "`speed` is NaN, and no number",
            "the output has no `sped`",
            "`run` takes bool, and 1 is none",
            "the newest row of `tank` is 6s old, and may be 5s",
        ]
    );
    // The sixth is the same as the fifth but for its numbers, and is counted with it.
    let counts: Vec<u64> =
        bench.contracts.outputs["pump"].refusals.values().map(|(_, times)| *times).collect();
    assert_eq!(counts.iter().sum::<u64>(), 5);
    bench.pass(20 * S);
    assert_eq!(bench.speeds(), [40.0, 0.0], "the old claim lives to its own end");
}

#[test]
fn values_out_of_range_are_clamped_or_refused() {
    let range = "range = { speed = [0, 100] }\n";
    let mut clamps = bench(&format!("{PLAIN}{range}"));
    clamps.claim("a", speed(250.0));
    assert_eq!(clamps.speeds(), [100.0]);
    let steps = &clamps.decisions[0].steps;
    assert_eq!((steps[0].clause, steps[0].because.as_str()), (Clause::Range, "250 is not from 0 to 100"));
    let mut refuses = bench(&format!("{PLAIN}{range}out_of_range = \"refuse\"\n"));
    refuses.claim("a", speed(250.0));
    assert_eq!(refuses.speeds(), [0.0; 0]);
    assert_eq!(refuses.refused(), ["`speed` is 250, and has to be from 0 to 100"]);
}

#[test]
fn minimum_times_count_from_what_was_sent_and_come_to_their_end_by_themselves() {
    let mut bench =
        bench(&format!("{PLAIN}expiry = \"never\"\nmin_on = \"60s\"\nmin_off = \"120s\"\n").replacen(
            "expiry = \"10s\"\n",
            "",
            1,
        ));
    bench.claim("a", run(true));
    bench.pass(10 * S);
    bench.claim("a", run(false));
    bench.claim("a", run(true));
    bench.claim("a", run(false));
    bench.pass(60 * S);
    bench.claim("a", run(true));
    // Lines that drop, rules that are replaced, and starts do not begin it anew.
    for _ in 0..3 {
        bench.pass(10 * S);
        bench.line(false);
        bench.line(true);
        bench.rule("a", 8, &["tank"]);
    }
    bench.pass(200 * S);
    assert_eq!(
        bench.switched().iter().filter(|(_, on)| *on).map(|(at, _)| *at).collect::<Vec<_>>(),
        [0, 180_000]
    );
    assert_eq!(bench.switched()[1], (60_000, false));
}

#[test]
fn a_start_leaves_minimum_times_and_takes_claims() {
    let mut bench = bench("expiry = \"never\"\nfailsafe = { run = false }\nmin_off = \"100s\"\n");
    bench.claim("a", run(true));
    bench.pass(S);
    bench.claim("a", run(false));
    bench.pass(10 * S);
    let stored = bench.contracts.stored();
    let mut again =
        bench_with(&[("pump", "expiry = \"never\"\nfailsafe = { run = false }\nmin_off = \"100s\"\n")]);
    again.contracts.restore(stored);
    (again.now, again.seq) = (bench.now, 100);
    again.control("start", "", 0, false);
    again.pass(40 * S);
    assert_eq!(again.switched(), [], "nobody claims anything: it waits");
    again.claim("a", run(true));
    again.pass(200 * S);
    // First it is told anew that it is off, since nobody knows.
    assert_eq!(again.switched(), [(51_000, false), (101_000, true)]);
}

#[test]
fn a_box_that_stops_turns_off_and_minimum_times_count_from_then() {
    let mut bench = bench("expiry = \"never\"\nfailsafe = { run = false }\nmin_off = \"100s\"\n");
    bench.claim("a", run(true));
    bench.pass(10 * S);
    bench.control("stop", "", 0, false);
    bench.pass(5 * S);
    bench.control("start", "", 0, true);
    bench.claim("a", run(true));
    bench.pass(200 * S);
    let turned: Vec<(i64, bool)> = bench.switched();
    assert_eq!((turned[0], turned[1], turned.last()), ((0, true), (10_000, false), Some(&(110_000, true))));
}

#[test]
fn nothing_is_turned_on_for_the_sake_of_its_minimum_time() {
    let mut bench = bench("expiry = \"never\"\nfailsafe = { run = false }\nmin_on = \"100s\"\n");
    bench.claim("a", run(true));
    bench.pass(10 * S);
    // The power goes, and the device may have gone off with it.
    bench.control("start", "", 0, true);
    bench.claim("a", run(false));
    bench.pass(200 * S);
    assert_eq!(bench.switched(), [(0, true), (100_000, false)]);
}

#[test]
fn what_was_claimed_before_a_start_is_not_written_at_it() {
    let mut bench = bench(
        "expiry = \"never\"\nfailsafe = { speed = 0 }\nslew = { speed = \"5/s\" }\nslew_every = \"1s\"\n",
    );
    bench.claim("a", speed(50.0));
    // The power goes while a ramp is under way: its next step is long due when the box is there again.
    bench.now += 60 * S;
    bench.control("start", "", 0, false);
    bench.pass(60 * S);
    assert_eq!(bench.speeds(), [5.0]);
}

#[test]
fn an_interlock_stands_above_everything() {
    let contract = format!(
        "{PLAIN}min_on = \"60s\"\nslew = {{ speed = \"5/s\" }}\n\
        interlock = {{ when = \"tank.level > 10 AND NOT tank.guard\", max_age = \"3s\" }}\n"
    );
    let mut bench = bench(&contract);
    bench.tank(Some(50.0), Some(false));
    bench.control("override", "{\"run\": true, \"speed\": 2}", 60_000, false);
    assert_eq!(bench.switched(), [(0, true)]);
    bench.pass(2 * S);
    bench.tank(Some(8.2), Some(false));
    assert_eq!(bench.switched(), [(0, true), (2_000, false)]);
    let decision =
        bench.decisions.iter().rev().find(|decision| matches!(decision.verdict, Verdict::Sent { .. }));
    let Some(Decision { by: Origin::Interlock { because, .. }, .. }) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!(&**because, "tank.level was 8.2, tank.guard was false");
    bench.tank(Some(50.0), Some(false));
    assert_eq!(bench.switched().last(), Some(&(2_000, true)));
    // NULL is not true, and silence is not either.
    bench.tank(Some(50.0), None);
    assert_eq!(bench.switched().last(), Some(&(2_000, false)));
    bench.tank(Some(50.0), Some(false));
    bench.pass(3 * S);
    assert_eq!(bench.switched().last(), Some(&(5_000, false)));
    bench.pass(30 * S);
    assert_eq!(bench.switched().last(), Some(&(5_000, false)));
    // The row is as the one before the silence.
    bench.tank(Some(50.0), Some(false));
    assert_eq!(bench.switched().last(), Some(&(35_000, true)));
}

#[test]
fn after_a_start_interlocks_need_new_rows() {
    let contract = format!("{PLAIN}interlock = {{ when = \"tank.level > 10\", max_age = \"never\" }}\n");
    let mut bench = bench(&contract);
    bench.control("start", "", 0, true);
    bench.claim("a", run(true));
    bench.pass(5 * S);
    assert_eq!(bench.switched(), []);
    bench.tank(Some(50.0), None);
    assert_eq!(bench.switched(), [(5_000, true)]);
    bench.control("start", "", 0, true);
    for _ in 0..8 {
        bench.claim("a", run(true));
        bench.pass(5 * S);
    }
    let (at, _) = *bench.switched().last().unwrap();
    assert_eq!((bench.switched().len(), at), (2, 35_000), "the grace is over: it has tripped");
}

#[test]
fn a_latch_is_freed_by_a_person_only() {
    let contract = format!(
        "{PLAIN}interlock = {{ when = \"tank.level > 10\", max_age = \"never\", latch = true, clear_after = \"1s\" }}\n"
    )
    .replace("10s", "never");
    let mut bench = bench(&contract);
    bench.tank(Some(50.0), None);
    bench.claim("a", run(true));
    bench.tank(Some(5.0), None);
    bench.control("reset", "", 0, false);
    bench.tank(Some(50.0), None);
    bench.pass(10 * S);
    assert_eq!(bench.switched(), [(0, true), (0, false)]);
    bench.control("reset", "", 0, false);
    assert_eq!(bench.switched().last(), Some(&(10_000, true)));
}

#[test]
fn a_ramp_takes_steps_and_arrives() {
    let mut bench = bench(
        "expiry = \"never\"\nfailsafe = { speed = 0 }\nslew = { speed = \"5/s\" }\nslew_every = \"1s\"\n\
        deadband = { speed = 2 }\nrate = \"10/s\"\n",
    );
    bench.claim("a", speed(11.0));
    bench.pass(10 * S);
    assert_eq!(bench.wrote("speed").iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1_000, 2_000]);
    assert_eq!(bench.speeds(), [5.0, 10.0, 11.0], "the last step counts, however small");
    bench.claim("a", speed(12.5));
    bench.pass(10 * S);
    assert_eq!(bench.speeds().len(), 3, "that is within the deadband");
    // Many small changes are no way around it.
    for step in 1..=20 {
        bench.claim("a", speed(11.0 + 3.0 * f64::from(step)));
        bench.pass(100 * MS);
    }
    let speeds = bench.wrote("speed");
    for pair in speeds.windows(2) {
        let change = pair[1].1.number().unwrap() - pair[0].1.number().unwrap();
        #[allow(clippy::cast_precision_loss)]
        let most = 5.0 * ((pair[1].0 - pair[0].0) as f64 / 1e3).max(1.0);
        assert!(change.abs() <= most + 1e-9, "{pair:?}");
    }
}

#[test]
fn of_a_pair_one_is_off_and_confirmed_before_the_other_is_on() {
    let contract = "expiry = \"never\"\nfailsafe = { run = false }\n";
    let forward = format!("{contract}never_with = [\"reverse\"]\ndead_time = \"2s\"\n");
    let reverse = format!("{contract}dead_time = \"2s\"\n");
    let mut bench = bench_with(&[("forward", &forward), ("reverse", &reverse)]);
    bench.rule("a", 8, &[]);
    bench.claim_of("forward", "a", run(true));
    bench.claim_of("reverse", "a", run(true));
    bench.pass(5 * S);
    bench.claim_of("forward", "a", run(false));
    bench.pass(10 * S);
    let told: Vec<(i64, &str, bool)> = bench
        .written
        .iter()
        .map(|(now, output, values, _)| {
            ((now - 1_000 * S) / S, output.as_str(), values["run"] == Value::Bool(true))
        })
        .collect();
    // Nobody knows at first; the other one is told to be off, and is given its time.
    assert_eq!(
        told,
        [
            (0, "forward", false),
            (0, "reverse", false),
            (2, "forward", true),
            (5, "forward", false),
            (7, "reverse", true)
        ]
    );
}

#[test]
fn of_a_pair_the_other_is_told_to_be_off_also_when_nobody_has_ever_claimed_it() {
    let hold = "expiry = \"never\"\nfailsafe = \"hold\"\n";
    let forward = format!("{hold}never_with = [\"reverse\"]\n");
    let mut bench = bench_with(&[("forward", &forward), ("reverse", hold)]);
    bench.rule("a", 8, &[]);
    bench.claim_of("forward", "a", run(true));
    bench.pass(5 * S);
    let told: Vec<(&str, bool)> = bench
        .written
        .iter()
        .map(|(_, output, values, _)| (output.as_str(), values["run"] == Value::Bool(true)))
        .collect();
    assert_eq!(told, [("forward", false), ("reverse", false), ("forward", true)]);
}

#[test]
fn of_pairs_that_are_told_apart_each_is_told_to_be_off_before_the_other_goes_on() {
    let contract = "key = [\"line\"]\nexpiry = \"never\"\nfailsafe = { run = false }\n";
    let forward = format!("{contract}never_with = [\"reverse\"]\n");
    let mut bench = bench_with(&[("forward", &forward), ("reverse", contract)]);
    bench.rule("a", 8, &[]);
    let line = Arc::new(Int64Array::from(vec![7])) as ArrayRef;
    bench.claim_of("forward", "a", only([("line", line), ("run", Arc::new(BooleanArray::from(vec![true])))]));
    bench.pass(5 * S);
    // In this test devices do not say which instance they are of.
    let told: Vec<&str> = bench.written.iter().map(|(_, output, ..)| output.as_str()).collect();
    assert_eq!(told, ["forward", "reverse"]);
}

#[test]
fn what_is_off_and_told_so_again_and_again_has_been_off_all_the_time() {
    let contract = "expiry = \"never\"\nfailsafe = { run = false }\n";
    let forward = format!("{contract}never_with = [\"reverse\"]\ndead_time = \"3s\"\n");
    let reverse = format!("{contract}refresh = \"1s\"\n");
    let mut bench = bench_with(&[("forward", &forward), ("reverse", &reverse)]);
    bench.rule("a", 8, &[]);
    bench.claim_of("reverse", "a", run(false));
    bench.claim_of("forward", "a", run(true));
    bench.pass(10 * S);
    let on = bench.written.iter().find(|(_, _, values, _)| values["run"] == Value::Bool(true));
    assert_eq!(on.map(|(now, output, ..)| (now - 1_000 * S, output.as_str())), Some((3 * S, "forward")));
}

#[test]
fn a_write_that_nobody_answered_is_repeated_so_often_and_no_more() {
    let mut bench = bench("expiry = \"never\"\nfailsafe = { run = false }\nretries = 2\n");
    bench.device = Device::Silent;
    bench.claim("a", run(true));
    bench.pass(60 * S);
    assert_eq!(bench.switched(), [(0, true), (1_000, true), (2_000, true)]);
    bench.device = Device::Obeys;
    bench.claim("a", run(true));
    bench.pass(60 * S);
    assert_eq!(bench.switched().len(), 4, "who asks again is answered again");
}

#[test]
fn what_a_device_refuses_is_not_repeated() {
    let mut bench = bench("expiry = \"never\"\nfailsafe = { speed = 0 }\n");
    bench.device = Device::Refuses;
    for _ in 0..3 {
        bench.claim("a", speed(5.0));
        bench.pass(10 * S);
    }
    bench.claim("a", speed(6.0));
    assert_eq!(bench.speeds(), [5.0, 6.0]);
}

#[test]
fn what_a_device_does_not_show_is_written_again_and_then_said() {
    let mut bench = bench(
        "expiry = \"never\"\nfailsafe = { speed = 0 }\n\
        read_back = { within = \"2s\", settle = \"500ms\", retries = 2, on_mismatch = \"failsafe\" }\n",
    );
    bench.claim("a", speed(5.0));
    bench.pass(10 * S);
    assert_eq!(bench.speeds(), [5.0]);
    bench.device = Device::Deaf;
    bench.claim("a", speed(6.0));
    bench.pass(60 * S);
    let speeds = bench.speeds();
    assert_eq!(speeds[..4], [5.0, 6.0, 6.0, 6.0]);
    assert_eq!(speeds[4], 0.0, "it goes to its failsafe values");
    let said = bench
        .decisions
        .iter()
        .filter(|decision| matches!(decision.verdict, Verdict::Answered { outcome: Outcome::Mismatch, .. }));
    assert_eq!(said.count(), 2, "of 6, and of its failsafe value, when nothing more can be done");
}

#[test]
fn an_answer_that_is_lost_is_not_waited_for_for_ever() {
    let mut bench =
        bench("expiry = \"never\"\nfailsafe = { speed = 0 }\nread_back = { within = \"2s\", retries = 1 }\n");
    bench.device = Device::Mute;
    bench.claim("a", speed(5.0));
    bench.pass(60 * S);
    // Each time it has twice as long as it takes when somebody answers.
    assert_eq!(bench.wrote("speed").iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 4_000]);
    let is_mismatch = |decision: &&Decision| {
        matches!(decision.verdict, Verdict::Answered { outcome: Outcome::Mismatch, .. })
    };
    assert_eq!(bench.decisions.iter().filter(is_mismatch).count(), 1);
}

#[test]
fn nothing_waits_for_a_line_that_is_down() {
    let mut bench = bench(PLAIN);
    bench.claim("a", run(true));
    bench.line(false);
    bench.claim("a", run(false));
    bench.claim("a", run(true));
    bench.pass(60 * S);
    assert_eq!(bench.switched(), [(0, true)]);
    bench.line(true);
    // All claims have ended: what is left is failsafe.
    assert_eq!(bench.switched(), [(0, true), (60_000, false)]);
}

#[test]
fn an_override_counts_until_its_lease_ends() {
    let mut bench = bench(
        &format!("{PLAIN}range = {{ speed = [0, 100] }}\nmax_lease = \"1h\"\n").replace("10s", "never"),
    );
    bench.claim("a", speed(40.0));
    bench.control("override", "{\"speed\": 150}", 5_000, false);
    bench.claim("b", speed(60.0));
    bench.pass(10 * S);
    assert_eq!(bench.speeds(), [40.0, 100.0, 60.0]);
    bench.control("override", "{\"speed\": 1}", 100 * 3_600_000, false);
    bench.control("start", "", 0, true);
    bench.pass(60 * S);
    assert_eq!(bench.speeds().last(), Some(&1.0), "a start does not end it");
    bench.pass(3_600 * S);
    assert_eq!(
        bench.speeds().last(),
        Some(&1.0),
        "it ended, and nobody has claimed anything since the start"
    );
    bench.control("override", "{\"speed\": 2}", 60_000, false);
    bench.control("start", "", 0, false);
    bench.pass(S);
    assert!(
        bench.contracts.outputs["pump"].instances[""].overridden().is_none(),
        "nobody knows how long it was"
    );
}

mod promises;
