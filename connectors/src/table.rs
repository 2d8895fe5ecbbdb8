//! One table of the configuration: how a protocol reads what users write, and says what is wrong with it.
//! The file with its lines and columns is the caller's; here a place is the keys that lead to it.

use std::fmt;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tidegate_core::diagnostic::Severity;

/// A table that can be read. Whoever implements it reports what cannot.
pub trait Table {
    /// Whether the key is there.
    fn contains(&self, key: &str) -> bool;

    /// Takes the keys `keys` out, and reads them.
    fn take<T: DeserializeOwned + JsonSchema>(&mut self, keys: &'static [&'static str]) -> Option<T>;

    /// Reads the keys that are left; none may be left over.
    fn read<T: DeserializeOwned + JsonSchema>(&mut self) -> Option<T>;
}

/// For tables that come from elsewhere than the configuration file; what is wrong is only counted as such.
impl Table for Map<String, Value> {
    fn contains(&self, key: &str) -> bool {
        self.contains_key(key)
    }

    fn take<T: DeserializeOwned + JsonSchema>(&mut self, keys: &'static [&'static str]) -> Option<T> {
        let taken: Self = keys.iter().filter_map(|key| self.remove_entry(*key)).collect();
        serde_json::from_value(taken.into()).ok()
    }

    fn read<T: DeserializeOwned + JsonSchema>(&mut self) -> Option<T> {
        serde_json::from_value(std::mem::take(self).into()).ok()
    }
}

/// Where in a table something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The table as a whole.
    Table,
    /// The key that these lead to.
    Key(Vec<String>),
    /// The value under them.
    Value(Vec<String>),
}

impl At {
    /// The last of `keys`.
    #[must_use]
    pub fn key(keys: &[&str]) -> Self {
        Self::Key(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    /// What is under `keys`.
    #[must_use]
    pub fn value(keys: &[&str]) -> Self {
        Self::Value(keys.iter().map(|key| (*key).to_owned()).collect())
    }
}

/// Something to be said about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Whether the table can be used all the same.
    pub severity: Severity,
    /// Where.
    pub at: At,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Whether it is that something is not there. That need not be said where something was refused.
    pub is_absence: bool,
}

/// A table under review: gathers everything that is to be said about it.
#[derive(Debug)]
pub struct Review<'a> {
    /// How users write the table's name: `[streams.tank]`.
    pub title: &'a str,
    /// Where relative paths start.
    pub base_dir: &'a Path,
    /// Keys of lists and tables that have nothing in them as they are written: what was refused is not there
    /// in what was read.
    pub written_empty: Vec<String>,
    /// What was found so far.
    pub remarks: Vec<Remark>,
}

impl<'a> Review<'a> {
    /// Nothing is found yet.
    #[must_use]
    pub fn new(title: &'a str, base_dir: &'a Path, written_empty: Vec<String>) -> Self {
        Self { title, base_dir, written_empty, remarks: Vec::new() }
    }

    /// The table cannot be used because something is not there; where something at this place was refused,
    /// that was said already.
    pub fn absence(&mut self, at: At, message: impl Into<String>, help: impl Into<Option<String>>) {
        let (message, help) = (message.into(), help.into());
        self.remarks.push(Remark { severity: Severity::Error, at, message, help, is_absence: true });
    }

    /// The table cannot be used.
    pub fn error(&mut self, at: At, message: impl Into<String>, help: impl Into<Option<String>>) {
        let (message, help) = (message.into(), help.into());
        self.remarks.push(Remark { severity: Severity::Error, at, message, help, is_absence: false });
    }

    /// The table is used, and probably not meant as it is.
    pub fn warning(&mut self, at: At, message: impl Into<String>, help: impl Into<Option<String>>) {
        let (message, help) = (message.into(), help.into());
        self.remarks.push(Remark { severity: Severity::Warning, at, message, help, is_absence: false });
    }

    /// Whether the table cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.remarks.iter().any(|remark| remark.severity == Severity::Error)
    }
}

/// Something wrong with a configuration: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The keys that lead to it, from the table of the connection, stream or output on.
    pub at: Vec<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: Option<String>,
    /// Whether it is that something is not there.
    pub is_absence: bool,
}

impl Problem {
    pub(crate) fn new(at: &[&str], what: impl Into<String>) -> Self {
        Self {
            at: at.iter().map(|key| (*key).to_owned()).collect(),
            what: what.into(),
            help: None,
            is_absence: false,
        }
    }

    /// Something is not there.
    pub(crate) fn absent(at: &[&str], what: impl Into<String>) -> Self {
        Self { is_absence: true, ..Self::new(at, what) }
    }

    /// What is wrong and what to do, where the place is shown besides.
    pub(crate) fn text(&self) -> String {
        match &self.help {
            Some(help) => format!("{}; {help}", self.what),
            None => self.what.clone(),
        }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same, where its table is under `key`.
    pub(crate) fn inside(self, key: &str) -> Self {
        Self { at: std::iter::once(key.to_owned()).chain(self.at).collect(), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at.join("."), self.text())
    }
}

/// Tells of `problems`.
pub(crate) fn tell(problems: Vec<Problem>, review: &mut Review<'_>) {
    for Problem { at, what, help, is_absence } in problems {
        let at = if at.is_empty() { At::Table } else { At::Value(at) };
        review.remarks.push(Remark { severity: Severity::Error, at, message: what, help, is_absence });
    }
}

/// The schema of a table that has the keys of several types; each is read by itself.
pub(crate) fn joined(parts: &[Schema]) -> Schema {
    let mut whole = Map::new();
    for part in parts.iter().filter_map(|part| part.as_object()) {
        for (name, value) in part {
            match (whole.get_mut(name), value) {
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more.clone()),
                (Some(Value::Array(known)), Value::Array(more)) => known.extend(more.iter().cloned()),
                (Some(_), _) => {}
                (None, _) => drop(whole.insert(name.clone(), value.clone())),
            }
        }
    }
    whole.into()
}

/// The schema of a type as it is, and not by its name.
pub(crate) fn inline<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}
