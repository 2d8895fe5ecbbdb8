//! The file as it is written: the tables that the engine itself reads, and the JSON Schema of the whole for
//! editors.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use tidegate_connectors::{ConnectionConfig, OutputConfig, StreamConfig, UplinkConfig};
use tidegate_core::diagnostic::Place;
use tidegate_core::{ByteSize, Diagnostic, FieldType, Span};

use super::contract::{ContractTable, WordOr};
use super::{Buffer, WhenQueueFull, schema};

/// Keys outside of any table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RootKeys {
    /// Name of this box: lower case letters, digits and hyphens.
    pub(super) name: String,
    /// Directory where the box keeps its state.
    #[serde(default = "default_data_dir")]
    pub(super) data_dir: PathBuf,
}

/// `[streams.NAME]` without `connection`: a derived stream, which rules write.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DerivedStream {
    /// The columns beside `ts`, each with its type.
    pub(super) fields: BTreeMap<String, FieldType>,
}

/// `[tables.NAME]`: a file that rules look things up in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TableKeys {
    /// The file: CSV (`.csv`), Parquet (`.parquet`) or SQLite (`.db`, `.sqlite`, `.sqlite3`).
    pub(super) path: PathBuf,
    /// The columns, each with its type; absent: as the file has them.
    pub(super) fields: Option<BTreeMap<String, FieldType>>,
    /// The table of the SQLite database.
    pub(super) table: Option<String>,
    /// What gives the rows of the SQLite database, instead of `table`.
    pub(super) query: Option<String>,
    /// How large it may be, since it is held in memory.
    #[serde(default = "default_table_size")]
    pub(super) max_size: ByteSize,
}

/// The keys of `[outputs.NAME]` that every kind has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputKeys {
    /// How many rows may wait to be written.
    #[serde(default = "default_output_queue")]
    pub(super) queue: NonZeroUsize,
    /// What happens to a row when the queue is full.
    #[serde(default = "default_output_when_full")]
    pub(super) when_full: WhenQueueFull,
    /// What the output promises whatever rules say, or "none".
    pub(super) contract: Option<WordOr<ContractTable>>,
}

/// The keys of [`OutputKeys`].
pub(super) const OUTPUT_KEYS: [&str; 3] = ["queue", "when_full", "contract"];

/// The keys of `[uplink]` and `[uplinks.NAME]` that every kind has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UplinkKeys {
    /// The rules whose rows it takes; absent: all.
    pub(super) rules: Option<BTreeSet<String>>,
    /// How many rows may be sent and not yet confirmed.
    #[serde(default = "thousand")]
    pub(super) in_flight: NonZeroUsize,
    /// At most this many rows of the backlog a second, so that live rows are not held up; absent: as fast as
    /// the uplink takes them.
    pub(super) backlog_rate: Option<NonZeroU32>,
}

/// The keys of [`UplinkKeys`].
pub(super) const UPLINK_KEYS: [&str; 3] = ["rules", "in_flight", "backlog_rate"];

/// `[rules]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RulesTable {
    /// Directory of the rule files.
    pub(super) dir: PathBuf,
    /// How many threads run rules.
    pub(super) workers: NonZeroUsize,
    /// For how long a call of a rule, with one row or a batch of them, may use the processor before the rule is
    /// stopped.
    pub(super) time_limit: Span,
    /// Public keys of minisign. A plugin that is signed must be so by one of them.
    pub(super) trusted_keys: Vec<String>,
    /// Whether plugins that are not signed are refused.
    pub(super) require_signed_plugins: bool,
}

impl Default for RulesTable {
    fn default() -> Self {
        let time_limit = Span(Duration::from_secs(5));
        Self {
            dir: "rules".into(),
            workers: NonZeroUsize::MIN,
            time_limit,
            trusted_keys: Vec::new(),
            require_signed_plugins: false,
        }
    }
}

/// How soon the disk has a commit for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Durability {
    /// At once: a power cut loses nothing of it.
    Full,
    /// Within `sync_every`: a power cut may lose what was committed in that time. The end of the process
    /// alone loses nothing.
    Normal,
}

/// `sync_every` with `durability = "normal"`: seldom enough to spare the disk, and a loss that a person can
/// still overlook.
const SYNC_EVERY: Span = Span(Duration::from_secs(10));

/// What happens to new rows when the buffer is full.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BufferWhenFull {
    /// Rules wait, and with them the streams that feed them.
    Block,
    /// The oldest rows make room.
    DropOldest,
    /// They are dropped themselves.
    DropNewest,
    /// Every second block of the rows that wait makes room.
    ThinOut,
}

impl From<BufferWhenFull> for tidegate_rules::WhenFull {
    fn from(when_full: BufferWhenFull) -> Self {
        match when_full {
            BufferWhenFull::Block => Self::Block,
            BufferWhenFull::DropOldest => Self::DropOldest,
            BufferWhenFull::DropNewest => Self::DropNewest,
            BufferWhenFull::ThinOut => Self::ThinOut,
        }
    }
}

/// `[buffer]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BufferTable {
    /// The database file; `buffer.db` in `data_dir` when absent.
    pub(super) path: Option<PathBuf>,
    /// How large its content may grow.
    pub(super) max_size: ByteSize,
    /// What of that only rows of priority 8 and 9 may use.
    pub(super) reserve: ByteSize,
    /// What happens when it is as large, to rows whose rule does not say.
    pub(super) when_full: BufferWhenFull,
    /// How long rows whose rule does not say are worth sending; what is older is dropped. Absent: for ever.
    pub(super) ttl: Option<Span>,
    /// How many rows may wait in memory to be committed, for the outbox and for the journal each.
    pub(super) queue: NonZeroUsize,
    /// How long rows are collected, to be committed together.
    pub(super) commit_every: Span,
    /// Whether a commit waits until the disk has it for certain.
    pub(super) durability: Durability,
    /// With `durability = "normal"`: how long a commit may wait for that.
    pub(super) sync_every: Option<Span>,
    /// How large the journal may grow beyond what recovery needs.
    pub(super) journal_size: ByteSize,
    /// How long the journal keeps what recovery does not need any more.
    pub(super) journal_age: Span,
    /// How often the rules' state is stored, so that recovery has less to run again.
    pub(super) snapshot_every: Span,
}

impl Default for BufferTable {
    fn default() -> Self {
        // A day of one row a second fits many times over, and a small SD card still has room.
        Self {
            path: None,
            max_size: ByteSize(1 << 30),
            reserve: ByteSize(0),
            // Control goes on, and what is dropped is told. The newest rows say how things stand.
            when_full: BufferWhenFull::DropOldest,
            ttl: None,
            // As many as one commit takes.
            queue: NonZeroUsize::MIN.saturating_add(65_535),
            commit_every: Span(Duration::ZERO),
            durability: Durability::Full,
            sync_every: None,
            // Yesterday's data is what people try a new rule on.
            journal_size: ByteSize(256 << 20),
            journal_age: Span(Duration::from_hours(24)),
            snapshot_every: Span(Duration::from_mins(5)),
        }
    }
}

impl BufferTable {
    /// These settings for the database at `path`.
    pub(super) fn at(self, path: PathBuf) -> Buffer {
        Buffer {
            path,
            max_size: self.max_size,
            reserve: self.reserve,
            when_full: self.when_full.into(),
            ttl: self.ttl,
            queue: self.queue,
            numbers: 1 << 32,
            commit_every: self.commit_every,
            sync_every: match self.durability {
                Durability::Full => None,
                Durability::Normal => Some(self.sync_every.unwrap_or(SYNC_EVERY)),
            },
            journal_size: self.journal_size,
            journal_age: self.journal_age,
            snapshot_every: self.snapshot_every,
        }
    }
}

/// The configuration of one box.
#[derive(JsonSchema)]
#[schemars(title = "Tidegate configuration", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "only its schema is used; the file is read table by table, so that all errors are found"
)]
struct File {
    #[serde(flatten)]
    root: RootKeys,
    /// Lines to the outside, by name.
    #[serde(default)]
    connections: BTreeMap<String, ConnectionConfig>,
    /// Streams, by name.
    #[serde(default)]
    streams: BTreeMap<String, StreamTable>,
    /// Files that rules look things up in, by name.
    #[serde(default)]
    tables: BTreeMap<String, TableKeys>,
    /// Places that rules may write to, by name.
    #[serde(default)]
    outputs: BTreeMap<String, OutputTable>,
    /// The way to the cloud, if there is only one.
    uplink: Option<UplinkTable>,
    /// The ways to the cloud, by name, instead of `[uplink]`.
    #[serde(default)]
    uplinks: BTreeMap<String, UplinkTable>,
    /// Where rules are and how they run.
    #[serde(default)]
    rules: RulesTable,
    /// The database that keeps results until the uplink took them.
    #[serde(default)]
    buffer: BufferTable,
    /// Who may tell the box what to do from afar, and how.
    management: Option<super::management::ManagementKeys>,
}

/// `[streams.NAME]`: with `connection` an input stream, without a derived one.
#[expect(clippy::large_enum_variant, reason = "there is one a table of the file")]
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum StreamTable {
    #[schemars(schema_with = "input_streams")]
    Input(StreamConfig),
    Derived(DerivedStream),
}

/// `[outputs.NAME]`: a place that rules may write to.
struct OutputTable;

/// `[uplink]` or `[uplinks.NAME]`: a way to the cloud.
struct UplinkTable;

fn input_streams(generator: &mut SchemaGenerator) -> Schema {
    schema::one_of(StreamConfig::schemas(generator))
}

impl JsonSchema for OutputTable {
    fn schema_name() -> Cow<'static, str> {
        "OutputTable".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds = OutputConfig::schemas(generator);
        schema::one_of(schema::with_keys(&OutputKeys::json_schema(generator), kinds))
    }
}

impl JsonSchema for UplinkTable {
    fn schema_name() -> Cow<'static, str> {
        "UplinkTable".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds = UplinkConfig::schemas(generator);
        schema::one_of(schema::with_keys(&UplinkKeys::json_schema(generator), kinds))
    }
}

/// The JSON Schema (draft 2020-12) of the configuration file, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schema::for_editors(schemars::schema_for!(File).to_value())
}

/// Reads the file's text; what can go wrong before it is looked at has its own advice.
pub(super) fn read(path: &Path) -> Result<String, Diagnostic> {
    let wrong = |message: String, help: &str| {
        Err(Diagnostic::new(path.display().to_string(), message).help(help.to_owned()))
    };
    if path.is_dir() {
        return wrong(
            "this is a directory, not a configuration file".into(),
            "name the file itself, such as `--config DIRECTORY/tidegate.toml`",
        );
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return wrong("there is no such configuration file".into(), "name the file with `--config FILE`");
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return wrong(
                "the configuration file may not be read by this user".into(),
                "check its owner and mode with `ls -l`",
            );
        }
        Err(error) => {
            return wrong(
                format!("cannot read the configuration file: {error}"),
                "check the disk and the path",
            );
        }
    };
    String::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(
            error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default(),
        )
        .into_owned();
        Diagnostic::new(path.display().to_string(), "the file is not UTF-8 text from here on")
            .at(Place::of_offset(&valid, valid.len()))
            .help("save it as UTF-8; if it came over a modem or a damaged card, copy it again".to_owned())
    })
}

fn default_table_size() -> ByteSize {
    ByteSize(64 << 20)
}

pub(super) fn default_data_dir() -> PathBuf {
    "data".into()
}

fn default_output_queue() -> NonZeroUsize {
    thousand()
}

fn default_output_when_full() -> WhenQueueFull {
    // An output that moves late is worse than one that skips to the newest value.
    WhenQueueFull::DropOldest
}

fn thousand() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(999)
}
