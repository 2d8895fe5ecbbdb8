//! Habits that a reader relies on and that neither the compiler nor clippy checks.

use std::path::PathBuf;

use crate::{files, read, root};

/// A file tells one story. Beyond this it is more than one; about 500 is long already.
const LONGEST_FILE: usize = 800;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "misc"];

/// What a rule must not reach for: it would no longer be a function of its rows.
const OUTSIDE_WORLD: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "SystemTime",
    "Instant",
    "Utc::now",
    "Local::now",
    "tokio::",
];

fn sources() -> Vec<PathBuf> {
    let found = files(&root(), "rs");
    assert!(found.len() > 30, "the sources were not found");
    found
}

#[test]
fn no_file_tells_more_than_one_story() {
    let long: Vec<String> = sources()
        .iter()
        .map(|file| (file, read(file).lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(file, lines)| format!("{} has {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "split these (the limit is {LONGEST_FILE}): {long:#?}");
}

#[test]
fn modules_are_named_for_nouns_of_the_domain() {
    let empty: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| {
            file.components()
                .any(|part| EMPTY_NAMES.contains(&part.as_os_str().to_string_lossy().trim_end_matches(".rs")))
        })
        .collect();
    assert!(empty.is_empty(), "these names say nothing about what is inside: {empty:#?}");
}

/// Whether `code` has `name` in it, and not as a part of a longer one, such as SQL's `ForSystemTimeAsOf`.
fn has_name(code: &str, name: &str) -> bool {
    let of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| !code[..at].ends_with(of_a_name))
}

#[test]
fn rules_have_no_files_network_clock_or_runtime() {
    let mut found = Vec::new();
    let rules = files(&root().join("rules/src"), "rs");
    assert!(rules.len() > 5, "the rules were not found");
    for file in rules {
        for (number, line) in (1..).zip(read(&file).lines()) {
            let code = line.split("//").next().unwrap_or("");
            if let Some(word) = OUTSIDE_WORLD.iter().find(|word| has_name(code, word)) {
                found.push(format!("{}:{number}: `{word}`", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "a rule is a function of its rows: {found:#?}");
}

#[test]
fn trust_takes_time_and_bytes_from_its_caller() {
    let mut found = Vec::new();
    let sources = files(&root().join("trust/src"), "rs");
    assert!(sources.len() > 5, "the crate was not found");
    for file in sources {
        for (number, line) in (1..).zip(read(&file).lines()) {
            let code = line.split("//").next().unwrap_or("");
            let outside = OUTSIDE_WORLD.iter().chain(&["Timestamp::now", "Zoned::now"]);
            if let Some(word) = outside.into_iter().find(|word| has_name(code, word)) {
                found.push(format!("{}:{number}: `{word}`", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "time, randomness and files are arguments: {found:#?}");
}

/// What every rule language shares; what only SQL can do is asked for in `capability`.
const NO_LANGUAGE: &[&str] = &[
    "rule.rs",
    "source.rs",
    "options.rs",
    "target.rs",
    "catalog.rs",
    "types.rs",
    "evaluation.rs",
    "limit.rs",
    "index",
];

#[test]
fn what_all_rule_languages_share_knows_none_of_them() {
    let of_sql = |file: &PathBuf| {
        let text = read(file);
        // What the index looks at are expressions of DataFusion, whoever made them.
        let is_index = file.components().any(|part| part.as_os_str() == "index");
        (1..)
            .zip(text.lines())
            .filter(|(_, line)| line.contains("crate::sql") || line.contains("datafusion") && !is_index)
            .map(|(number, _)| format!("{}:{number}", file.display()))
            .collect::<Vec<_>>()
    };
    let shared = NO_LANGUAGE.iter().map(|place| root().join("rules/src").join(place));
    let shared: Vec<PathBuf> =
        shared.flat_map(|place| if place.is_dir() { files(&place, "rs") } else { vec![place] }).collect();
    assert!(shared.len() >= NO_LANGUAGE.len());
    let found: Vec<String> = shared.iter().flat_map(of_sql).collect();
    assert!(found.is_empty(), "these are for all languages: {found:#?}");
}
