//! The decoder: columns under construction, and what to do with each value that the visitors in `visit` meet.

mod visit;

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::de::{self, DeserializeSeed};
use tidegate_core::{FieldType, TS};

use crate::json::column::{Column, Scalar, WrongType};
use crate::json::layout::{Compiled, Layout, LayoutError, MAX_INFERRED, Node, ROOT, ROW};
use crate::json::time::Numbers;
use crate::json::{Fields, TsPlace};
use visit::{Object, Rows, Within};

/// Keys, seen or containing others, that an inferred layout remembers: a few times the columns, for objects around values.
const MAX_KEYS: usize = 4 * MAX_INFERRED;

/// Turns payloads of one stream into rows.
pub struct Decoder {
    columns: Vec<Column>,
    nodes: Vec<Node>,
    /// columns `1 ..= captures`
    captures: usize,
    rows_path: Option<Vec<String>>,
    /// Whether any column is read from the payload instead of the row: those need a second pass, since the values may follow the rows.
    reads_root: bool,
    inferred: bool,
    ts_required: bool,
    keys: usize,
    rows: usize,
    arrival_ns: i64,
    complaint: Complaint,
    schema: Option<SchemaRef>,
}

/// Values that were replaced by null because they do not fit their column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaint {
    /// how many
    pub count: u64,
    /// what was wrong with the first
    pub first: String,
}

/// A message that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing in it.
    #[error("the payload is empty")]
    Empty,
    /// It is not JSON.
    #[error("not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// It is JSON of another shape.
    #[error("{0}")]
    Shape(#[source] serde_json::Error),
    /// The caller gave another number of captures than the layout has.
    #[error("{given} captures were given for {expected} capture columns")]
    Captures {
        /// how many
        given: usize,
        /// how many there are in the layout
        expected: usize,
    },
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_data() { Self::Shape(error) } else { Self::NotJson(error) }
    }
}

impl Decoder {
    /// A decoder for payloads of this layout.
    ///
    /// # Errors
    /// When two columns have one name, or a path starts with `^` although there is no `rows`.
    pub fn new(layout: &Layout) -> Result<Self, LayoutError> {
        let Compiled { columns, nodes } = Compiled::new(layout)?;
        let reads_root = nodes.get(ROOT).is_some_and(|root| !root.keys.is_empty());
        Ok(Self {
            columns,
            nodes,
            captures: layout.captures.len(),
            rows_path: layout.rows.as_ref().map(|path| path.names().to_vec()),
            reads_root,
            inferred: matches!(layout.fields, Fields::Inferred(_)),
            ts_required: layout.ts == TsPlace::Required,
            keys: 0,
            rows: 0,
            arrival_ns: 0,
            complaint: Complaint::default(),
            schema: None,
        })
    }

    /// Rows that were decoded since the last [`Self::finish`].
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the rows of one message and returns how many they are.
    ///
    /// # Errors
    /// When the payload is not JSON of the expected shape: no row is added then. Columns that it introduced stay.
    pub fn decode(&mut self, payload: &[u8], captures: &[&str], arrival_ns: i64) -> Result<usize, DecodeError> {
        if payload.is_empty() {
            return Err(DecodeError::Empty);
        }
        if captures.len() != self.captures {
            return Err(DecodeError::Captures { given: captures.len(), expected: self.captures });
        }
        let start = self.rows;
        self.arrival_ns = arrival_ns;
        match self.read(payload) {
            Ok(()) => {
                for (column, capture) in self.columns.iter_mut().skip(1).zip(captures) {
                    for _ in start..self.rows {
                        // The only thing that can be wrong is 2 GiB of text; then it is null.
                        let _ = column.push(Scalar::Text(capture));
                    }
                }
                Ok(self.rows - start)
            }
            Err(error) => {
                self.truncate(start);
                Err(error.into())
            }
        }
    }

    fn read(&mut self, payload: &[u8]) -> Result<(), serde_json::Error> {
        let start = self.rows;
        let mut json = serde_json::Deserializer::from_slice(payload);
        match self.rows_path.take() {
            None => Rows { decoder: self, single: true }.deserialize(&mut json)?,
            Some(path) => {
                let result = Within { path: &path, decoder: self, start, whole: &path }.deserialize(&mut json);
                self.rows_path = Some(path);
                if !result? {
                    let path = self.rows_path.as_ref().map(|path| path.join(".")).unwrap_or_default();
                    return Err(de::Error::custom(format_args!("there is no array at \"{path}\" that could become rows")));
                }
            }
        }
        json.end()?;
        if self.reads_root && self.rows > start {
            self.read_root(payload, start)?;
        }
        Ok(())
    }

    /// Reads the values outside the rows, and gives them to every row.
    fn read_root(&mut self, payload: &[u8], start: usize) -> Result<(), serde_json::Error> {
        let end = self.rows;
        // Values land in the row that is being built: for now that is the first one of this message.
        self.rows = start;
        let result = Object { decoder: self, node: ROOT }.deserialize(&mut serde_json::Deserializer::from_slice(payload));
        self.rows = end;
        result?;
        let captures = self.captures;
        let arrival_ns = self.arrival_ns;
        let from_root = self.columns.iter_mut().enumerate().filter(|(index, column)| !column.per_row && !(1..=captures).contains(index));
        for (index, column) in from_root {
            if column.len() == start {
                column.push_null();
            }
            if index == 0 && !column.is_valid(start) {
                column.truncate(start);
                column.push_ns(arrival_ns);
            }
            while column.len() < end {
                column.push_again(start);
            }
        }
        Ok(())
    }

    /// Takes the rows that were decoded; none if there are none.
    pub fn finish(&mut self) -> Option<RecordBatch> {
        if self.rows == 0 {
            return None;
        }
        let rows = std::mem::take(&mut self.rows);
        let schema = self.schema();
        let arrays = self
            .columns
            .iter_mut()
            .map(|column| {
                column.fill(rows);
                column.finish()
            })
            .collect();
        // Every column has the schema's type and `rows` rows, so this cannot fail.
        RecordBatch::try_new_with_options(schema, arrays, &RecordBatchOptions::new().with_row_count(Some(rows))).ok()
    }

    /// The columns: `ts`, the captures, then the fields, inferred ones in the order in which they were first seen.
    #[must_use]
    pub fn schema(&mut self) -> SchemaRef {
        Arc::clone(self.schema.get_or_insert_with(|| {
            let fields = self.columns.iter().map(|column| Field::new(&*column.name, column.field_type.data_type(), &*column.name != TS));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }))
    }

    /// Takes the complaint about values of the wrong type since the last call, if there were any.
    pub fn take_complaint(&mut self) -> Option<Complaint> {
        (self.complaint.count > 0).then(|| std::mem::take(&mut self.complaint))
    }

    fn complain(&mut self, column: usize, found: impl fmt::Display) {
        self.complaint.count += 1;
        if self.complaint.count == 1
            && let Some(column) = self.columns.get(column)
        {
            let expected = match column.field_type {
                FieldType::Bool => "bool",
                FieldType::Int64 => "int64",
                FieldType::Float64 => "float64",
                FieldType::Utf8 => "utf8",
                FieldType::Timestamp => "a time (RFC 3339 with an offset, or a number in the configured unit)",
            };
            self.complaint.first = format!("field {}: expected {expected}, found {found}", column.name);
        }
    }

    fn truncate(&mut self, rows: usize) {
        self.rows = rows;
        for column in &mut self.columns {
            column.truncate(rows);
        }
    }

    /// Forgets what the unfinished row has in it.
    fn begin_row(&mut self) {
        if let Some(node) = self.nodes.get_mut(ROW) {
            node.next = 0;
        }
    }

    /// Ends a row: columns without a value get null, `ts` the time of arrival.
    fn end_row<E: de::Error>(&mut self) -> Result<(), E> {
        let rows = self.rows;
        for (index, column) in self.columns.iter_mut().enumerate().filter(|(_, column)| column.per_row) {
            let absent = column.len() <= rows;
            if index == 0 {
                if absent || !column.is_valid(rows) {
                    if self.ts_required {
                        return Err(E::custom("the row has no readable `ts`: write RFC 3339 text, or a number of ms or ns since 1970"));
                    }
                    column.truncate(rows);
                    column.push_ns(self.arrival_ns);
                }
            } else if absent {
                column.push_null();
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Writes a value into the columns of a key, in the row that is being built; an earlier one of the same key gives way.
    fn put<E: de::Error>(&mut self, place: Place, value: Scalar<'_>) -> Result<(), E> {
        let Some(key) = self.nodes.get(place.node).and_then(|node| node.keys.get(place.key)) else { return Ok(()) };
        if key.columns.is_empty() && self.inferred && value != Scalar::Null {
            self.infer(place, value)?;
        }
        for index in 0.. {
            let Some(column) = self.column_of(place, index) else { break };
            self.write(column, value);
        }
        Ok(())
    }

    fn column_of(&self, place: Place, index: usize) -> Option<usize> {
        self.nodes.get(place.node)?.keys.get(place.key)?.columns.get(index).copied()
    }

    fn write(&mut self, index: usize, value: Scalar<'_>) {
        let Some(column) = self.columns.get_mut(index) else { return };
        column.truncate(self.rows);
        let before = column.field_type;
        let result = column.push(value);
        if column.field_type != before {
            self.schema = None;
        }
        if let Err(WrongType) = result {
            self.complain(index, value);
        }
    }

    /// Makes or finds the column of a key that was seen for the first time with a value.
    fn infer<E: de::Error>(&mut self, place: Place, value: Scalar<'_>) -> Result<(), E> {
        let Some(node) = self.nodes.get_mut(place.node) else { return Ok(()) };
        let prefix = node.prefix.clone();
        let Some(key) = node.keys.get_mut(place.key) else { return Ok(()) };
        let name = format!("{prefix}{}", key.name);
        let fixed = 1 + self.captures;
        let column = match self.columns.iter().position(|column| *column.name == *name) {
            // `ts` and captures come from elsewhere.
            Some(column) if column < fixed => {
                self.complaint.count += 1;
                if self.complaint.count == 1 {
                    self.complaint.first = format!(
                        "the payload's key {name} is not taken: a column of that name exists already; declare `fields` to rename it"
                    );
                }
                return Ok(());
            }
            Some(column) => column,
            None if self.columns.len() >= MAX_INFERRED => {
                return Err(E::custom(format_args!(
                    "column {name} would be one more than {MAX_INFERRED} inferred columns: if the payload's keys are data, declare `fields`"
                )));
            }
            None => {
                let narrowest = value.narrowest().unwrap_or(FieldType::Utf8);
                let mut column = Column::new(&name, narrowest, Numbers::Guessed);
                column.inferred = true;
                column.fill(self.rows);
                self.columns.push(column);
                self.schema = None;
                self.columns.len() - 1
            }
        };
        key.columns.push(column);
        Ok(())
    }

    /// The key's index in its node; none if nobody wants its value.
    fn find<E: de::Error>(&mut self, node: usize, name: &str) -> Result<Option<usize>, E> {
        let Some(here) = self.nodes.get_mut(node) else { return Ok(None) };
        if let Some(found) = here.find(name) {
            return Ok(Some(found));
        }
        if !self.inferred || node == ROOT {
            return Ok(None);
        }
        if self.keys >= MAX_KEYS {
            return Err(E::custom(format_args!(
                "key {name:?} would be one more than {MAX_KEYS} different keys: if the payload's keys are data, declare `fields`"
            )));
        }
        self.keys += 1;
        Ok(Some(here.add(name)))
    }

    /// The node for the object under a key; none if nobody wants what is in it.
    fn child(&mut self, place: Place) -> Option<usize> {
        let new_node = self.nodes.len();
        let node = self.nodes.get_mut(place.node)?;
        let key = node.keys.get_mut(place.key)?;
        if let Some(child) = key.child {
            return Some(child);
        }
        if !self.inferred || !key.columns.is_empty() {
            return None;
        }
        let prefix = format!("{}{}_", node.prefix, key.name);
        key.child = Some(new_node);
        self.nodes.push(Node { prefix, ..Node::default() });
        Some(new_node)
    }

    /// Whether a key has a column that takes text, and so JSON as it is.
    fn takes_json(&self, place: Place) -> bool {
        let Some(key) = self.nodes.get(place.node).and_then(|node| node.keys.get(place.key)) else { return false };
        if key.columns.is_empty() {
            return self.inferred && key.child.is_none();
        }
        key.columns
            .iter()
            .any(|column| self.columns.get(*column).is_some_and(|column| column.inferred || column.field_type == FieldType::Utf8))
    }

    fn refuse(&mut self, place: Place, found: &str) {
        for index in 0.. {
            let Some(column) = self.column_of(place, index) else { break };
            let rows = self.rows;
            if let Some(column) = self.columns.get_mut(column) {
                column.truncate(rows);
                column.push_null();
            }
            self.complain(column, found);
        }
    }
}

/// A key of a node.
#[derive(Clone, Copy)]
struct Place {
    node: usize,
    key: usize,
}
