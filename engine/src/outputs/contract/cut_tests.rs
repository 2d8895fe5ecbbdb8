//! Decisions do not depend on where batches were cut: of several outputs, rules and streams, of instances,
//! and of what devices show and answer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use tidegate_core::Seqs;
use tidegate_core::schema::ts_field;

use super::*;

const S: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;

const COLUMNS: [(&str, FieldType); 2] = [("run", FieldType::Bool), ("speed", FieldType::Float64)];

const PUMP: &str = "expiry = \"9s\"\nfailsafe = { run = false, speed = 0 }\nmax_input_age = \"5s\"\n\
    interlock = [{ when = \"tank.level > 10 AND NOT gate.open\", max_age = \"4s\" }, \
    { when = \"tank.level < 28\", max_age = \"never\", clear_after = \"1s\", trip = { speed = 3 } }]\n\
    min_on = \"2s\"\nmin_off = \"3s\"\nrange = { speed = [0, 100] }\nslew = { speed = \"30/s\" }\n\
    deadband = { speed = 0.5 }\nrate = \"4/s\"\n";
/// What a device shows is looked at row by row, everything else together.
const SHOWN: &str = "read_back = { within = \"1s\", from = { speed = \"tank.level\" }, \
    tolerance = { speed = 20 } }\n";
const FORWARD: &str = "expiry = \"9s\"\nfailsafe = { run = false }\nnever_with = [\"reverse\"]\n\
    dead_time = \"500ms\"\ninterlock = { when = \"NOT gate.open\", max_age = \"4s\" }\n";
const REVERSE: &str = "expiry = \"never\"\nfailsafe = { run = false }\nmin_on = \"1s\"\n";
const LAMP: &str = "key = [\"line\"]\nexpiry = \"6s\"\nfailsafe = { run = false }\n\
    interlock = { when = \"tank.level > 5\", max_age = \"3s\" }\n";

const OUTPUTS: [(&str, &str); 4] =
    [("pump", PUMP), ("forward", FORWARD), ("reverse", REVERSE), ("lamp", LAMP)];

/// The streams of devices.
const STREAMS: [&str; 2] = ["tank", "gate"];

/// A row of a device, and what rules make of it.
#[derive(Debug, Clone)]
struct One {
    line: i64,
    level: Option<f64>,
    is_open: Option<bool>,
    /// which output is claimed, and by which rule
    claims: Option<(usize, bool)>,
}

/// What comes together.
#[derive(Debug, Clone)]
struct Together {
    stream: usize,
    rows: Vec<One>,
    cuts: Vec<bool>,
    /// what passes before it
    pause: i64,
    /// whether the device obeys what it is told by it
    obeys: bool,
}

fn together() -> impl Strategy<Value = Together> {
    let level = prop::option::weighted(0.9, 0_f64..40.0);
    let is_open = prop::option::weighted(0.9, prop::bool::weighted(0.2));
    let claims = prop::option::of((0..OUTPUTS.len(), any::<bool>()));
    let one = (0_i64..3, level, is_open, claims).prop_map(|(line, level, is_open, claims)| One {
        line,
        level,
        is_open,
        claims,
    });
    let rows = prop::collection::vec((one, any::<bool>()), 1..8);
    (0_usize..2, rows, 0_i64..1_500, prop::bool::weighted(0.8)).prop_map(|(stream, rows, pause, obeys)| {
        let (rows, cuts) = rows.into_iter().unzip();
        Together { stream, rows, cuts, pause: pause * MS, obeys }
    })
}

fn schema(stream: &str) -> SchemaRef {
    let columns: &[(&str, DataType)] = if stream == "tank" {
        &[("line", DataType::Int64), ("level", DataType::Float64)]
    } else {
        &[("open", DataType::Boolean)]
    };
    let fields = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true));
    Arc::new(Schema::new([ts_field()].into_iter().chain(fields).collect::<Vec<_>>()))
}

fn rows(stream: &str, rows: &[One], now: i64) -> RecordBatch {
    let ts = TimestampNanosecondArray::from(vec![now - 100 * MS; rows.len()]).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = vec![Arc::new(ts)];
    if stream == "tank" {
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.line))));
        columns.push(Arc::new(rows.iter().map(|row| row.level).collect::<Float64Array>()));
    } else {
        columns.push(Arc::new(rows.iter().map(|row| row.is_open).collect::<BooleanArray>()));
    }
    RecordBatch::try_new(schema(stream), columns).unwrap()
}

/// What a rule makes of rows for an output.
fn claims(output: &str, rows: &[&One]) -> RecordBatch {
    let mut columns: Vec<(&str, ArrayRef)> =
        vec![("run", Arc::new(rows.iter().map(|row| row.is_open).collect::<BooleanArray>()) as ArrayRef)];
    match output {
        "pump" => {
            columns.push(("speed", Arc::new(rows.iter().map(|row| row.level).collect::<Float64Array>())))
        }
        "lamp" => {
            columns.push(("line", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.line)))))
        }
        _ => {}
    }
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// What became of writes, as rows.
fn answers(orders: &[Order], obeys: bool) -> Option<RecordBatch> {
    let writes: Vec<&Order> =
        orders.iter().filter(|order| matches!(order.what, What::Write { .. })).collect();
    if writes.is_empty() {
        return None;
    }
    let text = |of: &dyn Fn(&Order) -> Option<String>| -> ArrayRef {
        Arc::new(writes.iter().map(|order| of(order)).collect::<StringArray>())
    };
    let outcome = if obeys { "acknowledged" } else { "unknown" };
    let number = |order: &&Order| i64::try_from(order.write).unwrap();
    let values = |order: &Order| match &order.what {
        What::Write { values, .. } => Some(serde_json::to_string(values).unwrap()),
        _ => None,
    };
    let columns = [
        ("output", text(&|order| Some(order.output.to_string()))),
        ("instance", text(&|order| Some(order.instance.to_string()))),
        ("write", Arc::new(Int64Array::from_iter_values(writes.iter().map(number))) as ArrayRef),
        ("outcome", text(&|_| Some(outcome.to_owned()))),
        ("reason", text(&|_| None)),
        ("values", text(&values)),
    ];
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    Some(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
}

/// Outputs, rules and devices, in a sequence that may be cut.
struct Plant {
    contracts: Contracts,
    seq: u64,
    now: i64,
    /// whether batches are cut where they may be
    is_cut: bool,
    made: Made,
}

impl Plant {
    fn new(is_shown: bool, is_cut: bool) -> Self {
        let shown = |name: &str| if is_shown && name == "pump" { SHOWN } else { "" };
        let terms = OUTPUTS.iter().map(|(name, text)| Terms {
            output: Arc::from(*name),
            contract: Contract::of_text(&format!("{text}{}", shown(name)), &COLUMNS).unwrap(),
            columns: Some(COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()),
            required: Vec::new(),
            connection: "plc".into(),
            status: Arc::default(),
        });
        let columns = ["tank", "gate"].map(|stream| (stream.to_owned(), Some(schema(stream))));
        let mut contracts = Contracts::new(terms.collect(), &columns.into(), super::Ages::default());
        for (rule, rank) in [("a", 8), ("b", 4)] {
            let inputs: BTreeSet<Arc<str>> = ["tank", "gate"].map(Arc::from).into();
            let outputs = OUTPUTS.iter().map(|(output, _)| (Arc::from(*output), inputs.clone())).collect();
            contracts.rule_runs(&rule.into(), Writer { version: rule.into(), rank, inputs: outputs });
        }
        Self { contracts, seq: 0, now: 1_000 * S, is_cut, made: Made::default() }
    }

    fn settle(&mut self, seq: u64) {
        let made = self.contracts.settle(At { seq, now: self.now, wall_ns: self.now });
        self.made.orders.extend(made.orders);
        self.made.decisions.extend(made.decisions);
    }

    /// Time passes, with a tick whenever one is wanted.
    fn pass(&mut self, duration: i64) {
        let end = self.now + duration;
        while let Some(at) = self.contracts.wakes_at().filter(|at| *at <= end) {
            (self.now, self.seq) = (self.now.max(at), self.seq + 1);
            self.settle(self.seq);
        }
        self.now = end;
    }

    /// Rows of a device with what rules make of them.
    fn come(&mut self, Together { stream, rows: all, cuts, .. }: &Together) {
        let mut first = 0;
        for (end, is_cut) in (1..).zip(cuts) {
            if end < all.len() && !(self.is_cut && *is_cut) {
                continue;
            }
            let (piece, number) = (&all[first..end], self.seq + 1);
            self.seq += piece.len() as u64;
            let Some(stream) = STREAMS.get(*stream) else { return };
            let own = Rows { batch: rows(stream, piece, self.now), seqs: Seqs::Run { first: number } };
            self.contracts.rows(&(*stream).into(), &own);
            for (at, (output, _)) in OUTPUTS.iter().enumerate() {
                for rule in [false, true] {
                    let of_rule: Vec<(u64, &One)> =
                        (number..).zip(piece).filter(|(_, row)| row.claims == Some((at, rule))).collect();
                    if of_rule.is_empty() {
                        continue;
                    }
                    let seqs = Seqs::list(of_rule.iter().map(|(seq, _)| *seq).collect());
                    let claimed: Vec<&One> = of_rule.iter().map(|(_, row)| *row).collect();
                    let (batch, rule) = (claims(output, &claimed), if rule { "a" } else { "b" });
                    let ordinals = vec![0; claimed.len()];
                    self.contracts.claims(&(*output).into(), &rule.into(), Rows { batch, seqs }, ordinals);
                }
            }
            self.settle(number);
            first = end;
        }
    }

    /// Devices answer all that they were told.
    fn answer(&mut self, from: usize, obeys: bool) {
        let Some(batch) = answers(&self.made.orders[from..], obeys) else { return };
        let pieces = if self.is_cut { batch.num_rows() } else { 1 };
        let len = batch.num_rows() / pieces;
        for piece in 0..pieces {
            let batch = batch.slice(piece * len, len);
            let first = self.seq + 1;
            self.seq += batch.num_rows() as u64;
            self.contracts.rows(&writes::NAME.into(), &Rows { batch, seqs: Seqs::Run { first } });
            self.settle(first);
        }
    }
}

/// All that is ordered and decided.
fn made(story: &[Together], is_shown: bool, is_cut: bool) -> Made {
    let mut outputs = Plant::new(is_shown, is_cut);
    for together in story {
        outputs.pass(together.pause);
        let before = outputs.made.orders.len();
        outputs.come(together);
        outputs.answer(before, together.obeys);
    }
    outputs.pass(30 * S);
    outputs.made
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_not_matter_where_batches_of_several_streams_were_cut(
        story in prop::collection::vec(together(), 1..20),
        is_shown in any::<bool>(),
    ) {
        let (whole, cut) = (made(&story, is_shown, false), made(&story, is_shown, true));
        prop_assert_eq!(whole.orders, cut.orders);
        prop_assert_eq!(whole.decisions, cut.decisions);
    }
}

#[test]
fn a_trip_is_shown_with_the_row_that_led_to_it() {
    let level = |level| One { line: 0, level: Some(level), is_open: Some(true), claims: Some((0, true)) };
    let come = |stream, rows: Vec<One>| {
        let cuts = vec![false; rows.len()];
        Together { stream, rows, cuts, pause: 0, obeys: true }
    };
    let closed = One { line: 0, level: None, is_open: Some(false), claims: None };
    let made =
        made(&[come(1, vec![closed]), come(0, vec![level(20.0), level(5.5), level(6.5)])], true, false);
    let by_lock = |decision: &&Decision| matches!(decision.by, Origin::Interlock { .. });
    let trip = made.decisions.iter().find(by_lock).unwrap();
    let row = trip.inputs.iter().find(|input| *input.stream == *"tank").unwrap();
    assert!(row.row.contains("\"level\":5.5"), "{row:?}");
}
