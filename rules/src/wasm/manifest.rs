//! What stands in NAME.toml beside NAME.wasm: what the plugin reads and writes, and how far it may go.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{ByteSize, Diagnostic, FieldType, Place};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::Options;
use crate::options::Key;

/// What a manifest says.
#[derive(Debug)]
pub(super) struct Manifest {
    /// what all languages have
    pub options: Options,
    /// streams, each with its place
    pub reads: Vec<(String, Place)>,
    pub writes: Vec<Written>,
    /// a JSON object
    pub config: String,
    /// where that begins
    pub config_at: Place,
    pub limits: Limits,
    /// where each of those that are written begins, and `limits` itself
    pub limits_at: BTreeMap<String, Place>,
    pub signature: Option<String>,
    pub warnings: Vec<Diagnostic>,
}

/// A target.
#[derive(Debug)]
pub(super) struct Written {
    pub name: String,
    pub at: Place,
    /// Those that it is given; empty: what the target declares.
    pub columns: Vec<(String, FieldType)>,
}

/// How far a plugin may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    /// of all its memories together
    pub memory: ByteSize,
    /// steps that a row, a timer or `configure` may take
    pub fuel: u64,
    /// of all its tables together
    pub table_entries: usize,
    /// modules in it
    pub instances: usize,
}

/// Some ten seconds: a call ends by itself, wherever it is made, also where nobody watches how long it takes.
const MOST_FUEL: u64 = 10_000_000_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            // What the interpreters of Python and JavaScript need, twice over.
            memory: ByteSize(64 << 20),
            // Some ten milliseconds; a transform of a thousand samples takes a twentieth of it.
            fuel: 10_000_000,
            table_entries: 100_000,
            // Python comes in some thirty modules.
            instances: 100,
        }
    }
}

const KEYS: &[Key] = &[
    ("reads", "a list of streams", "reads = [\"tank\"]"),
    ("writes", "a list of targets, or a table for each of them", "writes = [\"cooling_pump\"]"),
    ("config", "a table", "config = { limit = 80.0 }"),
    ("limits", "a table", "limits = { memory = \"16MiB\" }"),
    ("signature", "what minisign has written", "signature = \"\"\"untrusted comment: ..\"\"\""),
];

const LIMITS: &[Key] = &[
    ("memory", "a size", "memory = \"64MiB\""),
    ("fuel", "a whole number from 1 to 10000000000", "fuel = 10000000"),
    ("table_entries", "a whole number greater than 0", "table_entries = 100000"),
    ("instances", "a whole number greater than 0", "instances = 100"),
];

const TARGET: &[Key] = &[("columns", "a table of names and types", "columns = { score = \"float64\" }")];

impl Manifest {
    /// Reads `text`, which stands beside the rule file `file`.
    ///
    /// # Errors
    /// With every place that is wrong.
    pub(super) fn read(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let file = manifest_of(file);
        let mut reader = Reader { file: &file, text, wrong: Vec::new() };
        let root = match DeTable::parse(text) {
            Ok(root) => root.into_inner(),
            Err(error) => {
                let what = format!("this is no TOML: {}", error.message().trim_end());
                reader.error(error.span().map_or(0, |span| span.start), what, None);
                return Err(reader.wrong);
            }
        };
        let (mut common, mut manifest) = (toml::Table::new(), Self::empty());
        let mut full_at = None;
        for (name, key, value) in in_order(root) {
            let at = reader.place(key);
            match name.as_str() {
                "reads" => {
                    let names: Option<Vec<Spanned<String>>> = reader.take(KEYS, &name, value);
                    manifest.reads = reader.placed(names.unwrap_or_default());
                }
                "writes" => manifest.writes = reader.writes(value),
                "config" => {
                    manifest.config_at = at;
                    manifest.config = reader.config(value).unwrap_or_default();
                }
                "limits" => {
                    manifest.limits = reader.limits(value, &mut manifest.limits_at);
                    manifest.limits_at.insert(name, at);
                }
                "signature" => manifest.signature = reader.take(KEYS, &name, value),
                _ if Options::KEYS.iter().any(|(option, ..)| *option == name) => {
                    full_at = full_at.or((name == "when_full").then_some(at));
                    if let Some(value) = reader.option(&name, value) {
                        common.insert(name, value);
                    }
                }
                _ => {
                    let known: Vec<&str> = KEYS.iter().chain(Options::KEYS).map(|(name, ..)| *name).collect();
                    reader.error(key, format!("unknown key `{name}`"), did_you_mean(&name, &known));
                }
            }
        }
        match Options::deserialize(common) {
            Ok(options) => manifest.options = options,
            Err(error) => reader.error(0, error.message().to_owned(), None),
        }
        let waits = manifest.options.waiting_for_the_buffer().zip(full_at);
        manifest.warnings.extend(
            waits.map(|((what, help), at)| {
                Diagnostic::new(&*file, what).at(at).help(help.to_owned()).warning()
            }),
        );
        if manifest.reads.is_empty() && reader.wrong.is_empty() {
            let help = "write `reads = [\"NAME\"]` with the streams whose rows it is to see";
            reader.error(0, "the plugin reads no stream".to_owned(), Some(help.to_owned()));
        }
        if manifest.writes.is_empty() && reader.wrong.is_empty() {
            let help = "write `writes = [\"NAME\"]` with outputs, derived streams or `uplink`";
            reader.error(
                0,
                "the plugin writes nothing, so nothing would come of it".to_owned(),
                Some(help.to_owned()),
            );
        }
        if reader.wrong.is_empty() { Ok(manifest) } else { Err(reader.wrong) }
    }

    fn empty() -> Self {
        Self {
            options: Options::default(),
            reads: Vec::new(),
            writes: Vec::new(),
            config: "{}".to_owned(),
            config_at: Place { line: 1, column: 1 },
            limits: Limits::default(),
            limits_at: BTreeMap::new(),
            signature: None,
            warnings: Vec::new(),
        }
    }
}

/// The file in which the manifest of the rule `file` stands.
pub(super) fn manifest_of(file: &str) -> String {
    Path::new(file).with_extension("toml").display().to_string()
}

/// The entries of a table as they stand in the file: name, where it stands, value.
fn in_order(table: DeTable<'_>) -> Vec<(String, usize, Spanned<DeValue<'_>>)> {
    let mut entries: Vec<_> = table
        .into_iter()
        .map(|(key, value)| {
            let at = key.span().start;
            (key.into_inner().into_owned(), at, value)
        })
        .collect();
    entries.sort_by_key(|(_, at, _)| *at);
    entries
}

/// Collects what is wrong.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    wrong: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        Place::of_offset(self.text, offset)
    }

    fn error(&mut self, offset: usize, what: String, help: Option<String>) {
        self.wrong.push(Diagnostic::new(self.file, what).at(self.place(offset)).help(help));
    }

    /// The value of the key `name`, which is one of `keys`.
    fn take<T: DeserializeOwned>(
        &mut self,
        keys: &[Key],
        name: &str,
        value: Spanned<DeValue<'_>>,
    ) -> Option<T> {
        let at = value.span().start;
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.not_taken(keys, name, error.span().map_or(at, |span| span.start), error.message());
                None
            }
        }
    }

    fn not_taken(&mut self, keys: &[Key], name: &str, at: usize, why: &str) {
        let (_, takes, example) =
            keys.iter().find(|(key, ..)| *key == name).copied().unwrap_or((name, "something else", name));
        let is_other = why.starts_with("invalid type") || why.starts_with("invalid value");
        let what = if is_other {
            format!("`{name}` takes {takes}")
        } else {
            format!("cannot read `{name}`: {}", why.trim_end())
        };
        self.error(at, what, Some(format!("write `{example}`")));
    }

    fn placed(&self, names: Vec<Spanned<String>>) -> Vec<(String, Place)> {
        names
            .into_iter()
            .map(|name| {
                let at = self.place(name.span().start);
                (name.into_inner(), at)
            })
            .collect()
    }

    /// An option of all languages, if it is good by itself.
    fn option(&mut self, name: &str, value: Spanned<DeValue<'_>>) -> Option<toml::Value> {
        let at = value.span().start;
        let value: toml::Value = self.take(Options::KEYS, name, value)?;
        let alone: toml::Table = [(name.to_owned(), value.clone())].into_iter().collect();
        match Options::deserialize(alone) {
            Ok(_) => Some(value),
            Err(error) => {
                self.not_taken(Options::KEYS, name, at, error.message());
                None
            }
        }
    }

    fn writes(&mut self, value: Spanned<DeValue<'_>>) -> Vec<Written> {
        if !value.get_ref().is_table() {
            let names: Option<Vec<Spanned<String>>> = self.take(KEYS, "writes", value);
            let names = self.placed(names.unwrap_or_default());
            return names.into_iter().map(|(name, at)| Written { name, at, columns: Vec::new() }).collect();
        }
        let DeValue::Table(targets) = value.into_inner() else { return Vec::new() };
        let mut written = Vec::new();
        for (name, key, value) in in_order(targets) {
            let at = self.place(key);
            let mut columns = Vec::new();
            for (word, key, value) in self.table(&name, value) {
                match (word.as_str(), value.get_ref()) {
                    ("columns", DeValue::Table(_)) => columns = self.columns(value),
                    ("columns", _) => self.not_taken(TARGET, &word, value.span().start, "invalid type"),
                    _ => self.error(key, format!("unknown key `{word}`"), did_you_mean(&word, &["columns"])),
                }
            }
            written.push(Written { name, at, columns });
        }
        written
    }

    fn columns(&mut self, value: Spanned<DeValue<'_>>) -> Vec<(String, FieldType)> {
        let mut columns = Vec::new();
        for (name, _, value) in self.table("columns", value) {
            let at = value.span().start;
            let found = value.get_ref().as_str().unwrap_or_default().to_owned();
            match FieldType::deserialize(ValueDeserializer::from(value)) {
                Ok(kind) => columns.push((name, kind)),
                Err(_) => {
                    let known = ["bool", "int64", "float64", "utf8", "timestamp", "bytes"];
                    let what = format!("`{found}` is not a type of a column");
                    self.error(at, what, did_you_mean(&found, &known));
                }
            }
        }
        columns
    }

    fn table<'i>(
        &mut self,
        name: &str,
        value: Spanned<DeValue<'i>>,
    ) -> Vec<(String, usize, Spanned<DeValue<'i>>)> {
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Table(table) => in_order(table),
            _ => {
                self.error(at, format!("`{name}` takes a table"), None);
                Vec::new()
            }
        }
    }

    fn limits(&mut self, value: Spanned<DeValue<'_>>, places: &mut BTreeMap<String, Place>) -> Limits {
        let mut limits = Limits::default();
        for (name, key, value) in self.table("limits", value) {
            places.insert(name.clone(), self.place(key));
            let count = |reader: &mut Self, value: Spanned<DeValue<'_>>, most: u64| -> Option<u64> {
                let at = value.span().start;
                let count: u64 = reader.take(LIMITS, &name, value)?;
                if !(1..=most).contains(&count) {
                    reader.not_taken(LIMITS, &name, at, "invalid value");
                }
                Some(count)
            };
            match name.as_str() {
                "memory" => limits.memory = self.take(LIMITS, &name, value).unwrap_or(limits.memory),
                "fuel" => limits.fuel = count(self, value, MOST_FUEL).unwrap_or(limits.fuel),
                "table_entries" => {
                    limits.table_entries =
                        count(self, value, u64::MAX).map_or(limits.table_entries, |n| n as usize);
                }
                "instances" => {
                    limits.instances = count(self, value, u64::MAX).map_or(limits.instances, |n| n as usize)
                }
                _ => {
                    let known: Vec<&str> = LIMITS.iter().map(|(name, ..)| *name).collect();
                    self.error(key, format!("there is no limit `{name}`"), did_you_mean(&name, &known));
                }
            }
        }
        limits
    }

    fn config(&mut self, value: Spanned<DeValue<'_>>) -> Option<String> {
        let at = value.span().start;
        let table: toml::Table = self.take(KEYS, "config", value)?;
        match json(&toml::Value::Table(table)) {
            Ok(config) => Some(config.to_string()),
            Err(what) => {
                self.error(at, what, None);
                None
            }
        }
    }
}

/// `value` in JSON, as plugins get it: times as text.
fn json(value: &toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .ok_or_else(|| format!("`config` is handed over as JSON, which has no {number}"))?
            .into(),
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => {
            let entries = table.iter().map(|(key, value)| Ok((key.clone(), json(value)?)));
            serde_json::Value::Object(entries.collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        let wrong = Manifest::read("rules/a.wasm", text).err().unwrap_or_default();
        wrong.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_manifest_is_read() {
        let text = "reads = [\"tank\", \"valve\"]\nmode = \"shadow\"\nmax_state = \"1MiB\"\n\
            [writes.uplink]\ncolumns = { score = \"float64\", device = \"utf8\" }\n[writes.pump]\n\
            [config]\nlimit = 80.5\nnames = [\"a\"]\nsince = 2026-01-01\n[limits]\nmemory = \"16MiB\"\nfuel = 7\n";
        let manifest = Manifest::read("a.wasm", text).unwrap();
        assert_eq!(manifest.options.mode, crate::Mode::Shadow);
        assert_eq!(manifest.options.max_state, ByteSize(1 << 20));
        let reads: Vec<&str> = manifest.reads.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(reads, ["tank", "valve"]);
        assert_eq!(manifest.reads[1].1, Place { line: 1, column: 18 });
        let writes: Vec<(&str, &[(String, FieldType)])> =
            manifest.writes.iter().map(|target| (target.name.as_str(), target.columns.as_slice())).collect();
        let score = ("score".to_owned(), FieldType::Float64);
        let device = ("device".to_owned(), FieldType::Utf8);
        assert_eq!(writes, [("uplink", &[score, device][..]), ("pump", &[][..])]);
        assert_eq!(manifest.config, r#"{"limit":80.5,"names":["a"],"since":"2026-01-01"}"#);
        let limits = Limits { memory: ByteSize(16 << 20), fuel: 7, ..Limits::default() };
        assert_eq!(manifest.limits, limits);
        let listed = Manifest::read("a.wasm", "reads = [\"a\"]\nwrites = [\"b\", \"a\"]").unwrap();
        let names: Vec<&str> = listed.writes.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let text = "read = [\"tank\"]\nreads = \"tank\"\nmode = \"shadw\"\n[limits]\nmemry = \"1MiB\"\nfuel = 0\n\
            memory = 5\n[writes.pump]\ncolumns = { a = \"flaot64\", b = 1 }\ncolums = 1\n[config]\nx = inf\n";
        assert_eq!(
            wrong(text),
            [
                "rules/a.toml:1:1: unknown key `read`; did you mean `reads`?",
                "rules/a.toml:2:9: `reads` takes a list of streams; write `reads = [\"tank\"]`",
                "rules/a.toml:3:8: cannot read `mode`: unknown variant `shadw`, expected one of `active`, \
                 `shadow`, `off`; write `mode = \"shadow\"`",
                "rules/a.toml:5:1: there is no limit `memry`; did you mean `memory`?",
                "rules/a.toml:6:8: `fuel` takes a whole number from 1 to 10000000000; write `fuel = 10000000`",
                "rules/a.toml:7:10: `memory` takes a size; write `memory = \"64MiB\"`",
                "rules/a.toml:9:17: `flaot64` is not a type of a column; did you mean `float64`?",
                "rules/a.toml:9:32: `` is not a type of a column; known names: `bool`, `int64`, `float64`, \
                 `utf8`, `timestamp`, `bytes`",
                "rules/a.toml:10:1: unknown key `colums`; did you mean `columns`?",
                "rules/a.toml:11:1: `config` is handed over as JSON, which has no inf",
            ]
        );
        let endless = wrong("reads = [\"a\"]\nwrites = [\"b\"]\nlimits = { fuel = 10000000001 }");
        assert!(
            endless[0].starts_with("rules/a.toml:3:19: `fuel` takes a whole number from 1"),
            "{endless:?}"
        );
        assert!(wrong("reads = [")[0].starts_with("rules/a.toml:1:"), "{:?}", wrong("reads = ["));
        assert!(wrong("")[0].starts_with("rules/a.toml:1:1: the plugin reads no stream; write"));
    }
}
