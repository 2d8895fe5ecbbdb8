//! Scripts that go astray cost a row, or stop, and nothing else.

use std::sync::Arc;
use std::thread;

use super::*;

/// Hands so many rows to a script, one by one, on a thread with as much stack as those of a box; returns what
/// was bad, and what stopped it.
fn run(body: &str, rows: usize) -> (u64, String, Option<String>) {
    let script = on_tank(body);
    let run = move || {
        let mut rule = rule(&script);
        let mut out = Emissions::default();
        let mut stopped = None;
        for n in 0..rows {
            let rows = tank(n, &[("a", Some(1.0), None)]);
            if let Err(error) = rule.on_batch("tank", &rows, When::at(0), &mut out) {
                stopped = Some(error.to_string());
                break;
            }
        }
        // A snapshot of what it keeps goes as deep.
        if stopped.is_none() {
            rule.snapshot().unwrap();
        }
        (out.bad_rows, out.bad_row.unwrap_or_default(), stopped)
    };
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap()
}

#[test]
fn a_limit_costs_the_row() {
    for (body, said) in [
        ("loop { }", "it has done 100000 operations for one row"),
        ("let n = 0; while true { n += 1; }", "it has done 100000 operations for one row"),
        ("let x = \"ab\"; loop { x += x; }", "a text would be longer than 65536 bytes"),
        (
            "let x = [1, 2]; loop { x += x; }",
            "a list, with all that is in it, would have more than 5000 elements",
        ),
        (
            "let x = []; x.pad(100000000, 1);",
            "a list, with all that is in it, would have more than 5000 elements",
        ),
        ("let x = \"a\"; x.pad(100000000, 'a');", "a text would be longer than 65536 bytes"),
        (
            "let x = \"a\"; x.pad(60000, 'a'); let y = x; x.replace(\"a\", y);",
            "a text would be longer than 65536 bytes",
        ),
        ("let x = \"a\"; x.pad(60000, 'a'); x.replace('a', x);", "a text would be longer than 65536 bytes"),
        ("let x = blob(100000000, 1);", "a list, with all that is in it, would have more than 5000 elements"),
        ("for i in 0..5000 { write(\"pump\", #{ run: true }); }", "it has written 1000 rows for one row"),
        ("for i in 0..5000 { cancel(`${i}`); }", "it has set 1000 timers for one row"),
        ("for i in 0..2000 { write(\"uplink\", #{ x: 1 }); }", "it has written 1000 rows for one row"),
        (
            "let x = \"a\"; x.pad(60000, 'a'); for i in 0..100 { write(\"uplink\", #{ x: x }); }",
            "it has written 1048576 bytes for one row",
        ),
    ] {
        let (bad, why, stopped) = run(&format!("fn on_row(row, state) {{ {body} }}"), 3);
        assert_eq!((bad, stopped), (3, None), "{body}: {why}");
        assert!(why.contains(said), "{body}: {why}");
    }
}

/// How often `call` can be done for one row.
fn times(setup: &str, call: &str) -> u64 {
    let script = on_tank(&format!(
        "fn on_row(row, state) {{
            if state.n != () {{ log(`${{state.n - 1}}`); return; }}
            state.n = 0;
            {setup}
            loop {{ state.n += 1; {call}; }}
        }}"
    ));
    let mut rule = rule(&script);
    let mut out = Emissions::default();
    rule.on_batch("tank", &tank(0, &[("a", None, None), ("a", None, None)]), When::at(0), &mut out).unwrap();
    let why = out.bad_row.unwrap_or_default();
    assert!(why.contains("it has done 100000 operations for one row"), "{setup} {call}: {why}");
    out.log.iter().find_map(|line| line.text.parse().ok()).unwrap()
}

#[test]
fn what_goes_through_much_costs_as_much() {
    let list = "let x = []; for i in 0..2000 { x.push(2000 - i); }";
    let text = "let x = \"\"; x.pad(60000, 'a');";
    let map = "let x = #{}; for i in 0..2000 { x[`key ${i}`] = i; }";
    // Of 100 000 operations: a list or map of 2 000 elements, 60 000 bytes of text, at one for each element or
    // for 16 bytes; four where each is compared or written, 16 where all are sorted.
    let (elements, bytes) = (100_000 / 2_000, 100_000 / (60_000 / 16));
    for (setup, call, most) in [
        (list, "x.sort()", elements / 16),
        (list, "sort(x)", elements / 16),
        (list, "x.index_of(5000)", elements / 4),
        (list, "5000 in x", elements / 4),
        (list, "x.contains(5000)", elements / 4),
        (list, "x.dedup()", elements / 4),
        (list, "x.to_string()", elements / 4),
        (list, "print(x)", elements / 4),
        (list, "`${x}`", elements / 4),
        (list, "x.reverse()", elements),
        (list, "x.extract(1)", elements),
        (list, "x == x", elements),
        (list, "for y in x { break; }", elements),
        (map, "x.to_json()", elements / 4),
        (map, "x.keys()", elements),
        (map, "x.values()", elements),
        (map, "x == x", elements),
        (map, "write(\"uplink\", x)", elements),
        (text, "x.index_of(\"b\")", bytes / 4),
        (text, "x.contains(\"b\")", bytes / 4),
        (text, "x.replace(\"b\", \"c\")", bytes),
        (text, "x.to_upper()", bytes),
        (text, "x.split(\"b\")", bytes),
        (text, "x.sub_string(1)", bytes),
        (text, "x.trim()", bytes),
        (text, "x == x", bytes),
        (text, "for y in x { break; }", bytes),
    ] {
        let times = times(setup, call);
        assert!((1..=most).contains(&times), "{setup} {call}: {times}");
    }
    // What is one step stays one.
    for (setup, call) in [
        (list, "x[5]"),
        (list, "x.len()"),
        (list, "x.push(1); x.pop()"),
        ("let x = [3, 1, 2];", "x.sort()"),
        ("let x = \"abc\";", "x.contains(\"b\")"),
        ("let x = #{ a: 1 };", "x.keys()"),
        ("let x = 1;", "x == 2"),
    ] {
        let times = times(setup, call);
        assert!(times > 1_000, "{setup} {call}: {times}");
    }
}

#[test]
fn recursion_ends() {
    let (bad, why, _) = run("fn f(x) { f(x + 1) }\nfn on_row(row, state) { f(1); }", 2);
    assert_eq!(bad, 2);
    assert!(why.contains("functions call each other 32 deep"), "{why}");
    // Each level as deep as an expression may be.
    let deep = format!("{}f(x){}", "(1 + ".repeat(20), ")".repeat(20));
    let (bad, why, _) = run(&format!("fn f(x) {{ {deep} }}\nfn on_row(row, state) {{ f(1); }}"), 2);
    assert_eq!(bad, 2);
    assert!(why.contains("functions call each other 32 deep"), "{why}");
}

/// Programs that nest lists and maps, within a row or from row to row, and would overflow the stack.
#[test]
fn nesting_does_not_end_the_process() {
    for (body, rows) in [
        ("let a = []; for i in 0..800 { a = [a]; }", 1),
        ("let a = #{}; for i in 0..800 { a = #{ a: a }; } state.a = a;", 2),
        ("state.a = #{ p: state.a };", 250),
        ("state.a = [state.a];", 250),
        ("if state.a == () { state.a = #{}; } state.a.p = state.a;", 250),
        ("let s = state; state.s = s;", 12),
        ("state.a = state; state.b = state.a;", 8),
        ("let x = #{}; x.x = x; for i in 0..10 { x.x = x; }", 1),
        ("state.l = state.l ?? []; state.l.push(state.l);", 12),
        ("let a = #{}; for i in 0..400 { a = #{ a: a }; } throw a;", 2),
        (
            "let a = #{}; for i in 0..400 { a = #{ a: a }; } log(a); print(a); write(\"uplink\", #{ a: a });",
            1,
        ),
        ("let a = #{}; for i in 0..400 { a = #{ a: a }; } let b = a; a == b;", 1),
        (
            "pid(state, \"x\", 1, 1, #{ kp: 1 }); let k = \"pid x\"; for i in 0..300 { state[k].me = state[k]; }",
            1,
        ),
        ("return #{ a: row };", 3),
    ] {
        run(&format!("fn on_row(row, state) {{ {body} }}"), rows);
    }
}

#[test]
fn a_deep_state_is_kept_and_given_back() {
    let script =
        on_tank("fn on_row(row, state) { let a = #{}; for i in 0..1200 { a = #{ a: a }; } state.a = a; }");
    let run = move || {
        let mut first = rule(&script);
        feed(&mut *first, &tank(0, &[("a", None, None)]), 1);
        let sealed = first.seal().unwrap();
        drop(first);
        let mut second = rule(&script);
        second.restore(sealed).unwrap();
        assert!(second.explain().steps[1].entries > 1_100);
    };
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_script_that_reaches_a_limit_again_and_again_stops() {
    let (bad, why, stopped) = run("fn on_row(row, state) { let n = 0; loop { n += 1; } }", 150);
    assert_eq!(bad, 10);
    let stopped = stopped.unwrap();
    assert!(
        stopped.starts_with("rule.rhai:3:") && stopped.ends_with("; that 10 times in a row"),
        "{stopped}"
    );
    assert!(why.contains("; row: ts: 0"), "{why}");
    // A sensor that says nothing stops nobody.
    let (bad, _, stopped) = run("fn on_row(row, state) { let x = row.count + 1; }", 150);
    assert_eq!((bad, stopped), (150, None));
}

#[test]
fn a_million_timers_stop_it() {
    let (_, _, stopped) = run(
        "fn on_row(row, state) { for i in 0..999 { after(\"1h\", `${row.ts} ${i}`); } }\nfn on_timer(t, state) { }",
        200,
    );
    assert!(stopped.unwrap().contains("it has 10000 timers already"));
}

#[test]
fn the_fence_stops_it_in_the_middle_of_a_row() {
    let script = on_tank(
        "fn on_row(row, state) { log(row.device); write(\"pump\", #{ run: true }); if row.device == \"b\" { let n = 0; while n < 90000 { n += 1; } } }",
    );
    let mut rule = rule(&script);
    let fence = Arc::clone(rule.fence().unwrap());
    let rows = tank(5, &[("a", None, None), ("b", None, None)]);
    let mut out = Emissions::default();
    rule.on_batch("tank", &rows.slice(0, 1), When::at(0), &mut out).unwrap();
    fence.raise();
    let error = rule.on_batch("tank", &rows.slice(1, 1), When::at(0), &mut out).unwrap_err();
    assert_eq!((error.to_string().as_str(), out.stopped_at), ("it took too long and was stopped", Some(6)));
    assert_eq!(listing(&out.rows), ["5 pump run=true"]);
}

#[test]
fn an_endless_row_is_stopped_by_the_fence() {
    let script =
        on_tank("fn on_batch(rows, state) { for row in rows { let n = 0; while n < 20000 { n += 1; } } }");
    let mut rule = rule(&script);
    let fence = Arc::clone(rule.fence().unwrap());
    let readings: Vec<Reading> = (0..2_000).map(|_| ("a", None, None)).collect();
    let raise = thread::spawn(move || fence.raise());
    let mut out = Emissions::default();
    let error = rule.on_batch("tank", &tank(0, &readings), When::at(0), &mut out).unwrap_err();
    raise.join().unwrap();
    assert_eq!(error.to_string(), "it took too long and was stopped");
    assert!(out.stopped_at.is_some());
}
