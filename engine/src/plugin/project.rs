//! A new project: a plugin that works, and the kit that it is made with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files of the project; `NAME` in them, and in their names, becomes the plugin's.
const TEMPLATE: [(&str, &str); 8] = [
    ("Cargo.toml", include_str!("../../../wasm-plugins/template/Cargo.toml")),
    ("NAME.toml", include_str!("../../../wasm-plugins/template/NAME.toml")),
    ("README.md", include_str!("../../../wasm-plugins/template/README.md")),
    (".gitignore", include_str!("../../../wasm-plugins/template/gitignore")),
    ("src/lib.rs", include_str!("../../../wasm-plugins/template/src/lib.rs")),
    ("test/tidegate.toml", include_str!("../../../wasm-plugins/template/test/tidegate.toml")),
    ("test/readings.jsonl", include_str!("../../../wasm-plugins/template/test/readings.jsonl")),
    ("test/expected.jsonl", include_str!("../../../wasm-plugins/template/test/expected.jsonl")),
];

macro_rules! kit {
    ($($file:literal),* $(,)?) => {
        [$(($file, include_bytes!(concat!("../../../wasm-plugins/sdk/", $file)).as_slice())),*]
    };
}

/// Files of the kit.
const KIT: [(&str, &[u8]); 15] = kit![
    "Cargo.toml",
    "src/abi.rs",
    "src/columns.rs",
    "src/error.rs",
    "src/export.rs",
    "src/host.rs",
    "src/lib.rs",
    "src/out.rs",
    "src/rows.rs",
    "src/rule.component-type",
    "src/running.rs",
    "src/schema.rs",
    "src/state.rs",
    "src/testing.rs",
    "src/value.rs",
];

/// Why there is no new project.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// Neither a crate nor a rule can be called so.
    #[error("`{0}` is no name for a plugin; use small letters, digits, `-` and `_`, and a letter first")]
    Name(String),
    /// Something is there.
    #[error("{} is there already", .0.display())]
    IsThere(PathBuf),
    /// It cannot be written.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, io::Error),
}

/// Writes a project into `dir`, which must not be there yet or be empty, for a plugin called `name`.
///
/// # Errors
/// When the name is none, or the files cannot be written.
pub fn create(dir: &Path, name: &str) -> Result<(), NewError> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(letter) {
        return Err(NewError::Name(name.to_owned()));
    }
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(NewError::IsThere(dir.to_owned()));
    }
    for (file, text) in TEMPLATE {
        write(&dir.join(file.replace("NAME", name)), text.replace("NAME", name).as_bytes())?;
    }
    for (file, bytes) in KIT {
        write(&dir.join("tidegate-plugin").join(file), bytes)?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), NewError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, bytes));
    written.map_err(|error| NewError::Write(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_whole_kit_is_in_a_project() {
        let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-plugins/sdk");
        let there: BTreeSet<String> = fs::read_dir(kit.join("src"))
            .unwrap()
            .map(|entry| format!("src/{}", entry.unwrap().file_name().to_string_lossy()))
            .chain(["Cargo.toml".to_owned()])
            .collect();
        assert_eq!(KIT.iter().map(|(file, _)| (*file).to_owned()).collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn the_documents_show_what_is_in_a_project() {
        let text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins.md")).unwrap();
        for (file, end) in [("src/lib.rs", "\n#[cfg(test)]"), ("NAME.toml", "\n\n\n")] {
            let (_, template) = TEMPLATE.iter().find(|(name, _)| *name == file).unwrap();
            let shown = template.split(end).next().unwrap().trim_end().replace("NAME", "overheat");
            assert!(text.contains(&shown), "docs/plugins.md shows another {file}");
        }
    }

    #[test]
    fn a_project_has_its_name_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("over-heat");
        create(&project, "over-heat").unwrap();
        assert!(project.join("over-heat.toml").exists());
        for file in ["Cargo.toml", "README.md", ".gitignore", "src/lib.rs"] {
            let text = fs::read_to_string(project.join(file)).unwrap();
            assert!(text.contains("over-heat") && !text.contains("NAME"), "{file}");
        }
        assert!(matches!(create(&project, "over-heat"), Err(NewError::IsThere(_))));
        for name in ["", "Heat", "7up", "a b", "../a", "ä"] {
            assert!(matches!(create(&dir.path().join("x"), name), Err(NewError::Name(_))), "{name}");
        }
    }
}
