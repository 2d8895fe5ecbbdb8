//! In which parts one configuration differs from another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tidegate_core::Diagnostic;

use super::{Config, file};

impl Config {
    /// The parts of `now` that differ from what is here, as the file names them: `streams.tank`, `buffer`.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let Self {
            file: _,
            name,
            data_dir,
            connections,
            streams,
            tables,
            outputs,
            uplinks,
            rules,
            buffer,
            management,
            warnings: _,
        } = self;
        let mut found = Vec::new();
        let mut whole = |part: &str, is_same: bool| found.extend((!is_same).then(|| part.to_owned()));
        whole("name", *name == now.name);
        whole("data_dir", *data_dir == now.data_dir);
        whole("rules", *rules == now.rules);
        whole("buffer", *buffer == now.buffer);
        whole("management", *management == now.management);
        by_name("connections", connections, &now.connections, &mut found);
        by_name("streams", streams, &now.streams, &mut found);
        by_name("tables", tables, &now.tables, &mut found);
        by_name("outputs", outputs, &now.outputs, &mut found);
        by_name("uplinks", uplinks, &now.uplinks, &mut found);
        found
    }
}

fn by_name<T: PartialEq>(
    part: &str,
    before: &BTreeMap<String, T>,
    now: &BTreeMap<String, T>,
    found: &mut Vec<String>,
) {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    found.extend(differ.map(|name| {
        let how = match (before.contains_key(name), now.contains_key(name)) {
            (false, _) => " (new)",
            (_, false) => " (gone)",
            _ => "",
        };
        format!("{part}.{name}{how}")
    }));
}

/// Where the box of the configuration file at `path` keeps its state. The rest of the file may be wrong
/// meanwhile: a box that runs can be asked while somebody edits it.
///
/// # Errors
/// When the file cannot be read, or is no TOML.
pub fn data_dir(path: &Path) -> Result<PathBuf, Diagnostic> {
    let text = file::read(path)?;
    let wrong =
        |error: toml::de::Error| Diagnostic::new(path.display().to_string(), error.message().to_owned());
    let table: toml::Table = text.parse().map_err(wrong)?;
    let base = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir =
        table.get("data_dir").and_then(|dir| dir.as_str()).map_or_else(file::default_data_dir, PathBuf::from);
    let dir = base.join(dir);
    // As far as it can be told, without links: `sudo` may stand elsewhere.
    Ok(fs::canonicalize(&dir).unwrap_or(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const BEFORE: &str = r#"
name = "box"
[connections.plant]
kind = "mqtt"
host = "localhost"
[streams.tank]
connection = "plant"
topic = "tank"
[outputs.pump]
connection = "plant"
topic = "pump"
"#;

    #[test]
    fn the_parts_that_differ_are_named_as_in_the_file() {
        let config = |text: &str| parse(text, "tidegate.toml", Path::new("/etc/tidegate")).unwrap();
        let before = config(BEFORE);
        let same = BEFORE.replace("topic = \"pump\"", "# the one in hall 3\ntopic   = \"pump\"");
        assert!(before.differences(&config(&same)).is_empty());
        let now = BEFORE.replace("\"tank\"", "\"tanks\"").replace("outputs.pump", "outputs.fan")
            + "[buffer]\nmax_size = \"2GiB\"\n";
        assert_eq!(
            before.differences(&config(&now)),
            ["buffer", "streams.tank", "outputs.fan (new)", "outputs.pump (gone)"]
        );
    }

    #[test]
    fn the_directory_is_known_while_the_rest_is_being_edited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.toml");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("data_dir = \"state\"\n[streams.x]\nhalf = true\n");
        assert_eq!(data_dir(&path), Ok(dir.path().join("state")));
        write("name = \"box\"\n");
        assert_eq!(data_dir(&path), Ok(dir.path().join("data")));
        write("data_dir = ");
        assert!(data_dir(&path).is_err());
    }
}
