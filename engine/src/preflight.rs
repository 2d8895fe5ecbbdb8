//! What a start would be refused for before it touches a machine. `check` tells a person, and `run` ends with
//! the exit code that means that starting again does not help.

use std::path::Path;

use tidegate_connectors::http;
use tidegate_connectors::mqtt::{OpenError, TlsError};
use tidegate_connectors::secret::{SecretError, SecretSource};
use tidegate_core::Diagnostic;

use crate::buffer::BufferError;
use crate::buffer::inspect::Inspector;
use crate::config::{self, Config, UplinkKind};
use crate::machine::Machine;
use crate::run::RunError;
use crate::schemas::{SchemaStore, typed};
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
    wrong.extend(Machine.refusals(config, &known).iter().map(|error| refusal(path, config, error)));
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
fn refusal(path: &Path, config: &Config, error: &RunError) -> Diagnostic {
    match error {
        RunError::Connection { name, error: cause } => {
            let table = ["connections", name.as_str()];
            match cause {
                OpenError::Secret(secret) => unreadable(path, &[&table[..], &["password"]].concat(), secret),
                OpenError::Tls(tls) => at(path, &[&table[..], &tls_keys(tls)].concat(), error.to_string()),
                OpenError::Stream { name, .. } => at(path, &["streams", name, "topic"], cause.to_string()),
                OpenError::Output { name, .. } => at(path, &["outputs", name, "topic"], cause.to_string()),
                OpenError::Config(_) => at(path, &table, error.to_string()),
            }
        }
        RunError::Uplink { name, error: cause } => {
            // The only one may be written without a name.
            let named = ["uplinks", name.as_str()];
            let table = if name == "uplink" && config::place(path, &named) == config::place(path, &[]) {
                &["uplink"][..]
            } else {
                &named[..]
            };
            match cause {
                http::OpenError::Secret(secret) => {
                    unreadable(path, &[table, &secret_key(config, name, secret)].concat(), secret)
                }
                http::OpenError::Tls(tls) => at(path, &[table, &tls_keys(tls)].concat(), error.to_string()),
                http::OpenError::Url { .. } => at(path, &[table, &["url"]].concat(), error.to_string()),
                http::OpenError::Header(header) => {
                    at(path, &[table, &["headers", header]].concat(), error.to_string())
                }
            }
        }
        other => at(path, &[], other.to_string()),
    }
}

fn unreadable(path: &Path, keys: &[&str], error: &SecretError) -> Diagnostic {
    let help = match error {
        SecretError::File { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
            "let the user that the box runs as read it, and check as that user"
        }
        SecretError::File { .. } => {
            "put the secret there, readable for the user that the box runs as and nobody else"
        }
        SecretError::Env(_) => "set it where the box is started, and where you check",
    };
    at(path, keys, error.to_string()).help(help.to_owned())
}

fn tls_keys(error: &TlsError) -> Vec<&'static str> {
    match error {
        TlsError::File { setting, .. } => vec!["tls", setting],
        _ => vec!["tls"],
    }
}

/// The key of the uplink `name` whose secret cannot be read.
fn secret_key<'a>(config: &'a Config, name: &str, error: &SecretError) -> Vec<&'a str> {
    let Some(UplinkKind::Http(uplink)) = config.uplinks.get(name).map(|uplink| &uplink.kind) else {
        return Vec::new();
    };
    let is_it = |source: &SecretSource| match (source, error) {
        (SecretSource::File(file), SecretError::File { path, .. }) => file == path,
        (SecretSource::Env(variable), SecretError::Env(missing)) => variable == missing,
        _ => false,
    };
    let of_header =
        |value: &http::HeaderConfig| matches!(value, http::HeaderConfig::Secret(source) if is_it(source));
    match uplink.headers.iter().find(|(_, value)| of_header(value)) {
        Some((header, _)) => vec!["headers", header],
        None => vec!["bearer"],
    }
}
