//! `MATCH_RECOGNIZE`: published examples, absence, time, state, and what is certain when.

use crate::bench_rows::{Tank, feed, listing, rule, tank};
use arrow::util::pretty::pretty_format_batches;
use tidegate_rules::{Emissions, Rule, When};

/// All rows that a rule has written, a line each, without frames.
fn lines(out: &Emissions) -> Vec<String> {
    let mut lines = Vec::new();
    for emission in &out.rows {
        let table = pretty_format_batches(std::slice::from_ref(&emission.rows.batch)).unwrap().to_string();
        let rows = table.lines().skip(3).filter(|line| line.starts_with('|'));
        lines.extend(
            rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")),
        );
    }
    lines
}

fn seqs(out: &Emissions) -> Vec<u64> {
    listing(&out.rows).iter().map(|(_, seq, _)| *seq).collect()
}

/// Rows of device `a`, one a second, with these temperatures.
fn series(temperatures: &[f64]) -> Vec<Tank> {
    (0..).zip(temperatures).map(|(second, temperature)| tank(second * 1_000, "a", *temperature)).collect()
}

/// Runs a rule over rows and to the end of the input.
fn whole(text: &str, rows: &[Tank]) -> Emissions {
    let mut rule = rule(text);
    let mut out = feed(&mut *rule, rows, 0, &[]);
    rule.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!((out.late, out.bad_rows), (0, 0), "{:?}", out.bad_row);
    out
}

/// Oracle Database Data Warehousing Guide, "SQL for Pattern Matching", example 20-1: prices of ACME from the
/// 1st to the 20th of April 2011.
const ACME: [f64; 20] = [
    12.0, 17.0, 19.0, 21.0, 25.0, 12.0, 15.0, 20.0, 24.0, 25.0, 19.0, 15.0, 25.0, 25.0, 14.0, 12.0, 14.0,
    24.0, 23.0, 22.0,
];

#[test]
fn v_shapes_are_found_as_in_oracles_example() {
    let out = whole(
        "INSERT INTO uplink SELECT device, start_day, bottom_day, end_day FROM tank MATCH_RECOGNIZE (
            PARTITION BY device ORDER BY ts
            MEASURES date_part('second', STRT.ts) + 1 AS start_day, date_part('second', LAST(DOWN.ts)) + 1 \
        AS bottom_day,
                     date_part('second', LAST(UP.ts)) + 1 AS end_day
            ONE ROW PER MATCH
            AFTER MATCH SKIP TO LAST UP
            PATTERN (STRT DOWN+ UP+)
            DEFINE DOWN AS DOWN.temperature < PREV(DOWN.temperature), UP AS UP.temperature > \
        PREV(UP.temperature)
        ) AS m",
        &series(&ACME),
    );
    assert_eq!(lines(&out), ["a 5 6 10", "a 10 12 13", "a 14 16 18"]);
    // A match is certain with the first row that does not rise any more.
    assert_eq!(seqs(&out), [10, 13, 18]);
}

/// The same guide, example 20-3: all rows of a match, running and final values.
#[test]
fn all_rows_of_a_match_have_running_and_final_values() {
    let out = whole(
        "INSERT INTO uplink SELECT match_num, var_match, up_days, total_days, cnt_days, price_dif, \
        temperature FROM tank MATCH_RECOGNIZE (
            PARTITION BY device ORDER BY ts
            MEASURES MATCH_NUMBER() AS match_num, CLASSIFIER() AS var_match, FINAL COUNT(UP.ts) AS up_days, \
        FINAL COUNT(ts) AS total_days,
                     RUNNING COUNT(ts) AS cnt_days, temperature - STRT.temperature AS price_dif
            ALL ROWS PER MATCH
            AFTER MATCH SKIP TO LAST UP
            PATTERN (STRT DOWN+ UP+)
            DEFINE DOWN AS DOWN.temperature < PREV(DOWN.temperature), UP AS UP.temperature > \
        PREV(UP.temperature)
        )",
        &series(&ACME),
    );
    let expected = [
        "1 strt 4 6 1 0.0 25.0",
        "1 down 4 6 2 -13.0 12.0",
        "1 up 4 6 3 -10.0 15.0",
        "1 up 4 6 4 -5.0 20.0",
        "1 up 4 6 5 -1.0 24.0",
        "1 up 4 6 6 0.0 25.0",
        "2 strt 1 4 1 0.0 25.0",
        "2 down 1 4 2 -6.0 19.0",
        "2 down 1 4 3 -10.0 15.0",
        "2 up 1 4 4 0.0 25.0",
        "3 strt 2 5 1 0.0 25.0",
        "3 down 2 5 2 -11.0 14.0",
        "3 down 2 5 3 -13.0 12.0",
        "3 up 2 5 4 -11.0 14.0",
        "3 up 2 5 5 -1.0 24.0",
    ];
    assert_eq!(lines(&out), expected);
}

/// IEEE 754, section 5.11: the two zeros compare equal. PostgreSQL, "Floating-Point Types": so do all NaN.
#[test]
fn a_partition_of_floats_is_of_all_that_are_equal() {
    let other_nan = f64::from_bits(f64::NAN.to_bits() | 1 << 63);
    for (first, second) in [(0.0, -0.0), (f64::NAN, other_nan)] {
        let out = whole(
            "INSERT INTO uplink SELECT n FROM tank MATCH_RECOGNIZE (PARTITION BY temperature ORDER BY ts
             MEASURES COUNT(*) AS n PATTERN (A B) DEFINE A AS TRUE, B AS TRUE)",
            &series(&[first, second]),
        );
        assert_eq!(lines(&out), ["2"]);
    }
}

/// Apache Flink, "Pattern Recognition", the first example.
#[test]
fn a_falling_price_is_found_as_in_flinks_example() {
    let out = whole(
        "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (
            PARTITION BY device ORDER BY ts
            MEASURES START_ROW.ts AS start_tstamp, LAST(PRICE_DOWN.ts) AS bottom_tstamp, LAST(PRICE_UP.ts) \
        AS end_tstamp
            ONE ROW PER MATCH
            AFTER MATCH SKIP TO LAST PRICE_UP
            PATTERN (START_ROW PRICE_DOWN+ PRICE_UP)
            DEFINE
                PRICE_DOWN AS
                    (LAST(PRICE_DOWN.temperature, 1) IS NULL AND PRICE_DOWN.temperature < \
        START_ROW.temperature) OR
                    PRICE_DOWN.temperature < LAST(PRICE_DOWN.temperature, 1),
                PRICE_UP AS PRICE_UP.temperature > LAST(PRICE_DOWN.temperature, 1)
        ) MR",
        &series(&[12.0, 17.0, 19.0, 21.0, 25.0, 18.0, 15.0, 14.0, 24.0, 25.0, 19.0]),
    );
    assert_eq!(lines(&out), ["a 1970-01-01T00:00:04Z 1970-01-01T00:00:07Z 1970-01-01T00:00:08Z"]);
    assert_eq!(seqs(&out), [8]);
}

/// The same page, on aggregates: the longest period in which the mean stays below 15.
#[test]
fn the_mean_of_a_match_so_far_can_be_a_condition_as_in_flinks_example() {
    let out = whole(
        "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (
            PARTITION BY device ORDER BY ts
            MEASURES FIRST(A.ts) AS start_tstamp, LAST(A.ts) AS end_tstamp, AVG(A.temperature) AS avg_price
            ONE ROW PER MATCH
            AFTER MATCH SKIP PAST LAST ROW
            PATTERN (A+ B)
            DEFINE A AS AVG(A.temperature) < 15
        ) MR",
        &series(&[12.0, 17.0, 13.0, 16.0, 25.0, 2.0, 4.0, 10.0, 15.0, 25.0, 25.0, 30.0]),
    );
    assert_eq!(
        lines(&out),
        [
            "a 1970-01-01T00:00:00Z 1970-01-01T00:00:03Z 14.5",
            "a 1970-01-01T00:00:05Z 1970-01-01T00:00:10Z 13.5"
        ]
    );
}

/// The same page, on time: a drop of 10 within an hour, here within 10 s.
#[test]
fn within_bounds_the_time_between_first_and_last_row() {
    let text = |within: &str| {
        format!(
            "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts
                MEASURES C.ts AS dropped, A.temperature - C.temperature AS diff
                PATTERN (A B* C) WITHIN INTERVAL '{within}' SECOND
                DEFINE B AS B.temperature > A.temperature - 10, C AS C.temperature < A.temperature - 10) AS m"
        )
    };
    let rows = [
        tank(0, "a", 20.0),
        tank(4_000, "a", 17.0),
        tank(8_000, "a", 13.0),
        tank(10_000, "a", 5.0),
        tank(20_000, "a", 4.0),
    ];
    assert_eq!(lines(&whole(&text("11"), &rows)), ["a 1970-01-01T00:00:10Z 15.0"]);
    // Exactly as much later is too late: spans are without their end, as windows are. From 17.0 on it is 6 s.
    assert_eq!(lines(&whole(&text("10"), &rows)), ["a 1970-01-01T00:00:10Z 12.0"]);
    assert_eq!(lines(&whole(&text("6"), &rows)), [] as [&str; 0]);
}

const VALVE: &str = "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (
    PARTITION BY device ORDER BY ts
    MEASURES LAST(RISE.ts) AS ts, LAST(RISE.temperature) AS pressure
    PATTERN (LOW RISE{3}) WITHIN INTERVAL '10' SECOND
    NOT FOLLOWED BY CLOSED WITHIN INTERVAL '5' SECOND
    DEFINE RISE AS temperature > PREV(temperature), CLOSED AS NOT running)";

fn valve(ts_ms: i64, pressure: f64, open: bool) -> Tank {
    Tank { running: Some(open), ..tank(ts_ms, "a", pressure) }
}

#[test]
fn pressure_rises_three_times_and_then_the_valve_does_not_close() {
    let rises =
        [valve(0, 1.0, true), valve(1_000, 2.0, true), valve(2_000, 3.0, true), valve(3_000, 4.0, true)];
    let with = |more: &[Tank]| {
        let mut rule = rule(VALVE);
        let rows = [&rises, more].concat();
        let out = feed(&mut *rule, &rows, 100, &[1, 1, 1, 1, 1]);
        (lines(&out), seqs(&out))
    };
    let alarm = vec!["a 1970-01-01T00:00:03Z 4.0".to_owned()];
    assert_eq!(with(&[valve(7_999, 4.0, true)]), (vec![], vec![]), "it can still close");
    assert_eq!(with(&[valve(7_999, 4.0, false), valve(9_000, 1.0, true)]), (vec![], vec![]), "it has closed");
    assert_eq!(with(&[valve(8_000, 4.0, false)]), (alarm.clone(), vec![104]), "it closes, but too late");
    assert_eq!(with(&[valve(4_000, 3.0, true), valve(30_000, 4.0, true)]), (alarm, vec![105]));
    let slow = [
        valve(0, 1.0, true),
        valve(4_000, 2.0, true),
        valve(8_000, 3.0, true),
        valve(10_000, 4.0, true),
        valve(60_000, 1.0, true),
    ];
    assert_eq!(lines(&whole(VALVE, &slow)), [] as [&str; 0], "the rises take too long");
}

#[test]
fn absence_is_certain_when_time_passes_though_no_row_comes() {
    let mut rule = rule(&format!("--! idle_after = \"1s\"\n{VALVE}"));
    let rises =
        [valve(0, 1.0, true), valve(1_000, 2.0, true), valve(2_000, 3.0, true), valve(3_000, 4.0, true)];
    let mut out = feed(&mut *rule, &rises, 100, &[]);
    assert_eq!(lines(&out), [] as [&str; 0]);
    let wakes = rule.wakes_at().unwrap();
    rule.on_tick(104, When::at(wakes - 1), &mut out).unwrap();
    assert_eq!(lines(&out), [] as [&str; 0]);
    rule.on_tick(105, When::at(wakes), &mut out).unwrap();
    assert_eq!((lines(&out), seqs(&out)), (vec!["a 1970-01-01T00:00:03Z 4.0".to_owned()], vec![105]));
    assert_eq!(rule.wakes_at(), None, "the search goes on behind the last row");
}

#[test]
fn the_row_that_must_not_come_can_be_compared_to_the_match() {
    let text = "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts
        MEASURES UP.temperature AS top PATTERN (UP) NOT FOLLOWED BY FALLS WITHIN INTERVAL '3' SECOND
        DEFINE UP AS temperature > 10, FALLS AS FALLS.temperature < UP.temperature - 5)";
    assert_eq!(lines(&whole(text, &series(&[12.0, 8.0, 30.0, 26.0, 24.0, 9.0]))), ["a 12.0"]);
}

#[test]
fn reluctant_quantifiers_alternation_permute_and_subsets() {
    let matches = |pattern: &str| {
        let conditions =
            [("A", "1"), ("B", "2"), ("C", "3")].into_iter().filter(|(name, _)| pattern.contains(name));
        let define = conditions
            .map(|(name, value)| format!("{name} AS temperature = {value}"))
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!(
            "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES COUNT(*) AS n, \
            CLASSIFIER() AS last, SUM(S.count) AS s
                PATTERN ({pattern}) SUBSET S = (A, B) DEFINE {define})"
        );
        lines(&whole(&text, &series(&[1.0, 1.0, 2.0, 1.0, 2.0, 2.0, 3.0])))
    };
    assert_eq!(matches("A B C"), [] as [&str; 0]);
    assert_eq!(matches("(A | B)+ C"), ["7 c 15000"]);
    assert_eq!(
        matches("(A | B)+? C?"),
        ["1 a 0", "1 a 1000", "1 b 2000", "1 a 3000", "1 b 4000", "2 c 5000"]
    );
    assert_eq!(matches("A{2} B | B{2} A | C | A"), ["3 b 3000", "1 a 3000", "1 c "]);
    assert_eq!(matches("PERMUTE(A, B)"), ["2 b 3000", "2 b 7000"]);
    assert_eq!(matches("A{2,} B?"), ["3 b 3000"]);
    assert_eq!(matches("{- A -} B+"), ["2 b 3000", "3 b 12000"]);
    // D is not defined, and so is always true.
    assert_eq!(matches("A B D"), ["3 d 3000"]);
}

#[test]
fn hidden_rows_are_not_written() {
    let text = "INSERT INTO uplink SELECT count, label FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES \
        CLASSIFIER() AS label ALL ROWS PER MATCH
        PATTERN (A {- B -} A) DEFINE A AS temperature = 1, B AS temperature = 2)";
    assert_eq!(lines(&whole(text, &series(&[1.0, 2.0, 1.0, 2.0, 1.0]))), ["0 a", "2000 a"]);
}

#[test]
fn the_search_goes_on_where_skip_says() {
    let matches = |skip: &str| {
        let text = format!(
            "INSERT INTO uplink SELECT f, l FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES FIRST(count) AS \
            f, LAST(count) AS l
                AFTER MATCH SKIP {skip} PATTERN (A B+ C) DEFINE A AS temperature = 1, B AS temperature <= \
            2, C AS temperature = 3)"
        );
        let mut rule = rule(&text);
        let rows = series(&[1.0, 1.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        let mut out = feed(&mut *rule, &rows, 0, &[]);
        rule.on_end(9, When::at(i64::MAX), &mut out).unwrap();
        (lines(&out), out.bad_rows)
    };
    let (last, all) = (["0 4000", "5000 7000"], ["0 4000", "1000 4000", "2000 4000", "5000 7000"]);
    assert_eq!(matches("PAST LAST ROW"), (last.map(str::to_owned).to_vec(), 0));
    assert_eq!(matches("TO NEXT ROW"), (all.map(str::to_owned).to_vec(), 0));
    assert_eq!(matches("TO FIRST B"), (all.map(str::to_owned).to_vec(), 0));
    assert_eq!(matches("TO LAST B"), (last.map(str::to_owned).to_vec(), 0));
    assert_eq!(matches("TO B"), (last.map(str::to_owned).to_vec(), 0));
    // The last A is the first row of the match: that would be the same match for ever.
    assert_eq!(matches("TO LAST A"), (all.map(str::to_owned).to_vec(), 4));
}

#[test]
fn rows_and_values_at_the_edges() {
    let text = "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts
        MEASURES COUNT(*) AS n, COUNT(temperature) AS known, MIN(count) AS low, FIRST(temperature, 1) AS \
        second, PREV(FIRST(count), 1) AS before
        PATTERN (A B) DEFINE A AS count < 0 OR temperature IS NULL, B AS temperature > PREV(temperature) OR \
        count > PREV(count))";
    assert_eq!(lines(&whole(text, &[])), [] as [&str; 0]);
    assert_eq!(lines(&whole(text, &[tank(0, "a", 1.0)])), [] as [&str; 0]);
    let row = |ts_ms, device, temperature, count| Tank {
        ts_ms,
        device,
        temperature,
        count: Some(count),
        running: None,
    };
    let rows = [
        row(-9_000_000_000, Some("a"), Some(1.0), i64::MAX),
        row(-8_000_000_000, Some("a"), Some(f64::NAN), i64::MIN),
        row(-8_000_000_000, Some("a"), None, i64::MAX),
        row(-1, None, None, 5),
        row(0, None, Some(2.0), 6),
        row(0, Some("a"), Some(1.0), 7),
        row(0, Some("a"), Some(f64::INFINITY), 8),
    ];
    // A comparison with null is not true; the null device is a partition like any other; rows of one time are
    // in order of arrival.
    assert_eq!(
        lines(&whole(text, &rows)),
        ["a 2 1 -9223372036854775808  9223372036854775807", " 2 1 5 2.0 "]
    );
}

#[test]
fn a_condition_that_cannot_be_evaluated_is_not_true_and_counts_once() {
    let text = "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES COUNT(*) AS n
        PATTERN (A B+ A) DEFINE A AS 10 / count > 2, B AS 10 / (count - FIRST(A.count)) < 9)";
    let rows: Vec<Tank> = (0..)
        .zip([0, 1, 4, 1, 3, 2])
        .map(|(second, n)| Tank { count: Some(n), ..tank(second * 1_000, "a", 0.0) })
        .collect();
    let mut whole_rule = rule(text);
    let out = feed(&mut *whole_rule, &rows, 0, &[]);
    // Row 0 divides by zero for A; row 3 for B, where A began with 1.
    assert_eq!((lines(&out), out.bad_rows), (vec!["3".to_owned()], 2), "{:?}", out.bad_row);
}

#[test]
fn what_grows_without_end_is_cut_off_and_counted() {
    let mut long = rule(
        "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES COUNT(*) AS n PATTERN \
        (A+ B) DEFINE B AS temperature > 1)",
    );
    let rows: Vec<Tank> = (0..10_050).map(|at| tank(at, "a", 0.0)).collect();
    let out = feed(&mut *long, &rows, 0, &[]);
    assert!(out.bad_row.unwrap().contains("use WITHIN"));
    let kept: usize = long.explain().steps.iter().map(|step| step.entries).sum();
    assert_eq!((kept, out.bad_rows), (50, 1), "the search goes on behind what is too long");
}

#[test]
fn keys_that_match_nothing_are_forgotten() {
    let mut rule = rule(
        "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY count ORDER BY ts PATTERN (A \
        B) DEFINE A AS temperature > 1)",
    );
    let held = |rule: &dyn Rule| rule.explain().steps.iter().map(|step| step.bytes).sum::<usize>();
    let mut most = 0;
    for at in 0..20_i64 {
        let rows: Vec<Tank> = (0..1_000).map(|row| tank(at * 1_000 + row, "a", 0.0)).collect();
        feed(&mut *rule, &rows, 0, &[]);
        most = most.max(held(&*rule));
    }
    assert!(most < 2_000_000, "{most}");
}

#[test]
fn another_pattern_starts_without_rows_and_says_so_and_other_measures_do_not_matter() {
    let text = |pattern: &str, measures: &str| {
        format!(
            "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES {measures} PATTERN \
            ({pattern}) DEFINE A AS temperature > 1)"
        )
    };
    let mut old = rule(&text("A A A", "COUNT(*) AS n"));
    feed(&mut *old, &series(&[2.0, 3.0]), 0, &[]);
    let state = old.seal().unwrap();
    let mut other = rule(&text("A A", "COUNT(*) AS n"));
    let misfits = other.restore(state.clone()).unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("does not fit and is dropped"), "{misfits:?}");
    let mut same = rule(&text("A A A", "SUM(temperature) AS s"));
    assert_eq!(same.restore(state).unwrap(), [] as [String; 0]);
    let out = feed(&mut *same, &[tank(2_000, "a", 4.0)], 2, &[]);
    assert_eq!(lines(&out), ["9.0"]);
}

#[test]
fn a_window_over_matches_waits_as_long_as_a_match_may_take() {
    let text = "CREATE VIEW rises AS SELECT device, ts FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER \
        BY ts MEASURES FIRST(ts) AS ts
            PATTERN (A B) WITHIN INTERVAL '5' SECOND DEFINE B AS temperature > PREV(temperature));
        INSERT INTO uplink SELECT window_start, count(*) AS n FROM TUMBLE(rises, DESCRIPTOR(ts), INTERVAL \
        '10' SECOND)
        GROUP BY window_start, window_end";
    let rows = [
        tank(1_000, "a", 1.0),
        tank(2_000, "a", 2.0),
        tank(9_000, "a", 1.0),
        tank(13_000, "a", 2.0),
        tank(14_999, "a", 1.0),
        tank(15_000, "a", 1.0),
    ];
    let out = feed(&mut *rule(text), &rows, 0, &[]);
    assert_eq!((lines(&out), out.late), (vec!["1970-01-01T00:00:00Z 2".to_owned()], 0));
    assert_eq!(seqs(&out), [5]);
}

#[test]
fn a_condition_can_bound_the_time_of_some_rows_only() {
    let text = "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts
        MEASURES COUNT(rise.*) AS rises, LAST(rise.ts) - FIRST(rise.ts) < INTERVAL '2' SECOND AS fast, \
        last_row.temperature AS after
        PATTERN (rise{3} wait* last_row)
        DEFINE rise AS temperature > PREV(temperature) AND ts < FIRST(rise.ts) + INTERVAL '4' SECOND,
            wait AS temperature = LAST(rise.temperature), last_row AS temperature < rise.temperature)";
    assert_eq!(
        lines(&whole(text, &series(&[0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 1.0]))),
        ["a 3 false 1.0"]
    );
    let slow: Vec<Tank> =
        [0.0, 1.0, 2.0, 3.0, 1.0].into_iter().zip(0..).map(|(t, at)| tank(at * 2_000, "a", t)).collect();
    assert_eq!(lines(&whole(text, &slow)), [] as [&str; 0]);
}

#[test]
fn every_aggregate_works_and_types_fit() {
    let text = "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts
        MEASURES COUNT(DISTINCT A.temperature) AS kinds, SUM(A.count) FILTER (WHERE A.temperature > 1) AS \
        some, array_agg(A.temperature) AS list,
            median(temperature) AS middle, CASE WHEN COUNT(*) > 9 THEN 1 ELSE 2.5 END AS mixed, \
        stddev(A.count) AS spread,
            MAX(A.temperature) - MIN(A.temperature) AS range, COUNT(B.temperature) AS none, \
        MAX(B.temperature) AS no_value
        PATTERN (A+ B) DEFINE A AS temperature > 0, B AS temperature IS NULL OR temperature = 0)";
    let mut rows = series(&[1.0, 2.0, 2.0, 5.0, 0.0]);
    rows[4].temperature = None;
    assert_eq!(lines(&whole(text, &rows)), ["3 6000 [1.0, 2.0, 2.0, 5.0] 2.0 2.5 1290.9944487358057 4.0 0 "]);
}

#[test]
fn what_a_pattern_looks_for_is_shown() {
    let rule = rule(VALVE);
    let what: Vec<String> = rule.explain().steps.into_iter().map(|step| step.what).collect();
    assert!(
        what.contains(
            &"match rows device: PATTERN (low rise{3}) WITHIN INTERVAL '10' SECOND NOT FOLLOWED BY CLOSED \
                WITHIN INTERVAL '5' SECOND DEFINE RISE AS temperature > PREV(temperature), CLOSED AS NOT \
                running"
                .to_owned()
        ),
        "{what:?}"
    );
}

/// The parser has no limit of its own for these.
#[test]
fn patterns_too_large_for_the_parser_are_refused() {
    for pattern in [
        "(".repeat(100_000),
        "A | ".repeat(100_000),
        "A".to_owned() + "+".repeat(100_000).as_str(),
        "A ".repeat(100_000),
    ] {
        for end in [") DEFINE A AS TRUE)", ""] {
            let text = format!(
                "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES ts AS ts \
                PATTERN ({pattern}{end}"
            );
            assert!(crate::bench_rows::compile("large.sql", &text, &crate::bench_rows::catalog()).is_err());
        }
    }
}

#[test]
fn a_rule_that_may_keep_little_gives_up_the_oldest_matches() {
    let text = |full: &str| {
        format!(
            "--! max_state = \"256KiB\"\n--! when_state_full = \"{full}\"\nINSERT INTO uplink SELECT * FROM \
            tank MATCH_RECOGNIZE (
                PARTITION BY count ORDER BY ts MEASURES COUNT(*) AS n PATTERN (A A) DEFINE A AS temperature \
            = 1)"
        )
    };
    let begun: Vec<Tank> = (0..3_000).map(|key| tank(key, "a", 1.0)).collect();
    let completed: Vec<Tank> = (0..3_000).map(|key| Tank { ts_ms: 3_000, ..tank(key, "a", 1.0) }).collect();
    let mut forgets = rule(&text("forget"));
    let out = feed(&mut *forgets, &begun, 0, &[500; 6]);
    let late = feed(&mut *forgets, &completed[2_990..], 3_000, &[]);
    assert!(out.forgotten > 100 && out.state_bytes <= 256 << 10, "{} {}", out.forgotten, out.state_bytes);
    assert_eq!(lines(&late).len(), 10, "the newest are still there");
}

#[test]
fn matches_that_wait_outlive_the_keys_that_are_forgotten() {
    let mut rule = rule(
        "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY count ORDER BY ts MEASURES \
        A.temperature AS t PATTERN (A)
            NOT FOLLOWED BY B WITHIN INTERVAL '1' HOUR DEFINE A AS temperature > 1, B AS temperature < 1)",
    );
    // Every hundredth key has something to wait for.
    let row = |key: i64| tank(key, "a", if key % 100 == 0 { 2.0 } else { 1.0 });
    let rows: Vec<Tank> = (0..5_000).map(row).collect();
    let mut out = feed(&mut *rule, &rows, 0, &[700; 6]);
    assert_eq!(rule.explain().steps.iter().map(|step| step.entries).sum::<usize>(), 50);
    let comes = Tank { ts_ms: 5_000, ..tank(300, "a", 0.0) };
    out.rows.extend(feed(&mut *rule, &[comes, tank(3_700_000, "a", 1.0)], 5_000, &[]).rows);
    let keys: Vec<String> =
        (0..50).map(|key| key * 100).filter(|key| *key != 300).map(|key| format!("{key} 2.0")).collect();
    assert_eq!(lines(&out), keys, "those that began first are written first");
}
