//! Plugins that do what they should not: they cost their rows or themselves, and it is said why.

use super::*;
use crate::rule::RuleError;

/// A plugin that runs `body` for each batch (or, if that is asked for, elsewhere) and writes nothing.
fn runs(body: &str) -> String {
    with(body, "(i32.const 16)", "(i32.const 16)")
}

fn with(on_batch: &str, on_timer: &str, init: &str) -> String {
    format!(
        r#"(data (i32.const 1024) "badness")
        (data (i32.const 1040) "abcdefghijklmnopqrstuvwxyz")
        (global $calls (mut i32) (i32.const 0))
        (func $recurse (param i32) (result i32) (i32.add (call $recurse (local.get 0)) (i32.const 1)))
        (func $init (param i32 i32 i32 i32 i32 i32) (result i32) {init})
        (func $on_timer (param i32 i32) (result i32) {on_timer})
        (func $on_batch (param $input i32) (param $rows i32) (param $columns i32) (param $many i32) (result i32)
          (local $i i32) {on_batch})"#
    )
}

/// What comes of one row with the temperature 7.
fn one_row(code: &str) -> (Emissions, Result<(), RuleError>) {
    call(&mut rule(code, TO_UPLINK), &numbers(3, &[7.0]), 0)
}

/// Why one row was left out.
fn reason(code: &str) -> String {
    let (out, outcome) = one_row(code);
    assert_eq!((outcome, out.bad_rows, out.stopped_at), (Ok(()), 1, None));
    out.bad_row.unwrap_or_default()
}

const ROW: &str = "(ts = 1970-01-01T00:00:00.000000003Z, temperature = 7.0)";

#[test]
fn an_endless_loop_ends() {
    let said = reason(&runs("(loop $for_ever (br $for_ever)) (i32.const 16)"));
    assert_eq!(said, format!("it took more than 10000000 steps (`limits.fuel`) in on_batch {ROW}"));
}

#[test]
fn what_traps_says_where_and_why() {
    let said = reason(&runs("(unreachable)"));
    assert_eq!(said, format!("it gave up without a word in on_batch {ROW}"));
    // What a plugin says last, when it panics.
    let said = reason(&runs("(call $log (i32.const 3) (i32.const 1040) (i32.const 3)) (unreachable)"));
    assert_eq!(said, format!("abc {ROW}"));
    let said = reason(&runs("(i32.div_u (i32.const 1) (local.get $i))"));
    assert_eq!(said, format!("integer divide by zero in on_batch {ROW}"));
    let said = reason(&runs("(i32.load (i32.const -8))"));
    assert_eq!(said, format!("out of bounds memory access in on_batch {ROW}"));
    assert_eq!(reason(&runs("(i32.const 32)")), format!("badness {ROW}"));
    // An answer that is none.
    assert!(reason(&runs("(i32.const 1048)")).ends_with(ROW));
}

#[test]
fn a_stack_that_is_full_stops_it_once_and_for_all() {
    let (out, outcome) = one_row(&runs("(call $recurse (i32.const 1))"));
    let why = outcome.unwrap_err().0;
    assert!(why.starts_with("its stack was full in recurse, called by recurse"), "{why}");
    assert_eq!((out.stopped_at, out.bad_rows), (Some(3), 0));
}

/// With as many steps as there can be.
fn forever() -> String {
    format!("{TO_UPLINK}[limits]\nfuel = 10000000000\n")
}

#[test]
fn memory_has_an_end() {
    let bomb =
        "(loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) (unreachable)";
    let said = reason(&runs(bomb));
    assert_eq!(said, format!("it needs more than 64MiB of memory (`limits.memory`) in on_batch {ROW}"));
    let small = format!("{TO_UPLINK}[limits]\nmemory = \"64KiB\"\n");
    let said = refusal(&component(THRESHOLD), &small, &catalog());
    assert!(said.contains("it needs more than 64KiB of memory (`limits.memory`)"), "{said}");
}

#[test]
fn what_it_keeps_writes_and_sets_has_an_end() {
    let looped = |body: &str| {
        runs(&format!(
            "(loop $more (local.set $i (i32.add (local.get $i) (i32.const 1))) \
            (i32.store (i32.const 1040) (i32.or (i32.and (local.get $i) (i32.const 0x7f)) \
            (i32.or (i32.and (i32.shl (local.get $i) (i32.const 1)) (i32.const 0x7f00)) \
            (i32.and (i32.shl (local.get $i) (i32.const 2)) (i32.const 0x7f0000))))) {body} \
            (br_if $more (i32.lt_u (local.get $i) (i32.const 1000000)))) (i32.const 16)"
        ))
    };
    let manifest = format!("max_state = \"1MiB\"\n{}", forever());
    let said = |code: &str| {
        let (out, outcome) = call(&mut rule(code, &manifest), &numbers(3, &[7.0]), 0);
        assert_eq!((outcome, out.bad_rows), (Ok(()), 1));
        out.bad_row.unwrap_or_default()
    };
    let timers = said(&looped("(call $after (i64.const 5) (i32.const 1040) (i32.const 4))"));
    assert!(timers.starts_with("it has 10000 timers already"), "{timers}");
    let cancelled = said(&looped("(call $cancel (i32.const 1040) (i32.const 4))"));
    assert!(cancelled.starts_with("it cancelled more than 10000 timers"), "{cancelled}");
    let state = said(&looped("(call $set (i32.const 1040) (i32.const 4) (i32.const 1040) (i32.const 4))"));
    assert!(state.starts_with("it would keep more than 1048576 bytes (`max_state`)"), "{state}");
    let name = said(&runs("(call $cancel (i32.const 1040) (i32.const 2000)) (i32.const 16)"));
    assert!(name.starts_with("the name of a timer has 2000 bytes, and may have 1024"), "{name}");
    // A hundred lines of a million, and a word of the rest.
    let mut talker = rule(&looped("(call $log (i32.const 1) (i32.const 1044) (i32.const 4))"), &manifest);
    let (out, outcome) = call(&mut talker, &numbers(3, &[7.0]), 0);
    assert_eq!((outcome, out.bad_rows), (Ok(()), 0));
    assert_eq!(out.log.last().unwrap().text, "999900 more lines were dropped: a call may log 100");
    assert_eq!(out.log.len(), 101);
}

/// Writes `rows` rows with a column, as the bytes of `written` and those behind it say.
fn writes(rows: u32, causes: &str, written: &str) -> String {
    let data = format!(
        r#"(data (i32.const 4096) "{causes}") (data (i32.const 8192) "{written}")
        (data (i32.const 12288) "\00\00\00\00\01\00\00\00\02\00\00\00\ff\fe")"#
    );
    let write = format!(
        "(drop (memory.grow (i32.const 16))) (call $write (local.get $input) (i32.const 4096) (i32.const {rows}) (i32.const 8192) (i32.const 1)) (i32.const 16)"
    );
    format!("{data} {}", runs(&write))
}

/// `written` of rule.wit for column `field`: all valid, case `case`, a list of `many` at 12288.
fn list(field: u8, case: u8, many: u8) -> String {
    format!(
        r"\{field:02x}\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\{case:02x}\00\00\00\00\30\00\00\{many:02x}\00\00\00"
    )
}

#[test]
fn what_it_writes_is_looked_at() {
    const ZERO: &str = r"\00\00\00\00";
    const ONE: &str = r"\01\00\00\00";
    let said = |manifest: &str, rows, causes: &str, written: &str| {
        let (out, outcome) =
            call(&mut rule(&writes(rows, causes, written), manifest), &numbers(3, &[7.0]), 0);
        assert_eq!((outcome, out.bad_rows), (Ok(()), 1), "{:?}", out.rows);
        let why = out.bad_row.unwrap_or_default();
        why.strip_suffix(ROW).map(|why| why.trim_end().to_owned()).unwrap_or(why)
    };
    let scores = "column `score` of `uplink`";
    for (rows, causes, written, expected) in [
        (1, ZERO, list(1, 1, 1), format!("{scores} takes float64 values, and the plugin wrote int64")),
        (1, ZERO, list(1, 2, 2), format!("{scores} got 2 values for 1 rows")),
        (1, ZERO, list(2, 2, 1), "it wrote column 2 of `uplink`, which has 2 (from 0 on)".to_owned()),
        (
            1,
            ONE,
            list(1, 2, 1),
            "it wrote to `uplink` because of row 1, and was given 1 (from 0 on)".to_owned(),
        ),
        (
            2,
            &format!("{ONE}{ZERO}"),
            list(1, 2, 2),
            "`causes` of what it wrote to `uplink` decrease".to_owned(),
        ),
        (100_001, ZERO, list(1, 2, 1), "it wrote more than 100000 rows, or 32 MiB, at a time".to_owned()),
    ] {
        assert_eq!(said(TO_UPLINK, rows, causes, &written), expected);
    }
    let hot = "reads = [\"tank\"]\nwrites = [\"hot\"]";
    let no_time = "what it wrote does not fit: every row of stream `hot` needs its event time";
    assert_eq!(said(hot, 1, ZERO, &list(1, 2, 1)), no_time);
    // Text: offsets at 12288 and data that is no UTF-8 behind them.
    let texts = "reads = [\"tank\"]\n[writes.uplink]\ncolumns = { device = \"utf8\" }\n";
    let text = |offsets: u8, first: u8, bytes: u8| {
        let head = list(0, 4, offsets).replace(r"\00\30\00\00", &format!(r"\{first:02x}\30\00\00"));
        format!(r"{head}\0c\30\00\00\{bytes:02x}\00\00\00")
    };
    let device = "column `device` of `uplink`";
    let invalid = said(texts, 1, ZERO, &text(2, 0, 2));
    assert!(invalid.starts_with(&format!("{device} got text that is not UTF-8: ")), "{invalid}");
    assert_eq!(said(texts, 1, ZERO, &text(3, 0, 2)), format!("{device} got 3 offsets for 1 rows, and not 2"));
    let grow = "got offsets that do not grow from 0 to at most";
    assert_eq!(said(texts, 1, ZERO, &text(2, 4, 1)), format!("{device} {grow} 1, the bytes of its data"));
}

#[test]
fn only_the_rows_that_fail_are_left_out() {
    // Fails for every row below zero, wherever in the batch that is.
    let failing = COUNTER
        .replace("(call $after (i64.const 1000000000) (i32.const 1040) (i32.const 1))", "(unreachable)");
    let mut rule = rule(&failing, COUNTS);
    let temperatures: Vec<f64> = (0..100).map(|n| if n % 10 == 3 { -1.0 } else { 1.0 }).collect();
    let (out, outcome) = call(&mut rule, &numbers(0, &temperatures), 0);
    assert_eq!((outcome, out.bad_rows), (Ok(()), 10));
    let good: Vec<u64> = (0..100).filter(|n| n % 10 != 3).collect();
    let expected: Vec<(u64, i64)> = good.into_iter().zip(1..).collect();
    let mut found = counts(&out);
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(out.rows.len(), 1);
}

#[test]
fn one_that_never_works_is_stopped_and_counts_on_after_a_restart() {
    let code = runs("(unreachable)");
    let mut first = rule(&code, TO_UPLINK);
    let (out, outcome) = call(&mut first, &numbers(0, &[0.0; 5]), 0);
    assert_eq!((outcome, out.bad_rows), (Ok(()), 5));
    let mut again = rule(&code, TO_UPLINK);
    again.restore(first.snapshot().unwrap()).unwrap();
    for mut rule in [first, again] {
        let (out, outcome) = call(&mut rule, &numbers(5, &[0.0; 5]), 0);
        let why = outcome.unwrap_err().0;
        assert!(why.starts_with("8 rows failed one after the other, the last one: it gave up"), "{why}");
        assert_eq!((out.bad_rows, out.stopped_at), (3, None));
    }
}

#[test]
fn a_batch_that_is_too_much_is_handed_over_in_parts() {
    let manifest = format!("{TO_UPLINK}[limits]\nfuel = 20000\n");
    let mut rule = rule(THRESHOLD, &manifest);
    let temperatures = vec![81.0; 1000];
    for first in [0, 1000] {
        let (out, outcome) = call(&mut rule, &numbers(first, &temperatures), 0);
        assert_eq!((outcome, out.bad_rows, out.rows.len()), (Ok(()), 0, 1));
        assert_eq!((out.rows[0].rows.len(), out.rows[0].rows.seqs.get(999)), (1000, first + 999));
    }
}

#[test]
fn timers_and_init_fail_as_rows_do() {
    let set = "(call $after (i64.const 1) (i32.const 1040) (i32.const 2)) (i32.const 16)";
    let mut rule = rule(&with(set, "(unreachable)", "(i32.const 16)"), TO_UPLINK);
    call(&mut rule, &numbers(3, &[7.0]), 0).1.unwrap();
    // At least a millisecond.
    assert_eq!(rule.wakes_at(), Some(1_000_000));
    let mut out = Emissions::default();
    assert_eq!(rule.on_tick(4, When::at(1_000_000), &mut out), Ok(()));
    let why = "it gave up without a word in on_timer (timer `ab`)";
    assert_eq!((out.bad_rows, out.bad_row.as_deref(), rule.wakes_at()), (1, Some(why), None));
    let said = |init: &str| {
        let said =
            refusal(&component(&with("(i32.const 16)", "(i32.const 16)", init)), TO_UPLINK, &catalog());
        said.strip_prefix("rules/a.toml:1:1: the plugin does not take its configuration: ")
            .unwrap()
            .to_owned()
    };
    assert_eq!(said("(unreachable)"), "it gave up without a word in init");
    assert_eq!(
        said("(call $cancel (i32.const 1) (i32.const 1)) (i32.const 16)"),
        "`configure` cannot cancel timers"
    );
    assert_eq!(
        said("(drop (call $now)) (i32.const 16)"),
        "it asked for the time in `configure`, which must do the same at any time"
    );
    assert!(said("(call $recurse (i32.const 1))").starts_with("its stack was full"));
}

#[test]
fn it_may_fail_outside_of_what_it_was_called_for() {
    // `config-schema`, the memory for arguments, and what comes after a call.
    let with = |what: &str, instead: &str| {
        let text = include_str!("../../../tests/wasm/plugin.wat");
        assert!(text.contains(what), "{what}");
        let text = text.replace(what, instead).replace("{{CODE}}", THRESHOLD).replace("{{VERSION}}", "1.0.0");
        wat::parse_str(text).unwrap()
    };
    let schema = with("(result i32) (i32.const 0))", "(result i32) (unreachable))");
    let gave_up = "it gave up without a word";
    assert_eq!(super::super::config_schema(&schema), Err(gave_up.to_owned()));
    // Nobody asks for it while it runs.
    assert!(compile(&schema, TO_UPLINK, &catalog()).is_ok());
    for (what, instead, expected) in [
        ("(call $alloc (local.get 3))", "(unreachable)", gave_up),
        ("(call $alloc (local.get 3))", "(i32.const -8)", "realloc return: beyond end of memory"),
        ("(param i32) (global.set $top (i32.const 65536))", "(param i32) (unreachable)", gave_up),
    ] {
        let said = refusal(&with(what, instead), TO_UPLINK, &catalog());
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_is_no_plugin_is_refused_with_the_reason() {
    let said = |bytes: &[u8]| {
        refusal(bytes, TO_UPLINK, &catalog()).strip_prefix("rules/a.wasm: ").unwrap_or_default().to_owned()
    };
    assert_eq!(said(b"#!/bin/sh\n"), "it is no WebAssembly");
    let module = wat::parse_str("(module)").unwrap();
    assert!(said(&module).starts_with("it is a module and not a component"), "{}", said(&module));
    let empty = wat::parse_str("(component)").unwrap();
    let other = "it has no function `config-schema`: it was built for another world than tidegate:rule";
    assert_eq!(said(&empty), other);
    let newer = component_of_version(THRESHOLD, "2.0.0");
    let version = "it was built for version 2.0.0 of tidegate:rule, and this tidegate has 1.0.0: build it with the \
        SDK of this tidegate";
    assert_eq!(said(&newer), version);
    let wasi = wat::parse_str(r#"(component (import "wasi:cli/exit@0.2.0" (instance)))"#).unwrap();
    assert!(
        said(&wasi).starts_with("it asks for `wasi:cli/exit@0.2.0`, and plugins get no clock"),
        "{}",
        said(&wasi)
    );
    // Whatever is missing at its end.
    let good = component(THRESHOLD);
    for end in (0..good.len()).step_by(97) {
        assert!(!said(&good[..end]).is_empty(), "{end}");
    }
}

#[test]
fn a_box_can_ask_for_signatures() {
    let good = component(THRESHOLD);
    let said = |manifest: &str, must_be_signed: bool, trusted_keys: &[&str]| {
        let trusted_keys = trusted_keys.iter().map(|key| (*key).to_owned()).collect();
        let plugins = Plugins { must_be_signed, trusted_keys, ..Plugins::default() };
        refusal(&good, manifest, &Catalog { plugins, ..catalog() })
    };
    let key = "RWTjMd/chK3+FO6GRe072y+JtgyQnlY6q7atffSFBImFftUTxEnaX05O";
    let signed = super::super::signature::with_signature(TO_UPLINK, "x");
    assert_eq!([said(TO_UPLINK, false, &[key]), said(&signed, false, &[])], ["", ""]);
    let refusals = [said(TO_UPLINK, true, &[key]), said(&signed, true, &[]), said(&signed, false, &[key])];
    for (said, expected) in refusals.iter().zip([
        "rules/a.toml: the plugin is not signed, and must be on this box; sign it",
        "rules/a.toml: plugins must be signed here, and the configuration trusts nobody; write",
        "rules/a.toml: the signature cannot be read: ",
    ]) {
        assert!(said.starts_with(expected), "{said}");
    }
}
