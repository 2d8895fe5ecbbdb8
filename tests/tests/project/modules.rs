//! The engine's modules lie in rooms, and no circle leads from one of them back to itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files, read, root};

/// Rooms whose files are modules of their own; elsewhere a folder is one.
const ROOMS: [&str; 2] = ["rules", "sequence"];

/// The module that `path`, words of a path below `crate::`, leads to.
fn module(path: &[&str]) -> String {
    match path {
        [room, inner, ..] if ROOMS.contains(room) && *inner != "mod" => format!("{room}::{inner}"),
        [first, ..] => (*first).to_owned(),
        [] => String::new(),
    }
}

/// The modules that a text names as `crate::..`, comments apart.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
    let paths = code.split("crate::").skip(1).map(|rest| {
        let words = rest.split("::").map(|word| word.split(|c| !is_word(c)).next().unwrap_or(""));
        module(&words.take(2).filter(|word| !word.is_empty()).collect::<Vec<_>>())
    });
    paths.filter(|module| !module.is_empty()).collect()
}

/// Those that lead back to themselves.
fn on_a_circle(needs: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let reached = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(
                needs.get(module).into_iter().flatten().filter(|needed| seen.insert((*needed).clone())),
            );
        }
        seen
    };
    needs.keys().filter(|module| reached(module).contains(*module)).cloned().collect()
}

#[test]
fn no_module_of_the_engine_needs_itself() {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files(&root().join("engine/src"), "rs") {
        let shown = path.to_string_lossy().replace("engine/src/", "");
        if shown.contains("tests") {
            continue;
        }
        let text = read(&path);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
        let shown = shown.trim_end_matches(".rs");
        let own = module(&shown.split('/').collect::<Vec<_>>());
        let needed = named(code).into_iter().filter(|needed| *needed != own);
        needs.entry(own.clone()).or_default().extend(needed);
    }
    assert!(
        needs.contains_key("sequence::journal") && needs.contains_key("rules::book"),
        "not found: {needs:?}"
    );
    let circles = on_a_circle(&needs);
    assert!(circles.is_empty(), "what they share belongs into one that needs neither: {circles:?}");
}

#[test]
fn circles_are_found() {
    let needs = |pairs: &[(&str, &str)]| {
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            needs.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        needs
    };
    assert!(on_a_circle(&needs(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = on_a_circle(&needs(&[("a", "b"), ("b", "c"), ("c", "b")]));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["b", "c"]);
    let text = "use crate::rules::book::RuleBook;\n// crate::run\nlet x = crate::tap::Tap::default();";
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["rules::book", "tap"]);
}
