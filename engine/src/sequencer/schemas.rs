//! Inferred columns, kept on disk: `DATA_DIR/schemas/STREAM.json`.
//!
//! A restart must not forget a column that a device sends once a day: rules that name it would not load until
//! then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tidegate_core::FieldType;
use tidegate_core::schema::{TS, ts_field};

use crate::config::Config;
use crate::disk::{Disk, SystemDisk};
use crate::system;

/// The columns of input streams.
pub struct SchemaStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    known: BTreeMap<String, SchemaRef>,
    /// streams whose columns the disk has not taken
    unkept: BTreeSet<String>,
    /// whether a damaged file is renamed, so that the next one can be kept
    sets_aside: bool,
}

impl fmt::Debug for SchemaStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaStore")
            .field("dir", &self.dir)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// in the order of the columns, `ts` left out
    fields: Vec<(String, FieldType)>,
}

/// What is new about the columns of a stream, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// columns that were not there, each with its type
    pub new: Vec<String>,
    /// columns with another type, each with the old and the new one
    pub changed: Vec<String>,
}

impl SchemaStore {
    /// The store of a box: the columns that are declared, and a place in its data directory for those that
    /// are not.
    #[must_use]
    pub fn new(config: &Config, disk: Arc<dyn Disk>) -> Self {
        let declared =
            config.streams.iter().filter_map(|(name, stream)| Some((name.clone(), stream.schema()?)));
        let own = system::STREAMS.iter().map(|own| (own.name.to_owned(), Arc::clone(own.schema())));
        Self {
            disk,
            dir: config.data_dir.join("schemas"),
            known: declared.chain(own).collect(),
            unkept: BTreeSet::new(),
            sets_aside: true,
        }
    }

    /// What a box would find, for a look from outside: nothing is changed on disk.
    #[must_use]
    pub fn look(config: &Config) -> Self {
        let mut store = Self { sets_aside: false, ..Self::new(config, Arc::new(SystemDisk)) };
        config.streams.keys().for_each(|stream| drop(store.load(stream, None)));
        store
    }

    /// The inferred columns of `stream` that were kept, besides `ts`. When their file cannot be read, those
    /// that were `in_force` at the last snapshot count, and a damaged file is set aside. Streams whose
    /// columns are declared have none.
    pub fn load(&mut self, stream: &str, in_force: Option<SchemaRef>) -> Vec<(String, FieldType)> {
        if self.known.contains_key(stream) {
            return Vec::new();
        }
        let fields = match self.read(stream) {
            Ok(fields) => fields,
            // Nobody has kept any, or a person has deleted the file to have the columns inferred anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                let path = self.path(stream);
                let aside = path.with_extension("json.damaged");
                let is_aside = self.sets_aside
                    && error.kind() == io::ErrorKind::InvalidData
                    && self.disk.rename(&path, &aside).is_ok();
                let Some(schema) = in_force else {
                    tracing::error!(
                        stream,
                        path = %path.display(),
                        %error,
                        is_aside,
                        "cannot read the kept columns; they are inferred anew"
                    );
                    return Vec::new();
                };
                tracing::warn!(
                    stream,
                    path = %path.display(),
                    %error,
                    is_aside,
                    "cannot read the kept columns; those of the last snapshot count"
                );
                self.unkept.insert(stream.to_owned());
                typed(&schema)
            }
        };
        let columns = fields.iter().map(|(name, field_type)| Field::new(name, field_type.data_type(), true));
        let schema = Schema::new(std::iter::once(ts_field()).chain(columns).collect::<Vec<_>>());
        self.known.insert(stream.to_owned(), Arc::new(schema));
        fields
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

    /// What is new about `schema`, if it is other than what was known of `stream`; then it is kept, in memory
    /// and on disk.
    pub fn learn(&mut self, stream: &str, schema: &SchemaRef) -> Option<News> {
        let known = self.known.get(stream);
        if known.is_some_and(|known| known == schema) {
            return None;
        }
        let mut news = News::default();
        for (name, field_type) in typed(schema) {
            let before = known
                .and_then(|known| known.field_with_name(&name).ok())
                .map(|field| FieldType::from_arrow(field.data_type()));
            match before.flatten() {
                None => news.new.push(format!("{name} {field_type}")),
                Some(before) if before != field_type => {
                    news.changed.push(format!("{name} {before} -> {field_type}"))
                }
                Some(_) => {}
            }
        }
        self.known.insert(stream.to_owned(), Arc::clone(schema));
        self.unkept.insert(stream.to_owned());
        self.keep();
        Some(news)
    }

    /// Stores the columns that the disk did not take when they were new.
    pub fn keep(&mut self) {
        for stream in std::mem::take(&mut self.unkept) {
            let Some(schema) = self.known.get(&stream) else { continue };
            if let Err(error) = self.store(&stream, &Stored { fields: typed(schema) }) {
                tracing::warn!(
                    stream,
                    dir = %self.dir.display(),
                    %error,
                    "cannot keep the columns on disk; it is tried again at the next snapshot"
                );
                self.unkept.insert(stream);
            }
        }
    }

    fn read(&self, stream: &str) -> io::Result<Vec<(String, FieldType)>> {
        let text = self.disk.read(&self.path(stream))?;
        let Stored { fields } = serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let mut names = BTreeSet::from([TS]);
        match fields.iter().find(|(name, _)| !names.insert(name)) {
            Some((name, _)) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has the column `{name}` twice")))
            }
            None => Ok(fields),
        }
    }

    fn store(&self, stream: &str, stored: &Stored) -> io::Result<()> {
        self.disk.make_dir(&self.dir)?;
        let path = self.path(stream);
        let fresh = path.with_extension("json.new");
        self.disk.write(&fresh, serde_json::to_string_pretty(stored)?.as_bytes())?;
        self.disk.rename(&fresh, &path)?;
        self.disk.sync_dir(&self.dir)
    }

    fn path(&self, stream: &str) -> PathBuf {
        self.dir.join(format!("{stream}.json"))
    }
}

/// The columns of `schema` besides `ts`.
pub(crate) fn typed(schema: &SchemaRef) -> Vec<(String, FieldType)> {
    let columns = schema.fields().iter().filter(|field| field.name() != TS);
    columns
        .filter_map(|field| Some((field.name().clone(), FieldType::from_arrow(field.data_type())?)))
        .collect()
}

#[cfg(test)]
mod tests;
