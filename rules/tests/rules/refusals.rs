//! What cannot be done on an endless stream is refused with the reason and the form that works.
//!
//! `refusals/NAME.sql` is the rule, `refusals/NAME.err` what its author is told. Set `UPDATE_GOLDEN=1` to write the texts anew.

use crate::bench_rows::catalog;
use std::fs;
use std::path::Path;
use tidegate_rules::{CompileError, compile};

#[test]
fn each_refusal_names_the_place_and_the_way_out() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refusals");
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "sql")).collect();
    names.sort();
    assert!(names.len() >= 20, "the directory of cases was found");
    let mut wrong = Vec::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let said = match compile(file, &text, &catalog()) {
            Err(CompileError::Wrong(said)) => said.iter().map(|d| format!("{d}\n")).collect::<String>(),
            Err(CompileError::Waiting(streams)) => format!("waiting for {streams:?}\n"),
            Ok(_) => "no error\n".to_owned(),
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
