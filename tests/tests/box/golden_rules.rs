//! Golden rule cases, found by walking `tests/golden/rules`.
//!
//! A case is a directory: its rules (`*.sql`), what comes in (`in.jsonl` for the stream `tank`, or
//! `in.STREAM.jsonl` and `in.STREAM.csv` for any stream), what must come out (`out.jsonl`: target, rule and
//! row of each result), and `tidegate.toml` where the shared one does not do. The expected rows are worked
//! out by hand: each `out.jsonl` follows from the rule's text and the rows, and the rules say how.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tidegate_tests::box_under_test::binary;
use tidegate_tests::golden;

#[test]
fn each_rule_writes_what_it_says() {
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 20, "the directory of cases was found");
    for case in cases {
        let output = replay(&case, &inputs(&case));
        let (out, err) = (results(&output), text(&output.stderr));
        if !output.status.success() {
            wrong.push(format!("{}: {err}", case.display()));
        } else if let Err(difference) = golden::compare(&out, &case.join("out.jsonl")) {
            wrong.push(format!("{difference}--- log\n{err}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_same_recording_gives_the_same_bytes() {
    for case in cases() {
        let inputs = inputs(&case);
        assert_eq!(
            text(&replay(&case, &inputs).stdout),
            text(&replay(&case, &inputs).stdout),
            "{}",
            case.display()
        );
    }
}

/// Two recordings of one stream are merged by `ts`, so a recording whose times never go back may be cut
/// anywhere.
#[test]
fn it_does_not_matter_in_how_many_files_a_recording_came() {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for case in cases() {
        let recording = case.join("in.jsonl");
        let Ok(rows) = fs::read_to_string(&recording) else { continue };
        let rows: Vec<&str> = rows.lines().collect();
        if !case.join("in_order").exists() {
            continue;
        }
        tried += 1;
        let whole = replay(&case, &inputs(&case));
        for cut in 0..=rows.len() {
            let parts = rows.split_at(cut);
            let files: Vec<(String, PathBuf)> = [parts.0, parts.1]
                .iter()
                .enumerate()
                .map(|(number, rows)| {
                    let file = dir.path().join(format!("{number}.jsonl"));
                    fs::write(&file, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
                    ("tank".to_owned(), file)
                })
                .collect();
            assert_eq!(
                results(&replay(&case, &files)),
                results(&whole),
                "{} cut after row {cut}",
                case.display()
            );
        }
    }
    assert!(tried >= 3, "only {tried} cases are marked as in order");
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(golden::dir().join("rules")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    cases
}

/// The recordings of a case, with their streams, in the order of their names.
fn inputs(case: &Path) -> Vec<(String, PathBuf)> {
    let mut inputs: Vec<(String, PathBuf)> = fs::read_dir(case)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let middle = name.strip_prefix("in.")?;
            let stream = middle.rsplit_once('.').map_or("tank", |(stream, _)| stream);
            Some((stream.to_owned(), path))
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has no recording", case.display());
    inputs
}

fn replay(case: &Path, inputs: &[(String, PathBuf)]) -> Output {
    let own = case.join("tidegate.toml");
    let config = if own.exists() { own } else { golden::dir().join("rules/tidegate.toml") };
    let mut command = Command::new(binary());
    command
        .arg("replay")
        .arg("--config")
        .arg(config)
        .arg("--rules")
        .arg(case)
        .stdin(Stdio::null())
        .env_remove("TIDEGATE_LOG");
    for (stream, file) in inputs {
        command.arg("--input").arg(format!("{stream}={}", file.display()));
    }
    command.output().unwrap()
}

/// The results without what led to them, which names files.
fn results(output: &Output) -> String {
    let written = text(&output.stdout);
    let without_cause = |line: &str| {
        let (head, tail) = (line.split_once(",\"time\":")?.0, line.split_once(",\"row\":")?.1);
        Some(format!("{head},\"row\":{tail}\n"))
    };
    written.lines().map(|line| without_cause(line).unwrap_or_else(|| format!("{line}\n"))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
