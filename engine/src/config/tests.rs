//! Tests of the configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

/// One file of the golden directory, as a user would see its errors.
fn outcome(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    // Relative paths in errors must not depend on where the test runs.
    let base_dir = golden_dir();
    let Err(diagnostics) = parse(&text, name, &base_dir) else { return String::new() };
    assert!(!diagnostics.is_empty(), "an error without a diagnostic: {name}");
    let mut seen = String::new();
    for diagnostic in diagnostics {
        writeln!(seen, "{diagnostic}").unwrap();
    }
    seen.replace(&format!("{}/", base_dir.display()), "DIR/")
}

#[test]
fn every_wrong_file_gives_exactly_the_errors_that_are_written_down() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(golden_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let seen = outcome(&path);
        let expected_path = path.with_extension("err");
        if std::env::var_os("TIDEGATE_BLESS").is_some() && !seen.is_empty() {
            std::fs::write(&expected_path, &seen).unwrap();
        }
        // A file without expected errors must be right.
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if seen != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- seen\n{seen}", path.display()));
        }
    }
    assert!(count > 8, "the golden directory was not found");
    assert!(wrong.is_empty(), "{}\nset TIDEGATE_BLESS=1 to accept, and read the difference", wrong.join("\n"));
}
