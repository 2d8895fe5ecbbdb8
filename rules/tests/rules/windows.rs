//! Windows at their edges: what is in which, when they close, and what options change. Each expected table is
//! computed by hand from the definition.

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};

use crate::bench_rows::{Tank, batch, catalog, feed, listing, rule, rule_of, table, tank};
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Emissions, Rule, Target, When};

/// (sequence number, cells) of each row for `target`.
fn cells(out: &Emissions, target: &str) -> Vec<(u64, String)> {
    let rows = listing(&out.rows).into_iter().filter(|(of, _, _)| of.name() == target);
    let cells = |text: String| {
        let line = text.lines().nth(3).unwrap_or_default().trim_matches('|').to_owned();
        line.split('|')
            .map(|cell| cell.trim().trim_start_matches("1970-01-01T00:").to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    rows.map(|(_, seq, text)| (seq, cells(text))).collect()
}

fn fed(text: &str, rows: &[Tank]) -> (Box<dyn Rule>, Emissions) {
    let mut rule = rule(text);
    let out = feed(&mut *rule, rows, 0, &[]);
    (rule, out)
}

/// What `text` writes to the uplink for rows of device `a` at these milliseconds, with their index as
/// temperature; then the input ends.
fn written(text: &str, times: &[i64]) -> Vec<(u64, String)> {
    let rows: Vec<Tank> =
        times.iter().zip(0_i32..).map(|(ms, index)| tank(*ms, "a", f64::from(index))).collect();
    let (mut rule, mut out) = fed(&format!("INSERT INTO uplink {text}"), &rows);
    rule.on_end(99, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(out.bad_rows, 0, "{:?}", out.bad_row);
    cells(&out, "uplink")
}

fn seen(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(seq, text)| (*seq, (*text).to_owned())).collect()
}

const COUNT: &str = "SELECT window_start, window_end, count(*) AS n, sum(temperature) AS s FROM {} GROUP BY \
    window_start, window_end";

fn count(window: &str, times: &[i64]) -> Vec<(u64, String)> {
    written(&COUNT.replace("{}", window), times)
}

#[test]
fn a_hop_closes_each_slide_and_skips_windows_without_rows() {
    let hop = "HOP(tank, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '4' SECOND)";
    let expected = [
        (1, "00:00Z 00:04Z 1 0.0"),
        // The row at 4 s closes [0, 4) and is in [2, 6) and [4, 8).
        (2, "00:02Z 00:06Z 1 1.0"),
        (2, "00:04Z 00:08Z 1 1.0"),
        (99, "00:18Z 00:22Z 1 2.0"),
        (99, "00:20Z 00:24Z 1 2.0"),
    ];
    assert_eq!(count(hop, &[1_000, 4_000, 20_000]), {
        let mut all = seen(&expected);
        all.insert(0, (1, "1969-12-31T23:59:58Z 00:02Z 1 0.0".to_owned()));
        // [-2, 2) and [0, 4) close with the row at 4 s.
        all
    });
}

#[test]
fn a_slide_longer_than_the_window_leaves_rows_out_without_calling_them_late() {
    let (mut rule, mut out) = fed(
        &format!(
            "INSERT INTO uplink {}",
            COUNT.replace("{}", "HOP(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '3' SECOND)")
        ),
        &[tank(2_999, "a", 1.0), tank(3_000, "a", 2.0), tank(9_999, "a", 4.0), tank(10_000, "a", 8.0)],
    );
    rule.on_end(99, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(cells(&out, "uplink"), seen(&[(1, "00:00Z 00:03Z 1 1.0"), (99, "00:10Z 00:13Z 1 8.0")]));
    assert_eq!(out.late, 0);
}

#[test]
fn a_row_can_be_too_late_for_one_window_and_in_time_for_another() {
    let text = format!(
        "INSERT INTO uplink {}",
        COUNT.replace("{}", "HOP(tank, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '4' SECOND)")
    );
    let rows = [
        tank(2_500, "a", 1.0),
        tank(4_100, "a", 2.0),
        tank(2_600, "a", 4.0),
        tank(8_000, "a", 8.0),
        tank(3_000, "a", 16.0),
    ];
    for cuts in [vec![], vec![1; 4], vec![2, 2]] {
        let mut rule = rule(&text);
        let out = feed(&mut *rule, &rows, 0, &cuts);
        // The third row comes when [0, 4) has closed, but not [2, 6). For the last, both have.
        let expected = [(1, "00:00Z 00:04Z 1 1.0"), (3, "00:02Z 00:06Z 3 7.0"), (3, "00:04Z 00:08Z 1 2.0")];
        assert_eq!((cells(&out, "uplink"), out.late), (seen(&expected), 1), "{cuts:?}");
    }
}

#[test]
fn cumulate_grows_step_by_step_and_starts_anew() {
    let cumulate = "CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '3' SECOND)";
    let expected = [
        (1, "00:00Z 00:01Z 1 0.0"),
        (2, "00:00Z 00:02Z 2 1.0"),
        (2, "00:00Z 00:03Z 2 1.0"),
        (99, "00:03Z 00:05Z 1 2.0"),
        (99, "00:03Z 00:06Z 1 2.0"),
    ];
    assert_eq!(count(cumulate, &[999, 1_000, 4_000]), seen(&expected));
}

#[test]
fn an_offset_moves_the_bounds() {
    let tumble = "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '3' SECOND)";
    assert_eq!(
        count(tumble, &[3_000, 12_999, 13_000]),
        seen(&[(2, "00:03Z 00:13Z 2 1.0"), (99, "00:13Z 00:23Z 1 2.0")])
    );
}

#[test]
fn a_session_ends_when_the_gap_is_over() {
    let session = "SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '2' SECOND)";
    // A row at the very end begins the next session; one a millisecond before is still in it.
    let expected = [(1, "00:01Z 00:03Z 1 0.0"), (99, "00:03Z 00:06.999Z 2 3.0")];
    assert_eq!(count(session, &[1_000, 3_000, 4_999]), seen(&expected));
    assert_eq!(count(session, &[]), []);
    assert_eq!(count(session, &[-1_500]), seen(&[(99, "1969-12-31T23:59:58.500Z 00:00.500Z 1 0.0")]));
}

#[test]
fn a_row_between_two_sessions_makes_them_one() {
    let text = "--! lateness = \"10s\"\nINSERT INTO uplink SELECT window_start, window_end, \
        array_agg(temperature) AS t
        FROM SESSION(tank, DESCRIPTOR(ts), INTERVAL '2' SECOND) GROUP BY window_start, window_end";
    let (mut rule, mut out) = fed(
        text,
        &[tank(5_000, "a", 1.0), tank(1_000, "b", 2.0), tank(3_500, "c", 3.0), tank(2_500, "d", 4.0)],
    );
    rule.on_end(9, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(cells(&out, "uplink"), seen(&[(9, "00:01Z 00:07Z [1.0, 2.0, 3.0, 4.0]")]));
}

#[test]
fn sessions_of_a_silent_device_close_while_others_talk() {
    let text = "INSERT INTO uplink SELECT device, window_end, count(*) AS n
        FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '2' SECOND) GROUP BY window_start, \
        window_end, device";
    let rows = [
        tank(1_000, "a", 1.0),
        tank(1_500, "b", 1.0),
        tank(2_500, "b", 1.0),
        tank(3_500, "b", 1.0),
        tank(900, "a", 1.0),
    ];
    let (_, out) = fed(text, &rows);
    assert_eq!(
        (cells(&out, "uplink"), out.late),
        (seen(&[(3, "a 00:03Z 1")]), 1),
        "the last row's own session would have ended at 2.9 s"
    );
}

#[test]
fn a_count_window_takes_rows_as_they_come() {
    let rows = [5_000, 1_000, 2_000, 7_000, 3_000];
    assert_eq!(
        count("COUNT_WINDOW(tank, 2)", &rows),
        seen(&[(1, "00:01Z 00:05Z 2 1.0"), (3, "00:02Z 00:07Z 2 5.0")])
    );
    let sliding = count("COUNT_WINDOW(tank PARTITION BY device, 3, 1)", &rows);
    assert_eq!(
        sliding,
        seen(&[(2, "00:01Z 00:05Z 3 3.0"), (3, "00:01Z 00:07Z 3 6.0"), (4, "00:02Z 00:07Z 3 9.0")])
    );
    assert_eq!(count("COUNT_WINDOW(tank, 1)", &[5]).len(), 1);
}

#[test]
fn a_state_window_lasts_from_the_row_that_opens_it_to_the_row_that_closes_it() {
    let state = "STATE_WINDOW(tank, temperature IN (1, 5), temperature IN (3, 5))";
    // Row 5 opens and closes; what is open at the end is not complete.
    let expected = [(3, "00:01Z 00:03Z 3 6.0"), (5, "00:05Z 00:05Z 1 5.0")];
    assert_eq!(count(state, &[0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000]), seen(&expected));
    assert_eq!(count("STATE_WINDOW(tank, NULL, TRUE)", &[0, 1]), []);
}

#[test]
fn rows_without_an_aggregate_get_the_bounds_of_their_windows() {
    let hop = "SELECT temperature AS t, window_end FROM HOP(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, \
        INTERVAL '2' SECOND)";
    assert_eq!(
        written(hop, &[0, 500]),
        seen(&[(0, "0.0 00:01Z"), (0, "0.0 00:02Z"), (1, "1.0 00:01Z"), (1, "1.0 00:02Z")])
    );
    let session =
        "SELECT temperature AS t, window_end FROM SESSION(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND)";
    assert_eq!(
        written(session, &[0, 500, 2_000]),
        seen(&[(2, "0.0 00:01.500Z"), (2, "1.0 00:01.500Z"), (99, "2.0 00:03Z")])
    );
    assert_eq!(
        written("SELECT temperature AS t FROM COUNT_WINDOW(tank, 2)", &[0, 0, 0]),
        seen(&[(1, "0.0"), (1, "1.0")])
    );
}

#[test]
fn windows_stand_over_windows() {
    let text = "CREATE VIEW second AS SELECT window_end AS ts, device, avg(temperature) AS mean
            FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end, \
        device;
        INSERT INTO uplink SELECT window_start, max(mean) AS most, count(*) AS n
            FROM HOP(second, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '4' SECOND) GROUP BY \
        window_start, window_end";
    let rows = [tank(0, "a", 1.0), tank(500, "a", 3.0), tank(1_200, "b", 9.0), tank(4_000, "a", 0.0)];
    let (mut rule, mut out) = fed(text, &rows);
    // Means at 1 s (2) and 2 s (9) come with the row at 4 s, which closes [0, 4) by itself: the end of a
    // window is never late.
    assert_eq!(cells(&out, "uplink"), seen(&[(3, "1969-12-31T23:59:58Z 2.0 1"), (3, "00:00Z 9.0 2")]));
    rule.on_end(9, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(cells(&out, "uplink")[2..], seen(&[(9, "00:02Z 9.0 2"), (9, "00:04Z 0.0 1")]));
    assert_eq!(out.late, 0);
}

#[test]
fn a_window_that_goes_by_the_start_of_others_waits_for_them() {
    let text = "CREATE VIEW second AS SELECT window_start AS ts, count(*) AS n
            FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end;
        INSERT INTO uplink SELECT window_start, sum(n) AS n FROM TUMBLE(second, DESCRIPTOR(ts), INTERVAL \
        '2' SECOND) GROUP BY window_start, window_end";
    let (_, out) =
        fed(text, &[tank(0, "a", 1.0), tank(1_500, "a", 3.0), tank(2_000, "b", 9.0), tank(3_000, "a", 0.0)]);
    // [1, 2) is written with the row at 2 s, and its start, 1 s, is in [0, 2), which therefore closes at 3 s.
    assert_eq!((cells(&out, "uplink"), out.late), (seen(&[(3, "00:00Z 2")]), 0));
}

#[test]
fn early_results_come_with_each_row() {
    let text = "--! emit = \"row\"\nINSERT INTO uplink SELECT device, max(temperature) AS t, count(*) AS n, \
        array_agg(count) AS c
        FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device";
    let rows =
        [tank(1, "a", 1.0), tank(2, "b", 2.0), tank(3, "a", 3.0), tank(10_000, "a", 4.0), tank(4, "b", 1.0)];
    let expected = [
        (0, "a 1.0 1 [1]"),
        (1, "b 2.0 1 [2]"),
        (2, "a 3.0 2 [1, 3]"),
        (3, "a 4.0 1 [10000]"),
        (3, "a 3.0 2 [1, 3]"),
        (3, "b 2.0 1 [2]"),
    ];
    for cuts in [vec![], vec![1; 4], vec![3]] {
        let mut rule = rule(text);
        let out = feed(&mut *rule, &rows, 0, &cuts);
        assert_eq!((cells(&out, "uplink"), out.late), (seen(&expected), 1), "{cuts:?}");
    }
}

#[test]
fn early_results_come_every_so_often() {
    let text = "--! emit_every = \"2s\"\nINSERT INTO uplink SELECT window_start, device, count(*) AS n
        FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, device";
    let rows = [
        tank(100, "a", 1.0),
        tank(1_900, "b", 1.0),
        tank(2_500, "a", 1.0),
        tank(8_000, "a", 1.0),
        tank(8_100, "b", 1.0),
        tank(10_000, "a", 1.0),
    ];
    // At 2 s both have changed; the row at 8 s brings `a`, and counts itself before it does. At 10 s the
    // window closes, and the row that closes it has changed the next.
    let expected = [
        (2, "00:00Z a 2"),
        (2, "00:00Z b 1"),
        (3, "00:00Z a 3"),
        (5, "00:00Z a 3"),
        (5, "00:00Z b 2"),
        (5, "00:10Z a 1"),
    ];
    for cuts in [vec![], vec![1; 6], vec![3, 1]] {
        let mut old = rule(text);
        let mut out = feed(&mut *old, &rows[..4], 0, &cuts);
        let mut new = rule(text);
        assert_eq!(new.restore(old.seal().unwrap()).unwrap(), Vec::<String>::new());
        out.rows.extend(feed(&mut *new, &rows[4..], 4, &cuts).rows);
        assert_eq!(cells(&out, "uplink"), seen(&expected), "{cuts:?}");
    }
}

#[test]
fn groups_without_a_window_are_forgotten_when_they_are_silent() {
    let text = "--! state_ttl = \"5s\"\nINSERT INTO uplink SELECT device, count(*) AS n, avg(temperature) \
        AS t FROM tank GROUP BY device";
    let rows = [
        tank(0, "a", 1.0),
        tank(1_000, "b", 2.0),
        tank(4_999, "a", 3.0),
        tank(6_000, "b", 4.0),
        tank(9_998, "a", 5.0),
    ];
    // `b` is silent for 5 s, `a` never quite.
    let expected = [(0, "a 1 1.0"), (1, "b 1 2.0"), (2, "a 2 2.0"), (3, "b 1 4.0"), (4, "a 3 3.0")];
    for split in 0..rows.len() {
        let mut old = rule(text);
        let mut out = feed(&mut *old, &rows[..split], 0, &[]);
        let mut new = rule(text);
        assert_eq!(new.restore(old.seal().unwrap()).unwrap(), Vec::<String>::new());
        out.rows.extend(feed(&mut *new, &rows[split..], split as u64, &[1]).rows);
        assert_eq!(cells(&out, "uplink"), seen(&expected), "{split}");
        let held: usize = new.explain().steps.iter().map(|step| step.entries).sum();
        assert_eq!(held, 2);
    }
}

fn on_batch(rule: &mut dyn Rule, seq: u64, rows: &[Tank], now_ms: i64, out: &mut Emissions) {
    let rows = Rows { batch: batch(rows), seqs: Seqs::Run { first: seq } };
    rule.on_batch("tank", &rows, When::at(now_ms * 1_000_000), out).unwrap();
}

#[test]
fn a_row_too_far_ahead_does_not_move_time_until_it_is_believed() {
    let text = format!(
        "--! max_ahead = \"1h\"\nINSERT INTO uplink {}",
        COUNT.replace("{}", "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)")
    );
    let hour = 3_600_000;
    let mut clock = rule(&text);
    let mut out = Emissions::default();
    on_batch(
        &mut *clock,
        0,
        &[tank(1_000, "a", 1.0), tank(hour + 1_001, "b", 2.0), tank(2_000, "a", 4.0)],
        0,
        &mut out,
    );
    assert_eq!((out.rows.len(), out.late, out.ahead), (0, 0, 1));
    // What went by meanwhile does not count as ahead.
    on_batch(&mut *clock, 3, &[tank(hour + 12_000, "a", 8.0)], 10_000, &mut out);
    assert_eq!(
        (cells(&out, "uplink"), out.ahead),
        (seen(&[(3, "00:00Z 00:10Z 2 5.0"), (3, "1970-01-01T01:00:00Z 1970-01-01T01:00:10Z 1 2.0")]), 1)
    );
    // Nothing else comes for an hour: the device's clock was really set.
    let mut set = rule(&text);
    let mut out = Emissions::default();
    on_batch(&mut *set, 0, &[tank(1_000, "a", 1.0)], 0, &mut out);
    on_batch(&mut *set, 1, &[tank(9 * hour, "a", 2.0)], 10_000, &mut out);
    assert_eq!((out.rows.len(), out.ahead), (0, 1));
    on_batch(&mut *set, 2, &[tank(10 * hour + 10_001, "a", 4.0)], hour + 1, &mut out);
    assert_eq!((out.rows.len(), out.ahead), (1, 1));
}

#[test]
fn a_time_that_all_rows_contradict_is_given_up() {
    let count = COUNT.replace("{}", "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)");
    let hour = 3_600_000;
    let mut without = rule(&format!("INSERT INTO uplink {count}"));
    let mut out = Emissions::default();
    on_batch(&mut *without, 0, &[tank(9 * hour, "a", 1.0)], 0, &mut out);
    on_batch(&mut *without, 1, &[tank(1_000, "b", 2.0)], 1_000, &mut out);
    assert_eq!((out.rows.len(), out.late, out.late_by_ns), (0, 1, (9 * hour - 1_000) * 1_000_000));
    // `max_ahead` is set afterwards, with the state that there is.
    let mut healed = rule(&format!("--! max_ahead = \"1h\"\nINSERT INTO uplink {count}"));
    assert_eq!(healed.restore(without.seal().unwrap()).unwrap(), Vec::<String>::new());
    let mut out = Emissions::default();
    on_batch(&mut *healed, 2, &[tank(11_000, "b", 2.0)], 10_000, &mut out);
    let state = healed.snapshot().unwrap();
    healed.restore(state).unwrap();
    on_batch(&mut *healed, 3, &[tank(hour, "b", 2.0)], hour + 10_000, &mut out);
    assert_eq!((out.rows.len(), out.late), (0, 2));
    let rows = [tank(hour + 11_000, "b", 4.0), tank(hour + 12_000, "b", 8.0)];
    on_batch(&mut *healed, 4, &rows, hour + 10_001, &mut out);
    on_batch(&mut *healed, 6, &[tank(hour + 20_000, "b", 16.0)], hour + 20_000, &mut out);
    let expected = [
        (4, "1970-01-01T09:00:00Z 1970-01-01T09:00:10Z 1 1.0"),
        (6, "1970-01-01T01:00:10Z 1970-01-01T01:00:20Z 2 12.0"),
    ];
    assert_eq!((cells(&out, "uplink"), out.late), (seen(&expected), 2));
    // One row that is not behind is no contradiction.
    let mut two = rule(&format!("--! max_ahead = \"1h\"\nINSERT INTO uplink {count}"));
    let mut out = Emissions::default();
    for (seq, (ts, now)) in
        [(9 * hour, 0), (0, 1), (9 * hour + 1, hour), (1, hour + 1), (2, 2 * hour)].into_iter().enumerate()
    {
        on_batch(&mut *two, seq as u64, &[tank(ts, "a", 1.0)], now, &mut out);
    }
    assert_eq!((out.rows.len(), out.late), (0, 3));
}

#[test]
fn late_rows_go_where_the_rule_says() {
    let text = "--! late_rows = \"lamp\"\nINSERT INTO uplink SELECT window_start, sum(temperature) AS s
        FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) WHERE temperature < 10 GROUP BY \
        window_start, window_end";
    let rows = [
        tank(1_000, "a", 1.0),
        tank(10_000, "a", 2.0),
        tank(3_000, "late", 4.0),
        tank(4_000, "b", 16.0),
        tank(20_000, "a", 0.0),
    ];
    for cuts in [vec![], vec![1; 4]] {
        let mut rule = rule(text);
        let out = feed(&mut *rule, &rows, 5, &cuts);
        assert_eq!(cells(&out, "uplink"), seen(&[(6, "00:00Z 1.0"), (9, "00:10Z 2.0")]));
        assert_eq!(cells(&out, "lamp"), seen(&[(7, "00:03Z late 4.0 3000 true")]), "{cuts:?}");
        assert_eq!(out.late, 1);
    }
    let flows: Vec<Target> = rule(text).flows().iter().map(|flow| flow.target.clone()).collect();
    assert_eq!(flows, [Target::Uplink, Target::Output("lamp".into())]);
}

#[test]
fn windows_by_arrival_close_without_a_row() {
    let catalog = Catalog { by_arrival: ["tank".to_owned()].into(), ..catalog() };
    // The end, and 100 ms in which a row may be on its way.
    for (window, closes_ms, expected) in [
        ("TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)", 110_100, "00:00Z 00:10Z 2 3.0"),
        (
            "CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)",
            105_100,
            "00:00Z 00:05Z 2 3.0",
        ),
        ("SESSION(tank, DESCRIPTOR(ts), INTERVAL '3' SECOND)", 105_100, "00:01Z 00:05Z 2 3.0"),
    ] {
        let mut rule = rule_of(&format!("INSERT INTO uplink {}", COUNT.replace("{}", window)), &catalog);
        let mut out = Emissions::default();
        // The box's clock shows 1 s and 2 s when the sequence's time is 101 s and 102 s.
        on_batch(&mut *rule, 0, &[tank(1_000, "a", 1.0)], 101_000, &mut out);
        on_batch(&mut *rule, 1, &[tank(2_000, "a", 2.0)], 102_000, &mut out);
        let (mut wakes, mut closed_at) = (rule.wakes_at().unwrap(), 0);
        // A session's first guess at its end may come too early.
        while cells(&out, "uplink").is_empty() && wakes < 200_000_000_000 {
            rule.on_tick(7, When::at(wakes - 1), &mut out).unwrap();
            assert!(out.rows.is_empty(), "{window}: too early");
            rule.on_tick(8, When::at(wakes), &mut out).unwrap();
            closed_at = wakes;
            wakes = rule.wakes_at().unwrap_or(wakes);
        }
        assert_eq!(cells(&out, "uplink"), seen(&[(8, expected)]), "{window}");
        assert_eq!(closed_at, closes_ms * 1_000_000, "{window}");
    }
}

#[test]
fn the_ends_of_time_are_windows_too() {
    let text = "INSERT INTO uplink SELECT count(*) AS n FROM {} GROUP BY window_start, window_end";
    for window in [
        "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND)",
        "HOP(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)",
        "CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '10' SECOND)",
        "SESSION(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND)",
    ] {
        let limit = i64::MAX / 1_000_000;
        let (mut rule, mut out) = fed(
            &text.replace("{}", window),
            &[tank(-limit, "a", 1.0), tank(0, "a", 1.0), tank(limit, "a", f64::NAN)],
        );
        rule.on_end(9, When::at(i64::MAX), &mut out).unwrap();
        assert!(
            table(&out.rows, "uplink").matches("| 1 ").count() >= 3,
            "{window}: {}",
            table(&out.rows, "uplink")
        );
        assert_eq!((out.late, out.bad_rows), (0, 0));
    }
}

#[test]
fn what_is_kept_is_known_and_goes_with_the_windows() {
    for window in [
        "HOP(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '10' SECOND)",
        "SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
        "COUNT_WINDOW(tank PARTITION BY device, 10)",
        "STATE_WINDOW(tank PARTITION BY device, temperature = 1, temperature = 9)",
    ] {
        let mut rule = rule(&format!(
            "INSERT INTO uplink SELECT device, count(*) AS n FROM {window} GROUP BY window_start, \
            window_end, device"
        ));
        let held = |rule: &dyn Rule| rule.explain().steps.iter().map(|step| step.entries).sum::<usize>();
        assert_eq!(held(&*rule), 0, "{window}");
        let rows: Vec<Tank> = (0..9).map(|at| tank(at * 100, "a", at as f64)).collect();
        feed(&mut *rule, &rows, 0, &[]);
        let bytes: usize = rule.explain().steps.iter().map(|step| step.bytes).sum();
        assert!(held(&*rule) > 0 && bytes > 0, "{window}");
        feed(&mut *rule, &[tank(900, "a", 9.0), tank(60_000, "b", 0.0)], 9, &[]);
        rule.on_end(20, When::at(i64::MAX), &mut Emissions::default()).unwrap();
        assert!(held(&*rule) <= 1, "{window}: {:?}", rule.explain());
    }
}

/// What is added up takes no more room for many rows than for few, and little for each key.
#[test]
fn sessions_take_memory_for_their_sums_and_not_for_their_rows() {
    let text = "INSERT INTO uplink SELECT device, avg(temperature) AS t, count(*) AS n
        FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '1' MINUTE) WHERE temperature >= 0 \
        GROUP BY window_start, window_end, device";
    let names: Vec<&'static str> = (0..1_000).map(|name| &*format!("device {name}").leak()).collect();
    let bytes_after = |rows: i64| {
        let rows: Vec<Tank> = (0..rows).map(|at| tank(at, names[at as usize % names.len()], 1.0)).collect();
        let (rule, out) = fed(text, &rows);
        assert!(out.rows.is_empty());
        assert_eq!(rule.explain().steps.iter().map(|step| step.entries).sum::<usize>(), 1_000);
        rule.explain().steps.iter().map(|step| step.bytes).sum::<usize>()
    };
    // The first few rows of a session wait, and do not take more than its sums.
    assert!(bytes_after(15_000) < 1_000 * 1_024, "{}", bytes_after(15_000));
    let few = bytes_after(20_000);
    assert!(few < 1_000 * 1_024, "{few}");
    assert!(bytes_after(100_000) < few + few / 10, "{few} {}", bytes_after(100_000));
}

/// Keys of which half are new in each second, more than 64 Ki at once, and few in the end.
#[test]
fn keys_that_come_and_go_are_found_and_forgotten() {
    let text = "INSERT INTO uplink SELECT window_start, count, count(*) AS n, sum(temperature) AS s
        FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end, count";
    let seconds: Vec<Vec<i64>> = vec![
        (0..70_000).collect(),
        (35_000..105_000).rev().collect(),
        (0..10).collect(),
        (5..15).rev().collect(),
        vec![3],
    ];
    let rows_of = |second: usize| -> Vec<Tank> {
        let ts_ms = second as i64 * 1_000;
        let row = |key: &i64| Tank { count: Some(*key), ..tank(ts_ms, "a", *key as f64) };
        // Every third key comes twice.
        let again = seconds[second].iter().filter(|key| **key % 3 == 0);
        seconds[second].iter().chain(again).map(row).collect()
    };
    let (mut version, mut seq, mut batches, mut bytes) = (rule(text), 0, Vec::new(), Vec::new());
    for second in 0..seconds.len() {
        let rows = rows_of(second);
        for part in [&rows[..rows.len() / 3], &rows[rows.len() / 3..]] {
            let out = feed(&mut *version, part, seq, &[20_000]);
            seq += part.len() as u64;
            bytes.push(out.state_bytes);
            batches.extend(out.rows.into_iter().map(|emission| emission.rows.batch));
            if second == 1 {
                let mut next = rule(text);
                assert_eq!(next.restore(version.seal().unwrap()).unwrap(), Vec::<String>::new());
                version = next;
            }
        }
    }
    let mut out = Emissions::default();
    version.on_end(seq, When::at(i64::MAX), &mut out).unwrap();
    batches.extend(out.rows.into_iter().map(|emission| emission.rows.batch));
    let mut found = Vec::new();
    for batch in &batches {
        let starts = batch.column(0).as_primitive::<TimestampNanosecondType>().values();
        let keys = batch.column(1).as_primitive::<Int64Type>().values();
        let counts = batch.column(2).as_primitive::<Int64Type>().values();
        let sums = batch.column(3).as_primitive::<Float64Type>().values();
        found.extend(
            (0..batch.num_rows()).map(|row| (starts[row] / 1_000_000_000, keys[row], counts[row], sums[row])),
        );
    }
    // A window gives its keys in the order in which they came.
    let expected = (0..).zip(&seconds).flat_map(|(second, keys)| {
        keys.iter().map(move |key| {
            let times = if key % 3 == 0 { 2 } else { 1 };
            (second, *key, times, (*key * times) as f64)
        })
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
    let most = bytes.iter().max().unwrap();
    assert!(bytes.last().unwrap() * 100 < *most, "{bytes:?}");
}

/// Every row joins the sessions before it from the far end: as deep as sessions can be put into each other
/// within one batch.
#[test]
fn any_number_of_sessions_can_become_one_within_a_batch() {
    let text = "--! lateness = \"1d\"\nINSERT INTO uplink SELECT window_start, window_end, count(*) AS n, \
        sum(count) AS s
        FROM SESSION(tank, DESCRIPTOR(ts), INTERVAL '6' SECOND) GROUP BY window_start, window_end";
    let far = 3_000;
    let apart = (0..far).map(|at| tank(at * 10_000, "a", 1.0));
    let bridges = (1..far).rev().map(|at| tank(at * 10_000 - 5_000, "a", 1.0));
    let (mut rule, mut out) = fed(text, &apart.chain(bridges).collect::<Vec<_>>());
    rule.on_end(9, When::at(i64::MAX), &mut out).unwrap();
    let found = table(&out.rows, "uplink");
    assert!(found.contains(&format!("| {} ", 2 * far - 1)) && found.lines().count() == 5, "{found}");
}
