//! The streams, tables and outputs that a rule may name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

/// What the configuration offers to rules. The names of streams, tables and outputs do not overlap.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Streams that are fed by connections; `None` until the columns of a stream without declared fields are
    /// known.
    pub inputs: BTreeMap<String, Option<SchemaRef>>,
    /// Those of `inputs` whose columns are inferred from the data: new ones come behind those that are known.
    pub inferred: BTreeSet<String>,
    /// Those of `inputs` whose `ts` is the time of arrival, by the box's clock.
    pub by_arrival: BTreeSet<String>,
    /// Streams that are fed by rules, with their declared columns.
    pub derived: BTreeMap<String, SchemaRef>,
    /// Reference tables; `None` until the columns of a table are known.
    pub tables: BTreeMap<String, Option<SchemaRef>>,
    /// Outputs.
    pub outputs: BTreeMap<String, OutputColumns>,
    /// Whether there is an uplink.
    pub uplink: bool,
    /// The rules whose rows some uplink takes. `None`: all.
    pub uplink_rules: Option<BTreeSet<String>>,
    /// What the box has, and asks for, where rules are plugins.
    pub plugins: Plugins,
}

/// What rules that are plugins find on a box.
#[derive(Debug, Clone, Default)]
pub struct Plugins {
    /// Who keeps what was compiled; `None`: it is compiled each time.
    pub compiled: Option<Arc<dyn CompiledPlugins>>,
    /// Public keys as minisign prints them. A signature by any of them is good.
    pub trusted_keys: Vec<String>,
    /// Whether a plugin without a signature is refused.
    pub must_be_signed: bool,
}

/// Keeps compiled plugins. What it hands out is looked at before it is used, and what it cannot keep is
/// compiled again. But whoever else can write there can have any code run.
pub trait CompiledPlugins: fmt::Debug + Send + Sync {
    /// What was put in under `key`: letters, digits and hyphens.
    fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// Keeps `code` under `key`, instead of what was there.
    fn put(&self, key: &str, code: &[u8]);
}

/// What an output asks of a rule's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputColumns {
    /// Columns that must be there, because the output's configuration names them.
    pub required: Vec<String>,
    /// The columns that there are, with their types; `None`: it takes any as they are.
    pub accepted: Option<SchemaRef>,
}

impl Catalog {
    /// Whether some uplink takes the rows of the rule called `rule`.
    #[must_use]
    pub fn takes(&self, rule: &str) -> bool {
        self.uplink_rules.as_ref().is_none_or(|rules| rules.contains(rule))
    }

    /// All names that may stand after FROM.
    pub fn readable(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().chain(self.derived.keys()).chain(self.tables.keys()).map(String::as_str)
    }

    /// All names that may stand after INSERT INTO.
    pub fn writable(&self) -> impl Iterator<Item = &str> {
        self.outputs
            .keys()
            .chain(self.derived.keys())
            .map(String::as_str)
            .chain(self.uplink.then_some("uplink"))
    }
}
