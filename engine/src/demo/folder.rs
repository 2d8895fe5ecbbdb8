//! The folder that the demo works in: a copy of `deploy/demo` that the user may edit.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tidegate_rules::Language;

const CONFIG: &str = "tidegate.toml";
/// The log, which only a demo writes.
pub(super) const LOG: &str = "demo.log";
const MARKERS: [&str; 2] = ["plant", "cloud"];
const CONFIG_TEXT: &str = include_str!("../../../deploy/demo/tidegate.toml");

macro_rules! rules {
    ($($name:literal),+ $(,)?) => {
        &[$((concat!("rules/", $name), include_bytes!(concat!("../../../deploy/demo/rules/", $name)))),+]
    };
}

/// Files of rules; a plugin has two.
pub(super) const RULES: &[(&str, &[u8])] = rules![
    "alarms.sql",
    "booster.rhai",
    "cooling.sql",
    "dosing.sql",
    "flow_display.sql",
    "level_trend.toml",
    "level_trend.wasm",
    "levels.sql",
    "outlet_gate.sql",
    "statistics.sql"
];

/// The rule that the user is asked to edit.
const RULE_TO_TRY: &str = "rules/cooling.sql";

/// Files beside the configuration, which the user has no reason to change.
const FILES: &[(&str, &[u8])] = &[("drive.dbc", include_bytes!("../../../deploy/demo/drive.dbc"))];

/// What demos had not from the beginning: its marker, and its rules. A configuration without the marker stays
/// as it is, and the rules, which would be wrong with it, are not brought.
const LATER: [(Part, &str, &[&str]); 3] = [
    (Part::Booster, "booster", &["rules/booster.rhai"]),
    (Part::Dosing, "drive", &["rules/dosing.sql"]),
    (Part::Trend, "trend", &["rules/level_trend.toml", "rules/level_trend.wasm", "rules/levels.sql"]),
];

/// A part of the plant that a configuration may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// the booster station
    Booster,
    /// the dosing station
    Dosing,
    /// the stream of the plugin
    Trend,
}

/// Where the demo listens, for the lines with the markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) plant: u16,
    pub(super) cloud: u16,
    pub(super) booster: u16,
    pub(super) drive: u16,
    pub(super) scale: u16,
}

/// The prepared folder.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// files that the user has changed and that were therefore left alone
    pub(super) kept: Vec<PathBuf>,
    /// copies of files that the user has changed and that were brought back as they are shipped
    pub(super) copies: Vec<PathBuf>,
    /// the parts of the plant that its configuration does not have
    pub(super) lacks: Vec<Part>,
}

/// Why the folder could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error("could not {what} {}: {reason}; choose another folder with --dir", path.display())]
    Io { what: &'static str, path: PathBuf, reason: io::Error },
    #[error(
        "{} is not a demo's folder, and nothing was written into it: {there}; name another one, or one that \
        does not exist, with --dir",
        dir.display()
    )]
    Foreign { dir: PathBuf, there: String },
    #[error(
        "{} has no line such as `port = 1883 # demo: {which}`, so the demo cannot enter its port: put the \
        line back under [connections.{which}], or start with --fresh to get all files as they were shipped",
        path.display()
    )]
    NoMarker { path: PathBuf, which: &'static str },
}

impl Folder {
    /// Whether `dir` may be the demo's: it is absent, empty, or one already. Nothing else is written into.
    pub(super) fn check(dir: &Path) -> Result<(), FolderError> {
        let foreign =
            |there: &str| Err(FolderError::Foreign { dir: dir.to_owned(), there: there.to_owned() });
        if dir.exists() && !dir.is_dir() {
            return foreign("it is a file");
        }
        match read_if_there(&dir.join(CONFIG))? {
            Some(config) if MARKERS.iter().any(|which| text(&config).contains(&marker(which))) => Ok(()),
            Some(_) => foreign(&format!("its {CONFIG} has no line with `{}`", marker("plant"))),
            None if dir.join(LOG).exists() || is_empty(dir) => Ok(()),
            None => foreign(&format!("there are files in it, and no {CONFIG}")),
        }
    }

    /// Copies configuration and rules into `dir`, with the ports filled in. What the user has changed stays;
    /// if `fresh`, under another name.
    pub(super) fn prepare(dir: &Path, fresh: bool, ports: Ports) -> Result<Self, FolderError> {
        Self::check(dir)?;
        let path = dir.join(CONFIG);
        let with_ports = |text: &str| {
            let text = with_port(text, "plant", ports.plant).ok_or("plant")?;
            let text = with_port(&text, "cloud", ports.cloud).ok_or("cloud")?;
            let later = [("booster", ports.booster), ("drive", ports.drive), ("scale", ports.scale)];
            Ok(later
                .into_iter()
                .fold(text, |text, (which, port)| with_port(&text, which, port).unwrap_or(text)))
        };
        let own = read_if_there(&path)?.map(|own| text(&own).into_owned());
        let shipped = CONFIG_TEXT.to_owned();
        let chosen = if fresh { &shipped } else { own.as_ref().unwrap_or(&shipped) };
        // Before anything is written: a folder that cannot be used is left as it is.
        let config =
            with_ports(chosen).map_err(|which| FolderError::NoMarker { path: path.clone(), which })?;
        let rules_dir = dir.join("rules");
        fs::create_dir_all(&rules_dir).map_err(|reason| FolderError::Io {
            what: "create",
            path: rules_dir.clone(),
            reason,
        })?;
        let lacking = LATER.iter().filter(|(_, which, _)| !config.contains(&marker(which)));
        let (lacks, lacking): (Vec<Part>, Vec<&[&str]>) =
            lacking.map(|(part, _, rules)| (*part, *rules)).unzip();
        let lacking = lacking.concat();
        let mut folder = Self { dir: dir.to_owned(), kept: Vec::new(), copies: Vec::new(), lacks };
        for (name, shipped) in RULES {
            let path = dir.join(name);
            // A folder of an earlier demo may have the rule in another language, where it does its work.
            let elsewhere =
                Language::ALL.into_iter().map(|language| path.with_extension(language.extension()));
            if !path.exists() && elsewhere.into_iter().any(|path| path.exists()) {
                continue;
            }
            match read_if_there(&path)? {
                Some(content) if content == *shipped => {}
                Some(_) if !fresh => folder.kept.push(path),
                Some(_) => {
                    folder.copies.push(keep(&path)?);
                    write_whole(&path, shipped)?;
                }
                None if lacking.contains(name) => {}
                None => write_whole(&path, shipped)?,
            }
        }
        for (name, shipped) in FILES {
            let path = dir.join(name);
            if fresh || !path.exists() {
                write_whole(&path, shipped)?;
            }
        }
        if own.is_some_and(|own| fresh && with_ports(&own).ok().as_ref() != Some(&config)) {
            folder.copies.push(keep(&path)?);
        }
        write_whole(&path, config.as_bytes())?;
        Ok(folder)
    }

    /// The configuration to start the box with.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// The rule that the user is asked to edit.
    pub(super) fn rule_to_try(&self) -> PathBuf {
        self.dir.join(RULE_TO_TRY)
    }
}

/// What the line with the port of `which` ends with.
fn marker(which: &str) -> String {
    format!("# demo: {which}")
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// Gives the file another name, which nobody has, and returns it.
fn keep(path: &Path) -> Result<PathBuf, FolderError> {
    let name = path.file_name().unwrap_or_default().display().to_string();
    let copy = |n: u32| path.with_file_name(format!("{name}.{n}.old"));
    let free = (1..).map(copy).find(|copy| !copy.exists()).unwrap_or_else(|| copy(0));
    fs::rename(path, &free).map_err(|reason| FolderError::Io {
        what: "rename",
        path: path.to_owned(),
        reason,
    })?;
    Ok(free)
}

/// `config` with the port in its line `port = .. # demo: which`, or behind `127.0.0.1:` there; `None` when there
/// is no such line.
fn with_port(config: &str, which: &str, port: u16) -> Option<String> {
    let marker = marker(which);
    let mut found = false;
    let text = config
        .split_inclusive('\n')
        .map(|line| match line.trim_end().strip_suffix(&marker) {
            Some(before) if before.trim_start().starts_with("port") && !found => {
                found = true;
                format!("port = {port} {marker}\n")
            }
            Some(_) if !found => match line.split_once(HERE) {
                Some((before, after)) => {
                    found = true;
                    format!("{before}{HERE}{port}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
                }
                None => line.to_owned(),
            },
            _ => line.to_owned(),
        })
        .collect();
    found.then_some(text)
}

/// What an address that the demo fills in begins with.
const HERE: &str = "127.0.0.1:";

/// As far as it is text.
fn text(content: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(content)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(FolderError::Io { what: "read", path: path.to_owned(), reason }),
    }
}

/// Files appear whole, by rename: a box of an earlier run may still be watching the folder.
fn write_whole(path: &Path, content: &[u8]) -> Result<(), FolderError> {
    let failed = |reason| FolderError::Io { what: "write", path: path.to_owned(), reason };
    let half = path.with_extension("tmp");
    let mut file = fs::File::create(&half).map_err(failed)?;
    file.write_all(content).and_then(|()| fs::rename(&half, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const PORTS: Ports = Ports { plant: 1, cloud: 2, booster: 3, drive: 4, scale: 5 };

    fn ports(dir: &Path) -> Ports {
        let config: toml::Table = fs::read_to_string(dir.join(CONFIG)).unwrap().parse().unwrap();
        let port = |name| config["connections"][name]["port"].as_integer().unwrap().try_into().unwrap();
        let here = |address: &toml::Value| {
            let (_, port) = address.as_str().unwrap().rsplit_once(':').unwrap();
            port.parse().unwrap()
        };
        let (drive, scale) = (&config["connections"]["drive"], &config["connections"]["scale"]);
        Ports {
            plant: port("plant"),
            cloud: port("cloud"),
            booster: port("booster"),
            drive: here(&drive["slcan"]["device"]),
            scale: here(&scale["device"]),
        }
    }

    #[test]
    fn every_shipped_rule_is_embedded_and_the_shipped_configuration_is_usable_as_it_is() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
        let mut names: Vec<_> = fs::read_dir(shipped.join("rules"))
            .unwrap()
            .map(|file| format!("rules/{}", file.unwrap().file_name().display()))
            .collect();
        names.sort();
        assert_eq!(names, RULES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        assert_eq!(
            ports(&shipped),
            Ports { plant: 1883, cloud: 1884, booster: 502, drive: 4001, scale: 4002 }
        );
    }

    #[test]
    fn an_edited_rule_survives_the_next_start_unless_fresh_and_ports_are_always_entered() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ports { plant: 40001, cloud: 40002, booster: 40003, ..PORTS };
        let folder = Folder::prepare(dir.path(), false, first).unwrap();
        assert!(folder.kept.is_empty() && folder.lacks.is_empty());
        assert_eq!(ports(dir.path()), first);
        let rule = folder.rule_to_try();
        let shipped = fs::read_to_string(&rule).unwrap();
        assert!(shipped.contains("> 80"), "the view suggests to change it");

        let edited = shipped.replace("> 80", "> 70");
        fs::write(&rule, &edited).unwrap();
        let second = Ports { plant: 40004, cloud: 40005, drive: 40006, scale: 40007, ..PORTS };
        let folder = Folder::prepare(dir.path(), false, second).unwrap();
        assert_eq!((folder.kept, fs::read_to_string(&rule).unwrap()), (vec![rule.clone()], edited.clone()));
        assert_eq!(ports(dir.path()), second);

        let folder = Folder::prepare(dir.path(), true, PORTS).unwrap();
        assert!(folder.kept.is_empty());
        assert_eq!(fs::read_to_string(&rule).unwrap(), shipped);
        let copy = dir.path().join("rules/cooling.sql.1.old");
        assert_eq!((folder.copies, fs::read_to_string(&copy).unwrap()), (vec![copy], edited));
    }

    #[test]
    fn only_the_marked_lines_of_the_users_configuration_change() {
        let text =
            "port = 9 # mine\n  port=1883   # demo: plant\n# port = 1 # demo: cloud?\nport = 5 # demo: cloud";
        let text = with_port(text, "plant", 7).unwrap();
        assert_eq!(
            with_port(&text, "cloud", 8).unwrap(),
            "port = 9 # mine\nport = 7 # demo: plant\n# port = 1 # demo: cloud?\nport = 8 # demo: cloud\n"
        );
        assert_eq!(with_port("port = 1883\n", "plant", 7), None);
    }

    #[test]
    fn a_configuration_without_one_of_its_markers_is_refused_with_advice_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CONFIG);
        let mine = "name = \"mine\"\nport = 5 # demo: cloud\n";
        fs::write(&path, mine).unwrap();
        let error = Folder::prepare(dir.path(), false, PORTS).unwrap_err().to_string();
        assert!(
            error.contains("has no line such as `port = 1883 # demo: plant`") && error.contains("--fresh"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), mine);
        assert!(!dir.path().join("rules").exists());
        let copy = dir.path().join("tidegate.toml.1.old");
        let folder = Folder::prepare(dir.path(), true, PORTS).unwrap();
        assert_eq!((folder.copies, fs::read_to_string(&copy).unwrap()), (vec![copy], mine.to_owned()));
    }

    #[test]
    fn a_folder_from_before_a_part_was_there_goes_on_without_it_until_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let rules = LATER.iter().flat_map(|(.., rules)| *rules);
        let rules: Vec<PathBuf> = rules.map(|rule| dir.path().join(rule)).collect();
        let config = dir.path().join(CONFIG);
        let old = "port = 8 # demo: plant\nport = 9 # demo: cloud\n";
        fs::write(&config, old).unwrap();
        let folder = Folder::prepare(dir.path(), false, PORTS).unwrap();
        assert_eq!(folder.lacks, [Part::Booster, Part::Dosing, Part::Trend]);
        assert!(folder.rule_to_try().exists());
        assert_eq!(fs::read_to_string(&config).unwrap(), "port = 1 # demo: plant\nport = 2 # demo: cloud\n");
        assert!(rules.iter().all(|rule| !rule.exists()), "they name streams that there are not");

        let folder = Folder::prepare(dir.path(), true, PORTS).unwrap();
        assert!(folder.lacks.is_empty() && rules.iter().all(|rule| rule.exists()));
        assert_eq!((folder.copies.len(), ports(dir.path())), (1, PORTS));
    }

    #[test]
    fn a_folder_of_somebody_else_is_never_written_into() {
        for (file, text) in [
            (CONFIG, "name = \"plant-of-mine\"\n"),
            ("rules/mine.sql", "INSERT INTO x SELECT 1"),
            ("notes.txt", ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("rules")).unwrap();
            fs::write(dir.path().join(file), text).unwrap();
            for fresh in [false, true] {
                let error = Folder::prepare(dir.path(), fresh, PORTS).unwrap_err().to_string();
                assert!(error.contains("is not a demo's folder, and nothing was written into it"), "{error}");
            }
            assert_eq!(fs::read_to_string(dir.path().join(file)).unwrap(), text);
            let rules: Vec<_> = fs::read_dir(dir.path().join("rules")).unwrap().collect();
            assert_eq!(rules.len(), usize::from(file.starts_with("rules/")), "{file}");
            assert_eq!(dir.path().join(CONFIG).exists(), file == CONFIG);
        }
    }
}
