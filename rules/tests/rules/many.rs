//! Rules that are found by an index write what they write when they see every row.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use proptest::prelude::*;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::index::{Index, Prefilter};
use tidegate_rules::{Emissions, Rule, When};

use crate::bench_rows::{Tank, batch, listing, rule};

const FLOATS: &[f64] = &[
    f64::NAN,
    -f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::MAX,
    f64::MIN,
    5e-324,
    0.0,
    -0.0,
    1.0,
    80.0,
    -3.5,
];
const INTS: &[i64] = &[i64::MIN, i64::MAX, -1, 0, 1, 2, 3, 80];
const DEVICES: &[&str] = &["a", "b", "c", "", "ä", "it''s"];

const COMPUTED: &[&str] = &[
    "-temperature",
    "abs(temperature)",
    "temperature * 2",
    "temperature - count",
    "sqrt(temperature)",
    "100 / count",
    "length(device)",
];
const TEXTS: &[&str] = &["upper(device)", "btrim(device)", "device || 'a'", "concat(device, 'a')"];
const TRUTHS: &[&str] = &[
    "device LIKE 'a%'",
    "starts_with(device, 'b')",
    "temperature > count",
    "device <> upper(device)",
    "temperature IS NOT NULL",
    "count % 2 = 0",
];

/// A condition as people write it, on every column and in every order.
fn condition() -> impl Strategy<Value = String> {
    let comparison = || prop::sample::select(vec!["<", "<=", ">", ">=", "=", "<>"]);
    let float = || {
        prop::sample::select(
            FLOATS
                .iter()
                .filter(|f| f.is_finite())
                .map(|f| format!("CAST('{f:e}' AS DOUBLE)"))
                .collect::<Vec<_>>(),
        )
    };
    let int = || {
        prop::sample::select(vec![
            "-1",
            "0",
            "1",
            "2",
            "80",
            "9223372036854775807",
            "-9223372036854775808",
            "2.5",
            "1e300",
        ])
    };
    let device = || prop::sample::select(DEVICES.to_vec()).prop_map(|device| format!("'{device}'"));
    let time = || {
        prop::sample::select(vec!["-1 ", "0 ", "5 "])
            .prop_map(|s| format!("to_timestamp({s}) AT TIME ZONE 'UTC'"))
    };
    let leaf = prop_oneof![
        (comparison(), float()).prop_map(|(op, value)| format!("temperature {op} {value}")),
        (comparison(), int()).prop_map(|(op, value)| format!("count {op} {value}")),
        (int(), comparison()).prop_map(|(value, op)| format!("{value} {op} temperature")),
        (comparison(), device()).prop_map(|(op, value)| format!("device {op} {value}")),
        prop::collection::vec(device(), 1..6).prop_map(|list| format!("device IN ({})", list.join(", "))),
        prop::collection::vec(device(), 1..6).prop_map(|list| format!("device NOT IN ({})", list.join(", "))),
        prop::collection::vec(int(), 1..6).prop_map(|list| format!("count IN ({})", list.join(", "))),
        (int(), int()).prop_map(|(low, high)| format!("count BETWEEN {low} AND {high}")),
        (float(), float()).prop_map(|(low, high)| format!("temperature NOT BETWEEN {low} AND {high}")),
        (comparison(), time()).prop_map(|(op, value)| format!("ts {op} {value}")),
        Just("running".to_owned()),
        Just("running IS NOT TRUE".to_owned()),
        Just("running = false".to_owned()),
        Just("temperature IS NULL".to_owned()),
        Just("10 / count > 1".to_owned()),
        Just("abs(temperature) > 3 AND abs(temperature) < 81".to_owned()),
        // What several rules compute of columns; not all of it has a value for every row.
        (prop::sample::select(COMPUTED.to_vec()), comparison(), float())
            .prop_map(|(term, op, value)| format!("{term} {op} {value}")),
        (prop::sample::select(TEXTS.to_vec()), comparison(), device())
            .prop_map(|(term, op, value)| format!("{term} {op} {value}")),
        prop::sample::select(TRUTHS.to_vec()).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" AND "))),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(|any| format!("({})", any.join(" OR "))),
            1 => inner.prop_map(|not| format!("NOT ({not})")),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    let shape = prop::sample::select(vec![
        "INSERT INTO uplink SELECT * FROM tank WHERE {}",
        "INSERT INTO lamp SELECT device, count % 2 AS odd FROM tank WHERE {}",
        "INSERT INTO lamp SELECT x.d FROM (SELECT device AS d, device, count, temperature, running, ts FROM \
        tank) AS x WHERE {}",
        "CREATE VIEW hot_ones AS SELECT ts, device, count, temperature, running FROM tank WHERE temperature \
        > 0; INSERT INTO lamp SELECT device FROM hot_ones WHERE {}",
        "INSERT INTO uplink SELECT device FROM tank WHERE device = 'a'; INSERT INTO lamp SELECT count FROM \
        tank WHERE {}",
        "INSERT INTO uplink SELECT 10 / count AS q FROM tank; INSERT INTO lamp SELECT count FROM tank WHERE \
        {}",
    ]);
    (shape, condition()).prop_map(|(shape, condition)| shape.replace("{}", &condition))
}

fn tanks() -> impl Strategy<Value = Vec<Tank>> {
    let device =
        prop::option::weighted(0.8, prop::sample::select(vec!["a", "a", "b", "c", "", "ä", "it's", "zz"]));
    let temperature = prop::option::weighted(0.9, prop::sample::select(FLOATS.to_vec()));
    let row = (
        -2_000_i64..8_000,
        device,
        temperature,
        prop::option::weighted(0.9, prop::sample::select(INTS.to_vec())),
        prop::option::of(any::<bool>()),
    );
    let row = row.prop_map(|(ts_ms, device, temperature, count, running)| Tank {
        ts_ms,
        device,
        temperature,
        count,
        running,
    });
    prop_oneof![prop::collection::vec(row.clone(), 0..3), prop::collection::vec(row, 0..40)]
}

/// Rows of `tank` that the rule wants to see; `None`: every row.
fn wanted(rule: &dyn Rule) -> Option<Arc<[Prefilter]>> {
    rule.indexed()?.prefilters("tank")
}

/// What the rule at hand writes: rows with their numbers, and how many were bad.
fn taken(rule: &mut dyn Rule, rows: &Rows, out: &mut Emissions) {
    rule.on_batch("tank", rows, When::at(0), out).unwrap();
}

fn subset(batch: &RecordBatch, rows: &[u32], first: u64) -> Rows {
    let batch = take_record_batch(batch, &UInt32Array::from(rows.to_vec())).unwrap();
    Rows { batch, seqs: Seqs::list(rows.iter().map(|row| first + u64::from(*row)).collect()) }
}

#[test]
fn rules_that_the_index_names_write_the_same_as_rules_that_see_every_row() {
    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    let batches = prop::collection::vec(tanks(), 1..5);
    proptest!(config, |(texts in prop::collection::vec(text(), 1..16), gone in prop::collection::vec(any::<bool>(), 16), batches in batches)| {
        let mut index = Index::default();
        let mut rules: Vec<(Box<dyn Rule>, Box<dyn Rule>)> = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let (alone, indexed) = (rule(text), rule(text));
            if let Some(prefilters) = wanted(&*indexed) {
                index.insert(number, prefilters);
            }
            rules.push((alone, indexed));
        }
        let mut first = 0;
        for (at, rows) in batches.iter().enumerate() {
            let batch = batch(rows);
            let whole = Rows { batch: batch.clone(), seqs: Seqs::Run { first } };
            let concerned = index.concerned(&batch);
            for (number, (alone, indexed)) in rules.iter_mut().enumerate() {
                let (mut expected, mut found) = (Emissions::default(), Emissions::default());
                taken(&mut **alone, &whole, &mut expected);
                match (wanted(&**indexed), concerned.rules.iter().find(|(name, _)| **name == number)) {
                    (None, _) | (Some(_), Some((_, None))) => taken(&mut **indexed, &whole, &mut found),
                    (Some(_), Some((_, Some(set)))) => taken(&mut **indexed, &subset(&batch, &concerned.subsets[*set], first), &mut found),
                    (Some(_), None) => {}
                }
                prop_assert_eq!(listing(&found.rows), listing(&expected.rows), "{}", texts[number]);
                prop_assert_eq!(
                    (found.bad_rows, found.late),
                    (expected.bad_rows, expected.late),
                    "{}",
                    texts[number],
                );
            }
            prop_assert!(concerned.rules.is_sorted_by(|a, b| a.0 < b.0));
            first += rows.len() as u64;
            // Rules go, and come back, between two batches.
            for (number, (_, indexed)) in rules.iter().enumerate().filter(|(number, _)| gone[*number]) {
                match wanted(&**indexed) {
                    Some(_) if at % 2 == 0 => index.remove(&number),
                    Some(prefilters) => index.insert(number, prefilters),
                    None => {}
                }
            }
            if at % 2 == 0 {
                for (number, (_, indexed)) in rules.iter().enumerate().filter(|(number, _)| gone[*number]) {
                    wanted(&**indexed).into_iter().for_each(|prefilters| index.insert(number, prefilters));
                }
            }
        }
    });
}

/// Every comparison of a column with a constant that rows of the test have.
fn comparisons() -> Vec<String> {
    let floats = FLOATS.iter().filter(|f| f.is_finite()).map(|f| format!("CAST('{f:e}' AS DOUBLE)"));
    let columns: [(&str, Vec<String>); 4] = [
        ("temperature", floats.collect()),
        ("count", INTS.iter().map(ToString::to_string).collect()),
        ("device", DEVICES.iter().map(|device| format!("'{device}'")).collect()),
        (
            "ts",
            ["1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z"]
                .map(|time| format!("TIMESTAMP '{time}'"))
                .into(),
        ),
    ];
    let mut conditions = vec!["running".to_owned(), "NOT running".to_owned(), "running = true".to_owned()];
    for (column, values) in columns {
        for value in &values {
            conditions.extend(["<", "<=", ">", ">=", "="].map(|op| format!("{column} {op} {value}")));
            conditions.extend(values.first().map(|other| format!("{column} BETWEEN {other} AND {value}")));
        }
        conditions.push(format!("{column} IN ({})", values.join(", ")));
    }
    conditions
}

#[test]
fn no_rule_is_overlooked_for_any_value_at_any_bound() {
    let mut rules: Vec<Box<dyn Rule>> = comparisons()
        .iter()
        .map(|condition| rule(&format!("INSERT INTO lamp SELECT device FROM tank WHERE {condition}")))
        .collect();
    let mut index = Index::default();
    for (number, rule) in rules.iter().enumerate() {
        wanted(&**rule).into_iter().for_each(|prefilters| index.insert(number, prefilters));
    }
    assert!(index.len() > 100, "of {} rules {} are indexed", rules.len(), index.len());
    let none = || Tank { ts_ms: 5, device: None, temperature: None, count: None, running: None };
    let mut rows = vec![none(), Tank { ts_ms: 0, ..none() }, Tank { ts_ms: -1, ..none() }];
    rows.extend(FLOATS.iter().map(|float| Tank { temperature: Some(*float), ..none() }));
    rows.extend(INTS.iter().map(|int| Tank { count: Some(*int), ..none() }));
    rows.extend(["a", "b", "c", "", "ä", "it's", "d"].map(|device| Tank { device: Some(device), ..none() }));
    rows.extend([true, false].map(|running| Tank { running: Some(running), ..none() }));
    for batch in rows.chunks(1).chain(rows.windows(2)).map(batch) {
        let concerned = index.concerned(&batch);
        for (number, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| wanted(&***rule).is_some()) {
            let mut out = Emissions::default();
            taken(&mut **rule, &Rows { batch: batch.clone(), seqs: Seqs::Run { first: 0 } }, &mut out);
            for (_, row, _) in listing(&out.rows) {
                let found = concerned.rules.iter().find(|(name, _)| **name == number);
                let has = |set: usize| concerned.subsets[set].iter().any(|found| u64::from(*found) == row);
                assert!(
                    found.is_some_and(|(_, set)| set.is_none_or(has)),
                    "{} misses {batch:?}",
                    comparisons()[number]
                );
            }
        }
    }
}

fn prefilters(text: &str) -> Option<String> {
    let prefilters = wanted(&*rule(text))?;
    Some(prefilters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
}

#[test]
fn conditions_are_indexed() {
    let cases = [
        ("temperature > 80", "temperature from 80 up"),
        ("80 >= temperature", "temperature up to 80"),
        ("count > 3 AND count < 7.5", "count from 3 up"),
        ("count BETWEEN 3 AND 7", "count from 3 to 7"),
        ("device = 'a'", "device = 'a'"),
        (
            "device IN ('a', 'b', 'c', 'd', 'e')",
            "device = 'a' | device = 'b' | device = 'c' | device = 'd' | device = 'e'",
        ),
        ("device = 'a' AND temperature > 80 AND running", "device = 'a' and temperature from 80 up"),
        ("running", "running = true"),
        ("NOT running AND temperature < 2", "running = false and temperature up to 2"),
        ("device = 'a' OR temperature > 80", "device = 'a' | temperature from 80 up"),
        ("device = 'a' AND 10 / count > 2", "device = 'a'"),
        ("10 / count > 2 AND device = 'a'", "device = 'a'"),
        ("ts >= TIMESTAMP '2026-01-01T00:00:00Z'", "ts from 2026-01-01T00:00:00Z up"),
        // What is computed.
        ("upper(device) = 'A'", "upper(device) = 'A'"),
        ("upper(device) = 'A' AND temperature > 80", "temperature from 80 up"),
        ("device = 'a' OR upper(device) = 'A'", "device = 'a' | upper(device) = 'A'"),
        ("abs(temperature) BETWEEN 3 AND 7", "abs(temperature) from 3 to 7"),
        ("abs(temperature) > 3 AND abs(temperature) < 7", "abs(temperature) from 3 to 7"),
        ("10 / count > 2", "10 / count from 2 up"),
        ("length(device) > 2", "character_length(device) from 2 up"),
        ("temperature > count", "temperature > CAST(count AS Float64)"),
        ("device <> 'a'", "device != 'a'"),
        ("NOT (running AND temperature > count)", "running = false | temperature <= CAST(count AS Float64)"),
        ("10 / count > 2 OR sqrt(temperature) > 2", "10 / count > 2 OR sqrt(temperature) > 2"),
        ("device LIKE 'a%'", "device LIKE 'a%'"),
    ];
    for (condition, expected) in cases {
        let text = format!("INSERT INTO lamp SELECT device FROM tank WHERE {condition}");
        assert_eq!(prefilters(&text).as_deref(), Some(expected), "{condition}");
    }
}

#[test]
fn what_can_fail_in_two_places_is_not_indexed() {
    // Which of them fails for a row depends on the order in which the rule looks at them.
    for condition in
        ["10 / count > 2 AND sqrt(temperature) > 2", "sqrt(temperature) > 2 AND 10 / count > 2", "now() > ts"]
    {
        assert_eq!(
            prefilters(&format!("INSERT INTO lamp SELECT device FROM tank WHERE {condition}")).as_deref(),
            None,
            "{condition}"
        );
    }
}

/// Rows in which everything occurs that is odd.
fn odd_rows() -> Vec<Tank> {
    let devices =
        ["a", "b", "", "ä", "it's", "{\"a\": 1}", "[1, [2]]", "{", "\u{10FFFF}", " \t", "ß", "\u{0}"];
    let (most, longest) = (FLOATS.len() * INTS.len(), devices.len());
    let row = |n: usize| Tank {
        ts_ms: 0,
        device: (n % 13 != 12).then(|| devices[n % longest]),
        temperature: (n % 11 != 10).then(|| FLOATS[n % FLOATS.len()]),
        count: (n % 7 != 6).then(|| INTS[n / FLOATS.len() % INTS.len()]),
        running: [None, Some(true), Some(false)][n % 3],
    };
    (0..most * 13).map(row).collect()
}

#[test]
fn what_counts_as_safe_has_a_value_for_every_row() {
    let of_float =
        ["abs", "atan", "cbrt", "ceil", "cos", "degrees", "exp", "floor", "radians", "signum", "sin", "tan"];
    let of_float = of_float.map(|function| format!("{function}(temperature)"));
    let others = [
        "atan2(temperature, CAST(count AS DOUBLE))",
        "-temperature",
        "temperature + count",
        "temperature - count",
        "temperature * count",
        "temperature / count",
        "temperature % count",
        "btrim(device)",
        "length(device)",
        "coalesce(device, 'x')",
        "contains(device, 'a')",
        "ends_with(device, device)",
        "device->'a'",
        "device->>0",
        "lower(device)",
        "ltrim(device)",
        "nullif(count, 2)",
        "reverse(device)",
        "rtrim(device)",
        "starts_with(device, 'a')",
        "upper(device)",
        "device || count",
        "device LIKE '%a_'",
        "TRY_CAST(device AS BIGINT)",
        "CASE WHEN running THEN temperature WHEN count > 2 THEN count END",
    ];
    let rows = odd_rows();
    for safe in of_float.iter().map(String::as_str).chain(others) {
        let mut rule_of_it = rule(&format!("INSERT INTO uplink SELECT {safe} AS x FROM tank"));
        let mut out = Emissions::default();
        taken(&mut *rule_of_it, &Rows { batch: batch(&rows), seqs: Seqs::Run { first: 0 } }, &mut out);
        assert_eq!((out.bad_rows, listing(&out.rows).len()), (0, rows.len()), "{safe}");
        // Beside one that may fail it is known not to.
        let condition = format!("({safe}) IS NOT NULL AND 10 / count > 2");
        let prefilters = prefilters(&format!("INSERT INTO lamp SELECT device FROM tank WHERE {condition}"));
        assert!(prefilters.is_some(), "{condition}");
    }
}

#[test]
fn rules_that_keep_something_see_every_row() {
    let window = "INSERT INTO lamp SELECT max(count) AS most FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' \
        SECOND) WHERE device = 'a' GROUP BY window_start, window_end";
    assert_eq!(prefilters(window), None);
    assert_eq!(
        prefilters(&format!("INSERT INTO lamp SELECT device FROM tank WHERE device = 'a'; {window}")),
        None
    );
    assert_eq!(prefilters("INSERT INTO lamp SELECT device FROM tank"), None);
}

#[test]
fn a_row_that_cannot_match_is_not_bad_wherever_the_condition_stands() {
    let rows = [
        Tank { ts_ms: 0, device: Some("a"), temperature: None, count: Some(0), running: None },
        Tank { ts_ms: 1, device: None, temperature: None, count: Some(0), running: None },
        Tank { ts_ms: 2, device: Some("b"), temperature: None, count: Some(0), running: None },
        Tank { ts_ms: 3, device: Some("a"), temperature: None, count: Some(2), running: None },
    ];
    for condition in ["device = 'a' AND 10 / count > 2", "10 / count > 2 AND device = 'a'"] {
        for rows in [&rows[..], &rows[..2]] {
            let mut rule = rule(&format!("INSERT INTO lamp SELECT count FROM tank WHERE {condition}"));
            let mut out = Emissions::default();
            taken(&mut *rule, &Rows { batch: batch(rows), seqs: Seqs::Run { first: 0 } }, &mut out);
            assert_eq!(out.bad_rows, 1, "{condition}");
        }
    }
}
