//! Inferred columns, kept on disk: `DATA_DIR/schemas/STREAM.json`.
//!
//! A restart must not forget a column that a device sends once a day: rules that name it would not load until then.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tidegate_core::FieldType;
use tidegate_core::schema::{TS, ts_field};

use crate::config::Config;

/// The columns of input streams.
#[derive(Debug)]
pub struct SchemaStore {
    dir: PathBuf,
    known: BTreeMap<String, SchemaRef>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// in the order of the columns, `ts` left out
    fields: Vec<(String, FieldType)>,
}

impl SchemaStore {
    /// The store of a box: the columns that are declared, and a place in its data directory for those that are not.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let declared = config.streams.iter().filter_map(|(name, stream)| Some((name.clone(), stream.schema()?)));
        Self { dir: config.data_dir.join("schemas"), known: declared.collect() }
    }

    /// The inferred columns of `stream` that were kept, besides `ts`. A file that cannot be read is set aside: its columns come again with the data.
    /// Streams whose columns are declared have none.
    pub fn load(&mut self, stream: &str) -> Vec<(String, FieldType)> {
        if self.known.contains_key(stream) {
            return Vec::new();
        }
        let path = self.path(stream);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(stream, path = %path.display(), %error, "cannot read the kept columns; they are inferred anew");
                return Vec::new();
            }
        };
        match serde_json::from_str::<Stored>(&text) {
            Ok(stored) => {
                let columns = stored.fields.iter().map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
                let schema = Schema::new(std::iter::once(ts_field()).chain(columns).collect::<Vec<_>>());
                self.known.insert(stream.to_owned(), Arc::new(schema));
                stored.fields
            }
            Err(error) => {
                let aside = path.with_extension("json.damaged");
                let moved = fs::rename(&path, &aside);
                tracing::warn!(stream, path = %path.display(), %error, moved = moved.is_ok(), "the kept columns are damaged; they are set aside and inferred anew");
                Vec::new()
            }
        }
    }

    /// The columns of `stream`, if they are known.
    #[must_use]
    pub fn get(&self, stream: &str) -> Option<&SchemaRef> {
        self.known.get(stream)
    }

    /// All columns that are known, by stream.
    pub fn known(&self) -> impl Iterator<Item = (&String, &SchemaRef)> {
        self.known.iter()
    }

    /// Whether `schema` is other than what was known of `stream`; then it is kept, in memory and on disk.
    pub fn widened(&mut self, stream: &str, schema: &SchemaRef) -> bool {
        if self.known.get(stream).is_some_and(|known| known == schema) {
            return false;
        }
        self.known.insert(stream.to_owned(), Arc::clone(schema));
        let fields = schema.fields().iter().filter(|field| field.name() != TS);
        let fields = fields.filter_map(|field| Some((field.name().clone(), FieldType::of(field.data_type())?))).collect();
        if let Err(error) = self.store(stream, &Stored { fields }) {
            tracing::warn!(stream, dir = %self.dir.display(), %error, "cannot keep the columns on disk; after a restart rules wait for data again");
        }
        true
    }

    fn store(&self, stream: &str, stored: &Stored) -> std::io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let path = self.path(stream);
        let fresh = path.with_extension("json.new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(serde_json::to_string_pretty(stored)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, path)
    }

    fn path(&self, stream: &str) -> PathBuf {
        self.dir.join(format!("{stream}.json"))
    }
}
