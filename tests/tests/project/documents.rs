//! Documents say what is so: their links lead somewhere, and what they promise is there.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{files, read, root};

/// The lines of a document outside of code blocks, with their numbers, without `code` in them.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            // Every second piece between backticks is code.
            lines.push((number, line.split('`').step_by(2).collect::<Vec<_>>().join("code")));
        }
    }
    lines
}

/// What the document links to, with line numbers: `[text](target)`, `src="target"`, `srcset="target"`,
/// `href="target"`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for (open, close) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"'), ("href=\"", '"')] {
            for after in line.split(open).skip(1) {
                if let Some(target) = after.split(close).next() {
                    found.push((number, target.to_owned()));
                }
            }
        }
    }
    found
}

/// The anchors that GitHub gives to the headings of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Why the link `target` in `file` leads nowhere, if it does.
fn broken(file: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let there: PathBuf = if path.is_empty() { file.to_owned() } else { file.parent().unwrap().join(path) };
    if !root().join(&there).exists() {
        return Some(format!("there is no {}", there.display()));
    }
    let anchor = anchor?;
    (!anchors(&read(&there)).contains(anchor))
        .then(|| format!("{} has no heading for #{anchor}", there.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let documents = files(&root(), "md");
    assert!(documents.len() > 5, "the documents were not found");
    let mut wrong = Vec::new();
    for file in documents {
        for (line, target) in links(&read(&file)) {
            if let Some(why) = broken(&file, &target) {
                wrong.push(format!("{}:{line}: ({target}) {why}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let text = "see [a](gone.md), [b](#no-such-heading)\n```\n[c](in-code.md)\n```\nand `[d](e.md)` <img \
        src=\"f.svg\">";
    let targets: Vec<String> = links(text).into_iter().map(|(_, target)| target).collect();
    assert_eq!(targets, ["gone.md", "#no-such-heading", "f.svg"]);
    let file = Path::new("README.md");
    assert!(targets.iter().all(|target| broken(file, target).is_some()));
    assert_eq!(broken(file, "LICENSE"), None);
    assert_eq!(anchors("## `[streams.NAME]`\n# What is not there yet").len(), 2);
    assert!(anchors("# What is not there yet").contains("what-is-not-there-yet"));
}

#[test]
fn the_change_log_speaks_of_this_version() {
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(
        read(Path::new("CHANGELOG.md")).lines().any(|line| line.starts_with(&heading)),
        "CHANGELOG.md has no `{heading}`"
    );
}

#[test]
fn every_decision_has_a_number_of_its_own_and_a_title() {
    let mut numbers = BTreeSet::new();
    for file in files(&root().join("docs/decisions"), "md") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let number = name.split('-').next().unwrap().to_owned();
        assert!(
            number.len() == 4 && number.parse::<u16>().is_ok(),
            "{name}: call it NNNN-what-was-decided.md"
        );
        assert!(
            read(&file).starts_with(&format!("# {number}: ")),
            "{name}: begin with `# {number}: what was decided`"
        );
        assert!(numbers.insert(number), "{name}: another decision has its number");
    }
    assert!(numbers.contains("0001"), "the decisions were not found");
}

#[test]
fn what_ci_runs_is_what_the_readme_says() {
    for script in ["tests/run", ".ci/run"] {
        let mode = root().join(script).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable");
    }
    assert!(read(Path::new(".ci/run")).contains("tests/run"), ".ci/run does not call tests/run");
    assert!(
        read(Path::new("README.md")).lines().any(|line| line == "./tests/run"),
        "README.md does not name ./tests/run"
    );
}
