//! The engine's modules lie in rooms, and no circle leads from one of them back to itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files, read, root};

/// Of each module, those that it needs.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// Rooms whose files are one module: of the buffer, each has its tables, and one transaction writes them all.
const WHOLE: [&str; 1] = ["buffer"];

/// The module that `path`, words of a path below `crate::`, leads to: a file of a room, or the room.
fn module(path: &[&str], known: &BTreeSet<String>) -> Option<String> {
    let (room, inner) = (path.first()?, path.get(1));
    let file = inner.map(|inner| format!("{room}::{inner}"));
    let room = || known.contains(*room).then(|| (*room).to_owned());
    file.filter(|file| known.contains(file)).or_else(room)
}

/// The words of the path of a file's module below `crate::`.
fn place(file: &str) -> Vec<&str> {
    let inner = file.trim_start_matches("engine/src/").trim_end_matches(".rs");
    inner.split('/').filter(|word| *word != "mod").collect()
}

/// The paths in `code` that begin with `crate` or `super`; of `use a::{b, c}` both.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for (at, _) in ["crate::", "super::"].into_iter().flat_map(|start| code.match_indices(start)) {
        if !code[..at].ends_with(|before: char| before == ':' || is_of_a_word(before)) {
            branches(&code[at..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Goes along the path at the beginning of `text`, which is behind `path`. Returns what follows.
fn branches<'a>(mut text: &'a str, path: &mut Vec<&'a str>, found: &mut Vec<Vec<&'a str>>) -> &'a str {
    let depth = path.len();
    loop {
        text = text.trim_start();
        let (word, rest) = text.split_at(text.find(|c| !is_of_a_word(c)).unwrap_or(text.len()));
        path.extend((!word.is_empty()).then_some(word));
        let Some(rest) = rest.strip_prefix("::").filter(|_| !word.is_empty()) else {
            found.push(path.clone());
            text = rest;
            break;
        };
        text = rest;
        let Some(group) = rest.trim_start().strip_prefix('{') else { continue };
        text = group;
        loop {
            text = branches(text, path, found).trim_start_matches(|c| c != ',' && c != '}');
            match text.strip_prefix(',') {
                Some(rest) => text = rest,
                None => break,
            }
        }
        text = text.strip_prefix('}').unwrap_or(text);
        break;
    }
    path.truncate(depth);
    text
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The modules that the code of the module at `place` names, comments apart. That a room's own module names
/// its files is no need, and not looked at.
fn named(text: &str, place: &[&str], known: &BTreeSet<String>) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let named = paths(&code).into_iter().filter_map(|path| {
        let ups = path.iter().take_while(|word| **word == "super").count();
        let from: &[&str] = if ups == 0 { &[] } else { &place[..place.len().saturating_sub(ups)] };
        let below: Vec<&str> = from.iter().chain(&path[ups.max(1)..]).copied().collect();
        module(&below, known)
    });
    named.collect()
}

/// Those that lead back to themselves.
fn on_a_circle(needs: &Needs) -> BTreeSet<String> {
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

/// What the modules of the engine need, tests apart.
fn needs_of_the_engine() -> Needs {
    let all = files(&root().join("engine/src"), "rs");
    let sources: Vec<String> = all.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let sources: Vec<&String> = sources.iter().filter(|path| !path.contains("tests")).collect();
    let of_file = |place: &[&str]| match place {
        [room, ..] if WHOLE.contains(room) => (*room).to_owned(),
        [room, inner, ..] => format!("{room}::{inner}"),
        other => other.concat(),
    };
    let known: BTreeSet<String> = sources.iter().map(|path| of_file(&place(path))).collect();
    let mut needs = Needs::new();
    for path in sources {
        let text = read(path.as_ref());
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
        let own = of_file(&place(path));
        let mut needed = named(code, &place(path), &known);
        needed.remove(&own);
        needs.entry(own).or_default().extend(needed);
    }
    needs
}

#[test]
fn no_module_of_the_engine_needs_itself() {
    let needs = needs_of_the_engine();
    for known in ["sequencer::journal", "rules::book", "outputs::queue", "management::managed_box", "buffer"]
    {
        assert!(needs.contains_key(known), "`{known}` was not found: {needs:?}");
    }
    let circles = on_a_circle(&needs);
    assert!(circles.is_empty(), "what they share belongs into one that needs neither: {circles:?}");
}

#[test]
fn no_room_of_the_engine_needs_itself() {
    let room = |module: &str| module.split("::").next().unwrap_or(module).to_owned();
    let mut rooms = Needs::new();
    for (module, needed) in needs_of_the_engine() {
        let own = room(&module);
        let others = needed.iter().map(|needed| room(needed)).filter(|other| *other != own);
        rooms.entry(own.clone()).or_default().extend(others);
    }
    let circles = on_a_circle(&rooms);
    assert!(circles.is_empty(), "what they share belongs into one that needs neither: {circles:?}");
}

#[test]
fn circles_are_found() {
    let needs = |pairs: &[(&str, &str)]| {
        let mut needs = Needs::new();
        for (from, to) in pairs {
            needs.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        needs
    };
    assert!(on_a_circle(&needs(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = on_a_circle(&needs(&[("a", "b"), ("b", "c"), ("c", "b")]));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn names_of_modules_are_found() {
    let known = ["rules::book", "rules::worker", "rules", "tap", "config", "outputs::queue"];
    let known: BTreeSet<String> = known.into_iter().map(str::to_owned).collect();
    let text = "
        use crate::{config::{self, Config as C}, rules::book::{Book, inner::More}};
        // crate::run
        let x = crate::tap::Tap::default();
        pub(super) use super::super::rules::worker;
        use super::{queue::OutputQueue, waiting};";
    let found = named(text, &["outputs", "delivery"], &known);
    let expected = ["config", "outputs::queue", "rules::book", "rules::worker", "tap"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}
