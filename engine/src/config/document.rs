//! A TOML file with its places: finds tables, reads each of them into a type, and collects everything that is
//! wrong on the way.

use std::collections::BTreeSet;
use std::ops::Range;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tidegate_core::diagnostic::{Place, Severity, nearest};
use tidegate_core::{Diagnostic, diagnostic};
use toml::de::{DeTable, DeValue};

use super::value::{Problem, Value, ValueError, list};

/// What is wrong with one file, as far as it is known.
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, diagnostics: Vec::new() }
    }

    /// Adds an error at the bytes `span`, with advice.
    pub(super) fn error(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        let place = Place::of_offset(self.text, span.start);
        self.diagnostics.push(Diagnostic::new(self.file, message).at(place).help(help));
    }

    /// Adds a warning at the bytes `span`, with advice: the file is taken all the same.
    pub(super) fn warning(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        let place = Place::of_offset(self.text, span.start);
        self.diagnostics.push(Diagnostic::new(self.file, message).at(place).help(help).warning());
    }

    pub(super) fn line_of(&self, span: &Range<usize>) -> u32 {
        Place::of_offset(self.text, span.start).line
    }

    /// Whether there is an error at the beginning of `span`.
    pub(super) fn has_error_at(&self, span: &Range<usize>) -> bool {
        let place = Place::of_offset(self.text, span.start);
        self.diagnostics.iter().any(|known| known.severity == Severity::Error && known.place == Some(place))
    }

    /// Where the errors so far are.
    pub(super) fn places(&self) -> BTreeSet<Place> {
        let errors = self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        errors.filter_map(|error| error.place).collect()
    }

    /// Whether one of `places` is within `span`.
    pub(super) fn is_within(&self, span: &Range<usize>, places: &BTreeSet<Place>) -> bool {
        let place = |at| Place::of_offset(self.text, at);
        places.range(place(span.start)..place(span.end)).next().is_some()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    pub(super) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// All errors and warnings, in the order of the file.
    pub(super) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by(|a, b| (a.place, &a.message).cmp(&(b.place, &b.message)));
        self.diagnostics.dedup();
        self.diagnostics
    }
}

/// Parses the file's syntax; everything that is not TOML is reported.
pub(super) fn parse<'a>(text: &'a str, report: &mut Report<'_>) -> Table<'a> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let help = "this is not TOML: compare the line with the examples in the reference, and mind quotes, \
            brackets and `=`";
        report.error(&error.span().unwrap_or_default(), error.message(), help.to_owned());
    }
    Table { path: Vec::new(), span: 0..0, table: root.into_inner() }
}

/// One table of the file.
#[derive(Clone)]
pub(super) struct Table<'a> {
    path: Vec<String>,
    span: Range<usize>,
    table: DeTable<'a>,
}

impl<'a> Table<'a> {
    /// The table's own name: `tank` for `[streams.tank]`.
    pub(super) fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// `[streams.tank]`
    pub(super) fn title(&self) -> String {
        title(&self.path)
    }

    /// Where the table's name is written.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The text under `key`, if it is there and is text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.table.get(key).and_then(|value| value.get_ref().as_str())
    }

    /// The texts in the list under `key`, and where each is written.
    pub(super) fn texts(&self, key: &str) -> Vec<(&str, Range<usize>)> {
        let list = self.table.get(key).and_then(|value| value.get_ref().as_array());
        list.into_iter().flatten().filter_map(|item| Some((item.get_ref().as_str()?, item.span()))).collect()
    }

    /// Where the values of its keys are written.
    pub(super) fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        self.table.iter().map(|(_, value)| value.span())
    }

    /// Whether there is nothing in the table or list under `key` as it is written; what is wrong in it is
    /// something.
    pub(super) fn is_written_empty(&self, key: &str) -> bool {
        self.table.get(key).map(|value| value.get_ref()).is_some_and(|value| match value {
            DeValue::Table(table) => table.is_empty(),
            DeValue::Array(list) => list.is_empty(),
            _ => false,
        })
    }

    /// The keys of which that is so.
    pub(super) fn written_empty(&self) -> Vec<String> {
        let keys = self.table.keys().map(|key| key.get_ref().to_string());
        keys.filter(|key| self.is_written_empty(key)).collect()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The bytes of the value under the keys `path`, or of what there is of it.
    pub(super) fn span_of(&self, path: &[&str]) -> Range<usize> {
        let mut span = self.span.clone();
        let mut table = Some(&self.table);
        for key in path {
            let Some(value) = table.and_then(|table| table.get(*key)) else { break };
            span = value.span();
            table = value.get_ref().as_table();
        }
        span
    }

    /// The bytes of the key that `path` leads to, or of what there is of it.
    pub(super) fn key_span_of(&self, path: &[&str]) -> Range<usize> {
        let Some((last, outer)) = path.split_last() else { return self.span.clone() };
        let mut table = Some(&self.table);
        for key in outer {
            table = table.and_then(|table| table.get(*key)).and_then(|value| value.get_ref().as_table());
        }
        table
            .and_then(|table| table.get_key_value(*last))
            .map_or_else(|| self.span_of(outer), |(key, _)| key.span())
    }

    /// Takes the sub-table `key` out; anything but a table is an error. `header` is how users write it:
    /// `[rules]`, `[streams.NAME]`.
    pub(super) fn take_table(
        &mut self,
        key: &str,
        header: &str,
        report: &mut Report<'_>,
    ) -> Option<Table<'a>> {
        let (name, value) = self.table.remove_entry(key)?;
        let mut path = self.path.clone();
        path.push(key.to_owned());
        let (found, help) = match value.into_inner() {
            DeValue::Table(table) => return Some(Table { path, span: name.span(), table }),
            DeValue::Array(_) => ("a list", format!("write single brackets: {header}")),
            _ => ("a single value", format!("write {header} on a line of its own, and its keys below")),
        };
        report.error(&name.span(), format!("`{key}` is a table, and not {found}"), help);
        None
    }

    /// Takes all sub-tables out, in order of their names.
    pub(super) fn into_tables(mut self, report: &mut Report<'_>) -> Vec<Table<'a>> {
        let names: Vec<String> = self.table.keys().map(|name| name.get_ref().to_string()).collect();
        let take = |name: &String| {
            let header = title(&[self.path.as_slice(), std::slice::from_ref(name)].concat());
            self.take_table(name, &header, report)
        };
        names.iter().filter_map(take).collect()
    }

    /// Takes the keys `keys` out into a table of the same name.
    pub(super) fn take_keys(&mut self, keys: &[&str]) -> Table<'a> {
        let mut taken = Table { path: self.path.clone(), span: self.span.clone(), table: DeTable::new() };
        for key in keys {
            if let Some((key, value)) = self.table.remove_entry(*key) {
                taken.table.insert(key, value);
            }
        }
        taken
    }

    /// Reads the table into `T`. Every wrong, unknown or missing key is reported; `elsewhere` are keys that
    /// are read by others, and are only known here to be suggested. What is wrong is as if it was not
    /// written, so that the rest can be checked, too.
    pub(super) fn read<T: DeserializeOwned + JsonSchema>(
        &self,
        elsewhere: &[&str],
        report: &mut Report<'_>,
    ) -> Option<T> {
        let mut rest = DeValue::Table(self.table.clone());
        let mut refused = BTreeSet::new();
        loop {
            let error = match T::deserialize(Value::new(&rest)) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let is_missing_here = matches!(error.problem, Problem::MissingKey(_)) && error.path.is_empty();
            if is_missing_here {
                self.report_missing(&required_keys::<T>(), &refused, report);
                return None;
            }
            if !remove(&mut rest, &error.path) {
                self.report_error(&error, elsewhere, report);
                return None;
            }
            // What was refused, and taken out for that, is missing now.
            let is_refused = |key: &str| refused.contains(&[error.path.join("."), key.to_owned()].join("."));
            let is_said = matches!(error.problem, Problem::MissingKey(key) if is_refused(key));
            if !is_said {
                self.report_error(&error, elsewhere, report);
            }
            refused.insert(error.path.join("."));
        }
    }

    fn report_missing(&self, required: &[String], refused: &BTreeSet<String>, report: &mut Report<'_>) {
        for key in
            required.iter().filter(|key| !self.table.contains_key(key.as_str()) && !refused.contains(*key))
        {
            report.error(&self.span, missing(key, &self.path), add_key(key));
        }
    }

    fn report_error(&self, error: &ValueError, elsewhere: &[&str], report: &mut Report<'_>) {
        let span = error.span.clone().unwrap_or_else(|| self.span.clone());
        let mut path = self.path.clone();
        path.extend(error.path.iter().cloned());
        let (key, table) = path.split_last().map_or(("", &path[..]), |(key, table)| (key.as_str(), table));
        match &error.problem {
            Problem::UnknownKey { known } => {
                let mut known = known.to_vec();
                if error.path.len() == 1 {
                    known.extend(elsewhere);
                }
                report.error(
                    &span,
                    format!("unknown key `{key}`{}", within(table)),
                    suggest_key(key, &known),
                );
            }
            Problem::MissingKey(key) => report.error(&span, missing(key, &path), add_key(key)),
            Problem::UnknownChoice { found, known } => {
                let help =
                    match elsewhere_called(found, known).or_else(|| nearest(found, known.iter().copied())) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("write one of {}", quoted(known)),
                    };
                report.error(
                    &span,
                    format!("expected one of {} for `{key}`, found \"{found}\"", quoted(known)),
                    help,
                );
            }
            Problem::SecretInFile => {
                let help = format!(
                    "keep it in a file or in the environment: `{key} = {{ file = \"..\" }}` or `{key} = {{ \
                    env = \"..\" }}`; then change the secret, since this file may have been copied"
                );
                report.error(&span, format!("the secret `{key}` must not be written into this file"), help);
            }
            Problem::Other(message) => {
                report.error(&span, format!("`{key}`{}: {message}", within(table)), advice(key, message));
            }
        }
    }
}

/// A table as protocols read it.
pub(super) struct Reader<'t, 'a, 'r> {
    table: &'t mut Table<'a>,
    /// Keys of the table that are read by others.
    elsewhere: Vec<&'static str>,
    report: &'t mut Report<'r>,
}

impl<'a> Table<'a> {
    /// Reads the table into types that are chosen elsewhere; see [`Table::read`].
    pub(super) fn reader<'t, 'r>(
        &'t mut self,
        elsewhere: &[&'static str],
        report: &'t mut Report<'r>,
    ) -> Reader<'t, 'a, 'r> {
        Reader { table: self, elsewhere: elsewhere.to_vec(), report }
    }
}

impl tidegate_connectors::table::Table for Reader<'_, '_, '_> {
    fn contains(&self, key: &str) -> bool {
        self.table.contains(key)
    }

    fn take<T: DeserializeOwned + JsonSchema>(&mut self, keys: &'static [&'static str]) -> Option<T> {
        self.elsewhere.extend(keys);
        self.table.take_keys(keys).read(&[], self.report)
    }

    fn read<T: DeserializeOwned + JsonSchema>(&mut self) -> Option<T> {
        self.table.read(&self.elsewhere, self.report)
    }
}

/// What would have been right, for mistakes that other programs' files suggest.
fn advice(key: &str, message: &str) -> Option<String> {
    let (expected, found) = message.strip_prefix("expected ")?.split_once(", found ")?;
    let text = found.strip_prefix("the text \"").and_then(|text| text.strip_suffix('"'));
    match (key, expected, text) {
        ("tls", "a table", _) if found == "false" => {
            Some("leave `tls` out for a line that is not encrypted".to_owned())
        }
        ("tls", "a table", _) => Some(
            "write `tls = {}` to trust the system's authorities, or name one: `tls = { ca = \"ca.pem\" }`"
                .to_owned(),
        ),
        (_, "true or false", Some(text @ ("true" | "false"))) => {
            Some(format!("write it without quotes: `{key} = {text}`"))
        }
        (_, expected, Some(text)) if expected.contains("number") && text.parse::<f64>().is_ok() => {
            Some(format!("write it without quotes: `{key} = {text}`"))
        }
        (_, "text in quotes", None) if !found.starts_with("a ") => {
            Some(format!("write it in quotes: `{key} = \"{found}\"`"))
        }
        _ => None,
    }
}

/// What other systems call the types and units that are known here by another name.
const ELSEWHERE: [(&str, &[&str]); 10] = [
    ("bool", &["boolean", "bit"]),
    ("int64", &["int", "integer", "bigint", "long", "smallint", "int32", "uint32", "int16"]),
    ("float64", &["float", "double", "real", "number", "decimal", "numeric", "float32"]),
    ("utf8", &["string", "str", "text", "varchar", "char"]),
    ("bytes", &["binary", "varbinary", "bytea", "blob", "byte"]),
    ("timestamp", &["datetime", "time", "date", "timestamptz"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("ms", &["milli", "millis", "millisecond", "milliseconds"]),
    ("us", &["micro", "micros", "microsecond", "microseconds"]),
    ("ns", &["nano", "nanos", "nanosecond", "nanoseconds"]),
];

/// The choice among `known` that is called `found` elsewhere.
fn elsewhere_called<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase();
    let (name, _) = ELSEWHERE.iter().find(|(_, names)| names.contains(&found.as_str()))?;
    known.iter().find(|known| *known == name).copied()
}

/// Removes what `path` leads to. Whatever is below a list goes with the list.
fn remove(value: &mut DeValue<'_>, path: &[String]) -> bool {
    let (Some((key, rest)), DeValue::Table(table)) = (path.split_first(), value) else { return false };
    let inner_removed =
        !rest.is_empty() && table.get_mut(key.as_str()).is_some_and(|inner| remove(inner.get_mut(), rest));
    inner_removed || table.remove(key.as_str()).is_some()
}

fn required_keys<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let required = schema.get("required").and_then(|required| required.as_array());
    required.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

fn title(path: &[String]) -> String {
    let is_bare =
        |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let keys = path.iter().map(|key| if is_bare(key) { key.clone() } else { format!("{key:?}") });
    format!("[{}]", keys.collect::<Vec<_>>().join("."))
}

fn within(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!(" in {}", title(path)) }
}

fn missing(key: &str, path: &[String]) -> String {
    format!("the key `{key}` is missing{}", within(path))
}

fn add_key(key: &str) -> String {
    format!("add `{key} = ..`")
}

/// The nearest key, or else all of them: a key that is not there is often one of another version or another
/// table.
fn suggest_key(key: &str, known: &[&str]) -> Option<String> {
    match nearest(key, known.iter().copied()) {
        Some(_) => diagnostic::did_you_mean(key, known),
        None if known.is_empty() => None,
        None => Some(format!("known keys: {}", list(known))),
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
