//! What rules do with rows, windows, late rows and new versions of themselves.

use crate::bench_rows::{Tank, batch, catalog, compile, feed, listing, rule, rule_of, table, tank};
use tidegate_core::{Place, Rows, Seqs};
use tidegate_rules::{Catalog, CompileError, Emissions, When};

const MEAN: &str = "INSERT INTO cooling_pump SELECT device, TRUE AS run, avg(temperature) AS mean
    FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, device HAVING avg(temperature) > 80";

#[test]
fn a_filter_rule_keeps_the_sequence_numbers_of_its_rows() {
    let mut rule = rule("INSERT INTO lamp SELECT temperature * 2 AS twice FROM tank WHERE temperature > 80");
    let out = feed(&mut *rule, &[tank(0, "a", 79.0), tank(1, "a", 81.0), tank(2, "b", 82.0)], 100, &[]);
    let seqs: Vec<u64> = listing(&out.rows).iter().map(|(_, seq, _)| *seq).collect();
    assert_eq!(seqs, [101, 102]);
    assert_eq!(table(&out.rows, "lamp"), "+-------+\n| twice |\n+-------+\n| 162.0 |\n| 164.0 |\n+-------+");
}

#[test]
fn a_window_closes_with_the_row_that_reaches_its_end() {
    let mut rule = rule(MEAN);
    let out = feed(
        &mut *rule,
        &[tank(1_000, "a", 90.0), tank(9_999, "a", 92.0), tank(10_000, "a", 1.0), tank(25_000, "b", 1.0)],
        5,
        &[],
    );
    let rows = listing(&out.rows);
    assert_eq!(rows.len(), 1, "the second window's mean is below the threshold");
    assert_eq!(rows[0].1, 7);
    assert!(rows[0].2.contains("91.0"), "{}", rows[0].2);
}

#[test]
fn a_late_row_is_counted_and_lateness_lets_it_in() {
    let rows =
        [tank(5_000, "a", 90.0), tank(11_000, "a", 90.0), tank(6_000, "a", 200.0), tank(30_000, "a", 0.0)];
    let mut strict = rule(MEAN);
    let out = feed(&mut *strict, &rows, 0, &[]);
    assert_eq!(out.late, 1);
    assert!(table(&out.rows, "cooling_pump").contains("| 90.0 |"));
    let mut patient = rule(&format!("--! lateness = \"2s\"\n{MEAN}"));
    let out = feed(&mut *patient, &rows, 0, &[]);
    assert_eq!(out.late, 0);
    assert!(table(&out.rows, "cooling_pump").contains("| 145.0 |"));
}

/// Without a battery a clock starts anywhere, and is set when the network comes up.
#[test]
fn a_clock_that_is_set_neither_stalls_windows_nor_counts_a_row_twice() {
    let catalog = Catalog { by_arrival: ["tank".to_owned()].into(), ..catalog() };
    let counts = "INSERT INTO uplink SELECT window_start, device, count(*) AS rows
        FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device";
    let year = 365 * 86_400_000;
    // Ahead by 20 years, back, a second back as a time service does it, and ahead by a year.
    let at = [
        1_000,
        9_000,
        20 * year,
        20 * year + 1_000,
        2_000,
        8_000,
        7_500,
        11_000,
        year + 1_000,
        year + 10_000,
    ];
    let rows: Vec<Tank> = at.iter().map(|ms| tank(*ms, "a", 1.0)).collect();
    let mut expected = None;
    for cuts in [vec![], vec![3], vec![1; 9], vec![4, 1, 2]] {
        let mut rule = rule_of(counts, &catalog);
        let out = feed(&mut *rule, &rows, 100, &cuts);
        let found: Vec<(u64, String)> =
            listing(&out.rows).into_iter().map(|(_, seq, text)| (seq, text)).collect();
        assert_eq!(out.late, 0, "{cuts:?}");
        assert_eq!(
            found.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
            [102, 104, 107, 108, 109],
            "{cuts:?}"
        );
        let counted: Vec<bool> = found
            .iter()
            .zip(["2", "2", "3", "1", "1"])
            .map(|((_, text), n)| text.contains(&format!("| {n} ")))
            .collect();
        assert_eq!(counted, [true; 5], "{found:?}");
        assert_eq!(*expected.get_or_insert(found.clone()), found, "cuts change nothing");
    }
}

#[test]
fn a_new_threshold_keeps_the_open_windows() {
    let mut old = rule(MEAN);
    let before = feed(&mut *old, &[tank(1_000, "a", 70.0), tank(2_000, "b", 60.0)], 0, &[]);
    assert!(before.rows.is_empty());
    let mut new = rule(&MEAN.replace("> 80", "> 65").replace("TRUE AS run", "TRUE AS run, 'x' AS reason"));
    assert_eq!(new.restore(old.seal().unwrap()).unwrap(), Vec::<String>::new());
    let after = feed(&mut *new, &[tank(3_000, "a", 80.0), tank(10_000, "a", 0.0)], 2, &[]);
    let table = table(&after.rows, "cooling_pump");
    assert!(table.contains("| 75.0 |") && !table.contains("| b"), "{table}");
}

#[test]
fn a_new_aggregate_starts_empty_and_says_so() {
    let mut old = rule(MEAN);
    feed(&mut *old, &[tank(1_000, "a", 90.0), tank(1_000, "b", 90.0)], 0, &[]);
    let mut new = rule(&MEAN.replace("AS mean", "AS mean, max(count) AS most"));
    let misfits = new.restore(old.seal().unwrap()).unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("max(count)"), "{misfits:?}");
    let after = feed(&mut *new, &[tank(3_000, "a", 90.0), tank(10_000, "a", 0.0)], 2, &[]);
    let rows = table(&after.rows, "cooling_pump");
    assert!(
        rows.contains("| a      | true | 90.0 | 3000 |") && rows.contains("| b      | true | 90.0 |      |"),
        "{rows}"
    );
}

#[test]
fn another_window_size_drops_the_open_windows_and_says_so() {
    let mut old = rule(MEAN);
    feed(&mut *old, &[tank(1_000, "a", 90.0)], 0, &[]);
    let misfits = rule(&MEAN.replace("'10'", "'5'")).restore(old.seal().unwrap()).unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("TUMBLE(tank, 10000000000ns)"), "{misfits:?}");
}

#[test]
fn a_row_that_cannot_be_evaluated_costs_only_itself() {
    let text = "INSERT INTO lamp SELECT 100 / count AS share FROM tank;
        INSERT INTO uplink SELECT sum(100 / count) AS shares FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' \
        SECOND) GROUP BY window_start, window_end";
    let mut rule = rule(text);
    let mut rows =
        vec![tank(1, "a", 1.0), tank(2, "a", 1.0), tank(0, "a", 1.0), tank(4, "a", 1.0), tank(5, "a", 1.0)];
    rows[2].count = Some(0);
    let mut out = feed(&mut *rule, &rows, 0, &[]);
    rule.on_end(9, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(out.bad_rows, 2, "once for each statement");
    assert!(out.bad_row.as_deref().unwrap().contains("division by zero"), "{:?}", out.bad_row);
    let seqs: Vec<u64> =
        listing(&out.rows).iter().filter(|row| row.0.name() == "lamp").map(|row| row.1).collect();
    assert_eq!(seqs, [0, 1, 3, 4]);
    assert!(table(&out.rows, "uplink").contains("| 195 "), "{}", table(&out.rows, "uplink"));
}

#[test]
fn a_view_is_a_step_that_can_be_windowed() {
    let text = "CREATE VIEW warm AS SELECT ts, device, temperature - 1 AS t FROM tank WHERE temperature > \
        50;
        INSERT INTO hot SELECT w.window_end AS ts, device, avg(t) AS mean
        FROM TUMBLE(warm, DESCRIPTOR(ts), INTERVAL '1' MINUTE) AS w GROUP BY w.window_start, w.window_end, \
        device";
    let mut rule = rule(text);
    let out = feed(
        &mut *rule,
        &[tank(0, "a", 61.0), tank(1, "a", 10.0), tank(2, "a", 81.0), tank(60_000, "a", 10.0)],
        0,
        &[],
    );
    assert_eq!(listing(&out.rows)[0].1, 3, "a row that the filter drops moves time on all the same");
    assert!(
        table(&out.rows, "hot").contains("| 1970-01-01T00:01:00Z | a      | 70.0 |"),
        "{}",
        table(&out.rows, "hot")
    );
}

#[test]
fn flink_spelling_of_the_window_works() {
    let text = "INSERT INTO uplink SELECT window_start, count(*) AS n FROM TABLE(TUMBLE(tank, \
        DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end";
    let mut rule = rule(text);
    let mut out = feed(&mut *rule, &[tank(-1, "a", 1.0), tank(1, "a", 1.0)], 0, &[]);
    rule.on_end(2, When::at(i64::MAX), &mut out).unwrap();
    let rows = table(&out.rows, "uplink");
    assert!(
        rows.contains("| 1969-12-31T23:59:50Z | 1 |") && rows.contains("| 1970-01-01T00:00:00Z | 1 |"),
        "{rows}"
    );
}

#[test]
fn ordinals_count_rows_of_one_number_over_all_statements() {
    let mut rule = rule(
        "INSERT INTO lamp SELECT 1 AS x FROM tank; INSERT INTO uplink SELECT 2 AS x FROM tank WHERE \
        temperature > 5",
    );
    let mut out = Emissions::default();
    let rows = Rows { batch: batch(&[tank(0, "a", 1.0), tank(1, "a", 9.0)]), seqs: Seqs::Run { first: 7 } };
    rule.on_batch("tank", &rows, When::at(0), &mut out).unwrap();
    assert_eq!(Emissions::ordinals(&out.rows), vec![vec![0, 0], vec![1]]);
}

#[test]
fn state_of_an_expression_that_is_used_twice_is_not_taken_for_that_of_another() {
    let text = |factor: i32| {
        format!(
            "INSERT INTO lamp SELECT sum(temperature * {factor}) AS s, max(temperature * {factor}) AS m \
             FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end"
        )
    };
    let mut old = rule(&text(2));
    feed(&mut *old, &[tank(0, "a", 1.0)], 0, &[]);
    let misfits = rule(&text(3)).restore(old.seal().unwrap()).unwrap();
    assert_eq!(misfits.len(), 2, "{misfits:?}");
    assert!(misfits[0].contains("temperature * "), "{misfits:?}");
    let mut old = rule(&text(2));
    feed(&mut *old, &[tank(0, "a", 1.0)], 0, &[]);
    assert_eq!(rule(&text(2)).restore(old.seal().unwrap()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_rule_is_explained_in_its_own_words() {
    let mut text = String::new();
    for statement in [
        "INSERT INTO uplink SELECT t.device, l.high FROM tank t JOIN limits l ON t.device = l.device AND \
        t.temperature > l.high",
        "INSERT INTO uplink SELECT device, count(*) AS n, sum(count) FILTER (WHERE device = 'x') AS s
            FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, \
        device",
        "INSERT INTO uplink SELECT device FROM tank QUALIFY ts - lag(ts) OVER (PARTITION BY device) > \
        INTERVAL '10' SECOND",
        "INSERT INTO lamp SELECT device, hysteresis(temperature, 70, 80) OVER (PARTITION BY device) AS run \
        FROM tank",
    ] {
        text.extend(rule(statement).explain().steps.iter().map(|step| format!("{}\n", step.what)));
    }
    for said in [
        "look up in limits where device = device AND temperature > high",
        "TUMBLE(tank, 10s) BY (device): count(*), sum(count)",
        "> INTERVAL '10' SECOND",
        "lag(ts",
        "hysteresis(tank.temperature,70,80) OVER (PARTITION BY tank.device) AS run",
        "hysteresis(temperature)",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    for theirs in ["Int64", "Float64", "Utf8", "Interval", "ROWS BETWEEN", "["] {
        assert!(!text.contains(theirs), "{theirs} is in\n{text}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_rule() {
    let text = "\u{feff}--! lateness = \"5s\"\nINSERT INTO uplink SELECT ts FROM tank";
    let rule = compile("rule.sql", text, &catalog()).ok().unwrap().rule;
    assert_eq!(rule.explain().time[0], ("lateness", Some("5s".parse().unwrap())));
    let wrong =
        compile("rule.sql", "\u{feff}INSERT INTO uplink SELECT tss FROM tank", &catalog()).err().unwrap();
    let CompileError::Wrong(wrong) = wrong else { panic!("{wrong:?}") };
    // Editors do not count it.
    assert_eq!(wrong[0].place, Some(Place { line: 1, column: 27 }));
}
