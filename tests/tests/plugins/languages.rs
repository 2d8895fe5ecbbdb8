//! The same rule in SQL, in Rhai and as a plugin writes the same rows, byte for byte.
//!
//! Cases are found by walking `tests/languages`. A case is a directory: its rule three times (`rule.sql`,
//! `rule.rhai`, and `plugin.toml` for the plugin in `tests/plugins/languages`), what comes in (`rows.jsonl`
//! for the stream `tank`, or `rows.STREAM.jsonl`), and what must come out (`expected.jsonl`), as a program
//! reckons that knows nothing of Tidegate (`expected.py`). In `next` is the version that takes the place of
//! the first one after so many rows (`next/after`). `by_the_clock` says that it matters when rows come.

mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tidegate_rules::{Language, Source, wasm};
use tidegate_tests::box_under_test::binary;

use crate::{prepared, said};
use run::Way;

/// A directory with a rule in three languages.
struct Case {
    dir: PathBuf,
}

/// One version of its rule.
struct Version {
    dir: PathBuf,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("languages")
}

fn cases() -> Vec<Case> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.retain(|path| path.is_dir());
    dirs.sort();
    assert!(dirs.len() >= 10, "the directory of cases was found");
    dirs.into_iter().map(|dir| Case { dir }).collect()
}

impl Case {
    fn name(&self) -> String {
        self.dir.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn config(&self) -> PathBuf {
        root().join("tidegate.toml")
    }

    /// The recordings, with their streams.
    fn inputs(&self) -> Vec<(String, PathBuf)> {
        let files = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let mut inputs: Vec<(String, PathBuf)> = files
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?.strip_prefix("rows")?.strip_suffix(".jsonl")?;
                Some((name.strip_prefix('.').unwrap_or("tank").to_owned(), path))
            })
            .collect();
        inputs.sort();
        inputs
    }

    fn expected(&self) -> String {
        fs::read_to_string(self.dir.join("expected.jsonl")).unwrap()
    }

    fn is_by_the_clock(&self) -> bool {
        self.dir.join("by_the_clock").exists()
    }

    fn first(&self) -> Version {
        Version { dir: self.dir.clone() }
    }

    /// After how many rows another version takes the place of the first one.
    fn next(&self) -> Option<(usize, Version)> {
        let dir = self.dir.join("next");
        let after = fs::read_to_string(dir.join("after")).ok()?;
        Some((after.trim().parse().unwrap(), Version { dir }))
    }
}

/// The rules of all cases as one component.
fn component() -> Vec<u8> {
    fs::read(prepared().join("languages.wasm")).expect("run tests/plugins/prepare first")
}

impl Version {
    fn source(&self, language: Language) -> Source {
        if language == Language::Wasm {
            let manifest = fs::read_to_string(self.dir.join("plugin.toml")).unwrap();
            return Source::new(language, wasm::pack(&component(), &manifest));
        }
        Source::new(language, fs::read(self.dir.join("rule").with_extension(language.extension())).unwrap())
    }

    /// Puts it into a rules directory.
    fn install(&self, language: Language, rules: &Path) {
        let file = rules.join("rule").with_extension(language.extension());
        match language {
            Language::Wasm => {
                fs::write(file, component()).unwrap();
                fs::copy(self.dir.join("plugin.toml"), rules.join("rule.toml")).unwrap();
            }
            _ => drop(fs::copy(self.dir.join(file.file_name().unwrap()), file).unwrap()),
        }
    }
}

#[test]
fn what_is_expected_is_what_another_program_reckons() {
    for case in cases() {
        let reckoned = Command::new("python3")
            .arg("expected.py")
            .current_dir(&case.dir)
            .env("PYTHONPATH", root())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONIOENCODING", "utf-8")
            .output()
            .unwrap();
        assert!(reckoned.status.success(), "{}: {}", case.name(), said(&reckoned));
        same(&case, "expected.py", &String::from_utf8(reckoned.stdout).unwrap(), &case.expected());
    }
}

#[test]
fn a_rule_in_rhai_writes_what_it_writes_in_sql() {
    compare(&[Language::Sql, Language::Rhai]);
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn a_plugin_writes_what_the_rule_writes_in_sql() {
    compare(&[Language::Sql, Language::Wasm]);
}

#[test]
#[ignore = "needs a compiler for plugins"]
fn a_replay_prints_the_same_bytes_for_each_language() {
    for case in cases().into_iter().filter(|case| case.next().is_none()) {
        let mut printed: Vec<String> = Vec::new();
        for language in Language::ALL {
            let output = replay(&case, language);
            assert!(output.status.success(), "{} {language:?}: {}", case.name(), said(&output));
            let text = String::from_utf8(output.stdout.clone()).unwrap();
            let what = format!("tidegate replay, {language:?}");
            let rows: String = text.lines().map(|line| without(line, "rule", "row")).collect();
            same(&case, &format!("{what}\n{}", said(&output)), &rows, &case.expected());
            // When a tick comes, each language says for itself.
            let is_by_the_clock = case.is_by_the_clock();
            let same_for_all = |line: &str| without(line, if is_by_the_clock { "time" } else { "" }, "cause");
            printed.push(text.lines().map(same_for_all).collect());
            same(&case, &what, printed.last().unwrap(), &printed[0]);
        }
    }
}

/// A line of results without the entries from `first` up to `end`; all of it, if it has no `first`.
fn without(line: &str, first: &str, end: &str) -> String {
    let cut = || {
        let (head, tail) = line.split_once(&format!(",\"{first}\":"))?;
        let (_, tail) = tail.split_once(&format!(",\"{end}\":"))?;
        Some(format!("{head},\"{end}\":{tail}\n"))
    };
    cut().unwrap_or_else(|| format!("{line}\n"))
}

/// Runs each case in `languages` in many ways. The first language says which numbers rows have.
fn compare(languages: &[Language]) {
    for case in cases() {
        let numbers = run::run(&case, languages[0], Way::ONE_BY_ONE).numbers;
        for language in languages {
            for way in Way::all() {
                let done = run::run(&case, *language, way);
                let what = format!("{language:?}, {way:?}\n{}", done.said);
                same(&case, &what, &done.rows, &case.expected());
                // Ticks have numbers, and when they come, each language says for itself.
                if !case.is_by_the_clock() {
                    assert_eq!(done.numbers, numbers, "{}: {what}", case.name());
                }
            }
        }
    }
}

fn same(case: &Case, what: &str, found: &str, expected: &str) {
    let (found, expected): (Vec<&str>, Vec<&str>) = (found.lines().collect(), expected.lines().collect());
    let differs = (0..found.len().max(expected.len())).find(|at| found.get(*at) != expected.get(*at));
    if let Some(at) = differs {
        let line = |lines: &[&str]| lines.get(at).copied().unwrap_or("nothing").to_owned();
        let (name, found, expected) = (case.name(), line(&found), line(&expected));
        panic!("{name}: {what}\nrow {}: {found}\nand not: {expected}", at + 1);
    }
}

fn replay(case: &Case, language: Language) -> Output {
    let rules = tempfile::tempdir().unwrap();
    case.first().install(language, rules.path());
    let mut command = Command::new(binary());
    command.current_dir(&case.dir).env_remove("TIDEGATE_LOG");
    command.arg("replay").arg("--config").arg(case.config()).arg("--rules").arg(rules.path());
    for (stream, file) in case.inputs() {
        let file = file.file_name().unwrap().to_string_lossy().into_owned();
        command.arg("--input").arg(format!("{stream}={file}"));
    }
    command.output().unwrap()
}
