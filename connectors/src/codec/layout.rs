//! Where the values of a payload are, and the tree of keys that the decoder walks.

use schemars::JsonSchema;
use serde::Deserialize;
use tidegate_core::{FieldType, TS};

use super::column::Column;
use super::time::TimeFormat;
use super::{BinaryField, Format, Path, Pattern};

/// How many columns are inferred from the data of one stream. A payload whose keys are themselves data
/// (serial numbers, times) would grow the schema without end.
pub const MAX_INFERRED: usize = 256;

/// Where the values of a payload are.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// What the payload is.
    pub format: Format,
    /// Whether texts are numbers, where a column takes numbers.
    pub numbers_as_text: bool,
    /// Text columns that the caller gives with each message, such as the captures of a topic.
    pub captures: Vec<String>,
    /// A boolean column that the caller gives behind them, as `true` or `false`.
    pub flag: Option<String>,
    /// Where the event time is.
    pub ts: TsPlace,
    /// The array whose elements become rows.
    pub rows: Option<Path>,
    /// The other columns.
    pub fields: Fields,
    /// What takes a text apart, where the format is `regex`.
    pub pattern: Option<Pattern>,
    /// Where values are in bytes, where the format is `layout`.
    pub binary_fields: Vec<(String, BinaryField)>,
}

/// Where the event time is.
#[derive(Debug, Clone, PartialEq)]
pub enum TsPlace {
    /// The time of arrival.
    Arrival,
    /// In the payload.
    At {
        /// Where.
        path: Path,
        /// How it is written.
        time: TimeFormat,
        /// What becomes of a row in which it is absent, null or unreadable.
        missing: Missing,
    },
    /// The key `ts` of a recorded row: RFC 3339, or a number of nanoseconds (15 digits or more) or
    /// milliseconds. A row without it is an error.
    Recorded,
}

/// What becomes of a row without the time that its stream declares; either is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// It is left out.
    #[default]
    Drop,
    /// It gets the time of arrival.
    Arrival,
}

/// The columns besides `ts` and the captures.
#[derive(Debug, Clone, PartialEq)]
pub enum Fields {
    /// As the user has declared them.
    Declared(Vec<Field>),
    /// Taken from the data; nested names are joined with `_`. These are known already.
    Inferred(Vec<(String, FieldType)>),
}

/// A declared column.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The column's name.
    pub name: String,
    /// Its type.
    pub field_type: FieldType,
    /// Where its values are.
    pub path: Path,
    /// How they are written, if they are times.
    pub time: TimeFormat,
}

/// A layout that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Two columns have one name.
    #[error(
        "two columns are named `{0}`: rename one of them (`ts` is the event time, and topic captures are \
        columns too)"
    )]
    Twice(String),
    /// `^` without rows.
    #[error("the path \"{0}\" starts with `^`, which only means something where `rows` names an array")]
    NoRows(Path),
}

impl Layout {
    /// The layout of recorded rows: JSON objects whose keys are the names of the columns, every one with a
    /// `ts`.
    #[must_use]
    pub fn recorded(fields: &[(String, FieldType)]) -> Self {
        let fields = fields.iter().map(|(name, field_type)| Field {
            name: name.clone(),
            field_type: *field_type,
            path: Path::of_key(name),
            time: TimeFormat::guessed(),
        });
        Self {
            format: Format::Json,
            numbers_as_text: false,
            captures: Vec::new(),
            flag: None,
            ts: TsPlace::Recorded,
            rows: None,
            fields: Fields::Declared(fields.collect()),
            pattern: None,
            binary_fields: Vec::new(),
        }
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
    /// Times that are read here, by their place in [`Compiled::times`].
    pub(super) times: Vec<usize>,
    /// The value makes no inferred column: it is the time, or has the name of a column that comes from
    /// elsewhere.
    pub(super) left_out: bool,
    /// It came when there were as many inferred columns as there may be: its values are counted.
    pub(super) has_no_room: bool,
}

/// The keys that one object may have.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) keys: Vec<Key>,
    /// The key that is expected next: devices send their keys in the same order every time.
    pub(super) next: usize,
    /// In front of the names of inferred columns.
    pub(super) prefix: String,
    /// A path leads here.
    pub(super) declared: bool,
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
        self.keys.push(Key {
            name: name.into(),
            element: name.parse().ok(),
            columns: Vec::new(),
            times: Vec::new(),
            child: None,
            left_out: false,
            has_no_room: false,
        });
        self.keys.len() - 1
    }
}

/// A column of times, and where they are: their text is read, not their value.
pub(super) struct TimePlace {
    pub(super) column: usize,
    pub(super) path: Path,
}

/// A layout made ready: columns and trees of keys. Column 0 is `ts`, then come the captures.
pub(super) struct Compiled {
    pub(super) columns: Vec<Column>,
    pub(super) times: Vec<TimePlace>,
    /// Node [`ROW`] is a row, node [`ROOT`] the payload, as far as paths with `^` lead into it.
    pub(super) nodes: Vec<Node>,
}

pub(super) const ROW: usize = 0;
pub(super) const ROOT: usize = 1;

impl Compiled {
    pub(super) fn new(layout: &Layout) -> Result<Self, LayoutError> {
        let nodes = vec![Node::default(), Node::default()];
        let mut this = Self { columns: Vec::new(), times: Vec::new(), nodes };
        let ts = match &layout.ts {
            TsPlace::At { time, .. } => Column::time(TS, time.clone()),
            TsPlace::Arrival | TsPlace::Recorded => Column::time(TS, TimeFormat::guessed()),
        };
        let ts = this.add(ts)?;
        for capture in &layout.captures {
            this.add(Column::capture(capture, FieldType::Utf8))?;
        }
        if let Some(flag) = &layout.flag {
            this.add(Column::capture(flag, FieldType::Bool))?;
        }
        match &layout.ts {
            TsPlace::Arrival => {}
            TsPlace::At { path, .. } => this.place(ts, path, layout)?,
            TsPlace::Recorded => this.place(ts, &Path::of_key(TS), layout)?,
        }
        match &layout.fields {
            Fields::Declared(fields) => {
                for Field { name, field_type, path, time } in fields {
                    let column = match field_type {
                        FieldType::Timestamp => Column::time(name, time.clone()),
                        _ => Column::new(name, *field_type),
                    };
                    let column = this.add(column)?;
                    this.place(column, path, layout)?;
                }
            }
            Fields::Inferred(known) => {
                for (name, field_type) in known {
                    this.add(Column::inferred(name, *field_type))?;
                }
            }
        }
        Ok(this)
    }

    fn add(&mut self, column: Column) -> Result<usize, LayoutError> {
        if self.columns.iter().any(|known| known.name == column.name) {
            return Err(LayoutError::Twice(column.name.to_string()));
        }
        self.columns.push(column);
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
        let is_time =
            self.columns.get(column).is_some_and(|column| column.field_type == FieldType::Timestamp);
        let time = self.times.len();
        if is_time {
            self.times.push(TimePlace { column, path: path.clone() });
        }
        let mut node = if path.is_from_root() { ROOT } else { ROW };
        let mut names = path.names().iter().peekable();
        while let Some(name) = names.next() {
            let new_node = self.nodes.len();
            let Some(here) = self.nodes.get_mut(node) else { break };
            let key = here.keys.iter().position(|key| *key.name == **name).unwrap_or_else(|| here.add(name));
            let Some(key) = here.keys.get_mut(key) else { break };
            if names.peek().is_none() {
                if is_time {
                    key.left_out = true;
                    key.times.push(time);
                } else {
                    key.columns.push(column);
                }
                break;
            }
            let prefix = format!("{}{name}_", here.prefix);
            node = *key.child.get_or_insert(new_node);
            if node == new_node {
                self.nodes.push(Node { prefix, declared: true, ..Node::default() });
            }
        }
        Ok(())
    }
}
