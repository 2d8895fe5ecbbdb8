//! Timers, and the start of a version.

use super::*;

/// Calls `rule` at each time at which it wants to be, up to `until` seconds; returns what it wrote.
fn until(rule: &mut dyn Rule, until: i64, out: &mut Emissions) {
    while let Some(at) = rule.wakes_at().filter(|at| *at <= until * SECOND) {
        rule.on_tick(1_000 + at as u64 / SECOND as u64, When::at(at), out).unwrap();
    }
}

#[test]
fn a_timer_is_due_once_and_can_be_set_anew_or_cancelled() {
    let script = on_tank(
        "fn on_row(row, state) { if row.temperature > 80.0 { after(\"10s\", \"off\"); } else { cancel(\"off\"); } }\nfn \
         on_timer(tag, state) { log(`${tag} ${now() / 1000000000}`); write(\"hot\", #{ device: tag }); }",
    );
    let mut rule = rule(&script);
    let mut out = feed(&mut *rule, &tank(0, &[("a", Some(81.0), None), ("a", Some(82.0), None)]), 1);
    assert_eq!(rule.wakes_at(), Some(11 * SECOND));
    until(&mut *rule, 20, &mut out);
    assert_eq!(listing(&out.rows), ["1011 hot ts=00:00:11Z device=off mean=- n=-"]);
    assert_eq!((out.log[0].text.as_str(), rule.wakes_at()), ("off 11", None));
    let out = feed(&mut *rule, &tank(20, &[("a", Some(81.0), None), ("a", Some(20.0), None)]), 1);
    assert_eq!((rule.wakes_at(), out.rows.len()), (None, 0));
}

#[test]
fn timers_that_are_due_come_before_the_rows() {
    let script = on_tank(
        "fn on_row(row, state) { log(\"row\"); after(\"1s\", \"b\"); after(\"1s\", \"a\"); }\nfn on_timer(tag, state) { \
         log(tag); after(\"1ms\", \"again\"); if tag == \"a\" { write(\"hot\", #{}); } }",
    );
    let mut rule = rule(&script);
    let rows = tank(0, &[("a", None, None), ("a", None, None), ("a", None, None)]);
    feed(&mut *rule, &rows.slice(0, 1), 1);
    // `again` would be due, and waits for the next call.
    let out = feed(&mut *rule, &rows.slice(2, 1), 1);
    let said: Vec<&str> = out.log.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(said, ["a", "b", "row"]);
    assert_eq!(listing(&out.rows), ["2 hot ts=00:00:02Z device=- mean=- n=-"]);
}

#[test]
fn a_version_starts_once() {
    let script = on_tank(
        "fn on_start(state) { state.starts = (state.starts ?? 0) + 1; after(\"1s\", \"beat\"); }\nfn on_row(row, state) { \
         write(\"hot\", #{ n: state.starts }); }\nfn on_timer(tag, state) { }",
    );
    let start = |rule: &mut dyn Rule| {
        rule.starting().unwrap().start(7, When::at(3 * SECOND), &mut Emissions::default()).unwrap();
        assert!(rule.starting().is_none());
    };
    let mut first = rule(&script);
    start(&mut *first);
    assert_eq!(first.wakes_at(), Some(4 * SECOND));
    // After a restart it is the same version.
    let mut again = rule(&script);
    assert_eq!(again.restore(first.snapshot().unwrap()), Ok(vec![]));
    assert!(again.starting().is_none());
    assert_eq!(again.wakes_at(), Some(4 * SECOND));
    let n = |out: Emissions| listing(&out.rows)[0].rsplit_once('=').unwrap().1.to_owned();
    assert_eq!(n(feed(&mut *again, &tank(1, &[("a", None, None)]), 1)), "1");
    // Another one starts, with what the first kept.
    let mut other = rule(&format!("{script}\n"));
    assert_eq!(other.restore(first.seal().unwrap()), Ok(vec![]));
    start(&mut *other);
    assert_eq!(n(feed(&mut *other, &tank(1, &[("a", None, None)]), 1)), "2");
}

#[test]
fn a_debounce_settles_by_a_timer() {
    let script = on_tank(
        "fn on_row(row, state) {\n  let on = (row.temperature ?? 0.0) > 80.0;\n  if on != (state.wanted ?? false) {\n    \
         state.wanted = on;\n    after(\"2s\", \"settle\");\n  }\n}\nfn on_timer(tag, state) {\n  if state.wanted != \
         (state.on ?? false) {\n    state.on = state.wanted;\n    write(\"pump\", #{ run: state.on });\n  }\n}",
    );
    let mut rule = rule(&script);
    let mut out = Emissions::default();
    for (at, t) in [(0, 81.0), (1, 20.0), (2, 81.0), (9, 20.0), (10, 20.0)] {
        until(&mut *rule, at - 1, &mut out);
        let rows = tank(at as usize, &[("a", Some(t), None)]);
        rule.on_batch("tank", &rows, When::at(at * SECOND), &mut out).unwrap();
    }
    until(&mut *rule, 20, &mut out);
    assert_eq!(listing(&out.rows), ["1004 pump run=true", "1011 pump run=false"]);
}
