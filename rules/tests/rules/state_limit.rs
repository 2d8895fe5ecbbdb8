//! What happens when a rule would keep more than it may.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Emissions, Rule, When};

use crate::bench_rows::{Tank, batch, rule, rule_of};

const WINDOWS: &str = "INSERT INTO lamp SELECT window_start, count, count(*) AS n
    FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end, count";

/// `rows` rows of one second, each with a key of its own.
fn keys(second: i64, keys: std::ops::Range<i64>) -> Vec<Tank> {
    let row = |count| Tank {
        ts_ms: second * 1000,
        device: Some("a"),
        temperature: Some(1.0),
        count: Some(count),
        running: None,
    };
    keys.map(row).collect()
}

fn feed(rule: &mut dyn Rule, first: u64, rows: &[Tank]) -> Result<Emissions, String> {
    let mut out = Emissions::default();
    let rows = Rows { batch: batch(rows), seqs: Seqs::Run { first } };
    rule.on_batch("tank", &rows, When::at(0), &mut out).map(|()| out).map_err(|error| error.to_string())
}

/// Number of rows counted, by the second at which the window starts.
fn counted(batches: &[RecordBatch]) -> BTreeMap<i64, i64> {
    let mut counted = BTreeMap::new();
    for batch in batches {
        let starts = batch.column(0).as_primitive::<TimestampNanosecondType>().values();
        let counts = batch.column(2).as_primitive::<Int64Type>().values();
        for (start, count) in starts.iter().zip(counts) {
            *counted.entry(start / 1_000_000_000).or_default() += count;
        }
    }
    counted
}

#[test]
fn a_rule_that_keeps_too_much_stops_and_says_what_to_do() {
    let mut rule = rule(&format!("--! max_state = \"256KiB\"\n{WINDOWS}"));
    let few = feed(&mut *rule, 0, &keys(0, 0..100)).unwrap();
    assert!(few.state_bytes > 100 * 8 && few.state_bytes <= 256 << 10, "{}", few.state_bytes);
    let error = feed(&mut *rule, 100, &keys(0, 100..60_000)).unwrap_err();
    for part in
        ["may keep 256KiB", "60000 entries", "TUMBLE(tank", "`max_state`", "`when_state_full = \"forget\"`"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_rule_that_may_forget_gives_up_whole_windows_and_goes_on() {
    let mut rule = rule(&format!(
        "--! lateness = \"20s\"\n--! max_state = \"1MiB\"\n--! when_state_full = \"forget\"\n{WINDOWS}"
    ));
    let mut batches = Vec::new();
    let mut take = |out: Emissions| {
        batches.extend(out.rows.into_iter().map(|emission| emission.rows.batch));
        (out.forgotten, out.late)
    };
    assert_eq!(take(feed(&mut *rule, 0, &keys(0, 0..500)).unwrap()), (0, 0));
    // Too much for both: the older window goes.
    let (forgotten, late) = take(feed(&mut *rule, 1_000, &keys(1, 0..15_000)).unwrap());
    let (more, _) = take(feed(&mut *rule, 20_000, &keys(2, 0..15_000)).unwrap());
    assert!(forgotten + more >= 500 && late == 0, "{forgotten} {more}");
    // Its rows are late from now on: half a window would be a lie.
    assert_eq!(take(feed(&mut *rule, 40_000, &keys(0, 0..3)).unwrap()), (0, 3));
    let mut out = Emissions::default();
    rule.on_end(50_000, When::at(i64::MAX), &mut out).unwrap();
    take(out);
    let counted = counted(&batches);
    assert!(!counted.contains_key(&0), "{counted:?}");
    assert_eq!(counted.get(&2), Some(&15_000));
    assert_eq!(counted.len(), 1, "{counted:?}");
}

#[test]
fn what_was_given_up_stays_so_in_the_next_version_of_the_rule() {
    let text = format!(
        "--! lateness = \"20s\"\n--! max_state = \"1MiB\"\n--! when_state_full = \"forget\"\n{WINDOWS}"
    );
    let mut old = rule(&text);
    feed(&mut *old, 0, &keys(0, 0..500)).unwrap();
    assert!(feed(&mut *old, 1_000, &keys(1, 0..60_000)).unwrap().forgotten > 0);
    let mut new = rule(&text);
    new.restore(old.seal().unwrap()).unwrap();
    assert_eq!(feed(&mut *new, 90_000, &keys(0, 0..2)).unwrap().late, 2);
}

#[test]
fn one_batch_that_is_too_much_by_itself_ends_with_nothing_kept_and_the_rule_alive() {
    let mut rule = rule(&format!("--! max_state = \"64KiB\"\n--! when_state_full = \"forget\"\n{WINDOWS}"));
    let out = feed(&mut *rule, 0, &keys(0, 0..60_000)).unwrap();
    assert_eq!((out.forgotten, out.rows.len()), (60_000, 0));
    assert!(out.state_bytes <= 64 << 10, "{}", out.state_bytes);
    assert_eq!(feed(&mut *rule, 60_000, &keys(1, 0..3)).unwrap().late, 0);
    let out = feed(&mut *rule, 60_003, &keys(2, 0..1)).unwrap();
    assert_eq!(counted(&[out.rows[0].rows.batch.clone()]), [(1, 3)].into());
}

#[test]
fn a_rule_that_keeps_nothing_has_no_limit() {
    let mut rule = rule_of(
        "--! max_state = \"1B\"\nINSERT INTO lamp SELECT count FROM tank WHERE count >= 0",
        &crate::bench_rows::catalog(),
    );
    assert_eq!(feed(&mut *rule, 0, &keys(0, 0..10)).unwrap().state_bytes, 0);
}
