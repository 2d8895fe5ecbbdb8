//! Joins by hand: what waits for what, what is late, what is kept.

use crate::bench_rows::{
    Event, Tank, Valve, batch, catalog, feed_events, limits, rule, rule_of, table, tank, valve,
};
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Emissions, Rule, When};

fn tanks(ts_ms: i64, device: &'static str) -> Event {
    Event::Tank(tank(ts_ms, device, 20.0))
}

fn valves(ts_ms: i64, device: &'static str) -> Event {
    Event::Valve(valve(ts_ms, device, true))
}

/// What `rule` writes for `events`: (sequence number, row) with the columns that the SELECT has, as text.
fn rows(rule: &mut dyn Rule, events: &[Event], first_seq: u64) -> Vec<String> {
    let mut out = Emissions::default();
    feed_events(rule, events, first_seq, &[], &mut out);
    lines(&out)
}

fn lines(out: &Emissions) -> Vec<String> {
    let mut lines = Vec::new();
    for emission in &out.rows {
        for row in 0..emission.rows.len() {
            let values = emission.rows.batch.columns().iter().map(|column| {
                let text = arrow::util::display::array_value_to_string(column, row).unwrap();
                if text.is_empty() { "-".to_owned() } else { text }
            });
            lines.push(format!("{}: {}", emission.rows.seqs.get(row), values.collect::<Vec<_>>().join(" ")));
        }
    }
    lines
}

const NEAR: &str = "INSERT INTO uplink SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve v \
    ON t.device = v.device AND v.ts BETWEEN t.ts AND t.ts + INTERVAL '1' SECOND";

#[test]
fn a_row_goes_alone_when_the_watermark_says_that_no_partner_can_come() {
    let mut rule = rule(NEAR);
    assert_eq!(
        rows(&mut *rule, &[tanks(0, "a"), tanks(5000, "a"), valves(1000, "b")], 0),
        Vec::<String>::new()
    );
    // 1 s is the last moment at which a partner of the first row can come.
    assert_eq!(rows(&mut *rule, &[valves(1000, "a")], 3), ["3: 0 1000"]);
    assert_eq!(
        rows(&mut *rule, &[tanks(1000, "a"), valves(1000, "a")], 4),
        ["4: 1000 1000", "5: 0 1000", "5: 1000 1000"]
    );
    assert_eq!(rows(&mut *rule, &[valves(5500, "c"), tanks(9000, "a"), valves(6001, "c")], 6), ["8: 5000 -"]);
}

#[test]
fn rows_that_come_after_their_partners_may_have_gone_are_late() {
    let mut rule = rule(NEAR);
    let mut out = Emissions::default();
    feed_events(
        &mut *rule,
        &[tanks(5000, "a"), valves(5000, "a"), tanks(4999, "a"), valves(4999, "a"), valves(5000, "a")],
        0,
        &[],
        &mut out,
    );
    assert_eq!(lines(&out), ["1: 5000 5000", "4: 5000 5000"]);
    assert_eq!(out.late, 2);
}

#[test]
fn a_stream_meets_itself_once() {
    let mut rule = rule(
        "INSERT INTO uplink SELECT a.count AS a, b.count AS b FROM tank a JOIN tank b ON a.device = b.device \
         AND b.ts - a.ts BETWEEN INTERVAL '0' SECOND AND INTERVAL '1' SECOND",
    );
    assert_eq!(rows(&mut *rule, &[tanks(0, "a"), tanks(0, "a"), tanks(1000, "a")], 0).len(), 7);
}

#[test]
fn nothing_is_kept_longer_than_its_partners_can_come() {
    let mut rule = rule(NEAR);
    for second in 0..100 {
        rows(&mut *rule, &[tanks(second * 1000, "a"), valves(second * 1000, "a")], second as u64 * 2);
    }
    let kept: usize = rule.explain().steps.iter().map(|step| step.entries).sum();
    assert!(kept <= 4, "{kept} rows are kept");
}

#[test]
fn nulls_equal_nothing_and_go_alone() {
    let mut rule = rule(&NEAR.replace("LEFT", "FULL"));
    let tank = Tank { device: None, ..tank(0, "a", 1.0) };
    let valve = Valve { device: None, ..valve(0, "a", true) };
    let mut out = Emissions::default();
    feed_events(&mut *rule, &[Event::Tank(tank), Event::Valve(valve)], 0, &[], &mut out);
    rule.on_end(2, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(lines(&out), ["2: 0 -", "2: - 0"]);
}

#[test]
fn what_came_last_is_known_at_once_whatever_the_clocks_say() {
    let mut rule = rule(
        "INSERT INTO uplink SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve FOR \
        SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS v ON t.device = v.device",
    );
    let events =
        [tanks(5, "a"), valves(900, "a"), tanks(6, "a"), valves(3, "a"), tanks(7, "a"), tanks(7, "b")];
    assert_eq!(rows(&mut *rule, &events, 0), ["0: 5 -", "2: 6 900", "4: 7 3", "5: 7 -"]);
}

#[test]
fn streams_that_go_by_arrival_do_not_wait_for_each_other() {
    let catalog = Catalog { by_arrival: ["tank".to_owned(), "valve".to_owned()].into(), ..catalog() };
    let text = "INSERT INTO uplink SELECT t.count AS n, v.position AS p FROM tank t JOIN valve FOR \
        SYSTEM_TIME AS OF t.ts AS v ON t.device = v.device";
    let mut rule = rule_of(text, &catalog);
    assert_eq!(rows(&mut *rule, &[valves(5, "a"), tanks(6, "a"), tanks(99, "a")], 0), ["1: 6 5", "2: 99 5"]);
    assert_eq!(rule.wakes_at(), None);
}

#[test]
fn by_event_time_a_row_waits_until_the_other_stream_has_got_there() {
    let mut rule = rule(
        "INSERT INTO uplink SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve FOR \
        SYSTEM_TIME AS OF t.ts AS v ON t.device = v.device",
    );
    assert_eq!(rows(&mut *rule, &[valves(10, "a"), tanks(30, "a"), tanks(31, "a")], 0), Vec::<String>::new());
    assert_eq!(rows(&mut *rule, &[valves(20, "a"), valves(30, "b")], 3), ["4: 30 20"]);
    assert_eq!(rows(&mut *rule, &[valves(32, "a")], 5), ["5: 31 20"]);
    // The versions that no row can ask for any more are gone.
    let kept: usize = rule.explain().steps.iter().map(|step| step.entries).sum();
    assert!(kept <= 4, "{kept} rows are kept");
}

#[test]
fn a_row_sees_what_the_table_holds_when_it_comes() {
    let mut rule = rule(
        "INSERT INTO uplink SELECT t.count AS n, l.high AS h FROM tank t LEFT JOIN limits l ON t.device = \
        l.device",
    );
    assert_eq!(
        rule.lookups().unwrap().tables().iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["limits"]
    );
    let mut out = Emissions::default();
    assert_eq!(rows(&mut *rule, &[tanks(1, "a")], 0), ["0: 1 -"]);
    rule.lookups()
        .unwrap()
        .on_table("limits", &limits(&[(Some("a"), Some(80.0), "north")]), &mut out)
        .unwrap();
    assert_eq!(rows(&mut *rule, &[tanks(2, "a"), tanks(3, "b")], 1), ["1: 2 80.0", "2: 3 -"]);
    rule.lookups()
        .unwrap()
        .on_table(
            "limits",
            &limits(&[(Some("a"), Some(90.0), "north"), (Some("b"), None, "south")]),
            &mut out,
        )
        .unwrap();
    assert_eq!(rows(&mut *rule, &[tanks(4, "a"), tanks(5, "b")], 3), ["3: 4 90.0", "4: 5 -"]);
    rule.lookups().unwrap().on_table("limits", &limits(&[]), &mut out).unwrap();
    assert_eq!(rows(&mut *rule, &[tanks(6, "a")], 5), ["5: 6 -"]);
    assert!(out.rows.is_empty());
}

#[test]
fn what_time_it_is_is_asked_when_a_row_meets_the_table_and_not_when_that_is_read() {
    for text in [
        "SELECT t.count AS n, l.area AS a FROM tank t JOIN limits l ON l.high = date_part('hour', now())",
        "SELECT t.count AS n, l.area AS a FROM tank t JOIN limits l ON l.device = t.device WHERE \
        date_part('hour', now()) = l.high",
        "SELECT count AS n, 'night' AS a FROM (SELECT *, date_part('hour', now()) AS hour FROM tank) WHERE \
        hour IN (SELECT high FROM limits)",
    ] {
        let mut rule = rule(&format!("INSERT INTO uplink {text}"));
        let mut out = Emissions::default();
        rule.lookups()
            .unwrap()
            .on_table("limits", &limits(&[(Some("a"), Some(22.0), "night")]), &mut out)
            .unwrap();
        for hour in 21..=23 {
            let rows = Rows {
                batch: batch(&[Tank { count: Some(hour), ..tank(0, "a", 1.0) }]),
                seqs: Seqs::One { seq: 0 },
            };
            rule.on_batch("tank", &rows, When { wall_ns: hour * 3_600_000_000_000, ..When::at(0) }, &mut out)
                .unwrap();
        }
        assert_eq!(lines(&out), ["0: 22 night"], "{text}");
    }
}

#[test]
fn a_value_that_is_not_one_costs_the_row_and_is_reported() {
    let mut rule =
        rule("INSERT INTO uplink SELECT count AS n FROM tank WHERE temperature > (SELECT high FROM limits)");
    let mut out = Emissions::default();
    feed_events(&mut *rule, &[tanks(1, "a")], 0, &[], &mut out);
    assert_eq!((lines(&out).len(), out.bad_rows), (0, 0));
    rule.lookups().unwrap().on_table("limits", &limits(&[(None, Some(10.0), "x")]), &mut out).unwrap();
    feed_events(&mut *rule, &[tanks(2, "a")], 1, &[], &mut out);
    assert_eq!(lines(&out), ["1: 2"]);
    rule.lookups()
        .unwrap()
        .on_table("limits", &limits(&[(None, Some(10.0), "x"), (None, Some(11.0), "y")]), &mut out)
        .unwrap();
    feed_events(&mut *rule, &[tanks(3, "a")], 2, &[], &mut out);
    assert_eq!((lines(&out).len(), out.bad_rows), (1, 1));
    assert!(out.bad_row.unwrap().contains("a subquery gives 2 rows"));
}

#[test]
fn a_window_reads_a_union() {
    let mut rule = rule(
        "CREATE VIEW both AS SELECT ts, device FROM tank UNION ALL SELECT ts, device FROM valve; INSERT \
        INTO uplink SELECT window_end, device, count(*) AS n FROM TUMBLE(both, DESCRIPTOR(ts), INTERVAL '1' \
        SECOND) GROUP BY window_end, device",
    );
    let mut out = Emissions::default();
    feed_events(
        &mut *rule,
        &[tanks(0, "a"), valves(1, "a"), tanks(999, "a"), valves(1000, "a"), tanks(1000, "a")],
        0,
        &[],
        &mut out,
    );
    assert!(
        table(&out.rows, "uplink").contains("| 1970-01-01T00:00:01Z | a      | 3 |"),
        "{}",
        table(&out.rows, "uplink")
    );
}

#[test]
fn json_is_looked_into() {
    let value = |expr: &str| {
        let mut rule = rule(&format!("INSERT INTO uplink SELECT {expr} AS x FROM tank"));
        let json =
            r#"{"pump": {"state": "on", "n": [1, {"k": 2.5}, null]}, "none": null, "big": 9007199254740993}"#;
        let row = Tank { device: Some(json), ..tank(0, "", 1.0) };
        let mut out = Emissions::default();
        feed_events(&mut *rule, &[Event::Tank(row)], 0, &[], &mut out);
        assert_eq!(out.bad_rows, 0, "{:?}", out.bad_row);
        lines(&out).join(";").split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(value("device->'pump'->>'state'"), "on");
    assert_eq!(value("device->'pump'->'state'"), "\"on\"");
    assert_eq!(value("CAST(device->'pump'->'n'->1->>'k' AS DOUBLE) * 2"), "5.0");
    assert_eq!(value("device->'pump'->'n'->>-2"), "{\"k\":2.5}");
    assert_eq!(value("device->>'big'"), "9007199254740993");
    for nothing in [
        "device->'none'",
        "device->'pump'->'n'->2",
        "device->'pump'->'n'->7",
        "device->'pump'->0",
        "device->'no'->'no'",
        "'{x'->'a'",
        "device->>NULL",
    ] {
        assert_eq!(value(nothing), "-", "{nothing}");
    }
    assert_eq!(value("json_get_array(device, 'pump', 'n')"), "[1, {\"k\":2.5}, ]");
    assert_eq!(value("json_get_array('[\"a\", 2]')"), "[a, 2]");
    assert_eq!(value("json_get_array(device, 'pump')"), "-");
    assert_eq!(value("coalesce(device->'pump'->>'state' = 'on', false)"), "true");
    assert_eq!(value("named_struct('a', 1, 'b', device->>'big')['b']"), "9007199254740993");
}

#[test]
fn a_join_that_may_not_keep_more_forgets_its_oldest_rows_but_never_makes_a_row_seem_alone() {
    let limited =
        |text: &str| rule(&format!("--! max_state = \"64KiB\"\n--! when_state_full = \"forget\"\n{text}"));
    let events: Vec<Event> = (0..1000).map(|n| tanks(n, "a")).collect();
    let mut inner = limited(&NEAR.replace("LEFT JOIN", "JOIN"));
    let mut out = Emissions::default();
    feed_events(&mut *inner, &events, 0, &[10; 100], &mut out);
    assert!(
        out.forgotten > 0 && out.state_bytes <= 64 << 10,
        "{} rows, {} bytes",
        out.forgotten,
        out.state_bytes
    );
    let forgotten = out.forgotten;
    feed_events(&mut *inner, &[valves(1000, "a")], 1000, &[], &mut out);
    let pairs = lines(&out);
    assert!(
        !pairs.is_empty() && pairs.len() as u64 + forgotten == 1000,
        "{} pairs, {forgotten} forgotten",
        pairs.len()
    );
    assert_eq!(pairs.last().map(String::as_str), Some("1000: 999 1000"), "the newest are kept");

    // Valves that have been given up could have met each of these tanks, of which nobody can say that it is
    // alone.
    let mut outer = limited(NEAR);
    let mut out = Emissions::default();
    let valve_rows: Vec<Event> = (0..1000).map(|n| valves(n, "a")).collect();
    feed_events(&mut *outer, &valve_rows, 0, &[], &mut out);
    let forgotten = out.forgotten;
    assert!(forgotten > 0 && forgotten < 1000, "{forgotten}");
    feed_events(&mut *outer, &[tanks(-1000, "a"), tanks(-900, "b"), tanks(999, "b")], 1000, &[], &mut out);
    outer.on_end(1003, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(
        lines(&out),
        ["1003: 999 -"],
        "only of a tank that is later than all that was given up it is known that it met nobody"
    );
    assert_eq!(out.forgotten, forgotten + 2);
}
