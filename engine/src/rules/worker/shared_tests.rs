//! Rules that share windows write what each writes alone, whatever happens to the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use arrow::array::{Float64Array, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::FutureExt;
use proptest::prelude::*;
use tidegate_core::Seqs;
use tidegate_core::schema::ts_field;
use tidegate_rules::{Catalog, Language, OutputColumns, Source, compile};
use tokio::sync::oneshot;

use super::*;
use crate::sequence::change::Load;

const S: i64 = 1_000_000_000;

const SUMS: &str = "INSERT INTO pump SELECT window_start AS w, sum(x) AS x, count(*) AS n
    FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end HAVING sum(x) \
    > {}";

/// What differs between rules of a kind is a number above what keeps something.
const KINDS: [&str; 11] = [
    "--! lateness = \"2s\"\n{sums}",
    "--! lateness = \"2s\"\n--! idle_after = \"3s\"\n{sums}",
    "--! late_rows = \"uplink\"\nINSERT INTO pump SELECT window_end AS w, avg(x) AS x FROM HOP(tank, \
    DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '15' SECOND)
        WHERE x <> 3 GROUP BY window_start, window_end HAVING count(*) > {}",
    // Some rows cannot be evaluated, below the window and above it.
    "INSERT INTO lamp SELECT 12 / (count(*) - {}) AS q FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
        WHERE 6 / CAST(x AS INTEGER) > 0 GROUP BY window_start, window_end",
    "--! idle_after = \"3s\"\nINSERT INTO lamp SELECT window_start AS w, window_end AS e, max(x) AS x FROM \
    SESSION(tank, DESCRIPTOR(ts), INTERVAL '4' SECOND)
        GROUP BY window_start, window_end HAVING max(x) > {}",
    "--! idle_after = \"3s\"\n--! late_rows = \"uplink\"\nINSERT INTO pump SELECT window_end AS w, sum(x) \
    AS x
        FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '10' SECOND) GROUP BY window_start, \
    window_end HAVING count(*) > {}",
    // Rows wait for their turn, keys come and go.
    "--! lateness = \"3s\"\n--! idle_after = \"4s\"\n--! state_ttl = \"20s\"\nINSERT INTO lamp SELECT x, d \
    FROM
        (SELECT x, ts - lag(ts) OVER (PARTITION BY x ORDER BY ts) AS d FROM tank) AS steps WHERE d IS NOT \
    NULL AND x > {}",
    "--! idle_after = \"1s\"\nINSERT INTO lamp SELECT x, h FROM (SELECT x, held(x > 2, INTERVAL '5' SECOND) \
    OVER (ORDER BY ts) AS h FROM tank) AS steps
        WHERE x > {}",
    "INSERT INTO lamp SELECT x, d FROM (SELECT x, x - lag(x) OVER (ORDER BY ts) AS d FROM tank) AS steps \
    WHERE d > {}",
    // Two statements, and windows over windows, which want ticks of their own.
    "--! idle_after = \"3s\"\nCREATE VIEW sums AS SELECT window_end AS ts, sum(x) AS x FROM TUMBLE(tank, \
    DESCRIPTOR(ts), INTERVAL '10' SECOND)
        GROUP BY window_start, window_end;
     INSERT INTO pump SELECT x FROM sums WHERE x > {};
     INSERT INTO lamp SELECT sum(x) + {} AS x FROM TUMBLE(sums, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP \
    BY window_start, window_end",
    "INSERT INTO pump SELECT x FROM tank WHERE x > {}",
];

fn text(kind: usize, number: i64) -> String {
    KINDS[kind].replace("{sums}", SUMS).replace("{}", &number.to_string())
}

fn schema() -> arrow::datatypes::SchemaRef {
    Arc::new(Schema::new(vec![ts_field(), Field::new("x", DataType::Float64, true)]))
}

/// `by_arrival`: the `ts` of `tank` is the time of arrival.
fn rule(text: &str, by_arrival: bool) -> Box<dyn Rule> {
    let outputs = ["pump", "lamp"].map(|output| (output.to_owned(), OutputColumns::default()));
    let catalog = Catalog {
        inputs: [("tank".to_owned(), Some(schema()))].into(),
        by_arrival: by_arrival.then(|| "tank".to_owned()).into_iter().collect(),
        outputs: outputs.into(),
        uplink: true,
        ..Catalog::default()
    };
    compile("rule.sql", &Source::new(Language::Sql, text), &catalog).unwrap().rule
}

/// Rows of stream `tank`: seconds, and `x`.
fn rows(first: u64, rows: &[(i64, f64)]) -> Rows {
    let times = TimestampNanosecondArray::from_iter_values(rows.iter().map(|(second, _)| second * S))
        .with_timezone("UTC");
    let values = Float64Array::from_iter_values(rows.iter().map(|(_, x)| *x));
    Rows {
        batch: RecordBatch::try_new(schema(), vec![Arc::new(times), Arc::new(values)]).unwrap(),
        seqs: Seqs::Run { first },
    }
}

/// Workers, and what each rule has written.
struct House {
    status: Arc<Status>,
    workers: Vec<Worker>,
    written: BTreeMap<String, Vec<String>>,
    by_arrival: bool,
}

impl House {
    fn new(workers: usize) -> Self {
        let status = Arc::<Status>::default();
        Self {
            workers: (0..workers).map(|_| Worker::new(Arc::clone(&status))).collect(),
            status,
            written: BTreeMap::new(),
            by_arrival: false,
        }
    }

    fn change(&mut self, worker: usize, change: Change) {
        self.workers[worker]
            .on_change(change)
            .now_or_never()
            .expect("a rule is given away before it is taken");
    }

    fn load(&mut self, worker: usize, name: &str, text: &str) {
        let status = self.status.rules.of(name);
        let (version, rule) = (RuleVersion::active(name), rule(text, self.by_arrival));
        let load = Load { version, rule, inherits: Arc::from(name), is_said: false, status, undecided: None };
        self.change(worker, Change::Load(load));
    }

    fn call(&mut self, call: impl Fn(&mut Worker) -> Vec<Routed>) {
        for worker in &mut self.workers {
            for Routed { version, target, rows, ordinals } in call(worker) {
                let written = self.written.entry(version.name.to_string()).or_default();
                for (row, ordinal) in ordinals.iter().enumerate() {
                    written.push(format!(
                        "{target} {} {ordinal} {:?}",
                        rows.seqs.get(row),
                        rows.batch.slice(row, 1).columns()
                    ));
                }
            }
        }
    }

    fn feed(&mut self, now: i64, rows: &Rows) {
        self.call(|worker| worker.on_batch("tank", rows, When::at(now)));
    }

    /// Late rows, rows left out, and whether it was stopped.
    fn counts(&self, name: &str) -> (u64, u64, bool) {
        let status = self.status.rules.of(name);
        (status.late.get(), status.left_out.get(), status.stopped.is_some())
    }

    fn parts(&self) -> usize {
        self.workers.iter().map(|worker| worker.shared.count()).sum()
    }

    /// As after a crash right behind a snapshot.
    fn restart(&mut self, worker: usize, texts: &BTreeMap<String, String>) {
        let states = self.workers[worker].snapshot();
        let names: Vec<String> = self.workers[worker].rules.keys().map(ToString::to_string).collect();
        self.workers[worker] = Worker::new(Arc::clone(&self.status));
        names.iter().for_each(|name| self.load(worker, name, &texts[name]));
        states.into_iter().for_each(|(name, state)| self.workers[worker].restore(&name, state));
    }
}

#[derive(Debug, Clone)]
enum Act {
    Feed(Vec<(i64, i64)>),
    Tick(i64),
    Put(usize, usize, i64),
    Remove(usize),
    Snapshot,
    Restart,
    Move(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let row = (prop_oneof![8 => 0_i64..4, 1 => -12_i64..0, 1 => 4_i64..25], 0_i64..5);
    prop_oneof![
        10 => prop::collection::vec(row, 1..6).prop_map(Act::Feed),
        4 => (1_i64..9).prop_map(Act::Tick),
        4 => (0..4_usize, 0..KINDS.len(), 0_i64..3).prop_map(|(rule, kind, number)| Act::Put(rule, kind, number)),
        1 => (0..4_usize).prop_map(Act::Remove),
        2 => Just(Act::Snapshot),
        1 => Just(Act::Restart),
        1 => (0..4_usize).prop_map(Act::Move),
    ]
}

#[test]
fn rules_that_share_write_what_each_writes_alone() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let begin = (0..KINDS.len(), prop::collection::vec(0_i64..3, 4));
    proptest!(config, |(by_arrival in any::<bool>(), (kind, numbers) in begin, acts in prop::collection::vec(act(), 1..40))| {
        let house = |workers| House { by_arrival, ..House::new(workers) };
        let mut together = house(2);
        let names = ["a", "b", "c", "d"];
        // Each alone, and never sealed but for another version of itself.
        let mut alone: Vec<House> = names.iter().map(|_| house(1)).collect();
        let (mut texts, mut homes) = (BTreeMap::new(), [0_usize; 4]);
        let first = numbers.iter().enumerate().map(|(rule, number)| Act::Put(rule, kind, *number));
        let (mut seq, mut now, mut newest) = (0, 0, 100);
        for act in first.chain(acts) {
            match act {
                Act::Feed(steps) => {
                    let mut at = |(step, x): &(i64, i64)| {
                        let second = newest + step;
                        newest = newest.max(second);
                        (second, *x as f64)
                    };
                    let rows = rows(seq, &steps.iter().map(&mut at).collect::<Vec<_>>());
                    now += S;
                    together.feed(now, &rows);
                    alone.iter_mut().for_each(|one| one.feed(now, &rows));
                    seq += steps.len() as u64;
                }
                Act::Tick(seconds) => {
                    now += seconds * S;
                    together.call(|worker| worker.on_tick(seq, When::at(now)));
                    alone.iter_mut().for_each(|one| one.call(|worker| worker.on_tick(seq, When::at(now))));
                    seq += 1;
                }
                Act::Put(rule, kind, number) => {
                    let text = text(kind, number);
                    together.load(homes[rule], names[rule], &text);
                    alone[rule].load(0, names[rule], &text);
                    texts.insert(names[rule].to_owned(), text);
                }
                Act::Remove(rule) => {
                    together.change(homes[rule], Change::Remove(names[rule].into()));
                    alone[rule].change(0, Change::Remove(names[rule].into()));
                }
                Act::Snapshot => together.workers.iter_mut().for_each(|worker| drop(worker.snapshot())),
                Act::Restart => (0..2).for_each(|worker| together.restart(worker, &texts)),
                Act::Move(rule) => {
                    let (give, take) = oneshot::channel();
                    together.change(homes[rule], Change::Give(names[rule].into(), give));
                    homes[rule] = 1 - homes[rule];
                    together.change(homes[rule], Change::Take(names[rule].into(), take));
                }
            }
        }
        together.call(|worker| worker.on_end(seq, When::at(now)));
        for (name, one) in names.iter().zip(&mut alone) {
            one.call(|worker| worker.on_end(seq, When::at(now)));
            prop_assert_eq!(
                together.written.get(*name),
                one.written.get(*name),
                "{}: {:?}",
                name,
                texts.get(*name),
            );
            prop_assert_eq!(together.counts(name), one.counts(name), "{}: {:?}", name, texts.get(*name));
        }
    });
}

#[test]
fn rules_that_are_loaded_together_have_one_window_and_it_stays_one_with_a_new_threshold() {
    let mut house = House::new(1);
    let names: Vec<String> = (0..50).map(|n| format!("r{n:02}")).collect();
    names.iter().zip(0..).for_each(|(name, number)| house.load(0, name, &text(0, number)));
    assert_eq!(house.parts(), 1);
    house.feed(0, &rows(0, &[(100, 1.0), (101, 30.0)]));
    house.load(0, "r07", &text(0, 40));
    house.workers[0].snapshot();
    assert_eq!(house.parts(), 1, "a threshold is above the window");
    house.load(0, "r08", &text(0, 8).replace("'10' SECOND", "'20' SECOND"));
    assert_eq!(house.parts(), 2);
    house.load(0, "r09", &text(1, 9));
    assert_eq!(house.parts(), 3, "another time");
    house.feed(1, &rows(2, &[(113, 1.0)]));
    let wrote: Vec<usize> = names.iter().map(|name| house.written.get(name).map_or(0, Vec::len)).collect();
    // 31 in all: thresholds up to 30 are passed, but for the one that is 40 now and the window that is still
    // open.
    let expected: Vec<usize> = (0..50).map(|n| usize::from(n < 31 && n != 7 && n != 8)).collect();
    assert_eq!(wrote, expected);
    names.iter().for_each(|name| house.change(0, Change::Remove(name.as_str().into())));
    assert_eq!(house.parts(), 0);
}

#[test]
fn a_rule_that_comes_later_shares_as_soon_as_it_holds_the_same() {
    let mut house = House::new(1);
    house.load(0, "early", &text(0, 0));
    house.feed(0, &rows(0, &[(100, 1.0)]));
    house.load(0, "late", &text(0, 0));
    house.feed(1, &rows(1, &[(101, 2.0)]));
    house.workers[0].snapshot();
    assert_eq!(house.parts(), 2, "one has seen a row that the other has not");
    house.feed(2, &rows(2, &[(113, 4.0)]));
    house.workers[0].snapshot();
    assert_eq!(house.parts(), 1);
    house.feed(3, &rows(3, &[(133, 4.0)]));
    let sums = |name: &str| house.written[name].len();
    assert_eq!((sums("early"), sums("late")), (2, 2));
    assert_ne!(house.written["early"][0], house.written["late"][0]);
    assert_eq!(house.written["early"][1], house.written["late"][1]);
}

#[test]
fn what_is_shared_before_a_restart_is_shared_after_it() {
    let mut house = House::new(1);
    let texts: BTreeMap<String, String> = (0..9).map(|n| (format!("r{n}"), text(2, n))).collect();
    texts.iter().for_each(|(name, text)| house.load(0, name, text));
    house.feed(0, &rows(0, &[(100, 1.0), (106, 2.0), (118, 4.0)]));
    house.restart(0, &texts);
    assert_eq!(house.parts(), 1);
}

#[test]
fn a_rule_that_keeps_too_much_stops_alone() {
    let mut house = House::new(1);
    let windows = "INSERT INTO lamp SELECT x, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' \
        SECOND) GROUP BY window_start, window_end, x";
    house.load(0, "small", &format!("--! max_state = \"256KiB\"\n{windows}"));
    house.load(
        0,
        "forgets",
        &format!("--! max_state = \"256KiB\"\n--! when_state_full = \"forget\"\n{windows}"),
    );
    house.load(0, "large", windows);
    assert_eq!(house.parts(), 1);
    let many: Vec<(i64, f64)> = (0..20_000).map(|n| (100, f64::from(n))).collect();
    house.feed(0, &rows(0, &many));
    house.feed(1, &rows(20_000, &[(110, 1.0)]));
    assert!(house.counts("small").2);
    assert!(!house.counts("forgets").2 && !house.counts("large").2);
    assert!(house.status.rules.of("forgets").forgotten.get() >= 20_000);
    assert_eq!((house.written.get("forgets"), house.written["large"].len()), (None, 20_000));
}
