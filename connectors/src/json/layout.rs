//! Where the values of a payload are, and the tree of keys that the decoder walks.

use tidegate_core::{FieldType, TS};

use super::column::Column;
use super::time::{Numbers, TimeUnit};
use crate::Path;

/// How many columns are inferred from the data of one stream. A payload whose keys are themselves data (serial numbers, times) would
/// grow the schema without end.
pub const MAX_INFERRED: usize = 256;

/// Where the values of a payload are.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Text columns that the caller gives with each message, such as the captures of a topic.
    pub captures: Vec<String>,
    /// Where the event time is.
    pub ts: TsPlace,
    /// The array whose elements become rows.
    pub rows: Option<Path>,
    /// The other columns.
    pub fields: Fields,
}

/// Where the event time is.
#[derive(Debug, Clone, PartialEq)]
pub enum TsPlace {
    /// The time of arrival.
    Arrival,
    /// RFC 3339 text, or a number in this unit; the time of arrival where it is absent, null, or (with a complaint) unreadable.
    At(Path, TimeUnit),
    /// The key `ts`, which every row must have: RFC 3339 text, or a number of nanoseconds (14 digits or more) or milliseconds.
    Required,
}

/// The columns besides `ts` and the captures.
#[derive(Debug, Clone, PartialEq)]
pub enum Fields {
    /// Name, type, and place of each.
    Declared(Vec<(String, FieldType, Path)>),
    /// Taken from the data; nested names are joined with `_`. These are known already.
    Inferred(Vec<(String, FieldType)>),
}

/// A layout that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Two columns have one name.
    #[error("two columns are named `{0}`: rename one of them (`ts` is the event time, and topic captures are columns too)")]
    Twice(String),
    /// `^` without rows.
    #[error("the path \"{0}\" starts with `^`, which only means something where `rows` names an array")]
    NoRows(Path),
}

impl Layout {
    /// The layout of recorded rows: JSON objects whose keys are the names of the columns, every one with a `ts`.
    #[must_use]
    pub fn recorded(fields: &[(String, FieldType)]) -> Self {
        let fields = fields.iter().map(|(name, field_type)| (name.clone(), *field_type, Path::of_key(name))).collect();
        Self { captures: Vec::new(), ts: TsPlace::Required, rows: None, fields: Fields::Declared(fields) }
    }
}

/// What to do with one key of an object, or one element of an array.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: Box<str>,
    /// The name as an array's index.
    pub(super) element: Option<usize>,
    /// Columns that take a scalar.
    pub(super) columns: Vec<usize>,
    /// The node for what is inside.
    pub(super) child: Option<usize>,
}

/// The keys that one object may have.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) keys: Vec<Key>,
    /// The key that is expected next: devices send their keys in the same order every time.
    pub(super) next: usize,
    /// In front of the names of inferred columns.
    pub(super) prefix: String,
}

impl Node {
    /// The index of `name` in `keys`.
    pub(super) fn find(&mut self, name: &str) -> Option<usize> {
        let found = match self.keys.get(self.next) {
            Some(key) if &*key.name == name => self.next,
            _ => self.keys.iter().position(|key| &*key.name == name)?,
        };
        self.next = found + 1;
        Some(found)
    }

    pub(super) fn find_element(&self, index: usize) -> Option<usize> {
        self.keys.iter().position(|key| key.element == Some(index))
    }

    pub(super) fn add(&mut self, name: &str) -> usize {
        self.keys.push(Key { name: name.into(), element: name.parse().ok(), columns: Vec::new(), child: None });
        self.keys.len() - 1
    }
}

/// A layout made ready: columns and trees of keys. Column 0 is `ts`, then come the captures.
pub(super) struct Compiled {
    pub(super) columns: Vec<Column>,
    /// Node [`ROW`] is a row, node [`ROOT`] the payload, as far as paths with `^` lead into it.
    pub(super) nodes: Vec<Node>,
}

pub(super) const ROW: usize = 0;
pub(super) const ROOT: usize = 1;

impl Compiled {
    pub(super) fn new(layout: &Layout) -> Result<Self, LayoutError> {
        let mut this = Self { columns: Vec::new(), nodes: vec![Node::default(), Node::default()] };
        let numbers = match layout.ts {
            TsPlace::At(_, unit) => Numbers::Unit(unit),
            TsPlace::Arrival | TsPlace::Required => Numbers::Guessed,
        };
        let ts = this.column(TS, FieldType::Timestamp, numbers)?;
        for capture in &layout.captures {
            let column = this.column(capture, FieldType::Utf8, Numbers::Guessed)?;
            if let Some(column) = this.columns.get_mut(column) {
                column.per_row = false;
            }
        }
        match &layout.ts {
            TsPlace::Arrival => {}
            TsPlace::At(path, _) => this.place(ts, path, layout)?,
            TsPlace::Required => this.place(ts, &Path::of_key(TS), layout)?,
        }
        // Recorded rows hold times as `ts` does; devices that send a second time are taken to send milliseconds.
        let numbers = if layout.ts == TsPlace::Required { Numbers::Guessed } else { Numbers::Unit(TimeUnit::Ms) };
        match &layout.fields {
            Fields::Declared(fields) => {
                for (name, field_type, path) in fields {
                    let column = this.column(name, *field_type, numbers)?;
                    this.place(column, path, layout)?;
                }
            }
            Fields::Inferred(known) => {
                for (name, field_type) in known {
                    let column = this.column(name, *field_type, numbers)?;
                    if let Some(column) = this.columns.get_mut(column) {
                        column.inferred = true;
                    }
                }
            }
        }
        Ok(this)
    }

    fn column(&mut self, name: &str, field_type: FieldType, numbers: Numbers) -> Result<usize, LayoutError> {
        if self.columns.iter().any(|column| &*column.name == name) {
            return Err(LayoutError::Twice(name.to_owned()));
        }
        self.columns.push(Column::new(name, field_type, numbers));
        Ok(self.columns.len() - 1)
    }

    fn place(&mut self, column: usize, path: &Path, layout: &Layout) -> Result<(), LayoutError> {
        if path.is_from_root() {
            if layout.rows.is_none() {
                return Err(LayoutError::NoRows(path.clone()));
            }
            if let Some(column) = self.columns.get_mut(column) {
                column.per_row = false;
            }
        }
        let mut node = if path.is_from_root() { ROOT } else { ROW };
        let mut names = path.names().iter().peekable();
        while let Some(name) = names.next() {
            let new_node = self.nodes.len();
            let Some(here) = self.nodes.get_mut(node) else { break };
            let key = here.keys.iter().position(|key| *key.name == **name).unwrap_or_else(|| here.add(name));
            let Some(key) = here.keys.get_mut(key) else { break };
            if names.peek().is_none() {
                key.columns.push(column);
                break;
            }
            node = *key.child.get_or_insert(new_node);
            if node == new_node {
                self.nodes.push(Node::default());
            }
        }
        Ok(())
    }
}
