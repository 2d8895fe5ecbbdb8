//! Texts that are kept in files, and compared with what is said now. `UPDATE_GOLDEN=1` writes the files anew.

use std::path::{Path, PathBuf};

/// `tests/golden`.
#[must_use]
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Compares `said` with the file `golden`, or writes the file when `UPDATE_GOLDEN` is set. The error shows
/// both.
///
/// # Errors
/// When they differ.
pub fn compare(said: &str, golden: &Path) -> Result<(), String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, said).unwrap();
        return Ok(());
    }
    let expected = std::fs::read_to_string(golden).unwrap_or_default();
    if said == expected {
        return Ok(());
    }
    let differs =
        said.lines().zip(expected.lines()).take_while(|(said, expected)| said == expected).count() + 1;
    Err(format!(
        "{} differs from line {differs} on\n--- expected\n{expected}--- said\n{said}",
        golden.display()
    ))
}
