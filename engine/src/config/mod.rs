//! The configuration: one TOML file, read once and turned into types that cannot be wrong.
//!
//! [`load`] reports everything that is wrong at once, each with line, column, what was expected and the
//! nearest valid name. Whoever holds a [`Config`] can rely on this: every connection that is named exists and
//! has the right kind; stream and output names are plain SQL identifiers, and no two are the same; what
//! is said to connections is well-formed; files that are named exist (but for those of tables, which may come later), and relative
//! paths have been resolved against the directory of the configuration file.
//!
//! What a key means to users is in `docs/configuration.md`.

mod contract;
mod difference;
mod document;
mod file;
mod management;
mod names;
mod schema;
mod validate;
mod value;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_connectors::{ConnectionConfig, OutputConfig, StreamConfig, UplinkConfig};
use tidegate_core::schema::ts_field;
use tidegate_core::{ByteSize, Diagnostic, FieldType, Place, Span};

pub use contract::{
    AfterOverride, Contract, ContractKind, External, Interlock, MaxInputAge, OnMismatch, OnStop, OutOfRange,
    ReadBack, Rest, Startup, Tie, Value, Values,
};
pub use difference::data_dir;
pub use file::json_schema;
pub use management::Management;

/// Everything that a box is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that says it.
    pub file: PathBuf,
    /// The box's name: lower case letters, digits and hyphens.
    pub name: String,
    /// Where the box keeps its state.
    pub data_dir: PathBuf,
    /// By name.
    pub connections: BTreeMap<String, ConnectionConfig>,
    /// By name. No name is also an output's or a table's.
    pub streams: BTreeMap<String, Stream>,
    /// Reference tables, by name. No name is also a stream's or an output's.
    pub tables: BTreeMap<String, ReferenceTable>,
    /// By name. No name is also a stream's.
    pub outputs: BTreeMap<String, Output>,
    /// The ways to the cloud, by name; the one of `[uplink]` is called `uplink`.
    pub uplinks: BTreeMap<String, Uplink>,
    /// Where rules are and how they run.
    pub rules: Rules,
    /// The SQLite database.
    pub buffer: Buffer,
    /// Who may tell the box what to do from afar; absent: nobody.
    pub management: Option<Management>,
    /// What probably is not meant as it is written.
    pub warnings: Vec<Diagnostic>,
}

/// A named, typed, endless table.
#[expect(clippy::large_enum_variant, reason = "there is one a table of the file")]
#[derive(Debug, Clone, PartialEq)]
pub enum Stream {
    /// Fed by a connection, which is in [`Config::connections`] and of the same kind.
    Input(StreamConfig),
    /// Fed by rules.
    Derived {
        /// The columns beside `ts`; never empty.
        fields: BTreeMap<String, FieldType>,
    },
}

/// A file that rules look things up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceTable {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub kind: TableKind,
    /// The columns, if they are declared; never empty.
    pub fields: Option<BTreeMap<String, FieldType>>,
    /// How large it may be.
    pub max_size: ByteSize,
}

/// What is in a table's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableKind {
    /// a line a row
    Csv,
    /// columns, packed
    Parquet,
    /// a SQLite database
    Sqlite {
        /// gives the rows
        query: String,
    },
}

/// A place that rules may write to.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// How many rows may wait to be written.
    pub queue: NonZeroUsize,
    /// What happens to a row when the queue is full.
    pub when_full: WhenQueueFull,
    /// What it promises whatever rules say.
    pub contract: Option<Contract>,
    /// What the kind of connection needs to know; the connection is in [`Config::connections`], and of the
    /// same kind.
    pub config: OutputConfig,
}

/// What happens when an output's queue is full. Both are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenQueueFull {
    /// Whoever writes waits, and with it everything before it, back to the connection.
    Block,
    /// The oldest rows make room.
    DropOldest,
}

/// A way to the cloud.
#[derive(Debug, Clone, PartialEq)]
pub struct Uplink {
    /// The rules whose rows it takes; never empty. `None`: all.
    pub rules: Option<BTreeSet<String>>,
    /// How many rows may be sent and not yet confirmed.
    pub in_flight: NonZeroUsize,
    /// At most this many rows of the backlog a second, so that live rows are not held up. `None`: as fast as
    /// the uplink takes them.
    pub backlog_rate: Option<NonZeroU32>,
    /// What the kind of uplink needs to know.
    pub config: UplinkConfig,
}

/// `[rules]`: where rules are and how they run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The directory that is watched.
    pub dir: PathBuf,
    /// How many threads run rules.
    pub workers: NonZeroUsize,
    /// For how long a call of a rule may use the processor.
    pub time_limit: Span,
    /// Public keys of minisign that plugins may be signed with.
    pub trusted_keys: Vec<String>,
    /// Whether plugins that are not signed are refused.
    pub require_signed_plugins: bool,
}

/// `[buffer]`: the SQLite database that keeps results until the uplink took them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// The database file.
    pub path: PathBuf,
    /// How large its content may grow.
    pub max_size: ByteSize,
    /// What of that only rows of priority 8 and 9 may use.
    pub reserve: ByteSize,
    /// What happens when it is as large, to rows whose rule does not say.
    pub when_full: tidegate_rules::WhenFull,
    /// How long rows whose rule does not say are worth sending; absent: for ever.
    pub ttl: Option<Span>,
    /// How many rows may wait in memory to be committed, for the outbox and for the journal each.
    pub queue: NonZeroUsize,
    /// How many row numbers are reserved on disk at a time. Not in the file: 2^32 are enough for an hour at a
    /// million rows a second, and leave two million starts.
    pub numbers: u64,
    /// How long rows are collected, to be committed together. Zero: what is there is committed.
    pub commit_every: Span,
    /// How long a commit may wait until the disk has it for certain. `None`: it does not wait.
    pub sync_every: Option<Span>,
    /// How large the journal may grow beyond what recovery needs.
    pub journal_size: ByteSize,
    /// How long the journal keeps what recovery does not need any more.
    pub journal_age: Span,
    /// How often the rules' state is stored.
    pub snapshot_every: Span,
}

/// Reads and validates the configuration file at `path`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file; never empty.
pub fn load(path: &Path) -> Result<Config, Vec<Diagnostic>> {
    let file = path.display().to_string();
    let base_dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = file::read(path).map_err(|diagnostic| vec![diagnostic])?;
    parse(&text, &file, base_dir)
}

/// Validates the configuration `text`. `file` names it in errors; relative paths in it are relative to
/// `base_dir`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text; never empty.
pub fn parse(text: &str, file: &str, base_dir: &Path) -> Result<Config, Vec<Diagnostic>> {
    validate::config(text, file, base_dir)
}

/// What is wrong with the `rules` of the uplinks in the configuration file at `path`, if these are the names
/// of all rules that there are. A box does not mind: rules come and go while it runs.
///
/// # Errors
/// When the file cannot be read.
pub fn check_uplink_rules(path: &Path, rules: &[&str]) -> Result<Vec<Diagnostic>, Diagnostic> {
    Ok(validate::uplink_rules(&file::read(path)?, &path.display().to_string(), rules))
}

/// Where the value that `keys` lead to is written in the configuration file at `path`, or the nearest table
/// around it.
#[must_use]
pub fn place(path: &Path, keys: &[&str]) -> Option<Place> {
    let text = file::read(path).ok()?;
    let root = document::parse(&text, &mut document::Report::new("", &text));
    Some(Place::of_offset(&text, root.span_of(keys).start))
}

impl Buffer {
    /// The database at `path`, with what holds where nothing is configured.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        file::BufferTable::default().at(path)
    }
}

impl ReferenceTable {
    /// The columns, if they were declared, in order of their names.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        let fields = self
            .fields
            .as_ref()?
            .iter()
            .map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
        Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

impl Stream {
    /// Whether the connection called `name` feeds it.
    #[must_use]
    pub fn is_fed_by(&self, name: &str) -> bool {
        match self {
            Self::Input(stream) => stream.connections().iter().any(|connection| connection == name),
            Self::Derived { .. } => false,
        }
    }

    /// Whether `ts` is the time of arrival.
    #[must_use]
    pub fn goes_by_arrival(&self) -> bool {
        match self {
            Self::Input(stream) => stream.goes_by_arrival(),
            Self::Derived { .. } => false,
        }
    }

    /// The columns, if they were declared: `ts`, then the others. `None` when they are inferred from the
    /// data.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        let columns = match self {
            Self::Input(stream) => stream.columns()?,
            Self::Derived { fields } => {
                fields.iter().map(|(name, field_type)| (name.clone(), *field_type)).collect()
            }
        };
        let columns =
            columns.into_iter().map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
        Some(Arc::new(Schema::new(std::iter::once(ts_field()).chain(columns).collect::<Vec<_>>())))
    }
}
