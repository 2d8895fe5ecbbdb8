//! A silence is what was listened to. The times are computed by hand from the definition.

use std::sync::Arc;

use crate::bench_rows::{batch, catalog, listing, rule, rule_of, tank};
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Emissions, Listened, Rule, When};

const S: i64 = 1_000_000_000;

/// Rules that write something because no row of `tank` has come for ten seconds after second 5.
const SILENCES: [&str; 4] = [
    "SELECT count(*) AS n FROM SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '10' SECOND) \
    GROUP BY window_start, window_end, device",
    "SELECT count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '15' SECOND) GROUP BY window_start, \
    window_end",
    "SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY device ORDER BY ts MEASURES A.temperature AS n AFTER \
    MATCH SKIP PAST LAST ROW
     PATTERN (A) NOT FOLLOWED BY B WITHIN INTERVAL '10' SECOND DEFINE A AS A.temperature = 5, B AS TRUE)",
    "SELECT temperature AS n FROM (SELECT temperature, held(temperature = 5, INTERVAL '10' SECOND) OVER \
    (PARTITION BY device ORDER BY ts) AS h
     FROM tank) AS steps WHERE h",
];

fn row(rule: &mut dyn Rule, seq: u64, second: i32, now: i64) -> Emissions {
    let mut out = Emissions::default();
    let rows = Rows {
        batch: batch(&[tank(i64::from(second) * 1_000, "a", f64::from(second))]),
        seqs: Seqs::Run { first: seq },
    };
    rule.on_batch("tank", &rows, When::at(now), &mut out).unwrap();
    out
}

fn tick(rule: &mut dyn Rule, now: i64) -> usize {
    let mut out = Emissions::default();
    rule.on_tick(9, When::at(now), &mut out).unwrap();
    listing(&out.rows).len()
}

fn listened(rule: &mut dyn Rule, since: i64, until: i64, goes_on: bool, now: i64) -> bool {
    rule.silences().unwrap().listened(&[(Arc::from("tank"), Listened { since, until, goes_on })], now)
}

#[test]
fn an_outage_is_no_silence_and_what_was_silent_before_it_counts() {
    for text in SILENCES {
        let mut rule = rule(&format!("--! idle_after = \"3s\"\nINSERT INTO uplink {text}"));
        let rule = &mut *rule;
        assert!(!listened(rule, 100 * S, 100 * S, true, 100 * S));
        assert!(row(rule, 0, 5, 101 * S).rows.is_empty(), "{text}");
        // It would be second 15 ten seconds later, if somebody had listened.
        assert_eq!(rule.silences().unwrap().awaited(), [("tank".into(), 111 * S)], "{text}");
        assert_eq!((rule.wakes_at(), tick(rule, 200 * S)), (None, 0), "{text}");
        // The line was heard last after eight of them.
        assert!(listened(rule, 100 * S, 109 * S, false, 250 * S), "{text}");
        assert_eq!((tick(rule, 250 * S), rule.silences().unwrap().awaited()), (0, Vec::new()), "{text}");
        // It is there again: two are left, but only what is silent for three is idle.
        assert!(!listened(rule, 300 * S, 300 * S, true, 300 * S), "{text}");
        assert_eq!(rule.silences().unwrap().awaited(), [("tank".into(), 303 * S + 1)], "{text}");
        assert!(!listened(rule, 300 * S, 302 * S, true, 302 * S), "{text}");
        assert!(listened(rule, 300 * S, 303 * S + 1, true, 304 * S), "{text}");
        assert_eq!((tick(rule, 304 * S), rule.silences().unwrap().awaited()), (1, Vec::new()), "{text}");
    }
}

#[test]
fn rows_that_were_queued_are_not_late() {
    for text in SILENCES {
        let mut rule = rule(&format!("--! idle_after = \"3s\"\nINSERT INTO uplink {text}"));
        let rule = &mut *rule;
        listened(rule, 100 * S, 100 * S, true, 100 * S);
        row(rule, 0, 5, 101 * S);
        // The box was off for an hour, and has not been told that it listens.
        listened(rule, 3_700 * S, 3_700 * S, false, 3_700 * S);
        for second in 6..10 {
            let out = row(rule, 1, second, (3_700 + i64::from(second)) * S);
            assert_eq!((out.rows.len(), out.late), (0, 0), "{text}");
        }
    }
}

#[test]
fn time_of_arrival_passes_whoever_listens() {
    let catalog = Catalog { by_arrival: ["tank".to_owned()].into(), ..catalog() };
    let mut rule = rule_of(&format!("INSERT INTO uplink {}", SILENCES[1]), &catalog);
    listened(&mut *rule, 0, 0, false, 0);
    row(&mut *rule, 0, 5, 105 * S);
    assert_eq!((rule.wakes_at(), rule.silences().unwrap().awaited()), (Some(115 * S + S / 10), Vec::new()));
    assert_eq!(tick(&mut *rule, 115 * S + S / 10), 1);
}
