//! What cannot be done on an endless stream is refused with the reason and the form that works; what is
//! probably not meant is taken with a warning.
//!
//! `refusals/NAME.sql` is the rule, `refusals/NAME.err` what its author is told; so it is in `warnings`. Set
//! `UPDATE_GOLDEN=1` to write the texts anew.

use crate::bench_rows::{catalog, compile};
use std::fs;
use std::path::Path;
use tidegate_core::Diagnostic;
use tidegate_rules::CompileError;

/// What authors are told of the rules in the directory `cases`, and whether they are told so by an error.
fn compare(cases: &str, least: usize, refused: bool) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(cases);
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "sql"))
        .collect();
    names.sort();
    assert!(names.len() >= least, "the directory of cases was found");
    let mut wrong = Vec::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let lines = |said: &[Diagnostic]| said.iter().map(|d| format!("{d}\n")).collect::<String>();
        let said = match compile(file, &text, &catalog()) {
            Err(CompileError::Wrong(said)) if refused => lines(&said),
            Err(CompileError::Wrong(said)) => format!("refused: {}", lines(&said)),
            Err(CompileError::Waiting(streams)) => format!("waiting for {streams:?}\n"),
            Ok(_) if refused => "no error\n".to_owned(),
            Ok(compiled) => lines(&compiled.warnings),
        };
        let golden = path.with_extension("err");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &said).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{file}\n  said:     {said}  expected: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_refusal_names_the_place_and_the_way_out() {
    compare("refusals", 20, true);
}

#[test]
fn each_warning_names_the_place_and_what_is_meant() {
    compare("warnings", 1, false);
}

/// Nobody who writes rules knows the planner, or its types.
#[test]
fn no_message_speaks_in_the_planners_words() {
    const THEIRS: [&str; 22] = [
        "DataFusion",
        "Utf8",
        "Int64",
        "Int32",
        "UInt64",
        "Float64",
        "Boolean",
        "Timestamp(",
        "IntervalMonthDayNano",
        "Interval(",
        "MonthDayNano",
        "Null",
        "signature",
        "coercion",
        "coerce",
        "sqltorel",
        "projection",
        "predicate",
        "ast node",
        "schema",
        "Arrow",
        "expr type",
    ];
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let dirs = [tests.join("refusals"), tests.join("warnings"), tests.join("../../tests/golden/errors")];
    let (mut found, mut walked) = (Vec::new(), 0);
    for dir in dirs {
        for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_none_or(|end| end != "err" && end != "txt") {
                continue;
            }
            walked += 1;
            for line in fs::read_to_string(&path).unwrap().lines() {
                let words: Vec<_> = THEIRS.into_iter().filter(|word| line.contains(word)).collect();
                if !words.is_empty() {
                    found.push(format!("{}: {words:?}: {line}", path.display()));
                }
            }
        }
    }
    assert!(walked > 100, "the texts were found");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The place is that of the clause: the first word of a statement is wrong in few of them.
#[test]
fn the_place_is_where_the_fault_is() {
    // The whole statement is none of a rule.
    const WHOLE: [&str; 13] = [
        "begin",
        "comment_hash",
        "comment_sharp",
        "comment_slashes",
        "delete",
        "late_rows_columns",
        "late_rows_unknown",
        "no_from",
        "option_below",
        "option_in_comment",
        "option_spaced",
        "select_alone",
        "too_many_steps",
    ];
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refusals");
    let mut at_the_start = Vec::new();
    for path in fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "err"))
    {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        at_the_start.extend(
            text.lines()
                .filter(|line| line.contains(":1: ") && !WHOLE.contains(&name.as_str()))
                .map(str::to_owned),
        );
    }
    assert!(at_the_start.is_empty(), "{}", at_the_start.join("\n"));
}

/// What messages say to write instead of what other products have.
#[test]
fn the_forms_that_are_named_compile() {
    let mut wrong = Vec::new();
    for form in [
        "ts - INTERVAL '1' HOUR",
        "date_part('epoch', ts)",
        "date_part('epoch', ts - lag(ts) OVER (PARTITION BY device))",
        "ts - lag(ts) OVER (PARTITION BY device) > INTERVAL '10' SECOND",
        "to_char(ts, '%A')",
        "date_part('hour', ts)",
        "strpos(device, 'a')",
        "to_timestamp(device, '%d.%m.%Y %H:%M:%S')",
        "date_bin(INTERVAL '10' SECOND, ts)",
        "coalesce(temperature, 0)",
        "floor(temperature)",
        "ceil(temperature)",
        "to_timestamp(0)",
        "to_timestamp_millis(count)",
        "from_unixtime(count)",
        "length(device)",
        "CURRENT_DATE",
        "avg(temperature) OVER (PARTITION BY device ROWS 9 PRECEDING)",
        "ewma(temperature, 0.2) OVER (PARTITION BY device)",
        "since(temperature > 80) OVER (PARTITION BY device)",
    ] {
        let rule = format!("INSERT INTO uplink SELECT {form} AS x FROM tank");
        wrong.extend(compile("rule.sql", &rule, &catalog()).err().map(|error| (form, error)));
    }
    for form in [
        "approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY temperature)",
        "string_agg(device, ',')",
        "array_agg(device)",
        "count(*) FILTER (WHERE temperature > 80)",
        "sum(temperature) FILTER (WHERE temperature > 80)",
        "first_value(temperature)",
        "last_value(temperature)",
        "max(temperature) - min(temperature)",
    ] {
        let from = "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end";
        let rule = format!("INSERT INTO uplink SELECT {form} AS x FROM {from}");
        wrong.extend(compile("rule.sql", &rule, &catalog()).err().map(|error| (form, error)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn any_text_gives_a_rule_or_an_error() {
    use proptest::prelude::*;
    let words = prop::sample::select(include_str!("../words.txt").lines().collect::<Vec<_>>());
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(text in prop::collection::vec(words, 0..40))| {
        let _ = compile("any.sql", &text.join(" "), &catalog());
        // Options stand before all else, a line each.
        let (options, words): (Vec<&str>, Vec<&str>) = text.into_iter().partition(|word| word.starts_with("--!"));
        let _ = compile("any.sql", &format!("{}\nINSERT INTO uplink SELECT {}", options.join("\n"), words.join(" ")), &catalog());
    });
}
