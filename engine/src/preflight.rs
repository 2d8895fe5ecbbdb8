//! What a start would be refused for before it touches a machine. `check` tells a person, and `run` ends with
//! the exit code that means that starting again does not help.

use std::path::Path;

use tidegate_connectors::OpenError;
use tidegate_connectors::secret::SecretError;
use tidegate_core::{Diagnostic, Place};

use crate::buffer::BufferError;
use crate::buffer::inspect::Inspector;
use crate::config::{self, Config};
use crate::error::RunError;
use crate::machine::Machine;
use crate::sequencer::schemas::{SchemaStore, typed};
use crate::world::Known;

/// Where systemd puts credentials while a service runs.
const CREDENTIALS: &str = "/run/credentials/";

/// Why a box with the configuration `config`, which was read from `path`, would not start; empty if it would.
#[must_use]
pub fn preflight(path: &Path, config: &Config) -> Vec<Diagnostic> {
    let mut wrong = directories(path, config);
    if !wrong.is_empty() {
        return wrong;
    }
    let schemas = SchemaStore::look(config);
    let columns = schemas.known().map(|(stream, schema)| (stream.clone(), typed(schema))).collect();
    let known = Known { columns, ..Known::default() };
    wrong.extend(Machine.refusals(config, &known).iter().map(|error| refusal(path, error)));
    if let Err(error @ (BufferError::Newer { .. } | BufferError::Foreign { .. })) =
        Inspector::open(&config.buffer.path)
    {
        wrong.push(at(path, &["buffer", "path"], error.to_string()));
    }
    wrong.sort_by(|a, b| (a.place, &a.message).cmp(&(b.place, &b.message)));
    wrong
}

/// Whether `wrong` is about a secret that is only there while a service runs, so that only `run` can tell.
#[must_use]
pub fn is_for_the_service(wrong: &Diagnostic) -> bool {
    wrong.message.contains(CREDENTIALS)
}

/// Directories that cannot be made, since something else has a name on the way.
fn directories(path: &Path, config: &Config) -> Vec<Diagnostic> {
    let buffer = config.buffer.path.parent().map(|parent| (parent, ["buffer", "path"].as_slice()));
    let wanted = [Some((config.data_dir.as_path(), ["data_dir"].as_slice())), buffer];
    let in_the_way = |dir: &Path| {
        dir.ancestors().find(|ancestor| ancestor.exists()).filter(|there| !there.is_dir()).map(Path::to_owned)
    };
    let refuse = |(dir, keys): (&Path, &[&str])| {
        let there = in_the_way(dir)?;
        let what = format!("cannot make the directory {}: {} is a file", dir.display(), there.display());
        Some(at(path, keys, what))
    };
    let mut wrong: Vec<Diagnostic> = wanted.into_iter().flatten().filter_map(refuse).collect();
    wrong.dedup_by(|later, earlier| later.message == earlier.message);
    wrong
}

fn at(path: &Path, keys: &[&str], message: String) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), message).at(config::place(path, keys))
}

/// `error` as an error in the configuration file.
fn refusal(path: &Path, error: &RunError) -> Diagnostic {
    let (table, cause) = match error {
        RunError::Connection { name, error } => (vec!["connections", name], error),
        RunError::Uplink { name, error } => {
            // The only one may be written without a name.
            let named = vec!["uplinks", name.as_str()];
            let is_only = name == "uplink" && config::place(path, &named) == config::place(path, &[]);
            (if is_only { vec!["uplink"] } else { named }, error)
        }
        other => return at(path, &[], other.to_string()),
    };
    let within = |keys: &[String]| {
        let mut all = table.clone();
        all.extend(keys.iter().map(String::as_str));
        config::place(path, &all)
    };
    let (place, message) = match cause {
        OpenError::Secret { keys, error } => (within(keys), error.to_string()),
        OpenError::Tls(tls) => (config::place(path, &[&table[..], &tls.keys()].concat()), error.to_string()),
        OpenError::Setting { keys, .. } => (within(keys), error.to_string()),
        OpenError::Stream { name, keys, .. } => (elsewhere(path, "streams", name, keys), cause.to_string()),
        OpenError::Output { name, keys, .. } => (elsewhere(path, "outputs", name, keys), cause.to_string()),
    };
    let help = if let OpenError::Secret { error, .. } = cause { Some(unreadable(error)) } else { None };
    Diagnostic::new(path.display().to_string(), message).at(place).help(help.map(str::to_owned))
}

/// Where `keys` are in the table `name` of a section.
fn elsewhere(path: &Path, section: &str, name: &str, keys: &[String]) -> Option<Place> {
    let keys: Vec<&str> = [section, name].into_iter().chain(keys.iter().map(String::as_str)).collect();
    config::place(path, &keys)
}

/// What to do about a secret that cannot be read.
fn unreadable(error: &SecretError) -> &'static str {
    match error {
        SecretError::File { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
            "let the user that the box runs as read it, and check as that user"
        }
        SecretError::File { .. } => {
            "put the secret there, readable for the user that the box runs as and nobody else"
        }
        SecretError::Env(_) => "set it where the box is started, and where you check",
    }
}
