//! Rule book and workers together, driven in place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::config::Contract;
use crate::outputs::contract::{Ages, Contracts, Made, Terms, What};
use crate::rules::router::{Routed, in_order};
use crate::rules::worker::Worker;
use crate::sequencer::numbers::Numbers;
use arrow::array::{AsArray, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use futures::FutureExt;
use proptest::prelude::*;
use tidegate_core::FieldType;
use tidegate_core::schema::ts_field;
use tidegate_rules::{Language, OutputColumns, When};

fn schema(columns: &[&str]) -> SchemaRef {
    let columns = columns.iter().map(|name| Field::new(*name, DataType::Float64, true));
    Arc::new(Schema::new(std::iter::once(ts_field()).chain(columns).collect::<Vec<_>>()))
}

fn catalog() -> Catalog {
    Catalog {
        by_arrival: ["arrivals".to_owned()].into(),
        inputs: ["tank", "arrivals"]
            .map(|stream| (stream.to_owned(), Some(schema(&["x"]))))
            .into_iter()
            .chain([("later".to_owned(), None)])
            .collect(),
        derived: ["d1", "d2", "d3"].map(|name| (name.to_owned(), schema(&["x"]))).into(),
        outputs: ["pump", "valve", "lamp"].map(|name| (name.to_owned(), OutputColumns::default())).into(),
        uplink: true,
        ..Catalog::default()
    }
}

fn sql(text: &str) -> Source {
    Source::new(Language::Sql, text)
}

/// A rule book with its workers, and what reached each target.
pub(super) struct House {
    pub(super) book: RuleBook,
    pub(super) workers: Vec<Worker>,
    numbers: Numbers,
    written: Vec<Routed>,
}

impl House {
    pub(super) fn new(workers: usize) -> Self {
        let status = Arc::new(Status::default());
        let book = RuleBook::new(catalog(), workers, Arc::clone(&status)).quiet();
        let workers = (0..workers).map(|_| Worker::new(Arc::clone(&status))).collect();
        Self { book, workers, numbers: Numbers::from(0), written: Vec::new() }
    }

    fn put(&mut self, name: &str, text: &str) -> &mut Self {
        self.put_renamed(name, text, name)
    }

    /// A script in Rhai.
    pub(super) fn put_script(&mut self, name: &str, text: &str) -> &mut Self {
        let source = Source::new(Language::Rhai, text);
        let changes = self.book.put(&name.into(), &format!("{name}.rhai"), &source, &name.into()).changes;
        self.apply(changes)
    }

    fn put_renamed(&mut self, name: &str, text: &str, from: &str) -> &mut Self {
        let changes = self.book.put(&name.into(), &format!("{name}.sql"), &sql(text), &from.into()).changes;
        self.apply(changes)
    }

    pub(super) fn apply(&mut self, changes: Vec<Placed>) -> &mut Self {
        for (worker, change) in changes {
            self.workers[worker]
                .on_change(change)
                .now_or_never()
                .expect("a rule is given away before it is taken");
        }
        self
    }

    pub(super) fn feed(&mut self, stream: &str, values: &[f64]) -> &mut Self {
        let first = self.numbers.next() as i64 * 1_000_000_000;
        let times: Vec<i64> = (0..values.len() as i64).map(|i| first + i * 1_000_000_000).collect();
        self.feed_at(stream, first, &times, values)
    }

    /// Rows with these times, at the sequence's time `now`.
    fn feed_at(&mut self, stream: &str, now: i64, times: &[i64], values: &[f64]) -> &mut Self {
        let times = TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC");
        let batch = RecordBatch::try_new(
            schema(&["x"]),
            vec![Arc::new(times), Arc::new(Float64Array::from(values.to_vec()))],
        )
        .unwrap();
        let rows = self.numbers.number(batch);
        for worker in &mut self.workers {
            let written = worker.on_batch(stream, &rows, When::at(now));
            self.written.extend(written);
        }
        self
    }

    /// (rule, number, ordinal, value of x) of the rows for `target`, in order.
    pub(super) fn rows(&self, target: &str) -> Vec<(String, u64, u32, f64)> {
        let of_target =
            self.written.iter().filter(|routed| routed.target.name() == target).cloned().collect();
        let mut rows = Vec::new();
        for routed in in_order(of_target) {
            let values = routed.rows.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>().clone();
            for row in 0..values.len() {
                rows.push((
                    routed.version.name.to_string(),
                    routed.rows.seqs.get(row),
                    routed.ordinals[row],
                    values.value(row),
                ));
            }
        }
        rows
    }

    pub(super) fn values(&self, target: &str) -> Vec<f64> {
        self.rows(target).into_iter().map(|(.., value)| value).collect()
    }
}

#[test]
fn a_wrong_version_changes_nothing_and_a_good_one_replaces_it() {
    let mut house = House::new(1);
    house.put("r", "INSERT INTO pump SELECT x FROM tank").feed("tank", &[1.0]);
    house.put("r", "INSERT INTO pmp SELECT x FROM tank").feed("tank", &[2.0]);
    assert!(house.book.wrong()[0].to_string().contains("did you mean `pump`?"), "{:?}", house.book.wrong());
    house.put("r", "INSERT INTO pump SELECT -x AS x FROM tank").feed("tank", &[3.0]);
    assert_eq!(house.values("pump"), [1.0, 2.0, -3.0]);
    assert!(house.book.wrong().is_empty());
}

#[test]
fn rows_go_through_derived_streams_within_the_same_entry_whatever_the_rules_are_called() {
    let mut house = House::new(1);
    house.put("z", "INSERT INTO d1 SELECT ts, x + 1 AS x FROM tank");
    house.put("a", "INSERT INTO d2 SELECT ts, x * 10 AS x FROM d1; INSERT INTO d2 SELECT ts, x FROM tank");
    house.put("m", "INSERT INTO pump SELECT x FROM d2").feed("tank", &[1.0, 2.0]);
    let said: Vec<_> = house.rows("pump").into_iter().map(|(_, seq, ordinal, x)| (seq, ordinal, x)).collect();
    assert_eq!(said, [(0, 0, 1.0), (0, 1, 20.0), (1, 0, 2.0), (1, 1, 30.0)]);
}

#[test]
fn a_row_without_time_costs_itself_and_stops_no_reader() {
    let mut house = House::new(1);
    house.put("a", "INSERT INTO d1 SELECT CASE WHEN x > 0 THEN ts END AS ts, x FROM tank");
    let windows = "FROM TUMBLE(d1, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end";
    house.put("b", &format!("INSERT INTO pump SELECT sum(x) AS x {windows}"));
    house.put("c", "INSERT INTO valve SELECT x FROM d1");
    house.feed("tank", &[1.0, -2.0, 3.0]).feed("tank", &[4.0, 5.0]);
    assert_eq!(house.values("pump"), [1.0, 3.0, 4.0]);
    assert_eq!(house.values("valve"), [1.0, 3.0, 4.0, 5.0]);
    let counted = house.book.status.rules.of("a").left_out.get();
    assert_eq!(counted, 1);
}

/// On 2016-12-31 there was a second 23:59:60, which POSIX time counts as the first one of the new year, and
/// then again.
#[test]
fn a_leap_second_neither_closes_a_window_by_arrival_nor_loses_a_row() {
    const NEW_YEAR_NS: i64 = 1_483_228_800_000_000_000;
    const QUARTER_NS: i64 = 250_000_000;
    let mut house = House::new(1);
    let text = "INSERT INTO pump SELECT sum(x) AS x FROM TUMBLE(arrivals, DESCRIPTOR(ts), INTERVAL '10' \
        SECOND) GROUP BY window_start, window_end";
    house.put("r", text);
    // Four rows a second: two seconds of the old year, the leap second, and ten seconds of the new year.
    for quarter in 0..4 * 13 + 1 {
        let leapt = if quarter >= 12 { 12 } else { 8 };
        let ts = NEW_YEAR_NS + (quarter - leapt) * QUARTER_NS;
        house.feed_at("arrivals", 5_000_000_000 + quarter * QUARTER_NS, &[ts], &[1.0]);
    }
    assert_eq!(house.values("pump"), [8.0, 44.0]);
    assert_eq!(house.rows("pump").iter().map(|(_, seq, ..)| *seq).collect::<Vec<_>>(), [8, 52]);
}

#[test]
fn a_circle_of_derived_streams_is_refused() {
    let mut house = House::new(1);
    house.put("a", "INSERT INTO d2 SELECT ts, x FROM d1");
    house.put("b", "INSERT INTO d1 SELECT ts, x FROM d2");
    assert!(house.book.wrong()[0].message.contains("circle"), "{:?}", house.book.wrong());
    house.put("b", "INSERT INTO d3 SELECT ts, x FROM d2; INSERT INTO d3 SELECT ts, x FROM d3");
    assert!(house.book.wrong()[0].message.contains("`d3` leads to `d3`"), "{:?}", house.book.wrong());
}

#[test]
fn two_rules_that_write_one_output_are_told_of_each_other() {
    let mut house = House::new(2);
    house.put(
        "a",
        "INSERT INTO pump SELECT x FROM tank WHERE x > 1; INSERT INTO pump SELECT x FROM tank WHERE x < 0",
    );
    house.put(
        "b",
        "--! mode = \"shadow\"\nINSERT INTO pump SELECT x FROM tank; INSERT INTO uplink SELECT x FROM tank",
    );
    assert_eq!(house.book.warnings(), []);
    house.put("b", "INSERT INTO pump SELECT x FROM tank; INSERT INTO uplink SELECT x FROM tank");
    house.put("c", "INSERT INTO uplink SELECT x FROM tank");
    let said: Vec<String> = house.book.warnings().iter().map(ToString::to_string).collect();
    let expected = "b.sql: `a.sql` writes to the output `pump`, too: the row that comes last decides what \
        it does; let one rule write it, from a derived stream that the others write to";
    assert_eq!(said, [expected]);
}

#[test]
fn a_rule_that_writes_to_the_uplink_must_be_taken_by_one() {
    let mut house = House::new(1);
    house.book = RuleBook::new(
        Catalog { uplink_rules: Some(["a".to_owned()].into()), ..catalog() },
        1,
        Arc::default(),
    )
    .quiet();
    house.put("a", "INSERT INTO uplink SELECT x FROM tank");
    house.put("b", "INSERT INTO pump SELECT x FROM tank");
    house.put("c", "--! mode = \"off\"\nINSERT INTO uplink SELECT x FROM tank");
    assert_eq!(house.book.wrong(), []);
    house.put("b", "INSERT INTO uplink SELECT x FROM tank");
    let wrong = house.book.wrong();
    assert_eq!(wrong[0].message, "no uplink takes what the rule `b` writes");
}

#[test]
fn a_rule_waits_for_columns_and_follows_them_when_they_widen() {
    let mut house = House::new(1);
    house.put("r", "INSERT INTO pump SELECT x FROM later");
    assert_eq!(house.book.waiting().map(|(name, _)| name).collect::<Vec<_>>(), ["r"]);
    let changes = house.book.columns_changed("later", &schema(&["x"]));
    house.apply(changes).feed("later", &[4.0]);
    // A new column in front: the rule is compiled anew, not run on the wrong column.
    let changes = house.book.columns_changed("later", &schema(&["x", "y"]));
    assert_eq!(changes.len(), 1);
    house.apply(changes).feed("later", &[5.0]);
    assert_eq!(house.values("pump"), [4.0, 5.0]);
}

#[test]
fn widening_does_not_forget_that_the_newest_text_is_wrong() {
    let mut house = House::new(1);
    house
        .put("r", "INSERT INTO pump SELECT x FROM tank")
        .put("r", "INSERT INTO pump SELECT nothing FROM tank");
    let changes = house.book.columns_changed("tank", &schema(&["x"]));
    house.apply(changes).feed("tank", &[1.0]);
    assert_eq!((house.values("pump"), house.book.wrong().len()), (vec![1.0], 1));
}

const COUNT: &str = "INSERT INTO pump SELECT CAST(count(*) AS DOUBLE) AS x FROM TUMBLE(tank, \
    DESCRIPTOR(ts), INTERVAL '4' SECOND) GROUP BY window_start, window_end";

#[test]
fn a_text_that_did_not_fit_other_columns_is_not_wrong_any_more_when_they_are_right_again() {
    let mut house = House::new(1);
    house.put("rule", "INSERT INTO pump SELECT x FROM tank");
    house.book.columns_changed("tank", &schema(&["y"]));
    assert_eq!(house.book.wrong().len(), 1);
    house.book.columns_changed("tank", &schema(&["x"]));
    assert_eq!(house.book.wrong(), []);
    // One that was wrong by itself stays so, and is not said again.
    house.put("rule", "INSERT INTO pump SELECT z FROM tank");
    let wrong = house.book.wrong();
    house.book.columns_changed("tank", &schema(&["x", "y"]));
    assert_eq!(house.book.wrong(), wrong);
}

#[test]
fn a_renamed_rule_keeps_its_windows() {
    let mut house = House::new(2);
    house.put("other", "INSERT INTO valve SELECT x FROM tank").put("old", COUNT).feed("tank", &[0.0, 0.0]);
    house.put_renamed("new", COUNT, "old");
    // Power may be cut before anybody says that the old file is gone: no later edit may need that to be
    // known.
    assert_eq!(house.book.names().collect::<Vec<_>>(), ["new", "other"]);
    let changes = house.book.remove("old").changes;
    assert!(changes.is_empty(), "its worker has it under the new name");
    house.feed("tank", &[0.0, 0.0, 0.0]);
    assert_eq!(house.rows("pump"), [("new".to_owned(), 4, 0, 4.0)]);
}

#[test]
fn a_rule_that_is_switched_off_or_removed_writes_nothing() {
    let mut house = House::new(1);
    house
        .put("r", "INSERT INTO pump SELECT x FROM tank")
        .put("s", "--! mode = \"shadow\"\nINSERT INTO pump SELECT x FROM tank");
    house.feed("tank", &[1.0]);
    assert_eq!(house.values("pump"), [1.0]);
    house.put("r", "--! mode = \"off\"\nINSERT INTO pump SELECT x FROM tank").feed("tank", &[2.0]);
    house.put("r", "INSERT INTO pump SELECT x FROM tank").feed("tank", &[3.0]);
    let changes = house.book.remove("r").changes;
    house.apply(changes).feed("tank", &[4.0]);
    assert_eq!(house.values("pump"), [1.0, 3.0]);
}

#[test]
fn rules_that_share_an_output_move_to_one_worker_with_their_windows() {
    let mut house = House::new(3);
    house.put("a", COUNT).put("b", "INSERT INTO valve SELECT x FROM tank").feed("tank", &[9.0, 9.0]);
    let worker = |house: &House, name: &str| house.book.worker_of(name).unwrap();
    assert_ne!(worker(&house, "a"), worker(&house, "b"));
    house.put("b", "INSERT INTO valve SELECT x FROM tank; INSERT INTO pump SELECT x FROM tank WHERE x < 0");
    assert_eq!(worker(&house, "a"), worker(&house, "b"));
    house.feed("tank", &[-1.0, 9.0, 9.0]);
    let said: Vec<_> = house.rows("pump").into_iter().map(|(rule, seq, _, x)| (rule, seq, x)).collect();
    assert_eq!(said, [("b".to_owned(), 2, -1.0), ("a".to_owned(), 4, 4.0)]);
    assert_eq!(house.values("valve"), [9.0, 9.0, -1.0, 9.0, 9.0]);
}

/// What `rules` write when each of them has a worker of its own, and so sees every row.
fn alone(rules: &[(String, String)], values: &[f64]) -> Vec<(String, u64, u32, f64)> {
    let mut rows = Vec::new();
    for (name, text) in rules {
        let mut house = House::new(1);
        rows.extend(house.put(name, text).feed("tank", values).rows("uplink"));
    }
    rows.sort_by(|a, b| (a.1, &a.0, a.2).cmp(&(b.1, &b.0, b.2)));
    rows
}

#[test]
fn many_rules_on_one_stream_write_what_each_would_write_alone() {
    let rule = |n: usize| {
        let condition = match n % 5 {
            0 => format!("x > {n}"),
            1 => format!("x = {n}"),
            2 => format!("x BETWEEN {} AND {n}", n / 2),
            3 => format!("x < {n} AND x <> 7"),
            _ => format!("x IN ({n}, 3, 5)"),
        };
        let last = if n == 17 { "; INSERT INTO uplink SELECT x FROM tank" } else { "" };
        (format!("r{n:02}"), format!("INSERT INTO uplink SELECT x FROM tank WHERE {condition}{last}"))
    };
    let rules: Vec<_> = (0..40).map(rule).collect();
    let values = [3.0, 0.0, -1.0, f64::NAN, 36.0, 12.0, 3.0, 7.0, 1e9, 26.0];
    for cuts in [&[10][..], &[1; 10], &[3, 7]] {
        let mut house = House::new(1);
        for (name, text) in rules.iter().rev() {
            house.put(name, text);
        }
        house.put("gone", "INSERT INTO uplink SELECT x FROM tank WHERE x > 0");
        let changes = house.book.remove("gone").changes;
        house.apply(changes);
        let mut rest = &values[..];
        for cut in cuts {
            let (now, later) = rest.split_at(*cut);
            house.feed("tank", now);
            rest = later;
        }
        let mut rows = house.rows("uplink");
        // Text, since NaN is not equal to itself.
        rows.sort_by(|a, b| (a.1, &a.0, a.2).cmp(&(b.1, &b.0, b.2)));
        assert_eq!(format!("{rows:?}"), format!("{:?}", alone(&rules, &values)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Neither the cuts between batches nor the number of workers nor the times at which rules are loaded
    /// again change what any target gets.
    #[test]
    fn cuts_and_workers_change_nothing(
        values in prop::collection::vec(-5.0..5.0_f64, 1..60),
        cuts in prop::collection::vec(1_usize..8, 0..20),
        workers in 1_usize..4,
        reload in 0_usize..20,
    ) {
        let rules = [
            ("on", "INSERT INTO pump SELECT x FROM tank WHERE x > 1; INSERT INTO pump SELECT x FROM tank \
                WHERE x < -1"),
            ("mean", "INSERT INTO d1 SELECT window_end AS ts, avg(x) AS x FROM TUMBLE(tank, DESCRIPTOR(ts), \
                INTERVAL '3' SECOND) GROUP BY window_start, window_end"),
            ("chain", "INSERT INTO d2 SELECT ts, x FROM d1 WHERE x > 0; INSERT INTO d2 SELECT ts, x FROM \
                tank WHERE x > 4"),
            ("last", "INSERT INTO pump SELECT x FROM d2; INSERT INTO uplink SELECT x FROM d2"),
            ("alone", "INSERT INTO lamp SELECT x FROM tank WHERE x > 0"),
        ];
        let mut whole = House::new(1);
        let mut cut = House::new(workers);
        for (name, text) in rules {
            whole.put(name, text);
        }
        for (name, text) in rules.iter().rev() {
            cut.put(name, text);
        }
        whole.feed("tank", &values);
        let mut rest = values.as_slice();
        for (at, len) in cuts.iter().enumerate() {
            let (now, later) = rest.split_at((*len).min(rest.len()));
            if !now.is_empty() {
                cut.feed("tank", now);
            }
            rest = later;
            if at == reload {
                for (name, text) in rules {
                    cut.put(name, text);
                }
            }
        }
        if !rest.is_empty() {
            cut.feed("tank", rest);
        }
        for target in ["pump", "lamp", "uplink", "d1", "d2"] {
            prop_assert_eq!(whole.rows(target), cut.rows(target), "{}", target);
        }
    }
}

/// The workers of a start take the changes of the journal when the book is further on long since.
#[test]
fn a_rule_that_is_gone_does_not_come_back_in_what_is_told() {
    let text = |x: i32| format!("INSERT INTO pump SELECT x + {x} AS x FROM tank");
    let mut house = House::new(1);
    let mut put = |name: &str, text: String, from: &str| {
        house.book.put(&name.into(), &format!("{name}.sql"), &sql(&text), &from.into()).changes
    };
    let mut changes = put("a", text(1), "a");
    changes.extend(put("c", text(1), "a"));
    changes.extend(put("d", text(1), "d"));
    changes.extend(put("e", text(2), "e"));
    changes.extend(put("e", format!("--! mode = \"off\"\n{}", text(2)), "e"));
    changes.extend(house.book.remove("d").changes);
    house.apply(changes);
    let told: Vec<(String, bool)> = house
        .book
        .status
        .rules
        .all()
        .into_iter()
        .map(|(name, rule)| (name, rule.running.is_some()))
        .collect();
    assert_eq!(told, [("c".to_owned(), true), ("e".to_owned(), false)]);
}

#[test]
fn a_rule_for_what_the_configuration_file_has_by_now_asks_for_a_restart() {
    let mut house = House::new(1);
    let with_horn = |now: &Catalog| {
        let mut then = now.clone();
        then.outputs.insert("horn".to_owned(), OutputColumns::default());
        Some(then)
    };
    house.book.after_restart = Some(Box::new(with_horn));
    house.put("r", "INSERT INTO horn SELECT x FROM tank");
    let wrong = house.book.wrong()[0].to_string();
    assert!(wrong.contains("horn") && wrong.contains("restart the box"), "{wrong}");
    // That does not help a rule which is wrong all the same.
    house.put("r", "INSERT INTO horn SELECT y FROM tank");
    let wrong = house.book.wrong();
    assert!(wrong.iter().all(|wrong| !wrong.to_string().contains("restart the box")), "{wrong:?}");
}

fn contracts(outputs: &[(&str, &str)]) -> Contracts {
    let terms = outputs.iter().map(|(name, more)| Terms {
        output: Arc::from(*name),
        contract: Contract::of_text(
            &format!("expiry = \"10s\"\nfailsafe = {{ x = 0 }}\n{more}"),
            &[("x", FieldType::Float64)],
        )
        .unwrap(),
        columns: None,
        required: Vec::new(),
        connection: "plc".into(),
        status: Arc::default(),
    });
    Contracts::new(terms.collect(), &BTreeMap::new(), Ages::default())
}

#[test]
fn rules_of_one_rank_do_not_write_one_output_unless_it_is_said_who_wins() {
    let mut house = House::new(1);
    let governed = contracts(&[("pump", ""), ("valve", "tie = \"newest\"")]);
    house.book = RuleBook::new(catalog(), 1, Arc::default()).governed_by(&governed).quiet();
    house.put("a", "INSERT INTO pump SELECT x FROM tank").put("b", "INSERT INTO pump SELECT x FROM tank");
    let [wrong] = &*house.book.wrong() else { panic!("{:?}", house.book.wrong()) };
    assert_eq!(
        wrong.to_string(),
        "b.sql: `a.sql` writes the output `pump` with the same rank (8), and nobody says who wins; give one of \
        them another `rank`, from 1 (strongest) to 16, or say in the output's contract who wins: `tie = \
        \"newest\"`, \"min\", \"max\" or \"off\""
    );
    for good in [
        "--! rank = 4\nINSERT INTO pump SELECT x FROM tank",
        "--! mode = \"shadow\"\nINSERT INTO pump SELECT x FROM tank",
        "INSERT INTO lamp SELECT x FROM tank",
    ] {
        house.put("b", good);
        assert_eq!(house.book.wrong(), [], "{good}");
    }
    house.put("c", "INSERT INTO valve SELECT x FROM tank").put("d", "INSERT INTO valve SELECT x FROM tank");
    assert_eq!((house.book.wrong(), house.book.warnings()), (vec![], vec![]));
}

/// What contracts have of the last entry: who asked, and for what.
fn ordered(house: &mut House) -> Vec<String> {
    let made: Vec<Made> = house.workers.iter_mut().map(Worker::take_made).collect();
    let orders = made.into_iter().flat_map(|made| made.orders);
    let said = orders.map(|order| match order.what {
        What::Write { values, .. } => format!("{} {} {:?}", order.output, order.by, values),
        other => format!("{other:?}"),
    });
    said.collect()
}

#[test]
fn what_rules_write_to_an_output_with_a_contract_is_claimed_on_its_worker() {
    let mut house = House::new(3);
    let status = Arc::new(Status::default());
    let governed = contracts(&[("pump", "")]);
    house.book = RuleBook::new(catalog(), 3, Arc::clone(&status)).governed_by(&governed).quiet();
    house.workers[Contracts::WORKER] = Worker::new(status).governing(governed);
    house
        .put("lamp_1", "INSERT INTO lamp SELECT x FROM tank")
        .put("low", "INSERT INTO d1 SELECT ts, x FROM tank")
        .put("high", "--! rank = 2\nINSERT INTO pump SELECT x * 10 AS x FROM d1 WHERE x > 5")
        .put("any", "INSERT INTO pump SELECT x FROM tank");
    for name in ["low", "high", "any"] {
        assert_eq!(house.book.worker_of(name), Some(Contracts::WORKER), "{name}");
    }
    house.feed("tank", &[1.0, 7.0, 2.0]);
    assert!(house.rows("pump").is_empty(), "what is claimed is not written as it is");
    let claimed = |rule: &str, x: f64| format!("pump rule {rule} claims it {{\"x\": Float({x:?})}}");
    assert_eq!(ordered(&mut house), [claimed("any", 1.0), claimed("any", 7.0), claimed("high", 70.0)]);
    // A new version has what the old one claimed until it says something else.
    house
        .put("high", "--! rank = 2\nINSERT INTO pump SELECT x * 10 AS x FROM d1 WHERE x > 50")
        .feed("tank", &[3.0]);
    assert_eq!(ordered(&mut house), [""; 0]);
    // One that is gone has nothing.
    let changes = house.book.remove("high").changes;
    house.apply(changes).feed("tank", &[4.0]);
    assert_eq!(ordered(&mut house), [claimed("any", 3.0), claimed("any", 4.0)]);
}
